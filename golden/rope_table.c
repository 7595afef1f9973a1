/* Truth of rope_table.
 *
 * exact: one value, RN_T(mscale * cos or sin(position * inv_freq)). inv_freq and mscale by MPFR to BITS bits. Only at
 * position 0 can the value be a number of few bits (elsewhere the angle is the algebraic number position * inv_freq, or
 * transcendental by way of pi, ln or both), so rounding is decided by more bits: first binary64, then 160, then BITS;
 * cos differs from 1 by 2^-241 or more within the contract's ranges, and BITS has room for that.
 * Binary64: position * (inv_freq / 2 pi) modulo 1 in integers of 192 bits, off by 2^-168; what is left of the nearest
 * quarter turn, above 2^-60, as a double (2^-52 relative) times 2 pi (2^-52): the angle is off by less than 2^-51
 * relative, and so are sin and, since r tan r < 1 on [0, pi/4], cos. libm is taken to be right to 2^-48 there (glibc
 * states 2^-52); mscale and the product bring 2^-52. Together less than 2^-47: TIER1 is twice that.
 *
 * f32: for a column, one f32 value ("candidate") of inv_freq has to explain all rows. The candidates are those within a
 * radius of the exact value: 4 ulp and what the formula's own f32 steps may add (the header says what and how much;
 * spread() is that sum). Given a candidate, the angle is one f32 number; with C the exact cos or sin of it and ulp that
 * of f32 at C, what the function may return are the f32 values in [C - 2 ulp, C + 2 ulp], a hull; times mscale in f32,
 * with one rounding more or none, then RN_T: all monotone. By binary64 where C, off by 2^-46 or less, decides which f32
 * values those are, else by MPFR. Products of two f32 values are exact in binary64. What was stored picks the
 * candidate: the one that explains most rows, the nearest to exact among equals. With nothing observed the set is the
 * hull over all candidates. */
#include <hallmark/rope_table.h>
#include <math.h>
#include <mpfr.h>
#include <stdlib.h>
#include <string.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "../op/rope_table.h"
#include "golden.h"
#include "op.h"
#include "root.h"

enum { BITS = 576, FIRST_BITS = 160 };
#define TIER1 0x1p-46

typedef struct {
    mpfr_t inv;        /* of the position: with linear, 1/s is in it where the angle is exact */
    uint64_t turns[3]; /* inv / (2 pi) modulo 1, in units of 2^-192, truncated; lowest first */
    int axis;
    double nearest, low, high; /* mode f32: candidates, f32 values */
    double chosen;
    bool observed;
} column;

typedef struct {
    hm_rope_table_args a;
    hm_dtype T;
    bool f32;
    int64_t half;
    column *columns;
    mpfr_t scale, log_base;                   /* mscale; ln of the base in force */
    double scale_near, scale_low, scale_high; /* binary64; mode f32: RN_f32 of it, one or two values */
} context;

/* ---- the formula in real arithmetic ------------------------------------------------------------------------------ */

static bool is_yarn(const hm_rope_table_args *a) {
    return a->scaling == HM_SCALING_YARN || a->scaling == HM_SCALING_DEEPSEEK_YARN;
}

/* g(weight) */
static void attention(const hm_rope_table_args *a, double weight, mpfr_t to) {
    mpfr_set_d(to, a->factor > 1 ? a->factor : 1, MPFR_RNDN);
    mpfr_log(to, to, MPFR_RNDN);
    mpfr_mul_d(to, to, weight, MPFR_RNDN);
    mpfr_div_ui(to, to, 10, MPFR_RNDN);
    mpfr_add_ui(to, to, 1, MPFR_RNDN);
}

static void attention_ratio(const hm_rope_table_args *a, mpfr_t to) {
    mpfr_t below;
    mpfr_init2(below, BITS);
    attention(a, a->mscale, to);
    attention(a, a->mscale_all_dim, below);
    mpfr_div(to, to, below, MPFR_RNDN);
    mpfr_clear(below);
}

