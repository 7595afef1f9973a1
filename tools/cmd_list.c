/* hallmark list: what there is. Everything printed comes from the tables that drive the rest. */
#include <stdlib.h>
#include <string.h>

#include "../certify/faults.h"
#include "../certify/generate.h"
#include "cli.h"

typedef struct {
    const char *kind, *op;
    hm_suite suite;
    uint64_t seed;
} list_options;

static bool wanted(const list_options *o, const char *op) { return !o->op || !strcmp(o->op, op); }

static void list_op(const hm_op_info *op) {
    printf("%s  (contract %d)\n  %s\n", op->name, op->contract, op->about);
    hm_table *t = hm_table_new("  argument\t\tshape\tdtypes\tnotes");
    static const char *const directions[] = {"in", "out", "inout"};
    for (int i = 0; i < op->nargs; i++) {
        const hm_arg_info *a = &op->args[i];
        hm_table_row(t, "  %s\t%s\t[%s]\t%s\t%s%s%s%s%s", a->name, directions[a->direction], a->shape, a->dtypes,
                     a->about, a->optional ? "; may be absent" : "", a->in_place ? "; may be " : "",
                     a->in_place ? a->in_place : "", a->in_place ? " itself" : "");
    }
    hm_table_print(t, stdout);
    t = hm_table_new("  parameter\tvalues\tdefault\tnotes");
    for (int i = 0; i < op->nparams; i++) {
        const hm_param_info *p = &op->params[i];
        char values[256], fallback[32];
        snprintf(values, sizeof values, "%s",
                 p->type == HM_PARAM_F64   ? "number"
                 : p->type == HM_PARAM_I64 ? "integer"
                                           : "");
        for (int k = 0; p->type == HM_PARAM_MODE && p->values[k]; k++)
            snprintf(values + strlen(values), sizeof values - strlen(values), "%s%s", k ? " | " : "", p->values[k]);
        if (p->type == HM_PARAM_MODE) snprintf(fallback, sizeof fallback, "%s", p->values[(int)p->fallback]);
        else snprintf(fallback, sizeof fallback, "%.9g", p->fallback);
        hm_table_row(t, "  %s\t%s\t%s\t%s", p->name, values, fallback, p->about);
    }
    hm_table_print(t, stdout);
    printf("  classes: %s; required: %s\n\n", op->classes, op->class_required);
}

static void list_ops(const list_options *o) {
    for (int i = 0; i < hm_op_count(); i++)
        if (wanted(o, hm_op_at(i)->name)) list_op(hm_op_at(i));
}

static void list_impls(const list_options *o) {
    hm_table *t = hm_table_new("op\tref\tcpu\tcuda\tcuda_fp8");
    for (int i = 0; i < hm_op_count(); i++) {
        const hm_op_info *op = hm_op_at(i);
        if (wanted(o, op->name))
            hm_table_row(t, "%s\t%s\t%s\t%s\t%s", op->name, op->ref ? "yes" : "-", op->cpu ? "yes" : "-",
                         op->cuda ? "yes" : "-", op->cuda_fp8 ? "yes" : "-");
    }
    hm_table_print(t, stdout);
    puts("Also: fault:ID (list faults), variant:ID (list variants), and any plug-in: ./FILE.so");
}

static int print_case(const hm_case_spec *spec, void *context) {
    (void)context;
    puts(spec->line);
    return 0;
}

static void list_cases(const list_options *o) {
    char why[512];
    int code = hm_suite_each(o->suite, o->op, o->seed, print_case, NULL, why, sizeof why);
    if (code) hm_die(HM_EXIT_INTERNAL, "the suite's text is bad: %s", why);
}

static void list_generators(const list_options *o) {
    (void)o;
    hm_table *t = hm_table_new("generator\tseparates classes\tabout");
    for (int i = 0; i < hm_generator_count(); i++) {
        const hm_generator *g = hm_generator_at(i);
        hm_table_row(t, "%s\t%s\t%s", g->name,
                     g->separates == HM_SEPARATES_SUMS ? "sums"
                     : g->separates                    ? "rotations"
                                                       : "-",
                     g->about);
    }
    hm_table_print(t, stdout);
}

