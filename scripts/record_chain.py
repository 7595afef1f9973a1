#!/usr/bin/env python3
"""Records one decode step of a sparse indexer as torch computes it, as a Hallmark trace.

    python3 scripts/record_chain.py --out DIR [--device cuda | cpu]

Needs torch alone; no network. DIR/indexer_chain has the seven steps as seven calls, in execution order, each with the inputs that
it had: `hallmark replay` names the first that left its contract. Then the same step as one call of the composite.

    norm     torch.nn.functional.layer_norm in f32, rounded once
    rotary   a product of complex numbers (torch.view_as_complex, torch.polar) in f32, rounded once; pairs of a half and a half
    write    scales and codes by torch's f32 operations and torch.Tensor.to, into the bytes of a paged cache
    quant    the same for the queries
    weights  products in f32
    logits   torch.matmul in f32 on the codes, ReLU, head weights and scales in f32
    top_k    torch.topk

Two requests of two tokens each; one of them is shorter than what is selected. The cache holds the keys of earlier tokens, which
went through the same steps. Queries, keys and weights are random, with the outlier channels that activations have.
"""
import argparse
import pathlib

import torch
import torch.nn.functional as F

from trace_file import Trace, notes_of

BATCH, NEXT_N, HEADS, DIM, ROTARY = 2, 2, 8, 128, 64
TOKENS, BLOCK, BLOCKS, TOP_K, EPS = BATCH * NEXT_N, 16, 6, 12, 1e-6
LENGTHS = (37, 9)
TABLES = ((4, 0, 3), (2, 5, 5))


