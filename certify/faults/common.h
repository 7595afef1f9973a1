/* common.h: memory and roundings, for the faults of every op. */
#ifndef HM_FAULTS_COMMON_H
#define HM_FAULTS_COMMON_H

#include "../faults.h"

enum { HM_FAULT_SLACK = 8 }; /* elements past an end that a fault may touch: well inside the guard zone */

static inline int64_t hm_fault_least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Addresses that a fault gets wrong stay inside the tensor's own memory: an index outside it is taken modulo its
 * extent, a store there is dropped. So a fault shows as a wrong value or an untouched element and never as a crash of
 * the judge. */
int64_t hm_fault_width(const hm_tensor *t); /* extent of the last dimension */
int64_t hm_fault_rows(const hm_tensor *t);
int64_t hm_fault_row_offset(const hm_tensor *t, int64_t row);
int64_t hm_fault_in_int32(int64_t offset); /* as a kernel that computes it in int sees it */
void *hm_fault_at_offset(const hm_tensor *t, int64_t offset);
double hm_fault_load(const hm_tensor *t, int64_t offset);
void hm_fault_load_row(const hm_tensor *t, int64_t offset, int64_t stride, int64_t n, double *to);
/* Elements that lie outside the tensor by more than slack are dropped. */
void hm_fault_store_row(const hm_tensor *t, int64_t offset, int64_t stride, int64_t n, int64_t slack,
                        const double *from);
/* The stored bits of one element. */
void hm_fault_load_raw(const hm_tensor *t, int64_t offset, void *to);
void hm_fault_store_raw(const hm_tensor *t, int64_t offset, int64_t slack, const void *from);
/* The 16 or 32 bits at the byte offset `byte` of a tensor's memory, read as dtype; wraps at the tensor's end. */
double hm_fault_load_bytes_as(const hm_tensor *t, int64_t byte, hm_dtype dtype);

double hm_fault_toward_zero(hm_dtype t, double v);
double hm_fault_ties_away(hm_dtype t, double v);
double hm_fault_saturated(hm_dtype t, double v);
double hm_fault_flushed(hm_dtype t, double v);

/* Index of a named argument in the description table of op. */
int hm_fault_arg(const char *op, const char *name);
/* A tensor that can be walked without harm, whatever else is wrong with the call: small, and its memory is there. */
bool hm_fault_walkable(const hm_tensor *t, bool integers);

/* ---- checks that are left out ---- */

typedef enum {
    HM_CHECKS_ALL = 0,
    HM_CHECKS_NOT_ARG,
    HM_CHECKS_NOT_SHAPE,
    HM_CHECKS_NOT_STRIDE,
    HM_CHECKS_NOT_DTYPE,
    HM_CHECKS_NOT_PLACE,
    HM_CHECKS_NOT_ALIAS,
    HM_CHECKS_NOT_PARAM,
    HM_CHECKS_NOT_VALUE,
    HM_CHECKS_SILENT, /* nothing is written, and ok is returned */
    HM_CHECKS_LATE    /* the error is returned after the first byte of each output was zeroed */
} hm_fault_checks;
/* Runs op's check. true: the fault ends here and returns *status. */
bool hm_fault_checked(const char *op, hm_fault_checks checks, const void *args, hm_status *status);

/* Rows for a table whose variation has a field `checks`; FAULT as each table defines it. */
#define HM_CHECK_FAULTS(FAULT)                                                                                       \
    FAULT("null_not_checked", "", "", "a missing argument is taken without an error", "check it",                    \
          .checks = HM_CHECKS_NOT_ARG),                                                                              \
        FAULT("shape_not_checked", "", "", "shapes that do not fit are taken without an error", "check them",        \
              .checks = HM_CHECKS_NOT_SHAPE),                                                                        \
        FAULT("stride_not_checked", "", "", "outputs whose elements share memory are taken without an error",        \
              "check the strides", .checks = HM_CHECKS_NOT_STRIDE),                                                  \
        FAULT("dtype_not_checked", "", "", "any dtype is taken without an error", "refuse what the contract lacks",  \
              .checks = HM_CHECKS_NOT_DTYPE),                                                                        \
        FAULT("place_not_checked", "", "", "tensors in another place are taken without an error", "check the place", \
              .checks = HM_CHECKS_NOT_PLACE),                                                                        \
        FAULT("alias_not_checked", "", "", "an output over an input is taken without an error", "check for overlap", \
              .checks = HM_CHECKS_NOT_ALIAS),                                                                        \
        FAULT("errors_swallowed", "", "", "a call that cannot be done returns ok", "return the status",              \
              .checks = HM_CHECKS_SILENT),                                                                           \
        FAULT("checked_late", "", "", "an output is touched before the call is refused", "check first",              \
              .checks = HM_CHECKS_LATE)

#endif
