#include "index_weights.h"

#include <math.h>

#include "check.h"
#include "op.h"

static const char op[] = "index_weights";
static const char *const order_names[] = {"any", "l2r", NULL};

enum { MOST = 65536 }; /* heads, head_dim */

double hm_inverse_root_f32(int64_t n) { return (double)(float)(1 / sqrt((double)n)); }

hm_status hm_index_weights_read(const hm_index_weights_args *args, hm_index_weights_args *a) {
    hm_status s;
    if ((s = hm_read_args(op, args, a, sizeof *a))) return s;
    if (a->head_dim == 0) a->head_dim = 128;
    if ((s = hm_check_tensor(op, "out", &a->out, true))) return s;
    if ((s = hm_check_tensor(op, "weights", &a->weights, true))) return s;
    if ((s = hm_check_tensor(op, "q_scale", &a->q_scale, false))) return s;
    if ((s = hm_check_mode(op, "order", a->order, 2))) return s;
    bool scaled = a->q_scale.dtype != HM_DTYPE_NONE;
    if (!hm_is_float(a->weights.dtype))
        return hm_fail(HM_BAD_DTYPE, "%s: weights is %s; it has to be f32, f16 or bf16", op,
                       hm_dtype_name(a->weights.dtype));
    if (scaled && a->q_scale.dtype != HM_F32 && a->q_scale.dtype != HM_E8M0)
        return hm_fail(HM_BAD_DTYPE, "%s: q_scale is %s; it has to be f32 or e8m0", op,
                       hm_dtype_name(a->q_scale.dtype));
    if (a->out.dtype != HM_F32)
        return hm_fail(HM_BAD_DTYPE, "%s: out is %s; it has to be f32", op, hm_dtype_name(a->out.dtype));
    if ((s = hm_check_same_shape(op, "out", &a->out, "weights", &a->weights))) return s;
    if (scaled && (s = hm_check_same_shape(op, "q_scale", &a->q_scale, "weights", &a->weights))) return s;
    if (a->weights.shape[a->weights.ndim - 1] > MOST)
        return hm_fail(HM_BAD_SHAPE, "%s: weights has %lld heads; it has to be at most %d", op,
                       (long long)a->weights.shape[a->weights.ndim - 1], MOST);
    if (a->head_dim < 1 || a->head_dim > MOST)
        return hm_fail(HM_BAD_PARAM, "%s: head_dim is %lld; it has to be 1 to %d", op, (long long)a->head_dim, MOST);
    if ((s = hm_check_places(op, 3, (const char *const[]){"weights", "q_scale", "out"},
                             (const hm_tensor *const[]){&a->weights, &a->q_scale, &a->out})))
        return s;
    if ((s = hm_check_distinct(op, "out", &a->out))) return s;
    if ((s = hm_check_overlap(op, "out", &a->out, "weights", &a->weights, true))) return s;
    return hm_check_overlap(op, "out", &a->out, "q_scale", &a->q_scale, false);
}

hm_status hm_index_weights_check(const hm_index_weights_args *args) {
    hm_index_weights_args full;
    return hm_index_weights_read(args, &full);
}

HM_OP_FUNCTIONS(index_weights, out)

#define AT(field) offsetof(hm_index_weights_args, field)
static const hm_arg_info args[] = {
    {"weights", AT(weights), HM_IN, false, "...,heads", "f32 f16 bf16", NULL, "one a head", NULL},
    {"q_scale", AT(q_scale), HM_IN, true, "...,heads", "f32 e8m0", NULL, "scale of each head's query", NULL},
    {"out", AT(out), HM_OUT, false, "...,heads", "f32", "weights", "weights with every factor in them", NULL},
};
static const hm_param_info params[] = {
    {"head_dim", AT(head_dim), HM_PARAM_I64, NULL, 128, "elements of a query"},
    {"order", AT(order), HM_PARAM_MODE, order_names, HM_WEIGHTS_ANY, "one rounding, or one after each product"},
};
const hm_op_info hm_index_weights_info = {
    .name = op,
    .about = "out = weights * q_scale * head_dim^-1/2 * heads^-1/2",
    .contract = 1,
    .args_size = sizeof(hm_index_weights_args),
    .args = args,
    .nargs = sizeof args / sizeof *args,
    .params = params,
    .nparams = sizeof params / sizeof *params,
    .classes = "wide chain64",
    .class_required = "chain64",
    HM_OP_CALLS,
};
