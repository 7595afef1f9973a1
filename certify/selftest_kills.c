/* The kill matrix: every fault on every case. Golden is computed once a case and kept for all faults; the verdict of
 * the whole judge on one case of each fault (hm_kills_confirm) ties that short way to the one that users take. */
#include <jansson.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "embedded.h"
#include "invariance.h"
#include "judge.h"
#include "selftest.h"

/* ---- allclose ---- */

/* All elements of all outputs as numbers, in order. */
static double *outputs_of(const hm_call *call, int64_t elements) {
    double *to = malloc(((size_t)elements + 1) * sizeof *to), *at = to;
    for (int i = 0; to && i < call->op->nargs; i++) {
        const hm_tensor *t = &call->tensor[i];
        if (call->op->args[i].direction == HM_IN || t->dtype == HM_DTYPE_NONE) continue;
        int64_t n = t->shape[t->ndim - 1];
        for (int64_t r = 0; n > 0 && r < hm_row_count(t); r++, at += n)
            hm_load_row(t->dtype, (char *)t->data + hm_row_offset(t, r) * (int64_t)hm_dtype_size(t->dtype),
                        t->stride[t->ndim - 1], n, at);
    }
    return to;
}

/* torch.allclose(got, want, atol=1e-2, rtol=1e-2, equal_nan=True): values alone. */
static bool allclose(const double *got, const double *want, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        bool same = got[i] == want[i] || (isnan(got[i]) && isnan(want[i]));
        if (!same && !(fabs(got[i] - want[i]) <= 1e-2 + 1e-2 * fabs(want[i]))) return false;
    }
    return true;
}

/* ---- one case ---- */

/* What was found out about outputs with these bits. */
typedef struct {
    uint64_t hash;
    int64_t outside;
    bool caught;
} finding;

typedef struct {
    hm_call *call;
    hm_truth truth;
    double *ref;           /* its outputs; NULL where the call has to fail */
    bool refused, changed; /* changed: more than the outputs, since the last reset */
    finding *found;        /* many faults do the same, or nothing, on a case */
    int nfound;
} subject;

typedef struct {
    bool killed, caught;
    int64_t outside;
    uint64_t bits;
} outcome;

static bool wrote_another_dtype(const hm_call *call, const hm_run *run) {
    for (int i = 0; i < call->op->nargs; i++)
        if (run->written[i] != HM_DTYPE_NONE && run->written[i] != call->tensor[i].dtype) return true;
    return false;
}

static bool is_not_invariant(const hm_fault *fault, hm_call *call) {
    char spec[128], text[256];
    snprintf(spec, sizeof spec, "fault:%s", fault->id);
    hm_impl *impl = hm_impl_open(spec, 1, text, sizeof text);
    bool same = impl && hm_invariance(impl, call, text, sizeof text);
    hm_impl_close(impl);
    return !same;
}

static finding look_at(subject *s, uint64_t hash) {
    for (int i = 0; i < s->nfound; i++)
        if (s->found[i].hash == hash) return s->found[i];
    double *got = outputs_of(s->call, s->truth.elements);
    finding f = {hash, hm_truth_outside(&s->truth, s->call), !got || !allclose(got, s->ref, s->truth.elements)};
    free(got);
    finding *grown = realloc(s->found, ((size_t)s->nfound + 1) * sizeof *grown);
    if (grown) s->found = grown, s->found[s->nfound++] = f;
    return f;
}

static outcome try(const hm_fault *fault, subject *s) {
    outcome o = {0};
    char effects[512];
    hm_run run = {.state = HM_RAN};
    if (s->changed || !hm_call_reset_outputs(s->call)) hm_call_reset(s->call);
    run.status = fault->run(fault->variation, hm_call_args(s->call), run.written);
    bool ok = run.status == HM_OK, clean = hm_call_effects(s->call, s->refused || !ok, effects, sizeof effects);
    uint64_t outputs = s->refused ? 0 : hm_truth_hash(s->call);
    s->changed = !clean;
    o.killed = s->refused ? ok || !clean : !ok || !clean || wrote_another_dtype(s->call, &run);
    o.bits = XXH3_64bits_withSeed(&run, sizeof run.state + sizeof run.status, outputs);
    o.bits =
        XXH3_64bits_withSeed(run.written, sizeof run.written, XXH3_64bits_withSeed(effects, strlen(effects), o.bits));
    if (s->refused) return o;
    finding f = ok ? look_at(s, outputs) : (finding){.caught = true};
    o.outside = f.outside, o.caught = f.caught;
    if (o.outside) o.killed = true;
    if (fault->needs_invariance && ok && !o.killed) o.killed = is_not_invariant(fault, s->call);
    o.caught = o.caught && o.killed;
    return o;
}

static hm_class required_class(const hm_op_info *op) { return hm_class_named(op->class_required); }

