/* quant_fp8_group. Where a group is 1 to 32 pieces of 16 bytes, a power of two of them, and everything lies at
 * multiples of that, each thread has one piece and the group's threads find the largest magnitude by a butterfly; else
 * a warp a group. The largest magnitude is exact in any order, so that both give the same bits. */
#include "fp8.cuh"

extern "C" {
#include "../../op/quant_fp8_group.h"
}

static const char op[] = "quant_fp8_group";

namespace {

enum { THREADS = 128, WORD_GROUP = 128, EACH = 2 };

struct params {
    const void *x;
    uint8_t *codes;
    void *scale;
    hm::rows x_rows, codes_rows, scale_rows;
    int64_t x_step, codes_step, scale_step, group_size;
    int64_t first, end; /* of the threads */
    hm::divider groups; /* of a row */
    int lanes, shift;   /* threads of a group, a power of two, and which one */
    hm::scale_rule scale_rule;
    hm::code_rule code_rule;
    bool scale_bytes; /* e8m0 */
};

__device__ __forceinline__ void store_scale(const params &p, int64_t row, int64_t group, float s) {
    int64_t at = hm::row_offset(p.scale_rows, row) + group * p.scale_step;
    if (p.scale_bytes) ((uint8_t *)p.scale)[at] = (uint8_t)(__float_as_uint(s) >> 23);
    else ((float *)p.scale)[at] = s;
}

/* For what is counted below 2^31: threads. */
template <typename T>
__global__ void __launch_bounds__(THREADS) quantise_pieces(const __grid_constant__ params p) {
    constexpr int N = 16 / sizeof(T);
    hm::wait_for_previous();
    hm::let_next_start();
    const uint32_t i = blockIdx.x * THREADS + threadIdx.x, all = i >> p.shift, lane = i & (uint32_t)(p.lanes - 1);
    const bool live = i < (uint32_t)p.end;
    const uint32_t row = hm::quotient32(p.groups, all), group = all - row * (uint32_t)p.groups.d;
    const uint32_t at = group * (uint32_t)p.group_size + lane * N;
    hm::vec<T, N> in = {};
    float v[N];
    if (live) in = *(const hm::vec<T, N> *)((const T *)p.x + hm::row_offset32(p.x_rows, row) + at);
    in.get(v);
    float amax = hm::amax_of<N>(v);
    for (int step = p.lanes / 2; step; step /= 2) amax = fmaxf(amax, __shfl_xor_sync(~0u, amax, step));
    if (!live) return;
    const float s = hm::scale_of(p.scale_rule, amax);
    hm::divide_by_scale<N>(p.scale_rule, s, v);
    struct alignas(N) word {
        uint8_t code[N];
    } to;
    hm::codes_of<N>(p.code_rule, v, to.code);
    *(word *)(p.codes + hm::row_offset32(p.codes_rows, row) + at) = to;
    if (lane == 0) {
        const int64_t scale_at = hm::row_offset32(p.scale_rows, row) + group * p.scale_step;
        if (p.scale_bytes) ((uint8_t *)p.scale)[scale_at] = (uint8_t)(__float_as_uint(s) >> 23);
        else ((float *)p.scale)[scale_at] = s;
    }
}

/* What most calls are: groups of 128 elements of 16 bits, f8e4m3. flat: rows of x and codes follow one another, and so
 * do scales. */
struct word_params {
    const void *x;
    uint8_t *codes;
    void *scale;
    uint32_t end; /* of the threads */
    hm::word_rule rule;
    bool flat, scale_bytes;
    hm::divider groups; /* of a row */
    int64_t scale_step;
    hm::rows x_rows, codes_rows, scale_rows;
};

/* Each thread has EACH pieces of 16 bytes side by side. */
template <typename T>
__global__ void __launch_bounds__(THREADS) quantise_words(const __grid_constant__ word_params p) {
    constexpr int WORDS = 4 * EACH, LANES = WORD_GROUP / (8 * EACH);
    hm::wait_for_previous();
    hm::let_next_start();
    const uint32_t i = blockIdx.x * THREADS + threadIdx.x, all = i / LANES, lane = i % LANES;
    const bool live = i < p.end;
    int64_t x_at = (int64_t)i * (8 * EACH), codes_at = x_at, scale_at = all;
    if (!p.flat) {
        const uint32_t row = hm::quotient32(p.groups, all), group = all - row * (uint32_t)p.groups.d;
        const int64_t at = (int64_t)group * WORD_GROUP + lane * (8 * EACH);
        x_at = hm::row_offset32(p.x_rows, row) + at, codes_at = hm::row_offset32(p.codes_rows, row) + at;
        scale_at = hm::row_offset32(p.scale_rows, row) + group * p.scale_step;
    }
    struct alignas(16) {
        uint32_t w[WORDS];
    } in = {};
    struct alignas(8 * EACH) {
        uint32_t w[WORDS / 2];
    } to;
    if (live)
#pragma unroll
        for (int k = 0; k < EACH; k++) ((uint4 *)&in)[k] = ((const uint4 *)((const T *)p.x + x_at))[k];
    const float s = hm::scale_of(p.rule, hm::amax_of_words<T, WORDS, LANES>(in.w));
    hm::codes_of_words<T, WORDS>(p.rule, s, in.w, to.w);
    if (!live) return;
    *(decltype(to) *)(p.codes + codes_at) = to;
    if (lane == 0) {
        if (p.scale_bytes) ((uint8_t *)p.scale)[scale_at] = (uint8_t)(__float_as_uint(s) >> 23);
        else ((float *)p.scale)[scale_at] = s;
    }
}

template <typename T>
__global__ void __launch_bounds__(THREADS) quantise_any(const __grid_constant__ params p) {
    hm::wait_for_previous();
    hm::let_next_start();
    const int64_t i = p.first + (int64_t)blockIdx.x * THREADS + threadIdx.x, all = i / 32;
    if (i >= p.end) return; /* whole warps */
    const int lane = threadIdx.x % 32;
    const int64_t row = hm::quotient(p.groups, all), group = all - row * p.groups.d;
    const T *x = (const T *)p.x + hm::row_offset(p.x_rows, row) + group * p.group_size * p.x_step;
    uint8_t *codes = p.codes + hm::row_offset(p.codes_rows, row) + group * p.group_size * p.codes_step;
    float amax = 0.0f;
    for (int64_t k = lane; k < p.group_size; k += 32) amax = fmaxf(amax, fabsf(hm::widen(x[k * p.x_step])));
    for (int step = 16; step; step /= 2) amax = fmaxf(amax, __shfl_xor_sync(~0u, amax, step));
    const float s = hm::scale_of(p.scale_rule, amax);
    for (int64_t k = lane; k < p.group_size; k += 32) {
        float v = hm::widen(x[k * p.x_step]);
        hm::divide_by_scale<1>(p.scale_rule, s, &v);
        codes[k * p.codes_step] = hm::code_of(p.code_rule, v);
    }
    if (lane == 0) store_scale(p, row, group, s);
}

bool follow(const hm::rows &r, int64_t size) { return r.dims == 0 || (r.dims == 1 && r.stride[0] == size); }

template <typename T>
hm_status run_words(const hm_quant_fp8_group_args &a, const params &p) {
    const int last = a.x.ndim - 1;
    const int64_t lanes = WORD_GROUP / 8 / EACH, threads = hm_tensor_elements(&a.scale) * lanes;
    word_params w = {};
    w.x = p.x, w.codes = p.codes, w.scale = p.scale, w.end = (uint32_t)threads;
    w.rule = hm::word_rule_of(p.scale_rule), w.scale_bytes = p.scale_bytes, w.groups = p.groups;
    w.scale_step = p.scale_step, w.x_rows = p.x_rows, w.codes_rows = p.codes_rows, w.scale_rows = p.scale_rows;
    w.flat = follow(p.x_rows, a.x.shape[last]) && follow(p.codes_rows, a.x.shape[last]) &&
             follow(p.scale_rows, a.scale.shape[last]) && (p.scale_step == 1 || a.scale.shape[last] == 1);
    return hm::launch(op, quantise_words<T>, (threads - 1) / THREADS + 1, dim3(THREADS), 0, a.stream, w);
}

template <typename T>
hm_status run(const hm_quant_fp8_group_args &a) {
    const int64_t n = 16 / sizeof(T), pieces = a.group_size / n;
    const int last = a.x.ndim - 1;
    bool whole = a.group_size % n == 0 && pieces <= 32 && (pieces & (pieces - 1)) == 0 && hm::aligned(a.x, 16) &&
                 hm::aligned(a.codes, n) && hm::few(hm_tensor_elements(&a.x) / n + THREADS);
    params p = {};
    p.x = a.x.data, p.codes = (uint8_t *)a.codes.data, p.scale = a.scale.data;
    p.x_rows = hm::rows_of(a.x), p.codes_rows = hm::rows_of(a.codes), p.scale_rows = hm::rows_of(a.scale);
    p.x_step = a.x.stride[last], p.codes_step = a.codes.stride[last], p.scale_step = a.scale.stride[last];
    p.group_size = a.group_size, p.groups = hm::divider_of(a.scale.shape[last]);
    p.lanes = whole ? (int)pieces : 32;
    while (1 << p.shift < p.lanes) p.shift++;
    p.end = hm_tensor_elements(&a.scale) * p.lanes;
    p.scale_rule = {(float)a.divisor,
                    (float)(1 / a.divisor),
                    (float)a.floor,
                    a.floor_on == HM_FLOOR_SCALE,
                    a.scale_format == HM_SCALE_UE8M0,
                    a.divide == HM_QUANT_RECIPROCAL};
    p.code_rule = hm::code_rule_of(a.codes.dtype, a.overflow != HM_FP8_IEEE);
    p.scale_bytes = a.scale.dtype == HM_E8M0;
    if constexpr (sizeof(T) == 2)
        if (whole && a.group_size == WORD_GROUP && hm::aligned(a.codes, 8 * EACH) &&
            hm::has_word_rule(p.scale_rule, p.code_rule))
            return run_words<T>(a, p);
    return hm::launch_all(op, whole ? quantise_pieces<T> : quantise_any<T>, p, THREADS, 1, a.stream);
}

} // namespace

extern "C" hm_status hm_quant_fp8_group_cuda(const hm_quant_fp8_group_args *args) {
    hm_quant_fp8_group_args a;
    hm_status s = hm_quant_fp8_group_read(args, &a);
    if (s) return s;
    if (a.codes.place != HM_CUDA) return hm_fail(HM_UNSUPPORTED, "%s: cuda works on device tensors only", op);
    if ((s = hm_cuda_ready(op)) || hm_tensor_elements(&a.x) == 0) return s;
    return a.x.dtype == HM_BF16 ? run<hm::bf16>(a) : a.x.dtype == HM_F16 ? run<hm::f16>(a) : run<float>(a);
}
