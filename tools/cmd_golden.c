/* hallmark golden: the ideal value and the admissible interval of every output, as a safetensors file.
 *
 * <call>/ideal.<output>, lo.<output> and hi.<output> have the output's dtype; flags.<output> (u8, HM_GOLD_* bits) is
 * there if some element has one. __metadata__ holds "hallmark.golden": "1" and "hallmark.golden.calls": a JSON list of
 *   {"id", "op", "class", "inputs_xxh3", "case": LINE | "call": ID in the trace, "rows": {output: [...]} where not all
 * are there} so that a file made of cases regenerates from itself. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "../certify/safetensors.h"
#include "../certify/trace.h"
#include "../op/check.h"
#include "../op/dtype.h"
#include "cli.h"

/* What --make keeps of a case: rows spread evenly over an output until they have SAMPLE elements, but one row at least.
 * Cases with rows longer than LONGEST are left out: one of them would take as much room as fifty others. */
enum { MAX_CASES = 256, SAMPLE = 128, LONGEST = 520 };

typedef struct {
    const char *class, *out, *check, *make, *op, *call;
    const char *cases[MAX_CASES];
    int ncases;
    bool inputs;
    char **files;
    int nfiles;
} golden_options;

/* A golden file under construction. */
typedef struct {
    hm_trace_writer *writer;
    json_t *golden_calls, *trace_calls;
    int threads;
} building;

static hm_class class_of(const hm_op_info *op, const char *name) {
    hm_class c = hm_class_named(name ? name : op->class_required);
    char list[128];
    snprintf(list, sizeof list, " %s ", op->classes);
    char word[40];
    snprintf(word, sizeof word, " %.36s ", name ? name : op->class_required);
    if (c == HM_CLASS_NONE || !strstr(list, word))
        hm_die(HM_EXIT_USAGE, "--class is \"%s\", but the classes of %s are: %s", name, op->name, op->classes);
    return c;
}

/* ---- tensors --------------------------------------------------------------------------------- */

/* The rows of an output to keep: all, or with sampling as many as SAMPLE elements allow. count: how many; row(k) is the
 * k-th. */
typedef struct {
    int64_t rows, kept;
} selection;

static selection select_rows(const hm_tensor *t, bool sampled) {
    int64_t rows = hm_row_count(t), n = t->shape[t->ndim - 1];
    int64_t most = sampled && n > 0 ? (SAMPLE > n ? SAMPLE / n : 1) : rows;
    return (selection){rows, most < rows ? most : rows};
}

static int64_t selected(const selection *s, int64_t k) {
    return s->kept == s->rows ? k : (2 * k + 1) * s->rows / (2 * s->kept);
}

static void add_tensor(building *b, const char *id, const char *kind, const char *name, const hm_tensor *like,
                       const selection *s, hm_dtype dtype, const void *data) {
    char full[200];
    int64_t sampled[2] = {s->kept, like->shape[like->ndim - 1]};
    bool whole = s->kept == s->rows;
    snprintf(full, sizeof full, "%s/%s%s", id, kind, name);
    hm_trace_writer_tensor(b->writer, full, dtype, whole ? like->ndim : 2, whole ? like->shape : sampled, data);
}

/* ideal, lo and hi of output i; its selection goes to *s. */
static void add_output(building *b, const char *id, const hm_golden *golden, const hm_call *call, int i, hm_class class,
                       bool sampled, selection *s) {
    const hm_tensor *t = hm_arg_tensor(call->op, call->golden_args, i);
    int64_t n = t->shape[t->ndim - 1], width = (int64_t)hm_dtype_size(t->dtype);
    *s = select_rows(t, sampled);
    size_t elements = (size_t)(s->kept * n);
    double *row = calloc(s->kept ? (size_t)(3 * n) : 1, sizeof *row);
    unsigned char *flags = calloc(elements + 1, 1);
    uint64_t *bits = calloc((size_t)n + 1, sizeof *bits);
    char *stored[3];
    for (int k = 0; k < 3; k++) stored[k] = malloc(elements * (size_t)width + 1);
    if (!row || !flags || !bits || !stored[0] || !stored[1] || !stored[2]) hm_die(HM_EXIT_INTERNAL, "out of memory");
    hm_golden_row gold = {.ideal = row, .lo = row + n, .hi = row + 2 * n, .bits = bits};
    bool flagged = false;
    for (int64_t k = 0; k < s->kept; k++) {
        gold.flags = flags + k * n;
        hm_status status = hm_golden_row_get(golden, i, selected(s, k), class, HM_TIER_TWO, &gold);
        if (status != HM_OK) hm_die(HM_EXIT_INTERNAL, "golden: %s", hm_status_name(status));
        for (int p = 0; p < 3; p++) hm_store_row(t->dtype, stored[p] + k * n * width, 1, n, row + p * n);
        for (int64_t e = 0; e < n; e++) {
            flagged |= gold.flags[e] != 0;
            for (int p = 0; p < 3 && (gold.flags[e] & HM_GOLD_BITS); p++)
                memcpy(stored[p] + (k * n + e) * width, &bits[e], (size_t)width);
        }
    }
    static const char *const kinds[] = {"ideal.", "lo.", "hi."};
    for (int p = 0; p < 3; p++) {
        add_tensor(b, id, kinds[p], call->op->args[i].name, t, s, t->dtype, stored[p]);
        free(stored[p]);
    }
    if (flagged) add_tensor(b, id, "flags.", call->op->args[i].name, t, s, HM_U8, flags);
    free(gold.parts);
    free(bits);
    free(flags);
    free(row);
}

