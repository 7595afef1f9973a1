/* The ops beside the norms of the CUDA plug-in device_faults. */
#include <cuda_fp8.h>
#include <hallmark/concat_mla_q.h>
#include <hallmark/cp_gather_indexer_k_quant_cache.h>
#include <hallmark/indexer_k_quant_and_cache.h>
#include <hallmark/rotary_embedding.h>
#include <hallmark/silu_and_mul.h>
#include <hallmark/top_k_per_row.h>

#include "device_faults.cuh"

namespace {

/* ---- rotary_embedding ---- */

struct heads {
    const bf16 *from;
    bf16 *to;
    int64_t from_token, from_head, to_token, to_head, count;
};

struct rotary_call {
    heads of[2]; /* query and key */
    const int64_t *positions;
    const void *table;
    int64_t table_stride, position_stride, head_size, pairs, offset;
    bool wide_table, interleaved;
    int fault;
};

__global__ void rotate(rotary_call c) {
    const int64_t token = blockIdx.x;
    const heads h = c.of[blockIdx.y];
    int64_t position = c.positions[token * c.position_stride];
    if (c.fault == POSITION_IN_BF16) position = (int64_t)in_bf16((float)position);
    const int64_t offset = c.fault == OFFSET_IGNORED ? 0 : c.offset, row = position * c.table_stride;
    const bool interleaved = c.interleaved != (c.fault == OTHER_PAIRING);
    for (int64_t head = 0; head < h.count; head++) {
        const bf16 *from = h.from + token * h.from_token + head * h.from_head;
        bf16 *to = h.to + token * h.to_token + head * h.to_head;
        bool rotated = !(c.fault == KEY_NOT_ROTATED && blockIdx.y == 1);
        for (int64_t i = threadIdx.x; i < c.head_size; i += THREADS)
            if (!rotated || i < offset || i >= offset + 2 * c.pairs) to[i] = from[i];
        for (int64_t i = threadIdx.x; i < c.pairs && rotated; i += THREADS) {
            int64_t x_at = offset + (interleaved ? 2 * i : i), y_at = interleaved ? x_at + 1 : x_at + c.pairs;
            float cosine, sine;
            if (c.wide_table)
                cosine = ((const float *)c.table)[row + i], sine = ((const float *)c.table)[row + c.pairs + i];
            else
                cosine = __bfloat162float(((const bf16 *)c.table)[row + i]),
                sine = __bfloat162float(((const bf16 *)c.table)[row + c.pairs + i]);
            if (c.fault == TABLE_IN_BF16) cosine = in_bf16(cosine), sine = in_bf16(sine);
            float x = __bfloat162float(from[x_at]), y = __bfloat162float(from[y_at]);
            to[x_at] = __float2bfloat16_rn(x * cosine - y * sine);
            if (c.fault == Y_FROM_NEW_X) x = __bfloat162float(to[x_at]);
            to[y_at] = __float2bfloat16_rn(y * cosine + x * sine);
        }
    }
}

heads heads_of(const hm_tensor &from, const hm_tensor &to) {
    if (from.dtype == HM_DTYPE_NONE) return {};
    return {(const bf16 *)from.data,
            (bf16 *)to.data,
            from.stride[0],
            from.stride[1],
            to.stride[0],
            to.stride[1],
            from.shape[1]};
}

/* ---- concat_mla_q, silu_and_mul ---- */

__global__ void concat(const uint16_t *nope, const uint16_t *rope, uint16_t *to, int64_t width, int64_t rope_width,
                       int64_t nope_token, int64_t nope_head, int64_t rope_token, int64_t rope_head, int64_t to_token,
                       int64_t to_head, int fault) {
    const int64_t token = blockIdx.x, head = blockIdx.y;
    if (fault == ROPE_DENSE) rope_token = gridDim.y * rope_width, rope_head = rope_width;
    nope += token * nope_token + head * nope_head, rope += token * rope_token + head * rope_head;
    to += token * to_token + head * to_head;
    for (int64_t i = threadIdx.x; i < width; i += THREADS) to[i] = nope[i];
    int64_t copied = fault == HALF_OF_ROPE ? rope_width / 2 : rope_width;
    for (int64_t i = threadIdx.x; i < copied; i += THREADS) to[width + i] = rope[i];
}

__global__ void silu(const bf16 *x, bf16 *out, int64_t n, int64_t x_stride, int64_t out_stride, bool each, int fault) {
    x += blockIdx.x * x_stride, out += blockIdx.x * out_stride;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        float gate = __bfloat162float(x[i]), up = __bfloat162float(x[n + i]);
        gate = gate / (1 + expf(-gate));
        if (each != (fault == ROUNDED_TWICE)) gate = in_bf16(gate);
        out[i] = __float2bfloat16_rn(gate * up);
    }
}

/* ---- the indexer's cache ---- */

enum { DIM = 128 };

