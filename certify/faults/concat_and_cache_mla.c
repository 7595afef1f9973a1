/* The bugs of the writer of the latent attention's cache: an evaluator with a switch at every step, and the table. */
#include "../../op/concat_and_cache_mla.h"

#include <math.h>
#include <string.h>

#include "../../op/dtype.h"
#include "../../op/fp8.h"
#include "common.h"
#include "tables.h"

#define OP "concat_and_cache_mla"
enum { LATENT = HM_MLA_LATENT, ROPE = HM_MLA_ROPE, TILE = HM_MLA_TILE, TILES = HM_MLA_TILES, ENTRY = HM_MLA_ENTRY };

typedef struct {
    enum {
        SLOT_AS_GIVEN = 0,
        SLOT_NEGATIVE_WRAPS, /* -1 is the last slot */
        SLOT_NEGATIVE_IS_0,
        SLOT_IS_TOKEN,
        SLOT_TWICE, /* one that occurs twice is taken */
        SLOT_NEXT,
        SLOT_BLOCK_16_BITS,
        SLOT_BLOCK_DENSE,   /* the block stride is ignored */
        SLOT_ENTRY_DENSE,   /* the entry stride is */
        SLOT_ELEMENT_DENSE, /* the last stride is */
        SLOT_BLOCK_OF_64,   /* a block size from another configuration */
        SLOT_IS_BLOCK,      /* the block size is ignored */
        SLOT_OFFSET_INT32
    } slot;
    enum {
        FROM_AS_GIVEN = 0,
        FROM_LATENT_DENSE,
        FROM_LATENT_UNIT,
        FROM_LATENT_INT32,
        FROM_LATENT_BEFORE,
        FROM_LATENT_HALVES,
        FROM_LATENT_OTHER_16, /* f16 read as bf16, or the other way round */
        FROM_ROPE_DENSE,
        FROM_ROPE_UNIT,
        FROM_ROPE_INT32,
        FROM_ROPE_NEXT,
        FROM_ROPE_LIKE_LATENT,
        FROM_F32_AS_16
    } from;
    enum {
        COPY_ALL = 0,
        COPY_ROPE_128_BYTES,
        COPY_WITHOUT_ROPE,
        COPY_ROPE_TWICE,
        COPY_WITHOUT_LATENT,
        COPY_LATENT_512,
        COPY_WITHOUT_LAST,
        COPY_ONE_PAST,
        COPY_WITHOUT_TAIL,
        COPY_NOTHING
    } copy;
    enum { BITS_KEPT = 0, BITS_NAN_QUIETED, BITS_NEGATIVE_ZERO_LOST, BITS_FLUSHED, BITS_OTHER_HALF } bits;
    enum {
        PLACE_AS_DECLARED = 0,
        PLACE_SCALES_LAST,  /* rope at 512, scales at 640 */
        PLACE_SCALES_FIRST, /* codes at 16 */
        PLACE_ROPE_FIRST,
        PLACE_SCALES_AT_528, /* rope at 544 */
        PLACE_ROPE_AT_516,   /* as if there were one scale */
        PLACE_TILES,         /* 128 codes and their scale, four times */
        PLACE_BLOCKS,        /* as the indexer's cache: codes of a block, its scales, its rope parts */
        PLACE_ROPE_AT_512,   /* of a longer copy */
        PLACE_ROPE_HALVES    /* even elements, then odd ones */
    } place;
    enum {
        SCALES_AS_DECLARED = 0,
        SCALES_REVERSED,
        SCALES_ROTATED,
        SCALES_OF_TILE_0,
        SCALES_FIRST_ONLY,
        SCALES_NOT_WRITTEN,
        SCALES_AS_EXPONENTS, /* a byte each */
        SCALES_AS_BF16,      /* two bytes each */
        SCALES_ROUNDED_TO_BF16,
        SCALES_BIG_ENDIAN,
        SCALES_INVERSE,
        SCALES_OTHER,      /* f32 used and a power of two stored, or the other way round */
        SCALES_TIMES_2_120 /* the exponent without its bias */
    } scales;
    enum {
        QUANT_AS_DECLARED = 0,
        QUANT_TILE_OF_64,
        QUANT_ONE_TILE,
        QUANT_AMAX_NEXT_TILE,
        QUANT_AMAX_HALF,
        QUANT_AMAX_SIGNED,
        QUANT_AMAX_WITH_ROPE,
        QUANT_AMAX_STALE, /* the maximum of the token before takes part */
        QUANT_RECIPROCAL,
        QUANT_RECIPROCAL_BF16,
        QUANT_DIVISOR_224,
        QUANT_DIVISOR_240,
        QUANT_NO_FLOOR,
        QUANT_FLOOR_ON_AMAX,
        QUANT_OTHER_FLOOR,
        QUANT_FLOOR_1E10,
        QUANT_OTHER_SCALE,
        QUANT_NEAREST_POWER,
        QUANT_POWER_DOWN,
        QUANT_POWER_DOWN_IEEE, /* and NaN where that overflows */
        QUANT_NEXT_POWER,      /* also where the scale is a power of two already */
        QUANT_MULTIPLIED,
        QUANT_SCALE_1,
        QUANT_CODE_UNSCALED,
        QUANT_TRUNCATED,
        QUANT_TIES_AWAY,
        QUANT_TIES_UP,
        QUANT_TOP_OCTAVE,
        QUANT_FNUZ,
        QUANT_FNUZ_448,
        QUANT_E5M2,
        QUANT_NEGATIVE_ZERO_LOST,
        QUANT_SUBNORMALS_FLUSHED,
        QUANT_THROUGH_F16,
        QUANT_ROPE_TOO
    } quant;
    enum {
        EFFECT_NONE = 0,
        EFFECT_BLOCK_CLEARED,
        EFFECT_ONE_PAST,
        EFFECT_LAST_TOKEN_LEFT,
        EFFECT_ONE_TOKEN_MORE,
        EFFECT_32_TOKENS,
        EFFECT_PADDING_ZEROED,
        EFFECT_EMPTY_REFUSED
    } effect;
    hm_fault_checks checks;
} variation_t;

