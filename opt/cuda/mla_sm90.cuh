/* mla_sm90.cuh: latent attention on Hopper's tensor cores: bf16 with width <= 576 and value_width <= 512 (shorter rows are filled
 * with zeros, which change no sum), and fp8_ds_mla.
 *
 * A block does 64 heads of a token. Its keys come in tiles of 64, two at a time, in two buffers, which one warpgroup fills: rows
 * of 64 elements in the 128-byte swizzle, nine of these tiles side by side. Warpgroup w of the other two multiplies all of the
 * queries with the keys of tile w, takes the exponentials, and hands them to the other through shared memory, where the last of the nine was (the rope
 * part, which no value is in). Each adds up its half of the value columns over both tiles, first tile first.
 * Nothing in that depends on other tokens, so a row's bits do not either; a tile without keys, or with some, adds zeros.
 *
 * HM_P_F32: a weight is the sum of two bf16, within 2^-18: the class has (1 + 2^-22)^(R + 7) (1 + 2^-24)^(R + 4) - 1 for each
 * weight with R = ceil(n / 16), and 2 (1 + ln n) 2^-22 for merging, which is not done here. With n >= 17 keys this is more than
 * 18 * 2^-22; the parts take 16, the exponential 1, its argument 1/4 (the rest is counted with its size), and falling maxima nothing (mla.cuh). With fewer than
 * FEW = 32 keys the block does as attend_any does. A product of parts has fewer bits than that of a weight, and there are as many accumulations of 16
 * as the class has of 8. */
#ifndef HM_CUDA_MLA_SM90_CUH
#define HM_CUDA_MLA_SM90_CUH

#include "mla.cuh"

namespace hm {
namespace mla {
namespace sm90 {

enum {
    CONSUMERS = 256,
    PRODUCERS = 128,
    BLOCK_HEADS = 64,
    TILE = 64,           /* keys */
    PANEL = 64 * 64 * 2, /* bytes of 64 rows of 64 elements */
    PANELS = 9,          /* of a tile: 576 elements */
    TILE_BYTES = PANELS * PANEL,
    WIDTH = PANELS * 64,
    VALUES = 512,
    Q_AT = 0,
    K_AT = TILE_BYTES,
    LOW_AT = 3 * TILE_BYTES, /* the lower parts of weights */
    DYNAMIC = LOW_AT + PANEL + 1024,
    FEW = 32
};
enum { LEFT, RIGHT, ROPE, SEGMENTS }; /* of a tile: panels 0 to 3, 4 to 7, and 8 */

struct shared_state {
    uint64_t full[2][SEGMENTS], empty[2][SEGMENTS]; /* mbarriers */
    uint64_t mask[2][2];                            /* which rows of a tile are keys: bits of each producing warp */
    float top[2][BLOCK_HEADS], sum[2][BLOCK_HEADS];
    int bad; /* an index is out of range */
};

#if __CUDA_ARCH_FEAT_SM90_ALL

/* ---- instructions ------------------------------------------------------------------------------------------------ */

__device__ __forceinline__ uint32_t address_of(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

__device__ __forceinline__ void mbarrier_init(uint64_t *bar, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address_of(bar)), "r"(count) : "memory");
}
__device__ __forceinline__ void mbarrier_arrive(uint64_t *bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address_of(bar)) : "memory");
}
/* Once all copies that this thread began have arrived. */
__device__ __forceinline__ void mbarrier_arrive_copied(uint64_t *bar) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(address_of(bar)) : "memory");
}
__device__ __forceinline__ void mbarrier_wait(uint64_t *bar, uint32_t parity) {
    uint32_t done;
#ifdef HM_MLA_BOUNDED
    int tries = 0;
#endif
    do {
        asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done)
                     : "r"(address_of(bar)), "r"(parity)
                     : "memory");
#ifdef HM_MLA_BOUNDED
        if (++tries > 1 << 16) break;
