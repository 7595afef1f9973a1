/* report_rows.h: what a report has gathered, and the three texts made from it. */
#ifndef HM_REPORT_ROWS_H
#define HM_REPORT_ROWS_H

#include "report.h"

typedef struct {
    const hm_op_info *op;
    char *line, *repro; /* clean: see hm_report_clean */
    uint64_t inputs_xxh3;
    hm_verdict v;
} report_row;

struct hm_report {
    char impl[256], sha256[65], suite[32], isa[16];
    hm_place place;
    const char *device; /* of the implementation, which outlives the report; "" until it has run on one */
    uint64_t seed;
    char **flag;
    int nflags;
    report_row *row;
    int64_t nrows, capacity;
    char missing[512];
    int64_t total[HM_OUTCOME_COUNT];
};

/* A copy of text that is valid in JSON, in XML and on a terminal, whatever a plug-in or a path holds: control
 * characters become '?', and so does every byte outside ASCII if the whole is not UTF-8. NULL if there is no memory. */
char *hm_report_clean(const char *text);

/* Each is malloc'ed; NULL if there is no memory. */
char *hm_report_certificate(const hm_report *r);
char *hm_report_junit(const hm_report *r);
char *hm_report_summary(const hm_report *r);

#endif
