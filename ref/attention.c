/* Latent attention in binary64, two passes: all scores of a head, then their exponentials against the largest. */
#include "attention.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "../op/exp_log.h"
#include "../op/isa.h"

enum { LANES = 8, HEADS = 4 }; /* partial sums of a dot product; heads that read a key together */

/* score[h * n + j] = <q[h], key j>, in LANES partial sums, added pairwise: an order of its own, so that vectors of any
 * length give the same bits. */
HM_INLINE void scores_body(const double *q, const float *keys, int64_t heads, int64_t n, int64_t width, double *score) {
    for (int64_t j = 0; j < n; j++) {
        const float *restrict k = keys + j * width;
        for (int64_t h = 0; h < heads; h++) {
            const double *restrict v = q + h * width;
            double lane[LANES] = {0};
            int64_t d = 0;
            for (; d + LANES <= width; d += LANES)
                for (int i = 0; i < LANES; i++) lane[i] += v[d + i] * (double)k[d + i];
            for (int i = 0; d + i < width; i++) lane[i] += v[d + i] * (double)k[d + i];
            for (int step = LANES / 2; step > 0; step /= 2)
                for (int i = 0; i < step; i++) lane[i] += lane[i + step];
            score[h * n + j] = lane[0];
        }
    }
}
HM_DISPATCH(scores, (const double *q, const float *keys, int64_t heads, int64_t n, int64_t width, double *score),
            scores_body, (q, keys, heads, n, width, score))

/* sum[h * values + d] += weight[h * n + j] * value d of key j, key after key */
HM_INLINE void weigh_body(const double *weight, const float *keys, int64_t heads, int64_t n, int64_t width,
                          int64_t values, double *sum) {
    for (int64_t j = 0; j < n; j++) {
        const float *restrict v = keys + j * width;
        for (int64_t h = 0; h < heads; h++) {
            double *restrict to = sum + h * values, w = weight[h * n + j];
            for (int64_t d = 0; d < values; d++) to[d] += w * (double)v[d];
        }
    }
}
HM_DISPATCH(weigh,
            (const double *weight, const float *keys, int64_t heads, int64_t n, int64_t width, int64_t values,
             double *sum),
            weigh_body, (weight, keys, heads, n, width, values, sum))

/* One thread's memory. */
typedef struct {
    double *q, *score, *sum, *key;
} scratch;

/* The places of a token that hold a key, in their order. */
static int64_t list_places(const hm_attention_call *c, int64_t token, int64_t *place) {
    int64_t n = 0, places = hm_attention_places(c, token);
    for (int64_t i = 0; i < places; i++)
        if (hm_attention_there(c, token, i)) place[n++] = i;
    return n;
}

/* The key in a place as f32, which holds every bf16 and f16. */
static void load_key(const hm_attention_call *c, int64_t token, int64_t place, double *key, float *to) {
    hm_attention_key(c, token, place, key);
    for (int64_t d = 0; d < c->width; d++) to[d] = (float)key[d];
}

static void store(const hm_attention_call *c, int64_t token, int64_t head, const double *sum, double lse) {
    const hm_tensor *out = &c->out;
    int64_t size = (int64_t)hm_dtype_size(out->dtype);
    hm_store_row(out->dtype, (char *)out->data + (token * out->stride[0] + head * out->stride[1]) * size,
                 out->stride[2], c->value_width, sum);
    if (c->lse.dtype)
        hm_store(HM_F32, (char *)c->lse.data + (token * c->lse.stride[0] + head * c->lse.stride[1]) * 4, lse);
}

/* score[0..n-1] become weights; returns l, with the sink, and sets lse. */
static double weights(const hm_attention_call *c, int64_t head, int64_t n, double *score, double *lse) {
    double m = -INFINITY, l = 0;
    for (int64_t j = 0; j < n; j++) {
        score[j] *= c->scale;
        m = score[j] > m ? score[j] : m;
    }
    for (int64_t j = 0; j < n; j++) {
        score[j] = hm_exp(score[j] - m);
        l += score[j];
        if (c->p == HM_P_BF16) score[j] = hm_round_to(HM_BF16, score[j]);
    }
    *lse = n ? m + hm_log(l) : INFINITY;
    return n ? l + hm_exp(hm_attention_sink(c, head) - m) : 1;
}

