#include "rope_table.h"

#include <math.h>

#include "check.h"
#include "dtype.h"
#include "op.h"

static const char op[] = "rope_table";
static const char *const precision_names[] = {"f32", "exact", NULL};
static const char *const scaling_names[] = {"default",       "linear", "dynamic_ntk", "yarn",
                                            "deepseek_yarn", "llama3", "longrope",    NULL};
static const char *const fraction_names[] = {"drop", "keep", NULL};
static const char *const layout_names[] = {"chunked", "interleaved", NULL};

static hm_status in_range(const char *name, double value, double least, double most) {
    if (value >= least && value <= most) return HM_OK;
    return hm_fail(HM_BAD_PARAM, "%s: %s is %.17g; it has to be %.17g to %.17g", op, name, value, least, most);
}

static hm_status check_shapes(const hm_rope_table_args *a) {
    if (!hm_is_float(a->out.dtype))
        return hm_fail(HM_BAD_DTYPE, "%s: out is %s; it has to be f32, f16 or bf16", op, hm_dtype_name(a->out.dtype));
    if (a->out.ndim != 2)
        return hm_fail(HM_BAD_SHAPE, "%s: out has rank %d; it has to be 2: [n, rotary_dim]", op, a->out.ndim);
    int64_t n = a->out.shape[0], rotary_dim = a->out.shape[1];
    if (rotary_dim < 2 || rotary_dim > 65536 || rotary_dim % 2)
        return hm_fail(HM_BAD_SHAPE, "%s: out has a rotary_dim of %lld; it has to be even, 2 to 65536", op,
                       (long long)rotary_dim);
    if (n > 1 << 24)
        return hm_fail(HM_BAD_SHAPE, "%s: out has %lld rows; it has to have at most 2^24", op, (long long)n);
    const hm_tensor *p = &a->positions, *f = &a->factors;
    if (p->dtype != HM_DTYPE_NONE) {
        if (p->dtype != HM_I64)
            return hm_fail(HM_BAD_DTYPE, "%s: positions is %s; it has to be i64", op, hm_dtype_name(p->dtype));
        if (p->ndim > 2 || p->shape[p->ndim - 1] != n || (p->ndim == 2 && p->shape[0] != 3))
            return hm_fail(
                HM_BAD_SHAPE,
                "%s: positions has rank %d and last extent %lld; it has to be [%lld] or [3,%lld], as out has rows", op,
                p->ndim, (long long)p->shape[p->ndim - 1], (long long)n, (long long)n);
        if (p->ndim == 2 && !hm_rope_sectioned(a))
            return hm_fail(HM_BAD_SHAPE, "%s: positions is [3,%lld] and all mrope sections are 0; it has to be [%lld]",
                           op, (long long)n, (long long)n);
    }
    if ((f->dtype != HM_DTYPE_NONE) != (a->scaling == HM_SCALING_LONGROPE))
        return hm_fail(HM_BAD_ARG, "%s: factors is %s and scaling is %s; they go together with longrope", op,
                       f->dtype ? "there" : "absent", scaling_names[a->scaling]);
    if (f->dtype == HM_DTYPE_NONE) return HM_OK;
    if (f->dtype != HM_F32)
        return hm_fail(HM_BAD_DTYPE, "%s: factors is %s; it has to be f32", op, hm_dtype_name(f->dtype));
    if (f->ndim != 1 || f->shape[0] != rotary_dim / 2)
        return hm_fail(HM_BAD_SHAPE, "%s: factors has rank %d and extent %lld; it has to be [%lld], half of rotary_dim",
                       op, f->ndim, (long long)f->shape[0], (long long)rotary_dim / 2);
    return HM_OK;
}

