#include "common.h"

#include <math.h>
#include <string.h>

#include "../../op/dtype.h"

typedef struct {
    int64_t first, last;
} span; /* offsets of a tensor's elements, from its data pointer */

int64_t hm_fault_width(const hm_tensor *t) { return t->shape[t->ndim - 1]; }

int64_t hm_fault_rows(const hm_tensor *t) {
    int64_t rows = 1;
    for (int d = 0; d < t->ndim - 1; d++) rows *= t->shape[d];
    return rows;
}

static span extent(const hm_tensor *t) {
    span s = {0, 0};
    for (int d = 0; d < t->ndim; d++) *(t->stride[d] < 0 ? &s.first : &s.last) += (t->shape[d] - 1) * t->stride[d];
    return s;
}

static bool inside(const hm_tensor *t, int64_t offset, int64_t slack) {
    span s = extent(t);
    return offset >= s.first - slack && offset <= s.last + slack;
}

void *hm_fault_at_offset(const hm_tensor *t, int64_t offset) {
    return (char *)t->data + offset * (int64_t)hm_dtype_size(t->dtype);
}

int64_t hm_fault_row_offset(const hm_tensor *t, int64_t row) {
    int64_t offset = 0;
    for (int d = t->ndim - 2; d >= 0; d--) {
        offset += row % t->shape[d] * t->stride[d];
        row /= t->shape[d];
    }
    return offset;
}

int64_t hm_fault_in_int32(int64_t offset) { return (int32_t)(uint32_t)offset; }

/* The element at offset, or where it comes to lie modulo the extent. */
static void *wrapped(const hm_tensor *t, int64_t offset) {
    if (!inside(t, offset, HM_FAULT_SLACK)) {
        span s = extent(t);
        int64_t n = s.last - s.first + 1, k = (offset - s.first) % n;
        offset = s.first + (k < 0 ? k + n : k);
    }
    return hm_fault_at_offset(t, offset);
}

double hm_fault_load(const hm_tensor *t, int64_t offset) { return hm_load(t->dtype, wrapped(t, offset)); }

void hm_fault_load_raw(const hm_tensor *t, int64_t offset, void *to) {
    memcpy(to, wrapped(t, offset), hm_dtype_size(t->dtype));
}

void hm_fault_store_raw(const hm_tensor *t, int64_t offset, int64_t slack, const void *from) {
    if (inside(t, offset, slack)) memcpy(hm_fault_at_offset(t, offset), from, hm_dtype_size(t->dtype));
}

void hm_fault_load_row(const hm_tensor *t, int64_t offset, int64_t stride, int64_t n, double *to) {
    if (n > 0 && inside(t, offset, 0) && inside(t, offset + (n - 1) * stride, 0)) {
        hm_load_row(t->dtype, hm_fault_at_offset(t, offset), stride, n, to);
        return;
    }
    for (int64_t i = 0; i < n; i++) to[i] = hm_fault_load(t, offset + i * stride);
}

