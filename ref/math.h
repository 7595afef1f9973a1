/* math.h: functions from + - * / and explicit fma() alone, so that they give the same bits on every CPU: double-double
 * sine and cosine; binary64 exp and log are in op/exp_log.h. */
#ifndef HM_REF_MATH_H
#define HM_REF_MATH_H

#include <math.h>

#include "../op/both.h"
#include "../op/exp_log.h"

/* hi + lo, |lo| <= ulp(hi)/2 */
typedef struct {
    double hi, lo;
} hm_dd;

HM_BOTH_INLINE hm_dd hm_dd_of(double v) { return (hm_dd){v, 0}; }

/* a + b exactly; |a| >= |b| or a == 0 */
HM_BOTH_INLINE hm_dd hm_fast_sum(double a, double b) {
    double s = a + b;
    return (hm_dd){s, b - (s - a)};
}
/* a + b exactly (Knuth) */
HM_BOTH_INLINE hm_dd hm_two_sum(double a, double b) {
    double s = a + b, t = s - a;
    return (hm_dd){s, (a - (s - t)) + (b - t)};
}
/* a * b exactly */
HM_BOTH_INLINE hm_dd hm_two_product(double a, double b) {
    double p = a * b;
    return (hm_dd){p, fma(a, b, -p)};
}

/* Relative errors, u = 2^-53: sum below 3.01 u^2 (also where it cancels), products below 5 u^2, from Joldes, Muller and
 * Popescu (2017). */
HM_BOTH_INLINE hm_dd hm_dd_add(hm_dd a, hm_dd b) {
    hm_dd s = hm_two_sum(a.hi, b.hi), t = hm_two_sum(a.lo, b.lo);
    s = hm_fast_sum(s.hi, s.lo + t.hi);
    return hm_fast_sum(s.hi, s.lo + t.lo);
}
HM_BOTH_INLINE hm_dd hm_dd_mul(hm_dd a, hm_dd b) {
    hm_dd p = hm_two_product(a.hi, b.hi);
    double t = fma(a.hi, b.lo, a.lo * b.hi);
    return hm_fast_sum(p.hi, p.lo + t);
}

/* sin and cos of an angle, |angle| <= 2^36. Each is off by less than 2^-95 |result| + 2^-122 for the angle as given.
 * Reduction: angle - k pi/2 with pi/2 as three doubles, 2^-163 short; k < 2^36, so 2^-127 in all. The products of k and
 * a part are exact as two doubles, the first difference is exact (Sterbenz), the others are off by 2^-104 of what is
 * left, |r| <= pi/4 and a little.
 * Series: the first omitted terms, r^29/29! and r^30/30!, are below 2^-112 of the result; what is evaluated in binary64
 * (from r^17/17! and r^16/16! on) is below 2^-50 of it and off by 2^-51 of that; then seven double-double steps, each
 * 2^-103 of a value that is at most 2^-2 of the result, and two last ones of 2^-103.
 * Witness: tests/unit/math.c, which measures it against MPFR. */
HM_BOTH void hm_dd_sincos(hm_dd angle, hm_dd *sin, hm_dd *cos);

/* A double between the neighbours of hi + lo whose last bit says whether hi + lo is a double (rounding to odd):
 * rounding it to a format of at most 51 bits gives what rounding hi + lo gives. */
HM_BOTH double hm_dd_odd(hm_dd v);

#endif
