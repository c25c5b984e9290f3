// DeepSpeed's sections on what is computed: batch, optimizer, scheduler, precision, recomputation.

import { hint, hintSection, refused, refusedSection, section, served } from './schema.js'
import { anything, boolean, integer, list, nullable, number, oneOf, string } from './values.js'

const positive = integer({ min: 1 })
const rate = number({ min: 0 })
const fraction = number({ min: 0, below: 1 })

/** Top-level scalars. */
export const scalars = {
  train_batch_size: served(nullable(positive), null, 'samples of an update, over all ranks'),
  train_micro_batch_size_per_gpu: served(nullable(positive), null, 'samples of one forward pass on one rank'),
  gradient_accumulation_steps: served(nullable(positive), null, 'forward and backward passes of an update'),
  gradient_clipping: served(rate, 1, 'largest global gradient norm; 0: no clipping'),
  managed_gradient_accumulation: refused(boolean, true, 'the engine keeps the boundary of accumulation'),
  prescale_gradients: hint(boolean, false, 'gradients are summed in f32, where scaling before or after is the same'),
  gradient_predivide_factor: hint(
    number({ above: 0 }),
    1,
    'gradients are summed in f32, where scaling before or after is the same',
  ),
  gradient_allreduce_op: refused(oneOf(['mean', 'sum']), 'mean', 'gradients are averaged; scale the loss for a sum'),
  communication_data_type: refused(nullable(string), null, 'gradients travel as f32; leave it out'),
  seq_parallel_communication_data_type: hint(string, 'fp32', 'partial sums travel as f32'),
  sparse_gradients: hint(boolean, false, 'embedding gradients are dense; the sum is the same'),
  zero_allow_untested_optimizer: hint(boolean, false, 'every optimizer here is tested with ZeRO'),
  zero_force_ds_cpu_optimizer: hint(boolean, true, 'the optimizer is always our own'),
  dataloader_drop_last: hint(boolean, false, 'batches are always full'),
}

export const optimizer = section('The optimizer.', {
  type: served(
    oneOf(['AdamW', 'Adam'], true),
    'AdamW',
    'AdamW, or Adam (which is AdamW too unless adam_w_mode is false)',
    false,
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
  type: served(
    nullable(oneOf(['WarmupLR', 'WarmupDecayLR', 'WarmupCosineLR'], true)),
    null,
    'none: a constant rate',
    false,
  ),
  params: served(anything, {}, 'by type; see below', false),
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

export const bf16 = section('bfloat16 parameters and activations, f32 master weights, moments and gradient sums.', {
  enabled: served(boolean, false, 'train in bf16'),
  check_grad_overflow: refused(boolean, true, 'updates with infinite gradients are always left out'),
  immediate_grad_update: hint(boolean, false, 'gradients are always summed at once, in f32'),
  bf16_master_weights_and_grads: refused(boolean, false, 'master weights are f32'),
  bf16_optimizer_states: refused(boolean, false, 'moments are f32'),
})

export const fp16 = refusedSection('fp16 training is not there yet; use bf16, which needs no loss scale', {
  enabled: served(boolean, false, ''),
  auto_cast: served(boolean, false, ''),
  loss_scale: served(rate, 0, ''),
  initial_scale_power: served(integer(), 16, ''),
  loss_scale_window: served(positive, 1000, ''),
  hysteresis: served(positive, 2, ''),
  consecutive_hysteresis: served(boolean, false, ''),
  min_loss_scale: served(rate, 1, ''),
  fp16_master_weights_and_grads: served(boolean, false, ''),
})

export const dataTypes = section('Element types.', {
  grad_accum_dtype: refused(nullable(oneOf(['fp32'])), null, 'gradients are accumulated in f32; leave it out'),
  param_dtype: refused(nullable(string), null, 'use bf16.enabled'),
  buffer_dtype: refused(nullable(string), null, 'use bf16.enabled'),
})

export const torchAutocast = refusedSection('it is of PyTorch; use bf16', {
  enabled: served(boolean, false, ''),
  dtype: served(nullable(string), null, ''),
  lower_precision_safe_modules: served(nullable(list(string)), null, ''),
})
export const amp = refusedSection('it is of NVIDIA Apex; use bf16', {
  enabled: served(boolean, false, ''),
  opt_level: served(nullable(string), null, ''),
})

const memoryOnly = 'it moves memory only; results are the same without'
export const activationCheckpointing = section('Recomputation of activations in backward.', {
  number_checkpoints: served(
    nullable(integer()),
    null,
    'groups of consecutive blocks of which only the input is kept; null or 0: none',
  ),
  granularity: served(
    oneOf(['full', 'selective']),
    'full',
    'ours: "selective" computes only the attention of each block again, without number_checkpoints',
  ),
  partition_activations: hint(boolean, false, memoryOnly),
  cpu_checkpointing: hint(boolean, false, memoryOnly),
  contiguous_memory_optimization: hint(boolean, false, memoryOnly),
  synchronize_checkpoint_boundary: hint(boolean, false, memoryOnly),
  profile: hint(boolean, false, memoryOnly),
})

export const compile = hintSection('kernels are compiled ahead of time', {
  enabled: served(boolean, false, ''),
  deepcompile: served(boolean, false, ''),
  passes: served(anything, null, ''),
  double_buffer: served(boolean, true, ''),
  keep_int_input_tensors: served(boolean, true, ''),
  keep_all_input_tensors: served(boolean, false, ''),
  offload_activation_pin_memory: served(boolean, true, ''),
  free_activation: served(boolean, false, ''),
  free_activation_threshold: served(integer(), 10 * 2 ** 20, ''),
  offload_activation: served(boolean, false, ''),
  offload_opt_states: served(boolean, false, ''),
  offload_parameters: served(boolean, false, ''),
  symmetric_memory: served(boolean, false, ''),
  debug_log: served(boolean, false, ''),
  sync_before_reduce: served(boolean, false, ''),
  sync_after_reduce: served(boolean, false, ''),
  sync_before_allgather: served(boolean, false, ''),
  sync_after_allgather: served(boolean, false, ''),
})
