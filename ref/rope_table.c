/* rope_table: constants of a column in fixed point (fixed.h), elements in double-double (math.h), and fixed point again
 * for the rare element that double-double cannot round. Mode f32 goes through upstream's steps, each correctly rounded
 * to f32. */
#include <hallmark/rope_table.h>
#include <stdlib.h>

#include "../op/check.h"
#include "../op/dtype.h"
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
    column *columns;  /* [half] */
    hm_fixed ln_base; /* of the base in force: with dynamic_ntk the larger one */
    float base32;
    hm_fixed ln_base32;
    hm_fixed low, high;   /* ends of yarn's ramp */
    hm_fixed scale_fixed; /* of cos and sin */
    hm_dd scale;
    float scale32;
} table;

static bool is_yarn(const table *t) {
    return t->a->scaling == HM_SCALING_YARN || t->a->scaling == HM_SCALING_DEEPSEEK_YARN;
}

static hm_fixed number(double v) { return hm_fixed_double(v); }
static hm_fixed ln(double v) { return hm_fixed_ln(number(v)); }
static hm_fixed times(hm_fixed a, hm_fixed b) { return hm_fixed_mul(a, b); }
static hm_fixed over(hm_fixed a, hm_fixed b) { return hm_fixed_div(a, b); }
static hm_fixed plus(hm_fixed a, hm_fixed b) { return hm_fixed_add(a, b); }
static hm_fixed minus(hm_fixed a, hm_fixed b) { return hm_fixed_sub(a, b); }
static bool below(hm_fixed a, hm_fixed b) { return hm_fixed_compare(a, b) < 0; }

static double round_fixed(hm_dtype dtype, hm_fixed v) { return hm_round_to(dtype, hm_fixed_odd(v)); }

/* ln of an f32 number that may be beyond what fixed point holds */
static hm_fixed ln_wide(float v) {
    int k;
    double m = frexp((double)v, &k);
    return hm_fixed_add(hm_fixed_ln(number(m)), hm_fixed_mul(hm_fixed_ln2(), hm_fixed_int(k)));
}

/* e^x rounded to f32 */
static float exp32(hm_fixed x) {
    hm_fixed mantissa;
    int k = hm_fixed_exp(x, &mantissa);
    return (float)ldexp(round_fixed(HM_F32, mantissa), k);
}

/* ---- factors of cos and sin -------------------------------------------------------------------------------------- */

static hm_fixed g(const hm_rope_table_args *a, double weight) {
    hm_fixed one = hm_fixed_int(1);
    return a->factor <= 1 ? one : plus(over(times(number(weight), ln(a->factor)), hm_fixed_int(10)), one);
}

static hm_fixed ratio(const hm_rope_table_args *a) {
    return a->mscale == a->mscale_all_dim ? hm_fixed_int(1) : over(g(a, a->mscale), g(a, a->mscale_all_dim));
}

static hm_fixed scale_of(const hm_rope_table_args *a) {
    double given = a->attention_factor, D = (double)a->original_max_position, M = (double)a->max_position;
    switch (a->scaling) {
        case HM_SCALING_YARN:
            return given != 0 ? number(given) : a->mscale != 0 && a->mscale_all_dim != 0 ? ratio(a) : g(a, 1);
        case HM_SCALING_DEEPSEEK_YARN:
            return times(ratio(a), number(given != 0 ? given : 1));
        case HM_SCALING_LONGROPE:
            if (given != 0) return number(given);
            return M > D ? hm_fixed_sqrt(plus(hm_fixed_int(1), over(minus(ln(M), ln(D)), ln(D)))) : hm_fixed_int(1);
        default:
            return hm_fixed_int(1);
    }
}

/* ---- frequencies ------------------------------------------------------------------------------------------------- */

static void find_base(table *t) {
    const hm_rope_table_args *a = t->a;
    t->ln_base = ln(a->base);
    t->base32 = (float)a->base;
    t->ln_base32 = ln_wide(t->base32);
    if (a->scaling != HM_SCALING_DYNAMIC_NTK) return;
    hm_fixed s = number(a->factor), one = hm_fixed_int(1), stretch = plus(minus(times(s, s), s), one);
    hm_fixed power = over(hm_fixed_int(2 * t->half), hm_fixed_int(2 * t->half - 2));
    t->ln_base = plus(t->ln_base, times(power, hm_fixed_ln(stretch)));
    t->base32 = exp32(t->ln_base);
    t->ln_base32 = ln_wide(t->base32);
}

/* rotary_dim * ln(D / (2 pi turns)) / (2 ln base) */
static hm_fixed correction(const table *t, double turns) {
    hm_fixed two_pi = hm_fixed_scale(hm_fixed_pi(), 1);
    hm_fixed l = minus(minus(ln((double)t->a->original_max_position), hm_fixed_ln(two_pi)), ln(turns));
    return over(times(hm_fixed_int(t->half), l), t->ln_base);
}

