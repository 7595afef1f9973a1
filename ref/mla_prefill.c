#include "attention.h"

hm_status hm_mla_prefill_ref(const hm_mla_prefill_args *args) {
    hm_attention_call call;
    hm_status s = hm_attention_read_flat(args, &call);
    return s ? s : hm_attention_compute("mla_prefill", &call);
}
