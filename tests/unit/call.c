/* Calls in guarded memory: every stray byte is seen and named, everything can be put back, and nothing far away is
 * touched. */
#include "../../certify/call.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../../op/dtype.h"

static char text[512];

static hm_call *made(const char *line) {
    hm_case_spec spec;
    hm_call *call;
    cr_assert_eq(hm_case_parse(line, &spec, text, sizeof text), HM_OK, "%s", text);
    cr_assert_eq(hm_call_from_case(&spec, &call, text, sizeof text), HM_OK, "%s", text);
    return call;
}

static unsigned char *element(const hm_call *call, int arg, int64_t offset) {
    return (unsigned char *)call->tensor[arg].data + offset * (int64_t)hm_dtype_size(call->tensor[arg].dtype);
}

static void says(const hm_call *call, bool untouched, const char *sentence) {
    bool fine = hm_call_effects(call, untouched, text, sizeof text);
    cr_expect_eq(fine, !strcmp(sentence, "ok"));
    cr_expect_str_eq(text, sentence);
}

enum { X = 0, WEIGHT, OUT };

Test(call, effects_name_the_argument_and_the_place) {
    hm_call *call = made("rms_norm x=bf16[3,8] weight=f32 stride=out:12,1");
    says(call, true, "ok");
    says(call, false, "ok");
    for (int row = 0; row < 3; row++) memset(element(call, OUT, 12 * row), 0, 16);
    says(call, false, "ok");
    says(call, true, "out: 48 bytes changed although the call failed, the first in element [0,0]");
    hm_call_reset(call);
    says(call, true, "ok");

    element(call, OUT, 12 + 8)[1] ^= 1;
    element(call, OUT, 12 + 9)[0] ^= 1;
    says(call, false, "out: 2 bytes changed in the stride gap after row 1, the first 1 bytes into it");
    hm_call_reset(call);
    element(call, OUT, 24 + 8)[0] ^= 1;
    says(call, false, "out: 1 byte changed in the guard zone after it, the first 0 bytes past its end");
    hm_call_reset(call);
    element(call, OUT, -1)[0] ^= 1;
    says(call, false, "out: 1 byte changed in the guard zone before it, the first 2 bytes ahead of its start");
    hm_call_reset(call);
    element(call, X, 2 * 8 + 5)[0] ^= 1;
    says(call, false, "x: 1 byte changed of what is input, the first in element [2,5]");
    hm_call_reset(call);
    element(call, WEIGHT, 7)[3] ^= 128;
    says(call, false, "weight: 1 byte changed of what is input, the first in element [7]");
    says(call, true, "weight: 1 byte changed although the call failed, the first in element [7]");
    hm_call_reset(call);
    says(call, true, "ok");
    hm_call_free(call);
}

/* Flips each byte in turn: it is seen unless it belongs to an element of an output. */
static void flip_everything(const char *line) {
    hm_call *call = made(line);
    for (int b = 0; b < call->nbuffers; b++) {
        hm_buffer *buffer = &call->buffer[b];
        bool *output = calloc(buffer->size, 1);
        for (int i = 0; i < call->op->nargs; i++) {
            const hm_tensor *t = &call->tensor[i];
            if (call->buffer_of[i] != b || call->op->args[i].direction == HM_IN) continue;
            int64_t size = (int64_t)hm_dtype_size(t->dtype);
            for (int64_t r = 0; r < t->shape[0]; r++)
                for (int64_t c = 0; c < t->shape[1]; c++)
                    memset(output + (int64_t)buffer->offset[i] + (r * t->stride[0] + c * t->stride[1]) * size, 1,
                           (size_t)size);
        }
        for (size_t k = 0; k < buffer->size; k += k < HM_GUARD - 256 || k > buffer->size - HM_GUARD + 256 ? 509 : 1) {
            buffer->base[k] ^= 0x10;
            cr_expect_eq(hm_call_effects(call, false, text, sizeof text), output[k], "%s: byte %zu: %s", line, k, text);
            cr_expect(!hm_call_effects(call, true, text, sizeof text), "%s: byte %zu: %s", line, k, text);
            buffer->base[k] ^= 0x10;
        }
        free(output);
    }
    cr_expect(hm_call_effects(call, true, text, sizeof text), "%s", text);
    hm_call_free(call);
}

