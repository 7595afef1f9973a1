/* rotary.h: an evaluator for rotary_embedding in binary64, parametrised by what a fault varies. Zero in every field is
 * the contract itself, so that a row of the fault table names only what it breaks. */
#ifndef HM_FAULTS_ROTARY_H
#define HM_FAULTS_ROTARY_H

#include <hallmark/rotary_embedding.h>

#include "../faults.h"

typedef struct {
    /* how a row of the table becomes c and s */
    enum {
        TABLE_AS_GIVEN = 0,
        TABLE_CONVERTED,    /* the whole table is copied to f32 first */
        TABLE_BYTES_AS_F32, /* a 16-bit table read as f32 */
        TABLE_BYTES_AS_T,   /* an f32 table read as the 16-bit T */
        TABLE_ROUNDED_TO_T,
        TABLE_TRUNCATED_TO_T,
        TABLE_ROUNDED_TO_BF16,
        TABLE_ROUNDED_TO_F16,
        TABLE_NOT_ROUNDED,  /* each: c and s stay f32 */
        TABLE_INDEX_OF_X,   /* interleaved: column 2i instead of i */
        TABLE_ALTERNATING,  /* cos and sin are taken to alternate: columns 2i and 2i + 1 */
        TABLE_SWAPPED,      /* sin first, then cos */
        TABLE_REPEATED_COS, /* sin is never read */
        TABLE_NEXT_COLUMN,
        TABLE_SIN_AT_HALF_HEAD, /* sin columns start at head_size / 2 */
        TABLE_SQUARED,          /* the attention factor is in the table, and applied again */
        TABLE_DENSE,            /* rows are rotary_dim apart, whatever the stride */
        TABLE_UNIT_STRIDE,
        TABLE_INT32,
    } table;
    enum {
        POSITION_AS_GIVEN = 0,
        POSITION_BF16,
        POSITION_F16,
        POSITION_INT16,
        POSITION_UINT16,
        POSITION_NEXT,
        POSITION_CLAMPED_4096,
        POSITION_WRAPPED_4096,
        POSITION_WRAPPED_131072,
        POSITION_OF_TOKEN_0,
        POSITION_IS_TOKEN,
        POSITION_UNIT_STRIDE,
        POSITION_INNER_STRIDE, /* [B,S]: only the stride of the last dimension */
        POSITION_PER_SEQUENCE, /* [B,S]: that of the sequence's first token, plus the index in it */
        POSITION_INT32_STRIDE, /* index * stride in 32 bits */
    } position;
    enum {
        MATH_AS_DECLARED = 0,
        MATH_EACH,                    /* every operation rounded to T, whatever is declared */
        MATH_ONCE,                    /* nothing rounded before the result, but c and s as declared */
        MATH_PRODUCTS_NOT_ROUNDED,    /* each: one product of two stays unrounded, as a compiler contracts it */
        MATH_SUM_OF_ROUNDED_PRODUCTS, /* once: products are rounded to T */
        MATH_Y_FROM_NEW_X,
        MATH_X_FROM_NEW_Y,
        MATH_SIN_SIGN,
        MATH_SIN_SIGN_X,
        MATH_SIN_SIGN_Y,
        MATH_INVERSE_IGNORED,
        MATH_INVERSE_COS,
        MATH_INVERSE_X_ONLY,
        MATH_INVERSE_ALWAYS,
        MATH_COS_ONLY,
        MATH_TF32,
        MATH_X_BF16,
        MATH_NAN_IS_ZERO,
        MATH_INF_IS_MAX,
        MATH_SUBNORMAL_IS_ZERO,
        MATH_ZERO_TIMES_ANYTHING, /* terms with a factor of 0 are left out: 0 * inf and 0 * NaN are 0 */
        MATH_TWICE,
    } math;
    enum {
        STORE_NEAREST = 0,
        STORE_TRUNCATES,
        STORE_TIES_AWAY,
        STORE_UPWARD,
        STORE_VIA_BF16,
        STORE_VIA_F16,
        STORE_SATURATES,
        STORE_FLUSHES,
        STORE_NAN_BY_INTEGER,
        STORE_NAN_AS_ZERO,
        STORE_ZEROS,
        STORE_NANS,
    } store;
    enum {
        PAIRS_AS_DECLARED = 0,
        PAIRS_HALF_SPLIT, /* whatever is declared */
        PAIRS_INTERLEAVED,
        PAIRS_OTHER,
        PAIRS_OF_HEAD,       /* half-split over the whole head: x and y are head_size / 2 apart */
        PAIRS_WRITTEN_SPLIT, /* interleaved pairs, written one after the other */
        PAIRS_REVERSED,
    } pairs;
    enum {
        RANGE_AS_DECLARED = 0,
        RANGE_OFFSET_IGNORED,
        RANGE_OFFSET_AT_END, /* the last rotary_dim elements of a head */
        RANGE_HEAD_SIZE,     /* rotary_dim is taken from head_size */
        RANGE_WITHOUT_LAST,  /* pair */
        RANGE_WITHOUT_TAIL,  /* pairs that do not fill a vector of 4 */
        RANGE_32_PAIRS,
        RANGE_64_PAIRS,
    } range;
    /* the elements that are copied */
    enum {
        REST_COPIED = 0,
        REST_NOT_WRITTEN,
        REST_ZERO,
        REST_CONVERTED, /* through f32: a NaN loses its payload */
        REST_NEGATIVE_ZERO_LOST,
        REST_TAIL_NOT_WRITTEN, /* those behind the rotated range */
    } rest;
    enum {
        HEADS_ALL = 0,
        HEADS_FIRST,
        HEADS_WITHOUT_LAST,
        HEADS_EVEN,        /* heads are done in twos */
        HEADS_KV_OF_QUERY, /* only as many query heads as there are key heads */
        HEADS_SHIFTED,     /* head h is computed from head h + 1 */
    } heads;
    enum {
        TOKENS_ALL = 0,
        TOKENS_WITHOUT_LAST,
        TOKENS_MULTIPLE_OF_4,
        TOKENS_FIRST,
        TOKENS_SHIFTED,
        TOKENS_32,
        TOKENS_FIRST_SEQUENCE
    } tokens;
    enum {
        KEY_AS_DECLARED = 0,
        KEY_NOT_WRITTEN,
        KEY_COPIED,
        KEY_INVERSE,
        KEY_FIRST_HEAD,
        QUERY_NOT_WRITTEN,
        QUERY_COPIED
    } key;
    enum {
        EFFECT_NONE = 0,
        EFFECT_NOT_WRITTEN, /* the result is dropped */
        EFFECT_COPIED,      /* out = in */
        EFFECT_INPUT_OVERWRITTEN,
        EFFECT_IN_INPUT, /* written to the input, not to the output */
        EFFECT_4096,     /* only 4096 elements of each token */
        EFFECT_ONE_PAST,
        EFFECT_OUT_F32,
        EFFECT_TABLE_OVERWRITTEN, /* rounded to T in place */
        EFFECT_ROTATED_TWICE_IN_PLACE,
    } effect;
    enum {
        MAP_AS_GIVEN = 0,
        MAP_IN_DENSE,
        MAP_IN_UNIT,
        MAP_IN_HEADS_DENSE, /* heads are head_size apart */
        MAP_IN_LIKE_OUT,
        MAP_IN_INT32,
        MAP_OUT_DENSE,
        MAP_OUT_UNIT,
        MAP_OUT_HEADS_DENSE,
        MAP_OUT_LIKE_IN,
        MAP_OUT_INT32,
        MAP_KEY_HEADS_LIKE_QUERY, /* key heads are as far apart as query heads */
        MAP_KEY_TOKENS_LIKE_QUERY,
        MAP_TOKENS_FLAT, /* [B,S]: flat token index times the stride of S */
    } map;
    enum { EMPTY_OK = 0, EMPTY_REFUSED, EMPTY_WRITES } empty;
    enum {
        CHECKS_ALL = 0,
        CHECKS_LATE,
        CHECKS_SILENT,
        CHECKS_NOT_POSITIONS,  /* a position out of range reads the last row */
        CHECKS_POSITIONS_LATE, /* rows before it are written first */
        CHECKS_NOT_NEGATIVE,
        CHECKS_POSITIONS_INT32,
        CHECKS_NOT_TABLE_DTYPE,
        CHECKS_NOT_OUT_DTYPE,
        CHECKS_NOT_KEY_DTYPE,
        CHECKS_NOT_SHAPE,
        CHECKS_NOT_ODD,
        CHECKS_NOT_OFFSET,
        CHECKS_NOT_MODES,
        CHECKS_NOT_ALIAS,
        CHECKS_NOT_OUT_STRIDE,
        CHECKS_NOT_PLACE,
        CHECKS_NOT_KEY_OUT,
    } checks;
    /* where the sum is contracted depends on what it must not depend on */
    enum { ORDER_FIXED = 0, ORDER_BY_TOKENS, ORDER_BY_ADDRESS, ORDER_BY_RUN } order;
} hm_rotary_variation;

hm_status hm_rotary_fault_run(const hm_rotary_variation *v, const hm_rotary_embedding_args *a,
                              hm_dtype written[HM_MAX_ARGS]);

#endif
