/* fp8_quotients: the quotients of opt/cuda/fp8.cuh (codes_of_words) become the codes that RN(v / S) becomes. For each
 * significand of 11 bits (f16; bf16 has 8 of them) and each tie between two codes of f8e4m3 (5 bits), the 49 scales
 * about v / tie: what takes one step is on the side of the tie where RN(v / S) is, or both are on it. What takes no
 * step is not; that shows that the scales are hard ones. */
#include <math.h>
#include <stdio.h>

static int side(float v, float tie) { return (v > tie) - (v < tie); }

int main(void) {
    long count = 0, bad = 0, bad_without = 0, negative_zero = 0;
    for (int v = 1024; v < 2048; v++)
        for (int t = 16; t < 32; t++) {
            const float x = (float)v / 1024, tie = (float)t / 16;
            float s = x / tie;
            for (int k = 0; k < 24; k++) s = nextafterf(s, 0.0f);
            for (int k = 0; k < 49; k++, s = nextafterf(s, 4.0f), count++) {
                const float inverse = 1 / s, exact = x / s, q = x * inverse, better = fmaf(-fmaf(q, s, -x), inverse, q);
                bad += side(better, tie) != side(exact, tie), bad_without += side(q, tie) != side(exact, tie);
            }
        }
    for (float s = 0x1p-90f; s < 0x1p100f; s *= 1.7f) {
        const float inverse = 1 / s, q = -0.0f * inverse, zero = fmaf(-fmaf(q, s, 0.0f), inverse, q);
        negative_zero += zero == 0 && signbit(zero) ? 0 : 1;
    }
    printf("%ld quotients: %ld on another side (%ld without the step); -0 lost %ld times\n", count, bad, bad_without,
           negative_zero);
    return bad || negative_zero || !bad_without;
}
