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

/* The least power of two S with S * divisor >= a; 2^-126 if that is less. Exact: S * divisor is a f32, or infinite. */
__device__ __forceinline__ float power_above(float a, float divisor) {
    if (a <= __fmul_rn(divisor, 0x1p-126f)) return 0x1p-126f;
    int k = (int)(__float_as_uint(a) >> 23) - (int)(__float_as_uint(divisor) >> 23) + 126; /* biased, one below */
    k = k < 1 ? 1 : k > 254 ? 254 : k;
    float s = __uint_as_float((uint32_t)k << 23);
#pragma unroll
    for (int i = 0; i < 2; i++)
        if (__fmul_rn(s, divisor) < a) s = __fmul_rn(s, 2.0f);
    return s;
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
 * quotients that are not rounded to the code 0 are at least 2^-101 * 2^-24 = 2^-125. Infinite and NaN values stay what
 * they make the group: unspecified, and NaN. */
template <int N>
__device__ __forceinline__ void divide_by_scale(const scale_rule &r, float s, float *v) {
    if (r.reciprocal || r.power_of_two) {
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

} // namespace hm

#endif
