/* mla_fp8_sm90.cuh: sparse_mla_decode from fp8_ds_mla on Hopper's tensor cores.
 *
 * A block does 64 heads of a token, 64 keys at a time, in two buffers. A tile has a warpgroup that multiplies it with
 * the queries and takes the exponentials: the first those of even tiles, the second the others, so that one takes
 * exponentials while the other multiplies. Weights go to where the tile's rope part was, and each of the two adds up
 * half of the columns of all tiles. The other threads decode, 128 columns of all keys after the other, and products
 * begin with the first of them. Where a token has an even number of blocks, two are a cluster: each decodes half of the
 * keys and stores them in both. Tiles and sums are the same either way and do not depend on other tokens, so a row's
 * bits do not either; places without a key add zeros. For HM_P_F32 see mla_sm90.cuh. */
#ifndef HM_CUDA_MLA_FP8_SM90_CUH
#define HM_CUDA_MLA_FP8_SM90_CUH

#include "mla_sm90.cuh"

namespace hm {
namespace mla {
namespace fp8 {

using sm90::BLOCK_HEADS;
using sm90::FEW;
using sm90::PANEL;
using sm90::TILE;
using sm90::VALUES;
using sm90::WIDTH;

enum {
    GROUP = 128, /* threads of a warpgroup */
    ADDERS = 2 * GROUP,
    TILE_BYTES = WIDTH / 64 * PANEL,
    ROPE = VALUES / 64 * PANEL,
    K_AT = 0,
    Q_AT = 2 * TILE_BYTES,
    LOW_AT = Q_AT + TILE_BYTES, /* the second parts of weights */
    GROUPS = 4                  /* of 128 columns, with a scale each */
};

/* Weights in two parts take more registers of those that add. */
template <bool PARTS>
struct threads {
    enum {
        DECODERS = PARTS ? 128 : 256,
        BLOCK = ADDERS + DECODERS,
        ADDER_REGISTERS = PARTS ? 200 : 192,
        DECODER_REGISTERS = PARTS ? 104 : 64
    };
};

struct shared_state {
    uint64_t full[2][GROUPS], empty[2][2]; /* mbarriers: of the buffers, by groups of columns; by who adds them */
    uint64_t weighed[2], added[2];         /* of the weights; of their second parts */
    uint64_t queries, summed;
    float top[2][BLOCK_HEADS], sum[2][BLOCK_HEADS];
    alignas(16) uint8_t mask[2][TILE / 4]; /* which rows are keys, 4 to a byte */
    int slot[TILE];                        /* of a tile to come; a thread has its own */
    int bad;                               /* an index is out of range */
};

static constexpr int dynamic_bytes(bool parts) { return LOW_AT + (parts ? PANEL : 0) + 1024; }

#if __CUDA_ARCH_FEAT_SM90_ALL

/* ---- instructions ------------------------------------------------------------------------------------------------ */

using sm90::again;
using sm90::copy16;
using sm90::gather8;
using sm90::multiply_keys;
using sm90::OPERAND;
using sm90::operand_at;
using sm90::place_of;
using sm90::store16;
using sm90::store4;
using sm90::wgmma_begin;
using sm90::wgmma_commit;
using sm90::wgmma_wait;

/* o += a b: 64 x 128, 16 keys deep */
template <int HOW>
__device__ __forceinline__ void add_values(float (&o)[64], uint32_t a, uint32_t b) {
    asm volatile(
        "{\n.reg .b64 a, b;\nmov.b64 a, {%64, %66};\nmov.b64 b, {%65, %66};\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " HM_MLA_64 ", a, b, 1, 1, 1, 0, 1;\n}"
        : HM_MLA_F32(o, 0), HM_MLA_F32(o, 32)
        : "r"(a), "r"(b), "n"(HOW));
}

__device__ __forceinline__ void scale_rows(float (&o)[2][64], float a, float b) {
    if (!__any_sync(~0u, a != 1.0f || b != 1.0f)) return;
#pragma unroll
    for (int i = 0; i < 128; i += 4) {
        float *const v = o[i / 64] + i % 64;
        v[0] = __fmul_rn(v[0], a), v[1] = __fmul_rn(v[1], a), v[2] = __fmul_rn(v[2], b), v[3] = __fmul_rn(v[3], b);
    }
}

/* o += a b: 64 x 256, 16 keys deep */
template <int HOW>
__device__ __forceinline__ void add_values(float (&o)[2][64], uint32_t a, uint32_t b) {
    asm volatile(
        "{\n.reg .b64 a, b;\nmov.b64 a, {%128, %130};\nmov.b64 b, {%129, %130};\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 " HM_MLA_128 ", a, b, 1, 1, 1, 0, 1;\n}"
        : HM_MLA_F32(o[0], 0), HM_MLA_F32(o[0], 32), HM_MLA_F32(o[1], 0), HM_MLA_F32(o[1], 32)
        : "r"(a), "r"(b), "n"(HOW));
}

/* ---- the warpgroups that decode ---------------------------------------------------------------------------------- */

/* As key_at; gap: between the end of a block and the next. */
__device__ __forceinline__ int64_t bytes_to(const params &p, int slot, int64_t gap) {
    if (slot < 0) return NO_KEY;
    if (slot >= p.keys) return PAST_CACHE;
    int64_t at = slot * p.entry_stride;
    if (gap) at += quotient(p.block_size, slot) * gap;
    return at;
}
__device__ __forceinline__ void to_l2(const char *at) { asm volatile("prefetch.global.L2 [%0];" ::"l"(at)); }

/* 8 or 4 bytes of a key, where there is one. Where it stands, so that it is under way early. */
template <bool ALIGNED>
__device__ __forceinline__ uint2 load8(const char *from, bool there) {
    uint2 v;
    if (!ALIGNED) return there ? make_uint2(word_at(from), word_at(from + 4)) : make_uint2(0, 0);
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.s32 p, %3, 0;\nmov.b32 %0, 0;\nmov.b32 %1, 0;\n"
        "@p ld.global.nc.v2.b32 {%0, %1}, [%2];\n}"
        : "=&r"(v.x), "=&r"(v.y)
        : "l"(from), "r"((int)there));
    return v;
}
template <bool ALIGNED>
__device__ __forceinline__ uint32_t load_scale(const char *from, bool there) {
    uint32_t v;
    if (!ALIGNED) return there ? word_at(from) : 0x3f800000u;
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.s32 p, %2, 0;\nmov.b32 %0, 0x3f800000;\n"
        "@p ld.global.nc.b32 %0, [%1];\n}"
        : "=&r"(v)
        : "l"(from), "r"((int)there));
    return v;
}

template <int ROWS>
struct raw {
    uint2 codes[ROWS][2];
    uint32_t scales[ROWS];
};

/* Group g of 128 of the rows of a thread: codes from 8 c on and from 64 + 8 c on, and their scale. */
template <bool ALIGNED, int ROWS>
__device__ __forceinline__ void fetch(const char *const (&from)[ROWS], int g, int c, raw<ROWS> &r) {
#pragma unroll
    for (int j = 0; j < ROWS; j++) {
        const bool there = from[j] != nullptr;
        const char *at = from[j] + again(c * 8) + g * HM_MLA_TILE;
        r.codes[j][0] = load8<ALIGNED>(at, there), r.codes[j][1] = load8<ALIGNED>(at + 64, there);
        r.scales[j] = load_scale<ALIGNED>(from[j] + HM_MLA_SCALES_AT + g * 4, there);
    }
}

/* Must products with this scale be cut and made sticky? Each of eight lanes looks at one of the eight significands that
 * codes have: rounded to 24 bits, is a product halfway between two bf16? Products of scales of 8 bits are exact. */
__device__ __forceinline__ bool delicate(hm_mla_dequant mode, float s, int c) {
    const uint32_t product = __float_as_uint(__fmul_rn((float)(8 + c), s));
    return (product & 0xffffu) == (mode == HM_MLA_DEQUANT_F32 ? 0x8000u : ~0u) ||
           __float_as_uint(s) - (28u << 23) > 200u << 23;
}

template <bool DELICATE>
__device__ __forceinline__ void widen8(uint2 codes, code_scale s, uint32_t *to) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 two = codes_of((uint16_t)((i < 2 ? codes.x : codes.y) >> (i % 2 * 16)));
        if (DELICATE) pair<bf16>::set(to + i, product_of(two.x, s), product_of(two.y, s));
        else pair<bf16>::set(to + i, __fmul_rn(two.x, s.s), __fmul_rn(two.y, s.s));
    }
}

