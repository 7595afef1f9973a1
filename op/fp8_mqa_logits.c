#include "check.h"
#include "flops.h"
#include "fp8.h"
#include "logits.h"
#include "op.h"

static const char op[] = "fp8_mqa_logits";
static const char *const outside_names[] = {"clean", "leave", NULL};
static const char *const columns_names[] = {"absolute", "compressed", NULL};

static hm_status check_shapes(const hm_fp8_mqa_logits_args *a) {
    hm_status s;
    const hm_tensor *q = &a->q;
    if ((s = hm_check_extent(op, "q", q, 3, 0, -1, ""))) return s;
    if (q->shape[2] > HM_LOGITS_MOST_DIM)
        return hm_fail(HM_BAD_SHAPE, "%s: q has a head_dim of %lld; it has to be at most %d", op,
                       (long long)q->shape[2], (int)HM_LOGITS_MOST_DIM);
    if ((s = hm_check_extent(op, "k", &a->k, 2, 1, q->shape[2], "the head_dim of q"))) return s;
    if ((s = hm_check_extent(op, "k_scale", &a->k_scale, 1, 0, a->k.shape[0], "one a key"))) return s;
    if ((s = hm_check_extent(op, "weights", &a->weights, 2, 0, q->shape[0], "one row a token of q"))) return s;
    if ((s = hm_check_extent(op, "weights", &a->weights, 2, 1, q->shape[1], "one a head of q"))) return s;
    if ((s = hm_check_extent(op, "ks", &a->ks, 1, 0, q->shape[0], "one a token of q"))) return s;
    if ((s = hm_check_extent(op, "ke", &a->ke, 1, 0, q->shape[0], "one a token of q"))) return s;
    if ((s = hm_check_extent(op, "logits", &a->logits, 2, 0, q->shape[0], "one row a token of q"))) return s;
    return hm_check_extent(op, "logits", &a->logits, 2, 1, a->columns == HM_COLUMNS_ABSOLUTE ? a->k.shape[0] : -1,
                           "one column a key");
}

static hm_status check_dtypes(const hm_fp8_mqa_logits_args *a) {
    static const char *const f32_name[] = {"k_scale", "weights", "logits"}, *const i32_name[] = {"ks", "ke"};
    const hm_tensor *const f32[] = {&a->k_scale, &a->weights, &a->logits}, *const i32[] = {&a->ks, &a->ke};
    if (a->q.dtype != HM_F8E4M3 && a->q.dtype != HM_F8E4M3FNUZ)
        return hm_fail(HM_BAD_DTYPE, "%s: q is %s; it has to be f8e4m3 or f8e4m3fnuz", op, hm_dtype_name(a->q.dtype));
    if (a->k.dtype != a->q.dtype)
        return hm_fail(HM_BAD_DTYPE, "%s: k is %s; it has to be %s, the dtype of q", op, hm_dtype_name(a->k.dtype),
                       hm_dtype_name(a->q.dtype));
    for (int i = 0; i < 3; i++)
        if (f32[i]->dtype != HM_F32)
            return hm_fail(HM_BAD_DTYPE, "%s: %s is %s; it has to be f32", op, f32_name[i],
                           hm_dtype_name(f32[i]->dtype));
    for (int i = 0; i < 2; i++)
        if (i32[i]->dtype != HM_I32)
            return hm_fail(HM_BAD_DTYPE, "%s: %s is %s; it has to be i32", op, i32_name[i],
                           hm_dtype_name(i32[i]->dtype));
    return HM_OK;
}

static hm_status check_windows(const hm_fp8_mqa_logits_args *a) {
    if (a->q.place != HM_HOST) return HM_OK; /* to look at them would wait for the device */
    int64_t keys = a->k.shape[0], width = a->logits.shape[1];
    for (int64_t m = 0; m < a->q.shape[0]; m++) {
        int64_t ks = hm_integer_at(&a->ks, m), ke = hm_integer_at(&a->ke, m);
        ke = ke < keys ? ke : keys;
        if (ks < 0)
            return hm_fail(HM_BAD_VALUE, "%s: ks holds %lld for token %lld; it has to be 0 or more", op, (long long)ks,
                           (long long)m);
        if (a->columns == HM_COLUMNS_COMPRESSED && ke - ks > width)
            return hm_fail(HM_BAD_VALUE, "%s: ks and ke give token %lld %lld keys; logits has %lld columns", op,
                           (long long)m, (long long)(ke - ks), (long long)width);
    }
    return HM_OK;
}