static void find_scale(context *c) {
    const hm_rope_table_args *a = &c->a;
    mpfr_set_ui(c->scale, 1, MPFR_RNDN);
    if (a->scaling == HM_SCALING_DEEPSEEK_YARN) {
        attention_ratio(a, c->scale);
        if (a->attention_factor != 0) mpfr_mul_d(c->scale, c->scale, a->attention_factor, MPFR_RNDN);
    } else if ((a->scaling == HM_SCALING_YARN || a->scaling == HM_SCALING_LONGROPE) && a->attention_factor != 0) {
        mpfr_set_d(c->scale, a->attention_factor, MPFR_RNDN);
    } else if (a->scaling == HM_SCALING_YARN) {
        if (a->mscale != 0 && a->mscale_all_dim != 0) attention_ratio(a, c->scale);
        else attention(a, 1, c->scale);
    } else if (a->scaling == HM_SCALING_LONGROPE && a->max_position > a->original_max_position) {
        mpfr_t l; /* 1 + (ln M - ln D) / ln D = ln M / ln D */
        mpfr_init2(l, BITS);
        mpfr_set_si(l, a->original_max_position, MPFR_RNDN);
        mpfr_log(l, l, MPFR_RNDN);
        mpfr_set_si(c->scale, a->max_position, MPFR_RNDN);
        mpfr_log(c->scale, c->scale, MPFR_RNDN);
        mpfr_div(c->scale, c->scale, l, MPFR_RNDN);
        mpfr_sqrt(c->scale, c->scale, MPFR_RNDN);
        mpfr_clear(l);
    }
    mpfr_t end;
    mpfr_init2(end, BITS);
    c->scale_near = mpfr_get_d(c->scale, MPFR_RNDN);
    mpfr_mul_d(end, c->scale, 1 - 0x1p-48, MPFR_RNDN); /* Python computes it in binary64 */
    c->scale_low = hm_round_exact(end, HM_F32);
    mpfr_mul_d(end, c->scale, 1 + 0x1p-48, MPFR_RNDN);
    c->scale_high = hm_round_exact(end, HM_F32);
    if (mpfr_cmp_ui(c->scale, 1) == 0) c->scale_low = c->scale_high = 1;
    mpfr_clear(end);
}

static void find_base(context *c) {
    const hm_rope_table_args *a = &c->a;
    mpfr_set_d(c->log_base, a->base, MPFR_RNDN);
    mpfr_log(c->log_base, c->log_base, MPFR_RNDN);
    if (a->scaling != HM_SCALING_DYNAMIC_NTK) return;
    mpfr_t s, stretch;
    mpfr_inits2(BITS, s, stretch, (mpfr_ptr)0);
    mpfr_set_d(s, a->factor, MPFR_RNDN);
    mpfr_sqr(stretch, s, MPFR_RNDN);
    mpfr_sub(stretch, stretch, s, MPFR_RNDN);
    mpfr_add_ui(stretch, stretch, 1, MPFR_RNDN);
    mpfr_log(stretch, stretch, MPFR_RNDN);
    mpfr_mul_si(stretch, stretch, c->half, MPFR_RNDN);
    mpfr_div_si(stretch, stretch, c->half - 1, MPFR_RNDN);
    mpfr_add(c->log_base, c->log_base, stretch, MPFR_RNDN);
    mpfr_clears(s, stretch, (mpfr_ptr)0);
}

/* rotary_dim ln(D / (2 pi turns)) / (2 ln base) */
static void correction(const context *c, double turns, mpfr_t to) {
    mpfr_t d;
    mpfr_init2(d, BITS);
    mpfr_const_pi(d, MPFR_RNDN);
    mpfr_mul_d(d, d, turns, MPFR_RNDN);
    mpfr_mul_ui(d, d, 2, MPFR_RNDN);
    mpfr_si_div(to, c->a.original_max_position, d, MPFR_RNDN);
    mpfr_log(to, to, MPFR_RNDN);
    mpfr_mul_si(to, to, c->half, MPFR_RNDN);
    mpfr_div(to, to, c->log_base, MPFR_RNDN);
    mpfr_clear(d);
}

