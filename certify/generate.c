#include <stdlib.h>
#include <string.h>

#include "../op/dtype.h"
#include "generators.h"
#include "inputs.h"

int hm_generator_count(void) { return hm_generators_count; }
const hm_generator *hm_generator_at(int i) { return i >= 0 && i < hm_generators_count ? &hm_generators[i].is : NULL; }
const hm_generator *hm_generator_named(const char *name) {
    for (int i = 0; i < hm_generators_count; i++)
        if (!strcmp(hm_generators[i].is.name, name)) return &hm_generators[i].is;
    return NULL;
}

/* ---- filling a tensor ---- */

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

static bool is_real(hm_dtype dtype) { return dtype >= HM_F32 && dtype <= HM_F8E5M2; }

static void store(const hm_tensor *t, int64_t row, const double *v) {
    int64_t n = t->shape[t->ndim - 1], stride = t->stride[t->ndim - 1], size = (int64_t)hm_dtype_size(t->dtype);
    char *to = row_at(t, row);
    if (stride > 0) return hm_store_row(t->dtype, to, stride, n, v);
    for (int64_t c = 0; c < n; c++) hm_store(t->dtype, to + c * stride * size, v[c]);
}

/* The table that an argument is an index into, the index of a table; -1: none. */
static int table_of(const hm_op_info *op, int arg) {
    for (int i = 0; i < op->nargs; i++)
        if (op->args[i].rows_named_by && !strcmp(op->args[i].rows_named_by, op->args[arg].name)) return i;
    return -1;
}

static int index_of(const hm_op_info *op, int table) {
    int i = 0;
    while (strcmp(op->args[i].name, op->args[table].rows_named_by)) i++;
    return i;
}

/* The table whose rows are cosines and sines, in ops that rotate pairs; -1: none. */
static int the_table(const hm_op_info *op) {
    bool rotates = false;
    for (int i = 0; i < op->nparams; i++) rotates |= !strcmp(op->params[i].name, "pairing");
    for (int i = 0; i < op->nargs; i++)
        if (rotates && op->args[i].rows_named_by) return i;
    return -1;
}

bool hm_generator_separates(const hm_generator *g, const hm_op_info *op) {
    if (!strchr(op->classes, ' ')) return true;
    bool rotations = the_table(op) >= 0 && !strstr(op->classes, "tc23");
    return g->separates == (rotations ? HM_SEPARATES_ROTATIONS : HM_SEPARATES_SUMS);
}

int hm_generate_round(const hm_op_info *op, int arg) {
    if (hm_inputs_of(op)) return 2; /* in the order of the table */
    return op->args[arg].rows_named_by ? 1 : table_of(op, arg) >= 0 ? 0 : 2;
}

static void fill_index(const hm_source *s, const hm_tensor *t, int64_t table_rows) {
    int64_t n = hm_tensor_elements(t), last = t->shape[t->ndim - 1];
    for (int64_t i = 0; i < n; i++) {
        int64_t v = hm_index_drawn(s, i, n, table_rows);
        char *to = row_at(t, i / last) + i % last * t->stride[t->ndim - 1] * (int64_t)hm_dtype_size(t->dtype);
        if (t->dtype == HM_I64) memcpy(to, &v, sizeof v);
        else memcpy(to, &(int32_t){(int32_t)v}, sizeof(int32_t));
    }
}

/* How an op with a table pairs the elements of a row of data; count is 0 where the call is too broken to say. */
static hm_pairs pairs_of(const hm_case_spec *spec, const void *args, const hm_tensor *t) {
    int table = the_table(spec->op);
    if (table < 0) return (hm_pairs){0};
    const hm_tensor *c = hm_arg_tensor(spec->op, args, table),
                    *at = hm_arg_tensor(spec->op, args, index_of(spec->op, table));
    int64_t n = t->shape[t->ndim - 1], count = c->ndim == 2 ? c->shape[1] / 2 : 0,
            first = (int64_t)param(spec, "rope_dim_offset", 0);
    bool sound = is_real(c->dtype) && c->data && at->dtype == HM_I64 && at->data && t->ndim >= at->ndim && count > 0 &&
                 first >= 0 && 2 * count <= n - first;
    for (int d = 0; sound && d < at->ndim; d++) sound = t->shape[d] == at->shape[d];
    bool interleaved = param(spec, "pairing", 0) == 1;
    return (hm_pairs){
        .count = sound ? count : 0, .first = first, .step = interleaved ? 2 : 1, .apart = interleaved ? 1 : count};
}

/* The table's row for row `row` of t; false if its index is out of range. */
static bool load_pairs(const hm_op_info *op, const void *args, const hm_tensor *t, int64_t row, int64_t count,
                       double *to) {
    int table = the_table(op);
    const hm_tensor *c = hm_arg_tensor(op, args, table), *at = hm_arg_tensor(op, args, index_of(op, table));
    int64_t each = 1, offset = 0, position;
    for (int d = at->ndim; d < t->ndim - 1; d++) each *= t->shape[d];
    int64_t token = row / each;
    for (int d = at->ndim - 1; d >= 0; d--) {
        offset += token % at->shape[d] * at->stride[d];
        token /= at->shape[d];
    }
    memcpy(&position, (const char *)at->data + offset * (int64_t)sizeof position, sizeof position);
    if (position < 0 || position >= c->shape[0]) return false;
    hm_load_row(c->dtype, row_at(c, position), c->stride[1], 2 * count, to);
    return true;
}

