/* linear_cuda: on a device the bits of a row do not depend on how many rows there are, or on how they lie in memory,
 * for sizes at which different kernels do the work; the judge's cases are smaller. Exit 77 (skipped) where there is no
 * device. */
#include <hallmark/linear.h>

#include "on_device.h"

enum { ROWS = 600, APART = 2 };

/* Values of both signs between 2^-5 and 2; some neighbours apart, the others 0. */
static void *drawn(hm_dtype dtype, int64_t n) {
    const size_t size = hm_dtype_size(dtype);
    char *values = malloc((size_t)n * size);
    if (!values) abort();
    for (int64_t i = 0; i < n; i++) {
        uint64_t r = bits(), exponent = (r >> 32) % 6;
        uint32_t wide = (uint32_t)((r & 0x807fffffu) | (122 + exponent) << 23);
        uint16_t half = (uint16_t)(dtype == HM_BF16 ? wide >> 16 : (r & 0x83ffu) | (10 + exponent) << 10);
        memcpy(values + (size_t)i * size, size == 4 ? (void *)&wide : (void *)&half, size);
    }
    return values;
}

static void *on_device(const void *from, size_t size) {
    void *to = NULL;
    need(!cudaMalloc(&to, size), "device memory");
    if (from) need(!cudaMemcpy(to, from, size, cudaMemcpyHostToDevice), "a copy");
    return to;
}

static hm_tensor matrix(void *data, hm_dtype dtype, int64_t rows, int64_t columns, int64_t stride, int64_t step) {
    return (hm_tensor){
        .data = data, .dtype = dtype, .place = HM_CUDA, .ndim = 2, .shape = {rows, columns}, .stride = {stride, step}};
}

/* Rows that differ between `together`, from row `first` on, and what the call gives for them alone. */
static int differ(hm_linear_args *a, int64_t rows, int64_t first, const char *together, char *have, void *out) {
    const int64_t features = a->weight.shape[0];
    const size_t row = (size_t)features * hm_dtype_size(a->out.dtype);
    int bad = 0;
    a->x.shape[0] = rows;
    a->out = matrix(out, a->out.dtype, rows, features, features, 1);
    need(!cudaMemset(out, 0x77, (size_t)rows * row), "a memset");
    need(!hm_linear_cuda(a), "cuda");
    need(!cudaMemcpy(have, out, (size_t)rows * row, cudaMemcpyDeviceToHost), "the kernel");
    for (int64_t r = 0; r < rows; r++) bad += memcmp(have + r * row, together + (first + r) * row, row) != 0;
    return bad;
}

static int compare(hm_dtype dtype, hm_dtype weight_dtype, int64_t features, int64_t in) {
    static const int64_t counts[] = {1, 8, 12, 30, 60, 100, 150, 300};
    const size_t size = hm_dtype_size(dtype), row = (size_t)in * size, all = (size_t)(ROWS * features) * size;
    char *x = drawn(dtype, ROWS * in), *apart = drawn(dtype, ROWS * in * APART),
         *w = drawn(weight_dtype, features * in);
    char *together = malloc(all), *have = malloc(all);
    int bad = 0;
    if (!together || !have) abort();
    for (int64_t i = 0; i < ROWS * in; i++) memcpy(apart + i * APART * (int64_t)size, x + i * (int64_t)size, size);
    char *x_there = on_device(x, ROWS * row), *apart_there = on_device(apart, APART * ROWS * row);
    void *w_there = on_device(w, (size_t)(features * in) * hm_dtype_size(weight_dtype)), *out = on_device(NULL, all);
    hm_linear_args a = {.size = sizeof a, .x = matrix(x_there, dtype, ROWS, in, in, 1)};
    a.weight = matrix(w_there, weight_dtype, features, in, in, 1);
    a.out.dtype = dtype;
    memset(together, 0, all);
    differ(&a, ROWS, 0, together, have, out);
    memcpy(together, have, all);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        for (int64_t first = 0; first + counts[i] <= ROWS; first += 177) {
            a.x = matrix(x_there + (size_t)first * row, dtype, counts[i], in, in, 1);
            int rows = differ(&a, counts[i], first, together, have, out);
            a.x = matrix(apart_there + (size_t)first * APART * row, dtype, counts[i], in, APART * in, APART);
            rows += differ(&a, counts[i], first, together, have, out);
            if (rows)
                printf("not ok: x=%s weight=%s[%lld,%lld]: %d rows differ in %lld from row %lld on\n",
                       hm_dtype_name(dtype), hm_dtype_name(weight_dtype), (long long)features, (long long)in, rows,
                       (long long)counts[i], (long long)first);
            bad += rows != 0;
        }
    cudaFree(x_there), cudaFree(apart_there), cudaFree(w_there), cudaFree(out);
    free(x), free(apart), free(w), free(together), free(have);
    return bad;
}

int main(void) {
    static const hm_dtype dtypes[][2] = {{HM_BF16, HM_BF16}, {HM_F16, HM_F16}, {HM_F32, HM_F32}, {HM_BF16, HM_F32}};
    static const int64_t shapes[][2] = {{7168, 264}, {3072, 520}, {2048, 1032}, {300, 1000}, {200, 72}};
    int bad = 0;
    if (hm_cuda_devices() < 1) {
        printf("skipped: no device\n");
        return 77;
    }
    for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            bad += compare(dtypes[d][0], dtypes[d][1], shapes[i][0], shapes[i][1]);
    printf("%d calls differ\n", bad);
    return bad != 0;
}
