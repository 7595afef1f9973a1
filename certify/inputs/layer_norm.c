/* Rows whose mean and variance are exact (generator `exact`), rows of equal elements (`equal`), and rows of mean 0 on
 * which running sums of squares stand still (`stagnate`); other generators are as for every op. */
#include <hallmark/layer_norm.h>
#include <math.h>
#include <string.h>

#include "../../op/check.h"
#include "../../op/dtype.h"
#include "../inputs.h"

/* Ten elements of 16 are m +- 1 and six m +- 3, as many above m as below: mean m, variance 4. What is left of a row
 * that is no multiple of 16 is m. m grows with the row as far as x's dtype holds m + 3; in f32 up to 2^15, where the
 * square of the mean has 2^28 times the variance. */
static double exact_value(const hm_case_spec *spec, hm_dtype T, int64_t row, int64_t i, int64_t n) {
    static const double step[16] = {1, 1, 1, 1, 1, -1, -1, -1, -1, -1, 3, 3, 3, -3, -3, -3};
    static const double f32[6] = {0, 32768, -20, 4097, 100, -32000}, f16[6] = {0, 2040, -20, 1000, 100, -2045},
                        bf16[6] = {0, 250, -20, 101, -100, -253};
    const double *means = T == HM_F32 ? f32 : T == HM_F16 ? f16 : bf16;
    int64_t shift = hm_inputs_below(spec, "row", (uint64_t)row, 16), block = n - n % 16;
    return means[row % 6] + (i < block ? step[(i * 7 + shift) % 16] : 0);
}

static double equal_value(const hm_case_spec *spec, int64_t row) {
    static const double value[8] = {0.1, -100.5, 3.140625, 1000.3, 7e-3, 1, -30000.7, 6e-8};
    return value[(row + (int64_t)(spec->seed % 8)) % 8];
}

/* `count` elements of 1 at the start, at the end, or as pairs one to a chunk; the rest have squares just under half an
 * ulp of the ones' sum. Signs alternate, so that the mean is 0 where n is even. */
static double stagnate_value(const hm_case_spec *spec, hm_dtype T, int64_t row, int64_t i, int64_t n) {
    static const int64_t ones[7] = {2, 8, 16, 32, 128, 256, 1024};
    int64_t step = row + (int64_t)(spec->seed % 21), count = ones[step / 3 % 7], place = step % 3;
    while (count > 2 && count > n / 2) count /= 2;
    double limit = (place == 2 ? 2 : (double)count) * 0x1p-24, small = hm_round_to(T, sqrt(limit));
    while (small * small >= limit) small = hm_next_down(T, small);
    int64_t chunk = n / (count / 2) > 1 ? n / (count / 2) / 2 * 2 : 2;
    bool one = place == 0 ? i < count : place == 1 ? i >= n - count : i % chunk < 2 && i / chunk < count / 2;
    return (one ? 1 : small) * (i % 2 ? -1 : 1);
}

static double value_of(const hm_case_spec *spec, hm_dtype T, int64_t row, int64_t i, int64_t n) {
    if (hm_inputs_generator(spec, "exact")) return exact_value(spec, T, row, i, n);
    return hm_inputs_generator(spec, "equal") ? equal_value(spec, row) : stagnate_value(spec, T, row, i, n);
}

static bool fill(const hm_case_spec *spec, int arg, const void *args) {
    bool ours = hm_inputs_generator(spec, "exact") || hm_inputs_generator(spec, "equal") ||
                hm_inputs_generator(spec, "stagnate");
    const hm_tensor *x = hm_arg_tensor(spec->op, args, arg);
    if (!ours || strcmp(spec->op->args[arg].name, "x") || !hm_is_float(x->dtype)) return false;
    int64_t n = x->shape[x->ndim - 1], rows = hm_tensor_elements(x) > 0 ? hm_row_count(x) : 0;
    int64_t size = (int64_t)hm_dtype_size(x->dtype), step = x->stride[x->ndim - 1];
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < n; i++)
            hm_store(x->dtype, (char *)x->data + (hm_row_offset(x, row) + i * step) * size,
                     value_of(spec, x->dtype, row, i, n));
    return true;
}

const hm_inputs hm_layer_norm_inputs = {"layer_norm", fill, NULL, 0};