#endif
    } while (!done);
}
template <int ID, int COUNT>
__device__ __forceinline__ void barrier_sync() {
    asm volatile("bar.sync %0, %1;" ::"r"(ID), "r"(COUNT) : "memory");
}
template <int ID, int COUNT>
__device__ __forceinline__ void barrier_arrive() {
    asm volatile("bar.arrive %0, %1;" ::"r"(ID), "r"(COUNT) : "memory");
}
/* Between ordinary accesses to shared memory and those of wgmma. */
__device__ __forceinline__ void proxy_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/* 16 bytes, or zeros. */
__device__ __forceinline__ void copy16(uint32_t to, const char *from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
}
__device__ __forceinline__ void store16(uint32_t to, const uint32_t *v) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3])
                 : "memory");
}
__device__ __forceinline__ void store4(uint32_t to, uint32_t v) {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(v) : "memory");
}

/* Operands in shared memory, 128-byte swizzle. by_rows: rows are what is summed over (values); else elements are. What
 * lies n bytes behind is n / 16 more. */
__device__ __forceinline__ uint64_t operand(uint32_t at, bool by_rows) {
    return (uint64_t)((at & 0x3ffffu) >> 4) | (by_rows ? (uint64_t)(PANEL >> 4) << 16 : (uint64_t)1 << 16) |
           (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

/* r: what they will add to; before that it is as the program has it. */
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
#define HM_MLA_F16(r, i) HM_MLA_F4(r, i), HM_MLA_F4(r, i + 4), HM_MLA_F4(r, i + 8), HM_MLA_F4(r, i + 12)
#define HM_MLA_F32(r, i) HM_MLA_F16(r, i), HM_MLA_F16(r, i + 16)
#define HM_MLA_32                                                             \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}"
#define HM_MLA_128                                                                                 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                      \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "             \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "             \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "             \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "             \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "             \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}"

/* s += a b^T: 64 x 64, 16 elements deep */
__device__ __forceinline__ void multiply_keys(float (&s)[32], uint64_t a, uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " HM_MLA_32 ", %32, %33, 1, 1, 1, 0, 0;"
                 : HM_MLA_F32(s, 0)
                 : "l"(a), "l"(b));
}
/* o += a b: 64 x 256, 16 keys deep; a from shared memory or from registers */
__device__ __forceinline__ void add_values(float (&o)[128], uint64_t a, uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 " HM_MLA_128 ", %128, %129, 1, 1, 1, 0, 1;"
                 : HM_MLA_F32(o, 0), HM_MLA_F32(o, 32), HM_MLA_F32(o, 64), HM_MLA_F32(o, 96)
                 : "l"(a), "l"(b));
}
__device__ __forceinline__ void add_values(float (&o)[128], const uint32_t *a, uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 " HM_MLA_128
                 ", {%128, %129, %130, %131}, %132, 1, 1, 1, 1;"
                 : HM_MLA_F32(o, 0), HM_MLA_F32(o, 32), HM_MLA_F32(o, 64), HM_MLA_F32(o, 96)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

/* ---- the producing warpgroup ------------------------------------------------------------------------------------- */

/* Eight elements from d on; those past the width are 0. */
__device__ __forceinline__ void gather8(const char *row, int64_t step, int64_t d, int64_t width, uint32_t *to) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint32_t low = d + 2 * i < width ? *(const uint16_t *)(row + (d + 2 * i) * step) : 0;
        const uint32_t high = d + 2 * i + 1 < width ? *(const uint16_t *)(row + (d + 2 * i + 1) * step) : 0;
        to[i] = low | high << 16;
    }
}

/* 64 threads fill one of the two buffers: thread i has 16 bytes i % 8 of each panel's rows i / 8 + 8 j. */
template <int FIRST, int END>
__device__ __forceinline__ void copy_panels(const params &p, uint32_t to, int c, const int64_t (&at)[8]) {
#pragma unroll
    for (int panel = FIRST; panel < END; panel++) {
        const int d = panel * 64 + c * 8;
        const bool inside = d < p.width;
#pragma unroll
        for (int j = 0; j < 8; j++)
            copy16(to + panel * PANEL + j * 1024, p.kv + (at[j] < 0 ? 0 : at[j]) + (inside ? d * 2 : 0),
                   inside && at[j] >= 0);
    }
}

