/* ref against the formula of the headers in 300-bit arithmetic, every mode and dtype; and what ref promises besides:
 * the same bits for any thread count, instruction set, strides, place of the output and number of rows in the call. */
#include <criterion/criterion.h>
#include <hallmark/fused_add_rms_norm.h>
#include <hallmark/op.h>
#include <math.h>
#include <mpfr.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "../../op/dtype.h"

enum { MAX_HIDDEN = 1100, MAX = 40 * 700 };

/* One call of either op; values as stored in their dtype. */
typedef struct {
    bool fused;
    hm_dtype T, W, residual_in, R; /* W: HM_DTYPE_NONE for no weight */
    hm_round round;
    hm_weight_form form;
    hm_residual_read read;
    hm_residual_dtype residual_dtype;
    int64_t rows, hidden, variance_size;
    double eps;
    double x[MAX], residual[MAX], weight[MAX_HIDDEN];
} problem;

/* How the tensors lie in memory. Strides in elements; 0 means dense. */
typedef struct {
    int64_t row_gap, step; /* elements between rows, and from one element to the next */
    bool in_place, backwards;
} layout;

/* Codes of both outputs, as stored. */
typedef struct {
    uint32_t out[MAX], sum[MAX];
} answer;

static problem p;
static answer expected, got, low, high;

/* ---- the formula
 * ---------------------------------------------------------------------------------------------------------- */

/* v := RN_T(v), subnormals and overflow included, in one rounding. */
static void round_mpfr(hm_dtype T, mpfr_t v) {
    int precision = T == HM_F32 ? 24 : T == HM_F16 ? 11 : 8, least = T == HM_F16 ? -24 : T == HM_BF16 ? -133 : -149;
    mpfr_exp_t low = mpfr_get_emin(), high = mpfr_get_emax();
    mpfr_t r;
    mpfr_init2(r, precision);
    int ternary = mpfr_set(r, v, MPFR_RNDN);
    mpfr_set_emin(least + 1);
    mpfr_set_emax(T == HM_F16 ? 16 : 128);
    ternary = mpfr_check_range(r, ternary, MPFR_RNDN);
    mpfr_subnormalize(r, ternary, MPFR_RNDN);
    mpfr_set_emin(low);
    mpfr_set_emax(high);
    mpfr_set(v, r, MPFR_RNDN);
    mpfr_clear(r);
}

static uint32_t code(hm_dtype T, double v) {
    uint32_t c = 0;
    hm_store(T, &c, v);
    return c;
}

/* out[t,:] = s[t,:] / sqrt(mean(s[t,:V]^2) + eps) * weight[:],  s = x or x + residual.  rs is taken times 1 + slack. */
static void formula(double slack, answer *a) {
    mpfr_t s[MAX_HIDDEN], sum, square, v, w;
    mpfr_inits2(300, sum, square, v, w, (mpfr_ptr)0);
    for (int64_t i = 0; i < p.hidden; i++) mpfr_init2(s[i], 300);
    int64_t V = p.variance_size ? p.variance_size : p.hidden;
    for (int64_t t = 0; t < p.rows; t++) {
        mpfr_set_zero(sum, 1);
        for (int64_t i = 0; i < p.hidden; i++) {
            mpfr_set_d(s[i], p.x[t * p.hidden + i], MPFR_RNDN);
            if (p.fused) {
                mpfr_add_d(s[i], s[i], p.residual[t * p.hidden + i], MPFR_RNDN);
                mpfr_set(v, s[i], MPFR_RNDN);
                round_mpfr(p.R, v);
                a->sum[t * p.hidden + i] = code(p.R, mpfr_get_d(v, MPFR_RNDN));
                if (p.read == HM_READ_ROUNDED || p.R == HM_F32) mpfr_set(s[i], v, MPFR_RNDN);
            }
            mpfr_sqr(square, s[i], MPFR_RNDN);
            if (i < V) mpfr_add(sum, sum, square, MPFR_RNDN);
        }
        mpfr_div_si(sum, sum, (long)V, MPFR_RNDN);
        mpfr_add_d(sum, sum, (double)(float)p.eps, MPFR_RNDN);
        mpfr_rec_sqrt(sum, sum, MPFR_RNDN);
        mpfr_mul_d(sum, sum, 1 + slack, MPFR_RNDN);
        for (int64_t i = 0; i < p.hidden; i++) {
            mpfr_mul(v, s[i], sum, MPFR_RNDN);
            if (p.W) {
                if (p.round == HM_ROUND_NORM_FIRST) round_mpfr(p.T, v);
                mpfr_set_d(w, p.weight[i], MPFR_RNDN);
                if (p.form == HM_WEIGHT_ONE_PLUS) mpfr_add_ui(w, w, 1, MPFR_RNDN);
                mpfr_mul(v, v, w, MPFR_RNDN);
            }
            round_mpfr(p.T, v);
            a->out[t * p.hidden + i] = code(p.T, mpfr_get_d(v, MPFR_RNDN));
        }
    }
    for (int64_t i = 0; i < p.hidden; i++) mpfr_clear(s[i]);
    mpfr_clears(sum, square, v, w, (mpfr_ptr)0);
}

