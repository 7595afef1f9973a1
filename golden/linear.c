/* linear: one element is t = sum_k x_k w_k + bias; the bias is one more term, times 1.
 *
 * Radii are dot.h's, the bias counting as one more addition. They are 0 where nothing can be rounded: if all terms are
 * multiples of q and their magnitudes add up to at most 2^p q, then every partial sum in every order is a multiple of
 * q that p bits hold. p is 53 in wide, 24 in f32, and on tensor cores F = 23 or 13, for which U <= q. Nothing may be
 * flushed there: q >= 2^-126, and no operand below it.
 * Specials: with an infinity or a NaN among the terms the sum is what IEEE makes of the terms in any order. Where the
 * magnitudes of the finite ones may leave the range of f32, or f32 may take what is multiplied by an infinity for 0,
 * an f32 implementation may return anything: range-free.
 *
 * Tier 1: hm_dot's sum and error. An end is taken from it if RN_T is the same on both sides; else the exact sum
 * decides: terms have bits from 2^-298 to 2^257, sums of 2^40 of them to 2^297, and a radius of wide none below
 * 2^-460, so that HM_SUM_BITS hold sum + radius exactly. An overflow of f64 is out of reach. */
#include <float.h>
#include <hallmark/linear.h>
#include <math.h>
#include <stdlib.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "../op/linear.h"
#include "dot.h"
#include "op.h"
#include "root.h"

#define F32_LIMIT (0x1p128 * (1 - 0x1p-20))
#define F32_LEAST 0x1p-126

typedef struct {
    hm_linear_args a;
    int64_t n; /* terms: in, and the bias */
    int64_t features;
    bool bias, narrow; /* narrow: both operands have 16 bits */
} context_t;

static hm_status open_context(const void *args, int threads, void **context) {
    (void)threads;
    context_t *c = calloc(1, sizeof *c);
    if (!c) return hm_fail(HM_NO_MEMORY, "golden: no memory");
    hm_status s = hm_linear_read(args, &c->a);
    if (s) {
        free(c);
        return s;
    }
    c->bias = c->a.bias.dtype != HM_DTYPE_NONE;
    c->features = c->a.weight.shape[0], c->n = c->a.weight.shape[1] + c->bias;
    c->narrow = c->a.x.dtype != HM_F32 && c->a.weight.dtype != HM_F32;
    *context = c;
    return HM_OK;
}

static const char *element_at(const hm_tensor *t, int64_t offset) {
    return (const char *)t->data + offset * (int64_t)hm_dtype_size(t->dtype);
}

/* a: [n], row `row` of x, and 1 for the bias. */
static void load_row(const context_t *c, int64_t row, double *a) {
    const hm_tensor *x = &c->a.x;
    hm_load_row(x->dtype, element_at(x, hm_row_offset(x, row)), x->stride[x->ndim - 1], c->n - c->bias, a);
    if (c->bias) a[c->n - 1] = 1;
}

static void load_feature(const context_t *c, int64_t f, double *b) {
    const hm_tensor *w = &c->a.weight, *bias = &c->a.bias;
    hm_load_row(w->dtype, element_at(w, f * w->stride[0]), w->stride[1], c->n - c->bias, b);
    if (c->bias) b[c->n - 1] = hm_load(bias->dtype, element_at(bias, f * bias->stride[0]));
}

typedef struct {
    bool special;   /* a NaN or an infinity among the terms */
    double value;   /* the sum, if so */
    double quantum; /* largest power of two that all terms are multiples of; inf if all are 0 */
    double finite;  /* magnitudes of the finite terms */
    bool lost;      /* an infinity times what f32 may take for 0 */
    hm_dot dot;     /* if not special */
} terms;

static bool subnormal_f32(double v) { return v != 0 && fabs(v) < F32_LEAST; }

/* The last bit of v, which is not 0. */
static double last_bit(double v) {
    int e;
    uint64_t m = (uint64_t)ldexp(frexp(fabs(v), &e), 53);
    return ldexp(1, e - 53 + __builtin_ctzll(m));
}

static terms terms_of(const context_t *c, const double *a, const double *b) {
    terms t = {.quantum = INFINITY};
    bool exact = true;
    for (int64_t k = 0; k < c->n; k++) {
        double v = a[k] * b[k];
        if (isfinite(v)) {
            t.finite += fabs(v);
            /* exactness is given up at the first term that spreads too far for any class */
            if (exact && v != 0) t.quantum = fmin(t.quantum, last_bit(v)), exact = t.finite <= 0x1p53 * t.quantum;
            continue;
        }
        t.value = t.special ? t.value + v : v, t.special = true;
        t.lost |= subnormal_f32(a[k]) || subnormal_f32(b[k]);
    }
    if (!exact) t.quantum = 0;
    if (!t.special) t.dot = hm_dot_of(a, b, c->n);
    return t;
}

/* to := the exact sum, + offset */
static void exact_sum(const context_t *c, const double *a, const double *b, double offset, mpfr_t to) {
    mpfr_t p;
    int inexact = 0;
    mpfr_init2(p, 64);
    mpfr_set_d(to, offset, MPFR_RNDN);
    for (int64_t k = 0; k < c->n; k++) {
        if (a[k] == 0 || b[k] == 0) continue;
        inexact |= mpfr_set_d(p, a[k], MPFR_RNDN) | mpfr_mul_d(p, p, b[k], MPFR_RNDN) | mpfr_add(to, to, p, MPFR_RNDN);
    }
    mpfr_clear(p);
    if (inexact) __builtin_trap(); /* see above */
}

