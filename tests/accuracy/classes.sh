#!/bin/bash
# classes.sh HALLMARK: inputs of the generator `stagnate` tell the classes apart. Each legal variant is run on two or three cases, one
# of them usual, and has to be consistent with the class that is listed here for it: not with a tighter one, and not with a looser.
# Where the list says less than the variant claims, these cases have no row on which it is as bad as it may be: a dot product of 128
# elements has no chain of more than 128 additions, so that chain512 and any are the same there.
set -u
hallmark=$1
checks=0 failed=0

bad() {
    echo "not ok: $*"
    failed=$((failed + 1))
}

# op CASE...: what the next variants are run on.
op() {
    name=$1 cases=() listed=
    shift
    for c in "$@"; do cases+=(--case "$name $c"); done
}

# variants CLASS NAME...
variants() {
    local class=$1 said
    shift
    for v in "$@"; do
        checks=$((checks + 1))
        listed="$listed $name.$v"
        said=$("$hallmark" certify --impl "variant:$name.$v" --class "$name=tc13" "${cases[@]}" 2>/dev/null | sed -n "s/^$name: class tc13 required; //p")
        [ "$said" = "consistent with $class" ] || bad "$name.$v: $said, not consistent with $class"
    done
}

# all: every variant of the op is listed, and a certificate of the quick suite says a class.
all() {
    local known
    known=$("$hallmark" list variants | sed -n "s/^\($name\.[^ ]*\) .*/\1/p" | sort)
    checks=$((checks + 2))
    [ "$known" = "$(tr ' ' '\n' <<<"$listed" | sed '/^$/d' | sort)" ] || bad "$name: listed are$listed; there are" $known
    "$hallmark" certify --impl ref --op "$name" --suite quick 2>/dev/null | grep -q "^$name: class tc23 required; consistent with $1\$" ||
        bad "$name: ref is not said to be consistent with $1"
}

logits='chain64 lanes pairwise'
op fp8_mqa_logits 'q=f8e4m3[4,1,128] k=f8e4m3[5,128] k_scale=f32[5] weights=f32 ks=i32[4] ke=i32[4] logits=f32[4,5] gen=stagnate' \
    'q=f8e4m3[4,3,128] k=f8e4m3[5,128] k_scale=f32[5] weights=f32 ks=i32[4] ke=i32[4] logits=f32[4,5]'
variants wide f64
variants $logits
variants chain512 in_order fused
variants tc23 tc23 tc23_blocks_of_8
variants tc13 tc13
all wide

paged='context_lens=i32[2] block_tables=i32[2,2] kv_cache=u8[5,16,132] logits=f32[4,20] layout=shuffle'
op fp8_paged_mqa_logits "q=f8e4m3[2,2,1,128] weights=f32[4,1] $paged gen=stagnate" "q=f8e4m3[2,2,3,128] weights=f32[4,3] $paged"
variants wide f64
variants $logits
variants chain512 in_order fused
variants tc23 tc23 tc23_blocks_of_8
variants tc13 tc13
all wide

for attention in 'mla_prefill kv=bf16[8,576] out=bf16[4,4,64]' 'sparse_mla_decode indices=i32[4,5] kv_cache=u8[2,16,656] out=bf16[4,4,512]'; do
    op "${attention%% *}" "q=bf16[4,4,576] ${attention#* } lse=f32[4,4] gen=stagnate" "q=bf16[4,4,576] ${attention#* } lse=f32[4,4]"
    variants wide f64
    variants chain64 online online_backward split split_sink_behind low_exp
    variants any in_order
    variants tc23 tc23 tc23_split
    variants tc13 tc13
    all wide
done

request='context_lens=i32[2] block_tables=i32[2,3] positions=i64[4] cos_sin_cache=f32[50,64] slot_mapping=i64[4] kv_cache=u8[7,16,132] logits=f32[4,40] indices=i32[4,12]'
op indexer "q=bf16[4,1,128] k=bf16[4,128] weights=f32[4,1] k_weight=f32[128] k_bias=f32[128] $request gen=stagnate" \
    "q=bf16[4,3,128] k=bf16[4,128] weights=f32[4,3] k_weight=f32[128] k_bias=f32[128] $request"
variants wide wide
variants chain64 lanes pairwise
variants chain512 in_order welford flush
variants tc23 tc23
variants tc13 tc13
all wide

op linear 'x=bf16[42,1100] weight=bf16[2,1100] bias=none out=f32[42,2] gen=stagnate' 'x=bf16[4,300] weight=bf16[2,300] bias=none out=f32[4,2]'
variants wide wide
variants chain64 pairwise kahan lanes64
variants chain512 split4
variants any sequential bias_first backward fused flush
variants tc23 tensor_core8 tensor_core16
all chain64

echo "$checks checks, $failed failed"
[ "$checks" -eq 68 ] && [ "$failed" -eq 0 ]
