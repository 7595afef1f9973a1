/* hallmark replay: judges outputs that were recorded in traces, or runs an implementation on the recorded inputs. */
#include <stdlib.h>
#include <string.h>

#include "fit.h"

enum { MAX_ASSUME = 64 };

typedef struct {
    hm_run_options run;
    const hm_op_info *op;
    const char *call;
    bool fit, brief;
    const char *assume[MAX_ASSUME];
    int nassume;
} replay_options;

/* Calls of one trace with the same op, dtypes and modes. */
typedef struct {
    char *text; /* op, dtypes, modes */
    int64_t calls, passed, elements, outside;
    hm_class consistent; /* loosest */
    double max_ulp;
} kind;

typedef struct {
    const replay_options *options;
    hm_impl *impl; /* NULL: what was recorded is judged */
    hm_report *report;
    hm_progress progress;
    const char *file;
    uint64_t inputs_xxh3;       /* of the call judged last */
    const hm_trace_call *first; /* in the file, that left its contract */
    hm_table *table;            /* NULL: --brief */
    kind *kinds;                /* of the file's calls */
    int nkinds;
} session;

/* ---- parameters --------------------------------------------------------------------------------------------- */

/* Sets parameter p of args to text. false if text is no value of it. */
static bool param_set(const hm_param_info *p, void *args, const char *text) {
    char *end;
    if (p->type == HM_PARAM_MODE) {
        for (int i = 0; p->values[i]; i++)
            if (!strcmp(p->values[i], text)) return hm_mode_set(p, args, i), true;
        return false;
    }
    double number = strtod(text, &end);
    int64_t integer = strtoll(text, p->type == HM_PARAM_I64 ? &end : NULL, 10);
    if (!*text || *end) return false;
    if (p->type == HM_PARAM_F64) memcpy((char *)args + p->offset, &number, sizeof number);
    else memcpy((char *)args + p->offset, &integer, sizeof integer);
    return true;
}

/* --assume NAME=VALUE, checked against every op: some op has that parameter and takes that value. */
static void assume_check(const char *text) {
    size_t n = strcspn(text, "=");
    bool known = false;
    for (int k = 0; k < hm_op_count() && text[n]; k++)
        for (int i = 0; i < hm_op_at(k)->nparams; i++) {
            const hm_param_info *p = &hm_op_at(k)->params[i];
            void *args = calloc(1, hm_op_at(k)->args_size);
            if (args && strlen(p->name) == n && !strncmp(p->name, text, n)) known |= param_set(p, args, text + n + 1);
            free(args);
        }
    if (!known)
        hm_die(HM_EXIT_USAGE, "--assume is \"%s\", but must be PARAMETER=VALUE as `hallmark list ops` shows them",
               text);
}

/* Fills in what the call does not state, from --assume. With fit, modes may stay open; else what is missing is an
 * error. */
static void complete(const session *s, hm_trace_call *c) {
    for (int i = 0; i < c->op->nparams; i++) {
        const hm_param_info *p = &c->op->params[i];
        for (int k = 0; k < s->options->nassume && !c->stated[i]; k++) {
            size_t n = strlen(p->name);
            const char *text = s->options->assume[k];
            if (!strncmp(text, p->name, n) && text[n] == '=') c->stated[i] = param_set(p, c->args, text + n + 1);
        }
        if (c->stated[i] || (s->options->fit && p->type == HM_PARAM_MODE)) continue;
        hm_die(HM_EXIT_USAGE,
               "%s: call %s (%s) does not state %s; --assume %s=%s would, or --fit-modes tries every mode", s->file,
               c->id, c->op->name, p->name, p->name, p->type == HM_PARAM_MODE ? p->values[0] : "...");
    }
}

/* ---- words -------------------------------------------------------------------------------------------------- */

