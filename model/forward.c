/* forward.c: one step of the model, op by op. Every number that the model computes is the output of an op: what is done
 * here besides is to name slices of tensors.
 *
 * The residual stream is bf16, and so is all that is not said to be f32 or 8 bits. */
#include <hallmark/concat_and_cache_mla.h>
#include <hallmark/concat_mla_q.h>
#include <hallmark/cp_gather_indexer_k_quant_cache.h>
#include <hallmark/embedding.h>
#include <hallmark/fp8_mqa_logits.h>
#include <hallmark/fp8_paged_mqa_logits.h>
#include <hallmark/fused_add_rms_norm.h>
#include <hallmark/index_weights.h>
#include <hallmark/indexer_k_quant_and_cache.h>
#include <hallmark/layer_norm.h>
#include <hallmark/linear.h>
#include <hallmark/quant_fp8_group.h>
#include <hallmark/rms_norm.h>
#include <hallmark/rope_table.h>
#include <hallmark/rotary_embedding.h>
#include <hallmark/silu_and_mul.h>
#include <hallmark/sparse_mla_decode.h>
#include <hallmark/top_k_per_row.h>
#include <hallmark/translate_indices.h>
#include <math.h>

#include "batch.h"

/* ---- slices: the same memory, seen otherwise --------------------------------------------------------------------- */

static hm_tensor first_rows(hm_tensor t, int64_t rows) {
    t.shape[0] = rows;
    return t;
}

/* Elements from .. from + count - 1 of dimension d. */
static hm_tensor slice(hm_tensor t, int d, int64_t from, int64_t count) {
    t.data = (char *)t.data + from * t.stride[d] * (int64_t)hm_dtype_size(t.dtype);
    t.shape[d] = count;
    return t;
}

/* t without dimension d, at its index i. */
static hm_tensor pick(hm_tensor t, int d, int64_t i) {
    t = slice(t, d, i, 1);
    for (t.ndim--; d < t.ndim; d++) t.shape[d] = t.shape[d + 1], t.stride[d] = t.stride[d + 1];
    return t;
}

/* [.., a, b] of neighbours as [.., a b]. */
static hm_tensor flat(hm_tensor t) {
    t.ndim--;
    t.shape[t.ndim - 1] *= t.shape[t.ndim];
    t.stride[t.ndim - 1] = t.stride[t.ndim];
    return t;
}

/* t with a dimension of 1 at d. */
static hm_tensor with_one(hm_tensor t, int d) {
    for (int i = t.ndim++; i > d; i--) t.shape[i] = t.shape[i - 1], t.stride[i] = t.stride[i - 1];
    t.shape[d] = 1;
    return t;
}

/* ---- ops with what all calls of this model have in common -------------------------------------------------------- */

#define CALL(op, site, ...) hm_model_call_op(b, HM_MODEL_##op, site, -1, HM_ARGS(op, __VA_ARGS__))

static void linear(hm_model_batch *b, const char *site, hm_tensor out, hm_tensor x, hm_tensor weight) {
    CALL(linear, site, .out = out, .x = x, .weight = weight);
}

/* One product a head: out[:, head] = x[:, head] weight[head]^T. */
static void linear_of_heads(hm_model_batch *b, const char *site, hm_tensor out, hm_tensor x, hm_tensor weight) {
    for (int64_t head = 0; head < weight.shape[0]; head++)
        hm_model_call_op(
            b, HM_MODEL_linear, site, head,
            HM_ARGS(linear, .out = pick(out, 1, head), .x = pick(x, 1, head), .weight = pick(weight, 0, head)));
}

static void rms_norm(hm_model_batch *b, const char *site, hm_tensor out, hm_tensor x, hm_tensor weight) {
    CALL(rms_norm, site, .out = out, .x = x, .weight = weight, .eps = b->model->sizes.eps,
         .weight_form = HM_WEIGHT_ONE_PLUS);
}

/* residual += x; x = the norm of that */
static void add_and_norm(hm_model_batch *b, const char *site, hm_tensor x, hm_tensor residual, hm_tensor weight) {
    CALL(fused_add_rms_norm, site, .out = x, .residual_out = residual, .x = x, .residual = residual, .weight = weight,
         .eps = b->model->sizes.eps, .weight_form = HM_WEIGHT_ONE_PLUS);
}

