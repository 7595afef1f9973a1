/* norm.cuh: the kernels of rms_norm and fused_add_rms_norm. The order of summation is that of row.cuh. */
#ifndef HM_CUDA_NORM_CUH
#define HM_CUDA_NORM_CUH

#include "row.cuh"

extern "C" {
#include "../../op/rms_norm.h"
#include "hallmark/fused_add_rms_norm.h"
}

namespace hm {

/* What is done with x * rs: nothing, * weight, round and * weight, * (1 + weight). */
enum norm_end { NO_WEIGHT, WEIGHT, ROUND_THEN_WEIGHT, ONE_PLUS_WEIGHT };

struct norm_params {
    const void *x, *residual, *weight;
    void *out, *residual_out;
    rows x_rows, residual_rows, out_rows, residual_out_rows;
    int64_t x_step, residual_step, weight_step, out_step,
        residual_out_step;                       /* elements from one to the next in a row */
    int64_t first, count, hidden, variance_size; /* first: row of block 0 */
    int pieces;                                  /* of a thread, where the kernel does not know */
    float per_mean, eps;
    norm_end end;
    bool residual_wide, read_rounded;
};

/* Sum of the squares of one piece; first: index of its element 0. */
template <int VEC>
__device__ __forceinline__ float sum_of_squares(const float *v, int64_t first, int64_t variance_size) {
    float half[2] = {0.0f, 0.0f};
    if (first + VEC <= variance_size) {
#pragma unroll
        for (int i = 0; i < VEC / 2; i++)
#pragma unroll
            for (int h = 0; h < 2; h++) half[h] = __fmaf_rn(v[h * (VEC / 2) + i], v[h * (VEC / 2) + i], half[h]);
    } else {
#pragma unroll
        for (int i = 0; i < VEC / 2; i++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float a = first + h * (VEC / 2) + i < variance_size ? v[h * (VEC / 2) + i] : 0.0f;
                half[h] = __fmaf_rn(a, a, half[h]);
            }
    }
    return __fadd_rn(half[0], half[1]);
}

__device__ __forceinline__ float reciprocal_root(const norm_params &p, float sum) {
    return rsqrtf(__fadd_rn(__fmul_rn(sum, p.per_mean), p.eps));
}

/* Not yet rounded to T. */
template <typename T, norm_end END>
__device__ __forceinline__ float normalised(float v, float rs, float weight) {
    float n = __fmul_rn(v, rs);
    if (END == NO_WEIGHT) return n;
    if (END == ROUND_THEN_WEIGHT) n = widen(narrow<T>(n));
    return __fmul_rn(n, END == ONE_PLUS_WEIGHT ? __fadd_rn(1.0f, weight) : weight);
}

/* body(END) for the end that p names; the branch is the same for all threads. */
template <norm_end END>
struct end_is {
    static constexpr norm_end value = END;
};
template <typename F>
__device__ __forceinline__ void for_end(norm_end end, F body) {
    switch (end) {
        case NO_WEIGHT:
            return body(end_is<NO_WEIGHT>());
        case WEIGHT:
            return body(end_is<WEIGHT>());
        case ROUND_THEN_WEIGHT:
            return body(end_is<ROUND_THEN_WEIGHT>());
        case ONE_PLUS_WEIGHT:
            return body(end_is<ONE_PLUS_WEIGHT>());
    }
}

/* v: x on entry, what the norm reads on return; stored: the sum as it is stored. */
template <typename R, int VEC>
__device__ __forceinline__ void add_residual(bool read_rounded, float *v, const float *residual, vec<R, VEC> *stored) {
#pragma unroll
    for (int i = 0; i < VEC; i++) v[i] = __fadd_rn(v[i], residual[i]);
    stored->set(v);
    if (read_rounded) stored->get(v);
}

/* ---- rows that are held in registers; everything is aligned ---- */

/* LATE: the weight is read when it is needed, from the first-level cache once some rows have passed. That takes fewer
 * registers, so that more rows are under way; with few rows it shows its latency. */
template <typename T, typename W, typename R, int PIECES, bool FUSED, bool LATE>
__global__ void __launch_bounds__(HELD_LANES) norm_held(const __grid_constant__ norm_params p) {
    constexpr int VEC = 16 / sizeof(T);
    __shared__ float shared[32];
    wait_for_previous();
    const int pieces = (int)p.hidden / VEC, lane = threadIdx.x;
    const int64_t row = p.first + (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    const int mine = row < p.count ? pieces : 0; /* pieces that this thread may touch */
    const vec<T, VEC> *x = (const vec<T, VEC> *)((const T *)p.x + row_offset(p.x_rows, row));
    vec<T, VEC> in[PIECES] = {};
    vec<W, VEC> weight[PIECES] = {};
    vec<R, VEC> sums[FUSED ? PIECES : 1];
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < PIECES; k++)
        if ((int)(k * blockDim.x) + lane < mine) in[k] = x[k * blockDim.x + lane];
    if constexpr (FUSED) {
        const int64_t at = row_offset(p.residual_rows, row);
#pragma unroll
        for (int k = 0; k < PIECES; k++) {
            sums[k] = {};
            if ((int)(k * blockDim.x) + lane >= mine) continue;
            if (sizeof(R) == sizeof(T) || p.residual_wide)
                sums[k] = ((const vec<R, VEC> *)((const R *)p.residual + at))[k * blockDim.x + lane];
            else {
                float v[VEC];
                ((const vec<T, VEC> *)((const T *)p.residual + at))[k * blockDim.x + lane].get(v);
                sums[k].set(v);
            }
        }
    }
    if (!LATE && p.weight)
#pragma unroll
        for (int k = 0; k < PIECES; k++)
            if ((int)(k * blockDim.x) + lane < pieces)
                weight[k] = ((const vec<W, VEC> *)p.weight)[k * blockDim.x + lane];
    let_next_start();
    /* v: what the norm reads of piece k. The sum is formed anew where it is read unrounded. */
    auto read = [&](int k, bool again, float *v) {
        if constexpr (FUSED) {
            if (again && p.read_rounded) return sums[k].get(v);
            float r[VEC];
            vec<R, VEC> stored;
            in[k].get(v);
            sums[k].get(r);
            add_residual<R, VEC>(p.read_rounded, v, r, &stored);
            if (again) return;
            if ((int)(k * blockDim.x) + lane < mine)
                ((vec<R, VEC> *)((R *)p.residual_out + row_offset(p.residual_out_rows, row)))[k * blockDim.x + lane] =
                    stored;
            if (p.read_rounded) sums[k] = stored;
        } else in[k].get(v);
    };
#pragma unroll
    for (int k = 0; k < PIECES; k++) {
        float v[VEC];
        read(k, false, v);
        sum = __fadd_rn(sum, sum_of_squares<VEC>(v, (int64_t)(k * blockDim.x + lane) * VEC, p.variance_size));
    }
    const float rs = reciprocal_root(p, sum_of_row(sum, shared));
#pragma unroll
    for (int k = 0; k < PIECES; k++) { /* 8 words, not 16 floats, over the barrier */
        in[k].forget();
        if (FUSED) sums[k].forget();
    }
    vec<T, VEC> *out = (vec<T, VEC> *)((T *)p.out + row_offset(p.out_rows, row));
    for_end(p.end, [&](auto end) {
#pragma unroll
        for (int k = 0; k < PIECES; k++) {
            if ((int)(k * blockDim.x) + lane >= mine) continue;
            vec<T, VEC> to;
            float v[VEC], w[VEC];
            if (LATE && decltype(end)::value != NO_WEIGHT)
                weight[k] = ((const vec<W, VEC> *)p.weight)[k * blockDim.x + lane];
            read(k, true, v);
            weight[k].get(w);
#pragma unroll
            for (int i = 0; i < VEC; i++) v[i] = normalised<T, decltype(end)::value>(v[i], rs, w[i]);
            to.set(v);
            out[k * blockDim.x + lane] = to;
        }
    });
}

/* ---- any row: read twice; for long rows and for any stride and alignment ---- */

/* What the norm reads of one piece, and for FUSED what is stored of it, not yet rounded. */
template <typename T, typename R, int VEC, bool ALIGNED, bool FUSED>
__device__ __forceinline__ void read_summed(const norm_params &p, int64_t row, int64_t first, float *v, float *stored) {
    read_piece<T, VEC, ALIGNED>((const T *)p.x + row_offset(p.x_rows, row), p.x_step, first, p.hidden, v);
    if constexpr (FUSED) {
        float residual[VEC];
        int64_t at = row_offset(p.residual_rows, row);
        if (sizeof(R) == sizeof(T) || p.residual_wide)
            read_piece<R, VEC, ALIGNED>((const R *)p.residual + at, p.residual_step, first, p.hidden, residual);
        else read_piece<T, VEC, ALIGNED>((const T *)p.residual + at, p.residual_step, first, p.hidden, residual);
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            stored[i] = __fadd_rn(v[i], residual[i]);
            v[i] = p.read_rounded ? widen(narrow<R>(stored[i])) : stored[i];
        }
    }
}

