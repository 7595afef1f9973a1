/* The case language: what is canonical, what is filled in, what is refused and how the sentence reads. */
#include "../../certify/case.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../../certify/call.h"
#include "../../certify/generate.h"

static hm_case_spec spec;
static char why[512];

static const hm_case_spec *parsed(const char *line) {
    cr_assert_eq(hm_case_parse(line, &spec, why, sizeof why), HM_OK, "%s: %s", line, why);
    return &spec;
}

static const char *canonical(const char *line) { return parsed(line)->line; }

static void refused(const char *line, const char *part) {
    cr_expect_eq(hm_case_parse(line, &spec, why, sizeof why), HM_BAD_ARG, "accepted: %s", line);
    cr_expect(strstr(why, part), "'%s' gives '%s', without '%s'", line, why, part);
}

Test(case_language, spells_everything_out) {
    cr_expect_str_eq(
        canonical("rms_norm x=bf16[7,4096] weight=f32[4096] round=once alias=out:x stride=x:4160,1 gen=heavy seed=17"),
        "rms_norm x=bf16[7,4096] weight=f32[4096] out=bf16[7,4096] eps=1e-6 round=once weight_form=plain "
        "variance_size=0 "
        "alias=out:x stride=x:4160,1 gen=heavy seed=17");
    cr_expect_str_eq(canonical("rms_norm x=f32[5]"),
                     "rms_norm x=f32[5] weight=none out=f32[5] eps=1e-6 round=once weight_form=plain "
                     "variance_size=0 gen=normal seed=1");
    cr_expect_str_eq(
        canonical("  fused_add_rms_norm\tseed=3  residual_out=f32 x=f16[2,3] residual_dtype=f32_for_f16 eps=0.1 "),
        "fused_add_rms_norm x=f16[2,3] residual=f16[2,3] weight=none residual_out=f32[2,3] out=f16[2,3] eps=0.1 "
        "round=once "
        "weight_form=plain residual_read=rounded residual_dtype=f32_for_f16 variance_size=0 gen=normal seed=3");
}

Test(case_language, shapes_and_strides_follow) {
    const hm_case_spec *s = parsed("rms_norm weight=f32 out=f16[2,3,4] x=f16[2,3,4] alias=out:x+8 stride=x:64,16,1");
    cr_expect_eq(s->shape[1][0], 4);
    cr_expect_eq(s->ndim[1], 1);
    cr_expect_eq(s->stride[2][0], 64, "an alias has the strides of what it lies on");
    cr_expect_eq(s->alias[2], 0);
    cr_expect_eq(s->alias_offset[2], 8);
    s = parsed("rms_norm x=f32[3,8] alias=out:x stride=x:16,1;out:8,1");
    cr_expect_eq(s->stride[2][0], 8);
    cr_expect(strstr(s->line, "stride=x:16,1;out:8,1"), "%s", s->line);
    s = parsed("rms_norm x=f32[3,8] alias=out:x stride=x:16,1;out:16,1");
    cr_expect(strstr(s->line, "stride=x:16,1 gen"), "%s", s->line);
    s = parsed("rms_norm x=none out=bf16[5,6] expect=bad_arg");
    cr_expect_eq(s->dtype[0], HM_DTYPE_NONE);
    s = parsed("rms_norm x=f32[-9223372036854775808,9223372036854775807] expect=bad_shape");
    cr_expect_eq(s->shape[0][0], INT64_MIN);
    cr_expect_eq(s->shape[2][1], INT64_MAX);
}

Test(case_language, illegal_calls_can_be_asked_for) {
    const hm_case_spec *s =
        parsed("rms_norm x=f32[3,8] broken=args:size;out:ndim0;x:cuda round=99 weight_form=-1 expect=bad_arg");
    cr_expect_eq(s->broken_args, HM_ARGS_SIZE);
    cr_expect_eq(s->broken[2], HM_BROKEN_NDIM0);
    cr_expect_eq(s->broken[0], HM_BROKEN_CUDA);
    cr_expect_eq(s->param[1], 99);
    cr_expect_eq(s->expect, HM_BAD_ARG);
    cr_expect(strstr(s->line,
                     "round=99 weight_form=-1 variance_size=0 broken=x:cuda;out:ndim0;args:size gen=normal seed=1 "
                     "expect=bad_arg"),
              "%s", s->line);
}

