/* Legal choices and orders of top_k_per_row. */
#include <hallmark/top_k_per_row.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../op/check.h"
#include "../../op/dtype.h"
#include "../../op/top_k_per_row.h"
#include "tables.h"

typedef struct {
    enum { TIES_FIRST = 0, TIES_LAST, TIES_MIXED } ties;
    enum { ORDER_LARGEST_FIRST = 0, ORDER_SMALLEST_FIRST, ORDER_BY_INDEX, ORDER_INDEX_DOWN, ORDER_MIXED } order;
} variant;

typedef struct {
    double value;
    uint32_t rank, shuffled; /* rank: which of equal values are taken first */
    int64_t index;
} candidate;

static uint32_t scrambled(uint32_t x) { /* the order in which threads arrive, say */
    x ^= x >> 16, x *= 0x7feb352du, x ^= x >> 15, x *= 0x846ca68bu;
    return x ^ x >> 16;
}

static int by_value(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (isnan(x->value) || isnan(y->value)) {
        if (isnan(x->value) != isnan(y->value)) return isnan(x->value) ? 1 : -1;
    } else if (x->value != y->value) return (x->value < y->value) - (x->value > y->value);
    return (x->rank > y->rank) - (x->rank < y->rank);
}
static int by_value_up(const void *a, const void *b) { return by_value(b, a); }
static int by_index(const void *a, const void *b) {
    int64_t x = ((const candidate *)a)->index, y = ((const candidate *)b)->index;
    return (x > y) - (x < y);
}
static int by_index_down(const void *a, const void *b) { return by_index(b, a); }
static int by_chance(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    return x->shuffled != y->shuffled ? (x->shuffled > y->shuffled) - (x->shuffled < y->shuffled) : by_index(a, b);
}

static void put(const hm_tensor *t, int64_t row, int64_t i, int64_t index) {
    int32_t value = (int32_t)index;
    memcpy((char *)t->data + (row * t->stride[0] + i * t->stride[1]) * 4, &value, sizeof value);
}

static void select_row(const variant *v, const hm_top_k_per_row_args *a, int64_t row, candidate *c) {
    static int (*const orders[])(const void *, const void *) = {by_value, by_value_up, by_index, by_index_down,
                                                                by_chance};
    const hm_tensor *t = &a->logits;
    hm_window_of_row w = hm_top_k_window(a, row);
    int64_t k = a->indices.shape[1];
    for (int64_t i = 0; w.n <= k && i < k; i++) put(&a->indices, row, i, i < w.n ? i : -1);
    if (w.n <= k) return;
    for (int64_t i = 0; i < w.n; i++) {
        uint32_t n = (uint32_t)i, chance = scrambled(n * 2654435761u + (uint32_t)row);
        c[i] = (candidate){
            hm_load(HM_F32, (const char *)t->data + (row * t->stride[0] + (w.start + i) * t->stride[1]) * 4),
            v->ties == TIES_FIRST  ? n
            : v->ties == TIES_LAST ? ~n
                                   : chance,
            scrambled(chance), i};
    }
    qsort(c, (size_t)w.n, sizeof *c, by_value);
    qsort(c, (size_t)k, sizeof *c, orders[v->order]);
    for (int64_t i = 0; i < k; i++) put(&a->indices, row, i, c[i].index);
}

static hm_status run(const void *variation, const void *args) {
    hm_top_k_per_row_args a;
    hm_status status = hm_top_k_per_row_read(args, &a);
    int64_t rows = status || !a.indices.shape[1] ? 0 : a.logits.shape[0];
    candidate *c = malloc(((size_t)(status ? 0 : a.logits.shape[1]) + 1) * sizeof *c);
    if (!c) return HM_NO_MEMORY;
    for (int64_t row = 0; row < rows; row++) select_row(variation, &a, row, c);
    free(c);
    return status;
}

#define VARIANT(what, about, ...)                                                                    \
    {                                                                                                \
        "top_k_per_row." what, "top_k_per_row", about, "wide", run, &(const variant) { __VA_ARGS__ } \
    }
const hm_variant hm_top_k_per_row_variants[] = {
    VARIANT("sorted", "largest first, the first of equal ones", 0),
    VARIANT("last_ties", "largest first, the last of equal ones", .ties = TIES_LAST),
    VARIANT("heap", "smallest first, as a heap gives them", .order = ORDER_SMALLEST_FIRST, .ties = TIES_MIXED),
    VARIANT("radix", "by index, as a second pass over the row finds them", .order = ORDER_BY_INDEX),
    VARIANT("backward", "by descending index, the last of equal ones", .order = ORDER_INDEX_DOWN, .ties = TIES_LAST),
    VARIANT("atomic", "as threads arrive: any order, any of equal ones", .order = ORDER_MIXED, .ties = TIES_MIXED),
};
const int hm_top_k_per_row_variant_count = sizeof hm_top_k_per_row_variants / sizeof *hm_top_k_per_row_variants;
