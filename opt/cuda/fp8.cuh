/* fp8.cuh: scales of groups and 8-bit codes, for the kernels that quantise. */
#ifndef HM_CUDA_FP8_CUH
#define HM_CUDA_FP8_CUH

#include <cuda_fp8.h>

#include "common.cuh"

namespace hm {

/* How codes are made: significant bits behind the point, bias of the exponent, the largest code, what overflows to. */
struct code_rule {
    int fraction, bias;
    uint8_t largest, beyond, nan; /* beyond: where rounding passes the largest, without its sign */
    bool no_negative_zero;        /* and its NaN has no other sign */
    bool hardware;                /* f8e4m3, saturating: one instruction where the device has it */
};

static inline code_rule code_rule_of(hm_dtype dtype, bool saturate) {
    if (dtype == HM_F8E5M2) return {2, 15, 0x7B, (uint8_t)(saturate ? 0x7B : 0x7C), 0x7E, false, false};
    if (dtype == HM_F8E4M3FNUZ) return {3, 8, 0x7F, (uint8_t)(saturate ? 0x7F : 0x80), 0x80, true, false};
    return {3, 7, 0x7E, (uint8_t)(saturate ? 0x7E : 0x7F), 0x7F, false, saturate};
}

/* RN(v) as a code: to nearest, ties to even, with subnormals. */
__device__ __forceinline__ uint8_t code_of(const code_rule &r, float v) {
    uint32_t bits = __float_as_uint(v), a = bits & 0x7fffffffu, sign = bits >> 24 & 0x80u, code;
    if (a > 0x7f800000u) return r.nan;
    if (a < (uint32_t)(128 - r.bias) << 23) {
        /* in units of the least subnormal, 2^(1 - bias - fraction): 2^23 more has these units as its last bits */
        float unit = __uint_as_float((uint32_t)(127 + r.bias - 1 + r.fraction) << 23);
        code = __float_as_uint(__fmaf_rn(__uint_as_float(a), unit, 8388608.0f)) & 0xffu;
    } else {
        int drop = 23 - r.fraction;
        uint32_t even = a + ((1u << (drop - 1)) - 1) + (a >> drop & 1);
        code = (even >> drop) - ((uint32_t)(127 - r.bias) << r.fraction);
        if (code > r.largest) code = r.beyond;
    }
    if (r.no_negative_zero && (code == 0 || code == 0x80)) return (uint8_t)code;
    return (uint8_t)(code | sign);
}

/* N codes, N even, next to each other in words of N bytes. */
template <int N>
__device__ __forceinline__ void codes_of(const code_rule &r, const float *v, uint8_t *to) {
    if (r.hardware) {
#pragma unroll
        for (int i = 0; i < N; i += 2) {
            __nv_fp8x2_storage_t two = __nv_cvt_float2_to_fp8x2(make_float2(v[i], v[i + 1]), __NV_SATFINITE, __NV_E4M3);
            to[i] = (uint8_t)(two & 0xff), to[i + 1] = (uint8_t)(two >> 8);
        }
    } else
#pragma unroll
        for (int i = 0; i < N; i++) to[i] = code_of(r, v[i]);
}

struct scale_rule {
    float divisor, per_divisor, floor; /* per_divisor: 1 / divisor */
    bool floor_on_scale, power_of_two, reciprocal;
};

/* The least power of two S with S * divisor >= a; 2^-126 if that is less. With a = m 2^e and divisor = n 2^d it is
 * 2^(e - d) if m <= n, else twice that: the sum below carries into the exponent just then. */
__device__ __forceinline__ float power_above(float a, float divisor) {
    const uint32_t d = __float_as_uint(divisor);
    const int exponent = (int)((__float_as_uint(a) + (0x7fffffu - (d & 0x7fffffu))) >> 23) + 127 - (int)(d >> 23);
    return __uint_as_float((uint32_t)(exponent < 1 ? 1 : exponent) << 23);
}

/* S of a group with this largest magnitude; a product with the rounded reciprocal is within 2^-23 of the quotient. */
__device__ __forceinline__ float scale_of(const scale_rule &r, float amax) {
    if (!r.floor_on_scale) amax = fmaxf(amax, r.floor);
    float s = r.power_of_two ? power_above(amax, r.divisor) : __fmul_rn(amax, r.per_divisor);
    if (!r.floor_on_scale) return s;
    return fmaxf(s, r.power_of_two ? power_above(r.floor, 1.0f) : r.floor);
}

/* v := RN(v / S), or RN(v * RN(1 / S)). By a power of two both are one product.
 * The quotient without dividing: y = RN(1/S); q = RN(v y) is off by 2 ulp at most, its remainder v - q S fits in f32
 * but for a last bit, so that q + y (v - q S), rounded, is within an ulp; then the remainder is exact, and once more
 * the same is RN(v / S) (Markstein). That needs remainders that do not underflow: with S of at least 2^-90 those of
 * quotients that are not rounded to the code 0 are at least 2^-101 * 2^-24 = 2^-125. A NaN stays one, and an infinite
 * scale makes everything NaN: unspecified, but the same in all kernels. */
template <int N>
__device__ __forceinline__ void divide_by_scale(const scale_rule &r, float s, float *v) {
    if (!(s <= 0x1.fffffep127f)) {
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = __int_as_float(0x7fffffff);
    } else if (r.reciprocal || r.power_of_two) {
        float inverse = __frcp_rn(s);
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = __fmul_rn(v[i], inverse);
    } else if (s >= 0x1p-90f && s <= 0x1p90f) {
        float inverse = __frcp_rn(s);
#pragma unroll
        for (int i = 0; i < N; i++) {
            float q = __fmul_rn(v[i], inverse);
            float better = __fmaf_rn(__fmaf_rn(-q, s, v[i]), inverse, q);
            better = __fmaf_rn(__fmaf_rn(-better, s, v[i]), inverse, better);
            v[i] = q == 0.0f ? q : better; /* -0 keeps its sign */
        }
    } else
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = __fdiv_rn(v[i], s);
}

/* The largest magnitude of n values; NaN is never larger. */
template <int N>
__device__ __forceinline__ float amax_of(const float *v) {
    float a = 0.0f;
#pragma unroll
    for (int i = 0; i < N; i++) a = fmaxf(a, fabsf(v[i]));
    return a;
}

/* ---- 16-bit elements in words, f8e4m3 that saturates: what the fast kernels have -------------------------------- */

/* Of two words of two elements the larger halves; NaN is never larger. */
template <typename T>
__device__ __forceinline__ uint32_t larger(uint32_t a, uint32_t b);
template <>
__device__ __forceinline__ uint32_t larger<bf16>(uint32_t a, uint32_t b) {
    __nv_bfloat162 two = __hmax2(*(const __nv_bfloat162 *)&a, *(const __nv_bfloat162 *)&b);
    return *(const uint32_t *)&two;
}
template <>
__device__ __forceinline__ uint32_t larger<f16>(uint32_t a, uint32_t b) {
    __half2 two = __hmax2(*(const __half2 *)&a, *(const __half2 *)&b);
    return *(const uint32_t *)&two;
}

/* The largest magnitude of WORDS words of each of LANES threads side by side, LANES a power of two. */
template <typename T, int WORDS, int LANES>
__device__ __forceinline__ float amax_of_words(const uint32_t *w) {
    uint32_t m = w[0] & 0x7fff7fffu;
    float a, b;
#pragma unroll
    for (int i = 1; i < WORDS; i++) m = larger<T>(m, w[i] & 0x7fff7fffu);
#pragma unroll
    for (int step = LANES / 2; step; step /= 2) m = larger<T>(m, __shfl_xor_sync(~0u, m, step));
    pair<T>::get(&m, &a, &b);
    return fmaxf(a, b);
}

/* A scale_rule with what power_above makes of its divisor. */
struct word_rule {
    float per_divisor, least, floor; /* of the magnitude and of the scale; either is 0 */
    uint32_t carry;
    int bias;
    bool power_of_two, reciprocal;
};

/* For f8e4m3 that saturates. divisor: so that 1 / S is a normal number; floor: so that S is at least 2^-90, for
 * codes_of_words without SMALL. */
static inline bool has_word_rule(const scale_rule &r, const code_rule &c, bool small = false) {
    const float least = r.floor_on_scale ? r.floor : r.floor * r.per_divisor;
    return c.hardware && r.divisor >= 4.0f && (r.power_of_two || small || least >= 0x1p-89f);
}

static inline word_rule word_rule_of(const scale_rule &r) {
    uint32_t divisor, floor;
    __builtin_memcpy(&divisor, &r.divisor, 4), __builtin_memcpy(&floor, &r.floor, 4);
    word_rule w = {};
    w.per_divisor = r.per_divisor, w.least = r.floor_on_scale ? 0.0f : r.floor;
    w.carry = 0x7fffffu - (divisor & 0x7fffffu), w.bias = 127 - (int)(divisor >> 23);
    w.power_of_two = r.power_of_two, w.reciprocal = r.reciprocal;
    if (r.power_of_two) floor = (floor + 0x7fffffu) & 0x7f800000u; /* power_above(floor, 1) */
    if (r.floor_on_scale) __builtin_memcpy(&w.floor, &floor, 4);
    return w;
}

/* The scale of a group; the same as scale_of. amax: NaN if there is nothing else. */
__device__ __forceinline__ float scale_of(const word_rule &r, float amax) {
    amax = fmaxf(amax, r.least);
    float s = __fmul_rn(amax, r.per_divisor);
    if (r.power_of_two) {
        int exponent = (int)((__float_as_uint(amax) + r.carry) >> 23) + r.bias;
        s = __uint_as_float((uint32_t)(exponent < 1 ? 1 : exponent) << 23);
    }
    return fmaxf(s, r.floor);
}

__device__ __forceinline__ uint32_t code_word(float a, float b, float c, float d) {
    uint32_t low = __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, __NV_E4M3);
    uint32_t high = __nv_cvt_float2_to_fp8x2(make_float2(c, d), __NV_SATFINITE, __NV_E4M3);
    return high << 16 | low;
}

