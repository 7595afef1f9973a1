/* fp8_mqa_logits and fp8_paged_mqa_logits, against integers. A code is an integer in units of 2^-9 (f8e4m3fnuz: 2^-10),
 * weights here are multiples of 1/8 and scales of 1/16, so that a logit is an integer in units of 2^-25 (2^-27). All
 * of this is computed from the contract's text; nothing of op/logits.c, which ref and golden share, takes part. */
#include <criterion/criterion.h>
#include <hallmark/fp8_paged_mqa_logits.h>
#include <hallmark/op.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "refused.h"

/* ---- what is right ---- */

static uint32_t state = 1;
static int drawn(int n) { return state = state * 1664525 + 1013904223, (int)((state >> 8) % (uint32_t)n); }

/* A code that is no NaN in either format. */
static uint8_t code_drawn(void) {
    uint8_t code;
    do code = (uint8_t)drawn(256);
    while ((code & 0x7F) == 0x7F || code == 0x80);
    return code;
}

static int64_t units(uint8_t code) {
    int e = code >> 3 & 15, m = code & 7;
    int64_t v = e ? (int64_t)(8 + m) << (e - 1) : m;
    return code & 0x80 ? -v : v;
}

/* One logit: q[heads][dim], k[dim], weights in eighths, the scale in sixteenths. Below 2^53 units ref makes no error
 * but that of the last rounding. */
static float right(const uint8_t *q, const uint8_t *k, const int *weight, int scale, int heads, int dim, hm_dtype T) {
    int64_t sum = 0;
    for (int h = 0; h < heads; h++) {
        int64_t score = 0;
        for (int d = 0; d < dim; d++) score += units(q[h * dim + d]) * units(k[d]);
        sum += weight[h] * (score > 0 ? score : 0);
    }
    sum *= scale;
    cr_assert(llabs(sum) < INT64_C(1) << 53, "the test's numbers are too large");
    return ldexpf((float)sum, T == HM_F8E4M3 ? -25 : -27);
}

static float *at(const hm_tensor *t, int64_t row, int64_t column) {
    return (float *)t->data + row * t->stride[0] + column * t->stride[1];
}

static void fill_codes(uint8_t *to, int n) {
    for (int i = 0; i < n; i++) to[i] = code_drawn();
}
static void fill_integers(int *to, int n, int low, int high) {
    for (int i = 0; i < n; i++) to[i] = low + drawn(high - low + 1);
}

/* ---- prefill ---- */

enum { ROWS = 14, HEADS = 3, DIM = 37, KEYS = 23, WIDTH = 29 };

typedef struct {
    hm_dtype T;
    int gap; /* elements between those of every tensor */
    uint8_t q[ROWS * HEADS * DIM], k[KEYS * DIM];
    int weight[ROWS * HEADS], scale[KEYS];
    uint8_t q_bytes[4 * ROWS * HEADS * DIM], k_bytes[4 * KEYS * DIM];
    float weights[4 * ROWS * HEADS], scales[4 * KEYS], logits[4 * ROWS * WIDTH];
    int32_t ks[4 * ROWS], ke[4 * ROWS];
} prefill;

static const int32_t windows[ROWS][2] = {{0, KEYS},        {3, 10},  {5, 5},         {9, 4},          {20, KEYS + 100},
                                         {KEYS, KEYS + 5}, {30, 32}, {0, -3},        {22, INT32_MAX}, {0, 0},
                                         {0, 1},           {7, 8},   {INT32_MAX, 3}, {1, KEYS - 1}};

/* Every dimension of a tensor is spread by s->gap + 1; the first one is reversed for inputs where the gap is odd. */
static hm_tensor spread(void *data, hm_dtype dtype, int ndim, const int64_t *shape, int gap) {
    hm_tensor t = hm_tensor_of(data, dtype, ndim, shape);
    for (int d = 0; d < ndim; d++) t.stride[d] *= gap + 1;
    return t;
}
static hm_tensor reversed(hm_tensor t) {
    t.data = (char *)t.data + (t.shape[0] - 1) * t.stride[0] * (int64_t)hm_dtype_size(t.dtype);
    t.stride[0] = -t.stride[0];
    return t;
}

