// DeepSpeed's ZeRO section with offload, and aio.

import { hint, refused, refusedSection, section, served } from './schema.js'
import {
  anything,
  boolean,
  integer,
  list,
  nullable,
  number,
  oneOf,
  orNull,
  path,
  string,
  type ValueType,
} from './values.js'

const size = integer()
/** DeepSpeed's limits go up to sys.maxsize, which no double holds exactly. */
const limit = number({ min: 0 })

const device = oneOf(['none', 'cpu', 'nvme'])
const places = {
  device: served(device, 'none', 'where they lie between uses: with the model, in host memory, on a fast disk'),
  nvme_path: served(nullable(path), null, 'folder on the disk; needed for "nvme"'),
  pin_memory: hint(boolean, true, 'kernels work in host memory itself'),
}

const offloadOptimizer = section(
  'Master weights and moments outside of the device, updated by the CPU.',
  {
    ...places,
    buffer_count: served(
      integer({ min: 1 }),
      4,
      'parts that are in memory at a time with "nvme"; from 2 on the disk works beside the update',
    ),
    pipeline_read: hint(boolean, false, 'reads run ahead wherever buffer_count is 2 or more'),
    pipeline_write: hint(boolean, false, 'writes run behind wherever buffer_count is 2 or more'),
    fast_init: hint(boolean, false, 'the first states are zeros, which need no writing'),
    ratio: served(number({ min: 0, max: 1 }), 1, 'part of the states that is offloaded; the rest stays on the device'),
    super_offload: refused(boolean, false, 'speculative updates are not here; leave it out'),
    cpuadam_cores_perc: hint(number({ min: 0, max: 1 }), 0.8, 'all threads of the rank update'),
  },
  { auto: true },
)

const offloadParam = section(
  'Parameters outside of the device, fetched unit by unit. At stage 3.',
  {
    ...places,
    buffer_count: hint(size, 5, 'shards are read straight to their place in the gathered unit'),
    buffer_size: hint(limit, 1e8, 'shards are read straight to their place in the gathered unit'),
    max_in_cpu: served(limit, 1e9, 'elements of this rank that stay in host memory with "nvme"'),
  },
  { auto: true },
)

const zenflow = refusedSection('ZenFlow is not here; use offload_optimizer alone', {
  topk_ratio: served(anything, 0.1, ''),
  select_strategy: served(anything, 'auto', ''),
  select_interval: served(anything, 'auto', ''),
  update_interval: served(anything, 'auto', ''),
  overlap_step: served(anything, false, ''),
  offload: served(anything, false, ''),
  auto_ratio: served(anything, 0.99, ''),
  full_warm_up_rounds: served(anything, 0, ''),
  pt_reserved_cores_perc: served(anything, 0.5, ''),
  steps_per_epoch: served(anything, null, ''),
})

const stage3 = {
  stage3_prefetch_bucket_size: served(size, 5e7, 'elements to gather ahead of their use; 0: none'),
  stage3_param_persistence_threshold: served(size, 1e5, 'parameters of fewer elements stay whole on every rank'),
  stage3_model_persistence_threshold: hint(
    limit,
    Number.MAX_SAFE_INTEGER,
    'stage3_param_persistence_threshold alone says what stays whole',
  ),
  stage3_max_live_parameters: served(limit, 1e9, 'elements gathered at a time, those fetched ahead included'),
  stage3_max_reuse_distance: hint(limit, 1e9, 'stage3_max_live_parameters says when a unit is released'),
  stage3_gather_16bit_weights_on_model_save: hint(boolean, false, 'every checkpoint holds all weights'),
  stage3_module_granularity_threshold: hint(size, 0, 'a transformer block is always fetched whole'),
  stage3_use_all_reduce_for_fetch_params: hint(boolean, false, 'units are gathered; the values are the same'),
  stage3_allgather_sequential: hint(boolean, false, 'a unit is one collective'),
}

const zeropp = 'hierarchical partitioning and quantised communication (ZeRO++) are not here; leave it out'
const mics = 'MiCS is not here; use zero_optimization.stage 3 over all ranks'

/** `true` (an old switch) as a device: null where it is off. */
const switchToCpu: ValueType<{ device: 'cpu' } | null> = {
  label: 'true or false',
  read: (v) => (v === true ? { device: 'cpu' } : v === false || v === null || v === 'auto' ? null : undefined),
}

