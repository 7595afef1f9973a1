/* indexer: the chain, judged at what it stores.
 *
 *   kv_cache   The norm gives each element of a key an interval [lo, hi] (golden of layer_norm). A rotation of two intervals lies
 *              between the values at their corners, as x c - y s is linear in each; f32 rounds three operations, each by at most
 *              2^-24 of |x c| + |y s|, or loses 2^-126; then it is rounded to T. The largest magnitude of a key lies between that
 *              of the lower and that of the upper ends, so that its scale is one of the powers of two from the one's to the other's;
 *              a code lies between those of its element's ends, for the scale that was stored.
 *   logits     Golden of fp8_paged_mqa_logits for the ideal codes and weights and the cache that was stored, and further out by
 *              sum_h dw_h relu(score_h) + sum_h |w_h| sum_d dq_hd |k_d|, times the key's scale: dq is how far a query's code
 *              may be off (golden of rotary_embedding gives its intervals, mostly points), dw how far a weight (golden of
 *              index_weights). Where the query's own scale may be another, codes are taken times their scale.
 *   indices    Golden of top_k_per_row for the logits that were stored.
 * Before anything was seen, the ideal cache and the ideal logits take their place; what then depends on a key that has several
 * possible codes is unspecified. */
#include "../op/indexer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "../op/layer_norm.h"
#include "../op/logits.h"
#include "../op/op.h"
#include "fp8.h"
#include "indexer_cache.h"

enum { DIM = HM_INDEXER_GROUP, KV_CACHE = 10, LOGITS = 11, INDICES = 12 };

typedef struct {
    int64_t slot, token;
} entry;

typedef struct {
    hm_indexer_args a;
    hm_indexer_cache cache;  /* as it was before */
    hm_indexer_steps ideal;  /* what is between the steps, as it ideally is */
    void *memory;            /* of that */
    unsigned char *seen;     /* the cache as it was stored, or ideally is: blocks side by side */
    float *logits;           /* as they were stored, or ideally are */
    bool observed[2];        /* was the cache; were the logits? */
    hm_indexer_cache stored; /* `seen` */
    hm_fp8_rule rule;        /* of keys; of queries but for its floor */
    entry *entries;          /* by slot */
    int64_t count;
    hm_golden *norm, *rotary, *weigh, *score, *select;
} context_t;

static void close_context(void *context) {
    context_t *c = context;
    hm_golden_close(c->norm), hm_golden_close(c->rotary), hm_golden_close(c->weigh);
    hm_golden_close(c->score), hm_golden_close(c->select);
    free(c->memory), free(c->seen), free(c->logits), free(c->entries);
    free(c);
}

static hm_status no_memory(void) { return hm_fail(HM_NO_MEMORY, "golden: no memory for a chain of calls"); }

/* ---- what the steps give ---- */

/* One row of a step's golden: n elements. */
typedef struct {
    double *lo, *hi, *ideal;
    unsigned char *flags;
} row_t;

static bool row_make(row_t *r, int64_t n) {
    r->lo = malloc((size_t)(3 * n + 1) * sizeof *r->lo);
    r->flags = malloc((size_t)n + 1);
    if (!r->lo || !r->flags) {
        free(r->lo), free(r->flags);
        return false;
    }
    r->hi = r->lo + n, r->ideal = r->hi + n;
    return true;
}

static void row_free(row_t *r) { free(r->lo), free(r->flags); }

static hm_status row_get(const hm_golden *g, int arg, int64_t row, hm_class class, hm_tier tier, row_t *r,
                         int64_t *mpfr) {
    hm_golden_row out = {.lo = r->lo, .hi = r->hi, .ideal = r->ideal, .flags = r->flags};
    hm_status s = hm_golden_row_get(g, arg, row, class, tier, &out);
    *mpfr += out.mpfr;
    free(out.parts);
    return s;
}

static void *element(const hm_tensor *t, int64_t row, int64_t i) { /* of a dense tensor */
    return (char *)t->data + (row * t->stride[t->ndim - 2] + i) * (int64_t)hm_dtype_size(t->dtype);
}

