/* hallmark eval: word problems through an implementation, paired against the golden path. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "eval.h"

/* ---- paths ------------------------------------------------------------------------------------------------------ */

/* Puts an implementation in the path of every op that it offers; dies if there is none such. Returns how many. */
static int take(hm_eval_path *path, const char *spec, char *why, size_t size) {
    bool provides[HM_MODEL_OPS];
    int count = 0;
    if (!hm_eval_spec_check(spec, provides, why, size)) hm_die(HM_EXIT_USAGE, "%s", why);
    for (int i = 0; i < HM_MODEL_OPS; i++) {
        if (!provides[i]) continue;
        if (path->of[i] && strcmp(path->of[i], "ref"))
            hm_die(HM_EXIT_USAGE, "%s and %s are both for %s; one path has one implementation of an op", path->of[i],
                   spec, hm_model_op_info((hm_model_op)i)->name);
        path->of[i] = spec;
        count++;
    }
    return count;
}

static void path_of(eval_options *o, hm_eval_path *path) {
    *path = (hm_eval_path){.before = o->before};
    char why[512] = "";
    int ops = o->nfaults ? 0 : take(path, o->impl ? o->impl : "ref", why, sizeof why);
    for (int i = 0; i < o->nfaults; i++) ops += take(path, o->fault[i], why, sizeof why);
    if (ops) return;
    if (*why) printf("Nothing could run: %s\n", why);
    else printf("Nothing could run: %s offers no op that the model has.\n", o->nfaults ? o->fault[0] : o->impl);
    exit(HM_EXIT_NOTHING);
}

/* ---- progress --------------------------------------------------------------------------------------------------- */

static hm_progress bar;
static const char *what = "";

static void show(void *with, double share) {
    (void)with;
    while ((double)bar.done < share * (double)bar.total) hm_progress_step(&bar, what);
}

void eval_progress(const char *label) {
    hm_progress_clear(&bar);
    bar = hm_progress_start("eval", 100);
    what = label ? label : "";
}

void eval_stop_if_interrupted(bool interrupted) {
    hm_progress_clear(&bar);
    if (interrupted) hm_interrupted_exit("before the last problem");
}

/* ---- one run ---------------------------------------------------------------------------------------------------- */

static void measure_noise(hm_eval *e, const int64_t *problem, int64_t n, int paths, hm_eval_noise *noise) {
    char why[HM_EVAL_TEXT] = "";
    bool interrupted;
    *noise = (hm_eval_noise){0};
    if (!paths) return;
    eval_progress("ref against legal variants");
    hm_eval_end end = hm_eval_noise_measure(e, problem, n, paths, noise, &interrupted, why, sizeof why);
    eval_stop_if_interrupted(interrupted);
    if (end != HM_EVAL_DONE) hm_die(HM_EXIT_INTERNAL, "%s", why);
}

/* Which of what was measured is off; "" if nothing is. */
static void judge(const eval_run *run, char *text, size_t size) {
    const hm_eval_result *r = &run->result;
    size_t n = 0;
    *text = 0;
    if (r->end == HM_EVAL_FAILED) hm_die(HM_EXIT_INTERNAL, "%s", r->why);
    if (r->end != HM_EVAL_DONE) {
        snprintf(text, size, "the run ended early: %s", r->why);
        return;
    }
    static const char *const where[] = {"given the solution", "in decoding"};
    double p = hm_mcnemar(r->lost, r->gained);
    if (p < HM_SCORE_ALPHA)
        n += (size_t)snprintf(text, size, "the score differs (%lld lost, %lld gained, p = %.3g)", (long long)r->lost,
                              (long long)r->gained, p);
    for (int mode = 0; mode < HM_EVAL_MODES && n < size; mode++)
        if (hm_eval_above(&r->judged[mode], &run->noise.line[mode]))
            n += (size_t)snprintf(text + n, size - n, "%sthe divergence %s is above the noise", n ? "; " : "",
                                  where[mode]);
}