template <bool PAGED>
__device__ __forceinline__ void produce(const params &p, shared_state &x, uint32_t tile, int buffer, int i,
                                        int64_t token, int64_t start, int64_t n, int64_t pairs) {
    const int row = i / 8, c = i % 8;
    const uint32_t to = tile + row * 128 + ((c ^ row) << 4);
    for (int64_t step = 0; step < pairs; step++) {
        const uint32_t parity = (uint32_t)(step & 1) ^ 1;
        const int64_t place = (2 * step + buffer) * TILE + row;
        int64_t at[8];
        uint64_t mask = 0;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            at[j] = key_at<PAGED>(p, token, start, n, place + 8 * j);
            if (at[j] == PAST_CACHE) x.bad = 1;
            const uint32_t b = __ballot_sync(~0u, at[j] >= 0) & 0x01010101u;
            mask |= (uint64_t)((b | b >> 7 | b >> 14 | b >> 21) & 15) << (8 * j + i / 32 * 4);
        }
        if (p.aligned) {
            mbarrier_wait(&x.empty[buffer][LEFT], parity);
            copy_panels<0, 4>(p, to, c, at);
            mbarrier_arrive_copied(&x.full[buffer][LEFT]);
            mbarrier_wait(&x.empty[buffer][RIGHT], parity);
            copy_panels<4, 8>(p, to, c, at);
            mbarrier_arrive_copied(&x.full[buffer][RIGHT]);
            mbarrier_wait(&x.empty[buffer][ROPE], parity);
            copy_panels<8, 9>(p, to, c, at);
            mbarrier_arrive_copied(&x.full[buffer][ROPE]);
        } else {
            for (int segment = 0; segment < SEGMENTS; segment++) mbarrier_wait(&x.empty[buffer][segment], parity);
#pragma unroll 1
            for (int k = 0; k < 8 * PANELS; k++) {
                const int64_t from = key_at<PAGED>(p, token, start, n, place + k % 8 * 8);
                uint32_t v[4];
                gather8(p.kv + from, p.element_stride, k / 8 * 64 + c * 8, from < 0 ? 0 : p.width, v);
                store16(to + k / 8 * PANEL + k % 8 * 1024, v);
            }
            proxy_fence();
            for (int segment = 0; segment < SEGMENTS; segment++) mbarrier_arrive(&x.full[buffer][segment]);
        }
        if (i % 32 == 0) x.mask[buffer][i / 32] = mask;
        mbarrier_arrive(&x.full[buffer][ROPE]); /* for the mask */
    }
}

/* 16 bytes of an entry */
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

/* The same of entries of 656 bytes: thread i has the codes i % 8 * 16 and on of each 128, and 16 bytes of the rope part. */
template <bool PAGED>
__device__ __forceinline__ void produce_fp8(const params &p, shared_state &x, uint32_t tile, int buffer, int i,
                                            int64_t token, int64_t start, int64_t n, int64_t pairs) {
    const int row = i / 8, c = i % 8, high = c / 4;
    const uint32_t to = tile + row * 128;
    /* of the two groups of eight, the second first in half of the threads: then no two meet in a bank */
    const uint32_t first = (uint32_t)(((c % 4 * 2 + high) ^ row) << 4), second = first ^ 16u;
    for (int64_t step = 0; step < pairs; step++) {
        const uint32_t parity = (uint32_t)(step & 1) ^ 1;
        int64_t at[8];
        uint64_t mask = 0;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            at[j] = key_at<PAGED>(p, token, start, n, (2 * step + buffer) * TILE + row + 8 * j);
            if (at[j] == PAST_CACHE) x.bad = 1;
            const uint32_t b = __ballot_sync(~0u, at[j] >= 0) & 0x01010101u;
            mask |= (uint64_t)((b | b >> 7 | b >> 14 | b >> 21) & 15) << (8 * j + i / 32 * 4);
        }
        for (int segment = 0; segment < SEGMENTS; segment++) mbarrier_wait(&x.empty[buffer][segment], parity);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            uint4 codes[HM_MLA_TILES] = {}, scales = {}, rope = {};
            if (at[j] >= 0) {
                const char *entry = p.kv + at[j];
#pragma unroll
                for (int t = 0; t < HM_MLA_TILES; t++) codes[t] = load16(entry + t * HM_MLA_TILE + c * 16, p.aligned);
                scales = load16(entry + HM_MLA_SCALES_AT, p.aligned);
                rope = load16(entry + HM_MLA_ROPE_AT + c * 16, p.aligned);
            }
            const uint32_t *const seen = &scales.x, there = to + j * 1024;
#pragma unroll
            for (int t = 0; t < HM_MLA_TILES; t++) {
                const code_scale s = scale_seen(p.dequant, seen[t]);
                uint32_t v[2][4];
                widen8(codes[t].x, codes[t].y, s, v[0]);
                widen8(codes[t].z, codes[t].w, s, v[1]);
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    const uint32_t swap = v[0][k];
                    if (high) v[0][k] = v[1][k], v[1][k] = swap;
                }
                store16(there + (2 * t + high) * PANEL + first, v[0]);
                store16(there + (2 * t + high) * PANEL + second, v[1]);
            }
            store16(there + 8 * PANEL + ((c ^ row) << 4), &rope.x);
        }
        if (i % 32 == 0) x.mask[buffer][i / 32] = mask;
        proxy_fence();
