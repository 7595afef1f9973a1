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

/* What a thread has of the sums over heads, of its two keys. */
__device__ __forceinline__ void sum_heads(const float *d, const float *w, float *sum) {
    sum[0] = sum[1] = 0.0f;
#pragma unroll
    for (int i = 0; i < 32; i++) sum[i / 2 % 2] = __fmaf_rn(w[i / 4 * 2 + i % 2], fmaxf(d[i], 0.0f), sum[i / 2 % 2]);
}

/* One addition with the neighbour in the quad of each of two sums; odd threads keep the second. */
__device__ __forceinline__ float share_pair(const float *sum, int t) {
    const float mine = t & 1 ? sum[1] : sum[0], other = t & 1 ? sum[0] : sum[1];
    return __fadd_rn(mine, __shfl_xor_sync(~0u, other, 1));
}

#endif

/* ---- decode ------------------------------------------------------------------------------------------------------ */

/* A block has three warpgroups that score, each a tile of 64 keys at a time, a warp that brings tiles, and three that
 * write -inf where there is no key. All tiles of all requests are one sequence, of which each block has an equal part.
 * Tokens of a request go together, up to MOST_TOKENS of them, while the keys are in registers. */
enum {
    PAGED_GROUPS = 3,
    PAGED_THREADS = 128 * (PAGED_GROUPS + 1),
    PAGED_STAGES = 12,
    TOGETHER = 4,           /* tiles that are asked for at a time */
    HALF_BYTES = 4096 + 64, /* 32 keys; 64 more, so that both halves can be read at once */
    STAGE_BYTES = 67 * 128,
    STAGE_SCALES = 2 * HALF_BYTES,
    MOST_TOKENS = 4,
    FILL = 1024 /* elements of -inf that a warp writes at a time */
};

struct paged_shared {
    uint64_t full[PAGED_STAGES], empty[PAGED_STAGES];
    float weight[MOST_TOKENS][HEADS];
    int end[MOST_TOKENS]; /* columns of each token that have a key */
    int bad_page[2];      /* of a segment, the first whose block is not there; segments take turns */
    int sum[PAGED_THREADS / 32];
    int segment, tile, count; /* the block's part: where its first tile is, and how many they are */
};

