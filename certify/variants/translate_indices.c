/* Legal orders of translate_indices: integers have one answer. */
#include <hallmark/translate_indices.h>
#include <stdbool.h>
#include <string.h>

#include "../../op/indexer_cache.h"
#include "../../op/translate_indices.h"
#include "tables.h"

typedef struct {
    bool backward, columns, by_shift;
} variant;

static int64_t translated(const variant *v, const hm_translate_indices_args *a, int64_t token, int64_t i) {
    int64_t t = hm_integer_at2(&a->indices, token, i), r = hm_integer_at(&a->req_id, token), P = a->block_size,
            block = t / P;
    if (t < 0) return -1;
    if (a->block_table.dtype == HM_DTYPE_NONE) return hm_integer_at(&a->workspace_starts, r) + t;
    if (v->by_shift && (P & (P - 1)) == 0) block = t >> __builtin_ctzll((unsigned long long)P);
    return block < a->block_table.shape[1] ? (hm_integer_at2(&a->block_table, r, block) - block) * P + t : -1;
}

static void put(const hm_tensor *t, int64_t at, int64_t value) {
    int32_t stored = (int32_t)value;
    memcpy((char *)t->data + at * 4, &stored, sizeof stored);
}

static void count(const variant *v, const hm_translate_indices_args *a, int64_t token) {
    int64_t valid = 0;
    for (int64_t i = 0; i < a->indices.shape[1]; i++) valid += translated(v, a, token, i) >= 0;
    if (a->valid_count.dtype != HM_DTYPE_NONE) put(&a->valid_count, token * a->valid_count.stride[0], valid);
}

static hm_status run(const void *variation, const void *args) {
    const variant *v = variation;
    hm_translate_indices_args a;
    hm_status status = hm_translate_indices_read(args, &a);
    int64_t tokens = status ? 0 : a.indices.shape[0], k = status ? 0 : a.indices.shape[1];
    for (int64_t token = 0; token < tokens; token++) count(v, &a, token); /* before out, which may be indices */
    for (int64_t n = 0; n < tokens * k; n++) {
        int64_t m = v->backward ? tokens * k - 1 - n : n, token = v->columns ? m % tokens : m / k,
                i = v->columns ? m / tokens : m % k;
        put(&a.out, token * a.out.stride[0] + i * a.out.stride[1], translated(v, &a, token, i));
    }
    return status;
}

#define VARIANT(what, about, ...)                                                                            \
    {                                                                                                        \
        "translate_indices." what, "translate_indices", about, "wide", run, &(const variant) { __VA_ARGS__ } \
    }
const hm_variant hm_translate_indices_variants[] = {
    VARIANT("rows", "row by row", 0),
    VARIANT("backward", "from the last index to the first", .backward = true),
    VARIANT("columns", "column by column", .columns = true),
    VARIANT("shift", "blocks by shifts where their size is a power of two", .by_shift = true),
    VARIANT("columns_backward", "from the last column to the first", .columns = true, .backward = true),
    VARIANT("shift_columns", "by shifts, column by column", .by_shift = true, .columns = true),
};
const int hm_translate_indices_variant_count =
    sizeof hm_translate_indices_variants / sizeof *hm_translate_indices_variants;
