/* Slots that are distinct, and a cache that holds something already. */
#include <hallmark/indexer_k_quant_and_cache.h>
#include <string.h>

#include "../inputs.h"

static bool fill(const hm_case_spec *spec, int arg, const void *args) {
    const hm_indexer_k_quant_and_cache_args *a = args;
    const char *name = spec->op->args[arg].name;
    const hm_tensor *t = hm_arg_tensor(spec->op, args, arg);
    if (!strcmp(name, "slot_mapping")) {
        bool sound = a->kv_cache.ndim >= 2 && t->ndim == 1 && t->dtype == HM_I64;
        if (sound) hm_inputs_put_slots(spec, name, t, a->kv_cache.shape[0] * a->kv_cache.shape[1]);
        return true;
    }
    if (strcmp(name, "kv_cache")) return false;
    hm_inputs_put_bytes(spec, name, t);
    return true;
}

const hm_inputs hm_indexer_k_quant_and_cache_inputs = {"indexer_k_quant_and_cache", fill, NULL};
