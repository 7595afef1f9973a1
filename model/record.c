/* record.c: the calls of a run as a trace. Bytes are kept as they lay in memory, each stretch once: what an op wrote is
 * what the next one read, and weights are read again and again. Arguments of a call overlap in the trace where they
 * overlapped in memory, and nowhere else. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../certify/safetensors.h"
#include "../certify/trace.h"
#include "model.h"

/* An argument at one time: before its call, or after it. */
typedef struct {
    int call;            /* number of its call in the recorder */
    char field[64];      /* "x", "out.x" */
    hm_tensor tensor;    /* as it lay in memory; strides are not negative */
    const char *low;     /* its lowest address */
    size_t bytes;        /* from there to the end of its last element */
    unsigned char *copy; /* of those */
    int64_t storage, at; /* in which argument's copy its elements are, from which byte on; itself: storage */
    bool whole;          /* contiguous */
} kept;

struct hm_model_recorder {
    bool (*want)(void *with, const hm_model_call *call);
    void *with;
    json_t *calls;
    kept *each;
    int64_t count, room;
    bool failed; /* memory ran out */
};

hm_model_recorder *hm_model_recorder_new(bool (*want)(void *with, const hm_model_call *call), void *with) {
    hm_model_recorder *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    *r = (hm_model_recorder){.want = want, .with = with, .calls = json_array()};
    return r;
}

/* ---- while the model runs ---------------------------------------------------------------------------------------- */

static void keep(hm_model_recorder *r, const char *prefix, const char *name, const hm_tensor *t) {
    int64_t width = (int64_t)hm_dtype_size(t->dtype), elements = 1, dense = 1;
    kept k = {.call = (int)json_array_size(r->calls) - 1, .tensor = *t, .low = t->data, .whole = true};
    for (int d = t->ndim - 1; d >= 0; d--) {
        elements += (t->shape[d] - 1) * t->stride[d];
        k.whole = k.whole && (t->shape[d] == 1 || t->stride[d] == dense);
        dense *= t->shape[d];
    }
    snprintf(k.field, sizeof k.field, "%s%s", prefix, name);
    if (k.whole) k.tensor = hm_tensor_of(t->data, t->dtype, t->ndim, t->shape); /* strides of extents of 1, too */
    k.bytes = (size_t)(elements * width);
    if (r->count == r->room) {
        int64_t room = 2 * r->room + 16;
        kept *each = realloc(r->each, (size_t)room * sizeof *each);
        if (!each) {
            r->failed = true;
            return;
        }
        r->each = each, r->room = room;
    }
    if (!(k.copy = malloc(k.bytes))) r->failed = true;
    else r->each[r->count++] = k, memcpy(k.copy, k.low, k.bytes);
}

static json_t *attrs_of(const hm_op_info *op, const void *args) {
    json_t *attrs = json_object();
    for (int i = 0; i < op->nparams; i++) {
        const hm_param_info *p = &op->params[i];
        const char *at = (const char *)args + p->offset;
        double number;
        int64_t integer;
        int mode;
        json_t *value = NULL;
        if (p->type == HM_PARAM_F64) value = json_real((memcpy(&number, at, sizeof number), number));
        else if (p->type == HM_PARAM_I64) value = json_integer((memcpy(&integer, at, sizeof integer), integer));
        else value = json_string(p->values[(memcpy(&mode, at, sizeof mode), mode)]);
        json_object_set_new(attrs, p->name, value);
    }
    return attrs;
}

static bool present(const hm_tensor *t) { return t->dtype != HM_DTYPE_NONE && hm_tensor_elements(t) > 0; }

static void before(void *with, const hm_model_call *call, const void *args) {
    hm_model_recorder *r = with;
    char id[64];
    if (r->want && !r->want(r->with, call)) return;
    hm_model_call_name(call, id, sizeof id);
    json_t *entry =
        json_pack("{s:s, s:s, s:o, s:{}}", "id", id, "op", call->op->name, "attrs", attrs_of(call->op, args), "views");
    if (json_array_append_new(r->calls, entry)) r->failed = true;
    for (int i = 0; i < call->op->nargs; i++) {
        const hm_tensor *t = hm_arg_tensor(call->op, args, i);
        if (call->op->args[i].direction != HM_OUT && present(t)) keep(r, "", call->op->args[i].name, t);
    }
}

static void after(void *with, const hm_model_call *call, const void *args, hm_status status) {
    hm_model_recorder *r = with;
    if (status || (r->want && !r->want(r->with, call))) return;
    for (int i = 0; i < call->op->nargs; i++) {
        const hm_tensor *t = hm_arg_tensor(call->op, args, i);
        if (call->op->args[i].direction != HM_IN && present(t)) keep(r, "out.", call->op->args[i].name, t);
    }
}

hm_model_observer hm_model_recorder_observer(hm_model_recorder *recorder) {
    return (hm_model_observer){.before = before, .after = after, .with = recorder};
}

/* ---- which bytes are there already ------------------------------------------------------------------------------- */

/* Does b's copy hold the elements of a, where a lay? */
static bool holds(const kept *b, const kept *a) {
    if (a->low < b->low || a->low + a->bytes > b->low + b->bytes) return false;
    const unsigned char *in_b = b->copy + (a->low - b->low);
    if (a->whole) return !memcmp(a->copy, in_b, a->bytes);
    const hm_tensor *t = &a->tensor;
    int64_t width = (int64_t)hm_dtype_size(t->dtype), rows = hm_tensor_elements(t) / t->shape[t->ndim - 1];
    for (int64_t row = 0; row < rows; row++) {
        int64_t rest = row, at = 0, last = t->ndim - 1;
        for (int64_t d = last - 1; d >= 0; rest /= t->shape[d--]) at += rest % t->shape[d] * t->stride[d] * width;
        for (int64_t i = 0; i < t->shape[last]; i++, at += t->stride[last] * width)
            if (memcmp(a->copy + at, in_b + at, (size_t)width)) return false;
    }
    return true;
}

