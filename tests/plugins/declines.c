/* Offers rms_norm and declines every call. */
#include "plain.h"

const int hm_plugin_abi = HM_PLUGIN_ABI;

hm_status hm_plugin_rms_norm(const hm_rms_norm_args *a) {
    (void)a;
    return HM_UNSUPPORTED;
}