/* In place. */
static void rotate(hm_model_batch *b, const char *site, hm_tensor query, hm_tensor key, hm_tensor positions,
                   hm_pairing pairing) {
    CALL(rotary_embedding, site, .query_out = query, .key_out = key, .query = query, .key = key, .positions = positions,
         .cos_sin_cache = b->rope, .pairing = pairing);
}

/* ---- a layer ----------------------------------------------------------------------------------------------------- */

/* The indexer: which slots each row attends to, s->selected [rows, top_k]; -1: none. It works from the normed input x
 * and the query's latent vector, and keeps keys of 8 bits of its own. */
static void select_keys(hm_model_batch *b, const hm_model_step *step, const hm_model_layer *l,
                        const hm_model_inputs *in, const hm_model_scratch *s) {
    int64_t index_dim = s->index_k.shape[2];
    hm_tensor k = flat(s->index_k), cache = pick(b->index_keys, 0, b->call.layer);
    linear(b, "index_q", flat(s->index_q), s->latent, l->index_q);
    linear(b, "index_k", k, s->x, l->index_k);
    linear(b, "index_head_weights", s->head_weights, s->x, l->index_weights);
    CALL(layer_norm, "index_norm", .out = k, .x = k, .weight = l->index_norm, .bias = l->index_bias,
         .eps = b->model->sizes.eps);
    rotate(b, "index_rope", s->index_q, s->index_k, in->positions, HM_PAIR_HALF_SPLIT);
    CALL(quant_fp8_group, "index_quant", .codes = s->codes, .scale = s->scale, .x = s->index_q,
         .scale_format = HM_SCALE_UE8M0);
    CALL(index_weights, "index_weights", .out = s->weights, .weights = s->head_weights, .q_scale = pick(s->scale, 2, 0),
         .head_dim = index_dim, .order = HM_WEIGHTS_L2R);
    CALL(indexer_k_quant_and_cache, "index_cache", .kv_cache = cache, .k = k, .slot_mapping = in->slots,
         .scale_format = HM_SCALE_UE8M0);
    if (step->decode) {
        CALL(fp8_paged_mqa_logits, "index_logits", .logits = s->index_logits, .q = with_one(s->codes, 1),
             .kv_cache = cache, .weights = s->weights, .context_lens = in->length, .block_tables = in->block_table);
        CALL(top_k_per_row, "top_k", .indices = s->indices, .logits = s->index_logits, .seq_lens = in->length);
    } else {
        CALL(cp_gather_indexer_k_quant_cache, "index_gather", .dst_k = s->key_codes, .dst_scale = s->key_scale,
             .kv_cache = cache, .block_table = in->block_table, .cu_seq_lens = in->cumulative);
        CALL(fp8_mqa_logits, "index_logits", .logits = s->index_logits, .q = s->codes, .k = s->key_codes,
             .k_scale = pick(s->key_scale, 1, 0), .weights = s->weights, .ks = in->first, .ke = in->last);
        CALL(top_k_per_row, "top_k", .indices = s->indices, .logits = s->index_logits, .row_starts = in->first,
             .row_ends = in->last);
    }
    CALL(translate_indices, "translate", .out = s->selected, .indices = s->indices, .req_id = in->request,
         .block_table = in->block_table, .block_size = b->options.block_size);
}

/* x = attention(x). Latent attention, absorbed: queries are taken to the latent space of the keys (w_uk), which are the
 * values, too, and what is attended to comes back from there (w_uv). Prompts attend to selected keys like all others,
 * so that the dense op mla_prefill has no place here. */
