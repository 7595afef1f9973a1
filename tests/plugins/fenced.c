/* Right, and looks whether out lies between a guard zone and memory without access on either side; HM_INTERNAL if not.
 */
#include <unistd.h>

#include "plain.h"

const int hm_plugin_abi = HM_PLUGIN_ABI;

static int readable(int to, int from, const char *at) { /* write() of what cannot be read is EFAULT, no signal */
    char byte;
    return write(to, at, 1) == 1 && read(from, &byte, 1) == 1;
}

hm_status hm_plugin_rms_norm(const hm_rms_norm_args *a) {
    hm_status s = plain_rms_norm(a);
    int ends[2];
    if (s) return s;
    if (pipe(ends)) return HM_NO_MEMORY;
    const uintptr_t page = 4096, guard = 65536, fence = 1 << 20;
    uintptr_t data = (uintptr_t)a->out.data, first = data / page * page - guard;
    uintptr_t last = (data + (uintptr_t)(a->x.shape[0] * a->out.stride[0]) * 4 + page - 1) / page * page + guard;
    if (!readable(ends[1], ends[0], (char *)first) || !readable(ends[1], ends[0], (char *)last - 1)) s = HM_INTERNAL;
    for (uintptr_t at = page; at <= fence; at += page)
        if (readable(ends[1], ends[0], (char *)first - at) || readable(ends[1], ends[0], (char *)last + at - page))
            s = HM_INTERNAL;
    close(ends[0]);
    close(ends[1]);
    return s;
}
