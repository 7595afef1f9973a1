#include "norm.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "../op/isa.h"
#include "root.h"

#define TIER1_ERROR 0x1p-47 /* see norm.h */
/* What is below this, and off by less than 2^-21, does not overflow f32. */
#define F32_LIMIT (0x1p128 * (1 - 0x1p-20))
#define F32_MIN_NORMAL 0x1p-126

/* A class, ready to use for one number of elements. */
typedef struct {
    hm_arithmetic arithmetic;
    double a_lo, a_hi;       /* growth of the sum of squares */
    double one_lo, one_hi;   /* 1 -+ u, for adding eps */
    double h;                /* flush term of the mean; 0 if nothing flushes */
    double k_lo[5], k_hi[5]; /* (1 -+ f)(1 -+ u)(1 -+ u)^j: the root and j more operations */
} class_bounds;

/* One row as the enclosure sees it. */
typedef struct {
    const hm_norm *norm;
    class_bounds c;
    double *z;           /* [hidden] values that are normalised; off by 2^-53 if they are an unrounded sum */
    double *x, *r;       /* [hidden] what they are the sum of; NULL for plain rms_norm */
    double sum;          /* S, off by less than 43 * 2^-53 */
    double rs;           /* approximation of the exact reciprocal root; 0 or inf or NaN as IEEE has it */
    double rs_lo, rs_hi; /* sqrt(V / D) of either end, by binary64; rs_hi is inf if m may be 0 */
    bool special;        /* NaN or infinity among the first V, or m == 0 */
    bool range_free;     /* f32 may overflow or divide by 0 in this row */
    bool pair;           /* z = x + r unrounded */
    bool has_root;       /* root.v and root.d of `exact` are set: S as an exact number */
    mpfr_t exact_sum;
} row_state;

static class_bounds bounds_of(hm_class c, const hm_norm *norm, bool pair) {
    class_bounds b = {.arithmetic = hm_class_arithmetic(c)};
    double u = b.arithmetic.u, f = b.arithmetic.f;
    int64_t count = hm_class_chain(c, norm->variance_size) + 2 + (norm->variance_size > 1 << 24) + (pair ? 2 : 0);
    b.a_lo = nextafter(hm_growth(u, -1, count) * hm_growth(f, -1, 1), 0);
    b.a_hi = nextafter(hm_growth(u, +1, count) * hm_growth(f, +1, 1), INFINITY);
    b.one_lo = hm_growth(u, -1, 1), b.one_hi = hm_growth(u, +1, 1);
    b.h = b.arithmetic.f32 ? b.a_hi * 0x1p-122 : 0;
    for (int j = 0; j < 5; j++) {
        b.k_lo[j] = nextafter(hm_growth(u, -1, 1 + j) * hm_growth(f, -1, 1), 0);
        b.k_hi[j] = nextafter(hm_growth(u, +1, 1 + j) * hm_growth(f, +1, 1), INFINITY);
    }
    return b;
}

/* Sum of squares: blocks of 512 in 16 lanes (32 additions), lanes pairwise (4), blocks with their rounding errors
 * carried along. */
HM_INLINE void block_squares_body(const double *z, int64_t n, double *lanes) {
    for (int j = 0; j < 16; j++) lanes[j] = 0;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) lanes[j] += z[i + j] * z[i + j];
    for (int j = 0; i + j < n; j++) lanes[j] += z[i + j] * z[i + j];
}
HM_DISPATCH(block_squares, (const double *z, int64_t n, double *lanes), block_squares_body, (z, n, lanes))

static double sum_of_squares(const double *z, int64_t n) {
    double sum = 0, carried = 0, lanes[16];
    for (int64_t i = 0; i < n; i += 512) {
        block_squares(z + i, n - i < 512 ? n - i : 512, lanes);
        for (int half = 8; half; half /= 2)
            for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
        double next = sum + lanes[0], part = next - sum; /* the error of sum + lanes[0], exactly (Knuth) */
        carried += (sum - (next - part)) + (lanes[0] - part);
        sum = next;
    }
    return isfinite(sum) ? sum + carried : sum;
}

static const void *row_address(const hm_tensor *t, int64_t row) {
    return (const char *)t->data + hm_row_offset(t, row) * (int64_t)hm_dtype_size(t->dtype);
}

/* Loads a row. exact_sums: z is the sum without rounding, whatever the contract reads (for distances to the exact
 * value). */
