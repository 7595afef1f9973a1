/* bench_graph.cuh: calls as graphs that are replayed and timed; for the files of the bench. Each has its own of what is
 * in here. */
#ifndef HM_BENCH_GRAPH_CUH
#define HM_BENCH_GRAPH_CUH

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "bench_cuda.h"

struct failure {
    char *why;
    size_t size;
};

static inline bool fine(const failure &f, cudaError_t error, const char *what) {
    if (error == cudaSuccess) return true;
    snprintf(f.why, f.size, "%s: %s", what, cudaGetErrorString(error));
    cudaGetLastError();
    return false;
}

/* 16 bytes a thread, 128 threads a block: the fastest plain copy on an H200. */
static __global__ void __launch_bounds__(128) copy_kernel(const uint4 *from, uint4 *to, size_t n) {
    size_t i = (size_t)blockIdx.x * 128 + threadIdx.x;
    if (i < n) to[i] = from[i];
}

static inline unsigned blocks(size_t n, size_t each) { return (unsigned)((n + each - 1) / each); }

struct graph {
    cudaGraphExec_t exec = nullptr;
    int calls = 0;
};

struct stopwatch {
    cudaStream_t stream = nullptr;
    cudaEvent_t before = nullptr, after = nullptr;
};

static inline bool stopwatch_open(const failure &f, stopwatch &c) {
    return fine(f, cudaStreamCreateWithFlags(&c.stream, cudaStreamNonBlocking), "a stream") &&
           fine(f, cudaEventCreate(&c.before), "an event") && fine(f, cudaEventCreate(&c.after), "an event");
}

static inline void stopwatch_close(stopwatch &c) {
    if (c.before) cudaEventDestroy(c.before);
    if (c.after) cudaEventDestroy(c.after);
    if (c.stream) cudaStreamDestroy(c.stream);
}

/* one(i, stream) launches call i; false if that failed, with the sentence written. */
template <typename F>
static bool graph_make(const failure &f, const stopwatch &c, int calls, F one, graph &g) {
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
static inline bool graph_time(const failure &f, const stopwatch &c, const graph &g, double *seconds) {
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

static inline void graph_close(graph &g) {
    if (g.exec) cudaGraphExecDestroy(g.exec);
    g.exec = nullptr;
}

static inline int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of 15 replays. */
template <typename F>
static bool graph_median(const failure &f, const stopwatch &c, int calls, F one, double *median) {
    graph g;
    double seconds[15], warm;
    bool good = graph_make(f, c, calls, one, g) && graph_time(f, c, g, &warm);
    for (int i = 0; i < 15 && good; i++) good = graph_time(f, c, g, &seconds[i]);
    qsort(seconds, 15, sizeof *seconds, by_value);
    *median = seconds[7];
    graph_close(g);
    return good;
}

/* bench_matrix.cu: flops a second of the tensor cores; 0 where there is no kernel for it. */
bool hm_cuda_matrix_peak(const failure &f, const stopwatch &c, bool fp8, double *flops);

#endif
