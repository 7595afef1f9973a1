/* rms_norm.h: what the ops of the RMSNorm family share. */
#ifndef HM_OP_RMS_NORM_H
#define HM_OP_RMS_NORM_H

#include <hallmark/fused_add_rms_norm.h>
#include <hallmark/op.h>

extern const char *const hm_round_names[], *const hm_weight_form_names[];

/* Each: the caller's struct completed and checked; what every implementation calls first. */
hm_status hm_rms_norm_read(const hm_rms_norm_args *args, hm_rms_norm_args *full);
hm_status hm_fused_add_rms_norm_read(const hm_fused_add_rms_norm_args *args, hm_fused_add_rms_norm_args *full);

/* dtype and shape of x and weight, eps, modes: all that the two ops check alike. */
hm_status hm_check_norm(const char *op, const hm_tensor *x, const hm_tensor *weight, double eps, int round,
                        int weight_form, int64_t variance_size);

#endif
