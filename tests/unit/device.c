/* Plug-ins on HM_CUDA, without a device: the worker is given one that is made of host memory, so that what it does
 * around a call is tested where there is no GPU. */
#include "emulated.h"

#include <criterion/criterion.h>
#include <unistd.h>

#include "certify/judge.h"

/* Criterion owns main(); a constructor sees argv before it. */
__attribute__((constructor)) static void become_worker(int argc, char **argv) {
    hm_worker_device = &emulated;
    hm_worker_main(argc, argv);
}

static hm_impl *open_plugin(const char *name) {
    static char path[512];
    char why[512] = "";
    snprintf(path, sizeof path, "%s/%s.so", HM_PLUGINS, name);
    hm_impl *impl = hm_impl_open(path, 60, why, sizeof why);
    cr_assert(impl, "%s: %s", name, why);
    return impl;
}

static hm_verdict judge_with(hm_impl *impl, const char *line) {
    static hm_case_spec spec;
    hm_judge_options options = {.required = HM_CLASS_NONE, .check_invariance = true};
    hm_call *call;
    hm_verdict v;
    char why[512] = "";
    cr_assert_eq(hm_case_parse(line, &spec, why, sizeof why), HM_OK, "%s", why);
    cr_assert_eq(hm_call_from_case(&spec, &call, why, sizeof why), HM_OK, "%s", why);
    hm_judge(impl, call, &options, &v);
    hm_call_free(call);
    return v;
}

#define PLAIN "rms_norm x=f32[5,64]"

Test(device, a_right_plugin_passes_on_copies) {
    static const char *const lines[] = {
        PLAIN,
        "rms_norm x=f32[5,64] alias=out:x",
        "rms_norm x=f32[3,64] stride=x:80,1;out:72,1",
        "rms_norm x=f32[0,64]",
        "rms_norm x=f32[3,64] stride=x:2147487744,1",
        "rms_norm x=f32[3,64] stride=x:2147487744,1;out:4294975488,1",
    };
    hm_impl *impl = open_plugin("on_cuda");
    cr_expect_eq(impl->place, HM_CUDA);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        hm_verdict v = judge_with(impl, lines[i]);
        bool empty = strstr(lines[i], "[0,") != NULL;
        cr_expect(v.outcome == HM_PASS || (empty && v.outcome == HM_VACUOUS), "%s: %s %s", lines[i],
                  hm_outcome_name(v.outcome), v.why);
        cr_expect_str_eq(v.invariance, "same");
    }
    cr_expect_str_eq(impl->device, "emulated");
    hm_impl_close(impl);
}

Test(device, a_bad_plugin_fails_as_it_does_on_the_host) {
    static const struct {
        const char *plugin;
        hm_outcome outcome;
        const char *why;
    } rows[] = {
        {"cuda_writes_past", HM_FAIL, "in the guard zone after it"},
        {"cuda_writes_before", HM_FAIL, "in the guard zone before it"},
        {"cuda_writes_far", HM_FAIL, "killed by SIGSEGV"},
        {"cuda_modifies_input", HM_FAIL, "x: 4 bytes changed of what is input"},
        {"cuda_error_but_writes", HM_FAIL, "returned unsupported and still"},
        {"cuda_bad_status", HM_FAIL, "returned 77, which is no hm_status"},
        {"cuda_declines", HM_DECLINED, "declined"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        hm_impl *impl = open_plugin(rows[i].plugin);
        for (int again = 0; again < 2; again++) {
            hm_verdict v = judge_with(impl, PLAIN);
            cr_expect_eq(v.outcome, rows[i].outcome, "%s: %s", rows[i].plugin, v.why);
            cr_expect(strstr(v.why, rows[i].why), "%s: \"%s\" does not say \"%s\"", rows[i].plugin, v.why, rows[i].why);
        }
        hm_impl_close(impl);
    }
}

Test(device, every_batch_is_tried_where_the_case_says_so) {
    static const char *const few = "rms_norm x=f32[100,64] stride=x:72,1",
                             *const every = "rms_norm x=f32[100,64] batches=every stride=x:72,1",
                             *const in_place = "rms_norm x=f32[100,64] batches=every alias=out:x";
    static const char *const plugins[] = {"one_batch", "cuda_one_batch"};
    for (int p = 0; p < 2; p++) {
        hm_impl *impl = open_plugin(plugins[p]);
        hm_verdict v = judge_with(impl, few);
        cr_expect_eq(v.outcome, HM_PASS, "%s", v.why);
        cr_expect_str_eq(v.invariance, "same");
        v = judge_with(impl, every);
        cr_expect_str_eq(v.invariance, "differs: the first 37 of 100 alone");
        v = judge_with(impl, in_place);
        cr_expect_str_eq(v.invariance, "differs: the first 37 of 100 alone");
        hm_impl_close(impl);
    }
    hm_impl *impl = open_plugin("on_cuda");
    hm_verdict v = judge_with(impl, every);
    cr_expect_str_eq(v.invariance, "same");
    v = judge_with(impl, in_place);
    cr_expect_str_eq(v.invariance, "same");
    hm_impl_close(impl);
}

Test(device, a_device_that_fails_is_a_failure_and_the_worker_is_started_again) {
    setenv("EMULATED_FAILURE", "1", 1);
    hm_impl *impl = open_plugin("on_cuda");
    hm_verdict v = judge_with(impl, PLAIN);
    cr_expect_eq(v.outcome, HM_FAIL);
    cr_expect(strstr(v.why, "an illegal memory access"), "%s", v.why);
    unsetenv("EMULATED_FAILURE");
    v = judge_with(impl, PLAIN);
    cr_expect_eq(v.outcome, HM_PASS, "%s", v.why);
    hm_impl_close(impl);
}

Test(device, places_are_the_devices) {
    hm_impl *impl = open_plugin("cuda_looks_at_places");
    hm_verdict v = judge_with(impl, PLAIN);
    cr_expect_eq(v.outcome, HM_PASS, "%s", v.why);
    v = judge_with(impl, "rms_norm x=f32[5,64] broken=x:cuda expect=bad_place");
    cr_expect_eq(v.outcome, HM_PASS, "%s", v.why);
    hm_impl_close(impl);
}
