/* layer_norm: its table, what ref gives on rows that can be worked out by hand, and what golden admits of them. */
#include <criterion/criterion.h>
#include <hallmark/layer_norm.h>
#include <hallmark/op.h>
#include <math.h>
#include <string.h>

#include "../../certify/call.h"
#include "../../certify/judge.h"
#include "../../op/dtype.h"

Test(layer_norm, table_matches_the_struct) {
    const hm_op_info *op = hm_op_named("layer_norm");
    cr_assert_not_null(op);
    cr_assert_eq(op->nargs, 4);
    cr_expect_eq(op->args[0].offset, offsetof(hm_layer_norm_args, x));
    cr_expect_eq(op->args[1].offset, offsetof(hm_layer_norm_args, weight));
    cr_expect_eq(op->args[2].offset, offsetof(hm_layer_norm_args, bias));
    cr_expect_eq(op->args[3].offset, offsetof(hm_layer_norm_args, out));
    cr_expect_eq(op->args_size, sizeof(hm_layer_norm_args));
}

/* m +- 1, m +- 3 with variance 5: (x - m) / sqrt(5 + 4) is a third of it. Exact whatever the mean. */
Test(layer_norm, rows_worked_out_by_hand) {
    static const float means[] = {0, 100, -1e6f, 0x1p20f};
    float w[4] = {3, 6, -3, 1.5f}, b[4] = {0.5f, 0, -1, 2}, y[4];
    for (size_t k = 0; k < sizeof means / sizeof *means; k++) {
        float m = means[k], x[4] = {m - 3, m - 1, m + 1, m + 3};
        cr_assert_eq(hm_layer_norm(HM_ARGS(layer_norm, .out = hm_tensor_of(y, HM_F32, 2, (int64_t[]){1, 4}),
                                           .x = hm_tensor_of(x, HM_F32, 2, (int64_t[]){1, 4}),
                                           .weight = hm_tensor_of(w, HM_F32, 1, (int64_t[]){4}),
                                           .bias = hm_tensor_of(b, HM_F32, 1, (int64_t[]){4}), .eps = 4)),
                     HM_OK);
        cr_expect(y[0] == -2.5f && y[1] == -2 && y[2] == -2 && y[3] == 3.5f, "mean %g: %g %g %g %g", (double)m,
                  (double)y[0], (double)y[1], (double)y[2], (double)y[3]);
    }
}

Test(layer_norm, equal_elements_give_the_bias) {
    static const float values[] = {0, 1, -0.1f, 1e30f, 1e-40f};
    float b[5] = {1, -2, 0.1f, 0, 3e38f}, x[5], y[5];
    for (size_t k = 0; k < sizeof values / sizeof *values; k++) {
        for (int i = 0; i < 5; i++) x[i] = values[k];
        hm_layer_norm(HM_ARGS(layer_norm, .out = hm_tensor_of(y, HM_F32, 1, (int64_t[]){5}),
                              .x = hm_tensor_of(x, HM_F32, 1, (int64_t[]){5}),
                              .bias = hm_tensor_of(b, HM_F32, 1, (int64_t[]){5}), .eps = 1e-6));
        for (int i = 0; i < 5; i++)
            cr_expect(values[k] == 1e30f ? isfinite(y[i]) : y[i] == b[i], "%g: %g, not %g", (double)values[k],
                      (double)y[i], (double)b[i]);
    }
}

static hm_verdict judged(const char *line, void (*change)(hm_call *call)) {
    char why[512];
    hm_case_spec spec;
    hm_call *call;
    hm_verdict v;
    cr_assert_eq(hm_case_parse(line, &spec, why, sizeof why), HM_OK, "%s", why);
    cr_assert_eq(hm_call_from_case(&spec, &call, why, sizeof why), HM_OK, "%s", why);
    cr_assert_eq(hm_layer_norm_ref(call->args), HM_OK);
    change(call);
    hm_judge_options options = {.required = HM_CLASS_NONE};
    hm_run run = {.state = HM_RAN, .status = HM_OK};
    hm_judge_outputs(call, &run, &options, &v);
    hm_call_free(call);
    return v;
}

static void nothing(hm_call *call) { (void)call; }

/* mean of squares minus square of the mean, in f32 */
static void one_pass(hm_call *call) {
    hm_layer_norm_args *a = call->args;
    int64_t n = a->x.shape[1];
    for (int64_t row = 0; row < a->x.shape[0]; row++) {
        const float *x = (const float *)a->x.data + row * a->x.stride[0];
        float *y = (float *)a->out.data + row * a->out.stride[0], sum = 0, squares = 0;
        for (int64_t i = 0; i < n; i++) sum += x[i], squares += x[i] * x[i];
        float mean = sum / (float)n, rs = 1 / sqrtf(squares / (float)n - mean * mean + (float)a->eps);
        for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * rs;
    }
}

Test(layer_norm, one_pass_is_seen_where_the_mean_is_far_away) {
    static const char line[] = "layer_norm x=f32[6,128] weight=none bias=none gen=exact seed=3";
    hm_verdict v = judged(line, nothing);
    cr_expect(v.outside == 0 && v.elements == 6 * 128, "%s", v.why);
    v = judged(line, one_pass);
    cr_expect(v.outcome == HM_FAIL && v.outside >= 128, "%lld outside", (long long)v.outside);
}

/* One value of bf16 too far, anywhere in a row, is outside; ref's own is not. */
static int64_t moved;
static void move_one(hm_call *call) {
    hm_layer_norm_args *a = call->args;
    char *at = (char *)a->out.data + moved * 2;
    double v = hm_load(HM_BF16, at);
    hm_store(HM_BF16, at, hm_next_up(HM_BF16, hm_next_up(HM_BF16, v)));
}

Test(layer_norm, two_values_of_bf16_too_far_is_seen) {
    for (moved = 0; moved < 5 * 77; moved += 13) {
        hm_verdict v = judged("layer_norm x=bf16[5,77] weight=f32[77] bias=f32[77] seed=2", move_one);
        cr_expect(v.outcome == HM_FAIL && v.outside == 1, "element %lld: %s", (long long)moved, v.why);
    }
}

Test(layer_norm, refused_before_a_byte_is_written) {
    uint16_t x[8] = {0}, y[8];
    float w[7] = {0};
    memset(y, 0x55, sizeof y);
    cr_assert_eq(hm_layer_norm(HM_ARGS(layer_norm, .out = hm_tensor_of(y, HM_BF16, 2, (int64_t[]){1, 8}),
                                       .x = hm_tensor_of(x, HM_BF16, 2, (int64_t[]){1, 8}),
                                       .bias = hm_tensor_of(w, HM_F32, 1, (int64_t[]){7}), .eps = 1e-6)),
                 HM_BAD_SHAPE);
    cr_expect_str_eq(hm_error(), "layer_norm: bias has rank 1 and extent 7; it has to be [8], the last extent of x");
    for (int i = 0; i < 8; i++) cr_assert_eq(y[i], 0x5555);
}
