/* op.h: the description table of each op, one line an op. */
#ifndef HM_OPS_H
#define HM_OPS_H

#include <hallmark/op.h>

extern const hm_op_info hm_rms_norm_info, hm_fused_add_rms_norm_info, hm_layer_norm_info, hm_rotary_embedding_info,
    hm_rope_table_info, hm_embedding_info, hm_linear_info, hm_silu_and_mul_info, hm_concat_mla_q_info,
    hm_concat_and_cache_mla_info, hm_sparse_mla_decode_info, hm_mla_prefill_info, hm_quant_fp8_group_info,
    hm_indexer_k_quant_and_cache_info, hm_cp_gather_indexer_k_quant_cache_info, hm_index_weights_info,
    hm_fp8_mqa_logits_info, hm_fp8_paged_mqa_logits_info, hm_top_k_per_row_info, hm_translate_indices_info,
    hm_indexer_info;

#endif