/* ref runs first: for allclose, and because a case on which ref is outside says nothing about a fault. */
static hm_status prepare(const hm_case_spec *spec, subject *s, bool *bad) {
    char why[256];
    *s = (subject){.changed = true};
    hm_status status = hm_call_from_case(spec, &s->call, why, sizeof why);
    if (status) return status;
    s->refused = s->call->op->check(hm_call_args(s->call)) != HM_OK;
    *bad = s->refused != (spec->expect != HM_OK);
    if (s->refused) return HM_OK;
    bool failed = s->call->op->ref(s->call->args) != HM_OK;
    status = hm_truth_make(s->call, required_class(s->call->op), HM_TIER_TWO, &s->truth);
    if (status) return status;
    *bad = *bad || failed || hm_truth_outside(&s->truth, s->call) > 0;
    s->ref = outputs_of(s->call, s->truth.elements);
    return s->ref ? HM_OK : HM_NO_MEMORY;
}

static void dispose(subject *s) {
    hm_truth_free(&s->truth);
    free(s->found);
    free(s->ref);
    hm_call_free(s->call);
}

static bool is_killed(const hm_kills *kills, int fault) {
    int killed;
#pragma omp atomic read
    killed = kills->score[fault].killed;
    return killed > 0;
}

/* Has some fault of the op not been killed yet? */
static bool worth_while(const hm_op_info *op, const hm_kills *kills) {
    for (int f = 0; f < hm_fault_count(); f++)
        if (!strcmp(hm_fault_at(f)->op, op->name) && !hm_fault_at(f)->equivalent && !is_killed(kills, f)) return true;
    return false;
}

static hm_status one_case(const hm_case_spec *spec, int index, bool first_kill, hm_kill_row *row, hm_kills *kills) {
    subject s;
    if (first_kill && !worth_while(spec->op, kills)) return HM_OK;
    hm_status status = prepare(spec, &s, &row->bad);
    snprintf(row->line, sizeof row->line, "%s", spec->line);
    row->op = spec->op;
    row->elements = s.truth.elements;
    for (int f = 0; f < hm_fault_count() && !status; f++) {
        const hm_fault *fault = hm_fault_at(f);
        if (strcmp(fault->op, spec->op->name) || (first_kill && is_killed(kills, f))) continue;
        outcome o = try(fault, &s);
        row->killed[f] = o.killed;
        row->kills += o.killed;
        uint64_t bits = XXH3_64bits_withSeed(&o.bits, sizeof o.bits, (uint64_t)index);
        hm_fault_score *score = &kills->score[f];
#pragma omp critical(hm_selftest_score)
        {
            score->cases++;
            int kill = o.killed;
#pragma omp atomic update
            score->killed += kill;
            score->caught += o.caught;
            score->bits ^= bits;
            if (o.killed) score->elements += row->elements, score->outside += o.outside;
        }
    }
    dispose(&s);
    return status;
}

/* ---- the matrix ---- */

static void find_smallest(hm_kills *kills) {
    for (int f = 0; f < hm_fault_count(); f++) {
        int *best = &kills->score[f].smallest;
        *best = -1;
        for (int r = 0; r < kills->rows; r++)
            if (kills->row[r].killed[f] && (*best < 0 || kills->row[r].elements < kills->row[*best].elements))
                *best = r;
    }
}

/* Large cases last where the first kill is enough, and first where all are tried, so that no thread is left with them.
 */
typedef struct {
    int64_t size;
    int index;
} place;

static int larger_first(const void *a, const void *b) {
    const place *p = a, *q = b;
    return p->size != q->size ? (p->size < q->size) - (p->size > q->size)
                              : (p->index > q->index) - (p->index < q->index);
}

static place *order_of(const hm_case_list *cases) {
    place *order = calloc((size_t)cases->n + 1, sizeof *order);
    for (int i = 0; order && i < cases->n; i++) {
        const hm_case_spec *spec = &cases->spec[i];
        order[i].index = i;
        for (int a = 0; a < spec->op->nargs && spec->expect == HM_OK; a++) {
            int64_t n = spec->dtype[a] != HM_DTYPE_NONE && !spec->op->args[a].rows_named_by;
            for (int d = 0; d < spec->ndim[a]; d++) n *= spec->shape[a][d];
            order[i].size += n;
        }
    }
    if (order) qsort(order, (size_t)cases->n, sizeof *order, larger_first);
    return order;
}

hm_status hm_kills_run(const hm_case_list *cases, const hm_selftest_options *options, hm_kills *kills) {
    int faults = hm_fault_count(), n = cases->n;
    hm_status status = HM_OK;
    bool stopped = false;
    *kills = (hm_kills){.row = calloc((size_t)n + 1, sizeof *kills->row),
                        .rows = n,
                        .score = calloc((size_t)faults + 1, sizeof *kills->score)};
    if (!kills->row || !kills->score) return HM_NO_MEMORY;
    for (int i = 0; i < n; i++) {
        kills->row[i].killed = calloc((size_t)faults + 1, 1);
        if (!kills->row[i].killed) return HM_NO_MEMORY;
    }
    int threads = options->threads > 0 ? options->threads : omp_get_max_threads();
    place *order = order_of(cases);
    if (!order) return HM_NO_MEMORY;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int k = 0; k < n; k++) {
        bool skip;
        int i = order[options->first_kill ? n - 1 - k : k].index;
#pragma omp atomic read
        skip = stopped;
        if (skip) continue;
        hm_status mine = one_case(&cases->spec[i], i, options->first_kill, &kills->row[i], kills);
#pragma omp critical(hm_selftest_step)
        {
            if (mine && !status) status = mine;
            if (mine || (options->step && !options->step(options->context, cases->spec[i].line))) stopped = true;
        }
    }
    free(order);
    kills->stopped = stopped;
    find_smallest(kills);
    return status;
}

