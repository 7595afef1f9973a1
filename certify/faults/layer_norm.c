/* The bugs of layer_norm: an evaluator with a switch at every step, and the table. */
#include <hallmark/layer_norm.h>
#include <math.h>
#include <stdlib.h>

#include "../../op/dtype.h"
#include "../../op/layer_norm.h"
#include "common.h"
#include "tables.h"

#define OP "layer_norm"

typedef struct {
    enum {
        MEAN_OF_ROW = 0,
        MEAN_ZERO, /* an RMS norm */
        MEAN_IN_T,
        MEAN_OF_PADDED, /* divided by the next power of two */
        MEAN_WITHOUT_LAST,
        MEAN_OF_HALF,
        MEAN_OF_FIRST_ROW,
        MEAN_SUM_IN_T /* the accumulator is of T */
    } mean;
    enum {
        VARIANCE_OF_ROW = 0,
        VARIANCE_OF_SAMPLE,      /* divided by n - 1 */
        VARIANCE_ONE_PASS,       /* f32: mean of squares minus square of the mean */
        VARIANCE_MASKED_COUNTED, /* lanes past the end, up to the next power of two, hold (0 - mean)^2 */
        VARIANCE_MASKED_BY_8,
        VARIANCE_NOT_CENTRED,
        VARIANCE_WITHOUT_LAST,
        VARIANCE_OF_HALF,
        VARIANCE_SUM, /* not divided */
        VARIANCE_IN_T,
        VARIANCE_OF_MAGNITUDES, /* the mean distance from the mean, squared */
        VARIANCE_OF_FIRST_ROW,
        VARIANCE_FLOORED /* at 1e-4 */
    } variance;
    enum { EPS_AS_GIVEN = 0, EPS_1E_5, EPS_1E_6, EPS_1E_12, EPS_DROPPED, EPS_OUTSIDE_ROOT, EPS_AS_FLOOR, EPS_IN_T } eps;
    enum { ROOT_EXACT = 0, ROOT_12_BITS, ROOT_IN_T, ROOT_FORGOTTEN, ROOT_EQUAL_ROW_INF } root;
    enum {
        AFFINE_AS_DECLARED = 0,
        AFFINE_NO_WEIGHT,
        AFFINE_NO_BIAS,
        AFFINE_ONE_PLUS,
        AFFINE_BIAS_FIRST, /* (x^ + b) w */
        AFFINE_SWAPPED,    /* weight added, bias multiplied */
        AFFINE_BIAS_NEGATED,
        AFFINE_BIAS_AS_WEIGHT, /* the weight stands in for the bias */
        AFFINE_WEIGHT_IN_T,
        AFFINE_BIAS_IN_T,
        AFFINE_NORM_ROUNDED,    /* RN_T(x^) before the weight */
        AFFINE_PRODUCT_ROUNDED, /* RN_T(x^ w) before the bias */
        AFFINE_WEIGHT_NEXT,
        AFFINE_BIAS_NEXT,
        AFFINE_WEIGHT_UNIT_STRIDE,
        AFFINE_BIAS_UNIT_STRIDE,
        AFFINE_WEIGHT_BYTES_AS_T,
        AFFINE_BIAS_BYTES_AS_T
    } affine;
    enum {
        STORE_NEAREST = 0,
        STORE_TRUNCATES,
        STORE_TIES_AWAY,
        STORE_VIA_BF16,
        STORE_VIA_F16,
        STORE_SATURATES,
        STORE_NAN_AS_ZERO,
        STORE_ZEROS
    } store;
    enum {
        MAP_AS_GIVEN = 0,
        MAP_X_DENSE,
        MAP_X_UNIT,
        MAP_X_LIKE_OUT,
        MAP_X_INT32,
        MAP_OUT_DENSE,
        MAP_OUT_UNIT,
        MAP_OUT_INT32
    } map;
    enum { ROWS_ALL = 0, ROWS_WITHOUT_LAST, ROWS_OF_FIRST } rows;
    enum { COLUMNS_ALL = 0, COLUMNS_WITHOUT_TAIL, COLUMNS_ONE_PAST } columns;
    enum { EFFECT_NONE = 0, EFFECT_X_OVERWRITTEN, EFFECT_X_CENTRED, EFFECT_OUT_F32, EFFECT_EMPTY_REFUSED } effect;
    hm_fault_checks checks;
} variation_t;

