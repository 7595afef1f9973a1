/* sample.h: the rows of an output that are compared with golden where all of them would take too long. Only `hallmark
 * bench` asks for that, before it times a large case. */
#ifndef HM_SAMPLE_H
#define HM_SAMPLE_H

#include "call.h"

typedef struct {
    int64_t *row, n; /* ascending; row is NULL: all, 0..n-1 */
} hm_sample;

/* At most `most` rows (0: all of them) of output arg of a call that has run: the first, the last, and between them one
 * of each of most - 2 stretches of equal length, at a place that the inputs' hash and arg decide. Besides, each row
 * with an element that still holds poison, since it may not have been written. An output that starts as an input is
 * taken whole. false: no memory. */
bool hm_sample_make(const hm_call *call, int arg, int64_t most, int threads, hm_sample *s);
void hm_sample_free(hm_sample *s);
static inline int64_t hm_sample_row(const hm_sample *s, int64_t i) { return s->row ? s->row[i] : i; }

/* The argument whose bytes output arg starts with: the input that it lies on, or itself if it is inout. -1: none, it
 * starts with poison. */
int hm_starts_as(const hm_call *call, int arg);

#endif