static void find_ramp(const context *c, mpfr_t low, mpfr_t high) {
    const hm_rope_table_args *a = &c->a;
    correction(c, a->beta_fast, low);
    correction(c, a->beta_slow, high);
    if (a->fraction == HM_FRACTION_DROP) mpfr_floor(low, low), mpfr_ceil(high, high);
    if (mpfr_sgn(low) < 0) mpfr_set_ui(low, 0, MPFR_RNDN);
    if (mpfr_cmp_si(high, 2 * c->half - 1) > 0) mpfr_set_si(high, 2 * c->half - 1, MPFR_RNDN);
    if (mpfr_equal_p(low, high)) {
        mpfr_t milli;
        mpfr_init2(milli, BITS);
        mpfr_set_ui(milli, 1, MPFR_RNDN);
        mpfr_div_ui(milli, milli, 1000, MPFR_RNDN);
        mpfr_add(high, high, milli, MPFR_RNDN);
        mpfr_clear(milli);
    }
}

/* f (1 - part) / s + f part; part is overwritten */
static void blend(mpfr_t f, mpfr_t part, double s, mpfr_t to) {
    mpfr_mul(to, f, part, MPFR_RNDN);
    mpfr_ui_sub(part, 1, part, MPFR_RNDN);
    mpfr_mul(part, part, f, MPFR_RNDN);
    mpfr_div_d(part, part, s, MPFR_RNDN);
    mpfr_add(to, to, part, MPFR_RNDN);
}

/* ---- what f32 steps may add to inv_freq, beyond 4 ulp: see the header -------------------------------------------- */

static const double u = 0x1p-24;

static bool is_f32(double v) { return (double)(float)v == v; }

static double spread_of_f(const context *c, int64_t j) {
    double e = (double)j / (double)c->half, r = 0;
    float quotient = (float)j / (float)c->half;
    if ((double)quotient * (double)c->half != (double)j) r += e * mpfr_get_d(c->log_base, MPFR_RNDU);
    if (c->a.scaling == HM_SCALING_DYNAMIC_NTK || !is_f32(c->a.base)) r += e;
    return u * r;
}

