/* translate_indices: the corners of its contract. */
#include <criterion/criterion.h>
#include <hallmark/op.h>
#include <hallmark/translate_indices.h>
#include <stdlib.h>
#include <string.h>

#include "refused.h"

enum { TOKENS = 6, K = 9, REQUESTS = 4, BLOCKS = 5, SPREAD = 3 };

typedef struct {
    int32_t index[TOKENS][K], request[TOKENS], entry[REQUESTS][BLOCKS], start[REQUESTS]; /* as they are meant */
    int32_t indices[SPREAD * TOKENS * K], req_id[SPREAD * TOKENS], table[SPREAD * REQUESTS * BLOCKS],
        starts[SPREAD * REQUESTS], out[SPREAD * TOKENS * K], count[SPREAD * TOKENS];
} setup;

/* Blocks of P tokens. Entries that no index asks for are no blocks. spread: between neighbours. */
static hm_translate_indices_args call(setup *s, int32_t P, bool paged, int spread) {
    static const int32_t known[K] = {0, -1, 1, 5, -7, INT32_MIN, 2, 3, 11};
    memset(s->table, 0x80, sizeof s->table), memset(s->starts, 0x80, sizeof s->starts);
    memset(s->out, CANARY, sizeof s->out), memset(s->count, CANARY, sizeof s->count);
    for (int r = 0; r < REQUESTS; r++) {
        s->start[r] = 1000 * r + 7;
        for (int b = 0; b < BLOCKS; b++) s->entry[r][b] = b % 2 ? INT32_MIN : -1;
    }
    for (int n = 0; n < TOKENS; n++) {
        s->request[n] = (n * 3 + 1) % REQUESTS;
        for (int i = 0; i < K; i++) {
            int32_t t = known[(i + n) % K];
            if (t == 2)
                t = BLOCKS * P - 1; /* the last token that has a block, the first one that has none, and far off */
            if (t == 3) t = BLOCKS * P;
            if (t == 11) t = paged ? INT32_MAX : 11;
            if (t == 5) t = P + P / 2;
            s->index[n][i] = s->indices[(n * K + i) * spread] = t;
            if (t >= 0 && t / P < BLOCKS) s->entry[s->request[n]][t / P] = (s->request[n] * 13 + t / P * 5) % 97;
        }
        s->req_id[n * spread] = s->request[n];
    }
    for (int r = 0; r < REQUESTS; r++) {
        s->starts[r * spread] = s->start[r];
        for (int b = 0; b < BLOCKS; b++) s->table[(r * BLOCKS + b) * spread] = s->entry[r][b];
    }
    hm_translate_indices_args a = {.size = sizeof a,
                                   .out = hm_tensor_of(s->out, HM_I32, 2, (int64_t[]){TOKENS, K}),
                                   .valid_count = hm_tensor_of(s->count, HM_I32, 1, (int64_t[]){TOKENS}),
                                   .indices = hm_tensor_of(s->indices, HM_I32, 2, (int64_t[]){TOKENS, K}),
                                   .req_id = hm_tensor_of(s->req_id, HM_I32, 1, (int64_t[]){TOKENS}),
                                   .block_size = P};
    if (paged) a.block_table = hm_tensor_of(s->table, HM_I32, 2, (int64_t[]){REQUESTS, BLOCKS});
    else a.workspace_starts = hm_tensor_of(s->starts, HM_I32, 1, (int64_t[]){REQUESTS});
    hm_tensor *t[] = {&a.out, &a.valid_count, &a.indices, &a.req_id, &a.block_table, &a.workspace_starts};
    for (int i = 0; i < 6; i++)
        for (int d = 0; d < t[i]->ndim; d++) t[i]->stride[d] *= spread;
    return a;
}

static int32_t right(const setup *s, int n, int i, int32_t P, bool paged) {
    int32_t t = s->index[n][i], r = s->request[n];
    if (t < 0) return -1;
    if (!paged) return s->start[r] + t;
    int32_t block = 0;
    for (; t >= P && block < BLOCKS; t -= P) block++;
    return block < BLOCKS ? s->entry[r][block] * P + t : -1;
}

static void check(const setup *s, const hm_translate_indices_args *a, int32_t P, bool paged) {
    for (int n = 0; n < TOKENS; n++) {
        int32_t valid = 0;
        for (int i = 0; i < K; i++) {
            int32_t want = right(s, n, i, P, paged),
                    got = ((int32_t *)a->out.data)[n * a->out.stride[0] + i * a->out.stride[1]];
            cr_assert_eq(got, want, "blocks of %d, index %d: %d, not %d", P, s->index[n][i], got, want);
            valid += want != -1;
        }
        if (a->valid_count.dtype) cr_assert_eq(((int32_t *)a->valid_count.data)[n * a->valid_count.stride[0]], valid);
    }
}

