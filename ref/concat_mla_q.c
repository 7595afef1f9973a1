/* concat_mla_q: rows are copied one by one, with memcpy where they are contiguous. */
#include "../op/concat_mla_q.h"

#include <string.h>

#include "../op/check.h"

enum { SIZE = 2 }; /* bytes of an element: f16 or bf16 */

/* n elements from row `row` of from to element `at` of the same row of to. */
static void copy(const hm_tensor *from, const hm_tensor *to, int64_t row, int64_t at) {
    int64_t n = from->shape[from->ndim - 1], step = from->stride[from->ndim - 1], to_step = to->stride[to->ndim - 1];
    const char *f = (const char *)from->data + hm_row_offset(from, row) * SIZE;
    char *t = (char *)to->data + (hm_row_offset(to, row) + at * to_step) * SIZE;
    if (step == 1 && to_step == 1) memcpy(t, f, (size_t)n * SIZE);
    else
        for (int64_t i = 0; i < n; i++) memcpy(t + i * to_step * SIZE, f + i * step * SIZE, SIZE);
}

static void copy_row(const hm_concat_mla_q_args *a, int64_t row) {
    int64_t nope = a->ql_nope.shape[a->ql_nope.ndim - 1];
    if (nope) copy(&a->ql_nope, &a->q_out, row, 0);
    if (a->q_pe.shape[a->q_pe.ndim - 1]) copy(&a->q_pe, &a->q_out, row, nope);
}

hm_status hm_concat_mla_q_ref(const hm_concat_mla_q_args *args) {
    hm_concat_mla_q_args a;
    hm_status s = hm_concat_mla_q_read(args, &a);
    if (s) return s;
    if (a.q_out.place != HM_HOST) return hm_fail(HM_UNSUPPORTED, "concat_mla_q: ref works on host tensors only");
    int64_t elements = hm_tensor_elements(&a.q_out), rows = elements ? hm_row_count(&a.q_out) : 0;
#pragma omp parallel for schedule(static) if (elements > 65536)
    for (int64_t row = 0; row < rows; row++) copy_row(&a, row);
    return HM_OK;
}
