/* Windows of keys, some empty, some past the last key; scales are positive, and with the generators `integers` and
 * `stagnate` powers of two. */
#include <hallmark/fp8_mqa_logits.h>
#include <math.h>
#include <string.h>

#include "../../op/dtype.h"
#include "../inputs.h"
#include "logits.h"

static bool fill(const hm_case_spec *spec, int arg, const void *args) {
    const hm_fp8_mqa_logits_args *a = args;
    const char *name = spec->op->args[arg].name;
    const hm_tensor *t = hm_arg_tensor(spec->op, args, arg);
    bool ke = !strcmp(name, "ke"), ks = !strcmp(name, "ks");
    if (!strcmp(name, "q") && a->q.ndim == 3) return hm_inputs_stagnate_codes(spec, t, a->q.shape[1]);
    if (!strcmp(name, "k")) return hm_inputs_stagnate_codes(spec, t, 0);
    if (!strcmp(name, "weights")) return hm_inputs_stagnate_weights(spec, t);
    if (!ke && !ks) return false;
    if (t->ndim != 1 || a->k.ndim != 2 || a->logits.ndim != 2) return true;
    int64_t keys = a->k.shape[0], width = a->logits.shape[1];
    bool compressed = a->columns == HM_COLUMNS_COMPRESSED;
    bool all = hm_inputs_whole(spec) || hm_inputs_generator(spec, "stagnate");
    int64_t bad = hm_inputs_generator(spec, "out_of_range") ? hm_inputs_below(spec, "bad", 0, t->shape[0]) : -1;
    for (int64_t m = 0; m < t->shape[0]; m++) {
        uint64_t r = hm_inputs_drawn(spec, "window", (uint64_t)m);
        int64_t start = m % 3 == 0 ? 0 : (int64_t)(r % (uint64_t)(keys + 1)), most = keys - start;
        if (compressed && most > width) most = width;
        int64_t n = m % 4 == 1 ? 0 : m % 4 == 2 ? most : (int64_t)(r / 1024 % (uint64_t)(most + 1));
        if (all) start = 0, n = compressed && keys > width ? width : keys;
        if (spec->lengths == HM_LENGTHS_CAUSAL) start = 0, n = keys - t->shape[0] + m + 1, n = n < 0 ? 0 : n;
        if (spec->lengths == HM_LENGTHS_CAUSAL && compressed && n > width) n = width;
        int64_t end = start + n;
        if (n == 0 && start > 1 && r % 2) end -= 2;             /* ends before it starts */
        if (end == keys && r % 3 == 0 && !compressed) end += 5; /* is clipped */
        if (m == bad) start = compressed ? 0 : -1, end = compressed ? width + 1 : end;
        hm_inputs_put(t, m, ke ? end : start);
    }
    return true;
}

static void after(const hm_case_spec *spec, int arg, const void *args) {
    const hm_tensor *t = hm_arg_tensor(spec->op, args, arg);
    bool stagnates = hm_inputs_generator(spec, "stagnate");
    if (strcmp(spec->op->args[arg].name, "k_scale") || t->dtype != HM_F32 || t->ndim != 1) return;
    for (int64_t i = 0; i < t->shape[0]; i++) {
        char *at = (char *)t->data + i * t->stride[0] * 4;
        double v = fabs(hm_load(HM_F32, at)), power = i % 5 == 4 ? 4 : (double)(1 << i % 5) / 4;
        hm_store(HM_F32, at, hm_inputs_generator(spec, "integers") || stagnates ? power : v);
    }
}

const hm_inputs hm_fp8_mqa_logits_inputs = {"fp8_mqa_logits", fill, after,
                                            1 << HM_LENGTHS_WHOLE | 1 << HM_LENGTHS_CAUSAL};