static int arg_named(const hm_op_info *op, const char *name) {
    for (int i = 0; i < op->nargs; i++)
        if (!strcmp(op->args[i].name, name)) return i;
    return -1;
}

/* Ideal values of an output of a step, row by row, into a dense tensor. */
static hm_status keep_ideal(const hm_golden *g, int arg, const hm_tensor *to) {
    int64_t n = to->shape[to->ndim - 1], rows = hm_tensor_elements(to) / (n ? n : 1), mpfr = 0;
    row_t r;
    hm_status s = HM_OK;
    if (!row_make(&r, n)) return no_memory();
    for (int64_t row = 0; row < rows && !s; row++) {
        s = row_get(g, arg, row, HM_WIDE, HM_TIER_TWO, &r, &mpfr);
        for (int64_t i = 0; i < n && !s; i++) hm_store(to->dtype, element(to, row, i), r.ideal[i]);
    }
    row_free(&r);
    return s;
}

static hm_status open_step(const hm_op_info *op, const void *args, const char *name, hm_golden **g,
                           const hm_tensor *to) {
    hm_status s = hm_golden_open(op, args, 0, g);
    return s || !to ? s : keep_ideal(*g, arg_named(op, name), to);
}

/* Codes and scales of the ideal queries. */
static void quantise_queries(const context_t *c) {
    const hm_indexer_steps *s = &c->ideal;
    hm_fp8_rule rule = c->rule;
    rule.floor = (double)1e-10f;
    int64_t rows = s->q_rotated.shape[0] * s->q_rotated.shape[1];
    for (int64_t row = 0; row < rows; row++) {
        const char *x = (const char *)s->q_rotated.data + row * DIM * 2;
        hm_fp8_scales scales = hm_fp8_scales_of(&rule, s->q_rotated.dtype, x, 1, DIM, HM_WIDE);
        double S = scales.nan || scales.infinite ? NAN : scales.ideal;
        hm_store(HM_F32, (char *)s->q_scale.data + 4 * row, S);
        for (int64_t d = 0; d < DIM; d++) {
            double v = hm_load(s->q_rotated.dtype, x + 2 * d);
            ((uint8_t *)s->q_codes.data)[row * DIM + d] = isfinite(S) ? hm_fp8_ideal_code(&rule, v, S) : 0x7F;
        }
    }
}

/* ---- keys ---- */

/* What one token's key may be. */
typedef struct {
    double lo[DIM], hi[DIM], ideal[DIM];
    double least, most; /* powers of two between which its scale is */
    double scale;       /* the ideal one */
    bool unspecified;
} key_set;

static void corners(double a, double b, double factor, double *lo, double *hi) {
    double x = a * factor, y = b * factor;
    *lo += x < y ? x : y, *hi += x < y ? y : x;
}

static void rotate_interval(const context_t *c, int64_t token, hm_class class, key_set *k) {
    const hm_tensor *table = &c->a.cos_sin_cache;
    int64_t E = table->shape[1] / 2, row = hm_integer_at(&c->a.positions, token) * table->stride[0];
    size_t size = hm_dtype_size(table->dtype);
    for (int64_t i = 0; i < E; i++) {
        int64_t ix = c->a.rope_dim_offset + (c->a.pairing == HM_PAIR_HALF_SPLIT ? i : 2 * i),
                iy = c->a.rope_dim_offset + (c->a.pairing == HM_PAIR_HALF_SPLIT ? E + i : 2 * i + 1);
        double cos = hm_load(table->dtype, (char *)table->data + (row + i * table->stride[1]) * (int64_t)size);
        double sin = hm_load(table->dtype, (char *)table->data + (row + (E + i) * table->stride[1]) * (int64_t)size);
        double x[2] = {k->lo[ix], k->hi[ix]}, y[2] = {k->lo[iy], k->hi[iy]}, ends[4] = {0};
        double most = fmax(fabs(x[0]), fabs(x[1])) + fmax(fabs(y[0]), fabs(y[1]));
        most *= fmax(fabs(cos), fabs(sin));
        double e = class == HM_WIDE ? 0x1p-50 * most : 0x1.8p-23 * most + 0x1p-123;
        corners(x[0], x[1], cos, &ends[0], &ends[1]), corners(y[0], y[1], -sin, &ends[0], &ends[1]);
        corners(y[0], y[1], cos, &ends[2], &ends[3]), corners(x[0], x[1], sin, &ends[2], &ends[3]);
        k->lo[ix] = ends[0] - e, k->hi[ix] = ends[1] + e, k->lo[iy] = ends[2] - e, k->hi[iy] = ends[3] + e;
        if (!isfinite(most) || isnan(cos) || isnan(sin)) k->unspecified = true;
        hm_dtype T = c->a.q.dtype;
        k->lo[ix] = hm_round_to(T, k->lo[ix]), k->hi[ix] = hm_round_to(T, k->hi[ix]);
        k->lo[iy] = hm_round_to(T, k->lo[iy]), k->hi[iy] = hm_round_to(T, k->hi[iy]);
    }
}

