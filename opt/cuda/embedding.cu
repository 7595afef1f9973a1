/* embedding: a copy of rows, 16 bytes a thread where everything lies at multiples of that, else one element. */
#include "common.cuh"

extern "C" {
#include "../../op/embedding.h"
}

static const char op[] = "embedding";

namespace {

enum { THREADS = 128, EACH = 2 };

struct params {
    const void *ids, *table;
    void *out;
    hm::rows id_rows, out_rows;
    int64_t table_stride, table_step, out_step; /* in elements: from row to row, and within one */
    int64_t vocab_start, vocab_size, table_rows;
    int64_t first, end; /* of the threads, THREADS * EACH of them to a block */
    int64_t pieces;     /* of a row */
    hm::divider blocks; /* of a row */
    int size;           /* bytes of an element */
    bool wide_ids;      /* i64 */
};

/* U: what is copied at a time. A thread copies EACH pieces of one row, THREADS apart, so that they are under way
 * together once the id is known. */
template <typename U, int EACH>
__global__ void __launch_bounds__(THREADS) gather(const __grid_constant__ params p) {
    hm::wait_for_previous();
    hm::let_next_start();
    int64_t block = p.first / (THREADS * EACH) + blockIdx.x, row = hm::quotient(p.blocks, block);
    int64_t piece = (block - row * p.blocks.d) * (THREADS * EACH) + threadIdx.x;
    int64_t id_at = hm::row_offset(p.id_rows, row);
    int64_t id = p.wide_ids ? ((const int64_t *)p.ids)[id_at] : ((const int32_t *)p.ids)[id_at];
    if (id < 0 || id >= p.vocab_size) return; /* out of range: its row stays as it is */
    id -= p.vocab_start;
    const bool held = id >= 0 && id < p.table_rows;
    const char *from = (const char *)p.table + id * p.table_stride * p.size;
    char *to = (char *)p.out + hm::row_offset(p.out_rows, row) * p.size;
    const int64_t per = (int64_t)sizeof(U) / p.size;
    U v[EACH] = {};
#pragma unroll
    for (int k = 0; k < EACH; k++)
        if (held && piece + k * THREADS < p.pieces)
            v[k] = *(const U *)(from + (piece + k * THREADS) * per * p.table_step * p.size);
#pragma unroll
    for (int k = 0; k < EACH; k++)
        if (piece + k * THREADS < p.pieces) *(U *)(to + (piece + k * THREADS) * per * p.out_step * p.size) = v[k];
}

} // namespace

extern "C" hm_status hm_embedding_cuda(const hm_embedding_args *args) {
    hm_embedding_args a;
    hm_status s = hm_embedding_read(args, &a);
    if (s) return s;
    if (a.out.place != HM_CUDA) return hm_fail(HM_UNSUPPORTED, "%s: cuda works on device tensors only", op);
    int64_t elements = hm_tensor_elements(&a.out);
    if ((s = hm_cuda_ready(op)) || elements == 0) return s;
    int size = (int)hm_dtype_size(a.out.dtype);
    int64_t hidden = a.table.shape[1];
    bool whole = hidden * size % 16 == 0 && hm::aligned(a.out, 16) && (!a.table.shape[0] || hm::aligned(a.table, 16));
    params p = {};
    p.ids = a.ids.data, p.table = a.table.data, p.out = a.out.data;
    p.id_rows = hm::rows_of(a.ids, 0), p.out_rows = hm::rows_of(a.out);
    p.table_stride = a.table.stride[0], p.table_step = a.table.stride[1], p.out_step = a.out.stride[a.out.ndim - 1];
    p.vocab_start = a.vocab_start, p.vocab_size = a.vocab_size, p.table_rows = a.table.shape[0];
    p.size = size, p.wide_ids = a.ids.dtype == HM_I64;
    p.pieces = hidden / (whole ? 16 / size : 1);
    const bool wide = whole && p.pieces > THREADS;
    const int64_t lanes = THREADS * (wide ? EACH : 1), blocks = (p.pieces - 1) / lanes + 1;
    p.blocks = hm::divider_of(blocks), p.end = elements / hidden * blocks * lanes;
    void (*kernel)(params) = wide        ? gather<uint4, EACH>
                             : whole     ? gather<uint4, 1>
                             : size == 2 ? gather<uint16_t, 1>
                                         : gather<uint32_t, 1>;
    return hm::launch_all(op, kernel, p, THREADS, wide ? EACH : 1, a.stream);
}
