#!/usr/bin/python3
"""Recomputes what `hallmark golden` says, in different software, from the contracts' text alone.

usage: independent.py HALLMARK [--class C]... [--keep DIR] [--most N]

Two kinds of input: traces that this script writes (every legal combination of modes and dtypes: rows of many sizes, operands
searched for results next to a rounding boundary, special values in every place), and cases filled by Hallmark's own generators.
For every element of every output it computes
  ideal   the real formula with the declared roundings, from exact integers and one square root to 400 bits (mpmath), ties
          decided by comparing squares of integers: has to match bit for bit;
  inner   what any reading of the class admits: only the roundings that cannot be avoided;
  outer   what the most generous reading admits: every rounding, every flush to zero, in every order of the products;
and wants inner <= [lo, hi] <= outer. In an f32 class and for f32 results, where a bound is some forty values wide, lo and hi may lie
one neighbouring value outside outer; everywhere else not at all. NaN has to be NaN, and an infinity that infinite inputs make has
to be that infinity. An element may be called range-free only where f32 is at most a factor of 4 from its ends.

Python integers hold the values: a non-negative number is a pair (man, exp), man * 2^exp. No numpy, no C.
Exit 0: all agree; 1: something does not; 2: less was compared than promised, or the tool failed.
"""
import argparse
import json
import math
import multiprocessing
import os
import random
import struct
import subprocess
import sys
import tempfile
import traceback
from collections import Counter, defaultdict

import mpmath

mpmath.mp.prec = 400
PROMISED = 1000  # elements of each output for every combination of op, modes and dtypes
NEAREST = 100    # of them, this many searched for the nearest to a rounding boundary

# ---- dtypes: significant bits, exponent of the least normal number, largest finite value --------------------------------


class Dtype:
    def __init__(self, name, precision, emin, emax, size):
        self.name, self.precision, self.emin, self.size = name, precision, emin, size
        self.max = math.ldexp(2 - math.ldexp(1, 1 - precision), emax)
        self.least = math.ldexp(1, emin - precision + 1)

    def decode(self, data):
        n = len(data) // self.size
        if self.name == "bf16":
            wide = b"".join(b"\0\0" + data[2 * i:2 * i + 2] for i in range(n))
            return struct.unpack("<%df" % n, wide)
        return struct.unpack("<%d%s" % (n, "f" if self.name == "f32" else "e"), data)

    def encode(self, values):
        """Values that the dtype holds exactly, or NaN."""
        if self.name == "f16":
            return struct.pack("<%de" % len(values), *values)
        data = struct.pack("<%df" % len(values), *values)
        if self.name == "f32":
            return data
        return b"".join(data[4 * i + 2:4 * i + 4] for i in range(len(values)))

    def near(self, v):
        """A value of the dtype near v; only for making inputs."""
        if v == 0 or v != v or math.isinf(v):
            return v
        q = max(math.frexp(v)[1] - 1, self.emin) - self.precision + 1
        r = math.ldexp(round(math.ldexp(v, -q)), q)
        return r if abs(r) <= self.max else math.copysign(self.max, v)

    def step(self, v, up):
        """The neighbour above or below v."""
        if math.isinf(v):
            return math.copysign(self.max, v) if (v < 0) == up else v
        bits = list(struct.unpack("<q", struct.pack("<d", abs(v))))[0]
        e = max((bits >> 52) - 1023, self.emin)
        unit = math.ldexp(1, e - self.precision + 1)
        away = (v >= 0) == up
        if not away and math.frexp(v)[0] in (0.5, -0.5) and e > self.emin:
            unit /= 2
        r = v + unit if up else v - unit
        return r if abs(r) <= self.max else math.copysign(math.inf, r)


F32 = Dtype("f32", 24, -126, 127, 4)
F16 = Dtype("f16", 11, -14, 15, 2)
BF16 = Dtype("bf16", 8, -126, 127, 2)
DTYPE = {d.name.upper(): d for d in (F32, F16, BF16)}

# ---- numbers as pairs -----------------------------------------------------------------------------------------------------


def signed(v):
    """A finite float, its sign in man."""
    n, d = v.as_integer_ratio()
    return n, 1 - d.bit_length()


def pair(v):
    """|v| of a finite float."""
    return signed(abs(v))


def times(a, b):
    return a[0] * b[0], a[1] + b[1]


def plus(a, b):
    if a[1] > b[1]:
        a, b = b, a
    return a[0] + (b[0] << (b[1] - a[1])), a[1]


def minus(a, b):
    """May be negative."""
    return plus(a, (-b[0], b[1]))


def less(a, b):
    return minus(a, b)[0] < 0


def from_mpf(v):
    man, exp = mpmath.mpf(v).man_exp
    return int(man), int(exp)


NEARLY = (1, 126)  # where f32 begins to be near overflow
H = (1, -126)  # what an f32 operation may lose by a flush
FLUSHES = 64   # where flushes decide, at the bottom of f32's range, only the order of magnitude of the bound is checked


