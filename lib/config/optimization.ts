// DeepSpeed's sections optimizer and scheduler.

import { hint, refused, section, served } from './schema.js'
import { anything, boolean, integer, list, nullable, number, oneOf } from './values.js'

const positive = integer({ min: 1 })
const rate = number({ min: 0 })
const fraction = number({ min: 0, below: 1 })

const optimizerTypes = ['AdamW', 'Adam', 'Lamb', 'Lion', 'Adagrad', 'SGD', 'Muon'] as const
/** DeepSpeed's other optimizers: why not, and what to use. */
export const refusedOptimizers: Record<string, string> = {
  OneBitAdam: 'compressed gradients change the result; use AdamW',
  ZeroOneAdam: 'compressed gradients change the result; use AdamW',
  OneBitLamb: 'compressed gradients change the result; use Lamb',
  MuAdam: 'it needs the base shapes of the mup package; use Adam with a learning rate for each parameter group',
  MuAdamW: 'it needs the base shapes of the mup package; use AdamW with a learning rate for each parameter group',
  MuSGD: 'it needs the base shapes of the mup package; use SGD with a learning rate for each parameter group',
}
const optimizerNames = [...optimizerTypes, ...Object.keys(refusedOptimizers)]

export const optimizer = section('The optimizer.', {
  type: served(
    { ...oneOf(optimizerNames, true), label: oneOf(optimizerTypes).label },
    'AdamW',
    'AdamW, Adam (which is AdamW too unless adam_w_mode is false), Lamb, Lion, Adagrad, SGD or Muon',
  ),
  params: served(anything, {}, 'by type; see below'),
  legacy_fusion: hint(boolean, false, 'there is one fusion'),
})

const common = (lr: number) => ({
  lr: served(rate, lr, 'learning rate'),
  ...decay,
})
const decay = {
  weight_decay: served(rate, 0, 'weight decay; L2 in Adagrad, SGD and Adam without adam_w_mode'),
  weight_decay_on: served(oneOf(['all', 'matrices']), 'all', '"matrices": biases and norms are not decayed'),
  max_grad_norm: refused(nullable(rate), null, 'use gradient_clipping at the top level'),
}
const oneKernel = 'there is one kernel for each optimizer, fused'
const fused = { fused: hint(boolean, true, oneKernel), foreach: hint(nullable(boolean), null, oneKernel) }
const betas = (beta2: number) =>
  served(list(fraction, 2), [0.9, beta2], 'how much of the running averages an update keeps')
const epsilon = (eps: number) => served(number({ above: 0 }), eps, 'added to the root of the squared gradients')
const biasCorrection = served(boolean, true, 'moments are corrected for their start at zero')
const amsgrad = refused(boolean, false, 'AMSGrad does not exist here; leave it out')
const maximize = refused(boolean, false, 'losses are minimised; change the sign of the loss')

const adam = {
  ...common(1e-3),
  betas: betas(0.999),
  eps: epsilon(1e-8),
  bias_correction: biasCorrection,
  torch_adam: hint(boolean, false, oneKernel),
  ...fused,
  amsgrad,
  maximize,
}
/** Parameters of each optimizer. */
export const optimizerParams = {
  AdamW: section('Adam with decoupled weight decay.', {
    ...adam,
    adam_w_mode: refused(boolean, true, 'AdamW always decouples weight decay; use type Adam'),
  }),
  Adam: section('The same, unless adam_w_mode is false.', {
    ...adam,
    adam_w_mode: served(boolean, true, 'false: L2 regularisation instead of decoupled weight decay'),
  }),
  Lamb: section('Adam with a trust ratio for each parameter.', {
    ...common(1e-3),
    betas: betas(0.999),
    eps: epsilon(1e-8),
    eps_inside_sqrt: served(boolean, false, 'eps is added under the root'),
    bias_correction: biasCorrection,
    max_coeff: served(rate, 10, 'largest trust ratio'),
    min_coeff: served(rate, 0.01, 'smallest trust ratio'),
    amsgrad,
  }),
  Lion: section('Steps by the sign of the momentum.', { ...common(1e-3), betas: betas(0.99), ...fused }),
  Adagrad: section('Steps by the sum of squared gradients.', {
    ...common(1e-2),
    eps: epsilon(1e-10),
    lr_decay: served(rate, 0, 'the rate of update n is divided by 1 + (n - 1) times this'),
    initial_accumulator_value: refused(rate, 0, 'sums begin at 0; raise eps, or leave it out'),
    ...fused,
    amsgrad,
    maximize,
  }),
  SGD: section('Stochastic gradient descent.', {
    ...common(1e-3),
    momentum: served(fraction, 0, 'part of the last step that is kept; 0: no state'),
    dampening: served(number({ min: 0, max: 1 }), 0, 'part of a gradient that does not enter the momentum'),
    nesterov: served(boolean, false, 'the step looks ahead'),
    ...fused,
    maximize,
  }),
  Muon: section('Orthogonal steps for hidden matrices, AdamW for the rest.', {
    lr: served(nullable(rate), null, 'learning rate of both halves; default: 0.02, and 3e-4 for adam_lr'),
    muon_lr: served(nullable(rate), null, 'of the matrices, where the schedule gives lr; default: lr'),
    adam_lr: served(nullable(rate), null, 'of the rest, where the schedule gives lr; default: lr'),
    ...decay,
    momentum: served(fraction, 0.95, 'how much of the momentum an update keeps'),
    nesterov: served(boolean, true, 'the step looks ahead'),
    ns_steps: served(integer({ min: 1, max: 20 }), 5, 'Newton-Schulz iterations'),
    ns_method: hint(oneOf(['gram', 'standard']), 'gram', 'both give the same up to rounding'),
    per_head_muon: refused(boolean, false, 'matrices are made orthogonal whole; leave it out'),
    betas: betas(0.95),
    eps: epsilon(1e-10),
    ...fused,
  }),
}
/** Optimizers with betas, of which OneCycle can cycle the first. */
export const withBetas: readonly string[] = ['AdamW', 'Adam', 'Lamb', 'Lion']

