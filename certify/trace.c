#include "trace.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "safetensors.h"

/* The most that a tensor may have along one dimension and, since a view of a few bytes could ask for any amount of
 * memory, in all: as much as a call can hold. */
#define EXTENT_MAX ((int64_t)1 << 31)
#define BYTES_MAX ((int64_t)1 << 32)

struct hm_trace {
    hm_safetensors *file;
    json_t *list; /* hallmark.calls, parsed */
    hm_trace_call *calls;
    int count;
    bool *used; /* tensor i of the file belongs to some call */
};

typedef struct {
    hm_trace *trace;
    hm_trace_call *call;
    const json_t *views;
    json_t *ids; /* of the calls so far */
    char *why;
    size_t size;
} reading;

#define REFUSE(r, ...) \
    return hm_safetensors_refuse(hm_safetensors_name((r)->trace->file), (r)->why, (r)->size, __VA_ARGS__), false

static bool only_keys(reading *r, const json_t *object, const char *const *allowed, const char *what) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        bool found = false;
        for (int i = 0; allowed[i]; i++) found = found || strcmp(key, allowed[i]) == 0;
        if (!found) REFUSE(r, "%s has the unknown key '%.40s'", what, key);
    }
    return true;
}

static void *element(hm_safetensors_tensor *storage, int64_t offset, size_t width, const unsigned char **base) {
    *base = hm_safetensors_aligned(storage);
    return *base ? (void *)(*base + offset * (int64_t)width) : NULL;
}

static hm_safetensors_tensor *find(reading *r, const char *name) {
    hm_safetensors_tensor *t = hm_safetensors_find(r->trace->file, name);
    if (t) r->trace->used[t - hm_safetensors_at(r->trace->file, 0)] = true;
    return t;
}

/* A tensor as it lies in the file. */
static bool dense(reading *r, hm_safetensors_tensor *from, hm_tensor *t) {
    if (from->dtype == HM_DTYPE_NONE)
        REFUSE(r, "tensor '%.140s' has dtype %.20s, which no argument of an op can have", from->name, from->type);
    if (from->ndim < 1 || from->ndim > 4)
        REFUSE(r, "tensor '%.140s' has %d dimensions; an argument has 1 to 4", from->name, from->ndim);
    for (int d = 0; d < from->ndim; d++)
        if (from->shape[d] > EXTENT_MAX)
            REFUSE(r, "tensor '%.140s' has the extent %lld; the most is 2^31", from->name, (long long)from->shape[d]);
    const unsigned char *base;
    *t = hm_tensor_of(element(from, 0, 1, &base), from->dtype, from->ndim, from->shape);
    if (!base) REFUSE(r, "memory for tensor '%.140s' could not be had", from->name);
    return true;
}

static bool read_integers(reading *r, const json_t *list, const char *what, int64_t to[4], int *n) {
    if (!json_is_array(list) || json_array_size(list) < 1 || json_array_size(list) > 4)
        REFUSE(r, "%s is not a list of 1 to 4 integers", what);
    *n = (int)json_array_size(list);
    for (int d = 0; d < *n; d++) {
        const json_t *value = json_array_get(list, (size_t)d);
        if (!json_is_integer(value)) REFUSE(r, "%s is not a list of 1 to 4 integers", what);
        to[d] = json_integer_value(value);
    }
    return true;
}

/* Every element that the view reaches lies within its storage. where: "call c0: the view of x". */
static bool check_reach(reading *r, const hm_tensor *t, int64_t offset, int64_t available, const char *where) {
    int64_t elements = 1, low = offset, high = offset, width = (int64_t)hm_dtype_size(t->dtype);
    for (int d = 0; d < t->ndim; d++) {
        if (t->shape[d] < 0 || t->shape[d] > EXTENT_MAX)
            REFUSE(r, "%s has the extent %lld; it has to be 0 to 2^31", where, (long long)t->shape[d]);
        if (__builtin_mul_overflow(elements, t->shape[d], &elements) || elements > BYTES_MAX / width)
            REFUSE(r, "%s has more than 2^32 bytes of elements", where);
    }
    bool fits = offset >= 0 && offset <= available;
    for (int d = 0; d < t->ndim && elements > 0; d++) {
        int64_t reach;
        fits = fits && !__builtin_mul_overflow(t->shape[d] - 1, t->stride[d], &reach) &&
               !__builtin_add_overflow(reach < 0 ? low : high, reach, reach < 0 ? &low : &high);
    }
    if (!fits || (elements > 0 && (low < 0 || high >= available)))
        REFUSE(r, "%s reaches outside the %lld elements of its storage", where, (long long)available);
    return true;
}