static hm_status row_open(row_state *s, const hm_norm *norm, int64_t row, hm_class c, bool exact_sums) {
    int64_t n = norm->hidden;
    *s = (row_state){.norm = norm};
    bool sum = norm->residual.dtype != HM_DTYPE_NONE;
    s->pair = sum && (exact_sums || !norm->read_rounded);
    s->c = bounds_of(c, norm, s->pair);
    s->z = malloc((size_t)(n + !n) * (sum ? 3 : 1) * sizeof *s->z);
    if (!s->z) return hm_fail(HM_NO_MEMORY, "golden: no memory for a row of %lld elements", (long long)n);
    hm_load_row(norm->T, row_address(&norm->x, row), norm->x.stride[norm->x.ndim - 1], n, s->z);
    if (sum) {
        s->x = s->z + n, s->r = s->x + n;
        hm_load_row(norm->residual.dtype, row_address(&norm->residual, row),
                    norm->residual.stride[norm->residual.ndim - 1], n, s->r);
        for (int64_t i = 0; i < n; i++) s->x[i] = s->z[i], s->z[i] += s->r[i];
        /* binary64 holds more than twice the bits of R, so this is RN_R of the exact sum */
        if (!s->pair) hm_round_row(norm->R, n, s->z);
    }
    int64_t V = norm->variance_size;
    s->sum = sum_of_squares(s->z, V);
    double m = s->sum / (double)V + norm->eps;
    s->rs = 1 / sqrt(m);
    s->special = !isfinite(s->sum) || m == 0;
    double m_low = (s->sum / (double)V * s->c.a_lo + norm->eps) * s->c.one_lo, m_lo = m_low - s->c.h;
    double m_hi = (s->sum / (double)V * s->c.a_hi + norm->eps) * s->c.one_hi + s->c.h;
    s->rs_lo = 1 / sqrt(m_hi);
    /* m is a quarter of what a flush may take from it, or less: then call the lower end 0, which also keeps the
     * subtraction exact enough */
    bool vanishes = m_low < 4 * s->c.h;
    s->rs_hi = vanishes ? INFINITY : 1 / sqrt(m_lo);
    if (s->c.arithmetic.f32 && !s->special) {
        /* all partial sums are below S a_hi; 4 h >= 2^-120 is far above what f32 holds as a normal number */
        s->range_free = s->sum * s->c.a_hi >= F32_LIMIT || m_hi >= F32_LIMIT || vanishes;
        for (int64_t i = 0; s->pair && i < V; i++) s->range_free |= fabs(s->z[i]) >= F32_LIMIT;
    }
    return HM_OK;
}

static void row_close(row_state *s) {
    if (s->has_root) mpfr_clear(s->exact_sum);
    free(s->z);
}

static void set_z(const row_state *s, int64_t i, mpfr_t to) {
    if (s->pair) {
        mpfr_set_d(to, s->x[i], MPFR_RNDN);
        if (mpfr_add_d(to, to, s->r[i], MPFR_RNDN)) __builtin_trap(); /* exact: see HM_ROOT_BITS */
    } else {
        mpfr_set_d(to, s->z[i], MPFR_RNDN);
    }
}

/* The number |z_i| |w'_i| k sqrt(V / D) + offset with D = ((S a + eps V) one) + V h, exactly. with_factor: w' takes
 * part. */
typedef struct {
    double a, one, h, k, offset;
} end_constants;
static const end_constants exact_value = {1, 1, 0, 1, 0};

