/* Plug-ins in their own process: every way to go wrong ends in a sentence, and the judge lives on. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "certify/judge.h"

/* Criterion owns main(); a constructor sees argv before it. */
__attribute__((constructor)) static void become_worker(int argc, char **argv) { hm_worker_main(argc, argv); }

static const char *path_of(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s.so", HM_PLUGINS, name);
    return path;
}

static hm_impl *open_plugin(const char *name, double timeout) {
    char why[512] = "";
    hm_impl *impl = hm_impl_open(path_of(name), timeout, why, sizeof why);
    cr_assert(impl, "%s: %s", name, why);
    return impl;
}

static hm_call *call_of(const char *line) {
    static hm_case_spec spec;
    hm_call *call;
    char why[512] = "";
    cr_assert_eq(hm_case_parse(line, &spec, why, sizeof why), HM_OK, "%s", why);
    cr_assert_eq(hm_call_from_case(&spec, &call, why, sizeof why), HM_OK, "%s", why);
    return call;
}

static hm_verdict judge_with(hm_impl *impl, const char *line, bool require_invariance) {
    hm_judge_options options = {
        .required = HM_CLASS_NONE, .check_invariance = true, .require_invariance = require_invariance};
    hm_verdict v;
    hm_call *call = call_of(line);
    hm_judge(impl, call, &options, &v);
    hm_call_free(call);
    return v;
}

/* A process whose parent is `parent`; 0 if there is none. state: 'Z' for one that is dead already. */
static pid_t child_of(pid_t parent) {
    DIR *all = opendir("/proc");
    pid_t found = 0;
    for (struct dirent *entry; (entry = readdir(all)) && !found;) {
        char path[300];
        int pid, of;
        snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
        FILE *file = fopen(path, "r");
        if (!file) continue;
        if (fscanf(file, "%d %*[^)]) %*c %d", &pid, &of) == 2 && of == parent) found = pid;
        fclose(file);
    }
    closedir(all);
    return found;
}

#define PLAIN "rms_norm x=f32[5,64]"

Test(worker, a_bad_plugin_fails_with_the_way_it_went_wrong) {
    static const struct {
        const char *plugin;
        hm_outcome outcome;
        const char *why;
    } rows[] = {
        {"segfault", HM_FAIL, "killed by SIGSEGV"},
        {"loops", HM_FAIL, "no answer in 0.5 s"},
        {"exits", HM_FAIL, "called exit(0)"},
        {"aborts", HM_FAIL, "killed by SIGABRT"},
        {"writes_past", HM_FAIL, "in the guard zone after it"},
        {"writes_far", HM_FAIL, "killed by SIGSEGV"},
        {"writes_before", HM_FAIL, "in the guard zone before it"},
        {"modifies_input", HM_FAIL, "x: 4 bytes changed of what is input"},
        {"error_but_writes", HM_FAIL, "returned unsupported and still"},
        {"bad_status", HM_FAIL, "returned 77, which is no hm_status"},
        {"declines", HM_DECLINED, "declined"},
        {"on_cuda", HM_SKIPPED, "CUDA"},
        {"fast_math", HM_PASS, ""},
        {"prints", HM_PASS, ""},
        {"openmp", HM_PASS, ""},
        {"fenced", HM_PASS, ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        hm_impl *impl = open_plugin(rows[i].plugin, strcmp(rows[i].plugin, "loops") ? 60 : 0.5);
        for (int again = 0; again < 2; again++) { /* the worker is started again after a death */
            hm_verdict v = judge_with(impl, PLAIN, true);
            cr_expect_eq(v.outcome, rows[i].outcome, "%s: %s", rows[i].plugin, v.why);
            cr_expect(strstr(v.why, rows[i].why), "%s: \"%s\" does not say \"%s\"", rows[i].plugin, v.why, rows[i].why);
            cr_expect_eq(v.why[0] == 0, rows[i].why[0] == 0, "%s: %s", rows[i].plugin, v.why);
            if (!strcmp(rows[i].plugin, "loops")) cr_expect_eq(child_of(getpid()), 0, "its worker still runs");
        }
        hm_impl_close(impl);
    }
}

Test(worker, what_is_no_plugin_is_refused_in_one_sentence) {
    static const struct {
        const char *plugin, *why;
    } rows[] = {
        {"wrong_abi", "its hm_plugin_abi is 7; it has to be 1"},
        {"no_abi", "it does not export hm_plugin_abi"},
        {"offers_nothing", "it offers no op"},
        {"dies_loading", "called exit(3)"},
        {"there_is_no_such_file", "No such file or directory"},
    };
    char why[512];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        why[0] = 0;
        cr_expect_null(hm_impl_open(path_of(rows[i].plugin), 5, why, sizeof why), "%s", rows[i].plugin);
        cr_expect(strstr(why, rows[i].why), "\"%s\" does not say \"%s\"", why, rows[i].why);
        cr_expect(strstr(why, rows[i].plugin), "%s", why);
        cr_expect_null(strchr(why, '\n'), "%s", why);
    }
    cr_expect_null(hm_impl_open("./LICENSE", 5, why, sizeof why));
    cr_expect(strstr(why, "no ELF file"), "%s", why);
    cr_expect_null(hm_impl_open(".", 5, why, sizeof why));
    cr_expect_null(hm_impl_open("/", 5, why, sizeof why));
    cr_expect(strstr(why, "no ELF file"), "%s", why);
}

