/* worker.c: the process that a plug-in lives in, or ours for cuda. */
#include "worker.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

void *hm_worker_load(const char *path, hello *h) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(h->error, sizeof h->error, "it cannot be loaded: %.220s", dlerror());
        return NULL;
    }
    const int *abi = dlsym(library, "hm_plugin_abi");
    if (!abi) {
        snprintf(h->error, sizeof h->error, "it does not export hm_plugin_abi");
        return NULL;
    }
    if (*abi != HM_PLUGIN_ABI) {
        snprintf(h->error, sizeof h->error, "its hm_plugin_abi is %d; it has to be %d", *abi, HM_PLUGIN_ABI);
        return NULL;
    }
    const char *const *name = dlsym(library, "hm_plugin_name");
    const hm_place *place = dlsym(library, "hm_plugin_place");
    snprintf(h->name, sizeof h->name, "%s", name && *name ? *name : "");
    for (char *c = h->name; *c; c++)
        if (*c < ' ' || *c > '~') *c = '?';
    h->place = place ? (int)*place : HM_HOST;
    if (h->place != HM_HOST && h->place != HM_CUDA)
        snprintf(h->error, sizeof h->error, "its hm_plugin_place is %d, which is no hm_place", h->place);
    bool any = false;
    for (int i = 0; i < hm_op_count() && i < MOST_OPS; i++) {
        char symbol[128];
        snprintf(symbol, sizeof symbol, "hm_plugin_%s", hm_op_at(i)->name);
        any |= h->provides[i] = dlsym(library, symbol) != NULL;
    }
    if (!any)
        snprintf(h->error, sizeof h->error, "it offers no op; a function such as hm_plugin_%s is missing",
                 hm_op_at(0)->name);
    return h->error[0] ? NULL : library;
}

/* Receives one message of exactly size bytes and the descriptors that came with it; false when the other end is gone.
 */
static bool receive(int fd, void *message, size_t size, int *fds, int *nfds) {
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(HM_MAX_ARGS * sizeof(int))];
    } control;
    struct iovec piece = {message, size};
    struct msghdr m = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space};
    ssize_t n;
    do n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    *nfds = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            *nfds = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            memcpy(fds, CMSG_DATA(c), (size_t)*nfds * sizeof(int));
        }
    return n == (ssize_t)size;
}

bool hm_worker_send(int fd, const void *message, size_t size, const int *fds, int nfds) {
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(HM_MAX_ARGS * sizeof(int))];
    } control = {0};
    struct iovec piece = {(void *)message, size};
    struct msghdr m = {.msg_iov = &piece, .msg_iovlen = 1};
    if (nfds > 0) {
        m.msg_control = control.space;
        m.msg_controllen = CMSG_SPACE((size_t)nfds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN((size_t)nfds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, (size_t)nfds * sizeof(int));
    }
    ssize_t n;
    do n = sendmsg(fd, &m, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)size;
}

