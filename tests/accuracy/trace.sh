#!/bin/bash
# trace.sh HALLMARK: traces come from strangers. Every kind of bad file is refused with one sentence on stderr, nothing on stdout and
# exit 2; what a good trace says, and what it leaves out, decides the exit code.
set -u
hallmark=$(realpath "$1")
data=$(realpath "$(dirname "$0")/../../data")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 70
checks=0 failed=0

bad() {
    echo "not ok: $*"
    failed=$((failed + 1))
}

# run CODE ARGS...: hallmark ARGS exits with CODE; its streams are in out and err.
run() {
    local want=$1 code=0
    shift
    checks=$((checks + 1))
    "$hallmark" "$@" >out 2>err </dev/null || code=$?
    [ $code -eq "$want" ] || bad "hallmark $*: exit $code, not $want; $(head -c 300 err)"
}

# says WORDS: the one sentence on stderr holds WORDS, and stdout is empty.
says() {
    checks=$((checks + 1))
    [ "$(wc -l <err)" -eq 1 ] && [ ! -s out ] && grep -qF -- "$1" err || bad "no single sentence with '$1': $(head -c 300 err)"
}

# file NAME HEADER BYTES [LENGTH]: a safetensors file with BYTES zeros of data; LENGTH is what it says of its header's length.
file() {
    local length=${4:-${#2}} i
    for i in 0 8 16 24 32 40 48 56; do printf "\\x$(printf %02x $((length >> i & 255)))"; done >"$1"
    printf %s "$2" >>"$1"
    head -c "$3" /dev/zero >>"$1"
}

# refused WORDS HEADER BYTES [LENGTH]
refused() {
    file bad.safetensors "${@:2}"
    for verb in replay 'golden -o never'; do
        run 2 $verb bad.safetensors
        says "$1"
    done
    [ ! -e never ] || bad "golden wrote a file for a bad trace ($1)"
    rm -f never
}

# meta CALLS: the metadata entry for a list of calls, given as JSON without quotes escaped.
meta() { printf '"__metadata__":{"hallmark.trace":"1","hallmark.calls":"%s"}' "${1//\"/\\\"}"; }

attrs='"attrs":{"eps":1e-6,"round":"once","weight_form":"plain","variance_size":0}'
call="{\"id\":\"c0\",\"op\":\"rms_norm\",$attrs}"
x='"c0/x":{"dtype":"F32","shape":[2,4],"data_offsets":[0,32]}'
out='"c0/out.out":{"dtype":"F32","shape":[2,4],"data_offsets":[32,64]}'

# ---- good, and almost -----------------------------------------------------------------------------------------------------
file good.safetensors "{$(meta "[$call]"),$x,$out}" 64
run 4 replay good.safetensors # zeros in, zeros out: right, but any kernel that does nothing would be
run 0 golden good.safetensors -o golden.safetensors

# ---- not a file of the format ---------------------------------------------------------------------------------------------
: >empty
run 2 replay empty && says 'empty'
run 2 replay . && says 'is a directory'
run 2 replay nowhere && says 'No such file'
mkfifo fifo
run 2 replay fifo && says 'not a regular file'
run 2 replay /dev/zero && says 'not a regular file'
printf 'PK\003\004 a zip, say, as torch.save writes' >bad && run 2 replay bad && says 'not a safetensors file'
printf 1234567 >bad && run 2 replay bad && says 'too few'
run 2 replay && says 'no trace was given'
for n in 0 1 7 8 9 100 $(($(stat -c %s good.safetensors) - 1)); do
    head -c "$n" good.safetensors >bad
    run 2 replay bad
    says 'bad: '
done
run 2 replay good.safetensors bad && says 'bad: ' # nothing is judged before every file has been read

refused 'not a safetensors file' '' 0
refused 'truncated' "{$x}" 32 9999
refused 'would have 100000001 bytes' "{$x}" 32 100000001
refused 'would have 18446744073709551615 bytes' "{$x}" 32 -1
refused 'does not begin' '[]' 0
refused 'not valid JSON' '{"a":' 0
refused 'not valid JSON' '{} trailing' 0
refused 'not valid JSON' '{"a":NaN}' 0
refused 'not valid JSON' '{"c0/x":{"dtype":"F32","shape":[NaN],"data_offsets":[0,32]}}' 32
refused 'not valid JSON' '{"c0/x":{"dtype":"F32","shape":[1e999],"data_offsets":[0,32]}}' 32
refused 'not valid JSON' '{"c0/x":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,32]}}' 32
refused 'duplicate' "{$x,$x}" 32
refused 'duplicate' '{"c0/x":{"dtype":"F32","dtype":"F16","shape":[2,4],"data_offsets":[0,32]}}' 32
refused 'not valid JSON' "$(printf '{"a":'; printf '[%.0s' {1..5000})" 0
refused 'not valid JSON' "$(printf '{"\377":1}')" 0

# ---- tensors --------------------------------------------------------------------------------------------------------------
tensor() { printf '{"c0/x":{"dtype":%s,"shape":%s,"data_offsets":%s}}' "$@"; }
refused 'is not an object' '{"c0/x":[]}' 0
refused 'unknown key' '{"c0/x":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"strides":[1]}}' 4
refused 'has no dtype' "$(tensor 1 '[2,4]' '[0,32]')" 32
refused 'unknown dtype' "$(tensor '"FLOAT"' '[2,4]' '[0,32]')" 32
refused 'has no shape' "$(tensor '"F32"' 8 '[0,32]')" 32
refused 'not an integer' "$(tensor '"F32"' '[2,4.0]' '[0,32]')" 32
refused 'not an integer' "$(tensor '"F32"' '[2,"4"]' '[0,32]')" 32
refused 'not an integer' "$(tensor '"F32"' '[2,-4]' '[0,32]')" 32
refused 'more than 2^63' "$(tensor '"F32"' '[4611686018427387904,4]' '[0,32]')" 32
refused 'span 32 bytes' "$(tensor '"F64"' '[2305843009213693952]' '[0,32]')" 32
refused 'span 32 bytes' "$(tensor '"F32"' '[2,5]' '[0,32]')" 32
refused 'not two integers' "$(tensor '"F32"' '[2,4]' '[0,32,64]')" 32
refused 'not two integers' "$(tensor '"F32"' '[2,4]' '[0,true]')" 32
refused 'outside the 32 bytes' "$(tensor '"F32"' '[2,4]' '[-32,0]')" 32
refused 'outside the 32 bytes' "$(tensor '"F32"' '[2,4]' '[32,0]')" 32
refused 'outside the 31 bytes' "$(tensor '"F32"' '[2,4]' '[0,32]')" 31
refused 'outside the 32 bytes' "$(tensor '"F32"' '[2,4]' '[9223372036854775776,9223372036854775807]')" 32
refused 'last 1 bytes' "$(tensor '"F32"' '[2,4]' '[0,32]')" 33
refused 'belong to no tensor' "$(tensor '"F32"' '[2,4]' '[4,36]')" 36
refused "inside the tensor" '{"a":{"dtype":"F32","shape":[8],"data_offsets":[0,32]},"b":{"dtype":"F32","shape":[8],"data_offsets":[28,60]}}' 60
refused '__metadata__ is not an object' '{"__metadata__":[]}' 0
refused 'is not a string' '{"__metadata__":{"hallmark.trace":1}}' 0

# ---- calls ----------------------------------------------------------------------------------------------------------------
calls() { refused "$1" "{$(meta "$2"),$x,$out}" 64; }
refused 'not a Hallmark trace' "{$x}" 32
refused "version '2'" '{"__metadata__":{"hallmark.trace":"2"}}' 0
refused 'no "hallmark.calls"' '{"__metadata__":{"hallmark.trace":"1"}}' 0
calls 'hallmark.calls is not valid JSON' 'nonsense'
calls 'hallmark.calls is not valid JSON' "[${call/1e-6/NaN}]"
calls 'hallmark.calls is not valid JSON' "[${call/1e-6/1e400}]"
calls 'duplicate' "[${call/\"round\":\"once\"/\"round\":\"once\",\"round\":\"once\"}]"
calls 'is not a list' '{}'
calls 'is not an object' '[1]'
calls "two calls have the id 'c0'" "[$call,$call]"
calls 'id of entry 0' "[${call/c0/c 0}]"
calls 'id of entry 0' "[${call/c0/}]"
calls 'id of entry 0' "[${call/c0/$(printf 'x%.0s' {1..65})}]"
calls "unknown op 'rms'" "[${call/rms_norm/rms}]"
calls "unknown key 'view'" "[${call/\"op\"/\"view\":1,\"op\"}]"
calls 'has no attrs' '[{"id":"c0","op":"rms_norm"}]'
calls "unknown key 'epsilon'" "[${call/eps/epsilon}]"
calls 'eps is not a number' "[${call/1e-6/true}]"
calls 'variance_size is not an integer' "[${call/_size\":0/_size\":0.5}]"
calls "the mode round has the unknown value 'twice'" "[${call/once/twice}]"
calls 'the mode round is not a string' "[${call/\"once\"/0}]"
calls 'the most is 1000000' "[$(yes 1, | head -n 1000000 | tr -d '\n')1]"
calls "'c0/out.out' belongs to no call" '[]'
calls "lacks its input c1/x" "[${call/c0/c1}]"
refused "lacks its input c0/x" "{$(meta "[$call]"),${x/c0\/x/c0\/y},$out}" 64
refused "'c0/weigth' belongs to no call" "{$(meta "[$call]"),$x,$out,\"c0/weigth\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[64,80]}}" 80
refused 'which no argument' "{$(meta "[$call]"),${x/F32/U32},$out}" 64
refused 'dimensions; an argument has 1 to 4' "{$(meta "[$call]"),${x/\[2,4\]/[2,1,1,1,4]},$out}" 64
refused 'dimensions; an argument has 1 to 4' "{$(meta "[$call]"),\"c0/x\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}" 4
refused 'the most is 2^31' "{$(meta "[$call]"),\"c0/x\":{\"dtype\":\"F32\",\"shape\":[0,4611686018427387904],\"data_offsets\":[0,0]}}" 0

# ---- views ----------------------------------------------------------------------------------------------------------------
view() {
    local v=$2
    refused "$1" "{$(meta "[${call%\}},\"views\":$v}]"),${x/c0\/x/c0\/buf},$out}" 64
}
viewed() { printf '{"x":{"storage":"c0/buf","dtype":"F32","offset":%s,"shape":%s,"stride":%s}}' "$@"; }
file view.safetensors "{$(meta "[${call%\}},\"views\":$(viewed 0 '[2,4]' '[4,1]')}]"),${x/c0\/x/c0\/buf},$out}" 64
run 4 replay view.safetensors
# Calls may share bytes: the second reads, and writes, what the first recorded.
same=$(viewed 0 '[2,4]' '[4,1]' | sed 's,c0/buf,c0/out.out,; s,{"x":\(.*\)}$,{"x":\1\,"out.out":\1},')
second=${call/c0/c1}
file shared.safetensors "{$(meta "[$call,${second%\}},\"views\":$same}]"),$x,$out}" 64
run 4 replay shared.safetensors && { grep -q '^c1 ' out || bad "call c1 was not judged"; }
view 'is not an object' '1'
view 'is not an object' '{"x":1}'
view "unknown argument 'y'" '{"y":{}}'
view 'needs storage and dtype' '{"x":{}}'
view "unknown key 'strides'" '{"x":{"strides":[1]}}'
view 'which the file lacks' "$(viewed 0 '[2,4]' '[4,1]' | sed s,c0/buf,c1/buf,)"
view 'which the file lacks' "$(viewed 0 '[2,4]' '[4,1]' | sed s,c0/buf,c0/tub,)"
view 'which no argument' "$(viewed 0 '[2,4]' '[4,1]' | sed s,F32,F64,)"
view 'reaches outside' "$(viewed 1 '[2,4]' '[4,1]')"
view 'reaches outside' "$(viewed -1 '[2,4]' '[4,1]')"
view 'reaches outside' "$(viewed 0 '[2,4]' '[4,-1]')"
view 'reaches outside' "$(viewed 0 '[2,4]' '[9223372036854775807,1]')"
view 'reaches outside' "$(viewed 9223372036854775807 '[2,4]' '[4,1]')"
view 'reaches outside' "$(viewed 9 '[0,4]' '[4,1]')"
view 'more than 2^32 bytes' "$(viewed 0 '[2147483648,4]' '[0,1]')"
view 'more than 2^32 bytes' "$(viewed 0 '[32768,32769]' '[0,0]')"
view 'has the extent' "$(viewed 0 '[4611686018427387904,4]' '[0,1]')"
view 'has the extent' "$(viewed 0 '[-2,4]' '[4,1]')"
view '2 extents but 1 strides' "$(viewed 0 '[2,4]' '[4]')"
view 'list of 1 to 4' "$(viewed 0 '[2,1,1,1,4]' '[4,1]')"
view 'list of 1 to 4' "$(viewed 0 '"2,4"' '[4,1]')"
view 'list of 1 to 4' "$(viewed 0 '[2,4]' '[4,1.5]')"
view 'needs storage and dtype' "$(viewed '"0"' '[2,4]' '[4,1]')"
view "is no input's" '{"x":{"storage":"c0/buf","dtype":"F32","offset":0,"shape":[2,4],"stride":[4,1]},"out":{"storage":"c0/buf","dtype":"F32","offset":4,"shape":[1,4],"stride":[4,1]}}'
refused 'both a tensor and a view' "{$(meta "[${call%\}},\"views\":$(viewed 0 '[2,4]' '[4,1]' | sed s,c0/buf,c0/x,)}]"),$x,$out}" 64

