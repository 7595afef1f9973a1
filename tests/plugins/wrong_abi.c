/* Speaks an interface that does not exist yet. */
#include "plain.h"

const int hm_plugin_abi = HM_PLUGIN_ABI + 6;

hm_status hm_plugin_rms_norm(const hm_rms_norm_args *a) { return plain_rms_norm(a); }
