/* top_k_per_row: the corners of its contract, against a search that takes the best column again and again. */
#include <criterion/criterion.h>
#include <hallmark/op.h>
#include <hallmark/top_k_per_row.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "refused.h"

enum { ROWS = 12, COLUMNS = 90, MOST = 100, SPREAD = 5 };

/* What the library promises of one row: the largest first, equal ones by ascending index, -0 as +0, NaN above all. */
static void right(const float *w, int64_t n, int64_t k, int32_t *to) {
    bool taken[COLUMNS] = {false};
    for (int64_t i = 0; i < k; i++) {
        int64_t best = -1;
        for (int64_t c = 0; c < n && n > k; c++)
            if (!taken[c] && (best < 0 || (isnan(w[c]) && !isnan(w[best])) || w[c] > w[best])) best = c;
        if (n <= k) best = i < n ? i : -1;
        else taken[best] = true;
        to[i] = (int32_t)best;
    }
}

typedef struct {
    float values[ROWS][COLUMNS], logits[SPREAD * ROWS * COLUMNS];
    int32_t indices[SPREAD * ROWS * MOST], starts[ROWS], ends[ROWS], lens[ROWS];
    int64_t first[ROWS], n[ROWS]; /* the windows */
} setup;

static uint32_t state = 1;
static int drawn(int n) { return state = state * 1664525 + 1013904223, (int)((state >> 8) % (uint32_t)n); }

enum { UNIFORM, TEN, EQUAL, RELU, ZEROS, INFINITIES, WITH_NAN, CLOSE, KINDS };

static float value(int kind) {
    static const float odd[] = {INFINITY, -INFINITY, 0, 1, -1, 3e38f};
    switch (kind) {
        case TEN:
            return (float)drawn(10) - 5;
        case EQUAL:
            return -2.5f;
        case RELU:
            return drawn(4) ? 0 : (float)drawn(1000);
        case ZEROS:
            return drawn(8) ? drawn(2) ? -0.0f : 0.0f : drawn(2) ? 0x1p-149f : -0x1p-149f;
        case INFINITIES:
            return odd[drawn(6)];
        case WITH_NAN:
            return drawn(6) ? odd[drawn(6)] : drawn(2) ? NAN : -NAN;
        case CLOSE:
            return 1 + (float)drawn(40) * 0x1p-23f;
        default:
            return (float)drawn(1 << 24) * 0x1p-24f - 0.5f;
    }
}

/* Rows of windows, each with its values; outside of them lies what would win. Decode has windows from 0 on. */
static void fill(setup *s, int kind, int64_t k, const hm_tensor *logits, int64_t next_n) {
    static const float garbage[] = {NAN, INFINITY, 3.4e38f, -NAN};
    const int64_t lengths[ROWS] = {0, 1, k - 1, k, k + 1, COLUMNS, 40, -3, 2 * k, COLUMNS - 1, 33, COLUMNS};
    for (int64_t r = 0; r < ROWS; r++) {
        int64_t n = lengths[r] < COLUMNS ? lengths[r] : COLUMNS;
        s->first[r] = next_n || n < 0 ? 0 : r % 3 == 1 ? COLUMNS - n : r % 3 == 2 ? drawn((int)(COLUMNS - n + 1)) : 0;
        if (next_n) {
            s->lens[r / next_n] = (int32_t)lengths[r / next_n * 5 % ROWS];
            if (s->lens[r / next_n] > COLUMNS) s->lens[r / next_n] = COLUMNS;
            n = s->lens[r / next_n] - next_n + r % next_n + 1;
        }
        s->starts[r] = (int32_t)s->first[r] + (n < 0 ? 20 : 0), s->ends[r] = (int32_t)(s->starts[r] + n);
        s->n[r] = n > 0 ? n : 0;
        for (int64_t c = 0; c < COLUMNS; c++) {
            bool inside = c >= s->first[r] && c < s->first[r] + s->n[r];
            s->values[r][c] = inside ? value(kind) : garbage[(r + c) % 4];
            ((float *)logits->data)[r * logits->stride[0] + c * logits->stride[1]] = s->values[r][c];
        }
    }
}