static json_t *param_json(const hm_param_info *p, const void *args) {
    const char *at = (const char *)args + p->offset;
    double number;
    int64_t integer;
    int mode;
    switch (p->type) {
        case HM_PARAM_F64:
            return memcpy(&number, at, sizeof number), json_real(number);
        case HM_PARAM_I64:
            return memcpy(&integer, at, sizeof integer), json_integer(integer);
        case HM_PARAM_MODE:
            return memcpy(&mode, at, sizeof mode), json_string(p->values[mode]);
    }
    return NULL;
}

/* The inputs as tensors, and the entry that makes the file a trace. */
static void add_inputs(building *b, const char *id, const hm_call *call) {
    const hm_op_info *op = call->op;
    json_t *attrs = json_object();
    for (int i = 0; i < op->nparams; i++)
        json_object_set_new(attrs, op->params[i].name, param_json(&op->params[i], call->args));
    json_array_append_new(b->trace_calls, json_pack("{s:s, s:s, s:o}", "id", id, "op", op->name, "attrs", attrs));
    for (int i = 0; i < op->nargs; i++) {
        const hm_tensor *t = hm_arg_tensor(op, call->golden_args, i); /* contiguous */
        selection all = {0, 0};
        if (op->args[i].direction != HM_OUT && t->dtype != HM_DTYPE_NONE)
            add_tensor(b, id, "", op->args[i].name, t, &all, t->dtype, t->data);
    }
}

/* entry: what the list of calls says about where it comes from; owned here. */
static void add_call(building *b, const char *id, const hm_call *call, json_t *entry, const char *class_name,
                     bool sampled, bool inputs) {
    const hm_op_info *op = call->op;
    hm_class class = class_of(op, class_name);
    hm_golden *golden;
    hm_status status = hm_golden_open(op, call->golden_args, b->threads, &golden);
    if (status != HM_OK) hm_die(HM_EXIT_INTERNAL, "golden for '%s': %s", call->name, hm_status_name(status));
    char hash[24];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)call->inputs_xxh3);
    json_object_set_new(entry, "id", json_string(id));
    json_object_set_new(entry, "op", json_string(op->name));
    json_object_set_new(entry, "class", json_string(hm_class_name(class)));
    json_object_set_new(entry, "inputs_xxh3", json_string(hash));
    for (int i = 0; i < op->nargs; i++) {
        selection s;
        if (op->args[i].direction == HM_IN || hm_arg_tensor(op, call->golden_args, i)->dtype == HM_DTYPE_NONE) continue;
        add_output(b, id, golden, call, i, class, sampled, &s);
        if (s.kept == s.rows) continue;
        json_t *rows = json_array(), *all = json_object_get(entry, "rows");
        if (!all) json_object_set_new(entry, "rows", all = json_object());
        for (int64_t k = 0; k < s.kept; k++) json_array_append_new(rows, json_integer(selected(&s, k)));
        json_object_set_new(all, op->args[i].name, rows);
    }
    if (inputs) add_inputs(b, id, call);
    hm_golden_close(golden);
    json_array_append_new(b->golden_calls, entry);
}

/* ---- files ----------------------------------------------------------------------------------- */

static building begin(void) {
    building b = {.writer = hm_trace_writer_new(), .golden_calls = json_array(), .trace_calls = json_array()};
    if (!b.writer || !b.golden_calls || !b.trace_calls) hm_die(HM_EXIT_INTERNAL, "out of memory");
    return b;
}

static void note_json(building *b, const char *key, json_t *value) {
    char *text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS);
    if (!text) hm_die(HM_EXIT_INTERNAL, "out of memory");
    hm_trace_writer_note(b->writer, key, text);
    free(text);
}

