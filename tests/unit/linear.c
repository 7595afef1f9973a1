/* linear: its table, what each refusal says, the order of the sum as linear.h has it, and large offsets. */
#include <criterion/criterion.h>
#include <hallmark/linear.h>
#include <hallmark/op.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "../../op/dtype.h"

Test(linear, table_matches_the_struct) {
    const hm_op_info *op = hm_op_named("linear");
    cr_assert_not_null(op);
    cr_assert_eq(op->nargs, 4);
    cr_expect_eq(op->args[0].offset, offsetof(hm_linear_args, x));
    cr_expect_eq(op->args[1].offset, offsetof(hm_linear_args, weight));
    cr_expect_eq(op->args[2].offset, offsetof(hm_linear_args, bias));
    cr_expect_eq(op->args[3].offset, offsetof(hm_linear_args, out));
    cr_expect_eq(op->args_size, sizeof(hm_linear_args));
}

enum { ROWS = 2, IN = 3, FEATURES = 4 };
static uint16_t x[ROWS * IN], weight[FEATURES * IN], out[ROWS * FEATURES];
static float bias[FEATURES];

static hm_linear_args call(void) {
    for (int i = 0; i < ROWS * IN; i++) hm_store(HM_BF16, &x[i], i - 2);
    for (int i = 0; i < FEATURES * IN; i++) hm_store(HM_BF16, &weight[i], 5 - i);
    for (int i = 0; i < FEATURES; i++) bias[i] = (float)i + 0.25f;
    memset(out, 0x7B, sizeof out);
    return (hm_linear_args){.size = sizeof(hm_linear_args),
                            .x = hm_tensor_of(x, HM_BF16, 2, (int64_t[]){ROWS, IN}),
                            .weight = hm_tensor_of(weight, HM_BF16, 2, (int64_t[]){FEATURES, IN}),
                            .bias = hm_tensor_of(bias, HM_F32, 1, (int64_t[]){FEATURES}),
                            .out = hm_tensor_of(out, HM_BF16, 2, (int64_t[]){ROWS, FEATURES})};
}

static void refused(const hm_linear_args *a, hm_status status, const char *sentence) {
    cr_expect_eq(hm_linear(a), status, "%s", hm_error());
    cr_expect_not_null(strstr(hm_error(), sentence), "\"%s\" is not in \"%s\"", sentence, hm_error());
    for (size_t i = 0; i < sizeof out / sizeof *out; i++) cr_assert_eq(out[i], 0x7B7B, "%zu", i);
}

Test(linear, refusals_name_the_value) {
    hm_linear_args a = call();
    a.weight.shape[1] = 2;
    refused(&a, HM_BAD_SHAPE, "weight has rows of 2; it has to be 3, as x has");
    a = call(), a.weight.ndim = 1;
    refused(&a, HM_BAD_SHAPE, "weight has rank 1; it has to be 2");
    a = call(), a.bias.shape[0] = 3;
    refused(&a, HM_BAD_SHAPE, "bias has rank 1 and 3 elements; it has to be 1 and 4");
    a = call(), a.out.shape[1] = 5;
    refused(&a, HM_BAD_SHAPE, "out has extent 5 in dimension 1; it has to be 4, the features");
    a = call(), a.out.shape[0] = 1;
    refused(&a, HM_BAD_SHAPE, "out has extent 1 in dimension 0; it has to be 2, as x has");
    a = call(), a.weight.dtype = HM_F16;
    refused(&a, HM_BAD_DTYPE, "weight is f16; with x in bf16 it has to be bf16 or f32");
    a = call(), a.bias.dtype = HM_F16;
    refused(&a, HM_BAD_DTYPE, "bias is f16; it has to be bf16");
    a = call(), a.out.dtype = HM_F16;
    refused(&a, HM_BAD_DTYPE, "out is f16; it has to be bf16");
    a = call(), a.x.dtype = HM_U8;
    refused(&a, HM_BAD_DTYPE, "x is u8");
    a = call(), a.out.data = weight;
    cr_expect_eq(hm_linear(&a), HM_BAD_ALIAS);
}

Test(linear, without_products_there_is_the_bias_or_0) {
    hm_linear_args a = call();
    a.x.shape[1] = a.weight.shape[1] = 0;
    cr_assert_eq(hm_linear(&a), HM_OK, "%s", hm_error());
    for (int i = 0; i < ROWS * FEATURES; i++) cr_expect_eq(hm_load(HM_BF16, &out[i]), i % FEATURES + 0.25);
    a.bias = (hm_tensor){0};
    cr_assert_eq(hm_linear(&a), HM_OK, "%s", hm_error());
    for (int i = 0; i < ROWS * FEATURES; i++) cr_expect_eq(out[i], 0);
    a = call(), a.x.shape[0] = a.out.shape[0] = 0;
    cr_assert_eq(hm_linear(&a), HM_OK);
    a = call(), a.weight.shape[0] = a.bias.shape[0] = a.out.shape[1] = 0;
    cr_assert_eq(hm_linear(&a), HM_OK);
    for (int i = 0; i < ROWS * FEATURES; i++) cr_expect_eq(out[i], 0x7B7B);
}

