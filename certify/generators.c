#include "generators.h"

#include <Random123/philox.h>
#include <math.h>
#include <string.h>

#include "../op/dtype.h"

/* Only + - * / sqrt and exact powers of two are used, so the bits are the same on every machine. */

/* ---- randomness ---- */

uint32_t hm_hash_name(const char *text) {
    uint32_t h = 2166136261u; /* FNV-1a */
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 16777619u;
    return h;
}

typedef struct {
    uint32_t r[4];
} random4;

static random4 philox(const hm_source *s, uint32_t name, uint64_t index) {
    philox4x32_ctr_t counter = {{(uint32_t)index, (uint32_t)(index >> 32), name, s->salt}};
    philox4x32_key_t key = {{(uint32_t)s->seed, (uint32_t)(s->seed >> 32)}};
    philox4x32_ctr_t out = philox4x32(counter, key);
    random4 r;
    memcpy(r.r, out.v, sizeof r.r);
    return r;
}

/* Element's own numbers, further streams of them, and numbers that all arguments of the call see alike. */
static random4 own(const hm_source *s, uint64_t index) { return philox(s, s->name, index); }
static random4 more(const hm_source *s, uint64_t index) { return philox(s, ~s->name, index); }
static random4 shared(const hm_source *s, uint64_t index) { return philox(s, 0, index); }

/* 0 .. n-1 */
static int64_t below(uint32_t r, int64_t n) { return (int64_t)(((uint64_t)r * (uint64_t)n) >> 32); }

/* Nearly N(0,1), |v| < 4.9: the centred sum of eight 16-bit uniforms, whose variance is 8 (2^32 - 1) / 12. */
static double gauss_of(random4 r) {
    int64_t sum = 0;
    for (int i = 0; i < 4; i++) sum += (r.r[i] & 0xffff) + (r.r[i] >> 16);
    return (double)(sum - 4 * 65535) * (1.224744871391589 / 65536);
}

static double gauss(const hm_source *s, int64_t row, int64_t c) { return gauss_of(own(s, (uint64_t)(row * s->n + c))); }

static double sign_of(uint32_t r) { return r & 1 ? -1 : 1; }

/* Exact 2^k for |k| < 1000. */
static double two_to(int k) {
    double v = 1;
    for (; k > 0; k--) v *= 2;
    for (; k < 0; k++) v *= 0.5;
    return v;
}

/* Weights around 1 with a deviation of 1/4; around 0 where 1 is added to them. */
static double usual_weight(const hm_source *s, int64_t row, int64_t c) {
    return 0.25 * gauss(s, row, c) + (s->one_plus ? 0 : 1);
}

static void scaled_row(const hm_source *s, int64_t row, double scale, double *v) {
    for (int64_t c = 0; c < s->n; c++) v[c] = s->role == WEIGHT ? usual_weight(s, row, c) : scale * gauss(s, row, c);
}

/* ---- indices, tables and the pairs that they rotate ---- */

/* Every second index is one of the positions at which tables and types go wrong: 0, 1, the ends of 8 bits of precision,
 * the lengths of tables in use, and the last row. */
int64_t hm_index_drawn(const hm_source *s, int64_t i, int64_t elements, int64_t rows) {
    static const int64_t known[] = {0,     1,     255,   256,   257,    300,    4095,   4096,
                                    16383, 16384, 65535, 65536, 131071, 131072, 1048575};
    enum { KNOWN = sizeof known / sizeof *known };
    random4 r = own(s, (uint64_t)i);
    if (s->salt == hm_hash_name("out_of_range") && i == below(shared(s, UINT64_MAX).r[0], elements)) {
        const int64_t bad[] = {rows, -1, rows + (INT64_C(1) << 32), INT64_MIN, INT64_MAX, -rows};
        return bad[s->seed % 6];
    }
    if (rows <= 0) return 0;
    if (i % 2) return (int64_t)(((uint64_t)r.r[0] << 32 | r.r[1]) % (uint64_t)rows);
    int64_t usable = 0;
    while (usable < KNOWN && known[usable] < rows) usable++;
    int64_t k = (i / 2 + (int64_t)(s->seed % 64)) % (usable + 1);
    return k == 0 ? rows - 1 : known[usable - k]; /* the far ones first: a call of one token has one of them too */
}

