/* score.h: what a run of word problems says about an implementation that was run beside the golden path: the paired
 * test of the two scores, the smallest drop that it could have seen, and how far apart two distributions over words
 * are. */
#ifndef HM_SCORE_H
#define HM_SCORE_H

#include <stdbool.h>
#include <stdint.h>

#define HM_SCORE_ALPHA 0.05 /* a score differs if a difference as large would come by chance less often than this */

/* McNemar's test in its exact form, two-sided: how probable it is that of lost + gained problems (right on one path
 * and wrong on the other) the rarer kind is as rare as this or rarer, if either way is a toss of a coin. 1 if there
 * are none. */
double hm_mcnemar(int64_t lost, int64_t gained);

/* The fewest problems that have to be lost, with none gained, for hm_mcnemar to be below alpha: 6 for 0.05. Their
 * share of all problems is the smallest drop that a run could have detected; no smaller one can be, however it is made
 * up. */
int64_t hm_least_detectable(double alpha);

/* Kullback-Leibler divergence, in nats, of other from golden, each the softmax of [n] logits, computed in binary64 as
 * the sum of p (exp(-d) - 1 + d) over d = ln p - ln q, in which no term is negative: exactly 0 for equal logits.
 * Infinite if a logit is infinite or NaN. *difference: the largest |d|. */
double hm_kl(const float *golden, const float *other, int64_t n, double *difference);

/* Divergences of many tokens. {0} is an empty list. */
typedef struct {
    double *kl, largest_difference;
    int64_t count, capacity;
} hm_kl_list;

bool hm_kl_add(hm_kl_list *list, double kl, double difference); /* false: no memory */
double hm_kl_mean(const hm_kl_list *list);                      /* 0 of nothing */
/* The share-th quantile by nearest rank (0.99: no more than 1 % of the tokens are above). Sorts the list. */
double hm_kl_quantile(hm_kl_list *list, double share);
void hm_kl_free(hm_kl_list *list);

#endif
