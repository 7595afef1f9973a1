#include "logits.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "../op/isa.h"

enum { BLOCK = 4 }; /* keys scored together: a query is loaded once for them */

/* score[h][j] = sum over d of q[h][d] k[j][d]. A product of two e4m3 values is an integer below 2^36 in units of 2^-18
 * (fnuz: 2^-20), so sums of up to 2^17 of them are exact in binary64, in any order: the compiler may reorder them. */
HM_INLINE void scores_body(const double *q, const double *k, int64_t heads, int64_t n, double *score) {
    for (int64_t h = 0; h < heads; h++) {
        const double *restrict v = q + h * n;
        double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
        for (int64_t d = 0; d < n; d++) {
            s0 += v[d] * k[d];
            s1 += v[d] * k[n + d];
            s2 += v[d] * k[2 * n + d];
            s3 += v[d] * k[3 * n + d];
        }
        score[h * BLOCK] = s0, score[h * BLOCK + 1] = s1, score[h * BLOCK + 2] = s2, score[h * BLOCK + 3] = s3;
    }
}
HM_DISPATCH(scores, (const double *q, const double *k, int64_t heads, int64_t n, double *score), scores_body,
            (q, k, heads, n, score))

/* One thread's memory. */
typedef struct {
    double *q, *k, *score, *weight;
    uint8_t *codes;
} scratch;

static void put(const hm_logits_call *c, int64_t row, int64_t column, double v) {
    hm_store(HM_F32, (char *)c->logits.data + (row * c->logits.stride[0] + column * c->logits.stride[1]) * 4, v);
}

static void load_query(const hm_logits_call *c, int64_t row, const double *value, scratch *s) {
    for (int64_t h = 0; h < c->heads; h++) {
        s->weight[h] = (double)hm_logits_weight(c, row, h);
        for (int64_t d = 0; d < c->head_dim; d++) s->q[h * c->head_dim + d] = value[*hm_logits_query(c, row, h, d)];
    }
}

/* Columns [first, end) of a row: heads are added in their order, in binary64, and the sum is scaled and rounded once.
 * */
static void score_columns(const hm_logits_call *c, int64_t row, int64_t first, int64_t end, int64_t shift,
                          const double *value, scratch *s) {
    for (int64_t column = first; column < end; column += BLOCK) {
        int64_t n = end - column < BLOCK ? end - column : BLOCK;
        double scale[BLOCK];
        for (int64_t j = 0; j < n; j++) {
            scale[j] = (double)hm_logits_key(c, row, column + j + shift, s->codes);
            for (int64_t d = 0; d < c->head_dim; d++) s->k[j * c->head_dim + d] = value[s->codes[d]];
        }
        scores(s->q, s->k, c->heads, c->head_dim, s->score);
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t h = 0; h < c->heads; h++) {
                double x = s->score[h * BLOCK + j];
                sum += s->weight[h] * (x < 0 ? 0 : x); /* NaN stays */
            }
            put(c, row, column + j, sum * scale[j]);
        }
    }
}

enum { CHUNK = 256 }; /* columns of one piece of work */

hm_status hm_logits_compute(const char *op, const hm_logits_call *c) {
    if (c->logits.place != HM_HOST) return hm_fail(HM_UNSUPPORTED, "%s: ref works on host tensors only", op);
    double value[256];
    for (int code = 0; code < 256; code++) value[code] = hm_load8(c->codes, (uint8_t)code);
    if (c->rows == 0 || c->width == 0) return HM_OK;
    int64_t pieces = (c->width + CHUNK - 1) / CHUNK;
    int threads = c->rows * c->width * c->heads * c->head_dim > 1 << 18 ? omp_get_max_threads() : 1;
    size_t query = (size_t)(c->heads * c->head_dim),
           each = query + (size_t)((BLOCK + 1) * (c->head_dim + c->heads)) + 8;
    double *memory = calloc((size_t)threads * each, sizeof *memory);
    uint8_t *codes = malloc((size_t)threads * (size_t)c->head_dim + 1);
    if (!memory || !codes) {
        free(memory), free(codes);
        return hm_fail(HM_NO_MEMORY, "%s: no memory for a query of %lld heads", op, (long long)c->heads);
    }
#pragma omp parallel num_threads(threads)
    {
        size_t thread = (size_t)omp_get_thread_num();
        double *mine = memory + thread * each;
        scratch s = {.q = mine, .k = mine + query, .codes = codes + thread * (size_t)c->head_dim};
        s.score = s.k + BLOCK * c->head_dim, s.weight = s.score + BLOCK * c->heads;
        int64_t loaded = -1;
#pragma omp for schedule(dynamic, 1)
        for (int64_t piece = 0; piece < c->rows * pieces; piece++) {
            int64_t row = piece / pieces, from = piece % pieces * CHUNK,
                    to = from + CHUNK < c->width ? from + CHUNK : c->width;
            int64_t first, end, shift;
            hm_logits_columns_of(c, row, &first, &end, &shift);
            if (loaded != row) load_query(c, row, value, &s), loaded = row;
            for (int64_t column = from; column < to && c->outside == HM_LOGITS_CLEAN; column++)
                if (column < first || column >= end) put(c, row, column, -INFINITY);
            if (first < from) first = from;
            if (end > to) end = to;
            score_columns(c, row, first, end, shift, value, &s);
        }
    }
    free(memory), free(codes);
    return HM_OK;
}