static void *finish(building *b, bool sampled, size_t *bytes) {
    hm_trace_writer_note(b->writer, "hallmark.golden", "1");
    note_json(b, "hallmark.golden.calls", b->golden_calls);
    if (sampled) hm_trace_writer_note(b->writer, "hallmark.golden.sampled", "1");
    if (json_array_size(b->trace_calls)) {
        hm_trace_writer_note(b->writer, "hallmark.trace", "1");
        note_json(b, "hallmark.calls", b->trace_calls);
    }
    json_decref(b->golden_calls);
    json_decref(b->trace_calls);
    void *file = hm_trace_writer_bytes(b->writer, bytes);
    if (!file) hm_die(HM_EXIT_INTERNAL, "out of memory");
    return file;
}

static void save(building *b, const char *path, bool sampled) {
    char why[1024];
    size_t bytes, calls = json_array_size(b->golden_calls);
    void *file = finish(b, sampled, &bytes);
    if (hm_write_file(path, file, bytes, why, sizeof why) != HM_OK) hm_die(HM_EXIT_USAGE, "%s", why);
    free(file);
    printf("%s: %zu calls, %zu bytes\n", path, calls, bytes);
}

static void add_case(building *b, const hm_case_spec *spec, const char *class_name, bool sampled, bool inputs) {
    char why[512], id[32];
    hm_call *call;
    if (hm_call_from_case(spec, &call, why, sizeof why) != HM_OK)
        hm_die(HM_EXIT_INTERNAL, "the case '%s' cannot be set up: %s", spec->line, why);
    snprintf(id, sizeof id, "c%zu", json_array_size(b->golden_calls));
    add_call(b, id, call, json_pack("{s:s}", "case", spec->line), class_name, sampled, inputs);
    hm_call_free(call);
}

/* ---- the four ways --------------------------------------------------------------------------- */

static void from_cases(const golden_options *o) {
    static hm_case_spec spec;
    building b = begin();
    char why[512];
    for (int i = 0; i < o->ncases; i++) {
        if (hm_case_parse(o->cases[i], &spec, why, sizeof why) != HM_OK)
            hm_die(HM_EXIT_USAGE, "--case '%s': %s", o->cases[i], why);
        if (spec.expect != HM_OK) hm_die(HM_EXIT_USAGE, "--case '%s' expects an error: it has no outputs", o->cases[i]);
        add_case(&b, &spec, o->class, false, o->inputs);
    }
    save(&b, o->out, false);
}

/* Dies unless the call states everything and is a legal one. */
static void check_call(const golden_options *o, const hm_trace_call *c, const char *name) {
    hm_dtype written[HM_MAX_ARGS];
    char why[1024];
    for (int k = 0; k < c->op->nparams; k++)
        if (!c->stated[k]) hm_die(HM_EXIT_USAGE, "%s (%s) does not state %s", name, c->op->name, c->op->params[k].name);
    if (hm_trace_call_open(c, name, NULL, written, why, sizeof why) != HM_OK) hm_die(HM_EXIT_USAGE, "%s", why);
    class_of(c->op, o->class);
}

static int from_trace(const golden_options *o) {
    char why[1024], name[HM_CASE_MAX];
    hm_trace *trace = hm_trace_open(o->files[0], why, sizeof why);
    if (!trace) hm_die(HM_EXIT_USAGE, "%s", why);
    building b = begin();
    for (int i = 0; i < hm_trace_count(trace); i++) {
        const hm_trace_call *c = hm_trace_at(trace, i);
        hm_dtype written[HM_MAX_ARGS];
        hm_call *call;
        if (o->call && strcmp(o->call, c->id)) continue;
        snprintf(name, sizeof name, "%.900s: call %s", o->files[0], c->id);
        check_call(o, c, name);
        if (hm_trace_call_open(c, name, &call, written, why, sizeof why) != HM_OK) hm_die(HM_EXIT_INTERNAL, "%s", why);
        add_call(&b, c->id, call, json_pack("{s:s}", "call", c->id), o->class, false, o->inputs);
        hm_call_free(call);
    }
    hm_trace_close(trace);
    if (!json_array_size(b.golden_calls))
        hm_die(HM_EXIT_NOTHING, "%s has no call%s%s", o->files[0], o->call ? " with the id " : "",
               o->call ? o->call : "");
    save(&b, o->out, false);
    return HM_EXIT_OK;
}

typedef struct {
    building *b;
    hm_progress progress;
    int64_t left_out;
} making;

