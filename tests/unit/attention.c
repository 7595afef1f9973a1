/* sparse_mla_decode and mla_prefill, against loops in long double written from the headers; nothing of op/attention.c
 * or op/mla_cache.c, which ref and golden share, takes part. What no token may see holds NaN, or has no memory. */
#include <criterion/criterion.h>
#include <hallmark/mla_prefill.h>
#include <hallmark/op.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../golden/dot.h"
#include "../../golden/golden.h"
#include "../../op/dtype.h"
#include "host.h"
#include "refused.h"

#define DECODE "sparse_mla_decode"
#define PREFILL "mla_prefill"

enum { TOKENS = 7, HEADS = 5, TOP_K = 23, KEYS = 41, SLOTS = 128, WIDTH = 576, MOST = KEYS };

/* ---- drawing ---- */

static uint32_t state = 1;
static int drawn(int n) { return state = state * 1664525 + 1013904223, (int)((state >> 8) % (uint32_t)n); }
static double uniform(double most) { return ((double)drawn(1 << 20) / (1 << 19) - 1) * most; }

/* ---- tensors in memory of their own ---- */

enum layout { PACKED, SPREAD, TRANSPOSED, LAYOUTS };

/* SPREAD: gaps everywhere, an input's first dimension backwards. TRANSPOSED: the first dimension is the innermost. */
static hm_tensor make(hm_dtype dtype, int ndim, const int64_t *shape, enum layout layout, bool output) {
    hm_tensor t = hm_tensor_of(NULL, dtype, ndim, shape);
    int64_t size = (int64_t)hm_dtype_size(dtype), step = 1, last = 0;
    bool entry = dtype == HM_U8; /* of one piece */
    for (int i = 0; i < ndim; i++) {
        int d = layout == TRANSPOSED ? (entry ? (i == 0 ? 2 : i - 1) : i) : ndim - 1 - i;
        t.stride[d] = step * (layout == SPREAD && !(entry && d == 2) ? 2 : 1);
        step = t.stride[d] * (shape[d] > 0 ? shape[d] : 1) + (layout == SPREAD ? 3 : 0);
        if (shape[d] > 0) last += (shape[d] - 1) * t.stride[d];
    }
    size_t bytes = (size_t)((last + 1) * size);
    unsigned char *memory = malloc(bytes);
    memset(memory, output ? CANARY : dtype == HM_I32 ? 0x7F : 0xFF, bytes); /* NaN of every format, a huge index */
    t.data = memory;
    if (layout == SPREAD && !output && shape[0] > 0) {
        t.data = memory + (shape[0] - 1) * t.stride[0] * size;
        t.stride[0] = -t.stride[0];
    }
    return t;
}
static void discard(hm_tensor *t) {
    if (t->dtype && t->data)
        free((char *)t->data +
             (t->stride[0] < 0 ? (t->shape[0] - 1) * t->stride[0] * (int64_t)hm_dtype_size(t->dtype) : 0));
}
static void *at(const hm_tensor *t, int64_t i, int64_t j, int64_t k) {
    return (char *)t->data +
           (i * t->stride[0] + (t->ndim > 1 ? j * t->stride[1] : 0) + (t->ndim > 2 ? k * t->stride[2] : 0)) *
               (int64_t)hm_dtype_size(t->dtype);
}
static void put(const hm_tensor *t, int64_t i, int64_t j, int64_t k, double v) {
    hm_store(t->dtype, at(t, i, j, k), v);
}
static double get(const hm_tensor *t, int64_t i, int64_t j, int64_t k) { return hm_load(t->dtype, at(t, i, j, k)); }

/* ---- a call, and which keys each token sees ---- */

typedef struct {
    hm_dtype T;
    bool ds; /* entries of 656 bytes */
    int block_size, width, values;
    enum layout layout;
    bool lengths, sinks, lse, starts, ends;
    int keys; /* prefill */
    double scale;
    hm_attention_p p;
    hm_mla_dequant dequant;
    int turn; /* which token is of which kind */
} form;

typedef struct {
    form f;
    double q[TOKENS][HEADS][WIDTH], key[SLOTS][WIDTH], sink[HEADS];
    int n[TOKENS], seen[TOKENS][MOST];
    hm_sparse_mla_decode_args decode;
    hm_mla_prefill_args prefill;
    hm_tensor *out, *lse;
    const char *op;
    const void *args;
} problem;

static double code_value(int code) {
    int e = code >> 3 & 15, m = code & 7;
    double v = e ? ldexp(8 + m, e - 10) : ldexp(m, -9);
    return code & 0x80 ? -v : v;
}

/* What each reader makes of code times scale, from the table in concat_and_cache_mla.h; scales are positive here. */
static double dequantised(hm_mla_dequant mode, int code, float scale) {
    double S = mode == HM_MLA_DEQUANT_SM90    ? hm_round_to(HM_BF16, (double)scale)
               : mode == HM_MLA_DEQUANT_SM100 ? exp2(floor(log2((double)scale)))
                                              : (double)scale;
    return hm_round_to(HM_BF16, code_value(code) * S);
}

static void fill_queries(problem *s, const hm_tensor *q, const hm_tensor *sink) {
    for (int t = 0; t < TOKENS; t++)
        for (int h = 0; h < HEADS; h++)
            for (int d = 0; d < s->f.width; d++)
                put(q, t, h, d, s->q[t][h][d] = hm_round_to(s->f.T, uniform(t == 3 ? 6 : 1)));
    static const float sinks[HEADS] = {0.5f, -3.25f, 9, -INFINITY, -100};
    for (int h = 0; h < HEADS; h++) {
        s->sink[h] = s->f.sinks ? (double)sinks[h] : -INFINITY;
        if (s->f.sinks) put(sink, h, 0, 0, (double)sinks[h]);
    }
}

static void fill_slot(problem *s, const hm_tensor *cache, int slot) {
    int block = slot / s->f.block_size, row = slot % s->f.block_size;
    if (!s->f.ds) {
        for (int d = 0; d < s->f.width; d++)
            put(cache, block, row, d, s->key[slot][d] = hm_round_to(s->f.T, uniform(2)));
        return;
    }
    unsigned char *entry = at(cache, block, row, 0);
    for (int tile = 0; tile < 4; tile++) {
        float scale = (float)(1 + drawn(100000)) / 3e6f;
        memcpy(entry + 512 + 4 * tile, &scale, sizeof scale);
        for (int d = 128 * tile; d < 128 * tile + 128; d++) {
            do entry[d] = (unsigned char)drawn(256);
            while ((entry[d] & 0x7F) == 0x7F);
            s->key[slot][d] = dequantised(s->f.dequant, entry[d], scale);
        }
    }
    for (int d = 0; d < 64; d++)
        hm_store(HM_BF16, entry + 528 + 2 * d, s->key[slot][512 + d] = hm_round_to(HM_BF16, uniform(2)));
}

