/* Are exact tables correctly rounded? The table of rotary_dim 64 and base 10000, positions 0 to 131071, in f32, against
 * MPFR. rope_exact FILE     the entries that FILE lists (the 1,000 nearest to a rounding boundary), and every 499th of
 * the others rope_exact --all    all 131072 x 64 entries rope_exact --find   prints the 1,000 nearest to a rounding
 * boundary: position, column, log2 of the distance in ulp data/rope_table_hardest.txt is the output of --find. */
#include <hallmark/rope_table.h>
#include <math.h>
#include <mpfr.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { POSITIONS = 131072, HALF = 32, WIDTH = 2 * HALF, HARDEST = 1000, BITS = 160 };

static mpfr_t inv[HALF];

static void make_inv(void) {
    for (int j = 0; j < HALF; j++) { /* 10000^(-j/32) */
        mpfr_init2(inv[j], BITS + 64);
        mpfr_set_ui(inv[j], 10000, MPFR_RNDN);
        mpfr_log(inv[j], inv[j], MPFR_RNDN);
        mpfr_mul_si(inv[j], inv[j], -j, MPFR_RNDN);
        mpfr_div_ui(inv[j], inv[j], HALF, MPFR_RNDN);
        mpfr_exp(inv[j], inv[j], MPFR_RNDN);
    }
}

/* cos and sin of position and frequency j, to BITS bits: no entry is nearer to a boundary than 2^-25 ulp, as --find
 * shows. */
static void truth(int64_t position, int j, mpfr_t cos, mpfr_t sin) {
    mpfr_t angle;
    mpfr_init2(angle, BITS + 64);
    mpfr_mul_si(angle, inv[j], position, MPFR_RNDN);
    mpfr_sin_cos(sin, cos, angle, MPFR_RNDN);
    mpfr_clear(angle);
}

/* log2 of the distance from a number half way between two f32 values, in ulp */
static double log_distance(mpfr_srcptr v) {
    mpfr_t t;
    mpfr_init2(t, BITS);
    mpfr_set(t, v, MPFR_RNDN);
    if (mpfr_zero_p(v)) return 0;
    mpfr_mul_2si(t, t, 24 - mpfr_get_exp(v), MPFR_RNDN);
    mpfr_frac(t, t, MPFR_RNDN);
    mpfr_abs(t, t, MPFR_RNDN);
    mpfr_sub_d(t, t, 0.5, MPFR_RNDN);
    double d = mpfr_zero_p(t) ? -BITS : log2(fabs(mpfr_get_d(t, MPFR_RNDN)));
    mpfr_clear(t);
    return d;
}

typedef struct {
    int64_t position;
    int column;
    double distance;
} entry;

static int nearer(const void *a, const void *b) {
    const entry *x = a, *y = b;
    if (x->distance != y->distance) return x->distance < y->distance ? -1 : 1;
    return x->position != y->position ? (x->position < y->position ? -1 : 1) : x->column - y->column;
}

static int find(void) {
    static entry near[1 << 20];
    int n = 0;
#pragma omp parallel for schedule(dynamic, 256)
    for (int64_t p = 1; p < POSITIONS; p++) {
        mpfr_t v[2];
        mpfr_inits2(BITS, v[0], v[1], (mpfr_ptr)0);
        for (int j = 0; j < HALF; j++) {
            truth(p, j, v[0], v[1]);
            for (int k = 0; k < 2; k++) {
                double d = log_distance(v[k]);
                if (d > -11) continue; /* 2^-10 of 8 million entries: some 8,000 */
#pragma omp critical
                near[n++] = (entry){p, j + k * HALF, d};
            }
        }
        mpfr_clears(v[0], v[1], (mpfr_ptr)0);
    }
    qsort(near, (size_t)n, sizeof *near, nearer);
    for (int i = 0; i < HARDEST && i < n; i++)
        printf("%lld %d %.1f\n", (long long)near[i].position, near[i].column, near[i].distance);
    return n < HARDEST;
}

static int64_t wrong_of(const float *table, int64_t p, int j, int which) { /* which: 1 cos, 2 sin, 3 both */
    mpfr_t c, s;
    mpfr_inits2(BITS, c, s, (mpfr_ptr)0);
    truth(p, j, c, s);
    int64_t wrong = 0;
    if (which & 1) wrong += table[p * WIDTH + j] != mpfr_get_flt(c, MPFR_RNDN);
    if (which & 2) wrong += table[p * WIDTH + HALF + j] != mpfr_get_flt(s, MPFR_RNDN);
    mpfr_clears(c, s, (mpfr_ptr)0);
    return wrong;
}

int main(int argc, char **argv) {
    const int64_t shape[] = {POSITIONS, WIDTH};
    make_inv();
    if (argc == 2 && !strcmp(argv[1], "--find")) return find();
    float *table = malloc(sizeof *table * POSITIONS * WIDTH);
    if (argc != 2 || !table) return 2;
    if (hm_rope_table(HM_ARGS(rope_table, .out = hm_tensor_of(table, HM_F32, 2, shape), .precision = HM_TABLE_EXACT,
                              .base = 10000)))
        return puts(hm_error()), 2;
    int64_t wrong = 0, checked = 0, listed = 0;
    bool all = !strcmp(argv[1], "--all");
#pragma omp parallel for schedule(dynamic, 256) reduction(+ : wrong, checked)
    for (int64_t i = 0; i < (int64_t)POSITIONS * HALF; i += all ? 1 : 499) {
        wrong += wrong_of(table, i / HALF, (int)(i % HALF), 3);
        checked += 2;
    }
    FILE *f = all ? NULL : fopen(argv[1], "r");
    if (!all && !f) return perror(argv[1]), 2;
    long long p;
    int column;
    while (f && fscanf(f, "%lld %d %*f", &p, &column) == 2) {
        if (p < 0 || p >= POSITIONS || column < 0 || column >= WIDTH) return puts("a line is out of range"), 2;
        wrong += wrong_of(table, p, column % HALF, column < HALF ? 1 : 2);
        listed++;
    }
    if (f) fclose(f);
    free(table);
    printf("%lld entries and %lld of the hardest: %lld not correctly rounded\n", (long long)checked, (long long)listed,
           (long long)wrong);
    return wrong != 0 || (!all && listed != HARDEST);
}
