/* math.h: functions from + - * / and explicit fma() alone, so that they give the same bits on every CPU: double-double
 * sine and cosine, binary64 exp and log. */
#ifndef HM_REF_MATH_H
#define HM_REF_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* hi + lo, |lo| <= ulp(hi)/2 */
typedef struct {
    double hi, lo;
} hm_dd;

static inline hm_dd hm_dd_of(double v) { return (hm_dd){v, 0}; }

/* a + b exactly; |a| >= |b| or a == 0 */
static inline hm_dd hm_fast_sum(double a, double b) {
    double s = a + b;
    return (hm_dd){s, b - (s - a)};
}
/* a + b exactly (Knuth) */
static inline hm_dd hm_two_sum(double a, double b) {
    double s = a + b, t = s - a;
    return (hm_dd){s, (a - (s - t)) + (b - t)};
}
/* a * b exactly */
static inline hm_dd hm_two_product(double a, double b) {
    double p = a * b;
    return (hm_dd){p, fma(a, b, -p)};
}

/* Relative errors, u = 2^-53: sum below 3.01 u^2 (also where it cancels), products below 5 u^2, from Joldes, Muller and
 * Popescu (2017). */
static inline hm_dd hm_dd_add(hm_dd a, hm_dd b) {
    hm_dd s = hm_two_sum(a.hi, b.hi), t = hm_two_sum(a.lo, b.lo);
    s = hm_fast_sum(s.hi, s.lo + t.hi);
    return hm_fast_sum(s.hi, s.lo + t.lo);
}
static inline hm_dd hm_dd_mul(hm_dd a, hm_dd b) {
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
void hm_dd_sincos(hm_dd angle, hm_dd *sin, hm_dd *cos);

/* e^x, relative error below 2^-51; where the result is subnormal, 2^-1074 more. 0 below -745.2, inf above 709.8.
 * k = rint(x / ln 2), r = x - k ln 2: ln 2 as two doubles, the first of 32 bits, so that k times it is exact, and so is
 * the first difference (Sterbenz); the second rounds to half an ulp of r, |r| <= 0.347: 2^-55, beside which k times what
 * the two doubles leave out is nothing (2^-76). The series 1 + r + r^2 (1/2! + .. + r^11/13!) leaves out r^14/14! <
 * 2^-57; its last additions are off by 2^-53 and 2^-55, the square and the polynomial (below 0.07) by 4 ulp, 2^-55. In
 * all below 2^-52.1 of a result that is at least 0.707. The two powers of two multiply exactly.
 * Witness: tests/unit/math.c, which measures it against MPFR; so for log. */
static inline double hm_exp(double x) {
    static const double c[] = {0x1p-1,
                               0x1.5555555555555p-3,
                               0x1.5555555555555p-5,
                               0x1.1111111111111p-7,
                               0x1.6c16c16c16c17p-10,
                               0x1.a01a01a01a01ap-13,
                               0x1.a01a01a01a01ap-16,
                               0x1.71de3a556c734p-19,
                               0x1.27e4fb7789f5cp-22,
                               0x1.ae64567f544e4p-26,
                               0x1.1eed8eff8d898p-29,
                               0x1.6124613a86d09p-33};
    double y = x < -746 ? -746 : x > 710 ? 710 : x; /* NaN stays */
    double k = (y * 0x1.71547652b82fep0 + 0x1.8p52) - 0x1.8p52,
           r = (y - k * 0x1.62e42feep-1) - k * 0x1.a39ef35793c76p-33;
    double sum = c[11];
    for (int i = 10; i >= 0; i--) sum = sum * r + c[i];
    sum = 1 + (r + r * r * sum);
    int64_t n = k == k ? (int64_t)k : 0, half = n / 2;
    uint64_t first = (uint64_t)(1023 + half) << 52, second = (uint64_t)(1023 + n - half) << 52;
    double a, b;
    memcpy(&a, &first, sizeof a), memcpy(&b, &second, sizeof b);
    return sum * a * b;
}

/* ln x, relative error below 2^-50; -inf of 0, NaN of negative numbers.
 * x = m 2^e with m in [0.707, 1.415): ln m = 2 s (1 + s^2/3 + s^4/5 + .. + s^22/23), s = (m - 1)/(m + 1), |s| < 0.1716: the
 * next term is below 2^-64; m - 1 is exact, three roundings and the series' 2^-56 make 2^-51.3. e ln 2 as two parts, the first
 * exact; where e is not 0 the sum is at least 0.346, and its two additions are off by half an ulp each. */
static inline double hm_log(double x) {
    if (!(x > 0) || isinf(x)) return x == 0 ? -INFINITY : x > 0 ? x : NAN;
    int e;
    double m = frexp(x, &e);
    if (m < 0x1.6a09e667f3bcdp-1) m *= 2, e--;
    double s = (m - 1) / (m + 1), z = s * s, sum = 1.0 / 23;
    for (int n = 21; n >= 3; n -= 2) sum = sum * z + 1.0 / n;
    double y = 2 * (s + s * (z * sum));
    return e == 0 ? y : (double)e * 0x1.62e42feep-1 + ((double)e * 0x1.a39ef35793c76p-33 + y);
}

/* A double between the neighbours of hi + lo whose last bit says whether hi + lo is a double (rounding to odd):
 * rounding it to a format of at most 51 bits gives what rounding hi + lo gives. */
double hm_dd_odd(hm_dd v);

#endif
