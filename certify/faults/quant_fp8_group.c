/* The bugs of quant_fp8_group: an evaluator with a switch at every step, and the table. */
#include <hallmark/quant_fp8_group.h>
#include <math.h>
#include <string.h>

#include "../../op/dtype.h"
#include "../../op/fp8.h"
#include "../../op/quant_fp8_group.h"
#include "common.h"
#include "tables.h"

#define OP "quant_fp8_group"

typedef struct {
    enum {
        AMAX_OF_GROUP = 0,
        AMAX_SIGNED,  /* without the magnitude */
        AMAX_OF_HALF, /* a stage of the reduction is missing */
        AMAX_OF_ROW,
        AMAX_OF_128,      /* groups are 128 wide, whatever group_size says */
        AMAX_OF_PREVIOUS, /* the previous group's */
        AMAX_WITHOUT_LAST,
        AMAX_BF16,
        AMAX_RMS
    } amax;
    enum {
        SCALE_AS_DECLARED = 0,
        SCALE_448, /* whatever the format and the divisor */
        SCALE_240,
        SCALE_256,
        SCALE_LARGEST, /* the format's largest value */
        SCALE_NO_FLOOR,
        SCALE_NO_FLOOR_ZERO_IS_ONE,
        SCALE_OTHER_FLOOR, /* on the scale instead of the magnitude, or the other way round */
        SCALE_FLOOR_ADDED,
        SCALE_NOT_ROUNDED_UP,
        SCALE_ROUNDED_UP, /* although f32 was asked for */
        SCALE_NEAREST,
        SCALE_DOWN,
        SCALE_TWICE, /* a power of two goes up as well */
        SCALE_BF16,
        SCALE_INVERSE,
        SCALE_ONE
    } scale;
    enum {
        STORED_AS_USED = 0,
        STORED_ROUNDED_UP, /* the codes are of the unrounded scale */
        STORED_UNROUNDED,  /* the codes are of the rounded one */
        STORED_TWICE,
        STORED_ZERO_EXPONENT, /* a zero group: 2^-127 */
        STORED_NOT,
        STORED_FIRST_ONLY,
        STORED_TRANSPOSED
    } stored;
    enum {
        CODE_DIVIDED = 0,
        CODE_MULTIPLIED,
        CODE_RECIPROCAL, /* a product with the rounded reciprocal, itself rounded */
        CODE_RECIPROCAL_BF16,
        CODE_QUOTIENT_BF16,
        CODE_QUOTIENT_F16,
        CODE_NEXT_SCALE,
        CODE_UNSCALED
    } code;
    enum {
        ROUND_NEAREST = 0,
        ROUND_TIES_AWAY,
        ROUND_TOWARD_ZERO,
        ROUND_TOP_OCTAVE_SATURATES, /* from 256 on: the largest value */
        ROUND_OTHER_OVERFLOW,
        ROUND_SUBNORMALS_FLUSHED,
        ROUND_NEGATIVE_ZERO_LOST,
        ROUND_NAN_LOST,     /* clamped to the largest value */
        ROUND_OTHER_FORMAT, /* fn for fnuz and the other way round */
        ROUND_CLAMPED_AT_240
    } round;
    enum {
        MAP_AS_GIVEN = 0,
        MAP_X_DENSE,
        MAP_CODES_DENSE,
        MAP_SCALE_DENSE,
        MAP_X_INT32,
        MAP_CODES_INT32,
        MAP_SCALE_INT32
    } map;
    enum { ROWS_ALL = 0, ROWS_WITHOUT_LAST, ROWS_OF_FIRST, ROWS_WITHOUT_LAST_GROUP } rows;
    enum { EFFECT_NONE = 0, EFFECT_SCALE_BF16, EFFECT_INPUT_SCALED, EFFECT_ONE_PAST, EFFECT_EMPTY_REFUSED } effect;
    hm_fault_checks checks;
} variation_t;

typedef struct {
    const variation_t *v;
    const hm_quant_fp8_group_args *a; /* completed */
    int64_t n, groups, x_step, code_step, scale_step;
} walk;

