/* The bugs of indexer: the chain through the references of its steps, with one of them, or what is between them, changed. */
#include "../../op/indexer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../op/dtype.h"
#include "common.h"
#include "tables.h"

#define OP "indexer"

typedef struct {
    enum {
        NORM_AS_DECLARED = 0,
        NORM_DROPPED,
        NORM_BEHIND_ROTATION,
        NORM_WITHOUT_MEAN, /* of squares */
        NORM_WITHOUT_WEIGHT,
        NORM_WITHOUT_BIAS,
        NORM_EPS_1E5
    } norm;
    enum {
        ROTARY_AS_DECLARED = 0,
        ROTARY_DROPPED,
        ROTARY_OF_Q_DROPPED,
        ROTARY_OF_K_DROPPED,
        ROTARY_OTHER_PART,
        ROTARY_OTHER_PAIRING,
        ROTARY_PAIRING_OF_Q,
        ROTARY_TWICE,
        ROTARY_INVERSE,
        ROTARY_EACH,
        ROTARY_POSITION_0,
        ROTARY_NEXT_POSITION,
        ROTARY_POSITION_OF_TOKEN_0,
        ROTARY_HEAD_0,
        ROTARY_BEHIND_QUANTISATION,
        ROTARY_TABLE_BF16
    } rotary;
    enum {
        WRITE_AS_DECLARED = 0,
        WRITE_DROPPED,
        WRITE_BEHIND_SCORES,
        WRITE_OTHER_LAYOUT,
        WRITE_F32_SCALE,
        WRITE_FLOOR,
        WRITE_FLOOR_OF_QUERIES,
        WRITE_HALF_SCALE,
        WRITE_UNROTATED_TOO, /* into the padding slot's neighbour: a padded token's key goes to slot 0 */
        WRITE_NEXT_SLOT
    } write;
    enum {
        QUERY_AS_DECLARED = 0,
        QUERY_F32_SCALE,
        QUERY_FLOOR_OF_KEYS,
        QUERY_SCALE_NOT_FOLDED,
        QUERY_SCALE_OF_HEAD_0,
        QUERY_OTHER_DIVISOR,
        QUERY_OTHER_FORMAT,
        QUERY_WEIGHTS_UNSCALED,
        QUERY_WEIGHTS_OF_TOKEN_0,
        QUERY_OF_TOKEN_0
    } query;
    enum {
        SCORE_AS_DECLARED = 0,
        SCORE_OTHER_LAYOUT,
        SCORE_OWN_KEY_HIDDEN,
        SCORE_NEXT_N_IGNORED,
        SCORE_TABLE_OF_REQUEST_0
    } score;
    enum {
        SELECT_AS_DECLARED = 0,
        SELECT_SMALLEST,
        SELECT_SLOTS,
        SELECT_LENGTH_LESS_1,
        SELECT_PADDED_0,
        SELECT_FROM_ONE,
        SELECT_WITHOUT_LAST,
        SELECT_MOST_RECENT,
        SELECT_TWICE
    } select;
    enum {
        EFFECT_NONE = 0,
        EFFECT_Q_ROTATED,
        EFFECT_K_NORMED,
        EFFECT_EMPTY_REFUSED,
        EFFECT_LOGITS_LEFT,
        EFFECT_BF16_LOGITS
    } effect;
    hm_fault_checks checks;
} variation;

typedef struct {
    const variation *v;
    hm_indexer_args a;
    hm_indexer_steps s;
    int64_t tokens, heads;
    int64_t *positions; /* [tokens] */
    char *spare;        /* as much memory again as there is between the steps */
    float *table;
    double *row;
} walk;

static int64_t size_of(const hm_tensor *t) { return hm_tensor_elements(t) * (int64_t)hm_dtype_size(t->dtype); }
static double at(const hm_tensor *t, int64_t i) {
    return hm_load(t->dtype, (char *)t->data + i * (int64_t)hm_dtype_size(t->dtype));
}
static void set(const hm_tensor *t, int64_t i, double v) {
    hm_store(t->dtype, (char *)t->data + i * (int64_t)hm_dtype_size(t->dtype), v);
}

