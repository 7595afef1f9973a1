#!/usr/bin/env python3
"""Records the RMSNorm family as PyTorch and Hugging Face transformers compute it, as Hallmark traces.

    python3 scripts/record_rms_norm.py --out DIR [--device cuda]

Needs torch, transformers and safetensors; no network. Nothing is computed here: every input and output is what a public
implementation was given and returned. Files written to DIR:

    torch_eager       torch.nn.functional.rms_norm and torch.nn.RMSNorm, on the device and on the CPU
    torch_compile     the same function through torch.compile
    llama, gemma2, gemma3, deepseek_v3
                      the RMSNorm modules inside a small model of that class with random weights, reading English text
                      byte by byte. Where the model adds a residual just before the norm, both together are one
                      fused_add_rms_norm call
    not_conforming/mixed_weight
                      calls whose output has another dtype than their input, which the contracts forbid

Every call states the modes that one would expect from the source code; `hallmark replay --fit-modes` says whether that
is so.
"""
import argparse
import pathlib
import sys

import torch
import torch.nn.functional as F
import transformers
from torch.overrides import TorchFunctionMode

from trace_file import DTYPES, TEXT, Trace, notes_of, source_of

PLAIN = {"round": "once", "weight_form": "plain", "variance_size": 0}
NORM_FIRST = {"round": "norm_first", "weight_form": "plain", "variance_size": 0}
ONE_PLUS = {"round": "once", "weight_form": "one_plus", "variance_size": 0}
ADD = {"residual_read": "rounded", "residual_dtype": "same"}


