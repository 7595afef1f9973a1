#include "call.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "generate.h"

#define WINDOW 65536                          /* bytes looked at in one go */
#define DENSE_MAX (INT64_C(256) << 20)        /* buffers up to this size are filled and checked in full */
#define NEAR 4096                             /* larger ones only this near to an element, and in the guard zones */
#define ELEMENTS_MAX (INT64_C(4) << 30)       /* bytes of the elements of one argument */
#define EXTENT_MAX (INT64_C(1) << 44)         /* bytes from the first to the last of them */
#define CANARY_PERIOD 65521                   /* prime: no row pitch repeats the pattern */
#define ALONE (INT64_C(1) << 20)              /* work on fewer bytes than this is not worth a team of threads */

/* ---- where elements lie --------------------------------------------------------------------------------------------- */

/* The elements of one argument as runs of consecutive bytes in its buffer, ascending; all runs have the same length. */
typedef struct {
    int arg;
    int64_t count, bytes;
    struct run {
        int64_t start, index; /* byte position in the buffer; row-major index of the first element */
    } *runs;
} layout;

static bool is_input(const hm_op_info *op, int arg) { return op->args[arg].direction != HM_OUT; }
static bool is_output(const hm_op_info *op, int arg) { return op->args[arg].direction != HM_IN; }

/* Bytes [*low, *high) that t's elements span, relative to element 0. false if it is more than this program will hold. */
static bool span(const hm_tensor *t, int64_t *low, int64_t *high) {
    int64_t size = (int64_t)hm_dtype_size(t->dtype), lo = 0, hi = 0, total = size, reach;
    *low = *high = 0;
    for (int d = 0; d < t->ndim; d++)
        if (t->shape[d] <= 0) return true;
    for (int d = 0; d < t->ndim; d++) {
        if (__builtin_mul_overflow(total, t->shape[d], &total) || total > ELEMENTS_MAX) return false;
        if (__builtin_mul_overflow(t->shape[d] - 1, t->stride[d], &reach)) return false;
        if (__builtin_add_overflow(reach < 0 ? lo : hi, reach, reach < 0 ? &lo : &hi)) return false;
    }
    if (__builtin_mul_overflow(lo, size, low) || __builtin_mul_overflow(hi, size, high)) return *low = *high = 0, false;
    *high += size;
    if (*low < -EXTENT_MAX || *high > EXTENT_MAX) return *low = *high = 0, false;
    return true;
}

static int64_t elements_of(const hm_tensor *t) {
    int64_t n = t->dtype != HM_DTYPE_NONE;
    for (int d = 0; d < t->ndim; d++) {
        if (t->shape[d] <= 0) return 0;
        n *= t->shape[d];
    }
    return n;
}

/* Product of the leading dimensions; 0 where one is not positive or there are absurdly many. */
static int64_t rows_of(const hm_tensor *t) {
    int64_t rows = t->dtype != HM_DTYPE_NONE;
    for (int d = 0; d < t->ndim - 1; d++)
        if (t->shape[d] <= 0 || __builtin_mul_overflow(rows, t->shape[d], &rows)) return 0;
    return rows;
}

/* Elements that lie next to each other from any row-major index that is a multiple of their number. */
static int64_t run_length(const hm_tensor *t) {
    int64_t n = 1;
    for (int d = t->ndim - 1; d >= 0 && (t->stride[d] == n || t->shape[d] == 1); d--) n *= t->shape[d];
    return n;
}

static int64_t offset_of(const hm_tensor *t, int64_t index) {
    int64_t offset = 0;
    for (int d = t->ndim - 1; d >= 0; d--) {
        offset += index % t->shape[d] * t->stride[d];
        index /= t->shape[d];
    }
    return offset;
}

static int by_start(const void *a, const void *b) {
    const struct run *p = a, *q = b;
    return p->start != q->start ? (p->start > q->start) - (p->start < q->start) : (p->index > q->index) - (p->index < q->index);
}

