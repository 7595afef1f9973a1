/* mla_pair_sm90.cuh: latent attention on Hopper's tensor cores: bf16 with width <= 576 and value_width <= 512 (shorter
 * rows are filled with zeros, which change no sum).
 *
 * A block does 64 heads of a token, with three warpgroups. One gathers keys, 64 to a tile, into two buffers. The other
 * two score every second tile each, and each adds up half of the columns of the values of all tiles: of its own with
 * the weights in its registers, of the other's with what that left in shared memory. While one takes exponentials, the
 * other multiplies. Tiles are added in their order, so nothing depends on who comes first, nor on other tokens; places
 * without a key add zeros. For HM_P_F32 see mla_sm90.cuh. */
#ifndef HM_CUDA_MLA_PAIR_SM90_CUH
#define HM_CUDA_MLA_PAIR_SM90_CUH

#include "mla_sm90.cuh"

namespace hm {
namespace mla {
namespace pair90 {

using sm90::BLOCK_HEADS;
using sm90::FEW;
using sm90::PANEL;
using sm90::TILE;
using sm90::VALUES;
using sm90::WIDTH;

enum {
    GROUP = 128, /* threads of each kind */
    BLOCK = 3 * GROUP,
    PANELS = WIDTH / 64,
    HALF = 4, /* panels of values of each of the two, and of the first piece of a tile */
    K_AT = 0,
    P_AT = 2 * PANELS * PANEL, /* weights; behind them the queries, of which the last panel may be in registers */
    DYNAMIC = P_AT + (PANELS + 1) * PANEL + 1024
};

struct shared_state {
    uint64_t full[2][2], empty[2][2]; /* mbarriers: of a buffer's two pieces; the first is the owner's half of values */
    uint64_t weighed[2], done;        /* of the weights of each of the two; of sum */
    uint32_t mask[2][4];              /* which rows of a tile are keys: bits of the warps that filled it */
    float top[2][BLOCK_HEADS];        /* of each row, when one of the two was through with a tile */
    float sum[2][BLOCK_HEADS];
    uint32_t rose[2][4]; /* has it changed, in a row of a warp? */
    int bad[4];          /* an index is out of range, says a warp */
};

#if __CUDA_ARCH_FEAT_SM90_ALL

using namespace sm90;
using sm90::multiply_keys; /* beside the one below */

/* s += a b^T, a from registers */
__device__ __forceinline__ void multiply_keys(float (&s)[32], const uint32_t *a, uint32_t b) {
    asm volatile(
        "{\n.reg .b64 b;\nmov.b64 b, {%36, %37};\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " HM_MLA_32 ", {%32, %33, %34, %35}, b, 1, 1, 1, 0;\n}"
        : HM_MLA_F32(s, 0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "n"((int)OPERAND));
}
/* o += a b: 64 x 256, 16 keys deep */
__device__ __forceinline__ void add_values(float (&o)[128], const uint32_t *a, uint32_t b) {
    asm volatile(
        "{\n.reg .b64 b;\nmov.b64 b, {%132, %133};\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 " HM_MLA_128
        ", {%128, %129, %130, %131}, b, 1, 1, 1, 1;\n}"
        : HM_MLA_F32(o, 0), HM_MLA_F32(o, 32), HM_MLA_F32(o, 64), HM_MLA_F32(o, 96)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "n"((int)OPERAND));
}
__device__ __forceinline__ void add_values(float (&o)[128], uint32_t a, uint32_t b) {
    asm volatile(
        "{\n.reg .b64 a, b;\nmov.b64 a, {%128, %130};\nmov.b64 b, {%129, %130};\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 " HM_MLA_128 ", a, b, 1, 1, 1, 0, 1;\n}"
        : HM_MLA_F32(o, 0), HM_MLA_F32(o, 32), HM_MLA_F32(o, 64), HM_MLA_F32(o, 96)
        : "r"(a), "r"(b), "n"((int)OPERAND));
}
/* ---- the producing warpgroup ------------------------------------------------------------------------------------- */

enum { ROWS = TILE / (GROUP / 8) }; /* rows of each thread */

/* Arrives when this thread's copies so far are done. */
__device__ __forceinline__ void barrier_arrive_copied(uint64_t *b) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(b)) : "memory");
}
/* As key_at has it. */
__device__ __forceinline__ int64_t slot_at(const params &p, int slot) {
    if (slot < 0) return NO_KEY;
    if (slot >= p.keys) return PAST_CACHE;
    const int64_t block = quotient(p.block_size, slot);
    return block * p.block_stride + (slot - block * p.block_size.d) * p.entry_stride;
}

/* Where row 16 j + 4 w + l / 8 is, of which lane l of warp w brings a part. */
__device__ __forceinline__ int64_t row_at(int64_t at, int j) {
    return __shfl_sync(~0u, at, 4 * j + (int)threadIdx.x % 32 / 8);
}

/* 16 bytes, of which `bytes` are read; the others are 0. The offsets are in the instruction: a copy keeps the registers
 * of its address for a while. */
template <int TO, int FROM>
__device__ __forceinline__ void copy16_at(uint32_t to, const char *from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0 + %3], [%1 + %4], 16, %2;" ::"r"(to), "l"(from), "r"(bytes), "n"(TO),
                 "n"(FROM)
                 : "memory");
}
template <int J>
__device__ __forceinline__ void copy_four(uint32_t to, const char *from, int bytes) {
    copy16_at<J * 2048, 0>(to, from, bytes), copy16_at<J * 2048 + PANEL, 128>(to, from, bytes);
    copy16_at<J * 2048 + 2 * PANEL, 256>(to, from, bytes), copy16_at<J * 2048 + 3 * PANEL, 384>(to, from, bytes);
}
/* HALF panels from `first` on: 16 bytes of each row. */
__device__ __forceinline__ void copy_half(uint32_t to, const char *const (&from)[ROWS], uint32_t there, int first) {
    const char *at[ROWS];
    static_assert(ROWS == 4 && HALF == 4, "written out");
    to += first * PANEL;
#pragma unroll
    for (int j = 0; j < ROWS; j++) {
        at[j] = from[j] + first * 128;
        asm volatile("" : "+l"(at[j]));
    }
    copy_four<0>(to, at[0], there & 16), copy_four<1>(to, at[1], there >> 1 & 16);
    copy_four<2>(to, at[2], there >> 2 & 16), copy_four<3>(to, at[3], there >> 3 & 16);
}
__device__ __forceinline__ void copy_last(uint32_t to, const char *const (&from)[ROWS], uint32_t there) {
    enum { TO = 2 * HALF * PANEL, FROM = 2 * HALF * 128 };
    copy16_at<TO, FROM>(to, from[0], there & 16), copy16_at<TO + 2048, FROM>(to, from[1], there >> 1 & 16);
    copy16_at<TO + 4096, FROM>(to, from[2], there >> 2 & 16), copy16_at<TO + 6144, FROM>(to, from[3], there >> 3 & 16);
}

