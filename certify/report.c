/* The certificate. Its payload holds nothing that two machines would disagree on, in canonical JSON (sorted keys, compact, floats as
 * hexadecimal strings); host and time stand beside it. junit.xml and summary.md say the same for machines and for people. */
#include "report.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <libxml/xmlwriter.h>
#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "generate.h"

typedef struct {
    const hm_op_info *op;
    char *line, *repro;
    uint64_t inputs_xxh3;
    hm_verdict v;
} report_row;

struct hm_report {
    char impl[256], sha256[65], suite[32], isa[16];
    hm_place place;
    uint64_t seed;
    char **flag;
    int nflags;
    report_row *row;
    int64_t nrows, capacity;
    char missing[512];
    int64_t total[HM_OUTCOME_COUNT];
};

/* Text that is valid in JSON, in XML and on a terminal, whatever a plug-in or a path holds: control characters become '?', and so
 * does every byte outside ASCII if the whole is not UTF-8. */
static char *clean(const char *text) {
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
    char *copy = clean(text);
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
    r->seed = seed;
    while (flags && flags[r->nflags]) r->nflags++;
    r->flag = calloc((size_t)r->nflags + 1, sizeof *r->flag);
    for (int i = 0; r->flag && i < r->nflags; i++) r->flag[i] = clean(flags[i]);
    return r;
}

void hm_report_isa(hm_report *r, const char *isa) {
    snprintf(r->isa, sizeof r->isa, "%s", isa);
}

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
    *row = (report_row){.op = op, .line = clean(line), .repro = clean(repro), .inputs_xxh3 = inputs_xxh3, .v = *v};
    clean_in_place(row->v.why, sizeof row->v.why);
    clean_in_place(row->v.effects, sizeof row->v.effects);
    clean_in_place(row->v.invariance, sizeof row->v.invariance);
    r->total[v->outcome]++;
}

void hm_report_not_provided(hm_report *r, const hm_op_info *op) {
    size_t n = r->total[HM_NOT_OFFERED]++ ? strlen(r->missing) : 0;
    snprintf(r->missing + n, sizeof r->missing - n, "%s%s", n ? " " : "", op->name);
}

const char *hm_report_missing(const hm_report *r) {
    return r->missing;
}

int64_t hm_report_total(const hm_report *r, hm_outcome o) {
    return r->total[o];
}

int64_t hm_report_cases(const hm_report *r) {
    return r->nrows;
}

int hm_report_exit(const hm_report *r, bool strict) {
    const int64_t *n = r->total;
    if (n[HM_FAIL] || n[HM_OUT_OF_CLASS]) return 1;
    if (strict && (n[HM_SKIPPED] || n[HM_DECLINED])) return 1;
    if (n[HM_VACUOUS]) return 4;
    return n[HM_PASS] ? 0 : 3;
}

static bool separates(const char *line) {
    const char *gen = strstr(line, " gen=");
    char name[32];
    if (!gen || sscanf(gen, " gen=%31[^ ]", name) != 1) return false;
    const hm_generator *g = hm_generator_named(name);
    return g && g->separates;
}

const char *hm_report_consistent(const hm_report *r, const hm_op_info *op) {
    hm_class loosest = HM_WIDE;
    bool separated = false, judged = false;
    for (int64_t i = 0; i < r->nrows; i++) {
        const report_row *row = &r->row[i];
        if (row->op != op || !row->v.elements) continue;
        judged = true;
        if (row->v.consistent > loosest) loosest = row->v.consistent;
        separated |= separates(row->line);
    }
    if (loosest == HM_CLASS_NONE || !judged) return "none";
    return separated ? hm_class_name(loosest) : "not separated";
}

/* ---- certificate.json --------------------------------------------------------------------------------------------- */

static json_t *hex(double v) {
    char text[40];
    if (isnan(v)) return json_string("nan"); /* whatever its sign */
    snprintf(text, sizeof text, "%a", v);
    return json_string(text);
}

static json_t *hex64(uint64_t v) {
    return json_sprintf("%016llx", (unsigned long long)v);
}

static json_t *row_json(const report_row *row) {
    const hm_verdict *v = &row->v;
    json_t *j = json_pack(
        "{s:s, s:s, s:o, s:o, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:s, s:s, s:s}", "op", row->op->name, "case", row->line,
        "inputs_xxh3", hex64(row->inputs_xxh3), "outputs_xxh3", hex64(v->outputs_xxh3), "verdict", hm_outcome_name(v->outcome),
        "class", v->elements ? hm_class_name(v->consistent) : "none", "elements", (json_int_t)v->elements, "outside",
        (json_int_t)v->outside, "out_of_class", (json_int_t)v->out_of_class, "range_free", (json_int_t)v->range_free, "point",
        (json_int_t)v->point, "decided", hex(v->decided), "max_ulp", hex(v->max_ulp), "effects", v->effects, "invariance",
        *v->invariance ? v->invariance : "unchecked", "repro", row->repro);
    if (j && v->outcome != HM_PASS) json_object_set_new(j, "why", json_string(v->why));
    if (j && v->has_worst) {
        json_t *index = json_array();
        for (int i = 0; i < v->worst_ndim; i++) json_array_append_new(index, json_integer(v->worst_index[i]));
        json_object_set_new(j, "worst",
                            json_pack("{s:s, s:o, s:o, s:o, s:o, s:o}", "argument", row->op->args[v->worst_arg].name, "index",
                                      index, "got", hex(v->worst_got), "lo", hex(v->worst_lo), "hi", hex(v->worst_hi), "ideal",
                                      hex(v->worst_ideal)));
    }
    return j;
}

