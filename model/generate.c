/* generate.c: requests in groups: their prompts in chunks, then one token a step for all that are not done. */
#include <stdio.h>

#include "batch.h"

typedef struct {
    hm_model_batch *b;
    const hm_model_logits *logits;
    hm_model_request *requests; /* of the group; request i has place i in the batch */
    int64_t count, begin;       /* how many, and the number of the first in the run */
    int64_t chunks, steps;      /* so far in the run */
} group;

/* ---- inputs of a step -------------------------------------------------------------------------------------------- */

/* Row `row` of the step is token `at` of the request in place `place`, which is number n of the step. */
static void fill_row(group *g, int64_t row, int64_t n, int64_t place, int64_t at, int32_t token) {
    const hm_model_inputs *in = &g->b->in;
    ((int32_t *)in->ids.data)[row] = token;
    ((int64_t *)in->positions.data)[row] = g->requests[place].position + at;
    ((int64_t *)in->slots.data)[row] = hm_model_slot(g->b, place, at);
    ((int32_t *)in->request.data)[row] = (int32_t)n;
    ((int32_t *)in->length.data)[row] = (int32_t)(at + 1);
}

static void fill_blocks(group *g, int64_t n, int64_t place) {
    int32_t *row = (int32_t *)g->b->in.block_table.data + n * g->b->blocks;
    for (int64_t i = 0; i < g->b->blocks; i++) row[i] = (int32_t)hm_model_block(g->b, place, i);
}

/* ---- outputs of a step ------------------------------------------------------------------------------------------- */

static const float *row_logits(const group *g, int64_t row) {
    return (const float *)g->b->scratch.logits.data + row * g->b->model->sizes.vocab;
}

static void show(const group *g, int64_t row, int64_t place, int64_t at) {
    if (g->logits && g->logits->see) g->logits->see(g->logits->with, g->begin + place, at, row_logits(g, row));
}

/* The largest logit, the lowest of equal ones; a NaN is less than all. */
static int32_t largest(const float *logits, int64_t count) {
    int64_t best = 0;
    for (int64_t i = 1; i < count; i++)
        if (logits[i] > logits[best] || (logits[best] != logits[best] && logits[i] == logits[i])) best = i;
    return (int32_t)best;
}

/* Takes the prediction in `row`. */
static void predict(group *g, int64_t row, int64_t place) {
    hm_model_request *r = &g->requests[place];
    int32_t token = largest(row_logits(g, row), g->b->model->sizes.vocab);
    if (r->out) r->out[r->count] = token;
    r->next = r->given ? r->given[r->count] : token;
    r->count++;
}

static bool done(const hm_model_request *r) { return r->count == r->most || (!r->given && r->next == HM_MODEL_EOS); }

/* ---- prompts, then tokens ---------------------------------------------------------------------------------------- */

/* Reads the prompts from `place` on, as many as fit in a chunk; returns the place behind the last. */
static int64_t read_prompts(group *g, int64_t place) {
    const hm_model_inputs *in = &g->b->in;
    hm_model_step step = {.number = g->chunks++};
    int64_t end = place;
    int32_t *first = in->first.data, *last = in->last.data, *cumulative = in->cumulative.data;
    do {
        const hm_model_request *r = &g->requests[end];
        cumulative[step.requests] = (int32_t)step.rows;
        for (int64_t at = 0; at < r->prompt_length; at++) {
            first[step.rows + at] = (int32_t)step.rows;
            last[step.rows + at] = (int32_t)(step.rows + at + 1);
            fill_row(g, step.rows + at, step.requests, end, at, r->prompt[at]);
        }
        fill_blocks(g, step.requests, end);
        step.rows += r->prompt_length, step.requests++, end++;
    } while (end < g->count && step.rows + g->requests[end].prompt_length <= g->b->options.chunk);
    cumulative[step.requests] = (int32_t)step.rows;
    hm_model_forward(g->b, &step);
    if (g->b->status) return end;
    for (int64_t row = 0; place < end; place++) {
        for (int64_t at = 0; at < g->requests[place].prompt_length; at++) show(g, row++, place, at);
        predict(g, row - 1, place);
    }
    return end;
}

/* One token of each request that is not done; false if there is none. */
static bool decode(group *g) {
    hm_model_step step = {.decode = true, .number = g->steps};
    int64_t row = 0;
    for (int64_t place = 0; place < g->count; place++) {
        const hm_model_request *r = &g->requests[place];
        if (done(r)) continue;
        fill_row(g, step.rows, step.rows, place, r->prompt_length + r->count - 1, r->next);
        fill_blocks(g, step.rows++, place);
    }
    step.requests = step.rows;
    if (step.rows == 0) return false;
    g->steps++;
    hm_model_forward(g->b, &step);
    for (int64_t place = 0; place < g->count && !g->b->status; place++) {
        hm_model_request *r = &g->requests[place];
        if (done(r)) continue;
        show(g, row, place, r->prompt_length + r->count - 1);
        predict(g, row++, place);
    }
    return !g->b->status;
}

static hm_status run_group(group *g) {
    hm_model_batch_clear(g->b);
    for (int64_t place = 0; place < g->count && !g->b->status;) place = read_prompts(g, place);
    while (!g->b->status && decode(g)) continue;
    return g->b->status;
}

/* ---- a run ------------------------------------------------------------------------------------------------------- */

/* Is what one request asks for in range? */
static hm_status check(const hm_model_batch *b, int64_t i, const hm_model_request *r, char *why, size_t size) {
    const hm_model_sizes *z = &b->model->sizes;
    int64_t length = b->options.length;
    if (!r->prompt || r->prompt_length < 1 || r->prompt_length > length || r->most < 1 ||
        r->most > length + 1 - r->prompt_length) {
        snprintf(why, size,
                 "request %lld has a prompt of %lld tokens and asks for %lld more; each has to be 1 or more, and all "
                 "but the last fit in %lld",
                 (long long)i, (long long)r->prompt_length, (long long)r->most, (long long)length);
        return HM_BAD_PARAM;
    }
    if (r->position < 0 || r->position > b->options.positions - (r->prompt_length + r->most - 1)) {
        snprintf(why, size, "request %lld is at position %lld with %lld tokens; there are %lld positions", (long long)i,
                 (long long)r->position, (long long)(r->prompt_length + r->most - 1), (long long)b->options.positions);
        return HM_BAD_PARAM;
    }
    for (int64_t t = 0; t < r->prompt_length + (r->given ? r->most : 0); t++) {
        int32_t token = t < r->prompt_length ? r->prompt[t] : r->given[t - r->prompt_length];
        if (token >= 0 && token < z->vocab) continue;
        snprintf(why, size, "request %lld has token %d; it has to be 0 to %lld", (long long)i, (int)token,
                 (long long)z->vocab - 1);
        return HM_BAD_VALUE;
    }
    return HM_OK;
}

hm_status hm_model_run(hm_model_batch *b, int64_t n, hm_model_request *requests, const hm_model_logits *logits,
                       char *why, size_t size) {
    group g = {.b = b, .logits = logits};
    hm_status status = HM_OK;
    for (int64_t i = 0; i < n && !status; i++) {
        requests[i].count = 0;
        status = check(b, i, &requests[i], why, size);
    }
    b->status = HM_OK, b->why = why, b->why_size = size;
    for (; g.begin < n && !status; g.begin += g.count) {
        g.requests = requests + g.begin;
        g.count = n - g.begin < b->options.requests ? n - g.begin : b->options.requests;
        status = run_group(&g);
    }
    return status;
}
