/* A sample of rows: what is wrong in one of them is seen, what golden is not asked for is looked at for its effects,
 * and how many rows were judged is said. */
#include <criterion/criterion.h>
#include <string.h>

#include "certify/judge.h"
#include "certify/sample.h"
#include "op/check.h"
#include "op/dtype.h"

enum { ROWS = 1000, N = 16, MOST = 20 };
static const char line[] = "rms_norm x=bf16[1000,16] weight=bf16[16]";

static hm_call *done_call(const char *text) {
    static hm_case_spec spec;
    hm_call *call;
    char why[512] = "";
    cr_assert_eq(hm_case_parse(text, &spec, why, sizeof why), HM_OK, "%s", why);
    cr_assert_eq(hm_call_from_case(&spec, &call, why, sizeof why), HM_OK, "%s", why);
    cr_assert_eq(call->op->ref(call->args), HM_OK, "%s", hm_error());
    return call;
}

static hm_verdict judged(hm_call *call, int64_t most) {
    hm_run run = {0};
    hm_verdict v;
    hm_judge_outputs(call, &run, &(hm_judge_options){.required = HM_CLASS_NONE, .most_rows = most}, &v);
    return v;
}

static int out_of(const hm_call *call) {
    int i = 0;
    while (strcmp(call->op->args[i].name, "out")) i++;
    return i;
}

static unsigned char *element(hm_call *call, int64_t row, int64_t i) {
    hm_tensor *t = hm_arg_tensor(call->op, call->args, out_of(call));
    return (unsigned char *)t->data + (hm_row_offset(t, row) + i * t->stride[1]) * (int64_t)hm_dtype_size(t->dtype);
}

static hm_sample sample_of(hm_call *call, int64_t most) {
    hm_sample s;
    cr_assert(hm_sample_make(call, out_of(call), most, 2, &s));
    return s;
}

Test(sample, is_spread_and_has_both_ends) {
    hm_call *call = done_call(line), *other = done_call("rms_norm x=bf16[1000,16] weight=bf16[16] seed=2");
    hm_sample s = sample_of(call, MOST), again = sample_of(call, MOST), same = sample_of(other, MOST);
    cr_assert_eq(s.n, MOST);
    cr_expect(s.row[0] == 0 && s.row[MOST - 1] == ROWS - 1);
    for (int64_t k = 0; k < MOST - 2; k++) {
        int64_t row = hm_sample_row(&s, k + 1);
        cr_expect(row >= 1 + 998 * k / 18 && row < 1 + 998 * (k + 1) / 18, "row %lld", (long long)row);
    }
    cr_expect_arr_eq(s.row, again.row, MOST * sizeof *s.row);
    cr_expect_arr_neq(s.row, same.row, MOST * sizeof *s.row, "another seed has another sample");
    hm_sample_free(&s), hm_sample_free(&again), hm_sample_free(&same);
    static const int64_t few[] = {0, ROWS, ROWS + 1};
    for (int i = 0; i < 3; i++) {
        s = sample_of(call, few[i]);
        cr_expect(s.n == ROWS && !s.row && hm_sample_row(&s, 7) == 7);
    }
    for (int64_t most = 1; most < 5; most++) {
        s = sample_of(call, most);
        cr_expect_eq(s.n, most < 2 ? 2 : most);
        hm_sample_free(&s);
    }
    s = sample_of(call, ROWS - 1);
    cr_expect_eq(s.n, ROWS - 1);
    hm_sample_free(&s);
    hm_call_free(call), hm_call_free(other);
}

Test(sample, says_how_many_rows_were_judged) {
    hm_call *call = done_call(line);
    hm_verdict v = judged(call, MOST), all = judged(call, 0);
    cr_expect_eq(v.outcome, HM_PASS, "%s", v.why);
    cr_expect(v.rows == ROWS && v.rows_judged == MOST && v.elements == MOST * N);
    cr_expect_eq(all.outcome, HM_PASS, "%s", all.why);
    cr_expect(all.rows == ROWS && all.rows_judged == ROWS && all.elements == ROWS * N);
    cr_expect_eq(v.outputs_xxh3, all.outputs_xxh3);
    hm_call_free(call);
}

