/* shape.h: the symbolic shapes of the description table. "...,heads,head_size": "..." stands for the leading
 * dimensions, the others are names, or sums of names ("nope+rope"). A stated shape gives names their extents; they give
 * the shapes that nobody stated. */
#ifndef HM_SHAPE_H
#define HM_SHAPE_H

#include <hallmark/op.h>

enum { HM_MAX_SYMBOLS = 12 };

typedef struct {
    const char *name[HM_MAX_SYMBOLS];
    size_t length[HM_MAX_SYMBOLS];
    int64_t extent[HM_MAX_SYMBOLS];
    int count;
    int leading; /* dimensions that "..." stands for; -1: not known yet */
    int64_t lead[3];
} hm_symbols;

/* Dimensions of a symbolic shape that are not "...". */
int hm_shape_fixed(const char *shape);
/* Symbol d (counted from the left) of them. */
const char *hm_shape_symbol(const char *shape, int d, size_t *length);
/* Binds what is still free, if the rank fits at all; whether it fits what is bound already is the contract's business.
 */
void hm_symbols_bind(hm_symbols *s, const char *shape, int ndim, const int64_t *extent);
/* The shape that the symbols give. 0, or with *unknown and *length set the name (or "...") that nothing has bound. */
int hm_symbols_shape(const hm_symbols *s, const char *shape, int64_t *to, const char **unknown, size_t *length);

#endif