#pragma unroll
        for (int segment = 0; segment < SEGMENTS; segment++) mbarrier_arrive(&x.full[buffer][segment]);
        mbarrier_arrive(&x.full[buffer][ROPE]);
    }
}

/* ---- the two that multiply --------------------------------------------------------------------------------------- */

enum { MEET_Q = 2, MEET_TOP, MEET_FIRST, MEET_SECOND, MEET_OWN }; /* named barriers; MEET_OWN: two of them */

__device__ __forceinline__ void scale_rows(float (&o)[128], float a, float b) {
    if (!__any_sync(~0u, a != 1.0f || b != 1.0f)) return;
#pragma unroll
    for (int i = 0; i < 128; i += 4) {
        o[i] = __fmul_rn(o[i], a), o[i + 1] = __fmul_rn(o[i + 1], a);
        o[i + 2] = __fmul_rn(o[i + 2], b), o[i + 3] = __fmul_rn(o[i + 3], b);
    }
}

/* o += P V for a tile: P from the registers, or from shared memory where the other warpgroup put it. */
template <bool PARTS>
__device__ __forceinline__ void add_own(float (&o)[128], uint32_t *high, uint32_t *low, uint64_t values) {
#pragma unroll
    for (int i = 0; i < 16; i++) {
        asm volatile("" : "+r"(high[i])::"memory");
        if (PARTS) asm volatile("" : "+r"(low[i])::"memory");
    }
    wgmma_begin(o);
#pragma unroll
    for (int k = 0; k < 4; k++) add_values(o, high + 4 * k, values + k * (2048 / 16));
    if (PARTS)
#pragma unroll
        for (int k = 0; k < 4; k++) add_values(o, low + 4 * k, values + k * (2048 / 16));
    wgmma_commit();
}
template <bool PARTS>
__device__ __forceinline__ void add_other(float (&o)[128], uint64_t high, uint64_t low, uint64_t values) {
    wgmma_begin(o);
#pragma unroll
    for (int k = 0; k < 4; k++) add_values(o, high + k * (32 / 16), values + k * (2048 / 16));
    if (PARTS)
#pragma unroll
        for (int k = 0; k < 4; k++) add_values(o, low + k * (32 / 16), values + k * (2048 / 16));
    wgmma_commit();
}

/* Weights to shared memory as an operand: rows g and g + 8 of the warp's 16, columns 8 i + 2 t and the next. */
__device__ __forceinline__ void put_weights(uint32_t to, const uint32_t *w, int g, int t) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
        store4(to + ((i ^ g) << 4) + 4 * t, w[2 * i]);
        store4(to + 1024 + ((i ^ g) << 4) + 4 * t, w[2 * i + 1]);
    }
}

