/* norm.cuh: the kernels of rms_norm and fused_add_rms_norm.
 *
 * Order of summation. A row is cut into pieces of VEC elements (16 bytes of x). Piece p belongs to thread p % lanes of the
 * row's threads. A thread adds the squares of a piece in two chains of VEC/2, adds up its pieces in ascending order, and
 * the threads' sums meet in a butterfly within each warp, then in one over the warps. lanes depends on the row's length and
 * on the dtype of x alone, and all kernels below follow this order, so that the bits of a row depend on nothing but the
 * row, the weight and the scalars: not on other rows, strides, alignment or what the launch looked like.
 * Class chain64: a term passes through at most VEC/2 + 1 additions in its piece, one for each piece of the thread, 5 and 5
 * in the butterflies. pieces of a thread <= 4, or hidden / (VEC * 1024) + 1 with 1024 lanes: less than 64 + hidden / 256. */
#ifndef HM_CUDA_NORM_CUH
#define HM_CUDA_NORM_CUH

#include "common.cuh"

extern "C" {
#include "../../op/rms_norm.h"
#include "hallmark/fused_add_rms_norm.h"
}

namespace hm {

struct norm_params {
    const void *x, *residual, *weight;
    void *out, *residual_out;
    rows x_rows, residual_rows, out_rows, residual_out_rows;
    int64_t x_step, residual_step, weight_step, out_step,
        residual_out_step; /* elements from one to the next in a row */
    int64_t count, hidden, variance_size;
    int pieces; /* of a thread, where the kernel does not know */
    float per_mean, eps;
    bool norm_first, one_plus, residual_wide, read_rounded;
};

/* How a row is spread over threads. */
struct norm_shape {
    int lanes, rows, pieces; /* threads of a row, rows of a block, pieces of a thread */
};

enum { HELD_LANES = 512 }; /* threads at most of a row that is held in registers */

/* lanes <= 32: a power of two, several rows to a block; else whole warps, one row to a block. */
static inline norm_shape norm_shape_of(int64_t hidden, int vec) {
    int64_t pieces = (hidden + vec - 1) / vec;
    int lanes = 1;
    if (pieces <= 32) {
        while (lanes < pieces) lanes *= 2;
        return {lanes, 128 / lanes, 1};
    }
    if (pieces <= 64) return {32, 4, 2};
    if (pieces <= 128) return {32, 4, 4};
    if (pieces > 4 * HELD_LANES) return {1024, 1, (int)((pieces + 1023) / 1024)};
    int each = pieces <= 2 * HELD_LANES ? 2 : 4;
    return {(int)((pieces + each - 1) / each + 31) / 32 * 32, 1, each};
}

/* Sum over the lanes of each row; all threads of the block take part. shared: 32 floats. */
__device__ __forceinline__ float sum_of_row(float v, float *shared) {
    int width = blockDim.x < 32 ? blockDim.x : 32;
    for (int step = width / 2; step; step /= 2) v = __fadd_rn(v, __shfl_xor_sync(~0u, v, step));
    if (blockDim.x <= 32) return v;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (lane == 0) shared[warp] = v;
    __syncthreads();
    v = lane < blockDim.x / 32 ? shared[lane] : 0.0f;
    for (int step = 16; step; step /= 2) v = __fadd_rn(v, __shfl_xor_sync(~0u, v, step));
    return v;
}

/* Squares of one piece; first: index of its element 0. */
template <int VEC>
__device__ __forceinline__ float sum_of_squares(const float *v, int64_t first, int64_t variance_size) {
    float half[2] = {0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < VEC / 2; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float a = first + h * (VEC / 2) + i < variance_size ? v[h * (VEC / 2) + i] : 0.0f;
            half[h] = __fmaf_rn(a, a, half[h]);
        }
    return __fadd_rn(half[0], half[1]);
}

__device__ __forceinline__ float reciprocal_root(const norm_params &p, float sum) {
    return rsqrtf(__fadd_rn(__fmul_rn(sum, p.per_mean), p.eps));
}

template <typename T>
__device__ __forceinline__ T normalised(const norm_params &p, float v, float rs, float weight) {
    float n = __fmul_rn(v, rs);
    if (!p.weight) return narrow<T>(n);
    if (p.norm_first) n = widen(narrow<T>(n));
    return narrow<T>(__fmul_rn(n, p.one_plus ? __fadd_rn(1.0f, weight) : weight));
}

/* What the norm reads of an element, and what is stored of the sum. */
template <typename T, typename R>
__device__ __forceinline__ float added(const norm_params &p, float x, float residual, R *stored) {
    float z = __fadd_rn(x, residual);
    *stored = narrow<R>(z);
    return p.read_rounded ? widen(*stored) : z;
}

/* ---- rows that are held in registers; everything is aligned ---- */

template <typename T, typename W, typename R, int PIECES, bool FUSED>
__global__ void __launch_bounds__(HELD_LANES) norm_held(const __grid_constant__ norm_params p) {
    constexpr int VEC = 16 / sizeof(T);
    __shared__ float shared[32];
    wait_for_previous();
    int pieces = (int)(p.hidden / VEC), lane = threadIdx.x;
    for (int64_t block = (int64_t)blockIdx.x * blockDim.y; block < p.count; block += (int64_t)gridDim.x * blockDim.y) {
        int64_t row = block + threadIdx.y;
        bool live = row < p.count;
        const T *x = (const T *)p.x + row_offset(p.x_rows, row);
        vec<T, VEC> in[PIECES] = {};
        vec<W, VEC> weight[PIECES] = {};
        float v[PIECES * VEC];
#pragma unroll
        for (int k = 0; k < PIECES; k++) {
            int piece = k * blockDim.x + lane;
            if (live && piece < pieces) in[k] = ((const vec<T, VEC> *)x)[piece];
        }
        if constexpr (FUSED) {
            vec<R, VEC> residual[PIECES] = {};
#pragma unroll
            for (int k = 0; k < PIECES; k++) {
                int piece = k * blockDim.x + lane;
                if (!live || piece >= pieces) continue;
                int64_t at = row_offset(p.residual_rows, row) + (int64_t)piece * VEC;
                if (sizeof(R) == sizeof(T) || p.residual_wide)
                    residual[k] = *(const vec<R, VEC> *)((const R *)p.residual + at);
                else {
                    vec<T, VEC> same = *(const vec<T, VEC> *)((const T *)p.residual + at);
#pragma unroll
                    for (int i = 0; i < VEC; i++) residual[k].v[i] = narrow<R>(widen(same.v[i]));
                }
            }
#pragma unroll
            for (int k = 0; k < PIECES; k++) {
                int piece = k * blockDim.x + lane;
                vec<R, VEC> stored;
#pragma unroll
                for (int i = 0; i < VEC; i++)
                    v[k * VEC + i] = added<T, R>(p, widen(in[k].v[i]), widen(residual[k].v[i]), &stored.v[i]);
                if (live && piece < pieces)
                    *(vec<R, VEC> *)((R *)p.residual_out + row_offset(p.residual_out_rows, row) +
                                     (int64_t)piece * VEC) = stored;
            }
        } else {
#pragma unroll
            for (int k = 0; k < PIECES * VEC; k++) v[k] = widen(in[k / VEC].v[k % VEC]);
        }
        if (p.weight)
#pragma unroll
            for (int k = 0; k < PIECES; k++) {
                int piece = k * blockDim.x + lane;
                if (piece < pieces) weight[k] = ((const vec<W, VEC> *)p.weight)[piece];
            }
        let_next_start();
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < PIECES; k++)
            sum = __fadd_rn(sum,
                            sum_of_squares<VEC>(v + k * VEC, (int64_t)(k * blockDim.x + lane) * VEC, p.variance_size));
        float rs = reciprocal_root(p, sum_of_row(sum, shared));
        T *out = (T *)p.out + row_offset(p.out_rows, row);
#pragma unroll
        for (int k = 0; k < PIECES; k++) {
            int piece = k * blockDim.x + lane;
            vec<T, VEC> to;
#pragma unroll
            for (int i = 0; i < VEC; i++) to.v[i] = normalised<T>(p, v[k * VEC + i], rs, widen(weight[k].v[i]));
            if (live && piece < pieces) ((vec<T, VEC> *)out)[piece] = to;
        }
        if (block + (int64_t)gridDim.x * blockDim.y < p.count) __syncthreads(); /* shared is used again */
    }
}

