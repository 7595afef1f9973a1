/* False alarms: legal variants on generated cases, each judged in its own class. Cases are drawn from the op's
 * description table, so that a new op, dtype, mode or generator is covered without a line here. */
#include <inttypes.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "generate.h"
#include "inputs.h"
#include "selftest.h"
#include "shape.h"

enum { BATCH = 64, MOST_ELEMENTS = 1 << 15 };

/* ---- drawing a case ---- */

typedef struct {
    uint64_t seed, index; /* of the case */
} draw;

static int64_t drawn(const draw *d, const char *what, int64_t n) {
    return (int64_t)(XXH3_64bits_withSeed(what, strlen(what), XXH3_64bits(d, sizeof *d)) % (uint64_t)n);
}

/* Vector widths and their neighbours, the widths of models, and rows long enough to tell the classes apart. */
static const int64_t widths[] = {1,    2,    3,    5,    7,    8,    11,   13,   16,   31,    33,   63,   64,
                                 65,   77,   127,  128,  129,  255,  256,  257,  500,  576,   768,  1000, 1024,
                                 1536, 2048, 2560, 4095, 4096, 4097, 5120, 7168, 8192, 12288, 16384};

/* One case of each batch has long rows that separate the classes. */
static bool separating(const draw *d) { return d->index % BATCH == 0; }

static int64_t width_drawn(const draw *d) {
    int64_t n = sizeof widths / sizeof *widths;
    return widths[separating(d) ? n - 1 - drawn(d, "width", 4) : drawn(d, "width", n)];
}

static const char *generator_drawn(const hm_op_info *op, const draw *d) {
    for (int i = 0; separating(d) && strchr(op->classes, ' ') && i < hm_generator_count(); i++)
        if (hm_generator_separates(hm_generator_at(i), op)) return hm_generator_at(i)->name;
    int usual = 0; /* those for selections stand last */
    while (usual < hm_generator_count() && !hm_generator_at(usual)->selection) usual++;
    return hm_generator_at((int)drawn(d, "gen", usual))->name;
}

/* Does some argument's shape end in the name? A last dimension is as wide as rows of models are, the others are small.
 */
static bool ends_shape(const hm_op_info *op, const char *name, size_t length) {
    for (int i = 0; i < op->nargs; i++) {
        size_t last;
        int fixed = hm_shape_fixed(op->args[i].shape);
        const char *at = fixed ? hm_shape_symbol(op->args[i].shape, fixed - 1, &last) : "";
        if (fixed && last == length && !strncmp(at, name, length)) return true;
    }
    return false;
}

/* An extent for every name in the shapes of op, and leading dimensions, so that no argument has many elements. */
static void extents_drawn(const hm_op_info *op, const draw *d, hm_symbols *to) {
    static const int64_t small[] = {1, 2, 3, 4, 5, 8, 16, 33}, long_tables[] = {1, 2, 300, 4097};
    int64_t most = 1;
    *to = (hm_symbols){.leading = -1};
    for (int i = 0; i < op->nargs; i++) {
        const hm_arg_info *a = &op->args[i];
        int fixed = hm_shape_fixed(a->shape);
        int64_t extent[4], elements = 1;
        for (int k = fixed - 1; k >= 0; k--) {
            size_t length;
            const char *name = hm_shape_symbol(a->shape, k, &length);
            char what[32];
            snprintf(what, sizeof what, "%.*s", (int)length, name);
            if (a->rows_named_by && k == 0) extent[k] = long_tables[drawn(d, what, 4)];
            else if (!ends_shape(op, name, length)) extent[k] = small[drawn(d, what, 8)];
            else if (to->count == 0 || drawn(d, "alike", 2)) extent[k] = width_drawn(d);
            else extent[k] = widths[drawn(d, what, sizeof widths / sizeof *widths)];
            if (extent[k] * elements > MOST_ELEMENTS && !a->rows_named_by) extent[k] = 1;
            elements *= extent[k];
        }
        hm_symbols_bind(to, a->shape, fixed, extent); /* sums and what is bound already stay as they are */
        if (!strncmp(a->shape, "...", 3) && elements > most) most = elements;
    }
    int64_t rows = 1 + drawn(d, "rows", 12), limit = MOST_ELEMENTS / most > 0 ? MOST_ELEMENTS / most : 1;
    to->leading = 1, to->lead[0] = rows < limit ? rows : limit;
    if (drawn(d, "rank", 4) == 0 && to->lead[0] % 2 == 0) to->leading = 2, to->lead[0] /= 2, to->lead[1] = 2;
}

/* One of the words of text. */
static void word_drawn(const draw *d, const char *what, const char *text, char word[16]) {
    int64_t words = 1;
    for (const char *c = text; *c; c++) words += *c == ' ';
    bool usual = *text == '=' && drawn(d, "usual", 2);
    for (int64_t skip = usual ? 0 : drawn(d, what, words); skip > 0; skip--) text = strchr(text, ' ') + 1;
    snprintf(word, 16, "%.*s", (int)strcspn(text, " "), text);
}