def round_to(dtype, v, exactly=None):
    """RN_dtype of a pair and its distance to the nearest rounding boundary in ulps. exactly(m, e): the sign of the exact value
    less m * 2^e, for a v that is only known to 2^-300 relative."""
    man, exp = v
    if man == 0:
        return 0.0, 0.5
    if man < 0:
        r, d = round_to(dtype, (-man, exp), exactly)
        return -r, d
    q = max(exp + man.bit_length() - 1, dtype.emin) - dtype.precision + 1
    shift = q - exp
    if shift <= 0:
        n, distance = man << -shift, 0.5
    elif shift > man.bit_length() + 60:
        n, distance = 0, 0.5
    else:
        n = man >> shift
        past = (man & ((1 << shift) - 1)) - (1 << (shift - 1))
        distance = abs(past) / (1 << shift)
        if exactly and abs(past) <= man >> 300:
            past = exactly(2 * n + 1, q - 1)
            distance = 0.0 if past == 0 else distance
        if past > 0 or (past == 0 and n & 1):
            n += 1
    if n.bit_length() + q > 1100:
        return math.inf, distance
    r = math.ldexp(n, q)
    return (r if r <= dtype.max else math.inf), distance


# ---- the classes, as text: unit roundoff, functions, longest chain of additions ---------------------------------------------


