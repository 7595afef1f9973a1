/* attention.h: the bugs that the two ops of latent attention share: one evaluator with a switch at every step. */
#ifndef HM_FAULTS_ATTENTION_H
#define HM_FAULTS_ATTENTION_H

#include "../../op/attention.h"
#include "common.h"

typedef struct {
    enum {
        SCORE_EXACT = 0,
        SCORE_BF16, /* rounded */
        SCORE_F16,
        SCORE_PARTS_BF16,   /* every partial sum of 16 elements */
        SCORE_WITHOUT_ROPE, /* only the elements that are values, too */
        SCORE_WITHOUT_LAST,
        SCORE_QUERY_SCALED, /* q times scale is rounded before the product */
        SCORE_HALF_OF_WIDTH,
        SCORE_STALE_TAIL /* the last 8 elements are still those of the key before */
    } score;
    enum {
        SCALE_AS_DECLARED = 0,
        SCALE_DEFAULT, /* whatever was asked for */
        SCALE_OF_VALUES,
        SCALE_TWICE,
        SCALE_BF16,
        SCALE_NONE
    } scale;
    enum {
        SOFTMAX_AS_DECLARED = 0,
        SOFTMAX_CHEAP_EXP,
        SOFTMAX_BASE_2,
        SOFTMAX_WITHOUT_MAX, /* in f32: overflows, or vanishes */
        SOFTMAX_P_BF16,
        SOFTMAX_P_F8,
        SOFTMAX_L_OF_ROUNDED,
        SOFTMAX_NOT_DIVIDED,
        SOFTMAX_OLD_SUM, /* the running sum is not rescaled when the maximum grows */
        SOFTMAX_OLD_OUT,
        SOFTMAX_OUT_F16, /* the running output is rounded after each key */
        SOFTMAX_OUT_BF16,
        SOFTMAX_OUT_BF16_PARTS, /* after each part of 16 places, before they are merged */
        SOFTMAX_MERGE_BASE_2,   /* base-2 lse of the parts in a base-e merge */
        SOFTMAX_EMPTY_PART_NAN, /* two parts without a key */
        SOFTMAX_FIRST_PART_NAN, /* a first part without a key */
        SOFTMAX_UNWRITTEN_PART, /* a part without a key counts with what its memory held */
        SOFTMAX_MASK_SCORES_0,  /* a place without a key has score 0 and value 0 */
        SOFTMAX_MASK_LEAKS,     /* .. has weight 0 and the value of slot 0 */
        SOFTMAX_MASK_FINITE     /* .. has score -8 */
    } softmax;
    enum {
        LSE_AS_DECLARED = 0,
        LSE_BASE_2,
        LSE_MAX,
        LSE_WITHOUT_MAX,
        LSE_WITH_SINK,
        LSE_EMPTY_MINUS_INF,
        LSE_EMPTY_0,
        LSE_BF16,
        LSE_LEFT,
        LSE_OF_ROUNDED
    } lse;
    enum { EMPTY_AS_DECLARED = 0, EMPTY_NAN, EMPTY_LEFT } empty;
    enum {
        SINK_AS_DECLARED = 0,
        SINK_IGNORED,
        SINK_WITHOUT_EXP,
        SINK_OF_HEAD_0,
        SINK_WITHOUT_MAX, /* exp(sink), beside exp(s - m) */
        SINK_NEGATED,
        SINK_SCALED
    } sink;
    enum { VALUE_FIRST = 0, VALUE_LAST, VALUE_NEXT_ELEMENT, VALUE_OF_NEXT_KEY, VALUE_LAST_ELEMENT_0 } value;
    enum {
        KEY_AS_DECLARED = 0,
        KEY_WITHOUT_LAST, /* of those that are there */
        KEY_WITHOUT_FIRST,
        KEY_FIRST_32,   /* places, and no more */
        KEY_LAST_AT_16, /* the last one is dropped if their number is a multiple of 16 */
        KEY_ROW_DENSE,  /* rows are taken to be as long as they are wide */
        KEY_OFFSET_INT32,
        KEY_NEGATIVE_WRAPS, /* paged from here on: the last slot */
        KEY_NEGATIVE_IS_0,
        KEY_MINUS_1_ALONE, /* other negative indices are slot 0 */
        KEY_LENGTH_IGNORED,
        KEY_LENGTH_LESS_1,
        KEY_TWICE_IS_ONCE,
        KEY_BLOCK_STRIDE_DENSE,
        KEY_BLOCK_OF_64,
        KEY_FIRST_OF_BLOCK,
        KEY_SLOT_TRUNCATED,
        KEY_INDICES_OF_TOKEN_0,
        KEY_INDICES_DENSE,
        KEY_NEXT_SLOT,
        KEY_LENGTH_OF_TOKEN_0,
        KEY_CAUSAL_LESS, /* flat from here on */
        KEY_CAUSAL_MORE,
        KEY_ALL,
        KEY_START_IGNORED,
        KEY_END_IGNORED,
        KEY_END_INCLUSIVE,
        KEY_START_EXCLUSIVE,
        KEY_TOP_LEFT, /* causal from the first key on, however many there are */
        KEY_RANGE_OF_TOKEN_0
    } key;
    enum {
        DEQUANT_AS_DECLARED = 0,
        DEQUANT_F32,
        DEQUANT_SM90,
        DEQUANT_SM100,
        DEQUANT_WITHOUT_SCALE,
        DEQUANT_SCALE_OF_FIRST,
        DEQUANT_SCALE_OF_NEXT,
        DEQUANT_FNUZ,
        DEQUANT_UNROUNDED,
        DEQUANT_SCALES_AT_528,
        DEQUANT_ROPE_AT_512,
        DEQUANT_ROPE_ZERO
    } dequant;
    enum {
        MAP_AS_GIVEN = 0,
        MAP_QUERY_OF_TOKEN_0,
        MAP_QUERY_DENSE,
        MAP_QUERY_HEADS_DENSE,
        MAP_QUERY_HEAD_0,
        MAP_QUERY_INT32,
        MAP_OUT_DENSE,
        MAP_OUT_HEADS_REVERSED,
        MAP_OUT_INT32,
        MAP_LSE_DENSE,
        MAP_LSE_TRANSPOSED,
        MAP_LSE_OF_HEAD_0
    } map;
    enum {
        EFFECT_NONE = 0,
        EFFECT_LAST_TOKEN_LEFT,
        EFFECT_LAST_HEAD_LEFT,
        EFFECT_LAST_ELEMENT_LEFT,
        EFFECT_ONE_PAST,
        EFFECT_TOWARD_ZERO,
        EFFECT_TIES_AWAY,
        EFFECT_F8_SCRATCH,
        EFFECT_OUT_F32,
        EFFECT_LSE_BF16_OUT,
        EFFECT_EMPTY_REFUSED,
        EFFECT_ADDS
    } effect;
    hm_fault_checks checks;
} hm_attention_variation;

