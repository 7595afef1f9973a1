/* exp_log.h: binary64 exp and log from + - * / alone, so that they give the same bits on every CPU: what ref computes with,
 * and what golden's radii, which must be the same everywhere, are made of. */
#ifndef HM_OP_EXP_LOG_H
#define HM_OP_EXP_LOG_H

#include <math.h>
#include <stdint.h>
#include <string.h>

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

#endif
