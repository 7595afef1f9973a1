/* device.h: memory of a device, for the judge's worker: address ranges with memory behind parts of them, so that what
 * reaches further is caught, and tensors whose strides pass 2^31 fit. */
#ifndef HM_DEVICE_H
#define HM_DEVICE_H

#include <hallmark/op.h>

typedef struct {
    int64_t from, to; /* bytes [from, to) */
} hm_extent;

typedef struct {
    char *base;  /* device address of byte 0 */
    size_t size; /* bytes; nothing within 2 MiB behind them may be touched, or before them, one of the two exactly */
    void *state;
} hm_device_buffer;

typedef struct {
    /* Makes the device ready; about: its name and driver. HM_OK, or HM_NO_DEVICE and hm_error(). */
    hm_status (*open)(char *about, size_t size);
    /* Memory behind the extents, which are ascending. false: none is left. */
    bool (*make)(hm_device_buffer *b, size_t size, const hm_extent *extents, int count);
    void (*free)(hm_device_buffer *b);
    /* true, or false once the device has failed. */
    bool (*to_device)(void *to, const void *from, size_t bytes);
    bool (*to_host)(void *to, const void *from, size_t bytes);
    /* Waits for all that was launched. false: it failed; a sentence in why, and nothing more can be done here. */
    bool (*finish)(char *why, size_t size);
} hm_device;

/* NULL in a build without CUDA. */
const hm_device *hm_device_cuda(void);

#endif
