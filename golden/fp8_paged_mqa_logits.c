#include "logits.h"

static hm_status open_context(const void *args, int threads, void **context) {
    (void)threads;
    return hm_logits_golden_open(hm_logits_read_paged, args, context);
}

const hm_golden_op hm_fp8_paged_mqa_logits_golden = {"fp8_paged_mqa_logits",    open_context,
                                                     hm_logits_golden_close,    hm_logits_golden_row,
                                                     hm_logits_golden_distance, NULL};
