/* logits_sm90.cuh: the kernels of logits for compute capability 9.0a: 64 heads or fewer of 128 dimensions.
 *
 * Keys are the rows of a product and lie in registers, 64 of a warpgroup's tile; the 64 heads of a token are its
 * columns and lie in shared memory, so that the sum over heads runs within a thread and its quad. Products are of f16,
 * with the codes' exact values, or (FP8) of the codes themselves.
 * The dimensions may come in any order, the same for both sides. In decode a thread of a quad, the t-th, has pieces t
 * and t + 4 of 16 codes of a key, and the queries' words are put to match: put_word. In prefill (logits_flat_sm90.cuh)
 * codes keep their order. Rows of 128 bytes are exchanged by 16 bytes as the product wants it.
 * What a row's key gets does not depend on where it stands in a tile. */
#ifndef HM_CUDA_LOGITS_SM90_CUH
#define HM_CUDA_LOGITS_SM90_CUH

#include "logits.cuh"
#include "sm90.cuh"

namespace hm {

enum { HEADS = 64, DIM = 128, NO_UNIT = -1 };

template <bool FP8>
struct kind {
    enum { QUERY_BYTES = FP8 ? 8192 : 16384, STEPS = FP8 ? 4 : 8, REGISTERS = FP8 ? 16 : 32 };
};

#if __CUDA_ARCH_FEAT_SM90_ALL

/* ---- what 9.0a has ----------------------------------------------------------------------------------------------- */

/* Arrives when what the thread copied by cp.async so far is there. */
__device__ __forceinline__ void barrier_arrive_behind_copies(uint64_t *b) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(b)) : "memory");
}
template <int N>
__device__ __forceinline__ void grow_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N>
__device__ __forceinline__ void shrink_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

#define HM_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define HM_D32(i) \
    HM_D4(i), HM_D4(i + 4), HM_D4(i + 8), HM_D4(i + 12), HM_D4(i + 16), HM_D4(i + 20), HM_D4(i + 24), HM_D4(i + 28)
#define HM_R32                                                                                                       \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
    "%24, %25, %26, %27, %28, %29, %30, %31"
#define HM_R64                                                                                                         \
    HM_R32                                                                                                             \
    ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, " \
    "%54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
/* SHAPE with TYPE; A to the last: the operands behind the results. */
#define HM_PRODUCT(SHAPE, REGISTERS, A, B, ADD, TAIL, ...)                                                           \
    asm volatile("{\n.reg .pred p;\n.reg .b64 b;\nsetp.ne.b32 p, " ADD ", 0;\nmov.b64 b, {" B                        \
                 ", 0x40000040};\nwgmma.mma_async.sync.aligned." SHAPE " {" REGISTERS "}, {" A "}, b, p" TAIL ";\n}" \
                 : __VA_ARGS__                                                                                       \
                 : "r"(a[4 * k]), "r"(a[4 * k + 1]), "r"(a[4 * k + 2]), "r"(a[4 * k + 3]), "r"(b), "r"(k > 0 ? 1 : 0))

/* Rows of 128 bytes, exchanged, 8 of them 1024 bytes; the upper half of a descriptor is the same for all. */
__device__ __forceinline__ uint32_t queries_at(uint32_t query) {
    return __shfl_sync(~0u, (query & 0x3ffff) >> 4 | 1u << 16, 0);
}

/* d[64 keys x TOKENS * 64 heads] = a b^T. Thread t of the warpgroup has keys t / 32 * 16 + t % 32 / 4, + 8 for the
 * second two of each four values, and heads 8 (i / 4) + t % 4 * 2 + i % 2. Begins; products_wait says when it is
 * done. */
template <bool FP8, int TOKENS>
__device__ __forceinline__ void products_begin_at(float *d, const uint32_t *a, uint32_t tile) {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int k = 0; k < kind<FP8>::STEPS; k++) {
        const uint32_t b = tile + k / 4 * (512 * TOKENS) + k % 4 * 2; /* 32 bytes further; the second half of f16 */
        if constexpr (FP8 && TOKENS == 1)
            HM_PRODUCT("m64n64k32.f32.e4m3.e4m3", HM_R32, "%32, %33, %34, %35", "%36", "%37", ", 1, 1", HM_D32(0));
        else if constexpr (TOKENS == 1)
            HM_PRODUCT("m64n64k16.f32.f16.f16", HM_R32, "%32, %33, %34, %35", "%36", "%37", ", 1, 1, 0", HM_D32(0));
        else if constexpr (FP8)
            HM_PRODUCT("m64n128k32.f32.e4m3.e4m3", HM_R64, "%64, %65, %66, %67", "%68", "%69", ", 1, 1", HM_D32(0),
                       HM_D32(32));
        else
            HM_PRODUCT("m64n128k16.f32.f16.f16", HM_R64, "%64, %65, %66, %67", "%68", "%69", ", 1, 1, 0", HM_D32(0),
                       HM_D32(32));
    }
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <bool FP8, int TOKENS>
__device__ __forceinline__ void products_begin(float *d, const uint32_t *a, uint32_t query) {
    products_begin_at<FP8, TOKENS>(d, a, queries_at(query));
}
#undef HM_PRODUCT
#undef HM_R32
#undef HM_R64

