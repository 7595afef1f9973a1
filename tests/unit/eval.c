/* Word problems through implementations: whatever goes wrong there ends in a sentence, what is measured does not
 * depend on how it was run, and the op that is to blame is named. */
#include "eval/eval.h"

#include <criterion/criterion.h>
#include <hallmark/rms_norm.h>
#include <libxml/parser.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "emulated.h"
#include "eval/device.h"
#include "eval/plot.h"

/* Criterion owns main(); a constructor sees argv before it. */
__attribute__((constructor)) static void become_worker(int argc, char **argv) {
    hm_worker_device = &emulated;
    hm_worker_main(argc, argv);
    hm_eval_worker_main(argc, argv);
}

static hm_eval *open_eval(int processes, double timeout) {
    char why[512] = "";
    hm_eval_options options = {
        .folder = "data/gsm8k", .teacher_forced = true, .greedy = true, .processes = processes, .timeout = timeout};
    hm_eval *e = hm_eval_open(&options, why, sizeof why);
    cr_assert(e, "%s", why);
    return e;
}

static const char *plugin(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s.so", HM_PLUGINS, name);
    return path;
}

static const int64_t some[] = {9, 100, 250, 8};

/* A path over n of them, with one implementation. */
static hm_eval_path path_with(const char *spec, int64_t n) {
    bool provides[HM_MODEL_OPS];
    char why[512] = "";
    hm_eval_path p = {.problem = some, .problems = n};
    cr_assert(hm_eval_spec_check(spec, provides, why, sizeof why), "%s", why);
    for (int i = 0; i < HM_MODEL_OPS; i++)
        if (provides[i]) p.of[i] = spec;
    return p;
}

/* One problem through a plug-in or a fault. */
static hm_eval_result run(const char *spec, double timeout) {
    hm_eval *e = open_eval(1, timeout);
    hm_eval_path p = path_with(spec, 1);
    hm_eval_result r;
    cr_assert(hm_eval_run(e, &p, 1, &r));
    hm_eval_close(e);
    return r;
}

static void expect_end(const char *name, hm_eval_end end, const char *words) {
    hm_eval_result r = run(plugin(name), 2);
    cr_assert_eq(r.end, end, "%s: %d, %s", name, (int)r.end, r.why);
    cr_assert(strstr(r.why, words), "%s: %s", name, r.why);
    hm_eval_result_free(&r);
}

/* ---- implementations that go wrong ------------------------------------------------------------------------------ */

Test(eval, a_crash_is_told) { expect_end("segfault", HM_EVAL_DIED, "killed by SIGSEGV in rms_norm (p0.l0.attn_norm)"); }
Test(eval, an_abort_is_told) { expect_end("aborts", HM_EVAL_DIED, "killed by SIGABRT in rms_norm (p0.l0.attn_norm)"); }
Test(eval, an_exit_is_told) { expect_end("exits", HM_EVAL_DIED, "called exit(0) in rms_norm (p0.l0.attn_norm)"); }
Test(eval, silence_is_told) { expect_end("loops", HM_EVAL_DIED, "no answer in 2 s in rms_norm (p0.l0.attn_norm)"); }

/* ---- a device --------------------------------------------------------------------------------------------------- */

Test(eval, on_a_device_as_on_the_host) {
    hm_eval_result host = run(plugin("model_ops"), HM_EVAL_TIMEOUT),
                   device = run(plugin("cuda_model_ops"), HM_EVAL_TIMEOUT);
    cr_assert_eq(device.end, HM_EVAL_DONE, "%s", device.why);
    cr_assert_eq(host.bits, device.bits);
    cr_assert_str_eq(host.device, "");
    cr_assert_str_eq(device.device, "emulated");
    cr_assert_eq(host.calls[HM_MODEL_rms_norm], device.calls[HM_MODEL_rms_norm]);
    cr_assert_gt(device.calls[HM_MODEL_silu_and_mul], 0);
    cr_assert_eq(device.calls[HM_MODEL_linear], 0);
    hm_eval_result_free(&host), hm_eval_result_free(&device);
}

Test(eval, a_device_that_fails_is_told) {
    setenv("EMULATED_FAILURE", "1", 1);
    expect_end("cuda_model_ops", HM_EVAL_REFUSED,
               "rms_norm (p0.l0.attn_norm): internal: emulated: an illegal memory access was encountered");
}

static hm_status seen_x, seen_out;
static const float *x_there, *out_there;

