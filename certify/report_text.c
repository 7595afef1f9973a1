/* report_text.c: the certificate. Its payload holds nothing that two machines would disagree on, in canonical JSON
 * (sorted keys, compact, floats as hexadecimal strings); host and time stand beside it. summary.md says the
 * same for people. */
#include <jansson.h>
#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "report_rows.h"

/* ---- certificate.json ---------------------------------------------------------------------------------------------
 */

static json_t *hex(double v) {
    char text[40];
    if (isnan(v)) return json_string("nan"); /* whatever its sign */
    snprintf(text, sizeof text, "%a", v);
    return json_string(text);
}

static json_t *hex64(uint64_t v) { return json_sprintf("%016llx", (unsigned long long)v); }

static json_t *row_json(const report_row *row) {
    const hm_verdict *v = &row->v;
    json_t *j = json_pack("{s:s, s:s, s:o, s:o, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:s, s:s, s:s}", "op",
                          row->op->name, "case", row->line, "inputs_xxh3", hex64(row->inputs_xxh3), "outputs_xxh3",
                          hex64(v->outputs_xxh3), "verdict", hm_outcome_name(v->outcome), "class",
                          v->elements ? hm_class_name(v->consistent) : "none", "elements", (json_int_t)v->elements,
                          "outside", (json_int_t)v->outside, "out_of_class", (json_int_t)v->out_of_class, "range_free",
                          (json_int_t)v->range_free, "point", (json_int_t)v->point, "decided", hex(v->decided),
                          "max_ulp", hex(v->max_ulp), "effects", v->effects, "invariance",
                          *v->invariance ? v->invariance : "unchecked", "repro", row->repro);
    if (j && v->outcome != HM_PASS) json_object_set_new(j, "why", json_string(v->why));
    if (j && v->has_worst) {
        json_t *index = json_array();
        for (int i = 0; i < v->worst_ndim; i++) json_array_append_new(index, json_integer(v->worst_index[i]));
        json_object_set_new(j, "worst",
                            json_pack("{s:s, s:o, s:o, s:o, s:o, s:o}", "argument", row->op->args[v->worst_arg].name,
                                      "index", index, "got", hex(v->worst_got), "lo", hex(v->worst_lo), "hi",
                                      hex(v->worst_hi), "ideal", hex(v->worst_ideal)));
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
                     "hallmark.certificate/1", "hallmark", HM_VERSION, "contracts", contracts, "impl", "name", r->impl,
                     "sha256", r->sha256, "place", r->place == HM_HOST ? "host" : "cuda", "isa", r->isa, "suite",
                     r->suite, "seed", (json_int_t)r->seed, "class_required", required, "class_consistent", consistent,
                     "flags", flags, "results", results, "summary", summary);
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

static json_t *host_json(const hm_report *r) {
    char cpu[256], when[32];
    time_t now = time(NULL);
    struct tm utc;
    cpu_name(cpu, sizeof cpu);
    char *clean = hm_report_clean(cpu);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
#ifdef __clang__
    const char *compiler = __VERSION__;
#else
    const char *compiler = "gcc " __VERSION__;
#endif
    json_t *host = json_pack("{s:s, s:s, s:s?, s:s, s:s}", "cpu", clean, "isa", hm_isa(), "gpu",
                             *r->device ? r->device : NULL, "compiler", compiler, "time", when);
    free(clean);
    return host;
}

/* The payload stands on a line of its own, so that `sed -n 2p certificate.json | tr -d '\n' | sha256sum` is its hash.
 */
char *hm_report_certificate(const hm_report *r) {
    const size_t canonical = JSON_COMPACT | JSON_SORT_KEYS;
    json_t *payload = payload_json(r), *host = host_json(r);
    char *payload_text = json_dumps(payload, canonical), *host_text = json_dumps(host, canonical), *text = NULL;
    if (payload_text && host_text) {
        unsigned char hash[crypto_hash_sha256_BYTES];
        char hash_hex[2 * crypto_hash_sha256_BYTES + 1];
        crypto_hash_sha256(hash, (const unsigned char *)payload_text, strlen(payload_text));
        sodium_bin2hex(hash_hex, sizeof hash_hex, hash, sizeof hash);
        if (asprintf(&text, "{\"payload\":\n%s\n,\"host\":%s\n,\"payload_sha256\":\"%s\"\n,\"signature\":null}\n",
                     payload_text, host_text, hash_hex) < 0)
            text = NULL;
    }
    free(payload_text);
    free(host_text);
    json_decref(payload);
    json_decref(host);
    return text;
}

/* ---- summary.md ---------------------------------------------------------------------------------------------------
 */

static void markdown(FILE *f, const char *text) {
    for (; *text; text++) {
        if (strchr("|<>`*_\\", *text)) fputc('\\', f);
        fputc(*text, f);
    }
}

char *hm_report_summary(const hm_report *r) {
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    if (!f) return NULL;
    fprintf(f, "# Certificate of ");
    markdown(f, r->impl);
    fprintf(f, "\n\nhallmark %s, suite %s, seed %llu", HM_VERSION, r->suite, (unsigned long long)r->seed);
    for (int i = 0; i < r->nflags; i++) fprintf(f, ", %s", r->flag[i]);
    const int64_t *n = r->total;
    fprintf(f,
            ".\n\n%lld cases: %lld passed, %lld failed, %lld out of class, %lld vacuous, %lld skipped, %lld declined; "
            "not provided: ",
            (long long)r->nrows, (long long)n[HM_PASS], (long long)n[HM_FAIL], (long long)n[HM_OUT_OF_CLASS],
            (long long)n[HM_VACUOUS], (long long)n[HM_SKIPPED], (long long)n[HM_DECLINED]);
    markdown(f, r->missing);
    fprintf(f,
            ".\n\n| verdict | case | elements | outside | class | decided | max ulp | what is wrong |\n"
            "| --- | --- | --: | --: | --- | --: | --: | --- |\n");
    for (int pass = 0; pass < 2; pass++) /* what is not a pass comes first */
        for (int64_t i = 0; i < r->nrows; i++) {
            const hm_verdict *v = &r->row[i].v;
            if ((v->outcome == HM_PASS) != pass) continue;
            fprintf(f, "| %s | `%s` | %lld | %lld | %s | %.2f %% | %.4g | ", hm_outcome_name(v->outcome),
                    r->row[i].line, (long long)v->elements, (long long)v->outside,
                    v->elements ? hm_class_name(v->consistent) : "", floor(v->decided * 1e4) / 1e2, v->max_ulp);
            if (!pass) markdown(f, v->why);
            fputs(" |\n", f);
        }
    fclose(f);
    return text;
}