uint64_t hm_pattern_drawn(const hm_source *s, int64_t i) {
    random4 r = own(s, (uint64_t)i);
    uint64_t bits = (uint64_t)r.r[0] << 32 | r.r[1];
    if (s->dtype == HM_F32) return r.r[2] % 4 ? bits : bits | 0x7F800000u; /* a quarter NaN or infinite */
    return r.r[2] % 4 ? bits : bits | (s->dtype == HM_F16 ? 0x7C00u : s->dtype == HM_BF16 ? 0x7F80u : 0);
}

/* A point of the unit circle, by no more than a square root; one pair in 16 lies on an axis, and so do all of row 0
 * (angle 0) and of one row in 7. */
static void rotation(const hm_source *s, int64_t row, int64_t i, double *c, double *sine) {
    static const double axis[4] = {1, 0, -1, 0};
    random4 r = own(s, (uint64_t)(row * s->n + i));
    if (row == 0 || row % 7 == 3 || r.r[0] % 16 == 0) {
        unsigned quarter = row == 0 ? 0 : r.r[1] % 4;
        *c = axis[quarter], *sine = axis[(quarter + 3) % 4];
        return;
    }
    *c = (double)(int32_t)r.r[1] * 0x1p-31;
    *sine = sqrt(1 - *c * *c) * sign_of(r.r[2]);
}

void hm_fill_rotation(const hm_source *s, int64_t row, double *v) {
    int64_t pairs = s->n / 2;
    for (int64_t i = 0; i < pairs; i++) rotation(s, row, i, &v[i], &v[pairs + i]);
    if (s->n % 2) v[s->n - 1] = 0.5; /* refused */
}

/* Multiples of 1/8 up to 1: products with integers up to 15 and their sums are exact in every dtype. */
static void exact_table(const hm_source *s, int64_t row, double *v) {
    for (int64_t c = 0; c < s->n; c++) v[c] = (double)(below(own(s, (uint64_t)(row * s->n + c)).r[0], 17) - 8) / 8;
}

/* s c = (m / n) (1 + a few 2^-20): x = n and y = m cancel to 2^-20 of themselves. The ratio is the pair's, 1..15 each.
 */
static double ratio(const hm_source *s, int64_t i, bool top) {
    random4 r = shared(s, (uint64_t)i);
    return 1 + (double)below(r.r[top], 15);
}
static void cancelling_table(const hm_source *s, int64_t row, double *v) {
    hm_fill_rotation(s, row, v);
    for (int64_t i = 0, pairs = s->n / 2; i < pairs; i++) {
        random4 r = more(s, (uint64_t)(row * s->n + i));
        double near = 1 + ((double)below(r.r[0], 15) - 7) * 0x1p-20;
        double big = 0.25 + (double)(r.r[1] >> 9) * 0x1p-24; /* in [1/4, 3/4) */
        double least = ratio(s, i, false) < ratio(s, i, true) ? ratio(s, i, false) : ratio(s, i, true);
        v[i] = big * least / ratio(s, i, true) * sign_of(r.r[2]);
        v[pairs + i] = big * least / ratio(s, i, false) * near * sign_of(r.r[3]);
    }
}
/* x c - y s cancels in one pair of two, y c + x s in the other: x s and y c are |x y| big least / (n m) up to the sign.
 */
static void cancelling_pairs(const hm_source *s, int64_t row, double *v) {
    const hm_pairs *p = &s->pairs;
    for (int64_t i = 0; i < p->count; i++) {
        random4 r = more(s, (uint64_t)(row * s->n + i));
        double scale = two_to((int)(r.r[0] % 9) - 4) * sign_of(r.r[1]), n = ratio(s, i, true), m = ratio(s, i, false);
        bool second = r.r[2] % 2, alike = (p->c[i] < 0) == (p->s[i] < 0);
        /* x' = x c - y s: |x c| = |y s| with x = n, y = m;  y' = y c + x s: with x = m, y = n and opposite signs */
        double x = second ? m : n, y = second ? n : m;
        if ((second ? alike : !alike) != (r.r[3] % 4 == 0))
            y = -y; /* one in four the other way round: for the inverse */
        v[p->first + i * p->step] = x * scale;
        v[p->first + i * p->step + p->apart] = y * scale;
    }
}

/* c = 1 and s = half a unit of T, or next to it: x - y s with y = 1 lies half way between two values of T. c = 3/2 and
 * s = 2^-60: x c lies half way, and y s decides. s = 1: the same for the other result. */
