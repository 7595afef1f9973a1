/* eval_table.c: hallmark eval --table: many faults, one row each: what the score says of them, and what replay says. */
#include <errno.h>
#include <glob.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../certify/faults.h"
#include "../certify/trace.h"
#include "../eval/plot.h"
#include "eval.h"

enum { MAX_ROWS = 200 };

/* A line of faults.txt. */
typedef struct {
    char spec[160], name[160]; /* "fault:ID@SITE"; as the table shows it */
    const hm_fault *fault;
    const char *site; /* in spec; NULL: every call */
    bool seed;
    hm_eval_path path;
    hm_eval_result result;
    /* replay of the recorded tensors */
    int64_t calls, caught, outside;
    char why[128]; /* of the first call that was caught without an element outside */
} row;

typedef struct {
    row *rows;
    int n;
    hm_eval_noise noise;
    int64_t problems, all;
} table;

/* ---- faults.txt -----------------------------------------------------------------------------------------------------*/

static void read_line(char *text, const char *path, int number, table *t) {
    char *rest, *word = strtok_r(text, " \t\n", &rest);
    if (!word || *word == '#') return;
    if (t->n == MAX_ROWS) hm_die(HM_EXIT_USAGE, "%s:%d: more than %d faults", path, number, MAX_ROWS);
    row *r = &t->rows[t->n++];
    if ((r->seed = !strcmp(word, "seed"))) word = strtok_r(NULL, " \t\n", &rest);
    if (!word || strlen(word) > 100) hm_die(HM_EXIT_USAGE, "%s:%d: the fault is missing", path, number);
    snprintf(r->spec, sizeof r->spec, "fault:%s", word);
    snprintf(r->name, sizeof r->name, "%s", word);
    char id[128];
    snprintf(id, sizeof id, "%.*s", (int)strcspn(word, "@"), word);
    r->site = strchr(r->spec, '@') ? strchr(r->spec, '@') + 1 : NULL;
    r->fault = hm_fault_named(id);
    int op = r->fault ? hm_model_op_named(r->fault->op) : -1;
    if (op < 0) hm_die(HM_EXIT_USAGE, "%s:%d: \"%s\" is no fault of an op that the model has", path, number, id);
    r->path.of[op] = r->spec;
    while ((word = strtok_r(NULL, " \t\n", &rest))) {
        char end;
        long long size;
        if (!strcmp(word, "cleared")) r->path.before = HM_EVAL_CLEARED;
        else if (!strcmp(word, "stale")) r->path.before = HM_EVAL_STALE;
        else if (sscanf(word, "block_size=%lld%c", &size, &end) == 1 && size >= 1 && size <= 1024)
            r->path.block_size = size;
        else hm_die(HM_EXIT_USAGE, "%s:%d: \"%s\" is none of cleared, stale and block_size=N", path, number, word);
        size_t n = strlen(r->name);
        snprintf(r->name + n, sizeof r->name - n, ", %s", word);
    }
    for (char *c = strchr(r->name, '='); c; c = NULL) *c = ' ';
    for (char *c = r->name; (c = strstr(c, "block_size ")); c++) c[5] = ' ';
}

static void read_rows(const char *folder, table *t) {
    char path[1024], text[512];
    snprintf(path, sizeof path, "%s/faults.txt", folder);
    FILE *file = fopen(path, "r");
    if (!file) hm_die(HM_EXIT_USAGE, "%s: %s", path, strerror(errno));
    for (int number = 1; fgets(text, sizeof text, file); number++) read_line(text, path, number, t);
    fclose(file);
    if (!t->n) hm_die(HM_EXIT_USAGE, "%s: it names no fault", path);
}

/* ---- replay ---------------------------------------------------------------------------------------------------------*/

/* Is site among the parts of a call's name: "p0.l0.index_rope", "d16.l0.w_uk.h2"? */
static bool at_site(const char *call, const char *site) {
    size_t n = strlen(site);
    for (const char *at = call; (at = strchr(at, '.'));)
        if (!strncmp(++at, site, n) && (at[n] == 0 || at[n] == '.')) return true;
    return false;
}

