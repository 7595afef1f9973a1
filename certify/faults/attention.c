#include "attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../op/dtype.h"
#include "../../op/exp_log.h"
#include "../../op/indexer_cache.h"

enum { PART = 16 }; /* places of one part */

typedef struct {
    const hm_attention_variation *v;
    const hm_attention_call *c;
    double *q, *key, *sum, *part; /* key: of every place */
    double *score;
    bool *there;
    int64_t places;
} walk;

/* ---- keys ---- */

static int64_t integer(const hm_tensor *t, int64_t offset) {
    int32_t v;
    hm_fault_load_raw(t, offset, &v);
    return v;
}

static int64_t capacity(const walk *w) { return w->c->cache.num_blocks * w->c->cache.block_size; }

/* The element at a byte offset of the cache, as bytes wrap in it. */
static void cache_bytes(const walk *w, int64_t slot, int64_t byte, int n, unsigned char *to) {
    const hm_mla_cache *c = &w->c->cache;
    const hm_tensor *kv = &w->c->pages.kv_cache;
    int64_t size = (int64_t)hm_dtype_size(c->dtype), block_size = w->v->key == KEY_BLOCK_OF_64 ? 64 : c->block_size;
    int64_t block = slot / block_size, in = slot % block_size, stride = c->block_stride, row = c->entry_stride;
    if (w->v->key == KEY_BLOCK_STRIDE_DENSE) stride = c->block_size * row;
    if (w->v->key == KEY_ROW_DENSE) row = c->entry * size;
    if (w->v->key == KEY_FIRST_OF_BLOCK) in = 0;
    int64_t at = block * stride + in * row + byte;
    if (w->v->key == KEY_OFFSET_INT32) at = hm_fault_in_int32(at / size) * size;
    for (int i = 0; i < n; i += (int)size) hm_fault_load_raw(kv, (at + i) / size, to + i);
}

static double dequantised(const walk *w, const unsigned char *row, int64_t d) {
    int64_t tile = d / HM_MLA_TILE;
    hm_mla_dequant mode = w->c->pages.dequant;
    unsigned char entry[HM_MLA_ENTRY + 16];
    float S;
    if (w->v->dequant == DEQUANT_SCALE_OF_FIRST) tile = 0;
    if (w->v->dequant == DEQUANT_SCALE_OF_NEXT) tile = (tile + 1) % HM_MLA_TILES;
    if (w->v->dequant >= DEQUANT_F32 && w->v->dequant <= DEQUANT_SM100)
        mode = (hm_mla_dequant)(w->v->dequant - DEQUANT_F32);
    memcpy(entry, row, HM_MLA_ENTRY);
    memcpy(&S, entry + hm_mla_scale_byte(tile) + (w->v->dequant == DEQUANT_SCALES_AT_528 ? 16 : 0), sizeof S);
    if (w->v->dequant == DEQUANT_WITHOUT_SCALE) S = 1;
    double code = hm_load8(w->v->dequant == DEQUANT_FNUZ ? HM_F8E4M3FNUZ : HM_F8E4M3, row[d]);
    double exact = code * hm_mla_scale_seen(mode, S);
    return w->v->dequant == DEQUANT_UNROUNDED ? hm_round_to(HM_F32, exact) : hm_round_to(HM_BF16, exact);
}

static void paged_key(const walk *w, int64_t slot, double *to) {
    const hm_mla_cache *c = &w->c->cache;
    if (c->format == HM_MLA_BF16) {
        for (int64_t d = 0; d < w->c->width; d++) {
            unsigned char bytes[4];
            cache_bytes(w, slot, d * c->element_stride, (int)hm_dtype_size(c->dtype), bytes);
            to[d] = hm_load(c->dtype, bytes);
        }
        return;
    }
    unsigned char row[HM_MLA_ENTRY];
    cache_bytes(w, slot, 0, HM_MLA_ENTRY, row);
    for (int64_t d = 0; d < HM_MLA_LATENT; d++) to[d] = dequantised(w, row, d);
    int rope = w->v->dequant == DEQUANT_ROPE_AT_512 ? HM_MLA_SCALES_AT : HM_MLA_ROPE_AT;
    for (int d = 0; d < HM_MLA_ROPE; d++)
        to[HM_MLA_LATENT + d] = w->v->dequant == DEQUANT_ROPE_ZERO ? 0 : hm_load(HM_BF16, row + rope + 2 * d);
}

