#include "inputs.h"

#include <Random123/philox.h>
#include <string.h>

#include "generators.h"
#include "layout.h"

extern const hm_inputs hm_layer_norm_inputs, hm_embedding_inputs, hm_linear_inputs, hm_silu_and_mul_inputs,
    hm_concat_and_cache_mla_inputs, hm_sparse_mla_decode_inputs, hm_mla_prefill_inputs,
    hm_indexer_k_quant_and_cache_inputs, hm_cp_gather_indexer_k_quant_cache_inputs, hm_index_weights_inputs,
    hm_fp8_mqa_logits_inputs, hm_fp8_paged_mqa_logits_inputs, hm_top_k_per_row_inputs, hm_translate_indices_inputs,
    hm_indexer_inputs;

static const hm_inputs *const inputs[] = {
    &hm_layer_norm_inputs,
    &hm_embedding_inputs,
    &hm_linear_inputs,
    &hm_silu_and_mul_inputs,
    &hm_concat_and_cache_mla_inputs,
    &hm_sparse_mla_decode_inputs,
    &hm_mla_prefill_inputs,
    &hm_indexer_k_quant_and_cache_inputs,
    &hm_cp_gather_indexer_k_quant_cache_inputs,
    &hm_index_weights_inputs,
    &hm_fp8_mqa_logits_inputs,
    &hm_fp8_paged_mqa_logits_inputs,
    &hm_top_k_per_row_inputs,
    &hm_translate_indices_inputs,
    &hm_indexer_inputs,
};

const hm_inputs *hm_inputs_of(const hm_op_info *op) {
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        if (!strcmp(inputs[i]->op, op->name)) return inputs[i];
    return NULL;
}

uint64_t hm_inputs_drawn(const hm_case_spec *spec, const char *name, uint64_t index) {
    philox4x32_ctr_t counter = {
        {(uint32_t)index, (uint32_t)(index >> 32), hm_hash_name(name), hm_hash_name(spec->generator)}};
    philox4x32_key_t key = {{(uint32_t)spec->seed, (uint32_t)(spec->seed >> 32)}};
    philox4x32_ctr_t r = philox4x32(counter, key);
    return (uint64_t)r.v[0] << 32 | r.v[1];
}

int64_t hm_inputs_below(const hm_case_spec *spec, const char *name, uint64_t index, int64_t n) {
    return n < 1 ? 0 : (int64_t)(hm_inputs_drawn(spec, name, index) % (uint64_t)n);
}

void hm_inputs_permutation(const hm_case_spec *spec, const char *name, int64_t n, int64_t *to) {
    for (int64_t i = 0; i < n; i++) to[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = hm_inputs_below(spec, name, (uint64_t)i, i + 1), kept = to[i];
        to[i] = to[j], to[j] = kept;
    }
}

double hm_inputs_param(const hm_case_spec *spec, const char *name) {
    for (int i = 0; i < spec->op->nparams; i++)
        if (!strcmp(spec->op->params[i].name, name)) return spec->param[i];
    return 0;
}

bool hm_inputs_whole(const hm_case_spec *spec) {
    return spec->lengths == HM_LENGTHS_WHOLE || hm_inputs_generator(spec, "index");
}

bool hm_inputs_generator(const hm_case_spec *spec, const char *name) { return !strcmp(spec->generator, name); }

static char *element(const hm_tensor *t, int64_t index) {
    return (char *)t->data + hm_view_offset(t, index) * (int64_t)hm_dtype_size(t->dtype);
}

void hm_inputs_put(const hm_tensor *t, int64_t index, int64_t value) {
    if (t->dtype == HM_I64) memcpy(element(t, index), &value, sizeof value);
    else if (t->dtype == HM_I32) memcpy(element(t, index), &(int32_t){(int32_t)value}, sizeof(int32_t));
    else if (t->dtype == HM_U8) *element(t, index) = (char)(unsigned char)value;
}

int64_t hm_inputs_get(const hm_tensor *t, int64_t index) {
    int32_t i32 = 0;
    int64_t i64 = 0;
    if (t->dtype == HM_I64) memcpy(&i64, element(t, index), sizeof i64);
    else if (t->dtype == HM_I32) memcpy(&i32, element(t, index), sizeof i32), i64 = i32;
    else if (t->dtype == HM_U8) i64 = *(unsigned char *)element(t, index);
    return i64;
}

void hm_inputs_put_bytes(const hm_case_spec *spec, const char *name, const hm_tensor *t) {
    int64_t n = hm_tensor_elements(t), size = (int64_t)hm_dtype_size(t->dtype);
    uint64_t bits = 0;
    for (int64_t i = 0; i < n; i++) {
        if (i % (8 / size) == 0) bits = hm_inputs_drawn(spec, name, (uint64_t)i);
        memcpy(element(t, i), &bits, (size_t)size);
        bits = size < 8 ? bits >> 8 * size : 0;
    }
}

static int64_t gcd(int64_t a, int64_t b) {
    while (b) {
        int64_t rest = a % b;
        a = b, b = rest;
    }
    return a;
}

/* Place k of an order of 0..n-1 that the seed decides: steps of a number coprime to n. */
static int64_t mixed(const hm_case_spec *spec, const char *name, int64_t k, int64_t n) {
    int64_t step = 1 + hm_inputs_below(spec, name, UINT64_MAX, n),
            shift = hm_inputs_below(spec, name, UINT64_MAX - 1, n);
    while (gcd(n, step) != 1) step++;
    return (int64_t)(((unsigned __int128)k * (uint64_t)step + (uint64_t)shift) % (uint64_t)n);
}

double hm_inputs_stagnate(int64_t row, int64_t d, int64_t n, double large, double small) {
    if (row < 0) return d == 0 || d == n - 1 ? large : small;
    if (d == (row % 2 ? n - 1 : 0)) return large;
    return d == 0 || d == n - 1 ? 0 : row % 4 < 2 ? small : small * 1.875;
}

void hm_inputs_put_slots(const hm_case_spec *spec, const char *name, const hm_tensor *t, int64_t capacity) {
    int64_t n = hm_tensor_elements(t);
    int64_t bad = hm_inputs_generator(spec, "out_of_range") ? hm_inputs_below(spec, name, UINT64_MAX - 2, n) : -1;
    static const int64_t negative[] = {-1, -1, INT64_MIN, -2, INT32_MIN};
    for (int64_t i = 0; i < n; i++) {
        uint64_t r = hm_inputs_drawn(spec, name, (uint64_t)i);
        bool padded =
            (r % 8 == 0 && !hm_inputs_generator(spec, "index")) || hm_inputs_generator(spec, "zero") || i >= capacity;
        int64_t slot = padded ? negative[r / 8 % 5] : mixed(spec, name, i, capacity);
        if (i == bad) slot = r % 3 == 0 ? capacity : r % 3 == 1 ? INT64_MAX : capacity + (INT64_C(1) << 32);
        hm_inputs_put(t, i, slot);
    }
}

void hm_inputs_put_blocks(const hm_case_spec *spec, const char *name, const hm_tensor *t, int64_t row, int64_t first,
                          int64_t used, int64_t num_blocks) {
    int64_t width = t->shape[1];
    for (int64_t b = 0; b < width; b++) {
        bool live = b < used && num_blocks > 0;
        hm_inputs_put(t, row * width + b,
                      live ? mixed(spec, name, (first + b) % num_blocks, num_blocks) : HM_INPUTS_POISON);
    }
}
