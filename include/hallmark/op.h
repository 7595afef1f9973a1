/* SPDX-License-Identifier: Apache-2.0
 * op.h: the description table. It is the only spelling of an op's arguments: the keys of a case, the attributes of a
 * trace, JSON, --help, guards, diagnosis and bindings to other languages are driven from it. */
#ifndef HALLMARK_OP_H
#define HALLMARK_OP_H

#include <stdbool.h>

#include "hallmark.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HM_MAX_ARGS 20
#define HM_MAX_PARAMS 24

typedef enum { HM_IN = 0, HM_OUT, HM_INOUT } hm_direction;

/* A tensor argument. */
typedef struct {
    const char *name; /* field name in hm_<op>_args */
    size_t offset;    /* of its hm_tensor in hm_<op>_args */
    hm_direction direction;
    bool optional;        /* may be absent (dtype HM_DTYPE_NONE) */
    const char *shape;    /* symbolic, outermost first: "...,hidden"; a dimension may be a sum of names: "nope+rope".
                           * "..." is any number (0..3) of leading dimensions, the same ones wherever it stands in the
                           * op; every index into them is independent of the others, and a row may be computed alone */
    const char *dtypes;   /* all that are legal for some call: "f32 f16 bf16". "=x": the dtype of argument x,
                           * and the default of a case when it stands first */
    const char *in_place; /* the input that it may be, with the same view; NULL if none */
    const char *about;
    const char *rows_named_by; /* a table: the integer argument whose elements name the rows that may be read,
                                * and no others; NULL for everything else */
} hm_arg_info;

typedef enum { HM_PARAM_F64 = 0, HM_PARAM_I64, HM_PARAM_MODE } hm_param_type;

/* A scalar (double or int64_t) or a mode (an enum, stored as int). */
typedef struct {
    const char *name;
    size_t offset;
    hm_param_type type;
    const char *const *values; /* mode: names in the order of the enum, NULL-terminated; else NULL */
    double fallback;           /* what a case that is silent means; 0 is what a zeroed C struct means */
    const char *about;
} hm_param_info;

typedef hm_status hm_op_fn(const void *args); /* args: const hm_<op>_args * */

typedef struct {
    const char *name, *about;
    int contract;     /* version of the contract, counted from 1 */
    size_t args_size; /* sizeof(hm_<op>_args); its first field is size_t size */
    const hm_arg_info *args;
    int nargs;
    const hm_param_info *params;
    int nparams;
    const char *classes;                      /* tightest first: "wide chain64 chain512 any" */
    const char *class_required;               /* by default */
    double (*flops)(const void *args);        /* multiplications and additions of its matrix products, for legal args on
                                               * the host; NULL: it has none */
    hm_op_fn *check, *run, *ref, *cpu, *cuda; /* run dispatches; cpu and cuda are NULL where not built */
    hm_op_fn *cuda_fp8;                       /* a second one for the device, of class tc13; run never calls it */
} hm_op_info;

HM_API int hm_op_count(void);
HM_API const hm_op_info *hm_op_at(int i);
HM_API const hm_op_info *hm_op_named(const char *name); /* NULL if unknown */

/* The tensor of argument i in args. */
static inline hm_tensor *hm_arg_tensor(const hm_op_info *op, const void *args, int i) {
    return (hm_tensor *)((char *)args + op->args[i].offset);
}

#ifdef __cplusplus
}
#endif
#endif
