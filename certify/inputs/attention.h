/* attention.h: queries and keys of which some win and all others vanish: an exponential is exact at 0 alone. */
#ifndef HM_INPUTS_ATTENTION_H
#define HM_INPUTS_ATTENTION_H

#include "../inputs.h"

/* With the generators `exact` (values up to 8) and `ties` (up to 127, so that a mean of 2^k of them falls on boundaries): fills q
 * [.., width], respectively one key of `width` elements, and returns true. A winner's score is 0, a loser's -4096 times the
 * scale. Other generators: false. */
bool hm_inputs_exact_queries(const hm_case_spec *spec, const hm_tensor *q);
bool hm_inputs_exact_key(const hm_case_spec *spec, int64_t key, bool winner, int64_t width, double *to);
/* With `stagnate` (hm_inputs_stagnate): scores of 2^5, by the scale as the call has it, and keys, which are all the same: lse says
 * how far the scores are off. Others: false. */
bool hm_inputs_stagnate_queries(const hm_case_spec *spec, const hm_tensor *q, double scale);
bool hm_inputs_stagnate_key(const hm_case_spec *spec, int64_t width, double *to);
/* Sinks about as large as scores, some without effect: small ones and -inf; with `exact` and `ties` -inf alone. `special`: false. */
bool hm_inputs_sinks(const hm_case_spec *spec, const hm_tensor *sink);
static inline bool hm_is_16_bits(hm_dtype t) { return t == HM_BF16 || t == HM_F16; }
static inline bool hm_inputs_wins(int64_t key) { return key % 4 == 1; }

#endif
