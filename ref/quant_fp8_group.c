/* quant_fp8_group: one group after the other. */
#include "../op/quant_fp8_group.h"

#include <math.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "fp8.h"

enum { CHUNK = 256 };

/* x, to: the group's first element; steps in elements. Returns the scale. */
static double quantise_group(const hm_quant_fp8_group_args *a, const char *x, uint8_t *to) {
    double v[CHUNK], amax = 0;
    int64_t x_step = a->x.stride[a->x.ndim - 1], step = a->codes.stride[a->codes.ndim - 1];
    int64_t size = (int64_t)hm_dtype_size(a->x.dtype);
    for (int64_t i = 0; i < a->group_size; i += CHUNK) {
        int64_t n = a->group_size - i < CHUNK ? a->group_size - i : CHUNK;
        hm_load_row(a->x.dtype, x + i * x_step * size, x_step, n, v);
        for (int64_t k = 0; k < n; k++) amax = fabs(v[k]) > amax ? fabs(v[k]) : amax; /* NaN is never larger */
    }
    double S = hm_fp8_scale(amax, a->divisor, a->floor, a->floor_on == HM_FLOOR_SCALE,
                            a->scale_format == HM_SCALE_UE8M0),
           inverse = (double)(float)(1 / S);
    hm_overflow overflow = a->overflow == HM_FP8_IEEE ? HM_OVERFLOW_IEEE : HM_OVERFLOW_SATURATE;
    for (int64_t i = 0; i < a->group_size; i += CHUNK) {
        int64_t n = a->group_size - i < CHUNK ? a->group_size - i : CHUNK;
        hm_load_row(a->x.dtype, x + i * x_step * size, x_step, n, v);
        for (int64_t k = 0; k < n; k++)
            to[(i + k) * step] =
                hm_store8(a->codes.dtype, a->divide == HM_QUANT_DIVIDE ? v[k] / S : v[k] * inverse, overflow);
    }
    return S;
}

static void quantise_row(const hm_quant_fp8_group_args *a, int64_t row) {
    const hm_tensor *codes = &a->codes, *scale = &a->scale;
    int last = a->x.ndim - 1;
    int64_t size = (int64_t)hm_dtype_size(a->x.dtype), scale_size = (int64_t)hm_dtype_size(scale->dtype);
    const char *x = (const char *)a->x.data + hm_row_offset(&a->x, row) * size;
    uint8_t *to = (uint8_t *)codes->data + hm_row_offset(codes, row);
    char *scale_to = (char *)scale->data + hm_row_offset(scale, row) * scale_size;
    for (int64_t g = 0; g < scale->shape[last]; g++) {
        int64_t first = g * a->group_size;
        double S = quantise_group(a, x + first * a->x.stride[last] * size, to + first * codes->stride[last]);
        hm_store(scale->dtype, scale_to + g * scale->stride[last] * scale_size, S);
    }
}

hm_status hm_quant_fp8_group_ref(const hm_quant_fp8_group_args *args) {
    hm_quant_fp8_group_args a;
    hm_status s = hm_quant_fp8_group_read(args, &a);
    if (s) return s;
    if (a.codes.place != HM_HOST) return hm_fail(HM_UNSUPPORTED, "quant_fp8_group: ref works on host tensors only");
    int64_t elements = hm_tensor_elements(&a.x), rows = elements ? hm_row_count(&a.x) : 0;
#pragma omp parallel for schedule(static) if (elements > 16384)
    for (int64_t row = 0; row < rows; row++) quantise_row(&a, row);
    return HM_OK;
}
