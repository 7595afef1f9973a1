/* eval_table.c: hallmark eval --table: many faults, one row each: what the score says of them, and what replay says. */
#include "eval_table.h"

#include <errno.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../certify/trace.h"

/* ---- faults.txt ------------------------------------------------------------------------------------------------- */

static void read_line(char *text, const char *path, int number, eval_rows *t) {
    char *rest, *word = strtok_r(text, " \t\n", &rest);
    if (!word || *word == '#') return;
    if (t->n == EVAL_ROWS) hm_die(HM_EXIT_USAGE, "%s:%d: more than %d faults", path, number, EVAL_ROWS);
    eval_row *r = &t->rows[t->n++];
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

static void read_rows(const char *folder, eval_rows *t) {
    char path[1024], text[512];
    snprintf(path, sizeof path, "%s/faults.txt", folder);
    FILE *file = fopen(path, "r");
    if (!file) hm_die(HM_EXIT_USAGE, "%s: %s", path, strerror(errno));
    for (int number = 1; fgets(text, sizeof text, file); number++) read_line(text, path, number, t);
    fclose(file);
    if (!t->n) hm_die(HM_EXIT_USAGE, "%s: it names no fault", path);
}

/* ---- replay ----------------------------------------------------------------------------------------------------- */

/* Is site among the parts of a call's name: "p0.l0.index_rope", "d16.l0.w_uk.h2"? */
static bool at_site(const char *call, const char *site) {
    size_t n = strlen(site);
    for (const char *at = call; (at = strchr(at, '.'));)
        if (!strncmp(++at, site, n) && (at[n] == 0 || at[n] == '.')) return true;
    return false;
}

static void replay_call(eval_row *r, hm_impl *impl, const hm_trace_call *c) {
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

static void replay(const char *folder, eval_rows *t) {
    char pattern[1024], why[1024];
    glob_t files;
    snprintf(pattern, sizeof pattern, "%s/traces/*.safetensors", folder);
    if (glob(pattern, 0, NULL, &files)) hm_die(HM_EXIT_USAGE, "%s: there is no trace", pattern);
    for (size_t f = 0; f < files.gl_pathc; f++) {
        hm_trace *trace = hm_trace_open(files.gl_pathv[f], why, sizeof why);
        if (!trace) hm_die(HM_EXIT_USAGE, "%s", why);
        for (int i = 0; i < t->n; i++) {
            eval_row *r = &t->rows[i];
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

/* ---- all of it -------------------------------------------------------------------------------------------------- */

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
    eval_rows t = {.rows = calloc(EVAL_ROWS, sizeof *t.rows), .problems = problems, .all = hm_eval_problems(e)};
    hm_eval_path *paths = calloc(EVAL_ROWS, sizeof *paths);
    hm_eval_result *results = calloc(EVAL_ROWS, sizeof *results);
    char why[HM_EVAL_TEXT], plot[1024], *dot;
    bool interrupted;
    if (!t.rows || !paths || !results) hm_die(HM_EXIT_INTERNAL, "out of memory");
    snprintf(plot, sizeof plot - 4, "%s", o->table);
    if ((dot = strrchr(plot, '.')) && !strchr(dot, '/')) *dot = 0;
    strcat(plot, ".svg");
    read_rows(o->folder, &t);
    replay(o->folder, &t);

    int64_t judged = problems < o->judged ? problems : o->judged;
    eval_progress("ref against legal variants");
    hm_eval_end end = hm_eval_noise_measure(e, problem, judged, o->legal, &t.noise, &interrupted, why, sizeof why);
    eval_stop_if_interrupted(interrupted);
    if (end != HM_EVAL_DONE || *t.noise.alarm)
        hm_die(HM_EXIT_INTERNAL, "A/A: %s", end != HM_EVAL_DONE ? why : t.noise.alarm);
    eval_progress("faults");
    for (int i = 0; i < t.n; i++) {
        paths[i] = t.rows[i].path;
        paths[i].problem = problem, paths[i].problems = t.rows[i].seed ? t.all : problems, paths[i].judged = judged;
    }
    interrupted = !hm_eval_run(e, paths, t.n, results);
    eval_stop_if_interrupted(interrupted);
    for (int i = 0; i < t.n; i++) t.rows[i].result = results[i];

    size_t size = 0;
    const char *slash = strrchr(plot, '/');
    char *text = eval_page(&t, slash ? slash + 1 : plot, &size), *svg = eval_picture(&t);
    if (!text || !svg) hm_die(HM_EXIT_INTERNAL, "out of memory");
    write_file(o->table, text, size);
    write_file(plot, svg, strlen(svg));
    printf("%d faults on %lld problems: %s and %s; %.0f s\n", t.n, (long long)problems, o->table, plot,
           hm_seconds() - start);
    for (int i = 0; i < t.n; i++) hm_eval_result_free(&results[i]);
    free(text), free(svg), free(t.rows), free(paths), free(results);
    return HM_EXIT_OK;
}