/* The same for shorter rows; c: which 16 bytes of a panel's. */
__device__ __forceinline__ void copy_some(const params &p, uint32_t to, const char *const (&from)[ROWS], uint32_t there,
                                          int c, int first, int count) {
#pragma unroll 1
    for (int k = first; k < first + count; k++) {
        const bool inside = k * 64 + c * 8 < p.width;
#pragma unroll
        for (int j = 0; j < ROWS; j++)
            copy16(to + k * PANEL + j * 2048, from[j] + (inside ? k * 128 : 0), inside && (there >> (4 + j) & 1));
    }
}

/* The same element by element. */
__device__ __forceinline__ void gather_panels(const params &p, uint32_t to, int c, int64_t at, int first, int count) {
#pragma unroll 1
    for (int j = 0; j < ROWS; j++) {
        const int64_t key = row_at(at, j);
#pragma unroll 1
        for (int k = first; k < first + count; k++) {
            uint32_t v[4];
            gather8(p.kv + key, p.element_stride, k * 64 + c * 8, key < 0 ? 0 : p.width, v);
            store16(to + k * PANEL + j * 2048, v);
        }
    }
}

/* Lane l < 16 of warp w finds the key of row 16 (l / 4) + 4 w + l % 4. The half of a buffer that its own group adds is
 * free before the other. */
