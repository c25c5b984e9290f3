# Writes optim.json: parameters after five updates by PyTorch's optimizers, in float64 on the CPU (Muon's iteration
# is in bfloat16, as PyTorch has it). Values and gradients are formulas, which test/op/optim.test.ts computes again.
#   python3 -m venv venv && venv/bin/pip install torch==2.13.0 && venv/bin/python test/reference/optim.py
import json
import pathlib

import torch

STEPS = 5


def value(i):
    return ((i * 37) % 101 - 50) / 32


def gradient(i, step):
    return ((i * 53 + step * 29) % 97 - 48) / 64


def run(make, shape, max_norm=0.0):
    count = shape[0] * shape[1]
    parameter = torch.nn.Parameter(torch.tensor([value(i) for i in range(count)], dtype=torch.float64).reshape(shape))
    optimizer = make([parameter])
    for step in range(1, STEPS + 1):
        parameter.grad = torch.tensor([gradient(i, step) for i in range(count)], dtype=torch.float64).reshape(shape)
        if max_norm:
            torch.nn.utils.clip_grad_norm_([parameter], max_norm)
        optimizer.step()
    return {'shape': shape, 'maxNorm': max_norm, 'values': parameter.detach().flatten().tolist()}


o = torch.optim
row, matrix = [1, 43], [6, 9]
result = {
    'torch': torch.__version__,
    'steps': STEPS,
    'cases': {
        'AdamW': run(lambda p: o.AdamW(p, lr=0.01, betas=(0.8, 0.97), eps=1e-6, weight_decay=0.2), row),
        'AdamW clipped': run(lambda p: o.AdamW(p, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1), row, 0.5),
        'Adam with L2': run(lambda p: o.Adam(p, lr=0.01, betas=(0.9, 0.999), weight_decay=0.2), row),
        'SGD': run(lambda p: o.SGD(p, lr=0.1, weight_decay=0.05), row),
        'SGD with momentum': run(lambda p: o.SGD(p, lr=0.1, momentum=0.9, dampening=0.3), row, 0.7),
        'SGD of Nesterov': run(lambda p: o.SGD(p, lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.05), row),
        'Adagrad': run(lambda p: o.Adagrad(p, lr=0.1, lr_decay=0.2, weight_decay=0.05), row),
        'Muon wide': run(lambda p: o.Muon(p, lr=0.1, weight_decay=0.1, momentum=0.9), matrix),
        'Muon tall': run(lambda p: o.Muon(p, lr=0.1, weight_decay=0.1, momentum=0.9, nesterov=False), matrix[::-1]),
    },
}
pathlib.Path(__file__).with_suffix('.json').write_text(json.dumps(result) + '\n')
