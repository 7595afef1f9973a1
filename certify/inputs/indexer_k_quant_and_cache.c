/* Slots that are distinct, and a cache that holds something already. Generator out_of_range: one slot is none of the
 * cache, or, with an even seed, all are distinct but for the last, which is the first again. */
#include <hallmark/indexer_k_quant_and_cache.h>
#include <string.h>

#include "../inputs.h"

static bool fill(const hm_case_spec *spec, int arg, const void *args) {
    const hm_indexer_k_quant_and_cache_args *a = args;
    const char *name = spec->op->args[arg].name;
    const hm_tensor *t = hm_arg_tensor(spec->op, args, arg);
    if (!strcmp(name, "slot_mapping")) {
        bool sound = a->kv_cache.ndim >= 2 && t->ndim == 1 && t->dtype == HM_I64;
        int64_t capacity = sound ? a->kv_cache.shape[0] * a->kv_cache.shape[1] : 0, last = sound ? t->shape[0] - 1 : 0;
        if (sound) hm_inputs_put_slots(spec, name, t, capacity);
        if (!hm_inputs_generator(spec, "out_of_range") || spec->seed % 2 || last < 1 || capacity <= last) return true;
        for (int64_t i = 0; i < last; i++)
            hm_inputs_put(t, i, last - i); /* descending: not the order that is quick to check */
        hm_inputs_put(t, last, last);
        return true;
    }
    if (strcmp(name, "kv_cache")) return false;
    hm_inputs_put_bytes(spec, name, t);
    return true;
}

const hm_inputs hm_indexer_k_quant_and_cache_inputs = {"indexer_k_quant_and_cache", fill, NULL, 0};
