#!/usr/bin/python3
"""Recomputes what `hallmark golden` says of the paged cache of latent attention, in different software, from the contract's text alone.

usage: independent_mla_cache.py HALLMARK [--keep DIR] [--most N]

Inputs are filled by Hallmark's generators, in every format, dtype and block size; what they are is read from the file. Numbers are
fractions, without rounding; the table of 8-bit codes is made from bias and fraction bits.

For every element of the cache:
  another's         has to be what was there, and be said to be judged by its bits; so have copies, in both formats;
  a scale's bytes   those of the rounded quotient, or of the power of two above it, not below the floor under the scale;
  a code's byte     class wide: the one code nearest to the quotient by the rounded scale. chain64: the codes of the smallest to the
                    largest admissible scale, each with one f32 rounding;
  NaN               both NaN codes; the rest of a tile with NaN or an infinity says nothing.
Exit 0: all agree; 1: something does not; 2: less was compared than promised, or the tool failed.
"""
import math
import struct
from fractions import Fraction

from independent import DTYPE, by_class, end
from independent_indexer_cache import BITS, FORMATS, GAPS, PROMISED, bytes_comparison, integers, is_power, power_above, rn32

CODES, TILE, ROPE_BYTES, ENTRY = 512, 128, 128, 656
FLOOR = {"f32": Fraction(2) ** -126, "pow2": Fraction(struct.unpack("<f", struct.pack("<f", 1e-4))[0])}


class Tile:
    """What one tile of one token may leave."""

    def __init__(self, v, mode, c):
        self.said = all(map(math.isfinite, v))
        if not self.said:
            return
        self.v, self.f32 = [Fraction(x) for x in v], c != "wide"
        r, floor, slack = max(map(abs, self.v)) / 448, FLOOR[mode], Fraction(1, 1 << 22) if self.f32 else 0
        if mode == "pow2":
            self.scale = self.low = self.high = power_above(max(r, floor))
        else:
            self.scale, self.low, self.high = (rn32(max(q, floor)) for q in (r, r * (1 - slack), r * (1 + slack)))

    def code(self, d, sign):
        """The ideal code, and those between which others may lie."""
        x, negative, ends, e4m3 = self.v[d], sign < 0, [], FORMATS["e4m3"]
        for S in {self.low, self.high}:
            slack = Fraction(1, 1 << 24) if self.f32 and not is_power(S) else 0
            ends += [abs(x) / S * (1 - slack), abs(x) / S * (1 + slack)]
        if self.f32 and abs(x) < Fraction(2) ** -126:
            ends.append(Fraction(0))
        found = [e4m3.nearest(q, negative) for q in (min(ends), max(ends))]
        return e4m3.nearest(x / self.scale, negative), found


def entry_of(values, rope, mode, c):
    """656 times (ideal, flags, parts); None for what nobody says anything of."""
    entry = [None] * ENTRY
    for i in range(CODES // TILE):
        tile = Tile(values[i * TILE:(i + 1) * TILE], mode, c)
        if tile.said and tile.low == tile.high:
            for b, byte in enumerate(struct.pack("<f", float(tile.scale))):
                entry[CODES + 4 * i + b] = (byte, BITS, [(byte, byte)])
        for d in range(TILE):
            x, at = values[i * TILE + d], i * TILE + d
            if math.isnan(x):
                entry[at] = (0x7F, GAPS, [(0x7F, 0x7F), (0xFF, 0xFF)])
            elif tile.said:
                ideal, (low, high) = tile.code(d, math.copysign(1, x))
                entry[at] = (ideal, BITS if low == high else 0, [(min(low, high), max(low, high))])
    entry[ENTRY - ROPE_BYTES:] = [(b, BITS, [(b, b)]) for b in rope]
    return entry


def writer(call, tensors, c, counts):
    attrs, base = call["attrs"], call["id"] + "/"
    dtype, (tokens, latent), data = tensors[base + "kv_c"]
    _, (_, rope), ropes = tensors[base + "k_pe"]
    _, (_, _, entry), old = tensors[base + "kv_cache"]
    codes = attrs["format"] == "fp8_ds_mla"
    part, size = DTYPE[dtype].size, 1 if codes else DTYPE[dtype].size
    expected = [(old[i:i + size], BITS, None) for i in range(0, len(old), size)]
    for n, slot in enumerate(integers(tensors, base + "slot_mapping")):
        if slot < 0:
            counts["skipped"] += 1
            continue
        row, pe = data[n * latent * part:(n + 1) * latent * part], ropes[n * rope * part:(n + 1) * rope * part]
        new = entry_of(DTYPE[dtype].decode(row), pe, attrs["scale"], c) if codes else [
            (bytes((row + pe)[i:i + part]), BITS, None) for i in range(0, (latent + rope) * part, part)]
        expected[slot * entry:(slot + 1) * entry] = new
    return size, expected


def cases():
    lines = []
    for P, blocks in ((1, 9), (3, 3), (16, 1)):
        for mode in ("f32", "pow2"):
            for i, (T, generator) in enumerate((("bf16", "normal"), ("f16", "heavy"), ("bf16", "special"), ("bf16", "tiny"), ("f16", "subnormal"),
                                                ("f16", "ties"), ("bf16", "ties"), ("bf16", "sparse"), ("bf16", "bits"))):
                lines.append("concat_and_cache_mla kv_c=%s[7,512] k_pe=%s[7,64] slot_mapping=i64[7] kv_cache=u8[%d,%d,656] format=fp8_ds_mla "
                             "scale=%s gen=%s seed=%d" % (T, T, blocks, P, mode, generator, i + 1))
        for T in ("bf16", "f16", "f32"):
            for generator in ("normal", "bits"):
                lines.append("concat_and_cache_mla kv_c=%s[7,50] k_pe=%s[7,9] slot_mapping=i64[7] kv_cache=%s[%d,%d,59] gen=%s" % (T, T, T, blocks, P, generator))
    return lines


def main():
    compare = bytes_comparison(lambda *args: {"kv_cache": writer(*args)}, lambda call: "%s %s" % (call["attrs"]["format"], call["attrs"]["scale"]))
    return by_class(__doc__, [(c, [cases()]) for c in ("wide", "chain64")], compare, PROMISED)


if __name__ == "__main__":
    end(main)
