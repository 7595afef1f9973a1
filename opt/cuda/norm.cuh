/* norm.cuh: the kernels of rms_norm and fused_add_rms_norm. The order of summation is that of row.cuh. */
#ifndef HM_CUDA_NORM_CUH
#define HM_CUDA_NORM_CUH

#include "row.cuh"

extern "C" {
#include "../../op/rms_norm.h"
#include "hallmark/fused_add_rms_norm.h"
}

namespace hm {

/* What every launch reads stands first: a kernel that lives for a microsecond waits for each line of its parameters. */
struct norm_params {
    const void *x, *weight;
    void *out;
    int64_t x_stride, out_stride; /* from row to row, where one stride will do: `simple` */
    uint32_t first, count;        /* row of block 0, rows; held rows alone */
    int row_pieces;               /* of a whole row */
    float per_mean, eps, one;     /* 1 + weight, or 0 + weight; a weight that is absent is 1 */
    bool simple, partial, norm_first, read_rounded, residual_wide; /* partial: the mean is not over the whole row */
    const void *residual;
    void *residual_out;
    int64_t residual_stride, residual_out_stride;

    int64_t first_row, rows_in_all, hidden, variance_size;
    rows x_rows, residual_rows, out_rows, residual_out_rows;
    int64_t x_step, residual_step, weight_step, out_step,
        residual_out_step; /* elements from one to the next in a row */
    int pieces;            /* of a thread, where the kernel does not know */
};

/* Sum of the squares of one piece; first: index of its element 0. v is not kept. WHOLE: the mean is over all of it. */
template <int VEC, bool WHOLE = false>
__device__ __forceinline__ float sum_of_squares(const norm_params &p, float *v, int64_t first) {
    float half[2] = {0.0f, 0.0f};
    if (!WHOLE && p.partial)
#pragma unroll
        for (int i = 0; i < VEC; i++)
            if (first + i >= p.variance_size) v[i] = 0.0f;
#pragma unroll
    for (int i = 0; i < VEC / 2; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) half[h] = __fmaf_rn(v[h * (VEC / 2) + i], v[h * (VEC / 2) + i], half[h]);
    return __fadd_rn(half[0], half[1]);
}

__device__ __forceinline__ float reciprocal_root(const norm_params &p, float sum) {
    return rsqrtf(__fadd_rn(__fmul_rn(sum, p.per_mean), p.eps));
}

/* v := v * rs * weight, as the modes say, not yet rounded to T. */
template <typename T, int VEC>
__device__ __forceinline__ void normalise(const norm_params &p, float *v, float rs, const float *weight) {
#pragma unroll
    for (int i = 0; i < VEC; i++) v[i] = __fmul_rn(v[i], rs);
    if (p.norm_first) {
        vec<T, VEC> rounded;
        rounded.set(v), rounded.get(v);
    }
#pragma unroll
    for (int i = 0; i < VEC; i++) v[i] = __fmul_rn(v[i], __fadd_rn(weight[i], p.one));
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
 * registers, so that more rows are under way; with few rows it shows its latency.
 * PLAIN: what most calls are, without what the others need: one stride from row to row, a weight, the mean over the
 * whole row, a row a block; the norm reads the sum as it is stored, in the dtype that the residual has. */
template <typename T, typename W, typename R, int PIECES, bool FUSED, bool LATE, bool PLAIN>
__global__ void __launch_bounds__(HELD_LANES, LATE &&PIECES == 2 ? 4 : 1)
    norm_held(const __grid_constant__ norm_params p) {
    constexpr int VEC = 16 / sizeof(T);
    __shared__ float shared[32];
    wait_for_previous();
    const uint32_t row = PLAIN ? blockIdx.x : p.first + blockIdx.x * blockDim.y + threadIdx.y;
    auto at_row = [&](int64_t stride, const rows &r) {
        return PLAIN || p.simple ? row * stride : row_offset32(r, row);
    };
    /* pieces that this thread may touch, from its first on */
    const int mine = (PLAIN || row < p.count ? p.row_pieces : 0) - (int)threadIdx.x, step = blockDim.x;
    const vec<T, VEC> *x = (const vec<T, VEC> *)((const T *)p.x + at_row(p.x_stride, p.x_rows)) + threadIdx.x;
    const vec<W, VEC> *w = (const vec<W, VEC> *)p.weight + threadIdx.x;
    vec<T, VEC> in[PIECES] = {};
    vec<W, VEC> weight[PIECES];
    vec<R, VEC> sums[FUSED ? PIECES : 1] = {};
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < PIECES; k++)
        if (k * step < mine) in[k] = x[k * step];
    if constexpr (FUSED) {
        const int64_t at = at_row(p.residual_stride, p.residual_rows);
        if (PLAIN || sizeof(R) == sizeof(T) || p.residual_wide) {
            const vec<R, VEC> *from = (const vec<R, VEC> *)((const R *)p.residual + at) + threadIdx.x;
#pragma unroll
            for (int k = 0; k < PIECES; k++)
                if (k * step < mine) sums[k] = from[k * step];
        } else {
            const vec<T, VEC> *from = (const vec<T, VEC> *)((const T *)p.residual + at) + threadIdx.x;
#pragma unroll
            for (int k = 0; k < PIECES; k++)
                if (k * step < mine) {
                    float v[VEC];
                    from[k * step].get(v);
                    sums[k].set(v);
                }
        }
    }
#pragma unroll
    for (int k = 0; k < PIECES; k++) {
        weight[k].fill(1.0f);
        if (!LATE && (PLAIN || p.weight) && k * step < mine) weight[k] = w[k * step];
    }
    let_next_start();
#pragma unroll
    for (int k = 0; k < PIECES; k++) {
        float v[VEC];
        in[k].get(v);
        if constexpr (FUSED) {
            float r[VEC];
            vec<R, VEC> stored;
            sums[k].get(r);
            add_residual<R, VEC>(PLAIN || p.read_rounded, v, r, &stored);
            if (k * step < mine)
                ((vec<R, VEC> *)((R *)p.residual_out + at_row(p.residual_out_stride, p.residual_out_rows)) +
                 threadIdx.x)[k * step] = stored;
            if (PLAIN || p.read_rounded) sums[k] = stored;
        }
        sum = __fadd_rn(sum, sum_of_squares<VEC, PLAIN>(p, v, (int64_t)(k * step + threadIdx.x) * VEC));
    }
    const float rs = reciprocal_root(p, PLAIN ? sum_of_long_row(sum, shared) : sum_of_row(sum, shared));
    vec<T, VEC> *out = (vec<T, VEC> *)((T *)p.out + at_row(p.out_stride, p.out_rows)) + threadIdx.x;
#pragma unroll
    for (int k = 0; k < PIECES; k++) {
        float v[VEC], wide[VEC];
        if (LATE && (PLAIN || p.weight) && k * step < mine) weight[k] = w[k * step];
        in[k].forget(); /* 8 words, not 16 floats, over the barrier */
        in[k].get(v);
        if constexpr (FUSED) {
            float r[VEC];
            sums[k].forget();
            sums[k].get(r);
#pragma unroll
            for (int i = 0; i < VEC; i++) v[i] = PLAIN || p.read_rounded ? r[i] : __fadd_rn(v[i], r[i]);
        }
        weight[k].get(wide);
        normalise<T, VEC>(p, v, rs, wide);
        vec<T, VEC> to;
        to.set(v);
        if (k * step < mine) out[k * step] = to;
    }
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
    int64_t row = p.first_row + (int64_t)blockIdx.x * blockDim.y + threadIdx.y,
            mine = row < p.rows_in_all ? p.hidden : 0;
    float sum = 0.0f, v[VEC], stored[VEC];
    for (int k = 0; k < p.pieces; k++) {
        int64_t first = ((int64_t)k * blockDim.x + threadIdx.x) * VEC;
        if (first >= mine) break;
        read_summed<T, R, VEC, ALIGNED, FUSED>(p, row, first, v, stored);
        sum = __fadd_rn(sum, sum_of_squares<VEC>(p, v, first));
    }
    float rs = reciprocal_root(p, sum_of_row(sum, shared));
    for (int k = 0; k < p.pieces; k++) {
        int64_t first = ((int64_t)k * blockDim.x + threadIdx.x) * VEC;
        if (first >= mine) break;
        read_summed<T, R, VEC, ALIGNED, FUSED>(p, row, first, v, stored);
        float weight[VEC];
        if (p.weight) read_piece<W, VEC, ALIGNED>((const W *)p.weight, p.weight_step, first, p.hidden, weight);
        else
#pragma unroll
            for (int i = 0; i < VEC; i++) weight[i] = 1.0f;
        normalise<T, VEC>(p, v, rs, weight);
        if constexpr (FUSED)
            write_piece<R, VEC, ALIGNED>((R *)p.residual_out + row_offset(p.residual_out_rows, row),
                                         p.residual_out_step, first, p.hidden, stored);
        write_piece<T, VEC, ALIGNED>((T *)p.out + row_offset(p.out_rows, row), p.out_step, first, p.hidden, v);
    }
}

/* ---- on the host ---- */

static inline norm_params norm_params_of(const hm_tensor &x, const hm_tensor &weight, const hm_tensor &out, double eps,
                                         hm_round round, hm_weight_form form, int64_t variance_size) {
    norm_params p = {};
    p.x = x.data, p.weight = weight.dtype ? weight.data : nullptr, p.out = out.data;
    p.x_rows = rows_of(x), p.out_rows = rows_of(out);
    p.x_step = x.stride[x.ndim - 1], p.weight_step = weight.stride[0], p.out_step = out.stride[out.ndim - 1];
    p.rows_in_all = hm_row_count(&x), p.hidden = x.shape[x.ndim - 1];
    p.variance_size = variance_size ? variance_size : p.hidden;
    p.per_mean = (float)(1.0 / (double)p.variance_size), p.eps = (float)eps;
    p.partial = p.variance_size != p.hidden;
    p.norm_first = p.weight && round == HM_ROUND_NORM_FIRST;
    p.one = p.weight && form == HM_WEIGHT_ONE_PLUS ? 1.0f : 0.0f;
    return p;
}

/* all_aligned: every tensor that there is can be read in pieces. */
template <typename T, typename W, typename R, bool FUSED>
static hm_status norm_launch(const char *op, norm_params p, bool all_aligned, void *stream) {
    row_shape s = row_shape_of(p.hidden, 16 / sizeof(T));
    int64_t blocks = (p.rows_in_all - 1) / s.rows + 1;
    p.pieces = s.pieces, p.count = (uint32_t)p.rows_in_all, p.row_pieces = (int)(p.hidden / (16 / (int)sizeof(T)));
    p.simple = p.x_rows.dims <= 1 && p.out_rows.dims <= 1 && p.residual_rows.dims <= 1 && p.residual_out_rows.dims <= 1;
    p.x_stride = p.x_rows.stride[0], p.out_stride = p.out_rows.stride[0];
    p.residual_stride = p.residual_rows.stride[0], p.residual_out_stride = p.residual_out_rows.stride[0];
    all_aligned = all_aligned && p.hidden % (16 / sizeof(T)) == 0 && few(p.rows_in_all + s.rows);
    const bool plain = p.simple && s.rows == 1 && p.weight && !p.partial && blocks <= INT32_MAX &&
                       (!FUSED || (p.read_rounded && (sizeof(R) == sizeof(T) || p.residual_wide)));
    /* By measurement on an H200: the weight late for a few rows a multiprocessor if rows are long, for many if
     * short. */
    const bool late = !FUSED && blocks > (int64_t)hm_cuda_processors() * (s.lanes >= 256 ? 3 : 64);
    void (*kernel)(norm_params) = norm_any<T, W, R, false, FUSED>;
    if (all_aligned && s.lanes > HELD_LANES) kernel = norm_any<T, W, R, true, FUSED>;
    else if (all_aligned && s.pieces == 1) kernel = norm_held<T, W, R, 1, FUSED, false, false>;
    else if (all_aligned && s.pieces == 2 && plain)
        kernel = late ? norm_held<T, W, R, 2, FUSED, !FUSED, true> : norm_held<T, W, R, 2, FUSED, false, true>;
    else if (all_aligned && s.pieces == 2)
        kernel = late ? norm_held<T, W, R, 2, FUSED, !FUSED, false> : norm_held<T, W, R, 2, FUSED, false, false>;
    else if (all_aligned)
        kernel = late ? norm_held<T, W, R, 4, FUSED, !FUSED, false> : norm_held<T, W, R, 4, FUSED, false, false>;
    for (; blocks > 0; blocks -= INT32_MAX, p.first_row += (int64_t)INT32_MAX * s.rows) {
        hm_status status = launch(op, kernel, blocks, dim3(s.lanes, s.rows), 0, stream, p);
        if (status) return status;
    }
    return HM_OK;
}

} // namespace hm

#endif
