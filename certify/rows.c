#include "rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../op/check.h"
#include "../op/dtype.h"

bool hm_row_make(hm_row *r, int64_t n) {
    *r = (hm_row){0};
    r->block = malloc((size_t)n * (5 * sizeof(double) + 2 * sizeof(uint64_t) + 1) + 1);
    if (!r->block) return false;
    r->gold.lo = r->block, r->gold.hi = r->block + n, r->got = r->block + 2 * n;
    r->exact = r->block + 3 * n, r->ideal = r->block + 4 * n;
    r->gold.bits = (uint64_t *)(r->block + 5 * n), r->raw = r->gold.bits + n;
    r->gold.flags = (unsigned char *)(r->raw + n);
    return true;
}

void hm_row_free(hm_row *r) {
    free(r->gold.parts);
    free(r->block);
}

int64_t hm_row_length(const hm_tensor *t) { return t->shape[t->ndim - 1]; }

void hm_row_load(const hm_tensor *t, int64_t row, double *to) {
    const char *base = (const char *)t->data + hm_row_offset(t, row) * (int64_t)hm_dtype_size(t->dtype);
    hm_load_row(t->dtype, base, t->stride[t->ndim - 1], hm_row_length(t), to);
}

void hm_row_load_bits(const hm_tensor *t, int64_t row, uint64_t *to) {
    int64_t size = (int64_t)hm_dtype_size(t->dtype), stride = t->stride[t->ndim - 1] * size, n = hm_row_length(t);
    const char *from = (const char *)t->data + hm_row_offset(t, row) * size;
    for (int64_t i = 0; i < n; i++) {
        to[i] = 0;
        memcpy(&to[i], from + i * stride, (size_t)size);
    }
}

bool hm_row_has_bits(const hm_golden_row *g, int64_t n) {
    unsigned char flags = 0;
#pragma omp simd reduction(| : flags)
    for (int64_t i = 0; i < n; i++) flags |= g->flags[i];
    return flags & HM_GOLD_BITS;
}

static const hm_golden_parts *parts_of(const hm_golden_row *g, int64_t index) {
    int64_t low = 0, high = g->nparts;
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        if (g->parts[mid].index < index) low = mid + 1;
        else high = mid;
    }
    return low < g->nparts && g->parts[low].index == index ? &g->parts[low] : NULL;
}

bool hm_admits(const hm_golden_row *g, int64_t i, double got, uint64_t raw) {
    int flags = g->flags[i];
    if (flags & HM_GOLD_UNSPECIFIED) return true;
    if (flags & HM_GOLD_BITS) return raw == g->bits[i];
    if (flags & HM_GOLD_NAN) return isnan(got);
    if ((flags & HM_GOLD_RANGE_FREE) && (!isfinite(got) || got == 0)) return true;
    if (!(got >= g->lo[i] && got <= g->hi[i])) return false;
    if (!(flags & HM_GOLD_GAPS)) return true;
    const hm_golden_parts *p = parts_of(g, i);
    for (int k = 0; p && k < p->n; k++)
        if (got >= p->lo[k] && got <= p->hi[k]) return true;
    return false;
}

/* The fast path over a row: two loops without branches; the slow one only if some element has a flag. */
hm_row_counts hm_row_compare(const hm_golden_row *g, const double *got, const uint64_t *raw, int64_t n) {
    const double *restrict lo = g->lo, *restrict hi = g->hi;
    const unsigned char *restrict flag = g->flags;
    int64_t inside = 0, point = 0;
    unsigned char flags = 0;
#pragma omp simd reduction(+ : inside, point)
    for (int64_t i = 0; i < n; i++) {
        inside += (got[i] >= lo[i]) & (got[i] <= hi[i]);
        point += lo[i] == hi[i];
    }
#pragma omp simd reduction(| : flags)
    for (int64_t i = 0; i < n; i++) flags |= flag[i];
    hm_row_counts c = {.failing = n - inside, .point = point};
    if (!flags) return c;
    c = (hm_row_counts){0};
    for (int64_t i = 0; i < n; i++) {
        if (flag[i] & HM_GOLD_UNSPECIFIED) {
            c.unspecified++;
            continue;
        }
        bool is_free = (flag[i] & HM_GOLD_RANGE_FREE) && !(flag[i] & HM_GOLD_NAN);
        c.failing += !hm_admits(g, i, got[i], raw ? raw[i] : 0);
        c.range_free += is_free;
        c.point += !is_free && ((flag[i] & (HM_GOLD_NAN | HM_GOLD_BITS)) || lo[i] == hi[i]);
    }
    return c;
}

double hm_row_excess(hm_dtype dtype, const hm_golden_row *g, int64_t i, double got) {
    double lo = g->lo[i], hi = g->hi[i];
    if ((g->flags[i] & (HM_GOLD_NAN | HM_GOLD_BITS)) || !isfinite(got)) return INFINITY;
    if (got < lo) return isfinite(lo) ? (lo - got) / hm_ulp(dtype, lo) : INFINITY;
    if (got > hi) return isfinite(hi) ? (got - hi) / hm_ulp(dtype, hi) : INFINITY;
    const hm_golden_parts *p = parts_of(g, i);
    double least = INFINITY; /* in a gap */
    for (int k = 0; p && k < p->n; k++) {
        double away = got < p->lo[k] ? p->lo[k] - got : got - p->hi[k];
        if (away < least) least = away;
    }
    return least / hm_ulp(dtype, got);
}
