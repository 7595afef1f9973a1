/* Works on CUDA memory, and looks whether it is called with that. */
#include "plain.h"

const int hm_plugin_abi = HM_PLUGIN_ABI;

hm_status hm_plugin_rms_norm(const hm_rms_norm_args *a) {
    if (a->x.place != a->out.place) return HM_BAD_PLACE;
    return a->x.place == HM_CUDA ? plain_rms_norm(a) : HM_INTERNAL;
}