template <typename T, typename W, typename R, bool ALIGNED, bool FUSED>
__global__ void __launch_bounds__(1024) norm_any(const __grid_constant__ norm_params p) {
    constexpr int VEC = 16 / sizeof(T);
    __shared__ float shared[32];
    wait_for_previous();
    let_next_start();
    int64_t row = p.first + (int64_t)blockIdx.x * blockDim.y + threadIdx.y, mine = row < p.count ? p.hidden : 0;
    float sum = 0.0f, v[VEC], stored[VEC];
    for (int k = 0; k < p.pieces; k++) {
        int64_t first = ((int64_t)k * blockDim.x + threadIdx.x) * VEC;
        if (first >= mine) break;
        read_summed<T, R, VEC, ALIGNED, FUSED>(p, row, first, v, stored);
        sum = __fadd_rn(sum, sum_of_squares<VEC>(v, first, p.variance_size));
    }
    float rs = reciprocal_root(p, sum_of_row(sum, shared));
    for_end(p.end, [&](auto end) {
        for (int k = 0; k < p.pieces; k++) {
            int64_t first = ((int64_t)k * blockDim.x + threadIdx.x) * VEC;
            if (first >= mine) break;
            read_summed<T, R, VEC, ALIGNED, FUSED>(p, row, first, v, stored);
            float weight[VEC] = {};
            if (decltype(end)::value != NO_WEIGHT)
                read_piece<W, VEC, ALIGNED>((const W *)p.weight, p.weight_step, first, p.hidden, weight);
#pragma unroll
            for (int i = 0; i < VEC; i++) v[i] = normalised<T, decltype(end)::value>(v[i], rs, weight[i]);
            if constexpr (FUSED)
                write_piece<R, VEC, ALIGNED>((R *)p.residual_out + row_offset(p.residual_out_rows, row),
                                             p.residual_out_step, first, p.hidden, stored);
            write_piece<T, VEC, ALIGNED>((T *)p.out + row_offset(p.out_rows, row), p.out_step, first, p.hidden, v);
        }
    });
}

