/* op.h: the description table of each op, one line an op, and the functions that are alike in all. */
#ifndef HM_OPS_H
#define HM_OPS_H

#include <hallmark/op.h>

#include "check.h"

extern const hm_op_info hm_rms_norm_info, hm_fused_add_rms_norm_info, hm_layer_norm_info, hm_rotary_embedding_info,
    hm_rope_table_info, hm_embedding_info, hm_linear_info, hm_silu_and_mul_info, hm_concat_mla_q_info,
    hm_concat_and_cache_mla_info, hm_sparse_mla_decode_info, hm_mla_prefill_info, hm_quant_fp8_group_info,
    hm_indexer_k_quant_and_cache_info, hm_cp_gather_indexer_k_quant_cache_info, hm_index_weights_info,
    hm_fp8_mqa_logits_info, hm_fp8_paged_mqa_logits_info, hm_top_k_per_row_info, hm_translate_indices_info,
    hm_indexer_info;

/* In op/NAME.c, behind hm_NAME_check():
 *   HM_OP_FUNCTIONS(NAME, FIELD)   hm_NAME(), which goes where the tensor FIELD lies; hm_NAME_cuda() of a build without nvcc;
 *                                  each of them as an hm_op_fn
 *   HM_OP_CALLS                    in the description table: those
 *   HM_OP_CUDA(NAME, IMPL)         another implementation for the device, hm_NAME_IMPL(): in the table,
 *                                  HM_OP_IF_CUDA(call_IMPL) */
#define HM_OP_CALL(call, function) \
    static hm_status call(const void *args) { return function(args); }

#ifdef HM_HAVE_CUDA
#define HM_OP_CUDA(name, impl) HM_OP_CALL(call_##impl, hm_##name##_##impl)
#define HM_OP_IF_CUDA(call) call
#else
#define HM_OP_CUDA(name, impl)                                                                      \
    hm_status hm_##name##_##impl(const hm_##name##_args *args) {                                    \
        hm_status s = hm_##name##_check(args);                                                      \
        return s ? s : hm_fail(HM_UNSUPPORTED, "%s: this build has no CUDA implementation", #name); \
    }
#define HM_OP_IF_CUDA(call) NULL
#endif

#define HM_OP_FUNCTIONS(name, field)                                                          \
    HM_OP_CUDA(name, cuda)                                                                    \
    hm_status hm_##name(const hm_##name##_args *args) {                                       \
        hm_status s = hm_##name##_check(args);                                                \
        if (s) return s;                                                                      \
        return args->field.place == HM_CUDA ? hm_##name##_cuda(args) : hm_##name##_ref(args); \
    }                                                                                         \
    HM_OP_CALL(call_check, hm_##name##_check)                                                 \
    HM_OP_CALL(call_run, hm_##name)                                                           \
    HM_OP_CALL(call_ref, hm_##name##_ref)

#define HM_OP_CALLS .check = call_check, .run = call_run, .ref = call_ref, .cuda = HM_OP_IF_CUDA(call_cuda)

#endif