/* Doubles x, which is a slice of what the output lies in, too; and writes one element behind the output. */
static hm_status doubles(const void *args) {
    const hm_rms_norm_args *a = args;
    x_there = a->x.data, out_there = a->out.data;
    seen_x = a->x.place == HM_CUDA, seen_out = a->out.place == HM_CUDA;
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 3; k++) ((float *)a->out.data)[i * 8 + k] = 2 * x_there[i * 8 + k];
    ((float *)a->out.data)[28] = 99;
    return a->eps == 1 ? HM_UNSUPPORTED : HM_OK;
}

static hm_status nothing(const void *args) { return ((const hm_rms_norm_args *)args)->x.data ? HM_INTERNAL : HM_OK; }

Test(eval, tensors_on_a_device_lie_as_on_the_host) {
    _Alignas(256) float memory[64];
    char why[256];
    bool lost;
    const int64_t shape[] = {4, 3};
    for (int i = 0; i < 64; i++) memory[i] = (float)i;
    hm_tensor x = hm_tensor_of(memory + 1, HM_F32, 2, shape), out = hm_tensor_of(memory + 4, HM_F32, 2, shape);
    x.stride[0] = out.stride[0] = 8;
    const hm_rms_norm_args *args = HM_ARGS(rms_norm, .x = x, .out = out);
    hm_status s = device_call(hm_op_named("rms_norm"), doubles, args, &lost, why, sizeof why);
    cr_assert_eq(s, HM_OK, "%s", why);
    cr_assert(seen_x && seen_out && !lost);
    cr_assert_eq(out_there - x_there, 3);                 /* one buffer, since they overlap */
    cr_assert_eq((uintptr_t)x_there % 256, 4);            /* aligned as here */
    cr_assert(x_there < memory || x_there > memory + 64); /* and elsewhere */
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 8; k++) {
            float want = k >= 4 && k < 7 ? 2 * (float)(i * 8 + k - 3) : (float)(i * 8 + k);
            cr_assert_eq(memory[i * 8 + k], want, "%d %d: %g", i, k, memory[i * 8 + k]);
        }
    /* what is declined leaves nothing */
    for (int i = 0; i < 64; i++) memory[i] = (float)i;
    args = HM_ARGS(rms_norm, .x = x, .out = out, .eps = 1);
    cr_assert_eq(device_call(hm_op_named("rms_norm"), doubles, args, &lost, why, sizeof why), HM_UNSUPPORTED);
    for (int i = 0; i < 64; i++) cr_assert_eq(memory[i], (float)i);
    /* nothing at all */
    x = out = hm_tensor_of(NULL, HM_F32, 1, (const int64_t[]){0});
    args = HM_ARGS(rms_norm, .x = x, .out = out, .eps = 1);
    cr_assert_eq(device_call(hm_op_named("rms_norm"), nothing, args, &lost, why, sizeof why), HM_OK);
}

Test(eval, a_write_into_the_weights_is_told) {
    hm_eval_result r = run("fault:rms_norm.weight_incremented", HM_EVAL_TIMEOUT);
    cr_assert_eq(r.end, HM_EVAL_DIED);
    cr_assert(strstr(r.why, "killed by SIGSEGV in rms_norm"), "%s", r.why);
    hm_eval_result_free(&r);
}

Test(eval, a_refusal_is_told) {
    static const struct {
        hm_model_op op;
        const char *words;
    } list[] = {{HM_MODEL_layer_norm, "layer 0, layer_norm (p0.l0.index_norm): bad_value"},
                {HM_MODEL_embedding, "returned 77, which is no hm_status"}};
    hm_eval *e = open_eval(2, HM_EVAL_TIMEOUT);
    for (int i = 0; i < 2; i++) {
        hm_eval_path p = {.problem = some, .problems = 1};
        hm_eval_result r;
        p.of[list[i].op] = plugin("model_refuses");
        cr_assert(hm_eval_run(e, &p, 1, &r));
        cr_assert_eq(r.end, HM_EVAL_REFUSED, "%d %s", (int)r.end, r.why);
        cr_assert(strstr(r.why, list[i].words), "%s", r.why);
        hm_eval_result_free(&r);
    }
    hm_eval_close(e);
}

