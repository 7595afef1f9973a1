#!/usr/bin/env python3
"""Records attention as torch computes it, as Hallmark traces.

    python3 scripts/record_attention.py --out DIR [--device cuda | --cpu]

Needs torch alone; no network. Files written to DIR:

    attention_prefill   torch.nn.functional.scaled_dot_product_attention by each backend that the device has, and torch's matmul,
                        softmax and logsumexp in f32, as mla_prefill: the values are the first elements of the keys
    attention_decode    the same over keys that were gathered from a paged cache by random slots, as sparse_mla_decode; with
                        entries of 656 bytes too, whose codes and scales torch made and torch multiplied

    not_conforming/attention
                        calls of flash attention on the CPU with the lse that it has

Every head has the same keys, copied for each. A backend that refuses a width is left out. Where a backend has a function that
returns lse as well, and its out is the same, that lse is recorded. Of long sequences some tokens are kept, each with its key_end.
Every call states the p that one would expect: f32 for `math` and plain torch, bf16 for kernels that hand the weights to a second
matrix product in 16 bits (f16 with f16 inputs).
"""
import argparse
import pathlib

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from trace_file import DTYPES, Trace, notes_of

BACKENDS = {"math": SDPBackend.MATH, "flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION,
            "cudnn": SDPBackend.CUDNN_ATTENTION}
SDPA = "torch.nn.functional.scaled_dot_product_attention"


def with_lse(backend, device, q, k, v, causal, mask):
    """(out, lse) of the function behind a backend, or None."""
    aten = torch.ops.aten
    if mask is not None:
        mask = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill(~mask, -torch.inf)
        mask = F.pad(mask, (0, -mask.shape[-1] % 16))[..., :mask.shape[-1]]  # rows that begin where kernels ask for it
        mask = mask.expand(q.shape[0], q.shape[1], q.shape[2], k.shape[2])
    try:
        if backend == "flash" and device == "cpu":
            r = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, attn_mask=mask)
        elif backend == "flash" and mask is None:
            r = aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False)
        elif backend == "efficient":
            r = aten._scaled_dot_product_efficient_attention(q, k, v, mask, True, 0.0, causal)
        elif backend == "cudnn":
            r = aten._scaled_dot_product_cudnn_attention(q, k, v, mask, True, 0.0, causal, False)
        else:
            return None
    except (RuntimeError, TypeError) as error:
        print(f"{backend}, lse: {str(error).splitlines()[0]}")
        return None
    batch, heads, tokens = q.shape[:3]
    lse = r[1].squeeze(-1) if r[1].ndim == 4 else r[1]
    if lse.shape[:2] == (batch, heads) and lse.shape[2] >= tokens:
        return r[0], lse[:, :, :tokens]
    if lse.shape == (batch, tokens, heads):
        return r[0], lse.transpose(1, 2)
    print(f"{backend}, lse: shape {tuple(lse.shape)}")
    return None


def attend(backend, device, q, k, v, causal=False, mask=None):
    """out and lse or None, [batch, heads, tokens, ..]; None if the backend refuses."""
    if backend == "softmax":
        s = q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5
        if causal:
            mask = torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).tril()
        if mask is not None:
            s = s.masked_fill(~mask, -torch.inf)
        return (torch.softmax(s, -1) @ v.float()).to(q.dtype), torch.logsumexp(s, -1)
    try:
        with sdpa_kernel(BACKENDS[backend]):
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    except RuntimeError as error:
        print(f"{backend}, {device}, {tuple(q.shape)}, {tuple(v.shape)}: {str(error).splitlines()[0]}")
        return None
    both = with_lse(backend, device, q, k, v, causal, mask)
    if both and not torch.equal(both[0], out):
        print(f"{backend}, {device}, {tuple(q.shape)}: out is another one where lse is returned")
    return out, both[1] if both and torch.equal(both[0], out) else None


def backends_of(device):
    return ("softmax", "math", "flash") if device == "cpu" else ("softmax", *BACKENDS)