static void ties_table(const hm_source *s, int64_t row, double *v) {
    double half = two_to(-hm_dtype_precision(s->type));
    for (int64_t i = 0, pairs = s->n / 2; i < pairs; i++) {
        random4 r = own(s, (uint64_t)(row * s->n + i));
        double near = half * (1 + ((double)below(r.r[1], 5) - 2) * 0x1p-22) * sign_of(r.r[2]);
        double c = 1, sine = near;
        if (r.r[0] % 4 == 1) c = 1.5, sine = 0x1p-60 * sign_of(r.r[2]);
        if (r.r[0] % 4 == 2) c = near, sine = 1;
        v[i] = c, v[pairs + i] = sine;
    }
}
static void ties_pairs(const hm_source *s, int64_t row, double *v) {
    const hm_pairs *p = &s->pairs;
    double span = two_to(hm_dtype_precision(s->type) - 1);
    for (int64_t i = 0; i < p->count; i++) {
        random4 r = more(s, (uint64_t)(row * s->n + i));
        double wide = 1 + (double)below(r.r[0], (int64_t)span) / span,
               odd = 1 + (2 * (double)below(r.r[0], (int64_t)(span / 6)) + 1) / span;
        double one = sign_of(r.r[1]) * two_to((int)(r.r[2] % 2)), scale = sign_of(r.r[3]);
        bool first = p->s[i] != 1;
        double x = scale * (fabs(p->c[i]) > 1 ? odd : wide);
        v[p->first + i * p->step] = first ? x : one;
        v[p->first + i * p->step + p->apart] = first ? one : x;
    }
}

/* Magnitudes up to 3/2, as an attention factor makes them: products of large elements overflow. */
static void scaled_table(const hm_source *s, int64_t row, double *v) {
    hm_fill_rotation(s, row, v);
    for (int64_t c = 0; c < s->n; c++) v[c] *= row % 2 ? 1.5 : 1;
}

static void special_table(const hm_source *s, int64_t row, double *v) {
    hm_fill_rotation(s, row, v);
    double least = hm_ulp(s->dtype, 0);
    const double odd[] = {
        NAN, INFINITY, -INFINITY, 0.0, -0.0, 3 * least, hm_dtype_max(s->dtype), -hm_dtype_min_normal(s->dtype)};
    if (row % 4 == 0) return;
    for (int64_t c = 0; c < s->n; c++) {
        uint32_t r = more(s, (uint64_t)(row * s->n + c)).r[0];
        if (r % 8 == 0) v[c] = odd[r / 8 % 8];
    }
}

static void subnormal_table(const hm_source *s, int64_t row, double *v) {
    hm_fill_rotation(s, row, v);
    double low = hm_dtype_min_normal(s->dtype), other = hm_dtype_min_normal(s->type);
    low = low > other ? low : other;
    for (int64_t c = 0; c < s->n; c++) {
        random4 r = more(s, (uint64_t)(row * s->n + c));
        if (r.r[0] % 2) v[c] = sign_of(r.r[1]) * low * two_to((int)(r.r[2] % 6) - 4) * (1 + (double)(r.r[3] % 64) / 64);
    }
}

static void index_table(const hm_source *s, int64_t row, double *v) {
    for (int64_t c = 0; c < s->n; c++) v[c] = (double)((row % 8191 * 5 + c % 127 * 7 + c / 127) % 31 - 15) / 16;
}

/* ---- the generators ---- */

static void normal(const hm_source *s, int64_t row, double *v) { scaled_row(s, row, 1, v); }

/* One channel in 128 is an outlier in every row, as in the residual stream of a language model; 1 for the others. */
static double outlier(const hm_source *s, int64_t c) {
    random4 r = shared(s, (uint64_t)c);
    bool forced = s->n >= 8 && c == below(shared(s, UINT64_MAX).r[0], s->n);
    return forced || below(r.r[0], 128) == 0 ? 50 + (double)below(r.r[1], 951) : 1;
}

/* Large and small in one row: exposes partial sums in 16 bits, clamping, and a variance that loses its small terms. */
static void heavy(const hm_source *s, int64_t row, double *v) {
    for (int64_t c = 0; c < s->n; c++) {
        if (s->role == WEIGHT) {
            v[c] = usual_weight(s, row, c);
            if (outlier(s, c) > 1) v[c] *= 0.125;
            continue;
        }
        uint32_t r = more(s, (uint64_t)(row * s->n + c)).r[0];
        double tail = r % 4 ? 1 : r / 4 % 4 ? 2 : r / 16 % 4 ? 4 : 8;
        v[c] = tail * gauss(s, row, c) * (s->has_second && s->role == FIRST ? 1 : outlier(s, c));
    }
}

