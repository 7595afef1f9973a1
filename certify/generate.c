#include <stdlib.h>
#include <string.h>

#include "../op/dtype.h"
#include "generators.h"

int hm_generator_count(void) { return hm_generators_count; }
const hm_generator *hm_generator_at(int i) { return i >= 0 && i < hm_generators_count ? &hm_generators[i].is : NULL; }
const hm_generator *hm_generator_named(const char *name) {
    for (int i = 0; i < hm_generators_count; i++)
        if (!strcmp(hm_generators[i].is.name, name)) return &hm_generators[i].is;
    return NULL;
}

/* ---- filling a tensor -------------------------------------------------------------------------- */

static bool has_rows(const hm_op_info *op, int arg) {
    return op->args[arg].direction != HM_OUT && !strncmp(op->args[arg].shape, "...", 3);
}

static double param(const hm_case_spec *spec, const char *name, double otherwise) {
    for (int i = 0; i < spec->op->nparams; i++)
        if (!strcmp(spec->op->params[i].name, name)) return spec->param[i];
    return otherwise;
}

static int64_t row_offset(const hm_tensor *t, int64_t row) {
    int64_t offset = 0;
    for (int d = t->ndim - 2; d >= 0; d--) {
        offset += row % t->shape[d] * t->stride[d];
        row /= t->shape[d];
    }
    return offset;
}

static char *row_at(const hm_tensor *t, int64_t row) {
    return (char *)t->data + row_offset(t, row) * (int64_t)hm_dtype_size(t->dtype);
}

/* Dense: no element lies on another. Else rows are filled one after the other, and the last one wins. */
static bool dense(const hm_tensor *t) {
    int64_t step = 1;
    for (int d = t->ndim - 1; d >= 0; d--) {
        if (t->stride[d] != step && t->shape[d] > 1) return false;
        step *= t->shape[d];
    }
    return true;
}

static bool same_shape(const hm_tensor *a, const hm_tensor *b) {
    return a->data && a->ndim == b->ndim && !memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof *a->shape);
}

static bool is_real(hm_dtype dtype) { return dtype == HM_F32 || dtype == HM_F16 || dtype == HM_BF16; }

static void store(const hm_tensor *t, int64_t row, const double *v) {
    int64_t n = t->shape[t->ndim - 1], stride = t->stride[t->ndim - 1], size = (int64_t)hm_dtype_size(t->dtype);
    char *to = row_at(t, row);
    if (stride > 0) return hm_store_row(t->dtype, to, stride, n, v);
    for (int64_t c = 0; c < n; c++) hm_store(t->dtype, to + c * stride * size, v[c]);
}

hm_status hm_generate(const hm_case_spec *spec, int arg, const void *args) {
    const hm_op_info *op = spec->op;
    const hm_tensor *t = hm_arg_tensor(op, args, arg), *first = NULL;
    int with_rows = 0, generator = 0;
    for (int i = op->nargs - 1; i >= 0; i--)
        if (has_rows(op, i)) with_rows++, first = hm_arg_tensor(op, args, i);
    while (generator < hm_generators_count && strcmp(hm_generators[generator].is.name, spec->generator)) generator++;
    if (generator == hm_generators_count) return HM_BAD_ARG;

    int64_t n = t->shape[t->ndim - 1], rows = 1;
    for (int d = 0; d < t->ndim; d++)
        if (t->shape[d] <= 0) return HM_OK;
    for (int d = 0; d < t->ndim - 1; d++) rows *= t->shape[d];
    if (!is_real(t->dtype))
        return HM_OK; /* not a dtype of real numbers: left as it is, for cases that must be refused */
    double mean = param(spec, "variance_size", 0);
    const char *const *forms = NULL;
    for (int i = 0; i < op->nparams; i++)
        if (!strcmp(op->params[i].name, "weight_form")) forms = op->params[i].values;
    double form = param(spec, "weight_form", 0);
    hm_source s = {
        .role = !has_rows(op, arg) ? WEIGHT
                : t == first       ? FIRST
                                   : SECOND,
        .dtype = t->dtype,
        .type = first && is_real(first->dtype) ? first->dtype : t->dtype,
        .n = n,
        .mean = mean >= 1 && mean < (double)n ? (int64_t)mean : n,
        .one_plus = forms && form == 1 && !strcmp(forms[1], "one_plus"),
        .has_second = with_rows > 1,
        .seed = spec->seed,
        .salt = hm_hash_name(spec->generator),
        .name = hm_hash_name(op->args[arg].name),
    };
    bool reads_first = s.role == SECOND && same_shape(first, t) && is_real(first->dtype), failed = false;
#pragma omp parallel if (dense(t) && rows > 1 && rows * n > 16384)
    {
        double *v = malloc(2 * (size_t)n * sizeof *v), *x = v + n;
        hm_source mine = s;
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++) {
            if (!v) {
#pragma omp atomic write
                failed = true;
                continue;
            }
            if (reads_first) {
                hm_load_row(first->dtype, row_at(first, row), first->stride[first->ndim - 1], n, x);
                mine.first = x;
            }
            hm_generators[generator].fill(&mine, row, v);
            store(t, row, v);
        }
        free(v);
    }
    return failed ? HM_NO_MEMORY : HM_OK;
}
