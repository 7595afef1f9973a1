/* Every generator has the property that it is there for, in every dtype, for a sum (fused_add_rms_norm) and without
 * one. */
#include "../../certify/generate.h"

#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../certify/call.h"
#include "../../op/dtype.h"

static const char *const dtype_names[] = {"f32", "f16", "bf16"};
#define EVERY_DTYPE(d) for (int d = 0; d < 3; d++)

typedef struct {
    hm_call *call;
    hm_dtype type;
    int64_t rows, n;
    bool sum;
    double *x, *residual, *weight; /* as stored; NULL if absent */
    double *z;                     /* x, or x + residual, exact */
} data;

static double *loaded(const hm_call *call, const char *name) {
    for (int i = 0; i < call->op->nargs; i++) {
        const hm_tensor *t = hm_arg_tensor(call->op, call->golden_args, i);
        if (strcmp(call->op->args[i].name, name) || t->dtype == HM_DTYPE_NONE) continue;
        double *v = malloc((size_t)hm_tensor_elements(t) * sizeof *v);
        hm_load_row(t->dtype, t->data, 1, hm_tensor_elements(t), v);
        return v;
    }
    return NULL;
}

static data generated(bool sum, const char *dtype, int64_t rows, int64_t n, const char *rest) {
    char line[512], why[512];
    hm_case_spec spec;
    data d = {.rows = rows, .n = n, .sum = sum, .type = hm_dtype_named(dtype)};
    snprintf(line, sizeof line, "%srms_norm x=%s[%lld,%lld] %s", sum ? "fused_add_" : "", dtype, (long long)rows,
             (long long)n, rest);
    cr_assert_eq(hm_case_parse(line, &spec, why, sizeof why), HM_OK, "%s: %s", line, why);
    cr_assert_eq(hm_call_from_case(&spec, &d.call, why, sizeof why), HM_OK, "%s: %s", line, why);
    d.x = loaded(d.call, "x"), d.residual = loaded(d.call, "residual"), d.weight = loaded(d.call, "weight");
    d.z = malloc((size_t)(rows * n) * sizeof *d.z);
    for (int64_t i = 0; i < rows * n; i++) d.z[i] = d.x[i] + (sum ? d.residual[i] : 0);
    return d;
}

static void done(data *d) {
    hm_call_free(d->call);
    free(d->x), free(d->residual), free(d->weight), free(d->z);
}

static double mean_square(const double *v, int64_t n) {
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += v[i] * v[i];
    return s / (double)n;
}

/* ---- what holds for all of them ---------------------------------------------------------------- */

/* The same bits on every machine, in every thread count, for every stride; and each name, argument and seed has its
 * own. */
Test(generate, values_are_fixed) {
    static const struct {
        const char *name;
        uint64_t hash; /* of 'fused_add_rms_norm x=bf16[9,40] weight=f32 gen=NAME seed=7' */
    } known[] = {
        {"normal", 0x273b5e47a315e562u},       {"heavy", 0x0fde9ef0f2cdcd2cu},
        {"offset16", 0x8aaf98431c536997u},     {"offset100", 0x98860216d658d0d6u},
        {"tiny", 0x3eace10a3ed18628u},         {"huge", 0x165bd2e9c145f342u},
        {"cancelling", 0xcc685e0518b9f811u},   {"ties", 0x5bab2e19cb68bd72u},
        {"exact", 0x8829c4f16237f25du},        {"stagnate", 0x6ee53135d70a4042u},
        {"zero", 0xdeb3cf1778e1047au},         {"special", 0x2b92780071c9cbbfu},
        {"subnormal", 0x995838f544b684fdu},    {"index", 0x306f8211dddcd265u},
        {"sparse", 0xb8533cc2f8e55351u},       {"bits", 0xefb066e3f8ef793du},
        {"out_of_range", 0x751723429af136a2u}, {"uniform", 0x5cc09280bc4e2518u},
        {"crowd_tenth", 0x1394195202f47f53u},  {"crowd_thousandth", 0xf59977416e0dc958u},
        {"ten_values", 0x3a9cd3c70c83768cu},   {"equal", 0xc36507b7d5eb916bu},
        {"relu", 0x893f1a806cbdaa4eu},         {"winners", 0x2509780009941533u},
        {"integers", 0xd33913e699f7c184u},
    };
    cr_assert_eq((int)(sizeof known / sizeof *known), hm_generator_count());
    for (int g = 0; g < hm_generator_count(); g++) {
        char rest[128];
        snprintf(rest, sizeof rest, "weight=f32 gen=%s seed=7", hm_generator_at(g)->name);
        data d = generated(true, "bf16", 9, 40, rest);
        cr_expect_str_eq(known[g].name, hm_generator_at(g)->name);
        cr_expect_eq(d.call->inputs_xxh3, known[g].hash, "{\"%s\", 0x%016llxu},", known[g].name,
                     (unsigned long long)d.call->inputs_xxh3);
        done(&d);
    }
}

