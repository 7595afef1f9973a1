/* The norms of the CUDA plug-in device_faults. */
#include <hallmark/fused_add_rms_norm.h>
#include <hallmark/layer_norm.h>
#include <hallmark/rms_norm.h>

#include "device_faults.cuh"

extern "C" {
extern const int hm_plugin_abi;
extern const hm_place hm_plugin_place;
const int hm_plugin_abi = HM_PLUGIN_ABI;
const hm_place hm_plugin_place = HM_CUDA;
}

namespace {

__device__ float sum_of_block(float v, int fault) {
    __shared__ float part[THREADS];
    part[threadIdx.x] = v;
    __syncthreads();
    for (int half = THREADS / 2; half; half /= 2) {
        if (threadIdx.x < half) {
            float sum = part[threadIdx.x] + part[threadIdx.x + half];
            part[threadIdx.x] = fault == SUM_IN_BF16 ? in_bf16(sum) : sum;
        }
        if (fault == NO_BARRIER && half <= 16) __syncwarp();
        else __syncthreads();
    }
    float sum = part[0];
    __syncthreads();
    return sum;
}

struct norm_call {
    const bf16 *x, *residual, *weight;
    bf16 *out, *residual_out;
    int64_t n, x_stride, out_stride, residual_stride, residual_out_stride;
    float eps;
    bool norm_first, one_plus, unrounded;
    int fault;
};

__device__ int calls_so_far;

__device__ float read(const norm_call &c, const bf16 *x, const bf16 *residual, int64_t i) {
    float v = __bfloat162float(x[i]);
    if (!residual) return v;
    v += __bfloat162float(residual[i]);
    return c.unrounded != (c.fault == READS_UNROUNDED) ? v : in_bf16(v);
}

__global__ void norm(norm_call c) {
    const int64_t row = blockIdx.x, n = c.fault == TAIL_MISSED ? c.n / 32 * 32 : c.n;
    const bf16 *x = c.x + (c.fault == INT32_OFFSET ? (int)row * (int)c.x_stride : row * c.x_stride);
    const bf16 *residual = c.residual ? c.residual + row * c.residual_stride : nullptr;
    bf16 *out = c.out + row * c.out_stride;
    float sum = 0, eps = c.fault == EPS_FIXED ? 1e-5f : c.eps;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        float v = read(c, x, residual, i);
        sum += v * v;
        if (c.fault == SUM_IN_BF16) sum = in_bf16(sum);
    }
    sum = sum_of_block(sum, c.fault);
    float rs = c.fault == EPS_OUTSIDE_ROOT ? 1 / (sqrtf(sum / c.n) + eps) : 1 / sqrtf(sum / c.n + eps);
    if (c.fault == ROOT_OF_8_BITS) rs = in_bf16(rs);
    if (c.fault == ONE_BATCH && gridDim.x == 777) rs *= 1.01f;
    if (c.fault == RUN_DEPENDENT) rs = __uint_as_float(__float_as_uint(rs) + calls_so_far % 16 * 4);
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        float v = read(c, x, residual, i), w = c.weight ? __bfloat162float(c.weight[i]) : 1;
        if (residual && c.fault != RESIDUAL_NOT_WRITTEN) {
            float stored = __bfloat162float(x[i]) + __bfloat162float(residual[i]);
            if (c.fault == RESIDUAL_AS_F32) ((float *)c.residual_out)[row * c.residual_out_stride + i] = stored;
            else c.residual_out[row * c.residual_out_stride + i] = __float2bfloat16_rn(stored);
        }
        if (c.one_plus) w = c.fault == ONE_PLUS_IN_BF16 ? in_bf16(1 + w) : 1 + w;
        v *= rs;
        if (c.norm_first != (c.fault == ROUNDED_BEFORE_WEIGHT)) v = in_bf16(v);
        v *= w;
        out[i] = c.fault == TRUNCATED ? __float2bfloat16_rz(v) : __float2bfloat16_rn(v);
    }
}

__global__ void count_call() { calls_so_far++; }

hm_status run_norm(norm_call c, int64_t rows, void *stream) {
    c.fault = fault_asked_for();
    if (c.fault < 0) return HM_INTERNAL;
    count_call<<<1, 1, 0, (cudaStream_t)stream>>>();
    norm<<<(unsigned)rows, THREADS, 0, (cudaStream_t)stream>>>(c);
    return launched();
}

__global__ void centred(const float *x, float *out, int64_t n, int64_t x_stride, int64_t out_stride, float eps,
                        int fault) {
    x += blockIdx.x * x_stride, out += blockIdx.x * out_stride;
    float sum = 0, squares = 0;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) sum += x[i];
    float mean = sum_of_block(sum, fault) / n;
    const int64_t lanes = fault == MASKED_LANES_COUNTED ? (n + THREADS - 1) / THREADS * THREADS : n;
    for (int64_t i = threadIdx.x; i < lanes; i += THREADS) {
        float v = (i < n ? x[i] : 0) - mean;
        squares += v * v;
    }
    float variance = sum_of_block(squares, fault) / n;
    float rs = 1 / sqrtf(variance + eps);
    for (int64_t i = threadIdx.x; i < n; i += THREADS) out[i] = (x[i] - mean) * rs;
}

} // namespace

OP(rms_norm) {
    if (!rows_of(a->x, 2, HM_BF16) || a->variance_size || a->out.stride[1] != 1 ||
        (a->weight.dtype && (a->weight.dtype != HM_BF16 || a->weight.stride[0] != 1)))
        return HM_UNSUPPORTED;
    norm_call c = {};
    c.x = (const bf16 *)a->x.data, c.out = (bf16 *)a->out.data;
    c.weight = a->weight.dtype ? (const bf16 *)a->weight.data : nullptr;
    c.n = a->x.shape[1], c.x_stride = a->x.stride[0], c.out_stride = a->out.stride[0], c.eps = (float)a->eps;
    c.norm_first = c.weight && a->round == HM_ROUND_NORM_FIRST;
    c.one_plus = c.weight && a->weight_form == HM_WEIGHT_ONE_PLUS;
    return run_norm(c, a->x.shape[0], a->stream);
}

OP(fused_add_rms_norm) {
    if (!rows_of(a->x, 2, HM_BF16) || !rows_of(a->residual, 2, HM_BF16) || a->variance_size || a->weight.dtype ||
        a->out.stride[1] != 1 || a->residual_out.stride[1] != 1)
        return HM_UNSUPPORTED;
    norm_call c = {};
    c.x = (const bf16 *)a->x.data, c.out = (bf16 *)a->out.data, c.residual = (const bf16 *)a->residual.data;
    c.residual_out = (bf16 *)a->residual_out.data;
    c.n = a->x.shape[1], c.x_stride = a->x.stride[0], c.out_stride = a->out.stride[0], c.eps = (float)a->eps;
    c.residual_stride = a->residual.stride[0], c.residual_out_stride = a->residual_out.stride[0];
    c.unrounded = a->residual_read == HM_READ_UNROUNDED;
    return run_norm(c, a->x.shape[0], a->stream);
}

OP(layer_norm) {
    if (!rows_of(a->x, 2, HM_F32) || a->weight.dtype || a->bias.dtype || a->out.stride[1] != 1) return HM_UNSUPPORTED;
    centred<<<(unsigned)a->x.shape[0], THREADS, 0, (cudaStream_t)a->stream>>>(
        (const float *)a->x.data, (float *)a->out.data, a->x.shape[1], a->x.stride[0], a->out.stride[0], (float)a->eps,
        fault_asked_for());
    return launched();
}
