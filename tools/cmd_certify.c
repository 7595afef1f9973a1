/* hallmark certify: judges an implementation on a suite of cases, or on single ones. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

enum { MAX_CASES = 256, MAX_GROUPS = 256 };

typedef struct {
    hm_run_options run;
    const hm_op_info *op;
    const char *suite_name, *cases[MAX_CASES];
    int ncases;
    hm_suite suite;
    uint64_t seed;
    int64_t shard, shards; /* this one, counted from 1, of how many */
    const char *shard_text;
} certify_options;

/* A line of the table: the cases of one op that have the same dtype and modes. */
typedef struct {
    const hm_op_info *op;
    char key[128];
    int64_t cases, elements, outside, judged, point;
    hm_class consistent;
    double max_ulp;
    int64_t outcome[HM_OUTCOME_COUNT];
} group;

typedef struct {
    const certify_options *options;
    hm_impl *impl;
    hm_report *report;
    hm_progress progress;
    group *groups;
    int ngroups;
    int64_t number;   /* of the case in the suite */
    int64_t failures; /* printed so far */
    char *provided;   /* by op index: 0 not asked, 1 yes, 2 no */
} session;

static bool in_shard(const certify_options *o, int64_t number) { return number % o->shards == o->shard - 1; }

/* ---- the table ----------------------------------------------------------------------------------------------------
 */

/* The dtype of the first input and the modes that differ from the default; cases that expect an error stand apart. */
static void group_key(const hm_case_spec *spec, char *key, size_t size) {
    const hm_op_info *op = spec->op;
    if (spec->expect != HM_OK) {
        snprintf(key, size, "errors");
        return;
    }
    *key = 0;
    for (int i = 0; i < op->nargs && !*key; i++)
        if (op->args[i].direction != HM_OUT) snprintf(key, size, "%s", hm_dtype_name(spec->dtype[i]));
    for (int i = 0; i < op->nparams; i++) {
        const hm_param_info *p = &op->params[i];
        if (p->type == HM_PARAM_MODE && spec->param[i] != p->fallback)
            snprintf(key + strlen(key), size - strlen(key), " %s", p->values[(int)spec->param[i]]);
    }
}

static group *group_of(session *s, const hm_op_info *op, const char *key) {
    for (int i = 0; i < s->ngroups; i++)
        if (s->groups[i].op == op && !strcmp(s->groups[i].key, key)) return &s->groups[i];
    if (s->ngroups == MAX_GROUPS) return &s->groups[MAX_GROUPS - 1];
    group *g = &s->groups[s->ngroups++];
    *g = (group){.op = op};
    snprintf(g->key, sizeof g->key, "%s", key);
    return g;
}

static void group_add(session *s, const hm_case_spec *spec, const hm_verdict *v) {
    char key[128];
    group_key(spec, key, sizeof key);
    group *g = group_of(s, spec->op, key);
    g->cases++;
    g->elements += v->elements;
    g->outside += v->outside;
    g->judged += v->elements - v->range_free;
    g->point += v->point;
    if (v->elements && v->consistent > g->consistent) g->consistent = v->consistent;
    if (v->max_ulp > g->max_ulp) g->max_ulp = v->max_ulp;
    g->outcome[v->outcome]++;
}

/* "pass", or how many of each if the group's cases differ: "2 fail, 40 pass". */
static const char *group_verdict(const group *g, char *text, size_t size) {
    static const hm_outcome order[] = {HM_FAIL, HM_OUT_OF_CLASS, HM_VACUOUS, HM_SKIPPED, HM_DECLINED, HM_PASS};
    *text = 0;
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        int64_t n = g->outcome[order[i]];
        if (n == g->cases) return hm_outcome_name(order[i]);
        size_t used = strlen(text);
        if (n)
            snprintf(text + used, size - used, "%s%lld %s", used ? ", " : "", (long long)n, hm_outcome_name(order[i]));
    }
    return text;
}

/* By op, then by key; the cases that expect an error come last. */
static int by_place(const void *a, const void *b) {
    const group *x = a, *y = b;
    if (x->op != y->op) return strcmp(x->op->name, y->op->name);
    int errors = !strcmp(y->key, "errors") - !strcmp(x->key, "errors");
    return errors ? -errors : strcmp(x->key, y->key);
}

static void print_table(const session *s) {
    qsort(s->groups, (size_t)s->ngroups, sizeof *s->groups, by_place);
    hm_table *t = hm_table_new("op\tinput, modes\t>cases\t>elements\t>outside\tclass\t>decided\t>max ulp\tverdict");
    for (int i = 0; i < s->ngroups; i++) {
        const group *g = &s->groups[i];
        char exact[16] = "", verdict[128];
        if (!g->elements) {
            hm_table_row(t, "%s\t%s\t%lld\t\t\t\t\t\t%s", g->op->name, g->key, (long long)g->cases,
                         group_verdict(g, verdict, sizeof verdict));
            continue;
        }
        if (g->judged) hm_percent((double)g->point / (double)g->judged, exact);
        hm_table_row(t, "%s\t%s\t%lld\t%lld\t%lld\t%s\t%s\t%.4g\t%s", g->op->name, g->key, (long long)g->cases,
                     (long long)g->elements, (long long)g->outside, hm_class_name(g->consistent), exact, g->max_ulp,
                     group_verdict(g, verdict, sizeof verdict));
    }
    hm_table_print(t, stdout);
    puts(
        "outside: not what any correct implementation may return; class: the tightest arithmetic that all elements "
        "fit;\n"
        "decided: only one value is admissible; max ulp: distance from the exact value, declared roundings included");
}