static int64_t offset_of(const walk *w, const hm_tensor *t, int64_t row, int dense, int int32) {
    if ((int)w->v->map == dense) return row * hm_fault_width(t);
    int64_t offset = hm_fault_row_offset(t, row);
    return (int)w->v->map == int32 ? hm_fault_in_int32(offset) : offset;
}

static double load_x(const walk *w, int64_t row, int64_t i) {
    int64_t base = offset_of(w, &w->a->x, w->v->rows == ROWS_OF_FIRST ? 0 : row, MAP_X_DENSE, MAP_X_INT32);
    return hm_fault_load(&w->a->x, base + i * w->x_step);
}

static double amax_of(const walk *w, int64_t row, int64_t group) {
    int64_t size = w->a->group_size, first = group * size, end = first + size;
    double amax = 0, squares = 0;
    switch (w->v->amax) {
        case AMAX_OF_HALF:
            end = first + (size + 1) / 2;
            break;
        case AMAX_OF_ROW:
            first = 0, end = w->n;
            break;
        case AMAX_OF_128:
            first = group * 128 % w->n, end = hm_fault_least(first + 128, w->n);
            break;
        case AMAX_OF_PREVIOUS:
            if (group > 0) first -= size, end -= size;
            break;
        case AMAX_WITHOUT_LAST:
            end -= size > 1;
            break;
        default:
            break;
    }
    for (int64_t i = first; i < end; i++) {
        double x = load_x(w, row, i), m = w->v->amax == AMAX_SIGNED ? x : fabs(x);
        if (w->v->amax == AMAX_BF16) m = hm_fault_toward_zero(HM_BF16, m);
        amax = m > amax ? m : amax;
        squares += x * x;
    }
    return w->v->amax == AMAX_RMS ? hm_round_to(HM_F32, 2 * sqrt(squares / (double)size)) : amax;
}

static double power_up(double r) { return r > 0 && r < INFINITY ? hm_two_to(hm_ue8m0_exponent(r, 1)) : r; }

/* *raw gets the scale before it is rounded to a power of two. */
static double scale_of(const walk *w, double amax, double *raw) {
    const hm_quant_fp8_group_args *a = w->a;
    double D = a->divisor, floor_at = a->floor;
    bool on_amax = a->floor_on == HM_FLOOR_AMAX, up = a->scale_format == HM_SCALE_UE8M0;
    switch (w->v->scale) {
        case SCALE_448:
            D = 448;
            break;
        case SCALE_240:
            D = 240;
            break;
        case SCALE_256:
            D = 256;
            break;
        case SCALE_LARGEST:
            D = hm_dtype_max(a->codes.dtype);
            break;
        case SCALE_NO_FLOOR:
        case SCALE_NO_FLOOR_ZERO_IS_ONE:
            floor_at = 0;
            break;
        case SCALE_OTHER_FLOOR:
            on_amax = !on_amax;
            break;
        default:
            break;
    }
    if (w->v->scale == SCALE_FLOOR_ADDED) amax += floor_at;
    else if (on_amax && amax < floor_at) amax = floor_at;
    double r = hm_round_to(HM_F32, amax / D);
    if (!on_amax && r < floor_at && w->v->scale != SCALE_FLOOR_ADDED) r = floor_at;
    if (r == 0 && w->v->scale == SCALE_NO_FLOOR_ZERO_IS_ONE) r = 1;
    *raw = r;
    double S = up ? power_up(r) : r;
    switch (w->v->scale) {
        case SCALE_NOT_ROUNDED_UP:
            return r;
        case SCALE_ROUNDED_UP:
            return power_up(r);
        case SCALE_NEAREST:
            return !up ? S : S / r > 1.5 ? S / 2 : S;
        case SCALE_DOWN:
            return up && S > r ? S / 2 : S;
        case SCALE_TWICE:
            return up && S == r ? 2 * S : S;
        case SCALE_BF16:
            return hm_round_to(HM_BF16, S);
        case SCALE_INVERSE:
            return hm_round_to(HM_F32, 1 / S);
        case SCALE_ONE:
            return 1;
        default:
            return S;
    }
}