static json_t *payload_json(const hm_report *r) {
    json_t *results = json_array(), *flags = json_array(), *contracts = json_object(), *required = json_object(),
           *consistent = json_object();
    for (int i = 0; i < r->nflags; i++) json_array_append_new(flags, json_string(r->flag[i]));
    for (int64_t i = 0; i < r->nrows; i++) {
        const report_row *row = &r->row[i];
        json_array_append_new(results, row_json(row));
        if (json_object_get(contracts, row->op->name)) continue;
        json_object_set_new(contracts, row->op->name, json_integer(row->op->contract));
        json_object_set_new(required, row->op->name, json_string(hm_class_name(row->v.required)));
        json_object_set_new(consistent, row->op->name, json_string(hm_report_consistent(r, row->op)));
    }
    const int64_t *n = r->total;
    json_t *summary = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "cases", (json_int_t)r->nrows, "passed",
                                (json_int_t)n[HM_PASS], "failed", (json_int_t)n[HM_FAIL], "out_of_class",
                                (json_int_t)n[HM_OUT_OF_CLASS], "skipped", (json_int_t)n[HM_SKIPPED], "declined",
                                (json_int_t)n[HM_DECLINED], "not_provided", (json_int_t)n[HM_NOT_OFFERED], "vacuous",
                                (json_int_t)n[HM_VACUOUS]);
    return json_pack("{s:s, s:s, s:o, s:{s:s, s:s, s:s, s:s}, s:s, s:I, s:o, s:o, s:o, s:o, s:o}", "schema",
                     "hallmark.certificate/1", "hallmark", HM_VERSION, "contracts", contracts, "impl", "name", r->impl, "sha256",
                     r->sha256, "place", r->place == HM_HOST ? "host" : "cuda", "isa", r->isa, "suite", r->suite, "seed",
                     (json_int_t)r->seed, "class_required", required, "class_consistent", consistent, "flags", flags, "results",
                     results, "summary", summary);
}

static void cpu_name(char *text, size_t size) {
    char line[512];
    struct utsname machine;
    FILE *f = fopen("/proc/cpuinfo", "re");
    *text = 0;
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !colon) continue;
        snprintf(text, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (f) fclose(f);
    if (!*text && uname(&machine) == 0) snprintf(text, size, "%s", machine.machine);
}

static json_t *host_json(void) {
    char cpu[256], when[32];
    time_t now = time(NULL);
    struct tm utc;
    cpu_name(cpu, sizeof cpu);
    clean_in_place(cpu, sizeof cpu);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
#ifdef __clang__
    const char *compiler = __VERSION__;
#else
    const char *compiler = "gcc " __VERSION__;
#endif
    return json_pack("{s:s, s:s, s:n, s:s, s:s}", "cpu", cpu, "isa", hm_isa(), "gpu", "compiler", compiler, "time", when);
}

/* The payload stands on a line of its own, so that `sed -n 2p certificate.json | tr -d '\n' | sha256sum` is its hash. */
static char *certificate_text(const hm_report *r) {
    const size_t canonical = JSON_COMPACT | JSON_SORT_KEYS;
    json_t *payload = payload_json(r), *host = host_json();
    char *payload_text = json_dumps(payload, canonical), *host_text = json_dumps(host, canonical), *text = NULL;
    if (payload_text && host_text) {
        unsigned char hash[crypto_hash_sha256_BYTES];
        char hash_hex[2 * crypto_hash_sha256_BYTES + 1];
        crypto_hash_sha256(hash, (const unsigned char *)payload_text, strlen(payload_text));
        sodium_bin2hex(hash_hex, sizeof hash_hex, hash, sizeof hash);
        if (asprintf(&text, "{\"payload\":\n%s\n,\"host\":%s\n,\"payload_sha256\":\"%s\"\n,\"signature\":null}\n", payload_text,
                     host_text, hash_hex) < 0)
            text = NULL;
    }
    free(payload_text);
    free(host_text);
    json_decref(payload);
    json_decref(host);
    return text;
}

/* ---- junit.xml ---------------------------------------------------------------------------------------------------- */

#define XML(s) ((const xmlChar *)(s))

