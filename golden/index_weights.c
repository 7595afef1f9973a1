/* index_weights: one element is w s / sqrt(D H): a root of root.h with q = |w s| (exact in binary64), v = 1, d = D H.
 *
 * In f32 three products and two constants are rounded: within R = |y| ((1 + u)^5 - 1) of the exact value, and in wide
 * the same with 2^-50 for the roots. Where f32 may flush, a product loses 2^-126 of itself and of an operand and is
 * multiplied by at most one of w and s afterwards: 2^-123 max(1, |w|, |s|) covers all three; a subnormal operand may
 * be taken for 0. An order that multiplies w and s first overflows where |w s| does: that element is range-free.
 * Left to right every rounding is declared, so that there is one value, but for flushes.
 *
 * Tier 1: w s is exact, the root and the quotient are off by 2^-53 each: less than 2^-51 of y. */
#include <math.h>
#include <stdlib.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "../op/index_weights.h"
#include "op.h"
#include "root.h"

#define F32_LIMIT (0x1p128 * (1 - 0x1p-20))
#define GROW (1 + 0x1p-20) /* the roundings of a radius */

typedef struct {
    hm_index_weights_args a;
    int64_t heads;
    double d, root; /* D H and its root */
} context_t;

static hm_status open_context(const void *args, int threads, void **context) {
    (void)threads;
    context_t *c = calloc(1, sizeof *c);
    if (!c) return hm_fail(HM_NO_MEMORY, "golden: no memory");
    hm_status s = hm_index_weights_read(args, &c->a);
    if (s) {
        free(c);
        return s;
    }
    c->heads = c->a.weights.shape[c->a.weights.ndim - 1];
    c->d = (double)c->heads * (double)c->a.head_dim, c->root = sqrt(c->d);
    *context = c;
    return HM_OK;
}

static double load(const hm_tensor *t, int64_t row, int64_t i) {
    if (t->dtype == HM_DTYPE_NONE) return 1;
    return hm_load(t->dtype, (const char *)t->data + (hm_row_offset(t, row) + i * t->stride[t->ndim - 1]) *
                                                         (int64_t)hm_dtype_size(t->dtype));
}

/* The root |product| / sqrt(D H) + offset for a positive product; mirrored for a negative one. */
static void root_of(const context_t *c, double product, double offset, hm_root *root) {
    hm_root_init(root);
    mpfr_set_d(root->q, fabs(product), MPFR_RNDN);
    mpfr_set_ui(root->v, 1, MPFR_RNDN);
    mpfr_set_d(root->d, c->d, MPFR_RNDN);
    root->offset = product < 0 ? -offset : offset;
    hm_root_ready(root);
}

static double end_round(const context_t *c, double product, double offset, hm_tier tier, int64_t *mpfr) {
    if (tier == HM_TIER_TWO) {
        double y = product / c->root, slack = 0x1p-50 * (fabs(y) + fabs(offset));
        double low = hm_round_to(HM_F32, y + offset - slack), high = hm_round_to(HM_F32, y + offset + slack);
        if (low == high) return low + 0.0; /* no -0 in either tier */
    }
    hm_root root;
    root_of(c, product, offset, &root);
    double r = hm_root_round(&root, HM_F32);
    hm_root_clear(&root);
    ++*mpfr;
    return (product < 0 ? -r : r) + 0.0;
}

static bool subnormal_f32(double v) { return v != 0 && fabs(v) < 0x1p-126; }

/* Three declared roundings; flushed: may any of them, or an operand, be lost? */
static double left_to_right(const context_t *c, double w, double s, bool *flushed) {
    double t = hm_round_to(HM_F32, w * s), u = hm_round_to(HM_F32, t * hm_inverse_root_f32(c->a.head_dim));
    double y = hm_round_to(HM_F32, u * hm_inverse_root_f32(c->heads));
    *flushed = subnormal_f32(w) || subnormal_f32(s) || subnormal_f32(t) || subnormal_f32(u) || subnormal_f32(y) ||
               (y == 0 && w != 0 && s != 0);
    return y + 0.0;
}

static void element(const context_t *c, double w, double s, int64_t i, hm_class class, hm_tier tier,
                    hm_golden_row *out) {
    hm_arithmetic a = hm_class_arithmetic(class);
    double product = w * s, y = product / c->root;
    bool flushed = false;
    out->flags[i] = 0;
    if (!isfinite(product)) {
        out->lo[i] = out->hi[i] = product;
        out->flags[i] = isnan(product) ? HM_GOLD_NAN : 0;
        /* an infinity times what f32 may take for 0 */
        if (a.f32 && isinf(product) && (subnormal_f32(w) || subnormal_f32(s))) out->flags[i] = HM_GOLD_RANGE_FREE;
    } else if (c->a.order == HM_WEIGHTS_L2R) {
        out->lo[i] = out->hi[i] = left_to_right(c, w, s, &flushed);
    } else {
        double radius = fabs(y) * (hm_growth(a.u, +1, 5) * hm_growth(a.f32 ? 0 : a.f, +1, 2) - 1);
        if (a.f32) radius += 0x1p-123 * fmax(1, fmax(fabs(w), fabs(s)));
        radius *= GROW;
        if (product == 0) radius = 0;
        out->lo[i] = end_round(c, product, -radius, tier, &out->mpfr);
        out->hi[i] = end_round(c, product, radius, tier, &out->mpfr);
        flushed = subnormal_f32(w) || subnormal_f32(s);
        if (a.f32 && fabs(product) >= F32_LIMIT) out->flags[i] = HM_GOLD_RANGE_FREE;
    }
    if (a.f32 && flushed) out->lo[i] = fmin(out->lo[i], 0), out->hi[i] = fmax(out->hi[i], 0);
}

static double ideal_of(const context_t *c, double w, double s, hm_tier tier, int64_t *mpfr) {
    bool flushed;
    if (!isfinite(w * s)) return w * s;
    return c->a.order == HM_WEIGHTS_L2R ? left_to_right(c, w, s, &flushed) : end_round(c, w * s, 0, tier, mpfr);
}

static hm_status row_of(const void *context, int arg, int64_t row, hm_class class, hm_tier tier, hm_golden_row *out) {
    (void)arg; /* out is the only output */
    const context_t *c = context;
    for (int64_t i = 0; i < c->heads; i++) {
        double w = load(&c->a.weights, row, i), s = load(&c->a.q_scale, row, i);
        element(c, w, s, i, class, tier, out);
        if (out->ideal) out->ideal[i] = ideal_of(c, w, s, tier, &out->mpfr);
        if (out->exact) out->exact[i] = w * s / c->root;
    }
    return HM_OK;
}

static double distance(const void *context, int arg, int64_t row, int64_t index, double got) {
    (void)arg;
    const context_t *c = context;
    double product = load(&c->a.weights, row, index) * load(&c->a.q_scale, row, index);
    if (!isfinite(product)) return INFINITY;
    hm_root root;
    root_of(c, product, 0, &root);
    double d = hm_root_distance(&root, HM_F32, product < 0 ? -got : got);
    hm_root_clear(&root);
    return d;
}

const hm_golden_op hm_index_weights_golden = {"index_weights", open_context, free, row_of, distance, NULL};
