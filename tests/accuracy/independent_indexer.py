#!/usr/bin/python3
"""Recomputes what data/golden says of indexer, in different software, from the contracts' text alone: the chain as its seven steps.

usage: independent_indexer.py HALLMARK [--golden DIR] [--most N]

The cases are those of the golden file; their inputs are filled by Hallmark's generators, and what they are is read from what `hallmark
golden --inputs` writes. Numbers are fractions, without rounding; a root has 400 bits, unless it is rational.
  kv_cache  bytes of other tokens: what was there, to be judged by its bits. Of a new key: the ideal codes and scale, or unspecified
            where its scale may be one of two.
  logits    the ideal ones, rounded once; unspecified of a query that is not finite, and of new keys, which nobody has seen yet.
  indices   the largest ideal logits first, equal ones by ascending index.
`hallmark replay` is then given chains of this script's as recordings: the exact one, and one in f32, each operation rounded, have to
pass; chains with a known bug have to fail in the output that the bug shows in first; and so has a logit past its bound, which is the
bound of the steps from the contract's text: 1.02 of it is too much.
Exit 0: all agree; 1: something does not; 2: less was compared than promised, or the tool failed.
"""
import json
import math
import os
import struct
import tempfile
from collections import Counter
from fractions import Fraction
from functools import lru_cache
from operator import mul

import mpmath

from independent import BF16, DTYPE, F32, ask, ask_golden, conclude, end, judged, listed, make, read_safetensors, stop
from independent_indexer_cache import FORMATS, code_byte, power_above, values_of

BITS, UNSPECIFIED = 8, 16
DIM = 128
PROMISED = {"bytes of new keys": 10000, "bytes of others": 100000, "logits": 2000, "logits outside": 3000, "indices": 1000, "unspecified": 400,
            "judged exact": 40, "judged f32": 30, "judged bound": 25, "judged wrong": 200}
UNIT = {"e4m3": -9, "e4m3fnuz": -10}  # exponent of the smallest positive code
VALUES = {name: {code: int(v / Fraction(2) ** UNIT[name]) for code, v in values_of(8 if name == "e4m3fnuz" else 7, name == "e4m3fnuz").items()}
          for name in FORMATS}

# ---- numbers ---------------------------------------------------------------------------------------------------------------------


def rn(T, v):
    """RN_T of a fraction."""
    if v == 0:
        return 0.0
    n, d = abs(v.numerator), v.denominator
    e = n.bit_length() - d.bit_length()
    e -= Fraction(n, d) < Fraction(2) ** e
    q = max(e, T.emin) - T.precision + 1
    r = math.ldexp(round(abs(v) / Fraction(2) ** q), q)
    return math.copysign(r if r <= T.max else math.inf, v)


def finite(*parts):
    return all(math.isfinite(v) for part in parts for v in part)


def fl(v):
    """RN_f32 of a double."""
    return struct.unpack("<f", struct.pack("<f", v))[0] if abs(v) < 3.4e38 else math.inf * v


def root_of(v):
    """The root of a fraction, if it is rational."""
    n, d = math.isqrt(v.numerator), math.isqrt(v.denominator)
    return Fraction(n, d) if n * n == v.numerator and d * d == v.denominator else None


def rn_quotient(T, a, square, b):
    """RN_T(a / sqrt(square) + b), all fractions."""
    root = root_of(square)
    if root is not None or a == 0:
        return rn(T, (a / root if a else 0) + b)
    with mpmath.workprec(400):
        y = mpmath.mpf(a.numerator) / a.denominator / mpmath.sqrt(mpmath.mpf(square.numerator) / square.denominator)
        sign, man, exp, _ = (y + mpmath.mpf(b.numerator) / b.denominator)._mpf_
    exact = Fraction(int(man)) * Fraction(2) ** exp * (-1 if sign else 1)
    near = {rn(T, exact + side * abs(exact) / 2 ** 300) for side in (-1, 1)}
    if len(near) != 1:
        stop("a quotient is too near to a boundary for 400 bits")
    return near.pop()


# ---- the seven steps: exact, each rounded where the contract says so --------------------------------------------------------------


