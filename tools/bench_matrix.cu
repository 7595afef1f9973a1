/* bench_matrix.cu: what the tensor cores of a device can do. */
#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include "bench_graph.cuh"

namespace {

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

/* Products of tiles that stay where they are: two warpgroups, 64 x 256 each. one: operands are 1, as a check. Before
 * 9.0a: eight warps with operands in registers. */
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

} // namespace

bool hm_cuda_matrix_peak(const failure &f, const stopwatch &c, bool fp8, double *flops) {
    return fp8 ? matrix_peak<true>(f, c, flops) : matrix_peak<false>(f, c, flops);
}
