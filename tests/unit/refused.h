/* refused.h: an op that refuses a call, as every op has to. */
#ifndef HM_UNIT_REFUSED_H
#define HM_UNIT_REFUSED_H

#include <criterion/criterion.h>
#include <hallmark/op.h>
#include <string.h>
#include <sys/mman.h>

enum { CANARY = 0x3C };

/* check, the op and ref refuse with this status, in a sentence that names the op, the argument and the value; none of
 * the bytes of the output, which all are CANARY, is written. */
static inline void refused(const char *op, const void *args, const void *output, size_t bytes, hm_status status,
                           const char *name, const char *value, int line) {
    const hm_op_info *info = hm_op_named(op);
    hm_op_fn *entry[] = {info->check, info->run, info->ref};
    for (int i = 0; i < 3; i++) {
        hm_status got = entry[i](args);
        cr_assert_eq(got, status, "line %d: %s, not %s (%s)", line, hm_status_name(got), hm_status_name(status),
                     hm_error());
        cr_assert_eq(strncmp(hm_error(), op, strlen(op)), 0, "line %d: %s", line, hm_error());
        cr_assert(strstr(hm_error(), name) && strstr(hm_error(), value), "line %d: %s", line, hm_error());
        for (size_t b = 0; b < bytes; b++)
            cr_assert_eq(((const unsigned char *)output)[b], CANARY, "line %d: byte %zu was written", line, b);
    }
}

/* Addresses without memory behind them; pages come where they are touched. */
static inline void *reserve(int64_t bytes) {
    void *p = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) cr_skip("%lld bytes of addresses are not to be had here", (long long)bytes);
    return p;
}

#endif
