#include "safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct hm_safetensors {
    char *name;
    const unsigned char *bytes;
    size_t size;
    void *map; /* NULL if the bytes are the caller's */
    json_t *header;
    hm_safetensors_tensor *tensors; /* ascending by name */
    int64_t count;
};

/* Every dtype of the format whose elements are whole bytes. */
static const struct {
    const char *name;
    int size;
    hm_dtype dtype;
} types[] = {
    {"F32", 4, HM_F32},
    {"F16", 2, HM_F16},
    {"BF16", 2, HM_BF16},
    {"F8_E4M3", 1, HM_F8E4M3},
    {"F8_E4M3FNUZ", 1, HM_F8E4M3FNUZ},
    {"F8_E5M2", 1, HM_F8E5M2},
    {"F8_E8M0", 1, HM_E8M0},
    {"U8", 1, HM_U8},
    {"I32", 4, HM_I32},
    {"I64", 8, HM_I64},
    {"BOOL", 1, 0},
    {"I8", 1, 0},
    {"I16", 2, 0},
    {"U16", 2, 0},
    {"U32", 4, 0},
    {"U64", 8, 0},
    {"F64", 8, 0},
    {"F8_E5M2FNUZ", 1, 0},
    {"C64", 8, 0},
};
enum { TYPES = sizeof types / sizeof *types };

hm_dtype hm_safetensors_dtype(const char *type) {
    for (int i = 0; i < TYPES; i++)
        if (strcmp(types[i].name, type) == 0) return types[i].dtype;
    return HM_DTYPE_NONE;
}

const char *hm_safetensors_type(hm_dtype dtype) {
    for (int i = 0; i < TYPES; i++)
        if (types[i].dtype == dtype) return types[i].name;
    return "?";
}

void hm_safetensors_refuse(const char *file, char *why, size_t size, const char *format, ...) {
    int at = snprintf(why, size, "%s: ", file);
    va_list list;
    va_start(list, format);
    if (at >= 0 && (size_t)at < size) vsnprintf(why + at, size - (size_t)at, format, list);
    va_end(list);
    for (char *c = why; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f) *c = '?';
}
#define REFUSE(...) return hm_safetensors_refuse(f->name, why, size, __VA_ARGS__), false

static bool read_shape(hm_safetensors *f, hm_safetensors_tensor *t, const json_t *shape, int64_t *elements, char *why,
                       size_t size) {
    if (!json_is_array(shape)) REFUSE("tensor '%.80s' has no shape, or one that is not a list", t->name);
    t->ndim = (int)json_array_size(shape);
    *elements = 1;
    for (int d = 0; d < t->ndim; d++) {
        const json_t *extent = json_array_get(shape, (size_t)d);
        if (!json_is_integer(extent) || json_integer_value(extent) < 0)
            REFUSE("extent %d of tensor '%.80s' is not an integer of 0 or more", d, t->name);
        int64_t n = json_integer_value(extent);
        if (d < 4) t->shape[d] = n;
        if (__builtin_mul_overflow(*elements, n, elements))
            REFUSE("tensor '%.80s' has more than 2^63 elements", t->name);
    }
    return true;
}