static void list_faults(const list_options *o) {
    hm_table *t = hm_table_new("id\tcovers\treference\tsentence");
    for (int i = 0; i < hm_fault_count(); i++) {
        const hm_fault *f = hm_fault_at(i);
        if (wanted(o, f->op))
            hm_table_row(t, "%s\t%s\t%s\t%s%s%s", f->id, f->covers, f->reference, f->sentence,
                         f->equivalent ? " Equivalent: " : "", f->equivalent ? f->equivalent : "");
    }
    hm_table_print(t, stdout);
}

static void list_variants(const list_options *o) {
    hm_table *t = hm_table_new("id\tclass\tabout");
    for (int i = 0; i < hm_variant_count(); i++) {
        const hm_variant *v = hm_variant_at(i);
        if (wanted(o, v->op)) hm_table_row(t, "%s\t%s\t%s", v->id, v->class_name, v->about);
    }
    hm_table_print(t, stdout);
}

static int count_case(const hm_case_spec *spec, void *context) {
    (void)spec;
    ++*(int64_t *)context;
    return 0;
}

static void list_summary(void) {
    int64_t cases[3] = {0};
    char why[512];
    for (int s = HM_SMOKE; s <= HM_FULL; s++)
        if (hm_suite_each((hm_suite)s, NULL, 1, count_case, &cases[s], why, sizeof why))
            hm_die(HM_EXIT_INTERNAL, "the suite's text is bad: %s", why);
    hm_table *t = hm_table_new("what\t>how many\tshown by");
    hm_table_row(t, "ops\t%d\thallmark list ops", hm_op_count());
    hm_table_row(t, "implementations\t\thallmark list impls");
    hm_table_row(t, "cases, smoke\t%lld\thallmark list cases --suite smoke", (long long)cases[HM_SMOKE]);
    hm_table_row(t, "cases, quick\t%lld\thallmark list cases --suite quick", (long long)cases[HM_QUICK]);
    hm_table_row(t, "cases, full\t%lld\thallmark list cases --suite full", (long long)cases[HM_FULL]);
    hm_table_row(t, "generators\t%d\thallmark list generators", hm_generator_count());
    hm_table_row(t, "faults\t%d\thallmark list faults", hm_fault_count());
    hm_table_row(t, "legal variants\t%d\thallmark list variants", hm_variant_count());
    hm_table_print(t, stdout);
}

static const struct {
    const char *name;
    void (*list)(const list_options *);
} kinds[] = {{"ops", list_ops},       {"impls", list_impls},
             {"cases", list_cases},   {"generators", list_generators},
             {"faults", list_faults}, {"variants", list_variants}};

static error_t parse(int key, char *text, struct argp_state *state) {
    list_options *o = state->input;
    switch (key) {
        case 'o':
            o->op = hm_option_op(text)->name;
            return 0;
        case 's':
            o->suite = hm_option_suite(text);
            return 0;
        case 'S':
            o->seed = (uint64_t)hm_option_i64("--seed", text, 0, INT64_MAX);
            return 0;
        case ARGP_KEY_ARG:
            if (o->kind) argp_error(state, "one kind at a time: \"%s\" and \"%s\" were given", o->kind, text);
            o->kind = text;
            return 0;
        default:
            return ARGP_ERR_UNKNOWN;
    }
}

int hm_cmd_list(int argc, char **argv) {
    static const struct argp_option options[] = {
        {"op", 'o', "OP", 0, "Only what belongs to this op", 0},
        {"suite", 's', "SUITE", 0, "Cases of smoke, quick (default) or full", 0},
        {"seed", 'S', "N", 0, "Seed of the cases that state none (default 1)", 0},
        {0},
    };
    static const struct argp argp = {options,
                                     parse,
                                     "[ops|impls|cases|generators|faults|variants]",
                                     "Lists what there is; without a kind, how many of each.",
                                     NULL,
                                     NULL,
                                     NULL};
    list_options o = {.suite = HM_QUICK, .seed = 1};
    hm_parse(&argp, argc, argv, &o);
    if (!o.kind) {
        list_summary();
        return HM_EXIT_OK;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(o.kind, kinds[i].name)) {
            kinds[i].list(&o);
            return HM_EXIT_OK;
        }
    hm_die(HM_EXIT_USAGE,
           "there is nothing called \"%s\" to list; there is ops, impls, cases, generators, faults, variants", o.kind);
}
