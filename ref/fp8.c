#include "fp8.h"

#include <math.h>

#include "../op/fp8.h"

double hm_fp8_scale(double amax, double divisor, double floor, bool floor_on_scale, bool power_of_two) {
    if (amax == INFINITY) return INFINITY;
    if (!floor_on_scale && amax < floor) amax = floor;
    double least = floor_on_scale ? floor : 0;
    if (power_of_two) {
        double r = amax > 0 ? hm_two_to(hm_ue8m0_exponent(amax, divisor)) : 0;
        least = least > 0 ? hm_two_to(hm_ue8m0_exponent(least, 1)) : 0;
        return r > least ? r : least;
    }
    double r = (double)(float)(amax / divisor);
    return r > least ? r : least;
}
