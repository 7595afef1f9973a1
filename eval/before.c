/* before.c: what outputs hold before a call. */
#include "before.h"

#include <stdlib.h>
#include <string.h>

/* Is argument i an output, and no input as well? */
static bool only_output(const hm_op_info *op, const void *args, int i) {
    const hm_tensor *t = hm_arg_tensor(op, args, i);
    if (op->args[i].direction != HM_OUT || t->dtype == HM_DTYPE_NONE) return false;
    for (int k = 0; k < op->nargs; k++)
        if (op->args[k].direction != HM_OUT && hm_arg_tensor(op, args, k)->data == t->data) return false;
    return true;
}

void before_clear(const hm_op_info *op, const void *args) {
    for (int i = 0; i < op->nargs; i++) {
        const hm_tensor *t = hm_arg_tensor(op, args, i);
        size_t bytes = hm_dtype_size(t->dtype);
        int64_t at[4] = {0}, elements = 1;
        if (!only_output(op, args, i)) continue;
        for (int d = 0; d < t->ndim; d++) elements *= t->shape[d];
        for (; elements > 0; elements--) {
            int64_t offset = 0;
            for (int d = 0; d < t->ndim; d++) offset += at[d] * t->stride[d];
            memset((char *)t->data + offset * (int64_t)bytes, 0, bytes);
            for (int d = t->ndim - 1; d >= 0 && ++at[d] == t->shape[d]; d--) at[d] = 0;
        }
    }
}

/* Bytes from the first element of an output to behind its last. */
static size_t reach(const hm_tensor *t) {
    int64_t last = 0;
    for (int d = 0; d < t->ndim; d++) {
        if (t->shape[d] == 0) return 0;
        last += (t->shape[d] - 1) * t->stride[d];
    }
    return (size_t)(last + 1) * hm_dtype_size(t->dtype);
}

typedef struct {
    char *bytes;
    size_t size;
} kept;

bool before_stale(const hm_model_call *call, const void *args) {
    static kept before[HM_MODEL_OPS][HM_MAX_ARGS];
    kept now[HM_MAX_ARGS] = {{NULL, 0}};
    const hm_op_info *op = call->op;
    bool ok = true;
    for (int i = 0; i < op->nargs; i++)
        if (op->args[i].direction == HM_INOUT) return true;
    void *elsewhere = malloc(op->args_size); /* the same call, with its outputs in memory of their own */
    if (!elsewhere) return false;
    memcpy(elsewhere, args, op->args_size);
    for (int i = 0; i < op->nargs && ok; i++) {
        hm_tensor *t = hm_arg_tensor(op, elsewhere, i);
        if (op->args[i].direction != HM_OUT || t->dtype == HM_DTYPE_NONE) continue;
        now[i].size = reach(t);
        ok = (now[i].bytes = calloc(1, now[i].size + 1));
        t->data = now[i].bytes;
    }
    if (ok) op->ref(elsewhere);
    for (int i = 0; i < op->nargs; i++) {
        kept *old = &before[call->index][i];
        if (ok && only_output(op, args, i) && old->bytes)
            memcpy(hm_arg_tensor(op, args, i)->data, old->bytes, old->size < now[i].size ? old->size : now[i].size);
        free(old->bytes);
        *old = now[i];
    }
    free(elsewhere);
    return ok;
}
