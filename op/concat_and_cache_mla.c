#include "concat_and_cache_mla.h"

#include "check.h"
#include "op.h"

static const char op[] = "concat_and_cache_mla";
static const char *const format_names[] = {"bf16", "fp8_ds_mla", NULL};
static const char *const scale_names[] = {"f32", "pow2", NULL};

static hm_status check_dtypes(const hm_concat_and_cache_mla_args *a) {
    hm_dtype T = a->kv_c.dtype;
    bool ds = a->format == HM_MLA_FP8_DS;
    if (T != HM_F16 && T != HM_BF16 && (ds || T != HM_F32))
        return hm_fail(HM_BAD_DTYPE, "%s: kv_c is %s; it has to be %s", op, hm_dtype_name(T),
                       ds ? "f16 or bf16 with format fp8_ds_mla" : "f32, f16 or bf16");
    if (a->k_pe.dtype != T)
        return hm_fail(HM_BAD_DTYPE, "%s: k_pe is %s; it has to be %s, the dtype of kv_c", op,
                       hm_dtype_name(a->k_pe.dtype), hm_dtype_name(T));
    if (!ds && a->kv_cache.dtype != T)
        return hm_fail(HM_BAD_DTYPE, "%s: kv_cache is %s; with format bf16 it has to be %s, the dtype of kv_c", op,
                       hm_dtype_name(a->kv_cache.dtype), hm_dtype_name(T));
    if (a->slot_mapping.dtype != HM_I64)
        return hm_fail(HM_BAD_DTYPE, "%s: slot_mapping is %s; it has to be i64", op,
                       hm_dtype_name(a->slot_mapping.dtype));
    return HM_OK;
}

static hm_status check_width(const char *name, const hm_tensor *t, int64_t width) {
    return t->shape[1] == width
               ? HM_OK
               : hm_fail(HM_BAD_SHAPE, "%s: %s has rows of %lld; with format fp8_ds_mla it has to be %lld", op, name,
                         (long long)t->shape[1], (long long)width);
}

static hm_status check_shapes(const hm_concat_and_cache_mla_args *a, const hm_mla_cache *cache) {
    hm_status s;
    if (a->kv_c.ndim != 2)
        return hm_fail(HM_BAD_SHAPE, "%s: kv_c has rank %d; it has to be 2: [tokens, latent]", op, a->kv_c.ndim);
    int64_t tokens = a->kv_c.shape[0], entry;
    if (a->k_pe.ndim != 2 || a->k_pe.shape[0] != tokens)
        return hm_fail(HM_BAD_SHAPE,
                       "%s: k_pe has rank %d and first extent %lld; it has to be [%lld, rope], as kv_c says", op,
                       a->k_pe.ndim, (long long)a->k_pe.shape[0], (long long)tokens);
    if (a->slot_mapping.ndim != 1 || a->slot_mapping.shape[0] != tokens)
        return hm_fail(HM_BAD_SHAPE,
                       "%s: slot_mapping has rank %d and extent %lld; it has to be [%lld], one for each token of kv_c",
                       op, a->slot_mapping.ndim, (long long)a->slot_mapping.shape[0], (long long)tokens);
    if (a->format == HM_MLA_FP8_DS) {
        if ((s = check_width("kv_c", &a->kv_c, HM_MLA_LATENT))) return s;
        return check_width("k_pe", &a->k_pe, HM_MLA_ROPE);
    }
    if (__builtin_add_overflow(a->kv_c.shape[1], a->k_pe.shape[1], &entry))
        return hm_fail(HM_BAD_SHAPE, "%s: kv_c and k_pe together are wider than 2^63 elements", op);
    return cache->entry == entry
               ? HM_OK
               : hm_fail(HM_BAD_SHAPE,
                         "%s: kv_cache has entries of %lld; it has to be %lld, the rows of kv_c and k_pe together", op,
                         (long long)cache->entry, (long long)entry);
}

