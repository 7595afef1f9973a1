/* golden.h: the truth. For a call's inputs, what a correct implementation may store in each output element.
 *
 * golden reads inputs as stored, knows no implementation, and answers row by row (a row is an output's last dimension;
 * rows are numbered by the leading dimensions, outermost first). Calls are read-only on the context and thread-safe. */
#ifndef HM_GOLDEN_H
#define HM_GOLDEN_H

#include <hallmark/op.h>

/* Arithmetic between rounding points, tightest first; the interval of each contains that of the one before. */
typedef enum {
    HM_WIDE = 0,
    HM_CHAIN64,
    HM_CHAIN512,
    HM_ANY,
    HM_TC23,
    HM_TC13,
    HM_CLASS_COUNT,
    HM_CLASS_NONE = HM_CLASS_COUNT
} hm_class;
const char *hm_class_name(hm_class c);     /* "wide"; "none" for HM_CLASS_NONE */
hm_class hm_class_named(const char *name); /* HM_CLASS_NONE if unknown */
const char *hm_class_about(hm_class c);

/* TWO: binary64 with a proved error bound, MPFR where that cannot decide. MPFR: everything by MPFR. Same bits. */
typedef enum { HM_TIER_TWO = 0, HM_TIER_MPFR } hm_tier;

enum {
    HM_GOLD_NAN = 1,          /* the contract requires NaN; lo, hi and ideal are NaN */
    HM_GOLD_RANGE_FREE = 2,   /* an f32 intermediate may leave the range of f32: [lo,hi], or 0, inf, -inf, NaN */
    HM_GOLD_GAPS = 4,         /* the admissible set is smaller than [lo,hi]: its parts are in `parts` */
    HM_GOLD_UNSPECIFIED = 16, /* the contract says nothing of this element: anything is admitted, nothing is counted */
    HM_GOLD_BITS = 8, /* the stored bits have to be those in `bits`: a copy, with NaN payloads and signs of zeros */
};

#define HM_MAX_PARTS 8
typedef struct {
    int64_t index; /* of the element in its row */
    int n;         /* 2..HM_MAX_PARTS closed intervals, ascending; their hull is [lo,hi] */
    double lo[HM_MAX_PARTS], hi[HM_MAX_PARTS];
} hm_golden_parts;

/* One row. The arrays are the caller's, n elements each; values of the output's dtype are held exactly in double. */
typedef struct {
    double *lo, *hi;      /* ends of the admissible interval: values of the output dtype, +-inf included */
    double *ideal;        /* exact arithmetic with the declared roundings: one value of the output dtype. May be NULL */
    double *exact;        /* the formula with no rounding at all, within HM_EXACT_ERROR relative. May be NULL */
    unsigned char *flags; /* HM_GOLD_* */
    uint64_t *bits;       /* of elements with HM_GOLD_BITS; the others are not written. May be NULL */
    hm_golden_parts *parts; /* ascending by index; grown with realloc by golden, freed by the caller with free() */
    int64_t nparts, parts_capacity;
    int64_t mpfr; /* elements that needed the second tier (log only: never part of a result) */
} hm_golden_row;
#define HM_EXACT_ERROR 0x1p-40

typedef struct hm_golden hm_golden;

/* args: an hm_<op>_args that passes hm_<op>_check, whose *inputs* stay valid and unchanged while the context lives (for
 * an in-place call: copies of the inputs as they were before). Outputs are used for dtype and shape only.
 * HM_UNSUPPORTED if golden does not know the op; HM_NO_MEMORY. threads: for the work shared by all rows; 0 = default.
 */
hm_status hm_golden_open(const hm_op_info *op, const void *args, int threads, hm_golden **golden);
void hm_golden_close(hm_golden *golden);

/* Where several outputs are admissible as long as they agree (codes with the scale that was stored beside them, a set
 * of indices, all elements of a rotary table with one f32 inv_freq), what was stored says which: to be called with
 * every output, in the order of the description table, before rows are asked for, and not while they are. Rows are then
 * judged for what was stored; without it, for the hull over all. Other ops: nothing happens. */
hm_status hm_golden_observe(hm_golden *golden, int arg, const hm_tensor *stored, int threads);
bool hm_golden_observes(const hm_op_info *op); /* is there anything to it? */

/* Fills row `row` of output argument `arg` (index into op->args) for class c. */
hm_status hm_golden_row_get(const hm_golden *golden, int arg, int64_t row, hm_class c, hm_tier tier,
                            hm_golden_row *out);

/* |got - exact| in ulps of the output dtype at exact, rounded up to 4 hexadecimal digits (0x1.xxxp+e); exact
 * arithmetic, independent of any tier. inf if got or the exact value is not finite; 0 if they are equal. */
double hm_golden_distance(const hm_golden *golden, int arg, int64_t row, int64_t index, double got);

/* Rounds d >= 0 up to 4 significant hexadecimal digits, as hm_golden_distance does. */
double hm_round_up4(double d);

/* true if this process's floating-point environment is what golden needs (round to nearest, no FTZ, no DAZ) on every
 * OpenMP thread of a team of `threads`. */
bool hm_golden_environment(int threads);

#endif