/* Rows whose mean is 16 or 100 deviations from 0: exposes cancellation in E[x^2] - mean^2, and a mean that is
 * subtracted. */
static void offset_row(const hm_source *s, int64_t row, double mean, double *v) {
    scaled_row(s, row, 1, v);
    for (int64_t c = 0; s->role == FIRST && c < s->n; c++) v[c] += mean;
}
static void offset16(const hm_source *s, int64_t row, double *v) { offset_row(s, row, 16, v); }
static void offset100(const hm_source *s, int64_t row, double *v) { offset_row(s, row, 100, v); }

/* Mean square far below eps = 1e-6: exposes eps in the wrong place, twice, not at all, or too coarse. Rows differ in
 * size down to squares that f32 flushes; f16 has nothing below 2^-24. */
static void tiny(const hm_source *s, int64_t row, double *v) {
    static const int other[6] = {0, -20, -50, 0, -30, -70}, half[6] = {0, -17, -18, 0, -19, -20};
    int k = (s->type == HM_F16 ? half : other)[row % 6];
    scaled_row(s, row, k ? two_to(k) : 1e-5, v);
}

/* Rows near 2^66, whose squares overflow f32, beside rows near 2^56, whose squares do not, and usual ones: exposes a
 * missing range and rows that leak into each other. f16: near its largest value, so that squares overflow f16. */
static void huge(const hm_source *s, int64_t row, double *v) {
    if (s->pairs.count) { /* up to the largest value: products and sums overflow */
        scaled_row(s, row, 1, v);
        double half = two_to(s->type == HM_F16 ? 14 : 126);
        for (int64_t c = 0; c < s->n && row % 2; c++) v[c] = half * (v[c] > 3.9 ? 3.9 : v[c] < -3.9 ? -3.9 : v[c]);
        return;
    }
    int big = s->type == HM_F16 ? (s->has_second ? 12 : 13) : 66, fair = s->type == HM_F16 ? 8 : 56;
    scaled_row(s, row, two_to(row % 3 == 1 ? big : row % 3 == 2 ? fair : 0), v);
}

/* x + residual nearly cancels: what is left is a few units in the last place of x, so that any rounding before the sum
 * shows. Without a residual: magnitudes 2^20 apart in turn, which a sum in too few bits loses. */
static void cancelling(const hm_source *s, int64_t row, double *v) {
    scaled_row(s, row, 1, v);
    if (s->pairs.count) return cancelling_pairs(s, row, v);
    if (s->role == FIRST && !s->has_second)
        for (int64_t c = 0; c < s->n; c++) v[c] *= two_to((c + row) % 2 ? -10 : 10);
    if (s->role != SECOND || !s->first) return;
    double coarse = two_to(-4), fine = two_to(-hm_dtype_precision(s->type) / 2);
    for (int64_t c = 0; c < s->n; c++) {
        double x = s->first[c], units = (double)below(more(s, (uint64_t)(row * s->n + c)).r[0], 7) - 3;
        if (row % 3 == 1) v[c] = -(x + units * hm_ulp(s->type, x));
        else v[c] = -x * (1 + v[c] * (row % 3 ? fine : coarse));
    }
}

/* Position of the `which`-th of three bits set at random in eight. */
static bool one_of_three(uint32_t r, int64_t at) {
    int64_t a = r % 8, b = (a + 1 + r / 8 % 7) % 8, c = r / 64 % 6;
    int64_t low = a < b ? a : b, high = a < b ? b : a;
    c += c >= low;
    c += c >= high;
    return at == a || at == b || at == c;
}

/* Magnitudes 1, 2, 3 whose mean square over the first `mean` elements is exactly 4: five of 1 and three of 3 in each
 * eight ((5 + 27) / 8 = 4), and 2 in what is left over. `key` varies the order. */
static double square_four(const hm_source *s, int64_t key, int64_t c) {
    if (c >= s->mean) return 1 + (double)(c % 3);
    if (c >= s->mean / 8 * 8) return 2;
    return one_of_three(shared(s, (uint64_t)(key * s->n + c / 8)).r[0], c % 8) ? 3 : 1;
}

/* +-1, 2, 3 times a power of two. */
static double exact_sum(const hm_source *s, int64_t key, int64_t row, int64_t c) {
    return square_four(s, key, c) * two_to((int)(row % 3)) * sign_of(shared(s, (uint64_t)(row * s->n + c)).r[1]);
}

