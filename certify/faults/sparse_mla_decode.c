/* The bugs of sparse_mla_decode; attention.h computes them. */
#include "attention.h"
#include "tables.h"

#define OP "sparse_mla_decode"

static hm_status run(const void *variation, const void *args, hm_dtype written[HM_MAX_ARGS]) {
    const hm_attention_variation *v = variation;
    hm_attention_call call;
    hm_status status;
    if (hm_fault_checked(OP, v->checks, args, &status)) return status;
    status = hm_attention_read_paged(args, &call);
    return status ? status : hm_attention_fault(OP, v, &call, written);
}

#define FAULT(what, covers, reference, sentence, fix, ...)                                                          \
    {                                                                                                               \
        OP "." what, OP, covers, reference, sentence, fix, NULL, run, &(const hm_attention_variation){__VA_ARGS__}, \
            false                                                                                                   \
    }

const hm_fault hm_sparse_mla_decode_faults[] = {
    HM_ATTENTION_FAULTS(FAULT),
    {OP ".ties_away", OP, "", "", "ties are rounded away from zero", "to even",
     "a result that is a tie lies inside the radius that every exponential has: both of its neighbours are admissible",
     run, &(const hm_attention_variation){.effect = EFFECT_TIES_AWAY}, false},
    FAULT("empty_part_nan", "I9", "vllm#27491; vllm#15492", "two parts without a key merge to NaN", "guard that case",
          .softmax = SOFTMAX_EMPTY_PART_NAN),
    FAULT("first_part_nan", "I8 I11", "vllm#48364; llama.cpp#12776",
          "NaN where the first 16 indices are all negative: exp(-inf + inf)", "guard it",
          .softmax = SOFTMAX_FIRST_PART_NAN),
    FAULT("unwritten_part", "L7", "TensorRT-LLM#18754; vllm#19784",
          "a part without a key is merged from unwritten memory", "merge what was written",
          .softmax = SOFTMAX_UNWRITTEN_PART),
    FAULT("mask_scores_0", "J2", "flashinfer#3716", "a negative index counts as a key with score 0",
          "give it no weight", .softmax = SOFTMAX_MASK_SCORES_0),
    FAULT("mask_finite", "I11", "llama.cpp#12776", "a negative index counts with a low score", "-inf",
          .softmax = SOFTMAX_MASK_FINITE),
    FAULT("mask_leaks", "I10", "flashinfer#941; sglang#32477",
          "the row behind a negative index is multiplied by 0: NaN stays", "select, do not multiply",
          .softmax = SOFTMAX_MASK_LEAKS),
    FAULT("negative_wraps", "J9", "vllm#43810", "index -1 is the last slot", "skip it", .key = KEY_NEGATIVE_WRAPS),
    FAULT("negative_is_0", "J9", "vllm#43869", "a negative index is slot 0", "skip it", .key = KEY_NEGATIVE_IS_0),
    FAULT("minus_1_alone", "", "", "only -1 is skipped; other negative indices are slot 0", "skip all",
          .key = KEY_MINUS_1_ALONE),
    FAULT("length_ignored", "J2", "flashinfer#3716", "indices behind topk_length are used", "stop there",
          .key = KEY_LENGTH_IGNORED),
    FAULT("length_less_1", "J3", "MinivLLM#83", "the last index of topk_length is left out", "fix the bound",
          .key = KEY_LENGTH_LESS_1),
    FAULT("length_of_token_0", "N3 D19", "aiter#3013", "every token has the topk_length of the first", "use its own",
          .key = KEY_LENGTH_OF_TOKEN_0),
    FAULT("twice_is_once", "", "", "an index that occurs twice counts once", "count it twice",
          .key = KEY_TWICE_IS_ONCE),
    FAULT("block_stride_ignored", "D8", "vllm#37032; vllm#45111", "blocks are taken to be dense",
          "use the block stride", .key = KEY_BLOCK_STRIDE_DENSE),
    FAULT("block_of_64", "D9 D11", "aiter#2996; TensorRT-LLM#16219", "the block size of another configuration",
          "ask the tensor", .key = KEY_BLOCK_OF_64),
    FAULT("first_of_block", "D9 D6", "aiter#3095", "the offset in the block is dropped", "add it",
          .key = KEY_FIRST_OF_BLOCK),
    FAULT("slot_truncated", "K6", "aiter#3062", "slots lose their upper bits", "keep them", .key = KEY_SLOT_TRUNCATED),
    FAULT("next_slot", "", "", "indices count from 1", "from 0", .key = KEY_NEXT_SLOT),
    FAULT("indices_of_token_0", "D19", "TensorRT-LLM#17240", "every token has the indices of the first", "use its own",
          .key = KEY_INDICES_OF_TOKEN_0),
    FAULT("indices_dense", "", "", "indices is taken to be contiguous", "use its strides", .key = KEY_INDICES_DENSE),
    FAULT("dequant_f32", "trap.10", "", "a scale is read whole where the mode says otherwise", "read it as declared",
          .dequant = DEQUANT_F32),
    FAULT("dequant_sm90", "trap.10", "", "a scale is rounded to bf16 where the mode says otherwise",
          "read it as declared", .dequant = DEQUANT_SM90),
    FAULT("dequant_sm100", "H13 trap.10", "vllm#49435; vllm#54563",
          "of a scale the exponent alone is read where the mode says otherwise", "read all of it",
          .dequant = DEQUANT_SM100),
    FAULT("without_scale", "H11 H14 H18", "vllm#42580; sglang#20705; Megatron-Bridge#4155", "tile scales are ignored",
          "multiply by them", .dequant = DEQUANT_WITHOUT_SCALE),
    FAULT("scale_of_first_tile", "D18", "TIRx-kernels#5", "all tiles have the scale of the first", "use their own",
          .dequant = DEQUANT_SCALE_OF_FIRST),
    FAULT("scale_of_next_tile", "D16", "vllm#50084", "each tile has the scale of the next", "use its own",
          .dequant = DEQUANT_SCALE_OF_NEXT),
    FAULT("codes_fnuz", "H9 H10", "vllm#52109; aiter#3807", "codes are read as f8e4m3fnuz", "as f8e4m3",
          .dequant = DEQUANT_FNUZ),
    FAULT("dequant_unrounded", "", "", "code times scale is not rounded to bf16", "round it",
          .dequant = DEQUANT_UNROUNDED),
    FAULT("scales_at_528", "D16", "vllm#50084", "scales are read where the rope part is", "they start at byte 512",
          .dequant = DEQUANT_SCALES_AT_528),
    FAULT("rope_at_512", "", "", "the rope part is read where the scales are", "it starts at byte 528",
          .dequant = DEQUANT_ROPE_AT_512),
    FAULT("rope_of_entry_lost", "", "", "the rope part of 8-bit entries is taken for 0", "read it",
          .dequant = DEQUANT_ROPE_ZERO),
    FAULT("values_not_checked", "", "", "an index past the cache is taken without an error", "check them",
          .checks = HM_CHECKS_NOT_VALUE),
    FAULT("param_not_checked", "", "", "a scale that is no number is taken without an error", "check it",
          .checks = HM_CHECKS_NOT_PARAM),
    HM_CHECK_FAULTS(FAULT),
};
const int hm_sparse_mla_decode_fault_count = sizeof hm_sparse_mla_decode_faults / sizeof *hm_sparse_mla_decode_faults;
