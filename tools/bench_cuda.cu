/* bench_cuda.cu: what a CUDA device can do at best, and what calls take there. Everything that is timed is a graph
 * that is replayed: what the host needs for a launch is no part of it. */
#include "bench_cuda.h"

#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "hallmark/cuda.h"

namespace {

struct failure {
    char *why;
    size_t size;
};

bool fine(const failure &f, cudaError_t error, const char *what) {
    if (error == cudaSuccess) return true;
    snprintf(f.why, f.size, "%s: %s", what, cudaGetErrorString(error));
    cudaGetLastError();
    return false;
}

/* ---- what the device can do ---- */

/* 16 bytes a thread, 128 threads a block: the fastest plain copy on an H200. */
__global__ void __launch_bounds__(128) copy_kernel(const uint4 *from, uint4 *to, size_t n) {
    size_t i = (size_t)blockIdx.x * 128 + threadIdx.x;
    if (i < n) to[i] = from[i];
}

__global__ void __launch_bounds__(128) write_kernel(uint4 *to, size_t n, uint4 value) {
#pragma unroll
    for (int k = 0; k < 4; k++) {
        size_t i = (size_t)blockIdx.x * 512 + k * 128 + threadIdx.x;
        if (i < n) to[i] = value;
    }
}

/* Writes only where what it read is a value that is nowhere. */
__global__ void __launch_bounds__(128) read_kernel(const uint4 *from, uint4 *to, size_t n) {
    size_t i = ((size_t)blockIdx.x * 128 + threadIdx.x) * 4;
    uint4 v[4] = {};
#pragma unroll
    for (int k = 0; k < 4; k++) {
        size_t at = (size_t)blockIdx.x * 512 + k * 128 + threadIdx.x;
        if (at < n) v[k] = from[at];
    }
    unsigned all = v[0].x ^ v[1].y ^ v[2].z ^ v[3].w ^ v[0].y ^ v[1].x ^ v[2].w ^ v[3].z;
    if (all == 0x12345678u) to[i % n] = v[0];
}

/* ---- the tensor cores ---- */

enum { MATRIX_THREADS = 256, MATRIX_ROUNDS = 2048 };

/* Roughly normal: the sum of four bytes. */
__device__ float random_value(uint32_t i) {
    i = (i ^ 61) ^ (i >> 16), i *= 9, i ^= i >> 4, i *= 0x27d4eb2d, i ^= i >> 15;
    return ((int)(i & 255) + (int)(i >> 8 & 255) + (int)(i >> 16 & 255) + (int)(i >> 24) - 510) * (1 / 148.0f);
}

#if __CUDA_ARCH_FEAT_SM90_ALL
#define ACC(i) "+f"(acc[i])
#define ACC8(i)                                                                                                 \
    ACC(8 * i), ACC(8 * i + 1), ACC(8 * i + 2), ACC(8 * i + 3), ACC(8 * i + 4), ACC(8 * i + 5), ACC(8 * i + 6), \
        ACC(8 * i + 7)
#define ACC128                                                                                                    \
    ACC8(0), ACC8(1), ACC8(2), ACC8(3), ACC8(4), ACC8(5), ACC8(6), ACC8(7), ACC8(8), ACC8(9), ACC8(10), ACC8(11), \
        ACC8(12), ACC8(13), ACC8(14), ACC8(15)
#define LIST128                                                                                                       \
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29," \
    "%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,"    \
    "%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,"    \
    "%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,"   \
    "%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127}"

template <bool FP8>
__device__ __forceinline__ void multiply(float (&acc)[128], uint64_t a, uint64_t b) {
    if constexpr (FP8)
        asm volatile("wgmma.mma_async.sync.aligned.m64n256k32.f32.e4m3.e4m3 " LIST128 ", %128, %129, 1, 1, 1;"
                     : ACC128
                     : "l"(a), "l"(b));
    else
        asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 " LIST128 ", %128, %129, 1, 1, 1, 0, 0;"
                     : ACC128
                     : "l"(a), "l"(b));
}

