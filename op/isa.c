#include "isa.h"

#include <stdatomic.h>
#include <string.h>

#include "check.h"

#if defined(__x86_64__)
static const char *const names[] = {"sse2", "avx2", "avx512"};

static hm_isa_level best(void) {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return HM_ISA_AVX512;
    return __builtin_cpu_supports("avx2") ? HM_ISA_AVX2 : HM_ISA_BASE;
}
#else
static const char *const names[] = {"base"};
static hm_isa_level best(void) { return HM_ISA_BASE; }
#endif

static atomic_int level = -1; /* not looked at yet */

hm_isa_level hm_isa_now(void) {
    int now = atomic_load_explicit(&level, memory_order_relaxed);
    if (now < 0) {
        now = best();
        atomic_store_explicit(&level, now, memory_order_relaxed);
    }
    return (hm_isa_level)now;
}

const char *hm_isa(void) { return names[hm_isa_now()]; }

hm_status hm_isa_limit(const char *name) {
    for (int i = 0; name && i < (int)(sizeof names / sizeof *names); i++) {
        if (strcmp(name, names[i])) continue;
        if (i > (int)best())
            return hm_fail(HM_UNSUPPORTED, "isa: this CPU has no %s; its best is %s", name, names[best()]);
        atomic_store(&level, i);
        return HM_OK;
    }
    return hm_fail(HM_BAD_PARAM, "isa: \"%s\" is unknown; it has to be %s", name ? name : "(null)",
                   sizeof names / sizeof *names > 1 ? "sse2, avx2 or avx512" : "base");
}