/* ---- running ref
 * ------------------------------------------------------------------------------------------------------------ */

typedef struct {
    unsigned char *memory;
    size_t bytes;
    hm_tensor t;
} placed;

static placed place(hm_dtype dtype, int64_t rows, int64_t hidden, const double *values, layout l) {
    int64_t step = l.step ? l.step : 1, row_stride = hidden * step + l.row_gap;
    size_t size = hm_dtype_size(dtype);
    placed r = {.bytes = (size_t)(rows * row_stride + 1) * size};
    r.memory = malloc(r.bytes);
    memset(r.memory, 0x6B, r.bytes);
    r.t = hm_tensor_of(r.memory, dtype, 2, (int64_t[]){rows, hidden});
    r.t.stride[0] = row_stride;
    r.t.stride[1] = step;
    if (l.backwards) {
        r.t.data = r.memory + (size_t)((rows - 1) * row_stride + (hidden - 1) * step) * size;
        r.t.stride[0] = -row_stride;
        r.t.stride[1] = -step;
    }
    for (int64_t t = 0; values && t < rows; t++)
        for (int64_t i = 0; i < hidden; i++)
            hm_store(dtype, (char *)r.t.data + (t * r.t.stride[0] + i * r.t.stride[1]) * (int64_t)size,
                     values[t * hidden + i]);
    return r;
}

/* Reads the codes and checks that nothing between the elements was written. */
static void collect(const placed *r, uint32_t *codes) {
    size_t size = hm_dtype_size(r->t.dtype);
    for (int64_t t = 0; t < r->t.shape[0]; t++)
        for (int64_t i = 0; i < r->t.shape[1]; i++) {
            unsigned char *at = r->memory + (size_t)(t * r->t.stride[0] + i * r->t.stride[1]) * size;
            codes[t * r->t.shape[1] + i] = 0;
            memcpy(&codes[t * r->t.shape[1] + i], at, size);
            memset(at, 0x6B, size);
        }
    for (size_t i = 0; i < r->bytes; i++) cr_assert(r->memory[i] == 0x6B, "a byte between the elements was written");
}

