/* translate_indices: integers, so that every element is one value. A block's slots are found by walking it: slot s of a
 * request is where token s of it lies. */
#include "../op/translate_indices.h"

#include <math.h>
#include <stdlib.h>

#include "../op/check.h"
#include "../op/indexer_cache.h"
#include "op.h"

enum { OUT = 4 };

static hm_status open_context(const void *args, int threads, void **context) {
    (void)threads;
    hm_translate_indices_args *a = malloc(sizeof *a);
    if (!a) return hm_fail(HM_NO_MEMORY, "golden: no memory");
    hm_status s = hm_translate_indices_read(args, a);
    if (s) free(a);
    else *context = a;
    return s;
}

static int32_t translated(const hm_translate_indices_args *a, int64_t token, int64_t i) {
    int64_t t = hm_integer_at2(&a->indices, token, i), r = hm_integer_at(&a->req_id, token);
    if (t < 0) return -1;
    if (a->block_table.dtype == HM_DTYPE_NONE) return (int32_t)(hm_integer_at(&a->workspace_starts, r) + t);
    int64_t block = 0;
    for (; t >= a->block_size && block < a->block_table.shape[1]; block++) t -= a->block_size;
    return block < a->block_table.shape[1] ? (int32_t)(hm_integer_at2(&a->block_table, r, block) * a->block_size + t)
                                           : -1;
}

static void put(hm_golden_row *out, int64_t i, int32_t value) {
    out->lo[i] = out->hi[i] = value, out->flags[i] = HM_GOLD_BITS;
    if (out->bits) out->bits[i] = (uint32_t)value;
    if (out->ideal) out->ideal[i] = value;
    if (out->exact) out->exact[i] = NAN; /* an index is no number */
}

static hm_status row_of(const void *context, int arg, int64_t row, hm_class class, hm_tier tier, hm_golden_row *out) {
    (void)class, (void)tier;
    const hm_translate_indices_args *a = context;
    if (arg == OUT) {
        for (int64_t i = 0; i < a->indices.shape[1]; i++) put(out, i, translated(a, row, i));
        return HM_OK;
    }
    for (int64_t token = 0; token < a->indices.shape[0]; token++) { /* valid_count is one row */
        int32_t valid = 0;
        for (int64_t i = 0; i < a->indices.shape[1]; i++) valid += translated(a, token, i) != -1;
        put(out, token, valid);
    }
    return HM_OK;
}

static double distance(const void *context, int arg, int64_t row, int64_t index, double got) {
    (void)context, (void)arg, (void)row, (void)index, (void)got;
    return INFINITY; /* never asked for: there is no exact value */
}

const hm_golden_op hm_translate_indices_golden = {"translate_indices", open_context, free, row_of, distance, NULL};