static void end_root(row_state *s, int64_t i, bool with_factor, const end_constants *e, hm_root *root) {
    const hm_norm *norm = s->norm;
    mpfr_t t;
    mpfr_init2(t, HM_SUM_BITS);
    int inexact = 0;
    if (!s->has_root) {
        mpfr_t z, square; /* as narrow as holds them exactly: most of the time goes here */
        mpfr_init2(z, s->pair ? 300 : 53), mpfr_init2(square, s->pair ? 600 : 106);
        mpfr_init2(s->exact_sum, HM_SUM_BITS);
        mpfr_set_zero(s->exact_sum, 1);
        for (int64_t j = 0; j < norm->variance_size; j++) {
            set_z(s, j, z);
            inexact |= mpfr_sqr(square, z, MPFR_RNDN);
            inexact |= mpfr_add(s->exact_sum, s->exact_sum, square, MPFR_RNDN);
        }
        mpfr_clears(z, square, (mpfr_ptr)0);
        s->has_root = true;
    }
    set_z(s, i, root->q);
    if (with_factor && norm->factor) {
        mpfr_set_d(t, norm->weight_value[i], MPFR_RNDN);
        if (norm->one_plus) inexact |= mpfr_add_ui(t, t, 1, MPFR_RNDN);
        inexact |= mpfr_mul(root->q, root->q, t, MPFR_RNDN);
    }
    inexact |= mpfr_mul_d(root->q, root->q, e->k, MPFR_RNDN);
    mpfr_abs(root->q, root->q, MPFR_RNDN);
    mpfr_set_si(root->v, norm->variance_size, MPFR_RNDN);
    inexact |= mpfr_mul_d(root->d, s->exact_sum, e->a, MPFR_RNDN);
    inexact |= mpfr_mul_d(t, root->v, norm->eps, MPFR_RNDN);
    inexact |= mpfr_add(root->d, root->d, t, MPFR_RNDN);
    inexact |= mpfr_mul_d(root->d, root->d, e->one, MPFR_RNDN);
    inexact |= mpfr_mul_d(t, root->v, e->h, MPFR_RNDN);
    inexact |= mpfr_add(root->d, root->d, t, MPFR_RNDN);
    root->offset = e->offset;
    mpfr_clear(t);
    if (inexact) __builtin_trap(); /* HM_ROOT_BITS is too small */
    hm_root_ready(root);
}

/* RN_T of that number: by binary64 where its error does not matter, else exactly. near: the binary64 value of the first
 * summand. */
static double end_round(row_state *s, int64_t i, bool with_factor, const end_constants *e, double near, hm_tier tier,
                        int64_t *mpfr) {
    hm_dtype T = s->norm->T;
    if (tier == HM_TIER_TWO) {
        double slack = (near + fabs(e->offset)) * TIER1_ERROR, low = hm_round_to(T, near - slack + e->offset),
               high = hm_round_to(T, near + slack + e->offset);
        if (low == high) return low;
    }
    hm_root root;
    hm_root_init(&root);
    end_root(s, i, with_factor, e, &root);
    double r = hm_root_round(&root, T);
    hm_root_clear(&root);
    ++*mpfr;
    return r;
}

/* What one element may be, for magnitudes; the caller puts the sign back. */
typedef struct {
    double lo, hi;
    int flags;
} enclosure;

static bool subnormal_f32(double v) { return v != 0 && fabs(v) < F32_MIN_NORMAL; }

/* The flush term e of norm.h; with_factor: w' takes part. */
static double flush_term(const row_state *s, double z, double w) {
    double most = fmax(fmax(1, s->rs), fmax(fabs(z), fabs(w)));
    return 0x1p-122 * most;
}

/* z_i taken for anything down to 0? In a sum, a subnormal operand moves z by at most 2^-122 (its ulp and itself). */
static bool sum_flushes(const row_state *s, int64_t i) {
    if (!s->x) return false;
    return (s->norm->T != HM_F16 && subnormal_f32(s->x[i])) ||
           (s->norm->residual.dtype != HM_F16 && subnormal_f32(s->r[i]));
}

/* [RN_T(lo), RN_T(hi)] of |z w'| rs with j operations beyond the root; w is |w'| or 1. */
static enclosure enclose(row_state *s, int64_t i, bool with_factor, double z, double w, int j, hm_tier tier,
                         int64_t *mpfr) {
    const class_bounds *c = &s->c;
    double q = fabs(z) * w, e = 0;
    if (c->arithmetic.f32) {
        e = flush_term(s, z, w);
        if (sum_flushes(s, i)) e += 0x1p-121 * s->rs * w;
    }
    end_constants lo = {c->a_hi, c->one_hi, c->h, c->k_lo[j], -e}, hi = {c->a_lo, c->one_lo, -c->h, c->k_hi[j], e};
    enclosure r = {.flags = s->range_free ? HM_GOLD_RANGE_FREE : 0};
    r.lo = end_round(s, i, with_factor, &lo, q * s->rs_lo * c->k_lo[j], tier, mpfr);
    if (isfinite(s->rs_hi)) r.hi = end_round(s, i, with_factor, &hi, q * s->rs_hi * c->k_hi[j], tier, mpfr);
    else r.hi = INFINITY;
    if (c->arithmetic.f32 && (subnormal_f32(z) || (with_factor && subnormal_f32(w)))) r.lo = fmin(r.lo, 0);
    return r;
}