static uint8_t code_of(const walk *w, double x, double S) {
    const hm_quant_fp8_group_args *a = w->a;
    hm_dtype F = a->codes.dtype;
    double q = a->divide == HM_QUANT_RECIPROCAL ? x * hm_round_to(HM_F32, 1 / S) : x / S, most = hm_dtype_max(F);
    hm_overflow overflow = a->overflow == HM_FP8_IEEE ? HM_OVERFLOW_IEEE : HM_OVERFLOW_SATURATE;
    switch (w->v->code) {
        case CODE_MULTIPLIED:
            q = x * S;
            break;
        case CODE_RECIPROCAL:
            q = hm_round_to(HM_F32, x * hm_round_to(HM_F32, 1 / S));
            break;
        case CODE_RECIPROCAL_BF16:
            q = x * hm_round_to(HM_BF16, 1 / S);
            break;
        case CODE_QUOTIENT_BF16:
            q = hm_round_to(HM_BF16, q);
            break;
        case CODE_QUOTIENT_F16:
            q = hm_fault_flushed(HM_F16, q);
            break;
        case CODE_NEXT_SCALE:
            q = x / (2 * S);
            break;
        case CODE_UNSCALED:
            q = x;
            break;
        default:
            break;
    }
    switch (w->v->round) {
        case ROUND_TIES_AWAY:
            q = hm_fault_ties_away(F, q);
            break;
        case ROUND_TOWARD_ZERO:
            q = hm_fault_toward_zero(F, q);
            break;
        case ROUND_TOP_OCTAVE_SATURATES:
            if (fabs(q) >= hm_two_to((int)floor(log2(most)))) q = copysign(most, q);
            break;
        case ROUND_OTHER_OVERFLOW:
            overflow = overflow == HM_OVERFLOW_IEEE ? HM_OVERFLOW_SATURATE : HM_OVERFLOW_IEEE;
            break;
        case ROUND_SUBNORMALS_FLUSHED:
            q = fabs(q) < hm_dtype_min_normal(F) ? copysign(0, q) : q;
            break;
        case ROUND_NEGATIVE_ZERO_LOST:
            if (hm_round_to(F, q) == 0) q = 0;
            break;
        case ROUND_NAN_LOST:
            if (isnan(q)) q = most;
            break;
        case ROUND_OTHER_FORMAT:
            F = F == HM_F8E4M3 ? HM_F8E4M3FNUZ : HM_F8E4M3;
            break;
        case ROUND_CLAMPED_AT_240:
            q = q > 240 ? 240 : q < -240 ? -240 : q;
            break;
        default:
            break;
    }
    return hm_store8(F, q, overflow);
}

static void store_scale(const walk *w, int64_t row, int64_t group, double S) {
    const hm_tensor *t = &w->a->scale;
    int64_t at = offset_of(w, t, row, MAP_SCALE_DENSE, MAP_SCALE_INT32) + group * w->scale_step;
    if (w->v->stored == STORED_NOT || (w->v->stored == STORED_FIRST_ONLY && group > 0)) return;
    if (w->v->stored == STORED_TRANSPOSED) {
        int64_t flat = group * hm_fault_rows(t) + row;
        at = hm_fault_row_offset(t, flat / w->groups) + flat % w->groups * w->scale_step;
    }
    hm_fault_store_row(t, at, 1, 1, HM_FAULT_SLACK, &S);
}

static void quantise(const walk *w, int64_t row, int64_t group) {
    const hm_tensor *codes = &w->a->codes;
    double amax = amax_of(w, row, group), raw = amax, S = amax, kept;
    if (amax < INFINITY) S = scale_of(w, amax, &raw);
    kept = S;
    double used = w->v->stored == STORED_ROUNDED_UP ? raw : S;
    if (w->v->stored == STORED_ROUNDED_UP) kept = power_up(raw);
    if (w->v->stored == STORED_UNROUNDED) kept = raw;
    if (w->v->stored == STORED_TWICE) kept = 2 * S;
    if (w->v->stored == STORED_ZERO_EXPONENT && amax == 0) kept = hm_two_to(-127);
    store_scale(w, row, group, kept);
    int64_t base = offset_of(w, codes, row, MAP_CODES_DENSE, MAP_CODES_INT32);
    int64_t extra = w->v->effect == EFFECT_ONE_PAST && group == w->groups - 1;
    for (int64_t k = 0; k < w->a->group_size + extra; k++) {
        int64_t i = group * w->a->group_size + k;
        double x = load_x(w, row, i < w->n ? i : w->n - 1);
        uint8_t code = code_of(w, x, used);
        hm_fault_store_raw(codes, base + i * w->code_step, HM_FAULT_SLACK, &code);
        if (w->v->effect != EFFECT_INPUT_SCALED || i >= w->n) continue;
        double q = x / used;
        hm_fault_store_row(&w->a->x, hm_fault_row_offset(&w->a->x, row) + i * w->x_step, 1, 1, 0, &q);
    }
}