/* inv_freq of column j, and how far f32 steps may be from it beyond 4 ulp. low and high: yarn's ramp. */
static void frequency(const context *c, int64_t j, mpfr_srcptr low, mpfr_srcptr high, mpfr_t inv, double *spread) {
    const hm_rope_table_args *a = &c->a;
    mpfr_t f, part, width;
    mpfr_inits2(BITS, f, part, width, (mpfr_ptr)0);
    mpfr_mul_si(f, c->log_base, -j, MPFR_RNDN);
    mpfr_div_si(f, f, c->half, MPFR_RNDN);
    mpfr_exp(f, f, MPFR_RNDN);
    double relative = spread_of_f(c, j), more = 0, bend = 0; /* bend: of the weight of f against f/s */
    if (is_yarn(a)) {
        mpfr_sub(width, high, low, MPFR_RNDN);
        mpfr_si_sub(part, j, low, MPFR_RNDN);
        mpfr_div(part, part, width, MPFR_RNDN);
        bool inside = mpfr_sgn(part) > 0 && mpfr_cmp_ui(part, 1) < 0;
        if (mpfr_sgn(part) < 0) mpfr_set_ui(part, 0, MPFR_RNDN);
        if (mpfr_cmp_ui(part, 1) > 0) mpfr_set_ui(part, 1, MPFR_RNDN);
        mpfr_ui_sub(part, 1, part, MPFR_RNDN);
        mpfr_mul_d(part, part, a->extrapolation_factor, MPFR_RNDN);
        if (inside || a->extrapolation_factor != 1) {
            more = 4 * u, bend = 4 * u;
            if (a->fraction == HM_FRACTION_KEEP)
                bend += u * fabs(mpfr_get_d(low, MPFR_RNDA) / mpfr_get_d(width, MPFR_RNDN));
        }
        blend(f, part, a->factor, inv);
    } else if (a->scaling == HM_SCALING_LLAMA3) {
        mpfr_const_pi(part, MPFR_RNDN); /* part = D f / 2 pi: turns of this frequency in D */
        mpfr_mul_ui(part, part, 2, MPFR_RNDN);
        mpfr_si_div(part, a->original_max_position, part, MPFR_RNDN);
        mpfr_mul(part, part, f, MPFR_RNDN);
        if (mpfr_cmp_d(part, a->high_freq_factor) > 0) {
            mpfr_set(inv, f, MPFR_RNDN);
        } else if (mpfr_cmp_d(part, a->low_freq_factor) < 0 || a->low_freq_factor == a->high_freq_factor) {
            mpfr_div_d(inv, f, a->factor, MPFR_RNDN);
        } else {
            mpfr_set_d(width, a->high_freq_factor, MPFR_RNDN);
            mpfr_sub_d(width, width, a->low_freq_factor, MPFR_RNDN);
            mpfr_sub_d(part, part, a->low_freq_factor, MPFR_RNDN);
            mpfr_div(part, part, width, MPFR_RNDN);
            more = 4 * u, bend = a->high_freq_factor * (relative + 7 * u) / mpfr_get_d(width, MPFR_RNDN) + 2 * u;
            blend(f, part, a->factor, inv);
        }
    } else if (a->scaling == HM_SCALING_LONGROPE) {
        mpfr_div_d(inv, f, (double)((const float *)a->factors.data)[j * a->factors.stride[0]], MPFR_RNDN);
    } else if (a->scaling == HM_SCALING_LINEAR && !c->f32) {
        mpfr_div_d(inv, f, a->factor, MPFR_RNDN);
    } else {
        mpfr_set(inv, f, MPFR_RNDN);
    }
    *spread = mpfr_get_d(inv, MPFR_RNDU) * (relative + more);
    if (bend != 0) *spread += mpfr_get_d(f, MPFR_RNDU) * (1 - 1 / a->factor) * bend;
    mpfr_clears(f, part, width, (mpfr_ptr)0);
}

/* ---- candidates and turns ---------------------------------------------------------------------------------------- */

static double up_to_f32(double v) {
    double r = hm_round_to(HM_F32, v);
    return r < v ? hm_next_up(HM_F32, r) : r;
}
static double down_to_f32(double v) { return -up_to_f32(-v); }

static void find_candidates(column *k, double spread) {
    mpfr_t end;
    mpfr_init2(end, BITS);
    double ulp = hm_ulp(HM_F32, mpfr_get_d(k->inv, MPFR_RNDZ));
    k->nearest = hm_round_exact(k->inv, HM_F32);
    mpfr_sub_d(end, k->inv, 4 * ulp + spread, MPFR_RNDN);
    k->low = up_to_f32(mpfr_get_d(end, MPFR_RNDU));
    mpfr_add_d(end, k->inv, 4 * ulp + spread, MPFR_RNDN);
    k->high = down_to_f32(mpfr_get_d(end, MPFR_RNDD));
    k->chosen = k->nearest;
    mpfr_clear(end);
}

static void find_turns(column *k) {
    mpfr_t t, pi;
    mpfr_inits2(BITS, t, pi, (mpfr_ptr)0);
    mpfr_const_pi(pi, MPFR_RNDN);
    mpfr_div(t, k->inv, pi, MPFR_RNDN);
    mpfr_div_ui(t, t, 2, MPFR_RNDN);
    for (int i = 2; i >= 0; i--) {
        mpfr_frac(t, t, MPFR_RNDN);
        mpfr_mul_2ui(t, t, 64, MPFR_RNDN);
        mpfr_t whole;
        mpfr_init2(whole, 64);
        mpfr_trunc(whole, t);
        mpfr_mul_2si(whole, whole, -32, MPFR_RNDN); /* unsigned long may have 32 bits */
        uint64_t high = mpfr_get_ui(whole, MPFR_RNDZ);
        mpfr_frac(whole, whole, MPFR_RNDN);
        mpfr_mul_2ui(whole, whole, 32, MPFR_RNDN);
        k->turns[i] = high << 32 | mpfr_get_ui(whole, MPFR_RNDZ);
        mpfr_clear(whole);
    }
    mpfr_clears(t, pi, (mpfr_ptr)0);
}

