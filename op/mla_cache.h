/* mla_cache.h: where the bytes of a token are in the paged cache of latent attention, for writer and readers. */
#ifndef HM_OP_MLA_CACHE_H
#define HM_OP_MLA_CACHE_H

#include <hallmark/concat_and_cache_mla.h>

/* fp8_ds_mla: elements, and bytes from the first of an entry. */
enum {
    HM_MLA_LATENT = 512,
    HM_MLA_ROPE = 64,
    HM_MLA_TILE = 128, /* codes with one scale */
    HM_MLA_TILES = HM_MLA_LATENT / HM_MLA_TILE,
    HM_MLA_SCALES_AT = HM_MLA_LATENT,
    HM_MLA_ROPE_AT = HM_MLA_SCALES_AT + 4 * HM_MLA_TILES,
    HM_MLA_ENTRY = HM_MLA_ROPE_AT + 2 * HM_MLA_ROPE /* 656 */
};

typedef struct {
    hm_mla_format format;
    hm_dtype dtype;                                     /* of kv_cache: u8 for HM_MLA_FP8_DS */
    int64_t num_blocks, block_size, entry;              /* entry: elements of a token */
    int64_t block_stride, entry_stride, element_stride; /* bytes */
    unsigned char *data;
} hm_mla_cache;

/* Checks kv_cache against format (a mode that is in range) and describes it. HM_MLA_BF16: any dtype and entry; those
 * are the caller's to compare with what it has. A writer checks that elements are distinct besides. */
hm_status hm_mla_cache_read(const char *op, const hm_tensor *kv_cache, hm_mla_format format, hm_mla_cache *c);

/* Byte offset, from data, of the entry of a slot; 0 <= slot < num_blocks * block_size. */
static inline int64_t hm_mla_row_offset(const hm_mla_cache *c, int64_t slot) {
    return slot / c->block_size * c->block_stride + slot % c->block_size * c->entry_stride;
}
/* First byte of the entry. HM_MLA_BF16: element e is at e * element_stride. HM_MLA_FP8_DS: the bytes are neighbours. */
static inline unsigned char *hm_mla_row(const hm_mla_cache *c, int64_t slot) {
    return c->data + hm_mla_row_offset(c, slot);
}
static inline int hm_mla_scale_byte(int64_t tile) { return HM_MLA_SCALES_AT + 4 * (int)tile; }
static inline int hm_mla_rope_byte(int64_t d) { return HM_MLA_ROPE_AT + 2 * (int)d; }

/* The scale of a tile of an fp8_ds_mla entry. */
float hm_mla_scale_of(const unsigned char *row, int64_t tile);
/* What a reader makes of a scale: S, RN_bf16(S), or 2^floor(log2 S), the exponent field taken alone (so 0, a negative
 * and an f32 subnormal give 2^-127, infinity 2^128; NaN stays). */
double hm_mla_scale_seen(hm_mla_dequant mode, float S);
/* A code's value to that reader: RN_bf16(code * scale seen), from the exact product. */
double hm_mla_dequantised(hm_mla_dequant mode, unsigned char code, float S);

#endif
