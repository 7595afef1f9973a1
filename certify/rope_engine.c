#include "rope_engine.h"

#include <math.h>

#include "../op/dtype.h"
#include "../op/rope_table.h"

static bool is_yarn(const hm_rope_table_args *a) {
    return a->scaling == HM_SCALING_YARN || a->scaling == HM_SCALING_DEEPSEEK_YARN;
}

static double g(const hm_rope_table_args *a, double weight) {
    return a->factor <= 1 ? 1 : 0.1 * weight * log(a->factor) + 1;
}

double hm_rope_scale(const hm_rope_table_args *a) {
    double given = a->attention_factor, D = (double)a->original_max_position, M = (double)a->max_position;
    double ratio = g(a, a->mscale) / g(a, a->mscale_all_dim);
    if (a->scaling == HM_SCALING_DEEPSEEK_YARN) return ratio * (given != 0 ? given : 1);
    if (a->scaling != HM_SCALING_YARN && a->scaling != HM_SCALING_LONGROPE) return 1;
    if (given != 0) return given;
    if (a->scaling == HM_SCALING_YARN) return a->mscale != 0 && a->mscale_all_dim != 0 ? ratio : g(a, 1);
    return M > D ? sqrt(1 + log(M / D) / log(D)) : 1;
}

static double correction(const hm_rope_table_args *a, double turns) {
    return (double)a->out.shape[1] * log((double)a->original_max_position / (turns * 2 * M_PI)) / (2 * log(a->base));
}

static void ramp_ends(const hm_rope_way *way, const hm_rope_table_args *a, double *low, double *high) {
    *low = correction(a, a->beta_fast), *high = correction(a, a->beta_slow);
    if (a->fraction == HM_FRACTION_DROP) *low = floor(*low), *high = ceil(*high);
    if (*low < 0) *low = 0;
    if (*high > (double)a->out.shape[1] - 1) *high = (double)a->out.shape[1] - 1;
    if (*low == *high) *high += 0.001;
    if (way->frequency == FREQUENCY_LATE_RAMP) *low += 1, *high += 1;
    if (way->frequency == FREQUENCY_RAMP_WIDE) *low *= 2, *high *= 2;
}

static double factor_of(const hm_rope_table_args *a, int64_t j) {
    return a->scaling == HM_SCALING_LONGROPE ? (double)((const float *)a->factors.data)[j * a->factors.stride[0]] : 1;
}

static double base_of(const hm_rope_way *way, const hm_rope_table_args *a) {
    if (a->scaling != HM_SCALING_DYNAMIC_NTK) return a->base;
    double d = (double)a->out.shape[1], stretch = a->factor * a->factor - a->factor + 1;
    return a->base * (way->frequency == FREQUENCY_NO_POWER ? stretch : pow(stretch, d / (d - 2)));
}

/* RN_f32 where the steps are f32. */
static double f(const hm_rope_way *way, double v) { return way->inv_f64 ? v : (double)(float)v; }

static double frequency(const hm_rope_way *way, const hm_rope_table_args *a, int64_t j) {
    double d = (double)a->out.shape[1], e = way->frequency == FREQUENCY_J         ? (double)j / d
                                            : way->frequency == FREQUENCY_OF_HALF ? (double)(4 * j) / d
                                                                                  : (double)(2 * j) / d;
    double p = f(way, pow(f(way, base_of(way, a)), f(way, e))), s = f(way, a->factor);
    if (a->scaling == HM_SCALING_LONGROPE && way->frequency == FREQUENCY_TIMES_FACTOR)
        return f(way, factor_of(a, j) / p);
    double inv = f(way, 1 / f(way, factor_of(a, j) * p));
    if (is_yarn(a)) {
        double low, high;
        ramp_ends(way, a, &low, &high);
        double ramp = f(way, f(way, (double)j - f(way, low)) / f(way, high - low));
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        double m = f(way, f(way, 1 - ramp) * f(way, a->extrapolation_factor)), slow = f(way, 1 / f(way, s * p));
        if (way->frequency == FREQUENCY_RAMP_SWAPPED) m = 1 - m;
        if (way->frequency == FREQUENCY_HARD_SWITCH) m = m > 0.5;
        return f(way, f(way, slow * f(way, 1 - m)) + f(way, inv * m));
    }
    if (a->scaling == HM_SCALING_LLAMA3) {
        double D = (double)a->original_max_position, low = a->low_freq_factor, high = a->high_freq_factor;
        double wavelength = f(way, f(way, 2 * M_PI) / inv);
        if (wavelength < f(way, D / high)) return inv;
        if (wavelength > f(way, D / low) || low == high) return f(way, inv / s);
        double k = f(way, f(way, f(way, D / wavelength) - f(way, low)) / f(way, high - low));
        if (way->frequency == FREQUENCY_HARD_SWITCH) k = 0;
        return f(way, f(way, f(way, f(way, 1 - k) * inv) / s) + f(way, k * inv));
    }
    return inv;
}