/* Element i of a tensor of any strides, as a dense one has it. */
static double given(const hm_tensor *t, int64_t i) {
    int64_t offset = 0;
    for (int d = t->ndim - 1; d >= 0; d--) offset += i % t->shape[d] * t->stride[d], i /= t->shape[d];
    return hm_fault_load(t, offset);
}

static void norm(walk *w, const hm_tensor *x) {
    enum { D = HM_INDEXER_GROUP };
    hm_layer_norm_args n = w->s.norm;
    n.x = *x;
    if (w->v->norm == NORM_WITHOUT_WEIGHT) n.weight = (hm_tensor){0};
    if (w->v->norm == NORM_WITHOUT_BIAS) n.bias = (hm_tensor){0};
    if (w->v->norm == NORM_EPS_1E5) n.eps = 1e-5;
    bool own = w->v->norm == NORM_DROPPED || w->v->norm == NORM_WITHOUT_MEAN;
    if (!own) {
        hm_layer_norm_ref(&n);
        return;
    }
    for (int64_t t = 0; t < w->tokens; t++) {
        double squares = 0;
        for (int64_t d = 0; d < D; d++) squares += given(x, t * D + d) * given(x, t * D + d);
        double rs = w->v->norm == NORM_DROPPED ? 1 : 1 / sqrt(squares / D + w->a.eps);
        for (int64_t d = 0; d < D; d++) {
            double y = given(x, t * D + d) * rs;
            if (w->v->norm == NORM_WITHOUT_MEAN) {
                if (w->a.k_weight.dtype) y *= given(&w->a.k_weight, d);
                if (w->a.k_bias.dtype) y += given(&w->a.k_bias, d);
            }
            set(&n.out, t * D + d, y);
        }
    }
}

static void copy_dense(const hm_tensor *from, const hm_tensor *to) {
    for (int64_t i = 0; i < hm_tensor_elements(to); i++) set(to, i, given(from, i));
}

static void rotate(walk *w) {
    hm_rotary_embedding_args r = w->s.rotary;
    int64_t rotary = w->a.cos_sin_cache.shape[1], rows = w->a.cos_sin_cache.shape[0];
    for (int64_t t = 0; t < w->tokens; t++) {
        int64_t p = hm_integer_at(&w->a.positions, w->v->rotary == ROTARY_POSITION_OF_TOKEN_0 ? 0 : t);
        if (w->v->rotary == ROTARY_POSITION_0) p = 0;
        if (w->v->rotary == ROTARY_NEXT_POSITION) p = (p + 1) % rows;
        w->positions[t] = p;
    }
    r.positions = (hm_tensor){
        .data = w->positions, .dtype = HM_I64, .place = HM_HOST, .ndim = 1, .shape = {w->tokens}, .stride = {1}};
    if (w->v->rotary == ROTARY_OTHER_PART)
        r.rope_dim_offset = r.rope_dim_offset + rotary <= HM_INDEXER_GROUP - rotary ? r.rope_dim_offset + rotary : 0;
    if (w->v->rotary == ROTARY_OTHER_PAIRING || w->v->rotary == ROTARY_PAIRING_OF_Q)
        r.pairing = r.pairing == HM_PAIR_HALF_SPLIT ? HM_PAIR_INTERLEAVED : HM_PAIR_HALF_SPLIT;
    if (w->v->rotary == ROTARY_INVERSE) r.inverse = HM_ROTATE_INVERSE;
    if (w->v->rotary == ROTARY_EACH) r.round = HM_ROTARY_EACH;
    if (w->v->rotary == ROTARY_TABLE_BF16) { /* rounded to bf16, kept in f32 */
        for (int64_t i = 0; i < rows * rotary; i++)
            w->table[i] = (float)hm_round_to(HM_BF16, given(&w->a.cos_sin_cache, i));
        r.cos_sin_cache = (hm_tensor){.data = w->table,
                                      .dtype = HM_F32,
                                      .place = HM_HOST,
                                      .ndim = 2,
                                      .shape = {rows, rotary},
                                      .stride = {rotary, 1}};
    }
    hm_rotary_embedding_ref(&r);
    if (w->v->rotary == ROTARY_TWICE) {
        r.query = r.query_out, r.key = r.key_out;
        hm_rotary_embedding_ref(&r);
    }
    bool all = w->v->rotary == ROTARY_DROPPED || w->v->rotary == ROTARY_BEHIND_QUANTISATION;
    if (all || w->v->rotary == ROTARY_OF_Q_DROPPED) copy_dense(&w->a.q, &w->s.q_rotated);
    if (all || w->v->rotary == ROTARY_OF_K_DROPPED) copy_dense(&w->s.k_normed, &w->s.k_rotated);
    if (w->v->rotary == ROTARY_PAIRING_OF_Q) { /* keys as declared */
        r = w->s.rotary;
        hm_tensor q = w->s.q_rotated;
        q.data = w->spare, r.query_out = q;
        hm_rotary_embedding_ref(&r);
    }
    for (int64_t i = 0; i < hm_tensor_elements(&w->s.q_rotated) && w->v->rotary == ROTARY_HEAD_0; i++)
        if (i / HM_INDEXER_GROUP % w->heads) set(&w->s.q_rotated, i, given(&w->a.q, i));
}

