#include "attention.h"
#include "check.h"
#include "flops.h"
#include "op.h"

static const char op[] = "mla_prefill";
static const char *const p_names[] = {"f32", "bf16", NULL};

hm_status hm_mla_prefill_read(const hm_mla_prefill_args *args, hm_mla_prefill_args *a) {
    hm_status s;
    if ((s = hm_read_args(op, args, a, sizeof *a))) return s;
    static const char *const name[] = {"q", "kv", "key_start", "key_end", "attn_sink", "out", "lse"};
    const hm_tensor *const t[] = {&a->q, &a->kv, &a->key_start, &a->key_end, &a->attn_sink, &a->out, &a->lse};
    for (int i = 0; i < 7; i++)
        if ((s = hm_check_tensor(op, name[i], t[i], i < 2 || i == 5))) return s;
    if ((s = hm_attention_check(op, &a->q, &a->out, &a->lse, &a->attn_sink, (int)a->p, &a->scale))) return s;
    if (a->kv.dtype != a->q.dtype)
        return hm_fail(HM_BAD_DTYPE, "%s: kv is %s; it has to be %s, as q", op, hm_dtype_name(a->kv.dtype),
                       hm_dtype_name(a->q.dtype));
    if ((s = hm_check_extent(op, "kv", &a->kv, 2, 1, a->q.shape[2], "the width of q"))) return s;
    for (int i = 2; i < 4; i++) {
        if (!t[i]->dtype) continue;
        if (t[i]->dtype != HM_I32)
            return hm_fail(HM_BAD_DTYPE, "%s: %s is %s; it has to be i32", op, name[i], hm_dtype_name(t[i]->dtype));
        if ((s = hm_check_extent(op, name[i], t[i], 1, 0, a->q.shape[0], "the tokens of q"))) return s;
    }
    if ((s = hm_check_places(op, 7, name, t))) return s;
    if ((s = hm_check_distinct(op, "out", &a->out))) return s;
    if (a->lse.dtype && (s = hm_check_distinct(op, "lse", &a->lse))) return s;
    for (int i = 0; i < 5; i++) {
        if ((s = hm_check_overlap(op, "out", &a->out, name[i], t[i], false))) return s;
        if (a->lse.dtype && (s = hm_check_overlap(op, "lse", &a->lse, name[i], t[i], false))) return s;
    }
    return a->lse.dtype ? hm_check_overlap(op, "lse", &a->lse, "out", &a->out, false) : HM_OK;
}

hm_status hm_mla_prefill_check(const hm_mla_prefill_args *args) {
    hm_mla_prefill_args full;
    return hm_mla_prefill_read(args, &full);
}

HM_OP_FUNCTIONS(mla_prefill, out)

#define AT(field) offsetof(hm_mla_prefill_args, field)
static const hm_arg_info args[] = {
    {"q", AT(q), HM_IN, false, "tokens,heads,width", "bf16 f16", NULL, "queries", NULL},
    {"kv", AT(kv), HM_IN, false, "keys,width", "=q", NULL, "keys; their first elements are the values", NULL},
    {"key_start", AT(key_start), HM_IN, true, "tokens", "i32", NULL, "first key of a token", NULL},
    {"key_end", AT(key_end), HM_IN, true, "tokens", "i32", NULL, "one past its last", NULL},
    {"attn_sink", AT(attn_sink), HM_IN, true, "heads", "f32", NULL, "logit of a key without a value", NULL},
    {"out", AT(out), HM_OUT, false, "tokens,heads,value_width", "=q", NULL, "weighted values", NULL},
    {"lse", AT(lse), HM_OUT, true, "tokens,heads", "f32", NULL, "natural log of the sum of exponentials", NULL},
};
static const hm_param_info params[] = {
    {"scale", AT(scale), HM_PARAM_F64, NULL, 0, "of the scores; narrowed to f32 first; 0: width^-1/2"},
    {"p", AT(p), HM_PARAM_MODE, p_names, HM_P_F32, "what a weight is rounded to"},
};
const hm_op_info hm_mla_prefill_info = {
    .name = op,
    .about = "latent attention over a range of keys: dense, causal",
    .contract = 1,
    .args_size = sizeof(hm_mla_prefill_args),
    .args = args,
    .nargs = sizeof args / sizeof *args,
    .params = params,
    .nparams = sizeof params / sizeof *params,
    .classes = "wide chain64 chain512 any tc23 tc13",
    .class_required = "tc23",
    .flops = hm_mla_prefill_flops,
    HM_OP_CALLS,
};