__device__ int64_t code_at(int64_t offset, int d, bool shuffled) {
    return shuffled ? offset / 16 * 16 * DIM + d / 16 * 256 + offset % 16 * 16 + d % 16 : offset * DIM + d;
}

__global__ void quantise(const bf16 *k, int64_t k_stride, const int64_t *slots, int64_t slot_stride, uint8_t *cache,
                         int64_t block_stride, int64_t blocks, int64_t block_size, bool shuffled, float floor,
                         int fault) {
    __shared__ float part[DIM];
    const int64_t token = blockIdx.x;
    int64_t slot = slots[token * slot_stride];
    if (slot < 0 && fault != PADDING_WRITTEN) return;
    if (slot < 0) slot += blocks * block_size;
    const int d = threadIdx.x;
    float v = __bfloat162float(k[token * k_stride + d]);
    part[d] = fabsf(v);
    __syncthreads();
    for (int half = DIM / 2; half; half /= 2) {
        if (d < half) part[d] = fmaxf(part[d], part[d + half]);
        __syncthreads();
    }
    float scale = (fault == FLOOR_MISSING ? part[0] : fmaxf(part[0], floor)) / 448.0f;
    float code = fault == RECIPROCAL ? v * (1 / scale) : v / scale;
    if (fault == BLOCK_STRIDE) block_stride = block_size * (DIM + 4);
    uint8_t *block = cache + slot / block_size * block_stride;
    const int64_t offset = slot % block_size;
    block[code_at(offset, d, shuffled != (fault == OTHER_LAYOUT))] =
        (uint8_t)__nv_cvt_float_to_fp8(code, __NV_SATFINITE, __NV_E4M3);
    if (d == 0) memcpy(block + block_size * DIM + 4 * offset, &scale, 4);
}

__global__ void gather(const uint8_t *cache, int64_t block_stride, int64_t block_size, const int32_t *table,
                       int64_t table_row, int64_t table_column, const int32_t *lengths, int64_t length_stride,
                       int64_t requests, uint8_t *codes, int64_t code_stride, uint8_t *scales, int64_t scale_stride,
                       bool shuffled, int fault) {
    const int64_t row = blockIdx.x;
    if (row < lengths[0] || row >= lengths[requests * length_stride]) return;
    int64_t request = 0;
    /* the last request that begins at or before the row; a row that opens a request is taken for the one before it */
    while (request + 1 < requests && (fault == WRONG_REQUEST ? lengths[(request + 1) * length_stride] < row
                                                             : lengths[(request + 1) * length_stride] <= row))
        request++;
    const int64_t at = row - lengths[request * length_stride], offset = at % block_size;
    const uint8_t *block = cache + table[request * table_row + at / block_size * table_column] * block_stride;
    codes[row * code_stride + threadIdx.x] = block[code_at(offset, threadIdx.x, shuffled)];
    if (threadIdx.x < 4) scales[row * scale_stride + threadIdx.x] = block[block_size * DIM + 4 * offset + threadIdx.x];
}

/* ---- top_k_per_row ---- */

__device__ uint32_t key_of(float v, int fault) {
    uint32_t bits = __float_as_uint(v + 0.0f); /* -0 becomes +0 */
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return fault == INEXACT_BINS ? bits >> 16 : bits;
}

/* An index's rank is the number of logits that come before it. */
__global__ void rank_all(const float *logits, int64_t row_stride, const int32_t *starts, const int32_t *ends,
                         int32_t *indices, int64_t out_stride, int64_t k, int fault) {
    const int64_t row = blockIdx.x;
    const int n = ends[row] - starts[row];
    logits += row * row_stride + starts[row], indices += row * out_stride;
    for (int64_t i = threadIdx.x; i < k; i += THREADS) indices[i] = i < n && n <= k ? (int32_t)i : -1;
    __syncthreads();
    if (n <= k) return;
    for (int i = threadIdx.x; i < n; i += THREADS) {
        uint32_t mine = key_of(logits[i], fault);
        int64_t rank = 0, bin = 0;
        for (int j = 0; j < n; j++) {
            uint32_t other = key_of(logits[j], fault);
            rank += other > mine || (other == mine && j < i);
            bin += other >> 20 == mine >> 20 && j < i;
        }
        if (fault == BIN_CAPPED && bin >= 64) continue; /* a bin of candidates that overflows */
        if (rank < k) indices[rank] = i;
    }
}

} // namespace

