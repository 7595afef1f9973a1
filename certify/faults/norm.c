/* One row at a time: load, compute in binary64, store. */
#include "norm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../op/dtype.h"
#include "norm_parts.h"

/* ---- one row ---- */

typedef struct {
    double *x, *r, *sum, *variance, *norm, *weight, *residual, *y; /* [hidden] each */
    double *scale;                                                 /* [rows]: rs of the rows so far */
    double *block;
} scratch;

static double product(const hm_norm_variation *v, const hm_norm_call *c, double x, double rs, const double *w) {
    hm_dtype t = c->x.dtype;
    bool inside = c->round == HM_ROUND_NORM_FIRST;
    if (v->round == ROUND_NEVER_INSIDE) inside = false;
    if (v->round == ROUND_ALWAYS_INSIDE) inside = true;
    if (!w) return x * rs;
    if (v->round == ROUND_WEIGHT_FIRST) return hm_round_to(t, x * *w) * rs;
    if (v->round == ROUND_IN_WEIGHT_DTYPE && c->weight.dtype != t)
        return hm_round_to(c->weight.dtype, hm_round_to(c->weight.dtype, x * rs) * *w);
    if (v->round == ROUND_INSIDE_TRUNCATES && inside) return hm_fault_toward_zero(t, x * rs) * *w;
    return inside ? hm_round_to(t, x * rs) * *w : x * rs * *w;
}

/* What the norm reads, and what goes to residual_out, for fused_add. */
static void add(const hm_norm_variation *v, const hm_norm_call *c, int64_t n, const scratch *s) {
    hm_dtype t = c->x.dtype, r = c->residual_out.dtype;
    bool rounded = c->residual_read == HM_READ_ROUNDED || r == HM_F32;
    if (v->read == READ_ALWAYS_ROUNDED) rounded = true;
    if (v->read == READ_ALWAYS_UNROUNDED && r != HM_F32) rounded = false;
    for (int64_t i = 0; i < n; i++) {
        double a = v->sum == SUM_RESIDUAL_TWICE ? s->x[i] + 2 * s->r[i]
                   : v->sum == SUM_DIFFERENCE   ? s->x[i] - s->r[i]
                                                : s->x[i] + s->r[i];
        double z = hm_round_to(r, a);
        s->sum[i] = a;
        s->norm[i] = s->variance[i] = rounded ? z : a;
        if (v->read == READ_VARIANCE_ROUNDED_ONLY && !rounded) s->variance[i] = z;
        if (v->read == READ_VARIANCE_UNROUNDED_ONLY && r != HM_F32) s->variance[i] = a;
        if (v->read == READ_X_ONLY) s->norm[i] = s->variance[i] = s->x[i];
        if (v->read == READ_RESIDUAL_ONLY) s->norm[i] = s->variance[i] = s->r[i];
        if (v->read == READ_VARIANCE_OF_X) s->variance[i] = s->x[i];
        if (v->read == READ_VIA_F16) s->norm[i] = s->variance[i] = hm_round_to(t, z);
    }
}

static double residual_value(const hm_norm_variation *v, const hm_norm_call *c, const scratch *s, int64_t i, double y) {
    hm_dtype t = c->x.dtype, r = c->residual_out.dtype;
    switch (v->residual) {
        case RESIDUAL_NORMALISED:
            return y;
        case RESIDUAL_X:
            return s->x[i];
        case RESIDUAL_UNCHANGED:
            return s->r[i];
        case RESIDUAL_TRUNCATES:
            return hm_fault_toward_zero(r, s->sum[i]);
        case RESIDUAL_TIES_AWAY:
            return hm_fault_ties_away(r, s->sum[i]);
        case RESIDUAL_ROUNDED_IN_F32:
            return hm_round_to(t, s->sum[i]);
        case RESIDUAL_SATURATES:
            return hm_fault_saturated(r, s->sum[i]);
        case RESIDUAL_FLUSHES:
            return hm_fault_flushed(r, s->sum[i]);
        case RESIDUAL_OTHER_HALF:
            return hm_round_to(t == HM_F16 ? HM_BF16 : HM_F16, s->sum[i]);
        default:
            return s->sum[i];
    }
}