/* Where a thread's pieces go: its own block's tile and, where two share the work, the other's, which counts bytes. */
struct place {
    uint32_t at, there, full;
};
template <bool SHARE>
__device__ __forceinline__ void put16(place to, int offset, const uint32_t *v) {
    store16(to.at + offset, v);
    if (SHARE)
        asm volatile(
            "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(
                to.there + offset),
            "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3]), "r"(to.full)
            : "memory");
}
__device__ __forceinline__ uint32_t in_other(uint32_t address, uint32_t rank) {
    uint32_t there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    return there;
}

template <bool DELICATE, bool SHARE, int STEP, int ROWS>
__device__ __forceinline__ void widen_rows(place to, const raw<ROWS> &r, const code_scale (&s)[ROWS]) {
    uint32_t v[ROWS][2][4];
#pragma unroll
    for (int j = 0; j < ROWS; j++)
#pragma unroll
        for (int half = 0; half < 2; half++) widen8<DELICATE>(r.codes[j][half], s[j], v[j][half]);
#pragma unroll
    for (int j = 0; j < ROWS; j++)
#pragma unroll
        for (int half = 0; half < 2; half++) put16<SHARE>(to, half * PANEL + j * STEP * 128, v[j][half]);
}

/* A group is decoded and stored. */
template <bool SHARE, int STEP, int ROWS>
__device__ __forceinline__ void widen_group(const params &p, place to, const raw<ROWS> &r, int c) {
    code_scale s[ROWS];
    bool slow = false;
#pragma unroll
    for (int j = 0; j < ROWS; j++) s[j] = {__uint_as_float(r.scales[j]), 0};
    if (p.dequant != HM_MLA_DEQUANT_F32)
#pragma unroll
        for (int j = 0; j < ROWS; j++) s[j] = scale_seen(p.dequant, r.scales[j]);
#pragma unroll
    for (int j = 0; j < ROWS; j++) slow = slow || delicate(p.dequant, s[j].s, c);
    if (__any_sync(~0u, slow)) {
#pragma unroll
        for (int j = 0; j < ROWS; j++) s[j] = scale_seen(p.dequant, r.scales[j]);
        widen_rows<true, SHARE, STEP>(to, r, s);
    } else {
        widen_rows<false, SHARE, STEP>(to, r, s);
    }
}