/* A case line; it may be one that the contract refuses. */
static void line_drawn(const hm_op_info *op, const draw *d, char *line, size_t size) {
    static const char *const numbers[] = {"1e-6", "1e-5", "0", "1e-12", "1e-8", "0.03"};
    char dtype[HM_MAX_ARGS][16];
    hm_symbols symbols;
    size_t at = (size_t)snprintf(line, size, "%s", op->name);
    extents_drawn(op, d, &symbols);
    for (int i = 0; i < op->nargs; i++) {
        const hm_arg_info *a = &op->args[i];
        word_drawn(d, a->name, a->dtypes, dtype[i]);
        for (int j = 0; dtype[i][0] == '=' && j < i; j++) /* that of another argument, which comes first */
            if (!strcmp(op->args[j].name, dtype[i] + 1)) memcpy(dtype[i], dtype[j], sizeof dtype[i]);
        if (a->optional && a->direction == HM_IN && drawn(d, "absent", 4) == 0)
            snprintf(dtype[i], sizeof dtype[i], "none");
        at += (size_t)snprintf(line + at, size - at, " %s=%s", a->name, dtype[i]);
        if (!strcmp(dtype[i], "none")) continue;
        const char *unknown;
        size_t length;
        int64_t shape[4];
        int ndim = hm_symbols_shape(&symbols, a->shape, shape, &unknown, &length);
        for (int k = 0; k < ndim; k++)
            at += (size_t)snprintf(line + at, size - at, "%s%" PRId64, k ? "," : "[", shape[k]);
        at += (size_t)snprintf(line + at, size - at, "]");
    }
    for (int i = 0; i < op->nparams; i++) {
        const hm_param_info *p = &op->params[i];
        int values = 0;
        while (p->values && p->values[values]) values++;
        if (p->type == HM_PARAM_MODE)
            at += (size_t)snprintf(line + at, size - at, " %s=%s", p->name, p->values[drawn(d, p->name, values)]);
        else if (p->type == HM_PARAM_F64)
            at += (size_t)snprintf(line + at, size - at, " %s=%s", p->name,
                                   numbers[drawn(d, p->name, sizeof numbers / sizeof *numbers)]);
        else if (drawn(d, p->name, 4) == 0)
            at += (size_t)snprintf(line + at, size - at, " %s=%" PRId64, p->name, 1 + drawn(d, "part", width_drawn(d)));
    }
    snprintf(line + at, size - at, " gen=%s seed=%" PRIu64, generator_drawn(op, d), d->seed + d->index);
}

/* Where the elements of a column, or several inputs, hang together there are no rows to draw: a case of the op's quick
 * suite, with another seed. */
static hm_call *known_call(const hm_op_info *op, draw d, const hm_case_list *cases) {
    hm_case_spec spec;
    hm_call *call = NULL;
    char line[HM_CASE_MAX], why[256];
    for (int attempt = 0; attempt < 1000 && !call && cases->n; attempt++, d.seed += UINT64_C(0x9e3779b97f4a7c15)) {
        const hm_case_spec *known = &cases->spec[drawn(&d, "case", cases->n)];
        int before = (int)(strstr(known->line, " seed=") - known->line);
        if (known->expect != HM_OK) continue;
        snprintf(line, sizeof line, "%.*s seed=%" PRIu64, before, known->line, d.seed + d.index);
        if (hm_case_parse(line, &spec, why, sizeof why) || hm_call_from_case(&spec, &call, why, sizeof why)) break;
        if (op->check(call->args) == HM_OK) continue;
        hm_call_free(call);
        call = NULL;
    }
    return call;
}

static bool from_suite(const hm_op_info *op) { return hm_golden_observes(op) || hm_inputs_of(op); }

/* A legal case: the first of a fixed sequence of draws that the op's check accepts. NULL: none was, or memory is short.
 */
static hm_call *legal_call(const hm_op_info *op, draw d, const hm_case_list *cases) {
    if (from_suite(op)) return known_call(op, d, cases);
    for (int attempt = 0; attempt < 1000; attempt++, d.seed += UINT64_C(0x9e3779b97f4a7c15)) {
        char line[HM_CASE_MAX], why[256];
        hm_case_spec spec;
        hm_call *call;
        line_drawn(op, &d, line, sizeof line);
        if (hm_case_parse(line, &spec, why, sizeof why))
            return NULL; /* the description table does not describe the cases */
        if (hm_call_from_case(&spec, &call, why, sizeof why)) return NULL;
        if (op->check(call->args) == HM_OK) return call;
        hm_call_free(call);
    }
    return NULL;
}

/* ---- judging ---- */

