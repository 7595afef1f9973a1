"""The small model twice: as it is trained (Model), and as it has to be run (Reference, reference_forward).

Model      un-absorbed attention over whole rows, dense or with the indexer's top-k as a mask; bf16 autocast, f32 weights.
Reference  the inference that an engine repeats with the library's ops: absorbed MLA over a latent cache, fp8 indexer cache,
           selection, attention over the selected keys. Every value that an op stores in bf16 is rounded there, and
           nowhere else; inside an op arithmetic is f32. The comment on each line names the op.

The norms' eps is felt, as it is not in a model whose mean squares are near 1: training has eps 2^20 * 1e-6, and the export
multiplies what feeds each norm by 2^-10, which is the same function with eps 1e-6 (powers of two are exact).
"""
import json
import pathlib
import struct

import torch
import torch.nn as nn
import torch.nn.functional as F

SIZES = {"vocab": 288, "hidden": 192, "layers": 4, "heads": 4, "q_latent": 192, "kv_latent": 512, "rope": 64, "nope": 32, "value": 32,
         "index_heads": 4, "index_dim": 128, "mlp": 512, "rope_base": 1000, "max_position": 4096, "top_k": 12}
BOS = 1
EPS = 1e-6
SHIFT = 10  # the export's factor is 2^-SHIFT
FP8_TOP = 448.0


# ---- files -----------------------------------------------------------------------------------------------------------
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "I32": torch.int32, "I64": torch.int64}


