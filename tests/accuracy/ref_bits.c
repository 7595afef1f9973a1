/* ref_bits [ISA]: runs every dtype and mode of the ref implementations on made-up inputs and prints one hash a line.
 * The output must be the same on every CPU, instruction set and thread count; what compares it:
 * tests/accuracy/ref_bits.sh. Needs nothing but libhallmark, so that it also builds for another architecture. */
#include <hallmark/fused_add_rms_norm.h>
#include <hallmark/linear.h>
#include <hallmark/rms_norm.h>
#include <hallmark/rope_table.h>
#include <hallmark/rotary_embedding.h>
#include <hallmark/silu_and_mul.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 5, HIDDEN = 1031, ELEMENTS = ROWS * HIDDEN };

static uint64_t random_state;

/* splitmix64 */
static uint64_t random_bits(void) {
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Normal values within 2^+-7 in all rows but the last one, which holds any bits: NaN, infinities and subnormals too. */
static void fill(void *to, hm_dtype dtype, int64_t n, int64_t any_from) {
    for (int64_t i = 0; i < n; i++) {
        uint64_t r = random_bits(), exponent = r >> 40 & 7;
        if (dtype == HM_F32) {
            uint32_t bits = (uint32_t)r;
            if (i < any_from) bits = (bits & 0x807fffffu) | (uint32_t)(123 + exponent) << 23;
            memcpy((char *)to + 4 * i, &bits, 4);
        } else {
            uint16_t bits = (uint16_t)r;
            if (i < any_from && dtype == HM_F16) bits = (uint16_t)((bits & 0x83ffu) | (11 + exponent) << 10);
            if (i < any_from && dtype == HM_BF16) bits = (uint16_t)((bits & 0x807fu) | (123 + exponent) << 7);
            memcpy((char *)to + 2 * i, &bits, 2);
        }
    }
}

/* FNV-1a */
static uint64_t hash(const void *data, size_t bytes) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < bytes; i++) h = (h ^ ((const unsigned char *)data)[i]) * 0x100000001b3u;
    return h;
}

static hm_tensor tensor(void *data, hm_dtype dtype, int ndim) {
    const int64_t matrix[] = {ROWS, HIDDEN}, row[] = {HIDDEN};
    return dtype == HM_DTYPE_NONE ? (hm_tensor){0} : hm_tensor_of(data, dtype, ndim, ndim == 2 ? matrix : row);
}

static char x[4 * ELEMENTS], residual[4 * ELEMENTS], weight[4 * HIDDEN], out[4 * ELEMENTS], residual_out[4 * ELEMENTS];

static int run(hm_dtype dtype, hm_dtype weight_dtype, hm_round round, hm_weight_form form, int fused, int read,
               int wide) {
    hm_dtype residual_dtype = wide ? HM_F32 : dtype;
    memset(out, 0, sizeof out), memset(residual_out, 0, sizeof residual_out);
    fill(x, dtype, ELEMENTS, ELEMENTS - HIDDEN);
    fill(residual, residual_dtype, ELEMENTS, ELEMENTS);
    if (weight_dtype) fill(weight, weight_dtype, HIDDEN, HIDDEN);
    hm_tensor tx = tensor(x, dtype, 2), tw = tensor(weight, weight_dtype, 1), to = tensor(out, dtype, 2);
    hm_status status;
    if (fused)
        status = hm_fused_add_rms_norm_ref(HM_ARGS(
            fused_add_rms_norm, .out = to, .residual_out = tensor(residual_out, residual_dtype, 2), .x = tx,
            .residual = tensor(residual, residual_dtype, 2), .weight = tw, .eps = 1e-6, .round = round,
            .weight_form = form, .residual_read = (hm_residual_read)read, .residual_dtype = (hm_residual_dtype)wide));
    else
        status = hm_rms_norm_ref(
            HM_ARGS(rms_norm, .out = to, .x = tx, .weight = tw, .eps = 1e-6, .round = round, .weight_form = form));
    if (status != HM_OK) {
        fprintf(stderr, "ref_bits: %s: %s\n", hm_status_name(status), hm_error());
        return 1;
    }
    printf("%s x=%s weight=%s round=%d weight_form=%d read=%d residual_f32=%d: %016llx %016llx\n",
           fused ? "fused_add_rms_norm" : "rms_norm", hm_dtype_name(dtype), hm_dtype_name(weight_dtype), round, form,
           read, wide, (unsigned long long)hash(out, sizeof out),
           (unsigned long long)hash(residual_out, sizeof residual_out));
    return 0;
}

