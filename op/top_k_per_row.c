#include "top_k_per_row.h"

#include "check.h"
#include "indexer_cache.h"
#include "op.h"

static const char op[] = "top_k_per_row";

hm_window_of_row hm_top_k_window(const hm_top_k_per_row_args *a, int64_t row) {
    int64_t start = 0, end;
    if (a->seq_lens.dtype != HM_DTYPE_NONE)
        end = hm_integer_at(&a->seq_lens, row / a->next_n) - a->next_n + row % a->next_n + 1;
    else start = hm_integer_at(&a->row_starts, row), end = hm_integer_at(&a->row_ends, row);
    return (hm_window_of_row){start, end > start ? end - start : 0};
}

static hm_status check_bounds(const char *name, const hm_tensor *t, int64_t extent, const char *why) {
    if (t->dtype != HM_I32)
        return hm_fail(HM_BAD_DTYPE, "%s: %s is %s; it has to be i32", op, name, hm_dtype_name(t->dtype));
    if (t->ndim != 1 || t->shape[0] != extent)
        return hm_fail(HM_BAD_SHAPE, "%s: %s has rank %d and extent %lld; it has to be [%lld], %s", op, name, t->ndim,
                       (long long)t->shape[0], (long long)extent, why);
    return HM_OK;
}

static hm_status check_form(const hm_top_k_per_row_args *a) {
    hm_status s;
    int64_t rows = a->logits.shape[0];
    bool starts = a->row_starts.dtype != HM_DTYPE_NONE, ends = a->row_ends.dtype != HM_DTYPE_NONE,
         lens = a->seq_lens.dtype != HM_DTYPE_NONE;
    if (starts != ends || starts == lens)
        return hm_fail(HM_BAD_ARG,
                       "%s: row_starts is %s, row_ends is %s and seq_lens is %s; it has to be the first two, or the "
                       "last",
                       op, starts ? "there" : "absent", ends ? "there" : "absent", lens ? "there" : "absent");
    if (a->next_n < 1 || (starts && a->next_n != 1))
        return hm_fail(HM_BAD_PARAM, "%s: next_n is %lld; it has to be %s", op, (long long)a->next_n,
                       starts ? "1 or 0 with row_starts" : "positive");
    if (starts) {
        if ((s = check_bounds("row_starts", &a->row_starts, rows, "one a row of logits"))) return s;
        return check_bounds("row_ends", &a->row_ends, rows, "one a row of logits");
    }
    if (rows % a->next_n)
        return hm_fail(HM_BAD_SHAPE, "%s: logits has %lld rows; it has to be a multiple of next_n, %lld", op,
                       (long long)rows, (long long)a->next_n);
    return check_bounds("seq_lens", &a->seq_lens, rows / a->next_n, "one for each next_n rows of logits");
}

static hm_status check_windows(const hm_top_k_per_row_args *a) {
    if (a->logits.place != HM_HOST) return HM_OK; /* to look at them would wait for the device */
    bool prefill = a->row_starts.dtype != HM_DTYPE_NONE;
    int64_t columns = a->logits.shape[1];
    for (int64_t r = 0; r < a->logits.shape[0]; r++) {
        int64_t start = prefill ? hm_integer_at(&a->row_starts, r) : 0;
        int64_t end = prefill ? hm_integer_at(&a->row_ends, r)
                              : hm_integer_at(&a->seq_lens, r / a->next_n) - a->next_n + r % a->next_n + 1;
        if (start < 0)
            return hm_fail(HM_BAD_VALUE, "%s: row_starts holds %lld for row %lld; it has to be 0 or more", op,
                           (long long)start, (long long)r);
        if (end > columns)
            return hm_fail(HM_BAD_VALUE, "%s: %s says that row %lld ends at column %lld; it has to be at most %lld", op,
                           prefill ? "row_ends" : "seq_lens", (long long)r, (long long)end, (long long)columns);
    }
    return HM_OK;
}

hm_status hm_top_k_per_row_read(const hm_top_k_per_row_args *args, hm_top_k_per_row_args *a) {
    hm_status s;
    if ((s = hm_read_args(op, args, a, sizeof *a))) return s;
    if (a->next_n == 0) a->next_n = 1;
    static const char *const name[] = {"logits", "row_starts", "row_ends", "seq_lens", "indices"};
    const hm_tensor *const t[] = {&a->logits, &a->row_starts, &a->row_ends, &a->seq_lens, &a->indices};
    for (int i = 0; i < 5; i++)
        if ((s = hm_check_tensor(op, name[i], t[i], i == 0 || i == 4))) return s;
    if (a->logits.dtype != HM_F32)
        return hm_fail(HM_BAD_DTYPE, "%s: logits is %s; it has to be f32", op, hm_dtype_name(a->logits.dtype));
    if (a->indices.dtype != HM_I32)
        return hm_fail(HM_BAD_DTYPE, "%s: indices is %s; it has to be i32", op, hm_dtype_name(a->indices.dtype));
    if (a->logits.ndim != 2 || a->logits.shape[1] > INT32_MAX)
        return hm_fail(HM_BAD_SHAPE,
                       "%s: logits has rank %d and last extent %lld; it has to be [rows, columns] with fewer than "
                       "2^31 columns",
                       op, a->logits.ndim, (long long)a->logits.shape[a->logits.ndim - 1]);
    if (a->indices.ndim != 2 || a->indices.shape[0] != a->logits.shape[0])
        return hm_fail(HM_BAD_SHAPE,
                       "%s: indices has rank %d and first extent %lld; it has to be [%lld, k], a row for each of "
                       "logits",
                       op, a->indices.ndim, (long long)a->indices.shape[0], (long long)a->logits.shape[0]);
    if ((s = check_form(a))) return s;
    if ((s = hm_check_places(op, 5, name, t))) return s;
    if ((s = hm_check_distinct(op, "indices", &a->indices))) return s;
    for (int i = 0; i < 4; i++)
        if ((s = hm_check_overlap(op, "indices", &a->indices, name[i], t[i], false))) return s;
    return check_windows(a);
}

hm_status hm_top_k_per_row_check(const hm_top_k_per_row_args *args) {
    hm_top_k_per_row_args full;
    return hm_top_k_per_row_read(args, &full);
}

HM_OP_FUNCTIONS(top_k_per_row, indices)

#define AT(field) offsetof(hm_top_k_per_row_args, field)
static const hm_arg_info args[] = {
    {"row_starts", AT(row_starts), HM_IN, true, "rows", "i32", NULL, "first column of each row's window", NULL},
    {"row_ends", AT(row_ends), HM_IN, true, "rows", "i32", NULL, "first column behind it", NULL},
    {"seq_lens", AT(seq_lens), HM_IN, true, "batch", "i32", NULL, "length of each request, in place of the windows",
     NULL},
    {"logits", AT(logits), HM_IN, false, "rows,columns", "f32", NULL, "what is compared", NULL},
    {"indices", AT(indices), HM_OUT, false, "rows,k", "i32", NULL, "of the largest, from the window's start; -1: none",
     NULL},
};
static const hm_param_info params[] = {
    {"next_n", AT(next_n), HM_PARAM_I64, NULL, 1, "rows of a request, with seq_lens"},
};
const hm_op_info hm_top_k_per_row_info = {
    .name = op,
    .about = "the indices of the k largest logits of each row's window",
    .contract = 1,
    .args_size = sizeof(hm_top_k_per_row_args),
    .args = args,
    .nargs = sizeof args / sizeof *args,
    .params = params,
    .nparams = sizeof params / sizeof *params,
    .classes = "wide",
    .class_required = "wide",
    HM_OP_CALLS,
};