Test(eval, the_first_group_that_ends_early_is_the_one_that_is_told) {
    enum { MANY = 3 * HM_EVAL_GROUP };
    int64_t problem[MANY];
    hm_eval *e = open_eval(3, HM_EVAL_TIMEOUT);
    hm_eval_path p = path_with(plugin("segfault"), 1);
    hm_eval_result r;
    hm_eval_options_of(e)->greedy = false;
    for (int i = 0; i < MANY; i++) problem[i] = i;
    p.problem = problem, p.problems = MANY;
    cr_assert(hm_eval_run(e, &p, 1, &r));
    cr_assert_eq(r.end, HM_EVAL_DIED);
    cr_assert_eq(r.ended_at, 0);
    cr_assert_eq(r.right, 0);
    hm_eval_result_free(&r);
    hm_eval_close(e);
}

Test(eval, what_is_declined_is_done_by_ref) {
    hm_eval_result r = run(plugin("declines"), HM_EVAL_TIMEOUT);
    cr_assert_eq(r.end, HM_EVAL_DONE, "%s", r.why);
    cr_assert(r.calls[HM_MODEL_rms_norm] > 0);
    cr_assert_eq(r.declined[HM_MODEL_rms_norm], r.calls[HM_MODEL_rms_norm]);
    cr_assert_eq(r.level[HM_EVAL_FORCED].mean, 0);
    cr_assert_eq(r.level[HM_EVAL_GREEDY].mean, 0);
    hm_eval_result_free(&r);
}

/* The plug-in works in the floating-point environment that loading it made, and nobody else does. */
Test(eval, a_plug_in_has_its_own_environment) {
    hm_eval *e = open_eval(2, HM_EVAL_TIMEOUT);
    hm_eval_path p[2] = {path_with(plugin("model_ops"), 2), path_with("variant:rms_norm.sum_f64", 2)};
    hm_eval_result r[2];
    p[0].of[HM_MODEL_silu_and_mul] = NULL;
    cr_assert(hm_eval_run(e, p, 2, r));
    cr_assert_eq(r[0].end, HM_EVAL_DONE, "%s", r[0].why);
    cr_assert_eq(r[0].declined[HM_MODEL_rms_norm], 0);
    cr_assert_eq(r[0].calls[HM_MODEL_rms_norm], r[1].calls[HM_MODEL_rms_norm]);
    cr_assert(r[0].level[HM_EVAL_FORCED].mean < 1e-3);
    for (int i = 0; i < 2; i++) hm_eval_result_free(&r[i]);
    hm_eval_close(e);
}

/* Rounding upward would change every op of ref. */
Test(eval, nobody_else_has_a_plug_ins_environment) {
    hm_eval_result r = run(plugin("model_rounds"), HM_EVAL_TIMEOUT), ref = run("ref", HM_EVAL_TIMEOUT);
    cr_assert_eq(r.end, HM_EVAL_DONE, "%s", r.why);
    cr_assert(r.calls[HM_MODEL_embedding] > r.declined[HM_MODEL_embedding]);
    cr_assert_eq(r.bits, ref.bits);
    hm_eval_result_free(&r);
    hm_eval_result_free(&ref);
}

Test(eval, what_cannot_be_run_is_refused) {
    static const struct {
        const char *spec, *words;
    } bad[] = {{"cublas", "there is no implementation \"cublas\""},
               {"fault:rms_norm.nonsense", "there is no fault \"rms_norm.nonsense\""},
               {"variant:rms_norm.nonsense@q_norm", "there is no variant \"rms_norm.nonsense\""},
               {"./nowhere.so", "No such file"},
               {"CMakeLists.txt.so/", "/"}};
    char why[512];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_not(hm_eval_spec_check(bad[i].spec, NULL, why, sizeof why));
        cr_assert(strstr(why, bad[i].words), "%s: %s", bad[i].spec, why);
    }
    cr_assert_not(hm_eval_spec_check(plugin("dies_loading"), NULL, why, sizeof why));
    cr_assert(strstr(why, "exit(3)"), "%s", why);
    cr_assert_not(hm_eval_open(&(hm_eval_options){.folder = "tests"}, why, sizeof why));
    cr_assert(strstr(why, "tests/model.safetensors"), "%s", why);
}

/* ---- what is measured ------------------------------------------------------------------------------------------- */

Test(eval, ref_is_the_golden_path) {
    hm_eval_result r = run("ref", HM_EVAL_TIMEOUT);
    cr_assert_eq(r.end, HM_EVAL_DONE, "%s", r.why);
    cr_assert_eq(r.right, r.golden_right);
    cr_assert_eq(r.same_answer, 1);
    cr_assert_eq(r.correct, r.golden_correct);
    cr_assert_eq(r.level[HM_EVAL_FORCED].mean, 0);
    cr_assert_eq(r.level[HM_EVAL_FORCED].tokens, r.tokens);
    cr_assert(r.level[HM_EVAL_GREEDY].tokens > 0);
    hm_eval_result_free(&r);
}