static void fill_patterns(const hm_source *s, const hm_tensor *t, int64_t row) {
    size_t size = hm_dtype_size(t->dtype);
    char *to = row_at(t, row);
    for (int64_t c = 0; c < s->n; c++) {
        uint64_t bits = hm_pattern_drawn(s, row * s->n + c);
        memcpy(to + c * t->stride[t->ndim - 1] * (int64_t)size, &bits, size);
    }
}

hm_status hm_generate_rows(const hm_case_spec *spec, int arg, const void *args, const int64_t *only, int64_t rows) {
    const hm_op_info *op = spec->op;
    const hm_inputs *inputs = hm_inputs_of(op);
    const hm_tensor *t = hm_arg_tensor(op, args, arg), *first = NULL;
    if (inputs && inputs->fill(spec, arg, args)) return HM_OK;
    int same = 0, generator = 0, first_arg = -1;
    for (int i = op->nargs - 1; i >= 0; i--)
        if (has_rows(op, i) && hm_generate_round(op, i) == 2) first = hm_arg_tensor(op, args, first_arg = i);
    for (int i = 0; i < op->nargs; i++)
        same += has_rows(op, i) && first && !strcmp(op->args[i].shape, op->args[first_arg].shape);
    while (generator < hm_generators_count && strcmp(hm_generators[generator].is.name, spec->generator)) generator++;
    if (generator == hm_generators_count) return HM_BAD_ARG;

    int64_t n = t->shape[t->ndim - 1];
    for (int d = 0; d < t->ndim; d++)
        if (t->shape[d] <= 0) return HM_OK;
    double mean = param(spec, "variance_size", 0);
    const char *const *forms = NULL;
    for (int i = 0; i < op->nparams; i++)
        if (!strcmp(op->params[i].name, "weight_form")) forms = op->params[i].values;
    double form = param(spec, "weight_form", 0);
    bool is_same = first && !strcmp(op->args[arg].shape, op->args[first_arg].shape);
    hm_source s = {
        .role = arg == the_table(op)                                       ? TABLE
                : !has_rows(op, arg) && (t->ndim < 2 || !hm_inputs_of(op)) ? WEIGHT
                : t == first || !is_same                                   ? FIRST
                                                                           : SECOND,
        .dtype = t->dtype,
        .type = first && is_real(first->dtype) ? first->dtype : t->dtype,
        .n = n,
        .mean = mean >= 1 && mean < (double)n ? (int64_t)mean : n,
        .one_plus = forms && form == 1 && !strcmp(forms[1], "one_plus"),
        .has_second = is_same && same > 1,
        .seed = spec->seed,
        .salt = hm_hash_name(spec->generator),
        .name = hm_hash_name(op->args[arg].name),
    };
    int table = table_of(op, arg);
    if (table >= 0 && (t->dtype == HM_I64 || t->dtype == HM_I32)) {
        const hm_tensor *of = hm_arg_tensor(op, args, table);
        fill_index(&s, t, of->ndim > 0 ? of->shape[0] : 0);
        return HM_OK;
    }
    if (op->args[arg].direction == HM_IN && !strcmp(op->args[arg].dtypes, "i64") &&
        (t->dtype == HM_I64 || t->dtype == HM_I32)) {
        /* positions of which no table is made yet: as many as models have; out of range are those that no table may
         * have */
        fill_index(&s, t, INT64_C(1) << (strcmp(spec->generator, "out_of_range") ? 20 : 24));
        return HM_OK;
    }
    if (!is_real(t->dtype))
        return HM_OK; /* not a dtype of real numbers: left as it is, for cases that must be refused */
    const struct hm_named_filler *g = &hm_generators[generator];
    hm_filler *fill = s.role == TABLE ? (g->table ? g->table : hm_fill_rotation) : g->fill;
    if (s.role != TABLE) s.pairs = pairs_of(spec, args, t);
    bool reads_first = s.role == SECOND && same_shape(first, t) && is_real(first->dtype), failed = false;
#pragma omp parallel if (dense(t) && rows > 1 && rows * n > 16384)
    {
        double *v = malloc((2 * (size_t)n + 2 * (size_t)s.pairs.count) * sizeof *v), *x = v + n, *pairs = x + n;
        hm_source mine = s;
#pragma omp for schedule(static)
        for (int64_t k = 0; k < rows; k++) {
            int64_t row = only ? only[k] : k;
            if (!v) {
#pragma omp atomic write
                failed = true;
                continue;
            }
            if (reads_first) {
                hm_load_row(first->dtype, row_at(first, row), first->stride[first->ndim - 1], n, x);
                mine.first = x;
            }
            mine.pairs.c = pairs, mine.pairs.s = pairs + s.pairs.count;
            mine.pairs.count = s.pairs.count && load_pairs(op, args, t, row, s.pairs.count, pairs) ? s.pairs.count : 0;
            if (!fill) {
                fill_patterns(&mine, t, row);
                continue;
            }
            fill(&mine, row, v);
            store(t, row, v);
        }
        free(v);
    }
    return failed ? HM_NO_MEMORY : HM_OK;
}

hm_status hm_generate(const hm_case_spec *spec, int arg, const void *args) {
    const hm_tensor *t = hm_arg_tensor(spec->op, args, arg);
    int64_t rows = 1;
    for (int d = 0; d < t->ndim - 1; d++)
        if (t->shape[d] <= 0 || __builtin_mul_overflow(rows, t->shape[d], &rows)) return HM_OK;
    hm_status status = hm_generate_rows(spec, arg, args, NULL, rows);
    const hm_inputs *inputs = hm_inputs_of(spec->op);
    if (!status && inputs && inputs->after) inputs->after(spec, arg, args);
    return status;
}