/* ---- elements ---------------------------------------------------------------------------------------------------- */

/* mscale * cos or sin by MPFR, off by less than 2^-(bits - 60) relative unless it is below 2^-20. */
static void formula(const context *c, const column *k, int64_t position, bool sine, int bits, mpfr_t to) {
    mpfr_t angle;
    mpfr_init2(angle, bits + 64);
    mpfr_mul_si(angle, k->inv, position, MPFR_RNDN);
    if (c->f32 && c->a.scaling == HM_SCALING_LINEAR) mpfr_div_d(angle, angle, c->a.factor, MPFR_RNDN);
    (sine ? mpfr_sin : mpfr_cos)(to, angle, MPFR_RNDN);
    mpfr_mul(to, to, c->scale, MPFR_RNDN);
    mpfr_clear(angle);
}

/* The same in binary64, within TIER1 relative. false: too close to a quarter turn to say. */
static bool formula_near(const context *c, const column *k, int64_t position, bool sine, double *value) {
    typedef unsigned __int128 wide;
    uint64_t t[3];
    wide carry = 0;
    if (c->f32 && c->a.scaling == HM_SCALING_LINEAR) return false; /* turns has no 1/s in it */
    for (int i = 0; i < 3; i++) {
        carry += (wide)k->turns[i] * (uint64_t)position;
        t[i] = (uint64_t)carry;
        carry >>= 64;
    }
    unsigned quarter = (unsigned)((t[2] + (UINT64_C(1) << 61)) >> 62); /* rounds up past a half turn: 0..3 */
    wide rest = ((wide)(t[2] - ((uint64_t)quarter << 62)) << 64) | t[1];
    bool negative = rest >> 127;
    if (negative) rest = -rest;
    double r = ((double)(uint64_t)(rest >> 64) * 0x1p-64 + (double)(uint64_t)rest * 0x1p-128);
    if (!(r > 0x1p-60)) return false;
    r *= negative ? -0x1.921fb54442d18p2 : 0x1.921fb54442d18p2;
    bool swap = quarter & 1;
    double v = sine != swap
                   ? sin(r)
                   : cos(r); /* quarter 1: sin -> cos, cos -> -sin; 2: both negated; 3: sin -> -cos, cos -> sin */
    if (sine ? quarter & 2 : quarter == 1 || quarter == 2) v = -v;
    *value = v * c->scale_near;
    return true;
}

static double round_between(mpfr_t v, double slack, hm_dtype T, bool *one) {
    mpfr_t end;
    mpfr_init2(end, mpfr_get_prec(v) + 64);
    mpfr_mul_d(end, v, 1 - slack, MPFR_RNDN);
    double low = hm_round_exact(end, T);
    mpfr_mul_d(end, v, 1 + slack, MPFR_RNDN);
    double high = hm_round_exact(end, T);
    mpfr_clear(end);
    *one = low == high;
    return low;
}

static double point(const context *c, const column *k, int64_t position, bool sine, hm_tier tier, int64_t *mpfr) {
    if (position == 0) return sine ? 0 : hm_round_exact(c->scale, c->T);
    double near;
    if (tier == HM_TIER_TWO && formula_near(c, k, position, sine, &near)) {
        double low = hm_round_to(c->T, near * (1 - TIER1)), high = hm_round_to(c->T, near * (1 + TIER1));
        if (low == high) return low;
    }
    ++*mpfr;
    mpfr_t v;
    mpfr_init2(v, FIRST_BITS);
    formula(c, k, position, sine, FIRST_BITS, v);
    bool one = mpfr_get_exp(v) > -20;
    double r = one ? round_between(v, 0x1p-90, c->T, &one) : 0;
    if (!one) { /* BITS - 120 bits; were it a boundary to all of them, it would be one */
        mpfr_set_prec(v, BITS);
        formula(c, k, position, sine, BITS, v);
        r = hm_round_exact(v, c->T);
    }
    mpfr_clear(v);
    return r;
}