/* Greedy answers are compared up to the first other word, and with that. */
Test(eval, the_first_other_word_is_compared) {
    hm_eval_result r = run("fault:embedding.one_based", HM_EVAL_TIMEOUT);
    cr_assert_eq(r.end, HM_EVAL_DONE, "%s", r.why);
    cr_assert_eq(r.level[HM_EVAL_GREEDY].tokens, 1);
    cr_assert(r.level[HM_EVAL_GREEDY].mean > 1);
    cr_assert_eq(r.lost, r.golden_right);
    hm_eval_result_free(&r);
}

/* Neither processes nor the golden path's grouping count, nor that ref is run for a plug-in that declines. */
Test(eval, the_same_bits_however_it_is_run) {
    uint64_t bits[3][2];
    for (int k = 0; k < 3; k++) {
        hm_eval *e = open_eval(k + 1, HM_EVAL_TIMEOUT);
        hm_eval_path p[2] = {path_with("fault:rms_norm.rs_previous_row", 3),
                             path_with(k == 2 ? plugin("declines") : "ref", 3)};
        hm_eval_result r[2];
        cr_assert(hm_eval_run(e, p, 2, r));
        for (int i = 0; i < 2; i++) bits[k][i] = r[i].bits, hm_eval_result_free(&r[i]);
        hm_eval_close(e);
    }
    for (int k = 1; k < 3; k++)
        for (int i = 0; i < 2; i++) cr_assert_eq(bits[0][i], bits[k][i], "%d %d", k, i);
    cr_assert_neq(bits[0][0], bits[0][1]);
}

Test(eval, a_site_is_one_kind_of_call) {
    hm_eval *e = open_eval(2, HM_EVAL_TIMEOUT);
    hm_eval_path p[3] = {path_with("fault:rotary_embedding.not_rotated", 1),
                         path_with("fault:rotary_embedding.not_rotated@index_rope", 1),
                         path_with("fault:rotary_embedding.not_rotated@rope", 1)};
    hm_eval_result r[3];
    int64_t calls[3];
    for (int i = 0; i < 3; i++) p[i].of[HM_MODEL_silu_and_mul] = NULL;
    hm_eval_options_of(e)->greedy = false;
    cr_assert(hm_eval_run(e, p, 3, r));
    for (int i = 0; i < 3; i++) {
        calls[i] = r[i].calls[HM_MODEL_rotary_embedding];
        cr_assert(r[i].level[HM_EVAL_FORCED].mean > 0.01);
        hm_eval_result_free(&r[i]);
    }
    cr_assert_eq(calls[1], calls[2]);
    cr_assert_eq(calls[0], calls[1] + calls[2]);
    hm_eval_close(e);
}

/* What an op that does not write leaves: what was there, zeros, or what was right a layer before. */
Test(eval, outputs_before_a_call) {
    hm_eval *e = open_eval(2, HM_EVAL_TIMEOUT);
    hm_eval_path p[3];
    hm_eval_result r[3];
    for (int i = 0; i < 3; i++)
        p[i] = path_with("fault:silu_and_mul.nothing_written", 1), p[i].before = (hm_eval_before)i;
    hm_eval_options_of(e)->greedy = false;
    cr_assert(hm_eval_run(e, p, 3, r));
    for (int i = 0; i < 3; i++) cr_assert_eq(r[i].end, HM_EVAL_DONE, "%s", r[i].why);
    cr_assert_eq(r[HM_EVAL_AS_THEY_ARE].bits,
                 r[HM_EVAL_CLEARED].bits); /* it was cleared, and nobody else writes there */
    cr_assert_neq(r[HM_EVAL_CLEARED].bits, r[HM_EVAL_STALE].bits);
    for (int i = 0; i < 3; i++) hm_eval_result_free(&r[i]);
    hm_eval_close(e);
}