Test(generate, threads_and_strides_change_nothing) {
    for (int g = 0; g < hm_generator_count(); g++) {
        char rest[160];
        uint64_t hash[3];
        for (int k = 0; k < 3; k++) {
            omp_set_num_threads(k == 0 ? 1 : 7);
            snprintf(rest, sizeof rest, "weight=f32 gen=%s%s", hm_generator_at(g)->name,
                     k == 2 ? " stride=x:-400,-1;residual:1,300;weight:3" : "");
            data d = generated(true, "f16", 300, 400, rest);
            hash[k] = d.call->inputs_xxh3;
            done(&d);
        }
        cr_expect_eq(hash[0], hash[1], "%s: threads", hm_generator_at(g)->name);
        cr_expect_eq(hash[0], hash[2], "%s: strides", hm_generator_at(g)->name);
    }
}

/* Rows that share memory are filled one after the other, whatever the number of threads. */
Test(generate, overlapping_rows_are_filled_in_order) {
    uint64_t hash[2];
    for (int k = 0; k < 2; k++) {
        omp_set_num_threads(k ? 7 : 1);
        data d = generated(true, "f32", 2000, 400, "stride=x:3,1;residual:0,1");
        hash[k] = d.call->inputs_xxh3;
        cr_expect_eq(d.x[3], d.x[400], "they do not share memory");
        done(&d);
    }
    cr_expect_eq(hash[0], hash[1]);
}

Test(generate, names_are_unique_and_said) {
    for (int g = 0; g < hm_generator_count(); g++) {
        const hm_generator *is = hm_generator_at(g);
        cr_expect_eq(hm_generator_named(is->name), is);
        cr_expect(strlen(is->about) > 10);
        cr_expect_eq(is->separates == HM_SEPARATES_SUMS, !strcmp(is->name, "stagnate"));
    }
    cr_expect_null(hm_generator_named("none"));
    cr_expect_null(hm_generator_at(-1));
    cr_expect_null(hm_generator_at(hm_generator_count()));
}

/* No generator leaves a tensor of zeros or of one value, so that a case can tell its elements apart. */
Test(generate, inputs_are_diverse) {
    for (int g = 0; g < hm_generator_count(); g++) EVERY_DTYPE(t) {
            if (!strcmp(hm_generator_at(g)->name, "equal")) continue; /* that is what it is for */
            char rest[64];
            snprintf(rest, sizeof rest, "weight=f32 gen=%s", hm_generator_at(g)->name);
            data d = generated(false, dtype_names[t], 12, 64, rest);
            int64_t nonzero = 0, changes = 0;
            for (int64_t i = 0; i < d.rows * d.n; i++) {
                nonzero += d.x[i] != 0;
                changes += i > 0 && d.x[i] != d.x[i - 1];
            }
            cr_expect(nonzero > d.rows * d.n / 40, "%s %s", rest, dtype_names[t]);
            cr_expect(changes > d.rows * d.n / 20, "%s %s", rest, dtype_names[t]);
            done(&d);
        }
}

