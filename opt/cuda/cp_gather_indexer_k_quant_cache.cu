/* cp_gather_indexer_k_quant_cache. A row's request is the last one that begins at or before it. Where everything lies
 * at multiples of 16 bytes a warp looks it up for its first row, its threads go on from there for one row each, and all
 * of them copy 4 or 32 rows, 16 bytes at a time; else one byte a thread. What a row takes is a chain of three reads:
 * cu_seq_lens, block_table, bytes. Entries of the table are read before it is known whether they are asked for; such
 * an entry may hold anything, and nothing is made of it. */
#include "common.cuh"

extern "C" {
#include "../../op/indexer_cache.h"
}

static const char op[] = "cp_gather_indexer_k_quant_cache";

namespace {

enum { THREADS = 128, WINDOW = 2 * 32, GROUP = HM_INDEXER_GROUP, TILE = HM_INDEXER_TILE };

struct params {
    const uint8_t *cache;
    const int32_t *table, *cu;
    uint8_t *codes, *scales;
    int64_t block_stride, head_dim, scale_byte, num_blocks; /* scale_byte: of a block, the first of its scales */
    int64_t table_stride, table_step, cu_step, max_blocks;
    int64_t codes_stride, codes_step, scales_stride, scales_step; /* in bytes */
    int64_t first, end;                                           /* of the threads */
    int64_t requests, row_count;
    hm::divider lanes, block_size; /* lanes: threads of a row */
    int scale_width, groups;       /* bytes of an element of dst_scale */
    bool shuffle;
};

/* Entries of cu_seq_lens that are <= row; all threads of the warp, with the same row. */
__device__ __forceinline__ int64_t count_up_to(const int32_t *cu, int64_t step, int64_t requests, int64_t row) {
    const int lane = threadIdx.x % 32;
    int64_t count = 0, low = 0, high = requests + 1; /* halves first, where there are many */
    while (high - low > 256) {
        int64_t mid = low + (high - low) / 2;
        if (cu[mid * step] <= row) low = mid + 1;
        else high = mid;
    }
    count = low;
    for (int64_t i = low; i < high; i += 128) {
        bool up_to[4];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            int64_t at = i + 32 * k + lane;
            up_to[k] = at < high && cu[at * step] <= row;
        }
#pragma unroll
        for (int k = 0; k < 4; k++) count += __popc(__ballot_sync(~0u, up_to[k]));
    }
    return count;
}

/* The block of row `row`, and its offset there; NULL if the row has no request or what it names is out of range.
 * count: of entries up to the warp's first row. */
__device__ __forceinline__ const uint8_t *block_of(const params &p, int64_t row, int64_t count, int64_t *offset) {
    while (count <= p.requests && p.cu[count * p.cu_step] <= row) count++;
    if (count == 0 || count > p.requests) return nullptr;
    const int64_t request = count - 1, position = row - p.cu[request * p.cu_step];
    const int64_t page = hm::quotient(p.block_size, position);
    *offset = position - page * p.block_size.d;
    if (position < 0 || page >= p.max_blocks) return nullptr;
    const int64_t block = p.table[request * p.table_stride + page * p.table_step];
    return block < 0 || block >= p.num_blocks ? nullptr : p.cache + block * p.block_stride;
}

__device__ __forceinline__ int64_t code_byte(const params &p, int64_t offset, int64_t d) {
    if (!p.shuffle) return offset * p.head_dim + d;
    return offset / TILE * TILE * p.head_dim + d / TILE * TILE * TILE + offset % TILE * TILE + d % TILE;
}

/* What every launch reads, in front; strides in bytes but for those of table and cu. */
struct piece_params {
    const int32_t *cu, *table;
    const uint8_t *cache;
    uint8_t *codes, *scales;
    int64_t table_stride, block_stride, codes_stride, scales_stride;
    int32_t requests, max_blocks, num_blocks, row_count, head_dim, scale_byte, groups;
    int32_t cu_step, table_step;
    uint32_t block_size, block_m, block_s; /* a divider */
    uint32_t per_row;                      /* requests of a row, at most 1, times 2^32 */
    int32_t none;                          /* -1 */
    bool shuffle;
};

