#!/bin/bash
# cli.sh HALLMARK [PLUGINS]: what the command line promises: exit codes, one clear sentence for whatever is wrong, certificates that verify,
# files whole or not at all.
set -u
hallmark=$(realpath "$1")
plugins=$(realpath "${2:-$(dirname "$hallmark")/tests/plugins}") || exit 70
data=$(realpath "$(dirname "$0")/../../data") || exit 70
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 70
mkdir bin && ln -s "$hallmark" bin/hallmark && PATH=$dir/bin:$PATH
checks=0 failed=0

bad() {
    echo "not ok: $*"
    failed=$((failed + 1))
}

# check WHAT CONDITION...: the condition is a command.
check() {
    local what=$1
    shift
    checks=$((checks + 1))
    "$@" >/dev/null 2>&1 || bad "$what"
}

# run CODE ARGS...: hallmark ARGS exits with CODE; its streams are in $dir/out and $dir/err.
run() {
    local want=$1 code=0
    shift
    checks=$((checks + 1))
    hallmark "$@" >out 2>err </dev/null || code=$?
    [ $code -eq "$want" ] || bad "hallmark $*: exit $code, not $want; $(head -c 300 err)"
}

# refuse WORD ARGS...: exit 2, nothing on stdout, one line on stderr that holds WORD.
refuse() {
    local word=$1
    shift
    run 2 "$@"
    check "hallmark $*: writes to stdout" test ! -s out
    check "hallmark $*: not one line: $(head -c 300 err)" test "$(wc -l <err)" -eq 1
    check "hallmark $*: \"$word\" is not in: $(cat err)" grep -qF -- "$word" err
}

# ---- help and verbs --------------------------------------------------------------------------------------------------
run 2
check "no verb: usage on stderr" grep -q '^Usage: hallmark VERB' err
run 0 --help
for verb in list certify golden replay bench selftest eval; do
    check "--help lists $verb" grep -q "^  $verb " out
done
for verb in list certify golden replay bench selftest eval; do
    run 0 $verb --help
    check "$verb --help has its usage" grep -q "^Usage: hallmark $verb" out
    run 2 $verb --no-such-option
    check "$verb: the bad option is named" grep -q -- "--no-such-option" err
done
run 0 --version
check "version" grep -qx "hallmark 0.1.0" out
refuse frobnicate frobnicate
for verb in diagnose report verify; do refuse "not in this version" $verb; done

# ---- list ------------------------------------------------------------------------------------------------------------
for kind in "" ops impls cases generators faults variants; do
    run 0 list $kind
    check "list $kind says something" test "$(wc -l <out)" -ge 3
done
run 0 list cases --suite smoke --op rms_norm
check "list cases --op lists that op only" test "$(grep -c '^rms_norm ' out)" -eq "$(wc -l <out)"
run 0 list cases --suite smoke && cp out smoke.txt
run 0 list cases --suite quick && cp out quick.txt
run 0 list cases --suite full && cp out full.txt
check "smoke is part of quick" test "$(grep -cxFf smoke.txt quick.txt)" -ge "$(wc -l <smoke.txt)"
check "quick is part of full" test "$(grep -cxFf quick.txt full.txt)" -ge "$(wc -l <quick.txt)"
run 0 list cases --suite smoke --seed 77
check "--seed reaches the cases" grep -q "seed=77" out
refuse pancakes list pancakes
refuse huge list cases --suite huge
refuse conv2d list ops --op conv2d
code=0; hallmark list ops >/dev/full 2>err || code=$?
check "a full disk is not a success (exit $code)" test $code -eq 70

