/* The paged cache of latent attention: where each byte goes, what is refused, and what its readers make of it. */
#include <criterion/criterion.h>
#include <hallmark/concat_and_cache_mla.h>
#include <hallmark/op.h>
#include <hallmark/quant_fp8_group.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "../../certify/call.h"
#include "../../certify/faults.h"
#include "../../certify/judge.h"
#include "../../op/dtype.h"
#include "../../op/mla_cache.h"

#define OP "concat_and_cache_mla"

enum { TOKENS = 20, BLOCKS = 6, P = 5, ENTRY = 656 };

/* Tokens, slots and a cache of BLOCKS blocks of P; every seventh token is padded. */
typedef struct {
    uint16_t latent[TOKENS * 512], rope[TOKENS * 64];
    int64_t slots[TOKENS];
    uint8_t cache[BLOCKS * P * ENTRY], behind[ENTRY];
} setup;

static setup *make(hm_dtype T) {
    setup *s = calloc(1, sizeof *s);
    uint32_t state = 12345;
    for (int i = 0; i < TOKENS * 512; i++) {
        state = state * 1664525 + 1013904223;
        hm_store(T, &s->latent[i], ((double)(state >> 8) / 0x1p24 - 0.5) * (1 + i / 128 % 13));
    }
    for (int i = 0; i < TOKENS * 64; i++) s->rope[i] = (uint16_t)(state = state * 1664525 + 1013904223) >> 3;
    for (int n = 0; n < TOKENS; n++) s->slots[n] = n % 7 == 3 ? -1 - n : BLOCKS * P - 1 - n;
    memset(s->cache, 0x5A, sizeof s->cache), memset(s->behind, 0x5A, sizeof s->behind);
    return s;
}

static hm_concat_and_cache_mla_args writing(setup *s, hm_dtype T, hm_mla_scale scale) {
    return (hm_concat_and_cache_mla_args){.size = sizeof(hm_concat_and_cache_mla_args),
                                          .kv_cache = hm_tensor_of(s->cache, HM_U8, 3, (int64_t[]){BLOCKS, P, ENTRY}),
                                          .kv_c = hm_tensor_of(s->latent, T, 2, (int64_t[]){TOKENS, 512}),
                                          .k_pe = hm_tensor_of(s->rope, T, 2, (int64_t[]){TOKENS, 64}),
                                          .slot_mapping = hm_tensor_of(s->slots, HM_I64, 1, (int64_t[]){TOKENS}),
                                          .format = HM_MLA_FP8_DS,
                                          .scale = scale};
}

static bool untouched(const setup *s) {
    size_t i = 0;
    while (i < sizeof s->cache && s->cache[i] == 0x5A) i++;
    return i == sizeof s->cache && !memcmp(s->behind, s->cache, sizeof s->behind);
}

/* The whole cache, put together from what the group quantiser makes of the same vectors. */
static void is_what_the_quantiser_says(hm_dtype T, hm_mla_scale mode) {
    setup *s = make(T);
    hm_concat_and_cache_mla_args args = writing(s, T, mode);
    static uint8_t codes[TOKENS * 512], want[BLOCKS * P * ENTRY];
    float scales[TOKENS * 4];
    cr_assert_eq(hm_quant_fp8_group(
                     HM_ARGS(quant_fp8_group, .codes = hm_tensor_of(codes, HM_F8E4M3, 2, (int64_t[]){TOKENS, 512}),
                             .scale = hm_tensor_of(scales, HM_F32, 2, (int64_t[]){TOKENS, 4}), .x = args.kv_c,
                             .floor = mode == HM_MLA_SCALE_POW2 ? 1e-4 : 0x1p-126, .floor_on = HM_FLOOR_SCALE,
                             .scale_format = mode == HM_MLA_SCALE_POW2 ? HM_SCALE_UE8M0 : HM_SCALE_F32)),
                 HM_OK, "%s", hm_error());
    memset(want, 0x5A, sizeof want);
    for (int n = 0; n < TOKENS; n++) {
        if (s->slots[n] < 0) continue;
        uint8_t *entry = want + s->slots[n] * ENTRY;
        memcpy(entry, codes + n * 512, 512);
        memcpy(entry + 512, scales + n * 4, 16);
        memcpy(entry + 528, s->rope + n * 64, 128);
    }
    cr_assert_eq(hm_concat_and_cache_mla(&args), HM_OK, "%s", hm_error());
    cr_expect_eq(memcmp(s->cache, want, sizeof want), 0, "%s, scale %d", hm_dtype_name(T), (int)mode);
    free(s);
}
Test(mla_cache, every_byte_is_where_the_contract_has_it) {
    is_what_the_quantiser_says(HM_BF16, HM_MLA_SCALE_F32);
    is_what_the_quantiser_says(HM_BF16, HM_MLA_SCALE_POW2);
    is_what_the_quantiser_says(HM_F16, HM_MLA_SCALE_F32);
    is_what_the_quantiser_says(HM_F16, HM_MLA_SCALE_POW2);
}