/* views[field], if there is one: *t over its storage. found: whether there is one. */
static bool read_view(reading *r, const char *field, hm_tensor *t, bool *found) {
    static const char *const keys[] = {"storage", "dtype", "offset", "shape", "stride", NULL};
    const json_t *view = json_object_get(r->views, field);
    char where[160], what[200];
    *found = view != NULL;
    if (!view) return true;
    snprintf(where, sizeof where, "call %s: the view of %.40s", r->call->id, field);
    if (!json_is_object(view)) REFUSE(r, "%s is not an object", where);
    if (!only_keys(r, view, keys, where)) return false;
    const char *storage = json_string_value(json_object_get(view, "storage"));
    const char *type = json_string_value(json_object_get(view, "dtype"));
    const json_t *offset = json_object_get(view, "offset");
    if (!storage || !type || !json_is_integer(offset))
        REFUSE(r, "%s needs storage and dtype (strings) and offset (an integer)", where);
    hm_safetensors_tensor *from = find(r, storage);
    if (!from) REFUSE(r, "%s names the storage '%.80s', which the file lacks", where, storage);
    *t = (hm_tensor){.dtype = hm_safetensors_dtype(type)};
    if (t->dtype == HM_DTYPE_NONE) REFUSE(r, "%s has dtype '%.40s', which no argument of an op can have", where, type);
    int strides;
    snprintf(what, sizeof what, "the shape in %s", where);
    if (!read_integers(r, json_object_get(view, "shape"), what, t->shape, &t->ndim)) return false;
    snprintf(what, sizeof what, "the stride in %s", where);
    if (!read_integers(r, json_object_get(view, "stride"), what, t->stride, &strides)) return false;
    if (strides != t->ndim) REFUSE(r, "%s has %d extents but %d strides", where, t->ndim, strides);
    size_t width = hm_dtype_size(t->dtype);
    if (!check_reach(r, t, json_integer_value(offset), from->bytes / (int64_t)width, where)) return false;
    const unsigned char *base;
    t->data = element(from, json_integer_value(offset), width, &base);
    if (!base) REFUSE(r, "memory for tensor '%.140s' could not be had", from->name);
    return true;
}

/* The tensor called <call>/<field>, or the view of that field; absent if there is neither. */
static bool read_field(reading *r, const char *field, hm_tensor *t) {
    char name[160];
    bool viewed;
    *t = (hm_tensor){.dtype = HM_DTYPE_NONE};
    if (!read_view(r, field, t, &viewed)) return false;
    snprintf(name, sizeof name, "%s/%s", r->call->id, field);
    hm_safetensors_tensor *from = find(r, name);
    if (from && viewed) REFUSE(r, "call %s has both a tensor and a view for %s", r->call->id, field);
    return !from || dense(r, from, t);
}

static bool same_view(const hm_tensor *a, const hm_tensor *b) {
    bool same = a->data == b->data && a->dtype == b->dtype && a->ndim == b->ndim;
    for (int d = 0; same && d < a->ndim; d++) same = a->shape[d] == b->shape[d] && a->stride[d] == b->stride[d];
    return same;
}

/* Golden's tensors for an output: they belong to the call, and are no part of it. */
static void skip_golden(reading *r, const char *id, const char *output) {
    static const char *const kinds[] = {"ideal", "lo", "hi", "flags", "parts", "parts_at"};
    char name[160];
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        snprintf(name, sizeof name, "%.64s/%s.%s", id, kinds[k], output);
        find(r, name);
    }
}

/* hallmark.golden.calls: of calls that are not in hallmark.calls, because their inputs are not in the file, golden's
 * tensors may be. */
static void skip_golden_calls(reading *r) {
    const char *text = hm_safetensors_note(r->trace->file, "hallmark.golden.calls");
    json_t *list = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL, *entry;
    size_t k;
    json_array_foreach(list, k, entry) {
        const char *id = json_string_value(json_object_get(entry, "id")),
                   *name = json_string_value(json_object_get(entry, "op"));
        const hm_op_info *op = id && name ? hm_op_named(name) : NULL;
        for (int i = 0; op && i < op->nargs; i++)
            if (op->args[i].direction != HM_IN) skip_golden(r, id, op->args[i].name);
    }
    json_decref(list);
}

