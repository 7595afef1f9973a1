#include "logits.h"

#include <math.h>
#include <stdlib.h>

#include "../../op/dtype.h"
#include "dot.h"

static double dot(const hm_logits_variant *v, const float *q, const float *k, int64_t n, float *t) {
    float sum = 0, lane[16] = {0};
    double wide = 0;
    for (int64_t d = 0; d < n; d++) t[d] = q[d] * k[d]; /* exact */
    switch (v->dot) {
        case DOT_PAIRWISE:
            return (double)hm_variant_pairwise(t, n);
        case DOT_LANES:
            for (int64_t d = 0; d < n; d++) lane[d % 16] += t[d];
            return (double)hm_variant_pairwise(lane, 16);
        case DOT_TENSOR_CORE:
            return (double)hm_variant_tensor_core(v->bits, v->block, t, n);
        case DOT_F64:
            for (int64_t d = 0; d < n; d++) wide += (double)t[d];
            return wide;
        case DOT_REVERSED:
            for (int64_t d = n - 1; d >= 0; d--) sum += t[d];
            return (double)sum;
        default:
            for (int64_t d = 0; d < n; d++) sum += t[d];
            return (double)sum;
    }
}

static double combine_f32(const hm_logits_variant *v, const double *score, const float *weight, int64_t heads,
                          float scale) {
    float sum = 0;
    for (int64_t i = 0; i < heads; i++) {
        int64_t h = v->heads_reversed ? heads - 1 - i : i;
        float x = (float)score[h], w = weight[h];
        if (v->scale == SCALE_ON_SCORE) x *= scale;
        if (v->scale == SCALE_ON_WEIGHT) w *= scale;
        x = x > 0 ? x : 0;
        sum = v->fma ? fmaf(w, x, sum) : sum + w * x;
    }
    return (double)(v->scale == SCALE_LAST ? sum * scale : sum);
}

static double combine_f64(const hm_logits_variant *v, const double *score, const float *weight, int64_t heads,
                          float scale) {
    double sum = 0;
    for (int64_t i = 0; i < heads; i++) {
        int64_t h = v->heads_reversed ? heads - 1 - i : i;
        sum += (double)weight[h] * (score[h] > 0 ? score[h] : 0);
    }
    return sum * (double)scale;
}

hm_status hm_logits_variant_run(const hm_logits_variant *v, const hm_logits_call *c) {
    int64_t H = c->heads, D = c->head_dim;
    float *q = malloc((size_t)((H + 2) * D + H) * sizeof *q + 4), *k = q + H * D, *t = k + D, *weight = t + D;
    double *score = malloc((size_t)H * sizeof *score + 1);
    uint8_t *codes = malloc((size_t)D + 1);
    for (int64_t row = 0; q && score && codes && row < c->rows; row++) {
        int64_t first, end, shift;
        hm_logits_columns_of(c, row, &first, &end, &shift);
        for (int64_t h = 0; h < H; h++) {
            weight[h] = hm_logits_weight(c, row, h);
            for (int64_t d = 0; d < D; d++) q[h * D + d] = (float)hm_load8(c->codes, *hm_logits_query(c, row, h, d));
        }
        for (int64_t column = 0; column < c->width; column++) {
            bool inside = column >= first && column < end;
            double out = -INFINITY;
            if (!inside && c->outside == HM_LOGITS_LEAVE) continue;
            if (inside) {
                float scale = hm_logits_key(c, row, column + shift, codes);
                for (int64_t d = 0; d < D; d++) k[d] = (float)hm_load8(c->codes, codes[d]);
                for (int64_t h = 0; h < H; h++) score[h] = dot(v, q + h * D, k, D, t);
                out = v->dot == DOT_F64 ? combine_f64(v, score, weight, H, scale)
                                        : combine_f32(v, score, weight, H, scale);
            }
            hm_store(HM_F32, (char *)c->logits.data + (row * c->logits.stride[0] + column * c->logits.stride[1]) * 4,
                     out);
        }
    }
    hm_status status = q && score && codes ? HM_OK : HM_NO_MEMORY;
    free(q), free(score), free(codes);
    return status;
}
