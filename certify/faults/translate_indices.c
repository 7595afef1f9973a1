/* The bugs of translate_indices: an evaluator with a switch at every step, and the table. */
#include <hallmark/translate_indices.h>
#include <string.h>

#include "../../op/dtype.h"
#include "../../op/indexer_cache.h"
#include "../../op/translate_indices.h"
#include "common.h"
#include "tables.h"

#define OP "translate_indices"

typedef struct {
    enum {
        INDEX_AS_DECLARED = 0,
        INDEX_NOT_TRANSLATED,
        INDEX_BLOCK_ONLY,
        INDEX_OFFSET_DROPPED,
        INDEX_BLOCK_OF_64,
        INDEX_ONE_MORE,
        INDEX_NEGATIVE_WRAPS,
        INDEX_NEGATIVE_KEPT,
        INDEX_PAST_IS_LAST,
        INDEX_PAST_IS_0,
        INDEX_BLOCK_16_BITS,
        INDEX_START_IGNORED
    } index;
    enum { REQUEST_AS_DECLARED = 0, REQUEST_0, REQUEST_IS_TOKEN, REQUEST_NEXT } request;
    enum { COUNT_AS_DECLARED = 0, COUNT_NOT_NEGATIVE, COUNT_ALL, COUNT_NOT_WRITTEN, COUNT_OF_FIRST } count;
    enum {
        MAP_AS_GIVEN = 0,
        MAP_INDICES_DENSE,
        MAP_TABLE_DENSE,
        MAP_OUT_DENSE,
        MAP_OUT_UNIT,
        MAP_REQ_DENSE,
        MAP_OUT_INT32,
        MAP_TABLE_INT32
    } map;
    enum {
        EFFECT_NONE = 0,
        EFFECT_LAST_ROW_LEFT,
        EFFECT_LAST_COLUMN_LEFT,
        EFFECT_ONE_PAST,
        EFFECT_EMPTY_REFUSED
    } effect;
    hm_fault_checks checks;
} variation_t;

static int64_t load(const hm_tensor *t, int64_t at) {
    int32_t value;
    hm_fault_load_raw(t, at, &value);
    return value;
}

static int64_t translated(const variation_t *v, const hm_translate_indices_args *a, int64_t token, int64_t i) {
    const hm_tensor *in = &a->indices, *table = &a->block_table, *starts = &a->workspace_starts;
    bool paged = table->dtype != HM_DTYPE_NONE;
    int64_t t =
        load(in, v->map == MAP_INDICES_DENSE ? token * in->shape[1] + i : token * in->stride[0] + i * in->stride[1]);
    int64_t requests = paged ? table->shape[0] : starts->shape[0],
            P = v->index == INDEX_BLOCK_OF_64 ? 64 : a->block_size;
    int64_t r = load(&a->req_id, v->map == MAP_REQ_DENSE ? token : token * a->req_id.stride[0]);
    if (v->request == REQUEST_0) r = 0;
    if (v->request == REQUEST_IS_TOKEN) r = token % requests;
    if (v->request == REQUEST_NEXT) r = (r + 1) % requests;
    if (v->index == INDEX_ONE_MORE && t >= 0) t++;
    if (v->index == INDEX_NOT_TRANSLATED) return t;
    if (t < 0 && v->index == INDEX_NEGATIVE_KEPT) return t;
    if (t < 0 && v->index == INDEX_NEGATIVE_WRAPS && paged && table->shape[1]) t = (t % P + P) % P;
    if (t < 0) return -1;
    if (!paged) return (v->index == INDEX_START_IGNORED ? 0 : load(starts, r * starts->stride[0])) + t;
    int64_t block = t / P, width = table->shape[1];
    if (block >= width && (width == 0 || (v->index != INDEX_PAST_IS_LAST && v->index != INDEX_PAST_IS_0))) return -1;
    if (block >= width) block = v->index == INDEX_PAST_IS_LAST ? width - 1 : 0;
    int64_t at = v->map == MAP_TABLE_DENSE ? r * width + block : r * table->stride[0] + block * table->stride[1];
    if (v->map == MAP_TABLE_INT32) at = hm_fault_in_int32(at);
    int64_t base = load(table, at);
    if (v->index == INDEX_BLOCK_16_BITS) base &= 0xFF;
    if (v->index == INDEX_BLOCK_ONLY) return base;
    return base * P + (v->index == INDEX_OFFSET_DROPPED ? 0 : t % P);
}

