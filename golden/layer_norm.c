/* layer_norm: the admissible set of each element.
 *
 * With n = hidden, m the mean, q_i = x_i - m, V the variance and D = V + eps, the exact result is y = q w / sqrt(D) +
 * b. As n q_i and n^2 D are dyadic rationals, y is +-(a root of root.h) + b, and an end of the interval is y + radius:
 * a root with another offset. Radii are binary64 numbers, computed by the same lines in both tiers and rounded up
 * (GROW).
 *
 * For arithmetic with relative errors u and f (division, root) and a chain of c additions:
 *   - g = (1 + u)^(c + 3) (1 + f) - 1: the mean passes c additions and a division, or a product with a rounded
 *     reciprocal; it is off by d = g A, A the mean magnitude. E = V + m^2 is the mean square, and A^2 <= E.
 *   - the variance, G = (1 + u)^(c + 6) (1 + f) - 1. Two passes: the mean of (x_i - m')^2 is V + (m' - m)^2 exactly,
 *     each term of it passes a difference (2 u), a square, c additions, a division: G V + (1 + G) d^2. About a value
 *     K: the sums are off by G (V + (m - K)^2) each, which the bound below covers if (m - K)^2 <= sqrt(V E). Welford:
 *     with e_k the error of the k-th mean, a term (x_k - m_{k-1}) (x_k - m_k) is off by |x_k - m_{k-1}| (e_{k-1} +
 *     e_k); e_k <= s A_k, A_k the mean magnitude so far, and by Hardy's inequality sum A_k^2 <= 4 sum x^2, by Cauchy's
 *     the whole is below s 2 sqrt(2 n V) sqrt(4 n E); merges in l levels add s 2 sqrt(n V) sqrt(l n E), together below
 *     9 s n sqrt(V E) for l <= 12. k updates and l merges make s <= (k + 6 (2 + ln k) + 8 l) u (6 u a step for the
 *     quotient that moves the mean, 8 u a merge): with 16 (k + l) <= c that is below 4/9 g. So the bound is G V + 4 g
 *     sqrt(V E) + 4 g^2 E for all.
 *   - the difference: x - m, or x s - m s: e = d + 3 u (|x| + |m| + d).
 *   - root (1 + u)(1 + f), three products u each: k.
 *   - with a bias: the last sum, and b - m s: u (|y - b| + 2 |b|).
 *   - where f32 may flush: 2^-120 on D, 2^-124 on q, 2^-122 max(1, rs, |q|, |w|) on the result; a subnormal w or b may
 *     be taken for 0.
 * D' lies in [D (1 - down), D (1 + up)], a variance is not negative, and for t <= 1/2
 * (1 - t)^-1/2 - 1 <= t/2 + 3/4 t^2 and 1 - (1 + t)^-1/2 <= t/2.
 *
 * Tier 1: the mean as a sum of two doubles. The errors of n additions, each below 2^-53 n A, are added up in binary64:
 * the sum is off by n^3 2^-106 A, and the mean, and with it q beside 2^-52 of itself, by less than n^2 2^-104 A. Where
 * that is below 2^-60 sqrt(V), or V = 0 because all elements are equal, D is within 2^-47 of itself and q w / sqrt(D)
 * within 2^-46. An end is taken from tier 1 if RN_T is the same on both sides of that error; else MPFR decides. */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "../op/layer_norm.h"
#include "op.h"
#include "root.h"

#define F32_LIMIT (0x1p128 * (1 - 0x1p-20))
#define GROW (1 + 0x1p-20) /* the roundings of a radius, and of what it is computed from */

typedef struct {
    hm_layer_norm_args a;
    hm_dtype T;
    double eps;
    int64_t n;
    double *w, *b; /* [n] each; NULL if absent */
    struct memo *memo;
} context_t;

typedef struct {
    const context_t *c;
    int64_t n;
    double *x, *q; /* [n] */
    double mean, magnitude, variance, D, rs;
    double q_error; /* of q, beside 2^-52 of itself */
    bool special;   /* NaN or an infinity in the row */
    bool equal;     /* all elements are */
    bool near;      /* tier 1 may be used */
    bool has_sums;
    mpfr_t sum, d; /* sum x; n sum x^2 - (sum x)^2 + eps n^2: exact */
} row_state;

/* What a class makes of a row. */
typedef struct {
    hm_arithmetic arithmetic;
    double g, k; /* errors of the mean, and of root and products */
    double d;
    double above, below; /* of 1/sqrt(D') against 1/sqrt(D), relative; above may be inf */
    bool range_free;
} row_bounds;

