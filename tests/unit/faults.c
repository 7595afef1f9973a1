/* The fault table, the legal variants, the catalogue of known bugs and the committed kill matrix. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "certify/embedded.h"
#include "certify/faults/norm.h"
#include "certify/selftest.h"
#include "op/check.h"
#include "op/dtype.h"
#include "tests/unit/host.h"

/* Every bug that the project knows of. A bug may not fall out of the catalogue unseen. */
static const char known[] =
    "A2 A3 A5 A6 A7 A9 A12 A13 A14 B3 B4 C1 C3 C4 C5 C6 C8 C9 C11 C12 D1 D2 D4 D5 D6 D7 D8 D9 D11 D13 D15 D16 D17 D18 "
    "D19 D20 "
    "E1 E2 E3 E5 E7 F1 F3 F4 F5 G1 G3 G4 G5 H1 H2 H3 H6 H7 H8 H9 H10 H11 H13 H14 H16 H17 H18 I1 I2 I3 I5 I6 I8 I9 I10 "
    "I11 I12 "
    "J2 J3 J4 J5 J6 J8 J9 J10 J11 K1 K3 K4 K5 K6 K7 L1 L2 L3 L4 L6 L7 L8 M1 M3 M4 M5 M6 M8 N2 N3 N4 O2 O3 O4 O5 "
    "P1 P2 P3 P4 P5 P6 P7 P9 P10 P11 P12 Q1 Q2 R1 R2 R3 R4 R6 "
    "rope.R1 rope.R2 rope.R3 rope.R4 rope.R5 rope.R6 rope.R7 rope.R8 rope.R9 rope.R10 "
    "cache.C1 cache.C2 cache.C3 cache.C4 cache.C5 cache.C6 cache.C7 cache.C8 concat.Q1 concat.Q2 concat.Q3 concat.Q4 "
    "concat.Q5 "
    "indexer.S1a indexer.S1b indexer.S1c indexer.S1d indexer.S2 indexer.S3 indexer.S4 indexer.S5 indexer.S6 "
    "gemma.G1m gemma.G2m gemma.G3m gemma.G4m gemma.G5m gemma.G6m gemma.G7m gemma.G8m gemma.G9m gemma.G10m gemma.G11m "
    "gemma.G12m gemma.G13m "
    "trap.1 trap.2 trap.3 trap.4 trap.5 trap.6 trap.7 trap.8 trap.9 trap.10 trap.11 trap.12 trap.13 trap.14 trap.15 "
    "trap.16";

static bool next_word(const char **at, char *word, size_t size) {
    *at += strspn(*at, " ");
    size_t length = strcspn(*at, " ");
    if (!length) return false;
    cr_assert_lt(length, size);
    memcpy(word, *at, length);
    word[length] = 0;
    *at += length;
    return true;
}

static const hm_known_bug *bug_named(const char *id) {
    const hm_known_bug *found = NULL;
    for (int i = 0; i < hm_known_bug_count(); i++)
        if (!strcmp(hm_known_bug_at(i)->id, id)) {
            cr_expect_null(found, "%s is in the catalogue twice", id);
            found = hm_known_bug_at(i);
        }
    return found;
}

static json_t *kills(void) {
    for (int i = 0; i < hm_embedded_count; i++)
        if (!strcmp(hm_embedded[i].name, "kills.json"))
            return json_loadb(hm_embedded[i].data, hm_embedded[i].size, JSON_REJECT_DUPLICATES, NULL);
    return NULL;
}

/* How many cases of the committed matrix kill the fault. */
static int killed_by(json_t *matrix, const hm_fault *fault) {
    const char *line, *name = strchr(fault->id, '.') + 1;
    json_t *list, *names = json_object_get(matrix, fault->op);
    int cases = 0, number = -1;
    for (size_t i = 0; i < json_array_size(names); i++)
        if (!strcmp(json_string_value(json_array_get(names, i)), name)) number = (int)i;
    cr_expect_geq(number, 0, "the matrix does not name %s", fault->id);
    json_object_foreach(matrix, line, list) {
        if (strncmp(line, fault->op, strlen(fault->op)) || line[strlen(fault->op)] != ' ') continue;
        for (size_t i = 0; i < json_array_size(list); i++)
            cases += json_integer_value(json_array_get(list, i)) == number;
    }
    return cases;
}

