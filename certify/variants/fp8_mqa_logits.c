/* Legal ways to compute fp8_mqa_logits. */
#include "logits.h"
#include "tables.h"

static hm_status run(const void *variation, const void *args) {
    hm_logits_call call;
    hm_status status = hm_logits_read_flat(args, &call);
    return status ? status : hm_logits_variant_run(variation, &call);
}

#define VARIANT(what, about, class_name, ...)                                                                        \
    {                                                                                                                \
        "fp8_mqa_logits." what, "fp8_mqa_logits", about, class_name, run, &(const hm_logits_variant) { __VA_ARGS__ } \
    }
const hm_variant hm_fp8_mqa_logits_variants[] = {HM_LOGITS_VARIANTS(VARIANT)};
const int hm_fp8_mqa_logits_variant_count = sizeof hm_fp8_mqa_logits_variants / sizeof *hm_fp8_mqa_logits_variants;
