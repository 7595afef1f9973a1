#include "dtype.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "isa.h"

HM_INLINE uint64_t bits64(double v) {
    uint64_t b;
    memcpy(&b, &v, sizeof b);
    return b;
}
HM_INLINE double value64(uint64_t b) {
    double v;
    memcpy(&v, &b, sizeof v);
    return v;
}
HM_INLINE uint32_t bits32(float v) {
    uint32_t b;
    memcpy(&b, &v, sizeof b);
    return b;
}
HM_INLINE float value32(uint32_t b) {
    float v;
    memcpy(&v, &b, sizeof v);
    return v;
}

/* v rounded to p significant bits with smallest normal 2^emin, to nearest even, by binary64 arithmetic alone.
 * Normal: the carry of (half - 1 + last kept bit) rounds the integer that the bits are. Below 2^emin the spacing is
 * fixed at 2^(emin-p+1): adding a power of two whose binary64 spacing is just that makes the hardware round there. */
HM_INLINE double round_value(double v, int p, int emin, double max) {
    uint64_t b = bits64(v), sign = b & (1ull << 63), drop = 53 - (uint64_t)p;
    uint64_t magnitude = b ^ sign, half = (1ull << (drop - 1)) - 1 + (magnitude >> drop & 1);
    double normal = value64((magnitude + half) >> drop << drop);
    double anchor = value64((uint64_t)(emin - p + 1 + 52 + 1023) << 52);
    double tiny = (value64(magnitude) + anchor) - anchor;
    double r = value64(magnitude) < value64((uint64_t)(emin + 1023) << 52) ? tiny : normal;
    r = r > max ? INFINITY : r;
    r = value64(magnitude) != value64(magnitude) ? NAN : r;
    return value64(bits64(r) | sign);
}

#define BF16_MAX 0x1.FEp127
#define F16_MAX 65504.0

HM_INLINE double round_bf16(double v) { return round_value(v, 8, -126, BF16_MAX); }
HM_INLINE double round_f16(double v) { return round_value(v, 11, -14, F16_MAX); }

HM_INLINE double load_bf16(uint16_t h) { return (double)value32((uint32_t)h << 16); }
/* A choice without a branch, which the compiler would not take out of a loop that may trap. */
HM_INLINE uint32_t select32(uint32_t condition, uint32_t yes, uint32_t no) {
    return (yes & -condition) | (no & ~-condition);
}

HM_INLINE double load_f16(uint16_t h) {
    uint32_t m = h & 0x7FFFu;
    uint32_t normal = (m << 13) + (112u << 23), special = (m << 13) | 0x7F800000u,
             tiny = bits32((float)(int32_t)m * 0x1p-24f);
    uint32_t r = select32(m < 0x400u, tiny, select32(m >= 0x7C00u, special, normal));
    return (double)value32(r | (uint32_t)(h & 0x8000u) << 16);
}

/* A conversion keeps a NaN's sign and payload, which depend on operand order; a store writes one and the same quiet
 * NaN. */
HM_INLINE uint32_t store_bits(float v) { return v != v ? 0x7FC00000u : bits32(v); }
HM_INLINE float store_f32(double v) { return value32(store_bits((float)v)); }
HM_INLINE uint16_t store_bf16(double v) { return (uint16_t)(store_bits((float)round_bf16(v)) >> 16); }
HM_INLINE uint16_t store_f16(double v) {
    uint32_t b = store_bits((float)round_f16(v)),
             m = b & 0x7FFFFFFFu; /* exact: every f16 value is a normal f32 or zero */
    uint32_t is_tiny = m < 0x38800000u, tiny = (uint32_t)(int32_t)(value32(select32(is_tiny, m, 0)) * 0x1p24f);
    uint32_t normal = (m >> 13) - (112u << 10), special = select32(m > 0x7F800000u, 0x7E00u, 0x7C00u);
    uint32_t r = select32(is_tiny, tiny, select32(m >= 0x7F800000u, special, normal));
    return (uint16_t)(r | (b >> 16 & 0x8000u));
}

/* 8-bit floats and integers; after the formats below. */
static void load_other(hm_dtype dtype, const void *base, int64_t stride, int64_t n, double *to);
static void store_other(hm_dtype dtype, void *base, int64_t stride, int64_t n, const double *from);
static double round_other(hm_dtype dtype, double v);

