/* cli.c: option values, the options of a run, signals. */
#include "cli.h"

#include <errno.h>
#include <omp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *verb = "hallmark"; /* for messages */

_Noreturn void hm_die(int code, const char *format, ...) {
    va_list list;
    va_start(list, format);
    fflush(stdout);
    fprintf(stderr, "%s: ", verb);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    va_end(list);
    exit(code);
}

void hm_parse(const struct argp *argp, int argc, char **argv, void *input) {
    verb = argv[0];
    argp_err_exit_status = HM_EXIT_USAGE;
    error_t failed = argp_parse(argp, argc, argv, 0, NULL, input);
    if (failed) hm_die(HM_EXIT_USAGE, "%s", strerror(failed));
}

/* ---- option values ------------------------------------------------------------------------------------------------
 */

int64_t hm_option_i64(const char *option, const char *text, int64_t least, int64_t most) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || end == text || *end || value < least || value > most)
        hm_die(HM_EXIT_USAGE, "%s is \"%s\", but must be an integer from %lld to %lld", option, text, (long long)least,
               (long long)most);
    return value;
}

double hm_option_seconds(const char *option, const char *text) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value > 0) || value > 86400)
        hm_die(HM_EXIT_USAGE, "%s is \"%s\", but must be a number of seconds above 0, at most 86400", option, text);
    return value;
}

hm_suite hm_option_suite(const char *text) {
    static const char *const names[] = {"smoke", "quick", "full"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(text, names[i])) return (hm_suite)i;
    hm_die(HM_EXIT_USAGE, "--suite is \"%s\", but must be smoke, quick or full", text);
}

const hm_op_info *hm_option_op(const char *text) {
    const hm_op_info *op = hm_op_named(text);
    if (op) return op;
    char names[512] = "";
    for (int i = 0; i < hm_op_count(); i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? ", " : "", hm_op_at(i)->name);
    hm_die(HM_EXIT_USAGE, "there is no op \"%s\"; there is %s", text, names);
}

static bool op_has_class(const hm_op_info *op, const char *name, size_t length) {
    for (const char *p = op->classes; *p; p += strspn(p, " ")) {
        size_t n = strcspn(p, " ");
        if (n == length && !strncmp(p, name, n)) return true;
        p += n;
    }
    return false;
}

static hm_class class_named(const char *name, size_t length) {
    char copy[32];
    if (length == 0 || length >= sizeof copy) return HM_CLASS_NONE;
    memcpy(copy, name, length);
    copy[length] = 0;
    return hm_class_named(copy);
}

/* --class is C, or a list OP=C,OP=C. The class asked of op; HM_CLASS_NONE if its own default. */
static hm_class class_asked(const char *classes, const hm_op_info *op) {
    for (const char *p = classes; p && *p; p += *p == ',') {
        size_t n = strcspn(p, ","), name = strcspn(p, ",=");
        if (name == n) return class_named(p, n);
        if (strlen(op->name) == name && !strncmp(op->name, p, name)) return class_named(p + name + 1, n - name - 1);
        p += n;
    }
    return HM_CLASS_NONE;
}

void hm_run_asks(hm_run_options *o, const char *op) {
    size_t n = strcspn(op, " \t");
    for (int i = 0; i < hm_op_count(); i++)
        if (strlen(hm_op_at(i)->name) == n && !strncmp(hm_op_at(i)->name, op, n)) o->asked |= UINT64_C(1) << i;
}

/* asked: as in hm_run_options. */
static void classes_check(const char *classes, uint64_t asked) {
    bool one = !strpbrk(classes, ",=");
    for (const char *p = classes;; p++) {
        size_t n = strcspn(p, ","), name = one ? 0 : strcspn(p, ",=");
        const hm_op_info *only = NULL;
        if (!one) {
            char op[64];
            snprintf(op, sizeof op, "%.*s", (int)name, p);
            if (name == n)
                hm_die(HM_EXIT_USAGE, "--class is \"%s\", but must be a class, or OP=CLASS,OP=CLASS", classes);
            only = hm_option_op(op);
        }
        const char *text = one ? p : p + name + 1;
        size_t length = one ? n : n - name - 1;
        for (int i = 0; i < hm_op_count(); i++) {
            const hm_op_info *op = hm_op_at(i);
            bool judged = only ? only == op : !asked || asked >> i & 1;
            if (judged && !op_has_class(op, text, length))
                hm_die(HM_EXIT_USAGE, "--class asks for \"%.*s\", but the classes of %s are: %s", (int)length, text,
                       op->name, op->classes);
        }
        p += n;
        if (!*p) return;
    }
}

