#include "attention.h"
#include "check.h"
#include "flops.h"
#include "indexer_cache.h"
#include "op.h"

static const char op[] = "sparse_mla_decode";
static const char *const p_names[] = {"f32", "bf16", NULL};
static const char *const dequant_names[] = {"f32", "sm90", "sm100", NULL};

static hm_status check_cache(const hm_sparse_mla_decode_args *a, hm_mla_cache *cache) {
    hm_status s;
    const hm_tensor *kv = &a->kv_cache;
    bool ds = kv->dtype == HM_U8;
    if (!ds && kv->dtype != a->q.dtype)
        return hm_fail(HM_BAD_DTYPE, "%s: kv_cache is %s; with q in %s it has to be %s%s", op, hm_dtype_name(kv->dtype),
                       hm_dtype_name(a->q.dtype), hm_dtype_name(a->q.dtype), a->q.dtype == HM_BF16 ? " or u8" : "");
    if (ds && a->q.dtype != HM_BF16)
        return hm_fail(HM_BAD_DTYPE, "%s: kv_cache is u8; with q in f16 it has to be f16", op);
    if ((s = hm_mla_cache_read(op, kv, ds ? HM_MLA_FP8_DS : HM_MLA_BF16, cache))) return s;
    int64_t width = ds ? HM_MLA_LATENT + HM_MLA_ROPE : cache->entry;
    return hm_check_extent(op, "q", &a->q, 3, 2, width, "the elements of a key in kv_cache");
}

static hm_status check_indices(const hm_sparse_mla_decode_args *a, const hm_mla_cache *cache) {
    if (a->q.place != HM_HOST) return HM_OK; /* to look at them would wait for the device */
    int64_t capacity, top_k = a->indices.shape[1];
    if (__builtin_mul_overflow(cache->num_blocks, cache->block_size, &capacity)) capacity = INT64_MAX;
    for (int64_t t = 0; t < a->q.shape[0]; t++) {
        int64_t n = a->topk_length.dtype ? hm_integer_at(&a->topk_length, t) : top_k;
        if (n > top_k)
            return hm_fail(HM_BAD_VALUE, "%s: topk_length is %lld for token %lld; it has to be at most %lld", op,
                           (long long)n, (long long)t, (long long)top_k);
        for (int64_t i = 0; i < n; i++) {
            int64_t slot = hm_integer_at2(&a->indices, t, i);
            if (slot >= capacity)
                return hm_fail(
                    HM_BAD_VALUE,
                    "%s: indices holds at place %lld of token %lld the slot %lld; it has to be less than %lld", op,
                    (long long)i, (long long)t, (long long)slot, (long long)capacity);
        }
    }
    return HM_OK;
}

hm_status hm_sparse_mla_decode_read(const hm_sparse_mla_decode_args *args, hm_sparse_mla_decode_args *a,
                                    hm_mla_cache *cache) {
    hm_status s;
    if ((s = hm_read_args(op, args, a, sizeof *a))) return s;
    static const char *const name[] = {"q", "kv_cache", "indices", "topk_length", "attn_sink", "out", "lse"};
    const hm_tensor *const t[] = {&a->q, &a->kv_cache, &a->indices, &a->topk_length, &a->attn_sink, &a->out, &a->lse};
    for (int i = 0; i < 7; i++)
        if ((s = hm_check_tensor(op, name[i], t[i], i < 3 || i == 5))) return s;
    if ((s = hm_check_mode(op, "dequant", a->dequant, 3))) return s;
    if ((s = hm_attention_check(op, &a->q, &a->out, &a->lse, &a->attn_sink, (int)a->p, &a->scale))) return s;
    for (int i = 2; i < 4; i++)
        if (t[i]->dtype && t[i]->dtype != HM_I32)
            return hm_fail(HM_BAD_DTYPE, "%s: %s is %s; it has to be i32", op, name[i], hm_dtype_name(t[i]->dtype));
    if ((s = check_cache(a, cache))) return s;
    if ((s = hm_check_extent(op, "indices", &a->indices, 2, 0, a->q.shape[0], "the tokens of q"))) return s;
    if (a->topk_length.dtype &&
        (s = hm_check_extent(op, "topk_length", &a->topk_length, 1, 0, a->q.shape[0], "the tokens of q")))
        return s;
    if ((s = hm_check_places(op, 7, name, t))) return s;
    if ((s = hm_check_distinct(op, "out", &a->out))) return s;
    if (a->lse.dtype && (s = hm_check_distinct(op, "lse", &a->lse))) return s;
    for (int i = 0; i < 5; i++) {
        if ((s = hm_check_overlap(op, "out", &a->out, name[i], t[i], false))) return s;
        if (a->lse.dtype && (s = hm_check_overlap(op, "lse", &a->lse, name[i], t[i], false))) return s;
    }
    if (a->lse.dtype && (s = hm_check_overlap(op, "lse", &a->lse, "out", &a->out, false))) return s;
    return check_indices(a, cache);
}

hm_status hm_sparse_mla_decode_check(const hm_sparse_mla_decode_args *args) {
    hm_sparse_mla_decode_args full;
    hm_mla_cache cache;
    return hm_sparse_mla_decode_read(args, &full, &cache);
}

HM_OP_FUNCTIONS(sparse_mla_decode, out)

#define AT(field) offsetof(hm_sparse_mla_decode_args, field)
static const hm_arg_info args[] = {
    {"q", AT(q), HM_IN, false, "tokens,heads,width", "bf16 f16", NULL, "queries", NULL},
    {"topk_length", AT(topk_length), HM_IN, true, "tokens", "i32", NULL, "how many indices count", NULL},
    {"indices", AT(indices), HM_IN, false, "tokens,top_k", "i32", NULL, "slots of the selected keys; negative: none",
     NULL},
    {"kv_cache", AT(kv_cache), HM_IN, false, "num_blocks,block_size,entry", "bf16 f16 u8", NULL, "the paged cache",
     NULL},
    {"attn_sink", AT(attn_sink), HM_IN, true, "heads", "f32", NULL, "logit of a key without a value", NULL},
    {"out", AT(out), HM_OUT, false, "tokens,heads,value_width", "=q", NULL, "weighted values", NULL},
    {"lse", AT(lse), HM_OUT, true, "tokens,heads", "f32", NULL, "natural log of the sum of exponentials", NULL},
};
static const hm_param_info params[] = {
    {"scale", AT(scale), HM_PARAM_F64, NULL, 0, "of the scores; narrowed to f32 first; 0: width^-1/2"},
    {"p", AT(p), HM_PARAM_MODE, p_names, HM_P_F32, "what a weight is rounded to"},
    {"dequant", AT(dequant), HM_PARAM_MODE, dequant_names, HM_MLA_DEQUANT_F32, "how the scale of an 8-bit key is read"},
};
const hm_op_info hm_sparse_mla_decode_info = {
    .name = op,
    .about = "latent attention over selected keys of the paged cache",
    .contract = 1,
    .args_size = sizeof(hm_sparse_mla_decode_args),
    .args = args,
    .nargs = sizeof args / sizeof *args,
    .params = params,
    .nparams = sizeof params / sizeof *params,
    .classes = "wide chain64 chain512 any tc23 tc13",
    .class_required = "tc23",
    .flops = hm_sparse_mla_decode_flops,
    HM_OP_CALLS,
};