/* The stride-1 loops are written out so that they vectorise. */
HM_INLINE void load_body(hm_dtype dtype, const void *base, int64_t stride, int64_t n, double *to) {
    if (dtype == HM_F32) {
        const float *p = base;
        if (stride == 1)
            for (int64_t i = 0; i < n; i++) to[i] = (double)p[i];
        else
            for (int64_t i = 0; i < n; i++) to[i] = (double)p[i * stride];
    } else if (dtype == HM_BF16) {
        const uint16_t *p = base;
        if (stride == 1)
            for (int64_t i = 0; i < n; i++) to[i] = load_bf16(p[i]);
        else
            for (int64_t i = 0; i < n; i++) to[i] = load_bf16(p[i * stride]);
    } else if (dtype == HM_F16) {
        const uint16_t *p = base;
        if (stride == 1)
            for (int64_t i = 0; i < n; i++) to[i] = load_f16(p[i]);
        else
            for (int64_t i = 0; i < n; i++) to[i] = load_f16(p[i * stride]);
    } else load_other(dtype, base, stride, n, to);
}

HM_INLINE void store_body(hm_dtype dtype, void *base, int64_t stride, int64_t n, const double *from) {
    if (dtype == HM_F32) {
        float *p = base;
        if (stride == 1)
            for (int64_t i = 0; i < n; i++) p[i] = store_f32(from[i]);
        else
            for (int64_t i = 0; i < n; i++) p[i * stride] = store_f32(from[i]);
    } else if (dtype == HM_BF16) {
        uint16_t *p = base;
        if (stride == 1)
            for (int64_t i = 0; i < n; i++) p[i] = store_bf16(from[i]);
        else
            for (int64_t i = 0; i < n; i++) p[i * stride] = store_bf16(from[i]);
    } else if (dtype == HM_F16) {
        uint16_t *p = base;
        if (stride == 1)
            for (int64_t i = 0; i < n; i++) p[i] = store_f16(from[i]);
        else
            for (int64_t i = 0; i < n; i++) p[i * stride] = store_f16(from[i]);
    } else store_other(dtype, base, stride, n, from);
}

HM_INLINE void round_body(hm_dtype dtype, int64_t n, double *v) {
    if (dtype == HM_F32)
        for (int64_t i = 0; i < n; i++) v[i] = (double)(float)v[i];
    else if (dtype == HM_BF16)
        for (int64_t i = 0; i < n; i++) v[i] = round_bf16(v[i]);
    else if (dtype == HM_F16)
        for (int64_t i = 0; i < n; i++) v[i] = round_f16(v[i]);
    else
        for (int64_t i = 0; i < n; i++) v[i] = round_other(dtype, v[i]);
}

HM_DISPATCH(load_row, (hm_dtype dtype, const void *base, int64_t stride, int64_t n, double *to), load_body,
            (dtype, base, stride, n, to))
HM_DISPATCH(store_row, (hm_dtype dtype, void *base, int64_t stride, int64_t n, const double *from), store_body,
            (dtype, base, stride, n, from))
HM_DISPATCH(round_row, (hm_dtype dtype, int64_t n, double *v), round_body, (dtype, n, v))

void hm_load_row(hm_dtype dtype, const void *base, int64_t stride, int64_t n, double *to) {
    load_row(dtype, base, stride, n, to);
}
void hm_store_row(hm_dtype dtype, void *base, int64_t stride, int64_t n, const double *from) {
    store_row(dtype, base, stride, n, from);
}
void hm_round_row(hm_dtype dtype, int64_t n, double *v) { round_row(dtype, n, v); }

double hm_load(hm_dtype dtype, const void *p) {
    double v;
    load_body(dtype, p, 1, 1, &v);
    return v;
}
void hm_store(hm_dtype dtype, void *p, double v) { store_body(dtype, p, 1, 1, &v); }
double hm_round_to(hm_dtype dtype, double v) {
    round_body(dtype, 1, &v);
    return v;
}