static double scale_of(const hm_fp8_rule *rule, double largest) {
    float v = (float)largest;
    hm_fp8_scales s = hm_fp8_scales_of(rule, HM_F32, &v, 1, 1, HM_WIDE);
    return s.ideal;
}

/* lo, hi: of the elements. */
static void scales_between(const hm_fp8_rule *rule, const double *lo, const double *hi, double *least, double *most) {
    double a = 0, b = 0;
    for (int64_t d = 0; d < DIM; d++) {
        double near = lo[d] > 0 ? lo[d] : hi[d] < 0 ? -hi[d] : 0, far = fmax(fabs(lo[d]), fabs(hi[d]));
        a = fmax(a, near), b = fmax(b, far);
    }
    *least = scale_of(rule, a), *most = scale_of(rule, b);
}

static hm_status key_of(const context_t *c, int64_t token, hm_class class, hm_tier tier, key_set *k, int64_t *mpfr) {
    unsigned char flags[DIM];
    hm_golden_row out = {.lo = k->lo, .hi = k->hi, .flags = flags};
    hm_status s = hm_golden_row_get(c->norm, arg_named(&hm_layer_norm_info, "out"), token, class, tier, &out);
    *mpfr += out.mpfr;
    free(out.parts);
    if (s) return s;
    k->unspecified = false;
    for (int64_t d = 0; d < DIM; d++) {
        k->unspecified |= (flags[d] & (HM_GOLD_NAN | HM_GOLD_RANGE_FREE | HM_GOLD_UNSPECIFIED)) != 0;
        k->unspecified |= !isfinite(k->lo[d]) || !isfinite(k->hi[d]);
        k->ideal[d] = hm_load(c->a.q.dtype, element(&c->ideal.k_rotated, token, d));
    }
    if (k->unspecified) return HM_OK;
    rotate_interval(c, token, class, k);
    for (int64_t d = 0; d < DIM; d++)
        k->unspecified |= !isfinite(k->lo[d]) || !isfinite(k->hi[d]) || !isfinite(k->ideal[d]);
    if (k->unspecified) return HM_OK;
    scales_between(&c->rule, k->lo, k->hi, &k->least, &k->most);
    double largest = 0;
    for (int64_t d = 0; d < DIM; d++) largest = fmax(largest, fabs(k->ideal[d]));
    k->scale = scale_of(&c->rule, largest);
    return HM_OK;
}

/* ---- the cache ---- */

static int by_slot(const void *a, const void *b) {
    const entry *x = a, *y = b;
    return (x->slot > y->slot) - (x->slot < y->slot);
}

static int64_t token_of(const context_t *c, int64_t slot) { /* -1: nobody writes there */
    int64_t low = 0, high = c->count;
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        if (c->entries[mid].slot < slot) low = mid + 1;
        else high = mid;
    }
    return low < c->count && c->entries[low].slot == slot ? c->entries[low].token : -1;
}

static unsigned char *scale_at(const hm_indexer_cache *c, int64_t slot) {
    return hm_indexer_block(c, slot / c->block_size) + hm_indexer_scale_byte(c, slot % c->block_size, 0);
}