static void load_paged(walk *w, int64_t token) {
    const hm_tensor *indices = &w->c->pages.indices, *lengths = &w->c->pages.topk_length;
    int64_t top_k = indices->shape[1], of = w->v->key == KEY_INDICES_OF_TOKEN_0 ? 0 : token;
    int64_t n = lengths->dtype ? integer(lengths, (w->v->key == KEY_LENGTH_OF_TOKEN_0 ? 0 : token) * lengths->stride[0])
                               : top_k;
    if (w->v->key == KEY_LENGTH_IGNORED) n = top_k;
    if (w->v->key == KEY_LENGTH_LESS_1 && lengths->dtype) n--;
    w->places = n < 0 ? 0 : n;
    for (int64_t i = 0; i < w->places; i++) {
        int64_t slot =
            integer(indices,
                    w->v->key == KEY_INDICES_DENSE ? of * top_k + i : of * indices->stride[0] + i * indices->stride[1]);
        if (w->v->key == KEY_NEXT_SLOT && slot >= 0) slot++;
        if (w->v->key == KEY_SLOT_TRUNCATED && slot >= 0) slot &= 15;
        if (slot < 0 && w->v->key == KEY_NEGATIVE_WRAPS) slot = capacity(w) - 1;
        if (slot < 0 && (w->v->key == KEY_NEGATIVE_IS_0 || (w->v->key == KEY_MINUS_1_ALONE && slot < -1))) slot = 0;
        w->there[i] = slot >= 0;
        bool leaks = w->v->softmax == SOFTMAX_MASK_LEAKS;
        if (capacity(w) > 0) slot = slot < 0 ? 0 : slot % capacity(w);
        else w->there[i] = false;
        w->score[i] = (double)slot;
        for (int64_t j = 0; j < i && w->v->key == KEY_TWICE_IS_ONCE; j++)
            if (w->there[j] && w->score[j] == (double)slot) w->there[i] = false;
        if (w->there[i] || (leaks && capacity(w) > 0)) paged_key(w, slot, w->key + i * w->c->width);
        else memset(w->key + i * w->c->width, 0, (size_t)w->c->width * sizeof *w->key);
    }
}

static void load_flat(walk *w, int64_t token) {
    const hm_mla_prefill_args *a = &w->c->flat;
    int64_t keys = a->kv.shape[0], width = w->c->width, of = w->v->key == KEY_RANGE_OF_TOKEN_0 ? 0 : token;
    bool ignored = w->v->key == KEY_END_IGNORED;
    int64_t first =
        a->key_start.dtype && w->v->key != KEY_START_IGNORED ? integer(&a->key_start, of * a->key_start.stride[0]) : 0;
    int64_t end =
        a->key_end.dtype && !ignored ? integer(&a->key_end, of * a->key_end.stride[0]) : keys - w->c->tokens + of + 1;
    if (!a->key_end.dtype || ignored) {
        if (w->v->key == KEY_CAUSAL_LESS) end--;
        if (w->v->key == KEY_CAUSAL_MORE) end++;
        if (w->v->key == KEY_TOP_LEFT) end = of + 1;
    }
    if (w->v->key == KEY_END_INCLUSIVE && a->key_end.dtype) end++;
    if (w->v->key == KEY_START_EXCLUSIVE && a->key_start.dtype) first++;
    if (w->v->key == KEY_ALL) end = keys;
    first = first < 0 ? 0 : first, end = end < keys ? end : keys;
    w->places = end > first ? end - first : 0;
    for (int64_t i = 0; i < w->places; i++) {
        w->there[i] = true;
        for (int64_t d = 0; d < width; d++) {
            int64_t at = (first + i) * (w->v->key == KEY_ROW_DENSE ? width : a->kv.stride[0]) + d * a->kv.stride[1];
            if (w->v->key == KEY_OFFSET_INT32) at = hm_fault_in_int32(at);
            w->key[i * width + d] = hm_fault_load(&a->kv, at);
        }
    }
}