typedef struct {
    const variation_t *v;
    const hm_layer_norm_args *a; /* completed */
    hm_dtype T;
    int64_t n;
    double *x, *w, *b; /* [n + 1] each: what is one past the end is the last again */
} walk;

static void load_x(const walk *w, int64_t row) {
    const hm_tensor *x = &w->a->x;
    int64_t offset = hm_fault_row_offset(x, row), step = x->stride[x->ndim - 1];
    if (w->v->map == MAP_X_DENSE) offset = row * w->n;
    if (w->v->map == MAP_X_UNIT) step = 1;
    if (w->v->map == MAP_X_LIKE_OUT) offset = hm_fault_row_offset(&w->a->out, row);
    if (w->v->map == MAP_X_INT32) offset = hm_fault_in_int32(offset);
    hm_fault_load_row(x, offset, step, w->n, w->x);
    w->x[w->n] = w->x[w->n - 1];
}

static int64_t power_of_two_from(int64_t n) {
    int64_t p = 1;
    while (p < n) p *= 2;
    return p;
}

/* Element i goes to lane i % 16, lanes are added pairwise: so that no variation gives the bits of ref. */
enum { LANES = 16 };
static double sum_of(double *lane) {
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++) lane[j] += lane[j + half];
    return lane[0];
}

static double mean_of(const walk *w) {
    int64_t n = w->n, terms = n, count = n;
    double in_T = 0, lane[LANES] = {0};
    switch (w->v->mean) {
        case MEAN_ZERO:
            return 0;
        case MEAN_OF_PADDED:
            count = power_of_two_from(n);
            break;
        case MEAN_WITHOUT_LAST:
            terms = n - (n > 1);
            break;
        case MEAN_OF_HALF:
            terms = count = (n + 1) / 2;
            break;
        default:
            break;
    }
    for (int64_t i = 0; i < terms; i++) {
        lane[i % LANES] += w->x[i];
        if (w->v->mean == MEAN_SUM_IN_T) in_T = hm_round_to(w->T, in_T + w->x[i]);
    }
    double mean = (w->v->mean == MEAN_SUM_IN_T ? in_T : sum_of(lane)) / (double)count;
    return w->v->mean == MEAN_IN_T ? hm_round_to(w->T, mean) : mean;
}

static double one_pass(const walk *w) {
    float sum = 0, squares = 0, n = (float)w->n;
    for (int64_t i = 0; i < w->n; i++) {
        float x = (float)w->x[i];
        sum += x, squares += x * x;
    }
    float mean = sum / n;
    return (double)(squares / n - mean * mean);
}

static double variance_of(const walk *w, double mean) {
    int64_t n = w->n, terms = n, count = n, masked = 0;
    double lane[LANES] = {0}, centre = mean;
    switch (w->v->variance) {
        case VARIANCE_ONE_PASS:
            return one_pass(w);
        case VARIANCE_OF_SAMPLE:
            count = n - 1;
            break;
        case VARIANCE_MASKED_COUNTED:
            masked = power_of_two_from(n) - n;
            break;
        case VARIANCE_MASKED_BY_8:
            masked = (8 - n % 8) % 8;
            break;
        case VARIANCE_NOT_CENTRED:
            centre = 0;
            break;
        case VARIANCE_WITHOUT_LAST:
            terms = n - (n > 1);
            break;
        case VARIANCE_OF_HALF:
            terms = (n + 1) / 2;
            break;
        case VARIANCE_SUM:
            count = 1;
            break;
        default:
            break;
    }
    for (int64_t i = 0; i < terms; i++) {
        double d = w->x[i] - centre;
        lane[i % LANES] += w->v->variance == VARIANCE_OF_MAGNITUDES ? fabs(d) : d * d;
    }
    lane[0] += (double)masked * mean * mean;
    double v = sum_of(lane) / (double)count;
    if (w->v->variance == VARIANCE_OF_MAGNITUDES) v *= v;
    if (w->v->variance == VARIANCE_FLOORED && v < 1e-4) v = 1e-4;
    return w->v->variance == VARIANCE_IN_T ? hm_round_to(w->T, v) : v;
}

