/* worker.c: the process of a group of problems. It opens the model, puts the implementations in the table of functions,
 * runs the problems, and leaves words and logits in the memory that it shares with the judge. */
#include <dlfcn.h>
#include <fcntl.h>
#include <fenv.h>
#include <omp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../certify/faults.h"
#include "../certify/worker.h"
#include "before.h"
#include "device.h"
#include "task.h"

/* Somebody's function for one op. */
typedef struct {
    task *t;
    hm_op_fn *function; /* cpu's, cuda's or a plug-in's */
    bool on_device;     /* it works there */
    const hm_fault *fault;
    const hm_variant *variant;
    const char *site;          /* of the model's calls that it stands for; NULL: all */
    const fenv_t *environment; /* of a plug-in: what loading it made of rounding and subnormals */
    const char *(*error)(void);
} stand_in;

static _Noreturn void fail(task *t, const char *format, const char *what) {
    snprintf(t->why, sizeof t->why, format, what);
    t->state = TASK_FAILED;
    _exit(0);
}

static hm_status run(void *with, const hm_model_call *call, const void *args, char *why, size_t size) {
    stand_in *s = with;
    task *t = s->t;
    hm_dtype written[HM_MAX_ARGS] = {HM_DTYPE_NONE};
    hm_status status;
    bool lost = false;
    *why = 0;
    t->steps++;
    hm_op_fn *ref = call->op->ref;
    if (!(s->function || s->fault || s->variant) || (s->site && strcmp(s->site, call->site))) return ref(args);
    hm_model_call_name(call, t->call, sizeof t->call);
    t->op = call->index;
    t->calls[call->index]++;
    if (t->before == HM_EVAL_CLEARED) before_clear(call->op, args);
    if (t->before == HM_EVAL_STALE && !before_stale(call, args)) return HM_NO_MEMORY;
    if (s->environment) fesetenv(s->environment);
    if (s->fault) status = s->fault->run(s->fault->variation, args, written);
    else if (s->variant) status = s->variant->run(s->variant->variation, args);
    else if (s->on_device) status = device_call(call->op, s->function, args, &lost, why, size);
    else status = s->function(args);
    if (s->environment) fesetenv(FE_DFL_ENV);
    if (lost) { /* as a plug-in that dies; the sentence is what is left of it */
        t->op = -1;
        return status;
    }
    if (status == HM_UNSUPPORTED) {
        t->declined[call->index]++;
        status = ref(args);
    } else if ((int)status < 0 || status >= HM_STATUS_COUNT) {
        snprintf(why, size, "it returned %d, which is no hm_status", (int)status);
        status = HM_INTERNAL;
    } else if (status != HM_OK) {
        const char *said = s->error ? s->error() : s->function && s->environment ? "" : hm_error();
        if (!*why) snprintf(why, size, "%s", said);
    }
    t->op = -1;
    return status;
}

static void open_device(task *t) {
    char why[256];
    if (!*t->device && !hm_worker_open_device(t->device, sizeof t->device, why, sizeof why)) fail(t, "%s", why);
}

/* One library may stand for several ops, and is loaded once. */
static void load_plugin(task *t, const char *path, const hm_op_info *op, stand_in *s) {
    static const char *loaded;
    static void *library;
    static fenv_t environment;
    static bool on_device;
    if (library && strcmp(loaded, path)) fail(t, "%s: a second plug-in in one run", path);
    if (!library) {
        static hello h;
        library = hm_worker_load(path, &h);
        fegetenv(&environment);
        fesetenv(FE_DFL_ENV);
        if (!library) fail(t, "%s", h.error);
        loaded = path;
        on_device = h.place == HM_CUDA;
        if (on_device) open_device(t);
    }
    char symbol[128];
    snprintf(symbol, sizeof symbol, "hm_plugin_%s", op->name);
    s->function = (hm_op_fn *)dlsym(library, symbol);
    s->environment = &environment;
    s->on_device = on_device;
    s->error = (const char *(*)(void))dlsym(library, "hm_error");
}

static void stand_in_of(task *t, hm_model_op i, stand_in *s) {
    static char text[HM_MODEL_OPS][TASK_PATH];
    const hm_op_info *op = hm_model_op_info(i);
    char *spec = text[i], *at;
    memcpy(spec, t->of[i], TASK_PATH);
    spec[TASK_PATH - 1] = 0;
    *s = (stand_in){.t = t};
    if (!*spec || !strcmp(spec, "ref")) return;
    bool fault = !strncmp(spec, "fault:", 6), variant = !strncmp(spec, "variant:", 8);
    if ((fault || variant) && (at = strchr(spec, '@'))) *at = 0, s->site = at + 1;
    if (fault) s->fault = hm_fault_named(spec + 6);
    else if (variant) s->variant = hm_variant_named(spec + 8);
    else if (!strcmp(spec, "cpu")) s->function = op->cpu;
    else if (!strcmp(spec, "cuda")) open_device(t), s->function = op->cuda, s->on_device = true;
    else if (!strcmp(spec, "cuda_fp8")) open_device(t), s->function = op->cuda_fp8, s->on_device = true;
    else load_plugin(t, spec, op, s);
    if ((fault && !s->fault) || (variant && !s->variant)) fail(t, "there is no \"%s\"", spec);
}

