/* rope_table: ref's own code (ref/rope_table.h), so that the bits are ref's. What the whole table shares is computed on
 * the host; a block takes 32 columns and some rows: its first warp finds the columns' constants in fixed point, which
 * takes it about as long as thousands of elements, then all its threads fill rows. A row whose position is out of range
 * stays as it was, and all rows do where a divisor is. */
#include "common.cuh"

extern "C" {
#include "../../op/rope_table.h"
}
static __device__ __forceinline__ double hm_round_to(hm_dtype dtype, double v);
#include "../../ref/fixed.c"
#include "../../ref/math.c"
#include "../../ref/rope_table.h"

static const char op[] = "rope_table";

namespace {

enum { COLUMNS = 32, ROWS = 8 };

struct params {
    hm_rope_table_args a;
    table t;
    int64_t column_tiles, each; /* rows of a block */
};

/* What a multiple of the last bit that an f32 has does not say, its last bit does: 16-bit dtypes round it as they
 * would round v. */
__device__ __forceinline__ float odd(double v) {
    const float f = __double2float_rz(v);
    return (double)f == v ? f : __uint_as_float(__float_as_uint(f) | 1u);
}

template <typename T>
__global__ void __launch_bounds__(COLUMNS *ROWS) fill(const __grid_constant__ params p) {
    __shared__ column columns[COLUMNS];
    table t = p.t;
    t.a = &p.a;
    hm::wait_for_previous();
    hm::let_next_start();
    const int64_t tile = blockIdx.x % p.column_tiles, j = tile * COLUMNS + threadIdx.x;
    const int64_t first = blockIdx.x / p.column_tiles * p.each, rows = p.a.out.shape[0];
    const int64_t end = first + p.each < rows ? first + p.each : rows;
    bool good = true;
    if (p.a.factors.dtype != HM_DTYPE_NONE)
        for (int64_t i = threadIdx.y * COLUMNS + threadIdx.x; i < t.half; i += COLUMNS * ROWS) {
            const float divisor = ((const float *)p.a.factors.data)[i * p.a.factors.stride[0]];
            good &= divisor >= 0x1p-10f && divisor <= 0x1p20f;
        }
    if (!__syncthreads_and(good)) return;
    if (threadIdx.y == 0 && j < t.half) find_column(&t, j, &columns[threadIdx.x]);
    __syncthreads();
    if (j >= t.half) return;
    const column *const c = &columns[threadIdx.x];
    T *const out = (T *)p.a.out.data + j * p.a.out.stride[1];
    const int axes = p.a.positions.dtype != HM_DTYPE_NONE && p.a.positions.ndim == 2 ? 3 : 1;
    for (int64_t row = first + threadIdx.y; row < end; row += ROWS) {
        bool legal = true;
        for (int axis = 0; axis < axes; axis++)
            legal &= (uint64_t)hm_rope_position(&p.a, axis, row) < (uint64_t)1 << 24;
        if (!legal) continue;
        double cos, sin;
        element(&t, c, hm_rope_position(&p.a, c->axis, row), &cos, &sin);
        T *const at = out + row * p.a.out.stride[0];
        at[0] = hm::narrow<T>(odd(cos)), at[t.half * p.a.out.stride[1]] = hm::narrow<T>(odd(sin));
    }
}

} // namespace

static __device__ __forceinline__ double hm_round_to(hm_dtype dtype, double v) {
    if (dtype == HM_F32) return (double)__double2float_rn(v);
    return (double)(dtype == HM_F16 ? hm::widen(hm::narrow<hm::f16>(odd(v))) : hm::widen(hm::narrow<hm::bf16>(odd(v))));
}

extern "C" hm_status hm_rope_table_cuda(const hm_rope_table_args *args) {
    params p = {};
    hm_status s = hm_rope_table_read(args, &p.a);
    if (s) return s;
    if (p.a.out.place != HM_CUDA) return hm_fail(HM_UNSUPPORTED, "%s: cuda works on device tensors only", op);
    if ((s = hm_cuda_ready(op)) || hm_tensor_elements(&p.a.out) == 0) return s;
    hm_rope_constants(&p.t, &p.a);
    const int64_t rows = p.a.out.shape[0], blocks = 4 * hm_cuda_processors();
    p.column_tiles = (p.t.half + COLUMNS - 1) / COLUMNS;
    int64_t parts = (blocks + p.column_tiles - 1) / p.column_tiles, most = (rows + ROWS - 1) / ROWS;
    if (parts > most) parts = most;
    p.each = (rows + parts - 1) / parts;
    void (*kernel)(params) = p.a.out.dtype == HM_F32   ? fill<float>
                             : p.a.out.dtype == HM_F16 ? fill<hm::f16>
                                                       : fill<hm::bf16>;
    return hm::launch(op, kernel, p.column_tiles * ((rows + p.each - 1) / p.each), dim3(COLUMNS, ROWS), 0, p.a.stream,
                      p);
}
