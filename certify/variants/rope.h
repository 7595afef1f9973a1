/* rope.h: the variants of rotary_embedding and concat_mla_q. */
#ifndef HM_VARIANTS_ROPE_H
#define HM_VARIANTS_ROPE_H

#include "../faults.h"

extern const hm_variant hm_rotary_embedding_variants[], hm_concat_mla_q_variants[];
extern const int hm_rotary_embedding_variant_count, hm_concat_mla_q_variant_count;

#endif