/* Every byte of the memory of indices. */
static void check(const setup *s, const hm_tensor *indices, const char *what, int kind) {
    static int32_t want[SPREAD * ROWS * MOST];
    int64_t k = indices->shape[1], first = (int32_t *)indices->data - s->indices;
    memset(want, CANARY, sizeof want);
    for (int64_t r = 0; r < ROWS; r++) {
        int32_t row[MOST];
        right(s->values[r] + s->first[r], s->n[r], k, row);
        for (int64_t i = 0; i < k; i++) want[first + r * indices->stride[0] + i * indices->stride[1]] = row[i];
    }
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        cr_assert_eq(s->indices[i], want[i], "%s, values %d, k %lld: element %zu is %d, not %d", what, kind,
                     (long long)k, i, s->indices[i], want[i]);
}

static hm_top_k_per_row_args call(setup *s, int64_t k, bool prefill) {
    memset(s->indices, CANARY, sizeof s->indices);
    hm_top_k_per_row_args a = {.size = sizeof a,
                               .indices = hm_tensor_of(s->indices, HM_I32, 2, (int64_t[]){ROWS, k}),
                               .logits = hm_tensor_of(s->logits, HM_F32, 2, (int64_t[]){ROWS, COLUMNS})};
    if (prefill) {
        a.row_starts = hm_tensor_of(s->starts, HM_I32, 1, (int64_t[]){ROWS});
        a.row_ends = hm_tensor_of(s->ends, HM_I32, 1, (int64_t[]){ROWS});
    } else a.seq_lens = hm_tensor_of(s->lens, HM_I32, 1, (int64_t[]){ROWS});
    return a;
}

static const int64_t ks[] = {1, 2, 7, 39, 40, 64, 89, 90, 100};

/* Indices count from the start of the window, whatever its start is; neighbours in a row may lie anywhere. */
Test(top_k_per_row, prefill) {
    static setup s;
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t i = 0; i < sizeof ks / sizeof *ks; i++)
            for (int layout = 0; layout < 4; layout++) {
                hm_top_k_per_row_args a = call(&s, ks[i], true);
                if (layout == 1) a.logits.stride[0] = 5 * COLUMNS, a.logits.stride[1] = 3;
                if (layout == 2) a.logits.stride[0] = 1, a.logits.stride[1] = ROWS + 2;
                if (layout == 3) a.logits.data = s.logits + 2 * COLUMNS - 1, a.logits.stride[1] = -2;
                if (layout == 3) a.logits.stride[0] = 2 * COLUMNS;
                if (layout == 2) a.indices.stride[0] = 3, a.indices.stride[1] = 3 * ROWS + 1;
                if (layout == 1) a.indices.stride[0] = ks[i] * 2 + 1, a.indices.stride[1] = 2;
                fill(&s, kind, ks[i], &a.logits, 0);
                cr_assert_eq(hm_top_k_per_row(&a), HM_OK, "%s", hm_error());
                check(&s, &a.indices, "prefill", kind);
            }
}

/* The last tokens of a request see one more each; a request shorter than next_n has rows without any. */
Test(top_k_per_row, decode) {
    static setup s;
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t i = 0; i < sizeof ks / sizeof *ks; i++)
            for (int64_t next_n = 0; next_n <= 4; next_n++) {
                hm_top_k_per_row_args a = call(&s, ks[i], false);
                int64_t each = next_n ? next_n : 1; /* 0 means 1 */
                a.next_n = next_n, a.seq_lens.shape[0] = ROWS / each;
                fill(&s, kind, ks[i], &a.logits, each);
                cr_assert_eq(hm_top_k_per_row(&a), HM_OK, "%s", hm_error());
                check(&s, &a.indices, "decode", kind);
            }
}

