#include "indexer.h"

#include <stdio.h>
#include <string.h>

#include "check.h"
#include "op.h"

static const char op[] = "indexer";
static const char *const pairing_names[] = {"half_split", "interleaved", NULL};
static const char *const layout_names[] = {"normal", "shuffle", NULL};
static const char *const format_names[] = {"e4m3", "e4m3fnuz", NULL};

enum { DIM = HM_INDEXER_GROUP };

static hm_tensor dense(void *data, hm_dtype dtype, hm_place place, int ndim, int64_t a, int64_t b, int64_t c) {
    hm_tensor t = {.data = data, .dtype = dtype, .place = place, .ndim = ndim, .shape = {a, b, c}};
    int64_t step = 1;
    for (int d = ndim - 1; d >= 0; d--) t.stride[d] = step, step *= t.shape[d];
    return t;
}

/* Dtype, bytes an element, and tensor of each part of the memory between the steps. */
static size_t part(int i, int64_t tokens, int64_t heads) {
    int64_t each[] = {2 * DIM, 2 * DIM * heads, 2 * DIM, DIM * heads, 4 * heads, 4 * heads, 4};
    return ((size_t)(tokens * each[i]) + 15) / 16 * 16;
}

size_t hm_indexer_memory(const hm_indexer_args *a) {
    size_t n = 16;
    for (int i = 0; i < 7; i++) n += part(i, a->q.shape[0], a->q.shape[1]);
    return n;
}

void hm_indexer_take_apart(const hm_indexer_args *a, void *memory, hm_indexer_steps *s) {
    int64_t tokens = a->q.shape[0], heads = a->q.shape[1], batch = a->block_tables.shape[0],
            next_n = batch ? tokens / batch : 1;
    hm_dtype T = a->q.dtype, codes = a->code_format == HM_CODE_E4M3 ? HM_F8E4M3 : HM_F8E4M3FNUZ;
    hm_place place = a->q.place;
    char *at[8] = {memory};
    for (int i = 0; i < 7; i++) at[i + 1] = at[i] + part(i, tokens, heads);
    *s = (hm_indexer_steps){.k_normed = dense(at[0], T, place, 2, tokens, DIM, 0),
                            .q_rotated = dense(at[1], T, place, 3, tokens, heads, DIM),
                            .k_rotated = dense(at[2], T, place, 2, tokens, DIM, 0),
                            .q_codes = dense(at[3], codes, place, 3, tokens, heads, DIM),
                            .q_scale = dense(at[4], HM_F32, place, 2, tokens, heads, 0),
                            .q_weights = dense(at[5], HM_F32, place, 2, tokens, heads, 0),
                            .lens = dense(at[6], HM_I32, place, 1, tokens, 0, 0)};
    s->norm = (hm_layer_norm_args){
        .size = sizeof s->norm, .out = s->k_normed, .x = a->k, .weight = a->k_weight, .bias = a->k_bias, .eps = a->eps};
    hm_tensor key = dense(at[0], T, place, 3, tokens, 1, DIM), key_out = dense(at[2], T, place, 3, tokens, 1, DIM);
    s->rotary = (hm_rotary_embedding_args){.size = sizeof s->rotary,
                                           .query_out = s->q_rotated,
                                           .key_out = key_out,
                                           .query = a->q,
                                           .key = key,
                                           .positions = a->positions,
                                           .cos_sin_cache = a->cos_sin_cache,
                                           .pairing = a->pairing,
                                           .rope_dim_offset = a->rope_dim_offset};
    s->write = (hm_indexer_k_quant_and_cache_args){.size = sizeof s->write,
                                                   .kv_cache = a->kv_cache,
                                                   .k = s->k_rotated,
                                                   .slot_mapping = a->slot_mapping,
                                                   .layout = a->layout,
                                                   .code_format = a->code_format,
                                                   .scale_format = HM_SCALE_UE8M0};
    s->quant = (hm_quant_fp8_group_args){.size = sizeof s->quant,
                                         .codes = s->q_codes,
                                         .scale = dense(at[4], HM_F32, place, 3, tokens, heads, 1),
                                         .x = s->q_rotated,
                                         .scale_format = HM_SCALE_UE8M0};
    s->weigh = (hm_index_weights_args){
        .size = sizeof s->weigh, .out = s->q_weights, .weights = a->weights, .q_scale = s->q_scale};
    hm_tensor q = {.data = at[3],
                   .dtype = codes,
                   .place = place,
                   .ndim = 4,
                   .shape = {batch, next_n, heads, DIM},
                   .stride = {next_n * heads * DIM, heads * DIM, DIM, 1}};
    s->score = (hm_fp8_paged_mqa_logits_args){.size = sizeof s->score,
                                              .logits = a->logits,
                                              .q = q,
                                              .kv_cache = a->kv_cache,
                                              .weights = s->q_weights,
                                              .context_lens = a->context_lens,
                                              .block_tables = a->block_tables,
                                              .layout = a->layout};
    s->select = (hm_top_k_per_row_args){
        .size = sizeof s->select, .indices = a->indices, .logits = a->logits, .seq_lens = s->lens};
    if (place != HM_HOST) return;
    for (int64_t t = 0; t < tokens; t++) {
        const hm_tensor *lens = &a->context_lens;
        int64_t b = t / next_n, j = t % next_n;
        int64_t n = lens->ndim == 2 ? hm_integer_at2(lens, b, j) : hm_integer_at(lens, b) - next_n + j + 1;
        int32_t length = (int32_t)(n < 0 ? 0 : n);
        memcpy(at[6] + 4 * t, &length, sizeof length);
    }
}

