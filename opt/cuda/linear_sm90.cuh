/* linear_sm90.cuh: x weight^T on the tensor cores of compute capability 9.0a.
 *
 * Order. k is cut into slices, whose number depends on the weight's shape alone. Within a slice products of 16 k at a
 * time are added to one accumulator in ascending order; the slices are then added in order, in f32, and the bias comes
 * last. Both kernels follow it, so that a row has the same bits in whatever number of rows.
 *   tiles  features are the 64 or 128 rows of a product, and rows of x its columns, 8 and more. Each block of a
 *          cluster has a slice, or, where there are tiles enough, a block has all. Where operands can't be had as
 *          boxes, threads read them element by element. (Blocks that share x by multicast were slower: 49 us, not 37,
 *          for 64 rows by 7168 x 7168.)
 *   wide   128 x 256 a block, two blocks to a cluster that share the weight; for one slice alone.
 * In both a warpgroup reads ahead, and the others multiply. */
#ifndef HM_CUDA_LINEAR_SM90_CUH
#define HM_CUDA_LINEAR_SM90_CUH

#include "linear.cuh"
#include "linear_ptx.cuh"

namespace hm {

/* A position in the ring of stages. */
struct ring {
    int stage = 0;
    uint32_t parity = 0;
    template <int STAGES>
    __device__ __forceinline__ void next() {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
};

__device__ __forceinline__ char *linear_shared() {
    extern __shared__ char raw[];
    return raw + (-shared_address(raw) & 1023);
}

/* GROUPS: warpgroups that multiply, 64 features each; ROWS: of x; STEPS: of k in a stage. */
template <typename T, int GROUPS, int ROWS, int STEPS, int STAGES, bool BOXES>
struct tile_shape {
    static constexpr int FEATURES = 64 * GROUPS, THREADS = 128 + 128 * GROUPS, PITCH = FEATURES + 4;
    static constexpr int WEIGHT = FEATURES * 128, X = ROWS * 128, STAGE = STEPS * (WEIGHT + X);
    static constexpr int OUT = ROWS * PITCH * 4, RING = STAGES * STAGE;
    static constexpr int SHARED = 1024 + (OUT > RING ? OUT : RING);
};

/* `count` rows by 64 elements from element k on, as a box would bring them. Threads 0 to 127. */
template <typename T, typename F>
__device__ __forceinline__ void read_tile(char *to, int count, int64_t live, int64_t in, int64_t k, int64_t step,
                                          bool along_rows, const F &row_at) {
    for (int i = threadIdx.x; i < count * 64; i += 128) {
        const int row = along_rows ? i % count : i / 64, column = along_rows ? i / count : i % 64;
        T v = narrow<T>(0.0f);
        if (row < live && k + column < in) v = *(row_at(row) + (k + column) * step);
        *(T *)(to + row * 128 + ((column / 8 ^ row % 8) * 16 + column % 8 * 2)) = v;
    }
}

/* Eight features that follow each other. */
template <typename T>
__device__ __forceinline__ void store_eight(const linear_params &p, int64_t row_offset, int64_t feature, float *v) {
    if (!p.out_wide || feature + 8 > p.features) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (feature + i < p.features) linear_store<T>(p, row_offset, feature + i, v[i]);
        return;
    }
    if (p.bias) {
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = __fadd_rn(v[i], linear_bias<T>(p, feature + i));
    }
    if (p.out_f32) {
        ((vec<float, 8> *)((float *)p.out + row_offset + feature))->set(v);
    } else {
        vec<T, 8> to;
        to.set(v);
        *(vec<T, 8> *)((T *)p.out + row_offset + feature) = to;
    }
}

template <typename T, int GROUPS, int ROWS, int STEPS, int STAGES, bool BOXES>
__global__ void __launch_bounds__(128 + 128 * GROUPS, GROUPS == 1 ? 2 : 1)
    linear_tiles(const __grid_constant__ linear_params p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    constexpr bool ALL = GROUPS == 2 || !BOXES; /* a block may have all slices, else it has one */
    using shape = tile_shape<T, GROUPS, ROWS, STEPS, STAGES, BOXES>;
    __shared__ uint64_t full[STAGES], empty[STAGES];
    char *const stages = linear_shared();
    const int rank = p.cluster > 1 ? (int)cluster_rank() : 0;
    const int64_t tile = blockIdx.x / (uint32_t)p.cluster, row_tile = tile / p.feature_tiles;
    const int64_t row0 = row_tile * ROWS, feature0 = (tile - row_tile * p.feature_tiles) * shape::FEATURES;
    const int first = p.cluster > 1 ? rank : 0, last = p.cluster > 1 ? rank + 1 : p.slices;
    if (threadIdx.x == 0)
        for (int i = 0; i < STAGES; i++) barrier_init(&full[i], BOXES ? 1 : 128), barrier_init(&empty[i], 4 * GROUPS);
    fence_for_async();
    __syncthreads();
    wait_for_previous();
    let_next_start();
    ring at;
    if (threadIdx.x < 128) {
        if (GROUPS == 2) asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (!BOXES || threadIdx.x == 0)
            for (int s = first; s < last; s++)
                for (int k = s * p.slice, end = min(k + p.slice, p.steps); k < end; k += STEPS) {
                    char *weight = stages + at.stage * shape::STAGE, *x = weight + STEPS * shape::WEIGHT;
                    uint64_t *filled = &full[at.stage];
                    barrier_wait(&empty[at.stage], at.parity ^ 1);
                    if (BOXES) {
                        barrier_expect(filled, shape::STAGE);
#pragma unroll
                        for (int j = 0; j < STEPS; j++) {
                            const int element = (k + j) * LINEAR_STEP;
                            copy_box(weight + j * shape::WEIGHT, &p.weight_map, element, (int)feature0, filled);
                            copy_box(x + j * shape::X, &p.x_map, element, (int)row0, filled);
                        }
                    } else {
                        const int64_t element = (int64_t)k * LINEAR_STEP;
                        read_tile<T>(weight, shape::FEATURES, p.features - feature0, p.in, element, p.weight_step,
                                     p.weight_step != 1,
                                     [&](int row) { return (const T *)p.weight + (feature0 + row) * p.weight_row; });
                        read_tile<T>(x, ROWS, p.rows - row0, p.in, element, p.x_step, p.x_step != 1,
                                     [&](int row) { return (const T *)p.x + row_offset(p.x_rows, row0 + row); });
                        fence_for_async();
                        barrier_arrive(filled);
                    }
                    at.next<STAGES>();
                }
    } else {
        if (GROUPS == 2) asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        const int group = threadIdx.x / 128 - 1, lane = threadIdx.x % 32;
        float acc[ROWS / 2], total[ALL ? ROWS / 2 : 1];
#pragma unroll
        for (int i = 0; i < ROWS / 2; i++) acc[i] = 0.0f;
        for (int s = first; s < last; s++) {
            const int begin = s * p.slice, end = min(begin + p.slice, p.steps);
            ring before;
            for (int k = begin; k < end; k += STEPS) {
                const char *weight = stages + at.stage * shape::STAGE, *x = weight + STEPS * shape::WEIGHT;
                const uint64_t a = tile_descriptor(weight + group * 64 * 128), b = tile_descriptor(x);
                barrier_wait(&full[at.stage], at.parity);
                products_begin();
#pragma unroll
                for (int j = 0; j < 4 * STEPS; j++)
                    product<T, ROWS>::add(acc, a + j / 4 * (shape::WEIGHT / 16) + 2 * (j % 4),
                                          b + j / 4 * (shape::X / 16) + 2 * (j % 4), j || k > begin);
                products_commit();
                if (k > begin) {
                    products_wait<1>();
                    if (lane == 0) barrier_arrive(&empty[before.stage]);
                }
                before = at;
                at.next<STAGES>();
            }
            products_wait<0>();
            if (begin < end && lane == 0) barrier_arrive(&empty[before.stage]);
            if (ALL)
#pragma unroll
                for (int i = 0; i < ROWS / 2; i++) total[i] = s == first ? acc[i] : __fadd_rn(total[i], acc[i]);
        }
        sync_some(1, 128 * GROUPS); /* nobody reads the stages any more */
        float *const out = (float *)stages;
        const int m = group * 64 + threadIdx.x % 128 / 32 * 16 + lane / 4, n = lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < ROWS / 2; i++)
            out[(i / 4 * 8 + n + i % 2) * shape::PITCH + m + i % 4 / 2 * 8] = ALL ? total[i] : acc[i];
        if (p.cluster == 1) sync_some(1, 128 * GROUPS);
    }
    const float *const sums = (const float *)stages;
    const int live = (int)(p.rows - row0 < ROWS ? p.rows - row0 : ROWS) * (shape::FEATURES / 8);
    const int start = p.cluster > 1 ? rank * shape::THREADS + threadIdx.x : (int)threadIdx.x - 128;
    if (p.cluster > 1) cluster_sync();
    if (start >= 0)
        for (int i = start; i<live; i += p.cluster> 1 ? p.cluster * shape::THREADS : 128 * GROUPS) {
            const int row = i / (shape::FEATURES / 8), m = i % (shape::FEATURES / 8) * 8;
            const float4 *const from = (const float4 *)&sums[row * shape::PITCH + m];
            float v[8];
            for (int s = 0; s < (p.cluster > 1 ? p.slices : 1); s++) {
                const float4 *const part = p.cluster > 1 ? in_block(from, s) : from;
                const float4 a = part[0], b = part[1];
                const float more[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
                for (int j = 0; j < 8; j++) v[j] = s ? __fadd_rn(v[j], more[j]) : more[j];
            }
            store_eight<T>(p, row_offset(p.out_rows, row0 + row), feature0 + m, v);
        }
    if (p.cluster > 1) cluster_wait(); /* others may still read what is here */
#else
    (void)p;
#endif
}

/* ---- wide -------------------------------------------------------------------------------------------------------- */

enum { WIDE_STAGES = 4, WIDE_X = 128 * 128, WIDE_WEIGHT = 256 * 128, WIDE_STAGE = WIDE_X + WIDE_WEIGHT };
enum { WIDE_SHARED = 1024 + WIDE_STAGES * WIDE_STAGE, WIDE_BAND = 8 };

/* Words w[s] of the four lanes of a quad: lane q gets those of index q, s of lane s. */
__device__ __forceinline__ void transpose_quad(uint32_t *w) {
    const int q = threadIdx.x % 4;
#pragma unroll
    for (int step = 1; step <= 2; step *= 2)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int low = step == 1 ? 2 * i : i, high = low + step;
            const bool upper = q & step;
            const uint32_t got = __shfl_xor_sync(~0u, upper ? w[low] : w[high], step);
            (upper ? w[low] : w[high]) = got;
        }
}

