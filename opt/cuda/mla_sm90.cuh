/* mla_sm90.cuh: latent attention on Hopper's tensor cores: bf16 with width <= 576 and value_width <= 512 (shorter rows
 * are filled with zeros, which change no sum), and fp8_ds_mla.
 *
 * A block does 64 heads of a token, 48 keys at a time, with four warpgroups. One gathers keys into three buffers. One
 * multiplies them with the queries, of which it holds a part in registers, and takes the exponentials. Two add up the
 * values, half of the columns each, tile after tile. Weights go through shared memory, with what the sums so far fall
 * by. Nothing in that depends on other tokens, so a row's bits do not either; places without a key add zeros.
 *
 * HM_P_F32: a weight is the sum of two bf16, within 2^-18. For each weight the class has (1 + 2^-22)^(R + 7) (1 +
 * 2^-24)^(R + 4) - 1 with R = ceil(n / 16), and 2 (1 + ln n) 2^-22 for merging, which is not done here: with n >= 17
 * keys more than 18 * 2^-22. The parts take 16, the exponential 1, its argument 1/4 (the rest is counted with its
 * size), and a maximum that rises nothing (mla.cuh). With fewer than FEW keys the block does as attend_any does. A
 * product of parts has fewer bits than that of a weight, and there are as many accumulations of 16 as the class has
 * of 8. */
#ifndef HM_CUDA_MLA_SM90_CUH
#define HM_CUDA_MLA_SM90_CUH

#include "mla.cuh"
#include "sm90.cuh"

namespace hm {
namespace mla {
namespace sm90 {

enum {
    SCORERS = 128, /* threads of each kind */
    ADDERS = 256,
    PRODUCERS = 128,
    BLOCK = SCORERS + ADDERS + PRODUCERS,
    BLOCK_HEADS = 64,
    TILE = 48, /* keys */
    BUFFERS = 3,
    WIDTH = 576,
    VALUES = 512,
    HELD = 256,                  /* elements of a query that are held in registers */
    PANEL = TILE * 128,          /* bytes of 64 elements of a tile's keys, in the 128-byte swizzle */
    Q_PANEL = BLOCK_HEADS * 128, /* and of queries, or of weights for a tile */
    TILE_BYTES = WIDTH / 64 * PANEL,
    K_AT = 0,
    Q_AT = BUFFERS * TILE_BYTES,
    P_AT = Q_AT + (WIDTH - HELD) / 64 * Q_PANEL, /* two, for two tiles or for the parts of one */
    DYNAMIC = P_AT + 2 * Q_PANEL + 1024,
    FEW = 32
};

struct shared_state {
    uint64_t full[BUFFERS], empty[BUFFERS]; /* mbarriers: of the buffers of keys */
    uint64_t weighed[2], added[2];          /* of those of weights */
    uint64_t shared_out;                    /* of share */
    uint32_t mask[BUFFERS][2];              /* which rows of a tile are keys: bits of the warps that filled it */
    float fell[2][BLOCK_HEADS], share[BLOCK_HEADS]; /* what the sums so far fall by; what the last is multiplied by */
    int bad;                                        /* an index is out of range */
};

#if __CUDA_ARCH_FEAT_SM90_ALL

/* ---- instructions ------------------------------------------------------------------------------------------------ */

/* 16 bytes, or zeros. */
__device__ __forceinline__ void copy16(uint32_t to, const char *from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
}
__device__ __forceinline__ void store4(uint32_t to, uint32_t v) {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(v) : "memory");
}
__device__ __forceinline__ void store16(uint32_t to, const uint32_t *v) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3])
                 : "memory");
}
/* Operands in shared memory: their lower words are addresses by 16 and the distance of panels, the upper ones say how
 * they lie: rows of 128 bytes, swizzled, 8 of them together. */
enum { OPERAND = 1 << 30 | 1024 >> 4 };
__device__ __forceinline__ uint32_t operand_at(uint32_t at, uint32_t distance = 16) {
    return (at & 0x3ffffu) >> 4 | distance >> 4 << 16;
}
/* Computed anew each time: kept, they would fill the registers. */
__device__ __forceinline__ uint32_t again(uint32_t v) {
    asm volatile("" : "+r"(v));
    return v;
}