/* ---- options of a run ---------------------------------------------------------------------------------------------
 */

enum { KEY_CLASS = 256, KEY_REQUIRE, KEY_ISA, KEY_TIMEOUT, KEY_STRICT, KEY_OUT, KEY_THREADS };

static const struct argp_option run_options[] = {
    {"impl", 'i', "IMPL", 0, "ref, cpu, cuda, cuda_fp8, fault:ID, variant:ID, or a plug-in: a path that ends in .so",
     0},
    {"class", KEY_CLASS, "C", 0,
     "Required class: wide, chain64, chain512, any, tc23, tc13; or OP=C,OP=C (default: each op's own; of cuda_fp8 "
     "tc13)",
     0},
    {"require", KEY_REQUIRE, "invariance", 0, "A result that differs between runs, rows alone or batches is a failure",
     0},
    {"isa", KEY_ISA, "ISA", 0, "Cap the instruction set: sse2, avx2, avx512 (speed only, never results)", 0},
    {"threads", KEY_THREADS, "N", 0, "OpenMP threads (speed only, never results)", 0},
    {"timeout", KEY_TIMEOUT, "S", 0, "Seconds that a plug-in has for one case (default 60)", 0},
    {"strict", KEY_STRICT, NULL, 0, "Skipped or declined cases exit 1", 0},
    {"out", KEY_OUT, "DIR", 0, "Write certificate.json, junit.xml and summary.md there", 0},
    {0},
};

static error_t run_parse(int key, char *text, struct argp_state *state) {
    hm_run_options *o = state->input;
    switch (key) {
        case 'i':
            o->impl = text;
            return 0;
        case KEY_CLASS:
            o->classes = text;
            return 0;
        case KEY_REQUIRE:
            if (strcmp(text, "invariance")) hm_die(HM_EXIT_USAGE, "--require is \"%s\", but must be invariance", text);
            o->require_invariance = true;
            return 0;
        case KEY_ISA:
            o->isa = text;
            return 0;
        case KEY_THREADS:
            o->threads = (int)hm_option_i64("--threads", text, 1, 4096);
            return 0;
        case KEY_TIMEOUT:
            o->timeout = hm_option_seconds("--timeout", text);
            return 0;
        case KEY_STRICT:
            o->strict = true;
            return 0;
        case KEY_OUT:
            o->out = text;
            return 0;
        default:
            return ARGP_ERR_UNKNOWN;
    }
}
const struct argp hm_run_argp = {.options = run_options, .parser = run_parse};

hm_impl *hm_run_open(const hm_run_options *o, const char *fallback) {
    if (o->classes) classes_check(o->classes, o->asked);
    if (o->isa && hm_isa_limit(o->isa) != HM_OK) hm_die(HM_EXIT_USAGE, "--isa is \"%s\": %s", o->isa, hm_error());
    if (o->threads) {
        char count[16];
        snprintf(count, sizeof count, "%d", o->threads);
        setenv("OMP_NUM_THREADS", count, 1); /* for a plug-in's process */
        omp_set_num_threads(o->threads);
    }
    char why[512];
    if (o->out && hm_report_folder(o->out, why, sizeof why) != HM_OK) hm_die(HM_EXIT_USAGE, "--out: %s", why);
    hm_impl *impl = hm_impl_open(o->impl ? o->impl : fallback, o->timeout, why, sizeof why);
    if (!impl) hm_die(HM_EXIT_USAGE, "%s", why);
    if (!hm_golden_environment(o->threads))
        hm_die(HM_EXIT_INTERNAL, "the floating-point environment is not the default (rounding mode, flush to zero)");
    return impl;
}

