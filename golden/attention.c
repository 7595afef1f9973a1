/* Softmax attention of one head: y_d = N_d / D with N_d = sum p_j v_jd, p_j = exp(s_j - m), D = l + sigma, l = sum p_j,
 * sigma = exp(sink - m) (0 without a sink); and lse = m + ln l.
 *
 * Radii. u and f are the class's bounds of an addition or multiplication, and of a division, exponential or logarithm
 * (golden/op.h). A computed y is a ratio, so that whatever is common to all p_j cancels: the maximum that they are taken against,
 * and its rounding.
 *   score      |s_j' - s_j| <= scale rho_j with rho_j of dot.h, and one rounding by the scale.
 *   argument   exp2 with c = RN(scale RN(log2 e)), or exp: the product is off by u |s_j|, the constant by 2 u |s_j - m|, the
 *              difference by u |s_j - m|; that of the maximum by u |m|, if it is not the same in all blocks. So
 *                  d_j = u (|s_j| + |m| + 3 (m - s_j)) + scale rho_j.
 *   rescaling  against a running maximum, at most R = ceil(n / 16) times: each a rounded product with a rounded exponential,
 *              (1 + f)(1 + u), whose arguments telescope to m - m_j, counted in 3 (m - s_j).
 *   merging    of partial results, by two levels: weights exp(lse_i - lse'), lse_i being rounded (u (|lse_i| + |m|), where
 *              |lse_i| <= |s_j| + |lse| + |m|) and its logarithm off by f (1 + ln n); exponential, product and division: 3 f.
 *              The largest weight is 1 but for e^d_j: where scores are so large that this passes e^80 (in binary64:
 *              e^700), an exponential may overflow, and the head is range-free.
 *   together   |p_j' / p_j - 1| <= eps_j = e^(d_j + merging) (1 + f)^(R + 7) (1 + u)^(R + 4) - 1, and 2^-126 more where f32 may
 *              flush. With p in bf16 a weight is off by 2^-8 more, in N_d alone, or by 2^-134 where that is more. Both
 *              losses are of weights against the kernel's own maximum: if that is the sink, sigma times as much of p_j.
 *   sums       l: a chain of the class. N_d: as a dot product (dot.h) of p_j' and v_jd.
 *   sink       sigma: u (|sink| + |m| + 3 |sink - m|) and f; or the factor 1 / (1 + exp(sink - lse)) behind the division, which
 *              adds the error of lse.
 *   quotient   |y' - y| <= (E_d + |y| E_D) / (D - E_D), and a division, a product.
 *   lse        E_l / (l - E_l) for ln l, f |ln l| for the logarithm and f for one whose error is absolute near 1 (lg2 on a GPU),
 *              4 u (|m| + |ln l| + |lse|) for constants and sums; the last two once more for each level of merging.
 *
 * Tier 1: binary64, with hm_exp and hm_log: the argument of an exponential is off by scale error_j (dot.h) + 2^-53 (|s_j| +
 * |s_j - m|), the exponential by 2^-51, sums by n 2^-53 of their magnitudes.
 * Tier 2: MPFR. Scores are exact: products of 16-bit values reach from 2^-266 to 2^256 and scale has 24 bits, so 1,200 bits hold
 * them. The rest has 200 bits, then 2,048; what is then still at a boundary of the dtype is that boundary. */
#include "attention.h"

#include <math.h>
#include <mpfr.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "../op/exp_log.h"
#include "dot.h"
#include "root.h"

#define F32_LIMIT (0x1p128 * (1 - 0x1p-20))
#define GROW (1 + 0x1p-20)

enum { FIRST_BITS = 200, LAST_BITS = 2048, LEVELS = 2 };

/* MPFR's side of one head. */
typedef struct {
    int bits; /* 0: not made yet */
    mpfr_t top, l, D;
    mpfr_t *p; /* [n] */
} exact_head;

typedef struct {
    int64_t token, head, n;
    double *block, *q, *key; /* key: n of width elements */
    double *s, *rho, *p;     /* [n]; rho: of scores, scaled */
    double *a_error, *term;  /* [n]; of the argument of exp, in tier 1 */
    double m, l, sink, sigma, lse, scale;
    double p_error, l_error; /* tier 1: relative, absolute */
    bool special;            /* not all is finite */
    exact_head exact;
} head_state;

