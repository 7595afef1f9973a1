/* The bugs of top_k_per_row: an evaluator that sorts, with a switch at every step, and the table. */
#include <hallmark/top_k_per_row.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../op/dtype.h"
#include "../../op/indexer_cache.h"
#include "../../op/top_k_per_row.h"
#include "common.h"
#include "tables.h"

#define OP "top_k_per_row"

typedef struct {
    enum {
        KEY_EXACT = 0,
        KEY_BF16, /* rounded */
        KEY_F16,
        KEY_11_BITS, /* of the ordered bits: a histogram's bin */
        KEY_MAGNITUDE,
        KEY_RAW_BITS, /* negative ones above all */
        KEY_SMALLEST,
        KEY_FLUSHED /* subnormals are 0 */
    } key;
    enum {
        SELECT_EXACT = 0,
        SELECT_BIN_CAPPED,  /* of the bin at the border, at most 4096 are looked at */
        SELECT_BIN_FIRST,   /* of the bin at the border, the first are taken */
        SELECT_LARGER_ONLY, /* ties at the border are left out: -1 */
        SELECT_TIES_REPEATED,
        SELECT_WITHOUT_NEGATIVE_INFINITY,
        SELECT_ONE_LESS,
        SELECT_FIRST_K,
        SELECT_LAST_REPEATED
    } select;
    enum {
        WINDOW_AS_DECLARED = 0,
        WINDOW_INDICES_ABSOLUTE,
        WINDOW_FROM_0,
        WINDOW_ONE_MORE,
        WINDOW_ONE_LESS,
        WINDOW_WHOLE_ROW,
        WINDOW_REQUEST_MODULO,
        WINDOW_NEXT_N_IGNORED,
        WINDOW_BOUNDS_DENSE
    } window;
    enum {
        SHORT_AS_DECLARED = 0,
        SHORT_SORTED,
        SHORT_PADDED_WITH_0,
        SHORT_NOT_PADDED,
        SHORT_PADDED_WITH_N,
        SHORT_FINITE_ONLY,
        SHORT_NEGATIVE_BEFORE, /* the fill of a negative length begins before the row */
        SHORT_NEGATIVE_IS_HUGE,
        SHORT_K_IS_LONG /* n = k goes through the selection, by value */
    } short_rows;
    enum {
        MAP_AS_GIVEN = 0,
        MAP_LOGITS_DENSE,
        MAP_LOGITS_UNIT,
        MAP_LOGITS_INT32,
        MAP_INDICES_DENSE,
        MAP_INDICES_UNIT,
        MAP_INDICES_INT32
    } map;
    enum {
        EFFECT_NONE = 0,
        EFFECT_LAST_ROW_LEFT,
        EFFECT_UNSTABLE,
        EFFECT_ONE_PAST,
        EFFECT_LOGITS_MARKED,
        EFFECT_EMPTY_REFUSED
    } effect;
    hm_fault_checks checks;
} variation_t;

typedef struct {
    double key;
    int64_t index;
} candidate;

