/* embedding: every element of the output is the table's, bit for bit, or +0. */
#include "../op/embedding.h"

#include <stdlib.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "op.h"

static hm_status open_context(const void *args, int threads, void **context) {
    (void)threads;
    hm_embedding_args *a = malloc(sizeof *a);
    if (!a) return hm_fail(HM_NO_MEMORY, "golden: no memory");
    hm_status s = hm_embedding_read(args, a);
    if (s) free(a);
    else *context = a;
    return s;
}

static const char zero[8];

/* Element i of the row that `row` has to be, and the stride of that row. */
static const char *element_at(const hm_embedding_args *a, int64_t row, int64_t i, int64_t *stride) {
    const hm_tensor *t = &a->table;
    int64_t id = hm_embedding_id(&a->ids, row);
    *stride = hm_embedding_holds(a, id) ? t->stride[1] : 0;
    if (!hm_embedding_holds(a, id)) return zero;
    return (const char *)t->data +
           ((id - a->vocab_start) * t->stride[0] + i * t->stride[1]) * (int64_t)hm_dtype_size(t->dtype);
}

static hm_status row_of(const void *context, int arg, int64_t row, hm_class c, hm_tier tier, hm_golden_row *out) {
    (void)arg, (void)c, (void)tier; /* one output; a copy is the same in every arithmetic */
    const hm_embedding_args *a = context;
    int64_t stride;
    const char *at = element_at(a, row, 0, &stride);
    hm_golden_copy(a->table.dtype, at, stride, 0, a->table.shape[1], out);
    return HM_OK;
}

static double distance(const void *context, int arg, int64_t row, int64_t index, double got) {
    (void)arg;
    const hm_embedding_args *a = context;
    int64_t stride;
    double exact = hm_load(a->table.dtype, element_at(a, row, index, &stride));
    return hm_distance_of_sum(exact, 1, 0, 0, a->out.dtype, got);
}

const hm_golden_op hm_embedding_golden = {"embedding", open_context, free, row_of, distance, NULL};
