/* Says that it works on CUDA memory. */
#include "plain.h"

const int hm_plugin_abi = HM_PLUGIN_ABI;
const hm_place hm_plugin_place = HM_CUDA;

hm_status hm_plugin_rms_norm(const hm_rms_norm_args *a) { return plain_rms_norm(a); }