static void load_keys(walk *w, int64_t token) {
    if (w->c->paged) load_paged(w, token);
    else load_flat(w, token);
    int64_t n = 0, last = -1;
    for (int64_t i = 0; i < w->places; i++)
        if (w->there[i]) {
            if (n == 0 && w->v->key == KEY_WITHOUT_FIRST) w->there[i] = false;
            last = i, n++;
        }
    if (n > 0 && w->v->key == KEY_WITHOUT_LAST) w->there[last] = false;
    if (n > 0 && w->v->key == KEY_LAST_AT_16 && n % 16 == 0) w->there[last] = false;
    if (w->v->key == KEY_FIRST_32 && w->places > 32) w->places = 32;
}

static void load_query(const walk *w, int64_t token, int64_t head) {
    const hm_tensor *q = &w->c->q;
    if (w->v->map == MAP_QUERY_OF_TOKEN_0) token = 0;
    if (w->v->map == MAP_QUERY_HEAD_0) head = 0;
    int64_t width = w->c->width, row = token * q->stride[0], of_head = q->stride[1], step = q->stride[2];
    if (w->v->map == MAP_QUERY_DENSE) row = token * w->c->heads * width, of_head = width, step = 1;
    if (w->v->map == MAP_QUERY_HEADS_DENSE) of_head = width;
    for (int64_t d = 0; d < width; d++) {
        int64_t at = row + head * of_head + d * step;
        if (w->v->map == MAP_QUERY_INT32) at = hm_fault_in_int32(at);
        w->q[d] = hm_fault_load(q, at);
    }
}

/* ---- scores ---- */

static double scale_of(const walk *w) {
    double values = w->c->value_width > 0 ? (double)w->c->value_width : 1,
           given = (w->c->paged ? w->c->pages.scale : w->c->flat.scale);
    bool is_default = given == (double)(float)(1 / sqrt((double)w->c->width));
    switch (w->v->scale) {
        case SCALE_DEFAULT:
            return 1 / sqrt((double)w->c->width);
        case SCALE_OF_VALUES:
            return is_default ? 1 / sqrt(values) : given;
        case SCALE_TWICE:
            return given * given;
        case SCALE_BF16:
            return hm_round_to(HM_BF16, given);
        case SCALE_NONE:
            return 1;
        default:
            return given;
    }
}

static double score_of(const walk *w, const double *key) {
    int64_t n = w->c->width;
    double sum = 0, scale = scale_of(w);
    if (w->v->score == SCORE_WITHOUT_ROPE) n = w->c->value_width;
    if (w->v->score == SCORE_WITHOUT_LAST) n--;
    if (w->v->score == SCORE_HALF_OF_WIDTH) n = (n + 1) / 2;
    bool scaled = w->v->score == SCORE_QUERY_SCALED;
    for (int64_t d = 0; d < n; d++) {
        bool stale = w->v->score == SCORE_STALE_TAIL && d >= n - 8 && key >= w->key + w->c->width;
        sum += (scaled ? hm_round_to(w->c->q.dtype, w->q[d] * scale) : w->q[d]) * key[stale ? d - w->c->width : d];
        if (w->v->score == SCORE_PARTS_BF16 && d % 16 == 15) sum = hm_round_to(HM_BF16, sum);
    }
    if (!scaled) sum *= scale;
    if (w->v->score == SCORE_BF16) sum = hm_round_to(HM_BF16, sum);
    if (w->v->score == SCORE_F16) sum = hm_round_to(HM_F16, sum);
    return sum;
}

/* ---- softmax ---- */

static double exponential(const walk *w, double x) {
    double e = w->v->softmax == SOFTMAX_BASE_2 ? hm_exp(x * 0x1.62e42fefa39efp-1) : hm_exp(x);
    if (w->v->softmax == SOFTMAX_CHEAP_EXP) { /* a straight line between powers of two, in eight pieces */
        int exponent;
        double m = frexp(e, &exponent);
        e = e > 0 && isfinite(e) ? ldexp(rint(m * 256) / 256, exponent) : e;
    }
    return e;
}