/* Tiles of 336, of zeros, of 1e-3, and of 448 and -0. */
Test(mla_cache, scales_and_their_floors) {
    static const struct {
        double amax, f32, pow2;
        uint8_t code_f32, code_pow2; /* of amax */
    } rows[] = {
        {336, 0.75, 1, 0x7E, 0x7A},
        {0, 0x1p-126, 0x1p-13, 0, 0},
        {448, 1, 1, 0x7E, 0x7E},
        {0.00390625, 0, 0x1p-13, 0x7E, 0x60},
    };
    setup *s = make(HM_BF16);
    for (int i = 0; i < 4; i++)
        for (int d = 0; d < 128; d++) hm_store(HM_BF16, &s->latent[i * 128 + d], d == 77 ? rows[i].amax : -0.0);
    s->slots[0] = 0;
    for (int mode = 0; mode < 2; mode++) {
        hm_concat_and_cache_mla_args args = writing(s, HM_BF16, (hm_mla_scale)mode);
        args.kv_c.shape[0] = args.k_pe.shape[0] = args.slot_mapping.shape[0] = 1;
        cr_assert_eq(hm_concat_and_cache_mla(&args), HM_OK, "%s", hm_error());
        for (int i = 0; i < 4; i++) {
            float S = hm_mla_scale_of(s->cache, i), want = (float)(mode ? rows[i].pow2 : rows[i].f32);
            if (i == 3 && !mode) want = 0.00390625f / 448;
            cr_expect_eq(S, want, "tile %d, mode %d: %a", i, mode, (double)S);
            cr_expect_eq(s->cache[i * 128 + 77], mode ? rows[i].code_pow2 : rows[i].code_f32, "tile %d, mode %d: %02x",
                         i, mode, s->cache[i * 128 + 77]);
            cr_expect_eq(s->cache[i * 128 + 78], 0x80);
        }
    }
    free(s);
}

/* Copies, with strides of every kind: the rest keeps what it held. */
static void copies(hm_dtype T) {
    enum { L = 6, R = 3, N = 4 };
    int64_t size = (int64_t)hm_dtype_size(T), slots[N] = {7, -1, 0, 4};
    uint8_t latent[N * L * 2 * 4], rope[R * N * 4], cache[3 * 64 * 4], want[sizeof cache];
    for (size_t i = 0; i < sizeof latent; i++) latent[i] = (uint8_t)(i * 37 + 11); /* NaN among them */
    for (size_t i = 0; i < sizeof rope; i++) rope[i] = (uint8_t)(i * 91 + 200);
    memset(cache, 0x5A, sizeof cache), memset(want, 0x5A, sizeof want);
    hm_tensor c = hm_tensor_of(cache, T, 3, (int64_t[]){3, 3, L + R}),
              l = hm_tensor_of(latent, T, 2, (int64_t[]){N, L}), r = hm_tensor_of(rope, T, 2, (int64_t[]){N, R});
    c.stride[0] = 64, c.stride[1] = 20, c.stride[2] = 2, l.stride[0] = 2 * L, l.stride[1] = 2, r.stride[0] = 1,
    r.stride[1] = N;
    cr_assert_eq(hm_concat_and_cache_mla(HM_ARGS(concat_and_cache_mla, .kv_cache = c, .kv_c = l, .k_pe = r,
                                                 .slot_mapping = hm_tensor_of(slots, HM_I64, 1, (int64_t[]){N}))),
                 HM_OK, "%s", hm_error());
    for (int n = 0; n < N; n++)
        for (int e = 0; slots[n] >= 0 && e < L + R; e++)
            memcpy(want + (slots[n] / 3 * 64 + slots[n] % 3 * 20 + e * 2) * size,
                   e < L ? latent + (n * 2 * L + 2 * e) * size : rope + (n + (e - L) * N) * size, (size_t)size);
    cr_expect_eq(memcmp(cache, want, sizeof want), 0, "%s", hm_dtype_name(T));
}
Test(mla_cache, copies_keep_their_bits) {
    copies(HM_BF16);
    copies(HM_F16);
    copies(HM_F32);
}

