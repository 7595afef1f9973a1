/* index_weights: from left to right, with three roundings; both orders of the contract admit that. */
#include "common.cuh"

extern "C" {
#include "../../op/index_weights.h"
}

static const char op[] = "index_weights";

namespace {

enum { THREADS = 128 };

struct params {
    const void *weights, *scale;
    float *out;
    hm::rows weights_rows, scale_rows, out_rows;
    int64_t weights_step, scale_step, out_step;
    int64_t first, end; /* elements */
    hm::divider heads;
    float of_dim, of_heads;
    bool scale_bytes; /* e8m0 */
};

/* 2^(code - 127), of which 2^-127 is subnormal; 255 is NaN */
__device__ __forceinline__ float e8m0(uint32_t code) {
    return __uint_as_float(code == 0 ? 0x00400000u : code == 255 ? 0x7fc00000u : code << 23);
}

/* Four elements of one row a thread, all at multiples of four; counts are below 2^31. flat: rows follow one another. */
struct four_params {
    const void *weights, *scale;
    float *out;
    uint32_t end; /* threads */
    float of_dim, of_heads;
    bool scale_bytes, flat;
    hm::divider fours; /* of a row */
    hm::rows weights_rows, scale_rows, out_rows;
};

template <typename T>
__global__ void __launch_bounds__(THREADS) weigh_four(const __grid_constant__ four_params p) {
    hm::wait_for_previous();
    hm::let_next_start();
    const uint32_t i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= p.end) return;
    int64_t in = (int64_t)i * 4, of = in, to = in;
    if (!p.flat) {
        const uint32_t row = hm::quotient32(p.fours, i), at = (i - row * (uint32_t)p.fours.d) * 4;
        in = hm::row_offset32(p.weights_rows, row) + at, to = hm::row_offset32(p.out_rows, row) + at;
        of = hm::row_offset32(p.scale_rows, row) + at;
    }
    const hm::vec<T, 4> read = *(const hm::vec<T, 4> *)((const T *)p.weights + in);
    float v[4], s[4];
    if (p.scale && !p.scale_bytes) {
        ((const hm::vec<float, 4> *)((const float *)p.scale + of))->get(s);
    } else if (p.scale) {
        const uint32_t codes = *(const uint32_t *)((const uint8_t *)p.scale + of);
#pragma unroll
        for (int k = 0; k < 4; k++) s[k] = e8m0(codes >> 8 * k & 0xff);
    }
    read.get(v);
    hm::vec<float, 4> out;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        if (p.scale) v[k] = __fmul_rn(v[k], s[k]);
        v[k] = __fmul_rn(__fmul_rn(v[k], p.of_dim), p.of_heads);
    }
    out.set(v);
    *(hm::vec<float, 4> *)(p.out + to) = out;
}

template <typename T>
__global__ void __launch_bounds__(THREADS) weigh(const __grid_constant__ params p) {
    hm::wait_for_previous();
    hm::let_next_start();
    int64_t i = p.first + (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= p.end) return;
    int64_t row = hm::quotient(p.heads, i), head = i - row * p.heads.d;
    float v = hm::widen(((const T *)p.weights)[hm::row_offset(p.weights_rows, row) + head * p.weights_step]);
    if (p.scale) {
        int64_t at = hm::row_offset(p.scale_rows, row) + head * p.scale_step;
        float s;
        if (p.scale_bytes) s = e8m0(((const uint8_t *)p.scale)[at]);
        else s = ((const float *)p.scale)[at];
        v = __fmul_rn(v, s);
    }
    p.out[hm::row_offset(p.out_rows, row) + head * p.out_step] = __fmul_rn(__fmul_rn(v, p.of_dim), p.of_heads);
}

} // namespace

extern "C" hm_status hm_index_weights_cuda(const hm_index_weights_args *args) {
    hm_index_weights_args a;
    hm_status s = hm_index_weights_read(args, &a);
    if (s) return s;
    if (a.out.place != HM_CUDA) return hm_fail(HM_UNSUPPORTED, "%s: cuda works on device tensors only", op);
    params p = {};
    p.end = hm_tensor_elements(&a.out);
    if ((s = hm_cuda_ready(op)) || p.end == 0) return s;
    const int last = a.out.ndim - 1;
    const int64_t heads = a.out.shape[last];
    p.weights = a.weights.data, p.scale = a.q_scale.dtype ? a.q_scale.data : nullptr, p.out = (float *)a.out.data;
    p.weights_rows = hm::rows_of(a.weights), p.out_rows = hm::rows_of(a.out);
    p.weights_step = a.weights.stride[last], p.out_step = a.out.stride[last];
    if (p.scale) p.scale_rows = hm::rows_of(a.q_scale), p.scale_step = a.q_scale.stride[last];
    p.heads = hm::divider_of(heads), p.scale_bytes = a.q_scale.dtype == HM_E8M0;
    p.of_dim = (float)hm_inverse_root_f32(a.head_dim), p.of_heads = (float)hm_inverse_root_f32(heads);
    const int64_t size = (int64_t)hm_dtype_size(a.weights.dtype);
    if (heads % 4 == 0 && hm::aligned(a.weights, 4 * size) && hm::aligned(a.out, 16) &&
        (!p.scale || hm::aligned(a.q_scale, p.scale_bytes ? 4 : 16)) && hm::few(p.end + 4 * THREADS)) {
        auto follow = [&](const hm::rows &r) { return r.dims == 0 || (r.dims == 1 && r.stride[0] == heads); };
        four_params f = {p.weights,
                         p.scale,
                         p.out,
                         (uint32_t)(p.end / 4),
                         p.of_dim,
                         p.of_heads,
                         p.scale_bytes,
                         follow(p.weights_rows) && follow(p.out_rows) && (!p.scale || follow(p.scale_rows)),
                         hm::divider_of(heads / 4),
                         p.weights_rows,
                         p.scale_rows,
                         p.out_rows};
        void (*kernel)(four_params) = a.weights.dtype == HM_BF16  ? weigh_four<hm::bf16>
                                      : a.weights.dtype == HM_F16 ? weigh_four<hm::f16>
                                                                  : weigh_four<float>;
        return hm::launch(op, kernel, (f.end - 1) / THREADS + 1, dim3(THREADS), 0, a.stream, f);
    }
    void (*kernel)(params) = a.weights.dtype == HM_BF16  ? weigh<hm::bf16>
                             : a.weights.dtype == HM_F16 ? weigh<hm::f16>
                                                         : weigh<float>;
    return hm::launch_all(op, kernel, p, THREADS, 1, a.stream);
}
