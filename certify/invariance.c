#include "invariance.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "layout.h"

/* Elements per argument that a run on fewer rows or other strides has at most, so that memory stays small. */
#define MOST_ELEMENTS ((int64_t)1 << 22)

typedef struct {
    hm_impl *impl;
    hm_call *call;
    char *saved[HM_MAX_ARGS]; /* outputs of the first run, contiguous */
    int64_t rows;             /* product of "..." */
    int64_t first;            /* extent of the first dimension of "..."; 1 if there is none */
    char *text;
    size_t size;
} trial;

static bool is_output(const hm_op_info *op, const void *args, int i) {
    return op->args[i].direction != HM_IN && hm_arg_tensor(op, args, i)->dtype != HM_DTYPE_NONE;
}

/* Number of leading dimensions of argument i that "..." stands for. */
static int leading(const hm_op_info *op, const void *args, int i) {
    const char *shape = op->args[i].shape;
    const hm_tensor *t = hm_arg_tensor(op, args, i);
    if (strncmp(shape, "...", 3) || t->dtype == HM_DTYPE_NONE) return 0;
    int named = 0;
    for (const char *at = shape; (at = strchr(at, ',')); at++) named++;
    return t->ndim - named;
}

static char *row_at(const hm_tensor *t, int64_t row) {
    return (char *)t->data + hm_row_offset(t, row) * (int64_t)hm_dtype_size(t->dtype);
}

static void gather_row(const hm_tensor *t, int64_t row, char *to) {
    const char *from = row_at(t, row);
    size_t size = hm_dtype_size(t->dtype);
    int64_t n = t->shape[t->ndim - 1], stride = t->stride[t->ndim - 1];
    if (stride == 1) memcpy(to, from, (size_t)n * size);
    else
        for (int64_t k = 0; k < n; k++) memcpy(to + (size_t)k * size, from + k * stride * (int64_t)size, size);
}

static bool same_bits(hm_dtype dtype, int64_t n, const char *a, const char *b) {
    size_t size = hm_dtype_size(dtype);
    if (!memcmp(a, b, (size_t)n * size)) return true;
    for (int64_t k = 0; k < n; k++, a += size, b += size)
        if (memcmp(a, b, size) && !(isnan(hm_load(dtype, a)) && isnan(hm_load(dtype, b)))) return false;
    return true;
}

/* Compares the outputs of args, whose leading index 0 is leading index `from` of the call, with what was saved. */
static bool same_outputs(const trial *t, const void *args, int64_t from) {
    const hm_op_info *op = t->call->op;
    bool same = true;
    for (int i = 0; i < op->nargs && same; i++) {
        if (!is_output(op, args, i)) continue;
        const hm_tensor *out = hm_arg_tensor(op, args, i);
        int64_t rows = hm_row_count(out), n = out->shape[out->ndim - 1];
        int64_t offset = t->rows ? from * (hm_row_count(hm_arg_tensor(op, t->call->args, i)) / t->rows) : 0;
        size_t bytes = (size_t)n * hm_dtype_size(out->dtype);
        char *row_bytes = malloc(bytes + 1);
        if (!row_bytes) return false;
        for (int64_t row = 0; row < rows && same; row++) {
            gather_row(out, row, row_bytes);
            same = same_bits(out->dtype, n, row_bytes, t->saved[i] + (size_t)(offset + row) * bytes);
        }
        free(row_bytes);
    }
    return same;
}

static bool differs(const trial *t, const char *what, const hm_run *run) {
    if (run && run->state == HM_DIED) snprintf(t->text, t->size, "differs: %s: %s", what, run->error);
    else if (run) snprintf(t->text, t->size, "differs: %s: returned %s", what, hm_status_name(run->status));
    else snprintf(t->text, t->size, "differs: %s", what);
    return false;
}

/* Runs the implementation on a call made from args and compares. true if it gives the same or cannot be asked. */
static bool try_args(const trial *t, const void *args, int64_t from, const char *what) {
    hm_call *call = NULL;
    hm_run run = {0};
    char why[256];
    bool same = true;
    if (t->call->op->check(args) != HM_OK) return true;
    if (hm_call_from_args(t->call->op, args, t->call->name, &call, why, sizeof why)) {
        snprintf(t->text, t->size, "differs: %s could not be tried: %.80s", what, why);
        return false;
    }
    t->impl->run(t->impl, call, call->args, &run);
    if (run.state == HM_DIED || (run.status != HM_OK && run.status != HM_UNSUPPORTED)) same = differs(t, what, &run);
    else if (run.status == HM_OK && !same_outputs(t, call->args, from)) same = differs(t, what, NULL);
    hm_call_free(call);
    return same;
}

