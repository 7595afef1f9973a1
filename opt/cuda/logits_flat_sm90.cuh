/* logits_flat_sm90.cuh: prefill's kernel of logits for compute capability 9.0a; see logits_sm90.cuh. */
#ifndef HM_CUDA_LOGITS_FLAT_SM90_CUH
#define HM_CUDA_LOGITS_FLAT_SM90_CUH

#include "logits_sm90.cuh"

namespace hm {

/* ---- prefill ----------------------------------------------------------------------------------------------------- */

/* A block has HALVES times 64 keys a warpgroup in registers, and tokens pass by in shared memory, two at a time: a
 * warpgroup more brings them, two tokens a warp. While one warpgroup adds up, the others' products are under way. The
 * work is cut into units of FLAT_TOKENS tokens and the keys of a block; a token whose window has none of these keys is
 * passed over. */
enum { FLAT_TOKENS = 32 };

template <bool FP8>
struct flat {
    enum { GROUPS = FP8 ? 3 : 2, HALVES = 2, KEYS = 64 * HALVES * GROUPS, THREADS = 128 * (GROUPS + 1) };
    enum {
        STAGES = 4,
        STAGE_BYTES = 2 * kind<FP8>::QUERY_BYTES,
        MATH_REGISTERS = FP8 ? 144 : 208,
        OTHER_REGISTERS = FP8 ? 80 : 88
    };
    struct token {
        int64_t out;             /* of the block's first key */
        int first, end, columns; /* keys of the block that the window has; that are -inf where it has not */
        int unit;
    };
    struct shared {
        float weight[STAGES][2][HEADS], scale[KEYS];
        uint64_t full[STAGES], empty[STAGES], keys_full, keys_empty;
        token about[STAGES][2];
    };
    enum { BYTES = 1024 + STAGES * STAGE_BYTES + KEYS * DIM + sizeof(shared) };
};

#if __CUDA_ARCH_FEAT_SM90_ALL

/* Byte of piece c of a key: 8 keys' pieces lie in all banks. */
__device__ __forceinline__ int flat_key_byte(int key, int c) { return key * DIM + (c ^ (key & 7)) * 16; }

/* What a thread needs of a key's codes, piece by piece: a word of each, or (f16) two halves of one. Here the
 * dimensions keep their order. */
template <bool FP8>
__device__ __forceinline__ void load_key(uint32_t *raw, const uint8_t *keys, int key, int t) {
#pragma unroll
    for (int c = 0; c < 8; c++) {
        const uint8_t *piece = keys + flat_key_byte(key, c);
        if (FP8) raw[c] = *(const uint32_t *)(piece + 4 * t);
        else raw[c] = *(const uint16_t *)(piece + 2 * t) | (uint32_t) * (const uint16_t *)(piece + 8 + 2 * t) << 16;
    }
}

/* A piece of 16 codes of a head, of two tokens' 128, where the product finds it. */
template <bool FP8, bool FNUZ>
__device__ __forceinline__ void put_piece(uint8_t *tile, int head, int c, uint4 v) {
    if (FP8) {
        *(uint4 *)(tile + head * 128 + (c ^ (head & 7)) * 16) = v;
        return;
    }
    uint4 low, high;
    widen_codes<FNUZ>(v.x, &low.x, &low.y), widen_codes<FNUZ>(v.y, &low.z, &low.w);
    widen_codes<FNUZ>(v.z, &high.x, &high.y), widen_codes<FNUZ>(v.w, &high.z, &high.w);
    uint8_t *row = tile + c / 4 * 16384 + head * 128;
    *(uint4 *)(row + ((c % 4 * 2) ^ (head & 7)) * 16) = low;
    *(uint4 *)(row + ((c % 4 * 2 + 1) ^ (head & 7)) * 16) = high;
}

/* 16 codes that do not lie next to each other. */
__device__ __noinline__ uint4 piece_of(const uint8_t *code, int64_t step) {
    uint32_t word[4];
#pragma unroll
    for (int k = 0; k < 4; k++, code += 4 * step)
        word[k] = code[0] | (uint32_t)code[step] << 8 | (uint32_t)code[2 * step] << 16 | (uint32_t)code[3 * step] << 24;
    return make_uint4(word[0], word[1], word[2], word[3]);
}

/* A quarter of the keys from `base` on. A warp. */
template <bool FP8>
__device__ __forceinline__ void bring_keys(const logits_params &p, typename flat<FP8>::shared &s, uint8_t *keys,
                                           int64_t base, int warp) {
    constexpr int MINE = flat<FP8>::KEYS / 4;
    const int lane = threadIdx.x % 32, from = warp * MINE;
    for (int i = lane; i < MINE; i += 32) {
        const bool there = base + from + i < p.keys;
        const float *scale = p.k_scale + (there ? (base + from + i) * p.scale_step : 0);
        if (p.key_pieces) copy_word(&s.scale[from + i], scale, there);
        else s.scale[from + i] = there ? *scale : 0.0f;
    }
    for (int i = lane; i < MINE * 8; i += 32) {
        const int key = from + i / 8, c = i % 8;
        const bool there = base + key < p.keys;
        const uint8_t *code = p.k + (there ? (base + key) * p.k_stride + 16 * c * p.k_step : 0);
        uint8_t *to = keys + flat_key_byte(key, c);
        if (p.key_pieces) copy_piece(to, code, there);
        else
            for (int d = 0; d < 16; d++) to[d] = there ? code[d * p.k_step] : 0;
    }
    if (p.key_pieces) barrier_arrive_behind_copies(&s.keys_full);
    else barrier_arrive(&s.keys_full);
}

/* The queries and weights of a row, as token `which` of a stage. A warp. */
template <bool FP8>
__device__ __forceinline__ void bring_token(const logits_params &p, uint8_t *tile, float *weights, int which,
                                            int64_t row, uint64_t *empty, uint32_t parity) {
    const int lane = threadIdx.x % 32;
    const uint8_t *q = p.q + row * p.q_batch;
    float weight[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int head = i * 32 + lane;
        weight[i] = head < p.heads ? p.weights[row * p.weights_row + head * p.weights_step] : 0.0f;
    }
    /* 32 threads have 4 heads' pieces; 8 of them write 128 bytes of all banks */
    const int c = FP8 ? lane % 8 : lane % 4 + lane / 8 % 2 * 4, of = FP8 ? lane / 8 : lane / 16 * 2 + lane / 4 % 2;
#pragma unroll 1
    for (int part = 0; part < 2; part++) {
        uint4 piece[8];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int head = part * 32 + i * 4 + of;
            const uint8_t *from = q + head * p.q_head + 16 * c * p.q_step;
            piece[i] = make_uint4(0, 0, 0, 0);
            if (head >= p.heads) continue;
            if (p.q_pieces) piece[i] = *(const uint4 *)from;
            else piece[i] = piece_of(from, p.q_step);
        }
        if (part == 0 && which == 0) barrier_wait(empty, parity);
        if (!FP8 && p.fnuz) {
#pragma unroll
            for (int i = 0; i < 8; i++) put_piece<FP8, true>(tile, which * HEADS + part * 32 + i * 4 + of, c, piece[i]);
        } else {
#pragma unroll
            for (int i = 0; i < 8; i++)
                put_piece<FP8, false>(tile, which * HEADS + part * 32 + i * 4 + of, c, piece[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) weights[weight_place(i * 32 + lane)] = weight[i];
}

template <bool FP8>
__device__ __forceinline__ void bring_tokens(const logits_params &p, typename flat<FP8>::shared &s, uint8_t *tiles,
                                             uint8_t *keys) {
    using F = flat<FP8>;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    int n = 0; /* stages */
    uint32_t units = 0;
#pragma unroll 1
    for (int64_t u = blockIdx.x; u < p.end; u += gridDim.x) {
        const int64_t chunk = quotient(p.tiles, u), base = (u - chunk * p.tiles.d) * F::KEYS;
        const int64_t row = chunk * FLAT_TOKENS + lane;
        logits_window w = {0, 0, 0};
        const bool sound = row < p.row_count && window_of<false>(p, row, &w);
        const int64_t most = F::KEYS, zero = 0;
        const int first = (int)min(max(w.first + w.shift - base, zero), most);
        const int end = (int)min(max(w.end + w.shift - base, zero), most);
        const uint32_t active = __ballot_sync(~0u, sound && first < end);
        const int columns = p.clean ? (int)min(p.width - base, most) : 0;
        if (active) {
            barrier_wait(&s.keys_empty, (units & 1) ^ 1);
            bring_keys<FP8>(p, s, keys, base, warp);
        }
#pragma unroll 1
        for (uint32_t rest = active; rest; n++) {
            const int stage = n % F::STAGES, i = __ffs((int)rest) - 1;
            rest &= rest - 1;
            const int j = rest ? __ffs((int)rest) - 1 : -1;
            rest &= rest - 1;
            if (n % 4 != warp) continue;
            uint8_t *tile = tiles + stage * F::STAGE_BYTES;
#pragma unroll 1
            for (int which = 0; which < 2; which++) {
                const int from = which ? j : i;
                if (from >= 0)
                    bring_token<FP8>(p, tile, s.weight[stage][which], which, chunk * FLAT_TOKENS + from,
                                     &s.empty[stage], (uint32_t)(n / F::STAGES & 1) ^ 1);
                typename F::token about = {0, 0, 0, 0, (int)units};
                const int64_t shift = __shfl_sync(~0u, (long long)w.shift, from & 31);
                const int low = __shfl_sync(~0u, first, from & 31), high = __shfl_sync(~0u, end, from & 31);
                if (from >= 0)
                    about = {(chunk * FLAT_TOKENS + from) * p.logits_row + (base - shift) * p.logits_step, low, high,
                             columns, (int)units};
                if (lane == 0) s.about[stage][which] = about;
            }
            fence_for_async();
            barrier_arrive(&s.full[stage]);
        }
        if (active) units++;
        if (!p.clean) continue;
#pragma unroll 1
        for (uint32_t rest = __ballot_sync(~0u, sound) & ~active; rest; rest &= rest - 1) {
            const int i = __ffs((int)rest) - 1;
            float *out = p.logits + (chunk * FLAT_TOKENS + i) * p.logits_row + base * p.logits_step;
            if (i % 4 != warp) continue;
            for (int column = lane; column < columns; column += 32)
                out[column * p.logits_step] = __uint_as_float(0xff800000u);
        }
    }
    if (n % 4 == warp) {
        const int stage = n % F::STAGES;
        barrier_wait(&s.empty[stage], (uint32_t)(n / F::STAGES & 1) ^ 1);
        if (lane == 0) s.about[stage][0].unit = NO_UNIT;
        barrier_arrive(&s.full[stage]);
    }
}

#endif

template <bool FP8>
__global__ void __launch_bounds__(flat<FP8>::THREADS, 1) score_rows(const __grid_constant__ logits_params p) {
#if __CUDA_ARCH_FEAT_SM90_ALL
    using F = flat<FP8>;
    constexpr int REGISTERS = kind<FP8>::REGISTERS;
    extern __shared__ uint8_t memory[];
    uint8_t *tiles = memory + (-(intptr_t)shared_address(memory) & 1023);
    uint8_t *keys = tiles + F::STAGES * F::STAGE_BYTES;
    typename F::shared &s = *(typename F::shared *)(keys + F::KEYS * DIM);
    const int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, g = lane / 4,
              t = lane % 4;
    if (threadIdx.x < F::STAGES) {
        /* Every thread arrives that wrote or read: one lane behind __syncwarp() would do, but racecheck does not see it. */
        barrier_init(&s.full[threadIdx.x], 32), barrier_init(&s.empty[threadIdx.x], 128 * F::GROUPS);
        if (threadIdx.x == 0) barrier_init(&s.keys_full, 128), barrier_init(&s.keys_empty, 128 * F::GROUPS);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    wait_for_previous();
    let_next_start();
    if (group == F::GROUPS) {
        shrink_registers<F::OTHER_REGISTERS>();
        bring_tokens<FP8>(p, s, tiles, keys);
        return;
    }
    grow_registers<F::MATH_REGISTERS>();
    const int from = group * 64 * F::HALVES + warp * 16 + g, key = from + (t & 1) * 8; /* key: that the thread writes */
    const uint32_t queries = shared_address(tiles);
    uint32_t a[F::HALVES][REGISTERS], units = 0;
    float scale[F::HALVES];
    int unit = NO_UNIT;
#pragma unroll 1
    for (int n = 0;; n++) {
        const int stage = n % F::STAGES;
        barrier_wait(&s.full[stage], (uint32_t)(n / F::STAGES & 1));
        const int now = s.about[stage][0].unit;
        if (now == NO_UNIT) break;
        if (now != unit) {
            unit = now;
            barrier_wait(&s.keys_full, units++ & 1);
#pragma unroll
            for (int h = 0; h < F::HALVES; h++) {
                uint32_t raw[2][8];
#pragma unroll
                for (int i = 0; i < 2; i++) load_key<FP8>(raw[i], keys, from + h * 64 + i * 8, t);
                scale[h] = s.scale[key + h * 64];
                take_keys<FP8>(a[h], raw[0], raw[1], p.fnuz);
            }
            barrier_arrive(&s.keys_empty);
        }
        /* Of each token the thread sums up two keys; of the four sums it completes one. */
        const typename F::token about = s.about[stage][t >> 1];
#pragma unroll
        for (int h = 0; h < F::HALVES; h++) {
            float d[64], w[16], first[2], second[2];
            products_begin<FP8, 2>(d, a[h], queries + stage * F::STAGE_BYTES);
            load_weights(w, s.weight[stage][0], t);
            products_wait<2>(d);
            sum_heads(d, w, first);
            load_weights(w, s.weight[stage][1], t);
            sum_heads(d + 32, w, second);
            if (h == F::HALVES - 1) barrier_arrive(&s.empty[stage]);
            const float x = share_pair(first, t), y = share_pair(second, t);
            const float v = __fadd_rn(t & 2 ? y : x, __shfl_xor_sync(~0u, t & 2 ? x : y, 2));
            const int column = key + h * 64;
            float *to = p.logits + about.out + column * p.logits_step;
            if (column >= about.first && column < about.end) *to = __fmul_rn(v, scale[h]);
            else if (column < about.columns) *to = __uint_as_float(0xff800000u);
        }
    }
#endif
}

template <bool FP8>
static hm_status launch_flat(const char *op, logits_params p, void *stream) {
    using F = flat<FP8>;
    if (p.heads > HEADS || p.dim != DIM || p.keys == 0 || !special<score_rows<FP8>>(F::BYTES))
        return launch(op, score_any<false, plain_queries>, p.end, dim3(ANY_THREADS), 0, stream, p);
    p.tiles = divider_of((p.keys + F::KEYS - 1) / F::KEYS);
    p.end = (p.row_count + FLAT_TOKENS - 1) / FLAT_TOKENS * p.tiles.d;
    const int64_t processors = hm_cuda_processors();
    return launch(op, score_rows<FP8>, p.end < processors ? p.end : processors, dim3(F::THREADS), F::BYTES, stream, p);
}

} // namespace hm

#endif
