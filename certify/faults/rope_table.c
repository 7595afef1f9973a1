/* Faults of rope_table: the arguments are changed before ref runs on them, the steps go wrong in the engine (mode f32
 * alone; in mode exact such a row does what the contract says), or what comes out is stored wrongly. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../op/check.h"
#include "../../op/dtype.h"
#include "../../op/rope_table.h"
#include "../rope_engine.h"

#define OP "rope_table"

typedef struct {
    hm_rope_way way;
    bool engine;
    enum {
        POSITIONS_RIGHT = 0,
        POSITIONS_BF16,
        POSITIONS_F16,
        POSITIONS_PLUS_1,
        POSITIONS_CLAMPED,
        POSITIONS_16_BITS,
        POSITIONS_ARE_ROWS,
        POSITIONS_T_ONLY,
        POSITIONS_H_W_SWAPPED,
        POSITIONS_UNIT_STRIDE
    } positions;
    enum { SCALE_RIGHT = 0, SCALE_SQUARED, SCALE_IGNORED, SCALE_NO_OVERRIDE, SCALE_NUMERATOR, SCALE_INVERTED } scale;
    enum {
        ARGS_RIGHT = 0,
        ARGS_SCALING_DROPPED,
        ARGS_FACTORS_ONE,
        ARGS_FACTORS_REVERSED,
        ARGS_FACTORS_UNIT_STRIDE,
        ARGS_BASE_10000,
        ARGS_BETAS_SWAPPED,
        ARGS_FRACTION_OTHER,
        ARGS_LONG_D,
        ARGS_EXTRAPOLATION_1,
        ARGS_LAYOUT_OTHER,
        ARGS_PRECISION_OTHER,
        ARGS_FACTOR_INTEGER,
        ARGS_BASE_F16
    } args;
    enum {
        COLUMNS_RIGHT = 0,
        COLUMNS_SIN_FIRST,
        COLUMNS_PAIRED,
        COLUMNS_SIN_NEGATED,
        COLUMNS_SIN_UNSCALED,
        COLUMNS_ROTATED
    } columns;
    enum {
        STORE_NEAREST = 0,
        STORE_TRUNCATES,
        STORE_TIES_AWAY,
        STORE_UPWARD,
        STORE_VIA_BF16,
        STORE_VIA_F16,
        STORE_VIA_F32
    } store;
    enum {
        MAP_RIGHT = 0,
        MAP_DENSE,
        MAP_UNIT_COLUMNS,
        MAP_WITHOUT_LAST_ROW,
        MAP_FIRST_ROW,
        MAP_WITHOUT_LAST_COLUMN,
        MAP_32_COLUMNS
    } map;
    enum {
        EFFECT_NONE = 0,
        EFFECT_OUT_F32,
        EFFECT_POSITIONS_CHANGED,
        EFFECT_FACTORS_CHANGED,
        EFFECT_EMPTY_WRITES,
        EFFECT_EMPTY_REFUSED
    } effect;
    enum { CHECKS_RIGHT = 0, CHECKS_SILENT, CHECKS_LATE } checks;
} variation;

enum { LAST_POSITION = (1 << 24) - 1 };

static int64_t wrong_position(const variation *v, const hm_rope_table_args *a, int axis, int64_t p) {
    if (v->positions == POSITIONS_T_ONLY) axis = 0;
    if (v->positions == POSITIONS_H_W_SWAPPED && axis) axis = 3 - axis;
    if (v->positions == POSITIONS_ARE_ROWS) return p;
    int64_t position = hm_rope_position(a, axis, p);
    if (v->positions == POSITIONS_UNIT_STRIDE && a->positions.dtype)
        position =
            ((const int64_t *)a->positions.data)[p + axis * (a->positions.ndim == 2 ? a->positions.stride[0] : 0)];
    switch (v->positions) {
        case POSITIONS_BF16:
            position = (int64_t)hm_round_to(HM_BF16, (double)position);
            break;
        case POSITIONS_F16:
            position = (int64_t)fmin(hm_round_to(HM_F16, (double)position), 65504);
            break;
        case POSITIONS_PLUS_1:
            position++;
            break;
        case POSITIONS_CLAMPED:
            position = position < 4095 ? position : 4095;
            break;
        case POSITIONS_16_BITS:
            position &= 0xFFFF;
            break;
        default:
            break;
    }
    return position < 0 ? 0 : position > LAST_POSITION ? LAST_POSITION : position;
}

static void set_scale(hm_rope_table_args *b, double scale) {
    b->attention_factor = fmin(fmax(scale, 0x1p-10), 0x1p10);
    b->mscale = b->mscale_all_dim = 0;
}

static void change_scale(const variation *v, hm_rope_table_args *b) {
    double scale = hm_rope_scale(b);
    hm_rope_table_args above = *b;
    above.mscale_all_dim = 0, above.scaling = HM_SCALING_DEEPSEEK_YARN;
    switch (v->scale) {
        case SCALE_RIGHT:
            return;
        case SCALE_SQUARED:
            set_scale(b, scale * scale);
            return;
        case SCALE_IGNORED:
            set_scale(b, 1);
            return;
        case SCALE_NO_OVERRIDE:
            b->attention_factor = 0;
            return;
        case SCALE_NUMERATOR:
            if (b->mscale_all_dim != 0) set_scale(b, hm_rope_scale(&above));
            return;
        case SCALE_INVERTED:
            set_scale(b, 1 / scale);
            return;
    }
}

/* factors: [half], what b->factors becomes */
static void change_args(const variation *v, const hm_rope_table_args *a, hm_rope_table_args *b, float *factors) {
    int64_t half = a->out.shape[1] / 2;
    for (int64_t j = 0; a->factors.dtype && j < half; j++) {
        int64_t from = v->args == ARGS_FACTORS_REVERSED ? half - 1 - j : j,
                stride = v->args == ARGS_FACTORS_UNIT_STRIDE ? 1 : a->factors.stride[0];
        float given = ((const float *)a->factors.data)[from * stride];
        factors[j] = v->args == ARGS_FACTORS_ONE || !(given >= 0x1p-10f && given <= 0x1p20f) ? 1 : given;
    }
    if (a->factors.dtype) b->factors = hm_tensor_of(factors, HM_F32, 1, &half);
    switch (v->args) {
        case ARGS_SCALING_DROPPED:
            if (!a->factors.dtype) b->scaling = HM_SCALING_DEFAULT;
            break;
        case ARGS_BASE_10000:
            b->base = 10000;
            break;
        case ARGS_BASE_F16:
            b->base = fmin(hm_round_to(HM_F16, b->base), 65504);
            break;
        case ARGS_BETAS_SWAPPED:
            b->beta_fast = a->beta_slow, b->beta_slow = a->beta_fast;
            break;
        case ARGS_FRACTION_OTHER:
            b->fraction = !a->fraction;
            break;
        case ARGS_LONG_D:
            if (a->scaling == HM_SCALING_LONGROPE) { /* the allocated length decides */
                if (a->max_position > a->original_max_position) b->original_max_position = a->max_position;
            } else {
                b->original_max_position = (int64_t)fmin((double)a->original_max_position * a->factor, 0x1p40);
            }
            break;
        case ARGS_EXTRAPOLATION_1:
            b->extrapolation_factor = 1;
            break;
        case ARGS_LAYOUT_OTHER:
            b->mrope_layout = !a->mrope_layout;
            break;
        case ARGS_PRECISION_OTHER:
            b->precision = !a->precision;
            break;
        case ARGS_FACTOR_INTEGER:
            b->factor = fmax(floor(a->factor), 1);
            break;
        default:
            break;
    }
}

