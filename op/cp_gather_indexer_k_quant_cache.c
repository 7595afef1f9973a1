#include "check.h"
#include "indexer_cache.h"
#include "op.h"

static const char op[] = "cp_gather_indexer_k_quant_cache";
static const char *const layout_names[] = {"normal", "shuffle", NULL};

static hm_status check_requests(const hm_cp_gather_indexer_k_quant_cache_args *a, const hm_indexer_cache *c) {
    if (a->kv_cache.place != HM_HOST) return HM_OK; /* to look at them would wait for the device */
    int64_t requests = a->block_table.shape[0], before = hm_integer_at(&a->cu_seq_lens, 0);
    if (before < 0)
        return hm_fail(HM_BAD_VALUE, "%s: cu_seq_lens begins with %lld; it has to be 0 or more", op, (long long)before);
    for (int64_t r = 0; r < requests; r++) {
        int64_t end = hm_integer_at(&a->cu_seq_lens, r + 1), length = end - before;
        if (length < 0 || end > a->dst_k.shape[0])
            return hm_fail(HM_BAD_VALUE,
                           "%s: cu_seq_lens holds %lld and then %lld for request %lld; it has to ascend up to the "
                           "%lld rows of dst_k",
                           op, (long long)before, (long long)end, (long long)r, (long long)a->dst_k.shape[0]);
        int64_t blocks = c->block_size > 0 ? (length + c->block_size - 1) / c->block_size : length > 0 ? INT64_MAX : 0;
        if (blocks > a->block_table.shape[1])
            return hm_fail(HM_BAD_VALUE,
                           "%s: request %lld has %lld rows by cu_seq_lens; the %lld blocks of its row of "
                           "block_table hold fewer",
                           op, (long long)r, (long long)length, (long long)a->block_table.shape[1]);
        for (int64_t b = 0; b < blocks; b++) {
            int64_t block = hm_integer_at2(&a->block_table, r, b);
            if (block < 0 || block >= c->num_blocks)
                return hm_fail(HM_BAD_VALUE,
                               "%s: block_table holds %lld for block %lld of request %lld; it has to be 0 to %lld", op,
                               (long long)block, (long long)b, (long long)r, (long long)c->num_blocks - 1);
        }
        before = end;
    }
    return HM_OK;
}

static hm_status check_outputs(const hm_cp_gather_indexer_k_quant_cache_args *a, const hm_indexer_cache *c) {
    const hm_tensor *k = &a->dst_k, *scale = &a->dst_scale;
    if (k->dtype != HM_U8 && k->dtype != HM_F8E4M3 && k->dtype != HM_F8E4M3FNUZ)
        return hm_fail(HM_BAD_DTYPE, "%s: dst_k is %s; it has to be u8, f8e4m3 or f8e4m3fnuz", op,
                       hm_dtype_name(k->dtype));
    if (scale->dtype != HM_U8 && scale->dtype != HM_F32)
        return hm_fail(HM_BAD_DTYPE, "%s: dst_scale is %s; it has to be u8 or f32", op, hm_dtype_name(scale->dtype));
    if (k->ndim != 2 || k->shape[1] != c->head_dim)
        return hm_fail(HM_BAD_SHAPE,
                       "%s: dst_k has rank %d and last extent %lld; it has to be [rows, %lld], as the entries of "
                       "kv_cache say",
                       op, k->ndim, (long long)k->shape[k->ndim - 1], (long long)c->head_dim);
    int64_t width = scale->dtype == HM_U8 ? 4 * c->groups : c->groups;
    if (scale->ndim != 2 || scale->shape[0] != k->shape[0] || scale->shape[1] != width)
        return hm_fail(HM_BAD_SHAPE,
                       "%s: dst_scale has rank %d, extents %lld and %lld; it has to be [%lld, %lld] in %s", op,
                       scale->ndim, (long long)scale->shape[0], (long long)scale->shape[scale->ndim - 1],
                       (long long)k->shape[0], (long long)width, hm_dtype_name(scale->dtype));
    return HM_OK;
}