typedef struct {
    const variation_t *v;
    const hm_concat_and_cache_mla_args *a;
    hm_mla_cache c;
    double before[TILES]; /* maxima of the token before */
} walk;

/* ---- where ---- */

/* Offset, in elements of kv_cache, of element e of the entry of a slot. */
static int64_t place_of(const walk *w, int64_t slot, int64_t e) {
    const hm_tensor *t = &w->a->kv_cache;
    int64_t P = t->shape[1], n = t->shape[2], block_size = w->v->slot == SLOT_BLOCK_OF_64 ? 64 : P;
    int64_t block = slot / block_size, o = slot % block_size;
    if (w->v->slot == SLOT_IS_BLOCK) block = slot, o = 0;
    if (w->v->slot == SLOT_BLOCK_16_BITS) block &= 0xF;
    int64_t at = block * (w->v->slot == SLOT_BLOCK_DENSE ? P * n : t->stride[0]);
    if (w->v->place == PLACE_BLOCKS && w->c.format == HM_MLA_FP8_DS)
        return at + (e < LATENT           ? o * LATENT + e
                     : e < HM_MLA_ROPE_AT ? P * LATENT + o * 16 + e - LATENT
                                          : P * HM_MLA_ROPE_AT + o * 128 + e - HM_MLA_ROPE_AT);
    at += o * (w->v->slot == SLOT_ENTRY_DENSE ? n : t->stride[1]) +
          e * (w->v->slot == SLOT_ELEMENT_DENSE ? 1 : t->stride[2]);
    return w->v->slot == SLOT_OFFSET_INT32 ? hm_fault_in_int32(at) : at;
}

static void put(const walk *w, int64_t slot, int64_t e, const void *element) {
    hm_fault_store_raw(&w->a->kv_cache, place_of(w, slot, e), HM_FAULT_SLACK, element);
}

static int64_t latent_at(const walk *w, int64_t token, int64_t d) {
    const hm_tensor *t = &w->a->kv_c;
    int64_t n = t->shape[1];
    switch (w->v->from) {
        case FROM_LATENT_DENSE:
            return token * n + d;
        case FROM_LATENT_UNIT:
            return token * t->stride[0] + d;
        case FROM_LATENT_INT32:
            return hm_fault_in_int32(token * t->stride[0] + d * t->stride[1]);
        case FROM_LATENT_BEFORE:
            return (token ? token - 1 : token) * t->stride[0] + d * t->stride[1];
        case FROM_LATENT_HALVES:
            return token * t->stride[0] + (d + n / 2) % n * t->stride[1];
        default:
            return token * t->stride[0] + d * t->stride[1];
    }
}

static int64_t rope_at(const walk *w, int64_t token, int64_t d) {
    const hm_tensor *t = w->v->from == FROM_ROPE_LIKE_LATENT ? &w->a->kv_c : &w->a->k_pe;
    int64_t n = w->a->k_pe.shape[1];
    switch (w->v->from) {
        case FROM_ROPE_DENSE:
            return token * n + d;
        case FROM_ROPE_UNIT:
            return token * t->stride[0] + d;
        case FROM_ROPE_INT32:
            return hm_fault_in_int32(token * t->stride[0] + d * t->stride[1]);
        case FROM_ROPE_NEXT:
            return (token + 1 < w->a->k_pe.shape[0] ? token + 1 : token) * t->stride[0] + d * t->stride[1];
        default:
            return token * t->stride[0] + d * t->stride[1];
    }
}

/* ---- copies ---- */

static void change(const walk *w, hm_dtype T, unsigned char *element) {
    double v = hm_load(T, element);
    bool keep = w->v->bits == BITS_KEPT;
    if (w->v->bits == BITS_NEGATIVE_ZERO_LOST) keep = v != 0, v = 0;
    if (w->v->bits == BITS_FLUSHED) keep = !(fabs(v) < hm_dtype_min_normal(T)), v = copysign(0, v);
    if (w->v->bits == BITS_OTHER_HALF) keep = T == HM_F32, v = hm_round_to(T == HM_F16 ? HM_BF16 : HM_F16, v);
    if (!keep) hm_store(T, element, v);
}

static void load_rope(const walk *w, int64_t token, int64_t d, unsigned char element[8]) {
    int64_t n = w->a->k_pe.shape[1];
    if (w->v->place == PLACE_ROPE_HALVES && n % 2 == 0) d = d < n / 2 ? 2 * d : 2 * (d - n / 2) + 1;
    hm_fault_load_raw(&w->a->k_pe, rope_at(w, token, d < n ? d : n - 1), element);
    change(w, w->a->k_pe.dtype, element);
}

static int64_t rope_count(const walk *w) {
    int64_t n = w->a->k_pe.shape[1], size = (int64_t)hm_dtype_size(w->a->k_pe.dtype);
    switch (w->v->copy) {
        case COPY_ROPE_128_BYTES:
            return hm_fault_least(n, 128 / size);
        case COPY_ROPE_TWICE:
            return 2 * n;
        case COPY_WITHOUT_LAST:
            return n ? n - 1 : 0;
        case COPY_ONE_PAST:
            return n ? n + 1 : 0;
        case COPY_WITHOUT_TAIL:
            return n - n % 4;
        case COPY_WITHOUT_ROPE:
        case COPY_NOTHING:
            return 0;
        default:
            return n;
    }
}

