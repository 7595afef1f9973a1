/* top_k_cuda: top_k_per_row on a device gives the indices of ref, in its order, for distributions that favour each way
 * the kernel has, twice. The judge asks for less: any order. Exit 77 (skipped) where there is no device. */
#include <hallmark/top_k_per_row.h>
#include <math.h>

#include "on_device.h"

enum { NORMAL, UNIFORM, CROWD, CLOSER, TEN_VALUES, EQUAL, RELU, HEAVY, SORTED, BLOCKS, MASKED, BITS, KINDS };
static const char *const names[] = {"normal", "uniform", "crowd",  "closer", "ten_values", "equal",
                                    "relu",   "heavy",   "sorted", "blocks", "masked",     "bits"};

static float drawn(int kind, int64_t i, int64_t n) {
    uint64_t r = bits();
    float uniform = (float)(r >> 40) * 0x1p-24f, normal = -6, any;
    for (int k = 0; k < 12; k++) normal += (float)(bits() >> 40) * 0x1p-24f;
    uint32_t any_bits = (uint32_t)r;
    memcpy(&any, &any_bits, 4);
    switch (kind) {
        case UNIFORM:
            return uniform;
        case CROWD:
            return 1 + 0.1f * normal;
        case CLOSER:
            return 1 + 0.001f * normal;
        case TEN_VALUES:
            return (float)(r % 10);
        case EQUAL:
            return r % 2 ? 0.0f : -0.0f;
        case RELU:
            return normal > 2.5f ? normal : 0;
        case HEAVY:
            return normal * expf(20 * normal);
        case SORTED:
            return (float)(i < n / 2 ? i : n - i);
        case BLOCKS:
            return i / 3000 % 7 == 3 ? normal + 5 : normal; /* the large ones side by side */
        case MASKED:
            return r % 64 ? -INFINITY : normal;
        case BITS:
            return any; /* NaN of both signs, too */
        default:
            return normal;
    }
}

static hm_tensor tensor(void *data, hm_dtype dtype, int64_t a, int64_t b, int64_t stride, int64_t step,
                        hm_place place) {
    return (hm_tensor){.data = data,
                       .dtype = dtype,
                       .ndim = b < 0 ? 1 : 2,
                       .shape = {a, b < 0 ? 0 : b},
                       .stride = {stride, step},
                       .place = place};
}

/* step: of the columns in memory. Windows begin at row r's r-th column. */
static int compare(int kind, int64_t rows, int64_t columns, int64_t k, int64_t step) {
    const size_t size = (size_t)(rows * columns * step) * 4, wide = (size_t)(rows * k) * 4;
    float *logits = calloc(size, 1), *on_device;
    int32_t *starts = malloc((size_t)rows * 4), *ends = malloc((size_t)rows * 4), *bounds = NULL;
    int32_t *want = malloc(wide), *have = malloc(wide), *out = NULL;
    int bad = 0;
    need(logits && starts && ends && want && have, "memory");
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < columns; i++) logits[(r * columns + i) * step] = drawn(kind, i, columns);
        starts[r] = (int32_t)(r < columns ? r : columns), ends[r] = (int32_t)columns;
    }
    need(!cudaMalloc((void **)&on_device, size) && !cudaMalloc((void **)&bounds, (size_t)rows * 8) &&
             !cudaMalloc((void **)&out, wide),
         "device memory");
    cudaMemcpy(on_device, logits, size, cudaMemcpyHostToDevice);
    cudaMemcpy(bounds, starts, (size_t)rows * 4, cudaMemcpyHostToDevice);
    cudaMemcpy(bounds + rows, ends, (size_t)rows * 4, cudaMemcpyHostToDevice);
    hm_top_k_per_row_args a = {.size = sizeof a};
    a.logits = tensor(logits, HM_F32, rows, columns, columns * step, step, HM_HOST);
    a.row_starts = tensor(starts, HM_I32, rows, -1, 1, 0, HM_HOST);
    a.row_ends = tensor(ends, HM_I32, rows, -1, 1, 0, HM_HOST);
    a.indices = tensor(want, HM_I32, rows, k, k, 1, HM_HOST);
    need(!hm_top_k_per_row_ref(&a), "ref");
    a.logits.data = on_device, a.row_starts.data = bounds, a.row_ends.data = bounds + rows, a.indices.data = out;
    a.logits.place = a.row_starts.place = a.row_ends.place = a.indices.place = HM_CUDA;
    for (int run = 0; run < 2; run++) {
        cudaMemset(out, 0x77, wide);
        need(!hm_top_k_per_row_cuda(&a), "cuda");
        need(!cudaMemcpy(have, out, wide, cudaMemcpyDeviceToHost), "the kernel");
        int64_t at = 0;
        while (at < rows * k && want[at] == have[at]) at++;
        if (at < rows * k) {
            printf("not ok: %s rows=%lld columns=%lld k=%lld step=%lld: row %lld, place %lld: %d; ref has %d\n",
                   names[kind], (long long)rows, (long long)columns, (long long)k, (long long)step, (long long)(at / k),
                   (long long)(at % k), (int)have[at], (int)want[at]);
            bad = 1;
        }
    }
    cudaFree(on_device), cudaFree(bounds), cudaFree(out);
    free(logits), free(starts), free(ends), free(want), free(have);
    return bad;
}

int main(void) {
    static const int64_t shapes[][4] = {
        /* rows, columns, k, step */
        {7, 131072, 2048, 1}, {300, 9000, 2048, 1}, {5, 4100, 2048, 1},  {5, 4096, 4000, 1},  {3, 40000, 3073, 1},
        {3, 20000, 15000, 1}, {2, 9999, 100, 3},    {9, 3000, 2999, 1},  {4, 4099, 1, 1},     {2, 600000, 512, 1},
        {140, 5003, 7, 1},    {3, 70001, 3072, 1},  {2, 50000, 9000, 2}, {40, 9001, 2048, 1}, {16, 33000, 2048, 1},
        {1, 32768, 2048, 1},  {20, 3000, 100, 1},
    };
    int bad = 0, count = 0;
    if (hm_cuda_devices() < 1) {
        printf("skipped: no device\n");
        return 77;
    }
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++, count++)
            bad += compare(kind, shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3]);
    printf("%d of %d differ\n", bad, count);
    return bad != 0;
}
