#!/usr/bin/python3
"""Recomputes what `hallmark golden` says of the indexer's paged cache, in different software, from the contracts' text alone.

usage: independent_indexer_cache.py HALLMARK [--keep DIR] [--most N]

Inputs are filled by Hallmark's generators, in every layout, format and block size; what they are is read from the file. Numbers are
fractions, without rounding; the tables of 8-bit codes are made here from bias and fraction bits.

For every byte of the cache that indexer_k_quant_and_cache writes to:
  another's         has to be what was there, and be said to be judged by its bits;
  a scale's         the bytes of the rounded quotient, or of the power of two above it;
  a code's          class wide: the one code nearest to the quotient by the rounded scale. chain64: the codes of the smallest to the
                    largest admissible scale, each with one f32 rounding; a zero of fnuz and the negative codes are two parts;
  NaN               both NaN codes, or the one of fnuz; the rest of a group with NaN or an infinity says nothing.
For every element that cp_gather_indexer_k_quant_cache writes: the bits that the cache or, for padding, the output held.
Exit 0: all agree; 1: something does not; 2: less was compared than promised, or the tool failed.
"""
import json
import math
import struct
from bisect import bisect_left
from fractions import Fraction

from independent import DTYPE, by_class, end, read_safetensors, stop

PROMISED = 1000
GAPS, BITS, UNSPECIFIED = 4, 8, 16
GROUP = 128


def values_of(bias, fnuz):
    """{code: value}, for all that are numbers."""
    found = {}
    for code in range(256):
        exponent, fraction, sign = code >> 3 & 15, code & 7, -1 if code & 128 else 1
        if code == 0x80 if fnuz else code & 0x7F == 0x7F:
            continue
        significand = Fraction(fraction, 8) + (1 if exponent else 0)
        found[code] = sign * significand * Fraction(2) ** (max(exponent, 1) - bias)
    return found


class Codes:
    def __init__(self, fnuz):
        self.fnuz, self.divisor = fnuz, 224 if fnuz else 448
        found = sorted((v, c) for c, v in values_of(8 if fnuz else 7, fnuz).items() if not c & 128)
        self.values, self.codes = [v for v, _ in found], [c for _, c in found]

    def nearest(self, q, negative):
        """The code of |q|, with a sign; ties to the even code; saturating."""
        q = abs(q)
        i = bisect_left(self.values, q)
        if i == len(self.values):
            code = self.codes[-1]
        elif i == 0:
            code = self.codes[0]
        else:
            low, high = self.values[i - 1], self.values[i]
            past = 2 * q - low - high
            code = self.codes[i - 1] if past < 0 or (past == 0 and self.codes[i - 1] % 2 == 0) else self.codes[i]
        return code if not negative or (self.fnuz and code == 0) else code | 128


FORMATS = {"e4m3": Codes(False), "e4m3fnuz": Codes(True)}


def rn32(v):
    """A positive fraction in f32's normal range, rounded to nearest, ties to even."""
    exponent = v.numerator.bit_length() - v.denominator.bit_length()
    while v >= Fraction(2) ** (exponent + 1):
        exponent += 1
    while v < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** (exponent - 23)
    return round(v / unit) * unit  # Python rounds ties of fractions to even


def power_above(v):
    k = v.numerator.bit_length() - v.denominator.bit_length() - 1
    while Fraction(2) ** k < v:
        k += 1
    return Fraction(2) ** k


def is_power(v):
    return power_above(v) == v


class Group:
    """What one group of one token may leave."""

    def __init__(self, k, attrs, c):
        self.codes, self.k = FORMATS[attrs["code_format"]], k
        self.said = all(map(math.isfinite, k))
        if not self.said:
            return
        floor = Fraction(struct.unpack("<f", struct.pack("<f", attrs["floor"]))[0])
        self.k = [Fraction(v) for v in k]
        r = max(max(map(abs, self.k)), floor) / self.codes.divisor
        self.f32 = c != "wide"
        slack = Fraction(1, 1 << 22) if self.f32 else 0
        if attrs["scale_format"] == "ue8m0":
            self.scale = self.low = self.high = power_above(r)
        else:
            self.scale, self.low, self.high = rn32(r), rn32(r * (1 - slack)), rn32(r * (1 + slack))

    def scale_bytes(self):
        return struct.pack("<f", float(self.scale))

    def code(self, d, sign):
        """The ideal code, and those between which others may lie."""
        x, negative = self.k[d], sign < 0
        ends = []
        for S in {self.low, self.high}:
            slack = Fraction(1, 1 << 24) if self.f32 and not is_power(S) else 0
            ends += [x / S * (1 - slack), x / S * (1 + slack)]
        if self.f32 and abs(x) < Fraction(2) ** -126:
            ends.append(Fraction(0))
        found = [self.codes.nearest(q, negative) for q in (min(ends, key=abs), max(ends, key=abs))]
        return self.codes.nearest(x / self.scale, negative), found


