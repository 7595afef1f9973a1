/* silu_and_mul: class wide. In binary64 from hm_exp (2^-52 of itself), a sum, a quotient and a product: 2^-50. */
#include "../op/silu_and_mul.h"

#include "../op/check.h"
#include "../op/dtype.h"
#include "../op/isa.h"
#include "math.h"

enum { CHUNK = 256 };

/* g := silu(g) */
HM_INLINE void silu_body(double *g, int64_t n) {
    for (int64_t i = 0; i < n; i++) g[i] = g[i] / (1 + hm_exp(-g[i]));
}
HM_DISPATCH(silu, (double *g, int64_t n), silu_body, (g, n))

static void one_row(const hm_silu_and_mul_args *a, int64_t row) {
    const hm_tensor *x = &a->x, *out = &a->out;
    int last = x->ndim - 1;
    int64_t size = (int64_t)hm_dtype_size(x->dtype), hidden = out->shape[last], step = x->stride[last];
    const char *from = (const char *)x->data + hm_row_offset(x, row) * size;
    char *to = (char *)out->data + hm_row_offset(out, row) * size;
    double g[CHUNK], u[CHUNK];
    for (int64_t i = 0; i < hidden; i += CHUNK) {
        int64_t n = hidden - i < CHUNK ? hidden - i : CHUNK;
        hm_load_row(x->dtype, from + i * step * size, step, n, g);
        hm_load_row(x->dtype, from + (hidden + i) * step * size, step, n, u);
        silu(g, n);
        if (a->round == HM_SILU_EACH) hm_round_row(x->dtype, n, g);
        for (int64_t k = 0; k < n; k++) g[k] *= u[k];
        hm_store_row(x->dtype, to + i * out->stride[last] * size, out->stride[last], n, g);
    }
}

hm_status hm_silu_and_mul_ref(const hm_silu_and_mul_args *args) {
    hm_silu_and_mul_args a;
    hm_status s = hm_silu_and_mul_read(args, &a);
    if (s) return s;
    if (a.out.place != HM_HOST) return hm_fail(HM_UNSUPPORTED, "silu_and_mul: ref works on host tensors only");
    int64_t elements = hm_tensor_elements(&a.out), rows = elements ? hm_row_count(&a.out) : 0;
#pragma omp parallel for schedule(static) if (elements > 16384)
    for (int64_t row = 0; row < rows; row++) one_row(&a, row);
    return HM_OK;
}
