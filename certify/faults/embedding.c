/* The bugs of embedding: an evaluator that copies element by element, and the table. */
#include <hallmark/embedding.h>
#include <math.h>
#include <string.h>

#include "../../op/dtype.h"
#include "../../op/embedding.h"
#include "common.h"
#include "tables.h"

#define OP "embedding"

typedef struct {
    hm_fault_checks checks;
    enum { ID_RIGHT = 0, ID_LOW_WORD, ID_OF_ROW, ID_UNIT, ID_FIRST, ID_NEXT, ID_BITS16, ID_CLAMPED, ID_ONE_BASED } id;
    enum {
        MAP_RIGHT = 0,
        MAP_TABLE_DENSE,
        MAP_TABLE_UNIT,
        MAP_TABLE_INT32,
        MAP_OUT_DENSE,
        MAP_OUT_UNIT,
        MAP_OUT_INT32
    } map;
    enum {
        COPY_ALL = 0,
        COPY_WITHOUT_TAIL,
        COPY_ONE_PAST,
        COPY_NOTHING,
        COPY_ZEROS,
        COPY_16_BIT_ROW,
        COPY_128_BYTES
    } copy;
    enum { ROWS_ALL = 0, ROWS_WITHOUT_LAST, ROWS_64 } rows;
    enum {
        BITS_KEPT = 0,
        BITS_NAN_ZERO,
        BITS_NAN_LOST,
        BITS_MINUS_ZERO,
        BITS_FLUSHED,
        BITS_INF_IS_MAX,
        BITS_AS_BF16,
        BITS_AS_F16
    } bits;
    enum {
        PART_RIGHT = 0,
        PART_START_IGNORED,
        PART_STALE,
        PART_CLAMPED,
        PART_FIRST_ROW,
        PART_END_INCLUDED,
        PART_NEGATIVE_ZERO
    } part;
    bool empty_refused, row_0_zero, scaled;
} variation_t;

static void change(const variation_t *v, hm_dtype T, int64_t hidden, unsigned char *element) {
    double value = hm_load(T, element);
    bool wrong = (v->bits == BITS_NAN_ZERO || v->bits == BITS_NAN_LOST) ? isnan(value)
                 : v->bits == BITS_MINUS_ZERO                           ? value == 0
                 : v->bits == BITS_FLUSHED                              ? fabs(value) < hm_dtype_min_normal(T)
                 : v->bits == BITS_INF_IS_MAX                           ? isinf(value)
                                                                        : false;
    if (wrong && v->bits == BITS_NAN_LOST) hm_store(T, element, NAN);
    else if (wrong && v->bits == BITS_INF_IS_MAX) hm_store(T, element, hm_fault_saturated(T, value));
    else if (wrong) hm_store(T, element, 0);
    if (v->bits == BITS_AS_BF16 && T == HM_F32) hm_store(T, element, hm_round_to(HM_BF16, value));
    if (v->bits == BITS_AS_F16 && T == HM_BF16) hm_store(T, element, hm_round_to(HM_F16, value));
    if (v->scaled && isfinite(value)) hm_store(T, element, value * sqrt((double)hidden));
}

static int64_t id_of(const variation_t *v, const hm_embedding_args *a, int64_t row) {
    const hm_tensor *ids = &a->ids;
    int64_t id = hm_embedding_id(ids, v->id == ID_FIRST ? 0 : row);
    unsigned char raw[8] = {0};
    int32_t low;
    switch (v->id) {
        case ID_LOW_WORD: /* i64 read as pairs of i32, as a kernel for i32 sees it */
            if (ids->dtype != HM_I64) return id;
            hm_fault_load_raw(ids, row / 2, raw);
            memcpy(&low, raw + row % 2 * 4, sizeof low);
            return low;
        case ID_OF_ROW:
            return row;
        case ID_UNIT:
            hm_fault_load_raw(ids, row, raw);
            if (ids->dtype == HM_I32) return memcpy(&low, raw, sizeof low), low;
            return memcpy(&id, raw, sizeof id), id;
        case ID_NEXT:
            return id + 1;
        case ID_BITS16:
            return id & 0xFFFF;
        case ID_CLAMPED:
            return hm_fault_least(id, a->vocab_start + a->table.shape[0] - 2);
        case ID_ONE_BASED:
            return id - 1;
        default:
            return id;
    }
}