/* Fills a row so that FIRST (+ SECOND) is `exact_sum`, in integers that every dtype holds. */
static void exact_row(const hm_source *s, int64_t key, int64_t row, double *v) {
    for (int64_t c = 0; c < s->n; c++) {
        double z = exact_sum(s, key, row, c);
        if (s->role == FIRST) v[c] = s->has_second ? (double)below(own(s, (uint64_t)(row * s->n + c)).r[0], 17) - 8 : z;
        if (s->role == SECOND) v[c] = s->first ? z - s->first[c] : z;
    }
}

/* With eps = 0 nothing is rounded in any legal order: rs is a power of two, every product is short, so the check is
 * equality. eps = 1e-6 moves results by 1e-7, which no 16-bit output shows. It cannot see rounding points; `ties` can.
 */
static void exact(const hm_source *s, int64_t row, double *v) {
    if (s->pairs.count) {
        for (int64_t c = 0; c < s->n; c++) v[c] = (double)below(own(s, (uint64_t)(row * s->n + c)).r[0], 31) - 15;
        return;
    }
    if (s->role != WEIGHT) return exact_row(s, row, row, v);
    for (int64_t c = 0; c < s->n; c++) {
        random4 r = own(s, (uint64_t)c);
        v[c] = sign_of(r.r[0]) * (0.5 + 0.5 * (double)below(r.r[1], 4)) - (s->one_plus ? 1 : 0);
    }
}

/* A weight with which magnitude m (1, 2, 3: x*rs is m/2) gives a result on a boundary between two values of T, or
 * within a few 1e-7 of it on either side. p: bits of T; j and r random. */
static double tie_weight(const hm_source *s, double m, random4 r) {
    int p = hm_dtype_precision(s->type);
    double unit = two_to(1 - p), span = two_to(p - 1), j = (double)below(r.r[0], (int64_t)span);
    bool narrow = hm_dtype_precision(s->dtype) <= p;
    if (!narrow) { /* a wide weight reaches every boundary of T, and can stand beside it */
        double boundary = 1 + (j + 0.5) * unit, nudge = (double)(below(r.r[1], 9) - 4) * 0x1p-23;
        return boundary * (1 + nudge) * 2 / m;
    }
    /* 3/2 of an odd multiple of the unit in [1, 4/3) needs one bit more than T has. With 1 + w the sum may itself have
     * one more. */
    if (m == 3) return 1 + (2 * (double)below(r.r[0], (int64_t)(span / 6)) + 1) * unit;
    return 1 + (s->one_plus ? (double)below(r.r[0], (int64_t)(span / 4)) + 0.5 : j) * unit;
}

/* Results on rounding boundaries of T or next to them: exposes truncation, ties away from zero, a rounding too many or
 * too few. Even rows: magnitudes per channel have a mean square of 4^k, and the weight is made for them; only rows with
 * a weight show it. Odd rows of a sum: x + residual lies half way between two values of T, or 1/32 of a unit off. */
static void ties(const hm_source *s, int64_t row, double *v) {
    if (s->pairs.count) {
        scaled_row(s, row, 1, v);
        return ties_pairs(s, row, v);
    }
    if (s->role == WEIGHT) {
        for (int64_t c = 0; c < s->n; c++)
            v[c] = tie_weight(s, square_four(s, 0, c), own(s, (uint64_t)c)) - (s->one_plus ? 1 : 0);
        return;
    }
    if (!s->has_second || row % 2 == 0) return exact_row(s, 0, row, v);
    double unit = two_to(1 - hm_dtype_precision(s->type)), span = 1 / unit;
    for (int64_t c = 0; c < s->n; c++) {
        random4 r = own(s, (uint64_t)(row * s->n + c));
        if (s->role == FIRST)
            v[c] = sign_of(r.r[0]) * two_to((int)(r.r[1] % 3)) * (1 + unit * (double)below(r.r[2], (int64_t)span));
        else {
            double off = r.r[1] % 4 < 2 ? 0 : sign_of(r.r[2]) * 0x1p-5;
            v[c] =
                sign_of(r.r[0]) * ((double)(r.r[3] % 4) + 0.5 + off) * (s->first ? hm_ulp(s->type, s->first[c]) : unit);
        }
    }
}

/* L elements of 1 and the rest with squares just under half a unit in the last place of L in f32: a running sum that
 * holds L stays there for ever. Ones at the start (stops a forward sum, and L lanes), at the end (a backward one), or
 * at the head of each of L chunks (one thread per chunk). Rows step through L and place; 21 rows have them all. */