OP(rotary_embedding) {
    const hm_tensor &q = a->query, &k = a->key;
    if (!rows_of(q, 3, HM_BF16) || a->query_out.stride[2] != 1 || a->round != HM_ROTARY_ONCE || a->inverse ||
        a->cos_sin_cache.stride[1] != 1 || (k.dtype && (k.stride[2] != 1 || a->key_out.stride[2] != 1)))
        return HM_UNSUPPORTED;
    rotary_call c = {};
    c.of[0] = heads_of(q, a->query_out), c.of[1] = heads_of(k, a->key_out);
    c.positions = (const int64_t *)a->positions.data, c.position_stride = a->positions.stride[0];
    c.table = a->cos_sin_cache.data, c.table_stride = a->cos_sin_cache.stride[0];
    c.wide_table = a->cos_sin_cache.dtype == HM_F32, c.interleaved = a->pairing == HM_PAIR_INTERLEAVED;
    c.head_size = q.shape[2], c.pairs = a->cos_sin_cache.shape[1] / 2, c.offset = a->rope_dim_offset;
    c.fault = fault_asked_for();
    rotate<<<dim3((unsigned)q.shape[0], k.dtype ? 2 : 1), THREADS, 0, (cudaStream_t)a->stream>>>(c);
    return launched();
}

OP(concat_mla_q) {
    const hm_tensor &n = a->ql_nope, &r = a->q_pe, &to = a->q_out;
    if (n.ndim != 3 || n.stride[2] != 1 || r.stride[2] != 1 || to.stride[2] != 1 || n.shape[0] < 1 || n.shape[1] < 1)
        return HM_UNSUPPORTED;
    concat<<<dim3((unsigned)n.shape[0], (unsigned)n.shape[1]), THREADS, 0, (cudaStream_t)a->stream>>>(
        (const uint16_t *)n.data, (const uint16_t *)r.data, (uint16_t *)to.data, n.shape[2], r.shape[2], n.stride[0],
        n.stride[1], r.stride[0], r.stride[1], to.stride[0], to.stride[1], fault_asked_for());
    return launched();
}

OP(silu_and_mul) {
    if (!rows_of(a->x, 2, HM_BF16) || a->out.stride[1] != 1) return HM_UNSUPPORTED;
    silu<<<(unsigned)a->x.shape[0], THREADS, 0, (cudaStream_t)a->stream>>>(
        (const bf16 *)a->x.data, (bf16 *)a->out.data, a->out.shape[1], a->x.stride[0], a->out.stride[0],
        a->round == HM_SILU_EACH, fault_asked_for());
    return launched();
}

OP(indexer_k_quant_and_cache) {
    if (!rows_of(a->k, 2, HM_BF16) || a->k.shape[1] != DIM || a->code_format != HM_CODE_E4M3 ||
        a->scale_format != HM_SCALE_F32)
        return HM_UNSUPPORTED;
    quantise<<<(unsigned)a->k.shape[0], DIM, 0, (cudaStream_t)a->stream>>>(
        (const bf16 *)a->k.data, a->k.stride[0], (const int64_t *)a->slot_mapping.data, a->slot_mapping.stride[0],
        (uint8_t *)a->kv_cache.data, a->kv_cache.stride[0], a->kv_cache.shape[0], a->kv_cache.shape[1],
        a->layout == HM_LAYOUT_SHUFFLE, a->floor == 0 ? 1e-4f : (float)a->floor, fault_asked_for());
    return launched();
}

OP(cp_gather_indexer_k_quant_cache) {
    const hm_tensor &scale = a->dst_scale;
    if (a->dst_k.ndim != 2 || a->dst_k.shape[1] != DIM || a->dst_k.stride[1] != 1 || scale.stride[1] != 1 ||
        a->dst_k.shape[0] < 1 || a->block_table.shape[0] < 1)
        return HM_UNSUPPORTED;
    gather<<<(unsigned)a->dst_k.shape[0], DIM, 0, (cudaStream_t)a->stream>>>(
        (const uint8_t *)a->kv_cache.data, a->kv_cache.stride[0], a->kv_cache.shape[1],
        (const int32_t *)a->block_table.data, a->block_table.stride[0], a->block_table.stride[1],
        (const int32_t *)a->cu_seq_lens.data, a->cu_seq_lens.stride[0], a->block_table.shape[0],
        (uint8_t *)a->dst_k.data, a->dst_k.stride[0], (uint8_t *)scale.data,
        scale.stride[0] * (scale.dtype == HM_F32 ? 4 : 1), a->layout == HM_LAYOUT_SHUFFLE, fault_asked_for());
    return launched();
}

OP(top_k_per_row) {
    if (!rows_of(a->logits, 2, HM_F32) || a->seq_lens.dtype || a->indices.stride[1] != 1 ||
        a->row_starts.stride[0] != 1 || a->row_ends.stride[0] != 1)
        return HM_UNSUPPORTED;
    rank_all<<<(unsigned)a->logits.shape[0], THREADS, 0, (cudaStream_t)a->stream>>>(
        (const float *)a->logits.data, a->logits.stride[0], (const int32_t *)a->row_starts.data,
        (const int32_t *)a->row_ends.data, (int32_t *)a->indices.data, a->indices.stride[0], a->indices.shape[1],
        fault_asked_for());
    return launched();
}
