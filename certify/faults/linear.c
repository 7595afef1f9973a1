/* The bugs of linear: an evaluator with a switch at every step, and the table. */
#include <hallmark/linear.h>
#include <math.h>
#include <stdlib.h>

#include "../../op/dtype.h"
#include "../../op/linear.h"
#include "common.h"
#include "tables.h"

#define OP "linear"

typedef struct {
    enum {
        SUM_F64 = 0,
        SUM_F16,       /* the accumulator is f16 */
        SUM_BF16,      /* ... bf16 */
        SUM_BF16_64,   /* rounded to bf16 after each 64 products */
        SUM_F16_64,    /* rounded to f16 there */
        SUM_SPLIT,     /* 4 parts, each rounded to bf16 */
        SUM_SPLIT_F16, /* ... to f16 */
        SUM_PRODUCTS_BF16
    } sum;
    enum {
        OPERANDS_AS_GIVEN = 0,
        OPERANDS_TF32,
        OPERANDS_BF16,
        OPERANDS_X_BF16,
        OPERANDS_WEIGHT_BF16,
        OPERANDS_WEIGHT_F16,
        OPERANDS_TRUNCATED, /* to the upper 16 bits */
        OPERANDS_FLUSHED    /* subnormals of the dtype are 0 */
    } operands;
    enum {
        TERMS_ALL = 0,
        TERMS_WITHOUT_TAIL_8,
        TERMS_WITHOUT_TAIL_64,
        TERMS_WITHOUT_LAST,
        TERMS_WITHOUT_FIRST,
        TERMS_WITHOUT_SECOND_64,
        TERMS_SECOND_64_TWICE,
        TERMS_ONE_MORE,
        TERMS_NO_ZEROS, /* products with a zero of x are skipped */
        TERMS_SHIFTED,  /* weight k + 1 for x k */
        TERMS_REVERSED
    } terms;
    enum {
        BIAS_ADDED = 0,
        BIAS_NOT,
        BIAS_TWICE,
        BIAS_AFTER_ROUNDING,
        BIAS_OF_ROW,
        BIAS_OF_FIRST,
        BIAS_BF16,
        BIAS_FIRST_ROW,
        BIAS_SUBTRACTED,
        BIAS_UNIT,
        BIAS_NOT_ALONE /* left out where in is 0 */
    } bias;
    enum {
        OUT_ROUNDED = 0,
        OUT_TRUNCATED,
        OUT_TIES_AWAY,
        OUT_BF16,
        OUT_F16,
        OUT_SATURATES,
        OUT_NAN_ZERO,
        OUT_NEGATIVE_ZERO, /* ReLU */
        OUT_ACCUMULATES,   /* added to what was there */
        OUT_STALE_EMPTY,   /* not written where in is 0 */
        OUT_AS_T           /* comes back in the dtype of x */
    } out;
    enum {
        MAP_AS_GIVEN = 0,
        MAP_X_DENSE,
        MAP_WEIGHT_DENSE,
        MAP_OUT_DENSE,
        MAP_X_UNIT,
        MAP_WEIGHT_UNIT,
        MAP_OUT_UNIT,
        MAP_X_INT32,
        MAP_WEIGHT_INT32,
        MAP_OUT_INT32,
        MAP_WEIGHT_TRANSPOSED, /* read as [in, features] */
        MAP_WEIGHT_STRIDE_OF_X,
        MAP_X_FIRST_ROW,
        MAP_WEIGHT_FIRST_ROW,
        MAP_WEIGHT_NEXT_ROW
    } map;
    enum {
        RANGE_ALL = 0,
        RANGE_WITHOUT_LAST_ROW,
        RANGE_WITHOUT_LAST_FEATURE,
        RANGE_FEATURES_16,
        RANGE_ROWS_64,
        RANGE_ONE_PAST,
        RANGE_NONE
    } range;
    enum { EFFECT_NONE = 0, EFFECT_X_OVERWRITTEN, EFFECT_EMPTY_REFUSED } effect;
    hm_fault_checks checks;
} variation_t;

