#include "fp8.h"

#include <string.h>

bool hm_is_fp8(hm_dtype dtype) { return dtype == HM_F8E4M3 || dtype == HM_F8E4M3FNUZ || dtype == HM_F8E5M2; }

double hm_fp8_divisor(hm_dtype dtype) { return dtype == HM_F8E5M2 ? 57344 : dtype == HM_F8E4M3FNUZ ? 224 : 448; }

double hm_two_to(int k) {
    uint64_t bits = (uint64_t)(k + 1023) << 52;
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static int exponent_of(double v) { /* of a normal double */
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return (int)(bits >> 52 & 0x7FF) - 1023;
}

int hm_ue8m0_exponent(double a, double divisor) {
    /* a / divisor lies between 2^(k-1) and 2^(k+1), k the difference of the exponents: one of the three is the answer. The
     * products are exact. */
    int k = exponent_of(a) - exponent_of(divisor) - 1;
    while (hm_two_to(k) * divisor < a) k++;
    return k;
}