static hm_fp8_mqa_logits_args prefill_call(prefill *s, hm_dtype T, int gap) {
    s->T = T, s->gap = gap;
    memset(s->q_bytes, 0x80, sizeof s->q_bytes), memset(s->k_bytes, 0x7F, sizeof s->k_bytes);
    fill_codes(s->q, ROWS * HEADS * DIM), fill_codes(s->k, KEYS * DIM);
    fill_integers(s->weight, ROWS * HEADS, -20, 20), fill_integers(s->scale, KEYS, 1, 63);
    for (int i = 0; i < 4 * ROWS * HEADS; i++) s->weights[i] = NAN;
    for (int i = 0; i < 4 * KEYS; i++) s->scales[i] = NAN;
    for (int i = 0; i < 4 * ROWS; i++) s->ks[i] = s->ke[i] = -7777;
    memset(s->logits, CANARY, sizeof s->logits);
    int step = gap + 1;
    for (int i = 0; i < ROWS * HEADS * DIM; i++) s->q_bytes[i * step] = s->q[i];
    for (int n = 0; n < KEYS; n++) /* the last key first */
        memset(s->k_bytes + n * DIM * step, 0x80, (size_t)(DIM * step));
    for (int n = 0; n < KEYS; n++)
        for (int d = 0; d < DIM; d++) s->k_bytes[((KEYS - 1 - n) * DIM + d) * step] = s->k[n * DIM + d];
    for (int i = 0; i < ROWS * HEADS; i++) s->weights[i * step] = (float)s->weight[i] / 8;
    for (int n = 0; n < KEYS; n++) s->scales[n * step] = (float)s->scale[n] / 16;
    for (int m = 0; m < ROWS; m++) s->ks[m * step] = windows[m][0], s->ke[m * step] = windows[m][1];
    return (hm_fp8_mqa_logits_args){.size = sizeof(hm_fp8_mqa_logits_args),
                                    .logits = spread(s->logits, HM_F32, 2, (int64_t[]){ROWS, KEYS}, gap),
                                    .q = spread(s->q_bytes, T, 3, (int64_t[]){ROWS, HEADS, DIM}, gap),
                                    .k = reversed(spread(s->k_bytes, T, 2, (int64_t[]){KEYS, DIM}, gap)),
                                    .k_scale = spread(s->scales, HM_F32, 1, (int64_t[]){KEYS}, gap),
                                    .weights = spread(s->weights, HM_F32, 2, (int64_t[]){ROWS, HEADS}, gap),
                                    .ks = spread(s->ks, HM_I32, 1, (int64_t[]){ROWS}, gap),
                                    .ke = spread(s->ke, HM_I32, 1, (int64_t[]){ROWS}, gap)};
}

/* Every element of the memory of logits: what it has to hold. */
static void check_prefill(const prefill *s, const hm_fp8_mqa_logits_args *a) {
    static float want[4 * ROWS * WIDTH];
    int scored = 0;
    memset(want, CANARY, sizeof want);
    for (int64_t m = 0; m < ROWS; m++) {
        int64_t first = windows[m][0], end = windows[m][1] < KEYS ? windows[m][1] : KEYS;
        for (int64_t c = 0; c < a->logits.shape[1]; c++) {
            int64_t n = a->columns == HM_COLUMNS_COMPRESSED ? first + c : c;
            float *to = want + m * a->logits.stride[0] + c * a->logits.stride[1];
            bool inside = n >= first && n < end;
            if (inside)
                *to =
                    right(s->q + m * HEADS * DIM, s->k + n * DIM, s->weight + m * HEADS, s->scale[n], HEADS, DIM, s->T);
            else if (a->outside == HM_LOGITS_CLEAN) *to = -INFINITY;
            scored += inside;
        }
    }
    cr_expect_eq(scored, KEYS + 7 + 3 + 1 + 1 + 1 + KEYS - 2);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        cr_assert(s->logits[i] == want[i], "element %zu: %a, not %a", i, (double)s->logits[i], (double)want[i]);
}

Test(logits, prefill_is_the_integer_sum) {
    static prefill s;
    for (int mode = 0; mode < 12; mode++) {
        hm_fp8_mqa_logits_args a = prefill_call(&s, mode & 1 ? HM_F8E4M3FNUZ : HM_F8E4M3, mode & 2 ? 3 : 0);
        a.outside = mode < 4 ? HM_LOGITS_CLEAN : HM_LOGITS_LEAVE;
        a.columns = mode < 8 ? HM_COLUMNS_ABSOLUTE : HM_COLUMNS_COMPRESSED;
        if (mode >= 8 && mode & 2) a.logits = spread(s.logits, HM_F32, 2, (int64_t[]){ROWS, WIDTH}, 3);
        cr_assert_eq(hm_fp8_mqa_logits(&a), HM_OK, "%s", hm_error());
        check_prefill(&s, &a);
    }
}

/* One code of one key, one weight, one scale that is no number: what they have no part in stays right. */
Test(logits, nan_stays_in_its_key) {
    static prefill s;
    hm_fp8_mqa_logits_args a = prefill_call(&s, HM_F8E4M3, 0);
    s.k_bytes[(KEYS - 1 - 4) * DIM + 5] = 0x7F, s.scales[6] = INFINITY, s.weights[13 * HEADS] = NAN;
    cr_assert_eq(hm_fp8_mqa_logits(&a), HM_OK);
    for (int n = 0; n < KEYS; n++)
        if (n != 4 && n != 6)
            cr_expect_eq(*at(&a.logits, 0, n), right(s.q, s.k + n * DIM, s.weight, s.scale[n], HEADS, DIM, s.T));
}