Test(faults, rows_are_complete) {
    cr_assert_gt(hm_fault_count(), 200);
    for (int i = 0; i < hm_fault_count(); i++) {
        const hm_fault *f = hm_fault_at(i);
        cr_expect_eq(hm_fault_named(f->id), f, "%s is there twice", f->id);
        cr_expect_not_null(hm_op_named(f->op));
        cr_expect(!strncmp(f->id, f->op, strlen(f->op)) && f->id[strlen(f->op)] == '.');
        cr_expect(*f->sentence && *f->fix && f->run && f->variation);
        bool is_public = false; /* has some bug that it re-creates a thread of its own? */
        char id[32];
        for (const char *at = f->covers; next_word(&at, id, sizeof id);)
            is_public |= bug_named(id) && *bug_named(id)->reference;
        cr_expect(!is_public || *f->reference, "%s covers a public bug and names no thread", f->id);
    }
    cr_expect_null(hm_fault_named("rms_norm.no_such_fault"));
    cr_expect_null(hm_fault_at(-1));
    cr_expect_null(hm_fault_at(hm_fault_count()));
}

Test(faults, every_known_bug_ends_in_one_list) {
    char id[32];
    int count = 0;
    for (const char *at = known; next_word(&at, id, sizeof id); count++) {
        const hm_known_bug *bug = bug_named(id);
        cr_assert_not_null(bug, "%s is in no list", id);
        int killers = 0, equivalents = 0;
        for (int f = 0; f < hm_fault_count(); f++)
            if (hm_fault_covers(hm_fault_at(f), id)) *(hm_fault_at(f)->equivalent ? &equivalents : &killers) += 1;
        int lists = (killers > 0) + (equivalents > 0) + (bug->not_applicable != NULL);
        cr_expect_eq(lists, 1, "%s is in %d lists", id, lists);
    }
    cr_expect_eq(count, hm_known_bug_count(), "the catalogue has %d bugs, the list here %d", hm_known_bug_count(),
                 count);
    for (int f = 0; f < hm_fault_count(); f++)
        for (const char *at = hm_fault_at(f)->covers; next_word(&at, id, sizeof id);)
            cr_expect_not_null(bug_named(id), "%s covers %s, which is not in the catalogue", hm_fault_at(f)->id, id);
}

Test(faults, committed_matrix_kills_every_fault) {
    json_t *matrix = kills();
    cr_assert_not_null(matrix);
    for (int f = 0; f < hm_fault_count(); f++) {
        int cases = killed_by(matrix, hm_fault_at(f));
        if (hm_fault_at(f)->equivalent) cr_expect_eq(cases, 0, "%s is said to be equivalent", hm_fault_at(f)->id);
        else cr_expect_gt(cases, 0, "no case of the quick suite kills %s", hm_fault_at(f)->id);
    }
    json_decref(matrix);
}

Test(faults, committed_matrix_has_the_cases_of_the_suite) {
    char why[512];
    hm_case_list list = {0};
    json_t *matrix = kills();
    cr_assert_eq(hm_cases_of_suite(HM_QUICK, NULL, 1, &list, why, sizeof why), 0, "%s", why);
    for (int i = 0; i < list.n; i++) {
        const json_t *row = json_object_get(matrix, list.spec[i].line);
        cr_expect_not_null(row, "the matrix lacks %s", list.spec[i].line);
        cr_expect_gt(json_array_size(row), 0, "vacuous: %s", list.spec[i].line);
    }
    cr_expect_leq(json_object_size(matrix), (size_t)(list.n + hm_op_count()),
                  "the matrix has cases that the suite lacks");
    free(list.spec);
    json_decref(matrix);
}

/* The whole matrix is compared by `hallmark selftest`; here a sample of it, so that a change of a fault is seen at
 * once. */
Test(faults, committed_matrix_is_current_on_a_sample, .timeout = 900) {
    char why[512];
    hm_case_list list = {0}, sample = {0};
    hm_kills now;
    json_t *matrix = kills();
    cr_assert_eq(hm_cases_of_suite(HM_SMOKE, NULL, 1, &list, why, sizeof why), 0, "%s", why);
    sample.spec = malloc((size_t)list.n * sizeof *sample.spec);
    for (int i = 0; i < list.n; i += 41) sample.spec[sample.n++] = list.spec[i];
    cr_assert_gt(sample.n, 50);
    cr_assert_eq(hm_kills_run(&sample, &(hm_selftest_options){.seed = 1}, &now), HM_OK);
    char *text = hm_kills_json(&now);
    json_t *fresh = json_loads(text, 0, NULL), *row;
    const char *line;
    cr_assert_eq(json_object_size(fresh), (size_t)(sample.n + hm_op_count()));
    json_object_foreach(fresh, line, row)
        cr_expect(json_equal(row, json_object_get(matrix, line)), "no longer true of %s", line);
    for (int r = 0; r < now.rows; r++) cr_expect_not(now.row[r].bad, "ref is not admitted: %s", now.row[r].line);
    cr_expect_not(hm_kills_current(&now), "a sample is not the matrix");
    free(text);
    json_decref(fresh);
    json_decref(matrix);
    hm_kills_free(&now);
    free(list.spec);
    free(sample.spec);
}

