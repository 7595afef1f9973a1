/* rotary_embedding: the admissible set, which is finite, and decided in exact arithmetic alone.
 *
 * Every result is e = a b + p q:  x' = x c + (-y) s,  y' = y c + x s. The operands are values of f32, f16 or bf16 with
 * at most 24 bits, so that u = a b and v = p q are doubles (48 bits, exponents from -298 to 256). Let RN_F be rounding
 * to F, fl = RN_f32.
 *
 * round = once. One rounding to T is declared; before it
 *   wide:        binary64 rounds the sum, or nothing is rounded:            RN_T of {e, RN_64(e)}. Contraction changes
 * nothing. f32 classes: also fl(fl(u) + fl(v)); contracted either way fl(u + fl(v)) = fma(a, b, fl(v)) and fl(fl(u) +
 * v); and with both products kept (a dot product of two, or wider registers that are narrowed) fl(u + v).  RN_T of
 * these six numbers. So cancellation costs nothing: what fl(u) lost is in the set, and no bound has to cover it. With a
 * 16-bit T and C = T both products are f32 values (16 or 22 bits) and the four f32 forms are one. There is no further
 * chain: the other classes are chain64. round = each. c and s are rounded to T, then each product, then the sum. Each
 * rounding is declared, so contraction would drop one. It is a point: T = f32: u is a double, RN_T(u) one rounding in
 * every arithmetic; the sum of two f32 values in binary64 and then f32 is rounded once, since 53 >= 2*24 + 2. 16-bit T:
 * the product of two values of T is an f32 value, so f32 adds no rounding; the sum of two values of T by way of f32 is
 * rounded once, since 24 >= 2*11 + 2. Flush (f32 classes). An operand below 2^-126 may be taken for anything down to 0,
 * and a product, sum or result below 2^-126 may be lost; a product of two bf16 values may also be rounded in f32's
 * subnormal range first. Where any of that can happen the set is the hull over all choices: the formula is linear in
 * each operand, so that the ends of each choice suffice. Range (f32 classes). If fl(u) or fl(v) overflows, the element
 * is range-free. A sum that overflows is in the set as it is. With `each` an overflow to inf is declared, and inf - inf
 * is NaN for everyone. Specials. A NaN or an infinity in the formula: IEEE arithmetic; range-free in f32 classes where
 * a flush or an overflow decides.
 *
 * RN_F(u + v) in binary64: TwoSum gives h + l = u + v exactly (no underflow: all are multiples of 2^-298). h with its
 * last bit set where l != 0 points away from an odd neighbour is u + v rounded to odd; rounding that to F, which has at
 * least two bits less, is rounding u + v itself (Boldo and Melquiond). The other tier adds in MPFR with all bits. */
#include "../op/rotary_embedding.h"

#include <math.h>
#include <mpfr.h>
#include <stdlib.h>
#include <string.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "../op/isa.h"
#include "op.h"
#include "root.h"

#define LEAST 0x1p-126 /* smallest normal f32 */
enum { FORMS = 6 };    /* e, RN_64(e), and the four of f32 */
enum { SUM_BITS = 700 };

/* ---- u + v, rounded once ---- */

/* u + v to odd; h is u + v rounded to nearest. */
HM_INLINE double to_odd(double u, double v, double h) {
    double v1 = h - u, l = (u - (h - v1)) + (v - v1);
    int64_t bits;
    memcpy(&bits, &h, sizeof bits);
    bool up = (l > 0) == (h > 0); /* in magnitude */
    bits += ((l != 0) & !(bits & 1)) ? (up ? 1 : -1) : 0;
    double odd;
    memcpy(&odd, &bits, sizeof odd);
    return h == 0 ? 0 : odd; /* a sum that is 0 is exact */
}

/* RN_F(u + v); F is HM_DTYPE_NONE for binary64. u, v finite. */
static double sum(hm_tier tier, double u, double v, hm_dtype F) {
    if (tier == HM_TIER_TWO) return F == HM_DTYPE_NONE ? u + v : hm_round_to(F, to_odd(u, v, u + v));
    mpfr_t a;
    mpfr_init2(a, SUM_BITS);
    if (mpfr_set_d(a, u, MPFR_RNDN) | mpfr_add_d(a, a, v, MPFR_RNDN)) __builtin_trap(); /* exact */
    double r = F == HM_DTYPE_NONE ? mpfr_get_d(a, MPFR_RNDN) : hm_round_exact(a, F);
    mpfr_clear(a);
    return r;
}