/* r: what the next ones add to; before that it is as the program has it. */
template <int N>
__device__ __forceinline__ void wgmma_begin(float (&r)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(r[i])::"memory");
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/* All of them are done; r: what they wrote. */
template <int N>
__device__ __forceinline__ void wgmma_wait(float (&r)[N]) {
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(r[i])::"memory");
}

#define HM_MLA_F4(r, i) "+f"(r[i]), "+f"(r[i + 1]), "+f"(r[i + 2]), "+f"(r[i + 3])
#define HM_MLA_F8(r, i) HM_MLA_F4(r, i), HM_MLA_F4(r, i + 4)
#define HM_MLA_F32(r, i) HM_MLA_F8(r, i), HM_MLA_F8(r, i + 8), HM_MLA_F8(r, i + 16), HM_MLA_F8(r, i + 24)
#define HM_MLA_24                                                             \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23}"
#define HM_MLA_64                                                                      \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"
/* s += a b^T: 64 x 48, 16 elements deep; a from registers or from shared memory */
template <int HOW>
__device__ __forceinline__ void multiply_keys(float (&s)[24], const uint32_t *a, uint32_t b) {
    asm volatile(
        "{\n.reg .b64 b;\nmov.b64 b, {%28, %29};\n"
        "wgmma.mma_async.sync.aligned.m64n48k16.f32.bf16.bf16 " HM_MLA_24 ", {%24, %25, %26, %27}, b, 1, 1, 1, 0;\n}"
        : HM_MLA_F8(s, 0), HM_MLA_F8(s, 8), HM_MLA_F8(s, 16)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "n"(HOW));
}
template <int HOW>
__device__ __forceinline__ void multiply_keys(float (&s)[24], uint32_t a, uint32_t b) {
    asm volatile(
        "{\n.reg .b64 a, b;\nmov.b64 a, {%24, %26};\nmov.b64 b, {%25, %26};\n"
        "wgmma.mma_async.sync.aligned.m64n48k16.f32.bf16.bf16 " HM_MLA_24 ", a, b, 1, 1, 1, 0, 0;\n}"
        : HM_MLA_F8(s, 0), HM_MLA_F8(s, 8), HM_MLA_F8(s, 16)
        : "r"(a), "r"(b), "n"(HOW));
}
/* o += a b: 64 x 128, 16 keys deep */
template <int HOW>
__device__ __forceinline__ void add_values(float (&o)[64], uint32_t a, uint32_t b) {
    asm volatile(
        "{\n.reg .b64 a, b;\nmov.b64 a, {%64, %66};\nmov.b64 b, {%65, %66};\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " HM_MLA_64 ", a, b, 1, 1, 1, 0, 1;\n}"
        : HM_MLA_F32(o, 0), HM_MLA_F32(o, 32)
        : "r"(a), "r"(b), "n"(HOW));
}

/* ---- the producing warpgroup ------------------------------------------------------------------------------------- */

/* Where 16 bytes c of a row lie. */
__device__ __forceinline__ uint32_t place_of(int row, int c, int panel = PANEL) {
    return (uint32_t)(c / 8 * panel + row * 128 + ((c % 8 ^ row % 8) << 4));
}

/* Eight elements from d on; those past the width are 0. */
__device__ __forceinline__ void gather8(const char *row, int64_t step, int64_t d, int64_t width, uint32_t *to) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint32_t low = d + 2 * i < width ? *(const uint16_t *)(row + (d + 2 * i) * step) : 0;
        const uint32_t high = d + 2 * i + 1 < width ? *(const uint16_t *)(row + (d + 2 * i + 1) * step) : 0;
        to[i] = low | high << 16;
    }
}

/* 16 bytes of an entry of 656 */
__device__ __forceinline__ uint4 load16(const char *from, bool aligned) {
    if (aligned) return __ldg((const uint4 *)from);
    return make_uint4(word_at(from), word_at(from + 4), word_at(from + 8), word_at(from + 12));
}

