/* The indexer's paged cache: what is written is what is read, for every legal layout, and a reader and a writer that
 * disagree are seen. */
#include <criterion/criterion.h>
#include <hallmark/cp_gather_indexer_k_quant_cache.h>
#include <hallmark/fp8_paged_mqa_logits.h>
#include <hallmark/indexer_k_quant_and_cache.h>
#include <hallmark/op.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "../../certify/call.h"
#include "../../certify/faults.h"
#include "../../certify/judge.h"
#include "../../golden/indexer_cache.h"
#include "../../op/dtype.h"

#define WRITER "indexer_k_quant_and_cache"
#define READER "cp_gather_indexer_k_quant_cache"

enum { TOKENS = 70, MOST = 256 };

typedef struct {
    int64_t block_size, groups, blocks, stride; /* stride: bytes between blocks */
    hm_cache_layout layout;
    hm_code_format codes;
    hm_scale_format scales;
} form;

/* A cache, keys, and what the writer and the gather do with them. */
typedef struct {
    form f;
    uint8_t *bytes;
    int64_t size;
    uint16_t k[TOKENS * MOST];
    int64_t slots[TOKENS];
    int32_t table[TOKENS], bounds[2];
    uint8_t codes[TOKENS * MOST];
    float scales[TOKENS * 2];
} setup;

static hm_tensor cache_of(const setup *s) {
    hm_tensor t =
        hm_tensor_of(s->bytes, HM_U8, 3, (int64_t[]){s->f.blocks, s->f.block_size, s->f.groups * HM_INDEXER_ENTRY});
    t.stride[0] = s->f.stride;
    return t;
}

/* Blocks are used from the last to the first; every seventh token is padded. Tokens of one request lie in order, so
 * that one row of a block table finds them again. */
static setup *make(form f) {
    setup *s = calloc(1, sizeof *s);
    s->f = f;
    s->size = (f.blocks - 1) * f.stride + f.block_size * f.groups * HM_INDEXER_ENTRY;
    s->bytes = malloc((size_t)s->size);
    memset(s->bytes, 0x5A, (size_t)s->size);
    uint32_t state = 12345;
    for (int64_t i = 0; i < TOKENS * f.groups * 128; i++) {
        state = state * 1664525 + 1013904223;
        hm_store(HM_BF16, &s->k[i], ((double)(state >> 8) / 0x1p24 - 0.5) * (1 + (double)(i % 13)));
    }
    for (int64_t n = 0; n < TOKENS; n++) {
        int64_t block = f.blocks - 1 - n / f.block_size;
        s->slots[n] = n % 7 == 3 ? -1 - n : block * f.block_size + n % f.block_size;
        s->table[n] = 0x007B7B7B;
    }
    for (int64_t i = 0; i * f.block_size < TOKENS; i++) s->table[i] = (int32_t)(f.blocks - 1 - i);
    s->bounds[1] = TOKENS;
    return s;
}

static void discard(setup *s) {
    free(s->bytes);
    free(s);
}

static hm_indexer_k_quant_and_cache_args writing(setup *s) {
    return (hm_indexer_k_quant_and_cache_args){
        .size = sizeof(hm_indexer_k_quant_and_cache_args),
        .kv_cache = cache_of(s),
        .k = hm_tensor_of(s->k, HM_BF16, 2, (int64_t[]){TOKENS, 128 * s->f.groups}),
        .slot_mapping = hm_tensor_of(s->slots, HM_I64, 1, (int64_t[]){TOKENS}),
        .layout = s->f.layout,
        .code_format = s->f.codes,
        .scale_format = s->f.scales};
}

static hm_cp_gather_indexer_k_quant_cache_args reading(setup *s) {
    return (hm_cp_gather_indexer_k_quant_cache_args){
        .size = sizeof(hm_cp_gather_indexer_k_quant_cache_args),
        .dst_k = hm_tensor_of(s->codes, HM_U8, 2, (int64_t[]){TOKENS, 128 * s->f.groups}),
        .dst_scale = hm_tensor_of(s->scales, HM_F32, 2, (int64_t[]){TOKENS, s->f.groups}),
        .kv_cache = cache_of(s),
        .block_table = hm_tensor_of(s->table, HM_I32, 2, (int64_t[]){1, TOKENS}),
        .cu_seq_lens = hm_tensor_of(s->bounds, HM_I32, 1, (int64_t[]){2}),
        .layout = s->f.layout};
}