def write_safetensors(path, tensors, metadata):
    """Header padded to 8 bytes; tensors in the order given, each a multiple of 4 bytes here."""
    names = {v: k for k, v in DTYPES.items()}
    header, blobs, at = {"__metadata__": metadata}, [], 0
    for name, t in tensors.items():
        blob = t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {"dtype": names[t.dtype], "shape": list(t.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def read_safetensors(path):
    """(tensors, metadata)"""
    data = pathlib.Path(path).read_bytes()
    (n,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + n])
    metadata, tensors = header.pop("__metadata__", {}), {}
    for name, info in header.items():
        begin, end = (8 + n + offset for offset in info["data_offsets"])
        tensors[name] = torch.frombuffer(bytearray(data[begin:end]), dtype=DTYPES[info["dtype"]]).reshape(info["shape"])
    return tensors, metadata


# ---- what both share -------------------------------------------------------------------------------------------------
def rope_table(sizes, device):
    """op rope_table, precision f32: [max_position, rope], cosines in the first half of the columns, sines in the second."""
    half = sizes["rope"] // 2
    power = (float(sizes["rope_base"]) ** (torch.arange(half, dtype=torch.float64) / half)).float()
    inverse = (1 / power.double()).float()
    angle = (torch.arange(sizes["max_position"]).double()[:, None] * inverse.double()).float().double()
    return torch.cat([angle.cos(), angle.sin()], 1).float().to(device)


def rotate(x, table, interleaved):
    """op rotary_embedding, round once: x [..., T, n, 64] in f32, table [..., T, 64]; unrounded."""
    c, s = table[..., None, :].chunk(2, -1)
    if interleaved:
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack([a * c - b * s, b * c + a * s], -1).flatten(-2)
    a, b = x.chunk(2, -1)
    return torch.cat([a * c - b * s, b * c + a * s], -1)


def norm(x, weight, eps):
    """op rms_norm, ONE_PLUS, round once: f32 in and out, unrounded"""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * (1 + weight)


def shared_key(q, k):
    """Dot products of q [B, T, heads, d] and k [B, S, d], which all heads share: [B, T, heads, S]"""
    return torch.matmul(q.flatten(1, 2), k.transpose(1, 2)).view(*q.shape[:3], -1)


# ---- training --------------------------------------------------------------------------------------------------------
def fp8_with_straight_through(x):
    """x [..., 128] as the fp8 codes with their ue8m0 scale give it; the gradient passes unchanged."""
    scale = torch.exp2(torch.ceil(torch.log2(x.float().abs().amax(-1, keepdim=True).clamp(min=1e-4) / FP8_TOP)))
    y = ((x.float() / scale).clamp(-FP8_TOP, FP8_TOP).to(torch.float8_e4m3fn).float() * scale).to(x.dtype)
    return x + (y - x).detach()


class Layer(nn.Module):
    def __init__(self, z):
        super().__init__()
        h, heads = z["hidden"], z["heads"]

        def matrix(*shape, gain=1.0):
            return nn.Parameter(torch.randn(*shape) * gain * shape[-1] ** -0.5)

        def ones_plus(n):
            return nn.Parameter(torch.zeros(n))

        gain = (2 * z["layers"]) ** -0.5
        self.attn_norm, self.mlp_norm = ones_plus(h), ones_plus(h)
        self.q_a, self.q_norm = matrix(z["q_latent"], h), ones_plus(z["q_latent"])
        self.q_b = matrix(heads * (z["nope"] + z["rope"]), z["q_latent"])
        self.kv_a, self.kv_norm = matrix(z["kv_latent"] + z["rope"], h), ones_plus(z["kv_latent"])
        # How k_nope and the values come from the latent: w_uk [heads, latent, nope], w_uv [heads, value, latent].
        self.w_uk = nn.Parameter(torch.randn(heads, z["kv_latent"], z["nope"]) * 0.5 * z["kv_latent"] ** -0.5)
        self.w_uv = matrix(heads, z["value"], z["kv_latent"])
        self.o = matrix(h, heads * z["value"], gain=gain)
        self.index_q = matrix(z["index_heads"] * z["index_dim"], z["q_latent"])
        self.index_k = matrix(z["index_dim"], h)
        self.index_weights = matrix(z["index_heads"], h)
        self.index_norm_weight = nn.Parameter(torch.ones(z["index_dim"]))
        self.index_norm_bias = nn.Parameter(torch.zeros(z["index_dim"]))
        self.gate_up, self.down = matrix(2 * z["mlp"], h), matrix(h, z["mlp"], gain=gain)


class Model(nn.Module):
    def __init__(self, sizes=SIZES):
        super().__init__()
        self.sizes = sizes
        self.eps = torch.tensor(EPS, dtype=torch.float32).item() * 4.0 ** SHIFT
        self.embedding = nn.Parameter(torch.randn(sizes["vocab"], sizes["hidden"]))
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes["layers"]))
        self.final_norm = nn.Parameter(torch.zeros(sizes["hidden"]))
        self.head = nn.Parameter(torch.randn(sizes["vocab"], sizes["hidden"]) * sizes["hidden"] ** -0.5)
        self.register_buffer("table", rope_table(sizes, "cpu"), persistent=False)

    def norm(self, x, weight):
        return norm(x.float(), weight, self.eps).bfloat16()

    def indexer(self, p, x, latent, table, causal):
        """Scores [rows, T, T] in f32, -inf above the diagonal. Its inputs are detached: it learns from its own loss."""
        z = self.sizes
        rows, length, _ = x.shape
        q = F.linear(latent.detach(), p.index_q).view(rows, length, z["index_heads"], z["index_dim"])
        k = F.linear(x.detach(), p.index_k).float()
        k = F.layer_norm(k, k.shape[-1:], p.index_norm_weight, p.index_norm_bias, self.eps).bfloat16()[:, :, None]
        r = z["rope"]
        q, k = (torch.cat([rotate(t[..., :r].float(), table, False).bfloat16(), t[..., r:]], -1) for t in (q, k))
        q, k = fp8_with_straight_through(q), fp8_with_straight_through(k)[:, :, 0]
        w = F.linear(x.detach(), p.index_weights).float() * (z["index_heads"] * z["index_dim"]) ** -0.5
        scores = shared_key(q, k).relu().float()  # [rows, T, heads, T]
        scores = (scores * w[..., None]).sum(2)
        return scores.masked_fill(~causal, -torch.inf)

    def attention(self, p, x, table, causal, top_k):
        """(output, the indexer's loss)"""
        z = self.sizes
        rows, length, _ = x.shape
        latent = self.norm(F.linear(x, p.q_a), p.q_norm)
        q = F.linear(latent, p.q_b).view(rows, length, z["heads"], z["nope"] + z["rope"])
        kv = F.linear(x, p.kv_a)
        c = self.norm(kv[..., :z["kv_latent"]], p.kv_norm)
        q_pe = rotate(q[..., z["nope"]:].float(), table, True).bfloat16()
        k_pe = rotate(kv[..., None, z["kv_latent"]:].float(), table, True).bfloat16()
        k = F.linear(c, p.w_uk.transpose(1, 2).reshape(-1, z["kv_latent"])).view(rows, length, z["heads"], z["nope"])
        v = F.linear(c, p.w_uv.reshape(-1, z["kv_latent"])).view(rows, length, z["heads"], z["value"])
        q = torch.cat([q[..., :z["nope"]], q_pe], -1).transpose(1, 2)
        k = torch.cat([k, k_pe.expand(-1, -1, z["heads"], -1)], -1).transpose(1, 2)
        scores = torch.matmul(q, k.transpose(2, 3)).float() * (z["nope"] + z["rope"]) ** -0.5
        dense = scores.masked_fill(~causal, -torch.inf).softmax(-1)

        index = self.indexer(p, x, latent, table, causal)
        log_index = index.log_softmax(-1).masked_fill(~causal, 0)
        loss = -(dense.detach().mean(1) * log_index).sum(-1).mean()
        if top_k and top_k < length:
            chosen = index.detach().topk(top_k, -1).indices
            keep = torch.zeros_like(index, dtype=torch.bool).scatter(-1, chosen, True) & causal
            dense = scores.masked_fill(~keep[:, None], -torch.inf).softmax(-1)
        out = torch.matmul(dense.bfloat16(), v.transpose(1, 2)).transpose(1, 2).reshape(rows, length, -1)
        return F.linear(out, p.o), loss

    def forward(self, ids, positions, top_k):
        """ids [rows, T], positions [T]; (logits in f32, the indexers' loss). top_k 0: dense attention."""
        length = ids.shape[1]
        table = self.table[positions]
        causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
        h = (self.embedding[ids] * (ids != BOS)[..., None]).bfloat16()
        loss = 0.0
        for p in self.layers:
            out, index_loss = self.attention(p, self.norm(h, p.attn_norm), table, causal, top_k)
            h = h + out
            loss = loss + index_loss
            gate, up = F.linear(self.norm(h, p.mlp_norm), p.gate_up).chunk(2, -1)
            h = h + F.linear((F.silu(gate.float()) * up.float()).bfloat16(), p.down)
        return F.linear(self.norm(h, self.final_norm), self.head).float(), loss

    def exported(self):
        """(name in the file, parameter, rows that the export scales by 2^-SHIFT) for every tensor of model.safetensors."""
        everything, nothing = slice(None), slice(0, 0)
        yield "embedding.weight", self.embedding, everything
        for i, p in enumerate(self.layers):
            for name, parameter, rows in (
                    ("attn_norm.weight", p.attn_norm, nothing), ("attn.q_a.weight", p.q_a, everything),
                    ("attn.q_norm.weight", p.q_norm, nothing), ("attn.q_b.weight", p.q_b, nothing),
                    ("attn.kv_a.weight", p.kv_a, slice(self.sizes["kv_latent"])), ("attn.kv_norm.weight", p.kv_norm, nothing),
                    ("attn.w_uk.weight", p.w_uk, nothing), ("attn.w_uv.weight", p.w_uv, nothing),
                    ("attn.o.weight", p.o, everything), ("indexer.q.weight", p.index_q, nothing),
                    ("indexer.k.weight", p.index_k, everything), ("indexer.weights.weight", p.index_weights, nothing),
                    ("indexer.k_norm.weight", p.index_norm_weight, nothing), ("indexer.k_norm.bias", p.index_norm_bias, nothing),
                    ("mlp_norm.weight", p.mlp_norm, nothing), ("mlp.gate_up.weight", p.gate_up, nothing),
                    ("mlp.down.weight", p.down, everything)):
                yield f"layers.{i}.{name}", parameter, rows
        yield "final_norm.weight", self.final_norm, nothing
        yield "head.weight", self.head, nothing

    def export(self):
        """The tensors of model.safetensors: bf16, but the indexer's norm in f32."""
        out = {}
        for name, parameter, rows in self.exported():
            t = parameter.detach().float().cpu().clone()
            t[rows] *= 2.0 ** -SHIFT
            if name == "embedding.weight":
                t[BOS] = 0
            out[name] = t if ".k_norm." in name else t.bfloat16()
        return out

    @torch.no_grad()
    def load_export(self, tensors):
        """The inverse of export, on what bf16 kept."""
        for name, parameter, rows in self.exported():
            t = tensors[name].float()
            t[rows] *= 2.0 ** SHIFT
            parameter.copy_(t)
        return self


