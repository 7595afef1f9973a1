#include "attention.h"

#include <math.h>
#include <stdlib.h>

#include "../../op/dtype.h"
#include "../../op/exp_log.h"
#include "dot.h"

/* Every operation is rounded to f32, or none is. */
typedef struct {
    const hm_attention_variant *v;
    const hm_attention_call *c;
    int64_t n;
    double *key, *score, *p, *sum, *part; /* key: in the order in which they are taken */
    float *term;
    double *q;
} walk;

static double r(const walk *w, double x) { return w->v->wide ? x : (double)(float)x; }

static double total(const walk *w, const float *t, int64_t n) {
    const hm_attention_variant *v = w->v;
    float sum = 0, lane[16] = {0};
    switch (v->dot) {
        case DOT_PAIRWISE:
            return (double)hm_variant_pairwise(t, n);
        case DOT_LANES:
            for (int64_t d = 0; d < n; d++) lane[d % 16] += t[d];
            return (double)hm_variant_pairwise(lane, 16);
        case DOT_TENSOR_CORE:
            return (double)hm_variant_tensor_core(v->bits, v->block, t, n);
        default:
            for (int64_t d = 0; d < n; d++) sum += t[d];
            return (double)sum;
    }
}

static double dot(const walk *w, const double *k) {
    double wide = 0;
    for (int64_t d = 0; d < w->c->width; d++) {
        wide += w->q[d] * k[d];
        w->term[d] = (float)(w->q[d] * k[d]); /* exact */
    }
    return w->v->wide ? wide : total(w, w->term, w->c->width);
}

static double bent(const walk *w, double e) { return r(w, e * (1 + w->v->bend * 0x1p-23)); }

/* exp(scale (t - top)), both unscaled */
static double weight(const walk *w, double t, double top) {
    double scale = w->c->scale;
    if (t == -INFINITY) return 0;
    if (!w->v->exp2) return bent(w, hm_exp(r(w, r(w, t * scale) - r(w, top * scale))));
    double c = r(w, scale * r(w, 0x1.71547652b82fep0));
    double x = w->v->fma ? r(w, t * c - r(w, top * c)) : r(w, r(w, t * c) - r(w, top * c));
    return bent(w, hm_exp(x * 0x1.62e42fefa39efp-1));
}

typedef struct {
    double top, l; /* the largest unscaled score; the sum against it */
} state;

/* Keys [from, to) into sum. */
static state run(const walk *w, int64_t from, int64_t to, double *sum) {
    const hm_attention_call *c = w->c;
    state s = {.top = -INFINITY};
    int64_t step = w->v->keys ? w->v->keys : to - from;
    for (int64_t d = 0; d < c->value_width; d++) sum[d] = 0;
    for (int64_t block = from; block < to; block += step) {
        int64_t m = to - block < step ? to - block : step;
        double top = s.top;
        bool falling = c->scale < 0; /* then the smallest product is the largest score */
        for (int64_t j = block; j < block + m; j++)
            if (top == -INFINITY || (falling ? w->score[j] < top : w->score[j] > top)) top = w->score[j];
        double back = s.top == -INFINITY ? 0 : weight(w, s.top, top);
        s.top = top, s.l = r(w, s.l * back);
        double wide = 0;
        for (int64_t j = 0; j < m; j++) {
            double p = weight(w, w->score[block + j], top);
            w->term[j] = (float)p, wide += p;
            w->p[j] = c->p == HM_P_BF16 ? hm_round_to(HM_BF16, p) : p;
        }
        /* not on tensor cores, whose error is for products */
        double l = w->v->wide ? wide : w->v->dot ? (double)hm_variant_pairwise(w->term, m) : total(w, w->term, m);
        s.l = r(w, s.l + l);
        for (int64_t d = 0; d < c->value_width; d++) {
            double exact = 0;
            for (int64_t j = 0; j < m; j++) {
                double t = w->p[j] * w->key[(block + j) * c->width + d];
                w->term[j] = (float)t, exact += t;
            }
            sum[d] = r(w, r(w, sum[d] * back) + (w->v->wide ? exact : total(w, w->term, m)));
        }
    }
    return s;
}

static double lse_of(const walk *w, state s) { return r(w, r(w, s.top * w->c->scale) + r(w, hm_log(s.l))); }

