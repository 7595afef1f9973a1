/* The tables of all ops, as one list. */
#include "norm.h"
#include "tables.h"

#include <string.h>

#include "../rope_engine.h"

static const struct {
    const hm_variant *row;
    const int *count;
} table[] = {
    {hm_rms_norm_variants, &hm_rms_norm_variant_count},
    {hm_fused_add_rms_norm_variants, &hm_fused_add_rms_norm_variant_count},
    {hm_rotary_embedding_variants, &hm_rotary_embedding_variant_count},
    {hm_concat_mla_q_variants, &hm_concat_mla_q_variant_count},
    {hm_rope_table_variants, &hm_rope_table_variant_count},
    {hm_quant_fp8_group_variants, &hm_quant_fp8_group_variant_count},
    {hm_cp_gather_indexer_k_quant_cache_variants, &hm_cp_gather_indexer_k_quant_cache_variant_count},
    {hm_indexer_k_quant_and_cache_variants, &hm_indexer_k_quant_and_cache_variant_count},
    {hm_top_k_per_row_variants, &hm_top_k_per_row_variant_count},
    {hm_fp8_mqa_logits_variants, &hm_fp8_mqa_logits_variant_count},
    {hm_fp8_paged_mqa_logits_variants, &hm_fp8_paged_mqa_logits_variant_count},
    {hm_layer_norm_variants, &hm_layer_norm_variant_count},
    {hm_index_weights_variants, &hm_index_weights_variant_count},
    {hm_translate_indices_variants, &hm_translate_indices_variant_count},
    {hm_concat_and_cache_mla_variants, &hm_concat_and_cache_mla_variant_count},
    {hm_sparse_mla_decode_variants, &hm_sparse_mla_decode_variant_count},
    {hm_mla_prefill_variants, &hm_mla_prefill_variant_count},
    {hm_indexer_variants, &hm_indexer_variant_count},
    {hm_embedding_variants, &hm_embedding_variant_count},
    {hm_silu_and_mul_variants, &hm_silu_and_mul_variant_count},
    {hm_linear_variants, &hm_linear_variant_count},
};
enum { TABLES = sizeof table / sizeof *table };

int hm_variant_count(void) {
    int count = 0;
    for (int t = 0; t < TABLES; t++) count += *table[t].count;
    return count;
}

const hm_variant *hm_variant_at(int i) {
    for (int t = 0; i >= 0 && t < TABLES; i -= *table[t].count, t++)
        if (i < *table[t].count) return &table[t].row[i];
    return NULL;
}

const hm_variant *hm_variant_named(const char *id) {
    for (int i = 0; i < hm_variant_count(); i++)
        if (!strcmp(hm_variant_at(i)->id, id)) return hm_variant_at(i);
    return NULL;
}