/* ---- one by one -------------------------------------------------------------------------------- */

static void moments(const double *v, int64_t n, double mean, double sd, double slack) {
    double s = 0, q = 0;
    for (int64_t i = 0; i < n; i++) s += v[i];
    for (int64_t i = 0; i < n; i++) q += (v[i] - s / (double)n) * (v[i] - s / (double)n);
    cr_expect(fabs(s / (double)n - mean) <= slack * sd, "mean %g, not %g", s / (double)n, mean);
    cr_expect(fabs(sqrt(q / (double)n) - sd) <= slack * sd, "deviation %g, not %g", sqrt(q / (double)n), sd);
}

Test(generate, normal_and_offset) {
    data d = generated(true, "f32", 40, 4096, "weight=f32");
    moments(d.x, 40 * 4096, 0, 1, 0.01);
    moments(d.residual, 40 * 4096, 0, 1, 0.01);
    moments(d.z, 40 * 4096, 0, sqrt(2), 0.01);
    moments(d.weight, 4096, 1, 0.25, 0.05);
    done(&d);
    d = generated(false, "bf16", 3, 4096, "weight=f32 weight_form=one_plus");
    moments(d.weight, 4096, 0, 0.25, 0.05);
    done(&d);
    d = generated(true, "f32", 3, 4096, "gen=offset16");
    moments(d.x, 3 * 4096, 16, 1, 0.04);
    moments(d.residual, 3 * 4096, 0, 1, 0.04);
    done(&d);
    d = generated(false, "f16", 3, 4096, "gen=offset100");
    moments(d.x, 3 * 4096, 100, 1, 0.04);
    done(&d);
}

static int by_value(const void *a, const void *b) {
    double p = *(const double *)a, q = *(const double *)b;
    return (p > q) - (p < q);
}

Test(generate, heavy_has_outlier_channels) {
    EVERY_DTYPE(t) for (int sum = 0; sum < 2; sum++) {
        data d = generated(sum, dtype_names[t], 64, 512, "weight=f32 gen=heavy");
        double rms[512], sorted[512];
        int outliers = 0;
        for (int c = 0; c < 512; c++) {
            double s = 0;
            for (int r = 0; r < 64; r++) s += d.z[r * 512 + c] * d.z[r * 512 + c];
            rms[c] = sorted[c] = sqrt(s / 64);
        }
        qsort(sorted, 512, sizeof *sorted, by_value);
        for (int c = 0; c < 512; c++) outliers += rms[c] > 25 * sorted[256];
        cr_expect(outliers >= 1 && outliers <= 24, "%d outlier channels", outliers);
        double fourth = 0;
        for (int64_t i = 0; i < 64 * 512; i++) {
            cr_assert(isfinite(hm_round_to(d.type, d.z[i])), "%g", d.z[i]);
            fourth += d.z[i] * d.z[i] * d.z[i] * d.z[i];
        }
        double ms = mean_square(d.z, 64 * 512);
        cr_expect(fourth / (64 * 512) > 10 * ms * ms, "kurtosis %g", fourth / (64 * 512) / (ms * ms));
        done(&d);
    }
}

Test(generate, tiny_is_far_below_eps) {
    EVERY_DTYPE(t) for (int sum = 0; sum < 2; sum++) {
        data d = generated(sum, dtype_names[t], 12, 512, "gen=tiny");
        double least = INFINITY, most = 0;
        for (int r = 0; r < 12; r++) {
            double ms = mean_square(d.z + r * 512, 512);
            cr_expect(ms > 0 && ms < 1e-8, "row %d: %g", r, ms);
            least = ms < least ? ms : least, most = ms > most ? ms : most;
        }
        cr_expect(most > 5e-11 && least < most * (d.type == HM_F16 ? 1e-2 : 1e-20));
        done(&d);
    }
}

