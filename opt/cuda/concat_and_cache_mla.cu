/* concat_and_cache_mla. Copies: 16 bytes a thread where everything lies at multiples of that, else an element. Codes:
 * 16 threads a tile, and 16 for the rotated key behind the four tiles, where everything lies at multiples of 8 bytes;
 * else a warp for each. */
#include "fp8.cuh"

extern "C" {
#include "../../op/concat_and_cache_mla.h"
}

static const char op[] = "concat_and_cache_mla";

namespace {

enum { THREADS = 128, PARTS = HM_MLA_TILES + 1, LANES = HM_MLA_TILE / 8 };

struct params {
    const void *kv_c, *k_pe;
    const int64_t *slots;
    uint8_t *cache;
    int64_t slot_step, slot_count;
    int64_t kv_stride, pe_stride, kv_step, pe_step; /* bytes */
    int64_t block_stride, entry_stride, to_step;    /* bytes */
    int64_t first, end;                             /* of the threads */
    int64_t split;                                  /* of the pieces of a token, those from kv_c */
    hm::divider pieces, block_size;
    hm::scale_rule scale_rule;
    hm::code_rule code_rule;
};

/* The entry of a token; NULL if it is skipped, or its slot is out of range. */
__device__ __forceinline__ uint8_t *entry_of(const params &p, int64_t token) {
    const int64_t slot = p.slots[token * p.slot_step];
    if ((uint64_t)slot >= (uint64_t)p.slot_count) return nullptr;
    const int64_t block = hm::quotient(p.block_size, slot);
    return p.cache + block * p.block_stride + (slot - block * p.block_size.d) * p.entry_stride;
}

/* U: what is copied at a time; the steps are from one U to the next. */
template <typename U>
__global__ void __launch_bounds__(THREADS) copy(const __grid_constant__ params p) {
    hm::wait_for_previous();
    hm::let_next_start();
    const int64_t i = p.first + (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= p.end) return;
    const int64_t token = hm::quotient(p.pieces, i), at = i - token * p.pieces.d, in = at - p.split;
    const char *from = in < 0 ? (const char *)p.kv_c + token * p.kv_stride + at * p.kv_step
                              : (const char *)p.k_pe + token * p.pe_stride + in * p.pe_step;
    const U v = *(const U *)from;
    uint8_t *entry = entry_of(p, token);
    if (entry) *(U *)(entry + at * p.to_step) = v;
}

/* What most calls are: counts below 2^31. A token has PARTS * LANES / EACH threads, blockDim.x of them along x. */
struct word_params {
    const void *kv_c, *k_pe;
    const int64_t *slots;
    uint8_t *cache;
    int64_t slot_step, kv_stride, pe_stride, block_stride, entry_stride; /* bytes, but for slot_step */
    uint32_t tokens, slot_count, block_size, block_m, block_s;
    hm::word_rule rule;
};

template <typename T, int EACH>
__global__ void __launch_bounds__(THREADS) encode_words(const __grid_constant__ word_params p) {
    constexpr int WORDS = 4 * EACH, LANES_OF = LANES / EACH;
    hm::wait_for_previous();
    hm::let_next_start();
    const uint32_t i = blockIdx.x * THREADS + threadIdx.x, all = i / LANES_OF, lane = i % LANES_OF;
    const uint32_t token = all / PARTS, part = all - token * PARTS;
    int64_t slot = -1;
    struct alignas(16) {
        uint32_t w[WORDS];
    } in = {};
    struct alignas(8) {
        uint32_t w[WORDS / 2];
    } to;
    if (token < p.tokens) {
        slot = p.slots[token * p.slot_step];
        if (part < HM_MLA_TILES) {
            const uint4 *from =
                (const uint4 *)((const char *)p.kv_c + token * p.kv_stride + (part * LANES + lane * EACH) * 16);
#pragma unroll
            for (int k = 0; k < EACH; k++) ((uint4 *)&in)[k] = from[k];
        } else {
            const uint2 *from = (const uint2 *)((const char *)p.k_pe + token * p.pe_stride + lane * (8 * EACH));
#pragma unroll
            for (int k = 0; k < EACH; k++) ((uint2 *)&in)[k] = from[k];
        }
    }
    const float s = hm::scale_of(p.rule, hm::amax_of_words<T, WORDS, LANES_OF>(in.w));
    if ((uint64_t)slot >= p.slot_count) return;
    const uint32_t block = (uint32_t)(((uint64_t)(uint32_t)slot * p.block_m) >> (31 + p.block_s));
    uint8_t *entry =
        p.cache + block * p.block_stride + (int64_t)((uint32_t)slot - block * p.block_size) * p.entry_stride;
    if (part == HM_MLA_TILES) {
#pragma unroll
        for (int k = 0; k < EACH; k++) ((uint2 *)(entry + HM_MLA_ROPE_AT + lane * (8 * EACH)))[k] = ((uint2 *)&in)[k];
        return;
    }
    hm::codes_of_words<T, WORDS, true>(p.rule, s, in.w, to.w);
#pragma unroll
    for (int k = 0; k < EACH; k++) ((uint2 *)(entry + part * HM_MLA_TILE + lane * (8 * EACH)))[k] = ((uint2 *)&to)[k];
    if (lane == 0) *(float *)(entry + HM_MLA_SCALES_AT + 4 * part) = s;
}

template <typename T>
__global__ void __launch_bounds__(THREADS) encode_any(const __grid_constant__ params p) {
    hm::wait_for_previous();
    hm::let_next_start();
    const int64_t i = p.first + (int64_t)blockIdx.x * THREADS + threadIdx.x, all = i / 32;
    if (i >= p.end) return; /* whole warps */
    const int lane = threadIdx.x % 32;
    const int64_t token = hm::quotient(p.pieces, all);
    const int part = (int)(all - token * PARTS);
    uint8_t *entry = entry_of(p, token);
    if (!entry) return;
    if (part == HM_MLA_TILES) {
        const char *from = (const char *)p.k_pe + token * p.pe_stride;
        for (int k = lane; k < HM_MLA_ROPE; k += 32) {
            const uint16_t v = *(const uint16_t *)(from + k * p.pe_step);
            entry[HM_MLA_ROPE_AT + 2 * k] = (uint8_t)v, entry[HM_MLA_ROPE_AT + 2 * k + 1] = (uint8_t)(v >> 8);
        }
        return;
    }
    const char *from = (const char *)p.kv_c + token * p.kv_stride + part * HM_MLA_TILE * p.kv_step;
    float v[HM_MLA_TILE / 32];
#pragma unroll
    for (int n = 0; n < HM_MLA_TILE / 32; n++) v[n] = hm::widen(*(const T *)(from + (n * 32 + lane) * p.kv_step));
    float amax = hm::amax_of<HM_MLA_TILE / 32>(v);
    for (int step = 16; step; step /= 2) amax = fmaxf(amax, __shfl_xor_sync(~0u, amax, step));
    const float s = hm::scale_of(p.scale_rule, amax);
    hm::divide_by_scale<HM_MLA_TILE / 32>(p.scale_rule, s, v);
#pragma unroll
    for (int n = 0; n < HM_MLA_TILE / 32; n++)
        entry[part * HM_MLA_TILE + n * 32 + lane] = hm::code_of(p.code_rule, v[n]);
    if (lane < 4) entry[HM_MLA_SCALES_AT + 4 * part + lane] = (uint8_t)(__float_as_uint(s) >> 8 * lane);
}

/* Do entries begin at multiples of `bytes` bytes? */
bool entries_at(const hm_mla_cache &c, int64_t bytes) {
    return (intptr_t)c.data % bytes == 0 && c.block_stride % bytes == 0 && c.entry_stride % bytes == 0;
}

hm_status run_copy(const hm_concat_and_cache_mla_args &a, const hm_mla_cache &c, params p) {
    const int64_t size = (int64_t)hm_dtype_size(c.dtype), latent = a.kv_c.shape[1], rope = a.k_pe.shape[1];
    const bool whole = latent * size % 16 == 0 && rope * size % 16 == 0 && (!latent || hm::aligned(a.kv_c, 16)) &&
                       (!rope || hm::aligned(a.k_pe, 16)) && c.element_stride == size && entries_at(c, 16);
    const int64_t per = whole ? 16 / size : 1;
    p.pieces = hm::divider_of(c.entry / per), p.split = latent / per, p.end = a.kv_c.shape[0] * (c.entry / per);
    p.kv_step *= per, p.pe_step *= per, p.to_step = c.element_stride * per;
    return hm::launch_all(op,
                          whole       ? copy<uint4>
                          : size == 2 ? copy<uint16_t>
                                      : copy<uint32_t>,
                          p, THREADS, 1, a.stream);
}

template <typename T>
hm_status run_encode(const hm_concat_and_cache_mla_args &a, const hm_mla_cache &c, params p) {
    const bool pow2 = a.scale == HM_MLA_SCALE_POW2;
    const bool whole = hm::aligned(a.kv_c, 16) && hm::aligned(a.k_pe, 8) && entries_at(c, 8) &&
                       hm::few(a.kv_c.shape[0] * PARTS * LANES + THREADS) && hm::few(p.slot_count);
    p.pieces = hm::divider_of(PARTS);
    p.scale_rule = {448.0f, 1 / 448.0f, (float)hm_mla_floor(a.scale), true, pow2, false};
    p.code_rule = hm::code_rule_of(HM_F8E4M3, true);
    if (!whole) {
        p.end = a.kv_c.shape[0] * PARTS * 32;
        return hm::launch_all(op, encode_any<T>, p, THREADS, 1, a.stream);
    }
    word_params w = {};
    w.kv_c = p.kv_c, w.k_pe = p.k_pe, w.slots = p.slots, w.cache = p.cache, w.slot_step = p.slot_step;
    w.kv_stride = p.kv_stride, w.pe_stride = p.pe_stride;
    w.block_stride = p.block_stride, w.entry_stride = p.entry_stride;
    w.tokens = (uint32_t)a.kv_c.shape[0], w.slot_count = (uint32_t)p.slot_count;
    w.block_size = (uint32_t)c.block_size, w.block_m = p.block_size.m, w.block_s = p.block_size.s;
    w.rule = hm::word_rule_of(p.scale_rule);
    const bool many = a.kv_c.shape[0] > hm_cuda_processors();
    const int64_t threads = a.kv_c.shape[0] * PARTS * (LANES / (many ? 2 : 1));
    return hm::launch(op, many ? encode_words<T, 2> : encode_words<T, 1>, (threads - 1) / THREADS + 1, dim3(THREADS), 0,
                      a.stream, w);
}

} // namespace

