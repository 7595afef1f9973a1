/* selftest.h: what the files of the verb selftest share. */
#ifndef HM_TOOLS_SELFTEST_H
#define HM_TOOLS_SELFTEST_H

#include "../certify/selftest.h"
#include "cli.h"

typedef struct {
    const hm_op_info *op;
    const char *write, *only, *docs;
    hm_suite suite;
    uint64_t seed;
    int64_t elements; /* 0: as many as is usual for the op, times `more` */
    int more;
    int threads;
    bool whole; /* --long */
} hm_selftest_arguments;

typedef struct {
    const hm_selftest_arguments *o;
    hm_progress progress;
    const hm_alarms *alarms; /* while they run: progress counts their elements */
    bool failed, vacuous;
} hm_selftest_session;

hm_selftest_options hm_selftest_library_options(hm_selftest_session *s, uint64_t seed);
/* Ends a part: takes the bar away; dies if it was interrupted or could not go on. */
void hm_selftest_finish(hm_selftest_session *s, hm_status status, bool stopped);
/* Prints a sentence and sets the flag (of the session) that stands for it. */
void hm_selftest_complain(bool *flag, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The cases of --suite and --op that are not too large to be kept whole; says how many are left out. */
hm_case_list hm_selftest_cases(const hm_selftest_session *s, uint64_t seed);

/* matrix_only: of the suite and one seed, without a second look. */
void hm_selftest_kills(hm_selftest_session *s, bool matrix_only);
void hm_selftest_alarms(hm_selftest_session *s);

#endif