def rotate(x, freqs):
    """[tokens, n, DIM], [tokens, ROTARY / 2] complex"""
    head, rest = x[..., :ROTARY], x[..., ROTARY:]
    pairs = head.float().reshape(*head.shape[:-1], 2, ROTARY // 2).transpose(-1, -2).contiguous()
    turned = torch.view_as_real(torch.view_as_complex(pairs) * freqs[:, None])
    return torch.cat((turned.transpose(-1, -2).reshape(head.shape).to(x.dtype), rest), -1)


def quantise(x, floor):
    """Codes and one scale, a power of two, for each row of DIM."""
    scale = torch.exp2(torch.ceil(torch.log2(x.float().abs().amax(-1, keepdim=True).clamp(min=floor) / 448)))
    return (x.float() / scale).clamp(-448, 448).to(torch.float8_e4m3fn), scale


def write(cache, codes, scale, slots):
    """A block: the codes of all its tokens, then their scales."""
    flat = cache.reshape(BLOCKS, -1)
    for t, slot in enumerate(slots.tolist()):
        block, offset = divmod(slot, BLOCK)
        flat[block, offset * DIM:(offset + 1) * DIM] = codes[t].view(torch.uint8)
        at = BLOCK * DIM + 4 * offset
        flat[block, at:at + 4] = scale[t].view(torch.uint8)


def read(cache, table):
    blocks = cache.reshape(BLOCKS, -1).index_select(0, table.long())
    codes = blocks[:, :BLOCK * DIM].reshape(-1, DIM).view(torch.float8_e4m3fn)
    return codes, blocks[:, BLOCK * DIM:].contiguous().view(torch.float32).reshape(-1)


def record(trace, device):
    def activations(*shape):
        x = torch.randn(shape)
        x[..., ::31] *= 6
        return x.to(torch.bfloat16).to(device)

    torch.manual_seed(41)
    norm_weight, norm_bias = (1 + 0.2 * torch.randn(DIM)).to(device), (0.2 * torch.randn(DIM)).to(device)
    angle = torch.outer(torch.arange(max(LENGTHS)).float(), 1.0 / 10000 ** (torch.arange(0, ROTARY, 2).float() / ROTARY)).to(device)
    freqs = torch.polar(torch.ones_like(angle), angle)
    lens = torch.tensor(LENGTHS, dtype=torch.int32)
    tables = torch.tensor(TABLES, dtype=torch.int32)

    def slot_of(request, position):
        return TABLES[request][position // BLOCK] * BLOCK + position % BLOCK

    def key(k, positions):
        normed = F.layer_norm(k.float(), (DIM,), norm_weight, norm_bias, EPS).to(k.dtype)
        return normed, rotate(normed[:, None], freqs[positions.to(device)])

    cache = torch.full((BLOCKS, BLOCK, DIM + 4), 0x5a, dtype=torch.uint8, device=device)
    for request, length in enumerate(LENGTHS):
        earlier = torch.arange(length - NEXT_N)
        k = key(activations(len(earlier), DIM), earlier)[1][:, 0]
        write(cache, *quantise(k, 1e-4), torch.tensor([slot_of(request, p) for p in earlier.tolist()]))

    positions = torch.tensor([n - NEXT_N + j for n in LENGTHS for j in range(NEXT_N)])
    slots = torch.tensor([slot_of(t // NEXT_N, p) for t, p in enumerate(positions.tolist())])
    q, k = activations(TOKENS, HEADS, DIM), activations(TOKENS, DIM)
    weights = torch.randn(TOKENS, HEADS).to(torch.bfloat16).to(device)
    table = torch.cat((freqs.real, freqs.imag), -1).contiguous()

    normed, k_rotated = key(k, positions)
    trace.call("norm", "layer_norm", "torch.nn.functional.layer_norm", {"eps": EPS},
               {"x": k, "weight": norm_weight, "bias": norm_bias}, {"out": normed})
    q_rotated = rotate(q, freqs[positions.to(device)])
    trace.call("rotary", "rotary_embedding", "torch.view_as_complex, torch.mul",
               {"pairing": "half_split", "round": "once", "inverse": "forward", "rope_dim_offset": 0},
               {"query": q, "key": normed[:, None], "positions": positions, "cos_sin_cache": table},
               {"query_out": q_rotated, "key_out": k_rotated})
    before, k_rotated = cache.clone(), k_rotated[:, 0]
    write(cache, *quantise(k_rotated, 1e-4), slots)
    trace.call("write", "indexer_k_quant_and_cache", "torch.Tensor.to",
               {"layout": "normal", "code_format": "e4m3", "scale_format": "ue8m0", "floor": 1e-4},
               {"k": k_rotated, "slot_mapping": slots, "kv_cache": before}, {"kv_cache": cache})
    codes, scale = quantise(q_rotated, 1e-10)
    trace.call("quant", "quant_fp8_group", "torch.Tensor.to",
               {"group_size": DIM, "divisor": 448.0, "floor": 1e-10, "scale_format": "ue8m0", "floor_on": "amax",
                "divide": "divide", "overflow": "saturate"}, {"x": q_rotated}, {"codes": codes, "scale": scale})
    scale = scale[..., 0]
    scaled = weights.float() * HEADS ** -0.5 * scale * DIM ** -0.5
    trace.call("weights", "index_weights", "torch.mul", {"head_dim": DIM, "order": "any"},
               {"weights": weights, "q_scale": scale}, {"out": scaled})
    width = len(TABLES[0]) * BLOCK
    logits = torch.full((TOKENS, width), -torch.inf, device=device)
    for t in range(TOKENS):
        keys, k_scale = read(cache, tables[t // NEXT_N].to(device))
        row = ((codes[t].float() @ keys.float().T).relu() * scaled[t, :, None]).sum(0) * k_scale
        n = positions[t] + 1
        logits[t, :n] = row[:n]
    codes = codes.reshape(BATCH, NEXT_N, HEADS, DIM)
    trace.call("logits", "fp8_paged_mqa_logits", "torch.matmul", {"layout": "normal", "outside": "clean"},
               {"q": codes, "kv_cache": cache, "weights": scaled, "context_lens": lens, "block_tables": tables}, {"logits": logits})
    lengths = (positions + 1)[:, None].to(device)
    indices = torch.topk(logits, TOP_K, dim=-1).indices
    indices = torch.where(indices < lengths, indices, width).sort(-1).values
    indices = torch.where(indices < width, indices, -1).to(torch.int32)
    trace.call("top_k", "top_k_per_row", "torch.topk", {"next_n": NEXT_N}, {"logits": logits, "seq_lens": lens}, {"indices": indices})
    trace.call("indexer", "indexer", "the steps above",
               {"eps": EPS, "pairing": "half_split", "rope_dim_offset": 0, "layout": "normal", "code_format": "e4m3"},
               {"q": q, "k": k, "weights": weights, "k_weight": norm_weight, "k_bias": norm_bias, "positions": positions,
                "cos_sin_cache": table, "slot_mapping": slots, "context_lens": lens, "block_tables": tables, "kv_cache": before},
               {"kv_cache": cache, "logits": logits, "indices": indices})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    trace = Trace()
    record(trace, options.device)
    trace.save(options.out / "indexer_chain.safetensors", notes_of("record_chain.py", options.device))


if __name__ == "__main__":
    main()
