/* engine.h: the model of data/gsm8k and its problems, for the tests of the engine. */
#ifndef HM_TESTS_ENGINE_H
#define HM_TESTS_ENGINE_H

#include <criterion/criterion.h>
#include <omp.h>

#include "../../model/model.h"

static char why[512];
static hm_model *model;
static hm_problems *problems;

static void open_model(void) {
    /* Tests run side by side already, and waiting for a thread that is not running takes long. */
    omp_set_num_threads(1);
    model = hm_model_open("data/gsm8k/model.safetensors", why, sizeof why);
    cr_assert_not_null(model, "%s", why);
    problems = hm_problems_open("data/gsm8k/problems.jsonl", hm_model_sizes_of(model)->vocab, why, sizeof why);
    cr_assert_not_null(problems, "%s", why);
}
static void close_model(void) {
    hm_problems_close(problems);
    hm_model_close(model);
}

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

#endif