/* Eight codes as bf16 */
__device__ __forceinline__ void widen8(uint32_t low, uint32_t high, code_scale s, uint32_t *to) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 two = codes_of((uint16_t)((i < 2 ? low : high) >> (i % 2 * 16)));
        pair<bf16>::set(to + i, product_of(two.x, s), product_of(two.y, s));
    }
}

enum { TEAM = PRODUCERS / 2, ROWS = TILE / (TEAM / 8) }; /* threads that fill a tile, and the rows of each */

/* Lane l of warp w of a team finds the key of row 8 (l / 4) + 4 w + l % 4, and knows from the others where those of
 * rows 8 j + 4 w + l / 8 are, of which it brings a part. */
__device__ __forceinline__ int64_t row_at(int64_t at, int j) {
    return __shfl_sync(~0u, at, 4 * j + (int)threadIdx.x % 32 / 8);
}

/* Of each panel's row, 16 bytes. */
__device__ __forceinline__ void copy_rows(const params &p, uint32_t tile, int row, int c, int64_t at) {
    const char *from[ROWS];
    uint32_t there = 0;
#pragma unroll
    for (int j = 0; j < ROWS; j++) {
        const int64_t key = row_at(at, j);
        from[j] = p.kv + (key < 0 ? 0 : key);
        there |= (uint32_t)(key >= 0) << j;
    }
    uint32_t to = tile + place_of(row, c); /* the same swizzle in rows 8 j further on */
#pragma unroll 1
    for (int d = c * 8; d < WIDTH; d += 64) {
        const bool inside = d < p.width;
#pragma unroll
        for (int j = 0; j < ROWS; j++)
            copy16(to + j * 1024, from[j] + (inside ? d * 2 : 0), inside && (there >> j & 1));
        to += PANEL;
    }
}

/* The same element by element. */
__device__ __forceinline__ void gather_row(const params &p, uint32_t tile, int row, int c, int64_t at) {
#pragma unroll 1
    for (; c < WIDTH / 8; c += 8) {
        uint32_t v[4];
        gather8(p.kv + at, p.element_stride, c * 8, at < 0 ? 0 : p.width, v);
        store16(tile + place_of(row, c), v);
    }
}

/* The same from codes: 16 of each 128. */
__device__ __forceinline__ void decode_row(const params &p, uint32_t tile, int row, int c, int64_t at) {
    uint4 codes[HM_MLA_TILES] = {}, scales = {}, rope = {};
    if (at >= 0) {
        const char *entry = p.kv + at;
#pragma unroll
        for (int t = 0; t < HM_MLA_TILES; t++) codes[t] = load16(entry + t * HM_MLA_TILE + c * 16, p.aligned);
        scales = load16(entry + HM_MLA_SCALES_AT, p.aligned);
        rope = load16(entry + HM_MLA_ROPE_AT + c * 16, p.aligned);
    }
    const int high = c / 4; /* of two groups of eight, the second first in half of the threads: no two meet in a bank */
#pragma unroll
    for (int t = 0; t < HM_MLA_TILES; t++) {
        const code_scale s = scale_seen(p.dequant, (&scales.x)[t]);
        uint32_t v[2][4];
        widen8(codes[t].x, codes[t].y, s, v[0]);
        widen8(codes[t].z, codes[t].w, s, v[1]);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const uint32_t first = v[0][k];
            if (high) v[0][k] = v[1][k], v[1][k] = first;
        }
        store16(tile + place_of(row, t * 16 + c * 2 + high), v[0]);
        store16(tile + place_of(row, t * 16 + c * 2 + (high ^ 1)), v[1]);
    }
    store16(tile + place_of(row, VALUES / 8 + c), &rope.x);
}

