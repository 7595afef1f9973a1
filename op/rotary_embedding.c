#include "rotary_embedding.h"

#include "check.h"
#include "op.h"

static const char op[] = "rotary_embedding";
static const char *const pairing_names[] = {"half_split", "interleaved", NULL};
static const char *const round_names[] = {"once", "each", NULL};
static const char *const inverse_names[] = {"forward", "inverse", NULL};

/* x is query or key: the shape of positions, then heads and head_size. */
static hm_status check_heads(const char *name, const hm_tensor *x, const hm_tensor *positions, const char *out_name,
                             const hm_tensor *out) {
    if (x->ndim != positions->ndim + 2)
        return hm_fail(HM_BAD_SHAPE, "%s: %s has rank %d; it has to be %d: the rank of positions, heads and head_size",
                       op, name, x->ndim, positions->ndim + 2);
    for (int d = 0; d < positions->ndim; d++)
        if (x->shape[d] != positions->shape[d])
            return hm_fail(HM_BAD_SHAPE, "%s: %s has extent %lld in dimension %d; it has to be %lld, as positions has",
                           op, name, (long long)x->shape[d], d, (long long)positions->shape[d]);
    if (out->dtype != x->dtype)
        return hm_fail(HM_BAD_DTYPE, "%s: %s is %s; it has to be %s, the dtype of %s", op, out_name,
                       hm_dtype_name(out->dtype), hm_dtype_name(x->dtype), name);
    return hm_check_same_shape(op, out_name, out, name, x);
}

static hm_status check_table(const hm_rotary_embedding_args *a) {
    const hm_tensor *table = &a->cos_sin_cache;
    int64_t head_size = a->query.shape[a->query.ndim - 1];
    hm_dtype T = a->query.dtype;
    if (table->dtype != HM_F32 && table->dtype != T)
        return hm_fail(HM_BAD_DTYPE, "%s: cos_sin_cache is %s; with query in %s it has to be %s%s", op,
                       hm_dtype_name(table->dtype), hm_dtype_name(T), T == HM_F32 ? "f32" : "f32 or ",
                       T == HM_F32 ? "" : hm_dtype_name(T));
    if (table->ndim != 2)
        return hm_fail(HM_BAD_SHAPE, "%s: cos_sin_cache has rank %d; it has to be 2: [max_position, rotary_dim]", op,
                       table->ndim);
    int64_t rotary_dim = table->shape[1], offset = a->rope_dim_offset;
    if (rotary_dim % 2)
        return hm_fail(HM_BAD_SHAPE, "%s: cos_sin_cache has a rotary_dim of %lld; it has to be even", op,
                       (long long)rotary_dim);
    if (offset < 0)
        return hm_fail(HM_BAD_PARAM, "%s: rope_dim_offset is %lld; it has to be 0 or more", op, (long long)offset);
    if (rotary_dim > head_size || offset > head_size - rotary_dim)
        return hm_fail(
            HM_BAD_SHAPE,
            "%s: rope_dim_offset %lld and the rotary_dim %lld of cos_sin_cache reach past the head_size %lld", op,
            (long long)offset, (long long)rotary_dim, (long long)head_size);
    return HM_OK;
}

static hm_status check_positions(const hm_tensor *positions, int64_t max_position) {
    if (positions->place != HM_HOST) return HM_OK; /* to look at them would wait for the device */
    int64_t tokens = hm_tensor_elements(positions);
    for (int64_t t = 0; t < tokens; t++) {
        int64_t p = ((const int64_t *)positions->data)[hm_token_offset(positions, positions->ndim, t)];
        if (p < 0 || p >= max_position)
            return hm_fail(
                HM_BAD_VALUE,
                "%s: positions holds %lld for token %lld; it has to be 0 to %lld, the last row of cos_sin_cache", op,
                (long long)p, (long long)t, (long long)max_position - 1);
    }
    return HM_OK;
}

