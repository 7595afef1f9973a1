/* case_print.h: the canonical line of a case. */
#ifndef HM_CASE_PRINT_H
#define HM_CASE_PRINT_H

#include "case.h"

extern const char
    *const hm_broken_names[]; /* in the order of hm_case_spec.broken; the first is empty; NULL-terminated */

/* The strides that an argument has when the line is silent: those of what it lies on, or contiguous. */
void hm_case_stride(const hm_case_spec *spec, int arg, int64_t *stride);
/* Fills spec->line from the rest; false if it does not fit. */
bool hm_case_print(hm_case_spec *spec);

#endif
