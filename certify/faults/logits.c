#include "logits.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../op/dtype.h"

typedef struct {
    const hm_logits_variation *v;
    const hm_logits_call *c;
    double *q, *k;
} walk;

static double value_of(const walk *w, uint8_t code, hm_dtype format) {
    if (w->v->score == SCORE_OTHER_FORMAT) format = format == HM_F8E4M3 ? HM_F8E4M3FNUZ : HM_F8E4M3;
    double x = hm_load8(format, code);
    if (w->v->score == SCORE_UNSIGNED) x = fabs(x);
    if (w->v->score == SCORE_SUBNORMALS_FLUSHED && fabs(x) < hm_dtype_min_normal(format)) x = 0;
    return x;
}

/* ---- where things are ---- */

static double query(const walk *w, int64_t row, int64_t h, int64_t d) {
    const hm_tensor *q = w->c->paged ? &w->c->pages.q : &w->c->flat.q;
    int64_t H = w->c->heads, D = w->c->head_dim, next_n = w->c->paged ? q->shape[1] : 1;
    int64_t head_stride = q->stride[q->ndim - 2], step = q->stride[q->ndim - 1];
    if (w->v->map == MAP_QUERY_OF_ROW_0) row = 0;
    int64_t at = w->c->paged ? row / next_n * q->stride[0] + row % next_n * q->stride[1] : row * q->stride[0];
    if (w->v->map == MAP_QUERY_DENSE) at = row * H * D, head_stride = D, step = 1;
    if (w->v->map == MAP_QUERY_HEADS_DENSE) head_stride = D;
    at += w->v->map == MAP_QUERY_TRANSPOSED ? (h * D + d) % H * head_stride + (h * D + d) / H * step
                                            : h * head_stride + d * step;
    if (w->v->map == MAP_QUERY_INT32) at = hm_fault_in_int32(at);
    uint8_t code;
    hm_fault_load_raw(q, at, &code);
    return value_of(w, code, q->dtype);
}

static double weight(const walk *w, int64_t row, int64_t h) {
    const hm_tensor *t = &w->c->weights;
    if (w->v->sum == SUM_WEIGHTS_OF_ROW_0) row = 0;
    if (w->v->sum == SUM_HEADS_REVERSED) h = w->c->heads - 1 - h;
    double x = hm_fault_load(
        t, w->v->map == MAP_WEIGHTS_DENSE ? row * w->c->heads + h : row * t->stride[0] + h * t->stride[1]);
    if (w->v->sum == SUM_WEIGHTS_BF16) x = hm_round_to(HM_BF16, x);
    if (w->v->sum == SUM_WEIGHTS_MAGNITUDE) x = fabs(x);
    return w->v->sum == SUM_WITHOUT_WEIGHTS ? 1 : x;
}

static uint8_t cache_byte(const walk *w, int64_t block, int64_t byte) {
    const hm_indexer_cache *c = &w->c->cache;
    int64_t stride = w->v->key == KEY_BLOCK_STRIDE_DENSE ? c->block_size * c->entry : c->block_stride;
    if (w->v->key == KEY_BLOCK_TRUNCATED) block &= 3;
    int64_t at = block * stride + byte;
    if (w->v->key == KEY_OFFSET_INT32) at = hm_fault_in_int32(at);
    uint8_t value;
    hm_fault_load_raw(&w->c->pages.kv_cache, at, &value);
    return value;
}

static float paged_key(const walk *w, int64_t row, int64_t key, uint8_t *to) {
    hm_indexer_cache c = w->c->cache;
    const hm_tensor *table = &w->c->pages.block_tables;
    int64_t b = row / w->c->pages.q.shape[1], block_size = w->v->key == KEY_BLOCK_OF_64 ? 64 : c.block_size;
    int64_t index = key / block_size, offset = key % block_size;
    if (w->v->key == KEY_OF_REQUEST_0) b = 0;
    if (w->v->key == KEY_PREVIOUS_BLOCK && index > 0) index--;
    if (w->v->key == KEY_FIRST_OF_BLOCK) offset = 0;
    if (w->v->key == KEY_OTHER_LAYOUT) c.layout = c.layout == HM_LAYOUT_NORMAL ? HM_LAYOUT_SHUFFLE : HM_LAYOUT_NORMAL;
    if (w->v->key == KEY_SHUFFLED_AT_64_ONLY && c.block_size != 64) c.layout = HM_LAYOUT_NORMAL;
    if (w->v->key == KEY_ALWAYS_SHUFFLED) c.layout = HM_LAYOUT_SHUFFLE;
    int32_t block = (int32_t)index;
    if (w->v->key != KEY_TABLE_IGNORED)
        hm_fault_load_raw(table,
                          w->v->key == KEY_TABLE_DENSE ? b * table->shape[1] + index
                                                       : b * table->stride[0] + index * table->stride[1],
                          &block);
    bool entries = w->v->key == KEY_ENTRIES;
    for (int64_t d = 0; d < w->c->head_dim; d++)
        to[d] = cache_byte(w, block, entries ? offset * c.entry + d : hm_indexer_code_byte(&c, offset, d));
    int64_t scale_offset = w->v->scale == SCALE_OF_FIRST  ? 0
                           : w->v->scale == SCALE_OF_NEXT ? (offset + 1) % c.block_size
                                                          : offset;
    float scale;
    uint8_t bytes[4];
    for (int i = 0; i < 4; i++)
        bytes[i] = cache_byte(
            w, block, (entries ? offset * c.entry + c.head_dim : hm_indexer_scale_byte(&c, scale_offset, 0)) + i);
    memcpy(&scale, bytes, sizeof scale);
    return scale;
}

