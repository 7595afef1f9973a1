/* One head at a time: load, compute in binary64, store. */
#include "rotary.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../op/dtype.h"
#include "../../op/rotary_embedding.h"
#include "common.h"

#define OP "rotary_embedding"

/* ---- table and positions ---- */

static int64_t position_of(const hm_rotary_variation *v, const hm_rotary_embedding_args *a, int64_t token) {
    const hm_tensor *t = &a->positions;
    int64_t rows = a->cos_sin_cache.shape[0], offset = hm_token_offset(t, t->ndim, token);
    int64_t length = t->shape[t->ndim - 1], inner = t->stride[t->ndim - 1];
    if (v->position == POSITION_OF_TOKEN_0) offset = 0;
    if (v->position == POSITION_UNIT_STRIDE) offset = token;
    if (v->position == POSITION_INNER_STRIDE) offset = token * inner;
    if (v->position == POSITION_PER_SEQUENCE) offset = hm_token_offset(t, t->ndim, token / length * length);
    if (v->position == POSITION_INT32_STRIDE) offset = hm_fault_in_int32(offset * 8) / 8;
    int64_t low = 0, high = 0;
    for (int d = 0; d < t->ndim; d++) *(t->stride[d] < 0 ? &low : &high) += (t->shape[d] - 1) * t->stride[d];
    if (offset < low || offset > high) offset = low + (offset - low) % (high - low + 1);
    if (offset < low) offset = low;
    int64_t p = ((const int64_t *)t->data)[offset];
    switch (v->position) {
        case POSITION_BF16:
            p = (int64_t)hm_round_to(HM_BF16, (double)p);
            break;
        case POSITION_F16:
            p = p > 65504 ? rows - 1 : (int64_t)hm_round_to(HM_F16, (double)p);
            break;
        case POSITION_INT16:
            p = (int16_t)p;
            break;
        case POSITION_UINT16:
            p = (uint16_t)p;
            break;
        case POSITION_NEXT:
            p++;
            break;
        case POSITION_CLAMPED_4096:
            p = hm_fault_least(p, 4095);
            break;
        case POSITION_WRAPPED_4096:
            p %= 4096;
            break;
        case POSITION_WRAPPED_131072:
            p %= 131072;
            break;
        case POSITION_IS_TOKEN:
            p = token;
            break;
        case POSITION_PER_SEQUENCE:
            p += token % length;
            break;
        default:
            break;
    }
    if (v->checks == CHECKS_NOT_NEGATIVE || v->checks == CHECKS_POSITIONS_INT32) p = (int32_t)p;
    return p < 0 ? 0 : p < rows ? p : rows - 1;
}

/* Column `column` of row p of the table. */
static double entry(const hm_rotary_variation *v, const hm_rotary_embedding_args *a, int64_t p, int64_t column) {
    const hm_tensor *t = &a->cos_sin_cache;
    hm_dtype T = a->query.dtype;
    int64_t width = t->shape[1], offset = p * t->stride[0] + column * t->stride[1];
    if (v->table == TABLE_DENSE) offset = p * width + column * t->stride[1];
    if (v->table == TABLE_UNIT_STRIDE) offset = p * t->stride[0] + column;
    if (v->table == TABLE_INT32) offset = hm_fault_in_int32(offset);
    if (v->table == TABLE_BYTES_AS_F32 && t->dtype != HM_F32) return hm_fault_load_bytes_as(t, 4 * offset, HM_F32);
    if (v->table == TABLE_BYTES_AS_T && t->dtype == HM_F32 && T != HM_F32)
        return hm_fault_load_bytes_as(t, 2 * offset, T);
    if (v->checks == CHECKS_NOT_TABLE_DTYPE && t->dtype != T && t->dtype != HM_F32)
        return hm_fault_load_bytes_as(t, (int64_t)hm_dtype_size(T) * offset, T);
    double e = hm_fault_load(t, offset);
    bool round = a->round == HM_ROTARY_EACH || v->math == MATH_EACH;
    switch (v->table) {
        case TABLE_ROUNDED_TO_T:
            round = true;
            break;
        case TABLE_TRUNCATED_TO_T:
            return hm_fault_toward_zero(T, e);
        case TABLE_ROUNDED_TO_BF16:
            return hm_round_to(HM_BF16, e);
        case TABLE_ROUNDED_TO_F16:
            return hm_round_to(HM_F16, e);
        case TABLE_NOT_ROUNDED:
            round = false;
            break;
        case TABLE_SQUARED:
            e *= fabs(e);
            break;
        default:
            break;
    }
    return round ? hm_round_to(T, e) : e;
}

