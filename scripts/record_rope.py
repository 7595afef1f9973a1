#!/usr/bin/env python3
"""Records rotary position embeddings, their tables and MLA's concatenation, as Hallmark traces.

    python3 scripts/record_rope.py --out DIR [--device cuda]

Needs torch, transformers and safetensors; no network. Nothing is computed here: every input and output is what a public
implementation was given and returned. Files written to DIR:

    rope_llama        apply_rotary_pos_emb inside a Llama with Llama 3 scaling; the same function on the CPU and through
                      torch.compile
    rope_gemma        the same in Gemma 2 and Gemma 3
    rope_scaled       Qwen 3 and gpt-oss with YaRN; Phi 3 with LongRoPE, which rotates a part of each head
    rope_interleaved  classes that pair neighbours: GLM (a part of each head), Cohere, DeepSeek-V2
    rope_deepseek_v3  DeepSeek-V3: its interleaved function, its half-split one, its concatenation of q_nope and q_pe
    rope_table        cos and sin of the rotary modules for every scaling, of the CPU and of the device
    torch_cat         torch.cat on strided views of random bits
    not_conforming/rope
                      recordings that the contracts forbid; NOT_CONFORMING says why

Models are small, with random weights, and read English text byte by byte; text, positions and tables reach past 256. Every
call states the modes that one would expect from the source code; `hallmark replay --fit-modes` says whether that is so.
"""
import argparse
import importlib
import pathlib
import sys

import torch
import transformers
from torch.overrides import TorchFunctionMode

from trace_file import DTYPES, TEXT, Trace, notes_of, source_of

NOT_CONFORMING = {
    "deepseek_v3": "pairs are neighbours in the input, but halves of a head in the output: no pairing does that",
    "linear": "the frequencies are divided by the factor, not the positions: another f32 rounding where it is no power of 2",
    "dynamic": "the base depends on the longest position seen; the contract has one base for the whole table",
}
POSITIONS = [0, 1, 2, 3, 255, 256, 257, 300, 4095, 4096, 16383, 65535, 65536, 131071, 2**20 - 1]
EACH = {"pairing": "half_split", "round": "each", "inverse": "forward", "rope_dim_offset": 0}
INTERLEAVED_EACH = {**EACH, "pairing": "interleaved"}
INTERLEAVED_ONCE = {**EACH, "pairing": "interleaved", "round": "once"}
BYTES = list((TEXT * 2).encode())[:260]  # positions 0..259
LAST, FIRST = slice(-5, None), slice(0, 3)  # tokens that are kept

LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=8192)
YARN = dict(rope_type="yarn", rope_theta=1000000.0, factor=4.0, original_max_position_embeddings=32768)
GPT_OSS = dict(rope_type="yarn", rope_theta=150000.0, factor=32.0, beta_fast=32.0, beta_slow=1.0, truncate=False,
               original_max_position_embeddings=4096)
DEEPSEEK = dict(rope_type="yarn", rope_theta=10000.0, factor=40.0, beta_fast=32.0, beta_slow=1.0, mscale=1.0,
                mscale_all_dim=1.0, original_max_position_embeddings=4096)
LONGROPE = dict(rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.75, original_max_position_embeddings=4096,
                short_factor=[1.0 + 0.03125 * i for i in range(24)], long_factor=[1.05 + 2.7 * i for i in range(24)])

CONTRACT = {"precision": "f32", "scaling": "default", "base": 10000.0, "factor": 1.0, "original_max_position": 0,
            "max_position": 0, "beta_fast": 32.0, "beta_slow": 1.0, "extrapolation_factor": 1.0, "mscale": 0.0,
            "mscale_all_dim": 0.0, "attention_factor": 0.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "fraction": "drop", "mrope_t": 0, "mrope_h": 0, "mrope_w": 0, "mrope_layout": "chunked"}


# ---- rotary_embedding ----------------------------------------------------------------------------------------------------

def tokens_first(t):
    """[batch, heads, tokens, head_size] as the contract's [batch, tokens, heads, head_size]: a view."""
    return t.transpose(1, 2)


