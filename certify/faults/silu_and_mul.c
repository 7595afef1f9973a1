/* The bugs of silu_and_mul: an evaluator with a switch at every step, and the table. */
#include <hallmark/silu_and_mul.h>
#include <math.h>

#include "../../op/dtype.h"
#include "../../op/silu_and_mul.h"
#include "../../ref/math.h"
#include "common.h"
#include "tables.h"

#define OP "silu_and_mul"

typedef struct {
    enum {
        FORM_SILU = 0,
        FORM_SIGMOID,    /* without the gate */
        FORM_SIGN,       /* exp(+g) */
        FORM_QUICK_GELU, /* 1.702 */
        FORM_GELU_TANH,  /* another activation */
        FORM_RELU,
        FORM_TANH,        /* g/2 (1 + tanh(g/2)) in f32 */
        FORM_OVERFLOWING, /* e^g / (1 + e^g) on both sides */
        FORM_OF_PRODUCT,
        FORM_GATE_ALONE,
        FORM_UP_ALONE,
        FORM_SQUARED, /* up has the activation, too */
        FORM_CLAMPED,
        FORM_SWAPPED,
        FORM_INTERLEAVED,
        FORM_PRODUCT_FIRST
    } form;
    enum {
        ROUND_AS_DECLARED = 0,
        ROUND_OTHER,
        ROUND_EXP_BF16,
        ROUND_EXP_F16,
        ROUND_EXP_ROUGH, /* 2^-12 */
        ROUND_SIGMOID,   /* to T */
        ROUND_GATE_BF16,
        ROUND_SILU_F16,
        ROUND_RESULT_BF16,
        ROUND_RESULT_F16,
        ROUND_TRUNCATES,
        ROUND_SATURATES,
        ROUND_FLUSHES_T
    } round;
    enum { SPECIAL_KEPT = 0, SPECIAL_NAN_ZERO, SPECIAL_NEGATIVE_NAN, SPECIAL_INF_MAX, SPECIAL_NAN_DROPPED } special;
    enum {
        MAP_AS_GIVEN = 0,
        MAP_X_DENSE,
        MAP_OUT_DENSE,
        MAP_X_UNIT,
        MAP_OUT_UNIT,
        MAP_X_INT32,
        MAP_OUT_INT32,
        MAP_UP_PADDED, /* up starts at a multiple of 8 */
        MAP_UP_AT_ROW_HALF,
        MAP_UP_NEXT
    } map;
    enum { ROWS_ALL = 0, ROWS_WITHOUT_LAST, ROWS_OF_FIRST, ROWS_64 } rows;
    enum {
        EFFECT_NONE = 0,
        EFFECT_X_OVERWRITTEN,
        EFFECT_OUT_F32,
        EFFECT_ONE_PAST,
        EFFECT_WITHOUT_TAIL,
        EFFECT_NOTHING,
        EFFECT_EMPTY_REFUSED
    } effect;
    hm_fault_checks checks;
} variation_t;

static double f32(double v) { return hm_round_to(HM_F32, v); }

static double tanh_of(double v) { return v > 20 ? 1 : v < -20 ? -1 : 1 - 2 / (hm_exp(2 * v) + 1); }

static double sigmoid(const variation_t *v, hm_dtype T, double g) {
    double e = hm_exp(v->form == FORM_SIGN ? g : v->form == FORM_QUICK_GELU ? -1.702 * g : -g), y;
    if (v->round == ROUND_EXP_BF16) e = hm_round_to(HM_BF16, e);
    if (v->round == ROUND_EXP_F16) e = hm_round_to(HM_F16, e);
    if (v->round == ROUND_EXP_ROUGH) e *= 1 + 0x1p-12;
    y = 1 / (1 + e);
    if (v->form == FORM_OVERFLOWING) y = f32(hm_exp(g)) / (1 + f32(hm_exp(g)));
    if (v->form == FORM_TANH) y = f32(1 + f32(tanh_of(g / 2))) / 2;
    return v->round == ROUND_SIGMOID ? hm_round_to(T, y) : y;
}

