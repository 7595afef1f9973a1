/* SPDX-License-Identifier: Apache-2.0
 * rope_table: cosines and sines of rotary position embeddings, one row a position.
 *
 *   out        out  [n, rotary_dim]  f32 f16 bf16; rotary_dim even, 2..65536, E = rotary_dim/2: columns 0..E-1 are
 *                                    cosines, E..2E-1 sines
 *   positions  in   [n], or [3, n]   i64, 0..2^24-1; absent means 0..n-1. [3, n] (t, h, w) only with mrope sections
 *   factors    in   [E]              f32 in 2^-10..2^20, one divisor a frequency; needed by longrope, else refused
 * Any strides; out's are positive, and it overlaps nothing.
 *
 * Formula   out[p, j] = mscale cos(a), out[p, E + j] = mscale sin(a), a = position(p, j) * inv_freq_j, j in 0..E-1,
 *           with f_j = base^(-2j/rotary_dim), s = factor, D = original_max_position, M = max_position; by `scaling`:
 *   default      inv_freq = f;  mscale = 1
 *   linear       inv_freq = f;  position / s in place of position;  mscale = 1
 *   dynamic_ntk  f from base * (s^2 - s + 1)^(rotary_dim/(rotary_dim-2));  mscale = 1. rotary_dim > 2
 *   yarn         inv_freq = f/s * (1 - m_j) + f * m_j, m_j = (1 - ramp_j) * extrapolation_factor,
 *                ramp_j = clamp((j - low)/(high - low), 0, 1), low = corr(beta_fast), high = corr(beta_slow),
 *                corr(r) = rotary_dim * ln(D/(2 pi r)) / (2 ln base); low is rounded down and high up to integers if
 *                fraction = drop; then low is at least 0, high at most rotary_dim-1; high += 0.001 if they are equal.
 *                mscale = attention_factor if that is not 0; else g(mscale)/g(mscale_all_dim) if both are not 0;
 *                else g(1), with g(a) = 1 if s <= 1, else 0.1 a ln(s) + 1
 *   deepseek_yarn  inv_freq as yarn;  mscale = g(mscale)/g(mscale_all_dim) * attention_factor (0 counts as 1)
 *   llama3       inv_freq = f if 2 pi/f < D/high_freq_factor; f/s if 2 pi/f > D/low_freq_factor; else (1-k) f/s + k f
 *                with k = (D f/(2 pi) - low_freq_factor)/(high_freq_factor - low_freq_factor), 0 if those are the same;
 *                mscale = 1
 *   longrope     inv_freq = f / factors_j;
 *                mscale = attention_factor if that is not 0; else sqrt(1 + ln(M/D)/ln(D)) if M > D; else 1
 *   mrope        sections (a, b, c), a + b + c = E, say which of the three positions column j takes. chunked: the first
 *                a columns t, the next b h, the rest w. interleaved: h if j % 3 == 1 and j < 3b, w if j % 3 == 2 and
 *                j < 3c, else t. All 0, or positions [n]: plain positions.
 *
 * Precision HM_TABLE_EXACT  the formula in real arithmetic on the arguments as they are given, one rounding to out's
 *                           dtype.
 *           HM_TABLE_F32    as upstream computes it: f32 tensors, double scalars narrowed to f32 where they meet one.
 *                           inv_freq_j is an f32 value, the same for all rows, within 4 ulp of the formula's and what
 *                           the formula's own f32 steps may add (below); the angle is RN_f32(position * inv_freq_j),
 *                           with RN_f32(position / RN_f32(s)) for linear; cos and sin are f32 values within 2 ulp of
 *                           those of that angle; the product with RN_f32(mscale), where that is not 1, may round to f32
 *                           once more; then RN to out's dtype.
 *           What the steps may add, with u = 2^-24:
 *             to f, relatively: u (2j/rotary_dim) ln(base) where 2j/rotary_dim is no f32 value, and u (2j/rotary_dim)
 *             where base is none. (Without the first, correct f32 code would be refused: 5 ulp off with base 1e6 and
 *             rotary_dim 96.)
 *             yarn, inside the ramp: 4 u inv_freq + (f - f/s) dm, dm = u (4 + |low/(high - low)| if fraction = keep).
 *             llama3, between the two wavelengths: 4 u inv_freq + (f - f/s) dk,
 *             dk = high_freq_factor (df/f + 7 u)/(high_freq_factor - low_freq_factor) + 2 u, df as added to f.
 * Ranges    base 2..2^40; factor 1..2^16; original_max_position 1..2^40 (from 2 for longrope), max_position 0..2^40;
 *           betas 2^-10..2^20; extrapolation_factor 0..1; mscale and mscale_all_dim 0..2^10; attention_factor 0 or
 *           2^-10..2^10; low_freq_factor <= high_freq_factor, both 2^-10..2^20. What a scaling does not read is not
 *           looked at.
 * Returns   BAD_ARG (factors without longrope, or longrope without factors), BAD_SHAPE, BAD_STRIDE, BAD_DTYPE,
 *           BAD_PLACE, BAD_ALIAS, BAD_PARAM (a scalar out of its range, an unknown mode, sections that do not add up),
 *           BAD_VALUE (on the host: a position or a divisor out of range), UNSUPPORTED, NO_DEVICE.
 * Source    Su et al. (2021); Peng et al., "YaRN" (2023); Ding et al., "LongRoPE" (2024); vLLM
 *           model_executor/layers/rotary_embedding; Hugging Face modeling_rope_utils (whose linear scaling divides
 *           inv_freq: the same bits where factor is a power of two, another table elsewhere). */
