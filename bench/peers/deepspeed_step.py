"""DeepSpeed's training step beside bench/device: the model of torch_device.py under ZeRO, started by torchrun on all ranks.

usage: torchrun --nproc_per_node N deepspeed_step.py --stage {1,2,3} --device cuda --model JSON --micro N --steps N --warmup N
Rank 0 prints one JSON line: seconds of each step, tokens of a step over all ranks, the loss, peak memory.
"""
import argparse
import json
import os
import time

import deepspeed
import torch
from torch_device import Model, batch


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--stage", type=int, required=True)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--model", required=True)
    for name, default in [("micro", 1), ("steps", 8), ("warmup", 3)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    model = json.loads(args.model)
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = args.device
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    engine, *_ = deepspeed.initialize(
        model=Model(model["config"]),
        config={
            "train_micro_batch_size_per_gpu": args.micro,
            "gradient_clipping": 1.0,
            "bf16": {"enabled": True},
            "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "betas": [0.9, 0.95], "weight_decay": 0.1}},
            "zero_optimization": {"stage": args.stage},
        },
    )
    sequence, seconds = model["sizes"]["sequence"], []
    for _ in range(args.warmup + args.steps):
        ids, targets = batch(model["config"], args.micro, sequence, device)
        start = time.perf_counter()
        loss = engine(ids, targets)
        engine.backward(loss)
        engine.step()
        value = loss.item()
        if args.device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() if args.device == "cuda" else 0
    if rank == 0:
        told = {"version": deepspeed.__version__, "seconds": seconds[args.warmup :], "tokens": ranks * args.micro * sequence, "loss": value, "peak": peak}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
