/* timing.h: what is said of some measured times. */
#ifndef HM_TIMING_H
#define HM_TIMING_H

#include <stdlib.h>

typedef struct {
    double q1, median, q3; /* seconds */
    int runs;
} timing;

static inline int hm_by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts them. */
static inline timing timing_of(double *seconds, int runs) {
    qsort(seconds, (size_t)runs, sizeof *seconds, hm_by_value);
    return (timing){seconds[runs / 4], seconds[runs / 2], seconds[(3 * runs) / 4], runs};
}

#endif
