/* engine: answers that are right, and the same bits for any batch, chunk, block size and thread count. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

TestSuite(engine, .init = open_model, .fini = close_model);

Test(engine, answers_are_right) {
    enum { N = 4, MOST = 100 };
    hm_vocab *vocab = hm_vocab_open("data/gsm8k/vocab.json", why, sizeof why);
    cr_assert_not_null(vocab, "%s", why);
    hm_model_batch *batch = batch_of((hm_model_options){0});
    hm_model_request requests[N];
    int32_t out[N][MOST];
    bool far = false;
    for (int i = 0; i < N; i++) {
        requests[i] = forced(hm_problems_at(problems, 8 * i + 1)), far = far || requests[i].position == 3000;
        requests[i].given = NULL, requests[i].most = MOST, requests[i].out = out[i];
        requests[i].count = 7; /* an output: what it was is nothing to the run */
    }
    cr_assert(far, "none of them is at position 3000");
    cr_assert_eq(hm_model_run(batch, N, requests, NULL, why, sizeof why), HM_OK, "%s", why);
    for (int i = 0; i < N; i++) {
        const hm_problem *p = hm_problems_at(problems, 8 * i + 1);
        char answer[16] = "";
        cr_expect(hm_model_answer(vocab, out[i], requests[i].count, answer, sizeof answer));
        cr_expect_str_eq(answer, p->answer);
        cr_expect_eq(requests[i].count, p->given_length);
        cr_expect_arr_eq(out[i], p->given, (size_t)p->given_length * sizeof **out); /* word for word */
    }
    hm_model_batch_free(batch);
    hm_vocab_close(vocab);
}

/* ---- the same bits ----------------------------------------------------------------------------------------------- */

enum { SOME = 3 };

typedef struct {
    float *logits[SOME]; /* [length, vocab] */
    int64_t vocab, next[SOME];
} seen;

static void see(void *with, int64_t request, int64_t at, const float *logits) {
    seen *s = with;
    cr_assert_eq(at, s->next[request]++);
    memcpy(s->logits[request] + at * s->vocab, logits, (size_t)s->vocab * sizeof *logits);
}

static int64_t length_of(int i) {
    return hm_problems_at(problems, i)->prompt_length + hm_problems_at(problems, i)->given_length - 1;
}

/* The logits of every token of SOME problems; alone: each in a run of its own; all_prompt: with nothing to decode. */
static seen logits_of(hm_model_options options, bool alone, bool all_prompt) {
    seen s = {.vocab = hm_model_sizes_of(model)->vocab};
    hm_model_batch *batch = batch_of(options);
    hm_model_request requests[SOME];
    static int32_t tokens[SOME][192];
    for (int i = 0; i < SOME; i++) {
        const hm_problem *p = hm_problems_at(problems, i);
        s.logits[i] = calloc((size_t)(length_of(i) * s.vocab), sizeof(float));
        requests[i] = forced(p);
        if (!all_prompt) continue;
        memcpy(tokens[i], p->prompt, (size_t)p->prompt_length * sizeof(int32_t));
        memcpy(tokens[i] + p->prompt_length, p->given, (size_t)(p->given_length - 1) * sizeof(int32_t));
        requests[i] =
            (hm_model_request){.prompt = tokens[i], .prompt_length = length_of(i), .position = p->position, .most = 1};
    }
    for (int i = 0; i < (alone ? SOME : 1); i++) {
        seen one = {.logits = {s.logits[i]}, .vocab = s.vocab};
        hm_model_logits look = {see, alone ? &one : &s};
        cr_assert_eq(hm_model_run(batch, alone ? 1 : SOME, requests + i, &look, why, sizeof why), HM_OK, "%s", why);
        if (alone) s.next[i] = one.next[0];
    }
    for (int i = 0; i < SOME; i++) cr_assert_eq(s.next[i], length_of(i));
    hm_model_batch_free(batch);
    return s;
}

static void same(const seen *a, seen b, const char *what) {
    for (int i = 0; i < SOME; i++) {
        cr_expect_eq(memcmp(a->logits[i], b.logits[i], (size_t)(length_of(i) * a->vocab) * sizeof(float)), 0,
                     "%s: problem %d has other logits", what, i);
        free(b.logits[i]);
    }
}

Test(engine, bits_do_not_depend_on_batch_chunk_block_size_or_threads) {
    seen a = logits_of((hm_model_options){.requests = SOME, .length = 160}, false, false);
    same(&a, logits_of((hm_model_options){.requests = 2, .length = 150, .chunk = 1, .block_size = 1}, false, false),
         "two at a time, block size 1");
    same(&a, logits_of((hm_model_options){.requests = 64, .length = 160, .chunk = 90, .block_size = 7}, false, false),
         "room for 64, block size 7");
    same(&a, logits_of((hm_model_options){0}, true, false), "each alone");
    same(&a, logits_of((hm_model_options){.requests = SOME}, false, true), "all of it as a prompt");
    omp_set_num_threads(2);
    same(&a, logits_of((hm_model_options){.requests = SOME}, false, true), "two threads");
    for (int i = 0; i < SOME; i++) free(a.logits[i]);
}

Test(engine, batches_run_side_by_side) {
    seen a = logits_of((hm_model_options){.requests = SOME}, false, false), b[3];
#pragma omp parallel for num_threads(3)
    for (int i = 0; i < 3; i++) b[i] = logits_of((hm_model_options){.requests = i + 1}, i == 1, false);
    for (int i = 0; i < 3; i++) same(&a, b[i], "side by side");
    for (int i = 0; i < SOME; i++) free(a.logits[i]);
}

/* with: whether it leaves its outputs as they were. */
static hm_status may_do_nothing(void *with, const hm_model_call *call, const void *args, char *text, size_t size) {
    (void)text, (void)size;
    return *(const bool *)with ? HM_OK : call->op->run(args);
}

/* Even with a function that leaves in its outputs what was there. */
static void nothing_is_left(hm_model_op op) {
    bool idle = true;
    hm_model_options options = {.requests = SOME};
    options.table.of[op] = (hm_model_function){may_do_nothing, &idle};
    seen a = logits_of(options, false, false), b = {.vocab = a.vocab};
    hm_model_batch *batch = batch_of(options);
    hm_model_request before[2] = {forced(hm_problems_at(problems, 30)), forced(hm_problems_at(problems, 31))}, r[SOME];
    for (int i = 0; i < SOME; i++) {
        r[i] = forced(hm_problems_at(problems, i));
        b.logits[i] = calloc((size_t)(length_of(i) * b.vocab), sizeof(float));
    }
    idle = false;
    cr_assert_eq(hm_model_run(batch, 2, before, NULL, why, sizeof why), HM_OK, "%s", why);
    idle = true;
    cr_assert_eq(hm_model_run(batch, SOME, r, &(hm_model_logits){see, &b}, why, sizeof why), HM_OK, "%s", why);
    same(&a, b, hm_model_op_info(op)->name);
    for (int i = 0; i < SOME; i++) free(a.logits[i]);
    hm_model_batch_free(batch);
}

Test(engine, what_ran_before_has_no_influence) {
    nothing_is_left(HM_MODEL_concat_mla_q);
    nothing_is_left(HM_MODEL_concat_and_cache_mla);
    nothing_is_left(HM_MODEL_indexer_k_quant_and_cache);
}
