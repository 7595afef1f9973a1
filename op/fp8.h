/* fp8.h: what the quantisers share: exact arithmetic, so that ref and golden may both stand on it. */
#ifndef HM_FP8_H
#define HM_FP8_H

#include <hallmark/hallmark.h>
#include <stdbool.h>

bool hm_is_fp8(hm_dtype dtype); /* f8e4m3, f8e4m3fnuz or f8e5m2 */
/* What a group's largest magnitude is divided by where nothing else is asked for: 448, 224 (not the format's largest
 * value, 240: the convention of its users) and 57344. */
double hm_fp8_divisor(hm_dtype dtype);
/* The least k with 2^k * divisor >= a: the exponent of a scale that is rounded up to a power of two. a > 0 and divisor
 * > 0, finite, of at most 52 significant bits each. Exact: no logarithm. */
int hm_ue8m0_exponent(double a, double divisor);
double hm_two_to(int k); /* 2^k, -1022 <= k <= 1023 */

#endif
