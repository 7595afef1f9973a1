/* embedding: rows are copied one by one, with memcpy where they are contiguous; zeros where the table lacks the row. */
#include "../op/embedding.h"

#include <string.h>

#include "../op/check.h"
#include "../op/dtype.h"

static void copy_row(const hm_embedding_args *a, int64_t row) {
    const hm_tensor *table = &a->table, *out = &a->out;
    int64_t size = (int64_t)hm_dtype_size(table->dtype), n = table->shape[1], step = table->stride[1];
    int64_t to_step = out->stride[out->ndim - 1];
    int64_t id = hm_embedding_id(&a->ids, row);
    char *to = (char *)out->data + hm_row_offset(out, row) * size;
    if (!hm_embedding_holds(a, id)) {
        for (int64_t i = 0; i < n; i++) memset(to + i * to_step * size, 0, (size_t)size);
        return;
    }
    const char *from = (const char *)table->data + (id - a->vocab_start) * table->stride[0] * size;
    if (step == 1 && to_step == 1) memcpy(to, from, (size_t)(n * size));
    else
        for (int64_t i = 0; i < n; i++) memcpy(to + i * to_step * size, from + i * step * size, (size_t)size);
}

hm_status hm_embedding_ref(const hm_embedding_args *args) {
    hm_embedding_args a;
    hm_status s = hm_embedding_read(args, &a);
    if (s) return s;
    if (a.out.place != HM_HOST) return hm_fail(HM_UNSUPPORTED, "embedding: ref works on host tensors only");
    int64_t elements = hm_tensor_elements(&a.out), rows = elements ? hm_row_count(&a.out) : 0;
#pragma omp parallel for schedule(static) if (elements > 65536)
    for (int64_t row = 0; row < rows; row++) copy_row(&a, row);
    return HM_OK;
}
