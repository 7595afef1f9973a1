/* faults.h: known bugs, each re-created as a variation of a contract, and legal variants, which must never be accused.
 */
#ifndef HM_FAULTS_H
#define HM_FAULTS_H

#include <stdio.h>

#include "impl.h"

typedef struct {
    const char *id; /* "rms_norm.norm_first_dropped": <op>.<what>; what --impl fault:ID takes */
    const char *op;
    const char *covers;     /* ids of the catalogue that it re-creates, space separated: "A2 A5 A12"; "" if only ours */
    const char *reference;  /* public thread: "vllm#42325"; "" if none */
    const char *sentence;   /* what goes wrong */
    const char *fix;        /* what the owner of the kernel would do about it */
    const char *equivalent; /* NULL; or one line that proves that no input can tell it from the contract */
    /* Runs the faulty implementation on args, which passed the op's check (except where the fault is in the checks). */
    hm_status (*run)(const void *variation, const void *args, hm_dtype written[HM_MAX_ARGS]);
    const void *variation; /* the parameter, rounding point, index map, range or effect that it varies */
    bool needs_invariance; /* seen only by comparing runs: killed under --require invariance */
} hm_fault;

int hm_fault_count(void);
const hm_fault *hm_fault_at(int i);
const hm_fault *hm_fault_named(const char *id);

/* Every public bug that we know of, and where it ends: killed (by which fault rows), equivalent, or not applicable
 * (why). */
typedef struct {
    const char *id;   /* "A2", "G1m" */
    const char *what; /* op or operation it was reported for */
    const char *reference;
    const char *not_applicable; /* NULL if some fault row covers it */
} hm_known_bug;
int hm_known_bug_count(void);
const hm_known_bug *hm_known_bug_at(int i);
/* Is bug's id among the words of fault->covers? */
bool hm_fault_covers(const hm_fault *fault, const char *bug);
/* docs/faults.md. */
void hm_faults_describe(FILE *to);

/* A legal way to compute an op in f32. */
typedef struct {
    const char *id; /* "rms_norm.pairwise_fma": what --impl variant:ID takes */
    const char *op;
    const char *about;
    const char *class_name; /* the tightest class that it belongs to for every input: "chain64" "chain512" "any" */
    hm_status (*run)(const void *variation, const void *args);
    const void *variation;
} hm_variant;
int hm_variant_count(void);
const hm_variant *hm_variant_at(int i);
const hm_variant *hm_variant_named(const char *id);

#endif
