/* SPDX-License-Identifier: Apache-2.0
 * certify.h: judge a kernel from inside your own program, in any language that can call C (link -lhallmark-certify):
 *
 *     #include <hallmark/certify.h>
 *     #include <hallmark/rms_norm.h>
 *     #include <stdio.h>
 *     hm_status my_kernel(const hm_rms_norm_args *args);
 *     int main(void) {
 *         hm_certify *c = hm_certify_open("rms_norm x=bf16[7,4096] weight=bf16[4096] gen=normal seed=1");
 *         if (!c) return fprintf(stderr, "%s\n", hm_error()), 2;
 *         hm_status returned = my_kernel(hm_certify_args(c));
 *         hm_certify_verdict v = {.size = sizeof v};
 *         if (hm_certify_judge(c, returned, NULL, &v)) return fprintf(stderr, "%s\n", hm_error()), 70;
 *         printf("%s %s: %lld elements, %lld outside. %s\n", v.outcome, v.consistent, (long long)v.elements,
 *                (long long)v.outside, v.why);
 *         hm_certify_close(c);
 *         return 0;
 *     }
 *
 * The inputs lie in guarded memory, the outputs are pre-filled with poison; the verdict covers values, dtypes, and
 * every byte that must not change. Functions that can fail set hm_error(). An object is for one thread at a time. A
 * kernel that crashes takes the program with it: `hallmark certify --impl FILE.so` runs it in a process of its own. */
#ifndef HALLMARK_CERTIFY_H
#define HALLMARK_CERTIFY_H

#include "hallmark.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hm_certify hm_certify; /* one case, ready to be run */

/* line: a case as `hallmark list cases` prints it; what it leaves out has its default. NULL on a bad line or without
 * memory. */
HM_API hm_certify *hm_certify_open(const char *line);
HM_API void hm_certify_close(hm_certify *c); /* NULL is fine */

HM_API const char *hm_certify_line(const hm_certify *c); /* the canonical line, everything spelled out */
HM_API const char *hm_certify_op(const hm_certify *c);   /* "rms_norm" */
/* The hm_<op>_args to call the kernel with; NULL for a case that is about a missing struct. */
HM_API const void *hm_certify_args(const hm_certify *c);
/* An argument by its name ("x", "out"); NULL if the op has none of that name. */
HM_API const hm_tensor *hm_certify_tensor(const hm_certify *c, const char *name);
/* A scalar by its name, or for a mode the value of its enum; NaN if the op has none of that name. */
HM_API double hm_certify_param(const hm_certify *c, const char *name);

/* For kernels that cannot work on these tensors in place: copies all elements of an argument, in row-major order
 * without gaps. bytes has to be exactly their size, else HM_BAD_ARG. hm_certify_write is for outputs. */
HM_API hm_status hm_certify_read(const hm_certify *c, const char *name, void *to, size_t bytes);
HM_API hm_status hm_certify_write(hm_certify *c, const char *name, const void *from, size_t bytes);
/* States that the kernel gave this output in another dtype than the contract says, which fails it. */
HM_API hm_status hm_certify_written(hm_certify *c, const char *name, hm_dtype dtype);

/* Strings live until the next call on the same object. */
typedef struct {
    size_t size;            /* set by the caller: sizeof(hm_certify_verdict) */
    const char *outcome;    /* "pass" "fail" "out_of_class" "vacuous" "skipped" "declined" */
    const char *why;        /* one sentence for anything that is not a pass, else "" */
    const char *effects;    /* "ok", or what was written that must not be */
    const char *required;   /* class that the verdict is for */
    const char *consistent; /* tightest class that admits every element; "none" */
    int64_t elements;       /* judged */
    int64_t outside;        /* admitted by no class */
    int64_t out_of_class;   /* admitted by a looser class only */
    int64_t range_free;     /* may be 0, inf or NaN as well, since an f32 intermediate may overflow */
    double decided;         /* share of elements with a single admissible value */
    double max_ulp;         /* largest distance to the exact value, in ulps of the output's dtype */
    const char *worst;      /* argument of the worst element; "" if there is none */
    int64_t worst_ndim, worst_index[4];
    double worst_got, worst_lo, worst_hi, worst_ideal; /* lo, hi: admissible in the required class */
} hm_certify_verdict;

/* Judges what lies in the outputs. returned: what the kernel said; a kernel without a status says HM_OK.
 * class_name: "wide", "chain64", .. or NULL for what the op requires by default. */
HM_API hm_status hm_certify_judge(hm_certify *c, hm_status returned, const char *class_name,
                                  hm_certify_verdict *verdict);

/* Inputs, poison and guards as at first, to run the case again. */
HM_API void hm_certify_reset(hm_certify *c);

/* Calls visit for each line of suite "smoke", "quick" or "full"; op NULL for all; seed for lines that state none. Stops
 * at the first non-zero return and returns it; -1 if the suite or the op is unknown. */
HM_API int hm_certify_suite(const char *suite, const char *op, uint64_t seed,
                            int (*visit)(const char *line, void *context), void *context);

#ifdef __cplusplus
}
#endif
#endif