/* Leading index `row` alone: every argument with "..." keeps its strides and shrinks to one row. */
static bool try_row(const trial *t, void *args, int64_t row) {
    const hm_op_info *op = t->call->op;
    char what[64];
    memcpy(args, t->call->args, op->args_size);
    for (int i = 0; i < op->nargs; i++) {
        hm_tensor *x = hm_arg_tensor(op, args, i);
        int64_t rest = row;
        for (int d = leading(op, args, i) - 1; d >= 0; d--) {
            x->data = (char *)x->data + rest % x->shape[d] * x->stride[d] * (int64_t)hm_dtype_size(x->dtype);
            rest /= x->shape[d];
            x->shape[d] = 1;
        }
    }
    snprintf(what, sizeof what, "row %lld alone", (long long)row);
    return try_args(t, args, row, what);
}

static void take_prefix(const trial *t, void *args, int64_t count) {
    const hm_op_info *op = t->call->op;
    memcpy(args, t->call->args, op->args_size);
    for (int i = 0; i < op->nargs; i++)
        if (leading(op, args, i) > 0) hm_arg_tensor(op, args, i)->shape[0] = count;
}

static bool try_prefix(const trial *t, void *args, int64_t count) {
    char what[64];
    take_prefix(t, args, count);
    snprintf(what, sizeof what, "the first %lld of %lld alone", (long long)count, (long long)t->first);
    return try_args(t, args, 0, what);
}

/* ---- every smaller batch, where it lies ---- */

/* What the first rows of the outputs held before the call. */
static void restore(const trial *t, const void *args) {
    const hm_op_info *op = t->call->op;
    for (int i = 0; i < op->nargs; i++) {
        if (!is_output(op, args, i)) continue;
        const hm_tensor *out = hm_arg_tensor(op, args, i), *before = NULL;
        for (int k = 0; k < op->nargs && !before; k++)
            if (hm_is_input(op, k) && hm_arg_tensor(op, args, k)->data == out->data)
                before = hm_arg_tensor(op, t->call->golden_args, k);
        int64_t n = out->shape[out->ndim - 1], stride = out->stride[out->ndim - 1];
        size_t size = hm_dtype_size(out->dtype), bytes = (size_t)n * size;
        for (int64_t row = 0, rows = hm_row_count(out); row < rows; row++) {
            const char *from = before ? (const char *)before->data + (size_t)row * bytes : NULL;
            char *to = row_at(out, row);
            for (int64_t k = 0, each = stride == 1 ? n : 1; k < n; k += each, to += stride * (int64_t)size) {
                if (from) memcpy(to, from + (size_t)k * size, (size_t)each * size);
                else memset(to, HM_POISON, (size_t)each * size);
            }
        }
    }
}

/* The call with args, which begin where its own do, in buffers that end where they end: of the rest a worker copies
 * nothing. */
static hm_call cut(const trial *t, void *args) {
    const hm_op_info *op = t->call->op;
    hm_call part = *t->call;
    part.args = args;
    for (int b = 0; b < part.nbuffers; b++) {
        size_t end = 0;
        for (int i = 0; i < op->nargs; i++) {
            int64_t low, high;
            if (part.buffer_of[i] != b || !hm_view_span(hm_arg_tensor(op, args, i), &low, &high)) continue;
            size_t to = (size_t)((int64_t)part.buffer[b].offset[i] + high) + HM_GUARD;
            end = to > end ? to : end;
        }
        end = (end + HM_GUARD - 1) / HM_GUARD * HM_GUARD; /* whole pages */
        if (end < part.buffer[b].size) part.buffer[b].size = end;
    }
    return part;
}

static bool try_every_batch(const trial *t, void *args) {
    char what[64];
    for (int64_t count = t->first - 1; count > 0; count--) {
        hm_run run = {0};
        take_prefix(t, args, count);
        restore(t, args);
        hm_call part = cut(t, args);
        t->impl->run(t->impl, &part, args, &run);
        snprintf(what, sizeof what, "the first %lld of %lld alone", (long long)count, (long long)t->first);
        if (run.state != HM_RAN || run.status != HM_OK) return differs(t, what, &run);
        if (!same_outputs(t, args, 0)) return differs(t, what, NULL);
    }
    hm_call_reset(t->call);
    return true;
}

