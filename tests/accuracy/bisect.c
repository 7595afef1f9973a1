/* bisect [--all]: are the right ops named? Pairs of faults from data/gsm8k/faults.txt, at the same time in two ops: 3
 * pairs, with --all 10 and also every fault alone. A fault (a pair) that does not move the divergence above the noise is said and
 * not judged. Run it in the repository's root. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../certify/faults.h"
#include "../../eval/eval.h"

enum { PAIRS = 10, ROWS = 200 };

typedef struct {
    char spec[128];
    int op;
} row;

static int read_rows(row *rows) {
    char text[256], word[112];
    int n = 0;
    FILE *file = fopen("data/gsm8k/faults.txt", "r");
    while (file && fgets(text, sizeof text, file) && n < ROWS) {
        if (sscanf(!strncmp(text, "seed ", 5) ? text + 5 : text, "%111s", word) != 1 || *word == '#') continue;
        char id[112];
        snprintf(rows[n].spec, sizeof rows[n].spec, "fault:%s", word);
        snprintf(id, sizeof id, "%.*s", (int)strcspn(word, "@"), word);
        rows[n].op = hm_fault_named(id) ? hm_model_op_named(hm_fault_named(id)->op) : -1;
        n += rows[n].op >= 0;
    }
    if (file) fclose(file);
    return n;
}

/* 1: named right, 0: in the noise, -1: named wrong. */
static int check(hm_eval *e, const hm_eval_noise *noise, const int64_t *problem, const row *a, const row *b) {
    hm_eval_path path = {.problems = 0};
    hm_eval_bisection found;
    uint32_t want = 1u << a->op, got = 0;
    path.of[a->op] = a->spec;
    if (b) path.of[b->op] = b->spec, want |= 1u << b->op;
    if (!hm_eval_bisect(e, &path, problem, noise->each, noise, &found)) return -1;
    for (int i = 0; i < found.n; i++) {
        got |= (uint32_t)found.suspect[i].blamed << found.suspect[i].op;
        if (!found.suspect[i].alone.off) want &= ~(1u << found.suspect[i].op); /* it is in the noise */
    }
    bool judged = b ? __builtin_popcount(want) == 2 : want != 0;
    const char *word = got != want ? "WRONG" : judged ? "named" : "in the noise";
    printf("%-13s %s%s%s\n", word, a->spec + 6, b ? " and " : "", b ? b->spec + 6 : "");
    fflush(stdout);
    return got != want ? -1 : judged;
}

int main(int count, char **words) {
    static row rows[ROWS];
    hm_eval_worker_main(count, words);
    int n = read_rows(rows), named = 0, pairs = 0, wrong = 0;
    char why[HM_EVAL_TEXT] = "data/gsm8k/faults.txt names too few faults";
    bool interrupted, all = count > 1 && !strcmp(words[1], "--all");
    int enough = all ? PAIRS : 3;
    hm_eval_noise noise;
    hm_eval *e = n < 2 * PAIRS ? NULL
                               : hm_eval_open(&(hm_eval_options){.folder = "data/gsm8k",
                                                                 .teacher_forced = true,
                                                                 .greedy = true,
                                                                 .processes = 3,
                                                                 .timeout = HM_EVAL_TIMEOUT},
                                              why, sizeof why);
    int64_t *problem = e ? hm_eval_order(hm_eval_problems(e)) : NULL;
    if (!problem || hm_eval_noise_measure(e, problem, all ? 4 : 2, 8, &noise, &interrupted, why, sizeof why)) {
        fprintf(stderr, "bisect: %s\n", why);
        return 2;
    }
    for (int i = 0; pairs < enough && i < 50 * PAIRS; i++) {
        const row *a = &rows[i * 7 % n], *b = &rows[(i * 7 + 3 + i * 11) % n];
        if (a->op == b->op) continue;
        int result = check(e, &noise, problem, a, b);
        pairs += result != 0, named += result > 0, wrong += result < 0;
    }
    printf("%d pairs: %d named, %d wrong\n", pairs, named, wrong);
    for (int i = 0; i < n && all; i++) wrong += check(e, &noise, problem, &rows[i], NULL) < 0;
    hm_eval_close(e);
    free(problem);
    return wrong || named < enough;
}
