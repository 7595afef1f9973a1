/* flops.h: the work of the ops that are matrix products. args are on the host and legal. */
#ifndef HM_OP_FLOPS_H
#define HM_OP_FLOPS_H

double hm_linear_flops(const void *args);
double hm_fp8_mqa_logits_flops(const void *args);
double hm_fp8_paged_mqa_logits_flops(const void *args);
double hm_sparse_mla_decode_flops(const void *args);
double hm_mla_prefill_flops(const void *args);

#endif
