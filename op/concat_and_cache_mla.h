/* concat_and_cache_mla.h: the arguments as implementations, golden and faults read them. */
#ifndef HM_OP_CONCAT_AND_CACHE_MLA_H
#define HM_OP_CONCAT_AND_CACHE_MLA_H

#include "mla_cache.h"
#include "slots.h"

/* Checks everything; fills a with the arguments and cache with what kv_cache is. */
hm_status hm_concat_and_cache_mla_read(const hm_concat_and_cache_mla_args *args, hm_concat_and_cache_mla_args *a,
                                       hm_mla_cache *cache);
/* The floor under a scale. */
static inline double hm_mla_floor(hm_mla_scale scale) { return scale == HM_MLA_SCALE_POW2 ? (double)1e-4f : 0x1p-126; }

#endif