static void replay_call(row *r, hm_impl *impl, const hm_trace_call *c) {
    hm_judge_options judge = {.required = HM_CLASS_NONE, .tier = HM_TIER_TWO, .check_invariance = true};
    hm_dtype written[HM_MAX_ARGS];
    hm_call *call = NULL;
    hm_verdict v;
    char why[512];
    if (hm_trace_call_open(c, c->id, &call, written, why, sizeof why) != HM_OK) hm_die(HM_EXIT_USAGE, "%s", why);
    hm_judge(impl, call, &judge, &v);
    hm_call_free(call);
    r->calls++;
    if (v.outcome == HM_PASS) return;
    r->caught++;
    r->outside += v.outside + v.out_of_class;
    if (!*r->why && !(v.outside + v.out_of_class)) snprintf(r->why, sizeof r->why, "%.120s", v.why);
}

static void replay(const char *folder, table *t) {
    char pattern[1024], why[1024];
    glob_t files;
    snprintf(pattern, sizeof pattern, "%s/traces/*.safetensors", folder);
    if (glob(pattern, 0, NULL, &files)) hm_die(HM_EXIT_USAGE, "%s: there is no trace", pattern);
    for (size_t f = 0; f < files.gl_pathc; f++) {
        hm_trace *trace = hm_trace_open(files.gl_pathv[f], why, sizeof why);
        if (!trace) hm_die(HM_EXIT_USAGE, "%s", why);
        for (int i = 0; i < t->n; i++) {
            row *r = &t->rows[i];
            char spec[160];
            snprintf(spec, sizeof spec, "%.*s", (int)strcspn(r->spec, "@"), r->spec);
            hm_impl *impl = hm_impl_open(spec, HM_TIMEOUT, why, sizeof why);
            if (!impl) hm_die(HM_EXIT_INTERNAL, "%s", why);
            for (int k = 0; k < hm_trace_count(trace); k++) {
                const hm_trace_call *c = hm_trace_at(trace, k);
                if (!strcmp(c->op->name, r->fault->op) && (!r->site || at_site(c->id, r->site)))
                    replay_call(r, impl, c);
            }
            hm_impl_close(impl);
        }
        hm_trace_close(trace);
    }
    globfree(&files);
}

/* ---- the document ---------------------------------------------------------------------------------------------------*/

static bool score_is_off(const row *r) { return hm_mcnemar(r->result.lost, r->result.gained) < HM_SCORE_ALPHA; }

static bool kl_is_off(const table *t, const row *r) {
    for (int mode = 0; mode < HM_EVAL_MODES; mode++)
        if (hm_eval_above(&r->result.judged[mode], &t->noise.line[mode])) return true;
    return false;
}

static bool seen(const table *t, const row *r) {
    return r->result.end != HM_EVAL_DONE || score_is_off(r) || kl_is_off(t, r);
}

static void kl_text(double kl, char text[32]) {
    if (kl == 0) snprintf(text, 32, "0");
    else if (isfinite(kl)) snprintf(text, 32, kl < 0.01 ? "%.1e" : "%.2g", kl);
    else snprintf(text, 32, "NaN");
}

static void put_row(FILE *to, const table *t, const row *r) {
    const hm_eval_result *e = &r->result;
    char forced[32], greedy[32], p[32];
    double value = hm_mcnemar(e->lost, e->gained);
    kl_text(e->level[HM_EVAL_FORCED].mean, forced), kl_text(e->level[HM_EVAL_GREEDY].mean, greedy);
    snprintf(p, sizeof p, value < 0.001 ? "%.0e" : "%.2g", value);
    fprintf(to, "| `%s` | ", r->name);
    if (e->end != HM_EVAL_DONE) fprintf(to, "ended early | | | | | ");
    else
        fprintf(to, "%.3f | %.4f | %s | %s | %s | ", (double)e->right / (double)e->problems,
                (double)e->correct / (double)e->tokens, forced, greedy, p);
    fprintf(to, "%s | ", e->end != HM_EVAL_DONE ? "the end" : score_is_off(r) ? "score, KL" : seen(t, r) ? "KL" : "-");
    if (!r->caught) fprintf(to, "%s | ", r->calls ? "-" : "no call");
    else if (r->outside)
        fprintf(to, "%lld of %lld calls, %lld elements | ", (long long)r->caught, (long long)r->calls,
                (long long)r->outside);
    else fprintf(to, "%lld of %lld calls: %s | ", (long long)r->caught, (long long)r->calls, r->why);
    fprintf(to, "%s |\n", e->end != HM_EVAL_DONE ? e->why : r->fault->sentence);
}

