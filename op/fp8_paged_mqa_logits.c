#include "check.h"
#include "flops.h"
#include "fp8.h"
#include "logits.h"
#include "op.h"

static const char op[] = "fp8_paged_mqa_logits";
static const char *const outside_names[] = {"clean", "leave", NULL};
static const char *const layout_names[] = {"normal", "shuffle", NULL};

static hm_status check_shapes(const hm_fp8_paged_mqa_logits_args *a, const hm_indexer_cache *c) {
    hm_status s;
    const hm_tensor *q = &a->q, *lens = &a->context_lens;
    int64_t rows;
    if ((s = hm_check_extent(op, "q", q, 4, 3, HM_INDEXER_GROUP, "the head_dim of the cache"))) return s;
    if (c->groups != 1)
        return hm_fail(HM_BAD_SHAPE, "%s: kv_cache has entries of %lld bytes; it has to be 132", op,
                       (long long)c->entry);
    if (__builtin_mul_overflow(q->shape[0], q->shape[1], &rows))
        return hm_fail(HM_BAD_SHAPE, "%s: q has more than 2^63 rows", op);
    if ((s = hm_check_extent(op, "weights", &a->weights, 2, 0, rows, "batch times next_n of q"))) return s;
    if ((s = hm_check_extent(op, "weights", &a->weights, 2, 1, q->shape[2], "one a head of q"))) return s;
    if (lens->ndim != 1 && lens->ndim != 2)
        return hm_fail(HM_BAD_SHAPE, "%s: context_lens has rank %d; it has to be 1 or 2", op, lens->ndim);
    if ((s = hm_check_extent(op, "context_lens", lens, lens->ndim, 0, q->shape[0], "the batch of q"))) return s;
    if (lens->ndim == 2 && (s = hm_check_extent(op, "context_lens", lens, 2, 1, q->shape[1], "the next_n of q")))
        return s;
    if ((s = hm_check_extent(op, "block_tables", &a->block_tables, 2, 0, q->shape[0], "the batch of q"))) return s;
    return hm_check_extent(op, "logits", &a->logits, 2, 0, rows, "batch times next_n of q");
}

static hm_status check_dtypes(const hm_fp8_paged_mqa_logits_args *a) {
    static const char *const f32_name[] = {"weights", "logits"}, *const i32_name[] = {"context_lens", "block_tables"};
    const hm_tensor *const f32[] = {&a->weights, &a->logits}, *const i32[] = {&a->context_lens, &a->block_tables};
    if (a->q.dtype != HM_F8E4M3 && a->q.dtype != HM_F8E4M3FNUZ)
        return hm_fail(HM_BAD_DTYPE, "%s: q is %s; it has to be f8e4m3 or f8e4m3fnuz", op, hm_dtype_name(a->q.dtype));
    for (int i = 0; i < 2; i++) {
        if (f32[i]->dtype != HM_F32)
            return hm_fail(HM_BAD_DTYPE, "%s: %s is %s; it has to be f32", op, f32_name[i],
                           hm_dtype_name(f32[i]->dtype));
        if (i32[i]->dtype != HM_I32)
            return hm_fail(HM_BAD_DTYPE, "%s: %s is %s; it has to be i32", op, i32_name[i],
                           hm_dtype_name(i32[i]->dtype));
    }
    return HM_OK;
}

static hm_status check_requests(const hm_fp8_paged_mqa_logits_args *a, const hm_indexer_cache *c) {
    if (a->q.place != HM_HOST) return HM_OK; /* to look at them would wait for the device */
    hm_logits_call call = {.paged = true, .pages = *a};
    int64_t next_n = a->q.shape[1], width = a->logits.shape[1];
    for (int64_t row = 0; row < a->q.shape[0] * next_n; row++) {
        int64_t first, end, shift, b = row / next_n;
        hm_logits_columns_of(&call, row, &first, &end, &shift);
        if (end > width)
            return hm_fail(HM_BAD_VALUE, "%s: context_lens gives row %lld %lld keys; logits has %lld columns", op,
                           (long long)row, (long long)end, (long long)width);
        int64_t blocks = c->block_size > 0 ? (end + c->block_size - 1) / c->block_size : end > 0 ? INT64_MAX : 0;
        if (blocks > a->block_tables.shape[1])
            return hm_fail(HM_BAD_VALUE,
                           "%s: context_lens gives row %lld %lld keys; the %lld blocks of its row of block_tables "
                           "hold fewer",
                           op, (long long)row, (long long)end, (long long)a->block_tables.shape[1]);
        for (int64_t i = 0; i < blocks; i++) {
            int64_t block = hm_integer_at2(&a->block_tables, b, i);
            if (block < 0 || block >= c->num_blocks)
                return hm_fail(HM_BAD_VALUE,
                               "%s: block_tables holds %lld for block %lld of request %lld; it has to be 0 to %lld", op,
                               (long long)block, (long long)i, (long long)b, (long long)c->num_blocks - 1);
        }
    }
    return HM_OK;
}