/* "bf16, weight f32": the dtype of the first input that is there, and every later one whose dtype differs from it. */
static void dtype_text(const hm_trace_call *c, char *text, size_t size) {
    hm_dtype first = HM_DTYPE_NONE;
    size_t n = 0;
    for (int i = 0; i < c->op->nargs && n < size; i++) {
        hm_dtype dtype = hm_arg_tensor(c->op, c->args, i)->dtype;
        if (c->op->args[i].direction == HM_OUT || (!n && dtype == HM_DTYPE_NONE)) continue;
        if (!n) n += (size_t)snprintf(text, size, "%s", hm_dtype_name(first = dtype));
        else if (dtype == HM_DTYPE_NONE) n += (size_t)snprintf(text + n, size - n, ", no %s", c->op->args[i].name);
        else if (dtype != first)
            n += (size_t)snprintf(text + n, size - n, ", %s %s", c->op->args[i].name, hm_dtype_name(dtype));
    }
}

/* Of the first input that is there. */
static void shape_text(const hm_trace_call *c, char *text, size_t size) {
    const hm_tensor *t = hm_arg_tensor(c->op, c->args, 0);
    for (int i = 1; i < c->op->nargs && t->dtype == HM_DTYPE_NONE; i++) t = hm_arg_tensor(c->op, c->args, i);
    int64_t dense = 1;
    bool strided = false;
    size_t n = 0;
    for (int d = t->ndim - 1; d >= 0; d--) {
        strided |= t->shape[d] > 1 && t->stride[d] != dense;
        dense *= t->shape[d];
    }
    for (int d = 0; d < t->ndim; d++)
        n += (size_t)snprintf(text + n, size - n, "%s%lld", d ? "," : "[", (long long)t->shape[d]);
    snprintf(text + n, size - n, "]%s", strided ? " strided" : "");
}

/* "FILE call ID"; valid until the next call. */
static const char *call_name(const session *s, const hm_trace_call *c) {
    static char name[HM_CASE_MAX];
    snprintf(name, sizeof name, "%.900s call %s", s->file, c->id);
    return name;
}

static void repro_text(const session *s, const hm_trace_call *c, char *text, size_t size) {
    const replay_options *o = s->options;
    char path[1024], option[2 * HM_MODES_MAX];
    size_t n = (size_t)snprintf(option, sizeof option, "--call %s", c->id);
    if (o->fit) n += (size_t)snprintf(option + n, sizeof option - n, " --fit-modes");
    for (int k = 0; k < o->nassume && n < sizeof option; k++)
        n += (size_t)snprintf(option + n, sizeof option - n, " --assume %s", o->assume[k]);
    if (s->impl) {
        hm_run_repro(&o->run, "ref", "replay", option, s->file, text, size);
        return;
    }
    hm_shell_quote(s->file, path, sizeof path);
    snprintf(text, size, "hallmark replay%s%s %s %s", o->run.classes ? " --class " : "",
             o->run.classes ? o->run.classes : "", option, path);
}

/* ---- one call ----------------------------------------------------------------------------------------------- */

/* Judges the call with the parameters it has now. Dies if the trace's call is not a legal one. exact_dtype: false is
 * returned, and nothing judged, if the modes are illegal for the call or do not give the recorded dtypes. */
static bool judge_call(void *context, const hm_trace_call *c, bool exact_dtype, hm_verdict *v) {
    session *s = context;
    hm_judge_options judge = hm_run_judge_options(&s->options->run, c->op);
    hm_run run = {.state = HM_RAN, .status = HM_OK};
    hm_call *call = NULL;
    char why[1024];
    hm_status status = hm_trace_call_open(c, call_name(s, c), &call, run.written, why, sizeof why);
    bool fits = status == HM_OK;
    for (int i = 0; i < c->op->nargs && fits; i++) fits = run.written[i] == HM_DTYPE_NONE;
    if (exact_dtype && !fits && status != HM_NO_MEMORY) {
        if (call) hm_call_free(call);
        return false;
    }
    if (status != HM_OK) hm_die(HM_EXIT_USAGE, "%s", why);
    s->inputs_xxh3 = call->inputs_xxh3;
    if (s->impl) {
        hm_judge(s->impl, call, &judge, v);
    } else {
        hm_trace_call_fill(c, call);
        hm_judge_outputs(call, &run, &judge, v);
    }
    hm_call_free(call);
    return true;
}

