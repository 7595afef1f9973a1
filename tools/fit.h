/* fit.h: which modes does a recording follow? */
#ifndef HM_FIT_H
#define HM_FIT_H

#include "../certify/trace.h"
#include "cli.h"

#define HM_MODES_MAX 512 /* bytes of a list of modes as text */

/* The modes of args as text: "round=once weight_form=plain"; those whose bit is set in `only`. */
void hm_modes_text(const hm_op_info *op, const void *args, unsigned only, char *text, size_t size);
void hm_mode_set(const hm_param_info *p, void *args, int value);

/* Judges what was recorded for c with the modes that c has now. exact_dtype: returns false, and judges nothing, if
 * those are illegal for the call or do not give the dtypes that were recorded. */
typedef bool hm_fit_judge(void *context, const hm_trace_call *c, bool exact_dtype, hm_verdict *v);

/* Judges c under every combination of modes. A recording follows those that hold every element in the required class
 * or, if there are none, in the tightest class that any does. text: the modes that have one value only in all that are
 * followed, "any" if none has, "none; nearest ..." if nothing fits; combinations that cannot be told that way are
 * listed: "any of: ...; ...". v: the verdict for the modes that c states; what it does not state is taken from what
 * fits. A failure that says so if the recording follows other modes than the stated ones. */
void hm_fit(hm_trace_call *c, hm_class required, hm_fit_judge *judge, void *context, hm_verdict *v, char *text,
            size_t size);

#endif
