/* impl.h: a named function that claims an op: ref, cpu, cuda, cuda_fp8, a plug-in (./my.so), fault:ID, variant:ID. */
#ifndef HM_IMPL_H
#define HM_IMPL_H

#include "call.h"

typedef enum { HM_RAN = 0, HM_NOT_PROVIDED, HM_DIED } hm_run_state;

typedef struct {
    hm_run_state state;
    hm_status status; /* what the implementation returned, if it ran */
    char error[256];  /* its sentence, if any; or how it died: "killed by SIGSEGV", "exit(3)", "no answer in 60 s" */
    hm_dtype written[HM_MAX_ARGS]; /* dtype that each output was really written in; HM_DTYPE_NONE: as the contract says.
                                    * Only a fault, or a caller of certify.h, can say anything else. */
} hm_run;

typedef struct hm_impl hm_impl;
struct hm_impl {
    char name[256];  /* as given on the command line, for a plug-in its hm_plugin_name or file name */
    char sha256[65]; /* of the plug-in's file; of nothing ("") for what is built in */
    hm_place place;
    char device[128]; /* HM_CUDA: its name and driver, once something has run there */
    bool ours;        /* error status must match exactly, invariance is required */
    /* Runs the implementation on args; may be called from one thread at a time. */
    void (*run)(hm_impl *self, hm_call *call, const void *args, hm_run *run);
    bool (*provides)(hm_impl *self, const hm_op_info *op);
    void (*close)(hm_impl *self);
    void *state;
};

/* spec: "ref", "cpu", "cuda", "cuda_fp8", "fault:ID", "variant:ID" or a path ending in .so. NULL with a sentence in
 * why. timeout: seconds a plug-in has for one call. */
hm_impl *hm_impl_open(const char *spec, double timeout, char *why, size_t size);
void hm_impl_close(hm_impl *impl);

/* Calls function in this process. */
void hm_run_function(const hm_op_info *op, hm_op_fn *function, const void *args, hm_run *run);

/* plugin.c: ours for cuda, or cuda_fp8, in a worker of its own: a kernel that goes wrong takes its process's device
 * with it. */
hm_impl *hm_cuda_impl_open(const char *name, double timeout, char *why, size_t size);

/* worker.c: opens a plug-in in its own process. The worker is this same program, called with a hidden verb: a program
 * that opens plug-ins must hand argv to hm_worker_main first thing in main(). The worker dies with the thread that
 * opened the plug-in. */
hm_impl *hm_plugin_open(const char *path, double timeout, char *why, size_t size);
/* If argv asks for the hidden worker verb, runs it and never returns; else returns. */
void hm_worker_main(int argc, char **argv);

#endif
