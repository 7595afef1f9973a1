/* indexer: the chain through the references of its steps. */
#include "../op/indexer.h"

#include <stdlib.h>

#include "../op/check.h"

hm_status hm_indexer_ref(const hm_indexer_args *args) {
    hm_indexer_args a;
    hm_indexer_steps step;
    hm_status s = hm_indexer_read(args, &a);
    if (s) return s;
    if (a.q.place != HM_HOST) return hm_fail(HM_UNSUPPORTED, "indexer: ref works on host tensors only");
    void *memory = malloc(hm_indexer_memory(&a));
    if (!memory) return hm_fail(HM_NO_MEMORY, "indexer: no memory for %lld tokens", (long long)a.q.shape[0]);
    hm_indexer_take_apart(&a, memory, &step);
    if (a.q.shape[0] > 0) {
        if (!s) s = hm_layer_norm_ref(&step.norm);
        if (!s) s = hm_rotary_embedding_ref(&step.rotary);
        if (!s) s = hm_indexer_k_quant_and_cache_ref(&step.write);
        if (!s) s = hm_quant_fp8_group_ref(&step.quant);
        if (!s) s = hm_index_weights_ref(&step.weigh);
        if (!s) s = hm_fp8_paged_mqa_logits_ref(&step.score);
        if (!s) s = hm_top_k_per_row_ref(&step.select);
    }
    free(memory);
    return s;
}
