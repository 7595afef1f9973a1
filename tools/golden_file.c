#include "golden_file.h"

#include <stdlib.h>
#include <string.h>

#include "../certify/safetensors.h"
#include "../op/check.h"
#include "../op/dtype.h"

/* What --make keeps. A call is there with its inputs and all its outputs if those have INPUTS bytes and these WHOLE
 * elements at most, or up to FIRST times that if it is the first of its dtypes and modes. Of another call, rows spread
 * evenly over an output until they have SAMPLE elements, but one row at least, and no inputs. */
enum { WHOLE = 520, INPUTS = 6144, FIRST = 10, SAMPLE = 32 };

hm_class hm_golden_class_of(const hm_op_info *op, const char *name) {
    hm_class c = hm_class_named(name ? name : op->class_required);
    char list[128];
    snprintf(list, sizeof list, " %s ", op->classes);
    char word[40];
    snprintf(word, sizeof word, " %.36s ", name ? name : op->class_required);
    if (c == HM_CLASS_NONE || !strstr(list, word))
        hm_die(HM_EXIT_USAGE, "--class is \"%s\", but the classes of %s are: %s", name, op->name, op->classes);
    return c;
}

/* ---- tensors --------------------------------------------------------------------------------- */

/* The rows of an output to keep: all, or with sampling as many as SAMPLE elements allow. count: how many; row(k) is the
 * k-th. */
typedef struct {
    int64_t rows, kept;
} selection;

static selection select_rows(const hm_tensor *t, bool sampled) {
    int64_t rows = hm_row_count(t), n = t->shape[t->ndim - 1];
    int64_t most = sampled && n > 0 ? (SAMPLE > n ? SAMPLE / n : 1) : rows;
    return (selection){rows, most < rows ? most : rows};
}

static int64_t selected(const selection *s, int64_t k) {
    return s->kept == s->rows ? k : (2 * k + 1) * s->rows / (2 * s->kept);
}

static void add_tensor(hm_golden_file *b, const char *id, const char *kind, const char *name, const hm_tensor *like,
                       const selection *s, hm_dtype dtype, const void *data) {
    char full[200];
    int64_t sampled[2] = {s->kept, like->shape[like->ndim - 1]};
    bool whole = s->kept == s->rows;
    snprintf(full, sizeof full, "%s/%s%s", id, kind, name);
    hm_trace_writer_tensor(b->writer, full, dtype, whole ? like->ndim : 2, whole ? like->shape : sampled, data);
}

/* What golden says of an output, as it goes into the file. Its parts: of elements whose admissible set is smaller than
 * [lo, hi]. */
typedef struct {
    char *stored[3]; /* ideal, lo, hi */
    unsigned char *flags;
    bool flagged;
    int64_t *parts_at; /* the element of stored that part k belongs to */
    char *parts;       /* the ends of part k */
    int64_t nparts, capacity;
} truth;

static void add_parts(truth *u, const hm_golden_row *gold, int64_t first, hm_dtype dtype) {
    int64_t width = (int64_t)hm_dtype_size(dtype);
    for (int64_t p = 0; p < gold->nparts; p++)
        for (int i = 0; i < gold->parts[p].n; i++, u->nparts++) {
            if (u->nparts == u->capacity) {
                u->capacity = 2 * u->capacity + 64;
                u->parts_at = realloc(u->parts_at, (size_t)u->capacity * sizeof *u->parts_at);
                u->parts = realloc(u->parts, (size_t)(u->capacity * 2 * width));
                if (!u->parts_at || !u->parts) hm_die(HM_EXIT_INTERNAL, "out of memory");
            }
            u->parts_at[u->nparts] = first + gold->parts[p].index;
            hm_store(dtype, u->parts + 2 * u->nparts * width, gold->parts[p].lo[i]);
            hm_store(dtype, u->parts + (2 * u->nparts + 1) * width, gold->parts[p].hi[i]);
        }
}