/* "ref", "./my.so", "fault:A and fault:B" */
static void name_of(const eval_options *o, char *text, size_t size) {
    size_t n = 0;
    if (!o->nfaults) snprintf(text, size, "%s", o->impl ? o->impl : "ref");
    for (int i = 0; i < o->nfaults && n < size; i++)
        n += (size_t)snprintf(text + n, size - n, "%s%s", i ? " and " : "", o->fault[i]);
}

/* Did the implementation do anything at all? */
static bool did_something(const eval_run *run) {
    for (int i = 0; i < HM_MODEL_OPS; i++)
        if (run->result.calls[i] > run->result.declined[i]) return true;
    return hm_eval_is_ref(run->path) || run->result.end != HM_EVAL_DONE;
}

static int run_one(const eval_options *o, hm_eval *e, hm_eval_path *path, const int64_t *problem, int64_t n) {
    eval_run run = {.options = o, .path = path, .seconds = hm_seconds()};
    path->problem = problem, path->problems = n, path->judged = n < o->judged ? n : o->judged;
    name_of(o, run.name, sizeof run.name);
    eval_progress(hm_eval_is_ref(path) ? "golden path" : "golden path, then the implementation");
    bool complete = hm_eval_run(e, path, 1, &run.result);
    eval_stop_if_interrupted(!complete);
    measure_noise(e, problem, path->judged, run.result.end == HM_EVAL_DONE ? o->legal : 0, &run.noise);
    run.seconds = hm_seconds() - run.seconds;
    judge(&run, run.off, sizeof run.off);
    run.ran = did_something(&run);
    eval_print(e, &run);
    if (o->json) eval_write_json(e, &run, o->json);
    int code = *run.off ? HM_EXIT_FAIL : HM_EXIT_OK;
    if (!run.ran) code = HM_EXIT_NOTHING;
    else if (*run.noise.alarm) {
        fflush(stdout);
        fprintf(stderr, "hallmark eval: A/A raised an alarm, nothing above is to be trusted: %s\n", run.noise.alarm);
        code = HM_EXIT_INTERNAL;
    } else if (o->bisect) {
        if (*run.off) eval_bisect(e, &run);
        else puts("Nothing is off: there is nothing to bisect.");
    }
    hm_eval_result_free(&run.result);
    return code;
}

/* ---- options ---------------------------------------------------------------------------------------------------- */

enum {
    KEY_FAULT = 512,
    KEY_PROBLEMS,
    KEY_BLOCK,
    KEY_TOP_K,
    KEY_FORCED,
    KEY_GREEDY,
    KEY_CLEARED,
    KEY_STALE,
    KEY_BISECT,
    KEY_TABLE,
    KEY_JSON,
    KEY_DATA,
    KEY_PROCESSES,
    KEY_TIMEOUT,
    KEY_LEGAL,
    KEY_JUDGED
};

