/* libFuzzer target: opens the bytes as a trace and makes the calls that it describes.
 *     cmake --preset fuzz && cmake --build --preset fuzz
 *     build/fuzz/tests/fuzz-trace -max_total_time=60 -max_len=4000 CORPUS data/traces */
#include <stdlib.h>
#include <string.h>

#include "certify/trace.h"

enum { ELEMENTS_MAX = 1 << 16 }; /* larger calls only cost time */

static bool small(const hm_trace_call *c) {
    for (int i = 0; i < c->op->nargs; i++) {
        const hm_tensor *t = hm_arg_tensor(c->op, c->args, i);
        if (hm_tensor_elements(t) > ELEMENTS_MAX || hm_tensor_elements(&c->out[i]) > ELEMENTS_MAX) return false;
    }
    return true;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    char why[512] = "";
    hm_trace *trace = hm_trace_open_bytes(data, size, "input", why, sizeof why);
    if (!trace) {
        if (!strncmp(why, "input", 5) && strlen(why) > 10) return 0;
        abort(); /* refused without a sentence */
    }
    for (int i = 0; i < hm_trace_count(trace) && i < 16; i++) {
        const hm_trace_call *c = hm_trace_at(trace, i);
        hm_dtype written[HM_MAX_ARGS];
        hm_call *call = NULL;
        if (!small(c) || hm_trace_call_open(c, "call", &call, written, why, sizeof why) != HM_OK) continue;
        hm_trace_call_fill(c, call);
        if (c->op->check(call->args) != HM_OK) abort(); /* a call that the contract refuses */
        hm_call_free(call);
    }
    hm_trace_close(trace);
    return 0;
}
