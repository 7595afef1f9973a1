/* attention.h: the two ops of latent attention, completed and checked, and as one: which token sees which keys. */
#ifndef HM_OP_ATTENTION_H
#define HM_OP_ATTENTION_H

#include <hallmark/mla_prefill.h>
#include <stdbool.h>

#include "mla_cache.h"

hm_status hm_sparse_mla_decode_read(const hm_sparse_mla_decode_args *args, hm_sparse_mla_decode_args *full,
                                    hm_mla_cache *cache);
hm_status hm_mla_prefill_read(const hm_mla_prefill_args *args, hm_mla_prefill_args *full);

typedef struct {
    hm_tensor out, lse, q, sink; /* lse, sink: dtype HM_DTYPE_NONE if absent */
    int64_t tokens, heads, width, value_width;
    double scale; /* a value of f32 */
    hm_attention_p p;
    /* how keys are found */
    bool paged;
    hm_sparse_mla_decode_args pages;
    hm_mla_cache cache;
    hm_mla_prefill_args flat;
} hm_attention_call;

hm_status hm_attention_read_paged(const void *args, hm_attention_call *call);
hm_status hm_attention_read_flat(const void *args, hm_attention_call *call);

/* How many places a token's keys may be in; each holds one key or none. */
int64_t hm_attention_places(const hm_attention_call *call, int64_t token);
bool hm_attention_there(const hm_attention_call *call, int64_t token, int64_t place); /* is there a key? */
/* Its elements, to[0..width-1]. */
void hm_attention_key(const hm_attention_call *call, int64_t token, int64_t place, double *to);
/* The query of a head. */
void hm_attention_query(const hm_attention_call *call, int64_t token, int64_t head, double *to);
double hm_attention_sink(const hm_attention_call *call, int64_t head); /* -inf if there are no sinks */

/* What both ops check of q, out, lse, attn_sink and the scalars; *scale becomes the one that is meant. */
hm_status hm_attention_check(const char *op, const hm_tensor *q, const hm_tensor *out, const hm_tensor *lse,
                             const hm_tensor *sink, int p, double *scale);

#endif
