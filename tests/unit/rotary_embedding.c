/* rotary_embedding: the reference against the formula written out, what it costs, and golden's finite sets. */
#include <criterion/criterion.h>
#include <hallmark/op.h>
#include <hallmark/rotary_embedding.h>
#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../certify/call.h"
#include "../../certify/judge.h"
#include "../../golden/golden.h"
#include "../../op/dtype.h"
#include "../../op/op.h"

/* ---- the description table ---- */

Test(rotary_embedding, table_matches_the_struct) {
    static const struct {
        const char *name;
        size_t offset;
    } fields[] = {
#define FIELD(name) {#name, offsetof(hm_rotary_embedding_args, name)}
        FIELD(query),   FIELD(key),     FIELD(positions), FIELD(cos_sin_cache), FIELD(query_out),
        FIELD(key_out), FIELD(pairing), FIELD(round),     FIELD(inverse),       FIELD(rope_dim_offset),
    };
    const hm_op_info *op = hm_op_named("rotary_embedding");
    cr_assert_not_null(op);
    cr_assert_eq(op->nargs + op->nparams, (int)(sizeof fields / sizeof *fields));
    cr_assert_eq(op->args_size, sizeof(hm_rotary_embedding_args));
    for (int i = 0; i < op->nargs + op->nparams; i++) {
        cr_expect_str_eq(i < op->nargs ? op->args[i].name : op->params[i - op->nargs].name, fields[i].name);
        cr_expect_eq(i < op->nargs ? op->args[i].offset : op->params[i - op->nargs].offset, fields[i].offset);
    }
    cr_expect_str_eq(op->args[3].rows_named_by, "positions");
}

/* ---- what a call costs ---- */

enum { ROTARY = 64, ROWS = 1 << 20 };

/* A table of 2^20 rows of which nothing but the page around one row can be read: any other row, or a pass over the
 * table, is a crash. */
static float *fenced_table(int64_t row, hm_dtype dtype, size_t *bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), width = ROTARY * hm_dtype_size(dtype);
    *bytes = ROWS * width;
    char *base = mmap(NULL, *bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    cr_assert_neq(base, MAP_FAILED);
    size_t first = (size_t)row * width / page * page;
    cr_assert_eq(mprotect(base + first, page, PROT_READ | PROT_WRITE), 0);
    for (int i = 0; i < ROTARY; i++)
        hm_store(dtype, base + (size_t)row * width + (size_t)i * hm_dtype_size(dtype), i < ROTARY / 2 ? 0.6 : 0.8);
    return (float *)base;
}

/* Every allocation of this program passes here: the test is about calls, not about bytes in use afterwards. A sanitizer
 * has allocators of its own, so that there only mallinfo2 speaks. */
static _Atomic int allocations;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void *malloc(size_t size) {
    allocations++;
    return __libc_malloc(size);
}
void *calloc(size_t n, size_t size) {
    allocations++;
    return __libc_calloc(n, size);
}
void *realloc(void *p, size_t size) {
    allocations++;
    return __libc_realloc(p, size);
}
void *aligned_alloc(size_t to, size_t size) {
    allocations++;
    return __libc_memalign(to, size);
}
#endif

static void one_token(hm_dtype T, hm_dtype C, int64_t position) {
    size_t bytes;
    float *table = fenced_table(position, C, &bytes);
    static unsigned char query[8 * ROTARY * 4], key[2 * ROTARY * 4];
    memset(query, 0x3C, sizeof query), memset(key, 0x3D, sizeof key);
    hm_tensor q = hm_tensor_of(query, T, 3, (int64_t[]){1, 8, ROTARY}),
              k = hm_tensor_of(key, T, 3, (int64_t[]){1, 2, ROTARY});
    hm_rotary_embedding_args args = {.size = sizeof args,
                                     .query_out = q,
                                     .query = q,
                                     .key_out = k,
                                     .key = k,
                                     .positions = hm_tensor_of(&position, HM_I64, 1, (int64_t[]){1}),
                                     .cos_sin_cache = hm_tensor_of(table, C, 2, (int64_t[]){ROWS, ROTARY})};
    double before = hm_load(T, query), other = hm_load(T, query + ROTARY / 2 * hm_dtype_size(T));
    cr_assert_eq(hm_rotary_embedding_ref(&args), HM_OK, "%s",
                 hm_error()); /* the team of OpenMP, if any, is there now */
    double c = hm_load(C, (char *)table + (size_t)position * ROTARY * hm_dtype_size(C));
    double s = hm_load(C, (char *)table + ((size_t)position * ROTARY + ROTARY / 2) * hm_dtype_size(C));
    cr_expect_eq(hm_load(T, query), hm_round_to(T, before * c - other * s));
    struct mallinfo2 start = mallinfo2();
    int count = allocations;
    cr_assert_eq(hm_rotary_embedding_ref(&args), HM_OK, "%s", hm_error());
    struct mallinfo2 end = mallinfo2();
    cr_expect_eq(allocations, count, "%d allocations", allocations - count);
    cr_expect_eq(end.uordblks, start.uordblks);
    cr_expect_eq(end.hblkhd, start.hblkhd, "%zu bytes mapped", end.hblkhd - start.hblkhd);
    cr_expect_eq(end.arena, start.arena);
    munmap(table, bytes);
}

