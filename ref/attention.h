/* attention.h: ref of the two ops of latent attention. */
#ifndef HM_REF_ATTENTION_H
#define HM_REF_ATTENTION_H

#include "../op/attention.h"

hm_status hm_attention_compute(const char *op, const hm_attention_call *call);

#endif
