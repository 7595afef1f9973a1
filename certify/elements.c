#include "elements.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "sample.h"

bool hm_ladder_make(const hm_op_info *op, hm_class required, hm_ladder *ladder) {
    if (required == HM_CLASS_NONE) required = hm_class_named(op->class_required);
    *ladder = (hm_ladder){.required = -1};
    for (const char *at = op->classes; *at && ladder->n < HM_CLASS_COUNT; at += strspn(at, " ")) {
        char name[32];
        size_t length = strcspn(at, " ");
        snprintf(name, sizeof name, "%.*s", (int)length, at);
        at += length;
        hm_class c = hm_class_named(name);
        if (c == HM_CLASS_NONE) return false;
        if (c == required) ladder->required = ladder->n;
        ladder->list[ladder->n++] = c;
    }
    return ladder->required >= 0;
}

/* ---- tallies --------------------------------------------------------------------------------- */

/* The element with the largest measure; the first in order of (arg, row, index) among equals. */
typedef struct {
    double measure;
    int arg;
    int64_t row, index;
} extreme;

static bool before(const extreme *a, const extreme *b) {
    if (a->arg != b->arg) return a->arg < b->arg;
    return a->row != b->row ? a->row < b->row : a->index < b->index;
}

static void extreme_take(extreme *best, const extreme *e) {
    if (e->arg < 0) return;
    if (best->arg < 0 || e->measure > best->measure || (e->measure == best->measure && before(e, best))) *best = *e;
}

typedef struct {
    int64_t elements, outside, out_of_class, range_free, point;
    int loosest;      /* index in the ladder of the tightest class that every row so far is inside; n: none */
    extreme far, out; /* farthest from exact, farthest outside the required class */
    hm_status status;
} tally;

static const tally no_tally = {.far = {.arg = -1}, .out = {.arg = -1}};

static void tally_add(tally *to, const tally *t) {
    to->elements += t->elements, to->outside += t->outside, to->out_of_class += t->out_of_class;
    to->range_free += t->range_free, to->point += t->point;
    if (t->loosest > to->loosest) to->loosest = t->loosest;
    if (t->status && !to->status) to->status = t->status;
    extreme_take(&to->far, &t->far);
    extreme_take(&to->out, &t->out);
}

/* ---- distance to the exact value ------------------------------------------------------------- */

/* hm_golden_distance is exact and slow; exact[] is within r = 2^-40 relative. With e = exact[i] and slack 2^-39 |e|,
 * the true distance D obeys  (|got-e| - slack) / ulp(|e| (1+2^-39)) <= D <= (|got-e| + slack) / ulp(|e| (1-2^-39)):
 * |exact - e| <= 2^-40 |exact| < 2^-39 |e|, the same for the two arguments of ulp, which is monotone. The roundings
 * here are 2^-52 of |got-e|, covered by 2^-50. Only where both ends round up to different 4-digit values is the exact
 * one needed. */
#define EXACT_SLACK (2 * HM_EXACT_ERROR)

static double distance(const hm_golden *golden, hm_dtype dtype, int arg, int64_t row, int64_t i, double got, double e) {
    double magnitude = fabs(e), away = fabs(got - e), slack = magnitude * EXACT_SLACK + away * 0x1p-50;
    double least = (away > slack ? away - slack : 0) / hm_ulp(dtype, magnitude * (1 + EXACT_SLACK));
    double most = (away + slack) / hm_ulp(dtype, magnitude * (1 - EXACT_SLACK));
    least = hm_round_up4(least);
    return least == hm_round_up4(most) ? least : hm_golden_distance(golden, arg, row, i, got);
}

/* Raises far to the row's largest distance, over elements that are finite and whose exact value is. */
static void measure_row(const hm_golden *golden, hm_dtype dtype, int arg, int64_t row, const double *got,
                        const double *exact, int64_t n, extreme *far) {
    double least_normal = hm_dtype_min_normal(dtype);
    double most = far->arg < 0 ? -1 : far->measure * ldexp(1, 1 - hm_dtype_precision(dtype));
    int64_t candidates = 0;
#pragma omp simd reduction(+ : candidates)
    for (int64_t i = 0; i < n; i++) { /* D <= far->measure for sure? ulp(v) = 2^(exponent of v) * 2^(1-p) */
        double magnitude = fabs(exact[i]), power = magnitude * (1 - EXACT_SLACK);
        power = power > least_normal ? power : least_normal;
        uint64_t bits;
        memcpy(&bits, &power, sizeof bits);
        bits &= UINT64_C(0x7ff0000000000000);
        memcpy(&power, &bits, sizeof power);
        candidates += fabs(got[i] - exact[i]) * (1 + 0x1p-50) + magnitude * EXACT_SLACK > power * most;
    }
    if (!candidates) return;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(got[i]) || !isfinite(exact[i])) continue;
        double magnitude = fabs(exact[i]);
        if (far->arg >= 0 && fabs(got[i] - exact[i]) * (1 + 0x1p-50) + magnitude * EXACT_SLACK <=
                                 hm_ulp(dtype, magnitude * (1 - EXACT_SLACK)) * far->measure)
            continue;
        double d = distance(golden, dtype, arg, row, i, got[i], exact[i]);
        if (isfinite(d)) extreme_take(far, &(extreme){d, arg, row, i});
    }
}