static void count(hm_variant_score *score, const hm_call *call, int64_t elements, int64_t outside, int64_t beyond64,
                  int64_t beyond) {
#pragma omp critical(hm_selftest_score)
    {
        score->cases++;
        score->elements += elements;
        score->outside += outside;
        score->beyond_chain64 += beyond64;
        /* the first in order of the text, so that it does not depend on the threads */
        if (beyond > score->most_beyond ||
            (beyond && beyond == score->most_beyond && strcmp(call->name, score->beyond) < 0)) {
            score->most_beyond = beyond;
            snprintf(score->beyond, sizeof score->beyond, "%s", call->name);
        }
        if (outside && (!score->first[0] || strcmp(call->name, score->first) < 0))
            snprintf(score->first, sizeof score->first, "%s", call->name);
    }
}

/* How many elements of a variant's outputs its class does not admit: the same as for the same bits before. */
static int64_t outside_of(hm_truth *own, const hm_call *call, const uint64_t *hash, const int64_t *outside, int v) {
    for (int w = 0; w < v; w++)
        if (outside[w] >= 0 && hash[w] == hash[v] && !strcmp(hm_variant_at(w)->op, call->op->name) &&
            !strcmp(hm_variant_at(w)->class_name, hm_variant_at(v)->class_name))
            return outside[w];
    return hm_truth_outside(own, call);
}

static hm_status one_case(const hm_op_info *op, draw d, const hm_case_list *cases, hm_alarms *alarms) {
    int variants = hm_variant_count();
    hm_call *call = legal_call(op, d, cases);
    hm_truth truth[HM_CLASS_COUNT] = {0};
    uint64_t *hash = calloc((size_t)variants + 1, sizeof *hash);
    int64_t *outside = malloc(((size_t)variants + 1) * sizeof *outside); /* -1: not known */
    hm_status status = call && hash && outside ? HM_OK : HM_INTERNAL;
    if (!status) status = op->ref(call->args);
    for (int c = 0; c < HM_CLASS_COUNT && !status; c++)
        if (strstr(op->classes, hm_class_name((hm_class)c)))
            status = hm_truth_make(call, (hm_class)c, HM_TIER_TWO, &truth[c]);
    for (int v = 0; v < variants && !status; v++) {
        const hm_variant *variant = hm_variant_at(v);
        outside[v] = -1;
        if (strcmp(variant->op, op->name)) continue;
        char effects[256];
        hm_call_reset(call);
        bool fine = variant->run(variant->variation, call->args) == HM_OK &&
                    hm_call_effects(call, false, effects, sizeof effects);
        hm_truth *own = &truth[hm_class_named(variant->class_name)];
        hash[v] = hm_truth_hash(call);
        bool stagnates = !strcmp(call->spec.generator, "stagnate");
        if (fine) outside[v] = outside_of(own, call, hash, outside, v);
        count(&alarms->score[v], call, own->elements, fine ? outside[v] : own->elements + 1,
              stagnates ? hm_truth_outside(&truth[HM_CHAIN64], call) : 0,
              stagnates ? hm_truth_outside(&truth[HM_CHAIN512], call) : 0);
        for (int w = 0; w < v; w++)
            if (hash[w] && hash[w] != hash[v] && !strcmp(hm_variant_at(w)->op, op->name)) {
#pragma omp atomic write
                alarms->differ[v * variants + w] = 1;
            }
    }
    for (int c = 0; c < HM_CLASS_COUNT; c++) hm_truth_free(&truth[c]);
    free(hash);
    free(outside);
    hm_call_free(call);
    return status;
}

hm_status hm_alarms_run(const hm_selftest_options *options, int64_t elements, hm_alarms *alarms) {
    const hm_op_info *op = hm_op_named(options->op);
    size_t variants = (size_t)hm_variant_count();
    *alarms =
        (hm_alarms){.score = calloc(variants + 1, sizeof *alarms->score), .differ = calloc(variants * variants + 1, 1)};
    if (!alarms->score || !alarms->differ) return HM_NO_MEMORY;
    bool any = false;
    for (size_t v = 0; v < variants; v++) any |= !strcmp(hm_variant_at((int)v)->op, op->name);
    if (!any) return HM_OK;
    int threads = options->threads > 0 ? options->threads : omp_get_max_threads();
    hm_status status = HM_OK;
    hm_case_list cases = {0};
    char why[256];
    if (from_suite(op) && hm_cases_of_suite(HM_QUICK, op->name, options->seed, &cases, why, sizeof why))
        return HM_INTERNAL;
    /* Whole batches, so that what is judged does not depend on the threads. */
    for (uint64_t first = 0; alarms->elements < elements && !status && !alarms->stopped; first += BATCH) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
        for (uint64_t i = first; i < first + BATCH; i++) {
            hm_status mine = one_case(op, (draw){options->seed, i}, &cases, alarms);
#pragma omp critical(hm_selftest_step)
            if (mine && !status) status = mine;
        }
        alarms->elements = 0;
        for (size_t v = 0; v < variants; v++) alarms->elements += alarms->score[v].elements;
        if (options->step && !options->step(options->context, op->name)) alarms->stopped = true;
    }
    free(cases.spec);
    return status;
}

void hm_alarms_free(hm_alarms *alarms) {
    free(alarms->score);
    free(alarms->differ);
    *alarms = (hm_alarms){0};
}
