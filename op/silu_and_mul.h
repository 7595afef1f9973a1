/* silu_and_mul.h: the arguments, read and checked. */
#ifndef HM_SILU_AND_MUL_H
#define HM_SILU_AND_MUL_H

#include <hallmark/silu_and_mul.h>

hm_status hm_silu_and_mul_read(const hm_silu_and_mul_args *args, hm_silu_and_mul_args *full);

#endif
