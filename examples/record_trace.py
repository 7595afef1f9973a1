"""Records one call as a Hallmark trace: any safetensors file with these names and this metadata is one.

    python3 examples/record_trace.py && hallmark replay trace.safetensors
"""
import json, torch
from safetensors.torch import save_file
x, w = torch.randn(4, 512, dtype=torch.bfloat16), torch.randn(512, dtype=torch.bfloat16)
y = torch.nn.functional.rms_norm(x, (512,), w, 1e-6)  # what is judged; state the modes that it claims to follow
call = {"id": "c0", "op": "rms_norm",
        "attrs": {"eps": 1e-6, "round": "once", "weight_form": "plain", "variance_size": 0}}
save_file({"c0/x": x, "c0/weight": w, "c0/out.out": y}, "trace.safetensors",
          {"hallmark.trace": "1", "hallmark.calls": json.dumps([call])})
