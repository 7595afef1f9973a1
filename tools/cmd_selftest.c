/* hallmark selftest: what the judge catches, what it must not accuse, and whether golden's two tiers agree with MPFR
 * alone. */
#include <math.h>
#include <omp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../certify/selftest.h"
#include "cli.h"

typedef struct {
    const hm_op_info *op;
    const char *suite_name, *write, *only, *docs;
    hm_suite suite;
    uint64_t seed;
    int64_t elements;
    int threads;
} options;

typedef struct {
    const options *o;
    hm_progress progress;
    const hm_alarms *alarms; /* while they run: progress counts their elements */
    bool failed, vacuous;
} session;

static bool step(void *context, const char *label) {
    session *s = context;
    if (s->alarms)
        s->progress.done = s->alarms->elements < s->progress.total ? s->alarms->elements - 1 : s->progress.total - 1;
    hm_progress_step(&s->progress, label);
    return !hm_interrupted();
}

static hm_selftest_options library_options(session *s, uint64_t seed) {
    return (hm_selftest_options){
        .op = s->o->op ? s->o->op->name : NULL, .seed = seed, .threads = s->o->threads, .step = step, .context = s};
}

static bool wanted(const session *s, const char *part) { return !s->o->only || !strcmp(s->o->only, part); }

static void finish(session *s, hm_status status, bool stopped) {
    hm_progress_clear(&s->progress);
    if (stopped && hm_interrupted()) hm_interrupted_exit("selftest");
    if (status) hm_die(HM_EXIT_INTERNAL, "the selftest could not go on: %s", hm_status_meaning(status));
}

