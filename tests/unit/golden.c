/* golden: both tiers give the same bits, classes are nested, specials and range-free elements are flagged, admissible
 * sets with gaps are what the inner rounding point makes them, and the distance to the exact value is rounded up from
 * the exact distance. */
#include "../../golden/golden.h"

#include <criterion/criterion.h>
#include <fenv.h>
#include <hallmark/fused_add_rms_norm.h>
#include <math.h>
#include <mpfr.h>
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <xmmintrin.h>
#endif

#include "../../op/dtype.h"

enum { ROWS = 13, HIDDEN = 150 };

typedef struct {
    const char *op;
    hm_dtype T, W, residual, R;
    int round, form, read, residual_dtype;
    int64_t V;
    double eps;
    double values_x[ROWS * HIDDEN], values_r[ROWS * HIDDEN], values_w[HIDDEN];
    float x[ROWS * HIDDEN], r[ROWS * HIDDEN], w[HIDDEN], out[ROWS * HIDDEN],
        sum[ROWS * HIDDEN]; /* storage for any dtype */
    hm_rms_norm_args plain;
    hm_fused_add_rms_norm_args fused;
} call;

static call c;
static bool is_fused(void) { return c.op[0] == 'f'; }
static int arg_named(const char *name) {
    const hm_op_info *op = hm_op_named(c.op);
    for (int i = 0; i < op->nargs; i++)
        if (!strcmp(op->args[i].name, name)) return i;
    return -1;
}

static uint64_t state;
static double uniform(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)((int64_t)state >> 10) * 0x1p-53;
}

/* Rows: 0..2 ordinary of growing size, 3 integers (exact ties), 4 a mean square of 4 with eps 0, 5 tiny, 6 huge (f32
 * squares overflow), 7 subnormal, 8 zero, 9 a NaN in front, 10 a NaN behind V, 11 an infinity in front, 12 nearly one
 * value. */
enum {
    PLAIN = 0,
    INTEGERS = 3,
    EXACT = 4,
    TINY = 5,
    HUGE_ROW = 6,
    SUBNORMAL = 7,
    ZERO = 8,
    NAN_FIRST = 9,
    NAN_BEHIND = 10,
    INF_FIRST = 11
};

static void fill(uint64_t seed) {
    state = seed * 977 + 3;
    double big = c.T == HM_F16 ? 3e4 : 1e25, least = c.T == HM_F16 ? 0x1p-24 : c.T == HM_BF16 ? 0x1p-133 : 0x1p-149;
    for (int t = 0; t < ROWS; t++)
        for (int i = 0; i < HIDDEN; i++) {
            int scale = t < 5 ? 2 * t - 2 : 0;
            double u = uniform(), sign = u < 0 ? -1 : 1, v = u * ldexp(1, scale), q = uniform() * ldexp(1, scale);
            if (t == INTEGERS) v = rint(u * 7), q = rint(q);
            if (t == EXACT) v = sign * (i % 8 < 5 ? 1 : 3), q = 0;
            if (t == TINY) v = u * 0x1p-14, q *= 0x1p-14;
            if (t == HUGE_ROW) v = u * big, q = 0;
            if (t == SUBNORMAL) v = rint(u * 100) * least, q = rint(q) * least;
            if (t == ZERO) v = q = 0;
            if (t == NAN_FIRST && i == 2) v = NAN;
            if (t == NAN_BEHIND && i == HIDDEN - 2) v = NAN;
            if (t == INF_FIRST && i == 1) v = -INFINITY;
            if (t == 12) v = 1 + (i % 7 == 0) * 0x1p-7, q = 0;
            c.values_x[t * HIDDEN + i] = v, c.values_r[t * HIDDEN + i] = q;
        }
    for (int i = 0; i < HIDDEN; i++) c.values_w[i] = i % 9 == 0 ? (i % 5 - 2) : 1 + uniform();
}

