/* concat_and_cache_mla: for every element of the cache, what it held, or what the token of its slot may have put there.
 * A row of the tensor is the entry of one slot, so that each is looked up once, from the cache to the token. Copies are
 * judged by their bits. In an fp8_ds_mla entry the four bytes of a scale are judged together: those of a scale that was
 * stored and is admissible are right, else those of the ideal one are. Codes are judged for the scale that was stored.
 */
#include "../op/concat_and_cache_mla.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../op/check.h"
#include "fp8.h"

enum { KV_CACHE = 3, TILE = HM_MLA_TILE, CODES_END = 512, SCALES_END = 528, ENTRY = 656 };

typedef struct {
    int64_t slot, token;
} entry;

typedef struct {
    hm_concat_and_cache_mla_args a; /* kv_cache as it was before */
    hm_fp8_rule rule;
    entry *entries; /* by slot */
    int64_t count;
    float (*stored)[HM_MLA_TILES]; /* the scales of each entry; NULL before they were seen */
} context_t;

static void close_context(void *context) {
    context_t *c = context;
    free(c->entries);
    free(c->stored);
    free(c);
}

static int by_slot(const void *a, const void *b) {
    const entry *x = a, *y = b;
    return (x->slot > y->slot) - (x->slot < y->slot);
}

static hm_status open_context(const void *args, int threads, void **context) {
    (void)threads;
    context_t *c = calloc(1, sizeof *c);
    hm_mla_cache cache;
    if (!c) return hm_fail(HM_NO_MEMORY, "golden: no memory");
    hm_status s = hm_concat_and_cache_mla_read(args, &c->a, &cache);
    int64_t tokens = s ? 0 : c->a.slot_mapping.shape[0];
    c->entries = malloc((size_t)tokens * sizeof *c->entries + 1);
    if (s || !c->entries) {
        close_context(c);
        return s ? s : hm_fail(HM_NO_MEMORY, "golden: no memory");
    }
    for (int64_t t = 0; t < tokens; t++) {
        int64_t slot = hm_slot_at(&c->a.slot_mapping, t);
        if (slot >= 0) c->entries[c->count++] = (entry){slot, t};
    }
    qsort(c->entries, (size_t)c->count, sizeof *c->entries, by_slot);
    bool pow2 = c->a.scale == HM_MLA_SCALE_POW2;
    c->rule = (hm_fp8_rule){.codes = HM_F8E4M3,
                            .divisor = 448,
                            .floor = pow2 ? (double)1e-4f : 0x1p-126,
                            .floor_on_scale = true,
                            .power_of_two = pow2,
                            .overflow = HM_OVERFLOW_SATURATE};
    *context = c;
    return HM_OK;
}

/* Element 0 of the row of a slot, in a tensor [num_blocks, block_size, entry]. */
static const char *cache_row(const hm_tensor *t, int64_t slot) {
    int64_t at = slot / t->shape[1] * t->stride[0] + slot % t->shape[1] * t->stride[1];
    return (const char *)t->data + at * (int64_t)hm_dtype_size(t->dtype);
}

static hm_status observe(void *context, int arg, const hm_tensor *stored, int threads) {
    (void)threads;
    context_t *c = context;
    if (arg != KV_CACHE || c->a.format != HM_MLA_FP8_DS) return HM_OK;
    if (!c->stored) c->stored = malloc((size_t)c->count * sizeof *c->stored + 1);
    if (!c->stored) return hm_fail(HM_NO_MEMORY, "golden: no memory for the scales");
    for (int64_t i = 0; i < c->count; i++) {
        const char *row = cache_row(stored, c->entries[i].slot);
        for (int64_t b = 0; b < SCALES_END - CODES_END; b++)
            ((char *)c->stored[i])[b] = row[(CODES_END + b) * stored->stride[2]];
    }
    return HM_OK;
}

/* The entry of slot; -1: none. */
static int64_t find(const context_t *c, int64_t slot) {
    int64_t low = 0, high = c->count;
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        if (c->entries[mid].slot < slot) low = mid + 1;
        else high = mid;
    }
    return low < c->count && c->entries[low].slot == slot ? low : -1;
}

static const char *element(const hm_tensor *t, int64_t token, int64_t d) {
    return (const char *)t->data + (token * t->stride[0] + d * t->stride[1]) * (int64_t)hm_dtype_size(t->dtype);
}

/* ---- bytes ---- */

static void put(hm_golden_row *out, int64_t i, double lo, double hi, int flags, uint64_t bits) {
    out->lo[i] = lo, out->hi[i] = hi, out->flags[i] = (unsigned char)flags;
    if (out->ideal) out->ideal[i] = (double)bits;
    if (out->exact) out->exact[i] = NAN; /* a byte is no number */
    if (out->bits && (flags & HM_GOLD_BITS)) out->bits[i] = bits;
}

static hm_status put_nan(hm_golden_row *out, int64_t i) { /* 0x7F or 0xFF */
    hm_golden_parts parts = {.index = i, .n = 2, .lo = {0x7F, 0xFF}, .hi = {0x7F, 0xFF}};
    put(out, i, 0x7F, 0xFF, HM_GOLD_GAPS, 0x7F);
    return hm_golden_add_parts(out, &parts) ? HM_OK : hm_fail(HM_NO_MEMORY, "golden: no memory");
}

