/* Exits while it is being loaded. */
#include <stdlib.h>

#include "plain.h"

const int hm_plugin_abi = HM_PLUGIN_ABI;

__attribute__((constructor)) static void leave(void) { _Exit(3); }

hm_status hm_plugin_rms_norm(const hm_rms_norm_args *a) { return plain_rms_norm(a); }
