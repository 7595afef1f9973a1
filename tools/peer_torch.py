#!/usr/bin/env python3
"""peer_torch.py: torch's kernels for `hallmark bench --impl cuda --peer torch` (tools/peer.h has the protocol).

As bench does: buffers in turn, a CUDA graph of many calls, the median of its replays. Outputs that torch allocates are kept
for as many calls as there are sets, so that they are no warmer in the cache than the bench's.
"""
import json
import statistics
import sys

import numpy
import torch
import torch.nn.functional as F

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "u8": torch.uint8, "i32": torch.int32,
          "i64": torch.int64, "f8e4m3": torch.float8_e4m3fn, "f8e5m2": torch.float8_e5m2}


class Declined(Exception):
    pass


def want(condition, reason):
    if not condition:
        raise Declined(reason)


def rms_norm(a, p):
    want(p["weight_form"] == "plain" and p["round"] == "once" and not p["variance_size"], "torch has no such mode")
    weight = a.get("weight")
    want(weight is None or weight.dtype == a["x"].dtype, "torch has no weight of another dtype")
    return lambda: F.rms_norm(a["x"], a["x"].shape[-1:], weight, p["eps"])


def fused_add_rms_norm(a, p):
    want(p["residual_read"] == "rounded", "torch has no such mode")
    want(a["residual"].dtype == a["residual_out"].dtype == a["x"].dtype, "torch has no residual of another dtype")
    norm = rms_norm({"x": a["residual_out"], "weight": a.get("weight")}, p)

    def call():
        torch.add(a["x"], a["residual"], out=a["residual_out"])
        return norm()
    return call


def layer_norm(a, p):
    for name in ("weight", "bias"):
        want(a.get(name) is None or a[name].dtype == a["x"].dtype, f"torch has no {name} of another dtype")
    return lambda: F.layer_norm(a["x"], a["x"].shape[-1:], a.get("weight"), a.get("bias"), p["eps"])


def embedding(a, p):
    return lambda: F.embedding(a["ids"], a["table"])


def silu_and_mul(a, p):
    gate, up = a["x"].chunk(2, -1)
    return lambda: torch.mul(F.silu(gate), up, out=a["out"])


def linear(a, p):
    want(a["x"].dtype == a["weight"].dtype == a["out"].dtype, "torch has no product of two dtypes")
    return lambda: F.linear(a["x"], a["weight"], a.get("bias"))


def concat_mla_q(a, p):
    return lambda: torch.cat((a["ql_nope"], a["q_pe"]), -1, out=a["q_out"])


def top_k_per_row(a, p):
    columns, k = a["logits"].shape[-1], a["indices"].shape[-1]
    full = all(n == columns for n in a["seq_lens"].tolist()) if "seq_lens" in a else False
    want(full, "torch has no windows; this is for rows that are seen whole")
    return lambda: torch.topk(a["logits"], k, sorted=False)


def index_weights(a, p):
    heads, dim = a["weights"].shape[-1], p.get("head_dim") or 128
    return lambda: a["weights"].float() * a["q_scale"] * (heads ** -0.5 * dim ** -0.5)


OPS = {f.__name__: f for f in (rms_norm, fused_add_rms_norm, layer_norm, embedding, silu_and_mul, linear, concat_mla_q,
                               top_k_per_row, index_weights)}


def load(case):
    """The arguments of one set, on the device, with their strides and their shared buffers."""
    buffers, out = {}, {}
    for name, t in case["args"].items():
        if t["buffer"] not in buffers:
            memory = numpy.memmap(t["file"], dtype=numpy.uint8, mode="r")
            buffers[t["buffer"]] = torch.from_numpy(numpy.asarray(memory).copy()).cuda()
        storage, dtype = buffers[t["buffer"]], DTYPES.get(t["dtype"])
        want(dtype is not None, f"torch has no {t['dtype']}")
        offset = t["offset"]
        head = offset % dtype.itemsize
        view = storage[head:head + (storage.numel() - head) // dtype.itemsize * dtype.itemsize].view(dtype)
        out[name] = view.as_strided(t["shape"], t["stride"], offset // dtype.itemsize)
    return out


class Case:
    """A case as a graph of calls."""

    def __init__(self, path):
        with open(path) as file:
            case = json.load(file)
        make = OPS.get(case["op"])
        want(make, f"torch has no {case['op']}")
        want(all("buffer" in t for t in case["args"].values()), "an argument without memory")
        self.calls = [make(load(case), case["params"]) for _ in range(case["sets"])]
        self.count, self.kept, self.stream = case["calls"], [None] * case["sets"], torch.cuda.Stream()
        with torch.cuda.stream(self.stream):
            for i in range(3):
                self.calls[i % len(self.calls)]()
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=self.stream):
            for i in range(self.count):
                self.kept[i % len(self.calls)] = self.calls[i % len(self.calls)]()

    def time(self):
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        times = []
        with torch.cuda.stream(self.stream):
            for _ in range(8):
                before.record()
                self.graph.replay()
                after.record()
                after.synchronize()
                times.append(before.elapsed_time(after) * 1e3 / self.count)
        return statistics.median(times[1:])


def timed(way):
    before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    before.record()
    way()
    after.record()
    after.synchronize()
    return before.elapsed_time(after) * 1e3


def ways_of(kind):
    """A product of two matrices of 8192 x 8192, normal values, in each of torch's ways."""
    n = 8192
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    if kind == "bf16":
        out = torch.empty_like(a)
        return [lambda: torch.mm(a, b, out=out), lambda: torch.mm(a, b.t(), out=out)]
    x, y, one = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn).t(), torch.ones((), device="cuda")
    return [lambda fast=fast: torch._scaled_mm(x, y, scale_a=one, scale_b=one, out_dtype=torch.bfloat16,
                                               use_fast_accum=fast) for fast in (False, True)]


fastest = {}


def product(kind):
    """Microseconds of the product in the fastest way, after 0.1 s of it: by then clocks have followed."""
    if kind not in fastest:
        fastest[kind] = min(ways_of(kind), key=lambda way: statistics.median([timed(way) for _ in range(9)][2:]))
    times = []
    while sum(times) < 2e5:
        times.append(timed(fastest[kind]))
    return statistics.median(times[len(times) // 2:])


def main():
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    case = None
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        if word == "time":
            print(case.time(), flush=True)
        elif word == "product":
            try:
                print(product(rest), flush=True)
            except (AttributeError, RuntimeError) as e:
                print("declined", str(e).splitlines()[0], flush=True)
        elif word == "case":
            case = None
            torch.cuda.empty_cache()
            try:
                case = Case(rest)
                print(f"ready torch {torch.__version__}", flush=True)
            except Declined as e:
                print("declined", e, flush=True)
            except (torch.cuda.OutOfMemoryError, RuntimeError, ValueError) as e:
                print("declined", str(e).splitlines()[0], flush=True)


main()
