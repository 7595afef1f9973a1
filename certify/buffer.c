#include "buffer.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

/* Pages that are new to the kernel cost more than all that is done with them in a small call, so that the buffers of
 * calls that were freed are kept for the next ones. One that a plug-in's process has seen is never used again: it may
 * still write there. */
enum { KEPT = 96 };
#define KEPT_SIZE ((size_t)1 << 20)   /* of one: these are filled in full, so that nothing of their past is left */
#define KEPT_TOTAL ((size_t)32 << 20) /* of all */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static hm_buffer kept[KEPT]; /* the oldest first */
static int count;
static size_t total;

static void take_out(int i) {
    total -= kept[i].size;
    for (count--; i < count; i++) kept[i] = kept[i + 1];
}

static bool find(size_t size, hm_buffer *b) {
    bool found = false;
    pthread_mutex_lock(&lock);
    for (int i = count - 1; i >= 0 && !found; i--)
        if (kept[i].size == size) {
            *b = kept[i];
            take_out(i);
            found = true;
        }
    pthread_mutex_unlock(&lock);
    return found;
}

static void unmap(hm_buffer *b) {
    if (b->base) munmap(b->base, b->size);
    if (b->fd >= 0) close(b->fd);
    *b = (hm_buffer){.fd = -1};
}

bool hm_buffer_open(hm_buffer *b, size_t size) {
    if (size <= KEPT_SIZE && find(size, b)) return true;
    *b = (hm_buffer){.fd = memfd_create("hallmark", MFD_CLOEXEC), .size = size};
    void *base = MAP_FAILED;
    if (b->fd >= 0 && !ftruncate(b->fd, (off_t)size))
        base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, b->fd, 0);
    if (base != MAP_FAILED) return b->base = base, true;
    unmap(b);
    return false;
}

void hm_buffer_close(hm_buffer *b) {
    hm_buffer gone[KEPT];
    int leaving = 0;
    if (b->base && !b->shared && b->size <= KEPT_SIZE) {
        pthread_mutex_lock(&lock);
        while (count == KEPT || total + b->size > KEPT_TOTAL) {
            gone[leaving++] = kept[0];
            take_out(0);
        }
        kept[count++] = *b;
        total += b->size;
        pthread_mutex_unlock(&lock);
        *b = (hm_buffer){.fd = -1};
    } else unmap(b);
    while (leaving) unmap(&gone[--leaving]);
}

void hm_buffers_release(void) {
    hm_buffer b;
    for (bool more = true; more;) {
        pthread_mutex_lock(&lock);
        more = count > 0;
        if (more) b = kept[count - 1], take_out(count - 1);
        pthread_mutex_unlock(&lock);
        if (more) unmap(&b);
    }
}
