/* logits.h: golden of the indexer's two ops of logits. */
#ifndef HM_GOLDEN_LOGITS_H
#define HM_GOLDEN_LOGITS_H

#include "../op/logits.h"
#include "op.h"

hm_status hm_logits_golden_open(hm_status (*read)(const void *args, hm_logits_call *call), const void *args,
                                void **context);
void hm_logits_golden_close(void *context);
hm_status hm_logits_golden_row(const void *context, int arg, int64_t row, hm_class c, hm_tier tier, hm_golden_row *out);
double hm_logits_golden_distance(const void *context, int arg, int64_t row, int64_t index, double got);

#endif
