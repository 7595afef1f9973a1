/* cp_gather_indexer_k_quant_cache: request by request, row by row. */
#include <string.h>

#include "../op/check.h"
#include "../op/indexer_cache.h"

static void copy_row(const hm_cp_gather_indexer_k_quant_cache_args *a, const hm_indexer_cache *c, int64_t request,
                     int64_t position, int64_t row) {
    const hm_tensor *k = &a->dst_k, *scale = &a->dst_scale;
    int64_t offset = position % c->block_size, width = (int64_t)hm_dtype_size(scale->dtype);
    const unsigned char *block =
        hm_indexer_block(c, hm_integer_at2(&a->block_table, request, position / c->block_size));
    unsigned char *to = (unsigned char *)k->data + row * k->stride[0];
    unsigned char *scale_to = (unsigned char *)scale->data + row * scale->stride[0] * width;
    for (int64_t d = 0; d < c->head_dim; d++) to[d * k->stride[1]] = block[hm_indexer_code_byte(c, offset, d)];
    for (int64_t i = 0; i < 4 * c->groups / width; i++)
        memcpy(scale_to + i * scale->stride[1] * width, block + hm_indexer_scale_byte(c, offset, 0) + i * width,
               (size_t)width);
}

hm_status hm_cp_gather_indexer_k_quant_cache_ref(const hm_cp_gather_indexer_k_quant_cache_args *args) {
    hm_cp_gather_indexer_k_quant_cache_args a;
    hm_indexer_cache c;
    hm_status s = hm_cp_gather_indexer_k_quant_cache_read(args, &a, &c);
    if (s) return s;
    if (a.dst_k.place != HM_HOST)
        return hm_fail(HM_UNSUPPORTED, "cp_gather_indexer_k_quant_cache: ref works on host tensors only");
    int64_t requests = hm_tensor_elements(&a.dst_k) ? a.block_table.shape[0] : 0;
    for (int64_t r = 0; r < requests; r++) {
        int64_t first = hm_integer_at(&a.cu_seq_lens, r), end = hm_integer_at(&a.cu_seq_lens, r + 1);
#pragma omp parallel for schedule(static) if ((end - first) * c.entry > 65536)
        for (int64_t row = first; row < end; row++) copy_row(&a, &c, r, row - first, row);
    }
    return HM_OK;
}
