/* root.h: exact decisions about numbers of the form  value = q * sqrt(v / d) + offset,  where q >= 0, v > 0 and d > 0
 * are dyadic rationals held exactly in MPFR, and offset is a double. All that RMSNorm and its bounds come to is of this
 * form.
 *
 * Termination: value is compared with a dyadic b by a 200-bit approximation; where that is too close to tell, by
 *     q * sqrt(v / d) <> t  with t = b - offset:   t <= 0: decided by signs;   else  q^2 v <> t^2 d,
 * in which every product and difference is exact, since HM_ROOT_BITS bits hold them all (checked through MPFR's ternary
 * values). So a boundary that is met exactly is recognised as such: no loop over precisions is needed. */
#ifndef HM_ROOT_H
#define HM_ROOT_H

#include <hallmark/hallmark.h>
#include <mpfr.h>

/* Exact operands: a sum of squares of f32 values (or of unrounded sums of two bf16 values) has bits from 2^-298 to
 * 2^260 and the carries of its count: under 640; with the constants of a class, eps and the flush term d stays under
 * 1,200, t under 400 and q under 600, so the products of the comparison stay under 2,000. */
enum { HM_ROOT_BITS = 2400, HM_SUM_BITS = 1200, HM_ROOT_APPROX = 200 };

typedef struct {
    mpfr_t q, v, d; /* exact */
    double offset;
    mpfr_t near; /* value to about HM_ROOT_APPROX - 4 bits */
} hm_root;

void hm_root_init(hm_root *r);
void hm_root_clear(hm_root *r);
/* To be called once q, v, d and offset are set. */
void hm_root_ready(hm_root *r);
/* Sign of value - b, exactly. */
int hm_root_compare(const hm_root *r, mpfr_srcptr b);
int hm_root_compare_d(const hm_root *r, double b);
/* RN_dtype(value): one rounding, subnormals and overflow included. */
double hm_root_round(const hm_root *r, hm_dtype dtype);
/* |got - value| in ulps of dtype at value, rounded up to 4 hexadecimal digits. */
double hm_root_distance(const hm_root *r, hm_dtype dtype, double got);

/* RN_dtype(v) of an exact MPFR number. */
double hm_round_exact(mpfr_srcptr v, hm_dtype dtype);

#endif