static void run(layout in, layout out, answer *a) {
    layout vector = {.step = in.step, .backwards = in.backwards};
    placed x = place(p.T, p.rows, p.hidden, p.x, in.in_place ? out : in), y = {0};
    placed w = place(p.W ? p.W : HM_F32, 1, p.hidden, p.weight, vector), r = {0}, z = {0};
    w.t.ndim = 1;
    w.t.shape[0] = p.hidden;
    w.t.stride[0] = w.t.stride[1];
    w.t.dtype = p.W;
    y = in.in_place ? x : place(p.T, p.rows, p.hidden, NULL, out);
    hm_status status;
    if (p.fused) {
        bool in_place = in.in_place && p.residual_in == p.R;
        r = place(p.residual_in, p.rows, p.hidden, p.residual, in_place ? out : in);
        z = in_place ? r : place(p.R, p.rows, p.hidden, NULL, out);
        status = hm_fused_add_rms_norm_ref(
            HM_ARGS(fused_add_rms_norm, .out = y.t, .residual_out = z.t, .x = x.t, .residual = r.t, .weight = w.t,
                    .eps = p.eps, .round = p.round, .weight_form = p.form, .residual_read = p.read,
                    .residual_dtype = p.residual_dtype, .variance_size = p.variance_size));
    } else
        status = hm_rms_norm_ref(HM_ARGS(rms_norm, .out = y.t, .x = x.t, .weight = w.t, .eps = p.eps, .round = p.round,
                                         .weight_form = p.form, .variance_size = p.variance_size));
    cr_assert_eq(status, HM_OK, "%s", hm_error());
    collect(&y, a->out);
    if (p.fused) collect(&z, a->sum);
    free(w.memory);
    if (y.memory != x.memory) free(y.memory);
    free(x.memory);
    if (z.memory != r.memory) free(z.memory);
    free(r.memory);
}

static bool is_nan(hm_dtype T, uint32_t c) { return isnan(hm_load(T, &c)); }

/* Every code of a lies between those of the same element of low and high; NaN where they are NaN. */
static void between(hm_dtype T, const uint32_t *l, const uint32_t *a, const uint32_t *h, const char *what) {
    for (int64_t i = 0; i < p.rows * p.hidden; i++) {
        double lo = hm_load(T, &l[i]), v = hm_load(T, &a[i]), hi = hm_load(T, &h[i]);
        if (!(isnan(lo) && isnan(hi) ? isnan(v) : fmin(lo, hi) <= v && v <= fmax(lo, hi)))
            cr_assert_fail(
                "%s: %s T %s W %s R %s round %d form %d read %d [%lld,%lld] V %lld element %lld: %a, not %a to %a",
                what, p.fused ? "fused" : "plain", hm_dtype_name(p.T), hm_dtype_name(p.W), hm_dtype_name(p.R), p.round,
                p.form, p.read, (long long)p.rows, (long long)p.hidden, (long long)p.variance_size, (long long)i, v, lo,
                hi);
    }
}

static void same_bits(const answer *a, const answer *b, const char *what) {
    size_t n = (size_t)(p.rows * p.hidden) * sizeof *a->out;
    cr_assert(memcmp(a->out, b->out, n) == 0, "%s changes bits of out", what);
    cr_assert(!p.fused || memcmp(a->sum, b->sum, n) == 0, "%s changes bits of residual_out", what);
}

/* What ref may be off by: with 16 lanes and at most 1100 elements a square passes through 69 + 4 roundings of 2^-53 and
 * three more make the mean, half of which is left under the root; the root, the reciprocal and two products make 4. In
 * all 42 * 2^-53, and forming the sum and 1 + weight 3 more: less than 2^-47. It moves an element only where the exact
 * value is that close to a tie. */
#define SLACK 0x1p-47

static int64_t moved;

static void against_formula(const char *what) {
    formula(0, &expected);
    formula(-SLACK, &low);
    formula(SLACK, &high);
    run((layout){0}, (layout){0}, &got);
    between(p.T, low.out, got.out, high.out, what);
    if (p.fused) between(p.R, expected.sum, got.sum, expected.sum, what);
    for (int64_t i = 0; i < p.rows * p.hidden; i++)
        moved += hm_load(p.T, &low.out[i]) != hm_load(p.T, &high.out[i]) && !is_nan(p.T, low.out[i]);
}

/* ---- inputs
 * ----------------------------------------------------------------------------------------------------------------- */

static uint64_t state;
static double uniform(void) { /* in (-1, 1), 53 bits */
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)((int64_t)state >> 10) * 0x1p-53;
}

