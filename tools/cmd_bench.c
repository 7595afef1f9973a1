/* hallmark bench: times what certifies. Caches are swept before every timed run; the ceiling is a parallel memcpy that
 * moves as many bytes, timed in turn with the op, so that the share of it survives a change of machine. On a CUDA
 * device (bench_cuda.cu) calls are replayed as a graph, on buffers in turn, against a copy by the device, against what
 * its tensor cores can do, and against a peer (peer.h). */
#include <inttypes.h>
#include <jansson.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../certify/embedded.h"
#include "../certify/rows.h"
#include "../op/check.h"
#include "bench_bytes.h"
#include "bench_device.h"
#include "cli.h"
#include "timing.h"

enum { MAX_RUNS = 1000, MIN_RUNS = 5, GOLDEN_RUNS = 3, MAX_CASES = 256 };

typedef struct {
    hm_run_options run;
    const hm_op_info *op;
    const char *cases[MAX_CASES];
    int ncases;
    double seconds; /* spent on each case */
    int64_t sample; /* rows of each output to judge; 0: as the list says */
    const char *peer;
    bool json, golden;
} bench_options;

typedef struct {
    const bench_options *options;
    hm_impl *impl;
    hm_table *table;
    hm_progress progress;
    unsigned char *sweep, *from, *to; /* sweep_size bytes; copy_size bytes each */
    size_t sweep_size, copy_size;
    int timed, failed, absent;
    bench_device *device; /* NULL: on the host */
} session;

/* ---- measuring ----------------------------------------------------------------------------------------------------
 */

/* Writes through more memory than the last-level cache holds, on every thread: what follows starts cold. */
static void sweep(session *s) {
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < s->sweep_size; i += 64) s->sweep[i]++;
}

static double time_copy(session *s, size_t bytes) {
    enum { CHUNK = 1 << 16 };
    int64_t chunks = (int64_t)((bytes + CHUNK - 1) / CHUNK);
    sweep(s);
    double start = hm_seconds();
    if (chunks == 1) memcpy(s->to, s->from, bytes);
    else {
#pragma omp parallel
        {
            int64_t n = omp_get_num_threads(), me = omp_get_thread_num();
            size_t first = (size_t)(chunks * me / n) * CHUNK, last = (size_t)(chunks * (me + 1) / n) * CHUNK;
            if (last > bytes) last = bytes;
            if (first < last) memcpy(s->to + first, s->from + first, last - first);
        }
    }
    return hm_seconds() - start;
}

static double time_run(session *s, hm_call *call, hm_run *run) {
    sweep(s);
    double start = hm_seconds();
    s->impl->run(s->impl, call, call->args, run);
    return hm_seconds() - start;
}

static void grow_copy(session *s, size_t bytes) {
    if (bytes <= s->copy_size) return;
    free(s->from);
    free(s->to);
    s->from = malloc(bytes);
    s->to = malloc(bytes);
    if (!s->from || !s->to) hm_die(HM_EXIT_INTERNAL, "no memory for a copy of %zu bytes", bytes);
    memset(s->from, 1, bytes);
    memset(s->to, 2, bytes);
    s->copy_size = bytes;
}

/* Golden of every output of a call that has run, for the class that is required. */
static void run_golden(const hm_call *call, hm_class class) {
    hm_golden *golden;
    hm_status status = hm_golden_open(call->op, call->golden_args, 0, &golden);
    if (status) hm_die(HM_EXIT_INTERNAL, "golden: %s", hm_status_name(status));
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < call->op->nargs; i++) {
            const hm_tensor *t = hm_arg_tensor(call->op, call->args, i);
            if (call->op->args[i].direction == HM_IN || t->dtype == HM_DTYPE_NONE) continue;
            int64_t rows = hm_row_count(t), n = hm_row_length(t);
            int bad = pass == 0 ? hm_golden_observe(golden, i, t, 0) != HM_OK : 0;
            if (pass == 1 && n > 0) {
#pragma omp parallel num_threads(rows < omp_get_max_threads() ? (int)rows + (rows == 0) : omp_get_max_threads()) \
    reduction(+ : bad)
                {
                    hm_row r;
                    bool made = hm_row_make(&r, n);
                    bad += !made;
#pragma omp for schedule(static, 4)
                    for (int64_t row = 0; row < rows; row++) {
                        r.gold.nparts = 0;
                        if (made) bad += hm_golden_row_get(golden, i, row, class, HM_TIER_TWO, &r.gold) != 0;
                    }
                    if (made) hm_row_free(&r);
                }
            }
            if (bad) hm_die(HM_EXIT_INTERNAL, "golden failed on %s", call->op->args[i].name);
        }
    hm_golden_close(golden);
}

