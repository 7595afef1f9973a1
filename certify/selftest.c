/* What the parts of the selftest share: lists of cases, and golden for a whole call, kept. */
#include "selftest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "elements.h"

/* ---- cases ---- */

static int keep(const hm_case_spec *spec, void *context) {
    hm_case_list *list = context;
    if (list->n == list->capacity) {
        int capacity = list->capacity ? 2 * list->capacity : 256;
        hm_case_spec *grown = realloc(list->spec, (size_t)capacity * sizeof *grown);
        if (!grown) return 1;
        list->spec = grown, list->capacity = capacity;
    }
    list->spec[list->n++] = *spec;
    return 0;
}

int hm_cases_of_suite(hm_suite suite, const char *op, uint64_t seed, hm_case_list *to, char *why, size_t size) {
    return hm_suite_each(suite, op, seed, keep, to, why, size);
}

int hm_cases_outside(const char *op, uint64_t seed, hm_case_list *to, char *why, size_t size) {
    int result = 0;
    for (int i = 0; i < hm_op_count() && !result; i++) {
        char file[80];
        if (op && strcmp(op, hm_op_at(i)->name)) continue;
        snprintf(file, sizeof file, "%s.outside.cases", hm_op_at(i)->name);
        result = hm_case_file_each(file, HM_FULL, seed, keep, to, why, size);
    }
    return result;
}

/* ---- truth ---- */

static bool is_output(const hm_call *call, int arg) {
    return call->op->args[arg].direction != HM_IN && call->tensor[arg].dtype != HM_DTYPE_NONE;
}

static double thread_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool cut(hm_truth_arg *a, int64_t rows, int64_t n) {
    size_t elements = (size_t)(rows * n) + 1; /* never nothing */
    a->rows = rows, a->n = n;
    a->row = calloc((size_t)rows + 1, sizeof *a->row);
    a->values = malloc(3 * elements * sizeof *a->values);
    a->bits = malloc(elements * sizeof *a->bits); /* written, and so there, only for copies */
    a->flags = malloc(elements);
    if (!a->row || !a->values || !a->bits || !a->flags) return false;
    for (int64_t r = 0; r < rows; r++) {
        a->row[r].lo = a->values + 3 * r * n;
        a->row[r].hi = a->row[r].lo + n;
        a->row[r].ideal = a->row[r].hi + n;
        a->row[r].bits = a->bits + r * n;
        a->row[r].flags = a->flags + r * n;
    }
    return true;
}

static hm_status fill(hm_truth *truth, const hm_call *call, bool with_ideal) {
    hm_status status = HM_OK;
    double start = thread_seconds();
    for (int k = 0; k < truth->nargs && !status; k++)
        status = hm_golden_observe(truth->golden, truth->arg[k].arg, &call->tensor[truth->arg[k].arg], 1);
    for (int k = 0; k < truth->nargs && !status; k++) {
        hm_truth_arg *a = &truth->arg[k];
        for (int64_t r = 0; r < a->rows && a->n > 0 && !status; r++) {
            double *ideal = a->row[r].ideal;
            if (!with_ideal) a->row[r].ideal = NULL;
            status = hm_golden_row_get(truth->golden, a->arg, r, truth->class, truth->tier, &a->row[r]);
            a->row[r].ideal = ideal;
        }
    }
    truth->seconds = thread_seconds() - start;
    return status;
}

hm_status hm_truth_make(const hm_call *call, hm_class c, hm_tier tier, hm_truth *truth) {
    *truth = (hm_truth){.class = c, .tier = tier};
    hm_status status = hm_golden_open(call->op, call->golden_args, 1, &truth->golden);
    for (int i = 0; i < call->op->nargs && !status; i++) {
        if (!is_output(call, i)) continue;
        const hm_tensor *t = &call->tensor[i];
        hm_truth_arg *a = &truth->arg[truth->nargs++];
        a->arg = i;
        if (!cut(a, hm_row_count(t), t->shape[t->ndim - 1])) status = HM_NO_MEMORY;
        if (a->n > 0) truth->elements += a->rows * a->n;
    }
    if (!status) status = fill(truth, call, true);
    if (status) hm_truth_free(truth);
    return status;
}

void hm_truth_free(hm_truth *truth) {
    for (int k = 0; k < truth->nargs; k++) {
        hm_truth_arg *a = &truth->arg[k];
        for (int64_t r = 0; a->row && r < a->rows; r++) free(a->row[r].parts);
        free(a->row);
        free(a->values);
        free(a->bits);
        free(a->flags);
    }
    hm_golden_close(truth->golden);
    *truth = (hm_truth){0};
}

static void *row_at(const hm_tensor *t, int64_t row) {
    return (char *)t->data + hm_row_offset(t, row) * (int64_t)hm_dtype_size(t->dtype);
}

int64_t hm_truth_outside(hm_truth *truth, const hm_call *call) {
    int64_t outside = 0;
    if (hm_golden_observes(call->op) && fill(truth, call, false))
        return truth->elements; /* it was made for other outputs than these */
    for (int k = 0; k < truth->nargs; k++) {
        const hm_truth_arg *a = &truth->arg[k];
        const hm_tensor *t = &call->tensor[a->arg];
        double *got = malloc(((size_t)a->n + 1) * sizeof *got);
        uint64_t *raw = malloc(((size_t)a->n + 1) * sizeof *raw);
        if (!got || !raw) {
            free(got);
            free(raw);
            return truth->elements;
        }
        for (int64_t r = 0; r < a->rows && a->n > 0; r++) {
            hm_load_row(t->dtype, row_at(t, r), t->stride[t->ndim - 1], a->n, got);
            bool bits = hm_row_has_bits(&a->row[r], a->n);
            if (bits) hm_row_load_bits(t, r, raw);
            outside += hm_row_compare(&a->row[r], got, bits ? raw : NULL, a->n).failing;
        }
        free(got);
        free(raw);
    }
    return outside;
}

uint64_t hm_truth_hash(const hm_call *call) {
    uint64_t hash = 0;
    for (int i = 0; i < call->op->nargs; i++) {
        const hm_tensor *t = &call->tensor[i];
        if (!is_output(call, i) || call->buffer_of[i] < 0) continue;
        int64_t n = t->shape[t->ndim - 1], size = (int64_t)hm_dtype_size(t->dtype),
                stride = t->stride[t->ndim - 1] * size;
        for (int64_t r = 0; r < hm_row_count(t); r++) {
            const char *row = row_at(t, r);
            if (stride == size) hash = XXH3_64bits_withSeed(row, (size_t)(n * size), hash);
            for (int64_t k = 0; k < n && stride != size; k++)
                hash = XXH3_64bits_withSeed(row + k * stride, (size_t)size, hash);
        }
    }
    return hash;
}
