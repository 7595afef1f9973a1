#include "slots.h"

#include <stdlib.h>

#include "check.h"
#include "indexer_cache.h"

int64_t hm_slot_at(const hm_tensor *slots, int64_t token) { return hm_integer_at(slots, token); }

static int ascending(const void *x, const void *y) {
    int64_t a = *(const int64_t *)x, b = *(const int64_t *)y;
    return (a > b) - (a < b);
}

/* A slot that occurs twice, among those that are not negative. */
static hm_status check_distinct(const char *op, const hm_tensor *slots) {
    int64_t tokens = slots->shape[0], count = 0, i = 1;
    int64_t *sorted = malloc((size_t)tokens * sizeof *sorted);
    if (!sorted) return hm_fail(HM_NO_MEMORY, "%s: no memory to compare %lld slots", op, (long long)tokens);
    for (int64_t t = 0; t < tokens; t++) {
        int64_t slot = hm_slot_at(slots, t);
        if (slot >= 0) sorted[count++] = slot;
    }
    qsort(sorted, (size_t)count, sizeof *sorted, ascending);
    while (i < count && sorted[i] != sorted[i - 1]) i++;
    int64_t twice = i < count ? sorted[i] : -1;
    free(sorted);
    return twice < 0 ? HM_OK
                     : hm_fail(HM_BAD_VALUE, "%s: slot_mapping holds %lld twice; a slot has room for one token", op,
                               (long long)twice);
}

hm_status hm_check_slots(const char *op, const hm_tensor *slots, int64_t capacity) {
    int64_t before = -1;
    bool ascend = true; /* as they mostly do: then they are distinct */
    if (slots->place != HM_HOST) return HM_OK;
    for (int64_t t = 0; t < slots->shape[0]; t++) {
        int64_t slot = hm_slot_at(slots, t);
        if (slot >= capacity)
            return hm_fail(HM_BAD_VALUE,
                           "%s: slot_mapping holds %lld for token %lld; it has to be less than the %lld slots of "
                           "kv_cache",
                           op, (long long)slot, (long long)t, (long long)capacity);
        if (slot < 0) continue;
        ascend &= slot > before, before = slot;
    }
    return ascend ? HM_OK : check_distinct(op, slots);
}
