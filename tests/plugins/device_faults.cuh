/* device_faults.cuh: what the parts of the CUDA plug-in device_faults share: several ops as somebody may write them and, by
 * the name in the environment variable DEVICE_FAULT, how they may go wrong: numbers, layouts, offsets, races. Run where
 * there is a device, by tests/accuracy/device_plugins.sh. */
#ifndef DEVICE_FAULTS_CUH
#define DEVICE_FAULTS_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <hallmark/hallmark.h>

#include <cstdlib>
#include <cstring>

/* Of the norms; of rotary_embedding; of concat_mla_q and silu_and_mul; of the indexer's cache; of top_k_per_row. */
/* clang-format off */
#define FAULTS(X) \
    X(RIGHT) \
    X(EPS_OUTSIDE_ROOT) X(EPS_FIXED) X(SUM_IN_BF16) X(ROUNDED_BEFORE_WEIGHT) X(ONE_PLUS_IN_BF16) X(TRUNCATED) \
    X(TAIL_MISSED) X(NO_BARRIER) X(ROOT_OF_8_BITS) X(INT32_OFFSET) X(ONE_BATCH) X(RUN_DEPENDENT) \
    X(RESIDUAL_NOT_WRITTEN) X(RESIDUAL_AS_F32) X(READS_UNROUNDED) X(MASKED_LANES_COUNTED) \
    X(OTHER_PAIRING) X(TABLE_IN_BF16) X(OFFSET_IGNORED) X(KEY_NOT_ROTATED) X(Y_FROM_NEW_X) X(POSITION_IN_BF16) \
    X(HALF_OF_ROPE) X(ROPE_DENSE) X(ROUNDED_TWICE) \
    X(FLOOR_MISSING) X(RECIPROCAL) X(OTHER_LAYOUT) X(BLOCK_STRIDE) X(PADDING_WRITTEN) X(WRONG_REQUEST) \
    X(INEXACT_BINS) X(BIN_CAPPED)
/* clang-format on */

enum fault {
#define FAULT_ENUM(name) name,
    FAULTS(FAULT_ENUM)
#undef FAULT_ENUM
        FAULT_COUNT
};

#define OP(name)                                                      \
    extern "C" hm_status hm_plugin_##name(const hm_##name##_args *a); \
    extern "C" hm_status hm_plugin_##name(const hm_##name##_args *a)

namespace {

using bf16 = __nv_bfloat16;
constexpr int THREADS = 256;

inline int fault_asked_for() {
    static const char *const names[] = {
#define FAULT_NAME(name) #name,
        FAULTS(FAULT_NAME)
#undef FAULT_NAME
    };
    const char *asked = getenv("DEVICE_FAULT");
    for (int i = 0; i < FAULT_COUNT; i++)
        if (!strcmp(asked ? asked : "RIGHT", names[i])) return i;
    return -1;
}

inline hm_status launched() { return cudaGetLastError() == cudaSuccess ? HM_OK : HM_INTERNAL; }

inline bool rows_of(const hm_tensor &t, int ndim, hm_dtype dtype) {
    return t.dtype == dtype && t.ndim == ndim && t.stride[ndim - 1] == 1 && t.shape[0] > 0;
}

__device__ inline float in_bf16(float v) { return __bfloat162float(__float2bfloat16_rn(v)); }

} // namespace

#endif
