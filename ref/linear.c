/* linear: f32 in the order that linear.h fixes. Rows of x are converted once, weights as they are read: 4 rows of x
 * share a pass over a row of the weight. Vectors of 16 lanes are what the compiler makes of them on each machine; no
 * lane's order depends on it. */
#include <stdlib.h>
#include <string.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "../op/isa.h"
#include "../op/linear.h"

enum { LANES = 16, WIDTH = 8, VECTORS = LANES / WIDTH, BLOCK = 512, ROWS = 64, TOGETHER = 4 };

typedef float lanes __attribute__((vector_size(4 * WIDTH)));
typedef float quad __attribute__((vector_size(16)));
typedef uint32_t words __attribute__((vector_size(4 * WIDTH)));
typedef uint16_t halves __attribute__((vector_size(2 * WIDTH)));

/* WIDTH values as f32. f16: exponent and fraction moved to their places are the value times 2^-112, which multiplies
 * exactly, subnormals too. */
HM_INLINE void load(hm_dtype dtype, const char *at, lanes *to) {
    if (dtype == HM_F32) {
        memcpy(to, at, sizeof *to);
        return;
    }
    halves h;
    memcpy(&h, at, sizeof h);
    words bits = __builtin_convertvector(h, words);
    if (dtype == HM_BF16) {
        bits <<= 16;
        memcpy(to, &bits, sizeof bits);
        return;
    }
    words magnitude = bits & 0x7FFF, sign = (bits & 0x8000) << 16, special = (words)(magnitude >= 0x7C00) & 0x7F800000;
    words shifted = magnitude << 13;
    lanes v;
    memcpy(&v, &shifted, sizeof v);
    v *= 0x1p112f;
    memcpy(&bits, &v, sizeof bits);
    bits |= sign | special; /* an infinity was 2^16, with a fraction of 0; a NaN has one that is not */
    memcpy(to, &bits, sizeof bits);
}

/* The lanes of four rows added as linear.h says: l + 8 and l + 4 in each row; then, turned so that a vector holds lane l
 * of every row, l + 2 and l + 1. */
