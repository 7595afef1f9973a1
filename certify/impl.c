/* impl.c: implementations by name. Ours for the host run in this process; ours for cuda and plug-ins in
 * their own (worker.c). */
#include "impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "faults.h"

typedef enum { REF, CPU } builtin;

static hm_op_fn *builtin_function(const hm_impl *impl, const hm_op_info *op) {
    switch ((builtin)(intptr_t)impl->state) {
        case REF:
            return op->ref;
        case CPU:
            return op->cpu;
    }
    return NULL;
}

/* Keeps hm_error()'s sentence, if the call that just failed wrote one: `stale` is what it was before. */
static void keep_error(hm_run *run, const char *stale) {
    if (run->status && strcmp(hm_error(), stale)) snprintf(run->error, sizeof run->error, "%s", hm_error());
}

/* hm_error() cannot be cleared. A sentence that no real call gives stands in for an empty one. */
static void mark_error(const hm_op_info *op, char *stale, size_t size) {
    static const size_t odd_size = 3;
    op->check(&odd_size);
    snprintf(stale, size, "%s", hm_error());
}

void hm_run_function(const hm_op_info *op, hm_op_fn *function, const void *args, hm_run *run) {
    char stale[512];
    run->state = HM_RAN;
    mark_error(op, stale, sizeof stale);
    run->status = function(args);
    keep_error(run, stale);
}

static bool builtin_provides(hm_impl *self, const hm_op_info *op) { return builtin_function(self, op) != NULL; }

static void builtin_run(hm_impl *self, hm_call *call, const void *args, hm_run *run) {
    hm_op_fn *function = builtin_function(self, call->op);
    *run = (hm_run){.state = HM_NOT_PROVIDED};
    if (function) hm_run_function(call->op, function, args, run);
}

static bool fault_provides(hm_impl *self, const hm_op_info *op) {
    return !strcmp(((const hm_fault *)self->state)->op, op->name);
}

static void fault_run(hm_impl *self, hm_call *call, const void *args, hm_run *run) {
    const hm_fault *fault = self->state;
    char stale[512];
    *run = (hm_run){.state = HM_NOT_PROVIDED};
    if (!fault_provides(self, call->op)) return;
    run->state = HM_RAN;
    mark_error(call->op, stale, sizeof stale);
    run->status = fault->run(fault->variation, args, run->written);
    keep_error(run, stale);
}

static bool variant_provides(hm_impl *self, const hm_op_info *op) {
    return !strcmp(((const hm_variant *)self->state)->op, op->name);
}

static void variant_run(hm_impl *self, hm_call *call, const void *args, hm_run *run) {
    const hm_variant *variant = self->state;
    char stale[512];
    *run = (hm_run){.state = HM_NOT_PROVIDED};
    if (!variant_provides(self, call->op)) return;
    run->state = HM_RAN;
    mark_error(call->op, stale, sizeof stale);
    run->status = variant->run(variant->variation, args);
    keep_error(run, stale);
}

static void *refuse(char *why, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void *refuse(char *why, size_t size, const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(why, size, format, list);
    va_end(list);
    return NULL;
}

static hm_impl *make(const char *name, hm_impl with, char *why, size_t size) {
    hm_impl *impl = malloc(sizeof *impl);
    if (!impl) return refuse(why, size, "no memory for an implementation");
    *impl = with;
    snprintf(impl->name, sizeof impl->name, "%s", name);
    return impl;
}

hm_impl *hm_impl_open(const char *spec, double timeout, char *why, size_t size) {
    static const char *const builtins[] = {[REF] = "ref", [CPU] = "cpu"};
    if (!strcmp(spec, "cuda") || !strcmp(spec, "cuda_fp8")) return hm_cuda_impl_open(spec, timeout, why, size);
    for (builtin b = REF; b <= CPU; b++)
        if (!strcmp(spec, builtins[b]))
            return make(
                spec,
                (hm_impl){.ours = true, .run = builtin_run, .provides = builtin_provides, .state = (void *)(intptr_t)b},
                why, size);
    if (!strncmp(spec, "fault:", 6)) {
        const hm_fault *fault = hm_fault_named(spec + 6);
        if (!fault) return refuse(why, size, "there is no fault \"%s\"; `hallmark list faults` names them", spec + 6);
        return make(spec, (hm_impl){.run = fault_run, .provides = fault_provides, .state = (void *)fault}, why, size);
    }
    if (!strncmp(spec, "variant:", 8)) {
        const hm_variant *variant = hm_variant_named(spec + 8);
        if (!variant)
            return refuse(why, size, "there is no variant \"%s\"; `hallmark list impls` names them", spec + 8);
        return make(spec, (hm_impl){.run = variant_run, .provides = variant_provides, .state = (void *)variant}, why,
                    size);
    }
    size_t length = strlen(spec);
    if (strchr(spec, '/') || (length > 3 && !strcmp(spec + length - 3, ".so")))
        return hm_plugin_open(spec, timeout, why, size);
    return refuse(why, size,
                  "there is no implementation \"%s\"; it has to be ref, cpu, cuda, cuda_fp8, fault:ID, variant:ID or a "
                  "plug-in's path ending in .so",
                  spec);
}

void hm_impl_close(hm_impl *impl) {
    if (!impl) return;
    if (impl->close) impl->close(impl);
    free(impl);
}
