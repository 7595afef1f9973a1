/* What the description table says of the work of matrix products. */
#include <criterion/criterion.h>
#include <string.h>

#include "certify/call.h"

static double flops_of(const char *line) {
    static hm_case_spec spec;
    hm_call *call;
    char why[512] = "";
    cr_assert_eq(hm_case_parse(line, &spec, why, sizeof why), HM_OK, "%s", why);
    cr_assert_eq(hm_call_from_case(&spec, &call, why, sizeof why), HM_OK, "%s", why);
    cr_assert(call->op->flops, "%s", line);
    double flops = call->op->flops(call->golden_args);
    hm_call_free(call);
    return flops;
}

Test(flops, linear) {
    cr_expect_eq(flops_of("linear x=bf16[3,5,64] weight=bf16[7,64] bias=none out=bf16[3,5,7]"), 2.0 * 15 * 64 * 7);
    cr_expect_eq(flops_of("linear x=bf16[0,64] weight=bf16[7,64] bias=none out=bf16[0,7]"), 0);
}

/* With gen=index every window is as long as it can be. */
Test(flops, logits) {
    double flops = flops_of(
        "fp8_mqa_logits q=f8e4m3[2,64,128] k_scale=f32[300] weights=f32 ks=i32[2] ke=i32[2] "
        "logits=f32[2,300] gen=index");
    cr_expect(flops > 0 && flops <= 2.0 * 2 * 300 * 64 * 128, "%g", flops);
    cr_expect_eq((int64_t)flops % (2 * 64 * 128), 0);
    flops = flops_of(
        "fp8_paged_mqa_logits q=f8e4m3[3,1,64,128] context_lens=i32[3] block_tables=i32[3,8] "
        "kv_cache=u8[30,64,132] weights=f32[3,64] logits=f32[3,512] gen=index");
    cr_expect(flops > 0 && flops <= 2.0 * 3 * 512 * 64 * 128, "%g", flops);
    cr_expect_eq((int64_t)flops % (2 * 64 * 128), 0);
}

Test(flops, attention) {
    double flops = flops_of(
        "mla_prefill q=bf16[4,16,576] kv=bf16[10,576] key_start=none key_end=none "
        "out=bf16[4,16,512] lse=f32[4,16]");
    cr_expect_eq(flops, 2.0 * (7 + 8 + 9 + 10) * 16 * (576 + 512), "%g", flops);
    flops = flops_of(
        "sparse_mla_decode q=bf16[2,16,576] indices=i32[2,64] kv_cache=bf16[9,16,576] out=bf16[2,16,512] "
        "lse=f32[2,16]");
    cr_expect(flops > 0 && flops <= 2.0 * 2 * 64 * 16 * (576 + 512), "%g", flops);
    cr_expect_eq((int64_t)flops % (2 * 16 * (576 + 512)), 0);
}

Test(flops, others_have_none) {
    for (int i = 0; i < hm_op_count(); i++) {
        const char *name = hm_op_at(i)->name;
        bool product = !strcmp(name, "linear") || strstr(name, "logits") || !strcmp(name, "sparse_mla_decode") ||
                       !strcmp(name, "mla_prefill");
        cr_expect_eq(hm_op_at(i)->flops != NULL, product, "%s", name);
    }
}