/* RN_T of a*w(1 + s*u) + offset for doubles a, w whose product binary64 holds exactly. */
static double product_round(hm_dtype T, double product, double k, double offset, hm_tier tier, int64_t *mpfr) {
    if (tier == HM_TIER_TWO) {
        double near = product * k, slack = (fabs(near) + fabs(offset)) * 0x1p-51;
        double low = hm_round_to(T, near - slack + offset), high = hm_round_to(T, near + slack + offset);
        if (low == high) return low;
    }
    mpfr_t t;
    mpfr_init2(t, HM_SUM_BITS);
    mpfr_set_d(t, product, MPFR_RNDN);
    if (mpfr_mul_d(t, t, k, MPFR_RNDN) | mpfr_add_d(t, t, offset, MPFR_RNDN)) __builtin_trap();
    double r = hm_round_exact(t, T);
    mpfr_clear(t);
    ++*mpfr;
    return r;
}

/* a * w for one value a of T: the interval of RN_T of it. a >= 0 may be inf (f16). */
static enclosure times_weight(const row_state *s, double a, double w, hm_tier tier, int64_t *mpfr) {
    const class_bounds *c = &s->c;
    hm_dtype T = s->norm->T;
    if (!isfinite(a)) return (enclosure){a * w, a * w, 0};
    double product = a * w;
    bool flushes = subnormal_f32(a) || subnormal_f32(w);
    bool exact =
        !c->arithmetic.f32 || (!flushes && fabs(product) >= F32_MIN_NORMAL && (double)(float)product == product);
    if (product == 0 || exact) {
        double r = hm_round_to(T, product);
        return (enclosure){r, r, 0};
    }
    enclosure r = {.flags = fabs(product) >= F32_LIMIT ? HM_GOLD_RANGE_FREE : 0};
    r.lo = product_round(T, product, product > 0 ? c->one_lo : c->one_hi, -0x1p-125, tier, mpfr);
    r.hi = product_round(T, product, product > 0 ? c->one_hi : c->one_lo, 0x1p-125, tier, mpfr);
    if (flushes) r.lo = fmin(r.lo, 0), r.hi = fmax(r.hi, 0);
    return r;
}

/* Puts the result for sign * magnitude into the row. */
static void put(hm_golden_row *out, int64_t i, bool negative, enclosure r) {
    out->lo[i] = negative ? -r.hi : r.lo;
    out->hi[i] = negative ? -r.lo : r.hi;
    out->flags[i] = (unsigned char)r.flags;
}

static hm_status out_of_memory(void) { return hm_fail(HM_NO_MEMORY, "golden: no memory for admissible sets"); }

/* NORM_FIRST with a weight. w is |w|; a set of at most HM_MAX_PARTS values of T is carried through the product, else
 * its hull. */
static hm_status norm_first(row_state *s, int64_t i, double z, double w, bool negative, hm_tier tier,
                            hm_golden_row *out) {
    hm_dtype T = s->norm->T;
    enclosure inner = enclose(s, i, false, z, 1, s->pair ? 2 : 1, tier, &out->mpfr);
    double member[HM_MAX_PARTS];
    int n = 0;
    for (double a = inner.lo; n < HM_MAX_PARTS && a <= inner.hi; a = hm_next_up(T, a)) {
        member[n++] = a;
        if (a == inner.hi) break;
    }
    bool all = n > 0 && member[n - 1] == inner.hi;
    enclosure hull = {INFINITY, -INFINITY, inner.flags}, part[HM_MAX_PARTS];
    int parts = 0, nans = 0, ends = 0;
    if (!all) member[0] = inner.lo, member[1] = inner.hi, ends = 2;
    for (int k = 0; k < (all ? n : ends); k++) {
        enclosure p = times_weight(s, member[k], w, tier, &out->mpfr);
        hull.flags |= p.flags;
        if (isnan(p.lo) || isnan(p.hi)) {
            nans++; /* inf * 0: RN_T(z rs) overflowed f16, and the weight is 0 */
            continue;
        }
        hull.lo = fmin(hull.lo, p.lo), hull.hi = fmax(hull.hi, p.hi);
        if (parts && p.lo <= hm_next_up(T, part[parts - 1].hi)) part[parts - 1].hi = fmax(part[parts - 1].hi, p.hi);
        else part[parts++] = p;
    }
    if (nans == (all ? n : ends)) hull = (enclosure){NAN, NAN, HM_GOLD_NAN}, parts = 0;
    else if (nans) hull.flags |= HM_GOLD_RANGE_FREE;
    put(out, i, negative, hull);
    if (!all || parts < 2) return HM_OK;
    out->flags[i] |= HM_GOLD_GAPS;
    hm_golden_parts set = {.index = i, .n = parts};
    for (int k = 0; k < parts; k++) {
        const enclosure *p = &part[negative ? parts - 1 - k : k];
        set.lo[k] = negative ? -p->hi : p->lo, set.hi[k] = negative ? -p->lo : p->hi;
    }
    return hm_golden_add_parts(out, &set) ? HM_OK : out_of_memory();
}

