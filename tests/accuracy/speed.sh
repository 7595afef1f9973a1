#!/bin/sh
# speed.sh HALLMARK: reports (asserts no time) what golden and verdict cost beside ref, on a prefill of DeepSeek-V3's hidden size.
# The aim is at most 25 times the time of ref.
set -eu
exec "$1" bench --impl ref --golden --seconds 0.5 --case 'rms_norm x=bf16[4096,7168] weight=bf16[7168] round=once gen=normal'
