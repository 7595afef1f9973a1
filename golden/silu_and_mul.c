/* silu_and_mul: one element is p = g u / (1 + e^-g), in mode `each` RN_T(s u) with s = RN_T(g / (1 + e^-g)).
 *
 * Radius, for arithmetic with relative errors u and f (functions and quotients). With E = e^-g, an exponential is off
 * by a = f + 2 u |g|: its own error, and that of an argument multiplied by a rounded log2 e where exp2 does the work.
 * So for |d| <= a the sigmoid 1/(1 + E (1 + d)) is off by w a/(1 - w a), w = E/(1 + E), relative to itself; made of
 * e^g, as e^g (1 + d)/(1 + e^g (1 + d)), by |d|/(1 + e^g (1 + d)) <= w a/(1 - a). Both are at most t = w a/(1 - a).
 * The sum, the quotient (f) and the product with g make the factor (1 + u)^2 (1 + f) (1 + t), and the other product
 * one more (1 + u). f32 may flush silu below 2^-126, then the product, and either operand: 2^-126 (|u| + |silu| + 1).
 * From g = -87 on E or the sigmoid leave the normal range of f32: silu may be 0. Near the largest f32 it may overflow.
 * In mode `each` s is a finite set of values of T; each times u is exact in binary64 (48 bits) and rounded once.
 *
 * Tier 1: hm_exp is within 2^-51 of itself, and three operations follow: p is within 2^-49.4, and below -709 within
 * 2^-880, of the exact value. An end is taken from tier 1 if RN_T is the same on both sides of that error. Otherwise
 * by MPFR: p is transcendental but for g u = 0, so that more bits always decide. Two shortcuts keep their number
 * small. Ends are p + r with a double r that is 0 or at least 2^-50 |p|, and so has no bits below 2^-103 |p|. For g >
 * 100, where g u is exact and 1/(1 + E) lies between 1 - 2^-144 and 1, p may be any number that keeps it there; and
 * for g < -800 any number between 0 and 2^-880, where no boundary of T lies but 0, and no r. */
#include <hallmark/silu_and_mul.h>
#include <math.h>
#include <mpfr.h>
#include <stdlib.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "../op/silu_and_mul.h"
#include "../ref/math.h"
#include "op.h"
#include "root.h"

#define GROW (1 + 0x1p-20) /* the roundings of a radius */
#define F32_LIMIT (0x1p128 * (1 - 0x1p-20))
#define F32_LEAST 0x1p-126
#define LOST (-87.0) /* from here on f32 may take silu for 0 */

typedef struct {
    hm_silu_and_mul_args a;
    hm_dtype T;
    int64_t hidden;
} context_t;

static hm_status open_context(const void *args, int threads, void **context) {
    (void)threads;
    context_t *c = calloc(1, sizeof *c);
    if (!c) return hm_fail(HM_NO_MEMORY, "golden: no memory");
    hm_status s = hm_silu_and_mul_read(args, &c->a);
    if (s) {
        free(c);
        return s;
    }
    c->T = c->a.x.dtype, c->hidden = c->a.out.shape[c->a.out.ndim - 1];
    *context = c;
    return HM_OK;
}

static double load(const context_t *c, int64_t row, int64_t i) {
    const hm_tensor *x = &c->a.x;
    return hm_load(c->T, (const char *)x->data +
                             (hm_row_offset(x, row) + i * x->stride[x->ndim - 1]) * (int64_t)hm_dtype_size(c->T));
}

static double silu(double g) { return g / (1 + hm_exp(-g)); }