/* Lane l of warp w has rows 4 w + l / 8 + STEP j, of which it decodes codes 8 (l % 8) on of each 64; lanes up to 16
 * find the keys of rows 4 w + l % 4 + STEP (l / 4). Two blocks that share the work have half of the rows each; the
 * other lanes look at the other half, of which a block has to know which are keys. */
template <bool ALIGNED, bool SHARE, int DECODERS>
__device__ __forceinline__ void decode(const params &p, shared_state &x, uint32_t base, int thread, int64_t token,
                                       int64_t n, int tiles) {
    enum { STEP = DECODERS / 8, ROWS = TILE / STEP / (SHARE ? 2 : 1), AHEAD = SHARE ? 4 : 2 };
    const uint32_t rank = SHARE ? cluster_rank() : 0;
    const int lane = thread % 32, warp = thread / 32, c = lane % 8;
    const int row = warp * 4 + lane / 8 + (int)rank * (TILE / 2);
    const bool finds = lane % 16 < 4 * ROWS && (SHARE || lane < 16);
    const int own = warp * 4 + lane % 4 + STEP * (lane % 16 / 4) + ((int)rank ^ lane / 16) * (TILE / 2);
    const int *const index = p.indices + token * p.index_token;
    const char *from[ROWS];
    raw<ROWS> r[AHEAD];
    uint2 rope[ROWS][2];
    uint32_t next_mask;
    place to0 = {base + K_AT + place_of(row, c), 0, 0};
    uint32_t full0 = 0;
    if (SHARE) to0.there = in_other(to0.at, rank ^ 1), full0 = in_other(shared_address(&x.full[0][0]), rank ^ 1);
    int64_t at = NO_KEY;
    /* An index is on its way for a whole tile, outside the registers: there it would wait for later ones. */
    int *const slot =
        &x.slot[warp * (SHARE ? 8 : 4) * ROWS + (SHARE ? lane / 16 * (4 * ROWS) : 0) + lane % 16 % (4 * ROWS)];
    const int64_t gap = p.block_stride - p.block_size.d * p.entry_stride;
    const uint32_t bad = shared_address(&x.bad);
    auto ask = [&](int64_t place) {
        if (finds && place < n)
            asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(slot)),
                         "l"(index + place * p.index_step)
                         : "memory");
        else if (finds) *slot = -1;
    };
    auto asked = [&]() {
        asm volatile("cp.async.wait_all;" ::: "memory");
        return finds ? bytes_to(p, *slot, gap) : (int64_t)NO_KEY;
    };
    /* To the tile in at. */
    auto turn = [&]() {
        next_mask = __ballot_sync(~0u, at >= 0);
        if (at == PAST_CACHE) store4(bad, 1);
#pragma unroll
        for (int j = 0; j < ROWS; j++) {
            const int64_t key = __shfl_sync(~0u, at, 4 * j + lane / 8);
            from[j] = key < 0 ? nullptr : p.kv + key;
            /* sums with it are made when needed: kept, they fill the registers */
            asm volatile("" : "+l"(from[j]));
        }
    };
    auto fetch_rope = [&]() {
#pragma unroll
        for (int j = 0; j < ROWS; j++)
#pragma unroll
            for (int k = 0; k < 2; k++)
                rope[j][k] = load8<ALIGNED>(from[j] + again(c * 16) + HM_MLA_ROPE_AT + k * 8, from[j] != nullptr);
    };
    auto prefetch = [&]() {
#pragma unroll
        for (int j = 0; j < ROWS; j++) {
            const int64_t key = __shfl_sync(~0u, at, 4 * j + lane / 8);
            if (ALIGNED && key >= 0 && c * 128 < HM_MLA_ENTRY) to_l2(p.kv + key + c * 128);
        }
    };
    ask(own);
    at = asked();
    turn();
