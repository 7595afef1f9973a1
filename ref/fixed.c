#include "fixed.h"

#include <math.h>
#include <string.h>

typedef unsigned __int128 wide;

HM_BOTH_LOCAL bool is_zero(const uint64_t *a) {
    uint64_t any = 0;
    for (int i = 0; i < HM_LIMBS; i++) any |= a[i];
    return !any;
}

HM_BOTH_LOCAL int compare_limbs(const uint64_t *a, const uint64_t *b, int n) {
    for (int i = n - 1; i >= 0; i--)
        if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
    return 0;
}

HM_BOTH_LOCAL void add_limbs(uint64_t *a, const uint64_t *b, int n) {
    wide carry = 0;
    for (int i = 0; i < n; i++) {
        carry += (wide)a[i] + b[i];
        a[i] = (uint64_t)carry;
        carry >>= 64;
    }
}

/* a >= b */
HM_BOTH_LOCAL void sub_limbs(uint64_t *a, const uint64_t *b, int n) {
    uint64_t borrow = 0;
    for (int i = 0; i < n; i++) {
        wide d = (wide)a[i] - b[i] - borrow;
        a[i] = (uint64_t)d;
        borrow = (uint64_t)(d >> 64) & 1;
    }
}

HM_BOTH hm_fixed hm_fixed_int(int64_t v) {
    hm_fixed r = {.negative = v < 0};
    r.limb[HM_FRACTION_LIMBS] = v < 0 ? -(uint64_t)v : (uint64_t)v;
    return r;
}

HM_BOTH hm_fixed hm_fixed_scale(hm_fixed a, int k) {
    hm_fixed r = {.negative = a.negative};
    int limbs = k >= 0 ? k / 64 : -((63 - k) / 64), bits = k - 64 * limbs; /* k = 64 limbs + bits, 0 <= bits < 64 */
    for (int i = 0; i < HM_LIMBS; i++) {
        int from = i - limbs;
        uint64_t high = from >= 0 && from < HM_LIMBS ? a.limb[from] : 0,
                 low = from >= 1 && from <= HM_LIMBS ? a.limb[from - 1] : 0;
        r.limb[i] = bits ? high << bits | low >> (64 - bits) : high;
    }
    return r;
}

HM_BOTH hm_fixed hm_fixed_double(double v) {
    int e;
    double m = frexp(fabs(v), &e);
    hm_fixed r = hm_fixed_int((int64_t)ldexp(m, 53));
    r = hm_fixed_scale(r, e - 53);
    r.negative = v < 0;
    return r;
}

HM_BOTH int hm_fixed_compare(hm_fixed a, hm_fixed b) {
    bool za = is_zero(a.limb), zb = is_zero(b.limb);
    if (za && zb) return 0;
    bool na = a.negative && !za, nb = b.negative && !zb;
    if (na != nb) return na ? -1 : 1;
    int c = compare_limbs(a.limb, b.limb, HM_LIMBS);
    return na ? -c : c;
}

HM_BOTH hm_fixed hm_fixed_add(hm_fixed a, hm_fixed b) {
    if (a.negative == b.negative) {
        add_limbs(a.limb, b.limb, HM_LIMBS);
        return a;
    }
    if (compare_limbs(a.limb, b.limb, HM_LIMBS) < 0) {
        sub_limbs(b.limb, a.limb, HM_LIMBS);
        return b;
    }
    sub_limbs(a.limb, b.limb, HM_LIMBS);
    return a;
}

HM_BOTH hm_fixed hm_fixed_sub(hm_fixed a, hm_fixed b) {
    b.negative = !b.negative;
    return hm_fixed_add(a, b);
}

HM_BOTH hm_fixed hm_fixed_mul(hm_fixed a, hm_fixed b) {
    uint64_t product[2 * HM_LIMBS] = {0};
    for (int i = 0; i < HM_LIMBS; i++) {
        uint64_t carry = 0;
        for (int j = 0; j < HM_LIMBS; j++) {
            wide t = (wide)a.limb[i] * b.limb[j] + product[i + j] + carry;
            product[i + j] = (uint64_t)t;
            carry = (uint64_t)(t >> 64);
        }
        product[i + HM_LIMBS] = carry;
    }
    hm_fixed r = {.negative = a.negative != b.negative};
    memcpy(r.limb, product + HM_FRACTION_LIMBS, sizeof r.limb);
    return r;
}