@lru_cache(None)
def layer_norm(x, weight, bias, eps, T):
    x = [Fraction(v) for v in x]
    mean = sum(x) / len(x)
    variance = sum((v - mean) ** 2 for v in x) / len(x)
    return tuple(rn_quotient(T, (v - mean) * Fraction(weight[i] if weight else 1), variance + Fraction(eps), Fraction(bias[i] if bias else 0))
                 for i, v in enumerate(x))


def pairs(rotary, pairing, offset):
    half = rotary // 2
    for i in range(half):
        yield i, offset + (i if pairing == "half_split" else 2 * i), offset + (half + i if pairing == "half_split" else 2 * i + 1)


@lru_cache(None)
def rotary(x, row, pairing, offset, T):
    """row: cosines, then sines."""
    y, half = list(x), len(row) // 2
    for i, a, b in pairs(len(row), pairing, offset):
        u, v, c, s = Fraction(x[a]), Fraction(x[b]), Fraction(row[i]), Fraction(row[half + i])
        y[a], y[b] = rn(T, u * c - v * s), rn(T, v * c + u * s)
    return tuple(y)


@lru_cache(None)
def scale_of(x, floor, codes):
    """The power of two that is S."""
    floor = Fraction(fl(floor))
    return float(power_above(max(floor, max((abs(Fraction(v)) for v in x), default=Fraction(0))) / FORMATS[codes].divisor))


@lru_cache(None)
def codes_of(x, S, codes):
    return tuple(FORMATS[codes].nearest(Fraction(v) / Fraction(S), math.copysign(1, v) < 0) for v in x)


def index_weight(w, S, heads):
    return rn_quotient(F32, Fraction(w) * Fraction(S), Fraction(DIM * heads), Fraction(0))


def logit(q, weights, key, S, codes):
    """q: codes of all heads."""
    value, total = VALUES[codes], Fraction(0)
    k = [value[c] for c in key]
    for w, head in zip(weights, q):
        score = sum(map(mul, map(value.__getitem__, head), k))
        if score > 0:
            total += Fraction(w) * score
    return rn(F32, total * Fraction(S) * Fraction(4) ** UNIT[codes])


def top_k(logits, n, k):
    """The library's order."""
    if n <= k:
        return list(range(max(n, 0))) + [-1] * (k - max(n, 0))
    return sorted(range(n), key=lambda i: (-logits[i], i))[:k]


# ---- a call ------------------------------------------------------------------------------------------------------------------------


