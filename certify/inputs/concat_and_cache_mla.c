/* Slots that are distinct, a cache that holds something already, and latents that try each tile's scale. Generator
 * out_of_range: one slot is none of the cache, or, with an even seed, all are distinct but for the last, which is the first
 * again. */
#include <hallmark/concat_and_cache_mla.h>
#include <string.h>

#include "../../op/dtype.h"
#include "../../op/mla_cache.h"
#include "../inputs.h"
#include "../layout.h"

static bool fill(const hm_case_spec *spec, int arg, const void *args) {
    const hm_concat_and_cache_mla_args *a = args;
    const char *name = spec->op->args[arg].name;
    const hm_tensor *t = hm_arg_tensor(spec->op, args, arg);
    if (!strcmp(name, "slot_mapping")) {
        bool sound = a->kv_cache.ndim >= 2 && t->ndim == 1 && t->dtype == HM_I64;
        int64_t capacity = sound ? a->kv_cache.shape[0] * a->kv_cache.shape[1] : 0, last = sound ? t->shape[0] - 1 : 0;
        if (sound) hm_inputs_put_slots(spec, name, t, capacity);
        if (!hm_inputs_generator(spec, "out_of_range") || spec->seed % 2 || last < 1 || capacity <= last) return true;
        for (int64_t i = 0; i < last; i++)
            hm_inputs_put(t, i, last - i); /* descending: not the order that is quick to check */
        hm_inputs_put(t, last, last);
        return true;
    }
    if (strcmp(name, "kv_cache")) return false;
    hm_inputs_put_bytes(spec, name, t);
    return true;
}

/* fp8_ds_mla: a tile of token n, its number and the tile's from the seed, is as large as `hard` says; all others are the
 * generator's. With sparse: all zeros, or below every floor, in turn. With ties: the largest magnitude is 448 or 7 * 2^k, so
 * that the scale is a power of two already, or the next value of T above it. */
static void after(const hm_case_spec *spec, int arg, const void *args) {
    const hm_tensor *t = hm_arg_tensor(spec->op, args, arg);
    bool sparse = hm_inputs_generator(spec, "sparse"), ties = hm_inputs_generator(spec, "ties");
    if (strcmp(spec->op->args[arg].name, "kv_c") || !hm_inputs_param(spec, "format") || t->ndim != 2) return;
    if ((!sparse && !ties) || t->shape[1] != HM_MLA_LATENT || (t->dtype != HM_F16 && t->dtype != HM_BF16)) return;
    static const double largest[] = {448, 7, 28, 0x7p-3, 336, 0x7p-9};
    for (int64_t n = 0; n < t->shape[0]; n++)
        for (int64_t tile = 0; tile < HM_MLA_TILES; tile++) {
            uint64_t r = hm_inputs_drawn(spec, "kv_c", (uint64_t)(n * HM_MLA_TILES + tile));
            if (r % 2) continue;
            double top = largest[r / 8 % 6] * (t->dtype == HM_F16 ? 1 : r & 2 ? 1 : 0x1p-30), v;
            if (r & 4) top = hm_next_up(t->dtype, top);
            for (int64_t d = tile * HM_MLA_TILE; d < (tile + 1) * HM_MLA_TILE; d++) {
                char *at =
                    (char *)t->data + hm_view_offset(t, n * HM_MLA_LATENT + d) * (int64_t)hm_dtype_size(t->dtype);
                v = hm_load(t->dtype, at);
                if (sparse) v = r & 4 ? 0 : v * 0x1p-20;
                else v = d % HM_MLA_TILE == (int64_t)(r / 64 % HM_MLA_TILE) ? top : v > -top && v < top ? v : top / 2;
                hm_store(t->dtype, at, v);
            }
        }
}

const hm_inputs hm_concat_and_cache_mla_inputs = {"concat_and_cache_mla", fill, after};
