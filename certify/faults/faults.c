/* The tables of all ops, as one list. */
#include "norm.h"
#include "tables.h"

#include <string.h>

#include "../rope_engine.h"

static const struct {
    const hm_fault *row;
    const int *count;
} table[] = {
    {hm_rms_norm_faults, &hm_rms_norm_fault_count},
    {hm_fused_add_rms_norm_faults, &hm_fused_add_rms_norm_fault_count},
    {hm_rotary_embedding_faults, &hm_rotary_embedding_fault_count},
    {hm_concat_mla_q_faults, &hm_concat_mla_q_fault_count},
    {hm_rope_table_faults, &hm_rope_table_fault_count},
    {hm_quant_fp8_group_faults, &hm_quant_fp8_group_fault_count},
    {hm_cp_gather_indexer_k_quant_cache_faults, &hm_cp_gather_indexer_k_quant_cache_fault_count},
    {hm_indexer_k_quant_and_cache_faults, &hm_indexer_k_quant_and_cache_fault_count},
    {hm_top_k_per_row_faults, &hm_top_k_per_row_fault_count},
    {hm_fp8_mqa_logits_faults, &hm_fp8_mqa_logits_fault_count},
    {hm_fp8_paged_mqa_logits_faults, &hm_fp8_paged_mqa_logits_fault_count},
    {hm_layer_norm_faults, &hm_layer_norm_fault_count},
    {hm_index_weights_faults, &hm_index_weights_fault_count},
    {hm_translate_indices_faults, &hm_translate_indices_fault_count},
    {hm_concat_and_cache_mla_faults, &hm_concat_and_cache_mla_fault_count},
    {hm_sparse_mla_decode_faults, &hm_sparse_mla_decode_fault_count},
    {hm_mla_prefill_faults, &hm_mla_prefill_fault_count},
    {hm_indexer_faults, &hm_indexer_fault_count},
    {hm_embedding_faults, &hm_embedding_fault_count},
    {hm_silu_and_mul_faults, &hm_silu_and_mul_fault_count},
    {hm_linear_faults, &hm_linear_fault_count},
};
enum { TABLES = sizeof table / sizeof *table };

int hm_fault_count(void) {
    int count = 0;
    for (int t = 0; t < TABLES; t++) count += *table[t].count;
    return count;
}

const hm_fault *hm_fault_at(int i) {
    for (int t = 0; i >= 0 && t < TABLES; i -= *table[t].count, t++)
        if (i < *table[t].count) return &table[t].row[i];
    return NULL;
}

const hm_fault *hm_fault_named(const char *id) {
    for (int i = 0; i < hm_fault_count(); i++)
        if (!strcmp(hm_fault_at(i)->id, id)) return hm_fault_at(i);
    return NULL;
}
