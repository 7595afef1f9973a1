#include "judge.h"

#include <ctype.h>
#include <math.h>
#include <omp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "../op/check.h"
#include "elements.h"
#include "embedded.h"
#include "invariance.h"

static const char *const outcome_names[] = {"pass",    "fail",     "out_of_class", "vacuous",
                                            "skipped", "declined", "not_provided"};

const char *hm_outcome_name(hm_outcome o) { return (unsigned)o < HM_OUTCOME_COUNT ? outcome_names[o] : "?"; }

static void conclude(hm_verdict *v, hm_outcome outcome, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void conclude(hm_verdict *v, hm_outcome outcome, const char *format, ...) {
    va_list list;
    v->outcome = outcome;
    va_start(list, format);
    vsnprintf(v->why, sizeof v->why, format, list);
    va_end(list);
}

/* ---- the kill matrix ------------------------------------------------------------------------- */

/* data/cases/kills.json is read where it lies: a line of text a case, "canonical line": [number of a fault, ...], as
 * hm_kills_json writes it (and one an op, with the faults' names, which no case is called). They are found by a hash of the case line without its seed; lines that differ in their seed
 * count together. */
typedef struct {
    uint64_t hash;
    const char *text; /* behind the quote that opens the case line */
} kill_line;
static kill_line *kills; /* ascending by hash. NULL: there are none */
static size_t kill_lines;

static void seedless(const char *line, size_t length, char to[HM_CASE_MAX]) {
    snprintf(to, HM_CASE_MAX, "%.*s", (int)length, line);
    char *seed = strstr(to, " seed=");
    if (!seed) return;
    const char *rest = seed + 1 + strcspn(seed + 1, " ");
    memmove(seed, rest, strlen(rest) + 1);
}

static uint64_t hash_of(const char *key) { return XXH3_64bits(key, strlen(key)); }

static int by_hash(const void *a, const void *b) {
    const kill_line *p = a, *q = b;
    return (p->hash > q->hash) - (p->hash < q->hash);
}

/* The end of the case line that starts here. By memchr: strcspn and strstr read the whole text under a sanitizer. */
static const char *end_of(const char *line) { return memchr(line, '"', HM_CASE_MAX); }

static void load_kills(void) {
    char key[HM_CASE_MAX];
    for (int i = 0; i < hm_embedded_count; i++) {
        if (strcmp(hm_embedded[i].name, "kills.json")) continue;
        const char *text = hm_embedded[i].data, *end = text + hm_embedded[i].size, *at;
        for (at = text; (at = memchr(at, '\n', (size_t)(end - at))); at++) kill_lines++;
        kills = calloc(kill_lines + 1, sizeof *kills);
        if (!kills) return;
        kill_line *to = kills;
        for (at = text; (at = memchr(at, '\n', (size_t)(end - at)));) {
            const char *line = ++at + 1, *line_end;
            if (*at != '"' || !(line_end = end_of(line))) continue;
            seedless(line, (size_t)(line_end - line), key);
            *to++ = (kill_line){hash_of(key), line};
        }
        kill_lines = (size_t)(to - kills);
        qsort(kills, kill_lines, sizeof *kills, by_hash);
    }
}

/* How many faults the case is known to kill; -1 if the matrix does not know the case. */
static int known_kills(const hm_call *call) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    char key[HM_CASE_MAX], other[HM_CASE_MAX];
    if (!call->from_case) return -1;
    pthread_once(&once, load_kills);
    seedless(call->name, strlen(call->name), key);
    uint64_t hash = hash_of(key);
    size_t low = 0, high = kills ? kill_lines : 0;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (kills[mid].hash < hash) low = mid + 1;
        else high = mid;
    }
    int faults = -1;
    for (; kills && low < kill_lines && kills[low].hash == hash; low++) {
        const char *end = end_of(kills[low].text);
        seedless(kills[low].text, (size_t)(end - kills[low].text), other);
        if (strcmp(key, other)) continue;
        if (faults < 0) faults = 0;
        bool some = false;
        for (end++; *end && *end != ']'; end++) faults += *end == ',', some |= isdigit((unsigned char)*end);
        faults += some;
    }
    return faults;
}

/* ---- calls that must fail -------------------------------------------------------------------- */

static bool has_word(const char *sentence, const char *word) {
    size_t length = strlen(word);
    for (const char *at = sentence; (at = strstr(at, word)); at++) {
        bool starts = at == sentence || !(isalnum((unsigned char)at[-1]) || at[-1] == '_');
        bool ends = !(isalnum((unsigned char)at[length]) || at[length] == '_');
        if (starts && ends) return true;
    }
    return false;
}

/* Does the sentence name what is wrong: the broken argument where the case broke one, else some argument or parameter?
 * The op's own name at its start is not counted. */