static hm_golden *open_call(int threads) {
    hm_tensor x = hm_tensor_of(c.x, c.T, 2, (int64_t[]){ROWS, HIDDEN}), out = hm_tensor_of(c.out, c.T, 2, x.shape);
    hm_tensor r = hm_tensor_of(c.r, c.residual, 2, x.shape), sum = hm_tensor_of(c.sum, c.R, 2, x.shape);
    hm_tensor w = hm_tensor_of(c.w, c.W, 1, (int64_t[]){HIDDEN});
    hm_store_row(c.T, c.x, 1, ROWS * HIDDEN, c.values_x);
    hm_load_row(c.T, c.x, 1, ROWS * HIDDEN, c.values_x);
    if (is_fused()) hm_store_row(c.residual, c.r, 1, ROWS * HIDDEN, c.values_r);
    if (c.W) hm_store_row(c.W, c.w, 1, HIDDEN, c.values_w);
    c.plain = *HM_ARGS(rms_norm, .out = out, .x = x, .weight = w, .eps = c.eps, .round = c.round, .weight_form = c.form,
                       .variance_size = c.V);
    c.fused = *HM_ARGS(fused_add_rms_norm, .out = out, .residual_out = sum, .x = x, .residual = r, .weight = w,
                       .eps = c.eps, .round = c.round, .weight_form = c.form, .residual_read = c.read,
                       .residual_dtype = c.residual_dtype, .variance_size = c.V);
    hm_golden *golden;
    const hm_op_info *op = hm_op_named(c.op);
    const void *args = is_fused() ? (const void *)&c.fused : &c.plain;
    cr_assert_eq(op->check(args), HM_OK, "%s", hm_error());
    cr_assert_eq(hm_golden_open(op, args, threads, &golden), HM_OK, "%s", hm_error());
    return golden;
}

typedef struct {
    hm_golden_row row;
    double lo[HIDDEN], hi[HIDDEN], ideal[HIDDEN], exact[HIDDEN];
    unsigned char flags[HIDDEN];
} answer;

static void get(const hm_golden *golden, int arg, int64_t row, hm_class class, hm_tier tier, answer *a) {
    hm_golden_parts *parts = a->row.parts;
    int64_t capacity = a->row.parts_capacity;
    a->row = (hm_golden_row){.lo = a->lo,
                             .hi = a->hi,
                             .ideal = a->ideal,
                             .exact = a->exact,
                             .flags = a->flags,
                             .parts = parts,
                             .parts_capacity = capacity};
    memset(a->flags, 0xEE, sizeof a->flags);
    cr_assert_eq(hm_golden_row_get(golden, arg, row, class, tier, &a->row), HM_OK, "%s", hm_error());
}

/* Every legal combination of modes and dtypes, twice: V = hidden with eps, V = 100 without. */
static int each_call(void (*visit)(int)) {
    static const hm_dtype real[] = {HM_F32, HM_F16, HM_BF16}, weights[] = {HM_DTYPE_NONE, HM_F32, HM_F16, HM_BF16};
    int n = 0;
    for (int m = 0; m < 2 * 3 * 4 * 3 * 4 * 2; m++) {
        int rest = m;
        c.op = rest % 2 ? "fused_add_rms_norm" : "rms_norm", rest /= 2;
        c.round = rest % 3 == 1, c.form = rest % 3 == 2, rest /= 3;
        c.read = rest % 2, c.residual_dtype = rest / 2 % 2, rest /= 4;
        c.T = real[rest % 3], rest /= 3;
        c.W = weights[rest % 4], rest /= 4;
        c.R = c.residual_dtype && c.T == HM_F16 ? HM_F32 : c.T;
        c.residual = rest ? c.R : c.T;
        if ((!is_fused() && (c.read || c.residual_dtype)) || (rest && c.residual == c.T) ||
            (c.W && c.W != HM_F32 && c.T != HM_F32 && c.W != c.T))
            continue;
        for (int second = 0; second < 2; second++) {
            c.V = second ? 100 : 0;
            c.eps = second ? 0 : 1e-6;
            fill((uint64_t)n);
            visit(n++);
        }
    }
    return n;
}

static bool same_number(double a, double b) { return a == b || (isnan(a) && isnan(b)); }

static answer one, two;

