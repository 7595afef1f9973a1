/* device.c: the model's calls on a device. All that a call needs is copied for it: the tensors of the small model are
 * some hundred kilobytes, and what the host did to them between two calls need not be known. */
#include "device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../certify/layout.h"
#include "../certify/worker.h"

#define UNIT ((size_t)2 << 20)

/* false: t has no elements. */
static bool span_of(const hm_tensor *t, char **low, char **high) {
    int64_t from, to;
    if (!t->data || t->dtype == HM_DTYPE_NONE || !hm_view_span(t, &from, &to) || from == to) return false;
    *low = (char *)t->data + from, *high = (char *)t->data + to;
    return true;
}

/* Bytes [low, high) of the host that tensors of the call span, and where they are on the device. */
typedef struct {
    char *low, *high;
    size_t at;
    bool written;
} stretch;

static int by_low(const void *a, const void *b) {
    const stretch *p = a, *q = b;
    return (p->low > q->low) - (p->low < q->low);
}

/* Those of the call, ascending and apart. Returns how many. */
static int stretches_of(const hm_op_info *op, const void *args, stretch *list) {
    int n = 0, kept = 0;
    for (int i = 0; i < op->nargs; i++) {
        const hm_tensor *t = hm_arg_tensor(op, args, i);
        stretch *to = &list[n];
        if (!span_of(t, &to->low, &to->high)) continue;
        to->written = op->args[i].direction != HM_IN;
        n++;
    }
    qsort(list, (size_t)n, sizeof *list, by_low);
    for (int i = 1; i < n; i++) {
        if (list[i].low >= list[kept].high) {
            list[++kept] = list[i];
            continue;
        }
        if (list[i].high > list[kept].high) list[kept].high = list[i].high;
        list[kept].written |= list[i].written;
    }
    return n ? kept + 1 : 0;
}

/* Memory of the device for the call; it grows, and is kept for the next. */
static char *memory_of(stretch *list, int n) {
    static hm_device_buffer memory;
    size_t bytes = 0;
    for (int i = 0; i < n; i++) {
        size_t length = (size_t)(list[i].high - list[i].low);
        list[i].at = (bytes + 255) / 256 * 256 + (uintptr_t)list[i].low % 256;
        bytes = list[i].at + 2 * length;
    }
    if (bytes <= memory.size) return memory.base;
    if (memory.state) hm_worker_device->free(&memory);
    size_t whole = (bytes + UNIT - 1) / UNIT * UNIT;
    if (!hm_worker_device->make(&memory, whole, &(hm_extent){0, (int64_t)whole}, 1)) {
        memory = (hm_device_buffer){0};
        return NULL;
    }
    return memory.base;
}

static bool copy_all(const stretch *list, int n, char *base, bool back) {
    bool good = true;
    for (int i = 0; i < n && good; i++) {
        size_t length = (size_t)(list[i].high - list[i].low);
        if (!back) good = hm_worker_device->to_device(base + list[i].at, list[i].low, length);
        else if (list[i].written) good = hm_worker_device->to_host(list[i].low, base + list[i].at, length);
    }
    return good;
}

hm_status device_call(const hm_op_info *op, hm_op_fn *function, const void *args, bool *lost, char *why, size_t size) {
    _Alignas(max_align_t) char there[MOST_ARGS_SIZE];
    stretch list[HM_MAX_ARGS];
    int n = stretches_of(op, args, list);
    char *base = memory_of(list, n);
    *lost = false, *why = 0;
    if ((n && !base) || op->args_size > sizeof there) {
        snprintf(why, size, "no memory on the device");
        return HM_NO_MEMORY;
    }
    memcpy(there, args, op->args_size);
    for (int i = 0; i < op->nargs; i++) {
        hm_tensor *t = hm_arg_tensor(op, there, i);
        char *low, *high;
        if (t->dtype == HM_DTYPE_NONE) continue;
        t->place = HM_CUDA;
        if (!span_of(t, &low, &high)) continue;
        int k = 0;
        while (low >= list[k].high) k++;
        t->data = base + list[k].at + ((char *)t->data - list[k].low);
    }
    hm_status status = HM_INTERNAL;
    if (copy_all(list, n, base, false)) status = function(there);
    *lost = !hm_worker_device->finish(why, size);
    if (!*lost && status == HM_OK && !copy_all(list, n, base, true)) {
        *lost = true;
        snprintf(why, size, "a copy from the device failed");
    }
    return *lost ? HM_INTERNAL : status;
}
