/* linear_ptx.cuh: what compute capability 9.0a has for matrix products: copies of tiles, products of warpgroups. */
#ifndef HM_CUDA_LINEAR_PTX_CUH
#define HM_CUDA_LINEAR_PTX_CUH

#include <cuda.h>

#include "sm90.cuh"

namespace hm {

/* ---- copies ------------------------------------------------------------------------------------------------------ */

/* The box of the map at (x, y), 64 elements wide: rows of 128 bytes, pieces of 16 bytes exchanged within 8 rows, as the
 * products below want them. What lies outside the matrix comes as 0. */
__device__ __forceinline__ void copy_box(void *to, const CUtensorMap *map, int x, int y, uint64_t *full) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
            shared_address(to)),
        "l"(map), "r"(shared_address(full)), "r"(x), "r"(y)
        : "memory");
}
/* The same, to this place in each block of the mask. */
__device__ __forceinline__ void copy_box_to(void *to, const CUtensorMap *map, int x, int y, uint64_t *full,
                                            uint16_t mask) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
        "[%1, {%3, %4}], [%2], %5;" ::"r"(shared_address(to)),
        "l"(map), "r"(shared_address(full)), "r"(x), "r"(y), "h"(mask)
        : "memory");
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

/* A tile with rows of 128 bytes, exchanged as above, that begins at a multiple of 1024 bytes. 32 bytes further in a
 * row: 2 more. */
__device__ __forceinline__ uint64_t tile_descriptor(const void *tile) {
    return (uint64_t)((shared_address(tile) & 0x3ffff) >> 4) | (uint64_t)1 << 16 | (uint64_t)64 << 32 |
           (uint64_t)1 << 62;
}
__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/* Until at most N groups are under way. */
template <int N>
__device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* acc[64 x N] = (add ? acc : 0) + a[64 x 16] b[N x 16]^T. Thread t of the warpgroup has rows t / 32 * 16 + t % 32 / 4,
 * + 8 for the second two of each four values, columns 8 (i / 4) + t % 4 * 2 + i % 2. */
template <typename T, int N>
struct product;

#define HM_D4(i) "+f"(acc[i]), "+f"(acc[i + 1]), "+f"(acc[i + 2]), "+f"(acc[i + 3])
#define HM_D16(i) HM_D4(i), HM_D4(i + 4), HM_D4(i + 8), HM_D4(i + 12)
#define HM_D64(i) HM_D16(i), HM_D16(i + 16), HM_D16(i + 32), HM_D16(i + 48)
#define HM_PRODUCT(T, TYPE, N, REGISTERS, A, B, ADD, ...)                                                     \
    template <>                                                                                               \
    struct product<T, N> {                                                                                    \
        static __device__ __forceinline__ void add(float *acc, uint64_t a, uint64_t b, uint32_t adds) {       \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " ADD ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N \
                         "k16.f32." TYPE "." TYPE " {" REGISTERS "}, " A ", " B ", p, 1, 1, 0, 0;\n}"         \
                         : __VA_ARGS__                                                                        \
                         : "l"(a), "l"(b), "r"(adds));                                                        \
        }                                                                                                     \
    };
#define HM_R4 "%0, %1, %2, %3"
#define HM_R8 HM_R4 ", %4, %5, %6, %7"
#define HM_R16 HM_R8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define HM_R32 HM_R16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define HM_R64                                                                         \
    HM_R32                                                                             \
    ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" \
    ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define HM_R128                                                                                    \
    HM_R64                                                                                         \
    ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"             \
    ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"             \
    ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111" \
    ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
HM_PRODUCT(bf16, "bf16", 8, HM_R4, "%4", "%5", "%6", HM_D4(0))
HM_PRODUCT(bf16, "bf16", 16, HM_R8, "%8", "%9", "%10", HM_D4(0), HM_D4(4))
HM_PRODUCT(bf16, "bf16", 32, HM_R16, "%16", "%17", "%18", HM_D16(0))
HM_PRODUCT(bf16, "bf16", 64, HM_R32, "%32", "%33", "%34", HM_D16(0), HM_D16(16))
HM_PRODUCT(bf16, "bf16", 128, HM_R64, "%64", "%65", "%66", HM_D64(0))
HM_PRODUCT(bf16, "bf16", 256, HM_R128, "%128", "%129", "%130", HM_D64(0), HM_D64(64))
HM_PRODUCT(f16, "f16", 8, HM_R4, "%4", "%5", "%6", HM_D4(0))
HM_PRODUCT(f16, "f16", 16, HM_R8, "%8", "%9", "%10", HM_D4(0), HM_D4(4))
HM_PRODUCT(f16, "f16", 32, HM_R16, "%16", "%17", "%18", HM_D16(0))
HM_PRODUCT(f16, "f16", 64, HM_R32, "%32", "%33", "%34", HM_D16(0), HM_D16(16))
HM_PRODUCT(f16, "f16", 128, HM_R64, "%64", "%65", "%66", HM_D64(0))
HM_PRODUCT(f16, "f16", 256, HM_R128, "%128", "%129", "%130", HM_D64(0), HM_D64(64))
#undef HM_D4
#undef HM_D16
#undef HM_D64
#undef HM_PRODUCT
#undef HM_R4
#undef HM_R8
#undef HM_R16
#undef HM_R32
#undef HM_R64
#undef HM_R128

} // namespace hm

#endif
