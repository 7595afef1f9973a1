/* safetensors.h: the container of traces and golden files. A file is: header length (u64, little endian), a JSON object
 * that maps tensor names to {"dtype", "shape", "data_offsets": [begin, end]} and "__metadata__" to a map of strings,
 * then the data. Every number is checked before use: the data must be covered by the tensors exactly, without gaps or
 * overlaps. */
#ifndef HM_SAFETENSORS_H
#define HM_SAFETENSORS_H

#include <hallmark/op.h>

#define HM_SAFETENSORS_HEADER_MAX 100000000 /* bytes, as the format demands */

typedef struct {
    const char *name;
    const char *type; /* as written: "BF16" */
    hm_dtype dtype;   /* HM_DTYPE_NONE for one that Hallmark lacks */
    int ndim;         /* of the file, any number; shape holds the first 4 */
    int64_t shape[4], bytes;
    const unsigned char *data; /* as it lies in the file: aligned to nothing */
    void *copy;                /* owned; made by hm_safetensors_aligned */
} hm_safetensors_tensor;

typedef struct hm_safetensors hm_safetensors;

/* NULL with one sentence in why. The second reads bytes in memory, which must stay valid; name is for sentences. */
hm_safetensors *hm_safetensors_open(const char *path, char *why, size_t size);
hm_safetensors *hm_safetensors_open_bytes(const void *data, size_t bytes, const char *name, char *why, size_t size);
void hm_safetensors_close(hm_safetensors *file);

const char *hm_safetensors_name(const hm_safetensors *file);
int64_t hm_safetensors_count(const hm_safetensors *file);
hm_safetensors_tensor *hm_safetensors_at(hm_safetensors *file, int64_t i);          /* ascending by name */
hm_safetensors_tensor *hm_safetensors_find(hm_safetensors *file, const char *name); /* NULL if there is none */
const char *hm_safetensors_note(const hm_safetensors *file,
                                const char *key); /* of __metadata__; NULL if there is none */

/* The tensor's bytes, aligned for elements of any size; NULL if memory is short. The same pointer on every call. */
const unsigned char *hm_safetensors_aligned(hm_safetensors_tensor *t);

hm_dtype hm_safetensors_dtype(const char *type); /* "BF16" -> HM_BF16; HM_DTYPE_NONE if Hallmark lacks it */
const char *hm_safetensors_type(hm_dtype dtype); /* HM_BF16 -> "BF16" */

/* Writes "<file>: <sentence>" to why, with control characters made harmless: names in a file come from strangers. */
void hm_safetensors_refuse(const char *file, char *why, size_t size, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