/* Row by row, what the group quantiser makes of the same keys; 0x5A where a token was padded. Tokens that differ. */
static int wrong_rows(const setup *s) {
    static uint8_t codes[TOKENS * MOST];
    static float scales[TOKENS * 2];
    int64_t D = 128 * s->f.groups;
    hm_dtype F = s->f.codes == HM_CODE_E4M3FNUZ ? HM_F8E4M3FNUZ : HM_F8E4M3;
    int wrong = 0;
    cr_assert_eq(
        hm_quant_fp8_group_ref(HM_ARGS(quant_fp8_group, .codes = hm_tensor_of(codes, F, 2, (int64_t[]){TOKENS, D}),
                                       .scale = hm_tensor_of(scales, HM_F32, 2, (int64_t[]){TOKENS, s->f.groups}),
                                       .x = hm_tensor_of((void *)(uintptr_t)s->k, HM_BF16, 2, (int64_t[]){TOKENS, D}),
                                       .floor = 1e-4, .scale_format = s->f.scales)),
        HM_OK, "%s", hm_error());
    for (int64_t n = 0; n < TOKENS; n++) {
        if (s->slots[n] < 0) memset(codes + n * D, 0x5A, (size_t)D);
        if (s->slots[n] < 0) memset(scales + n * s->f.groups, 0x5A, 4 * (size_t)s->f.groups);
        wrong += memcmp(codes + n * D, s->codes + n * D, (size_t)D) != 0 ||
                 memcmp(scales + n * s->f.groups, s->scales + n * s->f.groups, 4 * (size_t)s->f.groups) != 0;
    }
    return wrong;
}

static int each_form(void visit(form f)) {
    static const int64_t sizes[] = {1, 3, 8, 16, 24, 32, 48, 64, 128, 256};
    int count = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int mode = 0; mode < 16; mode++) {
            form f = {sizes[i],
                      1 + (mode >> 2 & 1),
                      TOKENS / sizes[i] + 2,
                      0,
                      mode & 1 ? HM_LAYOUT_SHUFFLE : HM_LAYOUT_NORMAL,
                      mode & 2 ? HM_CODE_E4M3FNUZ : HM_CODE_E4M3,
                      mode & 4 ? HM_SCALE_UE8M0 : HM_SCALE_F32};
            f.stride = f.block_size * f.groups * HM_INDEXER_ENTRY + (mode & 8 ? 77 : 0);
            if (f.layout == HM_LAYOUT_SHUFFLE && f.block_size % 16) continue;
            visit(f);
            count++;
        }
    return count;
}

static void go_and_return(form f) {
    setup *s = make(f);
    hm_indexer_k_quant_and_cache_args w = writing(s);
    hm_cp_gather_indexer_k_quant_cache_args r = reading(s);
    cr_assert_eq(hm_indexer_k_quant_and_cache(&w), HM_OK, "%s", hm_error());
    cr_assert_eq(hm_cp_gather_indexer_k_quant_cache(&r), HM_OK, "%s", hm_error());
    cr_expect_eq(wrong_rows(s), 0, "blocks of %lld, layout %d", (long long)f.block_size, (int)f.layout);
    /* Nothing but the entries of the tokens was written. */
    int64_t written = 0, tokens = 0, entry = f.groups * HM_INDEXER_ENTRY;
    for (int64_t i = 0; i < s->size; i++) written += s->bytes[i] != 0x5A;
    for (int64_t n = 0; n < TOKENS; n++) tokens += s->slots[n] >= 0;
    cr_expect(written <= tokens * entry && written > tokens * entry * 9 / 10);
    discard(s);
}
Test(indexer_cache, what_is_written_is_what_is_read) { cr_expect_eq(each_form(go_and_return), 128); }

/* The reader takes the layout, or the block size, that the writer did not: nearly every token is wrong. In blocks of
 * one token there is one layout. */
