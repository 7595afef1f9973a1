/* tables.h: the fault tables of the ops other than norms, which have theirs in norm.h. */
#ifndef HM_FAULTS_TABLES_H
#define HM_FAULTS_TABLES_H

#include "../faults.h"

extern const hm_fault hm_rotary_embedding_faults[], hm_concat_mla_q_faults[];
extern const hm_fault hm_quant_fp8_group_faults[];
extern const int hm_quant_fp8_group_fault_count;
extern const int hm_rotary_embedding_fault_count, hm_concat_mla_q_fault_count;
extern const hm_fault hm_indexer_k_quant_and_cache_faults[];
extern const int hm_indexer_k_quant_and_cache_fault_count;
extern const hm_fault hm_cp_gather_indexer_k_quant_cache_faults[];
extern const int hm_cp_gather_indexer_k_quant_cache_fault_count;
extern const hm_fault hm_top_k_per_row_faults[];
extern const int hm_top_k_per_row_fault_count;
extern const hm_fault hm_fp8_mqa_logits_faults[];
extern const int hm_fp8_mqa_logits_fault_count;
extern const hm_fault hm_fp8_paged_mqa_logits_faults[];
extern const int hm_fp8_paged_mqa_logits_fault_count;
extern const hm_fault hm_layer_norm_faults[];
extern const int hm_layer_norm_fault_count;
extern const hm_fault hm_index_weights_faults[];
extern const int hm_index_weights_fault_count;
extern const hm_fault hm_translate_indices_faults[];
extern const int hm_translate_indices_fault_count;
extern const hm_fault hm_concat_and_cache_mla_faults[];
extern const int hm_concat_and_cache_mla_fault_count;
extern const hm_fault hm_sparse_mla_decode_faults[];
extern const int hm_sparse_mla_decode_fault_count;
extern const hm_fault hm_mla_prefill_faults[];
extern const int hm_mla_prefill_fault_count;
extern const hm_fault hm_indexer_faults[];
extern const int hm_indexer_fault_count;
extern const hm_fault hm_embedding_faults[];
extern const int hm_embedding_fault_count;
extern const hm_fault hm_silu_and_mul_faults[];
extern const int hm_silu_and_mul_fault_count;
extern const hm_fault hm_linear_faults[];
extern const int hm_linear_fault_count;

#endif