static void read_angle(const hm_rotary_variation *v, const hm_rotary_embedding_args *a, int64_t p, int64_t i,
                       int64_t pairs, int64_t head_size, double *c, double *s) {
    int64_t cos_at = i, sin_at = pairs + i;
    if (v->table == TABLE_INDEX_OF_X && a->pairing == HM_PAIR_INTERLEAVED) cos_at = 2 * i, sin_at = pairs + 2 * i;
    if (v->table == TABLE_ALTERNATING) cos_at = 2 * i, sin_at = 2 * i + 1;
    if (v->table == TABLE_SWAPPED) cos_at = pairs + i, sin_at = i;
    if (v->table == TABLE_REPEATED_COS) sin_at = i;
    if (v->table == TABLE_NEXT_COLUMN) cos_at = i + 1, sin_at = pairs + i + 1;
    if (v->table == TABLE_SIN_AT_HALF_HEAD) sin_at = head_size / 2 + i;
    *c = entry(v, a, p, cos_at), *s = entry(v, a, p, sin_at);
}

/* ---- one pair ---- */

static double read_value(const hm_rotary_variation *v, hm_dtype T, double x) {
    switch (v->math) {
        case MATH_TF32:
            if (!isfinite(x) || x == 0) return x;
            return rint(x / ldexp(1, ilogb(x) - 10)) * ldexp(1, ilogb(x) - 10);
        case MATH_X_BF16:
            return hm_round_to(HM_BF16, x);
        case MATH_NAN_IS_ZERO:
            return isnan(x) ? 0 : x;
        case MATH_INF_IS_MAX:
            return isinf(x) ? copysign(hm_dtype_max(T), x) : x;
        case MATH_SUBNORMAL_IS_ZERO:
            return fabs(x) < hm_dtype_min_normal(T) ? 0 : x;
        default:
            return x;
    }
}

static double stored(const hm_rotary_variation *v, hm_dtype T, double y) {
    double r = hm_round_to(T, y);
    switch (v->store) {
        case STORE_NEAREST:
            return y;
        case STORE_TRUNCATES:
            return hm_fault_toward_zero(T, y);
        case STORE_TIES_AWAY:
            return hm_fault_ties_away(T, y);
        case STORE_UPWARD:
            return r < y ? hm_next_up(T, r) : r;
        case STORE_VIA_BF16:
            return hm_round_to(HM_BF16, y);
        case STORE_VIA_F16:
            return hm_round_to(HM_F16, y);
        case STORE_SATURATES:
            return hm_fault_saturated(T, y);
        case STORE_FLUSHES:
            return hm_fault_flushed(T, y);
        case STORE_NAN_BY_INTEGER:
            return isnan(y) ? -0.0 : y;
        case STORE_NAN_AS_ZERO:
            return isnan(y) ? 0 : y;
        case STORE_ZEROS:
            return 0;
        case STORE_NANS:
            return NAN;
    }
    return y;
}

static double times(const hm_rotary_variation *v, double a, double b) {
    return v->math == MATH_ZERO_TIMES_ANYTHING && (a == 0 || b == 0) ? 0 : a * b;
}

