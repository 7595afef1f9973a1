/* check.h: what the contracts of all ops check in the same words. Each function returns HM_OK, or a status with the
 * sentence of hm_error() set. */
#ifndef HM_CHECK_H
#define HM_CHECK_H

#include <hallmark/op.h>

/* Sets this thread's hm_error() sentence and returns status. */
hm_status hm_fail(hm_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Copies the caller's struct into full (of size `size`): fields that the caller's struct lacks become zero; fields that
 * this library does not know must be zero. */
hm_status hm_read_args(const char *op, const void *args, void *full, size_t size);

/* Descriptor of a present tensor: data, rank in 1..4, known dtype and place, extents >= 0, and every element's offset
 * fits in int64_t bytes. required: absence is an error; an absent optional tensor is fine. */
hm_status hm_check_tensor(const char *op, const char *name, const hm_tensor *t, bool required);
/* Same shape as the tensor called like_name. */
hm_status hm_check_same_shape(const char *op, const char *name, const hm_tensor *t, const char *like_name,
                              const hm_tensor *like);
/* Rank ndim and, unless want is negative, extent want in dimension d; why: what that extent is. */
hm_status hm_check_extent(const char *op, const char *name, const hm_tensor *t, int ndim, int d, int64_t want,
                          const char *why);
/* All present tensors are in the place of the first one. */
hm_status hm_check_places(const char *op, int n, const char *const *names, const hm_tensor *const *tensors);
/* Output: positive strides, no two elements in the same place. */
hm_status hm_check_distinct(const char *op, const char *name, const hm_tensor *t);
/* Output `out` must not overlap `t`; same_view_allowed: unless it is t itself (data, dtype, shape and strides). */
hm_status hm_check_overlap(const char *op, const char *out_name, const hm_tensor *out, const char *name,
                           const hm_tensor *t, bool same_view_allowed);
/* A mode's value is one of the enum's n values. */
hm_status hm_check_mode(const char *op, const char *name, int value, int n);
/* A scalar that is added under a root: not negative, not NaN, finite once narrowed to f32. */
hm_status hm_check_eps(const char *op, double eps);

bool hm_is_float(hm_dtype dtype); /* f32, f16 or bf16 */
/* Leading dimensions as rows: their number, and the element offset of row `row` (rows counted outermost first). */
int64_t hm_row_count(const hm_tensor *t);
int64_t hm_row_offset(const hm_tensor *t, int64_t row);

#endif