/* ---- one row, all rows ----------------------------------------------------------------------- */

typedef struct {
    const hm_golden *golden;
    const hm_ladder *ladder;
    hm_tier tier;
    const hm_tensor *out;
    int arg;
} output;

static hm_status get(const output *o, int64_t row, int step, hm_row *r, double *exact) {
    r->gold.exact = exact;
    r->gold.nparts = 0;
    return hm_golden_row_get(o->golden, o->arg, row, o->ladder->list[step], o->tier, &r->gold);
}

static hm_status judge_row(const output *o, int64_t row, hm_row *r, tally *t) {
    const hm_ladder *ladder = o->ladder;
    int64_t n = hm_row_length(o->out);
    hm_status s = get(o, row, ladder->required, r, r->exact);
    if (s) return s;
    hm_row_load(o->out, row, r->got);
    bool bits = hm_row_has_bits(&r->gold, n);
    if (bits) hm_row_load_bits(o->out, row, r->raw);
    const uint64_t *raw = bits ? r->raw : NULL;
    hm_row_counts c = hm_row_compare(&r->gold, r->got, raw, n);
    t->elements += n - c.unspecified, t->point += c.point, t->range_free += c.range_free;
    for (int64_t i = 0; (bits || c.unspecified) && i < n;
         i++) /* how far a wrong copy is from the right one says nothing */
        if (r->gold.flags[i] & (HM_GOLD_BITS | HM_GOLD_UNSPECIFIED)) r->exact[i] = NAN;
    measure_row(o->golden, o->out->dtype, o->arg, row, r->got, r->exact, n, &t->far);
    if (!c.failing) { /* is it inside tighter classes as well? They are subsets: of a single value, the same */
        if (c.point + c.unspecified == n) return HM_OK;
        for (; t->loosest < ladder->required; t->loosest++) {
            if ((s = get(o, row, t->loosest, r, NULL))) return s;
            if (!hm_row_compare(&r->gold, r->got, raw, n).failing) break;
        }
        return HM_OK;
    }
    for (int64_t i = 0; i < n; i++)
        if (!hm_admits(&r->gold, i, r->got[i], bits ? raw[i] : 0))
            extreme_take(&t->out, &(extreme){hm_row_excess(o->out->dtype, &r->gold, i, r->got[i]), o->arg, row, i});
    /* The row may be inside a looser class: find the first, and how many elements not even the loosest admits. */
    int64_t failing = c.failing;
    int step = ladder->required;
    while (failing && ++step < ladder->n) {
        if (step < t->loosest && step < ladder->n - 1) continue;
        if ((s = get(o, row, step, r, NULL))) return s;
        failing = hm_row_compare(&r->gold, r->got, raw, n).failing;
    }
    if (step > t->loosest) t->loosest = step;
    t->outside += failing;
    t->out_of_class += c.failing - failing;
    return HM_OK;
}

static void judge_output(const output *o, const hm_sample *sample, int threads, tally *total) {
    int64_t rows = sample->n, n = hm_row_length(o->out), chunk = sample->row ? 1 : 4;
    if (rows == 0 || n == 0) return;
        /* Not fewer threads for fewer rows: OpenMP would end the others, with what MPFR keeps for each. */
#pragma omp parallel num_threads(threads)
    {
        tally mine = no_tally;
        hm_row arrays;
        if (!hm_row_make(&arrays, n)) mine.status = HM_NO_MEMORY;
            /* Static: the rows of a thread ascend, so that its first element of the largest distance is kept. */
#pragma omp for schedule(static, chunk)
        for (int64_t i = 0; i < rows; i++)
            if (!mine.status) mine.status = judge_row(o, hm_sample_row(sample, i), &arrays, &mine);
        hm_row_free(&arrays);
#pragma omp critical(hm_elements)
        tally_add(total, &mine);
    }
}

/* The element that the verdict shows: farthest outside, or farthest from exact if every one is inside. */
static hm_status show(const hm_golden *golden, const hm_call *call, const hm_ladder *ladder, hm_tier tier,
                      const extreme *e, bool outside, hm_verdict *v) {
    const hm_tensor *t = hm_arg_tensor(call->op, call->args, e->arg);
    hm_row r;
    if (!hm_row_make(&r, hm_row_length(t))) return HM_NO_MEMORY;
    r.gold.ideal = r.ideal;
    hm_status s = hm_golden_row_get(golden, e->arg, e->row, ladder->list[ladder->required], tier, &r.gold);
    if (!s) {
        hm_row_load(t, e->row, r.got);
        v->has_worst = true, v->worst_arg = e->arg, v->worst_ndim = t->ndim, v->worst_outside = outside;
        int64_t row = e->row;
        for (int d = t->ndim - 2; d >= 0; row /= t->shape[d--]) v->worst_index[d] = row % t->shape[d];
        v->worst_index[t->ndim - 1] = e->index;
        v->worst_got = r.got[e->index], v->worst_ideal = r.ideal[e->index];
        v->worst_lo = r.gold.lo[e->index], v->worst_hi = r.gold.hi[e->index];
        v->worst_by_bits = r.gold.flags[e->index] & HM_GOLD_BITS;
        if (v->worst_by_bits) {
            hm_row_load_bits(t, e->row, r.raw);
            v->worst_bits[0] = r.raw[e->index], v->worst_bits[1] = r.gold.bits[e->index];
        }
    }
    hm_row_free(&r);
    return s;
}

