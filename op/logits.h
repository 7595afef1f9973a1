/* logits.h: the indexer's two ops of logits, completed and checked, and as one: which row sees which keys. */
#ifndef HM_OP_LOGITS_H
#define HM_OP_LOGITS_H

#include <hallmark/fp8_paged_mqa_logits.h>
#include <stdbool.h>

#include "indexer_cache.h"

/* Up to here scores are exact in binary64, in any order: ref/logits.c says why. */
enum { HM_LOGITS_MOST_DIM = 1 << 17 };

hm_status hm_fp8_mqa_logits_read(const hm_fp8_mqa_logits_args *args, hm_fp8_mqa_logits_args *full);
hm_status hm_fp8_paged_mqa_logits_read(const hm_fp8_paged_mqa_logits_args *args, hm_fp8_paged_mqa_logits_args *full,
                                       hm_indexer_cache *cache);

typedef struct {
    hm_dtype codes;
    int64_t rows, heads, head_dim, width;
    hm_logits_outside outside;
    hm_tensor logits, weights;
    /* how q and the keys are found */
    bool paged;
    hm_fp8_mqa_logits_args flat;
    hm_fp8_paged_mqa_logits_args pages;
    hm_indexer_cache cache;
} hm_logits_call;

hm_status hm_logits_read_flat(const void *args, hm_logits_call *call);
hm_status hm_logits_read_paged(const void *args, hm_logits_call *call);

/* The columns [*first, *end) of a row that have a key; column + *shift is the key's number, or position. */
void hm_logits_columns_of(const hm_logits_call *call, int64_t row, int64_t *first, int64_t *end, int64_t *shift);
/* Code d of head h of the row's query. */
const uint8_t *hm_logits_query(const hm_logits_call *call, int64_t row, int64_t h, int64_t d);
/* The codes of a key, gathered to[0..head_dim-1], and its scale. */
float hm_logits_key(const hm_logits_call *call, int64_t row, int64_t key, uint8_t *to);
float hm_logits_weight(const hm_logits_call *call, int64_t row, int64_t h);

#endif
