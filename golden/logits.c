/* The logits of the sparse indexer.
 *
 * Scores are exact. An e4m3 value is m 2^(e-3), 8 <= m < 16 or a subnormal: an integer in units of 2^-9, below 2^18 of
 * them (448 = 229376 2^-9); e4m3fnuz the same in units of 2^-10. A product is an integer below 2^36 in units of 2^-18
 * (2^-20), and a sum of 2^17 of them is below 2^53: exact in binary64 in any order, and so are the sums of magnitudes.
 * What follows, a sum over heads of weights times scores, is kept in two doubles (error below 2^-95 of the sum of
 * magnitudes), and its radius in one, rounded upward by a factor 1 + 2^-30, far more than the few hundred roundings of
 * 2^-53 that go into it.
 *
 * Radii. Let t_j be the products of one head, t their sum, T the sum of |t_j|.
 *   f32 in any order   every one of the at most c additions that a term passes through is off by u = 2^-24:
 *                      |score - t| <= ((1+u)^c - 1) T. Products are exact (8 bits).
 *   tensor cores       F fraction bits: S+ and S- the sums of the positive and of the negative |t_j|, A the larger,
 *                      U = 2^(floor(log2 A) - F). An accumulator is at most A, and a product that is aligned to it loses what
 *                      lies below U, toward zero: nothing if it is a multiple of U, else less than min(|t_j|, U). Each of
 *                      the N = ceil(head_dim / k_min) accumulations and the result are cut or rounded once more, by at most
 *                      2 N U in all for F = 23 (k_min = 8) and N U for F = 13 (k_min = 32).
 *   head sum           a term w max(score, 0) passes through its product, at most H - 1 additions, the scale and its place
 *                      before or behind the sum: H + 3 roundings.
 *   flushes            each of the 2 H + 4 operations may lose 2^-126, grown by the factors that come after it. */
#include "logits.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "../op/isa.h"

typedef struct {
    hm_logits_call call;
    double value[256];
} context_t;

hm_status hm_logits_golden_open(hm_status (*read)(const void *args, hm_logits_call *call), const void *args,
                                void **context) {
    context_t *c = calloc(1, sizeof *c);
    if (!c) return hm_fail(HM_NO_MEMORY, "golden: no memory");
    hm_status s = read(args, &c->call);
    for (int code = 0; code < 256 && !s; code++) c->value[code] = hm_load8(c->call.codes, (uint8_t)code);
    if (s) free(c);
    else *context = c;
    return s;
}

void hm_logits_golden_close(void *context) { free(context); }

/* ---- scores ---- */

/* Of every head: the sum of the products, and of their magnitudes. */
HM_INLINE void sums_body(const double *q, const double *k, int64_t heads, int64_t n, double *sum, double *magnitude) {
    for (int64_t h = 0; h < heads; h++) {
        const double *restrict v = q + h * n;
        double s = 0, m = 0;
#pragma omp simd reduction(+ : s, m)
        for (int64_t d = 0; d < n; d++) {
            double t = v[d] * k[d];
            s += t, m += fabs(t);
        }
        sum[h] = s, magnitude[h] = m;
    }
}
HM_DISPATCH(sums, (const double *q, const double *k, int64_t heads, int64_t n, double *sum, double *magnitude),
            sums_body, (q, k, heads, n, sum, magnitude))

/* What the positive and the negative products of one head lose below unit U; |t| / U < 2^51. */
HM_INLINE void losses_body(const double *q, const double *k, int64_t n, double U, double *positive, double *negative) {
    double up = 0, down = 0, inverse = 1 / U;
#pragma omp simd reduction(+ : up, down)
    for (int64_t d = 0; d < n; d++) {
        double t = q[d] * k[d], r = t * inverse, m = fabs(t);
        double whole = (r + 0x1.8p52) - 0x1.8p52; /* to the nearest integer */
        double loss = whole == r ? 0 : m < U ? m : U;
        up += t > 0 ? loss : 0;
        down += t < 0 ? loss : 0;
    }
    *positive = up, *negative = down;
}
HM_DISPATCH(losses, (const double *q, const double *k, int64_t n, double U, double *positive, double *negative),
            losses_body, (q, k, n, U, positive, negative))

