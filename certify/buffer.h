/* buffer.h: the memory of a call, which a plug-in's process can be given. */
#ifndef HM_BUFFER_H
#define HM_BUFFER_H

#include <hallmark/op.h>
#include <stdbool.h>

/* One allocation. Arguments that alias share one. Layout: guard zone, slack, extent, guard zone. The guard zones are
 * whole pages, so that a worker may leave them unmapped; the extent starts at a multiple of 64 bytes and ends less than
 * 64 bytes before the second guard zone, so that an overrun hits it at once. Everything that is no element holds a
 * canary pattern. */
typedef struct {
    int fd;                     /* memfd behind it, shared with a plug-in's worker */
    bool shared;                /* that has happened */
    unsigned char *base;        /* start of the first guard zone */
    size_t size;                /* guards included; multiple of the page size */
    size_t offset[HM_MAX_ARGS]; /* of argument i's element 0 from base, where buffer_of[i] is this buffer */
} hm_buffer;

/* What it holds is unspecified. false: no memory, and *b is closed. */
bool hm_buffer_open(hm_buffer *b, size_t size);
void hm_buffer_close(hm_buffer *b); /* also one that is closed: base NULL, fd -1 */
/* Some that were closed are kept for the next calls; this lets go of them. */
void hm_buffers_release(void);

#endif