static void tiers(int n) {
    hm_golden *golden = open_call(1);
    static const char *const outputs[] = {"out", "residual_out"};
    for (int o = 0; o < 1 + is_fused(); o++)
        for (int64_t t = 0; t < ROWS; t++)
            for (int class = 0; class < HM_CLASS_COUNT; class ++) {
                if ((n + t + class) % 5) /* a fifth of them: MPFR alone is slow */
                    continue;
                get(golden, arg_named(outputs[o]), t, (hm_class) class, HM_TIER_TWO, &one);
                get(golden, arg_named(outputs[o]), t, (hm_class) class, HM_TIER_MPFR, &two);
                for (int i = 0; i < HIDDEN; i++) {
                    bool fine = same_number(one.lo[i], two.lo[i]) && same_number(one.hi[i], two.hi[i]) &&
                                same_number(one.ideal[i], two.ideal[i]) && one.flags[i] == two.flags[i];
                    cr_assert(fine, "call %d %s row %d class %s element %d: [%a,%a] %a %d, MPFR [%a,%a] %a %d", n,
                              outputs[o], (int)t, hm_class_name((hm_class) class), i, one.lo[i], one.hi[i],
                              one.ideal[i], one.flags[i], two.lo[i], two.hi[i], two.ideal[i], two.flags[i]);
                    bool near = same_number(one.exact[i], two.exact[i]) ||
                                fabs(one.exact[i] - two.exact[i]) <= 2 * HM_EXACT_ERROR * fabs(two.exact[i]);
                    cr_assert(near, "exact %a, MPFR %a", one.exact[i], two.exact[i]);
                }
                cr_assert_eq(one.row.nparts, two.row.nparts);
                for (int64_t k = 0; k < one.row.nparts; k++) {
                    const hm_golden_parts *a = &one.row.parts[k], *b = &two.row.parts[k];
                    cr_assert(a->index == b->index && a->n == b->n &&
                              !memcmp(a->lo, b->lo, (size_t)a->n * sizeof(double)) &&
                              !memcmp(a->hi, b->hi, (size_t)a->n * sizeof(double)));
                }
            }
    hm_golden_close(golden);
}

Test(golden, both_tiers_give_the_same_bits) { cr_assert_eq(each_call(tiers), 2 * 168); }

/* ---- shape of an answer
 * ---------------------------------------------------------------------------------------------------- */

static bool holds(hm_dtype dtype, double v) { return isnan(v) || hm_round_to(dtype, v) == v; }

static const hm_golden_parts *parts_of(const answer *a, int index) {
    for (int64_t k = 0; k < a->row.nparts; k++)
        if (a->row.parts[k].index == index) return &a->row.parts[k];
    return NULL;
}

static bool inside(const answer *a, int i, double v) {
    const hm_golden_parts *parts = parts_of(a, i);
    bool in = a->lo[i] <= v && v <= a->hi[i];
    if (!parts || !in) return in;
    in = false;
    for (int k = 0; k < parts->n; k++) in |= parts->lo[k] <= v && v <= parts->hi[k];
    return in;
}

static int64_t with_gaps, undecided, decided;

