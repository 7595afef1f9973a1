#include "fit.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_COMBINATIONS = 4096 };

/* What every combination of modes says about one recording. A combination is a number, counted with the first mode
 * fastest. */
typedef struct {
    int count;                        /* of combinations, legal or not */
    bool legal[MAX_COMBINATIONS];     /* and gives the recorded dtypes */
    hm_class class[MAX_COMBINATIONS]; /* tightest that holds every element; HM_CLASS_NONE: outside, or not legal */
    hm_class most;                    /* loosest that counts as followed */
    int64_t fewest, elements;         /* outside for the nearest combination, of how many */
    int nearest;                      /* -1: no combination is legal and gives the recorded dtypes */
} fitting;

static int mode_get(const hm_param_info *p, const void *args) {
    int value;
    memcpy(&value, (const char *)args + p->offset, sizeof value);
    return value;
}

void hm_mode_set(const hm_param_info *p, void *args, int value) {
    memcpy((char *)args + p->offset, &value, sizeof value);
}

static int mode_values(const hm_param_info *p) {
    int n = 0;
    while (p->values[n]) n++;
    return n;
}

void hm_modes_text(const hm_op_info *op, const void *args, unsigned only, char *text, size_t size) {
    size_t n = 0;
    *text = 0;
    for (int i = 0; i < op->nparams && n < size; i++)
        if (op->params[i].type == HM_PARAM_MODE && only >> i & 1)
            n += (size_t)snprintf(text + n, size - n, "%s%s=%s", n ? " " : "", op->params[i].name,
                                  op->params[i].values[mode_get(&op->params[i], args)]);
}

static int combinations(const hm_op_info *op) {
    int n = 1;
    for (int i = 0; i < op->nparams; i++)
        if (op->params[i].type == HM_PARAM_MODE) n *= mode_values(&op->params[i]);
    if (n > MAX_COMBINATIONS) hm_die(HM_EXIT_INTERNAL, "%s has %d combinations of modes", op->name, n);
    return n;
}

static void combination_set(const hm_op_info *op, void *args, int number) {
    for (int i = 0; i < op->nparams; i++) {
        if (op->params[i].type != HM_PARAM_MODE) continue;
        hm_mode_set(&op->params[i], args, number % mode_values(&op->params[i]));
        number /= mode_values(&op->params[i]);
    }
}

static bool follows(const fitting *f, int k) { return f->class[k] != HM_CLASS_NONE && f->class[k] <= f->most; }

static void judge_all(hm_trace_call *c, hm_class required, hm_fit_judge *judge, void *context, fitting *f) {
    *f = (fitting){.count = combinations(c->op), .most = required, .nearest = -1};
    hm_class tightest = HM_CLASS_NONE;
    for (int k = 0; k < f->count; k++) {
        hm_verdict v;
        f->class[k] = HM_CLASS_NONE;
        combination_set(c->op, c->args, k);
        f->legal[k] = judge(context, c, true, &v);
        if (!f->legal[k]) continue;
        if (v.outside == 0 && v.effects_ok) f->class[k] = v.consistent;
        if (f->class[k] < tightest) tightest = f->class[k];
        if (f->nearest >= 0 && v.outside + v.out_of_class >= f->fewest) continue;
        f->nearest = k, f->fewest = v.outside + v.out_of_class, f->elements = v.elements;
    }
    if (tightest != HM_CLASS_NONE && tightest > required) f->most = tightest;
}

/* true if every mode of args has a value whose bit is set in seen. */
static bool within(const hm_op_info *op, const void *args, const unsigned seen[HM_MAX_PARAMS]) {
    for (int i = 0; i < op->nparams; i++)
        if (op->params[i].type == HM_PARAM_MODE && !(seen[i] >> mode_get(&op->params[i], args) & 1)) return false;
    return true;
}

/* Uses c's modes as scratch. */
static void followed_text(hm_trace_call *c, const fitting *f, char *text, size_t size) {
    const hm_op_info *op = c->op;
    unsigned seen[HM_MAX_PARAMS] = {0}, fixed = 0; /* values of each mode; modes with one value */
    int first = -1;
    bool apart = true; /* the modes do not depend on each other */
    for (int k = 0; k < f->count; k++) {
        if (!follows(f, k)) continue;
        first = first < 0 ? k : first;
        combination_set(op, c->args, k);
        for (int i = 0; i < op->nparams; i++)
            if (op->params[i].type == HM_PARAM_MODE) seen[i] |= 1u << mode_get(&op->params[i], c->args);
    }
    for (int i = 0; i < op->nparams; i++)
        if (seen[i] && !(seen[i] & (seen[i] - 1))) fixed |= 1u << i;
    for (int k = 0; k < f->count; k++) {
        combination_set(op, c->args, k);
        apart &= !f->legal[k] || follows(f, k) == within(op, c->args, seen);
    }
    combination_set(op, c->args, first < 0 ? 0 : first);
    hm_modes_text(op, c->args, fixed, text, size);
    if (!fixed) snprintf(text, size, first < 0 ? "none" : "any");
    size_t n = apart ? size : (size_t)snprintf(text, size, "any of:");
    for (int k = 0; k < f->count && n < size; k++) {
        char one[HM_MODES_MAX];
        if (!follows(f, k)) continue;
        combination_set(op, c->args, k);
        hm_modes_text(op, c->args, ~0u, one, sizeof one);
        n += (size_t)snprintf(text + n, size - n, "%s %s", k == first ? "" : ";", one);
    }
}

void hm_fit(hm_trace_call *c, hm_class required, hm_fit_judge *judge, void *context, hm_verdict *v, char *text,
            size_t size) {
    static fitting f;
    const hm_op_info *op = c->op;
    unsigned claimed[HM_MAX_PARAMS], stated = 0;
    char claim[HM_MODES_MAX], modes[HM_MODES_MAX];
    for (int i = 0; i < op->nparams; i++) {
        bool mode = op->params[i].type == HM_PARAM_MODE;
        claimed[i] = mode && c->stated[i] ? 1u << mode_get(&op->params[i], c->args) : ~0u;
        stated |= (unsigned)(mode && c->stated[i]) << i;
    }
    hm_modes_text(op, c->args, stated, claim, sizeof claim);
    judge_all(c, required, judge, context, &f);
    followed_text(c, &f, text, size);

    /* At the modes that are claimed: one that fits if there is, else one that is legal, else any. */
    int at = -1, rank = -1;
    for (int k = 0; k < f.count; k++) {
        combination_set(op, c->args, k);
        int now = follows(&f, k) ? 2 : f.legal[k];
        if (within(op, c->args, claimed) && now > rank) at = k, rank = now;
    }
    combination_set(op, c->args, at);
    judge(context, c, false, v);
    if (rank == 2 || f.nearest < 0) return;

    if (v->outcome == HM_PASS) v->outcome = HM_FAIL; /* it holds, but only in a looser class than other modes do */
    if (strcmp(text, "none")) {
        snprintf(v->why, sizeof v->why, "the trace states %.160s; the recording follows %.250s", claim, text);
        return;
    }
    combination_set(op, c->args, f.nearest);
    hm_modes_text(op, c->args, ~0u, modes, sizeof modes);
    snprintf(text, size, "none; nearest %.400s", modes);
    snprintf(v->why, sizeof v->why, "no modes fit; nearest is %.250s with %lld of %lld elements outside", modes,
             (long long)f.fewest, (long long)f.elements);
    combination_set(op, c->args, at);
}
