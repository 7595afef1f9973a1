/* hm_rope_cache: one conversion a dtype whoever asks first, an f32 master that never changes, and the dtype that was
 * asked for. The checks are one function over an interface; caches that make the mistakes people made are handed to it
 * and have to be caught. Threads: tests/accuracy/rope_cache.c. */
#include <criterion/criterion.h>
#include <hallmark/rope_cache.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 60, WIDTH = 64, ELEMENTS = ROWS * WIDTH };

typedef struct {
    hm_status (*create)(const hm_rope_table_args *table, hm_rope_cache **cache);
    hm_status (*get)(hm_rope_cache *cache, hm_dtype dtype, hm_tensor *view);
    int (*conversions)(const hm_rope_cache *cache, hm_dtype dtype);
    void (*destroy)(hm_rope_cache *cache);
} interface;

static const interface real = {hm_rope_cache_create, hm_rope_cache_get, hm_rope_cache_conversions,
                               hm_rope_cache_destroy};
static const hm_dtype dtypes[] = {HM_F32, HM_BF16, HM_F16};

static hm_rope_table_args table_of(double base) {
    return *HM_ARGS(rope_table, .base = base,
                    .out = {.dtype = HM_F32, .ndim = 2, .shape = {ROWS, WIDTH}, .stride = {WIDTH, 1}});
}

/* What the cache has to hold, by the op itself; 16 bits: RN of the f32 values by arithmetic of its own. */
static void expected(double base, float *f32) {
    hm_rope_table_args a = table_of(base);
    a.out.data = f32;
    cr_assert_eq(hm_rope_table(&a), HM_OK, "%s", hm_error());
}

static double value16(hm_dtype dtype, uint16_t h) {
    int mantissa = dtype == HM_F16 ? 10 : 7, bias = dtype == HM_F16 ? 15 : 127, e = (h & 0x7FFF) >> mantissa;
    int fraction = h & ((1 << mantissa) - 1);
    double v = e ? ldexp(fraction + (1 << mantissa), e - bias - mantissa) : ldexp(fraction, 1 - bias - mantissa);
    return h & 0x8000 ? -v : v;
}

/* h is nearest to v: no neighbour is nearer, and of two as near it is the even one. |v| <= 1. */
static bool is_nearest(hm_dtype dtype, uint16_t h, double v) {
    double d = fabs(value16(dtype, h) - v);
    for (int step = -1; step <= 1; step += 2) {
        uint16_t other = (uint16_t)(h + step);
        if ((h & 0x7FFF) == 0 && step < 0) continue;
        double e = fabs(value16(dtype, other) - v);
        if (e < d || (e == d && h & 1)) return false;
    }
    return signbit(v) == (h >> 15 & 1);
}

static bool holds(const hm_tensor *view, hm_dtype dtype, const float *f32) {
    if (view->dtype != dtype || view->place != HM_HOST || view->ndim != 2 || view->shape[0] != ROWS ||
        view->shape[1] != WIDTH || view->stride[0] != WIDTH || view->stride[1] != 1)
        return false;
    if (dtype == HM_F32) return !memcmp(view->data, f32, ELEMENTS * sizeof *f32);
    for (int i = 0; i < ELEMENTS; i++)
        if (!is_nearest(dtype, ((const uint16_t *)view->data)[i], (double)f32[i])) return false;
    return true;
}

