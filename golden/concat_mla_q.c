/* concat_mla_q: every element of the output is an input's, bit for bit. */
#include "../op/concat_mla_q.h"

#include <stdlib.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "op.h"

static hm_status open_context(const void *args, int threads, void **context) {
    (void)threads;
    hm_concat_mla_q_args *a = malloc(sizeof *a);
    if (!a) return hm_fail(HM_NO_MEMORY, "golden: no memory");
    hm_status s = hm_concat_mla_q_read(args, a);
    if (s) free(a);
    else *context = a;
    return s;
}

static const char *element_at(const hm_tensor *t, int64_t row, int64_t i) {
    return (const char *)t->data +
           (hm_row_offset(t, row) + i * t->stride[t->ndim - 1]) * (int64_t)hm_dtype_size(t->dtype);
}

static hm_status row_of(const void *context, int arg, int64_t row, hm_class c, hm_tier tier, hm_golden_row *out) {
    (void)arg, (void)c, (void)tier; /* one output; a copy is the same in every arithmetic */
    const hm_concat_mla_q_args *a = context;
    const hm_tensor *nope = &a->ql_nope, *rope = &a->q_pe;
    int64_t n = nope->shape[nope->ndim - 1], width = n + rope->shape[rope->ndim - 1];
    hm_golden_copy(nope->dtype, element_at(nope, row, 0), nope->stride[nope->ndim - 1], 0, n, out);
    hm_golden_copy(rope->dtype, element_at(rope, row, 0), rope->stride[rope->ndim - 1], n, width, out);
    return HM_OK;
}

static double distance(const void *context, int arg, int64_t row, int64_t index, double got) {
    (void)arg;
    const hm_concat_mla_q_args *a = context;
    int64_t n = a->ql_nope.shape[a->ql_nope.ndim - 1];
    double v = index < n ? hm_load(a->ql_nope.dtype, element_at(&a->ql_nope, row, index))
                         : hm_load(a->q_pe.dtype, element_at(&a->q_pe, row, index - n));
    return hm_distance_of_sum(v, 1, 0, 0, a->q_out.dtype, got);
}

const hm_golden_op hm_concat_mla_q_golden = {"concat_mla_q", open_context, free, row_of, distance, NULL};
