/* SPDX-License-Identifier: Apache-2.0
 * cuda.h: what concerns the CUDA implementations alone. These functions are in every build.
 *
 * hm_<op>_cuda computes the op on tensors whose place is HM_CUDA: addresses that the current device can reach. It
 * launches on the stream of the argument struct (a cudaStream_t; NULL is the default stream) and returns; it allocates
 * nothing and does not synchronise, so that calls may be captured in a CUDA graph. The bits of a row do not depend on
 * the other rows, on the stream or on alignment. What is wrong with the descriptors is found before the launch; what
 * is wrong with an address is found by the device, later.
 * HM_UNSUPPORTED: a build without CUDA, or a device that it was not built for. HM_NO_DEVICE: no driver or no device. */
#ifndef HALLMARK_CUDA_H
#define HALLMARK_CUDA_H

#include "hallmark.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Devices that can be used; 0 if there are none (hm_error() says why), or in a build without CUDA. */
HM_API int hm_cuda_devices(void);

/* Programmatic dependent launch, for the calls of this thread from now on (default 0: off). If on, a kernel may start
 * while the one before it in the stream ends, and waits for its results on the device; worth about half a microsecond
 * for small calls that follow each other. What it computes is the same. Devices before compute capability 9.0 ignore
 * it. */
HM_API void hm_cuda_pdl(int on);

#ifdef __cplusplus
}
#endif
#endif