/* Each half of the warpgroup fills every second tile, so that two are under way. */
template <bool FP8, bool PAGED>
__device__ __forceinline__ void produce(const params &p, shared_state &x, uint32_t base, int thread, int64_t token,
                                        int64_t start, int64_t n, int tiles) {
    const int i = thread % TEAM, lane = i % 32, row = i / 8, c = i % 8;
    const int64_t own = lane / 4 * 8 + i / 32 * 4 + lane % 4; /* lanes past 4 ROWS have none */
    int buffer = thread / TEAM;
    uint32_t parity = 1;
    int64_t at = NO_KEY;
    if (lane < 4 * ROWS) at = key_at<PAGED>(p, token, start, n, thread / TEAM * TILE + own);
    for (int tile = thread / TEAM; tile < tiles; tile += 2) {
        const uint32_t to = base + K_AT + buffer * TILE_BYTES, mask = __ballot_sync(~0u, at >= 0);
        if (at == PAST_CACHE) x.bad = 1;
        barrier_wait(&x.empty[buffer], parity);
        if (lane == 0) x.mask[buffer][i / 32] = mask;
        if (!FP8 && p.aligned) {
            copy_rows(p, to, row, c, at);
        } else {
#pragma unroll 1
            for (int j = 0; j < ROWS; j++) {
                const int64_t key = row_at(at, j);
                if (FP8) decode_row(p, to, row + 8 * j, c, key);
                else gather_row(p, to, row + 8 * j, c, key);
            }
        }
        if (lane < 4 * ROWS) at = key_at<PAGED>(p, token, start, n, (int64_t)(tile + 2) * TILE + own);
        asm volatile("cp.async.wait_all;" ::: "memory");
        fence_for_async();
        barrier_arrive(&x.full[buffer]);
        buffer += 2;
        if (buffer >= BUFFERS) buffer -= BUFFERS, parity ^= 1;
    }
}

/* ---- the warpgroup that scores ----------------------------------------------------------------------------------- */

/* Lane (g, t) of a warp has rows g and g + 8 of its 16 heads and columns 8 i + 2 t and the next of wgmma's results, and
 * of its operands in registers. */

/* The first HELD elements to registers, the others to shared memory, laid out like keys. */
__device__ __forceinline__ void load_queries(const params &p, uint32_t to, int64_t token, int64_t head,
                                             uint32_t (&held)[HELD / 4]) {
    enum { PIECES = (WIDTH - HELD) / 8 };
    const char *const q = p.q + token * p.q_token;
    const int tid = (int)threadIdx.x, lane = tid % 32;
    for (int i = tid; i < BLOCK_HEADS * PIECES; i += SCORERS) {
        const int row = i / PIECES, c = i % PIECES, d = HELD + c * 8;
        const bool there = head + row < p.heads && d < p.width;
        const char *from = q + (there ? (head + row) * p.q_head : 0);
        const uint32_t at = to + place_of(row, c, Q_PANEL);
        if (p.aligned) {
            copy16(at, from + (there ? d * 2 : 0), there);
        } else {
            uint32_t v[4];
            gather8(from, p.q_step, d, there ? p.width : 0, v);
            store16(at, v);
        }
    }
#pragma unroll
    for (int i = 0; i < HELD / 4; i++) {
        const int64_t h = head + tid / 32 * 16 + lane / 4 + i % 2 * 8;
        const int d = i / 4 * 16 + i / 2 % 2 * 8 + lane % 4 * 2;
        const char *from = q + (h < p.heads ? h * p.q_head : 0);
        if (p.aligned) {
            held[i] = h < p.heads && d < p.width ? *(const uint32_t *)(from + d * 2) : 0;
        } else {
            const int width = h < p.heads ? (int)p.width : 0;
            const uint32_t low = d < width ? *(const uint16_t *)(from + d * p.q_step) : 0;
            const uint32_t high = d + 1 < width ? *(const uint16_t *)(from + (d + 1) * p.q_step) : 0;
            held[i] = low | high << 16;
        }
    }
#pragma unroll
    for (int i = 0; i < HELD / 4; i++) asm volatile("" : "+r"(held[i]));
    asm volatile("cp.async.wait_all;" ::: "memory");
    fence_for_async();
    asm volatile("bar.sync 2, 128;" ::: "memory");
}

