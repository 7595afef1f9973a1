/* generators.h: what a generator is given, one row at a time, and the table of them. */
#ifndef HM_GENERATORS_H
#define HM_GENERATORS_H

#include "generate.h"

/* What an argument is to its op. "..." stands for independent rows: the first input that has them is FIRST, another of
 * the same symbolic shape is SECOND (what is added to it), and one of another shape is a FIRST of its own; an input
 * without them holds one value per channel: WEIGHT. A table whose rows an index names, in an op that rotates pairs,
 * holds cosines, then sines, in each row: TABLE. */
typedef enum { FIRST, SECOND, WEIGHT, TABLE } hm_role;

/* The pairs that an op with a TABLE rotates: elements first + i * step and first + i * step + apart, by c[i] and s[i].
 */
typedef struct {
    int64_t count, first, step, apart;
    const double *c, *s;
} hm_pairs;

typedef struct {
    hm_role role;
    hm_dtype dtype;      /* of the argument that is filled */
    hm_dtype type;       /* of FIRST: the op's T */
    int64_t n;           /* elements of a row */
    int64_t mean;        /* leading elements of a row that its mean square is taken over */
    bool one_plus;       /* weights are stored minus 1 */
    bool has_second;     /* the op normalises FIRST + SECOND */
    const double *first; /* SECOND only: the row of FIRST as stored; NULL if there is none of that shape */
    hm_pairs pairs;      /* of this row; count is 0 in other ops */
    uint64_t seed;
    uint32_t salt; /* hash of the generator's name */
    uint32_t name; /* hash of the argument's name */
} hm_source;

typedef void hm_filler(const hm_source *s, int64_t row, double *v);

uint32_t hm_hash_name(const char *text);
/* Element i of an index into a table of `rows` rows. */
int64_t hm_index_drawn(const hm_source *s, int64_t i, int64_t elements, int64_t rows);
/* The low bits are a pattern of any kind. */
uint64_t hm_pattern_drawn(const hm_source *s, int64_t i);
void hm_fill_rotation(const hm_source *s, int64_t row, double *v);

extern const struct hm_named_filler {
    hm_generator is;
    hm_filler *fill;  /* NULL: patterns of bits */
    hm_filler *table; /* rows of a TABLE; NULL: hm_fill_rotation */
} hm_generators[];
extern const int hm_generators_count;

#endif
