/* bench_bytes.h: how much memory a call has to move. */
#ifndef HM_BENCH_BYTES_H
#define HM_BENCH_BYTES_H

#include "../certify/call.h"

/* Bytes that any implementation must move: each input element that the call reads once, each output element once; of a
 * cache or a table what lengths and indices name; of one that is changed in part also what the call's run changed. */
size_t hm_least_bytes(const hm_call *call);

#endif
