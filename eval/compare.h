/* compare.h: the golden path's logits, kept, and what another path's say beside them. */
#ifndef HM_EVAL_COMPARE_H
#define HM_EVAL_COMPARE_H

#include "task.h"

/* Of one problem on the golden path. */
typedef struct {
    float *forced, *greedy; /* [given_length, vocab]  [count, vocab]; NULL: not run yet */
    int64_t count;
    int32_t out[HM_EVAL_MOST];
} golden_answer;

struct hm_eval {
    hm_eval_options options;
    char *folder;
    hm_vocab *vocab;
    hm_problems *problems;
    int64_t vocab_size;
    golden_answer *golden; /* one a problem */
};

bool compare_has_golden(const hm_eval *e, int64_t problem); /* all that the options ask for */
void compare_words_of_golden(const hm_eval *e, int64_t problem, task_answer *to);

/* What a group left: kept as the golden path's, or compared with it. first: of the group's problems in r. */
void compare_keep_golden(hm_eval *e, const task *t, int64_t first, hm_eval_result *r);
void compare_take(hm_eval *e, const task *t, int64_t first, hm_eval_result *r);
void compare_take_golden(const hm_eval *e, hm_eval_result *r); /* a path with ref for every op */

/* Before the first group and after the last. */
bool compare_begin(hm_eval_result *r, const int64_t *problem, int64_t problems); /* false: no memory */
void compare_finish(const hm_eval *e, int64_t judged, hm_eval_result *r);        /* judged: the first so many */

#endif
