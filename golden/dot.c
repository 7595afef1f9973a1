#include "dot.h"

#include <math.h>

#define GROW (1 + 0x1p-20)

static bool subnormal_f32(double v) { return v != 0 && fabs(v) < 0x1p-126; }

/* Partial sums of their own, so that the bits do not depend on the length of a vector. */
enum { LANES = 8 };

typedef struct {
    double sum[LANES], magnitude[LANES], lost[LANES];
} lanes;

static void add(lanes *l, int i, double t, bool lost) {
    l->sum[i] += t, l->magnitude[i] += fabs(t), l->lost[i] += lost ? fabs(t) : 0;
}

static hm_dot together(const lanes *l, int64_t n) {
    hm_dot r = {0};
    for (int i = 0; i < LANES; i++) r.sum += l->sum[i], r.magnitude += l->magnitude[i], r.lost += l->lost[i];
    r.error = (double)(n / LANES + LANES + 1) * 0x1p-53 * r.magnitude * GROW;
    return r;
}

hm_dot hm_dot_of(const double *a, const double *b, int64_t n) {
    lanes l = {0};
    for (int64_t j = 0; j < n; j++) add(&l, (int)(j % LANES), a[j] * b[j], subnormal_f32(a[j]) || subnormal_f32(b[j]));
    return together(&l, n);
}

hm_dot hm_sum_of(const double *t, int64_t n) {
    lanes l = {0};
    for (int64_t j = 0; j < n; j++) add(&l, (int)(j % LANES), t[j], false);
    return together(&l, n);
}

static void tensor_core(const double *a, const double *b, int64_t n, const hm_dot *dot, int bits, double *below,
                        double *above) {
    double plus = (dot->magnitude + dot->sum) / 2, minus = (dot->magnitude - dot->sum) / 2;
    double A = (plus > minus ? plus : minus) * GROW;
    if (A == 0) return;
    int exponent, k_min = bits == 23 ? 8 : 32;
    frexp(A, &exponent);
    double U = ldexp(1, exponent - 1 - bits), up = 0, down = 0;
    for (int64_t j = 0; j < n; j++) {
        double t = b ? a[j] * b[j] : a[j], m = fabs(t), r = t / U; /* |r| < 2^25: its nearest integer as below */
        if ((r + 0x1.8p52) - 0x1.8p52 == r) continue;
        *(t > 0 ? &up : &down) += m < U ? m : U;
    }
    double e = (bits == 23 ? 2 : 1) * (double)((n + k_min - 1) / k_min) * U;
    *below = fmax(*below, (up + e) * GROW), *above = fmax(*above, (down + e) * GROW);
}

static void radius(const double *a, const double *b, int64_t n, const hm_dot *dot, hm_class c, bool exact_products,
                   double *below, double *above) {
    hm_arithmetic arithmetic = hm_class_arithmetic(c);
    int64_t chain = hm_class_chain(c, n);
    if (chain > n) chain = n; /* n + 1 with the rounding of the product */
    double r = (hm_growth(arithmetic.u, +1, chain + !exact_products) - 1) * dot->magnitude;
    if (arithmetic.f32) r += dot->lost + (double)(2 * n) * 0x1p-126;
    *below = *above = r * GROW;
    if (dot->magnitude == 0) *below = *above = 0;
    if (c >= HM_TC23) tensor_core(a, b, n, dot, 23, below, above);
    if (c >= HM_TC13) tensor_core(a, b, n, dot, 13, below, above);
}

void hm_dot_radius(const double *a, const double *b, int64_t n, const hm_dot *dot, hm_class c, bool exact_products,
                   double *below, double *above) {
    radius(a, b, n, dot, c, exact_products, below, above);
}

void hm_sum_radius(const double *t, int64_t n, const hm_dot *dot, hm_class c, bool exact_products, double *below,
                   double *above) {
    radius(t, NULL, n, dot, c, exact_products, below, above);
}