hm_status hm_attention_fault(const char *op, const hm_attention_variation *v, const hm_attention_call *call,
                             hm_dtype written[HM_MAX_ARGS]);

/* Rows that both tables have; FAULT as each of them defines it. */
#define HM_ATTENTION_FAULTS(FAULT)                                                                                     \
    FAULT("score_bf16", "", "", "scores are rounded to bf16", "keep f32", .score = SCORE_BF16),                        \
        FAULT("score_f16", "B3 B4", "llama.cpp#13975; ik_llama.cpp#1196", "scores are kept in f16", "keep f32",        \
              .score = SCORE_F16),                                                                                     \
        FAULT("partial_scores_bf16", "", "", "sums of 16 products are rounded to bf16", "keep f32",                    \
              .score = SCORE_PARTS_BF16),                                                                              \
        FAULT("without_rope", "", "", "only the latent part of a key is scored", "go through the whole width",         \
              .score = SCORE_WITHOUT_ROPE),                                                                            \
        FAULT("without_last_element", "", "", "the last element of a key is left out", "fix the bound",                \
              .score = SCORE_WITHOUT_LAST),                                                                            \
        FAULT("half_of_width", "D5", "DeepGEMM#379", "half of a key is scored", "go through the whole width",          \
              .score = SCORE_HALF_OF_WIDTH),                                                                           \
        FAULT("stale_tail", "L3", "ninfer-3090#49", "the end of a key is read before it was copied",                   \
              "wait for the copy", .score = SCORE_STALE_TAIL),                                                         \
        FAULT("query_scaled", "", "", "q times scale is rounded to its dtype before the product", "scale the score",   \
              .score = SCORE_QUERY_SCALED),                                                                            \
        FAULT("scale_default", "P11", "mobius#548; Megatron-LM#1429; imp#880", "the scale of the call is ignored",     \
              "pass mscale^2 on", .scale = SCALE_DEFAULT),                                                             \
        FAULT("scale_of_values", "P11", "mobius#548", "the default scale comes from the width of a value",             \
              "take that of a key", .scale = SCALE_OF_VALUES),                                                         \
        FAULT("scale_twice", "P5", "sglang#33558", "the scale is applied twice", "apply it once",                      \
              .scale = SCALE_TWICE),                                                                                   \
        FAULT("scale_bf16", "", "", "the scale is rounded to bf16", "keep f32", .scale = SCALE_BF16),                  \
        FAULT("scale_dropped", "P11", "mobius#548", "scores are not scaled", "scale them", .scale = SCALE_NONE),       \
        FAULT("cheap_exp", "O4", "tt-metal#51927", "an exponential that is off by 2^-8", "one within 2^-22",           \
              .softmax = SOFTMAX_CHEAP_EXP),                                                                           \
        FAULT("base_2", "Q1", "vllm#52796", "2^x where e^x is meant", "fold log2(e) into the scale",                   \
              .softmax = SOFTMAX_BASE_2),                                                                              \
        FAULT("without_max", "B4", "ik_llama.cpp#1196", "exponentials of the scores themselves overflow",              \
              "subtract the maximum", .softmax = SOFTMAX_WITHOUT_MAX),                                                 \
        FAULT("p_bf16", "A6", "TensorRT-LLM#14464", "weights are rounded to bf16 where the mode says f32", "keep f32", \
              .softmax = SOFTMAX_P_BF16),                                                                              \
        FAULT("p_f8", "I6 H16", "flash-attention#2578; vllm#55670", "weights are rounded to f8e4m3", "keep 16 bits",   \
              .softmax = SOFTMAX_P_F8),                                                                                \
        FAULT("sum_of_rounded", "", "", "the sum is taken of weights rounded to bf16", "add before rounding",          \
              .softmax = SOFTMAX_L_OF_ROUNDED),                                                                        \
        FAULT("not_divided", "", "", "the sum of the weights is left out", "divide by it",                             \
              .softmax = SOFTMAX_NOT_DIVIDED),                                                                         \
        FAULT("sum_not_rescaled", "", "", "the running sum keeps its scale when the maximum grows", "rescale it",      \
              .softmax = SOFTMAX_OLD_SUM),                                                                             \
        FAULT("out_not_rescaled", "I6", "flash-attention#2578",                                                        \
              "the running output keeps its scale when the maximum grows", "rescale it", .softmax = SOFTMAX_OLD_OUT),  \
        FAULT("out_f16", "B3", "llama.cpp#13975", "the running output is kept in f16", "keep f32",                     \
              .softmax = SOFTMAX_OUT_F16),                                                                             \
        FAULT("out_bf16", "", "", "the running output is kept in bf16", "keep f32", .softmax = SOFTMAX_OUT_BF16),      \
        FAULT("parts_bf16", "A14", "TransformerEngine#821", "partial outputs are rounded to bf16 before the merge",    \
              "merge f32", .softmax = SOFTMAX_OUT_BF16_PARTS),                                                         \
        FAULT("merge_base_2", "Q1 Q2", "vllm#52796; vllm#28840; sglang#35045; vllm#47079",                             \
              "partial results with a base-2 lse are merged with base e", "agree on a base",                           \
              .softmax = SOFTMAX_MERGE_BASE_2),                                                                        \
        FAULT("lse_base_2", "Q1 Q2", "vllm#52796; vllm#47079", "lse comes back in base 2", "multiply by ln 2",         \
              .lse = LSE_BASE_2),                                                                                      \
        FAULT("lse_is_max", "", "", "lse is the largest score", "add ln of the sum", .lse = LSE_MAX),                  \
        FAULT("lse_without_max", "", "", "lse lacks the largest score", "add it", .lse = LSE_WITHOUT_MAX),             \
        FAULT("lse_with_sink", "", "", "lse counts the sink", "leave it out", .lse = LSE_WITH_SINK),                   \
        FAULT("lse_empty_minus_inf", "I9", "vllm#27491; vllm#15492", "without a key lse is -inf", "+inf",              \
              .lse = LSE_EMPTY_MINUS_INF),                                                                             \
        FAULT("lse_empty_0", "", "", "without a key lse is 0", "+inf", .lse = LSE_EMPTY_0),                            \
        FAULT("lse_bf16", "", "", "lse is rounded to bf16", "keep f32", .lse = LSE_BF16),                              \
        FAULT("lse_left", "E7", "vllm-ascend#6558", "lse is not written", "write it", .lse = LSE_LEFT),                \
        FAULT("lse_of_rounded", "", "", "lse comes from weights rounded to bf16", "add before rounding",               \
              .lse = LSE_OF_ROUNDED),                                                                                  \
        FAULT("empty_nan", "I9 I11 O2", "vllm#27491; llama.cpp#12776; candle#3309", "without a key out is NaN",        \
              "guard 0 / 0", .empty = EMPTY_NAN),                                                                      \
        FAULT("empty_left", "E7", "vllm-ascend#6558", "without a key out keeps what it held", "write 0",               \
              .empty = EMPTY_LEFT),                                                                                    \
        FAULT("sink_ignored", "", "", "the sink is ignored", "add its exponential", .sink = SINK_IGNORED),             \
        FAULT("sink_without_exp", "", "", "the sink is added as it is", "add its exponential",                         \
              .sink = SINK_WITHOUT_EXP),                                                                               \
        FAULT("sink_of_head_0", "", "", "every head has the sink of the first", "use its own",                         \
              .sink = SINK_OF_HEAD_0),                                                                                 \
        FAULT("sink_without_max", "", "", "exp(sink) is added to exponentials against the maximum",                    \
              "subtract the maximum", .sink = SINK_WITHOUT_MAX),                                                       \
        FAULT("sink_negated", "", "", "the sink has the wrong sign", "exp(sink - m)", .sink = SINK_NEGATED),           \
        FAULT("sink_scaled", "", "", "the sink is scaled as a score is", "it is a logit already",                      \
              .sink = SINK_SCALED),                                                                                    \
        FAULT("value_last", "", "", "the last elements of a key are its value", "the first ones",                      \
              .value = VALUE_LAST),                                                                                    \
        FAULT("value_next_element", "", "", "values start at the second element", "at the first",                      \
              .value = VALUE_NEXT_ELEMENT),                                                                            \
        FAULT("value_of_next_key", "D20", "transformers#47331", "each weight meets the value of the next key",         \
              "of its own", .value = VALUE_OF_NEXT_KEY),                                                               \
        FAULT("value_tail_lost", "E1", "vllm#37892", "the last element of values is 0", "copy all of it",              \
              .value = VALUE_LAST_ELEMENT_0),                                                                          \
        FAULT("without_last_key", "J3 trap.15", "MinivLLM#76", "the last key is left out", "fix the bound",            \
              .key = KEY_WITHOUT_LAST),                                                                                \
        FAULT("without_first_key", "", "", "the first key is left out", "fix the bound", .key = KEY_WITHOUT_FIRST),    \
        FAULT("first_32_places", "D7", "vllm#39303", "places behind the 32nd are not looked at", "go through all",     \
              .key = KEY_FIRST_32),                                                                                    \
        FAULT("last_key_of_full_block", "J3", "MinivLLM#83; vllm#31282",                                               \
              "the last key is dropped where their number is a multiple of 16", "fix the bound",                       \
              .key = KEY_LAST_AT_16),                                                                                  \
        FAULT("rows_dense", "D8 D13", "vllm#37032; vllm#16658", "keys are taken to lie side by side",                  \
              "use their stride", .key = KEY_ROW_DENSE),                                                               \
        FAULT("offset_int32", "K1 K3 K4 K7", "vllm#47671; vllm#50427; fla#1080; tokenspeed#501",                       \
              "offsets of keys wrap in 32 bits", "compute them in 64 bits", .key = KEY_OFFSET_INT32),                  \
        FAULT("query_of_token_0", "N3", "aiter#3013", "every token has the first one's query", "advance the pointer",  \
              .map = MAP_QUERY_OF_TOKEN_0),                                                                            \
        FAULT("query_dense", "D13", "vllm#16658", "q is read as if it were contiguous", "use its strides",             \
              .map = MAP_QUERY_DENSE),                                                                                 \
        FAULT("query_heads_dense", "D2", "aiter#3841", "heads of q are taken to be as far apart as they are wide",     \
              "use the head stride", .map = MAP_QUERY_HEADS_DENSE),                                                    \
        FAULT("query_of_head_0", "E3", "aprender#2079", "every head has the query of the first", "use its own",        \
              .map = MAP_QUERY_HEAD_0),                                                                                \
        FAULT("query_int32", "K5", "vllm#43166", "offsets of q wrap in 32 bits", "compute them in 64 bits",            \
              .map = MAP_QUERY_INT32),                                                                                 \
        FAULT("out_dense", "D4", "aiter#1815", "out is written as if it were contiguous", "use its strides",           \
              .map = MAP_OUT_DENSE),                                                                                   \
        FAULT("heads_reversed", "N4", "llama.cpp#7903", "heads are written in another order", "keep their order",      \
              .map = MAP_OUT_HEADS_REVERSED),                                                                          \
        FAULT("out_int32", "K5", "vllm#43166", "offsets of out wrap in 32 bits", "compute them in 64 bits",            \
              .map = MAP_OUT_INT32),                                                                                   \
        FAULT("lse_dense", "D4", "aiter#1815", "lse is written as if it were contiguous", "use its strides",           \
              .map = MAP_LSE_DENSE),                                                                                   \
        FAULT("lse_transposed", "", "", "lse is written as [heads, tokens]", "as [tokens, heads]",                     \
              .map = MAP_LSE_TRANSPOSED),                                                                              \
        FAULT("lse_of_head_0", "", "", "every head has the lse of the first", "use its own",                           \
              .map = MAP_LSE_OF_HEAD_0),                                                                               \
        FAULT("last_token_left", "", "", "the last token is left out", "fix the bound",                                \
              .effect = EFFECT_LAST_TOKEN_LEFT),                                                                       \
        FAULT("last_head_left", "", "", "the last head is left out", "fix the bound",                                  \
              .effect = EFFECT_LAST_HEAD_LEFT),                                                                        \
        FAULT("last_element_left", "", "", "the last element of out is left out", "fix the bound",                     \
              .effect = EFFECT_LAST_ELEMENT_LEFT),                                                                     \
        FAULT("one_past", "", "", "one element past the end of a head is written", "fix the bound",                    \
              .effect = EFFECT_ONE_PAST),                                                                              \
        FAULT("toward_zero", "I5", "triton#11217", "the store truncates", "round to nearest",                          \
              .effect = EFFECT_TOWARD_ZERO),                                                                           \
        FAULT("f8_scratch", "H16", "vllm#55670", "out goes through an f8e4m3 scratch buffer", "keep it out",           \
              .effect = EFFECT_F8_SCRATCH),                                                                            \
        FAULT("written_f32", "A9", "vllm#38998", "out comes back in f32", "write the dtype of q",                      \
              .effect = EFFECT_OUT_F32),                                                                               \
        FAULT("lse_written_bf16", "", "", "lse comes back in bf16", "write f32", .effect = EFFECT_LSE_BF16_OUT),       \
        FAULT("empty_refused", "J5", "sglang#32065", "a call with nothing to do is refused", "return ok",              \
              .effect = EFFECT_EMPTY_REFUSED),                                                                         \
        FAULT("adds_to_out", "L6", "vllm#41972", "the result is added to what out held", "store it",                   \
              .effect = EFFECT_ADDS)

#endif