typedef struct {
    double ref, golden, judge; /* seconds; 0: not asked for */
} truth_times;

/* What certifying costs: golden alone, and golden with the verdict (all classes that it asks for), beside ref. */
static truth_times time_golden(const session *s, hm_call *call) {
    char why[256];
    hm_impl *ref = hm_impl_open("ref", HM_TIMEOUT, why, sizeof why);
    if (!ref) hm_die(HM_EXIT_INTERNAL, "%s", why);
    hm_judge_options judge = hm_run_judge_options(&s->options->run, call->op);
    hm_class class = judge.required == HM_CLASS_NONE ? hm_class_named(call->op->class_required) : judge.required;
    double run_time[GOLDEN_RUNS], golden_time[GOLDEN_RUNS], judge_time[GOLDEN_RUNS];
    for (int i = 0; i < GOLDEN_RUNS; i++) {
        hm_run run;
        hm_verdict v;
        hm_call_reset(call);
        double start = hm_seconds();
        ref->run(ref, call, call->args, &run);
        double ran = hm_seconds();
        run_golden(call, class);
        double known = hm_seconds();
        hm_judge_outputs(call, &run, &judge, &v);
        run_time[i] = ran - start, golden_time[i] = known - ran, judge_time[i] = hm_seconds() - known;
    }
    hm_impl_close(ref);
    return (truth_times){timing_of(run_time, GOLDEN_RUNS).median, timing_of(golden_time, GOLDEN_RUNS).median,
                         timing_of(judge_time, GOLDEN_RUNS).median};
}

/* ---- one case -----------------------------------------------------------------------------------------------------
 */

static void print_row(session *s, const hm_call *call, const char *line, const char *judged, size_t bytes, timing op,
                      timing copy, truth_times truth) {
    double speed = (double)bytes / op.median * 1e-9, ceiling = (double)bytes / copy.median * 1e-9;
    if (s->options->json) {
        json_t *j =
            json_pack("{s:s, s:s, s:s, s:i, s:i, s:I, s:f, s:f, s:f, s:f, s:f, s:f}", "op", call->op->name, "case",
                      call->name, "impl", s->impl->name, "threads", omp_get_max_threads(), "runs", op.runs, "bytes",
                      (json_int_t)bytes, "seconds_q1", op.q1, "seconds_median", op.median, "seconds_q3", op.q3,
                      "gb_per_s", speed, "copy_gb_per_s", ceiling, "share", speed / ceiling);
        if (*judged) json_object_set_new(j, "judged", json_string(judged));
        if (truth.judge > 0) {
            json_object_set_new(j, "golden_seconds", json_real(truth.golden));
            json_object_set_new(j, "golden_and_verdict_seconds", json_real(truth.judge));
            json_object_set_new(j, "golden_and_verdict_per_ref", json_real(truth.judge / truth.ref));
        }
        char *text = json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(6));
        if (!text) hm_die(HM_EXIT_INTERNAL, "out of memory");
        puts(text);
        free(text);
        json_decref(j);
        return;
    }
    char golden[96] = "";
    if (truth.judge > 0)
        snprintf(golden, sizeof golden, "\t%.3g\t%.3g\t%.1fx", 1e3 * truth.golden, 1e3 * truth.judge,
                 truth.judge / truth.ref);
    hm_table_row(s->table, "%.1f\t%.1f..%.1f\t%.2f\t%.2f\t%.0f %%\t%d%s\t%s", 1e6 * op.median, 1e6 * op.q1, 1e6 * op.q3,
                 speed, ceiling, 100 * speed / ceiling, op.runs, golden, line);
}

