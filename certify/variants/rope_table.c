/* Legal variants of rope_table. In mode f32 inv_freq, the functions and the product with mscale are free within bounds;
 * a correctly rounded table is one table, so there each of them calls ref. */
#include <stdlib.h>

#include "../../op/check.h"
#include "../../op/dtype.h"
#include "../../op/rope_table.h"
#include "../rope_engine.h"

#define OP "rope_table"
#define VARIANT(what, about, ...)                                                 \
    {                                                                             \
        OP "." what, OP, about, "wide", run, &(const hm_rope_way) { __VA_ARGS__ } \
    }

static hm_status run(const void *variation, const void *args) {
    const hm_rope_table_args *a = args;
    hm_status status = hm_rope_table_check(a);
    if (status || a->precision == HM_TABLE_EXACT) return status ? status : hm_rope_table_ref(a);
    int64_t rows = a->out.shape[0], width = a->out.shape[1];
    double *v = malloc(((size_t)(rows * width) + 1) * sizeof *v);
    if (!v) return HM_NO_MEMORY;
    hm_rope_engine(variation, a, v);
    for (int64_t p = 0; p < rows; p++)
        hm_store_row(a->out.dtype, (char *)a->out.data + p * a->out.stride[0] * (int64_t)hm_dtype_size(a->out.dtype),
                     a->out.stride[1], width, v + p * width);
    free(v);
    return HM_OK;
}

const hm_variant hm_rope_table_variants[] = {
    VARIANT("steps", "upstream's f32 steps, each rounded"),
    VARIANT("inv_f64", "inv_freq in binary64, rounded once", .inv_f64 = true),
    VARIANT("inv_up", "inv_freq 3 ulp too large", .inv_f64 = true, .inv_ulps = 3),
    VARIANT("inv_down", "inv_freq 3 ulp too small", .inv_f64 = true, .inv_ulps = -3),
    VARIANT("inv_both", "inv_freq 2 ulp too large or too small, by turns", .inv_f64 = true, .inv_ulps = 2,
            .inv_both = true),
    VARIANT("functions_high", "cos and sin as far up as 2 ulp allow", .function = FUNCTION_HIGH),
    VARIANT("functions_low", "cos and sin as far down as 2 ulp allow", .function = FUNCTION_LOW, .inv_f64 = true),
    VARIANT("functions_libm", "sinf and cosf", .function = FUNCTION_LIBM32),
    VARIANT("scale_f64", "mscale in binary64, its product rounded to out's dtype alone", .scale_f64 = true),
    VARIANT("functions_f64", "cos and sin in binary64, rounded to out's dtype alone", .function = FUNCTION_F64,
            .scale_f64 = true),
    VARIANT("functions_f64_scaled", "cos and sin in binary64, their product with mscale in f32",
            .function = FUNCTION_F64, .inv_f64 = true),
};
const int hm_rope_table_variant_count = sizeof hm_rope_table_variants / sizeof *hm_rope_table_variants;
