/* The long tier's proof of the converters: all 2^32 f32 values, as binary64, stored in f16, bf16, f32 and the four
 * 8-bit dtypes; all 2^16 codes of f16 and bf16 loaded; and binary64 values that no f32 holds (2^24 a dtype, half of
 * them midpoints or beside one) against MPFR. The expected values come from integer arithmetic on the f32 code that
 * shares nothing with op/dtype.c, from the CPU's own converters where it has them (F16C), and from MPFR. Prints one
 * line a target; exit 1 on any difference. */
#include <inttypes.h>
#include <math.h>
#include <mpfr.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../../op/dtype.h"

enum { BLOCK = 4096 };

static float value32(uint32_t code) {
    float v;
    memcpy(&v, &code, sizeof v);
    return v;
}

/* Round-half-even by asking for the remainder: the f32 significand shifted right, whatever fell off compared with one
 * half. */
static uint32_t shift_rounded(uint32_t significand, int shift) {
    if (shift > 25) return 0; /* less than half of the last place */
    uint32_t kept = significand >> shift, rest = significand - (kept << shift), half = 1u << (shift - 1);
    return kept + (rest > half || (rest == half && kept % 2 == 1));
}

/* f32 code to the code of a format with `bits` fraction bits and exponent bias `bias`. */
static uint16_t narrow(uint32_t code, int bits, int bias) {
    uint32_t sign = code >> 31 << 15, exponent = code >> 23 & 255, fraction = code & 0x7FFFFF;
    uint32_t inf = (uint32_t)(2 * bias + 1) << bits;
    if (exponent == 255) return (uint16_t)(fraction ? inf | 1u << (bits - 1) : sign | inf);
    int e = exponent ? (int)exponent : 1, target = e - 127 + bias; /* biased exponent in the target, if normal there */
    uint32_t significand = fraction | (exponent ? 0x800000u : 0), r;
    if (target >= 1) /* a carry runs into the exponent, as it should; a subnormal f32 has no hidden bit to remove */
        r = ((uint32_t)target << bits) + shift_rounded(significand, 23 - bits) - (1u << bits);
    else r = shift_rounded(significand, 23 - bits + 1 - target);
    return (uint16_t)(sign | (r > inf ? inf : r));
}

static int64_t all_f32(hm_dtype dtype, int bits, int bias) {
    int64_t bad = 0;
#pragma omp parallel for schedule(dynamic, 64) reduction(+ : bad)
    for (int64_t block = 0; block < (INT64_C(1) << 32) / BLOCK; block++) {
        static _Thread_local double v[BLOCK];
        static _Thread_local uint16_t got[BLOCK];
        for (int i = 0; i < BLOCK; i++) v[i] = (double)value32((uint32_t)(block * BLOCK + i));
        hm_store_row(dtype, got, 1, BLOCK, v);
        for (int i = 0; i < BLOCK; i++) bad += got[i] != narrow((uint32_t)(block * BLOCK + i), bits, bias);
        /* one at a time and as binary64, every 16th block (all blocks would say the same ten times slower) */
        for (int i = 0; block % 16 == 0 && i < BLOCK; i++) {
            uint16_t one;
            hm_store(dtype, &one, v[i]);
            double rounded = hm_round_to(dtype, v[i]), back = hm_load(dtype, &one);
            bad += one != got[i] || (rounded != back && !(isnan(rounded) && isnan(back)));
        }
    }
    return bad;
}

/* f32 code to an 8-bit code, in integers. largest: the code of the largest value; over: what IEEE overflow gives. */
static uint8_t narrow8(uint32_t code, int bits, int bias, uint32_t largest, uint32_t over, hm_dtype dtype,
                       bool saturate) {
    uint32_t sign = code >> 31 << 7, exponent = code >> 23 & 255, fraction = code & 0x7FFFFF;
    if (exponent == 255 && fraction) return dtype == HM_F8E4M3 ? 0x7F : dtype == HM_F8E5M2 ? 0x7E : 0x80;
    int e = exponent ? (int)exponent : 1, target = e - 127 + bias;
    uint32_t significand = fraction | (exponent ? 0x800000u : 0), r;
    if (target > 60) r = 0xFFFF;
    else if (target >= 1) r = ((uint32_t)target << bits) + shift_rounded(significand, 23 - bits) - (1u << bits);
    else r = shift_rounded(significand, 23 - bits + 1 - target);
    if (r > largest) return (uint8_t)(saturate ? sign | largest : dtype == HM_F8E4M3FNUZ ? over : sign | over);
    return (uint8_t)(dtype == HM_F8E4M3FNUZ && r == 0 ? 0 : sign | r);
}