static void put_rows(FILE *to, const table *t, bool seed) {
    fputs(
        "| fault | exact match | tokens right | KL, given the solution | KL, in decoding | p | eval sees | replay sees "
        "| what "
        "goes wrong |\n| --- | ---: | ---: | ---: | ---: | ---: | --- | --- | --- |\n",
        to);
    for (int i = 0; i < t->n; i++)
        if (t->rows[i].seed == seed) put_row(to, t, &t->rows[i]);
    fputc('\n', to);
}

static void put(FILE *to, const table *t, const char *plot) {
    const hm_eval_noise *noise = &t->noise;
    const hm_eval_result *first = &t->rows[0].result;
    int both = 0, neither = 0, score = 0, kl = 0, element = 0;
    for (int i = 0; i < t->n; i++) {
        const row *r = &t->rows[i];
        both += seen(t, r) && r->caught, element += !seen(t, r) && r->caught;
        neither += !seen(t, r) && !r->caught;
        score += r->result.end != HM_EVAL_DONE || score_is_off(r);
        kl += seen(t, r) && !r->caught;
    }
    fprintf(to,
            "# What a score sees of a wrong kernel, and what it does not\n\n"
            "`hallmark eval --table docs/eval.md` writes this page and `%s` from the list in `data/gsm8k/faults.txt`. "
            "Each row "
            "injects one fault into its op (`hallmark eval --fault ID`; `@` and a site: into one of the model's calls "
            "only) and "
            "lets the small model answer %lld of the %lld problems. The golden path has %lld of them right (%.3f).\n\n",
            plot, (long long)t->problems, (long long)t->all, (long long)first->golden_right,
            (double)first->golden_right / (double)t->problems);
    fprintf(to,
            "- **exact match**: the number behind `####` in the greedy answer. **p**: McNemar's exact test, paired "
            "with the "
            "golden path; the smallest drop that %lld problems can show is %lld lost and none gained (%.3f).\n"
            "- **tokens right**: given the solution, tokens that are the most probable ones.\n"
            "- **KL**: mean divergence from the golden path a token, in nats: given the solution (prompt and solution "
            "are read "
            "at once), and in decoding, as long as the words are the same.\n"
            "- **eval sees**: the score (p < %g), or the divergence above the noise of %d paths of legal variants "
            "(median over "
            "problems above %.2g, or 99th percentile of tokens above %.2g, on %lld problems; their means reach %.2g).\n"
            "- **replay sees**: calls in `data/gsm8k/traces` that `hallmark replay --impl fault:ID` does not pass, and "
            "elements "
            "outside what a correct implementation may return.\n"
            "- **cleared**: outputs are zeros before each call; **stale**: they hold what ref made of the call before, "
            "mostly that of "
            "the layer before.\n\n",
            (long long)t->problems, (long long)hm_least_detectable(HM_SCORE_ALPHA),
            (double)hm_least_detectable(HM_SCORE_ALPHA) / (double)t->problems, HM_SCORE_ALPHA, noise->paths,
            noise->line[HM_EVAL_FORCED].middle, noise->line[HM_EVAL_FORCED].tail, (long long)noise->each,
            fmax(noise->most[HM_EVAL_FORCED].mean, noise->most[HM_EVAL_GREEDY].mean));
    fprintf(to,
            "Of %d faults the score shows %d. The divergence or the score shows %d that replay sees, too, and %d that "
            "it does "
            "not; %d are seen by replay alone, %d by neither on these tensors. A score is no substitute for the "
            "verdict on each "
            "element, nor the other way round.\n\n",
            t->n, score, both, kl, element, neither);
    fprintf(to, "![exact match against mean KL](%s)\n\n## The five bugs it began with\n\n", plot);
    put_rows(to, t, true);
    fputs(
        "The last two barely move the score, and not the divergence beyond what legal variants do, yet replay rejects "
        "the "
        "very tensors: the first because an output has another dtype than declared, the second in one element of "
        "many.\n\n"
        "## Further faults\n\n",
        to);
    put_rows(to, t, false);
}

static char *text_of(const table *t, const char *plot, size_t *size) {
    char *text = NULL;
    FILE *to = open_memstream(&text, size);
    if (!to) return NULL;
    put(to, t, plot);
    return fclose(to) ? NULL : text;
}

