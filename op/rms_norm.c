#include "rms_norm.h"

#include "check.h"
#include "op.h"

static const char op[] = "rms_norm";
const char *const hm_round_names[] = {"once", "norm_first", NULL};
const char *const hm_weight_form_names[] = {"plain", "one_plus", NULL};

hm_status hm_check_norm(const char *name, const hm_tensor *x, const hm_tensor *weight, double eps, int round,
                        int weight_form, int64_t variance_size) {
    hm_status s;
    if (!hm_is_float(x->dtype))
        return hm_fail(HM_BAD_DTYPE, "%s: x is %s; it has to be f32, f16 or bf16", name, hm_dtype_name(x->dtype));
    int64_t hidden = x->shape[x->ndim - 1];
    if (weight->dtype != HM_DTYPE_NONE) {
        if (!hm_is_float(weight->dtype) || (weight->dtype != HM_F32 && weight->dtype != x->dtype && x->dtype != HM_F32))
            return hm_fail(HM_BAD_DTYPE, "%s: weight is %s; with x in %s it has to be %s", name,
                           hm_dtype_name(weight->dtype), hm_dtype_name(x->dtype),
                           x->dtype == HM_F32   ? "f32, f16 or bf16"
                           : x->dtype == HM_F16 ? "f32 or f16"
                                                : "f32 or bf16");
        if (weight->ndim != 1 || weight->shape[0] != hidden)
            return hm_fail(HM_BAD_SHAPE,
                           "%s: weight has rank %d and extent %lld; it has to be [%lld], the last extent of x", name,
                           weight->ndim, (long long)weight->shape[0], (long long)hidden);
    }
    if ((s = hm_check_eps(name, eps))) return s;
    if ((s = hm_check_mode(name, "round", round, 2))) return s;
    if ((s = hm_check_mode(name, "weight_form", weight_form, 2))) return s;
    if (round == HM_ROUND_NORM_FIRST && weight_form == HM_WEIGHT_ONE_PLUS)
        return hm_fail(HM_BAD_PARAM, "%s: round is norm_first with weight_form one_plus; no contract has both", name);
    if (variance_size < 0 || variance_size > hidden)
        return hm_fail(HM_BAD_PARAM, "%s: variance_size is %lld; it has to be 0 to %lld, the last extent of x", name,
                       (long long)variance_size, (long long)hidden);
    return HM_OK;
}

hm_status hm_rms_norm_read(const hm_rms_norm_args *args, hm_rms_norm_args *a) {
    hm_status s;
    if ((s = hm_read_args(op, args, a, sizeof *a))) return s;
    if ((s = hm_check_tensor(op, "out", &a->out, true))) return s;
    if ((s = hm_check_tensor(op, "x", &a->x, true))) return s;
    if ((s = hm_check_tensor(op, "weight", &a->weight, false))) return s;
    if ((s = hm_check_norm(op, &a->x, &a->weight, a->eps, a->round, a->weight_form, a->variance_size))) return s;
    if (a->out.dtype != a->x.dtype)
        return hm_fail(HM_BAD_DTYPE, "%s: out is %s; it has to be %s, the dtype of x", op, hm_dtype_name(a->out.dtype),
                       hm_dtype_name(a->x.dtype));
    if ((s = hm_check_same_shape(op, "out", &a->out, "x", &a->x))) return s;
    if ((s = hm_check_places(op, 3, (const char *const[]){"x", "weight", "out"},
                             (const hm_tensor *const[]){&a->x, &a->weight, &a->out})))
        return s;
    if ((s = hm_check_distinct(op, "out", &a->out))) return s;
    if ((s = hm_check_overlap(op, "out", &a->out, "x", &a->x, true))) return s;
    return hm_check_overlap(op, "out", &a->out, "weight", &a->weight, false);
}

hm_status hm_rms_norm_check(const hm_rms_norm_args *args) {
    hm_rms_norm_args full;
    return hm_rms_norm_read(args, &full);
}

HM_OP_FUNCTIONS(rms_norm, out)

#define AT(field) offsetof(hm_rms_norm_args, field)
static const hm_arg_info args[] = {
    {"x", AT(x), HM_IN, false, "...,hidden", "f32 f16 bf16", NULL, "input rows", NULL},
    {"weight", AT(weight), HM_IN, true, "hidden", "=x f32 f16 bf16", NULL, "scale of each channel", NULL},
    {"out", AT(out), HM_OUT, false, "...,hidden", "=x", "x", "normalised rows", NULL},
};
static const hm_param_info params[] = {
    {"eps", AT(eps), HM_PARAM_F64, NULL, 1e-6, "added to the mean square; narrowed to f32 first"},
    {"round", AT(round), HM_PARAM_MODE, hm_round_names, HM_ROUND_ONCE, "where x*rs is rounded"},
    {"weight_form", AT(weight_form), HM_PARAM_MODE, hm_weight_form_names, HM_WEIGHT_PLAIN,
     "multiply by weight or 1 + weight"},
    {"variance_size", AT(variance_size), HM_PARAM_I64, NULL, 0, "elements in the mean square; 0 means hidden"},
};
const hm_op_info hm_rms_norm_info = {
    .name = op,
    .about = "out = x / sqrt(mean(x^2) + eps) * weight, row by row",
    .contract = 1,
    .args_size = sizeof(hm_rms_norm_args),
    .args = args,
    .nargs = sizeof args / sizeof *args,
    .params = params,
    .nparams = sizeof params / sizeof *params,
    .classes = "wide chain64 chain512 any",
    .class_required = "chain64",
    HM_OP_CALLS,
};
