/* Windows: empty ones, shorter than k, k, k + 1, whole rows, anything between; what lies outside would win. With the
 * generator `zero` every second row is -inf but for one column in 16. */
#include <hallmark/top_k_per_row.h>
#include <math.h>
#include <string.h>

#include "../../op/dtype.h"
#include "../inputs.h"

static int64_t length_drawn(const hm_case_spec *spec, int64_t i, int64_t columns, int64_t k) {
    const int64_t known[] = {columns, k + 1, k, columns, 0, k - 1, 1, 2 * k, columns - 1};
    uint64_t r = hm_inputs_drawn(spec, "length", (uint64_t)i);
    int64_t n =
        r % 3 ? known[(uint64_t)(i + (int64_t)(spec->seed % 64)) % 9] : (int64_t)(r / 3 % (uint64_t)(columns + 1));
    if (hm_inputs_whole(spec) || (i == 0 && columns > 4096)) n = columns;
    return n < 0 ? 0 : n > columns ? columns : n;
}

static bool fill(const hm_case_spec *spec, int arg, const void *args) {
    const hm_top_k_per_row_args *a = args;
    const char *name = spec->op->args[arg].name;
    const hm_tensor *t = hm_arg_tensor(spec->op, args, arg);
    if (!strcmp(name, "logits")) return false;
    bool ends = !strcmp(name, "row_ends"), lens = !strcmp(name, "seq_lens");
    if (t->ndim != 1 || a->logits.ndim != 2 || a->indices.ndim != 2) return true;
    int64_t columns = a->logits.shape[1], k = a->indices.shape[1];
    int64_t bad = hm_inputs_generator(spec, "out_of_range") ? hm_inputs_below(spec, "bad", 0, t->shape[0]) : -1;
    for (int64_t i = 0; i < t->shape[0]; i++) {
        int64_t n = length_drawn(spec, i, columns, k);
        int64_t start = i % 2 ? hm_inputs_below(spec, "start", (uint64_t)i, columns - n + 1) : 0;
        int64_t v = lens ? n : ends ? start + n : start;
        if (ends && n == 0 && start > 2) v -= 3; /* ends before it starts */
        if (i == bad)
            v = ends || lens ? columns + 1 + (spec->seed % 2 ? INT64_C(1) << 20 : 0) : spec->seed % 2 ? -1 : v;
        hm_inputs_put(t, i, v);
    }
    return true;
}

static void after(const hm_case_spec *spec, int arg, const void *args) {
    const hm_top_k_per_row_args *a = args;
    const hm_tensor *t = &a->logits;
    if (strcmp(spec->op->args[arg].name, "logits") || t->dtype != HM_F32 || spec->op->check(args)) return;
    static const double garbage[] = {NAN, INFINITY, 3e38, 1e30};
    int64_t next_n = a->next_n ? a->next_n : 1;
    for (int64_t r = 0; r < t->shape[0]; r++) {
        bool decode = a->seq_lens.dtype != HM_DTYPE_NONE;
        int64_t start = decode ? 0 : hm_inputs_get(&a->row_starts, r);
        int64_t end =
            decode ? hm_inputs_get(&a->seq_lens, r / next_n) - next_n + r % next_n + 1 : hm_inputs_get(&a->row_ends, r);
        bool masked = hm_inputs_generator(spec, "zero") && r % 2; /* fewer than k that are not -inf */
        for (int64_t c = 0; c < t->shape[1] && masked; c++)
            if (c % 16) hm_store(HM_F32, (char *)t->data + (r * t->stride[0] + c * t->stride[1]) * 4, -INFINITY);
        for (int64_t c = 0; c < t->shape[1]; c++)
            if (c < start || c >= end)
                hm_store(HM_F32, (char *)t->data + (r * t->stride[0] + c * t->stride[1]) * 4, garbage[(r + c) % 4]);
    }
}

const hm_inputs hm_top_k_per_row_inputs = {"top_k_per_row", fill, after, 1 << HM_LENGTHS_WHOLE};
