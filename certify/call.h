/* call.h: a call ready to run: an argument struct whose tensors lie in guarded memory, outputs poisoned, and a pristine
 * copy of every input for golden. Made from a case or from a trace. */
#ifndef HM_CALL_H
#define HM_CALL_H

#include "buffer.h"
#include "case.h"

#define HM_GUARD ((size_t)65536) /* bytes of guard zone on either side of every buffer */
#define HM_POISON 0x7B           /* outputs are pre-filled with this byte: 1.3e36 in bf16 and f32, 61280 in f16 */

typedef struct {
    const hm_op_info *op;
    char name[HM_CASE_MAX];        /* canonical case line, or "FILE call ID" */
    void *args;                    /* op->args_size bytes, never NULL; hand hm_call_args(call) to an implementation */
    void *golden_args;             /* same, but inputs are pristine contiguous copies, and no descriptor is broken */
    hm_tensor tensor[HM_MAX_ARGS]; /* the arguments as they lie in the buffers, before any descriptor is broken */
    hm_buffer buffer[HM_MAX_ARGS];
    int nbuffers;
    int buffer_of[HM_MAX_ARGS]; /* -1: absent or no memory */
    int64_t rows[HM_MAX_ARGS];  /* product of the leading dimensions */
    bool sparse[HM_MAX_ARGS];   /* a large table: only the rows that its index names are there, the rest is memory never
                                   touched */
    int64_t *live[HM_MAX_ARGS]; /* these rows, ascending, for a sparse argument */
    int64_t live_count[HM_MAX_ARGS];
    uint64_t inputs_xxh3; /* over name, dtype, shape and values of all inputs in table order */
    hm_case_spec spec;    /* only if from_case */
    bool from_case;
} hm_call;

/* What an implementation is called with: the argument struct, or NULL for a case with broken=args:null. */
static inline const void *hm_call_args(const hm_call *call) {
    return call->from_case && call->spec.broken_args == HM_ARGS_NULL ? NULL : call->args;
}

/* Builds the call of a case: generates inputs, poisons outputs, fills everything else with a canary pattern.
 * Very large extents (row strides past 2^31) are sparse memory: only what is near an element is touched or checked. So
 * are large tables of which an index names some rows: only these are made, and looked at. HM_NO_MEMORY, or HM_BAD_ARG
 * with a sentence in why. */
hm_status hm_call_from_case(const hm_case_spec *spec, hm_call **call, char *why, size_t size);

/* Builds a call around given arguments (a trace): copies inputs from args (which may have any strides) into guarded
 * memory with the same strides and aliasing: tensors of args whose bytes overlap share a buffer. Outputs (data may be
 * NULL) are allocated and poisoned where no input lies. */
hm_status hm_call_from_args(const hm_op_info *op, const void *args, const char *name, hm_call **call, char *why,
                            size_t size);

void hm_call_free(hm_call *call);

/* Puts inputs, poison and canaries back as they were, so that the call can be run again. */
void hm_call_reset(hm_call *call);
/* The same, only faster, where hm_call_effects has just said that nothing but outputs changed. false: no memory. */
bool hm_call_reset_outputs(hm_call *call);

/* Effects with zero tolerance. Returns "ok", or a sentence in text: an input changed, bytes written outside an output's
 * elements (guard zone or stride gap), or, if untouched, any byte changed at all (for calls that must fail). true if
 * fine. */
bool hm_call_effects(const hm_call *call, bool untouched, char *text, size_t size);

#endif
