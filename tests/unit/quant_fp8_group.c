/* quant_fp8_group: the paths of its users as modes, and what was found out about them by trying, from definitions
 * alone. */
#include <criterion/criterion.h>
#include <hallmark/op.h>
#include <hallmark/quant_fp8_group.h>
#include <math.h>
#include <string.h>

#include "../../op/dtype.h"
#include "../../op/fp8.h"

Test(quant_fp8_group, table_matches_the_struct) {
    const hm_op_info *op = hm_op_named("quant_fp8_group");
    cr_assert_not_null(op);
    cr_assert_eq(op->nargs, 3);
    cr_expect_eq(op->args[0].offset, offsetof(hm_quant_fp8_group_args, x));
    cr_expect_eq(op->args[1].offset, offsetof(hm_quant_fp8_group_args, scale));
    cr_expect_eq(op->args[2].offset, offsetof(hm_quant_fp8_group_args, codes));
    cr_expect_eq(op->args_size, sizeof(hm_quant_fp8_group_args));
}

/* One group of n elements of x's dtype; the rest of the call is in `modes`. */
static float quantise(hm_quant_fp8_group_args modes, hm_dtype dtype, const void *x, int64_t n, hm_dtype format,
                      uint8_t *codes) {
    float scale = NAN;
    modes.size = sizeof modes, modes.group_size = n;
    modes.x = hm_tensor_of((void *)x, dtype, 1, (int64_t[]){n});
    modes.codes = hm_tensor_of(codes, format, 1, (int64_t[]){n});
    modes.scale = hm_tensor_of(&scale, HM_F32, 1, (int64_t[]){1});
    cr_assert_eq(hm_quant_fp8_group(&modes), HM_OK, "%s", hm_error());
    return scale;
}

static const hm_quant_fp8_group_args kernel = {.scale_format = HM_SCALE_UE8M0,
                                               .floor_on = HM_FLOOR_SCALE,
                                               .floor = 1e-10},
                                     triton = {.scale_format = HM_SCALE_UE8M0,
                                               .floor_on = HM_FLOOR_AMAX,
                                               .floor = 1e-10},
                                     newer = {.scale_format = HM_SCALE_UE8M0, .floor_on = HM_FLOOR_AMAX, .floor = 1e-4};

/* The scale of a group of zeros is the path's own, and all codes are 0. */
Test(quant_fp8_group, zeros) {
    static const float x[128];
    uint8_t codes[128];
    const struct {
        const hm_quant_fp8_group_args *path;
        double scale;
    } rows[] = {{&kernel, 0x1p-33}, {&triton, 0x1p-42}, {&newer, 0x1p-22}};
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        memset(codes, 0x55, sizeof codes);
        cr_expect_eq((double)quantise(*rows[k].path, HM_F32, x, 128, HM_F8E4M3, codes), rows[k].scale, "path %zu", k);
        for (int i = 0; i < 128; i++) cr_assert_eq(codes[i], 0);
    }
    cr_expect_eq(quantise((hm_quant_fp8_group_args){0}, HM_F32, x, 128, HM_F8E4M3, codes), 1e-10f / 448);
}

/* Every bf16 magnitude from 1e-4 on: the exact exponent, the f32 quotient and the f32 product with the reciprocal lead
 * to the same power of two, on all three paths, for 448 and 224. */
Test(quant_fp8_group, every_bf16_maximum_has_one_exponent) {
    for (unsigned bits = 0x38D2; bits < 0x7F80; bits++) { /* 0x38D2 is the first above 1e-4 */
        uint16_t x = (uint16_t)bits;
        uint8_t code;
        double a = hm_load(HM_BF16, &x);
        cr_assert(a >= 1e-4);
        for (int f = 0; f < 2; f++) {
            hm_dtype format = f ? HM_F8E4M3FNUZ : HM_F8E4M3;
            float D = f ? 224 : 448, quotient = (float)a / D, product = (float)a * (1 / D);
            int exponent = -150, q, p;
            while (exponent < 128 && ldexp((double)D, exponent) < a) exponent++; /* least k with D 2^k >= a */
            if (exponent < -126) continue;
            float fq = frexpf(quotient, &q), fp = frexpf(product, &p); /* [1/2, 1): a power of two is 1/2 */
            cr_assert_eq(fq == 0.5f ? q - 1 : q, exponent, "%g / %g", a, (double)D);
            cr_assert_eq(fp == 0.5f ? p - 1 : p, exponent, "%g * (1 / %g)", a, (double)D);
            cr_assert_eq(hm_ue8m0_exponent(a, (double)D), exponent, "%g, %g", a, (double)D);
            const hm_quant_fp8_group_args *paths[] = {&kernel, &triton, &newer};
            for (int k = 0; k < 3; k++)
                cr_assert_eq((double)quantise(*paths[k], HM_BF16, &x, 1, format, &code), ldexp(1, exponent), "%g", a);
        }
    }
}