static void put(const variation_t *v, const hm_tensor *t, int64_t at, int64_t value) {
    int32_t stored = (int32_t)value;
    hm_fault_store_raw(t, v->map == MAP_OUT_INT32 ? hm_fault_in_int32(at) : at, HM_FAULT_SLACK, &stored);
}

static void translate_row(const variation_t *v, const hm_translate_indices_args *a, int64_t token) {
    const hm_tensor *out = &a->out, *count = &a->valid_count;
    int64_t k = a->indices.shape[1], valid = 0, row = v->map == MAP_OUT_DENSE ? token * k : token * out->stride[0];
    int64_t step = v->map == MAP_OUT_UNIT ? 1 : out->stride[1];
    for (int64_t i = 0; i < k - (v->effect == EFFECT_LAST_COLUMN_LEFT); i++) {
        int64_t given = load(&a->indices, token * a->indices.stride[0] + i * a->indices.stride[1]),
                to = translated(v, a, token, i);
        put(v, out, row + i * step, to);
        valid += v->count == COUNT_NOT_NEGATIVE ? given >= 0
                 : v->count == COUNT_ALL        ? 1
                 : v->count == COUNT_OF_FIRST   ? i == 0
                                                : to != -1;
    }
    if (v->effect == EFFECT_ONE_PAST) put(v, out, row + k * step, -1);
    if (count->dtype != HM_DTYPE_NONE && v->count != COUNT_NOT_WRITTEN) put(v, count, token * count->stride[0], valid);
}

static hm_status run(const void *variation, const void *args, hm_dtype written[HM_MAX_ARGS]) {
    (void)written;
    const variation_t *v = variation;
    hm_translate_indices_args a;
    hm_status status;
    if (hm_fault_checked(OP, v->checks, args, &status)) return status;
    hm_translate_indices_read(args, &a);
    if (!hm_tensor_elements(&a.indices) && v->effect == EFFECT_EMPTY_REFUSED) return HM_BAD_SHAPE;
    int64_t tokens = a.indices.shape[0] - (v->effect == EFFECT_LAST_ROW_LEFT);
    for (int64_t token = 0; token < tokens; token++) translate_row(v, &a, token);
    return HM_OK;
}

#define FAULT(what, covers, reference, sentence, fix, ...) \
    { OP "." what, OP, covers, reference, sentence, fix, NULL, run, &(const variation_t){__VA_ARGS__}, false }