void hm_fault_store_row(const hm_tensor *t, int64_t offset, int64_t stride, int64_t n, int64_t slack,
                        const double *from) {
    if (n > 0 && inside(t, offset, slack) && inside(t, offset + (n - 1) * stride, slack)) {
        hm_store_row(t->dtype, hm_fault_at_offset(t, offset), stride, n, from);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        if (inside(t, offset + i * stride, slack))
            hm_store(t->dtype, hm_fault_at_offset(t, offset + i * stride), from[i]);
}

double hm_fault_load_bytes_as(const hm_tensor *t, int64_t byte, hm_dtype dtype) {
    span s = extent(t);
    int64_t size = (int64_t)hm_dtype_size(dtype), bytes = (s.last - s.first + 1) * (int64_t)hm_dtype_size(t->dtype);
    if (bytes < size) return 0;
    return hm_load(dtype, (char *)hm_fault_at_offset(t, s.first) + byte % (bytes - size + 1) / size * size);
}

/* ---- rounding ---- */

double hm_fault_toward_zero(hm_dtype t, double v) {
    double r = hm_round_to(t, v);
    if (isfinite(v) && isinf(r)) return copysign(hm_dtype_max(t), v);
    return fabs(r) > fabs(v) ? (r > 0 ? hm_next_down(t, r) : hm_next_up(t, r)) : r;
}

double hm_fault_ties_away(hm_dtype t, double v) {
    double low = hm_fault_toward_zero(t, v);
    if (!isfinite(v) || low == v) return v;
    double high = v > 0 ? hm_next_up(t, low) : hm_next_down(t, low);
    return isfinite(high) && fabs(v - low) == fabs(high - v) ? high : hm_round_to(t, v);
}

double hm_fault_saturated(hm_dtype t, double v) {
    double r = hm_round_to(t, v);
    return isinf(r) ? copysign(hm_dtype_max(t), r) : r;
}

double hm_fault_flushed(hm_dtype t, double v) {
    double r = hm_round_to(t, v);
    return fabs(r) < hm_dtype_min_normal(t) ? 0 : r;
}

/* ---- calls ---- */

int hm_fault_arg(const char *op, const char *name) {
    const hm_op_info *info = hm_op_named(op);
    int i = 0;
    while (strcmp(info->args[i].name, name)) i++;
    return i;
}

bool hm_fault_walkable(const hm_tensor *t, bool integers) {
    bool real = t->dtype == HM_F32 || t->dtype == HM_F16 || t->dtype == HM_BF16;
    bool ok = t->data && (integers ? t->dtype == HM_I64 : real) && t->ndim >= 1 && t->ndim <= 4;
    int64_t elements = 1, reach = 0;
    for (int d = 0; ok && d < t->ndim; d++) {
        ok = t->shape[d] > 0 && !__builtin_mul_overflow(elements, t->shape[d], &elements) && elements <= 1 << 24 &&
             !__builtin_mul_overflow(t->shape[d] - 1, t->stride[d], &reach) && reach < INT64_C(1) << 40 &&
             reach > -(INT64_C(1) << 40);
    }
    return ok;
}

/* ---- checks that are left out ---- */

static void touch_outputs(const hm_op_info *op, const void *args) {
    for (int i = 0; i < op->nargs; i++) {
        const hm_tensor *t = hm_arg_tensor(op, args, i);
        hm_tensor as_if = *t;
        as_if.dtype = HM_F32;
        if (op->args[i].direction != HM_IN && hm_dtype_size(t->dtype) && hm_fault_walkable(&as_if, false))
            memset(t->data, 0, hm_dtype_size(t->dtype));
    }
}

bool hm_fault_checked(const char *name, hm_fault_checks checks, const void *args, hm_status *status) {
    static const hm_status overlooked[] = {
        [HM_CHECKS_NOT_ARG] = HM_BAD_ARG,       [HM_CHECKS_NOT_SHAPE] = HM_BAD_SHAPE,
        [HM_CHECKS_NOT_STRIDE] = HM_BAD_STRIDE, [HM_CHECKS_NOT_DTYPE] = HM_BAD_DTYPE,
        [HM_CHECKS_NOT_PLACE] = HM_BAD_PLACE,   [HM_CHECKS_NOT_ALIAS] = HM_BAD_ALIAS,
        [HM_CHECKS_NOT_PARAM] = HM_BAD_PARAM,   [HM_CHECKS_NOT_VALUE] = HM_BAD_VALUE,
    };
    const hm_op_info *op = hm_op_named(name);
    size_t given = 0;
    *status = op->check(args);
    if (*status == HM_OK) return false;
    if (args) memcpy(&given, args, sizeof given);
    if (checks == HM_CHECKS_LATE && given == op->args_size) touch_outputs(op, args);
    if (checks == HM_CHECKS_SILENT ||
        (checks > HM_CHECKS_ALL && checks < HM_CHECKS_SILENT && *status == overlooked[checks]))
        *status = HM_OK;
    return true;
}
