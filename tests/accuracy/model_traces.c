/* model_traces FILE: records the small model's own activations on two problems, every op in order, from the library's
 * own functions. What is there of them is small enough to ship:
 *   rope_table   of the first 240 positions; the second problem is at position 200
 *   p0           the first 14 tokens of both problems, read together: the embedding and the first layer
 *   d16          the 17th token after that: the embedding, the first layer, and what follows the last
 * Run it in the repository's root. */
#include <stdio.h>

#include "../../model/model.h"

enum { PROMPT = 14, STEP = 16, POSITION = 200 };

static bool want(void *with, const hm_model_call *call) {
    (void)with;
    if (call->step < 0) return true;
    if (call->decode) return call->step == STEP && call->layer <= 0;
    return call->layer == 0 || (call->layer < 0 && call->index == HM_MODEL_embedding);
}

static hm_status record(const hm_model *model, const hm_problems *problems, const char *path, char *why, size_t size) {
    hm_model_recorder *recorder = hm_model_recorder_new(want, NULL);
    if (!recorder) return snprintf(why, size, "no memory for a recorder"), HM_NO_MEMORY;
    hm_model_options options = {.requests = 2,
                                .length = PROMPT + STEP + 1,
                                .block_size = 5,
                                .positions = POSITION + 40,
                                .observer = hm_model_recorder_observer(recorder)};
    hm_model_request requests[2];
    static const int number[] = {1, 5}; /* whose questions are long enough */
    for (int i = 0; i < 2; i++) {
        const hm_problem *p = hm_problems_at(problems, number[i]);
        requests[i] = (hm_model_request){.prompt = p->prompt,
                                         .prompt_length = PROMPT,
                                         .given = p->prompt + PROMPT,
                                         .most = STEP + 2,
                                         .position = i * POSITION};
    }
    hm_model_batch *batch = hm_model_batch_new(model, &options, why, size);
    hm_status status = batch ? hm_model_run(batch, 2, requests, NULL, why, size) : HM_INTERNAL;
    hm_model_batch_free(batch);
    hm_status saved = hm_model_recorder_save(recorder, status ? NULL : path, why, size);
    return status ? status : saved;
}

int main(int count, char **words) {
    char why[512] = "usage: model_traces FILE";
    hm_model *model = count == 2 ? hm_model_open("data/gsm8k/model.safetensors", why, sizeof why) : NULL;
    hm_problems *problems =
        model ? hm_problems_open("data/gsm8k/problems.jsonl", hm_model_sizes_of(model)->vocab, why, sizeof why) : NULL;
    hm_status status = problems ? record(model, problems, words[1], why, sizeof why) : HM_BAD_ARG;
    if (status) fprintf(stderr, "model_traces: %s\n", why);
    if (problems) hm_problems_close(problems);
    hm_model_close(model);
    return status ? 2 : 0;
}
