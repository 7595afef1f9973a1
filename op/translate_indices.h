/* translate_indices.h: the call completed and checked. */
#ifndef HM_OP_TRANSLATE_INDICES_H
#define HM_OP_TRANSLATE_INDICES_H

#include <hallmark/translate_indices.h>

hm_status hm_translate_indices_read(const hm_translate_indices_args *args, hm_translate_indices_args *full);

#endif
