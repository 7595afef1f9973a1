#!/usr/bin/env python3
"""Records the plain layers of a language model as torch computes them, as Hallmark traces.

    python3 scripts/record_layers.py --out DIR [--device cuda | cpu]

Needs torch alone; no network. Files written to DIR, each with calls made on the CPU and on the device:

    torch_layers    torch.nn.functional.linear (with bias and without, weights of the same dtype), layer_norm, embedding, and
                    SwiGLU's product as modules write it (silu in 16 bits, then the product) and as kernels do (f32 inside)
    not_conforming/torch_layers
                    linear in f32 with operands cut to TF32; in bf16 and f16 as torch does it unless told otherwise, where cuBLAS
                    may round partial sums to 16 bits (allow_bf16_reduced_precision_reduction and its f16 sister, off elsewhere);
                    and 16-bit linear with a bias, whose product cuBLAS may round before it adds the bias

Inputs are random, with the outlier channels that activations have.
"""
import argparse
import pathlib

import torch
import torch.nn.functional as F

from trace_file import DTYPES, Trace, notes_of

LINEAR = "torch.nn.functional.linear"


def activations(rows, width, dtype, device):
    x = torch.randn(rows, width, device=device)
    x[:, ::61] *= 40
    return x.to(dtype)


def exact_sums(on):
    """f32 sums of the products of operands as they are given, or what torch does unless told otherwise, with TF32."""
    matmul = torch.backends.cuda.matmul
    matmul.allow_tf32 = not on
    matmul.allow_bf16_reduced_precision_reduction = matmul.allow_fp16_reduced_precision_reduction = not on


def linear(trace, rough, device):
    for name, dtype in DTYPES.items():
        for width in (64, 1024):
            x = activations(3, width, dtype, device)
            weight = (torch.randn(20, width, device=device) * width ** -0.5).to(dtype)
            bias = torch.randn(20, device=device).to(dtype)
            for with_bias in (False, True):
                out = F.linear(x, weight, bias if with_bias else None)
                fused = device.startswith("cuda") and with_bias and name != "f32"
                call = f"linear.{name}.{width}.{'bias' if with_bias else 'plain'}.{device[:4]}"
                (rough if fused else trace).call(call, "linear", LINEAR, {}, {"x": x, "weight": weight, "bias": bias if with_bias else None}, {"out": out})
            if device.startswith("cuda"):
                exact_sums(False)
                for kind, b in (("bias", bias), ("plain", None)):
                    call = f"linear.{'tf32' if name == 'f32' else name}.{width}.{kind}.default"
                    rough.call(call, "linear", LINEAR, {}, {"x": x, "weight": weight, "bias": b}, {"out": F.linear(x, weight, b)})
                exact_sums(True)


def layer_norm(trace, device):
    for name, dtype in DTYPES.items():
        x = activations(4, 256, dtype, device)
        x[1] += 3
        weight, bias = (torch.randn(256, device=device).to(dtype) for _ in range(2))
        for kind, w, b in (("affine", weight, bias), ("weight", weight, None), ("plain", None, None)):
            trace.call(f"layer_norm.{name}.{kind}.{device[:4]}", "layer_norm", "torch.nn.functional.layer_norm", {"eps": 1e-6},
                       {"x": x, "weight": w, "bias": b}, {"out": F.layer_norm(x, (256,), w, b, 1e-6)})


def swiglu(trace, device):
    for name, dtype in DTYPES.items():
        x = activations(3, 512, dtype, device)
        gate, up = x.chunk(2, -1)
        source = "torch.nn.functional.silu"
        trace.call(f"silu_and_mul.each.{name}.{device[:4]}", "silu_and_mul", source, {"round": "each"}, {"x": x}, {"out": F.silu(gate) * up})
        trace.call(f"silu_and_mul.once.{name}.{device[:4]}", "silu_and_mul", source, {"round": "once"}, {"x": x}, {"out": (F.silu(gate.float()) * up.float()).to(dtype)})


def embedding(trace, device):
    ids = torch.tensor([[5, 0, 31], [7, 7, 30]], device=device)
    for name, dtype in DTYPES.items():
        table = activations(32, 96, dtype, device)
        trace.call(f"embedding.{name}.{device[:4]}", "embedding", "torch.nn.functional.embedding",
                   {"vocab_start": 0, "vocab_size": 32}, {"ids": ids, "table": table}, {"out": F.embedding(ids, table)})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    torch.manual_seed(22)
    exact_sums(True)
    (options.out / "not_conforming").mkdir(parents=True, exist_ok=True)
    trace, rough = Trace(), Trace()
    for device in dict.fromkeys(("cpu", options.device)):
        linear(trace, rough, device)
        layer_norm(trace, device)
        swiglu(trace, device)
        embedding(trace, device)
    notes = notes_of("record_layers.py", options.device)
    trace.save(options.out / "torch_layers.safetensors", notes)
    if rough.calls:
        rough.save(options.out / "not_conforming" / "torch_layers.safetensors", notes)


if __name__ == "__main__":
    main()