static void print_classes(const session *s) {
    for (int i = 0; i < hm_op_count(); i++) {
        const hm_op_info *op = hm_op_at(i);
        const char *class = hm_report_consistent(s->report, op);
        bool ran = false;
        for (int k = 0; k < s->ngroups; k++) ran |= s->groups[k].op == op && s->groups[k].elements;
        if (!ran) continue;
        hm_class required = hm_run_judge_options(&s->options->run, op).required;
        const char *name = required == HM_CLASS_NONE ? op->class_required : hm_class_name(required);
        if (!strcmp(class, "not separated"))
            printf("%s: class %s required; these inputs cannot tell the classes apart (not separated)\n", op->name,
                   name);
        else if (!strcmp(class, "none")) printf("%s: class %s required; consistent with no class\n", op->name, name);
        else printf("%s: class %s required; consistent with %s\n", op->name, name, class);
    }
}

/* ---- running ------------------------------------------------------------------------------------------------------
 */

static void judge_case(session *s, const hm_case_spec *spec) {
    const certify_options *o = s->options;
    hm_judge_options judge = hm_run_judge_options(&o->run, spec->op);
    hm_verdict v = {.outcome = HM_SKIPPED, .consistent = HM_CLASS_NONE, .effects_ok = true, .effects = "ok"};
    v.required = judge.required == HM_CLASS_NONE ? hm_class_named(spec->op->class_required) : judge.required;
    hm_call *call = NULL;
    char why[512] = "", repro[HM_CASE_MAX + 1024];
    uint64_t inputs = 0;
    hm_status status = hm_call_from_case(spec, &call, why, sizeof why);
    if (status == HM_OK) {
        inputs = call->inputs_xxh3;
        hm_judge(s->impl, call, &judge, &v);
        hm_call_free(call);
    } else if (status == HM_NO_MEMORY) snprintf(v.why, sizeof v.why, "no memory for this case: %.400s", why);
    else hm_die(o->ncases ? HM_EXIT_USAGE : HM_EXIT_INTERNAL, "the case '%s' cannot be set up: %s", spec->line, why);
    if (v.outcome == HM_NOT_OFFERED) return;
    hm_run_repro(&o->run, "ref", "certify", "--case", spec->line, repro, sizeof repro);
    hm_report_add(s->report, spec->op, spec->line, inputs, &v, repro);
    group_add(s, spec, &v);
    if (v.outcome != HM_PASS && v.outcome != HM_DECLINED) {
        s->failures++;
        hm_progress_clear(&s->progress);
        hm_print_failure(stdout, spec->op, spec->line, &v, repro);
        fflush(stdout);
    }
}

static int visit(const hm_case_spec *spec, void *context) {
    session *s = context;
    if (!in_shard(s->options, s->number++)) return 0;
    if (hm_interrupted()) return 1;
    int index = 0;
    while (hm_op_at(index) != spec->op) index++;
    if (!s->provided[index]) {
        s->provided[index] = s->impl->provides(s->impl, spec->op) ? 1 : 2;
        if (s->provided[index] == 2) hm_report_not_provided(s->report, spec->op);
    }
    if (s->provided[index] == 1) judge_case(s, spec);
    hm_progress_step(&s->progress, spec->line);
    return 0;
}

static int count(const hm_case_spec *spec, void *context) {
    session *s = context;
    (void)spec;
    if (in_shard(s->options, s->number++)) s->progress.total++;
    return 0;
}

static void run_suite(session *s) {
    const certify_options *o = s->options;
    const char *op = o->op ? o->op->name : NULL;
    char why[512];
    if (hm_suite_each(o->suite, op, o->seed, count, s, why, sizeof why))
        hm_die(HM_EXIT_INTERNAL, "the suite's text is bad: %s", why);
    s->number = 0;
    hm_suite_each(o->suite, op, o->seed, visit, s, why, sizeof why);
}

static void run_cases(session *s) {
    const certify_options *o = s->options;
    static hm_case_spec spec[MAX_CASES];
    char why[512];
    for (int i = 0; i < o->ncases; i++) { /* all are read before the first one runs */
        char line[2 * HM_CASE_MAX];
        size_t n = (size_t)snprintf(line, sizeof line, "%s", o->cases[i]);
        if (n < sizeof line && !strstr(line, " seed="))
            snprintf(line + n, sizeof line - n, " seed=%llu", (unsigned long long)o->seed);
        if (hm_case_parse(line, &spec[i], why, sizeof why) != HM_OK)
            hm_die(HM_EXIT_USAGE, "--case '%s': %s", o->cases[i], why);
    }
    s->progress.total = o->ncases;
    for (int i = 0; i < o->ncases; i++)
        if (visit(&spec[i], s)) return;
}

