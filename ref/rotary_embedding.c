/* rotary_embedding: binary64 between the rounding points (class wide): products of two values of f32 are exact there.
 * One head at a time, pairs in chunks: both elements of a pair are read before either is written, so that the call may
 * be in place. Of the table only the row that the token names is read; nothing is allocated. */
#include "../op/rotary_embedding.h"

#include <string.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "../op/isa.h"

enum { CHUNK = 128, ALONE = 16384 }; /* pairs converted at a time; elements that one thread does as fast as a team */

/* x, y := x c - y s, y c + x s, not yet rounded to T. */
HM_INLINE void once_body(int64_t n, double *x, double *y, const double *c, const double *s) {
    for (int64_t i = 0; i < n; i++) {
        double a = x[i] * c[i] - y[i] * s[i], b = y[i] * c[i] + x[i] * s[i];
        x[i] = a, y[i] = b;
    }
}
HM_INLINE void products_body(int64_t n, const double *x, const double *y, const double *c, const double *s, double *p) {
    for (int64_t i = 0; i < n; i++)
        p[i] = x[i] * c[i], p[CHUNK + i] = y[i] * s[i], p[2 * CHUNK + i] = y[i] * c[i], p[3 * CHUNK + i] = x[i] * s[i];
}
HM_INLINE void sums_body(int64_t n, const double *p, double *x, double *y) {
    for (int64_t i = 0; i < n; i++) x[i] = p[i] - p[CHUNK + i], y[i] = p[2 * CHUNK + i] + p[3 * CHUNK + i];
}
HM_INLINE void negate_body(int64_t n, double *s) {
    for (int64_t i = 0; i < n; i++) s[i] = -s[i];
}
HM_DISPATCH(once, (int64_t n, double *x, double *y, const double *c, const double *s), once_body, (n, x, y, c, s))
HM_DISPATCH(products, (int64_t n, const double *x, const double *y, const double *c, const double *s, double *p),
            products_body, (n, x, y, c, s, p))
HM_DISPATCH(sums, (int64_t n, const double *p, double *x, double *y), sums_body, (n, p, x, y))
HM_DISPATCH(negate, (int64_t n, double *s), negate_body, (n, s))

/* c and s are T's values already. */
static void each(hm_dtype T, int64_t n, double *x, double *y, const double *c, const double *s) {
    double p[4 * CHUNK];
    products(n, x, y, c, s, p);
    for (int k = 0; k < 4; k++) hm_round_row(T, n, p + k * CHUNK);
    sums(n, p, x,
         y); /* RN_T when they are stored: binary64 has twice the bits of T and two more, so that is one rounding */
}

/* n elements of a head, bit for bit. */
static void copy(char *to, int64_t to_step, const char *from, int64_t step, size_t size, int64_t n) {
    if (to_step == 1 && step == 1) memcpy(to, from, (size_t)n * size);
    else
        for (int64_t i = 0; i < n; i++) memcpy(to + i * to_step * (int64_t)size, from + i * step * (int64_t)size, size);
}

/* Head `row` (counted over tokens, then heads) of from to the same head of to. */
static void rotate_head(const hm_rotary_embedding_args *a, const hm_tensor *from, const hm_tensor *to, int64_t row) {
    hm_dtype T = from->dtype, C = a->cos_sin_cache.dtype;
    int last = from->ndim - 1;
    int64_t size = (int64_t)hm_dtype_size(T), table_size = (int64_t)hm_dtype_size(C), head_size = from->shape[last];
    int64_t pairs = a->cos_sin_cache.shape[1] / 2, offset = a->rope_dim_offset, token = row / from->shape[last - 1];
    int64_t step = from->stride[last], to_step = to->stride[last], column = a->cos_sin_cache.stride[1];
    bool interleaved = a->pairing == HM_PAIR_INTERLEAVED;
    int64_t y_at = interleaved ? 1 : pairs, pair = interleaved ? 2 : 1; /* elements from x to y, and to the next pair */
    const char *f = (const char *)from->data + hm_row_offset(from, row) * size;
    char *t = (char *)to->data + hm_row_offset(to, row) * size;
    int64_t position = ((const int64_t *)a->positions.data)[hm_token_offset(&a->positions, a->positions.ndim, token)];
    const char *table = (const char *)a->cos_sin_cache.data + position * a->cos_sin_cache.stride[0] * table_size;
    double x[CHUNK], y[CHUNK], c[CHUNK], s[CHUNK];

    if (f != t) {
        int64_t end = offset + 2 * pairs;
        copy(t, to_step, f, step, (size_t)size, offset);
        copy(t + end * to_step * size, to_step, f + end * step * size, step, (size_t)size, head_size - end);
    }
    for (int64_t i = 0; i < pairs; i += CHUNK) {
        int64_t n = pairs - i < CHUNK ? pairs - i : CHUNK, first = offset + i * pair;
        hm_load_row(T, f + first * step * size, pair * step, n, x);
        hm_load_row(T, f + (first + y_at) * step * size, pair * step, n, y);
        hm_load_row(C, table + i * column * table_size, column, n, c);
        hm_load_row(C, table + (pairs + i) * column * table_size, column, n, s);
        if (a->inverse == HM_ROTATE_INVERSE) negate(n, s);
        if (a->round == HM_ROTARY_EACH) {
            hm_round_row(T, n, c);
            hm_round_row(T, n, s);
            each(T, n, x, y, c, s);
        } else {
            once(n, x, y, c, s);
        }
        hm_store_row(T, t + first * to_step * size, pair * to_step, n, x);
        hm_store_row(T, t + (first + y_at) * to_step * size, pair * to_step, n, y);
    }
}

static void rotate(const hm_rotary_embedding_args *a, const hm_tensor *from, const hm_tensor *to) {
    int64_t elements = hm_tensor_elements(from), heads = elements ? hm_row_count(from) : 0;
    if (elements <= ALONE) /* without a parallel region, which would allocate a team */
        for (int64_t row = 0; row < heads; row++) rotate_head(a, from, to, row);
    else
#pragma omp parallel for schedule(static)
        for (int64_t row = 0; row < heads; row++) rotate_head(a, from, to, row);
}

hm_status hm_rotary_embedding_ref(const hm_rotary_embedding_args *args) {
    hm_rotary_embedding_args a;
    hm_status s = hm_rotary_embedding_read(args, &a);
    if (s) return s;
    if (a.query.place != HM_HOST) return hm_fail(HM_UNSUPPORTED, "rotary_embedding: ref works on host tensors only");
    rotate(&a, &a.query, &a.query_out);
    if (a.key.dtype != HM_DTYPE_NONE) rotate(&a, &a.key, &a.key_out);
    return HM_OK;
}