enum { MEMO_ROWS = 16 };
struct memo {
    pthread_mutex_t lock;
    bool open;
    int64_t row;
    row_state s;
};

/* hi + lo = sum of terms, with the errors of the additions in lo. */
static void add(double v, double *hi, double *lo) {
    double next = *hi + v, part = next - *hi;
    *lo += (*hi - (next - part)) + (v - part);
    *hi = next;
}

static hm_status row_open(row_state *s, const context_t *c, int64_t row) {
    int64_t n = c->n;
    const hm_tensor *x = &c->a.x;
    *s = (row_state){.c = c, .n = n, .equal = true};
    s->x = malloc((size_t)(n + !n) * 2 * sizeof *s->x);
    if (!s->x) return hm_fail(HM_NO_MEMORY, "golden: no memory for a row of %lld elements", (long long)n);
    s->q = s->x + n;
    hm_load_row(x->dtype, (const char *)x->data + hm_row_offset(x, row) * (int64_t)hm_dtype_size(x->dtype),
                x->stride[x->ndim - 1], n, s->x);
    double hi = 0, lo = 0, squares = 0, error = 0;
    for (int64_t i = 0; i < n; i++) {
        s->special |= !isfinite(s->x[i]);
        s->equal &= s->x[i] == s->x[0];
        s->magnitude += fabs(s->x[i]);
        add(s->x[i], &hi, &lo);
    }
    if (s->special || n == 0) return HM_OK;
    double count = (double)n, low;
    s->magnitude /= count;
    s->mean = s->equal ? s->x[0] : hi / count;
    low = s->equal ? 0 : (fma(-s->mean, count, hi) + lo) / count;
    for (int64_t i = 0; i < n; i++) {
        double d = s->x[i] - s->mean, part = d - s->x[i];
        s->q[i] = d + ((s->x[i] - (d - part)) + (-s->mean - part) - low);
        add(s->q[i] * s->q[i], &squares, &error);
    }
    s->variance = (squares + error) / count;
    s->D = s->variance + c->eps, s->rs = 1 / sqrt(s->D);
    s->q_error = s->equal ? 0 : count * count * 0x1p-104 * s->magnitude;
    s->near = s->equal || s->q_error <= 0x1p-60 * sqrt(s->variance);
    return HM_OK;
}

static void row_close(row_state *s) {
    if (s->has_sums) mpfr_clears(s->sum, s->d, (mpfr_ptr)0);
    free(s->x);
}

static row_bounds bounds_of(const row_state *s, hm_class class) {
    row_bounds r = {.arithmetic = hm_class_arithmetic(class)};
    double u = r.arithmetic.u, f = r.arithmetic.f, V = s->variance, E = V + s->mean * s->mean;
    int64_t chain = hm_class_chain(class, s->n) + (s->n > 1 << 24);
    double flush = r.arithmetic.f32 ? 0x1p-120 : 0;
    r.g = (hm_growth(u, +1, chain + 3) * hm_growth(f, +1, 1) - 1) * GROW;
    r.k = (hm_growth(u, +1, 4) * hm_growth(f, +1, 1) - 1) * GROW;
    double G = (hm_growth(u, +1, chain + 6) * hm_growth(f, +1, 1) - 1) * GROW;
    r.d = r.g * s->magnitude * GROW;
    double off = (G * V + 4 * r.g * sqrt(V * E) + 4 * r.g * r.g * E) * GROW;
    double up = ((off + flush) / s->D + 2 * u) * GROW, down = ((fmin(off, V) + flush) / s->D + 2 * u) * GROW;
    r.below = up <= 0x1p-6 ? up / 2 : (1 - 1 / sqrt(1 + up)) * GROW;
    if (down <= 0x1p-6) r.above = (down / 2 + 0.75 * down * down) * GROW;
    else r.above = down < 1 - 0x1p-16 ? (1 / sqrt(1 - down) - 1) * GROW : INFINITY;
    if (r.arithmetic.f32) {
        double n = (double)s->n;
        r.range_free = n * s->magnitude * (1 + r.g) >= F32_LIMIT || 4 * n * (V + off) >= F32_LIMIT || s->D < 8 * flush;
    }
    return r;
}

