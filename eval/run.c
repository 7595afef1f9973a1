/* run.c: the processes of a run: which are to be started, how each ended, how far they are. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../certify/worker.h"
#include "compare.h"

#define STARTING 20.0 /* seconds that a process has at least before its first call */

/* A group of problems on one path. */
typedef struct {
    const hm_eval_path *path;
    const int64_t *problem;
    int64_t problems, first; /* first: of the group in the list of the run */
    hm_eval_result *result;
    void (*take)(hm_eval *e, const task *t, int64_t first, hm_eval_result *r);
    pid_t pid; /* 0: not started, or over */
    bool started;
    task *t;
    size_t bytes;
    int64_t steps; /* at `since` */
    double since;
} job;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void end(job *j, hm_eval_end how, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void end(job *j, hm_eval_end how, const char *format, ...) {
    va_list list;
    if (j->result->end != HM_EVAL_DONE && j->result->ended_at < j->first) return; /* the first group's end is told */
    va_start(list, format);
    vsnprintf(j->result->why, sizeof j->result->why, format, list);
    va_end(list);
    for (char *c = j->result->why; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f) *c = '?';
    j->result->end = how;
    j->result->ended_at = j->first;
}

/* ---- one process ------------------------------------------------------------------------------------------------ */

static bool fill(const hm_eval *e, job *j, int *fd) {
    const hm_eval_options *o = &e->options;
    j->bytes = task_bytes(e->vocab_size, j->problems);
    *fd = memfd_create("hallmark-eval", MFD_CLOEXEC);
    if (*fd < 0 || ftruncate(*fd, (off_t)j->bytes)) return false;
    task *t = mmap(NULL, j->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (t == MAP_FAILED) return false;
    snprintf(t->folder, sizeof t->folder, "%s", e->folder);
    for (int i = 0; i < HM_MODEL_OPS; i++) snprintf(t->of[i], TASK_PATH, "%s", j->path->of[i] ? j->path->of[i] : "");
    t->before = j->path->before;
    t->teacher_forced = o->teacher_forced, t->greedy = o->greedy;
    t->block_size = j->path->block_size ? j->path->block_size : o->block_size, t->top_k = o->top_k,
    t->vocab = e->vocab_size;
    t->problems = j->problems;
    t->along = o->along && j->take == compare_take;
    for (int64_t i = 0; i < j->problems; i++) {
        t->problem[i] = j->problem[i];
        if (t->along) compare_words_of_golden(e, j->problem[i], task_answer_of(t, t->vocab, i));
    }
    j->t = t;
    return true;
}

static void start(const hm_eval *e, job *j) {
    extern char **environ;
    int fd = -1;
    j->started = true;
    j->since = now();
    if (!fill(e, j, &fd)) {
        end(j, HM_EVAL_FAILED, "no memory for a group of problems: %s", strerror(errno));
        if (fd >= 0) close(fd);
        return;
    }
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, fd, TASK_FD);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, 2, 1); /* what an implementation prints is log, not result */
    posix_spawn_file_actions_addclosefrom_np(&files, TASK_FD + 1);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    char *argv[] = {"hallmark", TASK_VERB, NULL}, program[4096];
    int failed = posix_spawn(&j->pid, hm_own_program(program, sizeof program), &files, &attributes, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    close(fd);
    if (!failed) return;
    j->pid = 0;
    end(j, HM_EVAL_FAILED, "a process could not be started: %s", strerror(failed));
}

/* "in rms_norm (d3.l2.attn_norm)", of what a process said when it was last heard of. */
static const char *where(const task *t, char *text, size_t size) {
    char call[TASK_CALL];
    memcpy(call, t->call, sizeof call);
    call[sizeof call - 1] = 0;
    if (t->op < 0 || t->op >= HM_MODEL_OPS)
        snprintf(text, size, "%s", t->steps ? "between two calls" : "as it was loaded");
    else snprintf(text, size, "in %s (%s)", hm_model_op_info((hm_model_op)t->op)->name, call);
    return text;
}

static void kill_worker(job *j) {
    kill(j->pid, SIGKILL);
    while (waitpid(j->pid, NULL, 0) < 0 && errno == EINTR) continue;
    j->pid = 0;
}

static void drop(job *j) {
    if (j->pid) kill_worker(j);
    if (j->t) munmap(j->t, j->bytes);
    j->t = NULL;
}

static void over(hm_eval *e, job *j, int status) {
    task *t = j->t;
    char place[256], said[HM_EVAL_TEXT];
    memcpy(said, t->why, sizeof said);
    said[sizeof said - 1] = 0;
    j->pid = 0;
    if (WIFSIGNALED(status)) {
        const char *name = sigabbrev_np(WTERMSIG(status));
        end(j, HM_EVAL_DIED, "killed by SIG%s %s", name ? name : "?", where(t, place, sizeof place));
    } else if (t->state == TASK_STARTED || (t->state != TASK_FAILED && t->op != -1) || WEXITSTATUS(status)) {
        end(j, HM_EVAL_DIED, "called exit(%d) %s", WEXITSTATUS(status), where(t, place, sizeof place));
    } else if (t->state == TASK_REFUSED) {
        end(j, HM_EVAL_REFUSED, "%s", said);
    } else if (t->state != TASK_DONE) {
        end(j, HM_EVAL_FAILED, "%s", said);
    } else {
        j->take(e, t, j->first, j->result);
    }
    drop(j);
}

/* Looks after a running process; true if it is over. */
static bool look_after(hm_eval *e, job *j) {
    int status;
    pid_t gone = waitpid(j->pid, &status, WNOHANG);
    if (gone == j->pid) {
        over(e, j, status);
        return true;
    }
    double t = now(), limit = e->options.timeout;
    int64_t steps = j->t->steps;
    if (steps != j->steps) j->steps = steps, j->since = t;
    if (!steps && limit < STARTING) limit = STARTING;
    if (t - j->since < limit) return false;
    char place[256];
    end(j, HM_EVAL_DIED, "no answer in %g s %s", limit, where(j->t, place, sizeof place));
    drop(j);
    return true;
}

/* ---- all of them ------------------------------------------------------------------------------------------------ */

/* What a job has to feed to the model, roughly. */
static double work_of(const hm_eval *e, const job *j) {
    double tokens = 0;
    for (int64_t i = 0; i < j->problems; i++) {
        const hm_problem *p = hm_eval_problem(e, j->problem[i]);
        tokens += (double)(p->prompt_length + p->given_length) * (e->options.teacher_forced + e->options.greedy);
    }
    return tokens;
}

static void report(hm_eval *e, const job *jobs, int n, double before, double all) {
    double done = before;
    if (!e->options.progress) return;
    for (int i = 0; i < n; i++) {
        double work = work_of(e, &jobs[i]);
        if (!jobs[i].started) continue;
        if (!jobs[i].pid) done += work;
        else if (jobs[i].t) done += (double)jobs[i].t->tokens < work ? (double)jobs[i].t->tokens : work;
    }
    e->options.progress(e->options.with, done / all);
}

static bool run_jobs(hm_eval *e, job *jobs, int n, double before, double all) {
    int running = 0, next = 0;
    bool interrupted = false;
    while ((next < n || running) && !interrupted) {
        while (next < n && running < e->options.processes) {
            job *j = &jobs[next++];
            j->started = true;
            if (j->result->end == HM_EVAL_DONE) start(e, j); /* else the path is lost already */
            running += j->pid != 0;
        }
        nanosleep(&(struct timespec){0, 2000000}, NULL);
        for (int i = 0; i < next; i++)
            if (jobs[i].pid && look_after(e, &jobs[i])) running--;
        report(e, jobs, next, before, all);
        interrupted = e->options.interrupted && e->options.interrupted();
    }
    for (int i = 0; i < next; i++) drop(&jobs[i]);
    return !interrupted;
}

/* Appends the groups of a path to jobs. Their sizes differ by one at most. */
static int groups_of(const hm_eval_path *path, job *jobs, job with) {
    const int64_t *problem = path->problem, n = path->problems;
    int64_t groups = (n + HM_EVAL_GROUP - 1) / HM_EVAL_GROUP;
    for (int64_t g = 0; g < groups; g++) {
        int64_t first = n * g / groups, last = n * (g + 1) / groups;
        jobs[g] = with;
        jobs[g].path = path, jobs[g].problem = problem + first, jobs[g].problems = last - first, jobs[g].first = first;
    }
    return (int)groups;
}

/* The problems of all paths that the golden path has not done yet, each once. */
static int64_t without_golden(const hm_eval *e, const hm_eval_path *paths, int n, int64_t *problem) {
    int64_t count = 0, all = hm_eval_problems(e);
    for (int64_t p = 0; p < all; p++) {
        bool wanted = false;
        for (int i = 0; i < n && !wanted; i++)
            for (int64_t k = 0; k < paths[i].problems && !wanted; k++) wanted = paths[i].problem[k] == p;
        if (wanted && !compare_has_golden(e, p)) problem[count++] = p;
    }
    return count;
}

/* Golden path first, then the others; false if interrupted. */
static bool run_all(hm_eval *e, const hm_eval_path *ref, const hm_eval_path *paths, int n, job *jobs,
                    hm_eval_result *golden, hm_eval_result *result) {
    int first = groups_of(ref, jobs, (job){.result = golden, .take = compare_keep_golden}), rest = 0;
    job *others = jobs + first;
    double before = 0, all = 0;
    for (int i = 0; i < n; i++)
        if (!hm_eval_is_ref(&paths[i]))
            rest += groups_of(&paths[i], others + rest, (job){.result = &result[i], .take = compare_take});
    for (int i = 0; i < first; i++) before += work_of(e, &jobs[i]);
    for (int i = 0; i < rest; i++) all += work_of(e, &others[i]);
    if (!run_jobs(e, jobs, first, 0, before + all)) return false;
    return golden->end != HM_EVAL_DONE || run_jobs(e, others, rest, before, before + all);
}

bool hm_eval_run(hm_eval *e, const hm_eval_path *paths, int n, hm_eval_result *result) {
    hm_eval_path ref = {.problems = 0};
    hm_eval_result golden = {0};
    int64_t most = hm_eval_problems(e) / HM_EVAL_GROUP + 1;
    for (int i = 0; i < n; i++) most += paths[i].problems / HM_EVAL_GROUP + 1;
    job *jobs = calloc((size_t)most, sizeof *jobs);
    int64_t *left = calloc((size_t)hm_eval_problems(e) + 1, sizeof *left);
    bool ok = jobs && left, complete = true;
    for (int i = 0; i < n; i++) ok &= compare_begin(&result[i], paths[i].problem, paths[i].problems);
    if (ok) {
        ref.problem = left, ref.problems = without_golden(e, paths, n, left);
        complete = run_all(e, &ref, paths, n, jobs, &golden, result);
    }
    for (int i = 0; i < n; i++) {
        if (!ok || golden.end != HM_EVAL_DONE) {
            result[i].end = HM_EVAL_FAILED;
            snprintf(result[i].why, sizeof result[i].why, "the golden path: %.480s", ok ? golden.why : "out of memory");
        }
        if (!complete) result[i].end = HM_EVAL_FAILED, snprintf(result[i].why, sizeof result[i].why, "interrupted");
        if (result[i].end == HM_EVAL_DONE && hm_eval_is_ref(&paths[i])) compare_take_golden(e, &result[i]);
        compare_finish(e, paths[i].judged ? paths[i].judged : paths[i].problems, &result[i]);
    }
    free(jobs);
    free(left);
    return complete;
}