/* Scores to weights, which are stored; what the sums so far fall by is returned in fell. */
template <bool PARTS>
__device__ __forceinline__ void weigh(const params &p, float (&top)[2], float (&sum)[2], float (&s)[24],
                                      const uint32_t *mask, int g, int t, uint32_t to, float (&fell)[2]) {
#pragma unroll
    for (int i = 0; i < 24; i++) s[i] = __fmul_rn(s[i], p.scale);
    if ((mask[0] & mask[1]) != (1u << 4 * ROWS) - 1) {
        const uint32_t mine = mask[t / 2] >> (t % 2 * 2);
#pragma unroll
        for (int i = 0; i < 24; i++)
            if (!(mine >> (i / 4 * 4 + i % 2) & 1)) s[i] = -INFINITY;
    }
    float most[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int i = 0; i < 24; i++) most[i / 2 % 2] = fmaxf(most[i / 2 % 2], s[i]);
#pragma unroll
    for (int k = 0; k < 2; k++) {
        most[k] = fmaxf(most[k], __shfl_xor_sync(~0u, most[k], 1));
        most[k] = fmaxf(most[k], __shfl_xor_sync(~0u, most[k], 2));
        const float now = fmaxf(top[k], top_of(most[k]));
        fell[k] = fall(top[k], now);
        top[k] = now, sum[k] = __fmul_rn(sum[k], fell[k]);
    }
#pragma unroll
    for (int i = 0; i < 24; i += 2) {
        const int k = i / 2 % 2;
        const float a = weight_of(s[i], top[k]), b = weight_of(s[i + 1], top[k]);
        const uint32_t at = to + k * 1024 + ((i / 4 ^ g) << 4) + 4 * t;
        uint32_t high, low;
        sum[k] = __fadd_rn(sum[k], __fadd_rn(a, b));
        pair<bf16>::set(&high, a, b);
        store4(at, high);
        if (PARTS) {
            float ah, bh;
            pair<bf16>::get(&high, &ah, &bh);
            pair<bf16>::set(&low, __fsub_rn(a, ah), __fsub_rn(b, bh));
            store4(at + Q_PANEL, low);
        }
    }
}

/* s = the products of the queries and the keys of a buffer */
__device__ __forceinline__ void multiply_tile(float (&s)[24], const uint32_t (&held)[HELD / 4], uint32_t queries,
                                              uint32_t keys) {
    const uint32_t a = again(operand_at(queries)), b = again(operand_at(keys));
#pragma unroll
    for (int i = 0; i < 24; i++) s[i] = 0.0f;
    wgmma_begin(s);
#pragma unroll
    for (int i = 0; i < HELD / 16; i++) multiply_keys<OPERAND>(s, held + 4 * i, b + (i / 4 * PANEL + i % 4 * 32) / 16);
#pragma unroll
    for (int i = HELD / 16; i < WIDTH / 16; i++)
        multiply_keys<OPERAND>(s, a + ((i / 4 - HELD / 64) * Q_PANEL + i % 4 * 32) / 16,
                               b + (i / 4 * PANEL + i % 4 * 32) / 16);
    wgmma_commit();
}

