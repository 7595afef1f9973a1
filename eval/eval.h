/* eval.h: word problems through any implementation of the model's ops, beside the golden path.
 *
 * The golden path is the model with ref for every op. Another path takes some of the ops from somebody else. A path is run
 * in processes of their own (worker.c), each with a group of problems: whatever an implementation does there, crash, hang,
 * set flush-to-zero or write into the weights, neither another group nor the judge sees it, and what a path gives does not
 * depend on how many processes run at a time. All that is compared is computed here, from the logits that they leave. */
#ifndef HM_EVAL_H
#define HM_EVAL_H

#include <hallmark/op.h>
#include <stdbool.h>

#include "../model/model.h"
#include "score.h"

#define HM_EVAL_TIMEOUT 60.0 /* seconds that one call of an op has */

enum {
    HM_EVAL_MOST = 112, /* tokens of an answer; the longest solution has 99 */
    HM_EVAL_GROUP = 50, /* problems of a process, at most */
    HM_EVAL_LEGAL = 16, /* legal paths, at most */
    HM_EVAL_TEXT = 512
};

/* Where each op comes from: NULL or "ref", "cpu", "fault:ID", "variant:ID", or the path of a plug-in. An op that its
 * implementation lacks, or declines to do (HM_UNSUPPORTED), is ref's. A fault or a variant may be for one kind of the
 * model's calls only: "fault:rotary_embedding.not_rotated@index_rope". */
typedef struct {
    const char *of[HM_MODEL_OPS];
    bool cleared; /* outputs are zeros before each call of an implementation, as fresh memory often is; else they hold what
                   * the buffer held before */
} hm_eval_path;

typedef struct {
    const char *folder;              /* model.safetensors, vocab.json, problems.jsonl */
    int64_t block_size, top_k;       /* 0: the model's own */
    bool teacher_forced, greedy;     /* what is run */
    bool along;                      /* decoding is given the golden path's words: all of them are compared, and there is
                                      * no score; faster for a path that goes astray */
    int processes;                   /* at a time */
    double timeout;                  /* seconds that one call of an op has */
    void (*progress)(void *with, double share); /* of what hm_eval_run was asked to do; may be NULL */
    bool (*interrupted)(void);                  /* asked now and then; may be NULL */
    void *with;
} hm_eval_options;

typedef struct hm_eval hm_eval;
/* Opens what is in the folder. NULL with one sentence in why. */
hm_eval *hm_eval_open(const hm_eval_options *options, char *why, size_t size);
void hm_eval_close(hm_eval *e); /* NULL is fine */
hm_eval_options *hm_eval_options_of(hm_eval *e); /* what is run, and progress, may be changed between runs */
int64_t hm_eval_problems(const hm_eval *e);
const hm_problem *hm_eval_problem(const hm_eval *e, int64_t i);

/* One problem on one path. */
typedef struct {
    int64_t at;                  /* which problem */
    bool right;                  /* the number behind the last #### of the greedy answer is the problem's */
    bool forced_right;           /* every token behind #### is the most probable one, given those before it */
    bool same_answer;            /* the greedy answer has the same tokens as the golden path's */
    int64_t tokens, correct;     /* given the solution: places, and those where its token is the most probable one */
    double forced_kl, greedy_kl; /* means over this problem */
    uint64_t bits;               /* hash of its logits and words */
} hm_eval_row;

typedef enum { HM_EVAL_DONE = 0, HM_EVAL_DIED, HM_EVAL_REFUSED, HM_EVAL_FAILED } hm_eval_end;

/* What a path did. Teacher-forced: prompt and solution are read at once; greedy: the answer is decoded word by word, and
 * logits are compared as long as both paths have decoded the same words. */
typedef struct {
    hm_eval_end end;       /* died: signal, exit or silence; refused: an op returned an error; failed: our own defect */
    char why[HM_EVAL_TEXT]; /* if it is not done: one sentence */
    int64_t ended_at;       /* which group, by its first problem */
    int64_t problems;
    hm_eval_row *row; /* [problems] */
    int64_t calls[HM_MODEL_OPS], declined[HM_MODEL_OPS]; /* of implementations that are not ref's */
    int64_t right, forced_right, same_answer, tokens, correct, golden_right;
    int64_t lost, gained; /* right on the golden path alone, on this path alone */
    hm_kl_list forced, greedy;
    uint64_t bits; /* hash of every logit and word */
    double *token_kl, *token_difference; /* [problems, 2, HM_EVAL_MOST] until the run is over */
} hm_eval_result;

/* Runs n paths over the given problems, several processes at a time, and the golden path where it has not been run yet.
 * false only if the user interrupted it; else result[i] says how each path ended. Free each with hm_eval_result_free. */
bool hm_eval_run(hm_eval *e, const hm_eval_path *paths, int n, const int64_t *problems, int64_t nproblems,
                 hm_eval_result *result);
void hm_eval_result_free(hm_eval_result *r);

/* n problems spread evenly over all of them; caller frees. */
int64_t *hm_eval_spread(int64_t all, int64_t n);

/* Is this an implementation that the model can be run with? One sentence in why if not. provides[op] (may be NULL): it
 * offers that op of the model. */
bool hm_eval_spec_check(const char *spec, bool provides[HM_MODEL_OPS], char *why, size_t size);

/* ---- noise ----------------------------------------------------------------------------------------------------------*/

/* Legal paths that differ from ref in every op that has legal variants: path k takes variant k of each op, those of the
 * class that the op requires by default. n is at most HM_EVAL_LEGAL; returns how many. Not for two threads at once. */
int hm_eval_legal_paths(hm_eval_path *paths, int n);

/* ---- workers --------------------------------------------------------------------------------------------------------*/

/* If argv asks for the hidden verb of a worker, runs it and never returns. A program that calls hm_eval_run must hand its
 * argv here first thing in main(). */
void hm_eval_worker_main(int argc, char **argv);

#endif