/* ---- rows --------------------------------------------------------------------------------------------------- */

static void kind_add(session *s, const hm_op_info *op, const char *dtype, const char *modes, const hm_verdict *v) {
    char *text = NULL;
    int i = 0;
    if (asprintf(&text, "%s\t%s\t%s", op->name, dtype, modes) < 0) hm_die(HM_EXIT_INTERNAL, "out of memory");
    while (i < s->nkinds && strcmp(s->kinds[i].text, text)) i++;
    if (i == s->nkinds) {
        kind *more = realloc(s->kinds, (size_t)(i + 1) * sizeof *more);
        if (!more) hm_die(HM_EXIT_INTERNAL, "out of memory");
        s->kinds = more;
        s->kinds[s->nkinds++] = (kind){.text = text};
    } else {
        free(text);
    }
    kind *k = &s->kinds[i];
    k->calls++;
    k->passed += v->outcome == HM_PASS;
    k->elements += v->elements;
    k->outside += v->outside + v->out_of_class;
    if (v->elements && v->consistent > k->consistent) k->consistent = v->consistent;
    if (v->max_ulp > k->max_ulp) k->max_ulp = v->max_ulp;
}

static void kinds_print(session *s) {
    hm_table *t = hm_table_new(s->options->fit
                                   ? "op\tdtype\tmodes followed\t>calls\t>passed\t>elements\t>outside\tclass\t>max ulp"
                                   : "op\tdtype\tmodes\t>calls\t>passed\t>elements\t>outside\tclass\t>max ulp");
    for (int i = 0; i < s->nkinds; i++) {
        const kind *k = &s->kinds[i];
        hm_table_row(t, "%s\t%lld\t%lld\t%lld\t%lld\t%s\t%.4g", k->text, (long long)k->calls, (long long)k->passed,
                     (long long)k->elements, (long long)k->outside, hm_class_name(k->consistent), k->max_ulp);
        free(k->text);
    }
    hm_table_print(t, stdout);
    putchar('\n');
    free(s->kinds);
    s->kinds = NULL, s->nkinds = 0;
}

static void replay_call(session *s, hm_trace_call *c) {
    const replay_options *o = s->options;
    hm_verdict v;
    char modes[HM_MODES_MAX], repro[3 * HM_MODES_MAX + 1024], shape[128], dtype[128], exact[16] = "";
    shape_text(c, shape, sizeof shape);
    dtype_text(c, dtype, sizeof dtype);
    if (o->fit) {
        hm_class required = hm_run_judge_options(&o->run, c->op).required;
        if (required == HM_CLASS_NONE) required = hm_class_named(c->op->class_required);
        hm_fit(c, required, judge_call, s, &v, modes, sizeof modes);
    } else {
        judge_call(s, c, false, &v);
        hm_modes_text(c->op, c->args, ~0u, modes, sizeof modes);
    }
    if (v.outcome == HM_NOT_OFFERED) return;
    repro_text(s, c, repro, sizeof repro);
    hm_report_add(s->report, c->op, call_name(s, c), s->inputs_xxh3, &v, repro);
    if (v.elements > v.range_free) hm_percent(v.decided, exact);
    if (o->fit || o->brief) kind_add(s, c->op, dtype, modes, &v);
    if (s->table)
        hm_table_row(s->table, "%s\t%s\t%s\t%s\t%s\t%s\t%lld\t%s\t%.4g\t%s", c->id, c->op->name, shape, dtype,
                     hm_outcome_name(v.outcome), v.elements ? hm_class_name(v.consistent) : "",
                     (long long)(v.outside + v.out_of_class), exact, v.max_ulp, modes);
    if (v.outcome == HM_PASS || v.outcome == HM_DECLINED) return;
    if (!s->first && (v.outcome == HM_FAIL || v.outcome == HM_OUT_OF_CLASS)) s->first = c;
    hm_progress_clear(&s->progress);
    hm_print_failure(stdout, c->op, call_name(s, c), &v, repro);
}