static void disagree(form f) {
    setup *s = make(f);
    hm_indexer_k_quant_and_cache_args w = writing(s);
    hm_cp_gather_indexer_k_quant_cache_args r = reading(s);
    cr_assert_eq(hm_indexer_k_quant_and_cache(&w), HM_OK);
    if (f.block_size % 16 == 0) {
        r.layout = f.layout == HM_LAYOUT_NORMAL ? HM_LAYOUT_SHUFFLE : HM_LAYOUT_NORMAL;
        cr_assert_eq(hm_cp_gather_indexer_k_quant_cache(&r), HM_OK);
        cr_expect_gt(wrong_rows(s), TOKENS / 2);
        r.layout = f.layout;
    } else {
        r.layout = HM_LAYOUT_SHUFFLE;
        cr_expect_eq(hm_cp_gather_indexer_k_quant_cache(&r), HM_BAD_SHAPE);
        w.layout = HM_LAYOUT_SHUFFLE;
        cr_expect_eq(hm_indexer_k_quant_and_cache(&w), HM_BAD_SHAPE);
        r.layout = f.layout;
    }
    if (f.blocks > 2 && s->f.stride > f.block_size * f.groups * HM_INDEXER_ENTRY) {
        r.kv_cache.stride[0] = f.block_size * f.groups * HM_INDEXER_ENTRY;
        cr_assert_eq(hm_cp_gather_indexer_k_quant_cache(&r), HM_OK);
        cr_expect_gt(wrong_rows(s), TOKENS / 2);
    }
    discard(s);
}
Test(indexer_cache, a_reader_that_disagrees_is_seen) { cr_expect_eq(each_form(disagree), 128); }

/* The scores of decode, read from the cache, are those of prefill, read from what was gathered, bit for bit; with the
 * other layout they are not. */
static void score(form f) {
    enum { HEADS = 2 };
    if (f.groups > 1) return;
    setup *s = make(f);
    hm_dtype F = f.codes == HM_CODE_E4M3FNUZ ? HM_F8E4M3FNUZ : HM_F8E4M3;
    uint8_t q[HEADS * 128], keys[TOKENS * 128];
    float weights[HEADS] = {0.75f, -0.25f}, prefill[TOKENS], decode[TOKENS];
    int32_t from = 0, to = TOKENS;
    for (int i = 0; i < HEADS * 128; i++) q[i] = hm_store8(F, i * 37 % 29 - 14, HM_OVERFLOW_SATURATE);
    hm_indexer_k_quant_and_cache_args w = writing(s);
    hm_cp_gather_indexer_k_quant_cache_args r = reading(s);
    r.dst_k = hm_tensor_of(keys, F, 2, (int64_t[]){TOKENS, 128});
    hm_tensor range = hm_tensor_of(&to, HM_I32, 1, (int64_t[]){1});
    hm_fp8_paged_mqa_logits_args paged = {.size = sizeof paged,
                                          .logits = hm_tensor_of(decode, HM_F32, 2, (int64_t[]){1, TOKENS}),
                                          .q = hm_tensor_of(q, F, 4, (int64_t[]){1, 1, HEADS, 128}),
                                          .kv_cache = cache_of(s),
                                          .weights = hm_tensor_of(weights, HM_F32, 2, (int64_t[]){1, HEADS}),
                                          .context_lens = range,
                                          .block_tables = r.block_table,
                                          .layout = f.layout};
    hm_fp8_mqa_logits_args dense = {.size = sizeof dense,
                                    .logits = hm_tensor_of(prefill, HM_F32, 2, (int64_t[]){1, TOKENS}),
                                    .q = hm_tensor_of(q, F, 3, (int64_t[]){1, HEADS, 128}),
                                    .k = r.dst_k,
                                    .k_scale = hm_tensor_of(s->scales, HM_F32, 1, (int64_t[]){TOKENS}),
                                    .weights = paged.weights,
                                    .ks = hm_tensor_of(&from, HM_I32, 1, (int64_t[]){1}),
                                    .ke = range};
    cr_assert_eq(hm_indexer_k_quant_and_cache(&w), HM_OK, "%s", hm_error());
    cr_assert_eq(hm_cp_gather_indexer_k_quant_cache(&r), HM_OK, "%s", hm_error());
    cr_assert_eq(hm_fp8_mqa_logits(&dense), HM_OK, "%s", hm_error());
    cr_assert_eq(hm_fp8_paged_mqa_logits(&paged), HM_OK, "%s", hm_error());
    cr_expect_eq(memcmp(prefill, decode, sizeof decode), 0, "blocks of %lld, layout %d", (long long)f.block_size,
                 (int)f.layout);
    paged.layout = f.layout == HM_LAYOUT_NORMAL ? HM_LAYOUT_SHUFFLE : HM_LAYOUT_NORMAL;
    if (f.block_size % 16) {
        cr_expect_eq(hm_fp8_paged_mqa_logits(&paged), HM_BAD_SHAPE);
    } else {
        int differing = 0;
        cr_assert_eq(hm_fp8_paged_mqa_logits(&paged), HM_OK, "%s", hm_error());
        for (int n = 0; n < TOKENS; n++) differing += memcmp(&prefill[n], &decode[n], sizeof(float)) != 0;
        cr_expect_gt(differing, TOKENS / 2);
    }
    discard(s);
}
Test(indexer_cache, decode_reads_what_prefill_reads) { cr_expect_eq(each_form(score), 128); }

