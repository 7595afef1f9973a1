/* indexer, as three launches and no memory between them: the keys' norm, rotation and codes, straight into the cache;
 * the logits, whose blocks rotate and quantise the queries and scale the weights themselves; the selection, which is
 * top_k_per_row's. What is between the steps is rounded to T where the contract says so, in registers. */
#include "fp8.cuh"
#include "logits_sm90.cuh"

extern "C" {
#include "../../op/index_weights.h"
#include "../../op/indexer.h"
}

static const char op[] = "indexer";

namespace {

enum { DIM = HM_INDEXER_GROUP, EACH = DIM / 32, TILE = HM_INDEXER_TILE, THREADS = 128, WARPS = THREADS / 32 };

/* Where a token's rotation comes from, and how codes are made. */
struct rules {
    const int64_t *positions;
    const void *table;
    int64_t position_step, table_stride, table_step, max_position;
    int offset, pairs;
    bool interleaved, table_wide; /* wide: f32 */
    hm::scale_rule scale_rule;
    hm::code_rule code_rule;
};

struct key_params {
    rules r;
    const void *k, *weight, *bias;
    const int64_t *slots;
    uint8_t *cache;
    int64_t k_stride, k_step, weight_step, bias_step, slot_step, block_stride, scale_byte, slot_count, token_count;
    hm::divider block_size;
    float eps;
    bool weight_wide, bias_wide, shuffle;
};

struct query_params {
    hm::logits_params p;
    rules r;
    const void *q, *weights;
    int64_t q_token, q_head, q_step;
    bool q_whole; /* a thread's elements lie next to each other, at multiples of their size */
    hm_dtype weights_dtype;
    float of_dim, of_heads;
};

/* Element i of a tensor of T, or of f32. */
template <typename T>
__device__ __forceinline__ float element(const void *t, bool wide, int64_t i) {
    return wide ? ((const float *)t)[i] : hm::widen(((const T *)t)[i]);
}

/* How the EACH elements that a thread has of a row turn: where the other of the pair is (-1: it stays), and by what. */
struct turn {
    int other[EACH];
    float c[EACH], s[EACH]; /* s: with the sign that it is added with */
};

template <typename T>
__device__ __forceinline__ turn turn_of(const rules &r, int64_t position) {
    turn to;
    const int first = EACH * (threadIdx.x % 32);
#pragma unroll
    for (int n = 0; n < EACH; n++) {
        const int at = first + n - r.offset;
        to.other[n] = -1;
        if (position < 0 || at < 0 || at >= 2 * r.pairs) continue;
        const bool second = r.interleaved ? at & 1 : at >= r.pairs;
        const int pair = r.interleaved ? at / 2 : second ? at - r.pairs : at, apart = r.interleaved ? 1 : r.pairs;
        const int64_t from = position * r.table_stride + pair * r.table_step;
        to.other[n] = first + n + (second ? -apart : apart);
        to.c[n] = element<T>(r.table, r.table_wide, from);
        to.s[n] = element<T>(r.table, r.table_wide, from + r.pairs * r.table_step);
        if (!second) to.s[n] = -to.s[n];
    }
    return to;
}

/* A thread has elements EACH * lane and on of a row of its warp, values of T, and so it has after they were rotated.
 * row: shared memory of the warp. Rounds as rotary_embedding does: products and their sum in f32, and that to T. */
template <typename T>
__device__ __forceinline__ void rotate(const turn &to, float *row, float *v) {
    __syncwarp();
    *(float4 *)(row + EACH * (threadIdx.x % 32)) = make_float4(v[0], v[1], v[2], v[3]);
    __syncwarp();
#pragma unroll
    for (int n = 0; n < EACH; n++)
        if (to.other[n] >= 0)
            v[n] = hm::widen(hm::narrow<T>(__fadd_rn(__fmul_rn(v[n], to.c[n]), __fmul_rn(row[to.other[n]], to.s[n]))));
}

/* A warp's row as codes; its scale. */
__device__ __forceinline__ float quantise(const rules &r, float *v, uint8_t *code) {
    float amax = hm::amax_of<EACH>(v);
#pragma unroll
    for (int step = 16; step; step /= 2) amax = fmaxf(amax, __shfl_xor_sync(~0u, amax, step));
    const float s = hm::scale_of(r.scale_rule, amax);
    hm::divide_by_scale<EACH>(r.scale_rule, s, v);
    hm::codes_of<EACH>(r.code_rule, v, code);
    return s;
}

__device__ __forceinline__ float sum_of_warp(float v) {
#pragma unroll
    for (int step = 16; step; step /= 2) v = __fadd_rn(v, __shfl_xor_sync(~0u, v, step));
    return v;
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

/* A warp a token. */
template <typename T>
__global__ void __launch_bounds__(THREADS) write_keys(const __grid_constant__ key_params p) {
    __shared__ float rows[WARPS][DIM];
    hm::wait_for_previous();
    hm::let_next_start();
    const int lane = threadIdx.x % 32, first = EACH * lane;
    const int64_t step = (int64_t)gridDim.x * WARPS;
    for (int64_t token = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32; token < p.token_count; token += step) {
        const int64_t slot = p.slots[token * p.slot_step], position = p.r.positions[token * p.r.position_step];
        const T *k = (const T *)p.k + token * p.k_stride;
        float v[EACH], sum = 0.0f, squares = 0.0f;
#pragma unroll
        for (int n = 0; n < EACH; n++) v[n] = hm::widen(k[(first + n) * p.k_step]);
        if (slot < 0 || slot >= p.slot_count) continue; /* skipped, or out of range */
        if (p.r.pairs && (position < 0 || position >= p.r.max_position)) continue;
        const turn turns = turn_of<T>(p.r, position);
#pragma unroll
        for (int n = 0; n < EACH; n++) sum = __fadd_rn(sum, v[n]);
        const float mean = __fmul_rn(sum_of_warp(sum), 1.0f / DIM);
#pragma unroll
        for (int n = 0; n < EACH; n++) {
            v[n] = __fsub_rn(v[n], mean);
            squares = __fmaf_rn(v[n], v[n], squares);
        }
        const float rs = rsqrtf(__fadd_rn(__fmul_rn(sum_of_warp(squares), 1.0f / DIM), p.eps));
#pragma unroll
        for (int n = 0; n < EACH; n++) {
            const int64_t d = first + n;
            const float weight = p.weight ? element<T>(p.weight, p.weight_wide, d * p.weight_step) : 1.0f;
            const float bias = p.bias ? element<T>(p.bias, p.bias_wide, d * p.bias_step) : 0.0f;
            v[n] = hm::widen(hm::narrow<T>(__fadd_rn(__fmul_rn(__fmul_rn(v[n], rs), weight), bias)));
        }
        rotate<T>(turns, rows[threadIdx.x / 32], v);
        uint8_t code[EACH];
        const float s = quantise(p.r, v, code);
        const int64_t block = hm::quotient(p.block_size, slot), offset = slot - block * p.block_size.d;
        uint8_t *base = p.cache + block * p.block_stride, *scale = base + p.scale_byte + 4 * offset;
        uint8_t *to = base + (p.shuffle ? offset / TILE * TILE * DIM + first / TILE * TILE * TILE +
                                              offset % TILE * TILE + first % TILE
                                        : offset * DIM + first);
#pragma unroll
        for (int n = 0; n < EACH; n++) to[n] = code[n];
        if (lane < 4) scale[lane] = (uint8_t)(__float_as_uint(s) >> 8 * lane);
    }
}

/* ---- queries ----------------------------------------------------------------------------------------------------- */

/* Queries of T, for the kernels of logits. */
template <typename T>
struct rotated_queries {
    enum { PLAIN = 0 };
    using params = query_params;
    static void set_end(params &q, int64_t end) { q.p.end = end; }
    static __device__ __forceinline__ const hm::logits_params &of(const params &q) { return q.p; }
    static __device__ __forceinline__ bool known(const params &q, int64_t row) {
        const int64_t position = q.r.positions[row * q.r.position_step];
        return !q.r.pairs || (position >= 0 && position < q.r.max_position);
    }

    static __device__ __forceinline__ void load(const params &q, int64_t row, int64_t head, float *v, float *weight) {
        const T *from = (const T *)q.q + row * q.q_token + head * q.q_head + EACH * (threadIdx.x % 32) * q.q_step;
        const int64_t at = row * q.p.weights_row + head * q.p.weights_step;
        if (q.q_whole) ((const hm::vec<T, EACH> *)from)->get(v);
        else
#pragma unroll
            for (int n = 0; n < EACH; n++) v[n] = hm::widen(from[n * q.q_step]);
        *weight = q.weights_dtype == HM_F32    ? ((const float *)q.weights)[at]
                  : q.weights_dtype == HM_BF16 ? hm::widen(((const hm::bf16 *)q.weights)[at])
                                               : hm::widen(((const hm::f16 *)q.weights)[at]);
    }
    /* The thread's codes of a head as a word, and what the head weighs. */
    static __device__ __forceinline__ uint32_t code(const params &q, const turn &turns, float *row, float *v,
                                                    float *weight) {
        union {
            uint8_t code[EACH];
            uint32_t word;
        } c;
        rotate<T>(turns, row, v);
        const float scale = quantise(q.r, v, c.code);
        *weight = __fmul_rn(__fmul_rn(__fmul_rn(*weight, scale), q.of_dim), q.of_heads);
        return c.word;
    }

    /* For score_any. */
    static __device__ __forceinline__ void fill(const params &q, int64_t row, int64_t head, int64_t,
                                                hm::any_shared &s) {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        const turn turns = turn_of<T>(q.r, q.r.positions[row * q.r.position_step]);
#pragma unroll 1
        for (int h = warp; h < hm::ANY_HEADS; h += WARPS) {
            uint32_t wide[2] = {0, 0};
            float v[EACH], weight = 0.0f;
            if (head + h < q.p.heads) {
                load(q, row, head + h, v, &weight);
                hm::widen_codes(code(q, turns, s.row[warp], v, &weight), q.p.fnuz, &wide[0], &wide[1]);
            }
            if (lane == 0) s.weight[h] = weight;
            *(uint2 *)(s.q + h * hm::ANY_PITCH + EACH * lane) = make_uint2(wide[0], wide[1]);
        }
    }

    /* For score_pages. */
#if __CUDA_ARCH_FEAT_SM90_ALL
    enum { ALL = 4 * hm::PAGED_GROUPS, MINE = (hm::HEADS + ALL - 1) / ALL }; /* warps; heads of a warp */
    struct held {
        float v[MINE][EACH], weight[MINE];
        turn turns;
    };
    static __device__ __forceinline__ held load(const params &q, int request, int token) {
        const int64_t row = (int64_t)request * q.p.next_n.d + token;
        held h;
#pragma unroll
        for (int n = 0; n < MINE; n++) {
            const int head = n * ALL + threadIdx.x / 32;
            h.weight[n] = 0.0f;
            if (head < q.p.heads) load(q, row, head, h.v[n], &h.weight[n]);
        }
        const bool turns = known(q, row); /* else what comes of it is not written */
        h.turns = turn_of<T>(q.r, turns ? q.r.positions[row * q.r.position_step] : -1);
        return h;
    }
    template <bool FP8>
    static __device__ __forceinline__ void put(const params &q, held &h, uint8_t *tile, float *weight) {
        __shared__ float rows[ALL][DIM];
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
        for (int n = 0; n < MINE; n++) {
            const int head = n * ALL + warp;
            uint32_t word = 0;
            if (head >= hm::HEADS) continue;
            if (head < q.p.heads) word = code(q, h.turns, rows[warp], h.v[n], &h.weight[n]);
            hm::put_word<FP8>(tile, head, lane, word, q.p.fnuz);
            if (lane == 0) weight[hm::weight_place(head)] = h.weight[n];
        }
    }
#endif
};

/* ---- the host's part --------------------------------------------------------------------------------------------- */

rules rules_of(const hm_indexer_args &a, float floor) {
    rules r = {};
    const bool fnuz = a.code_format == HM_CODE_E4M3FNUZ;
    const float divisor = fnuz ? 224.0f : 448.0f;
    r.positions = (const int64_t *)a.positions.data, r.position_step = a.positions.stride[0];
    r.table = a.cos_sin_cache.data, r.table_wide = a.cos_sin_cache.dtype == HM_F32;
    r.table_stride = a.cos_sin_cache.stride[0], r.table_step = a.cos_sin_cache.stride[1];
    r.max_position = a.cos_sin_cache.shape[0];
    r.offset = (int)a.rope_dim_offset, r.pairs = (int)(a.cos_sin_cache.shape[1] / 2);
    r.interleaved = a.pairing == HM_PAIR_INTERLEAVED;
    r.scale_rule = {divisor, 1 / divisor, floor, false, true, false};
    r.code_rule = hm::code_rule_of(fnuz ? HM_F8E4M3FNUZ : HM_F8E4M3, true);
    return r;
}

template <typename T>
hm_status write_cache(const hm_indexer_args &a, const hm_indexer_cache &c) {
    key_params p = {};
    p.r = rules_of(a, 1e-4f);
    p.k = a.k.data, p.k_stride = a.k.stride[0], p.k_step = a.k.stride[1], p.token_count = a.k.shape[0];
    p.weight = a.k_weight.dtype ? a.k_weight.data : nullptr, p.weight_step = a.k_weight.stride[0];
    p.bias = a.k_bias.dtype ? a.k_bias.data : nullptr, p.bias_step = a.k_bias.stride[0];
    p.weight_wide = a.k_weight.dtype == HM_F32, p.bias_wide = a.k_bias.dtype == HM_F32, p.eps = (float)a.eps;
    p.slots = (const int64_t *)a.slot_mapping.data, p.slot_step = a.slot_mapping.stride[0];
    p.cache = c.data, p.block_stride = c.block_stride, p.scale_byte = c.block_size * c.head_dim;
    p.slot_count = c.num_blocks * c.block_size, p.block_size = hm::divider_of(c.block_size);
    p.shuffle = c.layout == HM_LAYOUT_SHUFFLE;
    return hm::launch(op, write_keys<T>, (p.token_count + WARPS - 1) / WARPS, dim3(THREADS), 0, a.stream, p);
}

template <typename T>
hm_status score(const hm_indexer_args &a, const hm_indexer_cache &c) {
    query_params q = {};
    hm_indexer_steps step;
    hm_indexer_take_apart(&a, nullptr, &step); /* addresses alone: nothing is there */
    q.p = hm::logits_params_of(step.score, c);
    q.r = rules_of(a, 1e-10f);
    q.q = a.q.data, q.q_token = a.q.stride[0], q.q_head = a.q.stride[1], q.q_step = a.q.stride[2];
    q.q_whole = hm::aligned(a.q, EACH * sizeof(T));
    q.weights = a.weights.data, q.weights_dtype = a.weights.dtype;
    q.p.weights_row = a.weights.stride[0], q.p.weights_step = a.weights.stride[1];
    q.of_dim = (float)hm_inverse_root_f32(DIM), q.of_heads = (float)hm_inverse_root_f32(a.q.shape[1]);
    if (q.p.end == 0) return HM_OK;
    return hm::launch_paged<false, rotated_queries<T>, rotated_queries<T>>(op, q, q.p, a.stream);
}

/* Lengths of requests, or of each token: these as one row where they lie like that, else place by place in a
 * request. */
hm_status choose(const hm_indexer_args &a) {
    const hm_tensor &lens = a.context_lens;
    const int64_t batch = lens.shape[0], next_n = a.q.shape[0] / batch;
    hm_top_k_per_row_args t = {};
    t.size = sizeof t, t.logits = a.logits, t.indices = a.indices, t.seq_lens = lens, t.stream = a.stream;
    if (lens.ndim == 1) {
        t.next_n = next_n;
        return hm_top_k_per_row_cuda(&t);
    }
    t.seq_lens.ndim = 1;
    if (batch == 1 || next_n == 1 || lens.stride[0] == next_n * lens.stride[1]) {
        t.seq_lens.shape[0] = batch * next_n;
        t.seq_lens.stride[0] = next_n == 1 ? lens.stride[0] : lens.stride[1];
        return hm_top_k_per_row_cuda(&t);
    }
    hm_status s = HM_OK;
    for (int64_t j = 0; j < next_n && !s; j++) {
        t.seq_lens.data = (int32_t *)lens.data + j * lens.stride[1];
        t.logits.data = (float *)a.logits.data + j * a.logits.stride[0];
        t.indices.data = (int32_t *)a.indices.data + j * a.indices.stride[0];
        t.logits.shape[0] = t.indices.shape[0] = batch;
        t.logits.stride[0] = next_n * a.logits.stride[0], t.indices.stride[0] = next_n * a.indices.stride[0];
        s = hm_top_k_per_row_cuda(&t);
    }
    return s;
}

template <typename T>
hm_status run(const hm_indexer_args &a, const hm_indexer_cache &c) {
    hm_status s = write_cache<T>(a, c);
    if (!s) s = score<T>(a, c);
    return s ? s : choose(a);
}

} // namespace

extern "C" hm_status hm_indexer_cuda(const hm_indexer_args *args) {
    hm_indexer_args a;
    hm_indexer_cache c;
    hm_status s = hm_indexer_read(args, &a);
    if (!s) s = hm_indexer_cache_read(op, &a.kv_cache, a.layout, &c);
    if (s) return s;
    if (a.q.place != HM_CUDA) return hm_fail(HM_UNSUPPORTED, "%s: cuda works on device tensors only", op);
    if ((s = hm_cuda_ready(op)) || a.q.shape[0] == 0) return s;
    return a.q.dtype == HM_BF16 ? run<hm::bf16>(a, c) : run<hm::f16>(a, c);
}
