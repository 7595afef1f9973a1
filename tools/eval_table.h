/* eval_table.h: the rows of `hallmark eval --table`, between those who fill them and those who write them down. */
#ifndef HM_TOOLS_EVAL_TABLE_H
#define HM_TOOLS_EVAL_TABLE_H

#include "../certify/faults.h"
#include "eval.h"

enum { EVAL_ROWS = 200 };

/* A line of faults.txt. */
typedef struct {
    char spec[160], name[160]; /* "fault:ID@SITE"; as the table shows it */
    const hm_fault *fault;
    const char *site; /* in spec; NULL: every call */
    bool seed;
    hm_eval_path path;
    hm_eval_result result;
    /* replay of the recorded tensors */
    int64_t calls, caught, outside;
    char why[128]; /* of the first call that was caught without an element outside */
} eval_row;

typedef struct {
    eval_row *rows;
    int n;
    hm_eval_noise noise;
    int64_t problems, all; /* of a row; of a seed's */
} eval_rows;

/* The page and the picture, to be freed; NULL: no memory. plot: how the page names the picture. */
char *eval_page(const eval_rows *t, const char *plot, size_t *size);
char *eval_picture(const eval_rows *t);

#endif
