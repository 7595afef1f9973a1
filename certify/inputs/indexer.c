/* Requests whose last tokens are written now: positions, slots, lengths and blocks that belong together; some tokens are padding.
 * The cache holds keys of legal codes and scales. With the generator `stagnate` nothing is turned, and the scores of
 * keys that were in the cache separate the classes. */
#include <hallmark/indexer.h>
#include <stdlib.h>
#include <string.h>

#include "../../op/check.h"
#include "../../op/dtype.h"
#include "../inputs.h"
#include "logits.h"

static int64_t tokens_each(const hm_indexer_args *a) {
    int64_t batch = a->block_tables.shape[0];
    return batch > 0 ? a->q.shape[0] / batch : 1;
}

static int64_t most_of(const hm_indexer_args *a) {
    int64_t room = a->kv_cache.shape[1] * a->block_tables.shape[1];
    return room < a->logits.shape[1] ? room : a->logits.shape[1];
}

static void put_lengths(const hm_case_spec *spec, const hm_indexer_args *a, const hm_tensor *t) {
    int64_t most = most_of(a), n = hm_tensor_elements(t), next_n = tokens_each(a);
    const int64_t known[] = {most, next_n, most - 1, a->kv_cache.shape[1], a->kv_cache.shape[1] + 1, next_n - 1, 0};
    for (int64_t i = 0; i < n; i++) {
        int64_t b = t->ndim == 2 ? i / next_n : i;
        uint64_t r = hm_inputs_drawn(spec, "length", (uint64_t)b);
        int64_t length =
            b % 2 ? (int64_t)(r % (uint64_t)(most + 1)) : known[(uint64_t)(b / 2 + (int64_t)(spec->seed % 7)) % 7];
        if (hm_inputs_generator(spec, "index") || hm_inputs_generator(spec, "stagnate")) length = most;
        if (length > most) length = most;
        if (t->ndim == 2) length += i % next_n - next_n + 1; /* how many keys this token sees */
        if (hm_inputs_generator(spec, "out_of_range") && spec->seed % 4 == 0 && i == n - 1) length = most + 1;
        hm_inputs_put(t, i, length);
    }
}

/* Keys of request b, its new ones among them. */
static int64_t length_of(const hm_indexer_args *a, int64_t b) {
    const hm_tensor *t = &a->context_lens;
    int64_t n = t->ndim == 2 ? hm_inputs_get(t, (b + 1) * t->shape[1] - 1) : hm_inputs_get(t, b);
    int64_t most = a->kv_cache.shape[1] * a->block_tables.shape[1];
    return n < 0 ? 0 : n > most ? most : n;
}

/* Requests share no block as long as there are enough. */
static void put_blocks(const hm_case_spec *spec, const hm_indexer_args *a, const hm_tensor *t) {
    int64_t B = a->kv_cache.shape[1], n = a->kv_cache.shape[0], *order = malloc((size_t)(n + 1) * sizeof *order);
    if (order) hm_inputs_permutation(spec, "block_tables", n, order);
    for (int64_t i = 0; order && i < hm_tensor_elements(t); i++) {
        int64_t used = B ? (length_of(a, i / t->shape[1]) + B - 1) / B : 0;
        hm_inputs_put(t, i, i % t->shape[1] < used && n > 0 ? order[i % n] : HM_INPUTS_POISON);
    }
    free(order);
}

static void put_cache(const hm_case_spec *spec, const hm_indexer_args *a, const hm_tensor *t) {
    int64_t codes = t->shape[1] * 128, block = t->shape[1] * t->shape[2];
    hm_dtype format = a->code_format == HM_CODE_E4M3 ? HM_F8E4M3 : HM_F8E4M3FNUZ;
    for (int64_t i = 0; i < t->shape[0] * block; i++) {
        uint64_t r = hm_inputs_drawn(spec, "kv_cache", (uint64_t)i);
        double sum = 0;
        for (int k = 0; k < 4; k++) sum += (double)(r >> 16 * k & 0xFFFF) - 32767.5;
        int64_t at = i % block - codes;
        if (at < 0) hm_inputs_put(t, i, hm_store8(format, sum / 600, HM_OVERFLOW_SATURATE));
        if (at < 0 || at % 4) continue;
        float scale = 0.0078125f * (float)(1 << r % 2);
        uint8_t bytes[4];
        memcpy(bytes, &scale, sizeof scale);
        for (int k = 0; k < 4 && at + k < block - codes; k++) hm_inputs_put(t, i + k, bytes[k]);
    }
}

