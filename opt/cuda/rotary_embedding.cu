/* rotary_embedding. A thread takes 16 bytes of each of the two halves, or 16 bytes of interleaved pairs, of HEADS heads
 * of one token, whose cosines and sines it reads once; query and key are one launch. Where they do not lie at
 * multiples of 16 bytes, one pair of one head. Out of place, further threads copy what is not rotated.
 *
 * Rounding once: RN_T(fl(fl(x c) - fl(y s))) in f32, one of the contract's values. Each: with 16-bit T a product of
 * two of T is exact in f32, and a sum that was rounded to f32 first rounds to T as the exact one does (f32 has more
 * than twice T's bits and two): two roundings to T a result, as declared. */
#include "common.cuh"

extern "C" {
#include "../../op/rotary_embedding.h"
}

static const char op[] = "rotary_embedding";

namespace {

enum { THREADS = 128, MANY = 2 }; /* MANY: heads of a thread where there is much to do; by measurement */

struct heads {
    const void *in;
    void *out;
    hm::rows in_tokens, out_tokens;
    int64_t in_head, out_head, in_step, out_step; /* elements from head to head, and within one */
    int64_t count;
    bool copies; /* out of place: what is not rotated is copied */
};

struct params {
    heads query, key;
    const int64_t *positions;
    const void *table;
    hm::rows position_rows;
    int64_t table_stride, table_step, max_position;
    int64_t offset, pairs, head_size;
    int64_t first, end;              /* of the threads' tasks */
    int64_t query_groups, rotations; /* groups of query heads of a token; tasks of a group that rotate */
    hm::divider tasks, groups;       /* tasks of a group, groups of a token */
    bool interleaved, each, inverse;
};

template <typename T>
__device__ __forceinline__ void rotate(bool each, float *x, float *y, float c, float s) {
    float xc = __fmul_rn(*x, c), ys = __fmul_rn(*y, s), yc = __fmul_rn(*y, c), xs = __fmul_rn(*x, s);
    if (each) {
        xc = hm::widen(hm::narrow<T>(xc)), ys = hm::widen(hm::narrow<T>(ys));
        yc = hm::widen(hm::narrow<T>(yc)), xs = hm::widen(hm::narrow<T>(xs));
    }
    *x = __fsub_rn(xc, ys), *y = __fadd_rn(yc, xs);
}

/* c or s as the mode has it. */
template <typename T>
__device__ __forceinline__ float factor(bool each, float v) {
    return each ? hm::widen(hm::narrow<T>(v)) : v;
}

/* What every launch of the kernel below reads, in front. Counts are below 2^31. */
struct whole_heads_params {
    const void *in;
    void *out;
    int64_t in_token, out_token, in_head, out_head; /* strides, in elements; those of tokens where `simple` */
    int32_t count;
    bool copies;
};

struct whole_params {
    const int64_t *positions;
    const void *table;
    int64_t position_step, table_stride, max_position;
    uint32_t end, query_groups, rotations, tasks, groups; /* tasks of a group, groups of a token */
    uint32_t tasks_m, tasks_s, groups_m, groups_s;
    int32_t offset, pairs;
    bool simple, each, inverse;
    whole_heads_params query, key;
    hm::rows position_rows, query_in, query_out, key_in, key_out;
};

__device__ __forceinline__ uint32_t quotient_of(uint32_t n, uint32_t m, uint32_t s) {
    return (uint32_t)(((uint64_t)n * m) >> (31 + s));
}

/* Everything at multiples of 16 bytes; INTERLEAVED or halves. With one head a thread, where there is little to do, it
 * is on its way before the position is known; with more that was slower. */
template <typename T, typename C, bool INTERLEAVED, int HEADS>
__global__ void __launch_bounds__(THREADS) rotate_whole(const __grid_constant__ whole_params p) {
    constexpr int N = 16 / sizeof(T);
    using piece = hm::vec<T, N>;
    hm::wait_for_previous();
    hm::let_next_start();
    const uint32_t i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= p.end) return;
    uint32_t group = quotient_of(i, p.tasks_m, p.tasks_s);
    const uint32_t task = i - group * p.tasks, token = quotient_of(group, p.groups_m, p.groups_s);
    group -= token * p.groups;
    const int64_t position = p.positions[p.simple ? token * p.position_step : hm::row_offset32(p.position_rows, token)];
    const bool is_key = group >= p.query_groups;
    const whole_heads_params &h = is_key ? p.key : p.query;
    const uint32_t head = (is_key ? group - p.query_groups : group) * HEADS;
    int64_t in_at = token * h.in_token, out_at = token * h.out_token;
    if (!p.simple) {
        in_at = hm::row_offset32(is_key ? p.key_in : p.query_in, token);
        out_at = hm::row_offset32(is_key ? p.key_out : p.query_out, token);
    }
    const T *in = (const T *)h.in + in_at + head * h.in_head;
    T *out = (T *)h.out + out_at + head * h.out_head;
    const int mine = h.count - (int)head;
    if (task >= p.rotations) { /* a copy of one piece; only where h.copies */
        if (!h.copies || (uint64_t)position >= (uint64_t)p.max_position) return;
        uint32_t at = (task - p.rotations) * N;
        if (at >= (uint32_t)p.offset) at += 2 * p.pairs;
#pragma unroll
        for (int k = 0; k < HEADS; k++)
            if (k < mine) *(piece *)(out + k * h.out_head + at) = *(const piece *)(in + k * h.in_head + at);
        return;
    }
    constexpr int PAIRS = INTERLEAVED ? N / 2 : N, PIECES = INTERLEAVED ? 1 : 2;
    const int first = p.offset + (int)task * N;
    in += first, out += first;
    if (HEADS > 1 && (uint64_t)position >= (uint64_t)p.max_position)
        return; /* out of range: its heads stay as they are */
    piece x[HEADS][PIECES] = {};
#pragma unroll
    for (int k = 0; k < HEADS; k++)
        if (k == 0 || k < mine)
#pragma unroll
            for (int half = 0; half < PIECES; half++)
                x[k][half] = *(const piece *)(in + k * h.in_head + half * p.pairs);
    if (HEADS == 1 && (uint64_t)position >= (uint64_t)p.max_position) return;
    const C *table = (const C *)p.table + position * p.table_stride + task * PAIRS;
    float c[PAIRS], s[PAIRS];
    ((const hm::vec<C, PAIRS> *)table)->get(c);
    ((const hm::vec<C, PAIRS> *)(table + p.pairs))->get(s);
#pragma unroll
    for (int n = 0; n < PAIRS; n++) {
        c[n] = factor<T>(p.each, c[n]), s[n] = factor<T>(p.each, s[n]);
        if (p.inverse) s[n] = -s[n];
    }
#pragma unroll
    for (int k = 0; k < HEADS; k++) {
        float v[PIECES * N];
#pragma unroll
        for (int half = 0; half < PIECES; half++) x[k][half].get(v + half * N);
#pragma unroll
        for (int n = 0; n < PAIRS; n++) {
            if (INTERLEAVED) rotate<T>(p.each, v + 2 * n, v + 2 * n + 1, c[n], s[n]);
            else rotate<T>(p.each, v + n, v + N + n, c[n], s[n]);
        }
        if (k == 0 || k < mine)
#pragma unroll
            for (int half = 0; half < PIECES; half++) {
                x[k][half].set(v + half * N);
                *(piece *)(out + k * h.out_head + half * p.pairs) = x[k][half];
            }
    }
}