static void stagnate(const hm_source *s, int64_t row, double *v) {
    static const int64_t ones[7] = {1, 8, 16, 32, 128, 256, 1024};
    if (s->role == WEIGHT) return scaled_row(s, row, 1, v);
    int64_t step = (int64_t)((uint64_t)row % 21 + s->seed % 21) % 21, count = ones[step % 7], place = step / 7;
    while (count > 1 && count > s->mean / 2) count /= 2;
    /* Largest value of T whose square is less than sum * 2^-24: half a unit of the power of two `sum` in f32. */
    double sum = place == 2 ? 1 : (double)count, limit = sum * 0x1p-24, small = hm_round_to(s->type, sqrt(limit));
    while (small * small >= limit) small = hm_next_down(s->type, small);
    int64_t chunk = s->mean / count > 0 ? s->mean / count : 1;
    for (int64_t c = 0; c < s->n; c++) {
        bool one = place == 0   ? c < count
                   : place == 1 ? c >= s->mean - count && c < s->mean
                                : c % chunk == 0 && c / chunk < count;
        double z = (one ? 1 : small) * sign_of(shared(s, (uint64_t)(row * s->n + c)).r[0]);
        if (c >= s->mean) z = gauss_of(shared(s, (uint64_t)(row * s->n + c)));
        v[c] = s->has_second ? z / 2 : z;
    }
}

/* Rows of zeros between usual ones: exposes 0 / 0, an eps that is missing, and rows that are skipped. In a sum every
 * second such row is zero only after adding. */
static void zero(const hm_source *s, int64_t row, double *v) {
    scaled_row(s, row, 1, v);
    if (s->role == WEIGHT || row % 3 != 1) return;
    bool cancels = s->has_second && row % 6 == 4;
    for (int64_t c = 0; c < s->n; c++) {
        if (!cancels) v[c] = sign_of(own(s, (uint64_t)(row * s->n + c)).r[0]) * 0.0;
        else if (s->role == SECOND && s->first) v[c] = -s->first[c];
    }
}

/* NaN, infinities, -0, subnormals and the largest values, each in rows (and channels) of its own beside usual ones:
 * exposes max/min that drop a NaN, clamping, saturating stores, and specials that leak into other rows. Inside and
 * outside the mean's elements. */
static void special(const hm_source *s, int64_t row, double *v) {
    scaled_row(s, row, 1, v);
    double least = hm_ulp(s->dtype, 0), most = hm_dtype_max(s->dtype);
    if (s->role == WEIGHT) {
        const double odd[] = {NAN, INFINITY, -INFINITY, 0.0, -0.0, 3 * least, most, -1};
        if (s->n < 16) return;
        int64_t start = below(own(s, UINT64_MAX).r[0], s->n);
        for (int64_t i = 0; i < 8; i++) v[(start + i * (s->n / 8)) % s->n] = odd[i];
        return;
    }
    random4 r = shared(s, UINT64_MAX - (uint64_t)row);
    int64_t inside = below(r.r[0], s->mean), other = below(r.r[1], s->mean);
    int64_t outside = s->mean < s->n ? s->mean + below(r.r[2], s->n - s->mean) : inside;
    if (s->role == SECOND) {
        switch (row % 16) {
            case 0:
                return;
            case 3:
                v[inside] = -INFINITY;
                return; /* against +inf: NaN */
            case 6:
                v[inside] = most;
                return; /* against the largest: the sum overflows */
            case 8:
                v[inside] = NAN;
                return; /* x is usual there */
            case 5:
            case 13:
                for (int64_t c = 0; c < s->n; c++) v[c] = c % 4 ? v[c] : -0.0;
                return;
            default:
                return;
        }
    }
    switch (row % 8) {
        case 1:
            v[inside] = NAN;
            return;
        case 2:
            v[outside] = NAN;
            return;
        case 3:
            v[inside] = INFINITY;
            return;
        case 4:
            v[other] = INFINITY, v[inside] = -INFINITY;
            return;
        case 5:
            for (int64_t c = 0; c < s->n; c++)
                v[c] = c % 4 == 0 ? -0.0 : c % 4 == 1 ? least * (double)(c % 7 - 3) : v[c];
            return;
        case 6:
            v[other] = -most, v[inside] = most;
            return;
        case 7:
            v[outside] = INFINITY;
            return;
        default:
            return;
    }
}

/* Subnormals of T, and weights that bring usual rows to T's smallest values: exposes flushing where T is f16, and
 * double rounding at the bottom of the range. */