Test(generate, huge_squares_overflow) {
    EVERY_DTYPE(t) for (int sum = 0; sum < 2; sum++) {
        data d = generated(sum, dtype_names[t], 9, 512, "gen=huge");
        for (int r = 0; r < 9; r++) {
            double ms = mean_square(d.z + r * 512, 512), top = 0;
            for (int c = 0; c < 512; c++) {
                cr_assert(isfinite(hm_round_to(d.type, d.z[r * 512 + c])));
                top = fmax(top, fabs(d.z[r * 512 + c]));
            }
            if (r % 3 == 0) cr_expect(ms < 10);
            if (r % 3 == 1 && d.type == HM_F16) cr_expect(ms > 65504 && top > 12000, "%g %g", ms, top);
            if (r % 3 == 1 && d.type != HM_F16) cr_expect(ms > FLT_MAX, "%g", ms);
            if (r % 3 == 2 && d.type != HM_F16) cr_expect(ms > 1e30 && ms * 512 < FLT_MAX, "%g", ms);
        }
        done(&d);
    }
}

Test(generate, cancelling_cancels) {
    EVERY_DTYPE(t) {
        data d = generated(true, dtype_names[t], 12, 512, "gen=cancelling");
        for (int r = 0; r < 12; r++) {
            double ratio = sqrt(mean_square(d.z + r * 512, 512) / mean_square(d.x + r * 512, 512));
            cr_expect(ratio > 0 && ratio < 0.1, "row %d: %g", r, ratio);
        }
        done(&d);
        d = generated(false, dtype_names[t], 2, 512, "gen=cancelling");
        cr_expect(mean_square(d.x, 512) > 1e5);
        int small = 0;
        for (int c = 0; c < 512; c++) small += d.x[c] != 0 && fabs(d.x[c]) < 1e-2;
        cr_expect_eq(small, 256);
        done(&d);
    }
}

/* Distance of v to the nearest boundary between two values of dtype, relative to v. */
static double to_boundary(hm_dtype dtype, double v) {
    double near = hm_round_to(dtype, v), other = v > near   ? hm_next_up(dtype, near)
                                                 : v < near ? hm_next_down(dtype, near)
                                                            : near;
    if (v == near) return INFINITY;
    return fabs(v - (near + other) / 2) / fabs(v);
}

/* Counts results x*rs*w at a rounding boundary of T: on it, or up to 4 * 2^-23 + 2^-24 < 5.5e-7 to either side. */
static void expect_ties(const char *dtype, bool sum, const char *rest, double share, double on_share) {
    data d = generated(sum, dtype, 6, 1000, rest);
    double eps = d.call->spec.param[0];
    bool one_plus = strstr(rest, "one_plus");
    int64_t near = 0, on = 0, below = 0, above = 0, total = 0;
    for (int r = 0; r < 6; r += sum ? 2 : 1) {
        double rs = 1 / sqrt(mean_square(d.z + r * 1000, 1000) + eps);
        for (int c = 0; c < 1000; c++, total++) {
            double y = d.z[r * 1000 + c] * rs * ((one_plus ? 1 : 0) + d.weight[c]), distance = to_boundary(d.type, y);
            if (!(distance < 5.5e-7)) continue;
            near++;
            on += distance == 0;
            double low = hm_round_to(d.type, y);
            if (distance > 0 && fabs(low) < fabs(y)) below++;
            if (distance > 0 && fabs(low) > fabs(y)) above++;
        }
    }
    cr_expect((double)near >= share * (double)total, "%s %s: %lld of %lld near", dtype, rest, (long long)near,
              (long long)total);
    cr_expect((double)on >= on_share * (double)total, "%s %s: %lld of %lld on", dtype, rest, (long long)on,
              (long long)total);
    if (share > 0.9)
        cr_expect(below > total / 10 && above > total / 10, "%lld below, %lld above", (long long)below,
                  (long long)above);
    done(&d);
}