/* One tile of entry i: its 128 codes and the four bytes of its scale.
 * What the interval of a code cannot tell from a division: a product with the reciprocal of S = RN_f32(a / 448).
 * x 448 / a and the middle t of two codes are ratios of integers of 11, 3 and 5 bits: equal, or 2^-16 apart, which
 * three roundings of 2^-24 do not cross. If equal, x / S is t (1 + e), |e| < 2^-24, and t lies in the interval. Of
 * another S, as from a * RN_f32(1 / 448), it can be told: f16, a = 1736, x = 589 is 152, between the codes 144 and 160.
 */
static hm_status tile_of(const context_t *c, int64_t i, int64_t tile, hm_class class, hm_golden_row *out) {
    int64_t token = c->entries[i].token, step = c->a.kv_c.stride[1], first = tile * TILE, at = CODES_END + 4 * tile;
    hm_dtype T = c->a.kv_c.dtype;
    hm_fp8_scales s = hm_fp8_scales_of(&c->rule, T, element(&c->a.kv_c, token, first), step, TILE, class);
    bool unspecified = s.nan || s.infinite, any_scale = !c->stored && s.lo != s.hi;
    float scale = unspecified ? 0 : (float)s.ideal;
    double lo = s.lo, hi = s.hi, ideal = s.ideal;
    if (c->stored && !unspecified) {
        float stored = c->stored[i][tile];
        if (hm_fp8_admits_scale(&s, (double)stored)) scale = stored;
        lo = hi = ideal = (double)stored;
    }
    uint8_t bytes[4], code[2];
    memcpy(bytes, &scale, sizeof bytes);
    for (int b = 0; b < 4; b++)
        put(out, at + b, bytes[b], bytes[b], unspecified || any_scale ? HM_GOLD_UNSPECIFIED : HM_GOLD_BITS, bytes[b]);
    for (int64_t d = first; d < first + TILE; d++) {
        double x = hm_load(T, element(&c->a.kv_c, token, d));
        if (isnan(x)) {
            hm_status status = put_nan(out, d);
            if (status) return status;
        } else if (unspecified || !hm_fp8_usable(lo)) {
            put(out, d, 0, 255, HM_GOLD_UNSPECIFIED, 0);
        } else {
            /* Both codes have x's sign, so that those between them in value are those between them as bytes. */
            hm_fp8_codes_of(&c->rule, x, lo, hi, class, code);
            uint8_t low = code[0] < code[1] ? code[0] : code[1], high = code[0] < code[1] ? code[1] : code[0];
            put(out, d, low, high, low == high ? HM_GOLD_BITS : 0, hm_fp8_ideal_code(&c->rule, x, ideal));
        }
    }
    return HM_OK;
}

static hm_status bytes_of(const context_t *c, int64_t i, hm_class class, hm_golden_row *out) {
    int64_t token = c->entries[i].token;
    hm_status s = HM_OK;
    for (int64_t tile = 0; !s && tile < HM_MLA_TILES; tile++) s = tile_of(c, i, tile, class, out);
    for (int64_t b = SCALES_END; b < ENTRY; b++) {
        uint8_t byte = (uint8_t)element(&c->a.k_pe, token, (b - SCALES_END) / 2)[(b - SCALES_END) % 2];
        put(out, b, byte, byte, HM_GOLD_BITS, byte);
    }
    return s;
}

/* ---- rows ---- */

static hm_status row_of(const void *context, int arg, int64_t row, hm_class class, hm_tier tier, hm_golden_row *out) {
    (void)arg, (void)tier; /* one output; binary64 decides everything: fp8.h */
    const context_t *c = context;
    const hm_tensor *cache = &c->a.kv_cache, *latent = &c->a.kv_c, *rope = &c->a.k_pe;
    int64_t i = find(c, row);
    if (i < 0) {
        hm_golden_copy(cache->dtype, cache_row(cache, row), cache->stride[2], 0, cache->shape[2], out);
        return HM_OK;
    }
    if (c->a.format == HM_MLA_FP8_DS) return bytes_of(c, i, class, out);
    int64_t token = c->entries[i].token, n = latent->shape[1];
    hm_golden_copy(latent->dtype, element(latent, token, 0), latent->stride[1], 0, n, out);
    hm_golden_copy(rope->dtype, element(rope, token, 0), rope->stride[1], n, n + rope->shape[1], out);
    return HM_OK;
}

static double distance(const void *context, int arg, int64_t row, int64_t index, double got) {
    (void)arg;
    const context_t *c = context;
    const hm_tensor *cache = &c->a.kv_cache;
    if (c->a.format == HM_MLA_FP8_DS) return INFINITY; /* never asked for: there is no exact value */
    int64_t i = find(c, row), n = c->a.kv_c.shape[1];
    const char *p = cache_row(cache, row) + index * cache->stride[2] * (int64_t)hm_dtype_size(cache->dtype);
    if (i >= 0)
        p = index < n ? element(&c->a.kv_c, c->entries[i].token, index)
                      : element(&c->a.k_pe, c->entries[i].token, index - n);
    return hm_distance_of_sum(hm_load(cache->dtype, p), 1, 0, 0, cache->dtype, got);
}

const hm_golden_op hm_concat_and_cache_mla_golden = {
    "concat_and_cache_mla", open_context, close_context, row_of, distance, observe};