class Class:
    def __init__(self, name, n):
        self.name, self.f32 = name, name != "wide"
        u = mpmath.ldexp(1, -24 if self.f32 else -53)
        f = mpmath.ldexp(1, -22 if self.f32 else -50)
        longest = {"wide": n, "any": max(n, 512 + -(-n // 256)), "chain64": 64 + -(-n // 256), "chain512": 512 + -(-n // 256)}[name]
        certain = min(longest, n - 1)  # no order of n terms has more
        # A term of the mean is squared, added `chain` times and once more to what other parts hold, and divided; then eps is added
        # and the root taken: "rel(rs) <= 2^-22 + 2^-23 + (c+3) 2^-25" where eps is small. Unavoidable: the square, the additions
        # that exist, the root.
        self.mean_up = (1 + u) ** (longest + 2) * (1 + f)
        self.mean_down = (1 - u) ** (longest + 2) * (1 - f)
        # the root as such (f), or a square root (u) and a division (f)
        self.root_up, self.root_down, self.one = (1 + f) * (1 + u), (1 - f) * (1 - u), u
        self.inner_mean = (certain + 1) * u * (1 - mpmath.ldexp(1, -10)) if self.f32 else mpmath.mpf(0)
        self.inner_root = f * (1 - mpmath.ldexp(1, -10)) if self.f32 else mpmath.mpf(0)
        self.up, self.down = from_mpf(1 + u), from_mpf(1 - u)


# ---- one row -----------------------------------------------------------------------------------------------------------------


class Expected:
    """What is known of one element."""
    __slots__ = ("ideal", "distance", "inner", "outer", "free")

    def __init__(self, ideal, distance=0.5, inner=None, outer=None, free=False):
        self.ideal, self.distance, self.free = ideal, distance, free
        self.inner = inner or (ideal, ideal)
        self.outer = outer or (ideal, ideal)


def mirrored(interval, negative):
    return (-interval[1], -interval[0]) if negative else interval


def subnormal_f32(v):
    return v[0] != 0 and less(v, H)


def ordered(low, high):
    return (low, high) if low <= high else (high, low)


class Row:
    """s: the row that the norm reads, as signed pairs (negative?, pair) or floats that are not finite."""

    def __init__(self, s, V, eps, dtype, modes, c, sums_rounded):
        self.s, self.dtype, self.modes, self.c, self.sums_rounded = s, dtype, modes, c, sums_rounded
        self.rs = None
        first = s[:V]
        self.special_near_overflow = any(not isinstance(v, float) and less((1, 62), v[1]) for v in first)
        if any(isinstance(v, float) and v != v for v in first):
            self.kind = "nan"
        elif any(isinstance(v, float) for v in first):
            self.kind = "zero"
        else:
            total = 0
            for negative, (man, exp) in first:
                unit = man << (exp + 149)  # every value is a multiple of 2^-149
                total += unit * unit
            e = pair(eps)
            # mean square + eps = N / D
            self.N = (total << 149) + V * (e[0] << (e[1] + 298 + 149)) if e[1] + 298 >= 0 else None
            self.D = V << (298 + 149)
            self.kind = "finite" if self.N else "inf"
            if self.N:
                self.bounds(total, V, eps)

    def bounds(self, total, V, eps):
        c = self.c
        mean, e = mpmath.mpf(total) / V * mpmath.ldexp(1, -298), mpmath.mpf(eps)
        M, rs = mean + e, mpmath.sqrt(mpmath.mpf(self.D) / self.N)
        self.rs = from_mpf(rs)
        extra = 2 * c.one * (1 + c.one) if self.sums_rounded else 0  # x + residual, rounded: twice in a square
        low, high = (mean * c.mean_down * (1 - extra) + e) * (1 - c.one), (mean * c.mean_up * (1 + extra) + e) * (1 + c.one)
        self.free = False
        if c.f32:
            # flushes: in each square; in both operands and the result of an addition; in the division, in adding eps
            lost = 10 * mpmath.ldexp(1, -126)
            if 0 < eps < 2.0 ** -126:
                lost += eps
            low, high = low - lost, high + lost
            # beyond the range of f32, or within a factor of 4 of it: then golden may say range-free
            self.free = low <= 0 or mean * V > mpmath.ldexp(1, 126)
        if low <= 0:
            low = M
        self.outer_rs = from_mpf(1 / mpmath.sqrt(high) * c.root_down), from_mpf(1 / mpmath.sqrt(low) * c.root_up)
        inner = mean * (1 - c.inner_mean) + e, mean * (1 + c.inner_mean) + e
        self.inner_rs = from_mpf(1 / mpmath.sqrt(inner[1]) * (1 - c.inner_root)), from_mpf(1 / mpmath.sqrt(inner[0]) * (1 + c.inner_root))

    # -- specials: IEEE arithmetic on the formula ------------------------------------------------------------------------------

    def special(self, s, w):
        """x * rs * w where one of them is not finite, or rs is 0 or inf. s, w: floats (w None: no weight)."""
        if self.kind == "nan" or s != s:
            return math.nan
        if self.kind == "zero":
            v = math.nan if math.isinf(s) else 0.0
        elif self.kind == "inf":
            v = math.nan if s == 0 else math.copysign(math.inf, s)
        else:
            v = s  # infinite behind the first V, or w is not finite: sign and zero are all that matters
        if w is None or v != v:
            return v
        if v == 0 and math.isinf(w) or w != w or math.isinf(v) and w == 0:
            return math.nan
        if v == 0:
            return 0.0
        return math.inf if (v > 0) == (w > 0) else -math.inf

    # -- one element -------------------------------------------------------------------------------------------------------------

    def element(self, i, weight):
        s, c, T = self.s[i], self.c, self.dtype
        one_plus, first = self.modes["weight_form"] == "one_plus", self.modes["round"] == "norm_first"
        if isinstance(s, float) or self.kind != "finite" or (weight is not None and not math.isfinite(weight)):
            if one_plus and weight is not None:
                weight = 1 + weight  # only its sign, and whether it is huge, 0, inf or NaN, matters here
            free = self.special_near_overflow
            if not isinstance(s, float) and weight is not None and math.isfinite(weight) and not first:
                free |= less(NEARLY, times(s[1], pair(weight)))  # (x * weight) * 0
            value = s if isinstance(s, float) else (-1.0 if s[0] else 1.0) * (1.0 if s[1][0] else 0.0)
            if first and weight is not None and not isinstance(s, float) and self.kind == "finite" and value:
                value *= round_to(T, times(s[1], self.rs))[0]  # may have become 0 before it meets an infinite weight
                if math.isinf(value) and weight == 0:
                    return Expected(math.nan)
            return Expected(self.special(value, weight), free=c.f32 and free)
        negative, s = s
        if weight is None:
            w, w_negative = None, False
        else:
            w, w_negative = pair(weight), weight < 0
            if one_plus:
                man, exp = plus(signed(weight), (1, 0))
                w, w_negative = (abs(man), exp), man < 0
        sign = negative != w_negative
        exact = times(s, self.rs)
        s_square = times(times(s, s), (self.D, 0))

        def compare(factor):
            """sign of s * factor * sqrt(D / N) less m 2^e, from the squares"""
            square = s_square if factor is None else times(s_square, times(factor, factor))
            return lambda m, e: (lambda d: (d > 0) - (d < 0))(minus(square, (m * m * self.N, 2 * e))[0])

        # ideal
        inside = 0.5
        if w is None or not first:
            ideal, distance = round_to(T, exact if w is None else times(exact, w), compare(w))
        else:
            inner, inside = round_to(T, exact, compare(None))
            if math.isinf(inner):
                return Expected(math.nan if w[0] == 0 else (-math.inf if sign else math.inf), free=c.f32)
            ideal, distance = round_to(T, times(pair(inner), w))
        ideal = -ideal if sign else ideal

        # intervals, of the absolute value first
        free = c.f32 and (self.free or self.near_overflow(s, w))
        low, high = times(s, self.outer_rs[0]), times(s, self.outer_rs[1])
        inner_low, inner_high = times(s, self.inner_rs[0]), times(s, self.inner_rs[1])
        if self.sums_rounded:
            low, high = times(low, c.down), times(high, c.up)
        low, high = times(low, c.down), times(high, c.up)
        if c.f32:
            lost = self.flush(s, None)
            low, high = minus((0, 0) if subnormal_f32(s) else low, lost), plus(high, lost)
            if subnormal_f32(s) or less(exact, H):
                inner_low = (0, 0)
        if w is not None and first:
            low, high, inner_low, inner_high = (round_to(T, v)[0] for v in (low, high, inner_low, inner_high))
            if any(math.isinf(v) for v in (low, high, inner_low, inner_high)):
                return Expected(ideal, min(distance, inside), free=True)
            if c.f32 and T.emin == -126 and low < 2.0 ** -126:
                low = min(low, 0.0)
            low, high, inner_low, inner_high = (signed(v) for v in (low, high, inner_low, inner_high))
        if w is not None:
            inner_low, inner_high = times(inner_low, w), times(inner_high, w)
            slack_up, slack_down = c.up, c.down
            if one_plus:
                slack_up, slack_down = times(c.up, c.up), times(c.down, c.down)
            low = times(times(low, w), slack_down if low[0] > 0 else slack_up)
            high = times(times(high, w), slack_up)
            if c.f32:
                lost = self.flush(s, w)
                low, high = minus((0, 0) if subnormal_f32(w) and low[0] > 0 else low, lost), plus(high, lost)
                if subnormal_f32(w) and not one_plus:
                    inner_low = (0, 0)
        outer = round_to(T, low)[0], round_to(T, high)[0]
        inner = round_to(T, inner_low)[0], round_to(T, inner_high)[0]
        if c.f32 and T.emin == -126:  # a result that is f32-subnormal may be flushed
            if abs(ideal) < 2.0 ** -126:
                inner = min(inner[0], 0.0), inner[1]
            if outer[0] < 2.0 ** -126:
                outer = min(outer[0], 0.0), outer[1]
        if not c.f32:
            inner = abs(ideal), abs(ideal)
        return Expected(ideal, min(distance, inside), mirrored(inner, sign), mirrored(outer, sign), free)

    def flush(self, s, w):
        """What flushes may take from the products, in any order: some 2^-126, each grown by one of the factors."""
        most = max((v for v in ((1, 0), s, self.rs, w) if v is not None), key=lambda v: v[0].bit_length() + v[1])
        return times((FLUSHES, -126), most)

    def near_overflow(self, s, w):
        rs = self.outer_rs[1]
        products = [s, times(s, rs), rs]
        if w is not None:
            products += [w, times(products[1], w), times(s, w), times(rs, w)]
        return any(less(NEARLY, v) for v in products)


def add(x, r, dtype):
    """x + r: RN_dtype of it, the sum itself as the row reads it, and the distance to a boundary."""
    if not math.isfinite(x) or not math.isfinite(r):
        v = x + r  # IEEE
        return v, v, 0.5
    man, exp = plus(signed(x), signed(r))
    rounded, distance = round_to(dtype, (abs(man), exp))
    return (-rounded if man < 0 else rounded), (man < 0, (abs(man), exp)), distance


def readable(v):
    return (v < 0, pair(v)) if math.isfinite(v) else v


def expected_sum(x, r, R, rounded, distance, f32):
    """An element of residual_out. In f32, a subnormal operand may count as 0, and so may a subnormal result."""
    if not f32 or not math.isfinite(x) or not math.isfinite(r):
        return Expected(rounded, distance)
    tiny = 2.0 ** -126
    ends = [add(a, b, R)[0] for a in {x, x if abs(x) >= tiny else 0.0} for b in {r, r if abs(r) >= tiny else 0.0}]
    inner = [rounded]
    if abs(rounded) < tiny and R.emin == -126:
        inner.append(0.0)
        ends.append(0.0)
    return Expected(rounded, distance, (min(inner), max(inner)), (min(ends), max(ends)), abs(x + r) > 2.0 ** 126)


def expect(call, c):
    """{output: list of Expected} of one call."""
    x, hidden, modes = call["x"], call["hidden"], call["attrs"]
    V = modes["variance_size"] or hidden
    T, out, sums = call["dtype"]["x"], [], []
    eps = F32.decode(struct.pack("<f", modes["eps"]))[0]
    weight = call.get("weight")
    fused = call["op"] == "fused_add_rms_norm"
    R = F32 if fused and modes["residual_dtype"] == "f32_for_f16" and T is F16 else T
    unrounded = fused and modes["residual_read"] == "unrounded" and R is not F32
    cls = Class(c, V) if V else None
    for at in range(0, len(x), hidden or 1):
        s = []
        for i in range(at, at + hidden):
            if not fused:
                s.append(readable(x[i]))
                continue
            r = call["residual"][i]
            rounded, exact, distance = add(x[i], r, R)
            s.append(exact if unrounded else readable(rounded))
            sums.append(expected_sum(x[i], r, R, rounded, distance, c != "wide"))
        row = Row(s, V, eps, T, modes, cls, unrounded)
        out += [row.element(i, weight[i] if weight else None) for i in range(hidden)]
    return {"out": out, "residual_out": sums} if fused else {"out": out}


# ---- safetensors ---------------------------------------------------------------------------------------------------------------


def read_safetensors(path):
    with open(path, "rb") as f:
        data = f.read()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    notes = header.pop("__metadata__", {})
    tensors = {}
    for name, t in header.items():
        begin, end = t["data_offsets"]
        tensors[name] = t["dtype"], t["shape"], data[8 + length + begin:8 + length + end]
    return notes, tensors


def write_safetensors(path, notes, tensors):
    header, at = {"__metadata__": notes}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for dtype, shape, data in tensors.values():
            f.write(data)


def read_calls(path):
    """The calls of a trace with their inputs decoded."""
    notes, tensors = read_safetensors(path)
    calls = []
    for entry in json.loads(notes["hallmark.calls"]):
        call = {"id": entry["id"], "op": entry["op"], "attrs": entry["attrs"], "dtype": {}}
        for field in ("x", "residual", "weight"):
            t = tensors.get(entry["id"] + "/" + field)
            if t:
                call["dtype"][field] = DTYPE[t[0]]
                call[field] = DTYPE[t[0]].decode(t[2])
                if field == "x":
                    call["hidden"] = t[1][-1]
        calls.append(call)
    return calls, tensors


# ---- inputs that this script makes ---------------------------------------------------------------------------------------------

WEIGHTS = {F32: (None, F32, F16, BF16), F16: (None, F32, F16), BF16: (None, F32, BF16)}


def combinations():
    """Every legal (op, modes, dtype of x, of weight, of residual)."""
    for T in (F32, F16, BF16):
        for W in WEIGHTS[T]:
            for rounding, form in (("once", "plain"), ("norm_first", "plain"), ("once", "one_plus")):
                modes = {"round": rounding, "weight_form": form}
                yield "rms_norm", modes, T, W, None
                for read in ("rounded", "unrounded"):
                    for residual_dtype in ("same", "f32_for_f16"):
                        more = dict(modes, residual_read=read, residual_dtype=residual_dtype)
                        yield "fused_add_rms_norm", more, T, W, T
                        if residual_dtype == "f32_for_f16" and T is F16:
                            yield "fused_add_rms_norm", more, T, W, F32


def boundary_distance(T, v):
    """In ulps; binary64 is enough for a search."""
    if v == 0:
        return 1.0
    q = max(math.frexp(v)[1] - 1, T.emin) - T.precision + 1
    f = math.ldexp(abs(v), -q)
    return abs(f - math.floor(f) - 0.5)


def search(rng, T, modes, rs, i, candidates, product):
    """The candidate whose result is nearest to a boundary: of the last rounding, or (every other one) of the inner one."""
    inner = modes["round"] == "norm_first" and i % 2
    best, least = candidates[0], 2.0
    for v in candidates:
        s, w = product(v)
        d = boundary_distance(T, s * rs if inner or w is None else (T.near(s * rs) if modes["round"] == "norm_first" else s * rs) * w)
        if d < least and (d > 0 or rng.random() < 0.1):
            best, least = v, d
    return best


def random_values(rng, dtype, kind, n):
    if kind == "normal":
        return [dtype.near(rng.gauss(0, 1)) for _ in range(n)]
    if kind == "heavy":  # a few channels far out, as activations have
        return [dtype.near(rng.gauss(0, 1) * (60 if rng.random() < 0.02 else 0.5)) for _ in range(n)]
    if kind == "tiny":   # mean square far below eps
        return [dtype.near(rng.gauss(0, 1) * 2.0 ** -13) for _ in range(n)]
    if kind == "spread": # exponents all over the place
        return [dtype.near(rng.uniform(1, 2) * rng.choice((-1, 1)) * 2.0 ** rng.randint(-14, 6)) for _ in range(n)]
    if kind == "huge":
        return [dtype.near(rng.gauss(0, 1) * dtype.max / 2.0 ** 4) for _ in range(n)]
    if kind == "integers":  # exact squares and many ties
        return [dtype.near(float(rng.randint(-7, 7))) for _ in range(n)]
    raise ValueError(kind)


KINDS = ("normal", "heavy", "tiny", "spread", "huge", "integers")
TRIES = 24


def make_random(rng, number, combination, V):
    """Three rows of 200. V = 100: the last 100 elements of x are searched (they do not enter the mean). V = 0: the weights are,
    for the first row."""
    op, modes, T, W, residual = combination
    hidden, rows = 200, 3
    one = 1 if modes["weight_form"] == "one_plus" else 0
    weight = [W.near(rng.gauss(1 - one, 0.3)) for _ in range(hidden)] if W else None
    eps = rng.choice((1e-6, 1e-5, 1e-6, 0.0, 0.5, 1e-12))
    x, r = [], []
    for row in range(rows):
        kind = KINDS[(number + row) % len(KINDS)] if row else "normal"
        xs = random_values(rng, T, kind, hidden)
        rr = random_values(rng, residual, kind, hidden) if residual else None
        R = F32 if modes.get("residual_dtype") == "f32_for_f16" and T is F16 else T
        rounded = not residual or modes["residual_read"] == "rounded" or R is F32

        def read(i, v):
            s = v + (rr[i] if rr else 0.0)
            return R.near(s) if rounded else s
        size = V or hidden
        mean = sum(read(i, xs[i]) ** 2 for i in range(size)) / size + eps
        rs = 1 / math.sqrt(mean)
        if V:
            for i in range(V, hidden):
                candidates = [T.near(xs[i] * rng.uniform(0.5, 2)) for _ in range(TRIES)] + [xs[i]]
                w = weight[i] + one if W else None
                xs[i] = search(rng, T, modes, rs, i, candidates, lambda v: (read(i, v), w))
        elif W and row == 0:
            for i in range(hidden):
                candidates = [W.near(rng.gauss(1 - one, 0.3)) for _ in range(TRIES)]
                s = read(i, xs[i])
                weight[i] = search(rng, T, modes, rs, i, candidates, lambda v: (s, v + one))
        x += xs
        r += rr or []
    return trace_call(combination, hidden, eps, V, x, r, weight)


def make_special(rng, number, combination):
    """Every special value as a row, as one element among the first V and behind, in the residual and as a weight."""
    op, modes, T, W, residual = combination
    hidden, V = 16, 12
    R = residual or T
    values = [math.nan, math.inf, -math.inf, 0.0, -0.0, T.max, -T.max, T.least, -T.least, math.ldexp(1, T.emin), 1.0, T.max / 2]
    x, r = [], []
    for k, v in enumerate(values):
        for place in range(4):
            xs = [v] * hidden if place == 0 else random_values(rng, T, "normal", hidden)
            rr = random_values(rng, R, "normal", hidden) if place else [(0.0, R.near(v), R.near(-v))[i % 3] for i in range(hidden)]
            if place == 1:
                xs[k % V] = v
            if place == 2:
                xs[V + k % 4] = v
            if place == 3:
                rr[k] = R.near(v)
                xs[V + k % 4] = rr[k] if abs(rr[k]) <= T.max else -v
            x += xs
            r += rr
    weight = None
    if W:
        special = [math.nan, math.inf, -math.inf, 0.0, -0.0, W.max, W.least, -1.0, math.ldexp(1, W.emin)]
        weight = [special[(i + number) % 9] if i % 2 else W.near(rng.gauss(0, 1)) for i in range(hidden)]
    return trace_call(combination, hidden, (0.0, 1e-6, 1e-40)[number % 3], V if number % 2 else 0, x, r if residual else [], weight)


def trace_call(combination, hidden, eps, V, x, r, weight):
    op, modes, T, W, residual = combination
    R = F32 if modes.get("residual_dtype") == "f32_for_f16" and T is F16 else T
    shape = [len(x) // hidden, hidden]
    tensors = {"x": (T.name.upper(), shape, T.encode(x))}
    if residual:
        tensors["residual"] = residual.name.upper(), shape, residual.encode(r)
        tensors["out.residual_out"] = R.name.upper(), shape, bytes(len(x) * R.size)
    if W:
        tensors["weight"] = W.name.upper(), [hidden], W.encode(weight)
    tensors["out.out"] = T.name.upper(), shape, bytes(len(x) * T.size)
    return {"op": op, "attrs": dict(modes, eps=eps, variance_size=V)}, tensors


def write_trace(path):
    rng = random.Random(20250101)
    entries, tensors = [], {}
    for number, combination in enumerate(combinations()):
        for made in (make_random(rng, number, combination, 0), make_random(rng, number, combination, 100),
                     make_special(rng, number, combination)):
            name = "c%d" % len(entries)
            entries.append(dict(made[0], id=name))
            tensors.update((name + "/" + field, t) for field, t in made[1].items())
    notes = {"hallmark.trace": "1", "hallmark.calls": json.dumps(entries)}
    write_safetensors(path, notes, tensors)


# ---- comparing -----------------------------------------------------------------------------------------------------------------


GOLD_NAN, GOLD_RANGE_FREE = 1, 2
ALL_CLASSES = ["wide", "chain64", "chain512", "any"]
MODES = ("round", "weight_form", "residual_read", "residual_dtype")


class Tally:
    def __init__(self):
        self.elements = self.mismatches = self.free = self.special = self.undecided = 0
        self.distances = []

    def count(self, e, lo, hi):
        self.elements += 1
        if not math.isfinite(e.ideal):
            self.special += 1
            return
        self.distances.append(e.distance)
        self.free += e.free
        self.undecided += lo != hi


def agrees(e, ideal, lo, hi, flags, output, c):
    if e.ideal != e.ideal:
        return ideal != ideal and lo != lo and hi != hi and flags == GOLD_NAN or c != "wide" and flags & GOLD_RANGE_FREE and ideal != ideal
    if ideal != e.ideal or flags & GOLD_NAN:
        return False
    if e.free or not math.isfinite(e.ideal):
        return True
    low, high = e.outer
    if c != "wide" and output is F32:
        low, high = F32.step(low, False), F32.step(high, True)
    return not flags & GOLD_RANGE_FREE and low <= lo <= e.inner[0] and e.inner[1] <= hi <= high


def show(v):
    return v.hex() if math.isfinite(v) else str(v)


def compare(path, out_path, c, most):
    """Compares one golden file. Returns its tallies and a line for each of the first `most` elements that differ."""
    tallies, lines = defaultdict(Tally), []
    calls, _ = read_calls(path)
    _, golden = read_safetensors(out_path)
    for call in calls:
        for field, expected in expect(call, c).items():
            try:
                tensors = [golden["%s/%s.%s" % (call["id"], kind, field)] for kind in ("ideal", "lo", "hi")]
            except KeyError as missing:
                stop("%s lacks %s" % (out_path, missing))
            output = DTYPE[tensors[0][0]]
            ideal, lo, hi = (DTYPE[dtype].decode(data) for dtype, _, data in tensors)
            flags = golden.get("%s/flags.%s" % (call["id"], field), (None, None, bytes(len(ideal))))[2]
            if not len(ideal) == len(lo) == len(hi) == len(flags) == len(expected):
                stop("%s: %s of %s has %d elements, not %d" % (out_path, field, call["id"], len(ideal), len(expected)))
            modes = tuple((k, call["attrs"][k]) for k in MODES if k in call["attrs"])
            dtypes = tuple((k, d.name) for k, d in sorted(call["dtype"].items()))
            tally = tallies[call["op"], modes, dtypes, field, c]
            for i, e in enumerate(expected):
                tally.count(e, lo[i], hi[i])
                if agrees(e, ideal[i], lo[i], hi[i], flags[i], output, c):
                    continue
                tally.mismatches += 1
                if len(lines) < most:
                    lines.append("%s %s %s %s variance_size=%s eps=%s class %s, %s[%d]: golden ideal %s lo %s hi %s flags %d; here ideal %s, "
                          "inner %s..%s, outer %s..%s%s" % (
                              call["id"], call["op"], " ".join(v for _, v in modes), " ".join("%s=%s" % d for d in dtypes),
                              call["attrs"]["variance_size"], call["attrs"]["eps"], c, field, i, show(ideal[i]), show(lo[i]), show(hi[i]),
                              flags[i], show(e.ideal), *map(show, e.inner + e.outer), ", range-free" if e.free else ""))
    return tallies, lines


class Stop(Exception):
    """What keeps the comparison from being made: exit 2."""


def stop(sentence):
    raise Stop(sentence)


def run(command):
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if result.returncode:
        stop("%s ...: exit %d: %s" % (" ".join(command[:4]), result.returncode, result.stderr[-2000:]))
    return result.stdout


# ---- what the other computations share ----------------------------------------------------------------------------------------------

def make(hallmark, path, lines, *options):
    """Has golden's answers for these cases written to a file, with their inputs."""
    run([hallmark, "golden", "--inputs", *options, "-o", path] + [word for line in lines for word in ("--case", line)])


def load(tensors, name):
    """Values and shape of a tensor; None for one that is not there."""
    if name not in tensors:
        return None, None
    dtype, shape, data = tensors[name]
    if dtype in ("I64", "I32"):
        return struct.unpack("<%d%s" % (math.prod(shape), "q" if dtype == "I64" else "i"), data), shape
    if dtype == "F8_E8M0":
        return [math.ldexp(1, b - 127) if b != 255 else math.nan for b in data], shape
    return DTYPE[dtype].decode(data), shape


def out_comparison(judges, modes):
    """compare() of by_class for ops with one output, `out`: judges[op] yields (does it agree, what it is here) for each element."""

    def compare_out(path, c, most, counts, kinds):
        notes, tensors = read_safetensors(path)
        differing = 0
        for call in json.loads(notes["hallmark.calls"]):
            base = call["id"] + "/%s.out"
            (ideal, _), (lo, _), (hi, _) = (load(tensors, base % kind) for kind in ("ideal", "lo", "hi"))
            flags = tensors.get(base % "flags", (None, None, bytes(len(ideal))))[2]

            def found(i):
                return ideal[i], lo[i], hi[i], flags[i]

            done = 0
            for good, why in judges[call["op"]](call, tensors, c, kinds, found):
                counts[modes(call, tensors)] += 1
                if not good:
                    differing += 1
                    if differing <= most:
                        print("%s %s class %s, out[%d]: golden %s; here %s" % (call["id"], call["attrs"], c, done, found(done), why))
                done += 1
            if done < len(ideal):
                stop("%s: %d of %d elements were compared" % (call["id"], done, len(ideal)))
        return differing

    return compare_out


def judged(hallmark, folder, notes, listed, written):
    """What replay says of these calls, one result each: their notes as in another trace, and their tensors."""
    path, certificate = os.path.join(folder, "judged.safetensors"), os.path.join(folder, "certificate")
    write_safetensors(path, {"hallmark.trace": notes["hallmark.trace"], "hallmark.calls": json.dumps(listed)}, written)
    done = subprocess.run([hallmark, "replay", "--out", certificate, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode not in (0, 1):
        stop("replay ended with %d: %s" % (done.returncode, done.stderr))
    with open(os.path.join(certificate, "certificate.json")) as f:
        results = json.load(f)["payload"]["results"]
    if len(results) != len(listed):
        stop("%d calls were judged, not %d" % (len(results), len(listed)))
    return results


def ask(doc, most="differing elements to print for each file"):
    """The options that all have."""
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    parser.add_argument("hallmark")
    parser.add_argument("--most", type=int, default=10, help="how many " + most)
    return parser


def ask_golden(parser):
    parser.add_argument("--golden", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../data/golden"))
    return parser


def listed(counts):
    return ", ".join("%d %s" % (n, k) for k, n in sorted(counts.items()))


def conclude(differing, short, what="elements"):
    print("%d %s differ" % (differing, what) if differing else "all agree")
    return 1 if differing else 2 if short else 0


def by_class(doc, groups, compare, promised):
    """main() of a computation that looks at golden in several classes: for each (class, lists of cases) what compare() counts, of which
    there must be as much as is promised."""
    parser = ask(doc)
    parser.add_argument("--keep", help="leave the files in this folder")
    options = parser.parse_args()
    differing, short = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        folder = options.keep or folder
        for c, batches in groups:
            counts, kinds = Counter(), Counter()
            for lines in batches:
                path = os.path.join(folder, "%s-%s.safetensors" % (lines[0].split()[0], c))
                make(options.hallmark, path, lines, "--class", c)
                differing += compare(path, c, options.most, counts, kinds)
            for what, n in sorted(counts.items()):
                print("class %-8s %-56s %7d elements%s" % (c, what, n, "" if n >= promised else ": fewer than promised"))
                short += n < promised
            print("class %-8s %s" % (c, listed(kinds)))
    return conclude(differing, short)


def end(main):
    """Ends with what main() says; with 2 and the reason where nothing was compared."""
    try:
        sys.exit(main())
    except Stop as sentence:
        print("%s: %s" % (os.path.basename(sys.argv[0]), sentence), file=sys.stderr)
    except Exception:
        traceback.print_exc()
    sys.exit(2)


# ---- this computation --------------------------------------------------------------------------------------------------------------

def generator_cases(hallmark):
    """Lines for every generator that the tool lists, over a spread of modes."""
    names = [line.split()[0] for line in run([hallmark, "list", "generators"]).splitlines()[1:] if line.strip()]
    choices = [c for c in combinations()]
    lines = []
    for n, name in enumerate(names):
        for k in range(6):
            op, modes, T, W, residual = choices[(n * 29 + k * 31) % len(choices)]
            text = "%s x=%s[3,256] weight=%s" % (op, T.name, W.name + "[256]" if W else "none")
            if residual:
                R = F32 if modes["residual_dtype"] == "f32_for_f16" and T is F16 else T
                text += " residual=%s[3,256] residual_out=%s[3,256]" % (residual.name, R.name)
            lines.append(text + " " + " ".join("%s=%s" % m for m in modes.items()) + " gen=%s seed=%d" % (name, 1 + n))
    return lines


def job(hallmark, folder, c, trace, lines, most):
    """Asks golden for the intervals of class c, of a trace or of cases, and compares."""
    out = os.path.join(folder, "golden-%s-%s.safetensors" % ("trace" if trace else "cases", c))
    if trace:
        run([hallmark, "golden", trace, "--class", c, "-o", out])
    else:
        run([hallmark, "golden", "--inputs", "--class", c, "-o", out] + [word for line in lines for word in ("--case", line)])
    return compare(trace or out, out, c, most)


def main():
    parser = ask(__doc__)
    parser.add_argument("--class", dest="classes", action="append", help="for the traces written here (default: wide and chain64)")
    parser.add_argument("--keep", help="leave the files in this folder")
    options = parser.parse_args()
    classes = options.classes or ["wide", "chain64"]
    with tempfile.TemporaryDirectory() as folder:
        folder = options.keep or folder
        trace = os.path.join(folder, "independent.safetensors")
        write_trace(trace)
        lines = generator_cases(options.hallmark)
        jobs = [(options.hallmark, folder, c, trace, None, options.most) for c in classes]
        jobs += [(options.hallmark, folder, c, None, lines, options.most) for c in ALL_CLASSES]
        with multiprocessing.Pool(min(4, os.cpu_count() or 1)) as pool:
            done = pool.starmap(job, jobs, chunksize=1)
    tallies, generated = {}, {}
    for (_, _, _, path, _, _), (found, differing) in zip(jobs, done):
        (tallies if path else generated).update(found)
        print("".join(line + "\n" for line in differing), end="")
    differing = sum(t.mismatches for t in list(tallies.values()) + list(generated.values()))
    short = report(tallies, classes, "Every combination of modes and dtypes, on inputs made here", PROMISED)
    report(generated, ALL_CLASSES, "%d cases of Hallmark's generators" % len(lines), 0)
    return conclude(differing, short)


def report(tallies, classes, title, promised):
    """One line for each op, mode and output. Elements and distances are those of the first class (the others have the same), range-free
    and mismatches those of all. Returns how many combinations fall short of what is promised."""
    short = 0
    table = defaultdict(list)
    for (op, modes, dtypes, field, c), t in tallies.items():
        table[op, modes, field].append((c, t))
        near = sum(d < 0.05 for d in t.distances)
        if t.elements - t.special < promised or (promised and field == "out" and near < NEAREST):
            print("%s %s %s, %s: %d finite elements, %d near a boundary: fewer than promised" % (
                op, " ".join(v for _, v in modes), dtypes, field, t.elements - t.special, near))
            short += 1
    print("\n%s\n%-18s %-40s %-12s %8s %6s %7s %8s %8s %10s %10s" % (
        title, "op", "modes", "output", "elements", "dtypes", "nan,inf", "nearest", "100th", "range-free", "mismatches"))
    for (op, modes, field), rows in sorted(table.items(), key=lambda r: (r[0][0] != "rms_norm", r[0])):
        mine = [t for c, t in rows if c == classes[0]]
        distances = sorted(d for t in mine for d in t.distances) + [math.nan] * 100
        print("%-18s %-40s %-12s %8d %6d %7d %8.1e %8.1e %10d %10d" % (
            op, " ".join(v for _, v in modes), field, sum(t.elements for t in mine), len(mine), sum(t.special for t in mine),
            distances[0], distances[99], sum(t.free for _, t in rows), sum(t.mismatches for _, t in rows)))
    for c in classes:
        mine = [t for k, t in tallies.items() if k[4] == c]
        print("class %-9s %d finite elements, %d with more than one admissible value, %d range-free" % (
            c + ":", sum(t.elements - t.special for t in mine), sum(t.undecided for t in mine), sum(t.free for t in mine)))
    return short


if __name__ == "__main__":
    end(main)