/* to := g u / (1 + e^-g), or, for large |g|, a number that rounds as it does. g u is not 0. */
static void value_of(double g, double u, mpfr_t to) {
    if (g < -800) {
        mpfr_set_d(to, u < 0 ? 0x1p-1000 : -0x1p-1000, MPFR_RNDN);
        return;
    }
    mpfr_t t;
    mpfr_init2(t, mpfr_get_prec(to));
    if (g > 100) {
        mpfr_set_ui_2exp(t, 1, -150, MPFR_RNDN);
        mpfr_ui_sub(t, 1, t, MPFR_RNDN);
    } else {
        mpfr_set_d(t, -g, MPFR_RNDN);
        mpfr_exp(t, t, MPFR_RNDN);
        mpfr_add_ui(t, t, 1, MPFR_RNDN);
        mpfr_ui_div(t, 1, t, MPFR_RNDN);
    }
    mpfr_mul_d(t, t, g, MPFR_RNDN);
    mpfr_mul_d(to, t, u, MPFR_RNDN);
    mpfr_clear(t);
}

/* RN_T(p + offset) by MPFR. Five roundings make p; at least `bits` - 4 of its bits are right. */
static double round_mpfr(hm_dtype T, double g, double u, double offset) {
    double low = 0, high = 1;
    for (int bits = 400; low != high && bits <= 6400; bits *= 2) {
        mpfr_t p, error, end;
        mpfr_inits2(bits, p, error, end, (mpfr_ptr)0);
        value_of(g, u, p);
        mpfr_mul_2si(error, p, 8 - bits, MPFR_RNDA);
        mpfr_abs(error, error, MPFR_RNDN);
        mpfr_sub(end, p, error, MPFR_RNDD);
        mpfr_add_d(end, end, offset, MPFR_RNDD);
        low = hm_round_exact(end, T);
        mpfr_add(end, p, error, MPFR_RNDU);
        mpfr_add_d(end, end, offset, MPFR_RNDU);
        high = hm_round_exact(end, T);
        mpfr_clears(p, error, end, (mpfr_ptr)0);
    }
    return low;
}

static double end_round(hm_dtype T, double g, double u, double offset, hm_tier tier, int64_t *mpfr) {
    if (g == 0 || u == 0) return hm_round_to(T, offset) + 0.0;
    if (tier == HM_TIER_TWO) {
        double y = silu(g) * u, slack = 0x1p-48 * fabs(y) + 0x1p-51 * fabs(offset) + 0x1p-870;
        double low = hm_round_to(T, y + offset - slack), high = hm_round_to(T, y + offset + slack);
        if (low == high) return low + 0.0; /* no -0 in either tier */
    }
    ++*mpfr;
    return round_mpfr(T, g, u, offset) + 0.0;
}

/* Relative error of silu(g) before it is rounded or multiplied. */
static double error_of(double g, hm_arithmetic a) {
    double E = hm_exp(-g), w = isinf(E) ? 1 : E / (1 + E), d = a.f + 2 * a.u * fabs(g);
    double t = d < 0.5 ? w * d / (1 - d) * GROW : w; /* |g| > 2^20: silu is 0, or g, to binary64 */
    return ((1 + t) * hm_growth(a.u, +1, 2) * hm_growth(a.f, +1, 1) - 1) * GROW;
}

static bool subnormal_f32(double v) { return v != 0 && fabs(v) < 0x1p-126; }

static void include(double v, int64_t i, hm_golden_row *out) {
    out->lo[i] = fmin(out->lo[i], v), out->hi[i] = fmax(out->hi[i], v);
}

/* The product is rounded once; finite g and u. */
static void once(const context_t *c, double g, double u, int64_t i, hm_arithmetic a, hm_tier tier, hm_golden_row *out) {
    double s = silu(g), k = ((1 + error_of(g, a)) * hm_growth(a.u, +1, 1) - 1) * GROW;
    double radius = fabs(s * u) * k + (a.f32 ? 0x1p-126 * (fabs(u) + fabs(s) + 1) * GROW : 0);
    if (g == 0 || u == 0) radius = 0;
    out->lo[i] = end_round(c->T, g, u, -radius, tier, &out->mpfr);
    out->hi[i] = end_round(c->T, g, u, radius, tier, &out->mpfr);
    if (a.f32 && g <= LOST) include(0, i, out);
    if (a.f32 && fabs(s) >= F32_LIMIT) out->flags[i] |= HM_GOLD_RANGE_FREE;
}

