/* eval.h: what the files of `hallmark eval` share. */
#ifndef HM_TOOLS_EVAL_H
#define HM_TOOLS_EVAL_H

#include "../eval/eval.h"
#include "cli.h"

enum {
    EVAL_FAULTS = 8,
    EVAL_LEGAL = 8,
    EVAL_LEAST = 6, /* legal paths: by default, at least */
    EVAL_JUDGED = 24 /* problems that noise is measured on, at most */,
    EVAL_TABLE = 48 /* of a row */
};

typedef struct {
    const char *impl, *fault[EVAL_FAULTS], *folder, *json, *table;
    int nfaults, processes, legal;               /* legal: paths of the A/A run */
    int64_t problems, judged, block_size, top_k; /* 0: all; the model's own */
    bool forced, greedy, bisect;
    hm_eval_before before;
    double timeout;
} eval_options;

/* What was run, and what came of it. */
typedef struct {
    const eval_options *options;
    const hm_eval_path *path;
    hm_eval_result result;
    hm_eval_noise noise;
    double seconds;
    bool ran;                                /* the implementation did at least one call */
    char name[256], off[HM_EVAL_TEXT + 128]; /* of the path; what is off, "" if nothing is */
} eval_run;

/* The progress bar for what comes now; NULL takes it away. */
void eval_progress(const char *label);
void eval_stop_if_interrupted(bool interrupted);

void eval_print(const hm_eval *e, const eval_run *run);
void eval_write_json(const hm_eval *e, const eval_run *run, const char *path);

/* Which ops are to blame. Prints how it knows. */
void eval_bisect(hm_eval *e, const eval_run *run);

/* One row for each line of FOLDER/faults.txt; writes FILE and, beside it, the plot. Returns the exit code. */
int eval_table(hm_eval *e, const eval_options *o, const int64_t *problem, int64_t problems);

#endif
