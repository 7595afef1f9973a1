#!/usr/bin/python3
"""A recorded step of a whole indexer goes wrong, in each of its seven calls in turn; `hallmark replay` has to name that call.

usage: chain.py HALLMARK [--trace FILE]

The trace is data/traces/indexer_chain.safetensors: seven calls, and the same step as one call of the composite. For each call, once with
a bug that was really shipped and once in a single element, the recorded output is changed, and every later call is given what the wrong
value makes of it, computed from the contracts' text (independent_indexer.py): they all conform to what they were given. So the verdict has
to be: of the seven calls this one fails and no other, and it is named as the first to leave its contract; with a bug, the composite
fails as well (a value of a key that is one off may still get the same code of 8 bits).
Exit 0: so it is; 1: it is not; 2: the tool failed.
"""
import argparse
import json
import os
import struct
import subprocess
import tempfile

from independent import BF16, F32, end, read_safetensors, stop, write_safetensors
from independent_indexer import DIM, Call, codes_of, index_weight, layer_norm, logit, rotary, scale_of, top_k

STEPS = {"norm": "layer_norm", "rotary": "rotary_embedding", "write": "indexer_k_quant_and_cache", "quant": "quant_fp8_group",
         "weights": "index_weights", "logits": "fp8_paged_mqa_logits", "top_k": "top_k_per_row"}


def rows(values, n):
    return [tuple(values[i:i + n]) for i in range(0, len(values), n)]


def flat(parts):
    return [v for part in parts for v in part]


class Step:
    """What was recorded, call by call; each method makes one call's outputs of what stands in this object."""

    def __init__(self, call, tensors):
        self.c, c = call, call
        decode = {"BF16": BF16.decode, "F32": F32.decode}

        def recorded(name):
            dtype, _, data = tensors[name]
            return decode[dtype](data) if dtype in decode else data

        self.normed = rows(recorded("norm/out.out"), DIM)
        self.k2 = rows(recorded("rotary/out.key_out"), DIM)
        self.q2 = rows(recorded("rotary/out.query_out"), DIM)
        self.cache = bytearray(recorded("write/out.kv_cache"))
        self.codes, self.S = rows(recorded("quant/out.codes"), DIM), list(recorded("quant/out.scale"))
        self.w = list(recorded("weights/out.out"))
        self.logits = [list(r) for r in rows(recorded("logits/out.logits"), c.width)]
        self.indices = [list(r) for r in rows(struct.unpack("<%di" % (c.tokens * c.top_k), recorded("top_k/out.indices")), c.top_k)]

    def norm(self, bias=True):
        c = self.c
        self.normed = [layer_norm(k, c.norm_weight, c.norm_bias if bias else None, c.eps, c.T) for k in c.k]

    def rotary(self, effect=True):
        c = self.c

        def turned(x, t):
            return rotary(tuple(x), c.table[c.positions[t]], c.pairing, c.offset, c.T) if effect else tuple(x)

        self.k2 = [turned(k, t) for t, k in enumerate(self.normed)]
        self.q2 = [turned(h, t) for t in range(c.tokens) for h in c.q[t]]

    def write(self, slots=None):
        c = self.c
        self.cache = bytearray(c.cache)
        for k, slot in zip(self.k2, slots or c.slots):
            places, at = c.bytes_of(slot)
            S = scale_of(k, 1e-4, c.codes)
            for b, code in zip(places, codes_of(k, S, c.codes)):
                self.cache[b] = code
            self.cache[at:at + 4] = struct.pack("<f", S)

    def quant(self, factor=1):
        self.S = [scale_of(q, 1e-10, self.c.codes) for q in self.q2]
        self.codes = [codes_of(q, S * factor, self.c.codes) for q, S in zip(self.q2, self.S)]

    def weights(self, scaled=True):
        self.w = [index_weight(w, S if scaled else 1.0, self.c.heads) for w, S in zip(flat(self.c.w), self.S)]

    def scores(self, hidden=0):
        c = self.c
        for t in range(c.tokens):
            part = slice(t * c.heads, (t + 1) * c.heads)
            for p in range(c.width):
                key = c.read(bytes(self.cache), t, p) if p < c.seen[t] - hidden else None
                self.logits[t][p] = logit(self.codes[part], self.w[part], *key, c.codes) if key else float("-inf")

    def selected(self, sign=1):
        self.indices = [top_k([sign * v for v in row], n, self.c.top_k) for row, n in zip(self.logits, self.c.seen)]

    AFTER = [norm, rotary, write, quant, weights, scores, selected]

    def tensors(self, old):
        """The trace's, with what stands here as inputs and outputs."""
        new, k2, q2, cache = dict(old), BF16.encode(flat(self.k2)), BF16.encode(flat(self.q2)), bytes(self.cache)
        normed, codes, S = BF16.encode(flat(self.normed)), bytes(flat(self.codes)), F32.encode(self.S)
        w, logits, indices = F32.encode(self.w), F32.encode(flat(self.logits)), struct.pack("<%di" % len(flat(self.indices)), *flat(self.indices))
        for name, data in {"norm/out.out": normed, "rotary/key": normed, "rotary/out.key_out": k2, "rotary/out.query_out": q2, "write/k": k2,
                           "write/out.kv_cache": cache, "quant/x": q2, "quant/out.codes": codes, "quant/out.scale": S, "weights/q_scale": S,
                           "weights/out.out": w, "logits/q": codes, "logits/kv_cache": cache, "logits/weights": w, "logits/out.logits": logits,
                           "top_k/logits": logits, "top_k/out.indices": indices, "indexer/out.kv_cache": cache, "indexer/out.logits": logits,
                           "indexer/out.indices": indices}.items():
            dtype, shape, before = old[name]
            if len(before) != len(data):
                stop("%s has %d bytes, not %d" % (name, len(before), len(data)))
            new[name] = dtype, shape, data
        return new


