/* Eight threads ask one hm_rope_cache for three dtypes at once, each in another order: one conversion a dtype, one
 * memory for all, the master unchanged. A program of its own, since Criterion does not run under ThreadSanitizer; and
 * the table is too small for a team of OpenMP threads, whose barriers ThreadSanitizer does not see. */
#include <hallmark/rope_cache.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { ROWS = 60, WIDTH = 64, THREADS = 8, ROUNDS = 200 };

static const hm_dtype dtypes[] = {HM_F32, HM_BF16, HM_F16};

typedef struct {
    hm_rope_cache *cache;
    pthread_barrier_t *start;
    int first;
    hm_tensor view[3];
    float sum; /* of what was read: a conversion that others see half done is a race */
    hm_status status;
} asker;

static void *ask(void *context) {
    asker *a = context;
    pthread_barrier_wait(a->start);
    for (int k = 0; k < 3 && !a->status; k++) {
        int i = (a->first + k) % 3;
        a->status = hm_rope_cache_get(a->cache, dtypes[i], &a->view[i]);
        for (int e = 0; e < ROWS * WIDTH && !a->status; e++)
            a->sum += i ? (float)((const uint16_t *)a->view[i].data)[e] : ((const float *)a->view[i].data)[e];
    }
    return NULL;
}

int main(void) {
    static float want[ROWS * WIDTH];
    const int64_t shape[] = {ROWS, WIDTH};
    hm_rope_table_args table = *HM_ARGS(rope_table, .base = 10000, .out = hm_tensor_of(want, HM_F32, 2, shape));
    if (hm_rope_table(&table)) return puts(hm_error()), 1;
    table.out.data = NULL;
    int wrong = 0;
    for (int round = 0; round < ROUNDS; round++) {
        asker askers[THREADS];
        pthread_t thread[THREADS];
        pthread_barrier_t start;
        hm_rope_cache *cache;
        if (hm_rope_cache_create(&table, &cache)) return puts(hm_error()), 1;
        pthread_barrier_init(&start, NULL, THREADS);
        for (int t = 0; t < THREADS; t++) {
            askers[t] = (asker){.cache = cache, .start = &start, .first = t};
            if (pthread_create(&thread[t], NULL, ask, &askers[t])) return puts("no thread"), 1;
        }
        for (int t = 0; t < THREADS; t++) pthread_join(thread[t], NULL);
        for (int t = 0; t < THREADS; t++) {
            wrong += askers[t].status != HM_OK || askers[t].sum == 0;
            for (int i = 0; i < 3; i++)
                wrong += askers[t].view[i].data != askers[0].view[i].data || askers[t].view[i].dtype != dtypes[i];
        }
        for (int i = 0; i < 3; i++) wrong += hm_rope_cache_conversions(cache, dtypes[i]) != (i > 0);
        wrong += memcmp(askers[0].view[0].data, want, sizeof want) != 0;
        pthread_barrier_destroy(&start);
        hm_rope_cache_destroy(cache);
    }
    printf("%d rounds of %d threads and 3 dtypes: %d wrong\n", ROUNDS, THREADS, wrong);
    return wrong != 0;
}
