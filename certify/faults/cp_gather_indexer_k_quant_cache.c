/* The bugs of the indexer cache's gathering reader: an evaluator with a switch at every step, and the table. */
#include <hallmark/cp_gather_indexer_k_quant_cache.h>
#include <string.h>

#include "../../op/dtype.h"
#include "../../op/indexer_cache.h"
#include "common.h"
#include "tables.h"

#define OP "cp_gather_indexer_k_quant_cache"

typedef struct {
    enum {
        LAYOUT_AS_DECLARED = 0,
        LAYOUT_OTHER,
        LAYOUT_SHUFFLED, /* whatever the block size */
        LAYOUT_NORMAL_NOT_64,
        LAYOUT_TILES_OF_8,
        LAYOUT_TILES_TRANSPOSED,
        LAYOUT_ENTRIES,
        LAYOUT_FIRST_TOKEN /* the offset in the block is dropped */
    } layout;
    enum {
        SCALES_AS_DECLARED = 0,
        SCALES_OF_TOKEN_0,
        SCALES_FIRST_GROUP,
        SCALES_NOT_WRITTEN,
        SCALES_REVERSED,
        SCALES_DEQUANTISED, /* codes are multiplied: here, a scale of 1 is written */
        SCALES_AS_BYTES
    } scales;
    enum {
        PAGE_AS_DECLARED = 0,
        PAGE_OF_64,
        PAGE_TABLE_IGNORED,
        PAGE_REQUEST_0,
        PAGE_TABLE_DENSE,
        PAGE_STRIDE_DENSE,
        PAGE_OFFSET_INT32,
        PAGE_NUMBER_TRUNCATED,
        PAGE_OF_FIRST_CHUNK, /* wrong past the first block */
        PAGE_ROW_INT32
    } page;
    enum {
        REQUEST_AS_DECLARED = 0,
        REQUEST_BOUND_INCLUSIVE, /* the first row of a request belongs to the one before */
        REQUEST_POSITION_ABSOLUTE,
        REQUEST_EMPTY_COUNTS, /* an empty request takes a row */
        REQUEST_CU_STRIDE
    } request;
    enum {
        ROWS_AS_DECLARED = 0,
        ROWS_PADDING_ZEROED,
        ROWS_PADDING_LAST,
        ROWS_LAST_LEFT,
        ROWS_DENSE,
        ROWS_UNIT,
        ROWS_INT32,
        ROWS_ONE_PAST,
        ROWS_EMPTY_REFUSED
    } rows;
    enum { CODES_KEPT = 0, CODES_NAN_LOST, CODES_NEGATIVE_ZERO_LOST, CODES_FN_TO_FNUZ, CODES_HALF } codes;
    hm_fault_checks checks;
} variation_t;

typedef struct {
    const variation_t *v;
    const hm_cp_gather_indexer_k_quant_cache_args *a;
    hm_indexer_cache c;
} walk;

static uint8_t byte_at(const walk *w, int64_t block, int64_t byte) {
    int64_t stride = w->v->page == PAGE_STRIDE_DENSE ? w->c.block_size * w->c.entry : w->c.block_stride;
    if (w->v->page == PAGE_NUMBER_TRUNCATED) block &= 3;
    int64_t at = block * stride + byte;
    if (w->v->page == PAGE_OFFSET_INT32) at = hm_fault_in_int32(at);
    uint8_t value;
    hm_fault_load_raw(&w->a->kv_cache, at, &value);
    return value;
}

static int64_t code_byte(const walk *w, int64_t offset, int64_t d) {
    hm_indexer_cache c = w->c;
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
            if (c.layout == HM_LAYOUT_SHUFFLE)
                return offset / 8 * 8 * c.head_dim + d / 16 * 128 + offset % 8 * 16 + d % 16;
            break;
        case LAYOUT_TILES_TRANSPOSED:
            if (c.layout == HM_LAYOUT_SHUFFLE)
                return offset / 16 * 16 * c.head_dim + d / 16 * 256 + d % 16 * 16 + offset % 16;
            break;
        case LAYOUT_ENTRIES:
            return offset * c.entry + d;
        case LAYOUT_FIRST_TOKEN:
            offset = 0;
            break;
        default:
            break;
    }
    return hm_indexer_code_byte(&c, offset, d);
}