def raw(tensors, name):
    return tensors[name][2]


def integers(tensors, name):
    dtype, _, data = tensors[name]
    size, letter = {"I32": (4, "i"), "I64": (8, "q")}[dtype]
    return struct.unpack("<%d%s" % (len(data) // size, letter), data)


def code_byte(layout, D, o, d):
    return o * D + d if layout == "normal" else o // 16 * 16 * D + d // 16 * 256 + o % 16 * 16 + d % 16


def writer(call, tensors, c, counts):
    """For each byte: (ideal, flags, parts); None for what nobody says anything of."""
    attrs, base = call["attrs"], call["id"] + "/"
    dtype, (_, D), data = tensors[base + "k"]
    k, slots = DTYPE[dtype].decode(data), integers(tensors, base + "slot_mapping")
    _, (_, B, entry), old = tensors[base + "kv_cache"]
    expected = [(b, BITS, [(b, b)]) for b in old]
    for n, slot in enumerate(slots):
        if slot < 0:
            counts["skipped"] += 1
            continue
        first, o = slot // B * B * entry, slot % B
        for g in range(D // GROUP):
            values = k[n * D + g * GROUP:n * D + (g + 1) * GROUP]
            group = Group(values, attrs, c)
            at = first + B * D + 4 * (o * (D // GROUP) + g)
            for i in range(4):
                expected[at + i] = (group.scale_bytes()[i], BITS, None) if group.said and group.low == group.high else None
            for d, x in enumerate(values):
                at = first + code_byte(attrs["layout"], D, o, g * GROUP + d)
                if math.isnan(x):
                    expected[at] = (0x80, BITS, [(0x80, 0x80)]) if group.codes.fnuz else (0x7F, GAPS, [(0x7F, 0x7F), (0xFF, 0xFF)])
                elif not group.said:
                    expected[at] = None
                else:
                    ideal, (low, high) = group.code(d, math.copysign(1, x))
                    if low == high:
                        expected[at] = (ideal, BITS, [(low, low)])
                    elif low == 0 and high & 128 and group.codes.fnuz:
                        expected[at] = (ideal, GAPS, [(0, 0), (0x81, high)])
                    else:
                        expected[at] = (ideal, 0, [(min(low, high), max(low, high))])
    return {"kv_cache": (1, expected)}


def gather(call, tensors, c, counts):
    attrs, base = call["attrs"], call["id"] + "/"
    cu, table = integers(tensors, base + "cu_seq_lens"), integers(tensors, base + "block_table")
    _, (requests, width), _ = tensors[base + "block_table"]
    _, (_, B, entry), cache = tensors[base + "kv_cache"]
    _, (rows, D), codes = tensors[base + "dst_k"]
    codes, scales, G = bytearray(codes), bytearray(raw(tensors, base + "dst_scale")), D // GROUP
    for r in range(requests):
        for n in range(cu[r], cu[r + 1]):
            block, o = table[r * width + (n - cu[r]) // B] * B * entry, (n - cu[r]) % B
            for d in range(D):
                codes[n * D + d] = cache[block + code_byte(attrs["layout"], D, o, d)]
            at = block + B * D + 4 * o * G
            scales[4 * n * G:4 * (n + 1) * G] = cache[at:at + 4 * G]
    counts["padding rows"] += rows - (cu[-1] - cu[0])
    size = 4 if tensors[base + "dst_scale"][0] == "F32" else 1
    return {"dst_k": (1, [(b, BITS, None) for b in codes]),
            "dst_scale": (size, [(scales[i:i + size], BITS, None) for i in range(0, len(scales), size)])}


def cases():
    write, read = [], []
    sizes = {1: 10, 3: 6, 16: 2, 32: 1, 64: 1}
    for B, blocks in sizes.items():
        for layout in ("normal", "shuffle") if B % 16 == 0 else ("normal",):
            for i, (codes, scales) in enumerate((c, s) for c in ("e4m3", "e4m3fnuz") for s in ("f32", "ue8m0")):
                for T, generator in (("bf16", "normal"), ("f16", "heavy"), ("bf16", "special"), ("bf16", "tiny"), ("f16", "subnormal"),
                                     ("bf16", "ties"), ("bf16", "bits"))[:7 if B in (1, 16) else 2]:
                    groups = 2 if B == 16 and generator == "heavy" else 1
                    write.append("indexer_k_quant_and_cache k=%s[8,%d] slot_mapping=i64[8] kv_cache=u8[%d,%d,%d] layout=%s code_format=%s "
                                 "scale_format=%s gen=%s seed=%d" % (T, GROUP * groups, blocks, B, 132 * groups, layout, codes, scales, generator, 1 + i))
            for seed in (1, 2, 3):
                read.append("cp_gather_indexer_k_quant_cache kv_cache=u8[%d,%d,132] cu_seq_lens=i32[4] block_table=i32[3,%d] dst_k=%s[14,128] "
                            "dst_scale=%s layout=%s seed=%d" % (blocks + 2, B, 14 // B + 2, ("u8", "f8e4m3", "u8")[seed - 1],
                                                                ("u8[14,4]", "f32[14,1]", "f32[14,1]")[seed - 1], layout, seed))
    return write, read


def bytes_comparison(expected_of, modes):
    """compare() of by_class for outputs whose elements are bytes: expected_of(call, ...)[output] is (bytes of an element, elements)."""

    def compare(path, c, most, counts, kinds):
        notes, tensors = read_safetensors(path)
        differing = 0
        for call in json.loads(notes["hallmark.calls"]):
            for field, (size, expected) in expected_of(call, tensors, c, kinds).items():
                base = call["id"] + "/%s." + field
                ideal, lo, hi = (raw(tensors, base % kind) for kind in ("ideal", "lo", "hi"))
                flags = raw(tensors, base % "flags") if base % "flags" in tensors else bytes(len(expected))
                parts = {}
                if base % "parts" in tensors:
                    ends = raw(tensors, base % "parts")
                    for i, at in enumerate(integers(tensors, base % "parts_at")):
                        parts.setdefault(at, []).append((ends[2 * i], ends[2 * i + 1]))
                if not len(expected) * size == len(ideal) == len(lo) == len(hi) or len(flags) != len(expected):
                    stop("%s: %s of %s has %d bytes, not %d" % (path, field, call["id"], len(ideal), len(expected) * size))
                for i, e in enumerate(expected):
                    counts[modes(call)] += 1
                    here = bytes(ideal[i * size:(i + 1) * size])
                    if e is None:
                        kinds["unsaid"] += 1
                        good = flags[i] == UNSPECIFIED
                    else:
                        want, flag, sets = e
                        kinds[{BITS: "points", GAPS: "sets", 0: "intervals"}[flag]] += 1
                        good = flags[i] == flag and here == (bytes([want]) if size == 1 and isinstance(want, int) else bytes(want))
                        if sets and flag == GAPS:
                            good = good and parts.get(i) == sets
                        elif sets:
                            good = good and (lo[i], hi[i]) == sets[0]
                    if good:
                        continue
                    differing += 1
                    if differing <= most:
                        print("%s %s class %s, %s[%d]: golden %s lo %d hi %d flags %d; here %s" % (
                            call["id"], modes(call), c, field, i, here.hex(), lo[i * size], hi[i * size], flags[i], e))
        return differing

    return compare


def modes_of(call):
    return "%-32s %s" % (call["op"], " ".join(call["attrs"][k] for k in ("layout", "code_format", "scale_format") if k in call["attrs"]))


def expected_of(call, tensors, c, kinds):
    return (writer if call["op"].startswith("indexer") else gather)(call, tensors, c, kinds)


def main():
    write, read = cases()
    return by_class(__doc__, [("wide", [write]), ("chain64", [write]), ("wide", [read])], bytes_comparison(expected_of, modes_of), PROMISED)


if __name__ == "__main__":
    end(main)