/* Output i: what was recorded, and where it lay. A view by its plain name says that it was written over an input. */
static bool read_output(reading *r, int i) {
    hm_trace_call *c = r->call;
    const hm_arg_info *arg = &c->op->args[i];
    char field[80];
    snprintf(field, sizeof field, "out.%s", arg->name);
    skip_golden(r, c->id, arg->name);
    if (!read_field(r, field, &c->out[i])) return false;
    c->recorded[i] = c->out[i].dtype != HM_DTYPE_NONE;
    if (arg->direction == HM_INOUT) return true;
    hm_tensor place;
    bool viewed;
    if (!read_view(r, arg->name, &place, &viewed)) return false;
    for (int j = 0; viewed && j < c->op->nargs; j++)
        if (c->op->args[j].direction == HM_IN && same_view(hm_arg_tensor(c->op, c->args, j), &place))
            c->in_place[i] = j;
    if (viewed && c->in_place[i] < 0)
        REFUSE(r, "call %s: the view of the output %s is no input's; what was recorded goes under %s", c->id, arg->name,
               field);
    *hm_arg_tensor(c->op, c->args, i) = viewed ? place : c->out[i];
    return true;
}

static bool read_param(reading *r, int i, const json_t *value) {
    const hm_op_info *op = r->call->op;
    const hm_param_info *p = &op->params[i];
    char *at = (char *)r->call->args + p->offset;
    r->call->stated[i] = value != NULL;
    if (!value) return true;
    if (p->type == HM_PARAM_F64) {
        if (!json_is_number(value)) REFUSE(r, "call %s: %s is not a number", r->call->id, p->name);
        double number = json_number_value(value);
        memcpy(at, &number, sizeof number);
    } else if (p->type == HM_PARAM_I64) {
        if (!json_is_integer(value)) REFUSE(r, "call %s: %s is not an integer", r->call->id, p->name);
        int64_t number = json_integer_value(value);
        memcpy(at, &number, sizeof number);
    } else {
        const char *text = json_string_value(value);
        if (!text) REFUSE(r, "call %s: the mode %s is not a string", r->call->id, p->name);
        int mode = 0;
        while (p->values[mode] && strcmp(p->values[mode], text)) mode++;
        if (!p->values[mode])
            REFUSE(r, "call %s: the mode %s has the unknown value '%.40s'", r->call->id, p->name, text);
        memcpy(at, &mode, sizeof mode);
    }
    return true;
}

static bool read_attrs(reading *r, const json_t *attrs) {
    const hm_op_info *op = r->call->op;
    const char *names[HM_MAX_PARAMS + 1] = {0};
    char where[100];
    if (!json_is_object(attrs)) REFUSE(r, "call %s has no attrs, or attrs that are not an object", r->call->id);
    for (int i = 0; i < op->nparams; i++) names[i] = op->params[i].name;
    snprintf(where, sizeof where, "attrs of call %s (%s)", r->call->id, op->name);
    if (!only_keys(r, attrs, names, where)) return false;
    for (int i = 0; i < op->nparams; i++)
        if (!read_param(r, i, json_object_get(attrs, names[i]))) return false;
    return true;
}

static bool read_views(reading *r, const json_t *views) {
    const hm_op_info *op = r->call->op;
    r->views = views;
    if (!views) return true;
    if (!json_is_object(views)) REFUSE(r, "views of call %s is not an object", r->call->id);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)views, key, value) {
        bool known = false;
        for (int i = 0; i < op->nargs; i++) {
            bool output = op->args[i].direction != HM_IN;
            known = known || strcmp(key, op->args[i].name) == 0 ||
                    (output && !strncmp(key, "out.", 4) && !strcmp(key + 4, op->args[i].name));
        }
        if (!known) REFUSE(r, "views of call %s (%s) has the unknown argument '%.40s'", r->call->id, op->name, key);
    }
    return true;
}

static bool good_id(const char *id) {
    size_t n = strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-");
    return n >= 1 && n <= 64 && !id[n];
}

