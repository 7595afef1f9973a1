/* score.c: statistics of a paired run of word problems. */
#include "score.h"

#include <math.h>
#include <stdlib.h>

/* Twice the sum of C(n, i) / 2^n for i up to the rarer count. Terms grow by integer ratios from 1, and are scaled down
 * by a power of two before they overflow. */
double hm_mcnemar(int64_t lost, int64_t gained) {
    int64_t n = lost + gained, rarer = lost < gained ? lost : gained, exponent = 0;
    double term = 1, sum = 1;
    for (int64_t i = 0; i < rarer; i++) {
        term = term * (double)(n - i) / (double)(i + 1);
        sum += term;
        if (sum > 0x1p500) term *= 0x1p-500, sum *= 0x1p-500, exponent += 500;
    }
    double p = 2 * ldexp(sum, (int)(exponent - n));
    return p < 1 ? p : 1;
}

int64_t hm_least_detectable(double alpha) {
    int64_t lost = 0;
    while (!(hm_mcnemar(lost, 0) < alpha)) lost++;
    return lost;
}

/* Natural logarithm of the sum of exponentials; infinite or NaN if a logit is. */
static double log_sum(const float *x, int64_t n) {
    double most = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) return NAN;
        if (x[i] > most) most = x[i];
    }
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - most);
    return most + log(sum);
}

double hm_kl(const float *golden, const float *other, int64_t n, double *difference) {
    double lp = log_sum(golden, n), lq = log_sum(other, n), kl = 0;
    *difference = 0;
    if (!isfinite(lp) || !isfinite(lq)) return *difference = INFINITY;
    for (int64_t i = 0; i < n; i++) {
        double log_p = golden[i] - lp, log_q = other[i] - lq, d = log_p - log_q, p = exp(log_p);
        kl += fabs(d) < 1 ? p * (expm1(-d) + d) : p * d + (exp(log_q) - p); /* without 0 * inf where p is 0 */
        if (fabs(d) > *difference) *difference = fabs(d);
    }
    return kl;
}

bool hm_kl_add(hm_kl_list *list, double kl, double difference) {
    if (list->count == list->capacity) {
        int64_t capacity = list->capacity ? 2 * list->capacity : 1024;
        double *more = realloc(list->kl, (size_t)capacity * sizeof *more);
        if (!more) return false;
        list->kl = more, list->capacity = capacity;
    }
    list->kl[list->count++] = kl;
    if (!(difference <= list->largest_difference)) list->largest_difference = difference;
    return true;
}

double hm_kl_mean(const hm_kl_list *list) {
    double sum = 0;
    for (int64_t i = 0; i < list->count; i++) sum += list->kl[i];
    return list->count ? sum / (double)list->count : 0;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double hm_kl_quantile(hm_kl_list *list, double share) {
    if (!list->count) return 0;
    qsort(list->kl, (size_t)list->count, sizeof *list->kl, ascending);
    int64_t rank = (int64_t)ceil(share * (double)list->count) - 1;
    return list->kl[rank < 0 ? 0 : rank < list->count ? rank : list->count - 1];
}

void hm_kl_free(hm_kl_list *list) {
    free(list->kl);
    *list = (hm_kl_list){0};
}
