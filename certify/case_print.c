#include "case_print.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const hm_broken_names[] = {"", "null", "ndim0", "ndim5", "dtype99", "place9", "cuda", NULL};

static void contiguous(int ndim, const int64_t *shape, int64_t *stride) {
    int64_t step = 1;
    for (int d = ndim - 1; d >= 0; d--) {
        stride[d] = step;
        if (__builtin_mul_overflow(step, shape[d] > 0 ? shape[d] : 1, &step)) step = INT64_MAX;
    }
}

void hm_case_stride(const hm_case_spec *spec, int arg, int64_t *stride) {
    int on = spec->alias[arg];
    if (on >= 0 && spec->ndim[on] == spec->ndim[arg]) memcpy(stride, spec->stride[on], sizeof spec->stride[on]);
    else contiguous(spec->ndim[arg], spec->shape[arg], stride);
}

typedef struct {
    char *text;
    size_t at;
} printer;

__attribute__((format(printf, 2, 3))) static void put(printer *to, const char *format, ...) {
    if (to->at >= HM_CASE_MAX) return;
    va_list list;
    va_start(list, format);
    to->at += (size_t)vsnprintf(to->text + to->at, HM_CASE_MAX - to->at, format, list);
    va_end(list);
}

/* The shortest decimal that reads back as v; exponents without padding: 1e-6. */
static void put_number(printer *to, double v) {
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v || isnan(v)) break;
    }
    char *e = strchr(text, 'e');
    if (!e) return put(to, "%s", text);
    long exponent = strtol(e + 1, NULL, 10);
    *e = 0;
    put(to, "%se%ld", text, exponent);
}

static void put_ints(printer *to, int n, const int64_t *v) {
    for (int i = 0; i < n; i++) put(to, "%s%" PRId64, i ? "," : "", v[i]);
}

bool hm_case_print(hm_case_spec *spec) {
    const hm_op_info *op = spec->op;
    printer to = {spec->line, 0};
    put(&to, "%s", op->name);
    for (int i = 0; i < op->nargs; i++) {
        put(&to, " %s=%s", op->args[i].name, hm_dtype_name(spec->dtype[i]));
        if (spec->dtype[i] == HM_DTYPE_NONE) continue;
        put(&to, "[");
        put_ints(&to, spec->ndim[i], spec->shape[i]);
        put(&to, "]");
    }
    for (int i = 0; i < op->nparams; i++) {
        const hm_param_info *info = &op->params[i];
        int n = 0;
        put(&to, " %s=", info->name);
        if (info->type == HM_PARAM_F64) {
            put_number(&to, spec->param[i]);
            continue;
        }
        for (; info->type == HM_PARAM_MODE && info->values[n]; n++) {
        }
        if (spec->param[i] >= 0 && spec->param[i] < n) put(&to, "%s", info->values[(int)spec->param[i]]);
        else put(&to, "%" PRId64, (int64_t)spec->param[i]);
    }
    const char *lead = " alias=";
    for (int i = 0; i < op->nargs; i++) {
        if (spec->alias[i] < 0) continue;
        put(&to, "%s%s:%s", lead, op->args[i].name, op->args[spec->alias[i]].name);
        if (spec->alias_offset[i]) put(&to, "%+" PRId64, spec->alias_offset[i]);
        lead = ";";
    }
    lead = " stride=";
    for (int i = 0; i < op->nargs; i++) {
        int64_t stride[4];
        if (spec->dtype[i] == HM_DTYPE_NONE) continue;
        hm_case_stride(spec, i, stride);
        if (!memcmp(stride, spec->stride[i], (size_t)spec->ndim[i] * sizeof *stride)) continue;
        put(&to, "%s%s:", lead, op->args[i].name);
        put_ints(&to, spec->ndim[i], spec->stride[i]);
        lead = ";";
    }
    lead = " broken=";
    for (int i = 0; i < op->nargs; i++) {
        if (!spec->broken[i]) continue;
        put(&to, "%s%s:%s", lead, op->args[i].name, hm_broken_names[spec->broken[i]]);
        lead = ";";
    }
    if (spec->broken_args) put(&to, "%sargs:%s", lead, spec->broken_args == HM_ARGS_NULL ? "null" : "size");
    if (spec->lengths) put(&to, " lengths=%s", spec->lengths == HM_LENGTHS_WHOLE ? "whole" : "causal");
    if (spec->every_batch) put(&to, " batches=every");
    put(&to, " gen=%s seed=%" PRIu64, spec->generator, spec->seed);
    if (spec->expect != HM_OK) put(&to, " expect=%s", hm_status_name(spec->expect));
    return to.at < HM_CASE_MAX;
}