Test(case_language, every_batch_can_be_asked_for) {
    cr_expect(parsed("rms_norm batches=every x=f32[3,8] alias=out:x seed=2")->every_batch);
    cr_expect(strstr(canonical("rms_norm batches=every x=f32[3,8] alias=out:x seed=2"),
                     " alias=out:x batches=every gen=normal seed=2"));
    cr_expect_not(parsed("rms_norm x=f32[3,8]")->every_batch);
    refused("rms_norm x=f32[3,8] batches=some", "batches=some: it has to be every");
    refused("rms_norm x=f32[3,8] batches=every expect=bad_arg", "batches=every is for calls that succeed");
    refused("top_k_per_row logits=f32[3,8] indices=i32[3,2] batches=every", "batches=every is for");
}

Test(case_language, lengths_can_be_asked_for) {
    cr_expect_eq(parsed("top_k_per_row logits=f32[3,8] indices=i32[3,2] lengths=whole")->lengths, HM_LENGTHS_WHOLE);
    cr_expect(strstr(canonical("top_k_per_row logits=f32[3,8] indices=i32[3,2] lengths=whole gen=zero"),
                     " lengths=whole gen=zero seed=1"));
    refused("top_k_per_row logits=f32[3,8] indices=i32[3,2] lengths=some",
            "lengths=some: it has to be whole or causal");
    refused("top_k_per_row logits=f32[3,8] indices=i32[3,2] lengths=causal", "top_k_per_row has no such lengths");
    refused("rms_norm x=f32[3,8] lengths=whole", "rms_norm has no such lengths");
}

/* Elements of an i32 argument of a case. */
static const int32_t *integers_of(const char *line, const char *name) {
    static hm_call *call;
    char why[512] = "";
    hm_call_free(call);
    cr_assert_eq(hm_call_from_case(parsed(line), &call, why, sizeof why), HM_OK, "%s", why);
    for (int i = 0; i < call->op->nargs; i++)
        if (!strcmp(call->op->args[i].name, name)) return hm_arg_tensor(call->op, call->golden_args, i)->data;
    return NULL;
}

Test(case_language, lengths_are_as_asked_for) {
    const int32_t *v = integers_of(
        "top_k_per_row logits=f32[9,40] row_starts=none row_ends=none seq_lens=i32[9] indices=i32[9,4] "
        "lengths=whole gen=ten_values",
        "seq_lens");
    for (int i = 0; i < 9; i++) cr_expect_eq(v[i], 40);
    v = integers_of(
        "fp8_mqa_logits q=f8e4m3[9,2,128] k_scale=f32[12] weights=f32 ks=i32[9] ke=i32[9] logits=f32[9,12] "
        "lengths=whole",
        "ke");
    for (int i = 0; i < 9; i++) cr_expect_geq(v[i], 12);
    v = integers_of(
        "fp8_mqa_logits q=f8e4m3[9,2,128] k_scale=f32[12] weights=f32 ks=i32[9] ke=i32[9] logits=f32[9,12] "
        "lengths=causal",
        "ke");
    for (int i = 0; i < 8; i++) cr_expect_eq(v[i], 4 + i);
    v = integers_of(
        "fp8_paged_mqa_logits q=f8e4m3[3,2,2,128] context_lens=i32[3] block_tables=i32[3,2] "
        "kv_cache=u8[6,16,132] weights=f32[6,2] logits=f32[6,32] lengths=whole",
        "context_lens");
    for (int i = 0; i < 3; i++) cr_expect_eq(v[i], 32);
    v = integers_of(
        "sparse_mla_decode q=bf16[9,2,48] indices=i32[9,8] kv_cache=bf16[4,16,48] out=bf16[9,2,32] "
        "lengths=whole",
        "indices");
    for (int i = 0; i < 72; i++) cr_expect(v[i] >= 0 && v[i] < 64);
}