/* a b + p q with the roundings in force. contracted: f32, with the second product kept. */
static double combine(const hm_rotary_variation *v, hm_dtype T, bool each, bool f32, bool contracted, double a,
                      double b, double p, double q) {
    double u = times(v, a, b), w = times(v, p, q);
    if (f32)
        return contracted ? (double)(float)((double)(float)u + w)
                          : (double)(float)((double)(float)u + (double)(float)w);
    if (v->math == MATH_ONCE) each = false;
    if (v->math == MATH_EACH || v->math == MATH_SUM_OF_ROUNDED_PRODUCTS) each = true;
    if (!each) return u + w;
    u = hm_round_to(T, u);
    if (v->math != MATH_PRODUCTS_NOT_ROUNDED) w = hm_round_to(T, w);
    return u + w;
}

static void rotate(const hm_rotary_variation *v, const hm_rotary_embedding_args *a, hm_dtype T, bool inverse, bool f32,
                   bool contracted, double c, double s, double *x, double *y) {
    bool each = a->round == HM_ROTARY_EACH;
    if (v->math == MATH_INVERSE_IGNORED) inverse = false;
    if (v->math == MATH_INVERSE_ALWAYS) inverse = true;
    double sx = inverse ? -s : s, sy = sx;
    if (v->math == MATH_INVERSE_COS && inverse) sx = sy = s, c = -c;
    if (v->math == MATH_INVERSE_X_ONLY && inverse) sy = s;
    if (v->math == MATH_SIN_SIGN) sx = -sx, sy = -sy;
    if (v->math == MATH_SIN_SIGN_X) sx = -sx;
    if (v->math == MATH_SIN_SIGN_Y) sy = -sy;
    if (v->math == MATH_COS_ONLY) sx = sy = 0;
    for (int turn = 0; turn < 1 + (v->math == MATH_TWICE); turn++) {
        double x0 = *x, y0 = *y, nx = combine(v, T, each, f32, contracted, x0, c, -y0, sx);
        if (v->math == MATH_Y_FROM_NEW_X) x0 = hm_round_to(T, nx);
        double ny = combine(v, T, each, f32, contracted, y0, c, x0, sy);
        if (v->math == MATH_X_FROM_NEW_Y) nx = combine(v, T, each, f32, contracted, *x, c, -hm_round_to(T, ny), sx);
        *x = hm_round_to(T, stored(v, T, nx)), *y = hm_round_to(T, stored(v, T, ny));
    }
}

/* ---- one head ---- */

typedef struct {
    const hm_rotary_variation *v;
    const hm_rotary_embedding_args *a;
    const hm_tensor *in, *out, *query; /* query: in's companion, for strides that are mixed up */
    bool is_key;
    double *value;          /* [head_size]: results */
    unsigned char *rotated; /* [head_size] */
    unsigned char *raw;     /* [head_size] elements as stored in in */
    unsigned run;
} head_job;

static int64_t head_offset(const hm_tensor *t, int64_t token, int64_t head) {
    return hm_token_offset(t, t->ndim - 2, token) + head * t->stride[t->ndim - 2];
}

static int64_t dense_offset(const hm_tensor *t, int64_t token, int64_t head) {
    return (token * t->shape[t->ndim - 2] + head) * t->shape[t->ndim - 1];
}

static void addresses(const head_job *j, int64_t token, int64_t head, int64_t *in, int64_t *in_step, int64_t *out,
                      int64_t *out_step) {
    const hm_tensor *f = j->in, *t = j->out, *q = j->query;
    int last = f->ndim - 1, heads = last - 1;
    int64_t n = f->shape[last], flat = token * f->stride[heads - 1] + head * f->stride[heads];
    *in = head_offset(f, token, head), *in_step = f->stride[last];
    *out = head_offset(t, token, head), *out_step = t->stride[last];
    switch (j->v->map) {
        case MAP_AS_GIVEN:
            break;
        case MAP_IN_DENSE:
            *in = dense_offset(f, token, head), *in_step = 1;
            break;
        case MAP_IN_UNIT:
            *in_step = 1;
            break;
        case MAP_IN_HEADS_DENSE:
            *in += head * (n - f->stride[heads]);
            break;
        case MAP_IN_LIKE_OUT:
            *in = *out, *in_step = *out_step;
            break;
        case MAP_IN_INT32:
            *in = hm_fault_in_int32(*in);
            break;
        case MAP_OUT_DENSE:
            *out = dense_offset(t, token, head), *out_step = 1;
            break;
        case MAP_OUT_UNIT:
            *out_step = 1;
            break;
        case MAP_OUT_HEADS_DENSE:
            *out += head * (n - t->stride[heads]);
            break;
        case MAP_OUT_LIKE_IN:
            *out = *in, *out_step = *in_step;
            break;
        case MAP_OUT_INT32:
            *out = hm_fault_in_int32(*out);
            break;
        case MAP_KEY_HEADS_LIKE_QUERY:
            if (j->is_key) *in += head * (q->stride[heads] - f->stride[heads]);
            break;
        case MAP_KEY_TOKENS_LIKE_QUERY:
            if (j->is_key) *in = head_offset(q, token, 0) + head * f->stride[heads];
            break;
        case MAP_TOKENS_FLAT:
            *in = flat;
            break;
    }
}