/* NaN, infinity or a root of 0 somewhere in the element's formula: IEEE arithmetic on extended reals. In the f32
 * classes an intermediate that may underflow or overflow beside an infinity or a 0 can turn the result into NaN:
 * range-free. */
static void special_element(row_state *s, int64_t i, double z, double w, hm_golden_row *out) {
    const hm_norm *norm = s->norm;
    double inner = z * s->rs, y;
    bool f32 = s->c.arithmetic.f32, free = false;
    if (norm->norm_first && norm->factor)
        inner = hm_round_to(norm->T, inner); /* only 0, inf and NaN matter, and the ends of range: */
    y = norm->factor ? inner * w : inner;
    if (!isnan(y)) {
        double rs = s->rs, az = fabs(z), aw = fabs(w);
        if (norm->norm_first && norm->factor && isinf(w) && isfinite(z) && rs > 0) {
            double smallest = hm_ulp(norm->T, 0); /* RN_T(z rs) may be 0 or not within the error of the class */
            free |= az * rs < 2 * smallest;
        }
        if (f32) {
            free |= isinf(rs); /* m may as well come out above 0 */
            free |= s->range_free;
            if (rs > 0 && isfinite(rs)) free |= (isinf(w) && az * rs < 0x1p-120) || (isinf(z) && aw * rs < 0x1p-120);
            free |= !norm->norm_first && isfinite(z) && isfinite(w) && az * aw >= F32_LIMIT; /* (z w) rs with rs = 0 */
        }
    } else if (norm->norm_first && norm->factor && isinf(w) && isfinite(z) && z != 0 && s->rs > 0 && isfinite(s->rs)) {
        free |= fabs(z) * s->rs > hm_ulp(norm->T, 0) / 4; /* rounded to 0 here, and maybe not there */
    }
    y = hm_round_to(norm->T, y);
    out->lo[i] = out->hi[i] = y;
    out->flags[i] = (unsigned char)(free ? HM_GOLD_RANGE_FREE : isnan(y) ? HM_GOLD_NAN : 0);
    if (free && isnan(y)) out->lo[i] = out->hi[i] = 0;
}

static hm_status element(row_state *s, int64_t i, hm_tier tier, hm_golden_row *out) {
    const hm_norm *norm = s->norm;
    double z = s->z[i], w = norm->factor ? norm->factor[i] : 1;
    if (s->special || !isfinite(z) || !isfinite(w)) {
        special_element(s, i, z, w, out);
        return HM_OK;
    }
    bool f32 = s->c.arithmetic.f32, first = norm->norm_first && norm->factor, negative = (z < 0) != (w < 0);
    double az = fabs(z), aw = fabs(w);
    bool free =
        f32 && (s->range_free || az * s->rs_hi >= F32_LIMIT || (s->pair && az >= F32_LIMIT) ||
                (norm->factor && !first && (az * aw >= F32_LIMIT || aw * s->rs_hi >= F32_LIMIT || aw >= F32_LIMIT)));
    hm_status status = HM_OK;
    bool overflows =
        first && az * s->rs_hi >= hm_dtype_max(norm->T) / 2; /* RN_T(z rs) may be inf, and inf * 0 is NaN */
    bool zero = (w == 0 && !overflows) || (z == 0 && !(f32 && sum_flushes(s, i)));
    if (zero) {
        out->lo[i] = out->hi[i] = 0, out->flags[i] = 0;
    } else if (first) {
        status = norm_first(s, i, z, aw, negative, tier, out);
    } else {
        int j = (norm->factor ? 2 : 1) + (s->pair ? 1 : 0) + (norm->factor && norm->inexact[i] != 0);
        put(out, i, negative, enclose(s, i, true, z, aw, j, tier, &out->mpfr));
    }
    if (free && !(out->flags[i] & HM_GOLD_NAN)) out->flags[i] |= HM_GOLD_RANGE_FREE;
    return status;
}

