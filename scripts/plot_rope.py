#!/usr/bin/env python3
"""Draws docs/rope_difference.svg and prints the table of docs/rope.md: by how much upstream's f32 rotary tables differ from exact ones.

Usage: scripts/plot_rope.py build/release/libhallmark.so [FOLDER]

For each scaling hm_rope_table makes the table in both precisions, for positions in quarter octaves from 1 to 2^20 (all of them, or 64 evenly
spread), and the largest difference of a cosine or sine over all columns is kept. Nothing but Python's standard library is needed."""
import ctypes
import math
import sys

SIZE = ctypes.c_size_t
F32, I64 = 1, 10
DEFAULT, LINEAR, NTK, YARN, DEEPSEEK, LLAMA3, LONGROPE = range(7)


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("dtype", ctypes.c_int), ("place", ctypes.c_int), ("ndim", ctypes.c_int), ("shape", ctypes.c_int64 * 4),
                ("stride", ctypes.c_int64 * 4)]


class Args(ctypes.Structure):
    _fields_ = [("size", SIZE), ("out", Tensor), ("positions", Tensor), ("factors", Tensor), ("precision", ctypes.c_int), ("scaling", ctypes.c_int),
                ("base", ctypes.c_double), ("factor", ctypes.c_double), ("original_max_position", ctypes.c_int64), ("max_position", ctypes.c_int64),
                ("beta_fast", ctypes.c_double), ("beta_slow", ctypes.c_double), ("extrapolation_factor", ctypes.c_double), ("mscale", ctypes.c_double),
                ("mscale_all_dim", ctypes.c_double), ("attention_factor", ctypes.c_double), ("low_freq_factor", ctypes.c_double),
                ("high_freq_factor", ctypes.c_double), ("fraction", ctypes.c_int), ("mrope_t", ctypes.c_int64), ("mrope_h", ctypes.c_int64),
                ("mrope_w", ctypes.c_int64), ("mrope_layout", ctypes.c_int), ("stream", ctypes.c_void_p)]


# name, as which model, rotary_dim, colour, arguments
CURVES = [
    ("default", "Llama 2: base 10000", 128, "#4477aa", dict(scaling=DEFAULT, base=10000)),
    ("linear", "Gemma 3: base 1e6, factor 8", 256, "#228833", dict(scaling=LINEAR, base=1e6, factor=8)),
    ("dynamic NTK", "base 10000, factor 4", 128, "#ccbb44", dict(scaling=NTK, base=10000, factor=4)),
    ("YaRN", "Qwen 3: base 1e6, factor 4, D 32768", 128, "#ee6677", dict(scaling=YARN, base=1e6, factor=4, original_max_position=32768)),
    ("DeepSeek YaRN", "DeepSeek-V3: base 10000, factor 40, D 4096", 64, "#aa3377",
     dict(scaling=DEEPSEEK, base=10000, factor=40, original_max_position=4096, mscale=1, mscale_all_dim=1)),
    ("Llama 3", "Llama 3.1: base 500000, factor 8, D 8192", 128, "#66ccee", dict(scaling=LLAMA3, base=500000, factor=8, original_max_position=8192)),
    ("LongRoPE", "Phi-3's shape: base 10000, divisors 1 to 64", 96, "#000000",
     dict(scaling=LONGROPE, base=10000, original_max_position=4096, max_position=131072)),
]


def tensor(data, dtype, *shape):
    t = Tensor(data=ctypes.cast(data, ctypes.c_void_p), dtype=dtype, ndim=len(shape))
    step = 1
    for d in reversed(range(len(shape))):
        t.shape[d], t.stride[d] = shape[d], step
        step *= shape[d]
    return t


def table(library, positions, width, precision, arguments):
    out = (ctypes.c_float * (len(positions) * width))()
    at = (ctypes.c_int64 * len(positions))(*positions)
    a = Args(size=ctypes.sizeof(Args), out=tensor(out, F32, len(positions), width), positions=tensor(at, I64, len(positions)), precision=precision,
             beta_fast=32, beta_slow=1, extrapolation_factor=1, low_freq_factor=1, high_freq_factor=4, **arguments)
    if arguments["scaling"] == LONGROPE:
        half = width // 2
        factors = (ctypes.c_float * half)(*(64 ** (j / (half - 1)) for j in range(half)))
        a.factors = tensor(factors, F32, half)
    if library.hm_rope_table(ctypes.byref(a)):
        sys.exit(library.hm_error().decode())
    return out


