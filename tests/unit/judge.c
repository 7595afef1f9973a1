/* The judge: what it counts, what it lets pass, and what it never does. Outputs come from ref and are then spoilt by
 * hand. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hallmark/fused_add_rms_norm.h>
#include <hallmark/rms_norm.h>

#include "certify/judge.h"
#include "op/check.h"
#include "op/dtype.h"

static const hm_judge_options plainly = {.required = HM_CLASS_NONE};

static hm_call *call_of(const char *line) {
    static hm_case_spec spec;
    hm_call *call;
    char why[512] = "";
    cr_assert_eq(hm_case_parse(line, &spec, why, sizeof why), HM_OK, "%s", why);
    cr_assert_eq(hm_call_from_case(&spec, &call, why, sizeof why), HM_OK, "%s", why);
    return call;
}

static hm_call *done_call(const char *line) {
    hm_call *call = call_of(line);
    cr_assert_eq(call->op->ref(call->args), HM_OK, "%s", hm_error());
    return call;
}

static hm_verdict judge_outputs(hm_call *call, const hm_judge_options *options) {
    hm_run run = {0};
    hm_verdict v;
    hm_judge_outputs(call, &run, options, &v);
    return v;
}

static hm_tensor *tensor(hm_call *call, const char *name) {
    for (int i = 0; i < call->op->nargs; i++)
        if (!strcmp(name, call->op->args[i].name)) return hm_arg_tensor(call->op, call->args, i);
    return NULL;
}

static void *element(hm_call *call, const char *name, int64_t row, int64_t i) {
    hm_tensor *t = tensor(call, name);
    return (char *)t->data + (hm_row_offset(t, row) + i * t->stride[t->ndim - 1]) * (int64_t)hm_dtype_size(t->dtype);
}

static double get(hm_call *call, const char *name, int64_t row, int64_t i) {
    return hm_load(tensor(call, name)->dtype, element(call, name, row, i));
}

static void put(hm_call *call, const char *name, int64_t row, int64_t i, double v) {
    hm_store(tensor(call, name)->dtype, element(call, name, row, i), v);
}

Test(judge, ref_passes_as_wide) {
    static const char *const lines[] = {
        "rms_norm x=bf16[7,96] weight=bf16[96]",
        "rms_norm x=f16[3,5,40] weight=f32[40] round=norm_first",
        "rms_norm x=f32[7,96] weight=bf16[96] weight_form=one_plus alias=out:x",
        "rms_norm x=bf16[96] stride=x:3;out:2",
        "fused_add_rms_norm x=f16[7,96] residual_dtype=f32_for_f16 residual_out=f32[7,96]",
        "fused_add_rms_norm x=bf16[7,96] weight=bf16[96] residual_read=unrounded alias=out:x;residual_out:residual",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char why[256];
        hm_judge_options options = {.required = HM_CLASS_NONE, .check_invariance = true};
        hm_impl *ref = hm_impl_open("ref", 1, why, sizeof why);
        hm_call *call = call_of(lines[i]);
        hm_verdict v;
        hm_judge(ref, call, &options, &v);
        cr_expect_eq(v.outcome, HM_PASS, "%s: %s", lines[i], v.why);
        cr_expect_eq(v.consistent, HM_WIDE, "%s", lines[i]);
        cr_expect_eq(v.required, HM_CHAIN64);
        cr_expect_str_eq(v.invariance, "same", "%s", v.invariance);
        cr_expect_str_eq(v.effects, "ok");
        cr_expect_str_eq(v.why, "");
        cr_expect(v.elements > 0 && v.outside == 0 && v.out_of_class == 0 && v.has_worst && !v.worst_outside);
        hm_call_free(call);
        hm_impl_close(ref);
    }
}

/* Everything that the verdict counts, the slow way: each element on its own, each class in full. */
static hm_verdict by_brute_force(hm_call *call) {
    hm_verdict v = {.consistent = HM_CLASS_NONE, .required = HM_CHAIN64};
    bool inside[HM_CLASS_COUNT] = {true, true, true, true};
    hm_golden *golden;
    double farthest = -1;
    cr_assert_eq(hm_golden_open(call->op, call->golden_args, 1, &golden), HM_OK);
    for (int a = 0; a < call->op->nargs; a++) {
        hm_tensor *t = hm_arg_tensor(call->op, call->args, a);
        const char *name = call->op->args[a].name;
        if (call->op->args[a].direction == HM_IN || t->dtype == HM_DTYPE_NONE) continue;
        int64_t n = t->shape[t->ndim - 1];
        for (int64_t row = 0; row < hm_row_count(t); row++) {
            bool *in[HM_CLASS_COUNT];
            for (hm_class c = 0; c < HM_CLASS_COUNT; c++) {
                hm_golden_row g = {
                    .lo = calloc(n, 8), .hi = calloc(n, 8), .exact = calloc(n, 8), .flags = calloc(n, 1)};
                in[c] = calloc(n, sizeof(bool));
                cr_assert_eq(hm_golden_row_get(golden, a, row, c, HM_TIER_MPFR, &g), HM_OK);
                for (int64_t i = 0; i < n; i++) {
                    double got = get(call, name, row, i);
                    bool is_free = g.flags[i] & HM_GOLD_RANGE_FREE;
                    in[c][i] = (g.flags[i] & HM_GOLD_NAN)
                                   ? isnan(got)
                                   : (got >= g.lo[i] && got <= g.hi[i]) || (is_free && (got == 0 || !isfinite(got)));
                    for (int64_t p = 0; p < g.nparts && in[c][i] && !(is_free && (got == 0 || !isfinite(got))); p++) {
                        if (g.parts[p].index != i) continue;
                        in[c][i] = false;
                        for (int k = 0; k < g.parts[p].n; k++)
                            if (got >= g.parts[p].lo[k] && got <= g.parts[p].hi[k]) in[c][i] = true;
                    }
                    if (!in[c][i]) inside[c] = false;
                    if (c != HM_CHAIN64) continue;
                    v.elements++;
                    v.range_free += is_free;
                    v.point += !is_free && ((g.flags[i] & HM_GOLD_NAN) || g.lo[i] == g.hi[i]);
                    if (!isfinite(got) || !isfinite(g.exact[i])) continue;
                    double d = hm_golden_distance(golden, a, row, i, got);
                    if (d > farthest && isfinite(d)) farthest = d;
                }
                free(g.lo), free(g.hi), free(g.exact), free(g.flags), free(g.parts);
            }
            for (int64_t i = 0; i < n; i++) {
                v.outside += !in[HM_ANY][i];
                v.out_of_class += in[HM_ANY][i] && !in[HM_CHAIN64][i];
            }
            for (hm_class c = 0; c < HM_CLASS_COUNT; c++) free(in[c]);
        }
    }
    hm_golden_close(golden);
    for (int c = HM_CLASS_COUNT - 1; c >= 0; c--)
        if (inside[c]) v.consistent = (hm_class)c;
    v.decided = (double)v.point / (double)(v.elements - v.range_free);
    v.max_ulp = farthest < 0 ? 0 : farthest;
    return v;
}

