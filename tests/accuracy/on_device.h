/* on_device.h: for the programs that compare bits on a device. */
#ifndef HM_TESTS_ON_DEVICE_H
#define HM_TESTS_ON_DEVICE_H

#include <cuda_runtime_api.h>
#include <hallmark/cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline void need(int ok, const char *what) {
    if (ok) return;
    fprintf(stderr, "not ok: %s: %s\n", what, hm_error());
    exit(1);
}

/* splitmix64 */
static inline uint64_t bits(void) {
    static uint64_t state = 1;
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

#endif
