/* eval_page.c: the page and the picture of hallmark eval --table. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../eval/plot.h"
#include "eval_table.h"

/* What the golden path's words and the noise say of a row. */
static bool score_is_off(const eval_row *r) { return hm_mcnemar(r->result.lost, r->result.gained) < HM_SCORE_ALPHA; }

static bool kl_is_off(const eval_rows *t, const eval_row *r) {
    bool off = false;
    for (int mode = 0; mode < HM_EVAL_MODES; mode++)
        off |= hm_eval_above(&r->result.judged[mode], &t->noise.line[mode]);
    return off;
}

static bool is_seen(const eval_rows *t, const eval_row *r) {
    return r->result.end != HM_EVAL_DONE || score_is_off(r) || kl_is_off(t, r);
}

static void kl_text(double kl, char text[32]) {
    if (kl == 0) snprintf(text, 32, "0");
    else if (isfinite(kl)) snprintf(text, 32, kl < 0.01 ? "%.1e" : "%.2g", kl);
    else snprintf(text, 32, "NaN");
}

static void put_row(FILE *to, const eval_rows *t, const eval_row *r) {
    const hm_eval_result *e = &r->result;
    char forced[32], greedy[32], p[32];
    double value = hm_mcnemar(e->lost, e->gained);
    kl_text(e->level[HM_EVAL_FORCED].mean, forced), kl_text(e->level[HM_EVAL_GREEDY].mean, greedy);
    snprintf(p, sizeof p, value < 0.001 ? "%.0e" : "%.2g", value);
    fprintf(to, "| `%s` | ", r->name);
    if (e->end != HM_EVAL_DONE) fprintf(to, "ended early | | | | | the end | ");
    else
        fprintf(to, "%.3f | %.4f | %s | %s | %s | %s | ", (double)e->right / (double)e->problems,
                (double)e->correct / (double)e->tokens, forced, greedy, p,
                score_is_off(r) ? "score, KL"
                : is_seen(t, r) ? "KL"
                                : "-");
    if (!r->caught) fprintf(to, "%s | ", r->calls ? "-" : "no call");
    else if (!r->outside) fprintf(to, "%lld of %lld calls: %s | ", (long long)r->caught, (long long)r->calls, r->why);
    else
        fprintf(to, "%lld of %lld calls, %lld elements | ", (long long)r->caught, (long long)r->calls,
                (long long)r->outside);
    fprintf(to, "%s |\n", e->end != HM_EVAL_DONE ? e->why : r->fault->sentence);
}

static void put_rows(FILE *to, const eval_rows *t, bool seed) {
    const eval_row *first = NULL;
    for (int i = t->n - 1; i >= 0; i--)
        if (t->rows[i].seed == seed && t->rows[i].result.end == HM_EVAL_DONE) first = &t->rows[i];
    fputs(
        "| fault | exact match | tokens right | KL, given the solution | KL, in decoding | p | eval sees | replay sees "
        "| what goes wrong |\n| --- | ---: | ---: | ---: | ---: | ---: | --- | --- | --- |\n",
        to);
    if (first)
        fprintf(to, "| none: the golden path | %.3f | %.4f | 0 | 0 | 1 | - | - | |\n",
                (double)first->result.golden_right / (double)first->result.problems,
                (double)first->result.golden_correct / (double)first->result.tokens);
    for (int i = 0; i < t->n; i++)
        if (t->rows[i].seed == seed) put_row(to, t, &t->rows[i]);
    fputc('\n', to);
}

