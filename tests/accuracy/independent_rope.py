#!/usr/bin/python3
"""Golden of rope_table against an independent computation (mpmath), written from the text of include/hallmark/rope_table.h alone.

For every scaling, precision and dtype, on inputs that Hallmark's generator draws: the ideal value and both ends of the admissible interval of
every element (of a golden file: for mode f32 the hull over all inv_freq that the contract allows). Exit 0: all agree; 1: some differ; 2:
no comparison."""
import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

import mpmath as mp

mp.mp.prec = 420
U = mp.mpf(2) ** -24
FORMATS = {"F32": (24, -126, "<%df", 4), "F16": (11, -14, "<%de", 2), "BF16": (8, -126, None, 2)}


# ---- numbers ---------------------------------------------------------------------------------------------------------------------

def exponent(v):
    m, e = mp.frexp(abs(v))
    return int(e) - 1


def ulp(v, p, emin):
    return mp.mpf(2) ** (max(exponent(v), emin) - p + 1) if v else mp.mpf(2) ** (emin - p + 1)


def rounded(v, name, to=mp.nint):
    """v to a value of the format; nearest, or with to = floor or ceil down or up. mp.nint rounds ties to even."""
    p, emin = FORMATS[name][:2]
    v = mp.mpf(v)
    if not v:
        return v
    unit = ulp(v, p, emin)
    return to(v / unit) * unit


def f32(v):
    return rounded(v, "F32")