Test(rotary_embedding, one_token_touches_one_row_and_allocates_nothing) {
    static const int64_t positions[] = {0, 1, 4095, 65536, 131071, ROWS - 1};
    for (size_t p = 0; p < sizeof positions / sizeof *positions; p++) {
        one_token(HM_F32, HM_F32, positions[p]);
        one_token(HM_BF16, HM_F32, positions[p]);
        one_token(HM_BF16, HM_BF16, positions[p]);
        one_token(HM_F16, HM_F16, positions[p]);
    }
}

/* The same fence round a case: a call on a large table is made, run and judged with the rows that positions name alone.
 */
Test(rotary_embedding, large_tables_are_sparse) {
    char why[512];
    hm_case_spec spec;
    hm_call *call;
    const char *line = "rotary_embedding query=f32[3,2,64] positions=i64[3] cos_sin_cache=f32[1048576,64]";
    cr_assert_eq(hm_case_parse(line, &spec, why, sizeof why), HM_OK, "%s", why);
    cr_assert_eq(hm_call_from_case(&spec, &call, why, sizeof why), HM_OK, "%s", why);
    cr_assert(call->sparse[3]);
    cr_assert(call->live_count[3] >= 1 && call->live_count[3] <= 3);
    const float *table = call->tensor[3].data;
    int64_t row = call->live[3][call->live_count[3] - 1];
    bool any = false;
    for (int i = 0; i < 64; i++) any |= table[row * 64 + i] != 0;
    cr_expect(any);
    /* far from any row that is named there is nothing */
    for (int64_t r = 100000; r < 100010; r++)
        for (int i = 0; i < 64; i++) cr_expect_eq(table[r * 64 + i], 0);
    /* a write beside a live row is seen */
    cr_assert_eq(hm_rotary_embedding_ref(call->args), HM_OK);
    char text[256];
    cr_expect(hm_call_effects(call, false, text, sizeof text), "%s", text);
    ((unsigned char *)call->tensor[3].data)[row * 256 - 1] ^= 1;
    cr_expect(!hm_call_effects(call, false, text, sizeof text));
    hm_call_free(call);
}

/* ---- golden ---- */

typedef struct {
    double lo, hi, ideal;
    int parts, flags;
} set_of;

/* x' of one pair. */
static set_of x_of(hm_dtype T, hm_dtype C, hm_rotary_round round, hm_class class, hm_tier tier, double x, double y,
                   double c, double s) {
    unsigned char head[8], table[8];
    size_t size = hm_dtype_size(T), entry = hm_dtype_size(C);
    int64_t zero = 0;
    hm_store(T, head, x), hm_store(T, head + size, y), hm_store(C, table, c), hm_store(C, table + entry, s);
    hm_tensor q = hm_tensor_of(head, T, 3, (int64_t[]){1, 1, 2});
    hm_rotary_embedding_args args = {.size = sizeof args,
                                     .query = q,
                                     .query_out = q,
                                     .round = round,
                                     .positions = hm_tensor_of(&zero, HM_I64, 1, (int64_t[]){1}),
                                     .cos_sin_cache = hm_tensor_of(table, C, 2, (int64_t[]){1, 2})};
    const hm_op_info *op = hm_op_named("rotary_embedding");
    hm_golden *golden;
    double lo[2], hi[2], ideal[2];
    unsigned char flags[2];
    hm_golden_row row = {.lo = lo, .hi = hi, .ideal = ideal, .flags = flags};
    /* golden reads query; query_out is for its shape alone */
    cr_assert_eq(hm_golden_open(op, &args, 1, &golden), HM_OK, "%s", hm_error());
    cr_assert_eq(hm_golden_row_get(golden, 4, 0, class, tier, &row), HM_OK);
    set_of r = {lo[0], hi[0], ideal[0], row.nparts && row.parts[0].index == 0 ? row.parts[0].n : 1, flags[0]};
    hm_golden_close(golden);
    free(row.parts);
    return r;
}