static double silu(const variation_t *v, hm_dtype T, double g) {
    switch (v->form) {
        case FORM_SIGMOID:
            return sigmoid(v, T, g);
        case FORM_RELU:
            return g < 0 ? 0 : g;
        case FORM_GELU_TANH:
            return g / 2 * (1 + tanh_of(0.7978845608028654 * (g + 0.044715 * g * g * g)));
        case FORM_CLAMPED:
            return fmax(-7, fmin(g, 7)) * sigmoid(v, T, fmax(-7, fmin(g, 7)));
        default:
            return g * sigmoid(v, T, g);
    }
}

static double value_of(const variation_t *v, const hm_silu_and_mul_args *a, double g, double u) {
    hm_dtype T = a->x.dtype;
    bool each = (a->round == HM_SILU_EACH) != (v->round == ROUND_OTHER);
    double s, y;
    if (v->form == FORM_SWAPPED) y = g, g = u, u = y;
    if (v->form == FORM_SQUARED) u = silu(v, T, u);
    if (v->form == FORM_GATE_ALONE) u = 1;
    if (v->round == ROUND_GATE_BF16) g = hm_round_to(HM_BF16, g);
    s = v->form == FORM_UP_ALONE ? 1 : silu(v, T, v->form == FORM_OF_PRODUCT ? g * u : g);
    if (v->round == ROUND_SILU_F16) s = hm_round_to(HM_F16, s);
    if (v->special == SPECIAL_NEGATIVE_NAN && g < -88.5) s = NAN; /* infinity times 0 */
    if (each) s = hm_round_to(T, s);
    y = v->form == FORM_OF_PRODUCT ? s : s * u;
    if (v->form == FORM_PRODUCT_FIRST && !each) y = f32(g * u) * sigmoid(v, T, g);
    if (v->special == SPECIAL_NAN_ZERO && isnan(y)) y = 0;
    if (v->special == SPECIAL_NAN_DROPPED && isnan(g) && !isnan(u)) y = u; /* max(NaN, 0) and the like */
    if (v->special == SPECIAL_INF_MAX && isinf(y)) y = copysign(hm_dtype_max(T), y);
    if (v->round == ROUND_RESULT_BF16) y = hm_round_to(HM_BF16, y);
    if (v->round == ROUND_RESULT_F16) y = hm_round_to(HM_F16, y);
    if (v->round == ROUND_TRUNCATES) y = hm_fault_toward_zero(T, y);
    if (v->round == ROUND_SATURATES && isfinite(y)) y = hm_fault_saturated(T, y);
    if (v->round == ROUND_FLUSHES_T) y = hm_fault_flushed(T, y);
    return y;
}

static int64_t offset_of(const variation_t *v, const hm_tensor *t, int64_t row, int64_t i, int dense, int unit,
                         int int32) {
    int64_t offset = (int)v->map == dense ? row * hm_fault_width(t) : hm_fault_row_offset(t, row);
    offset += i * ((int)v->map == unit ? 1 : t->stride[t->ndim - 1]);
    return (int)v->map == int32 ? hm_fault_in_int32(offset) : offset;
}

static void one_row(const variation_t *v, const hm_silu_and_mul_args *a, int64_t row) {
    const hm_tensor *x = &a->x, *out = &a->out;
    int64_t hidden = hm_fault_width(out), n = hidden, from = v->rows == ROWS_OF_FIRST ? 0 : row;
    int64_t row_step = x->ndim > 1 ? x->stride[x->ndim - 2] : 2 * hidden;
    int64_t up = v->map == MAP_UP_PADDED        ? (hidden + 7) / 8 * 8
                 : v->map == MAP_UP_AT_ROW_HALF ? row_step / 2
                 : v->map == MAP_UP_NEXT        ? hidden + 1
                                                : hidden;
    if (v->effect == EFFECT_WITHOUT_TAIL) n -= n % 8;
    if (v->effect == EFFECT_ONE_PAST) n++;
    if (v->effect == EFFECT_NOTHING) n = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t k = i < hidden ? i : hidden - 1, gate = k, second = up + k;
        if (v->form == FORM_INTERLEAVED) gate = 2 * k, second = 2 * k + 1;
        int64_t at = offset_of(v, x, from, gate, MAP_X_DENSE, MAP_X_UNIT, MAP_X_INT32);
        double y = value_of(v, a, hm_fault_load(x, at),
                            hm_fault_load(x, offset_of(v, x, from, second, MAP_X_DENSE, MAP_X_UNIT, MAP_X_INT32)));
        hm_fault_store_row(out, offset_of(v, out, row, i, MAP_OUT_DENSE, MAP_OUT_UNIT, MAP_OUT_INT32), 1, 1,
                           HM_FAULT_SLACK, &y);
        if (v->effect == EFFECT_X_OVERWRITTEN) hm_fault_store_row(x, at, 1, 1, 0, &y);
    }
}

