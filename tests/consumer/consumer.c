/* A program that knows an installed Hallmark alone: normalises one row and looks the result up in the description
 * table. */
#include <hallmark/op.h>
#include <hallmark/rms_norm.h>
#include <stdio.h>

int main(void) {
    float x[4] = {3, -3, 1, 1}, out[4] = {0};
    const int64_t shape[] = {1, 4};
    hm_status status = hm_rms_norm(HM_ARGS(rms_norm, .out = hm_tensor_of(out, HM_F32, 2, shape),
                                           .x = hm_tensor_of(x, HM_F32, 2, shape), .eps = 4));
    if (status != HM_OK) {
        fprintf(stderr, "consumer: %s\n", hm_error());
        return 1;
    }
    printf("%s %s: %g %g %g %g\n", hm_op_named("rms_norm")->name, hm_version(), out[0], out[1], out[2], out[3]);
    return !(out[0] == 1 && out[1] == -1 && out[2] == out[3] && out[2] > 0.333f && out[2] < 0.334f);
}
