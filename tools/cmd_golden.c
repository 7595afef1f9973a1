/* hallmark golden: the ideal value and the admissible interval of every output, as a safetensors file. The format:
 * docs/golden.md. Calls that have their inputs in the file make it a trace at the same time, in which the ideal values
 * are what was recorded. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "../certify/safetensors.h"
#include "golden_file.h"

/* Cases with rows longer than LONGEST are left out of --make: one of them would take as much room as fifty others. Rows
 * of bytes may be as long as an entry of the latent attention's cache. Of a suite with more than MOST cases, about MOST
 * are kept, evenly spread over it. */
enum { MAX_CASES = 256, LONGEST = 520, LONGEST_U8 = 656, MOST = 400 };

typedef struct {
    const char *class, *out, *check, *make, *op, *call;
    const char *cases[MAX_CASES];
    int ncases;
    bool inputs;
    char **files;
    int nfiles;
} golden_options;

/* ---- the four ways --------------------------------------------------------------------------- */

static void from_cases(const golden_options *o) {
    static hm_case_spec spec;
    hm_golden_file b = hm_golden_file_begin();
    char why[512];
    for (int i = 0; i < o->ncases; i++) {
        if (hm_case_parse(o->cases[i], &spec, why, sizeof why) != HM_OK)
            hm_die(HM_EXIT_USAGE, "--case '%s': %s", o->cases[i], why);
        if (spec.expect != HM_OK) hm_die(HM_EXIT_USAGE, "--case '%s' expects an error: it has no outputs", o->cases[i]);
        hm_golden_file_add_case(&b, &spec, o->class, false, o->inputs);
    }
    hm_golden_file_save(&b, o->out);
}

/* Dies unless the call states everything and is a legal one. */
static void check_call(const golden_options *o, const hm_trace_call *c, const char *name) {
    hm_dtype written[HM_MAX_ARGS];
    char why[1024];
    for (int k = 0; k < c->op->nparams; k++)
        if (!c->stated[k]) hm_die(HM_EXIT_USAGE, "%s (%s) does not state %s", name, c->op->name, c->op->params[k].name);
    if (hm_trace_call_open(c, name, NULL, written, why, sizeof why) != HM_OK) hm_die(HM_EXIT_USAGE, "%s", why);
    hm_golden_class_of(c->op, o->class);
}

static int from_trace(const golden_options *o) {
    char why[1024], name[HM_CASE_MAX];
    hm_trace *trace = hm_trace_open(o->files[0], why, sizeof why);
    if (!trace) hm_die(HM_EXIT_USAGE, "%s", why);
    hm_golden_file b = hm_golden_file_begin();
    for (int i = 0; i < hm_trace_count(trace); i++) {
        const hm_trace_call *c = hm_trace_at(trace, i);
        hm_dtype written[HM_MAX_ARGS];
        hm_call *call;
        if (o->call && strcmp(o->call, c->id)) continue;
        snprintf(name, sizeof name, "%.900s: call %s", o->files[0], c->id);
        check_call(o, c, name);
        if (hm_trace_call_open(c, name, &call, written, why, sizeof why) != HM_OK) hm_die(HM_EXIT_INTERNAL, "%s", why);
        hm_golden_file_add_call(&b, c->id, call, json_pack("{s:s}", "call", c->id), o->class, false, o->inputs);
        hm_call_free(call);
    }
    hm_trace_close(trace);
    if (!json_array_size(b.golden_calls))
        hm_die(HM_EXIT_NOTHING, "%s has no call%s%s", o->files[0], o->call ? " with the id " : "",
               o->call ? o->call : "");
    hm_golden_file_save(&b, o->out);
    return HM_EXIT_OK;
}

typedef struct {
    hm_golden_file *b;
    hm_progress progress;
    int64_t at, cases, left_out;
} making;

