/* Never comes back. */
#include <hallmark/rms_norm.h>

const int hm_plugin_abi = HM_PLUGIN_ABI;

hm_status hm_plugin_rms_norm(const hm_rms_norm_args *a) {
    for (volatile int i = 0; a; i++) {}
    return HM_OK;
}
