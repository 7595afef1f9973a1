#include "check.h"
#include "op.h"
#include "rms_norm.h"

static const char op[] = "fused_add_rms_norm";
static const char *const residual_read_names[] = {"rounded", "unrounded", NULL};
static const char *const residual_dtype_names[] = {"same", "f32_for_f16", NULL};

hm_status hm_fused_add_rms_norm_read(const hm_fused_add_rms_norm_args *args, hm_fused_add_rms_norm_args *a) {
    hm_status s;
    if ((s = hm_read_args(op, args, a, sizeof *a))) return s;
    if ((s = hm_check_tensor(op, "out", &a->out, true))) return s;
    if ((s = hm_check_tensor(op, "residual_out", &a->residual_out, true))) return s;
    if ((s = hm_check_tensor(op, "x", &a->x, true))) return s;
    if ((s = hm_check_tensor(op, "residual", &a->residual, true))) return s;
    if ((s = hm_check_tensor(op, "weight", &a->weight, false))) return s;
    if ((s = hm_check_norm(op, &a->x, &a->weight, a->eps, a->round, a->weight_form, a->variance_size))) return s;
    if ((s = hm_check_mode(op, "residual_read", a->residual_read, 2))) return s;
    if ((s = hm_check_mode(op, "residual_dtype", a->residual_dtype, 2))) return s;

    hm_dtype T = a->x.dtype;
    bool wide = a->residual_dtype == HM_RESIDUAL_F32_FOR_F16 && T == HM_F16;
    hm_dtype R = wide ? HM_F32 : T;
    if (a->out.dtype != T)
        return hm_fail(HM_BAD_DTYPE, "%s: out is %s; it has to be %s, the dtype of x", op, hm_dtype_name(a->out.dtype),
                       hm_dtype_name(T));
    if (a->residual.dtype != T && a->residual.dtype != R)
        return hm_fail(HM_BAD_DTYPE, "%s: residual is %s; it has to be %s", op, hm_dtype_name(a->residual.dtype),
                       wide ? "f16 or f32" : hm_dtype_name(T));
    if (a->residual_out.dtype != R)
        return hm_fail(HM_BAD_DTYPE, "%s: residual_out is %s; it has to be %s%s", op,
                       hm_dtype_name(a->residual_out.dtype), hm_dtype_name(R),
                       wide ? " (residual_dtype f32_for_f16)" : ", the dtype of x");
    if ((s = hm_check_same_shape(op, "residual", &a->residual, "x", &a->x))) return s;
    if ((s = hm_check_same_shape(op, "out", &a->out, "x", &a->x))) return s;
    if ((s = hm_check_same_shape(op, "residual_out", &a->residual_out, "x", &a->x))) return s;
    if ((s = hm_check_places(op, 5, (const char *const[]){"x", "residual", "weight", "out", "residual_out"},
                             (const hm_tensor *const[]){&a->x, &a->residual, &a->weight, &a->out, &a->residual_out})))
        return s;
    if ((s = hm_check_distinct(op, "out", &a->out))) return s;
    if ((s = hm_check_distinct(op, "residual_out", &a->residual_out))) return s;
    if ((s = hm_check_overlap(op, "out", &a->out, "x", &a->x, true))) return s;
    if ((s = hm_check_overlap(op, "out", &a->out, "residual", &a->residual, false))) return s;
    if ((s = hm_check_overlap(op, "out", &a->out, "weight", &a->weight, false))) return s;
    if ((s = hm_check_overlap(op, "out", &a->out, "residual_out", &a->residual_out, false))) return s;
    if ((s = hm_check_overlap(op, "residual_out", &a->residual_out, "x", &a->x, false))) return s;
    if ((s = hm_check_overlap(op, "residual_out", &a->residual_out, "residual", &a->residual, true))) return s;
    return hm_check_overlap(op, "residual_out", &a->residual_out, "weight", &a->weight, false);
}

hm_status hm_fused_add_rms_norm_check(const hm_fused_add_rms_norm_args *args) {
    hm_fused_add_rms_norm_args full;
    return hm_fused_add_rms_norm_read(args, &full);
}

HM_OP_FUNCTIONS(fused_add_rms_norm, out)

#define AT(field) offsetof(hm_fused_add_rms_norm_args, field)
static const hm_arg_info args[] = {
    {"x", AT(x), HM_IN, false, "...,hidden", "f32 f16 bf16", NULL, "rows to add", NULL},
    {"residual", AT(residual), HM_IN, false, "...,hidden", "=x f32", NULL, "residual stream before", NULL},
    {"weight", AT(weight), HM_IN, true, "hidden", "=x f32 f16 bf16", NULL, "scale of each channel", NULL},
    {"residual_out", AT(residual_out), HM_OUT, false, "...,hidden", "=x f32", "residual",
     "residual stream after: x + residual", NULL},
    {"out", AT(out), HM_OUT, false, "...,hidden", "=x", "x", "normalised rows", NULL},
};
static const hm_param_info params[] = {
    {"eps", AT(eps), HM_PARAM_F64, NULL, 1e-6, "added to the mean square; narrowed to f32 first"},
    {"round", AT(round), HM_PARAM_MODE, hm_round_names, HM_ROUND_ONCE, "where x*rs is rounded"},
    {"weight_form", AT(weight_form), HM_PARAM_MODE, hm_weight_form_names, HM_WEIGHT_PLAIN,
     "multiply by weight or 1 + weight"},
    {"residual_read", AT(residual_read), HM_PARAM_MODE, residual_read_names, HM_READ_ROUNDED,
     "which sum the norm reads"},
    {"residual_dtype", AT(residual_dtype), HM_PARAM_MODE, residual_dtype_names, HM_RESIDUAL_SAME,
     "dtype of residual_out for f16 x"},
    {"variance_size", AT(variance_size), HM_PARAM_I64, NULL, 0, "elements in the mean square; 0 means hidden"},
};
const hm_op_info hm_fused_add_rms_norm_info = {
    .name = op,
    .about = "residual_out = x + residual; out = rms_norm of that sum",
    .contract = 1,
    .args_size = sizeof(hm_fused_add_rms_norm_args),
    .args = args,
    .nargs = sizeof args / sizeof *args,
    .params = params,
    .nparams = sizeof params / sizeof *params,
    .classes = "wide chain64 chain512 any",
    .class_required = "chain64",
    HM_OP_CALLS,
};
