/* top_k_cluster.cuh: a row for a cluster of 8 blocks, where there are few rows; included by top_k_per_row.cu.
 *
 * All blocks find the same bar from the same sample, and so agree, without a word, on 8 ranges of value above it, one
 * for each block, the largest values for block 0. Each block reads every eighth piece of the row and sends what stands
 * above the bar to the block whose it is, then tells all how many it sent to each. What is sent ends at a barrier of
 * the receiver, which takes no fence (one of a cluster takes about a microsecond). From these numbers each block knows
 * where its own results begin, and sorts them in buckets of equal width. Were there too many that agree in the sample,
 * too few in all, or too many for one block from another (values far apart), block 0 does the row alone. */

template <int THREADS>
struct gang {
    enum { SIZE = 8, SEGMENT = CAPACITY / SIZE, RANGE = BINS };
    using part = block<THREADS>;

    struct memory {
        shared s;
        uint64_t sent_here[SIZE][SEGMENT]; /* by each block */
        uint32_t counts[SIZE][SIZE];       /* from, to */
        uint32_t to[SIZE];                 /* how many this block has for each */
        uint64_t told, received;           /* barriers */
    };

#if __CUDA_ARCH__ >= 900
    /* Buckets of equal width, RANGE of them to a block, as those of struct buckets. */
    static __device__ __forceinline__ uint32_t bucket_of(const buckets &b, uint32_t key) {
        enum { LAST = SIZE * RANGE - 1 };
        if (key >= 0xff800000u) return 0;
        if (key < 0x00800000u) return LAST;
        const int at = (int)__fmul_rn(__fmul_rn(value_of(key), 0.5f) - b.low, b.scale);
        return (uint32_t)(at < LAST ? LAST - at : 0);
    }

    static __device__ __forceinline__ void send(uint32_t to, uint32_t barrier, uint32_t rank, uint64_t v) {
        asm volatile(
            "{\n.reg .b32 there, end;\nmapa.shared::cluster.u32 there, %0, %2;\nmapa.shared::cluster.u32 end, %1, %2;\n"
            "st.async.shared::cluster.mbarrier::complete_tx::bytes.u64 [there], %3, [end];\n}" ::"r"(to),
            "r"(barrier), "r"(rank), "l"(v)
            : "memory");
    }
    static __device__ __forceinline__ void send(uint32_t to, uint32_t barrier, uint32_t rank, uint32_t v) {
        asm volatile(
            "{\n.reg .b32 there, end;\nmapa.shared::cluster.u32 there, %0, %2;\nmapa.shared::cluster.u32 end, %1, %2;\n"
            "st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [there], %3, [end];\n}" ::"r"(to),
            "r"(barrier), "r"(rank), "r"(v)
            : "memory");
    }