template <bool PAGED>
__device__ __forceinline__ void produce(const params &p, shared_state &x, uint32_t base, int i, int64_t token,
                                        int64_t start, int64_t n, int tiles) {
    const int lane = i % 32, row = i / 8, c = i % 8;
    int64_t place = lane < 4 * ROWS ? lane / 4 * 16 + i / 32 * 4 + lane % 4 : n; /* the next whose index is read */
    const int *indices = p.indices + token * p.index_token + place * p.index_step;
    int slot = 0; /* in place, if that has one */
    if (PAGED && place < n) slot = *indices;
    for (int tile = 0; tile < tiles; tile++) {
        const int b = tile % 2;
        const uint32_t parity = (uint32_t)(tile / 2 & 1) ^ 1;
        const uint32_t to = base + K_AT + b * PANELS * PANEL + place_of(row, c);
        const int64_t at = place >= n ? (int64_t)NO_KEY : PAGED ? slot_at(p, slot) : (start + place) * p.entry_stride;
        place += TILE;
        if (PAGED && place < n) indices += TILE * p.index_step, slot = *indices; /* waited for with the next tile */
        const uint32_t mask = __ballot_sync(~0u, at >= 0);
        const bool bad = __any_sync(~0u, at == PAST_CACHE);
        barrier_wait(&x.weighed[b], parity); /* the mask was read */
        if (lane == 0) {
            if (bad) x.bad[i / 32] = 1;
            x.mask[b][i / 32] = mask;
            barrier_arrive(&x.full[b][0]);
        }
        const char *from[ROWS];
        uint32_t there = 0;
#pragma unroll
        for (int j = 0; j < ROWS; j++) {
            const int64_t key = row_at(at, j);
            from[j] = p.kv + (key < 0 ? 0 : key + c * 16);
            there |= (uint32_t)(key >= 0) << (4 + j);
        }
        barrier_wait(&x.empty[b][0], parity);
        if (p.aligned && p.width == WIDTH) {
            copy_half(to, from, there, b * HALF);
            barrier_arrive_copied(&x.full[b][0]);
            copy_last(to, from, there);
            barrier_wait(&x.empty[b][1], parity);
            copy_half(to, from, there, (b ^ 1) * HALF);
            barrier_arrive_copied(&x.full[b][1]);
        } else if (p.aligned) {
            copy_some(p, to, from, there, c, b * HALF, HALF);
            barrier_arrive_copied(&x.full[b][0]);
            copy_some(p, to, from, there, c, 2 * HALF, 1);
            barrier_wait(&x.empty[b][1], parity);
            copy_some(p, to, from, there, c, (b ^ 1) * HALF, HALF);
            barrier_arrive_copied(&x.full[b][1]);
        } else {
            gather_panels(p, to, c, at, HALF * b, HALF);
            fence_for_async();
            barrier_arrive(&x.full[b][0]);
            gather_panels(p, to, c, at, 2 * HALF, 1);
            barrier_wait(&x.empty[b][1], parity);
            gather_panels(p, to, c, at, HALF * (b ^ 1), HALF);
            fence_for_async();
            barrier_arrive(&x.full[b][1]);
        }
    }
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/* ---- the two that score and add ---------------------------------------------------------------------------------- */

/* Lane (g, t) of a warp has rows g and g + 8 of its 16 heads and columns 8 i + 2 t and the next of wgmma's results, and
 * of its operands in registers. */

/* To shared memory, laid out like keys; with PARTS the last panel to registers. */
template <bool PARTS>
__device__ __forceinline__ void load_queries(const params &p, shared_state &x, uint32_t to, uint32_t weights,
                                             int64_t token, int64_t head, uint32_t (&held)[16]) {
    const uint32_t none[4] = {};
    enum { PIECES = (PARTS ? PANELS - 1 : (int)PANELS) * 8 };
    const char *const q = p.q + token * p.q_token;
    const int tid = (int)threadIdx.x, lane = tid % 32;
    for (int i = tid; i < BLOCK_HEADS * PIECES; i += 2 * GROUP) {
        const int row = i / PIECES, c = i % PIECES, d = c * 8;
        const bool there = head + row < p.heads && d < p.width;
        const char *from = q + (there ? (head + row) * p.q_head : 0);
        const uint32_t at = to + place_of(row, c);
        if (p.aligned) {
            copy16(at, from + (there ? d * 2 : 0), there);
        } else {
            uint32_t v[4];
            gather8(from, p.q_step, d, there ? p.width : 0, v);
            store16(at, v);
        }
    }
#pragma unroll
    for (int i = 0; i < 16 && PARTS; i++) {
        const int64_t h = head + tid % GROUP / 32 * 16 + lane / 4 + i % 2 * 8;
        const int d = (PANELS - 1) * 64 + i / 4 * 16 + i / 2 % 2 * 8 + lane % 4 * 2;
        const char *from = q + (h < p.heads ? h * p.q_head : 0);
        const int width = h < p.heads ? (int)p.width : 0;
        const uint32_t low = d < width ? *(const uint16_t *)(from + d * p.q_step) : 0;
        const uint32_t high = d + 1 < width ? *(const uint16_t *)(from + (d + 1) * p.q_step) : 0;
        held[i] = low | high << 16;
    }
    /* no weights before the first tile */
    for (int i = tid; i < (PARTS ? 2 : 1) * PANEL / 16; i += 2 * GROUP) store16(weights + i * 16, none);
    if (tid < BLOCK_HEADS) x.top[1][tid] = -INFINITY;
    if (tid < 4) x.rose[1][tid] = 0;
    asm volatile("cp.async.wait_all;" ::: "memory");
    fence_for_async();
    sync_some(2, 2 * GROUP);
}

/* s += the products of the queries and keys of HALF panels, or of the last; wgmma_fence() goes before. */
__device__ __forceinline__ void multiply_half(float (&s)[32], uint32_t a, uint32_t b) {
#pragma unroll
    for (int i = 0; i < HALF * 4; i++)
        multiply_keys(s, a + (i / 4 * PANEL + i % 4 * 32) / 16, b + (i / 4 * PANEL + i % 4 * 32) / 16);
}
template <bool PARTS>
__device__ __forceinline__ void multiply_last(float (&s)[32], const uint32_t (&held)[16], uint32_t a, uint32_t b) {
    enum { AT = 2 * HALF * PANEL / 16 };
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (PARTS) multiply_keys(s, held + i * 4, b + AT + i * 2);
        else multiply_keys(s, a + AT + i * 2, b + AT + i * 2);
    }
}
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void scale_rows(float (&o)[128], float a, float b) {
#pragma unroll
    for (int i = 0; i < 128; i += 4) {
        o[i] = __fmul_rn(o[i], a), o[i + 1] = __fmul_rn(o[i + 1], a);
        o[i + 2] = __fmul_rn(o[i + 2], b), o[i + 3] = __fmul_rn(o[i + 3], b);
    }
}