Test(judge, counts_and_max_ulp_are_those_of_brute_force) {
    static const char *const lines[] = {
        "rms_norm x=bf16[9,150] weight=bf16[150] seed=3",
        "rms_norm x=f16[9,150] weight=f32[150] round=norm_first gen=ties",
        "rms_norm x=f32[31,300] weight=f32[300] seed=4",
        "rms_norm x=bf16[9,150] gen=huge",
        "rms_norm x=f16[9,150] gen=tiny",
        "rms_norm x=f32[9,150] gen=exact weight=f32[150]",
        "rms_norm x=f32[9,150] gen=special",
        "fused_add_rms_norm x=bf16[9,150] weight=bf16[150] gen=heavy",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        for (int spoilt = 0; spoilt < 2; spoilt++) {
            hm_call *call = done_call(lines[i]);
            for (int64_t k = 0; k < 40 && spoilt; k++) { /* some by one value, some by a lot */
                int64_t row = k % 9, at = 3 * k;
                double v = get(call, "out", row, at);
                hm_dtype dtype = tensor(call, "out")->dtype;
                put(call, "out", row, at,
                    k % 4 == 0   ? hm_next_up(dtype, v)
                    : k % 4 == 1 ? hm_next_down(dtype, v)
                    : k % 4 == 2 ? v * 1.25
                    : k == 39    ? NAN
                                 : 0);
            }
            hm_verdict want = by_brute_force(call), first = {0};
            for (int way = 0; way < 4; way++) {
                static const hm_judge_options ways[] = {{.required = HM_CLASS_NONE, .threads = 1},
                                                        {.required = HM_CLASS_NONE, .threads = 2},
                                                        {.required = HM_CLASS_NONE, .threads = 7},
                                                        {.required = HM_CHAIN64, .threads = 3, .tier = HM_TIER_MPFR}};
                hm_verdict v = judge_outputs(call, &ways[way]);
                cr_expect_eq(v.elements, want.elements);
                cr_expect_eq(v.outside, want.outside, "%s: %ld and %ld", lines[i], (long)v.outside, (long)want.outside);
                cr_expect_eq(v.out_of_class, want.out_of_class);
                cr_expect_eq(v.range_free, want.range_free);
                cr_expect_eq(v.point, want.point, "%s: %ld and %ld", lines[i], (long)v.point, (long)want.point);
                cr_expect_eq(v.decided, want.decided);
                cr_expect_eq(v.consistent, want.consistent, "%s", lines[i]);
                cr_expect_eq(v.max_ulp, want.max_ulp, "%s: %a and %a", lines[i], v.max_ulp, want.max_ulp);
                if (way == 0) first = v;
                cr_expect_eq(memcmp(v.worst_index, first.worst_index, sizeof v.worst_index), 0);
                cr_expect_eq(v.worst_arg, first.worst_arg);
                cr_expect_eq(v.outputs_xxh3, first.outputs_xxh3);
                cr_expect_str_eq(v.why, first.why);
            }
            hm_call_free(call);
        }
}

Test(judge, one_spoilt_element_is_found_where_it_is) {
    static const double spoils[] = {NAN, INFINITY, -INFINITY, 0};
    for (int k = 0; k < 6; k++) {
        hm_call *call = done_call("rms_norm x=bf16[7,96] weight=bf16[96]");
        double v = get(call, "out", 5, 17), bad = k < 4 ? spoils[k] : k == 4 ? -v : v * 1.5;
        put(call, "out", 5, 17, bad);
        hm_verdict r = judge_outputs(call, &plainly);
        cr_expect_eq(r.outcome, HM_FAIL);
        cr_expect_eq(r.outside, 1);
        cr_expect(r.has_worst && r.worst_outside && r.worst_index[0] == 5 && r.worst_index[1] == 17);
        cr_expect_eq(r.worst_lo, v);
        cr_expect(strstr(r.why, "1 of 672 elements are outside: out[5,17] is "), "%s", r.why);
        hm_call_free(call);
    }
}

Test(judge, a_row_is_named_by_all_its_indices) {
    hm_call *call = done_call("rms_norm x=bf16[3,5,40]");
    put(call, "out", 7, 33, NAN);
    hm_verdict v = judge_outputs(call, &plainly);
    cr_expect(strstr(v.why, "out[1,2,33] is"), "%s", v.why);
    hm_call_free(call);
}

Test(judge, the_farthest_is_shown_and_the_first_of_equals) {
    hm_call *call = done_call("rms_norm x=bf16[7,96]");
    put(call, "out", 6, 3, NAN);
    put(call, "out", 2, 90, NAN);
    put(call, "out", 0, 0, get(call, "out", 0, 0) * 2);
    for (int threads = 1; threads < 8; threads += 3) {
        hm_verdict v = judge_outputs(call, &(hm_judge_options){.required = HM_CLASS_NONE, .threads = threads});
        cr_expect(v.worst_index[0] == 2 && v.worst_index[1] == 90);
        cr_expect_eq(v.outside, 3);
    }
    hm_call_free(call);
}

/* rms_norm on rows of our own; [rows, n], contiguous, no weight. The result is static: one call at a time. */
static hm_call *call_on(hm_dtype dtype, int64_t rows, int64_t n, const double *x, double eps, bool in_place) {
    static char storage[2][65536];
    hm_call *call;
    char why[256] = "";
    hm_rms_norm_args args = {.size = sizeof args, .eps = eps};
    args.x = hm_tensor_of(storage[0], dtype, 2, (int64_t[]){rows, n});
    args.out = hm_tensor_of(in_place ? storage[0] : storage[1], dtype, 2, (int64_t[]){rows, n});
    hm_store_row(dtype, storage[0], 1, rows * n, x);
    cr_assert_eq(hm_call_from_args(hm_op_named("rms_norm"), &args, "ours", &call, why, sizeof why), HM_OK, "%s", why);
    return call;
}

Test(judge, specials_by_position) {
    double x[] = {1, NAN, 2, 3, 1, 2, 3, 4};
    hm_call *call = call_on(HM_F32, 2, 4, x, 1e-6, false);
    cr_assert_eq(call->op->ref(call->args), HM_OK);
    cr_expect_eq(judge_outputs(call, &plainly).outcome, HM_PASS);
    put(call, "out", 0, 0, 1); /* has to be NaN */
    cr_expect_eq(judge_outputs(call, &plainly).outside, 1);
    put(call, "out", 0, 0, NAN);
    put(call, "out", 1, 0, NAN); /* must not be */
    hm_verdict v = judge_outputs(call, &plainly);
    cr_expect(v.outcome == HM_FAIL && v.outside == 1 && v.worst_index[0] == 1);
    hm_call_free(call);
}

Test(judge, negative_zero_is_zero) {
    double x[] = {0, 1, 2, 3};
    hm_call *call = call_on(HM_BF16, 1, 4, x, 1e-6, false);
    cr_assert_eq(call->op->ref(call->args), HM_OK);
    put(call, "out", 0, 0, -0.0);
    cr_expect_eq(judge_outputs(call, &plainly).outcome, HM_PASS);
    hm_call_free(call);
}

Test(judge, range_free_elements_admit_what_an_overflow_leaves_and_are_not_decided) {
    double x[] = {1e20, 2e20, -3e20, 1e20, 1, 2, 3, 4};
    for (int k = 0; k < 4; k++) {
        hm_call *call = call_on(HM_BF16, 2, 4, x, 1e-6, false);
        cr_assert_eq(call->op->ref(call->args), HM_OK);
        double exact = get(call, "out", 0, 1);
        put(call, "out", 0, 1, k == 0 ? 0 : k == 1 ? NAN : k == 2 ? INFINITY : exact * 1.5);
        hm_verdict v = judge_outputs(call, &plainly);
        cr_expect_eq(v.outcome, k < 3 ? HM_PASS : HM_FAIL, "%s", v.why);
        cr_expect_eq(v.range_free, 4);
        cr_expect(v.point <= 4 && v.decided <= 1);
        cr_expect_eq(v.consistent, k < 3 ? HM_CHAIN64 : HM_CLASS_NONE);
        hm_judge_options wide = {.required = HM_WIDE};
        cr_expect_eq(judge_outputs(call, &wide).outcome, k < 3 ? HM_OUT_OF_CLASS : HM_FAIL);
        hm_call_free(call);
    }
}

/* NORM_FIRST rounds twice: the admissible set may have a gap, and a value in it is outside though the hull holds it. */
Test(judge, a_value_in_a_gap_is_outside) {
    hm_call *call = done_call("rms_norm x=bf16[64,900] weight=f32[900] round=norm_first");
    hm_golden *golden;
    double *array = calloc(900, 4 * sizeof *array);
    hm_golden_row g = {.lo = array, .hi = array + 900, .flags = (unsigned char *)(array + 1800)};
    int found = 0;
    cr_assert_eq(hm_golden_open(call->op, call->golden_args, 1, &golden), HM_OK);
    for (int64_t row = 0; row < 64 && found < 5; row++) {
        cr_assert_eq(hm_golden_row_get(golden, 2, row, HM_ANY, HM_TIER_TWO, &g), HM_OK);
        for (int64_t p = 0; p < g.nparts && found < 5; p++) {
            double gap = hm_next_up(HM_BF16, g.parts[p].hi[0]), was = get(call, "out", row, g.parts[p].index);
            cr_assert(gap < g.parts[p].lo[1] && gap < g.hi[g.parts[p].index]);
            put(call, "out", row, g.parts[p].index, gap);
            hm_verdict v = judge_outputs(call, &(hm_judge_options){.required = HM_ANY});
            cr_expect_eq(v.outside, 1);
            cr_expect_eq(v.outcome, HM_FAIL);
            put(call, "out", row, g.parts[p].index, was);
            found++;
        }
    }
    cr_expect(found > 0, "no gap was met: the test has nothing to show");
    free(g.parts);
    free(array);
    hm_golden_close(golden);
    hm_call_free(call);
}

Test(judge, a_looser_class_is_named_and_is_no_pass) {
    hm_call *call = done_call("rms_norm x=f32[3,4096] weight=f32[4096]");
    hm_golden *golden;
    double *array = calloc(4096, 4 * sizeof *array);
    hm_golden_row g = {.lo = array, .hi = array + 4096, .flags = (unsigned char *)(array + 8192)};
    cr_assert_eq(hm_golden_open(call->op, call->golden_args, 1, &golden), HM_OK);
    static const hm_class steps[] = {HM_CHAIN64, HM_CHAIN512, HM_ANY};
    for (int k = 0; k < 3; k++) {
        cr_assert_eq(hm_golden_row_get(golden, 2, 1, steps[k], HM_TIER_TWO, &g), HM_OK);
        put(call, "out", 1, 9, g.hi[9]);
        hm_verdict v = judge_outputs(call, &plainly);
        cr_expect_eq(v.outcome, k == 0 ? HM_PASS : HM_OUT_OF_CLASS, "%s", v.why);
        cr_expect_eq(v.consistent, steps[k]);
        cr_expect_eq(v.out_of_class, k > 0);
        cr_expect_eq(v.outside, 0);
        cr_expect(k == 0 || strstr(v.why, hm_class_name(steps[k])), "%s", v.why);
        cr_expect_eq(judge_outputs(call, &(hm_judge_options){.required = HM_ANY}).outcome, HM_PASS);
        cr_expect_eq(judge_outputs(call, &(hm_judge_options){.required = HM_WIDE}).outcome, HM_OUT_OF_CLASS);
        put(call, "out", 1, 9, hm_next_up(HM_F32, g.hi[9]));
        v = judge_outputs(call, &plainly);
        cr_expect_eq(v.outcome, k < 2 ? HM_OUT_OF_CLASS : HM_FAIL);
        cr_expect_eq(v.consistent, k < 2 ? steps[k + 1] : HM_CLASS_NONE);
    }
    put(call, "out", 1, 9, g.hi[9]);
    put(call, "out", 0, 0, NAN); /* what is outside all classes does not hide what is inside a looser one */
    hm_verdict both = judge_outputs(call, &(hm_judge_options){.required = HM_CLASS_NONE, .threads = 1});
    cr_expect(both.outside == 1 && both.out_of_class == 1 && both.outcome == HM_FAIL &&
              both.consistent == HM_CLASS_NONE);
    free(array);
    hm_golden_close(golden);
    hm_call_free(call);
}

/* All of a row but one element has one admissible value; that one shows which class it is. */
Test(judge, one_undecided_element_decides_the_class) {
    hm_call *call = done_call("rms_norm x=bf16[90,64]");
    hm_golden *golden;
    double array[64 * 5];
    hm_golden_row g = {.lo = array, .hi = array + 64, .flags = (unsigned char *)(array + 256)};
    int found = 0;
    cr_assert_eq(hm_golden_open(call->op, call->golden_args, 1, &golden), HM_OK);
    for (int64_t row = 0; row < 90; row++) {
        cr_assert_eq(hm_golden_row_get(golden, 2, row, HM_CHAIN64, HM_TIER_TWO, &g), HM_OK);
        int64_t undecided = 0, at = 0;
        for (int64_t i = 0; i < 64; i++)
            if (g.lo[i] != g.hi[i]) undecided++, at = i;
        if (undecided != 1) continue;
        found++;
        double was = get(call, "out", row, at);
        put(call, "out", row, at, was == g.lo[at] ? g.hi[at] : g.lo[at]);
        hm_verdict v = judge_outputs(call, &plainly);
        cr_expect_eq(v.outcome, HM_PASS);
        cr_expect_eq(v.consistent, HM_CHAIN64);
        put(call, "out", row, at, was);
        cr_expect_eq(judge_outputs(call, &plainly).consistent, HM_WIDE);
    }
    cr_expect(found > 0);
    hm_golden_close(golden);
    hm_call_free(call);
}

Test(judge, effects_fail_what_is_right_otherwise) {
    hm_call *call = done_call("rms_norm x=bf16[7,96] stride=out:100,1");
    ((uint16_t *)tensor(call, "out")->data)[97] ^= 1;
    hm_verdict v = judge_outputs(call, &plainly);
    cr_expect(v.outcome == HM_FAIL && !v.effects_ok && v.outside == 0, "%s", v.why);
    hm_call_reset(call);
    cr_assert_eq(call->op->ref(call->args), HM_OK);
    cr_expect_eq(judge_outputs(call, &plainly).outcome, HM_PASS);
    ((uint16_t *)tensor(call, "x")->data)[3] ^= 1;
    v = judge_outputs(call, &plainly);
    cr_expect(v.outcome == HM_FAIL && !v.effects_ok, "%s", v.why);
    hm_call_free(call);
}

Test(judge, an_output_in_another_dtype_fails) {
    hm_call *call = done_call("fused_add_rms_norm x=f16[7,96]");
    hm_run run = {0};
    hm_verdict v;
    for (int i = 0; i < call->op->nargs; i++)
        if (!strcmp(call->op->args[i].name, "residual_out")) run.written[i] = HM_F32;
    hm_judge_outputs(call, &run, &plainly, &v);
    cr_expect_eq(v.outcome, HM_FAIL);
    cr_expect_str_eq(v.why, "residual_out was written as f32; the contract says f16");
    for (int i = 0; i < call->op->nargs; i++)
        if (run.written[i]) run.written[i] = HM_F16;
    hm_judge_outputs(call, &run, &plainly, &v);
    cr_expect_eq(v.outcome, HM_PASS);
    hm_call_free(call);
}

Test(judge, what_any_output_would_pass_is_vacuous) {
    double zeros[8] = {0}, ones[8] = {1, 1, -1, 1, -1, 1, 1, 1};
    char which[128] = "";
    hm_call *call = call_on(HM_BF16, 2, 4, zeros, 1e-6, false);
    cr_assert_eq(call->op->ref(call->args), HM_OK);
    hm_verdict v = judge_outputs(call, &plainly);
    cr_expect_eq(v.outcome, HM_VACUOUS);
    cr_expect(strstr(v.why, "all zeros"), "%s", v.why);
    cr_expect(hm_call_vacuous(call, &plainly, which, sizeof which) && strstr(which, "all zeros"));
    hm_call_free(call);

    for (int in_place = 0; in_place < 2; in_place++) { /* the norm of such a row is the row */
        call = call_on(HM_BF16, 2, 4, ones, 0, in_place);
        cr_assert_eq(call->op->ref(call->args), HM_OK);
        v = judge_outputs(call, &plainly);
        cr_expect_eq(v.outcome, in_place ? HM_VACUOUS : HM_PASS, "%s", v.why);
        cr_expect(!in_place || strstr(v.why, "unchanged input"), "%s", v.why);
        hm_call_free(call);
    }

    ones[5] = 2; /* one row that a kernel has to compute is enough */
    call = call_on(HM_BF16, 2, 4, ones, 0, true);
    cr_assert_eq(call->op->ref(call->args), HM_OK);
    cr_expect_eq(judge_outputs(call, &plainly).outcome, HM_PASS);
    cr_expect(!hm_call_vacuous(call, &plainly, which, sizeof which));
    hm_call_free(call);

    call = done_call("rms_norm x=bf16[0,123]");
    v = judge_outputs(call, &plainly);
    cr_expect(v.elements == 0 && v.outcome == HM_VACUOUS && !strcmp(v.why, "no element was judged"), "%s", v.why);
    cr_expect(!hm_call_vacuous(call, &plainly, which, sizeof which));
    hm_call_free(call);
}

static int first_empty(const hm_case_spec *spec, void *context) {
    hm_case_spec *found = context;
    for (int i = 0; i < spec->op->nargs; i++)
        for (int d = 0; d < spec->ndim[i]; d++)
            if (spec->op->args[i].direction != HM_IN && spec->expect == HM_OK && spec->shape[i][d] == 0)
                return *found = *spec, 1;
    return 0;
}

/* Whatever the seed: it makes no difference to what such a case catches. */
Test(judge, a_case_of_no_elements_passes_if_the_kill_matrix_knows_that_it_catches_something) {
    static hm_case_spec spec;
    char why[256];
    for (uint64_t seed = 1; seed < 3; seed++) {
        hm_call *call;
        cr_assert_eq(hm_suite_each(HM_SMOKE, "rms_norm", seed, first_empty, &spec, why, sizeof why), 1);
        cr_assert_eq(hm_call_from_case(&spec, &call, why, sizeof why), HM_OK);
        cr_assert_eq(call->op->ref(call->args), HM_OK);
        hm_verdict v = judge_outputs(call, &plainly);
        cr_expect(v.outcome == HM_PASS && v.elements == 0, "%s: %s", spec.line, v.why);
        memset(call->buffer[0].base, 0, 4);
        cr_expect_eq(judge_outputs(call, &plainly).outcome, HM_FAIL, "what it can catch is a write");
        hm_call_free(call);
    }
}

/* An implementation that does what the test says. */
static struct {
    hm_run says;
    const char *error;
    void (*spoil)(hm_call *call, const void *args, int run);
    int runs;
} script;

static void scripted(hm_impl *self, hm_call *call, const void *args, hm_run *run) {
    (void)self;
    *run = script.says;
    if (script.error) snprintf(run->error, sizeof run->error, "%s", script.error);
    if (run->state == HM_RAN && run->status == HM_OK && call->op->ref(args) == HM_OK && script.spoil)
        script.spoil(call, args, script.runs);
    script.runs++;
}

static hm_verdict judge_script(const char *line, bool ours, bool require) {
    hm_impl impl = {.name = "scripted", .ours = ours, .run = scripted};
    hm_call *call = call_of(line);
    hm_verdict v;
    script.runs = 0;
    hm_judge(&impl, call,
             &(hm_judge_options){.required = HM_CLASS_NONE, .check_invariance = true, .require_invariance = require},
             &v);
    hm_call_free(call);
    return v;
}

Test(judge, what_the_implementation_said) {
    static const struct {
        hm_run says;
        hm_outcome outcome;
        const char *why;
    } rows[] = {
        {{.state = HM_NOT_PROVIDED}, HM_NOT_OFFERED, "rms_norm is not provided"},
        {{.state = HM_DIED, .error = "killed by SIGBUS"}, HM_FAIL, "killed by SIGBUS"},
        {{.status = HM_UNSUPPORTED, .error = "odd"}, HM_DECLINED, "declined: odd"},
        {{.status = HM_NO_DEVICE}, HM_SKIPPED, "no device"},
        {{.status = HM_BAD_SHAPE}, HM_FAIL, "returned bad_shape; the contract says ok"},
        {{.status = HM_NO_MEMORY, .error = "none left"},
         HM_FAIL,
         "returned no_memory: none left; the contract says ok"},
        {{.status = HM_OK}, HM_PASS, ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        script.says = rows[i].says;
        hm_verdict v = judge_script("rms_norm x=bf16[7,96]", true, false);
        cr_expect_eq(v.outcome, rows[i].outcome);
        cr_expect_str_eq(v.why, rows[i].why);
    }
}

Test(judge, expected_errors) {
    static const char line[] = "rms_norm x=bf16[7,96] eps=-1 expect=bad_param",
                      broken[] = "rms_norm x=bf16[7,96] broken=x:ndim5 expect=bad_shape";
    static const struct {
        const char *line;
        hm_status status;
        const char *error;
        hm_outcome ours, theirs;
    } rows[] = {
        {line, HM_BAD_PARAM, "rms_norm: eps is -1", HM_PASS, HM_PASS},
        {line, HM_BAD_SHAPE, "rms_norm: eps is -1", HM_FAIL, HM_PASS},    /* not the status that the contract names */
        {line, HM_BAD_PARAM, "", HM_FAIL, HM_PASS},                       /* without a sentence */
        {line, HM_BAD_PARAM, "rms_norm: wrong", HM_FAIL, HM_PASS},        /* without a name in it */
        {line, HM_BAD_PARAM, "rms_norm: my_eps is -1", HM_FAIL, HM_PASS}, /* which is another word */
        {line, HM_UNSUPPORTED, "", HM_FAIL, HM_PASS},
        {line, HM_OK, "", HM_FAIL, HM_FAIL},
        {broken, HM_BAD_SHAPE, "rms_norm: x has ndim 5", HM_PASS, HM_PASS},
        {broken, HM_BAD_SHAPE, "rms_norm: out has ndim 5", HM_FAIL, HM_PASS}, /* names the wrong one */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int ours = 0; ours < 2; ours++) {
            script.says = (hm_run){.status = rows[i].status};
            script.error = rows[i].error;
            hm_verdict v = judge_script(rows[i].line, ours, false);
            cr_expect_eq(v.outcome, ours ? rows[i].ours : rows[i].theirs, "row %zu, ours %d: %s", i, ours, v.why);
            cr_expect_eq(v.outcome == HM_PASS, v.why[0] == 0);
            cr_expect_eq(v.elements, 0);
            if (ours && rows[i].status == HM_BAD_PARAM && !rows[i].error[0])
                cr_expect(strstr(v.why, "without a sentence"), "%s", v.why);
        }
}

Test(judge, a_case_that_the_contract_refuses_has_to_say_so) {
    script.says = (hm_run){.status = HM_BAD_PARAM};
    script.error = "rms_norm: eps is -1";
    hm_verdict v = judge_script("rms_norm x=bf16[7,96] eps=-1", true, false);
    cr_expect_eq(v.outcome, HM_FAIL);
    cr_expect(strstr(v.why, "expect=bad_param"), "%s", v.why);
}

Test(judge, a_refused_call_must_leave_every_byte) {
    hm_call *call = call_of("rms_norm x=bf16[7,96] eps=-1 expect=bad_param");
    hm_run run = {.status = HM_BAD_PARAM};
    hm_verdict v;
    hm_judge_outputs(call, &run, &plainly, &v);
    cr_expect_eq(v.outcome, HM_PASS, "%s", v.why);
    put(call, "out", 3, 3, 1);
    hm_judge_outputs(call, &run, &plainly, &v);
    cr_expect_eq(v.outcome, HM_FAIL);
    cr_expect(strstr(v.why, "returned bad_param and still: out"), "%s", v.why);
    hm_call_free(call);
}

Test(judge, ours_says_what_the_contract_says) {
    static const char *const lines[] = {
        "rms_norm x=bf16[7,96] eps=-1 expect=bad_param",
        "rms_norm x=bf16[7,96] broken=x:null expect=bad_arg",
        "rms_norm x=bf16[7,96] broken=out:dtype99 expect=bad_dtype",
        "rms_norm x=bf16[7,96] broken=out:place9 expect=bad_place",
        "rms_norm x=bf16[7,96] broken=args:null expect=bad_arg",
        "rms_norm x=bf16[7,96] broken=args:size expect=bad_arg",
    };
    char why[256];
    hm_impl *ref = hm_impl_open("ref", 1, why, sizeof why);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        hm_call *call = call_of(lines[i]);
        hm_verdict v;
        hm_judge(ref, call, &plainly, &v);
        cr_expect_eq(v.outcome, HM_PASS, "%s: %s", lines[i], v.why);
        hm_call_free(call);
    }
    hm_impl_close(ref);
}

/* ---- invariance ---- */

static void nudge(const void *args, int64_t row) { /* a step that chain64 admits in f32 */
    const hm_rms_norm_args *a = args;
    char *at = (char *)a->out.data + hm_row_offset(&a->out, row) * 4;
    hm_store(HM_F32, at, hm_next_up(HM_F32, hm_load(HM_F32, at)));
}

static void other_when_alone(hm_call *call, const void *args, int run) {
    (void)call, (void)run;
    const hm_rms_norm_args *a = args;
    if (hm_row_count(&a->out) == 1) nudge(args, 0);
}
static void other_in_small_batches(hm_call *call, const void *args, int run) {
    (void)call, (void)run;
    const hm_rms_norm_args *a = args;
    if (a->out.ndim == 2 && a->out.shape[0] == 3) nudge(args, 2);
}
static void other_with_strides(hm_call *call, const void *args, int run) {
    (void)call, (void)run;
    const hm_rms_norm_args *a = args;
    if (a->out.stride[0] != a->out.shape[1]) nudge(args, 0);
}
static void other_at_last(hm_call *call, const void *args, int run) {
    const hm_rms_norm_args *a = args;
    if (run > 0 && a->out.data == tensor(call, "out")->data && hm_row_count(&a->out) == 6 &&
        a->out.stride[0] == a->out.shape[1])
        nudge(args, 1);
}
static void nan_of_another_kind(hm_call *call, const void *args, int run) {
    (void)call;
    const hm_rms_norm_args *a = args;
    for (int64_t i = 0; i < hm_row_count(&a->out) * a->out.shape[1]; i++) {
        float *f = (float *)a->out.data + i;
        if (isnan(*f) && run > 0 && a->out.stride[0] == a->out.shape[1]) memcpy(f, &(uint32_t){0xffc00001}, 4);
    }
}

Test(judge, every_kind_of_variance_is_seen) {
    static const struct {
        void (*spoil)(hm_call *, const void *, int);
        const char *text;
    } rows[] = {
        {NULL, "same"},
        {other_when_alone, "differs: row 0 alone"},
        {other_in_small_batches, "differs: the first 3 of 6 alone"},
        {other_with_strides, "differs: other strides"},
        {other_at_last, "differs: second run"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int ours = 0; ours < 2; ours++)
            for (int require = 0; require < 2; require++) {
                script.says = (hm_run){0};
                script.spoil = rows[i].spoil;
                hm_verdict v = judge_script("rms_norm x=f32[6,64]", ours, require);
                cr_expect_str_eq(v.invariance, rows[i].text, "%s, not %s", v.invariance, rows[i].text);
                cr_expect_eq(v.outcome, i > 0 && (ours || require) ? HM_FAIL : HM_PASS, "%s", v.why);
            }
    script.spoil = nan_of_another_kind;
    cr_expect_str_eq(judge_script("rms_norm x=f32[6,64] gen=special", true, true).invariance, "same");
}

Test(judge, what_is_not_built_is_not_provided) {
    char why[256];
    hm_impl *cpu = hm_impl_open("cpu", 1, why, sizeof why), *cuda = hm_impl_open("cuda", 1, why, sizeof why);
    cr_assert(cpu && cuda);
    cr_expect(cpu->ours && cuda->ours && cpu->place == HM_HOST && cuda->place == HM_CUDA);
    hm_impl *both[] = {cpu, cuda};
    for (int i = 0; i < 2; i++) {
        hm_call *call = call_of("rms_norm x=bf16[7,96]");
        hm_verdict v;
        if (!both[i]->provides(both[i], call->op)) {
            hm_judge(both[i], call, &plainly, &v);
            cr_expect_eq(v.outcome, HM_NOT_OFFERED);
        }
        hm_call_free(call);
        hm_impl_close(both[i]);
    }
}

Test(judge, names) {
    cr_expect_str_eq(hm_outcome_name(HM_PASS), "pass");
    cr_expect_str_eq(hm_outcome_name(HM_NOT_OFFERED), "not_provided");
    cr_expect_str_eq(hm_outcome_name((hm_outcome)99), "?");
    char why[256];
    static const char *const none[] = {"nobody", "fault:nobody", "variant:nobody", ""};
    for (int i = 0; i < 4; i++) {
        cr_expect_null(hm_impl_open(none[i], 1, why, sizeof why));
        cr_expect(strstr(why, "there is no"), "%s", why);
    }
}
