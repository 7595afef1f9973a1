/* top_k_per_row: a block a row; what is chosen is exact for every distribution, and the same in every run.
 *
 * A logit and its index make one number, its rank: the key of ref above 32 bits, the complement of the index below, so
 * that all ranks differ and the larger comes first. Wanted are the k largest, in order.
 *   1. A bar: at a sample of the row, so low that k ranks stand above it and so high that they fit into shared memory.
 *   2. Those above the bar are collected, in one reading of the row. Their number says whether the bar was good; if it
 *      was not (ties, or a sample unlike the row), the ranks are counted by their digits from the top, 11 bits a
 *      reading, until what lies above the digits that are known fits, and that is collected.
 *   3. What was collected, in any order, is sorted: buckets of equal width by value, then within each bucket by
 *      comparing; if a bucket is full (values that are far apart), all of it by a bitonic sort.
 * k above MOST is done MOST at a time: each round takes what ranks behind the round before. */
#include "common.cuh"
#include "sm90.cuh"

extern "C" {
#include "../../op/top_k_per_row.h"
}

static const char op[] = "top_k_per_row";

namespace {

/* MOST: results of a round, such that there is room above them for a bar to miss, and for indices that are tied. */
enum { CAPACITY = 4096, MOST = 3072, BINS = 2048, BIN_BITS = 11, FULL = 96 };

struct params {
    const float *logits;
    const int32_t *starts, *ends, *lens;
    int32_t *out;
    int64_t row_stride, step, columns, k, out_stride, out_step;
    int64_t start_step, end_step, len_step, row_count;
    hm::divider next_n;
};

struct shared {
    uint64_t rank[CAPACITY];
    uint32_t bin[BINS];
    uint32_t warp[32];
    uint32_t count, low, high; /* collected; keys of the least and the largest of finite values */
    uint32_t digit, before;    /* found by find_bin: the bin, and how many lie above it */
};

/* As ref has it: -0 and +0 are one, NaN is above all. */
__device__ __forceinline__ uint32_t key_of(float v) {
    uint32_t bits = __float_as_uint(v);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return UINT32_MAX;
    if (bits == 0x80000000u) bits = 0;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float value_of(uint32_t key) {
    return __uint_as_float(key & 0x80000000u ? key ^ 0x80000000u : ~key);
}
__device__ __forceinline__ uint64_t rank_of(uint32_t key, uint32_t index) {
    return (uint64_t)key << 32 | (UINT32_MAX - index);
}

/* The window of a row. */
struct window {
    const float *v;
    int64_t step;
    uint32_t n;
};

/* The largest values come into the first bucket. Each step is monotone, rounded as it may be, so that no larger value
 * has a later bucket; what is infinite has the first or the last. */
struct buckets {
    float low, scale;
    __device__ __forceinline__ uint32_t of(uint64_t rank) const {
        const uint32_t key = (uint32_t)(rank >> 32);
        if (key >= 0xff800000u) return 0;
        if (key < 0x00800000u) return BINS - 1;
        const int at = (int)__fmul_rn(__fmul_rn(value_of(key), 0.5f) - low, scale);
        return (uint32_t)(at < BINS - 1 ? BINS - 1 - at : 0);
    }
};

/* A row's elements from head to end, copied to shared memory CHUNK at a time, AHEAD of them under way. */
enum { CHUNK = 8192, AHEAD = 2 };
struct ahead {
    float *ring;
    uint64_t *full; /* [AHEAD] */
    uint32_t head, end;
    int stage;
    uint32_t parity;
};

/* What a block of THREADS threads does; all of them call each function. */
template <int THREADS>
struct block {
    /* Calls take(v, index_of, live) for N elements a thread at a time, with whole warps; live: which N there are.
     * CLOSE: neighbours in memory, read 16 bytes at a time but for a few at both ends. */
    template <int N, bool CLOSE, typename F>
    static __device__ __forceinline__ void for_each(const window &w, const F &take) {
        float v[N];
        if (!CLOSE) {
            for (uint32_t base = 0; base < w.n; base += N * THREADS) {
                uint32_t live = 0;
#pragma unroll
                for (int j = 0; j < N; j++) {
                    const uint32_t i = base + j * THREADS + threadIdx.x;
                    if (i < w.n) v[j] = w.v[(int64_t)i * w.step], live |= 1u << j;
                }
                take(
                    v, [&](int j) { return base + j * THREADS + threadIdx.x; }, live);
            }
            return;
        }
        uint32_t head = (uint32_t)(-(intptr_t)w.v >> 2) & 3u;
        head = head < w.n ? head : w.n;
        const uint32_t quads = (w.n - head) / 4, tail = head + quads * 4;
        const float4 *quad = (const float4 *)(w.v + head);
        for (uint32_t base = 0; base < quads; base += N / 4 * THREADS) {
            uint32_t live = 0;
            const uint32_t from = base + threadIdx.x;
#pragma unroll
            for (int j = 0; j < N / 4; j++)
                if (from + j * THREADS < quads) {
                    const float4 four = quad[from + j * THREADS];
                    v[4 * j] = four.x, v[4 * j + 1] = four.y, v[4 * j + 2] = four.z, v[4 * j + 3] = four.w;
                    live |= 15u << 4 * j;
                }
            take(
                v, [&](int j) { return head + 4 * (from + j / 4 * THREADS) + j % 4; }, live);
        }
        if (threadIdx.x < 32) { /* at most three at each end */
            const uint32_t i = threadIdx.x < head ? threadIdx.x : tail + threadIdx.x - head;
            if (i < w.n) v[0] = w.v[i];
            take(
                v, [&](int) { return i; }, i < w.n ? 1u : 0u);
        }
    }

    static __device__ __forceinline__ void clear_bins(shared &s) {
        for (int i = threadIdx.x; i < BINS; i += THREADS) s.bin[i] = 0;
    }

    /* The sum of v over the threads before this one; *all: over all. Whole block. */
    static __device__ __forceinline__ uint32_t sum_before(shared &s, uint32_t v, uint32_t *all) {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        uint32_t sum = v;
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            uint32_t other = __shfl_up_sync(~0u, sum, step);
            if (lane >= step) sum += other;
        }
        if (lane == 31) s.warp[warp] = sum;
        __syncthreads();
        const uint32_t of_warp = lane < THREADS / 32 ? s.warp[lane] : 0;
        *all = __reduce_add_sync(~0u, of_warp);
        sum += __reduce_add_sync(~0u, lane < warp ? of_warp : 0);
        __syncthreads();
        return sum - v;
    }

    /* s.digit: the bin of the wanted-th largest; s.before: how many are above that bin. Needs a barrier before. */
    static __device__ __forceinline__ void find_bin(shared &s, uint32_t wanted) {
        constexpr int EACH = BINS / THREADS;
        const int top = BINS - 1 - EACH * threadIdx.x;
        uint32_t sum = 0, all;
#pragma unroll
        for (int j = 0; j < EACH; j++) sum += s.bin[top - j];
        uint32_t before = sum_before(s, sum, &all);
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            const uint32_t n = s.bin[top - j];
            if (before < wanted && wanted <= before + n) s.digit = top - j, s.before = before;
            before += n;
        }
        __syncthreads();
    }

