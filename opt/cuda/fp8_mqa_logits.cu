/* fp8_mqa_logits: prefill. */
#include "logits_flat_sm90.cuh"

static const char op[] = "fp8_mqa_logits";

namespace {

hm_status run(const hm_fp8_mqa_logits_args *args, bool fp8) {
    hm_fp8_mqa_logits_args a;
    hm_status s = hm_fp8_mqa_logits_read(args, &a);
    if (s) return s;
    if (a.logits.place != HM_CUDA) return hm_fail(HM_UNSUPPORTED, "%s: cuda works on device tensors only", op);
    if ((s = hm_cuda_ready(op)) || hm_tensor_elements(&a.logits) == 0) return s;
    const hm::logits_params p = hm::logits_params_of(a);
    if (fp8 && !p.fnuz) return hm::launch_flat<true>(op, p, a.stream); /* f8 units know no e4m3fnuz */
    return hm::launch_flat<false>(op, p, a.stream);
}

} // namespace

extern "C" hm_status hm_fp8_mqa_logits_cuda(const hm_fp8_mqa_logits_args *args) { return run(args, false); }

extern "C" hm_status hm_fp8_mqa_logits_cuda_fp8(const hm_fp8_mqa_logits_args *args) { return run(args, true); }
