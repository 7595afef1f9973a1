/* top_k_per_row: the k-th largest key is found digit by digit, from the top (four counts of 8 bits, no sorting of the
 * row); then the larger ones and the first of the equal ones are collected and sorted. Any distribution takes the same
 * time. */
#include "../op/top_k_per_row.h"

#include <omp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "../op/check.h"

/* Order of the logits as unsigned numbers: -0 and +0 are one, NaN is above all. */
static uint32_t key_of(const char *logit) {
    uint32_t bits;
    memcpy(&bits, logit, sizeof bits);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return UINT32_MAX;
    if (bits == 0x80000000u) bits = 0;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* Largest first, and equal keys by ascending index, when sorted downward. */
static uint64_t ranked(uint32_t key, int64_t index) { return (uint64_t)key << 32 | (UINT32_MAX - (uint32_t)index); }

static int downward(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

static void put(const hm_tensor *t, int64_t row, int64_t i, int64_t index) {
    int32_t value = (int32_t)index;
    memcpy((char *)t->data + (row * t->stride[0] + i * t->stride[1]) * 4, &value, sizeof value);
}

static void select_row(const hm_top_k_per_row_args *a, int64_t row, uint64_t *chosen) {
    const hm_tensor *logits = &a->logits;
    hm_window_of_row w = hm_top_k_window(a, row);
    int64_t k = a->indices.shape[1], step = logits->stride[1] * 4;
    if (w.n <= k) {
        for (int64_t i = 0; i < k; i++) put(&a->indices, row, i, i < w.n ? i : -1);
        return;
    }
    const char *first = (const char *)logits->data + row * logits->stride[0] * 4 + w.start * step;
    uint32_t prefix = 0, known = 0; /* the k-th largest key as far as it is known, and which bits that are */
    int64_t wanted = k;             /* its rank among the keys with this prefix */
    for (int shift = 24; shift >= 0; shift -= 8) {
        int64_t count[256] = {0};
        for (int64_t i = 0; i < w.n; i++) {
            uint32_t key = key_of(first + i * step);
            count[key >> shift & 255] += (key & known) == prefix;
        }
        int digit = 255;
        while (count[digit] < wanted) wanted -= count[digit--];
        prefix |= (uint32_t)digit << shift, known |= 255u << shift;
    }
    int64_t n = 0;
    for (int64_t i = 0; i < w.n && n < k; i++) {
        uint32_t key = key_of(first + i * step);
        bool tied = key == prefix;
        if (key > prefix || (tied && wanted > 0)) chosen[n++] = ranked(key, i), wanted -= tied;
    }
    qsort(chosen, (size_t)k, sizeof *chosen, downward);
    for (int64_t i = 0; i < k; i++) put(&a->indices, row, i, UINT32_MAX - (uint32_t)chosen[i]);
}

hm_status hm_top_k_per_row_ref(const hm_top_k_per_row_args *args) {
    hm_top_k_per_row_args a;
    hm_status s = hm_top_k_per_row_read(args, &a);
    if (s) return s;
    if (a.logits.place != HM_HOST) return hm_fail(HM_UNSUPPORTED, "top_k_per_row: ref works on host tensors only");
    int64_t rows = a.logits.shape[0], k = a.indices.shape[1], columns = a.logits.shape[1];
    if (rows == 0 || k == 0) return HM_OK;
    int threads = rows * columns > 16384 ? omp_get_max_threads() : 1;
    if (threads > rows) threads = (int)rows;
    size_t each = (size_t)(k < columns ? k : columns); /* a row chooses only where its window is longer than k */
    uint64_t *chosen = malloc(((size_t)threads * each + 1) * sizeof *chosen);
    if (!chosen) return hm_fail(HM_NO_MEMORY, "top_k_per_row: no memory to choose %lld indices", (long long)k);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int64_t row = 0; row < rows; row++) select_row(&a, row, chosen + (size_t)omp_get_thread_num() * each);
    free(chosen);
    return HM_OK;
}
