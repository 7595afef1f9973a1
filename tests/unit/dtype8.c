/* Every code and every rounding boundary of the 8-bit dtypes. What is expected comes from tables of the definitions
 * (the values of all codes by ldexp) and from order alone: the nearest code, the even one of two as near; beyond the
 * largest, the rule of overflow. */
#include <criterion/criterion.h>
#include <math.h>

#include "../../op/dtype.h"

typedef struct {
    hm_dtype dtype;
    int fraction, bias, finite; /* fraction bits, exponent bias, finite codes of either sign */
    uint8_t nan;
} format;

static const format formats[] = {
    {HM_F8E4M3, 3, 7, 0x7F, 0x7F}, {HM_F8E4M3FNUZ, 3, 8, 0x80, 0x80}, {HM_F8E5M2, 2, 15, 0x7C, 0x7E}};
enum { FORMATS = sizeof formats / sizeof *formats };

/* Of any code that follows the finite ones too: the value if exponents went on. */
static double decode(const format *f, int code) {
    int exponent = code >> f->fraction, fraction = code & ((1 << f->fraction) - 1);
    return exponent ? ldexp(fraction + (1 << f->fraction), exponent - f->bias - f->fraction)
                    : ldexp(fraction, 1 - f->bias - f->fraction);
}

static uint8_t overflowed(const format *f, bool negative, hm_overflow overflow) {
    uint8_t sign = negative ? 0x80 : 0;
    if (overflow == HM_OVERFLOW_SATURATE) return (uint8_t)(f->finite - 1) | sign;
    return f->dtype == HM_F8E4M3 ? 0x7F | sign : f->dtype == HM_F8E5M2 ? 0x7C | sign : 0x80;
}

static void stores(const format *f, double v, int code) {
    for (int overflow = 0; overflow < 2; overflow++)
        for (int negative = 0; negative < 2; negative++) {
            uint8_t want =
                code < f->finite ? (uint8_t)(code | (negative ? 0x80 : 0)) : overflowed(f, negative, overflow);
            if (f->dtype == HM_F8E4M3FNUZ && code == 0) want = 0; /* no -0 */
            uint8_t got = hm_store8(f->dtype, negative ? -v : v, overflow);
            cr_assert_eq(got, want, "%s: %s%a gives 0x%02X, not 0x%02X", hm_dtype_name(f->dtype), negative ? "-" : "",
                         v, got, want);
        }
}

Test(dtype8, known_values) {
    cr_assert_eq(decode(&formats[0], 0x7E), 448);
    cr_assert_eq(decode(&formats[1], 0x7F), 240);
    cr_assert_eq(decode(&formats[2], 0x7B), 57344);
    cr_assert_eq(hm_store8(HM_F8E4M3, 464, HM_OVERFLOW_IEEE), 0x7E); /* the tie goes to the even code */
    cr_assert_eq(hm_store8(HM_F8E4M3, 465, HM_OVERFLOW_IEEE), 0x7F);
    cr_assert_eq(hm_store8(HM_F8E4M3, 465, HM_OVERFLOW_SATURATE), 0x7E);
    cr_assert_eq(hm_store8(HM_F8E4M3FNUZ, 248, HM_OVERFLOW_IEEE), 0x80);
    cr_assert_eq(hm_store8(HM_F8E5M2, 61440, HM_OVERFLOW_IEEE), 0x7C);
    cr_assert_eq(hm_store8(HM_F32, 1, HM_OVERFLOW_IEEE), 0);
    cr_assert(isnan(hm_load8(HM_F32, 1)));
}

Test(dtype8, loads_every_code) {
    for (int k = 0; k < FORMATS; k++)
        for (int code = 0; code < 256; code++) {
            const format *f = &formats[k];
            int magnitude = code & 0x7F;
            double v = hm_load8(f->dtype, (uint8_t)code), want = decode(f, magnitude);
            if (f->dtype == HM_F8E4M3FNUZ ? code == 0x80 : magnitude >= f->finite)
                want = f->dtype == HM_F8E5M2 && magnitude == 0x7C ? INFINITY : NAN;
            if (isnan(want)) cr_assert(isnan(v), "%s 0x%02X", hm_dtype_name(f->dtype), code);
            else
                cr_assert(v == (code & 0x80 ? -want : want) && !signbit(v) == !(code & 0x80), "%s 0x%02X",
                          hm_dtype_name(f->dtype), code);
        }
}

Test(dtype8, stores_every_boundary) {
    for (int k = 0; k < FORMATS; k++) {
        const format *f = &formats[k];
        for (int code = 0; code < f->finite; code++) { /* the last one's neighbour is the first that overflows */
            double v = decode(f, code), up = decode(f, code + 1), tie = v + (up - v) / 2;
            stores(f, v, code);
            stores(f, nextafter(tie, 0), code);
            stores(f, tie, code % 2 ? code + 1 : code);
            stores(f, nextafter(tie, INFINITY), code + 1);
            stores(f, nextafter(v, INFINITY), code);
        }
        stores(f, 0x1p-1074, 0);
        stores(f, 0x1.fffffffffffffp1023, f->finite);
        stores(f, INFINITY, f->finite);
        for (int overflow = 0; overflow < 2; overflow++) {
            cr_assert_eq(hm_store8(f->dtype, NAN, overflow), f->nan);
            cr_assert_eq(hm_store8(f->dtype, -NAN, overflow), f->nan);
        }
    }
}

Test(dtype8, e8m0) {
    for (int overflow = 0; overflow < 2; overflow++) {
        for (int code = 0; code < 255; code++) {
            double v = ldexp(1, code - 127), tie = 1.5 * v;
            uint8_t above = code < 254 ? (uint8_t)(code + 1) : overflow ? 254 : 255;
            cr_assert_eq(hm_load8(HM_E8M0, (uint8_t)code), v);
            cr_assert_eq(hm_store8(HM_E8M0, v, overflow), code);
            cr_assert_eq(hm_store8(HM_E8M0, nextafter(tie, 0), overflow), code);
            cr_assert_eq(hm_store8(HM_E8M0, tie, overflow), above);
            cr_assert_eq(hm_store8(HM_E8M0, -v, overflow), 255);
        }
        cr_assert_eq(hm_store8(HM_E8M0, 0, overflow), 0);
        cr_assert_eq(hm_store8(HM_E8M0, -0.0, overflow), 0);
        cr_assert_eq(hm_store8(HM_E8M0, 0x1p-1074, overflow), 0);
        cr_assert_eq(hm_store8(HM_E8M0, INFINITY, overflow), overflow ? 254 : 255);
        cr_assert_eq(hm_store8(HM_E8M0, -INFINITY, overflow), 255);
        cr_assert_eq(hm_store8(HM_E8M0, NAN, overflow), 255);
    }
    cr_assert(isnan(hm_load8(HM_E8M0, 255)));
}