static hm_status run(const void *variation, const void *args, hm_dtype written[HM_MAX_ARGS]) {
    const variation_t *v = variation;
    hm_quant_fp8_group_args a;
    hm_status status;
    if (hm_fault_checked(OP, v->checks, args, &status)) return status;
    hm_quant_fp8_group_read(args, &a);
    if (!hm_tensor_elements(&a.x)) return v->effect == EFFECT_EMPTY_REFUSED ? HM_BAD_SHAPE : HM_OK;
    int last = a.x.ndim - 1;
    walk w = {.v = v, .a = &a, .n = a.x.shape[last], .groups = a.scale.shape[last]};
    w.x_step = a.x.stride[last], w.code_step = a.codes.stride[last], w.scale_step = a.scale.stride[last];
    int64_t rows = hm_fault_rows(&a.x);
    for (int64_t row = 0; row < rows - (v->rows == ROWS_WITHOUT_LAST); row++)
        for (int64_t g = 0; g < w.groups - (v->rows == ROWS_WITHOUT_LAST_GROUP); g++) quantise(&w, row, g);
    if (v->effect == EFFECT_SCALE_BF16) written[hm_fault_arg(OP, "scale")] = HM_BF16;
    return HM_OK;
}

#define FAULT(what, covers, reference, sentence, fix, ...) \
    { OP "." what, OP, covers, reference, sentence, fix, NULL, run, &(const variation_t){__VA_ARGS__}, false }

