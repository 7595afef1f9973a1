/* rotary_embedding. A thread takes N pairs (16 bytes of each of the two halves; for interleaved pairs 32 bytes in a
 * row) of HEADS heads of one token, whose cosines and sines it reads once; query and key are one launch. Where they do
 * not lie at multiples of 16 bytes, one pair of one head. Out of place, further threads copy what is not rotated.
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

/* Everything at multiples of 16 bytes; INTERLEAVED or halves. */
template <typename T, typename C, bool INTERLEAVED, int HEADS>
__global__ void __launch_bounds__(THREADS) rotate_whole(const __grid_constant__ params p) {
    constexpr int N = 16 / sizeof(T);
    using piece = hm::vec<T, N>;
    hm::wait_for_previous();
    hm::let_next_start();
    int64_t i = p.first + (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= p.end) return;
    int64_t group = hm::quotient(p.tasks, i), task = i - group * p.tasks.d;
    int64_t token = hm::quotient(p.groups, group);
    group -= token * p.groups.d;
    const bool is_key = group >= p.query_groups;
    const heads &h = is_key ? p.key : p.query;
    const int64_t head = (is_key ? group - p.query_groups : group) * HEADS;
    const int64_t position = p.positions[hm::row_offset(p.position_rows, token)];
    if (position < 0 || position >= p.max_position) return; /* out of range: its heads stay as they are */
    const T *in = (const T *)h.in + hm::row_offset(h.in_tokens, token) + head * h.in_head;
    T *out = (T *)h.out + hm::row_offset(h.out_tokens, token) + head * h.out_head;
    const int mine = (int)(h.count - head < HEADS ? h.count - head : HEADS);
    if (task >= p.rotations) { /* a copy of one piece; only where h.copies */
        if (!h.copies) return;
        int64_t at = (task - p.rotations) * N;
        if (at >= p.offset) at += 2 * p.pairs;
#pragma unroll
        for (int k = 0; k < HEADS; k++)
            if (k < mine) *(piece *)(out + k * h.out_head + at) = *(const piece *)(in + k * h.in_head + at);
        return;
    }
    const C *table = (const C *)p.table + position * p.table_stride + task * N;
    int64_t first = p.offset + task * N * (INTERLEAVED ? 2 : 1), apart = INTERLEAVED ? N : p.pairs;
    piece x[HEADS] = {}, y[HEADS] = {};
#pragma unroll
    for (int k = 0; k < HEADS; k++)
        if (k < mine) {
            x[k] = *(const piece *)(in + k * h.in_head + first);
            y[k] = *(const piece *)(in + k * h.in_head + first + apart);
        }
    float c[N], s[N];
    ((const hm::vec<C, N> *)table)->get(c);
    ((const hm::vec<C, N> *)(table + p.pairs))->get(s);
#pragma unroll
    for (int n = 0; n < N; n++) {
        c[n] = factor<T>(p.each, c[n]), s[n] = factor<T>(p.each, s[n]);
        if (p.inverse) s[n] = -s[n];
    }
#pragma unroll
    for (int k = 0; k < HEADS; k++) {
        float v[2 * N];
        x[k].get(v), y[k].get(v + N);
#pragma unroll
        for (int n = 0; n < N; n++) {
            if (INTERLEAVED) rotate<T>(p.each, v + 2 * n, v + 2 * n + 1, c[n], s[n]);
            else rotate<T>(p.each, v + n, v + N + n, c[n], s[n]);
        }
        x[k].set(v), y[k].set(v + N);
        if (k < mine) {
            *(piece *)(out + k * h.out_head + first) = x[k];
            *(piece *)(out + k * h.out_head + first + apart) = y[k];
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
    const bool many = tokens * heads * p.head_size > (int64_t)hm_cuda_processors() * 65536;
    const int64_t each = whole && many ? MANY : 1, size = whole ? n : 1;
    p.query_groups = (p.query.count + each - 1) / each;
    p.groups = hm::divider_of(p.query_groups + (p.key.count + each - 1) / each);
    p.rotations = p.pairs / size;
    p.tasks = hm::divider_of(p.rotations + (copies ? rest / size : 0));
    p.end = tokens * p.groups.d * p.tasks.d;
    if (heads == 0 || p.rotations + (copies ? rest / size : 0) == 0) return HM_OK;
    void (*kernel)(params) = !whole          ? rotate_any<T, C>
                             : p.interleaved ? many ? rotate_whole<T, C, true, MANY> : rotate_whole<T, C, true, 1>
                             : many ? rotate_whole<T, C, false, MANY>
                                             : rotate_whole<T, C, false, 1>;
    return hm::launch_all(op, kernel, p, THREADS, 1, a.stream);
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
