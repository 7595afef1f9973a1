/* compare.c: from the words and logits of two paths to numbers. */
#include "compare.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static int64_t words(int64_t count) { return count < 0 ? 0 : count < HM_EVAL_MOST ? count : HM_EVAL_MOST; }

static size_t logit_bytes(const hm_eval *e, int64_t count) {
    return (size_t)words(count) * (size_t)e->vocab_size * sizeof(float);
}

/* ---- the golden path -------------------------------------------------------------------------------------------- */

bool compare_has_golden(const hm_eval *e, int64_t problem) {
    const golden_answer *g = &e->golden[problem];
    return (!e->options.teacher_forced || g->forced) && (!e->options.greedy || g->greedy);
}

void compare_words_of_golden(const hm_eval *e, int64_t problem, task_answer *to) {
    to->count = e->golden[problem].count;
    memcpy(to->out, e->golden[problem].out, sizeof to->out);
}

static float *copy_of(const float *logits, size_t bytes) {
    float *copy = malloc(bytes ? bytes : 1);
    return copy ? memcpy(copy, logits, bytes) : NULL;
}

void compare_keep_golden(hm_eval *e, const task *t, int64_t first, hm_eval_result *r) {
    (void)first;
    for (int64_t i = 0; i < t->problems; i++) {
        golden_answer *g = &e->golden[t->problem[i]];
        task_answer *a = task_answer_of(t, e->vocab_size, i);
        int64_t given = hm_eval_problem(e, t->problem[i])->given_length;
        bool kept = true;
        if (t->teacher_forced && !g->forced)
            kept = (g->forced = copy_of(task_logits(a, e->vocab_size, false), logit_bytes(e, given)));
        if (t->greedy && !g->greedy && kept) {
            g->count = words(a->count);
            memcpy(g->out, a->out, sizeof g->out);
            kept = (g->greedy = copy_of(task_logits(a, e->vocab_size, true), logit_bytes(e, g->count)));
        }
        if (kept) continue;
        r->end = HM_EVAL_FAILED;
        snprintf(r->why, sizeof r->why, "no memory for its logits");
    }
}

/* ---- another path ----------------------------------------------------------------------------------------------- */

/* The largest logit, the lowest of equal ones; a NaN is less than all. */
static int64_t largest(const float *logits, int64_t count) {
    int64_t best = 0;
    for (int64_t i = 1; i < count; i++)
        if (logits[i] > logits[best] || (isnan(logits[best]) && !isnan(logits[i]))) best = i;
    return best;
}

/* Index in text of what follows the last ####; count if there is none. */
static int64_t behind_mark(const hm_eval *e, const int32_t *text, int64_t count) {
    for (int64_t i = count - 1; i >= 0; i--) {
        const char *word = hm_vocab_word(e->vocab, text[i]);
        if (word && !strcmp(word, "####")) return i + 1;
    }
    return count;
}

/* Logits of the solution's places: how many tokens are the most probable ones, and whether all behind #### are. */
static int64_t correct_of(const hm_eval *e, const hm_problem *p, const float *logits, bool *answer) {
    int64_t correct = 0, mark = behind_mark(e, p->given, p->given_length);
    *answer = mark < p->given_length;
    for (int64_t i = 0; i < p->given_length; i++) {
        bool is = largest(logits + i * e->vocab_size, e->vocab_size) == p->given[i];
        correct += is;
        if (i >= mark && !is) *answer = false;
    }
    return correct;
}

static bool right_answer(const hm_eval *e, const hm_problem *p, const int32_t *out, int64_t count) {
    char answer[64];
    return hm_model_answer(e->vocab, out, count, answer, sizeof answer) && !strcmp(answer, p->answer);
}

/* The first `places` places, logits beside the golden path's. */
static void add_places(const hm_eval *e, const float *golden, const float *logits, int64_t places, int64_t row,
                       bool greedy, hm_eval_result *r) {
    int64_t at = (2 * row + greedy) * HM_EVAL_MOST;
    for (int64_t i = 0; i < places; i++)
        r->token_kl[at + i] =
            hm_kl(golden + i * e->vocab_size, logits + i * e->vocab_size, e->vocab_size, &r->token_difference[at + i]);
}

/* One problem on a path: words and logits, NULL where it was not run. along: the words are the golden path's. */
static void take(const hm_eval *e, int64_t at, const float *forced, const float *greedy, const int32_t *out,
                 int64_t count, bool along, hm_eval_result *r) {
    hm_eval_row *row = &r->row[at];
    const hm_problem *p = hm_eval_problem(e, row->at);
    const golden_answer *golden = &e->golden[row->at];
    if (forced) {
        row->tokens = p->given_length;
        row->correct = correct_of(e, p, forced, &row->forced_right);
        add_places(e, golden->forced, forced, p->given_length, at, false, r);
        row->bits = XXH3_64bits(forced, logit_bytes(e, p->given_length));
    }
    if (greedy) {
        int64_t same = 0;
        while (same < count && same < golden->count && out[same] == golden->out[same]) same++;
        int64_t places = same < count && same < golden->count ? same + 1 : same; /* up to the first other word */
        add_places(e, golden->greedy, greedy, places, at, true, r);
        row->bits = XXH3_64bits_withSeed(greedy, logit_bytes(e, count), row->bits);
        row->bits = XXH3_64bits_withSeed(out, (size_t)count * sizeof *out, row->bits);
        row->same_answer = !along && same == count && count == golden->count;
        row->right = !along && right_answer(e, p, out, count);
    }
}