/* RN_T of the formula with its declared roundings, in exact arithmetic. */
static double ideal_element(row_state *s, int64_t i, hm_tier tier, int64_t *mpfr) {
    const hm_norm *norm = s->norm;
    double z = s->z[i], w = norm->factor ? norm->factor[i] : 1;
    bool first = norm->norm_first && norm->factor;
    if (s->special || !isfinite(z) || !isfinite(w)) {
        double inner = z * s->rs;
        return hm_round_to(norm->T, (first ? hm_round_to(norm->T, inner) : inner) * w);
    }
    double near = fabs(z) * (first ? 1 : fabs(w)) * s->rs;
    double r = z == 0 || (w == 0 && !first) ? 0 : end_round(s, i, !first, &exact_value, near, tier, mpfr);
    if (first) r = hm_round_to(norm->T, r * fabs(w));
    return (z < 0) != (w < 0) ? -r : r;
}

/* Tier 1 for a whole row of the form without inner rounding: the two outer ends, rounded, into lo and hi. Where they
 * are the same number the element is done; zeros, subnormals and specials come out different or NaN on purpose. */
HM_INLINE void fast_loop(const double *restrict z, const double *restrict w, const double *restrict inexact, int64_t n,
                         const double *m, double rs, double flush, double *restrict lo, double *restrict hi,
                         bool weighted, bool one_plus) {
    double least = rs > 1 ? rs : 1, m0 = m[0], m1 = m[1], m2 = m[2], m3 = m[3];
    bool small = rs < 0x1p60;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) { /* no branch, so that it runs on vectors */
        double az = fabs(z[i]), wi = weighted ? w[i] : 1, aw = fabs(wi), q = az * aw;
        double most = az > aw ? az : aw;
        most = most > least ? most : least;
        double e = flush * most, odd = one_plus ? inexact[i] : 0;
        double a = q * (odd != 0 ? m2 : m0) - e, b = q * (odd != 0 ? m3 : m1) + e;
        bool plain = (az >= F32_MIN_NORMAL) & (aw >= F32_MIN_NORMAL) & (most < 0x1p60) & small;
        a = plain ? a : NAN;
        bool negative = (z[i] < 0) != (wi < 0);
        lo[i] = negative ? -a : a;
        hi[i] = negative ? -b : b;
    }
}
HM_INLINE void fast_body(const double *z, const double *w, const double *inexact, int64_t n, const double *m, double rs,
                         double flush, double *lo, double *hi) {
    if (w && inexact) fast_loop(z, w, inexact, n, m, rs, flush, lo, hi, true, true);
    else if (w) fast_loop(z, w, NULL, n, m, rs, flush, lo, hi, true, false);
    else fast_loop(z, NULL, NULL, n, m, rs, flush, lo, hi, false, false);
}
HM_DISPATCH(fast,
            (const double *z, const double *w, const double *inexact, int64_t n, const double *m, double rs,
             double flush, double *lo, double *hi),
            fast_body, (z, w, inexact, n, m, rs, flush, lo, hi))

hm_status hm_norm_row(const hm_norm *norm, int64_t row, hm_class c, hm_tier tier, hm_golden_row *out) {
    row_state s;
    hm_status status = row_open(&s, norm, row, c, false);
    int64_t n = norm->hidden;
    if (status) return status;
    bool first = norm->norm_first && norm->factor;
    bool fast_path = tier == HM_TIER_TWO && !first && !s.special && !s.range_free;
    if (fast_path) {
        int j = (norm->factor ? 2 : 1) + (s.pair ? 1 : 0);
        double m[4] = {s.rs_lo * s.c.k_lo[j] * (1 - TIER1_ERROR), s.rs_hi * s.c.k_hi[j] * (1 + TIER1_ERROR),
                       s.rs_lo * s.c.k_lo[j + 1] * (1 - TIER1_ERROR), s.rs_hi * s.c.k_hi[j + 1] * (1 + TIER1_ERROR)};
        fast(s.z, norm->factor, norm->one_plus ? norm->inexact : NULL, n, m, s.rs,
             s.c.arithmetic.f32 ? 0x1p-122 * (1 + 0x1p-40) : 0, out->lo, out->hi);
        hm_round_row(norm->T, n, out->lo);
        hm_round_row(norm->T, n, out->hi);
    }
    for (int64_t i = 0; i < n && !status; i++) {
        if (fast_path && out->lo[i] == out->hi[i] && !(s.x && sum_flushes(&s, i))) out->flags[i] = 0;
        else status = element(&s, i, tier, out);
    }
    for (int64_t i = 0; out->ideal && i < n; i++) out->ideal[i] = ideal_element(&s, i, tier, &out->mpfr);
    if (out->exact && !status) {
        if (s.x && !s.pair) { /* the exact value has no rounding of the sum either */
            row_close(&s);
            status = row_open(&s, norm, row, c, true);
        }
        for (int64_t i = 0; !status && i < n; i++) out->exact[i] = s.z[i] * s.rs * (norm->factor ? norm->factor[i] : 1);
    }
    row_close(&s);
    return status;
}