static uint8_t changed(const walk *w, uint8_t code) {
    if (w->v->codes == CODES_NAN_LOST && (code & 0x7F) == 0x7F) return code - 1;
    if (w->v->codes == CODES_NEGATIVE_ZERO_LOST && code == 0x80) return 0;
    if (w->v->codes == CODES_FN_TO_FNUZ)
        return hm_store8(HM_F8E4M3FNUZ, hm_load8(HM_F8E4M3, code), HM_OVERFLOW_SATURATE);
    return code;
}

static int64_t row_offset(const walk *w, const hm_tensor *t, int64_t row) {
    int64_t at = w->v->rows == ROWS_DENSE ? row * t->shape[1] : row * t->stride[0];
    return w->v->rows == ROWS_INT32 ? hm_fault_in_int32(at) : at;
}

static void copy_row(const walk *w, int64_t request, int64_t position, int64_t row) {
    const hm_tensor *k = &w->a->dst_k, *scale = &w->a->dst_scale, *table = &w->a->block_table;
    int64_t block_size = w->v->page == PAGE_OF_64 ? 64 : w->c.block_size, index = position / block_size,
            offset = position % block_size, block;
    if (w->v->page == PAGE_OF_FIRST_CHUNK && index > 0) index--;
    if (w->v->page == PAGE_TABLE_IGNORED) block = index;
    else {
        int64_t r = w->v->page == PAGE_REQUEST_0 ? 0 : request;
        int64_t at = w->v->page == PAGE_TABLE_DENSE ? r * table->shape[1] + index
                                                    : r * table->stride[0] + index * table->stride[1];
        if (w->v->page == PAGE_ROW_INT32) at = hm_fault_in_int32(at);
        int32_t raw;
        hm_fault_load_raw(table, at, &raw);
        block = raw;
    }
    int64_t step = w->v->rows == ROWS_UNIT ? 1 : k->stride[1], extra = w->v->rows == ROWS_ONE_PAST,
            base = row_offset(w, k, row);
    for (int64_t d = 0; d < (w->v->codes == CODES_HALF ? w->c.head_dim / 2 : w->c.head_dim) + extra; d++) {
        uint8_t code = changed(w, byte_at(w, block, code_byte(w, offset, d)));
        hm_fault_store_raw(k, base + d * step, HM_FAULT_SLACK, &code);
    }
    if (w->v->scales == SCALES_NOT_WRITTEN) return;
    int64_t width = (int64_t)hm_dtype_size(scale->dtype), n = 4 * w->c.groups / width;
    for (int64_t i = 0; i < (w->v->scales == SCALES_FIRST_GROUP ? n / w->c.groups : n); i++) {
        uint8_t bytes[4];
        int64_t o = w->v->scales == SCALES_OF_TOKEN_0 || w->v->layout == LAYOUT_FIRST_TOKEN ? 0
                    : w->v->scales == SCALES_REVERSED ? w->c.block_size - 1 - offset
                                                      : offset;
        int64_t first =
            w->v->layout == LAYOUT_ENTRIES ? o * w->c.entry + w->c.head_dim : hm_indexer_scale_byte(&w->c, o, 0);
        if (w->v->scales == SCALES_AS_BYTES) first = w->c.block_size * w->c.head_dim + o;
        for (int64_t j = 0; j < width; j++) bytes[j] = byte_at(w, block, first + i * width + j);
        if (w->v->scales == SCALES_DEQUANTISED)
            memcpy(bytes, (const uint8_t[4]){0, 0, 0x80, 0x3F} + (width == 1 ? i % 4 : 0), (size_t)width);
        hm_fault_store_raw(scale, row_offset(w, scale, row) + i * scale->stride[1], HM_FAULT_SLACK, bytes);
    }
}

static void pad_row(const walk *w, int64_t row) {
    const hm_tensor *k = &w->a->dst_k;
    uint8_t zero = 0;
    for (int64_t d = 0; d < w->c.head_dim; d++) hm_fault_store_raw(k, row * k->stride[0] + d * k->stride[1], 0, &zero);
}

static int64_t bound(const walk *w, int64_t r) {
    const hm_tensor *cu = &w->a->cu_seq_lens;
    int32_t raw;
    hm_fault_load_raw(cu, w->v->request == REQUEST_CU_STRIDE ? r : r * cu->stride[0], &raw);
    return raw;
}

