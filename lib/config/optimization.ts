// DeepSpeed's sections optimizer and scheduler.

import { hint, refused, section, served } from './schema.js'
import { anything, boolean, integer, list, nullable, number, oneOf } from './values.js'

const positive = integer({ min: 1 })
const rate = number({ min: 0 })
const fraction = number({ min: 0, below: 1 })

export const optimizer = section('The optimizer.', {
  type: served(
    oneOf(['AdamW', 'Adam'], true),
    'AdamW',
    'AdamW, or Adam (which is AdamW too unless adam_w_mode is false)',
  ),
  params: section('Its parameters.', {
    lr: served(rate, 1e-3, 'learning rate'),
    betas: served(list(fraction, 2), [0.9, 0.999], 'decay of the first and second moment'),
    eps: served(number({ above: 0 }), 1e-8, 'added to the root of the second moment'),
    weight_decay: served(rate, 0, 'decoupled weight decay (L2 where adam_w_mode is false)'),
    weight_decay_on: served(oneOf(['all', 'matrices']), 'all', '"matrices": biases and norms are not decayed'),
    adam_w_mode: served(boolean, true, 'false: Adam with L2 regularisation (type Adam only)'),
    bias_correction: served(boolean, true, 'moments are corrected for their start at zero'),
    torch_adam: hint(boolean, false, 'there is one AdamW, fused'),
    fused: hint(boolean, true, 'there is one AdamW, fused'),
    amsgrad: refused(boolean, false, 'AMSGrad does not exist here; leave it out'),
    max_grad_norm: refused(nullable(rate), null, 'use gradient_clipping at the top level'),
  }),
  legacy_fusion: hint(boolean, false, 'there is one fusion'),
})

export const scheduler = section('The learning-rate schedule.', {
  type: served(nullable(oneOf(['WarmupLR', 'WarmupDecayLR', 'WarmupCosineLR'], true)), null, 'none: a constant rate'),
  params: served(anything, {}, 'by type; see below'),
})

const warmup = {
  warmup_num_steps: served(integer(), 1000, 'updates of the warm-up'),
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
    warmup_min_ratio: served(fraction, 0, "first update's part of the rate"),
    cos_min_ratio: served(number({ min: 0, max: 1 }), 1e-4, "last update's part of the rate"),
  }),
}