def bins():
    """(lowest position, positions) of each quarter octave."""
    edges = sorted({int(2 ** (k / 4)) for k in range(81)})
    for low, high in zip(edges, edges[1:]):
        n = min(64, high - low)
        yield low, [low + (high - low) * i // n for i in range(n)]
    yield 1048575, [1048575]


def differences(library, width, arguments):
    points = []
    for low, positions in bins():
        f32, exact = (table(library, positions, width, p, arguments) for p in (0, 1))
        points.append((low, max(abs(x - y) for x, y in zip(f32, exact))))
    return points


# ---- the picture -----------------------------------------------------------------------------------------------------------------

LEFT, TOP, WIDTH, HEIGHT, LOW, HIGH = 80, 56, 620, 400, -8, 0


def x_of(position):
    return LEFT + WIDTH * math.log2(position) / 20


def y_of(value):
    return TOP + HEIGHT * (HIGH - math.log10(max(value, 10 ** LOW))) / (HIGH - LOW)


def svg(curves):
    yield '<svg xmlns="http://www.w3.org/2000/svg" width="1010" height="540" viewBox="0 0 1010 540" font-family="sans-serif" font-size="13">'
    yield '<rect width="1010" height="540" fill="#ffffff"/>'
    yield '<text x="%d" y="28" font-size="16">f32 rotary tables: largest difference of a cosine or sine from the exact table</text>' % LEFT
    for k in range(0, 21, 2):
        yield '<line x1="{0:.1f}" y1="{1}" x2="{0:.1f}" y2="{2}" stroke="#dddddd"/>'.format(x_of(2 ** k), TOP, TOP + HEIGHT)
        label = str(2 ** k) if k < 10 else "%dk" % 2 ** (k - 10) if k < 20 else "1M"
        yield '<text x="%.1f" y="%d" text-anchor="middle">%s</text>' % (x_of(2 ** k), TOP + HEIGHT + 20, label)
    for e in range(LOW, HIGH + 1):
        yield '<line x1="{1}" y1="{0:.1f}" x2="{2}" y2="{0:.1f}" stroke="#dddddd"/>'.format(y_of(10 ** e), LEFT, LEFT + WIDTH)
        yield '<text x="%d" y="%.1f" text-anchor="end">%s</text>' % (LEFT - 8, y_of(10 ** e) + 4, "1e%d" % e if e else "1")
    for value, label in ((2 ** -25, "half an ulp of f32 below 1"), (2 ** -9, "half an ulp of bf16 below 1")):
        yield '<line x1="{1}" y1="{0:.1f}" x2="{2}" y2="{0:.1f}" stroke="#777777" stroke-dasharray="5 4"/>'.format(y_of(value), LEFT, LEFT + WIDTH)
        yield '<text x="%d" y="%.1f" fill="#555555" text-anchor="end">%s</text>' % (LEFT + WIDTH - 8 if value < 0.001 else LEFT + 190, y_of(value) + (16 if value < 0.001 else -6), label)
    yield '<text x="%d" y="%d" text-anchor="middle">position</text>' % (LEFT + WIDTH / 2, TOP + HEIGHT + 46)
    for n, ((name, about, width, colour, _), points) in enumerate(curves):
        path = " ".join("%.1f,%.1f" % (x_of(p), y_of(v)) for p, v in points)
        yield '<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>' % (path, colour)
        y = TOP + 20 + 48 * n
        yield '<line x1="{0}" y1="{1}" x2="{2}" y2="{1}" stroke="{3}" stroke-width="3"/>'.format(LEFT + WIDTH + 16, y - 4, LEFT + WIDTH + 40, colour)
        yield '<text x="%d" y="%d">%s, rotary_dim %d</text>' % (LEFT + WIDTH + 48, y, name, width)
        yield '<text x="%d" y="%d" fill="#555555" font-size="11">%s</text>' % (LEFT + WIDTH + 48, y + 16, about)
    yield "</svg>"


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    library = ctypes.CDLL(sys.argv[1])
    library.hm_error.restype = ctypes.c_char_p
    curves = [(c, differences(library, c[2], c[4])) for c in CURVES]
    with open("%s/rope_difference.svg" % (sys.argv[2] if len(sys.argv) > 2 else "docs"), "w") as f:
        f.write("\n".join(svg(curves)) + "\n")
    marks = [256, 4096, 32768, 131072, 1048575]
    print("| scaling | " + " | ".join("to %s" % ("2^20 - 1" if m == 1048575 else m) for m in marks) + " |")
    print("| --- |" + " --- |" * len(marks))
    for (name, about, width, _, _), points in curves:
        print("| %s (%s) | %s |" % (name, about, " | ".join("%.1e" % max(v for p, v in points if p <= m) for m in marks)))


if __name__ == "__main__":
    main()