static bool passes(const hm_fault *fault, const char *line) {
    char why[512];
    hm_case_spec spec;
    hm_call *call;
    hm_judge_options options = {.required = HM_CLASS_NONE};
    hm_run run = {.state = HM_RAN};
    hm_verdict v;
    cr_assert_eq(hm_case_parse(line, &spec, why, sizeof why), HM_OK, "%s: %s", line, why);
    cr_assert_eq(hm_call_from_case(&spec, &call, why, sizeof why), HM_OK, "%s", why);
    run.status = fault->run(fault->variation, call->args, run.written);
    hm_judge_outputs(call, &run, &options, &v);
    hm_call_free(call);
    return v.outcome == HM_PASS || v.outcome == HM_VACUOUS;
}

/* The mistakes of the report, by name: tiles where a block has one token, tiles only at 64, tiles that do not fit. A
 * block of 64 tokens shows nothing of the second. */
Test(indexer_cache, layouts_that_do_not_agree_are_caught_by_name) {
    static const struct {
        const char *fault;
        int block_size, blocks;
        const char *layout;
        bool passes;
    } rows[] = {
        {"always_shuffled", 1, 80, "normal", false},       {"always_shuffled", 8, 12, "normal", false},
        {"always_shuffled", 24, 5, "normal", false},       {"always_shuffled", 16, 6, "shuffle", true},
        {"shuffled_at_64_only", 16, 6, "shuffle", false},  {"shuffled_at_64_only", 32, 4, "shuffle", false},
        {"shuffled_at_64_only", 128, 2, "shuffle", false}, {"shuffled_at_64_only", 256, 1, "shuffle", false},
        {"shuffled_at_64_only", 64, 3, "shuffle", true},   {"other_layout", 64, 3, "shuffle", false},
        {"other_layout", 1, 80, "normal", false},          {"other_layout", 64, 3, "normal", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int who = 0; who < 3; who++) {
            static const char *const op[] = {WRITER, READER, "fp8_paged_mqa_logits"};
            static const char *const rest[] = {
                "k=bf16[60,128] slot_mapping=i64[60]",
                "cu_seq_lens=i32[3] block_table=i32[2,40] dst_k=u8[60,128] dst_scale=f32[60,1]",
                "q=f8e4m3[1,1,4,128] context_lens=i32[1] block_tables=i32[1,40] weights=f32[1,4] logits=f32[1,40]"};
            char line[512], id[128];
            snprintf(id, sizeof id, "%s.%s", op[who], rows[i].fault);
            snprintf(line, sizeof line, "%s %s kv_cache=u8[%d,%d,132] layout=%s gen=index", op[who], rest[who],
                     rows[i].blocks, rows[i].block_size, rows[i].layout);
            const hm_fault *fault = hm_fault_named(id);
            cr_assert_not_null(fault, "%s", id);
            cr_expect_eq(passes(fault, line), rows[i].passes, "%s: %s", id, line);
        }
}

/* Chunk c of 16 codes of slot s lands in slot s + k, at byte r, when tiles are written to blocks of one token. */
Test(indexer_cache, tiles_in_blocks_of_one_token_go_where_the_report_says) {
    static const int k[8] = {0, 1, 3, 5, 7, 9, 11, 13}, r[8] = {0, 124, 116, 108, 100, 92, 84, 76};
    const hm_fault *fault = hm_fault_named(WRITER ".always_shuffled");
    static uint8_t cache[64 * 132];
    uint16_t keys[128];
    hm_dtype written[HM_MAX_ARGS];
    int64_t slot = 20;
    for (int d = 0; d < 128; d++) hm_store(HM_BF16, &keys[d], d == 127 ? 448 : 1 + d / 16);
    hm_indexer_k_quant_and_cache_args args = {.size = sizeof args,
                                              .kv_cache = hm_tensor_of(cache, HM_U8, 3, (int64_t[]){64, 1, 132}),
                                              .k = hm_tensor_of(keys, HM_BF16, 2, (int64_t[]){1, 128}),
                                              .slot_mapping = hm_tensor_of(&slot, HM_I64, 1, (int64_t[]){1})};
    cr_assert_eq(fault->run(fault->variation, &args, written), HM_OK);
    for (int c = 0; c < 8; c++)
        for (int i = 0; i < 15; i++)
            cr_expect_eq(cache[(slot + k[c]) * 132 + r[c] + i], hm_store8(HM_F8E4M3, 1 + c, HM_OVERFLOW_SATURATE));
}

/* ref's map and golden's, which is written the other way round. */
static void one_to_one(form f) {
    hm_indexer_cache c = {.layout = f.layout,
                          .block_size = f.block_size,
                          .groups = f.groups,
                          .head_dim = 128 * f.groups,
                          .entry = f.groups * HM_INDEXER_ENTRY};
    int64_t wrong = 0, codes = 0;
    for (int64_t byte = 0; byte < c.block_size * c.entry; byte++) {
        hm_indexer_place p = hm_indexer_place_of(&c, byte);
        codes += !p.is_scale;
        wrong += p.offset < 0 || p.offset >= c.block_size || p.d < 0 || p.d >= (p.is_scale ? c.groups : c.head_dim) ||
                 byte != (p.is_scale ? hm_indexer_scale_byte(&c, p.offset, p.d) + p.part
                                     : hm_indexer_code_byte(&c, p.offset, p.d));
    }
    cr_expect(wrong == 0 && codes == c.block_size * c.head_dim);
}
Test(indexer_cache, every_byte_of_a_block_is_one_thing) { cr_expect_eq(each_form(one_to_one), 128); }

Test(indexer_cache, slots_are_checked_before_a_byte_is_written) {
    setup *s = make((form){16, 1, 6, 16 * 132, HM_LAYOUT_NORMAL, HM_CODE_E4M3, HM_SCALE_F32});
    hm_indexer_k_quant_and_cache_args args = writing(s);
    s->slots[40] = 96;
    cr_expect_eq(hm_indexer_k_quant_and_cache(&args), HM_BAD_VALUE);
    cr_expect_str_eq(hm_error(),
                     WRITER ": slot_mapping holds 96 for token 40; it has to be less than the 96 slots of kv_cache");
    s->slots[40] = s->slots[69];
    cr_expect_eq(hm_indexer_k_quant_and_cache(&args), HM_BAD_VALUE);
    cr_expect_str_eq(hm_error(), WRITER ": slot_mapping holds 21 twice; a slot has room for one token");
    for (int64_t i = 0; i < s->size; i++) cr_assert_eq(s->bytes[i], 0x5A);
    for (int64_t n = 0; n < TOKENS; n++) s->slots[n] = -1; /* negative ones may be the same */
    cr_expect_eq(hm_indexer_k_quant_and_cache(&args), HM_OK);
    for (int64_t i = 0; i < s->size; i++) cr_assert_eq(s->bytes[i], 0x5A);
    discard(s);
}

/* -1.5 * 2^-11 over a scale of 1.5 is a tie between the zero of fnuz, which has no sign, and its first negative code:
 * one f32 division may give either, and nothing between 0x00 and 0x81 in the order of bytes. */
Test(indexer_cache, fnuz_zero_and_negative_codes_are_no_interval) {
    static const struct {
        uint8_t byte;
        bool admitted;
    } rows[] = {{0x00, true}, {0x81, true}, {0x80, false}, {0x01, false}, {0x40, false}, {0x7F, false}, {0x82, false}};
    uint16_t keys[128] = {0};
    uint8_t cache[132] = {0};
    int64_t slot = 0;
    char why[256];
    hm_store(HM_BF16, &keys[0], 336), hm_store(HM_BF16, &keys[5], -1.5 * 0x1p-11);
    hm_indexer_k_quant_and_cache_args args = {.size = sizeof args,
                                              .kv_cache = hm_tensor_of(cache, HM_U8, 3, (int64_t[]){1, 1, 132}),
                                              .k = hm_tensor_of(keys, HM_BF16, 2, (int64_t[]){1, 128}),
                                              .slot_mapping = hm_tensor_of(&slot, HM_I64, 1, (int64_t[]){1}),
                                              .code_format = HM_CODE_E4M3FNUZ};
    hm_call *call;
    hm_judge_options options = {.required = HM_CLASS_NONE};
    hm_run run = {.state = HM_RAN};
    hm_verdict v;
    cr_assert_eq(hm_call_from_args(hm_op_named(WRITER), &args, "tie", &call, why, sizeof why), HM_OK, "%s", why);
    cr_assert_eq(hm_indexer_k_quant_and_cache_ref(call->args), HM_OK);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ((uint8_t *)call->tensor[2].data)[5] = rows[i].byte;
        hm_judge_outputs(call, &run, &options, &v);
        cr_expect_eq(v.outside == 0, rows[i].admitted, "0x%02x: %s", rows[i].byte, v.why);
    }
    hm_call_free(call);
}