hm_status hm_fp8_paged_mqa_logits_read(const hm_fp8_paged_mqa_logits_args *args, hm_fp8_paged_mqa_logits_args *a,
                                       hm_indexer_cache *cache) {
    hm_status s;
    if ((s = hm_read_args(op, args, a, sizeof *a))) return s;
    static const char *const name[] = {"q", "kv_cache", "weights", "context_lens", "block_tables", "logits"};
    const hm_tensor *const t[] = {&a->q, &a->kv_cache, &a->weights, &a->context_lens, &a->block_tables, &a->logits};
    for (int i = 0; i < 6; i++)
        if ((s = hm_check_tensor(op, name[i], t[i], true))) return s;
    if ((s = hm_check_mode(op, "layout", a->layout, 2))) return s;
    if ((s = hm_check_mode(op, "outside", a->outside, 2))) return s;
    if ((s = check_dtypes(a))) return s;
    if ((s = hm_indexer_cache_read(op, &a->kv_cache, a->layout, cache))) return s;
    if ((s = check_shapes(a, cache))) return s;
    if ((s = hm_check_places(op, 6, name, t))) return s;
    if ((s = hm_check_distinct(op, "logits", &a->logits))) return s;
    for (int i = 0; i < 5; i++)
        if ((s = hm_check_overlap(op, "logits", &a->logits, name[i], t[i], false))) return s;
    return check_requests(a, cache);
}

hm_status hm_fp8_paged_mqa_logits_check(const hm_fp8_paged_mqa_logits_args *args) {
    hm_fp8_paged_mqa_logits_args full;
    hm_indexer_cache cache;
    return hm_fp8_paged_mqa_logits_read(args, &full, &cache);
}

HM_OP_FUNCTIONS(fp8_paged_mqa_logits, logits)
HM_OP_CUDA(fp8_paged_mqa_logits, cuda_fp8)

#define AT(field) offsetof(hm_fp8_paged_mqa_logits_args, field)
static const hm_arg_info args[] = {
    {"q", AT(q), HM_IN, false, "batch,next_n,heads,head_dim", "f8e4m3 f8e4m3fnuz", NULL, "queries", NULL},
    {"context_lens", AT(context_lens), HM_IN, false, "batch", "i32", NULL, "keys of each request, or of each row",
     NULL},
    {"block_tables", AT(block_tables), HM_IN, false, "batch,max_blocks", "i32", NULL, "blocks of each request", NULL},
    {"kv_cache", AT(kv_cache), HM_IN, false, "num_blocks,block_size,entry", "u8", NULL, "the paged cache", NULL},
    {"weights", AT(weights), HM_IN, false, "rows,heads", "f32", NULL, "weight of each head", NULL},
    {"logits", AT(logits), HM_OUT, false, "rows,width", "f32", NULL, "scores", NULL},
};
static const hm_param_info params[] = {
    {"layout", AT(layout), HM_PARAM_MODE, layout_names, HM_LAYOUT_NORMAL, "token by token, or in tiles of 16 by 16"},
    {"outside", AT(outside), HM_PARAM_MODE, outside_names, HM_LOGITS_CLEAN, "-inf where there is no key, or anything"},
};
const hm_op_info hm_fp8_paged_mqa_logits_info = {
    .name = op,
    .about = "the sparse indexer's score of every cached key for a request's last tokens",
    .contract = 1,
    .args_size = sizeof(hm_fp8_paged_mqa_logits_args),
    .args = args,
    .nargs = sizeof args / sizeof *args,
    .params = params,
    .nparams = sizeof params / sizeof *params,
    .classes = "wide chain64 chain512 any tc23 tc13",
    .class_required = "tc23",
    .flops = hm_fp8_paged_mqa_logits_flops,
    HM_OP_CALLS,
    .cuda_fp8 = HM_OP_IF_CUDA(call_cuda_fp8),
};
