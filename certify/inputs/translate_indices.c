/* Indices of every kind: none, in the first and the last block, at both ends of blocks, past the table; entries of
 * block_table that no index asks for hold poison. */
#include <hallmark/translate_indices.h>
#include <stdlib.h>
#include <string.h>

#include "../inputs.h"

static int64_t index_drawn(const hm_case_spec *spec, const hm_translate_indices_args *a, int64_t i) {
    bool paged = a->block_table.dtype != HM_DTYPE_NONE;
    int64_t P = a->block_size > 0 ? a->block_size : 64, room = paged ? P * a->block_table.shape[1] : 5000;
    uint64_t r = hm_inputs_drawn(spec, "indices", (uint64_t)i);
    const int64_t known[] = {
        0, -1, P - 1, P, room - 1, room - P, -1, 1, paged ? room : 7, paged ? room + P + 3 : 2 * P, INT32_MIN};
    int64_t t = r % 2 || hm_inputs_generator(spec, "index") ? (int64_t)(r / 2 % (uint64_t)(room > 0 ? room : 1))
                                                            : known[r / 2 % 11];
    return t >= INT32_MIN && (paged ? t : t < INT32_MAX / 2) ? t : -1;
}

static bool fill(const hm_case_spec *spec, int arg, const void *args) {
    const hm_translate_indices_args *a = args;
    const char *name = spec->op->args[arg].name;
    const hm_tensor *t = hm_arg_tensor(spec->op, args, arg);
    bool paged = a->block_table.dtype == HM_I32 && a->block_table.ndim == 2,
         bad = hm_inputs_generator(spec, "out_of_range");
    uint64_t kind = spec->seed % 3;
    int64_t requests = paged                           ? a->block_table.shape[0]
                       : a->workspace_starts.ndim == 1 ? a->workspace_starts.shape[0]
                                                       : 0,
            n = hm_tensor_elements(t);
    for (int64_t i = 0; i < n; i++) {
        int64_t v = 0;
        if (!strcmp(name, "req_id"))
            v = bad && kind == 0 && i == n - 1 ? (i % 2 ? requests : -1)
                                               : (i * 5 + (int64_t)(spec->seed % 7)) % (requests > 0 ? requests : 1);
        else if (!strcmp(name, "block_table"))
            v = bad && kind > 0 ? (kind == 1 ? -1 : INT32_MAX / 2) : hm_inputs_below(spec, name, (uint64_t)i, 3000);
        else if (!strcmp(name, "workspace_starts"))
            v = bad && kind > 0 ? (kind == 1 ? -1 : INT32_MAX) : hm_inputs_below(spec, name, (uint64_t)i, 100000);
        else v = index_drawn(spec, a, i);
        hm_inputs_put(t, i, v);
    }
    return true;
}

/* Poison in the entries that no index asks for. */
static void after(const hm_case_spec *spec, int arg, const void *args) {
    const hm_translate_indices_args *a = args;
    const hm_tensor *table = &a->block_table;
    if (strcmp(spec->op->args[arg].name, "indices") || table->dtype != HM_I32 || spec->op->check(args)) return;
    int64_t P = a->block_size > 0 ? a->block_size : 64, width = table->shape[1], k = a->indices.shape[1];
    int64_t entries = hm_tensor_elements(table);
    bool *asked = calloc((size_t)entries + 1, sizeof *asked);
    for (int64_t i = 0; asked && i < hm_tensor_elements(&a->indices); i++) {
        int64_t t = hm_inputs_get(&a->indices, i), r = hm_inputs_get(&a->req_id, i / k);
        if (t >= 0 && t / P < width && r >= 0 && r < table->shape[0]) asked[r * width + t / P] = true;
    }
    for (int64_t at = 0; asked && at < entries; at++)
        if (!asked[at]) hm_inputs_put(table, at, -HM_INPUTS_POISON);
    free(asked);
}

const hm_inputs hm_translate_indices_inputs = {"translate_indices", fill, after, 0};
