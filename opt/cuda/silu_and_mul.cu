/* silu_and_mul: 16 bytes of the gate and of up a thread where everything lies at multiples of that; else one element.
 *
 * silu(g) = g / (1 + 2^(-g log2 e)) in f32. ex2.approx is within 2^-22 of itself, its argument is a product with a
 * rounded log2 e; rcp.approx is within 2^-23, and the product with g within 2^-24: together the quotient's 2^-22. */
#include "common.cuh"

extern "C" {
#include "../../op/silu_and_mul.h"
}

static const char op[] = "silu_and_mul";

namespace {

enum { THREADS = 128 };

struct params {
    const void *x;
    void *out;
    hm::rows x_rows, out_rows;
    int64_t x_step, out_step, hidden;
    int64_t first, end; /* of the pieces of out */
    hm::divider row;    /* pieces of a row */
    bool each;
};

__device__ __forceinline__ float silu(float g) {
    float e, r;
    asm("ex2.approx.f32 %0, %1;" : "=f"(e) : "f"(__fmul_rn(g, -1.4426950408889634f)));
    asm("rcp.approx.f32 %0, %1;" : "=f"(r) : "f"(__fadd_rn(1.0f, e)));
    return __fmul_rn(g, r);
}

template <typename T>
__device__ __forceinline__ float product(bool each, float g, float u) {
    float v = silu(g);
    if (each) v = hm::widen(hm::narrow<T>(v));
    return __fmul_rn(v, u);
}

template <typename T, bool WHOLE>
__global__ void __launch_bounds__(THREADS) gate(const __grid_constant__ params p) {
    constexpr int N = WHOLE ? 16 / sizeof(T) : 1;
    hm::wait_for_previous();
    hm::let_next_start();
    int64_t i = p.first + (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= p.end) return;
    int64_t row = hm::quotient(p.row, i), at = (i - row * p.row.d) * N;
    const T *x = (const T *)p.x + hm::row_offset(p.x_rows, row) + at * p.x_step;
    T *out = (T *)p.out + hm::row_offset(p.out_rows, row) + at * p.out_step;
    if constexpr (WHOLE) {
        hm::vec<T, N> gate = *(const hm::vec<T, N> *)x, up = *(const hm::vec<T, N> *)(x + p.hidden), to;
        float g[N], u[N];
        gate.get(g), up.get(u);
#pragma unroll
        for (int k = 0; k < N; k++) g[k] = product<T>(p.each, g[k], u[k]);
        to.set(g);
        *(hm::vec<T, N> *)out = to;
    } else *out = hm::narrow<T>(product<T>(p.each, hm::widen(x[0]), hm::widen(x[p.hidden * p.x_step])));
}

template <typename T>
hm_status run(const hm_silu_and_mul_args &a) {
    params p = {};
    int64_t n = 16 / sizeof(T);
    p.hidden = a.out.shape[a.out.ndim - 1];
    bool whole = p.hidden % n == 0 && hm::aligned(a.x, 16) && hm::aligned(a.out, 16);
    int64_t each = whole ? n : 1;
    p.x = a.x.data, p.out = a.out.data, p.x_rows = hm::rows_of(a.x), p.out_rows = hm::rows_of(a.out);
    p.x_step = a.x.stride[a.x.ndim - 1], p.out_step = a.out.stride[a.out.ndim - 1];
    p.row = hm::divider_of(p.hidden / each), p.end = hm_tensor_elements(&a.out) / each;
    p.each = a.round == HM_SILU_EACH;
    return hm::launch_all(op, whole ? gate<T, true> : gate<T, false>, p, THREADS, 1, a.stream);
}

} // namespace

extern "C" hm_status hm_silu_and_mul_cuda(const hm_silu_and_mul_args *args) {
    hm_silu_and_mul_args a;
    hm_status s = hm_silu_and_mul_read(args, &a);
    if (s) return s;
    if (a.out.place != HM_CUDA) return hm_fail(HM_UNSUPPORTED, "%s: cuda works on device tensors only", op);
    if ((s = hm_cuda_ready(op)) || hm_tensor_elements(&a.out) == 0) return s;
    return a.x.dtype == HM_BF16 ? run<hm::bf16>(a) : a.x.dtype == HM_F16 ? run<hm::f16>(a) : run<float>(a);
}