static double value(const walk *w, int64_t place, int64_t d) {
    const double *key = w->key + place * w->c->width;
    switch (w->v->value) {
        case VALUE_LAST:
            return key[w->c->width - w->c->value_width + d];
        case VALUE_NEXT_ELEMENT:
            return key[(d + 1) % w->c->width];
        case VALUE_LAST_ELEMENT_0:
            return d == w->c->value_width - 1 ? 0 : key[d];
        case VALUE_OF_NEXT_KEY:
            for (int64_t i = 1; i < w->places; i++)
                if (w->there[(place + i) % w->places]) return w->key[(place + i) % w->places * w->c->width + d];
            return key[d];
        default:
            return key[d];
    }
}

static double rounded_weight(const walk *w, double p) {
    if (w->c->p == HM_P_BF16 || w->v->softmax == SOFTMAX_P_BF16) p = hm_round_to(HM_BF16, p);
    if (w->v->softmax == SOFTMAX_P_F8) p = hm_round_to(HM_F8E4M3, p);
    return p;
}

typedef struct {
    double m, l, l_rounded; /* of what is in sum */
    int64_t keys;
} state;

/* Places [from, to) into sum, against a running maximum in blocks of PART. */
static state run(const walk *w, int64_t from, int64_t to, double *sum) {
    state s = {.m = -INFINITY};
    int64_t values = w->c->value_width;
    for (int64_t d = 0; d < values; d++) sum[d] = 0;
    for (int64_t block = from; block < to; block += PART) {
        double m = s.m;
        int64_t end = block + PART < to ? block + PART : to;
        for (int64_t i = block; i < end; i++)
            if (w->there[i] && w->score[i] > m) m = w->score[i];
        bool masked = w->v->softmax == SOFTMAX_MASK_SCORES_0 || w->v->softmax == SOFTMAX_MASK_FINITE;
        if (masked && m == -INFINITY) m = 0;
        double back = s.m > -INFINITY ? exponential(w, s.m - m) : 0;
        if (w->v->softmax == SOFTMAX_WITHOUT_MAX) m = 0, back = 1;
        if (w->v->softmax != SOFTMAX_OLD_SUM) s.l *= back, s.l_rounded *= back;
        for (int64_t d = 0; d < values && w->v->softmax != SOFTMAX_OLD_OUT; d++) sum[d] *= back;
        s.m = m;
        for (int64_t i = block; i < end; i++) {
            double p = w->there[i] ? exponential(w, w->score[i] - m) : 0;
            if (!w->there[i] && w->v->softmax == SOFTMAX_MASK_SCORES_0) s.l += exponential(w, 0 - m);
            if (!w->there[i] && w->v->softmax == SOFTMAX_MASK_FINITE) s.l += exponential(w, -8 - m);
            if (!w->there[i] && w->v->softmax != SOFTMAX_MASK_LEAKS) continue;
            if (w->v->softmax == SOFTMAX_WITHOUT_MAX) p = hm_round_to(HM_F32, p);
            s.keys += w->there[i];
            double rounded = rounded_weight(w, p);
            s.l += p, s.l_rounded += hm_round_to(HM_BF16, p);
            for (int64_t d = 0; d < values; d++) {
                sum[d] += rounded * value(w, i, d);
                if (w->v->softmax == SOFTMAX_OUT_F16) sum[d] = hm_round_to(HM_F16, sum[d]);
                if (w->v->softmax == SOFTMAX_OUT_BF16) sum[d] = hm_round_to(HM_BF16, sum[d]);
            }
        }
    }
    return s;
}

