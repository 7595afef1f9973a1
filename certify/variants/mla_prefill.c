/* Legal ways to compute mla_prefill. */
#include "attention.h"
#include "tables.h"

static hm_status run(const void *variation, const void *args) {
    hm_attention_call call;
    hm_status status = hm_attention_read_flat(args, &call);
    return status ? status : hm_attention_variant_run(variation, &call);
}

#define VARIANT(what, about, class_name, ...)                                                                     \
    {                                                                                                             \
        "mla_prefill." what, "mla_prefill", about, class_name, run, &(const hm_attention_variant) { __VA_ARGS__ } \
    }
const hm_variant hm_mla_prefill_variants[] = {HM_ATTENTION_VARIANTS(VARIANT)};
const int hm_mla_prefill_variant_count = sizeof hm_mla_prefill_variants / sizeof *hm_mla_prefill_variants;