/* Blocks further than 2^32 bytes apart, in memory that is only reserved. */
Test(indexer_cache, blocks_lie_beyond_32_bits) {
    form f = {16, 1, 7, INT64_C(0x100000000) + 4096, HM_LAYOUT_SHUFFLE, HM_CODE_E4M3, HM_SCALE_UE8M0};
    setup *s = make((form){16, 1, 7, 16 * 132, HM_LAYOUT_SHUFFLE, HM_CODE_E4M3, HM_SCALE_UE8M0});
    size_t size = (size_t)(f.blocks * f.stride);
    uint8_t *far = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    cr_assert_neq(far, MAP_FAILED);
    hm_indexer_k_quant_and_cache_args near = writing(s), w = near;
    cr_assert_eq(hm_indexer_k_quant_and_cache(&near), HM_OK);
    w.kv_cache.data = far, w.kv_cache.stride[0] = f.stride;
    for (int64_t b = 0; b < f.blocks; b++) memset(far + b * f.stride, 0x5A, 16 * 132);
    cr_assert_eq(hm_indexer_k_quant_and_cache(&w), HM_OK, "%s", hm_error());
    for (int64_t b = 0; b < f.blocks; b++)
        cr_expect_eq(memcmp(far + b * f.stride, s->bytes + b * 16 * 132, 16 * 132), 0, "block %lld", (long long)b);
    hm_cp_gather_indexer_k_quant_cache_args r = reading(s);
    r.kv_cache = w.kv_cache;
    cr_assert_eq(hm_cp_gather_indexer_k_quant_cache(&r), HM_OK, "%s", hm_error());
    cr_expect_eq(wrong_rows(s), 0);
    munmap(far, size);
    discard(s);
}

