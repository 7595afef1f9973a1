/* report.c: gathers verdicts, counts them, and writes files whole or not at all. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "generate.h"
#include "report_rows.h"

char *hm_report_clean(const char *text) {
    char *copy = strdup(text);
    json_t *valid = json_string(text);
    for (char *p = copy; p && *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (c < 0x20 || c == 0x7f || (!valid && c >= 0x80)) *p = '?';
    }
    json_decref(valid);
    return copy;
}

static void clean_in_place(char *text, size_t size) {
    char *copy = hm_report_clean(text);
    snprintf(text, size, "%s", copy ? copy : "");
    free(copy);
}

hm_report *hm_report_new(const hm_impl *impl, const char *suite, uint64_t seed, const char *const *flags) {
    hm_report *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    snprintf(r->impl, sizeof r->impl, "%s", impl->name);
    clean_in_place(r->impl, sizeof r->impl);
    snprintf(r->sha256, sizeof r->sha256, "%s", impl->sha256);
    snprintf(r->suite, sizeof r->suite, "%s", suite);
    snprintf(r->isa, sizeof r->isa, "native");
    snprintf(r->missing, sizeof r->missing, "none");
    r->place = impl->place;
    r->device = impl->device;
    r->seed = seed;
    while (flags && flags[r->nflags]) r->nflags++;
    r->flag = calloc((size_t)r->nflags + 1, sizeof *r->flag);
    for (int i = 0; r->flag && i < r->nflags; i++) r->flag[i] = hm_report_clean(flags[i]);
    return r;
}

void hm_report_isa(hm_report *r, const char *isa) { snprintf(r->isa, sizeof r->isa, "%s", isa); }

void hm_report_add(hm_report *r, const hm_op_info *op, const char *line, uint64_t inputs_xxh3, const hm_verdict *v,
                   const char *repro) {
    if (r->nrows == r->capacity) {
        int64_t capacity = r->capacity ? 2 * r->capacity : 64;
        report_row *row = realloc(r->row, (size_t)capacity * sizeof *row);
        if (!row) abort(); /* a result that cannot be kept must not get lost */
        r->row = row;
        r->capacity = capacity;
    }
    report_row *row = &r->row[r->nrows++];
    *row = (report_row){
        .op = op, .line = hm_report_clean(line), .repro = hm_report_clean(repro), .inputs_xxh3 = inputs_xxh3, .v = *v};
    if (v->rows_judged < v->rows && v->outcome == HM_PASS) {
        row->v.outcome = HM_SKIPPED;
        snprintf(row->v.why, sizeof row->v.why, "judged on %lld of %lld rows, which certifies nothing",
                 (long long)v->rows_judged, (long long)v->rows);
    }
    clean_in_place(row->v.why, sizeof row->v.why);
    clean_in_place(row->v.effects, sizeof row->v.effects);
    clean_in_place(row->v.invariance, sizeof row->v.invariance);
    r->total[row->v.outcome]++;
}

void hm_report_not_provided(hm_report *r, const hm_op_info *op) {
    size_t n = r->total[HM_NOT_OFFERED]++ ? strlen(r->missing) : 0;
    snprintf(r->missing + n, sizeof r->missing - n, "%s%s", n ? " " : "", op->name);
}

const char *hm_report_missing(const hm_report *r) { return r->missing; }

int64_t hm_report_total(const hm_report *r, hm_outcome o) { return r->total[o]; }

int64_t hm_report_cases(const hm_report *r) { return r->nrows; }

int hm_report_exit(const hm_report *r, bool strict) {
    const int64_t *n = r->total;
    if (n[HM_FAIL] || n[HM_OUT_OF_CLASS]) return 1;
    if (strict && (n[HM_SKIPPED] || n[HM_DECLINED])) return 1;
    if (n[HM_VACUOUS]) return 4;
    return n[HM_PASS] ? 0 : 3;
}

static bool separates(const hm_op_info *op, const char *line) {
    const char *gen = strstr(line, " gen=");
    char name[32];
    if (!gen || sscanf(gen, " gen=%31[^ ]", name) != 1) return false;
    const hm_generator *g = hm_generator_named(name);
    return g && hm_generator_separates(g, op);
}