typedef struct {
    hm_attention_call call;
    int lse_arg;
    pthread_mutex_t lock; /* of the memo, which serves distances */
    bool open;
    head_state memo;
} context_t;

/* ---- a head ---- */

static void head_close(head_state *s) {
    if (s->exact.bits) {
        mpfr_clears(s->exact.top, s->exact.l, s->exact.D, (mpfr_ptr)0);
        for (int64_t j = 0; j < s->n; j++) mpfr_clear(s->exact.p[j]);
        free(s->exact.p);
    }
    free(s->block);
}

static hm_status head_open(head_state *s, const hm_attention_call *c, int64_t token, int64_t head) {
    int64_t places = hm_attention_places(c, token), width = c->width;
    *s = (head_state){.token = token, .head = head, .scale = c->scale};
    for (int64_t i = 0; i < places; i++) s->n += hm_attention_there(c, token, i);
    s->block = malloc((size_t)(s->n * (width + 5) + width + 1) * sizeof *s->block);
    if (!s->block)
        return hm_fail(HM_NO_MEMORY, "golden: no memory for %lld keys of %lld elements", (long long)s->n,
                       (long long)width);
    s->q = s->block, s->s = s->q + width, s->rho = s->s + s->n, s->p = s->rho + s->n, s->a_error = s->p + s->n;
    s->term = s->a_error + s->n, s->key = s->term + s->n;
    int64_t j = 0;
    for (int64_t i = 0; i < places; i++)
        if (hm_attention_there(c, token, i)) hm_attention_key(c, token, i, s->key + j++ * width);
    hm_attention_query(c, token, head, s->q);
    s->sink = hm_attention_sink(c, head);
    s->special = isnan(s->sink) || s->sink == INFINITY;
    for (int64_t d = 0; d < width; d++) s->special |= !isfinite(s->q[d]);
    for (int64_t i = 0; i < s->n * width; i++) s->special |= !isfinite(s->key[i]);
    return HM_OK;
}

/* Scores of class c, and tier 1 of everything. */
static bool head_scores(head_state *s, const hm_attention_call *c, hm_class class) {
    bool range_free = false;
    s->m = -INFINITY;
    for (int64_t j = 0; j < s->n; j++) {
        const double *k = s->key + j * c->width;
        hm_dot dot = hm_dot_of(s->q, k, c->width);
        double below, above;
        hm_dot_radius(s->q, k, c->width, &dot, class, true, &below, &above);
        s->s[j] = dot.sum * s->scale;
        s->rho[j] = fmax(below, above) * fabs(s->scale);
        s->a_error[j] = dot.error * fabs(s->scale) + 0x1p-53 * fabs(s->s[j]);
        s->m = s->s[j] > s->m ? s->s[j] : s->m;
        range_free |= 4 * (dot.magnitude * (1 + fabs(s->scale)) + s->rho[j]) >= F32_LIMIT;
    }
    s->l = s->l_error = s->p_error = 0;
    for (int64_t j = 0; j < s->n; j++) {
        s->p[j] = hm_exp(s->s[j] - s->m);
        double e = s->a_error[j] + 0x1p-53 * (s->m - s->s[j]) + 0x1p-51;
        s->p_error = fmax(s->p_error, e < 1 ? e * (1 + e) : 1e300);
        s->l += s->p[j];
    }
    s->l_error = s->l * (s->p_error + (double)s->n * 0x1p-53) * GROW;
    s->lse = s->n ? s->m + hm_log(s->l) : INFINITY;
    s->sigma = hm_exp(s->sink - s->m);
    return range_free && class != HM_WIDE;
}

/* ---- MPFR ---- */

/* to = <q, key j> scale, exactly */
static void exact_score(const head_state *s, int64_t width, int64_t j, mpfr_t to) {
    mpfr_t t;
    mpfr_init2(t, 64);
    int inexact = 0;
    mpfr_set_zero(to, 1);
    for (int64_t d = 0; d < width; d++) {
        mpfr_set_d(t, s->q[d], MPFR_RNDN);
        inexact |= mpfr_mul_d(t, t, s->key[j * width + d], MPFR_RNDN);
        inexact |= mpfr_add(to, to, t, MPFR_RNDN);
    }
    inexact |= mpfr_mul_d(to, to, s->scale, MPFR_RNDN);
    mpfr_clear(t);
    if (inexact) __builtin_trap(); /* HM_SUM_BITS is too small */
}