def columns(cos, sin):
    """One column a pair. Classes give each pair's cosine once, twice in a row, or once in each half."""
    half = cos.shape[-1] // 2
    for a, b in ((slice(half), slice(half, None)), (slice(0, None, 2), slice(1, None, 2))):
        if torch.equal(cos[..., a], cos[..., b]) and torch.equal(sin[..., a], sin[..., b]):
            return cos[..., a], sin[..., a]
    return cos, sin


def record_rotation(trace, call, source, attrs, q, k, cos, sin, q_out, k_out, kept):
    """cos, sin [1, tokens, pairs], for positions 0, 1, ..: all rows up to the last token kept become the cache."""
    positions = torch.arange(q.shape[2], device=q.device)[None, kept]
    cache = torch.cat((cos, sin), dim=-1)[0, :int(positions.max()) + 1]
    q, k, q_out, k_out = (tokens_first(t)[:, kept] for t in (q, k, q_out, k_out))
    trace.call(call, "rotary_embedding", source, attrs,
               {"query": q, "key": k, "positions": positions, "cos_sin_cache": cache},
               {"query_out": q_out.contiguous(), "key_out": k_out.contiguous()})


def record_split_pairs(trace, call, source, q, k, cos, sin, q_out, k_out, kept):
    """Pairs (2i, 2i+1) of a head become (i, E+i): not one call of the contract, but exactly one if each pair is a token
    with heads of two elements, and the table has a row for each token and pair. The views say where the pairs lie."""
    pairs = cos.shape[-1]
    cos, sin = cos[0, kept], sin[0, kept]
    cache = torch.stack((cos, sin), dim=-1).reshape(-1, 2)
    q, k = (tokens_first(t)[0, kept].unflatten(-1, (pairs, 2)).permute(0, 2, 1, 3) for t in (q, k))
    q_out, k_out = (tokens_first(t)[0, kept].contiguous().unflatten(-1, (2, pairs)).permute(0, 3, 1, 2)
                    for t in (q_out, k_out))
    positions = torch.arange(len(cache), device=q.device).view(-1, pairs)
    trace.call(call, "rotary_embedding", source, INTERLEAVED_EACH,
               {"query": q, "key": k, "positions": positions, "cos_sin_cache": cache},
               {"query_out": q_out, "key_out": k_out})


class Patched:
    """Within `with`, every call of module.name is also given to see(q, k, cos, sin, q_out, k_out)."""

    def __init__(self, module, name, see):
        self.module, self.name, self.see, self.function = module, name, see, getattr(module, name)

    def __enter__(self):
        def wrapper(q, k, *table, **more):
            out = self.function(q, k, *table, **more)
            cos, sin = (table[0].real, table[0].imag) if len(table) == 1 else columns(*table[:2])
            self.see(q, k, cos, sin, *out)
            return out
        setattr(self.module, self.name, wrapper)

    def __exit__(self, *_):
        setattr(self.module, self.name, self.function)


def run(model, text=BYTES):
    device = next(model.parameters()).device
    positions = torch.arange(len(text), device=device)[None]
    with torch.no_grad():
        model(input_ids=torch.tensor([text], device=device), position_ids=positions, use_cache=False)


def module_of(model_class):
    return importlib.import_module(model_class.__module__)


def build(model_class, config, dtype, device):
    torch.manual_seed(11)
    return model_class(config).to(dtype).eval().to(device)


def record_model(trace, label, model_class, config, attrs, device, dtypes=("bf16", "f16", "f32"),
                 function="apply_rotary_pos_emb"):
    """Every layer in the first dtype, the first layer in the others."""
    for dtype in dtypes:
        module, layer = module_of(model_class), iter(range(99))

        def see(*tensors):
            i = next(layer)
            if i == 0 or dtype == dtypes[0]:
                source = f"{source_of(getattr(module, function))} (layer {i})"
                record_rotation(trace, f"{label}.{dtype}.layer{i}", source, attrs, *tensors, FIRST if i == 1 else LAST)

        model = build(model_class, config, DTYPES[dtype], device)
        with Patched(module, function, see):
            run(model)
        if next(layer) != config.num_hidden_layers:
            sys.exit(f"{label}: {function} was not called once a layer")


