/* Sets rounding upward for the process as it is loaded. Its embedding, a copy, wants to find that in each call. */
#include <fenv.h>
#include <hallmark/embedding.h>
#include <string.h>
const int hm_plugin_abi = HM_PLUGIN_ABI;
__attribute__((constructor)) static void round_up(void) { fesetround(FE_UPWARD); }
hm_status hm_plugin_embedding(const hm_embedding_args *a) {
    if (fegetround() != FE_UPWARD) return HM_INTERNAL;
    for (int64_t t = 0; t < a->ids.shape[0]; t++)
        memcpy((uint16_t *)a->out.data + t * a->out.stride[0],
               (uint16_t *)a->table.data + ((int32_t *)a->ids.data)[t] * a->table.stride[0],
               2 * (size_t)a->out.shape[1]);
    return HM_OK;
}