/* 128-byte rows, swizzled; groups of 8 rows follow each other. */
__device__ __forceinline__ uint64_t tile_at(const void *shared) {
    uint64_t at = (uint64_t)__cvta_generic_to_shared(shared);
    return (at & 0x3ffff) >> 4 | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}
#endif

/* Products of tiles that stay where they are: two warpgroups, 64 x 256 each. one: operands are 1, as a check. Before 9.0a:
 * eight warps with operands in registers. */
template <bool FP8>
__global__ void __launch_bounds__(MATRIX_THREADS, 1) matrix_kernel(float *out, int rounds, bool one) {
    float sum = 0;
#if __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) unsigned char shared[]; /* 2 x 64 rows of A, 256 of B */
    for (int i = threadIdx.x; i < 384 * (FP8 ? 128 : 64); i += MATRIX_THREADS) {
        float v = one ? 1.0f : random_value(blockIdx.x * 65536 + i);
        if (FP8) shared[i] = (unsigned char)__nv_cvt_float_to_fp8(v, __NV_SATFINITE, __NV_E4M3);
        else ((__nv_bfloat16 *)shared)[i] = __float2bfloat16_rn(v);
    }
    asm volatile("fence.proxy.async;" ::: "memory");
    __syncthreads();
    float acc[128];
#pragma unroll
    for (int i = 0; i < 128; i++) acc[i] = 0;
    const uint64_t a = tile_at(shared + threadIdx.x / 128 * 64 * 128), b = tile_at(shared + 2 * 64 * 128);
    for (int round = 0; round < rounds; round++) {
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
        for (int k = 0; k < 4; k++) multiply<FP8>(acc, a + 2 * k, b + 2 * k);
        asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 1;" ::: "memory");
    }
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
    for (int i = 0; i < 128; i++) sum += acc[i];
#else
    uint32_t a[4][4], b[4][2];
    float acc[4][4][4] = {};
    for (int i = 0; i < 16; i++) {
        __nv_bfloat162 v = __floats2bfloat162_rn(one ? 1.0f : random_value(threadIdx.x * 64 + 2 * i),
                                                 one ? 1.0f : random_value(threadIdx.x * 64 + 2 * i + 1));
        memcpy(&a[i / 4][i % 4], &v, 4);
        if (i < 8) memcpy(&b[i / 2][i % 2], &v, 4);
    }
    for (int round = 0; round < rounds; round++)
#pragma unroll
        for (int i = 0; i < 16; i++) {
            float *c = acc[i / 4][i % 4];
            const uint32_t *x = a[i / 4], *y = b[i % 4];
            asm volatile(
                "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                "{%0,%1,%2,%3};"
                : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
        }
    for (int i = 0; i < 64; i++) sum += acc[i / 16][i / 4 % 4][i % 4];
#endif
    out[blockIdx.x * MATRIX_THREADS + threadIdx.x] = sum;
}

__global__ void empty_kernel() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;\ngriddepcontrol.launch_dependents;" ::: "memory");
#endif
}

unsigned blocks(size_t n, size_t each) { return (unsigned)((n + each - 1) / each); }

cudaError_t launch_empty(cudaStream_t stream, bool pdl) {
    cudaLaunchAttribute attribute = {};
    cudaLaunchConfig_t config = {};
    config.gridDim = 1, config.blockDim = 32, config.stream = stream;
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &attribute, config.numAttrs = pdl;
    return cudaLaunchKernelEx(&config, empty_kernel);
}

/* ---- graphs ---- */

struct graph {
    cudaGraphExec_t exec = nullptr;
    int calls = 0;
};

struct stopwatch {
    cudaStream_t stream = nullptr;
    cudaEvent_t before = nullptr, after = nullptr;
};

bool stopwatch_open(const failure &f, stopwatch &c) {
    return fine(f, cudaStreamCreateWithFlags(&c.stream, cudaStreamNonBlocking), "a stream") &&
           fine(f, cudaEventCreate(&c.before), "an event") && fine(f, cudaEventCreate(&c.after), "an event");
}

