#!/bin/sh
# ref_bits.sh PROGRAM: the bits of ref are the same for every instruction set that this CPU has and for every thread count.
set -eu
program=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
OMP_NUM_THREADS=1 "$program" >"$dir/first"
lines=$(wc -l <"$dir/first")
[ "$lines" -ge 90 ] || { echo "only $lines results"; exit 1; }
compared=0
for isa in sse2 avx2 avx512 base; do
    for threads in 1 2 7; do
        status=0
        OMP_NUM_THREADS=$threads "$program" $isa >"$dir/this" 2>"$dir/log" || status=$?
        if [ $status -eq 3 ]; then # no such instruction set here
            cat "$dir/log"
            break
        fi
        [ $status -eq 0 ] || { cat "$dir/log"; exit 1; }
        grep -q "isa $isa\$" "$dir/log" || { echo "asked for $isa, got: $(cat "$dir/log")"; exit 1; }
        diff "$dir/first" "$dir/this" >"$dir/diff" || { head -n 6 "$dir/diff"; echo "bits differ: $isa, $threads threads"; exit 1; }
        compared=$((compared + 1))
    done
done
echo "$lines results, the same in $compared runs"
[ $compared -gt 0 ]