/* The same values with rows three elements further apart than they are long, so that their alignment changes too. */
static bool try_strided(const trial *t, void *args, int64_t count) {
    const hm_op_info *op = t->call->op;
    char *moved[HM_MAX_ARGS] = {0};
    bool ready = true;
    take_prefix(t, args, count);
    for (int i = 0; i < op->nargs; i++) {
        hm_tensor *x = hm_arg_tensor(op, args, i), to = *x;
        const hm_tensor *before = hm_arg_tensor(op, t->call->args, i);
        if (leading(op, args, i) == 0) continue;
        for (int d = x->ndim - 1, row = d; d >= 0; d--)
            to.stride[d] = d == row ? 1 : d == row - 1 ? x->shape[row] + 3 : to.stride[d + 1] * x->shape[d + 1];
        for (int j = 0; j < i; j++) /* in place stays in place */
            if (moved[j] && hm_arg_tensor(op, t->call->args, j)->data == before->data)
                to.data = hm_arg_tensor(op, args, j)->data;
        if (to.data == x->data) {
            size_t size = hm_dtype_size(x->dtype);
            moved[i] = calloc((size_t)(to.stride[0] * to.shape[0]) + 1, size);
            if (!moved[i]) ready = false;
            to.data = moved[i];
            int64_t rows = hm_row_count(x), n = x->shape[x->ndim - 1];
            for (int64_t row = 0; ready && row < rows && n > 0 && op->args[i].direction != HM_OUT; row++)
                gather_row(x, row, row_at(&to, row));
        }
        *x = to;
    }
    bool same = ready ? try_args(t, args, 0, "other strides") : differs(t, "other strides: no memory", NULL);
    for (int i = 0; i < op->nargs; i++) free(moved[i]);
    return same;
}

static bool save(trial *t) {
    const hm_op_info *op = t->call->op;
    for (int i = 0; i < op->nargs; i++) {
        if (!is_output(op, t->call->args, i)) continue;
        const hm_tensor *out = hm_arg_tensor(op, t->call->args, i);
        int64_t rows = hm_row_count(out);
        size_t bytes = (size_t)out->shape[out->ndim - 1] * hm_dtype_size(out->dtype);
        t->saved[i] = malloc((size_t)rows * bytes + 1);
        if (!t->saved[i]) return false;
        for (int64_t row = 0; row < rows && bytes; row++) gather_row(out, row, t->saved[i] + (size_t)row * bytes);
    }
    return true;
}

static bool rerun(const trial *t) {
    hm_run run = {0};
    t->impl->run(t->impl, t->call, t->call->args, &run);
    if (run.state != HM_RAN || run.status != HM_OK) return differs(t, "second run", &run);
    return same_outputs(t, t->call->args, 0) || differs(t, "second run", NULL);
}

static bool try_all(trial *t, void *args) {
    const hm_op_info *op = t->call->op;
    int64_t elements = 0; /* of one index of the first dimension, largest argument */
    for (int i = 0; i < op->nargs; i++) {
        const hm_tensor *x = hm_arg_tensor(op, t->call->args, i);
        int lead = leading(op, t->call->args, i);
        if (lead == 0) continue;
        t->first = x->shape[0];
        t->rows = 1;
        for (int d = 0; d < lead; d++) t->rows *= x->shape[d];
        int64_t each = t->first > 0 ? hm_tensor_elements(x) / t->first : 0;
        if (each > elements) elements = each;
    }
    if (elements > 0) {
        int64_t limit = MOST_ELEMENTS / elements > 0 ? MOST_ELEMENTS / elements : 1;
        int64_t some[] = {0, t->rows / 2, t->rows - 1}, most = t->first - 1 < limit ? t->first - 1 : limit,
                half = (most + 1) / 2;
        for (int k = 0; k < 3 && t->rows > 1; k++)
            if ((k == 0 || some[k] != some[k - 1]) && !try_row(t, args, some[k])) return false;
        if (most > 0 && !try_prefix(t, args, most)) return false;
        if (half > 0 && half < most && !try_prefix(t, args, half)) return false;
        if (!try_strided(t, args, t->first < limit ? t->first : limit)) return false;
    }
    if (t->call->from_case && t->call->spec.every_batch && !try_every_batch(t, args)) return false;
    return rerun(t);
}

bool hm_invariance(hm_impl *impl, hm_call *call, char *text, size_t size) {
    trial t = {.impl = impl, .call = call, .rows = 1, .first = 1, .text = text, .size = size};
    void *args = malloc(call->op->args_size);
    snprintf(text, size, "same");
    bool same = args && save(&t);
    if (!same) differs(&t, "no memory to compare runs", NULL);
    if (same) {
        hm_call_reset(call);
        same = try_all(&t, args);
    }
    for (int i = 0; i < call->op->nargs; i++) free(t.saved[i]);
    free(args);
    return same;
}
