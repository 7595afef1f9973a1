#include "indexer_cache.h"

hm_indexer_place hm_indexer_place_of(const hm_indexer_cache *c, int64_t byte) {
    int64_t codes = c->block_size * c->head_dim, rest;
    if (byte >= codes) {
        rest = byte - codes;
        return (hm_indexer_place){
            .offset = rest / (4 * c->groups), .is_scale = true, .d = rest / 4 % c->groups, .part = (int)(rest % 4)};
    }
    if (c->layout == HM_LAYOUT_NORMAL) return (hm_indexer_place){.offset = byte / c->head_dim, .d = byte % c->head_dim};
    int64_t band = 16 * c->head_dim; /* 16 tokens; in it, tiles of 16 tokens by 16 codes */
    rest = byte % band;
    return (hm_indexer_place){.offset = byte / band * 16 + rest / 16 % 16, .d = rest / 256 * 16 + rest % 16};
}
