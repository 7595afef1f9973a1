#include "sample.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "../op/check.h"

int hm_starts_as(const hm_call *call, int arg) {
    const hm_arg_info *info = call->op->args;
    if (info[arg].direction == HM_INOUT) return arg;
    for (int j = 0; info[arg].in_place && j < call->op->nargs; j++)
        if (!strcmp(info[arg].in_place, info[j].name)) {
            bool same = hm_arg_tensor(call->op, call->args, arg)->data == hm_arg_tensor(call->op, call->args, j)->data;
            return same ? j : -1;
        }
    return -1;
}

/* Elements of one byte may well be as poison is; eight of them next to each other are not. */
static bool holds_poison(const hm_tensor *t, int64_t row) {
    int64_t size = (int64_t)hm_dtype_size(t->dtype), n = t->shape[t->ndim - 1], step = t->stride[t->ndim - 1] * size;
    int64_t wanted = size > 1 ? 1 : n < 8 ? n : 8, found = 0;
    const unsigned char *at = (const unsigned char *)t->data + hm_row_offset(t, row) * size;
    unsigned char poison[8];
    memset(poison, HM_POISON, sizeof poison);
    for (int64_t i = 0; i < n && found < wanted; i++, at += step)
        found = *at == HM_POISON && !memcmp(at, poison, (size_t)size) ? found + 1 : 0;
    return found >= wanted;
}

bool hm_sample_make(const hm_call *call, int arg, int64_t most, int threads, hm_sample *s) {
    const hm_tensor *t = hm_arg_tensor(call->op, call->args, arg);
    int64_t rows = hm_row_count(t), n = 0;
    *s = (hm_sample){.n = rows};
    if (most <= 0 || rows <= most || hm_starts_as(call, arg) >= 0) return true;
    unsigned char *taken = calloc((size_t)rows, 1);
    s->row = malloc((size_t)rows * sizeof *s->row);
    if (taken && s->row) {
        taken[0] = taken[rows - 1] = 1;
        for (int64_t k = 0, between = rows - 2; k < most - 2; k++) {
            int64_t from = 1 + (int64_t)((__int128)between * k / (most - 2)),
                    to = 1 + (int64_t)((__int128)between * (k + 1) / (most - 2)), key[] = {arg, k};
            uint64_t drawn = XXH3_64bits_withSeed(key, sizeof key, call->inputs_xxh3);
            taken[from + (int64_t)(drawn % (uint64_t)(to - from))] = 1;
        }
#pragma omp parallel for schedule(static) num_threads(threads)
        for (int64_t row = 0; row < rows; row++)
            if (!taken[row] && holds_poison(t, row)) taken[row] = 1;
        for (int64_t row = 0; row < rows; row++)
            if (taken[row]) s->row[n++] = row;
        s->n = n;
    }
    bool made = taken && s->row;
    free(taken);
    if (!made) hm_sample_free(s);
    return made;
}

void hm_sample_free(hm_sample *s) {
    free(s->row);
    s->row = NULL;
}
