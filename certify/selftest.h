/* selftest.h: is the judge itself any good? What it catches (the fault table, on every case), what it must not accuse
 * (the legal variants), and whether golden's two tiers agree with MPFR alone. Nothing here depends on time or on the
 * number of threads but the seconds that are reported as such. */
#ifndef HM_SELFTEST_H
#define HM_SELFTEST_H

#include "../golden/golden.h"
#include "faults.h"

typedef struct {
    const char *op; /* NULL: all */
    uint64_t seed;
    int threads;     /* 0: OpenMP's default */
    bool first_kill; /* of a fault is enough: it is not tried on further cases, and counts depend on the threads */
    bool (*step)(void *context,
                 const char *label); /* called once for each case, one at a time; false: stop. May be NULL */
    void *context;
} hm_selftest_options;

/* ---- cases ---- */

typedef struct {
    hm_case_spec *spec;
    int n, capacity;
} hm_case_list;

/* The cases of a suite, and cases of shapes that no suite has. Nonzero: the text is bad (a defect), why says where. */
int hm_cases_of_suite(hm_suite suite, const char *op, uint64_t seed, hm_case_list *to, char *why, size_t size);
int hm_cases_outside(const char *op, uint64_t seed, hm_case_list *to, char *why, size_t size);

/* ---- truth: golden for every output of a call, kept ---- */

typedef struct {
    int arg;
    int64_t rows, n;
    hm_golden_row *row; /* [rows] */
    double *values;     /* what the rows' arrays are cut from */
    uint64_t *bits;
    unsigned char *flags;
} hm_truth_arg;

typedef struct {
    hm_truth_arg arg[HM_MAX_ARGS];
    int nargs;
    int64_t elements;
    double seconds; /* of processor time, for the rows alone */
    hm_class class;
    hm_tier tier;
    hm_golden *golden;
} hm_truth;

/* call holds the outputs of ref, or others to be judged: hm_golden_observe sees them. */
hm_status hm_truth_make(const hm_call *call, hm_class c, hm_tier tier, hm_truth *truth);
void hm_truth_free(hm_truth *truth);
/* How many elements of call's outputs the truth does not admit. */
int64_t hm_truth_outside(hm_truth *truth, const hm_call *call);
/* Over the bits of all output elements. */
uint64_t hm_truth_hash(const hm_call *call);

/* ---- kills ---- */

typedef struct {
    char line[HM_CASE_MAX];
    const hm_op_info *op;
    unsigned char *killed; /* [hm_fault_count()]; 0 for faults of other ops */
    int kills;
    int64_t elements;
    bool bad; /* the contract itself, as `ref` has it, is not admitted: the row says nothing */
} hm_kill_row;

typedef struct {
    int cases, killed;         /* cases that it ran on, that kill it */
    int caught;                /* of those, rejected by allclose(atol=1e-2, rtol=1e-2) against ref */
    int64_t elements, outside; /* over the cases that kill it */
    uint64_t bits;             /* of everything it did: equal for faults that agree on every case */
    int smallest;              /* row of the smallest case that kills it; -1: none */
} hm_fault_score;

typedef struct {
    hm_kill_row *row;
    int rows;
    hm_fault_score *score; /* [hm_fault_count()] */
    bool stopped;
} hm_kills;

hm_status hm_kills_run(const hm_case_list *cases, const hm_selftest_options *options, hm_kills *kills);
void hm_kills_free(hm_kills *kills);
/* The matrix as JSON: {"op": ["fault", ...], "case line": [place in its op's list, ...], ...}, sorted, faults without
 * their op's name. Free with free(). */
char *hm_kills_json(const hm_kills *kills);
/* Is the compiled-in data/cases/kills.json this matrix? */
bool hm_kills_current(const hm_kills *kills);
/* The verdict of the judge, as a user meets it (--impl fault:ID), on one case: true if it is fail or out_of_class. */
bool hm_kills_confirm(const hm_fault *fault, const char *line, char *why, size_t size);

/* ---- false alarms ---- */

typedef struct {
    int64_t cases, elements;  /* judged */
    int64_t outside;          /* of its own class */
    int64_t beyond_chain64;   /* outside chain64 on stagnate rows */
    int64_t most_beyond;      /* outside chain512 in one case, */
    char beyond[HM_CASE_MAX]; /* this one; "" if there is none */
    char first[HM_CASE_MAX];  /* a case with elements outside; "" if there is none */
} hm_variant_score;

typedef struct {
    hm_variant_score *score; /* [hm_variant_count()] */
    unsigned char *differ;   /* [count][count]: the bits of two variants of an op were seen to differ */
    int64_t elements;        /* over all variants of options->op */
    bool stopped;
} hm_alarms;

/* options->op is required. Goes on until at least `elements` elements have been judged over all variants of the op. */
hm_status hm_alarms_run(const hm_selftest_options *options, int64_t elements, hm_alarms *alarms);
void hm_alarms_free(hm_alarms *alarms);

/* ---- tiers ---- */

typedef struct {
    int64_t cases, elements;
    int64_t different; /* elements whose admissible set or ideal value differs */
    double two, mpfr;  /* seconds of processor time */
    char first[HM_CASE_MAX];
    bool stopped;
} hm_tiers;

hm_status hm_tiers_run(const hm_case_list *cases, const hm_selftest_options *options, hm_tiers *tiers);

#endif