static void put_head(FILE *to, const eval_rows *t, const char *plot) {
    const hm_eval_noise *noise = &t->noise;
    const hm_eval_level *forced = &noise->line[HM_EVAL_FORCED], *most = noise->most;
    int64_t least = hm_least_detectable(HM_SCORE_ALPHA);
    fprintf(to,
            "# What a score sees of a wrong kernel, and what it does not\n\n"
            "`hallmark eval --table docs/eval.md` writes this page and `%s` from the list in\n"
            "`data/gsm8k/faults.txt`, in 5 to 10 minutes on 2 cores. Each row injects one fault into its op\n"
            "(`hallmark eval --fault ID`; `@` and a site: into one of the model's calls only) and lets the small\n"
            "model answer word problems: all %lld of them in the first table, %lld in the second.\n\n"
            "With `--impl cuda`, or a plug-in for CUDA memory, the model's calls are done on a device:\n"
            "[cuda.md](cuda.md).\n\n",
            plot, (long long)t->all, (long long)t->problems);
    fprintf(to,
            "- **exact match**: the number behind `####` in the greedy answer.\n"
            "- **p**: McNemar's exact test, two-sided, paired with the golden path. The smallest drop that can be\n"
            "  seen is %lld problems lost and none gained: %.4f of %lld problems, %.4f of %lld.\n"
            "- **tokens right**: given the solution, tokens that are the most probable ones.\n"
            "- **KL**: mean divergence from the golden path a token, in nats. Given the solution: prompt and\n"
            "  solution are read at once. In decoding: word by word, as long as the words are the golden path's.\n",
            (long long)least, (double)least / (double)t->all, (long long)t->all, (double)least / (double)t->problems,
            (long long)t->problems);
    fprintf(to,
            "- **eval sees**: the score (p < %g), or a divergence above the noise: a median over problems above\n"
            "  %.2g or a 99th percentile of tokens above %.2g (given the solution; %lld problems). Noise is what\n"
            "  %d paths of legal variants differ by from ref; the largest of their means is %.2g.\n"
            "- **replay sees**: calls in `data/gsm8k/traces` that `hallmark replay --impl fault:ID` does not\n"
            "  pass, and elements outside what a correct implementation may return.\n"
            "- **cleared**: outputs are zeros before each call. **stale**: they hold what ref made of the call\n"
            "  before, mostly that of the layer before.\n\n",
            HM_SCORE_ALPHA, forced->middle, forced->tail, (long long)noise->each, noise->paths,
            fmax(most[HM_EVAL_FORCED].mean, most[HM_EVAL_GREEDY].mean));
}

static void put_page(FILE *to, const eval_rows *t, const char *plot) {
    int both = 0, neither = 0, score = 0, alone = 0, element = 0;
    for (int i = 0; i < t->n; i++) {
        const eval_row *r = &t->rows[i];
        bool seen = is_seen(t, r);
        both += seen && r->caught, alone += seen && !r->caught;
        element += !seen && r->caught, neither += !seen && !r->caught;
        score += r->result.end != HM_EVAL_DONE || score_is_off(r);
    }
    put_head(to, t, plot);
    fprintf(to,
            "Of %d faults the score shows %d. Score or divergence show %d that replay sees, too, and %d that it\n"
            "does not (what the short recording does not reach: row 64, position 256). Replay alone sees %d; %d\n"
            "are seen by neither on these tensors. A score is no substitute for the verdict on each element.\n\n"
            "![exact match against mean KL](%s)\n\n"
            "## The five bugs it began with\n\n",
            t->n, score, both, alone, element, neither, plot);
    put_rows(to, t, true);
    fputs(
        "The last two barely move the score, nor the divergence beyond what legal variants do. Replay rejects\n"
        "both on the model's own tensors: the first since an output has another dtype than declared (here its\n"
        "buffer rounds it all the same; a norm that goes on to read the unrounded sum is `reads_unrounded`\n"
        "below), the second since thousands of elements are values that no correct kernel returns.\n\n"
        "## Further faults\n\n",
        to);
    put_rows(to, t, false);
}

char *eval_page(const eval_rows *t, const char *plot, size_t *size) {
    char *text = NULL;
    FILE *to = open_memstream(&text, size);
    if (!to) return NULL;
    put_page(to, t, plot);
    return fclose(to) ? NULL : text;
}

char *eval_picture(const eval_rows *t) {
    hm_dot dots[EVAL_ROWS];
    char title[128];
    for (int i = 0; i < t->n; i++) {
        const hm_eval_result *r = &t->rows[i].result;
        double kl = fmax(r->level[HM_EVAL_FORCED].mean, r->level[HM_EVAL_GREEDY].mean);
        dots[i] = (hm_dot){.x = r->end == HM_EVAL_DONE ? kl : INFINITY,
                           .y = (double)r->right / (double)r->problems,
                           .label = t->rows[i].name,
                           .filled = t->rows[i].caught,
                           .first = t->rows[i].seed};
    }
    snprintf(title, sizeof title,
             "%d faults: exact match against divergence (black rings: %lld problems, others: %lld)", t->n,
             (long long)t->all, (long long)t->problems);
    return hm_plot_svg(dots, t->n, fmax(t->noise.most[HM_EVAL_FORCED].mean, t->noise.most[HM_EVAL_GREEDY].mean), title,
                       "mean KL from the golden path a token, given the solution or in decoding, the larger (nats)",
                       "exact match", "replay of the model's tensors sees it", "it does not");
}