extern "C" hm_status hm_concat_and_cache_mla_cuda(const hm_concat_and_cache_mla_args *args) {
    hm_concat_and_cache_mla_args a;
    hm_mla_cache c;
    hm_status s = hm_concat_and_cache_mla_read(args, &a, &c);
    if (s) return s;
    if (a.kv_c.place != HM_CUDA) return hm_fail(HM_UNSUPPORTED, "%s: cuda works on device tensors only", op);
    if ((s = hm_cuda_ready(op)) || a.kv_c.shape[0] == 0 || c.entry == 0) return s;
    const int64_t size = (int64_t)hm_dtype_size(a.kv_c.dtype);
    params p = {};
    p.kv_c = a.kv_c.data, p.k_pe = a.k_pe.data, p.slots = (const int64_t *)a.slot_mapping.data, p.cache = c.data;
    p.slot_step = a.slot_mapping.stride[0], p.slot_count = c.num_blocks * c.block_size;
    p.kv_stride = a.kv_c.stride[0] * size, p.kv_step = a.kv_c.stride[1] * size;
    p.pe_stride = a.k_pe.stride[0] * size, p.pe_step = a.k_pe.stride[1] * size;
    p.block_stride = c.block_stride, p.entry_stride = c.entry_stride, p.block_size = hm::divider_of(c.block_size);
    if (c.format == HM_MLA_BF16) return run_copy(a, c, p);
    return a.kv_c.dtype == HM_BF16 ? run_encode<hm::bf16>(a, c, p) : run_encode<hm::f16>(a, c, p);
}