# ---- inference -------------------------------------------------------------------------------------------------------
def rn(x):
    """One rounding to bf16; values stay in f32 tensors."""
    return x.bfloat16().float()


class Cache:
    """The caches of all layers for a batch. Token s of a request is in slot s: an engine's block table changes where the
    bytes lie and no value."""

    def __init__(self, sizes, batch, length, device):
        layers = sizes["layers"]
        self.mla = torch.zeros(layers, batch, length, sizes["kv_latent"] + sizes["rope"], device=device)
        self.index_codes = torch.zeros(layers, batch, length, sizes["index_dim"], device=device)
        self.index_scale = torch.zeros(layers, batch, length, device=device)


class Reference:
    def __init__(self, tensors, sizes=SIZES, device="cpu", top_k=None):
        self.z, self.device, self.top_k = sizes, device, top_k or sizes["top_k"]
        self.w = {name: t.float().to(device) for name, t in tensors.items()}
        self.table = rope_table(sizes, device)
        self.eps = torch.tensor(EPS, dtype=torch.float32).item()
        self.scale = torch.tensor((sizes["nope"] + sizes["rope"]) ** -0.5, dtype=torch.float32).item()

    # Each method is one op on f32 tensors that hold bf16 values (unless said), and returns what the op stores.
    def linear(self, x, name):
        return rn(F.linear(x, self.w[name]))

    def rms_norm(self, x, name):
        return rn(norm(x, self.w[name], self.eps))

    def fused_add_rms_norm(self, x, residual, name):
        residual = rn(x + residual)
        return self.rms_norm(residual, name), residual

    def rotary(self, x, table, interleaved):
        return rn(rotate(x, table, interleaved))

    def rotary_index(self, x, table):
        r = self.z["rope"]
        return torch.cat([self.rotary(x[..., :r], table, False), x[..., r:]], -1)

    def layer_norm(self, x, weight, bias):
        x = x - x.mean(-1, keepdim=True)
        return rn(x / torch.sqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.w[weight] + self.w[bias])

    def quant_fp8(self, x, least):
        """Groups of 128; ue8m0. (codes as f32 values, scales as f32): the scale is at least `least`'s power of two."""
        m, e = torch.frexp(torch.clamp(x.abs().amax(-1) / FP8_TOP, min=least))
        scale = torch.ldexp(torch.ones_like(m), torch.where(m == 0.5, e - 1, e))
        return (x / scale[..., None]).to(torch.float8_e4m3fn).float(), scale

    def index_weights(self, w, q_scale):
        d, h = (torch.tensor(self.z[n] ** -0.5, dtype=torch.float32) for n in ("index_dim", "index_heads"))
        return w * q_scale * d.item() * h.item()

    def index_logits(self, q, w, codes, scale):
        """fp8_paged_mqa_logits: q [B, T, heads, 128], w [B, T, heads], codes [B, S, 128], scale [B, S]; f32 [B, T, S]"""
        return (shared_key(q, codes).relu() * w[..., None]).sum(2) * scale[:, None]

    def select(self, logits, visible):
        """top_k_per_row: bool [B, T, S]. The largest logits; of equal ones the lowest index."""
        order = logits.masked_fill(~visible, -torch.inf).sort(dim=-1, descending=True, stable=True).indices
        chosen = torch.zeros_like(visible).scatter(-1, order[..., :self.top_k], True)
        return chosen & visible

    def concat(self, ql_nope, q_pe):
        return torch.cat([ql_nope, q_pe], -1)

    def attend(self, q, rows, chosen):
        """sparse_mla_decode: q [B, T, heads, 576], rows [B, S, 576], chosen bool [B, T, S]; [B, T, heads, 512]"""
        scores = shared_key(q, rows) * self.scale
        p = scores.masked_fill(~chosen[:, :, None], -torch.inf).softmax(-1)
        return rn(torch.matmul(p.flatten(1, 2), rows[..., :self.z["kv_latent"]]).view(*q.shape[:3], -1))

    def layer(self, i, x, residual, table, slots, cache, visible):
        """x: the last op's output, not yet added to the residual stream, which is None in layer 0."""
        z, n = self.z, f"layers.{i}."
        batch, length = x.shape[:2]
        if residual is None:
            x, residual = self.rms_norm(x, n + "attn_norm.weight"), x
        else:
            x, residual = self.fused_add_rms_norm(x, residual, n + "attn_norm.weight")

        latent = self.rms_norm(self.linear(x, n + "attn.q_a.weight"), n + "attn.q_norm.weight")
        q = self.linear(latent, n + "attn.q_b.weight").view(batch, length, z["heads"], z["nope"] + z["rope"])
        kv = self.linear(x, n + "attn.kv_a.weight")
        c = self.rms_norm(kv[..., :z["kv_latent"]], n + "attn.kv_norm.weight")
        q_pe = self.rotary(q[..., z["nope"]:], table, True)
        k_pe = self.rotary(kv[..., None, z["kv_latent"]:], table, True)[..., 0, :]
        # one linear a head: [B, T, nope] with w_uk[head] as its weight [512, nope]
        ql_nope = rn(torch.einsum("bthn,hcn->bthc", q[..., :z["nope"]], self.w[n + "attn.w_uk.weight"]))
        q = self.concat(ql_nope, q_pe)  # concat_mla_q
        put(cache.mla[i], slots, torch.cat([c, k_pe], -1))  # concat_and_cache_mla

        iq = self.linear(latent, n + "indexer.q.weight").view(batch, length, z["index_heads"], z["index_dim"])
        ik = self.linear(x, n + "indexer.k.weight")
        iw = self.linear(x, n + "indexer.weights.weight")
        ik = self.layer_norm(ik, n + "indexer.k_norm.weight", n + "indexer.k_norm.bias")
        iq, ik = self.rotary_index(iq, table), self.rotary_index(ik[:, :, None], table)[:, :, 0]
        codes, scale = self.quant_fp8(iq, 1e-10)  # quant_fp8_group
        iw = self.index_weights(iw, scale)
        k_codes, k_scale = self.quant_fp8(ik, 1e-4 / FP8_TOP)  # indexer_k_quant_and_cache
        put(cache.index_codes[i], slots, k_codes)
        put(cache.index_scale[i], slots, k_scale)
        logits = self.index_logits(codes, iw, cache.index_codes[i], cache.index_scale[i])
        chosen = self.select(logits, visible)  # top_k_per_row, translate_indices

        out = self.attend(q, cache.mla[i], chosen)
        # one linear a head: [B, T, 512] with w_uv[head] as its weight [value, 512]
        out = rn(torch.einsum("bthc,hvc->bthv", out, self.w[n + "attn.w_uv.weight"])).flatten(-2)
        x = self.linear(out, n + "attn.o.weight")

        x, residual = self.fused_add_rms_norm(x, residual, n + "mlp_norm.weight")
        gate, up = self.linear(x, n + "mlp.gate_up.weight").chunk(2, -1)
        x = self.linear(rn(F.silu(gate) * up), n + "mlp.down.weight")  # silu_and_mul: one rounding
        return x, residual

    @torch.no_grad()
    def forward(self, ids, slots, offsets, cache):
        """ids, slots [B, T] (slot s: the s-th token of its request, which sees slots 0..s), offsets [B] (a token's rotary
        position is its slot plus this). Writes the caches; returns logits [B, T, vocab] in f32, unrounded."""
        table = self.table[slots + offsets[:, None]]
        visible = torch.arange(cache.mla.shape[2], device=ids.device) <= slots[..., None]
        x, residual = self.w["embedding.weight"][ids], None
        for i in range(self.z["layers"]):
            x, residual = self.layer(i, x, residual, table, slots, cache, visible)
        x, _ = self.fused_add_rms_norm(x, residual, "final_norm.weight")
        return F.linear(x, self.w["head.weight"])

    def cache(self, batch, length):
        return Cache(self.z, batch, length, self.device)


