#!/bin/bash
# determinism.sh HALLMARK [SUITE]: the certificate of ref is the same bytes (but for host and time) for 1, 2 and 7 threads, for three
# cases at a time, and for every instruction set that this CPU has. The payload holds a hash of every output, so equal payloads mean
# equal outputs.
set -u
hallmark=$1 suite=${2:-smoke}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# measured FILE COMMAND...: and into FILE the KiB of its largest process.
measured() {
    python3 -c 'import resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=open(sys.argv[1], "w"))
sys.exit(status)' "$@"
}

# certificate NAME ARGS...: the payload, with the instruction set that was asked for taken out.
certificate() {
    local name=$1
    shift
    measured "$dir/$name.kib" "$hallmark" certify --impl ref --suite "$suite" --out "$dir/$name" "$@" >"$dir/log" 2>&1 || {
        tail -n 5 "$dir/log"
        return 1
    }
    sed -n 2p "$dir/$name/certificate.json" | sed 's/"isa":"[a-z0-9]*"/"isa":""/' >"$dir/$name.payload"
}

certificate first --threads 1 || exit 1
size=$(wc -c <"$dir/first.payload")
[ "$size" -gt 1000 ] || { echo "the payload has only $size bytes"; exit 1; }
compared=0
compare() {
    certificate "$@" || exit 1
    cmp "$dir/first.payload" "$dir/$1.payload" || { echo "certificates differ: $*"; exit 1; }
    compared=$((compared + 1))
}
compare again --threads 1
compare two --threads 2
compare seven --threads 7
compare jobs --jobs 3
for isa in sse2 avx2 avx512; do
    status=0
    "$hallmark" certify --impl cpu --suite smoke --isa $isa >"$dir/log" 2>&1 || status=$? # 3: there is no cpu op; 2: no such isa here
    if [ $status -eq 2 ]; then
        echo "left out: $(tail -n 1 "$dir/log")"
        continue
    fi
    compare $isa --isa $isa
done
# The junit and summary files say nothing of the machine either.
cmp "$dir/first/junit.xml" "$dir/seven/junit.xml" && cmp "$dir/first/summary.md" "$dir/seven/summary.md" || exit 1
echo "suite $suite: the same payload ($size bytes) in $((compared + 1)) runs"
three=$(cat "$dir/jobs.kib") && rm "$dir/jobs.kib"
one=$(cat "$dir"/*.kib | sort -n | tail -n 1)
echo "largest process: $one KiB one case at a time, $three KiB with three"
[ "$one" -lt "${MOST_KIB:-$((one + 1))}" ] || { echo "$one KiB is not less than $MOST_KIB"; exit 1; }