template <int TOKENS>
__device__ __forceinline__ void products_wait(float *d) {
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    if constexpr (TOKENS == 1) asm volatile("" : HM_D32(0)::"memory");
    else asm volatile("" : HM_D32(0), HM_D32(32)::"memory");
}
#undef HM_D32
#undef HM_D4

/* ---- tiles ------------------------------------------------------------------------------------------------------- */

/* Codes 4 word to 4 word + 3 of a head, where the product finds them. */
template <bool FP8>
__device__ __forceinline__ void put_word(uint8_t *tile, int head, int word, uint32_t codes, bool fnuz) {
    const int j = word % 4, t = word / 4 % 4, half = word / 16;
    if (FP8) {
        *(uint32_t *)(tile + head * 128 + ((half * 4 + j) ^ (head & 7)) * 16 + 4 * t) = codes;
        return;
    }
    uint32_t low, high;
    widen_codes(codes, fnuz, &low, &high);
    uint8_t *row = tile + half * 8192 + head * 128 + 4 * t;
    *(uint32_t *)(row + ((2 * j) ^ (head & 7)) * 16) = low;
    *(uint32_t *)(row + ((2 * j + 1) ^ (head & 7)) * 16) = high;
}

/* A key's two rows of registers, 8 words each, as the product wants them. */
template <bool FP8, bool FNUZ>
__device__ __forceinline__ void take_keys(uint32_t *a, const uint32_t *first, const uint32_t *second) {
#pragma unroll
    for (int k = 0; k < kind<FP8>::STEPS; k++) {
        if (FP8) {
            a[4 * k] = first[2 * k], a[4 * k + 1] = second[2 * k];
            a[4 * k + 2] = first[2 * k + 1], a[4 * k + 3] = second[2 * k + 1];
        } else {
            widen_codes<FNUZ>(first[k], &a[4 * k], &a[4 * k + 2]);
            widen_codes<FNUZ>(second[k], &a[4 * k + 1], &a[4 * k + 3]);
        }
    }
}

template <bool FP8>
__device__ __forceinline__ void take_keys(uint32_t *a, const uint32_t *first, const uint32_t *second, bool fnuz) {
    if (!FP8 && fnuz) take_keys<FP8, true>(a, first, second);
    else take_keys<FP8, false>(a, first, second);
}

/* The weight of a head is where the thread of a quad that has its scores finds 16 bytes of its own. */
__device__ __forceinline__ int weight_place(int head) {
    const int t = head % 8 / 2, q = head / 8 * 2 + head % 2;
    return q / 4 * 16 + t * 4 + q % 4;
}
__device__ __forceinline__ void load_weights(float *w, const float *weight, int t) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const float4 four = *(const float4 *)(weight + j * 16 + t * 4);
        w[4 * j] = four.x, w[4 * j + 1] = four.y, w[4 * j + 2] = four.z, w[4 * j + 3] = four.w;
    }
}

/* What a thread has of the sums over heads, of its two keys: with N of its heads more. */
template <int N>
__device__ __forceinline__ void add_heads(const float *d, const float *w, float *sum) {
#pragma unroll
    for (int i = 0; i < 2 * N; i++) sum[i / 2 % 2] = __fmaf_rn(w[i / 4 * 2 + i % 2], fmaxf(d[i], 0.0f), sum[i / 2 % 2]);
}
__device__ __forceinline__ void sum_heads(const float *d, const float *w, float *sum) {
    sum[0] = sum[1] = 0.0f;
    add_heads<16>(d, w, sum);
}

/* One addition with the neighbour in the quad of each of two sums; odd threads keep the second. */
__device__ __forceinline__ float share_pair(const float *sum, int t) {
    const float mine = t & 1 ? sum[1] : sum[0], other = t & 1 ? sum[0] : sum[1];
    return __fadd_rn(mine, __shfl_xor_sync(~0u, other, 1));
}

#endif

/* ---- decode ------------------------------------------------------------------------------------------------------ */

/* A block has two warpgroups that score, each a tile of 64 keys at a time, and a warp that brings tiles and writes -inf
 * where there is no key; a processor has two blocks. All tiles of all requests are one sequence, of which blocks have
 * parts. Memory does not serve all processors equally: of many tiles a sixteenth is left to a second wave of blocks,
 * for which the first have room as they end. Tokens of a request go together, up to MOST_TOKENS of them, while the
 * keys are in registers. */
enum {
    PAGED_GROUPS = 2,
    PAGED_THREADS = 128 * PAGED_GROUPS + 32,
    PAGED_RESIDENT = 2, /* blocks of a processor */
    PAGED_STAGES = 8,   /* at most; more of them, and processors end further apart */
    MANY_TILES = 64,    /* a block, from which on there is a second wave */
    TOGETHER = 4,       /* tiles whose blocks are looked up at a time */
    STAGE_SCALES = 64 * DIM,
    STAGE_BYTES = 64 * (DIM + 4),
    MOST_TOKENS = 4,
    FILL = 1024 /* elements of -inf that a warp writes at a time */
};

