/* The bugs of index_weights: an evaluator with a switch at every step, and the table. */
#include <hallmark/index_weights.h>
#include <math.h>

#include "../../op/dtype.h"
#include "../../op/index_weights.h"
#include "common.h"
#include "tables.h"

#define OP "index_weights"

typedef struct {
    enum {
        FACTORS_ALL = 0,
        FACTORS_NO_SCALE,
        FACTORS_NO_DIM,
        FACTORS_NO_HEADS,
        FACTORS_SCALE_TWICE,
        FACTORS_SCALE_INVERSE,
        FACTORS_DIM_128,
        FACTORS_HEADS_64,
        FACTORS_DIM_NO_ROOT,
        FACTORS_HEADS_NO_ROOT,
        FACTORS_HEADS_TWICE,
        FACTORS_ROWS_AS_HEADS
    } factors;
    enum {
        ROUND_AS_DECLARED = 0,
        ROUND_OTHER_ORDER, /* left to right is asked for, and the constants are multiplied first */
        ROUND_ONCE,        /* ... and nothing is rounded on the way */
        ROUND_CONSTANTS_BF16,
        ROUND_SCALE_BF16,
        ROUND_PRODUCT_BF16,
        ROUND_RESULT_BF16,
        ROUND_RESULT_F16,
        ROUND_WEIGHT_BF16,
        ROUND_TRUNCATES
    } round;
    enum { SIGN_KEPT = 0, SIGN_LOST, SIGN_CLAMPED, SIGN_NAN_AS_ZERO } sign;
    enum {
        SCALE_OWN = 0,
        SCALE_OF_FIRST_HEAD,
        SCALE_OF_NEXT_HEAD,
        SCALE_OF_FIRST_ROW,
        SCALE_TRANSPOSED,
        SCALE_EXPONENT_AS_NUMBER /* an e8m0 byte taken for a number */
    } scale;
    enum {
        MAP_AS_GIVEN = 0,
        MAP_WEIGHTS_DENSE,
        MAP_SCALE_DENSE,
        MAP_OUT_DENSE,
        MAP_WEIGHTS_UNIT,
        MAP_SCALE_UNIT,
        MAP_OUT_UNIT,
        MAP_WEIGHTS_INT32,
        MAP_SCALE_INT32,
        MAP_OUT_INT32
    } map;
    enum { ROWS_ALL = 0, ROWS_WITHOUT_LAST, ROWS_OF_FIRST } rows;
    enum {
        EFFECT_NONE = 0,
        EFFECT_WEIGHTS_OVERWRITTEN,
        EFFECT_OUT_BF16,
        EFFECT_ONE_PAST,
        EFFECT_WITHOUT_TAIL,
        EFFECT_EMPTY_REFUSED
    } effect;
    hm_fault_checks checks;
} variation_t;

static int64_t offset_of(const variation_t *v, const hm_tensor *t, int64_t row, int64_t i, int dense, int unit,
                         int int32) {
    int64_t offset = (int)v->map == dense ? row * hm_fault_width(t) : hm_fault_row_offset(t, row);
    offset += i * ((int)v->map == unit ? 1 : t->stride[t->ndim - 1]);
    return (int)v->map == int32 ? hm_fault_in_int32(offset) : offset;
}

static double scale_of(const variation_t *v, const hm_index_weights_args *a, int64_t row, int64_t i) {
    const hm_tensor *t = &a->q_scale;
    int64_t heads = hm_fault_width(&a->weights), flat = row + i * hm_fault_rows(&a->weights);
    if (t->dtype == HM_DTYPE_NONE) return 1;
    if (v->scale == SCALE_OF_FIRST_HEAD) i = 0;
    if (v->scale == SCALE_OF_NEXT_HEAD) i = (i + 1) % heads;
    if (v->scale == SCALE_OF_FIRST_ROW) row = 0;
    if (v->scale == SCALE_TRANSPOSED) row = flat / heads, i = flat % heads;
    int64_t offset = offset_of(v, t, row, i, MAP_SCALE_DENSE, MAP_SCALE_UNIT, MAP_SCALE_INT32);
    if (v->scale == SCALE_EXPONENT_AS_NUMBER && t->dtype == HM_E8M0) {
        uint8_t byte;
        hm_fault_load_raw(t, offset, &byte);
        return byte;
    }
    return hm_fault_load(t, offset);
}

