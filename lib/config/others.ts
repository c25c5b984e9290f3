// DeepSpeed's sections of features that are not here. Their names are known, so that each is refused (or said to
// change nothing) with a reason; what their keys hold does not matter.

import { hintSection, refusedSection, served } from './schema.js'
import { anything, boolean } from './values.js'

const any = served(anything, null, '')
const keysOf = (...names: string[]) => Object.fromEntries(names.map((name) => [name, any]))
const switched = (text: string, ...names: string[]) =>
  refusedSection(text, { enabled: served(boolean, false, ''), ...keysOf(...names) })

const here = 'is not here; leave it out'
const exact = 'attention here is exact and never builds the matrix; leave it out'
const quantised = 'training with quantised weights or activations is not here; use bf16'

export const others = {
  compile: hintSection(
    'kernels are compiled ahead of time',
    keysOf(
      ...['backend', 'kwargs', 'deepcompile', 'passes', 'double_buffer', 'keep_int_input_tensors'],
      ...['keep_all_input_tensors', 'offload_activation_pin_memory', 'free_activation', 'free_activation_threshold'],
      ...['offload_activation', 'offload_opt_states', 'offload_parameters', 'symmetric_memory', 'debug_log'],
      ...['sync_before_reduce', 'sync_after_reduce', 'sync_before_allgather', 'sync_after_allgather'],
    ),
    { auto: true },
  ),
  autotuning: switched(
    `a search by trial runs ${here}`,
    ...['fast', 'metric', 'metric_path', 'overwrite', 'tuner_type', 'start_profile_step', 'end_profile_step'],
    ...['tuner_early_stopping', 'tuner_num_trials', 'results_dir', 'exps_dir', 'arg_mappings', 'model_info'],
    ...['model_info_path', 'mp_size', 'max_train_batch_size', 'min_train_batch_size'],
    ...['max_train_micro_batch_size_per_gpu', 'min_train_micro_batch_size_per_gpu', 'num_tuning_micro_batch_sizes'],
  ),
  hybrid_engine: refusedSection(
    `switching between training and generation ${here}`,
    keysOf(
      ...['enabled', 'max_out_tokens', 'inference_tp_size', 'release_inference_cache', 'pin_parameters'],
      ...['tp_gather_partition_size', 'enable_cuda_graph'],
    ),
    { auto: true },
  ),
  progressive_layer_drop: switched(`progressive layer drop ${here}`, 'theta', 'gamma'),
  curriculum_learning: switched(
    'the length of samples is fixed; order the data beforehand',
    ...['curriculum_type', 'min_difficulty', 'max_difficulty', 'schedule_type', 'schedule_config'],
  ),
  data_efficiency: switched(
    'samples are drawn evenly; order the data beforehand',
    ...['seed', 'data_routing'],
    'data_sampling',
  ),
  compression_training: refusedSection(
    quantised,
    keysOf(
      ...['weight_quantization', 'activation_quantization', 'sparse_pruning', 'row_pruning', 'head_pruning'],
      ...['channel_pruning', 'layer_reduction'],
    ),
  ),
  quantize_training: switched(
    quantised,
    ...['quantize_bits', 'quantize_type', 'quantize_schedule', 'quantize_groups', 'quantize_algo', 'quantize_verbose'],
    ...['quantize_eigenvalue', 'quantizer_kernel', 'fp16_mixed_quantize', 'eigenvalue', 'schedule_offset'],
  ),
  weight_quantization: refusedSection(quantised, keysOf('quantized_initialization', 'post_init_quant')),
  eigenvalue: switched(
    quantised,
    ...['verbose', 'max_iter', 'tol', 'stability', 'gas_boundary_resolution', 'layer_name', 'layer_num'],
  ),
  sparse_attention: refusedSection(
    exact,
    keysOf(
      ...['mode', 'block', 'different_layout_per_head', 'num_local_blocks', 'num_global_blocks', 'attention'],
      ...['horizontal_global_attention', 'num_different_global_patterns', 'num_random_blocks', 'local_window_blocks'],
      ...['global_block_indices', 'global_block_end_indices', 'num_sliding_window_blocks'],
    ),
  ),
  nebula: switched(
    'a service of Azure; checkpoints go to train.output',
    ...['persistent_storage_path', 'persistent_time_interval', 'num_of_version_in_retention', 'enable_nebula_load'],
    'load_path',
  ),
  datastates_ckpt: refusedSection(
    `this writer ${here}`,
    keysOf('host_cache_size', 'parser_threads', 'pin_host_cache', 'config'),
  ),
}