static double floor_power(double v) { /* 2^floor(log2 v), v > 0 normal */
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    bits &= UINT64_C(0x7FF0000000000000);
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* A class, and how far its chains of additions carry: relative to the sum of magnitudes of a score, and of the heads.
 */
typedef struct {
    hm_class class;
    double of_score, of_sum;
} arithmetic;

static arithmetic arithmetic_of(hm_class class, const hm_logits_call *c) {
    int64_t chain = class == HM_WIDE ? 0 : hm_class_chain(class, c->head_dim);
    double u = class == HM_WIDE ? 0x1p-53 : 0x1p-24;
    return (arithmetic){class, hm_growth(u, 1, chain < c->head_dim ? chain : c->head_dim) - 1,
                        hm_growth(u, 1, c->heads + 3) - 1};
}

typedef struct {
    double *q, *k, *sum, *magnitude, *weight, *low, *high; /* low, high: of each head's score */
    uint8_t *codes;
    double *block;
} scratch;

static bool make(const hm_logits_call *c, scratch *s) {
    size_t heads = (size_t)c->heads, n = (size_t)c->head_dim;
    s->block = malloc((heads * n + n + 5 * heads) * sizeof *s->block + n + 1);
    if (!s->block) return false;
    s->q = s->block, s->k = s->q + heads * n, s->sum = s->k + n, s->magnitude = s->sum + heads;
    s->weight = s->magnitude + heads, s->low = s->weight + heads, s->high = s->low + heads;
    s->codes = (uint8_t *)(s->high + heads);
    return true;
}

static void tensor_core(const hm_logits_call *c, const scratch *s, int64_t h, int bits, double *low, double *high) {
    double t = s->sum[h], plus = (s->magnitude[h] + t) / 2, minus = (s->magnitude[h] - t) / 2,
           A = plus > minus ? plus : minus;
    *low = *high = t;
    if (A == 0) return;
    double U = floor_power(A) * (bits == 23 ? 0x1p-23 : 0x1p-13), up, down;
    int64_t k_min = bits == 23 ? 8 : 32, N = (c->head_dim + k_min - 1) / k_min;
    losses(s->q + h * c->head_dim, s->k, c->head_dim, U, &up, &down);
    double e = (bits == 23 ? 2 : 1) * (double)N * U;
    *low = t - up - e, *high = t + down + e;
}

static void score_interval(const hm_logits_call *c, const scratch *s, int64_t h, const arithmetic *a) {
    double t = s->sum[h];
    s->low[h] = s->high[h] = t;
    if (a->class == HM_WIDE) return;
    double radius = a->of_score * s->magnitude[h] * (1 + 0x1p-30);
    s->low[h] = t - radius, s->high[h] = t + radius;
    for (int bits = 23; bits >= 13 && a->class >= (bits == 23 ? HM_TC23 : HM_TC13); bits -= 10) {
        double low, high;
        tensor_core(c, s, h, bits, &low, &high);
        s->low[h] = low < s->low[h] ? low : s->low[h], s->high[h] = high > s->high[h] ? high : s->high[h];
    }
}

/* ---- one logit ---- */

typedef struct {
    double lo, hi, ideal, exact, exact_rest;
    bool range_free;
} logit;

/* hi + lo */
typedef struct {
    double hi, lo;
} two;

/* a + w x; the product and the sum of the upper parts are exact as two doubles */
static two add_product(two a, double w, double x) {
    double p = w * x, rest = fma(w, x, -p), s = a.hi + p, t = s - a.hi,
           lo = ((a.hi - (s - t)) + (p - t)) + (a.lo + rest);
    double hi = s + lo;
    return (two){hi, lo - (hi - s)};
}

static two scaled(two a, double factor) {
    double p = a.hi * factor, lo = fma(a.hi, factor, -p) + a.lo * factor, hi = p + lo;
    return (two){hi, lo - (hi - p)};
}

/* Rounded to f32 once: rounding to odd in between keeps ties apart. */
static double to_f32(two a) {
    uint64_t bits;
    memcpy(&bits, &a.hi, sizeof bits);
    if (a.lo != 0 && isfinite(a.hi) && !(bits & 1)) a.hi = nextafter(a.hi, a.lo > 0 ? INFINITY : -INFINITY);
    return hm_round_to(HM_F32, a.hi);
}

static double relu(double v) { return v > 0 ? v : 0; }

static logit judge(const hm_logits_call *c, const scratch *s, double scale, const arithmetic *of) {
    two exact = {0, 0}, low = {0, 0}, high = {0, 0};
    double most = 0, largest_weight = 0, largest_score = 0;
    bool f32 = of->class != HM_WIDE, subnormal = f32 && fabs(scale) < 0x1p-126;
    for (int64_t h = 0; h < c->heads; h++) {
        score_interval(c, s, h, of);
        double w = s->weight[h], a = relu(s->low[h]), b = relu(s->high[h]);
        exact = add_product(exact, w, relu(s->sum[h]));
        double ends[2] = {w < 0 ? b : a, w < 0 ? a : b};
        if (f32 && fabs(w) < 0x1p-126) ends[w < 0] = 0; /* a subnormal operand may be read as 0 */
        low = add_product(low, w, ends[0]), high = add_product(high, w, ends[1]);
        most += fabs(w) * b;
        largest_weight = fabs(w) > largest_weight ? fabs(w) : largest_weight;
        largest_score = b > largest_score ? b : largest_score;
    }
    two e = scaled(exact, scale);
    logit r = {.ideal = to_f32(e), .exact = e.hi, .exact_rest = e.lo};
    double grown = fabs(scale) > 1 ? fabs(scale) : 1, radius = (of->of_sum + 0x1p-50) * most * fabs(scale);
    if (f32) radius += (double)(2 * c->heads + 4) * 0x1p-126 * grown * (largest_weight > 1 ? largest_weight : 1);
    radius *= 1 + 0x1p-30;
    double ends[2] = {low.hi * scale, high.hi * scale};
    double lo = (ends[0] < ends[1] ? ends[0] : ends[1]) - radius, hi = (ends[0] < ends[1] ? ends[1] : ends[0]) + radius;
    if (subnormal && lo > 0) lo = 0;
    if (subnormal && hi < 0) hi = 0;
    r.lo = hm_round_to(HM_F32, lo), r.hi = hm_round_to(HM_F32, hi);
    if (f32 && r.lo > 0 && r.lo < 0x1p-126) r.lo = 0; /* a subnormal result may be flushed */
    if (f32 && r.hi < 0 && r.hi > -0x1p-126) r.hi = 0;
    if (!f32 && r.ideal < r.lo) r.lo = r.ideal;
    if (!f32 && r.ideal > r.hi) r.hi = r.ideal;
    double bound = most * (1 + 0x1p-10), limit = 0x1.fffffep127;
    r.range_free =
        f32 && (bound > limit || bound * fabs(scale) > limit || largest_score * fabs(scale) * (1 + 0x1p-10) > limit);
    return r;
}

/* ---- rows ---- */

static bool load_query(const context_t *c, int64_t row, scratch *s) { /* false: not all of it is finite */
    bool finite = true;
    for (int64_t h = 0; h < c->call.heads; h++) {
        s->weight[h] = (double)hm_logits_weight(&c->call, row, h);
        finite &= isfinite(s->weight[h]) != 0;
        for (int64_t d = 0; d < c->call.head_dim; d++) {
            double v = c->value[*hm_logits_query(&c->call, row, h, d)];
            s->q[h * c->call.head_dim + d] = v;
            finite &= !isnan(v);
        }
    }
    return finite;
}

static bool load_key(const context_t *c, int64_t row, int64_t key, scratch *s, double *scale) {
    *scale = (double)hm_logits_key(&c->call, row, key, s->codes);
    bool finite = isfinite(*scale);
    for (int64_t d = 0; d < c->call.head_dim; d++) {
        s->k[d] = c->value[s->codes[d]];
        finite &= !isnan(s->k[d]);
    }
    return finite;
}

static void judge_column(const context_t *c, int64_t row, int64_t i, int64_t shift, const arithmetic *of, bool finite,
                         scratch *s, hm_golden_row *out) {
    double scale;
    if (!load_key(c, row, i + shift, s, &scale) || !finite) {
        out->flags[i] = HM_GOLD_UNSPECIFIED;
        return;
    }
    sums(s->q, s->k, c->call.heads, c->call.head_dim, s->sum, s->magnitude);
    logit r = judge(&c->call, s, scale, of);
    out->lo[i] = r.lo, out->hi[i] = r.hi;
    if (r.range_free) out->flags[i] = HM_GOLD_RANGE_FREE;
    if (out->ideal) out->ideal[i] = r.ideal;
    if (out->exact) out->exact[i] = r.exact;
}

hm_status hm_logits_golden_row(const void *context, int arg, int64_t row, hm_class class, hm_tier tier,
                               hm_golden_row *out) {
    (void)arg, (void)tier; /* one output; two doubles decide everything */
    const context_t *c = context;
    int64_t first, end, shift, work = c->call.width * c->call.heads * c->call.head_dim;
    arithmetic of = arithmetic_of(class, &c->call);
    int failed = 0;
    hm_logits_columns_of(&c->call, row, &first, &end, &shift);
#pragma omp parallel reduction(+ : failed) if (work > 1 << 24) /* one long row; many rows are shared out by the judge */
    {
        scratch s;
        bool made = make(&c->call, &s), finite = made && load_query(c, row, &s);
        failed += !made;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < c->call.width; i++) {
            bool inside = i >= first && i < end;
            out->lo[i] = out->hi[i] = -INFINITY;
            out->flags[i] = !inside && c->call.outside == HM_LOGITS_LEAVE ? HM_GOLD_UNSPECIFIED : 0;
            if (out->ideal) out->ideal[i] = -INFINITY;
            if (out->exact) out->exact[i] = -INFINITY;
            if (inside && made) judge_column(c, row, i, shift, &of, finite, &s, out);
        }
        if (made) free(s.block);
    }
    return failed ? hm_fail(HM_NO_MEMORY, "golden: no memory for a query") : HM_OK;
}

double hm_logits_golden_distance(const void *context, int arg, int64_t row, int64_t index, double got) {
    (void)arg;
    const context_t *c = context;
    scratch s;
    double scale, d = INFINITY;
    int64_t first, end, shift;
    if (!make(&c->call, &s)) return INFINITY;
    hm_logits_columns_of(&c->call, row, &first, &end, &shift);
    bool finite =
        load_query(c, row, &s) && index >= first && index < end && load_key(c, row, index + shift, &s, &scale);
    if (finite) {
        sums(s.q, s.k, c->call.heads, c->call.head_dim, s.sum, s.magnitude);
        arithmetic of = arithmetic_of(HM_WIDE, &c->call);
        logit r = judge(&c->call, &s, scale, &of);
        d = fabs((got - r.exact) - r.exact_rest) / hm_ulp(HM_F32, r.exact);
    }
    free(s.block);
    return isfinite(d) ? hm_round_up4(d == 0 ? 0 : nextafter(d, INFINITY)) : INFINITY;
}