/* Quantised, rotated as the codes' values, and quantised again. */
static void rotate_codes(walk *w) {
    hm_rotary_embedding_args r = w->s.rotary;
    enum { D = HM_INDEXER_GROUP };
    for (int64_t i = 0; i < hm_tensor_elements(&w->s.q_rotated); i++)
        set(&w->s.q_rotated, i, at(&w->s.q_codes, i) * at(&w->s.q_scale, i / D));
    r.query = w->s.q_rotated;
    hm_rotary_embedding_ref(&r); /* in place; the keys, too */
    hm_quant_fp8_group_ref(&w->s.quant);
}

static void quantise(walk *w) {
    hm_quant_fp8_group_args q = w->s.quant;
    if (w->v->query == QUERY_F32_SCALE) q.scale_format = HM_SCALE_F32;
    if (w->v->query == QUERY_FLOOR_OF_KEYS) q.floor = 1e-4;
    if (w->v->query == QUERY_OTHER_DIVISOR) q.divisor = w->a.code_format == HM_CODE_E4M3 ? 224 : 448;
    if (w->v->query == QUERY_OF_TOKEN_0) q.x.stride[0] = 0;
    hm_quant_fp8_group_ref(&q);
    if (w->v->rotary == ROTARY_BEHIND_QUANTISATION) rotate_codes(w);
    hm_index_weights_args i = w->s.weigh;
    if (w->v->query == QUERY_WEIGHTS_OF_TOKEN_0) i.weights.stride[0] = 0;
    if (w->v->query == QUERY_SCALE_OF_HEAD_0) i.q_scale.stride[1] = 0;
    if (w->v->query == QUERY_SCALE_NOT_FOLDED) i.q_scale = (hm_tensor){0};
    hm_index_weights_ref(&i);
    for (int64_t k = 0; k < hm_tensor_elements(&i.out) && w->v->query == QUERY_WEIGHTS_UNSCALED; k++)
        set(&i.out, k, given(&w->a.weights, k) * at(&w->s.q_scale, k));
    if (w->v->query == QUERY_OTHER_FORMAT)
        for (int64_t k = 0; k < size_of(&w->s.q_codes); k++) {
            unsigned char *c = (unsigned char *)w->s.q_codes.data + k;
            *c =
                hm_store8(w->s.q_codes.dtype, hm_load8(w->s.q_codes.dtype == HM_F8E4M3 ? HM_F8E4M3FNUZ : HM_F8E4M3, *c),
                          HM_OVERFLOW_SATURATE);
        }
}