static void complain(bool *flag, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void complain(bool *flag, const char *format, ...) {
    va_list list;
    *flag = true;
    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    putchar('\n');
}

/* ---- kills
 * ----------------------------------------------------------------------------------------------------------------- */

static hm_kills run_kills(session *s, const char *what, hm_case_list *list) {
    hm_kills kills;
    hm_selftest_options options = library_options(s, s->o->seed);
    s->progress = hm_progress_start(what, list->n);
    hm_status status = hm_kills_run(list, &options, &kills);
    finish(s, status, kills.stopped);
    free(list->spec);
    return kills;
}

static hm_kills kills_of_suite(session *s, uint64_t seed) {
    char why[512];
    hm_case_list list = {0};
    if (hm_cases_of_suite(s->o->suite, s->o->op ? s->o->op->name : NULL, seed, &list, why, sizeof why))
        hm_die(HM_EXIT_INTERNAL, "the suite's text is bad: %s", why);
    if (!list.n) hm_die(HM_EXIT_NOTHING, "the suite has no case");
    return run_kills(s, "kill matrix", &list);
}

static hm_kills kills_outside(session *s) {
    char why[512];
    hm_case_list list = {0};
    if (hm_cases_outside(s->o->op ? s->o->op->name : NULL, s->o->seed, &list, why, sizeof why))
        hm_die(HM_EXIT_INTERNAL, "the text of the cases outside the suites is bad: %s", why);
    return run_kills(s, "outside the suite", &list);
}

static void check_rows(session *s, const hm_kills *kills, bool of_suite) {
    for (int r = 0; r < kills->rows; r++) {
        const hm_kill_row *row = &kills->row[r];
        if (row->bad) complain(&s->failed, "FAIL  ref itself is not admitted: %s", row->line);
        else if (of_suite && !row->kills) complain(&s->vacuous, "VACUOUS  no fault is killed by: %s", row->line);
    }
}

/* Faults whose every output had the same bits on every case are one fault. */
static void print_groups(const hm_kills *kills) {
    int faults = hm_fault_count();
    for (int f = 0; f < faults; f++) {
        bool first = kills->score[f].cases > 0, printed = false;
        for (int g = 0; g < f && first; g++)
            first = kills->score[g].bits != kills->score[f].bits || strcmp(hm_fault_at(g)->op, hm_fault_at(f)->op);
        for (int g = f + 1; g < faults && first; g++) {
            if (kills->score[g].bits != kills->score[f].bits || strcmp(hm_fault_at(g)->op, hm_fault_at(f)->op))
                continue;
            printf(printed ? ", %s" : "The same on every case: %s", printed ? hm_fault_at(g)->id : hm_fault_at(f)->id);
            if (!printed) printf(", %s", hm_fault_at(g)->id);
            printed = true;
        }
        if (printed) putchar('\n');
    }
}

static const char *verdict_on(session *s, int f, const hm_kills *kills, const hm_kills *second,
                              const hm_kills *outside) {
    const hm_fault *fault = hm_fault_at(f);
    bool all = kills->score[f].killed && (!second || second->score[f].killed) && (!outside || outside->score[f].killed);
    bool any = kills->score[f].killed || (second && second->score[f].killed) || (outside && outside->score[f].killed);
    if (fault->equivalent) {
        if (any) s->failed = true;
        return any ? "FAIL: said to be equivalent" : "equivalent";
    }
    if (!all) s->vacuous = true;
    return all ? "killed" : kills->score[f].killed ? "VACUOUS elsewhere" : "VACUOUS";
}

static void print_kills(session *s, const hm_kills *kills, const hm_kills *second, const hm_kills *outside) {
    int killed = 0, equivalent = 0, missed = 0, rows = 0;
    char heading[256], share[32];
    snprintf(heading, sizeof heading, "fault\t>cases\t>killed by%s%s\t>elements outside\tallclose(1e-2)\tverdict",
             second ? "\t>other seed" : "", outside ? "\t>other shapes" : "");
    hm_table *t = hm_table_new(heading);
    for (int f = 0; f < hm_fault_count(); f++) {
        const hm_fault_score *score = &kills->score[f];
        if (!score->cases) continue;
        char columns[64] = "", caught[32];
        const char *verdict = verdict_on(s, f, kills, second, outside);
        if (second) snprintf(columns, sizeof columns, "\t%d", second->score[f].killed);
        if (outside)
            snprintf(columns + strlen(columns), sizeof columns - strlen(columns), "\t%d", outside->score[f].killed);
        snprintf(share, sizeof share, score->elements ? "%.3g %%" : "-",
                 100.0 * (double)score->outside / (double)(score->elements + !score->elements));
        snprintf(caught, sizeof caught, score->caught ? "caught by %d" : "passed", score->caught);
        hm_table_row(t, "%s\t%d\t%d%s\t%s\t%s\t%s", hm_fault_at(f)->id, score->cases, score->killed, columns, share,
                     caught, verdict);
        rows++, killed += !strcmp(verdict, "killed"), equivalent += !strcmp(verdict, "equivalent");
        missed += !strcmp(verdict, "killed") && !score->caught;
    }
    hm_table_print(t, stdout);
    puts(
        "cases: that the fault ran on; elements outside: of those in the cases that kill it; allclose(1e-2): how many "
        "of these cases\n"
        "torch.allclose(atol=1e-2, rtol=1e-2) against ref rejects (values only: it sees no dtype, no stray write, no "
        "error code)");
    printf("%d faults: %d killed, %d equivalent, %d not; allclose passes %d of the killed on every case\n", rows,
           killed, equivalent, rows - killed - equivalent, missed);
}

/* The judge as users meet it has to agree on the smallest case of each fault. */
static void confirm(session *s, const hm_kills *kills) {
    int agreed = 0, asked = 0;
    char why[640];
    for (int f = 0; f < hm_fault_count(); f++) {
        int r = kills->score[f].smallest;
        if (!kills->score[f].cases || r < 0 || hm_fault_at(f)->equivalent) continue;
        asked++;
        if (hm_kills_confirm(hm_fault_at(f), kills->row[r].line, why, sizeof why)) agreed++;
        else
            complain(&s->failed, "FAIL  the judge does not confirm that %s is killed by %s (%s)", hm_fault_at(f)->id,
                     kills->row[r].line, why);
    }
    printf("The judge confirms %d of %d on the smallest case that kills them\n", agreed, asked);
}

static void selftest_kills(session *s, bool matrix_only) {
    char why[512];
    hm_kills kills = kills_of_suite(s, s->o->seed), second = {0}, outside = {0};
    if (!matrix_only) {
        second = kills_of_suite(s, s->o->seed + 1);
        outside = kills_outside(s);
    }
    if (!s->o->write || !matrix_only)
        print_kills(s, &kills, matrix_only ? NULL : &second, matrix_only ? NULL : &outside);
    check_rows(s, &kills, true);
    check_rows(s, &second, false);
    check_rows(s, &outside, false);
    bool committed = s->o->suite == HM_QUICK && s->o->seed == 1 && !s->o->op && !s->o->write;
    if (committed && !hm_kills_current(&kills))
        complain(&s->failed,
                 "FAIL  data/cases/kills.json is not this matrix: hallmark selftest --only matrix --write "
                 "data/cases/kills.json");
    if (!matrix_only) {
        print_groups(&kills);
        confirm(s, &kills);
    }
    if (s->o->write) {
        char *json = hm_kills_json(&kills);
        if (hm_write_file(s->o->write, json, strlen(json), why, sizeof why)) hm_die(HM_EXIT_INTERNAL, "%s", why);
        free(json);
        printf("%s: %d cases\n", s->o->write, kills.rows);
    }
    hm_kills_free(&kills);
    hm_kills_free(&second);
    hm_kills_free(&outside);
}

/* ---- false alarms
 * ------------------------------------------------------------------------------------------------------------ */

static void confirm_sequential(session *s, const hm_variant *variant, const hm_variant_score *score) {
    char name[128], why[512];
    hm_case_spec spec;
    hm_call *call;
    hm_verdict v;
    if (!score->beyond[0]) {
        complain(&s->vacuous, "VACUOUS  %s was not found out of chain512 on any stagnate row", variant->id);
        return;
    }
    snprintf(name, sizeof name, "variant:%s", variant->id);
    hm_impl *impl = hm_impl_open(name, HM_TIMEOUT, why, sizeof why);
    if (!impl || hm_case_parse(score->beyond, &spec, why, sizeof why) ||
        hm_call_from_case(&spec, &call, why, sizeof why))
        hm_die(HM_EXIT_INTERNAL, "%s", why);
    hm_judge(impl, call, &(hm_judge_options){.required = HM_CHAIN64, .threads = s->o->threads}, &v);
    bool right = v.outcome == HM_OUT_OF_CLASS && v.consistent == HM_ANY;
    if (!right) s->failed = true;
    printf("%s%s on a stagnate row: %s, consistent with %s\n", right ? "" : "FAIL  ", variant->id,
           hm_outcome_name(v.outcome), hm_class_name(v.consistent));
    hm_call_free(call);
    hm_impl_close(impl);
}

static void print_alarms(session *s, const hm_op_info *op, const hm_alarms *alarms) {
    int variants = hm_variant_count(), first = -1;
    hm_table *t = hm_table_new("variant\tclass\t>cases\t>elements\t>outside\t>out of chain64 on stagnate");
    for (int v = 0; v < variants; v++) {
        const hm_variant *variant = hm_variant_at(v);
        const hm_variant_score *score = &alarms->score[v];
        if (strcmp(variant->op, op->name)) continue;
        hm_table_row(t, "%s\t%s\t%lld\t%lld\t%lld\t%lld", variant->id, variant->class_name, (long long)score->cases,
                     (long long)score->elements, (long long)score->outside, (long long)score->beyond_chain64);
    }
    hm_table_print(t, stdout);
    for (int v = 0; v < variants; v++) {
        const hm_variant *variant = hm_variant_at(v);
        if (strcmp(variant->op, op->name)) continue;
        if (first < 0) first = v;
        if (alarms->score[v].outside) complain(&s->failed, "FALSE ALARM  %s: %s", variant->id, alarms->score[v].first);
        for (int w = first; w < v; w++)
            if (strchr(op->classes, ' ') && !alarms->differ[v * variants + w]) /* copies are all alike */
                complain(&s->vacuous, "VACUOUS  %s and %s had the same bits on every case", hm_variant_at(w)->id,
                         variant->id);
        if (strstr(variant->id, ".sequential") && !strstr(variant->id, "_fma"))
            confirm_sequential(s, variant, &alarms->score[v]);
    }
    printf("%s: %lld elements of legal variants judged\n", op->name, (long long)alarms->elements);
}

static void selftest_alarms(session *s) {
    for (int i = 0; i < hm_op_count(); i++) {
        const hm_op_info *op = hm_op_at(i);
        if (s->o->op && s->o->op != op) continue;
        hm_alarms alarms;
        hm_selftest_options options = library_options(s, s->o->seed);
        options.op = op->name;
        s->progress = hm_progress_start("false alarms", s->o->elements);
        s->alarms = &alarms;
        hm_status status = hm_alarms_run(&options, s->o->elements, &alarms);
        s->alarms = NULL;
        finish(s, status, alarms.stopped);
        print_alarms(s, op, &alarms);
        hm_alarms_free(&alarms);
    }
}

/* ---- tiers
 * ---------------------------------------------------------------------------------------------------------------- */

static void selftest_tiers(session *s) {
    char why[512];
    hm_case_list list = {0};
    hm_tiers tiers;
    if (hm_cases_of_suite(s->o->suite, s->o->op ? s->o->op->name : NULL, s->o->seed, &list, why, sizeof why))
        hm_die(HM_EXIT_INTERNAL, "the suite's text is bad: %s", why);
    hm_selftest_options options = library_options(s, s->o->seed);
    s->progress = hm_progress_start("tiers", list.n);
    hm_status status = hm_tiers_run(&list, &options, &tiers);
    finish(s, status, tiers.stopped);
    free(list.spec);
    if (tiers.different)
        complain(&s->failed, "FAIL  the tiers differ in %lld elements, for one in %s", (long long)tiers.different,
                 tiers.first);
    if (!tiers.elements) complain(&s->vacuous, "VACUOUS  no element was compared between the tiers");
    printf(
        "Two tiers and MPFR alone: the same bits in %lld of %lld elements of %lld cases; %.0f times faster (%.2f s, "
        "%.2f s)\n",
        (long long)(tiers.elements - tiers.different), (long long)tiers.elements, (long long)tiers.cases,
        tiers.two > 0 ? tiers.mpfr / tiers.two : 0, tiers.two, tiers.mpfr);
}

/* ---- command line
 * ------------------------------------------------------------------------------------------------------------ */

enum { KEY_SUITE = 256, KEY_SEED, KEY_ELEMENTS, KEY_LONG, KEY_WRITE, KEY_ONLY, KEY_DOCS, KEY_THREADS, KEY_AGAINST };

static const struct argp_option argp_options[] = {
    {"op", 'o', "OP", 0, "One op (default: all)", 0},
    {"suite", KEY_SUITE, "SUITE", 0, "smoke, quick or full (default quick)", 0},
    {"seed", KEY_SEED, "N", 0, "Seed of the cases (default 1); the kill matrix is repeated with N + 1", 0},
    {"elements", KEY_ELEMENTS, "N", 0, "Elements of legal variants to judge for each op (default 1e8)", 0},
    {"long", KEY_LONG, NULL, 0, "1e9 of them", 0},
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
    options *o = state->input;
    switch (key) {
        case 'o':
            o->op = hm_option_op(arg);
            return 0;
        case KEY_SUITE:
            o->suite = hm_option_suite(o->suite_name = arg);
            return 0;
        case KEY_SEED:
            o->seed = (uint64_t)hm_option_i64("--seed", arg, 0, INT64_MAX - 1);
            return 0;
        case KEY_ELEMENTS:
            o->elements = count_option(arg);
            return 0;
        case KEY_LONG:
            o->elements = 1000000000;
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
    options o = {.suite_name = "quick", .suite = HM_QUICK, .seed = 1, .elements = 100000000};
    hm_parse(&argp, argc, argv, &o);
    if (o.docs) return write_docs(o.docs);
    if (o.write && o.only && strcmp(o.only, "kills") && strcmp(o.only, "matrix"))
        hm_die(HM_EXIT_USAGE, "--write needs the kill matrix, which --only %s leaves out", o.only);
    if (!hm_golden_environment(o.threads ? o.threads : omp_get_max_threads()))
        hm_die(HM_EXIT_INTERNAL, "the floating-point environment is not round-to-nearest with subnormals");
    hm_interruptible();
    session s = {.o = &o};
    bool matrix = o.only && !strcmp(o.only, "matrix");
    if (matrix || wanted(&s, "kills")) selftest_kills(&s, matrix);
    if (wanted(&s, "alarms")) selftest_alarms(&s);
    if (wanted(&s, "tiers")) selftest_tiers(&s);
    if (s.failed) puts("selftest: FAIL");
    else if (s.vacuous) puts("selftest: VACUOUS");
    else puts("selftest: ok");
    return s.failed ? HM_EXIT_FAIL : s.vacuous ? HM_EXIT_VACUOUS : HM_EXIT_OK;
}
