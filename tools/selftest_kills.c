/* hallmark selftest: the kill matrix, printed. */
#include <stdlib.h>
#include <string.h>

#include "selftest.h"

static hm_kills run_kills(hm_selftest_session *s, const char *what, bool first_kill, hm_case_list *list) {
    hm_kills kills;
    hm_selftest_options options = hm_selftest_library_options(s, s->o->seed);
    options.first_kill = first_kill;
    s->progress = hm_progress_start(what, list->n);
    hm_status status = hm_kills_run(list, &options, &kills);
    hm_selftest_finish(s, status, kills.stopped);
    free(list->spec);
    return kills;
}

static hm_kills kills_of_suite(hm_selftest_session *s, uint64_t seed, bool first_kill) {
    hm_case_list list = hm_selftest_cases(s, seed);
    if (!list.n) hm_die(HM_EXIT_NOTHING, "the suite has no case");
    return run_kills(s, first_kill ? "other seed" : "kill matrix", first_kill, &list);
}

static hm_kills kills_outside(hm_selftest_session *s) {
    char why[512];
    hm_case_list list = {0};
    if (hm_cases_outside(s->o->op ? s->o->op->name : NULL, s->o->seed, &list, why, sizeof why))
        hm_die(HM_EXIT_INTERNAL, "the text of the cases outside the suites is bad: %s", why);
    return run_kills(s, "outside the suite", false, &list);
}

static void check_rows(hm_selftest_session *s, const hm_kills *kills, bool of_suite) {
    for (int r = 0; r < kills->rows; r++) {
        const hm_kill_row *row = &kills->row[r];
        if (row->bad) hm_selftest_complain(&s->failed, "FAIL  ref itself is not admitted: %s", row->line);
        else if (of_suite && !row->kills)
            hm_selftest_complain(&s->vacuous, "VACUOUS  no fault is killed by: %s", row->line);
    }
}

/* Faults whose every output had the same bits on every case are one fault. */
static void print_groups(const hm_kills *kills) {
    int faults = hm_fault_count();
    for (int f = 0; f < faults; f++) {
        bool first = kills->score[f].cases > 0, printed = false;
        for (int g = 0; g < f && first; g++)
            first = kills->score[g].bits != kills->score[f].bits || strcmp(hm_fault_at(g)->op, hm_fault_at(f)->op);
        for (int g = f + 1; g < faults && first; g++) {
            if (kills->score[g].bits != kills->score[f].bits || strcmp(hm_fault_at(g)->op, hm_fault_at(f)->op))
                continue;
            printf(printed ? ", %s" : "The same on every case: %s", printed ? hm_fault_at(g)->id : hm_fault_at(f)->id);
            if (!printed) printf(", %s", hm_fault_at(g)->id);
            printed = true;
        }
        if (printed) putchar('\n');
    }
}

static const char *verdict_on(hm_selftest_session *s, int f, const hm_kills *kills, const hm_kills *second,
                              const hm_kills *outside) {
    const hm_fault *fault = hm_fault_at(f);
    bool all = kills->score[f].killed && (!second || second->score[f].killed) && (!outside || outside->score[f].killed);
    bool any = kills->score[f].killed || (second && second->score[f].killed) || (outside && outside->score[f].killed);
    if (fault->equivalent) {
        if (any) s->failed = true;
        return any ? "FAIL: said to be equivalent" : "equivalent";
    }
    if (!all) s->vacuous = true;
    return all ? "killed" : kills->score[f].killed ? "VACUOUS elsewhere" : "VACUOUS";
}