static void write_keys(walk *w) {
    hm_indexer_k_quant_and_cache_args k = w->s.write;
    if (w->v->write == WRITE_DROPPED) return;
    if (w->v->write == WRITE_OTHER_LAYOUT)
        k.layout =
            k.layout == HM_LAYOUT_NORMAL && w->a.kv_cache.shape[1] % 16 == 0 ? HM_LAYOUT_SHUFFLE : HM_LAYOUT_NORMAL;
    if (w->v->write == WRITE_F32_SCALE) k.scale_format = HM_SCALE_F32;
    if (w->v->write == WRITE_FLOOR) k.floor = 4;
    if (w->v->write == WRITE_FLOOR_OF_QUERIES) k.floor = 1e-10;
    if (w->v->write == WRITE_HALF_SCALE) /* elements twice as large */
        for (int64_t i = 0; i < hm_tensor_elements(&w->s.k_rotated); i++)
            set(&w->s.k_rotated, i, 2 * at(&w->s.k_rotated, i));
    int64_t capacity = w->a.kv_cache.shape[0] * w->a.kv_cache.shape[1], used = 0;
    for (int64_t t = 0; t < w->tokens; t++) {
        int64_t slot = hm_integer_at(&w->a.slot_mapping, t);
        if (w->v->write == WRITE_UNROTATED_TOO && slot < 0) slot = used++ ? -1 : capacity - 1;
        if (w->v->write == WRITE_NEXT_SLOT && slot >= 0) slot = (slot + 1) % capacity;
        w->positions[t] = slot;
    }
    k.slot_mapping = (hm_tensor){
        .data = w->positions, .dtype = HM_I64, .place = HM_HOST, .ndim = 1, .shape = {w->tokens}, .stride = {1}};
    hm_indexer_k_quant_and_cache_ref(&k);
}

static void score(walk *w) {
    hm_fp8_paged_mqa_logits_args s = w->s.score;
    int32_t *lens = (int32_t *)w->s.lens.data;
    int64_t next_n = s.q.shape[1];
    if (w->v->score == SCORE_OTHER_LAYOUT)
        s.layout =
            s.layout == HM_LAYOUT_NORMAL && w->a.kv_cache.shape[1] % 16 == 0 ? HM_LAYOUT_SHUFFLE : HM_LAYOUT_NORMAL;
    if (w->v->score == SCORE_TABLE_OF_REQUEST_0) {
        bool enough = true; /* whose table may be shorter */
        int64_t most = lens[next_n - 1], B = w->a.kv_cache.shape[1];
        for (int64_t t = 0; t < w->tokens; t++) enough &= (lens[t] + B - 1) / B <= (most + B - 1) / B;
        if (enough) s.block_tables.stride[0] = 0;
    }
    if (w->v->score == SCORE_OWN_KEY_HIDDEN || w->v->score == SCORE_NEXT_N_IGNORED) {
        for (int64_t t = 0; t < w->tokens; t++) {
            if (w->v->score == SCORE_OWN_KEY_HIDDEN && lens[t] > 0) lens[t]--;
            else if (w->v->score == SCORE_NEXT_N_IGNORED) lens[t] = lens[t / next_n * next_n + next_n - 1];
        }
        s.context_lens = (hm_tensor){.data = lens,
                                     .dtype = HM_I32,
                                     .place = HM_HOST,
                                     .ndim = 2,
                                     .shape = {s.q.shape[0], next_n},
                                     .stride = {next_n, 1}};
    }
    if (w->v->effect == EFFECT_LOGITS_LEFT) s.outside = HM_LOGITS_LEAVE;
    hm_fp8_paged_mqa_logits_ref(&s);
}

static void store_index(const walk *w, int64_t t, int64_t i, int32_t v) {
    hm_fault_store_raw(&w->a.indices, t * w->a.indices.stride[0] + i * w->a.indices.stride[1], 0, &v);
}