/* s += the products of panels [FIRST, END) */
template <int FIRST, int END>
__device__ __forceinline__ void multiply_panels(float (&s)[32], uint64_t queries, uint64_t keys, uint64_t *full,
                                                uint32_t parity) {
    mbarrier_wait(full, parity);
    proxy_fence();
    wgmma_begin(s);
#pragma unroll
    for (int i = FIRST * 4; i < END * 4; i++) {
        const int at = (i / 4 * PANEL + i % 4 * 32) / 16;
        multiply_keys(s, queries + at, keys + at);
    }
    wgmma_commit();
}

template <int W, bool PARTS>
__device__ __forceinline__ void consume(const params &p, shared_state &x, uint32_t base, int64_t token, int64_t head,
                                        int64_t pairs) {
    const int tid = (int)threadIdx.x % 128, warp = tid / 32, lane = tid % 32, g = lane / 4, t = lane % 4;
    const int row = warp * 16 + g; /* and row + 8 */
    const uint32_t keys[2] = {base + K_AT, base + K_AT + TILE_BYTES}, low_at = base + LOW_AT;
    const uint32_t weights[2] = {keys[0] + 8 * PANEL, keys[1] + 8 * PANEL};
    const uint64_t query_operand = operand(base + Q_AT, false), key_operand = operand(keys[W], false);
    float o[128], sum[2] = {0.0f, 0.0f}, sum_top[2] = {-INFINITY, -INFINITY}, top[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int i = 0; i < 128; i++) o[i] = 0.0f;
    for (int64_t step = 0; step < pairs; step++) {
        const uint32_t parity = (uint32_t)(step & 1);
        float s[32];
#pragma unroll
        for (int i = 0; i < 32; i++) s[i] = 0.0f;
        multiply_panels<0, 4>(s, query_operand, key_operand, &x.full[W][LEFT], parity);
        multiply_panels<4, 8>(s, query_operand, key_operand, &x.full[W][RIGHT], parity);
        multiply_panels<8, 9>(s, query_operand, key_operand, &x.full[W][ROPE], parity);
        wgmma_wait(s);
        const uint64_t mask = x.mask[W][0] | x.mask[W][1];
        float most[2] = {-INFINITY, -INFINITY}, now[2];
#pragma unroll
        for (int i = 0; i < 32; i++) s[i] = __fmul_rn(s[i], p.scale);
        if (~mask) {
            const uint64_t mine = mask >> (2 * t);
#pragma unroll
            for (int i = 0; i < 32; i++)
                if (!(mine >> (i / 4 * 8 + i % 2) & 1)) s[i] = -INFINITY;
        }
#pragma unroll
        for (int i = 0; i < 32; i++) most[i / 2 % 2] = fmaxf(most[i / 2 % 2], s[i]);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            most[r] = fmaxf(most[r], __shfl_xor_sync(~0u, most[r], 1));
            most[r] = top_of(fmaxf(most[r], __shfl_xor_sync(~0u, most[r], 2)));
        }
        float before[2] = {top[0], top[1]}, other[2]; /* before: what o is in units of */
        if (W == 1) {
            barrier_sync<MEET_TOP, CONSUMERS>();
            top[0] = other[0] = x.top[0][row], top[1] = other[1] = x.top[0][row + 8];
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            now[r] = fmaxf(top[r], most[r]);
            if (t == 0) x.top[W][row + 8 * r] = now[r];
            sum[r] = __fmul_rn(sum[r], fall(sum_top[r], now[r])), sum_top[r] = now[r];
        }
        if (W == 0) barrier_arrive<MEET_TOP, CONSUMERS>();
        uint32_t high[16], low[16];
#pragma unroll
        for (int i = 0; i < 32; i += 2) {
            const int r = i / 2 % 2;
            const float a = weight_of(s[i], now[r]), b = weight_of(s[i + 1], now[r]);
            sum[r] = __fadd_rn(sum[r], __fadd_rn(a, b));
            pair<bf16>::set(high + i / 2, a, b);
            if (PARTS) {
                float ah, bh;
                pair<bf16>::get(high + i / 2, &ah, &bh);
                pair<bf16>::set(low + i / 2, __fsub_rn(a, ah), __fsub_rn(b, bh));
            }
        }
        barrier_sync<MEET_OWN + W, 128>(); /* the rope part has been read by all four warps */
        put_weights(weights[W] + row * 128, high, g, t);
        if (W == 0) {
            if (PARTS) put_weights(low_at + row * 128, low, g, t);
            proxy_fence();
            barrier_arrive<MEET_FIRST, CONSUMERS>();
            scale_rows(o, fall(before[0], now[0]), fall(before[1], now[1]));
            add_own<PARTS>(o, high, low, operand(keys[0], true));
            wgmma_wait(o);
            if (lane == 0) mbarrier_arrive(&x.empty[0][LEFT]);
            barrier_sync<MEET_SECOND, CONSUMERS>();
            top[0] = x.top[1][row], top[1] = x.top[1][row + 8];
            scale_rows(o, fall(now[0], top[0]), fall(now[1], top[1]));
            add_other<PARTS>(o, operand(weights[1], false), operand(low_at, false), operand(keys[1], true));
            wgmma_wait(o);
            if (lane == 0) mbarrier_arrive(&x.empty[1][LEFT]), mbarrier_arrive(&x.empty[1][ROPE]);
        } else {
            if (!PARTS) {
                proxy_fence();
                barrier_arrive<MEET_SECOND, CONSUMERS>();
            }
            barrier_sync<MEET_FIRST, CONSUMERS>();
            scale_rows(o, fall(before[0], other[0]), fall(before[1], other[1]));
            add_other<PARTS>(o, operand(weights[0], false), operand(low_at, false), operand(keys[0] + 4 * PANEL, true));
            wgmma_wait(o);
            if (lane == 0) mbarrier_arrive(&x.empty[0][RIGHT]), mbarrier_arrive(&x.empty[0][ROPE]);
            if (PARTS) {
                barrier_sync<MEET_OWN + W, 128>(); /* the lower parts have been read */
                put_weights(low_at + row * 128, low, g, t);
                proxy_fence();
                barrier_arrive<MEET_SECOND, CONSUMERS>();
            }
            scale_rows(o, fall(other[0], now[0]), fall(other[1], now[1]));
            add_own<PARTS>(o, high, low, operand(keys[1] + 4 * PANEL, true));
            wgmma_wait(o);
            if (lane == 0) mbarrier_arrive(&x.empty[1][RIGHT]);
            top[0] = now[0], top[1] = now[1];
        }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        sum[r] = __fmul_rn(sum[r], fall(sum_top[r], top[r]));
        sum[r] = __fadd_rn(sum[r], __shfl_xor_sync(~0u, sum[r], 1));
        sum[r] = __fadd_rn(sum[r], __shfl_xor_sync(~0u, sum[r], 2));
        if (t == 0) x.sum[W][row + 8 * r] = sum[r];
    }
    barrier_sync<MEET_Q, CONSUMERS>();
    if (x.bad) return;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int64_t h = head + row + 8 * r;
        if (h >= p.heads) continue;
        const bool none = top[r] == -INFINITY;
        const float l = __fadd_rn(x.sum[0][row + 8 * r], x.sum[1][row + 8 * r]);
        const float share = none ? 0.0f : share_of(p, h, top[r], l);
        if (W == 0 && t == 0 && p.lse)
            p.lse[token * p.lse_token + h * p.lse_head] = none ? INFINITY : lse_of(top[r], l);
        char *out = p.out + token * p.out_token + h * p.out_head;