/* Distances are asked for one element at a time, and the exact sum of a row costs as much as all of them: the last rows
 * are kept. */
enum { MEMO_ROWS = 16 };
struct hm_norm_memo {
    pthread_mutex_t lock;
    bool open;
    int64_t row;
    row_state s;
};

static double distance(row_state *s, int64_t i, double got) {
    const hm_norm *norm = s->norm;
    double z = s->z[i], w = norm->factor ? norm->factor[i] : 1, d = INFINITY;
    if (!s->special && isfinite(z) && isfinite(w)) {
        hm_root root;
        hm_root_init(&root);
        end_root(s, i, true, &exact_value, &root);
        d = hm_root_distance(&root, norm->T, (z < 0) != (w < 0) ? -got : got);
        hm_root_clear(&root);
    } else {
        double y = z * s->rs * w;
        if (y == 0 && isfinite(got)) d = hm_round_up4(fabs(got) / hm_ulp(norm->T, 0));
    }
    return d;
}

double hm_norm_distance(const hm_norm *norm, int64_t row, int64_t i, double got) {
    struct hm_norm_memo *m = &norm->memo[row % MEMO_ROWS];
    pthread_mutex_lock(&m->lock);
    if (m->open && m->row != row) {
        row_close(&m->s);
        m->open = false;
    }
    if (!m->open) m->open = row_open(&m->s, norm, row, HM_WIDE, true) == HM_OK;
    m->row = row;
    double d = m->open ? distance(&m->s, i, got) : INFINITY;
    pthread_mutex_unlock(&m->lock);
    return d;
}

hm_status hm_norm_open(hm_norm *norm, int64_t hidden) {
    norm->hidden = hidden;
    norm->memo = calloc(MEMO_ROWS, sizeof *norm->memo);
    if (!norm->memo) return hm_fail(HM_NO_MEMORY, "golden: no memory for %d rows", MEMO_ROWS);
    for (int k = 0; k < MEMO_ROWS; k++) pthread_mutex_init(&norm->memo[k].lock, NULL);
    if (norm->weight.dtype == HM_DTYPE_NONE) return HM_OK;
    size_t n = (size_t)(hidden + !hidden);
    norm->factor = malloc(3 * n * sizeof *norm->factor);
    if (!norm->factor) {
        hm_norm_close(norm);
        return hm_fail(HM_NO_MEMORY, "golden: no memory for %lld weights", (long long)hidden);
    }
    norm->weight_value = norm->factor + n, norm->inexact = norm->weight_value + n;
    hm_load_row(norm->weight.dtype, norm->weight.data, norm->weight.stride[0], hidden, norm->weight_value);
    for (int64_t i = 0; i < hidden; i++) {
        double w = norm->weight_value[i], f = norm->one_plus ? 1 + w : w;
        norm->factor[i] = f;
        /* 1 + w is an f32 value, so that no arithmetic rounds it, if binary64 forms it exactly and f32 holds it */
        norm->inexact[i] = norm->one_plus && !(f - 1 == w && (double)(float)f == f);
    }
    return HM_OK;
}

void hm_norm_close(hm_norm *norm) {
    for (int k = 0; k < MEMO_ROWS; k++) {
        if (norm->memo[k].open) row_close(&norm->memo[k].s);
        pthread_mutex_destroy(&norm->memo[k].lock);
    }
    free(norm->memo);
    free(norm->factor);
}