static bool lay_out(const hm_call *call, int arg, layout *l) {
    const hm_tensor *t = &call->tensor[arg];
    int64_t n = elements_of(t), run = n ? run_length(t) : 1, size = (int64_t)hm_dtype_size(t->dtype);
    *l = (layout){.arg = arg, .count = n / run, .bytes = run * size};
    l->runs = malloc((size_t)(l->count ? l->count : 1) * sizeof *l->runs);
    if (!l->runs) return false;
    int64_t origin = (int64_t)call->buffer[call->buffer_of[arg]].offset[arg];
    bool sorted = true;
    for (int64_t i = 0; i < l->count; i++) {
        l->runs[i] = (struct run){origin + offset_of(t, i * run) * size, i * run};
        sorted = sorted && (i == 0 || l->runs[i].start >= l->runs[i - 1].start);
    }
    if (!sorted) qsort(l->runs, (size_t)l->count, sizeof *l->runs, by_start);
    return true;
}

/* First run that ends after position a. */
static int64_t first_run(const layout *l, int64_t a) {
    int64_t lo = 0, hi = l->count;
    while (lo < hi) {
        int64_t mid = lo + (hi - lo) / 2;
        if (l->runs[mid].start + l->bytes > a)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

/* ---- what a buffer has to hold -------------------------------------------------------------------------------------- */

typedef struct {
    int64_t from, to;
} window;

/* One buffer with the layouts of its arguments (inputs after outputs) and the windows in which it is filled and checked. */
typedef struct {
    const hm_call *call;
    const hm_buffer *buffer;
    layout layout[HM_MAX_ARGS];
    int layouts;
    window *windows;
    int64_t count, capacity;
} survey;

static bool add_window(survey *s, int64_t from, int64_t to) {
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 256;
        window *grown = realloc(s->windows, (size_t)s->capacity * sizeof *grown);
        if (!grown) return false;
        s->windows = grown;
    }
    s->windows[s->count++] = (window){from, to};
    return true;
}

static int by_from(const void *a, const void *b) {
    const window *p = a, *q = b;
    return (p->from > q->from) - (p->from < q->from);
}

/* Merges what overlaps, then cuts into pieces of at most WINDOW bytes. */
static bool cut_windows(survey *s) {
    window *near = s->windows;
    int64_t n = s->count;
    qsort(near, (size_t)n, sizeof *near, by_from);
    s->windows = NULL;
    s->count = s->capacity = 0;
    bool fine = true;
    for (int64_t i = 0; i < n;) {
        int64_t from = near[i].from, to = near[i].to;
        for (i++; i < n && near[i].from <= to; i++) to = near[i].to > to ? near[i].to : to;
        for (; fine && from < to; from += WINDOW) fine = add_window(s, from, to - from < WINDOW ? to : from + WINDOW);
    }
    free(near);
    return fine;
}

static void survey_free(survey *s) {
    for (int i = 0; i < s->layouts; i++) free(s->layout[i].runs);
    free(s->windows);
}

static bool survey_of(const hm_call *call, int buffer, survey *s) {
    const hm_op_info *op = call->op;
    int64_t size = (int64_t)call->buffer[buffer].size, guard = (int64_t)HM_GUARD;
    *s = (survey){.call = call, .buffer = &call->buffer[buffer]};
    bool fine = true;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; fine && i < op->nargs; i++)
            if (call->buffer_of[i] == buffer && is_input(op, i) == pass) fine = lay_out(call, i, &s->layout[s->layouts++]);
    if (fine && size <= DENSE_MAX)
        fine = add_window(s, 0, size);
    else if (fine) {
        fine = add_window(s, 0, guard) && add_window(s, size - guard, size);
        for (int i = 0; fine && i < s->layouts; i++)
            for (int64_t r = 0; fine && r < s->layout[i].count; r++) {
                int64_t from = s->layout[i].runs[r].start - NEAR, to = from + s->layout[i].bytes + 2 * NEAR;
                fine = add_window(s, from > 0 ? from : 0, to < size ? to : size);
            }
    }
    if (fine) fine = cut_windows(s);
    if (!fine) survey_free(s);
    return fine;
}

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

