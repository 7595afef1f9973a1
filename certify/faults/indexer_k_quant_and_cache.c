/* The bugs of the indexer cache's writer: an evaluator with a switch at every step, and the table. */
#include <hallmark/indexer_k_quant_and_cache.h>
#include <math.h>
#include <string.h>

#include "../../op/dtype.h"
#include "../../op/fp8.h"
#include "../../op/indexer_cache.h"
#include "common.h"
#include "tables.h"

#define OP "indexer_k_quant_and_cache"
enum { GROUP = HM_INDEXER_GROUP };

typedef struct {
    enum {
        LAYOUT_AS_DECLARED = 0,
        LAYOUT_OTHER,
        LAYOUT_SHUFFLED,      /* whatever the block size */
        LAYOUT_NORMAL_NOT_64, /* tiles only where a block has 64 tokens */
        LAYOUT_TILES_OF_8,
        LAYOUT_TILES_TRANSPOSED,
        LAYOUT_ENTRIES,    /* the 132 bytes of a token in a row, as the tensor's shape suggests */
        LAYOUT_HEADS_FIRST /* code d of all tokens, then code d + 1 */
    } layout;
    enum {
        SCALES_AS_DECLARED = 0,
        SCALES_REVERSED,
        SCALES_OF_TOKEN_0,
        SCALES_AS_BYTES, /* one exponent byte a token */
        SCALES_BEFORE_CODES,
        SCALES_FIRST_GROUP,
        SCALES_NOT_WRITTEN,
        SCALES_BIG_ENDIAN
    } scales;
    enum {
        SLOT_AS_GIVEN = 0,
        SLOT_NEGATIVE_WRAPS, /* -1 is the last slot */
        SLOT_NEGATIVE_IS_0,
        SLOT_IS_TOKEN,
        SLOT_TWICE, /* one that occurs twice is taken */
        SLOT_AT_CAPACITY,
        SLOT_NEXT,
        SLOT_BLOCK_16_BITS,
        SLOT_BLOCK_DENSE, /* the block stride is ignored */
        SLOT_BLOCK_OF_64, /* a block size from another configuration */
        SLOT_OFFSET_INT32
    } slot;
    enum {
        QUANT_AS_DECLARED = 0,
        QUANT_NO_FLOOR,
        QUANT_FLOOR_ON_SCALE,
        QUANT_FLOOR_1E10,
        QUANT_DIVISOR_448,
        QUANT_DIVISOR_224,
        QUANT_DIVISOR_240,
        QUANT_OTHER_SCALE_FORMAT,
        QUANT_STORED_AS_F32_USED_ROUNDED,
        QUANT_RECIPROCAL, /* a product with the rounded reciprocal, itself rounded */
        QUANT_RECIPROCAL_BF16,
        QUANT_TRUNCATED,
        QUANT_TIES_AWAY,
        QUANT_OTHER_FORMAT,
        QUANT_NEAREST_POWER,
        QUANT_INVERSE_STORED,
        QUANT_AMAX_SIGNED,
        QUANT_AMAX_HALF,
        QUANT_AMAX_TOKEN, /* one for all groups */
        QUANT_CODE_UNSCALED,
        QUANT_NEGATIVE_ZERO_LOST
    } quant;
    enum { K_AS_GIVEN = 0, K_DENSE, K_UNIT, K_INT32, K_BEFORE, K_OTHER_HALF, K_F32_AS_16 } k;
    enum {
        EFFECT_NONE = 0,
        EFFECT_BLOCK_CLEARED,
        EFFECT_ONE_PAST,
        EFFECT_LAST_TOKEN_LEFT,
        EFFECT_PADDING_ZEROED,
        EFFECT_EMPTY_REFUSED
    } effect;
    hm_fault_checks checks;
} variation_t;

typedef struct {
    const variation_t *v;
    const hm_indexer_k_quant_and_cache_args *a;
    hm_indexer_cache c;
    const hm_tensor *keys; /* as given, where they pass for something else; NULL */
} walk;

