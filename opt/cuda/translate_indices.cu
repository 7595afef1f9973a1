/* translate_indices: a block a row; four indices a thread where rows lie at multiples of 16 bytes, else one. */
#include "common.cuh"

extern "C" {
#include "../../op/translate_indices.h"
}

static const char op[] = "translate_indices";

namespace {

enum { THREADS = 512 };

struct params {
    const int32_t *indices, *requests, *base; /* base: the block table, or where workspaces start */
    int32_t *out, *valid;                     /* valid: NULL if not asked for */
    int64_t k, in_stride, in_step, out_stride, out_step, request_step, valid_step;
    int64_t base_stride, base_step, base_rows, max_blocks;
    int64_t row_count;
    hm::divider block_size;
    bool paged;
};

enum { OUT_OF_RANGE = -2 };

__device__ __forceinline__ int32_t translated(const params &p, const int32_t *base, int64_t start, int32_t t) {
    if (t < 0) return -1;
    int64_t to = start + t;
    if (p.paged) {
        const int64_t size = p.block_size.d;
        const uint32_t block = hm::quotient32(p.block_size, (uint32_t)t); /* 0 for sizes past 2^31, too */
        if (block >= p.max_blocks) return -1;
        const int64_t at = base[block * p.base_step];
        if (at < 0 || (at > 0 && size > INT32_MAX)) return OUT_OF_RANGE;
        to = at * size + ((uint32_t)t - block * (uint32_t)size);
    } else if (start < 0) return OUT_OF_RANGE;
    return to > INT32_MAX ? OUT_OF_RANGE : (int32_t)to;
}

template <int N>
struct alignas(4 * N) some {
    int32_t t[N];
};

template <int N>
__device__ __forceinline__ some<N> translated(const params &p, const int32_t *base, int64_t start, some<N> v) {
#pragma unroll
    for (int n = 0; n < N; n++) v.t[n] = translated(p, base, start, v.t[n]);
    return v;
}

/* A row of which anything is out of range stays as it is, so that all of it is looked at before any is written; the
 * first of what a thread has is kept from then. */
template <int N>
__global__ void __launch_bounds__(THREADS) translate(const __grid_constant__ params p) {
    __shared__ int counts[THREADS / 32];
    hm::wait_for_previous();
    hm::let_next_start();
    const int64_t first = threadIdx.x * N, step = (int64_t)blockDim.x * N;
    for (int64_t row = blockIdx.x; row < p.row_count; row += gridDim.x) {
        const int32_t *in = p.indices + row * p.in_stride;
        int32_t *out = p.out + row * p.out_stride;
        some<N> kept = {}; /* as it is read, on its way together with the request; then as it is written */
        if (first < p.k) kept = *(const some<N> *)(in + first * p.in_step);
        const int64_t request = p.requests[row * p.request_step];
        if (request < 0 || request >= p.base_rows) continue;
        const int32_t *base = p.base + request * p.base_stride;
        const int64_t start = p.paged ? 0 : *base;
        int count = 0; /* k is less than 2^31 wherever memory for it can be */
        bool bad = false;
        for (int64_t i = first; i < p.k; i += step) {
            const some<N> v = translated<N>(p, base, start, i == first ? kept : *(const some<N> *)(in + i * p.in_step));
#pragma unroll
            for (int n = 0; n < N; n++) count += v.t[n] >= 0, bad |= v.t[n] == OUT_OF_RANGE;
            if (i == first) kept = v;
        }
        count = __reduce_add_sync(~0u, count);
        if (threadIdx.x % 32 == 0) counts[threadIdx.x / 32] = count;
        if (__syncthreads_or(bad)) continue;
        for (int64_t i = first; i < p.k; i += step)
            *(some<N> *)(out + i * p.out_step) =
                i == first ? kept : translated<N>(p, base, start, *(const some<N> *)(in + i * p.in_step));
        if (p.valid && threadIdx.x < 32) {
            const int all = __reduce_add_sync(~0u, threadIdx.x < blockDim.x / 32 ? counts[threadIdx.x] : 0);
            if (threadIdx.x == 0) p.valid[row * p.valid_step] = all;
        }
        __syncthreads();
    }
}

} // namespace

extern "C" hm_status hm_translate_indices_cuda(const hm_translate_indices_args *args) {
    hm_translate_indices_args a;
    hm_status s = hm_translate_indices_read(args, &a);
    if (s) return s;
    if (a.out.place != HM_CUDA) return hm_fail(HM_UNSUPPORTED, "%s: cuda works on device tensors only", op);
    params p = {};
    p.paged = a.block_table.dtype != HM_DTYPE_NONE, p.row_count = a.indices.shape[0], p.k = a.indices.shape[1];
    if (a.valid_count.dtype != HM_DTYPE_NONE) p.valid = (int32_t *)a.valid_count.data;
    if ((s = hm_cuda_ready(op)) || p.row_count == 0 || (p.k == 0 && !p.valid)) return s;
    const hm_tensor &base = p.paged ? a.block_table : a.workspace_starts;
    p.indices = (const int32_t *)a.indices.data, p.requests = (const int32_t *)a.req_id.data;
    p.base = (const int32_t *)base.data, p.out = (int32_t *)a.out.data;
    p.in_stride = a.indices.stride[0], p.in_step = a.indices.stride[1];
    p.out_stride = a.out.stride[0], p.out_step = a.out.stride[1];
    p.request_step = a.req_id.stride[0], p.valid_step = a.valid_count.stride[0];
    p.base_stride = base.stride[0], p.base_rows = base.shape[0];
    if (p.paged) p.base_step = base.stride[1], p.max_blocks = base.shape[1];
    p.block_size = hm::divider_of(a.block_size);
    const bool whole = p.k % 4 == 0 && hm::aligned(a.indices, 16) && hm::aligned(a.out, 16);
    const int64_t pieces = p.k / (whole ? 4 : 1), warps = pieces < 32 ? 1 : (pieces + 31) / 32;
    const int threads = warps < THREADS / 32 ? (int)warps * 32 : (int)THREADS;
    return hm::launch(op, whole ? translate<4> : translate<1>, p.row_count, dim3(threads), 0, a.stream, p);
}