/* One entry of the header. begin: where its data begins, relative to the start of all data. */
static bool read_tensor(hm_safetensors *f, hm_safetensors_tensor *t, const json_t *entry, int64_t data_size,
                        int64_t *begin, char *why, size_t size) {
    if (!json_is_object(entry)) REFUSE("the header's entry '%.80s' is not an object", t->name);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)entry, key,
                        value) if (strcmp(key, "dtype") && strcmp(key, "shape") && strcmp(key, "data_offsets"))
        REFUSE("tensor '%.80s' has the unknown key '%.40s'", t->name, key);
    t->type = json_string_value(json_object_get(entry, "dtype"));
    if (!t->type) REFUSE("tensor '%.80s' has no dtype, or one that is not a string", t->name);
    int width = 0;
    for (int i = 0; i < TYPES; i++)
        if (strcmp(types[i].name, t->type) == 0) width = types[i].size;
    if (!width) REFUSE("tensor '%.80s' has the unknown dtype '%.40s'", t->name, t->type);
    t->dtype = hm_safetensors_dtype(t->type);

    int64_t elements, end;
    if (!read_shape(f, t, json_object_get(entry, "shape"), &elements, why, size)) return false;
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *b = json_array_get(offsets, 0), *e = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(b) || !json_is_integer(e))
        REFUSE("the data_offsets of tensor '%.80s' are not two integers", t->name);
    *begin = json_integer_value(b), end = json_integer_value(e);
    if (*begin < 0 || end < *begin || end > data_size)
        REFUSE("the data_offsets of tensor '%.80s' are [%lld, %lld], outside the %lld bytes of data that the file has",
               t->name, (long long)*begin, (long long)end, (long long)data_size);
    if (__builtin_mul_overflow(elements, width, &t->bytes) || t->bytes != end - *begin)
        REFUSE("tensor '%.80s' has %lld elements of %s, but its data_offsets span %lld bytes", t->name,
               (long long)elements, t->type, (long long)(end - *begin));
    return true;
}

typedef struct {
    int64_t begin, end;
    const char *name;
} extent;

static int by_begin(const void *a, const void *b) {
    const extent *x = a, *y = b;
    return x->begin != y->begin ? (x->begin > y->begin) - (x->begin < y->begin) : (x->end > y->end) - (x->end < y->end);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const hm_safetensors_tensor *)a)->name, ((const hm_safetensors_tensor *)b)->name);
}

static bool check_cover(hm_safetensors *f, extent *extents, int64_t data_size, char *why, size_t size) {
    qsort(extents, (size_t)f->count, sizeof *extents, by_begin);
    int64_t at = 0;
    for (int64_t i = 0; i < f->count; i++) {
        if (extents[i].begin < at)
            REFUSE("tensor '%.80s' begins at byte %lld of the data, inside the tensor '%.80s' before it",
                   extents[i].name, (long long)extents[i].begin, extents[i - 1].name);
        if (extents[i].begin > at)
            REFUSE("bytes %lld to %lld of the data belong to no tensor", (long long)at, (long long)extents[i].begin);
        at = extents[i].end;
    }
    if (at != data_size) REFUSE("the last %lld bytes of the data belong to no tensor", (long long)(data_size - at));
    return true;
}

static bool read_entries(hm_safetensors *f, const unsigned char *data, int64_t data_size, char *why, size_t size) {
    size_t most = json_object_size(f->header);
    f->tensors = calloc(most + 1, sizeof *f->tensors);
    extent *extents = calloc(most + 1, sizeof *extents);
    bool good = f->tensors && extents;
    if (!good) hm_safetensors_refuse(f->name, why, size, "memory for %zu tensors could not be had", most);
    const char *key;
    json_t *value;
    json_object_foreach(f->header, key, value) {
        if (!good) break;
        if (strcmp(key, "__metadata__") == 0) continue;
        hm_safetensors_tensor *t = &f->tensors[f->count];
        extent *e = &extents[f->count];
        t->name = e->name = key;
        good = read_tensor(f, t, value, data_size, &e->begin, why, size);
        e->end = e->begin + t->bytes;
        t->data = data + e->begin;
        f->count += good;
    }
    good = good && check_cover(f, extents, data_size, why, size);
    free(extents);
    if (good) qsort(f->tensors, (size_t)f->count, sizeof *f->tensors, by_name);
    return good;
}

