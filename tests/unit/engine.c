/* engine: answers that are right, the same bits for any batch, chunk, block size and thread count, requests out of range, the
 * errors of an op, what the observer and the table of functions see. */
#include <criterion/criterion.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../model/model.h"

static char why[512];
static hm_model *model;
static hm_problems *problems;

static void open_model(void) {
    omp_set_num_threads(
        1); /* tests run side by side already, and waiting for a thread that is not running takes long */
    model = hm_model_open("data/gsm8k/model.safetensors", why, sizeof why);
    cr_assert_not_null(model, "%s", why);
    problems = hm_problems_open("data/gsm8k/problems.jsonl", hm_model_sizes_of(model)->vocab, why, sizeof why);
    cr_assert_not_null(problems, "%s", why);
}
static void close_model(void) {
    hm_problems_close(problems);
    hm_model_close(model);
}
TestSuite(engine, .init = open_model, .fini = close_model);

static hm_model_batch *batch_of(hm_model_options options) {
    hm_model_batch *batch = hm_model_batch_new(model, &options, why, sizeof why);
    cr_assert_not_null(batch, "%s", why);
    return batch;
}

static hm_model_request forced(const hm_problem *p) {
    return (hm_model_request){.prompt = p->prompt,
                              .prompt_length = p->prompt_length,
                              .position = p->position,
                              .given = p->given,
                              .most = p->given_length};
}

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

/* ---- the same bits -------------------------------------------------------------------------------------------------- */

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

/* ---- requests ------------------------------------------------------------------------------------------------------- */

static void run_refused(hm_model_batch *batch, hm_model_request r, hm_status status, const char *sentence) {
    cr_expect_eq(hm_model_run(batch, 1, &r, NULL, why, sizeof why), status);
    cr_expect_not_null(strstr(why, sentence), "\"%s\" is not in \"%s\"", sentence, why);
}

Test(engine, requests_out_of_range_are_refused) {
    int32_t tokens[] = {1, 41, 288, -1};
    hm_model_batch *batch = batch_of((hm_model_options){.requests = 1, .length = 3, .positions = 5});
    hm_model_request r = {.prompt = tokens, .prompt_length = 2, .most = 2};
    cr_expect_eq(hm_model_run(batch, 0, NULL, NULL, why, sizeof why), HM_OK);
    cr_expect_eq(hm_model_run(batch, 1, &r, NULL, why, sizeof why), HM_OK, "%s", why);
    r.prompt_length = 0;
    run_refused(batch, r, HM_BAD_PARAM, "request 0 has a prompt of 0 tokens and asks for 2 more");
    r.prompt_length = 4;
    run_refused(batch, r, HM_BAD_PARAM, "has a prompt of 4 tokens");
    r.prompt_length = 2, r.most = 3;
    run_refused(batch, r, HM_BAD_PARAM, "asks for 3 more; each has to be 1 or more, and all but the last fit in 3");
    r.most = 0;
    run_refused(batch, r, HM_BAD_PARAM, "asks for 0 more");
    r.most = 2, r.position = 3;
    run_refused(batch, r, HM_BAD_PARAM, "is at position 3 with 3 tokens; there are 5 positions");
    r.position = -1;
    run_refused(batch, r, HM_BAD_PARAM, "is at position -1");
    r.position = 0, r.prompt = tokens + 1;
    run_refused(batch, r, HM_BAD_VALUE, "request 0 has token 288; it has to be 0 to 287");
    r.prompt = tokens, r.given = tokens + 2;
    run_refused(batch, r, HM_BAD_VALUE, "has token 288");
    r.given = tokens + 3, r.most = 1;
    run_refused(batch, r, HM_BAD_VALUE, "has token -1");
    hm_model_batch_free(batch);
    hm_model_batch_free(NULL);
}

