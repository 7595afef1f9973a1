#include "concat_mla_q.h"

#include "check.h"
#include "op.h"

static const char op[] = "concat_mla_q";

static hm_status check_dtype(const char *name, hm_dtype dtype, hm_dtype T) {
    return dtype == T ? HM_OK
                      : hm_fail(HM_BAD_DTYPE, "%s: %s is %s; it has to be %s, the dtype of ql_nope", op, name,
                                hm_dtype_name(dtype), hm_dtype_name(T));
}

/* Same rank and leading dimensions as ql_nope, and the last extent. */
static hm_status check_shape(const char *name, const hm_tensor *t, const hm_tensor *nope, int64_t last,
                             const char *last_name) {
    int d = 0;
    while (t->ndim == nope->ndim && d < t->ndim - 1 && t->shape[d] == nope->shape[d]) d++;
    if (t->ndim != nope->ndim)
        return hm_fail(HM_BAD_SHAPE, "%s: %s has rank %d; it has to be %d, the rank of ql_nope", op, name, t->ndim,
                       nope->ndim);
    if (d < t->ndim - 1)
        return hm_fail(HM_BAD_SHAPE, "%s: %s has extent %lld in dimension %d; it has to be %lld, as ql_nope has", op,
                       name, (long long)t->shape[d], d, (long long)nope->shape[d]);
    if (last >= 0 && t->shape[d] != last)
        return hm_fail(HM_BAD_SHAPE, "%s: %s has last extent %lld; it has to be %lld, %s", op, name,
                       (long long)t->shape[d], (long long)last, last_name);
    return HM_OK;
}

hm_status hm_concat_mla_q_read(const hm_concat_mla_q_args *args, hm_concat_mla_q_args *a) {
    hm_status s;
    if ((s = hm_read_args(op, args, a, sizeof *a))) return s;
    if ((s = hm_check_tensor(op, "q_out", &a->q_out, true))) return s;
    if ((s = hm_check_tensor(op, "ql_nope", &a->ql_nope, true))) return s;
    if ((s = hm_check_tensor(op, "q_pe", &a->q_pe, true))) return s;
    hm_dtype T = a->ql_nope.dtype;
    if (T != HM_F16 && T != HM_BF16)
        return hm_fail(HM_BAD_DTYPE, "%s: ql_nope is %s; it has to be f16 or bf16", op, hm_dtype_name(T));
    if ((s = check_dtype("q_pe", a->q_pe.dtype, T))) return s;
    if ((s = check_dtype("q_out", a->q_out.dtype, T))) return s;
    if ((s = check_shape("q_pe", &a->q_pe, &a->ql_nope, -1, NULL))) return s;
    int last = a->ql_nope.ndim - 1;
    int64_t width;
    if (__builtin_add_overflow(a->ql_nope.shape[last], a->q_pe.shape[last], &width))
        return hm_fail(HM_BAD_SHAPE, "%s: ql_nope and q_pe together are wider than 2^63 elements", op);
    if ((s = check_shape("q_out", &a->q_out, &a->ql_nope, width, "the last extents of ql_nope and q_pe together")))
        return s;
    if ((s = hm_check_places(op, 3, (const char *const[]){"ql_nope", "q_pe", "q_out"},
                             (const hm_tensor *const[]){&a->ql_nope, &a->q_pe, &a->q_out})))
        return s;
    if ((s = hm_check_distinct(op, "q_out", &a->q_out))) return s;
    if ((s = hm_check_overlap(op, "q_out", &a->q_out, "ql_nope", &a->ql_nope, false))) return s;
    return hm_check_overlap(op, "q_out", &a->q_out, "q_pe", &a->q_pe, false);
}

hm_status hm_concat_mla_q_check(const hm_concat_mla_q_args *args) {
    hm_concat_mla_q_args full;
    return hm_concat_mla_q_read(args, &full);
}

HM_OP_FUNCTIONS(concat_mla_q, q_out)

#define AT(field) offsetof(hm_concat_mla_q_args, field)
static const hm_arg_info args[] = {
    {"ql_nope", AT(ql_nope), HM_IN, false, "...,nope", "f16 bf16", NULL, "first part of each row", NULL},
    {"q_pe", AT(q_pe), HM_IN, false, "...,rope", "=ql_nope", NULL, "second part of each row", NULL},
    {"q_out", AT(q_out), HM_OUT, false, "...,nope+rope", "=ql_nope", NULL, "both parts, one after the other", NULL},
};
const hm_op_info hm_concat_mla_q_info = {
    .name = op,
    .about = "q_out = ql_nope followed by q_pe, row by row: a bit copy",
    .contract = 1,
    .args_size = sizeof(hm_concat_mla_q_args),
    .args = args,
    .nargs = sizeof args / sizeof *args,
    .classes = "wide",
    .class_required = "wide",
    HM_OP_CALLS,
};
