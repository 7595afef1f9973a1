/* plugin.c: an implementation in a worker process, which is killed when it takes too long, and started again: a
 * plug-in, or ours for cuda. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "worker.h"

#define LOADING 20.0 /* seconds that a plug-in has at least to be loaded, however few it has for a call */

typedef struct {
    char *path;
    double timeout;
    pid_t pid; /* 0: no worker is running */
    int fd;
    hello about;
    bool ours; /* the cuda implementations of this program, and no file */
    bool fp8;  /* of these, those named cuda_fp8 */
} plugin;

static void stop_worker(plugin *p) {
    if (!p->pid) return;
    kill(p->pid, SIGKILL);
    while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR) continue;
    close(p->fd);
    p->pid = 0;
}

/* The worker closed its end: says how it died, and clears up. */
static void mourn_worker(plugin *p, char *how, size_t size) {
    int status = 0;
    pid_t gone = 0;
    for (int i = 0; i < 1000 && gone == 0; i++) { /* it is dying: at most 1 s */
        gone = waitpid(p->pid, &status, WNOHANG);
        if (gone == 0) nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    if (gone == 0) {
        snprintf(how, size, "closed its connection to the judge");
        stop_worker(p);
        return;
    }
    if (WIFSIGNALED(status)) {
        const char *name = sigabbrev_np(WTERMSIG(status));
        snprintf(how, size, "killed by SIG%s", name ? name : "?");
    } else {
        snprintf(how, size, "called exit(%d)", WEXITSTATUS(status));
    }
    close(p->fd);
    p->pid = 0;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Waits for a message of size bytes. false: the worker is gone, how says why. */
static bool await(plugin *p, double seconds, void *message, size_t size, char *how, size_t how_size) {
    double deadline = now() + seconds;
    for (;;) {
        double left = deadline - now();
        if (left > 1e6) left = 1e6;
        int ready = left > 0 ? poll(&(struct pollfd){.fd = p->fd, .events = POLLIN}, 1, (int)ceil(left * 1000)) : 0;
        if (ready < 0 && errno == EINTR) continue;
        if (ready != 0) break;
        if (now() < deadline) continue;
        snprintf(how, how_size, "no answer in %g s", seconds);
        stop_worker(p);
        return false;
    }
    ssize_t n;
    do n = recv(p->fd, message, size, 0);
    while (n < 0 && errno == EINTR);
    if (n == (ssize_t)size) return true;
    mourn_worker(p, how, how_size);
    return false;
}

/* This program's file. Its name rather than /proc/self/exe, which is valgrind's under valgrind; but that where the file
 * is gone. */
const char *hm_own_program(char *path, size_t size) {
    static const char deleted[] = " (deleted)";
    ssize_t n = readlink("/proc/self/exe", path, size - 1);
    if (n <= 0) return "/proc/self/exe";
    path[n] = 0;
    size_t ending = sizeof deleted - 1;
    return (size_t)n > ending && !strcmp(path + n - ending, deleted) ? "/proc/self/exe" : path;
}

static bool start_worker(plugin *p, char *why, size_t size) {
    extern char **environ;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
        snprintf(why, size, "a socket could not be made: %s", strerror(errno));
        return false;
    }
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, pair[1], WORKER_FD); /* first: pair[1] may be 0 */
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, 2, 1); /* what the plug-in prints is log, not result */
    posix_spawn_file_actions_addclosefrom_np(&files, WORKER_FD + 1);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    char *argv[] = {"hallmark", WORKER_VERB, p->path, NULL};
    char program[4096];
    int failed = posix_spawn(&p->pid, hm_own_program(program, sizeof program), &files, &attributes, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    close(pair[1]);
    p->fd = pair[0];
    if (failed) {
        p->pid = 0;
        close(p->fd);
        snprintf(why, size, "a worker process could not be started: %s", strerror(failed));
        return false;
    }
    char how[128];
    if (!await(p, p->timeout > LOADING ? p->timeout : LOADING, &p->about, sizeof p->about, how, sizeof how)) {
        snprintf(why, size, "as it was loaded: %s", how);
        return false;
    }
    if (p->about.error[0]) {
        snprintf(why, size, "%s", p->about.error);
        stop_worker(p);
        return false;
    }
    return true;
}

/* sha256 of the file as hex; a sentence in why if it cannot be a plug-in. */
static bool hash_file(const char *path, char hex[65], char *why, size_t size) {
    unsigned char bytes[65536], digest[crypto_hash_sha256_BYTES];
    crypto_hash_sha256_state state;
    struct stat about;
    FILE *file = fopen(path, "rb");
    if (!file || fstat(fileno(file), &about)) {
        snprintf(why, size, "%s: %s", path, strerror(errno));
        if (file) fclose(file);
        return false;
    }
    crypto_hash_sha256_init(&state);
    size_t n = S_ISREG(about.st_mode) ? fread(bytes, 1, sizeof bytes, file) : 0;
    bool elf = n >= 4 && !memcmp(bytes, "\177ELF", 4);
    for (; n > 0; n = fread(bytes, 1, sizeof bytes, file)) crypto_hash_sha256_update(&state, bytes, n);
    bool whole = !ferror(file);
    fclose(file);
    crypto_hash_sha256_final(&state, digest);
    sodium_bin2hex(hex, 65, digest, sizeof digest);
    if (!elf) snprintf(why, size, "%s: it is not a shared library (no ELF file)", path);
    else if (!whole) snprintf(why, size, "%s: it could not be read", path);
    return elf && whole;
}

/* After a death. What is judged has to stay what it was. */
static bool restart_worker(plugin *p, const char *sha256, char *why, size_t size) {
    char now[65] = "";
    if (p->ours) return start_worker(p, why, size);
    if (!hash_file(p->path, now, why, size)) return false;
    if (!strcmp(now, sha256)) return start_worker(p, why, size);
    snprintf(why, size, "the file of the plug-in changed while it was being judged");
    return false;
}

