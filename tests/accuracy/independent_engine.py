#!/usr/bin/python3
"""Recomputes what `hallmark golden` says of embedding, silu_and_mul and linear, in different software, from the contracts' text alone.

usage: independent_engine.py HALLMARK [--keep DIR] [--most N]

Inputs are filled by Hallmark's generators; what they are is read from the file. Sums and products are formed by mpmath with all their
bits, exponentials to 1,200. For every element
  ideal   the formula with its declared roundings: has to match, zeros without a sign;
  inner   results of f32 in orders that the class allows (sums in order, backward and in lanes; the quotient, the sigmoid): have to lie
          in [lo, hi];
  outer   the bound of the contract's class, from its text, grown by 1 in 64: [lo, hi] has to lie in it.
Exit 0: all agree; 1: something does not; 2: less was compared than promised, or the tool failed.
"""
import math
import struct

import mpmath
from mpmath import mpf

from independent import DTYPE, by_class, end, load, out_comparison, round_to

mpmath.mp.prec = 1200
PROMISED = 500
NAN, FREE = 1, 2
LEAST, MOST = mpmath.ldexp(1, -126), mpmath.ldexp(1, 128)
CLASSES = ("wide", "chain64", "any", "tc23", "tc13")


def rn(dtype, v):
    """RN_dtype of an mpf, zeros without a sign."""
    if not mpmath.isfinite(v):
        return float(v)
    sign, man, exp, _ = mpf(v)._mpf_
    return round_to(dtype, (-int(man) if sign else int(man), int(exp)))[0] + 0.0


def single(v):
    """A float to f32, by the machine."""
    try:
        return struct.unpack("<f", struct.pack("<f", v))[0]
    except OverflowError:
        return math.copysign(math.inf, v)


def same(a, b):
    return a == b or (math.isnan(a) and math.isnan(b))


def embedding(call, tensors, c, kinds, found):
    base = call["id"] + "/"
    ids, _ = load(tensors, base + "ids")
    table, shape = load(tensors, base + "table")
    start = call["attrs"]["vocab_start"]
    for t, token in enumerate(ids):
        for h in range(shape[1]):
            held = 0 <= token - start < shape[0]
            want = table[(token - start) * shape[1] + h] if held else 0.0
            kinds["copies" if held else "zeros"] += 1
            ideal, lo, hi, _ = found(t * shape[1] + h)
            yield same(ideal, want) and same(lo, want) and same(hi, want), want


def sigmoid(g):
    if g > 400:
        return 1 - mpmath.ldexp(1, -560)
    return 1 / (1 + mpmath.exp(-g)) if g > -2000 else mpmath.ldexp(1, -2885)


