/* ref's functions against MPFR: sampled over their ranges; those behind rotary tables at the arguments that are hardest
 * to reduce, too. */
#include <criterion/criterion.h>
#include <stdint.h>
#define MPFR_USE_INTMAX_T
#include <mpfr.h>

#include "../../op/dtype.h"
#include "../../ref/fixed.h"
#include "../../ref/math.h"

enum { BITS = 900 };

static uint64_t state = 88172645463325252u;
static uint64_t word(void) { /* xorshift */
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state;
}
static double unit(void) { return (double)(word() >> 11) * 0x1p-53; }
static int below(int n) { return (int)(word() % (unsigned)n); }

static void value_of(hm_fixed a, mpfr_t to) {
    mpfr_t limb;
    mpfr_init2(limb, 64);
    mpfr_set_zero(to, 1);
    for (int i = HM_LIMBS - 1; i >= 0; i--) {
        mpfr_set_uj(limb, a.limb[i], MPFR_RNDN);
        mpfr_mul_2ui(to, to, 64, MPFR_RNDN);
        mpfr_add(to, to, limb, MPFR_RNDN);
    }
    mpfr_div_2ui(to, to, 64 * HM_FRACTION_LIMBS, MPFR_RNDN);
    if (a.negative) mpfr_neg(to, to, MPFR_RNDN);
    mpfr_clear(limb);
}

/* |a - want| < 2^k */
static bool near(hm_fixed a, mpfr_srcptr want, int k) {
    mpfr_t v;
    mpfr_init2(v, BITS);
    value_of(a, v);
    mpfr_sub(v, v, want, MPFR_RNDN);
    bool fine = mpfr_zero_p(v) || mpfr_get_exp(v) <= k;
    mpfr_clear(v);
    return fine;
}

Test(math, fixed_point) {
    mpfr_t x, w;
    mpfr_inits2(BITS, x, w, (mpfr_ptr)0);
    mpfr_const_pi(w, MPFR_RNDN);
    cr_assert(near(hm_fixed_pi(), w, -320));
    mpfr_const_log2(w, MPFR_RNDN);
    cr_assert(near(hm_fixed_ln2(), w, -320));
    for (int i = 0; i < 3000; i++) {
        double v = ldexp(1 + unit(), below(100) - 40), e = (unit() - 0.5) * ldexp(1, below(8)),
               a = (unit() - 0.3) * ldexp(1, below(36));
        double n = (unit() - 0.5) * 1e6, d = i % 2 ? (unit() - 0.5) * 100 : (double)(1 + below(1000));
        int quarters = 1 + (int)fmax(0, ilogb(a));
        mpfr_set_d(x, v, MPFR_RNDN);
        mpfr_log(w, x, MPFR_RNDN);
        cr_assert(near(hm_fixed_ln(hm_fixed_double(v)), w, -311 + (v < 1 ? -ilogb(v) : 0)), "ln %a", v);
        mpfr_sqrt(w, x, MPFR_RNDN);
        cr_assert(near(hm_fixed_sqrt(hm_fixed_double(v)), w, -317 + 40), "sqrt %a", v);
        hm_fixed m, s, c;
        int k = hm_fixed_exp(hm_fixed_double(e), &m);
        mpfr_set_d(x, e, MPFR_RNDN);
        mpfr_exp(w, x, MPFR_RNDN);
        mpfr_div_2si(w, w, k, MPFR_RNDN);
        cr_assert(near(m, w, -303), "exp %a", e);
        hm_fixed_sincos(hm_fixed_double(a), &s, &c);
        mpfr_set_d(x, a, MPFR_RNDN);
        mpfr_sin(w, x, MPFR_RNDN);
        cr_assert(near(s, w, -312 + quarters), "sin %a", a);
        mpfr_cos(w, x, MPFR_RNDN);
        cr_assert(near(c, w, -312 + quarters), "cos %a", a);
        hm_fixed q = hm_fixed_div(hm_fixed_double(n), hm_fixed_double(d)),
                 product = hm_fixed_mul(hm_fixed_double(n), hm_fixed_double(d));
        mpfr_set_d(x, n, MPFR_RNDN);
        mpfr_div_d(w, x, d, MPFR_RNDN);
        cr_assert(near(q, w, -318), "%a / %a", n, d);
        double tail, head = hm_fixed_split(q, &tail);
        mpfr_sub_d(w, w, head, MPFR_RNDN);
        mpfr_sub_d(w, w, tail, MPFR_RNDN);
        cr_assert(mpfr_zero_p(w) || mpfr_get_exp(w) <= ilogb(head) - 104);
        mpfr_mul_d(w, x, d, MPFR_RNDN);
        cr_assert(near(product, w, -318), "%a * %a", n, d);
        cr_assert_eq(hm_fixed_floor(q), (int64_t)floor(n / d));
    }
    mpfr_clears(x, w, (mpfr_ptr)0);
}

/* The bound of math.h: 2^-95 of the result, and 2^-122. The worst seen is 2^-102.8, at an angle of 0x1.8e1b0ep27. */
static void sincos_is_near(hm_dd angle) {
    mpfr_t x, w;
    mpfr_inits2(BITS, x, w, (mpfr_ptr)0);
    mpfr_set_d(x, angle.hi, MPFR_RNDN);
    mpfr_add_d(x, x, angle.lo, MPFR_RNDN);
    hm_dd v[2];
    hm_dd_sincos(angle, &v[0], &v[1]);
    for (int i = 0; i < 2; i++) {
        (i ? mpfr_cos : mpfr_sin)(w, x, MPFR_RNDN);
        double size = fabs(mpfr_get_d(w, MPFR_RNDN));
        mpfr_sub_d(w, w, v[i].hi, MPFR_RNDN);
        mpfr_sub_d(w, w, v[i].lo, MPFR_RNDN);
        double error = fabs(mpfr_get_d(w, MPFR_RNDN));
        cr_assert(error <= size * 0x1p-95 + 0x1p-122, "%s of %a + %a is off by %a", i ? "cos" : "sin", angle.hi,
                  angle.lo, error);
    }
    mpfr_clears(x, w, (mpfr_ptr)0);
}