static bool plugin_provides(hm_impl *self, const hm_op_info *op) {
    const plugin *p = self->state;
    if (p->ours) return (p->fp8 ? op->cuda_fp8 : op->cuda) != NULL;
    for (int i = 0; i < hm_op_count() && i < MOST_OPS; i++)
        if (hm_op_at(i) == op) return p->about.provides[i];
    return false;
}

/* Which buffer of the call a tensor's element 0 lies in. */
static int find_buffer(const hm_call *call, const void *data) {
    for (int b = 0; b < call->nbuffers; b++) {
        const unsigned char *base = call->buffer[b].base, *at = data;
        if (at >= base && at < base + call->buffer[b].size) return b;
    }
    return -1;
}

static void plugin_run(hm_impl *self, hm_call *call, const void *args, hm_run *run) {
    plugin *p = self->state;
    const hm_op_info *op = call->op;
    request r = {.nbuffers = call->nbuffers, .null_args = !args};
    answer a;
    int fds[HM_MAX_ARGS];
    *run = (hm_run){.state = HM_NOT_PROVIDED};
    if (!plugin_provides(self, op)) return;
    run->state = HM_DIED;
    if (op->args_size > sizeof r.args) {
        snprintf(run->error, sizeof run->error, "the arguments of %s are too large to send", op->name);
        return;
    }
    while (hm_op_at(r.op) != op) r.op++;
    if (args) memcpy(r.args, args, op->args_size);
    for (int i = 0; i < op->nargs; i++) {
        const unsigned char *data = args ? hm_arg_tensor(op, args, i)->data : NULL;
        hm_tensor *t = hm_arg_tensor(op, r.args, i);
        if (self->place == HM_CUDA && args) /* the case says host, or "the other place" */
            t->place = t->place == HM_HOST ? HM_CUDA : t->place == HM_CUDA ? HM_HOST : t->place;
        r.buffer_of[i] = data ? find_buffer(call, data) : -1;
        if (data && r.buffer_of[i] < 0) r.buffer_of[i] = NOWHERE;
        if (r.buffer_of[i] >= 0) r.offset[i] = (size_t)(data - call->buffer[r.buffer_of[i]].base);
    }
    for (int b = 0; b < call->nbuffers; b++) {
        fds[b] = call->buffer[b].fd;
        r.buffer_size[b] = call->buffer[b].size;
        call->buffer[b].shared = true;
    }
    if (!p->pid && !restart_worker(p, self->sha256, run->error, sizeof run->error)) return;
    if (!hm_worker_send(p->fd, &r, sizeof r, fds, r.nbuffers)) {
        mourn_worker(p, run->error, sizeof run->error);
        return;
    }
    snprintf(self->device, sizeof self->device, "%s", p->about.device);
    if (!await(p, p->timeout, &a, sizeof a, run->error, sizeof run->error)) return;
    if (a.status == ANSWER_DEVICE_LOST) {
        mourn_worker(p, run->error, sizeof run->error);
        a.error[sizeof a.error - 1] = 0;
        snprintf(run->error, sizeof run->error, "%s", a.error[0] ? a.error : "the device failed");
        return;
    }
    if (a.status < 0 || a.status >= HM_STATUS_COUNT) {
        snprintf(run->error, sizeof run->error, "returned %d, which is no hm_status", a.status);
        return;
    }
    run->state = HM_RAN;
    run->status = (hm_status)a.status;
    a.error[sizeof a.error - 1] = 0;
    snprintf(run->error, sizeof run->error, "%s", a.error);
}

static void plugin_close(hm_impl *self) {
    plugin *p = self->state;
    stop_worker(p);
    free(p->path);
    free(p);
}

hm_impl *hm_cuda_impl_open(const char *name, double timeout, char *why, size_t size) {
    hm_impl *impl = calloc(1, sizeof *impl);
    plugin *p = calloc(1, sizeof *p);
    char *path = strdup(name);
    if (!impl || !p || !path) {
        snprintf(why, size, "no memory for an implementation");
        free(impl), free(p), free(path);
        return NULL;
    }
    *p = (plugin){.path = path,
                  .timeout = timeout,
                  .ours = true,
                  .fp8 = !strcmp(name, WORKER_CUDA_FP8)}; /* its worker is started by the first call */
    *impl = (hm_impl){.place = HM_CUDA,
                      .ours = true,
                      .run = plugin_run,
                      .provides = plugin_provides,
                      .close = plugin_close,
                      .state = p};
    snprintf(impl->name, sizeof impl->name, "%s", name);
    return impl;
}

hm_impl *hm_plugin_open(const char *path, double timeout, char *why, size_t size) {
    char reason[300];
    hm_impl *impl = calloc(1, sizeof *impl);
    plugin *p = calloc(1, sizeof *p);
    if (!impl || !p) {
        snprintf(why, size, "no memory for a plug-in");
    } else if (hash_file(path, impl->sha256, why, size)) {
        p->path = realpath(path, NULL);
        p->timeout = timeout;
        if (p->path && start_worker(p, reason, sizeof reason)) {
            const char *slash = strrchr(path, '/');
            snprintf(impl->name, sizeof impl->name, "%s", p->about.name[0] ? p->about.name : slash ? slash + 1 : path);
            impl->place = (hm_place)p->about.place;
            impl->run = plugin_run, impl->provides = plugin_provides, impl->close = plugin_close;
            impl->state = p;
            return impl;
        }
        snprintf(why, size, "%s: %s", path, p->path ? reason : strerror(errno));
        free(p->path);
    }
    free(p);
    free(impl);
    return NULL;
}