/* NULL: nothing is wrong. */
static const char *wrong(const interface *is) {
    static float f32[ELEMENTS], other[ELEMENTS];
    hm_rope_cache *cache, *second;
    hm_tensor view[3], again;
    expected(10000, f32), expected(500000, other);
    hm_rope_table_args a = table_of(10000), b = table_of(500000), far = table_of(10000);
    far.out.place = HM_CUDA;
    if (is->create(&far, &cache) == HM_OK) {
        is->destroy(cache);
        return "a table on a device that this build lacks was made";
    }
    if (cache) return "an error left a cache";
    if (is->create(&a, &cache) || is->create(&b, &second)) return "no cache";
    const char *why = NULL;
    static const int order[] = {0, 1, 2, 0, 2, 1, 0};
    for (size_t k = 0; k < sizeof order / sizeof *order && !why; k++) {
        int i = order[k];
        if (is->get(cache, dtypes[i], &view[i])) why = "get failed";
        else if (!holds(&view[i], dtypes[i], f32)) why = "a view has the wrong dtype, shape or values";
        else if (is->get(cache, dtypes[i], &again) || again.data != view[i].data)
            why = "a second call returned other memory";
    }
    for (int i = 0; i < 3 && !why; i++)
        if (is->conversions(cache, dtypes[i]) != (i > 0)) why = "the wrong number of conversions";
    for (int i = 2; i >= 0 && !why; i--)
        if (is->get(second, dtypes[i], &again) || !holds(&again, dtypes[i], other))
            why = "another table's views were returned";
    is->destroy(cache);
    is->destroy(second);
    return why;
}

Test(rope_cache, does_what_it_says) { cr_assert_null(wrong(&real), "%s", wrong(&real)); }

/* ---- the mistakes ------------------------------------------------------------------------------------------------ */

static uint16_t shared[ELEMENTS]; /* C5: a copy that outlives the table that it was made of */
static bool shared_made;
static int f32_copies;

static hm_status master_replaced(hm_rope_cache *cache, hm_dtype dtype, hm_tensor *view) { /* C1 */
    hm_tensor master, bf16;
    hm_status s = hm_rope_cache_get(cache, dtype, view);
    if (s || dtype != HM_BF16) return s;
    hm_rope_cache_get(cache, HM_F32, &master), hm_rope_cache_get(cache, HM_BF16, &bf16);
    for (int i = 0; i < ELEMENTS; i++) ((float *)master.data)[i] = (float)value16(HM_BF16, ((uint16_t *)bf16.data)[i]);
    return s;
}

static hm_status bf16_for_all(hm_rope_cache *cache, hm_dtype dtype, hm_tensor *view) { /* C2 */
    return hm_rope_cache_get(cache, dtype == HM_F32 ? HM_F32 : HM_BF16, view);
}

static hm_status truncated(hm_rope_cache *cache, hm_dtype dtype, hm_tensor *view) { /* C4 */
    hm_tensor master;
    hm_status s = hm_rope_cache_get(cache, dtype, view);
    hm_rope_cache_get(cache, HM_F32, &master);
    for (int i = 0; dtype == HM_BF16 && i < ELEMENTS; i++) {
        uint32_t bits;
        memcpy(&bits, (float *)master.data + i, sizeof bits);
        ((uint16_t *)view->data)[i] = (uint16_t)(bits >> 16);
    }
    return s;
}

static hm_status stale(hm_rope_cache *cache, hm_dtype dtype, hm_tensor *view) { /* C5 */
    hm_status s = hm_rope_cache_get(cache, dtype, view);
    if (s || dtype != HM_BF16) return s;
    if (!shared_made) memcpy(shared, view->data, sizeof shared), shared_made = true;
    view->data = shared;
    return s;
}

static hm_status one_slot(hm_rope_cache *cache, hm_dtype dtype,
                          hm_tensor *view) { /* C6: bf16's copy was cast to f16 meanwhile */
    hm_tensor f16;
    hm_status s = hm_rope_cache_get(cache, dtype, view);
    if (s || dtype != HM_BF16 || !hm_rope_cache_conversions(cache, HM_F16)) return s;
    hm_rope_cache_get(cache, HM_F16, &f16);
    view->data = f16.data;
    return s;
}

static hm_status any_place(const hm_rope_table_args *table, hm_rope_cache **cache) { /* C7 */
    hm_rope_table_args a = *table;
    a.out.place = HM_HOST;
    return hm_rope_cache_create(&a, cache);
}

