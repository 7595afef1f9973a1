/* embedding.h: the arguments, read and checked. */
#ifndef HM_EMBEDDING_H
#define HM_EMBEDDING_H

#include <hallmark/embedding.h>
#include <stdbool.h>

/* vocab_size is filled in where it is 0. */
hm_status hm_embedding_read(const hm_embedding_args *args, hm_embedding_args *full);
/* Has the table the row of this id? */
bool hm_embedding_holds(const hm_embedding_args *full, int64_t id);
/* Id of row `row` of out, counted outermost first. */
int64_t hm_embedding_id(const hm_tensor *ids, int64_t row);

#endif
