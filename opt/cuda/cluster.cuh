/* cluster.cuh: blocks of a cluster, which see each other's shared memory; compute capability 9.0 and later. */
#ifndef HM_CUDA_CLUSTER_CUH
#define HM_CUDA_CLUSTER_CUH

#include <stdint.h>

namespace hm {

#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ uint32_t cluster_rank() {
    uint32_t r;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return r;
}
__device__ __forceinline__ uint32_t cluster_size() {
    uint32_t r;
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(r));
    return r;
}
/* All threads of the cluster, in whole warps; what they wrote to shared memory is visible to all. */
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
/* Where block `rank` has what this block has at p, in shared memory. */
template <typename T>
__device__ __forceinline__ T *in_block(T *p, uint32_t rank) {
    T *there;
    asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(p), "r"(rank));
    return there;
}
#endif

} // namespace hm

#endif