static double end_round(const context_t *c, const double *a, const double *b, const hm_dot *dot, double offset,
                        hm_tier tier, int64_t *mpfr) {
    hm_dtype O = c->a.out.dtype;
    if (tier == HM_TIER_TWO) {
        double y = dot->sum + offset, slack = dot->error + 0x1p-51 * (fabs(y) + fabs(offset));
        double low = hm_round_to(O, y - slack), high = hm_round_to(O, y + slack);
        if (low == high) return low + 0.0; /* no -0 in either tier */
    }
    mpfr_t sum;
    mpfr_init2(sum, HM_SUM_BITS);
    exact_sum(c, a, b, offset, sum);
    double r = hm_round_exact(sum, O);
    mpfr_clear(sum);
    ++*mpfr;
    return r + 0.0;
}

/* Bits that no order of the class loses. */
static double exact_bits(hm_class class) {
    return class == HM_WIDE ? 0x1p53 : class <= HM_ANY ? 0x1p24 : class == HM_TC23 ? 0x1p23 : 0x1p13;
}

static void element(const context_t *c, const double *a, const double *b, int64_t i, hm_class class, hm_tier tier,
                    hm_golden_row *out) {
    terms t = terms_of(c, a, b);
    bool f32 = hm_class_arithmetic(class).f32;
    out->flags[i] = 0;
    if (f32 && t.finite >= F32_LIMIT / 2) out->flags[i] = HM_GOLD_RANGE_FREE;
    if (t.special) {
        out->lo[i] = out->hi[i] = t.value;
        if (isnan(t.value)) out->flags[i] = HM_GOLD_NAN;
        else if (f32 && t.lost) out->flags[i] = HM_GOLD_RANGE_FREE;
        if (out->ideal) out->ideal[i] = t.value;
        if (out->exact) out->exact[i] = t.value;
        return;
    }
    double below, above;
    hm_dot_radius(a, b, c->n, &t.dot, class, c->narrow && !c->bias, &below, &above);
    bool exact = t.finite <= exact_bits(class) * t.quantum && (!f32 || (t.quantum >= F32_LEAST && t.dot.lost == 0));
    if (exact) below = above = 0;
    out->lo[i] = end_round(c, a, b, &t.dot, -below, tier, &out->mpfr);
    out->hi[i] = end_round(c, a, b, &t.dot, above, tier, &out->mpfr);
    if (f32 && t.finite != 0) { /* a result that is subnormal may be flushed */
        if (out->lo[i] > 0 && out->lo[i] < F32_LEAST) out->lo[i] = 0;
        if (out->hi[i] < 0 && out->hi[i] > -F32_LEAST) out->hi[i] = 0;
    }
    if (out->ideal) out->ideal[i] = end_round(c, a, b, &t.dot, 0, tier, &out->mpfr);
    if (!out->exact) return;
    out->exact[i] = t.dot.sum;
    if (t.dot.error <= 0x1p-42 * fabs(t.dot.sum)) return;
    mpfr_t sum;
    mpfr_init2(sum, HM_SUM_BITS);
    exact_sum(c, a, b, 0, sum);
    out->exact[i] = mpfr_get_d(sum, MPFR_RNDN);
    mpfr_clear(sum);
}

static hm_status row_of(const void *context, int arg, int64_t row, hm_class class, hm_tier tier, hm_golden_row *out) {
    (void)arg; /* out is the only output */
    const context_t *c = context;
    double *a = malloc((size_t)(2 * c->n + 1) * sizeof *a), *b = a + c->n;
    if (!a) return hm_fail(HM_NO_MEMORY, "golden: no memory for %lld terms", (long long)c->n);
    load_row(c, row, a);
    for (int64_t f = 0; f < c->features; f++) {
        load_feature(c, f, b);
        element(c, a, b, f, class, tier, out);
    }
    free(a);
    return HM_OK;
}

static double distance(const void *context, int arg, int64_t row, int64_t index, double got) {
    (void)arg;
    const context_t *c = context;
    double *a = malloc((size_t)(2 * c->n + 1) * sizeof *a), *b = a + c->n, d = INFINITY;
    if (!a) return d;
    load_row(c, row, a), load_feature(c, index, b);
    bool finite = isfinite(got);
    for (int64_t k = 0; k < c->n; k++) finite = finite && isfinite(a[k]) && isfinite(b[k]);
    if (finite) {
        mpfr_t sum;
        mpfr_init2(sum, HM_SUM_BITS);
        exact_sum(c, a, b, 0, sum);
        double ulp = hm_ulp(c->a.out.dtype, mpfr_get_d(sum, MPFR_RNDZ));
        mpfr_sub_d(sum, sum, got, MPFR_RNDA);
        mpfr_abs(sum, sum, MPFR_RNDN);
        mpfr_div_d(sum, sum, ulp, MPFR_RNDU);
        d = hm_round_up4(mpfr_get_d(sum, MPFR_RNDU));
        mpfr_clear(sum);
    }
    free(a);
    return d;
}

const hm_golden_op hm_linear_golden = {"linear", open_context, free, row_of, distance, NULL};
