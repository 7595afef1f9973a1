/* embedding: its table, what each refusal says, and ids of a rank's part. */
#include <criterion/criterion.h>
#include <hallmark/embedding.h>
#include <hallmark/op.h>
#include <string.h>
#include <sys/mman.h>

Test(embedding, table_matches_the_struct) {
    const hm_op_info *op = hm_op_named("embedding");
    cr_assert_not_null(op);
    cr_assert_eq(op->nargs, 3);
    cr_expect_eq(op->args[0].offset, offsetof(hm_embedding_args, ids));
    cr_expect_eq(op->args[1].offset, offsetof(hm_embedding_args, table));
    cr_expect_eq(op->args[2].offset, offsetof(hm_embedding_args, out));
    cr_expect_eq(op->params[0].offset, offsetof(hm_embedding_args, vocab_start));
    cr_expect_eq(op->params[1].offset, offsetof(hm_embedding_args, vocab_size));
    cr_expect_eq(op->args_size, sizeof(hm_embedding_args));
}

enum { IDS = 4, ROWS = 5, HIDDEN = 3 };
static int32_t ids[IDS];
static uint16_t table[ROWS * HIDDEN], out[IDS * HIDDEN];

static hm_embedding_args call(void) {
    for (int i = 0; i < ROWS * HIDDEN; i++) table[i] = (uint16_t)(0x7F80 + i); /* an infinity, and NaN of any payload */
    for (int i = 0; i < IDS; i++) ids[i] = i;
    memset(out, 0x7B, sizeof out);
    return (hm_embedding_args){.size = sizeof(hm_embedding_args),
                               .ids = hm_tensor_of(ids, HM_I32, 1, (int64_t[]){IDS}),
                               .table = hm_tensor_of(table, HM_BF16, 2, (int64_t[]){ROWS, HIDDEN}),
                               .out = hm_tensor_of(out, HM_BF16, 2, (int64_t[]){IDS, HIDDEN})};
}

static void refused(const hm_embedding_args *a, hm_status status, const char *sentence) {
    cr_expect_eq(hm_embedding(a), status, "%s", hm_error());
    cr_expect_not_null(strstr(hm_error(), sentence), "\"%s\" is not in \"%s\"", sentence, hm_error());
    for (size_t i = 0; i < sizeof out / sizeof *out; i++) cr_assert_eq(out[i], 0x7B7B, "%zu", i);
}

Test(embedding, refusals_name_the_value) {
    hm_embedding_args a = call();
    ids[2] = -7;
    refused(&a, HM_BAD_VALUE, "ids holds -7 at element 2; it has to be 0 to 4");
    ids[2] = 5;
    refused(&a, HM_BAD_VALUE, "ids holds 5 at element 2; it has to be 0 to 4");
    a = call(), a.vocab_start = 2, ids[3] = 7;
    refused(&a, HM_BAD_VALUE, "ids holds 7 at element 3; it has to be 0 to 6");
    a = call(), a.vocab_size = 3;
    refused(&a, HM_BAD_VALUE, "ids holds 3 at element 3; it has to be 0 to 2");
    a = call(), a.vocab_start = -2;
    refused(&a, HM_BAD_PARAM, "vocab_start is -2");
    a = call(), a.vocab_size = -9;
    refused(&a, HM_BAD_PARAM, "vocab_size is -9");
    a = call(), a.vocab_start = INT64_MAX;
    refused(&a, HM_BAD_PARAM, "vocab_start is 9223372036854775807");
    a = call(), a.out.shape[1] = 2;
    refused(&a, HM_BAD_SHAPE, "out has extent 2 in dimension 1; it has to be 3, as table has");
    a = call(), a.out.dtype = HM_F16;
    refused(&a, HM_BAD_DTYPE, "out is f16; it has to be bf16");
    a = call(), a.table.ndim = 1;
    refused(&a, HM_BAD_SHAPE, "table has rank 1");
}

Test(embedding, a_rank_writes_zeros_for_the_ids_of_others) {
    hm_embedding_args a = call();
    int32_t mixed[IDS] = {9, 12, 10, 15};
    memcpy(ids, mixed, sizeof ids);
    a.vocab_start = 10, a.vocab_size = 100;
    cr_assert_eq(hm_embedding(&a), HM_OK, "%s", hm_error());
    for (int h = 0; h < HIDDEN; h++) {
        cr_expect_eq(out[h], 0);
        cr_expect_eq(out[HIDDEN + h], table[2 * HIDDEN + h]);
        cr_expect_eq(out[2 * HIDDEN + h], table[h]);
        cr_expect_eq(out[3 * HIDDEN + h], 0);
    }
    a.table.shape[0] = 0; /* a rank that holds nothing */
    memset(out, 0x7B, sizeof out);
    cr_assert_eq(hm_embedding(&a), HM_OK, "%s", hm_error());
    for (int i = 0; i < IDS * HIDDEN; i++) cr_expect_eq(out[i], 0);
}

Test(embedding, empty_calls_write_nothing_and_still_look_at_ids) {
    hm_embedding_args a = call();
    a.ids.shape[0] = a.out.shape[0] = 0;
    cr_expect_eq(hm_embedding(&a), HM_OK);
    a = call(), a.table.shape[1] = a.out.shape[1] = 0;
    cr_expect_eq(hm_embedding(&a), HM_OK);
    ids[1] = 99;
    refused(&a, HM_BAD_VALUE, "ids holds 99 at element 1");
}

/* A table of 2^33 elements, of which two pages are ever touched. */
Test(embedding, rows_beyond_2_to_the_31_elements) {
    enum { WIDTH = 1 << 16 };
    int64_t rows = INT64_C(1) << 17, id[2] = {0, rows - 1};
    size_t bytes = (size_t)rows * WIDTH * 2;
    uint16_t *large = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (large == MAP_FAILED) cr_skip_test("no address space");
    static uint16_t to[2 * WIDTH];
    large[0] = 1, large[(rows - 1) * WIDTH] = 2, large[rows * WIDTH - 1] = 3;
    hm_embedding_args a = {.size = sizeof a,
                           .ids = hm_tensor_of(id, HM_I64, 1, (int64_t[]){2}),
                           .table = hm_tensor_of(large, HM_BF16, 2, (int64_t[]){rows, WIDTH}),
                           .out = hm_tensor_of(to, HM_BF16, 2, (int64_t[]){2, WIDTH})};
    cr_assert_eq(hm_embedding(&a), HM_OK, "%s", hm_error());
    cr_expect_eq(to[0], 1);
    cr_expect_eq(to[1], 0);
    cr_expect_eq(to[WIDTH], 2);
    cr_expect_eq(to[2 * WIDTH - 1], 3);
    munmap(large, bytes);
}