struct paged_shared {
    uint64_t full[PAGED_STAGES], empty[PAGED_STAGES];
    float weight[MOST_TOKENS][HEADS];
    float *out[MOST_TOKENS]; /* rows */
    int end[MOST_TOKENS];    /* columns of each token that have a key, and are written */
    int bad_page[2];         /* of a segment, the first whose block is not there; segments take turns */
    int sum[PAGED_THREADS / 32];
    int segment, tile, count; /* the block's part: where its first tile is, and how many they are */
};

/* Fewer where the queries of many tokens have their place: a multiple of PAGED_GROUPS. */
__host__ __device__ static inline int paged_stages(bool fp8, int64_t next_n) {
    return fp8 || next_n < 3 ? (int)PAGED_STAGES : next_n == 3 ? 6 : 4;
}
static inline size_t paged_bytes(bool fp8, int64_t next_n) {
    const size_t tokens = next_n < MOST_TOKENS ? (size_t)next_n : (size_t)MOST_TOKENS;
    return 1024 + tokens * (fp8 ? 8192 : 16384) + paged_stages(fp8, next_n) * STAGE_BYTES + sizeof(paged_shared);
}
/* Waves, of `wide` blocks each. */
__host__ __device__ static inline int paged_waves(uint32_t tiles, uint32_t wide) {
    return tiles < MANY_TILES * wide ? 1 : 2;
}
/* The tiles before those of a block; block `waves * wide` is the end. */
__host__ __device__ static inline uint32_t tiles_before(uint32_t tiles, uint32_t wide, uint32_t block) {
    const uint32_t waves = (uint32_t)paged_waves(tiles, wide), first = waves == 1 ? tiles : tiles - tiles / 16;
    if (block >= waves * wide) return tiles;
    return block < wide ? (uint32_t)((uint64_t)first * block / wide)
                        : first + (uint32_t)((uint64_t)(tiles - first) * (block - wide) / wide);
}

#if __CUDA_ARCH_FEAT_SM90_ALL

/* Tokens of a request that go together: a segment. Rows, tiles and segments are counted below 2^31: launch_paged. */
struct segment {
    int request, first, tokens; /* first: token of the request */
    int end;                    /* keys of the token that sees the most */
    __device__ __forceinline__ int tiles() const { return (end + 63) / 64; }
};

__device__ __forceinline__ segment segment_of(const logits_params &p, int i) {
    const int next_n = (int)p.next_n.d, groups = (next_n + MOST_TOKENS - 1) / MOST_TOKENS;
    const int request = groups == 1 ? i : (int)((uint32_t)i / (uint32_t)groups),
              first = (i - request * groups) * MOST_TOKENS;
    segment s = {request, first, min(next_n - first, (int)MOST_TOKENS), 0};
#pragma unroll 1
    for (int k = p.length_each ? 0 : s.tokens - 1; k < s.tokens; k++)
        s.end = max(s.end, (int)paged_end(p, request, first + k));
    return s;
}

/* The block's part of all tiles; wide: blocks of a wave. Whole block. */
__device__ __forceinline__ void share_out(const logits_params &p, int segments, uint32_t wide, paged_shared &s) {
    const int each = (segments + PAGED_THREADS - 1) / PAGED_THREADS, from = threadIdx.x * each;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, to = min(from + each, segments);
    int mine = 0;
#pragma unroll 1
    for (int i = from; i < to; i++) mine += segment_of(p, i).tiles();
    int sum = mine;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(~0u, sum, step);
        if (lane >= step) sum += other;
    }
    if (lane == 31) s.sum[warp] = sum;
    __syncthreads();
    const int of_warp = lane < PAGED_THREADS / 32 ? s.sum[lane] : 0;
    const uint32_t all = __reduce_add_sync(~0u, (uint32_t)of_warp);
    const int before = sum - mine + (int)__reduce_add_sync(~0u, (uint32_t)(lane < warp ? of_warp : 0));
    const int low = (int)tiles_before(all, wide, blockIdx.x), high = (int)tiles_before(all, wide, blockIdx.x + 1);
    if (threadIdx.x == 0) s.count = high - low;
    if (low < high && before <= low && low < before + mine) {
        int at = low - before, i = from;
#pragma unroll 1
        for (int tiles; at >= (tiles = segment_of(p, i).tiles()); i++) at -= tiles;
        s.segment = i, s.tile = at;
    }
    __syncthreads();
}

/* Where key `key` of a tile begins in its stage. */
__device__ __forceinline__ int key_byte(bool shuffle, int key) {
    return shuffle ? key / 16 * 2048 + key % 16 * 16 : key * DIM;
}