static double product(hm_tier tier, double a, double b) {
    if (tier == HM_TIER_TWO) return a * b;
    mpfr_t m;
    mpfr_init2(m, 53);
    if (mpfr_set_d(m, a, MPFR_RNDN) | mpfr_mul_d(m, m, b, MPFR_RNDN)) __builtin_trap();
    double r = mpfr_get_d(m, MPFR_RNDN);
    mpfr_clear(m);
    return r;
}

static double rounded(hm_tier tier, double v, hm_dtype F) { return sum(tier, v, 0, F); }

/* ---- one element ---- */

typedef struct {
    const hm_rotary_embedding_args *args;
    hm_dtype T;
    bool each, f32; /* f32: a class of f32 arithmetic */
    hm_tier tier;
} rule;

typedef struct {
    double a, b, p, q; /* e = a b + p q */
    double bt, qt;     /* RN_T of b and q, for `each` */
} operands;

static bool small(double v) { return v != 0 && fabs(v) < LEAST; }
static bool below(double v) { return v != 0 && fabs(v) < 2 * LEAST; } /* may round, or be rounded, to less than LEAST */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The n values of T as the admissible set of element i. */
static hm_status put_set(hm_golden_row *out, int64_t i, hm_dtype T, double *value, int n, int flags) {
    hm_golden_parts set = {.index = i};
    for (int k = 0; k < n; k++) value[k] += 0.0; /* no -0 */
    qsort(value, (size_t)n, sizeof *value, by_value);
    for (int k = 0; k < n; k++) {
        if (set.n && value[k] <= hm_next_up(T, set.hi[set.n - 1])) set.hi[set.n - 1] = value[k];
        else set.lo[set.n] = set.hi[set.n] = value[k], set.n++;
    }
    out->lo[i] = value[0], out->hi[i] = value[n - 1];
    out->flags[i] = (unsigned char)(flags | (set.n > 1 ? HM_GOLD_GAPS : 0));
    if (set.n < 2 || hm_golden_add_parts(out, &set)) return HM_OK;
    return hm_fail(HM_NO_MEMORY, "golden: no memory for admissible sets");
}

/* Ends of what v may become: itself, and 0 if it is small enough to be lost. */
static int ends(double v, bool f32, double to[2]) {
    to[0] = v, to[1] = 0;
    return f32 && small(v) ? 2 : 1;
}

/* What may become of a product: itself or rounded to f32 (once), RN_T of these (each); 0. */
static int product_ends(const rule *r, double a, double b, double to[4]) {
    double u = product(r->tier, a, b), f = rounded(r->tier, u, HM_F32);
    int n = 0;
    to[n++] = r->each ? rounded(r->tier, u, r->T) : u;
    if (isfinite(f)) to[n++] = r->each ? rounded(r->tier, f, r->T) : f;
    if (below(u)) to[n++] = 0;
    return n;
}

/* The hull over every choice that flushing leaves. All operands, and with `each` the products, are finite. */
static void put_hull(const rule *r, const operands *o, hm_golden_row *out, int64_t i) {
    double a[2], b[2], p[2], q[2], u[4], v[4], lo = INFINITY, hi = -INFINITY;
    int na = ends(o->a, true, a), nb = ends(r->each ? o->bt : o->b, true, b), np = ends(o->p, true, p);
    int nq = ends(r->each ? o->qt : o->q, true, q);
    for (int k = 0; k < na * nb; k++) {
        int nu = product_ends(r, a[k % na], b[k / na], u);
        for (int m = 0; m < np * nq; m++) {
            int nv = product_ends(r, p[m % np], q[m / np], v);
            for (int w = 0; w < nu * nv; w++) {
                double x = u[w % nu], y = v[w / nu], f = sum(r->tier, x, y, HM_F32);
                double value[3] = {sum(r->tier, x, y, r->T), rounded(r->tier, isfinite(f) ? f : 0, r->T), 0};
                if (!isfinite(f)) value[1] = f;
                for (int e = 0; e < 2 + below(f); e++) lo = fmin(lo, value[e]), hi = fmax(hi, value[e]);
            }
        }
    }
    if (r->T != HM_F16 && (small(lo) || small(hi))) lo = fmin(lo, 0), hi = fmax(hi, 0);
    out->lo[i] = lo, out->hi[i] = hi, out->flags[i] = 0;
}

static bool is_small(const operands *o) { return small(o->a) || small(o->b) || small(o->p) || small(o->q); }