/* The longest head: every product is the largest there is, or its negative, and their sum is exact. */
Test(logits, longest_head_is_exact) {
    enum { MOST = 1 << 17 };
    static uint8_t q[MOST + 1], k[2 * (MOST + 1)];
    float weight = 1, scale[2] = {1, 1}, logits[2] = {5, 5};
    int32_t ks = 0, ke = 2;
    memset(q, 0x7E, sizeof q), memset(k, 0x7E, sizeof k);
    for (int i = 0; i < MOST / 2 - 1; i++) k[MOST + 2 * i] = 0xFE; /* what is left is 2 products, less a tiny one */
    k[2 * MOST - 2] = 0, k[2 * MOST - 1] = 0x81, q[MOST - 1] = 1;
    hm_fp8_mqa_logits_args a = {.size = sizeof a,
                                .logits = hm_tensor_of(logits, HM_F32, 2, (int64_t[]){1, 2}),
                                .q = hm_tensor_of(q, HM_F8E4M3, 3, (int64_t[]){1, 1, MOST}),
                                .k = hm_tensor_of(k, HM_F8E4M3, 2, (int64_t[]){2, MOST}),
                                .k_scale = hm_tensor_of(scale, HM_F32, 1, (int64_t[]){2}),
                                .weights = hm_tensor_of(&weight, HM_F32, 2, (int64_t[]){1, 1}),
                                .ks = hm_tensor_of(&ks, HM_I32, 1, (int64_t[]){1}),
                                .ke = hm_tensor_of(&ke, HM_I32, 1, (int64_t[]){1})};
    int64_t sum[2] = {0, 0};
    for (int n = 0; n < 2; n++)
        for (int d = 0; d < MOST; d++) sum[n] += units(q[d]) * units(k[n * MOST + d]);
    cr_assert_eq(hm_fp8_mqa_logits(&a), HM_OK, "%s", hm_error());
    cr_expect(sum[0] > INT64_C(1) << 52 && sum[0] < INT64_C(1) << 53);
    for (int n = 0; n < 2; n++) cr_expect_eq(logits[n], ldexpf((float)(sum[n] > 0 ? sum[n] : 0), -18), "%d", n);
    logits[0] = logits[1] = 5;
    a.q.shape[2] = a.q.stride[1] = a.q.stride[0] = a.k.shape[1] = MOST + 1, a.k.stride[0] = 0;
    cr_expect_eq(hm_fp8_mqa_logits(&a), HM_BAD_SHAPE);
    cr_expect(strstr(hm_error(), "131073") && strstr(hm_error(), "131072"), "%s", hm_error());
    cr_expect(logits[0] == 5 && logits[1] == 5);
}

Test(logits, nothing_to_score_in_prefill) {
    static prefill s;
    for (int mode = 0; mode < 4; mode++) {
        hm_fp8_mqa_logits_args a = prefill_call(&s, HM_F8E4M3, 0);
        if (mode == 0) a.q.shape[0] = a.weights.shape[0] = a.ks.shape[0] = a.ke.shape[0] = a.logits.shape[0] = 0;
        if (mode == 1) a.k.shape[0] = a.k_scale.shape[0] = a.logits.shape[1] = 0;
        if (mode == 2) a.q.shape[1] = a.weights.shape[1] = 0;
        if (mode == 3) a.q.shape[2] = a.k.shape[1] = 0;
        cr_assert_eq(hm_fp8_mqa_logits(&a), HM_OK, "%s", hm_error());
        float untouched;
        memset(&untouched, CANARY, sizeof untouched);
        for (int i = 0; i < KEYS; i++) /* a sum over nothing is 0 */
            cr_expect_eq(s.logits[i], mode < 2 ? untouched : 0, "%d, %d", mode, i);
    }
}

/* ---- decode ---- */

enum { BATCH = 5, MOST_NEXT = 3, PAGED_HEADS = 2, MOST_LENGTH = 300, MOST_BLOCKS = 320 };

typedef struct {
    int64_t block_size, pad; /* pad: bytes between blocks */
    int next_n;
    bool per_row; /* context_lens has two dimensions */
    hm_cache_layout layout;
    hm_logits_outside outside;
    hm_dtype T;
} form;

typedef struct {
    form f;
    int64_t table_blocks, num_blocks, stride;
    uint8_t q[BATCH * MOST_NEXT * PAGED_HEADS * 128], k[BATCH][MOST_LENGTH * 128];
    int weight[BATCH * MOST_NEXT * PAGED_HEADS], scale[BATCH][MOST_LENGTH], limit[BATCH * MOST_NEXT];
    float weights[BATCH * MOST_NEXT * PAGED_HEADS], logits[BATCH * MOST_NEXT * MOST_LENGTH];
    int32_t lens[BATCH * MOST_NEXT], table[BATCH * MOST_BLOCKS];
    uint8_t *cache;
} decode;