/* What does not certify is not timed. sample: rows of each output that golden is asked for, or 0; judged says of how
 * many it was, where not of all. */
static bool certified(session *s, hm_call *call, int64_t sample, char *judged, size_t size) {
    hm_judge_options judge = hm_run_judge_options(&s->options->run, call->op);
    hm_verdict v;
    judge.check_invariance = s->options->run.require_invariance;
    judge.most_rows = sample;
    hm_judge(s->impl, call, &judge, &v);
    *judged = 0;
    if (v.rows_judged < v.rows)
        snprintf(judged, size, "judged on %lld of %lld rows", (long long)v.rows_judged, (long long)v.rows);
    if (v.outcome == HM_PASS) return true;
    char repro[HM_CASE_MAX + 1024];
    hm_run_repro(&s->options->run, "ref", "certify", "--case", call->name, repro, sizeof repro);
    hm_progress_clear(&s->progress);
    fprintf(stderr, "not timed, since it does not certify:\n");
    hm_print_failure(stderr, call->op, call->name, &v, repro);
    if (v.outcome == HM_DECLINED || v.outcome == HM_NOT_OFFERED || v.outcome == HM_SKIPPED) s->absent++;
    else s->failed++;
    return false;
}

/* line: of a case, as it is in the lists. */
static void bench_case(session *s, const char *line) {
    static double op_time[MAX_RUNS], copy_time[MAX_RUNS];
    hm_case_spec spec;
    hm_call *call;
    hm_run run;
    char why[512], judged[64], label[HM_CASE_MAX + 128];
    int64_t sample = s->options->sample;
    int in_list = 0;
    if (sscanf(line, "sample=%" SCNd64 " %n", &sample, &in_list) == 1) line += in_list;
    if (s->options->sample) sample = s->options->sample;
    if (hm_case_parse(line, &spec, why, sizeof why) != HM_OK) hm_die(HM_EXIT_USAGE, "the case '%s': %s", line, why);
    if (s->options->op && spec.op != s->options->op) return;
    if (spec.expect != HM_OK) hm_die(HM_EXIT_USAGE, "the case '%s' expects an error: there is nothing to time", line);
    if (!s->impl->provides(s->impl, spec.op)) {
        fprintf(stderr, "not provided: %s\n", spec.op->name);
        s->absent++;
        return;
    }
    if (hm_call_from_case(&spec, &call, why, sizeof why) != HM_OK)
        hm_die(HM_EXIT_USAGE, "the case '%s' cannot be set up: %s", line, why);
    bool sound = certified(s, call, sample, judged, sizeof judged);
    snprintf(label, sizeof label, *judged ? "%s (%s)" : "%s%s", line, judged);
    if (sound && s->device) {
        size_t bytes = hm_least_bytes(call);
        hm_call_reset(call);
        bench_device_time(s->device, call, bytes, label, judged, s->table, &s->progress);
        s->timed++;
    } else if (sound) {
        size_t bytes = hm_least_bytes(call);
        int runs = 0;
        grow_copy(s, bytes / 2); /* a copy of half as many bytes reads and writes that many */
        hm_call_reset(call);
        time_run(s, call, &run);
        time_copy(s, bytes / 2);
        for (double start = hm_seconds(); runs < MAX_RUNS && !hm_interrupted(); runs++) {
            if (runs >= MIN_RUNS && hm_seconds() - start > s->options->seconds) break;
            op_time[runs] = time_run(s, call, &run);
            copy_time[runs] = time_copy(s, bytes / 2);
        }
        if (!hm_interrupted()) {
            truth_times truth = s->options->golden ? time_golden(s, call) : (truth_times){0};
            print_row(s, call, label, judged, bytes, timing_of(op_time, runs), timing_of(copy_time, runs), truth);
            s->timed++;
        }
    }
    hm_call_free(call);
    hm_progress_step(&s->progress, line);
}