/* ---- checks ---- */

static hm_status check_dtypes(const hm_indexer_args *a) {
    static const char *const i64_name[] = {"positions", "slot_mapping"}, *const i32_name[] = {
                                                                             "context_lens", "block_tables", "indices"};
    const hm_tensor *const i64[] = {&a->positions, &a->slot_mapping}, *const i32[] = {&a->context_lens,
                                                                                      &a->block_tables, &a->indices};
    hm_dtype T = a->q.dtype;
    if (T != HM_BF16 && T != HM_F16)
        return hm_fail(HM_BAD_DTYPE, "%s: q is %s; it has to be bf16 or f16", op, hm_dtype_name(T));
    if (a->k.dtype != T)
        return hm_fail(HM_BAD_DTYPE, "%s: k is %s; it has to be %s, as q", op, hm_dtype_name(a->k.dtype),
                       hm_dtype_name(T));
    if (!hm_is_float(a->weights.dtype))
        return hm_fail(HM_BAD_DTYPE, "%s: weights is %s; it has to be f32, f16 or bf16", op,
                       hm_dtype_name(a->weights.dtype));
    const hm_tensor *const of_T[] = {&a->k_weight, &a->k_bias, &a->cos_sin_cache};
    static const char *const of_T_name[] = {"k_weight", "k_bias", "cos_sin_cache"};
    for (int i = 0; i < 3; i++)
        if (of_T[i]->dtype && of_T[i]->dtype != T && of_T[i]->dtype != HM_F32)
            return hm_fail(HM_BAD_DTYPE, "%s: %s is %s; with q in %s it has to be f32 or %s", op, of_T_name[i],
                           hm_dtype_name(of_T[i]->dtype), hm_dtype_name(T), hm_dtype_name(T));
    for (int i = 0; i < 2; i++)
        if (i64[i]->dtype != HM_I64)
            return hm_fail(HM_BAD_DTYPE, "%s: %s is %s; it has to be i64", op, i64_name[i],
                           hm_dtype_name(i64[i]->dtype));
    for (int i = 0; i < 3; i++)
        if (i32[i]->dtype != HM_I32)
            return hm_fail(HM_BAD_DTYPE, "%s: %s is %s; it has to be i32", op, i32_name[i],
                           hm_dtype_name(i32[i]->dtype));
    if (a->logits.dtype != HM_F32)
        return hm_fail(HM_BAD_DTYPE, "%s: logits is %s; it has to be f32", op, hm_dtype_name(a->logits.dtype));
    return HM_OK;
}