/* The byte of code d, and the first byte of the scale, of a token in its block: the layouts as pictures. A block has
 * all codes first. NORMAL: token after token. SHUFFLE: tiles of 16 tokens; in a tile 16 codes of each token, then the
 * next 16 codes of each. */
static int64_t byte_of(const form *f, int64_t token, int64_t d) {
    if (f->layout == HM_LAYOUT_NORMAL) return 128 * token + d;
    int64_t byte = 0;
    for (; token >= 16; token -= 16) byte += 16 * 128;
    for (; d >= 16; d -= 16) byte += 16 * 16;
    return byte + 16 * token + d;
}

static const int lengths[BATCH] = {MOST_LENGTH - 1, 1, 0, 64, 131};

/* Blocks lie from the last to the first, requests in turn; what nobody asks for is NaN in the cache and no block in the
 * table. */
static hm_fp8_paged_mqa_logits_args decode_call(decode *s, form f) {
    int64_t B = f.block_size;
    s->f = f, s->table_blocks = (MOST_LENGTH + B - 1) / B, s->num_blocks = 0, s->stride = 132 * B + f.pad;
    int rows = BATCH * f.next_n;
    for (int b = 0; b < BATCH; b++)
        for (int j = 0; j < f.next_n; j++) {
            int *limit = &s->limit[b * f.next_n + j];
            *limit = f.per_row ? (lengths[b] * (j + 1)) % MOST_LENGTH - (j == 1 && b == 1 ? 9 : 0)
                               : lengths[b] - f.next_n + j + 1;
            s->lens[f.per_row ? b * f.next_n + j : b] = f.per_row ? *limit : lengths[b];
        }
    fill_codes(s->q, rows * PAGED_HEADS * 128), fill_integers(s->weight, rows * PAGED_HEADS, -20, 20);
    for (int i = 0; i < rows * PAGED_HEADS; i++) s->weights[i] = (float)s->weight[i] / 8;
    for (int64_t i = 0; i < BATCH * s->table_blocks; i++) s->table[i] = i % 2 ? 0x7B7B7B7B : INT32_MIN;
    int64_t most[BATCH] = {0};
    for (int r = 0; r < rows; r++)
        if (s->limit[r] > most[r / f.next_n]) most[r / f.next_n] = s->limit[r];
    for (int b = 0; b < BATCH; b++) s->num_blocks += (most[b] + B - 1) / B;
    s->cache = malloc((size_t)(s->num_blocks * s->stride + 1));
    memset(s->cache, 0xFF, (size_t)(s->num_blocks * s->stride));
    int64_t next = s->num_blocks;
    for (int b = 0; b < BATCH; b++) {
        fill_codes(s->k[b], (int)most[b] * 128), fill_integers(s->scale[b], (int)most[b], 1, 63);
        for (int64_t p = 0; p < most[b]; p++) {
            if (p % B == 0) s->table[b * s->table_blocks + p / B] = (int32_t)--next;
            uint8_t *block = s->cache + next * s->stride;
            float scale = (float)s->scale[b][p] / 16;
            for (int64_t d = 0; d < 128; d++) block[byte_of(&f, p % B, d)] = s->k[b][p * 128 + d];
            memcpy(block + 128 * B + 4 * (p % B), &scale, sizeof scale);
        }
    }
    memset(s->logits, CANARY, sizeof s->logits);
    hm_fp8_paged_mqa_logits_args a = {
        .size = sizeof a,
        .logits = hm_tensor_of(s->logits, HM_F32, 2, (int64_t[]){rows, MOST_LENGTH}),
        .q = hm_tensor_of(s->q, f.T, 4, (int64_t[]){BATCH, f.next_n, PAGED_HEADS, 128}),
        .kv_cache = hm_tensor_of(s->cache, HM_U8, 3, (int64_t[]){s->num_blocks, B, 132}),
        .weights = hm_tensor_of(s->weights, HM_F32, 2, (int64_t[]){rows, PAGED_HEADS}),
        .context_lens = hm_tensor_of(s->lens, HM_I32, f.per_row ? 2 : 1, (int64_t[]){BATCH, f.next_n}),
        .block_tables = hm_tensor_of(s->table, HM_I32, 2, (int64_t[]){BATCH, s->table_blocks}),
        .layout = f.layout,
        .outside = f.outside};
    a.kv_cache.stride[0] = s->stride;
    return a;
}