/* More slots than 32 bits count. */
Test(indexer_cache, slots_lie_beyond_32_bits) {
    int64_t blocks = (INT64_C(1) << 31) + 8, slots[2] = {blocks - 3, 3};
    size_t size = (size_t)blocks * 132;
    uint8_t *far = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (far == MAP_FAILED) cr_skip("283 GB of addresses are not to be had here");
    uint16_t keys[2 * 128];
    uint8_t codes[2 * 128];
    float scales[2];
    int32_t table[1] = {3}, bounds[2] = {0, 1};
    for (int i = 0; i < 256; i++) hm_store(HM_BF16, &keys[i], i < 128 ? 448 : 224);
    hm_tensor cache = hm_tensor_of(far, HM_U8, 3, (int64_t[]){blocks, 1, 132});
    cr_assert_eq(hm_indexer_k_quant_and_cache(HM_ARGS(indexer_k_quant_and_cache, .kv_cache = cache,
                                                      .k = hm_tensor_of(keys, HM_BF16, 2, (int64_t[]){2, 128}),
                                                      .slot_mapping = hm_tensor_of(slots, HM_I64, 1, (int64_t[]){2}))),
                 HM_OK, "%s", hm_error());
    float S[2];
    memcpy(&S[0], far + slots[0] * 132 + 128, 4), memcpy(&S[1], far + slots[1] * 132 + 128, 4);
    cr_expect(S[0] == 1 && S[1] == 0.5f && far[slots[0] * 132] == 0x7E);
    cr_assert_eq(hm_cp_gather_indexer_k_quant_cache(HM_ARGS(
                     cp_gather_indexer_k_quant_cache, .dst_k = hm_tensor_of(codes, HM_U8, 2, (int64_t[]){1, 128}),
                     .dst_scale = hm_tensor_of(scales, HM_F32, 2, (int64_t[]){1, 1}), .kv_cache = cache,
                     .block_table = hm_tensor_of(table, HM_I32, 2, (int64_t[]){1, 1}),
                     .cu_seq_lens = hm_tensor_of(bounds, HM_I32, 1, (int64_t[]){2}))),
                 HM_OK, "%s", hm_error());
    cr_expect(scales[0] == 0.5f && codes[127] == 0x7E);
    munmap(far, size);
}

