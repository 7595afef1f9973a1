#include "call.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "generate.h"
#include "layout.h"

#define SPARSE_MIN (INT64_C(1) << 20) /* bytes from which on a table is made only where its index points */
#define REACH_MAX (INT64_C(1) << 44)  /* bytes from an input's element 0 to that of an output that lies on it */

/* Where each argument's element 0 is to lie, in bytes from the origin of its group; arguments of one group share a
 * buffer. */
typedef struct {
    int group[HM_MAX_ARGS]; /* -1: no memory */
    int64_t origin[HM_MAX_ARGS];
} placement;

static bool allocate(hm_call *call, int group, const placement *p) {
    int64_t low = INT64_MAX, high = INT64_MIN, page = sysconf(_SC_PAGESIZE);
    for (int i = 0; i < call->op->nargs; i++) {
        int64_t lo, hi;
        if (p->group[i] != group) continue;
        hm_view_span(&call->tensor[i], &lo, &hi);
        low = p->origin[i] + lo < low ? p->origin[i] + lo : low;
        high = p->origin[i] + hi > high ? p->origin[i] + hi : high;
    }
    if (low > high) return true;
    int64_t padded = (high - low + 63) / 64 * 64, pages = (padded + page - 1) / page * page + (padded == 0) * page;
    hm_buffer *b = &call->buffer[call->nbuffers++];
    if (!hm_buffer_open(b, 2 * HM_GUARD + (size_t)pages)) return false;
    for (int i = 0; i < call->op->nargs; i++) {
        if (p->group[i] != group) continue;
        call->buffer_of[i] = call->nbuffers - 1;
        b->offset[i] = HM_GUARD + (size_t)(pages - padded + p->origin[i] - low);
        call->tensor[i].data = b->base + b->offset[i];
    }
    return true;
}

static void copy_elements(const hm_tensor *from, const hm_tensor *to) {
    int64_t size = (int64_t)hm_dtype_size(from->dtype), n = hm_view_elements(from);
    if (!n) return;
    int64_t run = hm_view_run(from), other = hm_view_run(to);
    run = run < other ? run : other; /* both are products of the last dimensions, so the smaller divides the larger */
#pragma omp parallel for schedule(static) if (n * size > HM_ALONE)
    for (int64_t i = 0; i < n / run; i++)
        memcpy((char *)to->data + hm_view_offset(to, i * run) * size,
               (const char *)from->data + hm_view_offset(from, i * run) * size, (size_t)(run * size));
}

/* ---- large tables ---- */

static int arg_named(const hm_op_info *op, const char *name) {
    for (int i = 0; i < op->nargs; i++)
        if (!strcmp(op->args[i].name, name)) return i;
    return -1;
}

/* Does the index count from another row than the table's first? Such a table is made whole. */
static bool is_shard(const hm_call *call) {
    int64_t start = 0;
    for (int i = 0; i < call->op->nparams; i++)
        if (!strcmp(call->op->params[i].name, "vocab_start"))
            memcpy(&start, (const char *)call->args + call->op->params[i].offset, sizeof start);
    return start != 0;
}

/* Is argument i a table too large to be made whole, with an index that says which rows are read? */
static bool is_sparse(const hm_call *call, int i) {
    const char *name = call->op->args[i].rows_named_by;
    const hm_tensor *t = &call->tensor[i], *index = name ? &call->tensor[arg_named(call->op, name)] : NULL;
    return index && call->buffer_of[i] >= 0 && (index->dtype == HM_I64 || index->dtype == HM_I32) && index->ndim >= 1 &&
           t->ndim == 2 && !is_shard(call) && t->stride[1] == 1 && t->stride[0] >= t->shape[1] &&
           hm_view_elements(t) * (int64_t)hm_dtype_size(t->dtype) > SPARSE_MIN;
}

