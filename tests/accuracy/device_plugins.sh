#!/bin/bash
# device_plugins.sh HALLMARK FOLDER [host]: CUDA plug-ins on a real device: each wrong one fails for its reason, and the right
# version of its op passes the same case. With "host", what needs no device: the faults of the fault table that the plug-ins
# re-create fail for the same reasons on the same cases, and ref passes them.
# Exit 77 (skipped) where there is no device.
set -u
hallmark=$1 folder=$2 host=${3:-} number=1000
results=$(mktemp -d) && trap 'rm -rf "$results"' EXIT
judge() { # IMPL SECONDS CASE
    "$hallmark" certify --impl "$1" --timeout "$2" --require invariance --case "$3" 2>&1
}
# One a core at a time; what is said is kept, to be printed in order.
expect() { # NAME IMPL PATTERN SECONDS CASE
    number=$((number + 1))
    while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
    (
        found=$(judge "$2" "$4" "$5" | grep -E -m 1 -- "$3")
        echo "$1: ${found:-NOT \"$3\" for $5}"
        [ -n "$found" ]
    ) >"$results/$number" || echo >"$results/bad" &
}
finish() {
    wait
    cat "$results"/1*
    [ ! -e "$results/bad" ]
    exit
}
passes='^1 cases: 1 passed'