Test(worker, an_elf_file_that_cannot_be_loaded_is_refused) {
    char path[] = "/tmp/hm-worker-XXXXXX", why[512] = "";
    int fd = mkstemp(path);
    cr_assert(fd >= 0 && write(fd, "\177ELF and nothing more", 21) == 21);
    close(fd);
    cr_expect_null(hm_plugin_open(path, 5, why, sizeof why));
    cr_expect(strstr(why, "it cannot be loaded"), "%s", why);
    unlink(path);
}

Test(worker, a_file_that_changes_while_it_is_judged_is_not_judged_on) {
    char copy[] = "/tmp/hm-changes-XXXXXX.so", command[700], why[512];
    close(mkstemps(copy, 3));
    snprintf(command, sizeof command, "cp %s %s", path_of("exits"), copy);
    cr_assert_eq(system(command), 0);
    hm_impl *impl = hm_impl_open(copy, 20, why, sizeof why);
    cr_assert(impl, "%s", why);
    cr_expect_str_eq(judge_with(impl, PLAIN, false).why, "called exit(0)");
    snprintf(command, sizeof command, "cp --remove-destination %s %s", path_of("openmp"), copy);
    cr_assert_eq(system(command), 0);
    hm_verdict v = judge_with(impl, PLAIN, false);
    cr_expect(v.outcome == HM_FAIL && strstr(v.why, "changed while it was being judged"), "%s", v.why);
    hm_impl_close(impl);
    unlink(copy);
}

Test(worker, other_ops_and_layouts) {
    hm_impl *impl = open_plugin("openmp", 20);
    cr_expect_str_eq(impl->name, "openmp.so");
    cr_expect(!impl->ours);
    hm_verdict v = judge_with(impl, "fused_add_rms_norm x=f32[2,8]", false);
    cr_expect_eq(v.outcome, HM_NOT_OFFERED);
    v = judge_with(impl, "rms_norm x=f32[5,64] stride=x:67,1;out:80,1", false);
    cr_expect_eq(v.outcome, HM_PASS, "%s", v.why);
    v = judge_with(impl, "rms_norm x=f32[5,64] alias=out:x", false);
    cr_expect_eq(v.outcome, HM_PASS, "%s", v.why);
    v = judge_with(impl, "rms_norm x=bf16[5,64]", false);
    cr_expect_eq(v.outcome, HM_DECLINED, "%s", v.why);
    hm_impl_close(impl);
}

Test(worker, examples) {
    static const char *const lines[] = {"rms_norm x=bf16[7,96] weight=bf16[96]",
                                        "rms_norm x=bf16[7,96] weight=bf16[96] alias=out:x"};
    hm_impl *right = open_plugin("example_right", 20), *wrong = open_plugin("example_wrong", 20);
    for (int i = 0; i < 2; i++) {
        hm_verdict v = judge_with(right, lines[i], true);
        cr_expect_eq(v.outcome, HM_PASS, "%s", v.why);
        v = judge_with(wrong, lines[i], true);
        cr_expect_eq(v.outcome, HM_FAIL);
        cr_expect(strstr(v.why, "are outside: out["), "%s", v.why);
    }
    hm_verdict v = judge_with(right, "rms_norm x=bf16[7,96] weight=bf16[96] eps=-1 expect=bad_param", true);
    cr_expect_eq(v.outcome, HM_PASS, "%s", v.why);
    hm_impl_close(right);
    hm_impl_close(wrong);
}