static int by_number(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The rows of table i that its index, which is in place, names; those out of range are the contract's business. Then
 * the canaries near them are laid. */
static bool name_rows(hm_call *call, int i) {
    const hm_tensor *index = &call->tensor[arg_named(call->op, call->op->args[i].rows_named_by)];
    int64_t n = hm_view_elements(index), count = 0, *row = malloc(((size_t)n + 1) * sizeof *row);
    if (!row) return false;
    for (int64_t k = 0; k < n; k++) {
        int64_t offset = hm_view_offset(index, k);
        int64_t at =
            index->dtype == HM_I64 ? ((const int64_t *)index->data)[offset] : ((const int32_t *)index->data)[offset];
        if (at >= 0 && at < call->tensor[i].shape[0]) row[count++] = at;
    }
    qsort(row, (size_t)count, sizeof *row, by_number);
    int64_t distinct = 0;
    for (int64_t k = 0; k < count; k++)
        if (!k || row[k] != row[k - 1]) row[distinct++] = row[k];
    call->live[i] = row;
    call->live_count[i] = distinct;
    return hm_buffer_fill(call, call->buffer_of[i], HM_FRESH);
}

/* The live rows of table i. */
static void copy_rows(const hm_call *call, int i, const hm_tensor *from, const hm_tensor *to) {
    int64_t size = (int64_t)hm_dtype_size(from->dtype), bytes = from->shape[1] * size;
    for (int64_t k = 0; k < call->live_count[i]; k++)
        memcpy((char *)to->data + call->live[i][k] * to->stride[0] * size,
               (const char *)from->data + call->live[i][k] * from->stride[0] * size, (size_t)bytes);
}

static size_t whole(const hm_tensor *t) { return (size_t)hm_view_elements(t) * hm_dtype_size(t->dtype); }

static bool copy_inputs(hm_call *call) {
    const hm_op_info *op = call->op;
    memcpy(call->golden_args, call->args, op->args_size);
    for (int i = 0; i < op->nargs; i++) {
        hm_tensor *t = hm_arg_tensor(op, call->golden_args, i);
        if (!hm_is_input(op, i) || call->buffer_of[i] < 0) continue;
        int64_t step = 1, n = hm_view_elements(&call->tensor[i]);
        for (int d = t->ndim - 1; d >= 0; d--) {
            t->stride[d] = step;
            step *= n && t->shape[d] > 0 ? t->shape[d] : 1;
        }
        if (call->sparse[i]) {
            t->data = mmap(NULL, whole(t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (t->data == MAP_FAILED) return t->data = call->tensor[i].data, false;
            copy_rows(call, i, &call->tensor[i], t);
            continue;
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
        if (!hm_is_input(op, i) || call->buffer_of[i] < 0) continue;
        char text[160];
        int n = snprintf(text, sizeof text, "%s=%s[", op->args[i].name, hm_dtype_name(t->dtype));
        for (int d = 0; d < t->ndim; d++) n += snprintf(text + n, sizeof text - (size_t)n, "%" PRId64 ",", t->shape[d]);
        XXH3_64bits_update(state, text, (size_t)n);
        for (int64_t k = 0; call->sparse[i] && k < call->live_count[i]; k++) {
            size_t bytes = (size_t)t->shape[1] * hm_dtype_size(t->dtype);
            XXH3_64bits_update(state, &call->live[i][k], sizeof call->live[i][k]);
            XXH3_64bits_update(state, (const char *)t->data + (size_t)call->live[i][k] * bytes, bytes);
        }
        if (!call->sparse[i]) XXH3_64bits_update(state, t->data, whole(t));
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
        call->rows[i] = hm_view_rows(&call->tensor[i]);
        call->sparse[i] = is_sparse(call, i);
    }
    return hm_call_fill(call, HM_FRESH);
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
            case HM_BROKEN_NOT:
                break;
            case HM_BROKEN_NULL:
                t->data = NULL;
                break;
            case HM_BROKEN_NDIM0:
                t->ndim = 0;
                break;
            case HM_BROKEN_NDIM5:
                t->ndim = 5;
                break;
            case HM_BROKEN_DTYPE99:
                t->dtype = (hm_dtype)99;
                break;
            case HM_BROKEN_PLACE9:
                t->place = (hm_place)9;
                break;
            case HM_BROKEN_CUDA:
                t->place = HM_CUDA;
                break;
        }
    }
    if (call->spec.broken_args == HM_ARGS_SIZE) memcpy(call->args, &(size_t){sizeof(size_t)}, sizeof(size_t));
}

static void set_param(const hm_param_info *info, void *args, double value) {
    void *to = (char *)args + info->offset;
    switch (info->type) {
        case HM_PARAM_F64:
            memcpy(to, &value, sizeof value);
            break;
        case HM_PARAM_I64:
            memcpy(to, &(int64_t){(int64_t)value}, sizeof(int64_t));
            break;
        case HM_PARAM_MODE:
            memcpy(to, &(int){(int)value}, sizeof(int));
            break;
    }
}

static bool generate(hm_call *call) {
    const hm_op_info *op = call->op;
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < op->nargs; i++) {
            if (!hm_is_input(op, i) || call->buffer_of[i] < 0 || hm_generate_round(op, i) != round) continue;
            if (call->sparse[i]) {
                if (!name_rows(call, i) ||
                    hm_generate_rows(&call->spec, i, call->args, call->live[i], call->live_count[i]))
                    return false;
            } else if (hm_generate(&call->spec, i, call->args)) return false;
        }
    return true;
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
        bool held = hm_view_span(t, &low, &high);
        if (on >= 0)
            held &= !__builtin_mul_overflow(spec->alias_offset[i], (int64_t)hm_dtype_size(spec->dtype[on]), &reach) &&
                    reach < REACH_MAX && reach > -REACH_MAX;
        p.origin[i] = held ? reach : 0;
        if (held) continue;
        if (spec->expect == HM_OK) {
            snprintf(why, size,
                     "%s: %s is too large for this program, which holds up to 2^32 bytes of elements within 2^44",
                     op->name, op->args[i].name);
            hm_call_free(call);
            *to = NULL;
            return HM_NO_MEMORY;
        }
        /* The call must be refused before any element is touched: the descriptor keeps its shape, on memory that is not
         * there. */
        p.group[i] = -1;
    }
    for (int i = 0; i < op->nparams; i++) set_param(&op->params[i], call->args, spec->param[i]);
    if (!prepare(call, &p)) return no_memory(call, to, why, size);
    if (!generate(call)) return no_memory(call, to, why, size);
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
        hm_view_span(t, &low[i], &high[i]);
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

hm_status hm_call_from_args(const hm_op_info *op, const void *args, const char *name, hm_call **to, char *why,
                            size_t size) {
    hm_call *call = new_call(op, name);
    if (!call) return no_memory(call, to, why, size);
    memcpy(call->args, args, op->args_size);
    for (int i = 0; i < op->nargs; i++) {
        int64_t low, high;
        call->tensor[i] = *hm_arg_tensor(op, call->args, i);
        const hm_tensor *t = &call->tensor[i];
        bool sound = t->dtype == HM_DTYPE_NONE ||
                     (hm_dtype_size(t->dtype) && t->ndim >= 1 && t->ndim <= 4 && hm_view_span(t, &low, &high));
        if (sound && hm_is_input(op, i) && t->dtype != HM_DTYPE_NONE && !t->data) sound = hm_view_elements(t) == 0;
        if (sound) continue;
        snprintf(why, size, "%s: %s is no tensor that can be copied (dtype, rank, data or size)", op->name,
                 op->args[i].name);
        hm_call_free(call);
        *to = NULL;
        return HM_BAD_ARG;
    }
    placement p;
    group_by_overlap(call, op, &p);
    if (!prepare(call, &p)) return no_memory(call, to, why, size);
    for (int i = 0; i < op->nargs; i++)
        if (hm_is_input(op, i) && call->buffer_of[i] >= 0 && !call->sparse[i])
            copy_elements(hm_arg_tensor(op, args, i), &call->tensor[i]);
    for (int i = 0; i < op->nargs; i++) {
        if (!call->sparse[i]) continue;
        if (!name_rows(call, i)) return no_memory(call, to, why, size);
        copy_rows(call, i, hm_arg_tensor(op, args, i), &call->tensor[i]);
    }
    if (!copy_inputs(call)) return no_memory(call, to, why, size);
    call->inputs_xxh3 = hash_inputs(call);
    *to = call;
    return HM_OK;
}

void hm_call_free(hm_call *call) {
    if (!call) return;
    for (int b = 0; b < call->nbuffers; b++) hm_buffer_close(&call->buffer[b]);
    for (int i = 0; call->golden_args && i < call->op->nargs; i++) {
        void *copy = hm_arg_tensor(call->op, call->golden_args, i)->data;
        if (!hm_is_input(call->op, i) || call->buffer_of[i] < 0 || copy == call->tensor[i].data) continue;
        if (call->sparse[i]) munmap(copy, whole(hm_arg_tensor(call->op, call->golden_args, i)));
        else free(copy);
    }
    for (int i = 0; i < HM_MAX_ARGS; i++) free(call->live[i]);
    free(call->args);
    free(call->golden_args);
    free(call);
}
