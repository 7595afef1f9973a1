#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "shape.h"
#include "trace.h"

/* Outputs that the caller's args need before a call exists: addresses of their own, of the right size. */
typedef struct {
    void *memory[HM_MAX_ARGS];
} scratch;

static void scratch_free(scratch *s) {
    for (int i = 0; i < HM_MAX_ARGS; i++) free(s->memory[i]);
}

static bool listed(const char *list, const char *word) {
    size_t n = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += n)
        if ((at == list || at[-1] == ' ') && (at[n] == ' ' || !at[n])) return true;
    return false;
}

/* The dtype that the table gives first for argument i: its own, or that of the argument it refers to. */
static hm_dtype first_dtype(const hm_op_info *op, const void *args, int i) {
    char word[32];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(op->args[i].dtypes, " "), op->args[i].dtypes);
    if (*word != '=') return hm_dtype_named(word);
    for (int j = 0; j < op->nargs; j++)
        if (strcmp(op->args[j].name, word + 1) == 0) return hm_arg_tensor(op, args, j)->dtype;
    return HM_DTYPE_NONE;
}

/* Output i of args: contiguous, shaped as recorded or else as the inputs' shapes say; absent if they leave it open. */
static bool place_output(const hm_trace_call *c, void *args, int i, scratch *s) {
    const hm_op_info *op = c->op;
    hm_tensor like = c->out[i], *t = hm_arg_tensor(op, args, i);
    if (!c->recorded[i]) {
        hm_symbols symbols = {.leading = -1};
        const char *unknown;
        size_t length;
        for (int j = 0; j < op->nargs; j++) {
            const hm_tensor *in = hm_arg_tensor(op, args, j);
            if (op->args[j].direction != HM_OUT && in->dtype != HM_DTYPE_NONE)
                hm_symbols_bind(&symbols, op->args[j].shape, in->ndim, in->shape);
        }
        like.ndim = hm_symbols_shape(&symbols, op->args[i].shape, like.shape, &unknown, &length);
        like.dtype = like.ndim ? first_dtype(op, args, i) : HM_DTYPE_NONE;
    }
    if (like.dtype == HM_DTYPE_NONE) return true;
    *t = hm_tensor_of(NULL, like.dtype, like.ndim, like.shape);
    s->memory[i] = t->data = calloc((size_t)hm_tensor_elements(t) + 1, 8); /* 8: for any dtype that it may become */
    return t->data != NULL;
}

/* Is output i in a place of its own? May it be absent, and was it not recorded? */
static bool is_placed(const hm_trace_call *c, int i) {
    return c->op->args[i].direction == HM_OUT && c->in_place[i] < 0;
}
static bool is_left_out(const hm_trace_call *c, int i) { return c->op->args[i].optional && !c->recorded[i]; }

static bool same_shape(const hm_tensor *a, const hm_tensor *b) {
    bool same = a->ndim == b->ndim;
    for (int d = 0; same && d < a->ndim; d++) same = a->shape[d] == b->shape[d];
    return same;
}

/* Tries the other dtypes of the table for the outputs from argument i on, until the contract is content. */
static bool other_dtypes(const hm_trace_call *c, void *args, int i) {
    const hm_op_info *op = c->op;
    if (i == op->nargs) return op->check(args) == HM_OK;
    if (other_dtypes(c, args, i + 1)) return true;
    if (op->args[i].direction == HM_IN) return false;
    hm_tensor *t = hm_arg_tensor(op, args, i);
    hm_dtype recorded = t->dtype;
    for (int d = HM_F32; d <= HM_I64; d++) {
        bool same = op->args[i].dtypes[0] == '=' && (hm_dtype)d == first_dtype(op, args, i);
        t->dtype = (hm_dtype)d;
        if ((same || listed(op->args[i].dtypes, hm_dtype_name(t->dtype))) && other_dtypes(c, args, i + 1)) return true;
    }
    t->dtype = recorded;
    return false;
}