/* IEEE arithmetic with the declared roundings; binary64 keeps specials, overflow and signs as f32 and T do. */
static double ieee(const rule *r, const operands *o) {
    if (!r->each) return hm_round_to(r->T, o->a * o->b + o->p * o->q);
    return hm_round_to(r->T, hm_round_to(r->T, o->a * o->bt) + hm_round_to(r->T, o->p * o->qt));
}

static void put_special(const rule *r, const operands *o, double y, hm_golden_row *out, int64_t i) {
    double u = o->a * o->b, v = o->p * o->q;
    bool overflows = !r->each && ((isfinite(u) && isinf((float)u)) || (isfinite(v) && isinf((float)v)));
    bool nan = isnan(o->a) || isnan(o->b) || isnan(o->p) || isnan(o->q); /* NaN, whatever else happens */
    bool free = r->f32 && !nan && (is_small(o) || overflows);
    out->lo[i] = out->hi[i] = free && isnan(y) ? 0 : y;
    out->flags[i] = (unsigned char)(free ? HM_GOLD_RANGE_FREE : isnan(y) ? HM_GOLD_NAN : 0);
}

static hm_status put_each(const rule *r, const operands *o, hm_golden_row *out, int64_t i) {
    double u = rounded(r->tier, product(r->tier, o->a, o->bt), r->T),
           v = rounded(r->tier, product(r->tier, o->p, o->qt), r->T);
    if (!isfinite(u) || !isfinite(v)) return put_special(r, o, ieee(r, o), out, i), HM_OK;
    double y = sum(r->tier, u, v, r->T);
    bool flushes = r->f32 && (is_small(o) || small(o->bt) || small(o->qt) || below(o->a * o->bt) ||
                              below(o->p * o->qt) || below(u + v));
    if (flushes && isfinite(y)) put_hull(r, o, out, i);
    else out->lo[i] = out->hi[i] = y, out->flags[i] = 0;
    return HM_OK;
}

static hm_status put_once(const rule *r, const operands *o, hm_golden_row *out, int64_t i) {
    double u = product(r->tier, o->a, o->b), v = product(r->tier, o->p, o->q), form[FORMS], value[FORMS];
    int forms = 0, n = 0;
    value[n++] = sum(r->tier, u, v, r->T);
    form[forms++] = sum(r->tier, u, v, HM_DTYPE_NONE);
    bool flushes = false, overflows = false;
    if (r->f32) {
        double fu = rounded(r->tier, u, HM_F32), fv = rounded(r->tier, v, HM_F32);
        overflows = !isfinite(fu) || !isfinite(fv);
        form[forms++] = sum(r->tier, u, v, HM_F32);
        if (isfinite(fv)) form[forms++] = sum(r->tier, u, fv, HM_F32);
        if (isfinite(fu)) form[forms++] = sum(r->tier, fu, v, HM_F32);
        if (!overflows) form[forms++] = sum(r->tier, fu, fv, HM_F32);
        flushes = is_small(o) || below(u) || below(v);
        for (int k = 0; k < forms; k++) flushes |= below(form[k]);
    }
    if (flushes && !overflows) return put_hull(r, o, out, i), HM_OK;
    for (int k = 0; k < forms; k++) value[n++] = isfinite(form[k]) ? rounded(r->tier, form[k], r->T) : form[k];
    return put_set(out, i, r->T, value, n, overflows ? HM_GOLD_RANGE_FREE : 0);
}

static hm_status element(const rule *r, const operands *o, hm_golden_row *out, int64_t i) {
    bool finite = isfinite(o->a) && isfinite(o->b) && isfinite(o->p) && isfinite(o->q);
    if (out->ideal) {
        bool plain = finite && !r->each;
        out->ideal[i] =
            plain ? sum(r->tier, product(r->tier, o->a, o->b), product(r->tier, o->p, o->q), r->T) : ieee(r, o);
    }
    if (out->exact) out->exact[i] = o->a * o->b + o->p * o->q;
    if (!finite || (r->each && !(isfinite(o->bt) && isfinite(o->qt))))
        return put_special(r, o, ieee(r, o), out, i), HM_OK;
    return r->each ? put_each(r, o, out, i) : put_once(r, o, out, i);
}

/* ---- many elements: what is the same number in every form is done here ---- */

#define NORMAL(v) (((v) >= LEAST && (v) < 0x1p126) || (v) == 0)

