/* dot.h: sums in genuine f32 arithmetic, and as tensor cores form them. */
#ifndef HM_VARIANTS_DOT_H
#define HM_VARIANTS_DOT_H

#include <stdint.h>

float hm_variant_pairwise(const float *t, int64_t n);
/* Products are aligned to the largest of a block of `block` and the accumulator, cut to `bits` below it, and added. */
float hm_variant_tensor_core(int bits, int block, const float *t, int64_t n);

#endif