static int64_t offset_of(const variation_t *v, const hm_tensor *t, int64_t row, int64_t i, int dense, int unit,
                         int int32) {
    int64_t offset = (int)v->map == dense ? row * hm_fault_width(t) : hm_fault_row_offset(t, row);
    offset += i * ((int)v->map == unit ? 1 : t->stride[t->ndim - 1]);
    return (int)v->map == int32 ? hm_fault_in_int32(offset) : offset;
}

static double weight_at(const variation_t *v, const hm_linear_args *a, int64_t f, int64_t k) {
    const hm_tensor *w = &a->weight;
    int64_t n = w->shape[1], features = w->shape[0];
    if (v->terms == TERMS_SHIFTED) k = (k + 1) % n;
    if (v->map == MAP_WEIGHT_FIRST_ROW) f = 0;
    if (v->map == MAP_WEIGHT_NEXT_ROW) f = (f + 1) % features;
    if (v->map == MAP_WEIGHT_TRANSPOSED) {
        int64_t flat = k * features + f;
        f = flat / n % features, k = flat % n;
    }
    if (v->map == MAP_WEIGHT_STRIDE_OF_X) {
        int64_t step = a->x.ndim > 1 ? a->x.stride[a->x.ndim - 2] : n;
        return hm_fault_load(w, f * step + k * w->stride[1]);
    }
    return hm_fault_load(w, offset_of(v, w, f, k, MAP_WEIGHT_DENSE, MAP_WEIGHT_UNIT, MAP_WEIGHT_INT32));
}

static double narrowed(const variation_t *v, hm_dtype T, double value, bool weight) {
    switch (v->operands) {
        case OPERANDS_TF32: /* rounded to 10 bits of fraction */
            if (T != HM_F32 || !isfinite(value) || value == 0) return value;
            return ldexp(nearbyint(ldexp(value, 10 - ilogb(value))), ilogb(value) - 10);
        case OPERANDS_BF16:
            return hm_round_to(HM_BF16, value);
        case OPERANDS_X_BF16:
            return weight ? value : hm_round_to(HM_BF16, value);
        case OPERANDS_WEIGHT_BF16:
            return weight ? hm_round_to(HM_BF16, value) : value;
        case OPERANDS_WEIGHT_F16:
            return weight ? hm_round_to(HM_F16, value) : value;
        case OPERANDS_TRUNCATED:
            return T == HM_F32 ? hm_fault_toward_zero(HM_BF16, value) : value;
        case OPERANDS_FLUSHED:
            return fabs(value) < hm_dtype_min_normal(T) ? 0 : value;
        default:
            return value;
    }
}

static double step(const variation_t *v, double sum, double t, int64_t k, double *part) {
    switch (v->sum) {
        case SUM_F16:
            return hm_round_to(HM_F16, sum + t);
        case SUM_BF16:
            return hm_round_to(HM_BF16, sum + t);
        case SUM_BF16_64:
            return k % 64 == 63 ? hm_round_to(HM_BF16, sum + t) : sum + t;
        case SUM_F16_64:
            return k % 64 == 63 ? hm_round_to(HM_F16, sum + t) : sum + t;
        case SUM_PRODUCTS_BF16:
            return sum + hm_round_to(HM_BF16, t);
        case SUM_SPLIT:
        case SUM_SPLIT_F16:
            part[k % 4] += t;
            return sum;
        default:
            return sum + t;
    }
}

