/* launch.h: what every cuda implementation needs on the host. */
#ifndef HM_CUDA_LAUNCH_H
#define HM_CUDA_LAUNCH_H

#include <cuda_runtime_api.h>
#include <hallmark/hallmark.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* HM_OK if there is a device; else HM_NO_DEVICE with a sentence. It is asked for once in the process's life. */
hm_status hm_cuda_ready(const char *op);
/* What a launch returned, as a status with a sentence. */
hm_status hm_cuda_status(const char *op, cudaError_t error);
/* Has this thread asked for programmatic dependent launch, and can this kernel wait for the one before it? A kernel
 * that was compiled from PTX for older devices cannot. */
bool hm_cuda_pdl_for(const void *kernel);
/* Was this kernel compiled for compute capability 9.0 or later, with all that it has? */
bool hm_cuda_is_90(const void *kernel);
/* Is this kernel's code for 9.0a what runs on the current device (wgmma is there), and may it have `shared` bytes?
 * known: the caller's, zeros at first, a place for each device: the runtime is asked once. hm::has_90a of common.cuh
 * keeps it. */
enum { HM_CUDA_KNOWN = 64 };
bool hm_cuda_has_90a(const void *kernel, size_t shared, signed char known[HM_CUDA_KNOWN]);
/* Multiprocessors of the current device. */
int hm_cuda_processors(void);

#ifdef __cplusplus
}
#endif
#endif
