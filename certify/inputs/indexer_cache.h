/* indexer_cache.h: what a cache of indexer keys holds before a call, for every op that reads or writes one. */
#ifndef HM_INPUTS_INDEXER_CACHE_H
#define HM_INPUTS_INDEXER_CACHE_H

#include "../../op/indexer_cache.h"
#include "../inputs.h"

/* Fills a cache of any legal form with codes that are numbers, none of them NaN, and positive scales (powers of two, or
 * with scale_of f32 any); every byte is a pure function of (generator, seed, name, block, offset, element). Generator
 * zero: codes 0; bits: any byte at all. false if t is no cache of keys of head_dim in that layout. */
bool hm_inputs_fill_cache(const hm_case_spec *spec, const char *name, const hm_tensor *t, int64_t head_dim,
                          hm_cache_layout layout, hm_cache_codes codes, bool powers_of_two);

#endif
