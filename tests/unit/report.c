/* The certificate: canonical payload and its hash, exit codes, classes, files whole or not at all. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <libxml/parser.h>
#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "certify/report.h"

static const char plain[] = "rms_norm x=bf16[2,8] gen=normal seed=1",
                  stagnate[] = "rms_norm x=bf16[2,8] gen=stagnate seed=1";

static hm_impl impl = {.name = "ref"};

static hm_verdict verdict(hm_outcome outcome, hm_class consistent) {
    hm_verdict v = {.outcome = outcome,
                    .required = HM_CHAIN64,
                    .consistent = consistent,
                    .elements = 16,
                    .point = 15,
                    .decided = 0.9375,
                    .max_ulp = 0x1.004p-1,
                    .effects_ok = true,
                    .effects = "ok",
                    .invariance = "same"};
    return v;
}

static void add(hm_report *r, const char *line, hm_outcome outcome, hm_class consistent) {
    hm_verdict v = verdict(outcome, consistent);
    if (outcome != HM_PASS) snprintf(v.why, sizeof v.why, "because");
    hm_report_add(r, hm_op_named("rms_norm"), line, 0xabc, &v, "hallmark certify --case '...'");
}

static hm_report *report_of(int n, const hm_outcome *outcomes) {
    hm_report *r = hm_report_new(&impl, "quick", 1, NULL);
    for (int i = 0; i < n; i++) add(r, plain, outcomes[i], HM_WIDE);
    return r;
}

static char *folder(void) {
    static char dir[] = "/tmp/hallmark-report-XXXXXX";
    cr_assert(mkdtemp(dir));
    return dir;
}

static char *slurp(const char *dir, const char *name) {
    char path[512];
    static char text[1 << 20];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    cr_assert(f, "%s is missing", path);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

static void discard(const char *dir) {
    static const char *const names[] = {"certificate.json", "junit.xml", "summary.md"};
    for (int i = 0; i < 3; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    cr_expect(rmdir(dir) == 0, "something else was left in %s", dir);
}

Test(report, exit_codes_and_their_precedence) {
    const struct {
        hm_outcome outcome[3];
        int n, code, strict;
    } rows[] = {
        {{HM_PASS}, 1, 0, 0},
        {{HM_PASS, HM_SKIPPED}, 2, 0, 1},
        {{HM_PASS, HM_DECLINED}, 2, 0, 1},
        {{HM_PASS, HM_FAIL, HM_VACUOUS}, 3, 1, 1},
        {{HM_PASS, HM_OUT_OF_CLASS}, 2, 1, 1},
        {{HM_PASS, HM_VACUOUS}, 2, 4, 4},
        {{HM_VACUOUS, HM_SKIPPED}, 2, 4, 1},
        {{HM_SKIPPED, HM_DECLINED}, 2, 3, 1},
        {{HM_PASS}, 0, 3, 3}, /* nothing ran: not a pass */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        hm_report *r = report_of(rows[i].n, rows[i].outcome);
        cr_expect_eq(hm_report_exit(r, false), rows[i].code, "row %zu", i);
        cr_expect_eq(hm_report_exit(r, true), rows[i].strict, "row %zu, strict", i);
        hm_report_free(r);
    }
}

/* Of a judge that was asked for a sample; no command does that for a report. */
Test(report, a_sample_of_rows_certifies_nothing) {
    hm_report *r = hm_report_new(&impl, "case", 1, NULL);
    hm_verdict v = verdict(HM_PASS, HM_WIDE);
    v.rows = 10, v.rows_judged = 9;
    hm_report_add(r, hm_op_named("rms_norm"), plain, 0xabc, &v, "hallmark certify --case '...'");
    cr_expect(hm_report_total(r, HM_PASS) == 0 && hm_report_total(r, HM_SKIPPED) == 1);
    cr_expect_eq(hm_report_exit(r, false), 3);
    v.outcome = HM_FAIL;
    hm_report_add(r, hm_op_named("rms_norm"), plain, 0xabc, &v, "hallmark certify --case '...'");
    cr_expect_eq(hm_report_exit(r, false), 1);
    hm_report_free(r);
}