def record_function(trace, label, function, attrs, device, config):
    """The function alone, on the CPU or compiled: queries as a fused projection leaves them, strided."""
    for name, dtype in DTYPES.items():
        generator = torch.Generator().manual_seed(21)
        fused = torch.randn((1, len(BYTES), 6, 64), generator=generator).to(dtype).to(device)
        rotary = module_of(transformers.LlamaModel).LlamaRotaryEmbedding(config).to(device)
        cos, sin = rotary(fused, torch.arange(len(BYTES), device=device)[None])
        q, k = fused[:, :, :3].transpose(1, 2), fused[:, :, 3:5].transpose(1, 2)
        with torch.no_grad():
            out = function(q, k, cos, sin)
        record_rotation(trace, f"{label}.{device}.{name}", source_of(function), attrs, q, k, *columns(cos, sin), *out, LAST)


def compiled_rotation(*args):
    torch.compiler.reset()
    return torch.compile(module_of(transformers.LlamaModel).apply_rotary_pos_emb, dynamic=False, fullgraph=True)(*args)


class Cats(TorchFunctionMode):
    """Gives every torch.cat of two tensors along the last dimension to see(first, second, result)."""

    def __init__(self, see):
        super().__init__()
        self.see = see

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is torch.cat and len(args[0]) == 2 and kwargs.get("dim") == -1:
            self.see(*args[0], result)
        return result


def record_deepseek_v3(trace, refused, device):
    small = dict(vocab_size=256, hidden_size=256, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4,
                 num_key_value_heads=4, q_lora_rank=128, kv_lora_rank=128, qk_rope_head_dim=64, qk_nope_head_dim=128,
                 v_head_dim=64, first_k_dense_replace=1, max_position_embeddings=163840, attn_implementation="eager")
    module = module_of(transformers.DeepseekV3ForCausalLM)
    for name, dtype in DTYPES.items():
        # A config fills in its rope_parameters, so each gets its own.
        config = transformers.DeepseekV3Config(**small, rope_parameters=dict(DEEPSEEK), rope_interleave=True)
        model = build(transformers.DeepseekV3ForCausalLM, config, dtype, device)
        source = source_of(module.apply_rotary_pos_emb_interleave)

        def see(*tensors):
            record_split_pairs(trace, f"interleave.{name}", source, *tensors, LAST)
            if dtype == torch.bfloat16:
                record_rotation(refused, f"deepseek_v3.{name}", source, INTERLEAVED_EACH, *tensors, LAST)

        with Patched(module, "apply_rotary_pos_emb_interleave", see):
            run(model)

        def see_cat(q_nope, q_pe, q):
            if (q_nope.shape[-1], q_pe.shape[-1]) == (128, 64) and dtype != torch.float32:
                trace.call(f"cat.{name}", "concat_mla_q", "torch.cat in " + source_of(module.DeepseekV3Attention), {},
                           {"ql_nope": q_nope, "q_pe": q_pe}, {"q_out": q})

        with Cats(see_cat):
            run(model, BYTES[:3])

        config = transformers.DeepseekV3Config(**small, rope_parameters=dict(DEEPSEEK), rope_interleave=False)
        model = build(transformers.DeepseekV3ForCausalLM, config, dtype, device)

        def see_half(*tensors):
            record_rotation(trace, f"half_split.{name}", source_of(module.apply_rotary_pos_emb), EACH, *tensors, LAST)

        with Patched(module, "apply_rotary_pos_emb", see_half):
            run(model)


