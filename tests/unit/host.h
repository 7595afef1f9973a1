/* host.h: what a test may need of the host. valgrind gives neither: there a long double is a double, and less address
 * space can be reserved. */
#ifndef HM_UNIT_HOST_H
#define HM_UNIT_HOST_H

#include <criterion/criterion.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>

/* Can as much address space be reserved as the widest cases span? */
static inline bool roomy(void) {
    size_t size = (size_t)1 << 43;
    void *at = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at != MAP_FAILED && munmap(at, size) == 0;
}

static inline void needs_room(void) {
    if (!roomy()) cr_skip_test("less than 8 TiB of address space can be reserved here");
}

static inline void needs_long_double(void) {
    volatile long double one = 1, sum = one + 0x1p-60L;
    if (sum == one) cr_skip_test("a long double is no longer than a double here");
}

#endif