static double product(const variation_t *v, const hm_linear_args *a, const double *x, int64_t f) {
    int64_t n = a->weight.shape[1], end = n, begin = v->terms == TERMS_WITHOUT_FIRST;
    double sum = 0, part[4] = {0};
    if (v->terms == TERMS_WITHOUT_TAIL_8) end -= end % 8;
    if (v->terms == TERMS_WITHOUT_TAIL_64) end -= end % 64;
    if (v->terms == TERMS_WITHOUT_LAST) end--;
    for (int64_t k = begin; k < end; k++) {
        bool second = k >= 64 && k < 128;
        if (second && v->terms == TERMS_WITHOUT_SECOND_64) continue;
        double p = narrowed(v, a->x.dtype, x[v->terms == TERMS_REVERSED ? n - 1 - k : k], false);
        if (p == 0 && v->terms == TERMS_NO_ZEROS) continue;
        double t = p * narrowed(v, a->weight.dtype, weight_at(v, a, f, k), true);
        sum = step(v, sum, t, k, part);
        if (second && v->terms == TERMS_SECOND_64_TWICE) sum = step(v, sum, t, k, part);
    }
    if (v->terms == TERMS_ONE_MORE && n)
        sum += x[n - 1] * hm_fault_load(&a->weight, hm_fault_row_offset(&a->weight, f) + n * a->weight.stride[1]);
    for (int i = 0; i < 4; i++)
        sum += v->sum == SUM_SPLIT       ? hm_round_to(HM_BF16, part[i])
               : v->sum == SUM_SPLIT_F16 ? hm_round_to(HM_F16, part[i])
                                         : part[i];
    return sum;
}

static double with_bias(const variation_t *v, const hm_linear_args *a, double sum, int64_t row, int64_t f) {
    const hm_tensor *bias = &a->bias;
    if (!bias->dtype || v->bias == BIAS_NOT || (v->bias == BIAS_FIRST_ROW && row)) return sum;
    if (v->bias == BIAS_NOT_ALONE && a->weight.shape[1] == 0) return sum;
    if (v->bias == BIAS_OF_ROW) f = row % bias->shape[0];
    if (v->bias == BIAS_OF_FIRST) f = 0;
    double b = hm_fault_load(bias, f * (v->bias == BIAS_UNIT ? 1 : bias->stride[0]));
    if (v->bias == BIAS_BF16) b = hm_round_to(HM_BF16, b);
    if (v->bias == BIAS_AFTER_ROUNDING) sum = hm_round_to(a->out.dtype, sum);
    return v->bias == BIAS_TWICE ? sum + 2 * b : v->bias == BIAS_SUBTRACTED ? sum - b : sum + b;
}

static double stored(const variation_t *v, const hm_linear_args *a, double y, int64_t at) {
    hm_dtype O = a->out.dtype;
    switch (v->out) {
        case OUT_TRUNCATED:
            return hm_fault_toward_zero(O, y);
        case OUT_TIES_AWAY:
            return hm_fault_ties_away(O, y);
        case OUT_BF16:
            return hm_round_to(HM_BF16, y);
        case OUT_F16:
            return hm_round_to(HM_F16, y);
        case OUT_AS_T:
            return hm_round_to(a->x.dtype, y);
        case OUT_SATURATES:
            return isnan(y) ? y : isinf(y) ? copysign(hm_dtype_max(O), y) : hm_fault_saturated(O, y);
        case OUT_NAN_ZERO:
            return isnan(y) ? 0 : y;
        case OUT_NEGATIVE_ZERO:
            return y < 0 ? 0 : y;
        case OUT_ACCUMULATES:
            return y + hm_fault_load(&a->out, at);
        default:
            return y;
    }
}