const hm_fault hm_quant_fp8_group_faults[] = {
    FAULT("scale_rounded_after_use", "H1 H3", "sglang#28418; transformers#47030",
          "codes are made with the f32 scale, and its power of two is stored", "divide by the scale that is stored",
          .stored = STORED_ROUNDED_UP),
    FAULT("scale_stored_unrounded", "H2 H13", "transformers#46763; vllm#49435",
          "codes are made with the power of two, and the unrounded scale is stored", "store the scale that was used",
          .stored = STORED_UNROUNDED),
    FAULT("no_floor", "H6", "kernels-community#680", "a group of zeros has scale 0, and NaN codes", "apply the floor",
          .scale = SCALE_NO_FLOOR),
    FAULT("zero_scale_is_one", "", "", "a group of zeros has scale 1 instead of the floor's", "apply the floor",
          .scale = SCALE_NO_FLOOR_ZERO_IS_ONE),
    FAULT("zero_exponent", "H7", "aiter#4195", "a group of zeros stores the exponent code 0", "apply the floor",
          .stored = STORED_ZERO_EXPONENT),
    FAULT("floor_elsewhere", "trap.12", "",
          "the floor is applied to the scale instead of the magnitude, or the other way round",
          "apply it where the contract says", .scale = SCALE_OTHER_FLOOR),
    FAULT("floor_added", "", "", "the floor is added instead of being a minimum", "take the larger",
          .scale = SCALE_FLOOR_ADDED),
    FAULT("divisor_448", "H8 indexer.S6", "vllm#32976", "divided by 448 where the codes end at 240", "divide by 224",
          .scale = SCALE_448),
    FAULT("divisor_240", "", "", "divided by 240, whatever the format", "use the divisor", .scale = SCALE_240),
    FAULT("divisor_256", "", "", "divided by 256", "use the divisor", .scale = SCALE_256),
    FAULT("divisor_largest", "", "", "divided by the format's largest value where the contract says another",
          "use the divisor", .scale = SCALE_LARGEST),
    FAULT("not_power_of_two", "", "", "the scale is not rounded to a power of two", "round it up",
          .scale = SCALE_NOT_ROUNDED_UP),
    FAULT("always_power_of_two", "", "", "the scale is rounded to a power of two though f32 was asked for",
          "keep the quotient", .scale = SCALE_ROUNDED_UP),
    FAULT("power_nearest", "", "", "the power of two is the nearest one, and the largest codes saturate",
          "round the exponent up", .scale = SCALE_NEAREST),
    FAULT("power_truncated", "", "", "the power of two is rounded down, and the largest codes saturate",
          "round the exponent up", .scale = SCALE_DOWN),
    FAULT("power_above", "", "", "a quotient that is a power of two goes up to the next", "keep it",
          .scale = SCALE_TWICE),
    FAULT("scale_bf16", "", "", "the scale is rounded to bf16", "keep f32", .scale = SCALE_BF16),
    FAULT("scale_inverse", "H17", "vllm-xpu-kernels#475", "the reciprocal is stored", "store the scale",
          .scale = SCALE_INVERSE),
    FAULT("scale_one", "H14", "sglang#20705; vllm#34863", "the scale stays 1", "compute it", .scale = SCALE_ONE),
    FAULT("scale_stored_twice", "", "", "the stored scale is twice the one that was used",
          "store the one that was used", .stored = STORED_TWICE),
    FAULT("scale_not_stored", "", "", "the scale is not written", "write it", .stored = STORED_NOT),
    FAULT("first_scale_only", "trap.4", "", "only the first scale of a row is written", "write one a group",
          .stored = STORED_FIRST_ONLY),
    FAULT("scales_transposed", "D20", "transformers#47331", "scales are written column by column", "use the strides",
          .stored = STORED_TRANSPOSED),
    FAULT("amax_signed", "", "", "the largest value instead of the largest magnitude", "take magnitudes",
          .amax = AMAX_SIGNED),
    FAULT("amax_half", "L1", "vllm#54111", "half of the group does not take part in the maximum",
          "finish the reduction", .amax = AMAX_OF_HALF),
    FAULT("amax_row", "", "", "one maximum for the whole row", "one a group", .amax = AMAX_OF_ROW),
    FAULT("amax_128", "trap.4", "", "groups are 128 wide, whatever was asked for", "use group_size",
          .amax = AMAX_OF_128),
    FAULT("amax_previous", "", "", "the maximum of the group before", "use the group's own", .amax = AMAX_OF_PREVIOUS),
    FAULT("amax_without_last", "", "", "the last element does not take part in the maximum",
          "fix the bound of the loop", .amax = AMAX_WITHOUT_LAST),
    FAULT("amax_bf16", "", "", "the maximum is truncated to bf16", "keep it", .amax = AMAX_BF16),
    FAULT("amax_rms", "", "", "twice the root mean square instead of the maximum", "take the maximum",
          .amax = AMAX_RMS),
    FAULT("multiplied", "H17", "vllm-xpu-kernels#475", "values are multiplied by the scale", "divide",
          .code = CODE_MULTIPLIED),
    FAULT("reciprocal", "", "", "values are multiplied by the reciprocal of the scale where a division is declared",
          "divide: it is one rounding", .code = CODE_RECIPROCAL),
    FAULT("reciprocal_bf16", "", "", "the reciprocal of the scale is rounded to bf16", "keep f32",
          .code = CODE_RECIPROCAL_BF16),
    FAULT("quotient_bf16", "A6 A7", "TensorRT-LLM#14464; vllm#51393", "the quotient is rounded to bf16 before 8 bits",
          "round once", .code = CODE_QUOTIENT_BF16),
    FAULT("quotient_f16", "", "", "the quotient goes through f16, whose subnormals are lost", "round once",
          .code = CODE_QUOTIENT_F16),
    FAULT("code_of_twice_the_scale", "", "", "codes are made with twice the scale",
          "divide by the scale that is stored", .code = CODE_NEXT_SCALE),
    FAULT("unscaled", "H16 I2", "vllm#55670; pytorch#178817", "values are converted without a scale", "divide by it",
          .code = CODE_UNSCALED),
    FAULT("ties_away", "I3", "triton#5925", "ties are rounded away from zero", "round ties to even",
          .round = ROUND_TIES_AWAY),
    FAULT("truncated", "I5", "triton#11217", "codes are rounded toward zero", "round to nearest",
          .round = ROUND_TOWARD_ZERO),
    FAULT("top_octave_saturates", "I1", "sglang#40581", "every magnitude in the top octave becomes the largest",
          "look at the fraction too", .round = ROUND_TOP_OCTAVE_SATURATES),
    FAULT("other_overflow", "I2", "pytorch#178817; ml_dtypes#400",
          "NaN where the largest value is due, or the other way round", "clamp, or do not, as declared",
          .round = ROUND_OTHER_OVERFLOW),
    FAULT("subnormals_flushed", "", "", "subnormal codes become 0", "keep them", .round = ROUND_SUBNORMALS_FLUSHED),
    FAULT("negative_zero_lost", "", "", "-0 and what underflows to it lose their sign", "keep the sign",
          .round = ROUND_NEGATIVE_ZERO_LOST),
    FAULT("nan_lost", "I12", "vllm#38436", "NaN becomes the largest value", "keep NaN", .round = ROUND_NAN_LOST),
    FAULT("other_format", "H9 H10", "vllm#52109; aiter#3807", "codes of the other e4m3 format",
          "ask the tensor for its format", .round = ROUND_OTHER_FORMAT),
    FAULT("clamped_at_240", "", "", "magnitudes are clamped at 240, whatever the format",
          "clamp at the format's largest", .round = ROUND_CLAMPED_AT_240),
    FAULT("x_dense", "D13", "vllm#16658", "x is read as if it were contiguous", "use its strides", .map = MAP_X_DENSE),
    FAULT("codes_dense", "", "", "codes are written as if they were contiguous", "use the strides",
          .map = MAP_CODES_DENSE),
    FAULT("scale_dense", "", "", "scales are written as if they were contiguous", "use the strides",
          .map = MAP_SCALE_DENSE),
    FAULT("x_int32", "K4", "fla#1080", "offsets of x wrap in 32 bits", "compute them in 64 bits", .map = MAP_X_INT32),
    FAULT("codes_int32", "K4", "fla#1080", "offsets of codes wrap in 32 bits", "compute them in 64 bits",
          .map = MAP_CODES_INT32),
    FAULT("scale_int32", "K4", "fla#1080", "offsets of scale wrap in 32 bits", "compute them in 64 bits",
          .map = MAP_SCALE_INT32),
    FAULT("without_last_row", "", "", "the last row is left out", "fix the bound of the loop",
          .rows = ROWS_WITHOUT_LAST),
    FAULT("row_of_first", "", "", "every row is quantised from the first", "advance the pointer",
          .rows = ROWS_OF_FIRST),
    FAULT("without_last_group", "", "", "the last group of a row is left out", "fix the bound of the loop",
          .rows = ROWS_WITHOUT_LAST_GROUP),
    FAULT("scale_written_bf16", "", "", "the scales come back in bf16", "write f32", .effect = EFFECT_SCALE_BF16),
    FAULT("input_scaled", "", "", "x is scaled in place", "leave inputs alone", .effect = EFFECT_INPUT_SCALED),
    FAULT("one_past", "", "", "one code past the end of a row is written", "fix the bound of the loop",
          .effect = EFFECT_ONE_PAST),
    FAULT("empty_refused", "J5", "sglang#32065", "a call without elements is refused", "return ok",
          .effect = EFFECT_EMPTY_REFUSED),
    FAULT("param_not_checked", "", "",
          "a group size that does not divide the row, or a bad number, is taken without an error", "check it",
          .checks = HM_CHECKS_NOT_PARAM),
    HM_CHECK_FAULTS(FAULT),
};
const int hm_quant_fp8_group_fault_count = sizeof hm_quant_fp8_group_faults / sizeof *hm_quant_fp8_group_faults;
