/* generate.h: named ways to fill an input. An element is a pure function of (generator, seed, argument name, index):
 * the same on any machine, for any thread count, and whatever the strides (index counts in row-major order of the
 * shape). */
#ifndef HM_GENERATE_H
#define HM_GENERATE_H

#include "case.h"

typedef struct {
    const char *name, *about;
    /* separates the classes of sums, or of rotations: with it, "consistent with chain64" says something */
    enum { HM_SEPARATES_NOTHING = 0, HM_SEPARATES_SUMS, HM_SEPARATES_ROTATIONS } separates;
    bool selection; /* made for ops whose inputs hang together (inputs.h): others need no case with it */
} hm_generator;

int hm_generator_count(void);
const hm_generator *hm_generator_at(int i);
const hm_generator *hm_generator_named(const char *name); /* NULL if unknown */

/* Does it separate the classes of this op? One class needs no separating. */
bool hm_generator_separates(const hm_generator *g, const hm_op_info *op);

/* Fills the tensor of argument arg of spec's call. args: the call's argument struct (other inputs may be read: `ties`
 * and `cancelling` look at what is already filled; arguments are filled round by round, in the order of the description
 * table). */
hm_status hm_generate(const hm_case_spec *spec, int arg, const void *args);
/* The same for rows of a table alone: row[0..rows-1], counted by the first dimension. */
hm_status hm_generate_rows(const hm_case_spec *spec, int arg, const void *args, const int64_t *row, int64_t rows);
/* In which round an argument is filled: indices in round 0, the tables whose rows they name in round 1, the rest in
 * round 2. Ops with a row in inputs.h have one round. */
int hm_generate_round(const hm_op_info *op, int arg);

#endif
