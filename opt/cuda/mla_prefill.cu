/* mla_prefill: mla.cuh with keys that lie side by side, mla_pair_sm90.cuh on Hopper. */
#include "mla_pair_sm90.cuh"

static const char op[] = "mla_prefill";

extern "C" hm_status hm_mla_prefill_cuda(const hm_mla_prefill_args *args) {
    hm_attention_call c;
    hm_status s = hm_attention_read_flat(args, &c);
    if (s) return s;
    if (c.out.place != HM_CUDA) return hm_fail(HM_UNSUPPORTED, "%s: cuda works on device tensors only", op);
    if ((s = hm_cuda_ready(op)) || c.tokens == 0 || c.heads == 0) return s;
    const hm::mla::params p = hm::mla::params_of(c);
    if (c.q.dtype == HM_F16) return hm::mla::run_any<hm::f16, false>(op, p, c.flat.stream);
    return hm::mla::pair90::can<false>(p) ? hm::mla::pair90::run<false>(op, p, c.flat.stream)
                                          : hm::mla::run_any<hm::bf16, false>(op, p, c.flat.stream);
}