/* The forms of `once` into form[k * n + i], not yet rounded to T; NaN in form 0 where the element is not plain:
 * something flushes, overflows or is no number. */
HM_INLINE void forms_body(int64_t n, const double *a, const double *b, const double *p, const double *q, double *form) {
    for (int64_t i = 0; i < n; i++) {
        double u = a[i] * b[i], v = p[i] * q[i], h = u + v, fu = (double)(float)u, fv = (double)(float)v;
        double odd = to_odd(u, v, h);
        double left = (double)(float)to_odd(u, fv, u + fv), right = (double)(float)to_odd(fu, v, fu + v);
        double both = (double)(float)odd, none = (double)(float)(fu + fv);
        double small = 2 * LEAST;
        bool plain = NORMAL(fabs(a[i])) & NORMAL(fabs(b[i])) & NORMAL(fabs(p[i])) & NORMAL(fabs(q[i])) &
                     (fabs(u) < 0x1p126) & (fabs(v) < 0x1p126);
        plain &= ((fabs(u) >= small) | (u == 0)) & ((fabs(v) >= small) | (v == 0)) & ((fabs(h) >= small) | (h == 0));
        plain &= ((fabs(left) >= small) | (left == 0)) & ((fabs(right) >= small) | (right == 0)) &
                 ((fabs(both) >= small) | (both == 0)) & ((fabs(none) >= small) | (none == 0));
        form[i] = plain ? odd : NAN;
        form[n + i] = h, form[2 * n + i] = both, form[3 * n + i] = left, form[4 * n + i] = right,
                 form[5 * n + i] = none;
    }
}
/* The products of `each` into u and v, not yet rounded; NaN where the element is not plain. */
HM_INLINE void products_body(int64_t n, const double *a, const double *b, const double *p, const double *q, double *u,
                             double *v) {
    for (int64_t i = 0; i < n; i++) {
        double x = a[i] * b[i], y = p[i] * q[i];
        bool plain = NORMAL(fabs(a[i])) & NORMAL(fabs(b[i])) & NORMAL(fabs(p[i])) & NORMAL(fabs(q[i]));
        plain &= ((fabs(x) >= 2 * LEAST) | (x == 0)) & ((fabs(y) >= 2 * LEAST) | (y == 0));
        u[i] = plain ? x : NAN, v[i] = y;
    }
}
HM_INLINE void sums_body(int64_t n, const double *u, const double *v, double *to) {
    for (int64_t i = 0; i < n; i++) {
        double y = u[i] + v[i];
        bool plain = (fabs(u[i]) < INFINITY) & (fabs(v[i]) < INFINITY) & ((fabs(y) >= 2 * LEAST) | (y == 0));
        to[i] = plain ? y : NAN;
    }
}
/* lo gets form 0 where all are the same, else NaN. */
HM_INLINE void agree_body(int64_t n, int forms, const double *form, double *lo) {
    for (int64_t i = 0; i < n; i++) lo[i] = form[i];
    for (int k = 1; k < forms; k++)
        for (int64_t i = 0; i < n; i++) lo[i] = form[k * n + i] == form[i] ? lo[i] : NAN;
}
HM_DISPATCH(forms, (int64_t n, const double *a, const double *b, const double *p, const double *q, double *form),
            forms_body, (n, a, b, p, q, form))
HM_DISPATCH(products,
            (int64_t n, const double *a, const double *b, const double *p, const double *q, double *u, double *v),
            products_body, (n, a, b, p, q, u, v))
HM_DISPATCH(sums, (int64_t n, const double *u, const double *v, double *to), sums_body, (n, u, v, to))
HM_DISPATCH(agree, (int64_t n, int forms, const double *form, double *lo), agree_body, (n, forms, form, lo))

/* The value of each plain element in every arithmetic of the rule, else NaN. form: [FORMS * n]. */
static void settle(const rule *r, int64_t n, const double *a, const double *b, const double *p, const double *q,
                   double *form, double *to) {
    if (r->each) {
        double *u = form, *v = form + n;
        products(n, a, b, p, q, u, v);
        hm_round_row(r->T, n, u);
        hm_round_row(r->T, n, v);
        sums(n, u, v, to);
        hm_round_row(r->T, n, to);
        return;
    }
    int used = r->f32 ? FORMS : 2;
    forms(n, a, b, p, q, form);
    for (int k = 0; k < used; k++) hm_round_row(r->T, n, form + k * n);
    agree(n, used, form, to);
}

/* ---- one head ---- */