Test(worker, fast_math_stays_in_its_process) {
    hm_impl *impl = open_plugin("fast_math", 20);
    cr_expect_str_eq(impl->name, "fast-math");
    cr_expect_eq(judge_with(impl, PLAIN, true).outcome, HM_PASS);
    volatile double tiny = 0x1p-1074;
    cr_expect(tiny * 1.0 > 0);
    cr_expect(hm_golden_environment(3));
    hm_impl_close(impl);
}

Test(worker, what_it_prints_is_not_our_output) {
    char path[] = "/tmp/hm-stdout-XXXXXX";
    int fd = mkstemp(path), saved = dup(1), null = open("/dev/null", O_WRONLY), error = dup(2);
    fflush(stdout);
    dup2(fd, 1), dup2(null, 2);
    hm_impl *impl = open_plugin("prints", 20);
    hm_verdict v = judge_with(impl, PLAIN, false);
    hm_impl_close(impl);
    dup2(saved, 1), dup2(error, 2);
    cr_expect_eq(v.outcome, HM_PASS);
    cr_expect_eq(lseek(fd, 0, SEEK_END), 0);
    unlink(path);
}

Test(worker, invariance_is_reported_and_can_be_required) {
    hm_impl *impl = open_plugin("batch_dependent", 20);
    hm_verdict v = judge_with(impl, PLAIN, false);
    cr_expect_eq(v.outcome, HM_PASS, "%s", v.why);
    cr_expect_str_eq(v.invariance, "differs: row 0 alone");
    v = judge_with(impl, PLAIN, true);
    cr_expect_eq(v.outcome, HM_FAIL);
    cr_expect(strstr(v.why, "row 0 alone"), "%s", v.why);
    hm_impl_close(impl);
}

Test(worker, sha256_of_the_file) {
    char large[] = "/tmp/hm-large-XXXXXX.so", command[700], want[65] = "", why[512];
    close(mkstemps(large, 3));
    snprintf(command, sizeof command, "cp %s %s && truncate -s 300001 %s && sha256sum %s", path_of("openmp"), large,
             large, large);
    FILE *pipe = popen(command, "r");
    cr_assert(pipe && fscanf(pipe, "%64s", want) == 1);
    pclose(pipe);
    hm_impl *impl = hm_impl_open(large, 20, why, sizeof why);
    cr_assert(impl, "%s", why);
    cr_expect_str_eq(impl->sha256, want);
    hm_impl_close(impl);
    unlink(large);
}

static bool alive(pid_t pid) {
    char path[64], state = 'Z';
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (!file) return false;
    if (fscanf(file, "%*d %*[^)]) %c", &state) != 1) state = 'Z';
    fclose(file);
    return state != 'Z';
}

static bool gone_soon(pid_t pid) {
    for (int i = 0; i < 500 && alive(pid); i++) nanosleep(&(struct timespec){0, 10000000}, NULL);
    return !alive(pid);
}

Test(worker, dies_with_its_parent_and_on_close) {
    pid_t parent = fork();
    if (parent == 0) {
        char why[512];
        hm_impl *impl = hm_impl_open(path_of("loops"), 60, why, sizeof why);
        hm_run run;
        if (impl) impl->run(impl, call_of(PLAIN), call_of(PLAIN)->args, &run);
        _exit(1);
    }
    pid_t worker = 0;
    for (int i = 0; i < 500 && !worker; i++) {
        nanosleep(&(struct timespec){0, 10000000}, NULL);
        worker = child_of(parent);
    }
    cr_assert(worker && alive(worker));
    nanosleep(&(struct timespec){0, 200000000}, NULL); /* it is in its loop, and listens to nobody */
    kill(parent, SIGKILL);
    waitpid(parent, NULL, 0);
    cr_expect(gone_soon(worker));

    hm_impl *impl = open_plugin("openmp", 20);
    worker = child_of(getpid());
    cr_assert(worker && alive(worker));
    hm_impl_close(impl);
    cr_expect(!alive(worker));
}
