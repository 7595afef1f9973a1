#include "attention.h"

#include <math.h>

#include "../../op/dtype.h"
#include "../layout.h"

/* q = (a, -a, b, -b, .., 1, -1) and a winner (v, v, w, w, ..): the sum is 0 in any order. A loser ends in 0, 4096. */
bool hm_inputs_exact_queries(const hm_case_spec *spec, const hm_tensor *q) {
    if (!hm_inputs_generator(spec, "exact") && !hm_inputs_generator(spec, "ties")) return false;
    int64_t width = q->shape[q->ndim - 1], n = hm_tensor_elements(q), size = (int64_t)hm_dtype_size(q->dtype);
    for (int64_t i = 0; i < n; i++) {
        int64_t d = i % width, pair = i - d % 2;
        double a = d >= width - 2 ? 1 : (double)hm_inputs_below(spec, "q", (uint64_t)pair, 5) - 2;
        hm_store(q->dtype, (char *)q->data + hm_view_offset(q, i) * size, d % 2 ? -a : a);
    }
    return true;
}

bool hm_inputs_exact_key(const hm_case_spec *spec, int64_t key, bool winner, int64_t width, double *to) {
    bool ties = hm_inputs_generator(spec, "ties");
    if (!ties && !hm_inputs_generator(spec, "exact")) return false;
    int64_t most = ties ? 127 : 8;
    for (int64_t d = 0; d < width; d++)
        to[d] = (double)(hm_inputs_below(spec, "key", (uint64_t)(key * width + d - d % 2), 2 * most + 1) - most);
    if (!winner && width >= 2) to[width - 2] = 0, to[width - 1] = 4096;
    return true;
}

#define LARGE 64.0
#define SMALL 0x1p-6

bool hm_inputs_stagnate_queries(const hm_case_spec *spec, const hm_tensor *q, double scale) {
    if (!hm_inputs_generator(spec, "stagnate")) return false;
    int64_t width = q->shape[q->ndim - 1], n = hm_tensor_elements(q), size = (int64_t)hm_dtype_size(q->dtype);
    double root = scale == 0 ? 1 / sqrt((double)(width > 0 ? width : 1)) : fabs(scale);
    int product = 5 - (isfinite(root) ? ilogb(root) : 0); /* LARGE times the query's is 2^product */
    product = product < 4 ? 4 : product > 21 ? 21 : product;
    for (int64_t i = 0; i < n; i++)
        hm_store(q->dtype, (char *)q->data + hm_view_offset(q, i) * size,
                 hm_inputs_stagnate((i / width + (int64_t)(spec->seed % 4)) % 4, i % width, width,
                                    ldexp(1 / LARGE, product), ldexp(1 / SMALL, product - 24)));
    return true;
}

bool hm_inputs_stagnate_key(const hm_case_spec *spec, int64_t width, double *to) {
    if (!hm_inputs_generator(spec, "stagnate")) return false;
    for (int64_t d = 0; d < width; d++) to[d] = hm_inputs_stagnate(-1, d, width, LARGE, SMALL);
    return true;
}

bool hm_inputs_sinks(const hm_case_spec *spec, const hm_tensor *sink) {
    bool exact = hm_inputs_generator(spec, "exact") || hm_inputs_generator(spec, "ties");
    if (sink->dtype != HM_F32 || sink->ndim != 1 || hm_inputs_generator(spec, "special")) return false;
    for (int64_t h = 0; h < sink->shape[0]; h++) {
        uint64_t r = hm_inputs_drawn(spec, "attn_sink", (uint64_t)h);
        double v = (double)(r % 4096) / 512 - 3;
        if (exact || h % 4 == 3) v = -INFINITY;
        else if (h % 4 == 2) v = r % 2 ? -80 : 12;
        hm_store(HM_F32, (char *)sink->data + h * sink->stride[0] * 4, v);
    }
    return true;
}