#pragma unroll
    for (int g = 0; g < AHEAD; g++) fetch<ALIGNED>(from, g, c, r[g]);
    if (AHEAD == 4) fetch_rope();
    ask(TILE + own);
    at = asked();
    prefetch();
    ask(2 * TILE + own);
#pragma unroll 1
    for (int tile = 0; tile < tiles; tile++) {
        const int b = tile & 1;
        const uint32_t parity = (uint32_t)(tile >> 1 & 1) ^ 1, mask = next_mask;
#pragma unroll
        for (int g = 0; g < 4; g++) {
            const uint32_t tile_at = again(b * TILE_BYTES); /* no address is kept from tile to tile */
            const place to = {to0.at + tile_at, to0.there + tile_at, full0 + (b * GROUPS + g) * 8};
            if (g % 2 == 0) barrier_wait(&x.empty[b][g / 2], parity);
            widen_group<SHARE, STEP>(p, {to.at + g * 2 * PANEL, to.there + g * 2 * PANEL, to.full}, r[g % AHEAD], c);
            if (g == 3) {
#pragma unroll
                for (int j = 0; j < ROWS; j++) {
                    const uint32_t words[4] = {rope[j][0].x, rope[j][0].y, rope[j][1].x, rope[j][1].y};
                    put16<SHARE>(to, ROPE + j * STEP * 128, words);
                }
                if (lane < ROWS) {
                    x.mask[b][rank * (TILE / 8) + lane * (STEP / 4) + warp] = (uint8_t)(mask >> 4 * lane & 15);
                    if (SHARE)
                        x.mask[b][(rank ^ 1) * (TILE / 8) + lane * (STEP / 4) + warp] =
                            (uint8_t)(mask >> (16 + 4 * lane) & 15);
                }
            }
            if (!SHARE) fence_for_async(); /* else who reads does it */
            if (SHARE && thread == 0) barrier_expect(&x.full[b][g], TILE / 2 * (g < 3 ? 256 : 384));
            else barrier_arrive(&x.full[b][g]);
            if (g == 4 - AHEAD) turn();
            if (g == 3) { /* before more is asked for, which it would wait for */
                at = asked();
                prefetch();
                ask((int64_t)(tile + 3) * TILE + own);
            }
            fetch<ALIGNED>(from, (g + AHEAD) % 4, c, r[g % AHEAD]);
            if (g == (AHEAD == 4 ? 3 : 1)) fetch_rope();
        }
    }
}