typedef struct {
    hm_rotary_embedding_args args;
    int key_out; /* index of the argument */
} context_of;

static hm_status open_context(const void *args, int threads, void **context) {
    (void)threads;
    context_of *c = malloc(sizeof *c);
    if (!c) return hm_fail(HM_NO_MEMORY, "golden: no memory");
    hm_status s = hm_rotary_embedding_read(args, &c->args);
    if (s) free(c);
    else *context = c;
    return s;
}

static const hm_op_info *info(void) { return hm_op_named("rotary_embedding"); }
static bool is_key(int arg) { return strcmp(info()->args[arg].name, "key_out") == 0; }

/* The vectors of a head: x, -y, y, c, s (negated if inverse), RN_T(c), RN_T(s), results of x' and y'; [pairs] each. */
typedef struct {
    int64_t pairs, x_at, y_at, pair; /* element of the first x and y in a head, and from one pair to the next */
    double *x, *minus_y, *y, *c, *s, *ct, *st, *xo, *yo, *form, *block;
} head_vectors;

static bool head_open(const rule *r, const hm_tensor *t, int64_t row, head_vectors *h) {
    const hm_rotary_embedding_args *a = r->args;
    const hm_tensor *table = &a->cos_sin_cache;
    bool interleaved = a->pairing == HM_PAIR_INTERLEAVED;
    int64_t n = table->shape[1] / 2, size = (int64_t)hm_dtype_size(t->dtype), step = t->stride[t->ndim - 1];
    *h = (head_vectors){.pairs = n,
                        .x_at = a->rope_dim_offset,
                        .y_at = a->rope_dim_offset + (interleaved ? 1 : n),
                        .pair = interleaved ? 2 : 1};
    double **part[] = {&h->x, &h->minus_y, &h->y, &h->c, &h->s, &h->ct, &h->st, &h->xo, &h->yo, &h->form};
    size_t parts = sizeof part / sizeof *part;
    h->block = malloc((parts - 1 + FORMS) * (size_t)(n + 1) * sizeof *h->block);
    if (!h->block) return false;
    for (size_t k = 0; k < parts; k++) *part[k] = h->block + k * (size_t)n;
    if (n == 0) return true;
    const char *from = (const char *)t->data + hm_row_offset(t, row) * size;
    hm_load_row(t->dtype, from + h->x_at * step * size, h->pair * step, n, h->x);
    hm_load_row(t->dtype, from + h->y_at * step * size, h->pair * step, n, h->y);
    int64_t token = row / t->shape[t->ndim - 2], column = table->stride[1],
            table_size = (int64_t)hm_dtype_size(table->dtype);
    int64_t position = ((const int64_t *)a->positions.data)[hm_token_offset(&a->positions, a->positions.ndim, token)];
    const char *entry = (const char *)table->data + position * table->stride[0] * table_size;
    hm_load_row(table->dtype, entry, column, n, h->c);
    hm_load_row(table->dtype, entry + n * column * table_size, column, n, h->s);
    for (int64_t i = 0; i < n; i++) {
        if (a->inverse == HM_ROTATE_INVERSE) h->s[i] = -h->s[i];
        h->minus_y[i] = -h->y[i];
        h->ct[i] = h->c[i], h->st[i] = h->s[i];
    }
    hm_round_row(r->T, n, h->ct);
    hm_round_row(r->T, n, h->st);
    return true;
}

static hm_status put(const rule *r, const head_vectors *h, int64_t pair, bool is_y, double settled,
                     hm_golden_row *out) {
    int64_t i = (is_y ? h->y_at : h->x_at) + pair * h->pair;
    operands o = {is_y ? h->y[pair] : h->x[pair],
                  h->c[pair],
                  is_y ? h->x[pair] : h->minus_y[pair],
                  h->s[pair],
                  h->ct[pair],
                  h->st[pair]};
    hm_status s = HM_OK;
    if (settled != settled) {
        s = element(r, &o, out, i);
    } else {
        out->lo[i] = out->hi[i] = settled, out->flags[i] = 0;
        if (out->ideal) out->ideal[i] = settled;
        if (out->exact) out->exact[i] = o.a * o.b + o.p * o.q;
    }
    out->lo[i] += 0.0, out->hi[i] += 0.0; /* -0 becomes +0, which it equals: the same bits from every path */
    if (out->ideal) out->ideal[i] += 0.0;
    return s;
}

/* parts have to ascend by element: x' and y' do not, where pairs are halves. */
static int by_index(const void *a, const void *b) {
    const hm_golden_parts *p = a, *q = b;
    return (p->index > q->index) - (p->index < q->index);
}

