#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "case.h"
#include "embedded.h"

#define LINE_MAX_BYTES 2048

typedef struct {
    const char *file;
    int line;
    uint64_t seed;
    int (*visit)(const hm_case_spec *, void *);
    void *context;
    char *why;
    size_t size;
} walk;

static int defect(const walk *w, const char *what) {
    snprintf(w->why, w->size, "%s, line %d: %s", w->file, w->line, what);
    return -1;
}

static int visit_line(const walk *w, const char *text) {
    char line[LINE_MAX_BYTES], why[512];
    hm_case_spec spec;
    int n = strstr(text, " seed=") ? snprintf(line, sizeof line, "%s", text)
                                   : snprintf(line, sizeof line, "%s seed=%" PRIu64, text, w->seed);
    if (n >= (int)sizeof line) return defect(w, "the line is too long");
    return hm_case_parse(line, &spec, why, sizeof why) ? defect(w, why) : w->visit(&spec, w->context);
}

/* Every way to take one of a, b, c from each {a|b|c}; the last one varies fastest. */
static int expand(const walk *w, const char *text) {
    const char *open = strchr(text, '{'), *close = open ? strchr(open, '}') : NULL;
    if (!open) return strchr(text, '}') ? defect(w, "\"}\" without \"{\"") : visit_line(w, text);
    if (!close || strcspn(open + 1, "{") < (size_t)(close - open - 1)) return defect(w, "\"{\" without \"}\"");
    for (const char *from = open + 1; from <= close;) {
        char line[LINE_MAX_BYTES];
        size_t length = strcspn(from, "|}");
        int n = snprintf(line, sizeof line, "%.*s%.*s%s", (int)(open - text), text, (int)length, from, close + 1);
        if (n >= (int)sizeof line) return defect(w, "the line is too long");
        int result = expand(w, line);
        if (result) return result;
        from += length + 1;
    }
    return 0;
}

static int each_line(walk *w, const char *text, hm_suite suite) {
    static const char *const tier[] = {"smoke ", "quick ", "full "};
    for (; *text; w->line++) {
        char line[LINE_MAX_BYTES];
        size_t length = strcspn(text, "\n");
        if (length >= sizeof line) return defect(w, "the line is too long");
        memcpy(line, text, length);
        line[length] = 0;
        text += length + (text[length] == '\n');
        if (!*line || *line == '#') continue;
        int t = 0;
        while (t < 3 && strncmp(line, tier[t], strlen(tier[t]))) t++;
        if (t == 3) return defect(w, "it has to start with smoke, quick or full, or be a comment (#)");
        int result = t <= (int)suite ? expand(w, line + strlen(tier[t])) : 0;
        if (result) return result;
    }
    return 0;
}

int hm_case_file_each(const char *file, hm_suite suite, uint64_t seed, int (*visit)(const hm_case_spec *, void *),
                      void *context, char *why, size_t size) {
    for (int f = 0; f < hm_embedded_count; f++) {
        if (strcmp(hm_embedded[f].name, file)) continue;
        walk w = {file, 1, seed, visit, context, why, size};
        return each_line(&w, hm_embedded[f].data, suite);
    }
    return 0;
}

int hm_suite_each(hm_suite suite, const char *op, uint64_t seed, int (*visit)(const hm_case_spec *, void *),
                  void *context, char *why, size_t size) {
    for (int i = 0; i < hm_op_count(); i++) {
        char file[80];
        if (op && strcmp(op, hm_op_at(i)->name)) continue;
        snprintf(file, sizeof file, "%s.cases", hm_op_at(i)->name);
        int result = hm_case_file_each(file, suite, seed, visit, context, why, size);
        if (result) return result;
    }
    return 0;
}