static char *plot_of(const table *t) {
    hm_dot dots[MAX_ROWS];
    for (int i = 0; i < t->n; i++) {
        const row *r = &t->rows[i];
        dots[i] = (hm_dot){.x = r->result.end != HM_EVAL_DONE
                                    ? INFINITY
                                    : fmax(r->result.level[HM_EVAL_FORCED].mean, r->result.level[HM_EVAL_GREEDY].mean),
                           .y = (double)r->result.right / (double)t->problems,
                           .label = r->name,
                           .filled = r->caught,
                           .first = r->seed};
    }
    char title[128];
    snprintf(title, sizeof title, "%d faults, one dot each: exact match on %lld problems against divergence", t->n,
             (long long)t->problems);
    return hm_plot_svg(dots, t->n, fmax(t->noise.most[HM_EVAL_FORCED].mean, t->noise.most[HM_EVAL_GREEDY].mean), title,
                       "mean KL from the golden path a token, given the solution or in decoding, the larger one (nats)",
                       "exact match", "replay of the model's tensors sees it", "it does not");
}

/* Whole or not at all. */
static void write_file(const char *path, const char *text, size_t size) {
    char temporary[1100];
    snprintf(temporary, sizeof temporary, "%s.tmp%d", path, (int)getpid());
    FILE *file = fopen(temporary, "w");
    bool ok = file && fwrite(text, 1, size, file) == size;
    if (file && fclose(file)) ok = false;
    if (ok && !rename(temporary, path)) return;
    int error = errno;
    unlink(temporary);
    hm_die(HM_EXIT_USAGE, "--table: \"%s\" cannot be written: %s", path, strerror(error));
}

int eval_table(hm_eval *e, const eval_options *o, const int64_t *problem, int64_t problems) {
    double start = hm_seconds();
    table t = {.rows = calloc(MAX_ROWS, sizeof *t.rows), .problems = problems, .all = hm_eval_problems(e)};
    hm_eval_path *paths = calloc(MAX_ROWS, sizeof *paths);
    hm_eval_result *results = calloc(MAX_ROWS, sizeof *results);
    char why[HM_EVAL_TEXT], plot[1024], *dot;
    bool interrupted;
    if (!t.rows || !paths || !results) hm_die(HM_EXIT_INTERNAL, "out of memory");
    snprintf(plot, sizeof plot - 4, "%s", o->table);
    if ((dot = strrchr(plot, '.')) && !strchr(dot, '/')) *dot = 0;
    strcat(plot, ".svg");
    read_rows(o->folder, &t);
    replay(o->folder, &t);

    int64_t judged = problems < EVAL_JUDGED ? problems : EVAL_JUDGED;
    eval_progress("ref against legal variants");
    hm_eval_end end = hm_eval_noise_measure(e, problem, judged, o->legal, &t.noise, &interrupted, why, sizeof why);
    eval_stop_if_interrupted(interrupted);
    if (end != HM_EVAL_DONE || *t.noise.alarm)
        hm_die(HM_EXIT_INTERNAL, "A/A: %s", end != HM_EVAL_DONE ? why : t.noise.alarm);
    eval_progress("faults");
    for (int i = 0; i < t.n; i++) {
        paths[i] = t.rows[i].path;
        paths[i].problem = problem, paths[i].problems = problems, paths[i].judged = judged;
    }
    interrupted = !hm_eval_run(e, paths, t.n, results);
    eval_stop_if_interrupted(interrupted);
    for (int i = 0; i < t.n; i++) t.rows[i].result = results[i];

    size_t size = 0;
    const char *slash = strrchr(plot, '/');
    char *text = text_of(&t, slash ? slash + 1 : plot, &size), *svg = plot_of(&t);
    if (!text || !svg) hm_die(HM_EXIT_INTERNAL, "out of memory");
    write_file(o->table, text, size);
    write_file(plot, svg, strlen(svg));
    printf("%d faults on %lld problems: %s and %s; %.0f s\n", t.n, (long long)problems, o->table, plot,
           hm_seconds() - start);
    for (int i = 0; i < t.n; i++) hm_eval_result_free(&results[i]);
    free(text), free(svg), free(t.rows), free(paths), free(results);
    return HM_EXIT_OK;
}
