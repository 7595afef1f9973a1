/* bench_cuda.cu: what calls take on a CUDA device. Everything that is timed is a graph that is replayed: what the host
 * needs for a launch is no part of it. */
#include "bench_graph.cuh"
#include "hallmark/cuda.h"

namespace {

/* ---- sets of buffers ---- */

enum { MOST_SETS = 64 };
constexpr size_t FOOTPRINT =
    (size_t)384 << 20; /* bytes that the sets are to reach: some times the second-level cache */

/* The arguments of a call on the device, several times over. */
struct sets {
    void *memory[MOST_SETS][HM_MAX_ARGS] = {};
    char *args[MOST_SETS] = {};
    int count = 0;
};

void sets_close(sets &s) {
    for (int k = 0; k < s.count; k++) {
        for (void *memory : s.memory[k]) cudaFree(memory);
        free(s.args[k]);
    }
}

bool set_make(const failure &f, const hm_cuda_bench_input *call, void *stream, sets &s, int k) {
    const hm_op_info *op = call->op;
    s.count = k + 1;
    s.args[k] = (char *)malloc(op->args_size);
    if (!s.args[k]) return snprintf(f.why, f.size, "no memory"), false;
    memcpy(s.args[k], call->args, op->args_size);
    for (int b = 0; b < call->buffers; b++) {
        if (!fine(f, cudaMalloc(&s.memory[k][b], call->buffer_size[b]), "memory of the device")) return false;
        const void *from = k ? s.memory[0][b] : call->buffer[b];
        if (!fine(f, cudaMemcpy(s.memory[k][b], from, call->buffer_size[b], cudaMemcpyDefault), "a copy")) return false;
    }
    for (int i = 0; i < op->nargs; i++) {
        hm_tensor *t = hm_arg_tensor(op, s.args[k], i);
        int b = call->buffer_of[i];
        t->place = HM_CUDA;
        if (b >= 0) t->data = (char *)s.memory[k][b] + call->offset[i];
    }
    /* every argument struct ends with its stream */
    memcpy(s.args[k] + op->args_size - sizeof stream, &stream, sizeof stream);
    return true;
}

bool call_set(const failure &f, const hm_cuda_bench_input *call, const sets &s, int i) {
    hm_status status = call->function(s.args[i % s.count]);
    if (status) snprintf(f.why, f.size, "%s: %s", hm_status_name(status), hm_error());
    return status == HM_OK;
}

/* ---- a copy with the addresses of the call ---- */

/* Pieces of 1 to 16 bytes from one tensor to another of its shape. */
struct row_copy {
    const char *from;
    char *to;
    uint32_t extent[4];               /* outermost first, the last in pieces */
    int64_t from_step[4], to_step[4]; /* bytes */
    uint32_t pieces, blocks;
};
struct row_copies {
    row_copy of[4];
    int count;
};

template <typename T>
__global__ void __launch_bounds__(128) rows_kernel(const __grid_constant__ row_copies all) {
    uint32_t block = blockIdx.x;
    int k = 0;
    while (k + 1 < all.count && block >= all.of[k].blocks) block -= all.of[k++].blocks;
    const row_copy &c = all.of[k];
    uint32_t i = block * 128 + threadIdx.x;
    if (i >= c.pieces) return;
    int64_t from = 0, to = 0;
#pragma unroll
    for (int d = 3; d >= 0; d--) {
        if (c.extent[d] == 1) continue;
        uint32_t rest = i / c.extent[d], at = i - rest * c.extent[d];
        from += at * c.from_step[d], to += at * c.to_step[d], i = rest;
    }
    *(T *)(c.to + to) = *(const T *)(c.from + from);
}

/* The input that stands for output i in the copy: the one that it may be in place, or else one of its shape; -1: none.
 */
int partner_of(const hm_op_info *op, const void *args, int i) {
    const hm_tensor *out = hm_arg_tensor(op, args, i);
    int found = -1;
    for (int k = 0; k < op->nargs; k++) {
        const hm_tensor *in = hm_arg_tensor(op, args, k);
        if (op->args[k].direction != HM_IN || in->dtype == HM_DTYPE_NONE || in->ndim != out->ndim ||
            hm_dtype_size(in->dtype) != hm_dtype_size(out->dtype) ||
            memcmp(in->shape, out->shape, sizeof *in->shape * in->ndim))
            continue;
        bool named = op->args[i].in_place && !strcmp(op->args[i].in_place, op->args[k].name);
        if (named || found < 0) found = k;
        if (named) break;
    }
    return found;
}

/* Both tensors with as few dimensions as there can be, in pieces of at most `most` bytes. Returns the bytes of a piece;
 * 0: it cannot be made. *odd: it is not from one dense block to another. */
int row_copy_of(const hm_tensor *in, const hm_tensor *out, int most, row_copy *c, bool *odd) {
    int64_t size = (int64_t)hm_dtype_size(in->dtype), pieces = 1, piece = size, extent[4], from[4], to[4];
    int n = 0;
    *c = row_copy{(const char *)in->data, (char *)out->data, {1, 1, 1, 1}, {}, {}, 1, 1};
    for (int d = 0; d < in->ndim; d++) {
        if (in->shape[d] == 1) continue;
        int64_t a = in->stride[d] * size, b = out->stride[d] * size;
        if (n && from[n - 1] == a * in->shape[d] && to[n - 1] == b * in->shape[d])
            extent[n - 1] *= in->shape[d], from[n - 1] = a, to[n - 1] = b;
        else extent[n] = in->shape[d], from[n] = a, to[n] = b, n++;
    }
    if (!n) extent[0] = 1, from[0] = to[0] = size, n = 1;
    *odd |= n > 1 || from[0] != size || to[0] != size || in->data == out->data;
    if (from[n - 1] == size && to[n - 1] == size) { /* side by side */
        int64_t all = extent[n - 1] * size | (int64_t)(intptr_t)in->data | (int64_t)(intptr_t)out->data | most;
        for (int d = 0; d < n - 1; d++) all |= from[d] | to[d];
        piece = all & -all;
        extent[n - 1] = extent[n - 1] * size / piece, from[n - 1] = to[n - 1] = piece;
    }
    if (piece > most) return 0;
    for (int d = 0; d < n; d++) {
        int at = 4 - n + d;
        if (extent[d] < 1 || extent[d] > INT32_MAX || (pieces *= extent[d]) > INT32_MAX) return 0;
        c->extent[at] = (uint32_t)extent[d], c->from_step[at] = from[d], c->to_step[at] = to[d];
    }
    c->pieces = (uint32_t)pieces, c->blocks = blocks((size_t)pieces, 128);
    return (int)piece;
}

/* The copies for a call's arguments on the device. Returns the bytes of a piece; 0: there is no such copy, or it is
 * nothing but the plain one. */
int row_copies_of(const hm_op_info *op, const void *args, row_copies *all) {
    for (int most = 16, least;; most = least) { /* until all are in pieces of one size */
        bool odd = false;
        all->count = 0, least = most;
        for (int i = 0; i < op->nargs; i++) {
            const hm_tensor *out = hm_arg_tensor(op, args, i);
            if (op->args[i].direction == HM_IN || out->dtype == HM_DTYPE_NONE) continue;
            int k = op->args[i].direction == HM_OUT ? partner_of(op, args, i) : -1;
            if (k < 0 || all->count == 4) return 0;
            int piece = row_copy_of(hm_arg_tensor(op, args, k), out, most, &all->of[all->count++], &odd);
            if (!piece) return 0;
            least = piece < least ? piece : least;
        }
        if (least == most) return odd && all->count ? most : 0;
    }
}

cudaError_t launch_rows(const row_copies &all, int piece, cudaStream_t stream) {
    unsigned count = 0;
    for (int k = 0; k < all.count; k++) count += all.of[k].blocks;
    if (piece == 16) rows_kernel<uint4><<<count, 128, 0, stream>>>(all);
    else if (piece == 8) rows_kernel<uint2><<<count, 128, 0, stream>>>(all);
    else if (piece == 4) rows_kernel<uint32_t><<<count, 128, 0, stream>>>(all);
    else if (piece == 2) rows_kernel<uint16_t><<<count, 128, 0, stream>>>(all);
    else rows_kernel<uint8_t><<<count, 128, 0, stream>>>(all);
    return cudaGetLastError();
}

} // namespace

