#include "common.h"
#include "norm.h"

#define OP "rms_norm"

static hm_status check(const hm_norm_call *c) {
    return hm_rms_norm_check(HM_ARGS(rms_norm, .out = c->out, .x = c->x, .weight = c->weight, .eps = c->eps,
                                     .round = c->round, .weight_form = c->weight_form,
                                     .variance_size = c->variance_size));
}

static hm_status run(const void *variation, const void *args, hm_dtype written[HM_MAX_ARGS]) {
    const hm_rms_norm_args *a = args;
    if (!a || a->size != sizeof *a)
        return ((const hm_norm_variation *)variation)->checks == CHECKS_SILENT ? HM_OK : hm_rms_norm_check(a);
    return hm_norm_fault_run(variation,
                             &(hm_norm_call){.out = a->out,
                                             .x = a->x,
                                             .weight = a->weight,
                                             .eps = a->eps,
                                             .round = a->round,
                                             .weight_form = a->weight_form,
                                             .variance_size = a->variance_size,
                                             .out_arg = hm_fault_arg(OP, "out")},
                             check, written);
}

#include "norm_table.h"

const hm_fault hm_rms_norm_faults[] = {
#include "norm_faults.inc"
};
const int hm_rms_norm_fault_count = sizeof hm_rms_norm_faults / sizeof *hm_rms_norm_faults;