/* The row of the table for an id; -1: zeros. */
static int64_t row_named(const variation_t *v, const hm_embedding_args *a, int64_t id) {
    int64_t rows = a->table.shape[0], row = v->part == PART_START_IGNORED ? id : id - a->vocab_start;
    bool inside = row >= 0 && row < rows + (v->part == PART_END_INCLUDED);
    if (v->id) return rows ? (row % rows + rows) % rows : -1; /* a wrong id shows as another row */
    if (!inside && v->part == PART_CLAMPED) return row < 0 || !rows ? rows ? 0 : -1 : rows - 1;
    if (!inside && v->part == PART_FIRST_ROW) return rows ? 0 : -1;
    return inside && rows ? row % rows : -1;
}

static void copy_row(const variation_t *v, const hm_embedding_args *a, int64_t row) {
    const hm_tensor *table = &a->table, *out = &a->out;
    int64_t n = table->shape[1], last = out->ndim - 1, to = hm_fault_row_offset(out, row), true_id = id_of(v, a, row);
    bool held = hm_embedding_holds(a, hm_embedding_id(&a->ids, row));
    int64_t id = !held && v->id ? -1 : row_named(v, a, true_id), size = (int64_t)hm_dtype_size(table->dtype);
    if (!held && v->part == PART_STALE) return;
    int64_t end = v->copy == COPY_WITHOUT_TAIL ? n - n % 8
                  : v->copy == COPY_ONE_PAST   ? n + 1
                  : v->copy == COPY_NOTHING    ? 0
                  : v->copy == COPY_16_BIT_ROW ? n * 2 / size
                  : v->copy == COPY_128_BYTES  ? hm_fault_least(n, 128 / size)
                                               : n;
    for (int64_t i = 0; i < end; i++) {
        unsigned char element[8] = {0};
        int64_t step = v->map == MAP_TABLE_UNIT ? 1 : table->stride[1];
        int64_t from = (v->map == MAP_TABLE_DENSE ? id * n : id * table->stride[0]) + i * step;
        int64_t at = (v->map == MAP_OUT_DENSE ? row * n : to) + i * (v->map == MAP_OUT_UNIT ? 1 : out->stride[last]);
        if (v->map == MAP_TABLE_INT32) from = hm_fault_in_int32(from);
        if (v->map == MAP_OUT_INT32) at = hm_fault_in_int32(at);
        if (id >= 0) hm_fault_load_raw(table, from, element);
        if (id >= 0) change(v, table->dtype, n, element);
        if (id < 0 && v->part == PART_NEGATIVE_ZERO) hm_store(table->dtype, element, -0.0);
        if (v->copy == COPY_ZEROS || (v->row_0_zero && true_id == 0)) memset(element, 0, sizeof element);
        hm_fault_store_raw(out, at, HM_FAULT_SLACK, element);
    }
}

static hm_status run(const void *variation, const void *args, hm_dtype written[HM_MAX_ARGS]) {
    (void)written;
    const variation_t *v = variation;
    hm_embedding_args full, *a = &full;
    hm_status status;
    if (hm_fault_checked(OP, v->checks, args, &status)) return status;
    hm_embedding_read(args, a);
    if (!hm_tensor_elements(&a->out)) return v->empty_refused ? HM_BAD_SHAPE : HM_OK;
    int64_t rows = hm_fault_rows(&a->out);
    if (v->rows == ROWS_WITHOUT_LAST) rows--;
    if (v->rows == ROWS_64) rows = hm_fault_least(rows, 64);
    for (int64_t row = 0; row < rows; row++) copy_row(v, a, row);
    return HM_OK;
}

#define FAULT(what, covers, reference, sentence, fix, ...) \
    { "embedding." what, OP, covers, reference, sentence, fix, NULL, run, &(const variation_t){__VA_ARGS__}, false }