/* Everything about output i; its selection goes to *s. false if some lo and hi differ in bits. */
static bool add_output(hm_golden_file *b, const char *id, const hm_golden *golden, const hm_call *call, int i,
                       hm_class class, bool sampled, selection *s) {
    const hm_tensor *t = hm_arg_tensor(call->op, call->golden_args, i);
    const char *name = call->op->args[i].name;
    int64_t n = t->shape[t->ndim - 1], width = (int64_t)hm_dtype_size(t->dtype);
    *s = select_rows(t, sampled);
    size_t elements = (size_t)(s->kept * n);
    double *row = calloc(s->kept ? (size_t)(3 * n) : 1, sizeof *row);
    uint64_t *bits = calloc((size_t)n + 1, sizeof *bits);
    truth u = {.flags = calloc(elements + 1, 1)};
    for (int k = 0; k < 3; k++) u.stored[k] = malloc(elements * (size_t)width + 1);
    if (!row || !bits || !u.flags || !u.stored[0] || !u.stored[1] || !u.stored[2])
        hm_die(HM_EXIT_INTERNAL, "out of memory");
    hm_golden_row gold = {.ideal = row, .lo = row + n, .hi = row + 2 * n, .bits = bits};
    for (int64_t k = 0; k < s->kept; k++) {
        gold.flags = u.flags + k * n;
        hm_status status = hm_golden_row_get(golden, i, selected(s, k), class, HM_TIER_TWO, &gold);
        if (status != HM_OK) hm_die(HM_EXIT_INTERNAL, "golden: %s", hm_status_name(status));
        for (int p = 0; p < 3; p++) hm_store_row(t->dtype, u.stored[p] + k * n * width, 1, n, row + p * n);
        for (int64_t e = 0; e < n; e++) {
            u.flagged |= gold.flags[e] != 0;
            for (int p = 0; p < 3 && (gold.flags[e] & HM_GOLD_BITS); p++)
                memcpy(u.stored[p] + (k * n + e) * width, &bits[e], (size_t)width);
        }
        add_parts(&u, &gold, k * n, t->dtype);
    }
    static const char *const kinds[] = {"ideal.", "lo.", "hi."};
    for (int p = 0; p < 3; p++) add_tensor(b, id, kinds[p], name, t, s, t->dtype, u.stored[p]);
    if (u.flagged) add_tensor(b, id, "flags.", name, t, s, HM_U8, u.flags);
    if (u.nparts) {
        hm_tensor at = hm_tensor_of(NULL, HM_I64, 1, &u.nparts),
                  ends = hm_tensor_of(NULL, t->dtype, 2, (int64_t[]){u.nparts, 2});
        selection all = {0, 0};
        add_tensor(b, id, "parts_at.", name, &at, &all, HM_I64, u.parts_at);
        add_tensor(b, id, "parts.", name, &ends, &all, t->dtype, u.parts);
    }
    bool points = !memcmp(u.stored[1], u.stored[2], elements * (size_t)width);
    for (int p = 0; p < 3; p++) free(u.stored[p]);
    free(gold.parts);
    free(u.parts_at);
    free(u.parts);
    free(u.flags);
    free(bits);
    free(row);
    return points;
}

static json_t *param_json(const hm_param_info *p, const void *args) {
    const char *at = (const char *)args + p->offset;
    double number;
    int64_t integer;
    int mode;
    switch (p->type) {
        case HM_PARAM_F64:
            return memcpy(&number, at, sizeof number), json_real(number);
        case HM_PARAM_I64:
            return memcpy(&integer, at, sizeof integer), json_integer(integer);
        case HM_PARAM_MODE:
            return memcpy(&mode, at, sizeof mode), json_string(p->values[mode]);
    }
    return NULL;
}

