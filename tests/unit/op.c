/* The contract as code, hm_<op>_check: every promised error with its status and a sentence that names the argument and
 * the value, every legal call accepted, and the description table in step with both. What holds for any op is written
 * once over the table. */
#include <criterion/criterion.h>
#include <hallmark/cuda.h>
#include <hallmark/fused_add_rms_norm.h>
#include <hallmark/op.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { ROWS = 3, HIDDEN = 8, SLOT = 1024, SLOTS = 8 };

typedef union {
    size_t size;
    hm_rms_norm_args rms_norm;
    hm_fused_add_rms_norm_args fused;
} call_args;

/* A legal call: x[3,8] in bf16, everything present, each tensor in a slot of its own. */
typedef struct {
    const hm_op_info *op;
    call_args args;
    unsigned char memory[SLOTS * SLOT];
} call;

static unsigned char canary[SLOTS * SLOT];

static hm_tensor *tensor(call *c, const char *name) {
    for (int i = 0; i < c->op->nargs; i++)
        if (strcmp(c->op->args[i].name, name) == 0) return hm_arg_tensor(c->op, &c->args, i);
    cr_assert_fail("%s has no argument %s", c->op->name, name);
    return NULL;
}

static void legal_call(call *c, const hm_op_info *op) {
    memset(canary, 0x3C, sizeof canary);
    memset(c, 0, sizeof *c);
    c->op = op;
    memcpy(c->memory, canary, sizeof canary);
    for (int i = 0; i < op->nargs; i++) {
        bool vector = strcmp(op->args[i].shape, "hidden") == 0;
        *hm_arg_tensor(op, &c->args, i) = hm_tensor_of(c->memory + SLOT * i, HM_BF16, vector ? 1 : 2,
                                                       vector ? (int64_t[]){HIDDEN} : (int64_t[]){ROWS, HIDDEN});
    }
    c->args.size = op->args_size;
}

static hm_status check(call *c) { return c->op->check(&c->args); }

/* check, run and ref all refuse with the same status and a sentence that holds the words; nothing is written. */
static void refused(call *c, hm_status status, const char *word, const char *value, const char *what) {
    hm_op_fn *entry[] = {c->op->check, c->op->run, c->op->ref};
    for (int i = 0; i < 3; i++) {
        hm_status got = entry[i](&c->args);
        cr_assert_eq(got, status, "%s, %s: %s, not %s (%s)", c->op->name, what, hm_status_name(got),
                     hm_status_name(status), hm_error());
        cr_assert(strncmp(hm_error(), c->op->name, strlen(c->op->name)) == 0, "no op in: %s", hm_error());
        cr_assert(strstr(hm_error(), word), "%s: no '%s' in: %s", what, word, hm_error());
        cr_assert(strstr(hm_error(), value), "%s: no '%s' in: %s", what, value, hm_error());
    }
    cr_assert(memcmp(c->memory, canary, sizeof canary) == 0, "%s: bytes were written", what);
}

static void accepted(call *c, const char *what) {
    hm_status got = check(c);
    cr_assert_eq(got, HM_OK, "%s, %s: %s", c->op->name, what, hm_error());
    cr_assert(memcmp(c->memory, canary, sizeof canary) == 0, "%s: check wrote", what);
}

