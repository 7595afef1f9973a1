/* The bugs of concat_mla_q: an evaluator that copies element by element, and the table. */
#include <hallmark/concat_mla_q.h>
#include <math.h>
#include <string.h>

#include "../../op/dtype.h"
#include "common.h"
#include "tables.h"

#define OP "concat_mla_q"

typedef struct {
    enum {
        COPY_ALL = 0,
        COPY_ROPE_128_BYTES,
        COPY_ROPE_32,
        COPY_ROPE_64,
        COPY_NOPE_512,
        COPY_NOPE_WITHOUT_TAIL,
        COPY_NOPE_ONLY,
        COPY_ROPE_ONLY,
        COPY_WITHOUT_LAST,
        COPY_ROPE_TWICE_AS_LONG,
        COPY_ONE_PAST,
        COPY_NOTHING,
        COPY_ROPE_WITHOUT_TAIL,
        COPY_ZEROS
    } copy;
    enum {
        PLACE_AS_DECLARED = 0,
        PLACE_ROPE_AT_512,
        PLACE_ROPE_FIRST,
        PLACE_INTERLEAVED,
        PLACE_ROPE_REVERSED,
        PLACE_ROPE_ONE_OFF
    } place;
    enum {
        MAP_AS_GIVEN = 0,
        MAP_NOPE_DENSE,
        MAP_NOPE_UNIT,
        MAP_NOPE_HEADS_DENSE,
        MAP_ROPE_DENSE,
        MAP_ROPE_UNIT,
        MAP_ROPE_HEADS_DENSE,
        MAP_ROPE_LIKE_NOPE,
        MAP_OUT_DENSE,
        MAP_OUT_UNIT,
        MAP_OUT_HEADS_DENSE,
        MAP_NOPE_INT32,
        MAP_ROPE_INT32,
        MAP_OUT_INT32,
        MAP_HEADS_AND_TOKENS_EXCHANGED
    } map;
    enum {
        ROWS_ALL = 0,
        ROWS_WITHOUT_LAST,
        ROWS_FIRST_HEAD,
        ROWS_SWAPPED,
        ROWS_MULTIPLE_OF_4,
        ROWS_128_HEADS,
        ROWS_ROPE_OF_HEAD_0,
        ROWS_64
    } rows;
    enum {
        BITS_KEPT = 0,
        BITS_NAN_QUIETED,
        BITS_NAN_ZERO,
        BITS_NEGATIVE_ZERO_LOST,
        BITS_SUBNORMALS_FLUSHED,
        BITS_OTHER_HALF,
        BITS_INF_IS_MAX,
        BITS_SIGNALLING_QUIETED
    } bits;
    enum { EFFECT_NONE = 0, EFFECT_OUT_F32, EFFECT_INPUT_ZEROED } effect;
    enum { EMPTY_OK = 0, EMPTY_REFUSED, EMPTY_WRITES } empty;
    enum {
        CHECKS_ALL = 0,
        CHECKS_F32_ACCEPTED,
        CHECKS_DTYPES_ACCEPTED,
        CHECKS_NOT_SAME_DTYPE,
        CHECKS_LATE,
        CHECKS_SILENT,
        CHECKS_NOT_SHAPE,
        CHECKS_NOT_ALIAS,
        CHECKS_NOT_STRIDE,
        CHECKS_NOT_PLACE
    } checks;
} variation_t;

/* ---- one row ---- */