    /* One more in the bin, for the live threads of the warp; those that agree with the first of them at once. */
    static __device__ __forceinline__ void count_in(shared &s, uint32_t bin, bool live) {
        const uint32_t who = __ballot_sync(~0u, live);
        if (!who) return;
        const int first = __ffs(who) - 1;
        const uint32_t common = __shfl_sync(~0u, bin, first);
        const uint32_t same = __ballot_sync(~0u, live && bin == common);
        if (threadIdx.x % 32 == first) atomicAdd(&s.bin[common], (uint32_t)__popc(same));
        else if (live && bin != common) atomicAdd(&s.bin[bin], 1u);
    }

    /* ---- 1: a bar ------------------------------------------------------------------------------------------------ */

    /* The key at a sample's rank; runs of 32 elements from places that are equally far apart. To 22 bits, downward,
     * or to 32 where more of the sample agree in these than there is room to spare for. TOP: s.high becomes the largest
     * key of a finite value in it, there is more room to spare, and *crowded says that it was not enough even so. */
    template <bool TOP = false>
    static __device__ __forceinline__ uint32_t bar_of(shared &s, const window &w, uint32_t k, bool *crowded = nullptr) {
        const uint32_t size = (w.n / 20 + 2047) / 2048 * 2048;
        const uint32_t runs = size / 32;
        const uint64_t apart = ((uint64_t)(w.n - 32) << 16) / runs; /* in 2^-16 of an element */
        uint32_t wanted = (uint32_t)((uint64_t)(k + CAPACITY) / 2 * size / w.n), prefix = 0;
        const uint32_t spare = (uint32_t)((uint64_t)(CAPACITY - k) / 8 * size / w.n);
        wanted = wanted ? wanted : 1;
        uint32_t top = 0;
        if (TOP && threadIdx.x == 0) s.high = 0;
        for (int shift = 21; shift >= 0; shift -= shift == 21 ? 11 : 10) {
            const uint32_t known = shift == 21 ? 0 : shift == 10 ? ~0u << 21 : ~0u << 10;
            clear_bins(s);
            __syncthreads();
            for (uint32_t base = threadIdx.x; base < size; base += 2048) {
                uint32_t key[2048 / THREADS];
#pragma unroll
                for (int j = 0; j < 2048 / THREADS; j++) {
                    const uint32_t i = base + j * THREADS, at = (uint32_t)(i / 32 * apart >> 16) + i % 32;
                    key[j] = key_of(w.v[(int64_t)at * w.step]);
                }
#pragma unroll
                for (int j = 0; j < 2048 / THREADS; j++) {
                    if (TOP && shift == 21 && key[j] < 0xff800000u) top = max(top, key[j]);
                    count_in(s, key[j] >> shift & (shift ? BINS - 1 : BINS / 2 - 1), ((key[j] ^ prefix) & known) == 0);
                }
            }
            if (TOP && shift == 21) {
                top = __reduce_max_sync(~0u, top);
                if (threadIdx.x % 32 == 0) atomicMax(&s.high, top);
            }
            __syncthreads();
            find_bin(s, wanted);
            prefix |= s.digit << shift, wanted -= s.before;
            const bool enough = s.bin[s.digit] <= (TOP ? 6 * spare : shift == 10 ? spare : 0);
            __syncthreads();
            if (enough) break;
            if (TOP && shift == 0) *crowded = true;
        }
        return prefix;
    }

