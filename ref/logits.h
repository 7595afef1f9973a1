/* logits.h: the two ops of logits are one computation; they differ in where the keys lie. */
#ifndef HM_REF_LOGITS_H
#define HM_REF_LOGITS_H

#include "../op/logits.h"

hm_status hm_logits_compute(const char *op, const hm_logits_call *call);

#endif
