/* emulated.h: a device made of host memory. Addresses that have no memory behind them fault, as on a real one. */
#ifndef EMULATED_H
#define EMULATED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "certify/worker.h"

#define APART ((size_t)2 << 20)

static hm_status emulated_open(char *about, size_t size) {
    snprintf(about, size, "emulated");
    return HM_OK;
}

static bool emulated_make(hm_device_buffer *b, size_t size, const hm_extent *extents, int count) {
    char *whole = mmap(NULL, size + 2 * APART, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (whole == MAP_FAILED) return false;
    *b = (hm_device_buffer){.base = whole + APART, .size = size, .state = whole};
    for (int i = 0; i < count; i++)
        if (mprotect(b->base + extents[i].from, (size_t)(extents[i].to - extents[i].from), PROT_READ | PROT_WRITE))
            return false;
    return true;
}

static void emulated_free(hm_device_buffer *b) { munmap(b->state, b->size + 2 * APART); }

static bool emulated_copy(void *to, const void *from, size_t bytes) { return memcpy(to, from, bytes) != NULL; }

static bool emulated_finish(char *why, size_t size) {
    if (!getenv("EMULATED_FAILURE")) return true;
    snprintf(why, size, "emulated: an illegal memory access was encountered");
    return false;
}

static const hm_device emulated = {.open = emulated_open,
                                   .make = emulated_make,
                                   .free = emulated_free,
                                   .to_device = emulated_copy,
                                   .to_host = emulated_copy,
                                   .finish = emulated_finish};

#endif
