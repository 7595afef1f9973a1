/* attention.h: golden of the two ops of latent attention. */
#ifndef HM_GOLDEN_ATTENTION_H
#define HM_GOLDEN_ATTENTION_H

#include "../op/attention.h"
#include "op.h"

/* lse_arg: index of lse in the description table of the op. */
hm_status hm_attention_golden_open(hm_status (*read)(const void *args, hm_attention_call *call), const void *args,
                                   int lse_arg, void **context);
void hm_attention_golden_close(void *context);
hm_status hm_attention_golden_row(const void *context, int arg, int64_t row, hm_class c, hm_tier tier,
                                  hm_golden_row *out);
double hm_attention_golden_distance(const void *context, int arg, int64_t row, int64_t index, double got);

#endif
