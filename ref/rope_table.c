/* rope_table: constants of a column in fixed point (fixed.h), elements in double-double (math.h), and fixed point again
 * for the rare element that double-double cannot round. Mode f32 goes through upstream's steps, each correctly rounded
 * to f32. */
#include <hallmark/rope_table.h>
#include <stdlib.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "rope_table.h"

/* ---- factors of cos and sin -------------------------------------------------------------------------------------- */

static hm_fixed g(const hm_rope_table_args *a, double weight) {
    hm_fixed one = hm_fixed_int(1);
    return a->factor <= 1 ? one : plus(over(times(number(weight), ln(a->factor)), hm_fixed_int(10)), one);
}

static hm_fixed ratio(const hm_rope_table_args *a) {
    return a->mscale == a->mscale_all_dim ? hm_fixed_int(1) : over(g(a, a->mscale), g(a, a->mscale_all_dim));
}

static hm_fixed scale_of(const hm_rope_table_args *a) {
    double given = a->attention_factor, D = (double)a->original_max_position, M = (double)a->max_position;
    switch (a->scaling) {
        case HM_SCALING_YARN:
            return given != 0 ? number(given) : a->mscale != 0 && a->mscale_all_dim != 0 ? ratio(a) : g(a, 1);
        case HM_SCALING_DEEPSEEK_YARN:
            return times(ratio(a), number(given != 0 ? given : 1));
        case HM_SCALING_LONGROPE:
            if (given != 0) return number(given);
            return M > D ? hm_fixed_sqrt(plus(hm_fixed_int(1), over(minus(ln(M), ln(D)), ln(D)))) : hm_fixed_int(1);
        default:
            return hm_fixed_int(1);
    }
}

/* ---- frequencies ------------------------------------------------------------------------------------------------- */

static void find_base(table *t) {
    const hm_rope_table_args *a = t->a;
    t->ln_base = ln(a->base);
    t->base32 = (float)a->base;
    t->ln_base32 = ln_wide(t->base32);
    if (a->scaling != HM_SCALING_DYNAMIC_NTK) return;
    hm_fixed s = number(a->factor), one = hm_fixed_int(1), stretch = plus(minus(times(s, s), s), one);
    hm_fixed power = over(hm_fixed_int(2 * t->half), hm_fixed_int(2 * t->half - 2));
    t->ln_base = plus(t->ln_base, times(power, hm_fixed_ln(stretch)));
    t->base32 = exp32(t->ln_base);
    t->ln_base32 = ln_wide(t->base32);
}

/* rotary_dim * ln(D / (2 pi turns)) / (2 ln base) */
static hm_fixed correction(const table *t, double turns) {
    hm_fixed two_pi = hm_fixed_scale(hm_fixed_pi(), 1);
    hm_fixed l = minus(minus(ln((double)t->a->original_max_position), hm_fixed_ln(two_pi)), ln(turns));
    return over(times(hm_fixed_int(t->half), l), t->ln_base);
}

static void find_ramp(table *t) {
    const hm_rope_table_args *a = t->a;
    if (!is_yarn(t)) return;
    hm_fixed low = correction(t, a->beta_fast), high = correction(t, a->beta_slow),
             last = hm_fixed_int(2 * t->half - 1), zero = {0};
    if (a->fraction == HM_FRACTION_DROP) {
        low = hm_fixed_int(hm_fixed_floor(low));
        high = hm_fixed_int(-hm_fixed_floor(minus(zero, high)));
    }
    t->low = below(low, zero) ? zero : low;
    t->high = below(last, high) ? last : high;
    if (hm_fixed_compare(t->low, t->high) == 0) t->high = plus(t->high, over(hm_fixed_int(1), hm_fixed_int(1000)));
}

void hm_rope_constants(table *t, const hm_rope_table_args *a) {
    *t = (table){.a = a, .exact = a->precision == HM_TABLE_EXACT, .half = a->out.shape[1] / 2};
    find_base(t);
    find_ramp(t);
    t->scale_fixed = scale_of(a);
    t->scale.hi = hm_fixed_split(t->scale_fixed, &t->scale.lo);
    t->scale = hm_fast_sum(t->scale.hi, t->scale.lo);
    t->scale32 = (float)round_fixed(HM_F32, t->scale_fixed);
}

static column *columns_of(const table *t) {
    column *c = malloc((size_t)t->half * sizeof *c);
    if (!c) return NULL;
#pragma omp parallel for schedule(static) if (t->half > 256)
    for (int64_t j = 0; j < t->half; j++) find_column(t, j, &c[j]);
    return c;
}

/* ---- elements ---------------------------------------------------------------------------------------------------- */

static void row(const table *t, const column *columns, int64_t p) {
    const hm_rope_table_args *a = t->a;
    enum { CHUNK = 256 };
    double cos[CHUNK], sin[CHUNK];
    int64_t size = (int64_t)hm_dtype_size(a->out.dtype), stride = a->out.stride[1];
    char *out = (char *)a->out.data + p * a->out.stride[0] * size;
    for (int64_t j = 0; j < t->half; j += CHUNK) {
        int64_t n = t->half - j < CHUNK ? t->half - j : CHUNK;
        for (int64_t i = 0; i < n; i++) {
            const column *k = &columns[j + i];
            element(t, k, hm_rope_position(a, k->axis, p), &cos[i], &sin[i]);
        }
        hm_store_row(a->out.dtype, out + j * stride * size, stride, n, cos);
        hm_store_row(a->out.dtype, out + (t->half + j) * stride * size, stride, n, sin);
    }
}

hm_status hm_rope_table_ref(const hm_rope_table_args *args) {
    hm_rope_table_args a;
    table t;
    hm_status s = hm_rope_table_read(args, &a);
    if (s) return s;
    if (a.out.place != HM_HOST) return hm_fail(HM_UNSUPPORTED, "rope_table: ref works on host tensors only");
    hm_rope_constants(&t, &a);
    column *columns = columns_of(&t);
    if (!columns)
        return hm_fail(HM_NO_MEMORY, "rope_table: no memory for %lld columns", (long long)(a.out.shape[1] / 2));
    int64_t rows = a.out.shape[0];
#pragma omp parallel for schedule(static) if (rows * t.half > 4096)
    for (int64_t p = 0; p < rows; p++) row(&t, columns, p);
    free(columns);
    return HM_OK;
}