static problem *decode_of(form f) {
    problem *s = calloc(1, sizeof *s);
    s->f = f, s->op = DECODE, s->args = &s->decode;
    hm_sparse_mla_decode_args *a = &s->decode;
    int blocks = SLOTS / f.block_size, capacity = blocks * f.block_size;
    *a = (hm_sparse_mla_decode_args){.size = sizeof *a, .scale = f.scale, .p = f.p, .dequant = f.dequant};
    a->q = make(f.T, 3, (int64_t[]){TOKENS, HEADS, f.width}, f.layout, false);
    a->kv_cache = make(f.ds ? HM_U8 : f.T, 3, (int64_t[]){blocks, f.block_size, f.ds ? 656 : f.width}, f.layout, false);
    a->indices = make(HM_I32, 2, (int64_t[]){TOKENS, TOP_K}, f.layout, false);
    a->out = make(f.T, 3, (int64_t[]){TOKENS, HEADS, f.values}, f.layout, true);
    if (f.lengths) a->topk_length = make(HM_I32, 1, (int64_t[]){TOKENS}, f.layout, false);
    if (f.sinks) a->attn_sink = make(HM_F32, 1, (int64_t[]){HEADS}, f.layout, false);
    if (f.lse) a->lse = make(HM_F32, 2, (int64_t[]){TOKENS, HEADS}, f.layout, true);
    s->out = &a->out, s->lse = &a->lse;
    fill_queries(s, &a->q, &a->attn_sink);
    for (int slot = 0; slot < capacity; slot++)
        if (slot % 3 != 1) fill_slot(s, &a->kv_cache, slot);
    static const int lengths[TOKENS] = {TOP_K, TOP_K - 1, 0, 1, 5, -3, INT32_MIN};
    for (int t = 0; t < TOKENS; t++) {
        int kind = (t + f.turn) % 7, n = TOP_K;
        if (f.lengths) {
            n = lengths[(t + 3 * f.turn) % 7];
            put(&a->topk_length, t, 0, 0, n);
        }
        for (int i = 0; i < n; i++) { /* what lies behind is past the cache */
            int slot = 3 * drawn(capacity / 3) + 2 * drawn(2);
            if (kind == 1 && i % 2) slot = i % 4 == 1 ? -1 : INT32_MIN;
            if (kind == 2 && i % 3) slot = (int)get(&a->indices, t, i - 1, 0); /* three times */
            if (kind == 3) slot = -1 - i;
            if (kind == 4 && i != TOP_K / 2) slot = -7;
            if (kind == 5 && i < 17) slot = -1;
            put(&a->indices, t, i, 0, slot);
            if (slot >= 0) s->seen[t][s->n[t]++] = slot;
        }
    }
    return s;
}

static problem *prefill_of(form f) {
    problem *s = calloc(1, sizeof *s);
    s->f = f, s->op = PREFILL, s->args = &s->prefill;
    hm_mla_prefill_args *a = &s->prefill;
    *a = (hm_mla_prefill_args){.size = sizeof *a, .scale = f.scale, .p = f.p};
    a->q = make(f.T, 3, (int64_t[]){TOKENS, HEADS, f.width}, f.layout, false);
    a->kv = make(f.T, 2, (int64_t[]){f.keys, f.width}, f.layout, false);
    a->out = make(f.T, 3, (int64_t[]){TOKENS, HEADS, f.values}, f.layout, true);
    if (f.starts) a->key_start = make(HM_I32, 1, (int64_t[]){TOKENS}, f.layout, false);
    if (f.ends) a->key_end = make(HM_I32, 1, (int64_t[]){TOKENS}, f.layout, false);
    if (f.sinks) a->attn_sink = make(HM_F32, 1, (int64_t[]){HEADS}, f.layout, false);
    if (f.lse) a->lse = make(HM_F32, 2, (int64_t[]){TOKENS, HEADS}, f.layout, true);
    s->out = &a->out, s->lse = &a->lse;
    fill_queries(s, &a->q, &a->attn_sink);
    static const int32_t starts[TOKENS] = {-5, 3, 9, INT32_MIN, 7, 0, INT32_MAX},
                         ends[TOKENS] = {4, 11, 9, 1, INT32_MAX, -3, 3};
    bool seen[KEYS] = {false};
    for (int t = 0; t < TOKENS; t++) {
        long first = f.starts ? starts[t] : 0, end = f.ends ? ends[t] : f.keys - TOKENS + t + 1;
        if (f.starts) put(&a->key_start, t, 0, 0, starts[t]);
        if (f.ends) put(&a->key_end, t, 0, 0, ends[t]);
        for (int k = 0; k < f.keys; k++)
            if (k >= first && k < end) s->seen[t][s->n[t]++] = k, seen[k] = true;
    }
    for (int k = 0; k < f.keys; k++)
        for (int d = 0; d < f.width && seen[k]; d++) put(&a->kv, k, d, 0, s->key[k][d] = hm_round_to(f.T, uniform(2)));
    return s;
}

static void drop(problem *s) {
    bool paged = s->args == &s->decode;
    hm_sparse_mla_decode_args *a = &s->decode;
    hm_mla_prefill_args *b = &s->prefill;
    hm_tensor *of_decode[] = {&a->q, &a->kv_cache, &a->indices, &a->topk_length, &a->attn_sink, &a->out, &a->lse};
    hm_tensor *of_prefill[] = {&b->q, &b->kv, &b->key_start, &b->key_end, &b->attn_sink, &b->out, &b->lse};
    for (int i = 0; i < 7; i++) discard(paged ? of_decode[i] : of_prefill[i]);
    free(s);
}

/* ---- what is right ---- */

typedef struct {
    long double out[WIDTH], size[WIDTH], lse; /* size: of the terms of out */
} answer;

static answer answer_of(const problem *s, int t, int h) {
    answer r = {.lse = INFINITY};
    long double score[MOST], m = -INFINITY, l = 0;
    long double scale = (long double)(s->f.scale == 0 ? (float)(1 / sqrt(s->f.width)) : (float)s->f.scale);
    for (int j = 0; j < s->n[t]; j++) {
        score[j] = 0;
        for (int d = 0; d < s->f.width; d++)
            score[j] += (long double)s->q[t][h][d] * (long double)s->key[s->seen[t][j]][d];
        score[j] *= scale;
        m = score[j] > m ? score[j] : m;
    }
    if (s->n[t] == 0) return r;
    for (int j = 0; j < s->n[t]; j++) l += expl(score[j] - m);
    r.lse = m + logl(l);
    long double sink = expl((long double)s->sink[h] - m);
    for (int j = 0; j < s->n[t]; j++) {
        long double w = expl(score[j] - m);
        if (s->f.p == HM_P_BF16) w = (long double)hm_round_to(HM_BF16, (double)w);
        for (int d = 0; d < s->f.values; d++) {
            long double term = w * (long double)s->key[s->seen[t][j]][d] / (l + sink);
            r.out[d] += term, r.size[d] += fabsl(term);
        }
    }
    return r;
}

/* Is got v rounded to T, v being within 2^-44 of size? */
static bool is(hm_dtype T, double got, long double v, long double size) {
    double wide = (double)size * 0x1p-44;
    return got >= hm_round_to(T, (double)v - wide) && got <= hm_round_to(T, (double)v + wide);
}

static int compare(const problem *s, const char *what) {
    int wrong = 0;
    for (int t = 0; t < TOKENS; t++)
        for (int h = 0; h < HEADS; h++) {
            answer r = answer_of(s, t, h);
            for (int d = 0; d < s->f.values; d++) wrong += !is(s->f.T, get(s->out, t, h, d), r.out[d], r.size[d]);
            if (!s->f.lse) continue;
            double got = get(s->lse, t, h, 0);
            wrong += isinf(r.lse) ? got != INFINITY : !is(HM_F32, got, r.lse, fabsl(r.lse) + 4);
        }
    cr_expect_eq(wrong, 0, "%s: %d elements of T %d, ds %d, blocks %d, layout %d, p %d, dequant %d", what, wrong,
                 (int)s->f.T, s->f.ds, s->f.block_size, (int)s->f.layout, (int)s->f.p, (int)s->f.dequant);
    return wrong;
}

/* Bytes of an output's memory that belong to no element and are no canaries. */
static int64_t gaps_written(const hm_tensor *t) {
    if (!t->dtype) return 0;
    int64_t size = (int64_t)hm_dtype_size(t->dtype), last = 0, elements = hm_tensor_elements(t), kept = 0;
    for (int d = 0; d < t->ndim; d++) last += (t->shape[d] - 1) * t->stride[d];
    const unsigned char *p = t->data;
    unsigned char *mine = calloc((size_t)(last + 1), 1);
    for (int64_t i = 0; i < t->shape[0]; i++)
        for (int64_t j = 0; j < t->shape[1]; j++)
            for (int64_t k = 0; k < (t->ndim > 2 ? t->shape[2] : 1); k++)
                mine[((const unsigned char *)at(t, i, j, k) - p) / size] = 1;
    for (int64_t e = 0; e <= last; e++)
        for (int64_t b = 0; b < size; b++) kept += !mine[e] && p[e * size + b] == CANARY;
    free(mine);
    return (last + 1 - elements) * size - kept;
}

static int argument(const hm_op_info *op, const char *name) {
    for (int i = 0; i < op->nargs; i++)
        if (!strcmp(op->args[i].name, name)) return i;
    return -1;
}

