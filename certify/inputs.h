/* inputs.h: inputs that hang together: slots, block tables, lengths, caches. A row of this table fills the arguments of
 * its op that no generator can fill alone; every other argument is the generator's. An element stays a pure function of
 * (generator, seed, argument name, index). */
#ifndef HM_INPUTS_H
#define HM_INPUTS_H

#include "case.h"

typedef struct {
    const char *op;
    /* Fills argument arg of spec's call, or returns false: the case's generator does. Inputs are filled in the order of
     * the description table, so that earlier ones may be read; args is the call's argument struct, which need not be
     * legal (expect=), but whose tensors have memory. Entries that must never be read get HM_INPUTS_POISON. */
    bool (*fill)(const hm_case_spec *spec, int arg, const void *args);
    /* Called for an argument that the generator filled. NULL: nothing to add. */
    void (*after)(const hm_case_spec *spec, int arg, const void *args);
    unsigned lengths; /* a bit for each value of lengths= that it knows */
} hm_inputs;

const hm_inputs *hm_inputs_of(const hm_op_info *op); /* NULL: generators alone */

/* Three bytes of 0x7B: a block or a slot that no cache has. */
enum { HM_INPUTS_POISON = 0x007B7B7B };

uint64_t hm_inputs_drawn(const hm_case_spec *spec, const char *name, uint64_t index);
int64_t hm_inputs_below(const hm_case_spec *spec, const char *name, uint64_t index, int64_t n); /* 0..n-1; 0 if n < 1 */
/* to[0..n-1]: 0..n-1 in an order that the seed decides. */
void hm_inputs_permutation(const hm_case_spec *spec, const char *name, int64_t n, int64_t *to);
double hm_inputs_param(const hm_case_spec *spec, const char *name);   /* value, or index of the mode's value; 0: none */
bool hm_inputs_generator(const hm_case_spec *spec, const char *name); /* is it the case's generator? */
/* Is everything to be as long as it can be: lengths=whole, or the generator `index`? */
bool hm_inputs_whole(const hm_case_spec *spec);
/* Element of an integer tensor, counted in row-major order of its shape; the tensor has memory. */
void hm_inputs_put(const hm_tensor *t, int64_t index, int64_t value);
int64_t hm_inputs_get(const hm_tensor *t, int64_t index);
/* Any bytes, in every element of a tensor of any dtype. */
void hm_inputs_put_bytes(const hm_case_spec *spec, const char *name, const hm_tensor *t);
/* Slots of a cache of `capacity`: distinct, in mixed order; about one in eight is negative (a padded token).
 * Generators: `index` none is negative; `zero` all are; `out_of_range` one is no slot. */
void hm_inputs_put_slots(const hm_case_spec *spec, const char *name, const hm_tensor *t, int64_t capacity);
/* A row of a block table: distinct blocks of num_blocks, in mixed order, from place `first` of it, for its first `used`
 * entries; then poison. */
void hm_inputs_put_blocks(const hm_case_spec *spec, const char *name, const hm_tensor *t, int64_t row, int64_t first,
                          int64_t used, int64_t num_blocks);

/* Generator `stagnate`, dot products of n elements: element d of row `row` of one factor, or with row -1 of the other one,
 * which is the same in every row. Their large elements make one product, the first, in every second row the last; small
 * times small has to be 2^-24 of it. That is half a unit of the large product, and a running sum in f32 stands still; in
 * rows 2 and 3 of 4 it is 15/8 of that, which f32 rounds to a unit, while a tensor core that keeps 23 bits cuts it off. */
double hm_inputs_stagnate(int64_t row, int64_t d, int64_t n, double large, double small);

#endif