def record_rotary(out, notes, refused, device, devices, compile_too):
    small = dict(vocab_size=256, hidden_size=512, intermediate_size=512, num_hidden_layers=2, attn_implementation="eager")
    heads = dict(num_attention_heads=4, num_key_value_heads=2, head_dim=64)
    t = transformers

    trace = Trace()
    llama = t.LlamaConfig(**small, **heads, rope_parameters=dict(LLAMA3), max_position_embeddings=131072)
    record_model(trace, "llama", t.LlamaForCausalLM, llama, EACH, device)
    function = module_of(t.LlamaModel).apply_rotary_pos_emb
    record_function(trace, "eager", function, EACH, "cpu", llama)
    for each in devices if compile_too else []:
        try:
            record_function(trace, "compiled", compiled_rotation, {**EACH, "round": "once"}, each, llama)
        except Exception as error:  # no compiler on this machine, say: keep what was recorded, and why it stops there
            trace.notes[f"stopped.{each}"] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
            print(f"torch.compile on {each} stopped:", trace.notes[f"stopped.{each}"], file=sys.stderr)
    for call in trace.sources:
        if call.startswith("compiled."):
            trace.sources[call] = f"torch.compile({source_of(function)})"
    trace.save(out / "rope_llama.safetensors", notes)

    trace = Trace()
    record_model(trace, "gemma2", t.Gemma2ForCausalLM, t.Gemma2Config(**small, **heads), EACH, device)
    record_model(trace, "gemma3", t.Gemma3ForCausalLM, t.Gemma3TextConfig(
        **small, **heads, layer_types=["full_attention", "sliding_attention"], rope_parameters={
            "full_attention": dict(rope_type="linear", rope_theta=1000000.0, factor=8.0),
            "sliding_attention": dict(rope_type="default", rope_theta=10000.0)}), EACH, device)
    trace.save(out / "rope_gemma.safetensors", notes)

    trace = Trace()
    record_model(trace, "qwen3", t.Qwen3ForCausalLM, t.Qwen3Config(
        **small, **heads, rope_parameters=dict(YARN), max_position_embeddings=131072), EACH, device)
    record_model(trace, "gpt_oss", t.GptOssForCausalLM, t.GptOssConfig(
        **small, **heads, rope_parameters=dict(GPT_OSS), num_local_experts=2, num_experts_per_tok=1), EACH, device,
        ("bf16", "f16"))
    record_model(trace, "phi3", t.Phi3ForCausalLM, t.Phi3Config(
        **{**small, "hidden_size": 256}, num_attention_heads=4, num_key_value_heads=2, rope_parameters=dict(LONGROPE),
        max_position_embeddings=131072, original_max_position_embeddings=4096, pad_token_id=0), EACH, device,
        ("bf16", "f16"))
    trace.save(out / "rope_scaled.safetensors", notes)

    trace = Trace()
    record_model(trace, "glm", t.GlmForCausalLM, t.GlmConfig(
        **small, **heads, rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5),
        pad_token_id=0), INTERLEAVED_EACH, device)
    record_model(trace, "cohere", t.CohereForCausalLM, t.CohereConfig(
        **{**small, "hidden_size": 256}, num_attention_heads=4, num_key_value_heads=2), INTERLEAVED_ONCE, device)
    record_model(trace, "deepseek_v2", t.DeepseekV2ForCausalLM, t.DeepseekV2Config(
        **small, num_attention_heads=4, num_key_value_heads=4, q_lora_rank=128, kv_lora_rank=128, qk_rope_head_dim=64,
        qk_nope_head_dim=64, v_head_dim=64, first_k_dense_replace=2, rope_parameters={**DEEPSEEK, "mscale": 0.707}),
        INTERLEAVED_ONCE, device, function="apply_rotary_emb")
    trace.save(out / "rope_interleaved.safetensors", notes)

    trace = Trace()
    record_deepseek_v3(trace, refused, device)
    trace.save(out / "rope_deepseek_v3.safetensors", notes)


# ---- rope_table ----------------------------------------------------------------------------------------------------------

