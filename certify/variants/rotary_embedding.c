/* Legal ways to compute rotary_embedding: every form of a b + p q that golden names, in genuine f32 (compiled with
 * -ffp-contract=off: what is fused is written fmaf), or wider. */
#include <float.h>
#include <hallmark/rotary_embedding.h>
#include <math.h>
#include <string.h>

#include "../../op/check.h"
#include "../../op/dtype.h"
#include "../../op/rotary_embedding.h"
#include "tables.h"

typedef struct {
    enum { PLAIN = 0, FUSES_FIRST, FUSES_SECOND, FUSES_EITHER, KEEPS_BOTH, WIDE, EXACT } form;
    bool flush; /* f32 subnormals are 0, as operands and as results */
} variant;

static float f(const variant *v, float a) { return v->flush && fabsf(a) < FLT_MIN ? 0 : a; }

/* u + w, both exact products, rounded to T once: TwoSum, and the last bit set where something is left over. */
static double rounded_sum(hm_dtype T, double u, double w) {
    double h = u + w, w1 = h - u, rest = (u - (h - w1)) + (w - w1);
    if (rest == 0 || !isfinite(h) || h == 0 || !isfinite(rest)) return hm_round_to(T, h);
    int64_t bits;
    memcpy(&bits, &h, sizeof bits);
    if (!(bits & 1)) h = nextafter(h, rest > 0 ? INFINITY : -INFINITY);
    return hm_round_to(T, h);
}

/* a b + p q, once. is_y: which of the two results it is. */
static double once(const variant *v, hm_dtype T, bool is_y, double a, double b, double p, double q) {
    float fa = f(v, (float)a), fb = f(v, (float)b), fp = f(v, (float)p), fq = f(v, (float)q);
    bool first = v->form == FUSES_FIRST || (v->form == FUSES_EITHER && is_y);
    if (v->form == WIDE) return a * b + p * q;
    if (v->form == EXACT) return rounded_sum(T, a * b, p * q);
    if (v->form == KEEPS_BOTH) return rounded_sum(HM_F32, a * b, p * q);
    if (v->form == PLAIN) return (double)f(v, f(v, fa * fb) + f(v, fp * fq));
    if (first) return (double)f(v, fmaf(fa, fb, f(v, fp * fq)));
    return (double)f(v, fmaf(fp, fq, f(v, fa * fb)));
}

static double each(const variant *v, hm_dtype T, double a, double b, double p, double q) {
    if (v->form == WIDE || v->form == EXACT) return hm_round_to(T, a * b) + hm_round_to(T, p * q);
    float u = (float)hm_round_to(T, (double)f(v, f(v, (float)a) * f(v, (float)b)));
    float w = (float)hm_round_to(T, (double)f(v, f(v, (float)p) * f(v, (float)q)));
    return (double)f(v, f(v, u) + f(v, w));
}

static void rotate_head(const variant *v, const hm_rotary_embedding_args *a, const hm_tensor *in, const hm_tensor *out,
                        int64_t row) {
    hm_dtype T = in->dtype;
    int last = in->ndim - 1;
    int64_t n = in->shape[last], size = (int64_t)hm_dtype_size(T), pairs = a->cos_sin_cache.shape[1] / 2,
            offset = a->rope_dim_offset;
    const hm_tensor *table = &a->cos_sin_cache;
    int64_t token = row / in->shape[last - 1], table_size = (int64_t)hm_dtype_size(table->dtype);
    int64_t position = ((const int64_t *)a->positions.data)[hm_token_offset(&a->positions, a->positions.ndim, token)];
    const char *from = (const char *)in->data + hm_row_offset(in, row) * size;
    const char *entry = (const char *)table->data + position * table->stride[0] * table_size;
    char *to = (char *)out->data + hm_row_offset(out, row) * size;
    bool interleaved = a->pairing == HM_PAIR_INTERLEAVED;
    for (int64_t i = 0; i < n; i++)
        if (i < offset || i >= offset + 2 * pairs)
            memmove(to + i * out->stride[last] * size, from + i * in->stride[last] * size, (size_t)size);
    for (int64_t i = 0; i < pairs; i++) {
        int64_t xi = offset + (interleaved ? 2 * i : i), yi = interleaved ? xi + 1 : xi + pairs;
        double x = hm_load(T, from + xi * in->stride[last] * size), y = hm_load(T, from + yi * in->stride[last] * size);
        double c = hm_load(table->dtype, entry + i * table->stride[1] * table_size);
        double s = hm_load(table->dtype, entry + (pairs + i) * table->stride[1] * table_size);
        if (a->inverse == HM_ROTATE_INVERSE) s = -s;
        double nx, ny;
        if (a->round == HM_ROTARY_EACH) {
            c = hm_round_to(T, c), s = hm_round_to(T, s);
            nx = each(v, T, x, c, -y, s), ny = each(v, T, y, c, x, s);
        } else {
            nx = once(v, T, false, x, c, -y, s), ny = once(v, T, true, y, c, x, s);
        }
        if (v->flush && T != HM_F16) { /* the result, once more in T */
            nx = (double)f(v, (float)hm_round_to(T, nx)), ny = (double)f(v, (float)hm_round_to(T, ny));
        }
        hm_store(T, to + xi * out->stride[last] * size, nx);
        hm_store(T, to + yi * out->stride[last] * size, ny);
    }
}

static hm_status run(const void *variation, const void *args) {
    const hm_rotary_embedding_args *a = args;
    hm_status status = hm_rotary_embedding_check(a);
    if (status) return status;
    for (int key = 0; key < 1 + (a->key.dtype != HM_DTYPE_NONE); key++) {
        const hm_tensor *in = key ? &a->key : &a->query, *out = key ? &a->key_out : &a->query_out;
        int64_t rows = hm_tensor_elements(in) ? hm_row_count(in) : 0;
        for (int64_t row = 0; row < rows; row++) rotate_head(variation, a, in, out, row);
    }
    return HM_OK;
}

#define VARIANT(what, about, class_name, ...)                                                                  \
    {                                                                                                          \
        "rotary_embedding." what, "rotary_embedding", about, class_name, run, &(const variant) { __VA_ARGS__ } \
    }
const hm_variant hm_rotary_embedding_variants[] = {
    VARIANT("plain", "f32: two products and a sum, each rounded", "chain64", .form = PLAIN),
    VARIANT("fuses_first", "f32: the product with the cosine is contracted into the sum", "chain64",
            .form = FUSES_FIRST),
    VARIANT("fuses_second", "f32: the product with the sine is contracted into the sum", "chain64",
            .form = FUSES_SECOND),
    VARIANT("fuses_either", "f32: one product in x', the other in y', as compilers do", "chain64",
            .form = FUSES_EITHER),
    VARIANT("keeps_both", "both products exact, the sum rounded to f32", "chain64", .form = KEEPS_BOTH),
    VARIANT("flushed", "f32, subnormals flushed to 0 everywhere", "chain64", .form = PLAIN, .flush = true),
    VARIANT("flushed_fused", "f32 with contraction, subnormals flushed to 0 everywhere", "chain64",
            .form = FUSES_SECOND, .flush = true),
    VARIANT("wide", "binary64", "wide", .form = WIDE),
    VARIANT("exact", "no rounding at all before the result's", "wide", .form = EXACT),
};
const int hm_rotary_embedding_variant_count =
    sizeof hm_rotary_embedding_variants / sizeof *hm_rotary_embedding_variants;