/* Rows of different sizes: row t is around 2^(3t - 6); every dtype holds the values. */
static void fill(uint64_t seed) {
    state = seed * 7919;
    for (int64_t i = 0; i < p.rows * p.hidden; i++) {
        double scale = ldexp(1, (int)(3 * (i / p.hidden % 5)) - 6);
        p.x[i] = hm_round_to(p.T, uniform() * scale);
        p.residual[i] = hm_round_to(p.residual_in, uniform() * scale);
    }
    for (int64_t i = 0; i < p.hidden; i++) p.weight[i] = hm_round_to(p.W ? p.W : HM_F32, 1 + uniform());
}

/* Calls visit for every legal combination of op, modes and dtypes; p.rows, p.hidden, p.eps and values are visit's. */
static int each_combination(void (*visit)(int)) {
    static const hm_dtype real[] = {HM_F32, HM_F16, HM_BF16}, weights[] = {HM_DTYPE_NONE, HM_F32, HM_F16, HM_BF16};
    int n = 0;
    for (int m = 0; m < 2 * 3 * 4 * 3 * 4 * 2; m++) {
        int rest = m;
        p.fused = rest % 2, rest /= 2;
        p.round = rest % 3 == 1, p.form = rest % 3 == 2, rest /= 3;
        p.read = rest % 2, p.residual_dtype = rest / 2 % 2, rest /= 4;
        p.T = real[rest % 3], rest /= 3;
        p.W = weights[rest % 4], rest /= 4;
        bool wide = p.residual_dtype && p.T == HM_F16;
        p.R = wide ? HM_F32 : p.T;
        p.residual_in = rest ? p.R : p.T;
        if ((!p.fused && (p.read || p.residual_dtype)) || (rest && p.residual_in == p.T) ||
            (p.W && p.W != HM_F32 && p.T != HM_F32 && p.W != p.T))
            continue;
        visit(n++);
    }
    return n;
}

static void every_mode(int n) {
    static const int64_t hidden[] = {1, 2, 5, 15, 16, 17, 64, 100, 511, 512, 513, 1029, 1100};
    static const double eps[] = {1e-6, 1e-5, 0, 0.1, 1e-60, 1.0000000001};
    p.hidden = hidden[n % 13];
    p.rows = p.hidden > 512 ? 2 : 5;
    p.eps = eps[n % 6];
    p.variance_size = n % 4 ? 0 : (p.hidden + 1) / 2;
    fill((uint64_t)n);
    against_formula("formula");
    p.hidden = 37, p.rows = 5, p.variance_size = n % 2 ? 37 : 20;
    fill((uint64_t)n + 1000);
    against_formula("formula");
}

Test(ref, formula_in_every_mode) {
    cr_assert_eq(each_combination(every_mode), 30 + 3 * 2 * (10 + 10 + 3));
    cr_assert_eq(moved, 0, "%lld elements were not compared bit for bit", (long long)moved);
}

/* ---- specials
 * ------------------------------------------------------------------------------------------------------------- */

static void specials(int n) {
    static const double values[] = {NAN,     INFINITY, -INFINITY, 0,      -0.0,  1,     -1,
                                    3.38e38, -3.38e38, 65504,     -65504, 1e-38, 1e-45, 6e-8,
                                    -1e-7,   0x1p-126, 0x1p-133,  1e19,   1e-19, 40000};
    enum { N = sizeof values / sizeof *values };
    p.rows = N, p.hidden = 40, p.eps = n % 2 ? 0 : 1e-6, p.variance_size = n % 3 ? 0 : 13;
    fill((uint64_t)n);
    for (int64_t t = 0; t < N; t++) {
        int64_t at = t * p.hidden;
        switch ((n + t) % 5) {
            case 0: /* one such element, among the first V or behind */
                p.x[at + (t % 2 ? 3 : 20)] = hm_round_to(p.T, values[t]);
                break;
            case 1: /* a row of it */
                for (int64_t i = 0; i < p.hidden; i++)
                    p.x[at + i] = hm_round_to(p.T, values[t]), p.residual[at + i] = 0;
                break;
            case 2: /* against itself: inf - inf, zero, overflow of the sum */
                for (int64_t i = 0; i < p.hidden; i++)
                    p.x[at + i] = hm_round_to(p.T, values[t]),
                             p.residual[at + i] = hm_round_to(p.residual_in, (i % 2 ? 1 : -1) * values[t]);
                break;
            case 3: /* in the residual */
                p.residual[at + 5] = hm_round_to(p.residual_in, values[t]);
                break;
            default: /* as the weight of a channel */
                p.weight[t] = hm_round_to(p.W ? p.W : HM_F32, values[t]);
        }
    }
    against_formula("specials");
}

