// DeepSpeed's sections on reports, and those of features that are not here.

import { hint, hintSection, type Keys, refusedSection, served } from './schema.js'
import { anything, boolean, integer, list, nullable, number, string } from './values.js'

const yes = served(boolean, true, '')
const no = served(boolean, false, '')
const any = served(anything, null, '')
const text = served(nullable(string), null, '')
const size = served(integer(), 0, '')
const decimal = served(number(), 0, '')

const printed = 'the progress line and --metrics tell it'
export const reportScalars = {
  steps_per_print: hint(nullable(number({ min: 0 })), null, printed),
  wall_clock_breakdown: hint(boolean, false, printed),
  memory_breakdown: hint(boolean, false, printed),
  dump_state: hint(boolean, false, printed),
  log_level: hint(nullable(string), null, printed),
  vocabulary_size: hint(nullable(integer()), null, "the model's vocab_size counts"),
  disable_allgather: hint(boolean, false, 'it tunes communication only'),
  graph_harvesting: hint(boolean, false, 'it moves time only'),
  use_data_before_expert_parallelism: hint(boolean, false, 'there are no experts yet'),
  data_parallel_size: hint(nullable(integer()), null, 'it follows from the world and the mesh'),
}

const monitor = (keys: Keys) => hintSection('use --metrics, one JSON object per step', { enabled: no, ...keys })
const legacy = (keys: Keys = {}) => refusedSection('it is not here; leave it out', { enabled: no, ...keys })

export const others = {
  flops_profiler: hintSection('no profile is printed yet', {
    enabled: no,
    profile_step: size,
    module_depth: served(integer({ min: -1 }), -1, ''),
    top_modules: size,
    detailed: yes,
    output_file: text,
    recompute_fwd_factor: decimal,
  }),
  comms_logger: hintSection('no log of communication is printed yet', {
    enabled: no,
    verbose: no,
    prof_all: yes,
    debug: no,
    prof_ops: served(list(string), [], ''),
  }),
  tensorboard: monitor({ output_path: text, job_name: text }),
  csv_monitor: monitor({ output_path: text, job_name: text }),
  wandb: monitor({ group: text, team: text, project: text }),
  comet: monitor({
    samples_log_interval: size,
    project: text,
    workspace: text,
    api_key: text,
    experiment_name: text,
    experiment_key: text,
    online: any,
    mode: text,
  }),
  timers: hintSection(printed, { throughput: hintSection(printed, { enabled: yes, synchronized: yes }) }),
  elasticity: legacy({
    max_train_batch_size: size,
    micro_batch_sizes: any,
    min_gpus: size,
    max_gpus: size,
    min_time: size,
    prefer_larger_batch: yes,
    ignore_non_elastic_batch_info: no,
    version: any,
    num_gpus_per_node: size,
    model_parallel_size: size,
  }),
  autotuning: legacy({
    fast: yes,
    metric: text,
    overwrite: yes,
    tuner_type: text,
    start_profile_step: size,
    end_profile_step: size,
    tuner_early_stopping: size,
    tuner_num_trials: size,
    results_dir: text,
    exps_dir: text,
    arg_mappings: any,
  }),
  hybrid_engine: legacy({
    max_out_tokens: size,
    inference_tp_size: size,
    release_inference_cache: no,
    pin_parameters: yes,
    tp_gather_partition_size: size,
    enable_cuda_graph: no,
  }),
  progressive_layer_drop: legacy({ theta: decimal, gamma: decimal }),
  curriculum_learning: legacy({
    curriculum_type: any,
    min_difficulty: size,
    max_difficulty: size,
    schedule_type: any,
    schedule_config: any,
  }),
  data_efficiency: legacy({ seed: size, data_routing: any, data_sampling: any }),
  compression_training: legacy({
    weight_quantization: any,
    activation_quantization: any,
    sparse_pruning: any,
    row_pruning: any,
    head_pruning: any,
    channel_pruning: any,
    layer_reduction: any,
  }),
  quantize_training: legacy({ quantize_bits: any, quantize_schedule: any, quantize_groups: any }),
  sparse_attention: refusedSection('attention is exact; leave it out', {
    mode: any,
    block: any,
    different_layout_per_head: any,
    num_local_blocks: any,
    num_global_blocks: any,
    attention: any,
  }),
  nebula: legacy({
    persistent_storage_path: text,
    persistent_time_interval: size,
    num_of_version_in_retention: size,
    enable_nebula_load: yes,
  }),
  datastates_ckpt: refusedSection('it is not here; leave it out', {
    host_cache_size: any,
    parser_threads: any,
    pin_host_cache: any,
  }),
  weight_quantization: refusedSection('it is not here; leave it out', {
    quantized_initialization: any,
    post_init_quant: any,
  }),
}