static void write_copies(const walk *w, int64_t slot, int64_t token) {
    int64_t n = w->a->kv_c.shape[1], r = w->a->k_pe.shape[1], end = n, first = 0, rope = n;
    unsigned char element[8];
    if (w->v->place == PLACE_ROPE_FIRST) first = r, rope = 0;
    if (w->v->place == PLACE_ROPE_AT_512 && n > 512) rope = 512;
    if (w->v->copy == COPY_LATENT_512) end = hm_fault_least(n, 512);
    if (w->v->copy == COPY_WITHOUT_LATENT || w->v->copy == COPY_NOTHING) end = 0;
    if (w->v->copy == COPY_WITHOUT_TAIL) end = n - n % 4;
    for (int64_t d = 0; d < end; d++) {
        hm_fault_load_raw(&w->a->kv_c, latent_at(w, token, d), element);
        change(w, w->a->kv_c.dtype, element);
        put(w, slot, first + d, element);
    }
    for (int64_t d = 0; d < rope_count(w); d++) {
        load_rope(w, token, d, element);
        put(w, slot, rope + d, element);
    }
}

/* ---- scales ---- */

static double latent(const walk *w, int64_t token, int64_t d) {
    unsigned char element[8];
    hm_dtype T = w->a->kv_c.dtype;
    if (w->v->from == FROM_LATENT_OTHER_16) T = T == HM_F16 ? HM_BF16 : HM_F16;
    hm_fault_load_raw(&w->a->kv_c, latent_at(w, token, d), element);
    return hm_load(T, element);
}

static double maximum(const walk *w, int64_t token, int64_t from, int64_t to) {
    double amax = 0;
    for (int64_t d = from; d < to; d++) {
        double x = latent(w, token, d), m = w->v->quant == QUANT_AMAX_SIGNED ? x : fabs(x);
        amax = m > amax ? m : amax;
    }
    return amax;
}

static double amax_of(walk *w, int64_t token, int64_t tile) {
    int64_t from = tile * TILE, to = from + TILE;
    if (w->v->quant == QUANT_ONE_TILE) from = 0, to = LATENT;
    if (w->v->quant == QUANT_AMAX_NEXT_TILE) from = (tile + 1) % TILES * TILE, to = from + TILE;
    if (w->v->quant == QUANT_AMAX_HALF) to -= TILE / 2;
    double amax = maximum(w, token, from, to);
    for (int64_t d = 0; w->v->quant == QUANT_AMAX_WITH_ROPE && d < ROPE; d++) {
        double x = fabs(hm_fault_load(&w->a->k_pe, rope_at(w, token, d)));
        amax = x > amax ? x : amax;
    }
    if (w->v->quant == QUANT_AMAX_STALE) {
        double own = amax;
        amax = amax > w->before[tile] ? amax : w->before[tile];
        w->before[tile] = own < INFINITY ? own : 0;
    }
    return amax;
}

static double power_up(double r) { return r > 0 && r < INFINITY ? hm_two_to(hm_ue8m0_exponent(r, 1)) : r; }

static double scale_of(const walk *w, double amax, double *stored) {
    bool up = (w->a->scale == HM_MLA_SCALE_POW2) != (w->v->quant == QUANT_OTHER_SCALE);
    double D = 448, least = hm_mla_floor(up ? HM_MLA_SCALE_POW2 : HM_MLA_SCALE_F32);
    if (w->v->quant == QUANT_DIVISOR_224 || w->v->quant == QUANT_FNUZ) D = 224;
    if (w->v->quant == QUANT_DIVISOR_240) D = 240;
    if (w->v->quant == QUANT_OTHER_FLOOR) least = hm_mla_floor(up ? HM_MLA_SCALE_F32 : HM_MLA_SCALE_POW2);
    if (w->v->quant == QUANT_FLOOR_1E10) least = 1e-10;
    if (w->v->quant == QUANT_FLOOR_ON_AMAX) amax = amax > least ? amax : least;
    if (w->v->quant == QUANT_NO_FLOOR || w->v->quant == QUANT_FLOOR_ON_AMAX) least = 0;
    double r = hm_round_to(HM_F32, amax / D);
    if (w->v->quant == QUANT_RECIPROCAL) r = hm_round_to(HM_F32, amax * hm_round_to(HM_F32, 1 / D));
    if (r < least) r = hm_round_to(HM_F32, least);
    double S = up ? power_up(r) : r;
    if (up && S > 0 && S < INFINITY) {
        if (w->v->quant == QUANT_NEAREST_POWER && S > 1.5 * r) S /= 2;
        if ((w->v->quant == QUANT_POWER_DOWN || w->v->quant == QUANT_POWER_DOWN_IEEE) && S > r) S /= 2;
        if (w->v->quant == QUANT_NEXT_POWER && S == r) S *= 2;
    }
    if (w->v->quant == QUANT_SCALE_1) S = 1;
    *stored = S;
    if (w->v->scales == SCALES_INVERSE) *stored = 1 / S;
    if (w->v->scales == SCALES_OTHER) *stored = up ? r : power_up(r);
    if (w->v->scales == SCALES_ROUNDED_TO_BF16) *stored = hm_round_to(HM_BF16, S);
    if (w->v->scales == SCALES_TIMES_2_120) *stored = S * 0x1p-120;
    return S;
}

