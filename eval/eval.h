/* eval.h: word problems through any implementation of the model's ops, beside the golden path.
 *
 * The golden path is the model with ref for every op. Another path takes some of the ops from somebody else. A path is
 * run in processes of their own (worker.c), each with a group of problems: whatever an implementation does there,
 * crash, hang, set flush-to-zero or write into the weights, neither another group nor the judge sees it, and what a
 * path gives does not depend on how many processes run at a time. All that is compared is computed here, from the
 * logits that they leave. */
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

/* What outputs hold before each call of an implementation, which shows where it does not write. */
typedef enum {
    HM_EVAL_AS_THEY_ARE = 0,
    HM_EVAL_CLEARED, /* zeros */
    HM_EVAL_STALE    /* what ref made of the call before: of the layer before, for the most part */
} hm_eval_before;

/* Where each op comes from: NULL or "ref", "cpu", "cuda", "cuda_fp8", "fault:ID", "variant:ID", or the path of a
 * plug-in. An op that its implementation lacks, or declines to do (HM_UNSUPPORTED), is ref's. What works on HM_CUDA is
 * called on copies of the model's tensors there (device.h), and all that is ref's runs on the host. A fault or a
 * variant may be for one kind of the model's calls only: "fault:rotary_embedding.not_rotated@index_rope". */
typedef struct {
    const char *of[HM_MODEL_OPS];
    hm_eval_before before;
    int64_t block_size;     /* 0: as the options say */
    const int64_t *problem; /* [problems]: which ones */
    int64_t problems;
    int64_t judged; /* the first so many are those that the noise was measured on; 0: all */
} hm_eval_path;

typedef struct {
    const char *folder;          /* model.safetensors, vocab.json, problems.jsonl */
    int64_t block_size, top_k;   /* 0: the model's own */
    bool teacher_forced, greedy; /* what is run */
    bool along;                  /* decoding is given the golden path's words: all of them are compared, and there is
                                      * no score; faster for a path that goes astray */
    int processes;               /* at a time */
    double timeout;              /* seconds that one call of an op has */
    void (*progress)(void *with, double share); /* of what hm_eval_run was asked to do; may be NULL */
    bool (*interrupted)(void);                  /* asked now and then; may be NULL */
    void *with;
} hm_eval_options;

typedef struct hm_eval hm_eval;
/* Opens what is in the folder. NULL with one sentence in why. */
hm_eval *hm_eval_open(const hm_eval_options *options, char *why, size_t size);
void hm_eval_close(hm_eval *e);                  /* NULL is fine */
hm_eval_options *hm_eval_options_of(hm_eval *e); /* what is run, and progress, may be changed between runs */
int64_t hm_eval_problems(const hm_eval *e);
const hm_problem *hm_eval_problem(const hm_eval *e, int64_t i);

typedef enum { HM_EVAL_FORCED = 0, HM_EVAL_GREEDY, HM_EVAL_MODES } hm_eval_mode;

/* One problem on one path. */
typedef struct {
    int64_t at;               /* which problem */
    bool right;               /* the number behind the last #### of the greedy answer is the problem's */
    bool forced_right;        /* every token behind #### is the most probable one, given those before it */
    bool same_answer;         /* the greedy answer has the same tokens as the golden path's */
    int64_t tokens, correct;  /* given the solution: places, and those where its token is the most probable one */
    double kl[HM_EVAL_MODES]; /* means over this problem */
    uint64_t bits;            /* hash of its logits and words */
} hm_eval_row;

/* How far a path is from the golden path, in one mode. The mean hangs on a few tokens, since one key selected instead
 * of another can turn a word that the model wavers about: legal paths reach 2e-4 on a single problem and 4e-7 without
 * it. The median and the 99th percentile do not, and it is these that are judged. */
typedef struct {
    int64_t tokens;    /* compared; 0: the mode was not run */
    double mean;       /* of KL(golden, path) a token, in nats */
    double middle;     /* median over problems of their means */
    double tail;       /* 99th percentile a token */
    double difference; /* the largest of a word's logarithmic probability, over all words of the vocabulary */
} hm_eval_level;

typedef enum { HM_EVAL_DONE = 0, HM_EVAL_DIED, HM_EVAL_REFUSED, HM_EVAL_FAILED } hm_eval_end;

/* What a path did. Teacher-forced: prompt and solution are read at once; greedy: the answer is decoded word by word,
 * and logits are compared as long as both paths have decoded the same words. */