static bool read_call(reading *r, const json_t *entry, int position) {
    static const char *const keys[] = {"id", "op", "attrs", "views", NULL};
    hm_trace_call *c = r->call;
    char where[40];
    snprintf(where, sizeof where, "entry %d of hallmark.calls", position);
    if (!json_is_object(entry)) REFUSE(r, "%s is not an object", where);
    if (!only_keys(r, entry, keys, where)) return false;
    const char *id = json_string_value(json_object_get(entry, "id")),
               *op = json_string_value(json_object_get(entry, "op"));
    if (!id || !good_id(id)) REFUSE(r, "the id of %s is not 1 to 64 characters of A-Z a-z 0-9 _ . -", where);
    strcpy(c->id, id);
    if (json_object_get(r->ids, id)) REFUSE(r, "two calls have the id '%s'", id);
    json_object_set_new(r->ids, id, json_true());
    if (!op || !hm_op_named(op)) REFUSE(r, "call %s has the unknown op '%.40s'", id, op ? op : "(no string)");
    c->op = hm_op_named(op);
    c->args = calloc(1, c->op->args_size);
    if (!c->args) REFUSE(r, "memory for call %s could not be had", id);
    memcpy(c->args, &c->op->args_size, sizeof c->op->args_size);
    for (int i = 0; i < HM_MAX_ARGS; i++) c->in_place[i] = -1;
    if (!read_attrs(r, json_object_get(entry, "attrs")) || !read_views(r, json_object_get(entry, "views")))
        return false;
    for (int i = 0; i < c->op->nargs; i++) {
        const hm_arg_info *arg = &c->op->args[i];
        hm_tensor *t = hm_arg_tensor(c->op, c->args, i);
        if (arg->direction == HM_OUT) continue;
        if (!read_field(r, arg->name, t)) return false;
        if (t->dtype == HM_DTYPE_NONE && !arg->optional)
            REFUSE(r, "call %s (%s) lacks its input %s/%s", id, op, id, arg->name);
    }
    for (int i = 0; i < c->op->nargs; i++)
        if (c->op->args[i].direction != HM_IN && !read_output(r, i)) return false;
    return true;
}

static bool read_calls(hm_trace *trace, json_t *ids, char *why, size_t size) {
    reading r = {.trace = trace, .ids = ids, .why = why, .size = size};
    const char *version = hm_safetensors_note(trace->file, "hallmark.trace"),
               *text = hm_safetensors_note(trace->file, "hallmark.calls");
    if (!version) REFUSE(&r, "not a Hallmark trace: its __metadata__ has no \"hallmark.trace\"");
    if (strcmp(version, "1")) REFUSE(&r, "a trace of version '%.20s'; this program reads version 1", version);
    if (!text) REFUSE(&r, "its __metadata__ has no \"hallmark.calls\"");
    json_error_t error;
    trace->list = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!trace->list) REFUSE(&r, "hallmark.calls is not valid JSON: %s at byte %d", error.text, error.position);
    if (!json_is_array(trace->list)) REFUSE(&r, "hallmark.calls is not a list");
    size_t most = json_array_size(trace->list), tensors = (size_t)hm_safetensors_count(trace->file);
    if (most > 1000000) REFUSE(&r, "hallmark.calls has %zu entries; the most is 1000000", most);
    trace->calls = calloc(most + 1, sizeof *trace->calls);
    trace->used = calloc(tensors + 1, sizeof *trace->used);
    if (!trace->calls || !trace->used) REFUSE(&r, "memory for %zu calls could not be had", most);
    for (size_t i = 0; i < most; i++) {
        r.call = &trace->calls[trace->count++];
        if (!read_call(&r, json_array_get(trace->list, i), (int)i)) return false;
    }
    skip_golden_calls(&r);
    /* A misspelt name must not turn into an absent weight. */
    for (size_t i = 0; i < tensors; i++)
        if (!trace->used[i])
            REFUSE(&r, "tensor '%.140s' belongs to no call", hm_safetensors_at(trace->file, (int64_t)i)->name);
    return true;
}

static hm_trace *open_file(hm_safetensors *file, char *why, size_t size) {
    if (!file) return NULL;
    hm_trace *trace = calloc(1, sizeof *trace);
    if (!trace) {
        hm_safetensors_refuse(hm_safetensors_name(file), why, size, "memory could not be had");
        hm_safetensors_close(file);
        return NULL;
    }
    trace->file = file;
    json_t *ids = json_object();
    bool good = read_calls(trace, ids, why, size);
    json_decref(ids);
    if (good) return trace;
    hm_trace_close(trace);
    return NULL;
}

hm_trace *hm_trace_open(const char *path, char *why, size_t size) {
    return open_file(hm_safetensors_open(path, why, size), why, size);
}

hm_trace *hm_trace_open_bytes(const void *data, size_t bytes, const char *name, char *why, size_t size) {
    return open_file(hm_safetensors_open_bytes(data, bytes, name, why, size), why, size);
}

void hm_trace_close(hm_trace *trace) {
    if (!trace) return;
    for (int i = 0; i < trace->count; i++) free(trace->calls[i].args);
    free(trace->calls);
    free(trace->used);
    json_decref(trace->list);
    hm_safetensors_close(trace->file);
    free(trace);
}

int hm_trace_count(const hm_trace *trace) { return trace->count; }
hm_trace_call *hm_trace_at(hm_trace *trace, int i) { return i >= 0 && i < trace->count ? &trace->calls[i] : NULL; }
const char *hm_trace_note(const hm_trace *trace, const char *key) { return hm_safetensors_note(trace->file, key); }