/* A tile that does not lie in pieces of 16 bytes, or whose blocks are not of 16 keys: byte by byte. A warp. */
__device__ __noinline__ void bring_bytes(const logits_params &p, uint8_t *to, const segment &of, int tile) {
#pragma unroll 1
    for (int key = threadIdx.x % 32; key < 64; key += 32) {
        key_place from = {nullptr, nullptr};
        if (tile * 64 + key < of.end) from = key_of<true>(p, of.request, tile * 64 + key);
        if (!from.code) continue;
#pragma unroll 1
        for (int d = 0; d < DIM; d++)
            to[key_byte(p.shuffle, key) + d / 16 * (p.shuffle ? 256 : 16) + d % 16] =
                from.code[code_offset<true>(p, d)];
        *(float *)(to + STAGE_SCALES + 4 * key) = scale_at(p, from.scale);
    }
}

/* Do keys come 16 at a time, by bulk copies? */
__device__ __forceinline__ bool comes_in_pieces(const logits_params &p) {
    return p.key_pieces && (int)p.block_size.d % 16 == 0;
}

/* Brings the block's tiles, one after the other. A warp: eight lanes have a tile, each the codes or the scales of as
 * many of its keys as lie in one block; of blocks of 64 keys, codes and scales are one copy. Copies are begun lane by
 * lane: the fewer the better. A piece whose block is not there is left out: its rows are not written. */
__device__ __forceinline__ void bring_pages(const logits_params &p, paged_shared &s, uint8_t *stages, int stage_count) {
    const int lane = threadIdx.x % 32, piece = lane % 4, mine = lane / 8, block_size = (int)p.block_size.d;
    const int size = block_size % 64 == 0 ? 64 : block_size % 32 == 0 ? 32 : 16;
    const bool scales = lane & 4, pieces = comes_in_pieces(p), at_once = block_size == 64;
    const bool works = piece < 64 / size && !(at_once && scales);
    const int offset_to = (scales ? STAGE_SCALES : 0) + piece * size * (scales ? 4 : DIM);
    const uint32_t bytes = size * (at_once ? DIM + 4 : scales ? 4 : DIM);
    const uint64_t policy = read_once();
    const int count = s.count;
    int i = s.segment, tile = s.tile, stage = 0;
    uint32_t parity = 1;
    const auto next_stage = [&]() {
        if (++stage == stage_count) stage = 0, parity ^= 1;
    };
#pragma unroll 1
    for (int n = 0; n < count; i++, tile = 0) {
        const segment of = segment_of(p, i);
        const int tiles = min(of.tiles() - tile, count - n);
        if (!pieces) {
#pragma unroll 1
            for (int k = 0; k < tiles; k++, n++) {
                barrier_wait(&s.empty[stage], parity);
                bring_bytes(p, stages + stage * STAGE_BYTES, of, tile + k);
                barrier_arrive(&s.full[stage]);
                next_stage();
            }
            continue;
        }
        const int32_t *table = p.table + of.request * p.table_stride;
        int k = mine, key = (tile + k) * 64 + piece * size, page = 0;
        int64_t block = -1;
        const auto look_up = [&]() {
            block = -1;
            if (!works || k >= tiles || key >= of.end) return;
            page = (int)quotient32(p.block_size, (uint32_t)key);
            block = table[page * p.table_step];
        };
        look_up();
#pragma unroll 1
        for (int first = 0; first < tiles; first += TOGETHER) {
            const bool there = block >= 0 && block < p.num_blocks;
            const int offset = key - page * block_size;
            const uint8_t *from = p.k + block * p.block_stride + (scales ? p.scale_byte + 4 * offset : offset * DIM);
            const uint32_t all = __ballot_sync(~0u, there);
            k += TOGETHER, key += 64 * TOGETHER;
            look_up();
#pragma unroll 1
            for (int now = 0; now < min(tiles - first, (int)TOGETHER); now++, next_stage()) {
                barrier_wait(&s.empty[stage], parity);
                if (lane == 0) barrier_expect(&s.full[stage], __popc(all >> (8 * now) & 15) * size * (DIM + 4));
                __syncwarp();
                if (there && mine == now)
                    copy_bytes(stages + stage * STAGE_BYTES + offset_to, from, bytes, &s.full[stage], policy);
            }
        }
        n += tiles;
    }
}

/* -inf behind the keys of every row. A warp of each block. */
template <typename F>
__device__ __forceinline__ void clean_rows(const logits_params &p, const F &known) {
    const uint32_t parts = (uint32_t)((p.width + FILL - 1) / FILL), lane = threadIdx.x % 32;
#pragma unroll 1
    for (uint32_t u = blockIdx.x; u < (uint32_t)p.row_count * parts; u += gridDim.x) {
        const uint32_t row = parts == 1 ? u : u / parts, request = quotient32(p.next_n, row);
        const int from = (int)((u - row * parts) * FILL), to = (int)min((int64_t)from + FILL, p.width);
        const int end = (int)paged_end(p, request, row - request * (uint32_t)p.next_n.d);
        if (end < 0 || end >= to || !known(row)) continue;
        const int bad = first_bad_page(p, request, pages_of(p, end), (int)lane, 32);
        if (__any_sync(~0u, bad < INT_MAX)) continue;
        float *out = p.logits + row * p.logits_row;
#pragma unroll 4
        for (int i = max(from, end) + (int)lane; i < to; i += 32) out[i * p.logits_step] = __uint_as_float(0xff800000u);
    }
}

