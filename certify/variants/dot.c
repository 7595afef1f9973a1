#include "dot.h"

#include <math.h>

float hm_variant_pairwise(const float *t, int64_t n) {
    if (n == 0) return 0;
    return n == 1 ? t[0] : hm_variant_pairwise(t, n / 2) + hm_variant_pairwise(t + n / 2, n - n / 2);
}

float hm_variant_tensor_core(int bits, int block, const float *t, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i += block) {
        int64_t m = n - i < block ? n - i : block;
        double most = fabs(sum), next = 0;
        for (int64_t k = 0; k < m; k++) most = fabs((double)t[i + k]) > most ? fabs((double)t[i + k]) : most;
        if (most == 0) continue;
        if (!isfinite(most)) return NAN;
        int exponent;
        frexp(most, &exponent);
        double unit = ldexp(1, exponent - 1 - bits);
        for (int64_t k = 0; k < m; k++) next += trunc((double)t[i + k] / unit) * unit;
        next += trunc(sum / unit) * unit;
        sum = next == 0 ? 0 : (frexp(next, &exponent), unit = ldexp(1, exponent - 1 - bits), trunc(next / unit) * unit);
    }
    return (float)sum;
}
