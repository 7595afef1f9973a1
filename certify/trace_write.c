#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"
#include "safetensors.h"
#include "trace.h"

typedef struct {
    char *name;
    hm_tensor tensor; /* data owned */
    size_t bytes;
} written;

struct hm_trace_writer {
    json_t *metadata;
    written *tensors;
    int64_t count, capacity;
    bool failed; /* memory ran out: save says so */
};

hm_trace_writer *hm_trace_writer_new(void) {
    hm_trace_writer *w = calloc(1, sizeof *w);
    if (w && !(w->metadata = json_object())) free(w), w = NULL;
    return w;
}

void hm_trace_writer_note(hm_trace_writer *w, const char *key, const char *value) {
    if (json_object_set_new(w->metadata, key, json_string(value))) w->failed = true;
}

void hm_trace_writer_tensor(hm_trace_writer *w, const char *name, hm_dtype dtype, int ndim, const int64_t *shape,
                            const void *data) {
    if (w->count == w->capacity) {
        int64_t capacity = w->capacity ? 2 * w->capacity : 16;
        written *more = realloc(w->tensors, (size_t)capacity * sizeof *more);
        if (!more) {
            w->failed = true;
            return;
        }
        w->tensors = more, w->capacity = capacity;
    }
    written *t = &w->tensors[w->count++];
    *t = (written){.name = strdup(name), .tensor = hm_tensor_of(NULL, dtype, ndim, shape)};
    t->bytes = (size_t)hm_tensor_elements(&t->tensor) * hm_dtype_size(dtype);
    t->tensor.data = malloc(t->bytes ? t->bytes : 1);
    if (!t->name || !t->tensor.data) w->failed = true;
    else if (t->bytes) memcpy(t->tensor.data, data, t->bytes);
}

static void writer_free(hm_trace_writer *w) {
    for (int64_t i = 0; i < w->count; i++) free(w->tensors[i].name), free(w->tensors[i].tensor.data);
    free(w->tensors);
    json_decref(w->metadata);
    free(w);
}

/* The header, padded with spaces so that the data begins at a multiple of 8; each tensor is followed by those of its
 * width or less, so all of them are aligned. NULL if memory is short. */
static char *header(hm_trace_writer *w, const written **order) {
    json_t *all = json_object();
    int64_t n = 0, at = 0;
    if (json_object_size(w->metadata)) json_object_set(all, "__metadata__", w->metadata);
    for (size_t width = 8; width > 0; width /= 2)
        for (int64_t i = 0; i < w->count; i++) {
            const written *t = &w->tensors[i];
            if (hm_dtype_size(t->tensor.dtype) != width) continue;
            json_t *shape = json_array();
            for (int d = 0; d < t->tensor.ndim; d++) json_array_append_new(shape, json_integer(t->tensor.shape[d]));
            json_object_set_new(
                all, t->name,
                json_pack("{s:s, s:o, s:[I, I]}", "dtype", hm_safetensors_type(t->tensor.dtype), "shape", shape,
                          "data_offsets", (json_int_t)at, (json_int_t)(at + (int64_t)t->bytes)));
            at += (int64_t)t->bytes;
            order[n++] = t;
        }
    size_t missing = json_object_size(all) - (json_object_size(w->metadata) > 0) - (size_t)w->count;
    char *text = missing ? NULL : json_dumps(all, JSON_COMPACT | JSON_PRESERVE_ORDER);
    json_decref(all);
    size_t length = text ? strlen(text) : 0, padded = (length + 7) / 8 * 8;
    char *more = text ? realloc(text, padded + 1) : NULL;
    if (!more) return free(text), NULL;
    memset(more + length, ' ', padded - length);
    more[padded] = 0;
    return more;
}

void *hm_trace_writer_bytes(hm_trace_writer *w, size_t *bytes) {
    const written **order = calloc((size_t)w->count + 1, sizeof *order);
    char *head = order && !w->failed ? header(w, order) : NULL, *file = NULL;
    size_t length = head ? strlen(head) : 0;
    *bytes = 8 + length;
    for (int64_t i = 0; i < w->count; i++) *bytes += w->tensors[i].bytes;
    if (head) file = malloc(*bytes);
    if (file) {
        for (int i = 0; i < 8; i++) file[i] = (char)(length >> 8 * i);
        char *at = (char *)memcpy(file + 8, head, length) + length;
        for (int64_t i = 0; i < w->count; i++) {
            memcpy(at, order[i]->tensor.data, order[i]->bytes);
            at += order[i]->bytes;
        }
    }
    free(head);
    free(order);
    writer_free(w);
    return file;
}

hm_status hm_trace_writer_save(hm_trace_writer *w, const char *path, char *why, size_t size) {
    size_t bytes;
    void *file = hm_trace_writer_bytes(w, &bytes);
    hm_status status = HM_NO_MEMORY;
    if (file) status = hm_write_file(path, file, bytes, why, size);
    else hm_safetensors_refuse(path, why, size, "memory for the %zu bytes of the file could not be had", bytes);
    free(file);
    return status;
}
