/* batch.c: memory, block tables, and the way to an op: the table of functions between the observers. */
#include "batch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- ops --------------------------------------------------------------------------------------------------------- */

static const char *const op_names[HM_MODEL_OPS] = {
#define OP_NAME(op) [HM_MODEL_##op] = #op,
    HM_MODEL_OP_LIST(OP_NAME)
#undef OP_NAME
};

const hm_op_info *hm_model_op_info(hm_model_op op) {
    return (unsigned)op < HM_MODEL_OPS ? hm_op_named(op_names[op]) : NULL;
}

int hm_model_op_named(const char *name) {
    for (int op = 0; op < HM_MODEL_OPS; op++)
        if (!strcmp(op_names[op], name)) return op;
    return -1;
}

void hm_model_call_name(const hm_model_call *call, char *name, size_t size) {
    char layer[32] = "", head[32] = "";
    if (call->layer >= 0) snprintf(layer, sizeof layer, "l%lld.", (long long)call->layer);
    if (call->head >= 0) snprintf(head, sizeof head, ".h%lld", (long long)call->head);
    if (call->step < 0) snprintf(name, size, "%s", call->site);
    else
        snprintf(name, size, "%c%lld.%s%s%s", call->decode ? 'd' : 'p', (long long)call->step, layer, call->site, head);
}

static hm_status call_own(const hm_model_call *call, const void *args, char *why, size_t size) {
    hm_status status = call->op->run(args);
    snprintf(why, size, "%s", status ? hm_error() : "");
    return status;
}

