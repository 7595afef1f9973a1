/* rope_engine.h: a rotary table by upstream's f32 steps, with what the contract leaves free (legal variants) and what
 * people got wrong (faults) as parameters. Binary64 libm stands for the steps' own functions. Zero in every field: the
 * steps, each rounded to f32. */
#ifndef HM_ROPE_ENGINE_H
#define HM_ROPE_ENGINE_H

#include <hallmark/rope_table.h>

#include "faults.h"

typedef struct {
    /* free */
    bool inv_f64; /* inv_freq by the formula in binary64, rounded once */
    int inv_ulps; /* then moved by so many f32 ulps; in odd columns by as many the other way if inv_both */
    bool inv_both;
    enum {
        FUNCTION_NEAREST = 0,
        FUNCTION_HIGH,
        FUNCTION_LOW,
        FUNCTION_F64,
        FUNCTION_LIBM32
    } function;     /* HIGH, LOW: by 2 ulp; F64: not rounded */
    bool scale_f64; /* mscale is not narrowed, its product is not rounded */
    /* wrong */
    hm_dtype inv_dtype; /* inv_freq rounded to it */
    hm_dtype product_dtype;
    enum { ANGLE_F32 = 0, ANGLE_F64, ANGLE_INV_F64, ANGLE_DEGREES, ANGLE_SHORT_PI, ANGLE_SUMMED } angle;
    enum {
        FREQUENCY_RIGHT = 0,
        FREQUENCY_J,
        FREQUENCY_OF_HALF,
        FREQUENCY_LATE_RAMP,
        FREQUENCY_RAMP_SWAPPED,
        FREQUENCY_RAMP_WIDE,
        FREQUENCY_HARD_SWITCH,
        FREQUENCY_TIMES_FACTOR,
        FREQUENCY_NO_POWER
    } frequency;
} hm_rope_way;

/* Fills [rows, rotary_dim] of binary64 values, mscale included, not yet rounded to out's dtype. a passed the check. */
void hm_rope_engine(const hm_rope_way *way, const hm_rope_table_args *a, double *to);
/* The factor on cos and sin, in binary64. */
double hm_rope_scale(const hm_rope_table_args *a);

extern const hm_fault hm_rope_table_faults[];
extern const int hm_rope_table_fault_count;
extern const hm_variant hm_rope_table_variants[];
extern const int hm_rope_table_variant_count;

#endif