Test(generate, ties_of_results) {
    for (int sum = 0; sum < 2; sum++) {
        expect_ties("bf16", sum, "weight=f32 eps=0 gen=ties", 0.95, 0.04);
        expect_ties("f16", sum, "weight=f32 eps=0 gen=ties", 0.95, 0.04);
        expect_ties("bf16", sum, "weight=f32 eps=1e-6 gen=ties", 0.5, 0);
        expect_ties("f16", sum, "weight=f32 eps=1e-6 weight_form=one_plus gen=ties", 0.5, 0);
        expect_ties("bf16", sum, "weight=f32 eps=0 weight_form=one_plus gen=ties", 0.95, 0.04);
        expect_ties("bf16", sum, "weight=bf16 eps=0 gen=ties", 0.35, 0.35);
        expect_ties("f16", sum, "weight=f16 eps=0 gen=ties", 0.35, 0.35);
        expect_ties("f32", sum, "weight=f32 eps=0 gen=ties", 0.35, 0.35);
        expect_ties("bf16", sum, "weight=bf16 eps=0 weight_form=one_plus gen=ties", 0.9, 0.9);
        expect_ties("f16", sum, "weight=f16 eps=0 weight_form=one_plus gen=ties", 0.9, 0.9);
    }
}

Test(generate, ties_of_sums) {
    EVERY_DTYPE(t) {
        data d = generated(true, dtype_names[t], 8, 1000, "weight=f32 gen=ties");
        int on = 0, even_below = 0, off = 0;
        for (int r = 1; r < 8; r += 2)
            for (int c = 0; c < 1000; c++) {
                double z = d.z[r * 1000 + c], distance = to_boundary(d.type, z);
                on += distance == 0;
                even_below += distance == 0 && fabs(hm_round_to(d.type, z)) < fabs(z);
                off += distance > 0 && distance < hm_ulp(d.type, 1) / 16;
            }
        cr_expect(on > 1200, "%d of 4000 on", on);
        cr_expect(even_below > on / 4 && even_below < on * 3 / 4, "%d of %d down", even_below, on);
        cr_expect(off > 1000, "%d of 4000 beside", off);
        done(&d);
    }
}

/* Mean squares are powers of 4, roots and results values of T: no legal arithmetic can round anything. */
static void expect_exact(const char *dtype, bool sum, int64_t n, int64_t mean, const char *weight) {
    char rest[160];
    snprintf(rest, sizeof rest, "%s eps=0 gen=exact variance_size=%lld", weight, (long long)(mean == n ? 0 : mean));
    data d = generated(sum, dtype, 6, n, rest);
    bool one_plus = strstr(rest, "one_plus");
    for (int r = 0; r < 6; r++) {
        const double *z = d.z + r * n;
        double ms = mean_square(z, mean), root = r % 3 == 0 ? 2 : r % 3 == 1 ? 4 : 8;
        cr_expect_eq(ms, root * root, "%s %s[6,%lld] row %d: %g", rest, dtype, (long long)n, r, ms);
        cr_expect((double)mean * ms <= 16777216, "the sum of squares is not exact in f32");
        for (int64_t c = 0; c < n; c++) {
            double w = d.weight ? d.weight[c] + (one_plus ? 1 : 0) : 1, first = z[c] / root, y = first * w;
            cr_expect(fabs(w) == 0.5 || fabs(w) == 1 || fabs(w) == 1.5 || fabs(w) == 2, "%g", w);
            cr_expect_eq(hm_round_to(d.type, z[c]), z[c]);
            cr_expect_eq(hm_round_to(d.type, first), first);
            cr_expect_eq(hm_round_to(d.type, y), y);
        }
    }
    done(&d);
}

