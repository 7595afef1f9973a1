#!/usr/bin/python3
"""Recomputes what data/golden says of top_k_per_row and translate_indices, in different software, from the contracts' text alone.

usage: independent_selection.py HALLMARK [--golden DIR] [--most N]

The cases are those of the golden files; their inputs are filled by Hallmark's generators, and what they are is read from what
`hallmark golden --inputs` writes.
  translate_indices   every slot, row and count: one number, to be judged by its bits.
  top_k_per_row       a row with a window of at most k columns: 0, 1, .. then -1, by their bits. Of a longer one: k different columns of
                      the window, none that is left out larger than one that is taken (set semantics, -0 and +0 alike); in the library's
                      own order, the largest first and equal ones by ascending index, NaN above all; and every column of the window
                      lies between what golden says of any choice.
`hallmark replay` is then given sets of this script's: a legal choice in another order with other ties has to pass; one with a column that
is too small, that occurs twice or lies outside has to fail, by as many elements as are wrong.
Exit 0: all agree; 1: something does not; 2: less was compared than promised, or the tool failed.
"""
import json
import math
import os
import random
import tempfile
from array import array
from collections import Counter

from independent import ask, ask_golden, conclude, end, judged, listed, make, read_safetensors

BITS = 8
PROMISED = {
    "translate_indices": {"translated": 3000, "none": 500, "counts": 100},
    "top_k_per_row": {"chosen": 3000, "all of a window": 1000, "with NaN": 100, "judged legal": 60, "judged outside": 5, "judged twice": 5,
                      "judged too small": 20, "judged order": 1},
}


def load(tensors, name):
    if name not in tensors:
        return None, None
    dtype, shape, data = tensors[name]
    values = array("f" if dtype == "F32" else "i")
    values.frombytes(data)
    return list(values), shape