typedef struct {
    double lo[WIDTH], hi[WIDTH], ideal[WIDTH];
    unsigned char flags[WIDTH];
    hm_golden_row row;
} golden_row;

static golden_row *row_of(const hm_golden *g, int arg, int64_t row, hm_class c, hm_tier tier) {
    static golden_row r;
    r = (golden_row){.row = {.lo = r.lo, .hi = r.hi, .ideal = r.ideal, .flags = r.flags}};
    cr_assert_eq(hm_golden_row_get(g, arg, row, c, tier, &r.row), HM_OK, "%s", hm_error());
    return &r;
}

/* golden: ideal is the answer rounded, and what ref gave is admitted, in every class. */
static void golden_agrees(const problem *s) {
    const hm_op_info *op = hm_op_named(s->op);
    hm_golden *g;
    cr_assert_eq(hm_golden_open(op, s->args, 1, &g), HM_OK, "%s", hm_error());
    int out = argument(op, "out"), lse = argument(op, "lse"), wrong = 0, outside = 0;
    for (int t = 0; t < TOKENS; t++)
        for (int c = HM_WIDE; c < HM_CLASS_COUNT; c += c == HM_WIDE ? HM_TC23 : 1) {
            for (int h = 0; h < HEADS; h++) {
                golden_row *r = row_of(g, out, t * HEADS + h, (hm_class)c, HM_TIER_TWO);
                answer want = answer_of(s, t, h);
                for (int d = 0; d < s->f.values; d++) {
                    double got = get(s->out, t, h, d);
                    wrong += s->f.p == HM_P_F32 && !is(s->f.T, r->ideal[d], want.out[d], want.size[d]);
                    outside += !(r->lo[d] <= got && got <= r->hi[d]) || r->flags[d] ||
                               !(r->lo[d] <= r->ideal[d] && r->ideal[d] <= r->hi[d]);
                }
            }
            golden_row *r = s->f.lse ? row_of(g, lse, t, (hm_class)c, HM_TIER_TWO) : NULL;
            for (int h = 0; h < HEADS && r; h++) {
                answer want = answer_of(s, t, h);
                double got = get(s->lse, t, h, 0);
                wrong +=
                    isinf(want.lse) ? r->ideal[h] != INFINITY : !is(HM_F32, r->ideal[h], want.lse, fabsl(want.lse) + 4);
                outside += !(r->lo[h] <= got && got <= r->hi[h]) || r->flags[h];
            }
        }
    hm_golden_close(g);
    cr_expect(wrong == 0 && outside == 0, "%s: golden: %d wrong, %d outside; ds %d, p %d", s->op, wrong, outside,
              s->f.ds, (int)s->f.p);
}

static void run(problem *s) {
    cr_assert_eq(hm_op_named(s->op)->run(s->args), HM_OK, "%s", hm_error());
    cr_expect_eq(gaps_written(s->out), 0, "%s: bytes between the elements of out", s->op);
    cr_expect_eq(gaps_written(s->lse), 0, "%s: bytes between the elements of lse", s->op);
}

/* ---- the formula ---- */

static form small_form(int i) {
    static const int block_sizes[] = {1, 16, 64};
    return (form){.T = i & 1 ? HM_F16 : HM_BF16,
                  .block_size = block_sizes[i % 3],
                  .width = i & 2 ? 33 : 48,
                  .values = i & 4   ? 17
                            : i & 2 ? 33
                                    : 48,
                  .layout = i / 3 % LAYOUTS,
                  .lengths = i / 2 % 3 != 0,
                  .sinks = i / 4 % 2,
                  .lse = i % 5 != 0,
                  .scale = i % 4 == 0   ? 0
                           : i % 4 == 1 ? 0.3
                           : i % 4 == 2 ? -0.7
                                        : 1.1,
                  .p = i / 3 % 2 ? HM_P_BF16 : HM_P_F32,
                  .keys = (int[]){KEYS, 3, TOKENS, 20}[i / 5 % 4],
                  .starts = i / 7 % 2,
                  .ends = i / 11 % 2,
                  .turn = i};
}

Test(attention, decode_is_the_formula) {
    needs_long_double();
    for (int i = 0; i < 60; i++) {
        problem *s = decode_of(small_form(i));
        run(s);
        compare(s, DECODE);
        if (i % 3 == i / 3 % 3) golden_agrees(s);
        drop(s);
    }
}

Test(attention, decode_reads_the_656_bytes) {
    needs_long_double();
    for (int i = 0; i < 18; i++) {
        form f = small_form(7 * i);
        f.T = HM_BF16, f.ds = true, f.width = 576, f.values = i % 2 ? 512 : i % 4 ? 576 : 200, f.dequant = i % 3;
        f.block_size = (int[]){1, 16, 64}[i / 3 % 3], f.layout = i / 2 % LAYOUTS, f.scale = i % 4 == 1 ? 0.01 : 0;
        problem *s = decode_of(f);
        run(s);
        compare(s, DECODE);
        if (i < 3) golden_agrees(s);
        drop(s);
    }
}

Test(attention, prefill_is_the_formula) {
    needs_long_double();
    for (int i = 0; i < 80; i++) {
        problem *s = prefill_of(small_form(i));
        run(s);
        compare(s, PREFILL);
        if (i % 3 == i / 3 % 3) golden_agrees(s);
        drop(s);
    }
}

/* What the loops above would not see if test and ref made the same mistake: other readings give other results. */
Test(attention, the_comparison_can_fail) {
    needs_long_double();
    form f = small_form(4);
    f.p = HM_P_F32, f.lse = f.sinks = true, f.lengths = false, f.scale = 0.5;
    problem *s = decode_of(f);
    run(s);
    cr_expect_eq(compare(s, "as it is"), 0);
    int changed = 0;
    for (int what = 0; what < 4; what++) {
        problem *t = malloc(sizeof *t);
        *t = *s;
        if (what == 0) t->n[0]--;
        if (what == 1) t->sink[0] = -INFINITY;
        if (what == 2) t->f.scale = 0.5001;
        if (what == 3) t->f.p = HM_P_BF16;
        int wrong = 0;
        for (int k = 0; k < TOKENS; k++)
            for (int h = 0; h < HEADS; h++) {
                answer r = answer_of(t, k, h);
                for (int d = 0; d < f.values; d++) wrong += !is(f.T, get(s->out, k, h, d), r.out[d], r.size[d]);
            }
        changed += wrong > 0;
        free(t);
    }
    cr_expect_eq(changed, 4);
    drop(s);
}

/* ---- by hand ---- */

typedef struct {
    uint16_t q[2 * 4], kv[8 * 4], out[2 * 4];
    float lse[2], sink[1];
    int32_t indices[2 * 3], length[2];
} tiny;

/* 2 tokens, 1 head, width 4, value 2; slot s has the key (0, 0, 0, 0) but for its values. */
static hm_sparse_mla_decode_args tiny_call(tiny *s) {
    memset(s, 0, sizeof *s), memset(s->out, CANARY, sizeof s->out), memset(s->lse, CANARY, sizeof s->lse);
    for (int k = 0; k < 8; k++) hm_store(HM_F16, &s->kv[4 * k + 3], k), hm_store(HM_F16, &s->kv[4 * k], k + 1);
    for (int t = 0; t < 2; t++) hm_store(HM_F16, &s->q[4 * t + 3], 1);
    return (hm_sparse_mla_decode_args){.size = sizeof(hm_sparse_mla_decode_args),
                                       .q = hm_tensor_of(s->q, HM_F16, 3, (int64_t[]){2, 1, 4}),
                                       .kv_cache = hm_tensor_of(s->kv, HM_F16, 3, (int64_t[]){4, 2, 4}),
                                       .indices = hm_tensor_of(s->indices, HM_I32, 2, (int64_t[]){2, 3}),
                                       .out = hm_tensor_of(s->out, HM_F16, 3, (int64_t[]){2, 1, 2}),
                                       .lse = hm_tensor_of(s->lse, HM_F32, 2, (int64_t[]){2, 1}),
                                       .scale = 1};
}