Test(case_language, numbers_read_back) {
    static const double odd[] = {0,    -0.0, 1e-6,     0.1,       1.0 / 3,   1e300, 0x1p-1074,
                                 1e39, -1,   INFINITY, -INFINITY, 123456789, 1e22,  1e23};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        char line[128];
        snprintf(line, sizeof line, "rms_norm x=f32[1] eps=%a", odd[i]);
        const char *text = strstr(canonical(line), "eps=");
        double back = parsed(strcpy(line, spec.line))->param[0];
        cr_expect(!memcmp(&back, &odd[i], sizeof back), "%a became %s", odd[i], text);
    }
    cr_expect(strstr(canonical("rms_norm x=f32[1] eps=NaN"), "eps=nan "));
    cr_expect(strstr(canonical("rms_norm x=f32[1] eps=1.00e-05"), "eps=1e-5 "));
    cr_expect(strstr(canonical("rms_norm x=f32[1] eps=+.5"), "eps=0.5 "));
    cr_expect_eq(parsed("rms_norm x=f32[1] seed=18446744073709551615")->seed, UINT64_MAX);
}

Test(case_language, refusals_name_the_token_and_what_is_legal) {
    refused("", "rms_norm");
    refused("group_norm x=f32[1]", "\"group_norm\" is no op; legal are rms_norm, fused_add_rms_norm");
    refused("rms_norm", "x is missing");
    refused("rms_norm weight=f32[4]", "x is missing");
    refused("rms_norm x=f32", "x has no shape");
    refused("rms_norm x=none", "out is missing");
    refused("rms_norm x=f32[4] y=1", "\"y\" is no key of rms_norm; legal are x, weight, out, eps, round");
    refused("rms_norm x=f32[4] x=f32[4]", "x is given twice");
    refused("rms_norm x=f32[4] eps", "KEY=VALUE");
    refused("rms_norm x=f32[4] =1", "KEY=VALUE");
    refused("rms_norm x=f33[4]", "\"f33\" is no dtype; legal are none, f32, f16, bf16");
    refused("rms_norm x=[4]", "is no dtype");
    refused("rms_norm x=f32[4", "has to end in \"]\"");
    refused("rms_norm x=f32[4]2", "has to end in \"]\"");
    refused("rms_norm x=f32[]", "1 to 4 integers");
    refused("rms_norm x=f32[1,2,3,4,5]", "1 to 4 integers");
    refused("rms_norm x=f32[4,]", "1 to 4 integers");
    refused("rms_norm x=f32[4x]", "1 to 4 integers");
    refused("rms_norm x=f32[+4]", "1 to 4 integers");
    refused("rms_norm x=f32[9223372036854775808]", "64 bits");
    refused("rms_norm x=f32[4] eps=", "eps=: it has to be a number");
    refused("rms_norm x=f32[4] eps=1e-6x", "eps=1e-6x");
    refused("rms_norm x=f32[4] eps=1,5", "eps=1,5");
    refused("rms_norm x=f32[4] variance_size=1.5", "variance_size=1.5");
    refused("rms_norm x=f32[4] variance_size=9007199254740993", "2^53");
    refused("rms_norm x=f32[4] round=twice", "\"twice\" is no value of round; legal are once, norm_first");
    refused("rms_norm x=f32[4] round=0", "legal are once, norm_first");
    refused("rms_norm x=f32[4] gen=white", "\"white\" is no generator; legal are normal, heavy");
    refused("rms_norm x=f32[4] seed=-1", "seed=-1");
    refused("rms_norm x=f32[4] seed=18446744073709551616", "2^64");
    refused("rms_norm x=f32[4] expect=bad", "\"bad\" is no status; legal are ok, bad_arg");
    refused("rms_norm x=f32[4] alias=out", "ARG:WHAT");
    refused("rms_norm x=f32[4] alias=x:out", "x is an input");
    refused("rms_norm x=f32[4] alias=out:weight", "\"weight\" has to be another argument that is present");
    refused("rms_norm x=f32[4] alias=out:y", "\"y\" has to be another argument");
    refused("rms_norm x=f32[4] alias=out:out", "has to be another argument");
    refused("rms_norm x=f32[4] alias=out:x;out:x", "out is given twice");
    refused("rms_norm x=f32[4] alias=out:x+0", "offset");
    refused("rms_norm x=f32[4] alias=out:x+-1", "offset");
    refused("fused_add_rms_norm x=f32[4] alias=out:x;residual_out:out", "lies on no other");
    refused("fused_add_rms_norm x=f32[4] alias=residual_out:out;out:x", "lies on out already");
    refused("rms_norm x=f32[4] stride=x:1,1", "it has to be 1 integers");
    refused("rms_norm x=f32[4] stride=x:a", "stride=x:a");
    refused("rms_norm x=f32[4] stride=weight:1", "weight is absent");
    refused("rms_norm x=f32[4] stride=q:1", "\"q\" is no argument of rms_norm; legal are x, weight, out");
    refused("rms_norm x=f32[4] stride=x:1;x:1", "x is given twice");
    refused("rms_norm x=f32[4] broken=x:torn", "\"torn\" is not known; legal are null, ndim0");
    refused("rms_norm x=f32[4] broken=x:null;x:null", "x is given twice");
    refused("rms_norm x=f32[4] broken=args:null;args:size", "args is given twice");
    refused("rms_norm x=f32[4]\nrms_norm x=f32[4]", "0x0a");
    refused("rms_norm x=f32[4] eps=\xc2\xb5", "printable");
}