static int make_case(const hm_case_spec *spec, void *context) {
    making *m = context;
    bool empty = false, too_long = false;
    for (int i = 0; i < spec->op->nargs && spec->expect == HM_OK; i++) {
        if (spec->op->args[i].direction == HM_IN || spec->dtype[i] == HM_DTYPE_NONE) continue;
        int64_t n = spec->shape[i][spec->ndim[i] - 1];
        too_long |= n > (spec->dtype[i] == HM_U8 ? LONGEST_U8 : LONGEST);
        for (int d = 0; d < spec->ndim[i]; d++) empty |= spec->shape[i][d] == 0;
    }
    int64_t at = m->at++;
    if (spec->expect != HM_OK || empty) return 0;
    if (m->cases > MOST && at * MOST / m->cases == (at + 1) * MOST / m->cases) return 0;
    if (too_long) return m->left_out++, 0;
    hm_golden_file_add_case(m->b, spec, NULL, true, false);
    hm_progress_step(&m->progress, spec->line);
    return 0;
}

static int count_case(const hm_case_spec *spec, void *context) {
    (void)spec;
    ((making *)context)->progress.total++;
    ((making *)context)->cases++;
    return 0;
}

static hm_golden_file build(const char *op, int64_t *left_out) {
    char why[1024];
    hm_golden_file b = hm_golden_file_begin();
    making m = {.b = &b, .progress = hm_progress_start(op, 0)};
    if (hm_suite_each(HM_QUICK, op, 1, count_case, &m, why, sizeof why)) hm_die(HM_EXIT_INTERNAL, "%s", why);
    hm_suite_each(HM_QUICK, op, 1, make_case, &m, why, sizeof why);
    hm_progress_clear(&m.progress);
    *left_out = m.left_out;
    return b;
}

static void make(const golden_options *o) {
    char why[1024], path[4096];
    if (hm_report_folder(o->make, why, sizeof why) != HM_OK) hm_die(HM_EXIT_USAGE, "%s", why);
    for (int i = 0; i < hm_op_count(); i++) {
        const char *op = hm_op_at(i)->name;
        int64_t left_out;
        if (o->op && strcmp(o->op, op)) continue;
        hm_golden_file b = build(op, &left_out);
        snprintf(path, sizeof path, "%s/%s.safetensors", o->make, op);
        hm_golden_file_save(&b, path);
        fprintf(stderr, "%lld cases have rows longer than %d elements (u8: %d) and were left out\n",
                (long long)left_out, LONGEST, LONGEST_U8);
    }
}

/* How the file at path differs from what --make would write now; NULL if it does not. */
static const char *difference(const char *path, const char *op) {
    char why[1024];
    hm_safetensors *file = hm_safetensors_open(path, why, sizeof why);
    if (!file) hm_die(HM_EXIT_USAGE, "%s", why);
    int64_t left_out;
    hm_golden_file b = build(op, &left_out);
    const char *calls = hm_safetensors_note(file, "hallmark.golden.calls");
    char *wanted = json_dumps(b.golden_calls, JSON_COMPACT | JSON_SORT_KEYS);
    bool same_calls = calls && wanted && !strcmp(calls, wanted);
    size_t bytes, stored = 0;
    void *made = hm_golden_file_finish(&b, &bytes);
    FILE *f = fopen(path, "rb");
    char *content = malloc(bytes + 1);
    if (f && content) stored = fread(content, 1, bytes + 1, f);
    bool same = f && content && stored == bytes && !memcmp(content, made, bytes);
    if (f) fclose(f);
    hm_safetensors_close(file);
    free(wanted);
    free(content);
    free(made);
    return same ? NULL : same_calls ? "its bytes" : "its list of calls";
}

static int check(const golden_options *o) {
    int files = 0;
    bool same = true;
    char path[4096];
    for (int i = 0; i < hm_op_count(); i++) {
        const char *op = hm_op_at(i)->name;
        if (o->op && strcmp(o->op, op)) continue;
        files++;
        snprintf(path, sizeof path, "%s/%s.safetensors", o->check, op);
        const char *what = difference(path, op);
        if (what) printf("%s: DIFFERS from what --make writes now, in %s\n", path, what);
        else printf("%s: regenerates byte for byte\n", path);
        same &= !what;
    }
    if (!files) hm_die(HM_EXIT_NOTHING, "no op, so nothing to check");
    return same ? HM_EXIT_OK : HM_EXIT_FAIL;
}

