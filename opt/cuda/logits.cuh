/* logits.cuh: what the indexer's kernels of logits share, and the kernel that takes every shape and stride.
 *
 * Products are exact: an e4m3 value is a f16. Devices from 8.9 on convert codes; else their bits, in the places of a
 * f16, are the value times 2^-8 (fnuz: 2^-7; subnormals, too), which one exact product undoes. What a NaN code takes
 * part in is unspecified.
 * Order of the heads. A thread of a quad has the scores of heads 8 i + 2 t and 8 i + 2 t + 1, t its place in the quad;
 * it adds their terms in ascending order, and the quad's sums meet as (0 + 1) + (2 + 3); then comes the key's scale. */
#ifndef HM_CUDA_LOGITS_CUH
#define HM_CUDA_LOGITS_CUH

#include "common.cuh"

extern "C" {
#include "../../op/logits.h"
}

namespace hm {

/* ---- a call ------------------------------------------------------------------------------------------------------ */

struct logits_params {
    /* queries and weights */
    const uint8_t *q;
    const float *weights;
    int64_t q_batch, q_token, q_head, q_step; /* q_batch: paged only */
    int64_t weights_row, weights_step;
    /* keys: one by one, or in blocks */
    const uint8_t *k;
    const float *k_scale;
    int64_t k_stride, k_step, scale_step, keys;
    int64_t block_stride, scale_byte, num_blocks, max_blocks, most_keys; /* most_keys: that a row of the table names */
    const int32_t *table;
    int64_t table_stride, table_step;
    divider block_size;
    bool shuffle;
    /* windows */
    const int32_t *starts, *ends; /* paged: ends are lengths */
    int64_t start_step, end_step, end_token;
    divider next_n;
    bool length_each; /* of every token */
    float *logits;
    int64_t logits_row, logits_step;
    int64_t row_count, heads, dim, width, end;
    divider tiles; /* of a row */
    bool clean, compressed, fnuz;
    bool q_words; /* codes of a head lie next to each other, at multiples of 4 bytes; pieces: of 16 */
    bool q_pieces;
    bool key_pieces; /* keys lie in pieces of 16 bytes at multiples of that, their scales at multiples of 4 */
};

/* How many keys token j of a request sees; -1: more than there can be. */
__device__ __forceinline__ int64_t end_of(const logits_params &p, int32_t length, int64_t j) {
    const int64_t end = p.length_each ? length : length - p.next_n.d + j + 1;
    return end > p.width || end > p.most_keys ? -1 : end < 0 ? 0 : end;
}
__device__ __forceinline__ int64_t paged_end(const logits_params &p, int64_t request, int64_t j) {
    return end_of(p, p.ends[request * p.end_step + j * p.end_token], j);
}

/* The columns [first, end) of a row that have a key; column + shift is the key. False: they are out of range, and the
 * row stays as it is. */
struct logits_window {
    int64_t first, end, shift;
};

template <bool PAGED>
__device__ __forceinline__ bool window_of(const logits_params &p, int64_t row, logits_window *w) {
    w->first = w->shift = 0;
    if (PAGED) {
        const int64_t b = quotient(p.next_n, row);
        w->end = paged_end(p, b, row - b * p.next_n.d);
        if (w->end < 0) {
            w->end = 0;
            return false;
        }
    } else {
        const int64_t ks = p.starts[row * p.start_step], ke = min((int64_t)p.ends[row * p.end_step], p.keys);
        w->first = p.compressed ? 0 : ks, w->shift = p.compressed ? ks : 0, w->end = ke - w->shift;
        if (ks < 0 || w->end > p.width) {
            w->first = w->end = 0;
            return false;
        }
    }
    if (w->end < w->first) w->first = w->end = 0;
    return true;
}

/* A key's code 0 and where its scale is; code NULL: there is no such block. */
struct key_place {
    const uint8_t *code, *scale;
};

template <bool PAGED>
__device__ __forceinline__ key_place key_of(const logits_params &p, int64_t request, int64_t key) {
    if (!PAGED) return {p.k + key * p.k_stride, (const uint8_t *)(p.k_scale + key * p.scale_step)};
    const int64_t page = quotient(p.block_size, key), offset = key - page * p.block_size.d;
    if (page >= p.max_blocks) return {nullptr, nullptr};
    const int64_t block = p.table[request * p.table_stride + page * p.table_step];
    if (block < 0 || block >= p.num_blocks) return {nullptr, nullptr};
    const uint8_t *base = p.k + block * p.block_stride;
    constexpr int T = HM_INDEXER_TILE;
    return {base + (p.shuffle ? offset / T * T * HM_INDEXER_GROUP + offset % T * T : offset * HM_INDEXER_GROUP),
            base + p.scale_byte + 4 * offset};
}

/* The least page below `pages` of a request whose block is not there, among those that begin at `from` and are `step`
 * apart; INT_MAX: none. */
__device__ __forceinline__ int first_bad_page(const logits_params &p, int64_t request, int pages, int from, int step) {
    const int32_t *table = p.table + request * p.table_stride;
    int bad = INT_MAX;
#pragma unroll 2
    for (int i = from; i < pages; i += step) {
        const int64_t block = table[i * p.table_step];
        if (block < 0 || block >= p.num_blocks) bad = min(bad, i);
    }
    return bad;
}
__device__ __forceinline__ int pages_of(const logits_params &p, int64_t end) { /* end < 2^31, as lengths are */
    return end <= 0 ? 0 : p.block_size.m ? (int)quotient32(p.block_size, (uint32_t)end - 1) + 1 : 1;
}

/* From code 0 to code d of a key. */
template <bool PAGED>
__device__ __forceinline__ int64_t code_offset(const logits_params &p, int64_t d) {
    if (!PAGED) return d * p.k_step;
    return p.shuffle ? d / HM_INDEXER_TILE * HM_INDEXER_TILE * HM_INDEXER_TILE + d % HM_INDEXER_TILE : d;
}

__device__ __forceinline__ float scale_at(const logits_params &p, const uint8_t *at) {
    if (p.key_pieces) return *(const float *)at;
    return __uint_as_float(at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24);
}

/* ---- codes as f16 ------------------------------------------------------------------------------------------------ */

/* The values of codes 0 and 1, and of 2 and 3, of a word. */
template <bool FNUZ>
__device__ __forceinline__ void widen_codes(uint32_t four, uint32_t *low, uint32_t *high) {
#if __CUDA_ARCH__ >= 890
    if (!FNUZ) {
        asm("{\n.reg .b16 a, b;\nmov.b32 {a, b}, %2;\ncvt.rn.f16x2.e4m3x2 %0, a;\ncvt.rn.f16x2.e4m3x2 %1, b;\n}"
            : "=r"(*low), "=r"(*high)
            : "r"(four));
        return;
    }
#endif
    const uint32_t factor = FNUZ ? 0x58005800u : 0x5c005c00u;                    /* 2^7, 2^8 */
    uint32_t a = __byte_perm(four, 0, 0x1404), b = __byte_perm(four, 0, 0x3424); /* in the upper byte of each half */
    a = (a & 0x80008000u) | (a >> 1 & 0x3f803f80u), b = (b & 0x80008000u) | (b >> 1 & 0x3f803f80u);
    __half2 x = __hmul2(*(const __half2 *)&a, *(const __half2 *)&factor);
    __half2 y = __hmul2(*(const __half2 *)&b, *(const __half2 *)&factor);
    *low = *(const uint32_t *)&x, *high = *(const uint32_t *)&y;
}

__device__ __forceinline__ void widen_codes(uint32_t four, bool fnuz, uint32_t *low, uint32_t *high) {
    if (fnuz) widen_codes<true>(four, low, high);
    else widen_codes<false>(four, low, high);
}

__device__ __forceinline__ uint16_t widen_code(uint8_t code, bool fnuz) {
    uint32_t low, high;
    widen_codes(code, fnuz, &low, &high);
    return (uint16_t)low;
}

/* ---- any shape --------------------------------------------------------------------------------------------------- */

/* A block: 64 keys of a row, 16 a warp. Heads go by 64 and dimensions by 128, through shared memory. */
enum { ANY_THREADS = 128, ANY_KEYS = 64, ANY_HEADS = 64, ANY_DIM = 128, ANY_PITCH = ANY_DIM + 8 };

struct any_shared {
    uint16_t q[ANY_HEADS * ANY_PITCH], k[ANY_KEYS * ANY_PITCH];
    float weight[ANY_HEADS], row[ANY_THREADS / 32][ANY_DIM]; /* row: a warp's own, for queries */
    key_place key[ANY_KEYS];
};

/* Queries that lie in memory as codes. */
struct coded_queries {
    static __device__ __forceinline__ void fill(const logits_params &p, int64_t row, int64_t head, int64_t d,
                                                any_shared &s) {
        const int64_t b = quotient(p.next_n, row);
        const uint8_t *q = p.q + b * p.q_batch + (row - b * p.next_n.d) * p.q_token + head * p.q_head + d * p.q_step;
        for (int i = threadIdx.x; i < ANY_HEADS * ANY_DIM; i += ANY_THREADS) {
            const int h = i / ANY_DIM, e = i % ANY_DIM;
            const bool live = head + h < p.heads && d + e < p.dim;
            s.q[h * ANY_PITCH + e] = live ? widen_code(q[h * p.q_head + e * p.q_step], p.fnuz) : 0;
        }
        if (threadIdx.x < ANY_HEADS)
            s.weight[threadIdx.x] = head + threadIdx.x < p.heads
                                        ? p.weights[row * p.weights_row + (head + threadIdx.x) * p.weights_step]
                                        : 0.0f;
    }
};

template <bool PAGED>
__device__ __forceinline__ void fill_keys(const logits_params &p, int64_t d, any_shared &s) {
    if (p.key_pieces) {
        for (int i = threadIdx.x; i < ANY_KEYS * ANY_DIM / 16; i += ANY_THREADS) {
            const int key = i / (ANY_DIM / 16), e = i % (ANY_DIM / 16) * 16;
            const uint8_t *from = s.key[key].code;
            uint4 v = make_uint4(0, 0, 0, 0), to[2];
            if (from && d + e < p.dim) v = *(const uint4 *)(from + code_offset<PAGED>(p, d + e));
            widen_codes(v.x, p.fnuz, &to[0].x, &to[0].y), widen_codes(v.y, p.fnuz, &to[0].z, &to[0].w);
            widen_codes(v.z, p.fnuz, &to[1].x, &to[1].y), widen_codes(v.w, p.fnuz, &to[1].z, &to[1].w);
            uint4 *at = (uint4 *)(s.k + key * ANY_PITCH + e);
            at[0] = to[0], at[1] = to[1];
        }
        return;
    }
    for (int i = threadIdx.x; i < ANY_KEYS * ANY_DIM; i += ANY_THREADS) {
        const int key = i / ANY_DIM, e = i % ANY_DIM;
        const uint8_t *from = s.key[key].code;
        s.k[key * ANY_PITCH + e] =
            from && d + e < p.dim ? widen_code(from[code_offset<PAGED>(p, d + e)], p.fnuz) : (uint16_t)0;
    }
}

__device__ __forceinline__ void multiply(float *c, const uint32_t *a, const uint32_t *b) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <bool PAGED, typename QUERIES>
__global__ void __launch_bounds__(ANY_THREADS) score_any(const __grid_constant__ typename QUERIES::params all) {
    __shared__ __align__(16) any_shared s;
    const logits_params &p = QUERIES::of(all);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, t = lane % 4;
    wait_for_previous();
    let_next_start();
    for (int64_t task = blockIdx.x; task < p.end; task += gridDim.x) {
        const int64_t row = quotient(p.tiles, task), column = (task - row * p.tiles.d) * ANY_KEYS;
        logits_window w;
        if (!window_of<PAGED>(p, row, &w) || !QUERIES::known(all, row)) continue;
        if (PAGED) {
            const int64_t request = quotient(p.next_n, row);
            const int bad = first_bad_page(p, request, pages_of(p, w.end), threadIdx.x, ANY_THREADS);
            if (__syncthreads_or(bad < INT_MAX)) continue;
        }
        float *out = p.logits + row * p.logits_row;
        __syncthreads(); /* with what the task before this one left in shared memory */
        if (threadIdx.x < ANY_KEYS) {
            const int64_t at = column + threadIdx.x;
            const bool inside = at >= w.first && at < w.end;
            if (!inside && at < p.width && p.clean) out[at * p.logits_step] = __uint_as_float(0xff800000u);
            s.key[threadIdx.x] = inside ? key_of<PAGED>(p, PAGED ? quotient(p.next_n, row) : 0, at + w.shift)
                                        : key_place{nullptr, nullptr};
        }
        __syncthreads();
        if (column >= w.end || column + ANY_KEYS <= w.first) continue;
        float sum[2] = {0.0f, 0.0f};
        for (int64_t head = 0; head < p.heads; head += ANY_HEADS) {
            float score[ANY_HEADS / 8][4] = {};
            for (int64_t d = 0; d < p.dim; d += ANY_DIM) {
                QUERIES::fill(all, row, head, d, s);
                if (head == 0 || p.dim > ANY_DIM) fill_keys<PAGED>(p, d, s);
                __syncthreads();
                const int steps = (int)(min(p.dim - d, (int64_t)ANY_DIM) + 15) / 16;
                for (int step = 0; step < steps; step++) {
                    uint32_t a[4], b[2];
                    const uint16_t *k = s.k + (warp * 16 + group) * ANY_PITCH + step * 16 + 2 * t;
#pragma unroll
                    for (int i = 0; i < 4; i++) a[i] = *(const uint32_t *)(k + i % 2 * 8 * ANY_PITCH + i / 2 * 8);
#pragma unroll
                    for (int n = 0; n < ANY_HEADS / 8; n++) {
                        const uint16_t *q = s.q + (n * 8 + group) * ANY_PITCH + step * 16 + 2 * t;
                        b[0] = *(const uint32_t *)q, b[1] = *(const uint32_t *)(q + 8);
                        multiply(score[n], a, b);
                    }
                }
                if (d + ANY_DIM < p.dim) __syncthreads();
            }
            if (p.dim == 0) { /* every score is 0 */
                QUERIES::fill(all, row, head, 0, s);
                __syncthreads();
            }
#pragma unroll
            for (int n = 0; n < ANY_HEADS / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    sum[i / 2] = __fmaf_rn(s.weight[n * 8 + 2 * t + i % 2], fmaxf(score[n][i], 0.0f), sum[i / 2]);
            __syncthreads();
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            sum[i] = __fadd_rn(sum[i], __shfl_xor_sync(~0u, sum[i], 1));
            sum[i] = __fadd_rn(sum[i], __shfl_xor_sync(~0u, sum[i], 2));
            const int key = warp * 16 + i * 8 + group;
            const uint8_t *scale = s.key[key].scale;
            if (t == 0 && scale) out[(column + key) * p.logits_step] = __fmul_rn(sum[i], scale_at(p, scale));
        }
    }
}

/* Queries that lie in memory: their parameters are those of the call. */
struct plain_queries : coded_queries {
    using params = logits_params;
    static __device__ __forceinline__ const logits_params &of(const params &p) { return p; }
    static __device__ __forceinline__ bool known(const params &, int64_t) { return true; }
};

/* ---- the host's part --------------------------------------------------------------------------------------------- */

static inline logits_params logits_params_of(const hm_fp8_mqa_logits_args &a) {
    logits_params p = {};
    p.q = (const uint8_t *)a.q.data, p.weights = (const float *)a.weights.data;
    p.q_token = 0, p.q_batch = a.q.stride[0], p.q_head = a.q.stride[1], p.q_step = a.q.stride[2];
    p.weights_row = a.weights.stride[0], p.weights_step = a.weights.stride[1];
    p.k = (const uint8_t *)a.k.data, p.k_scale = (const float *)a.k_scale.data;
    p.k_stride = a.k.stride[0], p.k_step = a.k.stride[1], p.scale_step = a.k_scale.stride[0], p.keys = a.k.shape[0];
    p.starts = (const int32_t *)a.ks.data, p.ends = (const int32_t *)a.ke.data;
    p.start_step = a.ks.stride[0], p.end_step = a.ke.stride[0], p.next_n = divider_of(1);
    p.logits = (float *)a.logits.data, p.logits_row = a.logits.stride[0], p.logits_step = a.logits.stride[1];
    p.row_count = a.q.shape[0], p.heads = a.q.shape[1], p.dim = a.q.shape[2], p.width = a.logits.shape[1];
    p.tiles = divider_of((p.width + ANY_KEYS - 1) / ANY_KEYS), p.end = p.row_count * p.tiles.d;
    p.clean = a.outside == HM_LOGITS_CLEAN, p.compressed = a.columns == HM_COLUMNS_COMPRESSED;
    p.fnuz = a.q.dtype == HM_F8E4M3FNUZ;
    p.key_pieces = p.dim % 16 == 0 && aligned(a.k, 16);
    p.q_words = aligned(a.q, 4), p.q_pieces = aligned(a.q, 16);
    return p;
}

static inline logits_params logits_params_of(const hm_fp8_paged_mqa_logits_args &a, const hm_indexer_cache &c) {
    logits_params p = {};
    p.q = (const uint8_t *)a.q.data, p.weights = (const float *)a.weights.data;
    p.q_batch = a.q.stride[0], p.q_token = a.q.stride[1], p.q_head = a.q.stride[2], p.q_step = a.q.stride[3];
    p.weights_row = a.weights.stride[0], p.weights_step = a.weights.stride[1];
    p.k = c.data, p.block_stride = c.block_stride, p.scale_byte = c.block_size * c.head_dim;
    p.num_blocks = c.block_size ? c.num_blocks : 0, p.block_size = divider_of(c.block_size);
    p.table = (const int32_t *)a.block_tables.data, p.max_blocks = a.block_tables.shape[1];
    p.table_stride = a.block_tables.stride[0], p.table_step = a.block_tables.stride[1];
    p.shuffle = c.layout == HM_LAYOUT_SHUFFLE;
    p.ends = (const int32_t *)a.context_lens.data, p.end_step = a.context_lens.stride[0];
    p.length_each = a.context_lens.ndim == 2, p.end_token = p.length_each ? a.context_lens.stride[1] : 0;
    p.next_n = divider_of(a.q.shape[1]);
    p.logits = (float *)a.logits.data, p.logits_row = a.logits.stride[0], p.logits_step = a.logits.stride[1];
    p.row_count = a.q.shape[0] * a.q.shape[1], p.heads = a.q.shape[2], p.dim = a.q.shape[3];
    p.width = a.logits.shape[1];
    p.tiles = divider_of((p.width + ANY_KEYS - 1) / ANY_KEYS), p.end = p.row_count * p.tiles.d;
    p.clean = a.outside == HM_LOGITS_CLEAN, p.fnuz = a.q.dtype == HM_F8E4M3FNUZ;
    p.key_pieces = (intptr_t)c.data % 16 == 0 && c.block_stride % 16 == 0;
    p.q_words = aligned(a.q, 4), p.q_pieces = aligned(a.q, 16);
    if (__builtin_mul_overflow(p.max_blocks, p.block_size.d, &p.most_keys)) p.most_keys = INT64_MAX;
    if (!p.num_blocks) p.most_keys = 0;
    return p;
}

} // namespace hm

#endif
