/* fp8.h: what a quantiser may store: the scale of a group, and a code for the scale that was stored.
 *
 * Everything is decided in binary64 without a second tier. Elements, divisor, floor and a stored scale are f32 values
 * (24 bits); a product of two is exact. A quotient of two, rounded to binary64, is rounded again to f32 or 8 bits only
 * where the contract asks for the quotient's rounding (wide), and then like the exact one: a boundary of the target has
 * at most 25 bits, so that quotient and boundary are equal or at least 2^-49 apart, relatively, and binary64 errs by
 * 2^-53. */
#ifndef HM_GOLDEN_FP8_H
#define HM_GOLDEN_FP8_H

#include "../op/dtype.h"
#include "op.h"

typedef struct {
    hm_dtype codes;        /* f8e4m3, f8e4m3fnuz or f8e5m2 */
    double divisor, floor; /* narrowed to f32 */
    bool floor_on_scale;   /* else on the largest magnitude */
    bool power_of_two;     /* the scale is rounded up to one */
    bool operands_f32;     /* elements have more than 16 bits */
    bool reciprocal;       /* elements are multiplied by the rounded reciprocal */
    hm_overflow overflow;
} hm_fp8_rule;

typedef struct {
    double lo, hi; /* the ends; with `two`, the only two */
    double ideal, exact;
    bool two;
    bool nan, infinite; /* there is one in the group: nothing else is set */
} hm_fp8_scales;

/* x: n elements, `stride` apart. */
hm_fp8_scales hm_fp8_scales_of(const hm_fp8_rule *rule, hm_dtype dtype, const void *x, int64_t stride, int64_t n,
                               hm_class c);
bool hm_fp8_admits_scale(const hm_fp8_scales *s, double stored);
/* May codes be judged for it? */
bool hm_fp8_usable(double scale);
/* The codes between which x's may lie for any scale in [scale_lo, scale_hi]; ascending by value. x is no NaN. */
void hm_fp8_codes_of(const hm_fp8_rule *rule, double x, double scale_lo, double scale_hi, hm_class c, uint8_t code[2]);
uint8_t hm_fp8_ideal_code(const hm_fp8_rule *rule, double x, double scale);

#endif
