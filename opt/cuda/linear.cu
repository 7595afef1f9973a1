/* linear: 16-bit operands on the tensor cores (linear_sm90.cuh, linear_sm80.cuh), f32 operands by fused multiply-adds
 * (linear_fma.cuh). Each has one order of summation, whatever kernel the number of rows, strides and alignment
 * choose. */
#include "linear_fma.cuh"
#include "linear_sm80.cuh"
#include "linear_sm90.cuh"

extern "C" {
#include "../../op/linear.h"
}

static const char op[] = "linear";

namespace {

using params = hm::linear_params;

int64_t over(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* ---- f32 --------------------------------------------------------------------------------------------------------- */

template <typename X, typename W>
hm_status run_fma(const hm_linear_args &a, params &p) {
    if (p.rows <= 8 || (p.rows <= 128 && over(p.rows, 64) * over(p.features, 64) * 4 < hm_cuda_processors())) {
        const int64_t segments = over(p.in, hm::SEGMENT), threads = over(segments < 1 ? 1 : segments, 32) * 32;
        p.row_tiles = over(p.rows, hm::FEW_ROWS), p.feature_tiles = over(p.features, hm::FEW_FEATURES);
        p.weight_close = p.weight_step == 1 && hm::aligned(a.weight, 16);
        p.x_close = p.x_step == 1 && hm::aligned(a.x, 16);
        return hm::launch(op, hm::linear_fma_rows<X, W>, p.row_tiles * p.feature_tiles,
                          dim3((unsigned)(threads < hm::FEW_THREADS ? threads : (int64_t)hm::FEW_THREADS)), 0, a.stream,
                          p);
    }
    p.row_tiles = over(p.rows, hm::FMA_ROWS), p.feature_tiles = over(p.features, hm::FMA_FEATURES);
    return hm::launch(op, hm::linear_fma_tile<X, W>, p.row_tiles * p.feature_tiles, dim3(256), 0, a.stream, p);
}

/* ---- boxes ------------------------------------------------------------------------------------------------------- */

typedef CUresult encode_fn(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                           const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                           CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* Nothing is linked to the driver. */
encode_fn *find_encode() {
    enum cudaDriverEntryPointQueryResult found;
    void *function = nullptr;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found) ||
        found != cudaDriverEntryPointSuccess)
        return nullptr;
    return (encode_fn *)function;
}

/* Boxes of `high` rows of 64 elements, of a matrix [count, in]; false: its strides, address or size do not allow it. */
bool map_of(CUtensorMap *map, hm_dtype dtype, const void *data, int64_t count, int64_t in, int64_t row, int64_t step,
            int high) {
    static encode_fn *const encode = find_encode();
    if (count == 1) row = (in + 7) / 8 * 8;
    if (!encode || in < 1 || (step != 1 && in > 1) || row < 1 || row % 8 || row >= INT64_C(1) << 39) return false;
    if ((uintptr_t)data % 16 || in > INT32_MAX - 256 || count > INT32_MAX - 256) return false;
    const cuuint64_t extent[2] = {(cuuint64_t)in, (cuuint64_t)count}, stride[1] = {(cuuint64_t)row * 2};
    const cuuint32_t box[2] = {64, (cuuint32_t)high}, each[2] = {1, 1};
    const CUtensorMapDataType type =
        dtype == HM_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    return encode(map, type, 2, (void *)data, extent, stride, box, each, CU_TENSOR_MAP_INTERLEAVE_NONE,
                  CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

bool map_operands(const hm_linear_args &a, params &p, int x_high, int weight_high) {
    return p.x_rows.dims <= 1 && map_of(&p.x_map, a.x.dtype, p.x, p.rows, p.in, p.x_rows.stride[0], p.x_step, x_high) &&
           map_of(&p.weight_map, a.x.dtype, p.weight, p.features, p.in, p.weight_row, p.weight_step, weight_high);
}

/* ---- 16 bits ----------------------------------------------------------------------------------------------------- */

/* Slices of k: so many that a few rows keep the multiprocessors busy, by the weight's shape alone. */
void cut(params &p) {
    const int64_t tiles = over(p.features, 64);
    int slices = tiles >= 96 ? 1 : tiles >= 48 ? 2 : tiles >= 24 ? 4 : 8;
    p.steps = (int)over(p.in, 2 * hm::LINEAR_STEP) * 2; /* stages may have two; what lies behind the end is 0 */
    while (slices > 1 && p.steps < 4 * slices) slices /= 2;
    p.cluster = slices;
    p.slice = (int)over(over(p.steps, slices), 2) * 2;
    p.slices = p.steps ? (int)over(p.steps, p.slice) : 1;
}

template <typename T, int GROUPS, int ROWS, int STEPS, int STAGES>
hm_status run_tiles(const hm_linear_args &a, params &p) {
    using shape = hm::tile_shape<T, GROUPS, ROWS, STEPS, STAGES, true>;
    p.feature_tiles = over(p.features, shape::FEATURES), p.row_tiles = over(p.rows, ROWS);
    const int64_t tiles = p.row_tiles * p.feature_tiles;
    if (GROUPS == 2 && tiles * p.cluster > 2 * hm_cuda_processors()) p.cluster = 1; /* a block has all slices */
    if (!map_operands(a, p, ROWS, shape::FEATURES)) return hm_fail(HM_INTERNAL, "%s: a tensor map was refused", op);
    return hm::launch(op, hm::linear_tiles<T, GROUPS, ROWS, STEPS, STAGES, true>, tiles * p.cluster,
                      dim3(shape::THREADS), shape::SHARED, a.stream, p, p.cluster);
}

template <typename T>
hm_status run_wide(const hm_linear_args &a, params &p) {
    const int64_t pairs = p.row_tiles * p.feature_tiles, most = hm_cuda_processors() / 2;
    if (!map_operands(a, p, 128, 128)) return hm_fail(HM_INTERNAL, "%s: a tensor map was refused", op);
    p.cluster = 2;
    return hm::launch(op, hm::linear_wide<T>, 2 * (pairs < most ? pairs : most), dim3(384), hm::WIDE_SHARED, a.stream,
                      p, 2);
}

template <typename T>
hm_status run_threads(const hm_linear_args &a, params &p) {
    using shape = hm::tile_shape<T, 1, 64, 1, 6, false>;
    p.cluster = 1;
    p.row_tiles = over(p.rows, 64), p.feature_tiles = over(p.features, 64);
    return hm::launch(op, hm::linear_tiles<T, 1, 64, 1, 6, false>, p.row_tiles * p.feature_tiles, dim3(shape::THREADS),
                      shape::SHARED, a.stream, p);
}

template <typename T>
hm_status run_tensor_cores(const hm_linear_args &a, params &p) {
    if (!hm::has_90a<hm::linear_wide<T>>()) {
        p.row_tiles = over(p.rows, 64), p.feature_tiles = over(p.features, 64);
        return hm::launch(op, hm::linear_mma<T>, p.row_tiles * p.feature_tiles, dim3(128), 0, a.stream, p);
    }
    if (p.in >= INT64_C(1) << 36) return hm_fail(HM_UNSUPPORTED, "%s: cuda takes rows of less than 2^36 elements", op);
    cut(p);
    if (!map_operands(a, p, 8, 64)) return run_threads<T>(a, p);
    if (p.rows <= 8) return run_tiles<T, 1, 8, 2, 6>(a, p);
    if (p.rows <= 16) return run_tiles<T, 1, 16, 2, 5>(a, p);
    if (p.rows <= 32) return run_tiles<T, 1, 32, 2, 4>(a, p);
    if (p.rows <= 64) return run_tiles<T, 1, 64, 1, 6>(a, p);
    /* By measurement on an H200. Blocks of which one fits a multiprocessor, if all run at once: for clusters of four
     * and more some multiprocessors stay empty. Else two to a multiprocessor, or wider ones. */
    const int64_t narrow = over(p.features, 64) * p.cluster, wide = over(p.features, 128) * p.cluster * 2;
    const bool at_once = p.cluster > 2 ? 4 * narrow <= 3 * hm_cuda_processors() : narrow <= hm_cuda_processors();
    if (p.rows <= 128 && (p.cluster == 1 || at_once)) return run_tiles<T, 1, 128, 1, 6>(a, p);
    const bool wider = p.rows <= 128 ? p.cluster > 2 : p.cluster == 2 && wide <= hm_cuda_processors();
    if (p.rows <= 256 && p.cluster > 1 && !wider) return run_tiles<T, 1, 128, 1, 4>(a, p);
    p.row_tiles = over(p.rows, 256), p.feature_tiles = over(p.features, 256);
    const bool full = 8 * p.row_tiles * p.feature_tiles >= 3 * hm_cuda_processors();
    return p.slices == 1 && full ? run_wide<T>(a, p) : run_tiles<T, 2, 128, 1, 6>(a, p);
}

} // namespace

extern "C" hm_status hm_linear_cuda(const hm_linear_args *args) {
    hm_linear_args a;
    hm_status s = hm_linear_read(args, &a);
    if (s) return s;
    if (a.out.place != HM_CUDA) return hm_fail(HM_UNSUPPORTED, "%s: cuda works on device tensors only", op);
    if ((s = hm_cuda_ready(op)) || hm_tensor_elements(&a.out) == 0) return s;
    const int last = a.x.ndim - 1;
    params p = {};
    p.x = a.x.data, p.weight = a.weight.data, p.out = a.out.data, p.bias = a.bias.dtype ? a.bias.data : nullptr;
    p.x_rows = hm::rows_of(a.x), p.out_rows = hm::rows_of(a.out);
    p.x_step = a.x.stride[last], p.weight_row = a.weight.stride[0], p.weight_step = a.weight.stride[1];
    p.bias_step = a.bias.stride[0], p.out_step = a.out.stride[last];
    p.rows = hm_row_count(&a.out), p.features = a.weight.shape[0], p.in = a.weight.shape[1];
    p.bias_f32 = a.bias.dtype == HM_F32, p.out_f32 = a.out.dtype == HM_F32;
    p.out_wide = p.out_step == 1 && hm::aligned(a.out, 16);
    const bool f32_weight = a.weight.dtype == HM_F32;
    switch (a.x.dtype) {
        case HM_F32:
            return f32_weight ? run_fma<float, float>(a, p) : run_fma<float, hm::bf16>(a, p);
        case HM_F16:
            return f32_weight ? run_fma<hm::f16, float>(a, p) : run_tensor_cores<hm::f16>(a, p);
        default:
            return f32_weight ? run_fma<hm::bf16, float>(a, p) : run_tensor_cores<hm::bf16>(a, p);
    }
}