static uint8_t code_of(const walk *w, double x, double S) {
    hm_dtype F = HM_F8E4M3;
    hm_overflow overflow = HM_OVERFLOW_SATURATE;
    double q = x / S;
    switch (w->v->quant) {
        case QUANT_RECIPROCAL:
            q = hm_round_to(HM_F32, x * hm_round_to(HM_F32, 1 / S));
            break;
        case QUANT_RECIPROCAL_BF16:
            q = x * hm_round_to(HM_BF16, 1 / S);
            break;
        case QUANT_MULTIPLIED:
            q = x * S;
            break;
        case QUANT_CODE_UNSCALED:
            q = x;
            break;
        case QUANT_TRUNCATED:
            q = hm_fault_toward_zero(F, q);
            break;
        case QUANT_TIES_AWAY:
            q = hm_fault_ties_away(F, q);
            break;
        case QUANT_TIES_UP:
            if (q > 0) q = hm_fault_ties_away(F, q);
            else if (hm_fault_ties_away(F, q) != hm_round_to(F, q)) q = hm_fault_toward_zero(F, q);
            break;
        case QUANT_TOP_OCTAVE:
            if (fabs(q) >= 256) q = copysign(448, q);
            break;
        case QUANT_POWER_DOWN_IEEE:
            overflow = HM_OVERFLOW_IEEE;
            break;
        case QUANT_FNUZ:
        case QUANT_FNUZ_448:
            F = HM_F8E4M3FNUZ;
            break;
        case QUANT_E5M2:
            F = HM_F8E5M2;
            break;
        case QUANT_NEGATIVE_ZERO_LOST:
            if (hm_round_to(F, q) == 0) q = 0;
            break;
        case QUANT_SUBNORMALS_FLUSHED:
            if (fabs(hm_round_to(F, q)) < 0x1p-6) q = copysign(0, q);
            break;
        case QUANT_THROUGH_F16:
            q = hm_round_to(HM_F16, q);
            break;
        default:
            break;
    }
    return hm_store8(F, q, overflow);
}

/* ---- an entry of 656 bytes ---- */

static int64_t code_byte(const walk *w, int64_t d) {
    switch (w->v->place) {
        case PLACE_SCALES_FIRST:
            return 4 * TILES + d;
        case PLACE_ROPE_FIRST:
            return 2 * ROPE + d;
        case PLACE_TILES:
            return d / TILE * (TILE + 4) + d % TILE;
        default:
            return d;
    }
}

static int64_t scale_byte(const walk *w, int64_t tile) {
    if (w->v->scales == SCALES_REVERSED) tile = TILES - 1 - tile;
    if (w->v->scales == SCALES_ROTATED) tile = (tile + 1) % TILES;
    if (w->v->scales == SCALES_AS_EXPONENTS) return LATENT + tile;
    if (w->v->scales == SCALES_AS_BF16) return LATENT + 2 * tile;
    switch (w->v->place) {
        case PLACE_SCALES_FIRST:
            return 4 * tile;
        case PLACE_SCALES_LAST:
        case PLACE_ROPE_FIRST:
            return LATENT + 2 * ROPE + 4 * tile;
        case PLACE_SCALES_AT_528:
            return HM_MLA_ROPE_AT + 4 * tile;
        case PLACE_TILES:
            return tile * (TILE + 4) + TILE;
        default:
            return hm_mla_scale_byte(tile);
    }
}

static int64_t rope_byte(const walk *w) {
    switch (w->v->place) {
        case PLACE_SCALES_LAST:
            return LATENT;
        case PLACE_ROPE_FIRST:
            return 0;
        case PLACE_SCALES_AT_528:
            return HM_MLA_ROPE_AT + 16;
        case PLACE_ROPE_AT_516:
            return LATENT + 4;
        default:
            return HM_MLA_ROPE_AT;
    }
}

static void put_scale(const walk *w, int64_t slot, int64_t tile, double stored) {
    float f = (float)stored;
    uint8_t bytes[4];
    int n = 4;
    memcpy(bytes, &f, sizeof f);
    if (w->v->scales == SCALES_NOT_WRITTEN || (w->v->scales == SCALES_FIRST_ONLY && tile)) return;
    if (w->v->scales == SCALES_AS_EXPONENTS) n = 1, bytes[0] = hm_store8(HM_E8M0, stored, HM_OVERFLOW_SATURATE);
    if (w->v->scales == SCALES_AS_BF16) n = 2, hm_store(HM_BF16, bytes, stored);
    for (int i = 0; i < n; i++)
        put(w, slot, scale_byte(w, tile) + i, &bytes[w->v->scales == SCALES_BIG_ENDIAN ? 3 - i : i]);
}

static void write_tile(walk *w, int64_t slot, int64_t token, int64_t tile, double *first) {
    double amax = amax_of(w, token, tile), stored = INFINITY, S = INFINITY, unused;
    if (amax < INFINITY) S = scale_of(w, amax, &stored);
    if (tile == 0) *first = stored;
    if (w->v->quant == QUANT_TILE_OF_64) scale_of(w, maximum(w, token, tile * 64, tile * 64 + 64), &stored);
    for (int64_t d = tile * TILE; d < (tile + 1) * TILE; d++) {
        if (w->v->quant == QUANT_TILE_OF_64 && d % 64 == 0) S = scale_of(w, maximum(w, token, d, d + 64), &unused);
        uint8_t code = code_of(w, latent(w, token, d), S);
        put(w, slot, code_byte(w, d), &code);
    }
    put_scale(w, slot, tile, w->v->scales == SCALES_OF_TILE_0 ? *first : stored);
}

