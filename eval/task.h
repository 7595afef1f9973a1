/* task.h: what the judge (run.c) and the process of a group of problems (worker.c) share: one block of memory. The
 * judge fills the first part before the process starts, and believes nothing of the rest but what it has checked. */
#ifndef HM_EVAL_TASK_H
#define HM_EVAL_TASK_H

#include "eval.h"

#define TASK_VERB "--eval-worker"
#define TASK_FD 3

enum { TASK_PATH = 1024, TASK_CALL = 64, TASK_TEXT = 1024 /* tokens of a problem with its solution, at most */ };

typedef enum { TASK_STARTED = 0, TASK_DONE, TASK_REFUSED, TASK_FAILED } task_state;

typedef struct {
    /* ---- in ---- */
    char folder[TASK_PATH], of[HM_MODEL_OPS][TASK_PATH]; /* "": ref */
    hm_eval_before before;
    bool teacher_forced, greedy, along; /* along: the words to decode are in the answers below */
    int64_t block_size, top_k, vocab, problems, problem[HM_EVAL_GROUP];
    /* ---- out ---- */
    int state;
    int64_t tokens; /* fed to the model so far */
    int64_t steps;  /* calls of ops that were begun: it stands still where one hangs */
    int op;         /* that is running, -1 between calls, and in which call of the model */
    char call[TASK_CALL];
    int64_t calls[HM_MODEL_OPS], declined[HM_MODEL_OPS];
    char device[128]; /* that the implementation ran on; "": the host */
    char why[HM_EVAL_TEXT];
} task;

/* Of one problem, behind the task: the words, then logits [HM_EVAL_MOST, vocab] given the solution and as many in
 * greedy decoding. */
typedef struct {
    int64_t count; /* of words in the greedy answer */
    int32_t out[HM_EVAL_MOST];
} task_answer;

static inline size_t task_slot_bytes(int64_t vocab) {
    return sizeof(task_answer) + 2 * (size_t)HM_EVAL_MOST * (size_t)vocab * sizeof(float);
}
static inline size_t task_bytes(int64_t vocab, int64_t problems) {
    return sizeof(task) + (size_t)problems * task_slot_bytes(vocab);
}
static inline task_answer *task_answer_of(const task *t, int64_t vocab, int64_t i) {
    return (task_answer *)((char *)t + sizeof(task) + (size_t)i * task_slot_bytes(vocab));
}
static inline float *task_logits(task_answer *a, int64_t vocab, bool greedy) {
    return (float *)((char *)a + sizeof *a) + (greedy ? HM_EVAL_MOST * vocab : 0);
}

#endif
