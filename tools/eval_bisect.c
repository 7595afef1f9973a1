/* eval_bisect.c: hallmark eval --bisect: which ops are to blame, on a few problems, and how that is known. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval.h"

enum { WORST = 6, OTHERS = 2, FEW = 4 /* ops */ };

/* How far a problem is off: a lost one before all others. */
static double distance(const hm_eval_row *row) {
    double kl = fmax(row->kl[HM_EVAL_FORCED], row->kl[HM_EVAL_GREEDY]);
    return row->same_answer || row->right ? kl : kl + 1e6;
}

/* The problems that are furthest off, and two others, for what they all have in common. Returns how many. */
static int64_t probes(const eval_run *run, int64_t *problem) {
    const hm_eval_result *r = &run->result;
    int64_t n = 0, all = r->problems, most = all < WORST + OTHERS ? all : WORST + OTHERS;
    bool *taken = calloc((size_t)all + 1, sizeof *taken);
    if (!taken) hm_die(HM_EXIT_INTERNAL, "out of memory");
    for (; n < WORST && n < most && r->end == HM_EVAL_DONE; n++) {
        int64_t worst = -1;
        for (int64_t i = 0; i < all; i++)
            if (!taken[i] && (worst < 0 || distance(&r->row[i]) > distance(&r->row[worst]))) worst = i;
        taken[worst] = true;
        problem[n] = r->row[worst].at;
    }
    for (int64_t i = 0; i < all && n < most; i++)
        if (!taken[i]) problem[n++] = run->path->problem[i];
    free(taken);
    return n;
}

static const char *probe_text(const hm_eval_probe *p, char text[64]) {
    static const char *const ends[] = {"", "it died", "an op refused", "failed"};
    if (p->end != HM_EVAL_DONE) snprintf(text, 64, "off: %s", ends[p->end]);
    else snprintf(text, 64, "%s%.3g", p->off ? "off: " : "", p->kl);
    return text;
}

static void print(const hm_eval_noise *noise, const hm_eval_bisection *b) {
    const hm_eval_level *line = noise->line;
    char names[1024] = "", alone[64], without[64];
    int blamed = 0;
    hm_table *t = hm_table_new("op\tthis op alone, ref for the others\tref for this op alone\tblamed");
    for (int i = 0; i < b->n; i++) {
        const hm_eval_suspect *s = &b->suspect[i];
        const char *name = hm_model_op_info(s->op)->name;
        hm_table_row(t, "%s\t%s\t%s\t%s", name, probe_text(&s->alone, alone), probe_text(&s->without, without),
                     s->blamed ? "yes" : "");
        if (s->blamed)
            snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", blamed++ ? ", " : "", name);
    }
    hm_table_print(t, stdout);
    printf(
        "Mean KL a token. Off: the median or the 99th percentile is above the noise (given the solution %.3g, %.3g; in "
        "decoding %.3g, %.3g), or the run did not reach its end.\n",
        line[HM_EVAL_FORCED].middle, line[HM_EVAL_FORCED].tail, line[HM_EVAL_GREEDY].middle, line[HM_EVAL_GREEDY].tail);
    if (b->whole.off)
        printf("All as given: %s; with ref for what is blamed: %s.\nTo blame: %s\n", probe_text(&b->whole, alone),
               probe_text(&b->without, without), blamed ? names : "no op that was swapped");
}

/* One attempt on these problems; noise is measured on them if it has not been. true if they show that it is off. */
static bool attempt(hm_eval *e, const eval_run *run, const int64_t *problem, int64_t n, hm_eval_noise *noise,
                    const char *which) {
    hm_eval_bisection b;
    char why[HM_EVAL_TEXT];
    bool interrupted;
    if (!noise->paths) {
        eval_progress("bisect: ref against legal variants");
        hm_eval_end end =
            hm_eval_noise_measure(e, problem, n, run->options->legal, noise, &interrupted, why, sizeof why);
        eval_stop_if_interrupted(interrupted);
        if (end != HM_EVAL_DONE) hm_die(HM_EXIT_INTERNAL, "%s", why);
    }
    eval_progress("bisect: one op at a time");
    bool complete = hm_eval_bisect(e, run->path, problem, n, noise, &b);
    eval_stop_if_interrupted(!complete);
    printf("\nBisection on %lld problems, %s; decoding is given the golden path's words.\n", (long long)n, which);
    print(noise, &b);
    return b.whole.off;
}

void eval_bisect(hm_eval *e, const eval_run *run) {
    int64_t worst[WORST + OTHERS], n = probes(run, worst);
    int ops = 0;
    hm_eval_noise noise = {0}, judged = run->noise;
    for (int i = 0; i < HM_MODEL_OPS; i++) ops += run->path->of[i] && strcmp(run->path->of[i], "ref");
    /* few ops: on the problems that were judged, whose noise is known; else on fewer */
    bool few = ops <= FEW && judged.paths;
    if (few && attempt(e, run, run->path->problem, run->path->judged, &judged, "those that were judged")) return;
    if (attempt(e, run, worst, n, &noise, "those furthest off and others")) return;
    if (!few && judged.paths &&
        attempt(e, run, run->path->problem, run->path->judged, &judged, "those that were judged"))
        return;
    puts("On these problems alone the path is not off: no op is blamed. More --problems may help.");
}