static void find_ramp(table *t) {
    const hm_rope_table_args *a = t->a;
    if (!is_yarn(t)) return;
    hm_fixed low = correction(t, a->beta_fast), high = correction(t, a->beta_slow),
             last = hm_fixed_int(2 * t->half - 1), zero = {0};
    if (a->fraction == HM_FRACTION_DROP) {
        low = hm_fixed_int(hm_fixed_floor(low));
        high = hm_fixed_int(-hm_fixed_floor(minus(zero, high)));
    }
    t->low = below(low, zero) ? zero : low;
    t->high = below(last, high) ? last : high;
    if (hm_fixed_compare(t->low, t->high) == 0) t->high = plus(t->high, over(hm_fixed_int(1), hm_fixed_int(1000)));
}

static hm_fixed exact_frequency(const table *t, int64_t j) {
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

static float f32_frequency(const table *t, int64_t j) {
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

static bool open_table(table *t, const hm_rope_table_args *a) {
    *t = (table){.a = a, .exact = a->precision == HM_TABLE_EXACT, .half = a->out.shape[1] / 2};
    t->columns = malloc((size_t)t->half * sizeof *t->columns);
    if (!t->columns) return false;
    find_base(t);
    find_ramp(t);
    t->scale_fixed = scale_of(a);
    t->scale.hi = hm_fixed_split(t->scale_fixed, &t->scale.lo);
    t->scale = hm_fast_sum(t->scale.hi, t->scale.lo);
    t->scale32 = (float)round_fixed(HM_F32, t->scale_fixed);
#pragma omp parallel for schedule(static) if (t->half > 256)
    for (int64_t j = 0; j < t->half; j++) {
        column *c = &t->columns[j];
        c->axis = hm_rope_axis(a, j);
        if (!t->exact) {
            c->inv32 = f32_frequency(t, j);
            continue;
        }
        c->inv_fixed = exact_frequency(t, j);
        c->inv.hi = hm_fixed_split(c->inv_fixed, &c->inv.lo);
        c->inv = hm_fast_sum(c->inv.hi, c->inv.lo);
    }
    return true;
}

/* ---- elements ---------------------------------------------------------------------------------------------------- */

/* RN_dtype of a value within slack of v, if that is one number. */
static bool decided(hm_dtype dtype, hm_dd v, double slack, double *r) {
    double low = hm_round_to(dtype, hm_dd_odd(hm_two_sum(v.hi, v.lo - slack)));
    *r = hm_round_to(dtype, hm_dd_odd(hm_two_sum(v.hi, v.lo + slack)));
    return low == *r;
}

/* cos and sin of an f32 angle, to f32. Slack: the bound of hm_dd_sincos, doubled. */
static void element_f32(float angle, float *cos, float *sin) {
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
static void element_exact(const table *t, const column *k, int64_t position, double *cos, double *sin) {
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

static void row(const table *t, int64_t p) {
    const hm_rope_table_args *a = t->a;
    enum { CHUNK = 256 };
    double cos[CHUNK], sin[CHUNK];
    int64_t size = (int64_t)hm_dtype_size(a->out.dtype), stride = a->out.stride[1];
    char *out = (char *)a->out.data + p * a->out.stride[0] * size;
    for (int64_t j = 0; j < t->half; j += CHUNK) {
        int64_t n = t->half - j < CHUNK ? t->half - j : CHUNK;
        for (int64_t i = 0; i < n; i++) {
            const column *k = &t->columns[j + i];
            int64_t position = hm_rope_position(a, k->axis, p);
            if (t->exact) {
                element_exact(t, k, position, &cos[i], &sin[i]);
                continue;
            }
            float c, s, at = (float)position;
            if (a->scaling == HM_SCALING_LINEAR) at /= (float)a->factor;
            element_f32(at * k->inv32, &c, &s);
            cos[i] = (double)(c * t->scale32), sin[i] = (double)(s * t->scale32);
        }
        hm_store_row(a->out.dtype, out + j * stride * size, stride, n, cos);
        hm_store_row(a->out.dtype, out + (t->half + j) * stride * size, stride, n, sin);
    }
}

hm_status hm_rope_table_ref(const hm_rope_table_args *args) {
    hm_rope_table_args a;
    table t;
    hm_status s = hm_rope_table_read(args, &a);
    if (s) return s;
    if (a.out.place != HM_HOST) return hm_fail(HM_UNSUPPORTED, "rope_table: ref works on host tensors only");
    if (!open_table(&t, &a))
        return hm_fail(HM_NO_MEMORY, "rope_table: no memory for %lld columns", (long long)(a.out.shape[1] / 2));
    int64_t rows = a.out.shape[0];
#pragma omp parallel for schedule(static) if (rows * t.half > 4096)
    for (int64_t p = 0; p < rows; p++) row(&t, p);
    free(t.columns);
    return HM_OK;
}