/* One pair, or one element that is copied, of one head. */
template <typename T, typename C>
__global__ void __launch_bounds__(THREADS) rotate_any(const __grid_constant__ params p) {
    hm::wait_for_previous();
    hm::let_next_start();
    int64_t i = p.first + (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= p.end) return;
    int64_t head = hm::quotient(p.tasks, i), task = i - head * p.tasks.d;
    int64_t token = hm::quotient(p.groups, head);
    head -= token * p.groups.d;
    const bool is_key = head >= p.query_groups;
    const heads &h = is_key ? p.key : p.query;
    if (is_key) head -= p.query_groups;
    const int64_t position = p.positions[hm::row_offset(p.position_rows, token)];
    if (position < 0 || position >= p.max_position) return;
    const T *in = (const T *)h.in + hm::row_offset(h.in_tokens, token) + head * h.in_head;
    T *out = (T *)h.out + hm::row_offset(h.out_tokens, token) + head * h.out_head;
    if (task >= p.rotations) {
        int64_t at = task - p.rotations;
        if (at >= p.offset) at += 2 * p.pairs;
        if (h.copies) out[at * h.out_step] = in[at * h.in_step];
        return;
    }
    const C *table = (const C *)p.table + position * p.table_stride + task * p.table_step;
    int64_t at = p.offset + (p.interleaved ? 2 * task : task), other = at + (p.interleaved ? 1 : p.pairs);
    float x = hm::widen(in[at * h.in_step]), y = hm::widen(in[other * h.in_step]);
    float c = factor<T>(p.each, hm::widen(table[0])), s = factor<T>(p.each, hm::widen(table[p.pairs * p.table_step]));
    rotate<T>(p.each, &x, &y, c, p.inverse ? -s : s);
    out[at * h.out_step] = hm::narrow<T>(x);
    out[other * h.out_step] = hm::narrow<T>(y);
}