static hm_status row_of(const void *context, int arg, int64_t row, hm_class c, hm_tier tier, hm_golden_row *out) {
    const hm_rotary_embedding_args *a = &((const context_of *)context)->args;
    const hm_tensor *t = is_key(arg) ? &a->key : &a->query;
    rule r = {a, t->dtype, a->round == HM_ROTARY_EACH, hm_class_arithmetic(c).f32, tier};
    int64_t head_size = t->shape[t->ndim - 1], step = t->stride[t->ndim - 1], size = (int64_t)hm_dtype_size(t->dtype);
    head_vectors h;
    if (!head_open(&r, t, row, &h)) return hm_fail(HM_NO_MEMORY, "golden: no memory");
    const char *from = (const char *)t->data + hm_row_offset(t, row) * size;
    int64_t end = a->rope_dim_offset + 2 * h.pairs;
    hm_golden_copy(t->dtype, from, step, 0, a->rope_dim_offset, out);
    hm_golden_copy(t->dtype, from + end * step * size, step, end, head_size, out);
    if (tier == HM_TIER_TWO) {
        const double *b = r.each ? h.ct : h.c, *q = r.each ? h.st : h.s;
        settle(&r, h.pairs, h.x, b, h.minus_y, q, h.form, h.xo);
        settle(&r, h.pairs, h.y, b, h.x, q, h.form, h.yo);
    } else {
        for (int64_t i = 0; i < h.pairs; i++) h.xo[i] = h.yo[i] = NAN;
        out->mpfr += 2 * h.pairs;
    }
    hm_status s = HM_OK;
    for (int64_t i = 0; i < h.pairs && !s; i++) {
        s = put(&r, &h, i, false, h.xo[i], out);
        if (!s) s = put(&r, &h, i, true, h.yo[i], out);
    }
    if (out->nparts > 1) qsort(out->parts, (size_t)out->nparts, sizeof *out->parts, by_index);
    free(h.block);
    return s;
}

/* ---- distances ---- */

double hm_distance_of_sum(double a, double b, double p, double q, hm_dtype dtype, double got) {
    if (!isfinite(a) || !isfinite(b) || !isfinite(p) || !isfinite(q) || !isfinite(got)) return INFINITY;
    hm_root root; /* |a b + p q| = |a b + p q| sqrt(1 / 1) */
    hm_root_init(&root);
    mpfr_set_d(root.q, a * b, MPFR_RNDN); /* exact */
    mpfr_add_d(root.q, root.q, p * q, MPFR_RNDN);
    bool negative = mpfr_sgn(root.q) < 0;
    mpfr_abs(root.q, root.q, MPFR_RNDN);
    mpfr_set_ui(root.v, 1, MPFR_RNDN), mpfr_set_ui(root.d, 1, MPFR_RNDN);
    hm_root_ready(&root);
    double d = hm_root_distance(&root, dtype, negative ? -got : got);
    hm_root_clear(&root);
    return d;
}

static double distance(const void *context, int arg, int64_t row, int64_t index, double got) {
    const hm_rotary_embedding_args *a = &((const context_of *)context)->args;
    const hm_tensor *t = is_key(arg) ? &a->key : &a->query;
    rule r = {.args = a, .T = t->dtype};
    head_vectors h;
    if (!head_open(&r, t, row, &h)) return INFINITY;
    int64_t k = index - h.x_at, pair = h.pair == 2 ? k / 2 : k % (h.pairs + !h.pairs);
    double d;
    if (k < 0 || k >= 2 * h.pairs) {
        double v = hm_load(t->dtype, (const char *)t->data + (hm_row_offset(t, row) + index * t->stride[t->ndim - 1]) *
                                                                 (int64_t)hm_dtype_size(t->dtype));
        d = hm_distance_of_sum(v, 1, 0, 0, t->dtype, got);
    } else if (h.pair == 2 ? k % 2 : k >= h.pairs) {
        d = hm_distance_of_sum(h.y[pair], h.c[pair], h.x[pair], h.s[pair], t->dtype, got);
    } else {
        d = hm_distance_of_sum(h.x[pair], h.c[pair], h.minus_y[pair], h.s[pair], t->dtype, got);
    }
    free(h.block);
    return d;
}

const hm_golden_op hm_rotary_embedding_golden = {"rotary_embedding", open_context, free, row_of, distance, NULL};