/* Everything of a head that its elements share, to `bits` bits: each p_j, l and D within 2^(4 - bits) (n + 4) relative. */
static hm_status exact_open(head_state *s, int64_t width, int bits) {
    exact_head *e = &s->exact;
    if (e->bits == bits) return HM_OK;
    mpfr_t *score = malloc((size_t)(s->n + 1) * sizeof *score), gap;
    if (!score) return hm_fail(HM_NO_MEMORY, "golden: no memory for %lld scores", (long long)s->n);
    if (!e->bits) {
        e->p = malloc((size_t)(s->n + 1) * sizeof *e->p);
        if (!e->p) {
            free(score);
            return hm_fail(HM_NO_MEMORY, "golden: no memory for %lld weights", (long long)s->n);
        }
        mpfr_inits2(HM_SUM_BITS, e->top, (mpfr_ptr)0);
        mpfr_inits2(bits, e->l, e->D, (mpfr_ptr)0);
        for (int64_t j = 0; j < s->n; j++) mpfr_init2(e->p[j], bits);
    }
    e->bits = bits;
    mpfr_set_prec(e->l, bits), mpfr_set_prec(e->D, bits);
    mpfr_init2(gap, HM_SUM_BITS + 64);
    for (int64_t j = 0; j < s->n; j++) {
        mpfr_init2(score[j], HM_SUM_BITS);
        exact_score(s, width, j, score[j]);
        if (j == 0 || mpfr_cmp(score[j], e->top) > 0) mpfr_set(e->top, score[j], MPFR_RNDN);
    }
    mpfr_set_zero(e->l, 1);
    for (int64_t j = 0; j < s->n; j++) {
        mpfr_set_prec(e->p[j], bits);
        mpfr_sub(gap, score[j], e->top, MPFR_RNDN);
        mpfr_exp(e->p[j], gap, MPFR_RNDN);
        mpfr_add(e->l, e->l, e->p[j], MPFR_RNDN);
        mpfr_clear(score[j]);
    }
    mpfr_set(e->D, e->l, MPFR_RNDN);
    if (isfinite(s->sink)) {
        mpfr_t sigma;
        mpfr_init2(sigma, bits);
        mpfr_d_sub(gap, s->sink, e->top, MPFR_RNDN);
        mpfr_exp(sigma, gap, MPFR_RNDN);
        mpfr_add(e->D, e->D, sigma, MPFR_RNDN);
        mpfr_clear(sigma);
    }
    mpfr_clear(gap);
    free(score);
    return HM_OK;
}

/* y = out[d], or lse if d < 0; error: a bound of |y - exact|. Both have their own precision. */
static void exact_value(const head_state *s, int64_t width, int64_t d, mpfr_t y, mpfr_t error) {
    const exact_head *e = &s->exact;
    mpfr_set_prec(y, e->bits), mpfr_set_prec(error, 64);
    if (d < 0) {
        mpfr_t top;
        mpfr_init2(top, 64);
        mpfr_log(y, e->l, MPFR_RNDN);
        mpfr_add(y, y, e->top, MPFR_RNDN);
        mpfr_abs(top, e->top, MPFR_RNDU);
        mpfr_abs(error, y, MPFR_RNDU);
        mpfr_add(error, error, top, MPFR_RNDU);
        mpfr_add_ui(error, error, 1, MPFR_RNDU);
        mpfr_clear(top);
    } else {
        mpfr_t t;
        mpfr_init2(t, e->bits);
        mpfr_set_zero(y, 1), mpfr_set_zero(error, 1);
        for (int64_t j = 0; j < s->n; j++) {
            mpfr_mul_d(t, e->p[j], s->key[j * width + d], MPFR_RNDN);
            mpfr_add(y, y, t, MPFR_RNDN);
            mpfr_abs(t, t, MPFR_RNDN);
            mpfr_add(error, error, t, MPFR_RNDU);
        }
        mpfr_div(y, y, e->D, MPFR_RNDN);
        mpfr_div(error, error, e->D, MPFR_RNDU);
        mpfr_clear(t);
    }
    mpfr_mul_ui(error, error, (unsigned long)s->n + 16, MPFR_RNDU);
    mpfr_mul_2si(error, error, 5 - e->bits, MPFR_RNDU);
}