/* ---- the two that score and add ---------------------------------------------------------------------------------- */

/* Lane (g, t) of a warp has rows g and g + 8 of its 16 heads and columns 8 i + 2 t and the next of wgmma's results. */

template <bool ALIGNED>
__device__ __forceinline__ void load_queries(const params &p, uint32_t to, int tid, int64_t token, int64_t head) {
    const char *const q = p.q + token * p.q_token;
#pragma unroll 1
    for (int i = tid; i < BLOCK_HEADS * (WIDTH / 8); i += ADDERS) {
        const int row = i / (WIDTH / 8), c = i % (WIDTH / 8);
        const bool there = head + row < p.heads;
        const char *from = q + (there ? (head + row) * p.q_head : 0);
        const uint32_t at = to + place_of(row, c);
        if (ALIGNED) {
            copy16(at, from + c * 16, there);
        } else {
            uint32_t v[4];
            gather8(from, p.q_step, c * 8, there ? p.width : 0, v);
            store16(at, v);
        }
    }
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/* o += P V: 64 x 256, a tile deep; a: its weights, b: its columns */
template <bool WHOLE>
__device__ __forceinline__ void add_tile(float (&o)[2][64], uint32_t a, uint32_t b) {
#pragma unroll
    for (int k = 0; k < TILE / 16; k++) {
        if (WHOLE) {
            add_values<OPERAND>(o, a + k * 32 / 16, b + k * 2048 / 16);
        } else {
#pragma unroll
            for (int n = 0; n < 2; n++) add_values<OPERAND>(o[n], a + k * 32 / 16, b + (n * 2 * PANEL + k * 2048) / 16);
        }
    }
}

/* M for the rows of a thread, after these scores. */
__device__ __forceinline__ void raise(const float (&before)[2], const float (&s)[32], float (&top)[2]) {
    float most[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int i = 0; i < 32; i++) most[i / 2 % 2] = fmaxf(most[i / 2 % 2], s[i]);
#pragma unroll
    for (int k = 0; k < 2; k++) {
        most[k] = fmaxf(most[k], __shfl_xor_sync(~0u, most[k], 1));
        most[k] = fmaxf(most[k], __shfl_xor_sync(~0u, most[k], 2));
        top[k] = fmaxf(before[k], top_of(most[k]));
    }
}

template <bool PARTS, bool ALIGNED, bool SHARE>
__device__ __forceinline__ void attend_half(const params &p, shared_state &x, uint32_t base, int w, int64_t token,
                                            int64_t head, int tiles) {
    const int tid = (int)threadIdx.x, lane = tid % 32, g = lane / 4, t = lane % 4;
    const int row = tid % GROUP / 32 * 16 + g; /* and row + 8 */
    const uint32_t keys = base + K_AT + w * TILE_BYTES, others = base + K_AT + (w ^ 1) * TILE_BYTES;
    const uint32_t other = SHARE ? cluster_rank() ^ 1 : 0;
    /* The other block is not told at the end, where it may be gone. */
    auto release = [&](int buffer, int tile) {
        barrier_arrive(&x.empty[buffer][w]);
        if (SHARE && tile + 2 < tiles) {
            __syncwarp();
            if (lane == 0) barrier_arrive_at(&x.empty[buffer][w], other);
        }
    };
    float o[2][64], top[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < 128; i++) o[i / 64][i % 64] = 0.0f;
    load_queries<ALIGNED>(p, base + Q_AT, tid, token, head);
    fence_for_async();
    barrier_arrive(&x.queries);
    barrier_wait(&x.queries, 0);
#pragma unroll 1
    for (int tile = w; tile <= tiles; tile += 2) { /* the other's tile before this, and this */
        const uint32_t parity = (uint32_t)(tile >> 1) & 1, others_parity = (uint32_t)((tile - 1) >> 1) & 1;
        float s[32];
        if (tile > 0) {
            barrier_wait(&x.weighed[w ^ 1], others_parity);
            float fell[2];
#pragma unroll
            for (int k = 0; k < 2; k++) {
                const float now = x.top[w ^ 1][row + 8 * k];
                fell[k] = fall(top[k], now);
                top[k] = now, sum[k] = __fmul_rn(sum[k], fell[k]);
            }
            scale_rows(o, fell[0], fell[1]);
            wgmma_begin(o[0]);
            wgmma_begin(o[1]);
            const uint32_t b = again(operand_at(others + w * 4 * PANEL, PANEL));
            add_tile<PARTS>(o, again(operand_at(others + ROPE)), b);
            if (PARTS) add_tile<PARTS>(o, again(operand_at(base + LOW_AT)), b);
            wgmma_commit();
        }
        if (tile == tiles) {
            wgmma_wait<0>(o[0]);
            wgmma_wait<0>(o[1]);
            break;
        }
        const uint32_t a = again(operand_at(base + Q_AT)), b = again(operand_at(keys));
#pragma unroll
        for (int i = 0; i < 32; i++) s[i] = 0.0f;
#pragma unroll
        for (int i = 0; i < WIDTH / 16; i++) {
            if (i % 8 == 0 && i / 8 < GROUPS) {
                if (i > 0) wgmma_commit();
                barrier_wait(&x.full[w][i / 8], parity);
                if (SHARE) fence_for_async(); /* the other block's stores */
                wgmma_begin(s);
            }
            const int at = (i / 4 * PANEL + i % 4 * 32) / 16;
            multiply_keys(s, a + at, b + at);
        }
        wgmma_commit();
        if (tile > 0) {
            wgmma_wait<GROUPS>(o[0]);
            wgmma_wait<GROUPS>(o[1]);
            release(w ^ 1, tile - 1);
        }
        wgmma_wait<0>(s);
        const float before[2] = {top[0], top[1]};
        float fell[2];
        const uint4 m = *(const uint4 *)x.mask[w];
        const uint32_t words[4] = {m.x, m.y, m.z, m.w};
#pragma unroll
        for (int i = 0; i < 32; i++) s[i] = __fmul_rn(s[i], p.scale);
        if ((m.x & m.y & m.z & m.w) != 0x0f0f0f0fu) {
#pragma unroll
            for (int i = 0; i < 32; i++)
                if (!(words[i / 8] >> (i / 4 % 2 * 16 + t / 2 * 8 + t % 2 * 2 + i % 2) & 1)) s[i] = -INFINITY;
        }
        raise(before, s, top);
#pragma unroll
        for (int k = 0; k < 2; k++) fell[k] = fall(before[k], top[k]), sum[k] = __fmul_rn(sum[k], fell[k]);
        if (t == 0) x.top[w][row] = top[0], x.top[w][row + 8] = top[1];
        /* The rope part is overwritten: all four warps have multiplied it. */
        sync_some(2 + w, GROUP);
        if (PARTS && tile > 0) barrier_wait(&x.added[w ^ 1], others_parity);
        const uint32_t to = keys + ROPE + row * 128, low_to = base + LOW_AT + row * 128;
#pragma unroll
        for (int i = 0; i < 32; i += 2) {
            const int k = i / 2 % 2;
            const float v = weight_of(s[i], top[k]), v1 = weight_of(s[i + 1], top[k]);
            const uint32_t at = k * 1024 + ((i / 4 ^ g) << 4) + 4 * t;
            uint32_t word, low;
            sum[k] = __fadd_rn(sum[k], __fadd_rn(v, v1));
            pair<bf16>::set(&word, v, v1);
            store4(to + at, word);
            if (PARTS) {
                float h, h1;
                pair<bf16>::get(&word, &h, &h1);
                pair<bf16>::set(&low, __fsub_rn(v, h), __fsub_rn(v1, h1));
                store4(low_to + at, low);
            }
        }
        fence_for_async();
        barrier_arrive(&x.weighed[w]);
        scale_rows(o, fell[0], fell[1]);
        barrier_wait(&x.weighed[w], parity);
        wgmma_begin(o[0]);
        wgmma_begin(o[1]);
        const uint32_t values = again(operand_at(keys + w * 4 * PANEL, PANEL));
        add_tile<PARTS>(o, again(operand_at(keys + ROPE)), values);
        if (PARTS) add_tile<PARTS>(o, again(operand_at(base + LOW_AT)), values);
        wgmma_commit();
        wgmma_wait<0>(o[0]);
        wgmma_wait<0>(o[1]);
        if (PARTS) barrier_arrive(&x.added[w]);
        release(w, tile);
    }
#pragma unroll
    for (int k = 0; k < 2; k++) {
        sum[k] = __fadd_rn(sum[k], __shfl_xor_sync(~0u, sum[k], 1));
        sum[k] = __fadd_rn(sum[k], __shfl_xor_sync(~0u, sum[k], 2));
        if (t == 0) x.sum[w][row + 8 * k] = sum[k];
    }
    barrier_arrive(&x.summed);
    barrier_wait(&x.summed, 0);
    if (x.bad) return;
    const uint32_t rows = base + Q_AT + w * (BLOCK_HEADS * VALUES); /* all queries are read */
#pragma unroll
    for (int k = 0; k < 2; k++) {
        const int64_t h = head + row + 8 * k;
        if (h >= p.heads) continue;
        const bool none = top[k] == -INFINITY;
        const float l = __fadd_rn(x.sum[0][row + 8 * k], x.sum[1][row + 8 * k]);
        const float share = none ? 0.0f : share_of(p, h, top[k], l);
        if (p.lse && w == 0 && t == 0)
            p.lse[token * p.lse_token + h * p.lse_head] = none ? INFINITY : lse_of(top[k], l);
#pragma unroll
        for (int i = 0; i < 32; i++) {
            uint32_t word;
            pair<bf16>::set(&word, __fmul_rn(o[i / 16][4 * i % 64 + 2 * k], share),
                            __fmul_rn(o[i / 16][4 * i % 64 + 2 * k + 1], share));
            store4(rows + (row + 8 * k) * VALUES + ((i ^ g) << 4) + 4 * t, word);
        }
    }
    sync_some(2 + w, GROUP);
    const int d = w * (VALUES / 2) + 8 * lane; /* a warp stores a row's half at a time */
#pragma unroll 1
    for (int r = row - g; r < row - g + 16 && head + r < p.heads; r++) {
        char *const to = p.out + token * p.out_token + (head + r) * p.out_head + d * p.out_step;
        uint32_t v[4];
        asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                     : "r"(rows + r * VALUES + ((lane ^ r % 8) << 4))
                     : "memory");
        if (p.out_step == 2 && d + 8 <= p.value_width && (uintptr_t)to % 16 == 0) {
            *(uint4 *)to = make_uint4(v[0], v[1], v[2], v[3]);
        } else {
#pragma unroll
            for (int i = 0; i < 8; i++)
                if (d + i < p.value_width) *(uint16_t *)(to + i * p.out_step) = (uint16_t)(v[i / 2] >> i % 2 * 16);
        }
    }
}
#endif