static hm_status check_shapes(const hm_indexer_args *a, const hm_indexer_cache *c) {
    hm_status s;
    int64_t tokens = a->q.shape[0], heads = a->q.shape[1], batch;
    if ((s = hm_check_extent(op, "q", &a->q, 3, 2, DIM, "the head size of the cache"))) return s;
    if ((s = hm_check_extent(op, "k", &a->k, 2, 0, tokens, "the tokens of q"))) return s;
    if ((s = hm_check_extent(op, "k", &a->k, 2, 1, DIM, "the head size of the cache"))) return s;
    if ((s = hm_check_extent(op, "weights", &a->weights, 2, 0, tokens, "the tokens of q"))) return s;
    if ((s = hm_check_extent(op, "weights", &a->weights, 2, 1, heads, "the heads of q"))) return s;
    if (heads > 65536)
        return hm_fail(HM_BAD_SHAPE, "%s: q has %lld heads; it has to be at most 65536", op, (long long)heads);
    if (a->k_weight.dtype && (s = hm_check_extent(op, "k_weight", &a->k_weight, 1, 0, DIM, "the width of k"))) return s;
    if (a->k_bias.dtype && (s = hm_check_extent(op, "k_bias", &a->k_bias, 1, 0, DIM, "the width of k"))) return s;
    if ((s = hm_check_extent(op, "positions", &a->positions, 1, 0, tokens, "the tokens of q"))) return s;
    if ((s = hm_check_extent(op, "slot_mapping", &a->slot_mapping, 1, 0, tokens, "the tokens of q"))) return s;
    if ((s = hm_check_extent(op, "cos_sin_cache", &a->cos_sin_cache, 2, 0, -1, ""))) return s;
    int64_t rotary = a->cos_sin_cache.shape[1];
    if (rotary % 2 || rotary > DIM)
        return hm_fail(HM_BAD_SHAPE,
                       "%s: cos_sin_cache has extent %lld in dimension 1; it has to be even and at most %d", op,
                       (long long)rotary, DIM);
    if (a->rope_dim_offset < 0 || a->rope_dim_offset > DIM - rotary)
        return hm_fail(HM_BAD_PARAM, "%s: rope_dim_offset is %lld; with %lld rotated elements it has to be 0 to %lld",
                       op, (long long)a->rope_dim_offset, (long long)rotary, (long long)(DIM - rotary));
    if (c->groups != 1)
        return hm_fail(HM_BAD_SHAPE, "%s: kv_cache has entries of %lld bytes; it has to be 132", op,
                       (long long)c->entry);
    if ((s = hm_check_extent(op, "block_tables", &a->block_tables, 2, 0, -1, ""))) return s;
    batch = a->block_tables.shape[0];
    if (batch ? tokens % batch : tokens)
        return hm_fail(HM_BAD_SHAPE,
                       "%s: block_tables has %lld requests; they have to share the %lld tokens of q evenly", op,
                       (long long)batch, (long long)tokens);
    const hm_tensor *lens = &a->context_lens;
    if (lens->ndim != 1 && lens->ndim != 2)
        return hm_fail(HM_BAD_SHAPE, "%s: context_lens has rank %d; it has to be 1 or 2", op, lens->ndim);
    if ((s = hm_check_extent(op, "context_lens", lens, lens->ndim, 0, batch, "the requests of block_tables"))) return s;
    if (lens->ndim == 2 && batch &&
        (s = hm_check_extent(op, "context_lens", lens, 2, 1, tokens / batch, "the tokens of a request")))
        return s;
    if ((s = hm_check_extent(op, "logits", &a->logits, 2, 0, tokens, "the tokens of q"))) return s;
    return hm_check_extent(op, "indices", &a->indices, 2, 0, tokens, "the tokens of q");
}

/* What the steps say of the integers that they are given: these arguments have the same names there. */
static hm_status check_values(const hm_indexer_args *a) {
    if (a->q.place != HM_HOST) return HM_OK; /* to look at them would wait for the device */
    for (int64_t t = 0; t < a->positions.shape[0]; t++) {
        int64_t p = hm_integer_at(&a->positions, t);
        if (p < 0 || p >= a->cos_sin_cache.shape[0])
            return hm_fail(HM_BAD_VALUE, "%s: positions holds %lld for token %lld; it has to be 0 to %lld", op,
                           (long long)p, (long long)t, (long long)a->cos_sin_cache.shape[0] - 1);
    }
    hm_indexer_steps s;
    hm_indexer_args shape = *a;
    shape.q.place = HM_CUDA; /* addresses alone: nothing is put there */
    hm_indexer_take_apart(&shape, a->q.data, &s);
    s.write.k = a->k, s.score.q.place = s.score.weights.place = HM_HOST;
    s.score.q.data = a->q.data, s.score.weights.data = a->q.data; /* which are not looked at: one element each */
    memset(s.score.q.stride, 0, sizeof s.score.q.stride),
        memset(s.score.weights.stride, 0, sizeof s.score.weights.stride);
    hm_status status = hm_indexer_k_quant_and_cache_check(&s.write);
    if (!status) status = hm_fp8_paged_mqa_logits_check(&s.score);
    if (!status) return HM_OK;
    char sentence[512]; /* in the name of this op */
    const char *behind = strstr(hm_error(), ": ");
    snprintf(sentence, sizeof sentence, "%s", behind ? behind + 2 : hm_error());
    return hm_fail(status, "%s: %s", op, sentence);
}

