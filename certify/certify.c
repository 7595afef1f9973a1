/* certify.c: the judge for callers in their own process. */
#include <hallmark/certify.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../op/check.h"
#include "judge.h"

struct hm_certify {
    hm_call *call;
    hm_run run;
    hm_verdict verdict;
};

/* The caller's threads are not ours: one linked with -ffast-math would spoil both the inputs and the verdict. */
static hm_status check_environment(const char *function) {
    return hm_golden_environment(0) ? HM_OK
                                    : hm_fail(HM_UNSUPPORTED,
                                              "%s: this program's threads flush subnormals or do not round to nearest "
                                              "(is it linked with -ffast-math?); nothing can be judged there",
                                              function);
}

hm_certify *hm_certify_open(const char *line) {
    char why[512] = "";
    hm_certify *c = calloc(1, sizeof *c);
    hm_case_spec *spec = malloc(sizeof *spec);
    hm_status s = c && spec ? HM_OK : HM_NO_MEMORY;
    if (s) hm_fail(s, "hm_certify_open: no memory");
    else if ((s = check_environment("hm_certify_open"))) {
    } else if (!line) s = hm_fail(HM_BAD_ARG, "hm_certify_open: line is NULL; it has to be a case");
    else if ((s = hm_case_parse(line, spec, why, sizeof why)) ||
             (s = hm_call_from_case(spec, &c->call, why, sizeof why)))
        hm_fail(s, "hm_certify_open: %s", why);
    free(spec);
    if (!s) return c;
    free(c);
    return NULL;
}

void hm_certify_close(hm_certify *c) {
    if (!c) return;
    hm_call_free(c->call);
    free(c);
}

const char *hm_certify_line(const hm_certify *c) { return c->call->spec.line; }
const char *hm_certify_op(const hm_certify *c) { return c->call->op->name; }

const void *hm_certify_args(const hm_certify *c) {
    return c->call->spec.broken_args == HM_ARGS_NULL ? NULL : c->call->args;
}

static int argument(const hm_certify *c, const char *name) {
    for (int i = 0; name && i < c->call->op->nargs; i++)
        if (!strcmp(name, c->call->op->args[i].name)) return i;
    return -1;
}

const hm_tensor *hm_certify_tensor(const hm_certify *c, const char *name) {
    int i = argument(c, name);
    return i < 0 ? NULL : hm_arg_tensor(c->call->op, c->call->args, i);
}

double hm_certify_param(const hm_certify *c, const char *name) {
    for (int i = 0; name && i < c->call->op->nparams; i++)
        if (!strcmp(name, c->call->op->params[i].name)) return c->call->spec.param[i];
    return NAN;
}

/* Copies between a tensor and contiguous memory; to_tensor says which way. */
static hm_status copy(const hm_certify *c, const char *function, const char *name, void *memory, size_t bytes,
                      bool to_tensor) {
    const hm_tensor *t = hm_certify_tensor(c, name);
    if (!t)
        return hm_fail(HM_BAD_ARG, "%s: %s has no argument \"%s\"", function, c->call->op->name, name ? name : "NULL");
    if (to_tensor && c->call->op->args[argument(c, name)].direction == HM_IN)
        return hm_fail(HM_BAD_ARG, "%s: %s is an input", function, name);
    size_t size = hm_dtype_size(t->dtype), all = (size_t)hm_tensor_elements(t) * size;
    if (bytes != all) return hm_fail(HM_BAD_ARG, "%s: %zu bytes were given; %s has %zu", function, bytes, name, all);
    if (all == 0) return HM_OK;
    if (!memory || !t->data) return hm_fail(HM_BAD_ARG, "%s: no data (NULL) for %s", function, name);
    int64_t rows = hm_row_count(t), n = t->shape[t->ndim - 1];
    char *flat = memory;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t k = 0; k < n; k++, flat += size) {
            char *element = (char *)t->data + (hm_row_offset(t, row) + k * t->stride[t->ndim - 1]) * (int64_t)size;
            memcpy(to_tensor ? element : flat, to_tensor ? flat : element, size);
        }
    return HM_OK;
}

hm_status hm_certify_read(const hm_certify *c, const char *name, void *to, size_t bytes) {
    return copy(c, "hm_certify_read", name, to, bytes, false);
}

