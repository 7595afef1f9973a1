/* fixed.h: signed fixed-point numbers of 64 + 320 bits, and the functions that rotary tables need on them. Integer
 * arithmetic alone, so the bits are the same everywhere; slow (microseconds a function), for constants of a column and
 * for the rare result that double-double cannot round.
 *
 * Errors, absolute, in units of 2^-320:
 *   product, quotient, scaling  truncated: below 2;  pi, ln 2  below 1
 *   ln            below 2^9 for v >= 1 (its series has 64 terms; up to 2^7 times the error of ln 2), 2^k that near 2^-k
 *   exp           below 2^17 of its mantissa (sixteen bits go to multiples of ln 2 and to eight squarings)
 *   sin and cos   below 2^8 and the number of quarter turns
 * Every use here has 80 bits and more to spare. */
#ifndef HM_REF_FIXED_H
#define HM_REF_FIXED_H

#include <stdbool.h>
#include <stdint.h>

#include "../op/both.h"

enum { HM_LIMBS = 6, HM_FRACTION_LIMBS = 5 };

/* (negative ? -1 : 1) * sum of limb[i] * 2^(64 (i - 5)) */
typedef struct {
    bool negative;
    uint64_t limb[HM_LIMBS];
} hm_fixed;

HM_BOTH hm_fixed hm_fixed_int(int64_t v);
HM_BOTH hm_fixed hm_fixed_double(double v); /* exact for |v| < 2^63 that are multiples of 2^-320 */
HM_BOTH hm_fixed hm_fixed_add(hm_fixed a, hm_fixed b);
HM_BOTH hm_fixed hm_fixed_sub(hm_fixed a, hm_fixed b);
HM_BOTH hm_fixed hm_fixed_mul(hm_fixed a, hm_fixed b);
HM_BOTH hm_fixed hm_fixed_div(hm_fixed a, hm_fixed b); /* b not 0; |a / b| < 2^63 */
HM_BOTH hm_fixed hm_fixed_scale(hm_fixed a, int k);    /* a * 2^k */
HM_BOTH int hm_fixed_compare(hm_fixed a, hm_fixed b);  /* sign of a - b */
HM_BOTH int64_t hm_fixed_floor(hm_fixed a);

HM_BOTH hm_fixed hm_fixed_pi(void);
HM_BOTH hm_fixed hm_fixed_ln2(void);
HM_BOTH hm_fixed hm_fixed_sqrt(hm_fixed a); /* a in [2^-60, 2^60] */
HM_BOTH hm_fixed hm_fixed_ln(hm_fixed v);   /* v in [2^-120, 2^63) */
/* e^x = *mantissa * 2^k, mantissa in [1/2, 2); returns k. |x| < 2^10. */
HM_BOTH int hm_fixed_exp(hm_fixed x, hm_fixed *mantissa);
HM_BOTH void hm_fixed_sincos(hm_fixed angle, hm_fixed *sin, hm_fixed *cos);

/* The leading bits of a as a sum of doubles, each of the next 53; returns the first. tail may be NULL. */
HM_BOTH double hm_fixed_split(hm_fixed a, double *tail);
/* a as a double rounded to odd: what rounding a to any format of up to 51 bits needs to know. */
HM_BOTH double hm_fixed_odd(hm_fixed a);

#endif
