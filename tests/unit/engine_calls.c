/* engine_calls: requests and options out of range, the errors of an op, what the observer and the table of functions
 * see, and which token is taken. */
#include <hallmark/linear.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine.h"

TestSuite(engine_calls, .init = open_model, .fini = close_model);

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static void run_refused(hm_model_batch *batch, hm_model_request r, hm_status status, const char *sentence) {
    cr_expect_eq(hm_model_run(batch, 1, &r, NULL, why, sizeof why), status);
    cr_expect_not_null(strstr(why, sentence), "\"%s\" is not in \"%s\"", sentence, why);
}

Test(engine_calls, requests_out_of_range_are_refused) {
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

Test(engine_calls, options_out_of_range_are_refused) {
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

/* ---- the table and the observer ---------------------------------------------------------------------------------- */

static hm_status fails_in_layer_2(void *with, const hm_model_call *call, const void *args, char *text, size_t size) {
    int *calls = with;
    if (call->layer == 2 && call->decode) return snprintf(text, size, "%s", calls ? "on purpose" : ""), HM_BAD_VALUE;
    if (calls) ++*calls;
    return call->op->ref(args);
}

Test(engine_calls, an_op_that_fails_is_named_and_ends_the_run) {
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

/* The head's logits: all -1, but those that `with` says. */
typedef struct {
    int32_t at[4];
    float value[4];
} chosen;

static hm_status head_says(void *with, const hm_model_call *call, const void *args, char *text, size_t size) {
    const hm_linear_args *a = args;
    const chosen *c = with;
    (void)text, (void)size;
    if (strcmp(call->site, "head")) return hm_linear(a);
    float *logits = a->out.data;
    for (int64_t i = 0; i < hm_tensor_elements(&a->out); i++) logits[i] = -1;
    for (int64_t row = 0; row < a->out.shape[0]; row++)
        for (int i = 0; i < 4; i++) logits[row * a->out.shape[1] + c->at[i]] = c->value[i];
    return HM_OK;
}

Test(engine_calls, the_largest_logit_is_taken) {
    chosen c = {0};
    hm_model_options options = {.requests = 1};
    options.table.of[HM_MODEL_linear] = (hm_model_function){head_says, &c};
    hm_model_batch *batch = batch_of(options);
    static const struct {
        chosen logits;
        int32_t token;
    } cases[] = {{{{5, 9, 200, 287}, {0, 1, 2, 3}}, 287},
                 {{{5, 9, 200, 287}, {0, 2, 2, 1}}, 9}, /* the lowest of equal ones */
                 {{{0, 9, 200, 287}, {NAN, -2, NAN, -0.5f}}, 287},
                 {{{0, 9, 200, 287}, {-INFINITY, -2, INFINITY, NAN}}, 200}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t token = -1;
        hm_model_request r = {.prompt = (int32_t[]){1}, .prompt_length = 1, .most = 1, .out = &token};
        c = cases[i].logits;
        cr_assert_eq(hm_model_run(batch, 1, &r, NULL, why, sizeof why), HM_OK, "%s", why);
        cr_expect_eq(token, cases[i].token, "case %zu: %d", i, (int)token);
    }
    hm_model_batch_free(batch);
}

static hm_status no_table(void *with, const hm_model_call *call, const void *args, char *text, size_t size) {
    (void)with, (void)call, (void)args;
    return snprintf(text, size, "not here"), HM_UNSUPPORTED;
}

Test(engine_calls, a_rope_table_that_fails_is_the_end_of_a_batch) {
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

Test(engine_calls, the_observer_sees_every_call) {
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