#ifndef HALLMARK_ROPE_TABLE_H
#define HALLMARK_ROPE_TABLE_H

#include "hallmark.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    HM_SCALING_DEFAULT = 0,
    HM_SCALING_LINEAR,
    HM_SCALING_DYNAMIC_NTK,
    HM_SCALING_YARN,
    HM_SCALING_DEEPSEEK_YARN,
    HM_SCALING_LLAMA3,
    HM_SCALING_LONGROPE
} hm_rope_scaling;
typedef enum { HM_TABLE_F32 = 0, HM_TABLE_EXACT } hm_table_precision;
typedef enum { HM_FRACTION_DROP = 0, HM_FRACTION_KEEP } hm_rope_fraction;
typedef enum { HM_MROPE_CHUNKED = 0, HM_MROPE_INTERLEAVED } hm_mrope_layout;

typedef struct {
    size_t size; /* filled by HM_ARGS */
    hm_tensor out, positions, factors;
    hm_table_precision precision;
    hm_rope_scaling scaling;
    double base;   /* 10000 in the first models */
    double factor; /* s; ignored by default and longrope */
    int64_t original_max_position, max_position;
    double beta_fast, beta_slow; /* 32 and 1 in the paper */
    double extrapolation_factor; /* 1 */
    double mscale, mscale_all_dim, attention_factor;
    double low_freq_factor, high_freq_factor;
    hm_rope_fraction fraction;         /* of low and high */
    int64_t mrope_t, mrope_h, mrope_w; /* sections */
    hm_mrope_layout mrope_layout;
    void *stream; /* HM_CUDA only */
} hm_rope_table_args;

typedef hm_status hm_rope_table_fn(const hm_rope_table_args *args);
HM_API hm_rope_table_fn hm_rope_table;       /* dispatches on the tensors' place */
HM_API hm_rope_table_fn hm_rope_table_check; /* the contract as code; writes nothing */
HM_API hm_rope_table_fn hm_rope_table_ref;   /* plain C + OpenMP; the same bits on every CPU and thread count */
HM_API hm_rope_table_fn hm_rope_table_cuda;  /* the bits of ref; see cuda.h */

#ifdef __cplusplus
}
#endif
#endif
