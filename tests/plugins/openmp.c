/* Right, with a team of threads. */
#include "plain.h"

const int hm_plugin_abi = HM_PLUGIN_ABI;

hm_status hm_plugin_rms_norm(const hm_rms_norm_args *a) {
    if (plain_declines(a)) return HM_UNSUPPORTED;
#pragma omp parallel for
    for (int64_t t = 0; t < a->x.shape[0]; t++) plain_row(a, t);
    return HM_OK;
}