/* The ops of the norm family: the others have their shapes, and so tests of their own. */
static const hm_op_info *norm_at(int i) { return strstr(hm_op_at(i)->name, "rms_norm") ? hm_op_at(i) : NULL; }
#define EACH_OP(op)                                        \
    for (int op##_i = 0; op##_i < hm_op_count(); op##_i++) \
        for (const hm_op_info *op = norm_at(op##_i); op; op = NULL)

Test(op, every_descriptor_error) {
    call c;
    EACH_OP(op) for (int i = 0; i < op->nargs; i++) {
        const char *name = op->args[i].name;
        hm_tensor *t;
#define BREAK(statement, status, word, value)   \
    do {                                        \
        legal_call(&c, op);                     \
        t = hm_arg_tensor(op, &c.args, i);      \
        statement;                              \
        refused(&c, status, word, value, name); \
    } while (0)
        if (op->args[i].optional) {
            legal_call(&c, op);
            memset(hm_arg_tensor(op, &c.args, i), 0, sizeof(hm_tensor));
            accepted(&c, name);
        } else BREAK(memset(t, 0, sizeof *t), HM_BAD_ARG, name, "absent");
        BREAK(t->data = NULL, HM_BAD_ARG, name, "NULL");
        BREAK(t->ndim = 0, HM_BAD_SHAPE, name, "0");
        BREAK(t->ndim = 5, HM_BAD_SHAPE, name, "5");
        BREAK(t->ndim = -1, HM_BAD_SHAPE, name, "-1");
        BREAK(t->shape[0] = -7, HM_BAD_SHAPE, name, "-7");
        BREAK(t->shape[t->ndim - 1] = -9, HM_BAD_SHAPE, name, "-9");
        BREAK(t->dtype = (hm_dtype)99, HM_BAD_DTYPE, name, "99");
        BREAK(t->dtype = (hm_dtype)-1, HM_BAD_DTYPE, name, "-1");
        BREAK(t->dtype = HM_I32, HM_BAD_DTYPE, name, "i32");
        BREAK(t->place = (hm_place)9, HM_BAD_PLACE, name, "9");
        /* whichever of the two is named, the other place is, too */
        BREAK(t->place = HM_CUDA, HM_BAD_PLACE, "cuda", "host");
        BREAK((t->ndim = 4, t->shape[0] = t->shape[1] = t->shape[2] = INT64_C(1) << 30), HM_BAD_SHAPE, name, "2^63");
        BREAK((t->shape[0] = 3, t->stride[0] = INT64_MAX / 2), HM_BAD_STRIDE, name, "2^63");
        BREAK((t->shape[0] = 3, t->stride[0] = INT64_MIN), HM_BAD_STRIDE, name, "2^63");
        /* a shape of its own: x is the measure, so breaking x is seen in another argument */
        if (strcmp(name, "x")) {
            BREAK(t->shape[t->ndim - 1] = 7, HM_BAD_SHAPE, name, "7");
            BREAK((t->ndim = 3, t->shape[2] = t->stride[2] = 1), HM_BAD_SHAPE, name, "3");
            if (strcmp(op->args[i].shape, "hidden")) BREAK(t->shape[0] = 2, HM_BAD_SHAPE, name, "[2,8]");
        } else BREAK(t->shape[t->ndim - 1] = 7, HM_BAD_SHAPE, "8", "7");
        if (op->args[i].direction != HM_IN) {
            BREAK(t->stride[0] = 0, HM_BAD_STRIDE, name, "0");
            BREAK(t->stride[0] = -8, HM_BAD_STRIDE, name, "-8");
            BREAK(t->stride[1] = 0, HM_BAD_STRIDE, name, "0");
            BREAK(t->stride[1] = -1, HM_BAD_STRIDE, name, "-1");
            BREAK(t->stride[0] = 7, HM_BAD_STRIDE, name, "7");
        }
    }
#undef BREAK
}

/* Extents that agree with each other, and are impossible. */
Test(op, negative_extent_everywhere) {
    call c;
    EACH_OP(op) for (int64_t extent = -1; extent > -20; extent -= 6) {
        legal_call(&c, op);
        for (int i = 0; i < op->nargs; i++)
            if (strcmp(op->args[i].shape, "hidden")) hm_arg_tensor(op, &c.args, i)->shape[0] = extent;
        char text[16];
        snprintf(text, sizeof text, "%d", (int)extent);
        refused(&c, HM_BAD_SHAPE, "extent", text, "negative rows");
    }
}

Test(op, every_parameter_error) {
    static const struct {
        double eps;
        const char *text;
        bool fine;
    } eps[] = {{0, "", true},
               {-0.0, "", true},
               {1e-6, "", true},
               {1e-60, "", true},
               {3.4e38, "", true},
               {-1, "-1", false},
               {-1e-60, "-1e-60", false},
               {NAN, "nan", false},
               {INFINITY, "inf", false},
               {-INFINITY, "-inf", false},
               {1e39, "1e+39", false},
               {1.7e308, "1.7e+308", false}};
    static const struct {
        int64_t v;
        const char *text;
        bool fine;
    } size[] = {{0, "", true},
                {1, "", true},
                {HIDDEN, "", true},
                {HIDDEN + 1, "9", false},
                {-1, "-1", false},
                {INT64_MIN, "-9223372036854775808", false},
                {INT64_MAX, "9223372036854775807", false}};
    call c;
    EACH_OP(op) for (int p = 0; p < op->nparams; p++) {
        const hm_param_info *param = &op->params[p];
        if (param->type == HM_PARAM_MODE) {
            int n = 0;
            while (param->values[n]) n++;
            for (int v = -2; v < n + 3; v++) {
                legal_call(&c, op);
                *(int *)((char *)&c.args + param->offset) = v;
                char text[16];
                snprintf(text, sizeof text, "%d", v);
                if (v < 0 || v >= n) refused(&c, HM_BAD_PARAM, param->name, text, param->name);
                else accepted(&c, param->name);
            }
        } else if (param->type == HM_PARAM_F64) {
            cr_assert_str_eq(param->name, "eps");
            for (size_t i = 0; i < sizeof eps / sizeof *eps; i++) {
                legal_call(&c, op);
                *(double *)((char *)&c.args + param->offset) = eps[i].eps;
                if (eps[i].fine) accepted(&c, param->name);
                else refused(&c, HM_BAD_PARAM, param->name, eps[i].text, param->name);
            }
        } else {
            cr_assert_str_eq(param->name, "variance_size");
            for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
                legal_call(&c, op);
                *(int64_t *)((char *)&c.args + param->offset) = size[i].v;
                if (size[i].fine) accepted(&c, param->name);
                else refused(&c, HM_BAD_PARAM, param->name, size[i].text, param->name);
            }
        }
    }
    EACH_OP(op) {
        legal_call(&c, op);
        for (int p = 0; p < op->nparams; p++)
            if (!strcmp(op->params[p].name, "round") || !strcmp(op->params[p].name, "weight_form"))
                *(int *)((char *)&c.args + op->params[p].offset) = 1;
        refused(&c, HM_BAD_PARAM, "round", "norm_first", "norm_first with one_plus");
        cr_assert(strstr(hm_error(), "one_plus"));
    }
}

/* ---- dtypes: each combination of all dtype values, against the header's words
 * --------------------------------------------- */

enum { DTYPE_VALUES = HM_I64 + 1 };

static bool is_real(int d) { return d == HM_F32 || d == HM_F16 || d == HM_BF16; }

/* "f32, or T; for T = f32 also f16 and bf16; absent means no multiply" */
static bool weight_legal(int x, int w) {
    return w == HM_DTYPE_NONE || w == HM_F32 || w == x || (x == HM_F32 && is_real(w));
}

static hm_dtype combination(int n) { return (hm_dtype)(n % DTYPE_VALUES); }

Test(op, every_dtype_combination) {
    call c;
    EACH_OP(op) {
        bool fused = !strcmp(op->name, "fused_add_rms_norm"), seen[HM_MAX_ARGS][DTYPE_VALUES] = {{false}};
        int total = fused ? 2 : 1, legal = 0;
        for (int i = 0; i < op->nargs; i++) total *= DTYPE_VALUES;
        legal_call(&c, op);
        hm_tensor *x = tensor(&c, "x"), *weight = tensor(&c, "weight"), *out = tensor(&c, "out");
        hm_tensor *residual = fused ? tensor(&c, "residual") : NULL,
                  *residual_out = fused ? tensor(&c, "residual_out") : NULL;
        for (int n = 0; n < total; n++) {
            int rest = n;
            for (int i = 0; i < op->nargs; i++, rest /= DTYPE_VALUES)
                hm_arg_tensor(op, &c.args, i)->dtype = combination(rest);
            if (fused) c.args.fused.residual_dtype = (hm_residual_dtype)rest;
            bool fine = is_real(x->dtype) && weight_legal(x->dtype, weight->dtype) && out->dtype == x->dtype;
            if (fused) {
                bool wide = rest && x->dtype == HM_F16;
                fine = fine && (residual->dtype == x->dtype || (wide && residual->dtype == HM_F32)) &&
                       residual_out->dtype == (wide ? HM_F32 : x->dtype);
            }
            hm_status got = check(&c);
            cr_assert_eq(got == HM_OK, fine, "%s: x %s, weight %s, out %s, residual %s, residual_out %s, mode %d: %s",
                         op->name, hm_dtype_name(x->dtype), hm_dtype_name(weight->dtype), hm_dtype_name(out->dtype),
                         fused ? hm_dtype_name(residual->dtype) : "-", fused ? hm_dtype_name(residual_out->dtype) : "-",
                         rest, hm_status_name(got));
            bool absent = false;
            for (int i = 0; i < op->nargs; i++)
                absent |= !op->args[i].optional && hm_arg_tensor(op, &c.args, i)->dtype == HM_DTYPE_NONE;
            if (!fine) cr_assert(got == HM_BAD_DTYPE || (absent && got == HM_BAD_ARG), "%s", hm_status_name(got));
            for (int i = 0; fine && i < op->nargs; i++) seen[i][hm_arg_tensor(op, &c.args, i)->dtype] = true;
            legal += fine;
        }
        /* x and weight 10; with residuals twice as many modes, and f16 (3 of the 10) has two dtypes of residual in the
         * second */
        cr_assert_eq(legal, fused ? 10 + 7 + 3 * 2 : 10);
        /* the table says the same set: each name in `dtypes` was legal in some call, and no other */
        for (int i = 0; i < op->nargs; i++)
            for (int d = 0; d < DTYPE_VALUES; d++) {
                char list[64], *rest = NULL;
                bool listed = d == HM_DTYPE_NONE && op->args[i].optional;
                snprintf(list, sizeof list, "%s", op->args[i].dtypes);
                for (char *word = strtok_r(list, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
                    if (word[0] != '=') cr_assert(hm_dtype_named(word) != HM_DTYPE_NONE, "%s", word);
                    listed |= word[0] == '=' ? is_real(d) : hm_dtype_named(word) == (hm_dtype)d && d;
                }
                cr_assert_eq(seen[i][d], listed, "%s: %s in %s", op->name, op->args[i].name,
                             hm_dtype_name((hm_dtype)d));
            }
    }
}

/* The sentence says which argument has the dtype that does not fit, and what it has to be. */
Test(op, dtype_sentences) {
    static const struct {
        const char *op, *arg, *expected;
        hm_dtype dtype;
    } rows[] = {
        {"rms_norm", "x", "x is u8", HM_U8},
        {"rms_norm", "weight", "weight is f16", HM_F16},
        {"rms_norm", "out", "out is f32", HM_F32},
        {"fused_add_rms_norm", "x", "x is f8e4m3", HM_F8E4M3},
        {"fused_add_rms_norm", "residual", "residual is f32", HM_F32},
        {"fused_add_rms_norm", "residual_out", "residual_out is f32", HM_F32},
        {"fused_add_rms_norm", "weight", "weight is i64", HM_I64},
        {"fused_add_rms_norm", "out", "out is f16", HM_F16},
    };
    call c;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        legal_call(&c, hm_op_named(rows[i].op));
        tensor(&c, rows[i].arg)->dtype = rows[i].dtype;
        refused(&c, HM_BAD_DTYPE, rows[i].expected, rows[i].arg[0] == 'x' ? "f32, f16 or bf16" : "bf16", rows[i].arg);
    }
    legal_call(&c, hm_op_named("fused_add_rms_norm"));
    for (int i = 0; i < c.op->nargs; i++) hm_arg_tensor(c.op, &c.args, i)->dtype = HM_F16;
    c.args.fused.residual_dtype = HM_RESIDUAL_F32_FOR_F16;
    refused(&c, HM_BAD_DTYPE, "residual_out is f16", "f32", "f32 residual of f16");
}

/* ---- the size field
 * ------------------------------------------------------------------------------------------------------- */

Test(op, size_of_the_struct) {
    call c;
    EACH_OP(op) {
        cr_assert_eq(op->check(NULL), HM_BAD_ARG);
        cr_assert(strstr(hm_error(), "args") && strstr(hm_error(), op->name));
        cr_assert_eq(op->ref(NULL), HM_BAD_ARG);
        cr_assert_eq(op->run(NULL), HM_BAD_ARG);
        legal_call(&c, op);
        c.args.size = 0;
        refused(&c, HM_BAD_ARG, "size", "0", "size 0");
        c.args.size = 7;
        refused(&c, HM_BAD_ARG, "size", "7", "size 7");
        c.args.size = (size_t)-1;
        refused(&c, HM_BAD_ARG, "size", "18446744073709551615", "huge size");
        /* an older caller: without the last field, then with nothing behind eps; what it lacks is zero, whatever lies
         * there */
        size_t eps = 0;
        for (int p = 0; p < op->nparams; p++)
            if (op->params[p].type == HM_PARAM_F64) eps = op->params[p].offset + sizeof(double);
        for (size_t size = op->args_size - sizeof(void *); size >= eps; size -= sizeof(int32_t)) {
            legal_call(&c, op);
            memset((char *)&c.args + size, 0xEE, op->args_size - size); /* as modes these bytes would be refused */
            c.args.size = size;
            accepted(&c, "shorter struct");
        }
        c.args.size = op->args_size;
        cr_assert_eq(check(&c), HM_BAD_PARAM, "the bytes behind do matter once they are counted");
        /* a newer caller: 16 bytes that this library does not know */
        union {
            call_args args;
            unsigned char bytes[sizeof(call_args) + 64];
        } longer;
        legal_call(&c, op);
        memset(&longer, 0, sizeof longer);
        memcpy(&longer, &c.args, op->args_size);
        longer.args.size = op->args_size + 16;
        cr_assert_eq(op->check(&longer), HM_OK, "%s", hm_error());
        for (size_t i = 0; i < 16; i++) {
            longer.bytes[op->args_size + i] = 1;
            cr_assert_eq(op->check(&longer), HM_BAD_ARG);
            cr_assert(strstr(hm_error(), "size"));
            cr_assert_eq(op->ref(&longer), HM_BAD_ARG);
            longer.bytes[op->args_size + i] = 0;
        }
        longer.bytes[op->args_size + 16] = 1; /* beyond what it says */
        cr_assert_eq(op->check(&longer), HM_OK);
    }
}

/* HM_ARGS fills size and leaves the rest zero: modes at their defaults. */
Test(op, args_macro) {
    unsigned char memory[256] = {0};
    hm_tensor t = hm_tensor_of(memory, HM_F32, 1, (int64_t[]){4}),
              y = hm_tensor_of(memory + 128, HM_F32, 1, (int64_t[]){4});
    cr_assert_eq(hm_rms_norm_check(HM_ARGS(rms_norm, .out = y, .x = t, .eps = 1e-6)), HM_OK);
    cr_assert_eq(HM_ARGS(rms_norm, .x = t)->size, sizeof(hm_rms_norm_args));
    cr_assert_eq(hm_rms_norm_check(HM_ARGS(rms_norm, .out = y)), HM_BAD_ARG);
    cr_assert(strstr(hm_error(), "x"));
}

/* ---- overlap
 * -------------------------------------------------------------------------------------------------------------- */

/* Moves argument `name` to element `shift` of `onto`, with the same shape and strides. */
static void lay(call *c, const char *name, const char *onto, int64_t shift) {
    hm_tensor *t = tensor(c, name), *o = tensor(c, onto);
    memcpy(t->shape, o->shape, sizeof t->shape);
    memcpy(t->stride, o->stride, sizeof t->stride);
    t->ndim = o->ndim;
    t->data = (unsigned char *)o->data + shift * (int64_t)hm_dtype_size(o->dtype);
}

Test(op, overlap) {
    call c;
    EACH_OP(op) for (int i = 0; i < op->nargs; i++) for (int j = 0; j < op->nargs; j++) {
        const hm_arg_info *out = &op->args[i], *other = &op->args[j];
        if (i == j || out->direction == HM_IN) continue;
        bool vector = strcmp(other->shape, "hidden") == 0;
        /* the same view: only where the table says so */
        if (!vector) {
            legal_call(&c, op);
            lay(&c, out->name, other->name, 0);
            if (out->in_place && !strcmp(out->in_place, other->name)) accepted(&c, "in place");
            else refused(&c, HM_BAD_ALIAS, out->name, other->name, "same view");
        }
        /* shifted by one element, by a row, or touching the last element only */
        static const int64_t shifts[] = {1, HIDDEN, ROWS * HIDDEN - 1, -1, -(ROWS * HIDDEN - 1)};
        for (size_t s = 0; s < sizeof shifts / sizeof *shifts; s++) {
            legal_call(&c, op);
            if (vector)
                tensor(&c, other->name)->data =
                    (unsigned char *)tensor(&c, out->name)->data + 2 * (shifts[s] > 0 ? shifts[s] : 0);
            else lay(&c, out->name, other->name, shifts[s]);
            refused(&c, HM_BAD_ALIAS, out->name, other->name, "shifted");
        }
        /* side by side is fine */
        if (!vector)
            for (int s = -1; s < 2; s += 2) {
                legal_call(&c, op);
                lay(&c, out->name, other->name, s * ROWS * HIDDEN);
                if (s > 0 || j > 0) { /* before the first slot lies nothing of ours */
                    accepted(&c, "adjacent");
                }
            }
        /* the same data with other strides, and in another order, is not the same view */
        if (!vector) {
            legal_call(&c, op);
            lay(&c, out->name, other->name, 0);
            tensor(&c, out->name)->stride[0] = HIDDEN + 1;
            refused(&c, HM_BAD_ALIAS, out->name, other->name, "other strides");
            for (int64_t stride = -HIDDEN; other->direction == HM_IN && stride < 1; stride += HIDDEN) {
                legal_call(&c, op);
                lay(&c, out->name, other->name, 0);
                tensor(&c, other->name)->stride[0] = stride;
                refused(&c, HM_BAD_ALIAS, out->name, other->name, stride ? "upside down" : "one row read by all");
            }
        }
    }
}

/* Slices of one fused buffer: rows of 2n elements, the input in columns 0..n, the output in columns n..2n, and the
 * reverse. */
Test(op, slices_of_one_buffer) {
    call c;
    EACH_OP(op) for (int reverse = 0; reverse < 2; reverse++) for (int64_t gap = 0; gap < 3; gap++) {
        legal_call(&c, op);
        hm_tensor *x = tensor(&c, "x"), *out = tensor(&c, "out");
        lay(&c, "out", "x", HIDDEN + gap);
        x->stride[0] = out->stride[0] = 2 * HIDDEN + gap;
        if (reverse) {
            void *data = x->data;
            x->data = out->data, out->data = data;
        }
        accepted(&c, "slices");
        x->stride[0] = out->stride[0] = 2 * HIDDEN - 1; /* the last column of one is the first of the next row */
        if (gap == 0) refused(&c, HM_BAD_ALIAS, "out", "x", "slices that meet");
        x->stride[0] = out->stride[0] = 2 * HIDDEN + gap;
        out->data = (unsigned char *)out->data + 2 * (reverse ? 1 + gap : -1 - gap);
        refused(&c, HM_BAD_ALIAS, "out", "x", "slices that share a column");
    }
}

/* Another dtype at the same address is not the same view: f16 residual, f32 residual_out. */
Test(op, same_bytes_other_dtype) {
    call c;
    legal_call(&c, hm_op_named("fused_add_rms_norm"));
    for (int i = 0; i < c.op->nargs; i++) hm_arg_tensor(c.op, &c.args, i)->dtype = HM_F16;
    c.args.fused.residual_dtype = HM_RESIDUAL_F32_FOR_F16;
    tensor(&c, "residual_out")->dtype = HM_F32;
    accepted(&c, "f32 residual_out");
    lay(&c, "residual_out", "residual", 0);
    refused(&c, HM_BAD_ALIAS, "residual_out", "residual", "other dtype");
    tensor(&c, "residual")->dtype = HM_F32;
    accepted(&c, "f32 in place");
}

/* ---- shapes and strides that are legal
 * ------------------------------------------------------------------------------------- */

Test(op, ranks_and_empty) {
    static const int64_t shapes[][4] = {{HIDDEN, 1, 1, 1}, {2, HIDDEN, 1, 1}, {2, 2, HIDDEN, 1}, {2, 1, 2, HIDDEN}};
    call c;
    EACH_OP(op) for (int ndim = 1; ndim <= 4; ndim++) for (int empty = -1; empty < ndim; empty++) {
        int64_t shape[4];
        memcpy(shape, shapes[ndim - 1], sizeof shape);
        if (empty >= 0) shape[empty] = 0;
        legal_call(&c, op);
        for (int i = 0; i < op->nargs; i++) {
            bool vector = strcmp(op->args[i].shape, "hidden") == 0;
            *hm_arg_tensor(op, &c.args, i) =
                hm_tensor_of(c.memory + SLOT * i, HM_BF16, vector ? 1 : ndim, vector ? &shape[ndim - 1] : shape);
        }
        accepted(&c, "rank");
        if (empty < 0) continue;
        /* no element: no data needed, strides do not matter, nothing is written */
        for (int i = 0; i < op->nargs; i++) {
            hm_tensor *t = hm_arg_tensor(op, &c.args, i);
            if (op->args[i].direction != HM_IN) t->stride[0] = 0;
            if (hm_tensor_elements(t) == 0) t->data = NULL;
        }
        accepted(&c, "empty");
        cr_assert_eq(op->run(&c.args), HM_OK, "%s", hm_error());
        cr_assert_eq(op->ref(&c.args), HM_OK, "%s", hm_error());
        cr_assert(memcmp(c.memory, canary, sizeof canary) == 0);
    }
}

Test(op, input_strides_of_any_sign) {
    static const int64_t strides[][2] = {{0, 1}, {8, 0}, {0, 0}, {-8, 1}, {8, -1}, {-8, -1}, {1, 3}, {3, 1}, {100, 7}};
    call c;
    EACH_OP(op) for (int i = 0; i < op->nargs; i++) for (size_t s = 0; s < sizeof strides / sizeof *strides; s++) {
        if (op->args[i].direction != HM_IN) continue;
        legal_call(&c, op);
        hm_tensor *t = hm_arg_tensor(op, &c.args, i);
        t->data = c.memory + SLOT * (SLOTS - 1) - SLOT; /* room on both sides */
        t->stride[0] = strides[s][0];
        t->stride[1] = strides[s][1];
        if (t->ndim == 1) t->stride[0] = strides[s][1];
        accepted(&c, "strides");
    }
    /* outputs: padded rows, a transposed view, and a step between elements are all distinct */
    static const int64_t fine[][2] = {{8, 1}, {9, 1}, {100, 1}, {1, 3}, {1, 20}, {16, 2}, {24, 3}};
    EACH_OP(op) for (int i = 0; i < op->nargs; i++) for (size_t s = 0; s < sizeof fine / sizeof *fine; s++) {
        if (op->args[i].direction == HM_IN) continue;
        legal_call(&c, op);
        hm_arg_tensor(op, &c.args, i)->stride[0] = fine[s][0];
        hm_arg_tensor(op, &c.args, i)->stride[1] = fine[s][1];
        accepted(&c, "output strides");
    }
}

Test(op, device_tensors) {
    call c;
    EACH_OP(op) {
        legal_call(&c, op);
        for (int i = 0; i < op->nargs; i++) hm_arg_tensor(op, &c.args, i)->place = HM_CUDA;
        accepted(&c, "all on the device"); /* legal: whether it can be run is not the check's business */
        if (!op->cuda) {
            hm_status got = op->run(&c.args);
            cr_assert(got == HM_UNSUPPORTED || got == HM_NO_DEVICE, "%s", hm_status_name(got));
            cr_assert(strstr(hm_error(), "CUDA"));
            cr_assert_eq(op->ref(&c.args), HM_UNSUPPORTED, "ref must not read device memory");
            cr_assert(memcmp(c.memory, canary, sizeof canary) == 0);
        }
        if (op->cuda && !hm_cuda_devices()) { /* where there is one, this memory would not do */
            cr_assert_eq(op->run(&c.args), HM_NO_DEVICE, "%s", hm_error());
            cr_assert(strstr(hm_error(), "CUDA"));
            cr_assert_eq(op->cuda(&c.args), HM_NO_DEVICE);
            cr_assert(memcmp(c.memory, canary, sizeof canary) == 0);
        }
        if (op->cuda) {
            legal_call(&c, op);
            cr_assert_eq(op->cuda(&c.args), HM_UNSUPPORTED, "cuda must not read host memory");
            cr_assert_eq(op->cuda(NULL), HM_BAD_ARG);
        }
        /* an absent tensor has no place */
        legal_call(&c, op);
        memset(tensor(&c, "weight"), 0, sizeof(hm_tensor));
        tensor(&c, "weight")->place = HM_CUDA;
        accepted(&c, "absent weight elsewhere");
    }
}

/* ---- sentences and names
 * --------------------------------------------------------------------------------------------------- */

static void *fail_elsewhere(void *before) {
    snprintf(before, 64, "%s", hm_error());
    hm_rms_norm_check(NULL);
    return strstr(hm_error(), "NULL") ? "named" : "not named";
}

Test(op, one_error_sentence_a_thread) {
    cr_assert_str_eq(hm_error(), "", "nothing has failed yet");
    call c;
    legal_call(&c, hm_op_at(0));
    c.args.rms_norm.eps = -3;
    cr_assert_eq(check(&c), HM_BAD_PARAM);
    char mine[512], theirs[64];
    snprintf(mine, sizeof mine, "%s", hm_error());
    pthread_t thread;
    void *result;
    cr_assert_eq(pthread_create(&thread, NULL, fail_elsewhere, theirs), 0);
    pthread_join(thread, &result);
    cr_assert_str_eq(theirs, "", "a new thread has had no failure");
    cr_assert_str_eq((char *)result, "named");
    cr_assert_str_eq(hm_error(), mine, "the other thread's failure is not mine");
    c.args.rms_norm.eps = 0;
    cr_assert_eq(check(&c), HM_OK);
    cr_assert_str_eq(hm_error(), mine, "success leaves the last failure");
}

Test(op, status_and_dtype_names) {
    static const struct {
        hm_status status;
        const char *name;
    } statuses[] = {{HM_OK, "ok"},
                    {HM_BAD_ARG, "bad_arg"},
                    {HM_BAD_SHAPE, "bad_shape"},
                    {HM_BAD_STRIDE, "bad_stride"},
                    {HM_BAD_DTYPE, "bad_dtype"},
                    {HM_BAD_PLACE, "bad_place"},
                    {HM_BAD_ALIAS, "bad_alias"},
                    {HM_BAD_PARAM, "bad_param"},
                    {HM_BAD_VALUE, "bad_value"},
                    {HM_UNSUPPORTED, "unsupported"},
                    {HM_NO_DEVICE, "no_device"},
                    {HM_NO_MEMORY, "no_memory"},
                    {HM_INTERNAL, "internal"}};
    cr_assert_eq(sizeof statuses / sizeof *statuses, HM_STATUS_COUNT);
    for (int i = 0; i < HM_STATUS_COUNT; i++) {
        cr_assert_eq((int)statuses[i].status, i, "enum values are part of the ABI");
        cr_assert_str_eq(hm_status_name(statuses[i].status), statuses[i].name);
        cr_assert(strlen(hm_status_meaning(statuses[i].status)) > 3);
    }
    cr_assert_str_eq(hm_status_name(HM_STATUS_COUNT), "?");
    cr_assert_str_eq(hm_status_meaning((hm_status)-1), "?");

    static const struct {
        hm_dtype dtype;
        const char *name;
        size_t size;
    } dtypes[] = {{HM_DTYPE_NONE, "none", 0}, {HM_F32, "f32", 4},       {HM_F16, "f16", 2},
                  {HM_BF16, "bf16", 2},       {HM_F8E4M3, "f8e4m3", 1}, {HM_F8E4M3FNUZ, "f8e4m3fnuz", 1},
                  {HM_F8E5M2, "f8e5m2", 1},   {HM_E8M0, "e8m0", 1},     {HM_U8, "u8", 1},
                  {HM_I32, "i32", 4},         {HM_I64, "i64", 8}};
    for (int i = 0; i < (int)(sizeof dtypes / sizeof *dtypes); i++) {
        cr_assert_eq((int)dtypes[i].dtype, i, "enum values are part of the ABI");
        cr_assert_str_eq(hm_dtype_name(dtypes[i].dtype), dtypes[i].name);
        cr_assert_eq(hm_dtype_size(dtypes[i].dtype), dtypes[i].size);
        cr_assert_eq(hm_dtype_named(dtypes[i].name), dtypes[i].dtype);
    }
    cr_assert_str_eq(hm_dtype_name((hm_dtype)11), "?");
    cr_assert_str_eq(hm_dtype_name((hm_dtype)-1), "?");
    cr_assert_eq(hm_dtype_size((hm_dtype)11), 0);
    cr_assert_eq(hm_dtype_named("f64"), HM_DTYPE_NONE);
    cr_assert_eq(hm_dtype_named(""), HM_DTYPE_NONE);
    cr_assert_str_eq(hm_version(), HM_VERSION);
}

Test(op, tensors) {
    unsigned char byte;
    hm_tensor t = hm_tensor_of(&byte, HM_F16, 4, (int64_t[]){2, 3, 5, 7});
    static const int64_t strides[4] = {105, 35, 7, 1};
    cr_assert(memcmp(t.stride, strides, sizeof strides) == 0);
    cr_assert(t.data == &byte && t.dtype == HM_F16 && t.place == HM_HOST && t.ndim == 4);
    cr_assert_eq(hm_tensor_elements(&t), 210);
    t = hm_tensor_of(&byte, HM_F32, 2, (int64_t[]){0, 9});
    cr_assert_eq(hm_tensor_elements(&t), 0);
    cr_assert_eq(hm_tensor_elements(&(hm_tensor){.ndim = 1, .shape = {5}}), 0, "absent");
}

/* ---- the description table against the struct
 * ------------------------------------------------------------------------------ */

#define FIELD(op, kind, name) \
    { #op, #kind, #name, offsetof(hm_##op##_args, name), sizeof(((hm_##op##_args *)0)->name) }

Test(op, table_matches_the_struct) {
    static const struct {
        const char *op, *kind, *name;
        size_t offset, size;
    } fields[] = {
        FIELD(rms_norm, in, x),
        FIELD(rms_norm, in, weight),
        FIELD(rms_norm, out, out),
        FIELD(rms_norm, f64, eps),
        FIELD(rms_norm, mode, round),
        FIELD(rms_norm, mode, weight_form),
        FIELD(rms_norm, i64, variance_size),
        FIELD(fused_add_rms_norm, in, x),
        FIELD(fused_add_rms_norm, in, residual),
        FIELD(fused_add_rms_norm, in, weight),
        FIELD(fused_add_rms_norm, out, residual_out),
        FIELD(fused_add_rms_norm, out, out),
        FIELD(fused_add_rms_norm, f64, eps),
        FIELD(fused_add_rms_norm, mode, round),
        FIELD(fused_add_rms_norm, mode, weight_form),
        FIELD(fused_add_rms_norm, mode, residual_read),
        FIELD(fused_add_rms_norm, mode, residual_dtype),
        FIELD(fused_add_rms_norm, i64, variance_size),
    };
    int n = sizeof fields / sizeof *fields, found = 0, rows = 0;
    EACH_OP(op) {
        cr_assert(hm_op_named(op->name) == op);
        cr_assert_eq(op->contract, 1);
        cr_assert(op->check && op->run && op->ref && op->about[0]);
        cr_assert_str_eq(op->classes, "wide chain64 chain512 any");
        cr_assert_str_eq(op->class_required, "chain64");
        rows += op->nargs + op->nparams;
        cr_assert(op->nargs <= HM_MAX_ARGS && op->nparams <= HM_MAX_PARAMS);
        for (int i = 0; i < n; i++) {
            if (strcmp(fields[i].op, op->name)) continue;
            cr_assert(fields[i].offset + fields[i].size <= op->args_size);
            for (int a = 0; a < op->nargs; a++)
                if (!strcmp(op->args[a].name, fields[i].name)) {
                    cr_assert_eq(op->args[a].offset, fields[i].offset, "%s", fields[i].name);
                    cr_assert_eq(fields[i].size, sizeof(hm_tensor));
                    cr_assert_str_eq(op->args[a].direction == HM_IN ? "in" : "out", fields[i].kind);
                    cr_assert(op->args[a].about[0]);
                    cr_assert_eq(op->args[a].optional, !strcmp(fields[i].name, "weight"));
                    found++;
                }
            for (int p = 0; p < op->nparams; p++)
                if (!strcmp(op->params[p].name, fields[i].name)) {
                    static const char *const kinds[] = {"f64", "i64", "mode"};
                    cr_assert_eq(op->params[p].offset, fields[i].offset, "%s", fields[i].name);
                    cr_assert_str_eq(kinds[op->params[p].type], fields[i].kind);
                    cr_assert_eq(op->params[p].values != NULL, op->params[p].type == HM_PARAM_MODE);
                    cr_assert(op->params[p].about[0]);
                    found++;
                }
        }
    }
    cr_assert_eq(found, n, "a field is not in the table");
    cr_assert_eq(rows, n, "a row of the table is in no struct that we know");
    cr_assert_eq(hm_op_named("rms_norm")->args_size, sizeof(hm_rms_norm_args));
    cr_assert_eq(hm_op_named("fused_add_rms_norm")->args_size, sizeof(hm_fused_add_rms_norm_args));
    cr_assert_null(hm_op_named("rms_nor"));
    cr_assert_null(hm_op_named(""));
    cr_assert_null(hm_op_at(-1));
    cr_assert_null(hm_op_at(hm_op_count()));

    static const struct {
        const char *param, *first, *second;
        int one;
    } modes[] = {{"round", "once", "norm_first", HM_ROUND_NORM_FIRST},
                 {"weight_form", "plain", "one_plus", HM_WEIGHT_ONE_PLUS},
                 {"residual_read", "rounded", "unrounded", HM_READ_UNROUNDED},
                 {"residual_dtype", "same", "f32_for_f16", HM_RESIDUAL_F32_FOR_F16}};
    EACH_OP(op)
    for (int p = 0; p < op->nparams; p++)
        for (int m = 0; m < 4; m++)
            if (!strcmp(op->params[p].name, modes[m].param)) {
                cr_assert_str_eq(op->params[p].values[0], modes[m].first);
                cr_assert_str_eq(op->params[p].values[modes[m].one], modes[m].second);
                cr_assert_null(op->params[p].values[2]);
                cr_assert(op->params[p].fallback == 0, "zero is the documented default");
            }
}

/* ---- instruction sets
 * ------------------------------------------------------------------------------------------------------ */

Test(op, isa_names) {
    const char *best = hm_isa();
    cr_assert_eq(hm_isa_limit("sse9"), HM_BAD_PARAM);
    cr_assert(strstr(hm_error(), "sse9"));
    cr_assert_eq(hm_isa_limit(""), HM_BAD_PARAM);
    cr_assert_eq(hm_isa_limit(NULL), HM_BAD_PARAM);
    cr_assert_str_eq(hm_isa(), best, "a refused limit changes nothing");
#ifdef __x86_64__
    static const char *const known[] = {"avx512", "avx2", "sse2"}, *unknown = "base";
#else
    static const char *const known[] = {"base"}, *unknown = "sse2";
#endif
    int n = sizeof known / sizeof *known;
    for (int i = 0; i < n; i++) {
        hm_status got = hm_isa_limit(known[i]);
        cr_assert(got == HM_OK || (got == HM_UNSUPPORTED && i < n - 1), "the least is always there");
        cr_assert_eq(got == HM_OK, !strcmp(hm_isa(), known[i]), "%s after %s", hm_isa(), known[i]);
    }
    cr_assert_eq(hm_isa_limit(unknown), HM_BAD_PARAM);
    cr_assert_eq(hm_isa_limit(best), HM_OK, "a limit can be raised again");
    cr_assert_str_eq(hm_isa(), best);
}