/* RN_dtype(y + offset) by MPFR. */
static hm_status exact_round(head_state *s, int64_t width, int64_t d, double offset, hm_dtype dtype, double *to) {
    hm_status status = HM_OK;
    mpfr_t y, error, low, high;
    mpfr_inits2(64, y, error, (mpfr_ptr)0);
    mpfr_inits2(LAST_BITS + 64, low, high, (mpfr_ptr)0);
    for (int bits = s->exact.bits ? s->exact.bits : FIRST_BITS;; bits = LAST_BITS) {
        if ((status = exact_open(s, width, bits))) break;
        exact_value(s, width, d, y, error);
        mpfr_sub(low, y, error, MPFR_RNDD), mpfr_add(high, y, error, MPFR_RNDU);
        mpfr_add_d(low, low, offset, MPFR_RNDD), mpfr_add_d(high, high, offset, MPFR_RNDU);
        double a = hm_round_exact(low, dtype), b = hm_round_exact(high, dtype);
        *to = a;
        if (a == b) break;
        if (bits < LAST_BITS) continue;
        mpfr_add_d(high, y, offset, MPFR_RNDN); /* so near to a boundary that it is one */
        mpfr_prec_round(high, LAST_BITS - 200, MPFR_RNDN);
        *to = hm_round_exact(high, dtype);
        break;
    }
    mpfr_clears(y, error, low, high, (mpfr_ptr)0);
    return status;
}

/* ---- elements ---- */

/* RN_dtype(y + offset) + 0, y within slack of the exact value. */
static hm_status end_round(head_state *s, int64_t width, int64_t d, double y, double slack, double offset,
                           hm_dtype dtype, hm_tier tier, int64_t *mpfr, double *to) {
    if (isinf(offset)) {
        *to = offset;
        return HM_OK;
    }
    if (tier == HM_TIER_TWO && isfinite(y)) {
        double wide = slack + 0x1p-50 * (fabs(y) + fabs(offset));
        double low = hm_round_to(dtype, y + offset - wide), high = hm_round_to(dtype, y + offset + wide);
        if (low == high) {
            *to = low + 0.0;
            return HM_OK;
        }
    }
    ++*mpfr;
    hm_status status = exact_round(s, width, d, offset, dtype, to);
    *to += 0.0;
    return status;
}

/* y as binary64, within HM_EXACT_ERROR of itself. */
static hm_status exact_of(head_state *s, int64_t width, int64_t d, double y, double slack, double *to) {
    *to = y;
    if (slack <= 0x1p-42 * fabs(y)) return HM_OK;
    hm_status status = exact_open(s, width, s->exact.bits ? s->exact.bits : FIRST_BITS);
    if (status) return status;
    mpfr_t v, error;
    mpfr_inits2(64, v, error, (mpfr_ptr)0);
    exact_value(s, width, d, v, error);
    *to = mpfr_cmpabs(v, error) <= 0 ? 0 : mpfr_get_d(v, MPFR_RNDN); /* what cancels to 200 bits is 0 */
    mpfr_clears(v, error, (mpfr_ptr)0);
    return HM_OK;
}

typedef struct {
    hm_arithmetic arithmetic;
    double *eps;      /* [n]; of each weight, relative */
    double largest;   /* of them */
    double l, D, lse; /* absolute errors */
    double flush;
    bool over; /* an exponential may overflow */
} head_bounds;

