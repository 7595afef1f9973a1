/* indexer.h: the composite taken apart: the calls it is made of, with memory for what is between them. */
#ifndef HM_OP_INDEXER_H
#define HM_OP_INDEXER_H

#include <hallmark/fp8_paged_mqa_logits.h>
#include <hallmark/index_weights.h>
#include <hallmark/indexer.h>
#include <hallmark/layer_norm.h>
#include <hallmark/top_k_per_row.h>

#include "indexer_cache.h"

hm_status hm_indexer_read(const hm_indexer_args *args, hm_indexer_args *full);

typedef struct {
    hm_tensor k_normed, q_rotated, k_rotated, q_codes, q_scale, q_weights, lens; /* between the steps; dense */
    hm_layer_norm_args norm;
    hm_rotary_embedding_args rotary;
    hm_indexer_k_quant_and_cache_args write;
    hm_quant_fp8_group_args quant;
    hm_index_weights_args weigh;
    hm_fp8_paged_mqa_logits_args score;
    hm_top_k_per_row_args select;
} hm_indexer_steps;

/* Bytes of what is between the steps. */
size_t hm_indexer_memory(const hm_indexer_args *full);
/* The calls; memory: as many bytes as that, aligned to 16. Fills `lens`, one length a token, which step 7 reads. */
void hm_indexer_take_apart(const hm_indexer_args *full, void *memory, hm_indexer_steps *steps);

#endif
