/* agreement: the engine's logits against PyTorch's, on the problems of data/gsm8k/torch_logits.safetensors: those of
 * the reference in scripts/gsm8k/model.py, which rounds where the ops do, and those of the training code, which does
 * not take the queries to the latent space. They have to differ by no more than legal implementations of the ops do:
 * the floor is the largest difference between any two of the engine with the library's functions and with the first,
 * second, .. variant of every op at once. */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../certify/faults.h"
#include "../../certify/safetensors.h"
#include "../../model/model.h"

enum { PROBLEMS = 6, MIXTURES = 6, VOCAB = 288 };

/* Of each problem the logits that predict the solution's tokens. */
typedef struct {
    const float *of[PROBLEMS];
} logits;

typedef struct {
    int64_t length, rows; /* of a problem: tokens, and those of its solution */
    const int32_t *tokens;
    int32_t position;
} problem;

static char why[512];
static problem problems[PROBLEMS];

/* ---- two sets of logits ------------------------------------------------------------------------------------------ */

typedef struct {
    double error;      /* |a - b| / |a| over all logits of a problem; the largest */
    double divergence; /* of the next token's distribution, KL(a, b) in nats, mean over a problem; the largest */
} difference;

static double log_sum(const float *v) {
    double sum = 0, top = v[0];
    for (int i = 1; i < VOCAB; i++) top = v[i] > top ? v[i] : top;
    for (int i = 0; i < VOCAB; i++) sum += exp(v[i] - top);
    return top + log(sum);
}

static difference compare(const logits *x, const logits *y) {
    difference worst = {0, 0};
    for (int p = 0; p < PROBLEMS; p++) {
        double off = 0, size = 0, divergence = 0;
        for (int64_t row = 0; row < problems[p].rows; row++) {
            const float *a = x->of[p] + row * VOCAB, *b = y->of[p] + row * VOCAB;
            double za = log_sum(a), zb = log_sum(b);
            for (int i = 0; i < VOCAB; i++) {
                off += ((double)a[i] - b[i]) * ((double)a[i] - b[i]), size += (double)a[i] * a[i];
                divergence += exp(a[i] - za) * ((a[i] - za) - (b[i] - zb));
            }
        }
        worst.error = fmax(worst.error, sqrt(off / size));
        worst.divergence = fmax(worst.divergence, divergence / (double)problems[p].rows);
    }
    return worst;
}

/* ---- the engine -------------------------------------------------------------------------------------------------- */

static hm_status run_variant(void *with, const hm_model_call *call, const void *args, char *text, size_t size) {
    const hm_variant *variant = with;
    (void)call;
    hm_status status = variant->run(variant->variation, args);
    snprintf(text, size, "%s", status ? hm_error() : "");
    return status;
}

/* The library's functions for 0; else variant number `mixture` of each op, counted from 1. */
static hm_model_table mixture_of(int mixture) {
    hm_model_table table = {0};
    int seen[HM_MODEL_OPS] = {0};
    for (int i = 0; i < hm_variant_count() && mixture; i++) {
        int op = hm_model_op_named(hm_variant_at(i)->op);
        if (op >= 0 && ++seen[op] == mixture) table.of[op] = (hm_model_function){run_variant, (void *)hm_variant_at(i)};
    }
    return table;
}

static void see(void *with, int64_t request, int64_t at, const float *row) {
    logits *to = with;
    int64_t first = problems[request].length - 1 - problems[request].rows;
    if (at >= first) memcpy((float *)to->of[request] + (at - first) * VOCAB, row, VOCAB * sizeof *row);
}

static bool run(const hm_model *model, int mixture, logits *to, char *text, size_t size) {
    hm_model_options options = {.requests = PROBLEMS, .length = 160, .table = mixture_of(mixture)};
    hm_model_batch *batch = hm_model_batch_new(model, &options, text, size);
    hm_model_request requests[PROBLEMS];
    for (int p = 0; p < PROBLEMS; p++) {
        int64_t prompt = problems[p].length - problems[p].rows;
        to->of[p] = calloc((size_t)(problems[p].rows * VOCAB), sizeof(float));
        requests[p] = (hm_model_request){.prompt = problems[p].tokens,
                                         .prompt_length = prompt,
                                         .position = problems[p].position,
                                         .given = problems[p].tokens + prompt,
                                         .most = problems[p].rows};
    }
    bool fine = batch && hm_model_run(batch, PROBLEMS, requests, &(hm_model_logits){see, to}, text, size) == HM_OK;
    hm_model_batch_free(batch);
    return fine;
}

/* ---- PyTorch's --------------------------------------------------------------------------------------------------- */

static const void *tensor(hm_safetensors *file, int p, const char *name, hm_dtype dtype, int64_t *rows) {
    char full[40];
    snprintf(full, sizeof full, "%d.%s", p, name);
    hm_safetensors_tensor *t = hm_safetensors_find(file, full);
    cr_assert(t && t->dtype == dtype && (t->ndim == 1 || t->shape[1] == VOCAB), "%s", full);
    *rows = t->shape[0];
    return hm_safetensors_aligned(t);
}

Test(agreement, with_pytorch_within_what_legal_variants_make) {
    hm_model *model = hm_model_open("data/gsm8k/model.safetensors", why, sizeof why);
    hm_safetensors *file = hm_safetensors_open("data/gsm8k/torch_logits.safetensors", why, sizeof why);
    cr_assert(model && file, "%s", why);
    logits reference, trained, mixtures[MIXTURES + 1];
    for (int p = 0; p < PROBLEMS; p++) {
        int64_t one, rows;
        problems[p].tokens = tensor(file, p, "ids", HM_I32, &problems[p].length);
        problems[p].position = *(const int32_t *)tensor(file, p, "offset", HM_I32, &one);
        reference.of[p] = tensor(file, p, "logits", HM_F32, &problems[p].rows);
        trained.of[p] = tensor(file, p, "trained_logits", HM_F32, &rows);
        cr_assert(one == 1 && rows == problems[p].rows && rows < problems[p].length);
    }
    bool fine = true;
#pragma omp parallel for schedule(dynamic) reduction(&& : fine)
    for (int i = 0; i <= MIXTURES; i++) {
        char text[512] = "";
        fine = run(model, i, &mixtures[i], text, sizeof text) && fine;
        if (*text) fprintf(stderr, "mixture %d: %s\n", i, text);
    }
    cr_assert(fine);
    difference floor = {0, 0};
    for (int i = 0; i <= MIXTURES; i++)
        for (int j = 0; j <= MIXTURES; j++) {
            difference d = compare(&mixtures[i], &mixtures[j]);
            floor.error = fmax(floor.error, d.error), floor.divergence = fmax(floor.divergence, d.divergence);
        }
    difference a = compare(&reference, &mixtures[0]), b = compare(&trained, &mixtures[0]);
    printf(
        "relative error of the logits, mean KL of a problem: legal variants %.5f, %.2e; PyTorch's reference %.5f, "
        "%.2e; training code %.5f, %.2e\n",
        floor.error, floor.divergence, a.error, a.divergence, b.error, b.divergence);
    cr_expect_gt(floor.error, 0);
    cr_expect(a.error <= floor.error && a.divergence <= floor.divergence);
    cr_expect(b.error <= floor.error && b.divergence <= floor.divergence);
    for (int i = 0; i <= MIXTURES; i++)
        for (int p = 0; p < PROBLEMS; p++) free((void *)mixtures[i].of[p]);
    hm_safetensors_close(file);
    hm_model_close(model);
}