static hm_status check_params(const hm_rope_table_args *a) {
    hm_status s;
    hm_rope_scaling k = a->scaling;
    bool yarn = k == HM_SCALING_YARN || k == HM_SCALING_DEEPSEEK_YARN, longrope = k == HM_SCALING_LONGROPE;
    int64_t rotary_dim = a->out.shape[1];
    if ((s = in_range("base", a->base, 2, 0x1p40))) return s;
    if (k != HM_SCALING_DEFAULT && !longrope && (s = in_range("factor", a->factor, 1, 0x1p16))) return s;
    if (k == HM_SCALING_DYNAMIC_NTK && rotary_dim == 2)
        return hm_fail(HM_BAD_SHAPE, "%s: out has a rotary_dim of 2; with dynamic_ntk it has to be 4 or more", op);
    if ((yarn || longrope || k == HM_SCALING_LLAMA3) &&
        (s = in_range("original_max_position", (double)a->original_max_position, longrope ? 2 : 1, 0x1p40)))
        return s;
    if (yarn) {
        if ((s = in_range("beta_fast", a->beta_fast, 0x1p-10, 0x1p20))) return s;
        if ((s = in_range("beta_slow", a->beta_slow, 0x1p-10, 0x1p20))) return s;
        if ((s = in_range("extrapolation_factor", a->extrapolation_factor, 0, 1))) return s;
        if ((s = in_range("mscale", a->mscale, 0, 0x1p10))) return s;
        if ((s = in_range("mscale_all_dim", a->mscale_all_dim, 0, 0x1p10))) return s;
    }
    if ((yarn || longrope) && a->attention_factor != 0 &&
        (s = in_range("attention_factor", a->attention_factor, 0x1p-10, 0x1p10)))
        return s;
    if (longrope && (s = in_range("max_position", (double)a->max_position, 0, 0x1p40))) return s;
    if (k == HM_SCALING_LLAMA3) {
        if ((s = in_range("high_freq_factor", a->high_freq_factor, 0x1p-10, 0x1p20))) return s;
        if ((s = in_range("low_freq_factor", a->low_freq_factor, 0x1p-10, a->high_freq_factor))) return s;
    }
    if (!hm_rope_sectioned(a)) return HM_OK;
    int64_t half = rotary_dim / 2, t = a->mrope_t, h = a->mrope_h, w = a->mrope_w;
    if (t < 0 || h < 0 || w < 0 || t > half || h > half || w > half || t + h + w != half)
        return hm_fail(
            HM_BAD_PARAM,
            "%s: mrope_t, mrope_h, mrope_w are %lld, %lld, %lld; they have to add up to %lld, half of rotary_dim", op,
            (long long)t, (long long)h, (long long)w, (long long)half);
    return HM_OK;
}

/* On the host only: to look at them would wait for the device. */
static hm_status check_values(const hm_rope_table_args *a) {
    const hm_tensor *p = &a->positions, *f = &a->factors;
    if (a->out.place != HM_HOST) return HM_OK;
    for (int64_t axis = 0; p->dtype && axis < (p->ndim == 2 ? 3 : 1); axis++)
        for (int64_t i = 0; i < a->out.shape[0]; i++) {
            int64_t position = hm_rope_position(a, (int)axis, i);
            if (position < 0 || position >= 1 << 24)
                return hm_fail(HM_BAD_VALUE, "%s: positions holds %lld in row %lld; it has to be 0 to 2^24-1", op,
                               (long long)position, (long long)i);
        }
    for (int64_t j = 0; f->dtype && j < f->shape[0]; j++) {
        double v = (double)((const float *)f->data)[j * f->stride[0]];
        if (!(v >= 0x1p-10 && v <= 0x1p20))
            return hm_fail(HM_BAD_VALUE, "%s: factors holds %.9g for frequency %lld; it has to be 2^-10 to 2^20", op, v,
                           (long long)j);
    }
    return HM_OK;
}

hm_status hm_rope_table_read(const hm_rope_table_args *args, hm_rope_table_args *a) {
    hm_status s;
    if ((s = hm_read_args(op, args, a, sizeof *a))) return s;
    if ((s = hm_check_tensor(op, "out", &a->out, true))) return s;
    if ((s = hm_check_tensor(op, "positions", &a->positions, false))) return s;
    if ((s = hm_check_tensor(op, "factors", &a->factors, false))) return s;
    if ((s = hm_check_mode(op, "precision", (int)a->precision, 2))) return s;
    if ((s = hm_check_mode(op, "scaling", (int)a->scaling, 7))) return s;
    if ((s = hm_check_mode(op, "fraction", (int)a->fraction, 2))) return s;
    if ((s = hm_check_mode(op, "mrope_layout", (int)a->mrope_layout, 2))) return s;
    if ((s = check_shapes(a))) return s;
    if ((s = check_params(a))) return s;
    if ((s = hm_check_places(op, 3, (const char *const[]){"out", "positions", "factors"},
                             (const hm_tensor *const[]){&a->out, &a->positions, &a->factors})))
        return s;
    if ((s = hm_check_distinct(op, "out", &a->out))) return s;
    if ((s = hm_check_overlap(op, "out", &a->out, "positions", &a->positions, false))) return s;
    if ((s = hm_check_overlap(op, "out", &a->out, "factors", &a->factors, false))) return s;
    return check_values(a);
}