Test(ref, special_values) { each_combination(specials); }

/* The sentences of the contract, one by one. */
Test(ref, special_sentences) {
    p = (problem){.T = HM_BF16,
                  .W = HM_DTYPE_NONE,
                  .rows = 1,
                  .hidden = 8,
                  .variance_size = 4,
                  .R = HM_BF16,
                  .residual_in = HM_BF16};
    fill(1);
    p.x[2] = NAN;
    run((layout){0}, (layout){0}, &got);
    for (int i = 0; i < 8; i++) cr_assert(is_nan(p.T, got.out[i]), "a NaN among the first V makes the row NaN");
    fill(1);
    p.x[6] = NAN;
    run((layout){0}, (layout){0}, &got);
    for (int i = 0; i < 8; i++) cr_assert_eq(is_nan(p.T, got.out[i]), i == 6, "a NaN behind them stays where it is");
    fill(1);
    p.x[1] = -INFINITY;
    run((layout){0}, (layout){0}, &got);
    for (int i = 0; i < 8; i++)
        cr_assert(i == 1 ? is_nan(p.T, got.out[i]) : hm_load(p.T, &got.out[i]) == 0, "an infinity makes rs 0");
    memset(p.x, 0, sizeof p.x);
    run((layout){0}, (layout){0}, &got);
    for (int i = 0; i < 8; i++) cr_assert(is_nan(p.T, got.out[i]), "0 * inf");
    p.eps = 1e-6;
    run((layout){0}, (layout){0}, &got);
    for (int i = 0; i < 8; i++) cr_assert(hm_load(p.T, &got.out[i]) == 0);
}

/* ---- invariance
 * ----------------------------------------------------------------------------------------------------------- */

static void layouts(int n) {
    static const layout ins[] = {
        {.row_gap = 3}, {.step = 2}, {.backwards = true}, {.step = 3, .row_gap = 7, .backwards = true}};
    static const layout outs[] = {{0}, {.row_gap = 5}, {.step = 2}, {.step = 3, .row_gap = 1}};
    p.rows = 3, p.hidden = 530, p.eps = 1e-6, p.variance_size = n % 2 ? 0 : 300;
    fill((uint64_t)n);
    run((layout){0}, (layout){0}, &expected);
    for (int i = 0; i < 4; i++) {
        run(ins[i], outs[i], &got);
        same_bits(&expected, &got, "strides");
        run((layout){.in_place = true}, outs[i], &got);
        same_bits(&expected, &got, "in place");
    }
    if (n % 9) return;
    /* each row alone */
    static problem all;
    all = p;
    static answer whole;
    whole = expected;
    p.rows = 1;
    for (int64_t t = 0; t < all.rows; t++) {
        memcpy(p.x, all.x + t * p.hidden, (size_t)p.hidden * sizeof *p.x);
        memcpy(p.residual, all.residual + t * p.hidden, (size_t)p.hidden * sizeof *p.x);
        run((layout){0}, (layout){0}, &got);
        memmove(expected.out, whole.out + t * p.hidden, (size_t)p.hidden * sizeof *expected.out);
        memmove(expected.sum, whole.sum + t * p.hidden, (size_t)p.hidden * sizeof *expected.sum);
        same_bits(&expected, &got, "a row alone");
    }
}

Test(ref, layout_never_changes_bits) { each_combination(layouts); }

