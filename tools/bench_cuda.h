/* bench_cuda.h: times on a CUDA device. */
#ifndef HM_BENCH_CUDA_H
#define HM_BENCH_CUDA_H

#include <hallmark/op.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { HM_CUDA_RUNS = 1000 };

typedef struct {
    char device[320];               /* name, driver, runtime */
    double copy, read, write;       /* bytes a second, of 2 GiB; copy counts both directions */
    double matrix_bf16, matrix_fp8; /* flops a second of the tensor cores on operands in shared memory, about normal
                                           * values; 0: not known (fp8, but on compute capability 9.0) */
    double empty, empty_pdl, empty_alone; /* seconds of an empty kernel: one of many in a graph; in a graph of one */
} hm_cuda_ceilings;

/* false, with a sentence in why, if there is no device or it failed. */
bool hm_cuda_bench_open(hm_cuda_ceilings *c, char *why, size_t size);

/* Seconds of one call by graph replay, one figure a replay. */
typedef struct {
    double plain[HM_CUDA_RUNS], pdl[HM_CUDA_RUNS]; /* as the calls are, and with programmatic dependent launch */
    double copy[HM_CUDA_RUNS];                     /* a copy of as many bytes, on sets likewise */
    double rows[HM_CUDA_RUNS]; /* a copy that reads and writes where the call does, element for element */
    bool has_rows;             /* each output has an input of its shape, and their elements are not all side by side */
    int runs;
} hm_cuda_times;

/* A call on the host: its argument struct, and the buffers that the arguments lie in. */
typedef struct {
    const hm_op_info *op;
    hm_op_fn *function; /* one of op's for the device */
    const void *args;
    const void *buffer[HM_MAX_ARGS];
    size_t buffer_size[HM_MAX_ARGS], offset[HM_MAX_ARGS]; /* offset: of an argument's element 0 in its buffer */
    int buffers, buffer_of[HM_MAX_ARGS];                  /* -1: none */
    size_t least_bytes;                                   /* that must move */
} hm_cuda_bench_input;

/* The call on the device, on sets of buffers in turn: together they are larger than the second-level cache, where 64
 * sets are enough for that. `calls` of it are a graph. */
typedef struct hm_cuda_bench hm_cuda_bench;
hm_cuda_bench *hm_cuda_bench_new(const hm_cuda_bench_input *call, int *sets, int *calls, char *why, size_t size);
void hm_cuda_bench_free(hm_cuda_bench *b); /* NULL is fine */

bool hm_cuda_bench_measure(hm_cuda_bench *b, double seconds, hm_cuda_times *times, char *why, size_t size);

/* Plain launches: the median of a few replays, in seconds of one call. */
bool hm_cuda_bench_pass(hm_cuda_bench *b, double *median, char *why, size_t size);

#ifdef __cplusplus
}
#endif
#endif
