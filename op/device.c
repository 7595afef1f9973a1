/* device.c: what a build without CUDA says of devices. */
#include "device.h"

#include <hallmark/cuda.h>

#include "check.h"

#ifdef HM_HAVE_CUDA
extern const hm_device hm_cuda_device; /* opt/cuda/device.c */

const hm_device *hm_device_cuda(void) { return &hm_cuda_device; }
#else
const hm_device *hm_device_cuda(void) { return NULL; }

int hm_cuda_devices(void) {
    hm_fail(HM_UNSUPPORTED, "this build has no CUDA implementation");
    return 0;
}

void hm_cuda_pdl(int on) { (void)on; }
#endif