/* Two halves, each divided by its sum, merged by their lse. */
static state merged(const walk *w, double *sum) {
    int64_t half = (w->places + 1) / 2, values = w->c->value_width;
    state a = run(w, 0, half, sum), b = run(w, half, w->places, w->part), s = {0};
    s.keys = a.keys + b.keys;
    if (a.keys == 0 && b.keys == 0) return s;
    double la = a.keys ? a.m + hm_log(a.l) : -INFINITY, lb = b.keys ? b.m + hm_log(b.l) : -INFINITY;
    double m = la > lb ? la : lb, base = w->v->softmax == SOFTMAX_MERGE_BASE_2 ? 0x1.71547652b82fep0 : 1;
    double wa = hm_exp((la - m) * base), wb = hm_exp((lb - m) * base);
    bool unwritten = w->v->softmax == SOFTMAX_UNWRITTEN_PART;
    if (unwritten && a.keys == 0) wa = 1, a.l = 1;
    if (unwritten && b.keys == 0) wb = 1, b.l = 1;
    for (int64_t d = 0; d < values; d++) {
        double x = a.keys ? sum[d] / a.l : unwritten ? 0.75 : 0, y = b.keys ? w->part[d] / b.l : unwritten ? 0.75 : 0;
        if (w->v->softmax == SOFTMAX_OUT_BF16_PARTS) x = hm_round_to(HM_BF16, x), y = hm_round_to(HM_BF16, y);
        sum[d] = wa * x + wb * y;
    }
    s.m = m, s.l = s.l_rounded = wa + wb;
    return s;
}

/* ---- outputs ---- */

static double stored(const walk *w, double x) {
    hm_dtype T = w->c->out.dtype;
    switch (w->v->effect) {
        case EFFECT_TOWARD_ZERO:
            return hm_fault_toward_zero(T, x);
        case EFFECT_TIES_AWAY:
            return hm_fault_ties_away(T, x);
        case EFFECT_F8_SCRATCH:
            return hm_load8(HM_F8E4M3, hm_store8(HM_F8E4M3, x, HM_OVERFLOW_SATURATE));
        default:
            return x;
    }
}

static void put_out(const walk *w, int64_t token, int64_t head, double *row) {
    const hm_tensor *t = &w->c->out;
    int64_t n = w->c->value_width, to = w->v->map == MAP_OUT_HEADS_REVERSED ? w->c->heads - 1 - head : head;
    bool dense = w->v->map == MAP_OUT_DENSE;
    int64_t at = dense ? (token * w->c->heads + to) * n : token * t->stride[0] + to * t->stride[1];
    int64_t step = dense ? 1 : t->stride[2];
    if (w->v->map == MAP_OUT_INT32) at = hm_fault_in_int32(at);
    for (int64_t d = 0; d < n; d++) {
        row[d] = stored(w, row[d]);
        if (w->v->effect == EFFECT_ADDS) {
            double held = hm_fault_load(t, at + d * step);
            row[d] += isfinite(held) ? held : 0.5;
        }
    }
    if (w->v->effect == EFFECT_LAST_ELEMENT_LEFT) n--;
    hm_fault_store_row(t, at, step, n, HM_FAULT_SLACK, row);
    if (w->v->effect == EFFECT_ONE_PAST) hm_fault_store_row(t, at + n * step, step, 1, HM_FAULT_SLACK, (double[]){0});
}

static void put_lse(const walk *w, int64_t token, int64_t head, double v) {
    const hm_tensor *t = &w->c->lse;
    if (!t->dtype || w->v->lse == LSE_LEFT || (w->v->map == MAP_LSE_OF_HEAD_0 && head > 0 && w->c->heads > 1)) {
        if (!t->dtype || w->v->map != MAP_LSE_OF_HEAD_0) return;
        v = hm_fault_load(t, token * t->stride[0]);
    }
    int64_t at = w->v->map == MAP_LSE_DENSE        ? token * w->c->heads + head
                 : w->v->map == MAP_LSE_TRANSPOSED ? head * w->c->tokens + token
                                                   : token * t->stride[0] + head * t->stride[1];
    hm_fault_store_row(t, at, 1, 1, HM_FAULT_SLACK, &v);
}

static double sink_term(const walk *w, int64_t head, double m, double scale) {
    const hm_tensor *t = &w->c->sink;
    if (!t->dtype || w->v->sink == SINK_IGNORED) return 0;
    double a = hm_fault_load(t, (w->v->sink == SINK_OF_HEAD_0 ? 0 : head) * t->stride[0]);
    if (w->v->sink == SINK_WITHOUT_EXP) return a == -INFINITY ? 0 : a;
    if (w->v->sink == SINK_WITHOUT_MAX) return hm_exp(a);
    if (w->v->sink == SINK_NEGATED) return a == -INFINITY ? 0 : hm_exp(-a - m);
    if (w->v->sink == SINK_SCALED) a *= scale;
    return hm_exp(a - m);
}