/* Where pair i lies: element of x, and of y. */
static void pair_at(const head_job *j, int64_t i, int64_t pairs, int64_t offset, int64_t *x, int64_t *y) {
    bool interleaved = j->a->pairing == HM_PAIR_INTERLEAVED;
    if (j->v->pairs == PAIRS_HALF_SPLIT) interleaved = false;
    if (j->v->pairs == PAIRS_INTERLEAVED) interleaved = true;
    if (j->v->pairs == PAIRS_OTHER) interleaved = !interleaved;
    *x = offset + (interleaved ? 2 * i : i), *y = interleaved ? *x + 1 : *x + pairs;
    if (j->v->pairs == PAIRS_OF_HEAD && !interleaved) *y = *x + hm_fault_width(j->in) / 2;
}

static void compute(const head_job *j, int64_t token, int64_t in, int64_t step, const void *address) {
    const hm_rotary_variation *v = j->v;
    const hm_rotary_embedding_args *a = j->a;
    hm_dtype T = j->in->dtype;
    int64_t n = hm_fault_width(j->in), rotary_dim = a->cos_sin_cache.shape[1], offset = a->rope_dim_offset;
    int64_t size = (int64_t)hm_dtype_size(T), tokens = hm_tensor_elements(&a->positions);
    if (v->range == RANGE_OFFSET_IGNORED) offset = 0;
    if (v->range == RANGE_OFFSET_AT_END) offset = n - rotary_dim;
    if (v->range == RANGE_HEAD_SIZE) rotary_dim = n, offset = 0;
    int64_t pairs = rotary_dim / 2, end = pairs;
    if (v->range == RANGE_WITHOUT_LAST) end = pairs - 1;
    if (v->range == RANGE_WITHOUT_TAIL) end = pairs - pairs % 4;
    if (v->range == RANGE_32_PAIRS) end = hm_fault_least(pairs, 32);
    if (v->range == RANGE_64_PAIRS) end = hm_fault_least(pairs, 64);
    bool f32 = v->order != ORDER_FIXED;
    bool contracted = v->order == ORDER_BY_TOKENS    ? tokens % 2
                      : v->order == ORDER_BY_ADDRESS ? (uintptr_t)address / (uintptr_t)size % 2 != 0
                                                     : j->run % 2;
    bool inverse = (a->inverse == HM_ROTATE_INVERSE) != (v->key == KEY_INVERSE && j->is_key);
    int64_t p = position_of(v, a, token);
    memset(j->rotated, 0, (size_t)n);
    for (int64_t i = 0; i < n; i++) {
        j->value[i] = hm_fault_load(j->in, in + i * step);
        hm_fault_load_raw(j->in, in + i * step, j->raw + i * size);
    }
    for (int64_t i = 0; i < end; i++) {
        double c, s, x, y;
        int64_t xi, yi;
        pair_at(j, i, pairs, offset, &xi, &yi);
        if (xi < 0 || yi < 0 || xi >= n || yi >= n) continue;
        read_angle(v, a, p, v->pairs == PAIRS_REVERSED ? pairs - 1 - i : i, pairs, n, &c, &s);
        x = read_value(v, T, hm_fault_load(j->in, in + xi * step)),
        y = read_value(v, T, hm_fault_load(j->in, in + yi * step));
        rotate(v, a, T, inverse, f32, contracted, read_value(v, T, c), read_value(v, T, s), &x, &y);
        if (v->pairs == PAIRS_WRITTEN_SPLIT && a->pairing == HM_PAIR_INTERLEAVED)
            xi = offset + i, yi = offset + pairs + i;
        j->value[xi] = x, j->value[yi] = y, j->rotated[xi] = j->rotated[yi] = 1;
    }
}