static void shape(int n) {
    hm_golden *golden = open_call(1);
    static const char *const outputs[] = {"out", "residual_out"};
    static answer wider[HM_CLASS_COUNT];
    for (int o = 0; o < 1 + is_fused(); o++)
        for (int64_t t = 0; t < ROWS; t++) {
            hm_dtype dtype = o ? c.R : c.T;
            for (int class = 0; class < HM_CLASS_COUNT; class ++)
                get(golden, arg_named(outputs[o]), t, (hm_class) class, HM_TIER_TWO, &wider[class]);
            for (int class = 0; class < HM_CLASS_COUNT; class ++) {
                answer *a = &wider[class], *tighter = &wider[class ? class - 1 : 0];
                int64_t last = -1;
                for (int64_t k = 0; k < a->row.nparts; k++) {
                    const hm_golden_parts *parts = &a->row.parts[k];
                    cr_assert(parts->index > last && parts->index < HIDDEN, "ascending");
                    last = parts->index;
                    cr_assert(a->flags[last] & HM_GOLD_GAPS);
                    cr_assert(parts->n >= 2 && parts->n <= HM_MAX_PARTS);
                    cr_assert(parts->lo[0] == a->lo[last] && parts->hi[parts->n - 1] == a->hi[last],
                              "their hull is [lo,hi]");
                    for (int j = 0; j < parts->n; j++) {
                        cr_assert(parts->lo[j] <= parts->hi[j] && holds(dtype, parts->lo[j]) &&
                                  holds(dtype, parts->hi[j]));
                        cr_assert(j == 0 || hm_next_up(dtype, parts->hi[j - 1]) < parts->lo[j],
                                  "touching parts are one");
                    }
                    with_gaps++;
                }
                for (int i = 0; i < HIDDEN; i++) {
                    int flags = a->flags[i];
                    cr_assert(!(flags & ~(HM_GOLD_NAN | HM_GOLD_RANGE_FREE | HM_GOLD_GAPS)), "flags %#x", flags);
                    cr_assert_eq(!!(flags & HM_GOLD_GAPS), parts_of(a, i) != NULL);
                    cr_assert(holds(dtype, a->lo[i]) && holds(dtype, a->hi[i]) && holds(dtype, a->ideal[i]));
                    cr_assert(same_number(a->ideal[i], wider[0].ideal[i]), "the ideal value knows no class");
                    if (flags & HM_GOLD_NAN) {
                        cr_assert(isnan(a->lo[i]) && isnan(a->hi[i]) && isnan(a->ideal[i]));
                        cr_assert_eq(flags, HM_GOLD_NAN);
                    } else {
                        cr_assert(inside(a, i, a->ideal[i]),
                                  "call %d %s row %d class %d element %d: [%a,%a] lacks its ideal %a", n, outputs[o],
                                  (int)t, class, i, a->lo[i], a->hi[i], a->ideal[i]);
                        (a->lo[i] == a->hi[i] ? decided++ : undecided++);
                        /* every value that a tighter class admits, at the ends of its parts */
                        const hm_golden_parts *parts = parts_of(tighter, i);
                        cr_assert(inside(a, i, tighter->lo[i]) && inside(a, i, tighter->hi[i]),
                                  "call %d %s row %d element %d: class %d [%a,%a] is not in class %d [%a,%a]", n,
                                  outputs[o], (int)t, i, class - 1, tighter->lo[i], tighter->hi[i], class, a->lo[i],
                                  a->hi[i]);
                        for (int j = 0; parts && j < parts->n; j++)
                            cr_assert(inside(a, i, parts->lo[j]) && inside(a, i, parts->hi[j]));
                    }
                    if (class == HM_WIDE) cr_assert(!(flags & HM_GOLD_RANGE_FREE), "wide keeps its interval");
                    if (t <= PLAIN + 2)
                        cr_assert(!(flags & HM_GOLD_RANGE_FREE), "an ordinary row is in the range of f32");
                    if (class && (flags & HM_GOLD_NAN) == 0)
                        cr_assert(!(tighter->flags[i] & HM_GOLD_RANGE_FREE) || (flags & HM_GOLD_RANGE_FREE),
                                  "free stays free");
                }
            }
        }
    hm_golden_close(golden);
}

Test(golden, intervals_are_nested_and_well_formed) {
    cr_assert_eq(each_call(shape), 2 * 168);
    cr_assert(with_gaps > 100, "%lld elements with gaps: the test saw too few", (long long)with_gaps);
    cr_assert(decided > 20 * 1000 && undecided > 1000);
}

/* ---- specials
 * ---------------------------------------------------------------------------------------------------------------- */

static void specials(int n) {
    hm_golden *golden = open_call(1);
    int64_t V = c.V ? c.V : HIDDEN;
    int out = arg_named("out");
    for (int class = 0; class < HM_CLASS_COUNT; class ++) {
        get(golden, out, NAN_FIRST, (hm_class) class, HM_TIER_TWO, &one);
        for (int i = 0; i < HIDDEN; i++)
            cr_assert_eq(one.flags[i], HM_GOLD_NAN, "a NaN among the first V makes the row NaN");
        get(golden, out, NAN_BEHIND, (hm_class) class, HM_TIER_TWO, &one);
        for (int i = 0; i < HIDDEN; i++)
            cr_assert_eq(!!(one.flags[i] & HM_GOLD_NAN), V == HIDDEN || i == HIDDEN - 2, "call %d", n);
        get(golden, out, INF_FIRST, (hm_class) class, HM_TIER_TWO, &one);
        for (int i = 0; i < HIDDEN; i++)
            cr_assert(i == 1 ? one.flags[i] == HM_GOLD_NAN : one.lo[i] == 0 && one.hi[i] == 0 && one.ideal[i] == 0,
                      "an infinity makes rs 0");
        get(golden, out, ZERO, (hm_class) class, HM_TIER_TWO, &one);
        for (int i = 0; i < HIDDEN; i++)
            if (c.eps == 0) {
                cr_assert(one.flags[i] & HM_GOLD_NAN || one.flags[i] & HM_GOLD_RANGE_FREE, "0 * inf");
                cr_assert(isnan(one.ideal[i]));
            } else cr_assert(one.lo[i] == 0 && one.hi[i] == 0 && one.ideal[i] == 0 && !one.flags[i]);
        get(golden, out, HUGE_ROW, (hm_class) class, HM_TIER_TWO, &one);
        for (int i = 0; i < HIDDEN; i++) /* 1e25 squared is beyond f32; 3e4 squared is not */
            cr_assert_eq(!!(one.flags[i] & HM_GOLD_RANGE_FREE), class != HM_WIDE && c.T != HM_F16, "call %d class %d",
                         n, class);
    }
    hm_golden_close(golden);
}