static double root_of(const walk *w, double variance) {
    double eps = (double)(float)w->a->eps, rs;
    switch (w->v->eps) {
        case EPS_1E_5:
            eps = (double)1e-5f;
            break;
        case EPS_1E_6:
            eps = (double)1e-6f;
            break;
        case EPS_1E_12:
            eps = (double)1e-12f;
            break;
        case EPS_DROPPED:
            eps = 0;
            break;
        case EPS_IN_T:
            eps = hm_round_to(w->T, eps);
            break;
        default:
            break;
    }
    if (w->v->eps == EPS_OUTSIDE_ROOT) rs = 1 / (sqrt(variance) + eps);
    else if (w->v->eps == EPS_AS_FLOOR) rs = 1 / sqrt(variance > eps ? variance : eps);
    else rs = 1 / sqrt(variance + eps);
    switch (w->v->root) {
        case ROOT_12_BITS:
            return rs * (1 + 0x1p-12);
        case ROOT_IN_T:
            return hm_round_to(w->T, rs);
        case ROOT_FORGOTTEN:
            return rs * rs;
        case ROOT_EQUAL_ROW_INF:
            return variance == 0 ? INFINITY : rs;
        default:
            return rs;
    }
}

/* weight or bias, as the variation sees it. */
static void load_channels(const walk *w, const hm_tensor *t, double absent, bool next, bool unit, bool bytes, bool in_T,
                          double *to) {
    for (int64_t i = 0; i <= w->n; i++) {
        int64_t k = (i + next) % w->n;
        to[i] = absent;
        if (t->dtype == HM_DTYPE_NONE) continue;
        if (bytes && t->dtype != w->T) to[i] = hm_fault_load_bytes_as(t, k * (int64_t)hm_dtype_size(w->T), w->T);
        else to[i] = hm_fault_load(t, unit ? k : k * t->stride[0]);
        if (in_T) to[i] = hm_round_to(w->T, to[i]);
    }
}

static double affine(const walk *w, double y, double weight, double bias) {
    switch (w->v->affine) {
        case AFFINE_NO_WEIGHT:
            return y + bias;
        case AFFINE_NO_BIAS:
            return y * weight;
        case AFFINE_ONE_PLUS:
            return y * (1 + weight) + bias;
        case AFFINE_BIAS_FIRST:
            return (y + bias) * weight;
        case AFFINE_SWAPPED:
            return y * bias + weight;
        case AFFINE_BIAS_NEGATED:
            return y * weight - bias;
        case AFFINE_BIAS_AS_WEIGHT:
            return y * weight + weight;
        case AFFINE_NORM_ROUNDED:
            return hm_round_to(w->T, y) * weight + bias;
        case AFFINE_PRODUCT_ROUNDED:
            return hm_round_to(w->T, y * weight) + bias;
        default:
            return y * weight + bias;
    }
}

static double stored(const walk *w, double y) {
    switch (w->v->store) {
        case STORE_TRUNCATES:
            return hm_fault_toward_zero(w->T, y);
        case STORE_TIES_AWAY:
            return hm_fault_ties_away(w->T, y);
        case STORE_VIA_BF16:
            return hm_round_to(HM_BF16, y);
        case STORE_VIA_F16:
            return hm_round_to(HM_F16, y);
        case STORE_SATURATES:
            return hm_fault_saturated(w->T, y);
        case STORE_NAN_AS_ZERO:
            return isnan(y) ? 0 : y;
        case STORE_ZEROS:
            return 0;
        default:
            return y;
    }
}

static void one_row(const walk *w, int64_t row, const double *first_row) {
    const hm_tensor *x = &w->a->x, *out = &w->a->out;
    load_x(w, w->v->rows == ROWS_OF_FIRST ? 0 : row);
    double mean = w->v->mean == MEAN_OF_FIRST_ROW ? first_row[0] : mean_of(w);
    double variance = w->v->variance == VARIANCE_OF_FIRST_ROW ? first_row[1] : variance_of(w, mean);
    double rs = root_of(w, variance);
    int64_t n = w->n, offset = hm_fault_row_offset(out, row), step = out->stride[out->ndim - 1];
    if (w->v->columns == COLUMNS_WITHOUT_TAIL) n -= n % 8;
    if (w->v->columns == COLUMNS_ONE_PAST) n++;
    if (w->v->map == MAP_OUT_DENSE) offset = row * w->n;
    if (w->v->map == MAP_OUT_UNIT) step = 1;
    if (w->v->map == MAP_OUT_INT32) offset = hm_fault_in_int32(offset);
    for (int64_t i = 0; i < n; i++) {
        double centred = w->x[i] - mean;
        w->x[i] = stored(w, affine(w, centred * rs, w->w[i], w->b[i]));
        if (w->v->effect == EFFECT_X_CENTRED)
            hm_fault_store_row(x, hm_fault_row_offset(x, row) + i * x->stride[x->ndim - 1], 1, 1, 0, &centred);
    }
    hm_fault_store_row(out, offset, step, n, HM_FAULT_SLACK, w->x);
    if (w->v->effect == EFFECT_X_OVERWRITTEN)
        hm_fault_store_row(x, hm_fault_row_offset(x, row), x->stride[x->ndim - 1], n, 0, w->x);
}