static hm_status run(const void *variation, const void *args, hm_dtype written[HM_MAX_ARGS]) {
    (void)written;
    const variation_t *v = variation;
    hm_cp_gather_indexer_k_quant_cache_args a;
    walk w = {.v = v, .a = &a};
    hm_status status;
    if (hm_fault_checked(OP, v->checks, args, &status)) return status;
    hm_cp_gather_indexer_k_quant_cache_read(args, &a, &w.c);
    int64_t rows = a.dst_k.shape[0], requests = a.block_table.shape[0];
    if (!rows) return v->rows == ROWS_EMPTY_REFUSED ? HM_BAD_SHAPE : HM_OK;
    if (!hm_tensor_elements(&a.kv_cache)) return HM_OK;
    for (int64_t row = 0; row < rows - (v->rows == ROWS_LAST_LEFT); row++) {
        int64_t r = -1;
        while (r < requests &&
               (v->request == REQUEST_BOUND_INCLUSIVE ? row > bound(&w, r + 1) : row >= bound(&w, r + 1)))
            r++;
        if (r < 0 || r >= requests) {
            if (v->rows == ROWS_PADDING_ZEROED) pad_row(&w, row);
            if (v->rows == ROWS_PADDING_LAST && requests > 0) copy_row(&w, requests - 1, 0, row);
            continue;
        }
        int64_t position = v->request == REQUEST_POSITION_ABSOLUTE ? row : row - bound(&w, r);
        if (v->request == REQUEST_EMPTY_COUNTS && r > 0 && bound(&w, r) == bound(&w, r - 1)) position++;
        copy_row(&w, r, position, row);
    }
    return HM_OK;
}

#define FAULT(what, covers, reference, sentence, fix, ...) \
    { OP "." what, OP, covers, reference, sentence, fix, NULL, run, &(const variation_t){__VA_ARGS__}, false }