static bool wanted(const session *s, const hm_trace_call *c) {
    const replay_options *o = s->options;
    return (!o->op || o->op == c->op) && (!o->call || !strcmp(o->call, c->id));
}

/* Everything that makes a trace unusable is found before the first call is judged. */
static int64_t prepare(session *s, hm_trace *trace) {
    int64_t calls = 0;
    for (int i = 0; i < hm_trace_count(trace); i++) {
        hm_trace_call *c = hm_trace_at(trace, i);
        if (!wanted(s, c)) continue;
        complete(s, c);
        calls++;
        hm_dtype written[HM_MAX_ARGS];
        char why[1024];
        if (hm_trace_call_open(c, call_name(s, c), NULL, written, why, sizeof why) != HM_OK)
            hm_die(HM_EXIT_USAGE, "%s", why);
        for (int k = 0; k < c->op->nargs; k++)
            if (!s->options->run.impl && c->op->args[k].direction != HM_IN && !c->op->args[k].optional &&
                !c->recorded[k])
                hm_die(HM_EXIT_USAGE, "%s: call %s (%s) has no recorded output %s/out.%s; --impl would compute it",
                       s->file, c->id, c->op->name, c->id, c->op->args[k].name);
    }
    return calls;
}

static void print_note(const hm_trace *trace, const char *key, const char *before) {
    const char *note = hm_trace_note(trace, key);
    if (!note || strlen(note) > 200) return;
    printf("%s%s ", before, key);
    for (; *note; note++) putchar((unsigned char)*note < ' ' || *note == 0x7f ? '?' : *note);
}

static void replay_trace(session *s, hm_trace *trace) {
    static const char *const notes[] = {"torch", "transformers", "device", "recorded"};
    printf("%s", s->file);
    for (size_t i = 0; i < sizeof notes / sizeof *notes; i++) print_note(trace, notes[i], i ? ", " : ": ");
    putchar('\n');
    if (!s->options->brief)
        s->table = hm_table_new("call\top\tshape\tdtype\tverdict\tclass\t>outside\t>bit-exact\t>max ulp\tmodes");
    for (int i = 0; i < hm_trace_count(trace) && !hm_interrupted(); i++) {
        if (!wanted(s, hm_trace_at(trace, i))) continue;
        replay_call(s, hm_trace_at(trace, i));
        hm_progress_step(&s->progress, hm_trace_at(trace, i)->id);
    }
    hm_progress_clear(&s->progress);
    if (s->table) hm_table_print(s->table, stdout), putchar('\n');
    s->table = NULL;
    if (s->options->fit || s->options->brief) kinds_print(s);
    if (s->first && hm_trace_count(trace) > 1)
        printf("The first call to leave its contract is %s (%s); each call was judged on its own recorded inputs.\n\n",
               s->first->id, s->first->op->name);
    s->first = NULL;
}

/* ---- options ------------------------------------------------------------------------------------------------ */

enum { KEY_CALL = 512, KEY_FIT, KEY_ASSUME, KEY_BRIEF };

typedef struct {
    replay_options o;
    char **files;
    int nfiles;
} parsed;

static error_t parse(int key, char *text, struct argp_state *state) {
    parsed *p = state->input;
    switch (key) {
        case ARGP_KEY_INIT:
            state->child_inputs[0] = &p->o.run;
            return 0;
        case 'o':
            p->o.op = hm_option_op(text);
            return 0;
        case KEY_CALL:
            p->o.call = text;
            return 0;
        case KEY_FIT:
            p->o.fit = true;
            return 0;
        case KEY_BRIEF:
            p->o.brief = true;
            return 0;
        case KEY_ASSUME:
            assume_check(text);
            if (p->o.nassume == MAX_ASSUME) hm_die(HM_EXIT_USAGE, "--assume may be given %d times at most", MAX_ASSUME);
            p->o.assume[p->o.nassume++] = text;
            return 0;
        case ARGP_KEY_ARGS:
            p->files = state->argv + state->next;
            p->nfiles = state->argc - state->next;
            return 0;
        case ARGP_KEY_NO_ARGS:
            hm_die(HM_EXIT_USAGE, "no trace was given; try --help");
        default:
            return ARGP_ERR_UNKNOWN;
    }
}

