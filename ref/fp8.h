/* fp8.h: the scale of a group, for the ops that quantise.
 *
 * binary64 with one rounding: no quotient of two f32 values lies so near a rounding boundary of f32 or of 8 bits,
 * without being on it, that the division's own rounding could move it across (the distance is at least 2^-49 of the
 * quotient: numerator, and boundary times denominator, are integers of at most 49 bits in one unit). The same holds for
 * x / S. */
#ifndef HM_REF_FP8_H
#define HM_REF_FP8_H

#include <stdbool.h>

/* amax: the group's largest magnitude; divisor and floor as f32 values. Infinite for an infinite amax. */
double hm_fp8_scale(double amax, double divisor, double floor, bool floor_on_scale, bool power_of_two);

#endif