void stopwatch_close(stopwatch &c) {
    if (c.before) cudaEventDestroy(c.before);
    if (c.after) cudaEventDestroy(c.after);
    if (c.stream) cudaStreamDestroy(c.stream);
}

/* one(i, stream) launches call i; false if that failed, with the sentence written. */
template <typename F>
bool graph_make(const failure &f, const stopwatch &c, int calls, F one, graph &g) {
    cudaGraph_t captured = nullptr;
    if (!fine(f, cudaStreamBeginCapture(c.stream, cudaStreamCaptureModeThreadLocal), "capture")) return false;
    bool good = true;
    for (int i = 0; i < calls && good; i++) good = one(i, c.stream);
    cudaError_t ended = cudaStreamEndCapture(c.stream, &captured);
    if (good) good = fine(f, ended, "the end of the capture");
    g.calls = calls;
    if (good) good = fine(f, cudaGraphInstantiate(&g.exec, captured, 0), "a graph");
    if (captured) cudaGraphDestroy(captured);
    return good;
}

/* Seconds of one call in one replay. */
bool graph_time(const failure &f, const stopwatch &c, const graph &g, double *seconds) {
    float ms = 0;
    if (!fine(f, cudaEventRecord(c.before, c.stream), "an event") ||
        !fine(f, cudaGraphLaunch(g.exec, c.stream), "the launch of a graph") ||
        !fine(f, cudaEventRecord(c.after, c.stream), "an event") ||
        !fine(f, cudaEventSynchronize(c.after), "what was timed") ||
        !fine(f, cudaEventElapsedTime(&ms, c.before, c.after), "a time"))
        return false;
    *seconds = 1e-3 * ms / g.calls;
    return true;
}

void graph_close(graph &g) {
    if (g.exec) cudaGraphExecDestroy(g.exec);
    g.exec = nullptr;
}

int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of 15 replays. */
template <typename F>
bool graph_median(const failure &f, const stopwatch &c, int calls, F one, double *median) {
    graph g;
    double seconds[15], warm;
    bool good = graph_make(f, c, calls, one, g) && graph_time(f, c, g, &warm);
    for (int i = 0; i < 15 && good; i++) good = graph_time(f, c, g, &seconds[i]);
    qsort(seconds, 15, sizeof *seconds, by_value);
    *median = seconds[7];
    graph_close(g);
    return good;
}

/* Flops a second; 0 where there is no kernel for it. */
template <bool FP8>
bool matrix_peak(const failure &f, const stopwatch &c, double *flops) {
    cudaFuncAttributes about;
    int processors = 0;
    float *out = nullptr;
    double seconds = 1;
    const int shared = 384 * 128;
    *flops = 0;
    if (!fine(f, cudaFuncGetAttributes(&about, matrix_kernel<FP8>), "a kernel")) return false;
    bool own = about.ptxVersion >= 90; /* else it was compiled from PTX for any device */
    if (FP8 && !own) return true;
    int threads = MATRIX_THREADS, rounds = own ? MATRIX_ROUNDS : 16 * MATRIX_ROUNDS;
    /* 4 products of 64 x 256 x 32 bytes of each warpgroup, or 16 of 16 x 8 x 16 of each warp */
    double each =
        own ? 2.0 * (threads / 128) * 4 * 64 * 256 * (FP8 ? 32 : 16) : 2.0 * (threads / 32) * 16 * 16 * 8 * 16;
    float first[MATRIX_THREADS] = {0}, want = own ? 128 * 4 * 4 * (FP8 ? 32.0f : 16.0f) : 64 * 4 * 16.0f;
    bool good = fine(f, cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0), "the device") &&
                fine(f, cudaFuncSetAttribute(matrix_kernel<FP8>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
                     "shared memory") &&
                fine(f, cudaMalloc(&out, sizeof *out * MATRIX_THREADS * processors), "memory of the device");
    if (good) matrix_kernel<FP8><<<processors, threads, shared, c.stream>>>(out, 4, true);
    good = good && fine(f, cudaStreamSynchronize(c.stream), "matrix products") &&
           fine(f, cudaMemcpy(first, out, sizeof first, cudaMemcpyDeviceToHost), "a copy");
    for (int i = 0; i < threads && good; i++)
        if (first[i] != want)
            good = (snprintf(f.why, f.size, "matrix products of ones: %g, not %g", first[i], want), false);
    good = good && graph_median(
                       f, c, 8,
                       [&](int, cudaStream_t s) {
                           matrix_kernel<FP8><<<processors, threads, shared, s>>>(out, rounds, false);
                           return fine(f, cudaGetLastError(), "matrix products");
                       },
                       &seconds);
    *flops = each * rounds * processors / seconds;
    cudaFree(out);
    return good;
}

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