void compare_take(hm_eval *e, const task *t, int64_t first, hm_eval_result *r) {
    for (int64_t i = 0; i < t->problems; i++) {
        task_answer *a = task_answer_of(t, e->vocab_size, i);
        for (int64_t w = 0; w < HM_EVAL_MOST; w++) /* what a stray write may have left is no word */
            if (a->out[w] < 0 || a->out[w] >= e->vocab_size) a->out[w] = HM_MODEL_PAD;
        take(e, first + i, t->teacher_forced ? task_logits(a, e->vocab_size, false) : NULL,
             t->greedy ? task_logits(a, e->vocab_size, true) : NULL, a->out, words(a->count), t->along, r);
    }
    for (int op = 0; op < HM_MODEL_OPS; op++) r->calls[op] += t->calls[op], r->declined[op] += t->declined[op];
    snprintf(r->device, sizeof r->device, "%.*s", (int)sizeof t->device - 1, t->device);
    for (char *c = r->device; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f) *c = '?';
}

void compare_take_golden(const hm_eval *e, hm_eval_result *r) {
    for (int64_t i = 0; i < r->problems; i++) {
        const golden_answer *g = &e->golden[r->row[i].at];
        take(e, i, e->options.teacher_forced ? g->forced : NULL, e->options.greedy ? g->greedy : NULL, g->out, g->count,
             e->options.along, r);
    }
}

bool compare_begin(hm_eval_result *r, const int64_t *problem, int64_t problems) {
    size_t places = (size_t)problems * 2 * HM_EVAL_MOST;
    *r = (hm_eval_result){.problems = problems};
    r->row = calloc((size_t)problems + 1, sizeof *r->row);
    r->token_kl = malloc((places + 1) * sizeof *r->token_kl);
    r->token_difference = malloc((places + 1) * sizeof *r->token_difference);
    if (!r->row || !r->token_kl || !r->token_difference) return false;
    for (size_t i = 0; i < places; i++) r->token_kl[i] = -1; /* not compared */
    for (int64_t i = 0; i < problems; i++) r->row[i].at = problem[i];
    return true;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The level of a mode over the first rows; false: no memory. */
static bool level_of(hm_eval_result *r, hm_eval_mode mode, int64_t rows, hm_eval_level *level) {
    hm_kl_list list = {0};
    double *means = calloc((size_t)rows + 1, sizeof *means);
    bool ok = means;
    for (int64_t row = 0; row < rows && ok; row++) {
        int64_t at = (2 * row + mode) * HM_EVAL_MOST, first = list.count;
        for (int64_t i = at; i < at + HM_EVAL_MOST && ok; i++) {
            if (r->token_kl[i] < 0) continue; /* not compared */
            means[row] += r->token_kl[i];
            ok = hm_kl_add(&list, r->token_kl[i], r->token_difference[i]);
        }
        if (list.count > first) means[row] /= (double)(list.count - first);
        r->row[row].kl[mode] = means[row];
    }
    if (ok && list.count) {
        qsort(means, (size_t)rows, sizeof *means, ascending);
        *level = (hm_eval_level){.tokens = list.count,
                                 .mean = hm_kl_mean(&list),
                                 .middle = means[rows / 2],
                                 .difference = list.largest_difference};
        level->tail = hm_kl_quantile(&list, 0.99);
    }
    free(means);
    hm_kl_free(&list);
    return ok;
}

void compare_finish(const hm_eval *e, int64_t judged, hm_eval_result *r) {
    bool done = r->end == HM_EVAL_DONE && r->row && r->token_kl && r->token_difference;
    for (int64_t i = 0; i < r->problems && done; i++) {
        hm_eval_row *row = &r->row[i];
        const hm_problem *p = hm_eval_problem(e, row->at);
        const golden_answer *g = &e->golden[row->at];
        bool golden = e->options.greedy && !e->options.along && right_answer(e, p, g->out, g->count), answer = false;
        if (e->options.teacher_forced) r->golden_correct += correct_of(e, p, g->forced, &answer);
        r->golden_forced_right += answer;
        r->golden_right += golden;
        r->right += row->right, r->forced_right += row->forced_right, r->same_answer += row->same_answer;
        r->tokens += row->tokens, r->correct += row->correct;
        r->lost += golden && !row->right, r->gained += !golden && row->right;
        r->bits = XXH3_64bits_withSeed(&row->bits, sizeof row->bits, r->bits);
    }
    for (int mode = 0; mode < HM_EVAL_MODES && done; mode++) {
        done = level_of(r, (hm_eval_mode)mode, r->problems, &r->level[mode]) &&
               level_of(r, (hm_eval_mode)mode, judged, &r->judged[mode]);
        if (done) continue;
        r->end = HM_EVAL_FAILED;
        snprintf(r->why, sizeof r->why, "no memory for the divergences");
    }
    free(r->token_kl);
    free(r->token_difference);
    r->token_kl = r->token_difference = NULL;
}

void hm_eval_result_free(hm_eval_result *r) {
    free(r->row);
    *r = (hm_eval_result){0};
}