/* What was recorded of t: the ideal values, contiguous. */
static json_t *ideal_view(const char *id, const char *name, const hm_tensor *t) {
    char storage[200];
    json_t *shape = json_array(), *stride = json_array();
    hm_tensor dense = hm_tensor_of(NULL, t->dtype, t->ndim, t->shape);
    for (int d = 0; d < t->ndim; d++) {
        json_array_append_new(shape, json_integer(t->shape[d]));
        json_array_append_new(stride, json_integer(dense.stride[d]));
    }
    snprintf(storage, sizeof storage, "%s/ideal.%s", id, name);
    return json_pack("{s:s, s:s, s:i, s:o, s:o}", "storage", storage, "dtype", hm_safetensors_type(t->dtype), "offset",
                     0, "shape", shape, "stride", stride);
}

/* The inputs as tensors, and the entry that makes the file a trace. */
static void add_inputs(hm_golden_file *b, const char *id, const hm_call *call) {
    const hm_op_info *op = call->op;
    json_t *attrs = json_object(), *views = json_object();
    for (int i = 0; i < op->nparams; i++)
        json_object_set_new(attrs, op->params[i].name, param_json(&op->params[i], call->args));
    for (int i = 0; i < op->nargs; i++) {
        const hm_tensor *t = hm_arg_tensor(op, call->golden_args, i); /* contiguous */
        selection all = {0, 0};
        char recorded[80];
        if (t->dtype == HM_DTYPE_NONE) continue;
        if (op->args[i].direction != HM_OUT) add_tensor(b, id, "", op->args[i].name, t, &all, t->dtype, t->data);
        snprintf(recorded, sizeof recorded, "out.%s", op->args[i].name);
        if (op->args[i].direction != HM_IN) json_object_set_new(views, recorded, ideal_view(id, op->args[i].name, t));
    }
    json_array_append_new(b->trace_calls,
                          json_pack("{s:s, s:s, s:o, s:o}", "id", id, "op", op->name, "attrs", attrs, "views", views));
}

static void kind_text(const hm_call *call, char *text, size_t size) {
    size_t n = 0;
    for (int i = 0; i < call->op->nargs; i++)
        n += (size_t)snprintf(text + n, size - n, "%d ", (int)hm_arg_tensor(call->op, call->golden_args, i)->dtype);
    for (int i = 0; i < call->op->nparams; i++) {
        int mode = 0;
        if (call->op->params[i].type != HM_PARAM_MODE) continue;
        memcpy(&mode, (const char *)call->args + call->op->params[i].offset, sizeof mode);
        n += (size_t)snprintf(text + n, size - n, "%d ", mode);
    }
}

/* Does --make keep all of the call? */
static bool is_kept_whole(hm_golden_file *b, const hm_call *call) {
    char kind[12 * (HM_MAX_ARGS + HM_MAX_PARAMS)];
    int64_t inputs = 0, outputs = 0;
    for (int i = 0; i < call->op->nargs; i++) {
        const hm_tensor *t = hm_arg_tensor(call->op, call->golden_args, i);
        int64_t elements = t->dtype == HM_DTYPE_NONE ? 0 : hm_tensor_elements(t);
        if (call->op->args[i].direction != HM_IN && elements > outputs) outputs = elements;
        if (call->op->args[i].direction != HM_OUT) inputs += elements * (int64_t)hm_dtype_size(t->dtype);
    }
    kind_text(call, kind, sizeof kind);
    int times = json_object_get(b->kinds, kind) ? 1 : FIRST;
    if (outputs > times * WHOLE || inputs > times * INPUTS) return false;
    json_object_set_new(b->kinds, kind, json_true());
    return true;
}

