/* norm.h: the norm family in genuine f32 arithmetic, parametrised by what the contract leaves free. Zero in every
 * field: a pairwise sum, every operation rounded, 1/sqrt, (x*rs)*w. */
#ifndef HM_VARIANTS_NORM_H
#define HM_VARIANTS_NORM_H

#include <hallmark/fused_add_rms_norm.h>

#include "../faults.h"

typedef struct {
    enum {
        SUM_PAIRWISE = 0,
        SUM_SEQUENTIAL,
        SUM_REVERSED,
        SUM_BLOCKS, /* `width` elements in sequence, the blocks pairwise */
        SUM_LANES,  /* `width` interleaved accumulators, then a tree; `chunk` elements at a time if not 0 */
        SUM_COMPENSATED,
        SUM_F64,
    } sum;
    int width, chunk;
    bool fma;             /* squares, and the mean with eps, contracted */
    bool mean_multiplies; /* by 1/V, instead of dividing by V */
    enum {
        ROOT_RECIPROCAL = 0, /* 1 / sqrt */
        ROOT_ROUNDED,        /* correctly rounded rsqrt */
        ROOT_HIGH,           /* as far above as 2 ulp allow: 2^-22 relative */
        ROOT_LOW,
    } root;
    enum { PRODUCT_SCALE_FIRST = 0, PRODUCT_WEIGHT_TIMES_SCALE, PRODUCT_WEIGHT_FIRST, PRODUCT_DIVIDES } product;
    bool flush; /* f32 subnormals are 0, as operands and as results */
    bool wide;  /* binary64 throughout */
} hm_norm_variant;

/* The arguments of either op. residual.dtype is HM_DTYPE_NONE for rms_norm. */
typedef struct {
    hm_tensor out, residual_out, x, residual, weight;
    double eps;
    hm_round round;
    hm_weight_form weight_form;
    hm_residual_read residual_read;
    int64_t variance_size;
} hm_norm_variant_call;

/* call has passed the op's check. */
hm_status hm_norm_variant_run(const hm_norm_variant *v, const hm_norm_variant_call *call);

extern const hm_variant hm_rms_norm_variants[], hm_fused_add_rms_norm_variants[];
extern const int hm_rms_norm_variant_count, hm_fused_add_rms_norm_variant_count;

#endif
