#include "norm.h"

#define OP "fused_add_rms_norm"
#define VARIANT(what, about, class_name, ...)                                             \
    {                                                                                     \
        OP "." what, OP, about, class_name, run, &(const hm_norm_variant) { __VA_ARGS__ } \
    }

static hm_status run(const void *variation, const void *args) {
    const hm_fused_add_rms_norm_args *a = args;
    hm_status status = hm_fused_add_rms_norm_check(a);
    if (status) return status;
    return hm_norm_variant_run(variation, &(hm_norm_variant_call){.out = a->out,
                                                                  .residual_out = a->residual_out,
                                                                  .x = a->x,
                                                                  .residual = a->residual,
                                                                  .weight = a->weight,
                                                                  .eps = a->eps,
                                                                  .round = a->round,
                                                                  .weight_form = a->weight_form,
                                                                  .residual_read = a->residual_read,
                                                                  .variance_size = a->variance_size});
}

const hm_variant hm_fused_add_rms_norm_variants[] = {
#include "norm_variants.inc"
};
const int hm_fused_add_rms_norm_variant_count =
    sizeof hm_fused_add_rms_norm_variants / sizeof *hm_fused_add_rms_norm_variants;