static hm_status check_integers(const hm_cp_gather_indexer_k_quant_cache_args *a) {
    const hm_tensor *table = &a->block_table, *cu = &a->cu_seq_lens;
    if (table->dtype != HM_I32)
        return hm_fail(HM_BAD_DTYPE, "%s: block_table is %s; it has to be i32", op, hm_dtype_name(table->dtype));
    if (cu->dtype != HM_I32)
        return hm_fail(HM_BAD_DTYPE, "%s: cu_seq_lens is %s; it has to be i32", op, hm_dtype_name(cu->dtype));
    if (table->ndim != 2)
        return hm_fail(HM_BAD_SHAPE, "%s: block_table has rank %d; it has to be 2: [requests, max_blocks]", op,
                       table->ndim);
    if (cu->ndim != 1 || cu->shape[0] != table->shape[0] + 1)
        return hm_fail(HM_BAD_SHAPE,
                       "%s: cu_seq_lens has rank %d and extent %lld; it has to be [%lld], one more than the "
                       "requests of block_table",
                       op, cu->ndim, (long long)cu->shape[0], (long long)table->shape[0] + 1);
    return HM_OK;
}

hm_status hm_cp_gather_indexer_k_quant_cache_read(const hm_cp_gather_indexer_k_quant_cache_args *args,
                                                  hm_cp_gather_indexer_k_quant_cache_args *a, hm_indexer_cache *cache) {
    hm_status s;
    if ((s = hm_read_args(op, args, a, sizeof *a))) return s;
    static const char *const name[] = {"kv_cache", "block_table", "cu_seq_lens", "dst_k", "dst_scale"};
    const hm_tensor *const t[] = {&a->kv_cache, &a->block_table, &a->cu_seq_lens, &a->dst_k, &a->dst_scale};
    for (int i = 0; i < 5; i++)
        if ((s = hm_check_tensor(op, name[i], t[i], true))) return s;
    if ((s = hm_check_mode(op, "layout", a->layout, 2))) return s;
    if ((s = hm_indexer_cache_read(op, &a->kv_cache, a->layout, cache))) return s;
    if ((s = check_integers(a))) return s;
    if ((s = check_outputs(a, cache))) return s;
    if ((s = hm_check_places(op, 5, name, t))) return s;
    for (int i = 3; i < 5; i++) {
        if ((s = hm_check_distinct(op, name[i], t[i]))) return s;
        for (int j = 0; j < i; j++)
            if ((s = hm_check_overlap(op, name[i], t[i], name[j], t[j], false))) return s;
    }
    return check_requests(a, cache);
}

hm_status hm_cp_gather_indexer_k_quant_cache_check(const hm_cp_gather_indexer_k_quant_cache_args *args) {
    hm_cp_gather_indexer_k_quant_cache_args full;
    hm_indexer_cache cache;
    return hm_cp_gather_indexer_k_quant_cache_read(args, &full, &cache);
}

HM_OP_FUNCTIONS(cp_gather_indexer_k_quant_cache, dst_k)

#define AT(field) offsetof(hm_cp_gather_indexer_k_quant_cache_args, field)
static const hm_arg_info args[] = {
    {"kv_cache", AT(kv_cache), HM_IN, false, "num_blocks,block_size,entry", "u8", NULL, "the paged cache", NULL},
    {"cu_seq_lens", AT(cu_seq_lens), HM_IN, false, "bounds", "i32", NULL, "first row of each request, and the end",
     NULL},
    {"block_table", AT(block_table), HM_IN, false, "requests,max_blocks", "i32", NULL, "blocks of each request", NULL},
    {"dst_k", AT(dst_k), HM_INOUT, false, "rows,head_dim", "u8 f8e4m3 f8e4m3fnuz", NULL, "codes", NULL},
    {"dst_scale", AT(dst_scale), HM_INOUT, false, "rows,scale_width", "u8 f32", NULL, "scales", NULL},
};
static const hm_param_info params[] = {
    {"layout", AT(layout), HM_PARAM_MODE, layout_names, HM_LAYOUT_NORMAL, "token by token, or in tiles of 16 by 16"},
};
const hm_op_info hm_cp_gather_indexer_k_quant_cache_info = {
    .name = op,
    .about = "collects the indexer's keys of several requests from its paged cache",
    .contract = 1,
    .args_size = sizeof(hm_cp_gather_indexer_k_quant_cache_args),
    .args = args,
    .nargs = sizeof args / sizeof *args,
    .params = params,
    .nparams = sizeof params / sizeof *params,
    .classes = "wide",
    .class_required = "wide",
    HM_OP_CALLS,
};