typedef enum { FRESH, PRISTINE, AFTER } moment; /* inputs not yet there; ready to run; outputs are whatever they are now */

/* Bytes [w.from, w.to) of the buffer as they have to be. */
static void expected(const survey *s, window w, moment when, unsigned char *to) {
    const hm_op_info *op = s->call->op;
    put_canary(to, w.from, w.to - w.from);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < s->layouts; i++) {
            const layout *l = &s->layout[i];
            bool input = is_input(op, l->arg);
            if (pass == 0 ? input && when == FRESH : when != AFTER || !is_output(op, l->arg)) continue;
            const hm_tensor *t = hm_arg_tensor(op, s->call->golden_args, l->arg);
            for (int64_t r = first_run(l, w.from); r < l->count && l->runs[r].start < w.to; r++) {
                int64_t start = l->runs[r].start, from = start > w.from ? start : w.from;
                int64_t end = start + l->bytes < w.to ? start + l->bytes : w.to;
                unsigned char *at = to + (from - w.from);
                if (pass == 1)
                    memcpy(at, s->buffer->base + from, (size_t)(end - from));
                else if (input)
                    memcpy(at, (unsigned char *)t->data + l->runs[r].index * (int64_t)hm_dtype_size(t->dtype) + (from - start),
                           (size_t)(end - from));
                else
                    memset(at, HM_POISON, (size_t)(end - from));
            }
        }
    }
}

static bool fill(const hm_call *call, moment when) {
    for (int b = 0; b < call->nbuffers; b++) {
        survey s;
        if (!survey_of(call, b, &s)) return false;
#pragma omp parallel for schedule(static) if (s.count > ALONE / WINDOW)
        for (int64_t i = 0; i < s.count; i++) expected(&s, s.windows[i], when, s.buffer->base + s.windows[i].from);
        survey_free(&s);
    }
    return true;
}

/* ---- building ------------------------------------------------------------------------------------------------------- */

/* Where each argument's element 0 is to lie, in bytes from the origin of its group; arguments of one group share a buffer. */
typedef struct {
    int group[HM_MAX_ARGS]; /* -1: no memory */
    int64_t origin[HM_MAX_ARGS];
} placement;

static bool allocate(hm_call *call, int group, const placement *p) {
    int64_t low = INT64_MAX, high = INT64_MIN, page = sysconf(_SC_PAGESIZE);
    for (int i = 0; i < call->op->nargs; i++) {
        int64_t lo, hi;
        if (p->group[i] != group) continue;
        span(&call->tensor[i], &lo, &hi);
        low = p->origin[i] + lo < low ? p->origin[i] + lo : low;
        high = p->origin[i] + hi > high ? p->origin[i] + hi : high;
    }
    if (low > high) return true;
    int64_t padded = (high - low + 63) / 64 * 64, pages = (padded + page - 1) / page * page + (padded == 0) * page;
    hm_buffer *b = &call->buffer[call->nbuffers++];
    b->size = 2 * HM_GUARD + (size_t)pages;
    b->base = MAP_FAILED;
    b->fd = memfd_create("hallmark", MFD_CLOEXEC);
    if (b->fd >= 0 && !ftruncate(b->fd, (off_t)b->size))
        b->base = mmap(NULL, b->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, b->fd, 0);
    if (b->base == MAP_FAILED) {
        b->base = NULL;
        return false;
    }
    for (int i = 0; i < call->op->nargs; i++) {
        if (p->group[i] != group) continue;
        call->buffer_of[i] = call->nbuffers - 1;
        b->offset[i] = HM_GUARD + (size_t)(pages - padded + p->origin[i] - low);
        call->tensor[i].data = b->base + b->offset[i];
    }
    return true;
}

