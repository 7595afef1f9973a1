/* Gates of every size, and where f32 is at its end, in `heavy`; all else is the generator's. */
#include <hallmark/silu_and_mul.h>
#include <math.h>
#include <string.h>

#include "../../op/check.h"
#include "../../op/dtype.h"
#include "../inputs.h"

/* In [low, high). */
static double between(uint64_t r, double low, double high) { return low + (high - low) * (double)(r >> 11) * 0x1p-53; }

static double drawn(const hm_case_spec *spec, hm_dtype T, int64_t at, bool gate) {
    uint64_t r = hm_inputs_drawn(spec, gate ? "gate" : "up", (uint64_t)at),
             s = hm_inputs_drawn(spec, gate ? "gate's" : "up's", (uint64_t)at);
    double sign = s % 2 ? -1 : 1, size = between(s, 1, 2);
    int small = T == HM_F16 ? 24 : 130, large = T == HM_F16 ? 15 : 126;
    if (!gate) return sign * (r % 4 ? size * 2 - 1.5 : ldexp(size, (int)(r / 4 % (uint64_t)large)));
    switch (r % 8) {
        case 0: /* e^-g leaves f32 */
        case 1:
            return between(s, -110, -80);
        case 2:
            return sign * ldexp(size, (int)(r / 8 % (uint64_t)(small + 8)) - small);
        case 3:
            return between(s, -30, -8);
        case 4: /* what saturates, and what a gate of a trained model never has */
            return sign * ldexp(size, (int)(r / 8 % (uint64_t)large));
        default:
            return between(s, -8, 8);
    }
}

static bool fill(const hm_case_spec *spec, int arg, const void *args) {
    const hm_tensor *t = hm_arg_tensor(spec->op, args, arg);
    if (strcmp(spec->op->args[arg].name, "x") || !hm_inputs_generator(spec, "heavy") || !hm_is_float(t->dtype))
        return false;
    int64_t rows = hm_tensor_elements(t) > 0 ? hm_row_count(t) : 0, n = t->shape[t->ndim - 1];
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < n; i++)
            hm_store(t->dtype,
                     (char *)t->data +
                         (hm_row_offset(t, row) + i * t->stride[t->ndim - 1]) * (int64_t)hm_dtype_size(t->dtype),
                     drawn(spec, t->dtype, row * n + i, i < n / 2));
    return true;
}

const hm_inputs hm_silu_and_mul_inputs = {"silu_and_mul", fill, NULL, 0};