Test(math, double_double_sincos) {
    sincos_is_near(hm_dd_of(0));
    sincos_is_near(hm_dd_of(0x1.8e1b0ep27));
    sincos_is_near(hm_dd_of(0x1p36));
    sincos_is_near(hm_dd_of(0x1.6ac5b262ca1ffp849 *
                            0x1p-813)); /* the double nearest to a multiple of pi/2, scaled into the range */
    for (int i = 0; i < 100000; i++) {
        double a = ldexp(unit(), below(50) - 13), k = rint(unit() * 0x1p24);
        if (i % 3 == 0) sincos_is_near(hm_dd_of((double)(float)a));
        else if (i % 3 == 1) sincos_is_near(hm_two_sum(a, a * 0x1p-54 * (unit() - 0.5)));
        else /* close to a quarter turn, as close as double-double comes */
            sincos_is_near(hm_dd_add(hm_dd_mul((hm_dd){0x1.921fb54442d18p0, 0x1.1a62633145c07p-54}, hm_dd_of(k)),
                                     hm_dd_of(ldexp(unit(), -below(70)))));
    }
}

/* Rounding to odd, then to the dtype, is rounding the exact sum: at ties, and one part in 2^80 beside them. */
Test(math, odd_rounding) {
    static const hm_dtype dtypes[] = {HM_F32, HM_F16, HM_BF16};
    for (int i = 0; i < 3000; i++)
        for (int t = 0; t < 3; t++) {
            double v = hm_round_to(dtypes[t], ldexp(1 + unit(), below(12) - 6)), up = hm_next_up(dtypes[t], v),
                   tie = v + (up - v) / 2;
            for (int sign = -1; sign <= 1; sign += 2) {
                cr_assert_eq(hm_round_to(dtypes[t], hm_dd_odd((hm_dd){sign * tie, sign * tie * 0x1p-80})), sign * up);
                cr_assert_eq(hm_round_to(dtypes[t], hm_dd_odd((hm_dd){sign * tie, -sign * tie * 0x1p-80})), sign * v);
                cr_assert_eq(hm_round_to(dtypes[t], hm_dd_odd((hm_dd){sign * tie, 0})),
                             hm_round_to(dtypes[t], sign * tie));
            }
        }
}

/* |got - want| / |want|, rounded up; below 2^-1022 in units of 2^-1022. */
static double relative(double got, mpfr_srcptr want) {
    mpfr_t gap, size;
    mpfr_inits2(BITS, gap, size, (mpfr_ptr)0);
    mpfr_sub_d(gap, want, got, MPFR_RNDN);
    mpfr_set_d(size, 0x1p-1022, MPFR_RNDN);
    if (mpfr_cmpabs(want, size) > 0) mpfr_set(size, want, MPFR_RNDN);
    mpfr_div(gap, gap, size, MPFR_RNDN);
    double r = fabs(mpfr_get_d(gap, MPFR_RNDA));
    mpfr_clears(gap, size, (mpfr_ptr)0);
    return r;
}

Test(math, exp_and_log) {
    mpfr_t x, w;
    mpfr_inits2(BITS, x, w, (mpfr_ptr)0);
    for (int i = 0; i < 60000; i++) {
        double v = (unit() - 0.5) * ldexp(1, below(80) - 69), far = -745 + 1454 * unit();
        double k = (below(2000) - 1000 + 0.5) * 0x1.62e42fefa39efp-1; /* where the reduction is widest */
        double arguments[] = {v, far, k, nextafter(k, 0)};
        for (int j = 0; j < 4; j++) {
            mpfr_set_d(x, arguments[j], MPFR_RNDN);
            mpfr_exp(w, x, MPFR_RNDN);
            double e = hm_exp(arguments[j]);
            cr_assert(isinf(e) ? mpfr_cmp_d(w, 0x1.fffffffffffffp1023) > 0 : relative(e, w) < 0x1p-51, "exp(%a) = %a",
                      arguments[j], e);
        }
        double near_one = 1 + (unit() - 0.5) * ldexp(1, -below(52)), any = ldexp(1 + unit(), below(2096) - 1073),
               edge = 0x1.6a09e667f3bcdp-1 * (1 + (unit() - 0.5) * 0x1p-40);
        double numbers[] = {near_one, any, edge, 2 * edge};
        for (int j = 0; j < 4; j++) {
            mpfr_set_d(x, numbers[j], MPFR_RNDN);
            mpfr_log(w, x, MPFR_RNDN);
            double l = hm_log(numbers[j]);
            cr_assert(mpfr_zero_p(w) ? l == 0 : relative(l, w) < 0x1p-50, "log(%a) = %a", numbers[j], l);
        }
    }
    mpfr_clears(x, w, (mpfr_ptr)0);
    cr_assert(hm_exp(0) == 1 && hm_exp(-0.0) == 1 && hm_exp(-INFINITY) == 0 && hm_exp(INFINITY) == INFINITY);
    cr_assert(isnan(hm_exp(NAN)) && hm_exp(1e300) == INFINITY && hm_exp(-1e300) == 0);
    cr_assert(hm_log(0) == -INFINITY && hm_log(INFINITY) == INFINITY && isnan(hm_log(-1)) && isnan(hm_log(NAN)));
    cr_assert(hm_log(1) == 0);
}
