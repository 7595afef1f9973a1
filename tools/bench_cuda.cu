/* bench_cuda.cu: what a CUDA device can do at best, and what calls take there. Everything that is timed is a graph
 * that is replayed: what the host needs for a launch is no part of it. */
#include "bench_cuda.h"

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
    c->copy = 2 * (double)bytes / copy, c->read = (double)bytes / read, c->write = (double)bytes / write;
    cudaFree(from), cudaFree(to);
    stopwatch_close(k);
    return good;
}

bool hm_cuda_bench_call(const hm_cuda_bench_input *call, double seconds, hm_cuda_times *times, char *why, size_t size) {
    const failure f = {why, size};
    stopwatch c;
    sets s;
    graph plain, pdl, copy;
    uint4 *from = nullptr, *to = nullptr;
    size_t held = 1, bytes = call->least_bytes, n = (bytes / 2 + 15) / 16;
    for (int b = 0; b < call->buffers; b++) held += call->buffer_size[b];
    size_t wanted = FOOTPRINT / held + 1;
    int count = wanted > MOST_SETS ? MOST_SETS : (int)wanted, calls;
    bool good = stopwatch_open(f, c);
    for (int k = 0; k < count && good; k++) good = set_make(f, call, c.stream, s, k);
    good = good && fine(f, cudaMalloc(&from, (n ? n : 1) * 16 * count), "memory of the device") &&
           fine(f, cudaMalloc(&to, (n ? n : 1) * 16 * count), "memory of the device");
    /* graphs of about 3 ms, and of 200 calls at most; every set equally often */
    double guess = (double)bytes / 3e12 + 2e-6;
    calls = (int)(3e-3 / guess);
    calls = (calls > 200 ? 200 : calls < 1 ? 1 : calls);
    calls = (calls + count - 1) / count * count;
    for (int i = 0; i < 2 && good; i++) { /* what is loaded at the first call is loaded before the capture */
        hm_cuda_pdl(i);
        good = call_set(f, call, s, i) && fine(f, cudaStreamSynchronize(c.stream), "the first call");
    }
    hm_cuda_pdl(0);
    good = good && graph_make(
                       f, c, calls, [&](int i, cudaStream_t) { return call_set(f, call, s, i); }, plain);
    hm_cuda_pdl(1);
    good = good && graph_make(
                       f, c, calls, [&](int i, cudaStream_t) { return call_set(f, call, s, i); }, pdl);
    hm_cuda_pdl(0);
    good = good && graph_make(
                       f, c, calls,
                       [&](int i, cudaStream_t stream) {
                           size_t at = n * (size_t)(i % count);
                           copy_kernel<<<blocks(n ? n : 1, 128), 128, 0, stream>>>(from + at, to + at, n);
                           return fine(f, cudaGetLastError(), "copy");
                       },
                       copy);
    double warm, spent = 0;
    for (int i = 0; i < 3 && good; i++)
        good = graph_time(f, c, plain, &warm) && graph_time(f, c, pdl, &warm) && graph_time(f, c, copy, &warm);
    times->runs = 0, times->sets = count;
    while (good && times->runs < HM_CUDA_RUNS && (times->runs < 7 || spent < seconds)) {
        int i = times->runs;
        good = graph_time(f, c, plain, &times->plain[i]) && graph_time(f, c, pdl, &times->pdl[i]) &&
               graph_time(f, c, copy, &times->copy[i]);
        spent += (times->plain[i] + times->pdl[i] + times->copy[i]) * calls;
        times->runs++;
    }
    graph_close(plain), graph_close(pdl), graph_close(copy);
    sets_close(s);
    cudaFree(from), cudaFree(to);
    stopwatch_close(c);
    return good;
}