static void write_head(const head_job *j, const hm_tensor *to, int64_t out, int64_t step) {
    const hm_rotary_variation *v = j->v;
    int64_t n = hm_fault_width(to), size = (int64_t)hm_dtype_size(to->dtype), last = -1;
    for (int64_t i = 0; i < n; i++)
        if (j->rotated[i]) last = i;
    bool copied = v->effect == EFFECT_COPIED || (j->is_key ? v->key == KEY_COPIED : v->key == QUERY_COPIED);
    for (int64_t i = 0; i < n; i++) {
        unsigned char element[8];
        memcpy(element, j->raw + i * size, (size_t)size);
        if (j->rotated[i] && !copied) hm_store(to->dtype, element, j->value[i]);
        if (!j->rotated[i] && !copied) {
            if (v->rest == REST_NOT_WRITTEN || (v->rest == REST_TAIL_NOT_WRITTEN && i > last)) continue;
            if (v->rest == REST_ZERO) memset(element, 0, sizeof element);
            if (v->rest == REST_CONVERTED) hm_store(to->dtype, element, j->value[i]);
            if (v->rest == REST_NEGATIVE_ZERO_LOST && j->value[i] == 0) memset(element, 0, sizeof element);
        }
        hm_fault_store_raw(to, out + i * step, 0, element);
    }
    if (v->effect == EFFECT_ONE_PAST) hm_fault_store_raw(to, out + n * step, HM_FAULT_SLACK, j->raw);
}

static bool left_out(const head_job *j, int64_t head) {
    int64_t heads = j->in->shape[j->in->ndim - 2], kv = j->a->key.dtype ? j->a->key.shape[j->a->key.ndim - 2] : heads;
    switch (j->v->heads) {
        case HEADS_FIRST:
            return head > 0;
        case HEADS_WITHOUT_LAST:
            return head == heads - 1;
        case HEADS_EVEN:
            return head >= heads - heads % 2;
        case HEADS_KV_OF_QUERY:
            return !j->is_key && head >= kv;
        default:
            break;
    }
    if (j->is_key && j->v->key == KEY_FIRST_HEAD && head > 0) return true;
    return j->is_key ? j->v->key == KEY_NOT_WRITTEN : j->v->key == QUERY_NOT_WRITTEN;
}

static void one_head(head_job *j, int64_t token, int64_t head) {
    const hm_rotary_variation *v = j->v;
    int64_t in, in_step, out, out_step, heads = j->in->shape[j->in->ndim - 2],
                                        tokens = hm_tensor_elements(&j->a->positions);
    int64_t n = hm_fault_width(j->in);
    addresses(j, token, head, &in, &in_step, &out, &out_step);
    int64_t from = in, from_step = in_step, unused;
    int64_t token_from = v->tokens == TOKENS_SHIFTED ? (token + 1) % tokens : token;
    int64_t head_from = v->heads == HEADS_SHIFTED ? (head + 1) % heads : head;
    if (token_from != token || head_from != head)
        addresses(j, token_from, head_from, &from, &from_step, &unused, &unused);
    if (v->effect == EFFECT_NOT_WRITTEN || left_out(j, head)) return;
    if (v->effect == EFFECT_4096 && head * n >= 4096) return;
    compute(j, token, from, from_step, hm_fault_at_offset(j->in, in));
    if (v->effect != EFFECT_IN_INPUT) write_head(j, j->out, out, out_step);
    if (v->effect == EFFECT_INPUT_OVERWRITTEN || v->effect == EFFECT_IN_INPUT) write_head(j, j->in, in, in_step);
}