/* ---- options --------------------------------------------------------------------------------- */

enum { KEY_CLASS = 512, KEY_CASE, KEY_INPUTS, KEY_CHECK, KEY_MAKE, KEY_CALL };

static error_t parse(int key, char *text, struct argp_state *state) {
    golden_options *o = state->input;
    switch (key) {
        case 'o':
            o->out = text;
            return 0;
        case KEY_CLASS:
            o->class = text;
            return 0;
        case KEY_CASE:
            if (o->ncases == MAX_CASES) hm_die(HM_EXIT_USAGE, "--case may be given %d times at most", MAX_CASES);
            o->cases[o->ncases++] = text;
            return 0;
        case KEY_INPUTS:
            o->inputs = true;
            return 0;
        case KEY_CHECK:
            o->check = text;
            return 0;
        case KEY_MAKE:
            o->make = text;
            return 0;
        case KEY_CALL:
            o->call = text;
            return 0;
        case 'p':
            o->op = hm_option_op(text)->name;
            return 0;
        case ARGP_KEY_ARGS:
            o->files = state->argv + state->next;
            o->nfiles = state->argc - state->next;
            return 0;
        default:
            return ARGP_ERR_UNKNOWN;
    }
}

static const char about[] =
    "Writes the ideal value and both ends of the admissible interval of every output element, as a safetensors file.\v"
    "Tensors are called <call>/ideal.<output>, lo.<output> and hi.<output>, in the output's dtype; flags.<output> "
    "marks "
    "elements where the contract demands NaN (1), where f32 arithmetic may leave its range so that 0, inf and NaN pass "
    "too (2), where the admissible set is smaller than its interval (4: parts.<output> lists its pieces), and whose "
    "stored bits have "
    "to be those of ideal (8). docs/golden.md says how to read the file.\n\n"
    "Exit codes: 0 done, or the same; 1 --check found a difference; 2 usage or a bad file; 3 nothing to do; 70 "
    "internal error.";

int hm_cmd_golden(int argc, char **argv) {
    static const struct argp_option options[] = {
        {"out", 'o', "FILE", 0, "The file to write", 0},
        {"case", KEY_CASE, "LINE", 0, "Of this case, instead of a trace; may be given several times", 0},
        {"inputs", KEY_INPUTS, NULL, 0, "With the inputs, so that the file is a trace that `replay --impl` runs", 0},
        {"call", KEY_CALL, "ID", 0, "Only the call of the trace with this id", 0},
        {"class", KEY_CLASS, "C", 0, "Class of the interval (default: what the op requires)", 0},
        {"make", KEY_MAKE, "DIR", 0, "Write DIR/<op>.safetensors for the cases of the quick suite", 0},
        {"check", KEY_CHECK, "DIR", 0, "Make DIR/<op>.safetensors anew in memory and compare byte for byte", 0},
        {"op", 'p', "OP", 0, "With --make and --check: only this op", 0},
        {0},
    };
    static const struct argp argp = {
        options, parse, "TRACE -o FILE\n--case LINE... -o FILE\n--make DIR\n--check DIR", about, NULL, NULL, NULL};
    golden_options o = {0};
    hm_parse(&argp, argc, argv, &o);
    int ways = (o.nfiles > 0) + (o.ncases > 0) + !!o.make + !!o.check;
    if (ways != 1 || o.nfiles > 1) hm_die(HM_EXIT_USAGE, "give one of: a trace, --case, --make, --check");
    if (!o.out != (o.make || o.check))
        hm_die(HM_EXIT_USAGE, "-o FILE goes with a trace or with --case, and has to be given there");
    if (!hm_golden_environment(0))
        hm_die(HM_EXIT_INTERNAL, "the floating-point environment is not the default (rounding mode, flush to zero)");
    if (o.check) return check(&o);
    if (o.make) return make(&o), HM_EXIT_OK;
    if (o.ncases) return from_cases(&o), HM_EXIT_OK;
    return from_trace(&o);
}