    /* ---- 2: to collect ------------------------------------------------------------------------------------------- */

    /* Where a thread may append as many as there are bits in `chosen`. Whole warps. */
    static __device__ __forceinline__ uint32_t place_of(shared &s, uint32_t chosen) {
        const int lane = threadIdx.x % 32;
        const uint32_t mine = (uint32_t)__popc(chosen);
        uint32_t at = mine, base = 0;
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            uint32_t other = __shfl_up_sync(~0u, at, step);
            if (lane >= step) at += other;
        }
        if (lane == 31) base = atomicAdd(&s.count, at);
        return at + __shfl_sync(~0u, base, 31) - mine;
    }

    /* Appends the indices of those of N elements that `chosen` names, for look_up; what has no room only counts. Whole
     * warps. */
    template <int N, typename I>
    static __device__ __forceinline__ void append(shared &s, const I &index_of, uint32_t chosen) {
        if (!__any_sync(~0u, chosen)) return;
        uint32_t at = place_of(s, chosen);
        for (; chosen; chosen &= chosen - 1, at++)
            if (at < CAPACITY) s.rank[at] = index_of(__ffs((int)chosen) - 1);
    }

    /* From the indices that were appended to their ranks. Whole block, after a barrier. */
    static __device__ __forceinline__ void look_up(shared &s, const window &w) {
        const uint32_t count = s.count;
        if (count <= CAPACITY) {
            float v[CAPACITY / THREADS];
            uint32_t index[CAPACITY / THREADS];
#pragma unroll
            for (int j = 0; j < CAPACITY / THREADS; j++) {
                const uint32_t i = j * THREADS + threadIdx.x;
                if (i < count) index[j] = (uint32_t)s.rank[i], v[j] = w.v[(int64_t)index[j] * w.step];
            }
#pragma unroll
            for (int j = 0; j < CAPACITY / THREADS; j++)
                if (j * THREADS + threadIdx.x < count)
                    s.rank[j * THREADS + threadIdx.x] = rank_of(key_of(v[j]), index[j]);
        }
        __syncthreads();
    }

    /* All that are not below the bar, by value: a NaN is below nothing, and nothing is below a NaN. Stops when there is
     * no room. */
    template <int N, bool CLOSE>
    static __device__ __forceinline__ void collect_above(shared &s, const window &w, float bar) {
        for_each<N, CLOSE>(w, [&](const float *v, const auto &index_of, uint32_t live) {
            uint32_t chosen = 0;
#pragma unroll
            for (int j = 0; j < N; j++) chosen |= !(v[j] < bar) ? 1u << j : 0;
            if (*(volatile uint32_t *)&s.count > CAPACITY) chosen = 0;
            append<N>(s, index_of, chosen & live);
        });
        __syncthreads();
        look_up(s, w);
    }

    /* The chunk, if there are so many, to a stage. */
    static __device__ __forceinline__ void copy_ahead(const ahead &a, const window &w, uint32_t chunk, int at) {
        if ((uint64_t)a.head + (uint64_t)chunk * CHUNK >= a.end) return;
        const uint32_t from = a.head + chunk * CHUNK, bytes = min(a.end - from, (uint32_t)CHUNK) * 4;
        hm::barrier_expect(&a.full[at], bytes);
        hm::copy_bytes(a.ring + at * CHUNK, w.v + from, bytes, &a.full[at]);
    }

    /* The same; neighbours, of which copies run ahead, also of what comes before this. */
    static __device__ __forceinline__ void start_ahead(ahead &a, const window &w) {
        a.head = (uint32_t)(-(intptr_t)w.v >> 2) & 3u;
        a.head = a.head < w.n ? a.head : w.n;
        a.end = a.head + (w.n - a.head) / 4 * 4;
        if (threadIdx.x == 0)
            for (uint32_t i = 0; i < AHEAD; i++) copy_ahead(a, w, i, (a.stage + i) % AHEAD);
    }
    static __device__ __forceinline__ void collect_ahead(shared &s, const window &w, float bar, ahead &a) {
        constexpr int QUADS = CHUNK / 4 / THREADS;
        uint32_t chunk = 0;
        for (uint32_t base = a.head; base < a.end; base += CHUNK, chunk++) {
            const uint32_t quads = min(a.end - base, (uint32_t)CHUNK) / 4;
            const float *from = a.ring + a.stage * CHUNK;
            uint32_t chosen = 0;
            hm::barrier_wait(&a.full[a.stage], a.parity);
#pragma unroll
            for (int j = 0; j < QUADS; j++) {
                const uint32_t i = j * THREADS + threadIdx.x;
                if (i >= quads) continue;
                const float4 v = ((const float4 *)from)[i];
                chosen |= (uint32_t)(!(v.x < bar) | !(v.y < bar) << 1 | !(v.z < bar) << 2 | !(v.w < bar) << 3) << 4 * j;
            }
            if (*(volatile uint32_t *)&s.count > CAPACITY) chosen = 0;
            if (__any_sync(~0u, chosen)) {
                uint32_t at = place_of(s, chosen);
                for (; chosen; chosen &= chosen - 1, at++) {
                    const int j = __ffs((int)chosen) - 1;
                    const uint32_t i = 4 * (j / 4 * THREADS + threadIdx.x) + j % 4;
                    if (at < CAPACITY) s.rank[at] = rank_of(key_of(from[i]), base + i);
                }
            }
            __syncthreads();
            if (threadIdx.x == 0) copy_ahead(a, w, chunk + AHEAD, a.stage);
            if (++a.stage == AHEAD) a.stage = 0, a.parity ^= 1;
        }
        if (threadIdx.x < 32) { /* at most three at each end */
            const uint32_t i = threadIdx.x < a.head ? threadIdx.x : a.end + threadIdx.x - a.head;
            const bool take = i < w.n && !(w.v[i] < bar);
            if (__any_sync(~0u, take)) {
                const uint32_t at = place_of(s, take);
                if (take && at < CAPACITY) s.rank[at] = rank_of(key_of(w.v[i]), i);
            }
        }
        __syncthreads();
    }

    /* The k largest ranks up to `most`, and a few more where there is room. */
    template <int N, bool CLOSE>
    static __device__ __forceinline__ void collect_counting(shared &s, const window &w, uint32_t k, uint64_t most) {
        uint64_t prefix = 0;
        int shift = 64, index_bits = 32 - __clz((int)w.n);
        uint32_t wanted = k; /* of the ranks with this prefix */
#pragma unroll 1
        while (shift > 0) {
            if (shift == 32) prefix |= (uint64_t)UINT32_MAX >> index_bits << index_bits, shift = index_bits;
            const int width = shift == 42 ? 10 : shift < BIN_BITS ? shift : (int)BIN_BITS, next = shift - width;
            const uint64_t known = shift == 64 ? 0 : UINT64_MAX << shift;
            clear_bins(s);
            __syncthreads();
            for_each<N, CLOSE>(w, [&](const float *v, const auto &index_of, uint32_t live) {
#pragma unroll
                for (int j = 0; j < N; j++) {
                    const uint64_t rank = rank_of(key_of(v[j]), index_of(j));
                    count_in(s, (uint32_t)(rank >> next) & ((1u << width) - 1),
                             (live >> j & 1) && rank <= most && ((rank ^ prefix) & known) == 0);
                }
            });
            __syncthreads();
            find_bin(s, wanted);
            prefix |= (uint64_t)s.digit << next, shift = next;
            const uint32_t fit = k - wanted + s.before + s.bin[s.digit];
            wanted -= s.before;
            __syncthreads();
            if (fit <= CAPACITY) break;
        }
        if (threadIdx.x == 0) s.count = 0;
        __syncthreads();
        for_each<N, CLOSE>(w, [&](const float *v, const auto &index_of, uint32_t live) {
            uint32_t chosen = 0;
#pragma unroll
            for (int j = 0; j < N; j++) {
                const uint64_t rank = rank_of(key_of(v[j]), index_of(j));
                chosen |= rank >= prefix && rank <= most ? 1u << j : 0;
            }
            append<N>(s, index_of, chosen & live);
        });
        __syncthreads();
        look_up(s, w);
    }

    /* ---- 3: to sort ---------------------------------------------------------------------------------------------- */

    static __device__ __forceinline__ void sort_bitonic(shared &s, uint32_t count) {
        uint32_t size = 2;
        while (size < count) size *= 2;
        for (uint32_t i = count + threadIdx.x; i < size; i += THREADS) s.rank[i] = 0; /* behind all */
        for (uint32_t run = 2; run <= size; run *= 2)
            for (uint32_t bit = 31 - __clz((int)run); bit--;) {
                __syncthreads();
                for (uint32_t i = threadIdx.x; i < size / 2; i += THREADS) {
                    const uint32_t a = i >> bit << (bit + 1) | (i & ((1u << bit) - 1)), b = a | 1u << bit;
                    const uint64_t x = s.rank[a], y = s.rank[b];
                    if ((x < y) == !(a & run)) s.rank[a] = y, s.rank[b] = x;
                }
            }
        __syncthreads();
    }

    /* Writes the indices of the first k of what was collected. *last: the rank of the last of them. */
    static __device__ __forceinline__ uint64_t write_sorted(shared &s, const params &p, int32_t *out, uint32_t k) {
        const uint32_t count = s.count;
        uint32_t low = UINT32_MAX, high = 0;
        if (threadIdx.x == 0) s.low = UINT32_MAX, s.high = 0;
        clear_bins(s);
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < count; i += THREADS) {
            const uint32_t key = (uint32_t)(s.rank[i] >> 32);
            if (key < 0xff800000u && key >= 0x00800000u) low = min(low, key), high = max(high, key);
        }
        low = __reduce_min_sync(~0u, low), high = __reduce_max_sync(~0u, high);
        if (threadIdx.x % 32 == 0 && low <= high) atomicMin(&s.low, low), atomicMax(&s.high, high);
        __syncthreads();
        buckets b = {0.0f, 0.0f};
        if (s.low < s.high) {
            b.low = __fmul_rn(value_of(s.low), 0.5f);
            const float width = __fmul_rn(value_of(s.high), 0.5f) - b.low;
            b.scale = width > 0.0f ? fminf(__fdiv_rn(BINS - 1, width), 0x1p127f) : 0.0f;
        }
        uint64_t mine[CAPACITY / THREADS];