static int64_t tokens_of(const hm_rotary_variation *v, const hm_tensor *positions, int64_t tokens) {
    switch (v->tokens) {
        case TOKENS_WITHOUT_LAST:
            return tokens - 1;
        case TOKENS_MULTIPLE_OF_4:
            return tokens - tokens % 4;
        case TOKENS_FIRST:
            return hm_fault_least(tokens, 1);
        case TOKENS_32:
            return hm_fault_least(tokens, 32);
        case TOKENS_FIRST_SEQUENCE:
            return positions->ndim > 1 ? positions->shape[1] : tokens;
        default:
            return tokens;
    }
}

static _Thread_local unsigned calls; /* stands for the scheduler of ORDER_BY_RUN */

static hm_status rotate_all(const hm_rotary_variation *v, const hm_rotary_embedding_args *a, const hm_tensor *in,
                            const hm_tensor *out, bool is_key, int64_t end) {
    int64_t n = hm_fault_width(in), heads = in->shape[in->ndim - 2];
    size_t each = (size_t)n + 1;
    head_job j = {v,    a, in, out, &a->query, is_key, malloc(each * sizeof(double)), malloc(each), malloc(each * 8),
                  calls};
    bool fine = j.value && j.rotated && j.raw;
    int64_t turns = v->effect == EFFECT_ROTATED_TWICE_IN_PLACE && in->data == out->data ? 2 : 1;
    for (int64_t turn = 0; fine && turn < turns; turn++)
        for (int64_t token = 0; token < end; token++)
            for (int64_t head = 0; head < heads; head++) one_head(&j, token, head);
    free(j.value);
    free(j.rotated);
    free(j.raw);
    return fine ? HM_OK : HM_NO_MEMORY;
}

/* ---- the call ---- */

static bool all_walkable(const hm_rotary_embedding_args *a) {
    bool key = a->key.dtype != HM_DTYPE_NONE;
    return hm_fault_walkable(&a->query, false) && hm_fault_walkable(&a->query_out, false) &&
           hm_fault_walkable(&a->positions, true) && hm_fault_walkable(&a->cos_sin_cache, false) &&
           a->cos_sin_cache.ndim == 2 && a->query.ndim >= 3 && a->query_out.ndim == a->query.ndim &&
           a->positions.ndim + 2 >= a->query.ndim && a->rope_dim_offset >= 0 &&
           (!key || (hm_fault_walkable(&a->key, false) && a->key.ndim == a->query.ndim &&
                     (a->key_out.dtype == HM_DTYPE_NONE ||
                      (hm_fault_walkable(&a->key_out, false) && a->key_out.ndim == a->key.ndim))));
}

/* Whether the missing check of v is the one that refused the call. */
static bool overlooked(const hm_rotary_variation *v, const hm_rotary_embedding_args *a, hm_status status) {
    hm_dtype T = a->query.dtype, C = a->cos_sin_cache.dtype;
    bool dtype = status == HM_BAD_DTYPE, shape = status == HM_BAD_SHAPE, param = status == HM_BAD_PARAM;
    bool odd = a->cos_sin_cache.ndim == 2 && a->cos_sin_cache.shape[1] % 2;
    switch (v->checks) {
        case CHECKS_NOT_POSITIONS:
        case CHECKS_POSITIONS_LATE:
            return status == HM_BAD_VALUE;
        case CHECKS_NOT_NEGATIVE:
        case CHECKS_POSITIONS_INT32:
            if (status != HM_BAD_VALUE) return false;
            for (int64_t t = 0; t < hm_tensor_elements(&a->positions); t++) {
                int64_t p = ((const int64_t *)a->positions.data)[hm_token_offset(&a->positions, a->positions.ndim, t)];
                if (v->checks == CHECKS_NOT_NEGATIVE ? p >= a->cos_sin_cache.shape[0]
                                                     : (int32_t)p < 0 || (int32_t)p >= a->cos_sin_cache.shape[0])
                    return false;
            }
            return true;
        case CHECKS_NOT_TABLE_DTYPE:
            return dtype && C != T && C != HM_F32 && a->query_out.dtype == T;
        case CHECKS_NOT_OUT_DTYPE:
            return dtype && (a->query_out.dtype != T || (a->key.dtype && a->key_out.dtype != a->key.dtype));
        case CHECKS_NOT_KEY_DTYPE:
            return dtype && a->key.dtype && a->key.dtype != T;
        case CHECKS_NOT_ODD:
            return shape && odd;
        case CHECKS_NOT_SHAPE:
            return shape && !odd;
        case CHECKS_NOT_OFFSET:
            return shape || (param && a->rope_dim_offset < 0);
        case CHECKS_NOT_MODES:
            return param && a->rope_dim_offset >= 0;
        case CHECKS_NOT_ALIAS:
            return status == HM_BAD_ALIAS;
        case CHECKS_NOT_OUT_STRIDE:
            return status == HM_BAD_STRIDE;
        case CHECKS_NOT_PLACE:
            return status == HM_BAD_PLACE;
        case CHECKS_NOT_KEY_OUT:
            return status == HM_BAD_ARG && (a->key.dtype == HM_DTYPE_NONE) != (a->key_out.dtype == HM_DTYPE_NONE);
        default:
            return false;
    }
}

