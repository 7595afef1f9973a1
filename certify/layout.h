/* layout.h: where the elements of a call lie in its buffers, and which stretches of a buffer are worth a look. */
#ifndef HM_LAYOUT_H
#define HM_LAYOUT_H

#include "call.h"

#define HM_WINDOW 65536             /* bytes looked at in one go */
#define HM_ALONE (INT64_C(1) << 20) /* work on fewer bytes than this is not worth a team of threads */

static inline bool hm_is_input(const hm_op_info *op, int arg) { return op->args[arg].direction != HM_OUT; }
static inline bool hm_is_output(const hm_op_info *op, int arg) { return op->args[arg].direction != HM_IN; }

/* Bytes [*low, *high) that t's elements span, relative to element 0; 0, 0 if there are none. false if that is more than
 * this program will hold. The functions below are for tensors of which this is true. */
bool hm_view_span(const hm_tensor *t, int64_t *low, int64_t *high);
int64_t hm_view_elements(const hm_tensor *t); /* 0 where an extent is not positive */
int64_t hm_view_rows(const hm_tensor *t);     /* product of the leading dimensions; 0 where one is not positive */
int64_t hm_view_run(const hm_tensor *t);      /* elements next to each other from any index that is a multiple of it */
int64_t hm_view_offset(const hm_tensor *t, int64_t index); /* in elements, of a row-major index */

typedef struct {
    int64_t start, index; /* byte position in the buffer; row-major index of the first element */
} hm_stretch;

/* The elements of one argument as runs of consecutive bytes, ascending; all have the same length. */
typedef struct {
    int arg;
    int64_t count, bytes;
    hm_stretch *runs;
} hm_layout;
int64_t hm_first_run(const hm_layout *l, int64_t position); /* the first that ends after it */

typedef struct {
    int64_t from, to;
} hm_window;

/* One buffer with the layouts of its arguments (inputs after outputs), and the windows in which it is filled and
 * checked: all of it, or for a very large one its guard zones and what is near an element. */
typedef struct {
    const hm_call *call;
    const hm_buffer *buffer;
    hm_layout layout[HM_MAX_ARGS];
    int layouts;
    hm_window *windows; /* of at most HM_WINDOW bytes */
    int64_t count, capacity;
} hm_survey;
bool hm_survey_make(const hm_call *call, int buffer, hm_survey *s); /* false: no memory */
void hm_survey_free(hm_survey *s);

/* What a buffer holds: inputs not yet there; ready to run; after a run, when outputs are whatever they are. */
typedef enum { HM_FRESH, HM_PRISTINE, HM_AFTER } hm_moment;
bool hm_call_fill(const hm_call *call, hm_moment when); /* effects.c; false: no memory */
bool hm_buffer_fill(const hm_call *call, int buffer, hm_moment when);

#endif
