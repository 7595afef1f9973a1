/* tables.h: the variants of the ops other than norms, which have theirs in norm.h. */
#ifndef HM_VARIANTS_TABLES_H
#define HM_VARIANTS_TABLES_H

#include "../faults.h"

extern const hm_variant hm_rotary_embedding_variants[], hm_concat_mla_q_variants[], hm_quant_fp8_group_variants[];
extern const int hm_rotary_embedding_variant_count, hm_concat_mla_q_variant_count, hm_quant_fp8_group_variant_count;
extern const hm_variant hm_indexer_k_quant_and_cache_variants[];
extern const int hm_indexer_k_quant_and_cache_variant_count;
extern const hm_variant hm_cp_gather_indexer_k_quant_cache_variants[];
extern const int hm_cp_gather_indexer_k_quant_cache_variant_count;
extern const hm_variant hm_top_k_per_row_variants[];
extern const int hm_top_k_per_row_variant_count;
extern const hm_variant hm_fp8_mqa_logits_variants[];
extern const int hm_fp8_mqa_logits_variant_count;
extern const hm_variant hm_fp8_paged_mqa_logits_variants[];
extern const int hm_fp8_paged_mqa_logits_variant_count;
extern const hm_variant hm_layer_norm_variants[];
extern const int hm_layer_norm_variant_count;
extern const hm_variant hm_index_weights_variants[];
extern const int hm_index_weights_variant_count;
extern const hm_variant hm_translate_indices_variants[];
extern const int hm_translate_indices_variant_count;
extern const hm_variant hm_concat_and_cache_mla_variants[];
extern const int hm_concat_and_cache_mla_variant_count;
extern const hm_variant hm_sparse_mla_decode_variants[];
extern const int hm_sparse_mla_decode_variant_count;
extern const hm_variant hm_mla_prefill_variants[];
extern const int hm_mla_prefill_variant_count;
extern const hm_variant hm_indexer_variants[];
extern const int hm_indexer_variant_count;
extern const hm_variant hm_embedding_variants[];
extern const int hm_embedding_variant_count;
extern const hm_variant hm_silu_and_mul_variants[];
extern const int hm_silu_and_mul_variant_count;
extern const hm_variant hm_linear_variants[];
extern const int hm_linear_variant_count;

#endif
