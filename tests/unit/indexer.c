/* indexer: the chain as one call is its seven steps, one after the other; what it takes, leaves alone and refuses. */
#include <hallmark/fp8_paged_mqa_logits.h>
#include <hallmark/index_weights.h>
#include <hallmark/indexer.h>
#include <hallmark/layer_norm.h>
#include <hallmark/top_k_per_row.h>
#include <stdio.h>

#include "../../certify/faults.h"
#include "../../op/dtype.h"
#include "refused.h"

enum {
    BATCH = 3,
    NEXT = 2,
    TOKENS = BATCH * NEXT,
    HEADS = 5,
    DIM = 128,
    ROWS = 50, /* of the table */
    MOST = 40, /* the longest context */
    WIDTH = 45,
    TOP_K = 12,
    BLOCKS = 3 * 48, /* enough for blocks of 1 */
    GAP = 3,
    POISON = 0x7B7B7B7B
};

typedef struct {
    hm_dtype T, W, C; /* of q and k; of weights; of the table */
    int64_t rotary, offset, block_size;
    hm_pairing pairing;
    hm_cache_layout layout;
    hm_code_format codes;
    bool weight, bias,
        per_token; /* has the norm a weight, a bias; does context_lens say how many keys each token sees? */
    int gap;       /* elements between those of every tensor that may have any strides; cache: between blocks */
} form;

/* Every tensor with room for gaps. Outputs and the cache are compared whole. */
typedef struct {
    form f;
    uint16_t q[(GAP + 1) * TOKENS * HEADS * DIM], k[(GAP + 1) * TOKENS * DIM];
    float weights[(GAP + 1) * TOKENS * HEADS], k_weight[(GAP + 1) * DIM], k_bias[(GAP + 1) * DIM];
    float table[(GAP + 1) * ROWS * DIM];
    int64_t positions[(GAP + 1) * TOKENS], slots[(GAP + 1) * TOKENS];
    int32_t lens[(GAP + 1) * TOKENS], blocks[(GAP + 1) * BATCH * 48];
    struct outputs {
        uint8_t cache[BLOCKS * 140 + 48 * 132];
        float logits[(GAP + 1) * TOKENS * WIDTH];
        int32_t indices[(GAP + 1) * TOKENS * TOP_K];
    } out;
} setup;

static uint32_t state = 1;
static double drawn(void) { return state = state * 1664525 + 1013904223, (double)(state >> 8) / 0x1p24 - 0.5; }

static void fill(hm_dtype dtype, void *to, int64_t n, int step, double offset) {
    size_t size = hm_dtype_size(dtype);
    for (int64_t i = 0; i < n; i++)
        hm_store(dtype, (char *)to + (size_t)(i * step) * size, offset + drawn() * (i % 13 ? 1 : 9));
}

static hm_tensor spread(void *data, hm_dtype dtype, int ndim, const int64_t *shape, int gap) {
    hm_tensor t = hm_tensor_of(data, dtype, ndim, shape);
    for (int d = 0; d < ndim; d++) t.stride[d] *= gap + 1;
    return t;
}

static int seen(const form *f, int token) { /* keys that a token sees */
    static const int length[BATCH] = {MOST, 9, 1};
    int n = length[token / NEXT] - NEXT + token % NEXT + 1;
    return f->per_token && token == 3 ? n - 2 : n;
}

