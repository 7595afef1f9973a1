/* fp8.h: quantisers in genuine f32 arithmetic, with every way to a scale that kernels take. */
#ifndef HM_VARIANTS_FP8_H
#define HM_VARIANTS_FP8_H

#include <hallmark/hallmark.h>
#include <stdbool.h>

typedef struct {
    enum {
        RATIO_DIVIDED = 0,
        RATIO_MULTIPLIED, /* by the rounded reciprocal of the divisor */
        RATIO_HIGH,       /* as far above as an approximate division may lie */
        RATIO_LOW,
        RATIO_NEXT,   /* one step of f32 above */
        RATIO_BEFORE, /* one below */
        RATIO_WIDE
    } ratio;
    enum { POWER_BY_BITS = 0, POWER_BY_LOGARITHM } power;
    enum { CODE_F32 = 0, CODE_WIDE } code;
    bool backward; /* groups from the last to the first, elements as well */
    bool flush;    /* f32 subnormals are 0 */
} hm_fp8_variant;

/* The scale of a group whose largest magnitude is amax. */
float hm_fp8_variant_scale(const hm_fp8_variant *v, float amax, float divisor, float floor_at, bool floor_on_scale,
                           bool power_of_two);
/* The quotient that is rounded to 8 bits. */
double hm_fp8_variant_quotient(const hm_fp8_variant *v, float x, float scale, bool reciprocal);
float hm_fp8_variant_operand(const hm_fp8_variant *v, double x); /* flushed, if it does that */

#endif
