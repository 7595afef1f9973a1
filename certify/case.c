#include "case.h"

#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "case_print.h"
#include "generate.h"
#include "inputs.h"
#include "shape.h"

#define MAX_TOKENS 48

typedef struct {
    hm_case_spec *spec;
    char *key[MAX_TOKENS], *value[MAX_TOKENS];
    int tokens;
    hm_symbols symbols;       /* names of the symbolic dimensions met so far, and what they are bound to */
    bool shaped[HM_MAX_ARGS]; /* the argument stated its shape */
    char *why;
    size_t size;
} parser;

__attribute__((format(printf, 2, 3))) static hm_status refuse(const parser *p, const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(p->why, p->size, format, list);
    va_end(list);
    return HM_BAD_ARG;
}

/* "a, b, c" of the names that name(i) gives until it gives NULL. */
static const char *listed(char *text, size_t size, const char *(*name)(const void *, int), const void *of) {
    size_t at = 0;
    text[0] = 0;
    const char *s;
    for (int i = 0; (s = name(of, i)) && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%s", i ? ", " : "", s);
    return text;
}

static const char *name_of_op(const void *of, int i) { return (void)of, i < hm_op_count() ? hm_op_at(i)->name : NULL; }
static const char *name_of_generator(const void *of, int i) {
    return (void)of, i < hm_generator_count() ? hm_generator_at(i)->name : NULL;
}
static const char *name_of_status(const void *of, int i) {
    return (void)of, i < HM_STATUS_COUNT ? hm_status_name((hm_status)i) : NULL;
}
static const char *name_of_dtype(const void *of, int i) {
    return (void)of, i <= HM_I64 ? hm_dtype_name((hm_dtype)i) : NULL;
}
static const char *name_of_mode(const void *of, int i) { return ((const char *const *)of)[i]; }
static const char *name_of_arg(const void *of, int i) {
    const hm_op_info *op = of;
    return i < op->nargs ? op->args[i].name : NULL;
}
static const char *name_of_key(const void *of, int i) {
    static const char *const common[] = {"alias", "stride", "broken", "lengths", "batches",
                                         "gen",   "seed",   "expect", NULL};
    const hm_op_info *op = of;
    if (i < op->nargs) return op->args[i].name;
    if (i < op->nargs + op->nparams) return op->params[i - op->nargs].name;
    return common[i - op->nargs - op->nparams];
}

static int arg_named(const hm_op_info *op, const char *name) {
    for (int i = 0; i < op->nargs; i++)
        if (!strcmp(op->args[i].name, name)) return i;
    return -1;
}

/* The value of a key, or NULL if the line has none. */
static char *given(const parser *p, const char *key) {
    for (int i = 0; i < p->tokens; i++)
        if (!strcmp(p->key[i], key)) return p->value[i];
    return NULL;
}

static bool parse_int(const char *text, int64_t *to) {
    const char *digits = text + (*text == '-');
    if (!*digits || strspn(digits, "0123456789") != strlen(digits)) return false;
    errno = 0;
    *to = strtoll(text, NULL, 10);
    return errno == 0;
}

/* "1,2,3" into at most 4 integers; their count, or -1. */
static int parse_ints(char *text, int64_t *to) {
    int n = 0;
    for (char *next = text; next; n++) {
        char *item = strsep(&next, ",");
        if (n == 4 || !parse_int(item, &to[n])) return -1;
    }
    return n;
}

/* ---- tensor arguments -------------------------------------------------------------------------- */

static hm_status parse_arg(parser *p, int arg) {
    hm_case_spec *spec = p->spec;
    const hm_arg_info *info = &spec->op->args[arg];
    char *value = given(p, info->name), list[128];
    if (!value || !strcmp(value, "none")) return HM_OK;
    char *bracket = strchr(value, '[');
    if (bracket) *bracket++ = 0;
    spec->dtype[arg] = hm_dtype_named(value);
    if (spec->dtype[arg] == HM_DTYPE_NONE)
        return refuse(p, "%s=%s: \"%s\" is no dtype; legal are %s", info->name, value, value,
                      listed(list, sizeof list, name_of_dtype, NULL));
    if (!bracket) return HM_OK;
    size_t length = strlen(bracket);
    if (!length || bracket[length - 1] != ']')
        return refuse(p, "%s=%s[%s: the shape has to end in \"]\" and nothing may follow it", info->name, value,
                      bracket);
    bracket[length - 1] = 0;
    char copy[64];
    snprintf(copy, sizeof copy, "%s", bracket);
    spec->ndim[arg] = parse_ints(bracket, spec->shape[arg]);
    if (spec->ndim[arg] < 1)
        return refuse(p, "%s=%s[%s]: the shape has to be 1 to 4 integers of 64 bits, separated by commas", info->name,
                      value, copy);
    p->shaped[arg] = true;
    hm_symbols_bind(&p->symbols, info->shape, spec->ndim[arg], spec->shape[arg]);
    return HM_OK;
}

/* What the line leaves open: a required argument's dtype by the rule "=name", any argument's shape by the symbols. */
static hm_status complete_arg(parser *p, int arg) {
    hm_case_spec *spec = p->spec;
    const hm_arg_info *info = &spec->op->args[arg];
    if (!given(p, info->name)) {
        if (info->optional && (info->direction == HM_IN || info->dtypes[0] != '=')) return HM_OK;
        char like[64];
        snprintf(like, sizeof like, "%.*s", (int)strcspn(info->dtypes + 1, " "), info->dtypes + 1);
        int from = info->dtypes[0] == '=' ? arg_named(spec->op, like) : -1;
        if (from >= 0 && spec->dtype[from] == HM_DTYPE_NONE && info->optional)
            return HM_OK; /* an output that follows its input */
        if (from < 0 || spec->dtype[from] == HM_DTYPE_NONE)
            return refuse(p, "%s is missing; state it as %s=DTYPE[%s], with a dtype of: %s", info->name, info->name,
                          info->shape, info->dtypes);
        spec->dtype[arg] = spec->dtype[from];
    }
    if (spec->dtype[arg] == HM_DTYPE_NONE || p->shaped[arg]) return HM_OK;
    const char *unknown;
    size_t length;
    spec->ndim[arg] = hm_symbols_shape(&p->symbols, info->shape, spec->shape[arg], &unknown, &length);
    if (!spec->ndim[arg])
        return refuse(p, "%s has no shape and %.*s is not known; state it as %s=DTYPE[%s]", info->name, (int)length,
                      unknown, info->name, info->shape);
    return HM_OK;
}

/* ---- alias, stride, broken: lists "ARG:...;ARG:..." -------------------------------------------- */

static hm_status list_arg(const parser *p, const char *key, char *item, int *arg, char **rest) {
    char list[256];
    *rest = strchr(item, ':');
    if (!*rest) return refuse(p, "%s=%s: every item has to read ARG:WHAT", key, item);
    *(*rest)++ = 0;
    *arg = arg_named(p->spec->op, item);
    if (*arg < 0)
        return refuse(p, "%s=%s: \"%s\" is no argument of %s; legal are %s", key, item, item, p->spec->op->name,
                      listed(list, sizeof list, name_of_arg, p->spec->op));
    if (p->spec->dtype[*arg] == HM_DTYPE_NONE) return refuse(p, "%s=%s: %s is absent in this case", key, item, item);
    return HM_OK;
}

static hm_status parse_alias(const parser *p, char *item) {
    hm_case_spec *spec = p->spec;
    int out;
    char *rest, *sign;
    hm_status s = list_arg(p, "alias", item, &out, &rest);
    if (s) return s;
    if (spec->op->args[out].direction == HM_IN)
        return refuse(p, "alias=%s:%s: %s is an input; the first name has to be an output", item, rest, item);
    if (spec->alias[out] >= 0) return refuse(p, "alias: %s is given twice", item);
    if ((sign = strpbrk(rest, "+-"))) {
        int64_t offset;
        char direction = *sign;
        *sign++ = 0;
        if (!parse_int(sign, &offset) || *sign == '-' || offset == 0)
            return refuse(p, "alias=%s:%s%c%s: the offset has to be a positive integer of 64 bits", item, rest,
                          direction, sign);
        spec->alias_offset[out] = direction == '-' ? -offset : offset;
    }
    int in = arg_named(spec->op, rest);
    if (in < 0 || in == out || spec->dtype[in] == HM_DTYPE_NONE || spec->alias[in] >= 0)
        return refuse(p, "alias=%s:%s: \"%s\" has to be another argument that is present and lies on no other itself",
                      item, rest, rest);
    for (int i = 0; i < spec->op->nargs; i++)
        if (spec->alias[i] == out)
            return refuse(p, "alias=%s:%s: %s lies on %s already", item, rest, spec->op->args[i].name, item);
    spec->alias[out] = in;
    return HM_OK;
}

static hm_status parse_stride(const parser *p, char *item, bool *strided) {
    hm_case_spec *spec = p->spec;
    int arg;
    char *rest, copy[96];
    hm_status s = list_arg(p, "stride", item, &arg, &rest);
    if (s) return s;
    if (strided[arg]) return refuse(p, "stride: %s is given twice", item);
    strided[arg] = true;
    snprintf(copy, sizeof copy, "%s", rest);
    int n = parse_ints(rest, spec->stride[arg]);
    return n == spec->ndim[arg] ? HM_OK
                                : refuse(p, "stride=%s:%s: it has to be %d integers of 64 bits, separated by commas",
                                         item, copy, spec->ndim[arg]);
}

static hm_status parse_broken(const parser *p, char *item) {
    hm_case_spec *spec = p->spec;
    if (!strcmp(item, "args:null") || !strcmp(item, "args:size")) {
        if (spec->broken_args) return refuse(p, "broken: args is given twice");
        spec->broken_args = item[5] == 'n' ? HM_ARGS_NULL : HM_ARGS_SIZE;
        return HM_OK;
    }
    int arg;
    char *rest, list[96];
    hm_status s = list_arg(p, "broken", item, &arg, &rest);
    if (s) return s;
    if (spec->broken[arg]) return refuse(p, "broken: %s is given twice", item);
    for (int i = 1; hm_broken_names[i]; i++)
        if (!strcmp(rest, hm_broken_names[i])) spec->broken[arg] = i;
    return spec->broken[arg] ? HM_OK
                             : refuse(p, "broken=%s:%s: \"%s\" is not known; legal are %s, and args:null, args:size",
                                      item, rest, rest, listed(list, sizeof list, name_of_mode, hm_broken_names + 1));
}

static hm_status parse_lists(parser *p) {
    hm_case_spec *spec = p->spec;
    bool strided[HM_MAX_ARGS] = {false};
    hm_status s = HM_OK;
    char *alias = given(p, "alias"), *stride = given(p, "stride"), *broken = given(p, "broken");
    while (!s && alias) s = parse_alias(p, strsep(&alias, ";"));
    while (!s && stride) s = parse_stride(p, strsep(&stride, ";"), strided);
    while (!s && broken) s = parse_broken(p, strsep(&broken, ";"));
    if (s) return s;
    for (int pass = 0; pass < 2; pass++) /* an alias takes the strides of what it lies on, so that comes first */
        for (int i = 0; i < spec->op->nargs; i++)
            if ((spec->alias[i] >= 0) == pass && !strided[i]) hm_case_stride(spec, i, spec->stride[i]);
    return HM_OK;
}

/* ---- scalars, modes and the rest --------------------------------------------------------------- */

static hm_status parse_param(const parser *p, int param) {
    const hm_param_info *info = &p->spec->op->params[param];
    double *to = &p->spec->param[param];
    const char *value = given(p, info->name);
    char list[256], *end;
    int64_t integer;
    *to = info->fallback;
    if (!value) return HM_OK;
    switch (info->type) {
        case HM_PARAM_F64:
            *to = strtod(value, &end);
            if (!*value || *end || strspn(value, " \t\n") || strchr(value, '(') || !strncmp(value, "-nan", 4))
                return refuse(p, "%s=%s: it has to be a number (decimal, hexadecimal, inf or nan)", info->name, value);
            if (isnan(*to)) *to = NAN;
            return HM_OK;
        case HM_PARAM_I64:
            if (!parse_int(value, &integer) || integer > INT64_C(1) << 53 || integer < -(INT64_C(1) << 53))
                return refuse(p, "%s=%s: it has to be an integer of magnitude up to 2^53", info->name, value);
            *to = (double)integer;
            return HM_OK;
        case HM_PARAM_MODE:
            break;
    }
    int n = 0;
    for (; info->values[n]; n++)
        if (!strcmp(info->values[n], value)) return *to = n, HM_OK;
    /* A number that is no mode is how a case asks for the error that the contract promises. */
    if (parse_int(value, &integer) && (integer < 0 || integer >= n) && integer >= -1000 && integer <= 1000)
        return *to = (double)integer, HM_OK;
    return refuse(p, "%s=%s: \"%s\" is no value of %s; legal are %s", info->name, value, value, info->name,
                  listed(list, sizeof list, name_of_mode, info->values));
}

static hm_status parse_rest(const parser *p) {
    hm_case_spec *spec = p->spec;
    const char *batches = given(p, "batches"), *gen = given(p, "gen"), *seed = given(p, "seed"),
               *expect = given(p, "expect");
    char list[512];
    if (!gen) gen = "normal";
    if (!hm_generator_named(gen))
        return refuse(p, "gen=%s: \"%s\" is no generator; legal are %s", gen, gen,
                      listed(list, sizeof list, name_of_generator, NULL));
    snprintf(spec->generator, sizeof spec->generator, "%s", gen);
    spec->seed = 1;
    if (seed) {
        errno = 0;
        if (*seed) spec->seed = strtoull(seed, NULL, 10);
        if (!*seed || strspn(seed, "0123456789") != strlen(seed) || errno)
            return refuse(p, "seed=%s: it has to be an integer from 0 to 2^64 - 1", seed);
    }
    if (batches && strcmp(batches, "every")) return refuse(p, "batches=%s: it has to be every", batches);
    spec->every_batch = batches != NULL;
    const char *lengths = given(p, "lengths");
    const hm_inputs *inputs = hm_inputs_of(spec->op);
    if (lengths && strcmp(lengths, "whole") && strcmp(lengths, "causal"))
        return refuse(p, "lengths=%s: it has to be whole or causal", lengths);
    spec->lengths = !lengths ? HM_LENGTHS_MIXED : !strcmp(lengths, "causal") ? HM_LENGTHS_CAUSAL : HM_LENGTHS_WHOLE;
    if (spec->lengths && !(inputs && inputs->lengths >> spec->lengths & 1))
        return refuse(p, "lengths=%s: %s has no such lengths", lengths, spec->op->name);
    bool leading = false;
    for (int i = 0; i < spec->op->nargs; i++) leading |= !strncmp(spec->op->args[i].shape, "...", 3);
    if (batches && (!leading || expect))
        return refuse(p,
                      "batches=every is for calls that succeed, of ops with a batch (\"...\" in `hallmark list ops`)");
    if (!expect) return HM_OK;
    int i = 0;
    while (i < HM_STATUS_COUNT && strcmp(hm_status_name((hm_status)i), expect)) i++;
    if (i == HM_STATUS_COUNT)
        return refuse(p, "expect=%s: \"%s\" is no status; legal are %s", expect, expect,
                      listed(list, sizeof list, name_of_status, NULL));
    spec->expect = (hm_status)i;
    return HM_OK;
}

/* ---- the whole line ---------------------------------------------------------------------------- */

static hm_status split(parser *p, char *line) {
    char *save, list[512];
    char *op = strtok_r(line, " \t", &save);
    if (!op)
        return refuse(p, "a case starts with the name of an op; legal are %s",
                      listed(list, sizeof list, name_of_op, NULL));
    p->spec->op = hm_op_named(op);
    if (!p->spec->op)
        return refuse(p, "\"%s\" is no op; legal are %s", op, listed(list, sizeof list, name_of_op, NULL));
    for (char *token; (token = strtok_r(NULL, " \t", &save));) {
        char *value = strchr(token, '=');
        if (!value || value == token) return refuse(p, "\"%s\" has to read KEY=VALUE", token);
        *value++ = 0;
        const char *name;
        int i = 0;
        while ((name = name_of_key(p->spec->op, i)) && strcmp(name, token)) i++;
        if (!name)
            return refuse(p, "\"%s\" is no key of %s; legal are %s", token, p->spec->op->name,
                          listed(list, sizeof list, name_of_key, p->spec->op));
        if (given(p, token)) return refuse(p, "%s is given twice", token);
        if (p->tokens == MAX_TOKENS) return refuse(p, "the case has more than %d keys", MAX_TOKENS);
        p->key[p->tokens] = token;
        p->value[p->tokens++] = value;
    }
    return HM_OK;
}

static hm_status parse(parser *p, char *line) {
    hm_case_spec *spec = p->spec;
    hm_status s = split(p, line);
    if (s) return s;
    for (int i = 0; i < HM_MAX_ARGS; i++) spec->alias[i] = -1;
    for (int i = 0; i < spec->op->nargs; i++)
        if ((s = parse_arg(p, i))) return s;
    for (int i = 0; i < spec->op->nargs; i++)
        if ((s = complete_arg(p, i))) return s;
    for (int i = 0; i < spec->op->nparams; i++)
        if ((s = parse_param(p, i))) return s;
    if ((s = parse_lists(p))) return s;
    if ((s = parse_rest(p))) return s;
    return hm_case_print(spec)
               ? HM_OK
               : refuse(p, "the case, with its defaults spelled out, is longer than %d bytes", HM_CASE_MAX - 1);
}

hm_status hm_case_parse(const char *line, hm_case_spec *spec, char *why, size_t size) {
    static const char printable[] = "a case has to be one line of printable ASCII";
    parser p = {.spec = spec, .symbols.leading = -1, .why = why, .size = size};
    memset(spec, 0, sizeof *spec);
    size_t length = strnlen(line, HM_CASE_MAX);
    if (length == HM_CASE_MAX) return refuse(&p, "the case is longer than %d bytes", HM_CASE_MAX - 1);
    for (size_t i = 0; i < length; i++)
        if ((line[i] < ' ' || line[i] > '~') && line[i] != '\t')
            return refuse(&p, "byte %zu of the case is 0x%02x; %s", i, (unsigned char)line[i], printable);
    char copy[HM_CASE_MAX];
    memcpy(copy, line, length + 1);
    /* Numbers have a point in them whatever the caller's locale says. */
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0), before = c ? uselocale(c) : (locale_t)0;
    hm_status s = parse(&p, copy);
    if (c) {
        uselocale(before);
        freelocale(c);
    }
    return s;
}
