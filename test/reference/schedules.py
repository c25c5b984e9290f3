# Writes schedules.json: the rate (and first beta) of each update by DeepSpeed's schedules, in its engine's order: the
# schedule's constructor, then for each update the optimizer's step and after it the schedule's. So a warm-up's update i
# has the rate of iteration i - 1, and the first one that of the constructor.
#   python3 -m venv venv && venv/bin/pip install torch==2.13.0 deepspeed==0.19.6 && venv/bin/python test/reference/schedules.py
import json
import pathlib

import torch
from deepspeed.runtime import lr_schedules

BASE = 0.05


def run(kind, params, count=30):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=BASE, betas=(0.6, 0.7))
    schedule = getattr(lr_schedules, kind)(optimizer, **params)
    group = optimizer.param_groups[0]
    rates, momenta = [], []
    for _ in range(count):
        rates.append(group['lr'])
        momenta.append(group['betas'][0])
        schedule.step()
    # Before its first step OneCycle sets the lower momentum.
    momentum = momenta[1:] if kind == 'OneCycle' and params.get('cycle_momentum', True) else None
    return {'type': kind, 'params': params, 'rates': rates, **({'momentum': momentum} if momentum else {})}


cycle = {'cycle_min_lr': 0.01, 'cycle_max_lr': 0.11, 'cycle_first_step_size': 8}
result = [
    run('WarmupLR', {'warmup_num_steps': 10}),
    run('WarmupLR', {'warmup_min_lr': 0.01, 'warmup_max_lr': 0.2, 'warmup_num_steps': 7, 'warmup_type': 'linear'}),
    run('WarmupLR', {'warmup_num_steps': 1, 'warmup_type': 'linear'}),
    run('WarmupDecayLR', {'total_num_steps': 25, 'warmup_num_steps': 6, 'warmup_min_lr': 0.001, 'warmup_max_lr': 0.1}),
    run('WarmupDecayLR', {'total_num_steps': 9, 'warmup_num_steps': 9, 'warmup_max_lr': 0.1, 'warmup_type': 'linear'}),
    run('WarmupCosineLR', {'total_num_steps': 25, 'warmup_num_steps': 6, 'warmup_type': 'linear'}),
    run('WarmupCosineLR', {'total_num_steps': 20, 'warmup_num_steps': 5, 'warmup_min_ratio': 0.1, 'cos_min_ratio': 0.2}),
    run('OneCycle', cycle),
    run('OneCycle', {**cycle, 'cycle_second_step_size': 5, 'cycle_min_mom': 0.85, 'cycle_max_mom': 0.99,
                     'decay_step_size': 3, 'decay_lr_rate': 0.5, 'decay_mom_rate': 0.0001}),
    run('OneCycle', {**cycle, 'cycle_first_stair_count': 3, 'cycle_second_step_size': 11, 'cycle_second_stair_count': 4}),
    run('OneCycle', {**cycle, 'cycle_first_stair_count': 4, 'cycle_momentum': False, 'decay_step_size': 2, 'decay_lr_rate': 1}),
    run('LRRangeTest', {'lr_range_test_min_lr': 0.02, 'lr_range_test_step_size': 4, 'lr_range_test_step_rate': 1.5}),
    run('LRRangeTest', {'lr_range_test_step_size': 7, 'lr_range_test_staircase': True}),
]
pathlib.Path(__file__).with_suffix('.json').write_text(json.dumps(result) + '\n')