Test(attention, lse_is_natural_and_without_the_sink) {
    tiny s;
    hm_sparse_mla_decode_args a = tiny_call(&s);
    memcpy(s.indices, (int32_t[]){5, 5, -1, 5, -1, -1}, sizeof s.indices);
    cr_assert_eq(hm_sparse_mla_decode(&a), HM_OK, "%s", hm_error());
    cr_expect(s.lse[0] == (float)(5 + 0.69314718055994531) && s.lse[1] == 5, "%a %a", (double)s.lse[0],
              (double)s.lse[1]);
    cr_expect(hm_load(HM_F16, &s.out[0]) == 6 && hm_load(HM_F16, &s.out[2]) == 6);
    /* a sink of the same logit: half of one key, two thirds of a key that counts twice */
    a.attn_sink = hm_tensor_of(s.sink, HM_F32, 1, (int64_t[]){1}), s.sink[0] = 5;
    cr_assert_eq(hm_sparse_mla_decode(&a), HM_OK, "%s", hm_error());
    cr_expect(s.lse[0] == (float)(5 + 0.69314718055994531) && s.lse[1] == 5);
    cr_expect(hm_load(HM_F16, &s.out[0]) == 4 && hm_load(HM_F16, &s.out[2]) == 3);
}

Test(attention, no_key_gives_zero_and_infinity) {
    tiny s;
    for (int sink = 0; sink < 3; sink++)
        for (int way = 0; way < 4; way++) {
            hm_sparse_mla_decode_args a = tiny_call(&s);
            memcpy(s.indices, (int32_t[]){-1, -9, INT32_MIN, 999, 999, 999}, sizeof s.indices);
            s.length[0] = 3, s.length[1] = way == 0 ? 0 : way == 1 ? -1 : INT32_MIN;
            a.topk_length = hm_tensor_of(s.length, HM_I32, 1, (int64_t[]){2});
            if (way == 3) a.indices.shape[1] = 0, a.topk_length.dtype = HM_DTYPE_NONE;
            s.sink[0] = sink == 1 ? 3 : -INFINITY;
            if (sink) a.attn_sink = hm_tensor_of(s.sink, HM_F32, 1, (int64_t[]){1});
            cr_assert_eq(hm_sparse_mla_decode(&a), HM_OK, "%s", hm_error());
            for (int i = 0; i < 4; i++) cr_expect_eq(s.out[i], 0);
            for (int i = 4; i < 8; i++) cr_expect_eq(s.out[i], CANARY * 257);
            cr_expect(s.lse[0] == INFINITY && s.lse[1] == INFINITY);
        }
}

Test(attention, scale_zero_is_the_root_rounded_once) {
    uint16_t q[576], kv[576], out[1];
    float lse, other;
    for (int width = 1; width <= 576; width++) {
        for (int d = 0; d < width; d++) hm_store(HM_BF16, &q[d], d ? 0 : 1), hm_store(HM_BF16, &kv[d], d ? 0 : 1);
        hm_mla_prefill_args a = {.size = sizeof a,
                                 .q = hm_tensor_of(q, HM_BF16, 3, (int64_t[]){1, 1, width}),
                                 .kv = hm_tensor_of(kv, HM_BF16, 2, (int64_t[]){1, width}),
                                 .out = hm_tensor_of(out, HM_BF16, 3, (int64_t[]){1, 1, 1}),
                                 .lse = hm_tensor_of(&lse, HM_F32, 2, (int64_t[]){1, 1})};
        cr_assert_eq(hm_mla_prefill(&a), HM_OK, "%s", hm_error());
        /* lse is the score, the scale itself: c with (c - ulp / 2)^-2 >= width >= (c + ulp / 2)^-2 */
        long double c = (long double)lse, half = (long double)hm_ulp(HM_F32, (double)lse) / 2, w = (long double)width;
        cr_expect((c - half) * (c - half) * w <= 1 && (c + half) * (c + half) * w >= 1, "width %d: %a", width,
                  (double)lse);
        a.scale = (double)lse, a.lse.data = &other;
        cr_assert_eq(hm_mla_prefill(&a), HM_OK, "%s", hm_error());
        cr_expect_eq(lse, other);
    }
}

/* One key: out is its value, for all codes in every tile and all three readers. */
Test(attention, every_code_is_read_as_the_header_says) {
    static uint8_t cache[3 * 656];
    static uint16_t q[576], out[576];
    static const float scales[] = {1.2345678f, 3e-5f, 0.75f, 1.99999988f, 0x1p-7f, 1e-30f, 0x1.fep-126f, 700.3f};
    int32_t index = 2;
    float lse;
    for (int mode = 0; mode < 3; mode++)
        for (int first = 0; first < 8; first += 4)
            for (int shift = 0; shift < 256; shift += 85) {
                memset(cache, 0xFF, sizeof cache);
                uint8_t *entry = cache + 2 * 656;
                for (int d = 0; d < 512; d++) {
                    entry[d] = (uint8_t)(shift + d / 2 * 3 + d % 2 * 128);
                    if ((entry[d] & 0x7F) == 0x7F) entry[d] = 0;
                }
                memcpy(entry + 512, scales + first, 16);
                for (int d = 0; d < 64; d++) hm_store(HM_BF16, entry + 528 + 2 * d, 1 + d);
                for (int d = 0; d < 576; d++) hm_store(HM_BF16, &q[d], d == 575 ? 1 : 0);
                cr_assert_eq(hm_sparse_mla_decode(HM_ARGS(
                                 sparse_mla_decode, .q = hm_tensor_of(q, HM_BF16, 3, (int64_t[]){1, 1, 576}),
                                 .kv_cache = hm_tensor_of(cache, HM_U8, 3, (int64_t[]){1, 3, 656}),
                                 .indices = hm_tensor_of(&index, HM_I32, 2, (int64_t[]){1, 1}),
                                 .out = hm_tensor_of(out, HM_BF16, 3, (int64_t[]){1, 1, 576}),
                                 .lse = hm_tensor_of(&lse, HM_F32, 2, (int64_t[]){1, 1}), .scale = 1, .dequant = mode)),
                             HM_OK, "%s", hm_error());
                cr_expect_eq(lse, 64);
                for (int d = 0; d < 512; d++)
                    cr_expect_eq(hm_load(HM_BF16, &out[d]), dequantised(mode, entry[d], scales[first + d / 128]),
                                 "mode %d, code %02x at %d, scale %a: %a", mode, entry[d], d,
                                 (double)scales[first + d / 128], hm_load(HM_BF16, &out[d]));
                for (int d = 512; d < 576; d++) cr_expect_eq(hm_load(HM_BF16, &out[d]), d - 511);
            }
}

/* ---- memory ---- */

/* Keys lie in pages of their own; those that no token sees have no memory that could be read. */
Test(attention, other_keys_are_not_read) {
    int64_t page = sysconf(_SC_PAGESIZE), far = page / 2;
    uint16_t q[2 * 8] = {0}, out[2 * 8];
    float lse[2];
    int32_t indices[2][4] = {{6, -1, 2, 6}, {1 << 20, 3, 3, 3}}, length[2] = {4, 0}, starts[2] = {2, 5},
            ends[2] = {3, 7};
    unsigned char *p = reserve(8 * page);
    for (int k = 0; k < 8; k++) {
        bool seen = k == 2 || k == 5 || k == 6;
        for (int d = 0; d < 8; d++) hm_store(HM_BF16, p + k * page + 2 * d, seen ? k : NAN);
        if (!seen) cr_assert_eq(mprotect(p + k * page, (size_t)page, PROT_NONE), 0);
    }
    hm_tensor queries = hm_tensor_of(q, HM_BF16, 3, (int64_t[]){2, 1, 8}),
              o = hm_tensor_of(out, HM_BF16, 3, queries.shape), l = hm_tensor_of(lse, HM_F32, 2, (int64_t[]){2, 1});
    hm_tensor cache = hm_tensor_of(p, HM_BF16, 3, (int64_t[]){4, 2, 8});
    cache.stride[0] = 2 * far, cache.stride[1] = far;
    cr_assert_eq(hm_sparse_mla_decode(HM_ARGS(sparse_mla_decode, .q = queries, .kv_cache = cache, .out = o, .lse = l,
                                              .indices = hm_tensor_of(indices, HM_I32, 2, (int64_t[]){2, 4}),
                                              .topk_length = hm_tensor_of(length, HM_I32, 1, (int64_t[]){2}))),
                 HM_OK, "%s", hm_error());
    cr_expect(hm_load(HM_BF16, &out[7]) == hm_round_to(HM_BF16, 14. / 3) && out[8] == 0 && lse[1] == INFINITY);
    hm_tensor kv = hm_tensor_of(p, HM_BF16, 2, (int64_t[]){8, 8});
    kv.stride[0] = far;
    cr_assert_eq(hm_mla_prefill(HM_ARGS(mla_prefill, .q = queries, .kv = kv, .out = o, .lse = l,
                                        .key_start = hm_tensor_of(starts, HM_I32, 1, (int64_t[]){2}),
                                        .key_end = hm_tensor_of(ends, HM_I32, 1, (int64_t[]){2}))),
                 HM_OK, "%s", hm_error());
    cr_expect(hm_load(HM_BF16, &out[0]) == 2 && hm_load(HM_BF16, &out[8]) == 5.5 && lse[0] == 0);
    munmap(p, (size_t)(8 * page));
}