static void subnormal(const hm_source *s, int64_t row, double *v) {
    scaled_row(s, row, 1, v);
    double least = hm_ulp(s->type, 0), span = two_to(hm_dtype_precision(s->type) - 1);
    double low = hm_dtype_min_normal(s->type), low_weight = hm_dtype_min_normal(s->dtype);
    low = low > low_weight ? low : low_weight;
    for (int64_t c = 0; c < s->n; c++) {
        random4 r = more(s, (uint64_t)(row * s->n + c));
        if (s->role == WEIGHT) {
            if (c % 2 == 0)
                v[c] = sign_of(r.r[0]) * low * two_to((int)(r.r[1] % 4) - 2) * (1 + (double)(r.r[2] % 8) / 8);
        } else if (row % 2 == 0) v[c] = sign_of(r.r[0]) * least * (1 + (double)below(r.r[1], (int64_t)span - 1));
    }
}

/* Each element says where it is, in integers and eighths that every dtype holds: exposes wrong index maps, pitches and
 * tails. */
static void index_map(const hm_source *s, int64_t row, double *v) {
    for (int64_t c = 0; c < s->n; c++) {
        if (s->role == WEIGHT) v[c] = (double)(c * 5 % 13 + 1) / 8 - (s->one_plus ? 1 : 0);
        else if (s->role == FIRST)
            v[c] = (double)((row % 127 * 29 + c % 127 * (7 + row % 100)) % 127) - 62.5; /* no shift maps it to itself */
        else v[c] = (double)((row % 61 * 13 + c % 61 * 3) % 61) - 30;
    }
}

/* Mostly zeros, at least one element in every row: exposes skipped elements and wrong divisors. */
static void sparse(const hm_source *s, int64_t row, double *v) {
    scaled_row(s, row, 4, v);
    if (s->role == WEIGHT) return;
    int64_t keep = below(more(s, UINT64_MAX - (uint64_t)row).r[0], s->mean);
    for (int64_t c = 0; c < s->n; c++)
        if (c != keep && more(s, (uint64_t)(row * s->n + c)).r[0] % 16) v[c] = 0;
}

/* ---- what selections are taken from ---- */

static double uniform_of(const hm_source *s, int64_t row, int64_t c) {
    return (double)(own(s, (uint64_t)(row * s->n + c)).r[0] >> 8) * 0x1p-24;
}

static void uniform(const hm_source *s, int64_t row, double *v) {
    for (int64_t c = 0; c < s->n; c++) v[c] = s->role == WEIGHT ? usual_weight(s, row, c) : uniform_of(s, row, c);
}

static void crowd(const hm_source *s, int64_t row, double width, double *v) {
    scaled_row(s, row, width, v);
    for (int64_t c = 0; s->role != WEIGHT && c < s->n; c++) v[c] += 1;
}
static void crowd_tenth(const hm_source *s, int64_t row, double *v) { crowd(s, row, 0.1, v); }
static void crowd_thousandth(const hm_source *s, int64_t row, double *v) { crowd(s, row, 0.001, v); }

static void ten_values(const hm_source *s, int64_t row, double *v) {
    uniform(s, row, v);
    for (int64_t c = 0; s->role != WEIGHT && c < s->n; c++) v[c] = floor(10 * v[c]) / 8;
}

static void equal(const hm_source *s, int64_t row, double *v) {
    uniform(s, row, v);
    for (int64_t c = 0; s->role != WEIGHT && c < s->n; c++) v[c] = 1;
}

/* Past a ReLU: nine elements in ten are 0. */
static void relu(const hm_source *s, int64_t row, double *v) {
    scaled_row(s, row, 1, v);
    for (int64_t c = 0; s->role != WEIGHT && c < s->n; c++) v[c] = v[c] > 1.25 ? v[c] - 1.25 : 0;
}

/* In any row: at most 100 distinct winners, then up to 8220 equal values, then what lies below; in mixed order. */
static void winners(const hm_source *s, int64_t row, double *v) {
    uniform(s, row, v);
    if (s->role == WEIGHT) return;
    int64_t n = s->n, best = n / 4 < 100 ? n / 4 : 100, tied = n / 2 < 8220 ? n / 2 : 8220;
    int64_t step = 1 + below(more(s, (uint64_t)row).r[0], n), shift = below(more(s, (uint64_t)row).r[1], n);
    for (;; step++) { /* coprime to n, so that every place is taken once */
        int64_t a = n, b = step;
        while (b) {
            int64_t rest = a % b;
            a = b, b = rest;
        }
        if (a == 1) break;
    }
    for (int64_t k = 0; k < n; k++) {
        int64_t c = (int64_t)(((unsigned __int128)k * (uint64_t)step + (uint64_t)shift) % (uint64_t)n);
        v[c] = k < best ? 2 + v[c] : k < best + tied ? 1 : v[c] / 2;
    }
}

