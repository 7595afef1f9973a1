/* attention.h: latent attention in genuine f32 arithmetic, and on emulated tensor cores. */
#ifndef HM_VARIANTS_ATTENTION_H
#define HM_VARIANTS_ATTENTION_H

#include "../../op/attention.h"

typedef struct {
    enum {
        DOT_SEQUENTIAL = 0,
        DOT_PAIRWISE,
        DOT_LANES,      /* 16 accumulators, then a tree */
        DOT_TENSOR_CORE /* `bits` fraction bits, blocks of `block` products */
    } dot;
    int bits, block;
    int keys;         /* of one block of the running softmax; 0: all at once, against the largest score */
    int parts;        /* of the keys, each with a softmax of its own, merged by their lse; 0: 1 */
    bool exp2;        /* log2(e) folded into the scale */
    bool fma;         /* .. and the difference taken with fma */
    int bend;         /* exponentials off by this many times 2^-23 */
    bool reverse;     /* the last key first */
    bool sink_behind; /* 1 / (1 + exp(sink - lse)) behind the division */
    bool wide;        /* binary64 throughout */
} hm_attention_variant;

hm_status hm_attention_variant_run(const hm_attention_variant *v, const hm_attention_call *call);

/* A table's rows; VARIANT(what, about, class, ...) as each table defines it. */
#define HM_ATTENTION_VARIANTS(VARIANT)                                                                                \
    VARIANT("in_order", "f32, two passes, one product after the other", "any", 0),                                    \
        VARIANT("online", "f32, 16 accumulators, blocks of 64 keys against a running maximum, exp2", "chain64",       \
                .dot = DOT_LANES, .keys = 64, .exp2 = true),                                                          \
        VARIANT("online_backward", "f32, pairwise, blocks of 32 keys from the last on, exp2 with fma", "chain64",     \
                .dot = DOT_PAIRWISE, .keys = 32, .exp2 = true, .fma = true, .reverse = true),                         \
        VARIANT("split", "f32, keys split in 4 parts that are merged by their lse", "chain64", .dot = DOT_LANES,      \
                .keys = 64, .parts = 4),                                                                              \
        VARIANT("split_sink_behind", "f32, 2 parts, the sink as a factor at the end, exponentials 2^-22 too large",   \
                "chain64", .dot = DOT_PAIRWISE, .keys = 64, .parts = 2, .bend = 2, .sink_behind = true),              \
        VARIANT("low_exp", "f32, exponentials 2^-22 too small, blocks of 16 keys", "any", .dot = DOT_LANES,           \
                .keys = 16, .bend = -2),                                                                              \
        VARIANT("tc23", "tensor cores with 23 fraction bits in blocks of 16, blocks of 64 keys, exp2", "tc23",        \
                .dot = DOT_TENSOR_CORE, .bits = 23, .block = 16, .keys = 64, .exp2 = true),                           \
        VARIANT("tc23_split", "the same in blocks of 8, keys in 3 parts", "tc23", .dot = DOT_TENSOR_CORE, .bits = 23, \
                .block = 8, .keys = 64, .parts = 3, .exp2 = true, .fma = true),                                       \
        VARIANT("tc13", "tensor cores with 13 fraction bits in blocks of 32", "tc13", .dot = DOT_TENSOR_CORE,         \
                .bits = 13, .block = 32, .keys = 64),                                                                 \
        VARIANT("f64", "binary64, the last key first", "wide", .wide = true, .reverse = true)

#endif