def seeded(shape, dtype, device, seed):
    """Normal values whose rows differ in scale, and with two outlier channels, as activations have them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    x *= torch.tensor([0.02, 1.0, 6.0]).repeat(shape[-2])[: shape[-2], None]
    x[..., 7] *= 20
    x[..., -5] *= 40
    return x.to(dtype).to(device)


def record_functional(trace, mixed, function, label, source, devices):
    """function(x, normalized_shape, weight, eps) on 2-D, 3-D, weightless and strided inputs."""
    for device in devices:
        for name, dtype in DTYPES.items():
            rows = seeded((5, 1024), dtype, device, 1)
            cube = seeded((2, 3, 768), dtype, device, 2)
            wide = seeded((4, 1280), dtype, device, 3)[:, 128:1152]
            odd = seeded((5, 1001), dtype, device, 4)
            weight = (1 + 0.25 * torch.randn(1024, generator=torch.Generator().manual_seed(5))).to(dtype).to(device)
            calls = [("rows", rows, weight, 1e-6), ("cube", cube, weight[:768].contiguous(), 1e-5),
                     ("slice", wide, weight, 1e-6), ("odd", odd, weight[:1001].contiguous(), 1e-6),
                     ("no_weight", rows[:3], None, 1e-5)]
            if dtype != torch.float32:
                calls.append(("f32_weight", rows[:2], weight.float() + 1e-4, 1e-6))
            for what, x, w, eps in calls:
                out = function(x, (x.shape[-1],), w, eps)
                target = trace if out.dtype == x.dtype else mixed
                target.call(f"{label}.{device}.{name}.{what}", "rms_norm", source, {"eps": eps, **PLAIN},
                            {"x": x, "weight": w}, {"out": out})


def compiled(*args):
    torch.compiler.reset()  # past a limit of recompilations it would silently run the eager function
    return torch.compile(F.rms_norm, dynamic=False, fullgraph=True)(*args)


def record_module(trace, devices):
    for device in devices:
        for name, dtype in DTYPES.items():
            module = torch.nn.RMSNorm(1536, eps=1e-6, dtype=dtype, device=device)
            with torch.no_grad():
                module.weight.copy_(1 + 0.25 * torch.randn(1536, generator=torch.Generator().manual_seed(6)))
            x = seeded((2, 1536), dtype, device, 7)
            trace.call(f"module.{device}.{name}", "rms_norm", source_of(torch.nn.RMSNorm), {"eps": module.eps, **PLAIN},
                       {"x": x, "weight": module.weight}, {"out": module(x)})


class Adds(TorchFunctionMode):
    """Remembers the operands of every tensor addition, by its result."""

    def __init__(self):
        super().__init__()
        self.operands = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in (torch.Tensor.add, torch.Tensor.__add__, torch.add) and isinstance(args[1], torch.Tensor):
            self.operands[id(result)] = (result, args[0], args[1])  # the result is kept, so its id stays its own
        return result


def record_model(trace, mixed, model, label, modes, tokens):
    """Runs the model on TEXT and records the first `tokens` tokens of every RMSNorm in it."""
    device = next(model.parameters()).device
    adds = Adds()

    def crop(t):
        return None if t is None else t[..., :tokens, :]

    def hook(name, module):
        def after(_, args, output):
            x, weight = args[0], module.weight
            eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
            target = trace if output.dtype == x.dtype else mixed
            call = f"{label}.{name.removeprefix('model.')}"
            source = f"{source_of(type(module))} ({name})"
            if id(x) in adds.operands:
                total, residual, branch = adds.operands[id(x)]
                target.call(call, "fused_add_rms_norm", source, {"eps": eps, **modes, **ADD},
                            {"x": crop(branch), "residual": crop(residual), "weight": weight},
                            {"out": crop(output).contiguous(), "residual_out": crop(total).contiguous()})
            else:
                target.call(call, "rms_norm", source, {"eps": eps, **modes}, {"x": crop(x), "weight": weight},
                            {"out": crop(output).contiguous()})
        return after

    norms = [(n, m) for n, m in model.named_modules() if type(m).__name__.endswith("RMSNorm")]
    handles = [m.register_forward_hook(hook(n, m)) for n, m in norms]
    with torch.no_grad(), adds:
        model(input_ids=torch.tensor([list(TEXT.encode())], device=device), use_cache=False)
    for handle in handles:
        handle.remove()
    if not norms:
        sys.exit(f"{label}: no module whose class ends in RMSNorm")


def build(model_class, config, dtype, device, f32_weights):
    torch.manual_seed(11)
    model = model_class(config).to(dtype).eval()
    generator = torch.Generator().manual_seed(12)
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            w = module.weight.data
            w = w.float() + 0.25 * torch.randn(w.shape, generator=generator)
            module.weight.data = w if f32_weights else w.to(dtype)
    return model.to(device)


def models():
    """(label, class, config, modes that one would expect)"""
    small = dict(vocab_size=256, hidden_size=1024, intermediate_size=2048, num_hidden_layers=2,
                 max_position_embeddings=512, attn_implementation="eager")
    heads = dict(num_attention_heads=8, num_key_value_heads=4, head_dim=128)
    return [
        ("llama", transformers.LlamaForCausalLM, transformers.LlamaConfig(**small, **heads), NORM_FIRST),
        ("gemma2", transformers.Gemma2ForCausalLM, transformers.Gemma2Config(**small, **heads), ONE_PLUS),
        ("gemma3", transformers.Gemma3ForCausalLM, transformers.Gemma3TextConfig(**small, **heads), ONE_PLUS),
        # Every layer dense: the experts do not matter to the norms. The latent widths are the real model's.
        ("deepseek_v3", transformers.DeepseekV3ForCausalLM, transformers.DeepseekV3Config(
            **small, num_attention_heads=8, num_key_value_heads=8, q_lora_rank=1536, kv_lora_rank=512,
            qk_rope_head_dim=64, qk_nope_head_dim=64, v_head_dim=64, first_k_dense_replace=2), NORM_FIRST),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder for the traces")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    arguments = parser.parse_args()
    device = arguments.device
    devices = ["cpu"] if device == "cpu" else [device, "cpu"]
    notes = notes_of("record_rms_norm.py", device)
    mixed = Trace()

    trace = Trace()
    with torch.no_grad():
        record_functional(trace, mixed, F.rms_norm, "eager", source_of(F.rms_norm), devices)
        record_module(trace, devices)
    trace.save(arguments.out / "torch_eager.safetensors", notes)

    for label, model_class, config, modes in models():
        trace = Trace()
        runs = [("bf16", 5, False), ("f16", 3, False)]
        if label in ("llama", "gemma3"):
            runs.append(("f32", 2, False))
        for dtype, tokens, f32_weights in runs:
            model = build(model_class, config, DTYPES[dtype], device, f32_weights)
            record_model(trace, mixed, model, f"{label}.{dtype}", modes, tokens)
        if label.startswith("gemma"):
            model = build(model_class, config, torch.bfloat16, device, True)
            record_model(trace, mixed, model, f"{label}.bf16_f32_weight", modes, 2)
        elif label == "llama":
            # With f32 weights this class returns f32, which its next layer would refuse; so one module alone.
            model = build(model_class, config, torch.bfloat16, device, True)
            norm, x = model.model.norm, seeded((1, 3, 1024), torch.bfloat16, device, 8)
            with torch.no_grad():
                out = norm(x)
            (trace if out.dtype == x.dtype else mixed).call(
                "llama.bf16_f32_weight.norm", "rms_norm", source_of(type(norm)),
                {"eps": norm.variance_epsilon, **modes}, {"x": x, "weight": norm.weight}, {"out": out})
        trace.save(arguments.out / f"{label}.safetensors", notes)

    if not arguments.no_compile:
        trace, source = Trace(), f"torch.compile({source_of(F.rms_norm)})"
        for each in devices:
            try:
                with torch.no_grad():
                    record_functional(trace, mixed, compiled, "compiled", source, [each])
            except Exception as error:  # no compiler on this machine, say: keep what was recorded, and why it stops there
                trace.notes[f"stopped.{each}"] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
                print(f"torch.compile on {each} stopped:", trace.notes[f"stopped.{each}"], file=sys.stderr)
        trace.save(arguments.out / "torch_compile.safetensors", notes)
    mixed.save(arguments.out / "not_conforming" / "mixed_weight.safetensors", notes)


if __name__ == "__main__":
    main()