static void bounds_of(const head_state *s, hm_class class, head_bounds *b) {
    b->arithmetic = hm_class_arithmetic(class);
    double u = b->arithmetic.u, f = b->arithmetic.f, n = (double)s->n, R = ceil(n / 16), most = 0;
    double m = fabs(s->m), lse = fabs(s->lse), logs = 1 + 0.7 * log2(n + 1);
    double steps = hm_growth(f, +1, (int64_t)R + 7) * hm_growth(u, +1, (int64_t)R + 4);
    b->flush = b->arithmetic.f32 ? 0x1p-126 : 0;
    for (int64_t j = 0; j < s->n; j++) most = fmax(most, s->rho[j]);
    double sum = 0;
    b->largest = 0;
    for (int64_t j = 0; j < s->n; j++) {
        double d = u * (fabs(s->s[j]) + m + 3 * (s->m - s->s[j]) + 8 * most) + s->rho[j];
        d += LEVELS * (u * 2 * (fabs(s->s[j]) + lse + m) + f * logs);
        b->over |= s->s[j] - s->m + d > (b->arithmetic.f32 ? 80 : 700);
        b->eps[j] = (hm_exp(d * GROW) * (1 + 0x1p-48) * steps - 1) * GROW;
        b->largest = fmax(b->largest, b->eps[j]);
        sum += s->p[j] * b->eps[j];
    }
    int64_t chain = hm_class_chain(class, s->n);
    double c = hm_growth(u, +1, (chain < s->n ? chain : s->n) + 2) - 1;
    b->l = (sum + c * (s->l + sum) + n * b->flush) * GROW;
    double l = s->l > b->l ? b->l / (s->l - b->l) : INFINITY, ln = fabs(s->lse - s->m);
    b->lse = l + (1 + LEVELS) * (f * ln + f + 4 * u * (m + ln + lse));
    b->lse *= GROW;
    b->D = b->l;
    if (isfinite(s->sink)) {
        double a = fabs(s->sink), away = u * (a + m + lse + 3 * fabs(s->sink - s->m) + 3 * fabs(s->sink - s->lse));
        double e = hm_exp((away + b->lse) * GROW) * (1 + 0x1p-48) * hm_growth(f, +1, 4) * hm_growth(u, +1, 4) - 1;
        b->D += s->sigma * e + (s->l + s->sigma) * (2 * f + 3 * u);
    }
    b->D *= GROW;
}

/* Radius of out[d]; y: its value, A: sum p |v| / D. */
static double radius_of(const head_state *s, const hm_attention_call *c, const head_bounds *b, hm_class class,
                        int64_t d, double y) {
    double E = 0, most = 0, f = b->arithmetic.f, u = b->arithmetic.u;
    for (int64_t j = 0; j < s->n; j++) {
        double v = s->key[j * c->width + d], e = b->eps[j];
        if (c->p == HM_P_BF16) e += (1 + e) * 0x1p-8;
        s->term[j] = s->p[j] * v;
        E += fabs(s->term[j]) * e;
        most = fmax(most, fabs(v));
    }
    hm_dot sum = hm_sum_of(s->term, s->n);
    double below, above, D = s->l + s->sigma;
    hm_sum_radius(s->term, s->n, &sum, class, false, &below, &above);
    double lost = b->arithmetic.f32 ? b->flush : c->p == HM_P_BF16 ? 0x1p-134 : 0; /* of a weight */
    E += fmax(below, above) * (1 + b->largest) * (1 + 0x1p-7);
    E += 2 * (double)s->n * lost * fmax(1, most) * fmax(1, s->sigma);
    if (!(b->D < D)) return INFINITY;
    double r = (E + fabs(y) * b->D) / (D - b->D);
    return (r + (fabs(y) + r) * (2 * f + 2 * u) + 2 * b->flush) * GROW;
}

static void unknown_row(const hm_golden_row *out, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        out->lo[i] = out->hi[i] = NAN;
        out->flags[i] = HM_GOLD_UNSPECIFIED;
        if (out->ideal) out->ideal[i] = NAN;
        if (out->exact) out->exact[i] = NAN;
    }
}

static void point(const hm_golden_row *out, int64_t i, double v) {
    out->lo[i] = out->hi[i] = v;
    out->flags[i] = 0;
    if (out->ideal) out->ideal[i] = v;
    if (out->exact) out->exact[i] = v;
}

