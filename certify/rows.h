/* rows.h: one row of an output beside one row of golden. */
#ifndef HM_ROWS_H
#define HM_ROWS_H

#include "../golden/golden.h"

/* One thread's arrays for a row of n elements. exact and ideal are handed to golden only where they are wanted. */
typedef struct {
    hm_golden_row gold;
    double *got, *exact, *ideal, *block;
    uint64_t *raw; /* stored bits of got; loaded where golden asks for bits */
} hm_row;
bool hm_row_make(hm_row *r, int64_t n);
void hm_row_free(hm_row *r);

int64_t hm_row_length(const hm_tensor *t); /* its last extent */
void hm_row_load(const hm_tensor *t, int64_t row, double *to);

void hm_row_load_bits(const hm_tensor *t, int64_t row, uint64_t *to);
bool hm_row_has_bits(const hm_golden_row *g, int64_t n); /* has some element to match by its bits? */

/* Is got, stored as the bits `raw`, in the admissible set of element i? NaN only where it is required or the range is
 * free; -0 equals +0. Where golden asks for bits, they decide. */
bool hm_admits(const hm_golden_row *g, int64_t i, double got, uint64_t raw);

typedef struct {
    int64_t failing, point, range_free; /* not admitted; one admissible value; range-free (never a point) */
    int64_t unspecified;                /* none of these */
} hm_row_counts;
/* raw may be NULL if hm_row_has_bits is false. */
hm_row_counts hm_row_compare(const hm_golden_row *g, const double *got, const uint64_t *raw, int64_t n);

/* How far got, which is not admitted, lies outside, in ulps at the nearer end; infinite for anything that is not
 * finite. */
double hm_row_excess(hm_dtype dtype, const hm_golden_row *g, int64_t i, double got);

#endif