/* Nearest power of two, a tie upward, by comparing the fraction with one half; f32 subnormals are 2^-127 or its
 * neighbour. */
static uint8_t narrow_e8m0(uint32_t code, bool saturate) {
    uint32_t exponent = code >> 23 & 255, fraction = code & 0x7FFFFF;
    if ((exponent == 255 && fraction) || (code >> 31 && code != 0x80000000u)) return 0xFF;
    uint32_t r = exponent + (exponent ? fraction >= 0x400000u : fraction >= 0x600000u);
    return (uint8_t)(r < 255 ? r : saturate ? 254 : 255);
}

static int64_t all_f32_in_8(hm_dtype dtype, int bits, int bias, uint32_t largest, uint32_t over) {
    int64_t bad = 0;
#pragma omp parallel for schedule(static) reduction(+ : bad)
    for (int64_t code = 0; code < INT64_C(1) << 32; code++) {
        double v = (double)value32((uint32_t)code);
        for (int saturate = 0; saturate < 2; saturate++) {
            uint8_t want = dtype == HM_E8M0 ? narrow_e8m0((uint32_t)code, saturate)
                                            : narrow8((uint32_t)code, bits, bias, largest, over, dtype, saturate);
            bad += hm_store8(dtype, v, saturate ? HM_OVERFLOW_SATURATE : HM_OVERFLOW_IEEE) != want;
        }
    }
    return bad;
}

/* Every code that stands for a number comes back from its value. */
static int64_t all_codes_8(hm_dtype dtype) {
    int64_t bad = 0;
    for (int code = 0; code < 256; code++) {
        double v = hm_load8(dtype, (uint8_t)code);
        bad += !isnan(v) && hm_store8(dtype, v, HM_OVERFLOW_IEEE) != code;
    }
    return bad;
}

static int64_t all_f32_in_f32(void) {
    int64_t bad = 0;
#pragma omp parallel for schedule(dynamic, 64) reduction(+ : bad)
    for (int64_t block = 0; block < (INT64_C(1) << 32) / BLOCK; block++) {
        static _Thread_local double v[BLOCK];
        static _Thread_local uint32_t code[BLOCK], got[BLOCK];
        for (int i = 0; i < BLOCK; i++) code[i] = (uint32_t)(block * BLOCK + i);
        hm_load_row(HM_F32, code, 1, BLOCK, v);
        hm_store_row(HM_F32, got, 1, BLOCK, v);
        for (int i = 0; i < BLOCK; i++) bad += got[i] != ((code[i] << 1) > 0xFF000000u ? 0x7FC00000u : code[i]);
    }
    return bad;
}

#if defined(__x86_64__)
__attribute__((target("f16c,avx"))) static int64_t hardware_f16(void) {
    int64_t bad = 0;
    for (int64_t code = 0; code < INT64_C(1) << 32; code += 8) {
        float v[8];
        uint16_t h[8];
        for (int i = 0; i < 8; i++) v[i] = value32((uint32_t)(code + i));
        __m128i r = _mm256_cvtps_ph(_mm256_loadu_ps(v), _MM_FROUND_TO_NEAREST_INT);
        memcpy(h, &r, sizeof h);
        for (int i = 0; i < 8; i++) bad += h[i] != narrow((uint32_t)(code + i), 10, 15) && !isnan(v[i]);
    }
    return bad;
}
#endif

/* All codes, against the definition of the format. */
static int64_t all_codes(hm_dtype dtype, int bits, int bias) {
    int64_t bad = 0;
    for (uint32_t c = 0; c < 65536; c++) {
        uint16_t code = (uint16_t)c;
        int exponent = (int)(c >> bits) & (2 * bias + 1), fraction = (int)c & ((1 << bits) - 1);
        double v = hm_load(dtype, &code),
               e = ldexp(fraction + (exponent ? 1 << bits : 0), (exponent ? exponent : 1) - bias - bits);
        if (exponent == 2 * bias + 1) e = fraction ? NAN : INFINITY;
        if (c >> 15) e = -e;
        bad += isnan(e) ? !isnan(v) : v != e || !signbit(v) != !signbit(e);
    }
    return bad;
}