/* Large enough to be shared by threads; NaN of both signs, infinities and subnormals among the values. */
static void threads_and_isa(int n) {
    static const char *const isa[] = {"sse2", "avx2", "avx512", "base"};
    if (n % 4) return;
    const char *best = hm_isa();
    p.rows = 40, p.hidden = 700, p.eps = 1e-6, p.variance_size = 0;
    fill((uint64_t)n);
    for (int64_t i = 0; i < 5; i++) {
        p.x[i * p.hidden + 100 * i] = i % 2 ? NAN : -NAN;
        p.x[(i + 6) * p.hidden + 17] = i % 2 ? INFINITY : -INFINITY;
        p.residual[(i + 12) * p.hidden + i] = i % 2 ? NAN : -NAN;
        p.x[(i + 18) * p.hidden + i] = hm_round_to(p.T, 0x1p-140);
        p.weight[9 * i] = i % 2 ? NAN : -NAN;
        p.weight[9 * i + 1] = i % 2 ? INFINITY : -INFINITY;
    }
    omp_set_num_threads(1);
    run((layout){0}, (layout){0}, &expected);
    for (int threads = 2; threads < 9; threads += 5) {
        omp_set_num_threads(threads);
        run((layout){0}, (layout){0}, &got);
        same_bits(&expected, &got, "the thread count");
    }
    for (int i = 0; i < 4; i++)
        if (hm_isa_limit(isa[i]) == HM_OK) {
            run((layout){0}, (layout){0}, &got);
            same_bits(&expected, &got, isa[i]);
        }
    hm_isa_limit(best);
}

Test(ref, threads_and_isa_never_change_bits) { each_combination(threads_and_isa); }

/* One row read by every token (stride 0), and rank 4 against the same rows as rank 2. */
Test(ref, broadcast_and_ranks) {
    enum { N = 2 * 3 * 2 * 33 };
    static uint16_t x[N], a[N], b[N];
    uint64_t seed = 5;
    for (int i = 0; i < N; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        x[i] = (uint16_t)(0x3C00 + (seed >> 54));
    }
    hm_tensor flat = hm_tensor_of(x, HM_BF16, 2, (int64_t[]){12, 33}),
              deep = hm_tensor_of(x, HM_BF16, 4, (int64_t[]){2, 3, 2, 33});
    hm_tensor out2 = flat, out4 = deep;
    out2.data = a, out4.data = b;
    cr_assert_eq(hm_rms_norm_ref(HM_ARGS(rms_norm, .out = out2, .x = flat, .eps = 1e-6)), HM_OK);
    cr_assert_eq(hm_rms_norm_ref(HM_ARGS(rms_norm, .out = out4, .x = deep, .eps = 1e-6)), HM_OK);
    cr_assert(memcmp(a, b, sizeof a) == 0, "ranks");
    /* the two leading dimensions of the input swapped in memory */
    hm_tensor swapped = deep;
    swapped.shape[0] = 3, swapped.shape[1] = 2;
    swapped.stride[0] = deep.stride[1], swapped.stride[1] = deep.stride[0];
    out4 = hm_tensor_of(b, HM_BF16, 4, swapped.shape);
    cr_assert_eq(hm_rms_norm_ref(HM_ARGS(rms_norm, .out = out4, .x = swapped, .eps = 1e-6)), HM_OK);
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 2; j++)
            cr_assert(memcmp(b + (i * 2 + j) * 66, a + (j * 3 + i) * 66, 132) == 0, "transposed leading dimensions");
    flat.stride[0] = 0;
    cr_assert_eq(hm_rms_norm_ref(HM_ARGS(rms_norm, .out = out2, .x = flat, .eps = 1e-6)), HM_OK);
    for (int t = 1; t < 12; t++) cr_assert(memcmp(a, a + 33 * t, 66) == 0, "one row read by all");
    /* a row whose elements are all the same one */
    flat.stride[1] = 0;
    cr_assert_eq(hm_rms_norm_ref(HM_ARGS(rms_norm, .out = out2, .x = flat)), HM_OK);
    for (int i = 0; i < 12 * 33; i++) cr_assert_eq(a[i], 0x3F80, "x / sqrt(x^2) is 1");
}
