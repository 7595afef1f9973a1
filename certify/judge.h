/* judge.h: runs an implementation on a call and says what came of it. */
#ifndef HM_JUDGE_H
#define HM_JUDGE_H

#include "../golden/golden.h"
#include "impl.h"

typedef enum {
    HM_PASS = 0,
    HM_FAIL,
    HM_OUT_OF_CLASS,
    HM_VACUOUS,
    HM_SKIPPED,
    HM_DECLINED,
    HM_NOT_OFFERED,
    HM_OUTCOME_COUNT
} hm_outcome;
/* "pass" "fail" "out_of_class" "vacuous" "skipped" "declined" "not_provided" */
const char *hm_outcome_name(hm_outcome o);

typedef struct {
    hm_class required; /* HM_CLASS_NONE: the op's default */
    hm_tier tier;
    int threads;           /* 0: OpenMP's default */
    bool check_invariance; /* rerun, rows alone, other batch sizes, strided; costs several runs of the implementation */
    bool require_invariance; /* differs is a FAIL */
    /* 0: all. Else golden is asked for about as many rows of each output (sample.h), and effects are looked at
     * everywhere all the same. For timing: a report takes it for no pass. */
    int64_t most_rows;
} hm_judge_options;

typedef struct {
    hm_outcome outcome;
    hm_class required, consistent; /* tightest class that every element is inside; HM_CLASS_NONE: outside them all */
    int64_t rows, rows_judged;     /* of all outputs */
    int64_t elements;              /* judged */
    int64_t outside;               /* outside the loosest class of the op, NaN where none may be, wrong special */
    int64_t out_of_class;          /* inside a looser class than required */
    int64_t range_free;
    int64_t point;  /* admissible set of the required class is one value: bit-exact verdict */
    double decided; /* point / (elements - range_free), 0 if there are none */
    double max_ulp; /* distance to the exact value, over finite elements; hm_round_up4 */
    bool effects_ok;
    char effects[256];    /* "ok" or one sentence */
    char invariance[128]; /* "same", "differs" + which, or "" if not looked at */
    bool has_worst;       /* the worst element: the one farthest outside, or farthest from exact if all are inside */
    int worst_arg;
    int64_t worst_index[4];
    int worst_ndim;
    double worst_got, worst_lo, worst_hi, worst_ideal;
    bool worst_outside;
    bool
        worst_by_bits; /* compared by its stored bits: worst_bits are those that are there, and those that have to be */
    uint64_t worst_bits[2];
    uint64_t outputs_xxh3; /* over all output elements, for comparing runs */
    char why[512];         /* one sentence for anything that is not a pass */
} hm_verdict;

/* Runs impl on the call and judges it. A call of a case with expect= other than ok is judged by status and effects
 * alone. */
void hm_judge(hm_impl *impl, hm_call *call, const hm_judge_options *options, hm_verdict *verdict);

/* Judges what already lies in the call's outputs (run says what the implementation returned). */
void hm_judge_outputs(hm_call *call, const hm_run *run, const hm_judge_options *options, hm_verdict *verdict);

/* true if outputs that hold poison, all zeros, or (in place) the unchanged input would be admitted in every element;
 * then which says which of them. A case of no elements is not trivially admissible by this function; see kills. */
bool hm_call_vacuous(hm_call *call, const hm_judge_options *options, char *which, size_t size);

#endif