Test(golden, specials) { each_call(specials); }

/* An f32 denominator that a flush may make 0: squares of 1e-20 are f32-subnormal, and eps is 0. */
Test(golden, range_free_by_a_flush) {
    c = (call){.op = "rms_norm", .T = HM_F32, .R = HM_F32};
    fill(1);
    for (int i = 0; i < HIDDEN; i++) c.values_x[i] = 1e-20 * (1 + i % 3);
    hm_golden *golden = open_call(1);
    get(golden, arg_named("out"), 0, HM_CHAIN64, HM_TIER_TWO, &one);
    for (int i = 0; i < HIDDEN; i++) cr_assert(one.flags[i] & HM_GOLD_RANGE_FREE);
    get(golden, arg_named("out"), 0, HM_WIDE, HM_TIER_TWO, &one);
    for (int i = 0; i < HIDDEN; i++) cr_assert(!one.flags[i] && one.lo[i] == one.hi[i]);
    hm_golden_close(golden);
}

/* The squares and their mean are in the range of f32, their sum is not. */
Test(golden, range_free_by_the_sum) {
    c = (call){.op = "rms_norm", .T = HM_BF16, .R = HM_BF16};
    for (int i = 0; i < HIDDEN; i++) c.values_x[i] = 0x1.Cp63, c.values_x[HIDDEN + i] = i < 2 ? 0x1p63 : 0;
    hm_golden *golden = open_call(1);
    for (int class = 0; class < HM_CLASS_COUNT; class ++) {
        get(golden, arg_named("out"), 0, (hm_class) class, HM_TIER_TWO, &one);
        cr_assert_eq(one.flags[9], class == HM_WIDE ? 0 : HM_GOLD_RANGE_FREE);
        cr_assert(one.lo[9] == 1 && one.hi[9] == 1, "wide keeps its interval, and a range-free element has one, too");
        get(golden, arg_named("out"), 1, (hm_class) class, HM_TIER_TWO, &one);
        cr_assert_eq(one.flags[9], 0, "two squares of 2^126 are not too much");
    }
    hm_golden_close(golden);
}

/* x = x0 in the whole row, so x * rs is 1, and the result is a weight halfway between two values of bf16. In binary64
 * x0 * (1 / x0) is not 1 for some x0: only exact arithmetic sees the tie. */
Test(golden, exact_ties) {
    int slipped = 0;
    for (int first = 1; first < 256; first += 2 * ROWS) {
        c = (call){.op = "rms_norm", .T = HM_BF16, .R = HM_BF16, .W = HM_F32};
        for (int t = 0; t < ROWS; t++)
            for (int i = 0; i < HIDDEN; i++) c.values_x[t * HIDDEN + i] = (first + 2 * t) % 256;
        for (int i = 0; i < HIDDEN; i++) c.values_w[i] = 1 + (2 * (i % 128) + 1) * 0x1p-8;
        hm_golden *golden = open_call(1);
        for (int t = 0; t < ROWS; t++) {
            double x0 = c.values_x[t * HIDDEN];
            slipped += x0 * (1 / sqrt(x0 * x0)) != 1;
            for (int tier = 0; tier < 2; tier++) {
                get(golden, arg_named("out"), t, t % 2 ? HM_WIDE : HM_CHAIN64, (hm_tier)tier, &one);
                for (int i = 0; i < HIDDEN; i++) {
                    double below = 1 + i % 128 * 0x1p-7, even = i % 2 ? below + 0x1p-7 : below; /* 128 is even */
                    cr_assert(one.ideal[i] == even, "x0 %g weight %a: ideal %a", x0, c.values_w[i], one.ideal[i]);
                    cr_assert(one.lo[i] == below && one.hi[i] == below + 0x1p-7, "x0 %g: [%a,%a]", x0, one.lo[i],
                              one.hi[i]);
                }
            }
        }
        hm_golden_close(golden);
    }
    cr_assert(slipped > 5, "binary64 sees all these ties");
}