static bool names_argument(const hm_call *call, const char *sentence) {
    const hm_op_info *op = call->op;
    bool broke = false;
    const char *colon = strstr(sentence, ": ");
    if (colon) sentence = colon;
    if (call->from_case && call->spec.broken_args != HM_ARGS_FINE) return has_word(sentence, "args");
    for (int i = 0; call->from_case && i < op->nargs; i++)
        if (call->spec.broken[i]) {
            broke = true;
            if (has_word(sentence, op->args[i].name)) return true;
        }
    for (int i = 0; !broke && i < op->nargs; i++)
        if (has_word(sentence, op->args[i].name)) return true;
    for (int i = 0; !broke && i < op->nparams; i++)
        if (has_word(sentence, op->params[i].name)) return true;
    return false;
}

/* expected: what the contract says. Others may refuse with any status; ours has to say which, and why. */
static void judge_refusal(const hm_call *call, const hm_run *run, hm_status expected, bool ours, hm_verdict *v) {
    const char *want = hm_status_name(expected), *got = hm_status_name(run->status);
    if (run->status == HM_OK) conclude(v, HM_FAIL, "returned ok; the contract says %s", want);
    else if (!v->effects_ok) conclude(v, HM_FAIL, "returned %s and still: %s", got, v->effects);
    else if (ours && run->status != expected)
        conclude(v, HM_FAIL, "returned %s (%s); the contract says %s", got, run->error, want);
    else if (ours && !run->error[0]) conclude(v, HM_FAIL, "returned %s without a sentence in hm_error()", got);
    else if (ours && !names_argument(call, run->error))
        conclude(v, HM_FAIL, "returned %s with a sentence that does not name the argument: \"%s\"", got, run->error);
    else if (known_kills(call) == 0) conclude(v, HM_VACUOUS, "this case is known to catch no fault");
    else v->outcome = HM_PASS;
}

/* Is row `row` of output i what it was before the call? Rows are those of the last dimension. */
static bool row_untouched(const hm_call *call, int i, int64_t row) {
    const hm_tensor *t = hm_arg_tensor(call->op, call->args, i);
    int from = call->op->args[i].direction == HM_INOUT ? i : call->from_case ? call->spec.alias[i] : -1;
    const hm_tensor *before = from < 0 ? NULL : hm_arg_tensor(call->op, call->golden_args, from);
    size_t size = hm_dtype_size(t->dtype);
    int64_t n = t->shape[t->ndim - 1], stride = t->stride[t->ndim - 1];
    const char *now = (const char *)t->data + hm_row_offset(t, row) * (int64_t)size;
    for (int64_t k = 0; k < n; k++)
        for (size_t b = 0; b < size; b++) {
            char was = before ? ((const char *)before->data)[(size_t)(row * n + k) * size + b] : HM_POISON;
            if (now[k * stride * (int64_t)size + (int64_t)b] != was) return false;
        }
    return true;
}

/* On a device nobody looks at positions in the data before the call: one that is out of range leaves its row untouched.
 * The case has such a position, so some row has to be as it was. */
static void judge_out_of_range(const hm_call *call, hm_verdict *v) {
    bool any = false, empty = true;
    for (int i = 0; i < call->op->nargs && !any; i++) {
        const hm_tensor *t = hm_arg_tensor(call->op, call->args, i);
        if (call->op->args[i].direction == HM_IN || t->dtype == HM_DTYPE_NONE || !hm_tensor_elements(t)) continue;
        empty = false;
        for (int64_t row = 0, rows = hm_row_count(t); row < rows && !any; row++) any = row_untouched(call, i, row);
    }
    if (!v->effects_ok) conclude(v, HM_FAIL, "%s", v->effects);
    else if (!any && !empty)
        conclude(v, HM_FAIL,
                 "a position is out of range, and no row was left as it was; on a device its row has to be");
    else v->outcome = HM_PASS;
}

/* ---- calls that must succeed ----------------------------------------------------------------- */

/* Over dtype, shape and stored bytes of all outputs, in table order. */
static uint64_t hash_outputs(const hm_call *call) {
    XXH3_state_t *state = XXH3_createState();
    if (!state) return 0;
    XXH3_64bits_reset(state);
    for (int i = 0; i < call->op->nargs; i++) {
        const hm_tensor *t = hm_arg_tensor(call->op, call->args, i);
        if (call->op->args[i].direction == HM_IN || t->dtype == HM_DTYPE_NONE) continue;
        int64_t header[6] = {t->dtype, t->ndim}, rows = hm_row_count(t), n = t->shape[t->ndim - 1],
                stride = t->stride[t->ndim - 1];
        size_t size = hm_dtype_size(t->dtype);
        memcpy(header + 2, t->shape, (size_t)t->ndim * sizeof *header);
        XXH3_64bits_update(state, header, sizeof header);
        for (int64_t row = 0; row < rows && n > 0; row++) {
            const char *base = (const char *)t->data + hm_row_offset(t, row) * (int64_t)size;
            if (stride == 1) XXH3_64bits_update(state, base, (size_t)n * size);
            else
                for (int64_t k = 0; k < n; k++) XXH3_64bits_update(state, base + k * stride * (int64_t)size, size);
        }
    }
    uint64_t hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return hash;
}

