/* op.h: what golden has to know of an op, one row an op in golden.c. */
#ifndef HM_GOLDEN_OP_H
#define HM_GOLDEN_OP_H

#include "golden.h"

typedef struct {
    const char *name;
    hm_status (*open)(const void *args, int threads, void **context);
    void (*close)(void *context);
    hm_status (*row)(const void *context, int arg, int64_t row, hm_class c, hm_tier tier, hm_golden_row *out);
    double (*distance)(const void *context, int arg, int64_t row, int64_t index, double got);
    hm_status (*observe)(void *context, int arg, const hm_tensor *stored,
                         int threads); /* NULL: elements do not depend on each other */
} hm_golden_op;

extern const hm_golden_op hm_rms_norm_golden, hm_fused_add_rms_norm_golden, hm_layer_norm_golden,
    hm_rotary_embedding_golden, hm_rope_table_golden, hm_embedding_golden, hm_linear_golden, hm_silu_and_mul_golden,
    hm_concat_mla_q_golden, hm_concat_and_cache_mla_golden, hm_sparse_mla_decode_golden, hm_mla_prefill_golden,
    hm_quant_fp8_group_golden, hm_indexer_k_quant_and_cache_golden, hm_cp_gather_indexer_k_quant_cache_golden,
    hm_index_weights_golden, hm_fp8_mqa_logits_golden, hm_fp8_paged_mqa_logits_golden, hm_top_k_per_row_golden,
    hm_translate_indices_golden, hm_indexer_golden;

/* Error constants of a class. u: bound of an addition or multiplication; f: of a division, a root or a reciprocal root.
 * flush: results below 2^-126 may be lost (the f32 classes). */
typedef struct {
    double u, f;
    bool f32;
} hm_arithmetic;
hm_arithmetic hm_class_arithmetic(hm_class c);
/* The chain of a class for sums of n terms: how many rounded additions one term may pass through. */
int64_t hm_class_chain(hm_class c, int64_t n);
/* (1 + s*u)^k with s = +1 or -1, rounded away from 1 (up for +, down for -); k >= 0. */
double hm_growth(double u, int sign, int64_t k);

/* Appends one set of n >= 2 disjoint parts to row->parts; false if memory is short. */
bool hm_golden_add_parts(hm_golden_row *row, const hm_golden_parts *parts);

/* Elements [from, to) of the row are copies: of to - from elements of dtype, the first at `at`. */
void hm_golden_copy(hm_dtype dtype, const void *at, int64_t stride, int64_t from, int64_t to, hm_golden_row *out);
/* |got - (a b + p q)| in ulps of dtype at the exact value, as hm_golden_distance wants it; operands of f32, f16 or
 * bf16. */
double hm_distance_of_sum(double a, double b, double p, double q, hm_dtype dtype, double got);

#endif