/* A warp copies ROWS rows: its first ROWS threads look up one row each, and all of them copy, with the pieces of four
 * rows in each of ROWS / 4 accesses that are under way together. Counts are below 2^31. */
template <int ROWS>
__global__ void __launch_bounds__(THREADS) gather_pieces(const __grid_constant__ piece_params p) {
    constexpr int TOGETHER = ROWS / 4;
    hm::wait_for_previous();
    hm::let_next_start();
    const int lane = threadIdx.x % 32, first = (int)(blockIdx.x * THREADS + threadIdx.x) / 32 * ROWS;
    const int row = first + lane;
    /* The request of the warp's first row, its first row and that of the next one; meanwhile the block that the thread
     * needs if there is one request, which begins at row 0. */
    int request, start, next, ahead = 0, page = (int)(((uint64_t)(uint32_t)row * p.block_m) >> (31 + p.block_s)),
                              block = -1;
    if (p.requests < 32) {
        const int32_t at = lane <= p.requests ? p.cu[lane * (int64_t)p.cu_step] : INT32_MAX;
        if (p.requests == 1 && page < p.max_blocks) block = p.table[page * (int64_t)p.table_step];
        request = __popc(__ballot_sync(~0u, at <= first && lane <= p.requests)) - 1;
        start = __shfl_sync(~0u, at, request & 31), next = __shfl_sync(~0u, at, (request + 1) & 31);
    } else {
        /* A window of entries about that of the block's first row, if all requests were of one length. Each warp reads
         * it by itself: to share it takes a barrier. The fewer lines of it all blocks ask for at once, the better. */
        const int guess = (int)__umulhi(blockIdx.x * (THREADS / 32 * ROWS), p.per_row), all = p.requests + 1;
        const int base = min(max(guess - WINDOW / 2, 0), max(all - WINDOW, 0));
        const int entry = base + lane;
        const int low_half = entry < all ? p.cu[entry * (int64_t)p.cu_step] : INT32_MAX;
        const int high_half = entry + 32 < all ? p.cu[(entry + 32) * (int64_t)p.cu_step] : INT32_MAX;
        /* Entries of the table that are likely to be asked for, one a thread, so that they are near by then: the first
         * 16 and more of 32 requests, wherever the lines begin. */
        const int likely = min(max(guess - 8 + (int)threadIdx.x / 4, 0), p.requests - 1), fourth = threadIdx.x % 4,
                  deep = fourth * 8 - (fourth != 0);
        if (deep < p.max_blocks) ahead = p.table[likely * p.table_stride + deep * (int64_t)p.table_step];
        const int count =
            __popc(__ballot_sync(~0u, low_half <= first)) + __popc(__ballot_sync(~0u, high_half <= first));
        if ((count > 0 || base == 0) && (count < WINDOW || base + WINDOW >= all)) {
            const int before = __shfl_sync(~0u, count > 32 ? high_half : low_half, (count - 1) & 31),
                      behind = __shfl_sync(~0u, count >= 32 ? high_half : low_half, count & 31);
            request = base + count - 1;
            start = count > 0 ? before : 0;
            next = count < WINDOW ? behind : INT32_MAX;
        } else {
            int low = 0, high = all; /* it is not there: by halves */
            while (low < high) {
                const int mid = low + (high - low) / 2;
                if (p.cu[mid * (int64_t)p.cu_step] <= first) low = mid + 1;
                else high = mid;
            }
            request = low - 1;
            start = request >= 0 ? p.cu[request * (int64_t)p.cu_step] : 0;
            next = request < p.requests ? p.cu[(request + 1) * (int64_t)p.cu_step] : INT32_MAX;
        }
    }
    const uint8_t *from = nullptr, *scale = nullptr; /* of this thread's row */
    int offset = 0;
    if (lane < ROWS && row < p.row_count) {
        bool looked_up = p.requests == 1 && start == 0;
        while (request < p.requests && row >= next) { /* the first row is another request's, or no one's */
            request++, start = next, looked_up = false;
            next = request < p.requests ? p.cu[(request + 1) * (int64_t)p.cu_step] : INT32_MAX;
        }
        const int position = row - start;
        if (request >= 0 && request < p.requests && position >= 0) {
            page = (int)(((uint64_t)(uint32_t)position * p.block_m) >> (31 + p.block_s));
            offset = position - page * (int)p.block_size;
            if (!looked_up) {
                block = -1;
                if (page < p.max_blocks) block = p.table[request * p.table_stride + page * (int64_t)p.table_step];
            }
            if ((uint32_t)block < (uint32_t)p.num_blocks) {
                from = p.cache + block * p.block_stride;
                scale = from + (p.scale_byte + 4 * offset * p.groups);
                from += p.shuffle ? offset / TILE * TILE * p.head_dim + offset % TILE * TILE : offset * p.head_dim;
            }
        }
    }
    const uint32_t live = __ballot_sync(~0u, from != nullptr);
    const int piece = lane % 8 * 16, step = p.shuffle ? TILE * TILE : TILE;
#pragma unroll 1
    for (int group = 0; group < p.groups; group++) {
        uint4 v[TOGETHER];
        uint32_t s = 0;
        if (scale) s = *(const uint32_t *)(scale + 4 * group);
#pragma unroll
        for (int k = 0; k < TOGETHER; k++) {
            const int of = k * 4 + lane / 8;
            const uint8_t *at = (const uint8_t *)__shfl_sync(~0u, (unsigned long long)from, of);
            if (live >> of & 1) v[k] = *(const uint4 *)(at + (group * (GROUP / TILE) + lane % 8) * step);
        }
#pragma unroll
        for (int k = 0; k < TOGETHER; k++) {
            const int of = k * 4 + lane / 8;
            if (live >> of & 1) *(uint4 *)(p.codes + (first + of) * p.codes_stride + (group * GROUP + piece)) = v[k];
        }
        if (scale) *(uint32_t *)(p.scales + row * p.scales_stride + 4 * group) = s;
    }
    /* Something has to be made of what was read ahead, or the compiler leaves it out: what was done already. */
    if (ahead == p.none) hm::let_next_start();
}