Test(indexer_cache, unknown_modes_are_refused) {
    setup *s = make((form){16, 1, 6, 16 * 132, HM_LAYOUT_NORMAL, HM_CODE_E4M3, HM_SCALE_F32});
    hm_indexer_k_quant_and_cache_args w = writing(s);
    hm_cp_gather_indexer_k_quant_cache_args r = reading(s);
    r.layout = (hm_cache_layout)2;
    cr_expect_eq(hm_cp_gather_indexer_k_quant_cache(&r), HM_BAD_PARAM);
    cr_expect_str_eq(hm_error(), READER ": layout is 2; it has to be 0 to 1");
    w.layout = (hm_cache_layout)-1;
    cr_expect_eq(hm_indexer_k_quant_and_cache(&w), HM_BAD_PARAM);
    w.layout = HM_LAYOUT_NORMAL, w.code_format = (hm_code_format)2;
    cr_expect_eq(hm_indexer_k_quant_and_cache(&w), HM_BAD_PARAM);
    w.code_format = HM_CODE_E4M3, w.scale_format = (hm_scale_format)2;
    cr_expect_eq(hm_indexer_k_quant_and_cache(&w), HM_BAD_PARAM);
    for (int64_t i = 0; i < s->size; i++) cr_assert_eq(s->bytes[i], 0x5A);
    discard(s);
}

/* Padding rows, empty requests, and entries of the table that nobody needs. */
Test(indexer_cache, gather_leaves_padding_alone) {
    setup *s = make((form){16, 1, 6, 16 * 132, HM_LAYOUT_NORMAL, HM_CODE_E4M3, HM_SCALE_F32});
    hm_indexer_k_quant_and_cache_args w = writing(s);
    hm_cp_gather_indexer_k_quant_cache_args r = reading(s);
    cr_assert_eq(hm_indexer_k_quant_and_cache(&w), HM_OK);
    int32_t bounds[5] = {0, 0, 17, 17, 40};
    int32_t table[4][3] = {{-5, 999, -1}, {5, 4, 77}, {1 << 30, -9, 0}, {3, 2, 1 << 20}};
    r.cu_seq_lens = hm_tensor_of(bounds, HM_I32, 1, (int64_t[]){5});
    r.block_table = hm_tensor_of(table, HM_I32, 2, (int64_t[]){4, 3});
    memset(s->codes, 0xC3, sizeof s->codes), memset(s->scales, 0xC3, sizeof s->scales);
    cr_assert_eq(hm_cp_gather_indexer_k_quant_cache(&r), HM_OK, "%s", hm_error());
    cr_expect_eq(memcmp(s->codes, s->bytes + 5 * 16 * 132, 16 * 128), 0);
    cr_expect_eq(memcmp(s->codes + 17 * 128, s->bytes + 3 * 16 * 132, 16 * 128), 0);
    for (size_t i = 40 * 128; i < TOKENS * 128; i++) cr_assert_eq(s->codes[i], 0xC3);
    uint32_t scale;
    memcpy(&scale, s->scales + 40, sizeof scale);
    cr_expect_eq(scale, 0xC3C3C3C3);
    table[3][1] = 6; /* needed, and not there */
    cr_expect_eq(hm_cp_gather_indexer_k_quant_cache(&r), HM_BAD_VALUE);
    cr_expect_str_eq(hm_error(), READER ": block_table holds 6 for block 1 of request 3; it has to be 0 to 5");
    table[3][1] = 2, bounds[3] = 16;
    cr_expect_eq(hm_cp_gather_indexer_k_quant_cache(&r), HM_BAD_VALUE);
    discard(s);
}