/* Runs do for every line of the embedded lists (tests/perf/<op>.bench): case lines, '#' begins a comment, and "device "
 * one that is too large for a host. "sample=N " comes before a case of which golden is asked for N rows of each output,
 * since all would take too long. */
static void each_default(session *s, void (*visit)(session *, const char *)) {
    for (int i = 0; i < hm_embedded_count; i++) {
        const char *dot = strrchr(hm_embedded[i].name, '.');
        if (!dot || strcmp(dot, ".bench")) continue;
        for (const char *p = hm_embedded[i].data; *p && !hm_interrupted();) {
            char line[HM_CASE_MAX];
            size_t n = strcspn(p, "\n");
            snprintf(line, sizeof line, "%.*s", (int)n, p);
            p += n + (p[n] == '\n');
            bool large = !strncmp(line, "device ", 7);
            if (*line && *line != '#' && (!large || s->device)) visit(s, large ? line + 7 : line);
        }
    }
}

static void count(session *s, const char *line) {
    (void)line;
    s->progress.total++;
}

/* ---- options ------------------------------------------------------------------------------------------------------
 */

enum { KEY_CASE = 512, KEY_SAMPLE, KEY_SECONDS, KEY_JSON, KEY_GOLDEN, KEY_PEER };

static error_t parse(int key, char *text, struct argp_state *state) {
    bench_options *o = state->input;
    switch (key) {
        case ARGP_KEY_INIT:
            state->child_inputs[0] = &o->run;
            return 0;
        case 'o':
            o->op = hm_option_op(text);
            return 0;
        case KEY_CASE:
            if (o->ncases == MAX_CASES) hm_die(HM_EXIT_USAGE, "--case may be given %d times at most", MAX_CASES);
            o->cases[o->ncases++] = text;
            return 0;
        case KEY_SECONDS:
            o->seconds = hm_option_seconds("--seconds", text);
            return 0;
        case KEY_SAMPLE:
            o->sample = hm_option_i64("--sample", text, 2, INT64_MAX);
            return 0;
        case KEY_JSON:
            o->json = true;
            return 0;
        case KEY_GOLDEN:
            o->golden = true;
            return 0;
        case KEY_PEER:
            o->peer = text;
            return 0;
        case ARGP_KEY_ARG:
            hm_die(HM_EXIT_USAGE, "\"%s\" is not an option; --help lists them", text);
        default:
            return ARGP_ERR_UNKNOWN;
    }
}

static const char about[] =
    "Times an implementation on shapes of real models, with cold caches.\v"
    "GB/s counts the bytes that must move: each input element once, each output element once. The ceiling is a memcpy "
    "of as "
    "many bytes on as many threads, timed in turn with the op. The spread is from the first to the third quartile.\n\n"
    "--impl cuda: one call in a graph of many that is replayed, on up to 64 sets of buffers in turn, which are larger "
    "than the "
    "device's cache together; pdl: the same with programmatic dependent launch. copy: as many bytes, in the same way; "
    "share: "
    "its time over the op's; rows: a copy that reads and writes where the call does, where each output has an input of "
    "its "
    "shape; TFLOP/s of matrix products, and their share of what the tensor cores do in a kernel that does nothing "
    "else.\n\n"
    "--peer: somebody else's time for the case, plain launches against plain launches, in 5 passes in turn: medians, "
    "and "
    "the "
    "largest less the smallest; equal, unless the medians are further apart than that. docs/cuda.md says how a program "
    "becomes a peer; torch is built in, and needs python3 with torch.\n\n"
    "A case that does not certify is not timed (exit 1). A row says so where golden was asked for a sample of rows: "
    "that is "
    "enough to time it, and no certificate. The time of a plug-in includes the round trip to its process.";