/* Optional outputs that were not recorded are left out, where the contract lets them be absent. */
static void leave_out(const hm_trace_call *c, void *args) {
    for (int i = 0; i < c->op->nargs; i++) {
        hm_tensor *t = hm_arg_tensor(c->op, args, i), kept = *t;
        if (c->recorded[i] || c->op->args[i].direction != HM_OUT || !c->op->args[i].optional) continue;
        *t = (hm_tensor){0};
        if (c->op->check(args) != HM_OK) *t = kept;
    }
}

hm_status hm_trace_call_open(const hm_trace_call *c, const char *name, hm_call **call, hm_dtype written[HM_MAX_ARGS],
                             char *why, size_t size) {
    const hm_op_info *op = c->op;
    scratch s = {{0}};
    void *args = malloc(op->args_size);
    bool enough = args != NULL;
    if (args) memcpy(args, c->args, op->args_size);
    for (int i = 0; i < op->nargs && enough; i++) {
        written[i] = HM_DTYPE_NONE;
        if (is_placed(c, i) && !is_left_out(c, i)) enough = place_output(c, args, i, &s);
    }
    /* An output that the caller may leave out, and did not record, was left out; unless the contract wants it here. */
    bool complete = enough && op->check(args) == HM_OK;
    for (int i = 0; i < op->nargs && enough && !complete; i++)
        if (is_placed(c, i) && is_left_out(c, i)) enough = place_output(c, args, i, &s);
    hm_status status = HM_NO_MEMORY;
    snprintf(why, size, "%s: memory could not be had", name);
    if (enough) leave_out(c, args);
    if (enough && (status = op->check(args)) != HM_OK) {
        snprintf(why, size, "%s: %s", name, hm_error());
        if (other_dtypes(c, args, 0)) status = HM_OK;
    }
    for (int i = 0; i < op->nargs && status == HM_OK; i++)
        if (c->recorded[i] && !same_shape(&c->out[i], hm_arg_tensor(op, args, i))) {
            snprintf(why, size, "%s: %s was written over %s, but recorded in another shape", name, op->args[i].name,
                     op->args[c->in_place[i]].name);
            status = HM_BAD_SHAPE;
        }
    if (status == HM_OK) {
        for (int i = 0; i < op->nargs; i++)
            if (c->recorded[i] && c->out[i].dtype != hm_arg_tensor(op, args, i)->dtype) written[i] = c->out[i].dtype;
        char reason[512] = "";
        if (call) status = hm_call_from_args(op, args, name, call, reason, sizeof reason);
        if (status != HM_OK) snprintf(why, size, "%s: %s", name, reason);
    }
    free(args);
    scratch_free(&s);
    return status;
}

static void copy(const hm_tensor *from, const hm_tensor *to) {
    int64_t rows = hm_row_count(to), n = to->shape[to->ndim - 1];
    int64_t source_width = (int64_t)hm_dtype_size(from->dtype), target_width = (int64_t)hm_dtype_size(to->dtype);
    int64_t source = from->stride[from->ndim - 1] * source_width, target = to->stride[to->ndim - 1] * target_width;
    for (int64_t row = 0; row < rows; row++) {
        const char *f = (const char *)from->data + hm_row_offset(from, row) * source_width;
        char *t = (char *)to->data + hm_row_offset(to, row) * target_width;
        for (int64_t k = 0; k < n; k++) {
            if (from->dtype == to->dtype) memcpy(t + k * target, f + k * source, (size_t)target_width);
            else hm_store(to->dtype, t + k * target, hm_load(from->dtype, f + k * source));
        }
    }
}

void hm_trace_call_fill(const hm_trace_call *c, hm_call *call) {
    for (int i = 0; i < c->op->nargs; i++) {
        const hm_tensor *t = hm_arg_tensor(c->op, call->args, i);
        bool same = c->out[i].dtype == t->dtype;
        if (!c->recorded[i] || hm_tensor_elements(t) == 0) continue;
        if (same || (hm_is_float(c->out[i].dtype) && hm_is_float(t->dtype))) copy(&c->out[i], t);
    }
}