static void write_codes(walk *w, int64_t slot, int64_t token) {
    double first = 0, ignored, amax = 0;
    unsigned char element[8];
    bool latents = w->v->copy != COPY_WITHOUT_LATENT && w->v->copy != COPY_NOTHING;
    for (int64_t tile = 0; latents && tile < TILES; tile++) write_tile(w, slot, token, tile, &first);
    for (int64_t d = 0; d < ROPE; d++) amax = fmax(amax, fabs(hm_fault_load(&w->a->k_pe, rope_at(w, token, d))));
    for (int64_t d = 0; d < rope_count(w); d++) {
        load_rope(w, token, d, element);
        if (w->v->quant == QUANT_ROPE_TOO) { /* codes, in the first half of its place */
            uint8_t code = code_of(w, hm_load(w->a->k_pe.dtype, element), scale_of(w, amax, &ignored));
            put(w, slot, rope_byte(w) + d, &code);
            continue;
        }
        for (int i = 0; i < 2; i++) put(w, slot, rope_byte(w) + 2 * d + i, &element[i]);
    }
}

/* ---- the call ---- */

static void write_token(walk *w, int64_t slot, int64_t token) {
    int64_t capacity = w->c.num_blocks * w->c.block_size;
    bool padded = slot < 0;
    const unsigned char zero[8] = {0}, five[8] = {0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55};
    if (padded && w->v->slot == SLOT_NEGATIVE_WRAPS) slot = capacity - 1;
    if (padded && w->v->slot == SLOT_NEGATIVE_IS_0) slot = 0;
    if (padded && w->v->effect == EFFECT_PADDING_ZEROED)
        for (int64_t e = 0; e < w->c.entry; e++) put(w, 0, e, zero);
    if (slot < 0) return;
    if (w->v->slot == SLOT_IS_TOKEN) slot = token % capacity;
    if (w->v->slot == SLOT_NEXT) slot = (slot + 1) % capacity;
    if (w->v->effect == EFFECT_BLOCK_CLEARED)
        for (int64_t o = 0; o < w->c.block_size; o++)
            for (int64_t e = 0; e < w->c.entry; e++) put(w, slot / w->c.block_size * w->c.block_size + o, e, zero);
    if (w->c.format == HM_MLA_FP8_DS) write_codes(w, slot, token);
    else write_copies(w, slot, token);
    if (w->v->effect == EFFECT_ONE_PAST) put(w, slot, w->c.entry, five);
}

/* A call that only what the fault overlooks is wrong with, completed: with slots of its own that are distinct, or with
 * f32 taken for bf16. The status of every other call. */
static hm_status read_lenient(const variation_t *v, const hm_concat_and_cache_mla_args *args,
                              hm_concat_and_cache_mla_args *a, hm_mla_cache *c, int64_t slots[64]) {
    hm_status status = hm_concat_and_cache_mla_check(args);
    if (args->size != sizeof *args) return status;
    hm_concat_and_cache_mla_args like = *args;
    if (status == HM_BAD_DTYPE && v->from == FROM_F32_AS_16 && args->kv_c.dtype == HM_F32 && args->k_pe.dtype == HM_F32)
        like.kv_c.dtype = like.k_pe.dtype = HM_BF16;
    if (status == HM_BAD_VALUE && v->slot == SLOT_TWICE && args->slot_mapping.shape[0] <= 64) {
        int64_t n = args->slot_mapping.shape[0];
        for (int64_t t = 0; t < n; t++) {
            slots[t] = hm_slot_at(&args->slot_mapping, t);
            for (int64_t before = 0; before < t; before++)
                if (slots[before] == slots[t]) slots[before] = -1;
        }
        like.slot_mapping = hm_tensor_of(slots, HM_I64, 1, &n);
    }
    return hm_concat_and_cache_mla_read(&like, a, c);
}

static hm_status run(const void *variation, const void *args, hm_dtype written[HM_MAX_ARGS]) {
    (void)written;
    const variation_t *v = variation;
    hm_concat_and_cache_mla_args a;
    walk w = {.v = v, .a = &a};
    hm_status status;
    int64_t slots[64];
    if (!args || (v->slot != SLOT_TWICE && v->from != FROM_F32_AS_16)) {
        if (hm_fault_checked(OP, v->checks, args, &status)) return status;
        hm_concat_and_cache_mla_read(args, &a, &w.c);
    } else if ((status = read_lenient(v, args, &a, &w.c, slots))) return status;
    int64_t tokens = a.slot_mapping.shape[0];
    if (!tokens || !hm_tensor_elements(&a.kv_cache)) return v->effect == EFFECT_EMPTY_REFUSED ? HM_BAD_SHAPE : HM_OK;
    if (v->effect == EFFECT_LAST_TOKEN_LEFT) tokens--;
    if (v->effect == EFFECT_32_TOKENS) tokens = hm_fault_least(tokens, 32);
    for (int64_t t = 0; t < tokens; t++) write_token(&w, hm_slot_at(&a.slot_mapping, t), t);
    if (v->effect == EFFECT_ONE_TOKEN_MORE) write_token(&w, 0, tokens);
    return HM_OK;
}

#define FAULT(what, covers, reference, sentence, fix, ...) \
    { OP "." what, OP, covers, reference, sentence, fix, NULL, run, &(const variation_t){__VA_ARGS__}, false }

