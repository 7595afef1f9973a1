/* linear_fma.cuh: x weight^T in f32, where an operand is f32.
 *
 * Order. 16 neighbours in k make a segment: one chain of fused multiply-adds from 0. 16 segments make a group and are
 * added in order, then the groups are, and the bias comes last. A term passes 16 + 16 + in/256 additions and 2: class
 * chain64. Both kernels follow it: `tile` for many rows; `rows` for few. */
#ifndef HM_CUDA_LINEAR_FMA_CUH
#define HM_CUDA_LINEAR_FMA_CUH

#include "linear.cuh"

namespace hm {

enum { SEGMENT = 16, GROUP = 16 * SEGMENT };

/* SEGMENT elements of each of HIGH rows, from memory by way of registers to shared memory, where rows follow each
 * other. */
template <typename T, int HIGH>
struct fma_operand {
    enum { EACH = HIGH * SEGMENT / 256, PITCH = HIGH + 4 };
    const T *from; /* this thread's row; NULL: none */
    int row, column;
    float v[EACH];
    /* along_rows: threads that follow each other have rows that do. */
    __device__ __forceinline__ void place(bool along_rows) {
        constexpr int ACROSS = SEGMENT / EACH;
        row = along_rows ? threadIdx.x % HIGH : threadIdx.x / ACROSS;
        column = (along_rows ? threadIdx.x / HIGH : threadIdx.x % ACROSS) * EACH;
    }
    __device__ __forceinline__ void read(int64_t k, int64_t in, int64_t step) {
#pragma unroll
        for (int i = 0; i < EACH; i++) v[i] = from && k + column + i < in ? widen(from[(k + column + i) * step]) : 0.0f;
    }
    __device__ __forceinline__ void write(float (*to)[PITCH]) const {
#pragma unroll
        for (int i = 0; i < EACH; i++) to[column + i][row] = v[i];
    }
};

enum { FMA_ROWS = 128, FMA_FEATURES = 64 };

/* 8 x 4 sums a thread. */
template <typename X, typename W>
__global__ void __launch_bounds__(256, 2) linear_fma_tile(const __grid_constant__ linear_params p) {
    __shared__ __align__(16) float x[2][SEGMENT][FMA_ROWS + 4], weight[2][SEGMENT][FMA_FEATURES + 4];
    wait_for_previous();
    let_next_start();
    const int m = threadIdx.x / 16 * 8, n = threadIdx.x % 16 * 4;
    fma_operand<X, FMA_ROWS> a;
    fma_operand<W, FMA_FEATURES> b;
    a.place(p.x_step != 1), b.place(p.weight_step != 1);
    for (int64_t tile = blockIdx.x; tile < p.row_tiles * p.feature_tiles; tile += gridDim.x) {
        const int64_t row0 = tile / p.feature_tiles * FMA_ROWS, feature0 = tile % p.feature_tiles * FMA_FEATURES;
        const int64_t row = row0 + a.row, feature = feature0 + b.row;
        a.from = row < p.rows ? (const X *)p.x + row_offset(p.x_rows, row) : nullptr;
        b.from = feature < p.features ? (const W *)p.weight + feature * p.weight_row : nullptr;
        float segment[8][4], group[8][4] = {}, total[8][4] = {};
        int stage = 0;
        a.read(0, p.in, p.x_step), b.read(0, p.in, p.weight_step);
        for (int64_t k = 0; k < p.in; k += SEGMENT, stage ^= 1) {
            a.write(x[stage]), b.write(weight[stage]);
            __syncthreads();
            if (k + SEGMENT < p.in) a.read(k + SEGMENT, p.in, p.x_step), b.read(k + SEGMENT, p.in, p.weight_step);
#pragma unroll
            for (int kk = 0; kk < SEGMENT; kk++) {
                const float4 u = *(const float4 *)&x[stage][kk][m], v = *(const float4 *)&x[stage][kk][m + 4];
                const float4 w = *(const float4 *)&weight[stage][kk][n];
                const float left[8] = {u.x, u.y, u.z, u.w, v.x, v.y, v.z, v.w}, right[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
                for (int i = 0; i < 8; i++)
#pragma unroll
                    for (int j = 0; j < 4; j++) segment[i][j] = __fmaf_rn(left[i], right[j], kk ? segment[i][j] : 0.0f);
            }
            const bool end = (k + SEGMENT) % GROUP == 0 || k + SEGMENT >= p.in;
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    group[i][j] = __fadd_rn(group[i][j], segment[i][j]);
                    if (end) total[i][j] = __fadd_rn(total[i][j], group[i][j]), group[i][j] = 0.0f;
                }
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (row0 + m + i >= p.rows) continue;
            const int64_t offset = row_offset(p.out_rows, row0 + m + i);
#pragma unroll
            for (int j = 0; j < 4; j++)
                if (feature0 + n + j < p.features) linear_store<X>(p, offset, feature0 + n + j, total[i][j]);
        }
        __syncthreads();
    }
}

enum { FEW_ROWS = 8, FEW_FEATURES = 2, FEW_THREADS = 512 };

/* 16 neighbours; what lies behind the end is 0. close: they can be read 16 bytes at a time. */
template <typename T>
__device__ __forceinline__ void read_segment(const T *from, int64_t k, int64_t in, int64_t step, bool close, float *v) {
    if (close && k + SEGMENT <= in) {
        constexpr int EACH = 16 / sizeof(T);
#pragma unroll
        for (int i = 0; i < SEGMENT / EACH; i++) ((const vec<T, EACH> *)(from + k))[i].get(v + i * EACH);
        return;
    }
#pragma unroll
    for (int i = 0; i < SEGMENT; i++) v[i] = k + i < in ? widen(from[(k + i) * step]) : 0.0f;
}

/* A thread has one segment of all rows and features of the block at a time. */
template <typename X, typename W>
__global__ void __launch_bounds__(FEW_THREADS) linear_fma_rows(const __grid_constant__ linear_params p) {
    enum { PAIRS = FEW_ROWS * FEW_FEATURES };
    __shared__ float segments[PAIRS][FEW_THREADS + FEW_THREADS / 16], groups[PAIRS][FEW_THREADS / 16];
    wait_for_previous();
    let_next_start();
    const int threads = blockDim.x, of_segments = threads / 16;
    for (int64_t tile = blockIdx.x; tile < p.row_tiles * p.feature_tiles; tile += gridDim.x) {
        const int64_t row0 = tile / p.feature_tiles * FEW_ROWS, feature0 = tile % p.feature_tiles * FEW_FEATURES;
        const int rows = (int)(p.rows - row0 < FEW_ROWS ? p.rows - row0 : FEW_ROWS);
        const int features = (int)(p.features - feature0 < FEW_FEATURES ? p.features - feature0 : FEW_FEATURES);
        const int pair = threadIdx.x, row = pair / FEW_FEATURES, feature = pair % FEW_FEATURES;
        const bool mine = row < rows && feature < features;
        float total = 0.0f; /* of the pair */
        for (int64_t base = 0; base < p.in; base += threads * SEGMENT) {
            const int64_t k = base + threadIdx.x * SEGMENT;
            const int at = threadIdx.x / 16 * 17 + threadIdx.x % 16;
            float b[FEW_FEATURES][SEGMENT], a[SEGMENT];
#pragma unroll
            for (int f = 0; f < FEW_FEATURES; f++)
                if (k < p.in && f < features)
                    read_segment((const W *)p.weight + (feature0 + f) * p.weight_row, k, p.in, p.weight_step,
                                 p.weight_close, b[f]);
#pragma unroll 2
            for (int r = 0; r < rows; r++) {
                if (k < p.in)
                    read_segment((const X *)p.x + row_offset(p.x_rows, row0 + r), k, p.in, p.x_step, p.x_close, a);
#pragma unroll
                for (int f = 0; f < FEW_FEATURES; f++) {
                    float sum = 0.0f;
                    if (k < p.in && f < features) {
#pragma unroll
                        for (int i = 0; i < SEGMENT; i++) sum = __fmaf_rn(a[i], b[f][i], sum);
                    }
                    segments[r * FEW_FEATURES + f][at] = sum;
                }
            }
            __syncthreads();
            for (int i = threadIdx.x; i < rows * FEW_FEATURES * of_segments; i += threads) {
                float sum = 0.0f;
                const float *from = &segments[i / of_segments][i % of_segments * 17];
#pragma unroll
                for (int j = 0; j < 16; j++) sum = __fadd_rn(sum, from[j]);
                groups[i / of_segments][i % of_segments] = sum;
            }
            __syncthreads();
            if (mine)
                for (int g = 0; g < of_segments && base + g * GROUP < p.in; g++)
                    total = __fadd_rn(total, groups[pair][g]);
        }
        if (mine) linear_store<X>(p, row_offset(p.out_rows, row0 + row), feature0 + feature, total);
        __syncthreads();
    }
}

} // namespace hm

#endif
