/* top_k_cluster.cuh: a row for a cluster of 2, 4 or 8 blocks, where there are fewer rows than multiprocessors; included by
 * top_k_per_row.cu. Each block has a piece of the row. The k-th rank is found by its digits from the top, as in
 * collect_counting, until what is not below the digits that are known fits; each block adds up its share of the bins of
 * all. What was collected is then sorted by all: each block counts its own in the buckets and learns where they go, sends
 * each to the block that has its place, and there it is compared with the others of its bucket. */

/* The cluster's threads, and what they agree on. All of them call each function. */
template <int THREADS>
struct team {
    using part = block<THREADS>;

#if __CUDA_ARCH__ >= 900
    /* s.digit, s.before, s.in_digit and s.top, in each block, from s.bin of all. */
    static __device__ __forceinline__ void find_digit(shared &s, uint32_t rank, uint32_t size, uint32_t wanted) {
        const uint32_t each = BINS / size, thread = threadIdx.x;
        uint32_t bin[BINS / 2 / THREADS > 0 ? BINS / 2 / THREADS : 1], sum = 0, all, top = 0;
        constexpr int EACH = sizeof bin / sizeof *bin;
        hm::cluster_sync();
        const uint32_t first = (rank + 1) * each - 1 - thread * EACH;
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            bin[j] = 0;
            if (thread * EACH + j >= each) continue;
            for (uint32_t c = 0; c < size; c++) bin[j] += *hm::in_block(&s.bin[first - j], c);
            sum += bin[j];
            if (bin[j] && first - j < 0xff800000u >> 21) top = max(top, first - j + 1);
        }
        if (thread == 0) s.high = 0;
        const uint32_t before = part::sum_before(s, sum, &all);
        top = __reduce_max_sync(~0u, top);
        if (thread % 32 == 0 && top) atomicMax(&s.high, top);
        __syncthreads();
        if (thread < size) *hm::in_block(&s.range[rank], thread) = all, *hm::in_block(&s.top[rank], thread) = s.high;
        hm::cluster_sync();
        uint32_t above = before;
        for (uint32_t c = rank + 1; c < size; c++) above += s.range[c];
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            if (above < wanted && wanted <= above + bin[j])
                for (uint32_t c = 0; c < size; c++) {
                    shared *there = hm::in_block(&s, c);
                    there->digit = first - j, there->before = above, there->in_digit = bin[j];
                }
            above += bin[j];
        }
        hm::cluster_sync();
    }

    /* All ranks from *least on, of which there are k and a few more, are in the blocks' s.rank, s.count of them. Returns
     * 1 + the topmost bin of finite values. */
    template <int N>
    static __device__ __forceinline__ uint32_t collect(shared &s, const window &piece, uint32_t from, uint32_t n,
                                                       uint32_t k, uint32_t rank, uint32_t size, uint64_t *least) {
        uint64_t prefix = 0;
        int shift = 64, index_bits = 32 - __clz((int)n);
        uint32_t wanted = k, top = 0; /* of the ranks with this prefix */
#pragma unroll 1
        while (shift > 0) {
            if (shift == 32) prefix |= (uint64_t)UINT32_MAX >> index_bits << index_bits, shift = index_bits;
            const int width = shift == 42 ? 10 : shift < BIN_BITS ? shift : (int)BIN_BITS, next = shift - width;
            const uint64_t known = shift == 64 ? 0 : UINT64_MAX << shift;
            part::clear_bins(s);
            __syncthreads();
            part::template for_each<N, true>(piece, [&](const float *v, const auto &index_of, uint32_t live) {
#pragma unroll
                for (int j = 0; j < N; j++) {
                    const uint64_t r = rank_of(key_of(v[j]), from + index_of(j));
                    part::count_in(s, (uint32_t)(r >> next) & ((1u << width) - 1),
                                   (live >> j & 1) && ((r ^ prefix) & known) == 0);
                }
            });
            find_digit(s, rank, size, wanted);
            if (shift == 64)
                for (uint32_t c = 0; c < size; c++) top = max(top, s.top[c]);
            prefix |= (uint64_t)s.digit << next, shift = next;
            const uint32_t fit = k - wanted + s.before + s.in_digit;
            wanted -= s.before;
            if (fit <= CAPACITY) break;
        }
        if (threadIdx.x == 0) s.count = 0;
        __syncthreads();
        part::template for_each<N, true>(piece, [&](const float *v, const auto &index_of, uint32_t live) {
            uint32_t chosen = 0;
#pragma unroll
            for (int j = 0; j < N; j++)
                chosen |= rank_of(key_of(v[j]), from + index_of(j)) >= prefix ? 1u << j : 0;
            chosen &= live;
            if (!__any_sync(~0u, chosen)) return;
            uint32_t at = part::place_of(s, chosen);
#pragma unroll
            for (int j = 0; j < N; j++)
                if (chosen >> j & 1) s.rank[at++] = rank_of(key_of(v[j]), from + index_of(j));
        });
        __syncthreads();
        *least = prefix;
        return top;
    }

    /* Writes the indices of the first k of what is in the blocks' s.rank; all of it is between the key `low` and the end
     * of bin top - 1 of the first digit, or infinite. */
    static __device__ __forceinline__ void write_sorted(shared &s, const params &p, int32_t *out, uint32_t k,
                                                        uint32_t rank, uint32_t size, uint32_t low, uint32_t top) {
        constexpr int MINE = CAPACITY / THREADS;
        const uint32_t count = s.count, each = BINS / size, thread = threadIdx.x;
        const uint32_t share = CAPACITY / size, bits = 31 - __clz((int)share); /* of all places */
        const uint32_t high = min(top << 21, 0xff800000u) - 1;
        buckets b = {0.0f, 0.0f};
        low = max(low, 0x00800000u);
        if (top && low < high) {
            b.low = __fmul_rn(value_of(low), 0.5f);
            const float width = __fmul_rn(value_of(high), 0.5f) - b.low;
            b.scale = width > 0.0f ? fminf(__fdiv_rn(BINS - 1, width), 0x1p127f) : 0.0f;
        }
        part::clear_bins(s);
        __syncthreads();
        uint64_t mine[MINE];
        uint32_t order[MINE];
#pragma unroll
        for (int j = 0; j < MINE; j++) {
            const uint32_t i = j * THREADS + thread;
            if (i < count) mine[j] = s.rank[i], order[j] = atomicAdd(&s.bin[b.of(mine[j])], 1u);
        }
        hm::cluster_sync();
        constexpr int EACH = BINS / 2 / THREADS > 0 ? BINS / 2 / THREADS : 1;
        uint32_t sum = 0, all, in[EACH];
        bool full = false;
        const uint32_t first = rank * each + thread * EACH;
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            in[j] = 0;
            if (thread * EACH + j < each)
                for (uint32_t c = 0; c < size; c++) in[j] += *hm::in_block(&s.bin[first + j], c);
            sum += in[j], full |= in[j] > FULL;
        }
        uint32_t before = part::sum_before(s, sum, &all);
        full = __syncthreads_or(full);
        if (thread < size) *hm::in_block(&s.range[rank], thread) = all | (full ? 1u << 31 : 0);
        hm::cluster_sync();
        uint32_t total = 0;
        full = false;
        for (uint32_t c = 0; c < size; c++) {
            const uint32_t range = s.range[c] & ~(1u << 31);
            full |= s.range[c] >> 31, before += c < rank ? range : 0, total += range;
        }
        if (full) { /* by one block */
            if (rank) return;
            for (uint32_t c = 1, at = count; c < size; c++) {
                const shared *there = hm::in_block(&s, c);
                const uint32_t more = there->count;
                for (uint32_t i = thread; i < more; i += THREADS) s.rank[at + i] = there->rank[i];
                at += more;
            }
            __syncthreads();
            part::sort_bitonic(s, total);
            for (uint32_t i = thread; i < k; i += THREADS)
                out[i * p.out_step] = (int32_t)(UINT32_MAX - (uint32_t)s.rank[i]);
            return;
        }
