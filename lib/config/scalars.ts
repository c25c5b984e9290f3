// DeepSpeed's top-level scalars: batch, gradients, communication, reports.

import { hint, refused, served } from './schema.js'
import { anything, boolean, floatType, integer, nullable, number, oneOf, string } from './values.js'

const positive = integer({ min: 1 })

export const scalars = {
  train_batch_size: served(
    nullable(positive),
    null,
    'samples of an update over all ranks: micro-batch x accumulation x data-parallel ranks; give it or the micro-batch',
  ),
  train_micro_batch_size_per_gpu: served(nullable(positive), null, 'samples of one forward pass on one rank'),
  gradient_accumulation_steps: served(
    nullable(positive),
    null,
    'forward and backward passes of an update; 1 where it does not follow from the other two',
  ),
  managed_gradient_accumulation: refused(boolean, true, 'the engine keeps the boundary of accumulation; leave it out'),
  gradient_clipping: served(number({ min: 0 }), 1, 'largest global gradient norm; 0: no clipping'),
  gradient_allreduce_op: served(
    oneOf(['mean', 'sum'], true),
    'mean',
    'gradients of the data-parallel ranks are averaged or added; "sum" not at ZeRO stage 3',
  ),
  prescale_gradients: served(
    boolean,
    false,
    'gradients that travel in 16 bits are divided by the number of ranks before they are added, not after',
  ),
  gradient_predivide_factor: served(
    number({ above: 0 }),
    1,
    'without prescale_gradients, in 16 bits: they are divided by it before they are added, and by the rest after',
  ),
  communication_data_type: served(
    nullable(floatType),
    null,
    'type in which gradients travel; null: that in which they are accumulated',
  ),
  seq_parallel_communication_data_type: hint(floatType, 'fp32', 'partial sums travel as f32'),
  sparse_gradients: hint(boolean, false, 'embedding gradients are dense; the sum is the same'),
  disable_allgather: hint(boolean, false, 'it tunes communication only'),
  zero_allow_untested_optimizer: hint(boolean, false, 'every optimizer here is tested with ZeRO'),
  zero_force_ds_cpu_optimizer: hint(boolean, true, 'the optimizer is always our own'),
  dataloader_drop_last: hint(boolean, false, 'batches are always full'),
  sequence_parallel_size: served(nullable(positive), null, 'the same as mesh.context, with Ulysses attention'),
  data_parallel_size: served(nullable(positive), null, 'a check: it must be what the world and the mesh leave'),
  use_data_before_expert_parallelism: hint(boolean, false, 'which rank holds which expert cannot change a result'),
  graph_harvesting: hint(boolean, false, 'it is of CUDA graphs and moves time only'),
  vocabulary_size: hint(nullable(integer()), null, "it only warns in DeepSpeed; the model's vocab_size counts"),
  check_overflow: hint(anything, null, 'DeepSpeed does not read it; bf16 and fp16 have their own checks'),
  steps_per_print: served(nullable(number({ above: 0 })), null, 'steps between printed lines; null: the progress line'),
  wall_clock_breakdown: served(boolean, false, 'print the time of forward, backward and step'),
  memory_breakdown: served(boolean, false, 'print the bytes of parameters, gradients, optimizer and activations'),
  cuda_graphs: served(
    boolean,
    false,
    "trainBatch()'s steps are captured by the device once and launched as one graph; where they cannot be, a note says why",
  ),
  dump_state: served(
    boolean,
    false,
    'print the resolved configuration, the mesh and the units of the model at the start (rank 0, stderr)',
  ),
  log_level: hint(nullable(string), null, 'use --quiet or --verbose'),
}
