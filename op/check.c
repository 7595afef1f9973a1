#include "check.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char error_sentence[512];

const char *hm_error(void) { return error_sentence; }

hm_status hm_fail(hm_status status, const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(error_sentence, sizeof error_sentence, format, list);
    va_end(list);
    return status;
}

hm_status hm_read_args(const char *op, const void *args, void *full, size_t size) {
    if (!args) return hm_fail(HM_BAD_ARG, "%s: args is NULL; it has to point to an hm_%s_args", op, op);
    size_t given;
    memcpy(&given, args, sizeof given);
    if (given < sizeof given + sizeof(hm_tensor) || given > 65536)
        return hm_fail(HM_BAD_ARG, "%s: args->size is %zu; it has to be sizeof(hm_%s_args), %zu here", op, given, op,
                       size);
    memset(full, 0, size);
    memcpy(full, args, given < size ? given : size);
    for (size_t i = size; i < given; i++)
        if (((const unsigned char *)args)[i])
            return hm_fail(HM_BAD_ARG, "%s: args->size is %zu and a field past the %zu bytes known here is not zero",
                           op, given, size);
    memcpy(full, &size, sizeof size);
    return HM_OK;
}

/* Lowest and one-past-highest byte of t's elements, relative to data. false if that does not fit in int64_t. Empty: 0,
 * 0. */
static bool byte_range(const hm_tensor *t, int64_t *low, int64_t *high) {
    int64_t size = (int64_t)hm_dtype_size(t->dtype), lo = 0, hi = 0;
    *low = *high = 0;
    for (int d = 0; d < t->ndim; d++)
        if (t->shape[d] == 0) return true;
    for (int d = 0; d < t->ndim; d++) {
        int64_t reach;
        if (__builtin_mul_overflow(t->shape[d] - 1, t->stride[d], &reach)) return false;
        if (__builtin_add_overflow(reach < 0 ? lo : hi, reach, reach < 0 ? &lo : &hi)) return false;
    }
    if (__builtin_mul_overflow(lo, size, low)) return false;
    return !__builtin_mul_overflow(hi, size, high) && !__builtin_add_overflow(*high, size, high);
}

hm_status hm_check_tensor(const char *op, const char *name, const hm_tensor *t, bool required) {
    if (t->dtype == HM_DTYPE_NONE)
        return required ? hm_fail(HM_BAD_ARG, "%s: %s is absent (dtype none); the contract needs it", op, name) : HM_OK;
    if (!hm_dtype_size(t->dtype))
        return hm_fail(HM_BAD_DTYPE, "%s: %s has dtype %d, which is no hm_dtype", op, name, (int)t->dtype);
    if (t->place != HM_HOST && t->place != HM_CUDA)
        return hm_fail(HM_BAD_PLACE, "%s: %s has place %d, which is no hm_place", op, name, (int)t->place);
    if (t->ndim < 1 || t->ndim > 4)
        return hm_fail(HM_BAD_SHAPE, "%s: %s has ndim %d; it has to be 1 to 4", op, name, t->ndim);
    int64_t elements = 1;
    for (int d = 0; d < t->ndim; d++) {
        if (t->shape[d] < 0)
            return hm_fail(HM_BAD_SHAPE, "%s: %s has extent %lld in dimension %d; it has to be 0 or more", op, name,
                           (long long)t->shape[d], d);
        if (__builtin_mul_overflow(elements, t->shape[d], &elements))
            return hm_fail(HM_BAD_SHAPE, "%s: %s has more than 2^63 elements", op, name);
    }
    int64_t low, high;
    if (!byte_range(t, &low, &high))
        return hm_fail(HM_BAD_STRIDE, "%s: %s reaches further than 2^63 bytes with its strides", op, name);
    if (!t->data && elements > 0)
        return hm_fail(HM_BAD_ARG, "%s: %s has no data (NULL) for %lld elements", op, name, (long long)elements);
    return HM_OK;
}

static const char *shape_text(const hm_tensor *t, char *text, size_t size) {
    size_t at = 0;
    for (int d = 0; d < t->ndim && at < size; d++)
        at += (size_t)snprintf(text + at, size - at, "%s%lld", d ? "," : "[", (long long)t->shape[d]);
    if (at < size) snprintf(text + at, size - at, "]");
    return text;
}

hm_status hm_check_same_shape(const char *op, const char *name, const hm_tensor *t, const char *like_name,
                              const hm_tensor *like) {
    bool same = t->ndim == like->ndim;
    for (int d = 0; same && d < t->ndim; d++) same = t->shape[d] == like->shape[d];
    char have[112], want[112];
    return same ? HM_OK
                : hm_fail(HM_BAD_SHAPE, "%s: %s has shape %s; it has to be %s, the shape of %s", op, name,
                          shape_text(t, have, sizeof have), shape_text(like, want, sizeof want), like_name);
}

hm_status hm_check_extent(const char *op, const char *name, const hm_tensor *t, int ndim, int d, int64_t want,
                          const char *why) {
    if (t->ndim != ndim) return hm_fail(HM_BAD_SHAPE, "%s: %s has rank %d; it has to be %d", op, name, t->ndim, ndim);
    if (want >= 0 && t->shape[d] != want)
        return hm_fail(HM_BAD_SHAPE, "%s: %s has extent %lld in dimension %d; it has to be %lld, %s", op, name,
                       (long long)t->shape[d], d, (long long)want, why);
    return HM_OK;
}