Test(eval, an_order_is_a_permutation_that_is_spread) {
    for (int64_t n = 1; n < 300; n++) {
        int64_t *at = hm_eval_order(n);
        bool seen[300] = {false};
        for (int64_t i = 0; i < n; i++) {
            cr_assert(at[i] >= 0 && at[i] < n && !seen[at[i]]);
            seen[at[i]] = true;
        }
        free(at);
    }
    int64_t *at = hm_eval_order(400), first = 0;
    for (int i = 0; i < 40; i++) first += at[i] < 200;
    cr_assert(first >= 18 && first <= 22);
    free(at);
}

/* ---- noise ------------------------------------------------------------------------------------------------------ */

Test(eval, the_line_is_a_prediction_interval) {
    double same[8], two[2] = {1, exp(0.002)}, eight[8];
    for (int i = 0; i < 8; i++) same[i] = 3e-7, eight[i] = exp(i);
    cr_assert_float_eq(hm_eval_line(same, 8), 3e-7, 1e-18);
    cr_assert_float_eq(log(hm_eval_line(two, 2)), 0.001 + 318.31 * 0.001 * sqrt(2) * sqrt(1.5), 1e-6);
    cr_assert_float_eq(log(hm_eval_line(eight, 8)), 3.5 + 4.785 * sqrt(6) * sqrt(1.125), 1e-9);
}

Test(eval, above_the_line) {
    const hm_eval_level line = {.tokens = 9, .middle = 1e-6, .tail = 1e-4}, none = {0};
    hm_eval_level fine = {.tokens = 9, .mean = 1, .middle = 1e-6, .tail = 1e-4, .difference = 5}, off = fine,
                  tail = fine;
    off.middle = 1.1e-6, tail.tail = 1.1e-4;
    cr_assert_not(hm_eval_above(&fine, &line));
    cr_assert(hm_eval_above(&off, &line));
    cr_assert(hm_eval_above(&tail, &line));
    cr_assert_not(hm_eval_above(&tail, &none));
    fine.mean = INFINITY;
    cr_assert(hm_eval_above(&fine, &line));
    cr_assert(hm_eval_above(&fine, &none), "NaN is never noise");
    off = fine, off.mean = 0, off.middle = NAN;
    cr_assert(hm_eval_above(&off, &line));
}

Test(eval, legal_paths_differ_and_raise_no_alarm) {
    hm_eval *e = open_eval(3, HM_EVAL_TIMEOUT);
    hm_eval_path path[HM_EVAL_LEGAL];
    hm_eval_noise noise;
    char why[512] = "";
    bool interrupted;
    hm_eval_legal_paths(path, HM_EVAL_LEGAL);
    for (int k = 0; k < 8; k++)
        for (int i = 0; i < HM_MODEL_OPS; i++) {
            cr_assert(path[k].of[i], "%s has no legal variant", hm_model_op_info((hm_model_op)i)->name);
            cr_assert(hm_eval_spec_check(path[k].of[i], NULL, why, sizeof why), "%s", why);
            for (int j = 0; j < k && k < 6; j++) cr_assert_str_neq(path[k].of[i], path[j].of[i]);
        }
    hm_eval_options_of(e)->greedy = false;
    cr_assert_eq(hm_eval_noise_measure(e, some, 2, 3, &noise, &interrupted, why, sizeof why), HM_EVAL_DONE, "%s", why);
    cr_assert_not(interrupted);
    cr_assert_str_empty(noise.alarm, "%s", noise.alarm);
    for (int k = 0; k < 3; k++) cr_assert(noise.path[k][HM_EVAL_FORCED].mean > 0);
    cr_assert(noise.line[HM_EVAL_FORCED].middle > noise.most[HM_EVAL_FORCED].middle);
    cr_assert_eq(noise.line[HM_EVAL_GREEDY].tokens, 0);
    hm_eval_close(e);
}

/* ---- who is to blame -------------------------------------------------------------------------------------------- */

static uint32_t blamed(hm_eval_path path, bool *off) {
    const hm_eval_level line = {.tokens = 1, .middle = 1e-5, .tail = 1e-3};
    const hm_eval_noise noise = {.paths = 8, .line = {line, line}};
    hm_eval *e = open_eval(3, HM_EVAL_TIMEOUT);
    hm_eval_bisection b;
    uint32_t set = 0;
    cr_assert(hm_eval_bisect(e, &path, some, 1, &noise, &b));
    for (int i = 0; i < b.n; i++) set |= (uint32_t)b.suspect[i].blamed << b.suspect[i].op;
    *off = b.whole.off;
    cr_assert(!set || !b.without.off);
    hm_eval_close(e);
    return set;
}