/* ---- any row: read twice; for long rows and for any stride and alignment ---- */

/* One piece as floats; elements past the row's end are 0. */
template <typename T, int VEC, bool ALIGNED>
__device__ __forceinline__ void read_piece(const T *row, int64_t step, int64_t first, int64_t hidden, float *v) {
    if (ALIGNED) {
        vec<T, VEC> in = *(const vec<T, VEC> *)(row + first);
#pragma unroll
        for (int i = 0; i < VEC; i++) v[i] = widen(in.v[i]);
    } else {
#pragma unroll
        for (int i = 0; i < VEC; i++) v[i] = first + i < hidden ? widen(row[(first + i) * step]) : 0.0f;
    }
}

template <typename T, int VEC, bool ALIGNED>
__device__ __forceinline__ void write_piece(T *row, int64_t step, int64_t first, int64_t hidden, const T *v) {
    if (ALIGNED) {
        vec<T, VEC> to;
#pragma unroll
        for (int i = 0; i < VEC; i++) to.v[i] = v[i];
        *(vec<T, VEC> *)(row + first) = to;
    } else {
#pragma unroll
        for (int i = 0; i < VEC; i++)
            if (first + i < hidden) row[(first + i) * step] = v[i];
    }
}

/* What the norm reads of one piece, and for FUSED what is stored of it. */
template <typename T, typename R, int VEC, bool ALIGNED, bool FUSED>
__device__ __forceinline__ void read_summed(const norm_params &p, int64_t row, int64_t first, float *v, R *stored) {
    read_piece<T, VEC, ALIGNED>((const T *)p.x + row_offset(p.x_rows, row), p.x_step, first, p.hidden, v);
    if constexpr (FUSED) {
        float residual[VEC];
        int64_t at = row_offset(p.residual_rows, row);
        if (sizeof(R) == sizeof(T) || p.residual_wide)
            read_piece<R, VEC, ALIGNED>((const R *)p.residual + at, p.residual_step, first, p.hidden, residual);
        else read_piece<T, VEC, ALIGNED>((const T *)p.residual + at, p.residual_step, first, p.hidden, residual);
#pragma unroll
        for (int i = 0; i < VEC; i++) v[i] = added<T, R>(p, v[i], residual[i], &stored[i]);
    }
}