/* As many as the window has: they are not compared at all. */
Test(top_k_per_row, a_whole_window_is_not_looked_at) {
    float logits[4] = {NAN, -INFINITY, 5, -1};
    int32_t start = 0, end = 4, indices[6];
    hm_top_k_per_row_args a = {.size = sizeof a,
                               .indices = hm_tensor_of(indices, HM_I32, 2, (int64_t[]){1, 6}),
                               .logits = hm_tensor_of(logits, HM_F32, 2, (int64_t[]){1, 4}),
                               .row_starts = hm_tensor_of(&start, HM_I32, 1, (int64_t[]){1}),
                               .row_ends = hm_tensor_of(&end, HM_I32, 1, (int64_t[]){1})};
    cr_assert_eq(hm_top_k_per_row(&a), HM_OK);
    for (int i = 0; i < 6; i++) cr_expect_eq(indices[i], i < 4 ? i : -1);
    a.indices.shape[1] = 4;
    cr_assert_eq(hm_top_k_per_row(&a), HM_OK);
    for (int i = 0; i < 4; i++) cr_expect_eq(indices[i], i);
    a.indices.shape[1] = 3; /* now they are: NaN, 5, -1 */
    cr_assert_eq(hm_top_k_per_row(&a), HM_OK);
    cr_expect(indices[0] == 0 && indices[1] == 2 && indices[2] == 3);
}

Test(top_k_per_row, nothing_to_choose) {
    static setup s;
    for (int mode = 0; mode < 3; mode++) {
        hm_top_k_per_row_args a = call(&s, 7, true);
        fill(&s, UNIFORM, 7, &a.logits, 0);
        if (mode == 0) a.logits.shape[0] = a.indices.shape[0] = a.row_starts.shape[0] = a.row_ends.shape[0] = 0;
        if (mode == 1) a.indices.shape[1] = 0;
        if (mode == 2) a.logits.shape[1] = 0, memset(s.ends, 0, sizeof s.ends);
        cr_assert_eq(hm_top_k_per_row(&a), HM_OK, "%s", hm_error());
        int32_t want;
        memset(&want, CANARY, sizeof want);
        for (int i = 0; i < 7; i++) cr_expect_eq(s.indices[i], mode == 2 ? -1 : want);
    }
}

#define REFUSED(prefill, status, name, value, ...)                                                \
    do {                                                                                          \
        hm_top_k_per_row_args a = call(&s, 7, prefill);                                           \
        fill(&s, UNIFORM, 7, &a.logits, (prefill) ? 0 : 1);                                       \
        __VA_ARGS__;                                                                              \
        refused("top_k_per_row", &a, s.indices, sizeof s.indices, status, name, value, __LINE__); \
    } while (0)

Test(top_k_per_row, refuses) {
    static setup s;
    REFUSED(true, HM_BAD_ARG, "logits", "absent", a.logits.dtype = HM_DTYPE_NONE);
    REFUSED(true, HM_BAD_ARG, "row_ends", "absent", a.row_ends.dtype = HM_DTYPE_NONE);
    REFUSED(true, HM_BAD_ARG, "seq_lens", "there", a.seq_lens = a.row_ends);
    REFUSED(false, HM_BAD_ARG, "seq_lens", "absent", a.seq_lens.dtype = HM_DTYPE_NONE);
    REFUSED(true, HM_BAD_SHAPE, "logits", "rank 1", a.logits.ndim = 1);
    REFUSED(true, HM_BAD_SHAPE, "logits", "2147483648", a.logits.shape[1] = a.logits.stride[0] = INT64_C(1) << 31);
    REFUSED(true, HM_BAD_SHAPE, "indices", "11", a.indices.shape[0] = 11);
    REFUSED(true, HM_BAD_SHAPE, "indices", "rank 1", a.indices.ndim = 1);
    REFUSED(true, HM_BAD_SHAPE, "row_starts", "11", a.row_starts.shape[0] = 11);
    REFUSED(true, HM_BAD_SHAPE, "row_ends", "rank 2", a.row_ends.ndim = 2, a.row_ends.shape[1] = 1);
    REFUSED(false, HM_BAD_SHAPE, "seq_lens", "12", a.next_n = 2);
    REFUSED(false, HM_BAD_SHAPE, "logits", "5", a.next_n = 5, a.seq_lens.shape[0] = 2);
    REFUSED(true, HM_BAD_STRIDE, "indices", "6", a.indices.stride[0] = 6);
    REFUSED(true, HM_BAD_STRIDE, "indices", "0", a.indices.stride[1] = 0);
    REFUSED(true, HM_BAD_DTYPE, "logits", "bf16", a.logits.dtype = HM_BF16);
    REFUSED(true, HM_BAD_DTYPE, "indices", "i64", a.indices.dtype = HM_I64);
    REFUSED(true, HM_BAD_DTYPE, "row_starts", "i64", a.row_starts.dtype = HM_I64);
    REFUSED(false, HM_BAD_DTYPE, "seq_lens", "f32", a.seq_lens.dtype = HM_F32);
    REFUSED(true, HM_BAD_PLACE, "row_ends", "cuda", a.row_ends.place = HM_CUDA);
    REFUSED(true, HM_BAD_ALIAS, "indices", "logits", a.logits.data = s.indices + ROWS * 7 - 1);
    REFUSED(false, HM_BAD_ALIAS, "indices", "seq_lens", a.seq_lens.data = s.indices);
    REFUSED(true, HM_BAD_PARAM, "next_n", "2", a.next_n = 2);
    REFUSED(false, HM_BAD_PARAM, "next_n", "-1", a.next_n = -1);
    REFUSED(true, HM_BAD_VALUE, "row_starts", "-1", s.starts[4] = -1);
    REFUSED(true, HM_BAD_VALUE, "row_ends", "91", s.ends[11] = 91);
    REFUSED(true, HM_BAD_VALUE, "row_ends", "2147483647", s.ends[0] = INT32_MAX);
    REFUSED(false, HM_BAD_VALUE, "seq_lens", "91", s.lens[11] = 91);
}

