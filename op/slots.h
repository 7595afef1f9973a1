/* slots.h: slot mappings, as the writers of paged caches take them. */
#ifndef HM_OP_SLOTS_H
#define HM_OP_SLOTS_H

#include <hallmark/hallmark.h>

/* A slot mapping of rank 1 and dtype i64: each slot that is not negative is less than capacity, and none occurs twice.
 * On a device nothing is looked at: that would wait for it. */
hm_status hm_check_slots(const char *op, const hm_tensor *slots, int64_t capacity);
/* Slot of a token. */
int64_t hm_slot_at(const hm_tensor *slots, int64_t token);

#endif