hm_status hm_rotary_embedding_read(const hm_rotary_embedding_args *args, hm_rotary_embedding_args *a) {
    hm_status s;
    if ((s = hm_read_args(op, args, a, sizeof *a))) return s;
    const hm_tensor *out[2] = {&a->query_out, &a->key_out},
                    *in[4] = {&a->query, &a->key, &a->positions, &a->cos_sin_cache};
    static const char *const out_name[2] = {"query_out", "key_out"}, *const in_name[4] = {"query", "key", "positions",
                                                                                          "cos_sin_cache"};
    for (int i = 0; i < 2; i++)
        if ((s = hm_check_tensor(op, out_name[i], out[i], i == 0))) return s;
    for (int i = 0; i < 4; i++)
        if ((s = hm_check_tensor(op, in_name[i], in[i], i != 1))) return s;
    bool keyed = a->key.dtype != HM_DTYPE_NONE;
    if (keyed != (a->key_out.dtype != HM_DTYPE_NONE))
        return hm_fail(HM_BAD_ARG, "%s: key is %s and key_out is %s; both have to be there, or neither", op,
                       keyed ? "there" : "absent", keyed ? "absent" : "there");
    if (!hm_is_float(a->query.dtype))
        return hm_fail(HM_BAD_DTYPE, "%s: query is %s; it has to be f32, f16 or bf16", op,
                       hm_dtype_name(a->query.dtype));
    if (keyed && a->key.dtype != a->query.dtype)
        return hm_fail(HM_BAD_DTYPE, "%s: key is %s; it has to be %s, the dtype of query", op,
                       hm_dtype_name(a->key.dtype), hm_dtype_name(a->query.dtype));
    if (a->positions.dtype != HM_I64)
        return hm_fail(HM_BAD_DTYPE, "%s: positions is %s; it has to be i64", op, hm_dtype_name(a->positions.dtype));
    if (a->positions.ndim > 2)
        return hm_fail(HM_BAD_SHAPE, "%s: positions has rank %d; it has to be 1 or 2", op, a->positions.ndim);
    if ((s = check_heads("query", &a->query, &a->positions, "query_out", &a->query_out))) return s;
    if (keyed && (s = check_heads("key", &a->key, &a->positions, "key_out", &a->key_out))) return s;
    int64_t head_size = a->query.shape[a->query.ndim - 1];
    if (keyed && a->key.shape[a->key.ndim - 1] != head_size)
        return hm_fail(HM_BAD_SHAPE, "%s: key has head_size %lld; it has to be %lld, as query has", op,
                       (long long)a->key.shape[a->key.ndim - 1], (long long)head_size);
    if ((s = hm_check_mode(op, "pairing", a->pairing, 2))) return s;
    if ((s = hm_check_mode(op, "round", a->round, 2))) return s;
    if ((s = hm_check_mode(op, "inverse", a->inverse, 2))) return s;
    if ((s = check_table(a))) return s;
    if ((s = hm_check_places(
             op, 6, (const char *const[]){"query", "key", "positions", "cos_sin_cache", "query_out", "key_out"},
             (const hm_tensor *const[]){in[0], in[1], in[2], in[3], out[0], out[1]})))
        return s;
    for (int i = 0; i < 1 + keyed; i++) {
        if ((s = hm_check_distinct(op, out_name[i], out[i]))) return s;
        for (int j = 0; j < 4; j++)
            if ((s = hm_check_overlap(op, out_name[i], out[i], in_name[j], in[j], i == j))) return s;
    }
    if (keyed && (s = hm_check_overlap(op, "key_out", &a->key_out, "query_out", &a->query_out, false))) return s;
    return check_positions(&a->positions, a->cos_sin_cache.shape[0]);
}

hm_status hm_rotary_embedding_check(const hm_rotary_embedding_args *args) {
    hm_rotary_embedding_args full;
    return hm_rotary_embedding_read(args, &full);
}

HM_OP_FUNCTIONS(rotary_embedding, query_out)

#define AT(field) offsetof(hm_rotary_embedding_args, field)
static const hm_arg_info args[] = {
    {"query", AT(query), HM_IN, false, "...,heads,head_size", "f32 f16 bf16", NULL, "query heads of each token", NULL},
    {"key", AT(key), HM_IN, true, "...,kv_heads,head_size", "=query", NULL, "key heads of each token", NULL},
    {"positions", AT(positions), HM_IN, false, "...", "i64", NULL, "row of the table for each token", NULL},
    {"cos_sin_cache", AT(cos_sin_cache), HM_IN, false, "max_position,rotary_dim", "=query f32", NULL,
     "cosines, then sines, of each position", "positions"},
    {"query_out", AT(query_out), HM_OUT, false, "...,heads,head_size", "=query", "query", "rotated query heads", NULL},
    {"key_out", AT(key_out), HM_OUT, true, "...,kv_heads,head_size", "=key", "key", "rotated key heads", NULL},
};
static const hm_param_info params[] = {
    {"pairing", AT(pairing), HM_PARAM_MODE, pairing_names, HM_PAIR_HALF_SPLIT, "which elements of a head form a pair"},
    {"round", AT(round), HM_PARAM_MODE, round_names, HM_ROTARY_ONCE, "round the results once, or each product and sum"},
    {"inverse", AT(inverse), HM_PARAM_MODE, inverse_names, HM_ROTATE_FORWARD,
     "rotate by the angle, or by minus the angle"},
    {"rope_dim_offset", AT(rope_dim_offset), HM_PARAM_I64, NULL, 0, "first rotated element of a head"},
};
const hm_op_info hm_rotary_embedding_info = {
    .name = op,
    .about = "rotates pairs of elements of each head by the angle of its token's position",
    .contract = 1,
    .args_size = sizeof(hm_rotary_embedding_args),
    .args = args,
    .nargs = sizeof args / sizeof *args,
    .params = params,
    .nparams = sizeof params / sizeof *params,
    .classes = "wide chain64",
    .class_required = "chain64",
    HM_OP_CALLS,
};