static void one_row(const variation_t *v, const hm_linear_args *a, int64_t row, double *x) {
    const hm_tensor *out = &a->out;
    int64_t n = a->weight.shape[1], features = a->weight.shape[0], end = features;
    int64_t from = v->map == MAP_X_FIRST_ROW ? 0 : row;
    for (int64_t k = 0; k < n; k++)
        x[k] = hm_fault_load(&a->x, offset_of(v, &a->x, from, k, MAP_X_DENSE, MAP_X_UNIT, MAP_X_INT32));
    if (v->range == RANGE_WITHOUT_LAST_FEATURE) end--;
    if (v->range == RANGE_FEATURES_16) end -= end % 16;
    if (v->range == RANGE_ONE_PAST) end++;
    if (v->range == RANGE_NONE || (v->out == OUT_STALE_EMPTY && n == 0)) end = 0;
    for (int64_t i = 0; i < end; i++) {
        int64_t f = i < features ? i : features - 1;
        int64_t at = offset_of(v, out, row, i, MAP_OUT_DENSE, MAP_OUT_UNIT, MAP_OUT_INT32);
        double y = stored(v, a, with_bias(v, a, product(v, a, x, f), row, f), at);
        hm_fault_store_row(out, at, 1, 1, HM_FAULT_SLACK, &y);
        if (v->effect == EFFECT_X_OVERWRITTEN && n)
            hm_fault_store_row(&a->x, hm_fault_row_offset(&a->x, row), 1, 1, 0, &y);
    }
}

static hm_status run(const void *variation, const void *args, hm_dtype written[HM_MAX_ARGS]) {
    const variation_t *v = variation;
    hm_linear_args a;
    hm_status status;
    if (hm_fault_checked(OP, v->checks, args, &status)) return status;
    hm_linear_read(args, &a);
    if (!hm_tensor_elements(&a.out)) return v->effect == EFFECT_EMPTY_REFUSED ? HM_BAD_SHAPE : HM_OK;
    int64_t rows = hm_fault_rows(&a.out) - (v->range == RANGE_WITHOUT_LAST_ROW);
    if (v->range == RANGE_ROWS_64) rows = hm_fault_least(rows, 64);
    double *x = malloc((size_t)(a.weight.shape[1] + 1) * sizeof *x);
    if (!x) return HM_NO_MEMORY;
    for (int64_t row = 0; row < rows; row++) one_row(v, &a, row, x);
    free(x);
    if (v->out == OUT_AS_T) written[hm_fault_arg(OP, "out")] = a.x.dtype;
    return HM_OK;
}

#define FAULT(what, covers, reference, sentence, fix, ...) \
    { OP "." what, OP, covers, reference, sentence, fix, NULL, run, &(const variation_t){__VA_ARGS__}, false }

