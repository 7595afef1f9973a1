#!/usr/bin/env python3
"""Records the pieces of a sparse indexer that torch has, as Hallmark traces.

    python3 scripts/record_indexer.py --out DIR [--device cuda]

Needs torch, transformers and safetensors; no network. Files written to DIR:

    fp8_casts       torch's conversions to f8e4m3 and f8e5m2, with scales made by torch's f32 operations
    indexer_logits  scores of f8e4m3 queries and keys by torch's f32 matmul, with ReLU, head weights and scales in f32
    torch_topk      torch.topk on rows that are easy and rows that are not
    not_conforming/indexer_logits
                    the same scores by cuBLAS on tensor cores (torch._scaled_mm): Hopper's f8 units keep fewer bits than class
                    tc23 asks for, with fast accumulation or without; and scores rounded to bf16

Queries, keys and activations are random, with the outlier channels that activations have.
"""
import argparse
import pathlib

import torch

from trace_file import Trace, notes_of

GROUP = {"group_size": 128, "divisor": 448.0, "floor": 1e-10, "scale_format": "f32", "floor_on": "amax", "divide": "divide",
         "overflow": "saturate"}
LARGEST = {torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0}


def activations(rows, width, dtype, device):
    """Normal, with a few channels that are much larger; one row of zeros, one tiny row."""
    x = torch.randn(rows, width, device=device)
    x[:, ::61] *= 40
    x[1] *= 2.0 ** -20
    x[2] = 0
    return x.to(dtype)


def casts(trace, device):
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        x = activations(6, 512, dtype, device)
        groups = x.float().reshape(6, 4, 128)
        for code, top in LARGEST.items():
            for rounded in (False, True):
                scale = groups.abs().amax(-1).clamp(min=1e-10) / top
                if rounded:
                    scale = torch.exp2(torch.ceil(torch.log2(scale)))
                codes = (groups / scale[..., None]).clamp(-top, top).to(code).reshape(x.shape)
                attrs = {**GROUP, "divisor": top, "scale_format": "ue8m0" if rounded else "f32"}
                name = f"{str(dtype)[6:]}.{str(code)[6:]}.{attrs['scale_format']}.{device[:4]}"
                trace.call(name, "quant_fp8_group", "torch.Tensor.to", attrs, {"x": x}, {"codes": codes, "scale": scale})


def finish(scores, weights, scale, ks, ke):
    """[tokens, heads, keys] -> logits, in f32."""
    logits = (scores.relu() * weights[..., None]).sum(1) * scale
    column = torch.arange(scale.numel(), device=scale.device)
    return logits.masked_fill((column < ks[:, None]) | (column >= ke[:, None]), -torch.inf)


def scores_of(trace, rough, device):
    tokens, heads, dim, keys = 5, 8, 128, 48
    q = activations(tokens * heads, dim, torch.float32, device).clamp(-448, 448).to(torch.float8_e4m3fn)
    k = activations(keys, dim, torch.float32, device).mul(4).clamp(-448, 448).to(torch.float8_e4m3fn)
    scale = torch.exp2(torch.randint(-3, 3, (keys,), device=device).float()) * (1 + torch.rand(keys, device=device))
    weights = torch.randn(tokens, heads, device=device)
    ks = torch.tensor([0, 3, 0, 10, 20], dtype=torch.int32, device=device)
    ke = torch.tensor([48, 3, 17, 48, 44], dtype=torch.int32, device=device)
    inputs = {"q": q.reshape(tokens, heads, dim), "k": k, "k_scale": scale, "weights": weights, "ks": ks, "ke": ke}
    attrs = {"outside": "clean", "columns": "absolute"}

    def record(to, name, source, scores):
        logits = finish(scores.reshape(tokens, heads, keys), weights, scale, ks, ke)
        to.call(f"{name}.{device[:4]}", "fp8_mqa_logits", source, attrs, inputs, {"logits": logits})

    record(trace, "matmul", "torch.matmul", q.float() @ k.float().T)
    if not device.startswith("cuda"):
        return
    one = torch.ones((), device=device)
    for fast in (False, True):
        scores = torch._scaled_mm(q, k.T, scale_a=one, scale_b=one, out_dtype=torch.float32, use_fast_accum=fast)
        record(rough, "fast_accumulation" if fast else "tensor_cores", "torch._scaled_mm", scores)
    bf16 = torch._scaled_mm(q, k.T, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
    record(rough, "bf16_scores", "torch._scaled_mm", bf16.float())


def selections(trace, device):
    columns, k = 1000, 64
    rows = {"normal": torch.randn(3, columns), "crowd": 1 + 0.001 * torch.randn(3, columns),
            "ten_values": torch.randint(0, 10, (3, columns)).float(), "relu": torch.randn(3, columns).sub(1.25).relu(),
            "equal": torch.ones(3, columns), "negative": -torch.rand(3, columns) - 1}
    for name, logits in rows.items():
        logits = logits.to(device)
        starts = torch.zeros(3, dtype=torch.int32, device=device)
        indices = torch.topk(logits, k, dim=-1).indices.to(torch.int32)
        trace.call(f"{name}.{device[:4]}", "top_k_per_row", "torch.topk", {"next_n": 1},
                   {"logits": logits, "row_starts": starts, "row_ends": starts + columns}, {"indices": indices})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    torch.manual_seed(20)
    torch.backends.cuda.matmul.allow_tf32 = False
    notes = notes_of("record_indexer.py", options.device)
    fp8, logits, rough, topk = Trace(), Trace(), Trace(), Trace()
    for device in dict.fromkeys(("cpu", options.device)):
        casts(fp8, device)
        scores_of(logits, rough, device)
        selections(topk, device)
    fp8.save(options.out / "fp8_casts.safetensors", notes)
    logits.save(options.out / "indexer_logits.safetensors", notes)
    rough.save(options.out / "not_conforming" / "indexer_logits.safetensors", notes)
    topk.save(options.out / "torch_topk.safetensors", notes)


if __name__ == "__main__":
    main()
