// Sections on how the model is cut over ranks, recomputed and saved: DeepSpeed's, with a few keys of our own.

import { hint, hintSection, refused, section, served } from './schema.js'
import { anything, boolean, integer, nullable, oneOf, orAuto, string, type ValueType } from './values.js'

const size = integer()
const positive = integer({ min: 1 })
const models = 'models say themselves how they are cut; leave it out'

/** How layers are dealt to stages; "best" is DeepSpeed's word for "parameters". */
const partition: ValueType<string> = {
  label: '"parameters", "time", "uniform" or "type:REGEX"',
  words: ['parameters', 'time', 'uniform', 'best', 'type:'],
  read: (v) => {
    if (typeof v !== 'string') return undefined
    const word = v.toLowerCase()
    if (word === 'best' || word === 'parameters') return 'parameters'
    if (word === 'uniform' || word === 'time') return word
    return word.startsWith('type:') && isRegex(v.slice(5)) ? `type:${v.slice(5)}` : undefined
  },
}

function isRegex(text: string): boolean {
  try {
    return text !== '' && new RegExp(text, 'i') instanceof RegExp
  } catch {
    return false
  }
}

export const schedules = ['gpipe', '1f1b', 'interleaved', 'zb-h1', 'zb-v'] as const

export const pipeline = section('Pipeline parallelism: layers in stages, one after the other.', {
  stages: served(orAuto(nullable(positive), null), null, 'the same as mesh.pipeline'),
  partition: served(
    partition,
    'parameters',
    'layers go to stages by parameters, by estimated time, by number, or by how many have a matching class name',
  ),
  schedule: served(oneOf(schedules), '1f1b', 'order of forward and backward passes; ours'),
  chunks: served(
    nullable(positive),
    null,
    'parts of the model on a stage, for "interleaved" (default 2) and "zb-v" (always 2); ours',
  ),
  seed_layers: hint(boolean, false, 'initial values do not depend on the layout'),
  activation_checkpoint_interval: refused(size, 0, 'use activation_checkpointing.number_checkpoints'),
  pipe_partitioned: hint(boolean, true, 'it moves communication only'),
  grad_partitioned: hint(boolean, true, 'it moves communication only'),
})

export const tensorParallel = section(
  'Tensor parallelism: matrices cut over ranks.',
  {
    autotp_size: served(size, 0, 'the same as mesh.tensor; 0: not given'),
    tp: section(
      'The same, older.',
      {
        tp_size: served(positive, 1, 'the same as mesh.tensor'),
        tp_grain_size: hint(positive, 1, 'heads are never cut'),
        mpu: refused(anything, null, 'use mesh'),
        tp_group: refused(anything, null, 'use mesh'),
      },
      { aliases: { tensor_parallel_size: 'tp_size' } },
    ),
    sequence_parallel: served(boolean, false, 'norms and dropout are cut along the sequence as well; ours'),
    dtype: hint(string, 'fp16', "the model's type counts"),
    tp_overlap_comm: served(boolean, false, 'products in pieces, whose communication runs beside the next piece'),
    overlap_chunks: served(positive, 4, 'pieces of a product with tp_overlap_comm; ours'),
    preset_model: refused(nullable(string), null, models),
    partition_config: refused(anything, null, models),
    injection_policy_tuple: refused(anything, null, models),
    keep_module_on_host: hint(boolean, false, 'parameters have no memory before they are placed'),
    replace_with_kernel_inject: hint(boolean, false, 'there is one set of kernels'),
  },
  { auto: true, aliases: { tensor_parallel: 'tp', kernel_inject: 'replace_with_kernel_inject' } },
)

export const contextParallel = section('Context parallelism: the sequence cut over ranks. Ours.', {
  type: served(
    nullable(oneOf(['ulysses', 'ring'])),
    null,
    'attention by exchanging heads for tokens ("ulysses"), or by passing keys and values on ("ring"); default: ulysses where the heads divide over the ranks, else ring',
  ),
})

const moe = (names: readonly string[]) =>
  Object.fromEntries(names.map((name) => [name, refused(anything, null, models)]))
export const expertParallel = section('Expert parallelism: the experts of a block dealt over ranks.', {
  enabled: served(boolean, false, 'whether autoep_size counts'),
  autoep_size: served(positive, 1, 'the same as mesh.expert'),
  expert_tensor_parallel_size: refused(positive, 1, 'experts are not cut; leave it out'),
  validate_folding_routing: hint(boolean, false, 'checks are always on'),
  use_grouped_mm: hint(boolean, true, 'it moves time only'),
  disable_triton_grouped_mm: hint(boolean, false, 'there is no Triton here'),
  ...moe([
    ...['preset_model', 'moe_layer_pattern', 'expert_pattern', 'router_pattern', 'route_norm', 'score_apply'],
    ...['combine_impl', 'num_expert_groups', 'num_limited_groups', 'score_func', 'top_k', 'load_balance_coeff'],
    ...['routed_scaling_factor', 'expert_w1', 'expert_w2', 'expert_w3', 'num_experts_attr', 'top_k_attr'],
    ...['has_shared_experts', 'shared_experts_pattern', 'shared_experts_gate_pattern', 'route_scale'],
  ]),
})

const memoryOnly = 'it moves memory only; results are the same without'
export const activationCheckpointing = section(
  'Recomputation of activations in backward.',
  {
    number_checkpoints: served(
      nullable(size),
      null,
      'groups of consecutive blocks of which only the input is kept; null or 0: none',
    ),
    granularity: served(
      oneOf(['full', 'selective']),
      'full',
      '"selective" computes only the attention of each block again, without number_checkpoints; ours',
    ),
    partition_activations: hint(boolean, false, memoryOnly),
    cpu_checkpointing: hint(boolean, false, memoryOnly),
    contiguous_memory_optimization: hint(boolean, false, memoryOnly),
    synchronize_checkpoint_boundary: hint(boolean, false, memoryOnly),
    profile: hint(boolean, false, 'a trace shows the time of recomputation'),
  },
  { aliases: { partitioned_activations: 'partition_activations' } },
)

export const checkpoint = section('Checkpoints.', {
  async_save: served(
    boolean,
    false,
    'training goes on while a checkpoint is written; ours. Not with the "nvme" device',
  ),
  tag_validation: hint(
    oneOf(['Warn', 'Ignore', 'Fail'], true),
    'Warn',
    "the folder's name is the step, the same on all ranks",
  ),
  load_universal: hint(boolean, false, 'every checkpoint loads on every layout'),
  use_node_local_storage: refused(boolean, false, 'all ranks write to one folder; give a shared one'),
  parallel_write: section('', { pipeline_stage: hint(boolean, false, 'every rank writes its part') }),
  checkpoint_serialization: hint(boolean, true, 'the format is safetensors'),
  writer: hintSection('there is one writer', {
    type: served(string, 'fast', ''),
    decoupled: served(boolean, false, ''),
    io_buffer_size: served(size, 64 * 2 ** 20, ''),
    io_buffer_double: served(boolean, true, ''),
    data_parallel: served(anything, null, ''),
    io_multiplier: served(size, 1, ''),
    show_statistics: served(boolean, false, ''),
  }),
})