static hm_indexer_args call_of(setup *s, form f) {
    int step = f.gap + 1, most = (int)((MOST + f.block_size - 1) / f.block_size);
    memset(s, CANARY, sizeof *s);
    s->f = f, state = 7;
    fill(f.T, s->q, TOKENS * HEADS * DIM, step, 0), fill(f.T, s->k, TOKENS * DIM, step, 0.25);
    fill(f.W, s->weights, TOKENS * HEADS, step, 0);
    fill(HM_F32, s->k_weight, DIM, step, 1), fill(f.T, s->k_bias, DIM, step, 0);
    fill(f.C, s->table, ROWS * f.rotary, step, 0);
    for (int i = 0; i < BATCH * most; i++) s->blocks[i * step] = BATCH * most - 1 - i;
    /* Keys of earlier tokens: legal codes with scales of 1/64. */
    float scale = 0x1p-6f;
    for (int64_t b = 0; b < BATCH * most; b++) {
        uint8_t *block = s->out.cache + b * (f.block_size * 132 + 8 * f.gap);
        for (int64_t i = 0; i < f.block_size * DIM; i++) block[i] = (uint8_t)((drawn() + 0.5) * 100);
        for (int64_t i = 0; i < f.block_size; i++) memcpy(block + f.block_size * DIM + 4 * i, &scale, sizeof scale);
    }
    for (int t = 0; t < TOKENS; t++) {
        int p = seen(&f, t) - 1, b = t / NEXT;
        int64_t at = b * most + p / f.block_size;
        s->positions[t * step] = p < 0 ? 0 : p + 7;
        s->slots[t * step] = p < 0 || t == 1 ? -1 - t : s->blocks[at * step] * f.block_size + p % f.block_size;
        if (f.per_token) s->lens[t * step] = p + 1;
        else s->lens[b * step] = p + NEXT - t % NEXT;
    }
    hm_indexer_args a = {.size = sizeof a,
                         .q = spread(s->q, f.T, 3, (int64_t[]){TOKENS, HEADS, DIM}, f.gap),
                         .k = spread(s->k, f.T, 2, (int64_t[]){TOKENS, DIM}, f.gap),
                         .weights = spread(s->weights, f.W, 2, (int64_t[]){TOKENS, HEADS}, f.gap),
                         .positions = spread(s->positions, HM_I64, 1, (int64_t[]){TOKENS}, f.gap),
                         .cos_sin_cache = spread(s->table, f.C, 2, (int64_t[]){ROWS, f.rotary}, f.gap),
                         .slot_mapping = spread(s->slots, HM_I64, 1, (int64_t[]){TOKENS}, f.gap),
                         .context_lens = spread(s->lens, HM_I32, f.per_token ? 2 : 1, (int64_t[]){BATCH, NEXT}, f.gap),
                         .block_tables = spread(s->blocks, HM_I32, 2, (int64_t[]){BATCH, most}, f.gap),
                         .kv_cache = hm_tensor_of(s->out.cache, HM_U8, 3, (int64_t[]){BATCH * most, f.block_size, 132}),
                         .logits = spread(s->out.logits, HM_F32, 2, (int64_t[]){TOKENS, WIDTH}, f.gap),
                         .indices = spread(s->out.indices, HM_I32, 2, (int64_t[]){TOKENS, TOP_K}, f.gap),
                         .eps = 1e-6,
                         .pairing = f.pairing,
                         .rope_dim_offset = f.offset,
                         .layout = f.layout,
                         .code_format = f.codes};
    if (f.weight) a.k_weight = spread(s->k_weight, HM_F32, 1, (int64_t[]){DIM}, f.gap);
    if (f.bias) a.k_bias = spread(s->k_bias, f.T, 1, (int64_t[]){DIM}, f.gap);
    a.kv_cache.stride[0] += 8 * f.gap;
    return a;
}

