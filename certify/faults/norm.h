/* norm.h: one evaluator for the norm family in binary64, parametrised by what a fault varies. Zero in every field is
 * the contract itself, so that a row of a fault table names only what it breaks. */
#ifndef HM_FAULTS_NORM_H
#define HM_FAULTS_NORM_H

#include <hallmark/fused_add_rms_norm.h>

#include "../faults.h"

typedef struct {
    /* which rounding points the product has */
    enum {
        ROUND_AS_DECLARED = 0,
        ROUND_NEVER_INSIDE,  /* x*rs is never rounded to T */
        ROUND_ALWAYS_INSIDE, /* x*rs is always rounded to T */
        ROUND_INSIDE_TRUNCATES,
        ROUND_WEIGHT_FIRST,    /* RN_T(RN_T(x*w) * rs) */
        ROUND_IN_WEIGHT_DTYPE, /* where W is not T: RN_W(RN_W(x*rs) * w) */
    } round;
    /* how a value becomes an element of out */
    enum {
        STORE_NEAREST = 0,
        STORE_TRUNCATES,
        STORE_TIES_AWAY,
        STORE_UPWARD,
        STORE_VIA_F32,
        STORE_VIA_BF16,
        STORE_VIA_F16,
        STORE_SATURATES,      /* beyond the range: the largest finite value */
        STORE_FLUSHES,        /* subnormals of T become 0 */
        STORE_NAN_BY_INTEGER, /* rounds by adding to the bits, NaN included: a NaN wraps to -0 */
        STORE_NAN_AS_ZERO,
        STORE_ZEROS,
        STORE_NANS,
    } store;
    enum {
        WEIGHT_AS_DECLARED = 0,
        WEIGHT_ALWAYS_PLAIN,
        WEIGHT_ALWAYS_ONE_PLUS,
        WEIGHT_ONE_PLUS_IN_T,
        WEIGHT_IGNORED,
        WEIGHT_BYTES_AS_T, /* the bytes of a weight of another dtype read as T; wraps at the end */
        WEIGHT_ROUNDED_TO_T,
        WEIGHT_NEXT, /* weight[i+1] */
        WEIGHT_UNIT_STRIDE,
        WEIGHT_INCREMENTED, /* 1 + w is left in the caller's weight */
        WEIGHT_SQUARED,
        WEIGHT_4096, /* columns past 4096 start again at weight[0] */
    } weight;
    enum {
        EPS_AS_GIVEN = 0,
        EPS_1E_5,
        EPS_1E_6,
        EPS_1E_12,
        EPS_OF_T, /* machine epsilon of the dtype of x */
        EPS_DROPPED,
        EPS_OUTSIDE_ROOT, /* 1 / (sqrt(ms) + eps) */
        EPS_AFTER_RSQRT,  /* 1 / sqrt(ms) + eps */
        EPS_BEFORE_MEAN,  /* (sum + eps) / V */
        EPS_AS_FLOOR,     /* max(ms, eps) */
        EPS_IN_T,
        EPS_SQUARED,
        EPS_NOT_NARROWED,
        EPS_FROM_VARIANCE_SIZE,
    } eps;
    enum {
        TERMS_AS_DECLARED = 0,
        TERMS_HIDDEN,
        TERMS_WITHOUT_TAIL, /* hidden % 8 elements at the end are left out */
        TERMS_WITHOUT_LAST,
        TERMS_WITHOUT_FIRST,
        TERMS_4096,
        TERMS_8192,
        TERMS_PAST_END, /* up to the next multiple of 8: whatever lies behind the row */
    } terms;
    enum {
        DIVIDE_BY_V = 0,
        DIVIDE_BY_HIDDEN,
        DIVIDE_BY_ONE,
        DIVIDE_BY_V_MINUS_1,
        DIVIDE_BY_V_PLUS_1,
        DIVIDE_BY_MULTIPLE_OF_8,
        DIVIDE_BY_POWER_OF_2,
    } divide;
    enum { MEAN_OF_SQUARES = 0, MEAN_CENTRED, MEAN_OF_MAGNITUDES } mean;
    /* an intermediate kept in too few bits */
    enum {
        NARROW_NOTHING = 0,
        NARROW_SUM, /* the accumulator is T */
        NARROW_SUM_F16,
        NARROW_SQUARE,
        NARROW_MEAN,
        NARROW_RS,
        NARROW_TF32, /* the squares are of 11 significant bits */
        NARROW_X_BF16,
    } narrow;
    enum {
        RSQRT_EXACT = 0,
        RSQRT_GUESS,     /* the bit trick and no Newton step: 5 good bits */
        RSQRT_ONE_STEP,  /* one Newton step: 9 good bits */
        RSQRT_TWO_STEPS, /* 17 good bits */
        RSQRT_12_BITS,
        RSQRT_RECIPROCAL, /* 1 / ms: the root is forgotten */
    } rsqrt;
    enum { RS_OWN = 0, RS_FIRST_ROW, RS_PREVIOUS_ROW, RS_ROW_MINUS_64, RS_HALVES_IN_PLACE } rs;
    enum {
        SPECIALS_IEEE = 0,
        SPECIALS_NAN_IS_ZERO,
        SPECIALS_NAN_NOT_SUMMED,
        SPECIALS_INF_IS_MAX,
        SPECIALS_INF_ROW_NAN,
        SPECIALS_INF_ROW_ZERO,
        SPECIALS_ZERO_ROW_ZERO,
        SPECIALS_SUBNORMAL_IS_ZERO, /* subnormals of T read as 0 */
    } specials;
    /* which numbers the norm reads (fused_add) */
    enum {
        READ_AS_DECLARED = 0,
        READ_ALWAYS_ROUNDED,
        READ_ALWAYS_UNROUNDED,
        READ_VARIANCE_ROUNDED_ONLY,
        READ_VARIANCE_UNROUNDED_ONLY,
        READ_X_ONLY, /* the residual never reaches the norm */
        READ_RESIDUAL_ONLY,
        READ_VARIANCE_OF_X,
        READ_VIA_F16, /* an f32 residual is rounded to T before the norm reads it */
    } read;
    enum {
        SUM_PLAIN = 0,
        SUM_RESIDUAL_TWICE,
        SUM_DIFFERENCE,
        SUM_GARBAGE,          /* the residual is memory that nobody wrote */
        SUM_BYTES_AS_T,       /* an f32 residual read as T */
        SUM_RESIDUAL_ROUNDED, /* an f32 residual rounded to T before the addition */
    } sum;
    enum {
        RESIDUAL_AS_DECLARED = 0,
        RESIDUAL_NOT_WRITTEN,
        RESIDUAL_NORMALISED,
        RESIDUAL_X,
        RESIDUAL_UNCHANGED, /* the residual that came in */
        RESIDUAL_TRUNCATES,
        RESIDUAL_TIES_AWAY,
        RESIDUAL_F32,            /* f32, not rounded, where T is declared */
        RESIDUAL_T,              /* T where f32 is declared */
        RESIDUAL_ROUNDED_IN_F32, /* f32 as declared, but the value was rounded to T */
        RESIDUAL_4096,
        RESIDUAL_WITHOUT_TAIL,
        RESIDUAL_IN_PLACE, /* written over the input; residual_out is left alone */
        RESIDUAL_SATURATES,
        RESIDUAL_FLUSHES,
        RESIDUAL_OTHER_HALF, /* through the other 16-bit dtype */
    } residual;
    enum {
        ROWS_ALL = 0,
        ROWS_WITHOUT_LAST,
        ROWS_FIRST,
        ROWS_SHIFTED, /* row t is computed from row t + 1 */
        ROWS_SWAPPED, /* ... from row t ^ 1 */
        ROWS_MULTIPLE_OF_4,
        ROWS_65535,
    } rows;
    enum {
        COLUMNS_ALL = 0,
        COLUMNS_NONE,
        COLUMNS_4096,
        COLUMNS_WITHOUT_TAIL,
        COLUMNS_WITHOUT_LAST,
        COLUMNS_V,
        COLUMNS_ONE_PAST,
        COLUMNS_ONE_BEFORE,
        COLUMNS_MULTIPLE_OF_8,
    } columns;
    /* addresses */
    enum {
        MAP_AS_GIVEN = 0,
        MAP_X_DENSE,
        MAP_X_UNIT,           /* the last dimension is taken to be contiguous */
        MAP_X_TWO_DIMENSIONS, /* rows are stride[ndim-2] apart, whatever the outer strides */
        MAP_X_LIKE_OUT,
        MAP_X_INT32,
        MAP_OUT_DENSE,
        MAP_OUT_UNIT,
        MAP_OUT_LIKE_X,
        MAP_OUT_INT32,
        MAP_RESIDUAL_DENSE,
        MAP_RESIDUAL_LIKE_X,
        MAP_RESIDUAL_OUT_DENSE,
        MAP_RESIDUAL_OUT_LIKE_OUT,
    } map;
    enum {
        EFFECT_NONE = 0,
        EFFECT_X_OVERWRITTEN, /* x gets the result as well */
        EFFECT_OUT_IN_X,      /* the result is written to x, not to out */
        EFFECT_X_HOLDS_SUM,
        EFFECT_OUT_OVER_RESIDUAL, /* the input residual gets the result as well */
        EFFECT_OUTPUTS_SWAPPED,
        EFFECT_OUT_F32,      /* a 16-bit T, but out is left in f32 */
        EFFECT_OUT_PROMOTED, /* ... where the weight is f32 */
    } effect;
    enum { EMPTY_OK = 0, EMPTY_REFUSED, EMPTY_WRITES } empty;
    /* checks that are missing */
    enum {
        CHECKS_ALL = 0,
        CHECKS_LATE,   /* the first element is written, then the arguments are checked */
        CHECKS_SILENT, /* a bad call returns ok and does nothing */
        CHECKS_NOT_MODES,
        CHECKS_NOT_WEIGHT_DTYPE,
        CHECKS_NOT_EPS_NAN,
        CHECKS_NOT_EPS_NEGATIVE,
        CHECKS_NOT_EPS_INFINITE,
        CHECKS_NOT_VARIANCE_SIZE,
        CHECKS_NOT_OUT_DTYPE,
        CHECKS_NOT_SHAPE,
        CHECKS_NOT_ALIAS,
        CHECKS_NOT_OUT_STRIDE,
        CHECKS_NOT_PLACE,
    } checks;
    /* f32 sums whose order depends on what it must not depend on */
    enum { ORDER_FIXED = 0, ORDER_BY_ROWS, ORDER_BY_ADDRESS, ORDER_BY_RUN } order;
} hm_norm_variation;

/* The arguments of either op. residual.dtype is HM_DTYPE_NONE for rms_norm. */
typedef struct {
    hm_tensor out, residual_out, x, residual, weight;
    double eps;
    hm_round round;
    hm_weight_form weight_form;
    hm_residual_read residual_read;
    hm_residual_dtype residual_dtype;
    int64_t variance_size;
    bool fused;
    int out_arg, residual_out_arg; /* indices into the op's argument table */
} hm_norm_call;

/* check: the op's own check of such a call. */
hm_status hm_norm_fault_run(const hm_norm_variation *v, const hm_norm_call *call,
                            hm_status (*check)(const hm_norm_call *), hm_dtype written[HM_MAX_ARGS]);

extern const hm_fault hm_rms_norm_faults[], hm_fused_add_rms_norm_faults[];
extern const int hm_rms_norm_fault_count, hm_fused_add_rms_norm_fault_count;

#endif