static error_t parse(int key, char *text, struct argp_state *state) {
    eval_options *o = state->input;
    switch (key) {
        case 'i':
            o->impl = text;
            return 0;
        case KEY_FAULT: {
            char *spec;
            if (o->nfaults == EVAL_FAULTS) hm_die(HM_EXIT_USAGE, "--fault may be given %d times at most", EVAL_FAULTS);
            if (asprintf(&spec, "fault:%s", text) < 0) hm_die(HM_EXIT_INTERNAL, "out of memory");
            o->fault[o->nfaults++] = spec;
            return 0;
        }
        case KEY_PROBLEMS:
            o->problems = hm_option_i64("--problems", text, 1, INT64_C(1) << 30);
            return 0;
        case KEY_BLOCK:
            o->block_size = hm_option_i64("--block-size", text, 1, 1024);
            return 0;
        case KEY_TOP_K:
            o->top_k = hm_option_i64("--top-k", text, 1, 1024);
            return 0;
        case KEY_FORCED:
            o->greedy = false;
            return 0;
        case KEY_GREEDY:
            o->forced = false;
            return 0;
        case KEY_CLEARED:
            o->before = HM_EVAL_CLEARED;
            return 0;
        case KEY_STALE:
            o->before = HM_EVAL_STALE;
            return 0;
        case KEY_BISECT:
            o->bisect = true;
            return 0;
        case KEY_TABLE:
            o->table = text;
            return 0;
        case KEY_JSON:
            o->json = text;
            return 0;
        case KEY_DATA:
            o->folder = text;
            return 0;
        case KEY_PROCESSES:
            o->processes = (int)hm_option_i64("--processes", text, 1, 1024);
            return 0;
        case KEY_TIMEOUT:
            o->timeout = hm_option_seconds("--timeout", text);
            return 0;
        case KEY_LEGAL:
            o->legal = (int)hm_option_i64("--legal", text, 0, HM_EVAL_LEGAL);
            return 0;
        case KEY_JUDGED:
            o->judged = hm_option_i64("--judged", text, 2, 1000);
            return 0;
        case ARGP_KEY_ARG:
            hm_die(HM_EXIT_USAGE, "\"%s\" is not an option; --help lists them", text);
        default:
            return ARGP_ERR_UNKNOWN;
    }
}

static const char about[] =
    "Lets a small language model, which has every op of DeepSeek-V3.2's sparse attention, answer word problems through "
    "an "
    "implementation, and compares each word with the golden path: ref for every op.\v"
    "Exact match: the number behind #### in the greedy answer. Given the solution (teacher-forced): prompt and "
    "solution "
    "are read at once. In decoding: the answer word by word, compared as long as both paths chose the same words. The "
    "scores are paired (McNemar's exact test); the noise floor is what ref and paths of legal variants differ by "
    "(A/A). "
    "An implementation may be a plug-in, which runs in processes of its own; what works on CUDA memory is called on "
    "copies "
    "of the model's tensors there, and every op that it lacks is ref's, on the host. ID@SITE injects a fault into one "
    "kind of "
    "the "
    "model's calls only: rotary_embedding.not_rotated@index_rope.\n\n"
    "A score is no substitute for `hallmark replay --impl I data/gsm8k/traces/*.safetensors`, which judges every "
    "element: "
    "rounding faults do not move the score.\n\n"
    "Exit codes: 0 nothing is off; 1 the score or a divergence is off, or the implementation did not survive; 2 usage; "
    "3 "
    "nothing could run; 70 internal error.";

