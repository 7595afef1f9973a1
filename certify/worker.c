/* worker.c: the process that a plug-in lives in. */
#include "worker.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
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

static void serve(void *library, request *r, const int *fds, answer *a) {
    unsigned char *base[HM_MAX_ARGS] = {0};
    const hm_op_info *op = hm_op_at(r->op);
    char symbol[128];
    bool mapped = true;
    snprintf(symbol, sizeof symbol, "hm_plugin_%s", op->name);
    for (int b = 0; b < r->nbuffers; b++) {
        base[b] = map_guarded(fds[b], r->buffer_size[b]);
        close(fds[b]);
        mapped = mapped && base[b];
    }
    for (int i = 0; i < op->nargs; i++)
        hm_arg_tensor(op, r->args, i)->data =
            mapped && r->buffer_of[i] >= 0 ? base[r->buffer_of[i]] + r->offset[i] : NULL;
    *a = (answer){.status = HM_NO_MEMORY, .error = "the worker could not map the buffers"};
    if (mapped) {
        hm_op_fn *function = (hm_op_fn *)dlsym(library, symbol);
        const char *(*error)(void) =
            (const char *(*)(void))dlsym(library, "hm_error"); /* if it builds on libhallmark */
        a->status = (int)function(r->null_args ? NULL : r->args);
        snprintf(a->error, sizeof a->error, "%s", a->status && error ? error() : "");
    }
    for (int b = 0; b < r->nbuffers; b++)
        if (base[b]) munmap(base[b] - NO_ACCESS, r->buffer_size[b] + 2 * NO_ACCESS);
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
    void *library = hm_worker_load(argv[2], &h);
    if (!hm_worker_send(WORKER_FD, &h, sizeof h, NULL, 0) || !library) _exit(0);
    while (receive(WORKER_FD, &r, sizeof r, fds, &nfds) && nfds == r.nbuffers) {
        serve(library, &r, fds, &a);
        fflush(NULL);
        if (!hm_worker_send(WORKER_FD, &a, sizeof a, NULL, 0)) break;
    }
    _exit(0);
}