static void heads_of(const hm_attention_call *c, int64_t token, int64_t first, int64_t heads, const float *keys,
                     int64_t n, scratch *s) {
    for (int64_t h = 0; h < heads; h++) hm_attention_query(c, token, first + h, s->q + h * c->width);
    scores(s->q, keys, heads, n, c->width, s->score);
    double l[HEADS], lse[HEADS];
    for (int64_t h = 0; h < heads; h++) l[h] = weights(c, first + h, n, s->score + h * n, &lse[h]);
    for (int64_t i = 0; i < heads * c->value_width; i++) s->sum[i] = 0;
    weigh(s->score, keys, heads, n, c->width, c->value_width, s->sum);
    for (int64_t h = 0; h < heads; h++) {
        double *sum = s->sum + h * c->value_width;
        for (int64_t d = 0; d < c->value_width; d++) sum[d] /= l[h];
        store(c, token, first + h, sum, lse[h]);
    }
}

hm_status hm_attention_compute(const char *op, const hm_attention_call *c) {
    if (c->out.place != HM_HOST) return hm_fail(HM_UNSUPPORTED, "%s: ref works on host tensors only", op);
    if (c->tokens == 0 || c->heads == 0) return HM_OK;
    int64_t most = 0;
    for (int64_t t = 0; t < c->tokens; t++) {
        int64_t n = hm_attention_places(c, t);
        most = n > most ? n : most;
    }
    double work = (double)c->tokens * (double)c->heads * (double)most * (double)c->width;
    bool many =
        c->tokens >= omp_get_max_threads(); /* then a thread takes whole tokens; else the heads are shared out */
    int threads = work > 1 << 18 ? omp_get_max_threads() : 1, teams = many ? threads : 1;
    size_t each = (size_t)HEADS * (size_t)(c->width + c->value_width + most) + (size_t)c->width;
    size_t keys_each = (size_t)most * (size_t)c->width + 1, places_each = (size_t)most + 1;
    double *memory = malloc((size_t)threads * each * sizeof *memory);
    float *keys = malloc((size_t)teams * keys_each * sizeof *keys);
    int64_t *places = malloc((size_t)teams * places_each * sizeof *places);
    if (!memory || !keys || !places) {
        free(memory), free(keys), free(places);
        return hm_fail(HM_NO_MEMORY, "%s: no memory for %lld keys of %lld elements", op, (long long)most,
                       (long long)c->width);
    }
    int64_t groups = (c->heads + HEADS - 1) / HEADS;
    int64_t n = 0; /* of the token, where threads share it */
#pragma omp parallel num_threads(threads)
    {
        int thread = omp_get_thread_num();
        double *mine = memory + (size_t)thread * each;
        scratch s = {.q = mine, .score = mine + HEADS * c->width};
        s.sum = s.score + HEADS * most, s.key = s.sum + HEADS * c->value_width;
        if (many) {
            float *k = keys + (size_t)thread * keys_each;
            int64_t *p = places + (size_t)thread * places_each;
#pragma omp for schedule(dynamic, 1)
            for (int64_t t = 0; t < c->tokens; t++) {
                int64_t have = list_places(c, t, p);
                for (int64_t j = 0; j < have; j++) load_key(c, t, p[j], s.key, k + j * c->width);
                for (int64_t g = 0; g < groups; g++)
                    heads_of(c, t, g * HEADS, c->heads - g * HEADS < HEADS ? c->heads - g * HEADS : HEADS, k, have, &s);
            }
        } else {
            for (int64_t t = 0; t < c->tokens; t++) {
#pragma omp single
                n = list_places(c, t, places);
#pragma omp for schedule(static)
                for (int64_t j = 0; j < n; j++) load_key(c, t, places[j], s.key, keys + j * c->width);
#pragma omp for schedule(dynamic, 1)
                for (int64_t g = 0; g < groups; g++)
                    heads_of(c, t, g * HEADS, c->heads - g * HEADS < HEADS ? c->heads - g * HEADS : HEADS, keys, n, &s);
            }
        }
    }
    free(memory), free(keys), free(places);
    return HM_OK;
}
