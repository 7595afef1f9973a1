/* bench_device.h: the rows of `hallmark bench` for implementations on a device. */
#ifndef HM_BENCH_DEVICE_H
#define HM_BENCH_DEVICE_H

#include "../certify/call.h"
#include "cli.h"

typedef struct bench_device bench_device;

/* Measures what the device can do; exits if there is none. impl: cuda or cuda_fp8; peer: a program (peer.h), or
 * NULL. */
bench_device *bench_device_open(const char *impl, double seconds, const char *peer, bool json);
const char *bench_device_columns(const bench_device *d); /* of the table */
/* Times a call that was certified: a row of the table, or a line of JSON. bytes: that must move; judged: on what rows,
 * or "". */
void bench_device_time(bench_device *d, const hm_call *call, size_t bytes, const char *line, const char *judged,
                       hm_table *table, hm_progress *progress);
void bench_device_print(const bench_device *d); /* what the device can do */
void bench_device_close(bench_device *d);       /* NULL is fine */

#endif