static void print_kills(hm_selftest_session *s, const hm_kills *kills, const hm_kills *second,
                        const hm_kills *outside) {
    int killed = 0, equivalent = 0, missed = 0, rows = 0;
    char heading[256], share[32];
    snprintf(heading, sizeof heading, "fault\t>cases\t>killed by%s%s\t>elements outside\tallclose(1e-2)\tverdict",
             second ? "\t>other seed" : "", outside ? "\t>other shapes" : "");
    hm_table *t = hm_table_new(heading);
    for (int f = 0; f < hm_fault_count(); f++) {
        const hm_fault_score *score = &kills->score[f];
        if (!score->cases) continue;
        char columns[64] = "", caught[32];
        const char *verdict = verdict_on(s, f, kills, second, outside);
        if (second && s->o->whole) snprintf(columns, sizeof columns, "\t%d", second->score[f].killed);
        else if (second) snprintf(columns, sizeof columns, "\t%s", second->score[f].killed ? "yes" : "no");
        if (outside)
            snprintf(columns + strlen(columns), sizeof columns - strlen(columns), "\t%d", outside->score[f].killed);
        snprintf(share, sizeof share, score->elements ? "%.3g %%" : "-",
                 100.0 * (double)score->outside / (double)(score->elements + !score->elements));
        snprintf(caught, sizeof caught, score->caught ? "caught by %d" : "passed", score->caught);
        hm_table_row(t, "%s\t%d\t%d%s\t%s\t%s\t%s", hm_fault_at(f)->id, score->cases, score->killed, columns, share,
                     caught, verdict);
        rows++, killed += !strcmp(verdict, "killed"), equivalent += !strcmp(verdict, "equivalent");
        missed += !strcmp(verdict, "killed") && !score->caught;
    }
    hm_table_print(t, stdout);
    puts(
        "cases: that the fault ran on; other seed: is it killed there too (--long: by how many cases);\n"
        "elements outside: of those in the cases that kill it; allclose(1e-2): how many of these cases\n"
        "torch.allclose(atol=1e-2, rtol=1e-2) against ref rejects (values only: it sees no dtype, no stray write, no "
        "error code)");
    printf("%d faults: %d killed, %d equivalent, %d not; allclose passes %d of the killed on every case\n", rows,
           killed, equivalent, rows - killed - equivalent, missed);
}

/* The judge as users meet it has to agree on the smallest case of each fault. */
static void confirm(hm_selftest_session *s, const hm_kills *kills) {
    int agreed = 0, asked = 0;
    char why[640];
    for (int f = 0; f < hm_fault_count(); f++) {
        int r = kills->score[f].smallest;
        if (!kills->score[f].cases || r < 0 || hm_fault_at(f)->equivalent) continue;
        asked++;
        if (hm_kills_confirm(hm_fault_at(f), kills->row[r].line, why, sizeof why)) agreed++;
        else
            hm_selftest_complain(&s->failed, "FAIL  the judge does not confirm that %s is killed by %s (%s)",
                                 hm_fault_at(f)->id, kills->row[r].line, why);
    }
    printf("The judge confirms %d of %d on the smallest case that kills them\n", agreed, asked);
}

void hm_selftest_kills(hm_selftest_session *s, bool matrix_only) {
    char why[512];
    hm_kills kills = kills_of_suite(s, s->o->seed, false), second = {0}, outside = {0};
    if (!matrix_only) {
        second = kills_of_suite(s, s->o->seed + 1, !s->o->whole);
        outside = kills_outside(s);
    }
    if (!s->o->write || !matrix_only)
        print_kills(s, &kills, matrix_only ? NULL : &second, matrix_only ? NULL : &outside);
    check_rows(s, &kills, true);
    check_rows(s, &second, false);
    check_rows(s, &outside, false);
    bool committed = s->o->suite == HM_QUICK && s->o->seed == 1 && !s->o->op && !s->o->write;
    if (committed && !hm_kills_current(&kills))
        hm_selftest_complain(&s->failed,
                             "FAIL  data/cases/kills.json is not this matrix: hallmark selftest --only matrix --write "
                             "data/cases/kills.json");
    if (!matrix_only) {
        print_groups(&kills);
        confirm(s, &kills);
    }
    if (s->o->write) {
        char *json = hm_kills_json(&kills);
        if (hm_write_file(s->o->write, json, strlen(json), why, sizeof why)) hm_die(HM_EXIT_INTERNAL, "%s", why);
        free(json);
        printf("%s: %d cases\n", s->o->write, kills.rows);
    }
    hm_kills_free(&kills);
    hm_kills_free(&second);
    hm_kills_free(&outside);
}
