/* bisect.c: swaps ops of a path for ref and sees what that mends. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval.h"

enum { PROBES = 64 }; /* paths of one round */

typedef struct {
    hm_eval *e;
    const hm_eval_path *path;
    const hm_eval_noise *noise;
    hm_eval_bisection *b;
    hm_eval_path probe[PROBES];
    hm_eval_probe seen[PROBES];
    int count;
} search;

/* The path with ref for the suspects in `ref`, a bit each. */
static void add(search *s, uint32_t ref) {
    hm_eval_path *p = &s->probe[s->count++];
    *p = *s->path;
    for (int i = 0; i < s->b->n; i++)
        if (ref >> i & 1) p->of[s->b->suspect[i].op] = NULL;
}

/* Runs what was added. false: interrupted. */
static bool run(search *s) {
    hm_eval_result result[PROBES];
    bool complete = hm_eval_run(s->e, s->probe, s->count, result);
    for (int i = 0; i < s->count; i++) {
        hm_eval_probe *seen = &s->seen[i];
        *seen =
            (hm_eval_probe){.end = result[i].end, .off = result[i].end != HM_EVAL_DONE, .kl = seen->off ? INFINITY : 0};
        if (seen->off) seen->kl = INFINITY;
        for (int mode = 0; mode < HM_EVAL_MODES && !seen->off; mode++) {
            seen->off = hm_eval_above(&result[i].level[mode], &s->noise->line[mode]);
            seen->kl = fmax(seen->kl, result[i].level[mode].mean);
        }
        hm_eval_result_free(&result[i]);
    }
    s->count = 0;
    return complete;
}

static int members(uint32_t set) { return __builtin_popcount(set); }

/* How far the members of a set are off alone. */
static double weight(const search *s, uint32_t set) {
    double sum = 0;
    for (int i = 0; i < s->b->n; i++)
        if (set >> i & 1) sum += s->b->suspect[i].alone.kl;
    return sum;
}

/* The best set that mends the path among the subsets of `of`, which has at most 5 members; 0 if none does. */
static bool best_subset(search *s, uint32_t of, uint32_t *best) {
    uint32_t set[PROBES];
    int n = 0;
    for (uint32_t sub = of; sub; sub = (sub - 1) & of) set[n] = sub, add(s, set[n++]);
    *best = 0;
    if (!run(s)) return false;
    for (int i = 0; i < n; i++) {
        if (s->seen[i].off) continue;
        int more = members(set[i]) - members(*best);
        if (!*best || more < 0 || (more == 0 && weight(s, set[i]) > weight(s, *best))) *best = set[i];
    }
    return true;
}

/* Adds to `set` the one of the others that mends most, until the path is in the noise or all are in. */
static bool extend(search *s, uint32_t *set) {
    uint32_t all = (1u << s->b->n) - 1;
    bool off = true;
    while (off && *set != all) {
        int which[PROBES], n = 0, best = 0;
        for (int i = 0; i < s->b->n; i++)
            if (!(*set >> i & 1)) which[n++] = i, add(s, *set | 1u << i);
        if (!run(s)) return false;
        for (int i = 1; i < n; i++)
            if (s->seen[i].off < s->seen[best].off ||
                (s->seen[i].off == s->seen[best].off && s->seen[i].kl < s->seen[best].kl))
                best = i;
        *set |= 1u << which[best];
        off = s->seen[best].off;
    }
    return true;
}

/* Takes out of `set` what need not be in it. */
static bool reduce(search *s, uint32_t *set) {
    for (int i = 0; i < s->b->n && members(*set) > 1; i++) {
        if (!(*set >> i & 1)) continue;
        add(s, *set & ~(1u << i));
        if (!run(s)) return false;
        if (!s->seen[0].off) *set &= ~(1u << i);
    }
    return true;
}

static bool look(search *s) {
    hm_eval_bisection *b = s->b;
    uint32_t all = (1u << b->n) - 1, off = 0, set = 0;
    for (int i = 0; i < b->n; i++) add(s, all & ~(1u << i)), add(s, 1u << i);
    add(s, 0);
    if (!run(s)) return false;
    b->whole = s->seen[2 * b->n];
    for (int i = 0; i < b->n; i++) {
        b->suspect[i].alone = s->seen[2 * i], b->suspect[i].without = s->seen[2 * i + 1];
        if (b->suspect[i].alone.off) off |= 1u << i;
    }
    if (!b->whole.off) return true;
    if (off && members(off) <= 5 && !best_subset(s, off, &set)) return false;
    if (!set) {
        set = off;
        if (!extend(s, &set) || !reduce(s, &set)) return false;
    }
    add(s, set);
    if (!run(s)) return false;
    b->without = s->seen[0];
    for (int i = 0; i < b->n; i++) b->suspect[i].blamed = set >> i & 1;
    return true;
}

bool hm_eval_bisect(hm_eval *e, const hm_eval_path *path, const int64_t *problem, int64_t problems,
                    const hm_eval_noise *noise, hm_eval_bisection *b) {
    hm_eval_options *o = hm_eval_options_of(e), before = *o;
    hm_eval_path of_all = *path;
    *b = (hm_eval_bisection){.n = 0};
    of_all.problem = problem, of_all.problems = problems, of_all.judged = 0;
    for (int i = 0; i < HM_MODEL_OPS; i++)
        if (path->of[i] && strcmp(path->of[i], "ref")) b->suspect[b->n++].op = (hm_model_op)i;
    search *s = calloc(1, sizeof *s);
    if (!s) return true; /* nothing is blamed */
    *s = (search){.e = e, .path = &of_all, .noise = noise, .b = b};
    o->along = true;
    bool complete = look(s);
    *o = before;
    free(s);
    return complete;
}