Test(generate, exact_rounds_nothing) {
    static const char *const weights[] = {"weight=none", "weight=f32", "weight=f32 weight_form=one_plus"};
    static const int64_t widths[] = {1, 5, 8, 61, 64, 768, 4099};
    EVERY_DTYPE(t)
    for (int sum = 0; sum < 2; sum++)
        for (int w = 0; w < 3; w++)
            for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
                expect_exact(dtype_names[t], sum, widths[i], widths[i], weights[w]);
                if (widths[i] > 8) expect_exact(dtype_names[t], sum, widths[i], widths[i] - 5, weights[w]);
            }
    expect_exact("bf16", true, 256, 256, "weight=bf16");
    expect_exact("f16", false, 256, 256, "weight=f16 weight_form=one_plus");
}

/* A sum in f32 in the order from `at` on, step by step (+1 or -1). */
static float running_sum(const double *z, int64_t n, bool backward) {
    volatile float s = 0;
    for (int64_t i = 0; i < n; i++) {
        float v = (float)z[backward ? n - 1 - i : i];
        s = s + v * v;
    }
    return s;
}

Test(generate, stagnate_stops_running_sums) {
    static const double ones[7] = {1, 8, 16, 32, 128, 256, 1024};
    EVERY_DTYPE(t) for (int sum = 0; sum < 2; sum++) {
        data d = generated(sum, dtype_names[t], 21, 4096, "weight=f32 gen=stagnate seed=21");
        for (int r = 0; r < 21; r++) {
            const double *z = d.z + r * 4096;
            int64_t count = 0;
            double small = INFINITY, exact = 0;
            for (int c = 0; c < 4096; c++) {
                count += fabs(z[c]) == 1;
                small = fmin(small, fabs(z[c]));
                exact += z[c] * z[c];
            }
            int place = r / 7;
            cr_expect_eq((double)count, ones[r % 7], "row %d has %lld ones", r, (long long)count);
            double limit = (place == 2 ? 1 : ones[r % 7]) * 0x1p-24, next = hm_next_up(d.type, small);
            cr_expect(small * small < limit && next * next >= limit, "row %d: %a", r, small);
            double lost = (exact - running_sum(z, 4096, place == 1)) / exact * 0x1p24;
            if (place < 2) {
                cr_expect_eq(running_sum(z, 4096, place == 1), (float)ones[r % 7], "row %d", r);
                cr_expect(lost > 2000 * (1 - ones[r % 7] / 4096), "row %d loses %g u", r, lost);
            } else { /* each chunk stays at 1 by itself */
                int64_t chunk = 4096 / count;
                for (int64_t k = 0; k < count; k++)
                    cr_expect_eq(running_sum(z + k * chunk, chunk, false), 1, "row %d chunk %lld", r, (long long)k);
            }
        }
        done(&d);
    }
}

Test(generate, stagnate_fits_small_rows) {
    for (int n = 1; n < 40; n++) {
        data d = generated(false, "f32", 21, n, "gen=stagnate");
        for (int r = 0; r < 21; r++) {
            int count = 0;
            for (int c = 0; c < n; c++) count += fabs(d.x[r * n + c]) == 1;
            cr_expect(count >= 1 && (count <= n / 2 || n == 1), "n %d row %d: %d ones", n, r, count);
        }
        done(&d);
    }
}

Test(generate, zero_rows_beside_others) {
    EVERY_DTYPE(t) for (int sum = 0; sum < 2; sum++) {
        data d = generated(sum, dtype_names[t], 12, 64, "gen=zero");
        int after_adding = 0;
        for (int r = 0; r < 12; r++) {
            cr_expect_eq(mean_square(d.z + r * 64, 64) == 0, r % 3 == 1, "row %d", r);
            after_adding += mean_square(d.z + r * 64, 64) == 0 && mean_square(d.x + r * 64, 64) > 0;
        }
        cr_expect_eq(after_adding, sum ? 2 : 0);
        done(&d);
    }
}

