#include "quant_fp8_group.h"

#include "check.h"
#include "dtype.h"
#include "fp8.h"
#include "op.h"

static const char op[] = "quant_fp8_group";
static const char *const scale_format_names[] = {"f32", "ue8m0", NULL};
static const char *const floor_on_names[] = {"amax", "scale", NULL};
static const char *const divide_names[] = {"divide", "reciprocal", NULL};
static const char *const overflow_names[] = {"saturate", "ieee", NULL};

static hm_status check_dtypes(const hm_quant_fp8_group_args *a) {
    if (!hm_is_float(a->x.dtype))
        return hm_fail(HM_BAD_DTYPE, "%s: x is %s; it has to be f32, f16 or bf16", op, hm_dtype_name(a->x.dtype));
    if (!hm_is_fp8(a->codes.dtype))
        return hm_fail(HM_BAD_DTYPE, "%s: codes is %s; it has to be f8e4m3, f8e4m3fnuz or f8e5m2", op,
                       hm_dtype_name(a->codes.dtype));
    if (a->scale.dtype != HM_F32 && (a->scale.dtype != HM_E8M0 || a->scale_format != HM_SCALE_UE8M0))
        return hm_fail(
            HM_BAD_DTYPE, "%s: scale is %s; it has to be f32%s", op, hm_dtype_name(a->scale.dtype),
            a->scale_format == HM_SCALE_UE8M0 ? " or e8m0" : " (e8m0 holds powers of two: scale_format ue8m0)");
    return HM_OK;
}

static hm_status check_shapes(const hm_quant_fp8_group_args *a) {
    hm_status s;
    const hm_tensor *x = &a->x, *scale = &a->scale;
    int last = x->ndim - 1;
    int64_t hidden = x->shape[last];
    if ((s = hm_check_same_shape(op, "codes", &a->codes, "x", x))) return s;
    if (a->group_size < 1 || hidden % a->group_size)
        return hm_fail(HM_BAD_PARAM,
                       "%s: group_size is %lld; it has to be positive and divide the %lld elements of a row "
                       "of x",
                       op, (long long)a->group_size, (long long)hidden);
    if (scale->ndim != x->ndim)
        return hm_fail(HM_BAD_SHAPE, "%s: scale has rank %d; it has to be %d, the rank of x", op, scale->ndim, x->ndim);
    for (int d = 0; d <= last; d++) {
        int64_t want = d < last ? x->shape[d] : hidden / a->group_size;
        if (scale->shape[d] != want)
            return hm_fail(HM_BAD_SHAPE, "%s: scale has extent %lld in dimension %d; it has to be %lld%s", op,
                           (long long)scale->shape[d], d, (long long)want, d < last ? ", as x has" : ", one a group");
    }
    return HM_OK;
}

static hm_status check_numbers(const hm_quant_fp8_group_args *a) {
    if (!(a->divisor >= 2 && a->divisor <= 0x1p16))
        return hm_fail(HM_BAD_PARAM, "%s: divisor is %g; it has to be 2 to 65536, or 0 for the default", op,
                       a->divisor);
    double least = a->floor_on == HM_FLOOR_AMAX ? a->floor / a->divisor : a->floor;
    if (!(least >= 0x1p-126 && a->floor <= 0x1p64))
        return hm_fail(HM_BAD_PARAM,
                       "%s: floor is %g, which gives a least scale of %g; that has to be at least 2^-126, and "
                       "floor at most 2^64",
                       op, a->floor, least);
    return HM_OK;
}

