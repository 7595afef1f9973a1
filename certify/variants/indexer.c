/* Legal ways to compute indexer: the chain through legal ways of its steps. */
#include "../../op/indexer.h"

#include <stdlib.h>

#include "tables.h"

typedef struct {
    const char *norm, *rotary, *write, *quant, *weigh, *score, *select; /* variants of the ops, by id */
} chain;

static hm_status step(const char *id, const void *args) {
    const hm_variant *v = hm_variant_named(id);
    return v->run(v->variation, args);
}

static hm_status run(const void *variation, const void *args) {
    const chain *c = variation;
    hm_indexer_args a;
    hm_indexer_steps p;
    hm_status s = hm_indexer_read(args, &a);
    if (s || a.q.shape[0] == 0) return s;
    void *memory = malloc(hm_indexer_memory(&a));
    if (!memory) return HM_NO_MEMORY;
    hm_indexer_take_apart(&a, memory, &p);
    s = step(c->norm, &p.norm);
    if (!s) s = step(c->rotary, &p.rotary);
    if (!s) s = step(c->quant, &p.quant);
    if (!s) s = step(c->weigh, &p.weigh);
    if (!s) s = step(c->write, &p.write);
    if (!s) s = step(c->score, &p.score);
    if (!s) s = step(c->select, &p.select);
    free(memory);
    return s;
}

#define VARIANT(what, about, class_name, norm, rotary, quantiser, weigh, score, select)              \
    {                                                                                                \
        "indexer." what, "indexer", about, class_name, run, &(const chain) {                         \
            "layer_norm." norm, "rotary_embedding." rotary, "indexer_k_quant_and_cache." quantiser,  \
                "quant_fp8_group." quantiser, "index_weights." weigh, "fp8_paged_mqa_logits." score, \
                "top_k_per_row." select                                                              \
        }                                                                                            \
    }
const hm_variant hm_indexer_variants[] = {
    VARIANT("in_order", "f32, one operation after the other", "any", "sequential", "plain", "f32", "left_to_right",
            "in_order", "sorted"),
    VARIANT("pairwise", "f32, pairwise sums, reciprocals", "chain64", "pairwise", "fuses_first", "multiplied",
            "constants_first", "pairwise", "heap"),
    VARIANT("lanes", "f32, 16 and more accumulators, approximate divisions", "chain64", "block", "fuses_either",
            "ratio_high", "to_scale", "lanes", "radix"),
    VARIANT("welford", "Welford's updates, exponents by logarithm", "any", "welford_lanes", "keeps_both", "logarithm",
            "heads_first", "fused", "atomic"),
    VARIANT("flush", "f32, subnormals are 0", "chain512", "flush", "flushed_fused", "flush", "flush", "in_order",
            "backward"),
    VARIANT("tc23", "scores on tensor cores with 23 fraction bits", "tc23", "scale_and_shift_fma", "fuses_second",
            "f32", "constants_to_weight", "tc23", "last_ties"),
    VARIANT("tc13", "scores on tensor cores with 13 fraction bits", "tc13", "pairwise", "plain", "f32", "left_to_right",
            "tc13", "atomic"),
    VARIANT("wide", "binary64", "wide", "wide", "wide", "wide", "wide", "f64", "sorted"),
};
const int hm_indexer_variant_count = sizeof hm_indexer_variants / sizeof *hm_indexer_variants;
