/* eval.c: what an evaluation is made of: the folder, the problems, and the paths that may be asked for. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../certify/faults.h"
#include "../certify/worker.h"
#include "compare.h"
#include "hallmark/cuda.h"

/* ---- the folder ------------------------------------------------------------------------------------------------- */

static bool fits(const hm_problem *p) {
    return p->given_length >= 1 && p->given_length <= HM_EVAL_MOST && p->prompt_length + HM_EVAL_MOST <= TASK_TEXT;
}

hm_eval *hm_eval_open(const hm_eval_options *options, char *why, size_t size) {
    char path[TASK_PATH + 32];
    hm_eval *e = calloc(1, sizeof *e);
    if (!e || !(e->folder = strdup(options->folder))) {
        snprintf(why, size, "no memory for an evaluation");
        hm_eval_close(e);
        return NULL;
    }
    e->options = *options;
    e->options.folder = e->folder;
    if (strlen(e->folder) >= TASK_PATH) {
        snprintf(why, size, "the folder's name is longer than %d bytes", TASK_PATH - 1);
        hm_eval_close(e);
        return NULL;
    }
    snprintf(path, sizeof path, "%s/model.safetensors", e->folder);
    hm_model *model = hm_model_open(path, why, size);
    if (model) {
        e->vocab_size = hm_model_sizes_of(model)->vocab;
        hm_model_close(model);
        snprintf(path, sizeof path, "%s/vocab.json", e->folder);
        e->vocab = hm_vocab_open(path, why, size);
    }
    if (e->vocab) {
        snprintf(path, sizeof path, "%s/problems.jsonl", e->folder);
        e->problems = hm_problems_open(path, e->vocab_size, why, size);
    }
    if (!e->problems) {
        hm_eval_close(e);
        return NULL;
    }
    for (int64_t i = 0; i < hm_eval_problems(e); i++) {
        const hm_problem *p = hm_eval_problem(e, i);
        if (fits(p)) continue;
        snprintf(why, size,
                 "%s: problem %lld has a prompt of %lld tokens (at most %d) and a solution of %lld (at most %d)", path,
                 (long long)p->id, (long long)p->prompt_length, TASK_TEXT - HM_EVAL_MOST, (long long)p->given_length,
                 HM_EVAL_MOST);
        hm_eval_close(e);
        return NULL;
    }
    e->golden = calloc((size_t)hm_eval_problems(e) + 1, sizeof *e->golden);
    if (e->golden) return e;
    snprintf(why, size, "no memory for an evaluation");
    hm_eval_close(e);
    return NULL;
}

void hm_eval_close(hm_eval *e) {
    if (!e) return;
    for (int64_t i = 0; e->golden && i < hm_eval_problems(e); i++) free(e->golden[i].forced), free(e->golden[i].greedy);
    free(e->golden);
    hm_problems_close(e->problems);
    hm_vocab_close(e->vocab);
    free(e->folder);
    free(e);
}

hm_eval_options *hm_eval_options_of(hm_eval *e) { return &e->options; }
int64_t hm_eval_problems(const hm_eval *e) { return hm_problems_count(e->problems); }
const hm_problem *hm_eval_problem(const hm_eval *e, int64_t i) { return hm_problems_at(e->problems, i); }

static int64_t common_divisor(int64_t a, int64_t b) { return b ? common_divisor(b, a % b) : a; }

/* Steps of the golden section, which leave no large gap anywhere. */
int64_t *hm_eval_order(int64_t all) {
    int64_t *at = calloc((size_t)all + 1, sizeof *at), step = (int64_t)(0.6180339887 * (double)all);
    while (step < 1 || common_divisor(step, all) != 1) step++;
    for (int64_t i = 0; at && i < all; i++) at[i] = i * step % all;
    return at;
}

/* ---- paths ------------------------------------------------------------------------------------------------------ */

static bool refuse(char *why, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
static bool refuse(char *why, size_t size, const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(why, size, format, list);
    va_end(list);
    return false;
}

/* The op that a fault or a variant is for. */
static bool one_op(const char *spec, bool *provides, char *why, size_t size) {
    char id[256];
    size_t kind = strcspn(spec, ":") + 1;
    snprintf(id, sizeof id, "%.*s", (int)strcspn(spec + kind, "@"), spec + kind);
    const hm_fault *fault = kind == 6 ? hm_fault_named(id) : NULL;
    const hm_variant *variant = kind == 8 ? hm_variant_named(id) : NULL;
    if (!fault && !variant)
        return refuse(why, size, "there is no %.*s \"%s\"; `hallmark list %.*ss` names them", (int)kind - 1, spec, id,
                      (int)kind - 1, spec);
    int op = hm_model_op_named(fault ? fault->op : variant->op);
    if (op >= 0 && provides) provides[op] = true;
    return true;
}

/* Without a context of the device: processes of their own will use it. */
static bool device_there(char *why, size_t size) {
    if (hm_worker_device || hm_cuda_devices()) return true;
    return refuse(why, size, "%s", hm_error());
}

static bool plugin_ops(const char *path, bool *provides, char *why, size_t size) {
    if (strlen(path) >= TASK_PATH)
        return refuse(why, size, "the plug-in's path is longer than %d bytes", TASK_PATH - 1);
    hm_impl *impl = hm_plugin_open(path, HM_EVAL_TIMEOUT, why, size);
    if (!impl) return false;
    bool there = impl->place == HM_HOST || device_there(why, size);
    for (int i = 0; i < HM_MODEL_OPS && there && provides; i++)
        provides[i] = impl->provides(impl, hm_model_op_info((hm_model_op)i));
    hm_impl_close(impl);
    return true;
}

bool hm_eval_spec_check(const char *spec, bool provides[HM_MODEL_OPS], char *why, size_t size) {
    size_t length = strlen(spec);
    *why = 0;
    if (provides) memset(provides, 0, HM_MODEL_OPS * sizeof *provides);
    if (!strncmp(spec, "fault:", 6) || !strncmp(spec, "variant:", 8)) return one_op(spec, provides, why, size);
    if (strchr(spec, '/') || (length > 3 && !strcmp(spec + length - 3, ".so")))
        return plugin_ops(spec, provides, why, size);
    bool ref = !strcmp(spec, "ref"), cpu = !strcmp(spec, "cpu"), cuda = !strcmp(spec, "cuda"),
         fp8 = !strcmp(spec, "cuda_fp8");
    if (!ref && !cpu && !cuda && !fp8)
        return refuse(why, size,
                      "there is no implementation \"%s\"; it has to be ref, cpu, cuda, cuda_fp8, fault:ID, variant:ID "
                      "or a plug-in's path ending in .so",
                      spec);
    if ((cuda || fp8) && !device_there(why, size)) return true;
    for (int i = 0; i < HM_MODEL_OPS && provides; i++) {
        const hm_op_info *op = hm_model_op_info((hm_model_op)i);
        provides[i] = ref || (cpu && op->cpu) || (cuda && op->cuda) || (fp8 && op->cuda_fp8);
    }
    return true;
}

bool hm_eval_is_ref(const hm_eval_path *path) {
    for (int i = 0; i < HM_MODEL_OPS; i++)
        if (path->of[i] && strcmp(path->of[i], "ref")) return false;
    return true;
}
