#include "mla_writer.h"

#include <math.h>
#include <string.h>

#include "../../op/concat_and_cache_mla.h"
#include "../../op/dtype.h"
#include "../../op/fp8.h"

static const char op[] = "concat_and_cache_mla";
enum { LATENT = HM_MLA_LATENT, ROPE = HM_MLA_ROPE, TILE = HM_MLA_TILE, TILES = HM_MLA_TILES };

typedef struct {
    const hm_mla_variation *v;
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
static hm_status read_lenient(const hm_mla_variation *v, const hm_concat_and_cache_mla_args *args,
                              hm_concat_and_cache_mla_args *a, hm_mla_cache *c, int64_t slots[64]) {
    hm_status status = hm_concat_and_cache_mla_check(args);
    if (args->size != sizeof *args) return status;
    hm_concat_and_cache_mla_args like = *args;
    if (status == HM_BAD_DTYPE && v->from == FROM_F32_AS_16 && args->kv_c.dtype == HM_F32 && args->k_pe.dtype == HM_F32)
        like.kv_c.dtype = like.k_pe.dtype = HM_BF16;
    if (status == HM_BAD_VALUE && args->slot_mapping.shape[0] <= 64) {
        int64_t n = args->slot_mapping.shape[0], capacity = args->kv_cache.shape[0] * args->kv_cache.shape[1];
        for (int64_t t = 0; t < n; t++) {
            slots[t] = hm_slot_at(&args->slot_mapping, t);
            if (v->slot == SLOT_CAPACITY && slots[t] == capacity) slots[t] = -1;
            for (int64_t before = 0; v->slot == SLOT_TWICE && before < t; before++)
                if (slots[before] == slots[t]) slots[before] = -1;
        }
        like.slot_mapping = hm_tensor_of(slots, HM_I64, 1, &n);
    }
    return hm_concat_and_cache_mla_read(&like, a, c);
}

hm_status hm_mla_writer_run(const void *variation, const void *args, hm_dtype written[HM_MAX_ARGS]) {
    (void)written;
    const hm_mla_variation *v = variation;
    hm_concat_and_cache_mla_args a;
    walk w = {.v = v, .a = &a};
    hm_status status;
    int64_t slots[64];
    if (!args || (v->slot != SLOT_TWICE && v->slot != SLOT_CAPACITY && v->from != FROM_F32_AS_16)) {
        if (hm_fault_checked(op, v->checks, args, &status)) return status;
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