static hm_eval_path with_faults(const char *a, const char *b) {
    hm_eval_path p = path_with(a, 2), q = path_with(b, 2);
    for (int i = 0; i < HM_MODEL_OPS; i++)
        if (q.of[i]) p.of[i] = q.of[i];
    return p;
}

Test(eval, two_faults_and_one_that_is_none) {
    bool off;
    hm_eval_path p = with_faults("fault:concat_mla_q.rope_half", "fault:layer_norm.zeros");
    p.of[HM_MODEL_rms_norm] = "variant:rms_norm.pairwise";
    cr_assert_eq(blamed(p, &off), 1u << HM_MODEL_concat_mla_q | 1u << HM_MODEL_layer_norm);
    cr_assert(off);
}

Test(eval, a_fault_that_hides_another_is_not_the_only_one_blamed) {
    bool off;
    hm_eval_path p = with_faults("fault:rms_norm.eps_dropped", "fault:silu_and_mul.gelu");
    cr_assert_eq(blamed(p, &off), 1u << HM_MODEL_rms_norm | 1u << HM_MODEL_silu_and_mul);
    cr_assert(off);
}

/* Each is off alone, and together they agree but for the fault that is blamed. Decoding reads what is written in
 * tiles. */
Test(eval, partners_that_agree_are_not_blamed) {
    bool off;
    hm_eval_path p =
        with_faults("fault:indexer_k_quant_and_cache.other_layout", "fault:fp8_paged_mqa_logits.other_layout");
    p.of[HM_MODEL_cp_gather_indexer_k_quant_cache] = "fault:cp_gather_indexer_k_quant_cache.other_layout";
    cr_assert_eq(blamed(p, &off), 0);
    cr_assert_not(off);
    p.of[HM_MODEL_concat_mla_q] = "fault:concat_mla_q.rope_half";
    cr_assert_eq(blamed(p, &off), 1u << HM_MODEL_concat_mla_q);
    cr_assert(off);
}

Test(eval, a_fault_of_decoding_alone_is_blamed) {
    bool off;
    hm_eval_path p = with_faults("fault:fp8_paged_mqa_logits.first_of_block", "variant:fp8_mqa_logits.lanes");
    cr_assert_eq(blamed(p, &off), 1u << HM_MODEL_fp8_paged_mqa_logits);
    cr_assert(off);
}

Test(eval, nobody_is_blamed_for_noise) {
    bool off;
    cr_assert_eq(blamed(path_with("variant:sparse_mla_decode.online", 2), &off), 0);
    cr_assert_not(off);
}

Test(eval, a_crash_is_blamed) {
    bool off;
    hm_eval_path p = path_with(plugin("segfault"), 2);
    p.of[HM_MODEL_silu_and_mul] = "variant:silu_and_mul.wide";
    cr_assert_eq(blamed(p, &off), 1u << HM_MODEL_rms_norm);
    cr_assert(off);
}

/* ---- the picture ------------------------------------------------------------------------------------------------ */

static int count(const char *text, const char *word) {
    int n = 0;
    for (; (text = strstr(text, word)); text++) n++;
    return n;
}

Test(eval, a_plot_is_svg_with_a_circle_for_each_dot) {
    const hm_dot dots[] = {{0, 1, "none", true, false},
                           {1e-30, 0.5, "tiny", true, false},
                           {3e-4, 0.5, "a < b & \"c\"", false, true},
                           {1e9, 0, "far", true, false},
                           {INFINITY, 0, "nan", true, false}};
    char *svg = hm_plot_svg(dots, 5, 1e-6, "t <", "x", "y", "filled", "hollow");
    cr_assert(svg);
    xmlDoc *doc = xmlReadMemory(svg, (int)strlen(svg), "plot.svg", NULL, XML_PARSE_NOERROR);
    cr_assert(doc);
    xmlFreeDoc(doc);
    cr_assert_eq(count(svg, "<circle"), 5 + 2);    /* and the legend's */
    cr_assert_eq(count(svg, "a &lt; b &amp;"), 2); /* its title and its label */
    cr_assert_eq(count(svg, "nan</text>"), 1);
    cr_assert_eq(count(svg, "inf"), 0);
    double x[5];
    const char *at = svg;
    for (int i = 0; i < 5; i++) x[i] = strtod((at = strstr(at, "cx=\"") + 4), NULL);
    for (int i = 1; i < 5; i++) cr_assert(x[i] > x[i - 1], "%d: %g, %g", i, x[i - 1], x[i]);
    free(svg);
}
