#include <hallmark/rms_norm.h>
#include <stdlib.h>

#include "../op/check.h"
#include "../op/rms_norm.h"
#include "norm.h"

static hm_status open_context(const void *args, int threads, void **context) {
    (void)threads;
    hm_rms_norm_args a;
    hm_status s = hm_rms_norm_read(args, &a);
    if (s) return s;
    hm_norm *norm = calloc(1, sizeof *norm);
    if (!norm) return hm_fail(HM_NO_MEMORY, "golden: no memory");
    int64_t hidden = a.x.shape[a.x.ndim - 1];
    *norm = (hm_norm){.x = a.x,
                      .weight = a.weight,
                      .T = a.x.dtype,
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

static hm_status row_of(const void *context, int arg, int64_t row, hm_class c, hm_tier tier, hm_golden_row *out) {
    (void)arg; /* out is the only output */
    return hm_norm_row(context, row, c, tier, out);
}

static double distance(const void *context, int arg, int64_t row, int64_t index, double got) {
    (void)arg;
    return hm_norm_distance(context, row, index, got);
}

const hm_golden_op hm_rms_norm_golden = {"rms_norm", open_context, close_context, row_of, distance, NULL};