#endif

/* Queries that lie in memory as codes. */
struct paged_plain_queries {
    enum { PLAIN = 1 };
    using params = logits_params;
    static void set_end(params &p, int64_t end) { p.end = end; }
    static __device__ __forceinline__ const logits_params &of(const params &p) { return p; }
#if __CUDA_ARCH_FEAT_SM90_ALL
    /* What a thread has of a token, between memory and shared memory: pieces of 16 codes. */
    enum { THREADS = 128 * PAGED_GROUPS, PIECES = HEADS * DIM / 16 / THREADS };
    struct held {
        uint32_t word[PIECES][4];
        float weight;
    };
    static __device__ __noinline__ uint32_t gather(const uint8_t *from, int64_t step) {
        return from[0] | (uint32_t)from[step] << 8 | (uint32_t)from[2 * step] << 16 | (uint32_t)from[3 * step] << 24;
    }
    static __device__ __forceinline__ held load(const params &p, int request, int token) {
        const int c = threadIdx.x % 8, head = threadIdx.x / 8;
        const uint8_t *q = p.q + request * p.q_batch + token * p.q_token + head * p.q_head + 16 * c * p.q_step;
        const int64_t row = (int64_t)request * p.next_n.d + token;
        held h;
        h.weight = threadIdx.x < p.heads ? p.weights[row * p.weights_row + threadIdx.x * p.weights_step] : 0.0f;
#pragma unroll
        for (int n = 0; n < PIECES; n++, q += THREADS / 8 * p.q_head) {
            *(uint4 *)h.word[n] = make_uint4(0, 0, 0, 0);
            if (head + n * (THREADS / 8) >= p.heads) continue;
            if (p.q_pieces) *(uint4 *)h.word[n] = *(const uint4 *)q;
            else
                for (int i = 0; i < 4; i++) h.word[n][i] = gather(q + 4 * i * p.q_step, p.q_step);
        }
        return h;
    }
    template <bool FP8, bool FNUZ>
    static __device__ __forceinline__ void put_pieces(const held &h, uint8_t *tile) {
        const int c = threadIdx.x % 8, head = threadIdx.x / 8;
#pragma unroll
        for (int n = 0; n < PIECES; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) put_word<FP8>(tile, head + n * (THREADS / 8), 4 * c + i, h.word[n][i], FNUZ);
    }
    /* To the tile that the product reads, and to the weights of the token. */
    template <bool FP8>
    static __device__ __forceinline__ void put(const params &p, const held &h, uint8_t *tile, float *weight) {
        if (!FP8 && p.fnuz) put_pieces<FP8, true>(h, tile);
        else put_pieces<FP8, false>(h, tile);
        if (threadIdx.x < HEADS) weight[weight_place(threadIdx.x)] = h.weight;
    }
    static __device__ __forceinline__ bool known(const params &, int64_t) { return true; }
#endif
};

#if __CUDA_ARCH_FEAT_SM90_ALL

/* Loads with addresses of 32 bits, which the compiler does not take apart: registers are few here. */
template <int OFFSET>
__device__ __forceinline__ void load_four(uint32_t *to, uint32_t address) {
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4+%5];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address), "n"(OFFSET)
                 : "memory");
}
__device__ __forceinline__ float load_one(uint32_t address) {
    float v;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(address) : "memory");
    return v;
}

/* Where a warpgroup is in its block's tiles. */
struct paged_turn {
    int stage, left, column; /* left: tiles of the segment; column: that the thread writes */
    uint32_t parity;
};

/* The warpgroup's tiles of a segment. USUAL: one token, keys in copies and in their order, logits next to each other.
 * All keys of a tile begin at the same bank, so that of two keys next to each other one is read second half first:
 * 8 threads read 128 bytes of all banks. */