/* ---- what is refused ---- */

#define REFUSED(status, sentence, ...)                                                     \
    do {                                                                                   \
        hm_concat_and_cache_mla_args a_ = writing(s, HM_BF16, HM_MLA_SCALE_F32), *a = &a_; \
        __VA_ARGS__;                                                                       \
        cr_expect_eq(hm_concat_and_cache_mla(a), status, "%s", hm_error());                \
        cr_expect_str_eq(hm_error(), OP ": " sentence);                                    \
        cr_expect(untouched(s), sentence);                                                 \
    } while (0)

Test(mla_cache, slots_are_checked_before_a_byte_is_written) {
    setup *s = make(HM_BF16);
    REFUSED(HM_BAD_VALUE, "slot_mapping holds 30 for token 4; it has to be less than the 30 slots of kv_cache",
            s->slots[4] = 30);
    REFUSED(HM_BAD_VALUE, "slot_mapping holds 29 twice; a slot has room for one token", s->slots[4] = s->slots[0]);
    for (int n = 0; n < TOKENS; n++) s->slots[n] = -1; /* negative ones may be the same */
    hm_concat_and_cache_mla_args args = writing(s, HM_BF16, HM_MLA_SCALE_F32);
    cr_expect_eq(hm_concat_and_cache_mla(&args), HM_OK);
    cr_expect(untouched(s));
    free(s);
}

Test(mla_cache, what_does_not_fit_is_refused_by_name) {
    setup *s = make(HM_BF16);
    REFUSED(HM_BAD_SHAPE,
            "kv_cache has entries of 655 bytes; with format fp8_ds_mla it has to be 656: 512 codes, 4 scales and 64 "
            "elements of 16 bits",
            a->kv_cache.shape[2] = 655);
    REFUSED(HM_BAD_SHAPE, "kv_c has rows of 511; with format fp8_ds_mla it has to be 512", a->kv_c.shape[1] = 511);
    REFUSED(HM_BAD_SHAPE, "k_pe has rows of 63; with format fp8_ds_mla it has to be 64", a->k_pe.shape[1] = 63);
    REFUSED(HM_BAD_SHAPE, "k_pe has rank 2 and first extent 19; it has to be [20, rope], as kv_c says",
            a->k_pe.shape[0] = 19);
    REFUSED(HM_BAD_SHAPE, "slot_mapping has rank 1 and extent 19; it has to be [20], one for each token of kv_c",
            a->slot_mapping.shape[0] = 19);
    REFUSED(HM_BAD_STRIDE, "kv_cache has a last stride of 2; with format fp8_ds_mla it has to be 1",
            a->kv_cache.shape[0] = 1, a->kv_cache.stride[1] = 1312, a->kv_cache.stride[2] = 2);
    REFUSED(
        HM_BAD_STRIDE,
        "kv_cache has stride 655 in dimension 1; elements of an output must not overlap, so it has to be more than 655",
        a->kv_cache.stride[1] = 655);
    REFUSED(HM_BAD_DTYPE, "kv_c is f32; it has to be f16 or bf16 with format fp8_ds_mla", a->kv_c.dtype = HM_F32);
    REFUSED(HM_BAD_DTYPE, "k_pe is f16; it has to be bf16, the dtype of kv_c", a->k_pe.dtype = HM_F16);
    REFUSED(HM_BAD_DTYPE, "kv_cache is f8e4m3; with format fp8_ds_mla it has to be u8", a->kv_cache.dtype = HM_F8E4M3);
    REFUSED(HM_BAD_DTYPE, "kv_cache is u8; with format bf16 it has to be bf16, the dtype of kv_c",
            a->format = HM_MLA_BF16);
    REFUSED(HM_BAD_SHAPE, "kv_cache has entries of 328; it has to be 576, the rows of kv_c and k_pe together",
            a->format = HM_MLA_BF16,
            a->kv_cache = hm_tensor_of(s->cache, HM_BF16, 3, (int64_t[]){BLOCKS, P, ENTRY / 2}));
    REFUSED(HM_BAD_PARAM, "format is 2; it has to be 0 to 1", a->format = (hm_mla_format)2);
    REFUSED(HM_BAD_PARAM, "scale is -1; it has to be 0 to 1", a->scale = (hm_mla_scale)-1);
    free(s);
}