static int64_t code_byte(const walk *w, int64_t offset, int64_t d) {
    hm_indexer_cache c = w->c;
    int64_t D = c.head_dim;
    switch (w->v->layout) {
        case LAYOUT_OTHER:
            c.layout = c.layout == HM_LAYOUT_NORMAL ? HM_LAYOUT_SHUFFLE : HM_LAYOUT_NORMAL;
            break;
        case LAYOUT_SHUFFLED:
            c.layout = HM_LAYOUT_SHUFFLE;
            break;
        case LAYOUT_NORMAL_NOT_64:
            if (c.block_size != 64) c.layout = HM_LAYOUT_NORMAL;
            break;
        case LAYOUT_TILES_OF_8:
            if (c.layout == HM_LAYOUT_SHUFFLE) return offset / 8 * 8 * D + d / 16 * 128 + offset % 8 * 16 + d % 16;
            break;
        case LAYOUT_TILES_TRANSPOSED:
            if (c.layout == HM_LAYOUT_SHUFFLE) return offset / 16 * 16 * D + d / 16 * 256 + d % 16 * 16 + offset % 16;
            break;
        case LAYOUT_ENTRIES:
            return offset * c.entry + d;
        case LAYOUT_HEADS_FIRST:
            return d * c.block_size + offset;
        default:
            break;
    }
    return hm_indexer_code_byte(&c, offset, d);
}

static int64_t scale_byte(const walk *w, int64_t offset, int64_t g) {
    switch (w->v->scales) {
        case SCALES_REVERSED:
            return hm_indexer_scale_byte(&w->c, w->c.block_size - 1 - offset, g);
        case SCALES_OF_TOKEN_0:
            return hm_indexer_scale_byte(&w->c, 0, g);
        case SCALES_AS_BYTES:
            return w->c.block_size * w->c.head_dim + offset * w->c.groups + g;
        case SCALES_BEFORE_CODES:
            return 4 * (offset * w->c.groups + g);
        case SCALES_FIRST_GROUP:
            return hm_indexer_scale_byte(&w->c, offset, 0);
        default:
            return w->v->layout == LAYOUT_ENTRIES ? offset * w->c.entry + w->c.head_dim + 4 * g
                                                  : hm_indexer_scale_byte(&w->c, offset, g);
    }
}

static void put(const walk *w, int64_t block, int64_t byte, uint8_t value) {
    const hm_tensor *t = &w->a->kv_cache;
    int64_t stride = w->v->slot == SLOT_BLOCK_DENSE ? w->c.block_size * w->c.entry : w->c.block_stride;
    int64_t at = block * stride + byte;
    if (w->v->slot == SLOT_OFFSET_INT32) at = hm_fault_in_int32(at);
    hm_fault_store_raw(t, at, HM_FAULT_SLACK, &value);
}

static double load_k(const walk *w, int64_t token, int64_t d) {
    const hm_tensor *k = w->keys ? w->keys : &w->a->k;
    int64_t D = w->c.head_dim, at = token * k->stride[0] + d * k->stride[1];
    switch (w->v->k) {
        case K_DENSE:
            at = token * D + d;
            break;
        case K_UNIT:
            at = token * k->stride[0] + d;
            break;
        case K_INT32:
            at = hm_fault_in_int32(at);
            break;
        case K_BEFORE:
            at = (token ? token - 1 : token) * k->stride[0] + d * k->stride[1];
            break;
        case K_F32_AS_16: /* four elements are loaded as eight bytes: two of them, from half as far; the rest is not there */
            at = token * D + d;
            if (k->dtype == HM_F32) return at % 4 < 2 ? hm_fault_load(k, at / 4 * 2 + at % 4) : 0;
            at = token * k->stride[0] + d * k->stride[1];
            break;
        case K_OTHER_HALF:
            at = token * k->stride[0] + (d + D / 2) % D * k->stride[1];
            break;
        default:
            break;
    }
    return hm_fault_load(k, at);
}

static double power_up(double r) { return r > 0 && r < INFINITY ? hm_two_to(hm_ue8m0_exponent(r, 1)) : r; }