#pragma unroll
        for (int j = 0; j < CAPACITY / THREADS; j++) {
            const uint32_t i = j * THREADS + threadIdx.x;
            if (i < count) mine[j] = s.rank[i], atomicAdd(&s.bin[b.of(mine[j])], 1u);
        }
        __syncthreads();
        constexpr int EACH = BINS / THREADS;
        uint32_t in[EACH], sum = 0, all;
        bool full = false;
#pragma unroll
        for (int j = 0; j < EACH; j++) in[j] = s.bin[EACH * threadIdx.x + j], sum += in[j], full |= in[j] > FULL;
        uint32_t before = sum_before(s, sum, &all);
#pragma unroll
        for (int j = 0; j < EACH; j++) s.bin[EACH * threadIdx.x + j] = before, before += in[j];
        if (__syncthreads_or(full)) {
            sort_bitonic(s, count);
            for (uint32_t i = threadIdx.x; i < k; i += THREADS)
                out[i * p.out_step] = (int32_t)(UINT32_MAX - (uint32_t)s.rank[i]);
            const uint64_t last = s.rank[k - 1];
            __syncthreads();
            return last;
        }
#pragma unroll
        for (int j = 0; j < CAPACITY / THREADS;
             j++) /* a bin is where its bucket goes on, and in the end where it ends */
            if (j * THREADS + threadIdx.x < count) s.rank[atomicAdd(&s.bin[b.of(mine[j])], 1u)] = mine[j];
        __syncthreads();
        uint64_t *last = (uint64_t *)s.warp;
        for (uint32_t i = threadIdx.x; i < count; i += THREADS) {
            const uint64_t rank = s.rank[i];
            const uint32_t bucket = b.of(rank), end = s.bin[bucket];
            const uint32_t start = bucket ? s.bin[bucket - 1] : 0;
            if (start >= k) continue;
            uint32_t place = start;
            for (uint32_t at = start; at < end; at += 4)
#pragma unroll
                for (int j = 0; j < 4; j++) place += at + j < end && s.rank[min(at + j, (uint32_t)CAPACITY - 1)] > rank;
            if (place < k) out[place * p.out_step] = (int32_t)(UINT32_MAX - (uint32_t)rank);
            if (place == k - 1) *last = rank;
        }
        __syncthreads();
        const uint64_t found = *last;
        __syncthreads();
        return found;
    }
};