# ---- options of certify ----------------------------------------------------------------------------------------------
refuse huge certify --suite huge
refuse conv2d certify --op conv2d
refuse fast certify --class fast
refuse fast certify --class rms_norm=fast
refuse conv2d certify --class conv2d=wide
refuse nonsense certify --class rms_norm=wide,nonsense
refuse tc23 certify --class tc23 # which some ops do not have
refuse tc23 certify --class tc23 --op rms_norm
refuse tc23 certify --class tc23 --case 'linear x=bf16[2,8] weight=bf16[3,8]' --case 'rms_norm x=bf16[2,8]'
run 0 certify --class tc23 --case 'linear x=bf16[2,8] weight=bf16[3,8] bias=none out=bf16[2,3]'
check "a class is asked of the ops that are run" grep -q '^linear: class tc23 required' out
run 0 certify --class tc23 --op linear --suite smoke --threads 2
refuse speed certify --require speed
refuse mmx certify --isa mmx
for seed in -1 x 1x '' 9223372036854775808; do refuse "\"$seed\"" certify --seed "$seed"; done
for threads in 0 -1 many; do refuse "\"$threads\"" certify --threads $threads; done
for seconds in 0 -1 nan inf soon; do refuse "\"$seconds\"" certify --timeout $seconds; done
for shard in 0/2 3/2 2 1/2/3 x; do refuse "\"$shard\"" certify --shard $shard; done
refuse stray certify stray
refuse nosuch certify --impl nosuch
refuse nosuch certify --impl fault:nosuch
refuse nosuch certify --impl variant:nosuch
refuse missing.so certify --impl ./missing.so
echo "not a library" >text.so
refuse text.so certify --impl ./text.so
refuse "--case" certify --suite smoke --case 'rms_norm x=bf16[2,8]'
refuse /dev/null/x certify --suite smoke --out /dev/null/x
refuse text.so certify --suite smoke --out text.so

# ---- cases -----------------------------------------------------------------------------------------------------------
refuse conv2d certify --case 'conv2d x=bf16[2,8]'
refuse colour certify --case 'rms_norm x=bf16[2,8] colour=red'
refuse bf15 certify --case 'rms_norm x=bf15[2,8]'
refuse sometimes certify --case 'rms_norm x=bf16[2,8] round=sometimes'
refuse nosuchgen certify --case 'rms_norm x=bf16[2,8] gen=nosuchgen'
refuse "" certify --case ''
refuse conv2d certify --case 'rms_norm x=bf16[2,64] gen=normal' --case 'conv2d x=bf16[2,8]' # nothing runs before all are read
refuse "$(printf 'x%.0s' {1..100})" certify --case "rms_norm $(printf 'x%.0s' {1..5000})"

# ---- verdicts and certificates ---------------------------------------------------------------------------------------
run 0 certify --impl ref --suite smoke --out new/folder
cp out table
check "the last line counts" grep -Eq '^[0-9]+ cases: [0-9]+ passed, 0 failed, 0 out of class, 0 vacuous, 0 skipped, 0 declined; not provided: none$' <(tail -n 1 out)
check "three files, nothing else" test "$(ls -A new/folder | sort | tr '\n' ' ')" = "certificate.json junit.xml summary.md "
check "the smoke table stays short" test "$(wc -l <out)" -le 240
cat >verify.py <<'END'
import hashlib, json, math, sys, xml.etree.ElementTree as xml
folder, table = sys.argv[1:3]
text = open(folder + "/certificate.json", encoding="utf-8").read()
certificate = json.loads(text)
payload = certificate["payload"]
canonical = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
assert hashlib.sha256(canonical).hexdigest() == certificate["payload_sha256"], "payload_sha256"
assert text.splitlines()[1].encode() == canonical, "the second line is the payload"
assert certificate["signature"] is None and certificate["host"]["gpu"] is None
assert set(certificate) == {"payload", "host", "payload_sha256", "signature"}
assert payload["schema"] == "hallmark.certificate/1" and payload["hallmark"] == "0.1.0"
results, summary = payload["results"], payload["summary"]
names = {"pass": "passed", "fail": "failed", "out_of_class": "out_of_class", "vacuous": "vacuous", "skipped": "skipped",
         "declined": "declined"}
assert summary["cases"] == len(results) > 0
for verdict, name in names.items():
    assert summary[name] == sum(r["verdict"] == verdict for r in results), name
for r in results:
    assert r["case"].split()[0] == r["op"] and r["op"] in payload["contracts"] and r["op"] in payload["class_required"]
    assert len(r["inputs_xxh3"]) == 16 and int(r["inputs_xxh3"], 16) >= 0
    assert 0 <= float.fromhex(r["decided"]) <= 1 and not float.fromhex(r["max_ulp"]) < 0
    assert r["repro"].startswith("hallmark certify --impl ") and r["case"].split()[0] in r["repro"]
    if r["verdict"] == "pass":
        assert r["outside"] == 0 and r["effects"] == "ok"
    else:
        assert r["why"]