static double stored(const variation *v, hm_dtype T, double y) {
    double r = hm_round_to(T, y), low = fabs(r) > fabs(y) ? r > 0 ? hm_next_down(T, r) : hm_next_up(T, r) : r;
    double high = y > 0 ? hm_next_up(T, low) : hm_next_down(T, low);
    switch (v->store) {
        case STORE_TRUNCATES:
            return low;
        case STORE_TIES_AWAY:
            return low != y && fabs(y - low) == fabs(high - y) ? high : r;
        case STORE_UPWARD:
            return r < y ? hm_next_up(T, r) : r;
        case STORE_VIA_BF16:
            return hm_round_to(HM_BF16, y);
        case STORE_VIA_F16:
            return hm_round_to(HM_F16, y);
        default:
            return y;
    }
}

/* out[p, j] as v has it; values: [rows, width] */
static double column_of(const variation *v, const double *values, int64_t width, double scale, int64_t p, int64_t j) {
    const double *row = values + p * width;
    int64_t half = width / 2;
    switch (v->columns) {
        case COLUMNS_SIN_FIRST:
            return row[(j + half) % width];
        case COLUMNS_PAIRED:
            return row[j / 2 + j % 2 * half];
        case COLUMNS_SIN_NEGATED:
            return j < half ? row[j] : -row[j];
        case COLUMNS_SIN_UNSCALED:
            return j < half ? row[j] : row[j] / scale;
        case COLUMNS_ROTATED:
            return row[j < half ? (j + 1) % half : half + (j + 1 - half) % half];
        default:
            return row[j];
    }
}