static void sums_of(row_state *s) {
    if (s->has_sums) return;
    mpfr_t t;
    int inexact = 0;
    mpfr_init2(t, HM_SUM_BITS), mpfr_init2(s->sum, HM_SUM_BITS), mpfr_init2(s->d, HM_SUM_BITS);
    mpfr_set_zero(s->sum, 1), mpfr_set_zero(s->d, 1);
    for (int64_t i = 0; i < s->n; i++) {
        inexact |= mpfr_add_d(s->sum, s->sum, s->x[i], MPFR_RNDN);
        mpfr_set_d(t, s->x[i], MPFR_RNDN);
        inexact |= mpfr_sqr(t, t, MPFR_RNDN) | mpfr_add(s->d, s->d, t, MPFR_RNDN);
    }
    inexact |= mpfr_mul_si(s->d, s->d, s->n, MPFR_RNDN);
    inexact |= mpfr_sqr(t, s->sum, MPFR_RNDN) | mpfr_sub(s->d, s->d, t, MPFR_RNDN);
    mpfr_set_d(t, s->c->eps, MPFR_RNDN);
    inexact |= mpfr_mul_si(t, t, s->n, MPFR_RNDN) | mpfr_mul_si(t, t, s->n, MPFR_RNDN);
    inexact |= mpfr_add(s->d, s->d, t, MPFR_RNDN);
    mpfr_clear(t);
    if (inexact) __builtin_trap(); /* HM_SUM_BITS is too small */
    s->has_sums = true;
}

static double weight_of(const row_state *s, int64_t i) { return s->c->w ? s->c->w[i] : 1; }
static double bias_of(const row_state *s, int64_t i) { return s->c->b ? s->c->b[i] : 0; }

/* The root |q w| / sqrt(D) + offset; returns the sign of q w. w is finite. */
static int root_of(row_state *s, int64_t i, double offset, hm_root *root) {
    sums_of(s);
    mpfr_set_d(root->q, s->x[i], MPFR_RNDN);
    int inexact = mpfr_mul_si(root->q, root->q, s->n, MPFR_RNDN) | mpfr_sub(root->q, root->q, s->sum, MPFR_RNDN) |
                  mpfr_mul_d(root->q, root->q, weight_of(s, i), MPFR_RNDN);
    if (inexact) __builtin_trap();
    int sign = mpfr_sgn(root->q);
    mpfr_abs(root->q, root->q, MPFR_RNDN);
    mpfr_set_ui(root->v, 1, MPFR_RNDN);
    mpfr_set(root->d, s->d, MPFR_RNDN);
    root->offset = sign < 0 ? -offset : offset;
    hm_root_ready(root);
    return sign;
}

/* RN_T(q w / sqrt(D) + offset). */
static double end_round(row_state *s, int64_t i, double offset, hm_tier tier, int64_t *mpfr) {
    hm_dtype T = s->c->T;
    if (isinf(offset)) return offset;
    if (tier == HM_TIER_TWO && s->near) {
        double w = weight_of(s, i), y = s->q[i] * s->rs * w;
        double slack = 0x1p-46 * fabs(y) + 2 * s->q_error * s->rs * fabs(w) + 0x1p-50 * fabs(offset);
        double low = hm_round_to(T, y + offset - slack), high = hm_round_to(T, y + offset + slack);
        if (low == high) return low + 0.0; /* no -0 in either tier */
    }
    hm_root root;
    hm_root_init(&root);
    int sign = root_of(s, i, offset, &root);
    double r = hm_root_round(&root, T);
    hm_root_clear(&root);
    ++*mpfr;
    return (sign < 0 ? -r : r) + 0.0;
}

static bool subnormal_f32(double v) { return v != 0 && fabs(v) < 0x1p-126; }

/* |x_i - m'| is this much off. */
static double difference_error(const row_state *s, const row_bounds *r, int64_t i) {
    double e = r->d + 3 * r->arithmetic.u * (fabs(s->x[i]) + fabs(s->mean) + r->d) + s->q_error;
    return (e + (r->arithmetic.f32 ? 0x1p-124 : 0)) * GROW;
}

/* May an f32 intermediate of element i, in any order, leave the range? e: of difference_error. */
static bool may_overflow(const row_state *s, const row_bounds *r, int64_t i, double e) {
    double w = fmax(1, fabs(weight_of(s, i))), b = isfinite(bias_of(s, i)) ? fabs(bias_of(s, i)) : 0;
    double largest = (fabs(s->x[i]) + fabs(s->mean) + e) * (1 + r->above), scale = s->rs * (1 + r->above);
    return r->arithmetic.f32 && (r->range_free || !(largest * w < F32_LIMIT) || !(scale * w < F32_LIMIT) ||
                                 !(largest * s->rs * w + b < F32_LIMIT));
}

