/* logits.h: the bugs that the indexer's two ops of logits share: one evaluator with a switch at every step. */
#ifndef HM_FAULTS_LOGITS_H
#define HM_FAULTS_LOGITS_H

#include "../../op/logits.h"
#include "common.h"

typedef struct {
    enum {
        SCORE_EXACT = 0,
        SCORE_BF16, /* rounded to bf16 */
        SCORE_F16,
        SCORE_INTERMEDIATE_BF16, /* every partial sum of 32 elements */
        SCORE_13_BITS,           /* products are cut to 13 bits below the largest: another class */
        SCORE_HALF_OF_DIM,
        SCORE_WITHOUT_LAST,
        SCORE_UNSIGNED,     /* the sign of codes is lost */
        SCORE_OTHER_FORMAT, /* fn codes read as fnuz, or the other way round */
        SCORE_SUBNORMALS_FLUSHED
    } score;
    enum {
        SUM_AS_DECLARED = 0,
        SUM_WITHOUT_RELU,
        SUM_RELU_BEHIND, /* on the weighted score */
        SUM_RELU_ON_LOGIT,
        SUM_WITHOUT_WEIGHTS,
        SUM_WEIGHTS_BF16,
        SUM_WEIGHTS_MAGNITUDE,
        SUM_FIRST_HEAD,
        SUM_WITHOUT_LAST_HEAD,
        SUM_HEADS_REVERSED, /* the weights of the other heads */
        SUM_MEAN,
        SUM_BF16, /* the head sum is rounded */
        SUM_WEIGHTS_OF_ROW_0,
        SUM_LARGEST
    } sum;
    enum {
        SCALE_AS_DECLARED = 0,
        SCALE_NONE,
        SCALE_TWICE,
        SCALE_INVERSE,
        SCALE_OF_FIRST,
        SCALE_OF_NEXT,
        SCALE_BF16,
        SCALE_POWER_OF_TWO, /* only its exponent is read */
        SCALE_ON_KEY_BF16,  /* code times scale rounded to bf16, before the product */
        SCALE_HALF
    } scale;
    enum {
        WINDOW_AS_DECLARED = 0,
        WINDOW_ONE_LESS, /* the query's own token is hidden */
        WINDOW_ONE_MORE,
        WINDOW_START_EXCLUSIVE,
        WINDOW_ALL,
        WINDOW_ZERO_OUTSIDE,
        WINDOW_LOWEST_OUTSIDE, /* -3.4e38 in place of -inf */
        WINDOW_NAN_OUTSIDE,
        WINDOW_NOT_CLEANED,
        WINDOW_NEXT_N_IGNORED,
        WINDOW_OF_ROW_0,
        WINDOW_STARTS_AT_0
    } window;
    enum {
        KEY_AS_DECLARED = 0,
        KEY_NEXT,
        KEY_REVERSED,
        KEY_DENSE,
        KEY_OF_REQUEST_0,
        KEY_OTHER_LAYOUT, /* paged from here on */
        KEY_SHUFFLED_AT_64_ONLY,
        KEY_ALWAYS_SHUFFLED,
        KEY_ENTRIES,
        KEY_FIRST_OF_BLOCK,
        KEY_TABLE_IGNORED,
        KEY_BLOCK_OF_64,
        KEY_BLOCK_STRIDE_DENSE,
        KEY_PREVIOUS_BLOCK,
        KEY_TABLE_DENSE,
        KEY_OFFSET_INT32,
        KEY_BLOCK_TRUNCATED
    } key;
    enum {
        MAP_AS_GIVEN = 0,
        MAP_QUERY_OF_ROW_0,
        MAP_QUERY_DENSE,
        MAP_QUERY_HEADS_DENSE,
        MAP_QUERY_TRANSPOSED,
        MAP_LOGITS_DENSE,
        MAP_LOGITS_UNIT,
        MAP_LOGITS_INT32,
        MAP_QUERY_INT32,
        MAP_WEIGHTS_DENSE,
        MAP_COLUMNS_ABSOLUTE, /* compressed columns are written where absolute ones go */
        MAP_COLUMNS_COMPRESSED
    } map;
    enum {
        EFFECT_NONE = 0,
        EFFECT_LAST_ROW_LEFT,
        EFFECT_ONE_PAST,
        EFFECT_BF16_OUT,
        EFFECT_EMPTY_REFUSED,
        EFFECT_LAST_COLUMN_LEFT
    } effect;
    hm_fault_checks checks;
} hm_logits_variation;

/* Runs the variation on a call that passed its check and was read. */
hm_status hm_logits_fault(const char *op, const hm_logits_variation *v, const hm_logits_call *call,
                          hm_dtype written[HM_MAX_ARGS]);

#endif
