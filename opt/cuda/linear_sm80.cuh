/* linear_sm80.cuh: x weight^T on the tensor cores of compute capability 8.0, for any strides: 64 rows by 64 features a
 * block, products of 16 k at a time added to one accumulator in ascending order. */
#ifndef HM_CUDA_LINEAR_SM80_CUH
#define HM_CUDA_LINEAR_SM80_CUH

#include "linear.cuh"

namespace hm {

__device__ __forceinline__ void multiply_16x8(float *d, const uint32_t *a, const uint32_t *b, bf16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, "
        "%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void multiply_16x8(float *d, const uint32_t *a, const uint32_t *b, f16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
        "%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

enum { MMA_K = 32, MMA_PITCH = MMA_K + 8 }; /* a pitch of 80 bytes: 8 rows by 4 words lie in 32 banks */

/* 64 rows by MMA_K elements, 16 of them for a thread, between memory, registers and shared memory. */
template <typename T>
struct mma_tile {
    T v[16];
    /* along_rows: threads that follow each other have rows that do. */
    static __device__ __forceinline__ void place(int i, bool along_rows, int *row, int *column) {
        *row = along_rows ? threadIdx.x % 64 : threadIdx.x / 2;
        *column = along_rows ? threadIdx.x / 64 * 16 + i : threadIdx.x % 2 * 16 + i;
    }
    template <typename F>
    __device__ __forceinline__ void read(int64_t live, int64_t in, int64_t k, int64_t step, bool along_rows,
                                         const F &row_at) {
        int row, column;
        place(0, along_rows, &row, &column);
        const T *from = row < live ? row_at(row) : nullptr;
#pragma unroll
        for (int i = 0; i < 16; i++)
            v[i] = from && k + column + i < in ? from[(k + column + i) * step] : narrow<T>(0.0f);
    }
    __device__ __forceinline__ void write(T *to, bool along_rows) const {
        int row, column;
        place(0, along_rows, &row, &column);
#pragma unroll
        for (int i = 0; i < 16; i++) to[row * MMA_PITCH + column + i] = v[i];
    }
};

template <typename T>
__global__ void __launch_bounds__(128) linear_mma(const __grid_constant__ linear_params p) {
    __shared__ T x[64 * MMA_PITCH], weight[64 * MMA_PITCH];
    wait_for_previous();
    let_next_start();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, m = warp / 2 * 32, n = warp % 2 * 32;
    for (int64_t tile = blockIdx.x; tile < p.row_tiles * p.feature_tiles; tile += gridDim.x) {
        const int64_t row0 = tile / p.feature_tiles * 64, feature0 = tile % p.feature_tiles * 64;
        const auto x_at = [&](int row) { return (const T *)p.x + row_offset(p.x_rows, row0 + row); };
        const auto weight_at = [&](int row) { return (const T *)p.weight + (feature0 + row) * p.weight_row; };
        const bool x_turned = p.x_step != 1, weight_turned = p.weight_step != 1;
        float acc[2][4][4] = {};
        mma_tile<T> next_x, next_weight;
        next_x.read(p.rows - row0, p.in, 0, p.x_step, x_turned, x_at);
        next_weight.read(p.features - feature0, p.in, 0, p.weight_step, weight_turned, weight_at);
        for (int64_t k = 0; k < p.in; k += MMA_K) {
            __syncthreads();
            next_x.write(x, x_turned), next_weight.write(weight, weight_turned);
            __syncthreads();
            if (k + MMA_K < p.in) {
                next_x.read(p.rows - row0, p.in, k + MMA_K, p.x_step, x_turned, x_at);
                next_weight.read(p.features - feature0, p.in, k + MMA_K, p.weight_step, weight_turned, weight_at);
            }
#pragma unroll
            for (int step = 0; step < MMA_K; step += 16) {
                uint32_t a[2][4], b[4][2];
                const int column = step + lane % 4 * 2;
#pragma unroll
                for (int i = 0; i < 2; i++)
#pragma unroll
                    for (int j = 0; j < 4; j++)
                        a[i][j] =
                            *(const uint32_t *)&x[(m + i * 16 + j % 2 * 8 + lane / 4) * MMA_PITCH + column + j / 2 * 8];
#pragma unroll
                for (int i = 0; i < 4; i++)
#pragma unroll
                    for (int j = 0; j < 2; j++)
                        b[i][j] = *(const uint32_t *)&weight[(n + i * 8 + lane / 4) * MMA_PITCH + column + j * 8];
#pragma unroll
                for (int i = 0; i < 2; i++)
#pragma unroll
                    for (int j = 0; j < 4; j++) multiply_16x8(acc[i][j], a[i], b[j], T());
            }
        }
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int64_t row = row0 + m + i * 16 + h * 8 + lane / 4;
                if (row >= p.rows) continue;
                const int64_t offset = row_offset(p.out_rows, row);
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    const int64_t feature = feature0 + n + j / 2 * 8 + lane % 4 * 2 + j % 2;
                    if (feature < p.features) linear_store<T>(p, offset, feature, acc[i][j / 2][h * 2 + j % 2]);
                }
            }
    }
}

} // namespace hm

#endif
