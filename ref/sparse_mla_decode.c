#include "attention.h"

hm_status hm_sparse_mla_decode_ref(const hm_sparse_mla_decode_args *args) {
    hm_attention_call call;
    hm_status s = hm_attention_read_paged(args, &call);
    return s ? s : hm_attention_compute("sparse_mla_decode", &call);
}