/* 3 tokens with 5 heads of 258, of which 254 elements, from the fourth on, are rotated by rows of a made-up table. */
static int rotate(hm_dtype dtype, hm_dtype table_dtype, hm_rotary_round round, hm_pairing pairing) {
    enum { TOKENS = 3, HEADS = 5, HEAD_SIZE = 258, ROTARY = 254, TABLE = 4 };
    int64_t positions[TOKENS] = {3, 0, 2};
    memset(out, 0, sizeof out);
    fill(x, dtype, TOKENS * HEADS * HEAD_SIZE, TOKENS * HEADS * HEAD_SIZE - HEAD_SIZE);
    fill(residual, table_dtype, TABLE * ROTARY, TABLE * ROTARY);
    const int64_t shape[] = {TOKENS, HEADS, HEAD_SIZE};
    hm_status status = hm_rotary_embedding_ref(HM_ARGS(
        rotary_embedding, .query_out = hm_tensor_of(out, dtype, 3, shape), .query = hm_tensor_of(x, dtype, 3, shape),
        .positions = hm_tensor_of(positions, HM_I64, 1, (int64_t[]){TOKENS}),
        .cos_sin_cache = hm_tensor_of(residual, table_dtype, 2, (int64_t[]){TABLE, ROTARY}), .round = round,
        .pairing = pairing, .rope_dim_offset = 3));
    if (status != HM_OK) {
        fprintf(stderr, "ref_bits: %s: %s\n", hm_status_name(status), hm_error());
        return 1;
    }
    printf("rotary_embedding query=%s cos_sin_cache=%s round=%d pairing=%d: %016llx\n", hm_dtype_name(dtype),
           hm_dtype_name(table_dtype), round, pairing, (unsigned long long)hash(out, sizeof out));
    return 0;
}

/* 25 positions to 2^20 - 1 and all scalings, with rotary_dim 96 so that 2j/rotary_dim rounds. */
static int make_table(hm_dtype dtype, hm_table_precision precision, hm_rope_scaling scaling) {
    enum { POSITIONS = 25, ROTARY = 96 };
    int64_t positions[POSITIONS];
    float factors[ROTARY / 2];
    for (int i = 0; i < POSITIONS; i++) positions[i] = i < 4 ? i : ((INT64_C(1) << 20) - 1) >> (i - 4) % 20;
    for (int j = 0; j < ROTARY / 2; j++) factors[j] = 1 + (float)(j * j) / 64;
    memset(out, 0, sizeof out);
    hm_tensor tf =
        scaling == HM_SCALING_LONGROPE ? hm_tensor_of(factors, HM_F32, 1, (int64_t[]){ROTARY / 2}) : (hm_tensor){0};
    hm_status status = hm_rope_table_ref(
        HM_ARGS(rope_table, .out = hm_tensor_of(out, dtype, 2, (int64_t[]){POSITIONS, ROTARY}), .factors = tf,
                .positions = hm_tensor_of(positions, HM_I64, 1, (int64_t[]){POSITIONS}), .precision = precision,
                .scaling = scaling, .base = 1e6, .factor = 7, .original_max_position = 4096, .max_position = 131072,
                .beta_fast = 32, .beta_slow = 1, .extrapolation_factor = 1, .mscale = 1, .mscale_all_dim = 0.707,
                .low_freq_factor = 1, .high_freq_factor = 4));
    if (status != HM_OK) {
        fprintf(stderr, "ref_bits: %s: %s\n", hm_status_name(status), hm_error());
        return 1;
    }
    printf("rope_table out=%s precision=%d scaling=%d: %016llx\n", hm_dtype_name(dtype), precision, scaling,
           (unsigned long long)hash(out, sizeof out));
    return 0;
}

