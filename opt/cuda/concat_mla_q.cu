/* concat_mla_q: one access of 16 bytes a thread where everything lies at multiples of that, as the fastest plain copy
 * has it, the pieces of a row along x of the block, or three where all of it fits on the device at once; else one
 * element a thread. Elements are 2 bytes of any kind. */
#include "common.cuh"

extern "C" {
#include "../../op/concat_mla_q.h"
}

static const char op[] = "concat_mla_q";

namespace {

using element = uint16_t;
enum { THREADS = 128, MOST_PIECES = 256 };

struct params {
    const void *nope, *pe;
    void *out;
    hm::rows nope_rows, pe_rows, out_rows;
    int64_t nope_step, pe_step, out_step; /* elements from one to the next in a row */
    int64_t first, end;                   /* rows, or elements counted through the tensor */
    int64_t split;                        /* pieces of a row that come from nope */
    hm::divider row;                      /* pieces of a row */
};

/* What every launch reads, in front. Rows are counted below 2^31. */
struct whole_params {
    const uint4 *nope, *pe;
    uint4 *out;
    int64_t nope_stride, pe_stride, out_stride; /* in pieces, from row to row, where one stride will do: SIMPLE */
    uint32_t end;                               /* rows */
    int split;                                  /* pieces of a row that come from nope */
    hm::rows nope_rows, pe_rows, out_rows;
};

/* K rows a thread, blockDim.y apart. */
template <int K, bool SIMPLE>
__global__ void __launch_bounds__(512) concat_whole(const __grid_constant__ whole_params p) {
    hm::wait_for_previous();
    hm::let_next_start();
    const uint32_t row = blockIdx.x * (blockDim.y * K) + threadIdx.y;
    const int at = threadIdx.x, in = at - p.split;
    const uint4 *from = in < 0 ? p.nope + at : p.pe + in;
    uint4 *to = p.out + at, v[K];
    if (SIMPLE) {
        const int64_t stride = in < 0 ? p.nope_stride : p.pe_stride;
        from += row * stride, to += row * p.out_stride;
#pragma unroll
        for (int k = 0; k < K; k++)
            if (row + k * blockDim.y < p.end) v[k] = from[k * blockDim.y * stride];
#pragma unroll
        for (int k = 0; k < K; k++)
            if (row + k * blockDim.y < p.end) to[k * blockDim.y * p.out_stride] = v[k];
        return;
    }
    const hm::rows &rows = in < 0 ? p.nope_rows : p.pe_rows;
#pragma unroll
    for (int k = 0; k < K; k++)
        if (row + k * blockDim.y < p.end)
            v[k] = *(const uint4 *)((const element *)from + hm::row_offset32(rows, row + k * blockDim.y));
#pragma unroll
    for (int k = 0; k < K; k++)
        if (row + k * blockDim.y < p.end)
            *(uint4 *)((element *)to + hm::row_offset32(p.out_rows, row + k * blockDim.y)) = v[k];
}

__global__ void __launch_bounds__(THREADS) concat_any(const __grid_constant__ params p) {
    hm::wait_for_previous();
    hm::let_next_start();
    int64_t i = p.first + (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= p.end) return;
    int64_t row = hm::quotient(p.row, i), at = i - row * p.row.d, in = at - p.split;
    const element *from = in < 0 ? (const element *)p.nope + hm::row_offset(p.nope_rows, row) + at * p.nope_step
                                 : (const element *)p.pe + hm::row_offset(p.pe_rows, row) + in * p.pe_step;
    ((element *)p.out + hm::row_offset(p.out_rows, row))[at * p.out_step] = *from;
}

} // namespace

extern "C" hm_status hm_concat_mla_q_cuda(const hm_concat_mla_q_args *args) {
    hm_concat_mla_q_args a;
    hm_status s = hm_concat_mla_q_read(args, &a);
    if (s) return s;
    if (a.q_out.place != HM_CUDA) return hm_fail(HM_UNSUPPORTED, "%s: cuda works on device tensors only", op);
    int64_t elements = hm_tensor_elements(&a.q_out);
    if ((s = hm_cuda_ready(op)) || elements == 0) return s;
    int last = a.q_out.ndim - 1;
    int64_t nope = a.ql_nope.shape[last], pe = a.q_pe.shape[last], pieces = (nope + pe) / 8;
    int64_t count = elements / (nope + pe);
    bool whole = nope % 8 == 0 && pe % 8 == 0 && (!nope || hm::aligned(a.ql_nope, 16)) &&
                 (!pe || hm::aligned(a.q_pe, 16)) && hm::aligned(a.q_out, 16) && pieces <= MOST_PIECES &&
                 hm::few(count + 3 * 512);
    params p = {};
    p.nope = a.ql_nope.data, p.pe = a.q_pe.data, p.out = a.q_out.data;
    p.nope_rows = hm::rows_of(a.ql_nope), p.pe_rows = hm::rows_of(a.q_pe), p.out_rows = hm::rows_of(a.q_out);
    p.nope_step = a.ql_nope.stride[last], p.pe_step = a.q_pe.stride[last], p.out_step = a.q_out.stride[last];
    if (whole) {
        whole_params w = {};
        w.nope = (const uint4 *)p.nope, w.pe = (const uint4 *)p.pe, w.out = (uint4 *)p.out;
        w.nope_stride = p.nope_rows.stride[0] / 8, w.pe_stride = p.pe_rows.stride[0] / 8;
        w.out_stride = p.out_rows.stride[0] / 8, w.end = (uint32_t)count, w.split = (int)(nope / 8);
        w.nope_rows = p.nope_rows, w.pe_rows = p.pe_rows, w.out_rows = p.out_rows;
        const bool simple = p.nope_rows.dims <= 1 && p.pe_rows.dims <= 1 && p.out_rows.dims <= 1;
        /* Three pieces a thread for 32 to 128 KiB a multiprocessor, by measurement. */
        const int64_t share = count * pieces / hm_cuda_processors();
        const bool three = share >= 2048 && share <= 8192;
        int rows = 1; /* of a block: about 128 threads; else as many as make whole warps, to 512 */
        while (pieces * rows < 128 || (!three && pieces * rows % 32 && pieces * 2 * rows <= 512)) rows *= 2;
        void (*kernel)(whole_params) = three    ? simple ? concat_whole<3, true> : concat_whole<3, false>
                                          : simple ? concat_whole<1, true>
                                                : concat_whole<1, false>;
        return hm::launch(op, kernel, (count - 1) / (rows * (three ? 3 : 1)) + 1,
                          dim3((unsigned)pieces, (unsigned)rows), 0, a.stream, w);
    }
    p.split = nope, p.row = hm::divider_of(nope + pe), p.end = elements;
    return hm::launch_all(op, concat_any, p, THREADS, 1, a.stream);
}