hm_judge_options hm_run_judge_options(const hm_run_options *o, const hm_op_info *op) {
    /* What cuda_fp8 is named for: its products have 13 bits. */
    bool fp8 = !o->classes && o->impl && !strcmp(o->impl, "cuda_fp8") && op_has_class(op, "tc13", 4);
    return (hm_judge_options){.required = class_asked(fp8 ? "tc13" : o->classes, op),
                              .tier = HM_TIER_TWO,
                              .threads = o->threads,
                              .check_invariance = true,
                              .require_invariance = o->require_invariance};
}

const char *const *hm_run_flags(const hm_run_options *o, const char *more) {
    static char class_flag[256];
    static const char *flags[4];
    int n = 0;
    snprintf(class_flag, sizeof class_flag, "class=%s", o->classes ? o->classes : "");
    if (o->classes) flags[n++] = class_flag;
    if (o->require_invariance) flags[n++] = "require=invariance";
    if (more) flags[n++] = more;
    flags[n] = NULL;
    return flags;
}

void hm_shell_quote(const char *text, char *to, size_t size) {
    size_t n = 0;
    if (*text &&
        strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=+,@%") == strlen(text)) {
        snprintf(to, size, "%s", text);
        return;
    }
    to[n++] = '\'';
    for (; *text && n + 6 < size; text++) {
        if (*text == '\'') {
            memcpy(to + n, "'\\''", 4);
            n += 4;
        } else to[n++] = *text;
    }
    to[n++] = '\'';
    to[n] = 0;
}

void hm_run_repro(const hm_run_options *o, const char *fallback, const char *what, const char *option, const char *rest,
                  char *text, size_t size) {
    char impl[512], quoted[HM_CASE_MAX + 64];
    hm_shell_quote(o->impl ? o->impl : fallback, impl, sizeof impl);
    hm_shell_quote(rest, quoted, sizeof quoted);
    snprintf(text, size, "hallmark %s --impl %s%s%s%s%s%s %s", what, impl, o->classes ? " --class " : "",
             o->classes ? o->classes : "", o->require_invariance ? " --require invariance" : "", *option ? " " : "",
             option, quoted);
}

int hm_run_finish(const hm_run_options *o, hm_report *r) {
    int code = hm_report_exit(r, o->strict);
    if (o->out) {
        char why[512];
        signal(SIGINT, SIG_IGN); /* from here on the files are finished */
        signal(SIGTERM, SIG_IGN);
        hm_status status = hm_report_write(r, o->out, why, sizeof why);
        if (status != HM_OK) hm_die(status == HM_INTERNAL ? HM_EXIT_INTERNAL : HM_EXIT_USAGE, "%s", why);
        fflush(stdout);
        fprintf(stderr, "%s: wrote certificate.json%s and summary.md in %s\n", verb,
                hm_report_has_junit() ? ", junit.xml" : "", o->out);
    }
    return code;
}

/* ---- signals ------------------------------------------------------------------------------------------------------
 */

static volatile sig_atomic_t caught;

static void on_signal(int number) {
    static const char text[] = "\ninterrupted: ends after this case; once more to end at once\n";
    static double first;
    double now = hm_seconds();
    if (caught && now - first < 0.5) return; /* timeout(1) sends its signal twice: to the process, then to its group */
    if (caught) {
        signal(number, SIG_DFL);
        raise(number); /* when this returns */
        return;
    }
    caught = number, first = now;
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) caught = number; /* nothing to be done about it */
}

void hm_interruptible(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool hm_interrupted(void) { return caught != 0; }

_Noreturn void hm_interrupted_exit(const char *what) {
    fflush(stdout);
    fprintf(stderr, "\n%s: interrupted %s; no file was written\n", verb, what);
    signal(caught, SIG_DFL);
    raise(caught);
    _exit(128 + caught);
}

double hm_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