static double step_f32(double v, int steps) {
    for (; steps > 0; steps--) v = hm_next_up(HM_F32, v);
    for (; steps < 0; steps++) v = hm_next_down(HM_F32, v);
    return v;
}

/* The f32 value in [C - 2 ulp, C + 2 ulp] farthest up or down; C is off by less than the 2^-20 ulp that is left out. */
static double extreme(double C, bool up) {
    double end = (up ? C : -C) + hm_ulp(HM_F32, C * (1 - 0x1p-40)) * (2 - 0x1p-20), r = hm_round_to(HM_F32, end);
    if (r > end) r = hm_next_down(HM_F32, r);
    return up ? r : -r;
}

static double function(const hm_rope_way *way, double angle, bool sine) {
    double C = sine ? sin(angle) : cos(angle);
    switch (way->function) {
        case FUNCTION_HIGH:
            return extreme(C, true);
        case FUNCTION_LOW:
            return extreme(C, false);
        case FUNCTION_F64:
            return C;
        case FUNCTION_LIBM32:
            return (double)(sine ? sinf((float)angle) : cosf((float)angle));
        default:
            return (double)(float)C;
    }
}

/* What fast-math code does: the nearest multiple of 2 pi is taken away with pi in one f32 number. */
static double short_pi(double angle) {
    float a = (float)angle, turns = rintf(a * 0x1.45f306p-3f);
    return (double)(a - turns * 0x1.921fb6p+2f);
}

static double angle_of(const hm_rope_way *way, const hm_rope_table_args *a, double inv, int64_t position) {
    double at = (double)position;
    if (a->scaling == HM_SCALING_LINEAR)
        at = way->angle == ANGLE_F64 ? at / a->factor : (double)((float)at / (float)a->factor);
    double angle = at * inv;
    if (way->product_dtype) return hm_round_to(way->product_dtype, angle);
    switch (way->angle) {
        case ANGLE_F64:
            return angle;
        case ANGLE_DEGREES:
            return (double)(float)(angle * (M_PI / 180));
        case ANGLE_SHORT_PI:
            return short_pi((double)(float)angle);
        default:
            return (double)(float)angle;
    }
}

void hm_rope_engine(const hm_rope_way *way, const hm_rope_table_args *a, double *to) {
    int64_t rows = a->out.shape[0], half = a->out.shape[1] / 2;
    double scale = hm_rope_scale(a);
    for (int64_t j = 0; j < half; j++) {
        double inv = frequency(way, a, j);
        if (way->angle != ANGLE_INV_F64)
            inv = step_f32((double)(float)inv, way->inv_both && j % 2 ? -way->inv_ulps : way->inv_ulps);
        if (way->inv_dtype) inv = hm_round_to(way->inv_dtype, inv);
        int axis = hm_rope_axis(a, j);
        for (int64_t p = 0; p < rows; p++) {
            double angle = angle_of(way, a, inv, hm_rope_position(a, axis, p));
            if (way->angle == ANGLE_SUMMED) { /* inv_freq added up in f32, position times */
                float sum = 0;
                for (int64_t k = hm_rope_position(a, axis, p) % 4096; k > 0; k--) sum += (float)inv;
                angle = (double)sum;
            }
            for (int sine = 0; sine < 2; sine++) {
                double v = function(way, angle, sine);
                if (scale != 1) v = way->scale_f64 ? v * scale : (double)(float)(v * (double)(float)scale);
                to[p * 2 * half + sine * half + j] = v;
            }
        }
    }
}