heads heads_of(const hm_tensor &in, const hm_tensor &out) {
    heads h = {};
    if (!in.dtype || !hm_tensor_elements(&in)) return h;
    h.in = in.data, h.out = out.data;
    h.in_tokens = hm::rows_of(in, 2), h.out_tokens = hm::rows_of(out, 2);
    h.in_head = in.stride[in.ndim - 2], h.out_head = out.stride[out.ndim - 2];
    h.in_step = in.stride[in.ndim - 1], h.out_step = out.stride[out.ndim - 1];
    h.count = in.shape[in.ndim - 2], h.copies = in.data != out.data;
    return h;
}

bool whole_heads(const hm_tensor &in, const hm_tensor &out) {
    return !in.dtype || !hm_tensor_elements(&in) || (hm::aligned(in, 16) && hm::aligned(out, 16));
}

whole_heads_params whole_of(const heads &h) {
    return {h.in,      h.out,      h.in_tokens.stride[0], h.out_tokens.stride[0],
            h.in_head, h.out_head, (int32_t)h.count,      h.copies};
}

whole_params whole_of(const params &p) {
    whole_params w = {};
    w.positions = p.positions, w.table = p.table;
    w.position_step = p.position_rows.stride[0], w.table_stride = p.table_stride, w.max_position = p.max_position;
    w.end = (uint32_t)p.end, w.query_groups = (uint32_t)p.query_groups, w.rotations = (uint32_t)p.rotations;
    w.tasks = (uint32_t)p.tasks.d, w.tasks_m = p.tasks.m, w.tasks_s = p.tasks.s;
    w.groups = (uint32_t)p.groups.d, w.groups_m = p.groups.m, w.groups_s = p.groups.s;
    w.offset = (int32_t)p.offset, w.pairs = (int32_t)p.pairs, w.each = p.each, w.inverse = p.inverse;
    w.query = whole_of(p.query), w.key = whole_of(p.key);
    w.position_rows = p.position_rows, w.query_in = p.query.in_tokens, w.query_out = p.query.out_tokens;
    w.key_in = p.key.in_tokens, w.key_out = p.key.out_tokens;
    w.simple = p.position_rows.dims <= 1 && w.query_in.dims <= 1 && w.query_out.dims <= 1 && w.key_in.dims <= 1 &&
               w.key_out.dims <= 1;
    return w;
}