/* The conversion of one number by a group whose scale is 1: 512 over a divisor of 512. */
static uint8_t converted(double v, hm_dtype format, hm_fp8_overflow overflow) {
    float x[2] = {512, (float)v};
    uint8_t codes[2];
    const hm_quant_fp8_group_args modes = {.overflow = overflow, .divisor = 512};
    cr_assert_eq(quantise(modes, HM_F32, x, 2, format, codes), 1);
    return codes[1];
}

/* RN to e4m3 beside 448, with and without saturation; ties; what underflows. */
Test(quant_fp8_group, conversions) {
    static const struct {
        double v;
        uint8_t saturated, ieee;
    } rows[] = {{448, 0x7E, 0x7E},      {449, 0x7E, 0x7E},      {464, 0x7E, 0x7E},      {465, 0x7E, 0x7F},
                {-465, 0xFE, 0xFF},     {512, 0x7E, 0x7F},      {-0.0, 0x80, 0x80},     {0x1p-10, 0, 0},
                {-0x1p-10, 0x80, 0x80}, {0x1.8p-9, 0x02, 0x02}, {0x1.000002p-10, 1, 1}, {0x1p-6, 0x08, 0x08},
                {17, 0x58, 0x58},       {19, 0x5A, 0x5A},       {240, 0x77, 0x77},      {-0x1p-149, 0x80, 0x80}};
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        cr_expect_eq(converted(rows[k].v, HM_F8E4M3, HM_FP8_SATURATE), rows[k].saturated, "%a", rows[k].v);
        cr_expect_eq(converted(rows[k].v, HM_F8E4M3, HM_FP8_IEEE), rows[k].ieee, "%a", rows[k].v);
    }
    /* fnuz: half the value for the same code; no -0; 240 is the largest */
    cr_expect_eq(converted(224, HM_F8E4M3FNUZ, HM_FP8_SATURATE), 0x7E);
    cr_expect_eq(converted(241, HM_F8E4M3FNUZ, HM_FP8_SATURATE), 0x7F);
    cr_expect_eq(converted(-449, HM_F8E4M3FNUZ, HM_FP8_SATURATE), 0xFF);
    cr_expect_eq(converted(-449, HM_F8E4M3FNUZ, HM_FP8_IEEE), 0x80);
    cr_expect_eq(converted(-0.0, HM_F8E4M3FNUZ, HM_FP8_SATURATE), 0);
    cr_expect_eq(converted(-0x1p-12, HM_F8E4M3FNUZ, HM_FP8_SATURATE), 0);
    for (int code = 1; code < 0x7F; code++)
        cr_assert_eq(hm_load8(HM_F8E4M3FNUZ, (uint8_t)code) * 2, hm_load8(HM_F8E4M3, (uint8_t)code), "0x%02X", code);
}

/* NaN keeps its place; the group's other codes are those of some scale, and nothing is a NaN that was none. */
Test(quant_fp8_group, nan_stays_where_it_is) {
    float x[16];
    uint8_t codes[16];
    for (int i = 0; i < 16; i++) x[i] = (float)(i - 8);
    x[5] = NAN;
    quantise((hm_quant_fp8_group_args){0}, HM_F32, x, 16, HM_F8E4M3, codes);
    for (int i = 0; i < 16; i++) cr_expect_eq(isnan(hm_load8(HM_F8E4M3, codes[i])), i == 5, "%d", i);
}

/* With a power of two as the scale nothing but the conversion rounds: code * scale is within half an ulp of x
 * everywhere. */
Test(quant_fp8_group, power_of_two_scales_round_once) {
    float x[128];
    uint8_t codes[128];
    for (int i = 0; i < 128; i++) x[i] = (float)(sin(i * 12.9898) * pow(2, i % 12));
    double S = (double)quantise(newer, HM_F32, x, 128, HM_F8E4M3, codes);
    cr_assert_eq(S, ldexp(1, ilogb(S)));
    for (int i = 0; i < 128; i++) {
        double q = (double)x[i] / S, v = hm_load8(HM_F8E4M3, codes[i]);
        cr_assert(fabs(v - q) <= hm_ulp(HM_F8E4M3, q) / 2 && fabs(v) <= 448, "%d: %g, %g", i, q, v);
    }
}

/* The byte of an exponent: 127 + the exponent of the f32 scale, rounded up. */
Test(quant_fp8_group, exponent_bytes) {
    for (int k = -100; k < 100; k++)
        for (int above = 0; above < 2; above++) {
            float x = (float)ldexp(above ? nextafterf(448, 512) : 448, k);
            uint8_t code, byte = 0;
            hm_quant_fp8_group_args a = {.size = sizeof a,
                                         .x = hm_tensor_of(&x, HM_F32, 1, (int64_t[]){1}),
                                         .codes = hm_tensor_of(&code, HM_F8E4M3, 1, (int64_t[]){1}),
                                         .scale = hm_tensor_of(&byte, HM_E8M0, 1, (int64_t[]){1}),
                                         .group_size = 1,
                                         .floor = 0x1p-110,
                                         .scale_format = HM_SCALE_UE8M0};
            cr_assert_eq(hm_quant_fp8_group(&a), HM_OK, "%s", hm_error());
            cr_assert_eq(byte, 127 + k + above, "448 * 2^%d, %d", k, above);
        }
}
