#include "bench_bytes.h"

#include <stdlib.h>
#include <string.h>

#include "../op/check.h"
#include "../op/indexer_cache.h"

/* Of an argument that is changed in part (a cache): what the run that certified it changed. */
static size_t changed_bytes(const hm_call *call, int i) {
    const hm_tensor *now = hm_arg_tensor(call->op, call->args, i), *was = hm_arg_tensor(call->op, call->golden_args, i);
    int64_t rows = hm_row_count(now), n = now->shape[now->ndim - 1], step = now->stride[now->ndim - 1];
    int64_t size = (int64_t)hm_dtype_size(now->dtype);
    size_t bytes = 0;
    for (int64_t row = 0; row < rows && n > 0; row++) {
        const char *at = (const char *)now->data + hm_row_offset(now, row) * size,
                   *before = (const char *)was->data + hm_row_offset(was, row) * size;
        for (int64_t k = 0; k < n; k++)
            for (int64_t b = 0; b < size; b++) bytes += at[k * step * size + b] != before[k * size + b];
    }
    return bytes;
}

static const hm_tensor *input(const hm_call *call, const char *name) {
    for (int i = 0; i < call->op->nargs; i++)
        if (!strcmp(call->op->args[i].name, name)) return hm_arg_tensor(call->op, call->golden_args, i);
    return NULL;
}

/* Tokens of a paged cache that the requests have, each counted once, and the entries of their block table. */
static void count_paged(const hm_call *call, const hm_tensor *cache, const hm_tensor *table, int64_t *tokens,
                        int64_t *entries) {
    const hm_tensor *cu = input(call, "cu_seq_lens"), *lens = input(call, "context_lens");
    int64_t block_size = cache->shape[1], requests = table->shape[0],
            each = lens && lens->ndim == 2 ? lens->shape[1] : 1;
    int64_t *most = calloc((size_t)cache->shape[0] + 1, sizeof *most); /* tokens of each block */
    *tokens = *entries = 0;
    for (int64_t r = 0; r < requests && most; r++) {
        int64_t length = cu ? hm_integer_at(cu, r + 1) - hm_integer_at(cu, r) : 0;
        for (int64_t j = 0; lens && j < each; j++) {
            int64_t n = lens->ndim == 2 ? hm_integer_at2(lens, r, j) : hm_integer_at(lens, r);
            length = n > length ? n : length;
        }
        for (int64_t b = 0; b < table->shape[1] && b * block_size < length; b++, ++*entries) {
            int64_t block = hm_integer_at2(table, r, b), left = length - b * block_size;
            if (left > block_size) left = block_size;
            if (block < 0 || block >= cache->shape[0] || left <= most[block]) continue;
            *tokens += left - most[block];
            most[block] = left;
        }
    }
    free(most);
}

/* Slots that the indices name, each counted once. */
static int64_t count_named(const hm_tensor *indices, int64_t capacity) {
    int64_t count = 0;
    unsigned char *named = calloc((size_t)capacity + 1, 1);
    for (int64_t row = 0; named && row < indices->shape[0]; row++)
        for (int64_t i = 0; i < indices->shape[1]; i++) {
            int64_t slot = hm_integer_at2(indices, row, i);
            if (slot >= 0 && slot < capacity && !named[slot]) named[slot] = 1, count++;
        }
    free(named);
    return count;
}

/* Elements of input i that lengths or indices name; -1: it is read whole. */
static int64_t elements_named(const hm_call *call, int i) {
    const hm_tensor *t = hm_arg_tensor(call->op, call->args, i), *cache = input(call, "kv_cache");
    const hm_tensor *table = input(call, "block_table") ? input(call, "block_table") : input(call, "block_tables");
    const char *name = call->op->args[i].name;
    bool is_cache = !strcmp(name, "kv_cache"), is_table = !strncmp(name, "block_table", 11);
    int64_t tokens, entries;
    if (is_cache && !strcmp(call->op->name, "sparse_mla_decode"))
        return count_named(input(call, "indices"), t->shape[0] * t->shape[1]) * t->shape[2];
    bool paged = cache && table && (input(call, "cu_seq_lens") || input(call, "context_lens"));
    if (!paged || (!is_cache && !is_table)) return -1;
    count_paged(call, cache, table, &tokens, &entries);
    return is_cache ? tokens * t->shape[2] : entries;
}

static int64_t elements_of(const hm_call *call, int i) {
    const hm_tensor *t = hm_arg_tensor(call->op, call->args, i);
    int64_t n = 1;
    for (int d = 0; d < t->ndim; d++) {
        int64_t extent = t->stride[d] || t->shape[d] == 0 ? t->shape[d] : 1;
        n *= d == 0 && call->sparse[i] ? call->live_count[i] : extent;
    }
    return n;
}

size_t hm_least_bytes(const hm_call *call) {
    size_t bytes = 0;
    for (int i = 0; i < call->op->nargs; i++) {
        const hm_tensor *t = hm_arg_tensor(call->op, call->args, i);
        if (t->dtype == HM_DTYPE_NONE) continue;
        hm_direction direction = call->op->args[i].direction;
        int64_t all = elements_of(call, i), named = direction == HM_OUT ? -1 : elements_named(call, i);
        int64_t n = named >= 0 && named < all ? named : all;
        if (direction == HM_INOUT) bytes += changed_bytes(call, i);
        if (direction != HM_INOUT || named >= 0) bytes += (size_t)n * hm_dtype_size(t->dtype);
    }
    return bytes;
}