static hm_status copy_cache(context_t *c, const hm_indexer_cache *from) {
    int64_t block = from->block_size * from->entry;
    if (!c->seen) c->seen = malloc((size_t)(from->num_blocks * block) + 16);
    if (!c->seen) return no_memory();
    for (int64_t b = 0; b < from->num_blocks; b++)
        memcpy(c->seen + b * block, from->data + b * from->block_stride, (size_t)block);
    c->stored = *from, c->stored.data = c->seen, c->stored.block_stride = block;
    return HM_OK;
}

/* The ideal keys, into a copy of the cache. */
static hm_status ideal_cache(context_t *c) {
    hm_status s = copy_cache(c, &c->cache);
    int64_t mpfr = 0;
    key_set k;
    for (int64_t i = 0; i < c->count && !s; i++) {
        int64_t slot = c->entries[i].slot, offset = slot % c->cache.block_size;
        if ((s = key_of(c, c->entries[i].token, HM_WIDE, HM_TIER_TWO, &k, &mpfr))) return s;
        if (k.unspecified) k.scale = 1;
        float S = (float)k.scale;
        memcpy(scale_at(&c->stored, slot), &S, sizeof S);
        for (int64_t d = 0; d < DIM; d++) {
            unsigned char *to =
                hm_indexer_block(&c->stored, slot / c->cache.block_size) + hm_indexer_code_byte(&c->cache, offset, d);
            *to = isfinite(k.ideal[d]) ? hm_fp8_ideal_code(&c->rule, k.ideal[d], k.scale) : 0x7F;
        }
    }
    return s;
}

static void put(hm_golden_row *out, int64_t i, double lo, double hi, int flags, uint64_t ideal) {
    out->lo[i] = lo, out->hi[i] = hi, out->flags[i] = (unsigned char)flags;
    if (out->ideal) out->ideal[i] = (double)ideal;
    if (out->exact) out->exact[i] = NAN; /* a byte is no number */
    if (out->bits && (flags & HM_GOLD_BITS)) out->bits[i] = ideal;
}

/* The codes of x in [lo, hi] for one scale: bytes of one sign, or of both. */
static hm_status put_code(const context_t *c, double lo, double hi, double S, hm_class class, uint8_t ideal, int64_t i,
                          hm_golden_row *out) {
    uint8_t low[2], high[2];
    bool fnuz = c->rule.codes == HM_F8E4M3FNUZ;
    if (lo == 0) lo = -0.0; /* a norm's or a rotation's 0 has either sign */
    if (hi == 0) hi = 0.0;
    hm_fp8_codes_of(&c->rule, lo, S, S, class, low);
    hm_fp8_codes_of(&c->rule, hi, S, S, class, high);
    uint8_t a = low[0], b = high[1];
    bool minus = a & 0x80, plus = !(b & 0x80);
    if (minus && plus) { /* negative codes up to a's, zeros, positive ones up to b's */
        hm_golden_parts parts = {.index = i, .n = 2, .lo = {0, fnuz ? 0x81 : 0x80}, .hi = {b, a}};
        put(out, i, 0, a, HM_GOLD_GAPS, ideal);
        return hm_golden_add_parts(out, &parts) ? HM_OK : no_memory();
    }
    uint8_t first = minus ? b : a, last = minus ? a : b; /* bytes grow with the magnitude */
    put(out, i, first, last, first == last ? HM_GOLD_BITS : 0, first == last ? first : ideal);
    return HM_OK;
}

