/* rope_table.h: the part of rope_table that is the same on a device: the constants of a column, and its elements. */
#ifndef HM_REF_ROPE_TABLE_H
#define HM_REF_ROPE_TABLE_H

#include "../op/rope_table.h"
#include "fixed.h"
#include "math.h"

typedef struct {
    float inv32; /* mode f32 */
    hm_dd inv;   /* mode exact: the position's factor, off by 2^-105 relative */
    hm_fixed inv_fixed;
    int axis;
} column;

typedef struct {
    const hm_rope_table_args *a;
    bool exact;
    int64_t half;
    hm_fixed ln_base; /* of the base in force: with dynamic_ntk the larger one */
    float base32;
    hm_fixed ln_base32;
    hm_fixed low, high;   /* ends of yarn's ramp */
    hm_fixed scale_fixed; /* of cos and sin */
    hm_dd scale;
    float scale32;
} table;

#ifdef __cplusplus
extern "C"
#endif
    /* All of it but the columns; on the host. */
    void
    hm_rope_constants(table *t, const hm_rope_table_args *a);

HM_BOTH_LOCAL bool is_yarn(const table *t) {
    return t->a->scaling == HM_SCALING_YARN || t->a->scaling == HM_SCALING_DEEPSEEK_YARN;
}

HM_BOTH_LOCAL hm_fixed number(double v) { return hm_fixed_double(v); }
HM_BOTH_LOCAL hm_fixed ln(double v) { return hm_fixed_ln(number(v)); }
HM_BOTH_LOCAL hm_fixed times(hm_fixed a, hm_fixed b) { return hm_fixed_mul(a, b); }
HM_BOTH_LOCAL hm_fixed over(hm_fixed a, hm_fixed b) { return hm_fixed_div(a, b); }
HM_BOTH_LOCAL hm_fixed plus(hm_fixed a, hm_fixed b) { return hm_fixed_add(a, b); }
HM_BOTH_LOCAL hm_fixed minus(hm_fixed a, hm_fixed b) { return hm_fixed_sub(a, b); }
HM_BOTH_LOCAL bool below(hm_fixed a, hm_fixed b) { return hm_fixed_compare(a, b) < 0; }

HM_BOTH_LOCAL double round_fixed(hm_dtype dtype, hm_fixed v) { return hm_round_to(dtype, hm_fixed_odd(v)); }

/* ln of an f32 number that may be beyond what fixed point holds */
HM_BOTH_LOCAL hm_fixed ln_wide(float v) {
    int k;
    double m = frexp((double)v, &k);
    return hm_fixed_add(hm_fixed_ln(number(m)), hm_fixed_mul(hm_fixed_ln2(), hm_fixed_int(k)));
}

/* e^x rounded to f32 */
HM_BOTH_LOCAL float exp32(hm_fixed x) {
    hm_fixed mantissa;
    int k = hm_fixed_exp(x, &mantissa);
    return (float)ldexp(round_fixed(HM_F32, mantissa), k);
}

/* ---- columns ----------------------------------------------------------------------------------------------------- */

HM_BOTH_LOCAL hm_fixed exact_frequency(const table *t, int64_t j) {
    const hm_rope_table_args *a = t->a;
    hm_fixed e = over(hm_fixed_int(j), hm_fixed_int(t->half)), zero = {0}, one = hm_fixed_int(1), s = number(a->factor),
             mantissa;
    int k = hm_fixed_exp(minus(zero, times(e, t->ln_base)), &mantissa);
    hm_fixed f = hm_fixed_scale(mantissa, k);
    if (a->scaling == HM_SCALING_LINEAR) return over(f, s); /* position / s times f */
    if (is_yarn(t)) {
        hm_fixed ramp = over(minus(hm_fixed_int(j), t->low), minus(t->high, t->low));
        if (below(ramp, zero)) ramp = zero;
        if (below(one, ramp)) ramp = one;
        hm_fixed m = times(minus(one, ramp), number(a->extrapolation_factor));
        return plus(times(over(f, s), minus(one, m)), times(f, m));
    }
    if (a->scaling == HM_SCALING_LLAMA3) {
        hm_fixed turns = over(times(hm_fixed_int(a->original_max_position), f), hm_fixed_scale(hm_fixed_pi(), 1));
        hm_fixed low = number(a->low_freq_factor), high = number(a->high_freq_factor);
        if (below(high, turns)) return f;
        if (below(turns, low)) return over(f, s);
        hm_fixed part = hm_fixed_compare(low, high) == 0 ? zero : over(minus(turns, low), minus(high, low));
        return plus(times(minus(one, part), over(f, s)), times(part, f));
    }
    if (a->scaling == HM_SCALING_LONGROPE)
        return over(f, number((double)((const float *)a->factors.data)[j * a->factors.stride[0]]));
    return f;
}

