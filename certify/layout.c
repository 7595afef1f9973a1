#include "layout.h"

#include <stdlib.h>

#define DENSE_MAX (INT64_C(256) << 20)  /* buffers up to this size are filled and checked in full */
#define NEAR 4096                       /* larger ones only this near to an element, and in the guard zones */
#define ELEMENTS_MAX (INT64_C(4) << 30) /* bytes of the elements of one argument */
#define EXTENT_MAX (INT64_C(1) << 44)   /* bytes from the first to the last of them */

bool hm_view_span(const hm_tensor *t, int64_t *low, int64_t *high) {
    int64_t size = (int64_t)hm_dtype_size(t->dtype), lo = 0, hi = 0, total = size, reach;
    *low = *high = 0;
    for (int d = 0; d < t->ndim; d++)
        if (t->shape[d] <= 0) return true;
    for (int d = 0; d < t->ndim; d++) {
        if (__builtin_mul_overflow(total, t->shape[d], &total) || total > ELEMENTS_MAX) return false;
        if (__builtin_mul_overflow(t->shape[d] - 1, t->stride[d], &reach)) return false;
        if (__builtin_add_overflow(reach < 0 ? lo : hi, reach, reach < 0 ? &lo : &hi)) return false;
    }
    if (__builtin_mul_overflow(lo, size, low) || __builtin_mul_overflow(hi, size, high)) return *low = *high = 0, false;
    *high += size;
    if (*low < -EXTENT_MAX || *high > EXTENT_MAX) return *low = *high = 0, false;
    return true;
}

int64_t hm_view_elements(const hm_tensor *t) {
    int64_t n = t->dtype != HM_DTYPE_NONE;
    for (int d = 0; d < t->ndim; d++) {
        if (t->shape[d] <= 0) return 0;
        n *= t->shape[d];
    }
    return n;
}

int64_t hm_view_rows(const hm_tensor *t) {
    int64_t rows = t->dtype != HM_DTYPE_NONE;
    for (int d = 0; d < t->ndim - 1; d++)
        if (t->shape[d] <= 0 || __builtin_mul_overflow(rows, t->shape[d], &rows)) return 0;
    return rows;
}

int64_t hm_view_run(const hm_tensor *t) {
    int64_t n = 1;
    for (int d = t->ndim - 1; d >= 0 && (t->stride[d] == n || t->shape[d] == 1); d--) n *= t->shape[d];
    return n;
}

int64_t hm_view_offset(const hm_tensor *t, int64_t index) {
    int64_t offset = 0;
    for (int d = t->ndim - 1; d >= 0; d--) {
        offset += index % t->shape[d] * t->stride[d];
        index /= t->shape[d];
    }
    return offset;
}

static int by_start(const void *a, const void *b) {
    const hm_stretch *p = a, *q = b;
    return p->start != q->start ? (p->start > q->start) - (p->start < q->start)
                                : (p->index > q->index) - (p->index < q->index);
}

static bool lay_out(const hm_call *call, int arg, hm_layout *l) {
    const hm_tensor *t = &call->tensor[arg];
    bool sparse = call->sparse[arg];
    int64_t n = hm_view_elements(t),
            run = sparse ? t->shape[1]
                  : n    ? hm_view_run(t)
                         : 1,
            size = (int64_t)hm_dtype_size(t->dtype);
    *l = (hm_layout){.arg = arg, .count = sparse ? call->live_count[arg] : n / run, .bytes = run * size};
    l->runs = malloc((size_t)(l->count ? l->count : 1) * sizeof *l->runs);
    if (!l->runs) return false;
    int64_t origin = (int64_t)call->buffer[call->buffer_of[arg]].offset[arg];
    bool sorted = true;
    for (int64_t i = 0; sparse && i < l->count; i++)
        l->runs[i] = (hm_stretch){origin + call->live[arg][i] * t->stride[0] * size, call->live[arg][i] * run};
    if (sparse) return true;
    for (int64_t i = 0; i < l->count; i++) {
        l->runs[i] = (hm_stretch){origin + hm_view_offset(t, i * run) * size, i * run};
        sorted = sorted && (i == 0 || l->runs[i].start >= l->runs[i - 1].start);
    }
    if (!sorted) qsort(l->runs, (size_t)l->count, sizeof *l->runs, by_start);
    return true;
}

int64_t hm_first_run(const hm_layout *l, int64_t a) {
    int64_t lo = 0, hi = l->count;
    while (lo < hi) {
        int64_t mid = lo + (hi - lo) / 2;
        if (l->runs[mid].start + l->bytes > a) hi = mid;
        else lo = mid + 1;
    }
    return lo;
}

static bool add_window(hm_survey *s, int64_t from, int64_t to) {
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 256;
        hm_window *grown = realloc(s->windows, (size_t)s->capacity * sizeof *grown);
        if (!grown) return false;
        s->windows = grown;
    }
    s->windows[s->count++] = (hm_window){from, to};
    return true;
}

static int by_from(const void *a, const void *b) {
    const hm_window *p = a, *q = b;
    return (p->from > q->from) - (p->from < q->from);
}

/* Merges what overlaps, then cuts into pieces of at most HM_WINDOW bytes. */
static bool cut_windows(hm_survey *s) {
    hm_window *near = s->windows;
    int64_t n = s->count;
    qsort(near, (size_t)n, sizeof *near, by_from);
    s->windows = NULL;
    s->count = s->capacity = 0;
    bool fine = true;
    for (int64_t i = 0; i < n;) {
        int64_t from = near[i].from, to = near[i].to;
        for (i++; i < n && near[i].from <= to; i++) to = near[i].to > to ? near[i].to : to;
        for (; fine && from < to; from += HM_WINDOW)
            fine = add_window(s, from, to - from < HM_WINDOW ? to : from + HM_WINDOW);
    }
    free(near);
    return fine;
}

void hm_survey_free(hm_survey *s) {
    for (int i = 0; i < s->layouts; i++) free(s->layout[i].runs);
    free(s->windows);
}

bool hm_survey_make(const hm_call *call, int buffer, hm_survey *s) {
    const hm_op_info *op = call->op;
    int64_t size = (int64_t)call->buffer[buffer].size, guard = (int64_t)HM_GUARD;
    *s = (hm_survey){.call = call, .buffer = &call->buffer[buffer]};
    bool fine = true;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; fine && i < op->nargs; i++)
            if (call->buffer_of[i] == buffer && hm_is_input(op, i) == pass)
                fine = lay_out(call, i, &s->layout[s->layouts++]);
    bool dense = size <= DENSE_MAX;
    for (int i = 0; i < s->layouts; i++) dense = dense && !call->sparse[s->layout[i].arg];
    if (fine && dense) fine = add_window(s, 0, size);
    else if (fine) {
        fine = add_window(s, 0, guard) && add_window(s, size - guard, size);
        for (int i = 0; fine && i < s->layouts; i++)
            for (int64_t r = 0; fine && r < s->layout[i].count; r++) {
                int64_t from = s->layout[i].runs[r].start - NEAR, to = from + s->layout[i].bytes + 2 * NEAR;
                fine = add_window(s, from > 0 ? from : 0, to < size ? to : size);
            }
    }
    if (fine) fine = cut_windows(s);
    if (!fine) hm_survey_free(s);
    return fine;
}