static const char about[] =
    "Judges the outputs that were recorded in traces or, with --impl, runs an implementation on the recorded inputs.\v"
    "A trace is a safetensors file with the calls in its metadata. Each call states its scalars and modes; one that "
    "does "
    "not is an error, since guessing a mode is the bug that traces are for. --fit-modes tries every combination of "
    "modes, "
    "says which ones the recording follows, and fails a call whose stated modes are not among them. A mode that is not "
    "named there makes no difference to that call.\n\n"
    "Columns: class, the tightest arithmetic that every element is consistent with; outside, elements that the "
    "required "
    "class does not admit; bit-exact, the share of elements for which it admits a single value; max ulp, the largest "
    "distance to the exact value.\n\n"
    "Exit codes: 0 everything conforms; 1 something does not; 2 usage or a bad trace; 3 nothing could run; 4 vacuous; "
    "70 internal error.";

int hm_cmd_replay(int argc, char **argv) {
    static const struct argp_option options[] = {
        {"op", 'o', "OP", 0, "Only calls of this op", 0},
        {"call", KEY_CALL, "ID", 0, "Only the call with this id", 0},
        {"fit-modes", KEY_FIT, NULL, 0, "Say which modes each recording follows", 0},
        {"brief", KEY_BRIEF, NULL, 0, "One row for all calls of the same op, dtypes and modes", 0},
        {"assume", KEY_ASSUME, "PARAMETER=VALUE", 0,
         "What a call means that does not state it; may be given several times", 0},
        {0},
    };
    static const struct argp_child children[] = {{&hm_run_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {options, parse, "TRACE...", about, children, NULL, NULL};
    parsed p = {.o = {.run = HM_RUN_OPTIONS}};
    hm_parse(&argp, argc, argv, &p);
    if (p.o.fit && p.o.run.impl)
        hm_die(HM_EXIT_USAGE,
               "--fit-modes asks what a recording follows: it does not go with --impl, which is told its modes");

    hm_interruptible();
    hm_impl recorded = {.name = "recorded"}, *impl = hm_run_open(&p.o.run, "ref");
    session s = {.options = &p.o, .impl = p.o.run.impl ? impl : NULL};
    s.report =
        hm_report_new(s.impl ? s.impl : &recorded, "replay", 0, hm_run_flags(&p.o.run, p.o.fit ? "fit-modes" : NULL));
    hm_trace **traces = calloc((size_t)p.nfiles, sizeof *traces);
    if (!traces || !s.report) hm_die(HM_EXIT_INTERNAL, "out of memory");
    int64_t calls = 0;
    for (int i = 0; i < p.nfiles; i++) {
        char why[1024];
        s.file = p.files[i];
        if (!(traces[i] = hm_trace_open(s.file, why, sizeof why))) hm_die(HM_EXIT_USAGE, "%s", why);
        calls += prepare(&s, traces[i]);
    }
    s.progress = hm_progress_start("replay", calls);
    for (int i = 0; i < p.nfiles && !hm_interrupted(); i++) {
        s.file = p.files[i];
        replay_trace(&s, traces[i]);
        hm_trace_close(traces[i]);
    }
    if (hm_interrupted()) hm_interrupted_exit("in the middle of a trace");
    hm_print_totals(stdout, s.report);
    int code = hm_run_finish(&p.o.run, s.report);
    hm_report_free(s.report);
    hm_impl_close(impl);
    free(traces);
    return code;
}
