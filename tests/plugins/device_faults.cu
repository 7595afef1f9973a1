/* Several ops as a CUDA plug-in may write them, and, by the name in the environment variable DEVICE_FAULT, how they may
 * go wrong: numbers, layouts, offsets, races. Run where there is a device, by tests/accuracy/device_plugins.sh. */
#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>
#include <hallmark/concat_mla_q.h>
#include <hallmark/cp_gather_indexer_k_quant_cache.h>
#include <hallmark/fused_add_rms_norm.h>
#include <hallmark/indexer_k_quant_and_cache.h>
#include <hallmark/layer_norm.h>
#include <hallmark/rms_norm.h>
#include <hallmark/rotary_embedding.h>
#include <hallmark/silu_and_mul.h>
#include <hallmark/top_k_per_row.h>

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

extern "C" {
extern const int hm_plugin_abi;
extern const hm_place hm_plugin_place;
const int hm_plugin_abi = HM_PLUGIN_ABI;
const hm_place hm_plugin_place = HM_CUDA;
#define OP(name) hm_status hm_plugin_##name(const hm_##name##_args *a)
OP(rms_norm);
OP(fused_add_rms_norm);
OP(layer_norm);
OP(rotary_embedding);
OP(concat_mla_q);
OP(silu_and_mul);
OP(indexer_k_quant_and_cache);
OP(cp_gather_indexer_k_quant_cache);
OP(top_k_per_row);
}

namespace {

using bf16 = __nv_bfloat16;
constexpr int THREADS = 256;

int fault_asked_for() {
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

hm_status launched() { return cudaGetLastError() == cudaSuccess ? HM_OK : HM_INTERNAL; }

bool rows_of(const hm_tensor &t, int ndim, hm_dtype dtype) {
    return t.dtype == dtype && t.ndim == ndim && t.stride[ndim - 1] == 1 && t.shape[0] > 0;
}

__device__ float in_bf16(float v) { return __bfloat162float(__float2bfloat16_rn(v)); }

/* ---- the norms ---- */

__device__ float sum_of_block(float v, int fault) {
    __shared__ float part[THREADS];
    part[threadIdx.x] = v;
    __syncthreads();
    for (int half = THREADS / 2; half; half /= 2) {
        if (threadIdx.x < half) {
            float sum = part[threadIdx.x] + part[threadIdx.x + half];
            part[threadIdx.x] = fault == SUM_IN_BF16 ? in_bf16(sum) : sum;
        }
        if (fault == NO_BARRIER && half <= 16) __syncwarp();
        else __syncthreads();
    }
    float sum = part[0];
    __syncthreads();
    return sum;
}

struct norm_call {
    const bf16 *x, *residual, *weight;
    bf16 *out, *residual_out;
    int64_t n, x_stride, out_stride, residual_stride, residual_out_stride;
    float eps;
    bool norm_first, one_plus, unrounded;
    int fault;
};

__device__ int calls_so_far;

__device__ float read(const norm_call &c, const bf16 *x, const bf16 *residual, int64_t i) {
    float v = __bfloat162float(x[i]);
    if (!residual) return v;
    v += __bfloat162float(residual[i]);
    return c.unrounded != (c.fault == READS_UNROUNDED) ? v : in_bf16(v);
}

__global__ void norm(norm_call c) {
    const int64_t row = blockIdx.x, n = c.fault == TAIL_MISSED ? c.n / 32 * 32 : c.n;
    const bf16 *x = c.x + (c.fault == INT32_OFFSET ? (int)row * (int)c.x_stride : row * c.x_stride);
    const bf16 *residual = c.residual ? c.residual + row * c.residual_stride : nullptr;
    bf16 *out = c.out + row * c.out_stride;
    float sum = 0, eps = c.fault == EPS_FIXED ? 1e-5f : c.eps;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        float v = read(c, x, residual, i);
        sum += v * v;
        if (c.fault == SUM_IN_BF16) sum = in_bf16(sum);
    }
    sum = sum_of_block(sum, c.fault);
    float rs = c.fault == EPS_OUTSIDE_ROOT ? 1 / (sqrtf(sum / c.n) + eps) : 1 / sqrtf(sum / c.n + eps);
    if (c.fault == ROOT_OF_8_BITS) rs = in_bf16(rs);
    if (c.fault == ONE_BATCH && gridDim.x == 777) rs *= 1.01f;
    if (c.fault == RUN_DEPENDENT) rs = __uint_as_float(__float_as_uint(rs) + calls_so_far % 16 * 4);
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        float v = read(c, x, residual, i), w = c.weight ? __bfloat162float(c.weight[i]) : 1;
        if (residual && c.fault != RESIDUAL_NOT_WRITTEN) {
            float stored = __bfloat162float(x[i]) + __bfloat162float(residual[i]);
            if (c.fault == RESIDUAL_AS_F32) ((float *)c.residual_out)[row * c.residual_out_stride + i] = stored;
            else c.residual_out[row * c.residual_out_stride + i] = __float2bfloat16_rn(stored);
        }
        if (c.one_plus) w = c.fault == ONE_PLUS_IN_BF16 ? in_bf16(1 + w) : 1 + w;
        v *= rs;
        if (c.norm_first != (c.fault == ROUNDED_BEFORE_WEIGHT)) v = in_bf16(v);
        v *= w;
        out[i] = c.fault == TRUNCATED ? __float2bfloat16_rz(v) : __float2bfloat16_rn(v);
    }
}

