/* quant_fp8_group.h: the call completed and checked. */
#ifndef HM_OP_QUANT_FP8_GROUP_H
#define HM_OP_QUANT_FP8_GROUP_H

#include <hallmark/quant_fp8_group.h>

/* What is 0 in args has its default in full; divisor and floor are narrowed to f32. */
hm_status hm_quant_fp8_group_read(const hm_quant_fp8_group_args *args, hm_quant_fp8_group_args *full);

#endif