def tables():
    """(name, rotary class, config, positions or None for POSITIONS, the contract's scalars where CONTRACT has others)"""
    t = transformers
    heads = dict(hidden_size=512, num_attention_heads=4, num_key_value_heads=4, head_dim=128)

    def llama(limit=131072, head_dim=128, **rope):
        return t.LlamaConfig(**{**heads, "head_dim": head_dim}, max_position_embeddings=limit, rope_parameters=rope)

    def yarn(rope, **more):
        return {"scaling": "yarn", "base": rope["rope_theta"], "factor": rope["factor"],
                "original_max_position": rope["original_max_position_embeddings"], **more}

    rotary = {name: getattr(importlib.import_module(f"transformers.models.{folder}.modeling_{folder}"), name)
              for folder, name in (("llama", "LlamaRotaryEmbedding"), ("qwen3", "Qwen3RotaryEmbedding"),
                                   ("gpt_oss", "GptOssRotaryEmbedding"), ("phi3", "Phi3RotaryEmbedding"),
                                   ("deepseek_v3", "DeepseekV3RotaryEmbedding"), ("gemma2", "Gemma2RotaryEmbedding"),
                                   ("qwen3_vl", "Qwen3VLTextRotaryEmbedding"), ("qwen2_vl", "Qwen2VLRotaryEmbedding"))}
    phi3 = t.Phi3Config(hidden_size=256, num_attention_heads=4, rope_parameters=dict(LONGROPE),
                        max_position_embeddings=131072, original_max_position_embeddings=4096, pad_token_id=0)
    deepseek = dict(hidden_size=256, num_attention_heads=4, qk_rope_head_dim=64, max_position_embeddings=163840)
    grid = [[0, 1, 7, 255, 256, 257, 4096], [0, 1, 9, 255, 40, 300, 4097], [0, 1, 11, 80, 256, 257, 5000]]  # t, h, w
    return [
        ("default", rotary["LlamaRotaryEmbedding"], llama(rope_type="default", rope_theta=10000.0), None, {}),
        ("default_96", rotary["LlamaRotaryEmbedding"], llama(rope_type="default", rope_theta=1e6, head_dim=96), None,
         {"base": 1e6}),
        ("gemma2", rotary["Gemma2RotaryEmbedding"], t.Gemma2Config(head_dim=256), None, {}),
        ("linear_8", rotary["LlamaRotaryEmbedding"], llama(rope_type="linear", rope_theta=1e6, factor=8.0), None,
         {"scaling": "linear", "base": 1e6, "factor": 8.0}),
        ("linear_2.5", rotary["LlamaRotaryEmbedding"], llama(rope_type="linear", rope_theta=10000.0, factor=2.5), None,
         {"scaling": "linear", "factor": 2.5}),
        # The longest position is the last of 4 x 2^18: there this class has the contract's base.
        ("dynamic", rotary["LlamaRotaryEmbedding"],
         llama(2**18, rope_type="dynamic", rope_theta=10000.0, factor=4.0), None,
         {"scaling": "dynamic_ntk", "factor": 4.0, "original_max_position": 2**18}),
        ("dynamic_shorter", rotary["LlamaRotaryEmbedding"],
         llama(4096, rope_type="dynamic", rope_theta=10000.0, factor=4.0), [0, 1, 257, 4096, 8191],
         {"scaling": "dynamic_ntk", "factor": 4.0, "original_max_position": 4096}),
        ("yarn_qwen3", rotary["Qwen3RotaryEmbedding"], t.Qwen3Config(
            **heads, rope_parameters=dict(YARN), max_position_embeddings=131072), None, yarn(YARN)),
        ("yarn_gpt_oss", rotary["GptOssRotaryEmbedding"], t.GptOssConfig(
            **{**heads, "head_dim": 64}, rope_parameters=dict(GPT_OSS)), None, yarn(GPT_OSS, fraction="keep")),
        ("yarn_deepseek_v3", rotary["DeepseekV3RotaryEmbedding"],
         t.DeepseekV3Config(**deepseek, rope_parameters=dict(DEEPSEEK)), None,
         yarn(DEEPSEEK, scaling="deepseek_yarn", mscale=1.0, mscale_all_dim=1.0)),
        ("yarn_mscale", rotary["DeepseekV3RotaryEmbedding"],
         t.DeepseekV3Config(**deepseek, rope_parameters={**DEEPSEEK, "mscale": 0.707}), None,
         yarn(DEEPSEEK, mscale=0.707, mscale_all_dim=1.0)),
        ("llama3", rotary["LlamaRotaryEmbedding"], llama(**LLAMA3), None,
         {"scaling": "llama3", "base": 500000.0, "factor": 8.0, "original_max_position": 8192}),
        ("longrope_long", rotary["Phi3RotaryEmbedding"], phi3, None,
         {"scaling": "longrope", "original_max_position": 4096, "max_position": 131072, "factors": "long_factor"}),
        ("longrope_short", rotary["Phi3RotaryEmbedding"], phi3, [p for p in POSITIONS if p < 4096],
         {"scaling": "longrope", "original_max_position": 4096, "max_position": 131072, "factors": "short_factor"}),
        ("mrope_interleaved", rotary["Qwen3VLTextRotaryEmbedding"], t.Qwen3VLTextConfig(
            **heads, rope_parameters=dict(rope_type="default", rope_theta=5e6, mrope_section=[24, 20, 20])), grid,
         {"base": 5e6, "mrope_t": 24, "mrope_h": 20, "mrope_w": 20, "mrope_layout": "interleaved"}),
        ("mrope_chunked", rotary["Qwen2VLRotaryEmbedding"], t.Qwen2VLTextConfig(
            hidden_size=512, num_attention_heads=4, num_key_value_heads=4,
            rope_parameters=dict(rope_type="default", rope_theta=1e6, mrope_section=[16, 24, 24])), grid,
         {"base": 1e6, "mrope_t": 16, "mrope_h": 24, "mrope_w": 24}),
    ]


