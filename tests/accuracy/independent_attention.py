#!/usr/bin/python3
"""Recomputes what golden says of sparse_mla_decode and mla_prefill, in different software, from the contracts' text alone.

usage: independent_attention.py HALLMARK [--golden DIR] [--every N] [--most N]

The cases are those of the golden files; `hallmark golden --inputs` fills them and says of all their rows what the files say of some:
those have to be the same. Scores are exact integers, weights are exponentials to 400 bits (mpmath), sums are integers again. Of every
token and N-th head, and of every element of it
  unspecified   where its query, one of its keys or its sink is no finite number, and nowhere else;
  no key        0, and for lse infinity;
  ideal         the formula with nothing rounded but the result: has to match, and to lie in [lo, hi];
  inner         what f32 gives by three algorithms: two passes; a running maximum over blocks of 16 keys, which begins with the sink;
                partial results over halves of the keys, merged by their lse. Exponentials off by up to 2^-22, weights in bf16 where
                the mode says so. Has to lie in [lo, hi] (some heads, some elements). So have, everywhere, the results of exponentials
                that are all off by 2^-22, and of weights in bf16 that are all off by 2^-8, to the side that moves the result most;
  outer         what the most generous reading of the class admits, a sum of magnitudes throughout: [lo, hi] has to lie in it.
Exit 0: all agree; 1: something does not; 2: less was compared than promised, or the tool failed.
"""
import json
import math
import os
import struct
import tempfile
from collections import Counter
from operator import mul

import mpmath

from independent import BF16, DTYPE, F32, ask, ask_golden, conclude, end, from_mpf, listed, make, read_safetensors, round_to, stop

BITS = 400
mpmath.mp.prec = BITS + 64
FREE, UNSPECIFIED = 2, 16
PROMISED = {"value": 20000, "lse": 500, "inner": 4000, "no key": 500, "unspecified": 300}
U, F = 2.0 ** -24, 2.0 ** -22


def fl(v):
    """RN_f32 of a double; sums and products of two f32 come out as if the double had not been there."""
    return struct.unpack("<f", struct.pack("<f", v))[0] if abs(v) < 3.4e38 else math.inf * v


def near(dtype, v):
    """RN_dtype of a float or an mpf."""
    if not mpmath.isfinite(v):
        return float(v)
    r = round_to(dtype, from_mpf(abs(v)))[0]
    return -r if v < 0 else r


# ---- 8-bit entries -------------------------------------------------------------------------------------------------------------


def of_code(code):
    e, m = code >> 3 & 15, code & 7
    v = math.ldexp(8 + m, e - 10) if e else math.ldexp(m, -9)
    return math.nan if code & 127 == 127 else -v if code & 128 else v


CODES = [of_code(code) for code in range(256)]


def seen(mode, scale):
    """The scale that a reader sees; those of the cases are positive."""
    if not math.isfinite(scale) or scale <= 0:
        stop("a scale of %r: what readers see of it is not written here" % scale)
    if mode == "sm90":
        return near(BF16, scale)
    return 2.0 ** (math.frexp(scale)[1] - 1) if mode == "sm100" else scale