bool hm_cuda_bench_open(hm_cuda_ceilings *c, char *why, size_t size) {
    const failure f = {why, size};
    const size_t bytes = (size_t)2 << 30, n = bytes / 16;
    int driver = 0, runtime = 0;
    cudaDeviceProp device;
    uint4 *from = nullptr, *to = nullptr;
    stopwatch k;
    double copy = 1, read = 1, write = 1;
    if (!hm_cuda_devices()) return snprintf(why, size, "%s", hm_error()), false;
    bool good = fine(f, cudaGetDeviceProperties(&device, 0), "the device") && stopwatch_open(f, k) &&
                fine(f, cudaMalloc(&from, bytes), "memory of the device") &&
                fine(f, cudaMalloc(&to, bytes), "memory of the device") &&
                fine(f, cudaMemset(from, 0x5a, bytes), "memory of the device") &&
                fine(f, cudaMemset(to, 0x3c, bytes), "memory of the device");
    if (good) {
        cudaDriverGetVersion(&driver), cudaRuntimeGetVersion(&runtime);
        snprintf(c->device, sizeof c->device, "%.100s, %d multiprocessors, driver for CUDA %d.%d, runtime %d.%d",
                 device.name, device.multiProcessorCount, driver / 1000, driver % 1000 / 10, runtime / 1000,
                 runtime % 1000 / 10);
    }
    good = good && graph_median(
                       f, k, 4,
                       [&](int i, cudaStream_t s) {
                           if (i % 2) copy_kernel<<<blocks(n, 128), 128, 0, s>>>(to, from, n);
                           else copy_kernel<<<blocks(n, 128), 128, 0, s>>>(from, to, n);
                           return fine(f, cudaGetLastError(), "copy");
                       },
                       &copy);
    good = good && graph_median(
                       f, k, 4,
                       [&](int, cudaStream_t s) {
                           read_kernel<<<blocks(n, 512), 128, 0, s>>>(from, to, n);
                           return fine(f, cudaGetLastError(), "read");
                       },
                       &read);
    good = good && graph_median(
                       f, k, 4,
                       [&](int i, cudaStream_t s) {
                           write_kernel<<<blocks(n, 512), 128, 0, s>>>(to, n, make_uint4(i, 2, 3, 4));
                           return fine(f, cudaGetLastError(), "write");
                       },
                       &write);
    for (int pdl = 0; pdl < 2 && good; pdl++)
        good = graph_median(
            f, k, 200, [&](int, cudaStream_t s) { return fine(f, launch_empty(s, pdl), "launch"); },
            pdl ? &c->empty_pdl : &c->empty);
    good = good && graph_median(
                       f, k, 1, [&](int, cudaStream_t s) { return fine(f, launch_empty(s, false), "launch"); },
                       &c->empty_alone);
    good = good && matrix_peak<false>(f, k, &c->matrix_bf16) && matrix_peak<true>(f, k, &c->matrix_fp8);
    c->copy = 2 * (double)bytes / copy, c->read = (double)bytes / read, c->write = (double)bytes / write;
    cudaFree(from), cudaFree(to);
    stopwatch_close(k);
    return good;
}

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
