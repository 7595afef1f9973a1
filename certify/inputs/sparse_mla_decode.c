/* Indices of every kind: none at all, none for a while, one alone, one twice; behind topk_length poison. Slots that no index
 * names hold NaN. */
#include <hallmark/sparse_mla_decode.h>
#include <stdlib.h>
#include <string.h>

#include "../../op/dtype.h"
#include "../../op/mla_cache.h"
#include "../layout.h"
#include "attention.h"

static void put_lengths(const hm_case_spec *spec, const hm_sparse_mla_decode_args *a, const hm_tensor *t) {
    int64_t top_k = a->indices.shape[1], n = hm_tensor_elements(t),
            bad = hm_inputs_generator(spec, "out_of_range") && spec->seed % 2 ? hm_inputs_below(spec, "bad", 0, n) : -1;
    const int64_t known[] = {top_k, top_k - 1, 0, 1, top_k / 2, -1, INT32_MIN};
    for (int64_t i = 0; i < n; i++) {
        int64_t length = i % 2 ? hm_inputs_below(spec, "length", (uint64_t)i, top_k + 1)
                               : known[(uint64_t)(i / 2 + (int64_t)(spec->seed % 7)) % 7];
        hm_inputs_put(t, i,
                      i == bad                                                             ? top_k + 1
                      : hm_inputs_whole(spec) || hm_inputs_generator(spec, "out_of_range") ? top_k - i % 2
                                                                                           : length);
    }
}

static int64_t length_of(const hm_sparse_mla_decode_args *a, int64_t token) {
    return a->topk_length.dtype == HM_I32 && a->topk_length.ndim == 1 && token < a->topk_length.shape[0]
               ? hm_inputs_get(&a->topk_length, token)
               : a->indices.shape[1];
}

/* Slot k of those that may be named: every fifth is not. */
static int64_t nameable(int64_t k) { return k / 4 * 5 + k % 4 + 1; }

static void put_indices(const hm_case_spec *spec, const hm_sparse_mla_decode_args *a, const hm_tensor *t) {
    int64_t top_k = t->shape[1], capacity = a->kv_cache.shape[0] * a->kv_cache.shape[1], many = capacity / 5 * 4;
    static const int64_t none[] = {-1, -1, -2, INT32_MIN};
    bool exact = hm_inputs_generator(spec, "exact") || hm_inputs_generator(spec, "ties");
    for (int64_t token = 0; token < t->shape[0]; token++) {
        int64_t n = length_of(a, token), kind = hm_inputs_whole(spec) ? 0 : (token + (int64_t)(spec->seed % 8)) % 8,
                won = 0;
        for (int64_t i = 0; i < top_k; i++) {
            uint64_t r = hm_inputs_drawn(spec, "indices", (uint64_t)(token * top_k + i));
            int64_t slot = many > 0 ? nameable((int64_t)(r / 64 % (uint64_t)many)) : capacity > 0 ? 0 : -1;
            bool absent = kind == 1 ? r % 4 == 0 : kind == 2 ? i < 20 : kind == 3 || (kind == 4 && i != top_k / 2);
            if (kind == 5 && i % 3 == 2) slot = hm_inputs_get(t, token * top_k + i - 1); /* twice */
            if (exact && many > 0 && hm_inputs_wins(slot)) {
                won++;
                if (won > 1 << token % 6) slot--; /* a loser in its place */
            }
            if (absent) slot = none[r / 8 % 4];
            hm_inputs_put(t, token * top_k + i, i < n ? slot : HM_INPUTS_POISON);
        }
    }
    if (hm_inputs_generator(spec, "out_of_range") && spec->seed % 2 == 0 && t->shape[0] > 0 && top_k > 0)
        hm_inputs_put(t, hm_inputs_below(spec, "bad", 1, length_of(a, 0)), capacity + (int64_t)(spec->seed % 4) * 1000);
}