/* The set of values v[0..n-1], ascending and distinct, as intervals of neighbours in T. */
static bool store_set(hm_dtype T, const double *v, int n, int64_t i, hm_golden_row *out) {
    hm_golden_parts set = {.index = i, .n = 0};
    for (int k = 0; k < n; k++) {
        if (set.n && hm_next_up(T, set.hi[set.n - 1]) == v[k]) set.hi[set.n - 1] = v[k];
        else set.lo[set.n] = set.hi[set.n] = v[k], set.n++;
    }
    out->lo[i] = v[0], out->hi[i] = v[n - 1];
    if (set.n < 2) return true;
    out->flags[i] |= HM_GOLD_GAPS;
    return hm_golden_add_parts(out, &set);
}

/* silu is rounded to T first; g is finite, u need not be. */
static bool each(const context_t *c, double g, double u, int64_t i, hm_arithmetic a, hm_tier tier, hm_golden_row *out) {
    double radius = fabs(silu(g)) * error_of(g, a) + (a.f32 ? 0x1p-126 : 0);
    if (g == 0) radius = 0;
    double low = end_round(c->T, g, 1, -radius, tier, &out->mpfr),
           high = end_round(c->T, g, 1, radius, tier, &out->mpfr);
    if (a.f32 && g <= LOST) low = fmin(low, 0), high = fmax(high, 0);
    if (isinf(u)) {
        double least = a.f32 ? 0x1p-126 : 0x1p-1000; /* an infinity times what is 0, or may be */
        out->lo[i] = out->hi[i] = low == 0 && high == 0 ? NAN : g * u;
        if (low == 0 && high == 0) out->flags[i] = HM_GOLD_NAN;
        else if (low < least && high > -least) out->flags[i] = HM_GOLD_RANGE_FREE;
        return true;
    }
    double v[HM_MAX_PARTS], s = low;
    int n = 0, numbers = 0, steps = 0;
    /* what f32 may flush: u, s, or their product */
    bool lost = a.f32 && g != 0 && u != 0 &&
                (fabs(u) < F32_LEAST || (low < F32_LEAST && high > -F32_LEAST) ||
                 fmin(fabs(low * u), fabs(high * u)) < F32_LEAST);
    bool is_nan = false;
    for (; s <= high && steps < HM_MAX_PARTS; s = hm_next_up(c->T, s), steps++) {
        double y = hm_round_to(c->T, s * u) + 0.0;
        if (isnan(y)) is_nan = true;
        else numbers++;
        int k = n;
        while (k > 0 && v[k - 1] > y) k--;
        if (isnan(y) || (k > 0 && v[k - 1] == y)) continue;
        for (int m = n++; m > k; m--) v[m] = v[m - 1];
        v[k] = y;
    }
    if (s <= high || lost) { /* too many, or what is flushed: the hull */
        double y = hm_round_to(c->T, low * u), z = hm_round_to(c->T, high * u);
        is_nan |= isnan(y) || isnan(z);
        out->lo[i] = fmin(y, z) + 0.0, out->hi[i] = fmax(y, z) + 0.0;
        if (lost) include(0, i, out);
        numbers += !isnan(y) || !isnan(z);
    } else if (n && !store_set(c->T, v, n, i, out)) return false;
    if (a.f32 && fabs(silu(g)) >= F32_LIMIT) out->flags[i] |= HM_GOLD_RANGE_FREE;
    if (is_nan && !numbers) out->lo[i] = out->hi[i] = NAN, out->flags[i] = HM_GOLD_NAN;
    else if (is_nan) out->flags[i] |= HM_GOLD_RANGE_FREE;
    return true;
}