static double scale_of(const walk *w, double amax, double *stored) {
    bool fnuz = w->a->code_format == HM_CODE_E4M3FNUZ, up = w->a->scale_format == HM_SCALE_UE8M0;
    double D = fnuz ? 224 : 448, least = w->a->floor, on_scale = 0;
    if (w->v->quant == QUANT_NO_FLOOR) least = 0;
    if (w->v->quant == QUANT_FLOOR_ON_SCALE) on_scale = least, least = 0;
    if (w->v->quant == QUANT_FLOOR_1E10) least = 1e-10;
    if (w->v->quant == QUANT_DIVISOR_448) D = 448;
    if (w->v->quant == QUANT_DIVISOR_224) D = 224;
    if (w->v->quant == QUANT_DIVISOR_240) D = 240;
    if (w->v->quant == QUANT_OTHER_SCALE_FORMAT) up = !up;
    double r = hm_round_to(HM_F32, (amax > least ? amax : least) / D);
    if (r < on_scale) r = on_scale;
    double S = up ? power_up(r) : r;
    if (w->v->quant == QUANT_NEAREST_POWER && up && S > 1.5 * r) S /= 2;
    *stored = S;
    if (w->v->quant == QUANT_STORED_AS_F32_USED_ROUNDED) *stored = up ? r : power_up(r);
    if (w->v->quant == QUANT_INVERSE_STORED) *stored = 1 / S;
    return S;
}

static uint8_t code_of(const walk *w, double x, double S) {
    hm_dtype F = w->a->code_format == HM_CODE_E4M3FNUZ ? HM_F8E4M3FNUZ : HM_F8E4M3;
    double q = x / S;
    if (w->v->quant == QUANT_RECIPROCAL) q = hm_round_to(HM_F32, x * hm_round_to(HM_F32, 1 / S));
    if (w->v->quant == QUANT_RECIPROCAL_BF16) q = x * hm_round_to(HM_BF16, 1 / S);
    if (w->v->quant == QUANT_CODE_UNSCALED) q = x;
    if (w->v->quant == QUANT_TRUNCATED) q = hm_fault_toward_zero(F, q);
    if (w->v->quant == QUANT_TIES_AWAY) q = hm_fault_ties_away(F, q);
    if (w->v->quant == QUANT_OTHER_FORMAT) F = F == HM_F8E4M3 ? HM_F8E4M3FNUZ : HM_F8E4M3;
    if (w->v->quant == QUANT_NEGATIVE_ZERO_LOST && hm_round_to(F, q) == 0) q = 0;
    return hm_store8(F, q, HM_OVERFLOW_SATURATE);
}

static void write_group(const walk *w, int64_t token, int64_t block, int64_t offset, int64_t g) {
    double amax = 0, stored = INFINITY, S = INFINITY;
    bool whole = w->v->quant == QUANT_AMAX_TOKEN;
    int64_t first = whole ? 0 : g * GROUP, n = whole                            ? w->c.head_dim
                                               : w->v->quant == QUANT_AMAX_HALF ? GROUP / 2
                                                                                : GROUP;
    for (int64_t d = first; d < first + n; d++) {
        double x = load_k(w, token, d), m = w->v->quant == QUANT_AMAX_SIGNED ? x : fabs(x);
        amax = m > amax ? m : amax;
    }
    if (amax < INFINITY) S = scale_of(w, amax, &stored);
    for (int64_t d = g * GROUP; d < (g + 1) * GROUP; d++)
        put(w, block, code_byte(w, offset, d), code_of(w, load_k(w, token, d), S));
    if (w->v->scales == SCALES_NOT_WRITTEN || (w->v->scales == SCALES_FIRST_GROUP && g)) return;
    float f = (float)stored;
    uint8_t bytes[4];
    memcpy(bytes, &f, sizeof f);
    if (w->v->scales == SCALES_AS_BYTES)
        put(w, block, scale_byte(w, offset, g), hm_store8(HM_E8M0, stored, HM_OVERFLOW_SATURATE));
    else
        for (int i = 0; i < 4; i++)
            put(w, block, scale_byte(w, offset, g) + i, bytes[w->v->scales == SCALES_BIG_ENDIAN ? 3 - i : i]);
}

