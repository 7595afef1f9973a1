/* eval_print.c: what one run of `hallmark eval` says, for people and as JSON. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval.h"

static void share(int64_t part, int64_t of, bool there, char text[32]) {
    if (there && of) snprintf(text, 32, "%.4f (%lld)", (double)part / (double)of, (long long)part);
    else snprintf(text, 32, "-");
}

static void print_scores(const eval_run *run) {
    const hm_eval_result *r = &run->result;
    bool forced = run->options->forced, greedy = run->options->greedy;
    char a[32], b[32];
    hm_table *t = hm_table_new("\t>golden path\t>this path");
    share(r->golden_right, r->problems, greedy, a), share(r->right, r->problems, greedy, b);
    hm_table_row(t, "exact match, greedy\t%s\t%s", a, b);
    share(r->golden_forced_right, r->problems, forced, a), share(r->forced_right, r->problems, forced, b);
    hm_table_row(t, "number right, given the words before it\t%s\t%s", a, b);
    share(r->golden_correct, r->tokens, forced, a), share(r->correct, r->tokens, forced, b);
    hm_table_row(t, "tokens right, given those before\t%s\t%s", a, b);
    share(r->same_answer, r->problems, greedy, b);
    hm_table_row(t, "greedy answers with the same words\t\t%s", b);
    hm_table_print(t, stdout);
    putchar('\n');
}

static void print_level(hm_table *t, const char *name, const hm_eval_level *l) {
    if (l->tokens)
        hm_table_row(t, "%s\t%lld\t%.3g\t%.3g\t%.3g\t%.3g", name, (long long)l->tokens, l->mean, l->middle, l->tail,
                     l->difference);
}

static void print_divergences(const eval_run *run) {
    const hm_eval_level *level = run->result.level, *judged = run->result.judged, *line = run->noise.line;
    hm_table *t = hm_table_new("KL a token, in nats\t>tokens\t>mean\t>median\t>99 %\t>logprob difference");
    for (int mode = 0; mode < HM_EVAL_MODES; mode++) {
        char name[64];
        print_level(t, mode == HM_EVAL_FORCED ? "given the solution" : "in decoding", &level[mode]);
        if (!line[mode].tokens) continue;
        snprintf(name, sizeof name, "  of %lld problems", (long long)run->noise.each);
        if (judged[mode].tokens != level[mode].tokens) print_level(t, name, &judged[mode]);
        print_level(t, "  legal variants, at most", &run->noise.most[mode]);
        hm_table_row(t, "  noise ends at\t\t\t%.3g\t%.3g\t", line[mode].middle, line[mode].tail);
    }
    hm_table_print(t, stdout);
    puts("median: over problems, of their means; 99 %: of tokens\n");
}

static void print_calls(const eval_run *run) {
    const hm_eval_result *r = &run->result;
    bool declined = false;
    if (hm_eval_is_ref(run->path)) return;
    if (*r->device) printf("Calls of the implementation, on copies on %s:", r->device);
    else printf("Calls of the implementation:");
    for (int i = 0, n = 0; i < HM_MODEL_OPS; i++) {
        declined |= r->declined[i] > 0;
        if (run->path->of[i] && strcmp(run->path->of[i], "ref"))
            printf("%s %s %lld", n++ ? "," : "", hm_model_op_info((hm_model_op)i)->name, (long long)r->calls[i]);
    }
    printf("; every other op is ref's%s.\n", *r->device ? ", on the host" : "");
    if (!declined) return;
    printf("Declined, and done by ref:");
    for (int i = 0, n = 0; i < HM_MODEL_OPS; i++)
        if (r->declined[i])
            printf("%s %s %lld", n++ ? "," : "", hm_model_op_info((hm_model_op)i)->name, (long long)r->declined[i]);
    puts(".");
}

static void print_power(const eval_run *run) {
    const hm_eval_result *r = &run->result;
    const hm_eval_noise *noise = &run->noise;
    int64_t least = hm_least_detectable(HM_SCORE_ALPHA);
    if (run->options->greedy) {
        printf("Paired: %lld lost, %lld gained, p = %.3g (McNemar, exact, two-sided).\n", (long long)r->lost,
               (long long)r->gained, hm_mcnemar(r->lost, r->gained));
        if (r->golden_right < least)
            printf(
                "No drop could have been detected: it takes %lld problems lost, and the golden path has %lld right.\n",
                (long long)least, (long long)r->golden_right);
        else
            printf(
                "Smallest drop that this run could have detected: %.4f, which is %lld problems lost and none gained (p "
                "< %g).\n",
                (double)least / (double)r->problems, (long long)least, HM_SCORE_ALPHA);
    }
    if (!noise->paths) {
        puts("No noise floor was measured (--legal 0): divergences are not judged.");
        return;
    }
    printf("A/A: ref against %d paths of legal variants, %lld problems each: ", noise->paths, (long long)noise->each);
    if (run->options->greedy)
        printf("%lld lost, %lld gained, %lld of %lld answers with the same words; ", (long long)noise->lost,
               (long long)noise->gained, (long long)noise->same_answer, (long long)noise->problems);
    puts(*noise->alarm ? "ALARM" : "no alarm");
}

void eval_print(const hm_eval *e, const eval_run *run) {
    const hm_eval_result *r = &run->result;
    printf("%lld of %lld problems through %s; %.0f s\n\n", (long long)r->problems, (long long)hm_eval_problems(e),
           run->name, run->seconds);
    if (r->end == HM_EVAL_DONE) {
        print_scores(run);
        print_divergences(run);
        print_calls(run);
        print_power(run);
    }
    if (!run->ran) puts("Verdict: nothing ran: each call was declined, or the model has no such call");
    else if (*run->off) printf("Verdict: off: %s\n", run->off);
    else if (hm_eval_is_ref(run->path)) puts("Verdict: ref is the golden path; legal variants do not move it");
    else puts("Verdict: nothing is off that this run could have seen; replay judges every element");
}

/* ---- JSON ------------------------------------------------------------------------------------------------------- */

