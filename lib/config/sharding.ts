// DeepSpeed's sections on where things lie: ZeRO, offload, parallelism, checkpoints.

import { hint, hintSection, refused, refusedSection, section, served } from './schema.js'
import { anything, boolean, integer, list, nullable, number, oneOf, string } from './values.js'

const size = integer()
const buckets = 'a transformer block is one bucket'
const stage3 = 'it tunes stage 3'

const offloadKeys = {
  device: served(oneOf(['none', 'cpu', 'nvme']), 'none', ''),
  nvme_path: served(nullable(string), null, ''),
  buffer_count: served(size, 4, ''),
  buffer_size: served(number({ min: 0 }), 1e8, ''),
  max_in_cpu: served(number({ min: 0 }), 1e9, ''),
  pin_memory: served(boolean, true, ''),
  pipeline_read: served(boolean, false, ''),
  pipeline_write: served(boolean, false, ''),
  fast_init: served(boolean, false, ''),
  ratio: served(number({ min: 0, max: 1 }), 1, ''),
  super_offload: served(boolean, false, ''),
  cpuadam_cores_perc: served(number({ above: 0, max: 1 }), 0.8, ''),
}
const offload = refusedSection('offload is not there yet; leave it out', offloadKeys, {
  active: (given) => given.device !== undefined && given.device !== 'none',
})

export const zeroOptimization = section(
  'ZeRO.',
  {
    stage: served(
      integer({ min: 0, max: 3 }),
      0,
      '0: replicated; 1: optimizer states sharded over the data-parallel ranks',
    ),
    overlap_comm: served(nullable(boolean), null, 'reduce while backward runs; default true'),
    contiguous_gradients: hint(boolean, true, 'gradients always lie in flat buffers'),
    reduce_scatter: hint(boolean, true, 'each stage uses the collective that moves least'),
    reduce_bucket_size: served(size, 5e8, 'elements that are reduced together; a larger block is cut'),
    allgather_partitions: hint(boolean, true, 'each stage uses the collective that moves least'),
    allgather_bucket_size: hint(size, 5e8, buckets),
    use_multi_rank_bucket_allreduce: hint(boolean, true, buckets),
    round_robin_gradients: hint(boolean, false, buckets),
    load_from_fp32_weights: hint(boolean, true, 'checkpoints always hold the f32 weights'),
    elastic_checkpoint: hint(boolean, false, 'every checkpoint loads on every layout'),
    sub_group_size: hint(number({ above: 0 }), 1e9, buckets),
    ignore_unused_parameters: hint(boolean, true, 'unused parameters have zero gradients'),
    legacy_stage1: refused(boolean, false, 'there is one stage 1'),
    zero_hpz_partition_size: refused(integer({ min: 1 }), 1, 'hierarchical partitioning (ZeRO++) is not there yet'),
    zero_quantized_weights: refused(boolean, false, 'quantised communication (ZeRO++) is not there yet'),
    zero_quantized_nontrainable_weights: refused(boolean, false, 'quantised communication (ZeRO++) is not there yet'),
    zero_quantized_gradients: refused(boolean, false, 'quantised communication (ZeRO++) is not there yet'),
    zeropp_loco_param: refused(anything, null, 'quantised communication (ZeRO++) is not there yet'),
    mics_shard_size: refused(integer({ min: -1 }), -1, 'MiCS is not there yet'),
    mics_hierarchical_params_gather: refused(boolean, false, 'MiCS is not there yet'),
    memory_efficient_linear: hint(boolean, true, 'linears never keep more than they need'),
    pipeline_loading_checkpoint: hint(boolean, false, 'loading reads only what the rank needs'),
    override_module_apply: hint(boolean, true, 'initial values do not depend on the layout'),
    log_trace_cache_warnings: hint(boolean, false, 'there is no trace to invalidate'),
    enable_sanity_checks: hint(boolean, false, 'checks are always on'),
    save_muon_momentum_buffer_in_memory: hint(boolean, false, 'it is of Muon'),
    stage3_prefetch_bucket_size: served(size, 5e7, 'elements to gather ahead of their use; 0: none'),
    stage3_param_persistence_threshold: served(size, 1e5, 'parameters of fewer elements stay whole'),
    stage3_model_persistence_threshold: hint(number({ min: 0 }), Number.MAX_SAFE_INTEGER, stage3),
    stage3_max_live_parameters: served(
      number({ min: 0 }),
      1e9,
      'elements gathered at a time, those fetched ahead included',
    ),
    stage3_max_reuse_distance: hint(number({ min: 0 }), 1e9, stage3),
    stage3_gather_16bit_weights_on_model_save: hint(boolean, false, 'every checkpoint holds all weights'),
    stage3_module_granularity_threshold: hint(size, 0, stage3),
    stage3_use_all_reduce_for_fetch_params: hint(boolean, false, stage3),
    stage3_allgather_sequential: hint(boolean, false, stage3),
    leaf_module: hintSection('a transformer block is always fetched whole', {
      classes: served(list(string), [], ''),
      names: served(list(string), [], ''),
      name_suffixes: served(list(string), [], ''),
    }),
    offload_optimizer: offload,
    offload_param: offload,
    zenflow: refusedSection('ZenFlow is not there; leave it out', {
      topk_ratio: served(number(), 0.1, ''),
      select_strategy: served(anything, 'auto', ''),
      select_interval: served(anything, 'auto', ''),
      update_interval: served(anything, 'auto', ''),
      overlap_step: served(boolean, false, ''),
      offload: served(boolean, false, ''),
      auto_ratio: served(number(), 0.99, ''),
      full_warm_up_rounds: served(size, 0, ''),
      pt_reserved_cores_perc: served(number(), 0.5, ''),
    }),
  },
  {
    shorthand: (value) => (value === true ? { stage: 1 } : value === false ? {} : value),
    aliases: Object.fromEntries(
      [
        'prefetch_bucket_size',
        'param_persistence_threshold',
        'model_persistence_threshold',
        'max_live_parameters',
        'max_reuse_distance',
        'gather_16bit_weights_on_model_save',
        'module_granularity_threshold',
        'use_all_reduce_for_fetch_params',
        'allgather_sequential',
      ]
        .map((name) => [name, `stage3_${name}`])
        .concat([['stage3_gather_fp16_weights_on_model_save', 'stage3_gather_16bit_weights_on_model_save']]),
    ),
  },
)