Test(call, every_stray_byte_is_seen) {
    flip_everything("rms_norm x=bf16[3,5] weight=f32");
    flip_everything("rms_norm x=f32[3,5] alias=out:x stride=x:9,1");
    flip_everything("rms_norm x=f16[3,5] weight=f16 stride=x:-7,1;weight:-2;out:11,2");
    flip_everything("rms_norm x=f32[3,5] alias=out:x+5 stride=x:10,1");
    flip_everything("rms_norm x=f16[4,5] stride=x:0,1;out:1,4");
    flip_everything("fused_add_rms_norm x=bf16[2,3] alias=out:x;residual_out:residual stride=residual:5,1");
}

/* Outputs and inputs may overlap in calls that are to be refused: then nothing at all may change. */
Test(call, illegal_overlaps_are_held_to_the_last_byte) {
    hm_call *call = made("rms_norm x=f32[3,8] alias=out:x+1 stride=out:0,1 expect=bad_alias");
    says(call, true, "ok");
    for (size_t k = 0; k < call->buffer[0].size; k += 3) {
        call->buffer[0].base[k] ^= 4;
        cr_expect(!hm_call_effects(call, true, text, sizeof text), "byte %zu", k);
        call->buffer[0].base[k] ^= 4;
    }
    hm_call_free(call);
}

Test(call, golden_reads_pristine_contiguous_copies) {
    hm_call *dense = made("fused_add_rms_norm x=bf16[2,3,8] weight=f32 gen=heavy seed=5");
    hm_call *loose = made(
        "fused_add_rms_norm x=bf16[2,3,8] weight=f32 stride=x:-100,-33,4;residual:8,16,1;weight:-3 gen=heavy seed=5");
    cr_expect_eq(dense->inputs_xxh3, loose->inputs_xxh3, "values do not depend on strides");
    for (int i = 0; i < 3; i++) {
        const hm_tensor *a = hm_arg_tensor(dense->op, dense->golden_args, i),
                        *b = hm_arg_tensor(loose->op, loose->golden_args, i);
        cr_expect_neq(a->data, dense->tensor[i].data);
        cr_expect_arr_eq(a->data, b->data, (size_t)hm_tensor_elements(a) * hm_dtype_size(a->dtype));
        cr_expect_arr_eq(b->stride, a->stride, (size_t)a->ndim * sizeof *a->stride);
    }
    double far[8], near[8];
    hm_load_row(HM_BF16, element(loose, X, -100 - 66), 4, 8, far);
    hm_load_row(HM_BF16, element(dense, X, 40), 1, 8, near);
    cr_expect_arr_eq(far, near, sizeof far);
    /* What an implementation does to its inputs does not reach golden, and reset undoes it. */
    memset(element(dense, X, 0), 0, 96);
    cr_expect(!hm_call_effects(dense, false, text, sizeof text));
    hm_call_reset(dense);
    says(dense, true, "ok");
    cr_expect_eq(dense->op->check(dense->golden_args), HM_OK, "%s", hm_error());
    hm_call_free(dense);
    hm_call_free(loose);
}