HM_INLINE void sum_four(lanes total[TOGETHER][VECTORS], float *sums) {
    quad q[TOGETHER], lane[4];
    for (int m = 0; m < TOGETHER; m++) {
        lanes v = total[m][0] + total[m][1];
        q[m] = __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
    }
    quad a = __builtin_shufflevector(q[0], q[1], 0, 4, 1, 5), b = __builtin_shufflevector(q[2], q[3], 0, 4, 1, 5);
    quad c = __builtin_shufflevector(q[0], q[1], 2, 6, 3, 7), d = __builtin_shufflevector(q[2], q[3], 2, 6, 3, 7);
    lane[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5), lane[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
    lane[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5), lane[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
    quad sum = (lane[0] + lane[2]) + (lane[1] + lane[3]);
    memcpy(sums, &sum, sizeof sum);
}

/* sums[m] = x[m * step ..] w for `count` rows of x, of n elements each and padded with zeros to a multiple of 16. */
HM_INLINE void products_of(hm_dtype dtype, int64_t size, const float *x, int64_t step, int count, const char *w,
                           int64_t n, float *sums) {
    lanes total[TOGETHER][VECTORS] = {0}, acc[TOGETHER][VECTORS], a, b[VECTORS];
    for (int64_t block = 0; block < n; block += BLOCK) {
        int64_t end = n - block < BLOCK ? n : block + BLOCK;
        for (int m = 0; m < count; m++)
            for (int v = 0; v < VECTORS; v++) acc[m][v] = (lanes){0};
        for (int64_t k = block; k < end; k += LANES) {
            char rest[LANES * sizeof(float)] = {0};
            const char *at = w + k * size;
            if (n - k < LANES) at = memcpy(rest, at, (size_t)((n - k) * size));
            for (int v = 0; v < VECTORS; v++) load(dtype, at + v * WIDTH * size, &b[v]);
            for (int m = 0; m < count; m++)
                for (int v = 0; v < VECTORS; v++) {
                    memcpy(&a, x + m * step + k + v * WIDTH, sizeof a);
                    acc[m][v] += a * b[v];
                }
        }
        for (int m = 0; m < count; m++)
            for (int v = 0; v < VECTORS; v++) total[m][v] += acc[m][v];
    }
    if (count == TOGETHER) {
        sum_four(total, sums);
        return;
    }
    for (int m = 0; m < count; m++) {
        float l[LANES];
        memcpy(l, total[m], sizeof l);
        for (int half = LANES / 2; half; half /= 2)
            for (int j = 0; j < half; j++) l[j] += l[j + half];
        sums[m] = l[0];
    }
}
HM_INLINE void products_counted(hm_dtype dtype, int64_t size, const float *x, int64_t step, int count, const char *w,
                                int64_t n, float *sums) {
    int m = 0;
    for (; m + TOGETHER <= count; m += TOGETHER) products_of(dtype, size, x + m * step, step, TOGETHER, w, n, sums + m);
    for (; m < count; m++) products_of(dtype, size, x + m * step, step, 1, w, n, sums + m);
}
HM_INLINE void products_body(hm_dtype dtype, const float *x, int64_t step, int count, const char *w, int64_t n,
                             float *sums) {
    if (dtype == HM_F32) products_counted(HM_F32, 4, x, step, count, w, n, sums);
    else if (dtype == HM_BF16) products_counted(HM_BF16, 2, x, step, count, w, n, sums);
    else products_counted(HM_F16, 2, x, step, count, w, n, sums);
}
HM_DISPATCH(products, (hm_dtype dtype, const float *x, int64_t step, int count, const char *w, int64_t n, float *sums),
            products_body, (dtype, x, step, count, w, n, sums))

static const char *element(const hm_tensor *t, int64_t offset) {
    return (const char *)t->data + offset * (int64_t)hm_dtype_size(t->dtype);
}

/* A row of x as f32, padded with zeros. */
static void load_row(const hm_tensor *x, int64_t row, int64_t padded, float *to) {
    int last = x->ndim - 1;
    int64_t n = x->shape[last], offset = hm_row_offset(x, row), step = x->stride[last];
    double part[256];
    for (int64_t k = 0; k < n; k += 256) {
        int64_t some = n - k < 256 ? n - k : 256;
        hm_load_row(x->dtype, element(x, offset + k * step), step, some, part);
        for (int64_t i = 0; i < some; i++) to[k + i] = (float)part[i];
    }
    memset(to + n, 0, (size_t)(padded - n) * sizeof *to);
}

/* Row f of the weight as neighbours: itself, or a copy in `copy`. */
static const char *weight_row(const hm_tensor *w, int64_t f, char *copy) {
    int64_t size = (int64_t)hm_dtype_size(w->dtype), n = w->shape[1], step = w->stride[1];
    const char *at = element(w, f * w->stride[0]);
    if (step == 1) return at;
    for (int64_t k = 0; k < n; k++) memcpy(copy + k * size, at + k * step * size, (size_t)size);
    return copy;
}

/* Feature f of rows first .. first + rows - 1, which lie in x. */
static void feature(const hm_linear_args *a, const float *x, int64_t padded, int64_t first, int64_t rows, int64_t f,
                    char *copy) {
    const hm_tensor *out = &a->out, *bias = &a->bias;
    float sums[ROWS], b = bias->dtype ? (float)hm_load(bias->dtype, element(bias, f * bias->stride[0])) : 0;
    double y[ROWS];
    products(a->weight.dtype, x, padded, (int)rows, weight_row(&a->weight, f, copy), a->weight.shape[1], sums);
    for (int64_t m = 0; m < rows; m++) y[m] = (double)(bias->dtype ? sums[m] + b : sums[m]);
    int64_t column = f * out->stride[out->ndim - 1];
    if (out->ndim == 2) {
        hm_store_row(out->dtype, (char *)element(out, first * out->stride[0] + column), out->stride[0], rows, y);
        return;
    }
    for (int64_t m = 0; m < rows; m++)
        hm_store(out->dtype, (char *)element(out, hm_row_offset(out, first + m) + column), y[m]);
}

hm_status hm_linear_ref(const hm_linear_args *args) {
    hm_linear_args a;
    hm_status s = hm_linear_read(args, &a);
    if (s) return s;
    if (a.out.place != HM_HOST) return hm_fail(HM_UNSUPPORTED, "linear: ref works on host tensors only");
    if (!hm_tensor_elements(&a.out)) return HM_OK;
    int64_t rows = hm_row_count(&a.out), features = a.weight.shape[0], n = a.weight.shape[1];
    int64_t padded = (n + LANES - 1) / LANES * LANES, some = rows < ROWS ? rows : ROWS;
    float *x = malloc((size_t)(some * padded + 1) * sizeof *x);
    bool failed = !x, large = (double)rows * (double)features * (double)n > 0x1p18;
    for (int64_t first = 0; first < rows && !failed; first += ROWS) {
        int64_t count = rows - first < ROWS ? rows - first : ROWS;
#pragma omp parallel if (large)
        {
            char *copy = malloc((size_t)n * 4 + 1);
#pragma omp for schedule(static)
            for (int64_t m = 0; m < count; m++) load_row(&a.x, first + m, padded, x + m * padded);
#pragma omp for schedule(static)
            for (int64_t f = 0; f < features; f++) {
                if (copy) feature(&a, x, padded, first, count, f, copy);
                else {
#pragma omp atomic write
                    failed = true;
                }
            }
            free(copy);
        }
    }
    free(x);
    return failed ? hm_fail(HM_NO_MEMORY, "linear: no memory for %lld rows of %lld", (long long)some, (long long)n)
                  : HM_OK;
}