static int larger_first(const void *a, const void *b) {
    const kept *const *x = a, *const *y = b;
    if ((*x)->bytes != (*y)->bytes) return (*x)->bytes > (*y)->bytes ? -1 : 1;
    return *x < *y ? -1 : *x > *y; /* then in order of time */
}

/* Gives every argument its storage: the first of those before it in that order that holds it, or itself. */
static void share(hm_model_recorder *r) {
    kept **order = malloc((size_t)(r->count + 1) * sizeof *order);
    if (!order) {
        r->failed = true;
        return;
    }
    for (int64_t i = 0; i < r->count; i++) order[i] = &r->each[i];
    qsort(order, (size_t)r->count, sizeof(kept *), larger_first);
    for (int64_t i = 0; i < r->count; i++) {
        order[i]->storage = order[i] - r->each;
        for (int64_t j = 0; j < i; j++)
            if (order[j]->storage == order[j] - r->each && holds(order[j], order[i])) {
                order[i]->storage = order[j]->storage;
                break;
            }
        order[i]->at = order[i]->low - r->each[order[i]->storage].low;
    }
    free(order);
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static json_t *call_at(const hm_model_recorder *r, int call) { return json_array_get(r->calls, (size_t)call); }

/* "<call>/<field>", or for what is not contiguous "<call>/storage.<field>". */
static void storage_name(const hm_model_recorder *r, const kept *k, char *name, size_t size) {
    snprintf(name, size, "%s/%s%s", json_string_value(json_object_get(call_at(r, k->call), "id")),
             k->whole ? "" : "storage.", k->field);
}

static json_t *view_of(const hm_model_recorder *r, const kept *k) {
    char name[160];
    json_t *shape = json_array(), *stride = json_array();
    storage_name(r, &r->each[k->storage], name, sizeof name);
    for (int d = 0; d < k->tensor.ndim; d++) {
        json_array_append_new(shape, json_integer(k->tensor.shape[d]));
        json_array_append_new(stride, json_integer(k->tensor.stride[d]));
    }
    return json_pack("{s:s, s:s, s:I, s:o, s:o}", "storage", name, "dtype", hm_safetensors_type(k->tensor.dtype),
                     "offset", (json_int_t)(k->at / (int64_t)hm_dtype_size(k->tensor.dtype)), "shape", shape, "stride",
                     stride);
}

static bool same_place(const hm_tensor *a, const hm_tensor *b) {
    bool same = a->data == b->data && a->dtype == b->dtype && a->ndim == b->ndim;
    for (int d = 0; same && d < a->ndim; d++) same = a->shape[d] == b->shape[d] && a->stride[d] == b->stride[d];
    return same;
}

/* Output k of its call lay over an input: a view of that input under the output's plain name says so. */
static void note_in_place(hm_model_recorder *r, const kept *k) {
    const hm_op_info *op = hm_op_named(json_string_value(json_object_get(call_at(r, k->call), "op")));
    for (int i = 0; i < op->nargs; i++)
        if (!strcmp(op->args[i].name, k->field + 4) && op->args[i].direction == HM_INOUT) return;
    for (const kept *in = k - 1; in >= r->each && in->call == k->call; in--)
        if (strncmp(in->field, "out.", 4) && same_place(&in->tensor, &k->tensor))
            json_object_set_new(json_object_get(call_at(r, k->call), "views"), k->field + 4, view_of(r, in));
}

static void write_argument(hm_model_recorder *r, hm_trace_writer *w, const kept *k) {
    char name[160];
    bool own = k->storage == k - r->each;
    storage_name(r, k, name, sizeof name);
    int64_t elements = (int64_t)(k->bytes / hm_dtype_size(k->tensor.dtype));
    if (own && k->whole) hm_trace_writer_tensor(w, name, k->tensor.dtype, k->tensor.ndim, k->tensor.shape, k->copy);
    else if (own) hm_trace_writer_tensor(w, name, k->tensor.dtype, 1, &elements, k->copy);
    if (!own || !k->whole) json_object_set_new(json_object_get(call_at(r, k->call), "views"), k->field, view_of(r, k));
    if (!strncmp(k->field, "out.", 4)) note_in_place(r, k);
}

static void drop(hm_model_recorder *r) {
    for (int64_t i = 0; i < r->count; i++) free(r->each[i].copy);
    free(r->each);
    json_decref(r->calls);
    free(r);
}

hm_status hm_model_recorder_save(hm_model_recorder *r, const char *path, char *why, size_t size) {
    if (!path) {
        drop(r);
        return HM_OK;
    }
    hm_trace_writer *w = hm_trace_writer_new();
    char *text = NULL;
    hm_status status = HM_NO_MEMORY;
    share(r);
    for (int64_t i = 0; w && i < r->count; i++) write_argument(r, w, &r->each[i]);
    if (w && !r->failed) text = json_dumps(r->calls, JSON_COMPACT | JSON_REAL_PRECISION(17));
    if (text) {
        hm_trace_writer_note(w, "hallmark.trace", "1");
        hm_trace_writer_note(w, "hallmark.calls", text);
        status = hm_trace_writer_save(w, path, why, size);
    } else {
        snprintf(why, size, "no memory for the trace %s", path);
        free(w ? hm_trace_writer_bytes(w, &(size_t){0}) : NULL); /* frees w */
    }
    free(text);
    drop(r);
    return status;
}