HM_BOTH_LOCAL hm_fixed div_small(hm_fixed a, uint64_t b) {
    wide rest = 0;
    for (int i = HM_LIMBS - 1; i >= 0; i--) {
        rest = rest << 64 | a.limb[i];
        a.limb[i] = (uint64_t)(rest / b);
        rest %= b;
    }
    return a;
}

/* Long division, bit by bit: |a| 2^320 / |b|. */
HM_BOTH hm_fixed hm_fixed_div(hm_fixed a, hm_fixed b) {
    enum { TOP = HM_LIMBS + 1 };
    uint64_t fraction = 0;
    for (int i = 0; i < HM_FRACTION_LIMBS; i++) fraction |= b.limb[i];
    if (!fraction) { /* an integer */
        a.negative = a.negative != b.negative;
        return div_small(a, b.limb[HM_FRACTION_LIMBS]);
    }
    uint64_t rest[TOP] = {0}, by[TOP] = {0};
    hm_fixed q = {.negative = a.negative != b.negative};
    memcpy(by, b.limb, sizeof b.limb);
    for (int bit = 64 * (HM_LIMBS + HM_FRACTION_LIMBS) - 1; bit >= 0; bit--) {
        for (int i = TOP - 1; i > 0; i--) rest[i] = rest[i] << 1 | rest[i - 1] >> 63;
        int from = bit - 64 * HM_FRACTION_LIMBS; /* bits of a below 0 are zeros */
        rest[0] = rest[0] << 1 | (from >= 0 ? a.limb[from / 64] >> (from % 64) & 1 : 0);
        if (compare_limbs(rest, by, TOP) < 0) continue;
        sub_limbs(rest, by, TOP);
        if (bit < 64 * HM_LIMBS) q.limb[bit / 64] |= UINT64_C(1) << (bit % 64);
    }
    return q;
}

HM_BOTH int64_t hm_fixed_floor(hm_fixed a) {
    int64_t whole = (int64_t)a.limb[HM_FRACTION_LIMBS];
    a.limb[HM_FRACTION_LIMBS] = 0;
    return a.negative ? -whole - !is_zero(a.limb) : whole;
}

/* Truncated; tests/unit/math.c compares them with MPFR's. */
HM_BOTH_TABLE hm_fixed pi = {false,
                             {0x452821e638d01377, 0x082efa98ec4e6c89, 0xa4093822299f31d0, 0x13198a2e03707344,
                              0x243f6a8885a308d3, 0x0000000000000003}};
HM_BOTH_TABLE hm_fixed ln2 = {false,
                              {0xe7b876206debac98, 0x8a0d175b8baafa2b, 0x40f343267298b62d, 0xc9e3b39803f2f6af,
                               0xb17217f7d1cf79ab, 0x0000000000000000}};

HM_BOTH hm_fixed hm_fixed_pi(void) { return pi; }
HM_BOTH hm_fixed hm_fixed_ln2(void) { return ln2; }

/* atanh z = sum of z^(2i+1) / (2i+1); |z| < 1/2 */
HM_BOTH_LOCAL hm_fixed atanh_of(hm_fixed z) {
    hm_fixed square = hm_fixed_mul(z, z), power = z, sum = z;
    for (uint64_t i = 1; !is_zero(power.limb); i++) {
        power = hm_fixed_mul(power, square);
        sum = hm_fixed_add(sum, div_small(power, 2 * i + 1));
    }
    return sum;
}

/* Newton on a root that binary64 has to 50 bits: 100, 200, 400. */
HM_BOTH hm_fixed hm_fixed_sqrt(hm_fixed a) {
    hm_fixed r = hm_fixed_double(sqrt(hm_fixed_split(a, NULL)));
    for (int i = 0; i < 3; i++) r = hm_fixed_scale(hm_fixed_add(r, hm_fixed_div(a, r)), -1);
    return r;
}

HM_BOTH_LOCAL hm_fixed ln_ratio(hm_fixed a, hm_fixed b) { /* ln(a/b) */
    return hm_fixed_scale(atanh_of(hm_fixed_div(hm_fixed_sub(a, b), hm_fixed_add(a, b))), 1);
}