static void attention(hm_model_batch *b, const hm_model_step *step, const hm_model_layer *l, const hm_model_inputs *in,
                      const hm_model_scratch *s) {
    const hm_model_sizes *z = &b->model->sizes;
    hm_tensor cache = pick(b->mla, 0, b->call.layer);
    hm_tensor q_nope = slice(s->q, 2, 0, z->nope), q_pe = slice(s->q, 2, z->nope, z->rope);
    hm_tensor c = slice(s->kv, 1, 0, z->kv_latent), k_pe = slice(s->kv, 1, z->kv_latent, z->rope);
    linear(b, "q_a", s->latent, s->x, l->q_a);
    rms_norm(b, "q_norm", s->latent, s->latent, l->q_norm);
    linear(b, "q_b", flat(s->q), s->latent, l->q_b);
    linear(b, "kv_a", s->kv, s->x, l->kv_a);
    rms_norm(b, "kv_norm", s->kv_c, c, l->kv_norm);
    rotate(b, "rope", q_pe, with_one(k_pe, 1), in->positions, HM_PAIR_INTERLEAVED);
    linear_of_heads(b, "w_uk", s->ql_nope, q_nope, l->w_uk);
    CALL(concat_mla_q, "concat", .q_out = s->q_out, .ql_nope = s->ql_nope, .q_pe = q_pe);
    CALL(concat_and_cache_mla, "cache", .kv_cache = cache, .kv_c = s->kv_c, .k_pe = k_pe, .slot_mapping = in->slots);
    select_keys(b, step, l, in, s);
    CALL(sparse_mla_decode, "attend", .out = s->attended, .q = s->q_out, .kv_cache = cache, .indices = s->selected,
         .scale = 1 / sqrt((double)(z->nope + z->rope)));
    linear_of_heads(b, "w_uv", s->values, s->attended, l->w_uv);
    linear(b, "o", s->x, flat(s->values), l->o);
}

/* x = mlp(x) */
static void mlp(hm_model_batch *b, const hm_model_layer *l, const hm_model_scratch *s) {
    linear(b, "gate_up", s->gate_up, s->x, l->gate_up);
    CALL(silu_and_mul, "silu", .out = s->gated, .x = s->gate_up);
    linear(b, "down", s->x, s->gated, l->down);
}

/* ---- a step ------------------------------------------------------------------------------------------------------ */

/* The inputs and the scratch, cut to the step's rows. */
static hm_model_inputs inputs_of(const hm_model_batch *b, const hm_model_step *step) {
    hm_model_inputs in = b->in;
    hm_tensor *each[] = {&in.ids, &in.positions, &in.slots, &in.request, &in.first, &in.last, &in.length};
    for (size_t i = 0; i < sizeof each / sizeof *each; i++) *each[i] = first_rows(*each[i], step->rows);
    in.cumulative = first_rows(in.cumulative, step->requests + 1);
    in.block_table = first_rows(in.block_table, step->requests);
    return in;
}

static hm_model_scratch scratch_of(const hm_model_batch *b, const hm_model_step *step) {
    hm_model_scratch s = b->scratch;
    hm_tensor *each = (hm_tensor *)&s;
    for (size_t i = 0; i < sizeof s / sizeof *each; i++) each[i] = first_rows(each[i], step->rows);
    /* A prompt sees the keys of its chunk, gathered side by side: as many as there are rows. */
    const int64_t logits[] = {step->rows, step->decode ? b->options.length : step->rows};
    s.index_logits = hm_tensor_of(s.index_logits.data, HM_F32, 2, logits);
    return s;
}

void hm_model_forward(hm_model_batch *b, const hm_model_step *step) {
    const hm_model *model = b->model;
    hm_model_inputs in = inputs_of(b, step);
    hm_model_scratch s = scratch_of(b, step);
    b->call = (hm_model_call){.decode = step->decode, .step = step->number, .layer = -1};
    CALL(embedding, "embed", .out = s.residual, .ids = in.ids, .table = model->embedding);
    for (int64_t i = 0; i < model->sizes.layers; i++) {
        const hm_model_layer *l = &model->layers[i];
        b->call.layer = i;
        if (i == 0) rms_norm(b, "attn_norm", s.x, s.residual, l->attn_norm);
        else add_and_norm(b, "attn_norm", s.x, s.residual, l->attn_norm);
        attention(b, step, l, &in, &s);
        add_and_norm(b, "mlp_norm", s.x, s.residual, l->mlp_norm);
        mlp(b, l, &s);
    }
    b->call.layer = -1;
    add_and_norm(b, "final_norm", s.x, s.residual, model->final_norm);
    linear(b, "head", s.logits, s.x, model->head);
}

void hm_model_make_rope(hm_model_batch *b) {
    b->call = (hm_model_call){.step = -1, .layer = -1};
    CALL(rope_table, "rope_table", .out = b->rope, .base = (double)b->model->sizes.rope_base);
}
