/* layer_norm.h: what every implementation calls first. */
#ifndef HM_OP_LAYER_NORM_H
#define HM_OP_LAYER_NORM_H

#include <hallmark/layer_norm.h>
#include <hallmark/op.h>

/* The caller's struct completed and checked. */
hm_status hm_layer_norm_read(const hm_layer_norm_args *args, hm_layer_norm_args *full);

#endif