export const aio = hintSection('there is no NVMe offload yet', {
  block_size: served(size, 2 ** 20, ''),
  queue_depth: served(size, 8, ''),
  intra_op_parallelism: served(size, 1, ''),
  thread_count: served(size, 1, ''),
  single_submit: served(boolean, false, ''),
  overlap_events: served(boolean, true, ''),
  use_gds: served(boolean, false, ''),
})

export const pipeline = section("DeepSpeed's pipeline keys.", {
  stages: served(nullable(integer({ min: 1 })), null, 'the same as mesh.pipeline'),
  partition: hint(string, 'best', 'there is no pipeline yet'),
  seed_layers: hint(boolean, false, 'initial values do not depend on the layout'),
  activation_checkpoint_interval: refused(size, 0, 'use activation_checkpointing.number_checkpoints'),
  pipe_partitioned: hint(boolean, true, 'there is no pipeline yet'),
  grad_partitioned: hint(boolean, true, 'there is no pipeline yet'),
})

export const tensorParallel = section(
  "DeepSpeed's tensor-parallel keys.",
  {
    autotp_size: served(size, 0, 'the same as mesh.tensor; 0: not given'),
    tp: section('The same, older.', {
      tp_size: served(integer({ min: 1 }), 1, 'the same as mesh.tensor'),
      tp_grain_size: hint(size, 1, 'heads are not cut'),
    }),
    dtype: hint(string, 'fp16', "the model's dtype counts"),
    tp_overlap_comm: hint(boolean, false, 'it moves time only'),
    preset_model: refused(nullable(string), null, 'models say themselves how they are cut'),
    partition_config: refused(anything, null, 'models say themselves how they are cut'),
    injection_policy_tuple: refused(anything, null, 'models say themselves how they are cut'),
    keep_module_on_host: hint(boolean, false, 'parameters have no memory before they are placed'),
    replace_with_kernel_inject: hint(boolean, false, 'there is one set of kernels'),
  },
  { aliases: { tensor_parallel_size: 'autotp_size' } },
)

export const expertParallel = section("DeepSpeed's expert-parallel keys.", {
  enabled: refused(boolean, false, 'expert parallelism is not there yet'),
  autoep_size: served(integer({ min: 1 }), 1, 'the same as mesh.expert'),
  expert_tensor_parallel_size: refused(integer({ min: 1 }), 1, 'expert parallelism is not there yet'),
  preset_model: refused(nullable(string), null, 'models say themselves how they are cut'),
})

export const checkpoint = section('Checkpoints.', {
  tag_validation: hint(
    oneOf(['Warn', 'Ignore', 'Fail'], true),
    'Warn',
    "the folder's name is the step, the same on all ranks",
  ),
  load_universal: hint(boolean, false, 'every checkpoint loads on every layout'),
  use_node_local_storage: refused(boolean, false, 'all ranks write to one folder'),
  parallel_write: section('', { pipeline_stage: hint(boolean, false, 'every rank writes its part') }),
  checkpoint_serialization: hint(boolean, true, 'the format is safetensors'),
  writer: hintSection('there is one writer', {
    type: served(string, 'fast', ''),
    decoupled: served(boolean, false, ''),
    io_buffer_size: served(size, 0, ''),
    io_buffer_double: served(boolean, true, ''),
    data_parallel: served(anything, null, ''),
    io_multiplier: served(size, 1, ''),
    show_statistics: served(boolean, false, ''),
  }),
})