typedef struct {
    hm_eval_end end; /* died: signal, exit or silence; refused: an op returned an error; failed: our own defect */
    char why[HM_EVAL_TEXT]; /* if it is not done: one sentence */
    int64_t ended_at;       /* which group, by its first problem */
    int64_t problems;
    hm_eval_row *row;                                    /* [problems] */
    int64_t calls[HM_MODEL_OPS], declined[HM_MODEL_OPS]; /* of implementations that are not ref's */
    char device[128];                                    /* that they ran on; "": the host */
    int64_t right, forced_right, same_answer, tokens, correct;
    int64_t golden_right, golden_forced_right, golden_correct; /* the golden path's, on the same problems */
    int64_t lost, gained;                                      /* right on the golden path alone, on this path alone */
    hm_eval_level level[HM_EVAL_MODES], judged[HM_EVAL_MODES]; /* over all problems; over those that are judged */
    uint64_t bits;                                             /* hash of every logit and word */
    double *token_kl, *token_difference;                       /* [problems, 2, HM_EVAL_MOST] until the run is over */
} hm_eval_result;

bool hm_eval_is_ref(const hm_eval_path *path); /* ref for every op: it is the golden path, and is not run twice */

/* Runs n paths, each over its problems, several processes at a time, and the golden path where it has not been run
 * yet. false only if the user interrupted it; else result[i] says how each path ended. Free each with
 * hm_eval_result_free. */
bool hm_eval_run(hm_eval *e, const hm_eval_path *paths, int n, hm_eval_result *result);
void hm_eval_result_free(hm_eval_result *r);

/* All problems in an order whose beginnings are spread evenly over them, however long; caller frees. */
int64_t *hm_eval_order(int64_t all);

/* Is this an implementation that the model can be run with? One sentence in why if not. provides[op] (may be NULL): it
 * offers that op of the model, and the device that it needs is there; a sentence in why, too, if that is not. */
bool hm_eval_spec_check(const char *spec, bool provides[HM_MODEL_OPS], char *why, size_t size);

/* ---- noise ------------------------------------------------------------------------------------------------------ */

/* Legal paths differ from ref in every op that has legal variants: path k takes variant k of each op, of those in the
 * class that the op requires by default; of linear in one of the model's products only, since they are slow. Fills
 * paths[0 .. n - 1], but not their problems; n is at most HM_EVAL_LEGAL. Not for two threads at once. */
void hm_eval_legal_paths(hm_eval_path *paths, int n);

/* A/A: what n legal paths differ by, all on the same problems. */
typedef struct {
    int paths;
    int64_t each; /* problems of a path */
    hm_eval_level path[HM_EVAL_LEGAL][HM_EVAL_MODES];
    hm_eval_level most[HM_EVAL_MODES];           /* of each number, the largest */
    hm_eval_level line[HM_EVAL_MODES];           /* middle and tail: what is above is no noise (hm_eval_line) */
    int64_t problems, lost, gained, same_answer; /* of all paths together */
    char alarm[HM_EVAL_TEXT]; /* "" if none: they score alike, and none is above the lines that the others draw */
} hm_eval_noise;
hm_eval_end hm_eval_noise_measure(hm_eval *e, const int64_t *problem, int64_t problems, int n, hm_eval_noise *noise,
                                  bool *interrupted, char *why, size_t size);
/* The upper end of the 99.9 % prediction interval for one more of n numbers (2 to HM_EVAL_LEGAL) whose logarithms are
 * normal, from Student's t. */
double hm_eval_line(const double *number, int n);
/* Is a mode above its lines, or not finite? Never if there are no lines (tokens 0) and all is finite. */
bool hm_eval_above(const hm_eval_level *level, const hm_eval_level *line);

/* ---- which op is to blame --------------------------------------------------------------------------------------- */

typedef struct {
    hm_eval_end end;
    bool off;  /* above the noise, or not run to its end */
    double kl; /* mean of both modes, the larger; infinite if not run to its end */
} hm_eval_probe;

/* Each op that a path takes from somebody: how the model does with this op alone from there and ref for all others,
 * and the other way round. */
typedef struct {
    hm_model_op op;
    hm_eval_probe alone, without;
    bool blamed;
} hm_eval_suspect;

typedef struct {
    hm_eval_probe whole;   /* the path as it is */
    hm_eval_probe without; /* ref for every op that is blamed */
    int n;
    hm_eval_suspect suspect[HM_MODEL_OPS];
} hm_eval_bisection;

/* Blames the smallest set of ops for which ref brings the path back into the noise. Ops that are off alone come first;
 * of several sets of one size, the one that is furthest off alone. problem: few are enough, on which noise was
 * measured. false only if interrupted. The options are as for a run; decoding is given the golden path's words. */
bool hm_eval_bisect(hm_eval *e, const hm_eval_path *path, const int64_t *problem, int64_t problems,
                    const hm_eval_noise *noise, hm_eval_bisection *b);

/* ---- workers ---------------------------------------------------------------------------------------------------- */

/* If argv asks for the hidden verb of a worker, runs it and never returns. A program that calls hm_eval_run must hand
 * its argv here first thing in main(). */
void hm_eval_worker_main(int argc, char **argv);

#endif