/* A result that is f32-subnormal may be flushed in f32 classes, in f32 and bf16; f16's subnormals may not. */
Test(golden, flushed_results) {
    static const struct {
        hm_dtype T;
        double weight;
        bool zero;
    } rows[] = {
        {HM_F32, 0x1p-130, true}, {HM_BF16, 0x1p-129, true}, {HM_F16, 0x1p-20, false}, {HM_F32, 0x1p-120, false}};
    for (int k = 0; k < 4; k++) {
        c = (call){.op = "rms_norm", .T = rows[k].T, .R = rows[k].T, .W = HM_F32, .eps = 0};
        fill(2);
        for (int i = 0; i < HIDDEN; i++) c.values_x[i] = 1, c.values_w[i] = rows[k].weight;
        hm_golden *golden = open_call(1);
        get(golden, arg_named("out"), 0, HM_CHAIN64, HM_TIER_TWO, &one);
        cr_assert_eq(inside(&one, 3, 0), rows[k].zero, "row %d: [%a,%a]", k, one.lo[3], one.hi[3]);
        cr_assert(one.ideal[3] == rows[k].weight);
        get(golden, arg_named("out"), 0, HM_WIDE, HM_TIER_TWO, &one);
        cr_assert(!inside(&one, 3, 0));
        hm_golden_close(golden);
    }
}

/* norm_first in f16, rs = 1 / x0: where x / x0 lies next to a tie, f32 classes have both neighbours after the inner
 * rounding point; times 1.75 they end two places apart, and what lies between is not admissible. */
Test(golden, gaps_of_norm_first) {
    int found = 0;
    for (int x0 = 1024; x0 < 1700 && found < 30; x0 += 3)
        for (int x = x0 + 1; x < x0 + x0 / 8 && found < 30; x++) {
            double q = (double)x / x0, below = floor(q * 1024) / 1024, above = below + 0x1p-10;
            double past = q - (below + 0x1p-11); /* no tie: x would need 12 bits */
            if (fabs(past) > 0x1p-30 * x) continue;
            c = (call){.op = "rms_norm", .T = HM_F16, .R = HM_F16, .W = HM_F16, .round = HM_ROUND_NORM_FIRST, .V = 1};
            c.values_x[0] = x0, c.values_x[1] = x, c.values_x[2] = -x;
            for (int i = 0; i < HIDDEN; i++) c.values_w[i] = 1.75;
            hm_golden *golden = open_call(1);
            double low = hm_round_to(HM_F16, below * 1.75), high = hm_round_to(HM_F16, above * 1.75);
            get(golden, arg_named("out"), 0, HM_WIDE, HM_TIER_TWO, &one);
            cr_assert(one.ideal[1] == (past > 0 ? high : low) && one.lo[1] == one.ideal[1] &&
                      one.hi[1] == one.ideal[1]);
            get(golden, arg_named("out"), 0, HM_CHAIN64, HM_TIER_TWO, &one);
            cr_assert(one.lo[1] == low && one.hi[1] == high, "%d / %d: [%a,%a], not [%a,%a]", x, x0, one.lo[1],
                      one.hi[1], low, high);
            bool gap = hm_next_up(HM_F16, low) < high;
            cr_assert_eq(!!(one.flags[1] & HM_GOLD_GAPS), gap, "%d / %d", x, x0);
            cr_assert(one.lo[2] == -high && one.hi[2] == -low && one.flags[2] == one.flags[1], "mirrored");
            if (gap) {
                const hm_golden_parts *parts = parts_of(&one, 1);
                cr_assert(parts && parts->n == 2 && parts->hi[0] == low && parts->lo[1] == high);
                found++;
            }
            hm_golden_close(golden);
        }
    cr_assert_eq(found, 30);
}

/* ---- distance
 * ---------------------------------------------------------------------------------------------------------------- */

Test(golden, rounding_up_to_4_digits) {
    static const double kept[] = {0,        1,         0x1.001p0,   0x1.FFFp-3, 0x1.8p40, 0x1.abcp-300,
                                  INFINITY, 0x1p-1074, 0x1.FFFp1023};
    static const struct {
        double d, up;
    } raised[] = {{0x1.0000000000001p0, 0x1.001p0},   {0x1.FFF0000000001p0, 0x1p1},
                  {0x1.8000000000001p-1, 0x1.801p-1}, {0x1.2345p7, 0x1.235p7},
                  {0x1.FFFFFFFFFFFFFp1023, INFINITY}, {0.1, 0x1.99ap-4}};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        cr_assert(hm_round_up4(kept[i]) == kept[i], "%a became %a", kept[i], hm_round_up4(kept[i]));
    for (size_t i = 0; i < sizeof raised / sizeof *raised; i++)
        cr_assert(hm_round_up4(raised[i].d) == raised[i].up, "%a became %a", raised[i].d, hm_round_up4(raised[i].d));
}