/* NaN in one token's query, key or in one head's sink stays there. */
Test(attention, nan_stays_with_its_token_and_head) {
    form f = small_form(0);
    f.sinks = f.lse = true, f.lengths = false, f.turn = 0, f.p = HM_P_F32;
    problem *s = decode_of(f);
    put(&s->decode.q, 0, 2, 5, NAN);
    put(&s->decode.attn_sink, 1, 0, 0, NAN);
    int own = 3 * 41 + 1; /* no other token sees it */
    put(&s->decode.indices, 1, 0, 0, own);
    run(s);
    for (int t = 0; t < TOKENS; t++)
        for (int h = 0; h < HEADS; h++)
            if (t != 1 && h != 1 && !(t == 0 && h == 2)) {
                answer r = answer_of(s, t, h);
                for (int d = 0; d < f.values; d++) cr_assert(is(f.T, get(s->out, t, h, d), r.out[d], r.size[d]));
            }
    const hm_op_info *op = hm_op_named(DECODE);
    hm_golden *g;
    cr_assert_eq(hm_golden_open(op, s->args, 1, &g), HM_OK);
    for (int t = 0; t < TOKENS; t++)
        for (int h = 0; h < HEADS; h++) {
            bool unspecified = s->n[t] && (t == 1 || h == 1 || (t == 0 && h == 2));
            cr_expect_eq(
                row_of(g, argument(op, "out"), t * HEADS + h, HM_TC23, HM_TIER_TWO)->flags[0] & HM_GOLD_UNSPECIFIED,
                unspecified ? HM_GOLD_UNSPECIFIED : 0, "token %d, head %d", t, h);
            cr_expect_eq(row_of(g, argument(op, "lse"), t, HM_TC23, HM_TIER_TWO)->flags[h] & HM_GOLD_UNSPECIFIED,
                         unspecified ? HM_GOLD_UNSPECIFIED : 0, "token %d, head %d", t, h);
        }
    hm_golden_close(g);
    drop(s);
}

/* Copies the values of t to memory in which its first dimension has the stride `far`. */
static void lay_out(hm_tensor *t, int64_t far) {
    hm_tensor to = *t;
    int64_t size = (int64_t)hm_dtype_size(t->dtype), inner = 1, n = t->shape[0];
    for (int i = t->ndim - 1; i > 0; i--) to.stride[i] = inner, inner *= t->shape[i];
    to.data = reserve(((n - 1) * far + inner) * size), to.stride[0] = far;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < (t->ndim > 1 ? t->shape[1] : 1); j++)
            for (int64_t k = 0; k < (t->ndim > 2 ? t->shape[2] : 1); k++)
                memcpy(at(&to, i, j, k), at(t, i, j, k), (size_t)size);
    discard(t);
    *t = to;
}

Test(attention, decode_goes_beyond_32_bits) {
    needs_long_double();
    for (int which = 0; which < 8; which++) {
        form f = {.T = HM_BF16,
                  .block_size = 64,
                  .width = which == 7 ? 576 : 40,
                  .values = 30,
                  .lengths = true,
                  .sinks = true,
                  .lse = true,
                  .scale = 0.2,
                  .ds = which == 7,
                  .turn = which};
        problem *s = decode_of(f);
        hm_sparse_mla_decode_args *a = &s->decode;
        hm_tensor *t[] = {&a->q,         &a->kv_cache, &a->indices, &a->topk_length,
                          &a->attn_sink, &a->out,      &a->lse,     &a->kv_cache};
        lay_out(t[which], (INT64_C(1) << 31) + 75);
        cr_assert_eq(hm_sparse_mla_decode(a), HM_OK, "%s", hm_error());
        compare(s, "far");
        t[which]->data = NULL; /* stays mapped: the test ends here */
        drop(s);
    }
}

Test(attention, prefill_goes_beyond_32_bits) {
    needs_long_double();
    for (int which = 0; which < 7; which++) {
        form f = {.T = HM_F16,
                  .width = 40,
                  .values = 30,
                  .sinks = true,
                  .lse = true,
                  .scale = 0.2,
                  .starts = which % 2,
                  .ends = which > 3,
                  .keys = 20};
        f.starts |= which == 2, f.ends |= which == 3;
        problem *s = prefill_of(f);
        hm_mla_prefill_args *a = &s->prefill;
        hm_tensor *t[] = {&a->q, &a->kv, &a->key_start, &a->key_end, &a->attn_sink, &a->out, &a->lse};
        lay_out(t[which], (INT64_C(1) << 31) + 75);
        cr_assert_eq(hm_mla_prefill(a), HM_OK, "%s", hm_error());
        compare(s, "far");
        t[which]->data = NULL;
        drop(s);
    }
}

/* The last slots that an i32 can name, and more keys than it counts. */
Test(attention, slots_and_keys_up_to_2_31) {
    int64_t rows = (INT64_C(1) << 31) + 8;
    uint16_t *p = reserve(rows * 8), q[4] = {0}, out[4] = {0};
    float lse;
    int32_t indices[3] = {INT32_MAX, INT32_MAX - 9, 3}, start = INT32_MAX - 2;
    for (int64_t k = 0; k < 3; k++) hm_store(HM_BF16, p + 4 * (int64_t)indices[k], (double)(3 * k + 3));
    hm_tensor queries = hm_tensor_of(q, HM_BF16, 3, (int64_t[]){1, 1, 4}),
              o = hm_tensor_of(out, HM_BF16, 3, queries.shape), l = hm_tensor_of(&lse, HM_F32, 2, (int64_t[]){1, 1});
    for (int64_t size = 1; size <= 64; size *= 8) {
        out[0] = 0;
        cr_assert_eq(hm_sparse_mla_decode(HM_ARGS(
                         sparse_mla_decode, .q = queries, .out = o, .lse = l,
                         .kv_cache = hm_tensor_of(p, HM_BF16, 3, (int64_t[]){(INT64_C(1) << 31) / size, size, 4}),
                         .indices = hm_tensor_of(indices, HM_I32, 2, (int64_t[]){1, 3}))),
                     HM_OK, "%s", hm_error());
        cr_expect(hm_load(HM_BF16, &out[0]) == 6 && lse == (float)log(3));
    }
    /* from 2^31 - 3 to 2^31 + 8: 11 keys, of which one holds 3 and those past 2^31 hold 30 */
    for (int64_t k = INT64_C(1) << 31; k < rows; k++) hm_store(HM_BF16, p + 4 * k, 30);
    cr_assert_eq(hm_mla_prefill(HM_ARGS(mla_prefill, .q = queries, .out = o, .lse = l,
                                        .kv = hm_tensor_of(p, HM_BF16, 2, (int64_t[]){rows, 4}),
                                        .key_start = hm_tensor_of(&start, HM_I32, 1, (int64_t[]){1}))),
                 HM_OK, "%s", hm_error());
    cr_expect(hm_load(HM_BF16, &out[0]) == hm_round_to(HM_BF16, 243. / 11) && lse == (float)log(11), "%a %a",
              hm_load(HM_BF16, &out[0]), (double)lse);
    munmap(p, (size_t)(rows * 8));
}