static void head_of(walk *w, int64_t token, int64_t head) {
    load_query(w, token, head);
    for (int64_t i = 0; i < w->places; i++)
        w->score[i] = w->there[i] ? score_of(w, w->key + i * w->c->width) : -INFINITY;
    bool parts = w->v->softmax >= SOFTMAX_OUT_BF16_PARTS && w->v->softmax <= SOFTMAX_UNWRITTEN_PART;
    state s = parts ? merged(w, w->sum) : run(w, 0, w->places, w->sum);
    double D = s.l + sink_term(w, head, s.m, scale_of(w)), lse = s.m + hm_log(s.l);
    if (w->v->softmax == SOFTMAX_L_OF_ROUNDED) D += s.l_rounded - s.l;
    bool nan = w->v->softmax == SOFTMAX_FIRST_PART_NAN && w->places > 0;
    for (int64_t i = 0; i < PART && i < w->places; i++) nan &= !w->there[i];
    bool masked = w->v->softmax == SOFTMAX_MASK_SCORES_0 || w->v->softmax == SOFTMAX_MASK_FINITE;
    for (int64_t d = 0; d < w->c->value_width; d++) {
        if (w->v->softmax != SOFTMAX_NOT_DIVIDED) w->sum[d] /= D;
        if (nan) w->sum[d] = NAN;
    }
    if (s.keys == 0 && !(masked && w->places > 0)) {
        bool is_nan = w->v->empty == EMPTY_NAN || nan || w->v->softmax == SOFTMAX_EMPTY_PART_NAN;
        for (int64_t d = 0; d < w->c->value_width; d++) w->sum[d] = is_nan ? NAN : 0;
        lse = w->v->lse == LSE_EMPTY_MINUS_INF ? -INFINITY : w->v->lse == LSE_EMPTY_0 ? 0 : INFINITY;
    } else {
        if (w->v->lse == LSE_BASE_2) lse *= 0x1.71547652b82fep0;
        if (w->v->lse == LSE_MAX) lse = s.m;
        if (w->v->lse == LSE_WITHOUT_MAX) lse = hm_log(s.l);
        if (w->v->lse == LSE_WITH_SINK) lse = s.m + hm_log(s.l + sink_term(w, head, s.m, 1));
        if (w->v->lse == LSE_BF16) lse = hm_round_to(HM_BF16, lse);
        if (w->v->lse == LSE_OF_ROUNDED) lse = s.m + hm_log(s.l_rounded);
    }
    if (s.keys > 0 || w->v->empty != EMPTY_LEFT) put_out(w, token, head, w->sum);
    put_lse(w, token, head, lse);
}

hm_status hm_attention_fault(const char *op, const hm_attention_variation *v, const hm_attention_call *call,
                             hm_dtype written[HM_MAX_ARGS]) {
    if (call->tokens == 0 || call->heads == 0) return v->effect == EFFECT_EMPTY_REFUSED ? HM_BAD_SHAPE : HM_OK;
    int64_t most = call->paged ? call->pages.indices.shape[1] : call->flat.kv.shape[0];
    walk w = {.v = v, .c = call};
    w.q = malloc((size_t)(call->width + 2 * call->value_width + most * (call->width + 1) + 1) * sizeof *w.q);
    w.there = malloc((size_t)most + 1);
    if (!w.q || !w.there) {
        free(w.q), free(w.there);
        return HM_NO_MEMORY;
    }
    w.sum = w.q + call->width, w.part = w.sum + call->value_width, w.score = w.part + call->value_width,
    w.key = w.score + most;
    for (int64_t t = 0; t < call->tokens - (v->effect == EFFECT_LAST_TOKEN_LEFT); t++) {
        load_keys(&w, t);
        for (int64_t h = 0; h < call->heads - (v->effect == EFFECT_LAST_HEAD_LEFT); h++) head_of(&w, t, h);
    }
    if (v->effect == EFFECT_OUT_F32) written[hm_fault_arg(op, "out")] = HM_F32;
    if (v->effect == EFFECT_LSE_BF16_OUT && call->lse.dtype) written[hm_fault_arg(op, "lse")] = HM_BF16;
    free(w.q), free(w.there);
    return HM_OK;
}
