/* norm.h: the admissible set of the RMSNorm family.
 *
 * One row: z_i the values that are normalised (x, or the sum with the residual), w'_i the factor (weight, 1 + weight,
 * or none), V the number of elements in the mean, S = sum of z_i^2 over them, eps as narrowed to f32. The exact result
 * is z w' / sqrt(S/V + eps).
 *
 * Enclosure for arithmetic with relative error u an operation, f a division, root or reciprocal root, and a chain of c
 * additions:
 *   - a square passes: itself (u), at most c additions (u each), and the division by V as a division (f) or as a
 * product with a rounded reciprocal (f, u); V itself is rounded (u) if it has more than 24 bits. An unrounded sum z = x
 * + r brings 2 u more (it is squared). All terms are positive, so the mean is within [S/V a_lo, S/V a_hi], a = (1 -+
 * u)^(c + 2 + extra) (1 -+ f).
 *   - adding eps: one more u. So m in [(S/V a_lo + eps)(1 - u) - h, (S/V a_hi + eps)(1 + u) + h].
 *   - h, for arithmetic that may flush (f32 classes): each operation may lose 2^-126 of its result and as much of each
 * operand. S takes V squares (2 each: result, operand) and V additions (3 each), the division 2, the addition of eps 3:
 * at most 10 * 2^-126 after division by V, each grown by at most a_hi. h = 2^-122 a_hi.
 *   - rs = m^-1/2, by a reciprocal root (f) or by a root and a division (u, f): factor (1 -+ f)(1 -+ u).
 *   - z * rs * w' in any order: u per product, u for 1 + w where that sum is not exact, u for an unrounded z: k = (1 -+
 * u)^j.
 *   - flush in the products: an intermediate loses at most 2 * 2^-126 (result and operand) and is then multiplied by
 * one of |z|, rs, |w'|; the result loses 2^-126: together below e = 2^-122 max(1, |z|, rs, |w'|), where rs stands for
 * its binary64 approximation (off by less than 2^-40) and 2^-122 leaves room for that and for the growth. A subnormal z
 * or w' may be taken for anything down to 0. The ends are therefore  |z w'| K sqrt(V / D) -+ e  with K, a, e doubles
 * and D = V m exactly: dyadic constants times an exact formula, the same ones in both tiers. Tier 1 computes them in
 * binary64 with relative error below 2^-47:
 *   - S in blocks of 512: at most 37 additions a term inside a block, and blocks are added with their errors carried
 * along: below 40 * 2^-53; with the square and the rounding of z 43; halved by the root, and 9 more operations: 31 *
 * 2^-53 < 2^-48. An end is taken from tier 1 only if RN_T is the same number on both sides of that error; else MPFR
 * decides (root.h).
 *
 * NORM_FIRST: RN_T(z rs) is a set of values of T, enclosed as above with one product less; each member times w is one
 * more product: exact where the arithmetic holds it exactly (48 bits: always in binary64), else (1 -+ u) and 2^-125 for
 * a flush. */
#ifndef HM_NORM_H
#define HM_NORM_H

#include <hallmark/fused_add_rms_norm.h>

#include "op.h"

typedef struct {
    hm_tensor x, residual, weight; /* residual absent: plain rms_norm */
    hm_dtype T, R;                 /* R: dtype of the stored sum */
    bool read_rounded;             /* z = RN_R(x + residual); else z = x + residual */
    bool norm_first, one_plus;
    double eps; /* as narrowed to f32 */
    int64_t hidden, variance_size;
    double *factor;            /* w', [hidden]: exact, or rounded at 2^-53 for 1 + w; NULL without a weight */
    double *weight_value;      /* [hidden]; NULL without a weight */
    double *inexact;           /* [hidden]: 1 where 1 + w is not an f32 value, else 0 */
    struct hm_norm_memo *memo; /* rows that distances were asked for: see norm.c */
} hm_norm;

hm_status hm_norm_open(hm_norm *norm,
                       int64_t hidden); /* fills factor, weight_value, inexact from weight and one_plus */
void hm_norm_close(hm_norm *norm);
hm_status hm_norm_row(const hm_norm *norm, int64_t row, hm_class c, hm_tier tier, hm_golden_row *out);
double hm_norm_distance(const hm_norm *norm, int64_t row, int64_t index, double got);

#endif