hm_status hm_rope_table_check(const hm_rope_table_args *args) {
    hm_rope_table_args full;
    return hm_rope_table_read(args, &full);
}

HM_OP_FUNCTIONS(rope_table, out)

#define AT(field) offsetof(hm_rope_table_args, field)
static const hm_arg_info args[] = {
    {"positions", AT(positions), HM_IN, true, "...,n", "i64", NULL, "position of each row, or t, h and w of each row",
     NULL},
    {"factors", AT(factors), HM_IN, true, "half", "f32", NULL, "divisor of each frequency (longrope)", NULL},
    {"out", AT(out), HM_OUT, false, "n,rotary_dim", "f32 f16 bf16", NULL, "cosines, then sines, of each position",
     NULL},
};
static const hm_param_info params[] = {
    {"precision", AT(precision), HM_PARAM_MODE, precision_names, HM_TABLE_F32,
     "f32 steps as upstream, or correctly rounded"},
    {"scaling", AT(scaling), HM_PARAM_MODE, scaling_names, HM_SCALING_DEFAULT,
     "how frequencies are stretched for long contexts"},
    {"base", AT(base), HM_PARAM_F64, NULL, 10000, "of the geometric series of frequencies"},
    {"factor", AT(factor), HM_PARAM_F64, NULL, 1, "s: how much longer the context becomes"},
    {"original_max_position", AT(original_max_position), HM_PARAM_I64, NULL, 4096,
     "D: context that the model was trained on"},
    {"max_position", AT(max_position), HM_PARAM_I64, NULL, 0, "M: context that the model is used with (longrope)"},
    {"beta_fast", AT(beta_fast), HM_PARAM_F64, NULL, 32, "turns in D from which on a frequency is kept (yarn)"},
    {"beta_slow", AT(beta_slow), HM_PARAM_F64, NULL, 1, "turns in D below which a frequency is divided by s (yarn)"},
    {"extrapolation_factor", AT(extrapolation_factor), HM_PARAM_F64, NULL, 1,
     "weight of the frequencies that are kept (yarn)"},
    {"mscale", AT(mscale), HM_PARAM_F64, NULL, 0, "of the factor on cos and sin (yarn); 0: not given"},
    {"mscale_all_dim", AT(mscale_all_dim), HM_PARAM_F64, NULL, 0, "its divisor (yarn); 0: not given"},
    {"attention_factor", AT(attention_factor), HM_PARAM_F64, NULL, 0, "the factor on cos and sin itself; 0: not given"},
    {"low_freq_factor", AT(low_freq_factor), HM_PARAM_F64, NULL, 1,
     "turns in D below which a frequency is divided by s (llama3)"},
    {"high_freq_factor", AT(high_freq_factor), HM_PARAM_F64, NULL, 4,
     "turns in D from which on a frequency is kept (llama3)"},
    {"fraction", AT(fraction), HM_PARAM_MODE, fraction_names, HM_FRACTION_DROP, "of the ends of the ramp (yarn)"},
    {"mrope_t", AT(mrope_t), HM_PARAM_I64, NULL, 0, "frequencies that take position t"},
    {"mrope_h", AT(mrope_h), HM_PARAM_I64, NULL, 0, "frequencies that take position h"},
    {"mrope_w", AT(mrope_w), HM_PARAM_I64, NULL, 0, "frequencies that take position w"},
    {"mrope_layout", AT(mrope_layout), HM_PARAM_MODE, layout_names, HM_MROPE_CHUNKED,
     "sections one after the other, or interleaved"},
};
const hm_op_info hm_rope_table_info = {
    .name = op,
    .about = "cosines and sines of position * inv_freq, for rotary embeddings",
    .contract = 1,
    .args_size = sizeof(hm_rope_table_args),
    .args = args,
    .nargs = sizeof args / sizeof *args,
    .params = params,
    .nparams = sizeof params / sizeof *params,
    .classes = "wide",
    .class_required = "wide",
    HM_OP_CALLS,
};