template <bool PARTS, bool ALIGNED, bool SHARE>
__global__ void __launch_bounds__(threads<PARTS>::BLOCK, 1) attend_codes(const __grid_constant__ params p) {
#if __CUDA_ARCH_FEAT_SM90_ALL
    enum { DECODERS = threads<PARTS>::DECODERS, BLOCK = threads<PARTS>::BLOCK };
    extern __shared__ char dynamic[];
    __shared__ shared_state x;
    char *const aligned = (char *)(((uintptr_t)dynamic + 1023) / 1024 * 1024);
    const uint32_t base = shared_address(aligned);
    const int tid = (int)threadIdx.x;
    if (tid == 0) {
        x.bad = 0;
        for (int b = 0; b < 2; b++) {
            for (int g = 0; g < GROUPS; g++) barrier_init(&x.full[b][g], DECODERS);
            for (int w = 0; w < 2; w++) barrier_init(&x.empty[b][w], GROUP + (SHARE ? GROUP / 32 : 0));
            barrier_init(&x.weighed[b], GROUP), barrier_init(&x.added[b], GROUP);
        }
        barrier_init(&x.queries, ADDERS), barrier_init(&x.summed, ADDERS);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    wait_for_previous();
    let_next_start();
    const int64_t block = p.first + blockIdx.x, token = quotient(p.groups, block);
    const int64_t head = (block - token * p.groups.d) * BLOCK_HEADS;
    int64_t start;
    const int64_t n = places_of<true>(p, token, &start);
    if (n < 0) return;
    if (PARTS) {
        int64_t have = 0;
        for (int64_t i = tid; i - tid < n && have < FEW; i += BLOCK)
            have += __syncthreads_count(key_at<true>(p, token, start, n, i) >= 0);
        if (have < FEW) {
            if (tid >= THREADS) return;
            for (int64_t h = head; h < head + BLOCK_HEADS && h < p.heads; h += HEADS)
                attend_heads<fp8_ds, true>(p, *(scratch *)aligned, token, h, tid);
            return;
        }
    }
    if (SHARE) cluster_sync();
    else __syncthreads();
    const int tiles = (int)((n + TILE - 1) / TILE);
    if (tid < ADDERS) {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(+threads<PARTS>::ADDER_REGISTERS));
        attend_half<PARTS, ALIGNED, SHARE>(p, x, base, __shfl_sync(~0u, tid / GROUP, 0), token, head, tiles);
    } else {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(+threads<PARTS>::DECODER_REGISTERS));
        decode<ALIGNED, SHARE, DECODERS>(p, x, base, tid - ADDERS, token, n, tiles);
    }
