/* bench_ceilings.cu: what a CUDA device can do at best. */
#include "bench_graph.cuh"
#include "hallmark/cuda.h"

namespace {

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

cudaError_t launch_empty(cudaStream_t stream, bool pdl) {
    cudaLaunchAttribute attribute = {};
    cudaLaunchConfig_t config = {};
    config.gridDim = 1, config.blockDim = 32, config.stream = stream;
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &attribute, config.numAttrs = pdl;
    return cudaLaunchKernelEx(&config, empty_kernel);
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
    good = good && hm_cuda_matrix_peak(f, k, false, &c->matrix_bf16) && hm_cuda_matrix_peak(f, k, true, &c->matrix_fp8);
    c->copy = 2 * (double)bytes / copy, c->read = (double)bytes / read, c->write = (double)bytes / write;
    cudaFree(from), cudaFree(to);
    stopwatch_close(k);
    return good;
}
