/* cli.h: what the verbs of the command line share: exit codes, options of runs, progress, tables, failing rows. */
#ifndef HM_CLI_H
#define HM_CLI_H

#include <argp.h>
#include <stdbool.h>
#include <stdio.h>

#include "../certify/report.h"

/* Highest precedence first: 70, 2, 1, 4, 3, 0. */
enum {
    HM_EXIT_OK = 0,       /* everything conforms */
    HM_EXIT_FAIL = 1,     /* something does not conform */
    HM_EXIT_USAGE = 2,    /* usage, or a bad input file */
    HM_EXIT_NOTHING = 3,  /* nothing could run */
    HM_EXIT_VACUOUS = 4,  /* a check that could not have failed */
    HM_EXIT_INTERNAL = 70 /* a defect of hallmark itself, or of its surroundings (a file that cannot be written) */
};

/* Each verb: argv[0] is "hallmark VERB"; returns the exit code. */
int hm_cmd_list(int argc, char **argv);
int hm_cmd_certify(int argc, char **argv);
int hm_cmd_eval(int argc, char **argv);
int hm_cmd_golden(int argc, char **argv);
int hm_cmd_replay(int argc, char **argv);
int hm_cmd_bench(int argc, char **argv);
int hm_cmd_selftest(int argc, char **argv);

/* Prints "hallmark VERB: <sentence>" to stderr and exits with code. Results already printed are flushed first. */
_Noreturn void hm_die(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* argp_parse with the settings of this tool: usage errors exit with HM_EXIT_USAGE, help with 0. */
void hm_parse(const struct argp *argp, int argc, char **argv, void *input);

/* Option values. Each dies with HM_EXIT_USAGE and a sentence that names the option, its value and what is legal. */
int64_t hm_option_i64(const char *option, const char *text, int64_t least, int64_t most);
double hm_option_seconds(const char *option, const char *text);
hm_suite hm_option_suite(const char *text);
const hm_op_info *hm_option_op(const char *text);

/* Options of every verb that runs and judges an implementation. As a child parser:
 *     static const struct argp_child children[] = {{&hm_run_argp, 0, "Running and judging:", 1}, {0}};
 * and, in the parent's parser, case ARGP_KEY_INIT: state->child_inputs[0] = &mine.run; with mine.run = HM_RUN_OPTIONS.
 */
typedef struct {
    const char *impl, *classes, *isa, *out; /* as given; NULL if not */
    bool require_invariance, strict;
    uint64_t asked; /* bit i: hm_op_at(i) is one of the ops that are run; 0: all are */
    int threads;    /* 0: OpenMP's default */
    double timeout; /* seconds a plug-in has for one case */
} hm_run_options;
#define HM_TIMEOUT 60.0
#define HM_RUN_OPTIONS ((hm_run_options){.timeout = HM_TIMEOUT})
extern const struct argp hm_run_argp;

/* Says that the op of a case, or op itself, is run: --class may ask for a class that others do not have. */
void hm_run_asks(hm_run_options *options, const char *op);

/* Checks --class and --isa, opens the implementation (fallback if --impl was not given), sets threads and checks the
 * floating-point environment. Dies with one sentence if any of it is wrong. */
hm_impl *hm_run_open(const hm_run_options *options, const char *fallback);
/* How to judge op: its own default class (of cuda_fp8 tc13), or what --class says. */
hm_judge_options hm_run_judge_options(const hm_run_options *options, const hm_op_info *op);
/* The options that change what is judged, as the certificate's flags; NULL-terminated, valid for the process. */
const char *const *hm_run_flags(const hm_run_options *options, const char *more);
/* The command that reproduces a row: "hallmark WHAT --impl I [--class C] [--require invariance] [OPTION] 'REST'";
 * option may be "". */
void hm_run_repro(const hm_run_options *options, const char *fallback, const char *what, const char *option,
                  const char *rest, char *text, size_t size);

/* Quotes text for a POSIX shell if it needs it. */
void hm_shell_quote(const char *text, char *to, size_t size);

/* A progress bar on stderr, if that is a terminal; else nothing. */
typedef struct {
    const char *what;
    int64_t total, done;
    int shown;       /* bar cells and percent last drawn; -1: none */
    double drawn_at; /* seconds */
    bool on;
} hm_progress;
hm_progress hm_progress_start(const char *what, int64_t total);
void hm_progress_step(hm_progress *p, const char *label); /* one more done; label: what it was, may be NULL */
void hm_progress_clear(hm_progress *p);                   /* takes the bar away, before results are printed */

/* A table: cells separated by tabs, the first row is the header; a header cell that begins with '>' is right-aligned.
 */
typedef struct hm_table hm_table;
hm_table *hm_table_new(const char *header);
void hm_table_row(hm_table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void hm_table_print(hm_table *t, FILE *to); /* and frees it */

/* One row that is not a pass, in full: outcome, case line, sentence, worst element, repro. */
void hm_print_failure(FILE *to, const hm_op_info *op, const char *line, const hm_verdict *v, const char *repro);
/* The last line: "N cases: N passed, ...; not provided: ...". */
void hm_print_totals(FILE *to, const hm_report *r);
/* "99.93 %" without rounding anything short of all up to 100 %. */
const char *hm_percent(double share, char text[16]);

/* Writes the report where --out says (if it does) and returns the exit code for it. */
int hm_run_finish(const hm_run_options *options, hm_report *r);

/* After hm_interruptible, SIGINT and SIGTERM only set a flag: the loop looks at it between cases, and files are written
 * whole or not at all. A second signal, half a second later or more, kills. hm_interrupted_exit clears up by raising the
 * signal again with its default action. */
void hm_interruptible(void);
bool hm_interrupted(void);
_Noreturn void hm_interrupted_exit(const char *what);

double hm_seconds(void); /* monotonic clock */

#endif
