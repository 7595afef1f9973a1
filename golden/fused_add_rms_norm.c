#include <hallmark/fused_add_rms_norm.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "../op/op.h"
#include "../op/rms_norm.h"
#include "norm.h"
#include "root.h"

static hm_status open_context(const void *args, int threads, void **context) {
    (void)threads;
    hm_fused_add_rms_norm_args a;
    hm_status s = hm_fused_add_rms_norm_read(args, &a);
    if (s) return s;
    hm_norm *norm = calloc(1, sizeof *norm);
    if (!norm) return hm_fail(HM_NO_MEMORY, "golden: no memory");
    int64_t hidden = a.x.shape[a.x.ndim - 1];
    hm_dtype R = a.residual_out.dtype;
    *norm = (hm_norm){.x = a.x,
                      .residual = a.residual,
                      .weight = a.weight,
                      .T = a.x.dtype,
                      .R = R,
                      .read_rounded = a.residual_read == HM_READ_ROUNDED || R == HM_F32,
                      .norm_first = a.round == HM_ROUND_NORM_FIRST,
                      .one_plus = a.weight_form == HM_WEIGHT_ONE_PLUS,
                      .eps = (float)a.eps,
                      .variance_size = a.variance_size ? a.variance_size : hidden};
    if ((s = hm_norm_open(norm, hidden))) free(norm);
    else *context = norm;
    return s;
}

static void close_context(void *context) {
    hm_norm_close(context);
    free(context);
}

static bool is_residual_out(int arg) { return strcmp(hm_fused_add_rms_norm_info.args[arg].name, "residual_out") == 0; }

static double element_of(const hm_tensor *t, int64_t row, int64_t i) {
    return hm_load(t->dtype, (const char *)t->data + (hm_row_offset(t, row) + i * t->stride[t->ndim - 1]) *
                                                         (int64_t)hm_dtype_size(t->dtype));
}

/* What a subnormal operand or result may be taken for in f32 arithmetic: anything down to 0. f16's subnormals are
 * normal in f32. */
static void flush(hm_dtype dtype, double v, double *lo, double *hi) {
    *lo = *hi = v;
    if (dtype == HM_F16 || fabs(v) >= 0x1p-126) return;
    *lo = fmin(v, 0), *hi = fmax(v, 0);
}

/* residual_out: RN_R(x + residual), a point; with a flush in the f32 classes, also what the flushed operands give, and
 * 0. */
static hm_status residual_row(const hm_norm *norm, int64_t row, hm_class c, hm_golden_row *out) {
    for (int64_t i = 0; i < norm->hidden; i++) {
        double x = element_of(&norm->x, row, i), r = element_of(&norm->residual, row, i), sum = x + r;
        double v = hm_round_to(norm->R, sum); /* one rounding: binary64 has more than twice the bits of R */
        out->lo[i] = out->hi[i] = v;
        out->flags[i] = isnan(v) ? HM_GOLD_NAN : 0;
        if (out->ideal) out->ideal[i] = v;
        if (out->exact) out->exact[i] = sum;
        if (isnan(v) || c == HM_WIDE) continue;
        double xlo, xhi, rlo, rhi;
        flush(norm->T, x, &xlo, &xhi);
        flush(norm->residual.dtype, r, &rlo, &rhi);
        double lo = hm_round_to(norm->R, xlo + rlo), hi = hm_round_to(norm->R, xhi + rhi);
        out->lo[i] = lo, out->hi[i] = hi;
        if (norm->R == HM_F16 || (fabs(lo) >= 0x1p-126 && fabs(hi) >= 0x1p-126 && (lo < 0) == (hi < 0))) continue;
        out->lo[i] = fmin(lo, 0), out->hi[i] = fmax(hi, 0);
        double next = lo > 0 ? hm_next_down(norm->R, lo) : hm_next_up(norm->R, hi);
        if ((lo > 0 || hi < 0) && next != 0) { /* 0 apart from the rest */
            hm_golden_parts set = {.index = i, .n = 2};
            bool above = lo > 0;
            set.lo[!above] = 0, set.hi[!above] = 0, set.lo[above] = lo, set.hi[above] = hi;
            out->flags[i] |= HM_GOLD_GAPS;
            if (!hm_golden_add_parts(out, &set)) return hm_fail(HM_NO_MEMORY, "golden: no memory for admissible sets");
        }
    }
    return HM_OK;
}

static hm_status row_of(const void *context, int arg, int64_t row, hm_class c, hm_tier tier, hm_golden_row *out) {
    return is_residual_out(arg) ? residual_row(context, row, c, out) : hm_norm_row(context, row, c, tier, out);
}

static double distance(const void *context, int arg, int64_t row, int64_t index, double got) {
    const hm_norm *norm = context;
    if (!is_residual_out(arg)) return hm_norm_distance(norm, row, index, got);
    double x = element_of(&norm->x, row, index), r = element_of(&norm->residual, row, index);
    if (!isfinite(x) || !isfinite(r)) return INFINITY;
    hm_root root; /* |x + r| = q sqrt(1 / 1) */
    hm_root_init(&root);
    mpfr_set_d(root.q, x, MPFR_RNDN);
    mpfr_add_d(root.q, root.q, r, MPFR_RNDN);
    bool negative = mpfr_sgn(root.q) < 0;
    mpfr_abs(root.q, root.q, MPFR_RNDN);
    mpfr_set_ui(root.v, 1, MPFR_RNDN), mpfr_set_ui(root.d, 1, MPFR_RNDN);
    hm_root_ready(&root);
    double d = hm_root_distance(&root, norm->R, negative ? -got : got);
    hm_root_clear(&root);
    return d;
}

const hm_golden_op hm_fused_add_rms_norm_golden = {
    "fused_add_rms_norm", open_context, close_context, row_of, distance, NULL};