# ---- legal files whose calls are not --------------------------------------------------------------------------------------
refused 'eps is -1' "{$(meta "[${call/1e-6/-1}]"),$x,$out}" 64
refused 'eps is 1e+39' "{$(meta "[${call/1e-6/1e39}]"),$x,$out}" 64
refused 'variance_size is 5' "{$(meta "[${call/_size\":0/_size\":5}]"),$x,$out}" 64
refused 'out has shape [8]' "{$(meta "[$call]"),$x,${out/\[2,4\]/[8]}}" 64

# ---- modes: what is missing is never guessed ------------------------------------------------------------------------------
file silent.safetensors "{$(meta "[${call/\"round\":\"once\",/}]"),$x,$out}" 64
run 2 replay silent.safetensors && says 'call c0 (rms_norm) does not state round; --assume round=once'
run 2 replay --impl ref silent.safetensors && says 'does not state round'
run 2 replay --assume weight_form=plain silent.safetensors && says 'does not state round'
run 4 replay --assume round=norm_first silent.safetensors
run 4 replay --fit-modes silent.safetensors
run 2 replay --assume round=twice silent.safetensors && says '--assume is "round=twice"'
run 2 replay --assume round silent.safetensors && says '--assume is "round"'
run 2 replay --fit-modes --impl ref good.safetensors && says 'does not go with --impl'
run 2 golden silent.safetensors -o never && says 'does not state round'
run 3 replay --call c9 good.safetensors
file mute.safetensors "{$(meta "[$call]"),$x}" 32
run 2 replay mute.safetensors && says 'no recorded output c0/out.out'
run 4 replay --impl ref mute.safetensors