/* Maps the memory file with NO_ACCESS bytes on either side; NULL if it cannot be. */
static unsigned char *map_guarded(int fd, size_t size) {
    unsigned char *whole =
        mmap(NULL, size + 2 * NO_ACCESS, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (whole == MAP_FAILED) return NULL;
    void *middle = mmap(whole + NO_ACCESS, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, 0);
    if (middle == MAP_FAILED) {
        munmap(whole, size + 2 * NO_ACCESS);
        return NULL;
    }
    return middle;
}

/* ---- the device -------------------------------------------------------------------------------------------------- */

const hm_device *hm_worker_device;
static char no_device[200]; /* why there is none */

bool hm_worker_open_device(char *about, size_t size, char *why, size_t why_size) {
    if (!hm_worker_device) hm_worker_device = hm_device_cuda();
    if (!hm_worker_device) snprintf(why, why_size, "this build of hallmark has no CUDA");
    else if (hm_worker_device->open(about, size)) {
        snprintf(why, why_size, "%s", hm_error());
        hm_worker_device = NULL;
    }
    return hm_worker_device;
}

/* The parts of a memory file that have memory: all of a small one, of a large one what was touched. NULL: no memory. */
static hm_extent *extents_of(int fd, size_t size, int *count) {
    int capacity = 16;
    hm_extent *list = malloc((size_t)capacity * sizeof *list);
    *count = 0;
    for (off_t from = 0; list && (from = lseek(fd, from, SEEK_DATA)) >= 0 && from < (off_t)size;) {
        off_t to = lseek(fd, from, SEEK_HOLE);
        if (to < 0 || to > (off_t)size) to = (off_t)size;
        if (*count == capacity) {
            hm_extent *grown = realloc(list, (size_t)(capacity *= 2) * sizeof *list);
            if (!grown) return free(list), NULL;
            list = grown;
        }
        list[(*count)++] = (hm_extent){from, to};
        from = to;
    }
    return list;
}

/* A buffer as the host and the device have it. */
typedef struct {
    unsigned char *host;
    size_t size;
    hm_extent *extents; /* what of it is copied */
    int count;
    hm_device_buffer device;
} twin;

static bool put_on_device(twin *t, int fd) {
    t->extents = extents_of(fd, t->size, &t->count);
    if (!t->extents || !hm_worker_device->make(&t->device, t->size, t->extents, t->count)) return false;
    for (int i = 0; i < t->count; i++)
        if (!hm_worker_device->to_device(t->device.base + t->extents[i].from, t->host + t->extents[i].from,
                                         (size_t)(t->extents[i].to - t->extents[i].from)))
            return false;
    return true;
}

static bool fetch_from_device(const twin *t) {
    for (int i = 0; i < t->count; i++)
        if (!hm_worker_device->to_host(t->host + t->extents[i].from, t->device.base + t->extents[i].from,
                                       (size_t)(t->extents[i].to - t->extents[i].from)))
            return false;
    return true;
}

/* ---- one call ---------------------------------------------------------------------------------------------------- */

/* An address at which nothing may be read or written. */
static void *nowhere(void) {
    static void *page;
    if (!page) page = mmap(NULL, NO_ACCESS, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return page == MAP_FAILED ? NULL : page;
}

static bool fp8; /* ours are those named cuda_fp8 */

/* library: NULL for ours. */
static void call_function(void *library, const hm_op_info *op, const void *args, answer *a) {
    char symbol[128];
    if (!library) {
        hm_run run = {0};
        hm_run_function(op, fp8 ? op->cuda_fp8 : op->cuda, args, &run);
        a->status = (int)run.status;
        snprintf(a->error, sizeof a->error, "%s", run.error);
        return;
    }
    snprintf(symbol, sizeof symbol, "hm_plugin_%s", op->name);
    hm_op_fn *function = (hm_op_fn *)dlsym(library, symbol);
    const char *(*error)(void) = (const char *(*)(void))dlsym(library, "hm_error"); /* if it builds on libhallmark */
    a->status = (int)function(args);
    snprintf(a->error, sizeof a->error, "%s", a->status && error ? error() : "");
}

static void serve(void *library, hm_place place, request *r, const int *fds, answer *a) {
    twin buffer[HM_MAX_ARGS] = {0};
    const hm_op_info *op = hm_op_at(r->op);
    bool mapped = true, on_device = place == HM_CUDA && hm_worker_device;
    for (int b = 0; b < r->nbuffers; b++) {
        buffer[b].size = r->buffer_size[b];
        buffer[b].host = map_guarded(fds[b], buffer[b].size);
        mapped = mapped && buffer[b].host && (!on_device || put_on_device(&buffer[b], fds[b]));
        close(fds[b]);
    }
    for (int i = 0; i < op->nargs; i++) {
        const twin *t = r->buffer_of[i] >= 0 ? &buffer[r->buffer_of[i]] : NULL;
        unsigned char *base = t && mapped ? on_device ? (unsigned char *)t->device.base : t->host : NULL;
        hm_arg_tensor(op, r->args, i)->data = base                         ? base + r->offset[i]
                                              : r->buffer_of[i] == NOWHERE ? nowhere()
                                                                           : NULL;
    }
    *a = (answer){.status = HM_NO_MEMORY, .error = "the worker could not map the buffers"};
    if (mapped && place == HM_CUDA && !on_device && library) {
        a->status = HM_NO_DEVICE; /* ours says so itself, once it has checked its arguments */
        snprintf(a->error, sizeof a->error, "%s", no_device);
    } else if (mapped) {
        call_function(library, op, r->null_args ? NULL : r->args, a);
        bool done = !on_device || hm_worker_device->finish(a->error, sizeof a->error);
        for (int b = 0; on_device && done && b < r->nbuffers; b++) done = fetch_from_device(&buffer[b]);
        if (!done) a->status = ANSWER_DEVICE_LOST;
    }
    for (int b = 0; b < r->nbuffers; b++) {
        if (buffer[b].device.state) hm_worker_device->free(&buffer[b].device);
        if (buffer[b].host) munmap(buffer[b].host - NO_ACCESS, buffer[b].size + 2 * NO_ACCESS);
        free(buffer[b].extents);
    }
}

void hm_worker_main(int argc, char **argv) {
    static const int ours[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    if (argc != 3 || strcmp(argv[1], WORKER_VERB)) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    fcntl(WORKER_FD, F_SETFD, FD_CLOEXEC);
    signal(SIGINT, SIG_IGN); /* the judge decides what an interrupt ends */
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) signal(ours[i], SIG_DFL); /* not a sanitizer's report */
    static hello h;
    static request r;
    static answer a;
    int fds[HM_MAX_ARGS], nfds;
    fp8 = !strcmp(argv[2], WORKER_CUDA_FP8);
    bool built_in = fp8 || !strcmp(argv[2], WORKER_CUDA);
    void *library = built_in ? NULL : hm_worker_load(argv[2], &h);
    if (built_in) h.place = HM_CUDA;
    if (h.place == HM_CUDA && (built_in || library))
        hm_worker_open_device(h.device, sizeof h.device, no_device, sizeof no_device);
    if (!hm_worker_send(WORKER_FD, &h, sizeof h, NULL, 0) || !(library || built_in)) _exit(0);
    while (receive(WORKER_FD, &r, sizeof r, fds, &nfds) && nfds == r.nbuffers) {
        serve(library, (hm_place)h.place, &r, fds, &a);
        fflush(NULL);
        if (!hm_worker_send(WORKER_FD, &a, sizeof a, NULL, 0) || a.status == ANSWER_DEVICE_LOST) break;
    }
    _exit(0);
}