/* Scores to weights. */
template <bool PARTS>
__device__ __forceinline__ void weigh(const params &p, float (&top)[2], float (&sum)[2], float (&fell)[2],
                                      float (&s)[32], const uint32_t *mask, int t, uint32_t (&high)[16],
                                      uint32_t (&low)[16]) {
#pragma unroll
    for (int i = 0; i < 32; i++) s[i] = __fmul_rn(s[i], p.scale);
    if ((mask[0] & mask[1] & mask[2] & mask[3]) != (1u << 4 * ROWS) - 1) {
        const uint32_t mine[2] = {mask[t / 2] >> (t % 2 * 2), mask[2 + t / 2] >> (t % 2 * 2)};
#pragma unroll
        for (int i = 0; i < 32; i++)
            if (!(mine[i / 4 % 2] >> (i / 8 * 4 + i % 2) & 1)) s[i] = -INFINITY;
    }
    float most[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int i = 0; i < 32; i++) most[i / 2 % 2] = fmaxf(most[i / 2 % 2], s[i]);
#pragma unroll
    for (int k = 0; k < 2; k++) {
        most[k] = fmaxf(most[k], __shfl_xor_sync(~0u, most[k], 1));
        most[k] = fmaxf(most[k], __shfl_xor_sync(~0u, most[k], 2));
        const float now = fmaxf(top[k], top_of(most[k]));
        fell[k] = top[k] == now ? 1.0f : fall(top[k], now);
        top[k] = now, sum[k] = __fmul_rn(sum[k], fell[k]);
    }
#pragma unroll
    for (int i = 0; i < 16; i++) {
        const int k = i % 2;
        const float a = weight_of(s[2 * i], top[k]), b = weight_of(s[2 * i + 1], top[k]);
        sum[k] = __fadd_rn(sum[k], __fadd_rn(a, b));
        pair<bf16>::set(&high[i], a, b);
        if (PARTS) {
            float ah, bh;
            pair<bf16>::get(&high[i], &ah, &bh);
            pair<bf16>::set(&low[i], __fsub_rn(a, ah), __fsub_rn(b, bh));
        }
    }
}

