/* The paired test against exact fractions, the divergence against the textbook's formula in long double. */
#include "eval/score.h"

#include <criterion/criterion.h>
#include <math.h>

#include "host.h"

/* Exact values, from sums of binomial coefficients as fractions. */
Test(score, mcnemar_is_exact) {
    static const struct {
        int64_t lost, gained;
        double p;
    } known[] = {{0, 0, 1},
                 {1, 0, 1},
                 {5, 0, 0x1p-4},
                 {6, 0, 0x1p-5},
                 {0, 6, 0x1p-5},
                 {9, 2, 0x1.0cp-4},
                 {10, 3, 0x1.7ap-4},
                 {16, 4, 0x1.834p-7},
                 {4, 16, 0x1.834p-7},
                 {25, 12, 0x1.81473698p-5},
                 {59, 6, 0x1.5d5b308p-38},
                 {100, 100, 1},
                 {150, 110, 0x1.f923480f02106p-7},
                 {3000, 2800, 0x1.25e91524f3d17p-7},
                 {380, 3, 0x1.1dc4p-359}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        double p = hm_mcnemar(known[i].lost, known[i].gained);
        cr_assert(fabs(p - known[i].p) <= 1e-12 * known[i].p, "%d lost, %d gained: %a, not %a", (int)known[i].lost,
                  (int)known[i].gained, p, known[i].p);
    }
}

Test(score, least_detectable_is_the_first_below_alpha) {
    cr_assert_eq(hm_least_detectable(0.05), 6);
    cr_assert_eq(hm_least_detectable(0.03125), 7); /* 2 * 2^-6 is not below it */
    cr_assert_eq(hm_least_detectable(0.01), 8);
    /* No mixture with fewer lost than gained + that many is seen. */
    for (int64_t gained = 0; gained < 200; gained++)
        for (int64_t drop = 0; drop < 6; drop++) cr_assert(hm_mcnemar(gained + drop, gained) >= 0.05);
}

static long double log_softmax(const float *x, int n, int i) {
    long double sum = 0;
    for (int k = 0; k < n; k++) sum += expl((long double)x[k] - x[i]);
    return -logl(sum);
}

Test(score, divergence_is_the_textbooks) {
    enum { N = 288 };
    float p[N], q[N];
    needs_long_double();
    uint32_t state = 1;
    for (double scale = 1e-6; scale < 20; scale *= 10) {
        for (int i = 0; i < N; i++) {
            state = state * 1664525 + 1013904223;
            p[i] = (float)(state >> 8) * 0x1p-20f;
            state = state * 1664525 + 1013904223;
            q[i] = p[i] + (float)(scale * ((double)(state >> 8) * 0x1p-24 - 0.5));
        }
        long double kl = 0, most = 0;
        for (int i = 0; i < N; i++) {
            long double lp = log_softmax(p, N, i), d = lp - log_softmax(q, N, i);
            kl += expl(lp) * d;
            if (fabsl(d) > most) most = fabsl(d);
        }
        double difference, got = hm_kl(p, q, N, &difference);
        cr_assert(fabsl(got - kl) <= 1e-9L * kl + 1e-18L, "at %g: %.17g, not %.17Lg", scale, got, kl);
        cr_assert(fabsl(difference - most) <= 1e-9L * most, "at %g: %.17g, not %.17Lg", scale, difference, most);
    }
}

Test(score, divergence_of_what_is_known) {
    double difference;
    const float even[] = {0, 0}, odd[] = {0, 1.0986122886681098f}, shifted[] = {88, 88}; /* 1/2, 1/2; 1/4, 3/4 */
    cr_assert_float_eq(hm_kl(even, odd, 2, &difference), 0.14384103622589045, 1e-7);
    cr_assert_float_eq(difference, 0.6931471805599453, 1e-7);
    cr_assert_float_eq(hm_kl(odd, even, 2, &difference), 0.13081203594113694, 1e-7);
    cr_assert_eq(hm_kl(odd, odd, 2, &difference), 0);
    cr_assert_eq(difference, 0);
    cr_assert_float_eq(hm_kl(even, shifted, 2, &difference), 0, 1e-15);
    const float far[] = {3e38f, -3e38f}, other[] = {-3e38f, 3e38f};
    cr_assert_eq(hm_kl(far, far, 2, &difference), 0);
    cr_assert(hm_kl(far, other, 2, &difference) > 1e38);
}

Test(score, what_is_not_finite_is_infinitely_far) {
    double difference;
    const float fine[] = {0, 1, 2}, nan_[] = {0, NAN, 2}, inf[] = {0, INFINITY, 2}, minus[] = {-INFINITY, 1, 2};
    const float *bad[] = {nan_, inf, minus};
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(hm_kl(fine, bad[i], 3, &difference), INFINITY);
        cr_assert_eq(difference, INFINITY);
        cr_assert_eq(hm_kl(bad[i], fine, 3, &difference), INFINITY);
    }
}

Test(score, lists) {
    hm_kl_list list = {0};
    cr_assert_eq(hm_kl_mean(&list), 0);
    cr_assert_eq(hm_kl_quantile(&list, 0.99), 0);
    for (int i = 3000; i > 0; i--) cr_assert(hm_kl_add(&list, i, i % 2 ? i : -i));
    cr_assert_eq(list.largest_difference, 2999);
    cr_assert_eq(hm_kl_mean(&list), 1500.5);
    cr_assert_eq(hm_kl_quantile(&list, 0.99), 2970);
    cr_assert_eq(hm_kl_quantile(&list, 0.99001), 2971);
    cr_assert_eq(hm_kl_quantile(&list, 0), 1);
    cr_assert_eq(hm_kl_quantile(&list, 1), 3000);
    cr_assert(hm_kl_add(&list, INFINITY, INFINITY));
    cr_assert_eq(hm_kl_mean(&list), INFINITY);
    cr_assert_eq(hm_kl_quantile(&list, 1), INFINITY);
    cr_assert_eq(list.largest_difference, INFINITY);
    cr_assert(hm_kl_add(&list, 0, NAN)); /* a NaN is not lost behind a number */
    cr_assert(isnan(list.largest_difference));
    hm_kl_free(&list);
}