static void junit_row(xmlTextWriter *w, const report_row *row) {
    const hm_verdict *v = &row->v;
    const char *outcome = hm_outcome_name(v->outcome);
    xmlTextWriterStartElement(w, XML("testcase"));
    xmlTextWriterWriteAttribute(w, XML("classname"), XML(row->op->name));
    xmlTextWriterWriteAttribute(w, XML("name"), XML(row->line));
    if (v->outcome != HM_PASS) {
        bool skipped = v->outcome == HM_SKIPPED || v->outcome == HM_DECLINED;
        xmlTextWriterStartElement(w, XML(skipped ? "skipped" : "failure"));
        if (!skipped) xmlTextWriterWriteAttribute(w, XML("type"), XML(outcome));
        xmlTextWriterWriteAttribute(w, XML("message"), XML(v->why));
        if (!skipped) xmlTextWriterWriteString(w, XML(row->repro));
        xmlTextWriterEndElement(w);
    }
    xmlTextWriterEndElement(w);
}

static char *junit_text(const hm_report *r) {
    xmlBuffer *buffer = xmlBufferCreate();
    xmlTextWriter *w = buffer ? xmlNewTextWriterMemory(buffer, 0) : NULL;
    char *text = NULL;
    if (w) {
        const int64_t *n = r->total;
        xmlTextWriterSetIndent(w, 1);
        xmlTextWriterStartDocument(w, NULL, "UTF-8", NULL);
        xmlTextWriterStartElement(w, XML("testsuite"));
        xmlTextWriterWriteFormatAttribute(w, XML("name"), "hallmark %s %s", r->impl, r->suite);
        xmlTextWriterWriteFormatAttribute(w, XML("tests"), "%lld", (long long)r->nrows);
        xmlTextWriterWriteFormatAttribute(w, XML("failures"), "%lld",
                                          (long long)(n[HM_FAIL] + n[HM_OUT_OF_CLASS] + n[HM_VACUOUS]));
        xmlTextWriterWriteAttribute(w, XML("errors"), XML("0"));
        xmlTextWriterWriteFormatAttribute(w, XML("skipped"), "%lld", (long long)(n[HM_SKIPPED] + n[HM_DECLINED]));
        for (int64_t i = 0; i < r->nrows; i++) junit_row(w, &r->row[i]);
        if (xmlTextWriterEndDocument(w) >= 0 && xmlTextWriterFlush(w) >= 0) text = strdup((const char *)xmlBufferContent(buffer));
        xmlFreeTextWriter(w);
    }
    if (buffer) xmlBufferFree(buffer);
    return text;
}

/* ---- summary.md --------------------------------------------------------------------------------------------------- */

static void markdown(FILE *f, const char *text) {
    for (; *text; text++) {
        if (strchr("|<>`*_\\", *text)) fputc('\\', f);
        fputc(*text, f);
    }
}

static char *summary_text(const hm_report *r) {
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    if (!f) return NULL;
    fprintf(f, "# Certificate of ");
    markdown(f, r->impl);
    fprintf(f, "\n\nhallmark %s, suite %s, seed %llu", HM_VERSION, r->suite, (unsigned long long)r->seed);
    for (int i = 0; i < r->nflags; i++) fprintf(f, ", %s", r->flag[i]);
    const int64_t *n = r->total;
    fprintf(f, ".\n\n%lld cases: %lld passed, %lld failed, %lld out of class, %lld vacuous, %lld skipped, %lld declined; not provided: ",
            (long long)r->nrows, (long long)n[HM_PASS], (long long)n[HM_FAIL], (long long)n[HM_OUT_OF_CLASS],
            (long long)n[HM_VACUOUS], (long long)n[HM_SKIPPED], (long long)n[HM_DECLINED]);
    markdown(f, r->missing);
    fprintf(f, ".\n\n| verdict | case | elements | outside | class | decided | max ulp | what is wrong |\n"
               "| --- | --- | --: | --: | --- | --: | --: | --- |\n");
    for (int pass = 0; pass < 2; pass++) /* what is not a pass comes first */
        for (int64_t i = 0; i < r->nrows; i++) {
            const hm_verdict *v = &r->row[i].v;
            if ((v->outcome == HM_PASS) != pass) continue;
            fprintf(f, "| %s | `%s` | %lld | %lld | %s | %.2f %% | %.4g | ", hm_outcome_name(v->outcome), r->row[i].line,
                    (long long)v->elements, (long long)v->outside, v->elements ? hm_class_name(v->consistent) : "",
                    floor(v->decided * 1e4) / 1e2, v->max_ulp);
            if (!pass) markdown(f, v->why);
            fputs(" |\n", f);
        }
    fclose(f);
    return text;
}

/* ---- files -------------------------------------------------------------------------------------------------------- */

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

hm_status hm_report_write(const hm_report *r, const char *dir, char *why, size_t size) {
    static const struct {
        const char *name;
        char *(*text)(const hm_report *);
    } files[] = {{"junit.xml", junit_text}, {"summary.md", summary_text}, {"certificate.json", certificate_text}};
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
        } else
            status = hm_write_file(path, text, strlen(text), why, size);
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
