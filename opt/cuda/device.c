/* device.c: the CUDA runtime as the library and the judge's worker need it. */
#include "../../op/device.h"

#include <cuda.h>
#include <hallmark/cuda.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../op/check.h"
#include "launch.h"

/* ---- is there one? ----------------------------------------------------------------------------------------------- */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int devices, processors[64];
static char trouble[160];

static void look(void) {
    int version = 0;
    cudaError_t error = cudaGetDeviceCount(&devices);
    if (error != cudaSuccess) devices = 0;
    if (cudaDriverGetVersion(&version) == cudaSuccess && version == 0)
        snprintf(trouble, sizeof trouble, "no driver is installed");
    else snprintf(trouble, sizeof trouble, "%s", error ? cudaGetErrorString(error) : "the driver lists none");
    for (int i = 0; i < devices && i < 64; i++)
        cudaDeviceGetAttribute(&processors[i], cudaDevAttrMultiProcessorCount, i);
    cudaGetLastError();
}

int hm_cuda_devices(void) {
    pthread_once(&once, look);
    if (!devices) hm_fail(HM_NO_DEVICE, "no CUDA device: %s", trouble);
    return devices;
}

hm_status hm_cuda_ready(const char *op) {
    pthread_once(&once, look);
    if (devices) return HM_OK;
    return hm_fail(HM_NO_DEVICE, "%s: there is no CUDA device: %s", op, trouble);
}

int hm_cuda_processors(void) {
    int device = 0;
    cudaGetDevice(&device);
    return device >= 0 && device < 64 && processors[device] > 0 ? processors[device] : 1;
}

hm_status hm_cuda_status(const char *op, cudaError_t error) {
    if (error == cudaSuccess) return HM_OK;
    cudaGetLastError(); /* it is told here, and not to the next call */
    hm_status status = error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction ||
                               error == cudaErrorUnsupportedPtxVersion
                           ? HM_UNSUPPORTED
                       : error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver ? HM_NO_DEVICE
                       : error == cudaErrorMemoryAllocation                                 ? HM_NO_MEMORY
                                                                                            : HM_INTERNAL;
    return hm_fail(status, "%s: CUDA: %s", op, cudaGetErrorString(error));
}

/* ---- programmatic dependent launch ------------------------------------------------------------------------------- */

static _Thread_local int pdl;

void hm_cuda_pdl(int on) { pdl = on; }

bool hm_cuda_is_90(const void *kernel) {
    struct cudaFuncAttributes attributes;
    return cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess && attributes.ptxVersion >= 90;
}

bool hm_cuda_has_90a(const void *kernel, size_t shared, signed char known[HM_CUDA_KNOWN]) {
    int device = 0;
    struct cudaFuncAttributes attributes;
    if (cudaGetDevice(&device) != cudaSuccess || device < 0 || device >= HM_CUDA_KNOWN) return false;
    signed char is = __atomic_load_n(&known[device], __ATOMIC_RELAXED);
    if (is) return is > 0;
    bool has = cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess && attributes.binaryVersion == 90 &&
               attributes.ptxVersion == 90 &&
               (!shared ||
                cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared) == cudaSuccess);
    if (!has) cudaGetLastError();
    __atomic_store_n(&known[device], (signed char)(has ? 1 : -1), __ATOMIC_RELAXED);
    return has;
}

bool hm_cuda_pdl_for(const void *kernel) { return pdl && hm_cuda_is_90(kernel); }

/* ---- memory for the worker --------------------------------------------------------------------------------------- */

/* The driver's functions for address ranges, found when they are first needed: nothing is linked to the driver. */
static struct {
    CUresult (*granularity)(size_t *, const CUmemAllocationProp *, CUmemAllocationGranularity_flags);
    CUresult (*reserve)(CUdeviceptr *, size_t, size_t, CUdeviceptr, unsigned long long);
    CUresult (*unreserve)(CUdeviceptr, size_t);
    CUresult (*create)(CUmemGenericAllocationHandle *, size_t, const CUmemAllocationProp *, unsigned long long);
    CUresult (*release)(CUmemGenericAllocationHandle);
    CUresult (*map)(CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long);
    CUresult (*unmap)(CUdeviceptr, size_t);
    CUresult (*allow)(CUdeviceptr, size_t, const CUmemAccessDesc *, size_t);
} driver;
static CUmemAllocationProp property;
static size_t granule; /* bytes that are mapped at a time: 2 MiB */

static bool find(const char *name, void *to) {
    enum cudaDriverEntryPointQueryResult found;
    void *function = NULL;
    if (cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &found) != cudaSuccess ||
        found != cudaDriverEntryPointSuccess)
        return false;
    memcpy(to, &function, sizeof function);
    return true;
}