static hm_status run(const void *variation, const void *args, hm_dtype written[HM_MAX_ARGS]) {
    const variation_t *v = variation;
    hm_silu_and_mul_args a;
    hm_status status;
    if (hm_fault_checked(OP, v->checks, args, &status)) return status;
    hm_silu_and_mul_read(args, &a);
    if (!hm_tensor_elements(&a.out)) return v->effect == EFFECT_EMPTY_REFUSED ? HM_BAD_SHAPE : HM_OK;
    int64_t rows = hm_fault_rows(&a.out);
    if (v->rows == ROWS_64) rows = hm_fault_least(rows, 64);
    for (int64_t row = 0; row < rows - (v->rows == ROWS_WITHOUT_LAST); row++) one_row(v, &a, row);
    if (v->effect == EFFECT_OUT_F32) written[hm_fault_arg(OP, "out")] = HM_F32;
    return HM_OK;
}

#define FAULT(what, covers, reference, sentence, fix, ...) \
    { OP "." what, OP, covers, reference, sentence, fix, NULL, run, &(const variation_t){__VA_ARGS__}, false }

const hm_fault hm_silu_and_mul_faults[] = {
    FAULT("sigmoid", "", "", "the gate itself is missing: sigmoid(g) u", "multiply by g", .form = FORM_SIGMOID),
    FAULT("sign", "", "", "exp(g) in place of exp(-g)", "negate", .form = FORM_SIGN),
    FAULT("quick_gelu", "", "", "sigmoid(1.702 g)", "drop the constant", .form = FORM_QUICK_GELU),
    FAULT("gelu", "", "", "the tanh form of GELU", "take SiLU", .form = FORM_GELU_TANH),
    FAULT("relu", "", "", "ReLU", "take SiLU", .form = FORM_RELU),
    FAULT("tanh", "", "", "g/2 (1 + tanh(g/2)) in f32: the sum loses the small sigmoids", "use exp", .form = FORM_TANH),
    FAULT("overflowing", "", "", "exp(g) / (1 + exp(g)) in f32: inf / inf for g > 88.7", "use exp(-g)",
          .form = FORM_OVERFLOWING),
    FAULT("of_product", "", "", "silu(g u)", "activate the gate alone", .form = FORM_OF_PRODUCT),
    FAULT("gate_alone", "", "", "up is left out", "multiply by it", .form = FORM_GATE_ALONE),
    FAULT("up_alone", "", "", "the gate is left out", "multiply by it", .form = FORM_UP_ALONE),
    FAULT("up_activated", "", "", "up is activated as well", "activate the gate alone", .form = FORM_SQUARED),
    FAULT("clamped", "", "", "the gate is clamped to 7, as another model does", "do not clamp", .form = FORM_CLAMPED),
    FAULT("swapped", "", "", "the second half is taken for the gate", "the gate comes first", .form = FORM_SWAPPED),
    FAULT("interleaved", "", "", "gate and up are taken to alternate", "they are halves", .form = FORM_INTERLEAVED),
    FAULT("product_first", "", "", "g u comes first, in f32, and overflows", "silu comes first",
          .form = FORM_PRODUCT_FIRST),
    FAULT("other_rounding", "A2 A13", "vllm#42325", "silu is rounded where it should not be, or not where it should",
          "round as the mode says", .round = ROUND_OTHER),
    FAULT("exp_bf16", "", "", "the exponential is rounded to bf16", "keep f32", .round = ROUND_EXP_BF16),
    FAULT("exp_f16", "", "", "the exponential is rounded to f16, and infinite for g < -11", "keep f32",
          .round = ROUND_EXP_F16),
    FAULT("exp_rough", "", "", "an exponential of 12 bits", "take a better one", .round = ROUND_EXP_ROUGH),
    FAULT("sigmoid_rounded", "", "", "the sigmoid is rounded to the dtype of x", "keep f32", .round = ROUND_SIGMOID),
    FAULT("gate_bf16", "", "", "an f32 or f16 gate is rounded to bf16", "keep it", .round = ROUND_GATE_BF16),
    FAULT("silu_f16", "", "", "silu passes through f16", "keep f32", .round = ROUND_SILU_F16),
    FAULT("result_bf16", "", "", "the result passes through bf16", "keep f32", .round = ROUND_RESULT_BF16),
    FAULT("result_f16", "", "", "the result passes through f16", "keep f32", .round = ROUND_RESULT_F16),
    FAULT("truncated", "I5", "triton#11217", "results are rounded toward zero", "round to nearest",
          .round = ROUND_TRUNCATES),
    FAULT("saturates", "", "", "results that overflow become the largest value", "let them be infinite",
          .round = ROUND_SATURATES),
    FAULT("flushed", "", "", "results that are subnormal in f16 become 0", "keep them", .round = ROUND_FLUSHES_T),
    FAULT("nan_as_zero", "", "", "NaN becomes 0", "keep NaN", .special = SPECIAL_NAN_ZERO),
    FAULT("nan_of_gate_dropped", "", "", "a NaN in the gate is lost", "keep NaN", .special = SPECIAL_NAN_DROPPED),
    FAULT("nan_where_exp_overflows", "", "", "NaN for g < -88.5: infinity times 0", "divide by 1 + exp(-g)",
          .special = SPECIAL_NEGATIVE_NAN),
    FAULT("inf_is_max", "", "", "infinities become the largest value", "keep them", .special = SPECIAL_INF_MAX),
    FAULT("x_dense", "D13", "vllm#16658", "x is read as if it were contiguous", "use the strides", .map = MAP_X_DENSE),
    FAULT("out_dense", "", "", "out is written as if it were contiguous", "use the strides", .map = MAP_OUT_DENSE),
    FAULT("x_unit", "", "", "elements of x are taken to be neighbours", "use the stride", .map = MAP_X_UNIT),
    FAULT("out_unit", "", "", "elements of out are taken to be neighbours", "use the stride", .map = MAP_OUT_UNIT),
    FAULT("x_int32", "K5", "vllm#43166", "offsets of x wrap in 32 bits", "compute them in 64 bits", .map = MAP_X_INT32),
    FAULT("out_int32", "K5", "vllm#43166", "offsets of out wrap in 32 bits", "compute them in 64 bits",
          .map = MAP_OUT_INT32),
    FAULT("up_padded", "", "", "up is taken to start at a multiple of 8", "it starts at hidden", .map = MAP_UP_PADDED),
    FAULT("up_at_half_stride", "", "", "up is taken to start at half the row stride", "it starts at hidden",
          .map = MAP_UP_AT_ROW_HALF),
    FAULT("up_next", "", "", "up is read one element late", "it starts at hidden", .map = MAP_UP_NEXT),
    FAULT("without_last_row", "", "", "the last row is left out", "fix the bound of the loop",
          .rows = ROWS_WITHOUT_LAST),
    FAULT("row_of_first", "", "", "every row has the first row's result", "advance the pointer", .rows = ROWS_OF_FIRST),
    FAULT("rows_64", "", "", "only 64 rows are written", "loop over the rows", .rows = ROWS_64),
    FAULT("without_tail", "", "", "the last hidden % 8 are left out", "treat the tail", .effect = EFFECT_WITHOUT_TAIL),
    FAULT("one_past", "", "", "one element past the end of a row is written", "fix the bound of the loop",
          .effect = EFFECT_ONE_PAST),
    FAULT("nothing_written", "E7", "vllm-ascend#6558", "out keeps its old bytes", "write to out",
          .effect = EFFECT_NOTHING),
    FAULT("x_overwritten", "F5", "unsloth#5001", "the gate gets the result as well", "leave inputs alone",
          .effect = EFFECT_X_OVERWRITTEN),
    FAULT("out_f32", "", "", "out comes back in f32", "write the dtype of x", .effect = EFFECT_OUT_F32),
    FAULT("empty_refused", "J5", "sglang#32065", "a call without elements is refused", "return ok",
          .effect = EFFECT_EMPTY_REFUSED),
    FAULT("param_not_checked", "", "", "an unknown rounding is taken without an error", "check it",
          .checks = HM_CHECKS_NOT_PARAM),
    HM_CHECK_FAULTS(FAULT),
};
const int hm_silu_and_mul_fault_count = sizeof hm_silu_and_mul_faults / sizeof *hm_silu_and_mul_faults;