/* Bands of WIDE_BAND row tiles, so that what runs at a time has few rows of either operand. */
__device__ __forceinline__ void wide_tile(const linear_params &p, int64_t tile, int64_t *row, int64_t *feature) {
    const int64_t band = tile / (WIDE_BAND * p.feature_tiles), in = tile - band * (WIDE_BAND * p.feature_tiles);
    const int64_t left = p.row_tiles - band * WIDE_BAND, height = left < WIDE_BAND ? left : WIDE_BAND;
    *feature = in / height * 256, *row = (band * WIDE_BAND + in % height) * 256;
}

template <typename T>
__device__ __forceinline__ void wide_store(const linear_params &p, int64_t row0, int64_t feature0, const float *acc) {
    const int q = threadIdx.x % 4;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int64_t row = row0 + h * 8;
        const int64_t offset = row_offset(p.out_rows, row < p.rows ? row : p.rows - 1);
#pragma unroll
        for (int j = 0; j < 32; j += 4) {
            const int64_t feature = feature0 + 8 * j;
            float v[8];
#pragma unroll
            for (int i = 0; i < 8; i++) v[i] = acc[4 * (j + i / 2) + 2 * h + i % 2];
            if (p.out_wide && feature + 32 <= p.features) {
                if (p.bias) {
#pragma unroll
                    for (int i = 0; i < 8; i++)
                        v[i] = __fadd_rn(v[i], linear_bias<T>(p, feature + i / 2 * 8 + q * 2 + i % 2));
                }
                if (p.out_f32) {
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        if (row < p.rows)
                            *(float2 *)((float *)p.out + offset + feature + 8 * i + 2 * q) =
                                make_float2(v[2 * i], v[2 * i + 1]);
                } else {
                    uint32_t w[4];
#pragma unroll
                    for (int i = 0; i < 4; i++) pair<T>::set(&w[i], v[2 * i], v[2 * i + 1]);
                    transpose_quad(w);
                    if (row < p.rows)
                        *(uint4 *)((T *)p.out + offset + feature + 8 * q) = make_uint4(w[0], w[1], w[2], w[3]);
                }
            } else if (row < p.rows) {
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    const int64_t f = feature + i / 2 * 8 + q * 2 + i % 2;
                    if (f < p.features) linear_store<T>(p, offset, f, v[i]);
                }
            }
        }
    }
}

