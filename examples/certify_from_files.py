"""Certifies a function against a golden file alone: plain Python 3, no Hallmark, no packages. docs/golden.md explains the format.

    python3 examples/certify_from_files.py data/golden/rms_norm.safetensors
"""
import json, math, struct, sys

TYPES = {"F32": ("f", 4), "F16": ("e", 2), "BF16": ("H", 2), "U8": ("B", 1), "I32": ("i", 4), "I64": ("q", 8),
         "F8_E4M3": ("B", 1), "F8_E4M3FNUZ": ("B", 1), "F8_E5M2": ("B", 1), "F8_E8M0": ("B", 1)}
BIAS = {"F8_E4M3": 7, "F8_E4M3FNUZ": 8, "F8_E5M2": 15}


def value8(dtype, code):
    """The value of an 8-bit code."""
    if dtype == "F8_E8M0":
        return math.nan if code == 255 else 2.0 ** (code - 127)
    bits = 2 if dtype == "F8_E5M2" else 3
    low, exponent, sign = code & (1 << bits) - 1, (code & 127) >> bits, -1.0 if code & 128 else 1.0
    if dtype == "F8_E5M2" and exponent == 31:
        return math.nan if low else sign * math.inf
    if code == 128 if dtype == "F8_E4M3FNUZ" else dtype == "F8_E4M3" and code & 127 == 127:
        return math.nan
    return sign * math.ldexp(low + (1 << bits if exponent else 0), max(exponent, 1) - BIAS[dtype] - bits)


def read(dtype, raw):
    letter, size = TYPES[dtype]
    values = struct.unpack("<%d%s" % (len(raw) // size, letter), raw)
    if dtype == "BF16":  # the upper half of an f32
        values = struct.unpack("<%df" % len(values), struct.pack("<%dI" % len(values), *(v << 16 for v in values)))
    return [value8(dtype, v) for v in values] if dtype.startswith("F8") else values


def stored(dtype, v):
    """The bytes of v, rounded once from binary64, to nearest, ties to even."""
    top, digits = {"F32": (128, 24), "F16": (16, 11), "BF16": (128, 8)}[dtype]
    if v and math.isfinite(v):
        step = max(math.frexp(v)[1], 3 - top) - digits  # neighbours are 2^step apart
        v = math.copysign(math.ldexp(round(math.ldexp(v, -step)), step), v)
        v = v if abs(v) < 2.0 ** top else math.copysign(math.inf, v)
    return struct.pack("<f", v)[2:] if dtype == "BF16" else struct.pack("<" + TYPES[dtype][0], v)


def rms_norm(attrs, inputs):
    """The function under test: name -> (dtype, shape, values) in, name -> bytes out; None if it does not offer these modes."""
    if attrs["round"] != "once" or attrs["weight_form"] != "plain" or attrs["variance_size"]:
        return None
    (dtype, shape, x), out, eps = inputs["x"], b"", struct.unpack("f", struct.pack("f", attrs["eps"]))[0]
    weight = inputs["weight"][2] if "weight" in inputs else [1.0] * shape[-1]
    for start in range(0, len(x), shape[-1]):
        row = x[start:start + shape[-1]]
        mean = math.fsum(v * v for v in row) / len(row) + eps
        scale = 1 / math.sqrt(mean) if mean else math.inf
        out += b"".join(stored(dtype, v * scale * w) for v, w in zip(row, weight))
    return {"out": out}


def admitted(got, lo, hi, flag, parts, same_bits):
    if flag & 16:
        return True
    if flag & 8:
        return same_bits
    if flag & 2 and (got == 0 or not math.isfinite(got)):
        return True
    if flag & 1:
        return math.isnan(got)
    return any(a <= got <= b for a, b in parts) if flag & 4 else lo <= got <= hi


def certify(path, function):
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    meta, tensors, total, outside, skipped = header.pop("__metadata__"), {}, 0, 0, 0
    for name, t in header.items():
        call, _, field = name.partition("/")
        tensors.setdefault(call, {})[field] = (t["dtype"], t["shape"], data[slice(*t["data_offsets"])])
    for call in json.loads(meta["hallmark.calls"]):
        own = tensors[call["id"]]
        value = {field: read(dtype, raw) for field, (dtype, _, raw) in own.items()}
        results = function(call["attrs"], {f: own[f][:2] + (value[f],) for f in own if "." not in f})
        skipped += results is None
        for output, raw in (results or {}).items():
            dtype, _, ideal = own["ideal." + output]
            if len(raw) != len(ideal):
                raise SystemExit("call %s: %s has %d bytes, not %d" % (call["id"], output, len(raw), len(ideal)))
            got, lo, hi, size = read(dtype, raw), value["lo." + output], value["hi." + output], TYPES[dtype][1]
            flags, parts = value.get("flags." + output, [0] * len(got)), {}
            ends = value.get("parts." + output)
            for k, element in enumerate(value.get("parts_at." + output, ())):
                parts.setdefault(element, []).append(ends[2 * k:2 * k + 2])
            same = [raw[k:k + size] == ideal[k:k + size] for k in range(0, len(raw), size)]
            bad = [i for i in range(len(got)) if not admitted(got[i], lo[i], hi[i], flags[i], parts.get(i, ()), same[i])]
            total, outside = total + len(got), outside + len(bad)
            for i in bad[:1]:
                print("call %s: %d of %d outside; %s[%d] is %r, not in [%r, %r]"
                      % (call["id"], len(bad), len(got), output, i, got[i], lo[i], hi[i]))
    print("%d elements, %d outside; %d calls skipped: modes that are not offered" % (total, outside, skipped))
    return 3 if not total else 1 if outside else 0


if __name__ == "__main__":
    sys.exit(certify(sys.argv[1], rms_norm))