Test(call, hash_follows_values_dtypes_and_shapes) {
    static const char *const lines[] = {
        "rms_norm x=f32[2,6] weight=f32 seed=1",          "rms_norm x=f32[2,6] weight=f32 seed=2",
        "rms_norm x=f32[3,4] weight=f32 seed=1",          "rms_norm x=f32[2,6] weight=none seed=1",
        "rms_norm x=bf16[2,6] weight=f32 seed=1",         "rms_norm x=f32[1,2,6] weight=f32 seed=1",
        "rms_norm x=f32[2,6] weight=f32 gen=zero seed=1",
    };
    uint64_t hash[8];
    int n = sizeof lines / sizeof *lines;
    for (int i = 0; i < n; i++) {
        hm_call *call = made(lines[i]), *again = made(lines[i]);
        hash[i] = call->inputs_xxh3;
        cr_expect_eq(hash[i], again->inputs_xxh3);
        for (int k = 0; k < i; k++) cr_expect_neq(hash[i], hash[k], "%s and %s", lines[i], lines[k]);
        hm_call_free(call);
        hm_call_free(again);
    }
}

Test(call, starts_aligned_and_ends_at_the_guard) {
    for (int hidden = 1; hidden < 200; hidden += 3) {
        char line[64];
        snprintf(line, sizeof line, "rms_norm x=bf16[3,%d] weight=f32", hidden);
        hm_call *call = made(line);
        for (int i = 0; i < 3; i++) {
            const hm_buffer *b = &call->buffer[call->buffer_of[i]];
            size_t end =
                b->offset[i] + (size_t)hm_tensor_elements(&call->tensor[i]) * hm_dtype_size(call->tensor[i].dtype);
            cr_expect_eq((uintptr_t)call->tensor[i].data % 64, 0);
            cr_expect(end <= b->size - HM_GUARD && end + 64 > b->size - HM_GUARD);
            cr_expect(b->offset[i] >= HM_GUARD);
        }
        hm_call_free(call);
    }
}

Test(call, far_rows_cost_little_memory) {
    hm_call *call = made("rms_norm x=f32[3,64] weight=f32 stride=x:4294975488,1;out:-2147487744,1");
    for (int b = 0; b < call->nbuffers; b++) {
        struct stat s;
        cr_assert_eq(fstat(call->buffer[b].fd, &s), 0);
        cr_expect(s.st_blocks * 512 < 1 << 20, "%lld bytes are there", (long long)s.st_blocks * 512);
    }
    says(call, true, "ok");
    element(call, OUT, -2147487744)[256] ^= 1;
    says(call, false, "out: 1 byte changed in the stride gap after row 1, the first 0 bytes into it");
    hm_call_reset(call);
    element(call, OUT, 0)[4000] ^= 1;
    cr_expect(!hm_call_effects(call, false, text, sizeof text));
    hm_call_reset(call);
    element(call, X, 2 * INT64_C(4294975488) + 63)[0] ^= 1;
    says(call, false, "x: 1 byte changed of what is input, the first in element [2,63]");
    hm_call_free(call);
}

Test(call, too_large_is_said) {
    static const char *const lines[] = {"rms_norm x=f32[1000000,10000]",
                                        "rms_norm x=f32[3,8] stride=x:4611686018427387904,1",
                                        "rms_norm x=f32[3,8] stride=x:9223372036854775807,9223372036854775807"};
    for (int i = 0; i < 3; i++) {
        hm_case_spec spec;
        hm_call *call;
        cr_assert_eq(hm_case_parse(lines[i], &spec, text, sizeof text), HM_OK);
        cr_expect_eq(hm_call_from_case(&spec, &call, text, sizeof text), HM_NO_MEMORY);
        cr_expect(strstr(text, "rms_norm: x is too large"), "%s", text);
        cr_expect_null(call);
    }
}