static uint32_t ordered(double v) {
    float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static double key_of(const variation_t *v, double x) {
    uint32_t bits;
    float f = (float)x;
    memcpy(&bits, &f, sizeof bits);
    switch (v->key) {
        case KEY_BF16:
            return hm_round_to(HM_BF16, x);
        case KEY_F16:
            return hm_round_to(HM_F16, x);
        case KEY_11_BITS:
            return (double)(ordered(x) >> 21);
        case KEY_MAGNITUDE:
            return fabs(x);
        case KEY_RAW_BITS:
            return (double)bits;
        case KEY_SMALLEST:
            return -x;
        case KEY_FLUSHED:
            return fabs(x) < 0x1p-126 ? 0 : x;
        default:
            return x;
    }
}

/* Which of equal candidates an unstable kernel keeps: changes from call to call. A thread has its own, so that what one
 * sees does not depend on the others. */
static _Thread_local bool opposite;

static int by_key(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (isnan(x->key) || isnan(y->key))
        return isnan(x->key) ? (isnan(y->key) ? (x->index > y->index) - (x->index < y->index) : -1) : 1;
    if (x->key != y->key) return (x->key < y->key) - (x->key > y->key);
    return (x->index > y->index) - (x->index < y->index);
}
static int by_key_backward(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    return x->key == y->key ? -by_key(a, b) : by_key(a, b);
}

static void put(const variation_t *v, const hm_tensor *t, int64_t row, int64_t i, int64_t index) {
    int32_t value = (int32_t)index;
    int64_t at = v->map == MAP_INDICES_DENSE ? row * t->shape[1] : row * t->stride[0];
    at += i * (v->map == MAP_INDICES_UNIT ? 1 : t->stride[1]);
    if (v->map == MAP_INDICES_INT32) at = hm_fault_in_int32(at);
    hm_fault_store_raw(t, at, HM_FAULT_SLACK, &value);
}

static double logit(const variation_t *v, const hm_tensor *t, int64_t row, int64_t c) {
    int64_t at = v->map == MAP_LOGITS_DENSE ? row * t->shape[1] : row * t->stride[0];
    at += c * (v->map == MAP_LOGITS_UNIT ? 1 : t->stride[1]);
    if (v->map == MAP_LOGITS_INT32) at = hm_fault_in_int32(at);
    return hm_fault_load(t, at);
}

static int64_t bound(const variation_t *v, const hm_tensor *t, int64_t i) {
    int32_t value;
    hm_fault_load_raw(t, v->window == WINDOW_BOUNDS_DENSE ? i : i * t->stride[0], &value);
    return value;
}

static void window_of(const variation_t *v, const hm_top_k_per_row_args *a, int64_t row, int64_t *start, int64_t *end) {
    int64_t n = a->next_n;
    if (a->seq_lens.dtype != HM_DTYPE_NONE) {
        int64_t batch = a->seq_lens.shape[0], r = v->window == WINDOW_REQUEST_MODULO ? row % batch : row / n;
        *start = 0, *end = bound(v, &a->seq_lens, r);
        if (v->window != WINDOW_NEXT_N_IGNORED) *end += row % n + 1 - n;
    } else *start = bound(v, &a->row_starts, row), *end = bound(v, &a->row_ends, row);
    if (v->window == WINDOW_FROM_0) *start = 0;
    if (v->window == WINDOW_WHOLE_ROW) *start = 0, *end = a->logits.shape[1];
    if (v->window == WINDOW_ONE_MORE && *end < a->logits.shape[1]) ++*end;
    if (v->window == WINDOW_ONE_LESS && *end > *start) --*end;
    *start = *start < 0 ? 0 : hm_fault_least(*start, a->logits.shape[1]);
    *end = hm_fault_least(*end, a->logits.shape[1]);
}

static void short_row(const variation_t *v, const hm_top_k_per_row_args *a, int64_t row, int64_t start, int64_t n,
                      int64_t k) {
    int64_t put_at = 0, base = v->window == WINDOW_INDICES_ABSOLUTE ? start : 0;
    if (n < 0 && v->short_rows == SHORT_NEGATIVE_BEFORE) put(v, &a->indices, row, n < -4 ? -4 : n, -1);
    for (int64_t i = 0; i < n; i++)
        if (v->short_rows != SHORT_FINITE_ONLY || isfinite(logit(v, &a->logits, row, start + i)))
            put(v, &a->indices, row, put_at++, base + i);
    for (int64_t i = put_at; i < k && v->short_rows != SHORT_NOT_PADDED; i++)
        put(v, &a->indices, row, i,
            v->short_rows == SHORT_PADDED_WITH_0   ? 0
            : v->short_rows == SHORT_PADDED_WITH_N ? n
                                                   : -1);
}

static int64_t drop(const variation_t *v, candidate *c, int64_t n, int64_t k) {
    double border = c[k - 1].key;
    int64_t kept = 0, in_bin = 0;
    uint32_t bin = ordered(border) >> 21;
    for (int64_t i = 0; i < n; i++) {
        bool same_bin = ordered(c[i].key) >> 21 == bin, keep = true;
        if (v->select == SELECT_BIN_CAPPED && same_bin) keep = in_bin++ < 4096;
        if (v->select == SELECT_LARGER_ONLY) keep = c[i].key > border;
        if (v->select == SELECT_WITHOUT_NEGATIVE_INFINITY) keep = c[i].key != -INFINITY;
        if (keep) c[kept++] = c[i];
    }
    return kept;
}

static int by_index(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    return (x->index > y->index) - (x->index < y->index);
}

static void long_row(const variation_t *v, const hm_top_k_per_row_args *a, int64_t row, int64_t start, int64_t n,
                     int64_t k, candidate *c) {
    int64_t base = v->window == WINDOW_INDICES_ABSOLUTE ? start : 0, left = n;
    for (int64_t i = 0; i < n; i++) c[i] = (candidate){key_of(v, logit(v, &a->logits, row, start + i)), i};
    if (v->select != SELECT_FIRST_K)
        qsort(c, (size_t)n, sizeof *c, v->effect == EFFECT_UNSTABLE && opposite ? by_key_backward : by_key);
    if (v->select == SELECT_BIN_CAPPED || v->select == SELECT_BIN_FIRST) {
        /* a kernel meets the bin at the border in the order of the row, not sorted */
        uint32_t bin = ordered(c[k - 1].key) >> 21;
        int64_t first = 0, behind = k;
        while (ordered(c[first].key) >> 21 != bin) first++;
        while (behind < n && ordered(c[behind].key) >> 21 == bin) behind++;
        qsort(c + first, (size_t)(behind - first), sizeof *c, by_index);
        if (v->select == SELECT_BIN_CAPPED && behind - first > 4096) {
            memmove(c + first + 4096, c + behind, (size_t)(n - behind) * sizeof *c);
            left = n - (behind - first - 4096), behind = first + 4096;
        }
        if (v->select == SELECT_BIN_CAPPED) qsort(c + first, (size_t)(behind - first), sizeof *c, by_key);
    } else left = drop(v, c, n, k);
    for (int64_t i = 0; i < k - (v->select == SELECT_ONE_LESS); i++) {
        bool tied = i > 0 && i < left && v->select == SELECT_TIES_REPEATED && c[i].key == c[i - 1].key;
        if (tied) c[i].index = c[i - 1].index;
        int64_t last = v->select == SELECT_LAST_REPEATED && i == k - 1 ? i - 1 : i;
        put(v, &a->indices, row, i, last < left ? base + c[last < 0 ? 0 : last].index : -1);
    }
    if (v->select == SELECT_ONE_LESS) put(v, &a->indices, row, k - 1, -1);
}

static hm_status run(const void *variation, const void *args, hm_dtype written[HM_MAX_ARGS]) {
    (void)written;
    const variation_t *v = variation;
    hm_top_k_per_row_args a;
    hm_status status;
    if (hm_fault_checked(OP, v->checks, args, &status)) return status;
    hm_top_k_per_row_read(args, &a);
    int64_t rows = a.logits.shape[0], k = a.indices.shape[1], columns = a.logits.shape[1];
    if (rows == 0 || k == 0) return v->effect == EFFECT_EMPTY_REFUSED ? HM_BAD_SHAPE : HM_OK;
    candidate *c = malloc(((size_t)columns + 1) * sizeof *c);
    if (!c) return HM_NO_MEMORY;
    if (v->effect == EFFECT_UNSTABLE) opposite = !opposite;
    for (int64_t row = 0; row < rows - (v->effect == EFFECT_LAST_ROW_LEFT); row++) {
        int64_t start, end;
        window_of(v, &a, row, &start, &end);
        int64_t n = end - start;
        if (n < 0 && v->short_rows == SHORT_NEGATIVE_IS_HUGE) n = columns - start;
        bool is_short = v->short_rows == SHORT_K_IS_LONG ? n < k : v->short_rows == SHORT_SORTED ? n < 1 : n <= k;
        if (is_short) short_row(v, &a, row, start, n, k);
        else if (n <= k) {
            long_row(v, &a, row, start, n, n, c);
            for (int64_t i = n; i < k; i++) put(v, &a.indices, row, i, -1);
        } else long_row(v, &a, row, start, n, k, c);
        if (v->effect == EFFECT_ONE_PAST) put(v, &a.indices, row, k, -1);
        if (v->effect == EFFECT_LOGITS_MARKED && n > 0) {
            double mark = -INFINITY;
            hm_fault_store_row(&a.logits, row * a.logits.stride[0] + start * a.logits.stride[1], 1, 1, 0, &mark);
        }
    }
    free(c);
    return HM_OK;
}

#define FAULT(what, covers, reference, sentence, fix, ...) \
    { OP "." what, OP, covers, reference, sentence, fix, NULL, run, &(const variation_t){__VA_ARGS__}, false }
#define UNSTABLE(what, covers, reference, sentence, fix, ...) \
    { OP "." what, OP, covers, reference, sentence, fix, NULL, run, &(const variation_t){__VA_ARGS__}, true }

const hm_fault hm_top_k_per_row_faults[] = {
    FAULT("bin_capped", "M1", "vllm#51782; vllm#55314", "candidates beyond 4096 in the bin at the border are dropped",
          "go through the bin again, with finer bins", .select = SELECT_BIN_CAPPED),
    FAULT("bin_first", "M1", "vllm#51782", "of the bin at the border the first are taken, larger or not",
          "refine the bin", .select = SELECT_BIN_FIRST),
    FAULT("keys_11_bits", "M1", "vllm#55314", "only the upper 11 bits of a logit are compared", "compare all 32",
          .key = KEY_11_BITS),
    FAULT("keys_bf16", "M3", "sglang#31115", "logits are rounded to bf16 before they are compared", "compare f32",
          .key = KEY_BF16),
    FAULT("keys_f16", "", "", "logits are rounded to f16 before they are compared", "compare f32", .key = KEY_F16),
    FAULT("keys_magnitude", "", "", "magnitudes are compared", "compare values", .key = KEY_MAGNITUDE),
    FAULT("keys_raw_bits", "", "", "the bits are compared as unsigned numbers, so that negative logits win",
          "flip the bits of negative ones", .key = KEY_RAW_BITS),
    FAULT("smallest", "", "", "the smallest are taken", "take the largest", .key = KEY_SMALLEST),
    FAULT("subnormals_flushed", "", "", "subnormal logits are taken as equal", "compare them", .key = KEY_FLUSHED),
    FAULT("ties_left_out", "M3", "flashinfer#2584", "what is equal to the k-th is left out", "fill up with ties",
          .select = SELECT_LARGER_ONLY),
    FAULT("ties_repeated", "M3", "sglang#31115", "equal logits give the same index twice", "take each index once",
          .select = SELECT_TIES_REPEATED),
    FAULT("negative_infinity_left_out", "M5", "cudnn-frontend#410", "-inf inside the window is no candidate",
          "it is one", .select = SELECT_WITHOUT_NEGATIVE_INFINITY),
    FAULT("one_less", "", "", "k - 1 are taken", "fix the bound", .select = SELECT_ONE_LESS),
    FAULT("first_k", "", "", "the first k are taken", "select", .select = SELECT_FIRST_K),
    FAULT("last_repeated", "", "", "the last index is the one before it again", "fix the loop",
          .select = SELECT_LAST_REPEATED),
    UNSTABLE("unstable", "M3 M8", "sglang#31115; llama.cpp#28497",
             "which of equal logits are taken changes from run to run", "break ties by index",
             .effect = EFFECT_UNSTABLE),
    FAULT("indices_absolute", "trap.16", "", "indices are columns, not counted from the window's start",
          "subtract the start", .window = WINDOW_INDICES_ABSOLUTE),
    FAULT("start_ignored", "D17", "sglang#12583", "every window starts at column 0", "use row_starts",
          .window = WINDOW_FROM_0),
    FAULT("one_column_more", "J4 I10", "transformers#29623; flashinfer#941", "the column behind the window takes part",
          "end is exclusive", .window = WINDOW_ONE_MORE),
    FAULT("one_column_less", "trap.15 J3", "MinivLLM#76", "the last column of the window is left out",
          "end is exclusive", .window = WINDOW_ONE_LESS),
    FAULT("whole_row", "I10", "sglang#32477", "columns outside the window take part", "use the window",
          .window = WINDOW_WHOLE_ROW),
    FAULT("request_modulo", "D19 D20", "TensorRT-LLM#16925", "row r is taken to belong to request r modulo the batch",
          "divide by next_n", .window = WINDOW_REQUEST_MODULO),
    FAULT("next_n_ignored", "trap.15", "", "every row of a request ends with the request",
          "each sees one token more than the row before", .window = WINDOW_NEXT_N_IGNORED),
    FAULT("bounds_dense", "", "", "row_starts, row_ends and seq_lens are taken to be contiguous", "use their strides",
          .window = WINDOW_BOUNDS_DENSE),
    FAULT("short_rows_sorted", "", "", "a window of k or fewer columns is sorted by value",
          "its indices are 0, 1, 2 ..", .short_rows = SHORT_SORTED),
    FAULT("padded_with_0", "", "", "short rows end in 0 instead of -1", "pad with -1",
          .short_rows = SHORT_PADDED_WITH_0),
    FAULT("not_padded", "E7", "vllm-ascend#6558", "short rows are not padded", "pad with -1",
          .short_rows = SHORT_NOT_PADDED),
    FAULT("padded_with_length", "", "", "short rows end in their length instead of -1", "pad with -1",
          .short_rows = SHORT_PADDED_WITH_N),
    FAULT("short_rows_looked_at", "M5", "cudnn-frontend#410", "NaN and infinities are left out of short windows",
          "do not look at the logits", .short_rows = SHORT_FINITE_ONLY),
    FAULT("negative_length_before_row", "trap.9 J11", "sglang#31123",
          "the padding of a negative length begins before the row", "a negative length is 0",
          .short_rows = SHORT_NEGATIVE_BEFORE),
    FAULT("negative_length_unsigned", "J11", "sglang#31123", "a negative length is taken as a huge one",
          "compare signed", .short_rows = SHORT_NEGATIVE_IS_HUGE),
    FAULT("length_k_sorted", "", "", "a window of k columns is sorted by value", "its indices are 0, 1, 2 ..",
          .short_rows = SHORT_K_IS_LONG),
    FAULT("logits_dense", "D4", "aiter#1815", "logits are read as if they were contiguous", "use the row stride",
          .map = MAP_LOGITS_DENSE),
    FAULT("logits_unit_stride", "", "", "columns are taken to be neighbours", "use the stride", .map = MAP_LOGITS_UNIT),
    FAULT("logits_int32", "K4", "fla#1080", "offsets of logits wrap in 32 bits", "compute them in 64 bits",
          .map = MAP_LOGITS_INT32),
    FAULT("indices_dense", "", "", "indices are written as if they were contiguous", "use the strides",
          .map = MAP_INDICES_DENSE),
    FAULT("indices_unit_stride", "", "", "indices of a row are written as if they were neighbours", "use the stride",
          .map = MAP_INDICES_UNIT),
    FAULT("indices_int32", "K4", "fla#1080", "offsets of indices wrap in 32 bits", "compute them in 64 bits",
          .map = MAP_INDICES_INT32),
    FAULT("last_row_left", "", "", "the last row is left out", "fix the bound", .effect = EFFECT_LAST_ROW_LEFT),
    FAULT("one_past", "", "", "one index past the end of a row is written", "fix the bound", .effect = EFFECT_ONE_PAST),
    FAULT("logits_marked", "", "", "logits that were taken are overwritten", "leave inputs alone",
          .effect = EFFECT_LOGITS_MARKED),
    FAULT("empty_refused", "J5", "sglang#32065", "a call without rows, or with k = 0, is refused", "return ok",
          .effect = EFFECT_EMPTY_REFUSED),
    FAULT("windows_not_checked", "", "", "a window that leaves the row is taken without an error", "check it",
          .checks = HM_CHECKS_NOT_VALUE),
    FAULT("param_not_checked", "", "", "a bad next_n is taken without an error", "check it",
          .checks = HM_CHECKS_NOT_PARAM),
    HM_CHECK_FAULTS(FAULT),
};
const int hm_top_k_per_row_fault_count = sizeof hm_top_k_per_row_faults / sizeof *hm_top_k_per_row_faults;