def translated(call, tensors):
    """{output: values}"""
    base = call["id"] + "/"
    indices, (tokens, k) = load(tensors, base + "indices")
    requests, _ = load(tensors, base + "req_id")
    table, table_shape = load(tensors, base + "block_table")
    starts, _ = load(tensors, base + "workspace_starts")
    P = call["attrs"]["block_size"]
    out = []
    for n, t in enumerate(indices):
        r = requests[n // k]
        if t < 0:
            out.append(-1)
        elif starts is not None:
            out.append(starts[r] + t)
        else:
            page, offset = divmod(t, P)
            out.append(table[r * table_shape[1] + page] * P + offset if page < table_shape[1] else -1)
    return {"out": out, "valid_count": [sum(v != -1 for v in out[n * k:n * k + k]) for n in range(tokens)]}


class Selection:
    """The windows of a call, and what may be chosen of them."""

    def __init__(self, call, tensors):
        base = call["id"] + "/"
        self.logits, (self.rows, self.columns) = load(tensors, base + "logits")
        self.k = tensors[base + "ideal.indices"][1][1]
        starts, ends, lens = (load(tensors, base + name)[0] for name in ("row_starts", "row_ends", "seq_lens"))
        next_n = call["attrs"]["next_n"] or 1
        self.window = []
        for r in range(self.rows):
            start, end = (0, lens[r // next_n] - next_n + r % next_n + 1) if lens is not None else (starts[r], ends[r])
            self.window.append(self.logits[r * self.columns:][start:max(start, end)])

    def ordered(self, r):
        """Indices of a window, in the library's order."""
        w = self.window[r]
        return sorted(range(len(w)), key=lambda i: (not math.isnan(w[i]), 0 if math.isnan(w[i]) else -w[i], i))

    def legal(self, r, chosen):
        w = self.window[r]
        if len(w) <= self.k:
            return chosen == list(range(len(w))) + [-1] * (self.k - len(w))
        if len(set(chosen)) != self.k or min(chosen) < 0 or max(chosen) >= len(w):
            return False
        if any(map(math.isnan, w)):
            return True
        taken = set(chosen)
        return min(w[i] for i in taken) >= max(v for i, v in enumerate(w) if i not in taken)


def of_calls(path, inputs):
    """(golden's entry, its tensors' base, the call as made, inputs) of each call."""
    notes, golden = read_safetensors(path)
    made_notes, tensors = read_safetensors(inputs)
    for entry, call in zip(json.loads(notes["hallmark.golden.calls"]), json.loads(made_notes["hallmark.calls"])):
        yield entry, golden, call, tensors


def compare(path, inputs, most, counts):
    differing = 0

    def wrong(entry, what, got, want):
        nonlocal differing
        differing += 1
        if differing <= most:
            print("%s, %s: golden %s; here %s" % (entry["case"], what, str(got)[:200], str(want)[:200]))

    for entry, golden, call, tensors in of_calls(path, inputs):
        base = entry["id"] + "/%s."
        if call["op"] == "translate_indices":
            for name, want in translated(call, tensors).items():
                ideal, shape = load(golden, base % "ideal" + name)
                if ideal is None:
                    continue
                width = shape[-1] if name == "out" else len(want)
                rows = entry.get("rows", {}).get(name, range(len(want) // width if width else 0))
                want = [v for r in rows for v in want[r * width:(r + 1) * width]]
                flags = golden.get(base % "flags" + name, (None, None, bytes(len(ideal))))[2]
                ends = load(golden, base % "lo" + name)[0], load(golden, base % "hi" + name)[0]
                counts["translated" if name == "out" else "counts"] += len(want)
                counts["none"] += want.count(-1)
                if ideal != want or ends != (want, want) or any(f != BITS for f in flags):
                    wrong(entry, name, ideal, want)
            continue
        s = Selection(call, tensors)
        ideal, lo, hi = (load(golden, base % kind + "indices")[0] for kind in ("ideal", "lo", "hi"))
        flags = golden.get(base % "flags" + "indices", (None, None, bytes(len(ideal))))[2]
        for number, r in enumerate(entry.get("rows", {}).get("indices", range(s.rows))):
            part = slice(number * s.k, (number + 1) * s.k)
            n, ordered = len(s.window[r]), s.ordered(r)[:s.k]
            want = list(range(n)) + [-1] * (s.k - n) if n <= s.k else ordered
            if n <= s.k:
                good = lo[part] == hi[part] == want and all(f == BITS for f in flags[part])
            else:
                good = lo[part] == [0] * s.k and hi[part] == [n - 1] * s.k and not any(flags[part])
                if "rows" not in entry and not entry.get("hull"):  # where golden gives hulls, it says so
                    good = False
            counts["all of a window" if n <= s.k else "with NaN" if any(map(math.isnan, s.window[r])) else "chosen"] += s.k
            if ideal[part] != want or not good or not s.legal(r, ideal[part]):
                wrong(entry, "row %d" % r, (ideal[part], lo[part][:3], hi[part][:3]), want)
    return differing


def another(s, r, rng):
    """A legal choice that differs from the library's where it can: other ties, in another order."""
    w, order = s.window[r], s.ordered(r)
    if len(w) <= s.k or not s.k:
        return list(range(len(w))) + [-1] * (s.k - len(w)) if s.k else []
    if any(map(math.isnan, w)):
        chosen = rng.sample(range(len(w)), s.k)
    else:
        border = w[order[s.k - 1]]
        tied = [i for i in order if w[i] == border]
        above = [i for i in order if w[i] > border]
        chosen = above + tied[len(tied) - (s.k - len(above)):]
    rng.shuffle(chosen)
    return chosen


def spoiled(s, r, chosen, rng):
    """An illegal choice, and what is wrong with it; None where every choice is legal."""
    w, chosen = s.window[r], list(chosen)
    if not s.k:
        return None, None
    i = rng.randrange(s.k)
    kinds = ["outside"] + (["twice"] if s.k > 1 and len(w) > s.k else [])
    if len(w) > s.k and not any(map(math.isnan, w)):
        least = min(w[c] for c in chosen)
        smaller = [c for c in range(len(w)) if w[c] < least]
        kinds += ["too small"] * 3 if smaller else []
    elif len(w) <= s.k and len(w) > 1:
        kinds.append("order")
    kind = rng.choice(kinds)
    if kind == "outside":
        chosen[i] = rng.choice([len(w), -2, s.columns + 5])
    elif kind == "twice":
        chosen[i] = chosen[i - 1]
    elif kind == "too small":
        chosen[i] = rng.choice(smaller)
    else:
        chosen[0], chosen[1] = chosen[1], chosen[0]
    return (chosen, kind) if not s.legal(r, chosen) else (None, None)


WRONG = {"legal": 0, "outside": 1, "twice": 1, "too small": 1, "order": 2}  # elements that no legal choice explains


def verdicts(hallmark, inputs, folder, counts):
    """Has this script's choices judged, as recorded outputs of the same calls. How many verdicts are not as they are here."""
    notes, tensors = read_safetensors(inputs)
    rng, calls, written = random.Random(7), [], {}
    for call in json.loads(notes["hallmark.calls"]):
        s = Selection(call, tensors)
        good = [another(s, r, rng) for r in range(s.rows)]
        wrong = [(r, *spoiled(s, r, good[r], rng)) for r in range(s.rows)]
        wrong = [w for w in wrong if w[1]]
        choices = [("legal", good)]
        if wrong:
            r, bad, kind = rng.choice(wrong)
            choices.append((kind, good[:r] + [bad] + good[r + 1:]))
        for kind, rows in choices if s.k else ():
            name = call["id"] + ("-legal" if kind == "legal" else "-wrong")
            for field in ("logits", "row_starts", "row_ends", "seq_lens"):
                if call["id"] + "/" + field in tensors:
                    written[name + "/" + field] = tensors[call["id"] + "/" + field]
            written[name + "/out.indices"] = "I32", [s.rows, s.k], array("i", [v for row in rows for v in row]).tobytes()
            calls.append({**call, "id": name, "kind": kind})
    listed = [{key: c[key] for key in ("id", "op", "attrs")} for c in calls]
    results = judged(hallmark, folder, notes, listed, written)
    differing = 0
    for call, result in zip(calls, results):
        kind, want = call["kind"], "pass" if call["kind"] == "legal" else "fail"
        counts["judged " + kind] += 1
        if not result["case"].endswith(" call " + call["id"]) or result["verdict"] != want or result["outside"] != WRONG[kind]:
            differing += 1
            print("%s, %s: %s with %d outside" % (result["case"], kind, result["verdict"], result["outside"]))
    return differing


def main():
    options = ask_golden(ask(__doc__, "differing rows to print for each file")).parse_args()
    differing, short = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for op in ("translate_indices", "top_k_per_row"):
            path, inputs, counts = os.path.join(options.golden, op + ".safetensors"), os.path.join(folder, op), Counter()
            calls = json.loads(read_safetensors(path)[0]["hallmark.golden.calls"])
            make(options.hallmark, inputs, [call["case"] for call in calls])
            differing += compare(path, inputs, options.most, counts)
            if op == "top_k_per_row":
                differing += verdicts(options.hallmark, inputs, folder, counts)
            missing = any(counts[kind] < n for kind, n in PROMISED[op].items())
            print("%-18s %3d calls: %s%s" % (op, len(calls), listed(counts),
                                             ": fewer than promised" if missing else ""))
            short += missing
    return conclude(differing, short, "rows, outputs or verdicts")


if __name__ == "__main__":
    end(main)