template <bool FP8, bool USUAL>
__device__ __forceinline__ void score_segment(const logits_params &p, paged_shared &s, uint8_t *tiles, uint8_t *stages,
                                              int stage_count, int tokens, paged_turn &at) {
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const bool shuffle = !USUAL && p.shuffle, swap = g & 1;
    const int half = shuffle ? 1024 : 64, apart = shuffle ? 128 : 8 * DIM; /* to the other half, and key */
    const int first = warp * 16 + g, own = first + (t & 1) * 8;
    const int from = (key_byte(shuffle, first) + t * (half / 4)) ^ (swap ? half : 0);
    const bool lead = USUAL ? lane == 0 : lane == 0 || !comes_in_pieces(p);
    const uint32_t queries = queries_at(shared_address(tiles)), weights = shared_address(s.weight[0]) + 16 * t;
    const uint32_t scales = shared_address(stages) + STAGE_SCALES + 4 * own;
    const int usual_end = s.end[0];
    float *usual_out = s.out[0] + at.column;
#pragma unroll 1
    for (; at.left > 0; at.left -= PAGED_GROUPS, at.column += 64 * PAGED_GROUPS, usual_out += 64 * PAGED_GROUPS) {
        const uint32_t stage = shared_address(stages) + at.stage * STAGE_BYTES, one = stage + from,
                       two = stage + (from ^ half);
        barrier_wait(&s.full[at.stage], at.parity);
        uint32_t mine[2][4], other[2][4], raw[2][8], a[kind<FP8>::REGISTERS];
        const float scale = load_one(scales + at.stage * STAGE_BYTES);
        load_four<0>(mine[0], one), load_four<0>(other[0], two);
        if (USUAL) load_four<8 * DIM>(mine[1], one), load_four<8 * DIM>(other[1], two);
        else load_four<0>(mine[1], one + apart), load_four<0>(other[1], two + apart);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            raw[i / 4][i % 4] = swap ? other[i / 4][i % 4] : mine[i / 4][i % 4];
            raw[i / 4][i % 4 + 4] = swap ? mine[i / 4][i % 4] : other[i / 4][i % 4];
        }
        uint64_t *empty = &s.empty[at.stage];
        if ((at.stage += PAGED_GROUPS) >= stage_count) at.stage -= stage_count, at.parity ^= 1;
        if (USUAL) take_keys<FP8, false>(a, raw[0], raw[1]);
        else take_keys<FP8>(a, raw[0], raw[1], p.fnuz);
#pragma unroll
        for (int i = 0; i < kind<FP8>::REGISTERS; i++) asm volatile("" : "+r"(a[i])); /* before the fence of products */
#pragma unroll 1
        for (int token = 0; token < (USUAL ? 1 : tokens); token++) {
            float d[32], w[2][4], sum[2] = {0.0f, 0.0f};
            products_begin_at<FP8, 1>(d, a, queries + token * (kind<FP8>::QUERY_BYTES / 16));
            /* Not before a product has the keys: an arrival right behind their loads let the next tile into this
             * one. */
            if (USUAL || token == 0) {
                __syncwarp();
                if (lead) barrier_arrive(empty);
            }
            const uint32_t of_token = weights + token * (4 * HEADS);
            load_four<0>((uint32_t *)w[0], of_token);
            const int end = USUAL ? usual_end : s.end[token];
            float *out = USUAL ? usual_out : s.out[token] + at.column * p.logits_step;
            products_wait<1>(d);
            load_four<64>((uint32_t *)w[1], of_token), add_heads<4>(d, w[0], sum);
            load_four<128>((uint32_t *)w[0], of_token), add_heads<4>(d + 8, w[1], sum);
            load_four<192>((uint32_t *)w[1], of_token), add_heads<4>(d + 16, w[0], sum);
            add_heads<4>(d + 24, w[1], sum);
            float v = share_pair(sum, t);
            v = __fadd_rn(v, __shfl_xor_sync(~0u, v, 2));
            if (t < 2 && at.column < end) *out = __fmul_rn(v, scale);
        }
    }
}

#endif