static void change(const variation_t *v, hm_dtype T, unsigned char *element) {
    double value = hm_load(T, element);
    uint16_t bits;
    memcpy(&bits, element, sizeof bits);
    switch (v->bits) {
        case BITS_KEPT:
            return;
        case BITS_NAN_QUIETED:
            hm_store(T, element, value);
            return; /* converted and back: one NaN for all */
        case BITS_NAN_ZERO:
            hm_store(T, element, isnan(value) ? 0 : value);
            return;
        case BITS_NEGATIVE_ZERO_LOST:
            if (value == 0) bits = 0;
            break;
        case BITS_SUBNORMALS_FLUSHED:
            if (fabs(value) < hm_dtype_min_normal(T)) bits &= 0x8000;
            break;
        case BITS_OTHER_HALF:
            hm_store(T, element, hm_round_to(T == HM_F16 ? HM_BF16 : HM_F16, value));
            return;
        case BITS_INF_IS_MAX:
            if (isinf(value)) bits--;
            break;
        case BITS_SIGNALLING_QUIETED:
            if (isnan(value)) bits |= T == HM_F16 ? 0x0200 : 0x0040;
            break;
    }
    memcpy(element, &bits, sizeof bits);
}

static int64_t offset_of(const variation_t *v, const hm_tensor *t, int64_t row, int dense, int heads_dense, int int32) {
    int64_t n = hm_fault_width(t), offset = hm_fault_row_offset(t, row);
    if ((int)v->map == dense) return row * n;
    if (t->ndim >= 2 && (int)v->map == heads_dense)
        return offset + row % t->shape[t->ndim - 2] * (n - t->stride[t->ndim - 2]);
    if (t->ndim == 3 && v->map == MAP_HEADS_AND_TOKENS_EXCHANGED && heads_dense == MAP_NOPE_HEADS_DENSE)
        return row % t->shape[1] * t->stride[0] + row / t->shape[1] * t->stride[1];
    return (int)v->map == int32 ? hm_fault_in_int32(offset) : offset;
}

static void copy_row(const variation_t *v, const hm_concat_mla_q_args *a, int64_t row, int64_t rows) {
    hm_dtype T = a->ql_nope.dtype;
    const hm_tensor *nope = &a->ql_nope, *rope = &a->q_pe, *out = &a->q_out;
    int64_t n = hm_fault_width(nope), r = hm_fault_width(rope),
            heads = nope->ndim > 1 ? nope->shape[nope->ndim - 2] : 1;
    int64_t from_row = v->rows == ROWS_SWAPPED && (row ^ 1) < rows ? row ^ 1 : row;
    int64_t from = offset_of(v, nope, from_row, MAP_NOPE_DENSE, MAP_NOPE_HEADS_DENSE, MAP_NOPE_INT32);
    int64_t pe = offset_of(v, rope, v->rows == ROWS_ROPE_OF_HEAD_0 ? row / heads * heads : from_row, MAP_ROPE_DENSE,
                           MAP_ROPE_HEADS_DENSE, MAP_ROPE_INT32);
    int64_t to = offset_of(v, out, row, MAP_OUT_DENSE, MAP_OUT_HEADS_DENSE, MAP_OUT_INT32);
    if (v->map == MAP_ROPE_LIKE_NOPE) pe = hm_fault_row_offset(nope, row);
    int64_t step = v->map == MAP_NOPE_UNIT || v->map == MAP_NOPE_DENSE ? 1 : nope->stride[nope->ndim - 1];
    int64_t pe_step = v->map == MAP_ROPE_UNIT || v->map == MAP_ROPE_DENSE ? 1 : rope->stride[rope->ndim - 1];
    int64_t to_step = v->map == MAP_OUT_UNIT || v->map == MAP_OUT_DENSE ? 1 : out->stride[out->ndim - 1];
    int64_t n_end = n, r_end = r, rope_at = n, nope_at = 0;
    switch (v->copy) {
        case COPY_ROPE_128_BYTES:
            r_end = hm_fault_least(r, 128 / (int64_t)hm_dtype_size(T));
            break;
        case COPY_ROPE_32:
            r_end = hm_fault_least(r, 32);
            break;
        case COPY_ROPE_64:
            r_end = hm_fault_least(r, 64);
            break;
        case COPY_NOPE_512:
            n_end = hm_fault_least(n, 512);
            break;
        case COPY_NOPE_WITHOUT_TAIL:
            n_end = n - n % 8;
            break;
        case COPY_ROPE_WITHOUT_TAIL:
            r_end = r - r % 2;
            break;
        case COPY_NOPE_ONLY:
            r_end = 0;
            break;
        case COPY_ROPE_ONLY:
            n_end = 0;
            break;
        case COPY_WITHOUT_LAST:
            r_end = r - 1;
            break;
        case COPY_ROPE_TWICE_AS_LONG:
            r_end = 2 * r;
            break;
        case COPY_ONE_PAST:
            r_end = r + 1;
            break;
        case COPY_NOTHING:
            n_end = r_end = 0;
            break;
        default:
            break;
    }
    if (v->place == PLACE_ROPE_AT_512 && n > 512) rope_at = 512, n_end = 512;
    if (v->place == PLACE_ROPE_FIRST) rope_at = 0, nope_at = r;
    if (v->place == PLACE_ROPE_ONE_OFF) rope_at = n + 1;
    for (int64_t i = 0; i < n_end + r_end; i++) {
        unsigned char element[8];
        bool second = i >= n_end;
        int64_t k = second ? i - n_end : i, column = second ? rope_at + k : nope_at + k;
        if (second && v->place == PLACE_ROPE_REVERSED) column = rope_at + r - 1 - k;
        if (second && v->place == PLACE_INTERLEAVED && r % 2 == 0) column = rope_at + (k % 2 ? r / 2 + k / 2 : k / 2);
        hm_fault_load_raw(second ? rope : nope, second ? pe + (k < r ? k : r - 1) * pe_step : from + k * step, element);
        if (T == HM_F16 || T == HM_BF16) change(v, T, element);
        if (v->copy == COPY_ZEROS) memset(element, 0, sizeof element);
        hm_fault_store_raw(out, to + column * to_step, v->copy == COPY_ONE_PAST ? HM_FAULT_SLACK : 64, element);
    }
    if (v->effect == EFFECT_INPUT_ZEROED)
        for (int64_t k = 0; k < r; k++) hm_fault_store_raw(rope, pe + k * pe_step, 0, (const unsigned char[8]){0});
}