void hm_golden_file_add_call(hm_golden_file *b, const char *id, const hm_call *call, json_t *entry,
                             const char *class_name, bool sampled, bool inputs) {
    const hm_op_info *op = call->op;
    hm_class class = hm_golden_class_of(op, class_name);
    hm_golden *golden;
    hm_status status = hm_golden_open(op, call->golden_args, b->threads, &golden);
    if (status != HM_OK) hm_die(HM_EXIT_INTERNAL, "golden for '%s': %s", call->name, hm_status_name(status));
    char hash[24];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)call->inputs_xxh3);
    json_object_set_new(entry, "id", json_string(id));
    json_object_set_new(entry, "op", json_string(op->name));
    json_object_set_new(entry, "class", json_string(hm_class_name(class)));
    json_object_set_new(entry, "inputs_xxh3", json_string(hash));
    bool points = true;
    for (int i = 0; i < op->nargs; i++) {
        selection s;
        if (op->args[i].direction == HM_IN || hm_arg_tensor(op, call->golden_args, i)->dtype == HM_DTYPE_NONE) continue;
        points &= add_output(b, id, golden, call, i, class, sampled, &s);
        if (s.kept == s.rows) continue;
        json_t *rows = json_array(), *all = json_object_get(entry, "rows");
        if (!all) json_object_set_new(entry, "rows", all = json_object());
        for (int64_t k = 0; k < s.kept; k++) json_array_append_new(rows, json_integer(selected(&s, k)));
        json_object_set_new(all, op->args[i].name, rows);
    }
    if (!points && hm_golden_observes(op)) json_object_set_new(entry, "hull", json_true());
    if (inputs) add_inputs(b, id, call);
    hm_golden_close(golden);
    json_array_append_new(b->golden_calls, entry);
}

/* ---- files ----------------------------------------------------------------------------------- */

hm_golden_file hm_golden_file_begin(void) {
    hm_golden_file b = {.writer = hm_trace_writer_new(),
                        .golden_calls = json_array(),
                        .trace_calls = json_array(),
                        .kinds = json_object()};
    if (!b.writer || !b.golden_calls || !b.trace_calls || !b.kinds) hm_die(HM_EXIT_INTERNAL, "out of memory");
    return b;
}

static void note_json(hm_golden_file *b, const char *key, json_t *value) {
    char *text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS);
    if (!text) hm_die(HM_EXIT_INTERNAL, "out of memory");
    hm_trace_writer_note(b->writer, key, text);
    free(text);
}

void *hm_golden_file_finish(hm_golden_file *b, size_t *bytes) {
    hm_trace_writer_note(b->writer, "hallmark.golden", "1");
    note_json(b, "hallmark.golden.calls", b->golden_calls);
    if (json_array_size(b->trace_calls)) {
        hm_trace_writer_note(b->writer, "hallmark.trace", "1");
        note_json(b, "hallmark.calls", b->trace_calls);
    }
    json_decref(b->golden_calls);
    json_decref(b->trace_calls);
    json_decref(b->kinds);
    void *file = hm_trace_writer_bytes(b->writer, bytes);
    if (!file) hm_die(HM_EXIT_INTERNAL, "out of memory");
    return file;
}

void hm_golden_file_save(hm_golden_file *b, const char *path) {
    char why[1024];
    size_t bytes, calls = json_array_size(b->golden_calls);
    void *file = hm_golden_file_finish(b, &bytes);
    if (hm_write_file(path, file, bytes, why, sizeof why) != HM_OK) hm_die(HM_EXIT_USAGE, "%s", why);
    free(file);
    printf("%s: %zu calls, %zu bytes\n", path, calls, bytes);
}

void hm_golden_file_add_case(hm_golden_file *b, const hm_case_spec *spec, const char *class_name, bool make,
                             bool inputs) {
    char why[512], id[32];
    hm_call *call;
    if (hm_call_from_case(spec, &call, why, sizeof why) != HM_OK)
        hm_die(HM_EXIT_INTERNAL, "the case '%s' cannot be set up: %s", spec->line, why);
    snprintf(id, sizeof id, "c%zu", json_array_size(b->golden_calls));
    bool whole = make && is_kept_whole(b, call);
    hm_golden_file_add_call(b, id, call, json_pack("{s:s}", "case", spec->line), class_name, make && !whole,
                            inputs || whole);
    hm_call_free(call);
}