Test(translate_indices, every_form) {
    static setup s;
    static const int32_t sizes[] = {1, 2, 3, 16, 64, 100};
    int32_t untouched;
    memset(&untouched, CANARY, sizeof untouched);
    for (int mode = 0; mode < 6 * 16; mode++) {
        int32_t P = sizes[mode / 16];
        bool paged = mode & 1, in_place = mode & 2, counted = mode & 4;
        int spread = mode & 8 ? SPREAD : 1;
        hm_translate_indices_args a = call(&s, P, paged, spread);
        if (in_place) a.out = a.indices;
        if (!counted) a.valid_count = (hm_tensor){0};
        cr_assert_eq(hm_translate_indices(&a), HM_OK, "%s", hm_error());
        check(&s, &a, P, paged);
        for (int i = 0; i < SPREAD * TOKENS * K; i++) /* nothing else */
            if (in_place || i % spread || i >= spread * TOKENS * K) cr_assert_eq(s.out[i], untouched, "%d", i);
        for (int i = 0; i < SPREAD * TOKENS; i++)
            if (!counted || i % spread || i >= spread * TOKENS) cr_assert_eq(s.count[i], untouched, "%d", i);
    }
}

Test(translate_indices, blocks_of_64_are_the_default) {
    static setup s;
    hm_translate_indices_args a = call(&s, 64, true, 1);
    a.block_size = 0;
    cr_assert_eq(hm_translate_indices(&a), HM_OK, "%s", hm_error());
    check(&s, &a, 64, true);
}

/* Rows of the block table behind the entries that are asked for are not there. */
Test(translate_indices, only_entries_that_are_asked_for_are_read) {
    enum { PAGE = 4096 };
    char *memory = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int32_t *table = (int32_t *)(void *)(memory + PAGE) - 3, indices[4] = {47, -1, 16, 0}, out[4], request = 0;
    table[0] = 5, table[1] = 3, table[2] = 8;
    cr_assert_eq(mprotect(memory + PAGE, PAGE, PROT_NONE), 0);
    cr_assert_eq(hm_translate_indices(HM_ARGS(translate_indices, .out = hm_tensor_of(out, HM_I32, 2, (int64_t[]){1, 4}),
                                              .indices = hm_tensor_of(indices, HM_I32, 2, (int64_t[]){1, 4}),
                                              .req_id = hm_tensor_of(&request, HM_I32, 1, (int64_t[]){1}),
                                              .block_table = hm_tensor_of(table, HM_I32, 2, (int64_t[]){3, 500}),
                                              .block_size = 16)),
                 HM_OK, "%s", hm_error());
    cr_expect(out[0] == 8 * 16 + 15 && out[1] == -1 && out[2] == 3 * 16 && out[3] == 5 * 16);
    munmap(memory, 2 * PAGE);
}

Test(translate_indices, nothing_to_translate) {
    static setup s;
    for (int mode = 0; mode < 3; mode++) {
        hm_translate_indices_args a = call(&s, 16, true, 1);
        if (mode == 0) a.out.shape[0] = a.indices.shape[0] = a.req_id.shape[0] = a.valid_count.shape[0] = 0;
        if (mode == 1) a.out.shape[1] = a.indices.shape[1] = 0;
        if (mode == 2) a.block_table.shape[1] = 0;
        cr_assert_eq(hm_translate_indices(&a), HM_OK, "%s", hm_error());
        int32_t untouched;
        memset(&untouched, CANARY, sizeof untouched);
        cr_expect_eq(s.count[0], mode == 0 ? untouched : 0);
        cr_expect_eq(s.out[0], mode == 2 ? -1 : untouched);
    }
}

#define REFUSED(paged, status, name, value, ...)                                              \
    do {                                                                                      \
        hm_translate_indices_args a = call(&s, 16, paged, 1);                                 \
        __VA_ARGS__;                                                                          \
        refused("translate_indices", &a, s.out, sizeof s.out, status, name, value, __LINE__); \
        for (int i = 0; i < SPREAD * TOKENS; i++) cr_assert_eq(s.count[i], untouched);        \
    } while (0)

