/* The bugs of mla_prefill; attention.h computes them. */
#include "attention.h"
#include "tables.h"

#define OP "mla_prefill"

static hm_status run(const void *variation, const void *args, hm_dtype written[HM_MAX_ARGS]) {
    const hm_attention_variation *v = variation;
    hm_attention_call call;
    hm_status status;
    if (hm_fault_checked(OP, v->checks, args, &status)) return status;
    status = hm_attention_read_flat(args, &call);
    return status ? status : hm_attention_fault(OP, v, &call, written);
}

#define FAULT(what, covers, reference, sentence, fix, ...)                                                          \
    {                                                                                                               \
        OP "." what, OP, covers, reference, sentence, fix, NULL, run, &(const hm_attention_variation){__VA_ARGS__}, \
            false                                                                                                   \
    }

const hm_fault hm_mla_prefill_faults[] = {
    HM_ATTENTION_FAULTS(FAULT),
    {OP ".ties_away", OP, "", "", "ties are rounded away from zero", "to even",
     "a result that is a tie lies inside the radius that every exponential has: both of its neighbours are admissible",
     run, &(const hm_attention_variation){.effect = EFFECT_TIES_AWAY}, false},
    FAULT("own_token_hidden", "trap.15", "", "a token does not see itself", "the end is one past it",
          .key = KEY_CAUSAL_LESS),
    FAULT("next_token_seen", "J4", "transformers#29623", "a token sees the next one", "the end is exclusive",
          .key = KEY_CAUSAL_MORE),
    FAULT("not_causal", "J2", "flashinfer#3716", "every token sees all keys", "stop at its end", .key = KEY_ALL),
    FAULT("causal_from_first_key", "D17", "sglang#12583", "the diagonal starts at the first key, not at the last",
          "line it up with the last key", .key = KEY_TOP_LEFT),
    FAULT("start_ignored", "J4", "Megatron-Bridge#2656", "key_start is ignored", "use it", .key = KEY_START_IGNORED),
    FAULT("start_exclusive", "J4", "sglang#26147", "the first key of a range is left out", "it is inclusive",
          .key = KEY_START_EXCLUSIVE),
    FAULT("end_ignored", "", "", "key_end is ignored", "use it", .key = KEY_END_IGNORED),
    FAULT("end_inclusive", "J4", "vllm#3385", "a range has one key more", "the end is exclusive",
          .key = KEY_END_INCLUSIVE),
    FAULT("range_of_token_0", "D17 D19", "sglang#12583", "every token has the range of the first", "use its own",
          .key = KEY_RANGE_OF_TOKEN_0),
    FAULT("param_not_checked", "", "", "a scale that is no number is taken without an error", "check it",
          .checks = HM_CHECKS_NOT_PARAM),
    HM_CHECK_FAULTS(FAULT),
};
const int hm_mla_prefill_fault_count = sizeof hm_mla_prefill_faults / sizeof *hm_mla_prefill_faults;
