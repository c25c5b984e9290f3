"""PyTorch beside bench/device: the same kernels and training steps, on a GPU (timed by its events) or on the CPU.

usage: torch_device.py kernels --device {cuda,cpu} --cases JSON         prints seconds by the cases' names
       torch_device.py step --mode {eager,compiled} --device {cuda,cpu} --model JSON --micro N --steps N --warmup N
                                                                        prints seconds of each step, its tokens, the loss
Steps keep f32 weights under autocast to bf16 (as our f32 masters), fused AdamW, SDPA, clipping 1.0.
"""
import argparse
import contextlib
import json
import time

import torch
from torch import nn
from torch.nn import functional as F


def median(values):
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def seconds_of(device, body, repeats=20):
    """The median over calls; on a GPU by events around each, queued without a wait."""
    for _ in range(3):
        body()
    if device == "cpu":
        times = []
        for _ in range(5):
            start = time.perf_counter()
            body()
            times.append(time.perf_counter() - start)
        return median(times)
    torch.cuda.synchronize()
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for begin, end in events:
        begin.record()
        body()
        end.record()
    torch.cuda.synchronize()
    return median([begin.elapsed_time(end) / 1e3 for begin, end in events])


def random(shape, device, dtype=torch.bfloat16):
    return torch.randn(shape, device=device, dtype=torch.float32).to(dtype)


def backward_of(y, dy, inputs):
    return lambda: torch.autograd.grad(y, inputs, dy, retain_graph=True)


def kernel(case, device):
    """A call of the case's kernel."""
    kind, size, variant = case["kind"], case["size"], case.get("variant", "")
    if kind == "adamw":
        p = nn.Parameter(random(size, device, torch.float32))
        p.grad = random(size, device, torch.float32)
        return torch.optim.AdamW([p], lr=1e-4, fused=True).step
    if kind == "norm":
        which, direction = variant.split()
        x = random(size, device).requires_grad_()
        weight, bias = (random(size[1:], device).requires_grad_() for _ in range(2))
        forward = (lambda: F.layer_norm(x, size[1:], weight, bias)) if which == "layer" else (lambda: F.rms_norm(x, size[1:], weight))
        if direction == "forward":
            return lambda: forward().detach()
        return backward_of(forward(), random(size, device), [x, weight] + ([bias] if which == "layer" else []))
    if kind == "classifier":
        logits = random(size, device).requires_grad_()
        targets = torch.randint(size[1], (size[0],), device=device)
        return lambda: torch.autograd.grad(F.cross_entropy(logits, targets), logits)
    if kind == "matmul":
        m, n, k = size
        a, b = random((m, k), device), random((k, n), device)
        return lambda: torch.matmul(a, b)
    if kind == "attention":
        b, t, h, d = size
        q, k, v = (random((b, h, t, d), device).requires_grad_() for _ in range(3))
        forward = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return (lambda: forward().detach()) if variant == "forward" else backward_of(forward(), random((b, h, t, d), device), [q, k, v])
    raise ValueError(f"no kernel of kind {kind}")


class Attention(nn.Module):
    def __init__(self, width, heads, kv_heads, theta, bias):
        super().__init__()
        self.heads, self.kv_heads, self.size, self.theta = heads, kv_heads, width // heads, theta
        self.qkv = nn.Linear(width, (heads + 2 * kv_heads) * self.size, bias=bias)
        self.proj = nn.Linear(width, width, bias=bias)

    def rotate(self, x):
        t, d = x.shape[-2:]
        angles = torch.outer(torch.arange(t, device=x.device), self.theta ** (-torch.arange(0, d, 2, device=x.device) / d))
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

    def forward(self, x):
        b, t, c = x.shape
        parts = self.qkv(x).split([self.heads * self.size, self.kv_heads * self.size, self.kv_heads * self.size], dim=2)
        q, k, v = (part.view(b, t, -1, self.size).transpose(1, 2) for part in parts)
        if self.theta:
            q, k = self.rotate(q), self.rotate(k)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.heads != self.kv_heads)
        return self.proj(y.transpose(1, 2).reshape(b, t, c))


class Swiglu(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False), nn.Linear(inner, width, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        llama = c["model_type"] == "llama"
        width = c["hidden_size"] if llama else c["n_embd"]
        norm = (lambda: nn.RMSNorm(width)) if llama else (lambda: nn.LayerNorm(width))
        self.first, self.second = norm(), norm()
        if llama:
            self.attention = Attention(width, c["num_attention_heads"], c["num_key_value_heads"], c["rope_theta"], False)
            self.mlp = Swiglu(width, c["intermediate_size"])
        else:
            self.attention = Attention(width, c["n_head"], c["n_head"], 0, True)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

    def forward(self, x):
        x = x + self.attention(self.first(x))
        return x + self.mlp(self.second(x))


class Model(nn.Module):
    """A GPT-2 or Llama by its Hugging Face configuration."""

    def __init__(self, c):
        super().__init__()
        llama = c["model_type"] == "llama"
        width, layers = (c["hidden_size"], c["num_hidden_layers"]) if llama else (c["n_embd"], c["n_layer"])
        self.tokens = nn.Embedding(c["vocab_size"], width)
        self.positions = None if llama else nn.Embedding(c["n_positions"], width)
        self.blocks = nn.ModuleList(Block(c) for _ in range(layers))
        self.last = nn.RMSNorm(width) if llama else nn.LayerNorm(width)
        self.head = None if c.get("tie_word_embeddings", not llama) else nn.Linear(width, c["vocab_size"], bias=False)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, ids, targets):
        x = self.tokens(ids)
        if self.positions is not None:
            x = x + self.positions.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.last(x), self.tokens.weight if self.head is None else self.head.weight)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def batch(config, micro, sequence, device):
    return torch.randint(config["vocab_size"], (2, micro, sequence), device=device).unbind()


def wait(device):
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def step(args):
    model = json.loads(args.model)
    config, sequence = model["config"], model["sizes"]["sequence"]
    torch.manual_seed(1)
    with torch.device(args.device):
        net = Model(config)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    run = torch.compile(net) if args.mode == "compiled" else net
    seconds = []
    for _ in range(args.warmup + args.steps):
        ids, targets = batch(config, args.micro, sequence, args.device)
        wait(args.device)
        start = time.perf_counter()
        with torch.autocast(args.device, dtype=torch.bfloat16):
            loss = run(ids, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        value = loss.item()
        wait(args.device)
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() if args.device == "cuda" else 0
    return {"version": torch.__version__, "seconds": seconds[args.warmup :], "tokens": args.micro * sequence, "loss": value, "peak": peak}


def kernels(args):
    times = {}
    for case in json.loads(args.cases):
        with contextlib.suppress(torch.OutOfMemoryError):
            times[case["name"]] = seconds_of(args.device, kernel(case, args.device))
    return times


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["kernels", "step"])
    parser.add_argument("--device", choices=["cuda", "cpu"], required=True)
    parser.add_argument("--mode", choices=["eager", "compiled"], default="eager")
    parser.add_argument("--cases")
    parser.add_argument("--model")
    for name, default in [("micro", 1), ("steps", 8), ("warmup", 3)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    print(json.dumps(step(args) if args.what == "step" else kernels(args)))


if __name__ == "__main__":
    main()