template <typename T, typename W, typename R, bool ALIGNED, bool FUSED>
__global__ void __launch_bounds__(1024) norm_any(const __grid_constant__ norm_params p) {
    constexpr int VEC = 16 / sizeof(T);
    __shared__ float shared[32];
    wait_for_previous();
    let_next_start();
    for (int64_t block = (int64_t)blockIdx.x * blockDim.y; block < p.count; block += (int64_t)gridDim.x * blockDim.y) {
        int64_t row = block + threadIdx.y;
        bool live = row < p.count;
        float sum = 0.0f, v[VEC];
        R stored[VEC];
        for (int k = 0; k < p.pieces; k++) {
            int64_t first = ((int64_t)k * blockDim.x + threadIdx.x) * VEC;
            if (!live || first >= p.hidden) break;
            read_summed<T, R, VEC, ALIGNED, FUSED>(p, row, first, v, stored);
            sum = __fadd_rn(sum, sum_of_squares<VEC>(v, first, p.variance_size));
        }
        float rs = reciprocal_root(p, sum_of_row(sum, shared));
        for (int k = 0; k < p.pieces; k++) {
            int64_t first = ((int64_t)k * blockDim.x + threadIdx.x) * VEC;
            if (!live || first >= p.hidden) break;
            read_summed<T, R, VEC, ALIGNED, FUSED>(p, row, first, v, stored);
            float weight[VEC] = {};
            if (p.weight) read_piece<W, VEC, ALIGNED>((const W *)p.weight, p.weight_step, first, p.hidden, weight);
            T to[VEC];
#pragma unroll
            for (int i = 0; i < VEC; i++) to[i] = normalised<T>(p, v[i], rs, weight[i]);
            if constexpr (FUSED)
                write_piece<R, VEC, ALIGNED>((R *)p.residual_out + row_offset(p.residual_out_rows, row),
                                             p.residual_out_step, first, p.hidden, stored);
            write_piece<T, VEC, ALIGNED>((T *)p.out + row_offset(p.out_rows, row), p.out_step, first, p.hidden, to);
        }
        if (block + (int64_t)gridDim.x * blockDim.y < p.count) __syncthreads();
    }
}

/* ---- on the host ---- */

static inline norm_params norm_params_of(const hm_tensor &x, const hm_tensor &weight, const hm_tensor &out, double eps,
                                         hm_round round, hm_weight_form form, int64_t variance_size) {
    norm_params p = {};
    p.x = x.data, p.weight = weight.dtype ? weight.data : nullptr, p.out = out.data;
    p.x_rows = rows_of(x), p.out_rows = rows_of(out);
    p.x_step = x.stride[x.ndim - 1], p.weight_step = weight.stride[0], p.out_step = out.stride[out.ndim - 1];
    p.count = hm_row_count(&x), p.hidden = x.shape[x.ndim - 1];
    p.variance_size = variance_size ? variance_size : p.hidden;
    p.per_mean = (float)(1.0 / (double)p.variance_size), p.eps = (float)eps;
    p.norm_first = round == HM_ROUND_NORM_FIRST, p.one_plus = form == HM_WEIGHT_ONE_PLUS;
    return p;
}

/* all_aligned: every tensor that there is can be read in pieces. */
template <typename T, typename W, typename R, bool FUSED>
static hm_status norm_launch(const char *op, norm_params p, bool all_aligned, void *stream) {
    norm_shape s = norm_shape_of(p.hidden, 16 / sizeof(T));
    int64_t blocks = (p.count - 1) / s.rows + 1;
    dim3 threads(s.lanes, s.rows);
    p.pieces = s.pieces;
    all_aligned = all_aligned && p.hidden % (16 / sizeof(T)) == 0;
    void (*kernel)(norm_params) = !all_aligned           ? norm_any<T, W, R, false, FUSED>
                                  : s.lanes > HELD_LANES ? norm_any<T, W, R, true, FUSED>
                                  : s.pieces == 1        ? norm_held<T, W, R, 1, FUSED>
                                  : s.pieces == 2        ? norm_held<T, W, R, 2, FUSED>
                                                         : norm_held<T, W, R, 4, FUSED>;
    return launch(op, kernel, blocks, threads, 0, stream, p);
}

} // namespace hm

#endif