int hm_cmd_bench(int argc, char **argv) {
    static const struct argp_option options[] = {
        {"op", 'o', "OP", 0, "Only this op", 0},
        {"case", KEY_CASE, "LINE", 0, "Only this case; may be given several times", 0},
        {"sample", KEY_SAMPLE, "N", 0,
         "Judge values on N rows of each output, spread over it, and effects everywhere (default: all rows, but of the "
         "largest cases of the lists)",
         0},
        {"seconds", KEY_SECONDS, "S", 0, "Time to spend on each case (default 1)", 0},
        {"json", KEY_JSON, NULL, 0, "One JSON object a line", 0},
        {"peer", KEY_PEER, "PROGRAM", 0, "On a device: also the time of a peer: torch, or a program", 0},
        {"golden", KEY_GOLDEN, NULL, 0,
         "Also the time of golden alone and of golden and verdict, in ms, and the latter as a multiple of ref", 0},
        {0},
    };
    static const struct argp_child children[] = {{&hm_run_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {options, parse, NULL, about, children, NULL, NULL};
    bench_options o = {.run = HM_RUN_OPTIONS, .seconds = 1};
    hm_parse(&argp, argc, argv, &o);
    if (o.run.out || o.run.strict)
        hm_die(HM_EXIT_USAGE, "--out and --strict belong to certify: a timing is no certificate");

    if (o.op) hm_run_asks(&o.run, o.op->name);
    for (int i = 0; i < o.ncases && !o.op; i++) hm_run_asks(&o.run, o.cases[i]);
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    size_t least = (size_t)32 << 20, most = (size_t)256 << 20, l3 = cache > 0 ? (size_t)cache : 0;
    hm_interruptible();
    session s = {.options = &o, .impl = hm_run_open(&o.run, "ref")};
    s.sweep_size = 2 * (l3 < least ? least : l3 > most ? most : l3);
    s.sweep = calloc(s.sweep_size, 1);
    if (!s.sweep) hm_die(HM_EXIT_INTERNAL, "no memory for the cache sweep");
    bool on_device = s.impl->place == HM_CUDA;
    if (on_device && !s.impl->ours)
        hm_die(HM_EXIT_USAGE, "bench times plug-ins on the host only, and %s is for cuda", s.impl->name);
    if (o.peer && !on_device) hm_die(HM_EXIT_USAGE, "--peer is for --impl cuda");
    if (on_device) s.device = bench_device_open(s.impl->name, o.seconds, o.peer, o.json);
    s.table = hm_table_new(
        s.device   ? bench_device_columns(s.device)
        : o.golden ? ">us\t>quartiles\t>GB/s\t>copy GB/s\t>share\t>runs\t>golden ms\t>judge ms\t>per ref\tcase"
                   : ">us\t>quartiles\t>GB/s\t>copy GB/s\t>share\t>runs\tcase");
    s.progress = hm_progress_start("bench", o.ncases);
    if (!o.ncases) each_default(&s, count);
    for (int i = 0; i < o.ncases && !hm_interrupted(); i++) bench_case(&s, o.cases[i]);
    if (!o.ncases) each_default(&s, bench_case);
    hm_progress_clear(&s.progress);
    if (!o.json) {
        if (s.device) bench_device_print(s.device);
        else if (!on_device)
            printf("%s on %d threads, %s, caches swept before every run\n", s.impl->name, omp_get_max_threads(),
                   hm_isa());
        hm_table_print(s.table, stdout);
    }
    if (hm_interrupted()) hm_interrupted_exit("while timing");
    bench_device_close(s.device);
    hm_impl_close(s.impl);
    free(s.sweep);
    free(s.from);
    free(s.to);
    return s.failed ? HM_EXIT_FAIL : s.timed ? HM_EXIT_OK : HM_EXIT_NOTHING;
}
