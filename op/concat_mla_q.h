/* concat_mla_q.h: the call completed and checked. */
#ifndef HM_OP_CONCAT_MLA_Q_H
#define HM_OP_CONCAT_MLA_Q_H

#include <hallmark/concat_mla_q.h>

hm_status hm_concat_mla_q_read(const hm_concat_mla_q_args *args, hm_concat_mla_q_args *full);

#endif
