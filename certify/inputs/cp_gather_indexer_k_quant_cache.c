/* Requests of mixed lengths, empty ones among them, with rows before the first and after the last. */
#include <hallmark/cp_gather_indexer_k_quant_cache.h>
#include <string.h>

#include "../inputs.h"

/* cu[0] is 0 or, one time in four, 1; about two rows are left behind the last request, unless the generator is `index`.
 * lengths=whole: every row is some request's, lengths are random, and no block belongs to two requests. */
static void put_bounds(const hm_case_spec *spec, const hm_cp_gather_indexer_k_quant_cache_args *a, const hm_tensor *t) {
    int64_t requests = t->shape[0] - 1, rows = a->dst_k.shape[0], block_size = a->kv_cache.shape[1];
    int64_t most = block_size * a->block_table.shape[1], left = rows - (hm_inputs_whole(spec) ? 0 : 2), at = 0;
    bool whole = spec->lengths == HM_LENGTHS_WHOLE;
    if (left > 0 && !whole && hm_inputs_below(spec, "cu", UINT64_MAX, 4) == 0) at = 1, left--;
    hm_inputs_put(t, 0, at);
    for (int64_t r = 0; r < requests; r++) {
        int64_t share = left < 0            ? 0
                        : r == requests - 1 ? left
                                            : hm_inputs_below(spec, "cu", (uint64_t)r, 2 * left / (requests - r) + 1);
        if (!whole && hm_inputs_below(spec, "empty", (uint64_t)r, 5) == 0 && r < requests - 1) share = 0;
        share = share > left ? left : share > most ? most : share;
        at += share > 0 ? share : 0, left -= share;
        hm_inputs_put(t, r + 1, at);
    }
    if (hm_inputs_generator(spec, "out_of_range") && requests > 0) {
        uint64_t kind = hm_inputs_drawn(spec, "bad", 0) % 4;
        if (kind == 0) hm_inputs_put(t, 0, -1);
        if (kind == 1) hm_inputs_put(t, requests, rows + 1);
        if (kind == 2) hm_inputs_put(t, requests, hm_inputs_get(t, 0) - 1);
    }
}

static bool fill(const hm_case_spec *spec, int arg, const void *args) {
    const hm_cp_gather_indexer_k_quant_cache_args *a = args;
    const char *name = spec->op->args[arg].name;
    const hm_tensor *t = hm_arg_tensor(spec->op, args, arg);
    bool bounds = !strcmp(name, "cu_seq_lens"), table = !strcmp(name, "block_table");
    if (!bounds && !table) {
        hm_inputs_put_bytes(spec, name, t);
        return true;
    }
    const hm_tensor *cu = &a->cu_seq_lens;
    bool sound = a->kv_cache.ndim == 3 && a->dst_k.ndim == 2 && cu->ndim == 1 && cu->dtype == HM_I32 &&
                 cu->shape[0] > 0 && a->block_table.ndim == 2 && a->block_table.dtype == HM_I32;
    if (!sound) return true;
    if (bounds) {
        put_bounds(spec, a, t);
        return true;
    }
    bool whole = spec->lengths == HM_LENGTHS_WHOLE;
    int64_t block_size = a->kv_cache.shape[1], requests = t->shape[0], taken = 0;
    for (int64_t r = 0; r < requests && r + 1 < cu->shape[0]; r++) {
        int64_t length = hm_inputs_get(cu, r + 1) - hm_inputs_get(cu, r);
        int64_t used = length > 0 && block_size > 0 ? (length + block_size - 1) / block_size : 0;
        hm_inputs_put_blocks(spec, name, t, r, whole ? taken : r * used, used, a->kv_cache.shape[0]);
        taken += used;
        bool bad = hm_inputs_generator(spec, "out_of_range") && hm_inputs_drawn(spec, "bad", 0) % 4 == 3 && used > 0;
        if (bad) hm_inputs_put(t, r * t->shape[1], r % 2 ? -1 : a->kv_cache.shape[0]);
    }
    return true;
}

const hm_inputs hm_cp_gather_indexer_k_quant_cache_inputs = {"cp_gather_indexer_k_quant_cache", fill, NULL,
                                                             1 << HM_LENGTHS_WHOLE};