const hm_fault hm_cp_gather_indexer_k_quant_cache_faults[] = {
    FAULT("other_layout", "D1 indexer.S1b trap.11", "vllm#43781",
          "codes are read in tiles where the writer has rows, or the other way round",
          "take the layout from the same place as the writer", .layout = LAYOUT_OTHER),
    FAULT("always_shuffled", "D1 indexer.S1a indexer.S1c indexer.S1d", "vllm#43781",
          "codes are read in tiles of 16 tokens, in blocks of one token too",
          "blocks that are no multiple of 16 tokens have rows", .layout = LAYOUT_SHUFFLED),
    FAULT("shuffled_at_64_only", "indexer.S1b", "vllm#43781", "tiles are expected only in blocks of 64 tokens",
          "use the declared layout", .layout = LAYOUT_NORMAL_NOT_64),
    FAULT("tiles_of_8", "D5", "DeepGEMM#379", "tiles have 8 tokens", "tiles have 16", .layout = LAYOUT_TILES_OF_8),
    FAULT("tiles_transposed", "D16", "vllm#50084", "codes and tokens of a tile are exchanged",
          "16 codes of a token are neighbours", .layout = LAYOUT_TILES_TRANSPOSED),
    FAULT("token_entries", "trap.8", "", "codes and scale of a token are expected together",
          "all codes of a block come first", .layout = LAYOUT_ENTRIES),
    FAULT("first_token", "D6", "aiter#5591", "the offset in the block is dropped: only its first token is read",
          "add the offset", .layout = LAYOUT_FIRST_TOKEN),
    FAULT("scale_of_first_token", "", "", "every row has the scale of its block's first token", "add the offset",
          .scales = SCALES_OF_TOKEN_0),
    FAULT("first_group_scale", "trap.4", "", "only the first group's scale is copied", "copy all",
          .scales = SCALES_FIRST_GROUP),
    FAULT("scale_not_written", "H14", "sglang#20705", "scales are not copied", "copy them",
          .scales = SCALES_NOT_WRITTEN),
    FAULT("scales_reversed", "D16", "vllm#50085", "the scales of a block are read in reverse order",
          "token o has scale o", .scales = SCALES_REVERSED),
    FAULT("scale_one", "H11", "vllm#42580", "a scale of 1 is written", "copy the scale", .scales = SCALES_DEQUANTISED),
    FAULT("scale_bytes", "H13", "vllm#49435", "scales are expected one byte apart", "they are four bytes",
          .scales = SCALES_AS_BYTES),
    FAULT("block_of_64", "D11", "TensorRT-LLM#16219", "the block size of another configuration", "ask the tensor",
          .page = PAGE_OF_64),
    FAULT("table_ignored", "", "", "block i of a request is taken to be block i of the cache", "look it up",
          .page = PAGE_TABLE_IGNORED),
    FAULT("blocks_of_request_0", "D17", "sglang#12583", "every request reads the blocks of the first",
          "use its own row", .page = PAGE_REQUEST_0),
    FAULT("table_dense", "", "", "the block table is taken to be contiguous", "use its strides",
          .page = PAGE_TABLE_DENSE),
    FAULT("block_stride_ignored", "D8", "vllm#37032", "blocks are taken to be dense", "use the block stride",
          .page = PAGE_STRIDE_DENSE),
    FAULT("offset_int32", "K1", "vllm#47671", "byte offsets wrap in 32 bits", "compute them in 64 bits",
          .page = PAGE_OFFSET_INT32),
    FAULT("table_offset_int32", "K3", "vllm#50427", "offsets into the block table wrap in 32 bits",
          "compute them in 64 bits", .page = PAGE_ROW_INT32),
    FAULT("block_truncated", "K6", "aiter#3062", "block numbers lose their upper bits", "keep them",
          .page = PAGE_NUMBER_TRUNCATED),
    FAULT("previous_block", "D7", "vllm#39303", "past the first block, the block before is read",
          "divide the position by the block size", .page = PAGE_OF_FIRST_CHUNK),
    FAULT("bound_inclusive", "D17", "sglang#12582", "the first row of a request is given to the one before",
          "cu[r] <= n < cu[r+1]", .request = REQUEST_BOUND_INCLUSIVE),
    FAULT("position_absolute", "D17", "sglang#11629", "positions are not counted from the request's first row",
          "subtract cu[r]", .request = REQUEST_POSITION_ABSOLUTE),
    FAULT("empty_request_counts", "J6", "DeepGEMM#353", "an empty request shifts the next by one", "count its rows",
          .request = REQUEST_EMPTY_COUNTS),
    FAULT("cu_stride_ignored", "", "", "cu_seq_lens is taken to be contiguous", "use its stride",
          .request = REQUEST_CU_STRIDE),
    FAULT("padding_zeroed", "trap.6", "", "rows of no request are cleared", "leave them", .rows = ROWS_PADDING_ZEROED),
    FAULT("padding_of_last", "trap.6", "", "rows of no request are filled from the last request", "leave them",
          .rows = ROWS_PADDING_LAST),
    FAULT("last_row_left", "", "", "the last row is left out", "fix the bound", .rows = ROWS_LAST_LEFT),
    FAULT("rows_dense", "", "", "outputs are written as if they were contiguous", "use the strides",
          .rows = ROWS_DENSE),
    FAULT("rows_unit_stride", "", "", "codes of a row are written as if they were neighbours", "use the stride",
          .rows = ROWS_UNIT),
    FAULT("rows_int32", "K4", "fla#1080", "offsets of the outputs wrap in 32 bits", "compute them in 64 bits",
          .rows = ROWS_INT32),
    FAULT("one_past", "", "", "one code past the end of a row is written", "fix the bound", .rows = ROWS_ONE_PAST),
    FAULT("empty_refused", "J5", "sglang#32065", "a call without rows is refused", "return ok",
          .rows = ROWS_EMPTY_REFUSED),
    FAULT("half_of_row", "E1", "vllm#37892", "half of the codes of a row are copied", "copy all", .codes = CODES_HALF),
    FAULT("nan_lost", "", "", "NaN codes become the largest value", "copy bits", .codes = CODES_NAN_LOST),
    FAULT("negative_zero_lost", "", "", "the code 0x80 becomes 0", "copy bits", .codes = CODES_NEGATIVE_ZERO_LOST),
    FAULT("converted_to_fnuz", "H9", "vllm#52109", "codes are converted to the other e4m3 format", "copy bits",
          .codes = CODES_FN_TO_FNUZ),
    FAULT("value_not_checked", "", "", "bounds or blocks that are not there are taken without an error", "check them",
          .checks = HM_CHECKS_NOT_VALUE),
    HM_CHECK_FAULTS(FAULT),
};
const int hm_cp_gather_indexer_k_quant_cache_fault_count =
    sizeof hm_cp_gather_indexer_k_quant_cache_faults / sizeof *hm_cp_gather_indexer_k_quant_cache_faults;
