/* rms_norm: opt/cuda/norm.cuh for the seven pairs of dtypes of the contract. */
#include "norm.cuh"

static const char op[] = "rms_norm";

extern "C" hm_status hm_rms_norm_cuda(const hm_rms_norm_args *args) {
    hm_rms_norm_args a;
    hm_status s = hm_rms_norm_read(args, &a);
    if (s) return s;
    if (a.x.place != HM_CUDA) return hm_fail(HM_UNSUPPORTED, "%s: cuda works on device tensors only", op);
    if ((s = hm_cuda_ready(op)) || hm_tensor_elements(&a.x) == 0) return s;
    hm::norm_params p = hm::norm_params_of(a.x, a.weight, a.out, a.eps, a.round, a.weight_form, a.variance_size);
    bool aligned = hm::aligned(a.x, 16) && hm::aligned(a.out, 16) && (!p.weight || hm::aligned(a.weight, 16));
    hm_dtype T = a.x.dtype, W = p.weight ? a.weight.dtype : T;
    using namespace hm;
    if (T == HM_BF16)
        return W == HM_BF16 ? norm_launch<bf16, bf16, bf16, false>(op, p, aligned, a.stream)
                            : norm_launch<bf16, float, bf16, false>(op, p, aligned, a.stream);
    if (T == HM_F16)
        return W == HM_F16 ? norm_launch<f16, f16, f16, false>(op, p, aligned, a.stream)
                           : norm_launch<f16, float, f16, false>(op, p, aligned, a.stream);
    return W == HM_F32   ? norm_launch<float, float, float, false>(op, p, aligned, a.stream)
           : W == HM_F16 ? norm_launch<float, f16, float, false>(op, p, aligned, a.stream)
                         : norm_launch<float, bf16, float, false>(op, p, aligned, a.stream);
}
