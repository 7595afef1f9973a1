/* noise.c: what legal implementations differ by. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../certify/faults.h"
#include "eval.h"

/* Where a class stands in an op's list, tightest first. */
static size_t place_of_class(const hm_op_info *op, const char *class) {
    const char *at = strstr(op->classes, class);
    return at ? (size_t)(at - op->classes) : (size_t)-1;
}

static bool legal(const hm_variant *v, const hm_op_info *op) {
    return !strcmp(v->op, op->name) && place_of_class(op, v->class_name) <= place_of_class(op, op->class_required);
}

/* Variant k of op, counted around; NULL if it has none. */
static const hm_variant *legal_variant(const hm_op_info *op, int k) {
    int count = 0;
    for (int i = 0; i < hm_variant_count(); i++) count += legal(hm_variant_at(i), op);
    if (count == 0) return NULL;
    k %= count;
    for (int i = 0;; i++)
        if (legal(hm_variant_at(i), op) && k-- == 0) return hm_variant_at(i);
}

void hm_eval_legal_paths(hm_eval_path *paths, int n) {
    static char text[HM_EVAL_LEGAL][HM_MODEL_OPS][128];
    static const char *const product[] = {"q_a", "head", "o",
                                          "index_k"}; /* small ones, on every way through the model */
    for (int k = 0; k < n; k++) {
        paths[k] = (hm_eval_path){.problems = 0};
        for (int i = 0; i < HM_MODEL_OPS; i++) {
            const hm_variant *v = legal_variant(hm_model_op_info((hm_model_op)i), k);
            if (!v) continue;
            bool slow = i == HM_MODEL_linear;
            snprintf(text[k][i], sizeof text[k][i], "variant:%s%s%s", v->id, slow ? "@" : "",
                     slow ? product[k % 4] : "");
            paths[k].of[i] = text[k][i];
        }
    }
}

double hm_eval_line(const double *number, int n) {
    /* Student's t for 1 to 15 degrees of freedom: one more is above it once in 1000 times */
    static const double t[HM_EVAL_LEGAL] = {NAN,   318.31, 22.327, 10.215, 7.173, 5.893, 5.208, 4.785,
                                            4.501, 4.297,  4.144,  4.025,  3.930, 3.852, 3.787, 3.733};
    double sum = 0, squares = 0;
    for (int i = 0; i < n; i++) sum += log(fmax(number[i], DBL_MIN));
    for (int i = 0; i < n; i++) squares += pow(log(fmax(number[i], DBL_MIN)) - sum / n, 2);
    return exp(sum / n + t[n - 1] * sqrt(squares / (n - 1)) * sqrt(1 + 1.0 / n));
}

bool hm_eval_above(const hm_eval_level *level, const hm_eval_level *line) {
    if (!isfinite(level->mean) || !isfinite(level->difference)) return true;
    return level->tokens && line->tokens && !(level->middle <= line->middle && level->tail <= line->tail);
}

/* The lines that n paths draw in one mode, leaving one of them out (-1: none). */
static hm_eval_level lines_of(const hm_eval_noise *noise, int mode, int but) {
    double middle[HM_EVAL_LEGAL], tail[HM_EVAL_LEGAL];
    int n = 0;
    for (int k = 0; k < noise->paths; k++) {
        if (k == but) continue;
        middle[n] = noise->path[k][mode].middle;
        tail[n++] = noise->path[k][mode].tail;
    }
    hm_eval_level line = {.tokens = noise->path[0][mode].tokens};
    if (line.tokens) line.middle = hm_eval_line(middle, n), line.tail = hm_eval_line(tail, n);
    return line;
}

/* Is any path above the lines of the others? Do they score otherwise than ref? */
static void look_for_alarm(hm_eval_noise *noise) {
    double p = hm_mcnemar(noise->lost, noise->gained);
    for (int mode = 0; mode < HM_EVAL_MODES; mode++)
        for (int k = 0; k < noise->paths; k++) {
            hm_eval_level others = lines_of(noise, mode, k), *own = &noise->path[k][mode];
            if (hm_eval_above(own, &others))
                snprintf(
                    noise->alarm, sizeof noise->alarm,
                    "legal path %d: median %.3g and 99th percentile %.3g; the others draw the lines at %.3g and %.3g",
                    k, own->middle, own->tail, others.middle, others.tail);
        }
    if (p < HM_SCORE_ALPHA)
        snprintf(noise->alarm, sizeof noise->alarm, "legal paths lost %lld problems and gained %lld: p = %.3g",
                 (long long)noise->lost, (long long)noise->gained, p);
}

static void gather(hm_eval_noise *noise, int k, const hm_eval_result *r) {
    for (int mode = 0; mode < HM_EVAL_MODES; mode++) {
        const hm_eval_level *level = &r->level[mode];
        hm_eval_level *most = &noise->most[mode];
        noise->path[k][mode] = *level;
        most->tokens += level->tokens;
        most->mean = fmax(most->mean, level->mean);
        most->middle = fmax(most->middle, level->middle);
        most->tail = fmax(most->tail, level->tail);
        most->difference = fmax(most->difference, level->difference);
    }
    noise->problems += r->problems, noise->lost += r->lost, noise->gained += r->gained;
    noise->same_answer += r->same_answer;
}

hm_eval_end hm_eval_noise_measure(hm_eval *e, const int64_t *problem, int64_t problems, int n, hm_eval_noise *noise,
                                  bool *interrupted, char *why, size_t size) {
    hm_eval_path path[HM_EVAL_LEGAL];
    hm_eval_result result[HM_EVAL_LEGAL];
    hm_eval_end end = HM_EVAL_DONE;
    *noise = (hm_eval_noise){.paths = n, .each = problems};
    hm_eval_legal_paths(path, n);
    for (int k = 0; k < n; k++) path[k].problem = problem, path[k].problems = problems;
    *interrupted = !hm_eval_run(e, path, n, result);
    for (int k = 0; k < n; k++) {
        if (result[k].end != HM_EVAL_DONE && end == HM_EVAL_DONE) {
            end = result[k].end;
            snprintf(why, size, "legal path %d: %.480s", k, result[k].why);
        }
        gather(noise, k, &result[k]);
        hm_eval_result_free(&result[k]);
    }
    for (int mode = 0; mode < HM_EVAL_MODES; mode++) noise->line[mode] = lines_of(noise, mode, -1);
    if (end == HM_EVAL_DONE) look_for_alarm(noise);
    return end;
}
