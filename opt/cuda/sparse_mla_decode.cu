/* sparse_mla_decode: mla.cuh with keys that indices name; on Hopper mla_pair_sm90.cuh, and mla_fp8_sm90.cuh for codes. */
#include "mla_fp8_sm90.cuh"
#include "mla_pair_sm90.cuh"

static const char op[] = "sparse_mla_decode";

extern "C" hm_status hm_sparse_mla_decode_cuda(const hm_sparse_mla_decode_args *args) {
    hm_attention_call c;
    hm_status s = hm_attention_read_paged(args, &c);
    if (s) return s;
    if (c.out.place != HM_CUDA) return hm_fail(HM_UNSUPPORTED, "%s: cuda works on device tensors only", op);
    if ((s = hm_cuda_ready(op)) || c.tokens == 0 || c.heads == 0) return s;
    const hm::mla::params p = hm::mla::params_of(c);
    void *const stream = c.pages.stream;
    if (c.cache.format == HM_MLA_FP8_DS)
        return hm::mla::fp8::can(p) ? hm::mla::fp8::run(op, p, stream)
                                    : hm::mla::run_any<hm::mla::fp8_ds, true>(op, p, stream);
    if (c.q.dtype == HM_F16) return hm::mla::run_any<hm::f16, true>(op, p, stream);
    return hm::mla::pair90::can<true>(p) ? hm::mla::pair90::run<true>(op, p, stream)
                                         : hm::mla::run_any<hm::bf16, true>(op, p, stream);
}
