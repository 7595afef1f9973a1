/* Slots that are distinct, a cache that holds something already, and latents that try each tile's scale. Generator
 * out_of_range: one slot is none of the cache, or, with an even seed, all are distinct but for the last, which is the
 * first again. */
#include <hallmark/concat_and_cache_mla.h>
#include <math.h>
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

/* Pairs of a largest magnitude and an element of f16: the element over amax / 448 is a tie between two codes, so that
 * it shows when a scale from amax * (1 / 448) is divided by with a product. */
static const double hard[][2] = {{1736, 589}, {1736, 713}, {1736, 837}, {1540, 1045}, {1540, 1265}, {1540, 1485}};

static void change_tile(const hm_case_spec *spec, const hm_tensor *t, int64_t token, int64_t tile) {
    static const double largest[] = {448, 7, 28, 0x7p-3, 336, 0x7p-9};
    uint64_t r = hm_inputs_drawn(spec, "kv_c", (uint64_t)(token * HM_MLA_TILES + tile));
    int64_t at_top = (int64_t)(r / 64 % HM_MLA_TILE), size = (int64_t)hm_dtype_size(t->dtype);
    bool is_hard = t->dtype == HM_F16 && r & 2, sparse = hm_inputs_generator(spec, "sparse");
    double top = largest[r / 8 % 6] * (t->dtype == HM_BF16 && r & 2 ? 0x1p-30 : 1);
    if (r % 2) return; /* every second tile is as the generator has it */
    if (r & 4) top = hm_next_up(t->dtype, top);
    if (is_hard) top = hard[r / 8 % 6][0];
    for (int64_t d = 0; d < HM_MLA_TILE; d++) {
        char *at = (char *)t->data + hm_view_offset(t, token * HM_MLA_LATENT + tile * HM_MLA_TILE + d) * size;
        double v = hm_load(t->dtype, at);
        if (sparse) v = r & 4 ? copysign(0, v) : v * 0x1p-20;
        else if (d == at_top) v = top;
        else if (is_hard && d % 2) v = copysign(hard[r / 8 % 6][1], v);
        else if (!(v > -top && v < top)) v = top / 2;
        hm_store(t->dtype, at, v);
    }
}

/* fp8_ds_mla, every second tile: with sparse all zeros, or far smaller; with ties the largest magnitude is 448 or
 * 7 * 2^k, so that the scale is a power of two already, or the next value of T, or one of the hard ones. Rope parts:
 * with sparse some zeros are negative. */
static void after(const hm_case_spec *spec, int arg, const void *args) {
    const hm_tensor *t = hm_arg_tensor(spec->op, args, arg);
    const char *name = spec->op->args[arg].name;
    bool sparse = hm_inputs_generator(spec, "sparse"), ties = hm_inputs_generator(spec, "ties");
    bool halves = t->dtype == HM_F16 || t->dtype == HM_BF16;
    if (t->ndim != 2 || !halves || (!sparse && !ties)) return;
    if (!strcmp(name, "k_pe") && sparse)
        for (int64_t i = 0; i < hm_tensor_elements(t); i += 7)
            hm_store(t->dtype, (char *)t->data + hm_view_offset(t, i) * 2, -0.0);
    if (strcmp(name, "kv_c") || !hm_inputs_param(spec, "format") || t->shape[1] != HM_MLA_LATENT) return;
    for (int64_t n = 0; n < t->shape[0]; n++)
        for (int64_t tile = 0; tile < HM_MLA_TILES; tile++) change_tile(spec, t, n, tile);
}

const hm_inputs hm_concat_and_cache_mla_inputs = {"concat_and_cache_mla", fill, after, 0};