# ---- what goes wrong -----------------------------------------------------------------------------------------------------------------


def changed(row, i, value):
    return tuple(row[:i]) + (value,) + tuple(row[i + 1:])


def nearest(values, wanted):
    return min(range(len(values)), key=lambda i: abs(values[i] - wanted))


def one_normed(s):
    i = nearest(s.normed[0], 1.0)  # where no admissible set is wider than a value or two
    s.normed[0] = changed(s.normed[0], i, BF16.step(BF16.step(s.normed[0][i], True), True))


def one_rotated(s):
    i = nearest(s.k2[1][:64], 1.0)
    s.k2[1] = changed(s.k2[1], i, BF16.step(s.k2[1][i], True))


def one_code_written(s):
    s.cache[s.c.bytes_of(s.c.slots[2])[0][100]] ^= 1


def one_code(s):
    s.codes[5] = changed(s.codes[5], 70, s.codes[5][70] ^ 1)


def one_weight(s):
    s.w[3] = F32.step(s.w[3] * (1 + 2.0 ** -20), True)
    s.w[3] = struct.unpack("<f", struct.pack("<f", s.w[3]))[0]


def one_logit(s):
    p = max(range(s.c.seen[0]), key=lambda i: abs(s.logits[0][i]))
    s.logits[0][p] = struct.unpack("<f", struct.pack("<f", s.logits[0][p] * (1 + 2.0 ** -12)))[0]


def one_index(s):
    n, order = s.c.seen[1], top_k(s.logits[1], s.c.seen[1], s.c.seen[1] - 1)
    s.indices[1][s.indices[1].index(order[s.c.top_k - 1])] = order[s.c.top_k]
    if n <= s.c.top_k:
        stop("row 1 is too short")


WRONG = [  # (call, what is wrong, how)
    ("norm", "the bias is left out", lambda s: s.norm(bias=False)), ("norm", "one element is two values off", one_normed),
    ("rotary", "it takes no effect", lambda s: s.rotary(effect=False)), ("rotary", "one element of a key is one value off", one_rotated),
    ("write", "keys go to the slot behind theirs", lambda s: s.write([n + 1 for n in s.c.slots])), ("write", "one code is another", one_code_written),
    ("quant", "codes are of a scale twice as large", lambda s: s.quant(factor=2)), ("quant", "one code is another", one_code),
    ("weights", "the scale of queries is lost", lambda s: s.weights(scaled=False)), ("weights", "one is 2^-20 off", one_weight),
    ("logits", "a token does not see its own key", lambda s: s.scores(hidden=1)), ("logits", "one is 2^-12 off", one_logit),
    ("top_k", "the smallest are selected", lambda s: s.selected(sign=-1)), ("top_k", "one index is the next best", one_index)]


def replay(hallmark, notes, tensors, folder):
    path = os.path.join(folder, "chain.safetensors")
    size = {"I64": 8, "F32": 4, "I32": 4, "BF16": 2}
    write_safetensors(path, notes, dict(sorted(tensors.items(), key=lambda item: -size.get(item[1][0], 1))))
    done = subprocess.run([hallmark, "replay", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    if done.returncode not in (0, 1):
        stop("replay ended with %d: %s" % (done.returncode, done.stderr))
    return done.returncode, done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("hallmark")
    parser.add_argument("--trace", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../data/traces/indexer_chain.safetensors"))
    options = parser.parse_args()
    notes, tensors = read_safetensors(options.trace)
    calls = json.loads(notes["hallmark.calls"])
    if [c["id"] for c in calls] != [*STEPS, "indexer"] or any(c.get("views") for c in calls):
        stop("%s is not the chain" % options.trace)
    call, failed = Call(calls[-1], tensors), 0
    with tempfile.TemporaryDirectory() as folder:
        for start in [None, *range(7)]:  # as it was recorded; made anew from each step on: nothing is wrong
            step = Step(call, tensors)
            for make in Step.AFTER[start:] if start is not None else ():
                make(step)
            code, text = replay(options.hallmark, notes, step.tensors(tensors), folder)
            if code or "\n8 cases: 8 passed, 0 failed, 0 out of class" not in text:
                failed += 1
                print("right from step %s on: exit %d\n%s" % (start, code, text))
        for name, what, spoil in WRONG:
            step, number = Step(call, tensors), list(STEPS).index(name)
            spoil(step)
            for make in Step.AFTER[number + 1:]:
                make(step)
            code, text = replay(options.hallmark, notes, step.tensors(tensors), folder)
            sentence = "\nThe first call to leave its contract is %s (%s); each call was judged on its own recorded inputs.\n" % (name, STEPS[name])
            rows = {line.split()[0]: " pass " in line for line in text.split("\n") if line.split()[1:2] and line.split()[1] in [*STEPS.values(), "indexer"]}
            others = [s for s in STEPS if s != name and not rows.get(s)]
            unseen = rows.get("indexer", True) and not what.startswith("one ")
            if code != 1 or sentence not in text or others or rows.get(name, True) or len(rows) != 8 or unseen:
                failed += 1
                print("%s: %s: exit %d; others that fail: %s%s\n%s" % (name, what, code, ", ".join(others), "; the composite passes" if unseen else "", text))
    print("%d chains, %d not judged as they should be" % (8 + len(WRONG), failed))
    return 1 if failed else 0


if __name__ == "__main__":
    end(main)
