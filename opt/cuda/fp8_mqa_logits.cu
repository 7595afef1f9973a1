/* fp8_mqa_logits: prefill. */
#include "logits.cuh"

static const char op[] = "fp8_mqa_logits";

extern "C" hm_status hm_fp8_mqa_logits_cuda(const hm_fp8_mqa_logits_args *args) {
    hm_fp8_mqa_logits_args a;
    hm_status s = hm_fp8_mqa_logits_read(args, &a);
    if (s) return s;
    if (a.logits.place != HM_CUDA) return hm_fail(HM_UNSUPPORTED, "%s: cuda works on device tensors only", op);
    if ((s = hm_cuda_ready(op)) || hm_tensor_elements(&a.logits) == 0) return s;
    const hm::logits_params p = hm::logits_params_of(a);
    return hm::launch(op, hm::score_any<false, hm::plain_queries>, p.end, dim3(hm::ANY_THREADS), 0, a.stream, p);
}

extern "C" hm_status hm_fp8_mqa_logits_cuda_fp8(const hm_fp8_mqa_logits_args *args) {
    return hm_fp8_mqa_logits_cuda(args);
}
