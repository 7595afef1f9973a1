"""What the recorders share: a trace as it grows, the text that models read, and the notes that go into every file."""
import datetime
import json
import platform
import struct

import torch

try:
    import transformers
except ImportError:  # not every recorder needs it
    transformers = None

TEXT = ("The judge compares every element of a tensor with the set of values that a correct kernel may return. If the "
        "element lies inside, it passes; if not, the report names it.")
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
VIEW_NAMES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32", torch.int64: "I64", torch.int32: "I32",
              torch.uint8: "U8", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}


def save_file(tensors, path, metadata):
    """As safetensors.torch.save_file, from torch alone."""
    header, parts, at = {"__metadata__": metadata}, [], 0
    for name, t in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        flat = t.contiguous().reshape(-1)
        parts.append(bytes(flat.view(torch.uint8).tolist()) if flat.numel() else b"")
        header[name] = {"dtype": VIEW_NAMES[t.dtype], "shape": list(t.shape), "data_offsets": [at, at + len(parts[-1])]}
        at += len(parts[-1])
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


class Trace:
    """Calls in execution order, with their tensors as bytes in the layout that they had."""

    def __init__(self):
        self.tensors, self.calls, self.sources, self.notes = {}, [], {}, {}

    def call(self, name, op, source, attrs, inputs, outputs):
        views = {}
        outputs = {f"out.{field}": t for field, t in outputs.items()}
        for field, t in {**inputs, **outputs}.items():
            if t is None:
                continue
            t = t.detach()
            if t.is_contiguous():
                self.tensors[f"{name}/{field}"] = t.clone().cpu()
                continue
            # Not contiguous: keep the memory between its first and last element, and describe the view on it.
            span = 1 + sum((n - 1) * s for n, s in zip(t.shape, t.stride()))
            buffer = f"{name}/{field}.buf"
            self.tensors[buffer] = t.as_strided((span,), (1,)).clone().cpu()
            views[field] = {"storage": buffer, "dtype": VIEW_NAMES[t.dtype], "offset": 0,
                            "shape": list(t.shape), "stride": list(t.stride())}
        entry = {"id": name, "op": op, "attrs": attrs}
        if views:
            entry["views"] = views
        self.calls.append(entry)
        self.sources[name] = source

    def save(self, path, notes):
        if not self.calls:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"hallmark.trace": "1", "hallmark.calls": json.dumps(self.calls),
                    "sources": json.dumps(self.sources)}
        save_file(self.tensors, path, metadata={**metadata, **notes, **self.notes})
        path.chmod(0o644)
        print(f"{path}: {len(self.calls)} calls, {path.stat().st_size} bytes")


def source_of(function_or_class):
    return f"{function_or_class.__module__}.{function_or_class.__qualname__}"


def notes_of(script, device):
    """Where and by what: the same entries in every file of a run."""
    return {"command": f"python3 scripts/{script} --out data/traces --device {device}",
            "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine(),
            "torch": torch.__version__, **({"transformers": transformers.__version__} if transformers else {}), "python": platform.python_version(),
            "recorded": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")}
