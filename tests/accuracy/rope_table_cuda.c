/* rope_table_cuda: on a device rope_table has the bits of ref, for every scaling, precision and dtype. Exit 77
 * (skipped) where there is no device. */
#include <hallmark/rope_table.h>

#include "on_device.h"

enum { ROWS = 200 };

static int compare(hm_rope_scaling scaling, hm_table_precision precision, hm_rope_fraction fraction, hm_dtype dtype,
                   int64_t dim) {
    const size_t size = (size_t)(ROWS * dim) * hm_dtype_size(dtype);
    int64_t positions[ROWS], half = dim / 2;
    float factors[64];
    char *want = malloc(size), *have = malloc(size);
    void *positions_there, *factors_there = NULL, *out = NULL;
    uint64_t z = (uint64_t)dim;
    need(want && have, "memory");
    for (int i = 0; i < ROWS; i++)
        z = z * 6364136223846793005u + 1442695040888963407u, positions[i] = (int64_t)(z >> 40 >> i % 21);
    for (int i = 0; i < 64; i++) factors[i] = 1 + 0.37f * (float)i;
    need(!cudaMalloc(&positions_there, sizeof positions) && !cudaMalloc(&factors_there, sizeof factors) &&
             !cudaMalloc(&out, size),
         "device memory");
    cudaMemcpy(positions_there, positions, sizeof positions, cudaMemcpyHostToDevice);
    cudaMemcpy(factors_there, factors, sizeof factors, cudaMemcpyHostToDevice);
    hm_rope_table_args a = {.size = sizeof a, .precision = precision, .scaling = scaling, .fraction = fraction};
    a.base = 500000, a.factor = scaling == HM_SCALING_LINEAR ? 2.5 : 8;
    a.original_max_position = 8192, a.max_position = 131072;
    a.beta_fast = 32, a.beta_slow = 1, a.extrapolation_factor = 1, a.mscale = 0.7, a.mscale_all_dim = 1;
    a.low_freq_factor = 1, a.high_freq_factor = 4;
    a.out = (hm_tensor){.data = want, .dtype = dtype, .ndim = 2, .shape = {ROWS, dim}, .stride = {dim, 1}};
    a.positions = (hm_tensor){.data = positions, .dtype = HM_I64, .ndim = 1, .shape = {ROWS}, .stride = {1}};
    if (scaling == HM_SCALING_LONGROPE)
        a.factors = (hm_tensor){.data = factors, .dtype = HM_F32, .ndim = 1, .shape = {half}, .stride = {1}};
    need(!hm_rope_table_ref(&a), "ref");
    a.out.data = out, a.positions.data = positions_there, a.out.place = a.positions.place = HM_CUDA;
    if (a.factors.dtype) a.factors.data = factors_there, a.factors.place = HM_CUDA;
    cudaMemset(out, 0x77, size);
    need(!hm_rope_table_cuda(&a), "cuda");
    need(!cudaMemcpy(have, out, size, cudaMemcpyDeviceToHost), "the kernel");
    int bad = memcmp(want, have, size) != 0;
    if (bad)
        printf("not ok: scaling %d, precision %d, fraction %d, %s, rotary_dim %lld: other bits than ref\n",
               (int)scaling, (int)precision, (int)fraction, hm_dtype_name(dtype), (long long)dim);
    cudaFree(positions_there), cudaFree(factors_there), cudaFree(out);
    free(want), free(have);
    return bad;
}

int main(void) {
    static const hm_dtype dtypes[] = {HM_F32, HM_F16, HM_BF16};
    static const int64_t dims[] = {64, 128, 96, 6};
    int bad = 0, count = 0;
    if (hm_cuda_devices() < 1) {
        printf("skipped: no device\n");
        return 77;
    }
    for (int scaling = HM_SCALING_DEFAULT; scaling <= HM_SCALING_LONGROPE; scaling++)
        for (int precision = 0; precision < 2; precision++)
            for (int fraction = 0; fraction < 2; fraction++)
                for (int d = 0; d < 3; d++)
                    for (int i = 0; i < 4; i++, count++)
                        bad += compare((hm_rope_scaling)scaling, (hm_table_precision)precision,
                                       (hm_rope_fraction)fraction, dtypes[d], dims[i]);
    printf("%d of %d differ\n", bad, count);
    return bad != 0;
}
