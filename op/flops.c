#include "flops.h"

#include "attention.h"
#include "check.h"
#include "linear.h"
#include "logits.h"

double hm_linear_flops(const void *args) {
    hm_linear_args full;
    if (hm_linear_read(args, &full)) return 0;
    return 2.0 * (double)hm_row_count(&full.x) * (double)full.weight.shape[0] * (double)full.weight.shape[1];
}

/* Heads times keys that are seen times head_dim. */
static double of_logits(const hm_logits_call *call) {
    double keys = 0;
    for (int64_t row = 0; row < call->rows; row++) {
        int64_t first, end, shift;
        hm_logits_columns_of(call, row, &first, &end, &shift);
        keys += (double)(end - first);
    }
    return 2.0 * keys * (double)call->heads * (double)call->head_dim;
}

double hm_fp8_mqa_logits_flops(const void *args) {
    hm_logits_call call;
    return hm_logits_read_flat(args, &call) ? 0 : of_logits(&call);
}

double hm_fp8_paged_mqa_logits_flops(const void *args) {
    hm_logits_call call;
    return hm_logits_read_paged(args, &call) ? 0 : of_logits(&call);
}

/* A key is multiplied with the query, and its value with a weight. */
static double of_attention(const hm_attention_call *call) {
    double keys = 0;
    for (int64_t token = 0; token < call->tokens; token++) {
        int64_t places = hm_attention_places(call, token);
        for (int64_t i = 0; i < places; i++) keys += hm_attention_there(call, token, i);
    }
    return 2.0 * keys * (double)call->heads * (double)(call->width + call->value_width);
}

double hm_sparse_mla_decode_flops(const void *args) {
    hm_attention_call call;
    return hm_attention_read_paged(args, &call) ? 0 : of_attention(&call);
}

double hm_mla_prefill_flops(const void *args) {
    hm_attention_call call;
    return hm_attention_read_flat(args, &call) ? 0 : of_attention(&call);
}
