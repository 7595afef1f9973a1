#!/usr/bin/python3
"""Recomputes what `hallmark golden` says of rotary_embedding and concat_mla_q, in different software, from the contracts' text alone.

usage: independent_rotary.py HALLMARK [--keep DIR] [--most N]

Inputs are filled by Hallmark's generators, in every combination of modes and dtypes; what they are is read from the file. Here numbers
are integers times powers of two, and sums are formed by mpmath with all their bits.

For every element of every output:
  a copy            has to have the input's bits, and be said to be judged by them;
  ideal             the formula with the declared roundings: has to match bit for bit;
  lo, hi            ends of the set that the contract and the class admit: the declared rounding of the exact sum, of the sum in
                    binary64, and in an f32 class of the four ways to form it in f32. They have to match bit for bit, unless f32 may
                    flush something on the way: then every member has to be inside, and nothing beyond what losing 2^-125 allows.
A NaN or an infinity among the operands: IEEE arithmetic decides. Range-free only where a product overflows f32.
Exit 0: all agree; 1: something does not; 2: less was compared than promised, or the tool failed.
"""
import json
import math
import struct

import mpmath

from independent import DTYPE, F32, Dtype, by_class, end, read_safetensors, round_to, signed, stop, times

mpmath.mp.prec = 1200  # a sum of two products of f32 values has at most 700 bits
F64 = Dtype("f64", 53, -1022, 1023, 8)
PROMISED = 1000
GENERATORS = ("normal", "cancelling", "ties", "exact", "huge", "special", "subnormal", "bits", "index")
NAN, FREE, GAPS, BITS = 1, 2, 4, 8
LEAST = math.ldexp(1, -126)


def exact_sum(u, v):
    """The sum of two pairs, by mpmath."""
    sign, man, exp, _ = (mpmath.mpf(u) + mpmath.mpf(v))._mpf_
    return -int(man) if sign else int(man), int(exp)


def rn(dtype, number):
    """A float, rounded from a pair; zeros without a sign."""
    return round_to(dtype, number)[0] + 0.0


def rounded(dtype, value):
    return value if not math.isfinite(value) else rn(dtype, signed(value))


class Element:
    """a b + p q for one result; c and s as stored."""

    def __init__(self, T, each, a, b, p, q):
        self.T, self.each, self.operands = T, each, (a, b, p, q)
        self.bits = None
        self.flushes = self.overflows = False
        if each:
            b, q = rounded(T, b), rounded(T, q)
        self.finite = all(map(math.isfinite, (a, b, p, q)))
        self.small = any(0 < abs(v) < LEAST for v in self.operands + (b, q))
        if not self.finite:
            u, v = self.product(a, b), self.product(p, q)
            self.ideal = rounded(T, u + v)
            return
        self.u, self.v = times(signed(a), signed(b)), times(signed(p), signed(q))
        if each:
            u, v = rn(T, self.u), rn(T, self.v)
            self.ideal = rounded(T, u + v) if not (math.isfinite(u) and math.isfinite(v)) else rn(T, exact_sum(signed(u), signed(v)))
            self.forms = {self.ideal}
            total = u + v
        else:
            self.e = exact_sum(self.u, self.v)
            self.ideal = rn(T, self.e)
            self.forms = {self.ideal, rounded(T, rn(F64, self.e))}
            total = rn(F64, self.e)
        near = [rn(F64, self.u), rn(F64, self.v), total]
        self.flushes = self.small or any(0 < abs(v) < 2 * LEAST for v in near)
        self.overflows = not each and any(math.isinf(rn(F32, w)) for w in (self.u, self.v))

    def product(self, a, b):
        """IEEE, with the rounding of `each`."""
        if self.each and math.isfinite(a) and math.isfinite(b):
            return rn(self.T, times(signed(a), signed(b)))
        return a * b

    def in_f32(self):
        """The set of an f32 class."""
        if self.each:
            return self.forms
        fu, fv = rn(F32, self.u), rn(F32, self.v)
        wide = [rn(F32, self.e)]
        if math.isfinite(fv):
            wide.append(rn(F32, exact_sum(self.u, signed(fv))))
        if math.isfinite(fu):
            wide.append(rn(F32, exact_sum(signed(fu), self.v)))
        if math.isfinite(fu) and math.isfinite(fv):
            wide.append(rn(F32, exact_sum(signed(fu), signed(fv))))
        self.flushes = self.flushes or any(0 < abs(w) < 2 * LEAST for w in wide)
        return self.forms | {rounded(self.T, w) for w in wide}

    def agrees(self, c, ideal, lo, hi, flags):
        f32 = c != "wide"
        if math.isnan(self.ideal):
            if f32 and self.small and flags & FREE and not any(map(math.isnan, self.operands)):
                return math.isnan(ideal)
            return math.isnan(ideal) and math.isnan(lo) and math.isnan(hi) and flags == NAN
        if ideal != self.ideal or flags & (NAN | BITS):
            return False
        if not self.finite:
            return bool(flags & FREE and f32) or lo == hi == self.ideal
        members = self.in_f32() if f32 else self.forms
        if f32 and self.overflows:
            return bool(flags & FREE)
        if flags & FREE:
            return f32 and self.small
        if f32 and self.flushes:
            a, b, p, q = self.operands
            most = 4 * LEAST * max(1, *(abs(v) for v in (a, b, p, q)))
            most += self.T.least + abs(max(members, key=abs)) / 2 ** (self.T.precision - 2)
            return lo <= min(members) and max(members) <= hi and hi - lo <= max(members) - min(members) + 2 * most
        return lo == min(members) and hi == max(members)