static hm_status run(const void *variation, const void *args, hm_dtype written[HM_MAX_ARGS]) {
    const variation_t *v = variation;
    hm_layer_norm_args a;
    hm_status status;
    if (hm_fault_checked(OP, v->checks, args, &status)) return status;
    hm_layer_norm_read(args, &a);
    if (!hm_tensor_elements(&a.x)) return v->effect == EFFECT_EMPTY_REFUSED ? HM_BAD_SHAPE : HM_OK;
    int64_t n = a.x.shape[a.x.ndim - 1], rows = hm_fault_rows(&a.x);
    walk w = {.v = v, .a = &a, .T = a.x.dtype, .n = n};
    w.x = malloc((size_t)(n + 1) * 3 * sizeof *w.x);
    if (!w.x) return HM_NO_MEMORY;
    w.w = w.x + n + 1, w.b = w.w + n + 1;
    load_channels(&w, &a.weight, 1, v->affine == AFFINE_WEIGHT_NEXT, v->affine == AFFINE_WEIGHT_UNIT_STRIDE,
                  v->affine == AFFINE_WEIGHT_BYTES_AS_T, v->affine == AFFINE_WEIGHT_IN_T, w.w);
    load_channels(&w, &a.bias, 0, v->affine == AFFINE_BIAS_NEXT, v->affine == AFFINE_BIAS_UNIT_STRIDE,
                  v->affine == AFFINE_BIAS_BYTES_AS_T, v->affine == AFFINE_BIAS_IN_T, w.b);
    load_x(&w, 0);
    double first_row[2];
    first_row[0] = mean_of(&w), first_row[1] = variance_of(&w, first_row[0]);
    for (int64_t row = 0; row < rows - (v->rows == ROWS_WITHOUT_LAST); row++) one_row(&w, row, first_row);
    free(w.x);
    if (v->effect == EFFECT_OUT_F32) written[hm_fault_arg(OP, "out")] = HM_F32;
    return HM_OK;
}

#define FAULT(what, covers, reference, sentence, fix, ...) \
    { OP "." what, OP, covers, reference, sentence, fix, NULL, run, &(const variation_t){__VA_ARGS__}, false }