Test(call, broken_descriptors_reach_only_the_implementation) {
    hm_call *call = made("rms_norm x=f32[3,8] weight=f32 broken=x:null;weight:dtype99;out:ndim5 expect=bad_arg");
    cr_expect_null(hm_arg_tensor(call->op, call->args, X)->data);
    cr_expect_eq((int)hm_arg_tensor(call->op, call->args, WEIGHT)->dtype, 99);
    cr_expect_eq(hm_arg_tensor(call->op, call->args, OUT)->ndim, 5);
    cr_expect_not_null(call->tensor[X].data);
    cr_expect_eq(call->op->check(call->golden_args), HM_OK, "%s", hm_error());
    cr_expect_not_null(hm_call_args(call));
    hm_call_free(call);
    call = made("rms_norm x=f32[3,8] broken=args:null expect=bad_arg");
    cr_expect_null(hm_call_args(call));
    hm_call_free(call);
}

/* From given tensors: strides, sharing and values are kept; outputs that lie on nothing are poisoned. */
Test(call, from_given_tensors) {
    float buffer[64], weight[4] = {1, 2, 3, 4};
    for (int i = 0; i < 64; i++) buffer[i] = (float)i;
    struct {
        size_t size;
        hm_tensor out, residual_out, x, residual, weight;
        char rest[256];
    } args;
    const hm_op_info *op = hm_op_named("fused_add_rms_norm");
    cr_assert(op->args_size <= sizeof args);
    memset(&args, 0, sizeof args);
    args.size = op->args_size;
    int64_t shape[] = {3, 4};
    for (int i = 0; i < op->nargs; i++) *hm_arg_tensor(op, &args, i) = hm_tensor_of(NULL, HM_F32, 2, shape);
    hm_tensor *x = hm_arg_tensor(op, &args, 0), *residual = hm_arg_tensor(op, &args, 1);
    *hm_arg_tensor(op, &args, 2) = hm_tensor_of(weight, HM_F32, 1, shape + 1);
    x->data = buffer + 40, x->stride[0] = -16;              /* rows at 40, 24, 8 */
    residual->data = buffer + 12, residual->stride[0] = 16; /* rows at 12, 28, 44: the same storage */
    *hm_arg_tensor(op, &args, 4) = *x;                      /* out in place */
    hm_call *call;
    cr_assert_eq(hm_call_from_args(op, &args, "given", &call, text, sizeof text), HM_OK, "%s", text);
    cr_expect_eq(call->nbuffers, 3);
    cr_expect_eq(call->buffer_of[0], call->buffer_of[1]);
    cr_expect_eq(call->buffer_of[0], call->buffer_of[4]);
    cr_expect_eq(call->tensor[4].data, call->tensor[0].data);
    cr_expect_eq((char *)call->tensor[0].data - (char *)call->tensor[1].data, 28 * (ptrdiff_t)sizeof(float));
    cr_expect_eq(((float *)call->tensor[0].data)[-32 + 3], 11);
    cr_expect_eq(((float *)hm_arg_tensor(op, call->golden_args, 1)->data)[11], 47);
    cr_expect_eq(element(call, 3, 5)[2], HM_POISON);
    says(call, true, "ok");
    for (int row = 0; row < 3; row++) memset(element(call, 4, -16 * row), 0, 16);
    says(call, false, "ok");
    element(call, 1, 16)[0] ^= 1;
    says(call, false, "residual: 1 byte changed of what is input, the first in element [1,0]");
    hm_call_free(call);

    x->ndim = 5;
    cr_expect_eq(hm_call_from_args(op, &args, "given", &call, text, sizeof text), HM_BAD_ARG);
    cr_expect_str_eq(text, "fused_add_rms_norm: x is no tensor that can be copied (dtype, rank, data or size)");
    cr_expect_null(call);
}

/* Shapes, strides, offsets and scalars out of the blue: what parses is built, unless it is too large, and leaves no
 * trace; what the contract then accepts runs without a stray byte. */
