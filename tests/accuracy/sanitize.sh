#!/bin/bash
# sanitize.sh HALLMARK [PLUGINS]: compute-sanitizer's memcheck, racecheck, initcheck and synccheck over the smoke suite of
# --impl cuda, the worker's process included. Prints what ran and what was found; exit 1 if anything was. A host may lack the
# tool, or not allow it: that is tried first, for each of the four, and said. Exit 77 if none can run, or without a device.
# PLUGINS: the folder of the CUDA plug-ins; two that are wrong have to be found out first.
# SHARDS processes a tool at a time (default: a quarter of the cores); SUITE: another suite than smoke.
set -u
hallmark=$1 plugins=${2:-} suite=${SUITE:-smoke} bad=0 ran=0
PATH=$PATH:/usr/local/cuda/bin
cores=$(nproc) shards=${SHARDS:-$(((cores + 3) / 4))}
logs=$(mktemp -d) && trap 'rm -rf "$logs"' EXIT
one='rms_norm x=f32[5,1000] weight=none'

command -v compute-sanitizer >/dev/null || { echo "skipped: there is no compute-sanitizer"; exit 77; }
if ! "$hallmark" certify --impl cuda --case "$one" 2>&1 | grep -q '^1 cases: 1 passed'; then
    echo "skipped: no device"
    exit 77
fi
compute-sanitizer --version | grep -i version
sanitize() { # TOOL LOG hallmark's options...
    local tool=$1 log=$2
    shift 2
    compute-sanitizer --tool "$tool" --target-processes all --error-exitcode 99 "$hallmark" certify --timeout 600 "$@" >"$log" 2>&1
}
summary() { grep -E '(ERROR|RACECHECK) SUMMARY' "$1" | tail -n 1 | sed 's/=* *//'; }
clean() { summary "$1" | grep -q -E 'SUMMARY: 0 (errors|hazards)'; }

tools=
for tool in memcheck racecheck initcheck synccheck; do
    sanitize $tool "$logs/probe" --impl cuda --case "$one"
    if clean "$logs/probe" && grep -q '^1 cases: 1 passed' "$logs/probe"; then tools="$tools $tool"
    elif [ -n "$(summary "$logs/probe")" ] && ! clean "$logs/probe"; then
        echo "$tool: found in \"$one\":"
        grep '=====' "$logs/probe" | head -n 20
        bad=1
    else echo "$tool: not allowed on this host: $(grep '=====' "$logs/probe" | grep -i -m 1 -E 'error|not|denied')"; fi
done
[ -n "$tools" ] || exit $((bad ? 1 : 77))

# Each tool sees what it is for.
must_find() { # TOOL PLUGIN CASE
    case $tools in *$1*) ;; *) return ;; esac
    sanitize "$1" "$logs/wrong" --impl "$plugins/$2.so" --case "$3"
    if clean "$logs/wrong" || [ -z "$(summary "$logs/wrong")" ]; then echo "$1: does not see what is wrong with $2" && bad=1
    else echo "$1: sees what is wrong with $2: $(summary "$logs/wrong")"; fi
}
if [ -n "$plugins" ]; then
    must_find memcheck device_ILLEGAL_ADDRESS "$one"
    DEVICE_FAULT=NO_BARRIER must_find racecheck device_faults 'rms_norm x=bf16[5,1000] weight=none'
fi

for tool in $tools; do
    for ((i = 1; i <= shards; i++)); do
        (
            start=$(date +%s)
            sanitize $tool "$logs/$tool.$i" --impl cuda --suite "$suite" --shard $i/$shards
            echo "$? $(($(date +%s) - start))" >"$logs/$tool.$i.end"
        ) &
    done
done
wait
for tool in $tools; do
    cases=0 longest=0 found=
    for ((i = 1; i <= shards; i++)); do
        read -r code seconds <"$logs/$tool.$i.end"
        cases=$((cases + $(sed -n 's/^\([0-9]*\) cases: .*/\1/p' "$logs/$tool.$i" | tail -n 1 | grep . || echo 0)))
        [ "$seconds" -gt $longest ] && longest=$seconds
        if [ "$code" -ne 0 ] || ! clean "$logs/$tool.$i"; then
            found="shard $i/$shards exited $code: $(summary "$logs/$tool.$i")"
            grep -E '=====|^ *(FAIL|fail|repro|why)' "$logs/$tool.$i" | head -n 40
        fi
    done
    echo "$tool: $cases cases of $suite in $longest s, $shards at a time: ${found:-0 findings}"
    ran=$((ran + cases))
    [ -z "$found" ] || bad=1
done
[ $ran -gt 0 ] || bad=1
exit $bad