/* JSON has no infinity. */
static json_t *number(double x) { return isfinite(x) ? json_real(x) : json_string(isnan(x) ? "nan" : "inf"); }

static json_t *level_of(const hm_eval_level *l, const hm_eval_level *most, const hm_eval_level *line) {
    return json_pack("{s:I, s:o, s:o, s:o, s:o, s:{s:o, s:o, s:o, s:o}, s:{s:o, s:o}}", "tokens", (json_int_t)l->tokens,
                     "mean", number(l->mean), "median", number(l->middle), "percentile_99", number(l->tail),
                     "logprob_difference", number(l->difference), "noise", "mean", number(most->mean), "median",
                     number(most->middle), "percentile_99", number(most->tail), "logprob_difference",
                     number(most->difference), "line", "median", number(line->middle), "percentile_99",
                     number(line->tail));
}

static json_t *exact_match_of(const hm_eval_result *r) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:o, s:I}", "golden", (json_int_t)r->golden_right, "path",
                     (json_int_t)r->right, "lost", (json_int_t)r->lost, "gained", (json_int_t)r->gained, "same_words",
                     (json_int_t)r->same_answer, "p", number(hm_mcnemar(r->lost, r->gained)), "least_detectable",
                     (json_int_t)hm_least_detectable(HM_SCORE_ALPHA));
}

static json_t *tokens_of(const hm_eval_result *r) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "all", (json_int_t)r->tokens, "golden_right",
                     (json_int_t)r->golden_correct, "right", (json_int_t)r->correct, "golden_numbers_right",
                     (json_int_t)r->golden_forced_right, "numbers_right", (json_int_t)r->forced_right);
}

static json_t *noise_of(const hm_eval_noise *n) {
    return json_pack("{s:i, s:I, s:I, s:I, s:I, s:s}", "paths", n->paths, "problems", (json_int_t)n->problems, "lost",
                     (json_int_t)n->lost, "gained", (json_int_t)n->gained, "same_words", (json_int_t)n->same_answer,
                     "alarm", n->alarm);
}

void eval_write_json(const hm_eval *e, const eval_run *run, const char *path) {
    static const char *const mode_name[] = {"given_the_solution", "in_decoding"};
    const hm_eval_result *r = &run->result;
    const eval_options *o = run->options;
    bool done = r->end == HM_EVAL_DONE;
    json_t *calls = json_object(), *kl = json_object();
    for (int i = 0; i < HM_MODEL_OPS; i++)
        if (r->calls[i]) json_object_set_new(calls, hm_model_op_info((hm_model_op)i)->name, json_integer(r->calls[i]));
    for (int mode = 0; mode < HM_EVAL_MODES && done; mode++)
        if (r->level[mode].tokens)
            json_object_set_new(kl, mode_name[mode],
                                level_of(&r->level[mode], &run->noise.most[mode], &run->noise.line[mode]));
    json_t *root = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:s, s:s, s:s, s:o, s:o}", "schema",
                             "hallmark.eval/1", "hallmark", HM_VERSION, "impl", run->name, "problems",
                             (json_int_t)r->problems, "of", (json_int_t)hm_eval_problems(e), "block_size",
                             (json_int_t)o->block_size, "top_k", (json_int_t)o->top_k, "before",
                             o->before == HM_EVAL_CLEARED ? "cleared"
                             : o->before == HM_EVAL_STALE ? "stale"
                                                          : "as it is",
                             "off", run->off, "ended", done ? "" : r->why, "calls", calls, "kl", kl);
    char bits[32];
    snprintf(bits, sizeof bits, "%016llx", (unsigned long long)r->bits);
    if (*r->device) json_object_set_new(root, "device", json_string(r->device));
    if (done) json_object_set_new(root, "bits", json_string(bits));
    if (done && o->greedy) json_object_set_new(root, "exact_match", exact_match_of(r));
    if (done && o->forced) json_object_set_new(root, "tokens", tokens_of(r));
    if (run->noise.paths) json_object_set_new(root, "noise", noise_of(&run->noise));
    if (!root || json_dump_file(root, path, JSON_INDENT(1) | JSON_SORT_KEYS | JSON_REAL_PRECISION(9)))
        hm_die(HM_EXIT_USAGE, "--json: \"%s\" cannot be written", path);
    json_decref(root);
}
