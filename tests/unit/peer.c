/* Peers of `hallmark bench`: what a program is given, what it may answer, and who is faster. */
#include "tools/peer.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static hm_call *call_of(const char *line) {
    static hm_case_spec spec;
    hm_call *call;
    char why[512] = "";
    cr_assert_eq(hm_case_parse(line, &spec, why, sizeof why), HM_OK, "%s", why);
    cr_assert_eq(hm_call_from_case(&spec, &call, why, sizeof why), HM_OK, "%s", why);
    return call;
}

/* A shell script as the peer; NULL if it does not take the case. */
static hm_peer *open_script(const char *text, const hm_call *call, char *why, size_t size) {
    static char path[64];
    snprintf(path, sizeof path, "/tmp/hallmark-peer-%ld.sh", (long)getpid());
    FILE *file = fopen(path, "w");
    cr_assert(file);
    fprintf(file, "#!/bin/sh\n%s\n", text);
    fclose(file);
    cr_assert_eq(chmod(path, 0700), 0);
    hm_peer *p = hm_peer_open(path, why, size);
    cr_assert(p, "%s", why);
    bool taken = hm_peer_case(p, call, 3, 12, why, size);
    unlink(path);
    if (taken) return p;
    hm_peer_close(p);
    return NULL;
}

static const char plain[] = "rms_norm x=f32[4,64] weight=f32 alias=out:x stride=x:72,1 eps=1e-5 round=norm_first";

Test(peer, is_given_the_case_and_its_bytes) {
    hm_call *call = call_of(plain);
    char why[256] = "", expected[64];
    double seconds;
    /* the first element of x, read from where the JSON says that it is */
    hm_peer *p = open_script(
        "read -r word file; python3 -c '\n"
        "import json, struct, sys\n"
        "c = json.load(open(sys.argv[1]))\n"
        "x, out, w = c[\"args\"][\"x\"], c[\"args\"][\"out\"], c[\"args\"][\"weight\"]\n"
        "f = open(x[\"file\"], \"rb\"); f.seek(x[\"offset\"])\n"
        "same = x[\"buffer\"] == out[\"buffer\"] and x[\"offset\"] == out[\"offset\"]\n"
        "assert same and w[\"buffer\"] != x[\"buffer\"]\n"
        "assert x[\"shape\"] == [4, 64] and x[\"stride\"] == [72, 1] and x[\"dtype\"] == \"f32\"\n"
        "assert x[\"direction\"] == \"in\" and out[\"direction\"] == \"out\"\n"
        "assert c[\"params\"][\"eps\"] == 1e-5 and c[\"params\"][\"round\"] == \"norm_first\"\n"
        "assert c[\"sets\"] == 3 and c[\"calls\"] == 12 and c[\"op\"] == \"rms_norm\"\n"
        "print(\"ready %.9g\" % struct.unpack(\"f\", f.read(4)))\n"
        "' \"$file\"",
        call, why, sizeof why);
    cr_assert(p, "%s", why);
    snprintf(expected, sizeof expected, "%.9g", *(float *)hm_arg_tensor(call->op, call->args, 0)->data);
    cr_expect_str_eq(hm_peer_name(p), expected);
    cr_expect_not(hm_peer_time(p, &seconds, why, sizeof why));
    cr_expect(strstr(why, "the peer ended"), "%s", why);
    cr_expect(hm_peer_gone(p));
    hm_peer_close(p);
    hm_call_free(call);
}

Test(peer, tells_times_until_its_input_ends) {
    hm_call *call = call_of(plain);
    char why[256] = "";
    double seconds = 0;
    hm_peer *p = open_script(
        "while read -r word file; do if [ $word = time ]; then echo 12.5; else echo ready a script; fi; done", call,
        why, sizeof why);
    cr_assert(p, "%s", why);
    cr_expect_str_eq(hm_peer_name(p), "a script");
    for (int i = 0; i < 3; i++) {
        cr_expect(hm_peer_time(p, &seconds, why, sizeof why), "%s", why);
        cr_expect_float_eq(seconds, 12.5e-6, 1e-12);
    }
    cr_expect(hm_peer_case(p, call, 1, 1, why, sizeof why), "%s", why); /* and another */
    cr_expect(hm_peer_time(p, &seconds, why, sizeof why), "%s", why);
    cr_expect_not(hm_peer_gone(p));
    hm_peer_close(p);
    hm_call_free(call);
}

Test(peer, tells_what_a_large_product_takes) {
    hm_call *call = call_of(plain);
    char why[256] = "";
    double bf16 = 0, fp8 = 0;
    hm_peer *p = open_script(
        "while read -r word what; do case $word$what in productbf16) echo 1400;; productfp8) echo "
        "declined there is none;; *) echo ready a script;; esac; done",
        call, why, sizeof why);
    cr_assert(p, "%s", why);
    cr_expect(hm_peer_product(p, false, &bf16, why, sizeof why), "%s", why);
    cr_expect_float_eq(bf16, 1400e-6, 1e-12);
    cr_expect_not(hm_peer_product(p, true, &fp8, why, sizeof why));
    cr_expect_not(hm_peer_gone(p));
    hm_peer_close(p);
    hm_call_free(call);
}

Test(peer, may_decline_or_fail) {
    static const struct {
        const char *script, *why;
    } rows[] = {
        {"read -r word; echo declined there is no such mode", "there is no such mode"},
        {"read -r word; echo hello", "hello"},
        {"exit 1", "the peer ended"},
    };
    hm_call *call = call_of(plain);
    char why[256];
    double seconds;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        *why = 0;
        cr_expect_null(open_script(rows[i].script, call, why, sizeof why));
        cr_expect(strstr(why, rows[i].why), "%s", why);
    }
    hm_peer *none = hm_peer_open("/no/such/program", why, sizeof why); /* not all systems know before it has ended */
    if (none) cr_expect_not(hm_peer_case(none, call, 1, 1, why, sizeof why));
    cr_expect(strstr(why, "/no/such/program cannot be started"), "%s", why);
    hm_peer_close(none);
    static const char *const times[] = {"0", "-1", "nan", "inf", "12 us", "", "fast"};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        char script[128];
        snprintf(script, sizeof script, "read -r word; echo ready x; read -r word; echo '%s'", times[i]);
        hm_peer *p = open_script(script, call, why, sizeof why);
        cr_assert(p, "%s", why);
        cr_expect_not(hm_peer_time(p, &seconds, why, sizeof why), "%s", times[i]);
        cr_expect(strstr(why, "which is no time"), "%s", why);
        hm_peer_close(p);
    }
    hm_call_free(call);
}

Test(peer, is_slower_only_by_more_than_the_spread) {
    static const double own[] = {10, 11, 10.5, 10.2, 10.4};
    static const struct {
        double peer[HM_PEER_PASSES];
        int faster;
    } rows[] = {
        {{12, 12, 12, 12, 12}, 1},           /* 1.6 apart, spread 1 */
        {{11.3, 11.3, 11.3, 11.3, 11.3}, 0}, /* 0.9 */
        {{9, 9, 9, 9, 9}, -1},               /* 1.4 */
        {{9.5, 9.5, 9.5, 9.5, 9.5}, 0},
        {{12, 12, 12, 14, 12}, 0}, /* its own spread */
        {{10, 11, 10.5, 10.2, 10.4}, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        hm_peer_result r = hm_peer_compare(own, rows[i].peer);
        cr_expect_eq(r.faster, rows[i].faster, "%zu", i);
        cr_expect_float_eq(r.own, 10.4, 1e-12);
        cr_expect_float_eq(r.own_spread, 1, 1e-12);
    }
}
