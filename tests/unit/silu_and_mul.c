/* silu_and_mul: its table, what each refusal says, every 16-bit gate against MPFR, and the two roundings. */
#include <criterion/criterion.h>
#include <hallmark/op.h>
#include <hallmark/silu_and_mul.h>
#include <math.h>
#include <mpfr.h>
#include <string.h>

#include "../../golden/root.h"
#include "../../op/dtype.h"

Test(silu_and_mul, table_matches_the_struct) {
    const hm_op_info *op = hm_op_named("silu_and_mul");
    cr_assert_not_null(op);
    cr_assert_eq(op->nargs, 2);
    cr_expect_eq(op->args[0].offset, offsetof(hm_silu_and_mul_args, x));
    cr_expect_eq(op->args[1].offset, offsetof(hm_silu_and_mul_args, out));
    cr_expect_eq(op->params[0].offset, offsetof(hm_silu_and_mul_args, round));
    cr_expect_eq(op->args_size, sizeof(hm_silu_and_mul_args));
}

enum { ROWS = 2, HIDDEN = 3 };
static uint16_t x[ROWS * 2 * HIDDEN], out[ROWS * HIDDEN];

static hm_silu_and_mul_args call(void) {
    for (int i = 0; i < ROWS * 2 * HIDDEN; i++) hm_store(HM_BF16, &x[i], i - 5);
    memset(out, 0x7B, sizeof out);
    return (hm_silu_and_mul_args){.size = sizeof(hm_silu_and_mul_args),
                                  .x = hm_tensor_of(x, HM_BF16, 2, (int64_t[]){ROWS, 2 * HIDDEN}),
                                  .out = hm_tensor_of(out, HM_BF16, 2, (int64_t[]){ROWS, HIDDEN})};
}

static void refused(const hm_silu_and_mul_args *a, hm_status status, const char *sentence) {
    cr_expect_eq(hm_silu_and_mul(a), status, "%s", hm_error());
    cr_expect_not_null(strstr(hm_error(), sentence), "\"%s\" is not in \"%s\"", sentence, hm_error());
    for (size_t i = 0; i < sizeof out / sizeof *out; i++) cr_assert_eq(out[i], 0x7B7B, "%zu", i);
}

Test(silu_and_mul, refusals_name_the_value) {
    hm_silu_and_mul_args a = call();
    a.x.shape[1] = 5;
    refused(&a, HM_BAD_SHAPE, "x has rows of 5; it has to be an even number");
    a = call(), a.out.shape[1] = 2;
    refused(&a, HM_BAD_SHAPE, "out has extent 2 in dimension 1; it has to be 3, half of x's");
    a = call(), a.out.shape[0] = 1;
    refused(&a, HM_BAD_SHAPE, "out has extent 1 in dimension 0; it has to be 2, as x has");
    a = call(), a.out.ndim = 1;
    refused(&a, HM_BAD_SHAPE, "out has rank 1; it has to be 2");
    a = call(), a.x.dtype = HM_I32;
    refused(&a, HM_BAD_DTYPE, "x is i32");
    a = call(), a.out.dtype = HM_F16;
    refused(&a, HM_BAD_DTYPE, "out is f16; it has to be bf16");
    a = call(), a.round = (hm_silu_round)7;
    refused(&a, HM_BAD_PARAM, "round is 7");
    a = call(), a.out.data = x;
    cr_expect_eq(hm_silu_and_mul(&a), HM_BAD_ALIAS);
}

Test(silu_and_mul, empty_calls_write_nothing) {
    hm_silu_and_mul_args a = call();
    a.x.shape[0] = a.out.shape[0] = 0;
    cr_expect_eq(hm_silu_and_mul(&a), HM_OK);
    a = call(), a.x.shape[1] = a.out.shape[1] = 0;
    cr_expect_eq(hm_silu_and_mul(&a), HM_OK);
    for (int i = 0; i < ROWS * HIDDEN; i++) cr_expect_eq(out[i], 0x7B7B);
}

/* RN_T(u g / (1 + e^-g)) by MPFR; g is finite. */
static double expected(hm_dtype T, double g, double u) {
    mpfr_t v, d;
    mpfr_init2(v, 300), mpfr_init2(d, 300);
    mpfr_set_d(d, -g, MPFR_RNDN);
    mpfr_exp(d, d, MPFR_RNDN);
    mpfr_add_ui(d, d, 1, MPFR_RNDN);
    mpfr_set_d(v, g, MPFR_RNDN);
    mpfr_mul_d(v, v, u, MPFR_RNDN);
    mpfr_div(v, v, d, MPFR_RNDN);
    double y = hm_round_exact(v, T);
    mpfr_clears(v, d, (mpfr_ptr)0);
    return y;
}

/* Every finite gate; up is 1, so that both modes are RN_T(silu). Below 2^-40 silu is g/2 to binary64, and where that is
 * a tie either neighbour is right enough; beyond 2^7 it is g or 0. */
Test(silu_and_mul, every_16_bit_gate_is_correctly_rounded) {
    static uint16_t row[2 * 65536], y[65536];
    for (int t = 0; t < 2; t++) {
        hm_dtype T = t ? HM_F16 : HM_BF16;
        for (int i = 0; i < 65536; i++) row[i] = (uint16_t)i, hm_store(T, &row[65536 + i], 1);
        hm_silu_and_mul_args a = {.size = sizeof a,
                                  .x = hm_tensor_of(row, T, 1, (int64_t[]){2 * 65536}),
                                  .out = hm_tensor_of(y, T, 1, (int64_t[]){65536})};
        for (int round = 0; round < 2; round++) {
            a.round = (hm_silu_round)round;
            cr_assert_eq(hm_silu_and_mul(&a), HM_OK, "%s", hm_error());
            for (int i = 0; i < 65536; i++) {
                double g = hm_load(T, &row[i]), got = hm_load(T, &y[i]);
                if (isnan(g) || g == -INFINITY) cr_assert(isnan(got), "%04x", i);
                else if (isinf(g)) cr_assert_eq(got, INFINITY);
                else if (fabs(g) < 0x1p-40) cr_assert(fabs(got - g / 2) <= hm_ulp(T, g / 2) / 2, "%04x: %g", i, g);
                else if (fabs(g) <= 128) cr_assert_eq(got, expected(T, g, 1), "%04x: %g", i, g);
                else cr_assert_eq(got, g > 0 ? g : 0, "%04x: %g", i, g);
            }
        }
    }
}

/* silu(1) = 0.7310586: 0.73046875 in bf16. Times 129: 94.306 -> 94.5, and 94.23 -> 94. */
Test(silu_and_mul, the_modes_differ) {
    uint16_t in[2], to;
    hm_store(HM_BF16, &in[0], 1), hm_store(HM_BF16, &in[1], 129);
    hm_silu_and_mul_args a = {.size = sizeof a,
                              .x = hm_tensor_of(in, HM_BF16, 1, (int64_t[]){2}),
                              .out = hm_tensor_of(&to, HM_BF16, 1, (int64_t[]){1})};
    cr_assert_eq(hm_silu_and_mul(&a), HM_OK);
    cr_expect_eq(hm_load(HM_BF16, &to), 94.5);
    a.round = HM_SILU_EACH;
    cr_assert_eq(hm_silu_and_mul(&a), HM_OK);
    cr_expect_eq(hm_load(HM_BF16, &to), 94);
}