static void expect(const char *what, set_of s, double lo, double hi, double ideal, int parts) {
    cr_expect(s.lo == lo && s.hi == hi && s.ideal == ideal && s.parts == parts, "%s: [%a, %a], ideal %a, %d parts",
              what, s.lo, s.hi, s.ideal, s.parts);
}

Test(rotary_embedding, admissible_sets) {
    for (int tier = HM_TIER_TWO; tier <= HM_TIER_MPFR; tier++) {
#define X(T, C, round, class, ...) x_of(T, C, round, class, (hm_tier)tier, __VA_ARGS__)
        /* nothing is rounded */
        expect("exact", X(HM_BF16, HM_F32, HM_ROTARY_ONCE, HM_CHAIN64, 3, 5, 0.5, 0.25), 0.25, 0.25, 0.25, 1);
        /* x c - 1 is 12 u + 35 u^2: a product that is rounded first leaves 12 u, any other form 12 u + 32 u^2 */
        double u = 0x1p-23, less = 12 * u, more = less + 32 * u * u;
        expect("cancellation", X(HM_F32, HM_F32, HM_ROTARY_ONCE, HM_CHAIN64, 1 + 5 * u, 1, 1 + 7 * u, 1), less, more,
               more, 2);
        expect("the same, wide", X(HM_F32, HM_F32, HM_ROTARY_ONCE, HM_WIDE, 1 + 5 * u, 1, 1 + 7 * u, 1), more, more,
               more, 1);
        /* a tie of bf16 that 2^-60 decides: binary64 loses it, and may */
        double x = 1 + 0x1p-7; /* odd: x * 1.5 lies half way */
        expect("tie", X(HM_BF16, HM_F32, HM_ROTARY_ONCE, HM_WIDE, x, 1, 1.5, -0x1p-60), 1.5 + 0x1p-6, 1.5 + 0x1p-6,
               1.5 + 0x1p-6, 1);
        expect("tie, other side", X(HM_BF16, HM_F32, HM_ROTARY_ONCE, HM_WIDE, x, 1, 1.5, 0x1p-60), 1.5 + 0x1p-7,
               1.5 + 0x1p-6, 1.5 + 0x1p-7, 1);
        /* each: products 1.0117.. are rounded to bf16 before they are added */
        double a = 1 + 0x1p-7, b = 1 + 3 * 0x1p-7;
        expect("each", X(HM_BF16, HM_F32, HM_ROTARY_EACH, HM_CHAIN64, a, 1, b, 1), hm_round_to(HM_BF16, a * b) - 1,
               hm_round_to(HM_BF16, a * b) - 1, hm_round_to(HM_BF16, a * b) - 1, 1);
        /* a result below 2^-126 may be lost in f32 classes, and not in wide */
        expect("flush", X(HM_F32, HM_F32, HM_ROTARY_ONCE, HM_CHAIN64, 0x1p-100, 0, 0x1p-40, 0), 0, 0x1p-140, 0x1p-140,
               1);
        expect("no flush", X(HM_F32, HM_F32, HM_ROTARY_ONCE, HM_WIDE, 0x1p-100, 0, 0x1p-40, 0), 0x1p-140, 0x1p-140,
               0x1p-140, 1);
        /* products that overflow f32 */
        cr_expect(X(HM_F32, HM_F32, HM_ROTARY_ONCE, HM_CHAIN64, 0x1p127, 0x1p127, 2, 2).flags & HM_GOLD_RANGE_FREE);
        cr_expect_eq(X(HM_F32, HM_F32, HM_ROTARY_ONCE, HM_WIDE, 0x1p127, 0x1p127, 2, 2).flags, 0);
        cr_expect_eq(X(HM_F32, HM_F32, HM_ROTARY_ONCE, HM_CHAIN64, NAN, 1, 1, 1).flags, HM_GOLD_NAN);
        cr_expect_eq(X(HM_F16, HM_F32, HM_ROTARY_EACH, HM_CHAIN64, 60000, 60000, 2, 2).flags,
                     HM_GOLD_NAN); /* inf - inf, declared */
    }
}

/* ---- cases ---- */