template <bool PARTS>
__device__ __forceinline__ void score(const params &p, shared_state &x, uint32_t base, int64_t token, int64_t head,
                                      int tiles) {
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int row = warp * 16 + g; /* and row + 8 */
    uint32_t held[HELD / 4];
    float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
    load_queries(p, base + Q_AT, token, head, held);
    int buffer = 0;
    uint32_t parity = 0;
    for (int tile = 0; tile < tiles; tile++) {
        const int stage = PARTS ? 0 : tile % 2;
        const uint32_t turn = (uint32_t)(PARTS ? tile : tile / 2) & 1;
        float s[24], fell[2];
        barrier_wait(&x.full[buffer], parity);
        multiply_tile(s, held, base + Q_AT, base + K_AT + buffer * TILE_BYTES);
        wgmma_wait(s);
        barrier_wait(&x.added[stage], turn ^ 1);
        weigh<PARTS>(p, top, sum, s, x.mask[buffer], g, t, base + P_AT + stage * Q_PANEL + row * 128, fell);
        if (t == 0) x.fell[stage][row] = fell[0], x.fell[stage][row + 8] = fell[1];
        fence_for_async();
        barrier_arrive(&x.weighed[stage]);
        if (++buffer == BUFFERS) buffer = 0, parity ^= 1;
    }
#pragma unroll
    for (int k = 0; k < 2; k++) {
        const int64_t h = head + row + 8 * k;
        float l = sum[k];
        l = __fadd_rn(l, __shfl_xor_sync(~0u, l, 1));
        l = __fadd_rn(l, __shfl_xor_sync(~0u, l, 2));
        const bool none = top[k] == -INFINITY;
        if (t != 0 || h >= p.heads) continue;
        x.share[row + 8 * k] = none ? 0.0f : share_of(p, h, top[k], l);
        if (p.lse && !x.bad) p.lse[token * p.lse_token + h * p.lse_head] = none ? INFINITY : lse_of(top[k], l);
    }
    barrier_arrive(&x.shared_out);
}

/* ---- the two that add -------------------------------------------------------------------------------------------- */

__device__ __forceinline__ void scale_rows(float (&o)[2][64], float a, float b) {
    if (!__any_sync(~0u, a != 1.0f || b != 1.0f)) return;
#pragma unroll
    for (int i = 0; i < 128; i += 4) {
        float *const v = o[i / 64] + i % 64;
        v[0] = __fmul_rn(v[0], a), v[1] = __fmul_rn(v[1], a), v[2] = __fmul_rn(v[2], b), v[3] = __fmul_rn(v[3], b);
    }
}

