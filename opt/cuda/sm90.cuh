/* sm90.cuh: what compute capability 9.0 has beyond 8.0: clusters, whose blocks see each other's shared memory, and
 * copies that end at a barrier. */
#ifndef HM_CUDA_SM90_CUH
#define HM_CUDA_SM90_CUH

#include "common.cuh"

namespace hm {

#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ uint32_t cluster_rank() {
    uint32_t r;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return r;
}
/* All threads of the cluster, in whole warps; what they wrote to shared memory is visible to all. */
__device__ __forceinline__ void cluster_sync() {
    __syncwarp();
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
/* The same, without a word about memory: half a microsecond less. */
__device__ __forceinline__ void cluster_wait() {
    __syncwarp();
    asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}
/* Where block `rank` has what this block has at p, in shared memory. */
template <typename T>
__device__ __forceinline__ T *in_block(T *p, uint32_t rank) {
    T *there;
    asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(p), "r"(rank));
    return there;
}
#endif

__device__ __forceinline__ uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

/* ---- barriers in shared memory ----------------------------------------------------------------------------------- */

__device__ __forceinline__ void barrier_init(uint64_t *b, uint32_t count) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(count) : "memory");
}
__device__ __forceinline__ void barrier_arrive(uint64_t *b) {
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(shared_address(b)) : "memory");
}
/* On the barrier at the same place in block `rank` of the cluster. */
__device__ __forceinline__ void barrier_arrive_at(uint64_t *b, uint32_t rank) {
    asm volatile(
        "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(shared_address(b)),
        "r"(rank)
        : "memory");
}
/* Arrives, and so many bytes are to come before the phase ends. */
__device__ __forceinline__ void barrier_expect(uint64_t *b, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(bytes) : "memory");
}
/* Until the phase of this parity has ended. Neither this nor what arrives has the scope of a cluster, whose fences take
 * a microsecond: what is handed over was read or written by bulk copies and products, which barriers order by
 * themselves. */
__device__ __forceinline__ void barrier_wait(uint64_t *b, uint32_t parity) {
    uint32_t done;
    do {
        asm volatile(
            "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
            "selp.b32 %0, 1, 0, p;\n}"
            : "=r"(done)
            : "r"(shared_address(b)), "r"(parity)
            : "memory");
    } while (!done);
}

/* What was written to shared memory is visible to bulk copies and to products. */
__device__ __forceinline__ void fence_for_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/* Of `count` threads, a whole number of warps. */
__device__ __forceinline__ void sync_some(int id, int count) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(count) : "memory");
}

/* What is read once should be the first to leave the second-level cache. */
__device__ __forceinline__ uint64_t read_once() {
    uint64_t policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}
/* A multiple of 16 bytes between addresses that are. */
__device__ __forceinline__ void copy_bytes(void *to, const void *from, uint32_t bytes, uint64_t *full,
                                           uint64_t policy) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
            "r"(shared_address(to)),
        "l"(from), "r"(bytes), "r"(shared_address(full)), "l"(policy)
        : "memory");
}
__device__ __forceinline__ void copy_bytes(void *to, const void *from, uint32_t bytes, uint64_t *full) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(full))
                 : "memory");
}

} // namespace hm

#endif