static void copy_elements(const hm_tensor *from, const hm_tensor *to) {
    int64_t size = (int64_t)hm_dtype_size(from->dtype), n = elements_of(from);
    if (!n) return;
    int64_t run = run_length(from), other = run_length(to);
    run = run < other ? run : other; /* both are products of the last dimensions, so the smaller divides the larger */
#pragma omp parallel for schedule(static) if (n * size > ALONE)
    for (int64_t i = 0; i < n / run; i++)
        memcpy((char *)to->data + offset_of(to, i * run) * size, (const char *)from->data + offset_of(from, i * run) * size,
               (size_t)(run * size));
}

static bool copy_inputs(hm_call *call) {
    const hm_op_info *op = call->op;
    memcpy(call->golden_args, call->args, op->args_size);
    for (int i = 0; i < op->nargs; i++) {
        hm_tensor *t = hm_arg_tensor(op, call->golden_args, i);
        if (!is_input(op, i) || call->buffer_of[i] < 0) continue;
        int64_t step = 1, n = elements_of(&call->tensor[i]);
        for (int d = t->ndim - 1; d >= 0; d--) {
            t->stride[d] = step;
            step *= n && t->shape[d] > 0 ? t->shape[d] : 1;
        }
        t->data = malloc(n ? (size_t)n * hm_dtype_size(t->dtype) : 1);
        if (!t->data) return false;
        copy_elements(&call->tensor[i], t);
    }
    return true;
}

static uint64_t hash_inputs(const hm_call *call) {
    const hm_op_info *op = call->op;
    XXH3_state_t *state = XXH3_createState();
    if (!state) return 0;
    XXH3_64bits_reset(state);
    for (int i = 0; i < op->nargs; i++) {
        const hm_tensor *t = hm_arg_tensor(op, call->golden_args, i);
        if (!is_input(op, i) || call->buffer_of[i] < 0) continue;
        char text[160];
        int n = snprintf(text, sizeof text, "%s=%s[", op->args[i].name, hm_dtype_name(t->dtype));
        for (int d = 0; d < t->ndim; d++) n += snprintf(text + n, sizeof text - (size_t)n, "%" PRId64 ",", t->shape[d]);
        XXH3_64bits_update(state, text, (size_t)n);
        XXH3_64bits_update(state, t->data, (size_t)elements_of(t) * hm_dtype_size(t->dtype));
    }
    uint64_t hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return hash;
}

static hm_call *new_call(const hm_op_info *op, const char *name) {
    hm_call *call = calloc(1, sizeof *call);
    if (!call) return NULL;
    call->op = op;
    snprintf(call->name, sizeof call->name, "%s", name);
    call->args = calloc(1, op->args_size);
    call->golden_args = calloc(1, op->args_size);
    for (int i = 0; i < HM_MAX_ARGS; i++) {
        call->buffer_of[i] = -1;
        call->buffer[i].fd = -1;
    }
    if (call->args && call->golden_args) return call;
    hm_call_free(call);
    return NULL;
}

/* Allocates and lays canaries and poison; the inputs are filled next. */
static bool prepare(hm_call *call, const placement *p) {
    const hm_op_info *op = call->op;
    for (int g = 0; g < op->nargs; g++)
        if (!allocate(call, g, p)) return false;
    for (int i = 0; i < op->nargs; i++) {
        *hm_arg_tensor(op, call->args, i) = call->tensor[i];
        call->rows[i] = rows_of(&call->tensor[i]);
    }
    return fill(call, FRESH);
}

static hm_status no_memory(hm_call *call, hm_call **to, char *why, size_t size) {
    snprintf(why, size, "%s: not enough memory for its tensors", call ? call->op->name : "call");
    hm_call_free(call);
    *to = NULL;
    return HM_NO_MEMORY;
}