/* Rows, columns and indices further than 2^31 elements apart, and a window that starts there. */
Test(top_k_per_row, offsets_beyond_32_bits) {
    static setup s;
    static const int64_t far = (INT64_C(1) << 31) + 3;
    for (int which = 0; which < 4; which++) {
        hm_top_k_per_row_args a = call(&s, 7, true);
        int64_t bytes = 0;
        if (which == 0) a.logits.stride[0] = far / 8, bytes = far / 8 * ROWS * 4;
        if (which == 1) a.logits.stride[0] = 1, a.logits.stride[1] = far / 64, bytes = far / 64 * COLUMNS * 4;
        if (which == 2) a.indices.stride[0] = far / 4, bytes = far / 4 * ROWS * 4;
        if (which == 3) a.indices.stride[0] = 1, a.indices.stride[1] = far / 4, bytes = far / 4 * 7 * 4;
        hm_tensor *t = which < 2 ? &a.logits : &a.indices;
        t->data = reserve(bytes);
        fill(&s, TEN, 7, &a.logits, 0);
        cr_assert_eq(hm_top_k_per_row(&a), HM_OK, "%s", hm_error());
        for (int r = 0; r < ROWS; r++)
            for (int i = 0; i < 7; i++)
                s.indices[r * 7 + i] = ((int32_t *)a.indices.data)[r * a.indices.stride[0] + i * a.indices.stride[1]];
        hm_tensor near = hm_tensor_of(s.indices, HM_I32, 2, (int64_t[]){ROWS, 7});
        check(&s, &near, "far", which);
        munmap(t->data, (size_t)bytes);
    }
    float *row = reserve(INT64_C(4) * INT32_MAX);
    int32_t start = INT32_MAX - 100, end = INT32_MAX - 10, indices[3];
    hm_top_k_per_row_args a = {.size = sizeof a,
                               .indices = hm_tensor_of(indices, HM_I32, 2, (int64_t[]){1, 3}),
                               .logits = hm_tensor_of(row, HM_F32, 2, (int64_t[]){1, INT32_MAX}),
                               .row_starts = hm_tensor_of(&start, HM_I32, 1, (int64_t[]){1}),
                               .row_ends = hm_tensor_of(&end, HM_I32, 1, (int64_t[]){1})};
    row[start - 1] = row[end] = 9, row[start + 70] = 2, row[start] = 1;
    cr_assert_eq(hm_top_k_per_row(&a), HM_OK, "%s", hm_error());
    cr_expect(indices[0] == 70 && indices[1] == 0 && indices[2] == 1, "%d %d %d", indices[0], indices[1], indices[2]);
    munmap(row, (size_t)INT64_C(4) * INT32_MAX);
}
