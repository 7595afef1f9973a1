/* logits_flat_sm90.cuh: prefill's kernel of logits for compute capability 9.0a; see logits_sm90.cuh. */
#ifndef HM_CUDA_LOGITS_FLAT_SM90_CUH
#define HM_CUDA_LOGITS_FLAT_SM90_CUH

#include "logits_sm90.cuh"

namespace hm {

/* A block has three warpgroups, each with two tokens: their queries lie in shared memory, their weights in registers,
 * and the keys that one of the block's tokens sees pass by in tiles of two products. While one warpgroup adds up, the
 * others' products are under way; while its own is, it finishes the sums before it and takes the next keys. Two warps
 * more bring keys, and two write -inf where no key is. All tiles of all groups of tokens are one sequence, of which
 * each block has a part that costs the same. */
template <bool FP8>
struct flat {
    enum {
        GROUPS = 3,
        EACH = 2, /* tokens of a warpgroup */
        TOKENS = GROUPS * EACH,
        THREADS = 128 * (GROUPS + 1),
        TILE = 128, /* keys */
        STAGES = 6,
        STAGE = TILE * DIM,
        SWITCH = 3, /* what a group costs besides its tiles, in tiles: its queries come only when it begins */
        QUERIES = EACH * kind<FP8>::QUERY_BYTES, /* of a warpgroup */
        SCORING_REGISTERS = 160,
        OTHER_REGISTERS = 32
    };
    struct shared {
        uint64_t full[STAGES];
        int64_t tiles[THREADS / 32], cost[THREADS / 32];
        int64_t group, first, last; /* the block's part: tiles of all, and the group and the tile that it begins with */
        int tile;
    };
    enum { BYTES = 1024 + GROUPS * QUERIES + STAGES * STAGE + sizeof(shared) };
};

#if __CUDA_ARCH_FEAT_SM90_ALL

/* barrier_wait at an address that is known already. */
__device__ __forceinline__ void wait_at(uint32_t b, uint32_t parity) {
    uint32_t done;
    do {
        asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.b32 %0, 1, 0, p;\n}"
                     : "=r"(done)
                     : "r"(b), "r"(parity)
                     : "memory");
    } while (!done);
}
/* 16 keys' codes of two pieces, as a product wants them. */
__device__ __forceinline__ void load_pieces(uint32_t *v, uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(at)
                 : "memory");
}

template <bool FNUZ>
__device__ __forceinline__ void widen_pieces(uint32_t *a, const uint32_t *word) {
#pragma unroll
    for (int i = 0; i < 16; i++) {
        uint32_t *to = a + i / 2 * 4 + i % 2;
        widen_codes<FNUZ>(word[i], to, to + 2);
    }
}

/* ---- what there is to do ----------------------------------------------------------------------------------------- */

/* The keys that a row sees, [from, to); none: to is 0. There are fewer than 2^31: launch_flat. */
struct key_range {
    int from, to;
};

__device__ __forceinline__ key_range keys_of(const logits_params &p, int64_t row, logits_window *w) {
    const bool sound = window_of<false>(p, min(row, p.row_count - 1), w); /* so that no load waits for a branch */
    return sound && row < p.row_count && w->first < w->end
               ? key_range{(int)(w->first + w->shift), (int)(w->end + w->shift)}
               : key_range{0, 0};
}

/* Tiles that the tokens of a group see. */
template <int TOKENS, int TILE>
struct group_tiles {
    int from[TOKENS], to[TOKENS];
    __device__ __forceinline__ group_tiles(const logits_params &p, int64_t row) {
#pragma unroll
        for (int i = 0; i < TOKENS; i++) {
            logits_window w;
            const key_range k = keys_of(p, row + i, &w);
            from[i] = k.from / TILE, to[i] = k.to ? (k.to - 1) / TILE + 1 : 0;
        }
    }
    /* The first of them from `tile` on, and where those that follow it without a gap, seen by the same tokens, end. */
    __device__ __forceinline__ key_range next(int tile) const {
        int first = INT_MAX, end = 0;
#pragma unroll
        for (int i = 0; i < TOKENS; i++)
            if (to[i] > tile) first = min(first, max(from[i], tile));
#pragma unroll
        for (int i = 0; i < TOKENS; i++)
            if (from[i] <= first && to[i] > first) end = max(end, to[i]);
        return {first, end};
    }
};