Test(case_language, long_lines_are_refused) {
    char line[4096];
    memset(line, ' ', sizeof line);
    memcpy(line, "rms_norm x=f32[4]", 17);
    line[HM_CASE_MAX - 1] = 0;
    cr_expect_eq(hm_case_parse(line, &spec, why, sizeof why), HM_OK, "%s", why);
    line[HM_CASE_MAX - 1] = ' ';
    line[sizeof line - 1] = 0;
    refused(line, "longer than 1023 bytes");
    /* and so is a canonical line that would not fit, while the given one does */
    int n = snprintf(line, sizeof line, "fused_add_rms_norm x=f32[%s] stride=",
                     "-1000000000000000000,-1000000000000000000,-1000000000000000000,5");
    static const char *const names[] = {"x", "residual", "weight", "residual_out", "out"};
    for (int i = 0; i < 5; i++)
        if (i != 2)
            n += snprintf(line + n, sizeof line - (size_t)n,
                          "%s%s:-900000000000000000,-900000000000000000,-900000000000000000,1", i ? ";" : "", names[i]);
    cr_assert(n < HM_CASE_MAX);
    if (hm_case_parse(line, &spec, why, sizeof why) == HM_OK) cr_expect(strlen(spec.line) < HM_CASE_MAX);
}

/* Damaged lines neither crash nor give anything but a refusal or a line that is canonical. */
Test(case_language, damage_is_refused_or_canonical) {
    static const char *const good[] = {
        "rms_norm x=bf16[7,4096] weight=f32[4096] round=once alias=out:x+8 stride=x:4160,1;weight:2 gen=normal seed=17",
        "fused_add_rms_norm x=f16[2,3,5] residual_out=f32[2,3,5] broken=args:null;x:ndim5 eps=1e-5 variance_size=-3 "
        "expect=bad_arg",
    };
    uint64_t state = 88172645463325252u;
    int accepted = 0;
    for (int i = 0; i < 200000; i++) {
        char line[HM_CASE_MAX];
        strcpy(line, good[i % 2]);
        size_t length = strlen(line);
        for (int edits = 1 + i % 3; edits--;) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            size_t at = state % length, from = state / 4096 % length;
            line[at] = state >> 60 ? line[from] : (char)(state >> 40);
        }
        if (hm_case_parse(line, &spec, why, sizeof why) != HM_OK) continue;
        accepted++;
        hm_case_spec again;
        cr_assert_eq(hm_case_parse(spec.line, &again, why, sizeof why), HM_OK, "%s: %s", spec.line, why);
        cr_assert_str_eq(again.line, spec.line);
        cr_assert(!memcmp(&again, &spec, sizeof again), "%s", line);
    }
    cr_expect(accepted > 1000, "%d", accepted);
}
