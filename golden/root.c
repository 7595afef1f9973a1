#include "root.h"

#include <math.h>

#include "../op/dtype.h"
#include "golden.h"

void hm_root_init(hm_root *r) {
    mpfr_inits2(HM_ROOT_BITS, r->q, r->v, r->d, (mpfr_ptr)0);
    mpfr_init2(r->near, HM_ROOT_APPROX);
    r->offset = 0;
}

void hm_root_clear(hm_root *r) { mpfr_clears(r->q, r->v, r->d, r->near, (mpfr_ptr)0); }

void hm_root_ready(hm_root *r) {
    mpfr_div(r->near, r->v, r->d, MPFR_RNDN);
    mpfr_sqrt(r->near, r->near, MPFR_RNDN);
    mpfr_mul(r->near, r->near, r->q, MPFR_RNDN);
    mpfr_add_d(r->near, r->near, r->offset, MPFR_RNDN);
}

int hm_root_compare(const hm_root *r, mpfr_srcptr b) {
    /* The approximation is off by less than 2^-195 of the larger of the root and the offset. */
    mpfr_t gap, slack;
    mpfr_inits2(HM_ROOT_APPROX, gap, slack, (mpfr_ptr)0);
    mpfr_sub(gap, r->near, b, MPFR_RNDN);
    mpfr_sub_d(slack, r->near, r->offset, MPFR_RNDN);
    mpfr_abs(slack, slack, MPFR_RNDN);
    mpfr_add_d(slack, slack, fabs(r->offset), MPFR_RNDN);
    mpfr_mul_2si(slack, slack, -190, MPFR_RNDN);
    int sign = mpfr_sgn(gap);
    bool clear = mpfr_cmpabs(gap, slack) > 0;
    mpfr_clears(gap, slack, (mpfr_ptr)0);
    if (clear) return sign;

    mpfr_t t, left, right;
    mpfr_inits2(HM_ROOT_BITS, t, left, right, (mpfr_ptr)0);
    int inexact = mpfr_sub_d(t, b, r->offset, MPFR_RNDN);
    if (mpfr_sgn(t) <= 0) {
        sign = mpfr_sgn(t) < 0 ? 1 : mpfr_sgn(r->q);
    } else {
        inexact |= mpfr_sqr(left, r->q, MPFR_RNDN);
        inexact |= mpfr_mul(left, left, r->v, MPFR_RNDN);
        inexact |= mpfr_sqr(right, t, MPFR_RNDN);
        inexact |= mpfr_mul(right, right, r->d, MPFR_RNDN);
        sign = mpfr_cmp(left, right);
    }
    mpfr_clears(t, left, right, (mpfr_ptr)0);
    if (inexact) __builtin_trap(); /* HM_ROOT_BITS is too small: the derivation above is wrong */
    return sign;
}

int hm_root_compare_d(const hm_root *r, double b) {
    mpfr_t exact;
    mpfr_init2(exact, 53);
    mpfr_set_d(exact, b, MPFR_RNDN);
    int sign = hm_root_compare(r, exact);
    mpfr_clear(exact);
    return sign;
}

static bool is_even(hm_dtype dtype, double v) { return fmod(v / hm_ulp(dtype, v), 2) == 0; }

/* RN_dtype of the number that compare knows; guess is within a few values of it. Moves over midpoints, which binary64
 * holds. */
static double round_by(hm_dtype dtype, double guess, int (*compare)(const void *, double), const void *number) {
    double v = hm_round_to(dtype, guess), max = hm_dtype_max(dtype), half = hm_ulp(dtype, max) / 2;
    if (v > max) v = max;
    if (v < -max) v = -max;
    for (;;) {
        double up = hm_next_up(dtype, v), down = hm_next_down(dtype, v);
        int above = compare(number, isfinite(up) ? v + (up - v) / 2 : max + half);
        if (above > 0 || (above == 0 && !is_even(dtype, v))) {
            if (!isfinite(up)) return up;
            v = up;
            continue;
        }
        int below = compare(number, isfinite(down) ? v - (v - down) / 2 : -max - half);
        if (below < 0 || (below == 0 && !is_even(dtype, v))) {
            if (!isfinite(down)) return down;
            v = down;
            continue;
        }
        return v;
    }
}

static int compare_root(const void *root, double b) { return hm_root_compare_d(root, b); }
static int compare_number(const void *number, double b) { return mpfr_cmp_d((mpfr_srcptr)number, b); }

double hm_root_round(const hm_root *r, hm_dtype dtype) {
    return round_by(dtype, mpfr_get_d(r->near, MPFR_RNDN), compare_root, r);
}

double hm_round_exact(mpfr_srcptr v, hm_dtype dtype) {
    return round_by(dtype, mpfr_get_d(v, MPFR_RNDN), compare_number, v);
}

double hm_round_up4(double d) {
    if (!(d > 0) || !isfinite(d)) return d;
    int e;
    double m = ceil(ldexp(frexp(d, &e), 13)); /* 1 + 3 * 4 bits */
    return ldexp(m, e - 13);
}

double hm_root_distance(const hm_root *r, hm_dtype dtype, double got) {
    if (!isfinite(got)) return INFINITY;
    mpfr_t value, gap;
    mpfr_init2(value, HM_ROOT_APPROX), mpfr_init2(gap, HM_ROOT_APPROX + 64);
    /* If the value is a number of at most 60 bits, it is that number that is meant, not its approximation. */
    mpfr_t round;
    mpfr_init2(round, 60);
    mpfr_set(round, r->near, MPFR_RNDN);
    mpfr_set(value, hm_root_compare(r, round) == 0 ? round : r->near, MPFR_RNDN);
    double ulp = hm_ulp(dtype, mpfr_get_d(value, MPFR_RNDZ));
    mpfr_sub_d(gap, value, got, MPFR_RNDA);
    mpfr_abs(gap, gap, MPFR_RNDN);
    mpfr_div_d(gap, gap, ulp, MPFR_RNDU);
    mpfr_set_prec(round, 13);
    mpfr_set(round, gap, MPFR_RNDU);
    double d = mpfr_get_d(round, MPFR_RNDU);
    mpfr_clears(value, gap, round, (mpfr_ptr)0);
    return d;
}
