/* mla_writer.h: the writer of the latent attention's cache with a switch at every step. */
#ifndef HM_FAULTS_MLA_WRITER_H
#define HM_FAULTS_MLA_WRITER_H

#include "common.h"

typedef struct {
    enum {
        SLOT_AS_GIVEN = 0,
        SLOT_NEGATIVE_WRAPS, /* -1 is the last slot */
        SLOT_NEGATIVE_IS_0,
        SLOT_IS_TOKEN,
        SLOT_TWICE,    /* one that occurs twice is taken */
        SLOT_CAPACITY, /* the one behind the last is, and skipped */
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
} hm_mla_variation;

hm_status hm_mla_writer_run(const void *variation, const void *args, hm_dtype written[HM_MAX_ARGS]);

#endif
