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

/* ---- the golden path ------------------------------------------------------------------------------------------------*/

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

/* ---- another path ---------------------------------------------------------------------------------------------------*/

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

static void add(hm_eval_result *r, int64_t row, bool greedy, int64_t place, double kl, double difference) {
    int64_t at = (2 * row + greedy) * HM_EVAL_MOST + place;
    r->token_kl[at] = kl, r->token_difference[at] = difference;
}

static void take_forced(const hm_eval *e, const hm_problem *p, const float *logits, int64_t at, hm_eval_result *r) {
    hm_eval_row *row = &r->row[at];
    const float *golden = e->golden[row->at].forced;
    int64_t mark = behind_mark(e, p->given, p->given_length);
    row->forced_right = mark < p->given_length;
    row->tokens = p->given_length;
    for (int64_t i = 0; i < p->given_length; i++) {
        double difference, kl = hm_kl(golden + i * e->vocab_size, logits + i * e->vocab_size, e->vocab_size, &difference);
        bool correct = largest(logits + i * e->vocab_size, e->vocab_size) == p->given[i];
        row->correct += correct;
        if (i >= mark && !correct) row->forced_right = false;
        add(r, at, false, i, kl, difference);
    }
}

static void take_greedy(const hm_eval *e, const hm_problem *p, const task_answer *a, const float *logits, int64_t at,
                        bool along, hm_eval_result *r) {
    hm_eval_row *row = &r->row[at];
    const golden_answer *golden = &e->golden[row->at];
    int64_t count = words(a->count), same = 0;
    char answer[64];
    for (int64_t i = 0; i < count && i < golden->count; i++, same++) {
        double difference;
        double kl = hm_kl(golden->greedy + i * e->vocab_size, logits + i * e->vocab_size, e->vocab_size, &difference);
        add(r, at, true, i, kl, difference);
        if (a->out[i] != golden->out[i]) break;
    }
    if (along) return;
    row->same_answer = same == count && count == golden->count;
    row->right = hm_model_answer(e->vocab, a->out, count, answer, sizeof answer) && !strcmp(answer, p->answer);
}

void compare_take(hm_eval *e, const task *t, int64_t first, hm_eval_result *r) {
    for (int64_t i = 0; i < t->problems; i++) {
        const hm_problem *p = hm_eval_problem(e, t->problem[i]);
        task_answer *a = task_answer_of(t, e->vocab_size, i);
        float *forced = task_logits(a, e->vocab_size, false), *greedy = task_logits(a, e->vocab_size, true);
        for (int64_t w = 0; w < HM_EVAL_MOST; w++) /* what a stray write may have left is no word */
            if (a->out[w] < 0 || a->out[w] >= e->vocab_size) a->out[w] = HM_MODEL_PAD;
        if (t->teacher_forced) take_forced(e, p, forced, first + i, r);
        if (t->greedy) take_greedy(e, p, a, greedy, first + i, t->along, r);
        uint64_t bits = XXH3_64bits(a->out, (size_t)words(a->count) * sizeof *a->out);
        if (t->teacher_forced) bits = XXH3_64bits_withSeed(forced, logit_bytes(e, p->given_length), bits);
        if (t->greedy) bits = XXH3_64bits_withSeed(greedy, logit_bytes(e, a->count), bits);
        r->row[first + i].bits = bits;
    }
    for (int op = 0; op < HM_MODEL_OPS; op++) r->calls[op] += t->calls[op], r->declined[op] += t->declined[op];
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

/* Mean over the tokens of one problem that were compared; all of them go to list. */
static double gather(hm_eval_result *r, int64_t row, bool greedy, hm_kl_list *list) {
    double sum = 0;
    int64_t count = 0;
    for (int64_t i = 0; i < HM_EVAL_MOST; i++) {
        int64_t at = (2 * row + greedy) * HM_EVAL_MOST + i;
        if (r->token_kl[at] < 0) continue;
        sum += r->token_kl[at], count++;
        if (hm_kl_add(list, r->token_kl[at], r->token_difference[at])) continue;
        r->end = HM_EVAL_FAILED;
        snprintf(r->why, sizeof r->why, "no memory for the divergences");
    }
    return count ? sum / (double)count : 0;
}

static bool right_on_golden(const hm_eval *e, int64_t problem) {
    const golden_answer *g = &e->golden[problem];
    char answer[64];
    return hm_model_answer(e->vocab, g->out, g->count, answer, sizeof answer) &&
           !strcmp(answer, hm_eval_problem(e, problem)->answer);
}

void compare_finish(const hm_eval *e, hm_eval_result *r) {
    bool done = r->end == HM_EVAL_DONE && r->row && r->token_kl && r->token_difference;
    for (int64_t i = 0; i < r->problems && done; i++) {
        hm_eval_row *row = &r->row[i];
        bool golden = e->options.greedy && right_on_golden(e, row->at);
        r->right += row->right, r->forced_right += row->forced_right, r->same_answer += row->same_answer;
        r->tokens += row->tokens, r->correct += row->correct;
        r->lost += golden && !row->right, r->gained += !golden && row->right;
        r->golden_right += golden;
        row->forced_kl = gather(r, i, false, &r->forced);
        row->greedy_kl = gather(r, i, true, &r->greedy);
        r->bits = XXH3_64bits_withSeed(&row->bits, sizeof row->bits, r->bits);
    }
    free(r->token_kl);
    free(r->token_difference);
    r->token_kl = r->token_difference = NULL;
}

void hm_eval_result_free(hm_eval_result *r) {
    free(r->row);
    hm_kl_free(&r->forced);
    hm_kl_free(&r->greedy);
    *r = (hm_eval_result){0};
}