def put(cache, slots, values):
    """cache [B, S, ..], slots [B, T], values [B, T, ..]"""
    cache[torch.arange(len(cache), device=cache.device)[:, None], slots] = values


def reference_forward(tensors, ids, offset, sizes=SIZES, device="cpu", top_k=None):
    """Logits [T, vocab] of one request, all tokens given."""
    model = Reference(tensors, sizes, device, top_k)
    ids = torch.tensor(ids, device=device)[None]
    slots = torch.arange(ids.shape[1], device=device)[None]
    return model.forward(ids, slots, torch.tensor([offset], device=device), model.cache(1, ids.shape[1]))[0]


def pad(rows, device):
    """Rows of ids as [B, longest], and their lengths. Padding is token 0: what it writes is overwritten before it is seen."""
    length = torch.tensor([len(r) for r in rows], device=device)
    return torch.tensor([r + [0] * (int(length.max()) - len(r)) for r in rows], device=device), length


@torch.no_grad()
def generate(model, prompts, offsets, eos, most=128):
    """Greedy decoding of all prompts at once; lists of new ids, <eos> included if it came."""
    ids, length = pad(prompts, model.device)
    offsets = torch.tensor(offsets, device=model.device)
    cache = model.cache(len(prompts), ids.shape[1] + most)
    slots = torch.arange(ids.shape[1], device=model.device).expand_as(ids)
    logits = model.forward(ids, slots, offsets, cache)
    token = logits[torch.arange(len(prompts), device=model.device), length - 1].argmax(-1)
    new, done = [token], token == eos
    for i in range(most - 1):
        if done.all():
            break
        token = model.forward(token[:, None], (length + i)[:, None], offsets, cache)[:, 0].argmax(-1)
        new.append(token)
        done |= token == eos
    rows = torch.stack(new, 1).tolist()
    return [r[:r.index(eos) + 1] if eos in r else r for r in rows]


@torch.no_grad()
def teacher_forced(model, prompts, solutions, offsets):
    """Log-probabilities [B, T, vocab] over prompt + solution, and a mask of the places that predict solution tokens."""
    ids, length = pad([p + s for p, s in zip(prompts, solutions)], model.device)
    slots = torch.arange(ids.shape[1], device=model.device).expand_as(ids)
    logits = model.forward(ids, slots, torch.tensor(offsets, device=model.device), model.cache(*ids.shape))
    first = torch.tensor([len(p) for p in prompts], device=model.device)[:, None]
    mask = (slots >= first - 1) & (slots < length[:, None] - 1)
    return ids, logits, mask