/* ---- nothing to do ---- */

Test(attention, zero_sizes) {
    static const int64_t shapes[][4] = {
        {0, 2, 8, 3}, {2, 0, 8, 3}, {2, 2, 0, 3}, {2, 2, 8, 0}}; /* tokens, heads, values, top_k */
    uint16_t q[32] = {0}, kv[64] = {0}, out[32];
    float lse[4];
    int32_t indices[6] = {0};
    for (int i = 0; i < 4; i++) {
        const int64_t *n = shapes[i];
        memset(out, CANARY, sizeof out), memset(lse, CANARY, sizeof lse);
        hm_tensor queries = hm_tensor_of(q, HM_BF16, 3, (int64_t[]){n[0], n[1], 8}),
                  o = hm_tensor_of(out, HM_BF16, 3, (int64_t[]){n[0], n[1], n[2]}),
                  l = hm_tensor_of(lse, HM_F32, 2, (int64_t[]){n[0], n[1]});
        hm_tensor cache = hm_tensor_of(n[3] ? kv : NULL, HM_BF16, 3, (int64_t[]){n[3] ? 2 : 0, 4, 8});
        cr_assert_eq(
            hm_sparse_mla_decode(HM_ARGS(sparse_mla_decode, .q = queries, .out = o, .lse = l, .kv_cache = cache,
                                         .indices = hm_tensor_of(indices, HM_I32, 2, (int64_t[]){n[0], n[3]}))),
            HM_OK, "%s", hm_error());
        for (int64_t e = n[0] * n[1] * n[2]; e < 32; e++) cr_assert_eq(out[e], CANARY * 257);
        if (i == 2) cr_expect_eq(lse[3], (float)log(3));
        if (i == 3) cr_expect(lse[3] == INFINITY && out[0] == 0 && out[31] == 0);
        memset(out, CANARY, sizeof out), memset(lse, CANARY, sizeof lse);
        hm_tensor keys = hm_tensor_of(n[3] ? kv : NULL, HM_BF16, 2, (int64_t[]){n[3] ? 8 : 0, 8});
        cr_assert_eq(hm_mla_prefill(HM_ARGS(mla_prefill, .q = queries, .out = o, .lse = l, .kv = keys)), HM_OK, "%s",
                     hm_error());
        for (int64_t e = n[0] * n[1] * n[2]; e < 32; e++) cr_assert_eq(out[e], CANARY * 257);
        if (i == 2) cr_expect(lse[0] == (float)log(7) && lse[3] == (float)log(8));
        if (i == 3) cr_expect(lse[3] == INFINITY && out[0] == 0 && out[31] == 0);
    }
}

/* ---- refusals ---- */

#define REFUSED_DECODE(status, name, value, ...)                                    \
    do {                                                                            \
        hm_sparse_mla_decode_args a = tiny_call(&s);                                \
        a.attn_sink = hm_tensor_of(s.sink, HM_F32, 1, (int64_t[]){1});              \
        a.topk_length = hm_tensor_of(s.length, HM_I32, 1, (int64_t[]){2});          \
        memcpy(s.length, (int32_t[]){3, 2}, sizeof s.length);                       \
        memcpy(s.indices, (int32_t[]){0, 7, -1, 3, 2, 999}, sizeof s.indices);      \
        __VA_ARGS__;                                                                \
        refused(DECODE, &a, s.out, sizeof s.out, status, name, value, __LINE__);    \
        for (size_t b = 0; b < sizeof s.lse; b++)                                   \
            cr_assert_eq(((unsigned char *)s.lse)[b], CANARY, "line %d", __LINE__); \
    } while (0)

Test(attention, decode_refuses) {
    tiny s;
    uint16_t wide[2 * 576];
    uint8_t entries[8 * 656];
    REFUSED_DECODE(HM_BAD_ARG, "q", "absent", a.q.dtype = HM_DTYPE_NONE);
    REFUSED_DECODE(HM_BAD_ARG, "kv_cache", "absent", a.kv_cache.dtype = HM_DTYPE_NONE);
    REFUSED_DECODE(HM_BAD_ARG, "indices", "absent", a.indices.dtype = HM_DTYPE_NONE);
    REFUSED_DECODE(HM_BAD_ARG, "out", "absent", a.out.dtype = HM_DTYPE_NONE);
    REFUSED_DECODE(HM_BAD_SHAPE, "q", "rank 2", a.q.ndim = 2);
    REFUSED_DECODE(HM_BAD_SHAPE, "q", "extent 3", a.q.shape[2] = 3);
    REFUSED_DECODE(HM_BAD_SHAPE, "out", "extent 5", a.out.shape[2] = 5, a.out.stride[0] = a.out.stride[1] = 5);
    REFUSED_DECODE(HM_BAD_SHAPE, "out", "extent 1", a.out.shape[0] = 1);
    REFUSED_DECODE(HM_BAD_SHAPE, "out", "extent 2", a.out.shape[1] = 2);
    REFUSED_DECODE(HM_BAD_SHAPE, "out", "rank 2", a.out.ndim = 2);
    REFUSED_DECODE(HM_BAD_SHAPE, "lse", "extent 1", a.lse.shape[0] = 1);
    REFUSED_DECODE(HM_BAD_SHAPE, "lse", "extent 7", a.lse.shape[1] = 7, a.lse.stride[0] = 7);
    REFUSED_DECODE(HM_BAD_SHAPE, "lse", "rank 1", a.lse.ndim = 1);
    REFUSED_DECODE(HM_BAD_SHAPE, "attn_sink", "extent 6", a.attn_sink.shape[0] = 6);
    REFUSED_DECODE(HM_BAD_SHAPE, "attn_sink", "rank 2", a.attn_sink.ndim = 2);
    REFUSED_DECODE(HM_BAD_SHAPE, "indices", "extent 1", a.indices.shape[0] = 1);
    REFUSED_DECODE(HM_BAD_SHAPE, "indices", "rank 1", a.indices.ndim = 1);
    REFUSED_DECODE(HM_BAD_SHAPE, "topk_length", "extent 3", a.topk_length.shape[0] = 3);
    REFUSED_DECODE(HM_BAD_SHAPE, "kv_cache", "rank 2", a.kv_cache.ndim = 2);
    REFUSED_DECODE(HM_BAD_SHAPE, "q", "extent 4", a.kv_cache.shape[2] = 5, a.kv_cache.stride[1] = 5);
    REFUSED_DECODE(HM_BAD_SHAPE, "kv_cache", "655", a.q = hm_tensor_of(wide, HM_BF16, 3, (int64_t[]){2, 1, 576}),
                   a.out.dtype = HM_BF16, a.kv_cache = hm_tensor_of(entries, HM_U8, 3, (int64_t[]){4, 2, 655}));
    REFUSED_DECODE(HM_BAD_SHAPE, "q", "extent 512", a.q = hm_tensor_of(wide, HM_BF16, 3, (int64_t[]){2, 1, 512}),
                   a.out.dtype = HM_BF16, a.kv_cache = hm_tensor_of(entries, HM_U8, 3, (int64_t[]){4, 2, 656}));
    REFUSED_DECODE(HM_BAD_STRIDE, "kv_cache", "2", a.q = hm_tensor_of(wide, HM_BF16, 3, (int64_t[]){2, 1, 576}),
                   a.out.dtype = HM_BF16, a.kv_cache = hm_tensor_of(entries, HM_U8, 3, (int64_t[]){2, 2, 656}),
                   a.kv_cache.stride[2] = 2);
    REFUSED_DECODE(HM_BAD_STRIDE, "out", "stride", a.out.stride[0] = 1);
    REFUSED_DECODE(HM_BAD_STRIDE, "out", "-2", a.out.stride[0] = -2);
    REFUSED_DECODE(HM_BAD_STRIDE, "lse", "0", a.lse.stride[0] = 0);
    REFUSED_DECODE(HM_BAD_DTYPE, "q", "f32", a.q.dtype = HM_F32);
    REFUSED_DECODE(HM_BAD_DTYPE, "kv_cache", "bf16", a.kv_cache.dtype = HM_BF16);
    REFUSED_DECODE(HM_BAD_DTYPE, "kv_cache", "u8", a.kv_cache.dtype = HM_U8);
    REFUSED_DECODE(HM_BAD_DTYPE, "kv_cache", "f8e4m3", a.kv_cache.dtype = HM_F8E4M3);
    REFUSED_DECODE(HM_BAD_DTYPE, "out", "bf16", a.out.dtype = HM_BF16);
    REFUSED_DECODE(HM_BAD_DTYPE, "lse", "bf16", a.lse.dtype = HM_BF16);
    REFUSED_DECODE(HM_BAD_DTYPE, "attn_sink", "f16", a.attn_sink.dtype = HM_F16);
    REFUSED_DECODE(HM_BAD_DTYPE, "indices", "i64", a.indices.dtype = HM_I64);
    REFUSED_DECODE(HM_BAD_DTYPE, "topk_length", "f32", a.topk_length.dtype = HM_F32);
    REFUSED_DECODE(HM_BAD_PLACE, "indices", "cuda", a.indices.place = HM_CUDA);
    REFUSED_DECODE(HM_BAD_PLACE, "attn_sink", "cuda", a.attn_sink.place = HM_CUDA);
    REFUSED_DECODE(HM_BAD_ALIAS, "out", "q", a.q.data = s.out);
    REFUSED_DECODE(HM_BAD_ALIAS, "out", "indices", a.indices.data = s.out);
    REFUSED_DECODE(HM_BAD_ALIAS, "lse", "attn_sink", a.attn_sink.data = s.lse);
    REFUSED_DECODE(HM_BAD_ALIAS, "lse", "out", a.lse.data = s.out);
    REFUSED_DECODE(HM_BAD_PARAM, "p", "2", a.p = (hm_attention_p)2);
    REFUSED_DECODE(HM_BAD_PARAM, "p", "-1", a.p = (hm_attention_p)-1);
    REFUSED_DECODE(HM_BAD_PARAM, "dequant", "3", a.dequant = (hm_mla_dequant)3);
    REFUSED_DECODE(HM_BAD_PARAM, "scale", "nan", a.scale = NAN);
    REFUSED_DECODE(HM_BAD_PARAM, "scale", "1e+39", a.scale = 1e39);
    REFUSED_DECODE(HM_BAD_PARAM, "scale", "-inf", a.scale = -INFINITY);
    REFUSED_DECODE(HM_BAD_VALUE, "indices", "the slot 8", s.indices[1] = 8);
    REFUSED_DECODE(HM_BAD_VALUE, "indices", "2147483647", s.indices[4] = INT32_MAX);
    REFUSED_DECODE(HM_BAD_VALUE, "indices", "token 1 the slot 999", s.length[1] = 3);
    REFUSED_DECODE(HM_BAD_VALUE, "topk_length", "4", s.length[1] = 4);
    REFUSED_DECODE(HM_BAD_VALUE, "indices", "0", a.kv_cache.shape[0] = 0);
}

