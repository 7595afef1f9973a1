/* fp8_paged_mqa_logits: decode. */
#include "logits_sm90.cuh"

static const char op[] = "fp8_paged_mqa_logits";

namespace {

hm_status run(const hm_fp8_paged_mqa_logits_args *args, bool fp8) {
    hm_fp8_paged_mqa_logits_args a;
    hm_indexer_cache c;
    hm_status s = hm_fp8_paged_mqa_logits_read(args, &a, &c);
    if (s) return s;
    if (a.logits.place != HM_CUDA) return hm_fail(HM_UNSUPPORTED, "%s: cuda works on device tensors only", op);
    if ((s = hm_cuda_ready(op)) || hm_tensor_elements(&a.logits) == 0) return s;
    const hm::logits_params p = hm::logits_params_of(a, c);
    if (fp8 && !p.fnuz) /* f8 units know no e4m3fnuz */
        return hm::launch_paged<true, hm::paged_plain_queries, hm::plain_queries>(op, p, p, a.stream);
    return hm::launch_paged<false, hm::paged_plain_queries, hm::plain_queries>(op, p, p, a.stream);
}

} // namespace

extern "C" hm_status hm_fp8_paged_mqa_logits_cuda(const hm_fp8_paged_mqa_logits_args *args) { return run(args, false); }

extern "C" hm_status hm_fp8_paged_mqa_logits_cuda_fp8(const hm_fp8_paged_mqa_logits_args *args) {
    return run(args, true);
}
