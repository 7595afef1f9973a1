/* Fails an assertion. */
#include <hallmark/rms_norm.h>
#include <stdlib.h>

const int hm_plugin_abi = HM_PLUGIN_ABI;

hm_status hm_plugin_rms_norm(const hm_rms_norm_args *a) {
    (void)a;
    abort();
}
