#!/usr/bin/env python3
"""Trains the small model and writes what belongs in data/gsm8k: one command, a fixed seed, minutes on one H200.

    python3 scripts/gsm8k/train.py [--out data/gsm8k]                      with a CUDA device
    python3 scripts/gsm8k/train.py --steps 20 --rows 4 --device cpu --out /tmp/x     the same code, to see that it runs

Writes model.safetensors, torch_logits.safetensors (a sample to compare an engine with) and metrics.json.
Needs PyTorch. Every problem that is trained on is generated here; data/gsm8k/problems.jsonl is only tested on.
"""
import argparse
import json
import math
import multiprocessing
import pathlib
import platform
import time

import torch
import torch.nn.functional as F

import problems
from model import SIZES, Model, Reference, generate, read_safetensors, reference_forward, teacher_forced, write_safetensors

LENGTH = 320
QUESTION_WEIGHT = 0.05
# (share of the steps, top-k of the attention; 0: dense)
STAGES = [(0.45, 0), (0.15, 64), (0.40, 32)]
SAMPLES = 6


def make_rows(job):
    seed, first, count = job
    return torch.tensor([problems.training_row((seed << 32) + first + i, LENGTH) for i in range(count)], dtype=torch.int16)


def training_rows(seed, count):
    """[count, LENGTH] int16, made by all cores."""
    jobs = [(seed, i, min(512, count - i)) for i in range(0, count, 512)]
    with multiprocessing.get_context("fork").Pool() as pool:
        return torch.cat(pool.map(make_rows, jobs, chunksize=1))


def loss_of(model, ids, offset, top_k):
    """Cross-entropy of the next token (solutions 1, questions QUESTION_WEIGHT), and that plus the indexers' loss."""
    positions = offset + torch.arange(LENGTH, device=ids.device)
    logits, index_loss = model(ids, positions, top_k)
    target = ids[:, 1:]
    # A token is of a solution if a <sep> came before it, and no <eos> since.
    inside = ((ids == problems.SEP).long() - (ids == problems.EOS).long()).cumsum(1)[:, :-1] > 0
    weight = torch.where(inside, 1.0, QUESTION_WEIGHT)
    ce = F.cross_entropy(logits[:, :-1].flatten(0, 1), target.flatten(), reduction="none").view_as(target)
    right = ((logits[:, :-1].argmax(-1) == target) & inside).sum() / inside.sum()
    ce = (ce * weight).sum() / weight.sum()
    return ce, index_loss, right


def rate(step, steps, peak, warm_up):
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(steps - warm_up, 1)))