hm_status hm_quant_fp8_group_read(const hm_quant_fp8_group_args *args, hm_quant_fp8_group_args *a) {
    hm_status s;
    if ((s = hm_read_args(op, args, a, sizeof *a))) return s;
    if (a->group_size == 0) a->group_size = 128;
    if (a->divisor == 0) a->divisor = hm_fp8_divisor(a->codes.dtype);
    if (a->floor == 0) a->floor = 1e-10;
    a->divisor = (double)(float)a->divisor, a->floor = (double)(float)a->floor;
    if ((s = hm_check_tensor(op, "codes", &a->codes, true))) return s;
    if ((s = hm_check_tensor(op, "scale", &a->scale, true))) return s;
    if ((s = hm_check_tensor(op, "x", &a->x, true))) return s;
    if ((s = hm_check_mode(op, "scale_format", a->scale_format, 2))) return s;
    if ((s = hm_check_mode(op, "floor_on", a->floor_on, 2))) return s;
    if ((s = hm_check_mode(op, "divide", a->divide, 2))) return s;
    if ((s = hm_check_mode(op, "overflow", a->overflow, 2))) return s;
    if ((s = check_dtypes(a))) return s;
    if ((s = check_shapes(a))) return s;
    if ((s = check_numbers(a))) return s;
    if ((s = hm_check_places(op, 3, (const char *const[]){"x", "codes", "scale"},
                             (const hm_tensor *const[]){&a->x, &a->codes, &a->scale})))
        return s;
    if ((s = hm_check_distinct(op, "codes", &a->codes))) return s;
    if ((s = hm_check_distinct(op, "scale", &a->scale))) return s;
    if ((s = hm_check_overlap(op, "codes", &a->codes, "x", &a->x, false))) return s;
    if ((s = hm_check_overlap(op, "scale", &a->scale, "x", &a->x, false))) return s;
    return hm_check_overlap(op, "scale", &a->scale, "codes", &a->codes, false);
}

hm_status hm_quant_fp8_group_check(const hm_quant_fp8_group_args *args) {
    hm_quant_fp8_group_args full;
    return hm_quant_fp8_group_read(args, &full);
}

HM_OP_FUNCTIONS(quant_fp8_group, codes)

#define AT(field) offsetof(hm_quant_fp8_group_args, field)
static const hm_arg_info args[] = {
    {"x", AT(x), HM_IN, false, "...,hidden", "f32 f16 bf16", NULL, "what is quantised", NULL},
    {"scale", AT(scale), HM_OUT, false, "...,groups", "f32 e8m0", NULL, "one scale a group", NULL},
    {"codes", AT(codes), HM_OUT, false, "...,hidden", "f8e4m3 f8e4m3fnuz f8e5m2", NULL, "x over its group's scale",
     NULL},
};
static const hm_param_info params[] = {
    {"group_size", AT(group_size), HM_PARAM_I64, NULL, 128, "elements of a group"},
    {"divisor", AT(divisor), HM_PARAM_F64, NULL, 0, "what the largest magnitude is divided by; 0: 448, 224 or 57344"},
    {"floor", AT(floor), HM_PARAM_F64, NULL, 1e-10, "keeps the scale from 0"},
    {"scale_format", AT(scale_format), HM_PARAM_MODE, scale_format_names, HM_SCALE_F32,
     "the scale as it is, or rounded up to a power of two"},
    {"floor_on", AT(floor_on), HM_PARAM_MODE, floor_on_names, HM_FLOOR_AMAX, "what the floor is applied to"},
    {"divide", AT(divide), HM_PARAM_MODE, divide_names, HM_QUANT_DIVIDE, "by the scale, or times its reciprocal"},
    {"overflow", AT(overflow), HM_PARAM_MODE, overflow_names, HM_FP8_SATURATE, "what lies beyond the largest code"},
};
const hm_op_info hm_quant_fp8_group_info = {
    .name = op,
    .about = "8-bit codes and a scale for each group of elements",
    .contract = 1,
    .args_size = sizeof(hm_quant_fp8_group_args),
    .args = args,
    .nargs = sizeof args / sizeof *args,
    .params = params,
    .nparams = sizeof params / sizeof *params,
    .classes = "wide chain64",
    .class_required = "chain64",
    HM_OP_CALLS,
};
