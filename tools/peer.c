#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../certify/worker.h"

#define PATIENCE 120000 /* milliseconds for a line: it may have to be compiled first */

struct hm_peer {
    pid_t pid;
    int to, from, file;
    const char *program;
    char name[128], text[512];
    size_t held; /* bytes in text */
    bool gone;
};

/* ---- the case as JSON ---- */

static json_t *numbers(int n, const int64_t *v) {
    json_t *list = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(list, json_integer(v[i]));
    return list;
}

static json_t *argument(const hm_call *call, int i) {
    static const char *const directions[] = {[HM_IN] = "in", [HM_OUT] = "out", [HM_INOUT] = "inout"};
    const hm_tensor *t = hm_arg_tensor(call->op, call->args, i);
    json_t *j =
        json_pack("{s:s, s:s, s:o, s:o}", "direction", directions[call->op->args[i].direction], "dtype",
                  hm_dtype_name(t->dtype), "shape", numbers(t->ndim, t->shape), "stride", numbers(t->ndim, t->stride));
    int b = call->buffer_of[i];
    char path[64];
    if (b < 0 || !j) return j;
    snprintf(path, sizeof path, "/proc/%ld/fd/%d", (long)getpid(), call->buffer[b].fd);
    json_object_set_new(j, "file", json_string(path));
    json_object_set_new(j, "offset", json_integer((json_int_t)call->buffer[b].offset[i]));
    json_object_set_new(j, "buffer", json_integer(b));
    return j;
}

static json_t *parameter(const hm_call *call, int i) {
    const hm_param_info *p = &call->op->params[i];
    const char *at = (const char *)call->args + p->offset;
    double number;
    int64_t integer;
    int mode;
    switch (p->type) {
        case HM_PARAM_F64:
            memcpy(&number, at, sizeof number);
            return json_real(number);
        case HM_PARAM_I64:
            memcpy(&integer, at, sizeof integer);
            return json_integer(integer);
        case HM_PARAM_MODE:
            memcpy(&mode, at, sizeof mode);
            return json_string(p->values[mode]);
    }
    return NULL;
}

/* A memory file with it; -1: no memory. */
static int write_case(const hm_call *call, int sets, int calls) {
    json_t *args = json_object(), *params = json_object();
    for (int i = 0; i < call->op->nargs; i++)
        if (hm_arg_tensor(call->op, call->args, i)->dtype != HM_DTYPE_NONE)
            json_object_set_new(args, call->op->args[i].name, argument(call, i));
    for (int i = 0; i < call->op->nparams; i++)
        json_object_set_new(params, call->op->params[i].name, parameter(call, i));
    json_t *root = json_pack("{s:s, s:s, s:s, s:i, s:i, s:o, s:o}", "schema", "hallmark.peer/1", "op", call->op->name,
                             "case", call->name, "sets", sets, "calls", calls, "args", args, "params", params);
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    int fd = memfd_create("hallmark-peer", MFD_CLOEXEC);
    size_t length = text ? strlen(text) : 0;
    if (fd >= 0 && (!length || write(fd, text, length) != (ssize_t)length)) close(fd), fd = -1;
    free(text);
    json_decref(root);
    return fd;
}

/* ---- the program ---- */

/* Where peer_torch.py is: beside this program, or where it is installed. false: nowhere. */
static bool find_torch(char *path, size_t size) {
    static const char *const places[] = {"", "../share/hallmark/"};
    char own[4096];
    hm_own_program(own, sizeof own);
    char *slash = strrchr(own, '/');
    if (!slash) return false;
    slash[1] = 0;
    for (int i = 0; i < 2; i++) {
        snprintf(path, size, "%s%speer_torch.py", own, places[i]);
        if (access(path, R_OK) == 0) return true;
    }
    return false;
}

/* One line, without its end; false if there is none in time. */
static bool read_line(hm_peer *p, char *line, size_t size) {
    for (;;) {
        char *end = memchr(p->text, '\n', p->held);
        if (end) {
            size_t n = (size_t)(end - p->text);
            snprintf(line, size, "%.*s", (int)n, p->text);
            p->held -= n + 1;
            memmove(p->text, end + 1, p->held);
            for (char *c = line; *c; c++)
                if (*c < ' ' || *c > '~') *c = '?';
            return true;
        }
        if (p->held == sizeof p->text) p->held = 0; /* no line is as long */
        int ready = poll(&(struct pollfd){.fd = p->from, .events = POLLIN}, 1, PATIENCE);
        if (ready < 0 && errno == EINTR) continue;
        ssize_t n = ready > 0 ? read(p->from, p->text + p->held, sizeof p->text - p->held) : 0;
        if (n <= 0) return false;
        p->held += (size_t)n;
    }
}