/* One element that has been rounded at both ends; value d of a head, or its lse. */
static hm_status element(head_state *s, int64_t width, int64_t d, double y, double slack, double radius, hm_dtype dtype,
                         bool f32, bool range_free, hm_tier tier, int64_t i, hm_golden_row *out) {
    hm_status status;
    if ((status = end_round(s, width, d, y, slack, -radius, dtype, tier, &out->mpfr, &out->lo[i]))) return status;
    if ((status = end_round(s, width, d, y, slack, +radius, dtype, tier, &out->mpfr, &out->hi[i]))) return status;
    if (f32 && dtype != HM_F16 && out->lo[i] > 0 && out->lo[i] < 0x1p-126) out->lo[i] = 0; /* may be flushed */
    if (f32 && dtype != HM_F16 && out->hi[i] < 0 && out->hi[i] > -0x1p-126) out->hi[i] = 0;
    out->flags[i] = range_free ? HM_GOLD_RANGE_FREE : 0;
    if (out->ideal && (status = end_round(s, width, d, y, slack, 0, dtype, tier, &out->mpfr, &out->ideal[i])))
        return status;
    return out->exact ? exact_of(s, width, d, y, slack, &out->exact[i]) : HM_OK;
}

/* Tier 1 of lse and of an element of out. */
static double lse_slack(const head_state *s) {
    return (s->l_error / s->l * (1 + 0x1p-10) + 0x1p-50 * fabs(s->lse - s->m) + 0x1p-52 * fabs(s->lse)) * GROW;
}

static double value_of(const head_state *s, int64_t width, int64_t d, double *slack) {
    double N = 0, A = 0, D = s->l + s->sigma;
    for (int64_t j = 0; j < s->n; j++) {
        double t = s->p[j] * s->key[j * width + d];
        N += t, A += fabs(t);
    }
    double sigma_error = s->sigma * (0x1p-51 + 0x1p-53 * (fabs(s->sink - s->m)) + 0x1p-53 * (double)(s->n + 4));
    if (!isfinite(s->sink)) sigma_error = 0;
    double y = N / D, error = (s->l_error + sigma_error) / D;
    *slack = (A / D * (s->p_error + (double)(s->n + 2) * 0x1p-53) + fabs(y) * (error + 0x1p-52)) * (1 + 0x1p-10);
    if (!(error < 0x1p-12)) *slack = INFINITY;
    return y;
}

static hm_status out_row(head_state *s, const hm_attention_call *c, hm_class class, const head_bounds *b,
                         bool range_free, hm_tier tier, hm_golden_row *out) {
    hm_status status = HM_OK;
    hm_dtype T = c->out.dtype;
    bool f32 = class != HM_WIDE;
    for (int64_t d = 0; d < c->value_width && !status; d++) {
        if (s->n == 0 || s->sink - s->m > 600) { /* e^600 and more times the keys' weight: 0 in every dtype */
            point(out, d, 0);
            if (s->n && range_free) out->flags[d] = HM_GOLD_RANGE_FREE;
            continue;
        }
        double slack, y = value_of(s, c->width, d, &slack), radius = radius_of(s, c, b, class, d, y);
        bool over = f32 && 4 * (double)s->n * (fabs(y) + radius) * (s->l + s->sigma) >= F32_LIMIT;
        status = element(s, c->width, d, y, slack, radius, T, f32, range_free || over, tier, d, out);
        if (f32 && s->sigma > 0x1p120) { /* its reciprocal may be flushed */
            out->lo[d] = fmin(out->lo[d], 0), out->hi[d] = fmax(out->hi[d], 0);
        }
    }
    return status;
}

static hm_status lse_row(const context_t *x, int64_t token, hm_class class, hm_tier tier, hm_golden_row *out) {
    const hm_attention_call *c = &x->call;
    hm_status status = HM_OK;
    for (int64_t h = 0; h < c->heads && !status; h++) {
        head_state s;
        hm_golden_row one = *out;
        one.lo += h, one.hi += h, one.flags += h;
        one.ideal = out->ideal ? out->ideal + h : NULL, one.exact = out->exact ? out->exact + h : NULL;
        if ((status = head_open(&s, c, token, h))) return status;
        if (s.n == 0) point(&one, 0, INFINITY);
        else if (s.special) unknown_row(&one, 1);
        else {
            bool range_free = head_scores(&s, c, class);
            head_bounds b = {.eps = s.a_error};
            double slack = lse_slack(&s);
            bounds_of(&s, class, &b);
            status = element(&s, c->width, -1, s.lse, slack, b.lse, HM_F32, class != HM_WIDE, range_free || b.over,
                             tier, 0, &one);
        }
        out->mpfr = one.mpfr;
        head_close(&s);
    }
    return status;
}

