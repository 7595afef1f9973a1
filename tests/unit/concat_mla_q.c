/* concat_mla_q: what is copied is judged by its bits, and f32 is refused before a byte is written. */
#include <criterion/criterion.h>
#include <hallmark/concat_mla_q.h>
#include <hallmark/op.h>
#include <string.h>

#include "../../certify/call.h"
#include "../../certify/judge.h"

Test(concat_mla_q, table_matches_the_struct) {
    const hm_op_info *op = hm_op_named("concat_mla_q");
    cr_assert_not_null(op);
    cr_assert_eq(op->nargs, 3);
    cr_expect_eq(op->args[0].offset, offsetof(hm_concat_mla_q_args, ql_nope));
    cr_expect_eq(op->args[1].offset, offsetof(hm_concat_mla_q_args, q_pe));
    cr_expect_eq(op->args[2].offset, offsetof(hm_concat_mla_q_args, q_out));
    cr_expect_eq(op->args_size, sizeof(hm_concat_mla_q_args));
}

Test(concat_mla_q, f32_is_refused_before_a_byte_is_written) {
    float nope[2 * 512] = {0}, rope[2 * 64] = {0}, out[2 * 576];
    memset(out, 0x55, sizeof out);
    hm_concat_mla_q_args args = {.size = sizeof args,
                                 .q_out = hm_tensor_of(out, HM_F32, 3, (int64_t[]){1, 2, 576}),
                                 .ql_nope = hm_tensor_of(nope, HM_F32, 3, (int64_t[]){1, 2, 512}),
                                 .q_pe = hm_tensor_of(rope, HM_F32, 3, (int64_t[]){1, 2, 64})};
    cr_assert_eq(hm_concat_mla_q(&args), HM_BAD_DTYPE);
    cr_expect_str_eq(hm_error(), "concat_mla_q: ql_nope is f32; it has to be f16 or bf16");
    for (size_t i = 0; i < sizeof out; i++) cr_assert_eq(((unsigned char *)out)[i], 0x55);
}

/* NaN payloads, signs of zeros and one bit anywhere: each is seen, by the bits that it should have been. */
Test(concat_mla_q, one_bit_is_seen) {
    char why[512];
    hm_case_spec spec;
    hm_call *call;
    cr_assert_eq(hm_case_parse("concat_mla_q ql_nope=bf16[3,2,16] q_pe=bf16[3,2,8] gen=bits", &spec, why, sizeof why),
                 HM_OK, "%s", why);
    cr_assert_eq(hm_call_from_case(&spec, &call, why, sizeof why), HM_OK, "%s", why);
    hm_judge_options options = {.required = HM_CLASS_NONE};
    hm_run run = {.state = HM_RAN, .status = HM_OK};
    hm_verdict v;
    uint16_t *out = call->tensor[2].data;
    cr_assert_eq(hm_concat_mla_q_ref(call->args), HM_OK);
    hm_judge_outputs(call, &run, &options, &v);
    cr_assert(v.outside == 0 && v.elements == 3 * 2 * 24 && v.point == v.elements, "%s", v.why);
    for (int i = 0; i < 3 * 2 * 24; i += 7)
        for (int bit = 0; bit < 16; bit += 5) {
            out[i] ^= (uint16_t)(1 << bit);
            hm_judge_outputs(call, &run, &options, &v);
            cr_expect(v.outcome == HM_FAIL && v.outside == 1 && v.worst_by_bits, "element %d, bit %d: %s", i, bit,
                      v.why);
            cr_expect_eq(v.worst_bits[0] ^ v.worst_bits[1], (uint64_t)1 << bit);
            out[i] ^= (uint16_t)(1 << bit);
        }
    hm_call_free(call);
}
