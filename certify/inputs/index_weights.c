/* Scales of queries: positive, powers of two or not; what is special about a generator is in the weights. */
#include <hallmark/index_weights.h>
#include <math.h>
#include <string.h>

#include "../../op/check.h"
#include "../../op/dtype.h"
#include "../inputs.h"

static bool fill(const hm_case_spec *spec, int arg, const void *args) {
    const hm_tensor *t = hm_arg_tensor(spec->op, args, arg);
    if (strcmp(spec->op->args[arg].name, "q_scale") || (t->dtype != HM_F32 && t->dtype != HM_E8M0)) return false;
    if (hm_inputs_generator(spec, "bits") || hm_inputs_generator(spec, "special")) return false;
    int64_t rows = hm_tensor_elements(t) > 0 ? hm_row_count(t) : 0, n = t->shape[t->ndim - 1];
    bool exact = hm_inputs_generator(spec, "exact") || t->dtype == HM_E8M0;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < n; i++) {
            uint64_t r = hm_inputs_drawn(spec, "q_scale", (uint64_t)(row * n + i));
            double scale = ldexp(1, -(int)(r % 12)), part = 1 + (double)(r >> 12 & 0x7FFFFF) * 0x1p-23;
            if (hm_inputs_generator(spec, "tiny")) scale = ldexp(scale, -40);
            if (hm_inputs_generator(spec, "huge")) scale = ldexp(scale, 60);
            hm_store(t->dtype,
                     (char *)t->data +
                         (hm_row_offset(t, row) + i * t->stride[t->ndim - 1]) * (int64_t)hm_dtype_size(t->dtype),
                     exact || r >> 62 == 0 ? scale : scale * part);
        }
    return true;
}

const hm_inputs hm_index_weights_inputs = {"index_weights", fill, NULL, 0};
