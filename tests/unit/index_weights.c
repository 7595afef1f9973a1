/* index_weights: its table, the constants, and the two orders. */
#include <criterion/criterion.h>
#include <hallmark/index_weights.h>
#include <hallmark/op.h>
#include <math.h>

#include "../../op/dtype.h"
#include "../../op/index_weights.h"

Test(index_weights, table_matches_the_struct) {
    const hm_op_info *op = hm_op_named("index_weights");
    cr_assert_not_null(op);
    cr_assert_eq(op->nargs, 3);
    cr_expect_eq(op->args[0].offset, offsetof(hm_index_weights_args, weights));
    cr_expect_eq(op->args[1].offset, offsetof(hm_index_weights_args, q_scale));
    cr_expect_eq(op->args[2].offset, offsetof(hm_index_weights_args, out));
    cr_expect_eq(op->args_size, sizeof(hm_index_weights_args));
}

/* Is the integer n (m / 2^k)^2 below, at or above 1? */
static int compare(int64_t n, int64_t m, int k) {
    unsigned __int128 left = (unsigned __int128)n * (uint64_t)m * (uint64_t)m, one = (unsigned __int128)1 << 2 * k;
    return left < one ? -1 : left > one;
}

/* n^-1/2 lies between the midpoints on either side of what is returned: integers of at most 67 bits. */
Test(index_weights, constants_are_correctly_rounded) {
    for (int64_t n = 1; n <= 65536; n++) {
        int e;
        double c = hm_inverse_root_f32(n);
        int64_t m = (int64_t)ldexp(frexp(c, &e), 25); /* c = m 2^(e - 25), m even and of 25 bits */
        int k = 25 - e;
        int64_t below = m == INT64_C(1) << 24 ? 2 * m - 1 : 2 * (m - 1), above = 2 * (m + 1);
        cr_assert(compare(n, below, k + 1) < 0 && compare(n, above, k + 1) > 0, "%lld: %a", (long long)n, c);
    }
}

/* 32 heads: 32^-1/2 is no power of two, and the order decides the last bit for some weight. */
Test(index_weights, orders_differ_in_the_last_bit) {
    enum { HEADS = 32, ROWS = 64 };
    static float w[ROWS * HEADS], s[ROWS * HEADS], any[ROWS * HEADS], l2r[ROWS * HEADS];
    for (int i = 0; i < ROWS * HEADS; i++) w[i] = (float)sin(i + 1), s[i] = 1 + (float)i / 1024;
    hm_index_weights_args a = {.size = sizeof a,
                               .out = hm_tensor_of(any, HM_F32, 2, (int64_t[]){ROWS, HEADS}),
                               .weights = hm_tensor_of(w, HM_F32, 2, (int64_t[]){ROWS, HEADS}),
                               .q_scale = hm_tensor_of(s, HM_F32, 2, (int64_t[]){ROWS, HEADS})};
    cr_assert_eq(hm_index_weights(&a), HM_OK);
    a.order = HM_WEIGHTS_L2R, a.out.data = l2r;
    cr_assert_eq(hm_index_weights(&a), HM_OK);
    float of_dim = (float)hm_inverse_root_f32(128), of_heads = (float)hm_inverse_root_f32(HEADS);
    int different = 0;
    for (int i = 0; i < ROWS * HEADS; i++) {
        float t = w[i] * s[i], u = t * of_dim, y = u * of_heads;
        cr_assert_eq(l2r[i], y, "%d", i);
        cr_assert(fabs((double)any[i] - (double)y) <= 5 * hm_ulp(HM_F32, (double)y), "%d", i);
        different += any[i] != y;
    }
    cr_expect(different > 100 && different < ROWS * HEADS, "%d differ", different);
}

/* A query's scale that is folded in makes the logits those of the query before it was quantised: powers of two,
 * exactly. */
Test(index_weights, powers_of_two_are_exact) {
    uint16_t w[64];
    uint8_t e[64];
    float y[64];
    for (int i = 0; i < 64; i++) hm_store(HM_BF16, &w[i], (i - 32) / 8.0), e[i] = (uint8_t)(120 + i % 8);
    hm_index_weights_args a = {.size = sizeof a,
                               .out = hm_tensor_of(y, HM_F32, 1, (int64_t[]){64}),
                               .weights = hm_tensor_of(w, HM_BF16, 1, (int64_t[]){64}),
                               .q_scale = hm_tensor_of(e, HM_E8M0, 1, (int64_t[]){64}),
                               .head_dim = 256};
    for (int order = 0; order < 2; order++) {
        a.order = (hm_weights_order)order;
        cr_assert_eq(hm_index_weights(&a), HM_OK);
        for (int i = 0; i < 64; i++)
            cr_assert_eq((double)y[i], ldexp((i - 32) / 8.0, i % 8 - 7 - 4 - 3), "%d: %g", i, (double)y[i]);
    }
}
