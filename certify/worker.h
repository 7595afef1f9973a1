/* worker.h: what travels between the judge (plugin.c) and a plug-in's process (worker.c).
 *
 * The judge never loads a plug-in: a library linked with -ffast-math sets flush-to-zero for the whole process as it is
 * loaded, and any defect of it would be ours. The worker is this same program, started with a hidden verb. A call
 * travels as one message over a socket, with the memory files of its buffers; the worker maps each between pages
 * without access and answers with a status. It never sees golden or the judge's copies of the inputs. */
#ifndef HM_WORKER_H
#define HM_WORKER_H

#include "impl.h"

#define WORKER_VERB "--worker"
#define WORKER_FD 3
#define NO_ACCESS ((size_t)1 << 20) /* bytes without access on either side of a buffer, outside its guard zones */
#define MOST_OPS 64
#define MOST_ARGS_SIZE 4096

typedef struct {
    char error[256]; /* "" if the plug-in is fit to be called */
    char name[128];
    int place;
    bool provides[MOST_OPS];
} hello;

typedef struct {
    int op, nbuffers;
    bool null_args;
    size_t buffer_size[HM_MAX_ARGS];
    int buffer_of[HM_MAX_ARGS]; /* -1: the argument's pointer is passed on as it is if NULL, else as NULL */
    size_t offset[HM_MAX_ARGS]; /* of the argument's element 0 in its buffer */
    unsigned char args[MOST_ARGS_SIZE];
} request;

typedef struct {
    int status;
    char error[256];
} answer;

/* plugin.c: the file of this program, to start it again. */
const char *hm_own_program(char *path, size_t size);

/* Loads a plug-in into this process. NULL, and a sentence in h->error, if it is not fit to be called. */
void *hm_worker_load(const char *path, hello *h);

/* Sends one message of size bytes and nfds file descriptors. */
bool hm_worker_send(int fd, const void *message, size_t size, const int *fds, int nfds);

#endif
