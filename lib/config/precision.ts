// DeepSpeed's sections on number formats: bf16, fp16, data_types, and two of PyTorch that are refused.

import { hint, refused, refusedSection, section, served } from './schema.js'
import { anything, boolean, floatType, integer, list, nullable, number, oneOf, orNull, string } from './values.js'

const positive = integer({ min: 1 })

export const bf16 = section(
  'bfloat16 parameters and activations, f32 master weights and moments.',
  {
    enabled: served(boolean, false, 'train in bf16'),
    check_grad_overflow: refused(boolean, true, 'updates with infinite gradients are always left out; leave it out'),
    immediate_grad_update: hint(boolean, false, 'gradients are always summed at once'),
    bf16_master_weights_and_grads: refused(boolean, false, 'master weights are f32; data_types sets the gradients'),
    bf16_optimizer_states: refused(boolean, false, 'moments are f32; leave it out'),
  },
  { auto: true },
)

export const fp16 = section(
  'float16 parameters and activations, f32 master weights and moments, and a loss scale.',
  {
    enabled: served(boolean, false, 'train in fp16; not together with bf16'),
    auto_cast: hint(
      boolean,
      false,
      "token ids need no cast; give other inputs in the model's type, ops.cast makes one",
    ),
    loss_scale: served(number({ min: 0 }), 0, 'a fixed loss scale; 0: it follows the gradients'),
    initial_scale_power: served(integer({ min: 0, max: 126 }), 16, 'the first loss scale is 2 to this power'),
    loss_scale_window: served(positive, 1000, 'steps without overflow after which the loss scale doubles'),
    hysteresis: served(positive, 2, 'overflows it takes to halve the loss scale'),
    consecutive_hysteresis: served(boolean, false, 'a step without overflow makes the count of overflows full again'),
    min_loss_scale: served(
      number({ above: 0 }),
      1,
      'the loss scale never falls below it; an overflow there is an error',
    ),
    fp16_master_weights_and_grads: refused(boolean, false, 'master weights are f32; data_types sets the gradients'),
  },
  { auto: true },
)

export const fp8 = section(
  'Products of linear layers in 8 bits, one scale for each tensor; everything else as in bf16. Words of Transformer Engine.',
  {
    enabled: served(boolean, false, 'linears multiply in 8 bits; needs bf16, on CUDA capability 8.9 or newer'),
    format: served(
      oneOf(['hybrid', 'e4m3'], true),
      'hybrid',
      '"hybrid": e4m3 for inputs and weights, e5m2 for gradients; "e4m3": for all',
    ),
    recipe: served(
      oneOf(['delayed', 'current']),
      'delayed',
      '"delayed": scales follow from the steps before; "current": from the tensor itself, measured first',
    ),
    amax_history_len: served(
      integer({ min: 1, max: 65536 }),
      1024,
      'steps whose largest values are kept; delayed alone',
    ),
    amax_compute_algo: served(
      oneOf(['max', 'most_recent']),
      'max',
      'which of them makes the scale: the largest, or the last; delayed alone',
    ),
    margin: served(integer({ min: 0, max: 32 }), 0, 'scales are divided by 2 to this power'),
    exclude: served(
      list(string),
      [],
      'paths of linears that stay in bf16: `*` is one name, `**` any number, `{a,b}` either. Embeddings, norms and the classifier always do',
    ),
  },
)

export const dataTypes = section('Element types.', {
  grad_accum_dtype: served(
    orNull(floatType, 'fp32'),
    'fp32',
    'type in which gradients are kept and added up, over micro-batches and ranks; null: fp32',
  ),
  param_dtype: refused(nullable(string), null, 'use bf16.enabled or fp16.enabled'),
  buffer_dtype: refused(nullable(string), null, 'buffers keep the type that the model gives them; leave it out'),
})

export const torchAutocast = refusedSection('it is of PyTorch; use bf16', {
  enabled: served(boolean, false, ''),
  dtype: served(anything, null, ''),
  lower_precision_safe_modules: served(anything, null, ''),
})

export const amp = refusedSection('it is of NVIDIA Apex; use bf16 or fp16', {
  enabled: served(boolean, false, ''),
  opt_level: served(anything, null, ''),
  loss_scale: served(anything, null, ''),
  master_weights: served(anything, null, ''),
  keep_batchnorm_fp32: served(anything, null, ''),
})
