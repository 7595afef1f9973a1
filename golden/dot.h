/* dot.h: dot products of values of f32, f16 and bf16: centre and radius of each class.
 *
 * Products of two values are exact in binary64 (48 bits at most), sums are not: `sum` is within `error` of the exact one.
 * Radii are made of sums of magnitudes, which binary64 gets right but for a factor of 1 + n 2^-52: they are grown by
 * 1 + 2^-20, and are the same on every machine, in either tier.
 *   f32        a product is rounded, unless it has 24 bits at most (as 16-bit operands make), and passes at most c additions:
 *              ((1 + u)^(c + 1) - 1) sum |t_j|. Where f32 may flush, every product and sum may lose 2^-126, and an
 *              operand below 2^-126 may be taken for 0: its product is lost.
 *   tensor     F fraction bits: S+ and S- the sums of the positive and of the negative |t_j|, A the larger,
 *   cores      U = 2^(floor(log2 A) - F). An accumulator is at most A, and a product that is aligned to it loses what lies
 *              below U, toward zero: nothing if it is a multiple of U, else less than min(|t_j|, U). Each of the N = ceil(n /
 *              k_min) accumulations and the result are cut or rounded once more, by at most 2 N U in all for F = 23
 *              (k_min = 8) and N U for F = 13 (k_min = 32). So [t - positive losses - e, t + negative losses + e]. */
#ifndef HM_GOLDEN_DOT_H
#define HM_GOLDEN_DOT_H

#include "op.h"

typedef struct {
    double sum, error; /* of the exact sum; error: of `sum` itself */
    double magnitude;  /* sum |t_j| */
    double lost;       /* sum of those |t_j| that have an operand that f32 may take for 0 */
} hm_dot;

hm_dot hm_dot_of(const double *a, const double *b, int64_t n);
/* How far below and above the exact sum class c lets a result be. exact_products: operands of 16 bits. */
void hm_dot_radius(const double *a, const double *b, int64_t n, const hm_dot *dot, hm_class c, bool exact_products,
                   double *below, double *above);
/* The same for terms t[0..n-1] that are products already. */
hm_dot hm_sum_of(const double *t, int64_t n);
void hm_sum_radius(const double *t, int64_t n, const hm_dot *dot, hm_class c, bool exact_products, double *below,
                   double *above);

#endif