void hm_kills_free(hm_kills *kills) {
    for (int i = 0; kills->row && i < kills->rows; i++) free(kills->row[i].killed);
    free(kills->row);
    free(kills->score);
    *kills = (hm_kills){0};
}

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* The names of op's faults in ascending order, to be freed; *n: how many. */
static const char **names_of(const char *op, int *n) {
    const char **names = malloc(((size_t)hm_fault_count() + 1) * sizeof *names);
    *n = 0;
    for (int f = 0; names && f < hm_fault_count(); f++)
        if (!strcmp(hm_fault_at(f)->op, op)) names[(*n)++] = strchr(hm_fault_at(f)->id, '.') + 1;
    if (names) qsort(names, (size_t)*n, sizeof *names, by_name);
    return names;
}

static int by_line(const void *a, const void *b) {
    return strcmp((*(const hm_kill_row *const *)a)->line, (*(const hm_kill_row *const *)b)->line);
}

char *hm_kills_json(const hm_kills *kills) {
    const hm_kill_row **rows = malloc(((size_t)kills->rows + 1) * sizeof *rows);
    int n = 0, *fault = malloc(((size_t)hm_fault_count() + 1) * sizeof *fault); /* the one of each name */
    const char **names = NULL, *op = "";
    char *text = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&text, &size);
    if (!rows || !fault || !to) abort();
    for (int r = 0; r < kills->rows; r++) rows[r] = &kills->row[r];
    qsort(rows, (size_t)kills->rows, sizeof *rows, by_line);
    fputc('{', to);
    for (int r = 0; r < kills->rows; r++) {
        if (r && !strcmp(rows[r - 1]->line, rows[r]->line)) continue;
        if (strncmp(op, rows[r]->line, strlen(op)) || rows[r]->line[strlen(op)] != ' ' || !*op) {
            free(names);
            for (int i = 0; i < hm_op_count(); i++)
                if (!strncmp(hm_op_at(i)->name, rows[r]->line, strlen(hm_op_at(i)->name)) &&
                    rows[r]->line[strlen(hm_op_at(i)->name)] == ' ')
                    op = hm_op_at(i)->name;
            names = names_of(op, &n);
            for (int f = 0; f < hm_fault_count(); f++) {
                const char *name = strchr(hm_fault_at(f)->id, '.') + 1, **at;
                if (strcmp(hm_fault_at(f)->op, op)) continue;
                at = bsearch(&name, names, (size_t)n, sizeof *names, by_name);
                fault[at - names] = f;
            }
            fprintf(to, "%s\n\"%s\":[", r ? "," : "", op);
            for (int i = 0; i < n; i++) fprintf(to, "%s\"%s\"", i ? "," : "", names[i]);
            fputc(']', to);
        }
        /* one line a case, so that a change shows in a diff */
        fprintf(to, ",\n\"%s\":[", rows[r]->line);
        bool first = true;
        for (int i = 0; i < n; i++)
            if (rows[r]->killed[fault[i]]) fprintf(to, "%s%d", first ? "" : ",", i), first = false;
        fputc(']', to);
    }
    fputs("\n}\n", to);
    fclose(to);
    free(names), free(fault), free(rows);
    return text;
}

bool hm_kills_current(const hm_kills *kills) {
    char *json = hm_kills_json(kills);
    bool current = false;
    for (int i = 0; i < hm_embedded_count; i++)
        if (!strcmp(hm_embedded[i].name, "kills.json")) current = json && !strcmp(hm_embedded[i].data, json);
    free(json);
    return current;
}

bool hm_kills_confirm(const hm_fault *fault, const char *line, char *why, size_t size) {
    char name[128];
    hm_case_spec spec;
    hm_call *call;
    hm_verdict verdict = {.outcome = HM_PASS};
    snprintf(name, sizeof name, "fault:%s", fault->id);
    hm_impl *impl = hm_impl_open(name, 1, why, size);
    if (!impl) return false;
    if (hm_case_parse(line, &spec, why, size) || hm_call_from_case(&spec, &call, why, size)) {
        hm_impl_close(impl);
        return false;
    }
    hm_judge_options options = {
        .required = HM_CLASS_NONE, .tier = HM_TIER_TWO, .require_invariance = fault->needs_invariance};
    hm_judge(impl, call, &options, &verdict);
    snprintf(why, size, "%s: %s", hm_outcome_name(verdict.outcome), verdict.why);
    hm_call_free(call);
    hm_impl_close(impl);
    return verdict.outcome == HM_FAIL || verdict.outcome == HM_OUT_OF_CLASS;
}