/* All output elements as numbers; the caller frees. A NaN's sign and payload mean nothing. */
static double *numbers(const hm_call *call, int64_t *n) {
    double *to = NULL;
    *n = 0;
    for (int i = 0; i < call->op->nargs; i++) {
        const hm_tensor *t = &call->tensor[i];
        int64_t rows = hm_row_count(t), width = t->dtype ? t->shape[t->ndim - 1] : 0;
        if (call->op->args[i].direction == HM_IN || !rows || !width) continue;
        to = realloc(to, (size_t)(*n + rows * width) * sizeof *to);
        for (int64_t r = 0; r < rows; r++, *n += width)
            hm_load_row(t->dtype, (char *)t->data + hm_row_offset(t, r) * (int64_t)hm_dtype_size(t->dtype),
                        t->stride[t->ndim - 1], width, to + *n);
    }
    return to;
}

static bool same_numbers(const double *a, const double *b, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!(a[i] == b[i] || (isnan(a[i]) && isnan(b[i])))) return false;
    return true;
}

/* What lies in the outputs, judged as binary64: sums that cancel differ by their order. */
static bool admitted_as_wide(const hm_call *call) {
    hm_truth truth;
    bool made = hm_truth_make(call, HM_WIDE, HM_TIER_TWO, &truth) == HM_OK,
         admitted = made && !hm_truth_outside(&truth, call);
    if (made) hm_truth_free(&truth);
    return admitted;
}

/* The evaluator without a variation is the contract: the values of ref, and nothing else touched. */
Test(faults, no_variation_is_the_contract, .timeout = 900) {
    static const _Alignas(16) char none[4096]; /* a variation of any op: all of its fields are 0 */
    char why[512];
    hm_case_list list = {0};
    int compared = 0;
    needs_room();
    cr_assert_eq(hm_cases_of_suite(HM_SMOKE, NULL, 1, &list, why, sizeof why), 0, "%s", why);
    for (int i = 0; i < list.n; i++) {
        int f = 0;
        hm_call *call;
        hm_dtype written[HM_MAX_ARGS] = {0};
        if (list.spec[i].expect != HM_OK) continue;
        while (strcmp(hm_fault_at(f)->op, list.spec[i].op->name)) f++;
        cr_assert_eq(hm_call_from_case(&list.spec[i], &call, why, sizeof why), HM_OK, "%s", why);
        cr_assert_eq(call->op->ref(call->args), HM_OK);
        int64_t n, m;
        double *ref = numbers(call, &n);
        hm_call_reset(call);
        cr_assert_eq(hm_fault_at(f)->run(none, call->args, written), HM_OK);
        double *ours = numbers(call, &m);
        cr_expect(n == m && (same_numbers(ref, ours, n) || admitted_as_wide(call)), "other values than ref: %s",
                  list.spec[i].line);
        free(ref);
        free(ours);
        cr_expect(hm_call_effects(call, false, why, sizeof why), "%s: %s", list.spec[i].line, why);
        for (int a = 0; a < HM_MAX_ARGS; a++) cr_expect_eq(written[a], HM_DTYPE_NONE);
        hm_call_free(call);
        compared++;
    }
    cr_expect_gt(compared, 300);
    free(list.spec);
}

Test(faults, judge_confirms_and_denies) {
    char why[640];
    const char *line = "rms_norm x=bf16[5,40] weight=f32 eps=1e-6 gen=normal seed=1";
    cr_expect(hm_kills_confirm(hm_fault_named("rms_norm.one_plus_for_plain"), line, why, sizeof why), "%s", why);
    cr_expect_not(hm_kills_confirm(hm_fault_named("rms_norm.store_via_f32"), line, why, sizeof why), "%s", why);
    cr_expect_not(hm_kills_confirm(hm_fault_named("rms_norm.rows_65535"), line, why, sizeof why), "%s", why);
}