static void check_decode(const decode *s, const hm_fp8_paged_mqa_logits_args *a) {
    float untouched;
    memset(&untouched, CANARY, sizeof untouched);
    for (int r = 0; r < BATCH * s->f.next_n; r++)
        for (int p = 0; p < MOST_LENGTH; p++) {
            int b = r / s->f.next_n;
            float want = s->f.outside == HM_LOGITS_CLEAN ? -INFINITY : untouched;
            if (p < s->limit[r])
                want = right(s->q + r * PAGED_HEADS * 128, s->k[b] + p * 128, s->weight + r * PAGED_HEADS,
                             s->scale[b][p], PAGED_HEADS, 128, s->f.T);
            float got = *at(&a->logits, r, p);
            cr_assert(got == want, "blocks of %lld, layout %d, next_n %d, row %d, position %d: %a, not %a",
                      (long long)s->f.block_size, (int)s->f.layout, s->f.next_n, r, p, (double)got, (double)want);
        }
}

/* Every block size and layout, with each of the other modes in turn. */
Test(logits, decode_is_the_integer_sum) {
    static const int64_t sizes[] = {1, 3, 8, 16, 24, 32, 48, 64, 128, 256};
    static decode s;
    int calls = 0;
    for (int i = 0; i < 10; i++)
        for (int mode = 0; mode < 12; mode++) {
            hm_cache_layout layout = mode & 1 ? HM_LAYOUT_SHUFFLE : HM_LAYOUT_NORMAL;
            if (layout == HM_LAYOUT_SHUFFLE && sizes[i] % 16) continue;
            form f = {.block_size = sizes[i],
                      .pad = (mode + i) % 4 == 0 ? 61 : 0,
                      .next_n = 1 + mode / 2 % 3,
                      .per_row = mode >= 6,
                      .layout = layout,
                      .outside = (mode / 2 + i) % 2 ? HM_LOGITS_LEAVE : HM_LOGITS_CLEAN,
                      .T = (mode / 6 + i) % 2 ? HM_F8E4M3FNUZ : HM_F8E4M3};
            hm_fp8_paged_mqa_logits_args a = decode_call(&s, f);
            cr_assert_eq(hm_fp8_paged_mqa_logits(&a), HM_OK, "%s", hm_error());
            check_decode(&s, &a);
            free(s.cache);
            calls++;
        }
    cr_expect_eq(calls, 10 * 6 + 6 * 6);
}