Test(mla_cache, nothing_is_something) {
    setup *s = make(HM_BF16);
    hm_concat_and_cache_mla_args a = writing(s, HM_BF16, HM_MLA_SCALE_F32);
    a.kv_c.shape[0] = a.k_pe.shape[0] = a.slot_mapping.shape[0] = 0;
    a.kv_c.data = a.k_pe.data = a.slot_mapping.data = NULL;
    cr_expect_eq(hm_concat_and_cache_mla(&a), HM_OK, "%s", hm_error());
    cr_expect(untouched(s));
    a = writing(s, HM_BF16, HM_MLA_SCALE_F32);
    a.kv_cache.shape[0] = 0, a.kv_cache.data = NULL;
    cr_expect_eq(hm_concat_and_cache_mla(&a), HM_BAD_VALUE);
    for (int n = 0; n < TOKENS; n++) s->slots[n] = INT64_MIN;
    cr_expect_eq(hm_concat_and_cache_mla(&a), HM_OK, "%s", hm_error());
    free(s);
}

/* ---- far away ---- */

static void *reserved(size_t size) {
    return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

/* Blocks further than 2^32 bytes apart, and entries further than 2^31. */
static void far_apart(int64_t block_stride, int64_t entry_stride) {
    size_t size = (size_t)((BLOCKS - 1) * block_stride + (P - 1) * entry_stride + ENTRY);
    uint8_t *far = reserved(size);
    if (far == MAP_FAILED) cr_skip("these addresses are not to be had here");
    setup *s = make(HM_BF16);
    hm_concat_and_cache_mla_args near = writing(s, HM_BF16, HM_MLA_SCALE_POW2), w = near;
    memset(s->cache, 0, sizeof s->cache);
    cr_assert_eq(hm_concat_and_cache_mla(&near), HM_OK);
    w.kv_cache.data = far, w.kv_cache.stride[0] = block_stride, w.kv_cache.stride[1] = entry_stride;
    cr_assert_eq(hm_concat_and_cache_mla(&w), HM_OK, "%s", hm_error());
    for (int64_t slot = 0; slot < BLOCKS * P; slot++)
        cr_expect_eq(memcmp(far + slot / P * block_stride + slot % P * entry_stride, s->cache + slot * ENTRY, ENTRY), 0,
                     "slot %lld", (long long)slot);
    munmap(far, size);
    free(s);
}
Test(mla_cache, offsets_lie_beyond_32_bits) {
    far_apart(INT64_C(0x100000000) + 4096, ENTRY);
    far_apart(INT64_C(5) * 0x80001000, 0x80001000);
    far_apart(ENTRY, INT64_C(0x100000000) + ENTRY);
}

/* More slots than 32 bits count. */
Test(mla_cache, slots_lie_beyond_32_bits) {
    int64_t blocks = (INT64_C(1) << 32) + 8, slots[2] = {blocks - 3, 3};
    size_t size = (size_t)blocks * 4;
    uint16_t *far = reserved(size), latent[2] = {0x1234, 0x5678}, rope[2] = {0x9ABC, 0xDEF0};
    if (far == MAP_FAILED) cr_skip("17 GB of addresses are not to be had here");
    cr_assert_eq(hm_concat_and_cache_mla(HM_ARGS(concat_and_cache_mla,
                                                 .kv_cache = hm_tensor_of(far, HM_BF16, 3, (int64_t[]){blocks, 1, 2}),
                                                 .kv_c = hm_tensor_of(latent, HM_BF16, 2, (int64_t[]){2, 1}),
                                                 .k_pe = hm_tensor_of(rope, HM_BF16, 2, (int64_t[]){2, 1}),
                                                 .slot_mapping = hm_tensor_of(slots, HM_I64, 1, (int64_t[]){2}))),
                 HM_OK, "%s", hm_error());
    cr_expect(far[2 * slots[0]] == 0x1234 && far[2 * slots[0] + 1] == 0x9ABC);
    cr_expect(far[6] == 0x5678 && far[7] == 0xDEF0 && far[2 * (blocks - 3 - (INT64_C(1) << 32))] == 0);
    munmap(far, size);
}

/* ---- readers ---- */

/* The three agree on every code where the scale is a power of two; elsewhere they are off by what the header says. */
Test(mla_cache, readers_agree_on_powers_of_two_alone) {
    double worst90 = 0, least100 = 1;
    for (int code = 0; code < 256; code++) {
        if ((code & 0x7F) == 0x7F) {
            for (int mode = 0; mode < 3; mode++)
                cr_expect(isnan(hm_mla_dequantised((hm_mla_dequant)mode, (uint8_t)code, 1)));
            continue;
        }
        for (int k = -124; k < 118; k++) { /* below, small codes round to 0 in bf16 */
            float S = ldexpf(1, k);
            double v = hm_mla_dequantised(HM_MLA_DEQUANT_F32, (uint8_t)code, S);
            cr_expect(v == hm_load8(HM_F8E4M3, (uint8_t)code) * (double)S);
            cr_expect(v == hm_mla_dequantised(HM_MLA_DEQUANT_SM90, (uint8_t)code, S));
            cr_expect(v == hm_mla_dequantised(HM_MLA_DEQUANT_SM100, (uint8_t)code, S));
        }
        for (int i = 1; i < 4096 && (code & 0x7F); i++) {
            float S = 1 + (float)i / 4096;
            double v = hm_load8(HM_F8E4M3, (uint8_t)code) * (double)S;
            worst90 = fmax(worst90, fabs(hm_mla_scale_seen(HM_MLA_DEQUANT_SM90, S) / (double)S - 1));
            least100 = fmin(least100, hm_mla_dequantised(HM_MLA_DEQUANT_SM100, (uint8_t)code, S) / v);
            cr_expect(fabs(hm_mla_dequantised(HM_MLA_DEQUANT_F32, (uint8_t)code, S) / v - 1) <= 0x1p-8);
        }
    }
    cr_expect(worst90 <= 0x1p-8 && worst90 > 0x1p-9, "%g", worst90);
    cr_expect(least100 > 0.5 && least100 < 0.5003, "%g", least100);
}

Test(mla_cache, an_exponent_alone) {
    cr_expect_eq(hm_mla_scale_seen(HM_MLA_DEQUANT_SM100, 0.75f), 0.5);
    cr_expect_eq(hm_mla_scale_seen(HM_MLA_DEQUANT_SM90, 0.75f), 0.75);
    cr_expect_eq(hm_mla_scale_seen(HM_MLA_DEQUANT_SM100, 0), 0x1p-127);
    cr_expect_eq(hm_mla_scale_seen(HM_MLA_DEQUANT_SM100, -3), 0x1p-127);
    cr_expect_eq(hm_mla_scale_seen(HM_MLA_DEQUANT_SM100, INFINITY), 0x1p128);
    cr_expect(isnan(hm_mla_scale_seen(HM_MLA_DEQUANT_SM100, NAN)));
    cr_expect_eq(hm_mla_scale_seen(HM_MLA_DEQUANT_SM90, 1 + 0x1p-8f), 1); /* a tie, to even */
}

/* ---- the judge ---- */

static bool passes(const char *fault_name, const char *line) {
    char why[512], id[128];
    hm_case_spec spec;
    hm_call *call;
    hm_judge_options options = {.required = HM_CLASS_NONE};
    hm_run run = {.state = HM_RAN};
    hm_verdict v;
    snprintf(id, sizeof id, OP ".%s", fault_name);
    const hm_fault *fault = hm_fault_named(id);
    cr_assert_not_null(fault, "%s", id);
    cr_assert_eq(hm_case_parse(line, &spec, why, sizeof why), HM_OK, "%s: %s", line, why);
    cr_assert_eq(hm_call_from_case(&spec, &call, why, sizeof why), HM_OK, "%s", why);
    run.status = fault->run(fault->variation, call->args, run.written);
    hm_judge_outputs(call, &run, &options, &v);
    hm_call_free(call);
    return v.outcome == HM_PASS || v.outcome == HM_VACUOUS;
}

/* What tests at the usual shapes cannot see, and what the judge sees at others. */
Test(mla_cache, mistakes_that_usual_shapes_hide) {
#define COPY(T, latent, rope, cache) \
    OP " kv_c=" T "[9," latent "] k_pe=" T "[9," rope "] slot_mapping=i64[9] kv_cache=" T cache " gen=index"
#define CODES(cache, modes) \
    OP " kv_c=bf16[9,512] k_pe=bf16[9,64] slot_mapping=i64[9] kv_cache=u8" cache " format=fp8_ds_mla " modes
    static const struct {
        const char *fault, *line;
        bool passes;
    } rows[] = {
        {"rope_128_bytes", COPY("bf16", "512", "64", "[2,16,576]"), true},
        {"rope_128_bytes", COPY("f32", "512", "64", "[2,16,576]"), false},
        {"latent_512", COPY("bf16", "512", "64", "[2,16,576]"), true},
        {"latent_512", COPY("bf16", "513", "64", "[2,16,577]"), false},
        {"as_the_indexer", CODES("[9,1,656]", ""), true},
        {"as_the_indexer", CODES("[2,16,656]", ""), false},
        {"block_stride_ignored", CODES("[2,16,656]", "gen=index"), true},
        {"block_stride_ignored", CODES("[2,16,656]", "gen=index stride=kv_cache:10560,656,1"), false},
        {"power_next", CODES("[2,16,656]", "scale=pow2"), true},
        {"power_next", CODES("[2,16,656]", "scale=pow2 gen=ties"), false},
        {"no_floor", CODES("[2,16,656]", "scale=pow2"), true},
        {"no_floor", CODES("[2,16,656]", "scale=pow2 gen=sparse"), false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_eq(passes(rows[i].fault, rows[i].line), rows[i].passes, "%s: %s", rows[i].fault, rows[i].line);
}

/* ---- what a mismatch looks like: the numbers of docs/mla_cache.md ---- */

typedef struct {
    double error, gain; /* rms of (read - true) over rms of true; <read, true> / <true, true> */
    int64_t nan;        /* left out of both */
} seen;

/* A writer, right (NULL) or not, on a case; the latent vectors that a reader then gets. */
static seen read_back(const char *fault_name, const char *modes, hm_mla_dequant reader) {
    char why[512], id[128], line[512];
    hm_case_spec spec;
    hm_call *call;
    hm_dtype written[HM_MAX_ARGS];
    hm_mla_cache c;
    snprintf(line, sizeof line,
             OP
             " kv_c=bf16[256,512] k_pe=bf16[256,64] slot_mapping=i64[256] kv_cache=u8[5,64,656] format=fp8_ds_mla %s",
             modes);
    cr_assert_eq(hm_case_parse(line, &spec, why, sizeof why), HM_OK, "%s: %s", line, why);
    cr_assert_eq(hm_call_from_case(&spec, &call, why, sizeof why), HM_OK, "%s", why);
    const hm_concat_and_cache_mla_args *a = call->args;
    if (fault_name) {
        snprintf(id, sizeof id, OP ".%s", fault_name);
        const hm_fault *fault = hm_fault_named(id);
        cr_assert_not_null(fault, "%s", id);
        cr_assert_eq(fault->run(fault->variation, a, written), HM_OK);
    } else cr_assert_eq(hm_concat_and_cache_mla_ref(a), HM_OK);
    cr_assert_eq(hm_mla_cache_read(OP, &a->kv_cache, a->format, &c), HM_OK);
    double errors = 0, squares = 0, products = 0;
    seen s = {0};
    for (int64_t n = 0; n < 256; n++) {
        int64_t slot = ((const int64_t *)a->slot_mapping.data)[n];
        for (int64_t d = 0; slot >= 0 && d < 512; d++) {
            const unsigned char *row = hm_mla_row(&c, slot);
            double x = hm_load(HM_BF16, (const uint16_t *)a->kv_c.data + n * 512 + d),
                   y = hm_mla_dequantised(reader, row[d], hm_mla_scale_of(row, d / 128));
            if (isnan(y)) {
                s.nan++;
                continue;
            }
            errors += (y - x) * (y - x), squares += x * x, products += x * y;
        }
    }
    hm_call_free(call);
    s.error = sqrt(errors / squares), s.gain = products / squares;
    return s;
}

#define F32 HM_MLA_DEQUANT_F32
#define SM90 HM_MLA_DEQUANT_SM90
#define SM100 HM_MLA_DEQUANT_SM100
Test(mla_cache, what_a_mismatch_looks_like) {
    static const struct {
        const char *fault, *scale;
        hm_mla_dequant reader;
        struct {
            double error, gain;
        } normal, heavy;
    } rows[] = {
        {NULL, "f32", F32, {0.02584, 0.9995}, {0.004606, 1.000}},
        {NULL, "f32", SM90, {0.02590, 0.9995}, {0.004806, 1.000}},
        {NULL, "f32", SM100, {0.3482, 0.6631}, {0.3634, 0.6716}},
        {NULL, "pow2", F32, {0.02672, 0.9990}, {0.02489, 0.9956}},
        {NULL, "pow2", SM90, {0.02672, 0.9990}, {0.02489, 0.9956}},
        {NULL, "pow2", SM100, {0.02672, 0.9990}, {0.02489, 0.9956}},
        {"scale_not_the_one_used", "f32", F32, {0.3676, 1.324}, {0.4618, 1.342}},
        {"scale_not_the_one_used", "pow2", F32, {0.2526, 0.7659}, {0.2732, 0.7785}},
        {"power_down", "pow2", F32, {0.1364, 0.9313}, {0.3601, 0.6775}},
        {"nearest_power", "pow2", F32, {0.03595, 0.9956}, {0.08735, 0.9556}},
        {"scales_rotated", "f32", F32, {0.1705, 1.007}, {1.474, 0.06655}},
        {"one_tile", "f32", F32, {0.02631, 0.9994}, {0.005885, 1.000}},
        {"scale_1", "f32", F32, {0.02672, 0.9990}, {0.8893, 0.1335}},
        {"divisor_224", "f32", F32, {0.02584, 0.9995}, {0.004606, 1.000}},
        {"truncated", "f32", F32, {0.05094, 0.9571}, {0.04837, 0.9669}},
        {"fnuz", "f32", F32, {1.000, 1.999}, {1.000, 2.000}},
        {"rope_at_516", "f32", F32, {148.6, 2.005}, {0.8910, 0.9694}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int heavy = 0; heavy < 2; heavy++) {
            char modes[64];
            double error = heavy ? rows[i].heavy.error : rows[i].normal.error,
                   gain = heavy ? rows[i].heavy.gain : rows[i].normal.gain;
            snprintf(modes, sizeof modes, "scale=%s gen=%s", rows[i].scale, heavy ? "heavy" : "normal");
            seen s = read_back(rows[i].fault, modes, rows[i].reader);
            cr_expect(fabs(s.error / error - 1) < 1e-3 && fabs(s.gain / gain - 1) < 1e-3 && s.nan == 0,
                      "%s, %s, reader %d: error %.4g gain %.4g nan %lld", rows[i].fault ? rows[i].fault : "right",
                      modes, (int)rows[i].reader, s.error, s.gain, (long long)s.nan);
        }
}
