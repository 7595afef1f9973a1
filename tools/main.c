/* hallmark: certifies implementations of LLM inference ops. One verb a file: cmd_<verb>.c. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../eval/eval.h"
#include "cli.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv); /* NULL: not there yet */
    const char *about;
} verbs[] = {
    {"list", hm_cmd_list, "ops, implementations, cases, generators, faults, variants"},
    {"certify", hm_cmd_certify, "judge an implementation on a suite of cases; write a certificate"},
    {"golden", hm_cmd_golden, "ideal value and admissible interval of every output of a trace"},
    {"replay", hm_cmd_replay, "judge recorded outputs, or run an implementation on recorded inputs"},
    {"bench", hm_cmd_bench, "time what certifies: GB/s and the share of what this machine can do"},
    {"selftest", hm_cmd_selftest, "is the judge itself any good: kill matrix and false alarms"},
    {"diagnose", NULL, "name the fault that explains a divergence"},
    {"eval", hm_cmd_eval, "word problems through an implementation, paired against the golden path"},
    {"report", NULL, "one page for a set of certificates"},
    {"verify", NULL, "check a certificate again"},
};
enum { VERBS = sizeof verbs / sizeof *verbs };

static void print_help(FILE *to) {
    fputs(
        "Usage: hallmark VERB [OPTION...]\n"
        "Judges kernels of LLM inference ops, element by element, against what a correct one may return.\n\n",
        to);
    for (int i = 0; i < VERBS; i++)
        fprintf(to, "  %-10s %s%s\n", verbs[i].name, verbs[i].about, verbs[i].run ? "" : " (not in this version)");
    fputs(
        "\nhallmark VERB --help explains a verb. To begin: hallmark certify --suite smoke; hallmark list ops\n"
        "Exit codes: 0 conforms, 1 does not, 2 usage or a bad file, 3 nothing ran, 4 vacuous, 70 internal error.\n",
        to);
}

/* A suite is thousands of short parallel regions. libgomp's threads spin for milliseconds at the end of each, and on a
 * busy machine (measured: 6 s for 0.1 s of work) they spin in place of whoever has work to do. It reads its waiting
 * policy before main, so the tool sets it and starts itself again. A bench is left alone: it times what a program gets
 * that sets nothing. */
static void wait_passively(char **argv) {
    if (!strcmp(argv[1], "bench") || getenv("OMP_WAIT_POLICY") || setenv("OMP_WAIT_POLICY", "passive", 0)) return;
    execv("/proc/self/exe", argv); /* if it fails, we are merely slow */
}

/* Descriptors 0 to 2 exist, so that nothing we open (a plug-in's socket) is taken for the standard output of somebody.
 */
static void keep_standard_streams(void) {
    int fd;
    do fd = open("/dev/null", O_RDONLY); /* writing there fails, and is noticed */
    while (fd >= 0 && fd <= 2);
    if (fd > 2) close(fd);
}

int main(int argc, char **argv) {
    keep_standard_streams();
    hm_worker_main(argc, argv);
    hm_eval_worker_main(argc, argv);
    argp_program_version = "hallmark " HM_VERSION;
    if (argc < 2) {
        print_help(stderr);
        return HM_EXIT_USAGE;
    }
    const char *verb = argv[1];
    if (!strcmp(verb, "--help") || !strcmp(verb, "-?") || !strcmp(verb, "help")) {
        print_help(stdout);
        return HM_EXIT_OK;
    }
    if (!strcmp(verb, "--version") || !strcmp(verb, "-V")) {
        puts(argp_program_version);
        return HM_EXIT_OK;
    }
    for (int i = 0; i < VERBS; i++) {
        if (strcmp(verb, verbs[i].name)) continue;
        if (!verbs[i].run) hm_die(HM_EXIT_USAGE, "\"%s\" is not in this version of hallmark", verb);
        wait_passively(argv);
        char name[64];
        snprintf(name, sizeof name, "hallmark %s", verb);
        argv[1] = name;
        int code = verbs[i].run(argc - 1, argv + 1);
        if (fflush(stdout) || ferror(stdout)) hm_die(HM_EXIT_INTERNAL, "standard output could not be written");
        return code;
    }
    hm_die(HM_EXIT_USAGE, "there is no verb \"%s\"; hallmark --help lists them", verb);
}