/* Integers up to 8: products and their sums are exact in 13 bits for 128 of them. */
static void integers(const hm_source *s, int64_t row, double *v) {
    for (int64_t c = 0; c < s->n; c++) v[c] = (double)(below(own(s, (uint64_t)(row * s->n + c)).r[0], 17) - 8);
}

const struct hm_named_filler hm_generators[] = {
    {{"normal", "N(0,1); weights around 1 with deviation 1/4 (around 0 where 1 is added)", HM_SEPARATES_NOTHING, false},
     normal,
     NULL},
    {{"heavy", "heavy tails, and outlier channels 50 to 1000 times as large, as activations have", HM_SEPARATES_NOTHING,
      false},
     heavy,
     NULL},
    {{"offset16", "mean 16 deviations from 0", HM_SEPARATES_NOTHING, false}, offset16, NULL},
    {{"offset100", "mean 100 deviations from 0", HM_SEPARATES_NOTHING, false}, offset100, NULL},
    {{"tiny", "mean square far below eps = 1e-6", HM_SEPARATES_NOTHING, false}, tiny, NULL},
    {{"huge", "rows whose squares, or rotations, overflow f32 (near the largest value in f16), beside usual ones",
      HM_SEPARATES_NOTHING, false},
     huge,
     scaled_table},
    {{"cancelling", "x + residual, or x*c - y*s, nearly cancels; alone: large and small in turn",
      HM_SEPARATES_ROTATIONS, false},
     cancelling,
     cancelling_table},
    {{"ties", "results and sums on rounding boundaries of the output dtype, or next to them", HM_SEPARATES_NOTHING,
      false},
     ties,
     ties_table},
    {{"exact", "nothing is rounded in any legal order (with eps = 0 in f32 too)", HM_SEPARATES_NOTHING, false},
     exact,
     exact_table},
    {{"stagnate", "ones, and squares just under half an ulp of their sum: running sums stand still", HM_SEPARATES_SUMS,
      false},
     stagnate,
     NULL},
    {{"zero", "rows of zeros between usual ones", HM_SEPARATES_NOTHING, false}, zero, NULL},
    {{"special", "NaN, infinities, -0, subnormals and largest values in some rows and channels", HM_SEPARATES_NOTHING,
      false},
     special,
     special_table},
    {{"subnormal", "subnormal inputs, and results near the smallest values", HM_SEPARATES_NOTHING, false},
     subnormal,
     subnormal_table},
    {{"index", "each element says where it is", HM_SEPARATES_NOTHING, false}, index_map, index_table},
    {{"sparse", "mostly zeros", HM_SEPARATES_NOTHING, false}, sparse, NULL},
    {{"bits", "any pattern of bits, NaN payloads among them", HM_SEPARATES_NOTHING, false}, NULL, NULL},
    {{"out_of_range", "one index names no row of its table; else as normal", HM_SEPARATES_NOTHING, false},
     normal,
     NULL},
    {{"uniform", "uniform in [0,1)", HM_SEPARATES_NOTHING, true}, uniform, NULL},
    {{"crowd_tenth", "1 + 0.1 N(0,1): few values share most bins of a histogram", HM_SEPARATES_NOTHING, true},
     crowd_tenth,
     NULL},
    {{"crowd_thousandth", "1 + 0.001 N(0,1): almost all in one bin", HM_SEPARATES_NOTHING, true},
     crowd_thousandth,
     NULL},
    {{"ten_values", "ten distinct values", HM_SEPARATES_NOTHING, true}, ten_values, NULL},
    {{"equal", "all values equal", HM_SEPARATES_NOTHING, true}, equal, NULL},
    {{"relu", "nine values in ten are 0", HM_SEPARATES_NOTHING, true}, relu, NULL},
    {{"winners", "up to 100 distinct winners, then up to 8220 ties, then the rest", HM_SEPARATES_NOTHING, true},
     winners,
     NULL},
    {{"integers", "integers from -8 to 8", HM_SEPARATES_NOTHING, true}, integers, NULL},
};
const int hm_generators_count = (int)(sizeof hm_generators / sizeof *hm_generators);