const hm_fault hm_translate_indices_faults[] = {
    FAULT("not_translated", "D9", "aiter#2996", "indices are passed on as they are", "look the block up",
          .index = INDEX_NOT_TRANSLATED),
    FAULT("block_only", "D9", "aiter#3095", "the block's number, without its size", "block * block_size + offset",
          .index = INDEX_BLOCK_ONLY),
    FAULT("offset_dropped", "D6", "aiter#5591", "the offset in the block is dropped", "add it",
          .index = INDEX_OFFSET_DROPPED),
    FAULT("block_of_64", "D11", "TensorRT-LLM#16219", "the block size of another configuration", "use block_size",
          .index = INDEX_BLOCK_OF_64),
    FAULT("one_more", "J3", "MinivLLM#76", "the slot of the next token", "count from 0", .index = INDEX_ONE_MORE),
    FAULT("negative_wraps", "J9", "vllm#43810", "a negative index is looked up", "-1", .index = INDEX_NEGATIVE_WRAPS),
    FAULT("negative_kept", "", "", "a negative index is passed on", "-1", .index = INDEX_NEGATIVE_KEPT),
    FAULT("past_is_last_block", "J8", "vllm-ascend#1266", "an index past the table is taken to its last block", "-1",
          .index = INDEX_PAST_IS_LAST),
    FAULT("past_is_first_block", "J8", "vllm-ascend#1266", "an index past the table is taken to its first block", "-1",
          .index = INDEX_PAST_IS_0),
    FAULT("block_truncated", "K6", "aiter#3062", "block numbers lose their upper bits", "keep them",
          .index = INDEX_BLOCK_16_BITS),
    FAULT("start_ignored", "D17", "sglang#12583", "rows are not counted from the request's first",
          "add workspace_starts", .index = INDEX_START_IGNORED),
    FAULT("request_0", "D19", "TensorRT-LLM#17240", "every token belongs to the first request", "use req_id",
          .request = REQUEST_0),
    FAULT("request_is_token", "D19", "TensorRT-LLM#16925", "token t belongs to request t", "use req_id",
          .request = REQUEST_IS_TOKEN),
    FAULT("request_next", "", "", "every token belongs to the request behind its own", "use req_id",
          .request = REQUEST_NEXT),
    FAULT("count_of_given", "", "", "indices past the table are counted", "count what is not -1",
          .count = COUNT_NOT_NEGATIVE),
    FAULT("count_of_all", "", "", "every index is counted", "count what is not -1", .count = COUNT_ALL),
    FAULT("count_not_written", "", "", "valid_count is not written", "write it", .count = COUNT_NOT_WRITTEN),
    FAULT("count_of_first", "", "", "only the first index is counted", "count all", .count = COUNT_OF_FIRST),
    FAULT("indices_dense", "D13", "vllm#16658", "indices are read as if they were contiguous", "use the strides",
          .map = MAP_INDICES_DENSE),
    FAULT("table_dense", "", "", "block_table is read as if it were contiguous", "use its strides",
          .map = MAP_TABLE_DENSE),
    FAULT("out_dense", "", "", "out is written as if it were contiguous", "use its strides", .map = MAP_OUT_DENSE),
    FAULT("out_unit_stride", "", "", "out's columns are taken to be neighbours", "use its stride", .map = MAP_OUT_UNIT),
    FAULT("req_id_dense", "", "", "req_id is read as if it were contiguous", "use its stride", .map = MAP_REQ_DENSE),
    FAULT("out_int32", "K4", "fla#1080", "offsets of out wrap in 32 bits", "compute them in 64 bits",
          .map = MAP_OUT_INT32),
    FAULT("table_int32", "K3", "vllm#50427", "offsets of block_table wrap in 32 bits", "compute them in 64 bits",
          .map = MAP_TABLE_INT32),
    FAULT("last_row_left", "", "", "the last token is left out", "fix the bound", .effect = EFFECT_LAST_ROW_LEFT),
    FAULT("last_column_left", "", "", "the last index is left out", "fix the bound", .effect = EFFECT_LAST_COLUMN_LEFT),
    FAULT("one_past", "", "", "one index past the end of a row is written", "fix the bound", .effect = EFFECT_ONE_PAST),
    FAULT("empty_refused", "J5", "sglang#32065", "a call without indices is refused", "return ok",
          .effect = EFFECT_EMPTY_REFUSED),
    FAULT("request_not_checked", "trap.11", "vllm#47327",
          "a request or block that is not there is taken without an error", "check it", .checks = HM_CHECKS_NOT_VALUE),
    FAULT("param_not_checked", "", "", "a negative block size is taken without an error", "check it",
          .checks = HM_CHECKS_NOT_PARAM),
    HM_CHECK_FAULTS(FAULT),
};
const int hm_translate_indices_fault_count = sizeof hm_translate_indices_faults / sizeof *hm_translate_indices_faults;