static void put_entry(const hm_case_spec *spec, const hm_mla_cache *c, int64_t slot, unsigned char *row,
                      const double *exact) {
    bool ds = c->format == HM_MLA_FP8_DS, heavy = hm_inputs_generator(spec, "heavy");
    float scale = 1;
    for (int64_t d = 0; d < (ds ? HM_MLA_LATENT + HM_MLA_ROPE : c->entry); d++) {
        uint64_t r = hm_inputs_drawn(spec, "kv_cache", (uint64_t)(slot * c->entry + d));
        double sum = 0, v;
        for (int k = 0; k < 4; k++) sum += (double)(r >> 16 * k & 0xFFFF) - 32767.5;
        v = sum / 37837 * (heavy && r % 61 == 0 ? 20 : 1); /* deviation 1 */
        if (exact) v = exact[d];
        if (!ds) hm_store(c->dtype, row + d * c->element_stride, v);
        else if (d >= HM_MLA_LATENT) hm_store(HM_BF16, row + hm_mla_rope_byte(d - HM_MLA_LATENT), v);
        else {
            if (d % HM_MLA_TILE == 0) {
                uint64_t s = hm_inputs_drawn(spec, "scale", (uint64_t)(slot * HM_MLA_TILES + d / HM_MLA_TILE));
                scale = s % 3 == 0 || exact ? 0.0078125f : (float)(1 + s / 4 % 1000) / 50000;
                if (hm_inputs_generator(spec, "stagnate")) scale = 1;
                memcpy(row + hm_mla_scale_byte(d / HM_MLA_TILE), &scale, sizeof scale);
            }
            row[d] = hm_store8(HM_F8E4M3, v / (double)scale, HM_OVERFLOW_SATURATE);
        }
    }
}

static void put_cache(const hm_case_spec *spec, const hm_sparse_mla_decode_args *a, const hm_tensor *t) {
    hm_mla_cache c;
    bool ds = t->dtype == HM_U8;
    if (hm_mla_cache_read("", t, ds ? HM_MLA_FP8_DS : HM_MLA_BF16, &c)) return;
    int64_t capacity = c.num_blocks * c.block_size, width = ds ? HM_MLA_LATENT + HM_MLA_ROPE : c.entry;
    unsigned char *named = calloc((size_t)capacity + 1, 1);
    for (int64_t token = 0; named && token < a->indices.shape[0]; token++)
        for (int64_t i = 0; i < a->indices.shape[1] && i < length_of(a, token); i++) {
            int64_t slot = hm_inputs_get(&a->indices, token * a->indices.shape[1] + i);
            if (slot >= 0 && slot < capacity) named[slot] = 1;
        }
    bool apart = c.block_stride >= c.block_size * c.entry_stride && c.entry_stride >= c.entry * c.element_stride;
#pragma omp parallel if (apart && capacity * c.entry > HM_ALONE)
    {
        double *exact = malloc((size_t)(width + 1) * sizeof *exact);
#pragma omp for schedule(static)
        for (int64_t slot = 0; slot < capacity; slot++) {
            if (!named || !exact) continue;
            unsigned char *row = hm_mla_row(&c, slot);
            bool made = hm_inputs_exact_key(spec, slot, hm_inputs_wins(slot), width, exact) ||
                        hm_inputs_stagnate_key(spec, width, exact);
            if (named[slot]) put_entry(spec, &c, slot, row, made ? exact : NULL);
            for (int64_t d = 0; d < c.entry && !named[slot]; d++)
                memset(row + d * c.element_stride, 0xFF, hm_dtype_size(c.dtype)); /* NaN in every format */
        }
        free(exact);
    }
    free(named);
}

static bool fill(const hm_case_spec *spec, int arg, const void *args) {
    const hm_sparse_mla_decode_args *a = args;
    const char *name = spec->op->args[arg].name;
    const hm_tensor *t = hm_arg_tensor(spec->op, args, arg);
    bool sound = a->q.ndim == 3 && a->kv_cache.ndim == 3 && a->indices.ndim == 2 && a->indices.dtype == HM_I32;
    if (!strcmp(name, "q"))
        return sound && hm_is_16_bits(t->dtype) &&
               (hm_inputs_exact_queries(spec, t) || hm_inputs_stagnate_queries(spec, t, a->scale));
    if (!strcmp(name, "attn_sink")) return hm_inputs_sinks(spec, t);
    if (!strcmp(name, "topk_length")) {
        if (sound && t->dtype == HM_I32) put_lengths(spec, a, t);
        return true;
    }
    if (!strcmp(name, "indices")) {
        if (sound) put_indices(spec, a, t);
        return true;
    }
    if (strcmp(name, "kv_cache")) return false;
    if (!sound || (t->dtype != HM_U8 && !hm_is_16_bits(t->dtype))) return false;
    put_cache(spec, a, t);
    return true;
}

const hm_inputs hm_sparse_mla_decode_inputs = {"sparse_mla_decode", fill, NULL, 1 << HM_LENGTHS_WHOLE};
