#include "indexer_cache.h"

#include <string.h>

#include "../../op/check.h"
#include "../../op/dtype.h"
#include "../../op/fp8.h"

/* Sums of uniforms: most codes lie in the upper octaves, as those of quantised keys do, some are subnormal or 0. */
static uint8_t code_drawn(hm_dtype codes, uint64_t drawn) {
    double sum = 0, most = hm_dtype_max(codes);
    for (int i = 0; i < 4; i++) sum += (double)(drawn >> (16 * i) & 0xFFFF) / 0x1p16 - 0.5;
    int shift = (drawn & 7) == 0 ? (int)(drawn >> 3 & 15) : 0;
    return hm_store8(codes, sum / 2 * most * hm_two_to(-shift), HM_OVERFLOW_SATURATE);
}

static float scale_drawn(uint64_t drawn, bool power_of_two) {
    double S = hm_two_to((int)(drawn % 9) - 8); /* 2^-8 to 1 */
    return (float)(power_of_two ? S : S * (1 + (double)(drawn >> 41) / 0x1p23));
}

bool hm_inputs_fill_cache(const hm_case_spec *spec, const char *name, const hm_tensor *t, int64_t head_dim,
                          hm_cache_layout layout, hm_cache_codes codes, bool powers_of_two) {
    hm_indexer_cache c;
    if (!t->data || hm_indexer_cache_check("", name, t, head_dim, "", (int)layout, &c)) return false;
    hm_dtype F = hm_indexer_cache_codes(codes);
    bool zero = hm_inputs_generator(spec, "zero"), bits = hm_inputs_generator(spec, "bits");
    for (int64_t b = 0; b < c.blocks; b++)
        for (int64_t o = 0; o < c.block_size; o++) {
            uint64_t slot = (uint64_t)(b * c.block_size + o), entry = (uint64_t)(c.head_dim + c.groups);
            for (int64_t d = 0; d < c.head_dim; d++) {
                uint64_t drawn = hm_inputs_drawn(spec, name, slot * entry + (uint64_t)d);
                *hm_indexer_cache_code(&c, b, o, d) = bits ? (uint8_t)drawn : zero ? 0 : code_drawn(F, drawn);
            }
            for (int64_t g = 0; g < c.groups; g++) {
                uint64_t drawn = hm_inputs_drawn(spec, name, slot * entry + (uint64_t)(c.head_dim + g));
                float S = scale_drawn(drawn, powers_of_two);
                memcpy(hm_indexer_cache_scale(&c, b, o, g), bits ? (const void *)&drawn : (const void *)&S, sizeof S);
            }
        }
    return true;
}
