/* hallmark selftest: what the judge catches, what it must not accuse, and whether golden's two tiers agree with MPFR
 * alone. */
#include <math.h>
#include <omp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "selftest.h"

static bool step(void *context, const char *label) {
    hm_selftest_session *s = context;
    if (s->alarms)
        s->progress.done = s->alarms->elements < s->progress.total ? s->alarms->elements - 1 : s->progress.total - 1;
    hm_progress_step(&s->progress, label);
    return !hm_interrupted();
}

hm_selftest_options hm_selftest_library_options(hm_selftest_session *s, uint64_t seed) {
    return (hm_selftest_options){
        .op = s->o->op ? s->o->op->name : NULL, .seed = seed, .threads = s->o->threads, .step = step, .context = s};
}

static bool wanted(const hm_selftest_session *s, const char *part) { return !s->o->only || !strcmp(s->o->only, part); }

void hm_selftest_finish(hm_selftest_session *s, hm_status status, bool stopped) {
    hm_progress_clear(&s->progress);
    if (stopped && hm_interrupted()) hm_interrupted_exit("selftest");
    if (status) hm_die(HM_EXIT_INTERNAL, "the selftest could not go on: %s", hm_status_meaning(status));
}

void hm_selftest_complain(bool *flag, const char *format, ...) {
    va_list list;
    *flag = true;
    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    putchar('\n');
}

/* Of an argument: golden of a whole case is kept, in every thread. A table is there only where its index points. */
enum { MOST_ELEMENTS = 1 << 22 };

static bool too_large(const hm_case_spec *spec) {
    for (int i = 0; i < spec->op->nargs; i++) {
        int64_t n = spec->expect == HM_OK && spec->dtype[i] != HM_DTYPE_NONE && !spec->op->args[i].rows_named_by;
        for (int d = 0; d < spec->ndim[i]; d++) n *= spec->shape[i][d];
        if (n > MOST_ELEMENTS) return true;
    }
    return false;
}

hm_case_list hm_selftest_cases(const hm_selftest_session *s, uint64_t seed) {
    char why[512];
    hm_case_list list = {0};
    if (hm_cases_of_suite(s->o->suite, s->o->op ? s->o->op->name : NULL, seed, &list, why, sizeof why))
        hm_die(HM_EXIT_INTERNAL, "the suite's text is bad: %s", why);
    int kept = 0, all = list.n;
    for (int i = 0; i < all; i++)
        if (!too_large(&list.spec[i])) list.spec[kept++] = list.spec[i];
    list.n = kept;
    if (kept < all) printf("%d cases of more than %d elements are left out\n", all - kept, MOST_ELEMENTS);
    return list;
}

/* ---- tiers ---- */

enum { TIERS_EACH = 3 }; /* MPFR alone is slow: every third case, unless --long or --only tiers asks for all */

static void selftest_tiers(hm_selftest_session *s) {
    hm_tiers tiers;
    hm_case_list list = hm_selftest_cases(s, s->o->seed);
    hm_selftest_options options = hm_selftest_library_options(s, s->o->seed);
    if (!s->o->whole && !s->o->only) {
        int kept = 0;
        for (int i = 0; i < list.n; i += TIERS_EACH) list.spec[kept++] = list.spec[i];
        list.n = kept;
    }
    s->progress = hm_progress_start("tiers", list.n);
    hm_status status = hm_tiers_run(&list, &options, &tiers);
    hm_selftest_finish(s, status, tiers.stopped);
    free(list.spec);
    if (tiers.different)
        hm_selftest_complain(&s->failed, "FAIL  the tiers differ in %lld elements, for one in %s",
                             (long long)tiers.different, tiers.first);
    if (!tiers.elements) hm_selftest_complain(&s->vacuous, "VACUOUS  no element was compared between the tiers");
    printf(
        "Two tiers and MPFR alone: the same bits in %lld of %lld elements of %lld cases; %.0f times faster (%.2f s, "
        "%.2f s)\n",
        (long long)(tiers.elements - tiers.different), (long long)tiers.elements, (long long)tiers.cases,
        tiers.two > 0 ? tiers.mpfr / tiers.two : 0, tiers.two, tiers.mpfr);
}

/* ---- command line ---- */

enum { KEY_SUITE = 256, KEY_SEED, KEY_ELEMENTS, KEY_LONG, KEY_WRITE, KEY_ONLY, KEY_DOCS, KEY_THREADS, KEY_AGAINST };

