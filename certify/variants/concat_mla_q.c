/* Legal orders in which to copy: all have the same bits, and none may be accused. */
#include <hallmark/concat_mla_q.h>
#include <stdlib.h>
#include <string.h>

#include "../../op/check.h"
#include "tables.h"

typedef struct {
    bool backward, rope_first, columns_first, by_words, staged;
} order;

enum { SIZE = 2 }; /* bytes of an element */

/* Elements [from, from + n) of q_out's row, out of the part that they belong to. */
static void copy(const hm_concat_mla_q_args *a, int64_t row, int64_t from, int64_t n) {
    int64_t nope = a->ql_nope.shape[a->ql_nope.ndim - 1];
    const hm_tensor *in = from < nope ? &a->ql_nope : &a->q_pe, *out = &a->q_out;
    for (int64_t i = from; i < from + n; i++)
        memcpy((char *)out->data + (hm_row_offset(out, row) + i * out->stride[out->ndim - 1]) * SIZE,
               (const char *)in->data +
                   (hm_row_offset(in, row) + (from < nope ? i : i - nope) * in->stride[in->ndim - 1]) * SIZE,
               SIZE);
}

static void copy_row(const order *o, const hm_concat_mla_q_args *a, int64_t row) {
    int64_t nope = a->ql_nope.shape[a->ql_nope.ndim - 1], width = a->q_out.shape[a->q_out.ndim - 1];
    if (o->staged) { /* a block of a row is gathered, then written */
        unsigned char stage[64 * SIZE];
        const hm_tensor *out = &a->q_out;
        for (int64_t i = 0; i < width; i += 64) {
            int64_t n = width - i < 64 ? width - i : 64;
            hm_concat_mla_q_args to = *a;
            for (int64_t k = 0; k < n; k++) copy(&to, row, i + k, 1);
            for (int64_t k = 0; k < n; k++)
                memcpy(stage + k * SIZE,
                       (char *)out->data + (hm_row_offset(out, row) + (i + k) * out->stride[out->ndim - 1]) * SIZE,
                       SIZE);
            for (int64_t k = n - 1; k >= 0; k--)
                memcpy((char *)out->data + (hm_row_offset(out, row) + (i + k) * out->stride[out->ndim - 1]) * SIZE,
                       stage + k * SIZE, SIZE);
        }
    } else if (o->by_words) {
        for (int64_t i = 0; i < nope; i += 2) copy(a, row, i, nope - i < 2 ? 1 : 2);
        for (int64_t i = nope; i < width; i += 2) copy(a, row, i, width - i < 2 ? 1 : 2);
    } else {
        for (int pass = 0; pass < 2; pass++) {
            bool rope = (pass == 1) != o->rope_first;
            copy(a, row, rope ? nope : 0, rope ? width - nope : nope);
        }
    }
}

static hm_status run(const void *variation, const void *args) {
    const order *o = variation;
    const hm_concat_mla_q_args *a = args;
    hm_status status = hm_concat_mla_q_check(a);
    int64_t width = status ? 0 : a->q_out.shape[a->q_out.ndim - 1],
            rows = status || !hm_tensor_elements(&a->q_out) ? 0 : hm_row_count(&a->q_out);
    for (int64_t i = 0; o->columns_first && i < width; i++)
        for (int64_t row = 0; row < rows; row++) copy(a, row, i, 1);
    for (int64_t k = 0; !o->columns_first && k < rows; k++) copy_row(o, a, o->backward ? rows - 1 - k : k);
    return status;
}

#define VARIANT(what, about, ...)                                                                \
    {                                                                                            \
        "concat_mla_q." what, "concat_mla_q", about, "wide", run, &(const order) { __VA_ARGS__ } \
    }
const hm_variant hm_concat_mla_q_variants[] = {
    VARIANT("rows", "row by row, nope then rope", 0),
    VARIANT("backward", "from the last row to the first", .backward = true),
    VARIANT("rope_first", "rope before nope in each row", .rope_first = true),
    VARIANT("columns", "column by column over all rows", .columns_first = true),
    VARIANT("words", "words of two elements", .by_words = true),
    VARIANT("staged", "blocks of 64 elements by way of a buffer, each written twice", .staged = true),
};
const int hm_concat_mla_q_variant_count = sizeof hm_concat_mla_q_variants / sizeof *hm_concat_mla_q_variants;
