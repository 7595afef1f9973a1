/* report.h: the certificate and its companions. Each file is written whole or not at all. */
#ifndef HM_REPORT_H
#define HM_REPORT_H

#include <stdio.h>

#include "judge.h"

typedef struct hm_report hm_report;

/* suite: "smoke", "quick", "full", "case", "replay"; flags: options that changed what was judged, e.g. "class=chain512"
 * (NULL-terminated). */
hm_report *hm_report_new(const hm_impl *impl, const char *suite, uint64_t seed, const char *const *flags);
/* repro: the command that reproduces this row. inputs_xxh3 from the call. */
void hm_report_add(hm_report *r, const hm_op_info *op, const char *case_line, uint64_t inputs_xxh3, const hm_verdict *v,
                   const char *repro);
void hm_report_not_provided(hm_report *r, const hm_op_info *op);
/* Names of the ops that are not provided, space separated; "none". Valid while r lives. */
const char *hm_report_missing(const hm_report *r);
/* The loosest class that the judged rows of op need, if class-separating inputs were among them; else "not separated",
 * since ordinary data cannot tell the classes apart; "none" if an element was outside them all. */
const char *hm_report_consistent(const hm_report *r, const hm_op_info *op);
/* The instruction set asked for (default "native"): the payload says what was asked, the host what there was. */
void hm_report_isa(hm_report *r, const char *isa);
int64_t hm_report_total(const hm_report *r, hm_outcome o); /* HM_NOT_OFFERED counts ops, the others cases */
int64_t hm_report_cases(const hm_report *r);
/* Exit code of the command line for what was added: 1, 4, 3 or 0; strict makes skipped and declined 1. */
int hm_report_exit(const hm_report *r, bool strict);
/* Makes dir, with its parents, if it is missing; HM_BAD_ARG with a sentence in why if it cannot be written to. */
hm_status hm_report_folder(const char *dir, char *why, size_t size);
bool hm_report_has_junit(void); /* not in a build of the preset device */
/* certificate.json, junit.xml (but in a build of the preset device), summary.md in dir (made if missing). */
hm_status hm_report_write(const hm_report *r, const char *dir, char *why, size_t size);
void hm_report_free(hm_report *r);

/* Writes a file whole or not at all (temporary file beside it, fsync, rename). */
hm_status hm_write_file(const char *path, const void *data, size_t size, char *why, size_t why_size);

#endif