/* A fault that its cases cannot show is not called killed. */
Test(faults, unkilled_fault_is_seen) {
    char why[512];
    hm_case_spec spec;
    hm_kills result;
    cr_assert_eq(hm_case_parse("rms_norm x=f32[3,16] weight=none gen=normal seed=1", &spec, why, sizeof why), HM_OK,
                 "%s", why);
    cr_assert_eq(hm_kills_run(&(hm_case_list){.spec = &spec, .n = 1}, &(hm_selftest_options){.seed = 1}, &result),
                 HM_OK);
    for (int f = 0; f < hm_fault_count(); f++) {
        const char *id = hm_fault_at(f)->id;
        if (!strcmp(id, "rms_norm.weight_ignored") || !strcmp(id, "rms_norm.rows_65535"))
            cr_expect_eq(result.score[f].killed, 0);
        if (!strcmp(id, "rms_norm.zeros") || !strcmp(id, "rms_norm.last_row_missing"))
            cr_expect_eq(result.score[f].killed, 1);
        if (!strncmp(id, "fused", 5)) cr_expect_eq(result.score[f].cases, 0);
    }
    hm_kills_free(&result);
}

Test(variants, rows_are_complete) {
    for (int o = 0; o < hm_op_count(); o++) {
        int count = 0;
        for (int v = 0; v < hm_variant_count(); v++) {
            const hm_variant *variant = hm_variant_at(v);
            cr_expect_eq(hm_variant_named(variant->id), variant, "%s is there twice", variant->id);
            cr_expect_neq(hm_class_named(variant->class_name), HM_CLASS_NONE);
            count += !strcmp(variant->op, hm_op_at(o)->name);
        }
        cr_expect_geq(count, 6, "%s has %d variants", hm_op_at(o)->name, count);
    }
}

/* The draw of cases and the judging of variants, in small; `hallmark selftest` judges 10^8 elements. */
Test(variants, are_not_accused, .timeout = 900) {
    needs_room();
    for (int o = 0; o < hm_op_count(); o++) {
        hm_alarms alarms;
        cr_assert_eq(hm_alarms_run(&(hm_selftest_options){.op = hm_op_at(o)->name, .seed = 1}, 100000, &alarms), HM_OK);
        cr_expect_geq(alarms.elements, 100000);
        for (int v = 0; v < hm_variant_count(); v++)
            cr_expect_eq(alarms.score[v].outside, 0, "%s: %s", hm_variant_at(v)->id, alarms.score[v].first);
        hm_alarms_free(&alarms);
    }
}

Test(variants, naive_sum_is_out_of_chain64) {
    char why[512];
    hm_case_spec spec;
    hm_call *call;
    hm_truth chain64, any;
    const hm_variant *naive = hm_variant_named("rms_norm.sequential");
    cr_assert_eq(hm_case_parse("rms_norm x=f32[7,16384] weight=none gen=stagnate seed=1", &spec, why, sizeof why),
                 HM_OK, "%s", why);
    cr_assert_eq(hm_call_from_case(&spec, &call, why, sizeof why), HM_OK, "%s", why);
    cr_assert_eq(hm_truth_make(call, HM_CHAIN64, HM_TIER_TWO, &chain64), HM_OK);
    cr_assert_eq(hm_truth_make(call, HM_ANY, HM_TIER_TWO, &any), HM_OK);
    cr_assert_eq(naive->run(naive->variation, call->args), HM_OK);
    cr_expect_gt(hm_truth_outside(&chain64, call), 0);
    cr_expect_eq(hm_truth_outside(&any, call), 0);
    hm_truth_free(&chain64);
    hm_truth_free(&any);
    hm_call_free(call);
}

Test(docs, faults_page_is_current) {
    char *text, *page;
    size_t size, have;
    FILE *to = open_memstream(&text, &size), *from = fopen("docs/faults.md", "rb");
    cr_assert_not_null(from, "docs/faults.md is missing (the test runs in the top folder)");
    hm_faults_describe(to);
    fclose(to);
    page = calloc(size + 2, 1);
    have = fread(page, 1, size + 1, from);
    cr_expect(have == size && !memcmp(page, text, size),
              "docs/faults.md is old: hallmark selftest --docs docs/faults.md");
    fclose(from);
    free(page);
    free(text);
}
