/* Does not say which interface it speaks. */
#include "plain.h"

hm_status hm_plugin_rms_norm(const hm_rms_norm_args *a) { return plain_rms_norm(a); }