static void write_token(const walk *w, int64_t token) {
    int64_t slot = hm_integer_at(&w->a->slot_mapping, token), capacity = w->c.num_blocks * w->c.block_size;
    bool padded = slot < 0;
    if (padded && w->v->slot == SLOT_NEGATIVE_WRAPS) slot = capacity - 1;
    if (padded && w->v->slot == SLOT_NEGATIVE_IS_0) slot = 0;
    if (padded && w->v->effect == EFFECT_PADDING_ZEROED && capacity > 0) {
        for (int64_t d = 0; d < w->c.head_dim; d++) put(w, 0, code_byte(w, 0, d), 0);
        return;
    }
    if (slot < 0) return;
    if (w->v->slot == SLOT_IS_TOKEN) slot = token % capacity;
    if (w->v->slot == SLOT_NEXT) slot = (slot + 1) % capacity;
    int64_t block_size = w->v->slot == SLOT_BLOCK_OF_64 ? 64 : w->c.block_size;
    int64_t block = slot / block_size, offset = slot % block_size;
    if (w->v->slot == SLOT_BLOCK_16_BITS) block &= 0xF;
    if (w->v->effect == EFFECT_BLOCK_CLEARED)
        for (int64_t i = 0; i < w->c.block_size * w->c.entry; i++) put(w, block, i, 0);
    for (int64_t g = 0; g < w->c.groups; g++) write_group(w, token, block, offset, g);
    if (w->v->effect == EFFECT_ONE_PAST) put(w, block, scale_byte(w, offset, w->c.groups - 1) + 4, 0x55);
}

/* A call that only what the fault overlooks is wrong with, completed: with slots of its own that are distinct, or keys
 * of 16 bits (keys: what they were). The status of every other call. */
static hm_status read_lenient(const variation_t *v, const hm_indexer_k_quant_and_cache_args *args,
                              hm_indexer_k_quant_and_cache_args *a, hm_indexer_cache *c, int64_t slots[64],
                              hm_tensor *keys) {
    hm_status status = hm_indexer_k_quant_and_cache_check(args);
    if (args->size != sizeof *args) return status;
    hm_indexer_k_quant_and_cache_args like = *args;
    *keys = args->k;
    if (status == HM_BAD_DTYPE && v->k == K_F32_AS_16 && args->k.dtype == HM_F32) like.k.dtype = HM_BF16;
    if (status == HM_BAD_VALUE && (v->slot == SLOT_TWICE || v->slot == SLOT_AT_CAPACITY) &&
        args->slot_mapping.shape[0] <= 64) {
        int64_t n = args->slot_mapping.shape[0], capacity = args->kv_cache.shape[0] * args->kv_cache.shape[1];
        for (int64_t t = 0; t < n; t++) {
            slots[t] = hm_integer_at(&args->slot_mapping, t);
            for (int64_t before = 0; before < t && v->slot == SLOT_TWICE; before++)
                if (slots[before] == slots[t]) slots[before] = -1;
            if (v->slot == SLOT_AT_CAPACITY && slots[t] == capacity) slots[t] = -1; /* what lies there is not ours */
        }
        like.slot_mapping = hm_tensor_of(slots, HM_I64, 1, &n);
    }
    return hm_indexer_k_quant_and_cache_read(&like, a, c);
}

static hm_status run(const void *variation, const void *args, hm_dtype written[HM_MAX_ARGS]) {
    (void)written;
    const variation_t *v = variation;
    hm_indexer_k_quant_and_cache_args a;
    walk w = {.v = v, .a = &a};
    hm_status status;
    int64_t slots[64];
    hm_tensor keys = {0};
    if (!args || (v->slot != SLOT_TWICE && v->slot != SLOT_AT_CAPACITY && v->k != K_F32_AS_16)) {
        if (hm_fault_checked(OP, v->checks, args, &status)) return status;
        hm_indexer_k_quant_and_cache_read(args, &a, &w.c);
    } else if ((status = read_lenient(v, args, &a, &w.c, slots, &keys))) return status;
    if (v->k == K_F32_AS_16) w.keys = &keys;
    if (!hm_tensor_elements(&a.k) || !hm_tensor_elements(&a.kv_cache))
        return v->effect == EFFECT_EMPTY_REFUSED ? HM_BAD_SHAPE : HM_OK;
    int64_t tokens = a.k.shape[0] - (v->effect == EFFECT_LAST_TOKEN_LEFT);
    for (int64_t t = 0; t < tokens; t++) write_token(&w, t);
    return HM_OK;
}

#define FAULT(what, covers, reference, sentence, fix, ...) \
    { OP "." what, OP, covers, reference, sentence, fix, NULL, run, &(const variation_t){__VA_ARGS__}, false }