__global__ void __launch_bounds__(THREADS) gather_bytes(const __grid_constant__ params p) {
    hm::wait_for_previous();
    hm::let_next_start();
    const int64_t i = p.first + (int64_t)blockIdx.x * THREADS + threadIdx.x;
    const int64_t row = hm::quotient(p.lanes, i), at = i - row * p.lanes.d;
    const int64_t count = count_up_to(p.cu, p.cu_step, p.requests, hm::quotient(p.lanes, i - threadIdx.x % 32));
    int64_t offset = 0;
    if (i >= p.end) return;
    const uint8_t *block = block_of(p, row, count, &offset);
    if (!block) return;
    if (at < p.head_dim) {
        p.codes[row * p.codes_stride + at * p.codes_step] = block[code_byte(p, offset, at)];
        return;
    }
    const int64_t byte = at - p.head_dim, element = byte / p.scale_width;
    p.scales[row * p.scales_stride + element * p.scales_step + byte % p.scale_width] =
        block[p.scale_byte + 4 * offset * p.groups + byte];
}

} // namespace

extern "C" hm_status hm_cp_gather_indexer_k_quant_cache_cuda(const hm_cp_gather_indexer_k_quant_cache_args *args) {
    hm_cp_gather_indexer_k_quant_cache_args a;
    hm_indexer_cache c;
    hm_status s = hm_cp_gather_indexer_k_quant_cache_read(args, &a, &c);
    if (s) return s;
    if (a.dst_k.place != HM_CUDA) return hm_fail(HM_UNSUPPORTED, "%s: cuda works on device tensors only", op);
    if ((s = hm_cuda_ready(op)) || hm_tensor_elements(&a.dst_k) == 0) return s;
    params p = {};
    p.cache = c.data, p.table = (const int32_t *)a.block_table.data, p.cu = (const int32_t *)a.cu_seq_lens.data;
    p.codes = (uint8_t *)a.dst_k.data, p.scales = (uint8_t *)a.dst_scale.data;
    p.block_stride = c.block_stride, p.head_dim = c.head_dim, p.num_blocks = c.block_size ? c.num_blocks : 0;
    p.scale_byte = c.block_size * c.head_dim;
    p.table_stride = a.block_table.stride[0], p.table_step = a.block_table.stride[1];
    p.max_blocks = a.block_table.shape[1], p.requests = a.block_table.shape[0], p.cu_step = a.cu_seq_lens.stride[0];
    p.scale_width = (int)hm_dtype_size(a.dst_scale.dtype), p.groups = (int)c.groups;
    p.codes_stride = a.dst_k.stride[0], p.codes_step = a.dst_k.stride[1];
    p.scales_stride = a.dst_scale.stride[0] * p.scale_width, p.scales_step = a.dst_scale.stride[1] * p.scale_width;
    p.block_size = hm::divider_of(c.block_size), p.shuffle = a.layout == HM_LAYOUT_SHUFFLE;
    p.row_count = a.dst_k.shape[0];
    const bool whole = hm::aligned(a.dst_k, 16) && hm::aligned(a.dst_scale, 4) && (intptr_t)c.data % 16 == 0 &&
                       c.block_stride % 16 == 0 && hm::few(p.row_count + 32 * THREADS) && hm::few(c.num_blocks) &&
                       hm::few(p.max_blocks) && hm::few(p.requests + 1) && hm::few(c.block_size * c.entry) &&
                       hm::few(p.cu_step) && hm::few(-p.cu_step) && hm::few(p.table_step) && hm::few(-p.table_step);
    if (!whole) {
        p.lanes = hm::divider_of(c.entry), p.end = p.row_count * c.entry;
        return hm::launch_all(op, gather_bytes, p, THREADS, 1, a.stream);
    }
    piece_params q = {};
    q.cu = p.cu, q.table = p.table, q.cache = p.cache, q.codes = p.codes, q.scales = p.scales;
    q.table_stride = p.table_stride, q.block_stride = p.block_stride;
    q.codes_stride = p.codes_stride, q.scales_stride = p.scales_stride;
    q.requests = (int32_t)p.requests, q.max_blocks = (int32_t)p.max_blocks, q.num_blocks = (int32_t)p.num_blocks;
    q.row_count = (int32_t)p.row_count, q.head_dim = (int32_t)p.head_dim, q.scale_byte = (int32_t)p.scale_byte;
    q.groups = p.groups, q.cu_step = (int32_t)p.cu_step, q.table_step = (int32_t)p.table_step, q.shuffle = p.shuffle,
    q.none = -1;
    q.block_size = (uint32_t)c.block_size, q.block_m = p.block_size.m, q.block_s = p.block_size.s;
    q.per_row =
        p.requests < p.row_count ? (uint32_t)(((uint64_t)p.requests << 32) / (uint64_t)p.row_count) : UINT32_MAX;
    const bool many = p.row_count > (int64_t)hm_cuda_processors() * 128;
    const int rows = many ? 32 : 4;
    void (*kernel)(piece_params) = many ? gather_pieces<32> : gather_pieces<4>;
    return hm::launch(op, kernel, (p.row_count - 1) / (rows * (THREADS / 32)) + 1, dim3(THREADS), 0, a.stream, q);
}