static mpfr_t root, exact, d;

static double residual(int64_t at) {
    return is_fused() ? hm_load(c.residual, (char *)c.r + hm_dtype_size(c.residual) * (size_t)at) : 0;
}

/* root := (mean of the unrounded squares + eps)^-1/2 of row t */
static void exact_root(int64_t t) {
    int64_t V = c.V ? c.V : HIDDEN;
    mpfr_set_zero(root, 1);
    for (int64_t at = t * HIDDEN; at < t * HIDDEN + V; at++) {
        mpfr_set_d(exact, c.values_x[at], MPFR_RNDN);
        mpfr_add_d(exact, exact, residual(at), MPFR_RNDN);
        mpfr_sqr(exact, exact, MPFR_RNDN);
        mpfr_add(root, root, exact, MPFR_RNDN);
    }
    mpfr_div_ui(root, root, (unsigned long)V, MPFR_RNDN);
    mpfr_add_d(root, root, (double)(float)c.eps, MPFR_RNDN);
    mpfr_rec_sqrt(root, root, MPFR_RNDN);
}

/* exact := the formula with no rounding at all: of out, or of residual_out */
static void exact_value(bool sum, int64_t t, int i) {
    mpfr_set_d(exact, c.values_x[t * HIDDEN + i], MPFR_RNDN);
    mpfr_add_d(exact, exact, residual(t * HIDDEN + i), MPFR_RNDN);
    if (sum) return;
    mpfr_mul(exact, exact, root, MPFR_RNDN);
    if (c.W) {
        mpfr_set_d(d, hm_load(c.W, (char *)c.w + hm_dtype_size(c.W) * (size_t)i), MPFR_RNDN);
        mpfr_add_ui(d, d, c.form == HM_WEIGHT_ONE_PLUS, MPFR_RNDN);
        mpfr_mul(exact, exact, d, MPFR_RNDN);
    }
}

/* |got - exact| / ulp, rounded up to 13 bits */
static double expected_distance(double got, double ulp) {
    if (!isfinite(got)) return INFINITY;
    mpfr_t up;
    mpfr_init2(up, 13);
    mpfr_sub_d(d, exact, got, MPFR_RNDN);
    mpfr_div_d(d, d, ulp, MPFR_RNDN);
    mpfr_abs(up, d, MPFR_RNDU);
    double r = mpfr_get_d(up, MPFR_RNDN);
    mpfr_clear(up);
    return r;
}

static void distances(int n) {
    static const int rows[] = {0, 2, INTEGERS, EXACT, TINY, HUGE_ROW, SUBNORMAL, 12};
    hm_golden *golden = open_call(1);
    mpfr_inits2(600, exact, root, d, (mpfr_ptr)0);
    for (size_t k = 0; k < 2 * sizeof rows / sizeof *rows; k++) {
        bool sum = k % 2;
        int64_t t = rows[k / 2];
        if (sum && !is_fused()) continue;
        hm_dtype dtype = sum ? c.R : c.T;
        int arg = arg_named(sum ? "residual_out" : "out");
        get(golden, arg, t, HM_CHAIN64, HM_TIER_TWO, &one);
        exact_root(t);
        for (int i = n % 7; i < HIDDEN; i += 29) {
            exact_value(sum, t, i);
            if (!mpfr_number_p(exact)) continue;
            mpfr_sub_d(d, exact, one.exact[i], MPFR_RNDN);
            mpfr_div(d, d, exact, MPFR_RNDN);
            cr_assert(mpfr_cmp_d(exact, one.exact[i]) == 0 || fabs(mpfr_get_d(d, MPFR_RNDA)) <= HM_EXACT_ERROR,
                      "exact %a is off by %a", one.exact[i], mpfr_get_d(d, MPFR_RNDA));
            double ulp = hm_ulp(dtype, mpfr_get_d(exact, MPFR_RNDZ));
            double gots[] = {one.ideal[i],  one.lo[i],           one.hi[i], 0,        1,
                             -one.ideal[i], hm_dtype_max(dtype), NAN,       -INFINITY};
            for (size_t g = 0; g < sizeof gots / sizeof *gots; g++) {
                double got = hm_golden_distance(golden, arg, t, i, gots[g]), expected = expected_distance(gots[g], ulp);
                cr_assert(got == expected, "call %d %s row %d element %d: %a is %a from exact, not %a", n, c.op, (int)t,
                          i, gots[g], got, expected);
            }
        }
    }
    mpfr_clears(d, exact, root, (mpfr_ptr)0);
    cr_assert(hm_golden_distance(golden, arg_named("out"), NAN_FIRST, 3, 1.0) == INFINITY);
    hm_golden_close(golden);
}