static const struct argp_option argp_options[] = {
    {"op", 'o', "OP", 0, "One op (default: all)", 0},
    {"suite", KEY_SUITE, "SUITE", 0, "smoke, quick or full (default quick)", 0},
    {"seed", KEY_SEED, "N", 0, "Seed of the cases (default 1); the kill matrix is repeated with N + 1", 0},
    {"elements", KEY_ELEMENTS, "N", 0,
     "Elements of legal variants to judge for each op (default 1e8; 1e6, or 1e7 for rows, where cases are the suite's, "
     "of slots, blocks "
     "and lengths)",
     0},
    {"long", KEY_LONG, NULL, 0,
     "Ten times as many, every fault on every case of the second seed, and the tiers on every case", 0},
    {"write", KEY_WRITE, "FILE", 0, "Write the kill matrix as JSON; data/cases/kills.json is that of the quick suite",
     0},
    {"only", KEY_ONLY, "PART", 0, "kills, alarms or tiers; matrix: the kills of the suite alone, one seed", 0},
    {"docs", KEY_DOCS, "FILE", 0, "Only write docs/faults.md: every fault and every known bug", 0},
    {"threads", KEY_THREADS, "N", 0, "OpenMP threads (speed only, never results)", 0},
    {"against", KEY_AGAINST, "RULES", 0, "Other acceptance rules on the same faults (not in this version)", 0},
    {0},
};

static int64_t count_option(const char *text) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= 1) || value > 1e12 || value != floor(value))
        hm_die(HM_EXIT_USAGE, "--elements is \"%s\", but must be a whole number from 1 to 1e12", text);
    return (int64_t)value;
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    hm_selftest_arguments *o = state->input;
    switch (key) {
        case 'o':
            o->op = hm_option_op(arg);
            return 0;
        case KEY_SUITE:
            o->suite = hm_option_suite(arg);
            return 0;
        case KEY_SEED:
            o->seed = (uint64_t)hm_option_i64("--seed", arg, 0, INT64_MAX - 1);
            return 0;
        case KEY_ELEMENTS:
            o->elements = count_option(arg);
            return 0;
        case KEY_LONG:
            o->more = 10;
            o->whole = true;
            return 0;
        case KEY_WRITE:
            o->write = arg;
            return 0;
        case KEY_DOCS:
            o->docs = arg;
            return 0;
        case KEY_THREADS:
            o->threads = (int)hm_option_i64("--threads", arg, 1, 4096);
            return 0;
        case KEY_AGAINST:
            hm_die(HM_EXIT_USAGE, "--against is not in this version of hallmark");
        case KEY_ONLY:
            if (strcmp(arg, "kills") && strcmp(arg, "alarms") && strcmp(arg, "tiers") && strcmp(arg, "matrix"))
                hm_die(HM_EXIT_USAGE, "--only is \"%s\", but must be kills, alarms, tiers or matrix", arg);
            o->only = arg;
            return 0;
        case ARGP_KEY_ARG:
            hm_die(HM_EXIT_USAGE, "there is no argument \"%s\"", arg);
        default:
            return ARGP_ERR_UNKNOWN;
    }
}

static int write_docs(const char *path) {
    char *text, why[512];
    size_t size;
    FILE *to = open_memstream(&text, &size);
    if (!to) hm_die(HM_EXIT_INTERNAL, "no memory for %s", path);
    hm_faults_describe(to);
    if (fclose(to) || hm_write_file(path, text, size, why, sizeof why))
        hm_die(HM_EXIT_INTERNAL, "%s could not be written", path);
    free(text);
    return HM_EXIT_OK;
}

int hm_cmd_selftest(int argc, char **argv) {
    static const struct argp argp = {
        argp_options,
        parse,
        NULL,
        "Tests the judge itself: every known bug has to be caught (a kill matrix of faults and cases), no "
        "legal variant may be accused, and golden's two tiers have to agree with MPFR alone.\v"
        "Exit codes: 0 all is well, 1 a false alarm or a disagreement, 4 a fault or a case that catches "
        "nothing.",
        NULL,
        NULL,
        NULL};
    hm_selftest_arguments o = {.suite = HM_QUICK, .seed = 1, .more = 1};
    hm_parse(&argp, argc, argv, &o);
    if (o.docs) return write_docs(o.docs);
    if (o.write && o.only && strcmp(o.only, "kills") && strcmp(o.only, "matrix"))
        hm_die(HM_EXIT_USAGE, "--write needs the kill matrix, which --only %s leaves out", o.only);
    if (!hm_golden_environment(o.threads ? o.threads : omp_get_max_threads()))
        hm_die(HM_EXIT_INTERNAL, "the floating-point environment is not round-to-nearest with subnormals");
    hm_interruptible();
    hm_selftest_session s = {.o = &o};
    bool matrix = o.only && !strcmp(o.only, "matrix");
    if (matrix || wanted(&s, "kills")) hm_selftest_kills(&s, matrix);
    if (wanted(&s, "alarms")) hm_selftest_alarms(&s);
    if (wanted(&s, "tiers")) selftest_tiers(&s);
    if (s.failed) puts("selftest: FAIL");
    else if (s.vacuous) puts("selftest: VACUOUS");
    else puts("selftest: ok");
    return s.failed ? HM_EXIT_FAIL : s.vacuous ? HM_EXIT_VACUOUS : HM_EXIT_OK;
}