Test(call, any_case_that_parses_can_be_built) {
    static const char *const good[] = {
        "rms_norm x=bf16[3,8] weight=f32[8] alias=out:x+8 stride=x:16,1;weight:2 seed=17",
        ("fused_add_rms_norm x=f16[2,3,5] residual=f32[2,3,5] residual_out=f32[2,3,5] weight=f16 gen=special "
         "variance_size=3 expect=bad_arg"),
        "rms_norm x=f32[4,8] out=f32[4,8] stride=x:-8,1;out:0,2 gen=stagnate expect=bad_stride",
        "fused_add_rms_norm x=bf16[1,9] alias=out:x;residual_out:residual gen=ties stride=x:7,3 eps=0",
        "rms_norm x=f32[3,8] weight=bf16[8] stride=x:4294975488,1;out:2147483648,1 gen=exact",
    };
    uint64_t state = 88172645463325252u;
    int built = 0, ran = 0;
    for (int i = 0; i < 8000; i++) {
        char line[HM_CASE_MAX];
        strcpy(line, good[i % 5]);
        size_t length = strlen(line);
        for (int edits = 1 + i % 4; edits--;) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            size_t at = state % length;
            while (at < 20 || line[at] < '0' || line[at] > '9') at = (at + 1) % length;
            line[at] = "0123456789-,"[(state >> 40) % 12];
        }
        hm_case_spec spec;
        hm_call *call;
        if (hm_case_parse(line, &spec, text, sizeof text)) continue;
        double most = 0;
        for (int k = 0; k < spec.op->nargs; k++) {
            double n = 1;
            for (int d = 0; d < spec.ndim[k]; d++) n *= fabs((double)spec.shape[k][d]);
            most = n > most ? n : most;
        }
        if (most > 1e5 && most < 5e9) continue; /* could be had, but takes its time */
        if (hm_call_from_case(&spec, &call, text, sizeof text)) continue;
        built++;
        cr_expect(hm_call_effects(call, true, text, sizeof text), "%s: %s", spec.line, text);
        if (spec.op->check(hm_call_args(call)) == HM_OK) {
            ran++;
            cr_expect_eq(spec.op->ref(hm_call_args(call)), HM_OK);
            cr_expect(hm_call_effects(call, false, text, sizeof text), "%s: %s", spec.line, text);
        }
        hm_call_free(call);
    }
    cr_expect(built > 1000 && ran > 500, "%d %d", built, ran);
}

static int open_files(void) {
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;
    while (readdir(dir)) n++;
    closedir(dir);
    return n;
}

/* But for the buffers that are kept, and those are few. */
Test(call, nothing_stays_open) {
    int before = open_files();
    for (int i = 0; i < 20; i++) hm_call_free(made("fused_add_rms_norm x=bf16[3,8] weight=f32"));
    int kept = open_files();
    cr_expect(kept > before && kept <= before + 5, "%d files stay open", kept - before);
    for (int i = 1; i < 200; i++) {
        char line[64];
        snprintf(line, sizeof line, "rms_norm x=f32[%d,1024] weight=f32", i);
        hm_call_free(made(line));
    }
    cr_expect(open_files() < before + 100, "%d files stay open", open_files() - before);
    hm_buffers_release();
    cr_expect_eq(open_files(), before);
}

static ino_t file_of(const hm_call *call, int buffer) {
    struct stat s;
    cr_assert_eq(fstat(call->buffer[buffer].fd, &s), 0);
    return s.st_ino;
}

/* A buffer is used again, as good as new whatever was written to it; one that another process has seen is not. */
Test(call, buffers_are_used_again) {
    static const char line[] = "rms_norm x=bf16[2,500] weight=none";
    for (int shared = 0; shared < 2; shared++) {
        hm_buffers_release();
        hm_call *call = made(line);
        ino_t file = file_of(call, 0);
        memset(call->buffer[0].base, 0x11, call->buffer[0].size);
        call->buffer[0].shared = shared;
        hm_call_free(call);
        call = made(line);
        bool same = file_of(call, 0) == file || file_of(call, 1) == file;
        cr_expect_eq(same, !shared);
        says(call, true, "ok");
        hm_call_free(call);
    }
}