/* 5 rows times 7 features; the last row of x has any bits. */
static int multiply(hm_dtype dtype, hm_dtype weight_dtype, hm_dtype out_dtype, int64_t in) {
    enum { FEATURES = 7 };
    static char w[4 * FEATURES * HIDDEN];
    float bias[FEATURES];
    memset(out, 0, sizeof out);
    fill(x, dtype, ROWS * in, (ROWS - 1) * in);
    fill(w, weight_dtype, FEATURES * in, FEATURES * in);
    for (int i = 0; i < FEATURES; i++) bias[i] = (float)i / 3;
    hm_status status =
        hm_linear_ref(HM_ARGS(linear, .out = hm_tensor_of(out, out_dtype, 2, (int64_t[]){ROWS, FEATURES}),
                              .x = hm_tensor_of(x, dtype, 2, (int64_t[]){ROWS, in}),
                              .weight = hm_tensor_of(w, weight_dtype, 2, (int64_t[]){FEATURES, in}),
                              .bias = hm_tensor_of(bias, HM_F32, 1, (int64_t[]){FEATURES})));
    if (status != HM_OK) {
        fprintf(stderr, "ref_bits: %s: %s\n", hm_status_name(status), hm_error());
        return 1;
    }
    printf("linear x=%s weight=%s out=%s in=%d: %016llx\n", hm_dtype_name(dtype), hm_dtype_name(weight_dtype),
           hm_dtype_name(out_dtype), (int)in, (unsigned long long)hash(out, sizeof out));
    return 0;
}

static int gate(hm_dtype dtype, hm_silu_round round) {
    enum { HALF = HIDDEN / 2 };
    memset(out, 0, sizeof out);
    fill(x, dtype, ROWS * 2 * HALF, (ROWS - 1) * 2 * HALF);
    hm_status status =
        hm_silu_and_mul_ref(HM_ARGS(silu_and_mul, .out = hm_tensor_of(out, dtype, 2, (int64_t[]){ROWS, HALF}),
                                    .x = hm_tensor_of(x, dtype, 2, (int64_t[]){ROWS, 2 * HALF}), .round = round));
    if (status != HM_OK) {
        fprintf(stderr, "ref_bits: %s: %s\n", hm_status_name(status), hm_error());
        return 1;
    }
    printf("silu_and_mul x=%s round=%d: %016llx\n", hm_dtype_name(dtype), round,
           (unsigned long long)hash(out, sizeof out));
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && hm_isa_limit(argv[1]) != HM_OK) {
        fprintf(stderr, "ref_bits: %s\n", hm_error());
        return 3;
    }
    fprintf(stderr, "ref_bits: isa %s\n", hm_isa());
    const hm_dtype dtypes[] = {HM_F32, HM_F16, HM_BF16};
    int failed = 0;
    for (int d = 0; d < 3; d++)
        for (int w = 0; w < 3; w++)
            for (int mode = 0; mode < 3; mode++)
                for (int fused = 0; fused < 2; fused++)
                    for (int read = 0; read < 1 + fused; read++)
                        for (int wide = 0; wide < 1 + (fused && dtypes[d] == HM_F16); wide++)
                            failed |= run(dtypes[d], (hm_dtype[]){HM_DTYPE_NONE, HM_F32, dtypes[d]}[w],
                                          mode == 1 ? HM_ROUND_NORM_FIRST : HM_ROUND_ONCE,
                                          mode == 2 ? HM_WEIGHT_ONE_PLUS : HM_WEIGHT_PLAIN, fused, read, wide);
    for (int d = 0; d < 3; d++)
        for (int mode = 0; mode < 8; mode++)
            failed |= rotate(dtypes[d], mode & 4 ? HM_F32 : dtypes[d], (hm_rotary_round)(mode & 1),
                             (hm_pairing)(mode >> 1 & 1));
    for (int d = 0; d < 3; d++)
        for (int mode = 0; mode < 14; mode++)
            failed |= make_table(dtypes[d], (hm_table_precision)(mode & 1), (hm_rope_scaling)(mode >> 1));
    for (int d = 0; d < 3; d++)
        for (int mode = 0; mode < 8; mode++)
            failed |= multiply(dtypes[d], mode & 1 ? HM_F32 : dtypes[d], mode & 2 ? HM_F32 : dtypes[d],
                               mode & 4 ? HIDDEN : 13);
    failed |= multiply(HM_F32, HM_BF16, HM_F32, HIDDEN);
    for (int d = 0; d < 3; d++)
        for (int mode = 0; mode < 2; mode++) failed |= gate(dtypes[d], (hm_silu_round)mode);
    return failed;
}
