/* indexer_k_quant_and_cache: 16 threads a group of 128, 16 bytes of the key and 8 codes each, where everything lies at
 * multiples of that, or 8 threads with twice as much each, where there are many; else a warp a group. */
#include "fp8.cuh"

extern "C" {
#include "../../op/indexer_cache.h"
}

static const char op[] = "indexer_k_quant_and_cache";

namespace {

enum { THREADS = 128, GROUP = HM_INDEXER_GROUP, LANES = GROUP / 8, TILE = HM_INDEXER_TILE };

struct params {
    const void *k;
    const int64_t *slots;
    uint8_t *cache;
    int64_t k_stride, k_step, slot_step, block_stride, head_dim, slot_count, scales; /* scales: byte of a block */
    int64_t first, end;                                                              /* of the threads */
    hm::divider groups, block_size;
    hm::scale_rule scale_rule;
    hm::code_rule code_rule;
    bool shuffle;
};

/* The byte of a block that code d of a token is. */
__device__ __forceinline__ int64_t code_byte(const params &p, int64_t offset, int64_t d) {
    if (!p.shuffle) return offset * p.head_dim + d;
    return offset / TILE * TILE * p.head_dim + d / TILE * TILE * TILE + offset % TILE * TILE + d % TILE;
}

/* What most calls are: f8e4m3, everything at multiples of 16 bytes, and tokens, slots and the bytes of a block are
 * counted below 2^31. */
struct word_params {
    const void *k;
    const int64_t *slots;
    uint8_t *cache;
    int64_t k_stride, slot_step, block_stride;
    uint32_t tokens, slot_count, head_dim, scales, groups; /* scales: byte of a block */
    uint32_t block_size, block_m, block_s;                 /* a divider */
    hm::word_rule rule;
    bool shuffle;
};

/* A group has LANES / EACH threads, each with EACH pieces of 16 bytes side by side. blockIdx.y: group of a token. */
template <typename T, int EACH>
__global__ void __launch_bounds__(THREADS) write_words(const __grid_constant__ word_params p) {
    constexpr int WORDS = 4 * EACH, THREADS_OF = LANES / EACH;
    hm::wait_for_previous();
    hm::let_next_start();
    const uint32_t token = (blockIdx.x * THREADS + threadIdx.x) / THREADS_OF;
    const uint32_t lane = threadIdx.x % THREADS_OF, group = blockIdx.y, d = group * GROUP + lane * (8 * EACH);
    int64_t slot = -1;
    struct alignas(16) {
        uint32_t w[WORDS];
    } in = {};
    struct alignas(8 * EACH) {
        uint32_t w[WORDS / 2];
    } to;
    if (token < p.tokens) {
        slot = p.slots[token * p.slot_step];
        const uint4 *from = (const uint4 *)((const T *)p.k + token * p.k_stride + d);
#pragma unroll
        for (int i = 0; i < EACH; i++) ((uint4 *)&in)[i] = from[i];
    }
    const float s = hm::scale_of(p.rule, hm::amax_of_words<T, WORDS, THREADS_OF>(in.w));
    hm::codes_of_words<T, WORDS>(p.rule, s, in.w, to.w);
    if ((uint64_t)slot >= p.slot_count) return; /* skipped, or out of range: nothing is written */
    const uint32_t block = (uint32_t)(((uint64_t)(uint32_t)slot * p.block_m) >> (31 + p.block_s));
    const uint32_t offset = (uint32_t)slot - block * p.block_size;
    uint8_t *base = p.cache + block * p.block_stride;
    const uint32_t at =
        p.shuffle ? offset / TILE * TILE * p.head_dim + d / TILE * (TILE * TILE) + offset % TILE * TILE + d % TILE
                  : offset * p.head_dim + d;
    *(decltype(to) *)(base + at) = to;
    if (lane == 0) *(float *)(base + (p.scales + 4 * (offset * p.groups + group))) = s;
}

template <typename T>
__global__ void __launch_bounds__(THREADS) write_any(const __grid_constant__ params p) {
    hm::wait_for_previous();
    hm::let_next_start();
    const int64_t i = p.first + (int64_t)blockIdx.x * THREADS + threadIdx.x, all = i / 32;
    if (i >= p.end) return; /* whole warps */
    const int lane = threadIdx.x % 32;
    const int64_t token = hm::quotient(p.groups, all), group = all - token * p.groups.d;
    const int64_t slot = p.slots[token * p.slot_step];
    if (slot < 0 || slot >= p.slot_count) return;
    const T *k = (const T *)p.k + token * p.k_stride + group * GROUP * p.k_step;
    float v[GROUP / 32];
#pragma unroll
    for (int n = 0; n < GROUP / 32; n++) v[n] = hm::widen(k[(n * 32 + lane) * p.k_step]);
    float amax = hm::amax_of<GROUP / 32>(v);
    for (int step = 16; step; step /= 2) amax = fmaxf(amax, __shfl_xor_sync(~0u, amax, step));
    const float s = hm::scale_of(p.scale_rule, amax);
    hm::divide_by_scale<GROUP / 32>(p.scale_rule, s, v);
    const int64_t block = hm::quotient(p.block_size, slot), offset = slot - block * p.block_size.d;
    uint8_t *base = p.cache + block * p.block_stride;
#pragma unroll
    for (int n = 0; n < GROUP / 32; n++)
        base[code_byte(p, offset, group * GROUP + n * 32 + lane)] = hm::code_of(p.code_rule, v[n]);
    if (lane < 4) base[p.scales + 4 * (offset * p.groups.d + group) + lane] = (uint8_t)(__float_as_uint(s) >> 8 * lane);
}

template <typename T>
hm_status run(const hm_indexer_k_quant_and_cache_args &a, const hm_indexer_cache &c) {
    params p = {};
    p.k = a.k.data, p.slots = (const int64_t *)a.slot_mapping.data, p.cache = c.data;
    p.k_stride = a.k.stride[0], p.k_step = a.k.stride[1], p.slot_step = a.slot_mapping.stride[0];
    p.block_stride = c.block_stride, p.head_dim = c.head_dim, p.slot_count = c.num_blocks * c.block_size;
    p.scales = c.block_size * c.head_dim;
    p.groups = hm::divider_of(c.groups), p.block_size = hm::divider_of(c.block_size);
    const bool fnuz = a.code_format == HM_CODE_E4M3FNUZ;
    p.scale_rule = {fnuz ? 224.0f : 448.0f,
                    1 / (fnuz ? 224.0f : 448.0f),
                    (float)a.floor,
                    false,
                    a.scale_format == HM_SCALE_UE8M0,
                    false};
    p.code_rule = hm::code_rule_of(fnuz ? HM_F8E4M3FNUZ : HM_F8E4M3, true);
    p.shuffle = a.layout == HM_LAYOUT_SHUFFLE;
    const bool whole = hm::aligned(a.k, 16) && (intptr_t)c.data % 16 == 0 && c.block_stride % 16 == 0 &&
                       hm::few(p.slot_count) && hm::few(c.block_size * c.entry) && c.groups <= 65535 &&
                       hm::few(a.k.shape[0] * LANES + THREADS) && hm::has_word_rule(p.scale_rule, p.code_rule);
    if (!whole) {
        p.end = a.k.shape[0] * c.groups * 32;
        return hm::launch_all(op, write_any<T>, p, THREADS, 1, a.stream);
    }
    word_params w = {};
    w.k = p.k, w.slots = p.slots, w.cache = p.cache;
    w.k_stride = p.k_stride, w.slot_step = p.slot_step, w.block_stride = p.block_stride;
    w.tokens = (uint32_t)a.k.shape[0], w.slot_count = (uint32_t)p.slot_count;
    w.head_dim = (uint32_t)c.head_dim, w.scales = (uint32_t)p.scales, w.groups = (uint32_t)c.groups;
    w.block_size = (uint32_t)c.block_size, w.block_m = p.block_size.m, w.block_s = p.block_size.s;
    w.rule = hm::word_rule_of(p.scale_rule), w.shuffle = p.shuffle;
    const bool many = a.k.shape[0] * c.groups > (int64_t)hm_cuda_processors() * 64; /* by measurement */
    const int64_t tokens = THREADS / LANES * (many ? 2 : 1);
    return hm::launch(op, many ? write_words<T, 2> : write_words<T, 1>,
                      dim3((unsigned)((a.k.shape[0] - 1) / tokens + 1), (unsigned)c.groups), dim3(THREADS), 0, a.stream,
                      w);
}

} // namespace

extern "C" hm_status hm_indexer_k_quant_and_cache_cuda(const hm_indexer_k_quant_and_cache_args *args) {
    hm_indexer_k_quant_and_cache_args a;
    hm_indexer_cache c;
    hm_status s = hm_indexer_k_quant_and_cache_read(args, &a, &c);
    if (s) return s;
    if (a.k.place != HM_CUDA) return hm_fail(HM_UNSUPPORTED, "%s: cuda works on device tensors only", op);
    if ((s = hm_cuda_ready(op)) || hm_tensor_elements(&a.k) == 0) return s;
    return a.k.dtype == HM_BF16 ? run<hm::bf16>(a, c) : run<hm::f16>(a, c);
}
