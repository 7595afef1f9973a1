/* rms_norm for f32 as a CUDA plug-in may write it, and, by FAULT, how it may go wrong. Built where there is nvcc; run
 * where there is a device, by tests/accuracy/device_plugins.sh. */
#include <cuda_runtime.h>
#include <hallmark/rms_norm.h>

extern "C" {
extern const int hm_plugin_abi;
extern const hm_place hm_plugin_place;
const int hm_plugin_abi = HM_PLUGIN_ABI;
const hm_place hm_plugin_place = HM_CUDA;
hm_status hm_plugin_rms_norm(const hm_rms_norm_args *a);
}

enum {
    RIGHT,
    WRITES_PAST,
    WRITES_BEFORE,
    MODIFIES_INPUT,
    ILLEGAL_ADDRESS,
    TRAPS,
    NEVER_ENDS,
    HALF_A_WARP,
    BATCH_DEPENDENT
};

__global__ void norm(const float *x, float *out, int64_t n, int64_t x_stride, int64_t out_stride, float eps) {
    extern __shared__ float part[];
    x += blockIdx.x * x_stride, out += blockIdx.x * out_stride;
    float sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) sum += x[i] * x[i];
    part[threadIdx.x] = sum;
    __syncthreads();
    for (int half = blockDim.x / 2; half; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (FAULT == TRAPS) asm volatile("trap;");
    while (FAULT == NEVER_ENDS && ((volatile float *)part)[0] != -1) continue;
    float rs = 1 / sqrtf(part[0] / n + eps);
    if (FAULT == BATCH_DEPENDENT && gridDim.x > 2) rs = __uint_as_float(__float_as_uint(rs) + 1);
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
        if (FAULT != HALF_A_WARP || i % 32 < 16) out[i] = x[i] * rs;
    if (threadIdx.x || blockIdx.x + 1 < gridDim.x) return;
    if (FAULT == WRITES_PAST) out[n] = 1;
    if (FAULT == WRITES_BEFORE) out[-1 - (int64_t)blockIdx.x * out_stride] = 1;
    if (FAULT == MODIFIES_INPUT) ((float *)x)[0] = 1;
    if (FAULT == ILLEGAL_ADDRESS) out[1 << 19] = 1; /* 2 MiB on: no memory there */
}

hm_status hm_plugin_rms_norm(const hm_rms_norm_args *a) {
    if (a->x.dtype != HM_F32 || a->x.ndim != 2 || a->weight.dtype != HM_DTYPE_NONE || a->variance_size ||
        a->x.stride[1] != 1 || a->out.stride[1] != 1 || a->x.shape[0] < 1)
        return HM_UNSUPPORTED;
    norm<<<(unsigned)a->x.shape[0], 256, 1024, (cudaStream_t)a->stream>>>(
        (const float *)a->x.data, (float *)a->out.data, a->x.shape[1], a->x.stride[0], a->out.stride[0], (float)a->eps);
    return cudaGetLastError() == cudaSuccess ? HM_OK : HM_INTERNAL;
}
