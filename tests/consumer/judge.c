/* A program that knows an installed Hallmark alone: has the judge try a right kernel and one that forgets its work. */
#include <hallmark/certify.h>
#include <hallmark/rms_norm.h>
#include <stdio.h>
#include <string.h>

static hm_status forgets(const hm_rms_norm_args *args) { return (void)args, HM_OK; }

static int outcome(hm_rms_norm_fn *kernel, const char *expected) {
    hm_certify *c = hm_certify_open("rms_norm x=bf16[7,64] weight=bf16[64] gen=normal seed=1");
    hm_certify_verdict v = {.size = sizeof v};
    if (!c || hm_certify_judge(c, kernel(hm_certify_args(c)), NULL, &v)) {
        fprintf(stderr, "judge: %s\n", hm_error());
        return 1;
    }
    printf("%s, %lld elements, %lld outside. %s\n", v.outcome, (long long)v.elements, (long long)v.outside, v.why);
    int wrong = strcmp(v.outcome, expected) != 0;
    hm_certify_close(c);
    /* One library holds the error of this thread, whichever of the two functions set it. */
    wrong |= hm_certify_open("no_such_op") != NULL || !strstr(hm_error(), "no_such_op");
    wrong |= hm_rms_norm(NULL) == HM_OK || strstr(hm_error(), "no_such_op") != NULL;
    return wrong;
}

int main(void) { return outcome(hm_rms_norm, "pass") | outcome(forgets, "fail"); }