/* The block's part of all tiles. Whole block. */
template <typename F>
__device__ __forceinline__ void share_rows(const logits_params &p, typename F::shared &s) {
    constexpr int T = F::TOKENS;
    const int64_t groups = (p.row_count + T - 1) / T, each = (groups + F::THREADS - 1) / F::THREADS;
    const int64_t from = threadIdx.x * each, to = min(from + each, groups);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const auto tiles_of = [&](int64_t group) {
        const group_tiles<T, F::TILE> all(p, group * T);
        int count = 0;
#pragma unroll 1
        for (key_range r = all.next(0); r.to; r = all.next(r.to)) count += r.to - r.from;
        return count;
    };
    const auto cost_of = [&](int tiles) { return tiles ? tiles + F::SWITCH : 0; };
    int64_t tiles = 0, cost = 0;
#pragma unroll 1
    for (int64_t i = from; i < to; i++) {
        const int n = tiles_of(i);
        tiles += n, cost += cost_of(n);
    }
    int64_t tiles_to = tiles, cost_to = cost; /* with the threads before this one */
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const int64_t x = __shfl_up_sync(~0u, tiles_to, step), y = __shfl_up_sync(~0u, cost_to, step);
        if (lane >= step) tiles_to += x, cost_to += y;
    }
    if (lane == 31) s.tiles[warp] = tiles_to, s.cost[warp] = cost_to;
    __syncthreads();
    int64_t all_tiles = 0, all = 0;
#pragma unroll 1
    for (int i = 0; i < F::THREADS / 32; i++) {
        if (i < warp) tiles_to += s.tiles[i], cost_to += s.cost[i];
        all_tiles += s.tiles[i], all += s.cost[i];
    }
    /* How many tiles are before a place, and where the tile there is, if a part begins with it. */
    const auto find = [&](int64_t place, bool begins) {
        int64_t at = place - (cost_to - cost), before = tiles_to - tiles, i = from;
#pragma unroll 1
        for (int n; at >= cost_of(n = tiles_of(i)); i++) at -= cost_of(n), before += n;
        at = max(at - F::SWITCH, (int64_t)0);
        before += at;
        if (begins) {
            const group_tiles<T, F::TILE> all_of(p, i * T);
            key_range r = all_of.next(0);
#pragma unroll 1
            for (; at >= r.to - r.from; r = all_of.next(r.to)) at -= r.to - r.from;
            s.group = i, s.tile = r.from + (int)at;
        }
        return before;
    };
    const auto mine = [&](int64_t place) { return cost_to - cost <= place && place < cost_to; };
    const auto part = [&](int64_t block) { return all / gridDim.x * block + all % gridDim.x * block / gridDim.x; };
    const int64_t low = part(blockIdx.x), high = part(blockIdx.x + 1);
    if (mine(low)) s.first = find(low, true);
    if (mine(high)) s.last = find(high, false);
    if (threadIdx.x == 0 && low == all) s.first = all_tiles;
    if (threadIdx.x == 0 && high == all) s.last = all_tiles;
    __syncthreads();
}