const hm_fault hm_embedding_faults[] = {
    FAULT("ids_as_i32", "", "", "i64 ids are read as i32", "ask the tensor for its dtype", .id = ID_LOW_WORD),
    FAULT("ids_ignored", "", "", "row i of out is row i of the table", "look the id up", .id = ID_OF_ROW),
    FAULT("ids_unit_stride", "", "", "ids are taken to be contiguous", "use their strides", .id = ID_UNIT),
    FAULT("first_id", "", "", "every row is the first id's", "index ids by row", .id = ID_FIRST),
    FAULT("next_row", "", "", "the row after the one that the id names is read", "ids count from 0", .id = ID_NEXT),
    FAULT("ids_16_bits", "K6", "aiter#3062", "ids lose their upper bits", "keep them", .id = ID_BITS16),
    FAULT("clamped", "", "", "ids are clamped to the last row but one", "every row of the table may be named",
          .id = ID_CLAMPED),
    FAULT("one_based", "", "", "ids are taken to count from 1, and 0 wraps to the last row", "they count from 0",
          .id = ID_ONE_BASED),
    FAULT("table_dense", "D13", "vllm#16658", "rows of the table are taken to be hidden apart", "use the row stride",
          .map = MAP_TABLE_DENSE),
    FAULT("table_unit_stride", "", "", "columns of the table are taken to be neighbours", "use the stride",
          .map = MAP_TABLE_UNIT),
    FAULT("table_int32", "K1 K3 K7", "vllm#47671", "offsets into the table wrap in 32 bits", "compute them in 64 bits",
          .map = MAP_TABLE_INT32),
    FAULT("out_dense", "", "", "rows of out are taken to be hidden apart", "use its strides", .map = MAP_OUT_DENSE),
    FAULT("out_unit_stride", "", "", "columns of out are taken to be neighbours", "use the stride",
          .map = MAP_OUT_UNIT),
    FAULT("out_int32", "K5", "vllm#43166", "offsets of out wrap in 32 bits", "compute them in 64 bits",
          .map = MAP_OUT_INT32),
    FAULT("tail_missing", "", "", "columns that do not fill a vector of 8 are not written", "handle the remainder",
          .copy = COPY_WITHOUT_TAIL),
    FAULT("one_past", "", "", "one element past the end of a row is written", "fix the bound of the loop",
          .copy = COPY_ONE_PAST),
    FAULT("nothing_written", "", "", "out keeps its old bytes", "write to out", .copy = COPY_NOTHING),
    FAULT("zeros", "", "", "out is all zeros", "copy", .copy = COPY_ZEROS),
    FAULT("row_16_bits", "", "", "rows of f32 are copied as if an element had two bytes: half of each stays as it was",
          "take the size from the dtype", .copy = COPY_16_BIT_ROW),
    FAULT("row_128_bytes", "E1", "vllm#37892", "128 bytes of each row are copied, whatever its width",
          "loop over the row", .copy = COPY_128_BYTES),
    FAULT("last_row_missing", "", "", "the last row is not written", "fix the number of rows",
          .rows = ROWS_WITHOUT_LAST),
    FAULT("rows_64", "", "", "only 64 rows are written", "loop over the rows", .rows = ROWS_64),
    FAULT("padding_row", "", "", "id 0 is taken for padding: its row is zeros", "every id has its row",
          .row_0_zero = true),
    FAULT("scaled", "", "", "rows are multiplied by the root of hidden", "copy: scaling is another op", .scaled = true),
    FAULT("nan_zero", "", "", "NaN become 0", "copy the bits", .bits = BITS_NAN_ZERO),
    FAULT("nan_payload_lost", "", "", "NaN lose their payload", "copy the bits", .bits = BITS_NAN_LOST),
    FAULT("negative_zero_lost", "", "", "-0 becomes +0", "copy the bits", .bits = BITS_MINUS_ZERO),
    FAULT("subnormals_flushed", "", "", "subnormals become 0", "copy the bits", .bits = BITS_FLUSHED),
    FAULT("inf_is_max", "", "", "infinities become the largest finite value", "copy the bits", .bits = BITS_INF_IS_MAX),
    FAULT("as_bf16", "", "", "an f32 row passes through bf16", "copy the bits", .bits = BITS_AS_BF16),
    FAULT("as_f16", "", "", "a bf16 row passes through f16", "copy the bits", .bits = BITS_AS_F16),
    FAULT("start_ignored", "", "", "the first row is taken to be id 0's", "subtract vocab_start",
          .part = PART_START_IGNORED),
    FAULT("others_stale", "", "", "rows of ids that another rank holds keep their old bytes", "write zeros",
          .part = PART_STALE),
    FAULT("others_clamped", "", "", "ids that another rank holds get the nearest row", "write zeros",
          .part = PART_CLAMPED),
    FAULT("others_first_row", "", "",
          "ids that another rank holds get the first row: the mask after the look-up is missing", "write zeros",
          .part = PART_FIRST_ROW),
    FAULT("end_included", "", "", "the first id of the next rank is taken for one of this", "compare with <",
          .part = PART_END_INCLUDED),
    FAULT("others_negative_zero", "", "", "ids that another rank holds get -0", "write +0", .part = PART_NEGATIVE_ZERO),
    FAULT("param_not_checked", "", "", "a negative vocab_start or vocab_size is taken without an error", "check it",
          .checks = HM_CHECKS_NOT_PARAM),
    FAULT("empty_refused", "J5", "sglang#32065", "a call without ids is refused", "return ok", .empty_refused = true),
    FAULT("id_not_checked", "", "", "an id that the table lacks is taken without an error", "check it",
          .checks = HM_CHECKS_NOT_VALUE),
    HM_CHECK_FAULTS(FAULT),
};
const int hm_embedding_fault_count = sizeof hm_embedding_faults / sizeof *hm_embedding_faults;