/* Integers: a spacing of 1 as far as binary64 has it. */
static const struct format {
    int precision, emin;
    double max;
} formats[] = {
    [HM_DTYPE_NONE] = {24, -126, 0x1.FFFFFEp127},
    [HM_F32] = {24, -126, 0x1.FFFFFEp127},
    [HM_F16] = {11, -14, F16_MAX},
    [HM_BF16] = {8, -126, BF16_MAX},
    [HM_F8E4M3] = {4, -6, 448},
    [HM_F8E4M3FNUZ] = {4, -7, 240},
    [HM_F8E5M2] = {3, -14, 57344},
    [HM_E8M0] = {1, -127, 0x1p127},
    [HM_U8] = {53, 52, 255},
    [HM_I32] = {53, 52, INT32_MAX},
    [HM_I64] = {53, 52, 0x1p63},
};
static const struct format *format_of(hm_dtype dtype) {
    return &formats[(unsigned)dtype < sizeof formats / sizeof *formats ? dtype : HM_DTYPE_NONE];
}

int hm_dtype_precision(hm_dtype dtype) { return format_of(dtype)->precision; }
int hm_dtype_emin(hm_dtype dtype) { return format_of(dtype)->emin; }
double hm_dtype_max(hm_dtype dtype) { return format_of(dtype)->max; }
double hm_dtype_min_normal(hm_dtype dtype) { return value64((uint64_t)(format_of(dtype)->emin + 1023) << 52); }

double hm_ulp(hm_dtype dtype, double v) {
    int e = (int)(bits64(v) >> 52 & 0x7FF) - 1023, emin = hm_dtype_emin(dtype);
    return value64((uint64_t)((e < emin ? emin : e) - hm_dtype_precision(dtype) + 1 + 1023) << 52);
}

double hm_next_up(hm_dtype dtype, double v) {
    if (v != v || v == INFINITY) return v;
    if (v == -INFINITY) return -hm_dtype_max(dtype);
    /* going up from a negative power of two the spacing is that of the binade below */
    double step = hm_ulp(dtype, v);
    if (v < 0 && (bits64(v) & 0xFFFFFFFFFFFFFull) == 0 && -v > hm_dtype_min_normal(dtype)) step /= 2;
    double r = v + step;
    return r > hm_dtype_max(dtype) ? INFINITY : r;
}
double hm_next_down(hm_dtype dtype, double v) { return -hm_next_up(dtype, -v); }

/* ---- 8 bits ------------------------------------------------------------------------------------------------------ */

static const struct format8 {
    int precision, emin;
    double max;
    uint8_t largest, nan, infinity; /* codes without a sign; infinity: what IEEE overflow gives */
    bool signed_nan;                /* NaN and infinity take the sign of what overflows */
} formats8[] = {
    [HM_F8E4M3] = {4, -6, 448, 0x7E, 0x7F, 0x7F, true},
    [HM_F8E4M3FNUZ] = {4, -7, 240, 0x7F, 0x80, 0x80, false},
    [HM_F8E5M2] = {3, -14, 57344, 0x7B, 0x7E, 0x7C, true},
};

static bool is_format8(hm_dtype dtype) { return dtype == HM_F8E4M3 || dtype == HM_F8E4M3FNUZ || dtype == HM_F8E5M2; }

static uint8_t store_e8m0(double v, hm_overflow overflow) {
    if (v != v || v < 0) return 0xFF;
    if (v < 0x1.8p-127) return 0;
    if (v >= 0x1.8p127) return overflow == HM_OVERFLOW_SATURATE ? 0xFE : 0xFF;
    uint64_t b = bits64(v); /* normal: the carry of the first fraction bit rounds the exponent */
    return (uint8_t)((b + (UINT64_C(1) << 51)) >> 52) - (1023 - 127);
}

uint8_t hm_store8(hm_dtype dtype, double v, hm_overflow overflow) {
    if (dtype == HM_E8M0) return store_e8m0(v, overflow);
    if (!is_format8(dtype)) return 0;
    const struct format8 *f = &formats8[dtype];
    if (v != v) return f->nan;
    uint8_t sign = bits64(v) >> 63 ? 0x80 : 0;
    double r = value64(bits64(round_value(v, f->precision, f->emin, f->max)) & INT64_MAX);
    if (r == INFINITY) {
        if (overflow == HM_OVERFLOW_SATURATE) return sign | f->largest;
        return f->signed_nan ? sign | f->infinity : f->infinity;
    }
    if (r == 0) return dtype == HM_F8E4M3FNUZ ? 0 : sign;
    /* In units of the smallest subnormal: an integer below 2^precision for the lowest two binades, a float above. */
    double unit = value64((uint64_t)(f->emin - f->precision + 1 + 1023) << 52),
           smallest = value64((uint64_t)(f->emin + 1023) << 52);
    if (r < smallest) return sign | (uint8_t)(r / unit);
    uint64_t b = bits64(r) >> (53 - f->precision);
    return sign | (uint8_t)(b - ((uint64_t)(f->emin - 1 + 1023) << (f->precision - 1)));
}

