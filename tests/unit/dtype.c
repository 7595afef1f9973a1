/* Every rounding boundary of the 16-bit dtypes and many of f32. The expected values come from a decoder of its own
 * (ldexp on the fields of a code) and from order alone: a value between two neighbours goes to the nearer one, and
 * halfway to the one with the even code. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "../../op/dtype.h"

typedef struct {
    hm_dtype dtype;
    int mantissa, bias; /* stored fraction bits, exponent bias */
    uint32_t inf;       /* code of +inf */
    uint32_t sign;
} format;

static const format formats[] = {
    {HM_F16, 10, 15, 0x7C00, 0x8000},
    {HM_BF16, 7, 127, 0x7F80, 0x8000},
    {HM_F32, 23, 127, 0x7F800000, 0x80000000u},
};
#define FORMATS ((int)(sizeof formats / sizeof *formats))

/* Value of a non-negative finite code; for the code of inf, the value that it would have if the exponents went on. */
static double decode(const format *f, uint32_t code) {
    uint32_t fraction = code & ((1u << f->mantissa) - 1);
    int exponent = (int)(code >> f->mantissa);
    if (exponent == 0) return ldexp(fraction, 1 - f->bias - f->mantissa);
    return ldexp(fraction + (1u << f->mantissa), exponent - f->bias - f->mantissa);
}

static uint32_t store(const format *f, double v) {
    uint32_t code = 0;
    if (f->dtype == HM_F32) {
        hm_store(f->dtype, &code, v);
        return code;
    }
    uint16_t half[3] = {0x5A5A, 0x5A5A, 0x5A5A}; /* neighbours must not be touched */
    hm_store(f->dtype, &half[1], v);
    cr_assert(half[0] == 0x5A5A && half[2] == 0x5A5A);
    return half[1];
}

static double load(const format *f, uint32_t code) {
    uint16_t half = (uint16_t)code;
    return f->dtype == HM_F32 ? hm_load(f->dtype, &code) : hm_load(f->dtype, &half);
}

static void expect_store(const format *f, double v, uint32_t code) {
    uint32_t got = store(f, v);
    cr_assert_eq(got, code, "%s store of %a gave %#x, not %#x", hm_dtype_name(f->dtype), v, got, code);
    double rounded = hm_round_to(f->dtype, v), expected = load(f, code);
    cr_assert(rounded == expected && !signbit(rounded) == !signbit(expected), "%s round_to of %a gave %a, not %a",
              hm_dtype_name(f->dtype), v, rounded, expected);
}

/* Everything that is known about a code and the next one. */
static void check_code(const format *f, uint32_t code) {
    double v = decode(f, code), above = decode(f, code + 1), tie = v + (above - v) / 2;
    uint32_t even = code + (code & 1);
    for (int negative = 0; negative < 2; negative++) {
        double s = negative ? -1.0 : 1.0;
        uint32_t sign = negative ? f->sign : 0;
        double loaded = load(f, code | sign);
        cr_assert(loaded == s * v && !signbit(loaded) == !negative, "%s load of %#x gave %a", hm_dtype_name(f->dtype),
                  code | sign, loaded);
        expect_store(f, s * v, code | sign);
        expect_store(f, s * nextafter(tie, 0), code | sign);
        expect_store(f, s * tie, even | sign);
        expect_store(f, s * nextafter(tie, INFINITY), (code + 1) | sign);
        /* the limit value of the format is +inf's code, which is not the value that decode continues with */
        double up = code + 1 == f->inf ? INFINITY : above;
        double next = negative ? hm_next_down(f->dtype, -v) : hm_next_up(f->dtype, v);
        double back = negative ? hm_next_up(f->dtype, -up) : hm_next_down(f->dtype, up);
        cr_assert(next == s * up, "%s: neighbour of %a is %a", hm_dtype_name(f->dtype), s * v, next);
        cr_assert(back == s * v, "%s: neighbour of %a is %a", hm_dtype_name(f->dtype), s * up, back);
        cr_assert(hm_ulp(f->dtype, s * v) == above - v, "%s: ulp at %a is %a", hm_dtype_name(f->dtype), s * v,
                  hm_ulp(f->dtype, s * v));
        cr_assert(hm_ulp(f->dtype, s * tie) == above - v);
    }
}