static double rounded(double v) { return hm_round_to(HM_F32, v); }

static double value_of(const variation_t *v, const hm_index_weights_args *a, double w, double s) {
    double D = (double)a->head_dim, H = (double)hm_fault_width(&a->weights);
    double d = D, h = H, t = w * s, y;
    switch (v->factors) {
        case FACTORS_NO_SCALE:
            t = w;
            break;
        case FACTORS_NO_DIM:
            d = 1;
            break;
        case FACTORS_NO_HEADS:
            h = 1;
            break;
        case FACTORS_SCALE_TWICE:
            t = w * s * s;
            break;
        case FACTORS_SCALE_INVERSE:
            t = w / s;
            break;
        case FACTORS_DIM_128:
            d = 128;
            break;
        case FACTORS_HEADS_64:
            h = 64;
            break;
        case FACTORS_DIM_NO_ROOT:
            d = D * D;
            break;
        case FACTORS_HEADS_NO_ROOT:
            h = H * H;
            break;
        case FACTORS_HEADS_TWICE:
            d = H;
            break;
        case FACTORS_ROWS_AS_HEADS:
            h = (double)hm_fault_rows(&a->weights);
            break;
        default:
            break;
    }
    double of_dim = rounded(1 / sqrt(d)), of_heads = rounded(1 / sqrt(h));
    if (v->round == ROUND_CONSTANTS_BF16)
        of_dim = hm_round_to(HM_BF16, of_dim), of_heads = hm_round_to(HM_BF16, of_heads);
    if (v->round == ROUND_PRODUCT_BF16) t = hm_round_to(HM_BF16, t);
    bool in_order = a->order == HM_WEIGHTS_L2R || v->round == ROUND_CONSTANTS_BF16;
    if (in_order && v->round == ROUND_OTHER_ORDER) y = rounded(t) * rounded(of_dim * of_heads);
    else if (in_order && v->round != ROUND_ONCE) y = rounded(rounded(t) * of_dim) * of_heads;
    else y = t / sqrt(d * h);
    if (v->sign == SIGN_LOST) y = fabs(y);
    if (v->sign == SIGN_CLAMPED && y < 0) y = 0;
    if (v->sign == SIGN_NAN_AS_ZERO && isnan(y)) y = 0;
    if (v->round == ROUND_RESULT_BF16) y = hm_round_to(HM_BF16, y);
    if (v->round == ROUND_RESULT_F16) y = hm_round_to(HM_F16, y);
    if (v->round == ROUND_TRUNCATES) y = hm_fault_toward_zero(HM_F32, y);
    return y;
}

static void one_row(const variation_t *v, const hm_index_weights_args *a, int64_t row) {
    int64_t heads = hm_fault_width(&a->weights), n = heads, from = v->rows == ROWS_OF_FIRST ? 0 : row;
    if (v->effect == EFFECT_WITHOUT_TAIL) n -= n % 8;
    if (v->effect == EFFECT_ONE_PAST) n++;
    for (int64_t i = 0; i < n; i++) {
        int64_t k = i < heads ? i : heads - 1;
        int64_t at = offset_of(v, &a->weights, from, k, MAP_WEIGHTS_DENSE, MAP_WEIGHTS_UNIT, MAP_WEIGHTS_INT32);
        double w = hm_fault_load(&a->weights, at), s = scale_of(v, a, from, k);
        if (v->round == ROUND_WEIGHT_BF16) w = hm_round_to(HM_BF16, w);
        if (v->round == ROUND_SCALE_BF16) s = hm_round_to(HM_BF16, s);
        double y = value_of(v, a, w, s);
        hm_fault_store_row(&a->out, offset_of(v, &a->out, row, i, MAP_OUT_DENSE, MAP_OUT_UNIT, MAP_OUT_INT32), 1, 1,
                           HM_FAULT_SLACK, &y);
        if (v->effect == EFFECT_WEIGHTS_OVERWRITTEN) hm_fault_store_row(&a->weights, at, 1, 1, 0, &y);
    }
}

