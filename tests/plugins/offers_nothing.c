/* Has no op at all. */
#include <hallmark/hallmark.h>

const int hm_plugin_abi = HM_PLUGIN_ABI;