/* -------------------------------------------------------------------------------------------------------------- */

/* The window of a row, in v and n; false: it is not within the columns, and the row stays as it is. */
__device__ __forceinline__ bool window_of(const params &p, int64_t row, window *w) {
    int64_t start = 0, end;
    if (p.lens) {
        const int64_t request = hm::quotient(p.next_n, row);
        end = p.lens[request * p.len_step] - p.next_n.d + (row - request * p.next_n.d) + 1;
    } else start = p.starts[row * p.start_step], end = p.ends[row * p.end_step];
    if (start < 0 || end > p.columns) return false;
    w->n = end > start ? (uint32_t)(end - start) : 0;
    w->step = p.step;
    w->v = p.logits + row * p.row_stride + (w->n ? start * p.step : 0);
    return true;
}

#include "top_k_cluster.cuh"

/* N: elements that a thread reads at a time; BLOCKS: that share a multiprocessor. */
template <int THREADS, int N, bool CLOSE, int BLOCKS, bool COPY = false>
__global__ void __launch_bounds__(THREADS, BLOCKS) select(const __grid_constant__ params p) {
    __shared__ shared s;
#if __CUDA_ARCH__ >= 900
    extern __shared__ __align__(16) float ring[];
    __shared__ uint64_t full[AHEAD];
    ahead a = {ring, full, 0, 0, 0, 0};
    if (COPY && threadIdx.x == 0)
        for (int i = 0; i < AHEAD; i++) hm::barrier_init(&full[i], 1);
    if (COPY) __syncthreads();
#endif
    hm::wait_for_previous();
    hm::let_next_start();
    for (int64_t row = blockIdx.x; row < p.row_count; row += gridDim.x) {
        window w;
        int32_t *out = p.out + row * p.out_stride;
        if (!window_of(p, row, &w)) continue;
        if (w.n <= p.k) {
            for (int64_t i = threadIdx.x; i < p.k; i += THREADS) out[i * p.out_step] = i < w.n ? (int32_t)i : -1;
            continue;
        }
        const uint32_t k = (uint32_t)p.k, each = w.n <= CAPACITY ? k : (uint32_t)MOST;
        uint64_t last = UINT64_MAX;
        for (uint32_t done = 0; done < k; done += each) {
            const uint32_t now = k - done < each ? k - done : each;
            float bar = __uint_as_float(0x7fffffffu);
            if (threadIdx.x == 0) s.count = 0;
#if __CUDA_ARCH__ >= 900
            if (COPY && done == 0) block<THREADS>::start_ahead(a, w);
#endif
            if (done == 0 && w.n > CAPACITY) bar = value_of(block<THREADS>::template bar_of<>(s, w, now));
            __syncthreads();
#if __CUDA_ARCH__ >= 900
            if (COPY && done == 0) block<THREADS>::collect_ahead(s, w, bar, a);
#endif
            if (!COPY && done == 0) block<THREADS>::template collect_above<N, CLOSE>(s, w, bar);
            const uint32_t count = s.count;
            __syncthreads();
            if (done > 0 || count < now || count > CAPACITY)
                block<THREADS>::template collect_counting<N, CLOSE>(s, w, now, last);
            last = block<THREADS>::write_sorted(s, p, out + done * p.out_step, now) - 1;
        }
    }
}

} // namespace