typedef struct {
    double low, high;
} interval;

/* C: cos or sin of angle, off by at most slack |C|. The f32 values within 2 ulp of it; false if that is not decided. */
static bool within_two(double C, double slack, interval *v) {
    double error = fabs(C) * slack, ulp = hm_ulp(HM_F32, C - copysign(error, C));
    if (hm_ulp(HM_F32, C + copysign(error, C)) != ulp) return false;
    v->low = up_to_f32(C - error - 2 * ulp), v->high = down_to_f32(C + error + 2 * ulp);
    return up_to_f32(C + error - 2 * ulp) == v->low && down_to_f32(C - error + 2 * ulp) == v->high;
}

static interval function_values(double angle, bool sine, hm_tier tier, int64_t *mpfr) {
    interval v;
    if (tier == HM_TIER_TWO && within_two(sine ? sin(angle) : cos(angle), TIER1, &v)) return v;
    ++*mpfr;
    mpfr_t C, end;
    mpfr_init2(C, FIRST_BITS), mpfr_init2(end, FIRST_BITS + 64);
    mpfr_set_d(C, angle, MPFR_RNDN);
    (sine ? mpfr_sin : mpfr_cos)(C, C, MPFR_RNDN); /* no f32 angle but 0 has a value near a boundary of 160 bits */
    double ulp = hm_ulp(HM_F32, mpfr_get_d(C, MPFR_RNDZ));
    mpfr_sub_d(end, C, 2 * ulp, MPFR_RNDN);
    v.low = up_to_f32(mpfr_get_d(end, MPFR_RNDU));
    mpfr_add_d(end, C, 2 * ulp, MPFR_RNDN);
    v.high = down_to_f32(mpfr_get_d(end, MPFR_RNDD));
    mpfr_clears(C, end, (mpfr_ptr)0);
    return v;
}

static double angle_of(const context *c, double candidate, int64_t position) {
    float at = (float)position;
    if (c->a.scaling == HM_SCALING_LINEAR) at /= (float)c->a.factor;
    return (double)(at * (float)candidate);
}

/* What may be stored for one candidate. */
static interval admissible(const context *c, double candidate, int64_t position, bool sine, hm_tier tier,
                           int64_t *mpfr) {
    interval v = function_values(angle_of(c, candidate, position), sine, tier, mpfr);
    if (c->scale_low == 1 && c->scale_high == 1) return (interval){hm_round_to(c->T, v.low), hm_round_to(c->T, v.high)};
    double low = v.low * (v.low < 0 ? c->scale_high : c->scale_low),
           high = v.high * (v.high < 0 ? c->scale_low : c->scale_high);
    interval once = {hm_round_to(c->T, low), hm_round_to(c->T, high)};
    interval twice = {hm_round_to(c->T, hm_round_to(HM_F32, low)), hm_round_to(c->T, hm_round_to(HM_F32, high))};
    return (interval){fmin(once.low, twice.low), fmax(once.high, twice.high)};
}

/* RN_T(mscale cos or sin(angle)) */
static double ideal_f32(const context *c, double candidate, int64_t position, bool sine, hm_tier tier, int64_t *mpfr) {
    double angle = angle_of(c, candidate, position);
    if (tier == HM_TIER_TWO) {
        double near = (sine ? sin(angle) : cos(angle)) * c->scale_low, low = hm_round_to(c->T, near * (1 - TIER1));
        if (low == hm_round_to(c->T, near * (1 + TIER1))) return low;
    }
    ++*mpfr;
    mpfr_t v;
    mpfr_init2(v, FIRST_BITS);
    mpfr_set_d(v, angle, MPFR_RNDN);
    (sine ? mpfr_sin : mpfr_cos)(v, v, MPFR_RNDN);
    mpfr_mul_d(v, v, c->scale_low, MPFR_RNDN);
    double r = hm_round_exact(v, c->T);
    mpfr_clear(v);
    return r;
}

