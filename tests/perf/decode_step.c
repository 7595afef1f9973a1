/* One decode step of a DeepSeek-V3.2 layer's sparse attention on this CPU: how long, and in how much memory.
 *
 *   decode_step [CONTEXT [REPEATS]]     32768 and 20 unless told
 *
 * One token against CONTEXT keys in pages of 64 that do not follow each other: norm of the indexer's key, rotations, fp8
 * cache, 64 x 128 logits, the 2048 best, attention of 128 heads over them; first with the latent cache in bf16, then in
 * fp8 (656 bytes an entry). Projections are not in it. Prints the median of each op in microseconds, the sum, and the peak
 * memory of the process; exit 1 if an op fails or if what is selected or attended is not sound. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include <hallmark/concat_mla_q.h>
#include <hallmark/fp8_paged_mqa_logits.h>
#include <hallmark/hallmark.h>
#include <hallmark/index_weights.h>
#include <hallmark/indexer_k_quant_and_cache.h>
#include <hallmark/layer_norm.h>
#include <hallmark/quant_fp8_group.h>
#include <hallmark/rope_table.h>
#include <hallmark/rotary_embedding.h>
#include <hallmark/sparse_mla_decode.h>
#include <hallmark/top_k_per_row.h>
#include <hallmark/translate_indices.h>

enum { INDEX_HEADS = 64, INDEX_DIM = 128, HEADS = 128, LATENT = 512, ROPE = 64, TOP_K = 2048, PAGE = 64, MOST = 1000 };

static const char *const step[] = {"layer_norm",
                                   "rotary_embedding (indexer)",
                                   "indexer_k_quant_and_cache",
                                   "quant_fp8_group",
                                   "index_weights",
                                   "fp8_paged_mqa_logits",
                                   "top_k_per_row",
                                   "translate_indices",
                                   "rotary_embedding (attention)",
                                   "concat_mla_q",
                                   "concat_and_cache_mla",
                                   "sparse_mla_decode"};
enum { STEPS = sizeof step / sizeof *step };
static double took[STEPS][MOST];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static void *room(size_t bytes) {
    void *p = calloc(bytes ? bytes : 1, 1);
    if (!p) fprintf(stderr, "decode_step: no memory for %zu bytes\n", bytes), exit(1);
    return p;
}

static hm_tensor tensor(hm_dtype dtype, size_t size, int64_t a, int64_t b, int64_t c) {
    int64_t shape[3] = {a, b, c};
    int ndim = c ? 3 : b ? 2 : 1;
    return hm_tensor_of(room((size_t)(a * (b ? b : 1) * (c ? c : 1)) * size), dtype, ndim, shape);
}

/* Uniform in -1 .. 1, rounded to bf16 by truncation: any values do. */
static float noise(void) {
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(state >> 32) * 0x1p-31f;
}

static void fill(hm_tensor *t) {
    for (int64_t i = 0, n = hm_tensor_elements(t); i < n; i++) {
        union {
            float f;
            uint32_t bits;
        } v = {noise()};
        if (t->dtype == HM_F32) ((float *)t->data)[i] = v.f;
        else ((uint16_t *)t->data)[i] = (uint16_t)(v.bits >> 16);
    }
}

static hm_tensor bf16(int64_t a, int64_t b, int64_t c) {
    hm_tensor t = tensor(HM_BF16, 2, a, b, c);
    fill(&t);
    return t;
}

static void must(hm_status status) {
    if (status) fprintf(stderr, "decode_step: %s\n", hm_error()), exit(1);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, ascending);
    return v[n / 2];
}