static hm_status run(const void *variation, const void *args, hm_dtype written[HM_MAX_ARGS]) {
    const variation_t *v = variation;
    hm_index_weights_args a;
    hm_status status;
    if (hm_fault_checked(OP, v->checks, args, &status)) return status;
    hm_index_weights_read(args, &a);
    if (!hm_tensor_elements(&a.weights)) return v->effect == EFFECT_EMPTY_REFUSED ? HM_BAD_SHAPE : HM_OK;
    int64_t rows = hm_fault_rows(&a.weights);
    for (int64_t row = 0; row < rows - (v->rows == ROWS_WITHOUT_LAST); row++) one_row(v, &a, row);
    if (v->effect == EFFECT_OUT_BF16) written[hm_fault_arg(OP, "out")] = HM_BF16;
    return HM_OK;
}

#define FAULT(what, covers, reference, sentence, fix, ...) \
    { OP "." what, OP, covers, reference, sentence, fix, NULL, run, &(const variation_t){__VA_ARGS__}, false }

const hm_fault hm_index_weights_faults[] = {
    FAULT("scale_dropped", "", "", "the scale of the query is not folded in", "multiply by it",
          .factors = FACTORS_NO_SCALE),
    FAULT("scale_twice", "", "", "the scale is folded in twice", "multiply once", .factors = FACTORS_SCALE_TWICE),
    FAULT("scale_inverse", "H17", "vllm-xpu-kernels#475", "divided by the scale", "multiply",
          .factors = FACTORS_SCALE_INVERSE),
    FAULT("head_dim_dropped", "", "", "head_dim^-1/2 is missing", "multiply by it", .factors = FACTORS_NO_DIM),
    FAULT("heads_dropped", "", "", "heads^-1/2 is missing", "multiply by it", .factors = FACTORS_NO_HEADS),
    FAULT("head_dim_128", "", "", "128, whatever head_dim is", "use the argument", .factors = FACTORS_DIM_128),
    FAULT("heads_64", "", "", "64, whatever the number of heads is", "use the shape", .factors = FACTORS_HEADS_64),
    FAULT("head_dim_without_root", "", "", "divided by head_dim, not by its root", "take the root",
          .factors = FACTORS_DIM_NO_ROOT),
    FAULT("heads_without_root", "", "", "divided by the number of heads, not by its root", "take the root",
          .factors = FACTORS_HEADS_NO_ROOT),
    FAULT("heads_for_head_dim", "", "", "the number of heads stands in for head_dim", "use the argument",
          .factors = FACTORS_HEADS_TWICE),
    FAULT("tokens_for_heads", "", "", "the number of tokens stands in for that of heads", "use the last extent",
          .factors = FACTORS_ROWS_AS_HEADS),
    FAULT("constants_folded", "", "", "left to right was asked for, and the constants are multiplied first",
          "keep the order", .round = ROUND_OTHER_ORDER),
    FAULT("rounded_once", "", "", "left to right was asked for, and only the result is rounded", "round each product",
          .round = ROUND_ONCE),
    FAULT("constants_bf16", "", "", "the roots are rounded to bf16", "keep f32", .round = ROUND_CONSTANTS_BF16),
    FAULT("scale_bf16", "", "", "the scale is rounded to bf16", "keep f32", .round = ROUND_SCALE_BF16),
    FAULT("product_bf16", "", "", "weight times scale is rounded to bf16", "keep f32", .round = ROUND_PRODUCT_BF16),
    FAULT("result_bf16", "", "", "the result passes through bf16", "keep f32", .round = ROUND_RESULT_BF16),
    FAULT("result_f16", "", "", "the result passes through f16", "keep f32", .round = ROUND_RESULT_F16),
    FAULT("weight_bf16", "", "", "an f32 or f16 weight is rounded to bf16", "keep it", .round = ROUND_WEIGHT_BF16),
    FAULT("truncated", "", "", "results are rounded toward zero", "round to nearest", .round = ROUND_TRUNCATES),
    FAULT("sign_lost", "", "", "weights lose their sign", "keep it", .sign = SIGN_LOST),
    FAULT("negative_clamped", "", "", "negative weights become 0", "keep them", .sign = SIGN_CLAMPED),
    FAULT("nan_as_zero", "", "", "NaN becomes 0", "keep NaN", .sign = SIGN_NAN_AS_ZERO),
    FAULT("scale_first_head", "", "", "every head has the first head's scale", "index with the head",
          .scale = SCALE_OF_FIRST_HEAD),
    FAULT("scale_next_head", "", "", "each head has its neighbour's scale", "index with the head",
          .scale = SCALE_OF_NEXT_HEAD),
    FAULT("scale_first_row", "", "", "every token has the first token's scales", "advance the pointer",
          .scale = SCALE_OF_FIRST_ROW),
    FAULT("scale_transposed", "D20", "transformers#47331", "scales are read column by column", "use the strides",
          .scale = SCALE_TRANSPOSED),
    FAULT("scale_byte_as_number", "", "", "the byte of an exponent is taken for a number", "it is 2^(byte - 127)",
          .scale = SCALE_EXPONENT_AS_NUMBER),
    FAULT("weights_dense", "D13", "vllm#16658", "weights are read as if they were contiguous", "use the strides",
          .map = MAP_WEIGHTS_DENSE),
    FAULT("scale_dense", "", "", "scales are read as if they were contiguous", "use the strides",
          .map = MAP_SCALE_DENSE),
    FAULT("out_dense", "", "", "out is written as if it were contiguous", "use the strides", .map = MAP_OUT_DENSE),
    FAULT("weights_unit", "", "", "heads of weights are taken to be neighbours", "use the stride",
          .map = MAP_WEIGHTS_UNIT),
    FAULT("scale_unit", "", "", "heads of q_scale are taken to be neighbours", "use the stride", .map = MAP_SCALE_UNIT),
    FAULT("out_unit", "", "", "heads of out are taken to be neighbours", "use the stride", .map = MAP_OUT_UNIT),
    FAULT("weights_int32", "K4", "fla#1080", "offsets of weights wrap in 32 bits", "compute them in 64 bits",
          .map = MAP_WEIGHTS_INT32),
    FAULT("scale_int32", "K4", "fla#1080", "offsets of q_scale wrap in 32 bits", "compute them in 64 bits",
          .map = MAP_SCALE_INT32),
    FAULT("out_int32", "K4", "fla#1080", "offsets of out wrap in 32 bits", "compute them in 64 bits",
          .map = MAP_OUT_INT32),
    FAULT("without_last_row", "", "", "the last token is left out", "fix the bound of the loop",
          .rows = ROWS_WITHOUT_LAST),
    FAULT("row_of_first", "", "", "every token has the first token's result", "advance the pointer",
          .rows = ROWS_OF_FIRST),
    FAULT("without_tail", "", "", "the last heads % 8 are left out", "treat the tail", .effect = EFFECT_WITHOUT_TAIL),
    FAULT("one_past", "", "", "one element past the end of a row is written", "fix the bound of the loop",
          .effect = EFFECT_ONE_PAST),
    FAULT("weights_overwritten", "", "", "weights get the result as well", "leave inputs alone",
          .effect = EFFECT_WEIGHTS_OVERWRITTEN),
    FAULT("out_bf16", "", "", "out comes back in bf16", "write f32", .effect = EFFECT_OUT_BF16),
    FAULT("empty_refused", "J5", "sglang#32065", "a call without elements is refused", "return ok",
          .effect = EFFECT_EMPTY_REFUSED),
    FAULT("param_not_checked", "", "", "a head_dim that is no size, or an unknown order, is taken without an error",
          "check it", .checks = HM_CHECKS_NOT_PARAM),
    HM_CHECK_FAULTS(FAULT),
};
const int hm_index_weights_fault_count = sizeof hm_index_weights_faults / sizeof *hm_index_weights_faults;