static void write_residual(const hm_norm_variation *v, const hm_norm_call *c, int64_t row, int64_t n,
                           const scratch *s) {
    const hm_tensor *t = v->residual == RESIDUAL_IN_PLACE ? &c->residual : &c->residual_out;
    int64_t offset = hm_fault_row_offset(t, row), stride = t->stride[t->ndim - 1];
    if (v->map == MAP_RESIDUAL_OUT_DENSE) {
        offset = row * n;
        stride = 1;
    }
    if (v->map == MAP_RESIDUAL_OUT_LIKE_OUT) {
        offset = hm_fault_row_offset(&c->out, row);
        stride = c->out.stride[c->out.ndim - 1];
    }
    int64_t end = v->residual == RESIDUAL_NOT_WRITTEN    ? 0
                  : v->residual == RESIDUAL_4096         ? hm_fault_least(n, 4096)
                  : v->residual == RESIDUAL_WITHOUT_TAIL ? n - n % 8
                                                         : n;
    for (int64_t i = 0; i < end; i++)
        s->residual[i] = v->effect == EFFECT_OUTPUTS_SWAPPED ? s->y[i] : residual_value(v, c, s, i, s->y[i]);
    hm_fault_store_row(t, offset, stride, end, 0, s->residual);
    if (v->residual == RESIDUAL_T && t->dtype == HM_F32 && c->x.dtype != HM_F32) { /* half of each row: T's bytes */
        hm_tensor narrow = *t;
        narrow.dtype = c->x.dtype;
        for (int64_t i = 0; i < n && stride == 1; i++)
            hm_store(narrow.dtype, (char *)hm_fault_at_offset(t, offset) + i * (int64_t)hm_dtype_size(narrow.dtype),
                     s->sum[i]);
    }
}

/* y has 8 elements of 0 before it and after it. */
static void write_out(const hm_norm_variation *v, const hm_norm_call *c, const hm_tensor *t, int64_t row, int64_t n,
                      const double *y) {
    int64_t offset = hm_fault_row_offset(t, row), stride = t->stride[t->ndim - 1], start = 0, end = n;
    if (v->map == MAP_OUT_DENSE) offset = row * n;
    if (v->map == MAP_OUT_DENSE || v->map == MAP_OUT_UNIT) stride = 1;
    if (v->map == MAP_OUT_LIKE_X) offset = hm_fault_row_offset(&c->x, row);
    if (v->map == MAP_OUT_INT32) offset = hm_fault_in_int32(offset);
    switch (v->columns) {
        case COLUMNS_ALL:
            break;
        case COLUMNS_NONE:
            end = 0;
            break;
        case COLUMNS_4096:
            end = hm_fault_least(n, 4096);
            break;
        case COLUMNS_WITHOUT_TAIL:
            end = n - n % 8;
            break;
        case COLUMNS_WITHOUT_LAST:
            end = n - 1;
            break;
        case COLUMNS_V:
            end = c->variance_size ? hm_fault_least(c->variance_size, n) : n;
            break;
        case COLUMNS_ONE_PAST:
            end = n + 1;
            break;
        case COLUMNS_ONE_BEFORE:
            start = -1;
            break;
        case COLUMNS_MULTIPLE_OF_8:
            end = (n + 7) / 8 * 8;
            break;
    }
    hm_fault_store_row(t, offset + start * stride, stride, end - start, HM_FAULT_SLACK, y + start);
}

static void overwrite(const hm_tensor *t, int64_t row, int64_t n, const double *y) {
    hm_store_row(t->dtype, hm_fault_at_offset(t, hm_fault_row_offset(t, row)), t->stride[t->ndim - 1], n, y);
}

