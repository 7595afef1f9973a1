#include "math.h"

HM_BOTH_TABLE double quarter[3] = {0x1.921fb54442d18p0, 0x1.1a62633145c07p-54, -0x1.f1976b7ed8fbcp-110}; /* pi/2 */

/* (-1)^(k/2) / k! for k = 3, 5 .. 15; 17 .. 27; 2, 4 .. 14; 16 .. 28 */
HM_BOTH_TABLE hm_dd sine[] = {
    {-0x1.5555555555555p-3, -0x1.5555555555555p-57},  {0x1.1111111111111p-7, 0x1.1111111111111p-63},
    {-0x1.a01a01a01a01ap-13, -0x1.a01a01a01a01ap-73}, {0x1.71de3a556c734p-19, -0x1.c154f8ddc6c00p-73},
    {-0x1.ae64567f544e4p-26, 0x1.c062e06d1f209p-80},  {0x1.6124613a86d09p-33, 0x1.f28e0cc748ebep-87},
    {-0x1.ae7f3e733b81fp-41, -0x1.1d8656b0ee8cbp-97},
};
HM_BOTH_TABLE double sine_tail[] = {
    0x1.952c77030ad4ap-49,  -0x1.2f49b46814157p-57, 0x1.71b8ef6dcf572p-66,
    -0x1.761b41316381ap-75, 0x1.3f3ccdd165fa9p-84,  -0x1.d1ab1c2dccea3p-94,
};
HM_BOTH_TABLE hm_dd cosine[] = {
    {-0x1p-1, 0},
    {0x1.5555555555555p-5, 0x1.5555555555555p-59},
    {-0x1.6c16c16c16c17p-10, 0x1.f49f49f49f49fp-65},
    {0x1.a01a01a01a01ap-16, 0x1.a01a01a01a01ap-76},
    {-0x1.27e4fb7789f5cp-22, -0x1.cbbc05b4fa99ap-76},
    {0x1.1eed8eff8d898p-29, -0x1.2aec959e14c06p-83},
    {-0x1.93974a8c07c9dp-37, -0x1.05d6f8a2efd1fp-92},
};
HM_BOTH_TABLE double cosine_tail[] = {
    0x1.ae7f3e733b81fp-45, -0x1.6827863b97d97p-53, 0x1.e542ba4020225p-62, -0x1.0ce396db7f853p-70,
    0x1.f2cf01972f578p-80, -0x1.88e85fc6a4e5ap-89, 0x1.0a18a2635085dp-98,
};

/* square * (c[0] + square * (c[1] + ... square * (tail[0] + ...))) */
HM_BOTH_LOCAL hm_dd series(hm_dd square, const hm_dd *c, int n, const double *tail, int m) {
    double t = tail[m - 1];
    for (int i = m - 2; i >= 0; i--) t = fma(t, square.hi, tail[i]);
    hm_dd sum = hm_dd_of(t);
    for (int i = n - 1; i >= 0; i--) sum = hm_dd_add(c[i], hm_dd_mul(sum, square));
    return hm_dd_mul(sum, square);
}

HM_BOTH void hm_dd_sincos(hm_dd angle, hm_dd *sin, hm_dd *cos) {
    double k = rint(angle.hi * 0x1.45f306dc9c883p-1);
    hm_dd first = hm_two_product(k, quarter[0]), r = hm_two_sum(angle.hi - first.hi, -first.lo);
    hm_dd second = hm_two_product(-k, quarter[1]), third = hm_two_product(-k, quarter[2]);
    r = hm_dd_add(r, hm_dd_of(angle.lo));
    r = hm_dd_add(r, second);
    r = hm_dd_add(r, third);

    hm_dd square = hm_dd_mul(r, r);
    hm_dd s = series(square, sine, sizeof sine / sizeof *sine, sine_tail, sizeof sine_tail / sizeof *sine_tail);
    hm_dd c =
        series(square, cosine, sizeof cosine / sizeof *cosine, cosine_tail, sizeof cosine_tail / sizeof *cosine_tail);
    s = hm_dd_add(r, hm_dd_mul(r, s));
    c = hm_dd_add(hm_dd_of(1), c);

    int64_t turn = (int64_t)k & 3;
    hm_dd ms = {-s.hi, -s.lo}, mc = {-c.hi, -c.lo};
    *sin = turn == 0 ? s : turn == 1 ? c : turn == 2 ? ms : mc;
    *cos = turn == 0 ? c : turn == 1 ? ms : turn == 2 ? mc : s;
}

HM_BOTH double hm_dd_odd(hm_dd v) {
    uint64_t bits;
    memcpy(&bits, &v.hi, sizeof bits);
    if (v.lo == 0 || v.hi == 0 || bits & 1) return v.hi == 0 ? v.lo : v.hi;
    bits += (v.lo < 0) == (v.hi < 0) ? 1 : UINT64_MAX; /* even: the neighbour towards hi + lo is odd */
    memcpy(&v.hi, &bits, sizeof bits);
    return v.hi;
}