/* Where token t's key goes; -1: it is padding. */
static int64_t slot_of(const hm_case_spec *spec, const hm_indexer_args *a, int64_t t) {
    int64_t next_n = tokens_each(a), b = t / next_n, B = a->kv_cache.shape[1],
            p = length_of(a, b) - next_n + t % next_n;
    if (p < 0 || B < 1) return -1;
    if (!hm_inputs_generator(spec, "index") && hm_inputs_below(spec, "padding", (uint64_t)t, 9) == 0) return -1;
    return hm_inputs_get(&a->block_tables, b * a->block_tables.shape[1] + p / B) * B + p % B;
}

static bool put_no_angle(const hm_case_spec *spec, const hm_tensor *t) {
    int64_t rotary = t->shape[1], size = (int64_t)hm_dtype_size(t->dtype);
    if (!hm_inputs_generator(spec, "stagnate")) return false;
    for (int64_t i = 0; i < hm_tensor_elements(t); i++)
        hm_store(t->dtype, (char *)t->data + (i / rotary * t->stride[0] + i % rotary * t->stride[1]) * size,
                 i % rotary < rotary / 2 ? 1 : 0);
    return true;
}

static bool fill(const hm_case_spec *spec, int arg, const void *args) {
    const hm_indexer_args *a = args;
    const char *name = spec->op->args[arg].name;
    const hm_tensor *t = hm_arg_tensor(spec->op, args, arg);
    bool bad = hm_inputs_generator(spec, "out_of_range");
    bool sound = a->q.ndim == 3 && a->kv_cache.ndim == 3 && a->block_tables.ndim == 2 && a->logits.ndim == 2 &&
                 a->block_tables.shape[0] > 0 && a->block_tables.shape[1] > 0 && a->context_lens.dtype == HM_I32 &&
                 a->block_tables.dtype == HM_I32 && (a->context_lens.ndim == 1 || a->context_lens.ndim == 2) &&
                 a->context_lens.shape[0] == a->block_tables.shape[0];
    if (!strcmp(name, "q") && t->ndim == 3 && hm_is_float(t->dtype))
        return hm_inputs_stagnate_codes(spec, t, a->q.shape[1]);
    if (!strcmp(name, "weights") && hm_is_float(t->dtype)) return hm_inputs_stagnate_weights(spec, t);
    if (!strcmp(name, "cos_sin_cache") && t->ndim == 2 && hm_is_float(t->dtype)) return put_no_angle(spec, t);
    if (!strcmp(name, "context_lens")) {
        if (sound) put_lengths(spec, a, t);
        return true;
    }
    if (!strcmp(name, "block_tables")) {
        if (sound) put_blocks(spec, a, t);
        return true;
    }
    if (!strcmp(name, "positions") && t->dtype == HM_I64 && t->ndim == 1 && a->cos_sin_cache.ndim == 2) {
        int64_t next_n = sound ? tokens_each(a) : 1, rows = a->cos_sin_cache.shape[0];
        for (int64_t i = 0; i < t->shape[0]; i++) {
            int64_t base = hm_inputs_below(spec, name, (uint64_t)(i / (next_n > 0 ? next_n : 1)), rows);
            hm_inputs_put(t, i, rows > 0 ? (base + i % (next_n > 0 ? next_n : 1)) % rows : 0);
        }
        if (bad && spec->seed % 4 == 1 && t->shape[0] > 0) hm_inputs_put(t, t->shape[0] - 1, rows);
        return true;
    }
    if (!strcmp(name, "slot_mapping") && t->dtype == HM_I64 && t->ndim == 1) {
        for (int64_t i = 0; sound && i < t->shape[0]; i++) hm_inputs_put(t, i, slot_of(spec, a, i));
        if (sound && bad && spec->seed % 4 == 2)
            hm_inputs_put(t, t->shape[0] - 1, a->kv_cache.shape[0] * a->kv_cache.shape[1]);
        if (sound && bad && spec->seed % 4 == 3 && t->shape[0] > 1) hm_inputs_put(t, 0, 1), hm_inputs_put(t, 1, 1);
        return true;
    }
    if (strcmp(name, "kv_cache")) return false;
    if (!sound || t->dtype != HM_U8) return true;
    put_cache(spec, a, t);
    hm_inputs_stagnate_cache(spec, t, a->layout, a->code_format == HM_CODE_E4M3 ? HM_F8E4M3 : HM_F8E4M3FNUZ);
    return true;
}

const hm_inputs hm_indexer_inputs = {"indexer", fill, NULL, 0};