Test(engine, options_out_of_range_are_refused) {
    static const struct {
        hm_model_options options;
        const char *sentence;
    } bad[] = {{{.requests = -1}, "requests is -1; it has to be 1 to 65536, or 0 for 64"},
               {{.length = 4097}, "length is 4097"},
               {{.block_size = -7}, "block_size is -7"},
               {{.positions = 4097}, "positions is 4097; it has to be 1 to 4096, or 0 for 4096"},
               {{.requests = 65536, .length = 4096, .block_size = 65536}, "are 2^31 slots or more"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_expect_null(hm_model_batch_new(model, &bad[i].options, why, sizeof why));
        cr_expect_not_null(strstr(why, bad[i].sentence), "%s", why);
    }
}

/* ---- the table and the observer ------------------------------------------------------------------------------------- */

static hm_status fails_in_layer_2(void *with, const hm_model_call *call, const void *args, char *text, size_t size) {
    int *calls = with;
    if (call->layer == 2 && call->decode) return snprintf(text, size, "%s", calls ? "on purpose" : ""), HM_BAD_VALUE;
    if (calls) ++*calls;
    return call->op->ref(args);
}

Test(engine, an_op_that_fails_is_named_and_ends_the_run) {
    int calls = 0;
    hm_model_options options = {.requests = 1};
    options.table.of[HM_MODEL_top_k_per_row] = (hm_model_function){fails_in_layer_2, &calls};
    hm_model_batch *batch = batch_of(options);
    hm_model_request r = forced(hm_problems_at(problems, 0));
    run_refused(batch, r, HM_BAD_VALUE, "layer 2, top_k_per_row (d0.l2.top_k): bad_value: on purpose");
    cr_expect_eq(calls, 4 + 2);
    hm_model_batch_free(batch);
    options.table.of[HM_MODEL_top_k_per_row].with = NULL;
    batch = batch_of(options);
    cr_assert_eq(hm_model_run(batch, 1, &r, NULL, why, sizeof why), HM_BAD_VALUE);
    cr_expect_str_eq(why, "layer 2, top_k_per_row (d0.l2.top_k): bad_value");
    hm_model_batch_free(batch);
}

static hm_status no_table(void *with, const hm_model_call *call, const void *args, char *text, size_t size) {
    (void)with, (void)call, (void)args;
    return snprintf(text, size, "not here"), HM_UNSUPPORTED;
}

Test(engine, a_rope_table_that_fails_is_the_end_of_a_batch) {
    hm_model_options options = {0};
    options.table.of[HM_MODEL_rope_table].run = no_table;
    cr_expect_null(hm_model_batch_new(model, &options, why, sizeof why));
    cr_expect_str_eq(why, "rope_table (rope_table): unsupported: not here");
}

typedef struct {
    int64_t before, after, of[HM_MODEL_OPS], steps, chunks;
    char last[64];
} counts;

static void count_before(void *with, const hm_model_call *call, const void *args) {
    counts *c = with;
    char name[64];
    cr_assert_eq(c->before, c->after);
    cr_assert_eq(call->op->check(args), HM_OK, "%s", hm_error()); /* what an op is handed is legal */
    hm_model_call_name(call, name, sizeof name);
    cr_assert_str_neq(name, c->last);
    strcpy(c->last, name);
    c->before++, c->of[call->index]++;
    if (!strcmp(call->site, "embed")) *(call->decode ? &c->steps : &c->chunks) += 1;
}
static void count_after(void *with, const hm_model_call *call, const void *args, hm_status status) {
    (void)call, (void)args;
    cr_assert_eq(status, HM_OK);
    ((counts *)with)->after++;
}

Test(engine, the_observer_sees_every_call) {
    counts c = {0};
    hm_model_batch *batch = batch_of((hm_model_options){.requests = 2, .observer = {count_before, count_after, &c}});
    cr_expect_str_eq(c.last, "rope_table");
    hm_model_request r[2] = {forced(hm_problems_at(problems, 0)), forced(hm_problems_at(problems, 1))};
    r[0].most = r[1].most = 3;
    cr_assert_eq(hm_model_run(batch, 2, r, NULL, why, sizeof why), HM_OK, "%s", why);
    cr_expect_str_eq(c.last, "d1.head");
    cr_expect_eq(c.chunks, 1);
    cr_expect_eq(c.steps, 2);
    cr_expect_eq(c.before, c.after);
    for (int op = 0; op < HM_MODEL_OPS; op++) {
        cr_expect_gt(c.of[op], 0, "%s is never called", hm_model_op_info(op)->name);
        cr_expect_eq(hm_model_op_named(hm_model_op_info(op)->name), op);
    }
    cr_expect_eq(c.of[HM_MODEL_fp8_mqa_logits], 4);
    cr_expect_eq(c.of[HM_MODEL_fp8_paged_mqa_logits], 8);
    cr_expect_eq(c.of[HM_MODEL_linear], 3 * (4 * 17 + 1));
    cr_expect_eq(hm_model_op_named("mla_prefill"), -1);
    hm_model_batch_free(batch);
}
