#include "fp8.h"

#include <float.h>
#include <math.h>

static float flushed(const hm_fp8_variant *v, float x) { return v->flush && fabsf(x) < FLT_MIN ? copysignf(0, x) : x; }

static float ratio(const hm_fp8_variant *v, float amax, float divisor) {
    float r = amax / divisor;
    switch (v->ratio) {
        case RATIO_MULTIPLIED:
            return amax * (1 / divisor);
        case RATIO_HIGH:
            return (float)((double)amax / (double)divisor * (1 + 0x1.fp-23));
        case RATIO_LOW:
            return (float)((double)amax / (double)divisor * (1 - 0x1.fp-23));
        case RATIO_NEXT:
            return nextafterf(r, INFINITY);
        case RATIO_BEFORE:
            return nextafterf(r, 0);
        case RATIO_WIDE:
            return (float)((double)amax / (double)divisor);
        default:
            return r;
    }
}

static float power_up(const hm_fp8_variant *v, float r) {
    int exponent;
    if (v->power == POWER_BY_LOGARITHM) return exp2f(ceilf(log2f(r)));
    float fraction = frexpf(r, &exponent);
    return ldexpf(1, fraction == 0.5f ? exponent - 1 : exponent);
}

float hm_fp8_variant_scale(const hm_fp8_variant *v, float amax, float divisor, float floor_at, bool floor_on_scale,
                           bool power_of_two) {
    if (!floor_on_scale) amax = fmaxf(amax, floor_at);
    /* Approximations are for scales that are not rounded up: a power of two needs the division itself. */
    float S = power_of_two && v->ratio != RATIO_MULTIPLIED ? amax / divisor : ratio(v, amax, divisor);
    if (floor_on_scale) S = fmaxf(S, floor_at);
    return power_of_two ? power_up(v, S) : S;
}

double hm_fp8_variant_quotient(const hm_fp8_variant *v, float x, float scale, bool reciprocal) {
    float inverse = 1 / scale;
    if (v->code == CODE_WIDE) return reciprocal ? (double)x * (double)inverse : (double)x / (double)scale;
    return (double)(reciprocal ? x * inverse : x / scale);
}

float hm_fp8_variant_operand(const hm_fp8_variant *v, double x) { return flushed(v, (float)x); }
