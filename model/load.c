/* load.c: a model file; every name, dtype, shape and number of it is checked. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "weights.h"

/* ---- sizes: the file's metadata ---------------------------------------------------------------------------------- */

static bool read_size(const hm_safetensors *file, const char *key, int64_t largest, int64_t *to, char *why,
                      size_t size) {
    const char *text = hm_safetensors_note(file, key);
    char *end;
    errno = 0;
    long long value = text ? strtoll(text, &end, 10) : 0;
    if (!text || errno || end == text || *end || value < 1 || value > largest) {
        hm_safetensors_refuse(hm_safetensors_name(file), why, size,
                              "__metadata__ has %s%.40s%s for \"%s\"; it has to be an integer from 1 to %lld",
                              text ? "\"" : "", text ? text : "nothing", text ? "\"" : "", key, (long long)largest);
        return false;
    }
    *to = value;
    return true;
}

static bool read_sizes(const hm_safetensors *file, hm_model_sizes *z, char *why, size_t size) {
    const struct {
        const char *key;
        int64_t largest, *to;
    } each[] = {
        {"vocab", 1 << 20, &z->vocab},
        {"hidden", 1 << 16, &z->hidden},
        {"layers", 1 << 10, &z->layers},
        {"heads", 1 << 10, &z->heads},
        {"q_latent", 1 << 16, &z->q_latent},
        {"kv_latent", 1 << 16, &z->kv_latent},
        {"rope", 1 << 12, &z->rope},
        {"nope", 1 << 12, &z->nope},
        {"value", 1 << 12, &z->value},
        {"index_heads", 1 << 10, &z->index_heads},
        {"index_dim", 1 << 12, &z->index_dim},
        {"mlp", 1 << 20, &z->mlp},
        {"rope_base", INT64_C(1) << 40, &z->rope_base},
        {"max_position", 1 << 20, &z->max_position},
        {"top_k", 1 << 20, &z->top_k},
    };
    for (size_t i = 0; i < sizeof each / sizeof *each; i++)
        if (!read_size(file, each[i].key, each[i].largest, each[i].to, why, size)) return false;
    const char *text = hm_safetensors_note(file, "eps");
    char *end;
    z->eps = text ? strtod(text, &end) : NAN;
    if (text && end != text && !*end && z->eps > 0 && z->eps < 1) return true;
    hm_safetensors_refuse(hm_safetensors_name(file), why, size,
                          "__metadata__ has no \"eps\" above 0 and below 1, written as a number");
    return false;
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

typedef struct {
    hm_model *model;
    int64_t layer, taken; /* layer -1: outside the layers */
    bool failed;
    char *why;
    size_t size;
} reader;

/* The tensor called name, in layer r->layer if that is not -1. Extents of 0 at the end are none. */
static hm_tensor take(reader *r, const char *name, hm_dtype dtype, int64_t a, int64_t b, int64_t c) {
    const int64_t want[] = {a, b, c};
    int ndim = c ? 3 : b ? 2 : 1;
    char full[64];
    if (r->failed) return (hm_tensor){0};
    if (r->layer < 0) snprintf(full, sizeof full, "%s", name);
    else snprintf(full, sizeof full, "layers.%lld.%s", (long long)r->layer, name);
    hm_safetensors_tensor *t = hm_safetensors_find(r->model->file, full);
    const char *file = hm_safetensors_name(r->model->file);
    r->failed = true;
    if (!t) {
        hm_safetensors_refuse(file, r->why, r->size, "there is no tensor \"%s\"", full);
        return (hm_tensor){0};
    }
    if (t->dtype != dtype) {
        hm_safetensors_refuse(file, r->why, r->size, "%s is %s; it has to be %s", full, t->type,
                              hm_safetensors_type(dtype));
        return (hm_tensor){0};
    }
    bool fits = t->ndim == ndim;
    for (int d = 0; fits && d < ndim; d++) fits = t->shape[d] == want[d];
    if (!fits) {
        char shape[2][96] = {"", ""};
        for (int d = 0; d < 3; d++) {
            size_t n = strlen(shape[0]), m = strlen(shape[1]);
            if (d < t->ndim) snprintf(shape[0] + n, 96 - n, "%s%lld", d ? ", " : "", (long long)t->shape[d]);
            if (d < ndim) snprintf(shape[1] + m, 96 - m, "%s%lld", d ? ", " : "", (long long)want[d]);
        }
        hm_safetensors_refuse(file, r->why, r->size, "%s is [%s%s]; by the sizes in __metadata__ it has to be [%s]",
                              full, shape[0], t->ndim > 3 ? ", .." : "", shape[1]);
        return (hm_tensor){0};
    }
    const unsigned char *data = hm_safetensors_aligned(t);
    if (!data) {
        hm_safetensors_refuse(file, r->why, r->size, "no memory for %s", full);
        return (hm_tensor){0};
    }
    r->failed = false;
    r->taken++;
    return hm_tensor_of((void *)data, dtype, ndim, want);
}

static void read_layer(reader *r, hm_model_layer *l) {
    const hm_model_sizes *z = &r->model->sizes;
    l->attn_norm = take(r, "attn_norm.weight", HM_BF16, z->hidden, 0, 0);
    l->q_a = take(r, "attn.q_a.weight", HM_BF16, z->q_latent, z->hidden, 0);
    l->q_norm = take(r, "attn.q_norm.weight", HM_BF16, z->q_latent, 0, 0);
    l->q_b = take(r, "attn.q_b.weight", HM_BF16, z->heads * (z->nope + z->rope), z->q_latent, 0);
    l->kv_a = take(r, "attn.kv_a.weight", HM_BF16, z->kv_latent + z->rope, z->hidden, 0);
    l->kv_norm = take(r, "attn.kv_norm.weight", HM_BF16, z->kv_latent, 0, 0);
    l->w_uk = take(r, "attn.w_uk.weight", HM_BF16, z->heads, z->kv_latent, z->nope);
    l->w_uv = take(r, "attn.w_uv.weight", HM_BF16, z->heads, z->value, z->kv_latent);
    l->o = take(r, "attn.o.weight", HM_BF16, z->hidden, z->heads * z->value, 0);
    l->index_q = take(r, "indexer.q.weight", HM_BF16, z->index_heads * z->index_dim, z->q_latent, 0);
    l->index_k = take(r, "indexer.k.weight", HM_BF16, z->index_dim, z->hidden, 0);
    l->index_weights = take(r, "indexer.weights.weight", HM_BF16, z->index_heads, z->hidden, 0);
    l->index_norm = take(r, "indexer.k_norm.weight", HM_F32, z->index_dim, 0, 0);
    l->index_bias = take(r, "indexer.k_norm.bias", HM_F32, z->index_dim, 0, 0);
    l->mlp_norm = take(r, "mlp_norm.weight", HM_BF16, z->hidden, 0, 0);
    l->gate_up = take(r, "mlp.gate_up.weight", HM_BF16, 2 * z->mlp, z->hidden, 0);
    l->down = take(r, "mlp.down.weight", HM_BF16, z->hidden, z->mlp, 0);
}

static bool read_tensors(hm_model *model, char *why, size_t size) {
    const hm_model_sizes *z = &model->sizes;
    reader r = {.model = model, .layer = -1, .why = why, .size = size};
    model->embedding = take(&r, "embedding.weight", HM_BF16, z->vocab, z->hidden, 0);
    model->final_norm = take(&r, "final_norm.weight", HM_BF16, z->hidden, 0, 0);
    model->head = take(&r, "head.weight", HM_BF16, z->vocab, z->hidden, 0);
    for (r.layer = 0; r.layer < z->layers; r.layer++) read_layer(&r, &model->layers[r.layer]);
    if (!r.failed && r.taken != hm_safetensors_count(model->file)) {
        hm_safetensors_refuse(hm_safetensors_name(model->file), why, size,
                              "the file has %lld tensors; a model of %lld layers has %lld",
                              (long long)hm_safetensors_count(model->file), (long long)z->layers, (long long)r.taken);
        return false;
    }
    return !r.failed;
}

hm_model *hm_model_open(const char *path, char *why, size_t size) {
    hm_model *model = calloc(1, sizeof *model);
    if (!model) {
        snprintf(why, size, "no memory for a model");
        return NULL;
    }
    bool fine = (model->file = hm_safetensors_open(path, why, size)) != NULL &&
                read_sizes(model->file, &model->sizes, why, size);
    if (fine && !(model->layers = calloc((size_t)model->sizes.layers, sizeof *model->layers))) {
        snprintf(why, size, "no memory for %lld layers", (long long)model->sizes.layers);
        fine = false;
    }
    if (fine && read_tensors(model, why, size)) return model;
    hm_model_close(model);
    return NULL;
}

void hm_model_close(hm_model *model) {
    if (!model) return;
    hm_safetensors_close(model->file);
    free(model->layers);
    free(model);
}

const hm_model_sizes *hm_model_sizes_of(const hm_model *model) { return &model->sizes; }