/* ---- the candidate that explains a column ------------------------------------------------------------------------ */

/* Certainly outside, without the cost of the ends: they are within 2 ulp (2^-22), two roundings (2^-23) and half an ulp
 * of T of mscale C. */
static bool is_far(const context *c, double C, double stored) {
    double y = c->scale_near * C, size = fmax(fabs(y), fabs(stored));
    return fabs(stored - y) > size * 0x1p-21 + hm_ulp(c->T, size);
}

static bool explains(const context *c, double candidate, int64_t position, const double *stored) {
    int64_t mpfr = 0;
    double angle = angle_of(c, candidate, position);
    if (is_far(c, cos(angle), stored[0]) || is_far(c, sin(angle), stored[1])) return false;
    for (int sine = 0; sine < 2; sine++) {
        interval v = admissible(c, candidate, position, sine, HM_TIER_TWO, &mpfr);
        if (!(stored[sine] >= v.low && stored[sine] <= v.high)) return false;
    }
    return true;
}

/* The next candidate in order of distance from inv, of those below `down` and above `up`; the lower of two at the same
 * distance. */
static double next_candidate(const column *k, double *down, double *up) {
    mpfr_t d, e;
    mpfr_inits2(BITS, d, e, (mpfr_ptr)0);
    mpfr_sub_d(d, k->inv, *down, MPFR_RNDN);
    mpfr_d_sub(e, *up, k->inv, MPFR_RNDN);
    bool lower = *down >= k->low && (*up > k->high || mpfr_cmp(d, e) <= 0);
    mpfr_clears(d, e, (mpfr_ptr)0);
    double r = lower ? *down : *up;
    if (lower) *down = hm_next_down(HM_F32, r);
    else *up = hm_next_up(HM_F32, r);
    return r;
}

static void choose(const context *c, column *k, const double *stored) {
    int64_t rows = c->a.out.shape[0], fewest = rows + 1;
    double down = k->nearest, up = hm_next_up(HM_F32, k->nearest);
    while (fewest && (down >= k->low || up <= k->high)) {
        double candidate = next_candidate(k, &down, &up);
        int64_t failing = 0;
        for (int64_t p = rows - 1; p >= 0 && failing < fewest; p--) /* large positions tell candidates apart */
            failing += !explains(c, candidate, hm_rope_position(&c->a, k->axis, p), stored + 2 * p);
        if (failing < fewest) fewest = failing, k->chosen = candidate;
    }
    k->observed = true;
}

static hm_status observe(void *opaque, int arg, const hm_tensor *stored, int threads) {
    context *c = opaque;
    (void)arg; /* out is the only output */
    int64_t rows = c->a.out.shape[0], size = (int64_t)hm_dtype_size(stored->dtype);
    bool failed = false;
    if (!c->f32 || stored->dtype != c->T) return HM_OK;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads > 0 ? threads : 1)
    for (int64_t j = 0; j < c->half; j++) {
        double *values = malloc(((size_t)rows + 1) * 2 * sizeof *values);
        if (!values) {
#pragma omp atomic write
            failed = true;
            continue;
        }
        for (int64_t i = 0; i < 2 * rows; i++)
            values[i] = hm_load(stored->dtype,
                                (const char *)stored->data +
                                    (i / 2 * stored->stride[0] + (j + i % 2 * c->half) * stored->stride[1]) * size);
        choose(c, &c->columns[j], values);
        free(values);
    }
    return failed ? hm_fail(HM_NO_MEMORY, "golden: no memory for a column of %lld rows", (long long)rows) : HM_OK;
}

/* ---- the op ------------------------------------------------------------------------------------------------------ */

