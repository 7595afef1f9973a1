/* The reader and writer of traces: what is written comes back, layouts are kept, and no damage to a file goes unnoticed
 * or crashes. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hallmark/fused_add_rms_norm.h>
#include <hallmark/rms_norm.h>

#include "certify/trace.h"

static const char attrs[] =
    "\"attrs\":{\"eps\":1e-5,\"round\":\"norm_first\",\"weight_form\":\"plain\",\"variance_size\":3}";

typedef struct {
    void *bytes;
    size_t size;
} file;

/* The file that w makes with one call "c0" of op; rest: attrs and views. */
static file file_of(hm_trace_writer *w, const char *op, const char *rest) {
    char calls[2048];
    file f;
    snprintf(calls, sizeof calls, "[{\"id\":\"c0\",\"op\":\"%s\",%s}]", op, rest);
    hm_trace_writer_note(w, "hallmark.trace", "1");
    hm_trace_writer_note(w, "hallmark.calls", calls);
    f.bytes = hm_trace_writer_bytes(w, &f.size);
    cr_assert(f.bytes);
    return f;
}

static hm_trace *open_file(file f) {
    char why[256] = "";
    hm_trace *trace = hm_trace_open_bytes(f.bytes, f.size, "test", why, sizeof why);
    cr_assert(trace, "%s", why);
    return trace;
}

static void refused(file f, const char *words) {
    char why[256] = "";
    hm_trace *trace = hm_trace_open_bytes(f.bytes, f.size, "test", why, sizeof why);
    cr_assert(!trace);
    cr_assert(strstr(why, words), "'%s' does not say '%s'", why, words);
    free(f.bytes);
}

static const float numbers[] = {1, -2, 3, -4, 5, -6, 7, -8, 9, -10, 11, -12};

static file simple(void) {
    hm_trace_writer *w = hm_trace_writer_new();
    hm_trace_writer_note(w, "device", "a \"quoted\" name\n");
    hm_trace_writer_tensor(w, "c0/x", HM_F32, 2, (int64_t[]){3, 4}, numbers);
    hm_trace_writer_tensor(w, "c0/weight", HM_F16, 1, (int64_t[]){4}, (uint16_t[]){0x3c00, 0x4000, 0x4200, 0x4400});
    hm_trace_writer_tensor(w, "c0/out.out", HM_F32, 2, (int64_t[]){3, 4}, numbers);
    return file_of(w, "rms_norm", attrs);
}

Test(trace, what_is_written_comes_back) {
    file f = simple();
    hm_trace *trace = open_file(f);
    cr_assert_eq(hm_trace_count(trace), 1);
    cr_assert_str_eq(hm_trace_note(trace, "device"), "a \"quoted\" name\n");
    cr_assert_null(hm_trace_note(trace, "host"));
    const hm_trace_call *c = hm_trace_at(trace, 0);
    const hm_rms_norm_args *a = c->args;
    cr_assert_str_eq(c->id, "c0");
    cr_assert_str_eq(c->op->name, "rms_norm");
    cr_assert_eq(a->size, sizeof *a);
    cr_assert_eq(a->eps, 1e-5);
    cr_assert_eq(a->round, HM_ROUND_NORM_FIRST);
    cr_assert_eq(a->variance_size, 3);
    for (int i = 0; i < c->op->nparams; i++) cr_assert(c->stated[i]);
    cr_assert_eq(a->x.dtype, HM_F32);
    cr_assert_eq(a->x.shape[0], 3);
    cr_assert_eq(a->x.stride[0], 4);
    cr_assert_eq(memcmp(a->x.data, numbers, sizeof numbers), 0);
    cr_assert_eq(((uint16_t *)a->weight.data)[3], 0x4400);
    cr_assert(c->recorded[2]);
    cr_assert_eq(memcmp(c->out[2].data, numbers, sizeof numbers), 0);
    cr_assert_eq(c->in_place[2], -1);
    hm_trace_close(trace);
    free(f.bytes);
}

Test(trace, the_writer_is_deterministic_and_aligns) {
    file a = simple(), b = simple();
    cr_assert_eq(a.size, b.size);
    cr_assert_eq(memcmp(a.bytes, b.bytes, a.size), 0);
    uint64_t header = 0;
    memcpy(&header, a.bytes, 8);
    cr_assert_eq(header % 8, 0);
    free(a.bytes), free(b.bytes);
}

/* Whatever the end of the file cuts off is missed; whatever byte is another, the reader either refuses with a sentence
 * or gives calls that are safe to use. */
Test(trace, every_truncation_is_refused) {
    file f = simple();
    for (size_t n = 0; n < f.size; n++) {
        char why[256] = "",
             *cut = malloc(n ? n : 1); /* its own allocation, so that a sanitizer sees one byte too many */
        memcpy(cut, f.bytes, n);
        cr_assert_null(hm_trace_open_bytes(cut, n, "test", why, sizeof why), "%zu of %zu bytes", n, f.size);
        cr_assert_gt(strlen(why), 10);
        free(cut);
    }
    free(f.bytes);
}

