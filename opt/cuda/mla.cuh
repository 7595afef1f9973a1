/* mla.cuh: latent attention, for sparse_mla_decode and mla_prefill: what a call is, how its keys are found, and the
 * kernel for every width, dtype and device. The one for Hopper's tensor cores is in mla_sm90.cuh.
 *
 * Exponentials are taken to base 2, against M, the least integer that is not below any score so far (in units of ln 2)
 * but for one rounding: what was summed before a larger score came is then scaled by a power of two, which rounds
 * nothing. So no error comes from the number of tiles, and a weight rounded to bf16 is the same whatever M was. Weights
 * below 2^-126 of the largest are lost. */
#ifndef HM_CUDA_MLA_CUH
#define HM_CUDA_MLA_CUH

#include <cuda_fp8.h>

#include "common.cuh"

extern "C" {
#include "../../op/attention.h"
}

namespace hm {
namespace mla {

struct params {
    const char *q, *kv;
    char *out;
    float *lse;        /* NULL: not asked for */
    const float *sink; /* NULL: none */
    const int *indices, *length, *start, *end;
    int64_t q_token, q_head, q_step, out_token, out_head, out_step;     /* bytes */
    int64_t lse_token, lse_head, sink_step;                             /* elements */
    int64_t index_token, index_step, length_step, start_step, end_step; /* elements */
    int64_t block_stride, entry_stride, element_stride;                 /* bytes */
    divider block_size;
    int64_t tokens, heads, width, value_width;
    int64_t keys;  /* slots of the cache, or rows of kv */
    int64_t top_k; /* paged */
    float scale;
    bool round_p;     /* weights to bf16 */
    bool aligned;     /* rows of q and kv are read 16 bytes at a time */
    bool out_aligned; /* and those of out written by 4 */
    hm_mla_dequant dequant;
    int64_t first, blocks;  /* of this launch, and of all */
    divider chunks, groups; /* of a head's values, of a token's heads */
};

/* ---- keys -------------------------------------------------------------------------------------------------------- */

/* The places of a token's keys: how many, and the first key for ranges. Negative: more than there are indices; such a
 * token's rows are left as they were. */
template <bool PAGED>
__device__ __forceinline__ int64_t places_of(const params &p, int64_t token, int64_t *first) {
    if (PAGED) {
        const int64_t n = p.length ? p.length[token * p.length_step] : p.top_k;
        *first = 0;
        return n < 0 ? 0 : n <= p.top_k ? n : -1;
    }
    int64_t start = p.start ? p.start[token * p.start_step] : 0;
    int64_t end = p.end ? p.end[token * p.end_step] : p.keys - p.tokens + token + 1;
    start = start < 0 ? 0 : start, end = end < p.keys ? end : p.keys;
    *first = start;
    return end > start ? end - start : 0;
}

/* Where the key in a place begins, in bytes from kv. NO_KEY: there is none, as in places past the last. PAST_CACHE: the
 * index is out of range; its token's rows are left as they were. */
enum { NO_KEY = -1, PAST_CACHE = -2 };

template <bool PAGED>
__device__ __forceinline__ int64_t key_at(const params &p, int64_t token, int64_t first, int64_t n, int64_t place) {
    if (place >= n) return NO_KEY;
    if (!PAGED) return (first + place) * p.entry_stride;
    const int64_t slot = p.indices[token * p.index_token + place * p.index_step];
    if (slot < 0) return NO_KEY;
    if (slot >= p.keys) return PAST_CACHE;
    const int64_t block = quotient(p.block_size, slot);
    return block * p.block_stride + (slot - block * p.block_size.d) * p.entry_stride;
}

/* What a reader makes of the scale of 128 codes, and how it multiplies. */
struct code_scale {
    float s;
    uint32_t
        sticky; /* or-ed into a product that was cut to 24 bits, so that a second rounding does not change the first */
};

/* sticky: of an s of more than 9 bits no product with a code is a bf16 or halfway between two, since those have 9 bits
 * at most; of any other s all products are exact. */
__device__ __forceinline__ code_scale scale_seen(hm_mla_dequant mode, uint32_t bits) {
    if (mode == HM_MLA_DEQUANT_F32) return {__uint_as_float(bits), (bits & 0x7fffu) && (bits & 0x7f800000u) ? 1u : 0u};
    const float s = __uint_as_float(bits);
    if (mode == HM_MLA_DEQUANT_SM90 || s != s) return {widen(narrow<bf16>(s)), 0};
    const uint32_t field = bits >> 31 ? 0 : bits >> 23;
    return {__uint_as_float(field ? field << 23 : 0x400000u), 0};
}

/* RN_bf16(code s), from the exact product, as f32. */
__device__ __forceinline__ float product_of(float code, code_scale s) {
    return __uint_as_float(__float_as_uint(__fmul_rz(code, s.s)) | s.sticky);
}

/* Codes are exact in f16. */
__device__ __forceinline__ float2 codes_of(uint16_t two) {
    const __half2_raw raw = __nv_cvt_fp8x2_to_halfraw2(two, __NV_E4M3);
    return __half22float2(*(const __half2 *)&raw);
}

__device__ __forceinline__ uint32_t word_at(const char *at) { /* bytes may begin anywhere */
    const uint8_t *b = (const uint8_t *)at;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

struct fp8_ds; /* an entry of 656 bytes */

template <typename E>
struct element {
    using query = E;
    static __device__ __forceinline__ float of(const params &p, const char *key, int64_t d) {
        return widen(*(const E *)(key + d * p.element_stride));
    }
};
template <>
struct element<fp8_ds> {
    using query = bf16;
    static __device__ __forceinline__ float of(const params &p, const char *key, int64_t d) {
        if (d >= HM_MLA_LATENT) {
            const uint8_t *b = (const uint8_t *)key + HM_MLA_ROPE_AT + 2 * (d - HM_MLA_LATENT);
            return __uint_as_float(((uint32_t)b[0] | (uint32_t)b[1] << 8) << 16);
        }
        const code_scale s = scale_seen(p.dequant, word_at(key + HM_MLA_SCALES_AT + 4 * (d / HM_MLA_TILE)));
        return widen(narrow<bf16>(product_of(codes_of(((const uint8_t *)key)[d]).x, s)));
    }
};

/* ---- exponentials ------------------------------------------------------------------------------------------------ */

#define HM_MLA_LOG2E 1.44269504f

/* 2^x, within 2^-22; 0 below 2^-126. */
__device__ __forceinline__ float exp2_of(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* 2^(before - now) for integers before <= now, before may be -inf; 0 below 2^-126. Exact. */
__device__ __forceinline__ float fall(float before, float now) {
    const float by = before - now;
    return by >= -126.0f ? __uint_as_float((uint32_t)(127 + (int)by) << 23) : 0.0f;
}

/* M for a row whose largest score is s. */
__device__ __forceinline__ float top_of(float s) { return ceilf(__fmul_rn(s, HM_MLA_LOG2E)); }

/* exp(s) / 2^M. M is -inf where no key came yet; the weight is then 0. */
__device__ __forceinline__ float weight_of(float s, float top) {
    return exp2_of(__fmaf_rn(s, HM_MLA_LOG2E, top == -INFINITY ? 0.0f : -top));
}

__device__ __forceinline__ float lse_of(float top, float l) { return __fmaf_rn(top, 0.693147182f, logf(l)); }

/* 1 / (l + exp(sink)), in units of 2^M */
__device__ __forceinline__ float share_of(const params &p, int64_t head, float top, float l) {
    const float sink = p.sink ? exp2_of(__fmaf_rn(p.sink[head * p.sink_step], HM_MLA_LOG2E, -top)) : 0.0f;
    return __frcp_rn(__fadd_rn(l, sink));
}

/* ---- any width and dtype ----------------------------------------------------------------------------------------- */

/* THREADS threads do HEADS heads of a token and COLUMNS of their values, KEYS keys at a time, in f32. */
enum { THREADS = 256, HEADS = 16, KEYS = 32, DEPTH = 64, COLUMNS = 512, EACH = COLUMNS / THREADS };

struct scratch {
    int64_t at[KEYS];
    float q[HEADS][DEPTH + 1], k[KEYS][DEPTH + 1], w[HEADS][KEYS + 1], top[HEADS], sum[HEADS], fell[HEADS];
    int bad; /* an index is out of range */
};

__device__ __forceinline__ void meet() { asm volatile("bar.sync 1, 256;" ::: "memory"); }

/* Heads from `head` on, the first column of the values of this thread. */
template <typename E, bool PAGED>
__device__ __forceinline__ void attend_heads(const params &p, scratch &x, int64_t token, int64_t head, int64_t column) {
    using T = typename element<E>::query;
    const int tid = (int)threadIdx.x, warp = tid / 32, lane = tid % 32;
    float acc[EACH][HEADS];
#pragma unroll
    for (int e = 0; e < EACH; e++)
#pragma unroll
        for (int h = 0; h < HEADS; h++) acc[e][h] = 0.0f;
    meet();
    if (tid < HEADS) x.top[tid] = -INFINITY, x.sum[tid] = 0.0f;
    if (tid == 0) x.bad = 0;
    int64_t start;
    const int64_t n = places_of<PAGED>(p, token, &start);
    for (int64_t tile = 0; tile < n; tile += KEYS) {
        meet();
        if (tid < KEYS) {
            x.at[tid] = key_at<PAGED>(p, token, start, n, tile + tid);
            if (x.at[tid] == PAST_CACHE) x.bad = 1;
        }
        meet();
        if (!__any_sync(~0u, x.at[lane] >= 0)) continue;
        float s[2] = {0.0f, 0.0f};
        for (int64_t d0 = 0; d0 < p.width; d0 += DEPTH) {
            for (int i = tid; i < HEADS * DEPTH; i += THREADS) {
                const int64_t h = head + i / DEPTH, d = d0 + i % DEPTH;
                x.q[i / DEPTH][i % DEPTH] =
                    h < p.heads && d < p.width
                        ? widen(*(const T *)(p.q + token * p.q_token + h * p.q_head + d * p.q_step))
                        : 0.0f;
            }
            for (int i = tid; i < KEYS * DEPTH; i += THREADS) {
                const int64_t from = x.at[i / DEPTH], d = d0 + i % DEPTH;
                x.k[i / DEPTH][i % DEPTH] = from >= 0 && d < p.width ? element<E>::of(p, p.kv + from, d) : 0.0f;
            }
            meet();
#pragma unroll 8
            for (int d = 0; d < DEPTH; d++) {
                s[0] = __fmaf_rn(x.q[tid / 16][d], x.k[tid % 16][d], s[0]);
                s[1] = __fmaf_rn(x.q[tid / 16][d], x.k[tid % 16 + 16][d], s[1]);
            }
            meet();
        }
        x.w[tid / 16][tid % 16] = s[0], x.w[tid / 16][tid % 16 + 16] = s[1];
        meet();
#pragma unroll
        for (int h = warp * 2; h < warp * 2 + 2; h++) {
            const float score = x.at[lane] >= 0 ? __fmul_rn(x.w[h][lane], p.scale) : -INFINITY;
            float most = score;
            for (int step = 16; step; step /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, step));
            const float before = x.top[h], now = fmaxf(before, top_of(most)), e = weight_of(score, now);
            float all = e;
            for (int step = 16; step; step /= 2) all = __fadd_rn(all, __shfl_xor_sync(~0u, all, step));
            x.w[h][lane] = p.round_p ? widen(narrow<bf16>(e)) : e;
            __syncwarp();
            if (lane == 0) {
                x.top[h] = now, x.fell[h] = fall(before, now);
                x.sum[h] = __fmaf_rn(x.sum[h], x.fell[h], all);
            }
        }
        meet();
#pragma unroll
        for (int h = 0; h < HEADS; h++)
#pragma unroll
            for (int e = 0; e < EACH; e++) acc[e][h] = __fmul_rn(acc[e][h], x.fell[h]);
        for (int j = 0; j < KEYS; j++) {
            const int64_t from = x.at[j];
            if (from < 0) continue;
            float v[EACH];
#pragma unroll
            for (int e = 0; e < EACH; e++)
                v[e] =
                    column + e * THREADS < p.value_width ? element<E>::of(p, p.kv + from, column + e * THREADS) : 0.0f;
#pragma unroll
            for (int h = 0; h < HEADS; h++)
#pragma unroll
                for (int e = 0; e < EACH; e++) acc[e][h] = __fmaf_rn(x.w[h][j], v[e], acc[e][h]);
        }
    }
    meet();
    if (x.bad || n < 0) return;
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        if (head + h >= p.heads) break;
        const bool none = x.top[h] == -INFINITY;
        const float share = none ? 0.0f : share_of(p, head + h, x.top[h], x.sum[h]);
        if (p.lse && column == 0)
            p.lse[token * p.lse_token + (head + h) * p.lse_head] = none ? INFINITY : lse_of(x.top[h], x.sum[h]);
#pragma unroll
        for (int e = 0; e < EACH; e++)
            if (column + e * THREADS < p.value_width)
                *(T *)(p.out + token * p.out_token + (head + h) * p.out_head + (column + e * THREADS) * p.out_step) =
                    narrow<T>(none ? 0.0f : __fmul_rn(acc[e][h], share));
    }
}

template <typename E, bool PAGED>
__global__ void __launch_bounds__(THREADS) attend_any(const __grid_constant__ params p) {
    __shared__ scratch x;
    wait_for_previous();
    let_next_start();
    const int64_t block = p.first + blockIdx.x, rest = quotient(p.chunks, block), token = quotient(p.groups, rest);
    attend_heads<E, PAGED>(p, x, token, (rest - token * p.groups.d) * HEADS,
                           (block - rest * p.chunks.d) * COLUMNS + threadIdx.x);
}

/* ---- the host's side --------------------------------------------------------------------------------------------- */

static inline params params_of(const hm_attention_call &c) {
    params p = {};
    const int64_t size = (int64_t)hm_dtype_size(c.q.dtype);
    p.q = (const char *)c.q.data, p.out = (char *)c.out.data;
    p.q_token = c.q.stride[0] * size, p.q_head = c.q.stride[1] * size, p.q_step = c.q.stride[2] * size;
    p.out_token = c.out.stride[0] * size, p.out_head = c.out.stride[1] * size, p.out_step = c.out.stride[2] * size;
    if (c.lse.dtype) p.lse = (float *)c.lse.data, p.lse_token = c.lse.stride[0], p.lse_head = c.lse.stride[1];
    if (c.sink.dtype) p.sink = (const float *)c.sink.data, p.sink_step = c.sink.stride[0];
    p.tokens = c.tokens, p.heads = c.heads, p.width = c.width, p.value_width = c.value_width;
    p.scale = (float)c.scale, p.round_p = c.p == HM_P_BF16;
    if (c.paged) {
        const hm_sparse_mla_decode_args &a = c.pages;
        p.kv = (const char *)c.cache.data, p.keys = c.cache.num_blocks * c.cache.block_size;
        p.block_stride = c.cache.block_stride, p.entry_stride = c.cache.entry_stride;
        p.element_stride = c.cache.element_stride, p.block_size = divider_of(c.cache.block_size);
        p.indices = (const int *)a.indices.data, p.index_token = a.indices.stride[0],
        p.index_step = a.indices.stride[1];
        if (a.topk_length.dtype) p.length = (const int *)a.topk_length.data, p.length_step = a.topk_length.stride[0];
        p.top_k = a.indices.shape[1], p.dequant = a.dequant;
    } else {
        const hm_mla_prefill_args &a = c.flat;
        p.kv = (const char *)a.kv.data, p.keys = a.kv.shape[0];
        p.entry_stride = a.kv.stride[0] * size, p.element_stride = a.kv.stride[1] * size;
        if (a.key_start.dtype) p.start = (const int *)a.key_start.data, p.start_step = a.key_start.stride[0];
        if (a.key_end.dtype) p.end = (const int *)a.key_end.data, p.end_step = a.key_end.stride[0];
    }
    auto whole = [](const void *at, int64_t a, int64_t b, int64_t bytes) {
        return ((intptr_t)at | a | b) % bytes == 0;
    };
    const bool codes = c.paged && c.cache.format == HM_MLA_FP8_DS;
    p.aligned = c.width % 8 == 0 && p.q_step == 2 && whole(p.q, p.q_token, p.q_head, 16) &&
                p.element_stride == (codes ? 1 : 2) && whole(p.kv, p.block_stride, p.entry_stride, 16);
    p.out_aligned = c.value_width % 2 == 0 && p.out_step == 2 && whole(p.out, p.out_token, p.out_head, 4);
    return p;
}

static inline hm_status launch_blocks(const char *op, void (*kernel)(params), params p, int threads, size_t shared,
                                      void *stream, int cluster = 1) {
    const int64_t most = INT32_MAX - 1; /* even: blocks may be in pairs */
    for (p.first = 0; p.first < p.blocks; p.first += most) {
        hm_status s = launch(op, kernel, p.blocks - p.first < most ? p.blocks - p.first : most, dim3((unsigned)threads),
                             shared, stream, p, cluster);
        if (s) return s;
    }
    return HM_OK;
}

template <typename E, bool PAGED>
static hm_status run_any(const char *op, params p, void *stream) {
    p.chunks = divider_of(p.value_width ? (p.value_width - 1) / COLUMNS + 1 : 1);
    p.groups = divider_of((p.heads - 1) / HEADS + 1);
    p.blocks = p.tokens * p.groups.d * p.chunks.d;
    return launch_blocks(op, attend_any<E, PAGED>, p, THREADS, 0, stream);
}

} // namespace mla
} // namespace hm

#endif