/* The same by the seven ops, as the contract lists them; memory of its own between them. */
static void seven(const hm_indexer_args *a, const form *f) {
    static uint16_t k1[TOKENS * DIM], k2[TOKENS * DIM], q2[TOKENS * HEADS * DIM];
    static uint8_t codes[TOKENS * HEADS * DIM];
    static float scale[TOKENS * HEADS], w[TOKENS * HEADS];
    const int64_t flat[] = {TOKENS, DIM}, head[] = {TOKENS, 1, DIM}, all[] = {TOKENS, HEADS, DIM};
    hm_dtype F = f->codes == HM_CODE_E4M3 ? HM_F8E4M3 : HM_F8E4M3FNUZ;
    cr_assert_eq(hm_layer_norm_ref(HM_ARGS(layer_norm, .out = hm_tensor_of(k1, f->T, 2, flat), .x = a->k,
                                           .weight = a->k_weight, .bias = a->k_bias, .eps = a->eps)),
                 HM_OK, "%s", hm_error());
    cr_assert_eq(hm_rotary_embedding_ref(HM_ARGS(rotary_embedding, .query_out = hm_tensor_of(q2, f->T, 3, all),
                                                 .key_out = hm_tensor_of(k2, f->T, 3, head), .query = a->q,
                                                 .key = hm_tensor_of(k1, f->T, 3, head), .positions = a->positions,
                                                 .cos_sin_cache = a->cos_sin_cache, .pairing = f->pairing,
                                                 .round = HM_ROTARY_ONCE, .rope_dim_offset = f->offset)),
                 HM_OK, "%s", hm_error());
    cr_assert_eq(hm_indexer_k_quant_and_cache_ref(
                     HM_ARGS(indexer_k_quant_and_cache, .kv_cache = a->kv_cache, .k = hm_tensor_of(k2, f->T, 2, flat),
                             .slot_mapping = a->slot_mapping, .layout = f->layout, .code_format = f->codes,
                             .scale_format = HM_SCALE_UE8M0, .floor = 1e-4)),
                 HM_OK, "%s", hm_error());
    cr_assert_eq(hm_quant_fp8_group_ref(HM_ARGS(quant_fp8_group, .codes = hm_tensor_of(codes, F, 3, all),
                                                .scale = hm_tensor_of(scale, HM_F32, 3, (int64_t[]){TOKENS, HEADS, 1}),
                                                .x = hm_tensor_of(q2, f->T, 3, all), .scale_format = HM_SCALE_UE8M0)),
                 HM_OK, "%s", hm_error());
    cr_assert_eq(hm_index_weights_ref(HM_ARGS(index_weights, .out = hm_tensor_of(w, HM_F32, 2, all),
                                              .weights = a->weights, .q_scale = hm_tensor_of(scale, HM_F32, 2, all))),
                 HM_OK, "%s", hm_error());
    cr_assert_eq(hm_fp8_paged_mqa_logits_ref(HM_ARGS(
                     fp8_paged_mqa_logits, .logits = a->logits,
                     .q = hm_tensor_of(codes, F, 4, (int64_t[]){BATCH, NEXT, HEADS, DIM}), .kv_cache = a->kv_cache,
                     .weights = hm_tensor_of(w, HM_F32, 2, all), .context_lens = a->context_lens,
                     .block_tables = a->block_tables, .layout = f->layout, .outside = HM_LOGITS_CLEAN)),
                 HM_OK, "%s", hm_error());
    hm_tensor lens = a->context_lens;
    static int32_t rows[TOKENS];
    for (int t = 0; t < TOKENS; t++) rows[t] = seen(f, t);
    if (f->per_token) lens = hm_tensor_of(rows, HM_I32, 1, flat);
    cr_assert_eq(hm_top_k_per_row_ref(HM_ARGS(top_k_per_row, .indices = a->indices, .logits = a->logits,
                                              .seq_lens = lens, .next_n = f->per_token ? 1 : NEXT)),
                 HM_OK, "%s", hm_error());
}

static const form plain = {
    .T = HM_BF16, .W = HM_F32, .C = HM_F32, .rotary = 64, .block_size = 16, .weight = true, .bias = true};

/* Bytes in which two runs differ; the memory of every output, what lies between its elements included. */
static size_t differences(const setup *a, const setup *b) {
    const uint8_t *x = (const uint8_t *)&a->out, *y = (const uint8_t *)&b->out;
    size_t n = 0;
    for (size_t i = 0; i < sizeof a->out; i++) n += x[i] != y[i];
    return n;
}

static setup one, steps, before;