Test(report, an_op_that_is_not_provided_is_named_and_is_no_pass) {
    hm_report *r = hm_report_new(&impl, "quick", 1, NULL);
    cr_expect_str_eq(hm_report_missing(r), "none");
    hm_report_not_provided(r, hm_op_named("rms_norm"));
    hm_report_not_provided(r, hm_op_named("fused_add_rms_norm"));
    cr_expect_str_eq(hm_report_missing(r), "rms_norm fused_add_rms_norm");
    cr_expect_eq(hm_report_total(r, HM_NOT_OFFERED), 2);
    cr_expect_eq(hm_report_exit(r, false), 3);
    hm_report_free(r);
}

Test(report, a_class_is_claimed_only_after_inputs_that_separate) {
    const hm_op_info *op = hm_op_named("rms_norm");
    hm_report *r = hm_report_new(&impl, "quick", 1, NULL);
    cr_expect_str_eq(hm_report_consistent(r, op), "none");
    add(r, plain, HM_PASS, HM_WIDE);
    cr_expect_str_eq(hm_report_consistent(r, op), "not separated");
    add(r, stagnate, HM_PASS, HM_CHAIN64);
    cr_expect_str_eq(hm_report_consistent(r, op), "chain64");
    add(r, stagnate, HM_OUT_OF_CLASS, HM_ANY);
    cr_expect_str_eq(hm_report_consistent(r, op), "any");
    add(r, plain, HM_FAIL, HM_CLASS_NONE);
    cr_expect_str_eq(hm_report_consistent(r, op), "none");
    hm_report_free(r);
}

Test(report, payload_is_canonical_and_hashed) {
    char *dir = folder(), why[256], hash_hex[65];
    static const char *const flags[] = {"class=chain512", NULL};
    hm_report *r = hm_report_new(&impl, "quick", 7, flags);
    hm_verdict v = verdict(HM_FAIL, HM_CLASS_NONE);
    v.outside = 1;
    v.has_worst = true;
    v.worst_ndim = 2;
    v.worst_index[0] = 1;
    v.worst_index[1] = 752;
    v.worst_got = -NAN;
    v.worst_lo = 0.5;
    v.worst_hi = INFINITY;
    snprintf(v.why, sizeof v.why, "a \"quote\", a tab\t, bytes \xff\xfe and <markup> | more");
    hm_report_add(r, hm_op_named("rms_norm"), plain, UINT64_MAX, &v, "repro");
    add(r, plain, HM_PASS, HM_WIDE);
    cr_assert_eq(hm_report_write(r, dir, why, sizeof why), HM_OK, "%s", why);
    hm_report_free(r);

    char *text = slurp(dir, "certificate.json");
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    cr_assert(root, "not JSON");
    json_t *payload = json_object_get(root, "payload");
    char *canonical = json_dumps(payload, JSON_COMPACT | JSON_SORT_KEYS);
    cr_expect(strstr(text, canonical), "the payload in the file is not the canonical one");
    unsigned char hash[crypto_hash_sha256_BYTES];
    crypto_hash_sha256(hash, (const unsigned char *)canonical, strlen(canonical));
    sodium_bin2hex(hash_hex, sizeof hash_hex, hash, sizeof hash);
    cr_expect_str_eq(json_string_value(json_object_get(root, "payload_sha256")), hash_hex);
    cr_expect(json_is_null(json_object_get(root, "signature")));
    cr_expect(json_is_null(json_object_get(json_object_get(root, "host"), "gpu")));

    json_t *row = json_array_get(json_object_get(payload, "results"), 0), *worst = json_object_get(row, "worst");
    cr_expect_str_eq(json_string_value(json_object_get(row, "inputs_xxh3")), "ffffffffffffffff");
    cr_expect_str_eq(json_string_value(json_object_get(row, "decided")), "0x1.ep-1");
    cr_expect_str_eq(json_string_value(json_object_get(row, "max_ulp")), "0x1.004p-1");
    cr_expect_str_eq(json_string_value(json_object_get(row, "verdict")), "fail");
    cr_expect_str_eq(json_string_value(json_object_get(worst, "got")), "nan");
    cr_expect_str_eq(json_string_value(json_object_get(worst, "hi")), "inf");
    cr_expect_eq(json_integer_value(json_array_get(json_object_get(worst, "index"), 1)), 752);
    json_t *summary = json_object_get(payload, "summary");
    cr_expect_eq(json_integer_value(json_object_get(summary, "cases")), 2);
    cr_expect_eq(json_integer_value(json_object_get(summary, "failed")), 1);
    cr_expect_str_eq(json_string_value(json_array_get(json_object_get(payload, "flags"), 0)), "class=chain512");

    text = slurp(dir, "junit.xml");
    xmlDoc *doc = xmlReadMemory(text, (int)strlen(text), "junit.xml", NULL, XML_PARSE_NOERROR);
    cr_expect(doc, "junit.xml does not parse");
    text = slurp(dir, "summary.md");
    cr_expect(strstr(text, "| fail |") < strstr(text, "| pass |"), "failing rows come first");
    cr_expect(strstr(text, "\\| more"), "a bar in a sentence would end the cell");
    xmlFreeDoc(doc);
    free(canonical);
    json_decref(root);
    discard(dir);
}