static int32_t index_at(const walk *w, int64_t t, int64_t i) {
    int32_t v;
    hm_fault_load_raw(&w->a.indices, t * w->a.indices.stride[0] + i * w->a.indices.stride[1], &v);
    return v;
}

static void select_keys(walk *w) {
    const hm_tensor *logits = &w->a.logits;
    int32_t *lens = (int32_t *)w->s.lens.data;
    int64_t k = w->a.indices.shape[1], width = logits->shape[1], next_n = w->s.score.q.shape[1],
            B = w->a.kv_cache.shape[1];
    hm_top_k_per_row_args s = w->s.select;
    for (int64_t t = 0; t < w->tokens && w->v->select == SELECT_LENGTH_LESS_1; t++) lens[t] -= lens[t] > 0;
    if (w->v->select == SELECT_SMALLEST) { /* of the negated logits, which are put aside */
        s.logits = (hm_tensor){.data = w->row,
                               .dtype = HM_F32,
                               .place = HM_HOST,
                               .ndim = 2,
                               .shape = {w->tokens, width},
                               .stride = {width, 1}};
        for (int64_t i = 0; i < w->tokens * width; i++) ((float *)w->row)[i] = -(float)given(logits, i);
    }
    hm_top_k_per_row_ref(&s);
    for (int64_t t = 0; t < w->tokens; t++)
        for (int64_t i = 0; i < k; i++) {
            int32_t v = index_at(w, t, i), n = lens[t];
            if (w->v->select == SELECT_SLOTS && v >= 0)
                v = (int32_t)(hm_integer_at2(&w->a.block_tables, t / next_n, v / B) * B + v % B);
            if (w->v->select == SELECT_PADDED_0 && v < 0) v = 0;
            if (w->v->select == SELECT_FROM_ONE && v >= 0) v++;
            if (w->v->select == SELECT_WITHOUT_LAST && i == k - 1) continue;
            if (w->v->select == SELECT_MOST_RECENT && n > k) v = n - 1 - (int32_t)i;
            if (w->v->select == SELECT_TWICE && i == 1 && v >= 0) v = index_at(w, t, 0);
            store_index(w, t, i, v);
        }
    if (w->v->select == SELECT_WITHOUT_LAST && k > 0)
        for (int64_t t = 0; t < w->tokens; t++) store_index(w, t, k - 1, 0x5A5A5A5A);
}

static void effects(const walk *w) {
    const hm_tensor *to = w->v->effect == EFFECT_Q_ROTATED ? &w->a.q : &w->a.k,
                    *from = w->v->effect == EFFECT_Q_ROTATED ? &w->s.q_rotated : &w->s.k_normed;
    if (w->v->effect != EFFECT_Q_ROTATED && w->v->effect != EFFECT_K_NORMED) return;
    for (int64_t i = 0; i < hm_tensor_elements(to); i++) {
        int64_t offset = 0, rest = i;
        for (int d = to->ndim - 1; d >= 0; d--) offset += rest % to->shape[d] * to->stride[d], rest /= to->shape[d];
        hm_fault_store_raw(to, offset, 0, (char *)from->data + 2 * i);
    }
}

static void chain(walk *w) {
    bool late = w->v->write == WRITE_BEHIND_SCORES;
    norm(w, &w->a.k);
    rotate(w);
    if (w->v->norm == NORM_BEHIND_ROTATION) { /* the key rotated as it came, then normalised */
        hm_tensor kept = w->s.k_normed;
        copy_dense(&w->a.k, &w->s.k_normed);
        rotate(w);
        hm_tensor rotated = w->s.k_rotated;
        norm(w, &rotated);
        memcpy(w->s.k_rotated.data, kept.data, (size_t)size_of(&kept));
    }
    quantise(w);
    if (!late) write_keys(w);
    score(w);
    if (late) write_keys(w);
    select_keys(w);
    effects(w);
}

