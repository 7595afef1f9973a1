/* Rows and weights that go together.
 *   exact       small integers: nothing is rounded before the result, which is often a tie of 16 bits
 *   ties        the same, and the last term moves the sum off an integer by 2^-10 or leaves it
 *   stagnate    the weight is 1; ones and what is half a unit of their sum or less, as in the generator's rows. In every
 *               other 21 rows 16 in place of 1, and what is a little less than a unit: f32 rounds it to one, a tensor
 *               core that keeps 23 bits cuts it off
 *   cancelling  pairs of terms that leave 2^-8 of themselves or nothing: what is lost in a partial sum shows
 *   special     the generator's, and a zero of x meets an infinity or a NaN of the weight
 * All else is the generator's. */
#include <hallmark/linear.h>
#include <math.h>
#include <string.h>

#include "../../op/check.h"
#include "../../op/dtype.h"
#include "../inputs.h"

static double integer(uint64_t r, int most) { return (double)(r % (uint64_t)(2 * most + 1)) - most; }

static double in_stagnate(const hm_case_spec *spec, hm_dtype T, int64_t row, int64_t k, int64_t n) {
    static const int64_t ones[7] = {1, 8, 16, 32, 128, 256, 1024};
    int64_t step = (int64_t)(((uint64_t)row + spec->seed) % 21), count = ones[step % 7], place = step / 7;
    while (count > 1 && count > n / 2) count /= 2;
    double half = place == 2 ? 0x1p-24 : ldexp((double)count, -24), small = hm_next_down(T, half);
    if (T == HM_F16) small = 0x1p-24; /* its least: half a unit of 1, and below that of more */
    int64_t chunk = n / count > 0 ? n / count : 1;
    bool one = place == 0 ? k < count : place == 1 ? k >= n - count : k % chunk == 0 && k / chunk < count;
    bool cut = ((uint64_t)row + spec->seed) / 21 % 2;
    if (cut) small = hm_next_down(T, ldexp((double)count, 4 - 23));
    return one ? (cut ? 16 : 1) : small;
}

/* Element k of a row of x (weight: of the weight, or the bias with k = 0 and n = 1). */
static double drawn(const hm_case_spec *spec, const char *name, hm_dtype T, int64_t row, int64_t k, int64_t n) {
    uint64_t r = hm_inputs_drawn(spec, name, (uint64_t)(row * n + k));
    bool weight = !strcmp(name, "weight"), bias = !strcmp(name, "bias"), ties = hm_inputs_generator(spec, "ties");
    if (hm_inputs_generator(spec, "stagnate")) return bias ? 0 : weight ? 1 : in_stagnate(spec, T, row, k, n);
    if (bias) return integer(r, 16) / 2;
    if (hm_inputs_generator(spec, "cancelling")) {
        uint64_t pair = hm_inputs_drawn(spec, name, (uint64_t)(row * n + k / 2));
        double v = integer(pair, 127) + 0.5;
        return weight && k % 2 ? -v : v + (!weight && k % 2 && pair >> 20 & 1 ? (pair >> 21 & 1 ? 0.5 : -0.5) : 0);
    }
    if (ties && k == n - 1 && n > 1) return weight ? 1 : (double)((int)(r % 3) - 1) * 0x1p-10;
    return integer(r, ties ? 3 : 7);
}

static bool fill(const hm_case_spec *spec, int arg, const void *args) {
    static const char *const own[] = {"exact", "ties", "stagnate", "cancelling"};
    const hm_tensor *t = hm_arg_tensor(spec->op, args, arg);
    const char *name = spec->op->args[arg].name;
    bool mine = false;
    for (int i = 0; i < 4; i++) mine |= hm_inputs_generator(spec, own[i]);
    if (!mine || !hm_is_float(t->dtype)) return false;
    bool bias = !strcmp(name, "bias");
    int last = t->ndim - 1;
    int64_t rows = hm_tensor_elements(t) > 0 ? hm_row_count(t) : 0, n = t->shape[last];
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < n; i++)
            hm_store(t->dtype,
                     (char *)t->data + (hm_row_offset(t, row) + i * t->stride[last]) * (int64_t)hm_dtype_size(t->dtype),
                     bias ? drawn(spec, name, t->dtype, i, 0, 1) : drawn(spec, name, t->dtype, row, i, n));
    return true;
}

/* A zero of x meets an infinity or a NaN of the weight. */
static void after(const hm_case_spec *spec, int arg, const void *args) {
    const hm_tensor *t = hm_arg_tensor(spec->op, args, arg);
    const char *name = spec->op->args[arg].name;
    bool weight = !strcmp(name, "weight");
    if (!hm_inputs_generator(spec, "special") || (!weight && strcmp(name, "x")) || !hm_is_float(t->dtype)) return;
    int last = t->ndim - 1;
    int64_t rows = hm_tensor_elements(t) > 0 ? hm_row_count(t) : 0, middle = t->shape[last] / 2;
    for (int64_t row = 1; row < rows; row += 2)
        hm_store(
            t->dtype,
            (char *)t->data + (hm_row_offset(t, row) + middle * t->stride[last]) * (int64_t)hm_dtype_size(t->dtype),
            !weight        ? 0
            : row % 4 == 1 ? INFINITY
                           : NAN);
}

const hm_inputs hm_linear_inputs = {"linear", fill, after, 0};