/* Softmax of every part, then their mean by the weights of their lse; leaves out in sum. */
static double parts(const walk *w, int64_t n, int count, double sink) {
    int64_t values = w->c->value_width;
    double m = -INFINITY, lse[8], total_weight = 0;
    state one = {0};
    if (count > n) count = (int)n;
    for (int i = 0; i < count; i++) {
        one = run(w, n * i / count, n * (i + 1) / count, w->part + i * values);
        if (count > 1)
            for (int64_t d = 0; d < values; d++) w->part[i * values + d] = r(w, w->part[i * values + d] / one.l);
        lse[i] = lse_of(w, one);
        m = lse[i] > m ? lse[i] : m;
    }
    bool has_sink = sink > -INFINITY;
    if (count == 1) {
        double l = one.l;
        if (has_sink && !w->v->sink_behind) l = r(w, l + bent(w, hm_exp(r(w, sink - r(w, one.top * w->c->scale)))));
        for (int64_t d = 0; d < values; d++) w->sum[d] = r(w, w->part[d] / l);
    } else {
        double l = 0;
        for (int64_t d = 0; d < values; d++) w->sum[d] = 0;
        for (int i = 0; i < count; i++) {
            double p = bent(w, hm_exp(r(w, lse[i] - m)));
            l = r(w, l + p);
            for (int64_t d = 0; d < values; d++) w->sum[d] = r(w, w->sum[d] + r(w, p * w->part[i * values + d]));
        }
        lse[0] = r(w, m + r(w, hm_log(l)));
        total_weight = l;
        if (has_sink && !w->v->sink_behind) total_weight = r(w, l + bent(w, hm_exp(r(w, sink - m))));
        for (int64_t d = 0; d < values; d++) w->sum[d] = r(w, w->sum[d] / total_weight);
    }
    if (has_sink && w->v->sink_behind) {
        double factor = r(w, 1 / r(w, 1 + bent(w, hm_exp(r(w, sink - lse[0])))));
        for (int64_t d = 0; d < values; d++) w->sum[d] = r(w, w->sum[d] * factor);
    }
    return lse[0];
}

static void head_of(walk *w, int64_t token, int64_t head) {
    const hm_attention_call *c = w->c;
    double lse = INFINITY;
    hm_attention_query(c, token, head, w->q);
    for (int64_t j = 0; j < w->n; j++) w->score[j] = dot(w, w->key + j * c->width);
    for (int64_t d = 0; d < c->value_width; d++) w->sum[d] = 0;
    if (w->n) lse = parts(w, w->n, w->v->parts ? w->v->parts : 1, hm_attention_sink(c, head));
    hm_store_row(c->out.dtype,
                 (char *)c->out.data +
                     (token * c->out.stride[0] + head * c->out.stride[1]) * (int64_t)hm_dtype_size(c->out.dtype),
                 c->out.stride[2], c->value_width, w->sum);
    if (c->lse.dtype)
        hm_store(HM_F32, (char *)c->lse.data + (token * c->lse.stride[0] + head * c->lse.stride[1]) * 4, lse);
}

static void load_keys(walk *w, int64_t token) {
    int64_t places = hm_attention_places(w->c, token);
    w->n = 0;
    for (int64_t i = 0; i < places; i++) {
        int64_t place = w->v->reverse ? places - 1 - i : i;
        if (hm_attention_there(w->c, token, place)) hm_attention_key(w->c, token, place, w->key + w->n++ * w->c->width);
    }
}

hm_status hm_attention_variant_run(const hm_attention_variant *v, const hm_attention_call *c) {
    int64_t most = 0;
    for (int64_t t = 0; t < c->tokens; t++) {
        int64_t n = hm_attention_places(c, t);
        most = n > most ? n : most;
    }
    walk w = {.v = v, .c = c};
    w.q = malloc((size_t)(c->width * (most + 1) + 2 * most + 9 * c->value_width + 1) * sizeof *w.q);
    w.term = malloc((size_t)(most + c->width + 1) * sizeof *w.term);
    if (!w.q || !w.term) {
        free(w.q), free(w.term);
        return HM_NO_MEMORY;
    }
    w.score = w.q + c->width, w.p = w.score + most, w.sum = w.p + most, w.part = w.sum + c->value_width,
    w.key = w.part + 8 * c->value_width;
    for (int64_t t = 0; t < c->tokens; t++) {
        load_keys(&w, t);
        for (int64_t h = 0; h < c->heads; h++) head_of(&w, t, h);
    }
    free(w.q), free(w.term);
    return HM_OK;
}