/* w or b is not finite. */
static void not_finite(const row_state *s, const row_bounds *r, int64_t i, hm_golden_row *out) {
    double w = weight_of(s, i), b = bias_of(s, i), y = isnan(w) || isnan(b) ? NAN : b;
    out->lo[i] = out->hi[i] = y;
    out->flags[i] = isnan(y) ? HM_GOLD_NAN : 0;
    bool unknown = isinf(w) || may_overflow(s, r, i, difference_error(s, r, i));
    if (!isnan(y) && unknown) out->flags[i] = HM_GOLD_UNSPECIFIED;
}

/* A variance that overflows makes the root 0, and the result the bias: that value too. */
static hm_status admit(double b, int64_t i, hm_golden_row *out) {
    double lo = out->lo[i], hi = out->hi[i];
    if (b >= lo && b <= hi) return HM_OK;
    hm_golden_parts set = {.index = i, .n = 2, .lo = {lo, b}, .hi = {hi, b}};
    if (b < lo) set = (hm_golden_parts){.index = i, .n = 2, .lo = {b, lo}, .hi = {b, hi}};
    out->lo[i] = set.lo[0], out->hi[i] = set.hi[1];
    out->flags[i] |= HM_GOLD_GAPS;
    return hm_golden_add_parts(out, &set) ? HM_OK : hm_fail(HM_NO_MEMORY, "golden: no memory for admissible sets");
}

static hm_status element(row_state *s, const row_bounds *r, int64_t i, hm_tier tier, hm_golden_row *out) {
    double w = fabs(weight_of(s, i)), b = bias_of(s, i), q = fabs(s->q[i]), u = r->arithmetic.u, rs = s->rs;
    if (!isfinite(w) || !isfinite(b)) {
        not_finite(s, r, i, out);
        return HM_OK;
    }
    double e = difference_error(s, r, i), most = (1 + r->above) * (1 + r->k);
    double over = q * (r->above + r->k + r->above * r->k) + e * most;
    double under = q > e ? q * (r->below + r->k) + e : q + (e - q) * most;
    over *= rs * w, under *= rs * w;
    double both = 0;
    if (s->c->b) both += u * (q * rs * w + over + 2 * fabs(b));
    if (r->arithmetic.f32) {
        both += 0x1p-122 * fmax(fmax(1, rs), fmax(q, w));
        if (subnormal_f32(w)) under = fmax(under, q * rs * w);
        if (subnormal_f32(b)) both += fabs(b);
    }
    over = (over + both) * GROW, under = (under + both) * GROW;
    bool boundless = !isfinite(r->above) || !isfinite(over); /* D' may be 0 */
    bool negative = (s->q[i] < 0) != (weight_of(s, i) < 0);
    double low = boundless ? -INFINITY : b - (negative ? over : under), /* nextafter: a sum of two doubles is rounded */
        high = boundless ? INFINITY : b + (negative ? under : over);
    if (w == 0) {
        bool lost = r->arithmetic.f32 && subnormal_f32(b);
        low = lost ? fmin(b, 0) : b, high = lost ? fmax(b, 0) : b;
    } else {
        low = nextafter(low, -INFINITY), high = nextafter(high, INFINITY);
    }
    out->lo[i] = end_round(s, i, low, tier, &out->mpfr);
    out->hi[i] = end_round(s, i, high, tier, &out->mpfr);
    bool free = may_overflow(s, r, i, e);
    out->flags[i] = free ? HM_GOLD_RANGE_FREE : 0;
    return free && s->c->b ? admit(hm_round_to(s->c->T, b), i, out) : HM_OK;
}

/* The formula without a rounding, as binary64. */
static double exact_of(row_state *s, int64_t i) {
    double w = weight_of(s, i), b = bias_of(s, i), y = s->q[i] * s->rs * w;
    if (!isfinite(w) || !isfinite(b)) return isinf(w) ? s->q[i] * w + b : w * b;
    if (s->near && fabs(y + b) > 0x1p-4 * fabs(y) && s->q_error < 0x1p-50 * fabs(s->q[i])) return y + b;
    hm_root root;
    hm_root_init(&root);
    double sign = root_of(s, i, b, &root) < 0 ? -1 : 1, v = sign * mpfr_get_d(root.near, MPFR_RNDN);
    hm_root_clear(&root);
    return v;
}

