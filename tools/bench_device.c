/* bench_device.c: times on a device beside what it can do, and beside a peer. */
#include "bench_device.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "bench_cuda.h"
#include "peer.h"
#include "timing.h"

#ifdef HM_HAVE_CUDA
struct bench_device {
    const char *impl, *program;
    double seconds;
    bool json, fp8;
    hm_cuda_ceilings can;
    hm_peer *peer; /* NULL: not started */
};

/* What is said of a case. The peer's: its name and times, or why there are none. */
typedef struct {
    timing op, pdl, copy, rows;
    bool has_rows;
    int sets;
    size_t bytes;
    double flops;
    hm_peer_result against;
    double product, beside; /* flops a second of torch's product of large matrices, in bf16 or, of cuda_fp8, fp8 (0: not
                               known), and those of the op between its passes */
    char peer[128], declined[256];
} figures;

bench_device *bench_device_open(const char *impl, double seconds, const char *peer, bool json) {
    char why[256];
    bench_device *d = calloc(1, sizeof *d);
    if (!d) hm_die(HM_EXIT_INTERNAL, "out of memory");
    *d = (bench_device){.impl = impl, .program = peer, .seconds = seconds, .json = json};
    d->fp8 = !strcmp(impl, "cuda_fp8");
    if (hm_cuda_bench_open(&d->can, why, sizeof why)) return d;
    fprintf(stderr, "nothing can be timed: %s\n", why);
    exit(HM_EXIT_NOTHING);
}

void bench_device_close(bench_device *d) {
    if (!d) return;
    hm_peer_close(d->peer);
    free(d);
}

/* ---- measuring ---- */

static void time_peer(bench_device *d, const hm_call *call, hm_cuda_bench *bench, int calls, figures *f) {
    double own[HM_PEER_PASSES], theirs[HM_PEER_PASSES];
    char why[256];
    if (!d->peer) d->peer = hm_peer_open(d->program, why, sizeof why);
    if (!d->peer) hm_die(HM_EXIT_USAGE, "--peer: %s", why);
    if (hm_peer_case(d->peer, call, f->sets, calls, f->declined, sizeof f->declined)) {
        snprintf(f->peer, sizeof f->peer, "%s", hm_peer_name(d->peer));
        for (int i = 0; i < HM_PEER_PASSES && !*f->declined; i++) {
            if (!hm_cuda_bench_pass(bench, &own[i], why, sizeof why))
                hm_die(HM_EXIT_INTERNAL, "%s: %s", call->name, why);
            hm_peer_time(d->peer, &theirs[i], f->declined, sizeof f->declined);
        }
        if (!*f->declined) f->against = hm_peer_compare(own, theirs);
    }
    if (f->flops > 0 && !strcmp(d->program, HM_PEER_TORCH) && !hm_peer_gone(d->peer)) {
        const double n = HM_PEER_PRODUCT; /* in turn: both heat the device, and clocks follow */
        bool known = true;
        for (int i = 0; i < HM_PEER_PASSES && known; i++) {
            if (!hm_cuda_bench_pass(bench, &own[i], why, sizeof why))
                hm_die(HM_EXIT_INTERNAL, "%s: %s", call->name, why);
            known = hm_peer_product(d->peer, d->fp8, &theirs[i], why, sizeof why);
        }
        if (known) {
            const hm_peer_result r = hm_peer_compare(own, theirs);
            f->product = 2 * n * n * n / r.peer, f->beside = f->flops / r.own;
        }
    }
    if (!hm_peer_gone(d->peer)) return;
    hm_peer_close(d->peer); /* the next case has a new one */
    d->peer = NULL;
}

