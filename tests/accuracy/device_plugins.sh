#!/bin/bash
# device_plugins.sh HALLMARK FOLDER: CUDA plug-ins on a real device: the right one passes, each wrong one fails for its reason.
# Exit 77 (skipped) where there is no device.
set -u
hallmark=$1 folder=$2 bad=0
case='rms_norm x=f32[5,1000] weight=none'
judge() { "$hallmark" certify --impl "$folder/device_$1.so" --timeout "${3:-60}" --require invariance --case "$case" 2>&1 | grep -F "$2" | head -n 1; }
if "$hallmark" certify --impl "$folder/device_RIGHT.so" --case "$case" | grep -q ' 1 skipped'; then
    echo "skipped: no device"
    exit 77
fi
expect() {
    local found
    found=$(judge "$@")
    echo "$1: ${found:-NOT \"$2\"}"
    [ -n "$found" ] || bad=1
}
expect RIGHT '1 passed'
expect WRITES_PAST 'in the guard zone after it'
expect WRITES_BEFORE 'in the guard zone before it'
expect MODIFIES_INPUT 'of what is input'
expect ILLEGAL_ADDRESS 'CUDA: an illegal memory access'
expect TRAPS 'CUDA: '
expect NEVER_ENDS 'no answer in 3 s' 3
expect HALF_A_WARP 'are outside'
expect BATCH_DEPENDENT 'differs: '
exit $bad