hm_status hm_check_places(const char *op, int n, const char *const *names, const hm_tensor *const *tensors) {
    static const char *const place[] = {"host", "cuda"};
    int first = -1;
    for (int i = 0; i < n; i++) {
        if (tensors[i]->dtype == HM_DTYPE_NONE) continue;
        if (first < 0) first = i;
        if (tensors[i]->place != tensors[first]->place)
            return hm_fail(HM_BAD_PLACE, "%s: %s is on %s; it has to be on %s, where %s is", op, names[i],
                           place[tensors[i]->place], place[tensors[first]->place], names[first]);
    }
    return HM_OK;
}

/* Distinct if, from the smallest stride up, each stride steps over all that the smaller ones reach. Every layout that
 * slicing and transposing a dense tensor gives is of that form. */
hm_status hm_check_distinct(const char *op, const char *name, const hm_tensor *t) {
    int order[4], n = 0;
    if (hm_tensor_elements(t) == 0) return HM_OK;
    for (int d = 0; d < t->ndim; d++) {
        if (t->shape[d] == 1) continue;
        if (t->stride[d] <= 0)
            return hm_fail(HM_BAD_STRIDE,
                           "%s: %s has stride %lld in dimension %d; an output's strides have to be positive", op, name,
                           (long long)t->stride[d], d);
        int at = n++;
        for (; at > 0 && t->stride[order[at - 1]] > t->stride[d]; at--) order[at] = order[at - 1];
        order[at] = d;
    }
    int64_t reach = 0;
    for (int i = 0; i < n; i++) {
        int d = order[i];
        if (t->stride[d] <= reach)
            return hm_fail(HM_BAD_STRIDE,
                           "%s: %s has stride %lld in dimension %d; elements of an output must not overlap, so it "
                           "has to be more than %lld",
                           op, name, (long long)t->stride[d], d, (long long)reach);
        reach += (t->shape[d] - 1) * t->stride[d];
    }
    return HM_OK;
}

static int64_t gcd(int64_t a, int64_t b) {
    a = a < 0 ? -a : a, b = b < 0 ? -b : b;
    while (b) {
        int64_t r = a % b;
        a = b, b = r;
    }
    return a;
}

/* true if no byte is in both. Two tensors whose byte ranges cross are still disjoint if their innermost runs never meet
 * modulo the common divisor of all outer strides: slices of one fused buffer. Other interleavings count as overlap. */
static bool disjoint(const hm_tensor *a, const hm_tensor *b) {
    int64_t alo, ahi, blo, bhi, period = 0, run[2];
    byte_range(a, &alo, &ahi), byte_range(b, &blo, &bhi);
    if (alo == ahi || blo == bhi) return true;
    intptr_t pa = (intptr_t)a->data, pb = (intptr_t)b->data;
    if (pa + ahi <= pb + blo || pb + bhi <= pa + alo) return true;
    const hm_tensor *both[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        const hm_tensor *t = both[i];
        int64_t size = (int64_t)hm_dtype_size(t->dtype), last = t->ndim - 1;
        if (t->shape[last] > 1 && t->stride[last] < 0) return false;
        run[i] = ((t->shape[last] - 1) * t->stride[last] + 1) * size;
        for (int d = 0; d < last; d++)
            if (t->shape[d] > 1) period = gcd(period, t->stride[d] * size);
    }
    if (period == 0) return false;
    int64_t shift = (int64_t)((pb - pa) % period);
    if (shift < 0) shift += period;
    return run[0] <= shift && run[1] <= period - shift;
}

static bool same_view(const hm_tensor *a, const hm_tensor *b) {
    if (a->data != b->data || a->dtype != b->dtype || a->ndim != b->ndim) return false;
    for (int d = 0; d < a->ndim; d++)
        if (a->shape[d] != b->shape[d] || (a->stride[d] != b->stride[d] && a->shape[d] > 1)) return false;
    return true;
}

hm_status hm_check_overlap(const char *op, const char *out_name, const hm_tensor *out, const char *name,
                           const hm_tensor *t, bool same_view_allowed) {
    if (t->dtype == HM_DTYPE_NONE || disjoint(out, t) || (same_view_allowed && same_view(out, t))) return HM_OK;
    return hm_fail(HM_BAD_ALIAS,
                   "%s: %s overlaps %s, from %lld bytes after its first element; it has to be %selsewhere", op,
                   out_name, name, (long long)((intptr_t)out->data - (intptr_t)t->data),
                   same_view_allowed ? "the same view or " : "");
}

hm_status hm_check_mode(const char *op, const char *name, int value, int n) {
    return value >= 0 && value < n
               ? HM_OK
               : hm_fail(HM_BAD_PARAM, "%s: %s is %d; it has to be 0 to %d", op, name, value, n - 1);
}

hm_status hm_check_eps(const char *op, double eps) {
    if (eps >= 0 && isfinite((float)eps)) return HM_OK;
    return hm_fail(HM_BAD_PARAM, "%s: eps is %g; it has to be 0 or more, and finite in f32", op, eps);
}

bool hm_is_float(hm_dtype dtype) { return dtype == HM_F32 || dtype == HM_F16 || dtype == HM_BF16; }

int64_t hm_row_count(const hm_tensor *t) {
    int64_t rows = 1;
    for (int d = 0; d < t->ndim - 1; d++) rows *= t->shape[d];
    return rows;
}

int64_t hm_row_offset(const hm_tensor *t, int64_t row) {
    int64_t offset = 0;
    for (int d = t->ndim - 2; d >= 0; d--) {
        offset += row % t->shape[d] * t->stride[d];
        row /= t->shape[d];
    }
    return offset;
}
