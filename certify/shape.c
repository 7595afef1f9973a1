#include "shape.h"

#include <string.h>

static bool has_leading(const char *shape) { return !strncmp(shape, "...", 3); }

int hm_shape_fixed(const char *shape) {
    int n = 0;
    for (const char *s = shape; *s; s++) n += *s == ',';
    return n + 1 - has_leading(shape);
}

const char *hm_shape_symbol(const char *shape, int d, size_t *length) {
    if (has_leading(shape)) shape += strcspn(shape, ",") + 1;
    while (d--) shape += strcspn(shape, ",") + 1;
    *length = strcspn(shape, ",");
    return shape;
}

static int find(const hm_symbols *s, const char *name, size_t length) {
    int i = 0;
    while (i < s->count && (s->length[i] != length || strncmp(s->name[i], name, length))) i++;
    return i;
}

void hm_symbols_bind(hm_symbols *s, const char *shape, int ndim, const int64_t *extent) {
    int fixed = hm_shape_fixed(shape), lead = ndim - fixed;
    if (lead < 0 || (lead > 0 && !has_leading(shape))) return;
    if (has_leading(shape) && s->leading < 0 && lead <= 3) {
        s->leading = lead;
        memcpy(s->lead, extent, (size_t)lead * sizeof *extent);
    }
    for (int d = 0; d < fixed; d++) {
        size_t length;
        const char *name = hm_shape_symbol(shape, d, &length);
        if (memchr(name, '+', length) || find(s, name, length) < s->count || s->count == HM_MAX_SYMBOLS) continue;
        s->name[s->count] = name;
        s->length[s->count] = length;
        s->extent[s->count++] = extent[lead + d];
    }
}

int hm_symbols_shape(const hm_symbols *s, const char *shape, int64_t *to, const char **unknown, size_t *length) {
    int ndim = 0, fixed = hm_shape_fixed(shape);
    *unknown = "...", *length = 3;
    if (has_leading(shape)) {
        if (s->leading < 0 || s->leading + fixed > 4) return 0;
        memcpy(to, s->lead, (size_t)s->leading * sizeof *to);
        ndim = s->leading;
    }
    for (int d = 0; d < fixed; d++) {
        size_t rest;
        const char *at = hm_shape_symbol(shape, d, &rest);
        int64_t sum = 0;
        for (const char *end = at + rest; at < end; at += *length + 1) {
            const char *plus = memchr(at, '+', (size_t)(end - at));
            *unknown = at, *length = (size_t)((plus ? plus : end) - at);
            int i = find(s, at, *length);
            if (i == s->count || __builtin_add_overflow(sum, s->extent[i], &sum)) return 0;
        }
        to[ndim++] = sum;
    }
    return ndim;
}