static hm_status cache_row(const context_t *c, int64_t row, hm_class class, hm_tier tier, hm_golden_row *out) {
    const hm_indexer_cache *cache = &c->cache;
    int64_t block = row / cache->block_size, first = row % cache->block_size * cache->entry, last = -1, token = -1;
    const unsigned char *old = hm_indexer_block(cache, block) + first;
    key_set k = {0};
    float stored = 0;
    for (int64_t i = 0; i < cache->entry; i++) {
        hm_indexer_place p = hm_indexer_place_of(cache, first + i);
        int64_t slot = block * cache->block_size + p.offset;
        hm_status s = HM_OK;
        if (slot != last) {
            last = slot, token = token_of(c, slot);
            if (token >= 0 && (s = key_of(c, token, class, tier, &k, &out->mpfr))) return s;
            if (token >= 0) memcpy(&stored, scale_at(&c->stored, slot), sizeof stored);
        }
        if (token < 0) {
            put(out, i, old[i], old[i], HM_GOLD_BITS, old[i]);
            continue;
        }
        int exponent;
        double S = (double)stored;
        bool admissible = S >= k.least && S <= k.most && frexp(S, &exponent) == 0.5;
        bool free = k.unspecified || (!c->observed[0] && k.least != k.most);
        if (p.is_scale) {
            float meant = admissible ? stored : (float)k.scale;
            uint8_t bytes[4];
            memcpy(bytes, &meant, sizeof bytes);
            put(out, i, free ? 0 : bytes[p.part], free ? 255 : bytes[p.part], free ? HM_GOLD_UNSPECIFIED : HM_GOLD_BITS,
                bytes[p.part]);
        } else if (free || !hm_fp8_usable(S)) {
            put(out, i, 0, 255, HM_GOLD_UNSPECIFIED, 0);
        } else {
            uint8_t ideal = hm_fp8_ideal_code(&c->rule, k.ideal[p.d], S);
            if ((s = put_code(c, k.lo[p.d], k.hi[p.d], S, class, ideal, i, out))) return s;
        }
    }
    return HM_OK;
}

/* ---- logits ---- */

/* How far one token's queries and weights may be from the ideal ones. */
typedef struct {
    double *dq, *dw; /* [heads * DIM] in codes times the ideal scale over that scale; [heads] */
    bool none, unspecified;
} spread;

static hm_status spread_of(const context_t *c, int64_t token, hm_class class, hm_tier tier, spread *s, int64_t *mpfr) {
    int64_t heads = c->a.q.shape[1];
    hm_fp8_rule rule = c->rule;
    rule.floor = (double)1e-10f;
    row_t r;
    if (!row_make(&r, heads > DIM ? heads : DIM)) return no_memory();
    s->none = true, s->unspecified = false;
    hm_status status = row_get(c->weigh, arg_named(&hm_index_weights_info, "out"), token, class, tier, &r, mpfr);
    for (int64_t h = 0; h < heads && !status; h++) {
        s->dw[h] = fmax(r.hi[h] - r.ideal[h], r.ideal[h] - r.lo[h]);
        s->none &= s->dw[h] == 0;
        s->unspecified |= r.flags[h] != 0 || !isfinite(s->dw[h]);
    }
    int out = arg_named(&hm_rotary_embedding_info, "query_out");
    for (int64_t h = 0; h < heads && !status; h++) {
        double least, most, ideal;
        if ((status = row_get(c->rotary, out, token * heads + h, class, tier, &r, mpfr))) break;
        bool plain = true;
        for (int64_t d = 0; d < DIM; d++) {
            s->unspecified |=
                (r.flags[d] & ~(HM_GOLD_GAPS | HM_GOLD_BITS)) != 0 || !isfinite(r.lo[d]) || !isfinite(r.hi[d]);
            plain &= r.lo[d] == r.hi[d];
            s->dq[h * DIM + d] = 0;
        }
        if (s->unspecified) break;
        if (plain) continue;
        ideal = hm_load(HM_F32, (char *)c->ideal.q_scale.data + 4 * (token * heads + h));
        scales_between(&rule, r.lo, r.hi, &least, &most);
        for (int64_t d = 0; d < DIM; d++) {
            double code = hm_load8(rule.codes, ((uint8_t *)c->ideal.q_codes.data)[(token * heads + h) * DIM + d]),
                   far = 0;
            for (double S = least; S <= most; S *= 2) {
                double a = hm_load8(rule.codes, hm_fp8_ideal_code(&rule, r.lo[d], S)) * (S / ideal),
                       b = hm_load8(rule.codes, hm_fp8_ideal_code(&rule, r.hi[d], S)) * (S / ideal);
                far = fmax(far, fmax(fabs(a - code), fabs(b - code)));
            }
            s->dq[h * DIM + d] = far;
            s->none &= far == 0;
        }
    }
    row_free(&r);
    return status;
}

