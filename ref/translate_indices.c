/* translate_indices: token by token. */
#include "../op/translate_indices.h"

#include <stdbool.h>
#include <string.h>

#include "../op/check.h"
#include "../op/indexer_cache.h"

static void put(const hm_tensor *t, int64_t at, int64_t value) {
    int32_t v = (int32_t)value;
    memcpy((char *)t->data + at * 4, &v, sizeof v);
}

static void translate_row(const hm_translate_indices_args *a, bool paged, int64_t token) {
    int64_t r = hm_integer_at(&a->req_id, token), P = a->block_size, valid = 0;
    for (int64_t i = 0; i < a->indices.shape[1]; i++) {
        int64_t t = hm_integer_at2(&a->indices, token, i), to = -1;
        if (t >= 0 && !paged) to = hm_integer_at(&a->workspace_starts, r) + t;
        if (t >= 0 && paged && t / P < a->block_table.shape[1])
            to = hm_integer_at2(&a->block_table, r, t / P) * P + t % P;
        put(&a->out, token * a->out.stride[0] + i * a->out.stride[1], to);
        valid += to >= 0;
    }
    if (a->valid_count.dtype != HM_DTYPE_NONE) put(&a->valid_count, token * a->valid_count.stride[0], valid);
}

hm_status hm_translate_indices_ref(const hm_translate_indices_args *args) {
    hm_translate_indices_args a;
    hm_status s = hm_translate_indices_read(args, &a);
    if (s) return s;
    if (a.out.place != HM_HOST) return hm_fail(HM_UNSUPPORTED, "translate_indices: ref works on host tensors only");
    bool paged = a.block_table.dtype != HM_DTYPE_NONE;
    int64_t tokens = a.indices.shape[0];
#pragma omp parallel for schedule(static) if (hm_tensor_elements(&a.indices) > 16384)
    for (int64_t token = 0; token < tokens; token++) translate_row(&a, paged, token);
    return HM_OK;
}
