/* common.cuh: dtypes, rows and launches, as all kernels need them. */
#ifndef HM_CUDA_COMMON_CUH
#define HM_CUDA_COMMON_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>

extern "C" {
#include "../../op/check.h"
}
#include "launch.h"

namespace hm {

using bf16 = __nv_bfloat16;
using f16 = __half;

/* ---- dtypes: load exactly, store with one rounding --------------------------------------------------------------- */

__device__ __forceinline__ float widen(float v) { return v; }
__device__ __forceinline__ float widen(f16 v) { return __half2float(v); }
__device__ __forceinline__ float widen(bf16 v) { return __bfloat162float(v); }

template <typename T>
__device__ __forceinline__ T narrow(float v);
template <>
__device__ __forceinline__ float narrow<float>(float v) {
    return v;
}
template <>
__device__ __forceinline__ f16 narrow<f16>(float v) {
    return __float2half_rn(v);
}
template <>
__device__ __forceinline__ bf16 narrow<bf16>(float v) {
    return __float2bfloat16_rn(v);
}

/* Two elements of a vec, of which one has 4 bytes or two have. */
template <typename T>
struct pair;
template <>
struct pair<float> {
    static __device__ __forceinline__ void get(const uint32_t *w, float *a, float *b) {
        *a = __uint_as_float(w[0]), *b = __uint_as_float(w[1]);
    }
    static __device__ __forceinline__ void set(uint32_t *w, float a, float b) {
        w[0] = __float_as_uint(a), w[1] = __float_as_uint(b);
    }
};
template <>
struct pair<bf16> {
    static __device__ __forceinline__ void get(const uint32_t *w, float *a, float *b) {
        *a = __uint_as_float(*w << 16), *b = __uint_as_float(*w & 0xffff0000u);
    }
    static __device__ __forceinline__ void set(uint32_t *w, float a, float b) {
        __nv_bfloat162 two = __floats2bfloat162_rn(a, b);
        *w = *(const uint32_t *)&two;
    }
};
template <>
struct pair<f16> {
    static __device__ __forceinline__ void get(const uint32_t *w, float *a, float *b) {
        float2 two = __half22float2(*(const __half2 *)w);
        *a = two.x, *b = two.y;
    }
    static __device__ __forceinline__ void set(uint32_t *w, float a, float b) {
        __half2 two = __floats2half2_rn(a, b);
        *w = *(const uint32_t *)&two;
    }
};

/* N elements, an even number, that are read and written in accesses of at most 16 bytes; their address is a multiple of
 * that. Words, so that the compiler does not spread 16-bit elements over a register each. */
template <typename T, int N>
struct alignas(sizeof(T) * N > 16 ? 16 : sizeof(T) * N) vec {
    uint32_t w[N * sizeof(T) / 4];
    /* What was computed from it before is computed again: for registers. */
    __device__ __forceinline__ void forget() {
#pragma unroll
        for (int i = 0; i < (int)(N * sizeof(T) / 4); i++) asm volatile("" : "+r"(w[i]));
    }
    __device__ __forceinline__ void fill(float v) {
#pragma unroll
        for (int i = 0; i < N; i += 2) pair<T>::set(w + i * sizeof(T) / 4, v, v);
    }
    __device__ __forceinline__ void get(float *v) const {
#pragma unroll
        for (int i = 0; i < N; i += 2) pair<T>::get(w + i * sizeof(T) / 4, v + i, v + i + 1);
    }
    __device__ __forceinline__ void set(const float *v) {
#pragma unroll
        for (int i = 0; i < N; i += 2) pair<T>::set(w + i * sizeof(T) / 4, v[i], v[i + 1]);
    }
};

/* ---- rows -------------------------------------------------------------------------------------------------------- */

/* Division of 0 <= n < 2^31 by d < 2^31 without dividing: n * m >> 31 + s with 2^s >= d and m = 2^(31 + s) / d rounded
 * up, less than 2^32: m d exceeds 2^(31 + s) by less than d <= 2^s, so that the quotient is too large by less than
 * n / 2^31 / d < 1 / d, and its floor is right. */
struct divider {
    uint32_t m, s;
    int64_t d; /* as it is, for larger numbers */
};

static inline divider divider_of(int64_t d) {
    divider r = {0, 0, d > 0 ? d : 1};
    if (r.d >= INT64_C(1) << 31) return r;
    while ((INT64_C(1) << r.s) < r.d) r.s++;
    r.m = (uint32_t)(((((uint64_t)1 << (31 + r.s)) - 1) / (uint64_t)r.d) + 1);
    if (r.d == 1) r.m = 1u << 31;
    return r;
}

__device__ __forceinline__ int64_t quotient(const divider &r, int64_t n) {
    if (r.m && n < (INT64_C(1) << 31)) return (int64_t)(((uint64_t)(uint32_t)n * r.m) >> (31 + r.s));
    return n / r.d;
}
/* For n and d below 2^31 alone. */
__device__ __forceinline__ uint32_t quotient32(const divider &r, uint32_t n) {
    return (uint32_t)(((uint64_t)n * r.m) >> (31 + r.s));
}

/* Where the rows of a tensor begin: up to three leading dimensions, merged into one where their strides allow it. */
struct rows {
    int64_t stride[3]; /* in elements, innermost first */
    divider shape[2];  /* of the inner two */
    int dims;          /* 0 to 3 */
};

/* Of all dimensions of t but the last `inner`. */
static inline rows rows_of(const hm_tensor &t, int inner = 1) {
    rows r = {};
    int64_t extent = 1; /* of the dimension that was added last */
    for (int d = t.ndim - 1 - inner; d >= 0; d--) {
        int64_t step;
        if (t.shape[d] == 1) continue;
        if (r.dims > 0 && !__builtin_mul_overflow(extent, r.stride[r.dims - 1], &step) && t.stride[d] == step) {
            extent *= t.shape[d]; /* it continues the one inside it */
            continue;
        }
        if (r.dims > 0) r.shape[r.dims - 1] = divider_of(extent);
        extent = t.shape[d];
        r.stride[r.dims++] = t.stride[d];
    }
    return r;
}

__device__ __forceinline__ int64_t row_offset(const rows &r, int64_t row) {
    if (r.dims <= 1) return row * r.stride[0];
    int64_t rest = quotient(r.shape[0], row), offset = (row - rest * r.shape[0].d) * r.stride[0];
    if (r.dims == 2) return offset + rest * r.stride[1];
    int64_t outer = quotient(r.shape[1], rest);
    return offset + (rest - outer * r.shape[1].d) * r.stride[1] + outer * r.stride[2];
}

/* Are there fewer than 2^31 rows? Then row_offset32 will do: kernels that live for a microsecond feel every jump over
 * code that they do not need. */
static inline bool few(int64_t count) { return count < (INT64_C(1) << 31); }

__device__ __forceinline__ int64_t row_offset32(const rows &r, uint32_t row) {
    if (r.dims <= 1) return row * r.stride[0];
    uint32_t rest = quotient32(r.shape[0], row), outer = 0;
    int64_t offset = (row - rest * (uint32_t)r.shape[0].d) * r.stride[0];
    if (r.dims == 3) {
        outer = quotient32(r.shape[1], rest);
        rest -= outer * (uint32_t)r.shape[1].d;
    }
    return offset + rest * r.stride[1] + outer * r.stride[2];
}

/* Are the elements of every row next to each other, and the rows at multiples of `bytes` bytes? */
static inline bool aligned(const hm_tensor &t, int64_t bytes) {
    int64_t size = (int64_t)hm_dtype_size(t.dtype);
    if ((intptr_t)t.data % bytes || (t.shape[t.ndim - 1] > 1 && t.stride[t.ndim - 1] != 1)) return false;
    for (int d = 0; d < t.ndim - 1; d++)
        if (t.shape[d] > 1 && t.stride[d] % (bytes / size)) return false;
    return true;
}

/* ---- launches ---------------------------------------------------------------------------------------------------- */

/* Before the first access to memory: the kernel before this one is done, where this one was launched early. */
__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/* The next kernel may be launched; it waits for this one to end before it reads. */
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

/* hm_cuda_has_90a of a kernel. */
template <auto KERNEL>
static bool has_90a(size_t shared = 0) {
    static signed char known[HM_CUDA_KNOWN];
    return hm_cuda_has_90a((const void *)KERNEL, shared, known);
}

/* cluster: blocks to a cluster, along x, where there is a whole number of them. */
template <typename P>
static hm_status launch(const char *op, void (*kernel)(P), dim3 blocks, dim3 threads, size_t shared, void *stream,
                        const P &params, int cluster = 1) {
    cudaLaunchAttribute attribute[2] = {};
    cudaLaunchConfig_t config = {};
    config.gridDim = blocks;
    config.blockDim = threads;
    config.dynamicSmemBytes = shared;
    config.stream = (cudaStream_t)stream;
    config.attrs = attribute;
    if (hm_cuda_pdl_for((const void *)kernel)) {
        attribute[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attribute[0].val.programmaticStreamSerializationAllowed = 1;
        config.numAttrs = 1;
    }
    if (shared > 48 << 10) {
        cudaError_t e =
            cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
        if (e) return hm_cuda_status(op, e);
    }
    if (cluster > 1) {
        attribute[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
        attribute[config.numAttrs].val.clusterDim = {(unsigned)cluster, 1, 1};
        config.numAttrs++;
    }
    return hm_cuda_status(op, cudaLaunchKernelEx(&config, kernel, params));
}

/* blocks: at most 2^31 - 1 of them are launched. */
template <typename P>
static hm_status launch(const char *op, void (*kernel)(P), int64_t blocks, dim3 threads, size_t shared, void *stream,
                        const P &params, int cluster = 1) {
    return launch(op, kernel, dim3((unsigned)(blocks < INT32_MAX ? blocks : INT32_MAX)), threads, shared, stream,
                  params, cluster);
}

/* A kernel whose thread i of all does `each` of the pieces [p.first, p.end). */
template <typename P>
static hm_status launch_all(const char *op, void (*kernel)(P), P p, int threads, int each, void *stream) {
    const int64_t most = (int64_t)INT32_MAX * threads * each, end = p.end;
    for (; p.first < end; p.first = p.end) {
        int64_t count = end - p.first < most ? end - p.first : most;
        p.end = p.first + count;
        int64_t lanes = (count - 1) / each + 1;
        hm_status s = launch(op, kernel, (lanes - 1) / threads + 1, dim3(threads), 0, stream, p);
        if (s) return s;
    }
    return HM_OK;
}

} // namespace hm

#endif