template <typename T, typename C>
hm_status run(const hm_rotary_embedding_args &a) {
    const int64_t n = 16 / sizeof(T);
    params p = {};
    p.query = heads_of(a.query, a.query_out), p.key = heads_of(a.key, a.key_out);
    p.positions = (const int64_t *)a.positions.data, p.position_rows = hm::rows_of(a.positions, 0);
    p.table = a.cos_sin_cache.data;
    p.table_stride = a.cos_sin_cache.stride[0], p.table_step = a.cos_sin_cache.stride[1];
    p.max_position = a.cos_sin_cache.shape[0];
    p.offset = a.rope_dim_offset, p.pairs = a.cos_sin_cache.shape[1] / 2;
    p.head_size = a.query.shape[a.query.ndim - 1];
    p.interleaved = a.pairing == HM_PAIR_INTERLEAVED, p.each = a.round == HM_ROTARY_EACH;
    p.inverse = a.inverse == HM_ROTATE_INVERSE;
    const int64_t tokens = hm_tensor_elements(&a.positions), rest = p.head_size - 2 * p.pairs;
    const bool copies = (p.query.count && p.query.copies) || (p.key.count && p.key.copies);
    bool whole = p.pairs % n == 0 && p.offset % n == 0 && rest % n == 0 && whole_heads(a.query, a.query_out) &&
                 whole_heads(a.key, a.key_out) && (!p.pairs || !p.max_position || hm::aligned(a.cos_sin_cache, 16));
    /* With little to do one head a thread: more threads are under way. */
    const int64_t heads = p.query.count + p.key.count;
    whole = whole && hm::few(p.head_size) && hm::few(heads) && hm::few(tokens * heads * (p.head_size / n) + THREADS);
    const bool many = tokens * heads * p.head_size > (int64_t)hm_cuda_processors() * 65536;
    const int64_t each = whole && many ? MANY : 1, size = whole ? n : 1;
    p.query_groups = (p.query.count + each - 1) / each;
    p.groups = hm::divider_of(p.query_groups + (p.key.count + each - 1) / each);
    p.rotations = p.pairs / size * (whole && p.interleaved ? 2 : 1);
    p.tasks = hm::divider_of(p.rotations + (copies ? rest / size : 0));
    p.end = tokens * p.groups.d * p.tasks.d;
    if (heads == 0 || p.rotations + (copies ? rest / size : 0) == 0) return HM_OK;
    if (!whole) return hm::launch_all(op, rotate_any<T, C>, p, THREADS, 1, a.stream);
    void (*kernel)(whole_params) = p.interleaved ? many ? rotate_whole<T, C, true, MANY> : rotate_whole<T, C, true, 1>
                                   : many ? rotate_whole<T, C, false, MANY>
                                                 : rotate_whole<T, C, false, 1>;
    return hm::launch(op, kernel, (p.end - 1) / THREADS + 1, dim3(THREADS), 0, a.stream, whole_of(p));
}

} // namespace

extern "C" hm_status hm_rotary_embedding_cuda(const hm_rotary_embedding_args *args) {
    hm_rotary_embedding_args a;
    hm_status s = hm_rotary_embedding_read(args, &a);
    if (s) return s;
    if (a.query_out.place != HM_CUDA) return hm_fail(HM_UNSUPPORTED, "%s: cuda works on device tensors only", op);
    if ((s = hm_cuda_ready(op))) return s;
    hm_dtype T = a.query.dtype, C = a.cos_sin_cache.dtype;
    if (T == HM_F32) return run<float, float>(a);
    if (T == HM_F16) return C == HM_F16 ? run<hm::f16, hm::f16>(a) : run<hm::f16, float>(a);
    return C == HM_BF16 ? run<hm::bf16, hm::bf16>(a) : run<hm::bf16, float>(a);
}
