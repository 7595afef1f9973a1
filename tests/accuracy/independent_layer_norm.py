#!/usr/bin/python3
"""Recomputes what `hallmark golden` says of layer_norm and index_weights, in different software, from the contracts' text alone.

usage: independent_layer_norm.py HALLMARK [--keep DIR] [--most N]

Inputs are filled by Hallmark's generators; what they are is read from the file. Sums are formed by mpmath with all their bits, and
roots to 1,200. For every element
  ideal   the formula with its one rounding (or the three declared ones): has to match, zeros without a sign;
  inner   what an implementation may certainly return (the root's own error; every order of the products): has to lie in [lo, hi];
  outer   the bound of the contract's class, from its text, grown by 1 in 64: [lo, hi] has to lie in it.
Exit 0: all agree; 1: something does not; 2: less was compared than promised, or the tool failed.
"""
import itertools
import math
import struct

import mpmath
from mpmath import mpf

from independent import DTYPE, F32, by_class, end, load, out_comparison, round_to

mpmath.mp.prec = 1200
PROMISED = 1000
NAN, FREE, GAPS, UNSPECIFIED = 1, 2, 4, 16
TINY = mpmath.ldexp(1, -120)
F32_MAX = mpmath.ldexp(1, 127)


def rn(dtype, v):
    """RN_dtype of an mpf, zeros without a sign."""
    if not mpmath.isfinite(v):
        return float(v)
    sign, man, exp, _ = mpf(v)._mpf_
    return round_to(dtype, (-int(man) if sign else int(man), int(exp)))[0] + 0.0