static void one_row(const hm_norm_variation *v, const hm_norm_call *c, int64_t row, int64_t rows, int64_t n,
                    const scratch *s) {
    int64_t from = v->rows == ROWS_SHIFTED                       ? (row + 1) % rows
                   : v->rows == ROWS_SWAPPED && (row ^ 1) < rows ? row ^ 1
                                                                 : row;
    hm_dtype t = c->x.dtype;
    hm_fault_read_x(v, c, from, n, s->x);
    if (c->fused) {
        hm_fault_read_residual(v, c, from, n, s->r);
        add(v, c, n, s);
    } else {
        memcpy(s->norm, s->x, (size_t)n * sizeof *s->x);
        memcpy(s->variance, s->x, (size_t)n * sizeof *s->x);
    }
    double rs = s->scale[row] = hm_fault_scale(v, c, from, s->variance, n);
    if (v->rs == RS_FIRST_ROW) rs = s->scale[0];
    if (v->rs == RS_PREVIOUS_ROW && row > 0) rs = s->scale[row - 1];
    if (v->rs == RS_ROW_MINUS_64 && row >= 64) rs = s->scale[row - 64];
    bool weighted = c->weight.dtype != HM_DTYPE_NONE && v->weight != WEIGHT_IGNORED;
    bool aliased = c->out.data == c->x.data;
    for (int64_t i = 0; i < n; i++) {
        if (v->rs == RS_HALVES_IN_PLACE && aliased &&
            i == (n + 1) / 2) { /* the second block reads what the first wrote */
            memcpy(s->variance, s->y, (size_t)i * sizeof *s->y);
            hm_round_row(t, i, s->variance);
            rs = hm_fault_scale(v, c, from, s->variance, n);
        }
        double y = product(v, c, s->norm[i], rs, weighted ? &s->weight[i] : NULL);
        if (v->specials == SPECIALS_INF_ROW_ZERO && rs == 0 && isnan(y)) y = 0;
        s->y[i] = hm_fault_stored(v, t, y);
    }
    hm_round_row(t, n, s->y);
    if (c->fused) write_residual(v, c, row, n, s);
    if (v->effect == EFFECT_X_OVERWRITTEN || v->effect == EFFECT_OUT_IN_X) overwrite(&c->x, row, n, s->y);
    if (v->effect == EFFECT_X_HOLDS_SUM) overwrite(&c->x, row, n, s->sum);
    if (v->effect == EFFECT_OUT_OVER_RESIDUAL && c->residual.data != c->residual_out.data)
        overwrite(&c->residual, row, n, s->y);
    if (v->effect != EFFECT_OUT_IN_X)
        write_out(v, c, &c->out, row, n, v->effect == EFFECT_OUTPUTS_SWAPPED ? s->sum : s->y);
}

/* ---- the call ---- */

/* Whether the missing check of v is the one that refused the call. */
static bool overlooked(const hm_norm_variation *v, const hm_norm_call *c, hm_status status) {
    int64_t n = c->x.ndim > 0 && c->x.ndim <= 4 ? hm_fault_width(&c->x) : 0;
    bool param = status == HM_BAD_PARAM, dtype = status == HM_BAD_DTYPE;
    switch (v->checks) {
        case CHECKS_NOT_MODES:
            return param && c->round == HM_ROUND_NORM_FIRST && c->weight_form == HM_WEIGHT_ONE_PLUS;
        case CHECKS_NOT_EPS_NAN:
            return param && isnan(c->eps);
        case CHECKS_NOT_EPS_NEGATIVE:
            return param && c->eps < 0;
        case CHECKS_NOT_EPS_INFINITE:
            return param && isinf((float)c->eps);
        case CHECKS_NOT_VARIANCE_SIZE:
            return param && (c->variance_size < 0 || c->variance_size > n);
        case CHECKS_NOT_WEIGHT_DTYPE:
            return dtype && c->weight.dtype != HM_DTYPE_NONE && c->weight.dtype != c->x.dtype;
        case CHECKS_NOT_OUT_DTYPE:
            return dtype && c->out.dtype != c->x.dtype;
        case CHECKS_NOT_SHAPE:
            return status == HM_BAD_SHAPE;
        case CHECKS_NOT_ALIAS:
            return status == HM_BAD_ALIAS;
        case CHECKS_NOT_OUT_STRIDE:
            return status == HM_BAD_STRIDE;
        case CHECKS_NOT_PLACE:
            return status == HM_BAD_PLACE;
        default:
            return false;
    }
}