#define REFUSED_PREFILL(status, name, value, ...)                                         \
    do {                                                                                  \
        hm_sparse_mla_decode_args d = tiny_call(&s);                                      \
        hm_mla_prefill_args a = {.size = sizeof a, .q = d.q, .out = d.out, .lse = d.lse}; \
        a.kv = hm_tensor_of(s.kv, HM_F16, 2, (int64_t[]){8, 4});                          \
        a.attn_sink = hm_tensor_of(s.sink, HM_F32, 1, (int64_t[]){1});                    \
        a.key_start = hm_tensor_of(s.length, HM_I32, 1, (int64_t[]){2});                  \
        a.key_end = hm_tensor_of(s.indices, HM_I32, 1, (int64_t[]){2});                   \
        __VA_ARGS__;                                                                      \
        refused(PREFILL, &a, s.out, sizeof s.out, status, name, value, __LINE__);         \
        for (size_t b = 0; b < sizeof s.lse; b++)                                         \
            cr_assert_eq(((unsigned char *)s.lse)[b], CANARY, "line %d", __LINE__);       \
    } while (0)

Test(attention, prefill_refuses) {
    tiny s;
    REFUSED_PREFILL(HM_BAD_ARG, "q", "absent", a.q.dtype = HM_DTYPE_NONE);
    REFUSED_PREFILL(HM_BAD_ARG, "kv", "absent", a.kv.dtype = HM_DTYPE_NONE);
    REFUSED_PREFILL(HM_BAD_ARG, "out", "absent", a.out.dtype = HM_DTYPE_NONE);
    REFUSED_PREFILL(HM_BAD_SHAPE, "q", "rank 4", a.q.ndim = 4, a.q.shape[3] = 1, a.q.stride[3] = 1);
    REFUSED_PREFILL(HM_BAD_SHAPE, "kv", "extent 3", a.kv.shape[1] = 3);
    REFUSED_PREFILL(HM_BAD_SHAPE, "kv", "rank 3", a.kv.ndim = 3, a.kv.shape[2] = 1, a.kv.stride[2] = 1);
    REFUSED_PREFILL(HM_BAD_SHAPE, "out", "extent 5", a.out.shape[2] = 5, a.out.stride[0] = a.out.stride[1] = 5);
    REFUSED_PREFILL(HM_BAD_SHAPE, "lse", "extent 3", a.lse.shape[0] = 3);
    REFUSED_PREFILL(HM_BAD_SHAPE, "attn_sink", "extent 2", a.attn_sink.shape[0] = 2);
    REFUSED_PREFILL(HM_BAD_SHAPE, "key_start", "extent 1", a.key_start.shape[0] = 1);
    REFUSED_PREFILL(HM_BAD_SHAPE, "key_end", "rank 2", a.key_end.ndim = 2,
                    a.key_end.shape[1] = a.key_end.stride[1] = 1);
    REFUSED_PREFILL(HM_BAD_STRIDE, "out", "stride", a.out.stride[0] = 1);
    REFUSED_PREFILL(HM_BAD_STRIDE, "lse", "-1", a.lse.stride[0] = -1);
    REFUSED_PREFILL(HM_BAD_DTYPE, "q", "u8", a.q.dtype = HM_U8);
    REFUSED_PREFILL(HM_BAD_DTYPE, "kv", "bf16", a.kv.dtype = HM_BF16);
    REFUSED_PREFILL(HM_BAD_DTYPE, "out", "f32", a.out.dtype = HM_F32);
    REFUSED_PREFILL(HM_BAD_DTYPE, "key_start", "i64", a.key_start.dtype = HM_I64);
    REFUSED_PREFILL(HM_BAD_DTYPE, "key_end", "f32", a.key_end.dtype = HM_F32);
    REFUSED_PREFILL(HM_BAD_DTYPE, "attn_sink", "bf16", a.attn_sink.dtype = HM_BF16);
    REFUSED_PREFILL(HM_BAD_PLACE, "key_end", "cuda", a.key_end.place = HM_CUDA);
    REFUSED_PREFILL(HM_BAD_ALIAS, "out", "kv", a.kv.data = s.out);
    REFUSED_PREFILL(HM_BAD_ALIAS, "lse", "key_start", a.key_start.data = s.lse);
    REFUSED_PREFILL(HM_BAD_ALIAS, "lse", "out", a.lse.data = s.out);
    REFUSED_PREFILL(HM_BAD_PARAM, "p", "7", a.p = (hm_attention_p)7);
    REFUSED_PREFILL(HM_BAD_PARAM, "scale", "inf", a.scale = INFINITY);
}

/* ---- golden's bounds ---- */

/* A weight below f32's normal numbers is rounded to a bf16 that has few bits; against another maximum it has others. A
 * value of 2^100 shows it. */