def attrs_of(backend, **more):
    return {"scale": 0.0, "p": "f32" if backend in ("softmax", "math") else "bf16", **more}


def source_of(backend):
    return "torch.softmax, torch.logsumexp" if backend == "softmax" else f"{SDPA}, {BACKENDS[backend]}"


def record(trace, rough, backend, device, call, op, attrs, inputs, out, lse):
    """On the CPU, flash attention takes rough exponentials for 16-bit inputs: that shows in lse, which is recorded apart."""
    if backend == "flash" and device == "cpu":
        if rough:
            rough.call(call, op, source_of(backend), attrs, inputs, {"out": out, "lse": lse})
        lse = None
    trace.call(call, op, source_of(backend), attrs, inputs, {"out": out, "lse": lse})


# kind, dtypes, heads, keys, width, width of values: small, since every call holds its keys
PREFILL = [("causal", "bf16 f16", 2, 40, 64, 64), ("causal", "bf16", 2, 24, 128, 128), ("causal", "bf16", 2, 10, 192, 128),
           ("causal", "bf16 f16", 1, 8, 576, 512), ("long", "bf16", 2, 270, 64, 64), ("window", "bf16", 2, 40, 64, 64),
           ("fewer", "f16", 2, 40, 64, 64)]


def prefill(trace, rough, device):
    for kind, dtypes, heads, keys, width, values in PREFILL:
        if device == "cpu" and width > 64:
            continue
        for name in dtypes.split():
            dtype, tokens = DTYPES[name], {"long": 3, "fewer": 12}.get(kind, keys)
            torch.manual_seed(keys + width)
            q = torch.randn(1, heads, tokens, width).to(dtype).to(device)
            k1 = torch.randn(keys, width).to(dtype).to(device)
            k = k1.expand(1, heads, keys, width).contiguous()
            t, n = torch.arange(tokens), torch.arange(keys)
            start = (t - 10).to(torch.int32) if kind == "window" else None
            end = (torch.full((tokens,), keys) if kind == "long" else t + 1).to(torch.int32)
            mask = None
            if kind == "window":
                mask = ((n >= start[:, None]) & (n < end[:, None])).to(device)
            kept = sorted({0, tokens // 2 + 1, tokens - 1})
            for backend in backends_of(device):
                if kind == "long" and backend in ("softmax", "math"):
                    continue
                r = attend(backend, device, q, k, k[..., :values], kind in ("causal", "fewer"), mask)
                if r is None:
                    continue
                out, lse = (x[0].transpose(0, 1)[kept].contiguous() if x is not None else None for x in r)
                inputs = {"q": q[0].transpose(0, 1)[kept].contiguous(), "kv": k1, "key_end": end[kept],
                          "key_start": start[kept] if start is not None else None}
                apart = rough if width == 64 and kind in ("causal", "fewer") else None
                record(trace, apart, backend, device, f"{backend}.{name}.{width}.{kind}.{device[:4]}", "mla_prefill",
                       attrs_of(backend), inputs, out, lse)
            # Once as the tensors lie in torch, and without key_end: as many tokens as keys, all kept.
            if kind == "causal" and width == 64 and device == "cpu":
                few = 10
                r = attend("math", device, q[:, :, :few], k[:, :, :few], k[:, :, :few, :values], True)
                trace.call(f"math.{name}.{width}.square.{device[:4]}", "mla_prefill", source_of("math"), attrs_of("math"),
                           {"q": q[0, :, :few].transpose(0, 1), "kv": k1[:few]}, {"out": r[0][0].transpose(0, 1)})


def entries_of(latent, rope):
    """Entries of 656 bytes, and the keys that they are."""
    tiles = latent.reshape(-1, 4, 128)
    scale = (tiles.abs().amax(-1) / 448).clamp(min=2.0 ** -126)
    codes = (tiles / scale[..., None]).to(torch.float8_e4m3fn)
    keys = torch.cat(((codes.float() * scale[..., None]).to(torch.bfloat16).reshape(-1, 512), rope), -1)
    parts = codes.reshape(-1, 512), scale.contiguous(), rope.contiguous()
    return torch.cat([p.view(torch.uint8) for p in parts], -1), keys


# dtype, heads, width, width of values, block size, blocks, with indices that name no key
DECODE = [("bf16", 2, 64, 64, 16, 2, False), ("f16", 2, 64, 64, 1, 30, True), ("bf16", 2, 576, 512, 4, 3, True),
          ("f16", 1, 576, 512, 4, 2, False), ("fp8", 2, 576, 512, 4, 3, True)]


def decode(trace, device):
    top_k = 20
    for name, heads, width, values, block_size, blocks, holes in DECODE:
        if device == "cpu" and width > 128 and name != "fp8":
            continue
        tokens = 3 if width == 64 else 2
        dtype, capacity = DTYPES["bf16" if name == "fp8" else name], block_size * blocks
        torch.manual_seed(width + capacity)
        q = torch.randn(tokens, heads, width).to(dtype).to(device)
        if name == "fp8":
            cache, rows = entries_of(torch.randn(capacity, 512), torch.randn(capacity, 64).to(dtype))
            cache, rows = cache.reshape(blocks, block_size, 656).to(device), rows.to(device)
        else:
            rows = torch.randn(capacity, width).to(dtype).to(device)
            cache = rows.reshape(blocks, block_size, width)
        indices = torch.randint(0, capacity, (tokens, top_k), dtype=torch.int32)
        if holes:
            indices = torch.where(torch.rand(tokens, top_k) < 0.3, -1, indices)
        sink = torch.tensor([0.5, 3.0][:heads])
        k1 = rows.index_select(0, indices.clamp(min=0).reshape(-1).to(device)).reshape(tokens, 1, top_k, width)
        k = k1.expand(tokens, heads, top_k, width).contiguous()
        mask = (indices >= 0)[:, None, None].to(device) if holes else None
        inputs = {"q": q, "kv_cache": cache, "indices": indices}
        for backend in backends_of(device):
            r = attend(backend, device, q[:, :, None], k, k[..., :values], mask=mask)
            if r is None:
                continue
            out, lse = (x.squeeze(2).contiguous() if x is not None else None for x in r)
            call, attrs = f"{backend}.{name}.{width}.{device[:4]}", attrs_of(backend, dequant="f32")
            record(trace, None, backend, device, call, "sparse_mla_decode", attrs, inputs, out, lse)
            if backend != "softmax":
                continue
            # A sink as one more logit, which softmax drops again: what models with sinks do.
            s = q[:, :, None].float() @ k.float().transpose(-1, -2) * width ** -0.5
            if mask is not None:
                s = s.masked_fill(~mask, -torch.inf)
            s = torch.cat((s, sink.to(device)[:, None, None].expand(tokens, heads, 1, 1)), -1)
            out = (torch.softmax(s, -1)[..., :-1] @ k[..., :values].float()).to(dtype)
            trace.call(call.replace("softmax", "sink"), "sparse_mla_decode", "torch.softmax", attrs, {**inputs, "attn_sink": sink},
                       {"out": out.squeeze(2), "lse": lse})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--cpu", action="store_true", help="record on the CPU alone")
    options = parser.parse_args()
    device = "cpu" if options.cpu else options.device
    torch.backends.cuda.matmul.allow_tf32 = False
    notes = notes_of("record_attention.py", device)
    first, second, rough = Trace(), Trace(), Trace()
    for place in dict.fromkeys(("cpu", device)):
        prefill(first, rough, place)
        decode(second, place)
    first.save(options.out / "attention_prefill.safetensors", notes)
    second.save(options.out / "attention_decode.safetensors", notes)
    rough.save(options.out / "not_conforming" / "attention.safetensors", notes)


if __name__ == "__main__":
    main()
