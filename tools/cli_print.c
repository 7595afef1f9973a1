/* cli_print.c: progress, tables, failing rows, totals. */
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

/* ---- progress -----------------------------------------------------------------------------------------------------
 */

hm_progress hm_progress_start(const char *what, int64_t total) {
    hm_progress p = {.what = what, .total = total, .shown = -1, .on = isatty(STDERR_FILENO)};
    return p;
}

void hm_progress_step(hm_progress *p, const char *label) {
    enum { WIDTH = 24, LABEL = 60 };
    p->done++;
    if (!p->on || p->total <= 0) return;
    int percent = (int)(100 * p->done / p->total);
    double now = hm_seconds();
    if (percent == p->shown && now - p->drawn_at < 0.2) return;
    p->shown = percent;
    p->drawn_at = now;
    int full = (int)(WIDTH * p->done / p->total);
    fprintf(stderr, "\r%s [%.*s%*s] %lld/%lld %-*.*s", p->what, full, "########################", WIDTH - full, "",
            (long long)p->done, (long long)p->total, LABEL, LABEL, label ? label : "");
    fflush(stderr);
}

void hm_progress_clear(hm_progress *p) {
    if (p->on && p->shown >= 0) fputs("\r\033[K", stderr);
    p->shown = -1;
}

/* ---- tables -------------------------------------------------------------------------------------------------------
 */

enum { COLUMNS = 16 };
struct hm_table {
    char **row;
    int nrows, width[COLUMNS];
};

static void table_add(hm_table *t, char *row) {
    char **rows = row ? realloc(t->row, (size_t)(t->nrows + 1) * sizeof *rows) : NULL;
    if (!rows) hm_die(HM_EXIT_INTERNAL, "out of memory");
    t->row = rows;
    t->row[t->nrows++] = row;
    for (int i = 0; i < COLUMNS; i++) {
        int n = (int)strcspn(row, "\t"), skip = t->nrows == 1 && *row == '>';
        if (n - skip > t->width[i]) t->width[i] = n - skip;
        if (!row[n]) return;
        row += n + 1;
    }
}

hm_table *hm_table_new(const char *header) {
    hm_table *t = calloc(1, sizeof *t);
    if (!t) hm_die(HM_EXIT_INTERNAL, "out of memory");
    table_add(t, strdup(header));
    return t;
}

void hm_table_row(hm_table *t, const char *format, ...) {
    va_list list;
    char *row = NULL;
    va_start(list, format);
    if (vasprintf(&row, format, list) < 0) row = NULL;
    va_end(list);
    table_add(t, row);
}

void hm_table_print(hm_table *t, FILE *to) {
    bool right[COLUMNS] = {0};
    for (int r = 0; r < t->nrows; r++) {
        const char *cell = t->row[r];
        for (int i = 0, more = 1; more && i < COLUMNS; i++) {
            int n = (int)strcspn(cell, "\t");
            more = cell[n] != 0;
            const char *next = cell + n + 1;
            if (r == 0 && *cell == '>') {
                right[i] = true;
                cell++, n--;
            }
            int pad = t->width[i] - n;
            fprintf(to, "%*s%.*s%*s", right[i] ? pad : 0, "", n, cell, more ? (right[i] ? 0 : pad) + 2 : 0, "");
            cell = next;
        }
        fputc('\n', to);
        free(t->row[r]);
    }
    free(t->row);
    free(t);
}

const char *hm_percent(double share, char text[16]) {
    double floored = share >= 1 ? 100 : floor(share * 1e4) / 1e2;
    snprintf(text, 16, floored == 100 ? "%.0f %%" : "%.2f %%", floored);
    return text;
}

/* ---- results ------------------------------------------------------------------------------------------------------
 */

void hm_print_failure(FILE *to, const hm_op_info *op, const char *line, const hm_verdict *v, const char *repro) {
    char name[32];
    int n = snprintf(name, sizeof name, "%s", hm_outcome_name(v->outcome));
    for (int i = 0; i < n; i++) name[i] = name[i] >= 'a' && name[i] <= 'z' ? (char)(name[i] - 'a' + 'A') : name[i];
    fprintf(to, "%s  %s\n  why    %s\n", name, line, v->why);
    if (v->has_worst && v->outcome != HM_SKIPPED && v->outcome != HM_DECLINED) {
        fprintf(to, "  worst  %s[", op->args[v->worst_arg].name);
        for (int i = 0; i < v->worst_ndim; i++) fprintf(to, "%s%lld", i ? "," : "", (long long)v->worst_index[i]);
        fprintf(to, "] is %.9g (%a), %s ", v->worst_got, v->worst_got,
                v->worst_outside ? "but must be" : "as it may be:");
        if (isnan(v->worst_lo)) fputs("NaN\n", to);
        else if (v->worst_lo == v->worst_hi) fprintf(to, "%.9g (%a)\n", v->worst_lo, v->worst_lo);
        else fprintf(to, "%.9g to %.9g (%a to %a)\n", v->worst_lo, v->worst_hi, v->worst_lo, v->worst_hi);
    }
    fprintf(to, "  repro  %s\n", repro);
}

void hm_print_totals(FILE *to, const hm_report *r) {
    static const struct {
        hm_outcome outcome;
        const char *name;
    } list[] = {{HM_PASS, "passed"},     {HM_FAIL, "failed"},     {HM_OUT_OF_CLASS, "out of class"},
                {HM_VACUOUS, "vacuous"}, {HM_SKIPPED, "skipped"}, {HM_DECLINED, "declined"}};
    fprintf(to, "%lld cases:", (long long)hm_report_cases(r));
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        fprintf(to, "%s %lld %s", i ? "," : "", (long long)hm_report_total(r, list[i].outcome), list[i].name);
    fprintf(to, "; not provided: %s\n", hm_report_missing(r));
}