export const zeroOptimization = section(
  'What of the model is sharded over the data-parallel ranks. `true` means stage 1.',
  {
    stage: served(
      integer({ min: 0, max: 3 }) as ValueType<0 | 1 | 2 | 3>,
      0,
      '0: nothing; 1: optimizer states; 2: and gradients; 3: and parameters',
    ),
    overlap_comm: served(orNull(boolean, true), true, 'gradients are reduced while backward still runs'),
    reduce_bucket_size: served(size, 5e8, 'elements that are reduced together; a larger block is cut'),
    allgather_bucket_size: hint(
      size,
      5e8,
      'a unit (reduce_bucket_size) is gathered at once, to where its parameters lie, without a bucket',
    ),
    contiguous_gradients: hint(boolean, true, 'gradients always lie in flat buffers'),
    reduce_scatter: hint(boolean, true, 'each stage uses the collective that moves least'),
    allgather_partitions: hint(boolean, true, 'each stage uses the collective that moves least'),
    use_multi_rank_bucket_allreduce: hint(boolean, true, 'each stage uses the collective that moves least'),
    round_robin_gradients: hint(boolean, false, 'every rank holds a part of every unit, so all copy alike'),
    load_from_fp32_weights: hint(boolean, true, 'checkpoints always hold the f32 weights'),
    elastic_checkpoint: hint(boolean, false, 'every checkpoint loads on every layout'),
    sub_group_size: hint(limit, 1e9, 'a unit is what is updated at a time'),
    ignore_unused_parameters: hint(boolean, true, 'parameters that are not used have zero gradients'),
    memory_efficient_linear: hint(boolean, true, 'linears never keep more than they need'),
    pipeline_loading_checkpoint: hint(boolean, false, 'loading reads only what the rank needs'),
    override_module_apply: hint(boolean, true, 'initial values do not depend on the layout'),
    log_trace_cache_warnings: hint(boolean, false, 'there is no trace to invalidate'),
    enable_sanity_checks: hint(boolean, false, 'checks are always on'),
    save_muon_momentum_buffer_in_memory: hint(boolean, false, 'it moves memory only'),
    cpu_offload_use_pin_memory: hint(
      nullable(boolean),
      null,
      'DeepSpeed only warns of it; use pin_memory of offload_optimizer and offload_param',
    ),
    legacy_stage1: refused(boolean, false, 'there is one stage 1; leave it out'),
    zero_hpz_partition_size: refused(integer({ min: 0 }), 1, zeropp),
    zero_quantized_weights: refused(boolean, false, zeropp),
    zero_quantized_nontrainable_weights: refused(boolean, false, zeropp),
    zero_quantized_gradients: refused(boolean, false, zeropp),
    zeropp_loco_param: refused(anything, null, zeropp),
    mics_shard_size: refused(integer({ min: -1 }), -1, mics),
    mics_hierarchical_params_gather: refused(boolean, false, mics),
    ...stage3,
    leaf_module: section(
      'Stage 3: modules fetched whole, so that ranks may take different ways through them; each rank uses at least one ' +
        'of its parameters. Layers in lists are fetched whole without being named.',
      {
        classes: served(list(string), [], 'names of classes; of a dotted one the last part'),
        names: served(list(string), [], 'paths in the model'),
        name_suffixes: served(list(string), [], 'ends of paths'),
      },
    ),
    offload_optimizer: offloadOptimizer,
    offload_param: offloadParam,
    zenflow,
  },
  {
    auto: true,
    shorthand: (value) => (value === true ? { stage: 1 } : value === false ? {} : value),
    aliases: {
      ...Object.fromEntries(Object.keys(stage3).map((name) => [name.replace('stage3_', ''), name])),
      stage3_gather_fp16_weights_on_model_save: 'stage3_gather_16bit_weights_on_model_save',
    },
    deprecated: {
      cpu_offload: {
        to: 'offload_optimizer',
        convert: switchToCpu,
        text: 'deprecated, read as offload_optimizer { "device": "cpu" }',
      },
      cpu_offload_param: {
        to: 'offload_param',
        convert: switchToCpu,
        text: 'deprecated, read as offload_param { "device": "cpu" }',
      },
    },
  },
)

export const aio = section(
  'Reads and writes of the "nvme" device.',
  {
    block_size: served(integer({ min: 4096, max: 2 ** 30 - 1 }), 2 ** 20, 'bytes of one read or write'),
    queue_depth: served(integer({ min: 1, max: 4096 }), 8, 'reads and writes under way at a time'),
    intra_op_parallelism: served(integer({ min: 1, max: 256 }), 1, 'threads that issue them'),
    single_submit: served(boolean, false, 'they are issued one by one'),
    overlap_events: served(boolean, true, 'new ones are issued as others are done; false: batch after batch'),
    use_gds: refused(boolean, false, 'GPUDirect Storage is not here; leave it out'),
  },
  { aliases: { thread_count: 'intra_op_parallelism' } },
)