static void check_specials(const format *f) {
    uint32_t quiet = 1u << (f->mantissa - 1), fractions = (1u << f->mantissa) - 1;
    for (int negative = 0; negative < 2; negative++) {
        uint32_t sign = negative ? f->sign : 0;
        double s = negative ? -1.0 : 1.0;
        expect_store(f, s * INFINITY, f->inf | sign);
        expect_store(f, s * 1.7976931348623157e308, f->inf | sign);
        expect_store(f, s * 4.9406564584124654e-324, sign);
        expect_store(f, s * 0.0, sign);
        uint32_t got = store(f, copysign(NAN, s));
        cr_assert_eq(got, f->inf | quiet, "NaN stored as %#x",
                     got); /* whose sign survives an operation is the compiler's choice */
        cr_assert(load(f, f->inf | sign) == s * INFINITY);
        for (uint32_t fraction = 1; fraction && fraction <= fractions; fraction = fraction << 1 | 1)
            cr_assert(isnan(load(f, f->inf | sign | fraction)));
        cr_assert(isnan(load(f, f->inf | sign | 1)));
    }
    cr_assert(isnan(hm_round_to(f->dtype, NAN)));
    /* either side of zero */
    double least = decode(f, 1);
    cr_assert(hm_next_up(f->dtype, -least) == 0 && hm_next_down(f->dtype, least) == 0);
    cr_assert(hm_next_up(f->dtype, -0.0) == least && hm_next_down(f->dtype, 0.0) == -least);
    cr_assert(hm_next_up(f->dtype, INFINITY) == INFINITY && hm_next_down(f->dtype, -INFINITY) == -INFINITY);
    cr_assert(hm_ulp(f->dtype, 0.0) == least && hm_ulp(f->dtype, 4.9406564584124654e-324) == least);
    /* the named constants */
    int precision = f->mantissa + 1, emin = 1 - f->bias;
    cr_assert_eq(hm_dtype_precision(f->dtype), precision);
    cr_assert_eq(hm_dtype_emin(f->dtype), emin);
    cr_assert(hm_dtype_max(f->dtype) == decode(f, f->inf - 1));
    cr_assert(hm_dtype_min_normal(f->dtype) == ldexp(1, emin));
}

Test(dtype, every_16_bit_boundary) {
    for (int i = 0; i < FORMATS; i++)
        for (uint32_t code = 0; formats[i].dtype != HM_F32 && code < formats[i].inf; code++)
            check_code(&formats[i], code);
}

Test(dtype, f32_boundaries) {
    const format *f = &formats[2];
    static const uint32_t fractions[] = {0, 1, 2, 3, 0x3FFFFF, 0x400000, 0x400001, 0x7FFFFD, 0x7FFFFE, 0x7FFFFF};
    for (uint32_t exponent = 0; exponent < 255; exponent++)
        for (size_t i = 0; i < sizeof fractions / sizeof *fractions; i++) check_code(f, exponent << 23 | fractions[i]);
    uint64_t state = 1;
    for (int i = 0; i < 300000; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        check_code(f, (uint32_t)(state >> 33) % f->inf);
    }
}

Test(dtype, specials_and_constants) {
    for (int i = 0; i < FORMATS; i++) check_specials(&formats[i]);
}

/* binary64 straight to T: through f32 the sticky bit would be lost. */
Test(dtype, one_rounding_only) {
    double just_above = 1 + 0x1p-8 + 0x1p-40; /* f32 would round it to the tie 1 + 2^-8, bf16 then to 1 */
    cr_assert(hm_round_to(HM_BF16, just_above) == 1 + 0x1p-7);
    cr_assert(hm_round_to(HM_F16, 1 + 0x1p-11 + 0x1p-40) == 1 + 0x1p-10);
    cr_assert(hm_round_to(HM_F16, 0x1p-25 + 0x1p-60) == 0x1p-24);
    cr_assert(hm_round_to(HM_BF16, 0x1p-134 + 0x1p-170) == 0x1p-133);
}

Test(dtype, rows) {
    static const double values[] = {0.0,  -0.0,  1.0,   -2.5, 65504.0, 1e-7,     -1e-7,  3.14159265358979, 1e30,
                                    -7.0, 1e-40, 1e-45, 0.1,  0.2,     INFINITY, 1e300,  -INFINITY,        123456789.0,
                                    0.3,  -0.7,  5e-8,  6e-8, 2.98e-8, 65519.99, 65520.0};
    enum { N = sizeof values / sizeof *values };
    for (int i = 0; i < FORMATS; i++) {
        hm_dtype dtype = formats[i].dtype;
        size_t size = hm_dtype_size(dtype);
        for (int64_t stride = 1; stride < 4; stride++) {
            unsigned char memory[4 * 3 * N];
            memset(memory, 0xA5, sizeof memory);
            hm_store_row(dtype, memory, stride, N, values);
            double rounded[N], forward[N], backward[N], same[N];
            memcpy(rounded, values, sizeof values);
            hm_round_row(dtype, N, rounded);
            hm_load_row(dtype, memory, stride, N, forward);
            hm_load_row(dtype, memory + size * (size_t)(stride * (N - 1)), -stride, N, backward);
            hm_load_row(dtype, memory + size * (size_t)(stride * 2), 0, N, same);
            for (int64_t k = 0; k < N; k++) {
                unsigned char one[4] = {0};
                hm_store(dtype, one, values[k]);
                cr_assert(memcmp(one, memory + size * (size_t)(stride * k), size) == 0);
                double expected = hm_load(dtype, one);
                cr_assert(forward[k] == expected && rounded[k] == expected && backward[N - 1 - k] == expected);
                cr_assert(same[k] == hm_round_to(dtype, values[2]));
                for (size_t gap = size; gap < size * (size_t)stride; gap++)
                    cr_assert(memory[size * (size_t)(stride * k) + gap] == 0xA5, "a stride gap was written");
            }
        }
        double untouched = 42;
        hm_load_row(dtype, NULL, 1, 0, &untouched);
        hm_store_row(dtype, NULL, 1, 0, &untouched);
        cr_assert(untouched == 42);
    }
}