Test(generate, special_values_in_rows_of_their_own) {
    EVERY_DTYPE(t) for (int sum = 0; sum < 2; sum++) {
        data d = generated(sum, dtype_names[t], 32, 96, "weight=f32 variance_size=80 gen=special");
        int nan_inside = 0, nan_outside = 0, inf = 0, clean = 0, minus_zero = 0, low = 0, top = 0, over = 0,
            new_nan = 0;
        for (int r = 0; r < 32; r++) {
            int odd = 0;
            for (int c = 0; c < 96; c++) {
                double x = d.x[r * 96 + c], z = d.z[r * 96 + c];
                nan_inside += isnan(x) && c < 80, nan_outside += isnan(x) && c >= 80, inf += isinf(x) != 0;
                minus_zero += x == 0 && signbit(x), low += x != 0 && fabs(x) < hm_dtype_min_normal(d.type);
                top += fabs(x) == hm_dtype_max(d.type);
                over += isfinite(x) && isfinite(z) && isinf(hm_round_to(d.type, z));
                new_nan += isnan(z) && !isnan(x);
                odd += !isfinite(z);
            }
            clean += odd == 0;
        }
        cr_expect_eq(nan_inside, 4);
        cr_expect_eq(nan_outside, 4);
        cr_expect(inf >= 12 && clean >= 8 && minus_zero > 50 && low > 50 && top >= 8, "%d %d %d %d %d", inf, clean,
                  minus_zero, low, top);
        if (sum) cr_expect(over >= 2 && new_nan >= 3, "%d %d", over, new_nan);
        int weights = 0;
        for (int c = 0; c < 96; c++) weights += !isfinite(d.weight[c]);
        cr_expect_eq(weights, 3);
        done(&d);
    }
}

Test(generate, subnormal_inputs_and_results) {
    EVERY_DTYPE(t) for (int sum = 0; sum < 2; sum++) {
        data d = generated(sum, dtype_names[t], 8, 256, "weight=f32 gen=subnormal");
        int low = 0, results = 0;
        for (int r = 0; r < 8; r++) {
            double rs = 1 / sqrt(mean_square(d.z + r * 256, 256) + 1e-6);
            for (int c = 0; c < 256; c++) {
                low += d.x[r * 256 + c] != 0 && fabs(d.x[r * 256 + c]) < hm_dtype_min_normal(d.type);
                double y = fabs(d.z[r * 256 + c] * rs * d.weight[c]);
                results += y > hm_ulp(d.type, 0) && y < hm_dtype_min_normal(d.type);
            }
        }
        cr_expect(low >= 4 * 256, "%d subnormal inputs", low);
        cr_expect(results > 100, "%d subnormal results", results);
        done(&d);
    }
}

/* An index map that is off by one row, one column, or one pitch gives other values nearly everywhere. */
Test(generate, index_tells_elements_apart) {
    EVERY_DTYPE(t) for (int sum = 0; sum < 2; sum++) {
        data d = generated(sum, dtype_names[t], 40, 100, "weight=f32 gen=index");
        for (int64_t shift = 1; shift <= 300; shift++) {
            int same = 0;
            for (int64_t i = 0; i + shift < 4000; i++) same += d.x[i] == d.x[i + shift];
            cr_expect(same < 4000 / 3, "shift %lld leaves %d of 4000", (long long)shift, same);
        }
        for (int64_t i = 0; i < 4000; i++) cr_expect_eq(hm_round_to(HM_BF16, d.z[i]), d.z[i], "%g", d.z[i]);
        for (int64_t c = 1; c < 100; c++) cr_expect_neq(d.weight[c], d.weight[c - 1]);
        done(&d);
    }
}

Test(generate, sparse_is_mostly_zero_and_never_all) {
    EVERY_DTYPE(t) {
        data d = generated(false, dtype_names[t], 200, 50, "gen=sparse");
        int nonzero = 0;
        for (int r = 0; r < 200; r++) {
            int here = 0;
            for (int c = 0; c < 50; c++) here += d.x[r * 50 + c] != 0;
            cr_expect(here >= 1, "row %d", r);
            nonzero += here;
        }
        cr_expect(nonzero > 500 && nonzero < 1300, "%d of 10000", nonzero);
        done(&d);
    }
}