Test(golden, distance_to_the_exact_value) { each_call(distances); }

/* ---- the rest
 * ---------------------------------------------------------------------------------------------------------------- */

Test(golden, names) {
    static const char *const names[] = {"wide", "chain64", "chain512", "any", "tc23", "tc13"};
    for (int i = 0; i < HM_CLASS_COUNT; i++) {
        cr_assert_str_eq(hm_class_name((hm_class)i), names[i]);
        cr_assert_eq((int)hm_class_named(names[i]), i);
        cr_assert(hm_class_about((hm_class)i)[0]);
    }
    cr_assert_str_eq(hm_class_name(HM_CLASS_NONE), "none");
    cr_assert_eq(hm_class_named("chain65"), HM_CLASS_NONE);
    cr_assert_eq(hm_class_named(""), HM_CLASS_NONE);
}

Test(golden, unknown_op) {
    hm_op_info stranger = *hm_op_at(0);
    stranger.name = "no_such_op";
    hm_golden *golden = (hm_golden *)&stranger;
    c = (call){.op = "rms_norm", .T = HM_F32};
    cr_assert_eq(hm_golden_open(&stranger, &c.plain, 1, &golden), HM_UNSUPPORTED);
    cr_assert_null(golden);
    cr_assert(strstr(hm_error(), "no_such_op"));
    hm_golden_close(NULL);
}

Test(golden, environment) {
    cr_assert(hm_golden_environment(1) && hm_golden_environment(3) && hm_golden_environment(0));
    fesetround(FE_UPWARD);
    bool fine = hm_golden_environment(1);
    fesetround(FE_TONEAREST);
    cr_assert(!fine);
#ifdef __x86_64__
    unsigned csr = _mm_getcsr();
    for (unsigned flag = 0x0040; flag <= 0x8000; flag += 0x8000 - 0x0040) { /* DAZ, FTZ */
        _mm_setcsr(csr | flag);
        volatile double tiny = 0x1p-1022, half = 0.5;
        bool flushes = flag == 0x8000 ? tiny * half == 0 : tiny * half * 2 == 0; /* an emulator may ignore the flag */
        fine = hm_golden_environment(1);
        _mm_setcsr(csr);
        cr_assert(!flushes || !fine, "flag %#x", flag);
    }
#endif
    cr_assert(hm_golden_environment(1));
}

/* Rows do not depend on the rows beside them, on the number of threads that open has, or on what was asked before. */
Test(golden, rows_are_independent) {
    c = (call){.op = "fused_add_rms_norm",
               .T = HM_BF16,
               .R = HM_BF16,
               .residual = HM_BF16,
               .W = HM_F32,
               .read = 1,
               .eps = 1e-6};
    fill(9);
    hm_golden *a = open_call(1), *b = open_call(4);
    for (int64_t t = ROWS - 1; t >= 0; t--)
        for (int i = 0; i < 2; i++) {
            get(a, arg_named("out"), t, HM_CHAIN64, HM_TIER_TWO, &one);
            get(b, arg_named("out"), (t + 1) % ROWS, HM_ANY, HM_TIER_MPFR, &two);
            get(b, arg_named("out"), t, HM_CHAIN64, HM_TIER_TWO, &two);
            for (int k = 0; k < HIDDEN; k++)
                cr_assert(same_number(one.lo[k], two.lo[k]) && same_number(one.hi[k], two.hi[k]) &&
                          one.flags[k] == two.flags[k] && same_number(one.ideal[k], two.ideal[k]) &&
                          same_number(one.exact[k], two.exact[k]));
        }
    hm_golden_close(a);
    hm_golden_close(b);
}
