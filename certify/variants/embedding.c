/* Legal orders in which to copy: all have the same bits, and none may be accused. */
#include <hallmark/embedding.h>
#include <string.h>

#include "../../op/check.h"
#include "../../op/dtype.h"
#include "../../op/embedding.h"
#include "tables.h"

typedef struct {
    bool backward, columns_first, twice;
    int halves; /* of the rows or, 2, of the elements: the odd ones first */
} order;

static void copy(const hm_embedding_args *a, int64_t row, int64_t i) {
    int64_t size = (int64_t)hm_dtype_size(a->table.dtype), id = hm_embedding_id(&a->ids, row) - a->vocab_start;
    char *to = (char *)a->out.data + (hm_row_offset(&a->out, row) + i * a->out.stride[a->out.ndim - 1]) * size;
    if (id < 0 || id >= a->table.shape[0]) memset(to, 0, (size_t)size);
    else
        memcpy(to, (const char *)a->table.data + (id * a->table.stride[0] + i * a->table.stride[1]) * size,
               (size_t)size);
}

static hm_status run(const void *variation, const void *args) {
    const order *o = variation;
    const hm_embedding_args *a = args;
    hm_status status = hm_embedding_check(a);
    if (status || !hm_tensor_elements(&a->out)) return status;
    int64_t width = a->table.shape[1], rows = hm_row_count(&a->out);
    for (int pass = 0; pass < 1 + o->twice; pass++)
        for (int64_t k = 0; k < rows * width; k++) {
            int64_t at = o->backward ? rows * width - 1 - k : k, n = o->halves == 1 ? rows : width;
            if (o->halves) {
                int64_t part = o->halves == 1 ? at / width : at % width, odd = n / 2;
                part = part < odd ? 2 * part + 1 : 2 * (part - odd);
                at = o->halves == 1 ? part * width + at % width : at / width * width + part;
            }
            copy(a, o->columns_first ? at % rows : at / width, o->columns_first ? at / rows : at % width);
        }
    return HM_OK;
}

#define VARIANT(what, about, ...)                                                          \
    {                                                                                      \
        "embedding." what, "embedding", about, "wide", run, &(const order) { __VA_ARGS__ } \
    }
const hm_variant hm_embedding_variants[] = {
    VARIANT("rows", "row by row", 0),
    VARIANT("backward", "from the last element to the first", .backward = true),
    VARIANT("columns", "column by column over all rows", .columns_first = true),
    VARIANT("odd_rows", "odd rows before even ones", .halves = 1),
    VARIANT("odd_columns", "odd elements of a row before even ones", .halves = 2),
    VARIANT("twice", "each element is written twice", .twice = true),
};
const int hm_embedding_variant_count = sizeof hm_embedding_variants / sizeof *hm_embedding_variants;