#pragma unroll
        for (int i = 0; i < 32; i++) {
            const int d = W * (VALUES / 2) + 8 * i + 2 * t;
            const float a = none ? 0.0f : __fmul_rn(o[4 * i + 2 * r], share);
            const float b = none ? 0.0f : __fmul_rn(o[4 * i + 2 * r + 1], share);
            if (p.out_aligned) {
                if (d < p.value_width) pair<bf16>::set((uint32_t *)(out + d * 2), a, b);
            } else {
                if (d < p.value_width) *(bf16 *)(out + d * p.out_step) = narrow<bf16>(a);
                if (d + 1 < p.value_width) *(bf16 *)(out + (d + 1) * p.out_step) = narrow<bf16>(b);
            }
        }
    }
}

/* The queries of 64 heads, as tiles like those of keys. */
__device__ __forceinline__ void load_queries(const params &p, uint32_t to, int64_t token, int64_t head) {
    for (int i = (int)threadIdx.x; i < BLOCK_HEADS * WIDTH / 8; i += CONSUMERS) {
        const int row = i / (WIDTH / 8), c = i % (WIDTH / 8);
        const bool there = head + row < p.heads;
        const char *from = p.q + token * p.q_token + (there ? (head + row) * p.q_head : 0);
        const uint32_t at = to + c / 8 * PANEL + row * 128 + ((c % 8 ^ row % 8) << 4);
        if (p.aligned) {
            copy16(at, from + (c * 8 < p.width ? c * 16 : 0), there && c * 8 < p.width);
        } else {
            uint32_t v[4];
            gather8(from, p.q_step, c * 8, there ? p.width : 0, v);
            store16(at, v);
        }
    }
    asm volatile("cp.async.wait_all;" ::: "memory");
    proxy_fence();
    barrier_sync<MEET_Q, CONSUMERS>();
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
__global__ void __launch_bounds__(CONSUMERS + PRODUCERS, 1) attend(const __grid_constant__ params p) {
#if __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ char dynamic[];
    __shared__ shared_state x;
    char *const aligned = (char *)(((uintptr_t)dynamic + 1023) / 1024 * 1024);
    const uint32_t base = address_of(aligned);
    const int tid = (int)threadIdx.x;
    if (tid == 0) {
        x.bad = 0;
        for (int b = 0; b < 2; b++)
            for (int s = 0; s < SEGMENTS; s++) {
                mbarrier_init(&x.full[b][s], s == ROPE ? PRODUCERS : PRODUCERS / 2);
                mbarrier_init(&x.empty[b][s], 4);
            }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    wait_for_previous();
    let_next_start();
    const int64_t block = p.first + blockIdx.x, turn = quotient(p.groups, block);
    const int64_t head = (block - turn * p.groups.d) * BLOCK_HEADS;
    const int64_t token = PAGED ? turn : p.tokens - 1 - turn; /* the longest first */
    int64_t start;
    const int64_t n = places_of<PAGED>(p, token, &start), pairs = (n + 2 * TILE - 1) / (2 * TILE);
    if (n < 0) return;
    if (PARTS) {
        int64_t have = PAGED ? 0 : n;
        for (int64_t i = tid; PAGED && i - tid < n && have < FEW; i += CONSUMERS + PRODUCERS)
            have += __syncthreads_count(key_at<PAGED>(p, token, start, n, i) >= 0);
        if (have < FEW) {
            using E = typename choose<FP8>::type;
            static_assert(CONSUMERS == THREADS && VALUES == COLUMNS, "as attend_heads has them");
            if (tid >= CONSUMERS) return;
            for (int64_t h = head; h < head + BLOCK_HEADS && h < p.heads; h += HEADS)
                attend_heads<E, PAGED>(p, *(scratch *)aligned, token, h, tid);
            return;
        }
    }
    __syncthreads();
    if (tid >= CONSUMERS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 72;");
        const int i = tid - CONSUMERS, buffer = i / 64;
        const uint32_t tile = base + K_AT + buffer * TILE_BYTES;
        if (FP8) produce_fp8<PAGED>(p, x, tile, buffer, i % 64, token, start, n, pairs);
        else produce<PAGED>(p, x, tile, buffer, i % 64, token, start, n, pairs);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 216;");
        load_queries(p, base + Q_AT, token, head);
        if (tid < 128) consume<0, PARTS>(p, x, base, token, head, pairs);
        else consume<1, PARTS>(p, x, base, token, head, pairs);
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
    return launch_blocks(op, attend<FP8, PAGED, PARTS>, p, CONSUMERS + PRODUCERS, DYNAMIC, stream);
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