/* Calls f(group, first tile, tiles) for every run of tiles of the block's part. */
template <typename F, typename G>
__device__ __forceinline__ void walk(const logits_params &p, const typename F::shared &s, const G &f) {
    int64_t left = s.last - s.first, group = s.group;
    int tile = s.tile;
#pragma unroll 1
    while (left > 0 && group * F::TOKENS < p.row_count) {
        const group_tiles<F::TOKENS, F::TILE> tiles(p, group * F::TOKENS);
        const key_range r = tiles.next(tile);
        const int64_t now = group; /* in registers, its tiles would be too many */
        if (r.to && tiles.next(r.to).to) tile = r.to;
        else group++, tile = 0;
        const int count = (int)min((int64_t)(r.to - r.from), left);
        if (!r.to) continue;
        left -= count;
        f(now, r.from, count);
    }
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

/* Named barriers: 1 to 3 of a warpgroup, then those at which the stages become empty. */
enum { EMPTY = 4 };

__device__ __forceinline__ void copy_piece_to(uint32_t to, const void *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

/* Byte of piece c of a tile's key: 8 keys' pieces lie in all banks. */
__device__ __forceinline__ int flat_key_byte(int key, int c) { return key * DIM + (c ^ (key & 7)) * 16; }

/* Two warps, each half of every tile: one would be too slow. */
template <typename F>
__device__ __forceinline__ void bring_rows(const logits_params &p, typename F::shared &s, uint8_t *stages, int warp) {
    constexpr int MEET = 128 * F::GROUPS + 64, KEYS = F::TILE / 2;
    const int lane = threadIdx.x % 32, mine = warp * KEYS + lane / 8;
    int stage = 0, used = 0;
    walk<F>(p, s, [&](int64_t, int tile, int count) {
#pragma unroll 1
        for (int end = tile + count; tile < end; tile++) {
            const int64_t base = (int64_t)tile * F::TILE;
            const int there = (int)min(p.keys - base, (int64_t)F::TILE);
            uint8_t *to = stages + stage * F::STAGE;
            if (used == F::STAGES) sync_some(EMPTY + stage, MEET);
            else used++;
            if (p.key_pieces) {
                const uint8_t *from = p.k + (base + mine) * p.k_stride + lane % 8 * 16;
                const uint32_t at[2] = {shared_address(to + flat_key_byte(mine, lane % 8)),
                                        shared_address(to + flat_key_byte(mine + 4, lane % 8))};
                if (p.k_stride == DIM && there == F::TILE) { /* addresses need no instructions */
                    asm volatile("" : "+l"(from));
#pragma unroll
                    for (int i = 0; i < KEYS / 4; i++)
                        copy_piece_to(at[i % 2] + i / 2 * (8 * DIM), from + i * (4 * DIM));
                } else {
#pragma unroll 2
                    for (int i = 0; mine + 4 * i < there && i < KEYS / 4; i++, from += 4 * p.k_stride)
                        copy_piece_to(at[i % 2] + i / 2 * (8 * DIM), from);
                }
                barrier_arrive_behind_copies(&s.full[stage]);
            } else {
#pragma unroll 1
                for (int key = warp * KEYS + lane; key < min(there, (warp + 1) * KEYS); key += 32)
#pragma unroll 1
                    for (int d = 0; d < DIM; d++)
                        to[flat_key_byte(key, d / 16) + d % 16] = p.k[(base + key) * p.k_stride + d * p.k_step];
                barrier_arrive(&s.full[stage]);
            }
            if (++stage == F::STAGES) stage = 0;
        }
    });
#pragma unroll 1
    for (; used > 0; used--) {
        stage = stage ? stage - 1 : F::STAGES - 1;
        sync_some(EMPTY + stage, MEET);
    }
}

/* -inf outside of every row's window. Two warps of each block. */
__device__ __forceinline__ void clean_windows(const logits_params &p, int warp) {
    constexpr int64_t PART = 8192;
    const int64_t parts = (p.width + PART - 1) / PART;
    const int lane = threadIdx.x % 32;
#pragma unroll 1
    for (int64_t u = (int64_t)blockIdx.x * 2 + warp; u < p.row_count * parts; u += gridDim.x * 2) {
        const int64_t row = parts == 1 ? u : u / parts, from = (u - row * parts) * PART, to = min(from + PART, p.width);
        logits_window w;
        if (!window_of<false>(p, row, &w)) continue;
        float *out = p.logits + row * p.logits_row;
        const auto clean = [&](int64_t low, int64_t high) {
            float *at = out + (low + lane) * p.logits_step;
#pragma unroll 8
            for (int rest = (int)(high - low) - lane; rest > 0; rest -= 32, at += 32 * p.logits_step)
                *at = __uint_as_float(0xff800000u);
        };
        if (from < w.first) clean(from, min(to, w.first));
        if (w.end < to) clean(max(from, w.end), to);
    }
}

/* ---- queries ----------------------------------------------------------------------------------------------------- */

/* 16 codes that do not lie next to each other. */
__device__ __noinline__ uint4 piece_of(const uint8_t *code, int64_t step) {
    uint32_t word[4];
#pragma unroll
    for (int k = 0; k < 4; k++, code += 4 * step)
        word[k] = code[0] | (uint32_t)code[step] << 8 | (uint32_t)code[2 * step] << 16 | (uint32_t)code[3 * step] << 24;
    return make_uint4(word[0], word[1], word[2], word[3]);
}

/* Piece c of a head's 16 codes, where the product of TOKENS tokens finds it. A thread of a quad has 4 codes of a key's
 * piece; as f16, the first two of them count among the first half of a step's dimensions. */
template <bool FP8, int TOKENS>
__device__ __forceinline__ void put_query(uint8_t *tile, int head, int c, uint4 v, bool fnuz) {
    const int e = head & 7;
    if (FP8) {
        *(uint4 *)(tile + head * 128 + (c ^ e) * 16) = v;
        return;
    }
    uint4 low, high;
    widen_codes(v.x, fnuz, &low.x, &high.x), widen_codes(v.y, fnuz, &low.y, &high.y);
    widen_codes(v.z, fnuz, &low.z, &high.z), widen_codes(v.w, fnuz, &low.w, &high.w);
    uint8_t *row = tile + c / 4 * (8192 * TOKENS) + head * 128;
    *(uint4 *)(row + ((c % 4 * 2) ^ e) * 16) = low;
    *(uint4 *)(row + ((c % 4 * 2 + 1) ^ e) * 16) = high;
}

/* The queries of TOKENS rows, of a warpgroup: a thread's pieces of them. */
template <bool FP8, int TOKENS>
struct held_queries {
    uint4 piece[TOKENS][4];
    __device__ __forceinline__ void load(const logits_params &p, int64_t row) {
        const int thread = threadIdx.x % 128, c = thread % 8;
#pragma unroll
        for (int token = 0; token < TOKENS; token++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int head = i * 16 + thread / 8;
                const uint8_t *from = p.q + (row + token) * p.q_batch + head * p.q_head + 16 * c * p.q_step;
                piece[token][i] = make_uint4(0, 0, 0, 0);
                if (head >= p.heads || row + token >= p.row_count) continue;
                if (p.q_pieces) piece[token][i] = *(const uint4 *)from;
                else piece[token][i] = piece_of(from, p.q_step);
            }
    }
    __device__ __forceinline__ void put(uint8_t *tile, bool fnuz) const {
        const int thread = threadIdx.x % 128, c = thread % 8;
#pragma unroll
        for (int token = 0; token < TOKENS; token++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                put_query<FP8, TOKENS>(tile, token * HEADS + i * 16 + thread / 8, c, piece[token][i], fnuz);
    }
};

#endif

template <bool FP8>
__global__ void __launch_bounds__(flat<FP8>::THREADS, 1) score_rows(const __grid_constant__ logits_params p) {
#if __CUDA_ARCH_FEAT_SM90_ALL
    using F = flat<FP8>;
    constexpr int P = F::EACH;
    extern __shared__ uint8_t memory[];
    uint8_t *tiles = memory + (-(intptr_t)shared_address(memory) & 1023);
    uint8_t *stages = tiles + F::GROUPS * F::QUERIES;
    typename F::shared &s = *(typename F::shared *)(stages + F::STAGES * F::STAGE);
    const int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, g = lane / 4,
              t = lane % 4;
    if (threadIdx.x == 0) {
        for (int i = 0; i < F::STAGES; i++) barrier_init(&s.full[i], 64);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    wait_for_previous();
    let_next_start();
    share_rows<F>(p, s);
    if (group == F::GROUPS) {
        shrink_registers<F::OTHER_REGISTERS>();
        if (warp < 2) bring_rows<F>(p, s, stages, warp);
        else if (p.clean) clean_windows(p, warp - 2);
        return;
    }
    grow_registers<F::SCORING_REGISTERS>();
    /* A product has 64 keys of a tile, the thread two of them; it writes one, for one of the two tokens. */
    const int mine = warp * 16 + g + (t & 1) * 8;
    const int row = warp * 16 + lane % 16; /* whose address the thread names to load_pieces */
    uint32_t from = shared_address(stages) + flat_key_byte(row, lane / 16);
    uint32_t full = shared_address(s.full), odd = t & 1, upper = t & 2;
    const int out_step = (int)p.logits_step * 4, scale_step = (int)p.scale_step * 4;
    /* kept, rather than computed anew for every tile */
    asm volatile("" : "+r"(from), "+r"(full), "+r"(odd), "+r"(upper));
    uint8_t *queries = tiles + group * F::QUERIES;
    const uint32_t tile_of = queries_at(shared_address(queries));
    int64_t now = -1;
    int stage = 0, low = 0, length = 0;
    bool live = false;
    uint32_t parity = 0;
    float w[P][16], *out = nullptr;
    const auto release_stage = [&]() {
        asm volatile("bar.arrive %0, %1;" ::"r"(EMPTY + stage), "n"(128 * F::GROUPS + 64) : "memory");
        if (++stage == F::STAGES) stage = 0, parity ^= 1;
    };
    walk<F>(p, s, [&](int64_t of, int tile, int count) {
        if (of != now) {
            const int64_t row = of * F::TOKENS + group * P;
            now = of;
            held_queries<FP8, P> held;
            held.load(p, row);
#pragma unroll
            for (int i = 0; i < P; i++)
#pragma unroll
                for (int j = 0; j < 16; j++) {
                    const int head = j / 2 * 8 + t * 2 + j % 2;
                    w[i][j] = head < p.heads && row + i < p.row_count
                                  ? p.weights[(row + i) * p.weights_row + head * p.weights_step]
                                  : 0.0f;
                }
            const group_tiles<P, F::TILE> seen(p, row);
            live = seen.next(0).to > 0;
            logits_window window = {0, 0, 0};
            const key_range keys = keys_of(p, row + (t >> 1), &window); /* of the token that the thread writes */
            low = keys.from, length = keys.to - keys.from;
            out = p.logits + ((row + (t >> 1)) * p.logits_row - window.shift * p.logits_step);
            sync_some(1 + group, 128); /* all have waited for the products before this */
            held.put(queries, p.fnuz);
            fence_for_async();
            sync_some(1 + group, 128);
        }
        if (!live) { /* the stages go on */
#pragma unroll 1
            for (; count > 0; count--) {
                wait_at(full + stage * 8, parity);
                release_stage();
            }
            return;
        }
        constexpr bool AHEAD = FP8; /* are there registers for the keys of two products? */
        uint32_t a[AHEAD ? 2 : 1][kind<FP8>::REGISTERS];
        float sum[P][2], scale = 0.0f;
        int key = tile * F::TILE + mine;
        bool before = false; /* is there a tile before this one? */
        const auto load_keys = [&](int h) {
            const uint32_t at = from + stage * F::STAGE + h * (64 * DIM);
            uint32_t word[16];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                if (FP8) load_pieces(a[AHEAD ? h : 0] + 4 * j, at ^ j * 32);
                else load_pieces(word + 4 * j, at ^ j * 32);
            }
            if (!FP8 && p.fnuz) widen_pieces<true>(a[0], word);
            else if (!FP8) widen_pieces<false>(a[0], word);
        };
        /* Of four sums, of two keys for two tokens, the thread completes one. */
        const auto finish = [&](int key, int count) {
            const float x = share_pair(sum[0], odd), y = share_pair(sum[1], odd);
            const float v = __fadd_rn(upper ? y : x, __shfl_xor_sync(~0u, upper ? x : y, 2));
            if ((uint32_t)(key - low) < (uint32_t)count)
                *(float *)((char *)out + (int64_t)key * out_step) = __fmul_rn(v, scale);
        };
        if (AHEAD) wait_at(full + stage * 8, parity), load_keys(0);
#pragma unroll 1
        for (;;) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float d[32 * P];
                if (!AHEAD) {
                    if (h == 0) wait_at(full + stage * 8, parity);
                    load_keys(h);
                    if (h == 1) release_stage();
                }
                products_begin_at<FP8, P>(d, a[AHEAD ? h : 0], tile_of);
                /* While it multiplies: the sums before it, and the keys behind it. A branch keeps the sums' exchange from
                 * going in front of the product; f8 is faster where it does. */
                if (FP8 || h == 1 || before) finish(key + 64 * h - 64, h == 1 || before ? length : 0);
                if ((uint32_t)(key + 64 * h - low) < (uint32_t)length)
                    scale = *(const float *)((const char *)p.k_scale + (int64_t)(key + 64 * h) * scale_step);
                if (AHEAD && h == 0) {
                    load_keys(1);
                    release_stage();
                } else if (AHEAD && count > 1) {
                    wait_at(full + stage * 8, parity);
                    load_keys(0);
                }
                products_wait<P>(d);
#pragma unroll
                for (int i = 0; i < P; i++) sum_heads(d + 32 * i, w[i], sum[i]);
            }
            key += F::TILE, before = true;
            if (--count == 0) break;
        }
        finish(key - 64, length);
    });
#endif
}

template <bool FP8>
static hm_status launch_flat(const char *op, logits_params p, void *stream) {
    using F = flat<FP8>;
    const auto fits = [](int64_t step) { return step < 1 << 29 && step > -(1 << 29); };
    const bool small =
        few(p.row_count) && few(p.width) && p.keys < INT32_MAX - F::TILE && fits(p.logits_step) && fits(p.scale_step);
    if (!small || p.heads > HEADS || p.dim != DIM || p.keys == 0 || !has_90a<score_rows<FP8>>(F::BYTES))
        return launch(op, score_any<false, plain_queries>, p.end, dim3(ANY_THREADS), 0, stream, p);
    return launch(op, score_rows<FP8>, (int64_t)hm_cuda_processors(), dim3(F::THREADS), F::BYTES, stream, p);
}

} // namespace hm

#endif