static bool has_row(const variation_t *v, const hm_tensor *nope, int64_t row, int64_t rows) {
    int64_t heads = nope->ndim > 1 ? nope->shape[nope->ndim - 2] : 1;
    switch (v->rows) {
        case ROWS_WITHOUT_LAST:
            return row < rows - 1;
        case ROWS_FIRST_HEAD:
            return row % heads == 0;
        case ROWS_MULTIPLE_OF_4:
            return row < rows - rows % 4;
        case ROWS_128_HEADS:
            return heads == 128;
        case ROWS_64:
            return row < 64;
        default:
            return true;
    }
}

/* ---- the call ---- */

/* Any dtype, as long as there is memory to copy. */
static bool walkable(const hm_tensor *t) {
    hm_tensor as_if = *t;
    as_if.dtype = HM_F32;
    return t->dtype != HM_DTYPE_NONE && hm_dtype_size(t->dtype) && hm_fault_walkable(&as_if, false);
}

static bool overlooked(const variation_t *v, const hm_concat_mla_q_args *a, hm_status status) {
    hm_dtype T = a->ql_nope.dtype;
    bool dtype = status == HM_BAD_DTYPE, same = a->q_pe.dtype == T && a->q_out.dtype == T;
    switch (v->checks) {
        case CHECKS_F32_ACCEPTED:
            return dtype && same && T == HM_F32;
        case CHECKS_DTYPES_ACCEPTED:
            return dtype && same;
        case CHECKS_NOT_SAME_DTYPE:
            return dtype && !same && (T == HM_F16 || T == HM_BF16);
        case CHECKS_NOT_SHAPE:
            return status == HM_BAD_SHAPE;
        case CHECKS_NOT_ALIAS:
            return status == HM_BAD_ALIAS;
        case CHECKS_NOT_STRIDE:
            return status == HM_BAD_STRIDE;
        case CHECKS_NOT_PLACE:
            return status == HM_BAD_PLACE;
        default:
            return false;
    }
}