static hm_call *made(const char *line) {
    char why[512];
    hm_case_spec spec;
    hm_call *call;
    cr_assert_eq(hm_case_parse(line, &spec, why, sizeof why), HM_OK, "%s: %s", line, why);
    cr_assert_eq(hm_call_from_case(&spec, &call, why, sizeof why), HM_OK, "%s: %s", line, why);
    return call;
}

Test(rotary_embedding, outputs_follow_their_inputs) {
    hm_call *call =
        made("rotary_embedding query=f16[2,3,4,8] key=f16[2,3,1,8] positions=i64[2,3] cos_sin_cache=f32[9,8]");
    cr_expect_eq(call->tensor[5].dtype, HM_F16);
    cr_expect_eq(call->tensor[5].shape[2], 1);
    hm_call_free(call);
    call = made("rotary_embedding query=f16[2,4,8] positions=i64[2] cos_sin_cache=f32[9,8]");
    cr_expect_eq(call->tensor[5].dtype, HM_DTYPE_NONE);
    hm_call_free(call);
    call = made("concat_mla_q ql_nope=bf16[2,3,5] q_pe=bf16[2,3,4]");
    cr_expect_eq(call->tensor[2].shape[2], 9);
    hm_call_free(call);
}

/* Positions: in range, the dangerous ones among them, the last row too; out of range where that is asked for. */
Test(rotary_embedding, positions) {
    static const int64_t wanted[] = {0, 1, 255, 256, 257, 300, 4095, 4096, 16383, 65535, 131071, 1048575};
    hm_call *call = made("rotary_embedding query=bf16[64,1,2] positions=i64[64] cos_sin_cache=f32[1048576,2]");
    const int64_t *p = call->tensor[2].data;
    for (size_t w = 0; w < sizeof wanted / sizeof *wanted; w++) {
        int found = 0;
        for (int i = 0; i < 64; i++) found += p[i] == wanted[w];
        cr_expect(found, "%lld is missing", (long long)wanted[w]);
    }
    for (int i = 0; i < 64; i++) cr_expect(p[i] >= 0 && p[i] < 1048576);
    hm_call_free(call);
    for (int seed = 0; seed < 12; seed++) {
        char line[160];
        snprintf(line, sizeof line,
                 "rotary_embedding query=bf16[7,1,2] positions=i64[7] cos_sin_cache=f32[50,2] gen=out_of_range seed=%d",
                 seed);
        call = made(line);
        int bad = 0;
        for (int i = 0; i < 7; i++)
            bad += ((const int64_t *)call->tensor[2].data)[i] < 0 || ((const int64_t *)call->tensor[2].data)[i] >= 50;
        cr_expect_eq(bad, 1);
        cr_expect_eq(hm_rotary_embedding_check(call->args), HM_BAD_VALUE);
        hm_call_free(call);
    }
}

/* What the generators are there for: results near 2^-20 of their inputs, and exact data. */
Test(rotary_embedding, generators) {
    hm_call *call =
        made("rotary_embedding query=f32[16,4,64] positions=i64[16] cos_sin_cache=f32[300,64] gen=cancelling");
    cr_assert_eq(hm_rotary_embedding_ref(call->args), HM_OK);
    const float *in = call->tensor[0].data, *out = call->tensor[4].data;
    int cancelled = 0;
    for (int row = 0; row < 64; row++)
        for (int i = 0; i < 32; i++) {
            const float *x = in + row * 64 + i, *r = out + row * 64 + i;
            double size = fmax(fabs((double)x[0]), fabs((double)x[32]));
            cancelled += fabs((double)r[0]) < 0x1p-16 * size || fabs((double)r[32]) < 0x1p-16 * size;
        }
    cr_expect_gt(cancelled, 64 * 32 / 2);
    hm_call_free(call);
    call =
        made("rotary_embedding query=bf16[16,4,64] positions=i64[16] cos_sin_cache=bf16[300,64] gen=exact round=each");
    double exact[64 * 64], got[64 * 64];
    cr_assert_eq(hm_rotary_embedding_ref(call->args), HM_OK);
    hm_load_row(HM_BF16, call->tensor[4].data, 1, 64 * 64, exact);
    hm_call_reset(call);
    ((hm_rotary_embedding_args *)call->args)->round = HM_ROTARY_ONCE;
    cr_assert_eq(hm_rotary_embedding_ref(call->args), HM_OK);
    hm_load_row(HM_BF16, call->tensor[4].data, 1, 64 * 64, got);
    cr_expect(memcmp(exact, got, sizeof got) == 0, "exact data is not rounded anywhere");
    hm_call_free(call);
}
