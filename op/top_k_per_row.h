/* top_k_per_row.h: the call completed and checked, and the window of a row. */
#ifndef HM_OP_TOP_K_PER_ROW_H
#define HM_OP_TOP_K_PER_ROW_H

#include <hallmark/top_k_per_row.h>

hm_status hm_top_k_per_row_read(const hm_top_k_per_row_args *args, hm_top_k_per_row_args *full);

typedef struct {
    int64_t start, n; /* first column; how many, 0 or more */
} hm_window_of_row;
hm_window_of_row hm_top_k_window(const hm_top_k_per_row_args *full, int64_t row);

#endif
