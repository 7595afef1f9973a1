/* Declines, after having written. */
#include "plain.h"

const int hm_plugin_abi = HM_PLUGIN_ABI;

hm_status hm_plugin_rms_norm(const hm_rms_norm_args *a) {
    if (!plain_declines(a)) plain_row(a, 0);
    return HM_UNSUPPORTED;
}
