/* Right, and linked with -ffast-math, which flushes subnormals in the whole process as it is loaded. */
#include "plain.h"

const int hm_plugin_abi = HM_PLUGIN_ABI;
const char *hm_plugin_name = "fast-math";

hm_status hm_plugin_rms_norm(const hm_rms_norm_args *a) { return plain_rms_norm(a); }
