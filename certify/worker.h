/* worker.h: what travels between the judge (plugin.c) and the process of a plug-in, or of ours for cuda (worker.c).
 *
 * The judge never loads a plug-in: a library linked with -ffast-math sets flush-to-zero for the whole process as it is
 * loaded, and any defect of it would be ours. The worker is this same program, started with a hidden verb. A call
 * travels as one message over a socket, with the memory files of its buffers; the worker maps each between pages
 * without access and answers with a status. It never sees golden or the judge's copies of the inputs. For an
 * implementation on HM_CUDA the worker copies each buffer, guard zones included, to memory of the device, and back:
 * what the judge checks on the host is then what happened there. Of a large file it copies what is no hole. */
#ifndef HM_WORKER_H
#define HM_WORKER_H

#include "../op/device.h"
#include "impl.h"

#define WORKER_VERB "--worker"
#define WORKER_CUDA "cuda" /* in place of a plug-in's path: ours. A path has a '/' */
#define WORKER_CUDA_FP8 "cuda_fp8"
#define WORKER_FD 3
#define NOWHERE (-2)                /* a buffer that is not there, though the pointer is not NULL: never to be read */
#define ANSWER_DEVICE_LOST (-1)     /* a status: the device failed, and the worker ends */
#define NO_ACCESS ((size_t)1 << 20) /* bytes without access on either side of a buffer, outside its guard zones */
#define MOST_OPS 64
#define MOST_ARGS_SIZE 4096

typedef struct {
    char error[256]; /* "" if the plug-in is fit to be called */
    char name[128];
    int place;
    char device[128]; /* name and driver; "" if there is none, or none is needed */
    bool provides[MOST_OPS];
} hello;

typedef struct {
    int op, nbuffers;
    bool null_args;
    size_t buffer_size[HM_MAX_ARGS];
    int buffer_of[HM_MAX_ARGS]; /* -1: NULL; or NOWHERE */
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

/* What the worker has for HM_CUDA; a test puts something else there. NULL: none. */
extern const hm_device *hm_worker_device;
/* Makes it ready; about: its name and driver. false, and a sentence in why, if there is none. */
bool hm_worker_open_device(char *about, size_t size, char *why, size_t why_size);

/* Sends one message of size bytes and nfds file descriptors. */
bool hm_worker_send(int fd, const void *message, size_t size, const int *fds, int nfds);

#endif