hm_status hm_concat_and_cache_mla_read(const hm_concat_and_cache_mla_args *args, hm_concat_and_cache_mla_args *a,
                                       hm_mla_cache *cache) {
    hm_status s;
    if ((s = hm_read_args(op, args, a, sizeof *a))) return s;
    if ((s = hm_check_tensor(op, "kv_cache", &a->kv_cache, true))) return s;
    if ((s = hm_check_tensor(op, "kv_c", &a->kv_c, true))) return s;
    if ((s = hm_check_tensor(op, "k_pe", &a->k_pe, true))) return s;
    if ((s = hm_check_tensor(op, "slot_mapping", &a->slot_mapping, true))) return s;
    if ((s = hm_check_mode(op, "format", (int)a->format, 2))) return s;
    if ((s = hm_check_mode(op, "scale", (int)a->scale, 2))) return s;
    if ((s = check_dtypes(a))) return s;
    if ((s = hm_mla_cache_read(op, &a->kv_cache, a->format, cache))) return s;
    if ((s = check_shapes(a, cache))) return s;
    if ((s = hm_check_places(op, 4, (const char *const[]){"kv_cache", "kv_c", "k_pe", "slot_mapping"},
                             (const hm_tensor *const[]){&a->kv_cache, &a->kv_c, &a->k_pe, &a->slot_mapping})))
        return s;
    if ((s = hm_check_distinct(op, "kv_cache", &a->kv_cache))) return s;
    if ((s = hm_check_overlap(op, "kv_cache", &a->kv_cache, "kv_c", &a->kv_c, false))) return s;
    if ((s = hm_check_overlap(op, "kv_cache", &a->kv_cache, "k_pe", &a->k_pe, false))) return s;
    if ((s = hm_check_overlap(op, "kv_cache", &a->kv_cache, "slot_mapping", &a->slot_mapping, false))) return s;
    return hm_check_slots(op, &a->slot_mapping, cache->num_blocks * cache->block_size);
}

hm_status hm_concat_and_cache_mla_check(const hm_concat_and_cache_mla_args *args) {
    hm_concat_and_cache_mla_args full;
    hm_mla_cache cache;
    return hm_concat_and_cache_mla_read(args, &full, &cache);
}

HM_OP_FUNCTIONS(concat_and_cache_mla, kv_cache)

#define AT(field) offsetof(hm_concat_and_cache_mla_args, field)
static const hm_arg_info args[] = {
    {"kv_c", AT(kv_c), HM_IN, false, "tokens,latent", "bf16 f16 f32", NULL, "latent vectors", NULL},
    {"k_pe", AT(k_pe), HM_IN, false, "tokens,rope", "=kv_c", NULL, "rotated keys", NULL},
    {"slot_mapping", AT(slot_mapping), HM_IN, false, "tokens", "i64", NULL, "where each token goes; negative: nowhere",
     NULL},
    {"kv_cache", AT(kv_cache), HM_INOUT, false, "num_blocks,block_size,entry", "=kv_c u8", NULL, "the paged cache",
     NULL},
};
static const hm_param_info params[] = {
    {"format", AT(format), HM_PARAM_MODE, format_names, HM_MLA_BF16,
     "copies, or 656 bytes of codes, scales and copies"},
    {"scale", AT(scale), HM_PARAM_MODE, scale_names, HM_MLA_SCALE_F32,
     "of fp8_ds_mla: as it is, or rounded up to a power of two"},
};
const hm_op_info hm_concat_and_cache_mla_info = {
    .name = op,
    .about = "writes latent vectors and rotated keys to the paged cache of latent attention",
    .contract = 1,
    .args_size = sizeof(hm_concat_and_cache_mla_args),
    .args = args,
    .nargs = sizeof args / sizeof *args,
    .params = params,
    .nparams = sizeof params / sizeof *params,
    .classes = "wide chain64",
    .class_required = "chain64",
    HM_OP_CALLS,
};