class Call:
    def __init__(self, call, tensors):
        base, attrs = call["id"] + "/", call["attrs"]
        self.id, self.attrs, self.tensors = call["id"], attrs, tensors

        def load(name):
            if base + name not in tensors:
                return None
            dtype, shape, data = tensors[base + name]
            if dtype in ("I32", "I64"):
                return struct.unpack("<%d%s" % (math.prod(shape), "i" if dtype == "I32" else "q"), data)
            return DTYPE[dtype].decode(data)

        self.T = DTYPE[tensors[base + "q"][0]]
        self.tokens, self.heads = tensors[base + "q"][1][:2]
        q, k, w = load("q"), load("k"), load("weights")
        self.q = [[q[(t * self.heads + h) * DIM:][:DIM] for h in range(self.heads)] for t in range(self.tokens)]
        self.k = [k[t * DIM:][:DIM] for t in range(self.tokens)]
        self.w = [w[t * self.heads:][:self.heads] for t in range(self.tokens)]
        self.norm_weight, self.norm_bias, self.eps = load("k_weight"), load("k_bias"), fl(attrs["eps"])
        R = tensors[base + "cos_sin_cache"][1][1]
        table = load("cos_sin_cache")
        self.table = [table[r * R:][:R] for r in range(len(table) // R if R else 0)]
        self.positions, self.slots, lens = load("positions"), load("slot_mapping"), load("context_lens")
        tables, (batch, self.most) = load("block_tables"), tensors[base + "block_tables"][1]
        self.next_n = self.tokens // batch if batch else 1
        self.blocks = [tables[b * self.most:][:self.most] for b in range(batch)]
        if len(tensors[base + "context_lens"][1]) == 2:
            self.seen = list(lens)
        else:
            self.seen = [lens[t // self.next_n] - self.next_n + t % self.next_n + 1 for t in range(self.tokens)]
        self.blocks_n, self.B, self.entry = tensors[base + "kv_cache"][1]
        self.cache = tensors[base + "kv_cache"][2]
        self.width, self.top_k = ((tensors.get(base + "ideal." + name) or tensors[base + "out." + name])[1][1] for name in ("logits", "indices"))
        self.codes, self.layout, self.pairing = attrs["code_format"], attrs["layout"], attrs["pairing"]
        self.offset = attrs["rope_dim_offset"]
        shared = [v for part in (self.norm_weight, self.norm_bias) for v in part or ()]
        rows = [[v for v in self.table[p]] if R else [] for p in self.positions]
        self.good_k = [finite(k, row, shared) for k, row in zip(self.k, rows)]
        self.good_q = [finite(w, row, *q) for w, row, q in zip(self.w, rows, self.q)]

    def bytes_of(self, slot):
        """Where the codes of a slot lie, and its scale."""
        first, o = slot // self.B * self.B * self.entry, slot % self.B
        return [first + code_byte(self.layout, DIM, o, d) for d in range(DIM)], first + self.B * DIM + 4 * o

    def read(self, cache, token, p):
        codes, scale = self.bytes_of(self.blocks[token // self.next_n][p // self.B] * self.B + p % self.B)
        return [cache[b] for b in codes], struct.unpack_from("<f", cache, scale)[0]


class Chain:
    """What a call makes of its inputs; bug: what is wrong with it."""

    def __init__(self, call, bug=None):
        self.c, self.bug = call, bug
        c, tokens = call, range(call.tokens)
        self.k1 = [self.normed(c.k[t]) if c.good_k[t] else (0.0,) * DIM for t in tokens]
        self.k2 = [self.rotated(self.k1[t], t, "k") if c.good_k[t] else self.k1[t] for t in tokens]
        if bug == "norm behind rotation":
            self.k2 = [self.normed(self.rotated(c.k[t], t, "k")) if c.good_k[t] else self.k2[t] for t in tokens]
        self.q2 = [[self.rotated(h, t, "q") for h in c.q[t]] if c.good_q[t] else [(0.0,) * DIM] * c.heads for t in tokens]
        self.cache = self.written()
        self.S = [[self.scale(h, 1e-10, "q") for h in heads] for heads in self.q2]
        self.codes = [[codes_of(h, S, c.codes) for h, S in zip(heads, scales)] for heads, scales in zip(self.q2, self.S)]
        self.weights = [[self.weight(w, S) for w, S in zip(c.w[t], self.S[t])] if c.good_q[t] else [0.0] * c.heads for t in tokens]
        self.logits = [[self.logit(t, p) if p < self.limit(t) else -math.inf for p in range(c.width)] for t in tokens]
        self.indices = [self.selected(t) for t in tokens]

    def normed(self, x):
        return layer_norm(x, None if self.bug == "norm without weight" else self.c.norm_weight, self.c.norm_bias, self.c.eps, self.c.T)

    def rotated(self, x, t, which):
        c, bug = self.c, self.bug
        if bug in ("rotation dropped", "rotation of %s dropped" % which):
            return x
        row, pairing, offset = c.table[c.positions[t]], c.pairing, c.offset
        if bug == "other pairing":
            pairing = "interleaved" if pairing == "half_split" else "half_split"
        if bug == "other part rotated":
            offset = offset + len(row) if offset + 2 * len(row) <= DIM else 0
        return self.turn(x, row, pairing, offset)

    def turn(self, x, row, pairing, offset):
        return rotary(x, row, pairing, offset, self.c.T)

    def scale(self, x, floor, which):
        return scale_of(x, floor, self.c.codes) * (2 if self.bug == "scale of %s doubled" % which else 1)

    def written(self):
        c, cache = self.c, bytearray(self.c.cache)
        for t, slot in enumerate(c.slots):
            if slot < 0 or self.bug == "keys not written":
                continue
            if self.bug == "next slot":
                slot = (slot + 1) % (c.blocks_n * c.B)
            S = self.scale(self.k2[t], 1e-4, "k")
            places, at = c.bytes_of(slot)
            for b, code in zip(places, codes_of(self.k2[t], S, c.codes)):
                cache[b] = code
            cache[at:at + 4] = struct.pack("<f", S)
        return bytes(cache)

    def weight(self, w, S):
        return index_weight(w, 1.0 if self.bug == "scale of queries lost" else S, self.c.heads)

    def limit(self, t):
        return self.c.seen[t] - (self.bug == "own key hidden")

    def logit(self, t, p):
        key, S = self.c.read(self.cache, t, p)
        if not self.c.good_q[t] or any(k not in VALUES[self.c.codes] for k in key) or not math.isfinite(S):
            return 0.0
        return self.score(t, key, S)

    def score(self, t, key, S):
        return logit(self.codes[t], self.weights[t], key, S, self.c.codes)

    def selected(self, t):
        row = [-v for v in self.logits[t]] if self.bug == "smallest selected" else self.logits[t]
        return top_k(row, self.c.seen[t], self.c.top_k)

    def outputs(self):
        return {"kv_cache": ("U8", [self.c.blocks_n, self.c.B, self.c.entry], self.cache),
                "logits": ("F32", [self.c.tokens, self.c.width], F32.encode([v for row in self.logits for v in row])),
                "indices": ("I32", [self.c.tokens, self.c.top_k],
                            struct.pack("<%di" % (self.c.tokens * self.c.top_k), *[v for row in self.indices for v in row]))}


class InF32(Chain):
    """The chain in f32: one running sum, every operation rounded."""

    def normed(self, x):
        c, n, total = self.c, len(x), 0.0
        for v in x:
            total = fl(total + v)
        mean, squares = fl(total / n), 0.0
        for v in x:
            d = fl(v - mean)
            squares = fl(squares + fl(d * d))
        rs = fl(1 / fl(math.sqrt(fl(fl(squares / n) + c.eps)))) if squares or c.eps else 0.0
        y = [fl(fl(v - mean) * rs) for v in x]
        y = [fl(v * w) for v, w in zip(y, c.norm_weight)] if c.norm_weight else y
        y = [fl(v + b) for v, b in zip(y, c.norm_bias)] if c.norm_bias else y
        return tuple(rn(c.T, Fraction(v)) for v in y)

    def turn(self, x, row, pairing, offset):
        y, half = list(x), len(row) // 2
        for i, a, b in pairs(len(row), pairing, offset):
            u, v, c, s = x[a], x[b], row[i], row[half + i]
            y[a] = rn(self.c.T, Fraction(fl(fl(u * c) - fl(v * s))))
            y[b] = rn(self.c.T, Fraction(fl(fl(v * c) + fl(u * s))))
        return tuple(y)

    def weight(self, w, S):
        return fl(fl(fl(w * fl(self.c.heads ** -0.5)) * fl(DIM ** -0.5)) * S)

    def score(self, t, key, S):
        value, total, unit = VALUES[self.c.codes], 0.0, 4.0 ** UNIT[self.c.codes]
        k = [value[c] * unit for c in key]
        for w, head in zip(self.weights[t], self.codes[t]):
            score = 0.0
            for v in map(mul, map(value.__getitem__, head), k):
                score = fl(score + v)
            total = fl(total + fl(w * max(score, 0.0)))
        return fl(total * S)

    def selected(self, t):
        """Ties to the highest index, the smallest of the selected first."""
        n, k, row = self.c.seen[t], self.c.top_k, self.logits[t]
        return top_k(row, n, k) if n <= k else sorted(range(n), key=lambda i: (-row[i], -i))[:k][::-1]


def bound(chain, t, p):
    """How far class tc23 lets a logit be from the exact chain's: codes that may be others, weights, the dot product, the head sum."""
    c, value, u = chain.c, VALUES[chain.c.codes], Fraction(1, 1 << 24)
    key, S = c.read(chain.cache, t, p)
    k = [value[b] for b in key]
    slack = most = Fraction(0)
    row = c.table[c.positions[t]]
    half = len(row) // 2
    for h in range(c.heads):
        moved, q2 = Fraction(0), chain.q2[t][h]
        spread = {}
        for i, a, b in pairs(len(row), c.pairing, c.offset):
            x, y, cos, sin = (Fraction(v) for v in (c.q[t][h][a], c.q[t][h][b], row[i], row[half + i]))
            for d, e, size in ((a, x * cos - y * sin, abs(x * cos) + abs(y * sin)), (b, y * cos + x * sin, abs(y * cos) + abs(x * sin))):
                spread[d] = [Fraction(rn(c.T, e + side * (2 * u * size + Fraction(1, 1 << 120)))) for side in (-1, 1)]
        ends = [tuple(spread.get(d, [Fraction(q2[d])] * 2)[side] for d in range(DIM)) for side in (0, 1)]
        if {scale_of(x, 1e-10, c.codes) for x in ends} != {chain.S[t][h]}:
            return None
        for d in spread:
            codes = [value[codes_of((float(x[d]),), chain.S[t][h], c.codes)[0]] for x in ends]
            moved += max(abs(v - value[chain.codes[t][h][d]]) for v in codes) * abs(k[d])
        products = [value[q] * v for q, v in zip(chain.codes[t][h], k)]
        total, magnitude = sum(products), sum(map(abs, products))
        A = max(magnitude + total, magnitude - total) / 2
        U = Fraction(2) ** (math.frexp(float(A))[1] - 1 - 23) if A else Fraction(0)
        e = max(U * (DIM + 4 * (DIM // 8)), Fraction(101, 100) * u * DIM * magnitude)
        w, dw = abs(Fraction(chain.weights[t][h])), 6 * u * abs(Fraction(chain.weights[t][h]))
        slack += (w + dw) * (e + moved) + dw * max(total, 0)
        most += w * (max(total, 0) + e + moved)
    return (slack + Fraction(101, 100) * (c.heads + 3) * u * most) * Fraction(S) * Fraction(4) ** UNIT[c.codes] + Fraction(1, 1 << 110)


# ---- golden ------------------------------------------------------------------------------------------------------------------------


def compare(call, exact, case, most, counts):
    """What golden says of a call's outputs before it has seen any. How many elements are not as they are here."""
    differing, base, tensors = 0, call.id + "/", call.tensors

    def found(name):
        dtype, shape, ideal = tensors[base + "ideal." + name]
        flags = tensors.get(base + "flags." + name, (0, 0, bytes(math.prod(shape))))[2]
        parts = [tensors[base + kind + name][2] for kind in ("ideal.", "lo.", "hi.")]
        parts = [F32.decode(p) if dtype == "F32" else struct.unpack("<%di" % math.prod(shape), p) if dtype == "I32" else p for p in parts]
        return list(zip(*parts, flags))

    def check(what, good, got, want):
        nonlocal differing
        if not good:
            differing += 1
            if differing <= most:
                print("%s, %s: golden %s; here %s" % (case, what, got, want))

    writer = {}
    for t, slot in enumerate(call.slots):
        if slot >= 0:
            places, at = call.bytes_of(slot)
            writer.update(dict.fromkeys(places + [at + i for i in range(4)], t))
    for b, (ideal, lo, hi, flag) in enumerate(found("kv_cache")):
        t = writer.get(b)
        if t is None:
            counts["bytes of others"] += 1
            check("byte %d" % b, (ideal, lo, hi, flag) == (call.cache[b],) * 3 + (BITS,), (ideal, lo, hi, flag), call.cache[b])
        elif not call.good_k[t]:
            counts["unspecified"] += 1
            check("byte %d" % b, flag == UNSPECIFIED, flag, "unspecified")
        elif flag == UNSPECIFIED:
            counts["scale of two"] += 1  # as a key's largest element may be one of several values
        else:
            counts["bytes of new keys"] += 1
            zeros = {ideal, exact.cache[b]} == {0, 128}
            check("byte %d" % b, ideal == exact.cache[b] or zeros, (ideal, lo, hi, flag), exact.cache[b])
    new = {}
    for t, slot in enumerate(call.slots):
        if slot >= 0:
            new[slot] = t
    for i, (ideal, lo, hi, flag) in enumerate(found("logits")):
        t, p = divmod(i, call.width)
        what = "logits[%d,%d]" % (t, p)
        if p >= call.seen[t]:
            counts["logits outside"] += 1
            check(what, (ideal, lo, hi, flag) == (-math.inf,) * 3 + (0,), (ideal, lo, hi, flag), "-inf")
            continue
        slot = call.blocks[t // call.next_n][p // call.B] * call.B + p % call.B
        free = not call.good_q[t] or (slot in new and not call.good_k[new[slot]])
        if flag & UNSPECIFIED:
            counts["unspecified" if free else "logits unseen"] += 1
            check(what, free or slot in new, "unspecified", exact.logits[t][p])
        else:
            counts["logits"] += 1
            check(what, not free and ideal == exact.logits[t][p] and lo <= ideal <= hi, (ideal, lo, hi, flag), exact.logits[t][p])
    for i, (ideal, lo, hi, flag) in enumerate(found("indices")):
        t, j = divmod(i, call.top_k)
        if not call.good_q[t] or not all(call.good_k):
            continue
        counts["indices"] += 1
        check("indices[%d,%d]" % (t, j), ideal == exact.indices[t][j], (ideal, lo, hi, flag), exact.indices[t][j])
    return differing


# ---- verdicts ----------------------------------------------------------------------------------------------------------------------

# A bug, and the output in which it shows first, if it shows.
BUGS = {"rotation dropped": "kv_cache", "rotation of q dropped": "logits", "rotation of k dropped": "kv_cache", "other part rotated": "kv_cache",
        "other pairing": "kv_cache", "norm behind rotation": "kv_cache", "norm without weight": "kv_cache", "scale of k doubled": "kv_cache",
        "scale of queries lost": "logits", "keys not written": "kv_cache", "next slot": "kv_cache", "own key hidden": "logits",
        "smallest selected": "indices"}


def chains(call, exact, counts):
    """(kind, output that is wrong or None, outputs)"""
    finite = all(call.good_k) and all(call.good_q)
    right = exact.outputs()
    yield "exact", None, right
    if finite:
        yield "f32", None, InF32(call).outputs()
    if not finite or call.heads > 8:
        return
    for bug, output in BUGS.items():
        wrong = Chain(call, bug)
        got = wrong.outputs()
        if got[output] == right[output]:
            continue
        if output == "indices" and all(sorted(wrong.logits[t][i] for i in a if i >= 0) == sorted(exact.logits[t][i] for i in b if i >= 0)
                                       for t, (a, b) in enumerate(zip(wrong.indices, exact.indices))):
            continue  # ties
        yield "wrong", output, got
    found = [(abs(v), t, p) for t, row in enumerate(exact.logits) for p, v in enumerate(row) if math.isfinite(v) and v]
    for _, t, p in {max(found), found[0]} if found else ():
        far = bound(exact, t, p)
        if far is None:
            continue
        for side in (-1, 1):
            v = Fraction(exact.logits[t][p]) + side * far * Fraction(102, 100)
            row = list(exact.logits[t])
            row[p] = F32.step(rn(F32, v), side > 0)
            logits = exact.logits[:t] + [row] + exact.logits[t + 1:]
            indices = exact.indices[:t] + [top_k(row, call.seen[t], call.top_k)] + exact.indices[t + 1:]
            moved = Chain.outputs(type("Moved", (), {"c": call, "cache": exact.cache, "logits": logits, "indices": indices}))
            yield "bound", "logits", moved


def moved_code():
    """A query whose rotation is a tie of bf16, less 2^-26: f32 takes it for the tie, and so gets another code of 8 bits."""
    tie, heads, length = 1 + 47 / 256, 1, 2
    q = [1.0] * 64 + [0.0] * 63 + [448.0]
    k = [math.sin(i) * 2 ** (i % 5) for i in range(DIM)]
    cache = bytearray(16 * 132)
    cache[0:127] = bytes([0x38]) * 127
    cache[16 * DIM:16 * DIM + 4] = struct.pack("<f", 1.0)

    def bf16(values):
        return BF16.encode([BF16.near(v) for v in values])

    tensors = {"q": ("BF16", [1, heads, DIM], bf16(q)), "k": ("BF16", [1, DIM], bf16(k)), "weights": ("F32", [1, heads], F32.encode([1.0])),
               "positions": ("I64", [1], struct.pack("<q", 0)), "slot_mapping": ("I64", [1], struct.pack("<q", 1)),
               "cos_sin_cache": ("F32", [1, 64], F32.encode([tie] * 32 + [2.0 ** -26] * 32)),
               "context_lens": ("I32", [1], struct.pack("<i", length)), "block_tables": ("I32", [1, 1], struct.pack("<i", 0)),
               "kv_cache": ("U8", [1, 16, 132], bytes(cache)), "ideal.logits": ("F32", [1, 5], b""), "ideal.indices": ("I32", [1, 1], b"")}
    attrs = {"code_format": "e4m3", "eps": 1e-6, "layout": "normal", "pairing": "half_split", "rope_dim_offset": 0}
    call = Call({"id": "moved", "attrs": attrs}, {"moved/" + name: tensor for name, tensor in tensors.items()})
    exact, other = Chain(call), InF32(call)
    if exact.codes[0][0][:32] != (0x39,) * 32 or other.codes[0][0][:32] != (0x3A,) * 32 or exact.logits[0][0] * 1.05 > other.logits[0][0]:
        stop("the code that should move does not")
    return call, exact, "a code that f32 moves"


def verdicts(hallmark, calls, notes, folder, counts, most):
    written, listed, told, differing = {}, [], [], 0
    for call, exact, case in calls:
        for number, (kind, output, outputs) in enumerate(chains(call, exact, counts)):
            name = "%s-%d" % (call.id, number)
            base = call.id + "/"
            for field, tensor in call.tensors.items():
                if field.startswith(base) and "." not in field[len(base):]:
                    written[name + "/" + field[len(base):]] = tensor
            for field, tensor in outputs.items():
                written[name + "/out." + field] = tensor
            listed.append({"id": name, "op": "indexer", "attrs": call.attrs})
            told.append((case, kind, output))
    order = sorted(written.items(), key=lambda item: {"I64": 0, "F32": 1, "I32": 1, "U8": 3}.get(item[1][0], 2))
    results = judged(hallmark, folder, notes, listed, dict(order))
    for (case, kind, output), entry, result in zip(told, listed, results):
        counts["judged " + kind] += 1
        why = result.get("why", "")
        good = result["verdict"] == "pass" if output is None else result["verdict"] in ("fail", "out_of_class") and (": " + output + "[") in why
        if not good or not result["case"].endswith(" call " + entry["id"]):
            differing += 1
            if differing <= most:
                print("%s, %s, first in %s: %s: %s" % (case, kind, output, result["verdict"], why))
    return differing


def main():
    options = ask_golden(ask(__doc__, "differing elements to print")).parse_args()
    differing, counts, calls = 0, Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        inputs = os.path.join(folder, "inputs")
        entries = json.loads(read_safetensors(os.path.join(options.golden, "indexer.safetensors"))[0]["hallmark.golden.calls"])
        make(options.hallmark, inputs, [e["case"] for e in entries])
        notes, tensors = read_safetensors(inputs)
        for entry, made in zip(entries, json.loads(notes["hallmark.calls"])):
            call = Call(made, tensors)
            exact = Chain(call)
            differing += compare(call, exact, entry["case"], options.most - differing, counts)
            calls.append((call, exact, entry["case"]))
        calls.append(moved_code())
        differing += verdicts(options.hallmark, calls, notes, folder, counts, options.most)
    print("indexer, %d calls: %s" % (len(calls), listed(counts)))
    short = [kind for kind, n in PROMISED.items() if counts[kind] < n]
    if short:
        print("fewer than promised: " + ", ".join(short))
    return conclude(differing, short, "elements or verdicts")


if __name__ == "__main__":
    end(main)