Test(indexer, is_its_seven_steps) {
    int calls = 0;
    for (int i = 0; i < 96; i++) {
        static const int64_t sizes[] = {16, 1, 32, 5};
        form f = {.T = i & 1 ? HM_F16 : HM_BF16,
                  .rotary = i % 3 == 0   ? 64
                            : i % 3 == 1 ? 32
                                         : 128,
                  .block_size = sizes[i / 2 % 4],
                  .pairing = i & 2 ? HM_PAIR_INTERLEAVED : HM_PAIR_HALF_SPLIT,
                  .codes = i & 8 ? HM_CODE_E4M3FNUZ : HM_CODE_E4M3,
                  .weight = i % 5 != 0,
                  .bias = i % 7 != 0,
                  .per_token = i & 16,
                  .gap = i & 32 ? GAP : 0};
        f.W = i % 5 == 0 ? HM_F32 : i % 5 == 1 ? HM_F16 : i % 5 == 2 ? HM_BF16 : HM_F32;
        f.C = i % 4 < 2 ? HM_F32 : f.T;
        f.layout = f.block_size % 16 == 0 && i & 1 ? HM_LAYOUT_SHUFFLE : HM_LAYOUT_NORMAL;
        f.offset = i % 3 == 2 ? 0 : i % 11 * 4;
        hm_indexer_args a = call_of(&one, f), b = call_of(&steps, f);
        memcpy(&before, &one, sizeof one);
        cr_assert_eq((i & 1 ? hm_indexer : hm_indexer_ref)(&a), HM_OK, "%s", hm_error());
        seven(&b, &f);
        cr_assert_eq(differences(&one, &steps), 0, "form %d: %zu bytes differ", i, differences(&one, &steps));
        cr_assert_eq(memcmp(&one, &before, offsetof(setup, out)), 0, "form %d: an input was written", i);
        cr_assert_gt(differences(&one, &before), 1500, "form %d: little was written", i);
        calls++;
    }
    cr_expect_eq(calls, 96);
}

/* What is written: the codes and the scale of each token that has a slot, every logit, every index; nothing else. */
Test(indexer, writes_what_it_says) {
    form f = plain;
    f.gap = GAP;
    hm_indexer_args a = call_of(&one, f);
    memcpy(&before, &one, sizeof one);
    cr_assert_eq(hm_indexer(&a), HM_OK, "%s", hm_error());
    for (int64_t slot = 0; slot < BATCH * 3 * 16; slot++) {
        bool mine = false, same = true;
        for (int t = 0; t < TOKENS; t++) mine |= one.slots[t * (GAP + 1)] == slot;
        int64_t first = slot / 16 * (16 * 132 + 8 * GAP), o = slot % 16;
        for (int d = 0; d < DIM; d++)
            same &= one.out.cache[first + o * DIM + d] == before.out.cache[first + o * DIM + d];
        same &= !memcmp(one.out.cache + first + 16 * DIM + 4 * o, before.out.cache + first + 16 * DIM + 4 * o, 4);
        cr_assert_eq(same, !mine, "slot %lld", (long long)slot);
    }
    for (int t = 0; t < TOKENS; t++) {
        int n = seen(&f, t), found = 0;
        for (int p = 0; p < WIDTH; p++) {
            float v = one.out.logits[(t * WIDTH + p) * (GAP + 1)];
            cr_assert(p < n ? v > -1e30f && v < 1e30f : v == -1.0f / 0.0f, "token %d, position %d: %g", t, p,
                      (double)v);
        }
        for (int i = 0; i < TOP_K; i++) {
            int32_t v = one.out.indices[(t * TOP_K + i) * (GAP + 1)];
            cr_assert(i < n ? v >= 0 && v < n : v == -1, "token %d, index %d: %d", t, i, (int)v);
            found += v >= 0;
        }
        cr_expect_eq(found, n < TOP_K ? n : TOP_K);
    }
}