#endif
}

/* ---- the host's side --------------------------------------------------------------------------------------------- */

template <bool PARTS, bool ALIGNED, bool SHARE>
static hm_status run_mode(const char *op, params p, void *stream) {
    p.groups = divider_of((p.heads - 1) / BLOCK_HEADS + 1);
    p.blocks = p.tokens * p.groups.d;
    return launch_blocks(op, attend_codes<PARTS, ALIGNED, SHARE>, p, threads<PARTS>::BLOCK,
                         (size_t)dynamic_bytes(PARTS), stream, SHARE ? 2 : 1);
}

/* Can the call be done here? What decides is the call's shape and the device alone. */
template <bool PARTS>
static bool can_parts() {
    const size_t shared = (size_t)dynamic_bytes(PARTS);
    return has_90a<attend_codes<PARTS, false, false>>(shared) && has_90a<attend_codes<PARTS, true, false>>(shared) &&
           has_90a<attend_codes<PARTS, true, true>>(shared);
}
static bool can(const params &p) { return p.value_width <= VALUES && can_parts<false>() && can_parts<true>(); }

template <bool PARTS>
static hm_status run_parts(const char *op, const params &p, void *stream) {
    if (!p.aligned) return run_mode<PARTS, false, false>(op, p, stream);
    const bool pairs = (p.heads - 1) / BLOCK_HEADS % 2; /* an even number of blocks a token */
    return pairs ? run_mode<PARTS, true, true>(op, p, stream) : run_mode<PARTS, true, false>(op, p, stream);
}
static hm_status run(const char *op, const params &p, void *stream) {
    return p.round_p ? run_parts<false>(op, p, stream) : run_parts<true>(op, p, stream);
}

} // namespace fp8
} // namespace mla
} // namespace hm

#endif