extern "C" hm_status hm_top_k_per_row_cuda(const hm_top_k_per_row_args *args) {
    hm_top_k_per_row_args a;
    hm_status s = hm_top_k_per_row_read(args, &a);
    if (s) return s;
    if (a.logits.place != HM_CUDA) return hm_fail(HM_UNSUPPORTED, "%s: cuda works on device tensors only", op);
    if ((s = hm_cuda_ready(op)) || hm_tensor_elements(&a.indices) == 0) return s;
    params p = {};
    p.logits = (const float *)a.logits.data, p.out = (int32_t *)a.indices.data;
    p.row_stride = a.logits.stride[0], p.step = a.logits.stride[1], p.columns = a.logits.shape[1];
    p.k = a.indices.shape[1], p.out_stride = a.indices.stride[0], p.out_step = a.indices.stride[1];
    if (a.seq_lens.dtype != HM_DTYPE_NONE) p.lens = (const int32_t *)a.seq_lens.data;
    p.starts = (const int32_t *)a.row_starts.data, p.ends = (const int32_t *)a.row_ends.data;
    p.start_step = a.row_starts.stride[0], p.end_step = a.row_ends.stride[0], p.len_step = a.seq_lens.stride[0];
    p.next_n = hm::divider_of(a.next_n), p.row_count = a.logits.shape[0];
    const bool few = p.row_count <= hm_cuda_processors(); /* a multiprocessor for each */
    if (p.step == 1 && hm_cuda_is_90((const void *)select_cluster<512>)) {
        if (p.row_count <= 8 && p.columns > CAPACITY && p.k <= MOST) {
            const bool wide = p.columns > 65536;
            return hm::launch(op, wide ? select_cluster<1024> : select_cluster<512>, 8 * p.row_count,
                              dim3(wide ? 1024 : 512), sizeof(gang<512>::memory), a.stream, p, 8);
        }
        if (!few)
            return hm::launch(op, select<512, 8, true, 2, true>, p.row_count, dim3(512), (size_t)AHEAD * CHUNK * 4,
                              a.stream, p);
    }
    void (*kernel)(params) = p.step != 1 ? select<512, 8, false, 2>
                             : few       ? select<1024, 16, true, 1>
                                         : select<512, 16, true, 2>;
    return hm::launch(op, kernel, p.row_count, dim3(p.step == 1 && few ? 1024 : 512), 0, a.stream, p);
}