static void break_descriptors(hm_call *call) {
    const hm_op_info *op = call->op;
    for (int i = 0; i < op->nargs; i++) {
        hm_tensor *t = hm_arg_tensor(op, call->args, i);
        switch (call->spec.broken[i]) {
        case HM_BROKEN_NOT: break;
        case HM_BROKEN_NULL: t->data = NULL; break;
        case HM_BROKEN_NDIM0: t->ndim = 0; break;
        case HM_BROKEN_NDIM5: t->ndim = 5; break;
        case HM_BROKEN_DTYPE99: t->dtype = (hm_dtype)99; break;
        case HM_BROKEN_PLACE9: t->place = (hm_place)9; break;
        case HM_BROKEN_CUDA: t->place = HM_CUDA; break;
        }
    }
    if (call->spec.broken_args == HM_ARGS_SIZE) memcpy(call->args, &(size_t){sizeof(size_t)}, sizeof(size_t));
}

static void set_param(const hm_param_info *info, void *args, double value) {
    void *to = (char *)args + info->offset;
    switch (info->type) {
    case HM_PARAM_F64: memcpy(to, &value, sizeof value); break;
    case HM_PARAM_I64: memcpy(to, &(int64_t){(int64_t)value}, sizeof(int64_t)); break;
    case HM_PARAM_MODE: memcpy(to, &(int){(int)value}, sizeof(int)); break;
    }
}

hm_status hm_call_from_case(const hm_case_spec *spec, hm_call **to, char *why, size_t size) {
    const hm_op_info *op = spec->op;
    hm_call *call = new_call(op, spec->line);
    if (!call) return no_memory(call, to, why, size);
    call->spec = *spec;
    call->from_case = true;
    memcpy(call->args, &op->args_size, sizeof(size_t));
    placement p;
    for (int i = 0; i < HM_MAX_ARGS; i++) p.group[i] = -1;
    for (int i = 0; i < op->nargs; i++) {
        hm_tensor *t = &call->tensor[i];
        *t = (hm_tensor){.dtype = spec->dtype[i], .ndim = spec->ndim[i]};
        memcpy(t->shape, spec->shape[i], sizeof t->shape);
        memcpy(t->stride, spec->stride[i], sizeof t->stride);
        if (t->dtype == HM_DTYPE_NONE) continue;
        int on = spec->alias[i];
        p.group[i] = on < 0 ? i : on;
        p.origin[i] = 0;
        int64_t low, high, reach = 0;
        bool held = span(t, &low, &high);
        if (on >= 0) held &= !__builtin_mul_overflow(spec->alias_offset[i], (int64_t)hm_dtype_size(spec->dtype[on]), &reach) &&
                             reach < EXTENT_MAX && reach > -EXTENT_MAX;
        p.origin[i] = held ? reach : 0;
        if (held) continue;
        if (spec->expect == HM_OK) {
            snprintf(why, size, "%s: %s is too large for this program, which holds up to 2^32 bytes of elements within 2^44",
                     op->name, op->args[i].name);
            hm_call_free(call);
            *to = NULL;
            return HM_NO_MEMORY;
        }
        /* The call must be refused before any element is touched: the descriptor keeps its shape, on memory that is not there. */
        p.group[i] = -1;
    }
    for (int i = 0; i < op->nparams; i++) set_param(&op->params[i], call->args, spec->param[i]);
    if (!prepare(call, &p)) return no_memory(call, to, why, size);
    for (int i = 0; i < op->nargs; i++)
        if (is_input(op, i) && call->buffer_of[i] >= 0 && hm_generate(spec, i, call->args)) return no_memory(call, to, why, size);
    for (int i = 0; i < op->nargs; i++) {
        hm_tensor *t = hm_arg_tensor(op, call->args, i);
        if (t->dtype != HM_DTYPE_NONE && call->buffer_of[i] < 0) t->data = call->args; /* not NULL; never to be read */
    }
    if (!copy_inputs(call)) return no_memory(call, to, why, size);
    call->inputs_xxh3 = hash_inputs(call);
    break_descriptors(call);
    *to = call;
    return HM_OK;
}