HM_BOTH_LOCAL float f32_frequency(const table *t, int64_t j) {
    const hm_rope_table_args *a = t->a;
    float e = (float)j / (float)t->half, s = (float)a->factor;
    float power = exp32(times(number((double)e), t->ln_base32)), f = 1 / power;
    if (is_yarn(t)) {
        double low = hm_fixed_split(t->low, NULL), high = hm_fixed_split(t->high, NULL);
        float ramp = ((float)j - (float)low) / (float)(high - low);
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        float m = (1 - ramp) * (float)a->extrapolation_factor;
        return 1 / (s * power) * (1 - m) + f * m;
    }
    if (a->scaling == HM_SCALING_LLAMA3) {
        double D = (double)a->original_max_position, low = a->low_freq_factor, high = a->high_freq_factor;
        float wavelength = (float)6.283185307179586 / f;
        if (wavelength < (float)(D / high)) return f;
        if (wavelength > (float)(D / low)) return f / s;
        float part = low == high ? 0 : ((float)D / wavelength - (float)low) / (float)(high - low);
        return (1 - part) * f / s + part * f;
    }
    if (a->scaling == HM_SCALING_LONGROPE)
        return 1 / (((const float *)a->factors.data)[j * a->factors.stride[0]] * power);
    return f;
}

/* ---- elements ---------------------------------------------------------------------------------------------------- */

/* RN_dtype of a value within slack of v, if that is one number. */
HM_BOTH_LOCAL bool decided(hm_dtype dtype, hm_dd v, double slack, double *r) {
    double low = hm_round_to(dtype, hm_dd_odd(hm_two_sum(v.hi, v.lo - slack)));
    *r = hm_round_to(dtype, hm_dd_odd(hm_two_sum(v.hi, v.lo + slack)));
    return low == *r;
}

/* cos and sin of an f32 angle, to f32. Slack: the bound of hm_dd_sincos, doubled. */
HM_BOTH_LOCAL void element_f32(float angle, float *cos, float *sin) {
    hm_dd s, c;
    double rs, rc;
    hm_dd_sincos(hm_dd_of((double)angle), &s, &c);
    if (angle == 0) {
        *cos = 1, *sin = 0;
        return;
    }
    if (!decided(HM_F32, s, fabs(s.hi) * 0x1p-94 + 0x1p-121, &rs) ||
        !decided(HM_F32, c, fabs(c.hi) * 0x1p-94 + 0x1p-121, &rc)) {
        hm_fixed fs, fc;
        hm_fixed_sincos(number((double)angle), &fs, &fc);
        rs = round_fixed(HM_F32, fs), rc = round_fixed(HM_F32, fc);
    }
    *cos = (float)rc, *sin = (float)rs;
}

/* Slack: that of hm_dd_sincos doubled, 2^-100 of the angle (its product is off by 2^-102), and 2^-100 for the last
 * product. */
HM_BOTH_LOCAL void element_exact(const table *t, const column *k, int64_t position, double *cos, double *sin) {
    hm_dtype dtype = t->a->out.dtype;
    if (position == 0) {
        *cos = round_fixed(dtype, t->scale_fixed), *sin = 0;
        return;
    }
    hm_dd angle = hm_dd_mul(k->inv, hm_dd_of((double)position)), s, c;
    hm_dd_sincos(angle, &s, &c);
    s = hm_dd_mul(s, t->scale), c = hm_dd_mul(c, t->scale);
    double slack = (angle.hi * 0x1p-100 + 0x1p-121) * 2 * t->scale.hi;
    if (decided(dtype, s, slack + fabs(s.hi) * 0x1p-93, sin) && decided(dtype, c, slack + fabs(c.hi) * 0x1p-93, cos))
        return;
    hm_fixed fs, fc;
    hm_fixed_sincos(times(k->inv_fixed, hm_fixed_int(position)), &fs, &fc);
    *sin = round_fixed(dtype, times(fs, t->scale_fixed)), *cos = round_fixed(dtype, times(fc, t->scale_fixed));
}

/* What column j needs. */
HM_BOTH_LOCAL void find_column(const table *t, int64_t j, column *c) {
    c->axis = hm_rope_axis(t->a, j);
    if (!t->exact) {
        c->inv32 = f32_frequency(t, j);
        return;
    }
    c->inv_fixed = exact_frequency(t, j);
    c->inv.hi = hm_fixed_split(c->inv_fixed, &c->inv.lo);
    c->inv = hm_fast_sum(c->inv.hi, c->inv.lo);
}

/* Cosine and sine of column k at `position`, before the rounding to the dtype of out. */
HM_BOTH_LOCAL void element(const table *t, const column *k, int64_t position, double *cos, double *sin) {
    if (t->exact) {
        element_exact(t, k, position, cos, sin);
        return;
    }
    float c, s, at = (float)position;
    if (t->a->scaling == HM_SCALING_LINEAR) at /= (float)t->a->factor;
    element_f32(at * k->inv32, &c, &s);
    *cos = (double)(c * t->scale32), *sin = (double)(s * t->scale32);
}

#endif
