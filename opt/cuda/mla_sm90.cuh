/* mla_sm90.cuh: what the kernels of latent attention on Hopper's tensor cores share: mla_pair_sm90.cuh, for bf16, and
 * mla_fp8_sm90.cuh, for fp8_ds_mla. Both do 64 heads of a token, 64 keys at a time.
 *
 * HM_P_F32: a weight is the sum of two bf16, within 2^-18. For each weight the class has (1 + 2^-22)^(R + 7) (1 +
 * 2^-24)^(R + 4) - 1 with R = ceil(n / 16), and 2 (1 + ln n) 2^-22 for merging, of which nothing is needed here (the
 * two sums of weights are of one size when they are added): with n >= 17 keys more than 18 * 2^-22. The parts take 16,
 * the exponential 1, its argument 1/4 (the rest is counted with its size), and a maximum that rises nothing (mla.cuh).
 * With fewer than FEW keys the block does as attend_any does. A product of parts has fewer bits than that of a weight,
 * and there are as many accumulations of 16 as the class has of 8. */
#ifndef HM_CUDA_MLA_SM90_CUH
#define HM_CUDA_MLA_SM90_CUH

#include "mla.cuh"
#include "sm90.cuh"

namespace hm {
namespace mla {
namespace sm90 {

enum {
    BLOCK_HEADS = 64,
    TILE = 64, /* keys */
    WIDTH = 576,
    VALUES = 512,
    PANEL = TILE * 128, /* bytes of 64 elements of a tile's keys, in the 128-byte swizzle; or of queries or weights */
    FEW = 32
};

#if __CUDA_ARCH_FEAT_SM90_ALL

/* ---- instructions ------------------------------------------------------------------------------------------------ */

/* 16 bytes, or zeros. */
__device__ __forceinline__ void copy16(uint32_t to, const char *from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
}
__device__ __forceinline__ void store4(uint32_t to, uint32_t v) {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(v) : "memory");
}
__device__ __forceinline__ void store16(uint32_t to, const uint32_t *v) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3])
                 : "memory");
}
/* Operands in shared memory: their lower words are addresses by 16 and the distance of panels, the upper ones say how
 * they lie: rows of 128 bytes, swizzled, 8 of them together. */
enum { OPERAND = 1 << 30 | 1024 >> 4 };
__device__ __forceinline__ uint32_t operand_at(uint32_t at, uint32_t distance = 16) {
    return (at & 0x3ffffu) >> 4 | distance >> 4 << 16;
}
/* Computed anew each time: kept, they would fill the registers. */
__device__ __forceinline__ uint32_t again(uint32_t v) {
    asm volatile("" : "+r"(v));
    return v;
}

/* r: what the next ones add to; before that it is as the program has it. */
template <int N>
__device__ __forceinline__ void wgmma_begin(float (&r)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(r[i])::"memory");
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/* All groups but the last LEFT are done; r: what they wrote. */
template <int LEFT, int N>
__device__ __forceinline__ void wgmma_wait(float (&r)[N]) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(r[i])::"memory");
}

#define HM_MLA_F4(r, i) "+f"(r[i]), "+f"(r[i + 1]), "+f"(r[i + 2]), "+f"(r[i + 3])
#define HM_MLA_F8(r, i) HM_MLA_F4(r, i), HM_MLA_F4(r, i + 4)
#define HM_MLA_F32(r, i) HM_MLA_F8(r, i), HM_MLA_F8(r, i + 8), HM_MLA_F8(r, i + 16), HM_MLA_F8(r, i + 24)
#define HM_MLA_32                                                             \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}"
#define HM_MLA_64                                                                      \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"
#define HM_MLA_128                                                                                 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                      \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "             \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "             \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "             \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "             \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "             \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}"

/* s += a b^T: 64 x 64, 16 elements deep */
__device__ __forceinline__ void multiply_keys(float (&s)[32], uint32_t a, uint32_t b) {
    asm volatile(
        "{\n.reg .b64 a, b;\nmov.b64 a, {%32, %34};\nmov.b64 b, {%33, %34};\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " HM_MLA_32 ", a, b, 1, 1, 1, 0, 0;\n}"
        : HM_MLA_F32(s, 0)
        : "r"(a), "r"(b), "n"((int)OPERAND));
}

/* Where 16 bytes c of a row lie. */
__device__ __forceinline__ uint32_t place_of(int row, int c) {
    return (uint32_t)(c / 8 * PANEL + row * 128 + ((c % 8 ^ row % 8) << 4));
}

/* Eight elements from d on; those past the width are 0. */
__device__ __forceinline__ void gather8(const char *row, int64_t step, int64_t d, int64_t width, uint32_t *to) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint32_t low = d + 2 * i < width ? *(const uint16_t *)(row + (d + 2 * i) * step) : 0;
        const uint32_t high = d + 2 * i + 1 < width ? *(const uint16_t *)(row + (d + 2 * i + 1) * step) : 0;
        to[i] = low | high << 16;
    }
}

#endif

} // namespace sm90
} // namespace mla
} // namespace hm

#endif