Test(sample, every_row_of_it_is_judged) {
    hm_call *call = done_call(line);
    hm_sample s = sample_of(call, MOST);
    for (int64_t k = 0; k < s.n; k++) {
        unsigned char *at = element(call, s.row[k], N - 1), was = at[1];
        at[1] ^= 0x40; /* another exponent */
        hm_verdict v = judged(call, MOST);
        cr_expect_eq(v.outcome, HM_FAIL, "row %lld", (long long)s.row[k]);
        cr_expect(v.outside == 1 && v.worst_index[0] == s.row[k] && v.worst_index[1] == N - 1);
        at[1] = was;
    }
    cr_expect_eq(judged(call, MOST).outcome, HM_PASS);
    hm_sample_free(&s);
    hm_call_free(call);
}

/* A row that golden would not have been asked for. */
static int64_t outside(hm_call *call) {
    hm_sample s = sample_of(call, MOST);
    int64_t row = 0;
    for (int64_t k = 0; k < s.n && s.row[k] == row; k++) row++;
    hm_sample_free(&s);
    return row;
}

Test(sample, effects_and_unwritten_rows_are_seen_everywhere) {
    hm_call *call = done_call(line);
    int64_t row = outside(call);
    unsigned char *at = element(call, row, 5), was[2];
    memcpy(was, at, 2);
    memset(at, HM_POISON, 2); /* one element */
    hm_verdict v = judged(call, MOST);
    cr_expect_eq(v.outcome, HM_FAIL);
    cr_expect(v.rows_judged == MOST + 1 && v.worst_index[0] == row && v.worst_index[1] == 5, "%s", v.why);
    memcpy(at, was, 2);
    hm_call_free(call);

    call = done_call("rms_norm x=bf16[1000,16] weight=bf16[16] stride=out:17,1");
    row = outside(call);
    *element(call, row, N) ^= 1; /* in the gap behind the row */
    v = judged(call, MOST);
    cr_expect_eq(v.outcome, HM_FAIL);
    cr_expect(strstr(v.why, "stride gap"), "%s", v.why);
    hm_call_free(call);
}

Test(sample, what_starts_as_an_input_is_judged_whole) {
    hm_call *call = done_call("rms_norm x=bf16[1000,16] weight=bf16[16] alias=out:x");
    cr_expect_eq(judged(call, MOST).rows_judged, ROWS);
    hm_call_free(call);
    call = done_call(
        "concat_and_cache_mla kv_c=bf16[9,512] k_pe=bf16[9,64] slot_mapping=i64[9] kv_cache=u8[8,64,656] "
        "format=fp8_ds_mla");
    hm_verdict v = judged(call, 4);
    cr_expect_eq(v.outcome, HM_PASS, "%s", v.why);
    cr_expect_eq(v.rows_judged, v.rows);
    hm_call_free(call);
}

/* Codes may well be 0x7B: one of them alone does not make its row part of the sample. */
Test(sample, bytes_that_happen_to_look_like_poison) {
    hm_call *call = done_call("quant_fp8_group x=bf16[1000,128] scale=f32[1000,1] codes=f8e4m3");
    hm_tensor *codes = NULL;
    for (int i = 0; i < call->op->nargs; i++)
        if (!strcmp(call->op->args[i].name, "codes")) codes = hm_arg_tensor(call->op, call->args, i);
    int64_t alike = 0;
    for (int64_t i = 0; i < 128000; i++) alike += ((unsigned char *)codes->data)[i] == HM_POISON;
    cr_assert_gt(alike, 100);
    hm_verdict v = judged(call, 16);
    cr_expect_eq(v.outcome, HM_PASS, "%s", v.why);
    cr_expect(v.rows == 2000 && v.rows_judged == 32, "%lld", (long long)v.rows_judged);
    hm_call_free(call);
}
