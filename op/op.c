/* op.c: names and sizes of dtypes and status codes, tensors, and the list of ops. */
#include <hallmark/op.h>
#include <string.h>

#include "op.h"

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {
    [HM_DTYPE_NONE] = {"none", 0}, [HM_F32] = {"f32", 4},       [HM_F16] = {"f16", 2},
    [HM_BF16] = {"bf16", 2},       [HM_F8E4M3] = {"f8e4m3", 1}, [HM_F8E4M3FNUZ] = {"f8e4m3fnuz", 1},
    [HM_F8E5M2] = {"f8e5m2", 1},   [HM_E8M0] = {"e8m0", 1},     [HM_U8] = {"u8", 1},
    [HM_I32] = {"i32", 4},         [HM_I64] = {"i64", 8},
};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

const char *hm_dtype_name(hm_dtype dtype) { return (unsigned)dtype < DTYPES ? dtypes[dtype].name : "?"; }
size_t hm_dtype_size(hm_dtype dtype) { return (unsigned)dtype < DTYPES ? dtypes[dtype].size : 0; }

hm_dtype hm_dtype_named(const char *name) {
    for (int i = 1; i < DTYPES; i++)
        if (strcmp(name, dtypes[i].name) == 0) return (hm_dtype)i;
    return HM_DTYPE_NONE;
}

static const struct {
    const char *name, *meaning;
} statuses[] = {
#define STATUS_ROW(symbol, name, meaning) [symbol] = {name, meaning},
    HM_STATUS_LIST(STATUS_ROW)
#undef STATUS_ROW
};

const char *hm_status_name(hm_status status) {
    return (unsigned)status < HM_STATUS_COUNT ? statuses[status].name : "?";
}
const char *hm_status_meaning(hm_status status) {
    return (unsigned)status < HM_STATUS_COUNT ? statuses[status].meaning : "?";
}

const char *hm_version(void) { return HM_VERSION; }

hm_tensor hm_tensor_of(void *data, hm_dtype dtype, int ndim, const int64_t *shape) {
    hm_tensor t = {.data = data, .dtype = dtype, .place = HM_HOST, .ndim = ndim};
    int64_t stride = 1;
    for (int d = (ndim > 4 ? 4 : ndim) - 1; d >= 0; d--) {
        t.shape[d] = shape[d], t.stride[d] = stride;
        if (__builtin_mul_overflow(stride, shape[d] > 0 ? shape[d] : 1, &stride))
            stride = INT64_MAX; /* refused by every check */
    }
    return t;
}

int64_t hm_tensor_elements(const hm_tensor *t) {
    int64_t n = t->dtype != HM_DTYPE_NONE;
    for (int d = 0; d < t->ndim && d < 4; d++) n *= t->shape[d];
    return n;
}

static const hm_op_info *const ops[] = {
    &hm_rms_norm_info,
    &hm_fused_add_rms_norm_info,
    &hm_layer_norm_info,
    &hm_rotary_embedding_info,
    &hm_rope_table_info,
    &hm_embedding_info,
    &hm_linear_info,
    &hm_silu_and_mul_info,
    &hm_concat_mla_q_info,
    &hm_concat_and_cache_mla_info,
    &hm_sparse_mla_decode_info,
    &hm_mla_prefill_info,
    &hm_quant_fp8_group_info,
    &hm_indexer_k_quant_and_cache_info,
    &hm_cp_gather_indexer_k_quant_cache_info,
    &hm_index_weights_info,
    &hm_fp8_mqa_logits_info,
    &hm_fp8_paged_mqa_logits_info,
    &hm_top_k_per_row_info,
    &hm_translate_indices_info,
    &hm_indexer_info,
};

int hm_op_count(void) { return sizeof ops / sizeof *ops; }
const hm_op_info *hm_op_at(int i) { return i >= 0 && i < hm_op_count() ? ops[i] : NULL; }

const hm_op_info *hm_op_named(const char *name) {
    for (int i = 0; i < hm_op_count(); i++)
        if (strcmp(ops[i]->name, name) == 0) return ops[i];
    return NULL;
}