static inline size_t paged_bytes(bool fp8, int64_t next_n) {
    const size_t tokens = next_n < MOST_TOKENS ? (size_t)next_n : (size_t)MOST_TOKENS;
    return 1024 + tokens * (fp8 ? 8192 : 16384) + PAGED_STAGES * STAGE_BYTES + sizeof(paged_shared);
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

/* The block's part of all tiles. Whole block. */
__device__ __forceinline__ void share_out(const logits_params &p, int segments, paged_shared &s) {
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
    const uint32_t each_block = all / gridDim.x, rest = all % gridDim.x;
    const int low = (int)(each_block * blockIdx.x + rest * blockIdx.x / gridDim.x);
    const int high = (int)(each_block * (blockIdx.x + 1) + rest * (blockIdx.x + 1) / gridDim.x);
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
    return key / 32 * HALF_BYTES + (shuffle ? key % 32 / 16 * 2048 + key % 16 * 16 : key % 32 * 128);
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

/* Brings the block's tiles, one after the other. A warp: each lane has a piece of 16 keys, or its scales, of one of
 * TOGETHER tiles. A piece whose block is not there is left out: its rows are not written. */
__device__ __forceinline__ void bring_pages(const logits_params &p, paged_shared &s, uint8_t *stages) {
    const int lane = threadIdx.x % 32, piece = lane % 4, mine = lane / 8, block_size = (int)p.block_size.d;
    const bool scales = lane & 4, pieces = comes_in_pieces(p);
    const int offset_to = scales ? STAGE_SCALES + 64 * piece : key_byte(p.shuffle, piece * 16);
    const uint32_t bytes = scales ? 64 : 16 * DIM;
    const int count = s.count;
    int i = s.segment, tile = s.tile;
#pragma unroll 1
    for (int n = 0; n < count; i++, tile = 0) {
        const segment of = segment_of(p, i);
        const int tiles = min(of.tiles() - tile, count - n);
        if (!pieces) {
#pragma unroll 1
            for (int k = 0; k < tiles; k++, n++) {
                barrier_wait(&s.empty[n % PAGED_STAGES], (uint32_t)(n / PAGED_STAGES & 1) ^ 1);
                bring_bytes(p, stages + n % PAGED_STAGES * STAGE_BYTES, of, tile + k);
                barrier_arrive(&s.full[n % PAGED_STAGES]);
            }
            continue;
        }
        const int32_t *table = p.table + of.request * p.table_stride;
        int k = mine, key = (tile + k) * 64 + piece * 16, page = 0;
        int64_t block = -1;
        const auto look_up = [&]() {
            block = -1;
            if (k >= tiles || key >= of.end) return;
            page = (int)quotient32(p.block_size, (uint32_t)key);
            block = table[page * p.table_step];
        };
        look_up();
#pragma unroll 1
        for (int first = 0; first < tiles; first += TOGETHER) {
            const bool there = block >= 0 && block < p.num_blocks;
            const int offset = key - page * block_size, stage = (n + k) % PAGED_STAGES;
            const uint8_t *from = p.k + block * p.block_stride + (scales ? p.scale_byte + 4 * offset : offset * DIM);
            const uint32_t parity = (uint32_t)((n + k) / PAGED_STAGES & 1) ^ 1;
            const uint32_t all = __ballot_sync(~0u, there) >> (mine * 8) & 15u;
            const bool live = k < tiles;
            k += TOGETHER, key += 64 * TOGETHER;
            look_up();
            if (live) barrier_wait(&s.empty[stage], parity);
            if (live && lane % 8 == 0) barrier_expect(&s.full[stage], __popc(all) * (16 * DIM + 64));
            __syncwarp();
            if (there) copy_bytes(stages + stage * STAGE_BYTES + offset_to, from, bytes, &s.full[stage]);
        }
        n += tiles;
    }
}

/* -inf behind the keys of every row. Three warps of each block. */
template <typename F>
__device__ __forceinline__ void clean_rows(const logits_params &p, int warp, const F &known) {
    const uint32_t parts = (uint32_t)((p.width + FILL - 1) / FILL), lane = threadIdx.x % 32;
#pragma unroll 1
    for (uint32_t u = blockIdx.x * 3 + warp; u < (uint32_t)p.row_count * parts; u += gridDim.x * 3) {
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
    using params = logits_params;
    static __device__ __forceinline__ const logits_params &of(const params &p) { return p; }
#if __CUDA_ARCH_FEAT_SM90_ALL
    enum { ALL = HEADS * DIM / 4, WORDS = (ALL + 128 * PAGED_GROUPS - 1) / (128 * PAGED_GROUPS) };
    /* What a thread has of a token, between memory and shared memory. */
    struct held {
        uint32_t word[WORDS];
        float weight;
    };
    static __device__ __forceinline__ held load(const params &p, int request, int token) {
        const uint8_t *q = p.q + request * p.q_batch + token * p.q_token;
        const int64_t row = (int64_t)request * p.next_n.d + token;
        held h;
        h.weight = threadIdx.x < p.heads ? p.weights[row * p.weights_row + threadIdx.x * p.weights_step] : 0.0f;
#pragma unroll
        for (int n = 0; n < WORDS; n++) {
            const int i = n * 128 * PAGED_GROUPS + threadIdx.x, head = i / 32, word = i % 32;
            const uint8_t *from = q + head * p.q_head + 4 * word * p.q_step;
            h.word[n] = 0;
            if (i >= ALL || head >= p.heads) continue;
            if (p.q_words) h.word[n] = *(const uint32_t *)from;
            else
                h.word[n] = from[0] | (uint32_t)from[p.q_step] << 8 | (uint32_t)from[2 * p.q_step] << 16 |
                            (uint32_t)from[3 * p.q_step] << 24;
        }
        return h;
    }
    /* To the tile that the product reads, and to the weights of the token. */
    template <bool FP8>
    static __device__ __forceinline__ void put(const params &p, const held &h, uint8_t *tile, float *weight) {
#pragma unroll
        for (int n = 0; n < WORDS; n++) {
            const int i = n * 128 * PAGED_GROUPS + threadIdx.x;
            if (i < ALL) put_word<FP8>(tile, i / 32, i % 32, h.word[n], p.fnuz);
        }
        if (threadIdx.x < HEADS) weight[weight_place(threadIdx.x)] = h.weight;
    }
    static __device__ __forceinline__ bool known(const params &, int64_t) { return true; }
#endif
};

template <bool FP8, typename QUERIES>
__global__ void __launch_bounds__(PAGED_THREADS, 1) score_pages(const __grid_constant__ typename QUERIES::params all) {
#if __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ uint8_t memory[];
    const logits_params &p = QUERIES::of(all);
    uint8_t *tiles = memory + (-(intptr_t)shared_address(memory) & 1023);
    const int most = (int)min(p.next_n.d, (int64_t)MOST_TOKENS);
    uint8_t *stages = tiles + most * kind<FP8>::QUERY_BYTES;
    paged_shared &s = *(paged_shared *)(stages + PAGED_STAGES * STAGE_BYTES);
    const int groups = ((int)p.next_n.d + MOST_TOKENS - 1) / MOST_TOKENS;
    if (threadIdx.x == 0) {
        const bool pieces = comes_in_pieces(p);
        for (int i = 0; i < PAGED_STAGES; i++)
            barrier_init(&s.full[i], pieces ? 1 : 32), barrier_init(&s.empty[i], pieces ? 4 : 128);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    wait_for_previous();
    let_next_start();
    share_out(p, (int)quotient32(p.next_n, (uint32_t)p.row_count) * groups, s);
    const int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, g = lane / 4,
              t = lane % 4;
    if (group == PAGED_GROUPS) {
        if (warp == 0) bring_pages(p, s, stages);
        else if (p.clean) clean_rows(p, warp - 1, [&](int64_t row) { return QUERIES::known(all, row); });
        return;
    }
    /* The thread's two keys of a tile: any two of it, such that 8 threads read 128 bytes of all banks. */
    const int first = p.shuffle ? warp * 16 + g : (g & 1) * 32 + warp * 8 + g / 2, second = first + (p.shuffle ? 8 : 4);
    const int pitch = p.shuffle ? 256 : 16, out_key = t & 1 ? second : first;
    const int from[2] = {key_byte(p.shuffle, first) + t * pitch, key_byte(p.shuffle, second) + t * pitch};
    const int count = s.count;
    const bool pieces = comes_in_pieces(p);
    int i = s.segment, tile = s.tile, turn = 0;
    if (threadIdx.x == 0) s.bad_page[0] = INT_MAX;
    for (int n = 0; n < count; i++, tile = 0) {
        const segment of = segment_of(p, i);
        const int here = min(of.tiles() - tile, count - n);
        const int64_t row = (int64_t)of.request * p.next_n.d + of.first;
        if (here <= 0) continue;
        sync_some(1, 128 * PAGED_GROUPS); /* the segment before this one is done with what is in shared memory */
        typename QUERIES::held held = QUERIES::load(all, of.request, of.first);
        const int bad = first_bad_page(p, of.request, pages_of(p, of.end), threadIdx.x, 128 * PAGED_GROUPS);
        if (bad < INT_MAX) atomicMin(&s.bad_page[turn], bad);
        if (threadIdx.x < of.tokens)
            s.end[threadIdx.x] = QUERIES::known(all, row + threadIdx.x)
                                     ? max((int)paged_end(p, of.request, of.first + threadIdx.x), 0)
                                     : 0;
        QUERIES::template put<FP8>(all, held, tiles, s.weight[0]);
#pragma unroll 1
        for (int token = 1; token < of.tokens; token++) {
            held = QUERIES::load(all, of.request, of.first + token);
            QUERIES::template put<FP8>(all, held, tiles + token * kind<FP8>::QUERY_BYTES, s.weight[token]);
        }
        fence_for_async();
        sync_some(1, 128 * PAGED_GROUPS);
        if (threadIdx.x == 0) s.bad_page[turn ^ 1] = INT_MAX;
        uint32_t sound = 0; /* the other rows stay as they are */
#pragma unroll 1
        for (int token = 0; token < of.tokens; token++)
            if (pages_of(p, s.end[token]) <= s.bad_page[turn]) sound |= 1u << token;
#pragma unroll 1
        for (int k = (group + PAGED_GROUPS - n % PAGED_GROUPS) % PAGED_GROUPS; k < here; k += PAGED_GROUPS) {
            const int stage = (n + k) % PAGED_STAGES;
            const uint8_t *keys = stages + stage * STAGE_BYTES;
            barrier_wait(&s.full[stage], (uint32_t)((n + k) / PAGED_STAGES & 1));
            uint32_t raw[2][8], a[kind<FP8>::REGISTERS];
#pragma unroll
            for (int h = 0; h < 2; h++) {
                *(uint4 *)raw[h] = *(const uint4 *)(keys + from[h]);
                *(uint4 *)(raw[h] + 4) = *(const uint4 *)(keys + from[h] + 4 * pitch);
            }
            const float scale = *(const float *)(keys + STAGE_SCALES + 4 * out_key);
            __syncwarp();
            if (lane == 0 || !pieces) barrier_arrive(&s.empty[stage]);
            take_keys<FP8>(a, raw[0], raw[1], p.fnuz);
            const int column = (tile + k) * 64 + out_key;
            float *out = p.logits + row * p.logits_row + column * p.logits_step;
#pragma unroll 1
            for (int token = 0; token < of.tokens; token++) {
                float d[32], w[16], sum[2];
                products_begin<FP8, 1>(d, a, shared_address(tiles + token * kind<FP8>::QUERY_BYTES));
                load_weights(w, s.weight[token], t);
                products_wait<1>(d);
                sum_heads(d, w, sum);
                float v = share_pair(sum, t);
                v = __fadd_rn(v, __shfl_xor_sync(~0u, v, 2));
                if (t < 2 && (sound >> token & 1) && column < s.end[token]) *out = __fmul_rn(v, scale);
                out += p.logits_row;
            }
        }
        n += here, turn ^= 1;
    }
#endif
}

/* Has the kernel code for 9.0a here? Then it may have `shared` bytes. Asked once for each device. */
template <auto KERNEL>
static bool special(size_t shared) {
    static signed char known[64]; /* 1: yes; -1: no */
    int device = 0;
    cudaFuncAttributes attributes;
    if (cudaGetDevice(&device) != cudaSuccess || device < 0 || device >= 64) return false;
    signed char is = __atomic_load_n(&known[device], __ATOMIC_RELAXED);
    if (is) return is > 0;
    const void *kernel = (const void *)KERNEL;
    const bool can =
        cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess && attributes.binaryVersion == 90 &&
        attributes.ptxVersion == 90 &&
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared) == cudaSuccess;
    if (!can) cudaGetLastError();
    __atomic_store_n(&known[device], can ? 1 : -1, __ATOMIC_RELAXED);
    return can;
}

/* FAST: queries for score_pages; ANY: for score_any. */
template <bool FP8, typename FAST, typename ANY>
static hm_status launch_paged(const char *op, const typename FAST::params &all, const logits_params &p, void *stream) {
    const bool small = few(p.row_count) && few(p.width) && few(p.block_size.d) && few(p.row_count * (p.width / 64 + 1));
    if (small && p.heads <= HEADS && p.num_blocks > 0 && special<score_pages<FP8, FAST>>(paged_bytes(FP8, MOST_TOKENS)))
        return launch(op, score_pages<FP8, FAST>, hm_cuda_processors(), dim3(PAGED_THREADS),
                      paged_bytes(FP8, p.next_n.d), stream, all);
    return launch(op, score_any<true, ANY>, p.end, dim3(ANY_THREADS), 0, stream, all);
}

} // namespace hm

#endif
