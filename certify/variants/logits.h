/* logits.h: the indexer's logits in genuine f32 arithmetic, and on emulated tensor cores. */
#ifndef HM_VARIANTS_LOGITS_H
#define HM_VARIANTS_LOGITS_H

#include "../../op/logits.h"

typedef struct {
    enum {
        DOT_SEQUENTIAL = 0,
        DOT_PAIRWISE,
        DOT_LANES, /* 16 accumulators, then a tree */
        DOT_REVERSED,
        DOT_F64,
        DOT_TENSOR_CORE /* `bits` fraction bits, blocks of `block` products */
    } dot;
    int bits, block;
    enum { SCALE_LAST = 0, SCALE_ON_SCORE, SCALE_ON_WEIGHT } scale;
    bool heads_reversed, fma;
} hm_logits_variant;

hm_status hm_logits_variant_run(const hm_logits_variant *v, const hm_logits_call *call);

/* A table's rows; VARIANT(what, about, class, ...) as each table defines it. */
#define HM_LOGITS_VARIANTS(VARIANT)                                                                                    \
    VARIANT("in_order", "f32, one product after the other (head_dim up to 512)", "chain512", 0),                       \
        VARIANT("pairwise", "f32, pairwise, the scale on the score", "chain64", .dot = DOT_PAIRWISE,                   \
                .scale = SCALE_ON_SCORE),                                                                              \
        VARIANT("lanes", "f32, 16 accumulators, heads backward", "chain64", .dot = DOT_LANES, .heads_reversed = true), \
        VARIANT("fused", "f32 from the last product on (head_dim up to 512), heads added with fma", "chain512",        \
                .dot = DOT_REVERSED, .fma = true),                                                                     \
        VARIANT("tc23", "tensor cores with 23 fraction bits, blocks of 16", "tc23", .dot = DOT_TENSOR_CORE,            \
                .bits = 23, .block = 16),                                                                              \
        VARIANT("tc23_blocks_of_8", "the same, blocks of 8, the scale on the weights", "tc23", .dot = DOT_TENSOR_CORE, \
                .bits = 23, .block = 8, .scale = SCALE_ON_WEIGHT),                                                     \
        VARIANT("tc13", "tensor cores with 13 fraction bits, blocks of 32", "tc13", .dot = DOT_TENSOR_CORE,            \
                .bits = 13, .block = 32),                                                                              \
        VARIANT("f64", "binary64, heads backward", "wide", .dot = DOT_F64, .heads_reversed = true)

#endif