Test(translate_indices, refuses) {
    static setup s;
    int32_t untouched;
    memset(&untouched, CANARY, sizeof untouched);
    REFUSED(true, HM_BAD_ARG, "req_id", "absent", a.req_id.dtype = HM_DTYPE_NONE);
    REFUSED(true, HM_BAD_ARG, "block_table", "both absent", a.block_table.dtype = HM_DTYPE_NONE);
    REFUSED(true, HM_BAD_ARG, "workspace_starts", "both there", a.workspace_starts = a.req_id);
    REFUSED(true, HM_BAD_SHAPE, "indices", "rank 1", a.indices.ndim = 1);
    REFUSED(true, HM_BAD_SHAPE, "out", "8", a.out.shape[1] = 8);
    REFUSED(true, HM_BAD_SHAPE, "req_id", "5", a.req_id.shape[0] = 5);
    REFUSED(true, HM_BAD_SHAPE, "valid_count", "5", a.valid_count.shape[0] = 5);
    REFUSED(true, HM_BAD_SHAPE, "block_table", "rank 1", a.block_table.ndim = 1);
    REFUSED(false, HM_BAD_SHAPE, "workspace_starts", "rank 2", a.workspace_starts.ndim = 2,
            a.workspace_starts.shape[1] = 1);
    REFUSED(true, HM_BAD_STRIDE, "out", "8", a.out.stride[0] = 8);
    REFUSED(true, HM_BAD_STRIDE, "valid_count", "0", a.valid_count.stride[0] = 0);
    REFUSED(true, HM_BAD_DTYPE, "indices", "i64", a.indices.dtype = HM_I64);
    REFUSED(true, HM_BAD_DTYPE, "out", "f32", a.out.dtype = HM_F32);
    REFUSED(true, HM_BAD_DTYPE, "block_table", "i64", a.block_table.dtype = HM_I64);
    REFUSED(true, HM_BAD_PLACE, "block_table", "cuda", a.block_table.place = HM_CUDA);
    REFUSED(true, HM_BAD_ALIAS, "out", "indices", a.indices.data = s.out + 1);
    REFUSED(true, HM_BAD_ALIAS, "out", "block_table", a.block_table.data = s.out);
    REFUSED(true, HM_BAD_ALIAS, "valid_count", "indices", a.out = a.indices, a.valid_count.data = s.indices);
    REFUSED(true, HM_BAD_ALIAS, "valid_count", "out", a.valid_count.data = s.out + 5);
    REFUSED(true, HM_BAD_PARAM, "block_size", "-16", a.block_size = -16);
    REFUSED(true, HM_BAD_VALUE, "req_id", "-1", s.req_id[2] = -1);
    REFUSED(false, HM_BAD_VALUE, "req_id", "4", s.req_id[5] = 4);
    REFUSED(true, HM_BAD_VALUE, "block_table", "-1", s.table[1 * BLOCKS] = -1);
    REFUSED(true, HM_BAD_VALUE, "block_table", "134217728", s.table[1 * BLOCKS] = 134217728); /* times 16: 2^31 */
    REFUSED(false, HM_BAD_VALUE, "workspace_starts", "-9", s.starts[1] = -9);
    REFUSED(false, HM_BAD_VALUE, "workspace_starts", "2147483647", s.starts[1] = INT32_MAX);
}

/* The largest slot there is, and rows further than 2^31 elements apart. */
Test(translate_indices, offsets_beyond_32_bits) {
    static setup s;
    int64_t far = (INT64_C(1) << 31) / 3 + 5; /* the fourth row and request are beyond */
    for (int which = 0; which < 4; which++) {
        hm_translate_indices_args a = call(&s, 16, true, 1);
        hm_tensor *t = which == 0 ? &a.indices : which == 1 ? &a.block_table : which == 2 ? &a.out : &a.req_id;
        int64_t n = t->ndim == 2 ? t->shape[1] : 1, bytes = far * t->shape[0] * 4;
        int32_t *to = reserve(bytes);
        for (int64_t r = 0; r < t->shape[0]; r++)
            memcpy(to + r * far, (int32_t *)t->data + r * t->stride[0], (size_t)n * 4);
        t->data = to, t->stride[0] = far;
        cr_assert_eq(hm_translate_indices(&a), HM_OK, "%s", hm_error());
        check(&s, &a, 16, true);
        munmap(to, (size_t)bytes);
    }
    for (int paged = 0; paged < 2; paged++) {
        int32_t index = 15, request = 0, base = paged ? 134217727 : INT32_MAX - 15, out = 0;
        hm_tensor of_base = hm_tensor_of(&base, HM_I32, 1 + paged, (int64_t[]){1, 1});
        hm_translate_indices_args a = {.size = sizeof a,
                                       .out = hm_tensor_of(&out, HM_I32, 2, (int64_t[]){1, 1}),
                                       .indices = hm_tensor_of(&index, HM_I32, 2, (int64_t[]){1, 1}),
                                       .req_id = hm_tensor_of(&request, HM_I32, 1, (int64_t[]){1}),
                                       .block_size = 16};
        *(paged ? &a.block_table : &a.workspace_starts) = of_base;
        cr_assert_eq(hm_translate_indices(&a), HM_OK, "%s", hm_error());
        cr_expect_eq(out, INT32_MAX);
        if (paged) base++, index = 0;
        else index++;
        cr_expect_eq(hm_translate_indices(&a), HM_BAD_VALUE); /* 2^31 */
    }
}