static float flat_key(const walk *w, int64_t key, uint8_t *to) {
    const hm_tensor *k = &w->c->flat.k, *s = &w->c->flat.k_scale;
    int64_t keys = k->shape[0], scale_of = w->v->scale == SCALE_OF_FIRST  ? 0
                                           : w->v->scale == SCALE_OF_NEXT ? (key + 1) % keys
                                                                          : key;
    for (int64_t d = 0; d < w->c->head_dim; d++)
        hm_fault_load_raw(k, w->v->key == KEY_DENSE ? key * w->c->head_dim + d : key * k->stride[0] + d * k->stride[1],
                          &to[d]);
    return (float)hm_fault_load(s, scale_of * s->stride[0]);
}

/* ---- one logit ---- */

static double score(const walk *w, int64_t h) {
    const double *q = w->q + h * w->c->head_dim;
    int64_t n = w->c->head_dim;
    if (w->v->score == SCORE_HALF_OF_DIM) n = (n + 1) / 2;
    if (w->v->score == SCORE_WITHOUT_LAST) n--;
    double sum = 0, most = 0;
    for (int64_t d = 0; d < n; d++) most = fabs(q[d] * w->k[d]) > most ? fabs(q[d] * w->k[d]) : most;
    int exponent = 0;
    frexp(most, &exponent);
    double unit = ldexp(1, exponent - 13);
    for (int64_t d = 0; d < n; d++) {
        double t = q[d] * w->k[d];
        if (w->v->score == SCORE_13_BITS && most > 0) t = trunc(t / unit) * unit;
        sum += t;
        if (w->v->score == SCORE_INTERMEDIATE_BF16 && d % 32 == 31) sum = hm_round_to(HM_BF16, sum);
    }
    if (w->v->score == SCORE_BF16) sum = hm_round_to(HM_BF16, sum);
    if (w->v->score == SCORE_F16) sum = hm_round_to(HM_F16, sum);
    return sum;
}

static double scale_as_read(const walk *w, double s) {
    int exponent;
    switch (w->v->scale) {
        case SCALE_NONE:
        case SCALE_ON_KEY_BF16:
            return 1;
        case SCALE_TWICE:
            return s * s;
        case SCALE_INVERSE:
            return 1 / s;
        case SCALE_BF16:
            return hm_round_to(HM_BF16, s);
        case SCALE_POWER_OF_TWO:
            return s > 0 && isfinite(s) ? (frexp(s, &exponent), ldexp(1, exponent - 1)) : s;
        case SCALE_HALF:
            return s / 2;
        default:
            return s;
    }
}

static double logit(const walk *w, int64_t row, int64_t key) {
    uint8_t *codes = malloc((size_t)w->c->head_dim + 1);
    if (!codes) return NAN;
    double s = (double)(w->c->paged ? paged_key(w, row, key, codes) : flat_key(w, key, codes)), sum = 0;
    for (int64_t d = 0; d < w->c->head_dim; d++) {
        w->k[d] = value_of(w, codes[d], w->c->codes);
        if (w->v->scale == SCALE_ON_KEY_BF16) w->k[d] = hm_round_to(HM_BF16, w->k[d] * s);
    }
    free(codes);
    int64_t heads =
        w->v->sum == SUM_FIRST_HEAD && w->c->heads > 1 ? 1 : w->c->heads - (w->v->sum == SUM_WITHOUT_LAST_HEAD);
    for (int64_t h = 0; h < heads; h++) {
        double x = score(w, h), a = weight(w, row, h), relu = x < 0 ? 0 : x, term = a * relu;
        if (w->v->sum == SUM_WITHOUT_RELU || w->v->sum == SUM_RELU_ON_LOGIT) term = a * x;
        if (w->v->sum == SUM_RELU_BEHIND) term = a * x < 0 ? 0 : a * x;
        if (w->v->sum == SUM_LARGEST) sum = h == 0 || term > sum ? term : sum;
        else sum += term;
    }
    if (w->v->sum == SUM_MEAN) sum /= (double)w->c->heads;
    if (w->v->sum == SUM_BF16) sum = hm_round_to(HM_BF16, sum);
    if (w->v->sum == SUM_RELU_ON_LOGIT && sum < 0) sum = 0;
    return sum * scale_as_read(w, s);
}