hm_status hm_attention_golden_row(const void *context, int arg, int64_t row, hm_class class, hm_tier tier,
                                  hm_golden_row *out) {
    const context_t *x = context;
    const hm_attention_call *c = &x->call;
    if (arg == x->lse_arg) return lse_row(x, row, class, tier, out);
    head_state s;
    hm_status status = head_open(&s, c, row / c->heads, row % c->heads);
    if (status) return status;
    if (s.special && s.n) unknown_row(out, c->value_width);
    else {
        bool range_free = head_scores(&s, c, class);
        head_bounds b = {.eps = s.a_error}; /* has been used up by now */
        bounds_of(&s, class, &b);
        status = out_row(&s, c, class, &b, range_free || b.over, tier, out);
    }
    head_close(&s);
    return status;
}

/* ---- distance ---- */

static double distance_in(head_state *s, const hm_attention_call *c, int64_t d, hm_dtype dtype, double got) {
    if (s->n == 0 || s->special || !isfinite(got)) return s->n == 0 && d >= 0 && got == 0 ? 0 : INFINITY;
    if (exact_open(s, c->width, s->exact.bits ? s->exact.bits : FIRST_BITS)) return INFINITY;
    mpfr_t y, error, gap;
    mpfr_inits2(64, y, error, (mpfr_ptr)0);
    mpfr_init2(gap, LAST_BITS + 64);
    exact_value(s, c->width, d, y, error);
    if (mpfr_cmpabs(y, error) <= 0) mpfr_set_zero(y, 1);
    double ulp = hm_ulp(dtype, mpfr_get_d(y, MPFR_RNDZ));
    mpfr_sub_d(gap, y, got, MPFR_RNDN);
    double r = 0;
    if (mpfr_cmpabs(gap, error) > 0) {
        mpfr_abs(gap, gap, MPFR_RNDN);
        mpfr_div_d(gap, gap, ulp, MPFR_RNDU);
        mpfr_prec_round(gap, 13, MPFR_RNDU);
        r = mpfr_get_d(gap, MPFR_RNDU);
    }
    mpfr_clears(y, error, gap, (mpfr_ptr)0);
    return r;
}

double hm_attention_golden_distance(const void *context, int arg, int64_t row, int64_t index, double got) {
    context_t *x = (context_t *)context; /* the memo is behind its lock */
    const hm_attention_call *c = &x->call;
    bool lse = arg == x->lse_arg;
    int64_t token = lse ? row : row / c->heads, head = lse ? index : row % c->heads;
    pthread_mutex_lock(&x->lock);
    if (x->open && (x->memo.token != token || x->memo.head != head)) {
        head_close(&x->memo);
        x->open = false;
    }
    if (!x->open) {
        x->open = head_open(&x->memo, c, token, head) == HM_OK;
        if (x->open && !x->memo.special) head_scores(&x->memo, c, HM_WIDE);
    }
    double d = x->open ? distance_in(&x->memo, c, lse ? -1 : index, lse ? HM_F32 : c->out.dtype, got) : INFINITY;
    pthread_mutex_unlock(&x->lock);
    return d;
}

/* ---- contexts ---- */

hm_status hm_attention_golden_open(hm_status (*read)(const void *args, hm_attention_call *call), const void *args,
                                   int lse_arg, void **context) {
    context_t *x = calloc(1, sizeof *x);
    if (!x) return hm_fail(HM_NO_MEMORY, "golden: no memory");
    hm_status s = read(args, &x->call);
    if (s) {
        free(x);
        return s;
    }
    x->lse_arg = lse_arg;
    pthread_mutex_init(&x->lock, NULL);
    *context = x;
    return HM_OK;
}

void hm_attention_golden_close(void *context) {
    context_t *x = context;
    if (x->open) head_close(&x->memo);
    pthread_mutex_destroy(&x->lock);
    free(x);
}