static hm_status run(const void *variation, const void *args, hm_dtype written[HM_MAX_ARGS]) {
    const variation_t *v = variation;
    const hm_concat_mla_q_args *a = args;
    hm_status status = hm_concat_mla_q_check(a);
    if (status && v->checks == CHECKS_SILENT) return HM_OK;
    if (status && (!a || a->size != sizeof *a)) return status;
    if (status) {
        bool copies = walkable(&a->ql_nope) && walkable(&a->q_pe) && walkable(&a->q_out);
        if (v->checks == CHECKS_LATE && copies) memset(a->q_out.data, 0, hm_dtype_size(a->q_out.dtype));
        if (!overlooked(v, a, status)) return status;
        if (!copies || status != HM_BAD_DTYPE || a->ql_nope.dtype != HM_F32 || a->q_pe.dtype != HM_F32 ||
            a->q_out.dtype != HM_F32)
            return HM_OK;
    }
    int64_t rows = hm_tensor_elements(&a->q_out) ? hm_fault_rows(&a->q_out) : 0;
    if (rows == 0) {
        if (v->empty == EMPTY_WRITES && a->q_out.data) hm_store(a->q_out.dtype, a->q_out.data, 0);
        return v->empty == EMPTY_REFUSED ? HM_BAD_SHAPE : HM_OK;
    }
    for (int64_t row = 0; row < rows; row++)
        if (has_row(v, &a->ql_nope, row, rows)) copy_row(v, a, row, rows);
    if (v->effect == EFFECT_OUT_F32) written[hm_fault_arg(OP, "q_out")] = HM_F32;
    return HM_OK;
}

#define FAULT(what, covers, reference, sentence, fix, ...) \
    { OP "." what, OP, covers, reference, sentence, fix, NULL, run, &(const variation_t){__VA_ARGS__}, false }