/* ---- on the host ---- */

static inline norm_params norm_params_of(const hm_tensor &x, const hm_tensor &weight, const hm_tensor &out, double eps,
                                         hm_round round, hm_weight_form form, int64_t variance_size) {
    norm_params p = {};
    p.x = x.data, p.weight = weight.dtype ? weight.data : nullptr, p.out = out.data;
    p.x_rows = rows_of(x), p.out_rows = rows_of(out);
    p.x_step = x.stride[x.ndim - 1], p.weight_step = weight.stride[0], p.out_step = out.stride[out.ndim - 1];
    p.count = hm_row_count(&x), p.hidden = x.shape[x.ndim - 1];
    p.variance_size = variance_size ? variance_size : p.hidden;
    p.per_mean = (float)(1.0 / (double)p.variance_size), p.eps = (float)eps;
    p.end = !p.weight                      ? NO_WEIGHT
            : form == HM_WEIGHT_ONE_PLUS   ? ONE_PLUS_WEIGHT
            : round == HM_ROUND_NORM_FIRST ? ROUND_THEN_WEIGHT
                                           : WEIGHT;
    return p;
}

/* all_aligned: every tensor that there is can be read in pieces. */
template <typename T, typename W, typename R, bool FUSED>
static hm_status norm_launch(const char *op, norm_params p, bool all_aligned, void *stream) {
    row_shape s = row_shape_of(p.hidden, 16 / sizeof(T));
    int64_t blocks = (p.count - 1) / s.rows + 1;
    p.pieces = s.pieces;
    all_aligned = all_aligned && p.hidden % (16 / sizeof(T)) == 0;
    /* By measurement on an H200: the weight late for a few rows a multiprocessor if rows are long, for many if short. */
    bool late = !FUSED && blocks > (int64_t)hm_cuda_processors() * (s.lanes >= 256 ? 3 : 64);
    void (*kernel)(norm_params) = norm_any<T, W, R, false, FUSED>;
    if (all_aligned && s.lanes > HELD_LANES) kernel = norm_any<T, W, R, true, FUSED>;
    else if (all_aligned && s.pieces == 1) kernel = norm_held<T, W, R, 1, FUSED, false>;
    else if (all_aligned && s.pieces == 2)
        kernel = late ? norm_held<T, W, R, 2, FUSED, !FUSED> : norm_held<T, W, R, 2, FUSED, false>;
    else if (all_aligned) kernel = late ? norm_held<T, W, R, 4, FUSED, !FUSED> : norm_held<T, W, R, 4, FUSED, false>;
    return launch_rows(op, kernel, p, s, stream);
}

} // namespace hm

#endif