/* ---- running ---------------------------------------------------------------------------------------------------- */

typedef struct {
    task *t;
    const hm_problem *const *problem;
    bool greedy;
} onlooker;

static void see(void *with, int64_t request, int64_t at, const float *logits) {
    const onlooker *o = with;
    int64_t vocab = o->t->vocab, place = at - (o->problem[request]->prompt_length - 1);
    o->t->tokens++;
    if (place < 0 || place >= HM_EVAL_MOST) return;
    task_answer *a = task_answer_of(o->t, vocab, request);
    memcpy(task_logits(a, vocab, o->greedy) + place * vocab, logits, (size_t)vocab * sizeof *logits);
}

static hm_status run_problems(task *t, hm_model_batch *batch, const hm_problem *const *problem, bool greedy) {
    hm_model_request request[HM_EVAL_GROUP] = {{0}};
    static int32_t text[HM_EVAL_GROUP][TASK_TEXT];
    onlooker o = {t, problem, greedy};
    hm_model_logits look = {see, &o};
    for (int64_t i = 0; i < t->problems; i++) {
        const hm_problem *p = problem[i];
        request[i] = (hm_model_request){.prompt = p->prompt,
                                        .prompt_length = p->prompt_length,
                                        .position = p->position,
                                        .most = HM_EVAL_MOST,
                                        .out = task_answer_of(t, t->vocab, i)->out};
        if (greedy && t->along) {
            const task_answer *a = task_answer_of(t, t->vocab, i);
            request[i].most = a->count, request[i].out = NULL;
            request[i].given = memcpy(text[i], a->out, sizeof a->out);
        }
        if (greedy) continue;
        /* all but the last token of the solution is one long prompt */
        memcpy(text[i], p->prompt, (size_t)p->prompt_length * sizeof *text[i]);
        memcpy(text[i] + p->prompt_length, p->given, (size_t)(p->given_length - 1) * sizeof *text[i]);
        request[i].prompt = text[i], request[i].prompt_length += p->given_length - 1;
        request[i].most = 1, request[i].out = NULL;
    }
    hm_status status = hm_model_run(batch, t->problems, request, &look, t->why, sizeof t->why);
    for (int64_t i = 0; i < t->problems && greedy; i++) task_answer_of(t, t->vocab, i)->count = request[i].count;
    return status;
}

static void work(task *t) {
    char path[TASK_PATH + 64];
    static stand_in functions[HM_MODEL_OPS];
    const hm_problem *problem[HM_EVAL_GROUP];
    hm_model_options options = {.requests = t->problems, .block_size = t->block_size, .top_k = t->top_k};
    for (int i = 0; i < HM_MODEL_OPS; i++) {
        stand_in_of(t, (hm_model_op)i, &functions[i]);
        options.table.of[i] = (hm_model_function){run, &functions[i]};
    }
    snprintf(path, sizeof path, "%s/model.safetensors", t->folder);
    static hm_model *model; /* static: a plug-in may exit, and a leak checker then looks round */
    static hm_problems *problems;
    static hm_model_batch *batch;
    model = hm_model_open(path, t->why, sizeof t->why);
    snprintf(path, sizeof path, "%s/problems.jsonl", t->folder);
    problems = model ? hm_problems_open(path, t->vocab, t->why, sizeof t->why) : NULL;
    t->state = TASK_FAILED;
    if (!problems) return;
    for (int64_t i = 0; i < t->problems; i++) {
        problem[i] = hm_problems_at(problems, t->problem[i]);
        if (problem[i]->prompt_length + problem[i]->given_length > TASK_TEXT) return;
        int64_t length = problem[i]->prompt_length + HM_EVAL_MOST;
        if (length > options.length) options.length = length;
    }
    t->state = TASK_REFUSED; /* from here on, what fails is an op */
    batch = hm_model_batch_new(model, &options, t->why, sizeof t->why);
    if (!batch) return;
    if (t->teacher_forced && run_problems(t, batch, problem, false) != HM_OK) return;
    if (t->greedy && run_problems(t, batch, problem, true) != HM_OK) return;
    t->state = TASK_DONE;
}

void hm_eval_worker_main(int argc, char **argv) {
    static const int ours[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    struct stat about;
    if (argc != 2 || strcmp(argv[1], TASK_VERB)) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    signal(SIGINT, SIG_IGN); /* the judge decides what an interrupt ends */
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) signal(ours[i], SIG_DFL); /* not a sanitizer's report */
    if (fstat(TASK_FD, &about) || (size_t)about.st_size < sizeof(task)) _exit(70);
    task *t = mmap(NULL, (size_t)about.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, TASK_FD, 0);
    if (t == MAP_FAILED || t->problems < 1 || t->problems > HM_EVAL_GROUP ||
        (size_t)about.st_size < task_bytes(t->vocab, t->problems))
        _exit(70);
    close(TASK_FD);
    omp_set_num_threads(1);
    t->op = -1;
    work(t);
    fflush(NULL);
    _exit(0);
}