def record_tables(trace, refused, devices):
    """Modules made and run on each device, and those made on the CPU and moved, as loading a model does."""
    places = [(device, device) for device in devices] + [("cpu", device) for device in devices if device != "cpu"]
    for name, rotary_class, config, positions, attrs in tables():
        attrs = {**CONTRACT, **attrs}
        factors = attrs.pop("factors", None)
        factors = factors and torch.tensor(LONGROPE[factors])
        for made, device in places:
            with torch.device(made):
                rotary = rotary_class(config)
            rotary = rotary.to(device)
            ids = torch.tensor(positions or POSITIONS, device=device)
            for dtype in DTYPES if name in ("default", "longrope_short") else ["f32"]:
                like = torch.empty(0, dtype=DTYPES[dtype], device=device)
                cos, sin = rotary(like, ids[None] if ids.dim() == 1 else ids[:, None])
                table = torch.cat(columns(cos[0], sin[0]), dim=-1)
                place = made if made == device else f"{made}_{device}"
                target = refused if name in ("linear_2.5", "dynamic_shorter") else trace
                target.call(f"{name}.{place}.{dtype}", "rope_table", source_of(rotary_class), attrs,
                            {"positions": ids, "factors": factors}, {"out": table})


# ---- concat_mla_q --------------------------------------------------------------------------------------------------------

def record_cat(trace, devices):
    """Random bits, so that NaN with payloads, infinities, subnormal values and both zeros are among them. No f32: the
    contract refuses it, so there would be nothing to judge."""
    for device in devices:
        for name in ("bf16", "f16"):
            generator = torch.Generator().manual_seed(31)

            def fill(*shape):
                bits = torch.randint(-2**15, 2**15, shape, generator=generator, dtype=torch.int16)
                return bits.view(DTYPES[name]).to(device)

            heads_first, wide, plain = fill(3, 4, 512), fill(4, 3, 192), fill(4, 3, 512)
            calls = [("strided", heads_first.transpose(0, 1), wide[..., 128:]),
                     ("dense", plain, wide[..., 128:].contiguous()), ("one_token", plain[:1], wide[:1, :, :64]),
                     ("odd", plain[..., 1:8], wide[..., 5:18]), ("rows", plain[:, 1], wide[:, 2, :64])]
            for what, nope, pe in calls:
                trace.call(f"{what}.{device}.{name}", "concat_mla_q", "torch.cat", {},
                           {"ql_nope": nope, "q_pe": pe}, {"q_out": torch.cat([nope, pe], dim=-1)})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder for the traces")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    arguments = parser.parse_args()
    devices = list(dict.fromkeys([arguments.device, "cpu"]))
    notes = notes_of("record_rope.py", arguments.device)
    refused = Trace()

    record_rotary(arguments.out, notes, refused, arguments.device, devices, not arguments.no_compile)
    trace = Trace()
    record_tables(trace, refused, devices)
    trace.save(arguments.out / "rope_table.safetensors", notes)
    trace = Trace()
    record_cat(trace, devices)
    trace.save(arguments.out / "torch_cat.safetensors", notes)
    refused.notes.update({f"reason.{what}": why for what, why in NOT_CONFORMING.items()})
    refused.save(arguments.out / "not_conforming" / "rope.safetensors", notes)


if __name__ == "__main__":
    main()