static bool start(hm_peer *p, const char *program, char *why, size_t size) {
    extern char **environ;
    char script[4200];
    int in[2] = {-1, -1}, out[2] = {-1, -1};
    bool torch = !strcmp(program, HM_PEER_TORCH);
    if (torch && !find_torch(script, sizeof script)) {
        snprintf(why, size, "peer_torch.py does not lie beside this program");
        return false;
    }
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC)) {
        snprintf(why, size, "no pipe: %s", strerror(errno));
        for (int i = 0; i < 2; i++)
            if (in[i] >= 0) close(in[i]);
        return false;
    }
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, in[0], 0);
    posix_spawn_file_actions_adddup2(&files, out[1], 1);
    char *with_torch[] = {"python3", script, NULL}, *own[] = {(char *)program, NULL};
    int failed = posix_spawnp(&p->pid, torch ? "python3" : program, &files, NULL, torch ? with_torch : own, environ);
    posix_spawn_file_actions_destroy(&files);
    close(in[0]), close(out[1]);
    p->to = in[1], p->from = out[0], p->program = torch ? "python3" : program;
    if (!failed) return true;
    p->pid = 0;
    snprintf(why, size, "%s cannot be started: %s", p->program, strerror(failed));
    return false;
}

hm_peer *hm_peer_open(const char *program, char *why, size_t size) {
    hm_peer *p = calloc(1, sizeof *p);
    if (!p) {
        snprintf(why, size, "no memory");
        return NULL;
    }
    p->to = p->from = p->file = -1;
    signal(SIGPIPE, SIG_IGN); /* it may have ended */
    if (start(p, program, why, size)) return p;
    hm_peer_close(p);
    return NULL;
}

/* Sends a line and receives one; false if it is gone. */
static bool ask(hm_peer *p, const char *question, char *line, size_t size) {
    size_t n = strlen(question);
    p->gone = p->gone || write(p->to, question, n) != (ssize_t)n || !read_line(p, line, size);
    return !p->gone;
}

/* Why there was no answer. posix_spawn may succeed though there is no such program: then it ends with 127. */
static void tell_gone(hm_peer *p, char *why, size_t size) {
    siginfo_t end = {0};
    for (int i = 0; i < 100 && !waitid(P_PID, (id_t)p->pid, &end, WEXITED | WNOHANG | WNOWAIT) && !end.si_pid; i++)
        usleep(1000);
    if (end.si_code == CLD_EXITED && end.si_status == 127) snprintf(why, size, "%s cannot be started", p->program);
    else snprintf(why, size, "the peer ended, or said nothing for 120 s");
}

bool hm_peer_case(hm_peer *p, const hm_call *call, int sets, int calls, char *why, size_t size) {
    char question[64], line[256];
    if (p->file >= 0) close(p->file);
    p->file = write_case(call, sets, calls);
    snprintf(question, sizeof question, "case /proc/%ld/fd/%d\n", (long)getpid(), p->file);
    if (p->file < 0) snprintf(why, size, "no memory for the case");
    else if (!ask(p, question, line, sizeof line)) tell_gone(p, why, size);
    else if (!strncmp(line, "ready ", 6)) {
        snprintf(p->name, sizeof p->name, "%.120s", line + 6);
        return true;
    } else snprintf(why, size, "%s", strncmp(line, "declined ", 9) ? line : line + 9);
    return false;
}

const char *hm_peer_name(const hm_peer *p) { return p->name; }
bool hm_peer_gone(const hm_peer *p) { return p->gone; }

static bool ask_time(hm_peer *p, const char *question, double *seconds, char *why, size_t size) {
    char line[256] = "", *end;
    bool told = ask(p, question, line, sizeof line);
    double us = strtod(line, &end);
    *seconds = 1e-6 * us;
    if (told && end != line && !*end && isfinite(us) && us > 0) return true;
    if (told) snprintf(why, size, "it said \"%.200s\", which is no time", line);
    else tell_gone(p, why, size);
    return false;
}

bool hm_peer_time(hm_peer *p, double *seconds, char *why, size_t size) {
    return ask_time(p, "time\n", seconds, why, size);
}

bool hm_peer_product(hm_peer *p, bool fp8, double *seconds, char *why, size_t size) {
    return ask_time(p, fp8 ? "product fp8\n" : "product bf16\n", seconds, why, size);
}

void hm_peer_close(hm_peer *p) {
    if (!p) return;
    if (p->to >= 0) close(p->to);
    if (p->from >= 0) close(p->from);
    if (p->file >= 0) close(p->file);
    for (int i = 0; p->pid && i < 2000; i++) { /* it ends with its input; after two seconds it is ended */
        if (waitpid(p->pid, NULL, WNOHANG)) p->pid = 0;
        else usleep(1000);
    }
    if (p->pid) {
        kill(p->pid, SIGKILL);
        while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR) continue;
    }
    free(p);
}

/* ---- both ---- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

hm_peer_result hm_peer_compare(const double own[HM_PEER_PASSES], const double peer[HM_PEER_PASSES]) {
    enum { LAST = HM_PEER_PASSES - 1 };
    double a[HM_PEER_PASSES], b[HM_PEER_PASSES];
    memcpy(a, own, sizeof a), memcpy(b, peer, sizeof b);
    qsort(a, HM_PEER_PASSES, sizeof *a, by_value), qsort(b, HM_PEER_PASSES, sizeof *b, by_value);
    hm_peer_result r = {
        .own = a[LAST / 2], .peer = b[LAST / 2], .own_spread = a[LAST] - a[0], .peer_spread = b[LAST] - b[0]};
    double spread = r.own_spread > r.peer_spread ? r.own_spread : r.peer_spread;
    r.faster = r.peer - r.own > spread ? 1 : r.own - r.peer > spread ? -1 : 0;
    return r;
}
