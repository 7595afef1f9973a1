/* generators.h: what a generator is given, one row at a time, and the table of them. */
#ifndef HM_GENERATORS_H
#define HM_GENERATORS_H

#include "generate.h"

/* What an argument is to its op. "..." stands for independent rows: the first input that has them is FIRST, any other
 * is SECOND (what is added to it); an input without them holds one value per channel: WEIGHT. */
typedef enum { FIRST, SECOND, WEIGHT } hm_role;

typedef struct {
    hm_role role;
    hm_dtype dtype;      /* of the argument that is filled */
    hm_dtype type;       /* of FIRST: the op's T */
    int64_t n;           /* elements of a row */
    int64_t mean;        /* leading elements of a row that its mean square is taken over */
    bool one_plus;       /* weights are stored minus 1 */
    bool has_second;     /* the op normalises FIRST + SECOND */
    const double *first; /* SECOND only: the row of FIRST as stored; NULL if there is none of that shape */
    uint64_t seed;
    uint32_t salt; /* hash of the generator's name */
    uint32_t name; /* hash of the argument's name */
} hm_source;

typedef void hm_filler(const hm_source *s, int64_t row, double *v);

uint32_t hm_hash_name(const char *text);

extern const struct hm_named_filler {
    hm_generator is;
    hm_filler *fill;
} hm_generators[];
extern const int hm_generators_count;

#endif