const hm_fault hm_concat_mla_q_faults[] = {
    FAULT("f32_accepted", "E1 concat.Q1", "vllm#37892",
          "f32 is accepted, and 128 bytes of the rope part are copied: the second half keeps its old bytes",
          "refuse f32, or count in elements", .checks = CHECKS_F32_ACCEPTED, .copy = COPY_ROPE_128_BYTES),
    FAULT("f32_copied", "", "vllm#37892", "f32 is accepted, and copied right",
          "refuse it: the contract is for f16 and bf16", .checks = CHECKS_F32_ACCEPTED),
    FAULT("dtypes_accepted", "", "", "any dtype is accepted", "refuse all but f16 and bf16",
          .checks = CHECKS_DTYPES_ACCEPTED),
    FAULT("mixed_dtypes_accepted", "", "", "q_pe or q_out in another dtype than ql_nope is accepted", "refuse it",
          .checks = CHECKS_NOT_SAME_DTYPE),
    FAULT("rope_half", "E1 concat.Q1", "vllm#37892", "only 32 elements of the rope part are copied", "copy all of it",
          .copy = COPY_ROPE_32),
    FAULT("rope_64", "R6", "DeepGEMM#379", "at most 64 elements of the rope part are copied", "copy all of it",
          .copy = COPY_ROPE_64),
    FAULT("nope_512", "trap.3", "vllm#37892", "at most 512 elements of the nope part are copied", "copy all of it",
          .copy = COPY_NOPE_512),
    FAULT("rope_at_512", "concat.Q2 trap.3", "vllm#37892",
          "the rope part is written at element 512 of a wider row, and the rest is stale",
          "write it behind the nope part", .place = PLACE_ROPE_AT_512),
    FAULT("rope_dense", "concat.Q3 D13", "vllm#37892; vllm#16658", "q_pe is read as if it were contiguous",
          "use its strides", .map = MAP_ROPE_DENSE),
    FAULT("rope_heads_dense", "concat.Q3 D2", "vllm#37892; aiter#3841",
          "heads of q_pe are taken to be as far apart as they are long", "use the head stride",
          .map = MAP_ROPE_HEADS_DENSE),
    FAULT("rope_unit_stride", "", "", "elements of q_pe are taken to be contiguous", "use the stride",
          .map = MAP_ROPE_UNIT),
    FAULT("rope_like_nope", "", "", "q_pe is addressed with the strides of ql_nope", "use its own",
          .map = MAP_ROPE_LIKE_NOPE),
    FAULT("rope_twice_as_long", "concat.Q4", "vllm#37892",
          "twice as many rope elements are written as there are: into the next head", "count in elements",
          .copy = COPY_ROPE_TWICE_AS_LONG),
    FAULT("one_past", "", "", "one element past the end of a row is written", "fix the bound of the loop",
          .copy = COPY_ONE_PAST),
    FAULT("out_int32", "concat.Q5 K5", "vllm#37892; vllm#43166", "offsets of q_out wrap in 32 bits",
          "compute them in 64 bits", .map = MAP_OUT_INT32),
    FAULT("nope_int32", "concat.Q5 K5", "vllm#37892; vllm#43166", "offsets of ql_nope wrap in 32 bits",
          "compute them in 64 bits", .map = MAP_NOPE_INT32),
    FAULT("rope_int32", "concat.Q5 K5", "vllm#37892; vllm#43166", "offsets of q_pe wrap in 32 bits",
          "compute them in 64 bits", .map = MAP_ROPE_INT32),
    FAULT("nope_dense", "D13", "vllm#16658; sglang#20559", "ql_nope is read as if it were contiguous",
          "use its strides", .map = MAP_NOPE_DENSE),
    FAULT("nope_heads_dense", "D2", "aiter#3841", "heads of ql_nope are taken to be as far apart as they are long",
          "use the head stride", .map = MAP_NOPE_HEADS_DENSE),
    FAULT("nope_unit_stride", "", "", "elements of ql_nope are taken to be contiguous", "use the stride",
          .map = MAP_NOPE_UNIT),
    FAULT("nope_transposed", "", "", "heads and tokens of ql_nope are exchanged", "use the strides in their order",
          .map = MAP_HEADS_AND_TOKENS_EXCHANGED),
    FAULT("out_dense", "", "", "q_out is written densely", "use its strides", .map = MAP_OUT_DENSE),
    FAULT("out_heads_dense", "", "", "heads of q_out are taken to be as far apart as they are long",
          "use the head stride", .map = MAP_OUT_HEADS_DENSE),
    FAULT("out_unit_stride", "", "", "elements of q_out are written next to each other", "use the stride",
          .map = MAP_OUT_UNIT),
    FAULT("rope_first", "", "", "the parts are exchanged: rope before nope", "nope first", .place = PLACE_ROPE_FIRST),
    FAULT("rope_interleaved", "P4", "vllm-metal#44", "the rope part is written as two halves of even and odd elements",
          "copy it in order", .place = PLACE_INTERLEAVED),
    FAULT("rope_reversed", "", "", "the rope part is written backwards", "copy it in order",
          .place = PLACE_ROPE_REVERSED),
    FAULT("rope_one_off", "", "", "the rope part is written one element too far", "fix the index",
          .place = PLACE_ROPE_ONE_OFF),
    FAULT("nope_only", "", "", "the rope part is not copied", "copy it", .copy = COPY_NOPE_ONLY),
    FAULT("rope_only", "", "", "the nope part is not copied", "copy it", .copy = COPY_ROPE_ONLY),
    FAULT("nope_tail_missing", "", "", "elements that do not fill a vector of 8 are not copied", "handle the remainder",
          .copy = COPY_NOPE_WITHOUT_TAIL),
    FAULT("rope_tail_missing", "", "", "an odd rope element at the end is not copied", "handle the remainder",
          .copy = COPY_ROPE_WITHOUT_TAIL),
    FAULT("last_missing", "", "", "the last element of a row is not copied", "fix the bound of the loop",
          .copy = COPY_WITHOUT_LAST),
    FAULT("nothing_written", "F4 E7", "bytedance-iaas/vllm#59; vllm-ascend#6558", "q_out keeps its old bytes",
          "write to q_out", .copy = COPY_NOTHING),
    FAULT("zeros", "R1 R2", "tritonbench#1145; KernelBench#165", "q_out is all zeros", "copy", .copy = COPY_ZEROS),
    FAULT("last_row_missing", "", "", "the last row is not written", "fix the number of rows",
          .rows = ROWS_WITHOUT_LAST),
    FAULT("first_head_only", "E3", "aprender#2079", "only head 0 of each token is written", "loop over the heads",
          .rows = ROWS_FIRST_HEAD),
    FAULT("heads_swapped", "", "", "neighbouring heads are exchanged", "use one head index", .rows = ROWS_SWAPPED),
    FAULT("row_tile_remainder", "", "", "rows that do not fill a tile of 4 are not written", "handle the remainder",
          .rows = ROWS_MULTIPLE_OF_4),
    FAULT("heads_128", "R6", "DeepGEMM#379; imp#1325", "right for 128 heads only", "test other counts",
          .rows = ROWS_128_HEADS),
    FAULT("rows_64", "", "", "only 64 rows are written", "loop over the rows", .rows = ROWS_64),
    FAULT("rope_of_head_0", "", "", "every head gets the rope part of head 0", "index q_pe by head",
          .rows = ROWS_ROPE_OF_HEAD_0),
    FAULT("nan_payload_lost", "", "", "elements are converted to f32 and back: NaN payloads are lost", "copy the bits",
          .bits = BITS_NAN_QUIETED),
    FAULT("signalling_nan_quieted", "", "", "signalling NaN become quiet on the way", "copy the bits",
          .bits = BITS_SIGNALLING_QUIETED),
    FAULT("nan_zero", "O2", "candle#3309", "NaN become 0", "copy the bits", .bits = BITS_NAN_ZERO),
    FAULT("inf_is_max", "O2", "candle#3309", "infinities become the largest finite value", "copy the bits",
          .bits = BITS_INF_IS_MAX),
    FAULT("negative_zero_lost", "", "", "-0 becomes +0", "copy the bits", .bits = BITS_NEGATIVE_ZERO_LOST),
    FAULT("subnormals_flushed", "", "", "subnormals become 0", "copy the bits", .bits = BITS_SUBNORMALS_FLUSHED),
    FAULT("other_half", "", "", "elements pass through the other 16-bit dtype", "copy the bits",
          .bits = BITS_OTHER_HALF),
    FAULT("out_f32", "", "", "q_out is left in f32", "keep the dtype", .effect = EFFECT_OUT_F32),
    FAULT("input_changed", "F5", "unsloth#5001", "q_pe is cleared after it was read", "leave inputs alone",
          .effect = EFFECT_INPUT_ZEROED),
    FAULT("empty_refused", "J5", "sglang#32065; sglang#23636", "a call without rows is an error", "return ok at once",
          .empty = EMPTY_REFUSED),
    FAULT("empty_writes", "", "", "a call without rows writes an element", "return before anything is written",
          .empty = EMPTY_WRITES),
    FAULT("checks_late", "", "", "something is written before the arguments are checked", "check first",
          .checks = CHECKS_LATE),
    FAULT("checks_silent", "", "", "a bad call does nothing and returns ok", "return the error",
          .checks = CHECKS_SILENT),
    FAULT("shapes_not_checked", "", "", "shapes that do not fit together are accepted", "refuse them",
          .checks = CHECKS_NOT_SHAPE),
    FAULT("overlap_accepted", "", "", "an output that overlaps an input is accepted", "refuse it",
          .checks = CHECKS_NOT_ALIAS),
    FAULT("out_stride_not_checked", "", "", "an output whose elements share memory is accepted", "refuse it",
          .checks = CHECKS_NOT_STRIDE),
    FAULT("place_not_checked", "", "", "tensors in different places are accepted", "refuse them",
          .checks = CHECKS_NOT_PLACE),
};
const int hm_concat_mla_q_fault_count = sizeof hm_concat_mla_q_faults / sizeof *hm_concat_mla_q_faults;