int hm_cmd_eval(int argc, char **argv) {
    static const struct argp_option options[] = {
        {"impl", 'i', "IMPL", 0,
         "ref (default), cpu, cuda, cuda_fp8, fault:ID, variant:ID, or a plug-in: a path that ends in .so", 0},
        {"fault", KEY_FAULT, "ID", 0, "Inject this row of the fault table into its op; may be given several times", 0},
        {"bisect", KEY_BISECT, NULL, 0, "If anything is off, name the ops that are to blame", 0},
        {"problems", KEY_PROBLEMS, "N", 0, "Only N of the problems, evenly spread (default: all)", 1},
        {"teacher-forced", KEY_FORCED, NULL, 0, "Only given the solution; no greedy decoding", 1},
        {"greedy", KEY_GREEDY, NULL, 0, "Only greedy decoding", 1},
        {"block-size", KEY_BLOCK, "N", 0, "Tokens of a block of the paged caches (default 64)", 2},
        {"top-k", KEY_TOP_K, "N", 0, "Keys that a token attends to (default: the model's)", 2},
        {"cleared", KEY_CLEARED, NULL, 0, "Outputs are zeros before each call of the implementation", 2},
        {"stale", KEY_STALE, NULL, 0, "Outputs hold what ref made of the call before (mostly: of the layer before)", 2},
        {"legal", KEY_LEGAL, "N", 0, "Paths of legal variants that set the noise floor (default 8; 0: no floor)", 2},
        {"judged", KEY_JUDGED, "N", 0, "Problems that the divergence is judged on, and its noise measured (default 24)",
         2},
        {"table", KEY_TABLE, "FILE", 0, "Run every line of faults.txt and write the table, and FILE's plot as .svg", 3},
        {"json", KEY_JSON, "FILE", 0, "Write the numbers there, too", 3},
        {"data", KEY_DATA, "DIR", 0, "Folder of model.safetensors, vocab.json, problems.jsonl (default data/gsm8k)", 4},
        {"processes", KEY_PROCESSES, "N", 0, "At a time (speed only, never results; default: one a core)", 4},
        {"timeout", KEY_TIMEOUT, "S", 0, "Seconds that one call of a plug-in has (default 60)", 4},
        {0},
    };
    static const struct argp argp = {options, parse, NULL, about, NULL, NULL, NULL};
    eval_options o = {.folder = "data/gsm8k",
                      .forced = true,
                      .greedy = true,
                      .legal = EVAL_LEGAL,
                      .judged = EVAL_JUDGED,
                      .timeout = HM_EVAL_TIMEOUT};
    hm_parse(&argp, argc, argv, &o);
    if (!o.forced && !o.greedy) hm_die(HM_EXIT_USAGE, "--teacher-forced and --greedy exclude each other");
    if (o.nfaults && o.impl && strcmp(o.impl, "ref"))
        hm_die(HM_EXIT_USAGE, "--fault replaces an op of ref: it goes with no other --impl (this is %s)", o.impl);
    if (o.table && (o.impl || o.nfaults || o.bisect || o.json))
        hm_die(HM_EXIT_USAGE, "--table says what to run: it goes with none of --impl, --fault, --bisect, --json");
#ifdef HM_DEVICE /* no libxml2 */
    if (o.table) hm_die(HM_EXIT_USAGE, "--table is not in a build for the device");
#endif
    if (o.bisect && !o.legal) hm_die(HM_EXIT_USAGE, "--bisect needs a noise floor: --legal must not be 0");
    if (o.legal && o.legal < EVAL_LEAST)
        hm_die(HM_EXIT_USAGE, "--legal is %d, but must be 0 or %d to %d", o.legal, EVAL_LEAST, HM_EVAL_LEGAL);
    cpu_set_t cores;
    if (!o.processes) o.processes = sched_getaffinity(0, sizeof cores, &cores) ? 1 : CPU_COUNT(&cores);

    char why[HM_EVAL_TEXT];
    hm_eval_path path;
    if (!o.table) path_of(&o, &path);
    hm_eval *e = hm_eval_open(&(hm_eval_options){.folder = o.folder,
                                                 .block_size = o.block_size,
                                                 .top_k = o.top_k,
                                                 .teacher_forced = o.forced,
                                                 .greedy = o.greedy,
                                                 .processes = o.processes,
                                                 .timeout = o.timeout,
                                                 .progress = show,
                                                 .interrupted = hm_interrupted},
                              why, sizeof why);
    if (!e) hm_die(HM_EXIT_USAGE, "%s (--data says where the model is)", why);
    int64_t all = hm_eval_problems(e), n = o.problems ? o.problems : o.table && all > EVAL_TABLE ? EVAL_TABLE : all;
    if (n > all) hm_die(HM_EXIT_USAGE, "--problems is %lld, but there are %lld", (long long)n, (long long)all);
    int64_t *problem = hm_eval_order(all);
    if (!problem) hm_die(HM_EXIT_INTERNAL, "out of memory");
    hm_interruptible();
#ifdef HM_DEVICE
    int code = run_one(&o, e, &path, problem, n);
#else
    int code = o.table ? eval_table(e, &o, problem, n) : run_one(&o, e, &path, problem, n);
#endif
    free(problem);
    for (int i = 0; i < o.nfaults; i++) free((char *)o.fault[i]);
    hm_eval_close(e);
    return code;
}