void hm_model_call_op(hm_model_batch *b, hm_model_op op, const char *site, int64_t head, const void *args) {
    const hm_model_function *function = &b->options.table.of[op];
    const hm_model_observer *observer = &b->options.observer;
    char sentence[256] = "", name[64], layer[32] = "";
    if (b->status) return;
    b->call.op = hm_model_op_info(op), b->call.index = op, b->call.site = site, b->call.head = head;
    if (observer->before) observer->before(observer->with, &b->call, args);
    b->status = function->run ? function->run(function->with, &b->call, args, sentence, sizeof sentence)
                              : call_own(&b->call, args, sentence, sizeof sentence);
    if (observer->after) observer->after(observer->with, &b->call, args, b->status);
    if (!b->status) return;
    hm_model_call_name(&b->call, name, sizeof name);
    if (b->call.layer >= 0) snprintf(layer, sizeof layer, "layer %lld, ", (long long)b->call.layer);
    snprintf(b->why, b->why_size, "%s%s (%s): %s%s%s", layer, b->call.op->name, name, hm_status_name(b->status),
             *sentence ? ": " : "", sentence);
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static hm_tensor shape(hm_dtype dtype, int64_t a, int64_t b, int64_t c, int64_t d) {
    const int64_t extents[] = {a, b, c, d};
    return hm_tensor_of(NULL, dtype, d ? 4 : c ? 3 : b ? 2 : 1, extents);
}

/* The shapes of all that a batch needs. */
static void plan(hm_model_batch *b) {
    const hm_model_sizes *z = &b->model->sizes;
    int64_t rows = b->rows, requests = b->options.requests, all_blocks = requests * b->blocks;
    int64_t groups = (z->index_dim + 127) / 128, wide = b->options.length > rows ? b->options.length : rows;
    b->rope = shape(HM_F32, b->options.positions, z->rope, 0, 0);
    b->mla = shape(HM_BF16, z->layers, all_blocks, b->options.block_size, z->kv_latent + z->rope);
    b->index_keys = shape(HM_U8, z->layers, all_blocks, b->options.block_size, z->index_dim + 4 * groups);
    b->in = (hm_model_inputs){
        .ids = shape(HM_I32, rows, 0, 0, 0),
        .positions = shape(HM_I64, rows, 0, 0, 0),
        .slots = shape(HM_I64, rows, 0, 0, 0),
        .request = shape(HM_I32, rows, 0, 0, 0),
        .first = shape(HM_I32, rows, 0, 0, 0),
        .last = shape(HM_I32, rows, 0, 0, 0),
        .length = shape(HM_I32, rows, 0, 0, 0),
        .cumulative = shape(HM_I32, requests + 1, 0, 0, 0),
        .block_table = shape(HM_I32, requests, b->blocks, 0, 0),
    };
    b->scratch = (hm_model_scratch){
        .x = shape(HM_BF16, rows, z->hidden, 0, 0),
        .residual = shape(HM_BF16, rows, z->hidden, 0, 0),
        .latent = shape(HM_BF16, rows, z->q_latent, 0, 0),
        .q = shape(HM_BF16, rows, z->heads, z->nope + z->rope, 0),
        .ql_nope = shape(HM_BF16, rows, z->heads, z->kv_latent, 0),
        .q_out = shape(HM_BF16, rows, z->heads, z->kv_latent + z->rope, 0),
        .kv = shape(HM_BF16, rows, z->kv_latent + z->rope, 0, 0),
        .kv_c = shape(HM_BF16, rows, z->kv_latent, 0, 0),
        .index_q = shape(HM_BF16, rows, z->index_heads, z->index_dim, 0),
        .index_k = shape(HM_BF16, rows, 1, z->index_dim, 0),
        .codes = shape(HM_F8E4M3, rows, z->index_heads, z->index_dim, 0),
        .scale = shape(HM_F32, rows, z->index_heads, groups, 0),
        .head_weights = shape(HM_BF16, rows, z->index_heads, 0, 0),
        .weights = shape(HM_F32, rows, z->index_heads, 0, 0),
        .key_codes = shape(HM_F8E4M3, rows, z->index_dim, 0, 0),
        .key_scale = shape(HM_F32, rows, groups, 0, 0),
        .index_logits = shape(HM_F32, rows, wide, 0, 0),
        .indices = shape(HM_I32, rows, b->options.top_k, 0, 0),
        .selected = shape(HM_I32, rows, b->options.top_k, 0, 0),
        .attended = shape(HM_BF16, rows, z->heads, z->kv_latent, 0),
        .values = shape(HM_BF16, rows, z->heads, z->value, 0),
        .gate_up = shape(HM_BF16, rows, 2 * z->mlp, 0, 0),
        .gated = shape(HM_BF16, rows, z->mlp, 0, 0),
        .logits = shape(HM_F32, rows, z->vocab, 0, 0),
    };
}

/* Gives count tensors places in b->memory, or, while that is NULL, counts the bytes: each at a multiple of 64, with as
 * many bytes again behind it. */
static void place(hm_model_batch *b, hm_tensor *t, size_t count, size_t *at) {
    for (size_t i = 0; i < count; i++) {
        size_t bytes = (size_t)hm_tensor_elements(&t[i]) * hm_dtype_size(t[i].dtype);
        if (b->memory) t[i].data = b->memory + *at;
        *at += (2 * bytes + 63) / 64 * 64;
    }
}

static size_t place_all(hm_model_batch *b) {
    size_t at = 0;
    place(b, &b->rope, 1, &at);
    place(b, &b->mla, 1, &at);
    place(b, &b->index_keys, 1, &at);
    place(b, (hm_tensor *)&b->in, sizeof b->in / sizeof(hm_tensor), &at);
    place(b, (hm_tensor *)&b->scratch, sizeof b->scratch / sizeof(hm_tensor), &at);
    return at;
}

static void clear(hm_tensor *t, size_t count) {
    for (size_t i = 0; i < count; i++)
        memset(t[i].data, 0, (size_t)hm_tensor_elements(&t[i]) * hm_dtype_size(t[i].dtype));
}

void hm_model_batch_clear(hm_model_batch *b) {
    clear(&b->mla, 1);
    clear(&b->index_keys, 1);
    clear((hm_tensor *)&b->in, sizeof b->in / sizeof(hm_tensor));
    clear((hm_tensor *)&b->scratch, sizeof b->scratch / sizeof(hm_tensor));
}

static int64_t common_divisor(int64_t a, int64_t b) {
    while (b) {
        int64_t rest = a % b;
        a = b, b = rest;
    }
    return a;
}

/* Blocks are dealt out in steps of about 0.618 of all of them, so that no two of a request are neighbours. */
int64_t hm_model_block(const hm_model_batch *b, int64_t place, int64_t i) {
    int64_t all = b->options.requests * b->blocks;
    return ((place * b->blocks + i) * b->stride + all / 3) % all;
}

int64_t hm_model_slot(const hm_model_batch *b, int64_t place, int64_t at) {
    int64_t size = b->options.block_size;
    return hm_model_block(b, place, at / size) * size + at % size;
}

/* ---- a batch ----------------------------------------------------------------------------------------------------- */

static bool fill_options(hm_model_batch *b, char *why, size_t size) {
    hm_model_options *o = &b->options;
    const struct {
        const char *name;
        int64_t fallback, largest, *value;
    } each[] = {
        {"requests", 64, 1 << 16, &o->requests},
        {"length", 192, b->model->sizes.max_position, &o->length},
        {"block_size", 64, 1 << 16, &o->block_size},
        {"chunk", 512, 1 << 16, &o->chunk},
        {"top_k", b->model->sizes.top_k, 1 << 16, &o->top_k},
        {"positions", b->model->sizes.max_position, b->model->sizes.max_position, &o->positions},
    };
    for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
        if (*each[i].value == 0) *each[i].value = each[i].fallback;
        if (*each[i].value >= 1 && *each[i].value <= each[i].largest) continue;
        snprintf(why, size, "%s is %lld; it has to be 1 to %lld, or 0 for %lld", each[i].name,
                 (long long)*each[i].value, (long long)each[i].largest, (long long)each[i].fallback);
        return false;
    }
    b->blocks = (o->length + o->block_size - 1) / o->block_size;
    if (o->requests * b->blocks * o->block_size <= INT32_MAX) return true;
    snprintf(why, size, "%lld requests of %lld tokens in blocks of %lld are 2^31 slots or more", (long long)o->requests,
             (long long)o->length, (long long)o->block_size);
    return false;
}

hm_model_batch *hm_model_batch_new(const hm_model *model, const hm_model_options *options, char *why, size_t size) {
    hm_model_batch *b = calloc(1, sizeof *b);
    if (!b) {
        snprintf(why, size, "no memory for a batch");
        return NULL;
    }
    b->model = model, b->options = *options;
    if (!fill_options(b, why, size)) {
        free(b);
        return NULL;
    }
    int64_t all = b->options.requests * b->blocks;
    for (b->stride = all * 618 / 1000 + 1; common_divisor(b->stride, all) != 1;) b->stride++;
    b->rows = b->options.length; /* a prompt is read at once */
    if (b->rows < b->options.chunk) b->rows = b->options.chunk;
    if (b->rows < b->options.requests) b->rows = b->options.requests;
    plan(b);
    size_t bytes = place_all(b);
    if (!(b->memory = aligned_alloc(64, bytes))) {
        snprintf(why, size, "no memory for a batch of %lld requests: %zu bytes", (long long)b->options.requests, bytes);
        free(b);
        return NULL;
    }
    place_all(b);
    b->why = why, b->why_size = size;
    hm_model_make_rope(b);
    if (!b->status) return b;
    hm_model_batch_free(b);
    return NULL;
}

void hm_model_batch_free(hm_model_batch *b) {
    if (!b) return;
    free(b->memory);
    free(b);
}