static int make_case(const hm_case_spec *spec, void *context) {
    making *m = context;
    int64_t longest = 0;
    bool empty = false;
    for (int i = 0; i < spec->op->nargs && spec->expect == HM_OK; i++) {
        if (spec->op->args[i].direction == HM_IN || spec->dtype[i] == HM_DTYPE_NONE) continue;
        int64_t n = spec->shape[i][spec->ndim[i] - 1];
        if (n > longest) longest = n;
        for (int d = 0; d < spec->ndim[i]; d++) empty |= spec->shape[i][d] == 0;
    }
    if (spec->expect != HM_OK || empty) return 0;
    if (longest > LONGEST) return m->left_out++, 0;
    add_case(m->b, spec, NULL, true, false);
    hm_progress_step(&m->progress, spec->line);
    return 0;
}

static int count_case(const hm_case_spec *spec, void *context) {
    (void)spec;
    ((making *)context)->progress.total++;
    return 0;
}

static void make(const golden_options *o) {
    char why[1024], path[4096];
    if (hm_report_folder(o->make, why, sizeof why) != HM_OK) hm_die(HM_EXIT_USAGE, "%s", why);
    for (int i = 0; i < hm_op_count(); i++) {
        const char *op = hm_op_at(i)->name;
        if (o->op && strcmp(o->op, op)) continue;
        building b = begin();
        making m = {.b = &b, .progress = hm_progress_start(op, 0)};
        if (hm_suite_each(HM_QUICK, op, 1, count_case, &m, why, sizeof why)) hm_die(HM_EXIT_INTERNAL, "%s", why);
        hm_suite_each(HM_QUICK, op, 1, make_case, &m, why, sizeof why);
        hm_progress_clear(&m.progress);
        snprintf(path, sizeof path, "%s/%s.safetensors", o->make, op);
        save(&b, path, true);
        fprintf(stderr, "%lld cases have rows longer than %d elements and were left out\n", (long long)m.left_out,
                LONGEST);
    }
}

/* Rebuilds a file from the cases that it names. NULL with a sentence in why if it names none, or bad ones. */
static void *rebuild(hm_safetensors *file, size_t *bytes, char *why, size_t size) {
    static hm_case_spec spec;
    const char *text = hm_safetensors_note(file, "hallmark.golden.calls");
    bool sampled = hm_safetensors_note(file, "hallmark.golden.sampled"),
         inputs = hm_safetensors_note(file, "hallmark.trace");
    json_t *list = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    building b = begin();
    bool good = json_array_size(list) > 0;
    if (!good) snprintf(why, size, "names no cases to rebuild it from");
    for (size_t i = 0; i < json_array_size(list) && good; i++) {
        const char *line = json_string_value(json_object_get(json_array_get(list, i), "case"));
        const char *class_name = json_string_value(json_object_get(json_array_get(list, i), "class"));
        good = line && class_name;
        if (!good) snprintf(why, size, "its call %zu names no case, or no class", i);
        if (good && hm_case_parse(line, &spec, why, size) != HM_OK) good = false;
        if (good && spec.expect != HM_OK)
            good = false, snprintf(why, size, "its call %zu is a case without outputs", i);
        if (good) add_case(&b, &spec, class_name, sampled, inputs);
    }
    json_decref(list);
    void *rebuilt = finish(&b, sampled, bytes);
    if (good) return rebuilt;
    free(rebuilt);
    return NULL;
}

/* true if the bytes at path are those that its own recipe gives. */
static bool check_file(const char *path) {
    char why[1024];
    hm_safetensors *file = hm_safetensors_open(path, why, sizeof why);
    if (!file) hm_die(HM_EXIT_USAGE, "%s", why);
    size_t bytes, stored = 0;
    void *rebuilt = rebuild(file, &bytes, why, sizeof why);
    if (!rebuilt) hm_die(HM_EXIT_USAGE, "%s: %s", path, why);
    FILE *f = fopen(path, "rb");
    char *content = malloc(bytes + 1);
    if (f && content) stored = fread(content, 1, bytes + 1, f);
    bool same = f && content && stored == bytes && !memcmp(content, rebuilt, bytes);
    if (f) fclose(f);
    printf("%s: %s\n", path, same ? "regenerates byte for byte" : "DIFFERS from what its cases give now");
    hm_safetensors_close(file);
    free(content);
    free(rebuilt);
    return same;
}

static int check(const golden_options *o) {
    int files = 0;
    bool same = true;
    char path[4096];
    for (int i = 0; i < hm_op_count(); i++) {
        snprintf(path, sizeof path, "%s/%s.safetensors", o->check, hm_op_at(i)->name);
        if (o->op && strcmp(o->op, hm_op_at(i)->name)) continue;
        files++;
        same &= check_file(path);
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
    "too (2), and where the admissible set is smaller than its interval (4).\n\n"
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
        {"check", KEY_CHECK, "DIR", 0, "Regenerate DIR/<op>.safetensors from the cases they name and compare", 0},
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
