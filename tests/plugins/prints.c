/* Right, and talks on standard output. */
#include <stdio.h>

#include "plain.h"

const int hm_plugin_abi = HM_PLUGIN_ABI;

hm_status hm_plugin_rms_norm(const hm_rms_norm_args *a) {
    printf("}}]\"garbage\n");
    fflush(stdout);
    return plain_rms_norm(a);
}