def decode(name, data):
    if name == "BF16":
        words = struct.unpack("<%dH" % (len(data) // 2), data)
        return [struct.unpack("<f", struct.pack("<I", w << 16))[0] for w in words]
    return list(struct.unpack(FORMATS[name][2] % (len(data) // FORMATS[name][3]), data))


# ---- the contract ----------------------------------------------------------------------------------------------------------------

def g(a, weight):
    s = mp.mpf(a["factor"])
    return mp.mpf(1) if s <= 1 else mp.mpf(weight) * mp.log(s) / 10 + 1


def mscale(a):
    given, D, M = mp.mpf(a["attention_factor"]), mp.mpf(a["original_max_position"]), mp.mpf(a["max_position"])
    if a["scaling"] == "yarn":
        if given:
            return given
        return g(a, a["mscale"]) / g(a, a["mscale_all_dim"]) if a["mscale"] and a["mscale_all_dim"] else g(a, 1)
    if a["scaling"] == "deepseek_yarn":
        return g(a, a["mscale"]) / g(a, a["mscale_all_dim"]) * (given or 1)
    if a["scaling"] == "longrope":
        return given or (mp.sqrt(1 + mp.log(M / D) / mp.log(D)) if M > D else mp.mpf(1))
    return mp.mpf(1)


def frequencies(a, d, factors):
    """(inv_freq, how far the f32 value may be from it, in all) for each column."""
    s, base, D = mp.mpf(a["factor"]), mp.mpf(a["base"]), mp.mpf(a["original_max_position"])
    scaling, rows = a["scaling"], []
    if scaling == "dynamic_ntk":
        base = base * (s * s - s + 1) ** (mp.mpf(d) / (d - 2))
    low = high = None
    if "yarn" in scaling:
        low, high = (mp.mpf(d) * mp.log(D / (2 * mp.pi * mp.mpf(a[b]))) / (2 * mp.log(base)) for b in ("beta_fast", "beta_slow"))
        if a["fraction"] == "drop":
            low, high = mp.floor(low), mp.ceil(high)
        low, high = max(low, mp.mpf(0)), min(high, mp.mpf(d - 1))
        if low == high:
            high += mp.mpf(1) / 1000
    for j in range(d // 2):
        e = mp.mpf(2 * j) / d
        f = base ** -e
        relative = (U * e * mp.log(base) if f32(e) != e else 0) + (U * e if f32(base) != base else 0)
        more = bend = mp.mpf(0)
        inv = f
        if low is not None:
            ramp = min(max((j - low) / (high - low), mp.mpf(0)), mp.mpf(1))
            m = (1 - ramp) * mp.mpf(a["extrapolation_factor"])
            inv = f / s * (1 - m) + f * m
            if 0 < ramp < 1 or a["extrapolation_factor"] != 1:
                more = 4 * U * inv
                bend = U * (4 + (abs(low / (high - low)) if a["fraction"] == "keep" else 0))
        elif scaling == "llama3":
            lo, hi, wavelength = mp.mpf(a["low_freq_factor"]), mp.mpf(a["high_freq_factor"]), 2 * mp.pi / f
            if wavelength > D / lo:
                inv = f / s
            elif not wavelength < D / hi:
                k = (D * f / (2 * mp.pi) - lo) / (hi - lo) if lo != hi else mp.mpf(0)
                inv = (1 - k) * f / s + k * f
                if lo != hi:
                    more, bend = 4 * U * inv, hi * (relative + 7 * U) / (hi - lo) + 2 * U
        elif scaling == "longrope":
            inv = f / mp.mpf(factors[j])
        rows.append((inv, 4 * ulp(inv, 24, -126) + relative * inv + more + (f - f / s) * bend if bend else
                     4 * ulp(inv, 24, -126) + relative * inv + more))
    return rows


def axis(a, j, three):
    t, h, w = (int(a["mrope_" + n]) for n in "thw")
    if not three or not t + h + w:
        return 0
    if a["mrope_layout"] == "chunked":
        return 0 if j < t else 1 if j < t + h else 2
    return 1 if j % 3 == 1 and j < 3 * h else 2 if j % 3 == 2 and j < 3 * w else 0


def candidates(inv, radius):
    c = rounded(inv - radius, "F32", mp.ceil)
    while c <= inv + radius:
        yield c
        c += ulp(c, 24, -126)


def expected(a, name, d, position, inv, radius, sine):
    """ideal, lo, hi of one element."""
    function, scale, linear = mp.sin if sine else mp.cos, mscale(a), a["scaling"] == "linear"
    if a["precision"] == "exact":
        v = rounded(scale * function(mp.mpf(position) / (mp.mpf(a["factor"]) if linear else 1) * inv), name)
        return v, v, v
    at = f32(f32(position) / f32(a["factor"])) if linear else f32(position)
    scale, ends, ideal = f32(scale), [], None
    for c in candidates(inv, radius):
        C = function(f32(at * c))
        u2 = 2 * ulp(C, 24, -126)
        for v in (rounded(C - u2, "F32", mp.ceil), rounded(C + u2, "F32", mp.floor)):
            ends += [rounded(v * scale, name), rounded(f32(v * scale), name)]
        if c == f32(inv):
            ideal = rounded(scale * C, name)
    return ideal, min(ends), max(ends)


# ---- golden ----------------------------------------------------------------------------------------------------------------------

SCALINGS = ["scaling=default base=500000", "scaling=linear factor=8 base=1e6", "scaling=linear factor=3", "scaling=dynamic_ntk factor=4",
            "scaling=yarn base=1e6 factor=4 original_max_position=32768", "scaling=yarn base=150000 factor=32 fraction=keep",
            "scaling=yarn factor=16 attention_factor=1.4159 extrapolation_factor=0.5", "scaling=deepseek_yarn factor=40 mscale=1 mscale_all_dim=0.707",
            "scaling=llama3 base=500000 factor=8 original_max_position=8192", "scaling=longrope max_position=131072 factors=f32[{half}] gen=ties",
            "base=1e6 mrope_t={t} mrope_h={h} mrope_w={h} mrope_layout=interleaved", "base=1e6 mrope_t={t} mrope_h={h} mrope_w={h} mrope_layout=chunked"]


def cases():
    for n, scaling in enumerate(SCALINGS):
        for precision in ("f32", "exact"):
            for dtype, d in (("f32", 96), ("bf16", 64), ("f16", 64)):
                half = d // 2
                text = scaling.format(half=half, t=half - 2 * (half // 3), h=half // 3)
                shape = "3,12" if "mrope" in text else "12"
                yield "rope_table positions=i64[%s] out=%s[12,%d] precision=%s %s seed=%d" % (shape, dtype, d, precision, text, 11 + n)


def read(path):
    with open(path, "rb") as f:
        data = f.read()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    notes = header.pop("__metadata__", {})
    return notes, {k: (t["dtype"], t["shape"], data[8 + length + t["data_offsets"][0]:8 + length + t["data_offsets"][1]]) for k, t in header.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("hallmark")
    parser.add_argument("--elements", type=int, default=340, help="of each case, drawn at random (default 340)")
    options = parser.parse_args()
    lines, rng = list(cases()), random.Random(20250102)
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "golden.safetensors")
        command = [options.hallmark, "golden", "--inputs", "-o", out] + [w for line in lines for w in ("--case", line)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            print("independent_rope.py: hallmark golden: exit %d: %s" % (done.returncode, done.stderr[-1000:]), file=sys.stderr)
            return 2
        notes, tensors = read(out)
    calls = json.loads(notes["hallmark.calls"])
    if len(calls) != len(lines):
        print("independent_rope.py: %d calls for %d cases" % (len(calls), len(lines)), file=sys.stderr)
        return 2
    differing, counts = 0, {}
    for call in calls:
        a, name = call["attrs"], call["id"] + "/"
        dtype, (rows, d), _ = tensors[name + "ideal.out"]
        positions = tensors[name + "positions"]
        p = struct.unpack("<%dq" % (len(positions[2]) // 8), positions[2])
        three = len(positions[1]) == 2
        factors = decode("F32", tensors[name + "factors"][2]) if name + "factors" in tensors else None
        golden = [decode(dtype, tensors[name + kind + ".out"][2]) for kind in ("ideal", "lo", "hi")]
        columns = frequencies(a, d, factors)
        for i in sorted(rng.sample(range(rows * d), min(options.elements, rows * d))):
            row, j, sine = i // d, i % d % (d // 2), i % d >= d // 2
            position = p[axis(a, j, three) * rows + row]
            want = expected(a, dtype, d, position, *columns[j], sine)
            key = a["scaling"], a["precision"]
            counts[key] = counts.get(key, 0) + 1
            if any(mp.mpf(have[i]) != w for have, w in zip(golden, want)):
                differing += 1
                if differing <= 10:
                    print("%s %s position %d column %d: golden %s, here %s" % (call["id"], a, position, i % d, [have[i].hex() for have in golden],
                                                                              [float(w).hex() for w in want]))
    for (scaling, precision), n in sorted(counts.items()):
        print("%-14s %-6s %6d elements" % (scaling, precision, n))
    print("%d elements differ" % differing if differing else "all agree")
    return 1 if differing else 0 if min(counts.values()) >= 1000 else 2


if __name__ == "__main__":
    sys.exit(main())