/* Tensors of args whose bytes overlap, directly or through others, are one group; its origin is address 0. */
static void group_by_overlap(const hm_call *call, const hm_op_info *op, placement *p) {
    int64_t low[HM_MAX_ARGS], high[HM_MAX_ARGS];
    for (int i = 0; i < op->nargs; i++) {
        const hm_tensor *t = &call->tensor[i];
        p->group[i] = t->dtype == HM_DTYPE_NONE ? -1 : i;
        p->origin[i] = 0;
        low[i] = high[i] = 0;
        if (p->group[i] < 0 || !t->data) continue;
        span(t, &low[i], &high[i]);
        if (low[i] == high[i]) continue;
        p->origin[i] = (int64_t)(intptr_t)t->data;
        low[i] += p->origin[i], high[i] += p->origin[i];
    }
    for (bool merged = true; merged;) {
        merged = false;
        for (int i = 0; i < op->nargs; i++)
            for (int j = 0; j < op->nargs; j++) {
                if (p->group[i] < 0 || p->group[j] <= p->group[i] || high[i] <= low[j] || high[j] <= low[i]) continue;
                int from = p->group[j];
                for (int k = 0; k < op->nargs; k++)
                    if (p->group[k] == from) p->group[k] = p->group[i];
                merged = true;
            }
    }
}

hm_status hm_call_from_args(const hm_op_info *op, const void *args, const char *name, hm_call **to, char *why, size_t size) {
    hm_call *call = new_call(op, name);
    if (!call) return no_memory(call, to, why, size);
    memcpy(call->args, args, op->args_size);
    for (int i = 0; i < op->nargs; i++) {
        int64_t low, high;
        call->tensor[i] = *hm_arg_tensor(op, call->args, i);
        const hm_tensor *t = &call->tensor[i];
        bool sound = t->dtype == HM_DTYPE_NONE || (hm_dtype_size(t->dtype) && t->ndim >= 1 && t->ndim <= 4 && span(t, &low, &high));
        if (sound && is_input(op, i) && t->dtype != HM_DTYPE_NONE && !t->data) sound = elements_of(t) == 0;
        if (sound) continue;
        snprintf(why, size, "%s: %s is no tensor that can be copied (dtype, rank, data or size)", op->name, op->args[i].name);
        hm_call_free(call);
        *to = NULL;
        return HM_BAD_ARG;
    }
    placement p;
    group_by_overlap(call, op, &p);
    if (!prepare(call, &p)) return no_memory(call, to, why, size);
    for (int i = 0; i < op->nargs; i++)
        if (is_input(op, i) && call->buffer_of[i] >= 0) copy_elements(hm_arg_tensor(op, args, i), &call->tensor[i]);
    if (!copy_inputs(call)) return no_memory(call, to, why, size);
    call->inputs_xxh3 = hash_inputs(call);
    *to = call;
    return HM_OK;
}

void hm_call_free(hm_call *call) {
    if (!call) return;
    for (int b = 0; b < call->nbuffers; b++) {
        if (call->buffer[b].base) munmap(call->buffer[b].base, call->buffer[b].size);
        if (call->buffer[b].fd >= 0) close(call->buffer[b].fd);
    }
    for (int i = 0; call->golden_args && i < call->op->nargs; i++) {
        void *copy = hm_arg_tensor(call->op, call->golden_args, i)->data;
        if (is_input(call->op, i) && call->buffer_of[i] >= 0 && copy != call->tensor[i].data) free(copy);
    }
    free(call->args);
    free(call->golden_args);
    free(call);
}