def entry(data, mode):
    scales = [seen(mode, s) for s in struct.unpack_from("<4f", data, 512)]
    return [near(BF16, CODES[c] * scales[i // 128]) for i, c in enumerate(data[:512])] + list(BF16.decode(data[528:656]))


# ---- calls ---------------------------------------------------------------------------------------------------------------------


class Call:
    """Queries, sinks, and for each token the numbers of its keys."""

    def __init__(self, call, tensors):
        base, self.attrs = call["id"] + "/", call["attrs"]

        def numbers(name):
            dtype, shape, data = tensors.get(base + name, (None, None, None))
            if dtype == "I32":
                return struct.unpack("<%di" % (len(data) // 4), data), shape
            return (DTYPE[dtype].decode(data) if dtype else None), shape

        q, (self.tokens, self.heads, self.width) = numbers("q")
        self.T = DTYPE[tensors[base + "q"][0]]
        self.q = [q[i * self.width:(i + 1) * self.width] for i in range(self.tokens * self.heads)]
        self.values = tensors[base + "ideal.out"][1][-1]
        self.sink = numbers("attn_sink")[0]
        scale = self.attrs["scale"]
        self.scale = near(F32, 1 / mpmath.sqrt(self.width) if scale == 0 else scale)
        self.bf16 = self.attrs["p"] == "bf16"
        self.stored, self.lists = {}, []
        if call["op"] == "sparse_mla_decode":
            indices, (_, top_k) = numbers("indices")
            lengths = numbers("topk_length")[0] or [top_k] * self.tokens
            for t in range(self.tokens):
                of_token = indices[t * top_k:t * top_k + max(0, lengths[t])]
                self.lists.append([i for i in of_token if i >= 0])
            dtype, (_, _, size), data = tensors[base + "kv_cache"]
            if dtype == "U8":
                self.read = lambda k: entry(data[k * size:(k + 1) * size], self.attrs["dequant"])
            else:
                self.read = lambda k: self.T.decode(data[2 * k * size:2 * (k + 1) * size])
        else:
            _, (keys, size), data = tensors[base + "kv"]
            starts, ends = numbers("key_start")[0], numbers("key_end")[0]
            for t in range(self.tokens):
                start = max(0, starts[t]) if starts else 0
                end = min(keys, ends[t] if ends else keys - self.tokens + t + 1)
                self.lists.append(list(range(start, end)))
            self.read = lambda k: self.T.decode(data[2 * k * size:2 * (k + 1) * size])

    def key(self, k):
        if k not in self.stored:
            v = self.read(k)
            self.stored[k] = v, all(map(math.isfinite, v))
        return self.stored[k]


def integers(values):
    """Integers and an exponent: the values are those times 2^exponent."""
    ratios = [v.as_integer_ratio() for v in values]
    most = max((d.bit_length() - 1 for _, d in ratios), default=0)
    return [n << (most - d.bit_length() + 1) for n, d in ratios], -most


class Head:
    """One head of one token, exactly."""

    def __init__(self, call, t, h):
        self.call, self.numbers = call, call.lists[t]
        self.q = call.q[t * call.heads + h]
        self.sink = call.sink[h] if call.sink else -math.inf
        self.n = len(self.numbers)
        self.keys = [call.key(k)[0] for k in self.numbers]
        finite = all(map(math.isfinite, self.q)) and all(call.key(k)[1] for k in self.numbers)
        self.special = not finite or math.isnan(self.sink) or self.sink == math.inf

    def solve(self):
        c = self.call
        q, e = integers(self.q)
        factor, f = integers([c.scale])
        self.scores, self.magnitude = [], []
        for k in self.keys:
            v, g = integers(k)
            products = list(map(mul, q, v))
            self.scores.append(mpmath.ldexp(sum(products) * factor[0], e + f + g))
            self.magnitude.append(math.ldexp(float(mpmath.mpf(sum(map(abs, products)))), e + g))
        self.m = max(self.scores)
        known = {}
        self.p = []
        for s in self.scores:
            if s not in known:
                known[s] = mpmath.exp(s - self.m)
            self.p.append(known[s])
        self.l = mpmath.fsum(self.p)
        self.sigma = mpmath.exp(mpmath.mpf(self.sink) - self.m) if math.isfinite(self.sink) else mpmath.mpf(0)
        self.D = self.l + self.sigma
        self.lse = self.m + mpmath.log(self.l)
        self.fixed = [int(mpmath.nint(mpmath.ldexp(p, BITS))) for p in self.p]

    def value(self, d):
        """out[d] and the sum of its terms' magnitudes."""
        v, e = integers([k[d] for k in self.keys])
        terms = list(map(mul, self.fixed, v))
        total, size = sum(terms), sum(map(abs, terms))
        if size and abs(total) < size >> 100:  # it all cancels, or the bits are at an end
            total = mpmath.fdot(self.p, v)
            if abs(total) * mpmath.ldexp(1, 200) < size / mpmath.ldexp(1, BITS):
                total = 0
            return mpmath.ldexp(total, e) / self.D, mpmath.ldexp(size, e - BITS) / self.D
        return mpmath.ldexp(total, e - BITS) / self.D, mpmath.ldexp(size, e - BITS) / self.D

    def more_exactly(self, T, d):
        """RN_T of a value or, without d, of lse, which lies next to a boundary: what is nearer than 2^-1800 is that boundary, as golden
        says in its source."""
        with mpmath.workprec(1848):
            p = [mpmath.exp(s - self.m) for s in self.scores]
            l = mpmath.fsum(p)
            if d is None:
                return near(T, self.m + mpmath.log(l))
            sigma = mpmath.exp(mpmath.mpf(self.sink) - self.m) if math.isfinite(self.sink) else 0
            return near(T, mpmath.fdot(p, [k[d] for k in self.keys]) / (l + sigma))

    # what the contract grants each exponential (and logarithm) alone

    def granted(self, d, y, size):
        if d is None:
            return 1.8 * F
        r = 0.9 * F * sum(p * abs(k[d] - y) for p, k in zip(self.p64, self.keys)) / float(self.D)
        return r + 0.99 * 2.0 ** -8 * float(size) if self.call.bf16 else r

    # what the most generous reading admits

    def bounds(self):
        c, n = self.call, self.n
        m, lse, blocks = abs(float(self.m)), abs(float(self.lse)), n / 16 + 1
        chain = max(c.width, 576) + 64
        self.eps, worst = [], max(self.magnitude, default=0) * abs(c.scale)
        for s, magnitude in zip(self.scores, self.magnitude):
            s, away = abs(float(s)), float(self.m - s)
            d = 2 * U * (chain * (magnitude * abs(c.scale) + worst / 16) + 8 * (s + m + lse) + 4 * away) + F * (8 + math.log(n + 1)) * 2
            self.eps.append(math.expm1(min(700.0, d + (blocks + 12) * (F + U))))
        self.p64 = [float(p) for p in self.p]
        l = float(self.l)
        self.E_l = sum(map(mul, self.p64, self.eps)) + U * 2 * (n + 520) * l + n * 2.0 ** -126
        self.chain = U * 4 * (n + 520)
        self.lse_radius = 2 * self.E_l / l + 64 * U * (m + lse + abs(math.log(l))) + 8 * F if self.E_l < l / 4 else math.inf

    def radius(self, d, y, size):
        D, lost = float(self.D), 2.0 ** -126
        if math.isfinite(self.sink):
            extra = 64 * U * (abs(self.sink) + abs(float(self.m)) + abs(float(self.lse))) + 2 * self.lse_radius + 32 * F
        else:
            extra = 0
        relative = max(self.eps) + self.chain + (2.0 ** -8 * (1 + max(self.eps)) if self.call.bf16 else 0)
        r = relative * float(size) + abs(y) * (2 * self.E_l / D + extra + 16 * F)
        most = max(1, max(abs(k[d]) for k in self.keys))
        return 1.25 * r + 4 * self.n * lost * most * (1 + 2 / min(1, D) + (1 if self.sigma > 1 else 0))


# ---- f32 algorithms ------------------------------------------------------------------------------------------------------------


def exp32(x, seed):
    """f32's exp with an error of its own of up to 2^-22 or nearly; e^x below 2^-126 is flushed."""
    v = math.exp(x) if x > -150 else 0.0
    v = fl(v * (1 + F * 0.9 * ((seed * 2654435761 >> 7) % 5 - 2) / 2))
    return v if v >= 2.0 ** -126 else 0.0


class Kernel:
    """One head in f32. weights(way): the weight of each key, the divisor and lse; value: one element."""

    def __init__(self, head):
        self.h, self.s = head, []
        scale = head.call.scale
        for k in head.keys:
            total = 0.0
            for a, b in zip(head.q, k):
                total = fl(total + fl(a * b))
            self.s.append(fl(total * scale))

    def p(self, j, m):
        w = exp32(fl(self.s[j] - m), j)
        return w, near(BF16, w) if self.h.call.bf16 else w

    def part(self, keys, dims, block, first):
        """(maximum, l, sums): over blocks of keys, with rescaling."""
        m, l, sums = first, 0.0, [0.0] * len(dims)
        for at in range(0, len(keys), block):
            now = keys[at:at + block]
            new = max([m] + [self.s[j] for j in now])
            if m > -math.inf and new > m:
                factor = exp32(fl(m - new), at)
                l, sums = fl(l * factor), [fl(v * factor) for v in sums]
            m = new
            for j in now:
                exact, w = self.p(j, m)
                l = fl(l + exact)
                for i, d in enumerate(dims):
                    sums[i] = fl(sums[i] + fl(w * self.h.keys[j][d]))
        return m, l, sums

    def finish(self, m, l, sums):
        lse = fl(m + fl(math.log(l))) if l > 0 else -math.inf
        D = fl(l + exp32(fl(self.h.sink - m), 3)) if math.isfinite(self.h.sink) else l
        return [fl(v / D) for v in sums], lse

    def two_passes(self, dims):
        return self.finish(*self.part(range(self.h.n), dims, max(1, self.h.n), -math.inf))

    def running(self, dims):
        sink = self.h.sink
        begin = fl(sink) if sink > -math.inf and sink < max(self.s) + 20 else -math.inf  # a larger one costs lse its bits
        return self.finish(*self.part(range(self.h.n), dims, 16, begin))

    def split(self, dims):
        n = self.h.n
        halves = [self.part(range(a, b), dims, 64, -math.inf) for a, b in ((0, n // 2), (n // 2, n)) if b > a]
        lses = [fl(m + fl(math.log(l))) for m, l, _ in halves]
        top = max(lses)
        weights = [exp32(fl(v - top), i) for i, v in enumerate(lses)]
        total = 0.0
        for w in weights:
            total = fl(total + w)
        lse = fl(top + fl(math.log(total)))
        out = [0.0] * len(dims)
        for w, (_, l, sums) in zip(weights, halves):
            for i in range(len(dims)):
                out[i] = fl(out[i] + fl(fl(w / total) * fl(sums[i] / l)))
        if math.isfinite(self.h.sink):  # as factor behind the division
            x = fl(self.h.sink - lse)
            factor = fl(1 / fl(1 + exp32(x, 1))) if x < 80 else 0.0
            out = [fl(v * factor) for v in out]
        return out, lse


# ---- comparing -----------------------------------------------------------------------------------------------------------------


class Golden:
    """ideal, lo, hi and flags of an output, by row."""

    def __init__(self, tensors, base, name):
        self.dtype, shape, _ = tensors[base + "ideal." + name]
        self.width = shape[-1]
        self.data = [tensors[base + kind + name][2] for kind in ("ideal.", "lo.", "hi.")]
        self.flags = tensors.get(base + "flags." + name, (0, 0, bytes(math.prod(shape))))[2]
        self.rows = math.prod(shape[:-1])

    def row(self, r):
        T = DTYPE[self.dtype]
        a, b = r * self.width, (r + 1) * self.width
        return [T.decode(d[a * T.size:b * T.size]) for d in self.data] + [self.flags[a:b]]


def same_rows(entry, small, whole, name):
    rows = entry.get("rows", {}).get(name, range(whole.rows))
    return len(rows) == small.rows and all(repr(small.row(i)) == repr(whole.row(r)) for i, r in enumerate(rows))


class Comparison:
    def __init__(self, case, most):
        self.case, self.most, self.differing, self.counts = case, most, 0, Counter()

    def wrong(self, what, found, want):
        self.differing += 1
        if self.differing <= self.most:
            print("%s, %s: golden %s; here %s" % (self.case, what, found, want))

    def element(self, what, head, d, T, found, y, size, radius, inner):
        ideal, lo, hi, flag = found
        granted = mpmath.mpf(head.granted(d, float(y), size))
        want, away = near(T, y), abs(y) / 2 ** 300
        if near(T, y - away) != near(T, y + away):
            self.counts["at a boundary"] += 1
            want = head.more_exactly(T, d)
        if flag & FREE:
            self.counts["range-free"] += 1
            return
        good = ideal == want and lo <= near(T, y - granted) <= want <= near(T, y + granted) <= hi and flag == 0
        if math.isfinite(radius):
            least, largest = (near(T, y + mpmath.mpf(r)) for r in (-radius, radius))
            good = good and lo >= T.step(least, False) and hi <= T.step(largest, True)
        for v in inner:
            self.counts["inner"] += 1
            if math.isfinite(v) and not lo <= near(T, v) <= hi:
                self.wrong(what + ", f32", found, v)
        if not good:
            self.wrong(what, found, (want, radius))

    def head(self, call, t, h, out, lse, thorough):
        head = Head(call, t, h)
        where = "token %d, head %d" % (t, h)
        found = list(zip(*out.row(t * call.heads + h)))
        of_lse = [v[h] for v in lse.row(t)] if lse else None
        if head.n == 0 and not head.special:
            self.counts["no key"] += len(found)
            if any(f != (0, 0, 0, 0) for f in found) or lse and of_lse != [math.inf] * 3 + [0]:
                self.wrong(where + ", no key", (found[:2], of_lse), "0, inf")
            return
        if head.special:
            if head.n == 0:  # NaN in a query or sink that meets no key: either reading
                return
            self.counts["unspecified"] += len(found)
            if any(f[3] != UNSPECIFIED for f in found) or lse and of_lse[3] != UNSPECIFIED:
                self.wrong(where, (found[:2], of_lse), "unspecified")
            return
        head.solve()
        head.bounds()
        results, dims = [], range(0, call.values, max(1, call.values // 6))
        if thorough and max(head.magnitude) < 1e30:
            kernel = Kernel(head)
            results = [way(dims) for way in (kernel.two_passes, kernel.running, kernel.split)]
        for d in range(call.values):
            y, size = head.value(d)
            self.counts["value"] += 1
            inner = [r[0][dims.index(d)] for r in results] if d in dims else []
            self.element("%s, out %d" % (where, d), head, d, call.T, found[d], y, size, head.radius(d, float(y), size), inner)
        if lse:
            self.counts["lse"] += 1
            self.element(where + ", lse", head, None, F32, of_lse, head.lse, None, head.lse_radius, [r[1] for r in results])


def compare(hallmark, path, folder, options, counts):
    notes, golden = read_safetensors(path)
    entries = json.loads(notes["hallmark.golden.calls"])
    inputs = os.path.join(folder, "inputs")
    make(hallmark, inputs, [e["case"] for e in entries])
    made_notes, tensors = read_safetensors(inputs)
    differing = turn = 0
    for e, call in zip(entries, json.loads(made_notes["hallmark.calls"])):
        comparison = Comparison(e["case"], options.most - differing)
        whole = {}
        for name in ("out", "lse"):
            if call["id"] + "/ideal." + name in tensors and math.prod(tensors[call["id"] + "/ideal." + name][1]):
                whole[name] = Golden(tensors, call["id"] + "/", name)
                if e["id"] + "/ideal." + name in golden and not same_rows(e, Golden(golden, e["id"] + "/", name), whole[name], name):
                    comparison.wrong(name, "of the file", "not the golden of the inputs")
        if "out" in whole:
            c = Call(call, tensors)
            for t in range(c.tokens):
                for h in range(c.heads):
                    turn += 1
                    if turn % options.every == 0:
                        comparison.head(c, t, h, whole["out"], whole.get("lse"), turn // options.every % (9 if c.width > 100 else 4) == 0)
        differing += comparison.differing
        counts.update(comparison.counts)
    return differing, len(entries)


def main():
    parser = ask_golden(ask(__doc__))
    parser.add_argument("--every", type=int, default=3, help="which heads are compared")
    options = parser.parse_args()
    differing, total = 0, Counter()
    with tempfile.TemporaryDirectory() as folder:
        for op in ("sparse_mla_decode", "mla_prefill"):
            counts = Counter()
            wrong, calls = compare(options.hallmark, os.path.join(options.golden, op + ".safetensors"), folder, options, counts)
            print("%-18s %3d calls: %s" % (op, calls, listed(counts)))
            differing += wrong
            total.update(counts)
    short = [kind for kind, n in PROMISED.items() if total[kind] < n]
    if short:
        print("fewer than promised: " + ", ".join(short))
    return conclude(differing, short)


if __name__ == "__main__":
    end(main)
