#include "common.h"
#include "norm.h"

#define OP "fused_add_rms_norm"

static hm_status check(const hm_norm_call *c) {
    return hm_fused_add_rms_norm_check(HM_ARGS(
        fused_add_rms_norm, .out = c->out, .residual_out = c->residual_out, .x = c->x, .residual = c->residual,
        .weight = c->weight, .eps = c->eps, .round = c->round, .weight_form = c->weight_form,
        .residual_read = c->residual_read, .residual_dtype = c->residual_dtype, .variance_size = c->variance_size));
}

static hm_status run(const void *variation, const void *args, hm_dtype written[HM_MAX_ARGS]) {
    const hm_fused_add_rms_norm_args *a = args;
    if (!a || a->size != sizeof *a)
        return ((const hm_norm_variation *)variation)->checks == CHECKS_SILENT ? HM_OK : hm_fused_add_rms_norm_check(a);
    return hm_norm_fault_run(variation,
                             &(hm_norm_call){.out = a->out,
                                             .residual_out = a->residual_out,
                                             .x = a->x,
                                             .residual = a->residual,
                                             .weight = a->weight,
                                             .eps = a->eps,
                                             .round = a->round,
                                             .weight_form = a->weight_form,
                                             .residual_read = a->residual_read,
                                             .residual_dtype = a->residual_dtype,
                                             .variance_size = a->variance_size,
                                             .fused = true,
                                             .out_arg = hm_fault_arg(OP, "out"),
                                             .residual_out_arg = hm_fault_arg(OP, "residual_out")},
                             check, written);
}

#include "norm_table.h"