/* ---- rows ---- */

static void put(const walk *w, int64_t row, int64_t column, double v) {
    const hm_tensor *t = &w->c->logits;
    int64_t at = w->v->map == MAP_LOGITS_DENSE ? row * w->c->width : row * t->stride[0];
    at += column * (w->v->map == MAP_LOGITS_UNIT ? 1 : t->stride[1]);
    if (w->v->map == MAP_LOGITS_INT32) at = hm_fault_in_int32(at);
    hm_fault_store_row(t, at, 1, 1, HM_FAULT_SLACK, &v);
}

static double outside(const walk *w) {
    switch (w->v->window) {
        case WINDOW_ZERO_OUTSIDE:
            return 0;
        case WINDOW_LOWEST_OUTSIDE:
            return -0x1.fffffep127;
        case WINDOW_NAN_OUTSIDE:
            return NAN;
        default:
            return -INFINITY;
    }
}

static void columns_of(const walk *w, int64_t row, int64_t *first, int64_t *end, int64_t *shift) {
    const hm_logits_call *c = w->c;
    hm_logits_columns_of(c, w->v->window == WINDOW_OF_ROW_0 ? 0 : row, first, end, shift);
    bool empty = *end <= *first;
    if (w->v->window == WINDOW_ONE_LESS && !empty) --*end;
    if (w->v->window == WINDOW_START_EXCLUSIVE && !empty) ++*first;
    if (w->v->window == WINDOW_STARTS_AT_0 && !empty && !*shift) *first = 0;
    int64_t most = c->paged ? c->cache.block_size * c->pages.block_tables.shape[1] : c->flat.k.shape[0] - *shift;
    if (most > c->width) most = c->width;
    if (w->v->window == WINDOW_ONE_MORE && *end < most) ++*end;
    if (w->v->window == WINDOW_ALL) *first = 0, *end = most;
    if (w->v->window == WINDOW_NEXT_N_IGNORED && c->paged && c->pages.context_lens.ndim == 1) {
        *end = hm_integer_at(&c->pages.context_lens, row / c->pages.q.shape[1]);
        if (*end < 0) *end = 0;
        if (*end > most) *end = most;
    }
}

static void score_row(const walk *w, int64_t row) {
    const hm_logits_call *c = w->c;
    int64_t first, end, shift, width = c->width - (w->v->effect == EFFECT_LAST_COLUMN_LEFT);
    columns_of(w, row, &first, &end, &shift);
    for (int64_t h = 0; h < c->heads; h++)
        for (int64_t d = 0; d < c->head_dim; d++) w->q[h * c->head_dim + d] = query(w, row, h, d);
    for (int64_t column = 0; column < width; column++) {
        bool inside = column >= first && column < end;
        if (!inside && (c->outside == HM_LOGITS_LEAVE || w->v->window == WINDOW_NOT_CLEANED)) continue;
        int64_t key = column + shift;
        if (w->v->key == KEY_NEXT) key = key + 1 < end + shift ? key + 1 : first + shift;
        if (w->v->key == KEY_REVERSED) key = end - 1 - (column - first) + shift;
        int64_t to = w->v->map == MAP_COLUMNS_ABSOLUTE               ? key
                     : w->v->map == MAP_COLUMNS_COMPRESSED && inside ? column - first
                                                                     : column;
        if (to < c->width) put(w, row, to, inside ? logit(w, row, key) : outside(w));
    }
    if (w->v->effect == EFFECT_ONE_PAST) put(w, row, c->width, 0);
}

hm_status hm_logits_fault(const char *op, const hm_logits_variation *v, const hm_logits_call *call,
                          hm_dtype written[HM_MAX_ARGS]) {
    if (call->rows == 0 || call->width == 0) return v->effect == EFFECT_EMPTY_REFUSED ? HM_BAD_SHAPE : HM_OK;
    walk w = {.v = v, .c = call};
    w.q = malloc((size_t)((call->heads + 1) * call->head_dim) * sizeof *w.q + 1);
    if (!w.q) return HM_NO_MEMORY;
    w.k = w.q + call->heads * call->head_dim;
    for (int64_t row = 0; row < call->rows - (v->effect == EFFECT_LAST_ROW_LEFT); row++) score_row(&w, row);
    if (v->effect == EFFECT_BF16_OUT) written[hm_fault_arg(op, "logits")] = HM_BF16;
    free(w.q);
    return HM_OK;
}