export const scheduler = section('The learning-rate schedule.', {
  type: served(
    nullable(oneOf(['WarmupLR', 'WarmupDecayLR', 'WarmupCosineLR', 'OneCycle', 'LRRangeTest'], true)),
    null,
    'none: a constant rate',
  ),
  params: served(anything, {}, 'by type; see below'),
})

const warmup = {
  warmup_num_steps: served(
    integer(),
    1000,
    'updates of the warm-up; it begins with the second, as in DeepSpeed (0: no warm-up)',
  ),
  warmup_type: served(oneOf(['log', 'linear']), 'log', 'shape of the warm-up'),
}
const bounds = {
  warmup_min_lr: served(rate, 0, 'rate of the first update'),
  warmup_max_lr: served(nullable(rate), null, "rate after the warm-up; default: the optimizer's"),
}
const total = { total_num_steps: served(nullable(positive), null, 'updates in all; default: train.steps') }
/** Parameters of each schedule. */
export const schedulerParams = {
  WarmupLR: section('From warmup_min_lr to warmup_max_lr, then constant.', { ...bounds, ...warmup }),
  WarmupDecayLR: section('The same, then linearly to 0.', { ...bounds, ...warmup, ...total }),
  WarmupCosineLR: section('Warm-up by ratios of the rate, then half a cosine.', {
    ...warmup,
    ...total,
    warmup_min_ratio: served(fraction, 0, 'part of the rate at which the warm-up begins; the first update has rate 0'),
    cos_min_ratio: served(number({ min: 0, max: 1 }), 1e-4, "last update's part of the rate"),
  }),
  OneCycle: section('Up, down, then decay; momentum the other way.', {
    cycle_min_lr: served(nullable(rate), null, 'rate at both ends of the cycle; needed'),
    cycle_max_lr: served(nullable(rate), null, 'rate at its middle; needed'),
    cycle_first_step_size: served(positive, 2000, 'updates of the first half'),
    cycle_second_step_size: served(nullable(integer()), null, 'updates of the second half; default: as the first'),
    cycle_first_stair_count: served(integer(), 0, 'stairs of the first half; 0: smooth'),
    cycle_second_stair_count: served(nullable(integer()), null, 'stairs of the second half; default: as the first'),
    decay_step_size: served(integer(), 0, 'updates of a unit of decay after the cycle; 0: no decay'),
    decay_lr_rate: served(rate, 0, 'decay of the rate: divided by 1 + this, 1 + twice this, …'),
    cycle_momentum: served(boolean, true, 'the first beta goes the other way'),
    cycle_min_mom: served(fraction, 0.8, 'first beta at the middle of the cycle'),
    cycle_max_mom: served(fraction, 0.9, 'first beta at both ends'),
    decay_mom_rate: served(rate, 0, 'growth of the first beta after the cycle'),
  }),
  LRRangeTest: section('A rate that grows without end, to find the largest one that trains.', {
    lr_range_test_min_lr: served(rate, 1e-3, 'rate of the first update'),
    lr_range_test_step_size: served(positive, 2000, 'updates of one growth'),
    lr_range_test_step_rate: served(rate, 1, 'growth: the first rate times this'),
    lr_range_test_staircase: served(boolean, false, 'it grows in stairs'),
  }),
}