static void use(hm_trace *trace) {
    for (int i = 0; i < hm_trace_count(trace); i++) {
        hm_dtype written[HM_MAX_ARGS];
        hm_call *call = NULL;
        char why[512];
        if (hm_trace_call_open(hm_trace_at(trace, i), "test", &call, written, why, sizeof why) != HM_OK) continue;
        hm_trace_call_fill(hm_trace_at(trace, i), call);
        hm_call_free(call);
    }
}

Test(trace, no_changed_byte_crashes) {
    file f = simple();
    unsigned char *bytes = f.bytes;
    static const unsigned char with[] = {0, 1, 9, '"', '-', '0', '9', '[', '{', 'x', 0x80, 0xff};
    int opened = 0;
    for (size_t at = 0; at < f.size; at++)
        for (size_t k = 0; k < sizeof with; k++) {
            unsigned char before = bytes[at];
            char why[256] = "";
            bytes[at] = with[k];
            hm_trace *trace = hm_trace_open_bytes(bytes, f.size, "test", why, sizeof why);
            if (trace) use(trace), opened++;
            else cr_assert_gt(strlen(why), 10);
            for (char *c = why; *c; c++)
                cr_assert((unsigned char)*c >= ' ' && *c != 0x7f, "a control character in '%s'", why);
            hm_trace_close(trace);
            bytes[at] = before;
        }
    cr_assert_gt(opened, 100); /* a changed number is still a number */
    free(f.bytes);
}

Test(trace, misaligned_tensors_are_read) {
    file f = simple();
    char *shifted = malloc(f.size + 1);
    memcpy(shifted + 1, f.bytes, f.size);
    char why[256] = "";
    hm_trace *trace = hm_trace_open_bytes(shifted + 1, f.size, "test", why, sizeof why);
    cr_assert(trace, "%s", why);
    const hm_rms_norm_args *a = hm_trace_at(trace, 0)->args;
    cr_assert_eq((uintptr_t)a->x.data % 4, 0);
    cr_assert_eq(memcmp(a->x.data, numbers, sizeof numbers), 0);
    hm_trace_close(trace);
    free(shifted), free(f.bytes);
}

#define VIEW(field, offset, shape, stride)                                                           \
    "\"" field "\":{\"storage\":\"c0/buf\",\"dtype\":\"F32\",\"offset\":" offset ",\"shape\":" shape \
    ",\"stride\":" stride "}"

static file viewed(const char *views) {
    char rest[1024];
    hm_trace_writer *w = hm_trace_writer_new();
    hm_trace_writer_tensor(w, "c0/buf", HM_F32, 1, (int64_t[]){12}, numbers);
    hm_trace_writer_tensor(w, "c0/out.out", HM_F32, 2, (int64_t[]){2, 3}, numbers);
    snprintf(rest, sizeof rest, "%s,\"views\":{%s}", attrs, views);
    return file_of(w, "rms_norm", rest);
}

Test(trace, views_keep_offset_and_strides) {
    file f = viewed(VIEW("x", "10", "[2,3]", "[-6,-1]"));
    hm_trace *trace = open_file(f);
    const hm_tensor *x = hm_arg_tensor(hm_trace_at(trace, 0)->op, hm_trace_at(trace, 0)->args, 0);
    cr_assert_eq(x->stride[0], -6);
    cr_assert_eq(((float *)x->data)[-6 - 2], 3); /* element [1,2] is buf[10 - 6 - 2] */
    use(trace);
    hm_trace_close(trace);
    free(f.bytes);
}

Test(trace, views_must_stay_inside_their_storage) {
    refused(viewed(VIEW("x", "7", "[2,3]", "[3,1]")), "reaches outside");   /* one past the end */
    refused(viewed(VIEW("x", "4", "[2,3]", "[-3,-1]")), "reaches outside"); /* one before the start */
    refused(viewed(VIEW("x", "0", "[2,3]", "[6148914691236517205,1]")), "reaches outside");
    refused(viewed(VIEW("x", "0", "[2147483648,3]", "[0,0]")), "more than 2^32 bytes");
    file f = viewed(VIEW("x", "6", "[2,3]", "[3,1]"));
    hm_trace_close(open_file(f));
    free(f.bytes);
}