Test(attention, small_weights_in_bf16_are_admitted) {
    uint16_t q[2], kv[3 * 2], out[2];
    for (int b = 80; b < 104; b++) {
        hm_store(HM_BF16, &q[0], 0), hm_store(HM_BF16, &q[1], 1);
        for (int k = 0; k < 3; k++)
            hm_store(HM_BF16, &kv[2 * k], k == 2 ? 0x1p100 : 0), hm_store(HM_BF16, &kv[2 * k + 1], k == 2 ? -b : 0);
        hm_mla_prefill_args a = {.size = sizeof a,
                                 .q = hm_tensor_of(q, HM_BF16, 3, (int64_t[]){1, 1, 2}),
                                 .kv = hm_tensor_of(kv, HM_BF16, 2, (int64_t[]){3, 2}),
                                 .out = hm_tensor_of(out, HM_BF16, 3, (int64_t[]){1, 1, 1}),
                                 .scale = 1,
                                 .p = HM_P_BF16};
        const hm_op_info *op = hm_op_named(PREFILL);
        hm_golden *g;
        cr_assert_eq(op->run(&a), HM_OK, "%s", hm_error());
        cr_assert_eq(hm_golden_open(op, &a, 1, &g), HM_OK);
        for (int c = HM_WIDE; c < HM_CLASS_COUNT; c++) {
            golden_row *r = row_of(g, argument(op, "out"), 0, (hm_class)c, HM_TIER_TWO);
            double got = hm_load(HM_BF16, &out[0]);
            cr_expect(r->lo[0] <= got && got <= r->hi[0], "e^-%d, %s: %a is not in [%a, %a]", b,
                      hm_class_name((hm_class)c), got, r->lo[0], r->hi[0]);
        }
        hm_golden_close(g);
    }
}

/* A kernel whose running maximum begins with the sink: weights more than e^87 below it may be flushed in f32. */
Test(attention, weights_against_a_large_sink_may_be_flushed) {
    uint16_t q[2], kv[2 * 2], out[1];
    float sink = 80;
    hm_store(HM_BF16, &q[0], 0), hm_store(HM_BF16, &q[1], 1);
    hm_store(HM_BF16, &kv[0], 1), hm_store(HM_BF16, &kv[1], 0);       /* e^-80 of the sink */
    hm_store(HM_BF16, &kv[2], 0x1p20), hm_store(HM_BF16, &kv[3], -8); /* e^-88 < 2^-126 */
    hm_mla_prefill_args a = {.size = sizeof a,
                             .q = hm_tensor_of(q, HM_BF16, 3, (int64_t[]){1, 1, 2}),
                             .kv = hm_tensor_of(kv, HM_BF16, 2, (int64_t[]){2, 2}),
                             .attn_sink = hm_tensor_of(&sink, HM_F32, 1, (int64_t[]){1}),
                             .out = hm_tensor_of(out, HM_BF16, 3, (int64_t[]){1, 1, 1}),
                             .scale = 1};
    const hm_op_info *op = hm_op_named(PREFILL);
    hm_golden *g;
    cr_assert_eq(op->run(&a), HM_OK, "%s", hm_error());
    double whole = hm_load(HM_BF16, out), flushed = hm_round_to(HM_BF16, exp(-80));
    cr_assert_eq(hm_golden_open(op, &a, 1, &g), HM_OK);
    for (int c = HM_WIDE; c < HM_CLASS_COUNT; c++) {
        golden_row *r = row_of(g, argument(op, "out"), 0, (hm_class)c, HM_TIER_TWO);
        cr_expect(r->lo[0] <= whole && whole <= r->hi[0]);
        cr_expect_eq(r->lo[0] <= flushed && flushed <= r->hi[0], c != HM_WIDE);
    }
    hm_golden_close(g);
}

/* Scores of 2^60: fma(s, c, -RN(m c)) of the largest score is what rounding took from m c, up to 2^36, and its
 * exponential overflows, with a sink that leaves the keys no weight as well. Scores of 2^10: all is as usual. */
Test(attention, exponentials_that_may_overflow) {
    for (int mode = 0; mode < 4; mode++) {
        bool huge = mode & 1;
        uint16_t q[1], kv[2], out[1];
        float lse, sink = mode & 2 ? 0x1p100f : 0;
        hm_store(HM_BF16, &q[0], huge ? 0x1p60 : 0x1p10), hm_store(HM_BF16, &kv[0], 1), hm_store(HM_BF16, &kv[1], -1);
        hm_mla_prefill_args a = {.size = sizeof a,
                                 .q = hm_tensor_of(q, HM_BF16, 3, (int64_t[]){1, 1, 1}),
                                 .kv = hm_tensor_of(kv, HM_BF16, 2, (int64_t[]){2, 1}),
                                 .attn_sink = hm_tensor_of(&sink, HM_F32, 1, (int64_t[]){1}),
                                 .out = hm_tensor_of(out, HM_BF16, 3, (int64_t[]){1, 1, 1}),
                                 .lse = hm_tensor_of(&lse, HM_F32, 2, (int64_t[]){1, 1}),
                                 .scale = 1};
        const hm_op_info *op = hm_op_named(PREFILL);
        hm_golden *g;
        cr_assert_eq(op->run(&a), HM_OK, "%s", hm_error());
        cr_expect_eq(hm_load(HM_BF16, out), mode & 2 ? 0 : 1);
        cr_assert_eq(hm_golden_open(op, &a, 1, &g), HM_OK);
        for (int c = HM_CHAIN64; c < HM_CLASS_COUNT; c++) {
            static const char *const name[] = {"out", "lse"};
            for (int i = 0; i < 2; i++) {
                golden_row *r = row_of(g, argument(op, name[i]), 0, (hm_class)c, HM_TIER_TWO);
                cr_expect_eq(r->flags[0], huge ? HM_GOLD_RANGE_FREE : 0, "%s, %s, mode %d", name[i],
                             hm_class_name((hm_class)c), mode);
            }
        }
        hm_golden_close(g);
    }
}

/* A tensor core: blocks of `block` products and the sum so far are aligned to the largest and cut to `bits` bits. */
static double on_tensor_core(const double *a, const double *b, int n, int block, int bits) {
    double total = 0;
    int e;
    for (int j = 0; j < n; j += block) {
        double largest = fabs(total), sum;
        for (int i = j; i < j + block && i < n; i++) largest = fmax(largest, fabs(a[i] * b[i]));
        frexp(largest, &e);
        sum = ldexp(trunc(ldexp(total, bits + 1 - e)), e - 1 - bits);
        for (int i = j; i < j + block && i < n; i++)
            sum += ldexp(trunc(ldexp(a[i] * b[i], bits + 1 - e)), e - 1 - bits);
        frexp(sum, &e);
        total = ldexp(trunc(ldexp(sum, bits + 1 - e)), e - 1 - bits);
    }
    return total;
}

/* Dot products in f32, in order, lie within the radius of `any`; those of tensor cores within tc23's and tc13's. */
Test(attention, radii_of_dot_products_hold) {
    for (int turn = 0; turn < 600; turn++) {
        double a[96], b[96], exact = 0, below, above;
        int n = 1 + drawn(96);
        float chain = 0;
        for (int j = 0; j < n; j++) {
            double one_side = turn % 2 ? 1 : uniform(1);
            a[j] = hm_round_to(HM_BF16, fabs(uniform(1)) * ldexp(1, drawn(12) - 6));
            b[j] = hm_round_to(HM_F16, fabs(uniform(1)) * ldexp(1, drawn(6) - 3) * (one_side < 0 ? -1 : 1));
            exact += a[j] * b[j]; /* to 50 bits */
            chain += (float)(a[j] * b[j]);
        }
        hm_dot dot = hm_dot_of(a, b, n);
        cr_expect(fabs(dot.sum - exact) <= 2 * dot.error);
        const double got[] = {(double)chain, on_tensor_core(a, b, n, 8, 23), on_tensor_core(a, b, n, 32, 13)};
        const hm_class class[] = {HM_ANY, HM_TC23, HM_TC13};
        for (int i = 0; i < 3; i++) {
            hm_dot_radius(a, b, n, &dot, class[i], true, &below, &above);
            cr_expect(got[i] >= exact - below - dot.error && got[i] <= exact + above + dot.error, "%s: %a is not %a",
                      hm_class_name(class[i]), got[i], exact);
            cr_expect(fmax(below, above) < (i < 2 ? 0x1p-15 : 0x1p-6) * dot.magnitude);
        }
        cr_expect(turn % 2 == 0 || n < 8 || below > 4 * above); /* what is cut off positive terms is missing */
    }
}