hm_status hm_indexer_read(const hm_indexer_args *args, hm_indexer_args *a) {
    hm_status s;
    hm_indexer_cache cache;
    if ((s = hm_read_args(op, args, a, sizeof *a))) return s;
    static const char *const name[] = {"q",
                                       "k",
                                       "weights",
                                       "k_weight",
                                       "k_bias",
                                       "positions",
                                       "cos_sin_cache",
                                       "slot_mapping",
                                       "context_lens",
                                       "block_tables",
                                       "kv_cache",
                                       "logits",
                                       "indices"};
    const hm_tensor *const t[] = {&a->q,
                                  &a->k,
                                  &a->weights,
                                  &a->k_weight,
                                  &a->k_bias,
                                  &a->positions,
                                  &a->cos_sin_cache,
                                  &a->slot_mapping,
                                  &a->context_lens,
                                  &a->block_tables,
                                  &a->kv_cache,
                                  &a->logits,
                                  &a->indices};
    for (int i = 0; i < 13; i++)
        if ((s = hm_check_tensor(op, name[i], t[i], i != 3 && i != 4))) return s;
    if ((s = hm_check_mode(op, "pairing", a->pairing, 2))) return s;
    if ((s = hm_check_mode(op, "layout", a->layout, 2))) return s;
    if ((s = hm_check_mode(op, "code_format", a->code_format, 2))) return s;
    if ((s = hm_check_eps(op, a->eps))) return s;
    if ((s = check_dtypes(a))) return s;
    if ((s = hm_indexer_cache_read(op, &a->kv_cache, a->layout, &cache))) return s;
    if (a->q.ndim != 3)
        return hm_fail(HM_BAD_SHAPE, "%s: q has rank %d; it has to be 3: [tokens, heads, 128]", op, a->q.ndim);
    if ((s = check_shapes(a, &cache))) return s;
    if ((s = hm_check_places(op, 13, name, t))) return s;
    for (int i = 11; i < 13; i++)
        if ((s = hm_check_distinct(op, name[i], t[i]))) return s;
    for (int i = 10; i < 13; i++)
        for (int j = 0; j < i; j++)
            if ((s = hm_check_overlap(op, name[i], t[i], name[j], t[j], false))) return s;
    return check_values(a);
}

hm_status hm_indexer_check(const hm_indexer_args *args) {
    hm_indexer_args full;
    return hm_indexer_read(args, &full);
}

HM_OP_FUNCTIONS(indexer, q)

#define AT(field) offsetof(hm_indexer_args, field)
static const hm_arg_info args[] = {
    {"q", AT(q), HM_IN, false, "tokens,heads,head_dim", "bf16 f16", NULL, "queries, not rotated yet", NULL},
    {"k", AT(k), HM_IN, false, "tokens,head_dim", "=q", NULL, "keys, neither normalised nor rotated yet", NULL},
    {"weights", AT(weights), HM_IN, false, "tokens,heads", "f32 f16 bf16", NULL, "weight of each head", NULL},
    {"k_weight", AT(k_weight), HM_IN, true, "head_dim", "f32 =q", NULL, "weight of the norm on k", NULL},
    {"k_bias", AT(k_bias), HM_IN, true, "head_dim", "f32 =q", NULL, "bias of the norm on k", NULL},
    {"context_lens", AT(context_lens), HM_IN, false, "batch", "i32", NULL, "keys of each request, or of each token",
     NULL},
    {"block_tables", AT(block_tables), HM_IN, false, "batch,max_blocks", "i32", NULL, "blocks of each request", NULL},
    {"positions", AT(positions), HM_IN, false, "tokens", "i64", NULL, "position of each token", NULL},
    {"cos_sin_cache", AT(cos_sin_cache), HM_IN, false, "max_position,rotary_dim", "=q f32", NULL, "cosines, then sines",
     "positions"},
    {"slot_mapping", AT(slot_mapping), HM_IN, false, "tokens", "i64", NULL, "slot of each token's key", NULL},
    {"kv_cache", AT(kv_cache), HM_INOUT, false, "num_blocks,block_size,entry", "u8", NULL, "the paged cache", NULL},
    {"logits", AT(logits), HM_OUT, false, "tokens,width", "f32", NULL, "scores", NULL},
    {"indices", AT(indices), HM_OUT, false, "tokens,top_k", "i32", NULL, "positions of the selected keys", NULL},
};
static const hm_param_info params[] = {
    {"eps", AT(eps), HM_PARAM_F64, NULL, 1e-6, "added to the variance; narrowed to f32 first"},
    {"pairing", AT(pairing), HM_PARAM_MODE, pairing_names, HM_PAIR_HALF_SPLIT, "which elements make a pair"},
    {"rope_dim_offset", AT(rope_dim_offset), HM_PARAM_I64, NULL, 0, "first rotated element"},
    {"layout", AT(layout), HM_PARAM_MODE, layout_names, HM_LAYOUT_NORMAL, "token by token, or in tiles of 16 by 16"},
    {"code_format", AT(code_format), HM_PARAM_MODE, format_names, HM_CODE_E4M3, "of queries and keys"},
};
const hm_op_info hm_indexer_info = {
    .name = op,
    .about = "the sparse indexer of a layer as one call: norm, rotation, quantisation, cache, scores, selection",
    .contract = 1,
    .args_size = sizeof(hm_indexer_args),
    .args = args,
    .nargs = sizeof args / sizeof *args,
    .params = params,
    .nparams = sizeof params / sizeof *params,
    .classes = "wide chain64 chain512 any tc23 tc13",
    .class_required = "tc23",
    HM_OP_CALLS,
};