hm_status hm_certify_write(hm_certify *c, const char *name, const void *from, size_t bytes) {
    return copy(c, "hm_certify_write", name, (void *)from, bytes, true);
}

hm_status hm_certify_written(hm_certify *c, const char *name, hm_dtype dtype) {
    int i = argument(c, name);
    if (i < 0 || c->call->op->args[i].direction == HM_IN)
        return hm_fail(HM_BAD_ARG, "hm_certify_written: %s has no output \"%s\"", c->call->op->name,
                       name ? name : "NULL");
    if (!hm_dtype_size(dtype)) return hm_fail(HM_BAD_DTYPE, "hm_certify_written: dtype %d is no hm_dtype", (int)dtype);
    c->run.written[i] = dtype;
    return HM_OK;
}

hm_status hm_certify_judge(hm_certify *c, hm_status returned, const char *class_name, hm_certify_verdict *verdict) {
    hm_judge_options options = {.required = class_name ? hm_class_named(class_name) : HM_CLASS_NONE};
    size_t size = verdict ? verdict->size : 0;
    if (size < sizeof size + sizeof(char *)) return hm_fail(HM_BAD_ARG, "hm_certify_judge: verdict->size is %zu", size);
    if (class_name && options.required == HM_CLASS_NONE)
        return hm_fail(HM_BAD_PARAM, "hm_certify_judge: there is no class \"%s\"; %s has %s", class_name,
                       c->call->op->name, c->call->op->classes);
    if ((unsigned)returned >= HM_STATUS_COUNT)
        return hm_fail(HM_BAD_PARAM, "hm_certify_judge: %d is no hm_status", (int)returned);
    hm_status unfit = check_environment("hm_certify_judge");
    if (unfit) return unfit;
    c->run.state = HM_RAN;
    c->run.status = returned;
    hm_judge_outputs(c->call, &c->run, &options, &c->verdict);
    const hm_verdict *v = &c->verdict;
    hm_certify_verdict full = {
        .size = size,
        .outcome = hm_outcome_name(v->outcome),
        .why = v->why,
        .effects = v->effects,
        .required = hm_class_name(v->required),
        .consistent = hm_class_name(v->consistent),
        .elements = v->elements,
        .outside = v->outside,
        .out_of_class = v->out_of_class,
        .range_free = v->range_free,
        .decided = v->decided,
        .max_ulp = v->max_ulp,
        .worst = v->has_worst ? c->call->op->args[v->worst_arg].name : "",
        .worst_ndim = v->worst_ndim,
        .worst_got = v->worst_got,
        .worst_lo = v->worst_lo,
        .worst_hi = v->worst_hi,
        .worst_ideal = v->worst_ideal,
    };
    memcpy(full.worst_index, v->worst_index, sizeof full.worst_index);
    memcpy(verdict, &full, size < sizeof full ? size : sizeof full);
    return HM_OK;
}

void hm_certify_reset(hm_certify *c) {
    hm_call_reset(c->call);
    c->run = (hm_run){0};
}

typedef struct {
    int (*visit)(const char *, void *);
    void *context;
} visitor;

static int visit_line(const hm_case_spec *spec, void *context) {
    visitor *v = context;
    return v->visit(spec->line, v->context);
}

int hm_certify_suite(const char *suite, const char *op, uint64_t seed, int (*visit)(const char *line, void *context),
                     void *context) {
    static const char *const names[] = {[HM_SMOKE] = "smoke", [HM_QUICK] = "quick", [HM_FULL] = "full"};
    char why[512] = "";
    if (op && !hm_op_named(op)) return hm_fail(HM_BAD_PARAM, "hm_certify_suite: there is no op \"%s\"", op), -1;
    for (hm_suite s = HM_SMOKE; suite && s <= HM_FULL; s++) {
        if (strcmp(suite, names[s])) continue;
        int result = hm_suite_each(s, op, seed, visit_line, &(visitor){visit, context}, why, sizeof why);
        if (result == -1 && why[0]) hm_fail(HM_INTERNAL, "hm_certify_suite: %s", why);
        return result;
    }
    return hm_fail(HM_BAD_PARAM, "hm_certify_suite: there is no suite \"%s\"; it has to be smoke, quick or full",
                   suite ? suite : "NULL"),
           -1;
}