static void measure(bench_device *d, const hm_call *call, const char *line, figures *f) {
    static hm_cuda_times times;
    char why[256];
    int calls;
    hm_cuda_bench_input input = {.op = call->op,
                                 .function = d->fp8 ? call->op->cuda_fp8 : call->op->cuda,
                                 .args = call->args,
                                 .buffers = call->nbuffers,
                                 .least_bytes = f->bytes};
    for (int b = 0; b < call->nbuffers; b++)
        input.buffer[b] = call->buffer[b].base, input.buffer_size[b] = call->buffer[b].size;
    for (int i = 0; i < call->op->nargs; i++) {
        input.buffer_of[i] = call->buffer_of[i];
        if (call->buffer_of[i] >= 0) input.offset[i] = call->buffer[call->buffer_of[i]].offset[i];
    }
    hm_cuda_bench *bench = hm_cuda_bench_new(&input, &f->sets, &calls, why, sizeof why);
    if (!bench || !hm_cuda_bench_measure(bench, d->seconds, &times, why, sizeof why))
        hm_die(HM_EXIT_INTERNAL, "the case '%s': %s", line, why);
    if (call->op->flops) f->flops = call->op->flops(call->golden_args);
    if (d->program) time_peer(d, call, bench, calls, f);
    hm_cuda_bench_free(bench);
    f->op = timing_of(times.plain, times.runs), f->pdl = timing_of(times.pdl, times.runs);
    f->copy = timing_of(times.copy, times.runs), f->has_rows = times.has_rows;
    if (f->has_rows) f->rows = timing_of(times.rows, times.runs);
}

/* ---- printing ---- */

static const char *verdict_of(const hm_peer_result *r) {
    return r->faster > 0 ? "faster" : r->faster < 0 ? "slower" : "equal";
}

static void print_json(const bench_device *d, const hm_call *call, const char *judged, const figures *f) {
    double speed = (double)f->bytes / f->op.median, rate = f->flops / f->op.median;
    json_t *j =
        json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "op", call->op->name,
                  "case", call->name, "impl", d->impl, "device", d->can.device, "replays", f->op.runs, "sets", f->sets,
                  "bytes", (json_int_t)f->bytes, "seconds_q1", f->op.q1, "seconds_median", f->op.median, "seconds_q3",
                  f->op.q3, "seconds_pdl", f->pdl.median, "copy_seconds", f->copy.median, "gb_per_s", 1e-9 * speed,
                  "share", f->copy.median / f->op.median, "large_copy_share", speed / d->can.copy);
    if (*judged) json_object_set_new(j, "judged", json_string(judged));
    if (f->has_rows) json_object_set_new(j, "rows_copy_seconds", json_real(f->rows.median));
    if (f->flops > 0) {
        json_object_set_new(j, "flops", json_real(f->flops));
        json_object_set_new(j, "matrix_share_bf16", json_real(rate / d->can.matrix_bf16));
        if (d->can.matrix_fp8 > 0) json_object_set_new(j, "matrix_share_fp8", json_real(rate / d->can.matrix_fp8));
    }
    if (f->product > 0) {
        json_object_set_new(j, "flops_per_s_beside_torch", json_real(f->beside));
        json_object_set_new(j, "torch_product_flops_per_s", json_real(f->product));
        json_object_set_new(j, "share_of_torch_product", json_real(f->beside / f->product));
    }
    if (d->program && *f->declined) json_object_set_new(j, "peer_declined", json_string(f->declined));
    else if (d->program)
        json_object_set_new(j, "peer",
                            json_pack("{s:s, s:f, s:f, s:f, s:f, s:s}", "name", f->peer, "seconds", f->against.peer,
                                      "spread", f->against.peer_spread, "own_seconds", f->against.own, "own_spread",
                                      f->against.own_spread, "verdict", verdict_of(&f->against)));
    char *text = json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(6));
    if (!text) hm_die(HM_EXIT_INTERNAL, "out of memory");
    puts(text);
    free(text);
    json_decref(j);
}

const char *bench_device_columns(const bench_device *d) {
#define COLUMNS \
    ">us\t>quartiles\t>pdl us\t>GB/s\t>copy us\t>share\t>rows us\t>share\t>TFLOP/s\t>of peak\t>of 2 GiB copy\t>sets\t"
    return d->program ? COLUMNS ">again us\t>peer us\tagainst it\t>again TFLOP/s\t>torch's\t>of that\tcase"
                      : COLUMNS "case";
#undef COLUMNS
}

