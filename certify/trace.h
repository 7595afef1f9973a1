/* trace.h: recorded op calls in a safetensors file. Traces come from strangers: every offset, length and product is
 * checked before use, and a bad file is refused with one sentence.
 *
 * Tensors are named <call>/<argument> for inputs and <call>/out.<argument> for recorded outputs; an argument that is
 * written in place has both. __metadata__ holds "hallmark.trace": "1" and "hallmark.calls": a JSON list, in execution
 * order, of
 *   {"id": "c0", "op": "rms_norm", "attrs": {"eps": 1e-6, "round": "once", ...}, "views": {"x": {...}}}
 * A view gives an argument that is not contiguous, aliases another, or has a dtype that safetensors lacks:
 *   {"storage": "<call>/buf", "dtype": "BF16", "offset": 0, "shape": [...], "stride": [...]}
 * with offset and stride in elements. The storage may be a tensor of another call, so that bytes which several calls
 * share are there once. A view under an output's plain name says where that output lay: it has to be the view of an
 * input, which was written over; one under out.<argument> gives what was recorded. Beside an output there may be
 * ideal.<argument>, lo., hi., flags., parts. and parts_at., which `hallmark golden` writes, also of calls that
 * hallmark.golden.calls lists and hallmark.calls does not. An absent tensor is a missing key; a tensor that belongs to
 * no call is refused, and so is an unknown key. Ids match [A-Za-z0-9_.-]{1,64}. */
#ifndef HM_TRACE_H
#define HM_TRACE_H

#include "call.h"

typedef struct {
    char id[65];
    const hm_op_info *op;
    void *args;                 /* op->args_size bytes; inputs point into the mapped file; outputs are the recorded ones
                                 * (data NULL if not recorded) with the dtype they were recorded in */
    bool recorded[HM_MAX_ARGS]; /* output i has a recording */
    hm_tensor out[HM_MAX_ARGS]; /* that recording */
    bool stated[HM_MAX_PARAMS]; /* parameter i was given in attrs (or by --assume) */
    int in_place[HM_MAX_ARGS];  /* output i was written over this input; -1 if not */
} hm_trace_call;

typedef struct hm_trace hm_trace;

/* Opens and checks a whole file. NULL with one sentence in why. */
hm_trace *hm_trace_open(const char *path, char *why, size_t size);
/* The same over bytes in memory (for the fuzzer); data must stay valid. */
hm_trace *hm_trace_open_bytes(const void *data, size_t bytes, const char *name, char *why, size_t size);
void hm_trace_close(hm_trace *trace);
int hm_trace_count(const hm_trace *trace);
hm_trace_call *hm_trace_at(hm_trace *trace, int i);
const char *hm_trace_note(const hm_trace *trace, const char *key); /* another entry of __metadata__; NULL if none */

/* Makes the call that the contract describes: inputs as recorded, outputs poisoned, in the dtype that the contract
 * wants; written[i] is the dtype that output i was recorded in where that is another one, else HM_DTYPE_NONE (as in
 * hm_run). Outputs that were not recorded are absent if the contract lets them be; else they take the shape of an
 * input. Any error is a sentence in why: HM_NO_MEMORY, or what the op's check says. call NULL: the call is only
 * checked. */
hm_status hm_trace_call_open(const hm_trace_call *c, const char *name, hm_call **call, hm_dtype written[HM_MAX_ARGS],
                             char *why, size_t size);
/* Copies the recorded outputs into the call; one of another dtype is rounded to that of the contract. */
void hm_trace_call_fill(const hm_trace_call *c, hm_call *call);

/* Writer: add tensors and metadata, then write the file whole or not at all. Tensors are laid out by falling width of
 * their elements, so that each is aligned, then in the order added; the bytes of the file are a pure function of what
 * was added. */
typedef struct hm_trace_writer hm_trace_writer;
hm_trace_writer *hm_trace_writer_new(void);
void hm_trace_writer_note(hm_trace_writer *w, const char *key, const char *value);
/* contiguous data, copied */
void hm_trace_writer_tensor(hm_trace_writer *w, const char *name, hm_dtype dtype, int ndim, const int64_t *shape,
                            const void *data);
/* Each frees w. The first gives the file's bytes, to be freed by the caller; NULL if memory is short. */
void *hm_trace_writer_bytes(hm_trace_writer *w, size_t *bytes);
hm_status hm_trace_writer_save(hm_trace_writer *w, const char *path, char *why, size_t size);

#endif