# ---- real recordings ------------------------------------------------------------------------------------------------------
for trace in "$data"/traces/*.safetensors; do
    run 0 replay "$trace"
    run 0 replay --fit-modes "$trace"
    run 0 replay --impl ref "$trace"
    grep -q '\\"op\\": \\"rms_norm\\"' "$trace" || continue
    run 1 replay --impl fault:rms_norm.not_divided "$trace"
done
# flip TRACE TENSOR: flipped.safetensors is that trace with another last byte of one tensor.
flip() {
    local header end
    cp "$data/traces/$1.safetensors" flipped.safetensors
    header=$(od -An -t u8 -N 8 flipped.safetensors)
    end=$(tail -c +9 flipped.safetensors | head -c "${header// /}" | sed "s|.*\"$2\":{[^}]*,\([0-9]*\)]}.*|\1|")
    printf '\100' | dd of=flipped.safetensors bs=1 seek=$((8 + header + end - 1)) conv=notrunc 2>/dev/null
    cmp -s flipped.safetensors "$data/traces/$1.safetensors" && bad "no byte of $2 was changed"
}
# What a trace states is checked against what it holds: other modes of the same length, other values, other eps.
misstated() { sed "s/$1/$2/g" "$data/traces/$3.safetensors" >misstated.safetensors; }
misstated '\\"norm_first\\"' '\\"once\\"      ' llama
run 1 replay misstated.safetensors
run 1 replay --fit-modes misstated.safetensors
grep -q 'the trace states round=once weight_form=plain; the recording follows round=norm_first' out || bad 'misstated round is not named'
misstated '\\"one_plus\\"' '\\"plain\\"   ' gemma3
run 1 replay misstated.safetensors
run 1 replay --fit-modes misstated.safetensors
misstated '\\"rounded\\"' '\\"unrounded\\"' gemma2 # longer: the header's length is wrong now
run 2 replay misstated.safetensors
misstated 'residual_read' 'residual_raed' llama
run 2 replay misstated.safetensors && says "unknown key 'residual_raed'"
misstated '\\"eps\\": 1e-06' '\\"eps\\": 1e-02' deepseek_v3
run 1 replay --fit-modes misstated.safetensors
grep -q 'no modes fit; nearest is' out || bad 'nothing fits, and the nearest modes are not named'
misstated '\\"half_split\\", \\"round\\": \\"each\\"' '\\"half_split\\", \\"round\\": \\"once\\"' rope_gemma
run 1 replay misstated.safetensors
run 1 replay --fit-modes misstated.safetensors
grep -q 'the recording follows pairing=half_split round=each' out || bad 'misstated round of a rotation is not named'
misstated '\\"interleaved\\"' '\\"half_split\\" ' rope_interleaved
run 1 replay --fit-modes misstated.safetensors
grep -q 'the recording follows pairing=interleaved' out || bad 'misstated pairing is not named'
misstated '\\"factor\\": 8.0' '\\"factor\\": 7.0' rope_table
run 1 replay misstated.safetensors
cp "$data/traces/torch_eager.safetensors" flipped.safetensors
printf '\100' | dd of=flipped.safetensors bs=1 seek=$(($(stat -c %s flipped.safetensors) - 1)) conv=notrunc 2>/dev/null
run 1 replay flipped.safetensors
grep -q ' 1 failed' out || bad 'one changed element is not one failure'
# Attention: which p a kernel follows shows, and so does one changed element of out.
for name in prefill decode; do
    run 0 replay --class mla_prefill=chain64,sparse_mla_decode=chain64 "$data/traces/attention_$name.safetensors"
    run 1 replay --class mla_prefill=wide,sparse_mla_decode=wide "$data/traces/attention_$name.safetensors"
    misstated '\\"p\\": \\"bf16\\"' '\\"p\\": \\"f32\\" ' attention_$name
    run 1 replay --fit-modes misstated.safetensors
    grep -q 'the trace states p=f32.*; the recording follows p=bf16' out || bad "misstated p of $name is not named"
    grep -q '^OUT_OF_CLASS .*flash.bf16.64.*cuda' out && grep -q '^OUT_OF_CLASS .*efficient.bf16.576' out || bad "$name: a misstated p passes"
    grep -q '^[A-Z_]* .* call \(math\|softmax\|sink\)' out && bad "$name: a p that is f32 fails"
    flip attention_$name 'efficient.bf16.576[a-z.]*/out.out'
    run 1 replay flipped.safetensors
    grep -q ' 1 failed' out || bad "one changed element of $name is not one failure"
    grep -q '^The first call to leave its contract is efficient.bf16.576' out || bad "the changed call of $name is not named"