suite = xml.parse(folder + "/junit.xml").getroot()
assert int(suite.get("tests")) == len(results) == len(suite.findall("testcase"))
assert int(suite.get("failures")) == len(suite.findall("testcase/failure"))
rows = [l for l in open(folder + "/summary.md") if l.startswith(("| pass", "| fail", "| out_of", "| vac", "| skip", "| decl"))]
assert len(rows) == len(results), "summary.md has a row a case"
passes = [l.startswith("| pass") for l in rows]
assert passes == sorted(passes), "what is not a pass comes first"
assert ("%d cases: %d passed" % (summary["cases"], summary["passed"])) in open(table).read()
END
check "certificate of ref" python3 verify.py new/folder table
python3 verify.py new/folder table || true
sed -n 2p new/folder/certificate.json | tr -d '\n' | sha256sum | cut -c 1-64 >hash
check "its hash by standard tools" grep -qf hash new/folder/certificate.json

# A fault: exit 1, the sentence, and a repro that reproduces.
fault=$(hallmark list faults --op rms_norm | awk '$1 ~ /^rms_norm\./ {print $1}' | head -n 1)
check "there is a fault to try" test -n "$fault"
for fault in $(hallmark list faults --op rms_norm | awk '$1 ~ /^rms_norm\./ {print $1}'); do
    hallmark certify --impl "fault:$fault" --op rms_norm --suite quick --out fault >out 2>err
    [ $? -eq 1 ] && break
