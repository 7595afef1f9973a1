"""golden_files.py GOLDEN: examples/certify_from_files.py, which knows nothing but the golden files, lets right functions pass, names wrong
ones, and reads every kind of element: intervals, pieces of intervals, bits, NaN."""
import contextlib, importlib.util, io, json, math, os, struct, sys

folder = os.path.dirname(os.path.abspath(__file__))
spec = importlib.util.spec_from_file_location("example", os.path.join(folder, "../../examples/certify_from_files.py"))
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)
failed, checks = 0, 0


def run(op, function):
    """Exit code and what was printed."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        code = example.certify(os.path.join(sys.argv[1], op + ".safetensors"), function)
    return code, text.getvalue()


def expect(what, good, shown=""):
    global failed, checks
    checks += 1
    failed += not good
    if not good:
        print("not ok: %s: %s" % (what, shown[-300:]))


def verdict(what, op, function, code, least=1):
    got, text = run(op, function)
    elements = int(text.splitlines()[-1].split()[0])
    expect(what, got == code and elements >= least, text)
    return text


# ---- rms_norm: right, and wrong in one step --------------------------------------------------------------------------------------
def norm(attrs, inputs, early=False, eps=True, weighted=True):
    if early:  # the contract of these calls rounds once
        dtype, shape, x = inputs["x"]
        plain = example.rms_norm(attrs, {"x": inputs["x"]})
        if plain is None or "weight" not in inputs:
            return plain
        weight, values = inputs["weight"][2], example.read(dtype, plain["out"])
        return {"out": b"".join(example.stored(dtype, v * weight[i % len(weight)]) for i, v in enumerate(values))}
    if not weighted:
        inputs = {name: value for name, value in inputs.items() if name != "weight"}
    return example.rms_norm(attrs if eps else {**attrs, "eps": 0.0}, inputs)


text = verdict("a right rms_norm", "rms_norm", example.rms_norm, 0, 10000)
expect("modes that are not offered are counted", int(text.splitlines()[-1].split("; ")[1].split()[0]) > 20, text)
text = verdict("rounding before the weight", "rms_norm", lambda a, i: norm(a, i, early=True), 1, 10000)
expect("an element is named", "outside; out[" in text, text)
verdict("no eps", "rms_norm", lambda a, i: norm(a, i, eps=False), 1)
verdict("no weight", "rms_norm", lambda a, i: norm(a, i, weighted=False), 1)
verdict("zeros", "rms_norm", lambda a, i: {"out": bytes(len(i["x"][2]) * example.TYPES[i["x"][0]][1])}, 1)
verdict("nothing is offered", "rms_norm", lambda a, i: None, 3, 0)


# ---- concat_mla_q: by bits -----------------------------------------------------------------------------------------------------------
def concat(attrs, inputs, tidy=lambda v: v):
    (dtype, shape, nope), (_, tail, rope) = inputs["ql_nope"], inputs["q_pe"]
    a, b, out = shape[-1], tail[-1], b""
    for row in range(len(nope) // a if a else len(rope) // b):
        for v in nope[row * a:row * a + a] + rope[row * b:row * b + b]:
            out += example.stored(dtype, tidy(v))
    return {"q_out": out}


def known(text):  # a language whose floats keep no NaN payloads cannot copy those: they are what may fail here
    return all(" nan," in line for line in text.splitlines()[:-1])


code, text = run("concat_mla_q", concat)
expect("a copy by values differs in NaNs at most", known(text), text)
verdict("a copy that loses the sign of zero", "concat_mla_q", lambda a, i: concat(a, i, lambda v: v + 0.0), 1)


# ---- every kind of element, in every file -------------------------------------------------------------------------------------------
def stored_bits(op, pick):
    """A function that gives back, call by call, what pick(own, output) makes of the file's own tensors."""
    with open(os.path.join(sys.argv[1], op + ".safetensors"), "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    own = {name: (t["dtype"], data[slice(*t["data_offsets"])]) for name, t in header.items() if name != "__metadata__"}
    ids = iter([call["id"] for call in json.loads(header["__metadata__"]["hallmark.calls"])])

    def function(attrs, inputs):
        call = next(ids) + "/"
        mine = {name[len(call):]: value for name, value in own.items() if name.startswith(call)}
        return {name[6:]: pick(mine, name[6:]) for name in mine if name.startswith("ideal.")}
    return function


seen = {}


def outside_everywhere(own, output):
    """Of every element a value that is not admissible, where there is one: past hi, in a gap, another bit pattern."""
    dtype, hi = own["hi." + output]
    letter, size = example.TYPES[dtype]
    bits = list(struct.unpack("<%d%s" % (len(hi) // size, {2: "H", 4: "I"}[size]), hi))
    flags = own.get("flags." + output, (0, bytes(len(bits))))[1]
    gaps = {}
    if "parts." + output in own:
        at = example.read("I64", own["parts_at." + output][1])
        ends = struct.unpack("<%d%s" % (2 * len(at), {2: "H", 4: "I"}[size]), own["parts." + output][1])
        gaps = {element: ends[2 * k + 1] for k, element in reversed(list(enumerate(at)))}  # hi of the first part
    sign, magnitude = 1 << (8 * size - 1), (1 << (8 * size - 1)) - 1
    infinity = {"F32": 0x7f800000, "F16": 0x7c00, "BF16": 0x7f80}[dtype]
    for i, flag in enumerate(flags):
        b = gaps.get(i, bits[i])
        if flag & 8:
            b ^= 1
        elif flag & 1:
            b = 0
        elif b & magnitude in (0, sign):
            b = 1
        elif b == infinity:
            b = infinity + 1
        else:
            b += -1 if b & sign else 1
        seen[flag] = seen.get(flag, 0) + 1
        bits[i] = b
    return struct.pack("<%d%s" % (len(bits), {2: "H", 4: "I"}[size]), *bits)


for op in ("rms_norm", "fused_add_rms_norm", "rotary_embedding", "rope_table", "concat_mla_q"):
    for kind in ("ideal", "lo", "hi"):
        verdict("%s of %s" % (kind, op), op, stored_bits(op, lambda own, output: own[kind + "." + output][1]), 0, 1000)
    seen = {}
    code, text = run(op, stored_bits(op, outside_everywhere))
    elements, outside = (int(word.split()[0]) for word in text.splitlines()[-1].split(";")[0].split(", "))
    expect("%s: every element can fail" % op, outside == elements == sum(seen.values()),
           "%d of %d, flags %s" % (outside, elements, seen))
    wanted = {"rotary_embedding": (0, 4, 8), "concat_mla_q": (8,), "rms_norm": (0, 1, 4)}.get(op, (0,))
    expect("%s has elements of the kinds %s" % (op, wanted), all(seen.get(flag) for flag in wanted), str(seen))

# Ops whose outputs are codes, bytes and indices: the ideal values and both ends pass, something else does not.
for op in ("layer_norm", "index_weights", "quant_fp8_group", "indexer_k_quant_and_cache", "cp_gather_indexer_k_quant_cache", "top_k_per_row", "translate_indices", "fp8_mqa_logits",
           "fp8_paged_mqa_logits", "concat_and_cache_mla", "sparse_mla_decode", "mla_prefill"):
    for kind in ("ideal", "lo", "hi"):
        verdict("%s of %s" % (kind, op), op, stored_bits(op, lambda own, output: own[kind + "." + output][1]), 0, 1000)
    code, text = run(op, stored_bits(op, lambda own, output: bytes(b ^ 0x55 for b in own["ideal." + output][1])))
    outside = int(text.splitlines()[-1].split(";")[0].split(", ")[1].split()[0])
    expect("%s: other bits fail" % op, code == 1 and outside > 500, text.splitlines()[-1])
expect("an element without a contract", example.admitted(math.nan, 1.0, 2.0, 16, (), False))

# Files of other classes have elements whose f32 arithmetic may leave its range.
for got in (0.0, -0.0, math.inf, -math.inf, math.nan, 1.5):
    expect("%r where the range is free" % got, example.admitted(got, 1.0, 2.0, 2, (), False))
expect("3.0 where the range is free", not example.admitted(3.0, 1.0, 2.0, 2, (), False))

print("%d checks, %d failed" % (checks, failed))
sys.exit(1 if failed or checks < 30 else 0)