done
run 1 replay "$data/traces/not_conforming/attention.safetensors"
grep -q '0 passed, 0 failed, 3 out of class' out && [ "$(grep -c 'outside tc23.*: lse\[' out)" = 3 ] || bad 'the lse of rough exponentials is not named'
for trace in "$data"/traces/not_conforming/*.safetensors; do
    run 1 replay "$trace"
    run 1 replay --fit-modes "$trace"
done
run 1 replay "$data/traces/not_conforming/mixed_weight.safetensors"
grep -q 'was written as f32; the contract says bf16' out || bad 'the dtype of mixed_weight is not named'
run 1 replay --fit-modes "$data/traces/not_conforming/rope.safetensors"
grep -q '^\([0-9]*\) cases: 0 passed, \1 failed' out || bad 'a recording that does not conform passes'
# ---- golden files ---------------------------------------------------------------------------------------------------------
run 0 golden --check "$data/golden"
cp "$data"/golden/*.safetensors . || bad 'no golden files'
printf '\001' | dd of=rms_norm.safetensors bs=1 seek=$(($(stat -c %s rms_norm.safetensors) - 3)) conv=notrunc 2>/dev/null
run 1 golden --check .
grep -q '^./rms_norm.safetensors: DIFFERS .* in its bytes$' out || bad 'a changed byte is not named'
run 0 golden --check . --op fused_add_rms_norm
mkdir few && run 0 golden --inputs --case 'rms_norm x=bf16[3,8] weight=f32' -o few/rms_norm.safetensors
run 1 golden --check few --op rms_norm # regenerates from its own list, which is not the suite's
grep -q 'DIFFERS .* in its list of calls$' out || bad 'lost cases are not named'
run 2 golden --check few --op fused_add_rms_norm && says 'No such file'
# They are traces: the ideal values were "recorded", and what has its inputs runs.
for op in rms_norm fused_add_rms_norm rotary_embedding rope_table concat_mla_q; do
    run 0 replay "$data/golden/$op.safetensors"
    run 0 replay --impl ref "$data/golden/$op.safetensors"
done
run 1 replay --impl fault:rms_norm.not_divided "$data/golden/rms_norm.safetensors"
# Tensors of listed calls without inputs are passed over; nothing else is.
ideal='"c7/ideal.out":{"dtype":"F32","shape":[2,4],"data_offsets":[64,96]}'
listed='"hallmark.golden.calls":"[{\"id\":\"c7\",\"op\":\"rms_norm\"}]"'
meta=$(meta "[$call]")
file sampled.safetensors "{${meta%\}},$listed},$x,$out,$ideal}" 96
run 4 replay sampled.safetensors
refused "'c7/ideal.out' belongs to no call" "{$meta,$x,$out,$ideal}" 96
refused "'c7/ideal.y' belongs to no call" "{${meta%\}},$listed},$x,$out,${ideal/.out/.y}}" 96
refused "'c7/x' belongs to no call" "{${meta%\}},$listed},$x,$out,${ideal/ideal.out/x}}" 96
refused "'c8/ideal.out' belongs to no call" "{${meta%\}},$listed},$x,$out,${ideal/c7/c8}}" 96
for junk in 1 '[1]' '[{}]' '[{\"id\":1,\"op\":2}]' nonsense; do
    refused "'c7/ideal.out' belongs to no call" "{${meta%\}},\"hallmark.golden.calls\":\"$junk\"},$x,$out,$ideal}" 96
done
run 0 golden --inputs --case 'rms_norm x=bf16[3,8] weight=f32 gen=normal seed=1' --case 'rms_norm x=f16[2,5] weight=none' -o inputs.safetensors
run 0 replay --impl ref inputs.safetensors
run 1 replay --impl fault:rms_norm.not_divided inputs.safetensors
run 2 golden --case 'rms_norm x=bf16[3,8] weight=f32[7] expect=bad_shape' -o never && says 'expects an error'
run 2 golden --case nonsense -o never && says 'nonsense'
run 2 golden --class narrow --case 'rms_norm x=bf16[3,8]' -o never && says '--class is "narrow"'
run 2 golden -o never && says 'give one of'
run 2 golden "$data/traces/llama.safetensors" && says '-o FILE'
run 2 golden "$data/traces/llama.safetensors" -o /nowhere/at/all && says '/nowhere/at/all'
run 3 golden "$data/traces/llama.safetensors" --call nobody -o never

echo "$checks checks, $failed failed"
[ "$checks" -gt 400 ] && [ "$failed" -eq 0 ]