template <bool FP8, typename QUERIES>
__global__ void __launch_bounds__(PAGED_THREADS, PAGED_RESIDENT)
    score_pages(const __grid_constant__ typename QUERIES::params all) {
#if __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ uint8_t memory[];
    const logits_params &p = QUERIES::of(all);
    uint8_t *tiles = memory + (-(intptr_t)shared_address(memory) & 1023);
    const int most = (int)min(p.next_n.d, (int64_t)MOST_TOKENS), stage_count = paged_stages(FP8, p.next_n.d);
    uint8_t *stages = tiles + most * kind<FP8>::QUERY_BYTES;
    paged_shared &s = *(paged_shared *)(stages + stage_count * STAGE_BYTES);
    const int groups = ((int)p.next_n.d + MOST_TOKENS - 1) / MOST_TOKENS;
    const bool pieces = comes_in_pieces(p);
    if (threadIdx.x == 0) {
        for (int i = 0; i < stage_count; i++)
            barrier_init(&s.full[i], pieces ? 1 : 32), barrier_init(&s.empty[i], pieces ? 4 : 128);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    wait_for_previous();
    let_next_start();
    share_out(p, (int)quotient32(p.next_n, (uint32_t)p.row_count) * groups, (uint32_t)p.end, s);
    const int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    if (group == PAGED_GROUPS) {
        bring_pages(p, s, stages, stage_count);
        if (p.clean) clean_rows(p, [&](int64_t row) { return QUERIES::known(all, row); });
        return;
    }
    const int count = s.count;
    const int own = warp * 16 + lane / 4 + (lane & 1) * 8; /* key of a tile that the thread writes */
    const bool usual = pieces && !p.shuffle && !p.fnuz && p.logits_step == 1;
    int i = s.segment, tile = s.tile, turn = 0;
    paged_turn at = {group, 0, 0, 0};
    if (threadIdx.x == 0) s.bad_page[0] = INT_MAX;
#pragma unroll 1
    for (int n = 0; n < count; i++, tile = 0) {
        const segment of = segment_of(p, i);
        const int here = min(of.tiles() - tile, count - n);
        if (here <= 0) continue;
        sync_some(1, 128 * PAGED_GROUPS); /* the segment before this one is done with what is in shared memory */
        typename QUERIES::held held = QUERIES::load(all, of.request, of.first);
        const int bad = first_bad_page(p, of.request, pages_of(p, of.end), threadIdx.x, 128 * PAGED_GROUPS);
        if (bad < INT_MAX) atomicMin(&s.bad_page[turn], bad);
        QUERIES::template put<FP8>(all, held, tiles, s.weight[0]);
#pragma unroll 1
        for (int token = 1; token < of.tokens; token++) {
            held = QUERIES::load(all, of.request, of.first + token);
            QUERIES::template put<FP8>(all, held, tiles + token * kind<FP8>::QUERY_BYTES, s.weight[token]);
        }
        fence_for_async();
        sync_some(1, 128 * PAGED_GROUPS);
        if (threadIdx.x < of.tokens) {
            const int64_t row = (int64_t)of.request * p.next_n.d + of.first + threadIdx.x;
            const int end = max((int)paged_end(p, of.request, of.first + threadIdx.x), 0);
            const bool sound = QUERIES::known(all, row) && pages_of(p, end) <= s.bad_page[turn];
            s.end[threadIdx.x] = sound ? end : 0; /* the other rows stay as they are */
            s.out[threadIdx.x] = p.logits + row * p.logits_row;
        }
        sync_some(1, 128 * PAGED_GROUPS);
        if (threadIdx.x == 0) s.bad_page[turn ^ 1] = INT_MAX;
        at.left = here - (group + n) % PAGED_GROUPS, at.column = (tile + here - at.left) * 64 + own;
        n += here, turn ^= 1;
        if (usual && of.tokens == 1) score_segment<FP8, true>(p, s, tiles, stages, stage_count, 1, at);
        else score_segment<FP8, false>(p, s, tiles, stages, stage_count, of.tokens, at);
    }
#endif
}

/* Few tiles: each is a block's, and what it needs is asked for as soon as it can be: the length, the table and the
 * queries first, the keys behind them, straight to registers. Bits as those of score_pages. Little code, since it is
 * fetched as it runs: e4m3, blocks of a multiple of 16 keys, everything in pieces of 16 bytes. */
enum { TILE_THREADS = 128, TILE_ENTRIES = 2 /* of the table, that a thread reads before it knows the length */ };

/* stride: of 32 bits. */
__device__ __forceinline__ int64_t steps(int i, int64_t stride) { return (int64_t)i * (int)stride; }

template <bool FP8>
__global__ void __launch_bounds__(TILE_THREADS) score_tile(const __grid_constant__ logits_params p) {
#if __CUDA_ARCH_FEAT_SM90_ALL
    __shared__ __align__(1024) uint8_t tile[kind<FP8>::QUERY_BYTES];
    __shared__ __align__(16) float weights[HEADS];
    const int thread = threadIdx.x, warp = thread / 32, g = thread % 32 / 4, t = thread % 4;
    const int row = (int)quotient32(p.tiles, blockIdx.x), request = (int)quotient32(p.next_n, (uint32_t)row);
    const int token = row - request * (int)p.next_n.d;
    const int column = ((int)blockIdx.x - row * (int)p.tiles.d) * 64, key = column + warp * 16;
    const int page = (int)quotient32(p.block_size, (uint32_t)key), offset = key - page * (int)p.block_size.d;
    const int most = (int)p.max_blocks;
    const uint32_t num_blocks = (uint32_t)p.num_blocks;
    const int32_t *table = p.table + steps(request, p.table_stride);
    wait_for_previous();
    let_next_start();
    const int32_t length = p.ends[steps(request, p.end_step) + steps(token, p.end_token)];
    const int block = page < most ? table[steps(page, p.table_step)] : -1;
    int entry[TILE_ENTRIES];
#pragma unroll
    for (int n = 0; n < TILE_ENTRIES; n++) {
        const int i = n * TILE_THREADS + thread;
        entry[n] = i < most ? table[steps(i, p.table_step)] : 0;
    }
    uint4 piece[4];
    const int c = thread % 8, head = thread / 8, heads = (int)p.heads;
    const uint8_t *q = p.q + steps(request, p.q_batch) + steps(token, p.q_token) + steps(head, p.q_head) + 16 * c;
#pragma unroll
    for (int n = 0; n < 4; n++, q += steps(16, p.q_head)) {
        piece[n] = make_uint4(0, 0, 0, 0);
        if (head + 16 * n < heads) piece[n] = *(const uint4 *)q;
    }
    const float weight = thread < heads ? p.weights[steps(row, p.weights_row) + steps(thread, p.weights_step)] : 0.0f;
    __syncwarp(); /* all of these are under way before one is waited for */
    const int end = (int)end_of(p, length, token);
    /* What no length asks for is not read, wherever the table points. */
    const int own = key + g, out_key = own + (t & 1) * 8, pitch = p.shuffle ? 256 : 16;
    const bool there = (uint32_t)block < num_blocks;
    const uint8_t *from = p.k + steps(block, p.block_stride),
                  *code = from + offset * DIM + g * (p.shuffle ? 16 : DIM) + t * pitch;
    uint32_t raw[2][8];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint4 *to = (uint4 *)(raw[i / 2] + i % 2 * 4);
        *to = make_uint4(0, 0, 0, 0);
        if (there && own + i / 2 * 8 < end)
            *to = *(const uint4 *)(code + i / 2 * (p.shuffle ? 128 : 8 * DIM) + i % 2 * 4 * pitch);
    }
    float scale = 0.0f;
    if (there && out_key < end) scale = *(const float *)(from + (int)p.scale_byte + 4 * (offset + out_key - key));
    const int pages = pages_of(p, end);
    bool bad = false;
#pragma unroll
    for (int n = 0; n < TILE_ENTRIES; n++) bad |= n * TILE_THREADS + thread < pages && (uint32_t)entry[n] >= num_blocks;
#pragma unroll 1
    for (int i = TILE_ENTRIES * TILE_THREADS + thread; i < pages; i += TILE_THREADS)
        bad |= (uint32_t)table[steps(i, p.table_step)] >= num_blocks;
#pragma unroll
    for (int n = 0; n < 4; n++) {
        const uint32_t word[4] = {piece[n].x, piece[n].y, piece[n].z, piece[n].w};
#pragma unroll
        for (int i = 0; i < 4; i++) put_word<FP8>(tile, head + 16 * n, 4 * c + i, word[i], false);
    }
    if (thread < HEADS) weights[weight_place(thread)] = weight;
    fence_for_async();
    if (__syncthreads_or(bad) || end < 0) return;
    float *out = p.logits + steps(row, p.logits_row) + steps(out_key, p.logits_step);
    if (column < end) {
        uint32_t a[kind<FP8>::REGISTERS];
        float d[32], w[16], sum[2];
        take_keys<FP8, false>(a, raw[0], raw[1]);
        products_begin<FP8, 1>(d, a, shared_address(tile));
        load_weights(w, weights, t);
        products_wait<1>(d);
        sum_heads(d, w, sum);
        float v = share_pair(sum, t);
        v = __fadd_rn(v, __shfl_xor_sync(~0u, v, 2));
        if (t < 2 && out_key < end) *out = __fmul_rn(v, scale);
    }
    if (p.clean && t < 2 && out_key >= end && out_key < p.width) *out = __uint_as_float(0xff800000u);
#endif
}

