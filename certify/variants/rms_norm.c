#include "norm.h"

#define OP "rms_norm"
#define VARIANT(what, about, class_name, ...)                                             \
    {                                                                                     \
        OP "." what, OP, about, class_name, run, &(const hm_norm_variant) { __VA_ARGS__ } \
    }

static hm_status run(const void *variation, const void *args) {
    const hm_rms_norm_args *a = args;
    hm_status status = hm_rms_norm_check(a);
    if (status) return status;
    return hm_norm_variant_run(variation, &(hm_norm_variant_call){.out = a->out,
                                                                  .x = a->x,
                                                                  .weight = a->weight,
                                                                  .eps = a->eps,
                                                                  .round = a->round,
                                                                  .weight_form = a->weight_form,
                                                                  .variance_size = a->variance_size});
}

const hm_variant hm_rms_norm_variants[] = {
#include "norm_variants.inc"
};
const int hm_rms_norm_variant_count = sizeof hm_rms_norm_variants / sizeof *hm_rms_norm_variants;
