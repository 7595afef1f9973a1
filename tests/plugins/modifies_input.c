/* Uses x as scratch memory. */
#include "plain.h"

const int hm_plugin_abi = HM_PLUGIN_ABI;

hm_status hm_plugin_rms_norm(const hm_rms_norm_args *a) {
    hm_status s = plain_rms_norm(a);
    if (!s) ((float *)a->x.data)[1] += 1;
    return s;
}