/* The order of linear.h, as plainly as it can be written. */
static float in_order(const float *p, const float *q, int64_t n) {
    float lane[16] = {0};
    for (int64_t block = 0; block < n; block += 512) {
        float part[16] = {0};
        for (int64_t k = block; k < n && k < block + 512; k++) part[k % 16] += p[k] * q[k];
        for (int l = 0; l < 16; l++) lane[l] += part[l];
    }
    for (int half = 8; half; half /= 2)
        for (int l = 0; l < half; l++) lane[l] += lane[l + half];
    return lane[0];
}

/* Every dtype, lengths around 16 and 512, 1 to 7 rows (they share passes in fours), a weight with strides. */
Test(linear, ref_adds_in_the_order_of_the_contract) {
    static const hm_dtype X[] = {HM_F32, HM_F16, HM_BF16, HM_F32, HM_BF16},
                          W[] = {HM_F32, HM_F16, HM_BF16, HM_BF16, HM_F32};
    static const int64_t length[] = {1, 15, 16, 17, 511, 512, 513, 1100};
    enum { MOST = 1100, N = 3 };
    static char px[7 * MOST * 4], pw[2 * N * MOST * 4];
    static float vx[7][MOST], vw[N][MOST], y[7 * N];
    for (int t = 0; t < 5; t++)
        for (int l = 0; l < 8; l++)
            for (int rows = 1; rows <= 7; rows++) {
                int64_t n = length[l], sx = (int64_t)hm_dtype_size(X[t]), sw = (int64_t)hm_dtype_size(W[t]);
                int64_t step = 1 + (rows % 2);
                srand(1 + rows);
                for (int m = 0; m < rows; m++)
                    for (int64_t k = 0; k < n; k++) {
                        hm_store(X[t], px + (m * n + k) * sx, ldexp(rand() % 2001 - 1000, rand() % 12 - 16));
                        vx[m][k] = (float)hm_load(X[t], px + (m * n + k) * sx);
                    }
                for (int f = 0; f < N; f++)
                    for (int64_t k = 0; k < n; k++) {
                        hm_store(W[t], pw + (f * n + k) * step * sw, ldexp(rand() % 2001 - 1000, rand() % 12 - 16));
                        vw[f][k] = (float)hm_load(W[t], pw + (f * n + k) * step * sw);
                    }
                hm_linear_args a = {.size = sizeof a,
                                    .x = hm_tensor_of(px, X[t], 2, (int64_t[]){rows, n}),
                                    .weight = hm_tensor_of(pw, W[t], 2, (int64_t[]){N, n}),
                                    .out = hm_tensor_of(y, HM_F32, 2, (int64_t[]){rows, N})};
                a.weight.stride[0] = n * step, a.weight.stride[1] = step;
                cr_assert_eq(hm_linear(&a), HM_OK, "%s", hm_error());
                for (int m = 0; m < rows; m++)
                    for (int f = 0; f < N; f++)
                        cr_assert_eq(y[m * N + f], in_order(vx[m], vw[f], n), "%d: %d of %d rows, %d, n %d", t, m, rows,
                                     f, (int)n);
            }
}

/* Every f16 as a weight: subnormals, infinities and NaN too. */
Test(linear, every_f16_weight_is_converted_exactly) {
    static uint16_t w[65536];
    static float y[65536];
    uint16_t one;
    hm_store(HM_F16, &one, 1);
    for (int i = 0; i < 65536; i++) w[i] = (uint16_t)i;
    hm_linear_args a = {.size = sizeof a,
                        .x = hm_tensor_of(&one, HM_F16, 1, (int64_t[]){1}),
                        .weight = hm_tensor_of(w, HM_F16, 2, (int64_t[]){65536, 1}),
                        .out = hm_tensor_of(y, HM_F32, 1, (int64_t[]){65536})};
    cr_assert_eq(hm_linear(&a), HM_OK, "%s", hm_error());
    for (int i = 0; i < 65536; i++) {
        double v = hm_load(HM_F16, &w[i]);
        cr_assert(isnan(v) ? isnan(y[i]) : (double)y[i] == v, "%04x: %g %g", i, v, (double)y[i]);
    }
}

/* A weight of 2^32 elements, of which a few pages are ever touched. */
Test(linear, weights_beyond_2_to_the_31_elements) {
    int64_t step = INT64_C(1) << 31, last = step * 2;
    size_t bytes = (size_t)(last + 16) * 2;
    uint16_t *large = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (large == MAP_FAILED) cr_skip_test("no address space");
    uint16_t in[4];
    float y[3];
    for (int k = 0; k < 4; k++) {
        hm_store(HM_BF16, &in[k], 1);
        for (int f = 0; f < 3; f++) hm_store(HM_BF16, &large[f * step + k], f + 1);
    }
    hm_linear_args a = {.size = sizeof a,
                        .x = hm_tensor_of(in, HM_BF16, 1, (int64_t[]){4}),
                        .weight = hm_tensor_of(large, HM_BF16, 2, (int64_t[]){3, 4}),
                        .out = hm_tensor_of(y, HM_F32, 1, (int64_t[]){3})};
    a.weight.stride[0] = step;
    cr_assert_eq(hm_linear(&a), HM_OK, "%s", hm_error());
    for (int f = 0; f < 3; f++) cr_expect_eq(y[f], 4.0f * (float)(f + 1));
    munmap(large, bytes);
}
