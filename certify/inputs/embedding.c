/* Token ids of every kind: the first and the last of the vocabulary, both sides of both ends of a rank's part, those
 * that differ in their upper bits alone, any. */
#include <hallmark/embedding.h>
#include <string.h>

#include "../inputs.h"

static int64_t id_drawn(const hm_case_spec *spec, const hm_embedding_args *a, int64_t i, int64_t n, int64_t vocab) {
    int64_t start = a->vocab_start, rows = a->table.ndim == 2 ? a->table.shape[0] : 0;
    if (hm_inputs_generator(spec, "out_of_range") && i == hm_inputs_below(spec, "bad", 0, n)) {
        static const int64_t low_bits = INT64_C(1) << 32;
        const int64_t bad[] = {-1, vocab, vocab + low_bits, INT64_MIN, INT64_MAX, low_bits, -vocab};
        int64_t v = bad[spec->seed % 7];
        if (a->ids.dtype == HM_I32 && (v > INT32_MAX || v < INT32_MIN)) v = vocab < INT32_MAX ? vocab : -1;
        return v ? v : -1;
    }
    if (hm_inputs_generator(spec, "zero")) return 0;
    uint64_t r = hm_inputs_drawn(spec, "ids", (uint64_t)i);
    const int64_t known[] = {
        0, vocab - 1, start, start + rows - 1, start - 1, start + rows, 255, 256, vocab - 65536, 65536, 65535};
    int64_t v = known[(uint64_t)i / 2 % 11];
    bool random = i % 2 == 0 || hm_inputs_generator(spec, "index") || v < 0 || v >= vocab;
    return random ? (int64_t)(r % (uint64_t)(vocab > 0 ? vocab : 1)) : v;
}

static bool fill(const hm_case_spec *spec, int arg, const void *args) {
    const hm_embedding_args *a = args;
    const hm_tensor *t = hm_arg_tensor(spec->op, args, arg);
    if (strcmp(spec->op->args[arg].name, "ids") || (t->dtype != HM_I64 && t->dtype != HM_I32)) return false;
    int64_t rows = a->table.ndim == 2 && a->table.shape[0] > 0 ? a->table.shape[0] : 0, n = hm_tensor_elements(t);
    int64_t vocab = a->vocab_size > 0                                          ? a->vocab_size
                    : a->vocab_start > 0 && a->vocab_start <= INT64_C(1) << 53 ? a->vocab_start + rows
                                                                               : rows;
    if (t->dtype == HM_I32 && vocab > INT32_MAX) vocab = INT32_MAX;
    for (int64_t i = 0; i < n; i++) hm_inputs_put(t, i, id_drawn(spec, a, i, n, vocab));
    return true;
}

const hm_inputs hm_embedding_inputs = {"embedding", fill, NULL, 0};