Test(report, the_same_report_is_the_same_bytes) {
    char *dir = folder(), why[256], *line[2];
    for (int k = 0; k < 2; k++) {
        hm_report *r = report_of(3, (hm_outcome[]){HM_PASS, HM_FAIL, HM_DECLINED});
        cr_assert_eq(hm_report_write(r, dir, why, sizeof why), HM_OK, "%s", why);
        hm_report_free(r);
        line[k] = strdup(strchr(slurp(dir, "certificate.json"), '\n') + 1);
        *strchr(line[k], '\n') = 0; /* the second line is the payload */
    }
    cr_expect_str_eq(line[0], line[1]);
    free(line[0]);
    free(line[1]);
    discard(dir);
}

Test(report, a_file_is_whole_or_not_there) {
    char *dir = folder(), why[256], path[512];
    snprintf(path, sizeof path, "%s/certificate.json", dir);
    cr_expect_eq(hm_write_file(path, "one", 3, why, sizeof why), HM_OK);
    cr_expect_eq(hm_write_file(path, "three", 5, why, sizeof why), HM_OK);
    cr_expect_str_eq(slurp(dir, "certificate.json"), "three");
    cr_expect_neq(hm_write_file("/dev/null/x", "one", 3, why, sizeof why), HM_OK);
    cr_expect(strstr(why, "/dev/null/x"), "%s", why);
    snprintf(path, sizeof path, "%s/in_the_way", dir);
    cr_assert_eq(mkdir(path, 0777), 0);
    cr_expect_neq(hm_write_file(path, "one", 3, why, sizeof why), HM_OK);
    cr_expect(strstr(why, path), "%s", why);
    cr_assert_eq(rmdir(path), 0);
    discard(dir); /* nothing temporary is beside it */
}

Test(report, a_folder_that_cannot_be_made_is_named) {
    char why[256];
    cr_expect_eq(hm_report_folder("/dev/null/x/y", why, sizeof why), HM_BAD_ARG);
    cr_expect(strstr(why, "/dev/null/x/y"), "%s", why);
    cr_expect_eq(hm_report_folder("/dev/null", why, sizeof why), HM_BAD_ARG);
    char *dir = folder(), path[512];
    snprintf(path, sizeof path, "%s/a/b", dir);
    cr_expect_eq(hm_report_folder(path, why, sizeof why), HM_OK, "%s", why);
    cr_expect_eq(rmdir(path), 0);
    snprintf(path, sizeof path, "%s/a", dir);
    cr_expect_eq(rmdir(path), 0);
    cr_expect_eq(rmdir(dir), 0);
}
