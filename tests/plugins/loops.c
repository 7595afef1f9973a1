/* Never comes back. */
#include <hallmark/rms_norm.h>
#include <stdbool.h>

const int hm_plugin_abi = HM_PLUGIN_ABI;

hm_status hm_plugin_rms_norm(const hm_rms_norm_args *a) {
    volatile bool on = a != NULL;
    while (on) {
    }
    return HM_OK;
}
