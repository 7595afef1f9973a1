/* Legal ways to compute sparse_mla_decode. */
#include "attention.h"
#include "tables.h"

static hm_status run(const void *variation, const void *args) {
    hm_attention_call call;
    hm_status status = hm_attention_read_paged(args, &call);
    return status ? status : hm_attention_variant_run(variation, &call);
}

#define VARIANT(what, about, class_name, ...)                                                                   \
    {                                                                                                           \
        "sparse_mla_decode." what, "sparse_mla_decode", about, class_name, run, &(const hm_attention_variant) { \
            __VA_ARGS__                                                                                         \
        }                                                                                                       \
    }
const hm_variant hm_sparse_mla_decode_variants[] = {HM_ATTENTION_VARIANTS(VARIANT)};
const int hm_sparse_mla_decode_variant_count =
    sizeof hm_sparse_mla_decode_variants / sizeof *hm_sparse_mla_decode_variants;