static hm_status run(const void *v, const void *args, hm_dtype written[HM_MAX_ARGS]) {
    walk w = {.v = v};
    hm_status status;
    if (hm_fault_checked(OP, w.v->checks, args, &status)) return status;
    if ((status = hm_indexer_read(args, &w.a))) return status;
    w.tokens = w.a.q.shape[0], w.heads = w.a.q.shape[1];
    if (w.tokens == 0) return w.v->effect == EFFECT_EMPTY_REFUSED ? HM_BAD_SHAPE : HM_OK;
    size_t bytes = hm_indexer_memory(&w.a);
    bool table = w.v->rotary == ROTARY_TABLE_BF16;
    void *memory = calloc(2, bytes);
    w.positions = calloc((size_t)w.tokens, sizeof *w.positions);
    w.row = malloc((size_t)(w.tokens * w.a.logits.shape[1] + 2) * sizeof(float));
    w.table = malloc(table ? (size_t)(hm_tensor_elements(&w.a.cos_sin_cache) + 1) * sizeof *w.table : 1);
    if (memory && w.positions && w.row && w.table) {
        w.spare = (char *)memory + bytes;
        hm_indexer_take_apart(&w.a, memory, &w.s);
        chain(&w);
    } else {
        status = HM_NO_MEMORY;
    }
    if (w.v->effect == EFFECT_BF16_LOGITS) written[hm_fault_arg(OP, "logits")] = HM_BF16;
    free(memory), free(w.positions), free(w.row), free(w.table);
    return status;
}

#define FAULT(what, covers, reference, sentence, fix, ...) \
    { OP "." what, OP, covers, reference, sentence, fix, NULL, run, &(const variation){__VA_ARGS__}, false }

