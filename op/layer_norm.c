#include "layer_norm.h"

#include "check.h"
#include "op.h"

static const char op[] = "layer_norm";

static hm_status check_channel(const char *name, const hm_tensor *t, const hm_tensor *x) {
    if (t->dtype == HM_DTYPE_NONE) return HM_OK;
    int64_t hidden = x->shape[x->ndim - 1];
    if (t->dtype != HM_F32 && t->dtype != x->dtype)
        return hm_fail(HM_BAD_DTYPE, "%s: %s is %s; with x in %s it has to be f32%s%s", op, name,
                       hm_dtype_name(t->dtype), hm_dtype_name(x->dtype), x->dtype == HM_F32 ? "" : " or ",
                       x->dtype == HM_F32 ? "" : hm_dtype_name(x->dtype));
    if (t->ndim != 1 || t->shape[0] != hidden)
        return hm_fail(HM_BAD_SHAPE, "%s: %s has rank %d and extent %lld; it has to be [%lld], the last extent of x",
                       op, name, t->ndim, (long long)t->shape[0], (long long)hidden);
    return HM_OK;
}

hm_status hm_layer_norm_read(const hm_layer_norm_args *args, hm_layer_norm_args *a) {
    hm_status s;
    if ((s = hm_read_args(op, args, a, sizeof *a))) return s;
    if ((s = hm_check_tensor(op, "out", &a->out, true))) return s;
    if ((s = hm_check_tensor(op, "x", &a->x, true))) return s;
    if ((s = hm_check_tensor(op, "weight", &a->weight, false))) return s;
    if ((s = hm_check_tensor(op, "bias", &a->bias, false))) return s;
    if (!hm_is_float(a->x.dtype))
        return hm_fail(HM_BAD_DTYPE, "%s: x is %s; it has to be f32, f16 or bf16", op, hm_dtype_name(a->x.dtype));
    if ((s = check_channel("weight", &a->weight, &a->x))) return s;
    if ((s = check_channel("bias", &a->bias, &a->x))) return s;
    if ((s = hm_check_eps(op, a->eps))) return s;
    if (a->out.dtype != a->x.dtype)
        return hm_fail(HM_BAD_DTYPE, "%s: out is %s; it has to be %s, the dtype of x", op, hm_dtype_name(a->out.dtype),
                       hm_dtype_name(a->x.dtype));
    if ((s = hm_check_same_shape(op, "out", &a->out, "x", &a->x))) return s;
    if ((s = hm_check_places(op, 4, (const char *const[]){"x", "weight", "bias", "out"},
                             (const hm_tensor *const[]){&a->x, &a->weight, &a->bias, &a->out})))
        return s;
    if ((s = hm_check_distinct(op, "out", &a->out))) return s;
    if ((s = hm_check_overlap(op, "out", &a->out, "x", &a->x, true))) return s;
    if ((s = hm_check_overlap(op, "out", &a->out, "weight", &a->weight, false))) return s;
    return hm_check_overlap(op, "out", &a->out, "bias", &a->bias, false);
}

hm_status hm_layer_norm_check(const hm_layer_norm_args *args) {
    hm_layer_norm_args full;
    return hm_layer_norm_read(args, &full);
}

HM_OP_FUNCTIONS(layer_norm, out)

#define AT(field) offsetof(hm_layer_norm_args, field)
static const hm_arg_info args[] = {
    {"x", AT(x), HM_IN, false, "...,hidden", "f32 f16 bf16", NULL, "input rows", NULL},
    {"weight", AT(weight), HM_IN, true, "hidden", "=x f32", NULL, "scale of each channel", NULL},
    {"bias", AT(bias), HM_IN, true, "hidden", "=x f32", NULL, "added to each channel", NULL},
    {"out", AT(out), HM_OUT, false, "...,hidden", "=x", "x", "normalised rows", NULL},
};
static const hm_param_info params[] = {
    {"eps", AT(eps), HM_PARAM_F64, NULL, 1e-6, "added to the variance; narrowed to f32 first"},
};
const hm_op_info hm_layer_norm_info = {
    .name = op,
    .about = "out = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, row by row",
    .contract = 1,
    .args_size = sizeof(hm_layer_norm_args),
    .args = args,
    .nargs = sizeof args / sizeof *args,
    .params = params,
    .nparams = sizeof params / sizeof *params,
    .classes = "wide chain64 chain512 any",
    .class_required = "chain64",
    HM_OP_CALLS,
};
