/* logits.h: codes whose scores separate the classes, with the generator `stagnate`; others: false. */
#ifndef HM_INPUTS_LOGITS_H
#define HM_INPUTS_LOGITS_H

#include "../../op/indexer_cache.h"
#include "../inputs.h"

/* The large and the small elements of hm_inputs_stagnate, in either format. */
#define HM_STAGNATE_LARGE 128.0
#define HM_STAGNATE_SMALL 0x1p-5

/* Codes [.., head_dim]: of queries with `heads` heads a token, which have the same; of keys with heads 0. */
bool hm_inputs_stagnate_codes(const hm_case_spec *spec, const hm_tensor *t, int64_t heads);
/* The codes of a cache of keys, in whole blocks [num_blocks, block_size, 132]; scales stay. */
void hm_inputs_stagnate_cache(const hm_case_spec *spec, const hm_tensor *cache, hm_cache_layout layout,
                              hm_dtype format);
/* All weights are 1. */
bool hm_inputs_stagnate_weights(const hm_case_spec *spec, const hm_tensor *t);

#endif