class Class:
    def __init__(self, name, n):
        self.f32 = name != "wide"
        self.u, self.f = (mpmath.ldexp(1, -24), mpmath.ldexp(1, -22)) if self.f32 else (mpmath.ldexp(1, -53), mpmath.ldexp(1, -50))
        self.chain = 64 + -(-n // 256) if self.f32 else n


def agrees(T, kinds, y, found, inner, outer, free):
    """found: ideal, lo, hi, flags. inner, outer: radii, or lists of values."""
    ideal, lo, hi, flags = found
    if ideal + 0.0 != rn(T, y) or flags & (NAN | UNSPECIFIED):
        return False
    if flags & FREE:
        kinds["range-free"] += 1
        return free
    kinds["points" if lo == hi else "sets"] += 1
    return lo <= rn(T, y - inner) and hi >= rn(T, y + inner) and rn(T, y - outer) <= lo and rn(T, y + outer) >= hi


def layer_norm(call, tensors, c, kinds, found):
    base = call["id"] + "/"
    x, shape = load(tensors, base + "x")
    T, n = DTYPE[tensors[base + "x"][0]], shape[-1]
    w, _ = load(tensors, base + "weight")
    b, _ = load(tensors, base + "bias")
    eps = mpf(F32.decode(struct.pack("<f", call["attrs"]["eps"]))[0])
    k = Class(c, n)
    g = ((1 + k.u) ** (k.chain + 3) * (1 + k.f) - 1)
    flush = TINY if k.f32 else mpf(0)
    for row in range(len(x) // n):
        values = x[row * n:(row + 1) * n]
        finite = all(map(math.isfinite, values))
        equal = all(v == values[0] for v in values)
        if finite:
            exact = [mpf(v) for v in values]
            mean = sum(exact) / n
            variance = sum(v * v for v in exact) / n - mean * mean if not equal else mpf(0)
            magnitude = sum(abs(v) for v in exact) / n
            square, D = variance + mean * mean, variance + eps
            off = ((1 + k.u) ** (k.chain + 6) * (1 + k.f) - 1) * variance + 4 * g * mpmath.sqrt(variance * square) + 4 * g * g * square
        for i in range(n):
            ideal, lo, hi, flags = found(row * n + i)
            weight, bias = w[i] if w else 1.0, b[i] if b else 0.0
            if not finite:
                kinds["NaN"] += 1
                yield math.isnan(ideal) and flags == NAN, "NaN"
                continue
            if D == 0 or not math.isfinite(weight) or not math.isfinite(bias):
                kinds["special"] += 1
                nan = math.isnan(weight) or math.isnan(bias)
                inf = D != 0 and math.isinf(bias) and math.isfinite(weight)
                yield flags == NAN if nan else flags == UNSPECIFIED or (inf and lo == hi == bias), "special"
                continue
            q, rs = exact[i] - mean, 1 / mpmath.sqrt(D)
            t = q * rs * mpf(weight)
            y = t + mpf(bias)
            e = g * magnitude + 3 * k.u * (abs(exact[i]) + abs(mean) + g * magnitude) + flush
            down = (min(off, variance) + flush) / D + 2 * k.u
            up = (1 / mpmath.sqrt(1 - down) if down < 1 else mpmath.inf) * (1 + k.u) ** 4 * (1 + k.f)
            lower = 1 / mpmath.sqrt(1 + (off + flush) / D + 2 * k.u) / ((1 + k.u) ** 4 * (1 + k.f))
            scale = rs * abs(mpf(weight))
            outer = max((abs(q) + e) * scale * up - abs(t), abs(t) - (abs(q) - e) * scale * min(lower, 1))
            outer += k.u * (abs(t) + outer + 2 * abs(mpf(bias))) + flush * max(1, rs, abs(q), abs(weight))
            if k.f32 and 0 < abs(weight) < 2.0 ** -126:
                outer += abs(t)
            inner = abs(t) * k.f * (1 - mpmath.ldexp(1, -10)) if k.f32 else mpf(0)
            largest = max(1, abs(exact[i]) + abs(mean)) * max(1, rs) * max(1, abs(weight)) + abs(bias)
            free = k.f32 and (4 * n * (variance + off) >= F32_MAX / 4 or 4 * largest >= F32_MAX or D < 1e-34)
            yield agrees(T, kinds, y, (ideal, lo, hi, flags), inner, outer * (1 + mpf(1) / 64), free), (float(y), float(outer))


def fl(v):
    return mpf(rn(F32, v)) if abs(v) < mpmath.ldexp(1, 130) else mpmath.inf


def index_weights(call, tensors, c, kinds, found):
    base = call["id"] + "/"
    w, shape = load(tensors, base + "weights")
    s, _ = load(tensors, base + "q_scale")
    heads, dim = shape[-1], call["attrs"]["head_dim"]
    k = Class(c, 1)
    of_dim, of_heads = fl(1 / mpmath.sqrt(dim)), fl(1 / mpmath.sqrt(heads))
    for i in range(len(w)):
        ideal, lo, hi, flags = found(i)
        scale = s[i] if s else 1.0
        if not math.isfinite(w[i]) or not math.isfinite(scale):
            v = w[i] * scale
            kinds["special"] += 1
            yield (flags == NAN if math.isnan(v) else lo == hi == v), "special"
            continue
        a, b = mpf(w[i]), mpf(scale)
        small = k.f32 and any(0 < abs(v) < mpmath.ldexp(1, -120) for v in (a, b, a * b, a * of_dim * of_heads, a * b * of_dim * of_heads))
        if call["attrs"]["order"] == "l2r":
            t = fl(a * b)
            value = float(fl(fl(t * of_dim) * of_heads)) if mpmath.isfinite(t) else float(mpmath.sign(a * b)) * math.inf
            kinds["left to right"] += 1
            yield ideal == value and (lo == hi == value or (small and lo <= value <= hi and min(lo, hi, key=abs) == 0)), value
            continue
        y = a * b / mpmath.sqrt(mpf(dim) * heads)
        outer = abs(y) * ((1 + k.u) ** 5 * (1 + (0 if k.f32 else k.f)) ** 2 - 1)
        if k.f32:
            outer += mpmath.ldexp(1, -122) * max(1, abs(a), abs(b))
        if small:
            outer += abs(y)
        inner = mpf(0)
        if k.f32 and not small and abs(a * b) < F32_MAX:
            for order in itertools.permutations((a, b, of_dim, of_heads)):
                v = fl(fl(fl(order[0] * order[1]) * order[2]) * order[3])
                if not lo <= v <= hi and not flags & FREE:
                    yield False, ("order", float(v))
        yield agrees(F32, kinds, y, (ideal, lo, hi, flags), inner, outer * (1 + mpf(1) / 64), k.f32 and abs(a * b) >= F32_MAX), float(y)


def cases():
    for T in ("f32", "f16", "bf16"):
        for g, generator in enumerate(("normal", "offset16", "offset100", "exact", "equal", "special", "tiny", "huge", "subnormal", "heavy", "stagnate")):
            parameter = "f32" if g % 2 else T
            bias = "none" if generator == "exact" else "f32"
            yield "layer_norm x=%s[6,%d] weight=%s bias=%s eps=%s gen=%s seed=%d" % (T, (33, 48)[g % 2], parameter, bias, ("1e-6", "0", "1e-5")[g % 3], generator, 3 + g)
        for order in ("any", "l2r"):
            for g, generator in enumerate(("normal", "special", "tiny", "huge", "subnormal", "exact")):
                yield "index_weights weights=%s[6,%d] q_scale=f32 out=f32 head_dim=%d order=%s gen=%s seed=%d" % (T, (32, 29)[g % 2], (128, 100)[g // 2 % 2], order, generator, 5 + g)


def modes(call, tensors):
    return call["op"] + " " + call["attrs"].get("order", tensors[call["id"] + "/ideal.out"][0])


def main():
    judges = {"layer_norm": layer_norm, "index_weights": index_weights}
    batches = [[line for line in cases() if line.startswith(op)] for op in judges]
    return by_class(__doc__, [(c, batches) for c in ("wide", "chain64")], out_comparison(judges, modes), PROMISED)


if __name__ == "__main__":
    end(main)
