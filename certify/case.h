/* case.h: a case is one op on one fully determined input, written as one line of text:
 *     rms_norm x=bf16[7,4096] weight=f32[4096] round=once alias=out:x stride=x:4160,1 gen=normal seed=17
 * Keys: the op's arguments (dtype[shape] or none), its scalars and modes, and
 *     alias=OUT:IN[+ELEMENTS][;...]   the output starts at (that many elements after) the input's element 0
 *     stride=ARG:S0,S1,..[;...]       strides in elements
 *     gen=NAME  seed=N                how inputs are filled
 *     lengths=whole | causal          lengths, windows and lists of slots are as long as they can be; causal: the last
 *                                     token sees all keys, each one before it one key less (default: any, some empty)
 *     batches=every                   invariance is looked at for each smaller batch: each extent of the first of the
 *                                     dimensions that "..." stands for, from 1 on
 *     expect=STATUS                   the call must return this error and write nothing (default ok)
 *     broken=ARG:WHAT[;...]           a descriptor that dtype[shape] cannot spell: null (no data), ndim0, ndim5,
 *                                     dtype99, place9, cuda (the other place);
 *                                     args:null and args:size for the struct itself
 * An unknown key is an error. The canonical line has every argument, scalar and mode spelled out, in the order of the
 * description table, then alias, stride, broken, lengths, batches, gen, seed, expect where they say something; it is
 * what is printed and hashed. */
#ifndef HM_CASE_H
#define HM_CASE_H

#include <hallmark/op.h>

#define HM_CASE_MAX 1024 /* bytes of a line, NUL included */

typedef struct {
    const hm_op_info *op;
    char line[HM_CASE_MAX];      /* canonical */
    hm_dtype dtype[HM_MAX_ARGS]; /* HM_DTYPE_NONE: absent */
    int ndim[HM_MAX_ARGS];
    int64_t shape[HM_MAX_ARGS][4], stride[HM_MAX_ARGS][4];
    int alias[HM_MAX_ARGS];            /* index of the input that this output lies on, or -1 */
    int64_t alias_offset[HM_MAX_ARGS]; /* elements */
    enum {
        HM_BROKEN_NOT = 0,
        HM_BROKEN_NULL,
        HM_BROKEN_NDIM0,
        HM_BROKEN_NDIM5,
        HM_BROKEN_DTYPE99,
        HM_BROKEN_PLACE9,
        HM_BROKEN_CUDA
    } broken[HM_MAX_ARGS];
    enum { HM_ARGS_FINE = 0, HM_ARGS_NULL, HM_ARGS_SIZE } broken_args;
    bool every_batch;
    enum { HM_LENGTHS_MIXED = 0, HM_LENGTHS_WHOLE, HM_LENGTHS_CAUSAL } lengths;
    double param[HM_MAX_PARAMS]; /* value, or index of the mode's value */
    char generator[32];
    uint64_t seed;
    hm_status expect;
} hm_case_spec;

/* Parses a line. On error returns HM_BAD_ARG and writes one sentence to why (at most size bytes). */
hm_status hm_case_parse(const char *line, hm_case_spec *spec, char *why, size_t size);

/* A suite's cases: calls visit for every case of tier smoke, quick or full (each contains the one before), in a fixed
 * order; op NULL for all. Lines of data/cases/<op>.cases, compiled in: "TIER LINE" with {a|b|c} alternatives, which
 * multiply. seed replaces a missing seed= (default 1). Stops at the first non-zero return of visit and returns it.
 * -1: the suite text itself is bad (a defect; why says where). */
typedef enum { HM_SMOKE = 0, HM_QUICK, HM_FULL } hm_suite;
int hm_suite_each(hm_suite suite, const char *op, uint64_t seed, int (*visit)(const hm_case_spec *, void *),
                  void *context, char *why, size_t size);
/* The same for one compiled-in file of data/cases; nothing is visited if there is none. */
int hm_case_file_each(const char *file, hm_suite suite, uint64_t seed, int (*visit)(const hm_case_spec *, void *),
                      void *context, char *why, size_t size);

#endif
