/* Legal ways to gather: a copy has one answer, in whatever order. */
#include <hallmark/cp_gather_indexer_k_quant_cache.h>
#include <string.h>

#include "../../op/check.h"
#include "../../op/dtype.h"
#include "../../op/indexer_cache.h"
#include "tables.h"

typedef struct {
    bool backward, scales_first, elements_first, twice;
    int search; /* for the request of a row: 0 walks, 1 halves, 2 looks from the end */
} variant;

static int64_t request_of(const variant *v, const hm_tensor *cu, int64_t requests, int64_t row) {
    int64_t r = -1;
    if (v->search == 1) {
        int64_t low = 0, high = requests + 1; /* the first bound that is larger */
        while (low < high) {
            int64_t mid = (low + high) / 2;
            if (hm_integer_at(cu, mid) <= row) low = mid + 1;
            else high = mid;
        }
        r = low - 1;
    } else if (v->search == 2) {
        r = requests;
        while (r >= 0 && hm_integer_at(cu, r) > row) r--;
    } else
        while (r < requests && hm_integer_at(cu, r + 1) <= row) r++;
    return r < 0 || r >= requests ? -1 : r;
}

static void copy(const hm_cp_gather_indexer_k_quant_cache_args *a, const hm_indexer_cache *c, int64_t r, int64_t row,
                 int64_t d) {
    const hm_tensor *k = &a->dst_k, *scale = &a->dst_scale;
    int64_t position = row - hm_integer_at(&a->cu_seq_lens, r), offset = position % c->block_size;
    const unsigned char *block = hm_indexer_block(c, hm_integer_at2(&a->block_table, r, position / c->block_size));
    size_t width = hm_dtype_size(scale->dtype);
    if (d >= 0)
        ((unsigned char *)k->data)[row * k->stride[0] + d * k->stride[1]] = block[hm_indexer_code_byte(c, offset, d)];
    else
        for (int64_t i = 0; i < 4 * c->groups / (int64_t)width; i++)
            memcpy((char *)scale->data + (row * scale->stride[0] + i * scale->stride[1]) * (int64_t)width,
                   block + hm_indexer_scale_byte(c, offset, 0) + i * (int64_t)width, width);
}

static hm_status run(const void *variation, const void *args) {
    const variant *v = variation;
    hm_cp_gather_indexer_k_quant_cache_args a;
    hm_indexer_cache c;
    hm_status status = hm_cp_gather_indexer_k_quant_cache_read(args, &a, &c);
    int64_t rows = status ? 0 : a.dst_k.shape[0], requests = a.block_table.shape[0], D = c.head_dim;
    if (status || !hm_tensor_elements(&a.kv_cache)) return status;
    for (int pass = 0; pass < 1 + v->twice; pass++)
        for (int64_t n = 0; n < rows * (D + 1); n++) {
            int64_t i = v->backward ? rows * (D + 1) - 1 - n : n;
            int64_t row = v->elements_first ? i % rows : i / (D + 1), d = v->elements_first ? i / rows : i % (D + 1);
            int64_t r = request_of(v, &a.cu_seq_lens, requests, row);
            if (r >= 0) copy(&a, &c, r, row, v->scales_first ? d - 1 : d == D ? -1 : d);
        }
    return HM_OK;
}

#define VARIANT(what, about, ...)                                                                       \
    {                                                                                                   \
        "cp_gather_indexer_k_quant_cache." what, "cp_gather_indexer_k_quant_cache", about, "wide", run, \
            &(const variant) {                                                                          \
            __VA_ARGS__                                                                                 \
        }                                                                                               \
    }
const hm_variant hm_cp_gather_indexer_k_quant_cache_variants[] = {
    VARIANT("rows", "row by row, codes and then scales", 0),
    VARIANT("backward", "from the last row to the first", .backward = true),
    VARIANT("scales_first", "scales before codes, requests by bisection", .scales_first = true, .search = 1),
    VARIANT("columns", "code by code over all rows", .elements_first = true),
    VARIANT("twice", "everything twice, requests from the end", .twice = true, .search = 2),
    VARIANT("columns_backward", "from the last code to the first", .elements_first = true, .backward = true,
            .search = 1),
};
const int hm_cp_gather_indexer_k_quant_cache_variant_count =
    sizeof hm_cp_gather_indexer_k_quant_cache_variants / sizeof *hm_cp_gather_indexer_k_quant_cache_variants;
