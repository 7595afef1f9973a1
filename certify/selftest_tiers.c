/* Golden's two tiers against MPFR alone: the same bits, and how much faster. */
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "selftest.h"

static bool same_parts(const hm_golden_row *a, const hm_golden_row *b) {
    if (a->nparts != b->nparts) return false;
    for (int64_t i = 0; i < a->nparts; i++) {
        const hm_golden_parts *p = &a->parts[i], *q = &b->parts[i];
        size_t size = (size_t)p->n * sizeof *p->lo;
        if (p->index != q->index || p->n != q->n || memcmp(p->lo, q->lo, size) || memcmp(p->hi, q->hi, size))
            return false;
    }
    return true;
}

static bool same_bits(const double *a, const double *b) { return *a != *a ? *b != *b : !memcmp(a, b, sizeof *a); }

static int64_t differences(const hm_truth *a, const hm_truth *b) {
    int64_t different = 0;
    for (int k = 0; k < a->nargs; k++)
        for (int64_t r = 0; r < a->arg[k].rows; r++) {
            const hm_golden_row *p = &a->arg[k].row[r], *q = &b->arg[k].row[r];
            int64_t before = different;
            for (int64_t i = 0; i < a->arg[k].n; i++)
                different += !same_bits(&p->lo[i], &q->lo[i]) || !same_bits(&p->hi[i], &q->hi[i]) ||
                             !same_bits(&p->ideal[i], &q->ideal[i]) || p->flags[i] != q->flags[i] ||
                             ((p->flags[i] & HM_GOLD_BITS) && p->bits[i] != q->bits[i]);
            if (different == before && !same_parts(p, q)) different++;
        }
    return different;
}

static hm_status one_case(const hm_case_spec *spec, hm_tiers *tiers) {
    char why[256];
    hm_call *call;
    hm_status status = hm_call_from_case(spec, &call, why, sizeof why);
    if (status) return status;
    if (spec->expect == HM_OK && call->op->check(hm_call_args(call)) == HM_OK) {
        hm_class required = hm_class_named(call->op->class_required);
        hm_truth two = {0}, mpfr = {0};
        status = call->op->ref(call->args);
        if (!status) status = hm_truth_make(call, required, HM_TIER_TWO, &two);
        if (!status) status = hm_truth_make(call, required, HM_TIER_MPFR, &mpfr);
        int64_t different = status ? 0 : differences(&two, &mpfr);
#pragma omp critical(hm_selftest_score)
        {
            tiers->cases++;
            tiers->elements += two.elements;
            tiers->different += different;
            tiers->two += two.seconds, tiers->mpfr += mpfr.seconds;
            if (different && (!tiers->first[0] || strcmp(spec->line, tiers->first) < 0))
                snprintf(tiers->first, sizeof tiers->first, "%s", spec->line);
        }
        hm_truth_free(&two);
        hm_truth_free(&mpfr);
    }
    hm_call_free(call);
    return status;
}

hm_status hm_tiers_run(const hm_case_list *cases, const hm_selftest_options *options, hm_tiers *tiers) {
    hm_status status = HM_OK;
    bool stopped = false;
    int threads = options->threads > 0 ? options->threads : omp_get_max_threads();
    *tiers = (hm_tiers){0};
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int i = 0; i < cases->n; i++) {
        bool skip;
#pragma omp atomic read
        skip = stopped;
        if (skip) continue;
        hm_status mine = one_case(&cases->spec[i], tiers);
#pragma omp critical(hm_selftest_step)
        {
            if (mine && !status) status = mine;
            if (mine || (options->step && !options->step(options->context, cases->spec[i].line))) stopped = true;
        }
    }
    tiers->stopped = stopped;
    return status;
}