static hm_status device_open(char *about, size_t size) {
    struct cudaDeviceProp device;
    int version = 0;
    hm_status s = hm_cuda_ready("the judge");
    if (s) return s;
    cudaDriverGetVersion(&version);
    cudaError_t error = cudaSetDevice(0);
    if (!error) error = cudaGetDeviceProperties(&device, 0);
    if (!error) error = cudaFree(NULL);
    if (error) return hm_fail(HM_NO_DEVICE, "CUDA device 0: %s", cudaGetErrorString(error));
    snprintf(about, size, "%s, CUDA %d.%d", device.name, version / 1000, version % 1000 / 10);
    property = (CUmemAllocationProp){.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                     .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};
    if (!find("cuMemGetAllocationGranularity", &driver.granularity) || !find("cuMemAddressReserve", &driver.reserve) ||
        !find("cuMemAddressFree", &driver.unreserve) || !find("cuMemCreate", &driver.create) ||
        !find("cuMemRelease", &driver.release) || !find("cuMemMap", &driver.map) ||
        !find("cuMemUnmap", &driver.unmap) || !find("cuMemSetAccess", &driver.allow) ||
        driver.granularity(&granule, &property, CU_MEM_ALLOC_GRANULARITY_MINIMUM) != CUDA_SUCCESS)
        return hm_fail(HM_NO_DEVICE, "CUDA device 0 has no virtual memory management");
    return HM_OK;
}

/* What stands behind a buffer: its range, and what of it is mapped. */
typedef struct piece {
    struct piece *next;
    CUdeviceptr at;
    size_t size;
} piece;

typedef struct {
    CUdeviceptr range;
    size_t reserved, whole; /* bytes; whole: between the two granules that nothing lies behind */
    piece *pieces;
    bool full; /* all of it is mapped, so that it can serve again */
} backing;

static bool add_piece(backing *k, size_t from, size_t to) {
    piece *p = malloc(sizeof *p);
    CUmemGenericAllocationHandle handle;
    CUmemAccessDesc access = {.location = property.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    if (!p) return false;
    *p = (piece){k->pieces, k->range + granule + from, to - from};
    if (driver.create(&handle, p->size, &property, 0) != CUDA_SUCCESS) return free(p), false;
    bool mapped = driver.map(p->at, p->size, 0, handle, 0) == CUDA_SUCCESS;
    driver.release(handle); /* the mapping holds on to it */
    if (!mapped) return free(p), false;
    k->pieces = p;
    return driver.allow(p->at, p->size, &access, 1) == CUDA_SUCCESS;
}

static void destroy(backing *k) {
    while (k->pieces) {
        piece *p = k->pieces;
        k->pieces = p->next;
        driver.unmap(p->at, p->size);
        free(p);
    }
    if (k->range) driver.unreserve(k->range, k->reserved);
    free(k);
}

/* Making one takes far longer than a small call, so that some are kept. */
enum { KEPT = 48 };
#define KEPT_SIZE ((size_t)64 << 20)
static backing *kept[KEPT];
static int kept_count;

static backing *take(size_t whole) {
    for (int i = kept_count - 1; i >= 0; i--) {
        backing *k = kept[i];
        if (k->whole != whole) continue;
        for (kept_count--; i < kept_count; i++) kept[i] = kept[i + 1];
        return k;
    }
    return NULL;
}

static backing *reserve(size_t whole) {
    backing *k = calloc(1, sizeof *k);
    if (!k) return NULL;
    k->whole = whole;
    k->reserved = whole + 2 * granule;
    if (driver.reserve(&k->range, k->reserved, 0, 0, 0) == CUDA_SUCCESS) return k;
    k->range = 0;
    return destroy(k), NULL;
}

static bool back(backing *k, size_t shift, const hm_extent *extents, int count) {
    size_t done = 0, from = 0, to = 0;
    for (int i = 0; i < count; i++) {
        size_t low = ((size_t)extents[i].from + shift) / granule * granule;
        size_t high = ((size_t)extents[i].to + shift + granule - 1) / granule * granule;
        if (low < done) low = done;
        if (high <= low) continue;
        if (to == low) to = high;
        else {
            if (to > from && !add_piece(k, from, to)) return false;
            from = low, to = high;
        }
        done = high;
    }
    return to <= from || add_piece(k, from, to);
}

static bool device_make(hm_device_buffer *b, size_t size, const hm_extent *extents, int count) {
    static unsigned turn; /* one of two lies at the start of its granules, the other at the end */
    size_t whole = (size + granule - 1) / granule * granule, shift = turn++ % 2 ? whole - size : 0;
    bool full = whole <= KEPT_SIZE;
    backing *k = full ? take(whole) : NULL;
    if (!k) {
        hm_extent all = {0, (int64_t)whole};
        k = reserve(whole);
        if (!k) return false;
        k->full = full;
        if (full ? !back(k, 0, &all, 1) : !back(k, shift, extents, count)) return destroy(k), false;
    }
    *b = (hm_device_buffer){(char *)(uintptr_t)(k->range + granule + shift), size, k};
    return true;
}

static void device_free(hm_device_buffer *b) {
    backing *k = b->state;
    if (!k) return;
    if (k->full) {
        if (kept_count == KEPT) {
            destroy(kept[0]);
            for (int i = 1; i < KEPT; i++) kept[i - 1] = kept[i];
            kept_count--;
        }
        kept[kept_count++] = k;
    } else destroy(k);
    b->state = NULL;
}

static bool copy(void *to, const void *from, size_t bytes) {
    return cudaMemcpy(to, from, bytes, cudaMemcpyDefault) == cudaSuccess;
}

static bool device_finish(char *why, size_t size) {
    cudaError_t error = cudaDeviceSynchronize();
    if (error) snprintf(why, size, "CUDA: %s", cudaGetErrorString(error));
    return !error;
}

extern const hm_device hm_cuda_device;
const hm_device hm_cuda_device = {.open = device_open,
                                  .make = device_make,
                                  .free = device_free,
                                  .to_device = copy,
                                  .to_host = copy,
                                  .finish = device_finish};