def load(tensors, name):
    dtype, shape, data = tensors[name]
    return (list(struct.unpack("<%dq" % (len(data) // 8), data)) if dtype == "I64" else DTYPE[dtype].decode(data)), shape, data


def rotary(call, tensors):
    """{output: list of Element, or the bits of a copy}."""
    attrs, base = call["attrs"], call["id"] + "/"
    positions, _, _ = load(tensors, base + "positions")
    table, (_, width), _ = load(tensors, base + "cos_sin_cache")
    pairs, offset, each = width // 2, attrs["rope_dim_offset"], attrs["round"] == "each"
    found = {}
    for field in ("query", "key"):
        if base + field not in tensors:
            continue
        values, shape, data = load(tensors, base + field)
        T = DTYPE[tensors[base + field][0]]
        heads, n = shape[-2], shape[-1]
        expected = [data[i * T.size:(i + 1) * T.size] for i in range(len(values))]
        for row in range(len(values) // n):
            p = positions[row // heads]
            for i in range(pairs):
                first = row * n + offset
                ix, iy = (first + 2 * i, first + 2 * i + 1) if attrs["pairing"] == "interleaved" else (first + i, first + pairs + i)
                x, y, c, s = values[ix], values[iy], table[p * width + i], table[p * width + pairs + i]
                if attrs["inverse"] == "inverse":
                    s = -s
                expected[ix] = Element(T, each, x, c, -y, s)
                expected[iy] = Element(T, each, y, c, x, s)
        found[field + "_out"] = expected
    return found


def concat(call, tensors):
    base = call["id"] + "/"
    (_, shape, nope), (_, rope_shape, rope) = load(tensors, base + "ql_nope"), load(tensors, base + "q_pe")
    n, r = shape[-1], rope_shape[-1]
    expected = []
    for row in range(math.prod(shape[:-1])):
        expected += [nope[2 * (row * n + i):][:2] for i in range(n)] + [rope[2 * (row * r + i):][:2] for i in range(r)]
    return {"q_out": expected}


def cases():
    lines = []
    for T, C in (("f32", "f32"), ("f16", "f32"), ("bf16", "f32"), ("f16", "f16"), ("bf16", "bf16")):
        for each in ("once", "each"):
            for k, pairing in enumerate(("half_split", "interleaved")):
                for g, generator in enumerate(GENERATORS):
                    lines.append("rotary_embedding query=%s[6,3,20] key=%s[6,1,20] positions=i64[6] cos_sin_cache=%s[300,16] pairing=%s round=%s "
                                 "inverse=%s rope_dim_offset=%d gen=%s seed=%d" % (
                                     T, T, C, pairing, each, ("forward", "inverse")[(g + k) % 2], g % 5, generator, 1 + g))
    for T in ("f16", "bf16"):
        for generator in GENERATORS:
            lines.append("concat_mla_q ql_nope=%s[4,3,24] q_pe=%s[4,3,8] gen=%s seed=5" % (T, T, generator))
    return lines


def compare(path, c, most, counts, kinds):
    notes, tensors = read_safetensors(path)
    differing = 0
    for call in json.loads(notes["hallmark.calls"]):
        attrs = call["attrs"]
        modes = " ".join(attrs[k] for k in ("pairing", "round", "inverse") if k in attrs)
        for field, expected in (rotary if call["op"] == "rotary_embedding" else concat)(call, tensors).items():
            base = call["id"] + "/%s." + field
            (ideal, _, ideal_bits), (lo, _, lo_bits), (hi, _, hi_bits) = (load(tensors, base % kind) for kind in ("ideal", "lo", "hi"))
            size = DTYPE[tensors[base % "ideal"][0]].size
            flags = tensors.get(base % "flags", (None, None, bytes(len(ideal))))[2]
            if not len(ideal) == len(lo) == len(hi) == len(flags) == len(expected):
                stop("%s: %s of %s has %d elements, not %d" % (path, field, call["id"], len(ideal), len(expected)))
            for i, e in enumerate(expected):
                counts["%-17s %s" % (call["op"], modes)] += 1
                if isinstance(e, bytes):
                    kinds["copies"] += 1
                    good = flags[i] == BITS and all(b[i * size:(i + 1) * size] == e for b in (ideal_bits, lo_bits, hi_bits))
                else:
                    kinds["points" if lo[i] == hi[i] else "sets"] += 1
                    kinds["range-free"] += bool(flags[i] & FREE)
                    kinds["flushes"] += e.flushes
                    good = e.agrees(c, ideal[i], lo[i], hi[i], flags[i])
                if good:
                    continue
                differing += 1
                if differing <= most:
                    print("%s %s %s class %s, %s[%d]: golden ideal %s lo %s hi %s flags %d; here %s" % (
                        call["id"], call["op"], modes, c, field, i, ideal[i].hex(), lo[i].hex(), hi[i].hex(), flags[i],
                        e if isinstance(e, bytes) else (e.ideal.hex(), [v.hex() for v in e.operands], e.each, e.flushes, e.overflows)))
    return differing


def main():
    rotated, copied = ([line for line in cases() if line.startswith(op)] for op in ("rotary_embedding", "concat_mla_q"))
    return by_class(__doc__, [("wide", [rotated, copied]), ("chain64", [rotated])], compare, PROMISED)


if __name__ == "__main__":
    end(main)