__global__ void count_call() { calls_so_far++; }

hm_status run_norm(norm_call c, int64_t rows, void *stream) {
    c.fault = fault_asked_for();
    if (c.fault < 0) return HM_INTERNAL;
    count_call<<<1, 1, 0, (cudaStream_t)stream>>>();
    norm<<<(unsigned)rows, THREADS, 0, (cudaStream_t)stream>>>(c);
    return launched();
}

__global__ void centred(const float *x, float *out, int64_t n, int64_t x_stride, int64_t out_stride, float eps,
                        int fault) {
    x += blockIdx.x * x_stride, out += blockIdx.x * out_stride;
    float sum = 0, squares = 0;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) sum += x[i];
    float mean = sum_of_block(sum, fault) / n;
    const int64_t lanes = fault == MASKED_LANES_COUNTED ? (n + THREADS - 1) / THREADS * THREADS : n;
    for (int64_t i = threadIdx.x; i < lanes; i += THREADS) {
        float v = (i < n ? x[i] : 0) - mean;
        squares += v * v;
    }
    float variance = sum_of_block(squares, fault) / n;
    float rs = 1 / sqrtf(variance + eps);
    for (int64_t i = threadIdx.x; i < n; i += THREADS) out[i] = (x[i] - mean) * rs;
}

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

OP(rms_norm) {
    if (!rows_of(a->x, 2, HM_BF16) || a->variance_size || a->out.stride[1] != 1 ||
        (a->weight.dtype && (a->weight.dtype != HM_BF16 || a->weight.stride[0] != 1)))
        return HM_UNSUPPORTED;
    norm_call c = {};
    c.x = (const bf16 *)a->x.data, c.out = (bf16 *)a->out.data;
    c.weight = a->weight.dtype ? (const bf16 *)a->weight.data : nullptr;
    c.n = a->x.shape[1], c.x_stride = a->x.stride[0], c.out_stride = a->out.stride[0], c.eps = (float)a->eps;
    c.norm_first = c.weight && a->round == HM_ROUND_NORM_FIRST;
    c.one_plus = c.weight && a->weight_form == HM_WEIGHT_ONE_PLUS;
    return run_norm(c, a->x.shape[0], a->stream);
}

OP(fused_add_rms_norm) {
    if (!rows_of(a->x, 2, HM_BF16) || !rows_of(a->residual, 2, HM_BF16) || a->variance_size || a->weight.dtype ||
        a->out.stride[1] != 1 || a->residual_out.stride[1] != 1)
        return HM_UNSUPPORTED;
    norm_call c = {};
    c.x = (const bf16 *)a->x.data, c.out = (bf16 *)a->out.data, c.residual = (const bf16 *)a->residual.data;
    c.residual_out = (bf16 *)a->residual_out.data;
    c.n = a->x.shape[1], c.x_stride = a->x.stride[0], c.out_stride = a->out.stride[0], c.eps = (float)a->eps;
    c.residual_stride = a->residual.stride[0], c.residual_out_stride = a->residual_out.stride[0];
    c.unrounded = a->residual_read == HM_READ_UNROUNDED;
    return run_norm(c, a->x.shape[0], a->stream);
}

OP(layer_norm) {
    if (!rows_of(a->x, 2, HM_F32) || a->weight.dtype || a->bias.dtype || a->out.stride[1] != 1) return HM_UNSUPPORTED;
    centred<<<(unsigned)a->x.shape[0], THREADS, 0, (cudaStream_t)a->stream>>>(
        (const float *)a->x.data, (float *)a->out.data, a->x.shape[1], a->x.stride[0], a->out.stride[0], (float)a->eps,
        fault_asked_for());
    return launched();
}

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
