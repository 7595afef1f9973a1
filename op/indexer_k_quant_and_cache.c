#include "check.h"
#include "indexer_cache.h"
#include "op.h"
#include "slots.h"

static const char op[] = "indexer_k_quant_and_cache";
static const char *const layout_names[] = {"normal", "shuffle", NULL};
static const char *const code_format_names[] = {"e4m3", "e4m3fnuz", NULL};
static const char *const scale_format_names[] = {"f32", "ue8m0", NULL};

hm_status hm_indexer_k_quant_and_cache_read(const hm_indexer_k_quant_and_cache_args *args,
                                            hm_indexer_k_quant_and_cache_args *a, hm_indexer_cache *cache) {
    hm_status s;
    if ((s = hm_read_args(op, args, a, sizeof *a))) return s;
    if (a->floor == 0) a->floor = 1e-4;
    a->floor = (double)(float)a->floor;
    if ((s = hm_check_tensor(op, "kv_cache", &a->kv_cache, true))) return s;
    if ((s = hm_check_tensor(op, "k", &a->k, true))) return s;
    if ((s = hm_check_tensor(op, "slot_mapping", &a->slot_mapping, true))) return s;
    if ((s = hm_check_mode(op, "layout", a->layout, 2))) return s;
    if ((s = hm_check_mode(op, "code_format", a->code_format, 2))) return s;
    if ((s = hm_check_mode(op, "scale_format", a->scale_format, 2))) return s;
    if (!(a->floor >= 0x1p-100 && a->floor <= 0x1p64))
        return hm_fail(HM_BAD_PARAM, "%s: floor is %g; it has to be 2^-100 to 2^64, or 0 for 1e-4", op, a->floor);
    if (a->k.dtype != HM_F16 && a->k.dtype != HM_BF16)
        return hm_fail(HM_BAD_DTYPE, "%s: k is %s; it has to be f16 or bf16", op, hm_dtype_name(a->k.dtype));
    if (a->slot_mapping.dtype != HM_I64)
        return hm_fail(HM_BAD_DTYPE, "%s: slot_mapping is %s; it has to be i64", op,
                       hm_dtype_name(a->slot_mapping.dtype));
    if ((s = hm_indexer_cache_read(op, &a->kv_cache, a->layout, cache))) return s;
    if (a->k.ndim != 2 || a->k.shape[1] != cache->head_dim)
        return hm_fail(HM_BAD_SHAPE,
                       "%s: k has rank %d and last extent %lld; it has to be [tokens, %lld], as the entries of "
                       "kv_cache say",
                       op, a->k.ndim, (long long)a->k.shape[a->k.ndim - 1], (long long)cache->head_dim);
    if (a->slot_mapping.ndim != 1 || a->slot_mapping.shape[0] != a->k.shape[0])
        return hm_fail(HM_BAD_SHAPE,
                       "%s: slot_mapping has rank %d and extent %lld; it has to be [%lld], one for each token of "
                       "k",
                       op, a->slot_mapping.ndim, (long long)a->slot_mapping.shape[0], (long long)a->k.shape[0]);
    if ((s = hm_check_places(op, 3, (const char *const[]){"kv_cache", "k", "slot_mapping"},
                             (const hm_tensor *const[]){&a->kv_cache, &a->k, &a->slot_mapping})))
        return s;
    if ((s = hm_check_distinct(op, "kv_cache", &a->kv_cache))) return s;
    if ((s = hm_check_overlap(op, "kv_cache", &a->kv_cache, "k", &a->k, false))) return s;
    if ((s = hm_check_overlap(op, "kv_cache", &a->kv_cache, "slot_mapping", &a->slot_mapping, false))) return s;
    return hm_check_slots(op, &a->slot_mapping, cache->num_blocks * cache->block_size);
}

hm_status hm_indexer_k_quant_and_cache_check(const hm_indexer_k_quant_and_cache_args *args) {
    hm_indexer_k_quant_and_cache_args full;
    hm_indexer_cache cache;
    return hm_indexer_k_quant_and_cache_read(args, &full, &cache);
}

HM_OP_FUNCTIONS(indexer_k_quant_and_cache, kv_cache)

#define AT(field) offsetof(hm_indexer_k_quant_and_cache_args, field)
static const hm_arg_info args[] = {
    {"k", AT(k), HM_IN, false, "tokens,head_dim", "bf16 f16", NULL, "keys", NULL},
    {"slot_mapping", AT(slot_mapping), HM_IN, false, "tokens", "i64", NULL, "where each token goes; negative: nowhere",
     NULL},
    {"kv_cache", AT(kv_cache), HM_INOUT, false, "num_blocks,block_size,entry", "u8", NULL, "the paged cache", NULL},
};
static const hm_param_info params[] = {
    {"layout", AT(layout), HM_PARAM_MODE, layout_names, HM_LAYOUT_NORMAL, "token by token, or in tiles of 16 by 16"},
    {"code_format", AT(code_format), HM_PARAM_MODE, code_format_names, HM_CODE_E4M3, "fn (448) or fnuz (224)"},
    {"scale_format", AT(scale_format), HM_PARAM_MODE, scale_format_names, HM_SCALE_F32,
     "the scale as it is, or rounded up to a power of two"},
    {"floor", AT(floor), HM_PARAM_F64, NULL, 1e-4, "least magnitude that a group is taken to have"},
};
const hm_op_info hm_indexer_k_quant_and_cache_info = {
    .name = op,
    .about = "writes the indexer's keys to its paged cache, as 8-bit codes with scales",
    .contract = 1,
    .args_size = sizeof(hm_indexer_k_quant_and_cache_args),
    .args = args,
    .nargs = sizeof args / sizeof *args,
    .params = params,
    .nparams = sizeof params / sizeof *params,
    .classes = "wide chain64",
    .class_required = "chain64",
    HM_OP_CALLS,
};
