/* SPDX-License-Identifier: Apache-2.0
 * hallmark.h: tensors, dtypes, places and status codes; what every op header builds on.
 *
 * A call fills an argument struct and reads like this:
 *     hm_rms_norm(HM_ARGS(rms_norm, .out = y, .x = x, .weight = w, .eps = 1e-6));
 * Every function of the library returns a status; on anything but HM_OK no output byte has been written and
 * hm_error() holds one sentence that names the argument, what it was and what it had to be.
 * The library never prints, exits or aborts, and is safe to call from any thread. */
#ifndef HALLMARK_H
#define HALLMARK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HM_VERSION "0.1.0"
#define HM_PLUGIN_ABI 1 /* a plug-in exports: const int hm_plugin_abi = HM_PLUGIN_ABI; */

#if defined(__GNUC__)
#define HM_API __attribute__((visibility("default")))
#else
#define HM_API
#endif

/* Enum values are part of the ABI and are never reused. */
typedef enum {
    HM_DTYPE_NONE = 0, /* the tensor is absent */
    HM_F32,
    HM_F16,
    HM_BF16,
    HM_F8E4M3,
    HM_F8E4M3FNUZ,
    HM_F8E5M2,
    HM_E8M0,
    HM_U8,
    HM_I32,
    HM_I64
} hm_dtype;

typedef enum { HM_HOST = 0, HM_CUDA } hm_place;

typedef struct {
    void *data;     /* element [0,0,..] */
    hm_dtype dtype; /* HM_DTYPE_NONE: tensor absent */
    hm_place place;
    int ndim;                    /* 1..4 */
    int64_t shape[4], stride[4]; /* outermost first; strides in elements */
} hm_tensor;

/* The one list of status codes: X(symbol, name as printed, meaning). */
#define HM_STATUS_LIST(X)                                                              \
    X(HM_OK, "ok", "done")                                                             \
    X(HM_BAD_ARG, "bad_arg", "an argument is missing, or the struct has a wrong size") \
    X(HM_BAD_SHAPE, "bad_shape", "a rank or an extent is not what the contract says")  \
    X(HM_BAD_STRIDE, "bad_stride", "an output's elements are not all distinct")        \
    X(HM_BAD_DTYPE, "bad_dtype", "a dtype is not one that the contract allows here")   \
    X(HM_BAD_PLACE, "bad_place", "tensors of one call are not all in the same place")  \
    X(HM_BAD_ALIAS, "bad_alias", "tensors overlap in a way that the contract forbids") \
    X(HM_BAD_PARAM, "bad_param", "a scalar or a mode is out of its range")             \
    X(HM_BAD_VALUE, "bad_value", "a value in the data is out of its range")            \
    X(HM_UNSUPPORTED, "unsupported", "legal, but not offered by this implementation")  \
    X(HM_NO_DEVICE, "no_device", "no device of the kind that the call needs")          \
    X(HM_NO_MEMORY, "no_memory", "memory could not be had")                            \
    X(HM_INTERNAL, "internal", "a defect of the library")

typedef enum {
#define HM_STATUS_ENUM(symbol, name, meaning) symbol,
    HM_STATUS_LIST(HM_STATUS_ENUM)
#undef HM_STATUS_ENUM
        HM_STATUS_COUNT
} hm_status;

/* Fills `size`, so that a struct compiled against an older header is read with its later fields zero. */
#define HM_ARGS(op, ...) (&(hm_##op##_args){.size = sizeof(hm_##op##_args), __VA_ARGS__})

/* The sentence of the last call that failed on this thread; "" if none has. Valid until the next failure. */
HM_API const char *hm_error(void);

HM_API const char *hm_version(void);
HM_API const char *hm_status_name(hm_status status);    /* "bad_shape"; "?" if unknown */
HM_API const char *hm_status_meaning(hm_status status); /* a phrase; "?" if unknown */

HM_API const char *hm_dtype_name(hm_dtype dtype); /* "bf16"; "none"; "?" if unknown */
HM_API size_t hm_dtype_size(hm_dtype dtype);      /* bytes per element; 0 if none or unknown */
HM_API hm_dtype hm_dtype_named(const char *name); /* HM_DTYPE_NONE if unknown */

/* A contiguous host tensor over data; shape outermost first, ndim in 1..4. */
HM_API hm_tensor hm_tensor_of(void *data, hm_dtype dtype, int ndim, const int64_t *shape);
HM_API int64_t hm_tensor_elements(const hm_tensor *t); /* product of the shape; 0 if absent */

/* Instruction set of the host implementations: "sse2", "avx2" or "avx512" on x86-64, "base" elsewhere. The best that
 * the CPU has is used; hm_isa_limit caps it for the whole process (for tests and for comparing machines) and never
 * changes a result, only speed. HM_BAD_PARAM if the name is unknown, HM_UNSUPPORTED if the CPU lacks it. */
HM_API const char *hm_isa(void);
HM_API hm_status hm_isa_limit(const char *name);

#ifdef __cplusplus
}
#endif
#endif