def silu_and_mul(call, tensors, c, kinds, found):
    base = call["id"] + "/"
    x, shape = load(tensors, base + "x")
    T, hidden, each = DTYPE[tensors[base + "x"][0]], shape[-1] // 2, call["attrs"]["round"] == "each"
    f32 = c != "wide"
    unit, f = (mpmath.ldexp(1, -24), mpmath.ldexp(1, -22)) if f32 else (mpmath.ldexp(1, -53), mpmath.ldexp(1, -50))
    for i in range(len(x) // 2):
        g, u = x[i // hidden * 2 * hidden + i % hidden], x[i // hidden * 2 * hidden + hidden + i % hidden]
        ideal, lo, hi, flags = found(i)
        if math.isnan(g) or math.isnan(u) or g == -math.inf or math.isnan(g * u):
            kinds["NaN"] += 1
            yield flags & NAN and math.isnan(ideal), "NaN"
            continue
        if math.isinf(g) or math.isinf(u):
            want = g * u
            if math.isinf(u) and each:
                want = rn(T, mpf(g) * sigmoid(g)) * u if not math.isinf(g) else want
            kinds["infinite"] += 1
            yield same(ideal, want) and (flags & NAN if math.isnan(want) else lo == hi == want or flags & FREE), want
            continue
        G, U, w = mpf(g), mpf(u), sigmoid(-g)
        s = G * sigmoid(g)
        a = f + 2 * unit * abs(G)
        rel = (1 + unit) ** 2 * (1 + f) * (1 + (w * a / (1 - a) if a < 0.5 else 1)) - 1
        lost = f32 and g <= -87
        want = rn(T, mpf(rn(T, s)) * U) if each else rn(T, s * U)
        if each:
            r = (abs(s) * rel + (LEAST if f32 else 0)) * (mpf(65) / 64)
            ends = [rn(T, s - r), rn(T, s + r)] + [0.0] * lost
            ends = [rn(T, mpf(e) * U) if math.isfinite(e) else e * u for e in ends]
            if f32 and min([abs(mpf(e)) for e in ends] + [abs(U), abs(s) - r]) < LEAST:
                ends.append(0.0)
        else:
            r = (abs(s * U) * ((1 + rel) * (1 + unit) - 1) + (LEAST * (abs(U) + abs(s) + 1) if f32 else 0)) * (mpf(65) / 64)
            ends = [rn(T, s * U - r), rn(T, s * U + r)] + [0.0] * lost
        good = ideal == want and lo <= want <= hi and min(ends) <= lo and hi <= max(ends)
        if flags & FREE:
            kinds["range-free"] += 1
            good = good and f32 and abs(G) > MOST / 4
        else:
            kinds["points" if lo == hi else "sets"] += 1
            if f32 and g > -80:
                e = single(float(mpmath.exp(-G)))
                for v in (single(g / single(1 + e)), single(g * single(1 / single(1 + e)))):
                    v = rn(T, mpf(v)) if each else v
                    v = rn(T, mpf(single(v * u))) if math.isfinite(single(v * u)) else single(v * u)
                    good = good and (lo <= v <= hi or (v == 0 and lo <= LEAST and hi >= -LEAST))
        yield good, (g, u, want, [float(e) for e in ends])


def radius(c, terms, lost):
    """Below and above, from the text: f32 in any order of the class, and the tensor core's one-sided losses. lost: magnitudes of the
    terms that have a subnormal operand."""
    n = len(terms)
    total = sum(abs(t) for t in terms)
    blocks = -(-n // 256)
    chain = {"wide": n, "chain64": 64 + blocks}.get(c, max(n, 512 + blocks))
    unit = mpmath.ldexp(1, -53 if c == "wide" else -24)
    r = ((1 + unit) ** (min(chain, n) + 1) - 1) * total
    below = above = r + (0 if c == "wide" else 2 * n * LEAST + lost)
    for bits, k, twice in ((23, 8, 2), (13, 32, 1)):
        if c == "tc13" or (c == "tc23" and bits == 23):
            top = max(sum(t for t in terms if t > 0), -sum(t for t in terms if t < 0))
            if top == 0:
                continue
            U = mpmath.ldexp(1, int(mpmath.floor(mpmath.log(top * (1 + mpmath.ldexp(1, -19)), 2))) - bits)
            loss = [0 if mpmath.isint(t / U) else min(abs(t), U) for t in terms]
            e = twice * -(-n // k) * U
            below = max(below, sum(q for q, t in zip(loss, terms) if t > 0) + e)
            above = max(above, sum(q for q, t in zip(loss, terms) if t < 0) + e)
    return below * (mpf(65) / 64), above * (mpf(65) / 64)


def orders(p, q, bias):
    """Sums in f32: forward, backward, in 8 lanes; the bias last."""
    products = [single(a * b) for a, b in zip(p, q)]
    lanes = [0.0] * 8
    for k, t in enumerate(products):
        lanes[k % 8] = single(lanes[k % 8] + t)
    for sequence in (products, products[::-1], lanes):
        total = 0.0
        for t in sequence:
            total = single(total + t)
        yield single(total + bias)


def linear(call, tensors, c, kinds, found):
    base = call["id"] + "/"
    x, shape = load(tensors, base + "x")
    weight, _ = load(tensors, base + "weight")
    bias, _ = load(tensors, base + "bias")
    n, O = shape[-1], DTYPE[tensors[base + "ideal.out"][0]]
    features = len(weight) // n
    for i in range(len(x) // n * features):
        p, q = x[i // features * n:][:n], weight[i % features * n:][:n]
        b = bias[i % features] if bias else 0.0
        ideal, lo, hi, flags = found(i)
        if not all(map(math.isfinite, p + q + (b,))):
            want = sum([s * t for s, t in zip(p, q)], b)
            kinds["special"] += 1
            yield (bool(flags & NAN) if math.isnan(want) else flags & FREE or (lo == hi == want)) and same(ideal, want), want
            continue
        terms = [mpf(s) * mpf(t) for s, t in zip(p, q)] + ([mpf(b)] if bias else [])
        y, total = sum(terms), sum(abs(t) for t in terms)
        lost = [abs(mpf(s) * mpf(t)) for s, t in zip(p + (1.0,), q + (b,)) if 0 < min(abs(s), abs(t)) < LEAST]
        below, above = radius(c, terms, sum(lost))
        ends = [rn(O, y - below), rn(O, y + above)]
        if c != "wide" and min(abs(mpf(e)) for e in ends) < LEAST:
            ends.append(0.0)
        want = rn(O, y)
        good = ideal == want and lo <= want <= hi and min(ends) <= lo and hi <= max(ends)
        if flags & FREE:
            kinds["range-free"] += 1
            good = good and c != "wide" and total > MOST / 4
        else:
            kinds["points" if lo == hi else "sets"] += 1
            if c not in ("wide", "chain64"):
                for v in orders(p, q, b):
                    v = rn(O, mpf(v))
                    good = good and lo <= v <= hi
        yield good, (want, ends)


OPS = {"embedding": embedding, "silu_and_mul": silu_and_mul, "linear": linear}


def cases(c):
    if c == "wide":
        for T in ("f32", "f16", "bf16"):
            for ids, start in (("i64", 0), ("i32", 60)):
                yield "embedding ids=%s[30] table=%s[31,20] vocab_start=%d vocab_size=100 gen=normal seed=3" % (ids, T, start)
    for T in ("f32", "f16", "bf16"):
        if c in ("wide", "chain64"):
            for mode in ("once", "each"):
                for g, generator in enumerate(("normal", "heavy", "special", "tiny", "huge", "subnormal", "exact", "offset16")):
                    yield "silu_and_mul x=%s[5,48] out=%s[5,24] round=%s gen=%s seed=%d" % (T, T, mode, generator, 3 + g)
        for g, generator in enumerate(("normal", "exact", "ties", "cancelling", "heavy", "special", "tiny", "huge", "subnormal", "stagnate", "zero")):
            out = "f32" if g % 2 else T
            bias = "f32[5]" if g % 3 else "none"
            yield "linear x=%s[4,%d] weight=%s[5,%d] bias=%s out=%s[4,5] gen=%s seed=%d" % (T, (33, 70)[g % 2], T, (33, 70)[g % 2], bias, out, generator, 3 + g)


def groups():
    for c in CLASSES:
        lines = list(cases(c))
        yield c, [mine for mine in ([line for line in lines if line.startswith(op)] for op in OPS) if mine]


def main():
    return by_class(__doc__, groups(), out_comparison(OPS, lambda call, tensors: call["op"]), PROMISED)


if __name__ == "__main__":
    end(main)