const char *hm_report_consistent(const hm_report *r, const hm_op_info *op) {
    hm_class loosest = HM_WIDE;
    bool separated = false, judged = false;
    for (int64_t i = 0; i < r->nrows; i++) {
        const report_row *row = &r->row[i];
        if (row->op != op || !row->v.elements) continue;
        judged = true;
        if (row->v.consistent > loosest) loosest = row->v.consistent;
        separated |= separates(op, row->line);
    }
    if (loosest == HM_CLASS_NONE || !judged) return "none";
    return separated ? hm_class_name(loosest) : "not separated";
}

/* ---- files --------------------------------------------------------------------------------------------------------
 */

hm_status hm_write_file(const char *path, const void *data, size_t size, char *why, size_t why_size) {
    char temporary[4096 + 32];
    if ((size_t)snprintf(temporary, sizeof temporary, "%s.%ld.tmp", path, (long)getpid()) >= sizeof temporary) {
        snprintf(why, why_size, "the file name %.200s... is too long", path);
        return HM_BAD_ARG;
    }
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        snprintf(why, why_size, "cannot write %s: %s", path, strerror(errno));
        return HM_BAD_ARG;
    }
    const char *from = data;
    bool fine = true;
    for (size_t left = size; fine && left;) {
        ssize_t n = write(fd, from, left);
        if (n < 0 && errno == EINTR) continue;
        fine = n > 0;
        if (fine) from += n, left -= (size_t)n;
    }
    fine = fine && fsync(fd) == 0;
    fine = close(fd) == 0 && fine;
    if (fine && rename(temporary, path) == 0) return HM_OK;
    snprintf(why, why_size, "cannot write %s: %s", path, strerror(errno));
    unlink(temporary);
    return HM_INTERNAL;
}

hm_status hm_report_folder(const char *dir, char *why, size_t size) {
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s", dir) >= sizeof path) path[0] = 0;
    for (char *p = path + (path[0] != 0);; p++) {
        if (*p != '/' && *p) continue;
        char end = *p;
        *p = 0;
        if (mkdir(path, 0777) != 0 && errno != EEXIST) {
            snprintf(why, size, "cannot make the folder \"%.300s\": %s", dir, strerror(errno));
            return HM_BAD_ARG;
        }
        *p = end;
        if (!end) break;
    }
    struct stat s;
    if (stat(dir, &s) != 0 || !S_ISDIR(s.st_mode)) {
        snprintf(why, size, "\"%.300s\" is not a folder", dir);
        return HM_BAD_ARG;
    }
    if (access(dir, W_OK | X_OK) != 0) {
        snprintf(why, size, "the folder \"%.300s\" cannot be written: %s", dir, strerror(errno));
        return HM_BAD_ARG;
    }
    return HM_OK;
}

bool hm_report_has_junit(void) {
#ifdef HM_DEVICE
    return false;
#else
    return true;
#endif
}

hm_status hm_report_write(const hm_report *r, const char *dir, char *why, size_t size) {
    static const struct {
        const char *name;
        char *(*text)(const hm_report *);
    } files[] = {
#ifndef HM_DEVICE
        {"junit.xml", hm_report_junit},
#endif
        {"summary.md", hm_report_summary},
        {"certificate.json", hm_report_certificate}};
    hm_status status = hm_report_folder(dir, why, size);
    for (size_t i = 0; status == HM_OK && i < sizeof files / sizeof *files; i++) {
        char path[4096];
        char *text = files[i].text(r);
        if (!text) {
            snprintf(why, size, "%s could not be made: no memory", files[i].name);
            return HM_NO_MEMORY;
        }
        if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, files[i].name) >= sizeof path) {
            snprintf(why, size, "the folder name %.200s... is too long", dir);
            status = HM_BAD_ARG;
        } else status = hm_write_file(path, text, strlen(text), why, size);
        free(text);
    }
    return status;
}

void hm_report_free(hm_report *r) {
    if (!r) return;
    for (int64_t i = 0; i < r->nrows; i++) {
        free(r->row[i].line);
        free(r->row[i].repro);
    }
    for (int i = 0; i < r->nflags; i++) free(r->flag[i]);
    free(r->flag);
    free(r->row);
    free(r);
}