/* A missing check that lets a call through is a fault whatever comes of it: such a call does nothing more. */
static hm_status refused(const hm_rotary_variation *v, const hm_rotary_embedding_args *a, hm_status status) {
    if (v->checks == CHECKS_SILENT) return HM_OK;
    if (!a || a->size != sizeof *a) return status;
    if (v->checks == CHECKS_LATE && all_walkable(a)) hm_store(a->query_out.dtype, a->query_out.data, 1);
    if (!overlooked(v, a, status)) return status;
    if (v->checks == CHECKS_POSITIONS_LATE) {
        if (all_walkable(a)) hm_store(a->query_out.dtype, a->query_out.data, 1);
        return status;
    }
    return v->checks == CHECKS_NOT_POSITIONS && all_walkable(a)
               ? rotate_all(v, a, &a->query, &a->query_out, false, hm_tensor_elements(&a->positions))
               : HM_OK;
}

hm_status hm_rotary_fault_run(const hm_rotary_variation *v, const hm_rotary_embedding_args *a,
                              hm_dtype written[HM_MAX_ARGS]) {
    hm_status status = hm_rotary_embedding_check(a);
    if (status) return refused(v, a, status);
    calls++;
    bool key = a->key.dtype != HM_DTYPE_NONE;
    int64_t tokens = hm_tensor_elements(&a->positions), end = tokens_of(v, &a->positions, tokens);
    bool empty = hm_tensor_elements(&a->query) == 0 && (!key || hm_tensor_elements(&a->key) == 0);
    if (empty) {
        if (v->empty == EMPTY_WRITES && a->query_out.data) hm_store(a->query_out.dtype, a->query_out.data, 0);
        return v->empty == EMPTY_REFUSED ? HM_BAD_SHAPE : HM_OK;
    }
    if (v->effect == EFFECT_TABLE_OVERWRITTEN)
        for (int64_t t = 0; t < tokens; t++)
            for (int64_t i = 0; i < a->cos_sin_cache.shape[1]; i++) {
                const hm_tensor *c = &a->cos_sin_cache;
                int64_t offset = position_of(v, a, t) * c->stride[0] + i * c->stride[1];
                hm_store(c->dtype, hm_fault_at_offset(c, offset),
                         hm_round_to(a->query.dtype, hm_fault_load(c, offset)));
            }
    if (hm_tensor_elements(&a->query)) status = rotate_all(v, a, &a->query, &a->query_out, false, end);
    if (key && hm_tensor_elements(&a->key) && !status) status = rotate_all(v, a, &a->key, &a->key_out, true, end);
    if (v->effect == EFFECT_OUT_F32 && a->query.dtype != HM_F32) written[hm_fault_arg(OP, "query_out")] = HM_F32;
    return status;
}
