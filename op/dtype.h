/* dtype.h: exact loads and stores with one rounding, for every dtype (an unknown one loads as NaN and stores nothing:
 * the checks refuse it before it gets here). Values travel as binary64, which holds every value of every dtype here
 * exactly but i64's beyond 2^53. 8-bit floats saturate when stored, integers are rounded and saturate. A store rounds
 * binary64 straight to the dtype (to nearest, ties to even), never through f32: that would change one result in
 * 133,000. */
#ifndef HM_DTYPE_H
#define HM_DTYPE_H

#include <hallmark/hallmark.h>

/* The value of the element at p. */
double hm_load(hm_dtype dtype, const void *p);
/* Stores RN_dtype(v) at p; any NaN becomes the quiet NaN 0x7FC00000, 0x7E00 or 0x7FC0. */
void hm_store(hm_dtype dtype, void *p, double v);
/* n elements; stride in elements, of any sign. */
void hm_load_row(hm_dtype dtype, const void *base, int64_t stride, int64_t n, double *to);
void hm_store_row(hm_dtype dtype, void *base, int64_t stride, int64_t n, const double *from);
/* RN_dtype(v) as binary64; beyond the range gives +-inf. */
double hm_round_to(hm_dtype dtype, double v);
void hm_round_row(hm_dtype dtype, int64_t n, double *v);
/* Spacing of dtype at |v|: 2^(max(exponent of v, emin) - p + 1). v finite. */
double hm_ulp(hm_dtype dtype, double v);
/* The neighbour of v (a value of dtype) above / below; the largest finite value's is +-inf. */
double hm_next_up(hm_dtype dtype, double v);
double hm_next_down(hm_dtype dtype, double v);
double hm_dtype_max(hm_dtype dtype);        /* largest finite value */
double hm_dtype_min_normal(hm_dtype dtype); /* 2^emin */
int hm_dtype_precision(hm_dtype dtype);     /* significant bits p: 24, 11, 8, ...; integers: 53 */
int hm_dtype_emin(hm_dtype dtype);          /* -126, -14, ...; integers: 52, so that their ulp is 1 */

/* The 8-bit dtypes (OCP OFP8 and MX; fnuz: ONNX).
 *   f8e4m3      bias 7, no infinity, one NaN a sign (0x7F, 0xFF), largest 448
 *   f8e4m3fnuz  bias 8, no infinity, no -0, one NaN (0x80), largest 240
 *   f8e5m2      bias 15, infinities and NaN as in IEEE, largest 57344
 *   e8m0        2^(code - 127), NaN 0xFF; no zero, no sign
 * A store rounds binary64 straight to the dtype, to nearest, ties to even; e8m0 has one significant bit, so that a tie,
 * 1.5 * 2^k, goes up. Overflow is when rounding with an unbounded exponent gives more than the largest value:
 *   HM_OVERFLOW_IEEE      gives NaN, in f8e5m2 infinity; for an infinite v too
 *   HM_OVERFLOW_SATURATE  gives the largest value with v's sign; for an infinite v too
 * NaN gives 0x7F, 0x80, 0x7E, 0xFF. e8m0: what is below 2^-127, 0 and -0 too, gives 2^-127; a negative v gives NaN. */
typedef enum { HM_OVERFLOW_IEEE = 0, HM_OVERFLOW_SATURATE } hm_overflow;
/* The code of v, and the value of a code; 0 and NaN for dtypes that are not those four. */
uint8_t hm_store8(hm_dtype dtype, double v, hm_overflow overflow);
double hm_load8(hm_dtype dtype, uint8_t code);

#endif