/* As many blocks of a tile as an H200 has room for at once. */
enum { FEW_TILES = 528 };

/* What score_tile can do, and does sooner than score_pages. */
static inline bool few_tiles(const logits_params &p) {
    const int64_t strides[] = {
        p.q_batch,      p.q_token,      p.q_head,     p.weights_row, p.weights_step,
        p.block_stride, p.table_stride, p.end_step,   p.table_step,  p.end_token,
        p.logits_row,   p.logits_step,  p.num_blocks, p.max_blocks,  p.block_size.d * HM_INDEXER_ENTRY};
    for (int64_t stride : strides)
        if (stride != (int32_t)stride) return false;
    return p.end <= FEW_TILES && p.heads <= HEADS && p.key_pieces && p.block_size.d % 16 == 0 && p.q_pieces &&
           !p.fnuz && p.num_blocks > 0;
}

/* FAST: queries for score_pages; ANY: for score_any. */
template <bool FP8, typename FAST, typename ANY>
static hm_status launch_paged(const char *op, const typename FAST::params &all, const logits_params &p, void *stream) {
    if constexpr (FAST::PLAIN)
        if (few_tiles(p) && has_90a<score_tile<FP8>>(0))
            return launch(op, score_tile<FP8>, p.end, dim3(TILE_THREADS), 0, stream, p);
    const bool small = few(p.row_count) && few(p.width) && few(p.block_size.d) && few(p.row_count * (p.width / 64 + 1));
    if (small && p.heads <= HEADS && p.num_blocks > 0 &&
        has_90a<score_pages<FP8, FAST>>(paged_bytes(FP8, MOST_TOKENS))) {
        const int64_t segments = p.row_count / p.next_n.d * ((p.next_n.d + MOST_TOKENS - 1) / MOST_TOKENS);
        const uint32_t wide = (uint32_t)(PAGED_RESIDENT * hm_cuda_processors());
        typename FAST::params with = all;
        FAST::set_end(with, wide);
        const int waves = paged_waves((uint32_t)(segments * ((p.width + 63) / 64)), wide);
        return launch(op, score_pages<FP8, FAST>, (int64_t)(wide * waves), dim3(PAGED_THREADS),
                      paged_bytes(FP8, p.next_n.d), stream, with);
    }
    return launch(op, score_any<true, ANY>, p.end, dim3(ANY_THREADS), 0, stream, all);
}

} // namespace hm

#endif