const hm_fault hm_layer_norm_faults[] = {
    FAULT("masked_lanes_counted", "E5", "Liger-Kernel#519; mojo_opset#347",
          "lanes past the end of the row add (0 - mean)^2 to the variance", "mask the difference, not only the load",
          .variance = VARIANCE_MASKED_COUNTED),
    FAULT("masked_lanes_of_vector", "E5", "Liger-Kernel#519; mojo_opset#347",
          "the last vector of a row adds (0 - mean)^2 for what it lacks", "mask the difference, not only the load",
          .variance = VARIANCE_MASKED_BY_8),
    FAULT("one_pass", "", "", "the f32 mean of squares minus the square of the mean: cancels where the mean is large",
          "subtract the mean first, or update as Welford does", .variance = VARIANCE_ONE_PASS),
    FAULT("variance_of_sample", "", "", "the variance is divided by n - 1", "divide by n",
          .variance = VARIANCE_OF_SAMPLE),
    FAULT("rms_norm", "", "", "the mean is not subtracted at all", "this is no RMS norm", .mean = MEAN_ZERO),
    FAULT("variance_not_centred", "", "", "the mean square stands in for the variance", "subtract the mean",
          .variance = VARIANCE_NOT_CENTRED),
    FAULT("variance_sum", "", "", "the sum of squares is not divided", "divide by n", .variance = VARIANCE_SUM),
    FAULT("variance_in_T", "", "", "the variance is rounded to the dtype of x", "keep f32", .variance = VARIANCE_IN_T),
    FAULT("variance_of_magnitudes", "", "", "the mean distance from the mean stands in for the deviation",
          "take squares", .variance = VARIANCE_OF_MAGNITUDES),
    FAULT("variance_without_last", "", "", "the last element takes no part in the variance",
          "fix the bound of the loop", .variance = VARIANCE_WITHOUT_LAST),
    FAULT("variance_half", "", "", "half of the row takes part in the variance", "finish the reduction",
          .variance = VARIANCE_OF_HALF),
    FAULT("variance_first_row", "", "", "every row has the first row's variance", "one a row",
          .variance = VARIANCE_OF_FIRST_ROW),
    FAULT("variance_floored", "", "", "small variances are raised to 1e-4", "add eps, no more",
          .variance = VARIANCE_FLOORED),
    FAULT("mean_in_T", "", "", "the mean is rounded to the dtype of x", "keep f32", .mean = MEAN_IN_T),
    FAULT("mean_sum_in_T", "", "", "the sum for the mean is kept in the dtype of x", "keep f32", .mean = MEAN_SUM_IN_T),
    FAULT("mean_of_padded", "E5", "Liger-Kernel#519", "the mean is divided by the padded width", "divide by n",
          .mean = MEAN_OF_PADDED),
    FAULT("mean_without_last", "", "", "the last element takes no part in the mean", "fix the bound of the loop",
          .mean = MEAN_WITHOUT_LAST),
    FAULT("mean_half", "", "", "the mean is that of half the row", "finish the reduction", .mean = MEAN_OF_HALF),
    FAULT("mean_first_row", "", "", "every row has the first row's mean", "one a row", .mean = MEAN_OF_FIRST_ROW),
    FAULT("eps_1e_5", "", "", "eps is 1e-5, whatever was asked for", "use the argument", .eps = EPS_1E_5),
    FAULT("eps_1e_6", "", "", "eps is 1e-6, whatever was asked for", "use the argument", .eps = EPS_1E_6),
    FAULT("eps_1e_12", "", "", "eps is 1e-12, whatever was asked for", "use the argument", .eps = EPS_1E_12),
    FAULT("eps_dropped", "", "", "eps is not added", "add it", .eps = EPS_DROPPED),
    FAULT("eps_outside_root", "", "", "eps is added to the root", "add it to the variance", .eps = EPS_OUTSIDE_ROOT),
    FAULT("eps_as_floor", "", "", "the variance is raised to eps instead of eps being added", "add it",
          .eps = EPS_AS_FLOOR),
    FAULT("eps_in_T", "", "", "eps is rounded to the dtype of x", "keep f32", .eps = EPS_IN_T),
    FAULT("root_12_bits", "", "", "an approximate reciprocal root without a Newton step", "refine it",
          .root = ROOT_12_BITS),
    FAULT("root_in_T", "", "", "the reciprocal root is rounded to the dtype of x", "keep f32", .root = ROOT_IN_T),
    FAULT("root_forgotten", "", "", "divided by the variance, not by its root", "take the root",
          .root = ROOT_FORGOTTEN),
    FAULT("equal_row_nan", "", "", "a row of equal elements is NaN", "0 / sqrt(eps) is 0", .root = ROOT_EQUAL_ROW_INF),
    FAULT("weight_ignored", "", "", "the weight is not multiplied", "multiply", .affine = AFFINE_NO_WEIGHT),
    FAULT("bias_ignored", "", "", "the bias is not added", "add it", .affine = AFFINE_NO_BIAS),
    FAULT("one_plus_weight", "", "", "1 + weight stands in for the weight", "multiply by the weight",
          .affine = AFFINE_ONE_PLUS),
    FAULT("bias_before_weight", "", "", "the bias is added before the weight is multiplied", "multiply first",
          .affine = AFFINE_BIAS_FIRST),
    FAULT("weight_and_bias_swapped", "", "", "the weight is added and the bias multiplied", "swap them back",
          .affine = AFFINE_SWAPPED),
    FAULT("bias_negated", "", "", "the bias is subtracted", "add it", .affine = AFFINE_BIAS_NEGATED),
    FAULT("weight_as_bias", "", "", "the weight is added as well", "add the bias", .affine = AFFINE_BIAS_AS_WEIGHT),
    FAULT("weight_in_T", "", "", "an f32 weight is rounded to the dtype of x", "keep it", .affine = AFFINE_WEIGHT_IN_T),
    FAULT("bias_in_T", "", "", "an f32 bias is rounded to the dtype of x", "keep it", .affine = AFFINE_BIAS_IN_T),
    FAULT("norm_rounded", "", "", "the normalised value is rounded before the weight is multiplied", "round once",
          .affine = AFFINE_NORM_ROUNDED),
    FAULT("product_rounded", "", "", "the product is rounded before the bias is added", "round once",
          .affine = AFFINE_PRODUCT_ROUNDED),
    FAULT("weight_next", "", "", "each element has its neighbour's weight", "index with i",
          .affine = AFFINE_WEIGHT_NEXT),
    FAULT("bias_next", "", "", "each element has its neighbour's bias", "index with i", .affine = AFFINE_BIAS_NEXT),
    FAULT("weight_dense", "", "", "the weight is read as if it were contiguous", "use its stride",
          .affine = AFFINE_WEIGHT_UNIT_STRIDE),
    FAULT("bias_dense", "", "", "the bias is read as if it were contiguous", "use its stride",
          .affine = AFFINE_BIAS_UNIT_STRIDE),
    FAULT("weight_bytes", "", "", "an f32 weight is read in the dtype of x", "ask the tensor for its dtype",
          .affine = AFFINE_WEIGHT_BYTES_AS_T),
    FAULT("bias_bytes", "", "", "an f32 bias is read in the dtype of x", "ask the tensor for its dtype",
          .affine = AFFINE_BIAS_BYTES_AS_T),
    FAULT("truncated", "", "", "results are rounded toward zero", "round to nearest", .store = STORE_TRUNCATES),
    FAULT("via_bf16", "", "", "results pass through bf16", "round once", .store = STORE_VIA_BF16),
    FAULT("via_f16", "", "", "results pass through f16", "round once", .store = STORE_VIA_F16),
    FAULT("nan_as_zero", "", "", "NaN becomes 0", "keep NaN", .store = STORE_NAN_AS_ZERO),
    FAULT("zeros", "", "", "the output is zeros", "write the result", .store = STORE_ZEROS),
    FAULT("x_dense", "D13", "vllm#16658", "x is read as if its rows were contiguous", "use its strides",
          .map = MAP_X_DENSE),
    FAULT("x_unit", "", "", "the last dimension of x is taken to be contiguous", "use its stride", .map = MAP_X_UNIT),
    FAULT("x_like_out", "", "", "x is read with the strides of out", "use its own", .map = MAP_X_LIKE_OUT),
    FAULT("x_int32", "K4 K5", "fla#1080; vllm#43166", "offsets of x wrap in 32 bits", "compute them in 64 bits",
          .map = MAP_X_INT32),
    FAULT("out_dense", "", "", "out is written as if its rows were contiguous", "use its strides",
          .map = MAP_OUT_DENSE),
    FAULT("out_unit", "", "", "the last dimension of out is taken to be contiguous", "use its stride",
          .map = MAP_OUT_UNIT),
    FAULT("out_int32", "K4", "fla#1080", "offsets of out wrap in 32 bits", "compute them in 64 bits",
          .map = MAP_OUT_INT32),
    FAULT("without_last_row", "", "", "the last row is left out", "fix the bound of the loop",
          .rows = ROWS_WITHOUT_LAST),
    FAULT("row_of_first", "", "", "every row is that of the first", "advance the pointer", .rows = ROWS_OF_FIRST),
    FAULT("without_tail", "", "", "the last hidden % 8 elements are left out", "treat the tail",
          .columns = COLUMNS_WITHOUT_TAIL),
    FAULT("one_past", "", "", "one element past the end of a row is written", "fix the bound of the loop",
          .columns = COLUMNS_ONE_PAST),
    FAULT("x_overwritten", "", "", "x gets the result as well", "leave inputs alone", .effect = EFFECT_X_OVERWRITTEN),
    FAULT("x_centred", "", "", "x is centred in place", "leave inputs alone", .effect = EFFECT_X_CENTRED),
    FAULT("out_f32", "", "", "out comes back in f32", "write the dtype of x", .effect = EFFECT_OUT_F32),
    FAULT("empty_refused", "J5", "sglang#32065", "a call without elements is refused", "return ok",
          .effect = EFFECT_EMPTY_REFUSED),
    FAULT("param_not_checked", "", "", "an eps that is negative, NaN or infinite is taken without an error", "check it",
          .checks = HM_CHECKS_NOT_PARAM),
    HM_CHECK_FAULTS(FAULT),
};
const int hm_layer_norm_fault_count = sizeof hm_layer_norm_faults / sizeof *hm_layer_norm_faults;
