#include "linear.h"

#include "check.h"
#include "flops.h"
#include "op.h"

static const char op[] = "linear";

static hm_status check_dtypes(const hm_linear_args *a) {
    hm_dtype T = a->x.dtype, W = a->weight.dtype;
    if (!hm_is_float(T))
        return hm_fail(HM_BAD_DTYPE, "%s: x is %s; it has to be f32, f16 or bf16", op, hm_dtype_name(T));
    if (W != T && W != HM_F32 && !(T == HM_F32 && W == HM_BF16))
        return hm_fail(HM_BAD_DTYPE, "%s: weight is %s; with x in %s it has to be %s%s", op, hm_dtype_name(W),
                       hm_dtype_name(T), hm_dtype_name(T), T == HM_F32 ? " or bf16" : " or f32");
    if (a->bias.dtype != HM_DTYPE_NONE && a->bias.dtype != T && a->bias.dtype != HM_F32)
        return hm_fail(HM_BAD_DTYPE, "%s: bias is %s; it has to be %s, the dtype of x, or f32", op,
                       hm_dtype_name(a->bias.dtype), hm_dtype_name(T));
    if (a->out.dtype != T && a->out.dtype != HM_F32)
        return hm_fail(HM_BAD_DTYPE, "%s: out is %s; it has to be %s, the dtype of x, or f32", op,
                       hm_dtype_name(a->out.dtype), hm_dtype_name(T));
    return HM_OK;
}

static hm_status check_shape(const hm_linear_args *a) {
    const hm_tensor *x = &a->x, *weight = &a->weight, *bias = &a->bias, *out = &a->out;
    int last = x->ndim - 1;
    if (weight->ndim != 2)
        return hm_fail(HM_BAD_SHAPE, "%s: weight has rank %d; it has to be 2: [features, in]", op, weight->ndim);
    if (weight->shape[1] != x->shape[last])
        return hm_fail(HM_BAD_SHAPE, "%s: weight has rows of %lld; it has to be %lld, as x has", op,
                       (long long)weight->shape[1], (long long)x->shape[last]);
    if (bias->dtype != HM_DTYPE_NONE && (bias->ndim != 1 || bias->shape[0] != weight->shape[0]))
        return hm_fail(HM_BAD_SHAPE, "%s: bias has rank %d and %lld elements; it has to be 1 and %lld, the features",
                       op, bias->ndim, (long long)hm_tensor_elements(bias), (long long)weight->shape[0]);
    if (out->ndim != x->ndim)
        return hm_fail(HM_BAD_SHAPE, "%s: out has rank %d; it has to be %d, as x has", op, out->ndim, x->ndim);
    for (int d = 0; d <= last; d++) {
        int64_t extent = d < last ? x->shape[d] : weight->shape[0];
        if (out->shape[d] != extent)
            return hm_fail(HM_BAD_SHAPE, "%s: out has extent %lld in dimension %d; it has to be %lld, %s", op,
                           (long long)out->shape[d], d, (long long)extent, d < last ? "as x has" : "the features");
    }
    return HM_OK;
}

hm_status hm_linear_read(const hm_linear_args *args, hm_linear_args *a) {
    hm_status s;
    if ((s = hm_read_args(op, args, a, sizeof *a))) return s;
    static const char *const name[] = {"x", "weight", "bias", "out"};
    const hm_tensor *const t[] = {&a->x, &a->weight, &a->bias, &a->out};
    for (int i = 0; i < 4; i++)
        if ((s = hm_check_tensor(op, name[i], t[i], i != 2))) return s;
    if ((s = check_dtypes(a))) return s;
    if ((s = check_shape(a))) return s;
    if ((s = hm_check_places(op, 4, name, t))) return s;
    if ((s = hm_check_distinct(op, "out", &a->out))) return s;
    for (int i = 0; i < 3; i++)
        if ((s = hm_check_overlap(op, "out", &a->out, name[i], t[i], false))) return s;
    return HM_OK;
}

hm_status hm_linear_check(const hm_linear_args *args) {
    hm_linear_args full;
    return hm_linear_read(args, &full);
}

HM_OP_FUNCTIONS(linear, out)

#define AT(field) offsetof(hm_linear_args, field)
static const hm_arg_info args[] = {
    {"x", AT(x), HM_IN, false, "...,in", "bf16 f16 f32", NULL, "rows", NULL},
    {"weight", AT(weight), HM_IN, false, "features,in", "=x f32 bf16", NULL, "one row a feature", NULL},
    {"bias", AT(bias), HM_IN, true, "features", "=x f32", NULL, "added before the rounding", NULL},
    {"out", AT(out), HM_OUT, false, "...,features", "=x f32", NULL, "x times weight transposed", NULL},
};
const hm_op_info hm_linear_info = {
    .name = op,
    .about = "out = x weight^T + bias",
    .contract = 1,
    .args_size = sizeof(hm_linear_args),
    .args = args,
    .nargs = sizeof args / sizeof *args,
    .classes = "wide chain64 chain512 any tc23 tc13",
    .class_required = "tc23",
    .flops = hm_linear_flops,
    HM_OP_CALLS,
};