/* Memory behind the entries that a length asks for, and the blocks that no table names, cannot be read. */
Test(logits, nothing_past_the_context_is_read) {
    enum { PAGE = 4096, BLOCK = 16, BLOCKS = 7, LENGTH = 70 };
    uint8_t *cache = mmap(NULL, BLOCKS * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
            *tables = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    static const int32_t blocks[5] = {6, 0, 2, 5, 3};
    static uint8_t q[2 * 128], k[LENGTH * 128];
    int32_t len = LENGTH, *table = (int32_t *)(void *)(tables + PAGE) - 5;
    float weights[2] = {1, -0.5f}, logits[2 * 100];
    int weight[2] = {8, -4}, scale[LENGTH];
    form f = {.layout = HM_LAYOUT_SHUFFLE};
    memcpy(table, blocks, sizeof blocks);
    fill_codes(q, 2 * 128), fill_codes(k, LENGTH * 128), fill_integers(scale, LENGTH, 1, 63);
    for (int p = 0; p < LENGTH; p++) {
        uint8_t *block = cache + blocks[p / BLOCK] * PAGE;
        float S = (float)scale[p] / 16;
        for (int d = 0; d < 128; d++) block[byte_of(&f, p % BLOCK, d)] = k[p * 128 + d];
        memcpy(block + 128 * BLOCK + 4 * (p % BLOCK), &S, sizeof S);
    }
    cr_assert_eq(mprotect(tables + PAGE, PAGE, PROT_NONE), 0);
    cr_assert_eq(mprotect(cache + PAGE, PAGE, PROT_NONE), 0);
    cr_assert_eq(mprotect(cache + 4 * PAGE, PAGE, PROT_NONE), 0);
    hm_fp8_paged_mqa_logits_args a = {.size = sizeof a,
                                      .logits = hm_tensor_of(logits, HM_F32, 2, (int64_t[]){1, 100}),
                                      .q = hm_tensor_of(q, HM_F8E4M3, 4, (int64_t[]){1, 1, 2, 128}),
                                      .kv_cache = hm_tensor_of(cache, HM_U8, 3, (int64_t[]){BLOCKS, BLOCK, 132}),
                                      .weights = hm_tensor_of(weights, HM_F32, 2, (int64_t[]){1, 2}),
                                      .context_lens = hm_tensor_of(&len, HM_I32, 1, (int64_t[]){1}),
                                      .block_tables = hm_tensor_of(table, HM_I32, 2, (int64_t[]){1, 1000}),
                                      .layout = HM_LAYOUT_SHUFFLE};
    a.kv_cache.stride[0] = PAGE;
    cr_assert_eq(hm_fp8_paged_mqa_logits(&a), HM_OK, "%s", hm_error());
    for (int p = 0; p < 100; p++)
        cr_expect_eq(logits[p], p < LENGTH ? right(q, k + p * 128, weight, scale[p], 2, 128, HM_F8E4M3) : -INFINITY);
    munmap(cache, BLOCKS * PAGE);
    munmap(tables, 2 * PAGE);
}

Test(logits, nothing_to_score_in_decode) {
    static decode s;
    for (int mode = 0; mode < 5; mode++) {
        hm_fp8_paged_mqa_logits_args a =
            decode_call(&s, (form){16, 0, 2, false, HM_LAYOUT_NORMAL, HM_LOGITS_CLEAN, HM_F8E4M3});
        bool no_rows = mode < 2;
        if (mode == 0) a.q.shape[0] = a.context_lens.shape[0] = a.block_tables.shape[0] = 0;
        if (mode == 1) a.q.shape[1] = 0;
        if (no_rows) a.weights.shape[0] = a.logits.shape[0] = 0;
        if (mode == 2) a.q.shape[2] = a.weights.shape[1] = 0;
        if (mode >= 3)
            for (int b = 0; b < BATCH; b++) s.lens[b] = mode == 3 ? 0 : -1000 * b;
        if (mode == 3) a.block_tables.shape[1] = a.kv_cache.shape[0] = 0;
        if (mode == 4) a.logits.shape[1] = 0;
        cr_assert_eq(hm_fp8_paged_mqa_logits(&a), HM_OK, "%s", hm_error());
        float want;
        memset(&want, CANARY, sizeof want);
        if (mode == 2) want = 0;
        if (mode == 3) want = -INFINITY;
        for (int p = 0; p < lengths[0] - 1; p++) cr_expect_eq(s.logits[p], want, "mode %d, %d", mode, p);
        free(s.cache);
    }
}

/* ---- what is refused ---- */

#define REFUSED(status, name, value, ...)                                                        \
    do {                                                                                         \
        hm_fp8_mqa_logits_args a = prefill_call(&s, HM_F8E4M3, 0);                               \
        __VA_ARGS__;                                                                             \
        refused("fp8_mqa_logits", &a, s.logits, sizeof s.logits, status, name, value, __LINE__); \
    } while (0)

Test(logits, prefill_refuses) {
    static prefill s;
    REFUSED(HM_BAD_ARG, "q", "absent", a.q.dtype = HM_DTYPE_NONE);
    REFUSED(HM_BAD_ARG, "ke", "NULL", a.ke.data = NULL);
    REFUSED(HM_BAD_ARG, "size", "8", a.size = 8);
    REFUSED(HM_BAD_SHAPE, "q", "rank 2", a.q.ndim = 2);
    REFUSED(HM_BAD_SHAPE, "k ", "36", a.k.shape[1] = 36);
    REFUSED(HM_BAD_SHAPE, "k_scale", "22", a.k_scale.shape[0] = 22);
    REFUSED(HM_BAD_SHAPE, "weights", "13", a.weights.shape[0] = 13);
    REFUSED(HM_BAD_SHAPE, "weights", "2", a.weights.shape[1] = 2);
    REFUSED(HM_BAD_SHAPE, "ks", "13", a.ks.shape[0] = 13);
    REFUSED(HM_BAD_SHAPE, "ke", "13", a.ke.shape[0] = 13);
    REFUSED(HM_BAD_SHAPE, "logits", "13", a.logits.shape[0] = 13);
    REFUSED(HM_BAD_SHAPE, "logits", "22", a.logits.shape[1] = 22);
    REFUSED(HM_BAD_STRIDE, "logits", "0", a.logits.stride[0] = 0);
    REFUSED(HM_BAD_STRIDE, "logits", "-1", a.logits.stride[1] = -1, a.logits.data = s.logits + KEYS);
    REFUSED(HM_BAD_DTYPE, "q", "f8e5m2", a.q.dtype = HM_F8E5M2);
    REFUSED(HM_BAD_DTYPE, "k ", "f8e4m3fnuz", a.k.dtype = HM_F8E4M3FNUZ);
    REFUSED(HM_BAD_DTYPE, "k_scale", "bf16", a.k_scale.dtype = HM_BF16);
    REFUSED(HM_BAD_DTYPE, "weights", "bf16", a.weights.dtype = HM_BF16);
    REFUSED(HM_BAD_DTYPE, "ks", "i64", a.ks.dtype = HM_I64);
    REFUSED(HM_BAD_DTYPE, "logits", "f16", a.logits.dtype = HM_F16);
    REFUSED(HM_BAD_PLACE, "weights", "cuda", a.weights.place = HM_CUDA);
    REFUSED(HM_BAD_ALIAS, "logits", "k_scale", a.k_scale.data = s.logits + 7);
    REFUSED(HM_BAD_ALIAS, "logits", "ks", a.ks.data = s.logits + ROWS * KEYS - 1);
    REFUSED(HM_BAD_PARAM, "outside", "2", a.outside = (hm_logits_outside)2);
    REFUSED(HM_BAD_PARAM, "columns", "-1", a.columns = (hm_logits_columns)-1);
    REFUSED(HM_BAD_PARAM, "columns", "compressed", a.columns = HM_COLUMNS_COMPRESSED);
    REFUSED(HM_BAD_VALUE, "ks", "-5", s.ks[3] = -5);
    REFUSED(HM_BAD_VALUE, "ke", "23 keys", a.columns = HM_COLUMNS_COMPRESSED, a.outside = HM_LOGITS_LEAVE,
            a.logits.shape[1] = 22);
}

#define REFUSED_PAGED(status, name, value, ...)                                                        \
    do {                                                                                               \
        hm_fp8_paged_mqa_logits_args a =                                                               \
            decode_call(&s, (form){24, 0, 2, false, HM_LAYOUT_NORMAL, HM_LOGITS_CLEAN, HM_F8E4M3});    \
        __VA_ARGS__;                                                                                   \
        refused("fp8_paged_mqa_logits", &a, s.logits, sizeof s.logits, status, name, value, __LINE__); \
        free(s.cache);                                                                                 \
    } while (0)

Test(logits, decode_refuses) {
    static decode s;
    static uint8_t long_head[131073];
    REFUSED_PAGED(HM_BAD_ARG, "block_tables", "absent", a.block_tables.dtype = HM_DTYPE_NONE);
    REFUSED_PAGED(HM_BAD_SHAPE, "q", "rank 3", a.q.ndim = 3);
    REFUSED_PAGED(HM_BAD_SHAPE, "q", "64", a.q.shape[3] = 64);
    REFUSED_PAGED(HM_BAD_SHAPE, "q", "131073",
                  a.q = hm_tensor_of(long_head, HM_F8E4M3, 4, (int64_t[]){1, 1, 1, 131073}));
    REFUSED_PAGED(HM_BAD_SHAPE, "kv_cache", "rank 2", a.kv_cache.ndim = 2);
    REFUSED_PAGED(HM_BAD_SHAPE, "kv_cache", "131", a.kv_cache.shape[2] = 131);
    REFUSED_PAGED(HM_BAD_SHAPE, "kv_cache", "264", a.kv_cache.shape[2] = a.kv_cache.stride[1] = 264,
                  a.kv_cache.shape[1] = 12);
    REFUSED_PAGED(HM_BAD_SHAPE, "kv_cache", "24", a.layout = HM_LAYOUT_SHUFFLE);
    REFUSED_PAGED(HM_BAD_SHAPE, "context_lens", "rank 3", a.context_lens.ndim = 3, a.context_lens.shape[2] = 1);
    REFUSED_PAGED(HM_BAD_SHAPE, "context_lens", "4", a.context_lens.shape[0] = 4);
    REFUSED_PAGED(HM_BAD_SHAPE, "context_lens", "3", a.context_lens.ndim = 2, a.context_lens.shape[1] = 3,
                  a.context_lens.stride[1] = 1);
    REFUSED_PAGED(HM_BAD_SHAPE, "block_tables", "4", a.block_tables.shape[0] = 4);
    REFUSED_PAGED(HM_BAD_SHAPE, "weights", "9", a.weights.shape[0] = 9);
    REFUSED_PAGED(HM_BAD_SHAPE, "weights", "1", a.weights.shape[1] = 1);
    REFUSED_PAGED(HM_BAD_SHAPE, "logits", "9", a.logits.shape[0] = 9);
    REFUSED_PAGED(HM_BAD_STRIDE, "kv_cache", "3167", a.kv_cache.stride[0] = 3167);
    REFUSED_PAGED(HM_BAD_STRIDE, "kv_cache", "133", a.kv_cache.stride[1] = 133);
    REFUSED_PAGED(HM_BAD_STRIDE, "logits", "299", a.logits.stride[0] = 299);
    REFUSED_PAGED(HM_BAD_DTYPE, "q", "u8", a.q.dtype = HM_U8);
    REFUSED_PAGED(HM_BAD_DTYPE, "kv_cache", "f8e4m3", a.kv_cache.dtype = HM_F8E4M3);
    REFUSED_PAGED(HM_BAD_DTYPE, "block_tables", "i64", a.block_tables.dtype = HM_I64);
    REFUSED_PAGED(HM_BAD_PLACE, "kv_cache", "cuda", a.kv_cache.place = HM_CUDA);
    REFUSED_PAGED(HM_BAD_ALIAS, "logits", "weights", a.weights.data = s.logits);
    REFUSED_PAGED(HM_BAD_PARAM, "layout", "2", a.layout = (hm_cache_layout)2);
    REFUSED_PAGED(HM_BAD_PARAM, "outside", "-1", a.outside = (hm_logits_outside)-1);
    REFUSED_PAGED(HM_BAD_VALUE, "context_lens", "301", s.lens[3] = 302); /* row 6 of two has one key less */
    REFUSED_PAGED(HM_BAD_VALUE, "block_tables", "298 keys; the 12 blocks", a.block_tables.shape[1] = 12);
    REFUSED_PAGED(HM_BAD_VALUE, "block_tables", "-1", s.table[4 * s.table_blocks + 5] = -1);
    REFUSED_PAGED(HM_BAD_VALUE, "block_tables", "9999", s.table[0] = 9999);
    REFUSED_PAGED(HM_BAD_VALUE, "block_tables", "0 to 21", a.kv_cache.shape[0] = 22);
}

/* ---- offsets past 2^31 elements ---- */

/* Copies the values of t to memory in which dimension d has the stride `far`. */
static void lay_out(hm_tensor *t, int d, int64_t far, bool copy) {
    size_t size = hm_dtype_size(t->dtype);
    int64_t inner = 1, n = t->shape[d];
    for (int i = d + 1; i < t->ndim; i++) inner *= t->shape[i];
    cr_assert_eq(d, 0);
    char *to = reserve(((n - 1) * far + inner) * (int64_t)size);
    for (int64_t i = 0; i < n && copy; i++)
        memcpy(to + i * far * (int64_t)size, (char *)t->data + i * t->stride[0] * (int64_t)size, (size_t)inner * size);
    t->data = to, t->stride[0] = far;
}

Test(logits, prefill_goes_beyond_32_bits) {
    static prefill s;
    static float packed[ROWS * KEYS];
    int64_t far = (INT64_C(1) << 32) / (ROWS - 2) + 77; /* rows from 2^31 and from 2^32 elements on */
    for (int which = 0; which < 6; which++) {
        hm_fp8_mqa_logits_args a = prefill_call(&s, HM_F8E4M3, 0);
        a.k.data = s.k, a.k.stride[0] = DIM;
        hm_tensor *t[] = {&a.q, &a.k, &a.k_scale, &a.weights, &a.ks, &a.logits};
        lay_out(t[which], 0, far, which < 5);
        cr_assert_eq(hm_fp8_mqa_logits(&a), HM_OK, "%s", hm_error());
        for (int m = 0; m < ROWS; m++)
            for (int n = 0; n < KEYS; n++) packed[m * KEYS + n] = *at(&a.logits, m, n);
        memcpy(s.logits, packed, sizeof packed), a.logits.stride[0] = KEYS;
        memset(s.logits + ROWS * KEYS, CANARY, sizeof s.logits - sizeof packed);
        check_prefill(&s, &a);
    }
}

Test(logits, kernels_refuse_what_is_not_on_a_device) {
    static prefill s;
    static decode d;
    hm_fp8_mqa_logits_args a = prefill_call(&s, HM_F8E4M3, 0);
    cr_assert_eq(hm_fp8_mqa_logits_cuda(&a), HM_UNSUPPORTED);
    cr_assert_eq(hm_fp8_mqa_logits_cuda_fp8(&a), HM_UNSUPPORTED);
    cr_assert_eq(hm_fp8_mqa_logits_cuda_fp8(NULL), HM_BAD_ARG);
    hm_fp8_paged_mqa_logits_args b =
        decode_call(&d, (form){24, 0, 2, false, HM_LAYOUT_NORMAL, HM_LOGITS_CLEAN, HM_F8E4M3});
    cr_assert_eq(hm_fp8_paged_mqa_logits_cuda(&b), HM_UNSUPPORTED);
    cr_assert_eq(hm_fp8_paged_mqa_logits_cuda_fp8(&b), HM_UNSUPPORTED);
    cr_assert_eq(hm_fp8_paged_mqa_logits_cuda_fp8(NULL), HM_BAD_ARG);
    free(d.cache);
}

Test(logits, decode_goes_beyond_32_bits) {
    static decode s;
    for (int which = 0; which < 5; which++) {
        hm_fp8_paged_mqa_logits_args a =
            decode_call(&s, (form){16, 0, 2, false, HM_LAYOUT_SHUFFLE, HM_LOGITS_CLEAN, HM_F8E4M3});
        hm_tensor *t[] = {&a.q, &a.kv_cache, &a.weights, &a.block_tables, &a.logits};
        int64_t far = which == 1 ? (INT64_C(1) << 32) / 20 : (INT64_C(1) << 31) + 77;
        lay_out(t[which], 0, far, which < 4);
        cr_assert_eq(hm_fp8_paged_mqa_logits(&a), HM_OK, "%s", hm_error());
        check_decode(&s, &a);
        free(s.cache);
    }
}