static void write(const variation *v, const hm_rope_table_args *a, const double *values) {
    const hm_tensor *t = &a->out;
    int64_t rows = t->shape[0], width = t->shape[1], size = (int64_t)hm_dtype_size(t->dtype);
    double scale = hm_rope_scale(a);
    if (v->map == MAP_WITHOUT_LAST_ROW) rows--;
    if (v->map == MAP_FIRST_ROW && rows > 1) rows = 1;
    for (int64_t p = 0; p < rows; p++)
        for (int64_t j = 0; j < width; j++) {
            int64_t at = p * t->stride[0] + j * t->stride[1];
            if (v->map == MAP_DENSE) at = p * width + j;
            if (v->map == MAP_UNIT_COLUMNS) at = p * t->stride[0] + j;
            if ((v->map == MAP_WITHOUT_LAST_COLUMN && j == width - 1) || (v->map == MAP_32_COLUMNS && j >= 32))
                continue;
            hm_store(t->dtype, (char *)t->data + at * size,
                     stored(v, t->dtype, column_of(v, values, width, scale, p, j)));
        }
}

/* Values of [rows, width] for changed arguments, in the precision that the store is to see. */
static hm_status compute(const variation *v, const hm_rope_table_args *a, double *values) {
    int64_t rows = a->out.shape[0], width = a->out.shape[1], half = width / 2;
    hm_rope_table_args b = *a;
    int64_t *positions = malloc((size_t)(3 * rows + 1) * sizeof *positions);
    float *factors = malloc((size_t)half * sizeof *factors),
          *table = malloc((size_t)(rows * width + 1) * sizeof *table);
    hm_status status = positions && factors && table ? HM_OK : HM_NO_MEMORY;
    if (!status) {
        bool three = a->positions.dtype && a->positions.ndim == 2;
        for (int axis = 0; axis < (three ? 3 : 1); axis++)
            for (int64_t p = 0; p < rows; p++) positions[axis * rows + p] = wrong_position(v, a, axis, p);
        b.positions = three ? hm_tensor_of(positions, HM_I64, 2, (const int64_t[]){3, rows})
                            : hm_tensor_of(positions, HM_I64, 1, &rows);
        change_args(v, a, &b, factors);
        change_scale(v, &b);
        b.out = hm_tensor_of(table, v->store ? HM_F32 : a->out.dtype, 2, (const int64_t[]){rows, width});
        if (v->engine && a->precision == HM_TABLE_F32) {
            hm_rope_engine(&v->way, &b, values);
        } else {
            status = hm_rope_table_ref(&b);
            hm_load_row(b.out.dtype, table, 1, rows * width, values);
        }
    }
    free(positions);
    free(factors);
    free(table);
    return status;
}

static hm_status run(const void *opaque, const void *args, hm_dtype written[HM_MAX_ARGS]) {
    const variation *v = opaque;
    const hm_rope_table_args *a = args;
    hm_status status = hm_rope_table_check(a);
    if (status) {
        bool small = a && hm_is_float(a->out.dtype) && a->out.data && a->out.ndim == 2 && a->out.shape[0] > 0 &&
                     a->out.shape[1] > 0;
        if (v->checks == CHECKS_LATE && small) hm_store(a->out.dtype, a->out.data, 1);
        return v->checks == CHECKS_SILENT ? HM_OK : status;
    }
    int64_t rows = a->out.shape[0], width = a->out.shape[1];
    if (!rows) {
        if (v->effect == EFFECT_EMPTY_WRITES && a->out.data) hm_store(a->out.dtype, a->out.data, 0);
        return v->effect == EFFECT_EMPTY_REFUSED ? HM_BAD_SHAPE : HM_OK;
    }
    double *values = malloc((size_t)(rows * width) * sizeof *values);
    if (!values) return HM_NO_MEMORY;
    status = compute(v, a, values);
    if (!status) write(v, a, values);
    free(values);
    if (v->effect == EFFECT_OUT_F32 && a->out.dtype != HM_F32) written[2] = HM_F32;
    if (v->effect == EFFECT_POSITIONS_CHANGED && a->positions.dtype) ++*(int64_t *)a->positions.data;
    if (v->effect == EFFECT_FACTORS_CHANGED && a->factors.dtype)
        *(float *)a->factors.data = 1 / *(float *)a->factors.data;
    return status;
}

