#!/usr/bin/python3
"""Recomputes what data/golden says of fp8_mqa_logits and fp8_paged_mqa_logits, in different software, from the contracts' text alone.

usage: independent_logits.py HALLMARK [--golden DIR] [--most N]

The cases are those of the golden files; their inputs are filled by Hallmark's generators, and what they are is read from what
`hallmark golden --inputs` writes. A code of 8 bits is an integer in units of its format's smallest number, and so all that follows is
integers. For every element
  outside   of a row's window: -inf, or with outside=leave said to be unspecified;
  NaN       a code, weight or scale that is no number makes unspecified what it takes part in, and nothing else;
  ideal     the exact sum, rounded once: has to match, zeros without a sign, and to lie in [lo, hi];
  inner     what f32 gives, element by element and head by head, with the scale before and behind the head sum: has to lie in [lo, hi]
            (every seventh element);
  outer     the contract's bound for tc23 without its one-sided form, grown by 1 in 64: [lo, hi] has to lie in it.
Exit 0: all agree; 1: something does not; 2: less was compared than promised, or the tool failed.
"""
import json
import math
import os
import struct
import tempfile
from array import array
from collections import Counter
from operator import mul

from independent import F32, ask, ask_golden, conclude, end, listed, make, read_safetensors, round_to, stop

PROMISED = 3000
FREE, UNSPECIFIED = 2, 16
UNIT = {"F8_E4M3": -9, "F8_E4M3FNUZ": -10}  # exponent of the smallest positive number
SMALL = -149  # and of f32's


def units_of(dtype):
    """Of each code: its value in units of 2^UNIT; None is NaN."""
    table = []
    for code in range(256):
        e, m = code >> 3 & 15, code & 7
        v = (8 + m) << (e - 1) if e else m
        nan = code == 0x80 if dtype == "F8_E4M3FNUZ" else code & 127 == 127
        table.append(None if nan else -v if code & 128 else v)
    return table


def integer(v):
    """A finite f32 in units of 2^SMALL."""
    n, d = v.as_integer_ratio()
    return (n << -SMALL) // d


def fl(v):
    """RN_f32 of a double; sums and products of two f32 come out as if the double had not been there."""
    return struct.unpack("<f", struct.pack("<f", v))[0] if abs(v) < 3.4e38 else math.inf * v


def load(tensors, name):
    dtype, shape, data = tensors[name]
    if dtype in ("F32", "I32"):
        values = array("f" if dtype == "F32" else "i")
        values.frombytes(data)
        return list(values), shape
    return data, shape


