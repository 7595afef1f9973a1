#include "attention.h"

enum { LSE = 6 }; /* its place in the description table */

static hm_status open_context(const void *args, int threads, void **context) {
    (void)threads;
    return hm_attention_golden_open(hm_attention_read_flat, args, LSE, context);
}

const hm_golden_op hm_mla_prefill_golden = {
    "mla_prefill", open_context, hm_attention_golden_close, hm_attention_golden_row, hm_attention_golden_distance,
    NULL};
