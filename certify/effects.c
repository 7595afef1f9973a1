#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "layout.h"

#define CANARY_PERIOD 65521 /* prime: no row pitch repeats the pattern */

/* Twice the period, so that any CANARY_PERIOD consecutive bytes from any phase can be copied in one go. */
static unsigned char canary[2 * CANARY_PERIOD];

__attribute__((constructor)) static void make_canary(void) {
    uint64_t state = UINT64_C(0x9E3779B97F4A7C15); /* splitmix64 */
    for (int i = 0; i < CANARY_PERIOD; i++) {
        uint64_t z = (state += UINT64_C(0x9E3779B97F4A7C15));
        z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
        canary[i] = canary[i + CANARY_PERIOD] = (unsigned char)((z ^ (z >> 31)) >> 56);
    }
}

static void put_canary(unsigned char *to, int64_t from, int64_t n) {
    for (int64_t done = 0; done < n;) {
        int64_t some = n - done < CANARY_PERIOD ? n - done : CANARY_PERIOD;
        memcpy(to + done, canary + (from + done) % CANARY_PERIOD, (size_t)some);
        done += some;
    }
}

/* Bytes [w.from, w.to) of the buffer as they have to be. */
static void expected(const hm_survey *s, hm_window w, hm_moment when, unsigned char *to) {
    const hm_op_info *op = s->call->op;
    put_canary(to, w.from, w.to - w.from);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < s->layouts; i++) {
            const hm_layout *l = &s->layout[i];
            bool input = hm_is_input(op, l->arg);
            if (pass == 0 ? input && when == HM_FRESH : when != HM_AFTER || !hm_is_output(op, l->arg)) continue;
            const hm_tensor *t = hm_arg_tensor(op, s->call->golden_args, l->arg);
            for (int64_t r = hm_first_run(l, w.from); r < l->count && l->runs[r].start < w.to; r++) {
                int64_t start = l->runs[r].start, from = start > w.from ? start : w.from;
                int64_t end = start + l->bytes < w.to ? start + l->bytes : w.to;
                unsigned char *at = to + (from - w.from);
                if (pass == 1) memcpy(at, s->buffer->base + from, (size_t)(end - from));
                else if (input)
                    memcpy(
                        at,
                        (unsigned char *)t->data + l->runs[r].index * (int64_t)hm_dtype_size(t->dtype) + (from - start),
                        (size_t)(end - from));
                else memset(at, HM_POISON, (size_t)(end - from));
            }
        }
    }
}

bool hm_buffer_fill(const hm_call *call, int buffer, hm_moment when) {
    hm_survey s;
    if (!hm_survey_make(call, buffer, &s)) return false;
#pragma omp parallel for schedule(static) if (s.count > HM_ALONE / HM_WINDOW)
    for (int64_t i = 0; i < s.count; i++) expected(&s, s.windows[i], when, s.buffer->base + s.windows[i].from);
    hm_survey_free(&s);
    return true;
}

bool hm_call_fill(const hm_call *call, hm_moment when) {
    bool fine = true;
    for (int b = 0; b < call->nbuffers; b++) fine = fine && hm_buffer_fill(call, b, when);
    return fine;
}

void hm_call_reset(hm_call *call) { hm_call_fill(call, HM_PRISTINE); }

bool hm_call_reset_outputs(hm_call *call) {
    for (int b = 0; b < call->nbuffers; b++) {
        hm_survey s;
        bool written = false;
        for (int i = 0; i < call->op->nargs; i++) written |= call->buffer_of[i] == b && hm_is_output(call->op, i);
        if (!written) continue;
        if (!hm_survey_make(call, b, &s)) return false;
        for (int k = 0; k < s.layouts; k++) {
            const hm_layout *l = &s.layout[k];
            for (int64_t r = 0; hm_is_output(call->op, l->arg) && r < l->count; r++) {
                int64_t end = l->runs[r].start + l->bytes;
                for (int64_t from = l->runs[r].start; from < end; from += HM_WINDOW)
                    expected(&s, (hm_window){from, end - from < HM_WINDOW ? end : from + HM_WINDOW}, HM_PRISTINE,
                             s.buffer->base + from);
            }
        }
        hm_survey_free(&s);
    }
    return true;
}

/* "[1,752]" */
static void put_index(const hm_tensor *t, int64_t index, char *text, size_t size) {
    int64_t at[4];
    for (int d = t->ndim - 1; d >= 0; d--) {
        at[d] = index % t->shape[d];
        index /= t->shape[d];
    }
    size_t n = 0;
    for (int d = 0; d < t->ndim; d++) n += (size_t)snprintf(text + n, size - n, "%s%" PRId64, d ? "," : "[", at[d]);
    snprintf(text + n, size - n, "]");
}

