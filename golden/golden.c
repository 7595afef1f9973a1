#include "golden.h"

#include <fenv.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "op.h"

struct hm_golden {
    const hm_golden_op *op;
    void *context;
};

static const hm_golden_op *const ops[] = {
    &hm_rms_norm_golden,
    &hm_fused_add_rms_norm_golden,
    &hm_layer_norm_golden,
    &hm_rotary_embedding_golden,
    &hm_rope_table_golden,
    &hm_embedding_golden,
    &hm_linear_golden,
    &hm_silu_and_mul_golden,
    &hm_concat_mla_q_golden,
    &hm_concat_and_cache_mla_golden,
    &hm_sparse_mla_decode_golden,
    &hm_mla_prefill_golden,
    &hm_quant_fp8_group_golden,
    &hm_indexer_k_quant_and_cache_golden,
    &hm_cp_gather_indexer_k_quant_cache_golden,
    &hm_index_weights_golden,
    &hm_fp8_mqa_logits_golden,
    &hm_fp8_paged_mqa_logits_golden,
    &hm_top_k_per_row_golden,
    &hm_translate_indices_golden,
    &hm_indexer_golden,
};

static const struct {
    const char *name, *about;
} classes[] = {
    [HM_WIDE] = {"wide", "binary64 between rounding points"},
    [HM_CHAIN64] = {"chain64",
                    "f32; a term passes at most 64 + n/256 additions (block reductions, vector accumulators)"},
    [HM_CHAIN512] = {"chain512", "f32; at most 512 + n/256 additions (one warp or one vector accumulator a row)"},
    [HM_ANY] = {"any", "f32 in any order"},
    [HM_TC23] = {"tc23", "dot products on tensor cores with 23 fraction bits in blocks of at least 8; else as any"},
    [HM_TC13] = {"tc13", "dot products on tensor cores with 13 fraction bits in blocks of at least 32; else as any"},
    [HM_CLASS_NONE] = {"none", "outside every class"},
};

const char *hm_class_name(hm_class c) { return (unsigned)c <= HM_CLASS_NONE ? classes[c].name : "?"; }
const char *hm_class_about(hm_class c) { return (unsigned)c <= HM_CLASS_NONE ? classes[c].about : "?"; }

hm_class hm_class_named(const char *name) {
    for (int c = 0; c < HM_CLASS_COUNT; c++)
        if (strcmp(name, classes[c].name) == 0) return (hm_class)c;
    return HM_CLASS_NONE;
}

hm_arithmetic hm_class_arithmetic(hm_class c) {
    return c == HM_WIDE ? (hm_arithmetic){0x1p-53, 0x1p-50, false} : (hm_arithmetic){0x1p-24, 0x1p-22, true};
}

int64_t hm_class_chain(hm_class c, int64_t n) {
    int64_t blocks = (n + 255) / 256;
    if (c == HM_CHAIN64) return 64 + blocks;
    if (c == HM_CHAIN512 || (c >= HM_ANY && n < 512 + blocks))
        return 512 + blocks; /* a looser class holds the tighter one */
    return n;
}

/* Powers by squaring. Each product of two doubles is off by at most half an ulp, so one step away from 1 bounds it. */
double hm_growth(double u, int sign, int64_t k) {
    double away = sign > 0 ? INFINITY : 0, power = 1, base = 1 + sign * u;
    if (sign > 0 && base - 1 < u) base = nextafter(base, away); /* 1 + 2^-53 is no double */
    for (; k > 0; k >>= 1) {
        if (k & 1) power = power == 1 ? base : nextafter(power * base, away);
        base = nextafter(base * base, away);
    }
    return power;
}

bool hm_golden_add_parts(hm_golden_row *row, const hm_golden_parts *parts) {
    if (row->nparts == row->parts_capacity) {
        int64_t capacity = row->parts_capacity ? 2 * row->parts_capacity : 64;
        hm_golden_parts *grown = realloc(row->parts, (size_t)capacity * sizeof *grown);
        if (!grown) return false;
        row->parts = grown, row->parts_capacity = capacity;
    }
    row->parts[row->nparts++] = *parts;
    return true;
}

void hm_golden_copy(hm_dtype dtype, const void *at, int64_t stride, int64_t from, int64_t to, hm_golden_row *out) {
    int64_t n = to - from, size = (int64_t)hm_dtype_size(dtype);
    if (n <= 0) return;
    hm_load_row(dtype, at, stride, n, out->lo + from);
    memcpy(out->hi + from, out->lo + from, (size_t)n * sizeof *out->hi);
    if (out->ideal) memcpy(out->ideal + from, out->lo + from, (size_t)n * sizeof *out->ideal);
    if (out->exact) memcpy(out->exact + from, out->lo + from, (size_t)n * sizeof *out->exact);
    memset(out->flags + from, HM_GOLD_BITS, (size_t)n);
    for (int64_t i = 0; out->bits && i < n; i++) {
        out->bits[from + i] = 0; /* little endian, like every tensor here */
        memcpy(&out->bits[from + i], (const char *)at + i * stride * size, (size_t)size);
    }
}

hm_status hm_golden_open(const hm_op_info *op, const void *args, int threads, hm_golden **golden) {
    *golden = NULL;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        if (strcmp(ops[i]->name, op->name)) continue;
        hm_golden *g = malloc(sizeof *g);
        if (!g) return hm_fail(HM_NO_MEMORY, "golden: no memory");
        g->op = ops[i];
        hm_status s = ops[i]->open(args, threads, &g->context);
        if (s) free(g);
        else *golden = g;
        return s;
    }
    return hm_fail(HM_UNSUPPORTED, "golden: no truth for the op %s", op->name);
}

void hm_golden_close(hm_golden *golden) {
    if (!golden) return;
    golden->op->close(golden->context);
    free(golden);
}

bool hm_golden_observes(const hm_op_info *op) {
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (!strcmp(ops[i]->name, op->name)) return ops[i]->observe;
    return false;
}

hm_status hm_golden_observe(hm_golden *golden, int arg, const hm_tensor *stored, int threads) {
    return golden->op->observe ? golden->op->observe(golden->context, arg, stored, threads) : HM_OK;
}

hm_status hm_golden_row_get(const hm_golden *golden, int arg, int64_t row, hm_class c, hm_tier tier,
                            hm_golden_row *out) {
    out->nparts = 0;
    return golden->op->row(golden->context, arg, row, c, tier, out);
}

double hm_golden_distance(const hm_golden *golden, int arg, int64_t row, int64_t index, double got) {
    return golden->op->distance(golden->context, arg, row, index, got);
}

bool hm_golden_environment(int threads) {
    int wrong = 0;
#pragma omp parallel num_threads(threads > 0 ? threads : omp_get_max_threads()) reduction(+ : wrong)
    {
        volatile double tiny = 0x1p-1022, half = 0.5;
        volatile float tinyf = 0x1p-126f, halff = 0.5f;
        wrong += fegetround() != FE_TONEAREST || tiny * half == 0 || tinyf * halff == 0;
    }
    return wrong == 0;
}
