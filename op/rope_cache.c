#include <hallmark/rope_cache.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "check.h"
#include "dtype.h"

static const char op[] = "rope_cache";

enum { HALF = 0, BFLOAT, KINDS };

struct hm_rope_cache {
    int64_t rows, width;
    float *master;               /* [rows, width]; written by create alone */
    _Atomic(void *) copy[KINDS]; /* NULL: nobody has asked yet; set once, under the lock */
    atomic_int conversions[KINDS];
    pthread_mutex_t lock;
};

static int kind_of(hm_dtype dtype) { return dtype == HM_F16 ? HALF : dtype == HM_BF16 ? BFLOAT : -1; }

hm_status hm_rope_cache_create(const hm_rope_table_args *table, hm_rope_cache **cache) {
    hm_rope_table_args a;
    hm_status s;
    if (!cache) return hm_fail(HM_BAD_ARG, "%s: cache is NULL; it has to point to where the cache goes", op);
    *cache = NULL;
    if ((s = hm_read_args("rope_table", table, &a, sizeof a))) return s;
    if (a.out.dtype != HM_F32)
        return hm_fail(HM_BAD_DTYPE, "%s: table->out is %s; the master has to be f32", op, hm_dtype_name(a.out.dtype));
    if (a.out.data)
        return hm_fail(HM_BAD_ARG, "%s: table->out has data at %p; it has to be NULL, the cache owns its memory", op,
                       a.out.data);
    /* A shape that is out of range is refused by the table's own check, which needs some address. */
    bool sane = a.out.ndim == 2 && a.out.shape[0] >= 0 && a.out.shape[0] <= 1 << 24 && a.out.shape[1] > 0 &&
                a.out.shape[1] <= 65536;
    int64_t elements = sane ? a.out.shape[0] * a.out.shape[1] : 1;
    hm_rope_cache *c = calloc(1, sizeof *c);
    float *master = malloc((size_t)(elements + !elements) * sizeof *master);
    if (!c || !master) {
        free(master);
        free(c);
        return hm_fail(HM_NO_MEMORY, "%s: no memory for a table of %lld elements", op, (long long)elements);
    }
    a.out.data = master;
    if (sane) a.out.stride[0] = a.out.shape[1], a.out.stride[1] = 1;
    if ((s = hm_rope_table(&a))) {
        free(master);
        free(c);
        return s;
    }
    c->rows = a.out.shape[0], c->width = a.out.shape[1], c->master = master;
    pthread_mutex_init(&c->lock, NULL);
    *cache = c;
    return HM_OK;
}

void hm_rope_cache_destroy(hm_rope_cache *cache) {
    if (!cache) return;
    for (int k = 0; k < KINDS; k++) free(atomic_load(&cache->copy[k]));
    free(cache->master);
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

/* Chunk by chunk: no second copy in binary64. */
static void convert(const hm_rope_cache *c, hm_dtype dtype, char *to) {
    enum { CHUNK = 4096 };
    double v[CHUNK];
    int64_t n = c->rows * c->width, size = (int64_t)hm_dtype_size(dtype);
    for (int64_t i = 0; i < n; i += CHUNK) {
        int64_t m = n - i < CHUNK ? n - i : CHUNK;
        hm_load_row(HM_F32, c->master + i, 1, m, v);
        hm_store_row(dtype, to + i * size, 1, m, v);
    }
}

hm_status hm_rope_cache_get(hm_rope_cache *cache, hm_dtype dtype, hm_tensor *view) {
    int kind = kind_of(dtype);
    if (!cache || !view) return hm_fail(HM_BAD_ARG, "%s: %s is NULL", op, cache ? "view" : "cache");
    if (kind < 0 && dtype != HM_F32)
        return hm_fail(HM_BAD_DTYPE, "%s: dtype is %s; it has to be f32, f16 or bf16", op, hm_dtype_name(dtype));
    void *data = kind < 0 ? cache->master : atomic_load_explicit(&cache->copy[kind], memory_order_acquire);
    if (!data) {
        pthread_mutex_lock(&cache->lock);
        data = atomic_load_explicit(&cache->copy[kind], memory_order_relaxed); /* somebody else may have been first */
        if (!data && (data = malloc((size_t)(cache->rows * cache->width + 1) * hm_dtype_size(dtype)))) {
            convert(cache, dtype, data);
            atomic_fetch_add(&cache->conversions[kind], 1);
            atomic_store_explicit(&cache->copy[kind], data, memory_order_release);
        }
        pthread_mutex_unlock(&cache->lock);
        if (!data) return hm_fail(HM_NO_MEMORY, "%s: no memory for the table in %s", op, hm_dtype_name(dtype));
    }
    *view = hm_tensor_of(data, dtype, 2, (const int64_t[]){cache->rows, cache->width});
    return HM_OK;
}

int hm_rope_cache_conversions(const hm_rope_cache *cache, hm_dtype dtype) {
    int kind = kind_of(dtype);
    return !cache || kind < 0 ? 0 : atomic_load(&cache->conversions[kind]);
}