const hm_fault hm_indexer_k_quant_and_cache_faults[] = {
    FAULT("other_layout", "D1 indexer.S1b trap.11", "vllm#43781",
          "codes are written in tiles where the readers expect rows, or the other way round",
          "take the layout from the same place as the readers", .layout = LAYOUT_OTHER),
    FAULT("always_shuffled", "D1 indexer.S1a indexer.S1d", "vllm#43781",
          "codes are written in tiles of 16 tokens, in blocks of one token too",
          "blocks that are no multiple of 16 tokens have rows", .layout = LAYOUT_SHUFFLED),
    FAULT("shuffled_at_64_only", "indexer.S1b D9", "vllm#43781; aiter#2996",
          "tiles are used only for blocks of 64 tokens", "use the declared layout", .layout = LAYOUT_NORMAL_NOT_64),
    FAULT("tiles_of_8", "D5", "DeepGEMM#379", "tiles have 8 tokens", "tiles have 16", .layout = LAYOUT_TILES_OF_8),
    FAULT("tiles_transposed", "D16", "vllm#50084", "codes and tokens of a tile are exchanged",
          "16 codes of a token are neighbours", .layout = LAYOUT_TILES_TRANSPOSED),
    FAULT("token_entries", "trap.8", "", "codes and scale of a token lie together, as the tensor's shape suggests",
          "all codes of a block come first, then all scales", .layout = LAYOUT_ENTRIES),
    FAULT("codes_first", "", "", "code d of all tokens lies before code d + 1", "a token's codes lie together",
          .layout = LAYOUT_HEADS_FIRST),
    FAULT("scales_reversed", "D16", "vllm#50085", "the scales of a block are in reverse order", "token o has scale o",
          .scales = SCALES_REVERSED),
    FAULT("scale_of_first_token", "", "", "every scale is written where the block's first has its place",
          "token o has scale o", .scales = SCALES_OF_TOKEN_0),
    FAULT("scale_bytes", "", "", "the scale is stored as one exponent byte", "it is an f32, power of two or not",
          .scales = SCALES_AS_BYTES),
    FAULT("scales_first", "", "", "the scales lie before the codes", "they lie behind them",
          .scales = SCALES_BEFORE_CODES),
    FAULT("first_group_scale", "trap.4", "", "only the first group's scale is written", "write one a group",
          .scales = SCALES_FIRST_GROUP),
    FAULT("scale_not_written", "H14", "sglang#20705", "scales are not written", "write them",
          .scales = SCALES_NOT_WRITTEN),
    FAULT("scale_big_endian", "", "", "the bytes of a scale are in the wrong order", "little endian",
          .scales = SCALES_BIG_ENDIAN),
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
    FAULT("block_stride_ignored", "trap.5 D8", "vllm#37032", "blocks are taken to be dense", "use the block stride",
          .slot = SLOT_BLOCK_DENSE),
    FAULT("offset_int32", "K1 K7", "vllm#47671; tokenspeed#501", "byte offsets wrap in 32 bits",
          "compute them in 64 bits", .slot = SLOT_OFFSET_INT32),
    FAULT("block_truncated", "K6", "aiter#3062", "block numbers lose their upper bits", "keep them",
          .slot = SLOT_BLOCK_16_BITS),
    FAULT("no_floor", "H6", "kernels-community#680", "a token of zeros has scale 0", "apply the floor",
          .quant = QUANT_NO_FLOOR),
    FAULT("floor_on_scale", "trap.12", "", "the floor is applied to the scale", "apply it to the magnitude",
          .quant = QUANT_FLOOR_ON_SCALE),
    FAULT("floor_of_queries", "trap.12", "", "the floor is 1e-10, as for queries", "use the floor",
          .quant = QUANT_FLOOR_1E10),
    FAULT("divisor_448", "H8 indexer.S6", "vllm#32976", "divided by 448 for fnuz too", "divide by 224",
          .quant = QUANT_DIVISOR_448),
    FAULT("divisor_224", "indexer.S6", "vllm#43781", "divided by 224 for fn too", "divide by 448",
          .quant = QUANT_DIVISOR_224),
    FAULT("divisor_240", "", "", "divided by the largest value of fnuz", "divide by 448 or 224",
          .quant = QUANT_DIVISOR_240),
    FAULT("other_scale_format", "", "",
          "the scale is a power of two where it should not be, or is none where it should", "use scale_format",
          .quant = QUANT_OTHER_SCALE_FORMAT),
    FAULT("scale_not_the_one_used", "H1 H2 H13", "sglang#28418; transformers#46763",
          "another scale is stored than was used", "divide by the scale that is stored",
          .quant = QUANT_STORED_AS_F32_USED_ROUNDED),
    FAULT("reciprocal", "", "", "values are multiplied by the reciprocal of the scale", "divide: it is one rounding",
          .quant = QUANT_RECIPROCAL),
    FAULT("reciprocal_bf16", "", "", "the reciprocal of the scale is rounded to bf16", "divide",
          .quant = QUANT_RECIPROCAL_BF16),
    FAULT("truncated", "I5", "triton#11217", "codes are rounded toward zero", "round to nearest",
          .quant = QUANT_TRUNCATED),
    FAULT("ties_away", "I3", "triton#5925", "ties are rounded away from zero", "round ties to even",
          .quant = QUANT_TIES_AWAY),
    FAULT("other_format", "H9 H10", "vllm#52109; aiter#3807", "codes of the other e4m3 format", "use code_format",
          .quant = QUANT_OTHER_FORMAT),
    FAULT("nearest_power", "", "", "the power of two is the nearest one", "round it up", .quant = QUANT_NEAREST_POWER),
    FAULT("inverse_stored", "H17", "vllm-xpu-kernels#475", "the reciprocal of the scale is stored", "store the scale",
          .quant = QUANT_INVERSE_STORED),
    FAULT("amax_signed", "", "", "the largest value instead of the largest magnitude", "take magnitudes",
          .quant = QUANT_AMAX_SIGNED),
    FAULT("amax_half", "L1", "vllm#54111", "half of the group does not take part in the maximum",
          "finish the reduction", .quant = QUANT_AMAX_HALF),
    FAULT("amax_of_token", "trap.4", "", "one scale for all groups of a token", "one a group",
          .quant = QUANT_AMAX_TOKEN),
    FAULT("unscaled", "H16", "vllm#55670", "codes are made without the scale", "divide by it",
          .quant = QUANT_CODE_UNSCALED),
    FAULT("negative_zero_lost", "", "", "-0 and what underflows to it lose their sign", "keep the sign",
          .quant = QUANT_NEGATIVE_ZERO_LOST),
    FAULT("k_dense", "D13", "vllm#16658", "k is read as if it were contiguous", "use its strides", .k = K_DENSE),
    FAULT("k_unit_stride", "", "", "elements of k are taken to be contiguous", "use the stride", .k = K_UNIT),
    FAULT("k_int32", "K4", "fla#1080", "offsets of k wrap in 32 bits", "compute them in 64 bits", .k = K_INT32),
    FAULT("previous_token", "", "", "each slot gets the token before", "use the token's own row", .k = K_BEFORE),
    FAULT("halves_exchanged", "", "", "the halves of a key are exchanged", "keep the order", .k = K_OTHER_HALF),
    FAULT("block_cleared", "", "", "a block is cleared before a token is written", "touch the token's bytes alone",
          .effect = EFFECT_BLOCK_CLEARED),
    FAULT("one_past", "", "", "one byte behind a scale is written", "fix the bound", .effect = EFFECT_ONE_PAST),
    FAULT("last_token_left", "J10", "vllm#13922", "the last token is left out", "fix the bound",
          .effect = EFFECT_LAST_TOKEN_LEFT),
    FAULT("empty_refused", "J5", "sglang#32065", "a call without tokens is refused", "return ok",
          .effect = EFFECT_EMPTY_REFUSED),
    FAULT("slot_not_checked", "", "", "a slot past the cache is taken without an error", "check it",
          .checks = HM_CHECKS_NOT_VALUE),
    FAULT("slot_twice", "", "", "a slot that occurs twice is taken, and its later token is kept", "refuse it",
          .slot = SLOT_TWICE),
    FAULT("slot_at_capacity", "", "", "a slot that is one past the last is taken", "slots count from 0",
          .slot = SLOT_AT_CAPACITY),
    FAULT("f32_keys", "trap.4", "vllm#37892", "f32 keys are taken, and read as if they had 16 bits", "refuse them",
          .k = K_F32_AS_16),
    FAULT("param_not_checked", "", "", "a bad floor is taken without an error", "check it",
          .checks = HM_CHECKS_NOT_PARAM),
    HM_CHECK_FAULTS(FAULT),
};
const int hm_indexer_k_quant_and_cache_fault_count =
    sizeof hm_indexer_k_quant_and_cache_faults / sizeof *hm_indexer_k_quant_and_cache_faults;