static void unknown_row(const row_state *s, hm_golden_row *out) {
    for (int64_t i = 0; i < s->n; i++) {
        out->lo[i] = out->hi[i] = NAN;
        out->flags[i] =
            s->special || isnan(weight_of(s, i)) || isnan(bias_of(s, i)) ? HM_GOLD_NAN : HM_GOLD_UNSPECIFIED;
        if (out->ideal) out->ideal[i] = NAN;
        if (out->exact) out->exact[i] = NAN;
    }
}

static hm_status row_of(const void *context, int arg, int64_t row, hm_class class, hm_tier tier, hm_golden_row *out) {
    (void)arg; /* out is the only output */
    row_state s;
    hm_status status = row_open(&s, context, row);
    if (status) return status;
    if (s.special || (s.equal && s.c->eps == 0)) unknown_row(&s, out);
    else {
        row_bounds r = bounds_of(&s, class);
        for (int64_t i = 0; i < s.n && !status; i++) {
            double w = weight_of(&s, i), b = bias_of(&s, i);
            status = element(&s, &r, i, tier, out);
            if (out->ideal)
                out->ideal[i] = isfinite(w) && isfinite(b) ? end_round(&s, i, b, tier, &out->mpfr) : exact_of(&s, i);
            if (out->exact) out->exact[i] = exact_of(&s, i);
        }
    }
    row_close(&s);
    return status;
}

static double distance_in(row_state *s, int64_t i, double got) {
    double w = weight_of(s, i), b = bias_of(s, i);
    if (s->special || (s->equal && s->c->eps == 0) || !isfinite(w) || !isfinite(b) || !isfinite(got)) return INFINITY;
    hm_root root;
    hm_root_init(&root);
    int sign = root_of(s, i, b, &root);
    double d = hm_root_distance(&root, s->c->T, sign < 0 ? -got : got);
    hm_root_clear(&root);
    return d;
}

static double distance(const void *context, int arg, int64_t row, int64_t index, double got) {
    (void)arg;
    const context_t *c = context;
    struct memo *m = &c->memo[row % MEMO_ROWS];
    pthread_mutex_lock(&m->lock);
    if (m->open && m->row != row) {
        row_close(&m->s);
        m->open = false;
    }
    if (!m->open) m->open = row_open(&m->s, c, row) == HM_OK;
    m->row = row;
    double d = m->open ? distance_in(&m->s, index, got) : INFINITY;
    pthread_mutex_unlock(&m->lock);
    return d;
}

static void close_context(void *context) {
    context_t *c = context;
    for (int k = 0; c->memo && k < MEMO_ROWS; k++) {
        if (c->memo[k].open) row_close(&c->memo[k].s);
        pthread_mutex_destroy(&c->memo[k].lock);
    }
    free(c->memo);
    free(c->w);
    free(c->b);
    free(c);
}

static bool load_channels(const hm_tensor *t, int64_t n, double **to) {
    if (t->dtype == HM_DTYPE_NONE) return true;
    *to = malloc((size_t)(n + !n) * sizeof **to);
    if (*to) hm_load_row(t->dtype, t->data, t->stride[0], n, *to);
    return *to != NULL;
}

static hm_status open_context(const void *args, int threads, void **context) {
    (void)threads;
    context_t *c = calloc(1, sizeof *c);
    if (!c) return hm_fail(HM_NO_MEMORY, "golden: no memory");
    hm_status s = hm_layer_norm_read(args, &c->a);
    if (s) {
        free(c);
        return s;
    }
    c->T = c->a.x.dtype, c->eps = (double)(float)c->a.eps, c->n = c->a.x.shape[c->a.x.ndim - 1];
    c->memo = calloc(MEMO_ROWS, sizeof *c->memo);
    for (int k = 0; c->memo && k < MEMO_ROWS; k++) pthread_mutex_init(&c->memo[k].lock, NULL);
    if (!c->memo || !load_channels(&c->a.weight, c->n, &c->w) || !load_channels(&c->a.bias, c->n, &c->b)) {
        close_context(c);
        return hm_fail(HM_NO_MEMORY, "golden: no memory for %lld channels", (long long)c->n);
    }
    *context = c;
    return HM_OK;
}

const hm_golden_op hm_layer_norm_golden = {"layer_norm", open_context, close_context, row_of, distance, NULL};