int main(int argc, char **argv) {
    int64_t context = argc > 1 ? atoll(argv[1]) : 32768;
    int repeats = argc > 2 ? atoi(argv[2]) : 20;
    if (argc > 3 || context < TOP_K || context > 1 << 20 || repeats < 1 || repeats > MOST) {
        fprintf(stderr, "usage: decode_step [CONTEXT [REPEATS]]   %d to %d keys, 1 to %d times\n", TOP_K, 1 << 20,
                MOST);
        return 2;
    }
    int64_t pages = (context + PAGE - 1) / PAGE;

    hm_tensor lens = tensor(HM_I32, 4, 1, 0, 0), table = tensor(HM_I32, 4, 1, pages, 0),
              slot = tensor(HM_I64, 8, 1, 0, 0);
    hm_tensor position = tensor(HM_I64, 8, 1, 0, 0), request = tensor(HM_I32, 4, 1, 0, 0);
    *(int32_t *)lens.data = (int32_t)context;
    *(int64_t *)position.data = context - 1;
    for (int64_t i = 0; i < pages; i++) ((int32_t *)table.data)[i] = (int32_t)(pages - 1 - i);
    *(int64_t *)slot.data = (int64_t)((int32_t *)table.data)[(context - 1) / PAGE] * PAGE + (context - 1) % PAGE;

    hm_tensor cos_sin = tensor(HM_F32, 4, context, ROPE, 0);
    must(hm_rope_table(HM_ARGS(rope_table, .out = cos_sin, .base = 10000)));

    hm_tensor index_q = bf16(1, INDEX_HEADS, INDEX_DIM), index_k = bf16(1, INDEX_DIM, 0),
              weights = bf16(1, INDEX_HEADS, 0);
    hm_tensor norm_weight = tensor(HM_F32, 4, INDEX_DIM, 0, 0), norm_bias = tensor(HM_F32, 4, INDEX_DIM, 0, 0);
    fill(&norm_weight), fill(&norm_bias);
    hm_tensor k1 = bf16(1, INDEX_DIM, 0), k2 = bf16(1, INDEX_DIM, 0), q2 = bf16(1, INDEX_HEADS, INDEX_DIM);
    hm_tensor codes = tensor(HM_F8E4M3, 1, 1, INDEX_HEADS, INDEX_DIM), scales = tensor(HM_F32, 4, 1, INDEX_HEADS, 1);
    hm_tensor w = tensor(HM_F32, 4, 1, INDEX_HEADS, 0), keys = tensor(HM_U8, 1, pages, PAGE, 132);
    hm_tensor logits = tensor(HM_F32, 4, 1, context, 0), chosen = tensor(HM_I32, 4, 1, TOP_K, 0);
    hm_tensor slots = tensor(HM_I32, 4, 1, TOP_K, 0);

    hm_tensor nope = bf16(1, HEADS, LATENT), q_pe = bf16(1, HEADS, ROPE), rotated = bf16(1, HEADS, ROPE);
    hm_tensor q = bf16(1, HEADS, LATENT + ROPE), latent = bf16(1, LATENT, 0), k_pe = bf16(1, ROPE, 0),
              k_rotated = bf16(1, ROPE, 0);
    hm_tensor out = bf16(1, HEADS, LATENT), lse = tensor(HM_F32, 4, 1, HEADS, 0);

    /* The keys that are there already: written by the library's own writers. */
    hm_tensor all_slots = tensor(HM_I64, 8, pages * PAGE, 0, 0), all_keys = bf16(pages * PAGE, INDEX_DIM, 0);
    for (int64_t i = 0; i < pages * PAGE; i++) ((int64_t *)all_slots.data)[i] = i;
    must(hm_indexer_k_quant_and_cache(HM_ARGS(indexer_k_quant_and_cache, .kv_cache = keys, .k = all_keys,
                                              .slot_mapping = all_slots, .scale_format = HM_SCALE_UE8M0)));
    free(all_keys.data);

    for (int fp8 = 0; fp8 < 2; fp8++) {
        hm_mla_format format = fp8 ? HM_MLA_FP8_DS : HM_MLA_BF16;
        hm_tensor cache = fp8 ? tensor(HM_U8, 1, pages, PAGE, 656) : tensor(HM_BF16, 2, pages, PAGE, LATENT + ROPE);
        hm_tensor all_latents = bf16(pages * PAGE, LATENT, 0), all_ropes = bf16(pages * PAGE, ROPE, 0);
        must(hm_concat_and_cache_mla(HM_ARGS(concat_and_cache_mla, .kv_cache = cache, .kv_c = all_latents,
                                             .k_pe = all_ropes, .slot_mapping = all_slots, .format = format)));
        free(all_latents.data), free(all_ropes.data);

        for (int r = 0; r < repeats; r++) {
            double start = now();
            int s = 0;
#define STEP(call) (must(call), took[s++][r] = now() - start, start = now())
            STEP(hm_layer_norm(
                HM_ARGS(layer_norm, .out = k1, .x = index_k, .weight = norm_weight, .bias = norm_bias, .eps = 1e-6)));
            hm_tensor k1_head = k1, k2_head = k2;
            k1_head.ndim = k2_head.ndim = 3;
            k1_head.shape[1] = k2_head.shape[1] = 1, k1_head.shape[2] = k2_head.shape[2] = INDEX_DIM;
            k1_head.stride[1] = k2_head.stride[1] = INDEX_DIM, k1_head.stride[2] = k2_head.stride[2] = 1;
            STEP(hm_rotary_embedding(HM_ARGS(rotary_embedding, .query_out = q2, .key_out = k2_head, .query = index_q,
                                             .key = k1_head, .positions = position, .cos_sin_cache = cos_sin)));
            STEP(hm_indexer_k_quant_and_cache(HM_ARGS(indexer_k_quant_and_cache, .kv_cache = keys, .k = k2,
                                                      .slot_mapping = slot, .scale_format = HM_SCALE_UE8M0)));
            STEP(hm_quant_fp8_group(
                HM_ARGS(quant_fp8_group, .codes = codes, .scale = scales, .x = q2, .scale_format = HM_SCALE_UE8M0)));
            hm_tensor q_scale = scales;
            q_scale.ndim = 2;
            STEP(hm_index_weights(HM_ARGS(index_weights, .out = w, .weights = weights, .q_scale = q_scale)));
            hm_tensor q4 = codes;
            q4.ndim = 4;
            q4.shape[0] = q4.shape[1] = 1, q4.shape[2] = INDEX_HEADS, q4.shape[3] = INDEX_DIM;
            q4.stride[0] = q4.stride[1] = INDEX_HEADS * INDEX_DIM, q4.stride[2] = INDEX_DIM, q4.stride[3] = 1;
            STEP(hm_fp8_paged_mqa_logits(HM_ARGS(fp8_paged_mqa_logits, .logits = logits, .q = q4, .kv_cache = keys,
                                                 .weights = w, .context_lens = lens, .block_tables = table)));
            STEP(hm_top_k_per_row(HM_ARGS(top_k_per_row, .indices = chosen, .logits = logits, .seq_lens = lens)));
            STEP(hm_translate_indices(HM_ARGS(translate_indices, .out = slots, .indices = chosen, .req_id = request,
                                              .block_table = table, .block_size = PAGE)));
            hm_tensor pe_head = k_pe, pe_out = k_rotated;
            pe_head.ndim = pe_out.ndim = 3;
            pe_head.shape[1] = pe_out.shape[1] = 1, pe_head.shape[2] = pe_out.shape[2] = ROPE;
            pe_head.stride[1] = pe_out.stride[1] = ROPE, pe_head.stride[2] = pe_out.stride[2] = 1;
            STEP(hm_rotary_embedding(HM_ARGS(rotary_embedding, .query_out = rotated, .key_out = pe_out, .query = q_pe,
                                             .key = pe_head, .positions = position, .cos_sin_cache = cos_sin,
                                             .pairing = HM_PAIR_INTERLEAVED)));
            STEP(hm_concat_mla_q(HM_ARGS(concat_mla_q, .q_out = q, .ql_nope = nope, .q_pe = rotated)));
            STEP(hm_concat_and_cache_mla(HM_ARGS(concat_and_cache_mla, .kv_cache = cache, .kv_c = latent,
                                                 .k_pe = k_rotated, .slot_mapping = slot, .format = format)));
            STEP(hm_sparse_mla_decode(
                HM_ARGS(sparse_mla_decode, .out = out, .lse = lse, .q = q, .kv_cache = cache, .indices = slots)));
#undef STEP
        }
        for (int64_t i = 0; i < TOP_K; i++) {
            int32_t index = ((int32_t *)chosen.data)[i];
            if (index < 0 || index >= context) return fprintf(stderr, "decode_step: index %d was selected\n", index), 1;
        }
        for (int64_t h = 0; h < HEADS; h++)
            if (!isfinite(((float *)lse.data)[h]))
                return fprintf(stderr, "decode_step: lse[%d] is not finite\n", (int)h), 1;

        printf("%s cache, %lld keys, median of %d, microseconds\n", fp8 ? "fp8_ds_mla" : "bf16", (long long)context,
               repeats);
        double sum = 0;
        for (int s = 0; s < STEPS; s++) {
            double m = median(took[s], repeats);
            sum += m;
            printf("%10.1f  %s\n", m, step[s]);
        }
        printf("%10.1f  together\n", sum);
        free(cache.data);
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("peak memory %.0f MiB\n", (double)usage.ru_maxrss / 1024);
    return 0;
}
