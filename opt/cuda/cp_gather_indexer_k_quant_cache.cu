/* cp_gather_indexer_k_quant_cache. A row's request is the last one that begins at or before it: a warp counts the
 * entries of cu_seq_lens up to its first row, 32 at a time, so that all of them are under way together, and its rows
 * go on from there. Where everything lies at multiples of 16 bytes a warp copies 8 or 32 rows, 16 bytes a thread; else
 * one byte a thread. */
#include "common.cuh"

extern "C" {
#include "../../op/indexer_cache.h"
}

static const char op[] = "cp_gather_indexer_k_quant_cache";

namespace {

enum { THREADS = 128, TILE = HM_INDEXER_TILE };

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
__device__ __forceinline__ int64_t count_up_to(const params &p, int64_t row) {
    const int lane = threadIdx.x % 32;
    int64_t count = 0, low = 0, high = p.requests + 1; /* halves first, where there are many */
    while (high - low > 256) {
        int64_t mid = low + (high - low) / 2;
        if (p.cu[mid * p.cu_step] <= row) low = mid + 1;
        else high = mid;
    }
    count = low;
    for (int64_t i = low; i < high; i += 128) {
        bool up_to[4];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            int64_t at = i + 32 * k + lane;
            up_to[k] = at < high && p.cu[at * p.cu_step] <= row;
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

/* A warp copies ROWS rows: its first ROWS threads look up one row each, and all of them copy, with the pieces of four
 * rows in each of ROWS / 4 accesses that are under way together. first and end count these accesses. */
template <int ROWS>
__global__ void __launch_bounds__(THREADS) gather_pieces(const __grid_constant__ params p) {
    constexpr int TOGETHER = ROWS / 4;
    hm::wait_for_previous();
    hm::let_next_start();
    const int lane = threadIdx.x % 32;
    const int64_t warp = p.first / (32 * TOGETHER) + ((int64_t)blockIdx.x * THREADS + threadIdx.x) / 32;
    const int64_t row = warp * ROWS + lane, count = count_up_to(p, warp * ROWS);
    int64_t offset = 0;
    const uint8_t *block = nullptr;
    if (lane < ROWS && row < p.row_count) block = block_of(p, row, count, &offset);
    for (int group = 0; group < p.groups; group++) {
        uint4 v[TOGETHER];
        if (block)
            *(uint32_t *)(p.scales + row * p.scales_stride + 4 * group) =
                *(const uint32_t *)(block + p.scale_byte + 4 * (offset * p.groups + group));
#pragma unroll
        for (int k = 0; k < TOGETHER; k++) {
            const int of = k * 4 + lane / 8, d = group * 128 + lane % 8 * 16;
            const uint8_t *from = (const uint8_t *)__shfl_sync(~0u, (unsigned long long)block, of);
            const int64_t at = __shfl_sync(~0u, (long long)offset, of);
            if (from) v[k] = *(const uint4 *)(from + code_byte(p, at, d));
        }
#pragma unroll
        for (int k = 0; k < TOGETHER; k++) {
            const int of = k * 4 + lane / 8, d = group * 128 + lane % 8 * 16;
            if (__shfl_sync(~0u, (unsigned long long)block, of))
                *(uint4 *)(p.codes + (warp * ROWS + of) * p.codes_stride + d) = v[k];
        }
    }
}

__global__ void __launch_bounds__(THREADS) gather_bytes(const __grid_constant__ params p) {
    hm::wait_for_previous();
    hm::let_next_start();
    const int64_t i = p.first + (int64_t)blockIdx.x * THREADS + threadIdx.x;
    const int64_t row = hm::quotient(p.lanes, i), at = i - row * p.lanes.d;
    const int64_t count = count_up_to(p, hm::quotient(p.lanes, i - threadIdx.x % 32));
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
    const bool whole = hm::aligned(a.dst_k, 16) && hm::aligned(a.dst_scale, 4) && (intptr_t)c.data % 16 == 0 &&
                       c.block_stride % 16 == 0;
    p.row_count = a.dst_k.shape[0];
    if (!whole) {
        p.lanes = hm::divider_of(c.entry), p.end = p.row_count * c.entry;
        return hm::launch_all(op, gather_bytes, p, THREADS, 1, a.stream);
    }
    const bool many = p.row_count > (int64_t)hm_cuda_processors() * 128;
    p.end = (p.row_count + 31) / 32 * 256;
    return hm::launch_all(op, many ? gather_pieces<32> : gather_pieces<8>, p, THREADS, many ? 8 : 2, a.stream);
}