static hm_status logits_row(const context_t *c, int64_t token, hm_class class, hm_tier tier, hm_golden_row *out) {
    int64_t heads = c->a.q.shape[1], width = c->a.logits.shape[1], first, end, shift;
    hm_status status =
        hm_golden_row_get(c->score, arg_named(&hm_fp8_paged_mqa_logits_info, "logits"), token, class, tier, out);
    if (status) return status;
    spread s = {.dq = malloc((size_t)(heads * (DIM + 1) + 1) * sizeof *s.dq)};
    if (!s.dq) return no_memory();
    s.dw = s.dq + heads * DIM;
    status = spread_of(c, token, class, tier, &s, &out->mpfr);
    hm_logits_call call = {
        .paged = true, .heads = heads, .head_dim = DIM, .width = width, .pages = c->ideal.score, .cache = c->stored};
    call.weights = c->ideal.score.weights, call.codes = c->rule.codes;
    hm_logits_columns_of(&call, token, &first, &end, &shift);
    for (int64_t i = first; i < end && !status; i++) {
        uint8_t codes[DIM];
        int64_t b = token / c->ideal.score.q.shape[1], B = c->cache.block_size;
        int64_t slot = hm_integer_at2(&c->a.block_tables, b, i / B) * B + i % B, writer = token_of(c, slot);
        if (s.unspecified) {
            out->flags[i] = HM_GOLD_UNSPECIFIED;
            continue;
        }
        if (writer >= 0 && !c->observed[0]) { /* a key of which nobody knows yet what it is */
            key_set k;
            if ((status = key_of(c, writer, class, tier, &k, &out->mpfr))) break;
            bool point = !k.unspecified && k.least == k.most;
            for (int64_t d = 0; d < DIM; d++) point &= k.lo[d] == k.hi[d];
            if (!point) out->flags[i] = HM_GOLD_UNSPECIFIED;
        }
        if (s.none || out->flags[i]) continue;
        double scale = (double)hm_logits_key(&call, token, i, codes), E = 0;
        for (int64_t h = 0; h < heads; h++) {
            double score = 0, moved = 0;
            for (int64_t d = 0; d < DIM; d++) {
                double v = hm_load8(c->rule.codes, codes[d]);
                score += hm_load8(c->rule.codes, *hm_logits_query(&call, token, h, d)) * v;
                moved += s.dq[h * DIM + d] * fabs(v);
            }
            double w = fabs((double)hm_logits_weight(&call, token, h));
            E += (w + s.dw[h]) * moved + s.dw[h] * fmax(score, 0) * (1 + 0x1p-8); /* of tc13: 2^-9 of it and less */
        }
        E *= fabs(scale) * (1 + 0x1p-20);
        out->lo[i] = hm_round_to(HM_F32, out->lo[i] - E), out->hi[i] = hm_round_to(HM_F32, out->hi[i] + E);
    }
    free(s.dq);
    return status;
}

/* ---- contexts ---- */

static hm_status open_score(context_t *c) {
    hm_golden_close(c->score), c->score = NULL;
    hm_fp8_paged_mqa_logits_args *a = &c->ideal.score;
    a->kv_cache.data = c->seen, a->kv_cache.stride[0] = c->stored.block_stride;
    return open_step(&hm_fp8_paged_mqa_logits_info, a, "logits", &c->score, NULL);
}

static hm_status open_select(context_t *c) {
    hm_golden_close(c->select), c->select = NULL;
    hm_top_k_per_row_args *a = &c->ideal.select;
    a->logits.data = c->logits, a->logits.stride[0] = a->logits.shape[1], a->logits.stride[1] = 1;
    return open_step(&hm_top_k_per_row_info, a, "indices", &c->select, NULL);
}

