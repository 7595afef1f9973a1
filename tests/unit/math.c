/* The functions behind rotary tables against MPFR: sampled over their ranges, and at the arguments that are hardest to
 * reduce. */
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
