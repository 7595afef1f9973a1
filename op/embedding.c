#include "embedding.h"

#include <string.h>

#include "check.h"
#include "op.h"

static const char op[] = "embedding";

int64_t hm_embedding_id(const hm_tensor *ids, int64_t row) {
    int64_t offset = 0, i64;
    int32_t i32;
    for (int d = ids->ndim - 1; d >= 0; d--) {
        offset += row % ids->shape[d] * ids->stride[d];
        row /= ids->shape[d];
    }
    if (ids->dtype == HM_I64) return memcpy(&i64, (const char *)ids->data + offset * 8, sizeof i64), i64;
    return memcpy(&i32, (const char *)ids->data + offset * 4, sizeof i32), i32;
}

static hm_status check_shape(const hm_embedding_args *a) {
    const hm_tensor *out = &a->out, *ids = &a->ids, *table = &a->table;
    if (table->ndim != 2)
        return hm_fail(HM_BAD_SHAPE, "%s: table has rank %d; it has to be 2: [rows, hidden]", op, table->ndim);
    if (ids->ndim > 3) return hm_fail(HM_BAD_SHAPE, "%s: ids has rank %d; it has to be 1 to 3", op, ids->ndim);
    if (out->ndim != ids->ndim + 1)
        return hm_fail(HM_BAD_SHAPE, "%s: out has rank %d; it has to be %d, one more than ids", op, out->ndim,
                       ids->ndim + 1);
    for (int d = 0; d < out->ndim; d++) {
        int64_t extent = d < ids->ndim ? ids->shape[d] : table->shape[1];
        if (out->shape[d] != extent)
            return hm_fail(HM_BAD_SHAPE, "%s: out has extent %lld in dimension %d; it has to be %lld, as %s has", op,
                           (long long)out->shape[d], d, (long long)extent, d < ids->ndim ? "ids" : "table");
    }
    return HM_OK;
}

static hm_status check_vocabulary(hm_embedding_args *a) {
    static const int64_t most = INT64_C(1) << 53;
    if (a->vocab_start < 0 || a->vocab_start > most)
        return hm_fail(HM_BAD_PARAM, "%s: vocab_start is %lld; it has to be 0 to 2^53", op, (long long)a->vocab_start);
    if (a->vocab_size < 0)
        return hm_fail(HM_BAD_PARAM, "%s: vocab_size is %lld; it has to be 0 or more", op, (long long)a->vocab_size);
    int64_t rows = a->table.shape[0];
    if (a->vocab_size == 0) a->vocab_size = a->vocab_start + (rows < most - 1 ? rows : most - 1);
    return HM_OK;
}

static hm_status check_ids(const hm_embedding_args *a) {
    if (a->ids.place != HM_HOST) return HM_OK; /* to look at them would wait for the device */
    int64_t n = hm_tensor_elements(&a->ids), vocab = a->vocab_size;
    for (int64_t i = 0; i < n; i++) {
        int64_t id = hm_embedding_id(&a->ids, i);
        if (id < 0 || id >= vocab)
            return hm_fail(HM_BAD_VALUE, "%s: ids holds %lld at element %lld; it has to be 0 to %lld", op,
                           (long long)id, (long long)i, (long long)vocab - 1);
    }
    return HM_OK;
}

hm_status hm_embedding_read(const hm_embedding_args *args, hm_embedding_args *a) {
    hm_status s;
    if ((s = hm_read_args(op, args, a, sizeof *a))) return s;
    static const char *const name[] = {"ids", "table", "out"};
    const hm_tensor *const t[] = {&a->ids, &a->table, &a->out};
    for (int i = 0; i < 3; i++)
        if ((s = hm_check_tensor(op, name[i], t[i], true))) return s;
    if (a->ids.dtype != HM_I32 && a->ids.dtype != HM_I64)
        return hm_fail(HM_BAD_DTYPE, "%s: ids is %s; it has to be i32 or i64", op, hm_dtype_name(a->ids.dtype));
    if (!hm_is_float(a->table.dtype))
        return hm_fail(HM_BAD_DTYPE, "%s: table is %s; it has to be f32, f16 or bf16", op,
                       hm_dtype_name(a->table.dtype));
    if (a->out.dtype != a->table.dtype)
        return hm_fail(HM_BAD_DTYPE, "%s: out is %s; it has to be %s, the dtype of table", op,
                       hm_dtype_name(a->out.dtype), hm_dtype_name(a->table.dtype));
    if ((s = check_shape(a))) return s;
    if ((s = check_vocabulary(a))) return s;
    if ((s = hm_check_places(op, 3, name, t))) return s;
    if ((s = hm_check_distinct(op, "out", &a->out))) return s;
    for (int i = 0; i < 2; i++)
        if ((s = hm_check_overlap(op, "out", &a->out, name[i], t[i], false))) return s;
    return check_ids(a);
}

bool hm_embedding_holds(const hm_embedding_args *a, int64_t id) {
    return id >= a->vocab_start && id - a->vocab_start < a->table.shape[0];
}

hm_status hm_embedding_check(const hm_embedding_args *args) {
    hm_embedding_args full;
    return hm_embedding_read(args, &full);
}

HM_OP_FUNCTIONS(embedding, out)

#define AT(field) offsetof(hm_embedding_args, field)
static const hm_arg_info args[] = {
    {"ids", AT(ids), HM_IN, false, "...", "i64 i32", NULL, "token ids: rows of the table", NULL},
    {"table", AT(table), HM_IN, false, "rows,hidden", "bf16 f16 f32", NULL, "one row for each id", "ids"},
    {"out", AT(out), HM_OUT, false, "...,hidden", "=table", NULL, "the rows that ids name", NULL},
};
static const hm_param_info params[] = {
    {"vocab_start", AT(vocab_start), HM_PARAM_I64, NULL, 0, "the id whose row is the table's first"},
    {"vocab_size", AT(vocab_size), HM_PARAM_I64, NULL, 0, "ids that there are; 0: vocab_start + rows"},
};
const hm_op_info hm_embedding_info = {
    .name = op,
    .about = "out = table[ids]: a bit copy",
    .contract = 1,
    .args_size = sizeof(hm_embedding_args),
    .args = args,
    .nargs = sizeof args / sizeof *args,
    .params = params,
    .nparams = sizeof params / sizeof *params,
    .classes = "wide",
    .class_required = "wide",
    HM_OP_CALLS,
};