static bool wrong_dtype(const hm_call *call, const hm_run *run, hm_verdict *v) {
    for (int i = 0; i < call->op->nargs; i++) {
        hm_dtype want = hm_arg_tensor(call->op, call->args, i)->dtype, got = run->written[i];
        if (call->op->args[i].direction == HM_IN || got == HM_DTYPE_NONE || got == want) continue;
        conclude(v, HM_FAIL, "%s was written as %s; the contract says %s", call->op->args[i].name, hm_dtype_name(got),
                 hm_dtype_name(want));
        return true;
    }
    return false;
}

static size_t describe_worst(const hm_call *call, const hm_verdict *v, char *text, size_t size) {
    size_t at = (size_t)snprintf(text, size, "%s[", call->op->args[v->worst_arg].name);
    for (int d = 0; d < v->worst_ndim && at < size; d++)
        at += (size_t)snprintf(text + at, size - at, "%s%lld", d ? "," : "", (long long)v->worst_index[d]);
    if (at < size && v->worst_by_bits)
        at += (size_t)snprintf(text + at, size - at, "] holds the bits 0x%llx, admissible 0x%llx (a copy)",
                               (unsigned long long)v->worst_bits[0], (unsigned long long)v->worst_bits[1]);
    else if (at < size)
        at += (size_t)snprintf(text + at, size - at, "] is %.9g, admissible [%.9g, %.9g]", v->worst_got, v->worst_lo,
                               v->worst_hi);
    return at;
}

/* Threads to judge with: a small call is done before a team has met. */
static int team(const hm_call *call, int threads) {
    int64_t elements = 0;
    for (int i = 0; i < call->op->nargs; i++) elements += hm_tensor_elements(hm_arg_tensor(call->op, call->args, i));
    return elements < 50000 ? 1 : threads > 0 ? threads : omp_get_max_threads();
}

static void judge_values(hm_call *call, const hm_run *run, const hm_judge_options *options, const hm_ladder *ladder,
                         hm_verdict *v) {
    int threads = team(call, options->threads);
    hm_golden *golden = NULL;
    char text[256] = "";
    if (!hm_golden_environment(threads)) {
        conclude(v, HM_FAIL,
                 "the judge's floating-point environment is not round-to-nearest with subnormals; nothing was judged");
        return;
    }
    hm_status s = hm_golden_open(call->op, call->golden_args, threads, &golden);
    for (int i = 0; i < call->op->nargs && !s; i++) {
        const hm_tensor *out = hm_arg_tensor(call->op, call->args, i);
        if (call->op->args[i].direction != HM_IN && out->dtype != HM_DTYPE_NONE)
            s = hm_golden_observe(golden, i, out, threads);
    }
    if (!s) s = hm_elements_judge(golden, call, ladder, options->tier, options->most_rows, threads, v);
    int faults = known_kills(call);
    bool trivial = !s && hm_elements_trivial(golden, call, ladder, options->tier, faults > 0, text, sizeof text);
    hm_golden_close(golden);
    if (s) {
        conclude(v, HM_FAIL, "golden could not judge this call: %s", hm_status_name(s));
        return;
    }
    v->outputs_xxh3 = hash_outputs(call);
    if (wrong_dtype(call, run, v)) return;
    if (v->outside) {
        describe_worst(call, v, text, sizeof text);
        conclude(v, HM_FAIL, "%lld of %lld elements are outside: %s", (long long)v->outside, (long long)v->elements,
                 text);
    } else if (!v->effects_ok) {
        conclude(v, HM_FAIL, "%s", v->effects);
    } else if (v->out_of_class) {
        describe_worst(call, v, text, sizeof text);
        conclude(v, HM_OUT_OF_CLASS, "%lld of %lld elements are outside %s, consistent with %s: %s",
                 (long long)v->out_of_class, (long long)v->elements, hm_class_name(v->required),
                 hm_class_name(v->consistent), text);
    } else if (trivial) {
        conclude(v, HM_VACUOUS, "%s", text);
    } else if (faults == 0) {
        conclude(v, HM_VACUOUS, "this case is known to catch no fault");
    } else if (v->elements == 0 && faults < 0) {
        conclude(v, HM_VACUOUS, "no element was judged");
    } else {
        v->outcome = HM_PASS;
    }
}

