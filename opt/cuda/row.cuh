/* row.cuh: sums over rows, for the norms.
 *
 * Order of summation. A row is cut into pieces of VEC elements (16 bytes of x). Piece p belongs to thread p % lanes of
 * the row's threads. A thread adds the terms of a piece in two chains of VEC/2, adds up its pieces in ascending order,
 * and the threads' sums meet in a butterfly within each warp, then in one over the warps. lanes depends on the row's
 * length and on the dtype of x alone, and all kernels below follow this order, so that the bits of a row depend on
 * nothing but the row, the weight and the scalars: not on other rows, strides, alignment or what the launch looked
 * like. Class chain64: a term passes through at most VEC/2 + 1 additions in its piece, one for each piece of the
 * thread, 5 and 5 in the butterflies. pieces of a thread <= 4, or hidden / (VEC * 1024) + 1 with 1024 lanes: less than
 * 64 + hidden / 256. */
#ifndef HM_CUDA_ROW_CUH
#define HM_CUDA_ROW_CUH

#include "common.cuh"

namespace hm {

/* How a row is spread over threads. */
struct row_shape {
    int lanes, rows, pieces; /* threads of a row, rows of a block, pieces of a thread */
};

enum { HELD_LANES = 512 }; /* threads at most of a row that is held in registers */

/* lanes <= 32: a power of two, several rows to a block; else whole warps, one row to a block. */
static inline row_shape row_shape_of(int64_t hidden, int vec) {
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
#pragma unroll
    for (int step = 16; step; step /= 2)
        if (step < width) v = __fadd_rn(v, __shfl_xor_sync(~0u, v, step));
    if (blockDim.x <= 32) return v;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (lane == 0) shared[warp] = v;
    __syncthreads();
    v = lane < blockDim.x / 32 ? shared[lane] : 0.0f;
    for (int step = 16; step; step /= 2) v = __fadd_rn(v, __shfl_xor_sync(~0u, v, step));
    return v;
}

/* The same for one row of whole warps, at most 16 of them. */
__device__ __forceinline__ float sum_of_long_row(float v, float *shared) {
#pragma unroll
    for (int step = 16; step; step /= 2) v = __fadd_rn(v, __shfl_xor_sync(~0u, v, step));
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (lane == 0) shared[warp] = v;
    __syncthreads();
    /* the butterfly's first step adds the sums of warps 16 to 31, which are 0 */
    v = __fadd_rn((lane & 15) < blockDim.x / 32 ? shared[lane & 15] : 0.0f, 0.0f);
#pragma unroll
    for (int step = 8; step; step /= 2) v = __fadd_rn(v, __shfl_xor_sync(~0u, v, step));
    return v;
}

/* One piece as floats; elements past the row's end are 0. */
template <typename T, int VEC, bool ALIGNED>
__device__ __forceinline__ void read_piece(const T *row, int64_t step, int64_t first, int64_t hidden, float *v) {
    if (ALIGNED) {
        ((const vec<T, VEC> *)(row + first))->get(v);
    } else {
#pragma unroll
        for (int i = 0; i < VEC; i++) v[i] = first + i < hidden ? widen(row[(first + i) * step]) : 0.0f;
    }
}

template <typename T, int VEC, bool ALIGNED>
__device__ __forceinline__ void write_piece(T *row, int64_t step, int64_t first, int64_t hidden, const float *v) {
    if (ALIGNED) {
        vec<T, VEC> to;
        to.set(v);
        *(vec<T, VEC> *)(row + first) = to;
    } else {
#pragma unroll
        for (int i = 0; i < VEC; i++)
            if (first + i < hidden) row[(first + i) * step] = narrow<T>(v[i]);
    }
}

/* A kernel whose block b does the rows from p.first + b * s.rows on. */
template <typename P>
static hm_status launch_rows(const char *op, void (*kernel)(P), P p, const row_shape &s, void *stream) {
    for (int64_t blocks = (p.count - 1) / s.rows + 1; blocks > 0; blocks -= INT32_MAX) {
        hm_status status = launch(op, kernel, blocks, dim3(s.lanes, s.rows), 0, stream, p);
        if (status) return status;
        p.first += (int64_t)INT32_MAX * s.rows;
    }
    return HM_OK;
}

} // namespace hm

#endif