static hm_status open_steps(context_t *c) {
    hm_indexer_steps *p = &c->ideal;
    hm_status s;
    if ((s = open_step(&hm_layer_norm_info, &p->norm, "out", &c->norm, &p->k_normed))) return s;
    if ((s = open_step(&hm_rotary_embedding_info, &p->rotary, "query_out", &c->rotary, &p->q_rotated))) return s;
    if ((s = keep_ideal(c->rotary, arg_named(&hm_rotary_embedding_info, "key_out"), &p->k_rotated))) return s;
    quantise_queries(c);
    if ((s = open_step(&hm_index_weights_info, &p->weigh, "out", &c->weigh, &p->q_weights))) return s;
    if ((s = ideal_cache(c)) || (s = open_score(c))) return s;
    hm_tensor logits = c->a.logits;
    logits.data = c->logits, logits.stride[0] = logits.shape[1], logits.stride[1] = 1;
    if ((s = keep_ideal(c->score, arg_named(&hm_fp8_paged_mqa_logits_info, "logits"), &logits))) return s;
    return open_select(c);
}

static hm_status open_context(const void *args, int threads, void **context) {
    (void)threads;
    context_t *c = calloc(1, sizeof *c);
    if (!c) return no_memory();
    hm_status s = hm_indexer_read(args, &c->a);
    if (!s) s = hm_indexer_cache_read("indexer", &c->a.kv_cache, c->a.layout, &c->cache);
    if (s) {
        close_context(c);
        return s;
    }
    bool fnuz = c->a.code_format == HM_CODE_E4M3FNUZ;
    c->rule = (hm_fp8_rule){.codes = fnuz ? HM_F8E4M3FNUZ : HM_F8E4M3,
                            .divisor = fnuz ? 224 : 448,
                            .floor = (double)1e-4f,
                            .power_of_two = true,
                            .overflow = HM_OVERFLOW_SATURATE};
    int64_t tokens = c->a.q.shape[0];
    c->memory = malloc(hm_indexer_memory(&c->a));
    c->entries = malloc((size_t)(tokens + 1) * sizeof *c->entries);
    c->logits = malloc((size_t)(tokens * c->a.logits.shape[1] + 1) * sizeof *c->logits);
    if (!c->memory || !c->entries || !c->logits) s = no_memory();
    if (!s) hm_indexer_take_apart(&c->a, c->memory, &c->ideal);
    for (int64_t t = 0; t < tokens && !s; t++) {
        int64_t slot = hm_integer_at(&c->a.slot_mapping, t);
        if (slot >= 0) c->entries[c->count++] = (entry){slot, t};
    }
    if (!s) qsort(c->entries, (size_t)c->count, sizeof *c->entries, by_slot);
    if (!s && tokens > 0) s = open_steps(c);
    if (s) close_context(c);
    else *context = c;
    return s;
}

static hm_status observe(void *context, int arg, const hm_tensor *stored, int threads) {
    context_t *c = context;
    if (c->a.q.shape[0] == 0) return HM_OK;
    if (arg == KV_CACHE) {
        hm_indexer_cache from;
        hm_status s = hm_indexer_cache_read("indexer", stored, c->a.layout, &from);
        c->observed[0] = true;
        return s || (s = copy_cache(c, &from)) ? s : open_score(c);
    }
    if (arg == LOGITS) {
        for (int64_t i = 0; i < hm_tensor_elements(stored); i++) {
            int64_t at = i / stored->shape[1] * stored->stride[0] + i % stored->shape[1] * stored->stride[1];
            memcpy(&c->logits[i], (const char *)stored->data + 4 * at, 4);
        }
        c->observed[1] = true;
        return open_select(c);
    }
    return hm_golden_observe(c->select, arg_named(&hm_top_k_per_row_info, "indices"), stored, threads);
}

static hm_status row_of(const void *context, int arg, int64_t row, hm_class class, hm_tier tier, hm_golden_row *out) {
    const context_t *c = context;
    if (arg == KV_CACHE) return cache_row(c, row, class, tier, out);
    if (arg == LOGITS) return logits_row(c, row, class, tier, out);
    return hm_golden_row_get(c->select, arg_named(&hm_top_k_per_row_info, "indices"), row, class, tier, out);
}

static double distance(const void *context, int arg, int64_t row, int64_t index, double got) {
    const context_t *c = context;
    if (arg != LOGITS) return INFINITY; /* a byte, or an index, is no number */
    return hm_golden_distance(c->score, arg_named(&hm_fp8_paged_mqa_logits_info, "logits"), row, index, got);
}

const hm_golden_op hm_indexer_golden = {"indexer", open_context, close_context, row_of, distance, observe};