/* ---- options ------------------------------------------------------------------------------------------------------
 */

enum { KEY_SUITE = 512, KEY_CASE, KEY_SEED, KEY_SHARD };

static error_t parse(int key, char *text, struct argp_state *state) {
    certify_options *o = state->input;
    switch (key) {
        case ARGP_KEY_INIT:
            state->child_inputs[0] = &o->run;
            return 0;
        case 'o':
            o->op = hm_option_op(text);
            return 0;
        case KEY_SUITE:
            o->suite = hm_option_suite(text);
            o->suite_name = text;
            return 0;
        case KEY_CASE:
            if (o->ncases == MAX_CASES) hm_die(HM_EXIT_USAGE, "--case may be given %d times at most", MAX_CASES);
            o->cases[o->ncases++] = text;
            return 0;
        case KEY_SEED:
            o->seed = (uint64_t)hm_option_i64("--seed", text, 0, INT64_MAX);
            return 0;
        case KEY_SHARD: {
            char end;
            long long i, n;
            if (sscanf(text, "%lld/%lld%c", &i, &n, &end) != 2 || i < 1 || n < i)
                hm_die(HM_EXIT_USAGE, "--shard is \"%s\", but must be i/n with i from 1 to n", text);
            o->shard = i;
            o->shards = n;
            o->shard_text = text;
            return 0;
        }
        case ARGP_KEY_ARG:
            hm_die(HM_EXIT_USAGE, "\"%s\" is not an option; --help lists them", text);
        default:
            return ARGP_ERR_UNKNOWN;
    }
}

static const char about[] =
    "Judges every output element of an implementation against what a correct one may return.\v"
    "Without --impl the reference is judged, without --case on the quick suite. Every row that is not a pass prints "
    "the command that reproduces it.\n\n"
    "Exit codes: 0 everything conforms; 1 something does not; 2 usage; 3 nothing could run; 4 vacuous; 70 internal "
    "error.";

int hm_cmd_certify(int argc, char **argv) {
    static const struct argp_option options[] = {
        {"op", 'o', "OP", 0, "Only this op", 0},
        {"suite", KEY_SUITE, "SUITE", 0, "smoke (seconds), quick (default, a minute), full (ten minutes)", 0},
        {"case", KEY_CASE, "LINE", 0, "Only this case; may be given several times", 0},
        {"seed", KEY_SEED, "N", 0, "Seed of the cases that state none (default 1)", 0},
        {"shard", KEY_SHARD, "i/n", 0, "Only the i-th of n parts of the suite, counted from 1", 0},
        {0},
    };
    static const struct argp_child children[] = {{&hm_run_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {options, parse, NULL, about, children, NULL, NULL};
    certify_options o = {.run = HM_RUN_OPTIONS, .suite = HM_QUICK, .seed = 1, .shard = 1, .shards = 1};
    hm_parse(&argp, argc, argv, &o);
    if (o.ncases && (o.suite_name || o.op || o.shard_text))
        hm_die(HM_EXIT_USAGE, "--case says what to run: it goes with none of --suite, --op, --shard");

    char shard[64];
    snprintf(shard, sizeof shard, "shard=%s", o.shard_text ? o.shard_text : "");
    hm_interruptible();
    session s = {.options = &o, .impl = hm_run_open(&o.run, "ref")};
    s.progress = hm_progress_start("certify", 0);
    s.report = hm_report_new(s.impl,
                             o.ncases       ? "case"
                             : o.suite_name ? o.suite_name
                                            : "quick",
                             o.seed, hm_run_flags(&o.run, o.shard_text ? shard : NULL));
    s.groups = calloc(MAX_GROUPS, sizeof *s.groups);
    s.provided = calloc((size_t)hm_op_count(), 1);
    if (!s.report || !s.groups || !s.provided) hm_die(HM_EXIT_INTERNAL, "out of memory");
    if (o.run.isa) hm_report_isa(s.report, o.run.isa);

    if (o.ncases) run_cases(&s);
    else run_suite(&s);
    hm_progress_clear(&s.progress);
    if (hm_interrupted()) {
        char what[64];
        snprintf(what, sizeof what, "after %lld of %lld cases", (long long)s.progress.done,
                 (long long)s.progress.total);
        hm_interrupted_exit(what);
    }
    if (s.failures) putchar('\n');
    print_table(&s);
    print_classes(&s);
    hm_print_totals(stdout, s.report);
    int code = hm_run_finish(&o.run, s.report);
    hm_report_free(s.report);
    hm_impl_close(s.impl);
    free(s.groups);
    free(s.provided);
    return code;
}