static bool read_all(hm_safetensors *f, char *why, size_t size) {
    if (f->size < 8) REFUSE("%zu bytes are too few for a safetensors file", f->size);
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--) length = length << 8 | f->bytes[i];
    if (length > HM_SAFETENSORS_HEADER_MAX)
        REFUSE("not a safetensors file: its header would have %llu bytes, and the format allows %d",
               (unsigned long long)length, HM_SAFETENSORS_HEADER_MAX);
    if (length > f->size - 8)
        REFUSE("truncated: the header has %llu bytes, but only %zu follow", (unsigned long long)length, f->size - 8);
    if (length == 0 || f->bytes[8] != '{') REFUSE("not a safetensors file: its header does not begin with '{'");
    json_error_t error;
    f->header = json_loadb((const char *)f->bytes + 8, (size_t)length, JSON_REJECT_DUPLICATES, &error);
    if (!f->header) REFUSE("the header is not valid JSON: %s at byte %d", error.text, error.position);
    const json_t *metadata = json_object_get(f->header, "__metadata__");
    if (metadata && !json_is_object(metadata)) REFUSE("__metadata__ is not an object");
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)metadata, key, value) if (!json_is_string(value))
        REFUSE("the __metadata__ entry '%.80s' is not a string", key);
    return read_entries(f, f->bytes + 8 + length, (int64_t)(f->size - 8 - length), why, size);
}

hm_safetensors *hm_safetensors_open_bytes(const void *data, size_t bytes, const char *name, char *why, size_t size) {
    hm_safetensors *f = calloc(1, sizeof *f);
    if (f) f->name = strdup(name);
    if (!f || !f->name) {
        hm_safetensors_refuse(name, why, size, "memory could not be had");
        free(f);
        return NULL;
    }
    f->bytes = data, f->size = bytes;
    if (read_all(f, why, size)) return f;
    hm_safetensors_close(f);
    return NULL;
}

hm_safetensors *hm_safetensors_open(const char *path, char *why, size_t size) {
    struct stat st;
    void *map = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* non-blocking: a FIFO must not hang */
    if (fd < 0 || fstat(fd, &st) < 0) {
        hm_safetensors_refuse(path, why, size, "%s", strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        hm_safetensors_refuse(path, why, size, "%s", S_ISDIR(st.st_mode) ? "is a directory" : "is not a regular file");
    } else if (st.st_size == 0) {
        hm_safetensors_refuse(path, why, size, "the file is empty");
    } else {
        map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED) hm_safetensors_refuse(path, why, size, "%s", strerror(errno)), map = NULL;
    }
    if (fd >= 0) close(fd);
    if (!map) return NULL;
    hm_safetensors *f = hm_safetensors_open_bytes(map, (size_t)st.st_size, path, why, size);
    if (f) f->map = map;
    else munmap(map, (size_t)st.st_size);
    return f;
}

void hm_safetensors_close(hm_safetensors *f) {
    if (!f) return;
    for (int64_t i = 0; i < f->count; i++) free(f->tensors[i].copy);
    free(f->tensors);
    json_decref(f->header);
    if (f->map) munmap(f->map, f->size);
    free(f->name);
    free(f);
}

const char *hm_safetensors_name(const hm_safetensors *f) { return f->name; }
int64_t hm_safetensors_count(const hm_safetensors *f) { return f->count; }
hm_safetensors_tensor *hm_safetensors_at(hm_safetensors *f, int64_t i) {
    return i >= 0 && i < f->count ? &f->tensors[i] : NULL;
}

hm_safetensors_tensor *hm_safetensors_find(hm_safetensors *f, const char *name) {
    hm_safetensors_tensor key = {.name = name};
    return f->count ? bsearch(&key, f->tensors, (size_t)f->count, sizeof key, by_name) : NULL;
}

const char *hm_safetensors_note(const hm_safetensors *f, const char *key) {
    return json_string_value(json_object_get(json_object_get(f->header, "__metadata__"), key));
}

const unsigned char *hm_safetensors_aligned(hm_safetensors_tensor *t) {
    if ((uintptr_t)t->data % 8 == 0) return t->data;
    if (!t->copy) {
        t->copy = malloc(t->bytes ? (size_t)t->bytes : 1);
        if (t->copy) memcpy(t->copy, t->data, (size_t)t->bytes);
    }
    return t->copy;
}