const hm_fault hm_linear_faults[] = {
    FAULT("accumulator_f16", "B3 B4", "llama.cpp#13975", "sums are kept in f16", "accumulate in f32", .sum = SUM_F16),
    FAULT("accumulator_bf16", "", "", "sums are kept in bf16", "accumulate in f32", .sum = SUM_BF16),
    FAULT("blocks_bf16", "", "", "the sum is rounded to bf16 after each 64 products", "keep it in f32",
          .sum = SUM_BF16_64),
    FAULT("blocks_f16", "", "", "the sum is rounded to f16 after each 64 products", "keep it in f32",
          .sum = SUM_F16_64),
    FAULT("split_bf16", "", "", "4 partial sums are rounded to bf16 before they are added", "add them in f32",
          .sum = SUM_SPLIT),
    FAULT("split_f16", "", "", "4 partial sums are rounded to f16 before they are added", "add them in f32",
          .sum = SUM_SPLIT_F16),
    FAULT("products_bf16", "", "", "products are rounded to bf16", "keep them in f32", .sum = SUM_PRODUCTS_BF16),
    FAULT("tf32", "O5", "triton#3498", "f32 operands lose all but 10 bits of fraction", "multiply in f32",
          .operands = OPERANDS_TF32),
    FAULT("operands_bf16", "", "", "operands are rounded to bf16", "multiply what is given", .operands = OPERANDS_BF16),
    FAULT("x_bf16", "", "", "x is rounded to bf16", "multiply what is given", .operands = OPERANDS_X_BF16),
    FAULT("weight_bf16", "", "", "an f32 or f16 weight is rounded to bf16", "keep it",
          .operands = OPERANDS_WEIGHT_BF16),
    FAULT("weight_f16", "", "", "the weight passes through f16", "keep it", .operands = OPERANDS_WEIGHT_F16),
    FAULT("operands_truncated", "", "", "f32 operands lose their lower 16 bits", "convert them",
          .operands = OPERANDS_TRUNCATED),
    FAULT("operands_flushed", "", "", "f16 subnormals are taken for 0", "convert them", .operands = OPERANDS_FLUSHED),
    FAULT("tail_8_missing", "", "", "the last in % 8 products are left out", "treat the tail",
          .terms = TERMS_WITHOUT_TAIL_8),
    FAULT("tail_64_missing", "", "", "the last in % 64 products are left out", "treat the tail",
          .terms = TERMS_WITHOUT_TAIL_64),
    FAULT("last_missing", "", "", "the last product is left out", "fix the bound of the loop",
          .terms = TERMS_WITHOUT_LAST),
    FAULT("first_missing", "", "", "the first product is left out", "start at 0", .terms = TERMS_WITHOUT_FIRST),
    FAULT("block_missing", "", "", "the second block of 64 products is left out", "loop over all blocks",
          .terms = TERMS_WITHOUT_SECOND_64),
    FAULT("block_twice", "", "", "the second block of 64 products is added twice", "loop over each block once",
          .terms = TERMS_SECOND_64_TWICE),
    FAULT("one_more", "", "", "one product too many: with what follows the row", "fix the bound of the loop",
          .terms = TERMS_ONE_MORE),
    FAULT("zeros_skipped", "O2", "candle#3309", "products with a zero of x are skipped, with NaN and infinities too",
          "multiply", .terms = TERMS_NO_ZEROS),
    FAULT("weight_shifted", "", "", "the weight is read one element late", "use the same k", .terms = TERMS_SHIFTED),
    FAULT("x_reversed", "", "", "x is read backward", "use the same k", .terms = TERMS_REVERSED),
    FAULT("bias_dropped", "", "", "the bias is left out", "add it", .bias = BIAS_NOT),
    FAULT("bias_twice", "", "", "the bias is added twice: once a part", "add it once", .bias = BIAS_TWICE),
    FAULT("bias_after_rounding", "", "", "the sum is rounded before the bias is added", "round once",
          .bias = BIAS_AFTER_ROUNDING),
    FAULT("bias_of_row", "", "", "the bias is indexed with the row", "index with the feature", .bias = BIAS_OF_ROW),
    FAULT("bias_of_first", "", "", "every feature has the first feature's bias", "index with the feature",
          .bias = BIAS_OF_FIRST),
    FAULT("bias_bf16", "", "", "an f32 or f16 bias is rounded to bf16", "keep it", .bias = BIAS_BF16),
    FAULT("bias_first_row", "", "", "the bias is added in the first row alone", "add it in each",
          .bias = BIAS_FIRST_ROW),
    FAULT("bias_subtracted", "", "", "the bias is subtracted", "add it", .bias = BIAS_SUBTRACTED),
    FAULT("bias_unit", "", "", "elements of the bias are taken to be neighbours", "use the stride", .bias = BIAS_UNIT),
    FAULT("bias_without_products", "", "", "the bias is left out where in is 0", "add it", .bias = BIAS_NOT_ALONE),
    FAULT("stale_without_products", "E7", "vllm-ascend#6558", "out keeps its old bytes where in is 0",
          "write the bias, or 0", .out = OUT_STALE_EMPTY),
    FAULT("truncated", "I5", "triton#11217", "results are rounded toward zero", "round to nearest",
          .out = OUT_TRUNCATED),
    FAULT("ties_away", "I3", "triton#5925", "ties are rounded away from zero", "round to even", .out = OUT_TIES_AWAY),
    FAULT("result_bf16", "", "", "results pass through bf16", "round once", .out = OUT_BF16),
    FAULT("result_f16", "", "", "results pass through f16", "round once", .out = OUT_F16),
    FAULT("result_as_x", "", "", "out comes back in the dtype of x, though f32 is asked for", "write f32",
          .out = OUT_AS_T),
    FAULT("saturates", "", "", "infinities become the largest value", "let results be infinite", .out = OUT_SATURATES),
    FAULT("nan_as_zero", "", "", "NaN becomes 0", "keep NaN", .out = OUT_NAN_ZERO),
    FAULT("negative_lost", "", "", "negative results become 0", "keep them", .out = OUT_NEGATIVE_ZERO),
    FAULT("accumulates", "", "", "the product is added to what out holds", "overwrite", .out = OUT_ACCUMULATES),
    FAULT("x_dense", "D13", "vllm#16658", "x is read as if it were contiguous", "use the strides", .map = MAP_X_DENSE),
    FAULT("weight_dense", "", "", "the weight is read as if it were contiguous", "use the strides",
          .map = MAP_WEIGHT_DENSE),
    FAULT("out_dense", "", "", "out is written as if it were contiguous", "use the strides", .map = MAP_OUT_DENSE),
    FAULT("x_unit", "", "", "elements of x are taken to be neighbours", "use the stride", .map = MAP_X_UNIT),
    FAULT("weight_unit", "", "", "elements of a row of the weight are taken to be neighbours", "use the stride",
          .map = MAP_WEIGHT_UNIT),
    FAULT("out_unit", "", "", "features of out are taken to be neighbours", "use the stride", .map = MAP_OUT_UNIT),
    FAULT("x_int32", "K5", "vllm#43166", "offsets of x wrap in 32 bits", "compute them in 64 bits", .map = MAP_X_INT32),
    FAULT("weight_int32", "K4", "fla#1080", "offsets of the weight wrap in 32 bits", "compute them in 64 bits",
          .map = MAP_WEIGHT_INT32),
    FAULT("out_int32", "K4 K5", "fla#1080", "offsets of out wrap in 32 bits", "compute them in 64 bits",
          .map = MAP_OUT_INT32),
    FAULT("weight_transposed", "", "", "the weight is read as [in, features]", "it is [features, in]",
          .map = MAP_WEIGHT_TRANSPOSED),
    FAULT("weight_stride_of_x", "D20", "transformers#47331", "the row stride of x is used for the weight",
          "use the weight's", .map = MAP_WEIGHT_STRIDE_OF_X),
    FAULT("x_first_row", "", "", "every row has the first row's result", "advance the pointer", .map = MAP_X_FIRST_ROW),
    FAULT("weight_first_row", "", "", "every feature has the first feature's weight", "advance the pointer",
          .map = MAP_WEIGHT_FIRST_ROW),
    FAULT("weight_next_row", "", "", "each feature has its neighbour's weight", "index with the feature",
          .map = MAP_WEIGHT_NEXT_ROW),
    FAULT("without_last_row", "", "", "the last row is left out", "fix the bound of the loop",
          .range = RANGE_WITHOUT_LAST_ROW),
    FAULT("without_last_feature", "", "", "the last feature is left out", "fix the bound of the loop",
          .range = RANGE_WITHOUT_LAST_FEATURE),
    FAULT("features_16", "", "", "the last features % 16 are left out", "treat the tail", .range = RANGE_FEATURES_16),
    FAULT("rows_64", "", "", "only 64 rows are written", "loop over the rows", .range = RANGE_ROWS_64),
    FAULT("one_past", "", "", "one element past the end of a row is written", "fix the bound of the loop",
          .range = RANGE_ONE_PAST),
    FAULT("nothing_written", "E7", "vllm-ascend#6558", "out keeps its old bytes", "write to out", .range = RANGE_NONE),
    FAULT("x_overwritten", "F5", "unsloth#5001", "x is used as scratch", "leave inputs alone",
          .effect = EFFECT_X_OVERWRITTEN),
    FAULT("empty_refused", "J5", "sglang#32065", "a call without elements is refused", "return ok",
          .effect = EFFECT_EMPTY_REFUSED),
    HM_CHECK_FAULTS(FAULT),
};
const int hm_linear_fault_count = sizeof hm_linear_faults / sizeof *hm_linear_faults;