/* ---- the verdict ----------------------------------------------------------------------------- */

static const void *arguments(const hm_call *call) {
    return call->from_case && call->spec.broken_args == HM_ARGS_NULL ? NULL : call->args;
}

static void judge(hm_call *call, const hm_run *run, const hm_judge_options *options, bool ours, hm_place place,
                  hm_verdict *v) {
    hm_ladder ladder;
    *v = (hm_verdict){.outcome = HM_FAIL, .consistent = HM_CLASS_NONE, .effects_ok = true};
    snprintf(v->effects, sizeof v->effects, "ok");
    if (!hm_ladder_make(call->op, options->required, &ladder)) {
        v->required = options->required;
        conclude(v, HM_FAIL, "%s has no class %s; it has %s", call->op->name, hm_class_name(options->required),
                 call->op->classes);
        return;
    }
    v->required = ladder.list[ladder.required];
    if (run->state == HM_NOT_PROVIDED) {
        conclude(v, HM_NOT_OFFERED, "%s is not provided", call->op->name);
        return;
    }
    if (run->state == HM_DIED) {
        v->effects_ok = hm_call_effects(call, false, v->effects, sizeof v->effects);
        conclude(v, HM_FAIL, "%s", run->error[0] ? run->error : "died");
        return;
    }
    hm_status allowed = call->op->check(arguments(call));
    hm_status expected = call->from_case ? call->spec.expect : allowed;
    if (expected == HM_OK && allowed != HM_OK) {
        const char *name = hm_status_name(allowed);
        conclude(v, HM_FAIL, "the contract refuses this call: %s (expect=%s, if that is what the case is about)",
                 hm_error(), name);
        return;
    }
    bool unseen = expected == HM_BAD_VALUE && place == HM_CUDA && run->status == HM_OK;
    bool refuses = (expected != HM_OK && !unseen) || run->status != HM_OK;
    v->effects_ok = hm_call_effects(call, refuses, v->effects, sizeof v->effects);
    if (unseen) {
        judge_out_of_range(call, v);
    } else if (expected == HM_BAD_VALUE && place == HM_CUDA && run->status == HM_NO_DEVICE) {
        conclude(v, HM_SKIPPED, "no device%s%s", run->error[0] ? ": " : "", run->error);
    } else if (expected != HM_OK) {
        judge_refusal(call, run, expected, ours, v);
    } else if (run->status == HM_OK) {
        judge_values(call, run, options, &ladder, v);
    } else if (!v->effects_ok) {
        conclude(v, HM_FAIL, "returned %s and still: %s", hm_status_name(run->status), v->effects);
    } else if (run->status == HM_UNSUPPORTED) {
        conclude(v, HM_DECLINED, "declined%s%s", run->error[0] ? ": " : "", run->error);
    } else if (run->status == HM_NO_DEVICE) {
        conclude(v, HM_SKIPPED, "no device%s%s", run->error[0] ? ": " : "", run->error);
    } else {
        conclude(v, HM_FAIL, "returned %s%s%s; the contract says ok", hm_status_name(run->status),
                 run->error[0] ? ": " : "", run->error);
    }
}

void hm_judge_outputs(hm_call *call, const hm_run *run, const hm_judge_options *options, hm_verdict *verdict) {
    judge(call, run, options, false, HM_HOST, verdict);
}

void hm_judge(hm_impl *impl, hm_call *call, const hm_judge_options *options, hm_verdict *v) {
    hm_run run = {0};
    impl->run(impl, call, arguments(call), &run);
    judge(call, &run, options, impl->ours, impl->place, v);
    bool ran = run.state == HM_RAN && run.status == HM_OK &&
               (v->outcome == HM_PASS || v->outcome == HM_VACUOUS || v->outcome == HM_OUT_OF_CLASS);
    if (call->from_case && call->spec.expect != HM_OK)
        ran = false; /* on a device; of two tokens in one slot any may win */
    if (!ran || !(options->check_invariance || options->require_invariance)) return;
    bool same = hm_invariance(impl, call, v->invariance, sizeof v->invariance);
    if (!same && (impl->ours || options->require_invariance))
        conclude(v, HM_FAIL, "the outputs are not invariant: %s", v->invariance);
}

bool hm_call_vacuous(hm_call *call, const hm_judge_options *options, char *which, size_t size) {
    hm_ladder ladder;
    hm_golden *golden;
    if (!hm_ladder_make(call->op, options->required, &ladder) || call->op->check(arguments(call)) != HM_OK)
        return false;
    if (hm_golden_open(call->op, call->golden_args, team(call, options->threads), &golden)) return false;
    bool trivial = hm_elements_trivial(golden, call, &ladder, options->tier, false, which, size);
    hm_golden_close(golden);
    return trivial;
}