const hm_fault hm_indexer_faults[] = {
    FAULT("rotation_dropped", "indexer.S2 F1 F4", "vllm#43781",
          "the rotated q and k are dropped: what is quantised is not rotated", "use what the rotary module returns",
          .rotary = ROTARY_DROPPED),
    FAULT("rotation_of_q_dropped", "indexer.S2 F1", "vllm#43781", "the rotated q is dropped", "use it",
          .rotary = ROTARY_OF_Q_DROPPED),
    FAULT("rotation_of_k_dropped", "indexer.S2 F1", "vllm#43781", "the rotated k is dropped", "use it",
          .rotary = ROTARY_OF_K_DROPPED),
    FAULT("other_part_rotated", "indexer.S3 E2", "vllm#43781; vllm#43676",
          "elements behind the rotary part are rotated", "use rope_dim_offset", .rotary = ROTARY_OTHER_PART),
    FAULT("other_pairing", "indexer.S4 P1 P2", "vllm#43781; vllm#28968; transformers#46842",
          "the other pairing in q and k", "take it from the indexer's configuration, not from the layer's",
          .rotary = ROTARY_OTHER_PAIRING),
    FAULT("other_pairing_in_q", "indexer.S4 P1", "vllm-ascend#4641", "the other pairing in q alone", "use one for both",
          .rotary = ROTARY_PAIRING_OF_Q),
    FAULT("rotated_twice", "", "", "q and k are rotated twice", "rotate once", .rotary = ROTARY_TWICE),
    FAULT("rotated_backward", "", "", "q and k are rotated by minus the angle", "mind the sign",
          .rotary = ROTARY_INVERSE),
    FAULT("rotation_rounded_each", "A13", "pytorch#159239", "every product of the rotation is rounded", "round once",
          .rotary = ROTARY_EACH),
    FAULT("position_0", "", "", "every token is rotated as the first", "use its position", .rotary = ROTARY_POSITION_0),
    FAULT("next_position", "", "", "tokens are rotated one position too far", "count from 0",
          .rotary = ROTARY_NEXT_POSITION),
    FAULT("position_of_token_0", "", "", "every token has the position of the first", "use its own",
          .rotary = ROTARY_POSITION_OF_TOKEN_0),
    FAULT("head_0_rotated", "E3", "aprender#2079", "only the first head of q is rotated", "rotate all",
          .rotary = ROTARY_HEAD_0),
    FAULT("rotated_behind_quantisation", "indexer.S5", "vllm#43781", "q is quantised, then rotated and quantised again",
          "rotate first", .rotary = ROTARY_BEHIND_QUANTISATION),
    FAULT("table_bf16", "C6", "flashinfer#585", "an f32 table is rounded to bf16", "read it as it is",
          .rotary = ROTARY_TABLE_BF16),
    FAULT("norm_dropped", "", "", "keys are not normalised", "normalise them", .norm = NORM_DROPPED),
    FAULT("norm_behind_rotation", "indexer.S5", "vllm#43781", "keys are rotated before the norm", "normalise first",
          .norm = NORM_BEHIND_ROTATION),
    FAULT("norm_without_mean", "", "", "an RMS norm in place of the layer norm", "subtract the mean",
          .norm = NORM_WITHOUT_MEAN),
    FAULT("norm_without_weight", "", "", "the norm's weight is left out", "multiply by it",
          .norm = NORM_WITHOUT_WEIGHT),
    FAULT("norm_without_bias", "", "", "the norm's bias is left out", "add it", .norm = NORM_WITHOUT_BIAS),
    FAULT("norm_eps_1e-5", "G1", "cutlass#1112", "the eps of the norm is 1e-5, whatever was asked for", "pass it on",
          .norm = NORM_EPS_1E5),
    FAULT("key_not_written", "E7 F4", "vllm-ascend#6558", "the new keys are not written", "write them",
          .write = WRITE_DROPPED),
    FAULT("written_behind_scores", "L8", "1bit-MONSTER#870",
          "the new keys are written after the scores: a token does not see itself", "write first",
          .write = WRITE_BEHIND_SCORES),
    FAULT("writer_other_layout", "D1 indexer.S1b", "vllm#43781",
          "keys are written in tiles where rows are declared, or rows where tiles", "take the layout from one place",
          .write = WRITE_OTHER_LAYOUT),
    FAULT("key_scale_f32", "H1", "sglang#28418", "scales of keys are no powers of two", "round them up",
          .write = WRITE_F32_SCALE),
    FAULT("key_floor_4", "trap.12", "", "the floor under a key's magnitude is 4", "1e-4", .write = WRITE_FLOOR),
    FAULT("key_floor_of_queries", "trap.12", "", "the floor under a key's magnitude is that of queries, 1e-10", "1e-4",
          .write = WRITE_FLOOR_OF_QUERIES),
    FAULT("key_scale_doubled", "indexer.S6", "vllm#43781", "scales of keys are twice as large",
          "use the divisor of the format", .write = WRITE_HALF_SCALE),
    FAULT("padding_written", "J9", "vllm#43810; vllm#43869", "a padded token is written to the last slot", "skip it",
          .write = WRITE_UNROTATED_TOO),
    FAULT("next_slot", "", "", "keys go to the slot behind theirs", "count from 0", .write = WRITE_NEXT_SLOT),
    FAULT("query_scale_f32", "H1", "sglang#28418", "scales of queries are no powers of two", "round them up",
          .query = QUERY_F32_SCALE),
    FAULT("query_floor_of_keys", "trap.12", "", "the floor under a query's magnitude is that of keys, 1e-4", "1e-10",
          .query = QUERY_FLOOR_OF_KEYS),
    FAULT("query_scale_not_folded", "H14", "sglang#20705", "the scale of a query is lost", "fold it into the weights",
          .query = QUERY_SCALE_NOT_FOLDED),
    FAULT("query_scale_of_head_0", "D15", "composable_kernel#3765", "every head has the scale of the first",
          "use its own", .query = QUERY_SCALE_OF_HEAD_0),
    FAULT("query_divisor", "indexer.S6", "vllm#43781", "queries are divided by the largest value of the other format",
          "by that of their own", .query = QUERY_OTHER_DIVISOR),
    FAULT("query_format", "H9 H10", "vllm#52109; aiter#3807", "codes of queries are read in the other format",
          "in their own", .query = QUERY_OTHER_FORMAT),
    FAULT("weights_unscaled", "", "", "weights lack (heads head_dim)^-1/2", "multiply by it",
          .query = QUERY_WEIGHTS_UNSCALED),
    FAULT("weights_of_token_0", "", "", "every token has the weights of the first", "use its own",
          .query = QUERY_WEIGHTS_OF_TOKEN_0),
    FAULT("query_of_token_0", "N3", "aiter#3013", "every token has the query of the first", "use its own",
          .query = QUERY_OF_TOKEN_0),
    FAULT("reader_other_layout", "D1 indexer.S1b indexer.S1c", "vllm#43781", "keys are read in the other layout",
          "take the layout from one place", .score = SCORE_OTHER_LAYOUT),
    FAULT("own_key_hidden", "trap.15 J3", "MinivLLM#76", "a token does not see its own key", "the length counts it",
          .score = SCORE_OWN_KEY_HIDDEN),
    FAULT("next_n_ignored", "J4", "transformers#29623", "every token of a request sees all of its keys",
          "each sees one more than the one before", .score = SCORE_NEXT_N_IGNORED),
    FAULT("table_of_request_0", "D17 D19", "sglang#12583; TensorRT-LLM#17240",
          "every request reads the blocks of the first", "its own", .score = SCORE_TABLE_OF_REQUEST_0),
    FAULT("smallest_selected", "", "", "the smallest logits are selected", "the largest", .select = SELECT_SMALLEST),
    FAULT("slots_selected", "trap.16", "", "slots in place of positions", "leave the translation to its op",
          .select = SELECT_SLOTS),
    FAULT("last_key_not_selected", "J3", "MinivLLM#76", "the last key is never selected", "fix the bound",
          .select = SELECT_LENGTH_LESS_1),
    FAULT("padded_with_0", "M5", "cudnn-frontend#410", "places without a key hold 0", "-1", .select = SELECT_PADDED_0),
    FAULT("indices_from_1", "", "", "indices count from 1", "from 0", .select = SELECT_FROM_ONE),
    FAULT("last_index_left", "", "", "the last index is not written", "write all", .select = SELECT_WITHOUT_LAST),
    FAULT("most_recent_selected", "", "", "the most recent keys are selected, whatever their scores",
          "look at the scores", .select = SELECT_MOST_RECENT),
    FAULT("selected_twice", "M1", "vllm#51782", "one index occurs twice, another is dropped", "select distinct ones",
          .select = SELECT_TWICE),
    FAULT("q_overwritten", "F5", "unsloth#5001", "q is rotated where it lies", "it is an input",
          .effect = EFFECT_Q_ROTATED),
    FAULT("k_overwritten", "F5", "unsloth#5001", "k is normalised where it lies", "it is an input",
          .effect = EFFECT_K_NORMED),
    FAULT("empty_refused", "J5", "sglang#32065", "a call without tokens is refused", "return ok",
          .effect = EFFECT_EMPTY_REFUSED),
    FAULT("logits_not_cleaned", "E7", "vllm-ascend#6558", "logits without a key keep what they held", "-inf",
          .effect = EFFECT_LOGITS_LEFT),
    FAULT("logits_bf16", "", "", "logits come back in bf16", "write f32", .effect = EFFECT_BF16_LOGITS),
    FAULT("param_not_checked", "", "", "an eps below 0, or a rotation past the head, is taken without an error",
          "check it", .checks = HM_CHECKS_NOT_PARAM),
    FAULT("values_not_checked", "", "", "a position, slot, length or block out of range is taken without an error",
          "check them", .checks = HM_CHECKS_NOT_VALUE),
    HM_CHECK_FAULTS(FAULT),
};
const int hm_indexer_fault_count = sizeof hm_indexer_faults / sizeof *hm_indexer_faults;