    /* This block's part of the row; false: it did not work out, for any of the blocks. *found: the bar. */
    static __device__ __forceinline__ bool choose(memory &m, const params &p, const window &w, int32_t *out, uint32_t k,
                                                  float *found) {
        shared &s = m.s;
        const uint32_t rank = hm::cluster_rank(), thread = threadIdx.x;
        if (thread < SIZE) m.to[thread] = 0;
        if (thread == 0) {
            hm::barrier_init(&m.told, 1), hm::barrier_init(&m.received, 1);
            asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
            hm::barrier_expect(&m.told, sizeof m.counts);
        }
        __syncthreads();
        asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
        for (uint32_t i = rank * THREADS + thread / 32 * SIZE * THREADS; i < w.n; i += THREADS / 32 * SIZE * THREADS)
            if (thread % 32 * 32 < THREADS && i + thread % 32 * 32 < w.n)
                asm volatile("prefetch.global.L2 [%0];" ::"l"(w.v + i + thread % 32 * 32));
        bool crowded = false;
        const uint32_t lowest = part::template bar_of<true>(s, w, k, &crowded), highest = s.high;
        const float bar = *found = value_of(lowest);
        buckets b = {0.0f, 0.0f};
        if (lowest >= 0x00800000u && lowest < highest) {
            b.low = __fmul_rn(bar, 0.5f);
            const float width = __fmul_rn(value_of(highest), 0.5f) - b.low;
            b.scale = width > 0.0f ? fminf(__fdiv_rn(SIZE * RANGE - 1, width), 0x1p127f) : 0.0f;
        }
        part::clear_bins(s);
        asm volatile("barrier.cluster.wait.aligned;" ::: "memory");
        if (crowded) return false;
        constexpr int N = 8;
        const uint32_t segment = hm::shared_address(m.sent_here[rank]), received = hm::shared_address(&m.received);
        for (uint32_t base = rank * THREADS + thread; base < w.n; base += N * SIZE * THREADS) {
            float v[N];
#pragma unroll
            for (int j = 0; j < N; j++) {
                const uint32_t i = base + j * SIZE * THREADS;
                if (i < w.n) v[j] = w.v[i];
            }
#pragma unroll
            for (int j = 0; j < N; j++) {
                const uint32_t i = base + j * SIZE * THREADS;
                if (i >= w.n || v[j] < bar) continue;
                const uint32_t key = key_of(v[j]), owner = bucket_of(b, key) / RANGE;
                const uint32_t at = atomicAdd(&m.to[owner], 1u);
                if (at < SEGMENT) send(segment + at * 8, received, owner, rank_of(key, i));
            }
        }
        __syncthreads();
        if (thread < SIZE * SIZE)
            send(hm::shared_address(&m.counts[rank][thread % SIZE]), hm::shared_address(&m.told), thread / SIZE,
                 m.to[thread % SIZE]);
        hm::barrier_wait(&m.told, 0);
        uint32_t before = 0, total = 0, mine = 0;
        bool fits = true;
#pragma unroll
        for (int from = 0; from < SIZE; from++)
#pragma unroll
            for (int to = 0; to < SIZE; to++) {
                const uint32_t n = m.counts[from][to];
                total += n, fits &= n <= SEGMENT;
                if (to < (int)rank) before += n;
                if (to == (int)rank) mine += min(n, (uint32_t)SEGMENT);
            }
        if (thread == 0) hm::barrier_expect(&m.received, mine * 8);
        hm::barrier_wait(&m.received, 0);
        if (!fits || total < k) return false;

        constexpr int EACH = SIZE * SEGMENT / THREADS, SCAN = RANGE / THREADS, READERS = THREADS / SIZE;
        const uint32_t from = thread / READERS, of_it = m.counts[from][rank];
        uint64_t r[EACH];
        uint32_t order[EACH];
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            const uint32_t i = j * READERS + thread % READERS;
            order[j] = UINT32_MAX;
            if (i >= of_it) continue;
            r[j] = m.sent_here[from][i];
            order[j] = atomicAdd(&s.bin[bucket_of(b, (uint32_t)(r[j] >> 32)) % RANGE], 1u);
        }
        __syncthreads();
        uint32_t in[SCAN], sum = 0, all;
#pragma unroll
        for (int j = 0; j < SCAN; j++) in[j] = s.bin[SCAN * thread + j], sum += in[j];
        uint32_t start = part::sum_before(s, sum, &all);
#pragma unroll
        for (int j = 0; j < SCAN; j++) s.bin[SCAN * thread + j] = start, start += in[j];
        __syncthreads();
#pragma unroll
        for (int j = 0; j < EACH; j++)
            if (order[j] != UINT32_MAX) s.rank[s.bin[bucket_of(b, (uint32_t)(r[j] >> 32)) % RANGE] + order[j]] = r[j];
        __syncthreads();
        for (uint32_t i = thread; i < mine && before < k; i += THREADS) {
            const uint64_t own = s.rank[i];
            const uint32_t bucket = bucket_of(b, (uint32_t)(own >> 32)) % RANGE, begin = s.bin[bucket];
            const uint32_t end = bucket + 1 < RANGE ? s.bin[bucket + 1] : mine;
            uint32_t place = before + begin;
            for (uint32_t at = begin; at < end; at++) place += s.rank[at] > own;
            if (place < k) out[place * p.out_step] = (int32_t)(UINT32_MAX - (uint32_t)own);
        }
        return true;
    }
#endif
};

template <int THREADS>
__global__ void __launch_bounds__(THREADS, 1) select_cluster(const __grid_constant__ params p) {
#if __CUDA_ARCH__ >= 900
    using team = gang<THREADS>;
    extern __shared__ __align__(16) unsigned char raw[];
    typename team::memory &m = *(typename team::memory *)raw;
    const uint32_t rank = hm::cluster_rank(), k = (uint32_t)p.k;
    const int64_t row = blockIdx.x / team::SIZE;
    hm::wait_for_previous();
    hm::let_next_start();
    window w;
    int32_t *out = p.out + row * p.out_stride;
    if (!window_of(p, row, &w)) return;
    if (w.n <= p.k) {
        for (int64_t i = rank * THREADS + threadIdx.x; i < p.k; i += team::SIZE * THREADS)
            out[i * p.out_step] = i < w.n ? (int32_t)i : -1;
        return;
    }
    float bar = __uint_as_float(0x7fffffffu);
    if (w.n > CAPACITY && team::choose(m, p, w, out, k, &bar)) return;
    if (rank) return;
    __syncthreads();
    if (threadIdx.x == 0) m.s.count = 0;
    __syncthreads();
    block<THREADS>::template collect_above<8, true>(m.s, w, bar);
    const uint32_t count = m.s.count;
    __syncthreads();
    if (count < k || count > CAPACITY) block<THREADS>::template collect_counting<8, true>(m.s, w, k, UINT64_MAX);
    block<THREADS>::write_sorted(m.s, p, out, k);
#else
    (void)p;
#endif
}
