/* top_k_per_row: what was stored is right as a set. Of a row that chooses, golden finds the k-th largest logit by
 * partitioning copies of the values; an index that was stored is admitted if its logit is larger, or equal and still
 * wanted, and it was not stored before. One that is not admitted has to be an index that is missing. */
#include "../op/top_k_per_row.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "op.h"

typedef struct {
    hm_top_k_per_row_args a;
    int32_t *stored; /* [rows, k]; NULL before it was seen */
} context_t;

static void close_context(void *context) {
    free(((context_t *)context)->stored);
    free(context);
}

static hm_status open_context(const void *args, int threads, void **context) {
    (void)threads;
    context_t *c = calloc(1, sizeof *c);
    if (!c) return hm_fail(HM_NO_MEMORY, "golden: no memory");
    hm_status s = hm_top_k_per_row_read(args, &c->a);
    if (s) free(c);
    else *context = c;
    return s;
}

static hm_status observe(void *context, int arg, const hm_tensor *stored, int threads) {
    (void)arg, (void)threads;
    context_t *c = context;
    int64_t rows = stored->shape[0], k = stored->shape[1];
    if (!c->stored) c->stored = malloc((size_t)(rows * k) * sizeof *c->stored + 1);
    if (!c->stored) return hm_fail(HM_NO_MEMORY, "golden: no memory for the indices");
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < k; i++)
            memcpy(&c->stored[r * k + i],
                   (const char *)stored->data + (r * stored->stride[0] + i * stored->stride[1]) * 4, 4);
    return HM_OK;
}

/* The k-th largest of v[0..n-1], 1 <= k <= n; v is rearranged. No NaN. */
static double kth_largest(double *v, int64_t n, int64_t k) {
    int64_t low = 0, high = n - 1, place = k - 1;
    while (low < high) {
        double a = v[low], b = v[low + (high - low) / 2], c = v[high];
        double pivot = a > b ? (b > c ? b : a > c ? c : a) : (a > c ? a : b > c ? c : b);
        int64_t larger = low, i = low, smaller = high; /* larger | equal | unknown | smaller */
        while (i <= smaller) {
            double kept = v[i];
            if (kept > pivot) v[i++] = v[larger], v[larger++] = kept;
            else if (kept < pivot) v[i] = v[smaller], v[smaller--] = kept;
            else i++;
        }
        if (place < larger) high = larger - 1;
        else if (place > smaller) low = smaller + 1;
        else return pivot;
    }
    return v[low];
}

typedef struct {
    double *v, *copy;
    unsigned char *taken;
    bool nan;
    double border; /* the k-th largest */
    int64_t ties;  /* how many that are equal to it are wanted */
} window;

static bool wanted(window *w, int64_t i) {
    if (w->taken[i]) return false;
    bool tied = !w->nan && w->v[i] == w->border, is = w->nan || w->v[i] > w->border || (tied && w->ties > 0);
    if (is) w->taken[i] = 1, w->ties -= tied;
    return is;
}

static void put(hm_golden_row *out, int64_t i, int64_t index) {
    out->lo[i] = out->hi[i] = (double)index, out->flags[i] = HM_GOLD_BITS;
    if (out->bits) out->bits[i] = (uint32_t)(int32_t)index;
}

static int by_logit(const void *a, const void *b) { /* NaN first, then the largest; ascending indices */
    const double *x = a, *y = b;
    if (isnan(x[0]) != isnan(y[0])) return isnan(x[0]) ? -1 : 1;
    return x[0] < y[0] ? 1 : x[0] > y[0] ? -1 : (x[1] > y[1]) - (x[1] < y[1]);
}

/* The order of the library's own implementations. */
static hm_status fill_ideal(const window *w, int64_t n, int64_t k, double *ideal) {
    double *pair = malloc((size_t)n * 2 * sizeof *pair);
    if (!pair) return hm_fail(HM_NO_MEMORY, "golden: no memory");
    for (int64_t i = 0; i < n; i++) pair[2 * i] = w->v[i], pair[2 * i + 1] = (double)i;
    qsort(pair, (size_t)n, 2 * sizeof *pair, by_logit);
    for (int64_t i = 0; i < k; i++) ideal[i] = pair[2 * i + 1];
    free(pair);
    return HM_OK;
}

static hm_status choose(const context_t *c, int64_t row, hm_window_of_row at, window *w, hm_golden_row *out) {
    const hm_tensor *logits = &c->a.logits;
    int64_t k = c->a.indices.shape[1], n = at.n;
    hm_load_row(HM_F32, (const char *)logits->data + (row * logits->stride[0] + at.start * logits->stride[1]) * 4,
                logits->stride[1], n, w->v);
    for (int64_t i = 0; i < n; i++) w->nan |= isnan(w->v[i]);
    if (!w->nan) {
        memcpy(w->copy, w->v, (size_t)n * sizeof *w->v);
        w->border = kth_largest(w->copy, n, k), w->ties = k;
        for (int64_t i = 0; i < n; i++) w->ties -= w->v[i] > w->border;
    }
    hm_status s = out->ideal ? fill_ideal(w, n, k, out->ideal) : HM_OK;
    if (s || !c->stored) return s;
    const int32_t *stored = c->stored + row * k;
    for (int64_t i = 0; i < k; i++) {
        bool right = stored[i] >= 0 && stored[i] < n && wanted(w, stored[i]);
        put(out, i, right ? stored[i] : -2);
    }
    for (int64_t i = 0, missing = 0; i < k; i++) { /* what is not right has to be one of those that are missing */
        if (out->lo[i] != -2) continue;
        while (!wanted(w, missing)) missing++;
        put(out, i, missing);
    }
    return HM_OK;
}

static hm_status row_of(const void *context, int arg, int64_t row, hm_class class, hm_tier tier, hm_golden_row *out) {
    (void)arg, (void)class, (void)tier; /* one output; logits are what they are, in every arithmetic */
    const context_t *c = context;
    int64_t k = c->a.indices.shape[1];
    hm_window_of_row at = hm_top_k_window(&c->a, row);
    for (int64_t i = 0; i < k; i++) {
        put(out, i, i < at.n ? i : -1);
        if (out->ideal) out->ideal[i] = out->lo[i];
        if (out->exact) out->exact[i] = NAN; /* an index is no number */
        if (at.n > k && !c->stored) out->lo[i] = 0, out->hi[i] = (double)(at.n - 1), out->flags[i] = 0;
    }
    if (at.n <= k || k == 0) return HM_OK;
    window w = {.v = malloc((size_t)at.n * sizeof *w.v),
                .copy = malloc((size_t)at.n * sizeof *w.copy),
                .taken = calloc((size_t)at.n, 1)};
    hm_status s = w.v && w.copy && w.taken ? choose(c, row, at, &w, out) : hm_fail(HM_NO_MEMORY, "golden: no memory");
    free(w.v), free(w.copy), free(w.taken);
    return s;
}

static double distance(const void *context, int arg, int64_t row, int64_t index, double got) {
    (void)context, (void)arg, (void)row, (void)index, (void)got;
    return INFINITY; /* never asked for: there is no exact value */
}

const hm_golden_op hm_top_k_per_row_golden = {"top_k_per_row", open_context, close_context, row_of, distance, observe};