template <bool PARTS>
__device__ __forceinline__ void attend_half(const params &p, shared_state &x, uint32_t base, int self, int64_t token,
                                            int64_t head, int tiles) {
    const int warp = (int)threadIdx.x % GROUP / 32, lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int row = warp * 16 + g, other = self ^ 1; /* and row + 8 */
    const uint32_t keys = base + K_AT + self * PANELS * PANEL, values = self * HALF * PANEL;
    const uint32_t weights = base + P_AT, queries = weights + (PARTS ? 2 : 1) * PANEL;
    float o[128], s[32], fell[2], top[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
    uint32_t held[16], high[16], low[16];
    load_queries<PARTS>(p, x, queries, weights, token, head, held);
#pragma unroll
    for (int i = 0; i < 128; i++) o[i] = 0.0f;
    /* The other's tile before this one, with its weights; before the first, zeros are added. */
    const auto begin_other = [&](int tile) {
        barrier_wait(&x.weighed[other], (uint32_t)((tile - 1) >> 1) & 1);
#pragma unroll
        for (int k = 0; k < 2; k++) {
            const float now = x.top[other][row + 8 * k];
            fell[k] = top[k] == now ? 1.0f : fall(top[k], now);
            top[k] = now, sum[k] = __fmul_rn(sum[k], fell[k]);
        }
        /* All four warps or none, since the compiler waits for products there, which is a matter of all. */
        const uint32_t *const rose = x.rose[other];
        if (__any_sync(~0u, rose[0] | rose[1] | rose[2] | rose[3])) scale_rows(o, fell[0], fell[1]);
        const uint32_t w = again(operand_at(weights));
        const uint32_t v =
            again(tile > 0 ? operand_at(base + K_AT + other * PANELS * PANEL + values, PANEL) : operand_at(weights, 0));
        wgmma_begin(o);
#pragma unroll
        for (int k = 0; k < (PARTS ? 2 : 1) * TILE / 16; k++)
            add_values(o, w + (k / 4 * PANEL + k % 4 * 32) / 16, v + k % 4 * 2048 / 16);
        wgmma_commit();
    };
    int tile = self;
#pragma unroll 1
    for (; tile < tiles; tile += 2) {
        const uint32_t parity = (uint32_t)(tile / 2) & 1;
        const uint32_t a = again(operand_at(queries)), b = again(operand_at(keys));
        const uint32_t mine = values / 16, others = other * HALF * PANEL / 16;
#pragma unroll
        for (int i = 0; i < 32; i++) s[i] = 0.0f;
        /* Half of the scores' sums while the other takes exponentials, the rest behind its values. */
        barrier_wait(&x.full[self][0], parity);
        fence_for_async();
        wgmma_begin(s);
        multiply_half(s, a + mine, b + mine);
        wgmma_commit();
        begin_other(tile);
        barrier_wait(&x.full[self][1], parity);
        fence_for_async();
        wgmma_fence();
        multiply_half(s, a + others, b + others);
        multiply_last<PARTS>(s, held, a, b);
        wgmma_commit();
        wgmma_wait<1>(o);
        if (tile > 0 && lane == 0) barrier_arrive(&x.empty[other][1]);
        wgmma_wait<0>(s);
        weigh<PARTS>(p, top, sum, fell, s, x.mask[self], t, high, low);
#pragma unroll
        for (int i = 0; i < 16; i++) {
            const uint32_t at = weights + (row + i % 2 * 8) * 128 + ((i / 2 ^ g) << 4) + 4 * t;
            store4(at, high[i]);
            if (PARTS) store4(at + PANEL, low[i]);
        }
        const bool rose = __any_sync(~0u, fell[0] != 1.0f || fell[1] != 1.0f);
        if (lane == 0) x.rose[self][warp] = rose;
        if (t == 0) x.top[self][row] = top[0], x.top[self][row + 8] = top[1];
        fence_for_async();
        barrier_arrive(&x.weighed[self]);
        if (rose) scale_rows(o, fell[0], fell[1]);
        const uint32_t v = again(operand_at(keys + values, PANEL));
        wgmma_begin(o);
#pragma unroll
        for (int k = 0; k < (PARTS ? 2 : 1) * TILE / 16; k++)
            add_values(o, (k < 4 ? high : low) + k % 4 * 4, v + k % 4 * 2048 / 16);
        wgmma_commit();
        wgmma_wait<0>(o);
        if (lane == 0) barrier_arrive(&x.empty[self][0]);
    }
    if (tile == tiles) {
        begin_other(tile);
        wgmma_wait<0>(o);
    }
    /* Both have the same top now. */
#pragma unroll
    for (int k = 0; k < 2; k++) {
        float l = sum[k];
        l = __fadd_rn(l, __shfl_xor_sync(~0u, l, 1));
        l = __fadd_rn(l, __shfl_xor_sync(~0u, l, 2));
        if (t == 0) x.sum[self][row + 8 * k] = l;
    }
    barrier_arrive(&x.done);
    barrier_wait(&x.done, 0);
    if (x.bad[0] | x.bad[1] | x.bad[2] | x.bad[3]) return;
#pragma unroll
    for (int k = 0; k < 2; k++) {
        const int64_t h = head + row + 8 * k;
        if (h >= p.heads) continue;
        const bool none = top[k] == -INFINITY;
        const float l = __fadd_rn(x.sum[0][row + 8 * k], x.sum[1][row + 8 * k]);
        const float share = none ? 0.0f : share_of(p, h, top[k], l);
        if (p.lse && self == 0 && t == 0)
            p.lse[token * p.lse_token + h * p.lse_head] = none ? INFINITY : lse_of(top[k], l);
        char *const out = p.out + token * p.out_token + h * p.out_head;
#pragma unroll
        for (int i = 0; i < 32; i++) {
            const int d = self * (VALUES / 2) + 8 * i + 2 * t;
            const float v = __fmul_rn(o[4 * i + 2 * k], share), w = __fmul_rn(o[4 * i + 2 * k + 1], share);
            if (p.out_aligned) {
                if (d < p.value_width) pair<bf16>::set((uint32_t *)(out + d * 2), v, w);
            } else {
                if (d < p.value_width) *(bf16 *)(out + d * p.out_step) = narrow<bf16>(v);
                if (d + 1 < p.value_width) *(bf16 *)(out + (d + 1) * p.out_step) = narrow<bf16>(w);
            }
        }
    }
}
#endif

template <bool PAGED, bool PARTS>
__global__ void __launch_bounds__(BLOCK, 1) attend(const __grid_constant__ params p) {
#if __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ char dynamic[];
    __shared__ shared_state x;
    char *const aligned = (char *)(((uintptr_t)dynamic + 1023) / 1024 * 1024);
    const uint32_t base = shared_address(aligned);
    const int tid = (int)threadIdx.x;
    if (tid == 0) {
        for (int b = 0; b < 2; b++) {
            barrier_init(&x.full[b][0], GROUP + GROUP / 32), barrier_init(&x.full[b][1], GROUP);
            for (int k = 0; k < 2; k++) barrier_init(&x.empty[b][k], GROUP / 32);
            barrier_init(&x.weighed[b], GROUP);
        }
        barrier_init(&x.done, 2 * GROUP);
        for (int k = 0; k < 4; k++) x.bad[k] = 0;
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    wait_for_previous();
    let_next_start();
    const int64_t block = p.first + blockIdx.x, turn = quotient(p.groups, block);
    const int64_t head = (block - turn * p.groups.d) * BLOCK_HEADS;
    const int64_t token = PAGED ? turn : p.tokens - 1 - turn; /* the longest first */
    int64_t start;
    const int64_t n = places_of<PAGED>(p, token, &start);
    if (n < 0) return;
    if (PARTS) {
        int64_t have = PAGED ? 0 : n;
        for (int64_t i = tid; PAGED && i - tid < n && have < FEW; i += BLOCK)
            have += __syncthreads_count(key_at<PAGED>(p, token, start, n, i) >= 0);
        if (have < FEW) {
            static_assert(VALUES == COLUMNS, "as attend_heads has them");
            if (tid >= THREADS) return;
            for (int64_t h = head; h < head + BLOCK_HEADS && h < p.heads; h += HEADS)
                attend_heads<bf16, PAGED>(p, *(scratch *)aligned, token, h, tid);
            return;
        }
    }
    __syncthreads();
    const int tiles = (int)((n + TILE - 1) / TILE);
    if (tid < 2 * GROUP) {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 224;");
        attend_half<PARTS>(p, x, base, tid / GROUP, token, head, tiles);
    } else {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
        produce<PAGED>(p, x, base, tid - 2 * GROUP, token, start, n, tiles);
    }
#endif
}

/* ---- the host's side --------------------------------------------------------------------------------------------- */

template <bool PAGED, bool PARTS>
static hm_status run_mode(const char *op, params p, void *stream) {
    p.groups = divider_of((p.heads - 1) / BLOCK_HEADS + 1);
    p.blocks = p.tokens * p.groups.d;
    return launch_blocks(op, attend<PAGED, PARTS>, p, BLOCK, DYNAMIC, stream);
}

/* Can the call be done here? What decides is the call's shape and the device alone. */
template <bool PAGED>
static bool can(const params &p) {
    return p.width <= WIDTH && p.value_width <= VALUES && has_90a<attend<PAGED, false>>(DYNAMIC) &&
           has_90a<attend<PAGED, true>>(DYNAMIC);
}

template <bool PAGED>
static hm_status run(const char *op, const params &p, void *stream) {
    return p.round_p ? run_mode<PAGED, false>(op, p, stream) : run_mode<PAGED, true>(op, p, stream);
}

} // namespace pair90
} // namespace mla
} // namespace hm

#endif