Test(trace, an_output_written_over_an_input_says_so) {
    file f = viewed(VIEW("x", "1", "[2,3]", "[4,1]") "," VIEW("out", "1", "[2,3]", "[4,1]"));
    hm_trace *trace = open_file(f);
    const hm_trace_call *c = hm_trace_at(trace, 0);
    const hm_rms_norm_args *a = c->args;
    cr_assert_eq(c->in_place[2], 0);
    cr_assert_eq(a->out.data, a->x.data);
    hm_dtype written[HM_MAX_ARGS];
    hm_call *call;
    char why[256];
    cr_assert_eq(hm_trace_call_open(c, "test", &call, written, why, sizeof why), HM_OK, "%s", why);
    hm_trace_call_fill(c, call);
    const hm_rms_norm_args *made = call->args;
    cr_assert_eq(made->out.data,
                 made->x.data); /* what lies there now is what was recorded; golden has the input before */
    cr_assert_eq(((float *)made->x.data)[4], numbers[3]);
    cr_assert_eq(((float *)((hm_rms_norm_args *)call->golden_args)->x.data)[3], numbers[5]);
    cr_assert(hm_call_effects(call, false, why, sizeof why), "%s", why);
    hm_call_free(call);
    hm_trace_close(trace);
    free(f.bytes);
    refused(viewed(VIEW("x", "1", "[2,3]", "[4,1]") "," VIEW("out", "1", "[2,3]", "[3,1]")), "is no input's");
}

Test(trace, a_recording_of_another_dtype_is_named) {
    hm_trace_writer *w = hm_trace_writer_new();
    hm_trace_writer_tensor(w, "c0/x", HM_BF16, 2, (int64_t[]){1, 4}, (uint16_t[]){0x3f80, 0x3f80, 0x3f80, 0x3f80});
    hm_trace_writer_tensor(w, "c0/out.out", HM_F32, 2, (int64_t[]){1, 4}, numbers);
    file f = file_of(w, "rms_norm", attrs);
    hm_trace *trace = open_file(f);
    hm_dtype written[HM_MAX_ARGS];
    hm_call *call;
    char why[256];
    cr_assert_eq(hm_trace_call_open(hm_trace_at(trace, 0), "test", &call, written, why, sizeof why), HM_OK, "%s", why);
    cr_assert_eq(written[2], HM_F32);
    cr_assert_eq(((hm_rms_norm_args *)call->args)->out.dtype, HM_BF16);
    hm_trace_call_fill(hm_trace_at(trace, 0), call);
    cr_assert_eq(((uint16_t *)((hm_rms_norm_args *)call->args)->out.data)[1], 0xc000); /* -2, rounded to bf16 */
    hm_call_free(call);
    hm_trace_close(trace);
    free(f.bytes);
}

/* Modes that change an output's dtype are followed, whether that output was recorded or not. */
Test(trace, outputs_take_the_dtype_that_the_modes_say) {
    static const char rest[] =
        "\"attrs\":{\"eps\":0,\"round\":\"once\",\"weight_form\":\"plain\",\"residual_read\":\"rounded\","
        "\"residual_dtype\":\"f32_for_f16\",\"variance_size\":0}";
    uint16_t half[] = {0x3c00, 0x4000, 0x4200, 0x4400};
    hm_trace_writer *w = hm_trace_writer_new();
    hm_trace_writer_tensor(w, "c0/x", HM_F16, 2, (int64_t[]){2, 2}, half);
    hm_trace_writer_tensor(w, "c0/residual", HM_F16, 2, (int64_t[]){2, 2}, half);
    hm_trace_writer_tensor(w, "c0/out.out", HM_F16, 2, (int64_t[]){2, 2}, half);
    file f = file_of(w, "fused_add_rms_norm", rest);
    hm_trace *trace = open_file(f);
    hm_dtype written[HM_MAX_ARGS];
    hm_call *call;
    char why[256];
    cr_assert_eq(hm_trace_call_open(hm_trace_at(trace, 0), "test", &call, written, why, sizeof why), HM_OK, "%s", why);
    cr_assert_eq(((hm_fused_add_rms_norm_args *)call->args)->residual_out.dtype, HM_F32);
    for (int i = 0; i < call->op->nargs; i++) cr_assert_eq(written[i], HM_DTYPE_NONE);
    hm_call_free(call);
    hm_trace_close(trace);
    free(f.bytes);
}

Test(trace, saving_is_whole_or_not_at_all) {
    char why[256] = "";
    hm_trace_writer *w = hm_trace_writer_new();
    hm_trace_writer_tensor(w, "c0/x", HM_F32, 1, (int64_t[]){12}, numbers);
    cr_assert_neq(hm_trace_writer_save(w, "/nowhere/at/all.safetensors", why, sizeof why), HM_OK);
    cr_assert(strstr(why, "/nowhere/at/all"), "%s", why);
    w = hm_trace_writer_new(); /* two tensors of one name cannot both be there */
    hm_trace_writer_tensor(w, "c0/x", HM_F32, 1, (int64_t[]){12}, numbers);
    hm_trace_writer_tensor(w, "c0/x", HM_F32, 1, (int64_t[]){12}, numbers);
    size_t size;
    cr_assert_null(hm_trace_writer_bytes(w, &size));
}