# The names of device_faults.cu, the fault of the table that each is (- if it is of no row's kind), the reason, the case.
faults='
EPS_OUTSIDE_ROOT|rms_norm.eps_outside_root|elements are outside: out\[|rms_norm x=bf16[5,1000] weight=bf16 gen=tiny
EPS_FIXED|rms_norm.eps_1e_5|elements are outside: out\[|rms_norm x=bf16[5,1000] weight=bf16 gen=tiny
SUM_IN_BF16|rms_norm.sum_in_t|elements are outside|rms_norm x=bf16[5,4096] weight=bf16
ROUNDED_BEFORE_WEIGHT|rms_norm.norm_first_extra|elements are outside: out\[|rms_norm x=bf16[5,1000] weight=bf16
ONE_PLUS_IN_BF16|rms_norm.one_plus_in_t|elements are outside: out\[|rms_norm x=bf16[5,1000] weight=bf16 weight_form=one_plus
TRUNCATED|rms_norm.store_truncated|elements are outside: out\[|rms_norm x=bf16[5,1000] weight=none
TAIL_MISSED|rms_norm.last_column_missing|elements are outside: out\[|rms_norm x=bf16[5,1001] weight=none
NO_BARRIER|rms_norm.rs_previous_row|elements are outside: out\[|rms_norm x=bf16[64,1000] weight=none
ROOT_OF_8_BITS|rms_norm.rs_in_t|elements are outside|rms_norm x=bf16[64,1000] weight=none
INT32_OFFSET|rms_norm.x_int32|elements are outside: out\[|rms_norm x=bf16[3,520] weight=none stride=x:4294975488,1
ONE_BATCH|-|differs: the first 777 of 1025 alone|rms_norm x=bf16[1025,64] weight=none batches=every
RUN_DEPENDENT|-|not invariant|rms_norm x=bf16[16,4096] weight=none
RESIDUAL_NOT_WRITTEN|fused_add_rms_norm.residual_not_written|elements are outside: residual_out\[|fused_add_rms_norm x=bf16[5,1000] weight=none
RESIDUAL_AS_F32|fused_add_rms_norm.residual_f32|elements are outside: residual_out\[|residual_out was written as f32|fused_add_rms_norm x=bf16[5,1000] weight=none
READS_UNROUNDED|fused_add_rms_norm.reads_unrounded|elements are outside: out\[|fused_add_rms_norm x=bf16[5,1000] weight=none
MASKED_LANES_COUNTED|layer_norm.masked_lanes_counted|elements are outside: out\[|layer_norm x=f32[5,1000] weight=none bias=none gen=offset16
OTHER_PAIRING|rotary_embedding.other_pairing|elements are outside|rotary_embedding query=bf16[7,4,128] key=bf16[7,1,128] positions=i64[7] cos_sin_cache=bf16[64,64]
TABLE_IN_BF16|rotary_embedding.table_in_bf16|elements are outside|rotary_embedding query=bf16[7,4,128] key=bf16[7,1,128] positions=i64[7] cos_sin_cache=f32[64,64]
OFFSET_IGNORED|rotary_embedding.offset_ignored|elements are outside|rotary_embedding query=bf16[7,4,128] key=bf16[7,1,128] positions=i64[7] cos_sin_cache=bf16[64,64] rope_dim_offset=64
KEY_NOT_ROTATED|rotary_embedding.key_not_rotated|elements are outside: key_out\[|rotary_embedding query=bf16[7,4,128] key=bf16[7,1,128] positions=i64[7] cos_sin_cache=bf16[64,64]
Y_FROM_NEW_X|rotary_embedding.y_from_new_x|elements are outside|rotary_embedding query=bf16[7,4,128] positions=i64[7] cos_sin_cache=f32[64,128] alias=query_out:query
POSITION_IN_BF16|rotary_embedding.position_bf16|elements are outside|rotary_embedding query=bf16[64,2,64] positions=i64[64] cos_sin_cache=bf16[5000,64]
HALF_OF_ROPE|concat_mla_q.rope_half|elements are outside: q_out\[|concat_mla_q ql_nope=bf16[3,4,512] q_pe=bf16[3,4,64]
ROPE_DENSE|concat_mla_q.rope_dense|elements are outside: q_out\[|concat_mla_q ql_nope=bf16[3,4,512] q_pe=bf16[3,4,64] stride=q_pe:768,192,1
ROUNDED_TWICE|silu_and_mul.other_rounding|elements are outside: out\[|silu_and_mul x=bf16[5,2000] out=bf16[5,1000]
FLOOR_MISSING|indexer_k_quant_and_cache.no_floor|elements are outside: kv_cache\[|indexer_k_quant_and_cache k=bf16[12,128] slot_mapping=i64[12] kv_cache=u8[1,16,132] floor=1 gen=tiny
RECIPROCAL|indexer_k_quant_and_cache.reciprocal|elements are outside: kv_cache\[|indexer_k_quant_and_cache k=bf16[12,128] slot_mapping=i64[12] kv_cache=u8[1,16,132] floor=8.916666030883789
OTHER_LAYOUT|indexer_k_quant_and_cache.other_layout|elements are outside: kv_cache\[|indexer_k_quant_and_cache k=bf16[12,128] slot_mapping=i64[12] kv_cache=u8[3,16,132] layout=shuffle
BLOCK_STRIDE|indexer_k_quant_and_cache.block_stride_ignored|elements are outside: kv_cache\[|indexer_k_quant_and_cache k=bf16[12,128] slot_mapping=i64[12] kv_cache=u8[3,16,132] stride=kv_cache:2400,132,1
PADDING_WRITTEN|indexer_k_quant_and_cache.padding_wraps|elements are outside: kv_cache\[|indexer_k_quant_and_cache k=bf16[12,128] slot_mapping=i64[12] kv_cache=u8[3,16,132]
WRONG_REQUEST|cp_gather_indexer_k_quant_cache.bound_inclusive|elements are outside: dst_|cp_gather_indexer_k_quant_cache kv_cache=u8[9,16,132] block_table=i32[5,4] cu_seq_lens=i32[6] dst_k=u8[60,128] dst_scale=f32[60,1]
INEXACT_BINS|top_k_per_row.keys_bf16|elements are outside: indices\[|top_k_per_row logits=f32[9,300] row_starts=i32[9] row_ends=i32[9] seq_lens=none indices=i32[9,32] gen=crowd_thousandth
BIN_CAPPED|top_k_per_row.bin_capped|elements are outside: indices\[|top_k_per_row logits=f32[4,12000] row_starts=i32[4] row_ends=i32[4] seq_lens=none indices=i32[4,512] gen=crowd_thousandth
'

each_fault() { # FUNCTION: calls it with name, fault, pattern, case
    local line name fault rest
    while read -r line; do
        [ -n "$line" ] || continue
        name=${line%%|*} rest=${line#*|}
        fault=${rest%%|*} rest=${rest#*|}
        "$1" "$name" "$fault" "${rest%|*}" "${rest##*|}"
    done <<<"$faults"
}

if [ "$host" = host ]; then
    on_host() {
        [ "$2" = - ] || expect "$2" "fault:$2" "$3" 60 "$4"
        expect "ref" ref "$passes" 60 "$4"
    }
    each_fault on_host
    finish
fi

case='rms_norm x=f32[5,1000] weight=none'
if judge "$folder/device_RIGHT.so" 60 "$case" | grep -q ' 1 skipped'; then
    echo "skipped: no device"
    exit 77
fi
plugin() { expect "$1" "$folder/device_$1.so" "$2" "${3:-60}" "$case"; }
plugin RIGHT "$passes"
plugin WRITES_PAST 'in the guard zone after it'
plugin WRITES_BEFORE 'in the guard zone before it'
plugin MODIFIES_INPUT 'of what is input'
plugin ILLEGAL_ADDRESS 'CUDA: an illegal memory access'
plugin TRAPS 'CUDA: '
plugin NEVER_ENDS 'no answer in 3 s' 3
plugin HALF_A_WARP 'are outside'
plugin BATCH_DEPENDENT 'differs: '
on_device() {
    export DEVICE_FAULT=$1
    expect "$1" "$folder/device_faults.so" "$3" 60 "$4"
    DEVICE_FAULT=RIGHT
    expect "right" "$folder/device_faults.so" "$passes" 60 "$4"
}
each_fault on_device
finish
