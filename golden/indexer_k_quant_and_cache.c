/* indexer_k_quant_and_cache: for every byte of the cache, what it held, or what the token of its slot may have put
 * there. A scale's four bytes are judged together: those of a scale that was stored and is admissible are right, else
 * those of the ideal one are. Codes are judged for the scale that was stored. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../op/check.h"
#include "fp8.h"
#include "indexer_cache.h"

enum { KV_CACHE = 2, GROUP = HM_INDEXER_GROUP };

typedef struct {
    int64_t slot, token;
} entry;

typedef struct {
    hm_indexer_k_quant_and_cache_args a;
    hm_indexer_cache cache; /* as it was before */
    hm_fp8_rule rule;
    entry *entries; /* by slot */
    int64_t count;
    float *stored; /* the scales of each entry, group by group; NULL before they were seen */
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
    if (!c) return hm_fail(HM_NO_MEMORY, "golden: no memory");
    hm_status s = hm_indexer_k_quant_and_cache_read(args, &c->a, &c->cache);
    int64_t tokens = s ? 0 : c->a.k.shape[0];
    c->entries = malloc((size_t)tokens * sizeof *c->entries + 1);
    if (s || !c->entries) {
        close_context(c);
        return s ? s : hm_fail(HM_NO_MEMORY, "golden: no memory");
    }
    for (int64_t t = 0; t < tokens; t++) {
        int64_t slot = hm_integer_at(&c->a.slot_mapping, t);
        if (slot >= 0) c->entries[c->count++] = (entry){slot, t};
    }
    qsort(c->entries, (size_t)c->count, sizeof *c->entries, by_slot);
    bool fnuz = c->a.code_format == HM_CODE_E4M3FNUZ;
    c->rule = (hm_fp8_rule){.codes = fnuz ? HM_F8E4M3FNUZ : HM_F8E4M3,
                            .divisor = fnuz ? 224 : 448,
                            .floor = c->a.floor,
                            .power_of_two = c->a.scale_format == HM_SCALE_UE8M0,
                            .overflow = HM_OVERFLOW_SATURATE};
    *context = c;
    return HM_OK;
}

