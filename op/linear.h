/* linear.h: the arguments, read and checked. */
#ifndef HM_LINEAR_H
#define HM_LINEAR_H

#include <hallmark/linear.h>

hm_status hm_linear_read(const hm_linear_args *args, hm_linear_args *full);

#endif