done
check "some fault fails ($fault)" grep -q '^FAIL  rms_norm ' out
check "certificate of a fault" python3 verify.py fault out
sed -n 's/^  repro  //p' out | head -n 1 >repro
check "a repro is printed" test -s repro
code=0; sh repro >again 2>err || code=$?
check "the repro fails too (exit $code)" test $code -eq 1
check "the repro is of one case" grep -q '^1 cases: 0 passed, 1 failed' again
first=$(grep -m 1 '^FAIL  ' out)
failing=${first#FAIL  }
check "the repro is of the same case" grep -qF -- "$first" again
check "the other op is not provided" grep -q 'not provided: none$' out
run 1 certify --impl "fault:$fault" --suite quick
check "an op that the fault is not about is not provided" grep -q 'not provided: fused_add_rms_norm' out

# Nothing ran: not a pass.
run 3 certify --impl cpu --suite smoke
check "what is not provided is named" grep -Eq '^0 cases: .*; not provided: rms_norm fused_add_rms_norm( [a-z0-9_]+)*$' out
run 3 certify --impl ref --suite smoke --shard 100000/100000
run 3 certify --impl cpu --suite smoke --strict

# Plug-ins: what declines is no pass, what dies is a failure that says how, and the run goes on.
one='rms_norm x=f32[3,64] weight=none gen=normal'
run 3 certify --impl "$plugins/declines.so" --case "$one"
check "a declined case is counted" grep -q '^1 cases: 0 passed, .* 1 declined; not provided: none$' out
run 1 certify --impl "$plugins/declines.so" --case "$one" --strict
run 0 certify --impl "$plugins/example_right.so" --case 'rms_norm x=bf16[3,64] weight=bf16[64] gen=normal' --strict
run 1 certify --impl "$plugins/segfault.so" --case "$one" --case "${one/3,64/5,64}" --out died
check "a crash names its signal" grep -q 'SIGSEGV' out
check "every case of a plug-in that crashes is judged" grep -q '^2 cases: 0 passed, 2 failed' out
check "certificate of a crash" python3 verify.py died out
check "it has the plug-in's hash" grep -q "\"sha256\":\"$(sha256sum <"$plugins/segfault.so" | cut -c 1-64)\"" died/certificate.json
run 1 certify --impl "$plugins/loops.so" --case "$one" --timeout 1
check "a hang names the limit" grep -q 'no answer in 1 s' out
run 1 certify --impl "$plugins/exits.so" --case "$one"
run 1 certify --impl "$plugins/writes_past.so" --case "$one"
check "an exit and a stray write have a sentence" test "$(grep -c '^  why    .' out)" -eq 1
for plugin in no_abi wrong_abi dies_loading; do refuse $plugin.so certify --impl "$plugins/$plugin.so" --case "$one"; done
cp "$plugins/declines.so" "it's here.so"
run 1 certify --impl "./it's here.so" --case "$one" --strict
cp "$plugins/segfault.so" "it's here.so"
run 1 certify --impl "./it's here.so" --case "$one"
sed -n 's/^  repro  //p' out >repro
code=0; sh repro >again 2>err || code=$?
check "a repro is quoted for the shell (exit $code: $(cat err))" test $code -eq 1

# Shards together are the suite.
run 0 certify --suite smoke --shard 1/2 --out s1
run 0 certify --suite smoke --shard 2/2 --out s2
python3 - >shards <<'END'
import json
cases = [[r["case"] for r in json.load(open(d + "/certificate.json"))["payload"]["results"]] for d in ("s1", "s2", "new/folder")]
print(sorted(cases[0] + cases[1]) == sorted(cases[2]) and len(cases[0]) > 0 and len(cases[1]) > 0)
END
check "two shards make the suite" grep -q True shards

# A class that ordinary data cannot show is not claimed.
run 0 certify --case 'rms_norm x=bf16[7,320] gen=normal'
check "one ordinary case separates no classes" grep -q "not separated" out
check "a case without separating inputs claims no class" test "$(grep -c '; consistent with' out)" -eq 0

# ---- files: whole or not at all --------------------------------------------------------------------------------------
mkdir -p blocked/certificate.json
run 70 certify --suite smoke --out blocked
check "what could not be written is named" grep -q 'blocked/certificate.json' err
check "no temporary file stays" test -z "$(find blocked -name '*.tmp')"
for signal in INT TERM; do
    rm -rf stopped
    # A subshell in the background ignores SIGINT; env restores the default.
    env --default-signal=$signal "$hallmark" certify --suite full --out stopped >out 2>err </dev/null &
    pid=$!
    sleep 0.7
    kill -$signal $pid
    code=0; wait $pid || code=$?
    check "SIG$signal ends it with $code, not $((128 + $(kill -l $signal)))" test $code -eq $((128 + $(kill -l $signal)))
    check "SIG$signal leaves no file" test -z "$(find stopped -type f)"
    check "SIG$signal says so" grep -q 'interrupted after' err
done

# ---- cuda_fp8 --------------------------------------------------------------------------------------------------------
if hallmark list impls | grep -Eq '^fp8_mqa_logits .* yes$'; then
    hallmark certify --impl cuda_fp8 --suite smoke --op fp8_mqa_logits --out cuda_fp8 >out 2>err
    check "cuda_fp8 is asked for tc13" grep -Eq '"fp8_mqa_logits": ?"tc13"' cuda_fp8/certificate.json
fi

# ---- bench -----------------------------------------------------------------------------------------------------------
run 0 bench --seconds 0.01 --case 'rms_norm x=bf16[64,512] gen=normal'
check "bench prints a share" grep -Eq '[0-9]+ %' out
run 0 bench --seconds 0.01 --golden --json --case 'rms_norm x=bf16[64,512] weight=bf16[512] gen=normal'
check "bench --json is JSON" python3 -c 'import json; r = json.loads(open("out").read()); assert r["seconds_q1"] <= r["seconds_median"] <= r["seconds_q3"] and 0 < r["golden_seconds"] < 60 and r["golden_and_verdict_per_ref"] > 0 and r["bytes"] == 2 * 64 * 512 * 2 + 512 * 2'
run 0 bench --seconds 0.01 --sample 10 --json --case 'rms_norm x=bf16[640,64] gen=normal'
check "a sample of rows is said to be one" grep -q '"judged":"judged on 10 of 640 rows"' out
run 0 bench --seconds 0.01 --sample 10 --case 'rms_norm x=bf16[640,64] gen=normal'
check "the table says so, too" grep -q 'gen=normal (judged on 10 of 640 rows)$' out
run 0 bench --seconds 0.01 --sample 10 --json --case 'rms_norm x=bf16[10,64] gen=normal'
check "all rows are no sample" test "$(grep -c judged out)" -eq 0
run 0 bench --seconds 0.01 --json --case 'fp8_paged_mqa_logits q=f8e4m3[2,1,4,128] context_lens=i32[2] block_tables=i32[2,9] kv_cache=u8[20,16,132] weights=f32[2,4] logits=f32[2,64] lengths=whole'
check "of a cache and its table what is read counts" grep -q "\"bytes\":$((2 * 4 * 128 + 2 * 4 * 4 + 2 * 4 + 8 * 4 + 128 * 132 + 2 * 64 * 4))," out
run 1 bench --seconds 0.01 --sample 2 --impl "fault:$fault" --case "$failing"
refuse '"1"' bench --sample 1
# timeout(1) sends its signal to the process and to its group: two at once are one, and what was timed is printed.
env --default-signal=TERM "$hallmark" bench --threads 1 --seconds 0.01 --case 'rms_norm x=bf16[64,512] gen=normal' \
    --case 'fp8_mqa_logits q=f8e4m3[3,64,128] k_scale=f32[131072] weights=f32 ks=i32[3] ke=i32[3] logits=f32[3,131072] gen=index' \
    >out 2>err </dev/null &
pid=$!
sleep 1.5; kill -TERM $pid; sleep 0.1; kill -TERM $pid
code=0; wait $pid || code=$?
check "two signals at once end bench with $code" test $code -eq 143 -a "$(grep -c 'x=bf16\[64,512\]' out)" -eq 1
check "and it says that it was interrupted" grep -q 'interrupted while timing' err
run 2 certify --sample 10
run 1 bench --seconds 0.01 --impl "fault:$fault" --case "$failing"
check "what does not certify is not timed" grep -q 'not timed' err
run 3 bench --seconds 0.01 --impl cpu
refuse conv2d bench --case 'conv2d x=bf16[2,8]'
refuse "--out" bench --out somewhere
refuse "--peer is for --impl cuda" bench --peer torch

# ---- eval ------------------------------------------------------------------------------------------------------------
gsm8k=(eval --data "$data/gsm8k" --problems 4 --legal 0)
refuse 'no implementation "cublas"' eval --impl cublas
refuse 'no fault "rms_norm.nonsense"' eval --fault rms_norm.nonsense
nvidia=$(nvidia-smi -L 2>/dev/null)
[ -n "$nvidia" ] || run 3 eval --impl cuda
[ -n "$nvidia" ] || check "eval: no device" grep -q '^Nothing could run: .*CUDA' out
refuse 'no variant "nonsense"' eval --impl variant:nonsense
refuse 'No such file' eval --impl ./nowhere.so
refuse 'both for rms_norm' eval --fault rms_norm.eps_1e_5 --fault rms_norm.zeros
refuse 'goes with no other --impl' eval --impl cpu --fault rms_norm.zeros
refuse 'exclude each other' eval --teacher-forced --greedy
refuse '--problems is "0"' eval --problems 0
refuse 'there are 400' eval --data "$data/gsm8k" --problems 401
refuse '--legal is 5' eval --legal 5
refuse '--bisect needs a noise floor' eval --bisect --legal 0
refuse '--table says what to run' eval --table page.md --impl ref
refuse 'nowhere/model.safetensors' eval --data nowhere
refuse '"ref" is not an option' eval ref
run 1 "${gsm8k[@]}" --fault rotary_embedding.not_rotated@index_rope --problems 8 --legal 6 --json eval.json
check "eval: the verdict" grep -q '^Verdict: off: the score differs (8 lost, 0 gained, p = 0.00781); the divergence' out
check "eval: the smallest drop" grep -q 'could have detected: 0.7500, which is 6 problems' out
check "eval --json" python3 -c 'import json
r = json.load(open("eval.json"))
assert r["schema"] == "hallmark.eval/1" and r["problems"] == 8 and r["impl"] == "fault:rotary_embedding.not_rotated@index_rope"
assert r["exact_match"]["lost"] == 8 and r["exact_match"]["p"] == 2 ** -7 and list(r["calls"]) == ["rotary_embedding"]
assert r["kl"]["given_the_solution"]["mean"] > 1 > r["kl"]["given_the_solution"]["noise"]["mean"] and r["noise"]["alarm"] == ""'
run 1 "${gsm8k[@]}" --fault rms_norm.eps_dropped --teacher-forced
check "eval: NaN is off" grep -q '^given the solution .* inf ' out
run 2 "${gsm8k[@]}" --json /nowhere/eval.json
check "eval: a file that cannot be written is named" grep -q '/nowhere/eval.json' err
run 3 "${gsm8k[@]}" --fault indexer.rotation_dropped
run 3 "${gsm8k[@]}" --impl cpu
run 3 "${gsm8k[@]}" --impl "$plugins/declines.so"
check "eval: declined" grep -q 'Declined, and done by ref: rms_norm' out
run 1 "${gsm8k[@]}" --impl "$plugins/segfault.so"
check "eval: a crash" grep -q 'the run ended early: killed by SIGSEGV in rms_norm (p0.l0.attn_norm)' out
run 1 "${gsm8k[@]}" --impl "$plugins/loops.so" --timeout 1
check "eval: a hang" grep -q 'no answer in 1 s in rms_norm' out
run 1 "${gsm8k[@]}" --impl "$plugins/model_ops.so" --bisect --legal 6 --problems 3
check "eval --bisect" grep -qx 'To blame: silu_and_mul' out
mkdir small && ln -s "$data"/gsm8k/* small/ && rm small/faults.txt
printf '# three\nseed concat_mla_q.rope_half cleared\n%s\n%s block_size=1\n' {,}indexer_k_quant_and_cache.always_shuffled >small/faults.txt
head -n 8 "$data/gsm8k/problems.jsonl" >first.jsonl && rm small/problems.jsonl && mv first.jsonl small/problems.jsonl
if [ -n "${HM_LONG:-}" ]; then # minutes: scripts/test --long
    run 0 "${gsm8k[@]}" --legal 6
    check "eval: the power of the run" grep -q 'No drop could have been detected: it takes 6' out
    check "eval: A/A" grep -q '^A/A: ref against 6 paths of legal variants, 4 problems each: 0 lost, 0 gained, .* no alarm' out
    run 1 "${gsm8k[@]}" --fault concat_mla_q.rope_half --fault layer_norm.zeros --bisect --legal 6 --problems 3
    check "eval --bisect: two" grep -qx 'To blame: concat_mla_q, layer_norm' out
    run 0 "${gsm8k[@]}" --impl variant:rms_norm.divides --bisect --legal 6 --problems 2
    check "eval --bisect: nothing" grep -q 'there is nothing to bisect' out
    run 0 eval --data small --problems 3 --legal 6 --table page.md
    check "eval --table: its rows" test "$(grep -c '^| `[a-z_]*\.' page.md)" -eq 3
    check "eval --table: the block size counts" test "$(grep always_shuffled page.md | cut -d'|' -f5 | sort -u | wc -l)" -eq 2
    check "eval --table: what replay says" grep -q '| 2 of 2 calls, 3840 elements |' page.md
    check "eval --table: its plot" test "$(grep -c '<circle' page.svg)" -eq 5
    for n in 1 3; do run 0 "${gsm8k[@]}" --fault rms_norm.rs_previous_row --problems 52 --teacher-forced --legal 6 --judged 2 --processes $n --json $n.json; done
    check "eval: the same for any number of processes" cmp 1.json 3.json
fi
for line in nonsense 'rms_norm.zeros loudly' seed 'indexer.rotation_dropped'; do
    echo "$line" >small/faults.txt
    refuse 'faults.txt:1: ' eval --data small --table page.md
done
env --default-signal=INT "$hallmark" "${gsm8k[@]}" --problems 400 --json stopped.json >out 2>err </dev/null &
pid=$!
sleep 1
workers=$(awk -v p=$pid '$4 == p {print $1}' /proc/[0-9]*/stat 2>/dev/null)
kill -INT $pid
code=0; wait $pid || code=$?
sleep 0.1
check "eval: SIGINT ends it with $code" test $code -eq 130
check "eval: SIGINT leaves no file" test ! -e stopped.json
check "eval: there were processes" test -n "$workers"
for worker in $workers; do check "eval: SIGINT leaves no process" test ! -d /proc/$worker; done

echo "$checks checks, $failed failed"
[ $failed -eq 0 ]