static hm_status copies_master(hm_rope_cache *cache, hm_dtype dtype, hm_tensor *view) { /* C8 */
    f32_copies += dtype == HM_F32;
    return hm_rope_cache_get(cache, dtype, view);
}
static int counts_copies(const hm_rope_cache *cache, hm_dtype dtype) {
    return dtype == HM_F32 ? f32_copies : hm_rope_cache_conversions(cache, dtype);
}

static int always_again(const hm_rope_cache *cache, hm_dtype dtype) {
    return 2 * hm_rope_cache_conversions(cache, dtype);
}

Test(rope_cache, catches_mistakes) {
    static const struct {
        const char *id;
        interface is;
    } mistakes[] = {
        {"cache.C1 trap.2", {hm_rope_cache_create, master_replaced, hm_rope_cache_conversions, hm_rope_cache_destroy}},
        {"cache.C2", {hm_rope_cache_create, bf16_for_all, hm_rope_cache_conversions, hm_rope_cache_destroy}},
        {"cache.C4", {hm_rope_cache_create, truncated, hm_rope_cache_conversions, hm_rope_cache_destroy}},
        {"cache.C5", {hm_rope_cache_create, stale, hm_rope_cache_conversions, hm_rope_cache_destroy}},
        {"cache.C6", {hm_rope_cache_create, one_slot, hm_rope_cache_conversions, hm_rope_cache_destroy}},
        {"cache.C7", {any_place, hm_rope_cache_get, hm_rope_cache_conversions, hm_rope_cache_destroy}},
        {"cache.C8", {hm_rope_cache_create, copies_master, counts_copies, hm_rope_cache_destroy}},
        {"a conversion a call", {hm_rope_cache_create, hm_rope_cache_get, always_again, hm_rope_cache_destroy}},
    };
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++)
        cr_expect_not_null(wrong(&mistakes[i].is), "%s was not caught", mistakes[i].id);
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

Test(rope_cache, refuses) {
    hm_rope_table_args a = table_of(10000);
    hm_rope_cache *cache = (hm_rope_cache *)&a;
    hm_tensor view = {.ndim = 7};
    cr_assert_eq(hm_rope_cache_create(NULL, &cache), HM_BAD_ARG);
    cr_assert_null(cache);
    cr_assert_eq(hm_rope_cache_create(&a, NULL), HM_BAD_ARG);
    a.out.dtype = HM_BF16;
    cr_assert_eq(hm_rope_cache_create(&a, &cache), HM_BAD_DTYPE);
    a = table_of(10000);
    a.out.data = &a;
    cr_assert_eq(hm_rope_cache_create(&a, &cache), HM_BAD_ARG);
    static const int64_t shapes[][2] = {
        {4, 0}, {4, 7}, {4, -2}, {-1, 64}, {INT64_MAX, 64}, {4, INT64_MAX}, {(1 << 24) + 1, 2}, {1, 65538}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        a = table_of(10000);
        memcpy(a.out.shape, shapes[i], sizeof shapes[i]);
        cr_expect_eq(hm_rope_cache_create(&a, &cache), HM_BAD_SHAPE, "[%lld,%lld]: %s", (long long)shapes[i][0],
                     (long long)shapes[i][1], hm_error());
        cr_expect_null(cache);
    }
    a = table_of(1);
    cr_assert_eq(hm_rope_cache_create(&a, &cache), HM_BAD_PARAM);
    a = table_of(10000);
    a.out.shape[0] = 0;
    cr_assert_eq(hm_rope_cache_create(&a, &cache), HM_OK);
    cr_assert_eq(hm_rope_cache_get(cache, HM_F8E4M3, &view), HM_BAD_DTYPE);
    cr_assert_eq(hm_rope_cache_get(cache, HM_BF16, NULL), HM_BAD_ARG);
    cr_assert_eq(hm_rope_cache_get(NULL, HM_BF16, &view), HM_BAD_ARG);
    cr_assert_eq(view.ndim, 7);
    cr_assert_eq(hm_rope_cache_get(cache, HM_BF16, &view), HM_OK);
    cr_assert_eq(view.shape[0], 0);
    hm_rope_cache_destroy(cache);
    hm_rope_cache_destroy(NULL);
}