#define ROW(what, covers, reference, sentence, fix, proof, ...) \
    { OP "." what, OP, covers, reference, sentence, fix, proof, run, &(const variation){__VA_ARGS__}, false }
#define FAULT(what, covers, reference, sentence, fix, ...) \
    ROW(what, covers, reference, sentence, fix, NULL, __VA_ARGS__)
#define STEPS(what, covers, reference, sentence, fix, ...) \
    ROW(what, covers, reference, sentence, fix, NULL, .engine = true, .way = {__VA_ARGS__})

const hm_fault hm_rope_table_faults[] = {
    /* frequencies and angles in too few bits */
    STEPS("inv_freq_bf16", "C1 C4", "gpt-neox#1003; sglang-jax#1472",
          "inv_freq is a bf16 buffer, since the model was cast", "keep the buffer in f32", .inv_dtype = HM_BF16),
    STEPS("inv_freq_f16", "C1", "gpt-neox#1003", "inv_freq is an f16 buffer, since the model was cast",
          "keep the buffer in f32", .inv_dtype = HM_F16),
    STEPS("product_bf16", "C12", "mlir-air#1610", "position * inv_freq is rounded to bf16", "multiply in f32",
          .product_dtype = HM_BF16),
    STEPS("product_f16", "C12", "mlir-air#1610", "position * inv_freq is rounded to f16", "multiply in f32",
          .product_dtype = HM_F16),
    FAULT("positions_bf16", "C3 C5", "candle#3520; gpt-neox#1016; DeepSpeed#4932; verl#4170",
          "positions are counted in bf16: 256 and 257 are one", "keep positions in integers or f32",
          .positions = POSITIONS_BF16),
    FAULT("positions_f16", "C5", "gpt-neox#1016", "positions are counted in f16: exact to 2048, and none beyond 65504",
          "keep positions in integers or f32", .positions = POSITIONS_F16),
    STEPS("angle_f64", "", "", "the angle is not rounded to f32: another table than upstream's where f32 is declared",
          "multiply in f32, or declare exact", .angle = ANGLE_F64),
    STEPS("inv_freq_f64", "", "", "inv_freq is not rounded to f32", "round inv_freq, or declare exact",
          .angle = ANGLE_INV_F64, .inv_f64 = true),
    STEPS("inv_freq_9_ulp", "", "", "inv_freq is 9 ulp off, as a pow by exp2 and log2 in f32 gives it",
          "use a pow of 2 ulp", .inv_f64 = true, .inv_ulps = 9),
    STEPS("angle_summed", "", "", "angles are summed up position by position in f32", "multiply",
          .angle = ANGLE_SUMMED),
    STEPS("short_pi", "O2", "candle#3309", "fast-math range reduction: multiples of 2 pi with pi in f32",
          "use a full range reduction", .angle = ANGLE_SHORT_PI),
    STEPS("degrees", "", "", "the angle is taken to be in degrees", "pass radians", .angle = ANGLE_DEGREES),
    STEPS("exponent_half", "", "", "the exponent is j/rotary_dim", "it is 2j/rotary_dim", .frequency = FREQUENCY_J),
    STEPS("exponent_double", "", "", "the exponent is 2j over half of rotary_dim", "divide by rotary_dim",
          .frequency = FREQUENCY_OF_HALF),
    FAULT("base_10000", "", "", "base is hard-coded", "read rope_theta", .args = ARGS_BASE_10000),
    FAULT("base_f16", "", "", "base passes through f16", "keep it in binary64", .args = ARGS_BASE_F16),
    FAULT("other_precision", "", "", "the f32 table where exact is declared, or the exact one where f32 is",
          "build the table that is declared", .args = ARGS_PRECISION_OTHER),

    /* positions */
    FAULT("position_plus_1", "", "", "rows count from 1", "count from 0", .positions = POSITIONS_PLUS_1),
    FAULT("position_clamped", "J8", "vllm-ascend#1266; pegainfer#220; mlc-llm#780",
          "positions beyond 4095 get the last row of a table of 4096",
          "size the table by the positions in use, or refuse", .positions = POSITIONS_CLAMPED),
    FAULT("position_16_bits", "K6", "aiter#3062", "positions are cut to 16 bits", "use 64",
          .positions = POSITIONS_16_BITS),
    FAULT("positions_ignored", "", "", "rows are numbered, whatever positions says", "read positions",
          .positions = POSITIONS_ARE_ROWS),
    FAULT("positions_unit_stride", "", "", "the stride of positions is taken to be 1", "use it",
          .positions = POSITIONS_UNIT_STRIDE),
    FAULT("mrope_t_only", "", "", "the temporal position is used for all sections", "select by section",
          .positions = POSITIONS_T_ONLY),
    FAULT("mrope_h_w_swapped", "", "", "heights and widths are exchanged", "keep the order t, h, w",
          .positions = POSITIONS_H_W_SWAPPED),
    FAULT("mrope_layout", "P3", "vllm-ascend#12820; vllm-gaudi#1437",
          "chunked sections where interleaved ones are declared, or the other way round", "read mrope_interleaved",
          .args = ARGS_LAYOUT_OTHER),

    /* scalings */
    FAULT("scaling_dropped", "P9", "ik_llama.cpp#2291",
          "frequencies are not scaled: linear, NTK, YaRN and Llama 3 factors are ignored", "apply rope_scaling",
          .args = ARGS_SCALING_DROPPED),
    FAULT("factor_integer", "", "", "factor is read as an integer", "read a float", .args = ARGS_FACTOR_INTEGER),
    STEPS("ntk_no_power", "", "", "dynamic_ntk stretches base without the power rotary_dim/(rotary_dim-2)", "apply it",
          .frequency = FREQUENCY_NO_POWER),
    STEPS("ramp_late", "", "", "the ramp begins and ends one frequency late", "count frequencies from 0",
          .frequency = FREQUENCY_LATE_RAMP),
    STEPS("ramp_wide", "", "", "the ramp's ends are counted in columns, not in frequencies",
          "use low and high as they are", .frequency = FREQUENCY_RAMP_WIDE),
    STEPS("ramp_swapped", "", "", "high frequencies are divided by factor, low ones kept", "exchange the two",
          .frequency = FREQUENCY_RAMP_SWAPPED),
    STEPS("hard_switch", "", "", "no blend between the frequencies that are kept and those that are divided",
          "blend them", .frequency = FREQUENCY_HARD_SWITCH),
    FAULT("betas_swapped", "", "", "beta_fast and beta_slow are exchanged", "keep their order",
          .args = ARGS_BETAS_SWAPPED),
    FAULT("fraction_other", "", "", "the ends of the ramp are truncated where they must not be, or the other way round",
          "read truncate", .args = ARGS_FRACTION_OTHER),
    FAULT("long_d", "P10", "llama.cpp#24823; vllm#27431", "the extended length stands where the original one belongs",
          "use original_max_position_embeddings", .args = ARGS_LONG_D),
    FAULT("extrapolation_ignored", "", "", "extrapolation_factor is not applied", "multiply the mask by it",
          .args = ARGS_EXTRAPOLATION_1),
    FAULT("factors_ignored", "P10", "llama.cpp#24823; vllm#27431",
          "LongRoPE: the short table's factors (1) in the long table", "select factors by the length",
          .args = ARGS_FACTORS_ONE),
    FAULT("factors_reversed", "", "", "LongRoPE: factors are read from the end", "index them like frequencies",
          .args = ARGS_FACTORS_REVERSED),
    FAULT("factors_unit_stride", "", "", "LongRoPE: the stride of factors is taken to be 1", "use it",
          .args = ARGS_FACTORS_UNIT_STRIDE),
    STEPS("factors_multiplied", "", "", "LongRoPE: frequencies are multiplied by their factors", "divide",
          .frequency = FREQUENCY_TIMES_FACTOR),

    /* the factor on cos and sin */
    FAULT("scale_squared", "P5", "sglang#33558; TensorRT-LLM#16379", "the factor on cos and sin is applied twice",
          "apply it once", .scale = SCALE_SQUARED),
    FAULT("scale_ignored", "P6", "vllm#48621; vllm#48623; sglang#31232", "the factor on cos and sin is left out",
          "multiply by it", .scale = SCALE_IGNORED),
    FAULT("scale_no_override", "P7", "vllm#46280; vllm#48351; prime-rl#2802; mlx-lm#1507",
          "attention_factor is dropped", "let it override the derived factor", .scale = SCALE_NO_OVERRIDE),
    FAULT("scale_numerator", "P6", "vllm#48621; sglang#31232", "mscale_all_dim is ignored",
          "divide by g(mscale_all_dim)", .scale = SCALE_NUMERATOR),
    FAULT("scale_inverted", "", "", "cos and sin are divided by their factor", "multiply", .scale = SCALE_INVERTED),
    FAULT("sin_unscaled", "", "", "the factor is applied to cos alone", "apply it to both",
          .columns = COLUMNS_SIN_UNSCALED),

    /* columns */
    FAULT("sin_first", "", "", "sines stand before cosines", "cosines first", .columns = COLUMNS_SIN_FIRST),
    FAULT("paired", "P4", "vllm-metal#44", "cos and sin of a frequency stand side by side",
          "all cosines, then all sines", .columns = COLUMNS_PAIRED),
    FAULT("sin_negated", "", "", "sines have the wrong sign", "rotate forward", .columns = COLUMNS_SIN_NEGATED),
    FAULT("next_frequency", "", "", "column j has frequency j+1", "count frequencies from 0",
          .columns = COLUMNS_ROTATED),

    /* stores */
    FAULT("store_truncated", "I5", "triton#11217", "the conversion to 16 bits truncates", "round to nearest even",
          .store = STORE_TRUNCATES),
    FAULT("store_ties_away", "I3", "triton#5925", "ties are rounded away from zero", "round ties to even",
          .store = STORE_TIES_AWAY),
    FAULT("store_upward", "", "", "the conversion to 16 bits rounds up", "round to nearest even",
          .store = STORE_UPWARD),
    FAULT("store_via_bf16", "C6", "flashinfer#585; vllm#41113; vllm#42833; sglang#3134",
          "cos and sin are kept in bf16 first", "convert from f32 once", .store = STORE_VIA_BF16),
    FAULT("store_via_f16", "C6", "flashinfer#585; vllm#41113; sglang#3134", "cos and sin are kept in f16 first",
          "convert from f32 once", .store = STORE_VIA_F16),
    FAULT("store_via_f32", "", "", "an exact table is rounded to f32 and then to 16 bits", "round once",
          .store = STORE_VIA_F32),
    FAULT("out_f32", "", "", "a 16-bit table comes back in f32", "cast it", .effect = EFFECT_OUT_F32),

    /* layout, effects, checks */
    FAULT("out_dense", "D13", "vllm#16658", "out is written densely whatever its strides", "use them",
          .map = MAP_DENSE),
    FAULT("out_unit_columns", "", "", "columns of out are taken to be next to each other", "use the stride",
          .map = MAP_UNIT_COLUMNS),
    FAULT("without_last_row", "", "", "the last row is not written", "fix the loop's end", .map = MAP_WITHOUT_LAST_ROW),
    FAULT("first_row_only", "", "", "only the first row is written", "write all", .map = MAP_FIRST_ROW),
    FAULT("without_last_column", "", "", "the last sine is not written", "fix the loop's end",
          .map = MAP_WITHOUT_LAST_COLUMN),
    FAULT("columns_32", "", "", "only 32 columns are written", "loop over rotary_dim", .map = MAP_32_COLUMNS),
    FAULT("positions_changed", "F5", "unsloth#5001", "positions are counted up in place", "leave inputs alone",
          .effect = EFFECT_POSITIONS_CHANGED),
    FAULT("factors_changed", "F5", "unsloth#5001", "factors are inverted in place", "leave inputs alone",
          .effect = EFFECT_FACTORS_CHANGED),
    FAULT("empty_writes", "", "", "a table without rows is written to", "return first", .effect = EFFECT_EMPTY_WRITES),
    FAULT("empty_refused", "J5", "sglang#32065; sglang#23636", "a table without rows is an error", "return ok",
          .effect = EFFECT_EMPTY_REFUSED),
    FAULT("checks_silent", "", "", "bad input returns ok and does nothing", "return the error",
          .checks = CHECKS_SILENT),
    FAULT("checks_late", "", "", "bad input is noticed after the first store", "check first", .checks = CHECKS_LATE),
};
const int hm_rope_table_fault_count = sizeof hm_rope_table_faults / sizeof *hm_rope_table_faults;