static void print_row(const bench_device *d, const figures *f, const char *line, hm_table *table) {
    char rows[64] = "\t", matrix[64] = "\t", peer[128] = "", product[64] = "";
    double speed = (double)f->bytes / f->op.median, peak = d->fp8 ? d->can.matrix_fp8 : d->can.matrix_bf16;
    if (f->has_rows)
        snprintf(rows, sizeof rows, "%.2f\t%.1f %%", 1e6 * f->rows.median, 100 * f->rows.median / f->op.median);
    if (f->flops > 0 && peak > 0)
        snprintf(matrix, sizeof matrix, "%.3g\t%.1f %%", 1e-12 * f->flops / f->op.median,
                 100 * f->flops / f->op.median / peak);
    if (d->program && *f->declined) snprintf(peer, sizeof peer, "\t\t\t-");
    else if (d->program)
        snprintf(peer, sizeof peer, "\t%.2f +- %.2f\t%.2f +- %.2f\t%s", 1e6 * f->against.own,
                 1e6 * f->against.own_spread, 1e6 * f->against.peer, 1e6 * f->against.peer_spread,
                 verdict_of(&f->against));
    if (d->program && f->product > 0)
        snprintf(product, sizeof product, "\t%.3g\t%.3g\t%.1f %%", 1e-12 * f->beside, 1e-12 * f->product,
                 100 * f->beside / f->product);
    else if (d->program) snprintf(product, sizeof product, "\t\t\t");
    hm_table_row(table, "%.2f\t%.2f..%.2f\t%.2f\t%.0f\t%.2f\t%.1f %%\t%s\t%s\t%.1f %%\t%d%s%s\t%s", 1e6 * f->op.median,
                 1e6 * f->op.q1, 1e6 * f->op.q3, 1e6 * f->pdl.median, 1e-9 * speed, 1e6 * f->copy.median,
                 100 * f->copy.median / f->op.median, rows, matrix, 100 * speed / d->can.copy, f->sets, peer, product,
                 line);
}

void bench_device_time(bench_device *d, const hm_call *call, size_t bytes, const char *line, const char *judged,
                       hm_table *table, hm_progress *progress) {
    figures f = {.bytes = bytes};
    measure(d, call, line, &f);
    if (*f.declined && !d->json) {
        hm_progress_clear(progress);
        fprintf(stderr, "no peer for %s: %s\n", line, f.declined);
    }
    if (d->json) print_json(d, call, judged, &f);
    else print_row(d, &f, line, table);
}

void bench_device_print(const bench_device *d) {
    const hm_cuda_ceilings *c = &d->can;
    printf("%s on %s, by graph replay\n", d->impl, c->device);
    printf(
        "2 GiB: copy %.0f GB/s (read and written), read %.0f, write %.0f; an empty kernel %.2f us, with pdl %.2f, "
        "alone in its graph %.2f\n",
        1e-9 * c->copy, 1e-9 * c->read, 1e-9 * c->write, 1e6 * c->empty, 1e6 * c->empty_pdl, 1e6 * c->empty_alone);
    printf("tensor cores: bf16 %.0f TFLOP/s", 1e-12 * c->matrix_bf16);
    if (c->matrix_fp8 > 0) printf(", fp8 %.0f", 1e-12 * c->matrix_fp8);
    puts("");
}
#else /* no case is timed: none is provided */
bench_device *bench_device_open(const char *impl, double seconds, const char *peer, bool json) {
    (void)impl, (void)seconds, (void)peer, (void)json;
    return NULL;
}
const char *bench_device_columns(const bench_device *d) { return (void)d, "case"; }
void bench_device_time(bench_device *d, const hm_call *call, size_t bytes, const char *line, const char *judged,
                       hm_table *table, hm_progress *progress) {
    (void)d, (void)call, (void)bytes, (void)line, (void)judged, (void)table, (void)progress;
}
void bench_device_print(const bench_device *d) { (void)d; }
void bench_device_close(bench_device *d) { (void)d; }
#endif
