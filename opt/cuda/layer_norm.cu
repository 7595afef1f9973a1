/* layer_norm: two passes, as in the contract: the mean, then the mean of the squares about it. Rows are held in
 * registers where everything lies at multiples of 16 bytes and they are not too long; the order of summation is that
 * of row.cuh. */
#include "row.cuh"

extern "C" {
#include "../../op/layer_norm.h"
}

static const char op[] = "layer_norm";

namespace {

struct params {
    const void *x, *weight, *bias;
    void *out;
    hm::rows x_rows, out_rows;
    int64_t x_step, weight_step, bias_step, out_step; /* elements from one to the next in a row */
    int64_t first, count, hidden;                     /* first: row of block 0 */
    int pieces;                                       /* of a thread */
    float per_mean, eps;
    bool weight_wide, bias_wide; /* f32, where T is not */
};

/* Sum of the first n elements of one piece; those past them are not there. */
template <int VEC>
__device__ __forceinline__ float sum_of(const float *v, int64_t n) {
    float half[2] = {0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < VEC / 2; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) half[h] = __fadd_rn(half[h], h * (VEC / 2) + i < n ? v[h * (VEC / 2) + i] : 0.0f);
    return __fadd_rn(half[0], half[1]);
}

template <int VEC>
__device__ __forceinline__ float sum_of_squares_about(const float *v, float mean, int64_t n) {
    float half[2] = {0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < VEC / 2; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float d = h * (VEC / 2) + i < n ? __fsub_rn(v[h * (VEC / 2) + i], mean) : 0.0f;
            half[h] = __fmaf_rn(d, d, half[h]);
        }
    return __fadd_rn(half[0], half[1]);
}

/* A piece of weight or bias. */
template <typename T, int VEC, bool ALIGNED>
__device__ __forceinline__ void read_channel(const void *t, bool wide, int64_t step, int64_t first, int64_t hidden,
                                             float absent, float *v) {
    if (!t) {
#pragma unroll
        for (int i = 0; i < VEC; i++) v[i] = absent;
    } else if (wide) hm::read_piece<float, VEC, ALIGNED>((const float *)t, step, first, hidden, v);
    else hm::read_piece<T, VEC, ALIGNED>((const T *)t, step, first, hidden, v);
}

template <int VEC>
__device__ __forceinline__ void normalise(float mean, float rs, const float *weight, const float *bias, float *v) {
#pragma unroll
    for (int i = 0; i < VEC; i++) v[i] = __fadd_rn(__fmul_rn(__fmul_rn(__fsub_rn(v[i], mean), rs), weight[i]), bias[i]);
}

/* sum_of_row, for whole warps: several rows of 32 threads, or one row. */
__device__ __forceinline__ float sum_over(float v, float *shared) {
    if (blockDim.x > 32) return hm::sum_of_long_row(v, shared);
#pragma unroll
    for (int step = 16; step; step /= 2) v = __fadd_rn(v, __shfl_xor_sync(~0u, v, step));
    return v;
}

template <typename T, int VEC, bool ALIGNED>
__device__ __forceinline__ void write_normalised(const params &p, T *out, int64_t first, float mean, float rs,
                                                 float *v) {
    float weight[VEC], bias[VEC];
    read_channel<T, VEC, ALIGNED>(p.weight, p.weight_wide, p.weight_step, first, p.hidden, 1.0f, weight);
    read_channel<T, VEC, ALIGNED>(p.bias, p.bias_wide, p.bias_step, first, p.hidden, 0.0f, bias);
    normalise<VEC>(mean, rs, weight, bias, v);
    hm::write_piece<T, VEC, ALIGNED>(out, p.out_step, first, p.hidden, v);
}

__device__ __forceinline__ float reciprocal_root(const params &p, float squares) {
    return rsqrtf(__fadd_rn(__fmul_rn(squares, p.per_mean), p.eps));
}

/* Weight and bias are both there and of T, or both f32; or whatever the parameters say. */
enum channels { AS_SAID, SAME, WIDE };

template <typename T, int PIECES, channels KIND>
__global__ void __launch_bounds__(hm::HELD_LANES, PIECES == 2 && KIND != AS_SAID ? 4 : 1)
    held(const __grid_constant__ params p) {
    constexpr int VEC = 16 / sizeof(T);
    __shared__ float shared[2][32];
    hm::wait_for_previous();
    const int pieces = (int)p.hidden / VEC, lane = threadIdx.x;
    const uint32_t row = blockIdx.x * blockDim.y + threadIdx.y;
    const int mine = row < (uint32_t)p.count ? pieces : 0; /* pieces that this thread may touch */
    const hm::vec<T, VEC> *x = (const hm::vec<T, VEC> *)((const T *)p.x + hm::row_offset32(p.x_rows, row));
    T *out = (T *)p.out + hm::row_offset32(p.out_rows, row);
    hm::vec<T, VEC> in[PIECES] = {};
    float sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (int k = 0; k < PIECES; k++)
        if ((int)(k * blockDim.x) + lane < mine) in[k] = x[k * blockDim.x + lane];
    hm::let_next_start();
#pragma unroll
    for (int k = 0; k < PIECES; k++) {
        float v[VEC];
        in[k].get(v);
        sum = __fadd_rn(sum, sum_of<VEC>(v, VEC));
    }
    const float mean = __fmul_rn(PIECES == 1 ? hm::sum_of_row(sum, shared[0]) : sum_over(sum, shared[0]), p.per_mean);
#pragma unroll
    for (int k = 0; k < PIECES; k++) {
        float v[VEC];
        in[k].forget();
        in[k].get(v);
        if ((int)(k * blockDim.x) + lane < mine) squares = __fadd_rn(squares, sum_of_squares_about<VEC>(v, mean, VEC));
    }
    const float rs =
        reciprocal_root(p, PIECES == 1 ? hm::sum_of_row(squares, shared[1]) : sum_over(squares, shared[1]));
#pragma unroll
    for (int k = 0; k < PIECES; k++) {
        const int at = k * blockDim.x + lane;
        float v[VEC], weight[VEC], bias[VEC];
        in[k].forget();
        in[k].get(v);
        if (at >= mine) continue;
        if (KIND == SAME) {
            ((const hm::vec<T, VEC> *)p.weight)[at].get(weight), ((const hm::vec<T, VEC> *)p.bias)[at].get(bias);
        } else if (KIND == WIDE) {
            ((const hm::vec<float, VEC> *)p.weight)[at].get(weight),
                ((const hm::vec<float, VEC> *)p.bias)[at].get(bias);
        } else {
            read_channel<T, VEC, true>(p.weight, p.weight_wide, 1, at * VEC, p.hidden, 1.0f, weight);
            read_channel<T, VEC, true>(p.bias, p.bias_wide, 1, at * VEC, p.hidden, 0.0f, bias);
        }
        normalise<VEC>(mean, rs, weight, bias, v);
        hm::write_piece<T, VEC, true>(out, 1, at * VEC, p.hidden, v);
    }
}

template <typename T, bool ALIGNED>
__global__ void __launch_bounds__(1024) any(const __grid_constant__ params p) {
    constexpr int VEC = 16 / sizeof(T);
    __shared__ float shared[2][32];
    hm::wait_for_previous();
    hm::let_next_start();
    const int64_t row = p.first + (int64_t)blockIdx.x * blockDim.y + threadIdx.y, mine = row < p.count ? p.hidden : 0;
    const T *x = (const T *)p.x + hm::row_offset(p.x_rows, row);
    T *out = (T *)p.out + hm::row_offset(p.out_rows, row);
    float sum = 0.0f, squares = 0.0f, v[VEC];
    for (int k = 0; k < p.pieces; k++) {
        int64_t first = ((int64_t)k * blockDim.x + threadIdx.x) * VEC;
        if (first >= mine) break;
        hm::read_piece<T, VEC, ALIGNED>(x, p.x_step, first, p.hidden, v);
        sum = __fadd_rn(sum, sum_of<VEC>(v, mine - first));
    }
    const float mean = __fmul_rn(hm::sum_of_row(sum, shared[0]), p.per_mean);
    for (int k = 0; k < p.pieces; k++) {
        int64_t first = ((int64_t)k * blockDim.x + threadIdx.x) * VEC;
        if (first >= mine) break;
        hm::read_piece<T, VEC, ALIGNED>(x, p.x_step, first, p.hidden, v);
        squares = __fadd_rn(squares, sum_of_squares_about<VEC>(v, mean, mine - first));
    }
    const float rs = reciprocal_root(p, hm::sum_of_row(squares, shared[1]));
    for (int k = 0; k < p.pieces; k++) {
        int64_t first = ((int64_t)k * blockDim.x + threadIdx.x) * VEC;
        if (first >= mine) break;
        hm::read_piece<T, VEC, ALIGNED>(x, p.x_step, first, p.hidden, v);
        write_normalised<T, VEC, ALIGNED>(p, out, first, mean, rs, v);
    }
}

template <typename T, int PIECES>
void (*held_of(channels kind))(params) {
    if constexpr (sizeof(T) == 2)
        if (kind == WIDE) return held<T, PIECES, WIDE>;
    return kind == SAME ? held<T, PIECES, SAME> : held<T, PIECES, AS_SAID>;
}

template <typename T>
hm_status run(const hm_layer_norm_args &a) {
    const int vec = 16 / (int)sizeof(T);
    params p = {};
    p.x = a.x.data, p.out = a.out.data;
    p.weight = a.weight.dtype ? a.weight.data : nullptr, p.bias = a.bias.dtype ? a.bias.data : nullptr;
    p.weight_wide = a.weight.dtype == HM_F32, p.bias_wide = a.bias.dtype == HM_F32;
    p.x_rows = hm::rows_of(a.x), p.out_rows = hm::rows_of(a.out);
    p.x_step = a.x.stride[a.x.ndim - 1], p.out_step = a.out.stride[a.out.ndim - 1];
    p.weight_step = a.weight.stride[0], p.bias_step = a.bias.stride[0];
    p.count = hm_row_count(&a.x), p.hidden = a.x.shape[a.x.ndim - 1];
    p.per_mean = (float)(1.0 / (double)p.hidden), p.eps = (float)a.eps;
    const hm::row_shape s = hm::row_shape_of(p.hidden, vec);
    const bool aligned = p.hidden % vec == 0 && hm::few(p.count + s.rows) && hm::aligned(a.x, 16) &&
                         hm::aligned(a.out, 16) && (!p.weight || hm::aligned(a.weight, 16)) &&
                         (!p.bias || hm::aligned(a.bias, 16));
    p.pieces = s.pieces;
    const bool both = p.weight && p.bias && a.weight.dtype == a.bias.dtype;
    const channels kind = both && a.weight.dtype == a.x.dtype ? SAME : both && p.weight_wide ? WIDE : AS_SAID;
    void (*kernel)(params) = !aligned                   ? any<T, false>
                             : s.lanes > hm::HELD_LANES ? any<T, true>
                             : s.pieces == 1            ? held_of<T, 1>(kind)
                             : s.pieces == 2            ? held_of<T, 2>(kind)
                                                        : held<T, 4, AS_SAID>;
    return hm::launch_rows(op, kernel, p, s, a.stream);
}

} // namespace

extern "C" hm_status hm_layer_norm_cuda(const hm_layer_norm_args *args) {
    hm_layer_norm_args a;
    hm_status s = hm_layer_norm_read(args, &a);
    if (s) return s;
    if (a.x.place != HM_CUDA) return hm_fail(HM_UNSUPPORTED, "%s: cuda works on device tensors only", op);
    if ((s = hm_cuda_ready(op)) || hm_tensor_elements(&a.x) == 0) return s;
    return a.x.dtype == HM_BF16 ? run<hm::bf16>(a) : a.x.dtype == HM_F16 ? run<hm::f16>(a) : run<float>(a);
}
