/* hallmark certify: judges an implementation on a suite of cases, or on single ones. Several cases may be judged at a
 * time, each with an implementation of its own: while golden is computed for one, a device works on others. What is
 * reported, and its order, do not depend on that. */
#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

enum { MAX_CASES = 256, MAX_GROUPS = 256, MOST_JOBS = 8 }; /* jobs: unless asked for; more gain nothing on one device */

typedef struct {
    hm_run_options run;
    const hm_op_info *op;
    const char *suite_name, *cases[MAX_CASES];
    int ncases;
    hm_suite suite;
    uint64_t seed;
    int64_t shard, shards; /* this one, counted from 1, of how many */
    const char *shard_text;
    int jobs; /* cases at a time; 0: as many as are sensible */
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

/* A case, and what came of it. */
typedef struct {
    hm_case_spec spec;
    hm_verdict verdict;
    uint64_t inputs_xxh3;
    hm_status made; /* whether it could be set up, and why not */
    char why[512];
    bool done;
} outcome;

typedef struct {
    const certify_options *options;
    hm_impl *impl;
    hm_report *report;
    hm_progress progress;
    group *groups;
    int ngroups;
    int64_t number;                          /* of the case in the suite */
    int64_t failures;                        /* printed so far */
    char *provided;                          /* by op index: 0 not asked, 1 yes, 2 no */
    outcome **cases;                         /* in their order; NULL: reported */
    int64_t count, capacity, next, reported; /* next: to be judged */
    int threads;                             /* of one case; 0: OpenMP's default */
    pthread_mutex_t lock;
    pthread_cond_t one_done;
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

static void judge_case(const session *s, hm_impl *impl, outcome *c) {
    const hm_case_spec *spec = &c->spec;
    hm_judge_options judge = hm_run_judge_options(&s->options->run, spec->op);
    hm_call *call = NULL;
    judge.threads = s->threads;
    c->verdict = (hm_verdict){.outcome = HM_SKIPPED, .consistent = HM_CLASS_NONE, .effects_ok = true, .effects = "ok"};
    c->verdict.required = judge.required == HM_CLASS_NONE ? hm_class_named(spec->op->class_required) : judge.required;
    c->made = hm_call_from_case(spec, &call, c->why, sizeof c->why);
    if (c->made != HM_OK) return;
    c->inputs_xxh3 = call->inputs_xxh3;
    hm_judge(impl, call, &judge, &c->verdict);
    hm_call_free(call);
}

static void report_case(session *s, outcome *c) {
    const certify_options *o = s->options;
    const hm_case_spec *spec = &c->spec;
    hm_verdict *v = &c->verdict;
    char repro[HM_CASE_MAX + 1024];
    if (c->made == HM_NO_MEMORY) snprintf(v->why, sizeof v->why, "no memory for this case: %.400s", c->why);
    else if (c->made != HM_OK)
        hm_die(o->ncases ? HM_EXIT_USAGE : HM_EXIT_INTERNAL, "the case '%s' cannot be set up: %s", spec->line, c->why);
    if (v->outcome == HM_NOT_OFFERED) return;
    hm_run_repro(&o->run, "ref", "certify", "--case", spec->line, repro, sizeof repro);
    hm_report_add(s->report, spec->op, spec->line, c->inputs_xxh3, v, repro);
    group_add(s, spec, v);
    if (v->outcome != HM_PASS && v->outcome != HM_DECLINED) {
        s->failures++;
        hm_progress_clear(&s->progress);
        hm_print_failure(stdout, spec->op, spec->line, v, repro);
        fflush(stdout);
    }
}

static int keep(const hm_case_spec *spec, void *context) {
    session *s = context;
    if (!in_shard(s->options, s->number++)) return 0;
    if (s->count == s->capacity) {
        s->capacity = 2 * s->capacity + 64;
        s->cases = realloc(s->cases, (size_t)s->capacity * sizeof *s->cases);
    }
    outcome *c = calloc(1, sizeof *c);
    if (!s->cases || !c) hm_die(HM_EXIT_INTERNAL, "out of memory");
    c->spec = *spec;
    s->cases[s->count++] = c;
    int index = 0;
    while (hm_op_at(index) != spec->op) index++;
    if (s->provided[index]) return 0;
    s->provided[index] = s->impl->provides(s->impl, spec->op) ? 1 : 2;
    if (s->provided[index] == 2) hm_report_not_provided(s->report, spec->op);
    return 0;
}

static bool provided(const session *s, const hm_op_info *op) {
    int index = 0;
    while (hm_op_at(index) != op) index++;
    return s->provided[index] == 1;
}

/* Takes the next case and judges it; false if there is none. */
static bool judge_next(session *s, hm_impl *impl) {
    pthread_mutex_lock(&s->lock);
    int64_t i = s->next < s->count && !hm_interrupted() ? s->next++ : -1;
    pthread_mutex_unlock(&s->lock);
    if (i < 0) return false;
    outcome *c = s->cases[i];
    if (provided(s, c->spec.op)) judge_case(s, impl, c);
    pthread_mutex_lock(&s->lock);
    c->done = true;
    pthread_cond_signal(&s->one_done);
    pthread_mutex_unlock(&s->lock);
    return true;
}

/* Reports what is done, in the order of the cases. */
static void report_done(session *s) {
    while (s->reported < s->count) {
        outcome *c = s->cases[s->reported];
        pthread_mutex_lock(&s->lock);
        bool done = c->done;
        pthread_mutex_unlock(&s->lock);
        if (!done || hm_interrupted()) return;
        if (provided(s, c->spec.op)) report_case(s, c);
        hm_progress_step(&s->progress, c->spec.line);
        free(c);
        s->cases[s->reported++] = NULL;
    }
}

typedef struct {
    session *s;
    hm_impl *impl;
    pthread_t thread;
} helper;

static void *help(void *context) {
    helper *h = context;
    if (h->s->threads) omp_set_num_threads(h->s->threads);
    while (judge_next(h->s, h->impl)) continue;
    return NULL;
}

static void run_all(session *s) {
    const certify_options *o = s->options;
    int cores = omp_get_max_threads(), jobs = o->jobs, started = 0;
    char why[512];
    s->progress.total = s->count;
    if (!jobs) jobs = s->impl->place != HM_CUDA || cores < 2 ? 1 : cores / 2 < MOST_JOBS ? cores / 2 : MOST_JOBS;
    if (jobs > s->count) jobs = s->count > 0 ? (int)s->count : 1;
    helper *helpers = calloc((size_t)jobs, sizeof *helpers);
    if (!helpers) hm_die(HM_EXIT_INTERNAL, "out of memory");
    s->threads = o->run.threads;
    if (jobs > 1) s->threads = cores / jobs > 1 ? cores / jobs : 1;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->one_done, NULL);
    for (int i = 1; i < jobs; i++) { /* the calling thread is one of them */
        helpers[i] =
            (helper){.s = s, .impl = hm_impl_open(o->run.impl ? o->run.impl : "ref", o->run.timeout, why, sizeof why)};
        if (!helpers[i].impl) hm_die(HM_EXIT_USAGE, "%s", why);
        if (pthread_create(&helpers[i].thread, NULL, help, &helpers[i])) hm_die(HM_EXIT_INTERNAL, "no thread");
        started = i;
    }
    if (jobs > 1) omp_set_num_threads(s->threads);
    while (judge_next(s, s->impl)) report_done(s);
    while (s->reported < s->count && !hm_interrupted()) {
        pthread_mutex_lock(&s->lock);
        while (!s->cases[s->reported]->done && !hm_interrupted()) {
            struct timespec soon;
            clock_gettime(CLOCK_REALTIME, &soon);
            soon.tv_sec++;
            pthread_cond_timedwait(&s->one_done, &s->lock, &soon);
        }
        pthread_mutex_unlock(&s->lock);
        report_done(s);
    }
    for (int i = 1; i <= started && !hm_interrupted(); i++) {
        pthread_join(helpers[i].thread, NULL);
        if (!*s->impl->device) snprintf(s->impl->device, sizeof s->impl->device, "%s", helpers[i].impl->device);
        hm_impl_close(helpers[i].impl);
    }
    if (jobs > 1) omp_set_num_threads(cores);
    if (!hm_interrupted()) free(s->cases), free(helpers);
}

static void run_suite(session *s) {
    const certify_options *o = s->options;
    char why[512];
    if (hm_suite_each(o->suite, o->op ? o->op->name : NULL, o->seed, keep, s, why, sizeof why))
        hm_die(HM_EXIT_INTERNAL, "the suite's text is bad: %s", why);
    run_all(s);
}

static void run_cases(session *s) {
    const certify_options *o = s->options;
    static hm_case_spec spec;
    char why[512];
    for (int i = 0; i < o->ncases; i++) { /* all are read before the first one runs */
        char line[2 * HM_CASE_MAX];
        size_t n = (size_t)snprintf(line, sizeof line, "%s", o->cases[i]);
        if (n < sizeof line && !strstr(line, " seed="))
            snprintf(line + n, sizeof line - n, " seed=%llu", (unsigned long long)o->seed);
        if (hm_case_parse(line, &spec, why, sizeof why) != HM_OK)
            hm_die(HM_EXIT_USAGE, "--case '%s': %s", o->cases[i], why);
        keep(&spec, s);
    }
    run_all(s);
}

/* ---- options ------------------------------------------------------------------------------------------------------
 */

enum { KEY_SUITE = 512, KEY_CASE, KEY_SEED, KEY_SHARD, KEY_JOBS };

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
        case KEY_JOBS:
            o->jobs = (int)hm_option_i64("--jobs", text, 1, 256);
            return 0;
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
        {"jobs", KEY_JOBS, "N", 0,
         "Cases at a time (speed only, never results; default 1; on a device one for two threads, up to 8)", 0},
        {0},
    };
    static const struct argp_child children[] = {{&hm_run_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {options, parse, NULL, about, children, NULL, NULL};
    certify_options o = {.run = HM_RUN_OPTIONS, .suite = HM_QUICK, .seed = 1, .shard = 1, .shards = 1};
    hm_parse(&argp, argc, argv, &o);
    if (o.ncases && (o.suite_name || o.op || o.shard_text))
        hm_die(HM_EXIT_USAGE, "--case says what to run: it goes with none of --suite, --op, --shard");

    if (o.op) hm_run_asks(&o.run, o.op->name);
    for (int i = 0; i < o.ncases; i++) hm_run_asks(&o.run, o.cases[i]);
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
