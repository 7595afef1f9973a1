/* certify.h: the judge from inside another program. */
#include <criterion/criterion.h>
#include <fenv.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hallmark/certify.h>
#include <hallmark/rms_norm.h>

#define LINE "rms_norm x=bf16[5,64] weight=bf16[64] round=norm_first eps=1e-5 stride=x:140,2;out:66,1 seed=7"

static hm_certify *opened(const char *line) {
    hm_certify *c = hm_certify_open(line);
    cr_assert(c, "%s", hm_error());
    return c;
}

static hm_certify_verdict judged(hm_certify *c, hm_status returned, const char *class_name) {
    hm_certify_verdict v = {.size = sizeof v};
    cr_assert_eq(hm_certify_judge(c, returned, class_name, &v), HM_OK, "%s", hm_error());
    return v;
}

Test(certify, a_case_is_opened_run_and_judged) {
    hm_certify *c = opened(LINE);
    const hm_rms_norm_args *args = hm_certify_args(c);
    cr_expect_str_eq(hm_certify_op(c), "rms_norm");
    cr_expect(strstr(hm_certify_line(c), "out=bf16[5,64] eps=1e-5 round=norm_first"), "%s", hm_certify_line(c));
    cr_expect_eq(hm_certify_tensor(c, "x"), &args->x);
    cr_expect_null(hm_certify_tensor(c, "y"));
    cr_expect_eq(args->x.stride[0], 140);
    cr_expect_eq(hm_certify_param(c, "eps"), 1e-5);
    cr_expect_eq(hm_certify_param(c, "round"), HM_ROUND_NORM_FIRST);
    cr_expect(isnan(hm_certify_param(c, "nothing")));

    hm_certify_verdict v = judged(c, HM_OK, NULL); /* nothing was written yet: poison */
    cr_expect_str_eq(v.outcome, "fail");
    cr_expect_eq(v.outside, 5 * 64);

    v = judged(c, hm_rms_norm_ref(args), NULL);
    cr_expect_str_eq(v.outcome, "pass", "%s", v.why);
    cr_expect_str_eq(v.why, "");
    cr_expect_str_eq(v.effects, "ok");
    cr_expect_str_eq(v.required, "chain64");
    cr_expect_str_eq(v.consistent, "wide");
    cr_expect_str_eq(v.worst, "out");
    cr_expect(v.elements == 5 * 64 && v.decided > 0.9 && v.max_ulp > 0.4 && v.max_ulp < 2);
    cr_expect_str_eq(judged(c, HM_OK, "wide").required, "wide");

    ((uint16_t *)args->out.data)[2 * 66 + 3] ^= 1;
    v = judged(c, HM_OK, NULL);
    cr_expect_str_eq(v.outcome, "fail");
    cr_expect(v.outside == 1 && v.worst_ndim == 2 && v.worst_index[0] == 2 && v.worst_index[1] == 3);
    cr_expect(v.worst_got < v.worst_lo || v.worst_got > v.worst_hi);

    hm_certify_reset(c);
    cr_expect_eq(judged(c, HM_OK, NULL).outside, 5 * 64);
    hm_certify_close(c);
    hm_certify_close(NULL);
}

Test(certify, tensors_can_be_copied_out_and_in) {
    hm_certify *c = opened(LINE);
    const hm_rms_norm_args *args = hm_certify_args(c);
    uint16_t x[5 * 64], out[5 * 64];
    cr_assert_eq(hm_certify_read(c, "x", x, sizeof x), HM_OK);
    for (int i = 0; i < 5 * 64; i++) cr_assert_eq(x[i], ((uint16_t *)args->x.data)[i / 64 * 140 + i % 64 * 2]);
    hm_rms_norm_args mine = *args; /* a kernel that knows contiguous tensors only */
    mine.x = hm_tensor_of(x, HM_BF16, 2, (int64_t[]){5, 64});
    mine.out = hm_tensor_of(out, HM_BF16, 2, (int64_t[]){5, 64});
    cr_assert_eq(hm_rms_norm_ref(&mine), HM_OK);
    cr_assert_eq(hm_certify_write(c, "out", out, sizeof out), HM_OK);
    cr_expect_str_eq(judged(c, HM_OK, NULL).outcome, "pass");

    cr_expect_eq(hm_certify_write(c, "out", out, 7), HM_BAD_ARG);
    cr_expect_eq(hm_certify_write(c, "x", x, sizeof x), HM_BAD_ARG);
    cr_expect_eq(hm_certify_write(c, "out", NULL, sizeof out), HM_BAD_ARG);
    cr_expect_eq(hm_certify_read(c, "z", x, sizeof x), HM_BAD_ARG);
    cr_expect(strstr(hm_error(), "\"z\""), "%s", hm_error());
    hm_certify_close(c);
}