def train(args, device):
    begin = time.time()
    data = training_rows(args.seed, args.steps * args.rows).to(device)
    print(f"{len(data)} rows of {LENGTH} tokens in {time.time() - begin:.1f} s", flush=True)
    torch.manual_seed(args.seed)
    model = Model(SIZES).to(device)
    count = sum(p.numel() for p in model.parameters())
    print(f"{count} parameters", flush=True)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    on_gpu = device == "cuda"
    lr = torch.tensor(0.0, device=device) if on_gpu else 0.0
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
                                  lr=lr, betas=(0.9, 0.98), fused=on_gpu, capturable=on_gpu)
    offsets = torch.randint(0, SIZES["max_position"] - LENGTH, (args.steps,), generator=torch.Generator().manual_seed(args.seed))
    ids = torch.zeros(args.rows, LENGTH, dtype=torch.int64, device=device)
    offset = torch.zeros((), dtype=torch.int64, device=device)
    seen = torch.zeros(3, device=device)  # the last step's losses and accuracy

    def step(top_k):
        with torch.autocast(device, torch.bfloat16, cache_enabled=False):
            ce, index_loss, right = loss_of(model, ids, offset, top_k)
        (ce + index_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seen.copy_(torch.stack([ce.detach(), index_loss.detach(), right]))

    def load(i, factor):
        ids.copy_(data[i * args.rows:(i + 1) * args.rows])
        offset.copy_(offsets[i])
        value = rate(i, args.steps, args.lr, min(400, args.steps // 4)) * factor
        for group in optimizer.param_groups:
            if on_gpu:
                group["lr"].fill_(value)
            else:
                group["lr"] = value

    def captured(i, top_k):
        """The step as one CUDA graph; the steps before the capture have rate 0."""
        load(i, 0.0)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                optimizer.zero_grad(set_to_none=True)
                step(top_k)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            step(top_k)
        return graph

    begin, i, log = time.time(), 0, []
    for number, (share, top_k) in enumerate(STAGES):
        last = number == len(STAGES) - 1
        end = args.steps if last else i + round(args.steps * share)
        graph = captured(i, top_k) if on_gpu else None
        while i < end:
            load(i, 1.0)
            if graph:
                graph.replay()
            else:
                optimizer.zero_grad(set_to_none=True)
                step(top_k)
            i += 1
            if i % args.every == 0 or i == end:
                ce, index_loss, right = seen.tolist()
                log.append([i, top_k, ce, index_loss, right])
                print(f"step {i} of {args.steps}  top-k {top_k or 'all'}  loss {ce:.4f}  indexer {index_loss:.4f}  "
                      f"solution tokens right {right:.4f}  {time.time() - begin:.1f} s", flush=True)
    return model, {"parameters": count, "steps": args.steps, "rows": args.rows, "seconds_training": round(time.time() - begin, 1),
                   "log": log}


def measure(tensors, held_out, device, top_k, batch=400):
    """Greedy exact match, and of the given solutions the share of tokens and of whole solutions that are predicted."""
    model = Reference(tensors, SIZES, device, top_k)
    rows = []
    for at in range(0, len(held_out), batch):
        part = held_out[at:at + batch]
        offsets = [p["offset"] for p in part]
        prompts, solutions = [p["prompt_ids"] for p in part], [p["solution_ids"] for p in part]
        new = generate(model, prompts, offsets, problems.EOS)
        ids, logits, mask = teacher_forced(model, prompts, solutions, offsets)
        hit = (logits[:, :-1].argmax(-1) == ids[:, 1:]) & mask[:, :-1]
        for p, answer, right, total in zip(part, new, hit.sum(1).tolist(), mask.sum(1).tolist()):
            rows.append((p, problems.answer_of(answer) == p["answer"], right, total))
    return rows


def summary(rows):
    def share(keep):
        chosen = [r for r in rows if keep(r[0])]
        return [sum(r[1] for r in chosen), len(chosen)]

    out = {"exact_match": sum(r[1] for r in rows) / len(rows), "token_accuracy": sum(r[2] for r in rows) / sum(r[3] for r in rows)}
    for key in ("family", "offset", "difficulty"):
        out[key] = {str(v): share(lambda p, v=v: p[key] == v) for v in sorted({r[0][key] for r in rows})}
    return out


def pool(count):
    """More held-out problems than problems.jsonl has, `count` of each family: for measuring each family's score."""
    return problems.held_out_problems(seed=900000, counts={f: count for f in problems.FAMILIES})


@torch.no_grad()
def trained_forward(tensors, ids, offset):
    """Logits [T, vocab] of one request as training computes them: Model, un-absorbed, bf16 autocast, keys as a mask."""
    model = Model(SIZES).load_export(tensors)
    with torch.autocast("cpu", torch.bfloat16):
        return model(torch.tensor(ids)[None], offset + torch.arange(len(ids)), SIZES["top_k"])[0][0]


def write_sample(path, tensors, held_out, metadata):
    """Problems of SAMPLES families, offsets in turn, with their solutions: ids, and the logits that predict the solution's
    tokens, of reference_forward and of trained_forward on the CPU."""
    out, families = {}, {}
    for p in held_out:
        n = len(families)
        if n < SAMPLES and p["family"] not in families and p["offset"] == problems.OFFSETS[n % len(problems.OFFSETS)]:
            families[p["family"]] = p["id"]
            ids = p["prompt_ids"] + p["solution_ids"]
            out[f"{n}.ids"] = torch.tensor(ids, dtype=torch.int32)
            out[f"{n}.offset"] = torch.tensor([p["offset"]], dtype=torch.int32)
            rows = slice(len(p["prompt_ids"]) - 1, len(ids) - 1)
            out[f"{n}.logits"] = reference_forward(tensors, ids, p["offset"])[rows]
            out[f"{n}.trained_logits"] = trained_forward(tensors, ids, p["offset"])[rows]
    write_safetensors(path, out, {**metadata, "problems": json.dumps(list(families.values())), "top_k": str(SIZES["top_k"])})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parents[2] / "data/gsm8k")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=8800)
    parser.add_argument("--rows", type=int, default=48, help="rows of a step")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=int, default=200, help="steps between lines of the log")
    parser.add_argument("--pool", type=int, default=100, help="held-out problems of each family that are measured besides")
    parser.add_argument("--only-measure", action="store_true", help="the model in --out; writes metrics and sample anew")
    parser.add_argument("--only-sample", action="store_true", help="of the model in --out; writes torch_logits.safetensors anew")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    begin = time.time()
    name = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor() or platform.machine()
    metadata = {"torch": torch.__version__, "device": name, "seed": str(args.seed)}
    metrics, path = dict(metadata), args.out / "model.safetensors"
    if args.only_sample:
        tensors, _ = read_safetensors(path)
        write_sample(args.out / "torch_logits.safetensors", tensors, problems.held_out_problems(), metadata)
        return
    if args.only_measure:
        metrics = json.loads((args.out / "metrics.json").read_text())
    else:
        model, more = train(args, args.device)
        metrics.update(more, date=time.strftime("%Y-%m-%d"))
        write_safetensors(path, model.export(), {**metadata, **{k: str(v) for k, v in SIZES.items()}, "eps": "1e-6"})
        del model
    tensors, _ = read_safetensors(path)
    print(f"{path}: {path.stat().st_size} bytes", flush=True)
    held_out = problems.held_out_problems()
    metrics["problems"], metrics["pool"] = {}, {}
    for top_k in (32, 12, 8):
        metrics["problems"][f"top_k {top_k}"] = result = summary(measure(tensors, held_out, args.device, top_k))
        print(f"top-k {top_k}:", json.dumps(result), flush=True)
        if args.pool:
            metrics["pool"][f"top_k {top_k}"] = result = summary(measure(tensors, pool(args.pool), args.device, top_k))
            print(f"top-k {top_k}, {args.pool} of each family:", json.dumps(result), flush=True)
    write_sample(args.out / "torch_logits.safetensors", tensors, held_out, metadata)
    metrics["seconds"] = round(time.time() - begin, 1)
    (args.out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    print(f"all: {metrics['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