/* The faults S2 to S5 of vllm#43781: each gives other bits than the chain, in the output that its step makes. */
Test(indexer, rotation_takes_effect) {
    static const struct {
        const char *id;
        bool cache, logits; /* in which output it shows first */
    } wrong[] = {{"indexer.rotation_dropped", true, true},      {"indexer.rotation_of_q_dropped", false, true},
                 {"indexer.rotation_of_k_dropped", true, true}, {"indexer.other_part_rotated", true, true},
                 {"indexer.other_pairing", true, true},         {"indexer.other_pairing_in_q", false, true},
                 {"indexer.norm_behind_rotation", true, true},  {"indexer.rotated_behind_quantisation", false, true},
                 {"indexer.rotated_twice", true, true}};
    hm_dtype written[HM_MAX_ARGS] = {0};
    for (int i = 0; i < 4; i++)
        for (size_t w = 0; w < sizeof wrong / sizeof *wrong; w++) {
            form f = plain;
            f.T = i & 1 ? HM_F16 : HM_BF16, f.pairing = i & 2 ? HM_PAIR_INTERLEAVED : HM_PAIR_HALF_SPLIT;
            hm_indexer_args a = call_of(&one, f), b = call_of(&steps, f);
            const hm_fault *fault = hm_fault_named(wrong[w].id);
            cr_assert(fault, "%s", wrong[w].id);
            cr_assert_eq(hm_indexer(&a), HM_OK, "%s", hm_error());
            cr_assert_eq(fault->run(fault->variation, &b, written), HM_OK, "%s", hm_error());
            bool cache = memcmp(one.out.cache, steps.out.cache, sizeof one.out.cache) != 0;
            bool logits = memcmp(one.out.logits, steps.out.logits, sizeof one.out.logits) != 0;
            cr_expect_eq(cache, wrong[w].cache, "%s: cache", wrong[w].id);
            cr_expect_eq(logits, wrong[w].logits, "%s: logits", wrong[w].id);
        }
}

/* At position 0, where the angle is 0, nothing is turned; a table that says so is the same as none. */
Test(indexer, table_of_ones_rotates_nothing) {
    form f = plain;
    hm_indexer_args a = call_of(&one, f), b = call_of(&steps, f);
    for (int i = 0; i < ROWS * 64; i++) one.table[i] = steps.table[i] = i % 64 < 32 ? 1 : 0;
    const hm_fault *fault = hm_fault_named("indexer.rotation_dropped");
    hm_dtype written[HM_MAX_ARGS] = {0};
    cr_assert_eq(hm_indexer(&a), HM_OK, "%s", hm_error());
    cr_assert_eq(fault->run(fault->variation, &b, written), HM_OK, "%s", hm_error());
    cr_expect_eq(differences(&one, &steps), 0);
}

Test(indexer, no_slot_at_all) {
    hm_indexer_args a = call_of(&one, plain);
    for (int t = 0; t < TOKENS; t++) one.slots[t] = t % 2 ? INT64_MIN : -1;
    memcpy(&before, &one, sizeof one);
    cr_assert_eq(hm_indexer(&a), HM_OK, "%s", hm_error());
    cr_expect_eq(memcmp(one.out.cache, before.out.cache, sizeof one.out.cache), 0, "the cache was written");
    cr_expect_neq(memcmp(one.out.logits, before.out.logits, sizeof one.out.logits), 0);
}

Test(indexer, zero_sizes) {
    for (int mode = 0; mode < 6; mode++) {
        hm_indexer_args a = call_of(&one, plain);
        memcpy(&before, &one, sizeof one);
        bool nothing = mode < 2;
        if (mode < 2) { /* no token; with requests, or none */
            a.q.shape[0] = a.k.shape[0] = a.weights.shape[0] = a.positions.shape[0] = a.slot_mapping.shape[0] = 0;
            a.logits.shape[0] = a.indices.shape[0] = 0;
            if (mode == 1) a.block_tables.shape[0] = a.context_lens.shape[0] = 0;
        }
        if (mode == 2) a.q.shape[1] = a.weights.shape[1] = 0;
        if (mode == 3) a.indices.shape[1] = 0;
        if (mode == 4) /* no key to see, no column, no block that is asked for */
            for (int b = 0; b < BATCH; b++) one.lens[b] = before.lens[b] = -b;
        if (mode == 4) a.logits.shape[1] = 0, a.block_tables.shape[1] = 0;
        if (mode == 5) a.cos_sin_cache.shape[1] = 0;
        cr_assert_eq(hm_indexer(&a), HM_OK, "mode %d: %s", mode, hm_error());
        cr_expect_eq(differences(&one, &before) == 0, nothing, "mode %d", mode);
        if (mode == 2) /* a sum over no head */
            for (int t = 0; t < TOKENS; t++)
                for (int p = 0; p < seen(&plain, t); p++) cr_expect_eq(one.out.logits[t * WIDTH + p], 0);
        if (mode == 3)
            cr_expect_eq(memcmp(one.out.indices, before.out.indices, sizeof one.out.indices), 0,
                         "indices were written");
        if (mode == 4)
            for (int i = 0; i < TOKENS * TOP_K; i++) cr_expect_eq(one.out.indices[i], -1);
        if (mode == 5) { /* nothing rotated */
            hm_indexer_args b = call_of(&steps, plain);
            const hm_fault *fault = hm_fault_named("indexer.rotation_dropped");
            cr_expect_eq(fault->run(fault->variation, &b, (hm_dtype[HM_MAX_ARGS]){0}), HM_OK);
            cr_expect_eq(differences(&one, &steps), 0);
        }
    }
}

