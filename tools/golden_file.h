/* golden_file.h: builds a golden file (docs/golden.md), call by call. Every failure ends the program (hm_die). */
#ifndef HM_GOLDEN_FILE_H
#define HM_GOLDEN_FILE_H

#include <jansson.h>

#include "../certify/trace.h"
#include "cli.h"

/* A golden file under construction. */
typedef struct {
    hm_trace_writer *writer;
    json_t *golden_calls, *trace_calls;
    json_t *kinds; /* dtypes and modes of the calls so far that came with their inputs: a set */
    int threads;
} hm_golden_file;

hm_golden_file hm_golden_file_begin(void);
/* The class called name, or that which op requires; name has to be one of the op's. */
hm_class hm_golden_class_of(const hm_op_info *op, const char *name);
/* entry: what the list of calls says about where it comes from; owned here. sampled: some rows only. */
void hm_golden_file_add_call(hm_golden_file *b, const char *id, const hm_call *call, json_t *entry,
                             const char *class_name, bool sampled, bool inputs);
/* make: as little of it as --make keeps, with its inputs or without. */
void hm_golden_file_add_case(hm_golden_file *b, const hm_case_spec *spec, const char *class_name, bool make,
                             bool inputs);
/* The file's bytes, to be freed by the caller. Either way b is used up. */
void *hm_golden_file_finish(hm_golden_file *b, size_t *bytes);
void hm_golden_file_save(hm_golden_file *b, const char *path);

#endif
