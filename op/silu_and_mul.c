#include "silu_and_mul.h"

#include "check.h"
#include "op.h"

static const char op[] = "silu_and_mul";
static const char *const round_names[] = {"once", "each", NULL};

static hm_status check_shape(const hm_tensor *x, const hm_tensor *out) {
    if (out->ndim != x->ndim)
        return hm_fail(HM_BAD_SHAPE, "%s: out has rank %d; it has to be %d, as x has", op, out->ndim, x->ndim);
    int last = x->ndim - 1;
    if (x->shape[last] % 2)
        return hm_fail(HM_BAD_SHAPE, "%s: x has rows of %lld; it has to be an even number: gate and up", op,
                       (long long)x->shape[last]);
    for (int d = 0; d <= last; d++) {
        int64_t extent = d < last ? x->shape[d] : x->shape[d] / 2;
        if (out->shape[d] != extent)
            return hm_fail(HM_BAD_SHAPE, "%s: out has extent %lld in dimension %d; it has to be %lld%s", op,
                           (long long)out->shape[d], d, (long long)extent, d < last ? ", as x has" : ", half of x's");
    }
    return HM_OK;
}

hm_status hm_silu_and_mul_read(const hm_silu_and_mul_args *args, hm_silu_and_mul_args *a) {
    hm_status s;
    if ((s = hm_read_args(op, args, a, sizeof *a))) return s;
    static const char *const name[] = {"x", "out"};
    const hm_tensor *const t[] = {&a->x, &a->out};
    for (int i = 0; i < 2; i++)
        if ((s = hm_check_tensor(op, name[i], t[i], true))) return s;
    if ((s = hm_check_mode(op, "round", a->round, 2))) return s;
    if (!hm_is_float(a->x.dtype))
        return hm_fail(HM_BAD_DTYPE, "%s: x is %s; it has to be f32, f16 or bf16", op, hm_dtype_name(a->x.dtype));
    if (a->out.dtype != a->x.dtype)
        return hm_fail(HM_BAD_DTYPE, "%s: out is %s; it has to be %s, the dtype of x", op, hm_dtype_name(a->out.dtype),
                       hm_dtype_name(a->x.dtype));
    if ((s = check_shape(&a->x, &a->out))) return s;
    if ((s = hm_check_places(op, 2, name, t))) return s;
    if ((s = hm_check_distinct(op, "out", &a->out))) return s;
    return hm_check_overlap(op, "out", &a->out, "x", &a->x, false);
}

hm_status hm_silu_and_mul_check(const hm_silu_and_mul_args *args) {
    hm_silu_and_mul_args full;
    return hm_silu_and_mul_read(args, &full);
}

HM_OP_FUNCTIONS(silu_and_mul, out)

#define AT(field) offsetof(hm_silu_and_mul_args, field)
static const hm_arg_info args[] = {
    {"x", AT(x), HM_IN, false, "...,hidden+hidden", "bf16 f16 f32", NULL, "gate, then up", NULL},
    {"out", AT(out), HM_OUT, false, "...,hidden", "=x", NULL, "silu(gate) * up", NULL},
};
static const hm_param_info params[] = {
    {"round", AT(round), HM_PARAM_MODE, round_names, HM_SILU_ONCE, "round the product, or silu before it too"},
};
const hm_op_info hm_silu_and_mul_info = {
    .name = op,
    .about = "out = silu(x[..., :hidden]) * x[..., hidden:]",
    .contract = 1,
    .args_size = sizeof(hm_silu_and_mul_args),
    .args = args,
    .nargs = sizeof args / sizeof *args,
    .params = params,
    .nparams = sizeof params / sizeof *params,
    .classes = "wide chain64",
    .class_required = "chain64",
    HM_OP_CALLS,
};