void hm_call_reset(hm_call *call) { fill(call, PRISTINE); }

/* ---- effects -------------------------------------------------------------------------------------------------------- */

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
static void describe(const survey *s, int64_t position, int64_t bytes, bool untouched, char *text, size_t size) {
    const hm_op_info *op = s->call->op;
    const layout *before = NULL, *after = NULL; /* whose element lies nearest on either side */
    int64_t end = INT64_MIN, start = INT64_MAX, index = 0;
    for (int i = s->layouts - 1; i >= 0; i--) {
        const layout *l = &s->layout[i];
        int64_t r = first_run(l, position);
        if (r < l->count && l->runs[r].start <= position) { /* inside: an element of an input, or (untouched) of an output */
            const hm_tensor *t = &s->call->tensor[l->arg];
            char where[96];
            put_index(t, l->runs[r].index + (position - l->runs[r].start) / (int64_t)hm_dtype_size(t->dtype), where, sizeof where);
            snprintf(text, size, "%s: %" PRId64 " bytes changed %s, the first in element %s", op->args[l->arg].name, bytes,
                     untouched ? "although the call failed" : "of what is input", where);
            return;
        }
        if (r < l->count && l->runs[r].start < start) after = l, start = l->runs[r].start;
        if (r > 0 && l->runs[r - 1].start + l->bytes > end) {
            before = l;
            end = l->runs[r - 1].start + l->bytes;
            index = l->runs[r - 1].index;
        }
    }
    const layout *owner = before ? before : after;
    const char *name = owner ? op->args[owner->arg].name : "an empty tensor";
    if (before && after) {
        const hm_tensor *t = &s->call->tensor[before->arg];
        snprintf(text, size, "%s: %" PRId64 " bytes changed in the stride gap after row %" PRId64 ", the first %" PRId64 " bytes into it",
                 name, bytes, index / t->shape[t->ndim - 1], position - end);
    } else if (before)
        snprintf(text, size, "%s: %" PRId64 " bytes changed in the guard zone after it, the first %" PRId64 " bytes past its end", name,
                 bytes, position - end);
    else if (after)
        snprintf(text, size, "%s: %" PRId64 " bytes changed in the guard zone before it, the first %" PRId64 " bytes ahead of its start",
                 name, bytes, start - position);
    else
        snprintf(text, size, "%s: %" PRId64 " bytes changed around it", name, bytes);
}

/* Bytes of the window that are not as they have to be; *first gets the position of the lowest. */
static int64_t count_changes(const survey *s, window w, moment when, int64_t *first) {
    unsigned char want[WINDOW];
    const unsigned char *have = s->buffer->base + w.from;
    expected(s, w, when, want);
    int64_t n = 0, length = w.to - w.from;
    if (!memcmp(want, have, (size_t)length)) return 0;
    for (int64_t i = length - 1; i >= 0; i--)
        if (want[i] != have[i]) n++, *first = w.from + i;
    return n;
}

bool hm_call_effects(const hm_call *call, bool untouched, char *text, size_t size) {
    moment when = untouched ? PRISTINE : AFTER;
    snprintf(text, size, "ok");
    for (int b = 0; b < call->nbuffers; b++) {
        survey s;
        if (!survey_of(call, b, &s)) return snprintf(text, size, "no memory to check the effects"), false;
        int64_t bytes = 0, first = INT64_MAX;
#pragma omp parallel for schedule(static) reduction(+ : bytes) reduction(min : first) if (s.count > ALONE / WINDOW)
        for (int64_t i = 0; i < s.count; i++) {
            int64_t at = INT64_MAX;
            bytes += count_changes(&s, s.windows[i], when, &at);
            first = at < first ? at : first;
        }
        if (bytes) describe(&s, first, bytes, untouched, text, size);
        survey_free(&s);
        if (bytes) return false;
    }
    return true;
}