class Call:
    """Rows of queries, and for each row its window and how to find a key."""

    def __init__(self, call, tensors):
        base, attrs = call["id"] + "/", call["attrs"]
        self.clean = attrs["outside"] == "clean"
        dtype = tensors[base + "q"][0]
        table, self.unit = units_of(dtype), UNIT[dtype]
        q, shape = load(tensors, base + "q")
        self.rows, self.heads, self.dim = math.prod(shape[:-2]), shape[-2], shape[-1]
        self.width = tensors[base + "ideal.logits"][1][1]
        weights, _ = load(tensors, base + "weights")
        H, D = self.heads, self.dim
        self.q = [[[table[c] for c in q[(r * H + h) * D:(r * H + h + 1) * D]] for h in range(H)] for r in range(self.rows)]
        self.w = [weights[r * H:(r + 1) * H] for r in range(self.rows)]
        self.keys = {}
        if call["op"] == "fp8_mqa_logits":
            self.flat(base, attrs, tensors, table)
        else:
            self.paged(base, attrs, tensors, table, shape)

    def flat(self, base, attrs, tensors, table):
        k, (keys, D) = load(tensors, base + "k")
        scales, _ = load(tensors, base + "k_scale")
        ks, ke = load(tensors, base + "ks")[0], load(tensors, base + "ke")[0]
        compressed = attrs["columns"] == "compressed"
        self.read = lambda r, n: ([table[c] for c in k[n * D:(n + 1) * D]], scales[n])
        self.name = lambda r, n: n
        self.column = lambda r, c: c + ks[r] if compressed else c
        self.window = lambda r: (ks[r], min(ke[r], keys))

    def paged(self, base, attrs, tensors, table, shape):
        cache, (blocks, B, entry) = load(tensors, base + "kv_cache")
        lens, lens_shape = load(tensors, base + "context_lens")
        tables, (_, most) = load(tensors, base + "block_tables")
        next_n, D = shape[1], self.dim
        tiles = attrs["layout"] == "shuffle"

        def byte(o, d):
            """NORMAL: token after token. SHUFFLE: tiles of 16 tokens by 16 codes, those of the same tokens one after the other."""
            return (o // 16 * 16 * D + d // 16 * 256 + o % 16 * 16 + d % 16) if tiles else o * D + d

        def read(r, p):
            number = tables[r // next_n * most + p // B]
            block = cache[number * B * entry:(number + 1) * B * entry]
            o = p % B
            return [table[block[byte(o, d)]] for d in range(D)], struct.unpack_from("<f", block, B * D + 4 * o)[0]

        self.read = read
        self.name = lambda r, p: (r // next_n, p)
        self.column = lambda r, c: c
        self.window = lambda r: (0, lens[r] if len(lens_shape) == 2 else lens[r // next_n] - next_n + r % next_n + 1)

    def key(self, r, n):
        name = self.name(r, n)
        if name not in self.keys:
            self.keys[name] = self.read(r, n)
        return self.keys[name]

    def finite(self, r):
        return all(map(math.isfinite, self.w[r])) and not any(None in head for head in self.q[r])


def f32_orders(call, r, k, scale):
    """Two legal implementations in f32."""
    behind = before = 0.0
    unit = 2.0 ** (2 * call.unit)
    for q, w in zip(call.q[r], call.w[r]):
        score = 0.0
        for t in map(mul, q, k):
            score = fl(score + t * unit)
        score = max(score, 0.0)
        behind = fl(behind + fl(w * score))
        before = fl(before + fl(w * max(fl(score * scale), 0.0)))
    return fl(behind * scale), before


def element(call, r, k, scale, thorough):
    """The exact logit rounded, the radius that tc23 may have, as floats, and values that have to be admitted."""
    total, slack, most, D = 0, 0.0, 0.0, call.dim
    for q, w in zip(call.q[r], call.w[r]):
        products = list(map(mul, q, k))
        t, T = sum(products), sum(map(abs, products))
        if t > 0:
            total += integer(w) * t
        A = max(T + t, T - t) // 2
        U = 2.0 ** (A.bit_length() - 1 - 23) if A else 0.0
        e = max(U * (D + 4 * -(-D // 8)), 1.01 * 2.0 ** -24 * D * T)
        slack += abs(w) * e
        most += abs(w) * (max(t, 0) + e)
    unit = 2.0 ** (2 * call.unit)
    radius = (slack + 1.01 * (call.heads + 3) * 2.0 ** -24 * most) * unit * abs(scale) * (1 + 2 ** -6)
    radius += 2.0 ** -118 * (call.heads + 2) * max(1, abs(scale)) * max(1, max(map(abs, call.w[r]), default=0))
    tiny = min([abs(w) for w in call.w[r] if w] + [abs(scale)], default=1) < 2.0 ** -126
    ideal = round_to(F32, (total * integer(scale), 2 * SMALL + 2 * call.unit))[0]
    return ideal, math.inf if tiny else radius, f32_orders(call, r, k, scale) if thorough and not tiny else ()


def compare(path, inputs, most, counts):
    """The elements of a golden file that are not as they are here."""
    notes, golden = read_safetensors(path)
    _, tensors = read_safetensors(inputs)
    with open(inputs, "rb") as f:
        length = struct.unpack("<Q", f.read(8))[0]
        made = json.loads(json.loads(f.read(length))["__metadata__"]["hallmark.calls"])
    differing = 0
    for number, entry in enumerate(json.loads(notes["hallmark.golden.calls"])):
        call = Call(made[number], tensors)
        base = entry["id"] + "/%s.logits"
        (ideal, _), (lo, _), (hi, _) = (load(golden, base % kind) for kind in ("ideal", "lo", "hi"))
        flags = golden.get(base % "flags", (None, None, bytes(len(ideal))))[2]
        rows = entry.get("rows", {}).get("logits", range(call.rows))
        if len(ideal) != len(rows) * call.width:
            stop("%s: %d elements, not %d rows of %d" % (entry["id"], len(ideal), len(rows), call.width))
        at = -1
        for r in rows:
            first, end = call.window(r)
            finite = call.finite(r)
            for c in range(call.width):
                at += 1
                n = call.column(r, c)
                found = ideal[at], lo[at], hi[at], flags[at]
                if not first <= n < end:
                    kind, want = "outside", -math.inf
                    good = found == (want, want, want, 0) if call.clean else flags[at] == UNSPECIFIED
                else:
                    k, scale = call.key(r, n)
                    if not finite or None in k or not math.isfinite(scale):
                        kind, want, good = "no number", "unspecified", flags[at] == UNSPECIFIED
                    else:
                        want, radius, inner = element(call, r, k, scale, at % 7 == 0)
                        kind = "range-free" if flags[at] & FREE else "scored"
                        good = ideal[at] == want and lo[at] <= want <= hi[at] and flags[at] & ~FREE == 0
                        if not flags[at]:
                            counts["inner"] += len(inner)
                            good = good and all(lo[at] <= v <= hi[at] for v in inner)
                            good = good and lo[at] >= fl(want - radius) - abs(want) * 2.0 ** -23 and hi[at] <= fl(want + radius) + abs(want) * 2.0 ** -23
                counts[kind] += 1
                if not good:
                    differing += 1
                    if differing <= most:
                        print("%s, logits[%d,%d]: golden %s; here %s" % (entry["case"], r, c, found, want))
    return differing


def main():
    options = ask_golden(ask(__doc__)).parse_args()
    differing, short = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for op in ("fp8_mqa_logits", "fp8_paged_mqa_logits"):
            path, inputs, counts = os.path.join(options.golden, op + ".safetensors"), os.path.join(folder, op), Counter()
            calls = json.loads(read_safetensors(path)[0]["hallmark.golden.calls"])
            make(options.hallmark, inputs, [call["case"] for call in calls])
            differing += compare(path, inputs, options.most, counts)
            missing = counts["scored"] < PROMISED or min(counts["inner"], counts["outside"]) < 1000 or counts["no number"] < 40
            print("%-22s %3d calls: %s%s" % (op, len(calls), listed(counts),
                                             ": fewer than promised" if missing else ""))
            short += missing
    return conclude(differing, short)


if __name__ == "__main__":
    end(main)
