/* hallmark selftest: false alarms, printed. */
#include <stdlib.h>
#include <string.h>

#include "../certify/inputs.h"
#include "selftest.h"

static void confirm_sequential(hm_selftest_session *s, const hm_variant *variant, const hm_variant_score *score) {
    char name[128], why[512];
    hm_case_spec spec;
    hm_call *call;
    hm_verdict v;
    if (!score->beyond[0]) {
        hm_selftest_complain(&s->vacuous, "VACUOUS  %s was not found out of chain512 on any stagnate row", variant->id);
        return;
    }
    snprintf(name, sizeof name, "variant:%s", variant->id);
    hm_impl *impl = hm_impl_open(name, HM_TIMEOUT, why, sizeof why);
    if (!impl || hm_case_parse(score->beyond, &spec, why, sizeof why) ||
        hm_call_from_case(&spec, &call, why, sizeof why))
        hm_die(HM_EXIT_INTERNAL, "%s", why);
    hm_judge(impl, call, &(hm_judge_options){.required = HM_CHAIN64, .threads = s->o->threads}, &v);
    bool right = v.outcome == HM_OUT_OF_CLASS && v.consistent == HM_ANY;
    if (!right) s->failed = true;
    printf("%s%s on a stagnate row: %s, consistent with %s\n", right ? "" : "FAIL  ", variant->id,
           hm_outcome_name(v.outcome), hm_class_name(v.consistent));
    hm_call_free(call);
    hm_impl_close(impl);
}

static void print_alarms(hm_selftest_session *s, const hm_op_info *op, const hm_alarms *alarms) {
    int variants = hm_variant_count(), first = -1;
    hm_table *t = hm_table_new("variant\tclass\t>cases\t>elements\t>outside\t>out of chain64 on stagnate");
    for (int v = 0; v < variants; v++) {
        const hm_variant *variant = hm_variant_at(v);
        const hm_variant_score *score = &alarms->score[v];
        if (strcmp(variant->op, op->name)) continue;
        hm_table_row(t, "%s\t%s\t%lld\t%lld\t%lld\t%lld", variant->id, variant->class_name, (long long)score->cases,
                     (long long)score->elements, (long long)score->outside, (long long)score->beyond_chain64);
    }
    hm_table_print(t, stdout);
    for (int v = 0; v < variants; v++) {
        const hm_variant *variant = hm_variant_at(v);
        if (strcmp(variant->op, op->name)) continue;
        if (first < 0) first = v;
        if (alarms->score[v].outside)
            hm_selftest_complain(&s->failed, "FALSE ALARM  %s: %s", variant->id, alarms->score[v].first);
        for (int w = first; w < v; w++)
            if (strchr(op->classes, ' ') && !alarms->differ[v * variants + w]) /* copies are all alike */
                hm_selftest_complain(&s->vacuous, "VACUOUS  %s and %s had the same bits on every case",
                                     hm_variant_at(w)->id, variant->id);
        if (strstr(variant->id, ".sequential") && !strstr(variant->id, "_fma"))
            confirm_sequential(s, variant, &alarms->score[v]);
    }
    if (!alarms->elements) hm_selftest_complain(&s->vacuous, "VACUOUS  %s has no legal variant", op->name);
    printf("%s: %lld elements of legal variants judged\n", op->name, (long long)alarms->elements);
}

void hm_selftest_alarms(hm_selftest_session *s) {
    for (int i = 0; i < hm_op_count(); i++) {
        const hm_op_info *op = hm_op_at(i);
        if (s->o->op && s->o->op != op) continue;
        hm_alarms alarms;
        hm_selftest_options options = hm_selftest_library_options(s, s->o->seed);
        options.op = op->name;
        bool rows = !strncmp(op->args[0].shape, "...", 3); /* elements are cheap */
        int64_t usual = !hm_inputs_of(op) ? 100000000 : rows ? 10000000 : 1000000;
        int64_t elements = s->o->elements ? s->o->elements : usual * s->o->more;
        s->progress = hm_progress_start("false alarms", elements);
        s->alarms = &alarms;
        hm_status status = hm_alarms_run(&options, elements, &alarms);
        s->alarms = NULL;
        hm_selftest_finish(s, status, alarms.stopped);
        print_alarms(s, op, &alarms);
        hm_alarms_free(&alarms);
    }
}
