/* What a column of an f32 table may be: one inv_freq for all its rows. And what golden says where nothing was observed.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "../../certify/rope_engine.h"
#include "../../golden/golden.h"
#include "../../op/dtype.h"

enum { ROWS = 40, WIDTH = 64, ELEMENTS = ROWS * WIDTH };

static int64_t positions[ROWS];
static float table[ELEMENTS];

static hm_rope_table_args call(void) {
    static const int64_t rows = ROWS, shape[] = {ROWS, WIDTH};
    for (int i = 0; i < ROWS; i++) positions[i] = i < 20 ? i : ((INT64_C(1) << 20) - 1) / (i - 19);
    return *HM_ARGS(rope_table, .out = hm_tensor_of(table, HM_F32, 2, shape),
                    .positions = hm_tensor_of(positions, HM_I64, 1, &rows), .base = 10000);
}

/* Rows of `even` and `odd` by turns. */
static void fill(const hm_rope_way *even, const hm_rope_way *odd) {
    static double v[2][ELEMENTS];
    hm_rope_table_args a = call();
    hm_rope_engine(even, &a, v[0]);
    hm_rope_engine(odd, &a, v[1]);
    for (int i = 0; i < ELEMENTS; i++) table[i] = (float)v[i / WIDTH % 2][i];
}

/* Elements of the table that are not admissible; widest: the largest interval among them, in ulps of f32 at 1. */
static int outside(bool observed, double *widest) {
    hm_rope_table_args a = call();
    hm_golden *golden;
    int count = 0;
    cr_assert_eq(hm_golden_open(hm_op_named("rope_table"), &a, 1, &golden), HM_OK);
    if (observed) cr_assert_eq(hm_golden_observe(golden, 2, &a.out, 2), HM_OK);
    *widest = 0;
    for (int r = 0; r < ROWS; r++) {
        double lo[WIDTH], hi[WIDTH];
        unsigned char flags[WIDTH];
        hm_golden_row row = {.lo = lo, .hi = hi, .flags = flags};
        cr_assert_eq(hm_golden_row_get(golden, 2, r, HM_WIDE, HM_TIER_TWO, &row), HM_OK);
        for (int j = 0; j < WIDTH; j++) {
            double v = (double)table[r * WIDTH + j];
            count += !(v >= lo[j] && v <= hi[j]);
            *widest = fmax(*widest, (hi[j] - lo[j]) * 0x1p23);
        }
    }
    hm_golden_close(golden);
    return count;
}

static const hm_rope_way above = {.inv_f64 = true, .inv_ulps = 3}, below = {.inv_f64 = true, .inv_ulps = -3},
                         exact = {.inv_f64 = true};

Test(rope_table, one_inv_freq_a_column) {
    double widest;
    fill(&exact, &exact);
    cr_expect_eq(outside(true, &widest), 0);
    cr_expect(widest <= 4, "%g", widest); /* 2 ulp either way */
    fill(&above, &above);
    cr_expect_eq(outside(true, &widest), 0);
    fill(&below, &below);
    cr_expect_eq(outside(true, &widest), 0);
    /* each row is admissible for one of two inv_freq, and yet no table has both */
    fill(&above, &below);
    cr_expect_gt(outside(true, &widest), ELEMENTS / 20);
    fill(&exact, &(hm_rope_way){.inv_f64 = true, .inv_ulps = 1});
    cr_expect_gt(outside(true, &widest), 0);
}

Test(rope_table, hull_where_nothing_was_observed) {
    double widest;
    fill(&above, &below);
    cr_expect_eq(outside(false, &widest), 0);
    cr_expect_gt(widest, 1e5); /* at 2^20 it says next to nothing: that is why columns are judged */
}

Test(rope_table, is_observed) {
    cr_expect(hm_golden_observes(hm_op_named("rope_table")));
    cr_expect(!hm_golden_observes(hm_op_named("rotary_embedding")));
}

/* A NaN or an infinity in a table is explained by no inv_freq, and spoils its own element alone. */
Test(rope_table, specials_are_outside) {
    double widest;
    fill(&above, &above);
    table[21 * WIDTH] = NAN, table[22 * WIDTH] = INFINITY, table[23 * WIDTH + 40] = 1.5f;
    cr_expect_eq(outside(true, &widest), 3);
}
