#include "logits.h"

hm_status hm_fp8_paged_mqa_logits_ref(const hm_fp8_paged_mqa_logits_args *args) {
    hm_logits_call call;
    hm_status s = hm_logits_read_paged(args, &call);
    return s ? s : hm_logits_compute("fp8_paged_mqa_logits", &call);
}
