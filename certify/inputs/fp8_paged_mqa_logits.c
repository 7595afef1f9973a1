/* Requests of mixed lengths, some with fewer keys than tokens; a cache of legal codes and scales, and blocks that no
 * request has hold NaN. */
#include <hallmark/fp8_paged_mqa_logits.h>
#include <string.h>

#include "../../op/dtype.h"
#include "../../op/indexer_cache.h"
#include "../inputs.h"
#include "../layout.h"
#include "logits.h"

static void put_lengths(const hm_case_spec *spec, const hm_fp8_paged_mqa_logits_args *a, const hm_tensor *t) {
    int64_t next_n = a->q.shape[1], room = a->kv_cache.shape[1] * a->block_tables.shape[1], width = a->logits.shape[1],
            n = hm_tensor_elements(t);
    int64_t most = room < width ? room : width,
            bad = hm_inputs_generator(spec, "out_of_range") ? hm_inputs_below(spec, "bad", 0, n) : -1;
    const int64_t known[] = {most, next_n - 1, 1, most - 1, 0, next_n, a->kv_cache.shape[1], a->kv_cache.shape[1] + 1};
    for (int64_t i = 0; i < n; i++) {
        uint64_t r = hm_inputs_drawn(spec, "length", (uint64_t)i);
        int64_t length =
            i % 2 ? (int64_t)(r % (uint64_t)(most + 1)) : known[(uint64_t)(i / 2 + (int64_t)(spec->seed % 8)) % 8];
        if (hm_inputs_whole(spec) || hm_inputs_generator(spec, "stagnate")) length = most;
        if (length > most) length = most;
        if (i == bad && r % 2) length = most + 1;
        hm_inputs_put(t, i, length);
    }
}

/* Most blocks that a row of request b asks for. */
static int64_t blocks_of(const hm_fp8_paged_mqa_logits_args *a, int64_t b) {
    int64_t most = 0, each = a->context_lens.ndim == 2 ? a->context_lens.shape[1] : 1;
    for (int64_t j = 0; j < each; j++) {
        int64_t n = hm_inputs_get(&a->context_lens, b * each + j);
        most = n > most ? n : most;
    }
    return a->kv_cache.shape[1] > 0 ? (most + a->kv_cache.shape[1] - 1) / a->kv_cache.shape[1] : 0;
}

static void put_cache(const hm_case_spec *spec, const hm_fp8_paged_mqa_logits_args *a, const hm_tensor *t) {
    int64_t codes = t->shape[1] * 128, block = t->shape[1] * t->shape[2];
    bool integers = hm_inputs_generator(spec, "integers"), stagnates = hm_inputs_generator(spec, "stagnate"),
         heavy = hm_inputs_generator(spec, "heavy");
#pragma omp parallel for schedule(static) if (t->stride[0] >= block && t->shape[0] * block > HM_ALONE)
    for (int64_t b = 0; b < t->shape[0]; b++)
        for (int64_t i = 0; i < block; i++) {
            uint64_t r = hm_inputs_drawn(spec, "kv_cache", (uint64_t)(b * block + i));
            double sum = 0;
            for (int k = 0; k < 4; k++) sum += (double)(r >> 16 * k & 0xFFFF) - 32767.5;
            double v = integers ? (double)(r % 17) - 8 : heavy && r % 64 == 0 ? sum / 512 : sum / 8192;
            if (i < codes) {
                hm_inputs_put(t, b * block + i, hm_store8(a->q.dtype, v, HM_OVERFLOW_SATURATE));
                continue;
            }
            if ((i - codes) % 4) continue;
            uint64_t s = hm_inputs_drawn(spec, "scale", (uint64_t)(b * t->shape[1] + (i - codes) / 4));
            float scale =
                integers || stagnates || s % 2 ? 0.25f * (float)(1 << s / 2 % 4) : (float)(1 + s / 2 % 1000) / 512;
            uint8_t bytes[4];
            memcpy(bytes, &scale, sizeof scale);
            for (int k = 0; k < 4 && i + k < block; k++) hm_inputs_put(t, b * block + i + k, bytes[k]);
        }
}

static bool fill(const hm_case_spec *spec, int arg, const void *args) {
    const hm_fp8_paged_mqa_logits_args *a = args;
    const char *name = spec->op->args[arg].name;
    const hm_tensor *t = hm_arg_tensor(spec->op, args, arg);
    bool sound = a->q.ndim == 4 && a->kv_cache.ndim == 3 && a->block_tables.ndim == 2 && a->logits.ndim == 2 &&
                 a->context_lens.dtype == HM_I32 && (a->context_lens.ndim == 1 || a->context_lens.ndim == 2);
    if (!strcmp(name, "q") && sound) return hm_inputs_stagnate_codes(spec, t, a->q.shape[2]);
    if (!strcmp(name, "weights")) return hm_inputs_stagnate_weights(spec, t);
    if (!strcmp(name, "context_lens")) {
        if (sound) put_lengths(spec, a, t);
        return true;
    }
    if (!strcmp(name, "block_tables")) {
        for (int64_t b = 0; sound && t->dtype == HM_I32 && b < t->shape[0] && b < a->context_lens.shape[0]; b++) {
            int64_t used = blocks_of(a, b);
            hm_inputs_put_blocks(spec, name, t, b, b * used, used, a->kv_cache.shape[0]);
            if (hm_inputs_generator(spec, "out_of_range") && used > 0 && used <= t->shape[1])
                hm_inputs_put(t, b * t->shape[1], b % 2 ? -1 : a->kv_cache.shape[0]);
        }
        return true;
    }
    if (strcmp(name, "kv_cache")) return false;
    if (!sound || t->dtype != HM_U8) return true;
    put_cache(spec, a, t);
    hm_inputs_stagnate_cache(spec, t, a->layout, a->q.dtype);
    return true;
}

const hm_inputs hm_fp8_paged_mqa_logits_inputs = {"fp8_paged_mqa_logits", fill, NULL, 1 << HM_LENGTHS_WHOLE};
