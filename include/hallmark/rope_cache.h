/* SPDX-License-Identifier: Apache-2.0
 * rope_cache.h: one rope table for a whole model, in every dtype that is asked for.
 *
 * The cache owns an immutable f32 master. A further dtype is converted from the master once, on first use, whichever
 * thread asks first; later calls return the same memory. The master is never replaced or degraded: f32 asked for after
 * bf16 is the f32 master itself. What is returned always has the dtype that was asked for. */
#ifndef HALLMARK_ROPE_CACHE_H
#define HALLMARK_ROPE_CACHE_H

#include "rope_table.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hm_rope_cache hm_rope_cache;

/* Fills the master through hm_rope_table from table, whose out gives the shape only (dtype HM_F32, data NULL). On error
 * *cache is NULL. positions and factors are read here and not kept. Errors: as hm_rope_table, BAD_ARG (data is not
 * NULL), NO_MEMORY. */
HM_API hm_status hm_rope_cache_create(const hm_rope_table_args *table, hm_rope_cache **cache);
HM_API void hm_rope_cache_destroy(hm_rope_cache *cache); /* NULL is fine; no thread may still use a view */

/* A view [n, rotary_dim] of the table in dtype f32, f16 or bf16: RN of the master. Thread-safe. The view is for reading
 * and lives as long as the cache. Errors: BAD_ARG, BAD_DTYPE, NO_MEMORY; then view is left as it was. */
HM_API hm_status hm_rope_cache_get(hm_rope_cache *cache, hm_dtype dtype, hm_tensor *view);

/* How often this cache converted to dtype so far: 0 or 1; always 0 for f32. */
HM_API int hm_rope_cache_conversions(const hm_rope_cache *cache, hm_dtype dtype);

#ifdef __cplusplus
}
#endif
#endif
