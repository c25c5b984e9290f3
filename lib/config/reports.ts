// Sections on what a run tells: DeepSpeed's monitors and profilers, and two sinks of our own.

import { hint, hintSection, refusedSection, section, served } from './schema.js'
import { anything, boolean, integer, list, nullable, number, path, string, type ValueType } from './values.js'

const size = integer()
const off = served(boolean, false, 'whether it is written')
const any = served(anything, null, '')

/** DeepSpeed's default is an empty text. */
const folder: ValueType<string | null> = {
  label: 'the path of a folder, or ""',
  read: (v) => (v === '' || v === null ? null : path.read(v)),
}
const jobName = served(string, 'DeepSpeedJobName', 'folder (or name of the file) in output_path')
const sink = (text: string) =>
  section(
    text,
    { enabled: off, output_path: served(folder, null, 'folder; null: that of the run'), job_name: jobName },
    { auto: true },
  )

const service = (name: string, keys: readonly string[]) =>
  refusedSection(
    `${name} is a service on the network; use tensorboard or csv_monitor, which it can import`,
    Object.fromEntries(['enabled', ...keys].map((key) => [key, any])),
    { auto: true },
  )

export const reports = {
  tensorboard: sink('Event files of TensorBoard.'),
  csv_monitor: sink('A CSV file for each metric.'),
  jsonl_monitor: sink('A file of one JSON object per step, with the events that the others get. Ours.'),
  prometheus: sink('A file for the textfile collector of Prometheus. Ours.'),
  wandb: service('Weights & Biases', ['group', 'team', 'project']),
  comet: service('Comet', [
    ...[
      'samples_log_interval',
      'project',
      'workspace',
      'api_key',
      'experiment_name',
      'experiment_key',
      'online',
      'mode',
    ],
  ]),
  flops_profiler: section('Floating-point operations and time of a step.', {
    enabled: off,
    profile_step: served(integer({ min: 1 }), 1, 'the step that is measured'),
    module_depth: served(integer({ min: -1 }), -1, 'depth of modules that are told; -1: all'),
    top_modules: served(integer({ min: 1 }), 1, 'modules that are told of each depth'),
    detailed: served(boolean, true, 'tell every module'),
    output_file: served(nullable(path), null, 'file instead of the terminal'),
    recompute_fwd_factor: served(number({ min: 0 }), 0, 'forward passes that recomputation adds'),
  }),
  comms_logger: section(
    'Count, bytes and time of each collective.',
    {
      enabled: off,
      verbose: served(boolean, false, 'tell each collective as it ends'),
      prof_all: served(boolean, true, 'false: only prof_ops'),
      debug: served(boolean, false, 'tell where each was called'),
      prof_ops: served(list(string), [], 'collectives by name'),
    },
    { auto: true },
  ),
  timers: hintSection('the progress line and --metrics tell the throughput', {
    throughput: hintSection(
      'the progress line and --metrics tell the throughput',
      { enabled: served(boolean, true, ''), synchronized: served(boolean, true, '') },
      { auto: true },
    ),
  }),
}

export const elasticity = section('A batch size that fits many numbers of ranks, chosen from the limits given.', {
  enabled: served(boolean, false, 'choose train_batch_size, micro-batch and accumulation; they are then not given'),
  max_train_batch_size: served(integer({ min: 1, max: 1e9 }), 2000, 'largest train_batch_size'),
  micro_batch_sizes: served(list(integer({ min: 1, max: 1e6 }), undefined, true), [2, 4, 6], 'micro-batches to use'),
  min_gpus: served(integer({ min: 1 }), 1, 'fewest ranks'),
  max_gpus: served(integer({ min: 1 }), 10000, 'most ranks'),
  prefer_larger_batch: served(boolean, true, 'of batch sizes that fit as many numbers of ranks, the largest'),
  ignore_non_elastic_batch_info: served(boolean, false, 'batch sizes that are given as well are not used'),
  version: served(elasticVersion(), 0.2, '0.1: only the numbers of ranks that fit the chosen batch; 0.2: any'),
  num_gpus_per_node: served(integer({ min: 1 }), 1, 'ranks of a host, which come and go together (0.2)'),
  model_parallel_size: served(integer({ min: 1 }), 1, 'ranks of one model: pipeline x tensor x context (0.2)'),
  min_time: hint(size, 0, 'it is for a scheduler of jobs; DeepSpeed does not use it either'),
})

/** As a text too, which DeepSpeed's examples have. */
function elasticVersion(): ValueType<0.1 | 0.2> {
  const read = (v: unknown): 0.1 | 0.2 | undefined => {
    const version = typeof v === 'string' ? Number(v) : v
    return version === 0.1 || version === 0.2 ? version : undefined
  }
  return { label: '0.1 or 0.2', read }
}
