#!/bin/bash
# sanitize.sh HALLMARK [PLUGINS]: compute-sanitizer's memcheck, racecheck, initcheck and synccheck over the smoke suite of
# --impl cuda, the worker's process included. Prints what ran and what was found; exit 1 if anything was. A host may lack the
# tool, or not allow it: that is tried first, for each of the four, and said. Exit 77 if none can run, or without a device.
# PLUGINS: the folder of the CUDA plug-ins; two that are wrong have to be found out first.
# A process an op and tool, JOBS at a time (default 8), each with two cases at a time: a few dozen of them, and the device
# has no memory left. SUITE: another suite than smoke.
set -u
hallmark=$1 plugins=${2:-} suite=${SUITE:-smoke} bad=0 ran=0
PATH=$PATH:/usr/local/cuda/bin
jobs=${JOBS:-8}
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
    compute-sanitizer --tool "$tool" --target-processes all --error-exitcode 99 "$hallmark" certify --timeout 600 --jobs 2 --threads 4 "$@" \
        >"$log" 2>&1
}
summary() { grep -E '(ERROR|RACECHECK) SUMMARY' "$1" | tail -n 1 | sed 's/=* *//'; }
clean() { summary "$1" | grep -q -E 'SUMMARY: 0 (errors|hazards)'; }

tools=
for tool in racecheck memcheck initcheck synccheck; do # the slowest first
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

run_one() { # TOOL IMPL OP
    local log=$logs/$1.$2.$3 start=$SECONDS
    sanitize "$1" "$log" --impl "$2" --op "$3" --suite "$suite"
    echo "$? $((SECONDS - start))" >"$log.end"
    printf '%-9s %-8s %-31s %4d s  %s\n' "$1" "$2" "$3" $((SECONDS - start)) "$(summary "$log")" >&2
}
export hallmark suite logs && export -f run_one sanitize summary
ops=$("$hallmark" list ops | sed -n 's/^\([a-z0-9_]*\)  (contract.*/\1/p')
for tool in $tools; do
    for op in $ops; do echo "$tool cuda $op"; done
    for op in fp8_mqa_logits fp8_paged_mqa_logits; do echo "$tool cuda_fp8 $op"; done
done >"$logs/list"
xargs -P "$jobs" -L 1 bash -c 'run_one "$@"' run_one <"$logs/list"
while read -r tool impl op; do
    log=$logs/$tool.$impl.$op
    read -r code seconds <"$log.end"
    cases=$(sed -n 's/^\([0-9]*\) cases: .*/\1/p' "$log" | tail -n 1)
    [ "${cases:-0}" -gt 0 ] || bad=1
    ran=$((ran + ${cases:-0}))
    echo "$tool ${cases:-0} $seconds" >>"$logs/sums"
    if [ "$code" -ne 0 ] || ! clean "$log"; then
        echo "$tool, --impl $impl --op $op: exit $code, $(summary "$log")"
        grep -E '=====|^ *(FAIL|fail|repro|why)' "$log" | head -n 40
        bad=1
    fi
done <"$logs/list"
for tool in $tools; do
    awk -v tool="$tool" '$1 == tool { cases += $2; seconds += $3 } END { printf "%s: %d cases, %d s of processes\n", tool, cases, seconds }' "$logs/sums"
done
[ $bad -eq 0 ] && [ $ran -gt 0 ] && echo "$ran cases, nothing found"
[ $bad -eq 0 ] && [ $ran -gt 0 ]
