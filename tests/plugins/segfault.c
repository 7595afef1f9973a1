/* Reads through a null pointer. */
#include <hallmark/rms_norm.h>

const int hm_plugin_abi = HM_PLUGIN_ABI;

hm_status hm_plugin_rms_norm(const hm_rms_norm_args *a) {
    volatile const int *nowhere = (const int *)0;
    return a ? (hm_status)*nowhere : HM_BAD_ARG;
}