hm_status hm_elements_judge(const hm_golden *golden, const hm_call *call, const hm_ladder *ladder, hm_tier tier,
                            int64_t most_rows, int threads, hm_verdict *v) {
    tally total = no_tally;
    for (int i = 0; i < call->op->nargs && !total.status; i++) {
        const hm_tensor *out = hm_arg_tensor(call->op, call->args, i);
        if (call->op->args[i].direction == HM_IN || out->dtype == HM_DTYPE_NONE) continue;
        hm_sample sample;
        int team = threads > 0 ? threads : omp_get_max_threads();
        if (!hm_sample_make(call, i, most_rows, team, &sample)) total.status = HM_NO_MEMORY;
        else judge_output(&(output){golden, ladder, tier, out, i}, &sample, team, &total);
        v->rows += hm_row_count(out), v->rows_judged += sample.n;
        hm_sample_free(&sample);
    }
    v->elements = total.elements, v->outside = total.outside, v->out_of_class = total.out_of_class;
    v->range_free = total.range_free, v->point = total.point;
    v->decided =
        total.elements > total.range_free ? (double)total.point / (double)(total.elements - total.range_free) : 0;
    v->max_ulp = total.far.arg < 0 ? 0 : total.far.measure;
    v->consistent = total.loosest < ladder->n ? ladder->list[total.loosest] : HM_CLASS_NONE;
    const extreme *worst = total.out.arg >= 0 ? &total.out : &total.far;
    if (!total.status && worst->arg >= 0)
        total.status = show(golden, call, ladder, tier, worst, worst == &total.out, v);
    return total.status;
}

/* ---- vacuity --------------------------------------------------------------------------------- */

enum { POISON, ZEROS, UNCHANGED, TRIVIALS };
static const char *const trivial_names[] = {"outputs that still hold the poison", "outputs that are all zeros",
                                            "outputs that hold the unchanged input"};

static void fill_trivial(const hm_call *call, int i, int64_t row, int what, double *got, uint64_t *raw) {
    const hm_tensor *out = hm_arg_tensor(call->op, call->args, i);
    int source = hm_starts_as(call, i);
    if (what == UNCHANGED && source >= 0) {
        const hm_tensor *from = hm_arg_tensor(call->op, call->golden_args, source);
        hm_row_load(from, row, got);
        hm_row_load_bits(from, row, raw);
        return;
    }
    unsigned char poison[8];
    memset(poison, HM_POISON, sizeof poison);
    double value = what == ZEROS ? 0 : hm_load(out->dtype, poison);
    uint64_t bits = 0;
    if (what != ZEROS) memcpy(&bits, poison, hm_dtype_size(out->dtype));
    for (int64_t k = 0; k < hm_row_length(out); k++) got[k] = value, raw[k] = bits;
}

bool hm_elements_trivial(const hm_golden *golden, const hm_call *call, const hm_ladder *ladder, hm_tier tier,
                         bool catches, char *which, size_t size) {
    bool alive[TRIVIALS] = {true, true, false};
    int64_t elements = 0;
    for (int i = 0; i < call->op->nargs; i++)
        if (call->op->args[i].direction != HM_IN && hm_starts_as(call, i) >= 0)
            alive[UNCHANGED] |= !(catches && call->op->args[i].direction == HM_INOUT);
    for (int i = 0; i < call->op->nargs; i++) {
        const hm_tensor *out = hm_arg_tensor(call->op, call->args, i);
        if (call->op->args[i].direction == HM_IN || out->dtype == HM_DTYPE_NONE) continue;
        int64_t rows = hm_row_count(out), n = hm_row_length(out);
        output o = {golden, ladder, tier, out, i};
        hm_row r;
        if (!hm_row_make(&r, n)) return false;
        for (int64_t row = 0; row < rows && n > 0 && (alive[0] || alive[1] || alive[2]); row++) {
            if (get(&o, row, ladder->required, &r, NULL)) alive[POISON] = alive[ZEROS] = alive[UNCHANGED] = false;
            for (int what = 0; what < TRIVIALS; what++) {
                if (!alive[what]) continue;
                fill_trivial(call, i, row, what, r.got, r.raw);
                alive[what] = hm_row_compare(&r.gold, r.got, r.raw, n).failing == 0;
            }
            elements += n;
        }
        hm_row_free(&r);
    }
    for (int what = 0; what < TRIVIALS && elements > 0; what++)
        if (alive[what]) {
            snprintf(which, size, "%s would be admitted in every element", trivial_names[what]);
            return true;
        }
    return false;
}