template <bool PARTS>
__device__ __forceinline__ void add(const params &p, shared_state &x, uint32_t base, int half, int64_t token,
                                    int64_t head, int tiles) {
    const int warp = (int)threadIdx.x % 128 / 32, lane = (int)threadIdx.x % 32, t = lane % 4;
    const int row = warp * 16 + lane / 4; /* and row + 8 */
    float o[2][64]; /* 128 columns each: one of 256 would need more registers than 512 threads begin with */
#pragma unroll
    for (int i = 0; i < 128; i++) o[i / 64][i % 64] = 0.0f;
    int buffer = 0;
    for (int tile = 0; tile < tiles; tile++) {
        const int stage = PARTS ? 0 : tile % 2;
        const uint32_t turn = (uint32_t)(PARTS ? tile : tile / 2) & 1;
        const uint32_t a = again(operand_at(base + P_AT + stage * Q_PANEL));
        const uint32_t b = again(operand_at(base + K_AT + buffer * TILE_BYTES + half * 4 * PANEL, PANEL));
        barrier_wait(&x.weighed[stage], turn);
        scale_rows(o, x.fell[stage][row], x.fell[stage][row + 8]);
#pragma unroll
        for (int n = 0; n < 2; n++) {
            wgmma_begin(o[n]);
#pragma unroll
            for (int k = 0; k < (PARTS ? 2 : 1) * TILE / 16; k++) {
                const int part = k / (TILE / 16), at = k % (TILE / 16);
                add_values<OPERAND>(o[n], a + (part * Q_PANEL + at * 32) / 16, b + (n * 2 * PANEL + at * 2048) / 16);
            }
        }
        wgmma_commit();
        wgmma_wait(o[0]);
        wgmma_wait(o[1]);
        barrier_arrive(&x.added[stage]); /* each thread, which has read fell: racecheck does not follow __syncwarp() */
        if (lane == 0) barrier_arrive(&x.empty[buffer]);
        if (++buffer == BUFFERS) buffer = 0;
    }
    barrier_wait(&x.shared_out, 0);
    if (x.bad) return;
#pragma unroll
    for (int k = 0; k < 2; k++) {
        const int64_t h = head + row + 8 * k;
        if (h >= p.heads) continue;
        const float share = x.share[row + 8 * k];
        char *const out = p.out + token * p.out_token + h * p.out_head;
#pragma unroll
        for (int i = 0; i < 32; i++) {
            const int d = half * (VALUES / 2) + 8 * i + 2 * t;
            const float v = __fmul_rn(o[i / 16][4 * i % 64 + 2 * k], share),
                        w = __fmul_rn(o[i / 16][4 * i % 64 + 2 * k + 1], share);
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

template <bool FP8>
struct choose {
    using type = bf16;
};
template <>
struct choose<true> {
    using type = fp8_ds;
};

template <bool FP8, bool PAGED, bool PARTS>
__global__ void __launch_bounds__(BLOCK, 1) attend(const __grid_constant__ params p) {
#if __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ char dynamic[];
    __shared__ shared_state x;
    char *const aligned = (char *)(((uintptr_t)dynamic + 1023) / 1024 * 1024);
    const uint32_t base = shared_address(aligned);
    const int tid = (int)threadIdx.x;
    if (tid == 0) {
        x.bad = 0;
        for (int b = 0; b < BUFFERS; b++) barrier_init(&x.full[b], TEAM), barrier_init(&x.empty[b], ADDERS / 32);
        for (int b = 0; b < 2; b++) barrier_init(&x.weighed[b], SCORERS), barrier_init(&x.added[b], ADDERS);
        barrier_init(&x.shared_out, SCORERS);
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
                attend_heads<typename choose<FP8>::type, PAGED>(p, *(scratch *)aligned, token, h, tid);
            return;
        }
    }
    __syncthreads();
    const int tiles = (int)((n + TILE - 1) / TILE);
    if (tid < SCORERS) {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 144;");
        score<PARTS>(p, x, base, token, head, tiles);
    } else if (tid < SCORERS + ADDERS) {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 160;");
        add<PARTS>(p, x, base, tid / 128 - 1, token, head, tiles);
    } else {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 48;");
        produce<FP8, PAGED>(p, x, base, tid - SCORERS - ADDERS, token, start, n, tiles);
    }
#endif
}

/* ---- the host's side --------------------------------------------------------------------------------------------- */

/* May the kernel run on the current device? What was compiled for another has no static shared memory. */
template <bool FP8, bool PAGED, bool PARTS>
static bool there() {
    static signed char known[64];
    int device = 0;
    cudaFuncAttributes attributes = {};
    if (cudaGetDevice(&device) != cudaSuccess || device < 0 || device >= 64) return false;
    signed char k = __atomic_load_n(&known[device], __ATOMIC_RELAXED);
    if (k) return k > 0;
    const void *kernel = (const void *)attend<FP8, PAGED, PARTS>;
    const bool good = cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess && attributes.sharedSizeBytes > 0 &&
                      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, DYNAMIC) == cudaSuccess;
    if (!good) cudaGetLastError();
    __atomic_store_n(&known[device], (signed char)(good ? 1 : -1), __ATOMIC_RELAXED);
    return good;
}

template <bool FP8, bool PAGED, bool PARTS>
static hm_status run_mode(const char *op, params p, void *stream) {
    p.groups = divider_of((p.heads - 1) / BLOCK_HEADS + 1);
    p.blocks = p.tokens * p.groups.d;
    return launch_blocks(op, attend<FP8, PAGED, PARTS>, p, BLOCK, DYNAMIC, stream);
}

/* Can the call be done here? What decides is the call's shape and the device alone. */
template <bool FP8, bool PAGED>
static bool can(const params &p) {
    return p.width <= WIDTH && p.value_width <= VALUES && there<FP8, PAGED, false>() && there<FP8, PAGED, true>();
}

template <bool FP8, bool PAGED>
static hm_status run(const char *op, const params &p, void *stream) {
    return p.round_p ? run_mode<FP8, PAGED, false>(op, p, stream) : run_mode<FP8, PAGED, true>(op, p, stream);
}

} // namespace sm90
} // namespace mla
} // namespace hm

#endif