/* RN(1 / s) for 2^-126 <= s <= 2^126, as __frcp_rn has it there, without its test for other s. */
__device__ __forceinline__ float reciprocal_of(float s) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(s));
    return __fmaf_rn(y, __fmaf_rn(-s, y, 1.0f), y);
}

/* Codes of WORDS words, WORDS / 2 words of them, for the scale s; the same as divide_by_scale and codes_of.
 * A quotient takes one step here: with T of 16 bits a q that is off by 2 ulp becomes RN(v / S (1 + d)) with |d| <
 * 2^-44, and for each of T's 2^11 significands and each tie between two codes (5 bits) that is on the side of the tie
 * where RN(v / S) is, or on the tie: tried for the 49 scales about each such quotient, and for scales further off both
 * are on the same side. Remainders must not underflow: s is at least 2^-90, or SMALL, and then both are scaled up
 * first. The remainder is that of -v, so that -0 keeps its sign. */
template <typename T, int WORDS, bool SMALL = false>
__device__ __forceinline__ void codes_of_words(const word_rule &r, float s, const uint32_t *w, uint32_t *to) {
    if (r.power_of_two) {
        const float inverse = __uint_as_float((254u << 23) - __float_as_uint(s));
#pragma unroll
        for (int i = 0; i < WORDS; i += 2) {
            float v[4];
            pair<T>::get(w + i, v, v + 1), pair<T>::get(w + i + 1, v + 2, v + 3);
#pragma unroll
            for (int k = 0; k < 4; k++) v[k] = __fmul_rn(v[k], inverse);
            to[i / 2] = code_word(v[0], v[1], v[2], v[3]);
        }
        return;
    }
    const float up = SMALL && s < 0x1p-90f ? 0x1p60f : 1.0f;
    if (SMALL) s = __fmul_rn(s, up);
    const float inverse = reciprocal_of(s);
#pragma unroll
    for (int i = 0; i < WORDS; i += 2) {
        float v[4];
        pair<T>::get(w + i, v, v + 1), pair<T>::get(w + i + 1, v + 2, v + 3);
        if (SMALL)
#pragma unroll
            for (int k = 0; k < 4; k++) v[k] = __fmul_rn(v[k], up);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const float q = __fmul_rn(v[k], inverse);
            v[k] = r.reciprocal ? q : __fmaf_rn(-__fmaf_rn(q, s, -v[k]), inverse, q);
        }
        to[i / 2] = code_word(v[0], v[1], v[2], v[3]);
    }
}

} // namespace hm

#endif
