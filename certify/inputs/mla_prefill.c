/* Ranges of keys: empty ones, ones that end before they start, that start before the first key and end past the last. */
#include <hallmark/mla_prefill.h>
#include <stdlib.h>
#include <string.h>

#include "../../op/dtype.h"
#include "attention.h"

static void put_range(const hm_case_spec *spec, const hm_mla_prefill_args *a, const hm_tensor *t, bool end) {
    int64_t keys = a->kv.shape[0];
    for (int64_t i = 0; i < hm_tensor_elements(t); i++) {
        uint64_t r = hm_inputs_drawn(spec, "range", (uint64_t)i);
        int64_t first = i % 3 == 0 ? -(int64_t)(r % 3) : (int64_t)(r % (uint64_t)(keys + 1)),
                n = i % 5 == 1   ? 0
                    : i % 5 == 2 ? keys
                                 : (int64_t)(r / 1024 % (uint64_t)(keys + 1));
        int64_t last = first + n;
        if (n == 0 && r % 2) last -= 2;
        if (r % 7 == 0) last = INT32_MAX;
        hm_inputs_put(t, i, end ? last : first);
    }
}

static bool put_keys(const hm_case_spec *spec, const hm_tensor *t) {
    int64_t width = t->shape[1], size = (int64_t)hm_dtype_size(t->dtype);
    double *key = malloc((size_t)(width + 1) * sizeof *key);
    bool made = key != NULL;
    for (int64_t j = 0; made && j < t->shape[0]; j++) {
        made = hm_inputs_exact_key(spec, j, hm_inputs_wins(j), width, key) || hm_inputs_stagnate_key(spec, width, key);
        if (made) hm_store_row(t->dtype, (char *)t->data + j * t->stride[0] * size, t->stride[1], width, key);
    }
    free(key);
    return made;
}

static bool fill(const hm_case_spec *spec, int arg, const void *args) {
    const hm_mla_prefill_args *a = args;
    const char *name = spec->op->args[arg].name;
    const hm_tensor *t = hm_arg_tensor(spec->op, args, arg);
    bool sound = a->q.ndim == 3 && a->kv.ndim == 2, end = !strcmp(name, "key_end");
    if (!strcmp(name, "attn_sink")) return hm_inputs_sinks(spec, t);
    if (end || !strcmp(name, "key_start")) {
        if (sound && t->dtype == HM_I32) put_range(spec, a, t, end);
        return true;
    }
    if (!sound || !hm_is_16_bits(t->dtype)) return false;
    if (!strcmp(name, "q")) return hm_inputs_exact_queries(spec, t) || hm_inputs_stagnate_queries(spec, t, a->scale);
    return !strcmp(name, "kv") && hm_tensor_elements(t) > 0 && put_keys(spec, t);
}

const hm_inputs hm_mla_prefill_inputs = {"mla_prefill", fill, NULL, 0};