static hm_status row_of(const void *opaque, int arg, int64_t row, hm_class class, hm_tier tier, hm_golden_row *out) {
    const context *c = opaque;
    (void)arg, (void)class; /* what is admissible depends on the mode alone */
    for (int64_t i = 0; i < 2 * c->half; i++) {
        const column *k = &c->columns[i % c->half];
        bool sine = i >= c->half;
        int64_t position = hm_rope_position(&c->a, k->axis, row);
        out->flags[i] = 0;
        if (!c->f32) {
            out->lo[i] = out->hi[i] = point(c, k, position, sine, tier, &out->mpfr);
            if (out->ideal) out->ideal[i] = out->lo[i];
        } else {
            interval v = admissible(c, k->chosen, position, sine, tier, &out->mpfr);
            for (double candidate = k->low; !k->observed && candidate <= k->high;
                 candidate = hm_next_up(HM_F32, candidate)) {
                interval other = admissible(c, candidate, position, sine, tier, &out->mpfr);
                v = (interval){fmin(v.low, other.low), fmax(v.high, other.high)};
            }
            out->lo[i] = v.low, out->hi[i] = v.high;
            if (out->ideal) out->ideal[i] = ideal_f32(c, k->chosen, position, sine, tier, &out->mpfr);
        }
        if (!out->exact || (position && formula_near(c, k, position, sine, &out->exact[i]))) continue;
        mpfr_t v;
        mpfr_init2(v, FIRST_BITS + 64);
        formula(c, k, position, sine, FIRST_BITS + 64, v);
        out->exact[i] = mpfr_get_d(v, MPFR_RNDN);
        mpfr_clear(v);
    }
    return HM_OK;
}

static double distance(const void *opaque, int arg, int64_t row, int64_t index, double got) {
    const context *c = opaque;
    const column *k = &c->columns[index % c->half];
    (void)arg;
    if (!isfinite(got)) return INFINITY;
    mpfr_t v, short_one;
    mpfr_init2(v, BITS), mpfr_init2(short_one, 13);
    formula(c, k, hm_rope_position(&c->a, k->axis, row), index >= c->half, BITS, v);
    double ulp = hm_ulp(c->T, mpfr_get_d(v, MPFR_RNDZ));
    mpfr_sub_d(v, v, got, MPFR_RNDA);
    mpfr_abs(v, v, MPFR_RNDN);
    mpfr_div_d(v, v, ulp, MPFR_RNDU);
    mpfr_set(short_one, v, MPFR_RNDU);
    double d = mpfr_get_d(short_one, MPFR_RNDU);
    mpfr_clears(v, short_one, (mpfr_ptr)0);
    return d;
}

static void close_context(void *opaque) {
    context *c = opaque;
    for (int64_t j = 0; j < c->half; j++) mpfr_clear(c->columns[j].inv);
    mpfr_clears(c->scale, c->log_base, (mpfr_ptr)0);
    free(c->columns);
    free(c);
}

static hm_status open_context(const void *args, int threads, void **opaque) {
    (void)threads;
    context *c = calloc(1, sizeof *c);
    if (!c) return hm_fail(HM_NO_MEMORY, "golden: no memory");
    hm_status s = hm_rope_table_read(args, &c->a);
    if (!s) {
        c->T = c->a.out.dtype, c->f32 = c->a.precision == HM_TABLE_F32, c->half = c->a.out.shape[1] / 2;
        c->columns = calloc((size_t)c->half, sizeof *c->columns);
        if (!c->columns) s = hm_fail(HM_NO_MEMORY, "golden: no memory for %lld columns", (long long)c->half);
    }
    if (s) {
        free(c);
        return s;
    }
    mpfr_t low, high;
    mpfr_inits2(BITS, c->scale, c->log_base, low, high, (mpfr_ptr)0);
    find_scale(c);
    find_base(c);
    if (is_yarn(&c->a)) find_ramp(c, low, high);
    for (int64_t j = 0; j < c->half; j++) {
        column *k = &c->columns[j];
        double spread;
        mpfr_init2(k->inv, BITS);
        k->axis = hm_rope_axis(&c->a, j);
        frequency(c, j, low, high, k->inv, &spread);
        find_turns(k);
        if (c->f32) find_candidates(k, spread);
    }
    mpfr_clears(low, high, (mpfr_ptr)0);
    *opaque = c;
    return HM_OK;
}

const hm_golden_op hm_rope_table_golden = {"rope_table", open_context, close_context, row_of, distance, observe};
