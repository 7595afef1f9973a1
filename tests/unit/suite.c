/* The suites: tiers, order, seeds, and that every case is what it says: canonical, buildable, legal or refused as
 * expected. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "../../certify/call.h"
#include "../../certify/generate.h"
#include "../../certify/inputs.h"
#include "host.h"

typedef struct {
    char **line;
    int n;
} lines;

static int keep(const hm_case_spec *spec, void *context) {
    lines *l = context;
    l->line = realloc(l->line, (size_t)(l->n + 1) * sizeof *l->line);
    l->line[l->n++] = strdup(spec->line);
    return 0;
}

static lines of_suite(hm_suite suite, const char *op, uint64_t seed) {
    lines l = {NULL, 0};
    char why[512] = "";
    cr_assert_eq(hm_suite_each(suite, op, seed, keep, &l, why, sizeof why), 0, "%s", why);
    return l;
}

static void drop(lines l) {
    for (int i = 0; i < l.n; i++) free(l.line[i]);
    free(l.line);
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

Test(suite, tiers_contain_each_other_in_order) {
    lines tier[3];
    for (int t = 0; t < 3; t++) tier[t] = of_suite((hm_suite)t, NULL, 1);
    cr_expect(tier[0].n >= 500 && 2 * tier[1].n >= 3 * tier[0].n && tier[2].n > tier[1].n, "%d %d %d", tier[0].n,
              tier[1].n, tier[2].n);
    for (int t = 0; t < 2; t++) {
        int at = 0;
        for (int i = 0; i < tier[t + 1].n && at < tier[t].n; i++) at += !strcmp(tier[t].line[at], tier[t + 1].line[i]);
        cr_expect_eq(at, tier[t].n, "%s", tier[t].line[at]);
    }
    qsort(tier[2].line, (size_t)tier[2].n, sizeof(char *), by_text);
    for (int i = 1; i < tier[2].n; i++) cr_expect_str_neq(tier[2].line[i - 1], tier[2].line[i], "the same case twice");
    for (int t = 0; t < 3; t++) drop(tier[t]);
}

Test(suite, an_op_has_its_own_cases) {
    int sum = 0;
    for (int i = 0; i < hm_op_count(); i++) {
        lines l = of_suite(HM_SMOKE, hm_op_at(i)->name, 1);
        for (int k = 0; k < l.n; k++) {
            size_t length = strlen(hm_op_at(i)->name);
            cr_expect(!strncmp(l.line[k], hm_op_at(i)->name, length) && l.line[k][length] == ' ', "%s", l.line[k]);
        }
        sum += l.n;
        drop(l);
    }
    lines all = of_suite(HM_SMOKE, NULL, 1);
    cr_expect_eq(sum, all.n);
    drop(all);
    cr_expect_eq(of_suite(HM_FULL, "no_such_op", 1).n, 0);
}

static int stop_at_ten(const hm_case_spec *spec, void *context) { return (void)spec, ++*(int *)context == 10 ? 42 : 0; }
/* Lines of ops whose inputs hang together may state a seed, for what only some seeds bring. */
static int same_seed(const hm_case_spec *spec, void *context) {
    return spec->seed == *(uint64_t *)context || hm_inputs_of(spec->op) ? 0 : 1;
}

Test(suite, seeds_and_stopping) {
    char why[512];
    int n = 0;
    uint64_t seed = 90210;
    cr_expect_eq(hm_suite_each(HM_SMOKE, NULL, 1, stop_at_ten, &n, why, sizeof why), 42);
    cr_expect_eq(n, 10);
    cr_expect_eq(hm_suite_each(HM_SMOKE, NULL, seed, same_seed, &seed, why, sizeof why), 0);
}

/* Does the table allow the dtype for some call? "=x" allows what x may be. */
static bool may_be(const hm_op_info *op, int arg, hm_dtype dtype) {
    char list[64];
    snprintf(list, sizeof list, " %s ", op->args[arg].dtypes);
    for (char *word = strtok(list, " "); word; word = strtok(NULL, " ")) {
        if (!strcmp(word, hm_dtype_name(dtype))) return true;
        for (int i = 0; *word == '=' && i < op->nargs; i++)
            if (!strcmp(op->args[i].name, word + 1))
                return strstr(op->args[i].dtypes, hm_dtype_name(dtype)) || may_be(op, i, dtype);
    }
    return false;
}

enum { FIRST_ARG = 2 + HM_MAX_PARAMS };

/* What smoke promises: every dtype of every argument, every mode value, every generator, every error of the family. */
static int mark(const hm_case_spec *spec, void *context) {
    bool(*seen)[64] =
        context; /* 0: generators, 1: statuses, 2 + i: values of mode i, FIRST_ARG + i: dtypes of argument i */
    for (int g = 0; g < hm_generator_count(); g++)
        if (!strcmp(hm_generator_at(g)->name, spec->generator)) seen[0][g] = true;
    seen[1][spec->expect] = true;
    for (int i = 0; i < spec->op->nparams; i++)
        if (spec->op->params[i].values && spec->expect == HM_OK) seen[2 + i][(int)spec->param[i]] = true;
    for (int i = 0; i < spec->op->nargs; i++)
        if (spec->expect == HM_OK) seen[FIRST_ARG + i][spec->dtype[i]] = true;
    return 0;
}

