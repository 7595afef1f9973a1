/* indexer_cache.h: the indexer's cache read backwards, from a byte to what it belongs to; so that golden's index map is
 * not the one that ref writes with. */
#ifndef HM_GOLDEN_INDEXER_CACHE_H
#define HM_GOLDEN_INDEXER_CACHE_H

#include <stdbool.h>

#include "../op/indexer_cache.h"

typedef struct {
    int64_t offset; /* of the token in its block */
    bool is_scale;
    int64_t d; /* of a code: its element; of a scale's byte: its group */
    int part;  /* of a scale's byte: 0..3 */
} hm_indexer_place;

/* byte: from the first of a block, 0 .. block_size * entry - 1 */
hm_indexer_place hm_indexer_place_of(const hm_indexer_cache *c, int64_t byte);

#endif
