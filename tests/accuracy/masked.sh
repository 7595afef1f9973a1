#!/bin/bash
# masked.sh HALLMARK: the same bytes when the C library is told that the CPU has no FMA, AVX2 or AVX-512 (its exp, log and sin then
# give other bits) and our own loops run at their lowest level: certificate, generated inputs and golden values.
set -u
hallmark=$1
dir=$(mktemp -d) || exit 2
trap 'rm -rf "$dir"' EXIT
mask=GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX2_Usable,-FMA,-FMA_Usable,-FMA4,-AVX
fail() { echo "masked: $*"; exit 1; }

# The mask has to do something: on a CPU with FMA the library's functions give other bits with it.
functions='import math, struct, zlib
print(zlib.crc32(b"".join(struct.pack("<3d", math.exp(k / 7e3), math.sin(k / 9), math.log(1 + k)) for k in range(40000))))'
plain=$(/usr/bin/python3 -c "$functions") && masked=$(env "$mask" /usr/bin/python3 -c "$functions") || fail "python3 is needed"
if grep -qw fma /proc/cpuinfo; then
    [ "$plain" != "$masked" ] || fail "the mask has no effect on the C library"
else
    echo "masked: this CPU has no FMA, so the mask changes nothing"
fi

lines=() # every generator, in both ops
for g in $("$hallmark" list generators | awk 'NR > 1 { print $1 }'); do
    lines+=(--case "rms_norm x=bf16[5,257] weight=f32[257] gen=$g seed=3")
    lines+=(--case "fused_add_rms_norm x=f16[5,130] residual=f16[5,130] weight=f16[130] residual_read=unrounded gen=$g seed=4")
done
[ ${#lines[@]} -ge 20 ] || fail "list generators shows hardly any"
cases() { # MASK FILE: inputs and golden values
    env "$1" "$hallmark" golden --inputs -o "$2" "${lines[@]}" >"$dir/log" 2>&1 || fail "golden: $(cat "$dir/log")"
}
cases PLAIN=1 "$dir/plain.safetensors"
cases "$mask" "$dir/masked.safetensors"
cmp "$dir/plain.safetensors" "$dir/masked.safetensors" || fail "inputs or golden values differ"

certificate() { # MASK NAME OPTIONS: the payload, without the name of the instruction set
    local with=$1 name=$2
    shift 2
    env "$with" "$hallmark" certify --suite smoke --out "$dir/$name" "$@" >"$dir/log" 2>&1 || fail "certify: $(tail -n 3 "$dir/log")"
    sed -n 2p "$dir/$name/certificate.json" | sed 's/"isa":"[a-z0-9]*"/"isa":""/' >"$dir/$name.payload"
    grep -q results "$dir/$name.payload" || fail "no payload in the second line of certificate.json"
}
certificate PLAIN=1 plain
if grep -qw avx2 /proc/cpuinfo; then
    certificate "$mask" masked --isa sse2
else
    certificate "$mask" masked
fi
cmp "$dir/plain.payload" "$dir/masked.payload" || fail "certificates differ"
echo "masked: the same bytes with and without FMA and AVX"
