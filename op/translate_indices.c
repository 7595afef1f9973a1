#include "translate_indices.h"

#include "check.h"
#include "indexer_cache.h"
#include "op.h"

static const char op[] = "translate_indices";

static hm_status check_extents(const char *name, const hm_tensor *t, int ndim, int64_t first, const char *why) {
    if (t->ndim != ndim || (first >= 0 && t->shape[0] != first))
        return hm_fail(HM_BAD_SHAPE, "%s: %s has rank %d and first extent %lld; it has to be of rank %d%s", op, name,
                       t->ndim, (long long)t->shape[0], ndim, why);
    return HM_OK;
}

static hm_status check_shapes(const hm_translate_indices_args *a, bool paged, bool counted) {
    hm_status s;
    int64_t tokens = a->indices.shape[0];
    if ((s = check_extents("indices", &a->indices, 2, -1, ""))) return s;
    if ((s = hm_check_same_shape(op, "out", &a->out, "indices", &a->indices))) return s;
    if ((s = check_extents("req_id", &a->req_id, 1, tokens, ", with one entry a row of indices"))) return s;
    if (counted && (s = check_extents("valid_count", &a->valid_count, 1, tokens, ", with one entry a row of indices")))
        return s;
    if (paged) return check_extents("block_table", &a->block_table, 2, -1, "");
    return check_extents("workspace_starts", &a->workspace_starts, 1, -1, "");
}

static hm_status check_index(const hm_translate_indices_args *a, bool paged, int64_t token, int64_t r, int64_t t) {
    int64_t P = a->block_size;
    if (t < 0 || (paged && t / P >= a->block_table.shape[1])) return HM_OK;
    int64_t base = paged ? hm_integer_at2(&a->block_table, r, t / P) : hm_integer_at(&a->workspace_starts, r), to;
    bool fits = base >= 0 &&
                (paged ? !__builtin_mul_overflow(base, P, &to) && !__builtin_add_overflow(to, t % P, &to)
                       : !__builtin_add_overflow(base, t, &to)) &&
                to <= INT32_MAX;
    return fits ? HM_OK
                : hm_fail(HM_BAD_VALUE,
                          "%s: %s holds %lld for index %lld of token %lld; it has to be 0 or more, and lead to less "
                          "than 2^31",
                          op, paged ? "block_table" : "workspace_starts", (long long)base, (long long)t,
                          (long long)token);
}

static hm_status check_values(const hm_translate_indices_args *a, bool paged) {
    if (a->indices.place != HM_HOST) return HM_OK; /* to look at them would wait for the device */
    int64_t requests = paged ? a->block_table.shape[0] : a->workspace_starts.shape[0];
    for (int64_t token = 0; token < a->indices.shape[0]; token++) {
        int64_t r = hm_integer_at(&a->req_id, token);
        if (r < 0 || r >= requests)
            return hm_fail(HM_BAD_VALUE, "%s: req_id holds %lld for token %lld; it has to be 0 to %lld", op,
                           (long long)r, (long long)token, (long long)requests - 1);
        for (int64_t i = 0; i < a->indices.shape[1]; i++) {
            hm_status s = check_index(a, paged, token, r, hm_integer_at2(&a->indices, token, i));
            if (s) return s;
        }
    }
    return HM_OK;
}

hm_status hm_translate_indices_read(const hm_translate_indices_args *args, hm_translate_indices_args *a) {
    hm_status s;
    if ((s = hm_read_args(op, args, a, sizeof *a))) return s;
    if (a->block_size == 0) a->block_size = 64;
    static const char *const name[] = {"indices", "req_id", "block_table", "workspace_starts", "out", "valid_count"};
    const hm_tensor *const t[] = {&a->indices,          &a->req_id, &a->block_table,
                                  &a->workspace_starts, &a->out,    &a->valid_count};
    for (int i = 0; i < 6; i++) {
        if ((s = hm_check_tensor(op, name[i], t[i], i < 2 || i == 4))) return s;
        if (t[i]->dtype != HM_DTYPE_NONE && t[i]->dtype != HM_I32)
            return hm_fail(HM_BAD_DTYPE, "%s: %s is %s; it has to be i32", op, name[i], hm_dtype_name(t[i]->dtype));
    }
    bool paged = a->block_table.dtype != HM_DTYPE_NONE, counted = a->valid_count.dtype != HM_DTYPE_NONE;
    if (paged == (a->workspace_starts.dtype != HM_DTYPE_NONE))
        return hm_fail(HM_BAD_ARG, "%s: block_table and workspace_starts are %s; it has to be one of them", op,
                       paged ? "both there" : "both absent");
    if (a->block_size < 1)
        return hm_fail(HM_BAD_PARAM, "%s: block_size is %lld; it has to be positive, or 0 for 64", op,
                       (long long)a->block_size);
    if ((s = check_shapes(a, paged, counted))) return s;
    if ((s = hm_check_places(op, 6, name, t))) return s;
    for (int i = 4; i < 5 + counted; i++) {
        if ((s = hm_check_distinct(op, name[i], t[i]))) return s;
        for (int j = 0; j < i; j++)
            if ((s = hm_check_overlap(op, name[i], t[i], name[j], t[j], i == 4 && j == 0))) return s;
    }
    return check_values(a, paged);
}

hm_status hm_translate_indices_check(const hm_translate_indices_args *args) {
    hm_translate_indices_args full;
    return hm_translate_indices_read(args, &full);
}

HM_OP_FUNCTIONS(translate_indices, out)

#define AT(field) offsetof(hm_translate_indices_args, field)
static const hm_arg_info args[] = {
    {"req_id", AT(req_id), HM_IN, false, "tokens", "i32", NULL, "request of each token", NULL},
    {"block_table", AT(block_table), HM_IN, true, "requests,max_blocks", "i32", NULL, "blocks of each request", NULL},
    {"workspace_starts", AT(workspace_starts), HM_IN, true, "requests", "i32", NULL, "or: first row of each request",
     NULL},
    {"indices", AT(indices), HM_IN, false, "tokens,k", "i32", NULL, "token numbers of a request; negative: none", NULL},
    {"out", AT(out), HM_OUT, false, "tokens,k", "=indices", "indices", "slots, or rows; -1: none", NULL},
    {"valid_count", AT(valid_count), HM_OUT, true, "tokens", "i32", NULL, "how many of a row are not -1", NULL},
};
static const hm_param_info params[] = {
    {"block_size", AT(block_size), HM_PARAM_I64, NULL, 64, "tokens of a block"},
};
const hm_op_info hm_translate_indices_info = {
    .name = op,
    .about = "from token numbers of a request to slots of a paged cache",
    .contract = 1,
    .args_size = sizeof(hm_translate_indices_args),
    .args = args,
    .nargs = sizeof args / sizeof *args,
    .params = params,
    .nparams = sizeof params / sizeof *params,
    .classes = "wide",
    .class_required = "wide",
    HM_OP_CALLS,
};
