/* rows.h: one row of an output beside one row of golden. */
#ifndef HM_ROWS_H
#define HM_ROWS_H

#include "../golden/golden.h"

/* One thread's arrays for a row of n elements. exact and ideal are handed to golden only where they are wanted. */
typedef struct {
    hm_golden_row gold;
    double *got, *exact, *ideal, *block;
} hm_row;
bool hm_row_make(hm_row *r, int64_t n);
void hm_row_free(hm_row *r);

int64_t hm_row_length(const hm_tensor *t); /* its last extent */
void hm_row_load(const hm_tensor *t, int64_t row, double *to);

/* Is got in the admissible set of element i? NaN only where it is required or the range is free; -0 equals +0. */
bool hm_admits(const hm_golden_row *g, int64_t i, double got);

typedef struct {
    int64_t failing, point, range_free; /* not admitted; one admissible value; range-free (never a point) */
} hm_row_counts;
hm_row_counts hm_row_compare(const hm_golden_row *g, const double *got, int64_t n);

/* How far got, which is not admitted, lies outside, in ulps at the nearer end; infinite for anything that is not
 * finite. */
double hm_row_excess(hm_dtype dtype, const hm_golden_row *g, int64_t i, double got);

#endif