/* v = m 2^k (v/h) with h the leading bits of v, m 2^k, m in [2^-1/2, 2^1/2): atanh at |z| < 0.172, and at almost 0. */
HM_BOTH hm_fixed hm_fixed_ln(hm_fixed v) {
    int k;
    double h = hm_fixed_split(v, NULL), m = frexp(h, &k);
    if (m < 0x1.6a09e667f3bcdp-1) m *= 2, k--;
    hm_fixed r = hm_fixed_add(ln_ratio(hm_fixed_double(m), hm_fixed_int(1)), hm_fixed_mul(ln2, hm_fixed_int(k)));
    return hm_fixed_add(r, ln_ratio(v, hm_fixed_double(h)));
}

/* x = k ln 2 + r, |r| < 0.35; e^(r/256) by its series, squared eight times. */
HM_BOTH int hm_fixed_exp(hm_fixed x, hm_fixed *mantissa) {
    int64_t k = (int64_t)rint(hm_fixed_split(x, NULL) * 0x1.71547652b82fep0);
    hm_fixed r = hm_fixed_scale(hm_fixed_sub(x, hm_fixed_mul(ln2, hm_fixed_int(k))), -8), sum = hm_fixed_int(1),
             term = sum;
    for (uint64_t i = 1; !is_zero(term.limb); i++) {
        term = div_small(hm_fixed_mul(term, r), i);
        sum = hm_fixed_add(sum, term);
    }
    for (int i = 0; i < 8; i++) sum = hm_fixed_mul(sum, sum);
    *mantissa = sum;
    return (int)k;
}

/* angle = k pi/2 + r, |r| <= pi/4. */
HM_BOTH void hm_fixed_sincos(hm_fixed angle, hm_fixed *sin, hm_fixed *cos) {
    hm_fixed quarter = hm_fixed_scale(pi, -1);
    int64_t k = (int64_t)rint(hm_fixed_split(angle, NULL) * 0x1.45f306dc9c883p-1);
    hm_fixed r = hm_fixed_sub(angle, hm_fixed_mul(quarter, hm_fixed_int(k)));
    hm_fixed term = hm_fixed_int(1), sum[2] = {term, {0}}; /* even terms, odd terms */
    for (uint64_t i = 1; !is_zero(term.limb); i++) {
        term = div_small(hm_fixed_mul(term, r), i);
        if (i % 2 == 0) term.negative = !term.negative; /* r^i/i! with the signs + + - - + + ... */
        sum[i % 2] = hm_fixed_add(sum[i % 2], term);
    }
    hm_fixed c = sum[0], s = sum[1];
    if (k & 1) {
        hm_fixed t = c;
        c = s, s = t;
        c.negative = !c.negative;
    }
    if (k & 2) c.negative = !c.negative, s.negative = !s.negative;
    *sin = s, *cos = c;
}

HM_BOTH_LOCAL int top_bit(const hm_fixed *a) {
    for (int i = HM_LIMBS - 1; i >= 0; i--)
        if (a->limb[i]) return 64 * i + 63 - HM_LEADING_ZEROS(a->limb[i]);
    return -1;
}

HM_BOTH double hm_fixed_split(hm_fixed a, double *tail) {
    double part[2] = {0, 0};
    for (int p = 0; p < 2; p++) {
        int top = top_bit(&a), low = top - 52;
        if (top < 0) break;
        hm_fixed m =
            hm_fixed_scale(a, -low); /* the leading 53 bits as an integer in limb 0, and nothing else after the cut */
        part[p] = ldexp((double)(m.limb[0] & ((UINT64_C(1) << 53) - 1)), low - 64 * HM_FRACTION_LIMBS);
        if (a.negative) part[p] = -part[p];
        a = hm_fixed_sub(a, hm_fixed_double(part[p]));
    }
    if (tail) *tail = part[1];
    return part[0];
}

HM_BOTH double hm_fixed_odd(hm_fixed a) {
    double tail, head = hm_fixed_split(a, &tail); /* truncated */
    uint64_t bits;
    memcpy(&bits, &head, sizeof bits);
    bits |= tail != 0;
    memcpy(&head, &bits, sizeof head);
    return head;
}
