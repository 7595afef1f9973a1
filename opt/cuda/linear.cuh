/* linear.cuh: what the kernels of linear share. */
#ifndef HM_CUDA_LINEAR_CUH
#define HM_CUDA_LINEAR_CUH

#include <cuda.h>

#include "common.cuh"

namespace hm {

/* Elements of k that one step takes from memory; a slice is a number of them. */
enum { LINEAR_STEP = 64 };

struct linear_params {
    CUtensorMap x_map, weight_map; /* where tiles come as boxes */
    const void *x, *weight, *bias;
    void *out;
    hm::rows x_rows, out_rows;
    int64_t x_step, weight_row, weight_step, bias_step, out_step;
    int64_t rows, features, in;
    int64_t row_tiles, feature_tiles;
    int steps, slice, slices;         /* of k, of a slice, and how many of these */
    int cluster;                      /* blocks of a cluster: one for each slice; 1: a block takes all */
    bool x_close, weight_close;       /* linear_fma_rows: can be read 16 bytes at a time */
    bool bias_f32, out_f32, out_wide; /* out_wide: 16 bytes can be written at a time */
};

/* + bias, rounded to the dtype of out. */
template <typename T>
__device__ __forceinline__ float linear_bias(const linear_params &p, int64_t feature) {
    const int64_t at = feature * p.bias_step;
    return p.bias_f32 ? ((const float *)p.bias)[at] : widen(((const T *)p.bias)[at]);
}
template <typename T>
__device__ __forceinline__ void linear_store(const linear_params &p, int64_t row_offset, int64_t feature, float v) {
    if (p.bias) v = __fadd_rn(v, linear_bias<T>(p, feature));
    const int64_t at = row_offset + feature * p.out_step;
    if (p.out_f32) ((float *)p.out)[at] = v;
    else ((T *)p.out)[at] = narrow<T>(v);
}

} // namespace hm

#endif