/* RN of a binary64 value by MPFR, subnormals included. */
static double by_mpfr(mpfr_t r, double v, int least, int emax) {
    int ternary = mpfr_set_d(r, v, MPFR_RNDN);
    mpfr_exp_t low = mpfr_get_emin(), high = mpfr_get_emax();
    mpfr_set_emin(least + 1);
    mpfr_set_emax(emax);
    ternary = mpfr_check_range(r, ternary, MPFR_RNDN);
    mpfr_subnormalize(r, ternary, MPFR_RNDN);
    mpfr_set_emin(low);
    mpfr_set_emax(high);
    return mpfr_get_d(r, MPFR_RNDN);
}

/* Doubles around the range of the dtype, with last bits of every kind: random, and within an ulp of a midpoint. */
static int64_t doubles(hm_dtype dtype, int precision, int least, int emax) {
    int64_t bad = 0;
#pragma omp parallel for schedule(static) reduction(+ : bad)
    for (int part = 0; part < 256; part++) {
        mpfr_t r;
        mpfr_init2(r, precision);
        uint64_t state = (uint64_t)part * 0x9E3779B97F4A7C15u + 1;
        for (int i = 0; i < 1 << 16; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            uint64_t random = state ^ state >> 29;
            int exponent = least - 3 + (int)(random >> 52 & 1023) % (emax + 6 - least);
            double v = ldexp(1 + (double)(random & 0xFFFFFFFFFFFFFu) * 0x1p-52, exponent);
            if (i % 2) { /* the middle of two neighbours of the dtype, or a double beside it */
                double ulp = ldexp(1, exponent - precision + 1 > least ? exponent - precision + 1 : least);
                v = floor(v / ulp) * ulp + ulp / 2;
                v = i % 6 == 1 ? v : nextafter(v, i % 6 == 3 ? 0 : INFINITY);
            }
            v = random >> 63 ? -v : v;
            double got = hm_round_to(dtype, v), expected = by_mpfr(r, v, least, emax);
            uint32_t code = 0;
            hm_store(dtype, &code, v);
            bad += !(got == expected && hm_load(dtype, &code) == expected && !signbit(got) == !signbit(v));
        }
        mpfr_clear(r);
        mpfr_free_cache();
    }
    return bad;
}

static int line(const char *what, int64_t bad) {
    printf("%-46s %s", what, bad ? "DIFFERS" : "same");
    if (bad) printf(" in %" PRId64, bad);
    putchar('\n');
    fflush(stdout);
    return bad != 0;
}

int main(void) {
    int bad = 0;
    bad += line("all 2^16 f16 codes, loaded", all_codes(HM_F16, 10, 15));
    bad += line("all 2^16 bf16 codes, loaded", all_codes(HM_BF16, 7, 127));
    bad += line("2^24 binary64 values to f16, by MPFR", doubles(HM_F16, 11, -24, 16));
    bad += line("2^24 binary64 values to bf16, by MPFR", doubles(HM_BF16, 8, -133, 128));
    bad += line("2^24 binary64 values to f32, by MPFR", doubles(HM_F32, 24, -149, 128));
    bad += line("all 2^32 f32 values to f16", all_f32(HM_F16, 10, 15));
    bad += line("all 2^32 f32 values to bf16", all_f32(HM_BF16, 7, 127));
    bad += line("all 2^32 f32 values to f32", all_f32_in_f32());
    bad += line("all 2^32 f32 values to f8e4m3, both overflows", all_f32_in_8(HM_F8E4M3, 3, 7, 0x7E, 0x7F));
    bad += line("all 2^32 f32 values to f8e4m3fnuz", all_f32_in_8(HM_F8E4M3FNUZ, 3, 8, 0x7F, 0x80));
    bad += line("all 2^32 f32 values to f8e5m2", all_f32_in_8(HM_F8E5M2, 2, 15, 0x7B, 0x7C));
    bad += line("all 2^32 f32 values to e8m0", all_f32_in_8(HM_E8M0, 0, 0, 0, 0));
    bad += line("all 8-bit codes and back",
                all_codes_8(HM_F8E4M3) + all_codes_8(HM_F8E4M3FNUZ) + all_codes_8(HM_F8E5M2) + all_codes_8(HM_E8M0));
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) /* then it has F16C too, a name that clang 14 does not take here */
        bad += line("the expected f16 codes, by the CPU's converter", hardware_f16());
    else printf("the expected f16 codes: this CPU has no converter to compare with\n");
#endif
    return bad != 0;
}