static bool all_walkable(const hm_norm_call *c) {
    return hm_fault_walkable(&c->out, false) && hm_fault_walkable(&c->x, false) &&
           (c->weight.dtype == HM_DTYPE_NONE || hm_fault_walkable(&c->weight, false)) &&
           (!c->fused || (hm_fault_walkable(&c->residual, false) && hm_fault_walkable(&c->residual_out, false)));
}

static int64_t rows_of(const hm_norm_variation *v, int64_t rows) {
    switch (v->rows) {
        case ROWS_WITHOUT_LAST:
            return rows - 1;
        case ROWS_FIRST:
            return hm_fault_least(rows, 1);
        case ROWS_MULTIPLE_OF_4:
            return rows - rows % 4;
        case ROWS_65535:
            return hm_fault_least(rows, 65535);
        default:
            return rows;
    }
}

static bool carve(scratch *s, int64_t rows, int64_t n) {
    double **part[] = {&s->x, &s->r, &s->sum, &s->variance, &s->norm, &s->weight, &s->residual, &s->y};
    size_t parts = sizeof part / sizeof *part, each = (size_t)n + 16;
    s->block = calloc(parts * each + (size_t)rows, sizeof *s->block);
    if (!s->block) return false;
    for (size_t i = 0; i < parts; i++) *part[i] = s->block + i * each + 8;
    s->scale = s->block + parts * each;
    return true;
}

static void leave_dtypes(const hm_norm_variation *v, const hm_norm_call *c, hm_dtype *written) {
    bool half = c->x.dtype != HM_F32;
    if (half && (v->effect == EFFECT_OUT_F32 || (v->effect == EFFECT_OUT_PROMOTED && c->weight.dtype == HM_F32)))
        written[c->out_arg] = HM_F32;
    if (c->fused && v->residual == RESIDUAL_F32 && c->residual_out.dtype != HM_F32)
        written[c->residual_out_arg] = HM_F32;
    if (c->fused && v->residual == RESIDUAL_T && c->residual_out.dtype != c->x.dtype)
        written[c->residual_out_arg] = c->x.dtype;
}

hm_status hm_norm_fault_run(const hm_norm_variation *v, const hm_norm_call *c, hm_status (*check)(const hm_norm_call *),
                            hm_dtype written[HM_MAX_ARGS]) {
    hm_status status = check(c);
    if (status != HM_OK && v->checks == CHECKS_LATE && all_walkable(c)) hm_store(c->out.dtype, c->out.data, 1);
    if (status != HM_OK && v->checks == CHECKS_SILENT) return HM_OK;
    if (status != HM_OK && !(overlooked(v, c, status) && all_walkable(c))) return status;

    hm_fault_next_call();
    int64_t n = hm_fault_width(&c->x), rows = hm_fault_rows(&c->x);
    if (n == 0 || rows == 0) {
        if (v->empty == EMPTY_WRITES && c->out.data) hm_store(c->out.dtype, c->out.data, 0);
        return v->empty == EMPTY_REFUSED ? HM_BAD_SHAPE : HM_OK;
    }
    scratch s;
    if (!carve(&s, rows, n)) return HM_NO_MEMORY;
    bool weighted = c->weight.dtype != HM_DTYPE_NONE;
    if (weighted) hm_fault_read_weight(v, c, n, s.weight);
    int64_t end = rows_of(v, rows);
    for (int64_t row = 0; row < end; row++) one_row(v, c, row, rows, n, &s);
    if (weighted && v->weight == WEIGHT_INCREMENTED && c->weight_form == HM_WEIGHT_ONE_PLUS)
        hm_store_row(c->weight.dtype, c->weight.data, c->weight.stride[0], n, s.weight);
    leave_dtypes(v, c, written);
    free(s.block);
    return HM_OK;
}