const hm_fault hm_fused_add_rms_norm_faults[] = {
#include "norm_faults.inc"

    /* what the norm reads */
    FAULT("reads_rounded", "gemma.G9m", "vllm#38998",
          "the norm reads the rounded sum where the unrounded one is declared", "norm the f32 sum before it is rounded",
          .read = READ_ALWAYS_ROUNDED),
    FAULT("reads_unrounded", "gemma.G9m", "vllm#38998",
          "the norm reads the unrounded sum where the rounded one is declared", "norm what residual_out holds",
          .read = READ_ALWAYS_UNROUNDED),
    FAULT("variance_of_rounded", "gemma.G10m", "vllm#38998",
          "the mean square is over the rounded sum, but the unrounded sum is scaled", "read one of the two for both",
          .read = READ_VARIANCE_ROUNDED_ONLY),
    FAULT("variance_of_unrounded", "", "", "the mean square is over the unrounded sum, but the rounded sum is scaled",
          "read one of the two for both", .read = READ_VARIANCE_UNROUNDED_ONLY),
    FAULT("reads_f16_residual", "", "", "an f32 residual stream is rounded to f16 before the norm", "norm the f32 sum",
          .read = READ_VIA_F16),
    FAULT("norm_of_x", "", "", "the norm reads x alone: the residual never reaches it", "norm the sum",
          .read = READ_X_ONLY),
    FAULT("norm_of_residual", "", "", "the norm reads the old residual alone", "norm the sum",
          .read = READ_RESIDUAL_ONLY),
    FAULT("variance_of_x", "", "", "the mean square is over x, but the sum is scaled", "square the sum",
          .read = READ_VARIANCE_OF_X),

    /* the addition */
    FAULT("residual_twice", "", "", "the residual is added twice", "add it once", .sum = SUM_RESIDUAL_TWICE),
    FAULT("residual_subtracted", "", "", "the residual is subtracted", "add it", .sum = SUM_DIFFERENCE),
    FAULT("residual_garbage", "L6", "vllm#41972", "the residual that is added is memory that nobody wrote",
          "pass the residual, or none", .sum = SUM_GARBAGE),
    FAULT("residual_bytes_as_t", "gemma.G2m", "vllm#38998", "an f32 residual is read as if it had the dtype of x",
          "dispatch on the residual's own dtype", .sum = SUM_BYTES_AS_T),
    FAULT("residual_rounded_first", "", "", "an f32 residual is rounded to f16 before the addition", "add in f32",
          .sum = SUM_RESIDUAL_ROUNDED),

    /* what becomes of the residual */
    FAULT("residual_f32", "A9 gemma.G1m", "vllm#38998",
          "residual_out comes back in f32, not rounded, where the dtype of x is declared", "cast the sum back",
          .residual = RESIDUAL_F32),
    FAULT("residual_t", "", "", "residual_out comes back in f16 where f32 is declared", "keep the sum in f32",
          .residual = RESIDUAL_T),
    FAULT("residual_rounded_in_f32", "", "", "residual_out is f32 as declared, but holds values rounded to f16",
          "store the f32 sum", .residual = RESIDUAL_ROUNDED_IN_F32),
    FAULT("residual_not_written", "gemma.G13m", "vllm#38998", "residual_out is not written", "store the sum",
          .residual = RESIDUAL_NOT_WRITTEN),
    FAULT("residual_normalised", "gemma.G13m", "vllm#38998", "residual_out holds the normalised values",
          "store the sum before the norm", .residual = RESIDUAL_NORMALISED),
    FAULT("residual_is_x", "", "", "residual_out holds x", "store the sum", .residual = RESIDUAL_X),
    FAULT("residual_unchanged", "", "", "residual_out holds the old residual", "store the sum",
          .residual = RESIDUAL_UNCHANGED),
    FAULT("residual_truncated", "I5", "triton#11217", "the sum is truncated to the dtype of residual_out",
          "round to nearest even", .residual = RESIDUAL_TRUNCATES),
    FAULT("residual_ties_away", "I3", "triton#5925", "the sum's ties are rounded away from zero", "round ties to even",
          .residual = RESIDUAL_TIES_AWAY),
    FAULT("residual_saturated", "", "", "a sum beyond the range is stored as the largest finite value", "store inf",
          .residual = RESIDUAL_SATURATES),
    FAULT("residual_flushed", "", "", "a subnormal sum is stored as 0, those of f16 too", "store f16 subnormals",
          .residual = RESIDUAL_FLUSHES),
    FAULT("residual_other_half", "", "", "the sum passes through the other 16-bit dtype",
          "convert straight to the dtype of residual_out", .residual = RESIDUAL_OTHER_HALF),
    FAULT("residual_4096", "", "", "only the first 4096 columns of residual_out are written", "copy the whole row",
          .residual = RESIDUAL_4096),
    FAULT("residual_tail_not_written", "", "", "the last hidden % 8 columns of residual_out are not written",
          "write the tail after the vector loop", .residual = RESIDUAL_WITHOUT_TAIL),
    FAULT("residual_in_place", "F3", "ik_llama.cpp#916",
          "the sum is written over the residual that came in, although residual_out is elsewhere",
          "write to residual_out", .residual = RESIDUAL_IN_PLACE),
    FAULT("out_over_residual", "F3", "ik_llama.cpp#916",
          "the normalised values are written over the residual that came in", "leave inputs alone",
          .effect = EFFECT_OUT_OVER_RESIDUAL),
    FAULT("x_holds_sum", "", "", "x is overwritten by the sum although out is elsewhere", "leave inputs alone",
          .effect = EFFECT_X_HOLDS_SUM),
    FAULT("outputs_swapped", "", "", "out and residual_out are exchanged", "fix the order of the outputs",
          .effect = EFFECT_OUTPUTS_SWAPPED),

    /* addresses */
    FAULT("residual_dense", "", "", "the residual is read as if it were contiguous", "use its strides",
          .map = MAP_RESIDUAL_DENSE),
    FAULT("residual_like_x", "", "", "the residual is addressed with the strides of x", "use its own strides",
          .map = MAP_RESIDUAL_LIKE_X),
    FAULT("residual_out_dense", "", "", "residual_out is written densely", "use its strides",
          .map = MAP_RESIDUAL_OUT_DENSE),
    FAULT("residual_out_like_out", "", "", "residual_out is addressed with the strides of out", "use its own strides",
          .map = MAP_RESIDUAL_OUT_LIKE_OUT),
};
const int hm_fused_add_rms_norm_fault_count =
    sizeof hm_fused_add_rms_norm_faults / sizeof *hm_fused_add_rms_norm_faults;