struct hm_cuda_bench {
    hm_cuda_bench_input call;
    stopwatch clock;
    sets buffers;
    graph plain, pdl, copy, rows;
    uint4 *from, *to;
    bool has_rows;
};

void hm_cuda_bench_free(hm_cuda_bench *b) {
    if (!b) return;
    graph_close(b->plain), graph_close(b->pdl), graph_close(b->copy), graph_close(b->rows);
    sets_close(b->buffers);
    cudaFree(b->from), cudaFree(b->to);
    stopwatch_close(b->clock);
    delete b;
}

static bool make_graphs(const failure &f, hm_cuda_bench *b, int count, int calls) {
    const hm_cuda_bench_input *call = &b->call;
    const size_t n = (call->least_bytes / 2 + 15) / 16;
    auto op = [&](int i, cudaStream_t) { return call_set(f, call, b->buffers, i); };
    bool good = true;
    for (int i = 0; i < 2 && good; i++) { /* what is loaded at the first call is loaded before the capture */
        hm_cuda_pdl(i);
        good = call_set(f, call, b->buffers, i) && fine(f, cudaStreamSynchronize(b->clock.stream), "the first call");
    }
    hm_cuda_pdl(0);
    good = good && graph_make(f, b->clock, calls, op, b->plain);
    hm_cuda_pdl(1);
    good = good && graph_make(f, b->clock, calls, op, b->pdl);
    hm_cuda_pdl(0);
    good = good && graph_make(
                       f, b->clock, calls,
                       [&](int i, cudaStream_t stream) {
                           size_t at = n * (size_t)(i % count);
                           copy_kernel<<<blocks(n ? n : 1, 128), 128, 0, stream>>>(b->from + at, b->to + at, n);
                           return fine(f, cudaGetLastError(), "copy");
                       },
                       b->copy);
    row_copies all;
    b->has_rows = good && row_copies_of(call->op, b->buffers.args[0], &all);
    return good && (!b->has_rows || graph_make(
                                        f, b->clock, calls,
                                        [&](int i, cudaStream_t stream) {
                                            row_copies one;
                                            int piece = row_copies_of(call->op, b->buffers.args[i % count], &one);
                                            return fine(f, launch_rows(one, piece, stream), "copy of rows");
                                        },
                                        b->rows));
}