static hm_status observe(void *context, int arg, const hm_tensor *stored, int threads) {
    (void)threads;
    context_t *c = context;
    if (arg != KV_CACHE) return HM_OK;
    if (!c->stored) c->stored = malloc((size_t)(c->count * c->cache.groups) * sizeof *c->stored + 1);
    if (!c->stored) return hm_fail(HM_NO_MEMORY, "golden: no memory for the scales");
    for (int64_t i = 0; i < c->count; i++) {
        const unsigned char *block =
            (const unsigned char *)stored->data + c->entries[i].slot / c->cache.block_size * stored->stride[0];
        for (int64_t g = 0; g < c->cache.groups; g++)
            memcpy(&c->stored[i * c->cache.groups + g],
                   block + hm_indexer_scale_byte(&c->cache, c->entries[i].slot % c->cache.block_size, g),
                   sizeof(float));
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

/* What may lie in the places of one group of one token. */
typedef struct {
    int64_t slot, group;
    bool written, unspecified; /* of an unspecified group, NaN elements still have NaN codes */
    hm_fp8_scales scales;
    float scale;    /* whose bytes have to be there; */
    bool any_scale; /* unless the set has several and none was seen */
    double lo, hi;  /* scales that codes are judged for */
    const char *k;
} group_t;

static group_t group_of(const context_t *c, int64_t slot, int64_t group, hm_class class) {
    group_t g = {.slot = slot, .group = group};
    int64_t i = find(c, slot), size = (int64_t)hm_dtype_size(c->a.k.dtype);
    if (i < 0) return g;
    g.written = true;
    g.k =
        (const char *)c->a.k.data + (c->entries[i].token * c->a.k.stride[0] + group * GROUP * c->a.k.stride[1]) * size;
    g.scales = hm_fp8_scales_of(&c->rule, c->a.k.dtype, g.k, c->a.k.stride[1], GROUP, class);
    g.unspecified = g.scales.nan || g.scales.infinite;
    if (g.unspecified) return g;
    g.scale = (float)g.scales.ideal, g.lo = g.scales.lo, g.hi = g.scales.hi;
    g.any_scale = !c->stored && g.lo != g.hi;
    if (!c->stored) return g;
    float stored = c->stored[i * c->cache.groups + group];
    if (hm_fp8_admits_scale(&g.scales, (double)stored)) g.scale = stored;
    g.lo = g.hi = (double)stored;
    return g;
}

static void put(hm_golden_row *out, int64_t i, double lo, double hi, int flags, uint64_t bits) {
    out->lo[i] = lo, out->hi[i] = hi, out->flags[i] = (unsigned char)flags;
    if (out->ideal) out->ideal[i] = (double)bits;
    if (out->exact) out->exact[i] = NAN; /* a byte is no number */
    if (out->bits && (flags & HM_GOLD_BITS)) out->bits[i] = bits;
}

/* The byte is one, or lies in lo..hi above it. */
static hm_status put_either(hm_golden_row *out, int64_t i, double one, double lo, double hi, uint64_t ideal) {
    hm_golden_parts parts = {.index = i, .n = 2, .lo = {one, lo}, .hi = {one, hi}};
    put(out, i, one, hi, HM_GOLD_GAPS, ideal);
    return hm_golden_add_parts(out, &parts) ? HM_OK : hm_fail(HM_NO_MEMORY, "golden: no memory");
}

static hm_status specify(const context_t *c, const group_t *g, hm_indexer_place p, hm_class class, uint8_t old,
                         int64_t i, hm_golden_row *out) {
    uint8_t code[2], bytes[4];
    if (!g->written) return put(out, i, old, old, HM_GOLD_BITS, old), HM_OK;
    if (p.is_scale) {
        memcpy(bytes, &g->scale, sizeof bytes);
        bool is_free = g->unspecified || g->any_scale;
        put(out, i, bytes[p.part], bytes[p.part], is_free ? HM_GOLD_UNSPECIFIED : HM_GOLD_BITS, bytes[p.part]);
        return HM_OK;
    }
    double x = hm_load(c->a.k.dtype, g->k + p.d % GROUP * c->a.k.stride[1] * (int64_t)hm_dtype_size(c->a.k.dtype));
    if (isnan(x)) { /* a NaN code: 0x7F or 0xFF; fnuz has one */
        bool fnuz = c->rule.codes == HM_F8E4M3FNUZ;
        if (fnuz) return put(out, i, 0x80, 0x80, HM_GOLD_BITS, 0x80), HM_OK;
        return put_either(out, i, 0x7F, 0xFF, 0xFF, 0x7F);
    }
    if (g->unspecified || !hm_fp8_usable(g->lo)) return put(out, i, 0, 255, HM_GOLD_UNSPECIFIED, 0), HM_OK;
    hm_fp8_codes_of(&c->rule, x, g->lo, g->hi, class, code);
    uint8_t ideal = hm_fp8_ideal_code(&c->rule, x, c->stored ? g->lo : g->scales.ideal);
    /* Between two codes of one sign lie those whose bytes lie between theirs. x keeps its sign, but a zero of fnuz has none:
     * between it and a negative code lie the negative codes alone, which begin at 0x81. */
    uint8_t lo = code[0] < code[1] ? code[0] : code[1], hi = code[0] < code[1] ? code[1] : code[0];
    if ((lo ^ hi) & 0x80) return put_either(out, i, lo, 0x81, hi, ideal);
    put(out, i, lo, hi, lo == hi ? HM_GOLD_BITS : 0, ideal);
    return HM_OK;
}

/* A row is what the tensor calls a token of a block: `entry` bytes, which belong to other tokens. */
static hm_status row_of(const void *context, int arg, int64_t row, hm_class class, hm_tier tier, hm_golden_row *out) {
    (void)arg, (void)tier; /* one output; binary64 decides everything: fp8.h */
    const context_t *c = context;
    const hm_indexer_cache *cache = &c->cache;
    int64_t block = row / cache->block_size, first = row % cache->block_size * cache->entry;
    const unsigned char *old = hm_indexer_block(cache, block) + first;
    group_t g = {.slot = -1};
    for (int64_t i = 0; i < cache->entry; i++) {
        hm_indexer_place p = hm_indexer_place_of(cache, first + i);
        int64_t slot = block * cache->block_size + p.offset, group = p.is_scale ? p.d : p.d / GROUP;
        if (g.slot != slot || g.group != group) g = group_of(c, slot, group, class);
        hm_status s = specify(c, &g, p, class, old[i], i, out);
        if (s) return s;
    }
    return HM_OK;
}

static double distance(const void *context, int arg, int64_t row, int64_t index, double got) {
    (void)context, (void)arg, (void)row, (void)index, (void)got;
    return INFINITY; /* never asked for: there is no exact value */
}

const hm_golden_op hm_indexer_k_quant_and_cache_golden = {
    "indexer_k_quant_and_cache", open_context, close_context, row_of, distance, observe};
