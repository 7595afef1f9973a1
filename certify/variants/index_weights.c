/* Legal ways to compute index_weights, in genuine f32. Left to right there is one answer but for flushes. */
#include <float.h>
#include <hallmark/index_weights.h>
#include <math.h>

#include "../../op/check.h"
#include "../../op/dtype.h"
#include "../../op/index_weights.h"
#include "tables.h"

typedef struct {
    enum {
        ORDER_LEFT_TO_RIGHT = 0,
        ORDER_CONSTANTS_FIRST,
        ORDER_CONSTANTS_TO_WEIGHT,
        ORDER_HEADS_FIRST,
        ORDER_TO_SCALE
    } order;
    bool backward, flush, wide;
} variant_t;

static float f(const variant_t *v, float a) { return v->flush && fabsf(a) < FLT_MIN ? 0 : a; }

static float product(const variant_t *v, float w, float s, float d, float h) {
    switch (v->order) {
        case ORDER_CONSTANTS_FIRST:
            return f(v, f(v, w * s) * f(v, d * h));
        case ORDER_CONSTANTS_TO_WEIGHT:
            return f(v, f(v, f(v, w * d) * h) * s);
        case ORDER_HEADS_FIRST:
            return f(v, f(v, f(v, w * h) * s) * d);
        case ORDER_TO_SCALE:
            return f(v, w * f(v, f(v, s * d) * h));
        default:
            return f(v, f(v, f(v, w * s) * d) * h);
    }
}

static double load(const hm_tensor *t, int64_t row, int64_t i) {
    if (t->dtype == HM_DTYPE_NONE) return 1;
    return hm_load(t->dtype, (const char *)t->data + (hm_row_offset(t, row) + i * t->stride[t->ndim - 1]) *
                                                         (int64_t)hm_dtype_size(t->dtype));
}

static hm_status run(const void *variation, const void *args) {
    const variant_t *v = variation;
    hm_index_weights_args a;
    hm_status status = hm_index_weights_read(args, &a);
    if (status || !hm_tensor_elements(&a.weights)) return status;
    int64_t rows = hm_row_count(&a.weights), heads = a.weights.shape[a.weights.ndim - 1];
    float d = (float)hm_inverse_root_f32(a.head_dim), h = (float)hm_inverse_root_f32(heads);
    variant_t in_order = *v;
    if (a.order == HM_WEIGHTS_L2R) in_order.order = ORDER_LEFT_TO_RIGHT;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t k = 0; k < heads; k++) {
            int64_t i = v->backward ? heads - 1 - k : k;
            double w = load(&a.weights, row, i), s = load(&a.q_scale, row, i), y;
            if (v->wide && a.order == HM_WEIGHTS_ANY) y = w / sqrt((double)heads) * s / sqrt((double)a.head_dim);
            else y = (double)product(&in_order, f(v, (float)w), f(v, (float)s), d, h);
            hm_store(HM_F32, (char *)a.out.data + (hm_row_offset(&a.out, row) + i * a.out.stride[a.out.ndim - 1]) * 4,
                     y);
        }
    return HM_OK;
}

#define VARIANT(what, about, class_name, ...)                                                              \
    {                                                                                                      \
        "index_weights." what, "index_weights", about, class_name, run, &(const variant_t) { __VA_ARGS__ } \
    }
const hm_variant hm_index_weights_variants[] = {
    VARIANT("left_to_right", "as it is written", "chain64", 0),
    VARIANT("constants_first", "the two roots multiplied first", "chain64", .order = ORDER_CONSTANTS_FIRST),
    VARIANT("constants_to_weight", "the roots go to the weight before the scale", "chain64",
            .order = ORDER_CONSTANTS_TO_WEIGHT, .backward = true),
    VARIANT("heads_first", "the number of heads first", "chain64", .order = ORDER_HEADS_FIRST),
    VARIANT("to_scale", "the roots go to the scale", "chain64", .order = ORDER_TO_SCALE),
    VARIANT("flush", "f32 subnormals are 0", "chain64", .flush = true),
    VARIANT("wide", "binary64, two divisions", "wide", .wide = true, .backward = true),
};
const int hm_index_weights_variant_count = sizeof hm_index_weights_variants / sizeof *hm_index_weights_variants;