#define REFUSED(status, name, value, ...)                                                \
    do {                                                                                 \
        hm_indexer_args a = call_of(&one, plain);                                        \
        memset(&one.out, CANARY, sizeof one.out);                                        \
        __VA_ARGS__;                                                                     \
        refused("indexer", &a, &one.out, sizeof one.out, status, name, value, __LINE__); \
    } while (0)

Test(indexer, refuses) {
    REFUSED(HM_BAD_ARG, "q", "absent", a.q.dtype = HM_DTYPE_NONE);
    REFUSED(HM_BAD_ARG, "kv_cache", "NULL", a.kv_cache.data = NULL);
    REFUSED(HM_BAD_ARG, "size", "8", a.size = 8);
    REFUSED(HM_BAD_SHAPE, "q", "rank 2", a.q.ndim = 2);
    REFUSED(HM_BAD_SHAPE, "q", "64", a.q.shape[2] = 64);
    REFUSED(HM_BAD_SHAPE, "k ", "5", a.k.shape[0] = 5);
    REFUSED(HM_BAD_SHAPE, "k ", "127", a.k.shape[1] = 127);
    REFUSED(HM_BAD_SHAPE, "weights", "4", a.weights.shape[1] = 4);
    REFUSED(HM_BAD_SHAPE, "k_weight", "129", a.k_weight.shape[0] = 129);
    REFUSED(HM_BAD_SHAPE, "k_bias", "1", a.k_bias.shape[0] = 1);
    REFUSED(HM_BAD_SHAPE, "positions", "7", a.positions.shape[0] = 7);
    REFUSED(HM_BAD_SHAPE, "slot_mapping", "5", a.slot_mapping.shape[0] = 5);
    REFUSED(HM_BAD_SHAPE, "cos_sin_cache", "63", a.cos_sin_cache.shape[1] = 63);
    REFUSED(HM_BAD_SHAPE, "cos_sin_cache", "130", a.cos_sin_cache.shape[1] = 130);
    REFUSED(HM_BAD_SHAPE, "context_lens", "2", a.context_lens.shape[0] = 2);
    REFUSED(HM_BAD_SHAPE, "block_tables", "4", a.block_tables.shape[0] = 4, a.context_lens.shape[0] = 4);
    REFUSED(HM_BAD_SHAPE, "kv_cache", "264",
            a.kv_cache = hm_tensor_of(one.out.cache, HM_U8, 3, (int64_t[]){4, 16, 264}));
    REFUSED(HM_BAD_SHAPE, "kv_cache", "8", a.layout = HM_LAYOUT_SHUFFLE, a.kv_cache.shape[1] = 8);
    REFUSED(HM_BAD_SHAPE, "logits", "5", a.logits.shape[0] = 5);
    REFUSED(HM_BAD_SHAPE, "indices", "7", a.indices.shape[0] = 7);
    REFUSED(HM_BAD_STRIDE, "logits", "44", a.logits.stride[0] = 44);
    REFUSED(HM_BAD_STRIDE, "indices", "0", a.indices.stride[1] = 0);
    REFUSED(HM_BAD_STRIDE, "kv_cache", "2111", a.kv_cache.stride[0] = 2111);
    REFUSED(HM_BAD_DTYPE, "q", "f32", a.q.dtype = HM_F32);
    REFUSED(HM_BAD_DTYPE, "k ", "f16", a.k.dtype = HM_F16);
    REFUSED(HM_BAD_DTYPE, "weights", "u8", a.weights.dtype = HM_U8);
    REFUSED(HM_BAD_DTYPE, "k_weight", "f16", a.k_weight.dtype = HM_F16);
    REFUSED(HM_BAD_DTYPE, "cos_sin_cache", "f16", a.cos_sin_cache.dtype = HM_F16);
    REFUSED(HM_BAD_DTYPE, "positions", "i32", a.positions.dtype = HM_I32);
    REFUSED(HM_BAD_DTYPE, "slot_mapping", "i32", a.slot_mapping.dtype = HM_I32);
    REFUSED(HM_BAD_DTYPE, "context_lens", "i64", a.context_lens.dtype = HM_I64);
    REFUSED(HM_BAD_DTYPE, "kv_cache", "f8e4m3", a.kv_cache.dtype = HM_F8E4M3);
    REFUSED(HM_BAD_DTYPE, "logits", "bf16", a.logits.dtype = HM_BF16);
    REFUSED(HM_BAD_DTYPE, "indices", "i64", a.indices.dtype = HM_I64);
    REFUSED(HM_BAD_PLACE, "k ", "cuda", a.k.place = HM_CUDA);
    REFUSED(HM_BAD_ALIAS, "logits", "kv_cache", a.logits.data = one.out.cache + 64);
    REFUSED(HM_BAD_ALIAS, "indices", "slot_mapping", a.indices.data = one.slots);
    REFUSED(HM_BAD_PARAM, "eps", "-1", a.eps = -1);
    REFUSED(HM_BAD_PARAM, "rope_dim_offset", "65", a.rope_dim_offset = 65);
    REFUSED(HM_BAD_PARAM, "rope_dim_offset", "-2", a.rope_dim_offset = -2);
    REFUSED(HM_BAD_PARAM, "pairing", "2", a.pairing = (hm_pairing)2);
    REFUSED(HM_BAD_PARAM, "layout", "7", a.layout = (hm_cache_layout)7);
    REFUSED(HM_BAD_PARAM, "code_format", "-1", a.code_format = (hm_code_format)-1);
    REFUSED(HM_BAD_VALUE, "positions", "50", one.positions[4] = ROWS);
    REFUSED(HM_BAD_VALUE, "positions", "-1", one.positions[0] = -1);
    REFUSED(HM_BAD_VALUE, "slot_mapping", "144", one.slots[0] = BATCH * 3 * 16);
    REFUSED(HM_BAD_VALUE, "slot_mapping", "33 twice", one.slots[0] = one.slots[5] = 33);
    REFUSED(HM_BAD_VALUE, "context_lens", "46", one.lens[0] = WIDTH + 1);
    REFUSED(HM_BAD_VALUE, "context_lens", "49", a.logits.shape[1] = 49, a.logits.stride[0] = 49, one.lens[0] = 49);
    REFUSED(HM_BAD_VALUE, "block_tables", "9", one.blocks[1] = BATCH * 3);
    REFUSED(HM_BAD_VALUE, "block_tables", "-4", one.blocks[0] = -4);
}

/* Entries that no length asks for are not read, and neither are rows of the table that no position names. */
Test(indexer, reads_no_more_than_it_needs) {
    form f = plain;
    hm_indexer_args a = call_of(&one, f), b = call_of(&steps, f);
    for (int i = 0; i < BATCH * 3; i++)
        if (i % 3 * 16 >= seen(&f, i / 3 * NEXT + 1)) one.blocks[i] = POISON;
    for (int row = 0; row < ROWS; row++) {
        bool named = false;
        for (int t = 0; t < TOKENS; t++) named |= one.positions[t] == row;
        for (int i = 0; i < 64 && !named; i++) one.table[row * 64 + i] = 0.0f / 0.0f;
    }
    cr_assert_eq(hm_indexer(&a), HM_OK, "%s", hm_error());
    cr_assert_eq(hm_indexer(&b), HM_OK, "%s", hm_error());
    cr_expect_eq(differences(&one, &steps), 0);
}