double hm_load8(hm_dtype dtype, uint8_t code) {
    if (dtype == HM_E8M0) return code == 0xFF ? NAN : value64((uint64_t)(code - 127 + 1023) << 52);
    if (!is_format8(dtype)) return NAN;
    const struct format8 *f = &formats8[dtype];
    uint8_t magnitude = code & 0x7F;
    if (dtype == HM_F8E4M3FNUZ ? code == f->nan : magnitude > f->largest) {
        if (dtype == HM_F8E5M2 && magnitude == f->infinity) return code & 0x80 ? -INFINITY : INFINITY;
        return NAN;
    }
    int bits = f->precision - 1, exponent = magnitude >> bits, fraction = magnitude & ((1 << bits) - 1);
    double unit = value64((uint64_t)((exponent ? exponent - 1 : 0) + f->emin - bits + 1023) << 52);
    double v = (double)(fraction + (exponent ? 1 << bits : 0)) * unit;
    return code & 0x80 ? -v : v;
}

/* ---- 8 bits and integers as rows -----------------------------------------------------------------------------------
 */

static double load_one(hm_dtype dtype, const unsigned char *p) {
    int32_t i32;
    int64_t i64;
    switch (dtype) {
        case HM_U8:
            return *p;
        case HM_I32:
            memcpy(&i32, p, sizeof i32);
            return i32;
        case HM_I64:
            memcpy(&i64, p, sizeof i64);
            return (double)i64;
        case HM_F8E4M3:
        case HM_F8E4M3FNUZ:
        case HM_F8E5M2:
        case HM_E8M0:
            return hm_load8(dtype, *p);
        default:
            return NAN;
    }
}

/* v to the nearest integer, ties to even, within [low, high]; NaN becomes 0. */
static double to_integer(double v, double low, double high) {
    v = v != v ? 0 : v < low ? low : v > high ? high : v;
    return fabs(v) < 0x1p52 ? (v < 0 ? (v - 0x1p52) + 0x1p52 : (v + 0x1p52) - 0x1p52) : v;
}

static void store_one(hm_dtype dtype, unsigned char *p, double v) {
    switch (dtype) {
        case HM_U8:
            *p = (uint8_t)to_integer(v, 0, 255);
            return;
        case HM_I32:
            memcpy(p, &(int32_t){(int32_t)to_integer(v, INT32_MIN, INT32_MAX)}, sizeof(int32_t));
            return;
        case HM_I64: /* the largest double below 2^63 */
            memcpy(p, &(int64_t){(int64_t)to_integer(v, -0x1p63, 0x1.fffffffffffffp62)}, sizeof(int64_t));
            return;
        case HM_F8E4M3:
        case HM_F8E4M3FNUZ:
        case HM_F8E5M2:
        case HM_E8M0:
            *p = hm_store8(dtype, v, HM_OVERFLOW_SATURATE);
            return;
        default:
            return;
    }
}

static void load_other(hm_dtype dtype, const void *base, int64_t stride, int64_t n, double *to) {
    int64_t step = stride * (int64_t)hm_dtype_size(dtype);
    for (int64_t i = 0; i < n; i++) to[i] = load_one(dtype, (const unsigned char *)base + i * step);
}

static void store_other(hm_dtype dtype, void *base, int64_t stride, int64_t n, const double *from) {
    int64_t step = stride * (int64_t)hm_dtype_size(dtype);
    for (int64_t i = 0; i < n; i++) store_one(dtype, (unsigned char *)base + i * step, from[i]);
}

static double round_other(hm_dtype dtype, double v) {
    unsigned char stored[8];
    if (hm_dtype_size(dtype) == 0) return v;
    store_one(dtype, stored, v);
    return load_one(dtype, stored);
}