hm_cuda_bench *hm_cuda_bench_new(const hm_cuda_bench_input *call, int *set_count, int *calls, char *why, size_t size) {
    const failure f = {why, size};
    hm_cuda_bench *b = new hm_cuda_bench();
    size_t held = 1, n = (call->least_bytes / 2 + 15) / 16;
    b->call = *call;
    for (int i = 0; i < call->buffers; i++) held += call->buffer_size[i];
    size_t wanted = FOOTPRINT / held + 1;
    int count = wanted > MOST_SETS ? MOST_SETS : (int)wanted;
    bool good = stopwatch_open(f, b->clock);
    for (int k = 0; k < count && good; k++) good = set_make(f, &b->call, b->clock.stream, b->buffers, k);
    good = good && fine(f, cudaMalloc(&b->from, (n ? n : 1) * 16 * count), "memory of the device") &&
           fine(f, cudaMalloc(&b->to, (n ? n : 1) * 16 * count), "memory of the device");
    /* graphs of about 3 ms, and of 200 calls at most; every set equally often */
    double guess = (double)call->least_bytes / 3e12 + 2e-6;
    *calls = (int)(3e-3 / guess);
    *calls = (*calls > 200 ? 200 : *calls < 1 ? 1 : *calls);
    *calls = (*calls + count - 1) / count * count;
    *set_count = count;
    if (good && make_graphs(f, b, count, *calls)) return b;
    hm_cuda_bench_free(b);
    return nullptr;
}

bool hm_cuda_bench_measure(hm_cuda_bench *b, double seconds, hm_cuda_times *times, char *why, size_t size) {
    const failure f = {why, size};
    double warm, spent = 0;
    bool good = true;
    auto replay = [&](int i) {
        return graph_time(f, b->clock, b->plain, i < 0 ? &warm : &times->plain[i]) &&
               graph_time(f, b->clock, b->pdl, i < 0 ? &warm : &times->pdl[i]) &&
               graph_time(f, b->clock, b->copy, i < 0 ? &warm : &times->copy[i]) &&
               (!b->has_rows || graph_time(f, b->clock, b->rows, i < 0 ? &warm : &times->rows[i]));
    };
    times->runs = 0, times->has_rows = b->has_rows;
    for (int i = 0; i < 3 && good; i++) good = replay(-1);
    while (good && times->runs < HM_CUDA_RUNS && (times->runs < 7 || spent < seconds)) {
        int i = times->runs++;
        good = replay(i);
        spent +=
            (times->plain[i] + times->pdl[i] + times->copy[i] + (b->has_rows ? times->rows[i] : 0)) * b->plain.calls;
    }
    return good;
}

bool hm_cuda_bench_pass(hm_cuda_bench *b, double *median, char *why, size_t size) {
    const failure f = {why, size};
    double seconds[7], warm;
    bool good = graph_time(f, b->clock, b->plain, &warm);
    for (int i = 0; i < 7 && good; i++) good = graph_time(f, b->clock, b->plain, &seconds[i]);
    qsort(seconds, 7, sizeof *seconds, by_value);
    *median = seconds[3];
    return good;
}