Test(certify, another_dtype_is_stated_and_fails) {
    hm_certify *c = opened(LINE);
    hm_status s = hm_rms_norm_ref(hm_certify_args(c));
    cr_expect_eq(hm_certify_written(c, "x", HM_F32), HM_BAD_ARG);
    cr_expect_eq(hm_certify_written(c, "out", (hm_dtype)77), HM_BAD_DTYPE);
    cr_expect_eq(hm_certify_written(c, "out", HM_BF16), HM_OK);
    cr_expect_str_eq(judged(c, s, NULL).outcome, "pass");
    cr_expect_eq(hm_certify_written(c, "out", HM_F32), HM_OK);
    hm_certify_verdict v = judged(c, s, NULL);
    cr_expect_str_eq(v.outcome, "fail");
    cr_expect_str_eq(v.why, "out was written as f32; the contract says bf16");
    hm_certify_close(c);
}

Test(certify, calls_that_must_fail) {
    hm_certify *c = opened("rms_norm x=bf16[5,64] eps=-1 expect=bad_param");
    cr_expect_str_eq(judged(c, hm_rms_norm_ref(hm_certify_args(c)), NULL).outcome, "pass");
    cr_expect_str_eq(judged(c, HM_OK, NULL).outcome, "fail");
    hm_certify_close(c);
    c = opened("rms_norm x=bf16[5,64] broken=args:null expect=bad_arg");
    cr_expect_null(hm_certify_args(c));
    hm_certify_close(c);
}

Test(certify, bad_requests_are_refused_in_a_sentence) {
    static const char *const lines[] = {"", "no_op x=bf16[5,64]", "rms_norm", "rms_norm x=bf16[5,64] colour=red", NULL};
    for (int i = 0; i < 5; i++) {
        cr_expect_null(hm_certify_open(lines[i]));
        cr_expect(!strncmp(hm_error(), "hm_certify_open: ", 17) && strlen(hm_error()) > 25, "%s", hm_error());
    }
    hm_certify *c = opened(LINE);
    hm_certify_verdict v = {.size = sizeof v};
    cr_expect_eq(hm_certify_judge(c, HM_OK, "tight", &v), HM_BAD_PARAM);
    cr_expect(strstr(hm_error(), "\"tight\""), "%s", hm_error());
    cr_expect_eq(hm_certify_judge(c, (hm_status)99, NULL, &v), HM_BAD_PARAM);
    cr_expect_eq(hm_certify_judge(c, HM_OK, NULL, NULL), HM_BAD_ARG);
    v.size = 0;
    cr_expect_eq(hm_certify_judge(c, HM_OK, NULL, &v), HM_BAD_ARG);
    hm_certify_close(c);
}

Test(certify, a_caller_with_an_older_struct_gets_the_fields_it_knows) {
    hm_certify *c = opened(LINE);
    hm_certify_verdict v;
    memset(&v, 0x55, sizeof v);
    v.size = offsetof(hm_certify_verdict, effects);
    cr_assert_eq(hm_certify_judge(c, HM_OK, NULL, &v), HM_OK);
    cr_expect_str_eq(v.outcome, "fail");
    cr_expect_eq(v.size, offsetof(hm_certify_verdict, effects));
    cr_expect_eq(v.elements, 0x5555555555555555);
    hm_certify_close(c);
}

Test(certify, a_program_with_another_floating_point_environment_is_told) {
    hm_certify *c = opened(LINE);
    hm_certify_verdict v = {.size = sizeof v};
    fesetround(FE_UPWARD);
    cr_expect_eq(hm_certify_judge(c, HM_OK, NULL, &v), HM_UNSUPPORTED);
    cr_expect_null(hm_certify_open(LINE));
    fesetround(FE_TONEAREST);
    cr_expect(strstr(hm_error(), "round to nearest"), "%s", hm_error());
    cr_expect_eq(hm_certify_judge(c, HM_OK, NULL, &v), HM_OK);
    hm_certify_close(c);
}

static int count(const char *line, void *context) {
    hm_certify *c = hm_certify_open(line);
    cr_expect(c, "%s: %s", line, hm_error());
    if (c) cr_expect_str_eq(hm_certify_line(c), line);
    hm_certify_close(c);
    return ++*(int *)context == 12 ? 5 : 0;
}

Test(certify, suites_are_listed) {
    int n = 0;
    cr_expect_eq(hm_certify_suite("smoke", "rms_norm", 1, count, &n), 5);
    cr_expect_eq(n, 12);
    cr_expect_eq(hm_certify_suite("vast", NULL, 1, count, &n), -1);
    cr_expect(strstr(hm_error(), "\"vast\""), "%s", hm_error());
    cr_expect_eq(hm_certify_suite("smoke", "no_op", 1, count, &n), -1);
    cr_expect_eq(hm_certify_suite(NULL, NULL, 1, count, &n), -1);
}

Test(certify, the_example_in_the_header_is_short) { /* the build compiles it, and a test of its own runs it */
    char line[256];
    int lines = 0;
    FILE *header = fopen("include/hallmark/certify.h", "r");
    cr_assert(header, "run this in the source folder");
    while (fgets(line, sizeof line, header)) lines += !strncmp(line, " *     ", 7);
    fclose(header);
    cr_expect(lines >= 10 && lines <= 15, "%d lines", lines);
}