template <typename T>
__global__ void __launch_bounds__(384, 1) linear_wide(const __grid_constant__ linear_params p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    __shared__ uint64_t full[WIDE_STAGES], empty[WIDE_STAGES];
    char *const stages = linear_shared();
    const int rank = (int)cluster_rank();
    const int64_t tiles = p.row_tiles * p.feature_tiles;
    if (threadIdx.x == 0) {
        for (int i = 0; i < WIDE_STAGES; i++) barrier_init(&full[i], 1), barrier_init(&empty[i], 16);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    cluster_sync();
    wait_for_previous();
    let_next_start();
    ring at;
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 0)
            for (int64_t tile = blockIdx.x / 2; tile < tiles; tile += gridDim.x / 2) {
                int64_t row, feature;
                wide_tile(p, tile, &row, &feature);
                for (int k = 0; k < p.steps; k++) {
                    char *x = stages + at.stage * WIDE_STAGE, *weight = x + WIDE_X + rank * (WIDE_WEIGHT / 2);
                    barrier_wait(&empty[at.stage], at.parity ^ 1);
                    barrier_expect(&full[at.stage], WIDE_STAGE);
                    copy_box(x, &p.x_map, k * LINEAR_STEP, (int)row + rank * 128, &full[at.stage]);
                    copy_box_to(weight, &p.weight_map, k * LINEAR_STEP, (int)feature + rank * 128, &full[at.stage], 3);
                    at.next<WIDE_STAGES>();
                }
            }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        const int group = threadIdx.x / 128 - 1, lane = threadIdx.x % 32;
        for (int64_t tile = blockIdx.x / 2; tile < tiles; tile += gridDim.x / 2) {
            int64_t row, feature;
            float acc[128];
            ring before;
            wide_tile(p, tile, &row, &feature);
            for (int k = 0; k < p.steps; k++) {
                const char *x = stages + at.stage * WIDE_STAGE;
                const uint64_t a = tile_descriptor(x + group * 64 * 128), b = tile_descriptor(x + WIDE_X);
                barrier_wait(&full[at.stage], at.parity);
                products_begin();
#pragma unroll
                for (int i = 0; i < 4; i++) product<T, 256>::add(acc, a + 2 * i, b + 2 * i, k || i);
                products_commit();
                if (k > 0) {
                    products_wait<1>();
                    if (lane < 2) barrier_arrive_at(&empty[before.stage], lane);
                }
                before = at;
                at.next<WIDE_STAGES>();
            }
            products_wait<0>();
            if (lane < 2) barrier_arrive_at(&empty[before.stage], lane);
            wide_store<T>(p, row + rank * 128 + group * 64 + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4,
                          feature, acc);
        }
    }
    cluster_wait(); /* others may still send to what is here */
#else
    (void)p;
#endif
}

} // namespace hm

#endif
