/* device.h: the model's calls on a device, on copies of their tensors. */
#ifndef HM_EVAL_DEVICE_H
#define HM_EVAL_DEVICE_H

#include <hallmark/op.h>

/* Calls function on copies of the tensors on hm_worker_device, which is open: what it wrote is copied back if it
 * returns HM_OK. Tensors that overlap do so there, too, lie as they do here in 256 bytes, and hold what they hold here;
 * behind each lie as many bytes again that belong to nobody. *lost: the device failed (a sentence in why), and nothing
 * more can be done there. */
hm_status device_call(const hm_op_info *op, hm_op_fn *function, const void *args, bool *lost, char *why, size_t size);

#endif