#pragma unroll
        for (int j = 0; j < EACH; j++) { /* where each block's share of the bucket begins */
            uint32_t at = before;
            if (thread * EACH + j >= each) break;
            for (uint32_t c = 0; c < size; c++) {
                uint32_t *bin = hm::in_block(&s.bin[first + j], c);
                const uint32_t n = *bin;
                *bin = at, at += n;
            }
            before = at;
        }
        hm::cluster_sync();
#pragma unroll
        for (int j = 0; j < MINE; j++)
            if (j * THREADS + thread < count) {
                const uint32_t at = s.bin[b.of(mine[j])] + order[j];
                *hm::in_block(&s.rank[at & (share - 1)], at >> bits) = mine[j];
            }
        hm::cluster_sync();
        const uint32_t *start_of = hm::in_block(s.bin, 0);
        for (uint32_t i = thread; i < share && rank * share + i < total; i += THREADS) {
            const uint64_t r = s.rank[i];
            const uint32_t bucket = b.of(r), start = start_of[bucket];
            if (start >= k) continue;
            const uint32_t end = bucket + 1 < BINS ? start_of[bucket + 1] : total;
            uint32_t place = start;
            for (uint32_t at = start; at < end; at++)
                place += *hm::in_block(&s.rank[at & (share - 1)], at >> bits) > r;
            if (place < k) out[place * p.out_step] = (int32_t)(UINT32_MAX - (uint32_t)r);
        }
    }
#endif
};

template <int THREADS, int N>
__global__ void __launch_bounds__(THREADS, 1) select_cluster(const __grid_constant__ params p) {
#if __CUDA_ARCH__ >= 900
    __shared__ shared s;
    const uint32_t rank = hm::cluster_rank(), size = hm::cluster_size();
    const int64_t row = blockIdx.x / size;
    hm::wait_for_previous();
    hm::let_next_start();
    window w;
    int32_t *out = p.out + row * p.out_stride;
    if (!window_of(p, row, &w)) return;
    if (w.n <= p.k) {
        for (int64_t i = rank * THREADS + threadIdx.x; i < p.k; i += size * THREADS)
            out[i * p.out_step] = i < w.n ? (int32_t)i : -1;
        return;
    }
    const uint32_t k = (uint32_t)p.k, each = ((w.n - 1) / size + 4) / 4 * 4, from = min(rank * each, w.n);
    const window piece = {w.v + from, 1, min(each, w.n - from)};
    uint64_t least;
    const uint32_t top = team<THREADS>::template collect<N>(s, piece, from, w.n, k, rank, size, &least);
    team<THREADS>::write_sorted(s, p, out, k, rank, size, (uint32_t)(least >> 32), top);
    hm::cluster_sync(); /* others read what is here */
#else
    (void)p;
#endif
}