Test(suite, smoke_has_every_dtype_mode_generator_and_error) {
    static const hm_status promised[] = {HM_OK,        HM_BAD_ARG,   HM_BAD_SHAPE, HM_BAD_STRIDE, HM_BAD_DTYPE,
                                         HM_BAD_PLACE, HM_BAD_ALIAS, HM_BAD_PARAM, HM_BAD_VALUE};
    char why[512];
    for (int o = 0; o < hm_op_count(); o++) {
        const hm_op_info *op = hm_op_at(o);
        bool seen[FIRST_ARG + HM_MAX_ARGS][64] = {{false}}, indexed = false;
        bool scalars = false; /* a mode has no value that a case could not spell */
        for (int i = 0; i < op->nparams; i++) scalars |= op->params[i].type != HM_PARAM_MODE;
        bool filled = false; /* are there numbers that a generator makes? */
        for (int i = 0; i < op->nargs; i++) {
            indexed |= op->args[i].rows_named_by != NULL;
            filled |= op->args[i].direction == HM_IN && !op->args[i].optional && may_be(op, i, HM_BF16);
        }
        cr_assert_eq(hm_suite_each(HM_SMOKE, op->name, 1, mark, seen, why, sizeof why), 0, "%s", why);
        for (int g = 0; g < hm_generator_count(); g++)
            cr_expect(seen[0][g] || !filled || hm_inputs_of(op) || hm_generator_at(g)->selection ||
                          !strncmp(hm_generator_at(g)->name, "offset100", 9) ||
                          (!indexed && !strcmp(hm_generator_at(g)->name, "out_of_range")),
                      "%s: %s", op->name, hm_generator_at(g)->name);
        for (size_t i = 0; i < sizeof promised / sizeof *promised; i++)
            cr_expect(seen[1][promised[i]] || (promised[i] == HM_BAD_PARAM && !scalars) ||
                          (promised[i] == HM_BAD_VALUE && !indexed),
                      "%s: %s", op->name, hm_status_name(promised[i]));
        for (int i = 0; i < op->nparams; i++)
            for (int v = 0; op->params[i].values && op->params[i].values[v]; v++)
                cr_expect(seen[2 + i][v], "%s: %s=%s", op->name, op->params[i].name, op->params[i].values[v]);
        for (int i = 0; i < op->nargs; i++)
            for (int d = HM_F32; d <= HM_BF16; d++)
                cr_expect(seen[FIRST_ARG + i][d] || !may_be(op, i, (hm_dtype)d), "%s: %s=%s", op->name,
                          op->args[i].name, hm_dtype_name(d));
    }
}

/* The contract's check says what the case expects, and building the call leaves every byte where it belongs. */
static int examine(const hm_case_spec *spec, void *context) {
    int *n = context;
    char text[512];
    hm_case_spec again;
    hm_call *call;
    cr_assert_eq(hm_case_parse(spec->line, &again, text, sizeof text), HM_OK, "%s: %s", spec->line, text);
    cr_assert(!memcmp(&again, spec, sizeof again), "not canonical: %s", spec->line);
    if (*n >= 0 && (*n)++ % 3) return 0; /* every third is built, to save time */
    hm_status made = hm_call_from_case(spec, &call, text, sizeof text);
    if (made == HM_NO_MEMORY && !roomy()) return 0;
    cr_assert_eq(made, HM_OK, "%s: %s", spec->line, text);
    hm_status status = spec->op->check(hm_call_args(call));
    cr_expect_eq(status, spec->expect, "%s: %s %s", spec->line, hm_status_name(status), hm_error());
    cr_expect(hm_call_effects(call, true, text, sizeof text), "%s: %s", spec->line, text);
    hm_call_free(call);
    return 0;
}

Test(suite, smoke_cases_are_what_they_say) {
    char why[512];
    int all = -1;
    cr_expect_eq(hm_suite_each(HM_SMOKE, NULL, 7, examine, &all, why, sizeof why), 0, "%s", why);
}

Test(suite, quick_cases_are_what_they_say) {
    char why[512];
    int n = 0;
    cr_expect_eq(hm_suite_each(HM_QUICK, NULL, 1, examine, &n, why, sizeof why), 0, "%s", why);
#ifndef __SANITIZE_ADDRESS__ /* which keeps what was freed */
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    cr_expect(!roomy() || usage.ru_maxrss < 256 * 1024, "%ld KiB: sparse memory was touched", usage.ru_maxrss);
#endif
}
