/* embedded.h: text files that are compiled in: <op>.cases and kills.json of data/cases, <op>.bench of tests/perf. */
#ifndef HM_EMBEDDED_H
#define HM_EMBEDDED_H

#include <stddef.h>

extern const struct hm_embedded {
    const char *name; /* "rms_norm.cases" */
    const char *data; /* NUL-terminated */
    size_t size;      /* bytes, without that NUL */
} hm_embedded[];
extern const int hm_embedded_count;

#endif