/* Says whose byte at `position` is and where it lies. */
static void describe(const hm_survey *s, int64_t position, int64_t bytes, bool untouched, char *text, size_t size) {
    const hm_op_info *op = s->call->op;
    const char *plural = bytes == 1 ? "" : "s";
    const hm_layout *before = NULL, *after = NULL; /* whose element lies nearest on either side */
    int64_t end = INT64_MIN, start = INT64_MAX, index = 0;
    for (int i = s->layouts - 1; i >= 0; i--) {
        const hm_layout *l = &s->layout[i];
        int64_t r = hm_first_run(l, position);
        if (r < l->count &&
            l->runs[r].start <= position) { /* inside: an element of an input, or (untouched) of an output */
            const hm_tensor *t = &s->call->tensor[l->arg];
            char where[96];
            put_index(t, l->runs[r].index + (position - l->runs[r].start) / (int64_t)hm_dtype_size(t->dtype), where,
                      sizeof where);
            snprintf(text, size, "%s: %" PRId64 " byte%s changed %s, the first in element %s", op->args[l->arg].name,
                     bytes, plural, untouched ? "although the call failed" : "of what is input", where);
            return;
        }
        if (r < l->count && l->runs[r].start < start) after = l, start = l->runs[r].start;
        if (r > 0 && l->runs[r - 1].start + l->bytes > end) {
            before = l;
            end = l->runs[r - 1].start + l->bytes;
            index = l->runs[r - 1].index;
        }
    }
    const hm_layout *owner = before ? before : after;
    const char *name = owner ? op->args[owner->arg].name : "an empty tensor";
    if (before && after) {
        const hm_tensor *t = &s->call->tensor[before->arg];
        snprintf(text, size,
                 "%s: %" PRId64 " byte%s changed in the stride gap after row %" PRId64 ", the first %" PRId64
                 " bytes into it",
                 name, bytes, plural, index / t->shape[t->ndim - 1], position - end);
    } else if (before)
        snprintf(text, size,
                 "%s: %" PRId64 " byte%s changed in the guard zone after it, the first %" PRId64 " bytes past its end",
                 name, bytes, plural, position - end);
    else if (after)
        snprintf(text, size,
                 "%s: %" PRId64 " byte%s changed in the guard zone before it, the first %" PRId64
                 " bytes ahead of its start",
                 name, bytes, plural, start - position);
    else snprintf(text, size, "%s: %" PRId64 " byte%s changed around it", name, bytes, plural);
}

/* Is there no element in the window, and is its canary whole? */
static bool is_canary(const hm_survey *s, hm_window w, const unsigned char *have) {
    for (int i = 0; i < s->layouts; i++) {
        int64_t r = hm_first_run(&s->layout[i], w.from);
        if (r < s->layout[i].count && s->layout[i].runs[r].start < w.to) return false;
    }
    for (int64_t from = w.from; from < w.to;) {
        int64_t some = w.to - from < CANARY_PERIOD ? w.to - from : CANARY_PERIOD;
        if (memcmp(have + (from - w.from), canary + from % CANARY_PERIOD, (size_t)some)) return false;
        from += some;
    }
    return true;
}

/* Bytes of the window that are not as they have to be; *first gets the position of the lowest. */
static int64_t count_changes(const hm_survey *s, hm_window w, hm_moment when, int64_t *first) {
    unsigned char want[HM_WINDOW];
    const unsigned char *have = s->buffer->base + w.from;
    if (is_canary(s, w, have)) return 0;
    expected(s, w, when, want);
    int64_t n = 0, length = w.to - w.from;
    if (!memcmp(want, have, (size_t)length)) return 0;
    for (int64_t i = length - 1; i >= 0; i--)
        if (want[i] != have[i]) n++, *first = w.from + i;
    return n;
}

bool hm_call_effects(const hm_call *call, bool untouched, char *text, size_t size) {
    hm_moment when = untouched ? HM_PRISTINE : HM_AFTER;
    snprintf(text, size, "ok");
    for (int b = 0; b < call->nbuffers; b++) {
        hm_survey s;
        if (!hm_survey_make(call, b, &s)) return snprintf(text, size, "no memory to check the effects"), false;
        int64_t bytes = 0, first = INT64_MAX;
#pragma omp parallel for schedule(static) reduction(+ : bytes) reduction(min : first) if (s.count > HM_ALONE / HM_WINDOW)
        for (int64_t i = 0; i < s.count; i++) {
            int64_t at = INT64_MAX;
            bytes += count_changes(&s, s.windows[i], when, &at);
            first = at < first ? at : first;
        }
        if (bytes) describe(&s, first, bytes, untouched, text, size);
        hm_survey_free(&s);
        if (bytes) return false;
    }
    return true;
}