static bool element(const context_t *c, double g, double u, int64_t i, hm_class class, hm_tier tier,
                    hm_golden_row *out) {
    hm_arithmetic a = hm_class_arithmetic(class);
    out->flags[i] = 0;
    if (isnan(g) || isnan(u) || g == -INFINITY || isnan(g * u)) {
        out->lo[i] = out->hi[i] = NAN;
        out->flags[i] = HM_GOLD_NAN;
    } else if (isinf(g)) {
        out->lo[i] = out->hi[i] = g * u;
        if (a.f32 && subnormal_f32(u)) out->flags[i] = HM_GOLD_RANGE_FREE;
    } else if (c->a.round == HM_SILU_EACH) {
        return each(c, g, u, i, a, tier, out);
    } else if (isinf(u)) {
        out->lo[i] = out->hi[i] = g * u;
        /* an infinity times what may be 0 */
        if (a.f32 ? g <= LOST || fabs(silu(g)) < 0x1p-125 : g < -700) out->flags[i] = HM_GOLD_RANGE_FREE;
    } else {
        once(c, g, u, i, a, tier, out);
    }
    return true;
}

static double ideal_of(const context_t *c, double g, double u, hm_tier tier, int64_t *mpfr) {
    if (g == -INFINITY) return NAN;
    if (!isfinite(g)) return g * u;
    if (c->a.round == HM_SILU_EACH) return hm_round_to(c->T, end_round(c->T, g, 1, 0, tier, mpfr) * u) + 0.0;
    return isfinite(u) ? end_round(c->T, g, u, 0, tier, mpfr) : g * u;
}

/* The formula without a rounding, as binary64. */
static double exact_of(double g, double u) {
    double y = silu(g) * u;
    if (!isfinite(y) || fabs(y) > 0x1p-900 || g == 0 || u == 0) return y;
    mpfr_t p;
    mpfr_init2(p, 64);
    value_of(g, u, p);
    y = mpfr_get_d(p, MPFR_RNDN);
    mpfr_clear(p);
    return y;
}

static hm_status row_of(const void *context, int arg, int64_t row, hm_class class, hm_tier tier, hm_golden_row *out) {
    (void)arg; /* out is the only output */
    const context_t *c = context;
    for (int64_t i = 0; i < c->hidden; i++) {
        double g = load(c, row, i), u = load(c, row, c->hidden + i);
        if (!element(c, g, u, i, class, tier, out))
            return hm_fail(HM_NO_MEMORY, "golden: no memory for admissible sets");
        if (out->ideal) out->ideal[i] = ideal_of(c, g, u, tier, &out->mpfr);
        if (out->exact) out->exact[i] = exact_of(g, u);
    }
    return HM_OK;
}

static double distance(const void *context, int arg, int64_t row, int64_t index, double got) {
    (void)arg;
    const context_t *c = context;
    double g = load(c, row, index), u = load(c, row, c->hidden + index);
    if (!isfinite(g) || !isfinite(u) || !isfinite(got)) return INFINITY;
    if (g == 0 || u == 0) return hm_round_up4(fabs(got) / hm_ulp(c->T, 0));
    mpfr_t p, gap;
    mpfr_init2(p, 400), mpfr_init2(gap, 500);
    value_of(g, u, p);
    double ulp = hm_ulp(c->T, mpfr_get_d(p, MPFR_RNDZ));
    mpfr_sub_d(gap, p, got, MPFR_RNDA);
    mpfr_abs(gap, gap, MPFR_RNDN);
    mpfr_div_d(gap, gap, ulp, MPFR_RNDU);
    double d = hm_round_up4(mpfr_get_d(gap, MPFR_RNDU));
    mpfr_clears(p, gap, (mpfr_ptr)0);
    return d;
}

const hm_golden_op hm_silu_and_mul_golden = {"silu_and_mul", open_context, free, row_of, distance, NULL};