hm_status hm_fp8_mqa_logits_read(const hm_fp8_mqa_logits_args *args, hm_fp8_mqa_logits_args *a) {
    hm_status s;
    if ((s = hm_read_args(op, args, a, sizeof *a))) return s;
    static const char *const name[] = {"q", "k", "k_scale", "weights", "ks", "ke", "logits"};
    const hm_tensor *const t[] = {&a->q, &a->k, &a->k_scale, &a->weights, &a->ks, &a->ke, &a->logits};
    for (int i = 0; i < 7; i++)
        if ((s = hm_check_tensor(op, name[i], t[i], true))) return s;
    if ((s = hm_check_mode(op, "outside", a->outside, 2))) return s;
    if ((s = hm_check_mode(op, "columns", a->columns, 2))) return s;
    if (a->columns == HM_COLUMNS_COMPRESSED && a->outside == HM_LOGITS_CLEAN)
        return hm_fail(HM_BAD_PARAM, "%s: columns is compressed and outside is clean; it has to be leave then", op);
    if ((s = check_dtypes(a))) return s;
    if ((s = check_shapes(a))) return s;
    if ((s = hm_check_places(op, 7, name, t))) return s;
    if ((s = hm_check_distinct(op, "logits", &a->logits))) return s;
    for (int i = 0; i < 6; i++)
        if ((s = hm_check_overlap(op, "logits", &a->logits, name[i], t[i], false))) return s;
    return check_windows(a);
}

hm_status hm_fp8_mqa_logits_check(const hm_fp8_mqa_logits_args *args) {
    hm_fp8_mqa_logits_args full;
    return hm_fp8_mqa_logits_read(args, &full);
}

HM_OP_FUNCTIONS(fp8_mqa_logits, logits)
HM_OP_CUDA(fp8_mqa_logits, cuda_fp8)

#define AT(field) offsetof(hm_fp8_mqa_logits_args, field)
static const hm_arg_info args[] = {
    {"q", AT(q), HM_IN, false, "tokens,heads,head_dim", "f8e4m3 f8e4m3fnuz", NULL, "queries", NULL},
    {"k", AT(k), HM_IN, false, "keys,head_dim", "=q", NULL, "keys", NULL},
    {"k_scale", AT(k_scale), HM_IN, false, "keys", "f32", NULL, "scale of each key", NULL},
    {"weights", AT(weights), HM_IN, false, "tokens,heads", "f32", NULL, "weight of each head", NULL},
    {"ks", AT(ks), HM_IN, false, "tokens", "i32", NULL, "first key of each token", NULL},
    {"ke", AT(ke), HM_IN, false, "tokens", "i32", NULL, "first key behind", NULL},
    {"logits", AT(logits), HM_OUT, false, "tokens,width", "f32", NULL, "scores", NULL},
};
static const hm_param_info params[] = {
    {"outside", AT(outside), HM_PARAM_MODE, outside_names, HM_LOGITS_CLEAN, "-inf where there is no key, or anything"},
    {"columns", AT(columns), HM_PARAM_MODE, columns_names, HM_COLUMNS_ABSOLUTE, "column n is key n, or key ks + n"},
};
const hm_op_info hm_fp8_mqa_logits_info = {
    .name = op,
    .about = "the sparse indexer's score of every key for every query token",
    .contract = 1,
    .args_size = sizeof(hm_fp8_mqa_logits_args),
    .args = args,
    .nargs = sizeof args / sizeof *args,
    .params = params,
    .nparams = sizeof params / sizeof *params,
    .classes = "wide chain64 chain512 any tc23 tc13",
    .class_required = "tc23",
    .flops = hm_fp8_mqa_logits_flops,
    HM_OP_CALLS,
    .cuda_fp8 = HM_OP_IF_CUDA(call_cuda_fp8),
};