const hm_fault hm_concat_and_cache_mla_faults[] = {
    /* slots */
    FAULT("padding_wraps", "J9", "vllm#43810; vllm#43869", "slot -1 is taken as the last slot", "skip it",
          .slot = SLOT_NEGATIVE_WRAPS),
    FAULT("padding_is_slot_0", "J9 J10 trap.13", "vllm#13922", "a negative slot is taken as slot 0", "skip it",
          .slot = SLOT_NEGATIVE_IS_0),
    FAULT("padding_zeroes", "trap.13", "", "a padded token clears slot 0", "skip it", .effect = EFFECT_PADDING_ZEROED),
    FAULT("slot_is_token", "D19", "TensorRT-LLM#17240", "token t goes to slot t", "use slot_mapping",
          .slot = SLOT_IS_TOKEN),
    FAULT("slot_next", "J3", "MinivLLM#76", "tokens go one slot too far", "use the slot", .slot = SLOT_NEXT),
    FAULT("block_of_64", "D11", "TensorRT-LLM#16219", "the block size of another configuration", "ask the tensor",
          .slot = SLOT_BLOCK_OF_64),
    FAULT("slot_is_block", "D9", "aiter#2996; aiter#3095", "a slot is taken as a block of one token",
          "divide by the block size", .slot = SLOT_IS_BLOCK),
    FAULT("block_stride_ignored", "trap.5 D8", "vllm#37032; vllm#45111", "blocks are taken to be dense",
          "use the block stride", .slot = SLOT_BLOCK_DENSE),
    FAULT("entry_stride_ignored", "D8", "vllm#37032", "entries are taken to be dense", "use the entry stride",
          .slot = SLOT_ENTRY_DENSE),
    FAULT("element_stride_ignored", "", "", "elements of an entry are taken to be neighbours", "use the last stride",
          .slot = SLOT_ELEMENT_DENSE),
    FAULT("offset_int32", "K1 K7", "vllm#47671; tokenspeed#501; aiter#4474; sglang#20389",
          "offsets of kv_cache wrap in 32 bits", "compute them in 64 bits", .slot = SLOT_OFFSET_INT32),
    FAULT("block_truncated", "K6", "aiter#3062", "block numbers lose their upper bits", "keep them",
          .slot = SLOT_BLOCK_16_BITS),
    FAULT("slot_not_checked", "", "", "a slot past the cache is taken without an error", "check it",
          .checks = HM_CHECKS_NOT_VALUE),
    FAULT("slot_twice", "", "", "a slot that occurs twice is taken, and its later token is kept", "refuse it",
          .slot = SLOT_TWICE),
    /* inputs */
    FAULT("latent_dense", "D13", "vllm#16658; vllm#17091", "kv_c is read as if it were contiguous", "use its strides",
          .from = FROM_LATENT_DENSE),
    FAULT("latent_unit_stride", "", "", "elements of kv_c are taken to be contiguous", "use the stride",
          .from = FROM_LATENT_UNIT),
    FAULT("latent_int32", "K4 K5", "fla#1080; vllm#43166", "offsets of kv_c wrap in 32 bits", "compute them in 64 bits",
          .from = FROM_LATENT_INT32),
    FAULT("latent_of_previous_token", "", "", "each slot gets the latent vector of the token before",
          "use the token's own row", .from = FROM_LATENT_BEFORE),
    FAULT("latent_halves_exchanged", "", "", "the halves of a latent vector are exchanged", "keep the order",
          .from = FROM_LATENT_HALVES),
    FAULT("latent_in_other_16_bits", "C11", "vllm#48324", "f16 is read as bf16, or the other way round",
          "dispatch on the dtype", .from = FROM_LATENT_OTHER_16),
    FAULT("rope_dense", "concat.Q3 D13", "vllm#37892; vllm#16658", "k_pe is read as if it were contiguous",
          "use its strides", .from = FROM_ROPE_DENSE),
    FAULT("rope_unit_stride", "", "", "elements of k_pe are taken to be contiguous", "use the stride",
          .from = FROM_ROPE_UNIT),
    FAULT("rope_int32", "K4 K5", "fla#1080; vllm#43166", "offsets of k_pe wrap in 32 bits", "compute them in 64 bits",
          .from = FROM_ROPE_INT32),
    FAULT("rope_of_next_token", "D20", "transformers#47331", "each slot gets the rope part of the token after",
          "use the token's own row", .from = FROM_ROPE_NEXT),
    FAULT("rope_like_latent", "", "", "k_pe is addressed with the strides of kv_c", "use its own",
          .from = FROM_ROPE_LIKE_LATENT),
    FAULT("f32_accepted", "trap.4", "vllm#37892", "f32 is taken with format fp8_ds_mla, and read as if it had 16 bits",
          "refuse it", .from = FROM_F32_AS_16),
    /* copies */
    FAULT("rope_128_bytes", "E1 concat.Q1", "vllm#37892",
          "128 bytes of the rope part are copied whatever the dtype: in f32 the second half keeps its old bytes",
          "count in elements", .copy = COPY_ROPE_128_BYTES),
    FAULT("rope_missing", "", "", "the rope part is not written", "write it", .copy = COPY_WITHOUT_ROPE),
    FAULT("rope_twice_as_long", "concat.Q4", "vllm#37892",
          "twice as many rope elements are written as there are: into the next entry", "count in elements",
          .copy = COPY_ROPE_TWICE),
    FAULT("latent_missing", "", "", "only the rope part is written", "write both", .copy = COPY_WITHOUT_LATENT),
    FAULT("latent_512", "R6 trap.3", "DeepGEMM#379", "at most 512 elements of a latent vector are copied",
          "copy all of it", .copy = COPY_LATENT_512),
    FAULT("nothing_written", "F4 E7 H14", "bytedance-iaas/vllm#59; vllm-ascend#6558", "the cache keeps its old bytes",
          "write to kv_cache", .copy = COPY_NOTHING),
    FAULT("last_missing", "", "", "the last element of the rope part is not copied", "fix the bound of the loop",
          .copy = COPY_WITHOUT_LAST),
    FAULT("one_element_past", "", "", "one element past the rope part is written", "fix the bound of the loop",
          .copy = COPY_ONE_PAST),
    FAULT("tail_missing", "", "", "elements that do not fill a vector of 4 are not copied", "handle the remainder",
          .copy = COPY_WITHOUT_TAIL),
    FAULT("nan_payload_lost", "", "", "elements are converted and back: NaN payloads are lost", "copy the bits",
          .bits = BITS_NAN_QUIETED),
    FAULT("copied_negative_zero_lost", "", "", "copies of -0 become +0", "copy the bits",
          .bits = BITS_NEGATIVE_ZERO_LOST),
    FAULT("copied_subnormals_flushed", "", "", "copies of subnormals become 0", "copy the bits", .bits = BITS_FLUSHED),
    FAULT("copied_in_other_16_bits", "", "", "copies pass through the other 16-bit dtype", "copy the bits",
          .bits = BITS_OTHER_HALF),
    /* places in an entry */
    FAULT("scales_last", "", "", "the rope part lies at byte 512 and the scales behind it",
          "scales at 512, rope at 528", .place = PLACE_SCALES_LAST),
    FAULT("scales_first", "", "", "the scales lie before the codes", "they lie behind them",
          .place = PLACE_SCALES_FIRST),
    FAULT("rope_first", "", "", "the rope part lies before the latent vector", "behind it", .place = PLACE_ROPE_FIRST),
    FAULT("scales_at_528", "", "", "scales lie at byte 528 and the rope part at 544, into the next entry",
          "512 and 528", .place = PLACE_SCALES_AT_528),
    FAULT("rope_at_516", "", "", "the rope part lies at byte 516, over the scales, as if there were one",
          "there are four", .place = PLACE_ROPE_AT_516),
    FAULT("rope_at_512", "concat.Q2", "vllm#37892", "the rope part is written at element 512 of a longer entry",
          "write it behind the latent vector", .place = PLACE_ROPE_AT_512),
    FAULT("tile_by_tile", "trap.8", "", "each tile's scale lies behind its codes", "all codes come first, then scales",
          .place = PLACE_TILES),
    FAULT("as_the_indexer", "trap.8 D16", "vllm#50084",
          "a block holds the codes of all its tokens, then their scales, as the indexer's cache has it",
          "an entry lies together", .place = PLACE_BLOCKS),
    FAULT("rope_halves", "P4", "vllm-metal#44", "even rope elements come first, then odd ones", "copy them in order",
          .place = PLACE_ROPE_HALVES),
    /* scales */
    FAULT("scales_reversed", "D16", "vllm#50085", "the four scales are in reverse order", "tile i has scale i",
          .scales = SCALES_REVERSED),
    FAULT("scales_rotated", "", "", "tile i has the place of scale i + 1", "tile i has scale i",
          .scales = SCALES_ROTATED),
    FAULT("scale_of_first_tile", "D18", "TIRx-kernels#5", "the first tile's scale is stored for all four",
          "store one a tile", .scales = SCALES_OF_TILE_0),
    FAULT("first_scale_only", "trap.4", "", "only the first tile's scale is written", "write one a tile",
          .scales = SCALES_FIRST_ONLY),
    FAULT("scales_not_written", "H14", "sglang#20705", "scales are not written", "write them",
          .scales = SCALES_NOT_WRITTEN),
    FAULT("scale_exponents", "H13", "vllm#49435; vllm#54563", "scales are stored as one exponent byte each",
          "they are f32, powers of two or not", .scales = SCALES_AS_EXPONENTS),
    FAULT("scale_bf16", "", "", "scales are stored as bf16, two bytes each", "they are f32", .scales = SCALES_AS_BF16),
    FAULT("scale_rounded_to_bf16", "H2", "transformers#46763",
          "the stored scale is rounded to bf16, the one used is not", "divide by the scale that is stored",
          .scales = SCALES_ROUNDED_TO_BF16),
    FAULT("scale_big_endian", "", "", "the bytes of a scale are in the wrong order", "little endian",
          .scales = SCALES_BIG_ENDIAN),
    FAULT("inverse_stored", "H17", "vllm-xpu-kernels#475", "the reciprocal of the scale is stored", "store the scale",
          .scales = SCALES_INVERSE),
    FAULT("scale_not_the_one_used", "H1 H2", "sglang#28418; sglang#26766; transformers#46763",
          "codes are made with the f32 scale and a power of two is stored, or the other way round",
          "divide by the scale that is stored", .scales = SCALES_OTHER),
    FAULT("scale_without_bias", "", "", "the scale's exponent misses its bias", "store an f32",
          .scales = SCALES_TIMES_2_120),
    /* codes */
    FAULT("tiles_of_64", "", "", "tiles have 64 codes, and four of eight scales are stored", "tiles have 128",
          .quant = QUANT_TILE_OF_64),
    FAULT("one_tile", "trap.4", "", "one scale is made for all 512 codes", "one a tile", .quant = QUANT_ONE_TILE),
    FAULT("amax_of_next_tile", "D15", "composable_kernel#3765", "a tile's scale is made from the tile after",
          "from its own", .quant = QUANT_AMAX_NEXT_TILE),
    FAULT("amax_half", "L1", "vllm#54111", "half of the tile does not take part in the maximum", "finish the reduction",
          .quant = QUANT_AMAX_HALF),
    FAULT("amax_stale", "L2", "pegainfer#411", "the maximum of the token before takes part", "start from 0",
          .quant = QUANT_AMAX_STALE),
    FAULT("amax_signed", "", "", "the largest value instead of the largest magnitude", "take magnitudes",
          .quant = QUANT_AMAX_SIGNED),
    FAULT("amax_with_rope", "", "", "the rope part takes part in the maxima", "latent elements alone",
          .quant = QUANT_AMAX_WITH_ROPE),
    FAULT("reciprocal", "", "", "the scale is the maximum times 1 / 448, and values are multiplied by its reciprocal",
          "divide values: it is one rounding", .quant = QUANT_RECIPROCAL),
    FAULT("reciprocal_bf16", "", "", "the reciprocal of the scale is rounded to bf16", "divide",
          .quant = QUANT_RECIPROCAL_BF16),
    FAULT("multiplied", "H17", "vllm-xpu-kernels#475", "values are multiplied by the scale", "divide",
          .quant = QUANT_MULTIPLIED),
    FAULT("divisor_224", "H8", "vllm#32976", "divided by 224, as for fnuz", "divide by 448",
          .quant = QUANT_DIVISOR_224),
    FAULT("divisor_240", "H8", "vllm#32976", "divided by 240, the largest value of fnuz", "divide by 448",
          .quant = QUANT_DIVISOR_240),
    FAULT("no_floor", "H6", "kernels-community#680; kernels-community#681", "a tile of zeros has scale 0 and NaN codes",
          "apply the floor", .quant = QUANT_NO_FLOOR),
    FAULT("floor_on_amax", "trap.12", "", "the floor is applied to the largest magnitude", "apply it to the scale",
          .quant = QUANT_FLOOR_ON_AMAX),
    FAULT("floor_of_other_mode", "trap.12", "", "the floors of f32 and pow2 are exchanged",
          "2^-126 for f32, 1e-4 for pow2", .quant = QUANT_OTHER_FLOOR),
    FAULT("floor_of_queries", "trap.12", "", "the floor is 1e-10, as for queries", "use the mode's floor",
          .quant = QUANT_FLOOR_1E10),
    FAULT("other_scale", "H13 trap.10", "vllm#49435; vllm#54563",
          "the scale is a power of two where it should not be, or is none where it should", "use the mode",
          .quant = QUANT_OTHER_SCALE),
    FAULT("nearest_power", "", "", "the power of two is the nearest one", "round it up", .quant = QUANT_NEAREST_POWER),
    FAULT("power_down", "H3", "transformers#47030", "the power of two is rounded down, and codes saturate",
          "round it up", .quant = QUANT_POWER_DOWN),
    FAULT("power_down_nan", "I2", "pytorch#178817; pytorch#160488; ml_dtypes#400",
          "the power of two is rounded down, and what then rounds past 448 is NaN", "round it up, and saturate",
          .quant = QUANT_POWER_DOWN_IEEE),
    FAULT("power_next", "", "", "a scale that is a power of two is doubled", "keep it", .quant = QUANT_NEXT_POWER),
    FAULT("scale_1", "H14 H16", "sglang#20705; vllm#34863; vllm#55670",
          "the scale is 1: values beyond 448 saturate, small ones vanish", "make it from the tile",
          .quant = QUANT_SCALE_1),
    FAULT("unscaled", "H16", "vllm#55670", "codes are made without the scale", "divide by it",
          .quant = QUANT_CODE_UNSCALED),
    FAULT("truncated", "I5", "triton#11217", "codes are rounded toward zero", "round to nearest",
          .quant = QUANT_TRUNCATED),
    FAULT("ties_away", "I3", "triton#5925; triton#6102; triton#11753", "ties are rounded away from zero",
          "round ties to even", .quant = QUANT_TIES_AWAY),
    FAULT("ties_up", "I3", "triton#5925", "ties are rounded up", "round ties to even", .quant = QUANT_TIES_UP),
    FAULT("top_octave", "I1", "sglang#40581", "codes saturate from 256 on", "from 448 on", .quant = QUANT_TOP_OCTAVE),
    FAULT("fnuz", "H9 H10", "vllm#52109; aiter#3807", "codes are e4m3fnuz, with its divisor", "e4m3fn, and 448",
          .quant = QUANT_FNUZ),
    FAULT("fnuz_448", "H8 H10", "vllm#32976", "codes are e4m3fnuz, divided by 448: the top octave saturates",
          "divide by what the type holds", .quant = QUANT_FNUZ_448),
    FAULT("e5m2", "H10", "aiter#3807", "codes are e5m2", "e4m3fn", .quant = QUANT_E5M2),
    FAULT("negative_zero_lost", "", "", "codes of -0 and of what underflows to it lose their sign", "keep the sign",
          .quant = QUANT_NEGATIVE_ZERO_LOST),
    FAULT("subnormal_codes_flushed", "", "", "codes below 2^-6 become 0", "keep subnormals",
          .quant = QUANT_SUBNORMALS_FLUSHED),
    FAULT("through_f16", "A6 A7", "vllm#51393; vllm#46658", "quotients are rounded to f16 before they become codes",
          "round once", .quant = QUANT_THROUGH_F16),
    FAULT("rope_quantised", "", "", "the rope part is quantised too", "copy its bits", .quant = QUANT_ROPE_TOO),
    /* effects */
    FAULT("block_cleared", "", "", "a block is cleared before a token is written", "touch the token's bytes alone",
          .effect = EFFECT_BLOCK_CLEARED),
    FAULT("one_past", "", "", "one element behind an entry is written", "fix the bound", .effect = EFFECT_ONE_PAST),
    FAULT("last_token_left", "J10", "vllm#13922", "the last token is left out", "fix the bound",
          .effect = EFFECT_LAST_TOKEN_LEFT),
    FAULT("one_token_more", "J10", "vllm#13922", "one token more than there are is written, to slot 0",
          "loop over slot_mapping", .effect = EFFECT_ONE_TOKEN_MORE),
    FAULT("tokens_32", "R6", "imp#1325", "only 32 tokens are written", "loop over the tokens",
          .effect = EFFECT_32_TOKENS),
    FAULT("empty_refused", "J5", "sglang#32065; sglang#23636", "a call without tokens is refused", "return ok",
          .effect = EFFECT_EMPTY_REFUSED),
    HM_CHECK_FAULTS(FAULT),
};
const int hm_concat_and_cache_mla_fault_count =
    sizeof hm_concat_and_cache_mla_faults / sizeof *hm_concat_and_cache_mla_faults;
