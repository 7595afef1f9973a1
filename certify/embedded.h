/* embedded.h: the files of data/cases, compiled in: <op>.cases for every op, and kills.json. */
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
